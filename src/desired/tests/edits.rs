//! Edits of a running cluster, and which sessions of this node each of them costs.

use super::*;

/// What the edit starts from: the mesh of three nodes, or a BGPPeer with node-2 in its place.
#[derive(Clone, Copy, PartialEq)]
enum From {
    Mesh,
    Peer,
}

fn world(from: From) -> World {
    let mut world = World::new();
    if from == From::Peer {
        world.config("default", |config| config.mesh_enabled = Some(false));
        peering(&mut world, |_| ());
    }
    world
}

/// The BGPPeer of node-1 with node-2.
fn peering(world: &mut World, change: impl FnOnce(&mut BgpPeer)) {
    bgp_peer(world, "a", "10.0.0.2", |peer| {
        peer.node = Some("node-1".into());
        peer.asn = None;
        change(peer);
    });
}

/// Names of the sessions that end, in the words of the state before.
fn ended(old: &DesiredState, new: &DesiredState) -> Vec<String> {
    let ends = |change: &PeerChange| matches!(change, PeerChange::Removed | PeerChange::Replaced);
    let plan = diff(Some(old), new);
    let mut names: Vec<String> = plan
        .peers
        .iter()
        .filter(|(_, change)| ends(change))
        .map(|(key, _)| old.peers[key].name.clone())
        .collect();
    names.sort();
    names
}

const ALL: &[&str] = &["Mesh_10_0_0_2", "Mesh_10_0_0_3", "Mesh_fd00__2", "Mesh_fd00__3"];
const V6: &[&str] = &["Mesh_fd00__2", "Mesh_fd00__3"];
const PEER: &[&str] = &["Node_10_0_0_2"];
const NONE: &[&str] = &[];

/// What the edit is, what it starts from, the edit, and the sessions that end by it, here on node-1.
type Edit = (&'static str, From, fn(&mut World), &'static [&'static str]);

/// An edit costs a session only where its two ends would no longer agree, or would no longer be the two.
const EDITS: &[Edit] = &[
    (
        "Node asNumber of this node",
        From::Mesh,
        |w| w.change_node("node-1", |n| n.asn = Some(Asn(65001))),
        ALL,
    ),
    (
        "Node asNumber of another node",
        From::Mesh,
        |w| w.change_node("node-2", |n| n.asn = Some(Asn(65001))),
        &["Mesh_10_0_0_2", "Mesh_fd00__2"],
    ),
    (
        "Node routeReflectorClusterID of this node",
        From::Mesh,
        |w| {
            w.change_node("node-1", |n| {
                n.cluster_id = Some("1.1.1.1".parse::<std::net::Ipv4Addr>().map(ClusterId).unwrap())
            })
        },
        ALL,
    ),
    ("global asNumber", From::Mesh, |w| w.config("default", |c| c.asn = Some(Asn(64513))), ALL),
    (
        "nodeMeshMaxRestartTime 3m",
        From::Mesh,
        |w| w.config("default", |c| c.mesh_restart_time = Some(180)),
        NONE,
    ),
    ("listenPort", From::Mesh, |w| w.config("default", |c| c.listen_port = Some(1179)), ALL),
    (
        "ignoredInterfaces",
        From::Mesh,
        |w| w.config("default", |c| c.ignored_interfaces = vec!["x*".into()]),
        NONE,
    ),
    ("keepaliveTime", From::Peer, |w| peering(w, |p| p.keepalive_time = Some(20)), NONE),
    ("maxRestartTime", From::Peer, |w| peering(w, |p| p.restart_time = Some(60)), NONE),
    (
        "nextHopMode Self",
        From::Peer,
        |w| peering(w, |p| p.next_hop_mode = Some(model::NextHopMode::SelfAddress)),
        NONE,
    ),
    (
        "nextHopMode Keep",
        From::Peer,
        |w| peering(w, |p| p.next_hop_mode = Some(model::NextHopMode::Keep)),
        NONE,
    ),
    (
        "nextHopMode Auto",
        From::Peer,
        |w| peering(w, |p| p.next_hop_mode = Some(model::NextHopMode::Auto)),
        NONE,
    ),
    (
        "sourceAddress None",
        From::Peer,
        |w| peering(w, |p| p.source_address = model::SourceAddress::None),
        NONE,
    ),
    ("numAllowedLocalASNumbers", From::Peer, |w| peering(w, |p| p.allowed_own_as = 1), NONE),
    ("ttlSecurity", From::Peer, |w| peering(w, |p| p.ttl_security = 1), PEER),
    ("explicit port 179", From::Peer, |w| peering(w, |p| p.peer_ip.as_mut().unwrap().port = Some(179)), NONE),
    ("made global", From::Peer, |w| peering(w, |p| p.node = None), NONE),
    ("localASNumber", From::Peer, |w| peering(w, |p| p.local_asn = Some(Asn(65010))), PEER),
    ("asNumber wrong", From::Peer, |w| peering(w, |p| p.asn = Some(Asn(65010))), PEER),
    ("Node rewritten", From::Mesh, |w| w.change_node("node-2", |_| ()), NONE),
    (
        "Node labels",
        From::Mesh,
        |w| w.change_node("node-2", |n| drop(n.labels.insert("zone".into(), "a".into()))),
        NONE,
    ),
    (
        "Node WireGuard address",
        From::Mesh,
        |w| w.change_node("node-2", |n| n.wireguard_v4 = Some("10.244.2.1".parse().unwrap())),
        NONE,
    ),
    ("another Node added", From::Mesh, |w| w.node(node("node-4", "10.0.0.4/24", "")), NONE),
    (
        "a Node removed",
        From::Mesh,
        |w| drop(w.snapshot.nodes.remove("node-3")),
        &["Mesh_10_0_0_3", "Mesh_fd00__3"],
    ),
    (
        "Node asNumber equal to the global one",
        From::Mesh,
        |w| w.change_node("node-1", |n| n.asn = Some(Asn(64512))),
        NONE,
    ),
    ("own IPv6 address removed", From::Mesh, |w| w.change_node("node-1", |n| n.ipv6 = None), V6),
    (
        "own IPv4 address replaced",
        From::Mesh,
        |w| w.change_node("node-1", |n| n.ipv4 = Some(v4("10.0.0.9/24"))),
        ALL,
    ),
    ("block added", From::Mesh, |w| w.block("10.244.9.0/26", AffinityState::Confirmed), NONE),
    ("IPPool added", From::Mesh, |w| w.pool(pool("other", "10.245.0.0/16")), NONE),
    (
        "IPPool disableBGPExport",
        From::Mesh,
        |w| w.pool(IpPool { disable_bgp_export: true, ..pool("pool-v4", "10.244.0.0/16") }),
        NONE,
    ),
    (
        "IPPool ipipMode",
        From::Mesh,
        |w| w.pool(IpPool { ipip: EncapMode::Always, ..pool("pool-v4", "10.244.0.0/16") }),
        NONE,
    ),
    (
        "nodeMeshMaxRestartTime 120s",
        From::Mesh,
        |w| w.config("default", |c| c.mesh_restart_time = Some(120)),
        NONE,
    ),
    (
        "logSeverityScreen",
        From::Mesh,
        |w| w.config("default", |c| c.log_severity = Some("Debug".into())),
        NONE,
    ),
    (
        "logSeverityScreen of the node",
        From::Mesh,
        |w| w.config("node.node-1", |c| c.log_severity = Some("Debug".into())),
        NONE,
    ),
    (
        "serviceClusterIPs",
        From::Mesh,
        |w| w.config("default", |c| c.service_cluster_ips = vec!["10.96.0.0/12".parse().unwrap()]),
        NONE,
    ),
    (
        "serviceLoadBalancerIPs",
        From::Mesh,
        |w| w.config("default", |c| c.service_load_balancer_ips = vec!["198.51.100.0/24".parse().unwrap()]),
        NONE,
    ),
    ("ipv4NormalRoutePriority", From::Mesh, |w| w.config("default", |c| c.ipv4_priority = Some(512)), NONE),
    (
        "programClusterRoutes",
        From::Mesh,
        |w| w.config("default", |c| c.program_cluster_routes = ProgramClusterRoutes::Enabled),
        NONE,
    ),
    (
        "unused BGPFilter",
        From::Mesh,
        |w| {
            drop(
                w.snapshot.filters.insert(
                    "f".into(),
                    Arc::new(model::BgpFilter { name: "f".into(), ..Default::default() }),
                ),
            )
        },
        NONE,
    ),
    ("bindMode", From::Mesh, |w| w.config("default", |c| c.bind_mode = BindMode::NodeIp), NONE),
    ("BGPPeer rewritten", From::Peer, |w| peering(w, |_| ()), NONE),
    (
        "reachableBy",
        From::Peer,
        |w| peering(w, |p| p.reachable_by = Some("10.0.0.254".parse().unwrap())),
        NONE,
    ),
    (
        "BGPPeer renamed",
        From::Peer,
        |w| {
            w.snapshot.peers.clear();
            bgp_peer(w, "renamed", "10.0.0.2", |peer| {
                peer.node = Some("node-1".into());
                peer.asn = None;
            });
        },
        NONE,
    ),
    (
        "node to nodeSelector",
        From::Peer,
        |w| {
            w.change_node("node-1", |n| drop(n.labels.insert("name".into(), "node-1".into())));
            peering(w, |p| {
                p.node = None;
                p.node_selector = selector("name == 'node-1'");
            });
        },
        NONE,
    ),
    (
        "peerIP to peerSelector",
        From::Peer,
        |w| {
            w.change_node("node-2", |n| {
                n.ipv6 = None;
                n.labels.insert("name".into(), "node-2".into());
            });
            peering(w, |p| {
                p.peer_ip = None;
                p.peer_selector = selector("name == 'node-2'");
            });
        },
        NONE,
    ),
    ("mesh to an equal BGPPeer", From::Mesh, |w| peering(w, |_| ()), NONE),
    ("mesh off", From::Mesh, |w| w.config("default", |c| c.mesh_enabled = Some(false)), ALL),
];

#[test]
fn an_edit_costs_the_sessions_that_it_has_to_and_so_does_taking_it_back() {
    for (words, from, edit, wanted) in EDITS {
        let old = world(*from).state();
        let mut changed = world(*from);
        // An edit of the BGPConfiguration writes the whole of it.
        edit(&mut changed);
        if *from == From::Peer {
            changed.config("default", |config| config.mesh_enabled = Some(false));
        }
        let new = changed.state();
        assert_eq!(ended(&old, &new), *wanted, "{words}");
        let back: Vec<String> = diff(Some(&new), &old)
            .peers
            .iter()
            .filter(|(_, c)| matches!(c, PeerChange::Replaced))
            .map(|(key, _)| old.peers[key].name.clone())
            .collect();
        let there: Vec<String> = diff(Some(&old), &new)
            .peers
            .iter()
            .filter(|(_, c)| matches!(c, PeerChange::Replaced))
            .map(|(key, _)| old.peers[key].name.clone())
            .collect();
        assert_eq!(back, there, "{words}, taken back");
    }
    assert!(EDITS.len() >= 46);
}
