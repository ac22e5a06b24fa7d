//! What holds for every snapshot, however wrong: compilation ends, names no session twice, never peers with itself, and
//! comparing two states says all that differs and nothing else.

mod random;

use std::sync::Arc;

use bgp_proto::{Asn, ClusterId, IpPrefix, Prefix};
use proptest::prelude::*;

use super::*;
use crate::model::snapshot::Snapshot;
use crate::model::{
    AffinityState, BgpConfiguration, BgpPeer, BindMode, EncapMode, IpPool, Node, ProgramClusterRoutes,
};

/// Few addresses, so that nodes collide.
fn address<F: Family>(bits: impl Strategy<Value = F::Addr>) -> impl Strategy<Value = Option<NodeAddress<F>>> {
    let subnet = |addr, len| Prefix::new(addr, len).unwrap();
    let lengths = 20..=F::MAX_LEN;
    proptest::option::of(
        (bits, lengths).prop_map(move |(addr, len)| NodeAddress { addr, subnet: subnet(addr, len) }),
    )
}

fn node() -> impl Strategy<Value = Node> {
    let v4 = (0u8..6).prop_map(|last| [10, 0, 0, last].into());
    let v6 = (0u16..6).prop_map(|last| [0xfd00, 0, 0, 0, 0, 0, 0, last].into());
    let asn = proptest::option::of((64_512u32..64_515).prop_map(Asn));
    let cluster = proptest::option::weighted(0.2, Just(ClusterId([10, 99, 0, 1].into())));
    (address::<V4>(v4), address::<V6>(v6), asn, cluster, any::<bool>()).prop_map(
        |(ipv4, ipv6, asn, cluster_id, wg)| {
            let wireguard_v4 = wg.then(|| [192, 168, 0, 1].into());
            Node { ipv4, ipv6, asn, cluster_id, wireguard_v4, ..Node::default() }
        },
    )
}

fn prefix() -> impl Strategy<Value = IpPrefix> {
    let v4 =
        (0u8..4, 14u8..=32).prop_map(|(third, len)| IpPrefix::new([10, 244, third, 0].into(), len).unwrap());
    let v6 = (0u16..4, 48u8..=128)
        .prop_map(|(part, len)| IpPrefix::new([0xfd00, 0x10, 0x244, part, 0, 0, 0, 0].into(), len).unwrap());
    prop_oneof![v4, v6]
}

fn encap() -> impl Strategy<Value = EncapMode> {
    prop_oneof![Just(EncapMode::Never), Just(EncapMode::CrossSubnet), Just(EncapMode::Always)]
}

fn config() -> impl Strategy<Value = BgpConfiguration> {
    use ProgramClusterRoutes::{Disabled, Enabled, EnabledIpipOnly, EnabledNoEncapOnly, Unset};
    let owner = prop_oneof![
        Just(Unset),
        Just(Enabled),
        Just(Disabled),
        Just(EnabledIpipOnly),
        Just(EnabledNoEncapOnly)
    ];
    let mesh = proptest::option::weighted(0.5, any::<bool>());
    let numbers =
        (proptest::option::of(1u32..3000), proptest::option::of(0u32..10_000), proptest::option::of(0u16..3));
    (mesh, owner, numbers, any::<bool>()).prop_map(
        |(mesh_enabled, program_cluster_routes, numbers, bound)| BgpConfiguration {
            mesh_enabled,
            program_cluster_routes,
            ipv4_priority: numbers.0,
            mesh_restart_time: numbers.1,
            listen_port: numbers.2.map(|n| n * 179),
            bind_mode: if bound { BindMode::NodeIp } else { BindMode::None },
            ..BgpConfiguration::default()
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let nodes = proptest::collection::vec(node(), 1..6);
    let pools = proptest::collection::vec((prefix(), encap(), encap(), any::<bool>()), 0..4);
    let states = prop_oneof![
        Just(AffinityState::Confirmed),
        Just(AffinityState::Pending),
        Just(AffinityState::PendingDeletion)
    ];
    let blocks = proptest::collection::btree_map(prefix(), states, 0..4);
    let configs = proptest::collection::vec(config(), 0..3);
    (nodes, pools, blocks, configs).prop_map(|(nodes, pools, blocks, configs)| {
        let mut snapshot = Snapshot { blocks: blocks.into_iter().collect(), ..Snapshot::default() };
        for (i, node) in nodes.into_iter().enumerate() {
            let name = format!("node-{i}");
            snapshot.nodes.insert(name.clone(), Arc::new(Node { name, ..node }));
        }
        for (i, (cidr, ipip, vxlan, disable_bgp_export)) in pools.into_iter().enumerate() {
            let name = format!("pool-{i}");
            let pool = IpPool { name: name.clone(), cidr, ipip, vxlan, disable_bgp_export };
            snapshot.pools.insert(name, Arc::new(pool));
        }
        for (name, config) in ["default", "node.node-1", "stray"].into_iter().zip(configs) {
            let config = BgpConfiguration { name: name.to_owned(), ..config };
            snapshot.bgp_configurations.insert(name.to_owned(), Arc::new(config));
        }
        snapshot
    })
}

fn facts() -> NodeFacts {
    NodeFacts { node_name: "node-0".to_owned(), ..NodeFacts::default() }
}

proptest! {
    #[test]
    fn every_snapshot_with_the_local_node_compiles_to_sessions_with_others_only(snapshot in snapshot()) {
        let state = compile(&snapshot, &facts()).unwrap();
        let own = [state.node.ipv4.map(|a| IpAddr::from(a.addr)), state.node.ipv6.map(|a| IpAddr::from(a.addr))];
        let mut addresses = std::collections::BTreeSet::new();
        let names: std::collections::BTreeSet<_> = state.peers.values().map(|peer| &peer.name).collect();
        prop_assert_eq!(names.len(), state.peers.len());
        for (key, peer) in &state.peers {
            prop_assert_eq!(key, &peer.key);
            prop_assert_eq!((key.addr, key.port), (peer.spec.transport.peer, peer.spec.transport.port));
            prop_assert!(!own.contains(&Some(peer.spec.transport.peer)));
            prop_assert!(addresses.insert(peer.spec.transport.peer), "two sessions with {}", peer.spec.transport.peer);
            prop_assert_eq!(peer.treatment.internal, peer.spec.open.peer_asn == peer.spec.open.local_asn);
            prop_assert!(own.contains(&peer.spec.next.source));
            prop_assert!(state.listen.contains_key(&peer.key.afi));
            prop_assert_ne!(peer.spec.transport.port, 0);
        }
        prop_assert!(state.problems.is_sorted());
        prop_assert!(diff(Some(&state), &state).is_empty());
        // The views say of every program that they name what it is.
        let view = view(&state);
        let named = view.peers.iter().flat_map(|peer| [&peer.import, &peer.export]);
        for name in named.chain([&view.ipv4.kernel, &view.ipv6.kernel]) {
            prop_assert!(view.programs.contains_key(name));
        }
    }

    #[test]
    fn no_snapshot_with_bgp_peers_filters_and_services_stops_compilation_or_differs_from_itself(
        snapshot in random::snapshot(),
    ) {
        let state = compile(&snapshot, &facts()).unwrap();
        prop_assert!(diff(Some(&state), &state).is_empty());
        prop_assert!(compare(&state, &state).is_empty());
        prop_assert!(state.problems.is_sorted());
        for (key, peer) in &state.peers {
            prop_assert_eq!(key, &peer.key);
            prop_assert_ne!(peer.spec.transport.port, 0);
        }
    }

    #[test]
    fn a_plan_that_is_carried_out_leads_from_one_state_to_the_other(
        old in random::snapshot(),
        new in random::snapshot(),
    ) {
        let [old, new] = [old, new].map(|snapshot| compile(&snapshot, &facts()).unwrap());
        let plan = diff(Some(&old), &new);
        let mut made = old.clone();
        for (key, change) in &plan.peers {
            match change {
                PeerChange::Removed => drop(made.peers.remove(key)),
                PeerChange::Added | PeerChange::Replaced => {
                    made.peers.insert(key.clone(), new.peers[key].clone());
                }
                PeerChange::Updated { next, key: auth, treatment, shown } => {
                    let (of, to) = (Arc::make_mut(made.peers.get_mut(key).unwrap()), &new.peers[key]);
                    if *next {
                        of.spec.next = to.spec.next.clone();
                    }
                    if *auth {
                        of.auth = to.auth.clone();
                    }
                    if *treatment {
                        of.treatment = to.treatment.clone();
                    }
                    if *shown {
                        (of.name, of.class, of.resource) = (to.name.clone(), to.class, to.resource.clone());
                    }
                }
            }
        }
        for (afi, listen) in plan.listen {
            match listen {
                Some(listen) => drop(made.listen.insert(afi, listen)),
                None => drop(made.listen.remove(&afi)),
            }
        }
        if plan.tables {
            (made.node, made.v4, made.v6) = (new.node.clone(), new.v4.clone(), new.v6.clone());
        }
        prop_assert_eq!(&made.peers, &new.peers);
        prop_assert_eq!((&made.listen, &made.node, &made.v4, &made.v6), (&new.listen, &new.node, &new.v4, &new.v6));
        // What people are told is nothing exactly where nothing is done and no problem comes or goes.
        let same = diff(Some(&old), &new).is_empty()
            && old.problems == new.problems
            && (old.release, old.cluster_routes) == (new.release, new.cluster_routes);
        prop_assert_eq!(compare(&old, &new).is_empty(), same);
    }

    #[test]
    fn what_is_taken_from_the_compilation_before_is_what_would_be_compiled(
        old in random::snapshot(),
        other in random::snapshot(),
        taken in any::<[bool; 7]>(),
    ) {
        let mut new = old.clone();
        let mut take = |which: usize, change: fn(&mut Snapshot, &Snapshot)| {
            if taken[which] {
                change(&mut new, &other);
            }
        };
        take(0, |new, other| new.blocks = other.blocks.clone());
        take(1, |new, other| new.pools = other.pools.clone());
        take(2, |new, other| new.services = other.services.clone());
        take(3, |new, other| new.secrets = other.secrets.clone());
        take(4, |new, other| new.peers = other.peers.clone());
        take(5, |new, other| new.filters = other.filters.clone());
        take(6, |new, other| new.bgp_configurations = other.bgp_configurations.clone());
        let (_, prior) = compile_after(None, &Arc::new(old), &facts()).unwrap();
        let new = Arc::new(new);
        let (after, _) = compile_after(Some(&prior), &new, &facts()).unwrap();
        prop_assert_eq!(after, compile(&new, &facts()).unwrap());
    }

    #[test]
    fn the_order_of_documents_moves_nothing(snapshot in random::snapshot(), seed in any::<u64>()) {
        let mut documents = crate::model::encode::documents(&snapshot, "node-0", true);
        let text = |documents: &[serde_json::Value]| -> String {
            documents.iter().map(|document| format!("{document}\n")).collect()
        };
        let read = |text: &str| {
            let reading = crate::model::decode::Reading::default();
            crate::datastore::files::snapshot_of_texts("node-0", reading, &[("all.json", text)])
        };
        let ordered = read(&text(&documents));
        // A shuffle by a step that has no divisor in common with the length.
        documents.sort_by_key(|document| {
            let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            name.bytes().fold(seed, |sum, byte| sum.rotate_left(7) ^ u64::from(byte))
        });
        let shuffled = read(&text(&documents));
        prop_assert_eq!(&ordered, &shuffled);
        let [a, b] = [ordered, shuffled].map(|snapshot| compile(&snapshot, &facts()).unwrap());
        prop_assert_eq!(a, b);
    }

    #[test]
    fn the_names_of_pools_and_bgp_peers_move_nothing_as_long_as_their_order_stays(snapshot in random::snapshot()) {
        let mut renamed = snapshot.clone();
        renamed.pools = snapshot.pools.values().map(|pool| {
            let name = format!("x{}", pool.name);
            (name.clone(), Arc::new(IpPool { name, ..(**pool).clone() }))
        }).collect();
        renamed.peers = snapshot.peers.values().map(|peer| {
            let name = format!("x{}", peer.name);
            (name.clone(), Arc::new(BgpPeer { name, ..(**peer).clone() }))
        }).collect();
        let [a, b] = [snapshot, renamed].map(|snapshot| random::without_names(compile(&snapshot, &facts()).unwrap()));
        prop_assert_eq!(a, b);
    }

    #[test]
    fn a_plan_is_empty_exactly_where_nothing_but_problems_differs(old in snapshot(), new in snapshot()) {
        let [old, new] = [old, new].map(|snapshot| compile(&snapshot, &facts()).unwrap());
        let same = (&old.node, &old.listen, &old.peers, &old.v4, &old.v6)
            == (&new.node, &new.listen, &new.peers, &new.v4, &new.v6);
        prop_assert_eq!(diff(Some(&old), &new).is_empty(), same);
        for (key, change) in diff(Some(&old), &new).peers {
            let (had, has) = (old.peers.contains_key(&key), new.peers.contains_key(&key));
            let fits = match change {
                PeerChange::Added => !had && has,
                PeerChange::Removed => had && !has,
                PeerChange::Replaced | PeerChange::Updated { .. } => had && has,
            };
            prop_assert!(fits, "{} is {:?}", key, change);
        }
    }
}
