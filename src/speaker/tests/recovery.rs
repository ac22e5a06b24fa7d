//! What is told and what stays after a start, until the neighbours have said all (KRT-50, KRT-51).

use super::rules::{R2, R3, R4, route};
use super::*;
use bgp_proto::ClusterId;

#[test]
fn nothing_is_said_of_the_kernel_before_it_is_known() {
    let mut state = state();
    own_block(&mut state, "10.244.0.0/26");
    for addr in [R2, R3] {
        let peer = peer(addr, 64512);
        state.peers.insert(peer.key.clone(), Arc::new(peer));
    }
    let mut bench = Bench::new(state);
    let id = bench.id(R2);
    bench.up_with(id, |negotiated| negotiated.peer_graceful = true);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.announce(id, "10.244.2.0/26", "192.0.2.1", normal());
    assert_eq!(bench.fib_log, [], "without addresses everything seems unreachable");
    bench.link(2, "eth0", &["10.10.0.1/24"]);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let told: Vec<String> = bench.fib.keys().map(ToString::to_string).collect();
    assert_eq!(told, ["10.244.0.0/26", "10.244.1.0/26", "10.244.2.0/26"]);
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(Target::Unreachable, 1024)));
    // What was told follows the peer and the interfaces as ever.
    bench.announce(id, "10.244.3.0/26", R2, normal());
    bench.withdraw(id, "10.244.3.0/26", 0);
    assert_eq!(bench.fib("10.244.3.0/26"), None);
    bench.tell(SpeakerInput::EndOfRib(id, Afi::Ipv4));
    assert_eq!(bench.phases, []);
    bench.tell(SpeakerInput::EndOfRib(bench.id(R3), Afi::Ipv4));
    assert_eq!(bench.phases, [Phase::Normal]);
    assert_eq!(bench.speaker.deadline(), None);
}

#[test]
fn routes_found_at_start_wait_for_peers_that_refuse_restart_or_come_and_go() {
    let mut state = state();
    for addr in [R2, R3, R4] {
        let peer = peer(addr, 64512);
        state.peers.insert(peer.key.clone(), Arc::new(peer));
    }
    let mut bench = Bench::new(state);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let (r2, r3, r4) = (bench.id(R2), bench.id(R3), bench.id(R4));
    bench.tell(SpeakerInput::PeerUnreachable(r2));
    bench.up_with(r3, |negotiated| {
        negotiated.peer_graceful = true;
        negotiated.peer_restarting = true;
    });
    bench.up_with(r4, |negotiated| negotiated.peer_graceful = true);
    bench.tell(SpeakerInput::PeerDown(r4));
    for id in [r2, r3, r4] {
        assert_eq!(bench.phases, [], "each may still tell");
        bench.tell(SpeakerInput::EndOfRib(id, Afi::Ipv4));
    }
    assert_eq!(bench.phases, [Phase::Normal]);
}

#[test]
fn while_no_session_has_been_up_nothing_that_was_found_goes() {
    let mut state = state();
    let dead = peer(R2, 64512);
    state.peers.insert(dead.key.clone(), dead.into());
    let mut bench = Bench::new(state);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    bench.tell(SpeakerInput::PeerUnreachable(bench.id(R2)));
    bench.now = Millis::secs(100_000);
    bench.tell(SpeakerInput::Tick);
    assert_eq!(
        (&bench.phases[..], bench.speaker.waits_for().first()),
        (&[][..], Some(&WaitsFor::FirstSession))
    );
    let name = bench.state.peers.keys().next().cloned().unwrap();
    bench.desire(|state| drop(state.peers.remove(&name)));
    assert_eq!(bench.phases, [Phase::Normal], "without peers the datastore alone knows");
}

#[test]
fn routes_through_a_peer_that_is_away_are_held_beyond_the_end_of_recovery() {
    let mut state = state();
    for addr in [R2, R3] {
        let peer = peer(addr, 64512);
        state.peers.insert(peer.key.clone(), peer.into());
    }
    let peers = [R2, R3].map(|addr| (SessionKey::new(ip(addr), 179), 120));
    let mut bench = Bench::after(Restart { families: AfiSet::EMPTY, peers: Some(peers.into()) }, state);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let id = bench.id(R2);
    bench.up_with(id, |negotiated| negotiated.peer_graceful = true);
    bench.tell(SpeakerInput::EndOfRib(id, Afi::Ipv4));
    bench.now = Millis(31_000);
    bench.tell(SpeakerInput::Tick);
    assert_eq!((&bench.phases[..], &bench.held), (&[Phase::Normal][..], &BTreeSet::from([ip(R3)])));
    assert_eq!(bench.speaker.deadline(), Some(Millis(121_000)));
    bench.now = Millis(121_000);
    bench.tell(SpeakerInput::Tick);
    assert_eq!(bench.held, BTreeSet::new());
}

#[test]
fn a_silent_peer_is_waited_for_30_seconds() {
    let mut state = state();
    let silent = peer(R2, 64512);
    state.peers.insert(silent.key.clone(), Arc::new(silent));
    let mut bench = Bench::new(state);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let id = bench.id(R2);
    bench.up_with(id, |negotiated| negotiated.peer_graceful = true);
    assert_eq!(bench.speaker.deadline(), Some(Millis(31_000)));
    bench.now = Millis(31_000);
    bench.tell(SpeakerInput::Tick);
    assert_eq!(bench.phases, [Phase::Normal]);
}

/// A reflector after a restart in which IPv4 forwarding survived; its two clients are back. `peers`: who is known to
/// have had graceful restart before.
fn restarted(peers: Option<&[&str]>) -> (Bench, PeerId, PeerId) {
    let mut state = state();
    own_block(&mut state, "10.244.0.0/26");
    for addr in [R2, R3] {
        let mut peer = peer(addr, 64512);
        peer.treatment.rr_client = Some(ClusterId([10, 10, 0, 1].into()));
        state.peers.insert(peer.key.clone(), Arc::new(peer));
    }
    let restart = Restart {
        families: AfiSet::only(Afi::Ipv4),
        peers: peers.map(|peers| peers.iter().map(|addr| (SessionKey::new(ip(addr), 179), 120)).collect()),
    };
    let mut bench = Bench::after(restart, state);
    bench.link(2, "eth0", &["10.10.0.1/24"]);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let ids = [R2, R3].map(|addr| {
        let id = bench.id(addr);
        bench.up_with(id, |negotiated| negotiated.peer_graceful = true);
        id
    });
    (bench, ids[0], ids[1])
}

#[test]
fn after_a_restart_own_prefixes_go_out_at_once_and_what_was_learned_and_end_of_rib_at_the_end_of_recovery() {
    let (mut bench, r2, r3) = restarted(None);
    bench.announce(r2, "10.244.1.0/26", R2, normal());
    bench.drain(r3);
    assert_eq!(bench.neighbours[&r3].log, ["announce 10.244.0.0/26"]);
    bench.tell(SpeakerInput::EndOfRib(r2, Afi::Ipv4));
    bench.drain(r3);
    assert_eq!(bench.neighbours[&r3].log, ["announce 10.244.0.0/26"], "the other has not told all");
    bench.tell(SpeakerInput::EndOfRib(r3, Afi::Ipv4));
    assert_eq!(bench.phases, [Phase::Normal]);
    bench.drain(r3);
    let expected = ["announce 10.244.0.0/26", "announce 10.244.1.0/26", "EndOfRib ipv4"];
    assert_eq!(bench.neighbours[&r3].log, expected);
}

#[test]
fn a_deferral_ends_at_its_limit_though_a_peer_never_sends_end_of_rib() {
    let (mut bench, r2, r3) = restarted(None);
    bench.announce(r2, "10.244.1.0/26", R2, normal());
    bench.drain(r3);
    bench.now = Millis(1000) + RECOVERY_LIMIT;
    bench.tell(SpeakerInput::Tick);
    bench.drain(r3);
    let expected = ["announce 10.244.0.0/26", "announce 10.244.1.0/26", "EndOfRib ipv4"];
    assert_eq!(bench.neighbours[&r3].log, expected);
}

#[test]
fn only_peers_that_had_graceful_restart_before_are_waited_for_where_they_are_known() {
    let (mut bench, r2, _) = restarted(Some(&[R2]));
    assert_eq!(bench.phases, []);
    bench.tell(SpeakerInput::EndOfRib(r2, Afi::Ipv4));
    assert_eq!(bench.phases, [Phase::Normal], "R3 was not there before");
    assert_eq!(restarted(Some(&[])).0.phases, [Phase::Normal], "a cold start");
}

#[test]
fn the_others_do_not_wait_for_a_peer_that_is_lost_again_or_cannot_be_reached() {
    let (mut bench, r2, r3) = restarted(None);
    bench.announce(r2, "10.244.1.0/26", R2, normal());
    bench.tell(SpeakerInput::EndOfRib(r2, Afi::Ipv4));
    bench.drain(r2);
    assert_eq!(bench.neighbours[&r2].log, ["announce 10.244.0.0/26"]);
    bench.tell(SpeakerInput::PeerDown(r3));
    bench.drain(r2);
    assert_eq!(bench.neighbours[&r2].log, ["announce 10.244.0.0/26", "EndOfRib ipv4"]);
    assert_eq!(bench.phases, [], "what was found in the kernel may be its routes");
}

#[test]
fn a_cold_start_defers_nothing() {
    let mut state = state();
    for addr in [R2, R3] {
        let mut peer = peer(addr, 64512);
        peer.treatment.rr_client = Some(ClusterId([10, 10, 0, 1].into()));
        state.peers.insert(peer.key.clone(), Arc::new(peer));
    }
    let mut bench = Bench::new(state);
    bench.link(2, "eth0", &["10.10.0.1/24"]);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let (r2, r3) = (bench.id(R2), bench.id(R3));
    for id in [r2, r3] {
        bench.up_with(id, |negotiated| negotiated.peer_graceful = true);
    }
    bench.announce(r2, "10.244.1.0/26", R2, normal());
    bench.drain(r3);
    // Both ends of a cold start would wait for each other.
    assert_eq!(bench.neighbours[&r3].log, ["announce 10.244.1.0/26", "EndOfRib ipv4"]);
    assert_eq!(bench.phases, []);
}
