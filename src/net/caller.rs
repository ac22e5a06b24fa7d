//! Which peer a connection belongs to.
//!
//! Owns: the peers as the listener knows them, and the choice among several at one address: by our own address, then
//! by AS and identifier in the OPEN, else the first by name; who is left without hears of it. Never: takes a byte from
//! a connection. BGP-5, T22.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::session::{Endpoints, TtlRule};
use bgp_proto::wire::decode_open;
use bgp_proto::wire::frame::{MAX_LEN, Next, next_frame};
use bgp_proto::{Afi, Asn, RouterId};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::peer_view::{PeerView, Shadowed};
use super::sockopt;
use crate::model::SecretBytes;

/// How long a connection may take to bring its OPEN where several peers have its address.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

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

impl Caller {
    /// Hands the connection to the peer's task, with the options of the peer's transport.
    pub(super) fn open(&self, accepted: Accepted) {
        let Accepted { stream, endpoints: Endpoints { remote, .. } } = &accepted;
        let (remote, afi) = (*remote, Afi::of(remote.ip()));
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| sockopt::keep_no_backlog(stream))
            .and_then(|()| sockopt::set_ttl_rule(stream, afi, self.ttl))
            .and_then(|()| sockopt::set_control_class(stream, afi));
        // The listener's: what it did for this peer its own rule does from here on.
        let _ = SockRef::from(stream).detach_filter();
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

/// Of several peers, the one that an OPEN with this AS and identifier comes from, as far as anybody can know: not one
/// that has a session with another speaker, if there is one without.
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
pub(super) async fn decide(accepted: Accepted, candidates: Vec<Caller>) {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    /// A peer without a task, and what would come to the task.
    pub fn caller(name: &str, addr: &str, local: Option<&str>) -> (Caller, mpsc::Receiver<Accepted>) {
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

    #[test]
    fn peers_of_one_as_at_one_address_are_told_apart_by_the_identifier_in_their_open() {
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
    }
}
