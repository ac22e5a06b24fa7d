//! Sessions as rows of `show protocols`.
//!
//! Owns: which words of BIRD stand for which state, reason and capability of ours (CTL-16, CTL-18, CTL-19). Never:
//! asks anybody: input is what the task of a peer published.

use bgp_proto::session::{
    CloseCause, DialError, DownReason, Negotiated, StateName, Status, StopReason, Timer, TtlRule,
};
use bgp_proto::wire::{Capability, Notification};
use bgp_proto::{Afi, Millis};

use super::protocols::{Bgp, Changes, Details, Protocol, ProtocolRoutes, Up};
use super::wall::Wall;
use crate::desired::Peer;
use crate::net::peer_view::{PeerEntry, PeerView};
use crate::speaker::status::PeerCounts;

/// A session's row and details. `counts`: `None` where the table was not asked, or did not answer.
pub fn session(entry: &PeerEntry, counts: Option<PeerCounts>, recovering: bool, wall: &Wall) -> Protocol {
    let view = entry.view.borrow();
    let peer = &*entry.peer;
    let (state, bgp_state) = states(&view);
    let error = error(&view);
    let down = state == "down";
    let info = match (&error, down) {
        (Some(error), true) => error.clone(),
        (None, true) => String::new(),
        (error, false) => format!("{bgp_state:<14}{}", error.as_deref().unwrap_or_default()),
    };
    let status = view.status.as_ref();
    let routes = counts.unwrap_or_default();
    let bgp = Bgp {
        state: bgp_state,
        address: peer.spec.transport.peer,
        zone: peer.key.zone.as_deref().map(str::to_string),
        asn: peer.spec.open.peer_asn,
        graceful: status.is_some_and(|status| status.restart.is_some()),
        waits: status.map(|status| waits(status, wall.clock())).unwrap_or_default(),
        up: status.and_then(|status| up(peer, status, wall.clock())),
        last_error: error,
    };
    Protocol {
        name: peer.name.clone(),
        kind: "BGP",
        state,
        since: wall.short(status.map_or(Millis(0), |status| status.since)),
        info,
        details: Details {
            description: Some("Connection to BGP peer"),
            preference: bgp_proto::rib::SourceClass::Bgp.preference(),
            input: "(unnamed)",
            output: "(unnamed)",
            recovery: recovering.then_some(if view.is_established() { "" } else { " pending" }),
            routes: (!down).then_some(ProtocolRoutes {
                imported: routes.imported,
                exported: routes.exported,
                preferred: routes.preferred,
                changes: Changes::default(),
            }),
            bgp: Some(bgp),
        },
    }
}

/// BIRD's state of the protocol and of BGP. A session that is held back is one that does not come up, not one that
/// nobody wants: readiness has to count it (CTL-29).
fn states(view: &PeerView) -> (&'static str, &'static str) {
    match view.status.as_ref().map(|status| status.state) {
        Some(StateName::Established) => ("up", "Established"),
        Some(StateName::Down) if view.held.is_none() => ("down", "Down"),
        Some(StateName::Down) | None => ("start", "Idle"),
        Some(state) => ("start", state.name()),
    }
}

/// Class and text of the last error (CTL-18).
fn error(view: &PeerView) -> Option<String> {
    if view.is_established() {
        return None;
    }
    if view.held.is_some() {
        return Some("Error: Password not available".into());
    }
    let socket = |text: String| Some(format!("Socket: {text}"));
    match view.status.as_ref()?.last.as_ref()? {
        DownReason::Idle => None,
        DownReason::Dial(error) => socket(match error {
            DialError::Refused => "Connection refused".into(),
            DialError::Timeout => "Connection timed out".into(),
            DialError::HostUnreachable => "No route to host".into(),
            DialError::NetworkUnreachable => "Network is unreachable".into(),
            DialError::SourceUnavailable => "Cannot assign requested address".into(),
            DialError::Os(errno) => os_text(*errno),
        }),
        DownReason::Closed(cause) => socket(match cause {
            CloseCause::Eof => "Connection closed".into(),
            CloseCause::Reset => "Connection reset by peer".into(),
            CloseCause::Os(errno) => os_text(*errno),
        }),
        DownReason::Sent(sent) if (sent.code, sent.subcode) == (6, 1) => {
            Some("Automatic shutdown: Route limit exceeded".into())
        }
        DownReason::Sent(sent) | DownReason::Malformed { sent, .. } => ours(sent),
        DownReason::Received(received) => Some(format!("Received: {}", name(received))),
        DownReason::AsMismatch { .. } => ours(&Notification::new(2, 2)),
        DownReason::Restarted => Some("Error: Graceful restart".into()),
        DownReason::HoldExpired => ours(&Notification::new(4, 0)),
        DownReason::SendHoldExpired => ours(&Notification::new(8, 0)),
        DownReason::Stopped(StopReason::AdminDown) => Some("Error: Administrative shutdown".into()),
        DownReason::Stopped(_) => None,
    }
}

fn ours(sent: &Notification) -> Option<String> {
    Some(format!("BGP Error: {}", name(sent)))
}

/// The name alone: what the peer's operator wrote is for `show peers`, and must not look like a line of this protocol.
fn name(notification: &Notification) -> String {
    Notification::new(notification.code, notification.subcode).to_string()
}

/// An errno in the system's words, without its number.
fn os_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

fn left(timer: &Timer, now: Millis) -> u64 {
    (timer.until - now).as_secs()
}

fn waits(status: &Status, now: Millis) -> Vec<(&'static str, u64, Option<u16>)> {
    let mut waits = Vec::new();
    if status.state == StateName::Established {
        return waits;
    }
    let mut wait = |label, timer: &Option<Timer>, whole: fn(&Timer) -> Option<u16>| {
        if let Some(timer) = timer {
            waits.push((label, left(timer, now), whole(timer)));
        }
    };
    wait("Error wait", &status.error_wait, |timer| Some(timer.nominal));
    wait("Connect delay", &status.connect_delay, |timer| Some(timer.nominal));
    wait("Restart timer", &status.restart, |_| None);
    waits
}

fn up(peer: &Peer, status: &Status, now: Millis) -> Option<Up> {
    let negotiated = status.negotiated.as_deref()?;
    let timer =
        |timer: &Option<Timer>| timer.as_ref().map_or((0, 0), |timer| (left(timer, now), timer.nominal));
    let hold = timer(&status.hold);
    Some(Up {
        id: negotiated.peer_id,
        capabilities: capabilities(negotiated, peer.key.afi),
        session: words_of_session(peer, negotiated),
        source: negotiated.endpoints.local.ip().to_canonical(),
        hold: (hold.0, negotiated.hold_time),
        keepalive: timer(&status.keepalive),
    })
}

/// What the peer's OPEN offers, in BIRD's order and words.
fn capabilities(negotiated: &Negotiated, afi: Afi) -> Vec<&'static str> {
    let list = &negotiated.peer_open.capabilities;
    let has = |wanted: fn(&Capability) -> bool| list.iter().any(wanted);
    let mut words = Vec::new();
    let mut word = |there: bool, word: &'static str| {
        if there {
            words.push(word);
        }
    };
    word(has(|c| matches!(c, Capability::RouteRefresh)), "refresh");
    word(has(|c| matches!(c, Capability::EnhancedRefresh)), "enhanced-refresh");
    for capability in list {
        let able = match capability {
            Capability::GracefulRestart { families, .. } => {
                families.iter().any(|family| family.family.unicast() == Some(afi))
            }
            _ => continue,
        };
        word(true, if able { "restart-able" } else { "restart-aware" });
    }
    for capability in list {
        let able = match capability {
            Capability::LongLivedGr(families) => {
                families.iter().any(|(family, _)| family.family.unicast() == Some(afi))
            }
            _ => continue,
        };
        word(true, if able { "llgr-able" } else { "llgr-aware" });
    }
    word(has(|c| matches!(c, Capability::FourOctetAs(_))), "AS4");
    let modes = list.iter().flat_map(|capability| match capability {
        Capability::AddPath(families) => families.as_slice(),
        _ => &[],
    });
    let mode = modes.filter(|(family, _)| family.unicast() == Some(afi)).fold(0, |all, (_, mode)| all | mode);
    word(mode & 1 != 0, "add-path-rx");
    word(mode & 2 != 0, "add-path-tx");
    word(has(|c| matches!(c, Capability::ExtendedMessage)), "ext-messages");
    words
}

fn words_of_session(peer: &Peer, negotiated: &Negotiated) -> Vec<&'static str> {
    let context = &negotiated.context;
    let multihop = match peer.spec.transport.ttl {
        TtlRule::Multihop(ttl) => ttl > 1,
        TtlRule::Security { hops } => hops > 1,
    };
    let words = [
        (true, if peer.treatment.internal { "internal" } else { "external" }),
        (multihop, "multihop"),
        (peer.treatment.rr_client.is_some(), "route-reflector"),
        (context.as4, "AS4"),
        (context.add_path_rx.contains(peer.key.afi), "add-path-rx"),
        (context.add_path_tx.contains(peer.key.afi), "add-path-tx"),
        (context.extended_message, "ext-messages"),
    ];
    words.into_iter().filter(|(there, _)| *there).map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_proto::session::{Conn, Endpoints, Input, NextOpen, OpenParams, PeerSpec, Session, Transport};
    use bgp_proto::{AfiSet, Asn, RouterId};
    use std::net::IpAddr;

    fn view_after(inputs: &[(u64, Input<'_>)]) -> PeerView {
        let (us, peer): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let _ = us;
        let transport = Transport { peer, scope: 0, port: 179, ttl: TtlRule::Multihop(64) };
        let router_id = RouterId("10.0.0.1".parse().unwrap());
        let open = OpenParams { local_asn: Asn(1), peer_asn: Asn(1), router_id, families: AfiSet::BOTH };
        let mut session =
            Session::new(PeerSpec { transport, open, next: NextOpen::default() }, 1, AfiSet::EMPTY);
        let mut last = Millis(0);
        for (secs, input) in inputs {
            last = Millis::secs(*secs);
            let input = match input {
                Input::Start => Input::Start,
                Input::Connected(conn, ends) => Input::Connected(*conn, *ends),
                Input::DialFailed(error) => Input::DialFailed(*error),
                Input::BadFrame(conn, notification) => Input::BadFrame(*conn, notification.clone()),
                Input::Closed(conn, cause) => Input::Closed(*conn, *cause),
                other => panic!("{other:?}"),
            };
            session.handle(last, input, &mut Vec::new());
        }
        let mut view = PeerView::default();
        view.update(&session, last, None, true);
        view
    }

    #[test]
    fn reasons_become_birds_words_with_their_class() {
        let ends =
            Endpoints { local: "10.0.0.1:1000".parse().unwrap(), remote: "10.0.0.2:179".parse().unwrap() };
        let refused = view_after(&[(0, Input::Start), (1, Input::DialFailed(DialError::Refused))]);
        assert_eq!(states(&refused), ("start", "Active"));
        assert_eq!(error(&refused).unwrap(), "Socket: Connection refused");
        let no_route = view_after(&[(0, Input::Start), (1, Input::DialFailed(DialError::HostUnreachable))]);
        assert_eq!(error(&no_route).unwrap(), "Socket: No route to host");
        let other = view_after(&[(0, Input::Start), (1, Input::DialFailed(DialError::Os(13)))]);
        assert_eq!(error(&other).unwrap(), "Socket: Permission denied");
        let closed = view_after(&[
            (0, Input::Start),
            (0, Input::Connected(Conn::Active, ends)),
            (1, Input::Closed(Conn::Active, CloseCause::Eof)),
        ]);
        assert_eq!(error(&closed).unwrap(), "Socket: Connection closed");
        let sent = view_after(&[
            (0, Input::Start),
            (0, Input::Connected(Conn::Active, ends)),
            (1, Input::BadFrame(Conn::Active, Notification::new(1, 1))),
        ]);
        assert_eq!(states(&sent), ("start", "Idle"));
        assert_eq!(error(&sent).unwrap(), "BGP Error: Connection not synchronized");
    }

    #[test]
    fn a_session_that_is_held_back_counts_as_one_that_is_not_up() {
        let mut view = PeerView::default();
        assert_eq!((states(&view), error(&view)), (("start", "Idle"), None));
        view.hold("its password cannot be used".into());
        assert_eq!(states(&view).0, "start");
        assert!(error(&view).unwrap().starts_with("Error: "));
    }
}
