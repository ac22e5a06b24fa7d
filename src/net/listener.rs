//! The listening sockets, one for each family.
//!
//! Owns: bind and re-bind while running, MD5 keys, and whom an accepted connection is given to. Never: speaks BGP; a
//! connection goes to its peer's task at once. BGP-4, 5, 7, 8; T9, T11, T13, P5.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::Endpoints;
use bgp_proto::{Afi, IpPrefix};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::caller::{Accepted, Caller, decide};
use super::md5::listener_keys;
use super::strangers::Strangers;
use super::{sockopt, ttl_filter};
use crate::desired::Listen;
use crate::model::SecretBytes;

/// Calls that may wait for us: a whole cluster dials after a restart.
const BACKLOG: i32 = 1024;
/// Pause before the port is tried again, doubling between these.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Pause of accepting where the process has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(250);
/// How often that is told.
const EXHAUSTED_LOG: Duration = Duration::from_secs(60);
/// Calls that may wait for their OPEN.
const UNDECIDED: usize = 64;

/// What the listener shall do.
#[derive(Clone, Debug, Default)]
pub struct ListenPlan {
    /// Sockets.
    pub sockets: BTreeMap<Afi, Listen>,
    /// Peers in order of name.
    pub callers: Vec<Caller>,
}

/// How the listener fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenStatus {
    /// The address in use, or why there is none.
    pub sockets: BTreeMap<Afi, Result<SocketAddr, String>>,
    /// Calls from addresses of no peer since the start.
    pub strangers: u64,
    /// Some of those addresses, of the last minute or two.
    pub recent: Vec<IpAddr>,
    /// Peers whose MD5 key the kernel did not take, and why: their calls are refused.
    pub keyless: BTreeMap<IpPrefix, String>,
}

impl ListenStatus {
    /// Why calls from an address cannot be accepted though it is a peer's, if they cannot.
    pub fn refuses(&self, addr: IpAddr) -> Option<&str> {
        let socket = self.sockets.get(&Afi::of(addr)).and_then(|socket| socket.as_ref().err());
        let keyless = self.keyless.iter().find(|(prefix, _)| prefix.contains(addr)).map(|(_, why)| why);
        socket.or(keyless).map(String::as_str)
    }
}

struct Bound {
    listener: TcpListener,
    wanted: Listen,
    keys: Keys,
    /// The least TTL of each address that has one.
    near: Vec<(IpAddr, u8)>,
}

/// The keys of a socket.
#[derive(Default)]
struct Keys {
    held: BTreeMap<IpPrefix, SecretBytes>,
    /// Those that the kernel did not take, and why.
    missing: BTreeMap<IpPrefix, String>,
}

#[derive(Default)]
struct Slot {
    bound: Option<Bound>,
    retry: Option<(Instant, Duration)>,
    complaint: Option<String>,
}

/// Serves until `stop`.
pub async fn run(
    mut plan: watch::Receiver<Arc<ListenPlan>>,
    status: watch::Sender<ListenStatus>,
    stop: CancellationToken,
) {
    let mut state = Listening {
        plan: plan.borrow_and_update().clone(),
        v4: Slot::default(),
        v6: Slot::default(),
        strangers: Strangers::default(),
        undecided: JoinSet::new(),
        paused: None,
        exhausted_told: None,
        status,
    };
    state.apply();
    loop {
        let paused = state.paused;
        let retry = [&state.v4, &state.v6].iter().filter_map(|slot| slot.retry.map(|(at, _)| at)).min();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = plan.changed() => {
                if changed.is_err() {
                    return;
                }
                state.plan = plan.borrow_and_update().clone();
                state.apply();
            }
            call = accept(&state.v4), if paused.is_none() => state.accepted(call),
            call = accept(&state.v6), if paused.is_none() => state.accepted(call),
            () = sleep_until(paused.unwrap_or_else(Instant::now)), if paused.is_some() => state.paused = None,
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => state.apply(),
            () = sleep_until(state.strangers.due()), if state.strangers.pending() => {
                state.strangers.tell();
                state.publish();
            }
            Some(_) = state.undecided.join_next(), if !state.undecided.is_empty() => {}
        }
    }
}

async fn accept(slot: &Slot) -> io::Result<(TcpStream, SocketAddr)> {
    match &slot.bound {
        Some(bound) => bound.listener.accept().await,
        None => std::future::pending().await,
    }
}

struct Listening {
    plan: Arc<ListenPlan>,
    v4: Slot,
    v6: Slot,
    strangers: Strangers,
    /// Calls from an address that several peers have, until their OPEN tells which it is.
    undecided: JoinSet<()>,
    paused: Option<Instant>,
    exhausted_told: Option<Instant>,
    status: watch::Sender<ListenStatus>,
}

impl Listening {
    /// Brings sockets and keys to what the plan says.
    fn apply(&mut self) {
        let plan = self.plan.clone();
        for afi in Afi::ALL {
            let keys =
                listener_keys(afi, plan.callers.iter().map(|caller| (caller.addr, caller.key.as_ref())));
            let slot = if afi == Afi::Ipv4 { &mut self.v4 } else { &mut self.v6 };
            slot.apply(afi, plan.sockets.get(&afi).copied(), keys, near(&plan.callers));
        }
        self.publish();
    }

    fn publish(&self) {
        let mut sockets = BTreeMap::new();
        for (afi, slot) in [(Afi::Ipv4, &self.v4), (Afi::Ipv6, &self.v6)] {
            if let Some(bound) = &slot.bound
                && let Ok(addr) = bound.listener.local_addr()
            {
                sockets.insert(afi, Ok(addr));
            }
            if let Some(complaint) = &slot.complaint {
                sockets.insert(afi, Err(complaint.clone()));
            }
        }
        let (strangers, recent) = (self.strangers.total, self.strangers.recent.clone());
        let bound = [&self.v4, &self.v6].into_iter().filter_map(|slot| slot.bound.as_ref());
        let keyless = bound.flat_map(|bound| bound.keys.missing.clone()).collect();
        self.status.send_if_modified(|status| {
            let now = ListenStatus { sockets, strangers, recent, keyless };
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    fn accepted(&mut self, call: io::Result<(TcpStream, SocketAddr)>) {
        match call {
            Ok((stream, remote)) => self.hand_over(stream, remote),
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    let now = Instant::now();
                    if self.exhausted_told.is_none_or(|told| now >= told + EXHAUSTED_LOG) {
                        warn!(%error, "cannot accept connections; established sessions go on");
                        self.exhausted_told = Some(now);
                    }
                    self.paused = Some(now + EXHAUSTED);
                }
                // The caller gave up before we looked, or the network told of an error on it.
                _ => tracing::debug!(%error, "a call ended before it was accepted"),
            },
        }
    }

    /// BGP-5: the remote address selects the peer; where several have it, the local address does, then AS and
    /// identifier in the OPEN, else the first by name (T22).
    fn hand_over(&mut self, stream: TcpStream, remote: SocketAddr) {
        let Ok(local) = stream.local_addr() else { return };
        let scope = match remote {
            SocketAddr::V6(addr) => addr.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let known: Vec<&Caller> = self
            .plan
            .callers
            .iter()
            .filter(|caller| caller.addr == remote.ip() && (caller.scope == 0 || caller.scope == scope))
            .collect();
        let addressed: Vec<&Caller> =
            known.iter().copied().filter(|caller| caller.local == Some(local.ip())).collect();
        let candidates = if addressed.is_empty() { known } else { addressed };
        let Some(caller) = candidates.first().copied() else {
            // RST instead of FIN: no state stays behind for a scanner's calls.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            self.strangers.count(remote.ip(), &self.plan.callers);
            self.publish();
            return;
        };
        if !self.demands_key(remote.ip(), &candidates) {
            // Without its key on the socket the kernel has let it in unsigned.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
        let accepted = Accepted { stream, endpoints: Endpoints { local, remote } };
        if candidates.len() == 1 || self.undecided.len() >= UNDECIDED {
            caller.open(accepted);
        } else {
            let candidates: Vec<Caller> = candidates.into_iter().cloned().collect();
            self.undecided.spawn(decide(accepted, candidates));
        }
    }

    /// Whether calls from this address come with the signature that its peers are to have.
    fn demands_key(&self, remote: IpAddr, candidates: &[&Caller]) -> bool {
        let slot = if remote.is_ipv4() { &self.v4 } else { &self.v6 };
        let demands = slot.bound.as_ref().is_some_and(|bound| bound.keys.cover(remote));
        demands || candidates.iter().all(|caller| caller.key.is_none())
    }
}

impl Slot {
    fn apply(
        &mut self,
        afi: Afi,
        wanted: Option<Listen>,
        keys: BTreeMap<IpPrefix, SecretBytes>,
        near: Vec<(IpAddr, u8)>,
    ) {
        let Some(wanted) = wanted else {
            *self = Slot::default();
            return;
        };
        match &mut self.bound {
            Some(bound) if bound.wanted == wanted => {
                bound.keys.set(&bound.listener, keys);
                if bound.near != near {
                    demand_ttl(SockRef::from(&bound.listener), afi, &near);
                    bound.near = near;
                }
            }
            _ => self.rebind(afi, wanted, keys, near),
        }
    }

    /// New socket first, then the old one goes; where both want one port the old one has to go first.
    fn rebind(
        &mut self,
        afi: Afi,
        wanted: Listen,
        keys: BTreeMap<IpPrefix, SecretBytes>,
        near: Vec<(IpAddr, u8)>,
    ) {
        let addr = bind_addr(afi, wanted);
        let mut result = bind(afi, addr, &keys, &near);
        if in_use(&result) && self.bound.as_ref().is_some_and(|old| old.is_on(wanted.port)) {
            self.bound = None;
            result = bind(afi, addr, &keys, &near);
        }
        match result {
            Ok((listener, keys)) => {
                info!(%addr, "listening");
                *self = Slot { bound: Some(Bound { listener, wanted, keys, near }), ..Slot::default() };
            }
            Err(error) => {
                let why = match error.raw_os_error() {
                    Some(libc::EADDRINUSE) => {
                        "the port is in use, probably by another BGP speaker".to_string()
                    }
                    Some(libc::EACCES | libc::EPERM) => {
                        "not permitted: ports below 1024 need root or CAP_NET_BIND_SERVICE".to_string()
                    }
                    Some(libc::EADDRNOTAVAIL) => "this node does not have the address".to_string(),
                    _ => error.to_string(),
                };
                let complaint = format!("cannot listen on {addr}: {why}");
                if self.complaint.as_ref() != Some(&complaint) {
                    warn!(
                        "{complaint}; only sessions that this node dials can come up until then; trying again"
                    );
                }
                self.complaint = Some(complaint);
                let pause = self.retry.map_or(RETRY.0, |(_, pause)| (pause * 2).min(RETRY.1));
                self.retry = Some((Instant::now() + pause, pause));
            }
        }
    }
}

impl Bound {
    fn is_on(&self, port: u16) -> bool {
        self.listener.local_addr().is_ok_and(|addr| addr.port() == port)
    }
}

impl Keys {
    /// Sets what is new or other, then removes what is gone; what could not be set is tried again with the next plan.
    fn set(&mut self, socket: &impl AsFd, wanted: BTreeMap<IpPrefix, SecretBytes>) {
        let before = std::mem::take(&mut self.missing);
        for (prefix, key) in &wanted {
            if self.held.get(prefix) != Some(key) {
                match sockopt::set_md5_key(socket, *prefix, key.expose()) {
                    Ok(()) => drop(self.held.insert(*prefix, key.clone())),
                    Err(error) => {
                        if !before.contains_key(prefix) {
                            warn!(%prefix, %error, "calls from here will not be accepted");
                        }
                        self.missing.insert(*prefix, error.to_string());
                    }
                }
            }
        }
        self.held.retain(|prefix, _| {
            if wanted.contains_key(prefix) {
                return true;
            }
            if let Err(error) = sockopt::set_md5_key(socket, *prefix, b"") {
                warn!(%prefix, %error, "cannot remove a key that is no longer wanted");
            }
            false
        });
    }

    /// Whether the kernel takes nothing from this address that is not signed.
    fn cover(&self, addr: IpAddr) -> bool {
        self.held.keys().any(|prefix| prefix.contains(addr))
    }
}

fn bind_addr(afi: Afi, wanted: Listen) -> SocketAddr {
    let any = match afi {
        Afi::Ipv4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Afi::Ipv6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(wanted.addr.unwrap_or(any), wanted.port)
}

fn in_use<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE))
}

/// The least TTL of the addresses all of whose peers demand one: where several peers have an address, nobody knows yet which
/// of them calls.
fn near(callers: &[Caller]) -> Vec<(IpAddr, u8)> {
    let mut least: BTreeMap<IpAddr, u8> = BTreeMap::new();
    for caller in callers {
        let demanded = caller.ttl.least().unwrap_or(0);
        least.entry(caller.addr).and_modify(|least| *least = demanded.min(*least)).or_insert(demanded);
    }
    least.into_iter().filter(|(_, least)| *least > 0).collect()
}

/// Has the kernel drop what such a peer sends from too far away before its connection is taken and has a rule of its own.
fn demand_ttl(socket: SockRef<'_>, afi: Afi, near: &[(IpAddr, u8)]) {
    let done = match ttl_filter::program(afi, near) {
        Some(filter) => socket.attach_filter(&filter),
        None => {
            // It fails where there was none.
            let _ = socket.detach_filter();
            Ok(())
        }
    };
    if let Err(error) = done {
        warn!(%error, "cannot demand a TTL of what peers send before their connections are accepted");
    }
}

/// A socket that listens, with keys from its first moment on.
fn bind(
    afi: Afi,
    addr: SocketAddr,
    wanted: &BTreeMap<IpPrefix, SecretBytes>,
    near: &[(IpAddr, u8)],
) -> io::Result<(TcpListener, Keys)> {
    let domain = if afi == Afi::Ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if afi == Afi::Ipv6 {
        socket.set_only_v6(true)?;
    }
    // BGP-4: SYN-ACKs leave with 255, so that a peer with GTSM takes them.
    sockopt::set_ttl(&socket, afi, 255)?;
    sockopt::set_control_class(&socket, afi)?;
    socket.bind(&addr.into())?;
    let mut keys = Keys::default();
    keys.set(&socket, wanted.clone());
    demand_ttl(SockRef::from(&socket), afi, near);
    socket.listen(BACKLOG)?;
    Ok((TcpListener::from_std(socket.into())?, keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::caller::tests::caller;
    use bgp_proto::Asn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SOON: Duration = Duration::from_secs(10);

    struct Fixture {
        plan: watch::Sender<Arc<ListenPlan>>,
        status: watch::Receiver<ListenStatus>,
        _stop: tokio_util::sync::DropGuard,
    }

    fn start(plan: ListenPlan) -> Fixture {
        let (plan, plan_rx) = watch::channel(Arc::new(plan));
        let (status_tx, status) = watch::channel(ListenStatus::default());
        let stop = CancellationToken::new();
        tokio::spawn(run(plan_rx, status_tx, stop.clone()));
        Fixture { plan, status, _stop: stop.drop_guard() }
    }

    fn sockets(addr: &str, port: u16) -> BTreeMap<Afi, Listen> {
        BTreeMap::from([(Afi::Ipv4, Listen { addr: Some(addr.parse().unwrap()), port })])
    }

    async fn bound(fixture: &mut Fixture) -> SocketAddr {
        let status = fixture.status.wait_for(|s| matches!(s.sockets.get(&Afi::Ipv4), Some(Ok(_))));
        let status = tokio::time::timeout(SOON, status).await.unwrap().unwrap();
        status.sockets.get(&Afi::Ipv4).unwrap().clone().unwrap()
    }

    async fn call(from: &str, to: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        socket.connect(to).await.unwrap()
    }

    #[test]
    fn a_ttl_is_demanded_of_an_address_where_all_of_its_peers_demand_one() {
        use bgp_proto::session::TtlRule;
        let callers = [("10.0.0.1", 1), ("10.0.0.2", 3), ("10.0.0.2", 1), ("10.0.0.3", 1), ("10.0.0.3", 0)];
        let callers = callers.map(|(addr, hops)| {
            let mut it = caller(addr, addr, None).0;
            it.ttl = if hops == 0 { TtlRule::Multihop(64) } else { TtlRule::Security { hops } };
            it
        });
        let expected = [("10.0.0.1", 255), ("10.0.0.2", 253)];
        assert_eq!(near(&callers), expected.map(|(addr, least)| (addr.parse().unwrap(), least)));
    }

    #[tokio::test]
    async fn a_call_of_a_peer_whose_key_the_kernel_did_not_take_is_refused_and_the_reason_is_told() {
        let (mut a, mut room) = caller("A", "127.0.0.2", None);
        a.key = Some(SecretBytes::new(vec![b'x'; sockopt::MAX_KEY + 1]));
        let mut fixture = start(ListenPlan { sockets: sockets("127.0.0.1", 0), callers: vec![a] });
        let addr = bound(&mut fixture).await;
        let mut unsigned = call("127.0.0.2", addr).await;
        let heard = tokio::time::timeout(SOON, unsigned.read(&mut [0])).await.unwrap();
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(room.try_recv().is_err(), "an unsigned call came through");
        let status = fixture.status.borrow().clone();
        assert!(status.refuses("127.0.0.2".parse().unwrap()).unwrap().contains("81 bytes"), "{status:?}");
        assert_eq!(status.refuses("127.0.0.3".parse().unwrap()), None);
        assert_eq!(status.strangers, 0);
    }

    #[tokio::test]
    async fn a_call_goes_to_the_peer_with_its_address_and_then_to_the_one_with_our_address() {
        let (a, mut room_a) = caller("A", "127.0.0.2", Some("127.0.0.1"));
        let (b, mut room_b) = caller("B", "127.0.0.2", Some("127.0.0.7"));
        let plan = ListenPlan {
            sockets: BTreeMap::from([(Afi::Ipv4, Listen { addr: None, port: 0 })]),
            callers: vec![a, b],
        };
        let mut fixture = start(plan);
        let port = bound(&mut fixture).await.port();
        let _first = call("127.0.0.2", format!("127.0.0.7:{port}").parse().unwrap()).await;
        let accepted = room_b.recv().await.unwrap();
        assert_eq!(accepted.endpoints.local.ip().to_string(), "127.0.0.7");
        assert!(accepted.stream.nodelay().unwrap(), "no message waits for an acknowledgement");
        assert_eq!(accepted.stream.ttl().unwrap(), 64, "and not the listener's 255");
        let mut second = call("127.0.0.2", format!("127.0.0.5:{port}").parse().unwrap()).await;
        // No OPEN will come.
        second.shutdown().await.unwrap();
        assert_eq!(room_a.recv().await.unwrap().endpoints.local.ip().to_string(), "127.0.0.5");
    }

    #[tokio::test]
    async fn peers_at_one_address_are_told_apart_by_the_as_in_their_open() {
        let (a, mut room_a) = caller("A", "127.0.0.2", None);
        let (mut b, mut room_b) = caller("B", "127.0.0.2", None);
        b.asn = Asn(65000);
        let mut fixture = start(ListenPlan { sockets: sockets("127.0.0.1", 0), callers: vec![a, b] });
        let addr = bound(&mut fixture).await;
        for (asn, other) in [(65000, true), (64512, false), (65001, false)] {
            let room = if other { &mut room_b } else { &mut room_a };
            let mut stream = call("127.0.0.2", addr).await;
            let open = bgp_proto::wire::Open {
                my_as: asn,
                hold_time: 90,
                router_id: bgp_proto::RouterId(Ipv4Addr::new(10, 0, 0, 9)),
                capabilities: vec![],
            };
            let mut bytes = bytes::BytesMut::new();
            bgp_proto::wire::send::encode_open(&open, &mut bytes);
            stream.write_all(&bytes).await.unwrap();
            let accepted = tokio::time::timeout(SOON, room.recv()).await.unwrap().unwrap();
            // Nothing was taken from it.
            let mut head = [0; 29];
            accepted.stream.readable().await.unwrap();
            assert_eq!(accepted.stream.try_read(&mut head).unwrap(), 29);
        }
    }

    #[tokio::test]
    async fn a_stranger_is_closed_at_once_and_counted() {
        let mut fixture = start(ListenPlan { sockets: sockets("127.0.0.1", 0), callers: vec![] });
        let addr = bound(&mut fixture).await;
        let mut stream = call("127.0.0.3", addr).await;
        let read = stream.read(&mut [0; 16]).await;
        assert!(matches!(read, Ok(0)) || read.is_err(), "{read:?}");
        let status = tokio::time::timeout(SOON, fixture.status.wait_for(|s| s.strangers == 1)).await;
        assert!(status.is_ok());
    }

    #[tokio::test]
    async fn a_taken_port_is_named_and_used_once_it_is_free() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut fixture = start(ListenPlan { sockets: sockets("127.0.0.1", port), callers: vec![] });
        let status = fixture.status.wait_for(|s| matches!(s.sockets.get(&Afi::Ipv4), Some(Err(_))));
        let complaint = tokio::time::timeout(SOON, status).await.unwrap().unwrap().sockets.clone();
        assert!(format!("{complaint:?}").contains("the port is in use"), "{complaint:?}");
        drop(other);
        assert_eq!(bound(&mut fixture).await.port(), port);
    }

    #[tokio::test]
    async fn address_and_port_change_while_running() {
        let (a, mut room) = caller("A", "127.0.0.2", None);
        let plan = ListenPlan { sockets: sockets("127.0.0.1", 0), callers: vec![a] };
        let mut fixture = start(plan.clone());
        let port = bound(&mut fixture).await.port();
        // All addresses on the same port: the old socket is in the way of the new one.
        let any = BTreeMap::from([(Afi::Ipv4, Listen { addr: None, port })]);
        let at = Listen { addr: Some("127.0.0.1".parse().unwrap()), port };
        for sockets in [BTreeMap::from([(Afi::Ipv4, at)]), any] {
            fixture.plan.send_replace(Arc::new(ListenPlan { sockets: sockets.clone(), ..plan.clone() }));
            let wanted = bind_addr(Afi::Ipv4, *sockets.get(&Afi::Ipv4).unwrap());
            let moved = fixture.status.wait_for(|s| s.sockets.get(&Afi::Ipv4) == Some(&Ok(wanted)));
            tokio::time::timeout(SOON, moved).await.unwrap().unwrap();
        }
        let _stream = call("127.0.0.2", format!("127.0.0.9:{port}").parse().unwrap()).await;
        assert_eq!(room.recv().await.unwrap().endpoints.local.ip().to_string(), "127.0.0.9");
    }
}
