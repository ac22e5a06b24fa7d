//! What a snapshot compiles to.

mod bird;
mod codes;
mod edits;
mod peerings;
mod plans;
mod policy;
mod prior;

use peerings::selector;

use std::sync::Arc;

use bgp_proto::{Asn, IpPrefix, Prefix, Prefix4};

use super::*;
use bgp_proto::session::TtlRule;

use crate::model::snapshot::Snapshot;
use crate::model::{
    self, AffinityState, BgpConfiguration, BgpPeer, BindMode, ClusterInformation, Code, EncapMode, IpPool,
    NamespacedName, Node, PeerAddress, PrefixAdvertisement, ProgramClusterRoutes, SecretBytes,
};
use crate::policy::program::{Action, Decision, Device, MAX_METRIC, Match, SourceClass};
use crate::policy::sets::SetId;

fn v4(text: &str) -> NodeAddress<V4> {
    let (addr, len) = text.split_once('/').unwrap();
    let addr = addr.parse().unwrap();
    NodeAddress { addr, subnet: Prefix::new(addr, len.parse().unwrap()).unwrap() }
}

fn v6(text: &str) -> NodeAddress<V6> {
    let (addr, len) = text.split_once('/').unwrap();
    let addr = addr.parse().unwrap();
    NodeAddress { addr, subnet: Prefix::new(addr, len.parse().unwrap()).unwrap() }
}

fn node(name: &str, v4_text: &str, v6_text: &str) -> Node {
    let ipv4 = (!v4_text.is_empty()).then(|| v4(v4_text));
    let ipv6 = (!v6_text.is_empty()).then(|| v6(v6_text));
    Node { name: name.into(), ipv4, ipv6, ..Default::default() }
}

fn pool(name: &str, cidr: &str) -> IpPool {
    IpPool {
        name: name.into(),
        cidr: cidr.parse().unwrap(),
        ipip: EncapMode::Never,
        vxlan: EncapMode::Never,
        disable_bgp_export: false,
    }
}

/// A world that tests change: three nodes, dual stack, one pool and one block a family, release 3.33.
struct World {
    snapshot: Snapshot,
    facts: NodeFacts,
}

impl World {
    fn new() -> World {
        let mut snapshot = Snapshot::default();
        let version = Some("v3.33.0".into());
        snapshot.cluster_information =
            Some(Arc::new(ClusterInformation { calico_version: version, datastore_ready: Some(true) }));
        let mut world =
            World { snapshot, facts: NodeFacts { node_name: "node-1".into(), ..Default::default() } };
        for i in 1..=3 {
            world.node(node(&format!("node-{i}"), &format!("10.0.0.{i}/24"), &format!("fd00::{i}/64")));
        }
        world.pool(pool("pool-v4", "10.244.0.0/16"));
        world.pool(pool("pool-v6", "fd00:10:244::/48"));
        world.block("10.244.1.0/26", AffinityState::Confirmed);
        world.block("fd00:10:244:1::/122", AffinityState::Confirmed);
        world
    }

    fn node(&mut self, node: Node) {
        self.snapshot.nodes.insert(node.name.clone(), Arc::new(node));
    }

    fn change_node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        change(Arc::make_mut(self.snapshot.nodes.get_mut(name).unwrap()));
    }

    fn pool(&mut self, pool: IpPool) {
        self.snapshot.pools.insert(pool.name.clone(), Arc::new(pool));
    }

    fn block(&mut self, cidr: &str, state: AffinityState) {
        self.snapshot.blocks.insert(cidr.parse().unwrap(), state);
    }

    fn config(&mut self, name: &str, change: impl FnOnce(&mut BgpConfiguration)) {
        let mut config = BgpConfiguration { name: name.into(), ..Default::default() };
        change(&mut config);
        self.snapshot.bgp_configurations.insert(name.into(), Arc::new(config));
    }

    fn release(&mut self, text: &str) {
        self.facts.cluster_release = Some(text.parse().unwrap());
    }

    fn state(&self) -> DesiredState {
        compile(&self.snapshot, &self.facts).unwrap()
    }
}

fn p4(text: &str) -> Prefix4 {
    text.parse().unwrap()
}

fn peer<'a>(state: &'a DesiredState, name: &str) -> &'a Peer {
    state.named(name).unwrap_or_else(|| panic!("no {name} in {:?}", names(state)))
}

/// Names of the sessions, in byte order.
fn names(state: &DesiredState) -> Vec<&str> {
    let mut names: Vec<&str> = state.peers.values().map(|peer| &*peer.name).collect();
    names.sort();
    names
}

/// The session with this address, at port 179.
fn session(addr: &str) -> SessionKey {
    SessionKey::new(addr.parse().unwrap(), 179)
}

fn within(text: &str) -> Match {
    Match::Within(text.parse().unwrap())
}

fn problems(state: &DesiredState) -> Vec<String> {
    state.problems.iter().map(|problem| format!("{:?} {problem}", problem.severity())).collect()
}

#[test]
fn a_dual_stack_node_has_a_session_of_each_family_to_every_other_node() {
    let state = World::new().state();
    let names = names(&state);
    assert_eq!(names, ["Mesh_10_0_0_2", "Mesh_10_0_0_3", "Mesh_fd00__2", "Mesh_fd00__3"]);
    let to = peer(&state, "Mesh_10_0_0_2");
    assert_eq!(to.resource, "Node/node-2");
    assert_eq!(to.spec.transport.port, 179);
    assert_eq!(to.spec.open.peer_asn, Asn(64512));
    assert_eq!(to.spec.next.source, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(to.spec.next.restart_time, Some(120));
    assert!(to.treatment.internal);
    assert!(problems(&state).is_empty(), "{:?}", state.problems);
}

#[test]
fn the_passive_side_is_decided_by_text_and_not_by_number() {
    let mut world = World::new();
    world.node(node("node-1", "10.0.0.9/24", ""));
    world.node(node("node-2", "10.0.0.10/24", ""));
    assert!(!peer(&world.state(), "Mesh_10_0_0_10").spec.next.passive);
    world.facts.node_name = "node-2".into();
    assert!(peer(&world.state(), "Mesh_10_0_0_9").spec.next.passive);
}

#[test]
fn a_node_without_its_own_as_has_the_global_as_even_where_the_local_node_has_its_own() {
    let mut world = World::new();
    world.config("default", |config| config.asn = Some(Asn(64999)));
    world.change_node("node-1", |node| node.asn = Some(Asn(65001)));
    world.change_node("node-3", |node| node.asn = Some(Asn(65001)));
    let state = world.state();
    assert_eq!(state.node.asn, Asn(65001));
    let external = peer(&state, "Mesh_10_0_0_2");
    assert_eq!((external.spec.open.peer_asn, external.treatment.internal), (Asn(64999), false));
    let internal = peer(&state, "Mesh_10_0_0_3");
    assert_eq!((internal.spec.open.peer_asn, internal.treatment.internal), (Asn(65001), true));
}

#[test]
fn the_mesh_switched_off_leaves_no_session_but_all_routes() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_enabled = Some(false));
    let state = world.state();
    assert!(state.peers.is_empty());
    assert_eq!(state.v4.statics.len(), 1);
}

#[test]
fn a_route_reflector_is_outside_the_mesh() {
    let mut world = World::new();
    let id = ClusterId("10.99.0.1".parse().unwrap());
    world.change_node("node-2", |node| node.cluster_id = Some(id));
    let state = world.state();
    assert_eq!(names(&state), ["Mesh_10_0_0_3", "Mesh_fd00__3"]);
    world.facts.node_name = "node-2".into();
    assert!(world.state().peers.is_empty());
}

#[test]
fn before_3_21_a_route_reflector_is_inside_the_ipv4_mesh() {
    let mut world = World::new();
    let id = ClusterId("10.99.0.1".parse().unwrap());
    world.change_node("node-2", |node| node.cluster_id = Some(id));
    world.facts.node_name = "node-2".into();
    world.release("v3.20");
    let state = world.state();
    assert_eq!(names(&state), ["Mesh_10_0_0_1", "Mesh_10_0_0_3"]);
    for release in ["v3.12", "v3.21"] {
        world.release(release);
        assert!(world.state().peers.is_empty(), "{release}");
    }
}

#[test]
fn a_peer_is_dialled_at_its_own_port_else_at_the_global_one() {
    let mut world = World::new();
    world.config("default", |config| config.listen_port = Some(177));
    world.config("node.node-1", |config| config.listen_port = Some(180));
    world.config("node.node-3", |config| config.listen_port = Some(1790));
    let state = world.state();
    assert_eq!(state.listen[&Afi::Ipv4], Listen { addr: None, port: 180 });
    assert_eq!(peer(&state, "Mesh_10_0_0_2").spec.transport.port, 177);
    assert_eq!(peer(&state, "Mesh_10_0_0_3").spec.transport.port, 1790);
}

#[test]
fn bind_mode_node_ip_listens_on_the_node_address_of_each_family() {
    let mut world = World::new();
    world.config("default", |config| config.bind_mode = BindMode::NodeIp);
    let state = world.state();
    assert_eq!(state.listen[&Afi::Ipv4].addr, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(state.listen[&Afi::Ipv6].addr, Some("fd00::1".parse().unwrap()));
}

#[test]
fn two_nodes_with_one_address_are_one_session_by_the_lower_name_and_a_problem() {
    let mut world = World::new();
    world.node(node("node-3", "10.0.0.2/24", ""));
    world.change_node("node-3", |node| node.asn = Some(Asn(65003)));
    let state = world.state();
    assert_eq!(peer(&state, "Mesh_10_0_0_2").resource, "Node/node-2");
    let expected = "Error Node/node-3: spec.bgp.ipv4Address: 10.0.0.2 is the address of Node/node-2 too: \
                    this node gets no session";
    assert_eq!(problems(&state), [expected]);
}

#[test]
fn a_node_with_the_local_address_has_no_session_and_is_a_problem() {
    let mut world = World::new();
    world.facts.node_name = "node-2".into();
    world.node(node("node-1", "10.0.0.2/24", "fd00::1/64"));
    let state = world.state();
    assert!(state.named("Mesh_10_0_0_2").is_none());
    assert!(state.named("Mesh_fd00__1").is_some());
    assert_eq!(state.problems[0].resource, "Node/node-1");
}

#[test]
fn a_nodename_without_a_node_configures_nothing_and_says_so() {
    let mut world = World::new();
    world.facts.node_name = "node-9".into();
    let unready = compile(&world.snapshot, &world.facts).unwrap_err();
    assert_eq!(unready.problems[0].code, Code::NoLocalNode);
    assert!(unready.to_string().starts_with("Node/node-9: there is no Node"), "{unready}");
    assert!(unready.to_string().contains("(there are node-1, "), "{unready}");
}

#[test]
fn a_node_that_cannot_be_read_is_not_called_missing() {
    let mut world = World::new();
    world.facts.node_name = "node-9".into();
    world.snapshot.problems.push(Problem {
        resource: "Node/node-9".into(),
        field: "spec.bgp.asNumber".into(),
        why: "is no number".into(),
        code: crate::model::Code::FieldRefused,
    });
    let unready = compile(&world.snapshot, &world.facts).unwrap_err();
    let text: Vec<String> = unready.problems.iter().map(ToString::to_string).collect();
    assert!(text[0].contains("cannot be used: nothing is configured until it can"), "{text:?}");
    assert!(text[1].contains("is no number"), "{text:?}");
}

#[test]
fn a_node_without_address_has_no_session_but_its_blocks_and_is_a_problem() {
    let mut world = World::new();
    world.node(node("node-1", "", ""));
    let state = world.state();
    assert!(state.peers.is_empty() && state.listen.is_empty());
    assert_eq!(state.v4.statics.len() + state.v6.statics.len(), 2);
    assert_eq!(state.node.router_id, router_id_hash("node-1"));
    assert_eq!(problems(&state).len(), 1);
    // KERN-14: no IPv4 pool rules without an IPv4 subnet.
    assert!(!state.v4.kernel.rules.iter().any(|rule| rule.when.contains(&within("10.244.0.0/16"))));
    assert!(state.v6.kernel.rules.iter().any(|rule| rule.when.contains(&within("fd00:10:244::/48"))));
}

#[test]
fn the_router_id_is_the_setting_else_the_ipv4_address_else_the_hash() {
    let mut world = World::new();
    assert_eq!(world.state().node.router_id.to_string(), "10.0.0.1");
    world.facts.router_id = Some("192.0.2.33".into());
    assert_eq!(world.state().node.router_id.to_string(), "192.0.2.33");
    world.facts.router_id = Some("hash".into());
    assert_eq!(world.state().node.router_id, router_id_hash("node-1"));
    world.facts.router_id = None;
    world.node(node("node-1", "", "fd00::1/64"));
    assert_eq!(world.state().node.router_id, router_id_hash("node-1"));
}

#[test]
fn a_bad_router_id_setting_is_a_problem_and_the_address_is_used() {
    let mut world = World::new();
    for bad in ["0.0.0.0", "fd00::1", "router"] {
        world.facts.router_id = Some(bad.into());
        let state = world.state();
        assert_eq!(state.node.router_id.to_string(), "10.0.0.1", "{bad}");
        assert_eq!(state.problems[0].field, "CALICO_ROUTER_ID");
    }
}

#[test]
fn every_block_but_pending_and_full_length_ones_is_a_blackhole() {
    let mut world = World::new();
    world.block("10.244.2.0/26", AffinityState::Pending);
    world.block("10.244.3.0/26", AffinityState::PendingDeletion);
    world.block("10.244.4.1/32", AffinityState::Confirmed);
    let state = world.state();
    let routed: Vec<String> = state.v4.statics.keys().map(ToString::to_string).collect();
    assert_eq!(routed, ["10.244.1.0/26", "10.244.3.0/26"]);
    assert_eq!(state.v4.statics[&p4("10.244.1.0/26")], StaticRoute::Blackhole);
}

#[test]
fn with_host_local_ipam_the_pod_cidrs_are_the_blocks() {
    let mut world = World::new();
    world.facts.use_pod_cidr = true;
    world.change_node("node-1", |node| node.pod_cidrs = vec!["10.244.7.0/24".parse().unwrap()]);
    let state = world.state();
    assert_eq!(state.v4.statics.keys().copied().collect::<Vec<_>>(), [p4("10.244.7.0/24")]);
    assert!(state.v6.statics.is_empty());
}

#[test]
fn only_confirmed_blocks_are_aggregated() {
    let mut world = World::new();
    world.block("10.244.2.0/26", AffinityState::Pending);
    world.block("10.244.3.0/26", AffinityState::PendingDeletion);
    world.block("10.244.4.1/32", AffinityState::Confirmed);
    assert_eq!(set(&world.state(), SetId::OwnBlocks), ["10.244.1.0/26", "10.244.4.1/32"]);
}

/// The prefixes of an IPv4 set.
fn set(state: &DesiredState, set: SetId) -> Vec<String> {
    state.v4.sets.get(set).unwrap().entries().iter().map(|entry| entry.prefix.to_string()).collect()
}

#[test]
fn a_claimed_block_and_a_new_pool_change_sets_and_no_program() {
    let mut world = World::new();
    let before = world.state();
    world.block("10.244.9.0/26", AffinityState::Confirmed);
    world.pool(pool("pool-new", "10.99.0.0/16"));
    let mut after = world.state();
    retain_policy(&before, &mut after);
    for (name, peer) in &after.peers {
        let old = &before.peers[name].treatment;
        assert!(Arc::ptr_eq(&old.import, &peer.treatment.import), "{name}");
        assert!(Arc::ptr_eq(&old.export, &peer.treatment.export), "{name}");
    }
    let changes = after.v4.sets.changes(&before.v4.sets);
    let changes: Vec<_> = changes.iter().map(|change| (change.set, change.prefixes.clone())).collect();
    let prefixes = |text: &str| vec![text.parse::<IpPrefix>().unwrap()];
    let expected =
        [(SetId::OwnBlocks, prefixes("10.244.9.0/26")), (SetId::ExportedPools, prefixes("10.99.0.0/16"))];
    assert_eq!(changes, expected);
    assert!(after.v6.sets.changes(&before.v6.sets).is_empty());
}

#[test]
fn the_export_of_a_mesh_session_has_the_steps_in_order() {
    let mut world = World::new();
    let mut closed = pool("pool-a", "10.245.0.0/16");
    closed.disable_bgp_export = true;
    world.pool(closed);
    let state = world.state();
    let rules = &peer(&state, "Mesh_10_0_0_2").treatment.export;
    let interface = |name: &str| vec![Match::Interface(name.into())];
    let own = Match::InSet(SetId::OwnBlocks);
    let expected = vec![
        (vec![], None),
        (vec![Match::InSet(SetId::UnexportedPools)], Some(Decision::Reject)),
        (interface("*.cali"), Some(Decision::Reject)),
        (interface("*.calico"), Some(Decision::Reject)),
        (interface("tunl0"), Some(Decision::Reject)),
        (interface("bpf*.cali"), Some(Decision::Reject)),
        (vec![Match::EntryOf(SetId::OwnBlocks)], Some(Decision::Accept)),
        (vec![own.clone(), Match::MetricBelow(1024)], Some(Decision::Accept)),
        (vec![own], Some(Decision::Reject)),
        (vec![Match::InSet(SetId::ServiceRoutes)], Some(Decision::Accept)),
        (vec![Match::InSet(SetId::ReflectedServices)], Some(Decision::Accept)),
        (vec![Match::InSet(SetId::ExportedPools)], Some(Decision::Accept)),
    ];
    assert_eq!(set(&state, SetId::UnexportedPools), ["10.245.0.0/16"]);
    assert_eq!(set(&state, SetId::ExportedPools), ["10.244.0.0/16"]);
    let found: Vec<_> = rules.rules.iter().map(|rule| (rule.when.clone(), rule.decision)).collect();
    assert_eq!(found, expected);
    assert_eq!(rules.rules[0].then, [Action::Normalise { priority: 1024, zero_is_none: false }]);
    assert_eq!(rules.default, Decision::Reject);
}

#[test]
fn external_sessions_are_told_routes_over_tunnel_devices() {
    let mut world = World::new();
    world.change_node("node-2", |node| node.asn = Some(Asn(65002)));
    let state = world.state();
    let tunnels = |name: &str| {
        let rules = &peer(&state, name).treatment.export.rules;
        rules.iter().filter(|rule| matches!(rule.when.as_slice(), [Match::Interface(_)])).count()
    };
    assert_eq!(tunnels("Mesh_10_0_0_2"), 1);
    assert_eq!(tunnels("Mesh_10_0_0_3"), 4);
}

#[test]
fn before_3_32_nothing_of_priorities_is_in_any_program() {
    let mut world = World::new();
    world.release("v3.31");
    let state = world.state();
    let session = peer(&state, "Mesh_10_0_0_2");
    assert_eq!(state.v4.priority, None);
    assert!(session.treatment.import.rules.is_empty());
    let programs = [&session.treatment.export, &state.v4.kernel];
    for rule in programs.iter().flat_map(|program| &program.rules) {
        assert!(rule.then.is_empty(), "{rule:?}");
        assert!(!rule.when.iter().any(|when| matches!(when, Match::MetricBelow(_))), "{rule:?}");
    }
}

#[test]
fn elevated_routes_are_preferred_on_import_by_the_configured_priority() {
    let mut world = World::new();
    world.config("default", |config| config.ipv4_priority = Some(2000));
    let state = world.state();
    let rule = |name: &str| peer(&state, name).treatment.import.rules[0].when.clone();
    assert_eq!(rule("Mesh_10_0_0_2"), [Match::LocalPrefAbove(MAX_METRIC - 2000)]);
    assert_eq!(rule("Mesh_fd00__2"), [Match::LocalPrefAbove(MAX_METRIC - 1024)]);
}

#[test]
fn with_an_assumed_release_a_metric_of_zero_says_nothing_in_ipv4() {
    let mut world = World::new();
    world.snapshot.cluster_information = None;
    let state = world.state();
    assert_eq!(state.release, ClusterRelease { release: Release::NEWEST, source: ReleaseSource::Assumed });
    let first = |name: &str| peer(&state, name).treatment.export.rules[0].then.clone();
    assert_eq!(first("Mesh_10_0_0_2"), [Action::Normalise { priority: 1024, zero_is_none: true }]);
    assert_eq!(first("Mesh_fd00__2"), [Action::Normalise { priority: 1024, zero_is_none: false }]);
    assert!(problems(&state)[0].contains("CALICO_BGPD_CLUSTER_RELEASE"), "{:?}", state.problems);
}

#[test]
fn a_release_that_is_no_longer_told_stays_the_last_known_one_with_a_warning() {
    let mut world = World::new();
    let last = Release { major: 3, minor: 31 };
    world.facts.last_release = Some(last);
    assert_eq!(world.state().release.source, ReleaseSource::ClusterInformation);
    world.snapshot.cluster_information = None;
    let state = world.state();
    assert_eq!(state.release, ClusterRelease { release: last, source: ReleaseSource::LastKnown });
    let told = &problems(&state)[0];
    assert!(told.contains("v3.31") && told.contains("CALICO_BGPD_CLUSTER_RELEASE"), "{told}");
}

#[test]
fn with_the_last_known_release_a_metric_of_zero_says_nothing_in_ipv4() {
    let mut world = World::new();
    world.snapshot.cluster_information = None;
    world.facts.last_release = Some(Release::NEWEST);
    let state = world.state();
    let first = &peer(&state, "Mesh_10_0_0_2").treatment.export.rules[0].then;
    assert_eq!(*first, [Action::Normalise { priority: 1024, zero_is_none: true }]);
}

#[test]
fn the_setting_of_the_release_wins_over_cluster_information() {
    let mut world = World::new();
    world.release("v3.14");
    let expected =
        ClusterRelease { release: Release { major: 3, minor: 14 }, source: ReleaseSource::Setting };
    assert_eq!(world.state().release, expected);
    world.release("v4.1");
    assert_eq!(world.state().release.release, Release::NEWEST);
}

/// The decision of the first pool rule that matches a BGP route in `pool`, by walking the conditions on prefixes only.
fn pool_decision(state: &DesiredState, pool: &str) -> Vec<(Vec<Match>, Decision)> {
    let rules = state.v4.kernel.rules.iter().filter(|rule| rule.when.first() == Some(&within(pool)));
    rules.map(|rule| (rule.when[1..].to_vec(), rule.decision.unwrap())).collect()
}

#[test]
fn the_kernel_takes_pools_by_their_owner() {
    use ProgramClusterRoutes::{Disabled, Enabled, EnabledIpipOnly, EnabledNoEncapOnly, Unset};
    let (accept, reject) = (vec![(vec![], Decision::Accept)], vec![(vec![], Decision::Reject)]);
    for (owner, plain) in [
        (Unset, &accept),
        (Enabled, &accept),
        (EnabledNoEncapOnly, &accept),
        (EnabledIpipOnly, &reject),
        (Disabled, &reject),
    ] {
        let mut world = World::new();
        world.config("default", |config| config.program_cluster_routes = owner);
        let mut vxlan = pool("pool-x", "10.246.0.0/16");
        // VXLAN takes precedence where a pool has both.
        (vxlan.vxlan, vxlan.ipip) = (EncapMode::CrossSubnet, EncapMode::Always);
        world.pool(vxlan);
        let state = world.state();
        assert_eq!(&pool_decision(&state, "10.244.0.0/16"), plain, "{owner:?}");
        assert_eq!(pool_decision(&state, "10.246.0.0/16"), reject, "{owner:?}");
    }
}

#[test]
fn an_ipip_pool_of_felix_is_left_to_felix_without_a_problem() {
    let mut world = World::new();
    let mut ipip = pool("pool-x", "10.246.0.0/16");
    ipip.ipip = EncapMode::Always;
    world.pool(ipip);
    let state = world.state();
    assert_eq!(pool_decision(&state, "10.246.0.0/16"), [(vec![], Decision::Reject)]);
    assert!(problems(&state).is_empty());
}

#[test]
fn routes_of_an_ipip_pool_that_is_ours_go_through_the_tunnel_unless_their_next_hop_is_near() {
    let mut world = World::new();
    world.config("default", |config| config.program_cluster_routes = ProgramClusterRoutes::Enabled);
    let mut ipip = pool("pool-x", "10.246.0.0/16");
    ipip.ipip = EncapMode::CrossSubnet;
    world.pool(ipip);
    let state = world.state();
    let near = vec![Match::Source(SourceClass::Bgp), Match::NextHopWithin("10.0.0.0/24".parse().unwrap())];
    assert_eq!(
        pool_decision(&state, "10.246.0.0/16"),
        [(near, Decision::Accept), (vec![], Decision::Accept)]
    );
    let through = |state: &DesiredState| -> Vec<Vec<Action>> {
        let rules = state.v4.kernel.rules.iter();
        let of_pool = rules.filter(|rule| rule.when.first() == Some(&within("10.246.0.0/16")));
        of_pool.map(|rule| rule.then.clone()).collect()
    };
    let tunnel = |required| Action::Through(Device { name: "tunl0", required });
    assert_eq!(through(&state), [vec![], vec![tunnel(true)]]);
    // By the release's default they are Felix's too.
    assert_eq!(
        state.problems.iter().map(|problem| problem.code).collect::<Vec<_>>(),
        [Code::RoutesWithTwoOwners]
    );
    // Whose the pool is decides the tunnel rule of the export too.
    let export = &peer(&state, "Mesh_10_0_0_2").treatment.export.rules;
    assert!(!export.iter().any(|rule| rule.when == [Match::Interface("tunl0".into())]));
    world.facts.bare_without_tunnel = true;
    assert_eq!(through(&world.state()), [vec![], vec![tunnel(false)]]);
    let mut ipip = pool("pool-x", "10.246.0.0/16");
    ipip.ipip = EncapMode::Always;
    world.pool(ipip);
    assert_eq!(through(&world.state()), [vec![tunnel(false)]]);
}

#[test]
fn routes_to_wireguard_peers_are_left_to_felix_from_3_33_on() {
    let mut world = World::new();
    world.change_node("node-1", |node| node.wireguard_v4 = Some("192.168.0.1".parse().unwrap()));
    world.change_node("node-2", |node| node.wireguard_v4 = Some("192.168.0.2".parse().unwrap()));
    let reached = [Match::Source(SourceClass::Bgp), Match::NextHopInSet(SetId::WireguardNextHops)];
    let left = |state: &DesiredState| state.v4.kernel.rules.iter().any(|rule| rule.when == reached);
    let state = world.state();
    assert_eq!(set(&state, SetId::WireguardNextHops), ["10.0.0.2/32"]);
    assert!(left(&state));
    world.release("v3.32");
    let state = world.state();
    assert!(set(&state, SetId::WireguardNextHops).is_empty() && !left(&state));
}

#[test]
fn of_pools_with_one_cidr_the_lowest_name_counts() {
    let mut world = World::new();
    let mut other = pool("pool-zz", "10.244.0.0/16");
    other.disable_bgp_export = true;
    world.pool(other);
    let state = world.state();
    assert_eq!(set(&state, SetId::ExportedPools), ["10.244.0.0/16"]);
    assert!(set(&state, SetId::UnexportedPools).is_empty());
    let said = "Warning IPPool/pool-zz: spec.cidr: 10.244.0.0/16 is the CIDR of IPPool/pool-v4 too, and only that one counts";
    assert_eq!(problems(&state), [said]);
}

#[test]
fn ignored_interfaces_come_before_those_of_calico() {
    let mut world = World::new();
    world.config("default", |config| config.ignored_interfaces = vec!["docker*".into(), "a?".into()]);
    assert_eq!(world.state().v4.ignored_interfaces, ["docker*", "a?", "cali*", "kube-ipvs*"]);
}

#[test]
fn restart_time_of_the_mesh_is_offered_and_one_that_does_not_fit_is_a_problem() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_restart_time = Some(0));
    assert_eq!(peer(&world.state(), "Mesh_10_0_0_2").spec.next.restart_time, Some(0));
    world.config("default", |config| config.mesh_restart_time = Some(7200));
    let state = world.state();
    assert_eq!(peer(&state, "Mesh_10_0_0_2").spec.next.restart_time, Some(4095));
    assert_eq!(problems(&state).len(), 1);
}

#[test]
fn what_has_no_effect_is_a_problem() {
    let mut world = World::new();
    world.config("default", |config| {
        config.prefix_advertisements = Some(vec![PrefixAdvertisement { cidr: None, communities: vec![] }]);
    });
    world.snapshot.peers.insert("tor".into(), Arc::new(BgpPeer { name: "tor".into(), ..Default::default() }));
    world.config("node.node-1", |config| config.asn = Some(Asn(65000)));
    world.config("other", |_| ());
    let state = world.state();
    let found: Vec<(&str, &str)> =
        state.problems.iter().map(|problem| (problem.resource.as_str(), problem.field.as_str())).collect();
    let expected = [
        ("BGPConfiguration/default", "spec.prefixAdvertisements[0].cidr"),
        ("BGPConfiguration/node.node-1", "spec.asNumber"),
        ("BGPConfiguration/other", ""),
        ("BGPPeer/tor", "spec.peerIP"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_key_is_the_raw_bytes_of_its_secret_and_a_newline_at_its_end_is_said() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_password = Some(password()));
    secret(&mut world, b" p\0w\n");
    let state = world.state();
    let auth = &peer(&state, "Mesh_10_0_0_2").auth;
    assert!(matches!(auth, Auth::Key { key, .. } if key.expose() == b" p\0w\n"), "{auth:?}");
    assert_eq!(
        problems(&state),
        [
            "Warning BGPConfiguration/default: spec.nodeMeshPassword: \"mesh\" of Secret/kube-system/bgp ends in a \
          newline, which is part of the key"
        ]
    );
}

#[test]
fn problems_of_reading_are_carried_on() {
    let mut world = World::new();
    let problem = Problem {
        resource: "IPPool/bad".into(),
        field: "spec.cidr".into(),
        why: "not an IP address".into(),
        code: crate::model::Code::FieldRefused,
    };
    world.snapshot.problems.push(problem.clone());
    assert_eq!(world.state().problems, [problem]);
}

fn secret(world: &mut World, value: &[u8]) {
    let name = NamespacedName { namespace: "kube-system".into(), name: "bgp".into() };
    let data = [("mesh".to_owned(), SecretBytes::new(value.to_vec()))].into();
    world.snapshot.secrets.insert(name.clone(), Arc::new(model::Secret { name, data }));
}

fn password() -> SecretKeyRef {
    SecretKeyRef { name: "bgp".into(), key: "mesh".into() }
}

#[test]
fn the_mesh_password_signs_every_mesh_session() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_password = Some(password()));
    secret(&mut world, b"s3cret");
    let state = world.state();
    for name in ["Mesh_10_0_0_2", "Mesh_fd00__3"] {
        let Auth::Key { key, .. } = &peer(&state, name).auth else { panic!("{name} is not signed") };
        assert_eq!(key.expose(), b"s3cret");
    }
    assert_eq!(problems(&state), [""; 0]);
}

#[test]
fn a_missing_password_is_an_error_and_leaves_the_session_unsigned_or_down_in_strict() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_password = Some(password()));
    let state = world.state();
    assert_eq!(peer(&state, "Mesh_10_0_0_2").auth, Auth::Missing(password()));
    assert!(problems(&state)[0].starts_with(
        "Error BGPConfiguration/default: spec.nodeMeshPassword: there is no Secret/kube-system/bgp"
    ));
    world.facts.on_etcd = true;
    assert!(problems(&world.state())[0].contains("etcd holds none"));
    secret(&mut world, b"");
    assert_eq!(peer(&world.state(), "Mesh_10_0_0_2").auth, Auth::Missing(password()));
    world.facts.strict = true;
    assert_eq!(peer(&world.state(), "Mesh_10_0_0_2").auth, Auth::Withheld(password()));
}

#[test]
fn a_key_that_the_kernel_cannot_take_keeps_the_session_down() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_password = Some(password()));
    secret(&mut world, &[b'x'; 81]);
    assert_eq!(peer(&world.state(), "Mesh_10_0_0_2").auth, Auth::Withheld(password()));
    secret(&mut world, &[b'x'; 80]);
    assert!(matches!(peer(&world.state(), "Mesh_10_0_0_2").auth, Auth::Key { .. }));
}

#[test]
fn a_secret_that_disappears_while_in_use_keeps_its_last_key() {
    let mut world = World::new();
    world.config("default", |config| config.mesh_password = Some(password()));
    secret(&mut world, b"s3cret");
    let old = world.state();
    world.snapshot.secrets.clear();
    let mut new = world.state();
    retain_keys(&old, &mut new);
    assert_eq!(peer(&new, "Mesh_10_0_0_2").auth, peer(&old, "Mesh_10_0_0_2").auth);
    assert_eq!(problems(&new).len(), 1);
}

fn bgp_peer(world: &mut World, name: &str, at: &str, change: impl FnOnce(&mut BgpPeer)) {
    let at = PeerAddress { addr: at.parse().unwrap(), port: None };
    let mut peer =
        BgpPeer { name: name.into(), peer_ip: Some(at), asn: Some(Asn(65001)), ..Default::default() };
    change(&mut peer);
    world.snapshot.peers.insert(name.into(), Arc::new(peer));
}

#[test]
fn a_global_bgp_peer_is_a_session_with_its_options() {
    let mut world = World::new();
    bgp_peer(&mut world, "tor", "192.0.2.1", |peer| {
        peer.ttl_security = 2;
        peer.keepalive_time = Some(20);
        peer.restart_time = Some(90);
        peer.source_address = model::SourceAddress::None;
        peer.local_asn = Some(Asn(65010));
        peer.keep_original_next_hop = true;
    });
    let state = world.state();
    let tor = peer(&state, "Global_192_0_2_1");
    assert_eq!(tor.resource, "BGPPeer/tor");
    assert_eq!(tor.spec.transport.ttl, TtlRule::Security { hops: 2 });
    assert_eq!((tor.spec.open.local_asn, tor.spec.open.peer_asn), (Asn(65010), Asn(65001)));
    let next = &tor.spec.next;
    assert_eq!(
        (next.source, next.passive, next.keepalive, next.restart_time),
        (None, false, Some(20), Some(90))
    );
    assert_eq!((tor.treatment.internal, tor.treatment.next_hop), (false, NextHopRule::Keep));
}

#[test]
fn a_bgp_peer_of_another_node_is_no_session_here() {
    let mut world = World::new();
    bgp_peer(&mut world, "there", "192.0.2.1", |peer| peer.node = Some("node-2".into()));
    bgp_peer(&mut world, "here", "192.0.2.2", |peer| peer.node = Some("node-1".into()));
    let state = world.state();
    let explicit: Vec<&str> = names(&state).into_iter().filter(|name| !name.starts_with("Mesh")).collect();
    assert_eq!(explicit, ["Node_192_0_2_2"]);
}

#[test]
fn an_explicit_peer_takes_the_place_of_the_mesh_session_to_its_address() {
    let mut world = World::new();
    bgp_peer(&mut world, "two", "10.0.0.2", |peer| peer.asn = None);
    let state = world.state();
    assert!(state.named("Mesh_10_0_0_2").is_none());
    let two = peer(&state, "Global_10_0_0_2");
    // A Calico node: its AS is known, and the text rule says who dials.
    assert_eq!((two.spec.open.peer_asn, two.spec.next.passive), (Asn(64512), true));
}

#[test]
fn of_two_bgp_peers_to_one_address_and_port_global_ones_come_first_then_the_lower_name() {
    let mut world = World::new();
    bgp_peer(&mut world, "a-node", "192.0.2.1", |peer| peer.node = Some("node-1".into()));
    bgp_peer(&mut world, "b-global", "192.0.2.1", |_| ());
    bgp_peer(&mut world, "c-global", "192.0.2.1", |_| ());
    let state = world.state();
    assert_eq!(peer(&state, "Global_192_0_2_1").resource, "BGPPeer/b-global");
    assert_eq!(state.peers.len(), 5);
    let losers: Vec<&str> = state.problems.iter().map(|problem| problem.resource.as_str()).collect();
    assert_eq!(losers, ["BGPPeer/a-node", "BGPPeer/c-global"]);
}

#[test]
fn a_node_with_a_link_local_address_is_a_problem_and_costs_no_other_session() {
    let mut world = World::new();
    world.change_node("node-2", |node| node.ipv6 = Some(v6("fe80::2/64")));
    let state = world.state();
    assert_eq!(names(&state), ["Mesh_10_0_0_2", "Mesh_10_0_0_3", "Mesh_fd00__3"]);
    let why = "Error Node/node-2: spec.bgp.ipv6Address: fe80::2 is link-local and does not say on which interface: this node gets no session";
    assert_eq!(problems(&world.state()), [why]);

    world.change_node("node-1", |node| node.ipv6 = Some(v6("fe80::1/64")));
    let state = world.state();
    assert_eq!(names(&state), ["Mesh_10_0_0_2", "Mesh_10_0_0_3"]);
    let why = "Error Node/node-1: spec.bgp.ipv6Address: fe80::1 is link-local and does not say on which interface: there is no session of the mesh";
    assert_eq!(problems(&world.state()), [why]);
}

#[test]
fn a_bgp_peer_in_a_family_without_own_address_is_a_warning_and_no_session() {
    let mut world = World::new();
    world.change_node("node-1", |node| node.ipv6 = None);
    bgp_peer(&mut world, "tor", "fd00::99", |_| ());
    bgp_peer(&mut world, "self", "10.0.0.1", |_| ());
    let state = world.state();
    assert!(names(&state).iter().all(|name| name.starts_with("Mesh_10")), "{:?}", names(&state));
    let why =
        "Warning BGPPeer/tor: spec.peerIP: this node has no ipv6 address: it has no session to fd00::99";
    assert_eq!(problems(&state), [why]);
}

#[test]
fn a_link_local_peer_address_is_one_problem_and_costs_no_other_session() {
    let mut world = World::new();
    bgp_peer(&mut world, "bad", "fe80::1", |_| ());
    bgp_peer(&mut world, "good", "192.0.2.1", |_| ());
    let state = world.state();
    assert_eq!((state.peers.len(), state.named("Global_192_0_2_1").is_some()), (5, true));
    let problems: Vec<String> = state.problems.iter().map(ToString::to_string).collect();
    let why = "BGPPeer/bad: spec.peerIP: fe80::1 is link-local and does not say on which interface: there is no session";
    assert_eq!(problems, [why]);
}

#[test]
fn the_json_of_the_intent_has_the_keys_that_programs_rely_on() {
    let mut world = World::new();
    world.config("default", |config| config.bind_mode = BindMode::NodeIp);
    world.change_node("node-3", |node| node.asn = Some(Asn(65003)));
    let json = serde_json::to_value(view(&world.state())).unwrap();
    let peer = serde_json::json!({
        "name": "Mesh_10_0_0_3", "class": "mesh", "resource": "Node/node-3", "family": "ipv4",
        "address": "10.0.0.3", "port": 179, "asNumber": 65003, "localAsNumber": 64512, "internal": false,
        "passive": true, "sourceAddress": "10.0.0.1", "ttl": 64, "password": "none", "holdTime": 240,
        "restartTime": 120, "nextHopMode": "Auto", "numAllowedLocalAsNumbers": 0,
        "import": "ipv4-import-1", "export": "ipv4-export-2",
    });
    assert_eq!(json["peers"][1], peer);
    assert_eq!(json["listen"][0], serde_json::json!({"family": "ipv4", "address": "10.0.0.1", "port": 179}));
    assert_eq!(json["node"]["routerId"], "10.0.0.1");
    assert_eq!(json["ipv4"]["originated"], serde_json::json!([{"prefix": "10.244.1.0/26"}]));
    assert_eq!(json["ipv4"]["normalRoutePriority"], 1024);
    let sets = serde_json::json!({"own blocks": ["10.244.1.0/26"], "exported pools": ["10.244.0.0/16"]});
    assert_eq!(json["ipv4"]["sets"], sets);
    assert_eq!(json["release"]["release"], "v3.33");
    assert_eq!(json["clusterRoutes"]["ipip"], "felix");
    for program in ["ipv4-import-1", "ipv4-export-1", "ipv4-export-2", "ipv4-kernel-1", "ipv6-kernel-1"] {
        assert!(json["programs"][program]["default"].is_string(), "{program}");
    }
    assert_eq!(json["programs"]["ipv4-import-1"]["rules"][0]["then"][0], "preference 200");
}

#[test]
fn the_text_of_the_intent_names_sessions_routes_rules_and_problems() {
    let mut world = World::new();
    world.config("default", |config| config.service_cluster_ips = vec!["10.96.0.0/12".parse().unwrap()]);
    bgp_peer(&mut world, "tor", "192.0.2.1", |peer| peer.filters = vec!["gone".into()]);
    let text = render_text(&world.state());
    for line in [
        "Node node-1, AS 64512, router id 10.0.0.1",
        "  IPv6 fd00::1 in fd00::/64",
        "Calico release v3.33 (clusterInformation)",
        "Listening: IPv4 on all addresses, port 179",
        "Sessions: 5",
        "  10.244.1.0/26 blackhole",
        "  10.96.0.0/12 blackhole",
        "  own blocks: 10.244.1.0/26",
        "  service routes: 10.96.0.0/12",
        "Program ipv4-export-1",
        "       otherwise reject",
        "  error: BGPPeer/tor: spec.filters: there is no BGPFilter gone: it filters nothing [unknown-filter]",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in:\n{text}");
    }
}

#[test]
fn check_fails_for_errors_and_not_for_warnings() {
    let mut world = World::new();
    assert_eq!(check(Ok(&world.state())).to_string(), "0 errors, 0 warnings\n");
    world.config("other", |_| ());
    let warned = check(Ok(&world.state()));
    assert_eq!((warned.ok, warned.exit_code(), warned.problems.len()), (true, 0, 1));
    world.node(node("node-3", "10.0.0.2/24", ""));
    let failed = check(Ok(&world.state()));
    assert_eq!((failed.ok, failed.exit_code()), (false, 1));
    assert!(failed.to_string().ends_with("1 error, 1 warning\n"), "{failed}");
    assert!(failed.to_string().contains("error: Node/node-3: spec.bgp.ipv4Address: 10.0.0.2 is"), "{failed}");
    world.facts.node_name = "node-9".into();
    assert_eq!(check(compile(&world.snapshot, &world.facts).as_ref()).exit_code(), 1);
}
