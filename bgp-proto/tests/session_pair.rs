//! Two sessions back to back over byte pipes in memory: what a pair of speakers sees of each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_wire;

use bgp_proto::session::{Conn, NextOpen, Output, StateName};
use bgp_proto::{Afi, Millis};
use session_wire::{Network, hex, spec};

#[test]
fn the_first_message_is_birds_open_byte_for_byte() {
    let mut net = Network::new(spec(0, 1), spec(1, 0));
    net.start(0);
    net.accept_all();
    let sent = net.sent(0, Conn::Active);
    assert_eq!(
        hex(&sent),
        "ffffffffffffffffffffffffffffffff003f0104fc0000f00a630001220220\
         01040001000102004006007800010100410400 00fc00450400010103460047 00"
            .replace([' ', '\n'], "")
    );
}

#[test]
fn a_pair_comes_up_without_any_wait_and_stays_up_for_a_day() {
    let mut net = Network::new(spec(0, 1), spec(1, 0));
    net.node(1).reconfigure(|next| next.passive = true);
    net.start(1);
    net.start(0);
    net.settle();
    assert_eq!(net.now, Millis(0), "no timer was needed");
    assert_eq!((net.state(0), net.state(1)), (StateName::Established, StateName::Established));
    net.run_until(Millis::secs(86_400));
    assert_eq!((net.state(0), net.state(1)), (StateName::Established, StateName::Established));
    assert_eq!(net.node(0).count(|o| matches!(o, Output::Up(_))), 1);
    assert_eq!(net.node(0).count(|o| matches!(o, Output::Down | Output::Stale(_))), 0);
    let keepalives = net.node(0).session.status().counters.sent.keepalive;
    assert!((86_400 / 80..=86_400 / 60 + 2).contains(&keepalives), "{keepalives}");
}

#[test]
fn what_is_offered_is_agreed_on() {
    let mut net = Network::new(spec(0, 1), spec(1, 0));
    net.start(0);
    net.start(1);
    net.settle();
    let agreed = net.node(0).session.negotiated().unwrap().clone();
    assert!(agreed.context.as4 && agreed.refresh && agreed.enhanced_refresh && agreed.peer_graceful);
    assert!(agreed.context.add_path_rx.contains(Afi::Ipv4) && agreed.context.add_path_tx.contains(Afi::Ipv4));
    assert!(agreed.graceful.contains(Afi::Ipv4) && !agreed.peer_restarting);
    assert_eq!(agreed.hold_time, 240);
}

#[test]
fn both_ends_that_dial_at_once_come_up_without_losing_a_retry_interval() {
    let mut net = Network::new(spec(0, 1), spec(1, 0));
    net.start(0);
    net.start(1);
    net.settle();
    assert!(net.now < Millis(100));
    assert_eq!((net.state(0), net.state(1)), (StateName::Established, StateName::Established));
    assert_eq!(net.links(), 1);
    net.run_until(Millis::secs(300));
    assert_eq!(net.node(0).count(|o| matches!(o, Output::Up(_))), 1);
}

#[test]
fn the_hold_timer_ends_a_session_whose_peer_is_silent_and_it_comes_back_after_the_back_off() {
    let mut a = spec(0, 1);
    a.next = NextOpen { hold_time: 9, ..a.next };
    let mut net = Network::new(a, spec(1, 0));
    net.start(0);
    net.start(1);
    net.settle();
    net.cut(true);
    net.run_until(Millis::secs(20));
    assert_ne!(net.state(0), StateName::Established);
    net.cut(false);
    net.run_until(Millis::secs(60));
    assert_eq!((net.state(0), net.state(1)), (StateName::Established, StateName::Established));
}

#[test]
fn an_end_that_is_configured_later_and_does_not_dial_costs_less_than_that_time_again() {
    for later in [30, 300, 1200] {
        let mut net = Network::new(spec(0, 1), spec(1, 0));
        net.node(1).reconfigure(|next| next.passive = true);
        net.start(0);
        net.run_until(Millis(later));
        assert_ne!(net.state(0), StateName::Established, "the other end wants nobody yet");
        net.start(1);
        net.run_until(Millis(later * 2 + 100));
        assert_eq!((net.state(0), net.state(1)), (StateName::Established, StateName::Established));
    }
}
