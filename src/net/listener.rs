//! The listening sockets, one for each family.
//!
//! Owns: bind and re-bind while running, MD5 keys, the choice of the peer that a caller is, strangers. Never: speaks BGP; an accepted
//! connection goes to its peer's task at once. BGP-4, 5, 7, 8; T9, T11, T13, P5.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Endpoints, TtlRule};
use bgp_proto::wire::decode_open;
use bgp_proto::wire::frame::{MAX_LEN, Next, next_frame};
use bgp_proto::{Afi, Asn, IpPrefix, RouterId};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::md5::listener_keys;
use super::sockopt;
use crate::control::peer_view::{PeerView, Shadowed};
use crate::datastore::model::SecretBytes;
use crate::desired::Listen;

/// Calls that may wait for us: a whole cluster dials after a restart.
const BACKLOG: i32 = 1024;
/// Pause before the port is tried again, doubling between these.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// Pause of accepting where the process has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(250);
/// How often strangers are told of.
const STRANGER_LOG: Duration = Duration::from_secs(60);
/// Networks of strangers that are counted one by one.
const STRANGER_NETWORKS: usize = 64;
/// Calls that may wait for their OPEN.
const UNDECIDED: usize = 64;
/// How long.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of strangers that status shows.
const STRANGERS_SHOWN: usize = 4;

/// A connection that a peer dialled.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, with the peer's TTL rule in force.
    pub stream: TcpStream,
    /// Its ends.
    pub endpoints: Endpoints,
}

/// A peer as the listener knows it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Session name.
    pub name: String,
    /// The peer's address.
    pub addr: IpAddr,
    /// Interface index for a link-local address, else 0.
    pub scope: u32,
    /// The peer's AS: tells several peers at one address apart where nothing else does.
    pub asn: Asn,
    /// The address that we are configured to speak from: tells several peers at one address apart.
    pub local: Option<IpAddr>,
    /// TTL rule.
    pub ttl: TtlRule,
    /// MD5 key.
    pub key: Option<SecretBytes>,
    /// Its session as last shown: the identifier of the peer tells peers of one AS at one address apart.
    pub view: watch::Receiver<PeerView>,
    /// Its task.
    pub door: mpsc::Sender<Accepted>,
}

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
}

struct Bound {
    listener: TcpListener,
    wanted: Listen,
    keys: BTreeMap<IpPrefix, SecretBytes>,
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
            slot.apply(afi, plan.sockets.get(&afi).copied(), keys);
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
        self.status.send_if_modified(|status| {
            let now = ListenStatus { sockets, strangers, recent };
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
                    if self.exhausted_told.is_none_or(|told| now >= told + STRANGER_LOG) {
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

    /// BGP-5: the remote address selects the peer; where several have it, the local address does, then AS and identifier in the
    /// OPEN, else the first by name (T22).
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
        let accepted = Accepted { stream, endpoints: Endpoints { local, remote } };
        if candidates.len() == 1 || self.undecided.len() >= UNDECIDED {
            caller.open(accepted);
        } else {
            let candidates: Vec<Caller> = candidates.into_iter().cloned().collect();
            self.undecided.spawn(decide(accepted, candidates));
        }
    }
}

impl Caller {
    fn open(&self, accepted: Accepted) {
        let Accepted { stream, endpoints: Endpoints { remote, .. } } = &accepted;
        let (remote, afi) = (*remote, Afi::of(remote.ip()));
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| sockopt::set_ttl_rule(stream, afi, self.ttl))
            .and_then(|()| sockopt::set_control_class(stream, afi));
        if let Err(error) = ready {
            warn!(peer = self.name, %error, "cannot set the options of an accepted connection; it is closed");
            return;
        }
        if self.door.try_send(accepted).is_err() {
            tracing::debug!(peer = self.name, %remote, "a call came while earlier ones waited; it is closed");
        }
    }
}

/// The peers for whom another gets the calls: the first by name of those that have the same address and AS, and are not
/// told apart by our own address.
pub fn shadowed(callers: &[Caller]) -> BTreeMap<String, Shadowed> {
    let mut alike: BTreeMap<(IpAddr, u32, Asn), Vec<&Caller>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for caller in callers {
        let Caller { addr, scope, asn, .. } = *caller;
        let before = alike.entry((addr, scope, asn)).or_default();
        if let Some(first) = before.iter().find(|it| caller.local.is_none() || it.local == caller.local) {
            found.insert(caller.name.clone(), Shadowed { addr, asn, by: first.name.clone() });
        }
        before.push(caller);
    }
    found
}

/// Of several peers, the one that an OPEN with this AS and identifier comes from, as far as anybody can know: not one that
/// has a session with another speaker, if there is one without.
fn choose(candidates: &[Caller], open: Option<(Asn, RouterId)>) -> Option<&Caller> {
    let (asn, id) = (open.map(|open| open.0), open.map(|open| open.1));
    let known = |caller: &Caller| caller.view.borrow().peer_id();
    let mut alike: Vec<&Caller> = candidates.iter().filter(|caller| Some(caller.asn) == asn).collect();
    if alike.is_empty() {
        alike = candidates.iter().collect();
    }
    let same = alike.iter().find(|caller| id.is_some() && known(caller) == id);
    same.or_else(|| alike.iter().find(|caller| known(caller).is_none())).or(alike.first()).copied()
}

/// Looks at the caller's OPEN, without taking it, and hands the connection to the peer that it fits.
async fn decide(accepted: Accepted, candidates: Vec<Caller>) {
    let open = timeout(OPEN_PATIENCE, async {
        let mut head = [0; MAX_LEN];
        let mut seen = 0;
        loop {
            let len = accepted.stream.peek(&mut head).await.ok()?;
            match next_frame(head.get(..len)?, MAX_LEN) {
                Next::Frame(frame) => {
                    let open = decode_open(frame.bytes).ok()?;
                    return Some((open.asn(), open.router_id));
                }
                // What is there stays readable: look again only when it can have grown.
                Next::NeedMore(_) if len > 0 => {
                    let pause = if len == seen { 50 } else { 5 };
                    seen = len;
                    sleep(Duration::from_millis(pause)).await;
                }
                _ => return None,
            }
        }
    });
    let open = open.await.ok().flatten();
    if let Some(caller) = choose(&candidates, open) {
        caller.open(accepted);
    }
}

impl Slot {
    fn apply(&mut self, afi: Afi, wanted: Option<Listen>, keys: BTreeMap<IpPrefix, SecretBytes>) {
        let Some(wanted) = wanted else {
            *self = Slot::default();
            return;
        };
        match &mut self.bound {
            Some(bound) if bound.wanted == wanted => bound.rekey(keys),
            _ => self.rebind(afi, wanted, keys),
        }
    }

    /// New socket first, then the old one goes; where both want one port the old one has to go first.
    fn rebind(&mut self, afi: Afi, wanted: Listen, keys: BTreeMap<IpPrefix, SecretBytes>) {
        let addr = bind_addr(afi, wanted);
        let mut result = bind(afi, addr);
        if in_use(&result) && self.bound.as_ref().is_some_and(|old| old.is_on(wanted.port)) {
            self.bound = None;
            result = bind(afi, addr);
        }
        match result {
            Ok(listener) => {
                let mut bound = Bound { listener, wanted, keys: BTreeMap::new() };
                bound.rekey(keys);
                info!(%addr, "listening");
                *self = Slot { bound: Some(bound), ..Slot::default() };
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

    /// Sets what is new or other, then removes what is gone; what could not be set is tried again with the next plan.
    fn rekey(&mut self, wanted: BTreeMap<IpPrefix, SecretBytes>) {
        for (prefix, key) in &wanted {
            if self.keys.get(prefix) != Some(key) {
                match sockopt::set_md5_key(&self.listener, *prefix, key.expose()) {
                    Ok(()) => drop(self.keys.insert(*prefix, key.clone())),
                    Err(error) => warn!(%prefix, %error, "calls from here will not be accepted"),
                }
            }
        }
        self.keys.retain(|prefix, _| {
            if wanted.contains_key(prefix) {
                return true;
            }
            if let Err(error) = sockopt::set_md5_key(&self.listener, *prefix, b"") {
                warn!(%prefix, %error, "cannot remove a key that is no longer wanted");
            }
            false
        });
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

fn bind(afi: Afi, addr: SocketAddr) -> io::Result<TcpListener> {
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
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The peers with the addresses nearest to this one, at most three: one of them is probably meant (T10).
fn nearest(addr: IpAddr, callers: &[Caller]) -> String {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let mut known: Vec<&Caller> =
        callers.iter().filter(|caller| Afi::of(caller.addr) == Afi::of(addr)).collect();
    known.sort_by_key(|caller| bits(caller.addr) ^ bits(addr));
    if known.is_empty() {
        return format!("nobody: no {} peer is configured", Afi::of(addr));
    }
    let few: Vec<String> =
        known.iter().take(3).map(|caller| format!("{} ({})", caller.addr, caller.name)).collect();
    let beyond = known.len() - few.len();
    if beyond == 0 { few.join(", ") } else { format!("{} or one of {beyond} more", few.join(", ")) }
}

/// Calls from addresses of no peer, told once a minute (T9).
#[derive(Default)]
struct Strangers {
    total: u64,
    by_network: BTreeMap<IpPrefix, u64>,
    beyond: u64,
    told: Option<Instant>,
    /// Of this minute, and of the one before while nobody new came.
    recent: Vec<IpAddr>,
    begin_anew: bool,
}

impl Strangers {
    fn count(&mut self, addr: IpAddr, callers: &[Caller]) {
        self.total += 1;
        if std::mem::take(&mut self.begin_anew) {
            self.recent.clear();
        }
        if self.recent.len() < STRANGERS_SHOWN && !self.recent.contains(&addr) {
            self.recent.push(addr);
        }
        let network = IpPrefix::new(addr, if addr.is_ipv4() { 24 } else { 64 });
        match network {
            Some(network)
                if self.by_network.len() < STRANGER_NETWORKS || self.by_network.contains_key(&network) =>
            {
                *self.by_network.entry(network).or_default() += 1;
            }
            _ => self.beyond += 1,
        }
        if self.told.is_none() {
            info!(
                from = %addr,
                expected = nearest(addr, callers),
                "a connection from an address of no peer was closed; a peer with several addresses must dial from the \
                 one that it is configured with here"
            );
            self.by_network.clear();
            self.told = Some(Instant::now());
        }
    }

    fn pending(&self) -> bool {
        self.told.is_some()
    }

    fn due(&self) -> Instant {
        self.told.unwrap_or_else(Instant::now) + STRANGER_LOG
    }

    fn tell(&mut self) {
        let calls: u64 = self.by_network.values().sum::<u64>() + self.beyond;
        self.told = None;
        self.begin_anew = calls > 0;
        if calls == 0 {
            self.recent.clear();
        } else {
            let mut networks: Vec<(&IpPrefix, &u64)> = self.by_network.iter().collect();
            networks.sort_by_key(|(prefix, count)| (std::cmp::Reverse(**count), **prefix));
            let worst: Vec<String> =
                networks.iter().take(5).map(|(prefix, count)| format!("{prefix} ({count})")).collect();
            info!(calls, from = worst.join(", "), "connections from addresses of no peer were closed");
            self.told = Some(Instant::now());
        }
        self.by_network.clear();
        self.beyond = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn caller(name: &str, addr: &str, local: Option<&str>) -> (Caller, mpsc::Receiver<Accepted>) {
        let (door, room) = mpsc::channel(2);
        let caller = Caller {
            name: name.into(),
            addr: addr.parse().unwrap(),
            scope: 0,
            asn: Asn(64512),
            local: local.map(|a| a.parse().unwrap()),
            ttl: TtlRule::Multihop(64),
            key: None,
            view: watch::channel(PeerView::default()).1,
            door,
        };
        (caller, room)
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
    async fn peers_of_one_as_at_one_address_are_told_apart_by_the_identifier_in_their_open() {
        let id = |last| RouterId(Ipv4Addr::new(10, 0, 0, last));
        let callers = ["A", "B"].map(|name| caller(name, "127.0.0.2", None).0);
        let chosen = |views: [Option<RouterId>; 2], asn: u32, last: u8| {
            let mut callers = callers.clone();
            for (caller, id) in callers.iter_mut().zip(views) {
                caller.view = watch::channel(established(id)).1;
            }
            choose(&callers, Some((Asn(asn), id(last)))).unwrap().name.clone()
        };
        assert_eq!(chosen([None, None], 64512, 9), "A", "nobody is known: the first by name");
        assert_eq!(chosen([Some(id(9)), None], 64512, 9), "A", "it has restarted");
        assert_eq!(chosen([Some(id(9)), None], 64512, 8), "B", "A is another speaker");
        assert_eq!(chosen([Some(id(9)), Some(id(8))], 64512, 8), "B");
        assert_eq!(chosen([Some(id(9)), Some(id(8))], 64512, 7), "A");
        assert_eq!(chosen([None, Some(id(8))], 65000, 8), "B", "an AS of nobody");
    }

    /// A session that is up with a peer of this identifier, or none.
    fn established(id: Option<RouterId>) -> PeerView {
        let mut view = PeerView::default();
        if let Some(router_id) = id {
            view.update(&session_with(router_id), bgp_proto::Millis(5000), None, true);
        }
        view
    }

    fn session_with(peer_id: RouterId) -> bgp_proto::session::Session {
        use bgp_proto::session::{Conn, Input, NextOpen, OpenParams, PeerSpec, Session, Transport};
        use bgp_proto::{AfiSet, Millis};
        let open = OpenParams {
            local_asn: Asn(64512),
            peer_asn: Asn(64512),
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, 1)),
            families: AfiSet::only(Afi::Ipv4),
        };
        let addr = IpAddr::from([127, 0, 0, 2]);
        let transport = Transport { peer: addr, scope: 0, port: 179, ttl: TtlRule::Multihop(64) };
        let next = NextOpen { passive: true, ..NextOpen::default() };
        let mut session = Session::new(PeerSpec { transport, open, next }, 1, AfiSet::EMPTY);
        let ends = SocketAddr::new(addr, 179);
        let mut said = bytes::BytesMut::new();
        bgp_proto::wire::send::encode_open(
            &bgp_proto::wire::Open { my_as: 64512, hold_time: 90, router_id: peer_id, capabilities: vec![] },
            &mut said,
        );
        let mut alive = bytes::BytesMut::new();
        bgp_proto::wire::send::encode_keepalive(&mut alive);
        for input in [
            Input::Start,
            Input::Connected(Conn::Passive, Endpoints { local: ends, remote: ends }),
            Input::Frame(Conn::Passive, &said),
            Input::Frame(Conn::Passive, &alive),
        ] {
            session.handle(Millis(0), input, &mut Vec::new());
        }
        assert!(session.is_established());
        session
    }

    #[test]
    fn of_peers_that_nothing_tells_apart_the_later_ones_are_shadowed_by_the_first() {
        let mut callers = vec![
            caller("A", "127.0.0.2", None).0,
            caller("B", "127.0.0.2", None).0,
            caller("C", "127.0.0.2", Some("127.0.0.1")).0,
            caller("D", "127.0.0.2", Some("127.0.0.1")).0,
            caller("E", "127.0.0.3", None).0,
            caller("F", "127.0.0.2", None).0,
        ];
        if let Some(f) = callers.last_mut() {
            f.asn = Asn(65000);
        }
        let found = shadowed(&callers);
        let pairs: Vec<(&str, &str)> =
            found.iter().map(|(name, by)| (name.as_str(), by.by.as_str())).collect();
        assert_eq!(pairs, [("B", "A"), ("D", "C")]);
        assert_eq!(
            found.get("B").unwrap().to_string(),
            "connections from 127.0.0.2 go to A first, which has the same address and AS 64512"
        );
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
    async fn a_scan_from_everywhere_is_counted_in_bounded_space() {
        let mut strangers = Strangers::default();
        for n in 0..100_000u32 {
            strangers.count(IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + n * 256)), &[]);
        }
        assert_eq!(strangers.total, 100_000);
        assert_eq!(
            (strangers.by_network.len(), strangers.recent.len()),
            (STRANGER_NETWORKS, STRANGERS_SHOWN)
        );
        let counted = strangers.by_network.values().sum::<u64>() + strangers.beyond;
        assert_eq!(counted, 99_999, "the first was told by itself");
        strangers.tell();
        assert!(strangers.by_network.is_empty() && strangers.pending(), "and again in a minute");
        strangers.tell();
        assert!(strangers.recent.is_empty() && !strangers.pending(), "but not without news");
    }

    #[test]
    fn the_log_of_a_stranger_names_the_peers_with_the_nearest_addresses() {
        let callers: Vec<Caller> = ["10.9.0.1", "10.0.1.7", "10.0.0.3", "192.0.2.1", "fd00::1"]
            .map(|addr| caller(&format!("Node_{addr}"), addr, None).0)
            .into();
        let from = |addr: &str, callers: &[Caller]| nearest(addr.parse().unwrap(), callers);
        assert_eq!(
            from("10.0.0.9", &callers),
            "10.0.0.3 (Node_10.0.0.3), 10.0.1.7 (Node_10.0.1.7), 10.9.0.1 (Node_10.9.0.1) or one of 1 more"
        );
        assert_eq!(from("fd00::2", &callers), "fd00::1 (Node_fd00::1)");
        assert_eq!(from("fd00::2", callers.get(..4).unwrap()), "nobody: no ipv6 peer is configured");
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
