//! Services, BGPFilters, communities: what they compile to.

use std::net::IpAddr;

use bgp_proto::rib::{Policy, RouteView};
use bgp_proto::wire::Attributes;

use super::*;
use crate::model::{
    BgpFilter, Endpoint, EndpointSlice, FilterRule, MatchOperator, NamedCommunity, PrefixMatch, Service,
    ServiceType, TrafficPolicy,
};
use crate::policy::eval::Bound;

fn name(name: &str) -> NamespacedName {
    NamespacedName { namespace: "default".into(), name: name.into() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidrs(list: &[&str]) -> Vec<IpPrefix> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// A world with ranges, one Service of type LoadBalancer, and a ready endpoint on node-2.
fn serving() -> World {
    let mut world = World::new();
    world.config("default", |config| {
        config.service_cluster_ips = cidrs(&["10.96.0.0/12"]);
        config.service_external_ips = cidrs(&["203.0.113.0/24", "198.51.100.7/32"]);
        config.service_load_balancer_ips = cidrs(&["198.18.0.0/16", "198.51.100.9/32"]);
    });
    let service = Service {
        name: name("web"),
        service_type: ServiceType::LoadBalancer,
        cluster_ip: Some(ip("10.96.0.10")),
        cluster_ips: vec![ip("10.96.0.10"), ip("fd00:10:96::10")],
        external_ips: vec![ip("203.0.113.5"), ip("192.0.2.99")],
        load_balancer_ip: None,
        ingress_ips: vec![ip("198.18.0.1")],
        traffic_policy: Some(TrafficPolicy::Cluster),
        ip_families: vec![Afi::Ipv4],
    };
    world.snapshot.services.insert(name("web"), Arc::new(service));
    endpoints(&mut world, "web-a", &[("node-2", true)]);
    world
}

fn endpoints(world: &mut World, slice: &str, endpoints: &[(&str, bool)]) {
    let endpoint = |(node, ready): &(&str, bool)| Endpoint { node: Some((*node).into()), ready: *ready };
    let made = EndpointSlice {
        name: name(slice),
        service: Some("web".into()),
        family: Some(Afi::Ipv4),
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    world.snapshot.endpoint_slices.insert(name(slice), Arc::new(made));
}

fn web(world: &mut World, change: impl FnOnce(&mut Service)) {
    change(Arc::make_mut(world.snapshot.services.get_mut(&name("web")).unwrap()));
}

fn configure(world: &mut World, change: impl FnOnce(&mut BgpConfiguration)) {
    change(Arc::make_mut(world.snapshot.bgp_configurations.get_mut("default").unwrap()));
}

/// Service routes of both families, in order.
fn routes(world: &World) -> Vec<String> {
    let state = world.state();
    let sets = [&state.v4.sets, &state.v6.sets].map(|sets| sets.get(SetId::ServiceRoutes).unwrap().clone());
    sets.iter().flat_map(|set| set.entries()).map(|entry| entry.prefix.to_string()).collect()
}

const RANGES: [&str; 3] = ["10.96.0.0/12", "198.18.0.0/16", "203.0.113.0/24"];
/// Ranges and all addresses of the Service that are in them.
const ALL: [&str; 7] = [
    "10.96.0.0/12",
    "10.96.0.10/32",
    "198.18.0.0/16",
    "198.18.0.1/32",
    "203.0.113.0/24",
    "203.0.113.5/32",
    "fd00:10:96::10/128",
];

#[test]
fn ranges_are_announced_always_and_single_addresses_only_for_services() {
    let world = serving();
    assert_eq!(routes(&world), RANGES);
    let state = world.state();
    assert_eq!(set(&state, SetId::ServiceRejects), RANGES);
    assert_eq!(state.v4.statics[&p4("198.18.0.0/16")], StaticRoute::Blackhole);
}

#[test]
fn a_service_of_local_policy_is_announced_where_it_has_a_ready_endpoint() {
    let mut world = serving();
    web(&mut world, |service| service.traffic_policy = Some(TrafficPolicy::Local));
    assert_eq!(routes(&world), RANGES);
    endpoints(&mut world, "web-b", &[("node-1", false)]);
    assert_eq!(routes(&world), RANGES, "not ready");
    endpoints(&mut world, "web-c", &[("node-1", true)]);
    assert_eq!(routes(&world), ALL, "whatever another slice says");
    world.facts.kubernetes_node = Some("kube-1".into());
    assert_eq!(routes(&world), RANGES, "EndpointSlices name this node otherwise");
    endpoints(&mut world, "web-c", &[("kube-1", true)]);
    assert_eq!(routes(&world), ALL);
    world.change_node("node-1", |node| {
        node.labels.insert("node.kubernetes.io/exclude-from-external-load-balancers".into(), "true".into());
    });
    assert!(routes(&world).is_empty(), "the node is excluded");
    assert_eq!(set(&world.state(), SetId::ServiceRejects), RANGES, "and its kernel refuses them as before");
    world.release("v3.17");
    assert_eq!(
        routes(&world).len(),
        9,
        "older releases know no such label, and take single addresses for ranges"
    );
}

#[test]
fn an_excluding_label_with_another_value_than_true_excludes_nothing_and_is_said() {
    let mut world = serving();
    world.change_node("node-1", |node| {
        node.labels.insert("node.kubernetes.io/exclude-from-external-load-balancers".into(), String::new());
    });
    assert_eq!(routes(&world), RANGES);
    assert_eq!(world.state().problems[0].field, "metadata.labels");
}

#[test]
fn a_single_address_in_the_lists_brings_all_addresses_of_its_service_without_any_endpoint() {
    let mut world = serving();
    endpoints(&mut world, "web-a", &[]);
    web(&mut world, |service| service.load_balancer_ip = Some(ip("198.51.100.9")));
    assert_eq!(routes(&world), ALL);
    web(&mut world, |service| service.service_type = ServiceType::NodePort);
    assert_eq!(routes(&world), RANGES, "not of type LoadBalancer");
    web(&mut world, |service| service.external_ips.push(ip("198.51.100.7")));
    assert_eq!(routes(&world).len(), ALL.len() + 1);
    let state = world.state();
    assert!(!set(&state, SetId::ServiceRejects).contains(&"198.51.100.7/32".to_owned()), "the kernel has it");
    web(&mut world, |service| service.cluster_ip = None);
    assert_eq!(routes(&world), RANGES, "headless");
}

#[test]
fn without_aggregation_any_ready_endpoint_brings_the_addresses_and_load_balancer_ranges_go() {
    let mut world = serving();
    configure(&mut world, |config| config.load_balancer_aggregation = Some(false));
    let expected: Vec<&str> = ALL.into_iter().filter(|text| *text != "198.18.0.0/16").collect();
    assert_eq!(routes(&world), expected);
    endpoints(&mut world, "web-a", &[("node-2", false)]);
    assert_eq!(routes(&world), ["10.96.0.0/12", "203.0.113.0/24"]);
}

#[test]
fn the_setting_replaces_the_cluster_ranges_and_a_wrong_one_is_a_problem() {
    let mut world = serving();
    world.facts.advertise_cluster_ips = Some("10.97.0.0/16".into());
    assert_eq!(routes(&world), ["10.97.0.0/16", "198.18.0.0/16", "203.0.113.0/24"]);
    world.facts.advertise_cluster_ips = Some("everything".into());
    assert_eq!(routes(&world), RANGES);
    assert_eq!(world.state().problems[0].field, "CALICO_ADVERTISE_CLUSTER_IPS");
}

#[test]
fn an_address_of_a_node_is_announced_and_never_a_blackhole_of_the_kernel() {
    let mut world = serving();
    configure(&mut world, |config| config.service_external_ips = cidrs(&["10.0.0.0/24"]));
    web(&mut world, |service| {
        service.traffic_policy = Some(TrafficPolicy::Local);
        service.external_ips = vec![ip("10.0.0.2")];
    });
    endpoints(&mut world, "web-a", &[("node-1", true)]);
    let state = world.state();
    assert!(set(&state, SetId::ServiceRoutes).contains(&"10.0.0.2/32".to_owned()));
    assert!(set(&state, SetId::ServiceRejects).contains(&"10.0.0.2/32".to_owned()));
    assert!(problems(&state)[0].contains("Service/default/web"), "{:?}", problems(&state));
}

#[test]
fn a_reflector_passes_on_what_lies_in_its_load_balancer_and_external_ranges() {
    let mut world = serving();
    assert!(set(&world.state(), SetId::ReflectedServices).is_empty());
    world.change_node("node-1", |node| node.cluster_id = Some(ClusterId([224, 0, 0, 1].into())));
    let reflected = set(&world.state(), SetId::ReflectedServices);
    assert_eq!(reflected, ["198.18.0.0/16", "198.51.100.7/32", "198.51.100.9/32", "203.0.113.0/24"]);
}

/// A route of this node on its way to a peer.
fn exported<'a>(world: &World, peer_name: &str, prefix: &str) -> Option<RouteView<'a>> {
    let state = world.state();
    let mut route = RouteView {
        prefix: prefix.parse().unwrap(),
        class: SourceClass::Static,
        interface: "",
        internal: Some(true),
        metric: None,
        preference: 200,
        attributes: std::borrow::Cow::Owned(Attributes::default()),
        next_hop: None,
        device: None,
    };
    let program = &peer(&state, peer_name).treatment.export;
    Bound { program, sets: &state.v4.sets }.accepts(&mut route).then_some(route)
}

fn community(a: u32, b: u32) -> u32 {
    a << 16 | b
}

#[test]
fn prefix_advertisements_add_communities_by_value_and_by_name_of_the_same_resource() {
    let mut world = World::new();
    let entry = |cidr: &str, communities: &[&str]| PrefixAdvertisement {
        cidr: Some(cidr.parse().unwrap()),
        communities: communities.iter().map(|text| (*text).to_owned()).collect(),
    };
    let list = vec![
        entry("10.244.0.0/16", &["64512:1", "own", "64512:1", "unknown"]),
        entry("10.244.1.0/26", &["1:2:3"]),
        entry("fd00:10:244::/48", &["64512:9"]),
    ];
    world.config("default", |config| {
        config.communities = vec![NamedCommunity { name: "own".into(), value: "64512:2".into() }];
        config.prefix_advertisements = Some(list);
    });
    let sent = exported(&world, "Mesh_10_0_0_2", "10.244.1.0/26").unwrap().attributes.into_owned();
    assert_eq!(sent.communities, [community(64512, 1), community(64512, 2)]);
    assert_eq!(sent.large_communities, [[1, 2, 3]]);
    let said: Vec<String> = problems(&world.state());
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("spec.prefixAdvertisements[0].communities: \"unknown\""), "{said:?}");
    // A list of the node's own hides the global one, and names are those of its own resource.
    world.config("node.node-1", |config| {
        config.prefix_advertisements = Some(vec![entry("10.244.0.0/16", &["own", "7:7"])]);
    });
    let sent = exported(&world, "Mesh_10_0_0_2", "10.244.1.0/26").unwrap().attributes.into_owned();
    assert_eq!((sent.communities, sent.large_communities), ([community(7, 7)].into(), [].into()));
}

#[test]
fn filters_come_before_the_common_rules_and_a_missing_one_filters_nothing() {
    let mut world = World::new();
    let rule = |accept, cidr: &str| FilterRule {
        accept,
        prefix: Some(PrefixMatch { cidr: cidr.parse().unwrap(), operator: MatchOperator::In, length: None }),
        ..Default::default()
    };
    for (filter, rule) in [("a", rule(true, "192.0.2.0/24")), ("b", rule(false, "0.0.0.0/0"))] {
        let filter = BgpFilter { name: filter.into(), export_v4: vec![rule], ..Default::default() };
        world.snapshot.filters.insert(filter.name.clone(), Arc::new(filter));
    }
    bgp_peer(&mut world, "tor", "10.0.0.200", |peer| {
        peer.filters = vec!["gone".into(), "a".into(), "b".into()];
    });
    assert!(exported(&world, "Global_10_0_0_200", "192.0.2.0/26").is_some(), "outside of all pools");
    assert!(exported(&world, "Global_10_0_0_200", "10.244.1.0/26").is_none());
    assert!(exported(&world, "Mesh_10_0_0_2", "10.244.1.0/26").is_some(), "filters are not for the mesh");
    let said = "Error BGPPeer/tor: spec.filters: there is no BGPFilter gone: it filters nothing";
    assert_eq!(problems(&world.state()), [said]);
}

#[test]
fn before_3_27_internal_routers_are_told_routes_over_vxlan_devices_and_calico_nodes_are_not() {
    let mut world = World::new();
    bgp_peer(&mut world, "tor", "10.0.0.200", |peer| peer.asn = Some(Asn(64512)));
    let keeps = |world: &World, name: &str| {
        let state = world.state();
        let rules = &peer(&state, name).treatment.export.rules;
        rules.iter().any(|rule| rule.when == [Match::Interface("*.calico".into())])
    };
    assert!(keeps(&world, "Global_10_0_0_200"));
    world.release("v3.26");
    assert!(!keeps(&world, "Global_10_0_0_200"));
    assert!(keeps(&world, "Mesh_10_0_0_2"));
}
