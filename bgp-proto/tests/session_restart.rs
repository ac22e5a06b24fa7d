//! One session against a scripted peer that restarts: graceful restart, also long-lived and with NOTIFICATIONs (RFC
//! 4724, RFC 8538, RFC 9494; BGP-29 to BGP-32, T5, T7, W54), one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_driver;

use bgp_proto::session::{
    CloseCause, Conn, DialError, Event, Input, Output, PeerSpec, StateName, StopReason,
};
use bgp_proto::wire::{Capability, Message, Notification};
use bgp_proto::{Afi, AfiSet, Asn, Millis};
use session_driver::{Driver, Spec, kinds, open_long_lived, open_with, plain_open, spec};

const IPV4: AfiSet = AfiSet::only(Afi::Ipv4);

fn cease(subcode: u8) -> Notification {
    Notification::new(6, subcode)
}

// ---- graceful restart of the peer

#[test]
fn routes_are_kept_when_tcp_ends_and_go_when_the_restart_time_is_over() {
    for cause in [CloseCause::Eof, CloseCause::Reset, CloseCause::Os(110)] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        let out = peer.give(Input::Closed(Conn::Active, cause));
        assert_eq!(out[0], Output::Stale(IPV4));
        assert!(!out.contains(&Output::Down));
        let lost = peer.now;
        assert_eq!(peer.status().restart.unwrap().nominal, 120);
        while !peer.tick().contains(&Output::Down) {
            peer.give(Input::DialFailed(DialError::Refused));
        }
        assert_eq!(peer.now - lost, Millis::secs(120), "exactly");
    }
}

#[test]
fn a_peer_without_graceful_restart_loses_its_routes_with_its_connection() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    peer.receive(Conn::Active, &Message::Open(plain_open()));
    peer.receive(Conn::Active, &Message::Keepalive);
    let out = peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    assert_eq!(out[0], Output::Down);
}

#[test]
fn routes_go_at_once_when_the_peer_is_back_without_its_forwarding_state() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    peer.tick();
    let out = peer.establish_with(Conn::Active, open_with(120));
    let up = out.iter().position(|o| matches!(o, Output::Up(_))).unwrap();
    assert_eq!(out[up + 1], Output::SweepStale(Afi::Ipv4));
    assert!(!peer.receive_end_of_rib(Conn::Active).contains(&Output::SweepStale(Afi::Ipv4)));
}

#[test]
fn routes_that_the_peer_preserved_are_swept_at_end_of_rib() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    peer.tick();
    let out = peer.establish_preserved(Conn::Active);
    assert!(!out.contains(&Output::SweepStale(Afi::Ipv4)));
    assert_eq!(
        peer.receive_end_of_rib(Conn::Active),
        [Output::SweepStale(Afi::Ipv4), Output::EndOfRib(Afi::Ipv4)]
    );
}

#[test]
fn a_peer_that_restarts_twice_in_its_window_keeps_what_it_has_refreshed() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    peer.tick();
    // Lost again before it is established: nothing changes for the routes.
    peer.connect(Conn::Active);
    let out = peer.give(Input::Closed(Conn::Active, CloseCause::Reset));
    assert!(!out.iter().any(|o| matches!(o, Output::Down | Output::Stale(_) | Output::SweepStale(_))));
    peer.tick();
    peer.establish_preserved(Conn::Active);
    // Lost before End-of-RIB: what is still stale from the first time goes (RFC 4724 §4.2), the rest is kept.
    let out = peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    assert_eq!(&out[..2], [Output::SweepStale(Afi::Ipv4), Output::Stale(IPV4)]);
}

// ---- long-lived graceful restart (RFC 9494)

fn long_lived() -> Spec {
    spec().with(|next| next.long_lived = Some(0))
}

/// The outputs at the next deadline that says anything of routes, and when it was; dials are refused.
fn next_of_routes(peer: &mut Driver) -> (Millis, Vec<Output>) {
    loop {
        let mut out = peer.tick();
        peer.give(Input::DialFailed(DialError::Refused));
        out.retain(|o| matches!(o, Output::LongLivedStale(_) | Output::SweepStale(_) | Output::Down));
        if !out.is_empty() {
            return (peer.now, out);
        }
    }
}

#[test]
fn routes_of_a_peer_that_asks_for_it_stay_long_lived_stale_after_its_restart_time() {
    let mut peer = Driver::new(long_lived());
    peer.give(Input::Start);
    peer.establish_with(Conn::Active, open_long_lived(120, 3600, false));
    let lost = peer.now;
    assert_eq!(peer.give(Input::Closed(Conn::Active, CloseCause::Eof))[0], Output::Stale(IPV4));
    assert_eq!(peer.status().kept_until, Some(lost + Millis::secs(3720)));
    let restart_over = (lost + Millis::secs(120), vec![Output::LongLivedStale(IPV4)]);
    assert_eq!(next_of_routes(&mut peer), restart_over);
    assert!(peer.status().events.iter().any(|(_, event)| *event == Event::LongLivedStale(IPV4)));
    assert_eq!(next_of_routes(&mut peer), (lost + Millis::secs(3720), vec![Output::Down]));
}

#[test]
fn without_the_setting_or_the_peers_capability_or_graceful_restart_routes_go_with_the_restart_timer() {
    let mut alone = plain_open();
    alone.capabilities = open_long_lived(0, 3600, false).capabilities;
    alone.capabilities.retain(|c| !matches!(c, Capability::GracefulRestart { .. }));
    let cases = [
        (spec(), open_long_lived(120, 3600, false), 120),
        (long_lived(), open_with(120), 120),
        (long_lived(), open_long_lived(120, 0, false), 120),
        (long_lived(), alone, 0),
    ];
    for (spec, open, kept) in cases {
        let mut peer = Driver::new(spec);
        peer.give(Input::Start);
        peer.establish_with(Conn::Active, open);
        let lost = peer.now;
        let out = peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
        if kept == 0 {
            assert_eq!(out[0], Output::Down);
        } else {
            assert_eq!(next_of_routes(&mut peer), (lost + Millis::secs(kept), vec![Output::Down]));
        }
    }
}

#[test]
fn without_a_restart_time_routes_are_long_lived_stale_at_once() {
    let mut peer = Driver::new(long_lived());
    peer.give(Input::Start);
    peer.establish_with(Conn::Active, open_long_lived(0, 60, false));
    let out = peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    let routes = |o: &&Output| matches!(o, Output::Stale(_) | Output::LongLivedStale(_) | Output::Down);
    let said: Vec<&Output> = out.iter().filter(routes).collect();
    assert_eq!(said, [&Output::Stale(IPV4), &Output::LongLivedStale(IPV4)]);
    assert_ne!(peer.deadline(), Some(peer.now), "nothing is left due");
}

#[test]
fn a_peer_that_is_back_in_the_long_lived_period_refreshes_what_it_preserved() {
    for preserved in [true, false] {
        let mut peer = Driver::new(long_lived());
        peer.give(Input::Start);
        peer.establish_with(Conn::Active, open_long_lived(1, 3600, false));
        peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
        assert_eq!(next_of_routes(&mut peer).1, [Output::LongLivedStale(IPV4)]);
        peer.tick();
        let out = peer.establish_with(Conn::Active, open_long_lived(1, 3600, preserved));
        assert_eq!(out.contains(&Output::SweepStale(Afi::Ipv4)), !preserved);
        let out = peer.receive_end_of_rib(Conn::Active);
        assert_eq!(out.contains(&Output::SweepStale(Afi::Ipv4)), preserved);
    }
}

#[test]
fn a_session_that_is_stopped_drops_long_lived_stale_routes() {
    let mut peer = Driver::new(long_lived());
    peer.give(Input::Start);
    peer.establish_with(Conn::Active, open_long_lived(1, 3600, false));
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    assert_eq!(next_of_routes(&mut peer).1, [Output::LongLivedStale(IPV4)]);
    assert!(peer.give(Input::Stop(StopReason::Deconfigured)).contains(&Output::Down));
    assert_eq!(peer.status().kept_until, None);
}

#[test]
fn a_notification_in_either_direction_drops_the_routes() {
    for code in [(6, 2), (6, 4), (3, 1), (4, 0)] {
        let notification = Notification::new(code.0, code.1);
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        let out = peer.receive(Conn::Active, &Message::Notification(notification.clone()));
        assert!(out.contains(&Output::Down));
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        assert!(peer.give(Input::Close(notification)).contains(&Output::Down));
    }
}

#[test]
fn with_notification_graceful_restart_only_a_hard_reset_drops_the_routes() {
    let both = |peer: &mut Driver| {
        peer.give(Input::Start);
        peer.establish_with(Conn::Active, session_driver::open_n());
    };
    let spec = || spec().with(|next| next.notification_gr = true);
    let mut peer = Driver::new(spec());
    both(&mut peer);
    let out = peer.receive(Conn::Active, &Message::Notification(cease(4)));
    assert!(out.contains(&Output::Stale(IPV4)) && !out.contains(&Output::Down));

    let mut peer = Driver::new(spec());
    both(&mut peer);
    let out = peer.receive(Conn::Active, &Message::Notification(cease(9)));
    assert!(out.contains(&Output::Down));

    let mut peer = Driver::new(spec().with(|next| next.keepalive = Some(60_000)));
    both(&mut peer);
    assert!(peer.tick().contains(&Output::Stale(IPV4)), "hold timer expiry too");

    let mut peer = Driver::new(spec());
    both(&mut peer);
    let out = peer.give(Input::Stop(StopReason::Deconfigured));
    let hard = Notification { data: vec![6, 3].into(), ..cease(9) };
    assert_eq!(peer.notifications(&out), [hard], "what is meant for good is told as a hard reset");
    assert!(out.contains(&Output::Down));
}

#[test]
fn while_a_peer_restarts_a_hard_reset_or_an_error_drops_its_routes_and_a_cease_does_not() {
    for (notification, dropped) in
        [(cease(9), true), (cease(2), false), (cease(7), false), (Notification::new(2, 2), true)]
    {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
        peer.tick();
        peer.connect(Conn::Active);
        let out = peer.receive(Conn::Active, &Message::Notification(notification.clone()));
        assert_eq!(out.contains(&Output::Down), dropped, "{notification:?}");
    }
}

// ---- a session that another one replaces

/// The same peer in another AS.
fn other_as() -> Box<PeerSpec> {
    let mut spec = spec().0;
    spec.open.peer_asn = Asn(64513);
    spec.into()
}

fn open_of_other_as() -> bgp_proto::wire::Open {
    let mut open = open_with(120);
    open.my_as = 64513;
    for capability in &mut open.capabilities {
        if let Capability::FourOctetAs(asn) = capability {
            *asn = Asn(64513);
        }
    }
    open
}

/// R bit, and the F bit of the only family.
fn forwarding(open: &bgp_proto::wire::Open) -> (bool, bool) {
    let found = open.capabilities.iter().find_map(|capability| match capability {
        Capability::GracefulRestart { restarting, families, .. } => {
            Some((*restarting, families[0].forwarding))
        }
        _ => None,
    });
    found.unwrap()
}

#[test]
fn routes_of_a_replaced_session_stay_until_the_successor_has_sent_end_of_rib() {
    for with_graceful_restart in [true, false] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish_with(Conn::Active, if with_graceful_restart { open_with(120) } else { plain_open() });
        let out = peer.give(Input::Replace(other_as()));
        // The peer keeps our routes where it can.
        assert_eq!(peer.notifications(&out), if with_graceful_restart { vec![] } else { vec![cease(6)] });
        assert!(out.contains(&Output::Close(Conn::Active)) && out.contains(&Output::Stale(IPV4)), "{out:?}");
        assert_eq!(peer.state(), StateName::Active);
        assert!(peer.tick().contains(&Output::Dial), "soon");
        assert!(peer.now < Millis::secs(1));
        // No F bit is needed: nothing happened to the peer.
        let out = peer.connect(Conn::Active);
        assert_eq!(forwarding(&peer.opens(&out)[0]), (false, true), "ours to the peer neither");
        peer.receive(Conn::Active, &Message::Open(open_of_other_as()));
        let out = peer.receive(Conn::Active, &Message::Keepalive);
        assert!(out.iter().any(|o| matches!(o, Output::Up(_))), "{out:?}");
        assert!(!peer.log.iter().any(|o| matches!(o, Output::Down | Output::SweepStale(_))));
        assert_eq!(peer.status().stale, IPV4);
        assert_eq!(
            peer.receive_end_of_rib(Conn::Active),
            [Output::SweepStale(Afi::Ipv4), Output::EndOfRib(Afi::Ipv4)]
        );
        assert_eq!(peer.status().stale, AfiSet::EMPTY);
    }
}

#[test]
fn a_peer_that_has_yet_to_hear_of_the_change_and_refuses_the_successor_loses_no_routes_before_their_time() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Replace(other_as()));
    let replaced = peer.now;
    peer.tick();
    peer.connect(Conn::Active);
    let out = peer.receive(Conn::Active, &Message::Notification(Notification::new(2, 2)));
    assert!(!out.contains(&Output::Down), "{out:?}");
    assert_eq!(peer.state(), StateName::Idle);
    while !peer.tick().contains(&Output::Down) {
        peer.give(Input::DialFailed(DialError::Refused));
    }
    assert_eq!(peer.now - replaced, Millis::secs(120));
}

#[test]
fn a_session_that_is_replaced_while_its_peer_is_away_keeps_the_timer_and_waits_for_the_successors_routes() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    let timer = peer.status().restart;
    peer.pass(Millis::secs(3));
    let out = peer.give(Input::Replace(other_as()));
    assert!(!out.contains(&Output::Down) && timer.is_some());
    assert_eq!(peer.status().restart, timer);
    peer.tick();
    peer.establish_with(Conn::Active, open_of_other_as());
    assert_eq!(peer.status().stale, IPV4);
}

#[test]
fn an_attempt_that_is_replaced_is_given_up_and_a_stopped_session_stays_stopped() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Replace(other_as()));
    assert_eq!(peer.state(), StateName::Down);
    peer.give(Input::Start);
    assert_eq!(peer.give(Input::Replace(spec().0.into()))[0], Output::AbortDial);
    peer.tick();
    peer.connect(Conn::Active);
    let out = peer.give(Input::Replace(spec().passive().0.into()));
    assert_eq!((kinds(&out), out[0].clone()), (vec![], Output::Close(Conn::Active)));
    assert_eq!(peer.state(), StateName::Passive);
}
