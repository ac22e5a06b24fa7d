//! BGPPeers that select nodes, from both ends, and peers on this node itself.

use super::*;

/// A selector that parses.
pub(super) fn selector(text: &str) -> Option<Arc<model::Selector>> {
    Some(Arc::new(model::Selector::parse(text).unwrap()))
}

/// Adds a BGPPeer that has no address.
pub(super) fn selecting(world: &mut World, name: &str, change: impl FnOnce(&mut BgpPeer)) {
    bgp_peer(world, name, "192.0.2.1", |peer| {
        peer.peer_ip = None;
        peer.asn = None;
        change(peer);
    });
}

fn no_mesh() -> World {
    let mut world = World::new();
    world.config("default", |config| config.mesh_enabled = Some(false));
    world
}

fn label(world: &mut World, node: &str, label: &str) {
    world.change_node(node, |node| drop(node.labels.insert(label.into(), String::new())));
}

#[test]
fn a_selector_gives_its_owners_a_session_with_each_node_in_each_family_and_the_peers_the_reverse() {
    let mut world = no_mesh();
    label(&mut world, "node-2", "rr");
    world.change_node("node-3", |node| node.ipv6 = None);
    selecting(&mut world, "rr", |peer| {
        peer.node_selector = selector("!has(rr)");
        peer.peer_selector = selector("has(rr)");
    });
    let state = world.state();
    assert_eq!(names(&state), ["Node_10_0_0_2", "Node_fd00__2"]);
    let forward = peer(&state, "Node_10_0_0_2");
    assert_eq!((forward.resource.as_str(), forward.spec.next.passive), ("BGPPeer/rr", false));
    world.facts.node_name = "node-2".into();
    let reverse = world.state();
    assert_eq!(names(&reverse), ["Node_10_0_0_1", "Node_10_0_0_3", "Node_fd00__1"]);
    assert!(reverse.problems.is_empty(), "{:?}", problems(&reverse));
    let change = |peer: &mut BgpPeer| peer.reverse_peering_manual = true;
    change(Arc::make_mut(world.snapshot.peers.get_mut("rr").unwrap()));
    assert_eq!(names(&world.state()), [""; 0]);
}

#[test]
fn the_node_that_has_a_peer_ip_its_as_and_its_port_gets_the_reverse_of_it() {
    let of = |change: &dyn Fn(&mut BgpPeer)| {
        let mut world = no_mesh();
        bgp_peer(&mut world, "to-me", "10.0.0.1", |peer| {
            peer.asn = None;
            peer.node = Some("node-2".into());
            change(peer);
        });
        names(&world.state()).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(&|_| ()), ["Node_10_0_0_2"]);
    assert_eq!(of(&|peer| peer.asn = Some(Asn(64512))), ["Node_10_0_0_2"]);
    assert_eq!(of(&|peer| peer.asn = Some(Asn(65001))), [""; 0]);
    assert_eq!(of(&|peer| peer.peer_ip.as_mut().unwrap().port = Some(179)), ["Node_10_0_0_2"]);
    assert_eq!(of(&|peer| peer.peer_ip.as_mut().unwrap().port = Some(1790)), [""; 0]);
    assert_eq!(of(&|peer| peer.node = Some("node-9".into())), [""; 0]);
    // A global one: every other node is its owner, and this node has nothing to say of its meeting itself.
    assert_eq!(of(&|peer| peer.node = None), ["Node_10_0_0_2", "Node_10_0_0_3"]);
}

#[test]
fn global_peerings_come_before_those_of_nodes_and_these_before_reverse_ones() {
    let mut world = no_mesh();
    selecting(&mut world, "a-node", |peer| {
        peer.node_selector = selector("all()");
        peer.peer_selector = selector("all()");
    });
    selecting(&mut world, "b-global", |peer| peer.peer_selector = selector("all()"));
    let state = world.state();
    assert!(state.peers.values().all(|peer| peer.resource == "BGPPeer/b-global"));
    let why = "Warning BGPPeer/a-node: spec: BGPPeer/b-global already asks for a session to 10.0.0.2 port 179 and 1 more: this one has none there";
    assert_eq!(problems(&state).first().map(String::as_str), Some(why), "{:?}", problems(&state));
    world.snapshot.peers.remove("b-global");
    let state = world.state();
    assert_eq!(names(&state), ["Node_10_0_0_2", "Node_10_0_0_3", "Node_fd00__2", "Node_fd00__3"]);
    assert!(state.problems.is_empty(), "both ends of one BGPPeer: {:?}", problems(&state));
}

#[test]
fn an_internal_peer_of_a_reflector_is_its_client_unless_a_node_of_the_same_cluster() {
    let id = |text: &str| Some(ClusterId(text.parse().unwrap()));
    let mut world = no_mesh();
    world.change_node("node-1", |node| node.cluster_id = id("1.1.1.1"));
    world.change_node("node-2", |node| node.cluster_id = id("1.1.1.1"));
    world.change_node("node-3", |node| node.cluster_id = id("2.2.2.2"));
    selecting(&mut world, "all", |peer| peer.peer_selector = selector("all()"));
    let client = |world: &World, name: &str| peer(&world.state(), name).treatment.rr_client;
    assert_eq!(client(&world, "Global_10_0_0_2"), None);
    assert_eq!(client(&world, "Global_10_0_0_3"), id("1.1.1.1"));
    // By address it may be anybody.
    bgp_peer(&mut world, "a", "10.0.0.2", |peer| peer.asn = None);
    assert_eq!(client(&world, "Global_10_0_0_2"), id("1.1.1.1"));
}

#[test]
fn a_peer_on_this_node_is_one_where_it_is_not_our_own_socket() {
    let of = |text: &str, node: Option<&str>| {
        let mut world = no_mesh();
        let (addr, port) = text.split_once(' ').unwrap_or((text, ""));
        bgp_peer(&mut world, "here", addr, |peer| {
            peer.node = node.map(str::to_owned);
            peer.peer_ip.as_mut().unwrap().port = port.parse().ok();
        });
        let state = world.state();
        let sessions: Vec<(String, bool)> =
            state.peers.values().map(|peer| (peer.name.clone(), peer.spec.next.passive)).collect();
        (sessions, state.problems.len())
    };
    let here = Some("node-1");
    // Who speaks from loopback has to call, for our own socket answers there.
    assert_eq!(of("127.0.0.1", here), (vec![("Node_127_0_0_1".to_owned(), true)], 0));
    assert_eq!(of("127.0.0.1 1790", here), (vec![("Node_127_0_0_1_port_1790".to_owned(), false)], 0));
    assert_eq!(of("10.0.0.1 1790", here), (vec![("Node_10_0_0_1_port_1790".to_owned(), false)], 0));
    assert_eq!(of("10.0.0.1", here), (vec![], 1));
    assert_eq!(of("10.0.0.1 179", here), (vec![], 1));
    assert_eq!(of("10.0.0.1", None), (vec![], 0));
}

#[test]
fn a_workload_that_felix_names_is_a_passive_peer_with_the_numbers_of_its_bgp_peer() {
    let mut world = no_mesh();
    selecting(&mut world, "pods", |peer| {
        peer.local_workload_selector = Some("all()".into());
        peer.asn = Some(Asn(64516));
        peer.local_asn = Some(Asn(65002));
        peer.ttl_security = 1;
    });
    let addresses = vec!["10.244.1.2".parse().unwrap(), "fd00:10:244:1::2".parse().unwrap()];
    let workload =
        |peer: &str| Arc::new(model::WorkloadPeer { peer: peer.into(), addresses: addresses.clone() });
    world.snapshot.workload_peers.insert("k8s a eth0".into(), workload("pods"));
    world.snapshot.workload_peers.insert("k8s b eth0".into(), workload("nobody"));
    let state = world.state();
    assert_eq!(names(&state), ["Local_Workload_10_244_1_2", "Local_Workload_fd00_10_244_1__2"]);
    let pod = peer(&state, "Local_Workload_10_244_1_2");
    let (open, next) = (&pod.spec.open, &pod.spec.next);
    assert_eq!((open.local_asn, open.peer_asn), (Asn(65002), Asn(64516)));
    assert_eq!((next.passive, next.source, pod.spec.transport.ttl), (true, None, TtlRule::Multihop(64)));
}

#[test]
fn a_peer_that_is_reachable_by_a_gateway_has_a_host_route_over_it() {
    let mut world = no_mesh();
    bgp_peer(&mut world, "tor", "10.225.0.4", |peer| peer.reachable_by = Some("10.224.0.1".parse().unwrap()));
    let via = StaticRoute::Via("10.224.0.1".parse().unwrap());
    assert_eq!(world.state().v4.statics.get(&p4("10.225.0.4/32")), Some(&via));
    bgp_peer(&mut world, "tor", "10.225.0.4", |peer| peer.reachable_by = Some("fd00::9".parse().unwrap()));
    let state = world.state();
    assert_eq!((state.peers.len(), state.v4.statics.contains_key(&p4("10.225.0.4/32"))), (0, false));
}
