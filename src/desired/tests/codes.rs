//! Problems by their codes, on which programs rely.

use super::peerings::{selecting, selector};
use super::*;
use crate::model::{Code, MatchOperator, PrefixMatch, SecretKeyRef};

/// An edit of the three nodes, and the codes of what is wrong by it, here on node-1.
type Case = (fn(&mut World), &'static [Code]);

const PEER: &str = "10.0.0.9";

const CASES: &[Case] = &[
    (|_| (), &[]),
    (|w| bgp_peer(w, "a", PEER, |p| p.filters = vec!["none".into()]), &[Code::UnknownFilter]),
    (|w| bgp_peer(w, "a", PEER, |p| p.password = secret()), &[Code::MissingSecret]),
    (
        |w| bgp_peer(w, "a", PEER, |p| p.local_workload_selector = Some("all()".into())),
        &[Code::ExclusiveFields],
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
    (
        |w| {
            bgp_peer(w, "a", PEER, |p| {
                p.node = Some("node-1".into());
                p.node_selector = selector("all()");
            });
        },
        &[Code::ExclusiveFields],
    ),
    (
        |w| {
            bgp_peer(w, "a", PEER, |p| {
                p.keep_original_next_hop = true;
                p.next_hop_mode = Some(model::NextHopMode::Auto);
            });
        },
        &[Code::ExclusiveFields],
    ),
    (|w| selecting(w, "a", |p| p.peer_selector = selector("has(none)")), &[]),
    (
        |w| {
            selecting(w, "a", |p| {
                p.peer_selector = selector("has(none)");
                p.local_asn = Some(Asn(65001));
            });
        },
        &[Code::IgnoredField],
    ),
    (
        |w| {
            bgp_peer(w, "a", PEER, |p| {
                p.node_selector = selector("has(none)");
                p.password = secret();
            });
        },
        &[Code::UnusedPassword],
    ),
    (
        |w| {
            bgp_peer(w, "a", PEER, |p| {
                p.node = Some("node-9".into());
                p.password = secret();
            });
        },
        &[Code::UnusedPassword],
    ),
    (
        |w| {
            w.config("default", |c| {
                c.mesh_enabled = Some(false);
                c.mesh_password = secret();
            });
        },
        &[Code::UnusedPassword],
    ),
    (|w| w.change_node("node-2", |n| n.cluster_id = cluster_id("1.1.1.1")), &[]),
    (
        |w| {
            reflectors(w, &["node-1", "node-2"]);
        },
        &[Code::SharedClusterId],
    ),
    (
        |w| {
            reflectors(w, &["node-1", "node-2"]);
            selecting(w, "a", |p| p.peer_selector = selector("all()"));
        },
        &[],
    ),
    (
        |w| {
            reflectors(w, &["node-1", "node-2"]);
            bgp_peer(w, "a", "10.0.0.2", |p| p.asn = None);
        },
        &[Code::ReflectorByAddress],
    ),
    (
        |w| {
            reflectors(w, &["node-2", "node-3"]);
            bgp_peer(w, "a", "10.0.0.2", |p| p.asn = None);
        },
        &[Code::SharedClusterId],
    ),
    (|w| w.node(node("node-1", "10.0.0.1/32", "")), &[]),
    (
        |w| {
            w.node(node("node-1", "10.0.0.1/32", ""));
            w.pool(IpPool { ipip: EncapMode::CrossSubnet, ..pool("ipip", "10.245.0.0/16") });
        },
        &[Code::HostMask],
    ),
    (
        |w| {
            w.node(node("node-2", "", "fd00::2/128"));
            w.node(node("node-3", "", "fd00::3/128"));
            w.pool(IpPool { vxlan: EncapMode::CrossSubnet, ..pool("vxlan", "fd00:10:245::/48") });
        },
        &[Code::HostMask],
    ),
    (
        |w| w.config("default", |c| c.program_cluster_routes = ProgramClusterRoutes::Disabled),
        &[Code::RoutesWithoutOwner],
    ),
    (
        |w| {
            w.config("default", |c| c.program_cluster_routes = ProgramClusterRoutes::Disabled);
            felix(w, "default", "Disabled");
            felix(w, "node.node-1", "EnabledNoEncapOnly");
        },
        &[],
    ),
    (|w| felix(w, "default", "Enabled"), &[Code::RoutesWithTwoOwners]),
    (
        |w| {
            felix(w, "default", "Disabled");
            w.pool(IpPool { ipip: EncapMode::Always, ..pool("ipip", "10.245.0.0/16") });
        },
        &[Code::RoutesWithoutOwner],
    ),
    (
        |w| {
            w.release("v3.30");
            felix(w, "default", "Enabled");
        },
        &[],
    ),
    (|w| filter_with(w, MatchOperator::In, (Some(26), Some(28))), &[]),
    (|w| filter_with(w, MatchOperator::Equal, (None, None)), &[Code::DoubtfulFilterRule]),
    (|w| filter_with(w, MatchOperator::NotEqual, (Some(26), None)), &[Code::DoubtfulFilterRule]),
    (|w| filter_with(w, MatchOperator::NotIn, (None, Some(8))), &[Code::DoubtfulFilterRule]),
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

fn cluster_id(text: &str) -> Option<bgp_proto::ClusterId> {
    Some(bgp_proto::ClusterId(text.parse().unwrap()))
}

/// No mesh, and reflectors of one cluster id.
fn reflectors(world: &mut World, names: &[&str]) {
    world.config("default", |c| c.mesh_enabled = Some(false));
    for name in names {
        world.change_node(name, |node| node.cluster_id = cluster_id("1.1.1.1"));
    }
}

fn felix(world: &mut World, name: &str, owner: &str) {
    let config = model::FelixConfiguration { name: name.into(), program_cluster_routes: Some(owner.into()) };
    world.snapshot.felix_configurations.insert(name.into(), Arc::new(config));
}

fn filter_with(world: &mut World, operator: MatchOperator, length: (Option<u8>, Option<u8>)) {
    let prefix = Some(PrefixMatch { cidr: "10.0.0.0/16".parse().unwrap(), operator, length: Some(length) });
    let rule = model::FilterRule { prefix, ..Default::default() };
    let filter = model::BgpFilter { name: "f".into(), import_v4: vec![rule], ..Default::default() };
    world.snapshot.filters.insert("f".into(), Arc::new(filter));
}

#[test]
fn a_filter_that_is_deleted_while_a_bgp_peer_names_it_stays_in_force_and_is_named() {
    let mut world = World::new();
    filter_with(&mut world, MatchOperator::In, (Some(26), Some(28)));
    bgp_peer(&mut world, "a", PEER, |p| p.filters = vec!["f".into()]);
    let (with, before) = (world.state(), world.snapshot.filters.clone());
    world.snapshot.filters.remove("f");
    let kept = keep_filters(&before, &Arc::new(world.snapshot.clone()));
    let state = compile(&kept, &world.facts).unwrap();
    assert_eq!(state.peers, with.peers);
    assert_eq!(state.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::KeptFilter]);
    // And after the next change too, until nobody names it.
    let again = keep_filters(&kept.filters, &Arc::new(world.snapshot.clone()));
    assert!(again.filters.contains_key("f"));
    bgp_peer(&mut world, "a", PEER, |_| ());
    let released = keep_filters(&again.filters, &Arc::new(world.snapshot.clone()));
    assert!(!released.filters.contains_key("f"));
}

#[test]
fn where_strict_is_on_nothing_passes_a_session_whose_filter_is_not_there() {
    let programs = |strict: bool| {
        let mut world = World::new();
        world.facts.strict = strict;
        filter_with(&mut world, MatchOperator::In, (None, Some(28)));
        bgp_peer(&mut world, "a", PEER, |p| p.filters = vec!["f".into(), "none".into()]);
        let state = world.state();
        let peer = peer(&state, "Global_10_0_0_9");
        let closed = |program: &crate::policy::program::Program| {
            program.rules.iter().any(|rule| rule.when.is_empty() && rule.decision == Some(Decision::Reject))
        };
        (closed(&peer.treatment.import), closed(&peer.treatment.export))
    };
    assert_eq!(programs(false), (false, false));
    assert_eq!(programs(true), (true, true));
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
