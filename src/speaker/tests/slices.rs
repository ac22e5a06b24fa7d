//! What takes long is done in parts, and what comes in between two parts is no less right for it.

use super::*;
use crate::policy::prefix_set::PrefixSet;
use crate::policy::sets::SetId;

const ROUTES: u32 = 5000;

fn sent_by_one(peers: &[Peer]) -> (Bench, PeerId) {
    let mut bench = Bench::settled(peers);
    let id = bench.up("10.10.0.2");
    bench.announce_many(id, "10.10.0.2", ROUTES);
    bench.tell(SpeakerInput::Tick);
    (bench, id)
}

/// Parts until nothing is left to do.
fn parts(bench: &mut Bench) -> usize {
    let mut out = Vec::new();
    let mut parts = 1;
    while bench.speaker.settle(bench.now, &mut out) {
        parts += 1;
    }
    parts
}

#[test]
fn a_large_peer_is_swept_in_parts_and_what_its_next_session_sends_meanwhile_stays() {
    let (mut bench, id) = sent_by_one(&[peer("10.10.0.2", 64512)]);
    let before = bench.speaker.destinations(Afi::Ipv4);
    let mut out = Vec::new();
    bench.speaker.handle(bench.now, SpeakerInput::PeerDown(id), &mut out);
    assert!(bench.speaker.settle(bench.now, &mut out));
    let left = bench.speaker.destinations(Afi::Ipv4);
    assert!(left < before && left > 3000, "{left} of {before}");
    // The last one of all has not been reached yet; its old form would win.
    bench.up("10.10.0.2");
    let last = "10.129.56.112/28";
    bench.announce(id, last, "10.10.0.2", attributes(Some(50), &[]));
    let routes = bench.speaker.routes(Afi::Ipv4, None, 10_000);
    let of_peer = routes.iter().filter(|route| route.paths.iter().any(|path| path.attributes.is_some()));
    assert_eq!(of_peer.count(), 1);
    let route = bench.speaker.route(prefix(last)).unwrap();
    assert_eq!(route.paths[0].attributes.as_ref().unwrap().local_pref, Some(50));
}

#[test]
fn a_changed_import_rule_is_applied_to_a_large_peer_in_parts() {
    let (mut bench, id) = sent_by_one(&[peer("10.10.0.2", 64512)]);
    let mut changed = (*bench.state.peers[&key("10.10.0.2")]).clone();
    let rule = Rule {
        when: Vec::new(),
        then: vec![Action::SetPreference(150)],
        decision: None,
        origin: "changed".into(),
    };
    changed.treatment.import = Arc::new(Program { rules: vec![rule], default: Decision::Accept });
    bench.state.peers.insert(key("10.10.0.2"), Arc::new(changed));
    let input =
        SpeakerInput::Desired { state: Arc::new(bench.state.clone()), peers: Arc::new(bench.ids.clone()) };
    bench.speaker.handle(bench.now, input, &mut Vec::new());
    assert!(parts(&mut bench) >= 5);
    let routes = bench.speaker.routes(Afi::Ipv4, Some(prefix("10.128.0.0/28")), 10_000);
    assert_eq!(routes.iter().filter(|route| route.paths[0].preference == 150).count(), 4999);
    assert_eq!(bench.speaker.counts(id, Afi::Ipv4).preferred, 5000);
}

#[test]
fn a_set_of_next_hops_that_changes_concerns_only_routes_over_what_it_gained_or_lost() {
    let mut peers = [peer("10.10.0.2", 64512), peer("10.10.0.3", 64512)];
    for peer in &mut peers {
        peer.treatment.internal = true;
    }
    let (mut bench, _) = sent_by_one(&peers);
    let other = bench.up("10.10.0.3");
    bench.announce(other, "10.77.0.0/26", "10.10.0.3", normal());
    let asks = |decision| Rule {
        when: vec![Match::NextHopInSet(SetId::WireguardNextHops)],
        then: Vec::new(),
        decision: Some(decision),
        origin: "wireguard".into(),
    };
    let kernel = Arc::new(Program { rules: vec![asks(Decision::Reject)], default: Decision::Accept });
    bench.desire(|state| state.v4.kernel = kernel);
    assert!(bench.fib("10.77.0.0/26").is_some());
    let content = PrefixSet::new([(prefix("10.10.0.3/32"), Arc::from("Node/node-3"))]);
    bench.state.v4.sets.put(SetId::WireguardNextHops, content);
    let input =
        SpeakerInput::Desired { state: Arc::new(bench.state.clone()), peers: Arc::new(bench.ids.clone()) };
    bench.speaker.handle(bench.now, input, &mut Vec::new());
    assert_eq!(bench.speaker.v4.fib.queued(), 1);
    bench.tell(SpeakerInput::Tick);
    assert!(bench.fib("10.77.0.0/26").is_none() && bench.fib("10.128.0.0/28").is_some());
}

#[test]
fn a_pool_that_changes_concerns_only_what_is_inside_of_it() {
    let (mut bench, _) = sent_by_one(&[peer("10.10.0.2", 64512)]);
    let mut out = Vec::new();
    let content = PrefixSet::new([(prefix("10.128.0.0/24"), Arc::from("IPPool/a"))]);
    let program = Program {
        rules: vec![Rule {
            when: vec![Match::InSet(SetId::ServiceRejects)],
            then: Vec::new(),
            decision: Some(Decision::Reject),
            origin: "services".into(),
        }],
        default: Decision::Accept,
    };
    bench.desire(|state| state.v4.kernel = Arc::new(program));
    let before = bench.fib_log.len();
    bench.state.v4.sets.put(SetId::ServiceRejects, content);
    let input =
        SpeakerInput::Desired { state: Arc::new(bench.state.clone()), peers: Arc::new(bench.ids.clone()) };
    bench.speaker.handle(bench.now, input, &mut out);
    bench.tell(SpeakerInput::Tick);
    assert_eq!(bench.fib_log.len() - before, 16);
    assert!(bench.fib("10.128.0.0/28").is_none() && bench.fib("10.128.1.0/28").is_some());
}
