//! Why a session is as it is, in words.
//!
//! Owns: what people read of a [`PeerView`]. Never: asks a task.

use std::net::IpAddr;

use bgp_proto::session::{DialError, DownReason, StateName, TtlRule};

use crate::desired::Auth;
use crate::net::peer_view::{PeerView, Shadowed};

fn of_shadow(Shadowed { addr, asn, by }: &Shadowed) -> String {
    format!("connections from {addr} go to {by} first, which has the same address and AS {asn}")
}

/// Why the session is not up, or is up for nothing, in words. `lacking`: the session's source address, where this
/// node does not have it now.
pub fn reason(view: &PeerView, auth: &Auth, ttl: TtlRule, lacking: Option<IpAddr>) -> Option<String> {
    if view.is_established() {
        let negotiated = view.status.as_ref().and_then(|status| status.negotiated.as_ref());
        let useless = negotiated.is_some_and(|negotiated| negotiated.context.families.is_empty());
        return useless
            .then(|| "no routes: the peer's OPEN names no address family of this session".to_string());
    }
    if let Some(why) = &view.held {
        return Some(why.clone());
    }
    let status = view.status.as_ref()?;
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
        reason = format!("{spoken} ({} s ago); since then: {reason}", (view.taken - *at).as_secs());
    }
    if status.last.is_some()
        && let Some(waits) = waits
    {
        reason = format!("{reason}; {waits}");
    }
    if let Some(note) = &view.note {
        reason = format!("{reason}; {note}");
    }
    if let Some(shadowed) = &view.shadowed {
        reason = format!("{reason}; {}", of_shadow(shadowed));
    }
    Some(reason)
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
    use crate::net::peer_view::tests::session;
    use bgp_proto::session::{Conn, Input};
    use bgp_proto::wire::Notification;
    use bgp_proto::{Asn, Millis, RouterId};

    #[test]
    fn a_peer_whose_connections_go_to_another_is_told_which() {
        let shadowed = Shadowed { addr: "127.0.0.2".parse().unwrap(), asn: Asn(64512), by: "A".into() };
        let words = "connections from 127.0.0.2 go to A first, which has the same address and AS 64512";
        assert_eq!(of_shadow(&shadowed), words);
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
            reason(&view, &Auth::None, TtlRule::Multihop(64), None).unwrap(),
            "we sent 1/1: Connection not synchronized (15 s ago); since then: \
             connection refused: nothing listens at the peer's BGP port"
        );
        assert_eq!(
            reason(&view, &Auth::None, TtlRule::Multihop(64), Some(ends.local.ip())).unwrap(),
            "we sent 1/1: Connection not synchronized (15 s ago); since then: \
             connection refused: nothing listens at the peer's BGP port; the source address 10.0.0.1 is not on this node"
        );
        session.handle(Millis::secs(16), Input::Tick, &mut Vec::new());
        session.handle(Millis::secs(16), Input::DialFailed(DialError::SourceUnavailable), &mut Vec::new());
        view.update(&session, Millis::secs(16), None, true);
        assert_eq!(
            reason(&view, &Auth::None, TtlRule::Multihop(64), Some(ends.local.ip())).unwrap(),
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
            reason(&view, &Auth::None, TtlRule::Multihop(64), None).unwrap()
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
        let reason = reason(&view, &Auth::None, TtlRule::Multihop(64), None).unwrap();
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
