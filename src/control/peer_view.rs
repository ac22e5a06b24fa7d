//! A session as its task last showed it.
//!
//! Owns: the copy that the task publishes, when it does, and how somebody who wants to see all of it asks for a new one. A
//! task publishes where something has changed that others act on; counters and timers are copied when somebody asks, so
//! that a session at which nobody looks costs nothing. Never: reads the session by itself.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::session::{DialError, DownReason, Session, StateName, Status, TtlRule};
use bgp_proto::{Asn, Millis, RouterId};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::desired::Auth;

/// How long all tasks together may take for a look; then what they showed last is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts the looks at all sessions. Every task hears of each and publishes a copy that names its number.
#[derive(Clone, Debug)]
pub struct Looks(watch::Sender<u64>);

impl Default for Looks {
    fn default() -> Self {
        Looks(watch::Sender::new(0))
    }
}

impl Looks {
    /// Where a task hears of looks.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    /// Waits until these show what is true now. One whose task does not answer shows what it showed.
    pub async fn refresh(&self, views: Vec<watch::Receiver<PeerView>>) {
        let mut number = 0;
        self.0.send_modify(|looks| {
            *looks += 1;
            number = *looks;
        });
        let all = async {
            for mut view in views {
                // Where the task has ended nothing newer comes.
                let _ = view.wait_for(|view| view.look >= number).await;
            }
        };
        let _ = timeout(PATIENCE, all).await;
    }
}

/// Nothing tells this peer's connections from those of another peer, whose session gets them (T22).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadowed {
    /// The address of both.
    pub addr: IpAddr,
    /// The AS of both.
    pub asn: Asn,
    /// The name of the other.
    pub by: String,
}

impl fmt::Display for Shadowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shadowed { addr, asn, by } = self;
        write!(f, "connections from {addr} go to {by} first, which has the same address and AS {asn}")
    }
}

/// A session as its task last showed it.
#[derive(Clone, Debug, Default)]
pub struct PeerView {
    /// What the session said; `None` before its task has run.
    pub status: Option<Status>,
    /// What the last dial could not set.
    pub note: Option<String>,
    /// Why the session is not started.
    pub held: Option<String>,
    /// Who gets the connections that the peer dials.
    pub shadowed: Option<Shadowed>,
    /// Defects that ended the session.
    pub defects: u64,
    taken: Millis,
    /// The number of the last look that this answers.
    look: u64,
}

impl PeerView {
    /// The session must not start; why.
    pub fn hold(&mut self, why: String) {
        self.held = Some(why);
    }

    /// Copies the session where something happened: another state or note, or `news`. Whether it did.
    pub fn update(&mut self, session: &Session, now: Millis, note: Option<&str>, news: bool) -> bool {
        let same = self.status.as_ref().is_some_and(|status| status.state == session.state_name());
        if same && !news && self.note.as_deref() == note {
            return false;
        }
        self.copy(session, now, note);
        true
    }

    /// Copies the session because somebody looks.
    pub fn answer(&mut self, look: u64, session: &Session, now: Millis, note: Option<&str>) {
        self.look = look;
        self.copy(session, now, note);
    }

    fn copy(&mut self, session: &Session, now: Millis, note: Option<&str>) {
        self.status = Some(session.status());
        self.note = note.map(str::to_string);
        self.taken = now;
    }

    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        self.state() == StateName::Established
    }

    /// Why the session is not up, or is up for nothing, in words. `lacking`: the session's source address, where this
    /// node does not have it now.
    pub fn reason(&self, auth: &Auth, ttl: TtlRule, lacking: Option<IpAddr>) -> Option<String> {
        if self.is_established() {
            let negotiated = self.status.as_ref().and_then(|status| status.negotiated.as_ref());
            let useless = negotiated.is_some_and(|negotiated| negotiated.context.families.is_empty());
            return useless
                .then(|| "no routes: the peer's OPEN names no address family of this session".to_string());
        }
        if let Some(why) = &self.held {
            return Some(why.clone());
        }
        let status = self.status.as_ref()?;
        let waits = match status.state {
            StateName::Passive => Some(waiting(auth, ttl)),
            // A peer that accepts and says nothing would go unseen behind what went before.
            StateName::OpenSent => Some(connected("OPEN", ttl)),
            StateName::OpenConfirm => Some(connected("KEEPALIVE", ttl)),
            _ => None,
        };
        let mut reason = match &status.last {
            Some(DownReason::Dial(DialError::Timeout)) => {
                format!("{} ({})", DialError::Timeout, demands(auth, ttl))
            }
            Some(DownReason::Dial(DialError::SourceUnavailable)) if lacking.is_some() => String::new(),
            // TCP may be up all the same: the SYN-ACK is not asked for its distance
            Some(DownReason::HoldExpired) => match far(ttl) {
                Some(far) => format!("{} ({far})", DownReason::HoldExpired),
                None => DownReason::HoldExpired.to_string(),
            },
            Some(last) => last.to_string(),
            None => match waits.clone() {
                Some(waits) => waits,
                None if status.state == StateName::Connect => {
                    "the first attempt to connect is under way".to_string()
                }
                None => DownReason::Idle.to_string(),
            },
        };
        if let Some(addr) = lacking {
            // Whatever came first: without the address neither end's connection can stand (T14).
            let here = format!("the source address {addr} is not on this node");
            reason = if reason.is_empty() { here } else { format!("{reason}; {here}") };
        }
        if let (Some(last), Some((at, spoken))) = (&status.last, &status.spoken)
            && matches!(last, DownReason::Dial(_) | DownReason::Closed(_))
        {
            reason = format!("{spoken} ({} s ago); since then: {reason}", (self.taken - *at).as_secs());
        }
        if status.last.is_some()
            && let Some(waits) = waits
        {
            reason = format!("{reason}; {waits}");
        }
        if let Some(note) = &self.note {
            reason = format!("{reason}; {note}");
        }
        if let Some(shadowed) = &self.shadowed {
            reason = format!("{reason}; {shadowed}");
        }
        Some(reason)
    }

    /// Whether the peer can be asked for its routes again (RFC 2918).
    pub fn can_refresh(&self) -> bool {
        let negotiated = self.status.as_ref().and_then(|status| status.negotiated.as_ref());
        self.is_established() && negotiated.is_some_and(|negotiated| negotiated.refresh)
    }

    /// The identifier of the peer, while established.
    pub fn peer_id(&self) -> Option<RouterId> {
        Some(self.status.as_ref()?.negotiated.as_ref()?.peer_id)
    }

    /// The state.
    pub fn state(&self) -> StateName {
        self.status.as_ref().map_or(StateName::Down, |status| status.state)
    }
}

/// What a silent kernel may drop the peer's packets for, as far as we know: what we demand of them.
fn demands(auth: &Auth, ttl: TtlRule) -> String {
    let signs = match auth {
        Auth::None => "this side has no password",
        Auth::Key { .. } => "this side signs with a password",
        Auth::Missing(_) | Auth::Withheld(_) => "this side is to sign, but its password cannot be had",
    };
    far(ttl).map_or_else(|| signs.to_string(), |far| format!("{signs}; {far}"))
}

/// What TTL security demands.
fn far(ttl: TtlRule) -> Option<String> {
    Some(format!("TTL security drops packets with a TTL below {}", ttl.least()?))
}

/// The peer is to dial. Connections that we drop unseen are told by what they would need.
fn waiting(auth: &Auth, ttl: TtlRule) -> String {
    let waits = "waiting for the peer to connect";
    match (auth, ttl) {
        (Auth::None, TtlRule::Multihop(_)) => waits.to_string(),
        _ => format!("{waits} ({})", demands(auth, ttl)),
    }
}

/// TCP is up and the peer's next message does not come.
fn connected(message: &str, ttl: TtlRule) -> String {
    let waits = format!("connected, waiting for the peer's {message}");
    match far(ttl) {
        Some(far) => format!("{waits} ({far})"),
        None => waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SecretBytes, SecretKeyRef};
    use bgp_proto::AfiSet;
    use bgp_proto::session::{Conn, Endpoints, Input, NextOpen, OpenParams, PeerSpec, Transport};
    use bgp_proto::wire::Notification;

    fn session() -> (Session, Endpoints) {
        let (us, peer): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let (transport, asn) =
            (Transport { peer, scope: 0, port: 179, ttl: TtlRule::Multihop(64) }, Asn(64512));
        let router_id = RouterId("10.0.0.1".parse().unwrap());
        let open = OpenParams { local_asn: asn, peer_asn: asn, router_id, families: AfiSet::BOTH };
        let session = Session::new(PeerSpec { transport, open, next: NextOpen::default() }, 1, AfiSet::EMPTY);
        (session, Endpoints { local: (us, 1000).into(), remote: (peer, 179).into() })
    }

    #[test]
    fn a_copy_is_made_where_others_act_on_it_and_counters_are_copied_when_somebody_looks() {
        let (mut session, ends) = session();
        let mut view = PeerView::default();
        let give = |at, session: &mut Session, input| session.handle(at, input, &mut Vec::new());
        give(Millis(0), &mut session, Input::Start);
        give(Millis(0), &mut session, Input::Connected(Conn::Active, ends));
        assert!(view.update(&session, Millis(0), None, true));
        give(Millis(100), &mut session, Input::Connected(Conn::Passive, ends));
        let sent = session.status().counters.sent.open;
        let shown = |view: &PeerView| view.status.as_ref().unwrap().counters.sent.open;
        assert!(!view.update(&session, Millis::secs(1000), None, false), "no time makes it one");
        assert_ne!(shown(&view), sent);
        assert!(view.update(&session, Millis(100), Some("a note"), false));
        view.answer(1, &session, Millis(100), None);
        assert_eq!((shown(&view), view.look), (sent, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_waits_for_the_tasks_that_answer_and_not_for_one_that_does_not() {
        let looks = Looks::default();
        let (session, _) = session();
        let (answers, view) = watch::channel(PeerView::default());
        let (_silent, other) = watch::channel(PeerView::default());
        let mut heard = looks.subscribe();
        tokio::spawn(async move {
            heard.changed().await.unwrap();
            let number = *heard.borrow_and_update();
            answers.send_modify(|view| view.answer(number, &session, Millis(7), None));
            std::future::pending::<()>().await;
        });
        looks.refresh(vec![view.clone(), other]).await;
        assert_eq!(view.borrow().taken, Millis(7));
    }

    #[test]
    fn what_bgp_said_is_told_beside_what_tcp_says_since_then() {
        let (mut session, ends) = session();
        let mut give = |secs, input| session.handle(Millis::secs(secs), input, &mut Vec::new());
        give(0, Input::Start);
        give(0, Input::Connected(Conn::Active, ends));
        give(0, Input::BadFrame(Conn::Active, Notification::new(1, 1)));
        give(10, Input::Tick);
        give(12, Input::DialFailed(DialError::Refused));
        let mut view = PeerView::default();
        view.update(&session, Millis::secs(15), None, true);
        assert_eq!(
            view.reason(&Auth::None, TtlRule::Multihop(64), None).unwrap(),
            "we sent 1/1: Connection not synchronized (15 s ago); since then: \
             connection refused: nothing listens at the peer's BGP port"
        );
        assert_eq!(
            view.reason(&Auth::None, TtlRule::Multihop(64), Some(ends.local.ip())).unwrap(),
            "we sent 1/1: Connection not synchronized (15 s ago); since then: \
             connection refused: nothing listens at the peer's BGP port; the source address 10.0.0.1 is not on this node"
        );
        session.handle(Millis::secs(16), Input::Tick, &mut Vec::new());
        session.handle(Millis::secs(16), Input::DialFailed(DialError::SourceUnavailable), &mut Vec::new());
        view.update(&session, Millis::secs(16), None, true);
        assert_eq!(
            view.reason(&Auth::None, TtlRule::Multihop(64), Some(ends.local.ip())).unwrap(),
            "we sent 1/1: Connection not synchronized (16 s ago); since then: \
             the source address 10.0.0.1 is not on this node"
        );
    }

    #[test]
    fn what_a_session_waits_for_is_told_beside_what_went_before() {
        let (mut session, ends) = session();
        let mut tells = |secs, input: Input<'_>| {
            session.handle(Millis::secs(secs), input, &mut Vec::new());
            let mut view = PeerView::default();
            view.update(&session, Millis::secs(secs), None, true);
            view.reason(&Auth::None, TtlRule::Multihop(64), None).unwrap()
        };
        assert_eq!(tells(0, Input::Start), "the first attempt to connect is under way");
        assert_eq!(tells(0, Input::Connected(Conn::Active, ends)), "connected, waiting for the peer's OPEN");
        tells(1, Input::Closed(Conn::Active, bgp_proto::session::CloseCause::Eof));
        tells(3, Input::Tick);
        assert_eq!(
            tells(3, Input::Connected(Conn::Active, ends)),
            "connection closed by the peer without NOTIFICATION; connected, waiting for the peer's OPEN"
        );
    }

    #[test]
    fn a_session_that_carries_no_family_says_so_though_it_is_up() {
        use bgp_proto::wire::capability::WireFamily;
        use bgp_proto::wire::{Capability, Open, encode_keepalive, encode_open};
        let (mut session, ends) = session();
        let multicast = Capability::Multiprotocol(WireFamily { afi: 1, safi: 2 });
        let router_id = RouterId("10.0.0.2".parse().unwrap());
        let (mut open, mut keepalive) = (bytes::BytesMut::new(), bytes::BytesMut::new());
        encode_open(
            &Open { my_as: 64512, hold_time: 90, router_id, capabilities: vec![multicast] },
            &mut open,
        );
        encode_keepalive(&mut keepalive);
        for input in [
            Input::Start,
            Input::Connected(Conn::Active, ends),
            Input::Frame(Conn::Active, &open),
            Input::Frame(Conn::Active, &keepalive),
        ] {
            session.handle(Millis(0), input, &mut Vec::new());
        }
        let mut view = PeerView::default();
        view.update(&session, Millis(0), None, true);
        assert!(view.is_established());
        let reason = view.reason(&Auth::None, TtlRule::Multihop(64), None).unwrap();
        assert!(reason.contains("no address family"), "{reason}");
    }

    #[test]
    fn what_the_kernel_drops_unseen_is_said_where_the_peer_is_to_dial() {
        let from = SecretKeyRef { name: "bgp".into(), key: "mesh".into() };
        let key = Auth::Key { from, key: SecretBytes::new(b"s3cret".to_vec()) };
        assert_eq!(waiting(&Auth::None, TtlRule::Multihop(64)), "waiting for the peer to connect");
        assert_eq!(
            waiting(&key, TtlRule::Multihop(64)),
            "waiting for the peer to connect (this side signs with a password)"
        );
        let far = waiting(&Auth::None, TtlRule::Security { hops: 2 });
        assert!(far.contains("TTL below 254"), "{far}");
    }
}
