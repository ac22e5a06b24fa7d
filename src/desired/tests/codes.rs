//! Problems by their codes, on which programs rely.

use super::*;
use crate::model::{Code, SecretKeyRef};

/// An edit of the three nodes, and the codes of what is wrong by it, here on node-1.
type Case = (fn(&mut World), &'static [Code]);

const PEER: &str = "10.0.0.9";

const CASES: &[Case] = &[
    (|_| (), &[]),
    (|w| bgp_peer(w, "a", PEER, |p| p.filters = vec!["none".into()]), &[Code::UnknownFilter]),
    (|w| bgp_peer(w, "a", PEER, |p| p.password = secret()), &[Code::MissingSecret]),
    (
        |w| bgp_peer(w, "a", PEER, |p| p.local_workload_selector = Some("all()".into())),
        &[Code::UnsupportedField],
    ),
    (|w| bgp_peer(w, "a", PEER, |p| p.peer_ip = None), &[Code::NoPeerAddress]),
    (|w| bgp_peer(w, "a", "fe80::9", |_| ()), &[Code::LinkLocalAddress]),
    (
        |w| bgp_peer(w, "a", PEER, |p| p.reachable_by = Some("fd00::7".parse().unwrap())),
        &[Code::GatewayOfOtherFamily],
    ),
    (|w| bgp_peer(w, "a", "10.0.0.1", |p| p.node = Some("node-1".into())), &[Code::PeerIsThisNode]),
    (|w| bgp_peer(w, "a", PEER, |p| p.restart_time = Some(9999)), &[Code::TimeTooLong]),
    (
        |w| {
            bgp_peer(w, "a", PEER, |_| ());
            bgp_peer(w, "b", PEER, |_| ());
        },
        &[Code::OverriddenPeering],
    ),
    (
        |w| {
            w.change_node("node-1", |n| n.ipv6 = None);
            bgp_peer(w, "a", "fd00::9", |_| ());
        },
        &[Code::NoAddressOfFamily],
    ),
    (|w| w.node(node("node-3", "10.0.0.2/24", "")), &[Code::SharedNodeAddress]),
    (|w| w.node(node("node-1", "", "")), &[Code::NoNodeAddress]),
    (|w| w.pool(pool("again", "10.244.0.0/16")), &[Code::EqualPool]),
    (|w| w.config("other", |_| ()), &[Code::IgnoredResource]),
    (|w| w.config("node.node-2", |c| c.mesh_enabled = Some(false)), &[Code::IgnoredField]),
    (|w| w.facts.router_id = Some("nonsense".into()), &[Code::InvalidSetting]),
    (|w| w.snapshot.cluster_information = None, &[Code::UnknownRelease]),
    (
        |w| {
            let information = w.snapshot.cluster_information.as_mut().unwrap();
            Arc::make_mut(information).datastore_ready = Some(false);
        },
        &[Code::DatastoreLocked],
    ),
];

fn secret() -> Option<SecretKeyRef> {
    Some(SecretKeyRef { name: "no-such".into(), key: "password".into() })
}

#[test]
fn each_kind_of_problem_has_a_code_of_its_own() {
    for (number, (edit, codes)) in CASES.iter().enumerate() {
        let mut world = World::new();
        edit(&mut world);
        let state = world.state();
        let found: Vec<Code> = state.problems.iter().map(|problem| problem.code).collect();
        assert_eq!(found, *codes, "case {number}: {:?}", state.problems);
    }
}
