//! What becomes of routes when a session makes way for a successor with other parameters (BGP-37).

use super::rules::{R2, R3};
use super::*;

/// A node that has heard two prefixes from a peer, and another peer that was told them.
fn settled() -> (Bench, PeerId, PeerId) {
    let mut bench = Bench::settled(&[peer(R2, 65001), peer(R3, 65003)]);
    let (from, to) = (bench.up(R2), bench.up(R3));
    for block in ["10.244.1.0/26", "10.244.2.0/26"] {
        bench.announce(from, block, R2, attributes(None, &[65001]));
    }
    bench.drain_all();
    assert!(bench.held(to, "10.244.1.0/26").is_some() && bench.fib("10.244.1.0/26").is_some());
    bench.fib_log.clear();
    (bench, from, to)
}

fn change_as(bench: &mut Bench, asn: u32) {
    let changed = peer(R2, asn);
    bench.desire(|state| drop(state.peers.insert(changed.key.clone(), changed.into())));
}

#[test]
fn routes_of_a_replaced_session_stay_until_its_successor_has_brought_them_again() {
    let (mut bench, from, to) = settled();
    change_as(&mut bench, 65002);
    bench.tell(SpeakerInput::Stale(from, AfiSet::only(Afi::Ipv4)));
    assert_eq!(bench.fib_log, [], "no route is touched in the kernel");
    bench.drain(to);
    assert!(bench.held(to, "10.244.1.0/26").is_some(), "nor withdrawn from others");
    assert_eq!(bench.up(R2), from, "it is the same peer");
    bench.announce(from, "10.244.1.0/26", R2, attributes(None, &[65002]));
    assert_eq!(bench.fib_log, []);
    bench.tell(SpeakerInput::SweepStale(from, Afi::Ipv4));
    bench.drain(to);
    let kept = ["10.244.1.0/26", "10.244.2.0/26"].map(|block| bench.fib(block).is_some());
    assert_eq!(kept, [true, false], "what it did not bring again goes");
    let heard = format!("{:?}", bench.held(to, "10.244.1.0/26").unwrap().0.as_path);
    assert!(heard.contains("65002"), "{heard}");
}

#[test]
fn the_old_session_is_asked_and_told_nothing_more_although_its_task_has_yet_to_end_it() {
    let (mut bench, from, to) = settled();
    change_as(&mut bench, 65002);
    bench.announce(from, "10.244.3.0/26", R2, attributes(None, &[65001]));
    assert_eq!(bench.fib("10.244.3.0/26"), None);
    bench.announce(to, "10.244.9.0/26", R3, attributes(None, &[65003]));
    assert!(!bench.neighbours[&from].ready, "it is not called");
}

#[test]
fn routes_of_a_replaced_session_go_when_it_ends_with_them() {
    let (mut bench, from, _) = settled();
    change_as(&mut bench, 65002);
    bench.tell(SpeakerInput::PeerDown(from));
    assert_eq!(bench.fib("10.244.1.0/26"), None);
}
