//! One session against a scripted peer, up to Established and where a second connection comes: BGP-6, BGP-9 to BGP-15,
//! BGP-30; T4, T8, T16, T21, one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_driver;

use bgp_proto::session::{CloseCause, Conn, DialError, DownReason, Input, Output, StateName, StopReason};
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::{Message, Notification, Open};
use bgp_proto::{Afi, AfiSet, Asn, Millis, RouterId};
use session_driver::{Driver, V4, kinds, open_with, plain_open, spec};

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
    assert_eq!((peer.state(), peer.status().last), (StateName::Passive, Some(DownReason::HoldExpired)));
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
fn a_peer_with_our_own_identifier_is_refused_and_told_so() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    let open = Open { router_id: peer.session.spec().open.router_id, ..plain_open() };
    let out = peer.receive(Conn::Active, &Message::Open(open));
    assert_eq!(peer.notifications(&out), [Notification::new(2, 3)]);
    assert_eq!(
        peer.status().last.unwrap().to_string(),
        "we sent 2/3: Bad BGP identifier: our own BGP identifier from a peer in our AS"
    );
}

#[test]
fn what_is_wrong_with_a_message_is_told() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.connect(Conn::Active);
    peer.receive(Conn::Active, &Message::Open(Open { hold_time: 1, ..plain_open() }));
    assert_eq!(
        peer.status().last.unwrap().to_string(),
        "we sent 2/6: Unacceptable hold time: hold time of 1 or 2 seconds"
    );
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
fn octets_that_are_no_bgp_before_an_open_cost_the_callers_connection_only() {
    type Fault = fn(&mut Driver) -> Vec<Output>;
    let faults: [(&str, Fault); 5] = [
        ("no frame", |peer| peer.give(Input::BadFrame(Conn::Passive, Notification::new(1, 1)))),
        ("no OPEN", |peer| peer.receive(Conn::Passive, &Message::Keepalive)),
        ("no valid OPEN", |peer| {
            peer.receive(Conn::Passive, &Message::Open(Open { hold_time: 1, ..plain_open() }))
        }),
        ("NOTIFICATION", |peer| peer.receive(Conn::Passive, &Message::Notification(Notification::new(2, 4)))),
        ("hard reset", |peer| peer.receive(Conn::Passive, &Message::Notification(cease(9)))),
    ];
    for (what, fault) in faults {
        let mut peer = Driver::new(spec());
        peer.give(Input::Start);
        peer.establish(Conn::Active);
        peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
        for round in 0..3 {
            peer.connect(Conn::Passive);
            let out = fault(&mut peer);
            assert!(out.contains(&Output::Close(Conn::Passive)), "{what} {round}");
            assert!(!out.contains(&Output::Down), "{what}: the peer's routes are kept");
            assert_eq!(peer.state(), StateName::Active, "{what}: it is dialled as before");
        }
        let out = peer.connect(Conn::Passive);
        assert!(!peer.opens(&out)[0].capabilities.is_empty(), "{what}");
        peer.receive(Conn::Passive, &Message::Open(open_with(120)));
        peer.receive(Conn::Passive, &Message::Keepalive);
        assert_eq!(peer.state(), StateName::Established, "{what}: the peer itself comes in");
    }
}

#[test]
fn an_open_of_the_caller_that_cannot_be_accepted_ends_what_was_kept_for_the_peer() {
    let mut peer = Driver::new(spec());
    peer.give(Input::Start);
    peer.establish(Conn::Active);
    peer.give(Input::Closed(Conn::Active, CloseCause::Eof));
    peer.connect(Conn::Passive);
    let out = peer.receive(Conn::Passive, &Message::Open(Open { my_as: 65009, ..plain_open() }));
    assert!(out.contains(&Output::Down));
    assert_eq!(peer.state(), StateName::Idle);
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
