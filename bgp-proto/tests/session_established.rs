//! One session against a scripted peer, from Established on: timers, stopping, reconfiguration, refresh, limits (BGP-3,
//! BGP-33 to BGP-37; T1, T17, T18, W52, W55), one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_driver;

use bgp_proto::session::{
    CloseCause, Conn, DownReason, Event, Input, MaxPrefix, NextOpen, Output, StateName, StopReason,
};
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::{Capability, Message, Notification};
use bgp_proto::{Afi, AfiSet, Millis};
use session_driver::{Driver, V4, kinds, open_with, plain_open, spec};

const IPV4: AfiSet = AfiSet::only(Afi::Ipv4);

fn cease(subcode: u8) -> Notification {
    Notification::new(6, subcode)
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
fn one_faulty_update_in_a_minute_is_told_with_an_excerpt_and_the_number_of_others() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    // ORIGIN 9, AS_PATH, NEXT_HOP, LOCAL_PREF; 10.1.0.0/16.
    let body =
        b"\0\0\0\x15\x40\x01\x01\x09\x40\x02\0\x40\x03\x04\x0a\0\0\x02\x40\x05\x04\0\0\0\x64\x10\x0a\x01";
    let mut faulty = vec![0xff; 16];
    faulty.extend([0, 19 + body.len() as u8, 2]);
    faulty.extend(body);
    let told = |out: &[Output]| -> Vec<String> {
        let events = out
            .iter()
            .filter_map(|o| if let Output::Event(event) = o { Some(event.to_string()) } else { None });
        events.collect()
    };
    let first = told(&peer.give(Input::Frame(Conn::Active, &faulty)));
    assert_eq!(first.len(), 1);
    for word in ["undefined ORIGIN", "attribute 1 ", "withdrawn", "octet ", "40010109400200"] {
        assert!(first[0].contains(word), "{}", first[0]);
    }
    for _ in 0..1000 {
        assert!(told(&peer.give(Input::Frame(Conn::Active, &faulty))).is_empty());
    }
    peer.pass(Millis::secs(61));
    let again = told(&peer.give(Input::Frame(Conn::Active, &faulty)));
    assert!(again[0].ends_with("; 1000 others since the last time"), "{again:?}");
    assert_eq!(peer.status().counters.faulty_updates, 1002);
}

#[test]
fn an_update_of_a_family_that_was_not_agreed_on_is_counted_and_ignored() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    // MP_UNREACH_NLRI for IPv6 unicast with 2001:db8::/32.
    let body = b"\0\0\0\x0b\x80\x0f\x08\0\x02\x01\x20\x20\x01\x0d\xb8";
    let mut message = vec![0xff; 16];
    message.extend([0, 19 + body.len() as u8, 2]);
    message.extend(body);
    assert!(peer.give(Input::Frame(Conn::Active, &message)).is_empty());
    assert_eq!(peer.status().counters.ignored_updates, 1);
    assert_eq!(peer.status().counters.faulty_updates, 0);
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

#[test]
fn routes_that_a_refresh_without_end_did_not_bring_again_do_not_count_for_the_limit() {
    let rule = MaxPrefix { limit: 2, close: true, restart: None };
    let next = |next: &mut NextOpen| (next.max_prefix, next.hold_time) = (Some(rule), 0);
    let mut peer = Driver::new(spec().with(next));
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.announce(&["10.0.0.0/24", "10.0.1.0/24"]);
    peer.receive_end_of_rib(Conn::Active);
    peer.refresh(V4, RefreshKind::Begin);
    assert_eq!(peer.tick(), [Output::SweepStale(Afi::Ipv4)]);
    let out = peer.announce(&["10.0.2.0/24", "10.0.3.0/24"]);
    assert_eq!(peer.notifications(&out), []);
    assert_eq!(peer.state(), StateName::Established);
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
