//! One session against a scripted peer: the rules of BGP-3, BGP-9 to BGP-15, BGP-29 to BGP-37 and the faults T1 to T8,
//! T17, T18, W52 to W55, one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_driver;

use bgp_proto::session::{
    CloseCause, Conn, DialError, DownReason, Event, Input, MaxPrefix, NextOpen, Output, StateName, StopReason,
};
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::{Capability, Message, Notification, Open};
use bgp_proto::{Afi, AfiSet, Asn, Millis, RouterId};
use session_driver::{Driver, Spec, V4, kinds, open_long_lived, open_with, plain_open, spec};

const IPV4: AfiSet = AfiSet::only(Afi::Ipv4);

fn cease(subcode: u8) -> Notification {
    Notification::new(6, subcode)
}

// ---- dialling

#[test]
fn a_session_dials_the_moment_it_starts() {
    let mut peer = Driver::new(spec());
    assert_eq!(peer.give(Input::Start), [Output::Dial]);
    assert_eq!(peer.state(), StateName::Connect);
    assert!(peer.give(Input::Start).is_empty(), "a second start is no event");
}

#[test]
fn after_a_tcp_failure_it_dials_again_soon_and_then_once_in_a_connect_delay() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    for pause in [100, 200, 400, 800, 1600].into_iter().chain([2000; 20]) {
        peer.give(Input::DialFailed(DialError::Refused));
        assert_eq!(peer.state(), StateName::Active);
        let failed = peer.now;
        assert_eq!(peer.tick(), [Output::Dial]);
        assert!((pause * 3 / 4..=pause).contains(&(peer.now - failed).0), "{pause}: {}", peer.now - failed);
    }
    assert_eq!(peer.status().last, Some(DownReason::Dial(DialError::Refused)));
    let told = peer.log.iter().filter(|o| matches!(o, Output::Event(_))).count();
    assert_eq!(told, 1, "the same reason is told once");
}

#[test]
fn a_session_that_held_is_dialled_again_soon_and_one_that_flaps_is_not() {
    for (held, soon) in [(60, true), (1, false)] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        for _ in 0..10 {
            peer.give(Input::DialFailed(DialError::Refused));
            peer.tick();
        }
        peer.establish(Conn::Active);
        peer.pass(Millis::secs(held));
        peer.receive(Conn::Active, &Message::Notification(cease(2)));
        let pause = peer.deadline().unwrap() - peer.now;
        assert_eq!(pause <= Millis(100), soon, "{pause}");
    }
}

#[test]
fn a_dial_that_gets_no_answer_is_given_up_and_tried_again_at_once() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    let out = peer.tick();
    assert!((3750..=5000).contains(&peer.now.0));
    assert_eq!(out.first(), Some(&Output::AbortDial));
    assert_eq!(out.last(), Some(&Output::Dial));
    assert_eq!(peer.status().last, Some(DownReason::Dial(DialError::Timeout)));
    assert!(peer.status().last.unwrap().to_string().contains("MD5"));
}

#[test]
fn a_dial_that_waited_for_its_turn_has_its_whole_time() {
    let mut peer = Driver::new(spec());
    peer.crowded = true;
    peer.give(Input::Start);
    assert_eq!((peer.state(), peer.deadline()), (StateName::Connect, None), "no time runs");
    peer.now = Millis::secs(30);
    assert!(peer.give(Input::Tick).is_empty());
    assert!(peer.give(Input::DialStarted).is_empty());
    let limit = peer.deadline().unwrap();
    assert!((33_750..=35_000).contains(&limit.0));
    peer.now = Millis::secs(32);
    peer.give(Input::DialStarted);
    assert_eq!(peer.deadline(), Some(limit), "once");
    assert_eq!(peer.tick().first(), Some(&Output::AbortDial));
    assert_eq!(peer.deadline(), None, "the next one waits for its turn again");
}

#[test]
fn connect_delay_and_connect_limit_are_those_of_the_peer() {
    let mut peer = Driver::new(spec().with(|next| (next.connect_delay, next.connect_retry) = (40, 20)));
    peer.give(Input::Start);
    peer.tick();
    assert!((15_000..=20_000).contains(&peer.now.0), "the dial is given up: {}", peer.now);
    let mut longest = 0;
    for _ in 0..12 {
        peer.give(Input::DialFailed(DialError::HostUnreachable));
        let failed = peer.now;
        peer.tick();
        longest = longest.max((peer.now - failed).0);
    }
    assert!((30_000..=40_000).contains(&longest), "{longest}");
}

#[test]
fn a_peer_that_connects_and_says_nothing_is_closed_when_the_large_hold_time_is_over() {
    let mut peer = Driver::new(spec().passive());
    peer.give(Input::Start);
    peer.connect(Conn::Passive);
    let out = peer.tick();
    assert!((180_000..=240_000).contains(&peer.now.0), "{}", peer.now);
    assert_eq!(peer.notifications(&out), [Notification::new(4, 0)]);
    assert_eq!((peer.state(), peer.status().last), (StateName::Idle, Some(DownReason::HoldExpired)));
}

#[test]
fn a_second_connection_of_the_peer_takes_the_place_of_the_first_while_opens_are_exchanged() {
    for open_has_come in [false, true] {
        let mut peer = Driver::new(spec().passive());
        peer.give(Input::Start);
        peer.connect(Conn::Passive);
        if open_has_come {
            peer.receive(Conn::Passive, &Message::Open(open_with(120)));
        }
        let out = peer.connect(Conn::Passive);
        assert_eq!(peer.notifications(&out), [cease(7)]);
        let places = |o: &&Output| matches!(o, Output::Close(_) | Output::Accept(_));
        let said: Vec<&Output> = out.iter().filter(places).collect();
        assert_eq!(said, [&Output::Close(Conn::Passive), &Output::Accept(Conn::Passive)]);
        assert_eq!(peer.opens(&out).len(), 1, "our OPEN goes out on the new one");
        peer.receive(Conn::Passive, &Message::Open(open_with(120)));
        peer.receive(Conn::Passive, &Message::Keepalive);
        assert_eq!(peer.state(), StateName::Established);
    }
}

#[test]
fn a_caller_that_connects_again_and_again_without_an_open_does_not_keep_us_from_dialling() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.give(Input::DialFailed(DialError::Refused));
    let mut dialled = false;
    for second in 1..=4 {
        peer.now = Millis::secs(second);
        dialled |= peer.connect(Conn::Passive).contains(&Output::Dial);
        dialled |= peer.give(Input::Tick).contains(&Output::Dial);
        dialled |= peer.give(Input::Closed(Conn::Passive, CloseCause::Eof)).contains(&Output::Dial);
    }
    assert!(dialled);
}

#[test]
fn a_passive_session_never_dials_and_takes_what_comes() {
    let mut peer = Driver::new(spec().passive());
    assert!(peer.give(Input::Start).is_empty());
    assert_eq!((peer.state(), peer.deadline()), (StateName::Passive, None));
    peer.establish(Conn::Passive);
    peer.give(Input::Closed(Conn::Passive, CloseCause::Eof));
    assert_eq!(peer.state(), StateName::Passive);
}

#[test]
fn a_connection_is_refused_without_a_word_while_the_session_does_not_want_one() {
    let mut peer = Driver::new(spec());
    assert_eq!(peer.connect(Conn::Passive), [Output::Refuse(Default::default())]);
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    peer.fault_of_peer(); // in error wait now
    assert_eq!(peer.state(), StateName::Idle);
    assert_eq!(peer.connect(Conn::Passive), [Output::Refuse(Default::default())]);
    assert_eq!(peer.connect(Conn::Active), [Output::Refuse(Default::default())]);
}

#[test]
fn a_dial_that_succeeds_after_it_was_given_up_is_refused() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.give(Input::Stop(StopReason::AdminDown));
    assert_eq!(peer.connect(Conn::Active), [Output::Refuse(Default::default())]);
    assert!(peer.give(Input::DialFailed(DialError::Refused)).is_empty());
}

// ---- errors and back-off

#[test]
fn protocol_errors_back_off_from_5_to_30_seconds_and_are_forgotten_after_300() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    let error_wait = |peer: &mut Driver| {
        peer.connect(Conn::Active);
        peer.fault_of_peer();
        let nominal = peer.status().error_wait.unwrap().nominal;
        let left = (peer.deadline().unwrap() - peer.now).0;
        assert!((u64::from(nominal) * 750..=u64::from(nominal) * 1000).contains(&left));
        assert_eq!(peer.tick(), [Output::Dial]);
        nominal
    };
    let waits: Vec<u16> = (0..5).map(|_| error_wait(&mut peer)).collect();
    assert_eq!(waits, [5, 10, 20, 30, 30]);
    peer.establish(Conn::Active);
    peer.pass(Millis::secs(301));
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    peer.tick();
    assert_eq!(error_wait(&mut peer), 5);
}

#[test]
fn a_received_cease_brings_no_back_off() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let out = peer.receive(Conn::Active, &Message::Notification(cease(2)));
    assert!(out.contains(&Output::Down) && out.contains(&Output::Close(Conn::Active)));
    assert_eq!(peer.state(), StateName::Active);
    assert!((peer.deadline().unwrap() - peer.now).0 <= 2000);
}

#[test]
fn a_peer_that_rejects_capabilities_is_tried_without_them() {
    for subcode in [4, 7] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.connect(Conn::Active);
        peer.receive(Conn::Active, &Message::Notification(Notification::new(2, subcode)));
        assert_eq!(peer.state(), StateName::Active, "no back-off");
        peer.tick();
        let out = peer.connect(Conn::Active);
        assert_eq!(peer.opens(&out)[0].capabilities, []);
        peer.receive(Conn::Active, &Message::Open(plain_open()));
        peer.receive(Conn::Active, &Message::Keepalive);
        assert_eq!(peer.state(), StateName::Established);
        assert!(!peer.session.negotiated().unwrap().context.as4);
    }
}

#[test]
fn a_second_rejection_without_capabilities_is_an_error_like_others() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    for state in [StateName::Active, StateName::Idle] {
        peer.connect(Conn::Active);
        peer.receive(Conn::Active, &Message::Notification(Notification::new(2, 4)));
        assert_eq!(peer.state(), state);
        peer.tick();
    }
    let out = peer.connect(Conn::Active);
    assert!(!peer.opens(&out)[0].capabilities.is_empty(), "then it begins anew");
}

#[test]
fn another_as_is_refused_and_told_with_both_numbers() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    let mut open = plain_open();
    open.my_as = 65009;
    let out = peer.receive(Conn::Active, &Message::Open(open));
    assert_eq!(peer.notifications(&out)[0].code, 2);
    let reason = peer.status().last.unwrap();
    assert_eq!(reason, DownReason::AsMismatch { expected: Asn(64512), got: Asn(65009) });
    assert_eq!(reason.to_string(), "the peer is AS 65009, configured is AS 64512");
}

#[test]
fn an_unexpected_message_ends_the_connection_with_the_subcode_of_its_state() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    let out = peer.receive(Conn::Active, &Message::Keepalive);
    assert_eq!(peer.notifications(&out), [Notification { data: vec![4].into(), ..Notification::new(5, 1) }]);

    peer.tick();
    peer.connect(Conn::Active);
    peer.receive(Conn::Active, &Message::Open(open_with(120)));
    let out = peer.receive_end_of_rib(Conn::Active);
    assert_eq!(peer.notifications(&out), [Notification { data: vec![2].into(), ..Notification::new(5, 2) }]);

    peer.tick();
    peer.establish(Conn::Active);
    let out = peer.receive(Conn::Active, &Message::Open(open_with(120)));
    assert_eq!(peer.notifications(&out), [Notification { data: vec![1].into(), ..Notification::new(5, 3) }]);
    assert!(out.contains(&Output::Down));
}

#[test]
fn a_frame_that_is_none_is_answered_with_what_the_shell_found() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let out = peer.give(Input::BadFrame(Conn::Active, Notification::new(1, 1)));
    assert_eq!(peer.notifications(&out), [Notification::new(1, 1)]);
    assert!(out.contains(&Output::Down));
    assert!(peer.give(Input::BadFrame(Conn::Passive, Notification::new(1, 1))).is_empty());
}

#[test]
fn a_notification_with_unknown_code_and_much_data_closes_and_is_shown() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let strange = Notification { code: 99, subcode: 77, data: vec![0x1b; 4000].into() };
    peer.receive(Conn::Active, &Message::Notification(strange.clone()));
    assert_eq!(peer.status().received, Some((peer.now, strange)));
    assert!(peer.status().last.unwrap().to_string().contains("99"));
}

// ---- timers of the established session

#[test]
fn keepalives_go_out_every_60_to_80_seconds_of_a_hold_time_of_240() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    for _ in 0..50 {
        let before = peer.now;
        let out = peer.tick();
        assert_eq!(kinds(&out), [4]);
        assert!((60_000..=80_000).contains(&(peer.now - before).0));
        peer.receive(Conn::Active, &Message::Keepalive);
    }
}

#[test]
fn a_configured_keepalive_interval_is_taken_as_it_is() {
    let mut peer = Driver::new(spec().with(|next| next.keepalive = Some(8)));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let before = peer.now;
    assert_eq!(kinds(&peer.tick()), [4]);
    assert!((6000..=8000).contains(&(peer.now - before).0));
}

#[test]
fn without_a_hold_time_no_timer_runs() {
    let mut peer = Driver::new(spec().with(|next| next.hold_time = 0));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    assert_eq!(peer.deadline(), None);
}

#[test]
fn silence_for_the_hold_time_ends_the_session_and_drops_the_routes() {
    let mut peer = Driver::new(spec().with(|next| next.keepalive = Some(60_000)));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let before = peer.now;
    let out = peer.tick();
    assert!((180_000..=240_000).contains(&(peer.now - before).0));
    assert_eq!(peer.notifications(&out), [Notification::new(4, 0)]);
    assert!(out.contains(&Output::Down), "not graceful");
    assert_eq!(peer.status().last, Some(DownReason::HoldExpired));
    assert_eq!(peer.state(), StateName::Idle);
}

#[test]
fn a_late_tick_does_not_expire_the_hold_timer_before_pending_input_is_read() {
    let mut peer = Driver::new(spec().with(|next| (next.hold_time, next.keepalive) = (3, Some(60_000))));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.now = peer.now + Millis::secs(30); // asleep
    assert!(peer.give(Input::Tick).is_empty());
    assert_eq!(peer.state(), StateName::Established);
    peer.receive(Conn::Active, &Message::Keepalive);
    assert!(peer.deadline().unwrap() > peer.now + Millis(2000));
    peer.now = peer.now + Millis::secs(30);
    assert!(peer.give(Input::Tick).is_empty());
    peer.tick();
    assert_eq!(peer.status().last, Some(DownReason::HoldExpired), "but only once");
}

#[test]
fn a_late_tick_in_open_confirm_waits_for_the_keepalive_too() {
    let mut peer = Driver::new(spec().with(|next| (next.hold_time, next.keepalive) = (3, Some(60_000))));
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    peer.receive(Conn::Active, &Message::Open(open_with(120)));
    peer.now = peer.now + Millis::secs(30);
    assert!(peer.give(Input::Tick).is_empty());
    peer.receive(Conn::Active, &Message::Keepalive);
    assert_eq!(peer.state(), StateName::Established);
}

#[test]
fn input_that_cannot_be_taken_now_keeps_the_hold_timer_from_running_out() {
    let mut peer = Driver::new(spec().with(|next| (next.hold_time, next.keepalive) = (9, Some(60_000))));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    for _ in 0..10 {
        peer.now = peer.deadline().unwrap();
        peer.give(Input::Unread(Conn::Active));
        assert!(peer.give(Input::Tick).is_empty());
    }
    assert_eq!(peer.state(), StateName::Established);
}

#[test]
fn a_peer_that_takes_no_bytes_is_closed_after_the_send_hold_time_though_it_sends_keepalives() {
    let mut peer = Driver::new(spec().with(|next| next.send_hold = Some(100)));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Blocked(Conn::Active));
    let blocked = peer.now;
    peer.give(Input::Blocked(Conn::Active));
    let mut sent = Vec::new();
    while peer.state() == StateName::Established {
        sent = peer.tick();
        peer.receive(Conn::Active, &Message::Keepalive);
    }
    assert_eq!(peer.now - blocked, Millis::secs(100));
    assert_eq!(peer.notifications(&sent), [Notification::new(8, 0)]);
    assert_eq!(peer.status().last, Some(DownReason::SendHoldExpired));
}

#[test]
fn bytes_that_leave_stop_the_send_hold_timer() {
    let mut peer = Driver::new(spec().with(|next| next.send_hold = Some(50)));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Blocked(Conn::Active));
    assert!(peer.status().send_hold.is_some());
    peer.give(Input::Wrote(Conn::Active));
    assert!(peer.status().send_hold.is_none());
    let mut never = Driver::new(spec().with(|next| next.send_hold = None));
    never.give(Input::Start);
    never.establish(Conn::Active);
    never.give(Input::Blocked(Conn::Active));
    assert!(never.status().send_hold.is_none());
}

#[test]
fn the_send_hold_time_by_default_is_480_seconds_or_twice_the_hold_time() {
    for (hold_time, expected) in [(90, 480), (240, 480), (600, 1200)] {
        let mut peer = Driver::new(spec().with(|next| next.hold_time = hold_time));
        peer.give(Input::Start);
        peer.connect(Conn::Active);
        let mut open = open_with(120);
        open.hold_time = hold_time;
        peer.receive(Conn::Active, &Message::Open(open));
        peer.receive(Conn::Active, &Message::Keepalive);
        peer.give(Input::Blocked(Conn::Active));
        assert_eq!(peer.status().send_hold.unwrap().nominal, expected);
    }
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

// ---- a second connection in Established

#[test]
fn a_new_connection_of_a_graceful_peer_takes_over_when_its_open_has_come() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Passive);
    peer.pass(Millis::secs(60));
    let out = peer.connect(Conn::Passive);
    assert_eq!(out, [Output::Accept(Conn::Active)], "in the free slot; nothing is sent yet");
    assert_eq!(peer.state(), StateName::Established);
    let out = peer.receive(Conn::Active, &Message::Open(open_with(120)));
    assert_eq!(&out[..2], [Output::Close(Conn::Passive), Output::Stale(IPV4)]);
    assert_eq!(kinds(&out), [1, 4], "our OPEN and KEEPALIVE; the old connection hears nothing");
    let out = peer.receive(Conn::Active, &Message::Keepalive);
    assert!(out.iter().any(|o| matches!(o, Output::Up(_))));
    assert!(!peer.log.contains(&Output::Down));
}

#[test]
fn a_connection_that_says_nothing_or_nonsense_does_not_harm_an_established_session() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.pass(Millis::secs(60));
    assert_eq!(peer.connect(Conn::Passive), [Output::Accept(Conn::Passive)]);
    assert!(peer.give(Input::Closed(Conn::Passive, CloseCause::Eof)).is_empty());
    peer.connect(Conn::Passive);
    let out = peer.receive(Conn::Passive, &Message::Keepalive);
    assert_eq!(kinds(&out), [3]);
    assert_eq!(out.last(), Some(&Output::Close(Conn::Passive)));
    peer.connect(Conn::Passive);
    let mut stranger = open_with(120);
    stranger.hold_time = 1;
    assert_eq!(kinds(&peer.receive(Conn::Passive, &Message::Open(stranger))), [3]);
    peer.connect(Conn::Passive);
    let out = peer.connect(Conn::Passive);
    assert_eq!(out, [Output::Close(Conn::Passive), Output::Accept(Conn::Passive)], "one at a time");
    assert_eq!(peer.state(), StateName::Established);
    assert_eq!(peer.status().counters.established, 1);
}

#[test]
fn a_second_connection_without_an_open_is_closed_after_five_seconds_and_harms_nothing() {
    let mut peer = Driver::new(spec().with(|next| next.hold_time = 0));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let before = peer.now;
    peer.connect(Conn::Passive);
    assert_eq!(peer.tick(), [Output::Close(Conn::Passive)]);
    assert!((3750..=5000).contains(&(peer.now - before).0), "{}", peer.now);
    assert_eq!((peer.state(), peer.status().counters.established), (StateName::Established, 1));
}

#[test]
fn beside_a_connection_with_an_open_one_without_stands_for_five_seconds() {
    for (silent, came_first) in [(Conn::Passive, true), (Conn::Active, true), (Conn::Passive, false)] {
        let talks = if silent == Conn::Active { Conn::Passive } else { Conn::Active };
        let mut open = plain_open();
        open.hold_time = 0;
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        if came_first {
            peer.connect(silent);
            assert_eq!(peer.status().hold.unwrap().nominal, 240, "as long as it is alone");
        }
        peer.connect(talks);
        peer.receive(talks, &Message::Open(open));
        if !came_first {
            peer.connect(silent);
        }
        let before = peer.now;
        let out = peer.tick();
        assert!((3750..=5000).contains(&(peer.now - before).0));
        assert_eq!(peer.notifications(&out), [cease(7)]);
        assert!(out.contains(&Output::Close(silent)));
        assert_eq!(peer.state(), StateName::OpenConfirm, "the other goes on");
        peer.receive(talks, &Message::Keepalive);
        assert_eq!(peer.state(), StateName::Established);
    }
}

#[test]
fn what_the_peer_said_is_remembered_beside_what_tcp_says_until_the_session_is_up() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.receive(Conn::Active, &Message::Notification(cease(2)));
    let said = DownReason::Received(cease(2));
    let at = peer.now;
    assert_eq!(peer.status().last.as_ref(), Some(&said));
    peer.tick();
    peer.give(Input::DialFailed(DialError::Refused));
    let status = peer.status();
    assert_eq!((status.last, status.spoken), (Some(DownReason::Dial(DialError::Refused)), Some((at, said))));
    peer.tick();
    peer.establish(Conn::Active);
    assert_eq!(peer.status().spoken, None);
}

#[test]
fn a_connection_whose_peer_does_not_answer_our_open_for_five_seconds_loses_to_a_newer_one() {
    for (seconds, survivor) in [(4, Conn::Active), (5, Conn::Passive)] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.connect(Conn::Active);
        // The lower identifier: what we dialled is the stronger one.
        let weaker = Open { router_id: RouterId("9.0.0.1".parse().unwrap()), ..open_with(120) };
        peer.receive(Conn::Active, &Message::Open(weaker.clone()));
        peer.pass(Millis::secs(seconds));
        peer.connect(Conn::Passive);
        let out = peer.receive(Conn::Passive, &Message::Open(weaker));
        assert_eq!(peer.notifications(&out), [cease(7)]);
        peer.receive(survivor, &Message::Keepalive);
        let status = peer.status();
        assert_eq!(status.negotiated.map(|agreed| agreed.conn), Some(survivor), "after {seconds} s");
    }
}

#[test]
fn a_new_connection_of_a_plain_peer_is_closed_with_cease_7() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish_with(Conn::Active, plain_open());
    peer.pass(Millis::secs(60));
    peer.connect(Conn::Passive);
    let out = peer.receive(Conn::Passive, &Message::Open(plain_open()));
    assert_eq!(peer.notifications(&out), [cease(7)]);
    assert_eq!(peer.state(), StateName::Established);
}

#[test]
fn what_a_simultaneous_open_leaves_behind_is_not_taken_for_a_restart() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.connect(Conn::Passive);
    let out = peer.receive(Conn::Passive, &Message::Open(open_with(120)));
    assert_eq!(peer.notifications(&out), [cease(7)]);
    assert_eq!(peer.state(), StateName::Established);
}

#[test]
fn a_new_connection_goes_on_when_the_old_one_ends_first() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Passive);
    peer.connect(Conn::Passive);
    let out = peer.give(Input::Closed(Conn::Passive, CloseCause::Reset));
    assert_eq!(kinds(&out), [1], "now our OPEN goes out");
    peer.receive(Conn::Active, &Message::Open(open_with(120)));
    peer.receive(Conn::Active, &Message::Keepalive);
    assert_eq!(peer.state(), StateName::Established);
}

// ---- stopping

#[test]
fn each_reason_to_stop_is_told_in_its_own_way() {
    for (reason, sent, routes) in [
        (StopReason::Deconfigured, Some(3), Output::Down),
        (StopReason::AdminDown, Some(2), Output::Down),
        (StopReason::AdminReset, Some(4), Output::Down),
        (StopReason::Reconfigured, None, Output::Down),
        (StopReason::Exit, None, Output::Stale(IPV4)),
    ] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        let out = peer.give(Input::Stop(reason));
        let expected: Vec<_> = sent.map(cease).into_iter().collect();
        assert_eq!(peer.notifications(&out), expected, "{reason:?}");
        assert!(out.contains(&Output::Close(Conn::Active)) && out.contains(&routes), "{reason:?}");
        assert_eq!(peer.status().last, Some(DownReason::Stopped(reason)));
    }
}

#[test]
fn a_peer_without_graceful_restart_is_told_when_the_process_ends() {
    for (reason, subcode) in [(StopReason::Exit, 2), (StopReason::Reconfigured, 6)] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish_with(Conn::Active, plain_open());
        let out = peer.give(Input::Stop(reason));
        assert_eq!(peer.notifications(&out), [cease(subcode)]);
    }
}

#[test]
fn a_shutdown_text_reaches_the_peer() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let out = peer.give(Input::Shutdown(StopReason::AdminDown, "maintenance"));
    let sent = &peer.notifications(&out)[0];
    assert_eq!(sent.communication().as_deref(), Some("maintenance"));
}

#[test]
fn a_shutdown_text_of_a_stranger_cannot_write_to_the_terminal() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let hostile = Notification { data: b"\x08\x1b[2J\n\xff\x07".as_slice().to_vec().into(), ..cease(2) };
    peer.receive(Conn::Active, &Message::Notification(hostile));
    let shown = peer.status().last.unwrap().to_string();
    assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
}

#[test]
fn an_operators_restart_starts_again_by_itself() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    assert_eq!(peer.give(Input::Stop(StopReason::AdminReset)).last(), Some(&Output::Dial));
    assert!(peer.give(Input::Start).is_empty());
}

#[test]
fn stopping_gives_up_everything_under_way() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Passive);
    let out = peer.give(Input::Stop(StopReason::Deconfigured));
    assert_eq!(out[0], Output::AbortDial);
    assert_eq!(peer.notifications(&out), [cease(3)]);
    assert!(!out.contains(&Output::Down), "there were no routes");
    assert_eq!((peer.state(), peer.deadline()), (StateName::Down, None));
}

#[test]
fn stopping_a_peer_that_restarts_drops_its_kept_routes_but_not_at_the_end_of_the_process() {
    for (reason, dropped) in [(StopReason::Deconfigured, true), (StopReason::Exit, false)] {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
        assert_eq!(peer.give(Input::Stop(reason)).contains(&Output::Down), dropped);
        assert_eq!(peer.deadline(), None);
    }
}

// ---- reconfiguration

#[test]
fn a_change_of_what_waits_for_the_next_connection_resets_nothing() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let next = NextOpen {
        passive: true,
        hold_time: 90,
        keepalive: Some(10),
        restart_time: Some(60),
        ..NextOpen::default()
    };
    assert!(peer.give(Input::Reconfigure(next)).is_empty());
    assert_eq!(peer.state(), StateName::Established);
    peer.tick();
    let before = peer.now;
    peer.tick();
    assert!((peer.now - before).0 <= 10_000, "the keepalive time holds from the next timer on");
}

#[test]
fn a_session_that_becomes_passive_stops_dialling_and_one_that_ceases_to_be_starts() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    let passive = NextOpen { passive: true, ..NextOpen::default() };
    assert_eq!(peer.give(Input::Reconfigure(passive)), [Output::AbortDial]);
    assert_eq!(peer.state(), StateName::Passive);
    assert_eq!(peer.give(Input::Reconfigure(NextOpen::default())), [Output::Dial]);
}

#[test]
fn restart_flags_are_those_of_the_time_of_the_open() {
    let flags = |peer: &mut Driver| {
        let out = peer.connect(Conn::Active);
        let open = peer.opens(&out)[0].clone();
        peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
        peer.tick();
        open.capabilities.iter().find_map(|c| match c {
            Capability::GracefulRestart { restarting, families, .. } => {
                Some((*restarting, families[0].forwarding))
            }
            _ => None,
        })
    };
    let mut peer = Driver::restarting(spec(), IPV4);
    peer.give(Input::Start);
    assert_eq!(flags(&mut peer), Some((true, true)));
    peer.give(Input::Restarting(AfiSet::EMPTY));
    assert_eq!(flags(&mut peer), Some((false, false)));
}

// ---- refresh

#[test]
fn a_refresh_request_is_passed_on_and_other_families_are_ignored() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    assert_eq!(peer.refresh(V4, RefreshKind::Request), [Output::RefreshRequested(Afi::Ipv4)]);
    assert!(peer.refresh(session_driver::V6, RefreshKind::Request).is_empty());
    assert!(peer.refresh(session_driver::MULTICAST, RefreshKind::Request).is_empty());
    assert!(peer.refresh(V4, RefreshKind::Unknown(9)).is_empty());
    assert_eq!(peer.status().counters.ignored_refreshes, 3);
    assert_eq!(peer.state(), StateName::Established);
}

#[test]
fn a_flood_of_refresh_requests_is_answered_a_few_times_and_the_last_is_not_forgotten() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let answered = (0..10_000).filter(|_| !peer.refresh(V4, RefreshKind::Request).is_empty()).count();
    assert_eq!(answered, 4);
    let before = peer.now;
    assert_eq!(peer.tick(), [Output::RefreshRequested(Afi::Ipv4)]);
    assert!(peer.now - before <= Millis::secs(5));
}

#[test]
fn an_enhanced_refresh_marks_routes_and_sweeps_them_at_its_end() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    assert!(peer.refresh(V4, RefreshKind::Begin).is_empty(), "not before End-of-RIB");
    peer.receive_end_of_rib(Conn::Active);
    assert_eq!(peer.refresh(V4, RefreshKind::Begin), [Output::MarkStale(Afi::Ipv4)]);
    assert_eq!(peer.refresh(V4, RefreshKind::End), [Output::SweepStale(Afi::Ipv4)]);
    assert!(peer.refresh(V4, RefreshKind::End).is_empty(), "an end without a beginning");
}

#[test]
fn a_refresh_without_end_is_ended_by_a_timer() {
    let mut peer = Driver::new(spec().with(|next| next.hold_time = 0));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.receive_end_of_rib(Conn::Active);
    peer.refresh(V4, RefreshKind::Begin);
    let before = peer.now;
    assert_eq!(peer.tick(), [Output::SweepStale(Afi::Ipv4)]);
    assert_eq!(peer.now - before, Millis::secs(360));
}

#[test]
fn the_peers_routes_are_asked_for_again_or_the_session_is_renewed_where_it_cannot_send_them() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let out = peer.give(Input::RequestRefresh(Afi::Ipv4));
    assert_eq!(kinds(&out), [5]);
    assert!(peer.give(Input::RequestRefresh(Afi::Ipv6)).is_empty());

    let mut old = Driver::new(spec());
    old.give(Input::Start);
    old.establish_with(Conn::Active, plain_open());
    let out = old.give(Input::RequestRefresh(Afi::Ipv4));
    assert_eq!(old.notifications(&out), [cease(6)]);
    assert_eq!(old.state(), StateName::Active);
}

#[test]
fn a_refresh_of_a_wrong_length_is_an_error_of_refresh() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let mut frame = vec![0xff; 16];
    frame.extend([0, 22, 5, 0, 1, 0]);
    let out = peer.give(Input::Frame(Conn::Active, &frame));
    let sent = peer.notifications(&out);
    assert_eq!((sent[0].code, sent[0].subcode), (7, 1));
}

// ---- limits

#[test]
fn too_many_prefixes_warn_once_or_close_with_cease_1_and_wait() {
    let limit = |close, restart| MaxPrefix { limit: 2, close, restart };
    let mut peer = Driver::new(spec().with(|next| next.max_prefix = Some(limit(false, None))));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let out = peer.announce(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]);
    let event = Event::PrefixLimit { afi: Afi::Ipv4, limit: 2, closed: false };
    assert_eq!(out[0], Output::Event(event));
    assert!(matches!(out[1], Output::Update(_)), "a warning takes nothing away");
    assert_eq!(peer.announce(&["10.0.3.0/24"]).len(), 1);

    let mut peer = Driver::new(spec().with(|next| next.max_prefix = Some(limit(true, Some(60)))));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    let out = peer.announce(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]);
    let sent = peer.notifications(&out);
    assert_eq!((sent[0].code, sent[0].subcode, &sent[0].data[..]), (6, 1, &[0, 1, 1, 0, 0, 0, 2][..]));
    assert!(out.contains(&Output::Down) && !out.iter().any(|o| matches!(o, Output::Update(_))));
    assert_eq!((peer.state(), peer.status().error_wait.unwrap().nominal), (StateName::Idle, 60));
    assert_eq!(peer.tick(), [Output::Dial]);

    let mut peer = Driver::new(spec().with(|next| next.max_prefix = Some(limit(true, None))));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.announce(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]);
    assert_eq!((peer.state(), peer.deadline()), (StateName::Down, None), "until somebody acts");
    let raised = MaxPrefix { limit: 100, close: true, restart: None };
    let next = NextOpen { max_prefix: Some(raised), ..NextOpen::default() };
    assert_eq!(peer.give(Input::Reconfigure(next)), [Output::Dial]);
}

// ---- status

#[test]
fn the_status_tells_what_a_stranger_needs() {
    let mut peer = Driver::new(spec());
    assert_eq!(peer.state().name(), "Down");
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    assert_eq!(peer.state().name(), "OpenSent");
    peer.receive(Conn::Active, &Message::Open(open_with(120)));
    assert_eq!(peer.state().name(), "OpenConfirm");
    peer.pass(Millis::secs(1));
    peer.receive(Conn::Active, &Message::Keepalive);
    let status = peer.status();
    assert_eq!((status.state, status.since, status.last.clone()), (StateName::Established, peer.now, None));
    assert_eq!((status.hold.unwrap().nominal, status.keepalive.unwrap().nominal), (240, 80));
    assert_eq!((status.counters.received.open, status.counters.sent.keepalive), (1, 1));
    assert_eq!(status.events.last().map(|e| e.1.clone()), Some(Event::Established));
    for _ in 0..50 {
        peer.receive(Conn::Active, &Message::Notification(cease(2)));
        peer.tick();
        peer.establish(Conn::Active);
    }
    assert_eq!(peer.status().events.len(), 32);
    assert_eq!(peer.status().received.unwrap().1, cease(2));
}

// ---- two connections on the way up; the peer's identifier is the higher one

/// Our connection has both OPENs and the peer's KEEPALIVE, the peer's has nothing yet.
fn held() -> Driver {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    peer.connect(Conn::Passive);
    peer.receive(Conn::Active, &Message::Open(open_with(120)));
    let out = peer.receive(Conn::Active, &Message::Keepalive);
    assert!(out.is_empty() && peer.state() == StateName::OpenConfirm);
    peer
}

#[test]
fn the_weaker_connection_waits_a_second_for_the_stronger_and_then_is_the_session() {
    let mut peer = held();
    let before = peer.now;
    let out = peer.tick();
    assert_eq!(peer.now - before, Millis::secs(1));
    assert_eq!(peer.notifications(&out), [cease(7)]);
    assert!(out.contains(&Output::Close(Conn::Passive)));
    assert_eq!(peer.session.negotiated().unwrap().conn, Conn::Active);
}

#[test]
fn the_weaker_connection_is_the_session_as_soon_as_the_peer_uses_it() {
    let mut peer = held();
    let out = peer.receive_end_of_rib(Conn::Active);
    let up = out.iter().position(|o| matches!(o, Output::Up(_))).unwrap();
    assert!(out[up..].contains(&Output::EndOfRib(Afi::Ipv4)), "and nothing of what it sent is lost");
}

#[test]
fn the_weaker_connection_is_the_session_as_soon_as_the_stronger_is_gone() {
    let mut peer = held();
    peer.receive(Conn::Passive, &Message::Notification(cease(7)));
    assert_eq!(peer.state(), StateName::Established);
}

#[test]
fn the_stronger_connection_is_the_session_when_the_peer_uses_that() {
    let mut peer = held();
    peer.receive(Conn::Passive, &Message::Open(open_with(120)));
    let out = peer.receive(Conn::Passive, &Message::Keepalive);
    assert_eq!(peer.notifications(&out), [cease(7)]);
    assert!(out.contains(&Output::Close(Conn::Active)));
    assert_eq!(peer.session.negotiated().unwrap().conn, Conn::Passive);
}

#[test]
fn a_session_that_comes_up_in_a_late_tick_leaves_no_keepalive_due() {
    let mut peer = held();
    peer.now = peer.now + Millis::secs(100);
    let out = peer.give(Input::Tick);
    assert!(out.iter().any(|o| matches!(o, Output::Up(_))));
    assert_eq!(kinds(&out).last(), Some(&4));
    assert!(peer.deadline().unwrap() > peer.now);
}

#[test]
fn a_refresh_that_is_served_when_it_was_owed_is_not_owed_twice() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    for _ in 0..5 {
        peer.refresh(V4, RefreshKind::Request);
    }
    peer.now = peer.deadline().unwrap();
    assert_eq!(peer.refresh(V4, RefreshKind::Request), [Output::RefreshRequested(Afi::Ipv4)]);
    assert!(peer.give(Input::Tick).is_empty());
    assert!(peer.deadline().unwrap() > peer.now);
}
