//! One behaviour each.

use super::*;
use bgp_proto::ClusterId;
use bgp_proto::rib::{LLGR_STALE, NO_LLGR, Reason, Refused};
use bgp_proto::wire::Capability;

pub(super) const R2: &str = "10.10.0.2";
pub(super) const R3: &str = "10.10.0.3";
pub(super) const R4: &str = "10.10.0.4";
const E9: &str = "10.10.0.9";
const E8: &str = "10.10.0.8";

pub(super) fn two() -> Bench {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(R3, 64512)]);
    bench.up(R2);
    bench.up(R3);
    bench.drain_all();
    bench
}

fn unicast(legs: &[(&str, u32)]) -> Target {
    let leg = |(via, ifindex): &(&str, u32)| Leg {
        via: Some(ip(via)),
        ifindex: *ifindex,
        onlink: false,
        weight: 1,
    };
    Target::Unicast(legs.iter().map(leg).collect())
}

pub(super) fn route(target: Target, metric: u32) -> FibRoute {
    FibRoute { target, metric }
}

// ---- own routes ----

#[test]
fn an_own_block_is_a_blackhole_in_the_kernel_and_announced_with_our_address() {
    let mut bench = two();
    bench.desire(|state| own_block(state, "10.244.0.0/26"));
    bench.drain_all();
    assert_eq!(bench.fib("10.244.0.0/26"), Some(&blackhole()));
    let (attributes, next_hop) = bench.held(bench.id(R2), "10.244.0.0/26").unwrap().clone();
    assert_eq!(next_hop, NextHop::V4([10, 10, 0, 1].into()));
    assert_eq!(attributes, normal());
    bench.desire(|state| state.v4.statics.clear());
    bench.drain_all();
    assert_eq!(bench.fib("10.244.0.0/26"), None);
    assert_eq!(bench.held(bench.id(R2), "10.244.0.0/26"), None);
}

#[test]
fn a_static_route_over_a_gateway_waits_for_the_gateways_subnet() {
    let mut bench = two();
    bench.desire(|state| {
        state.v4.statics.insert("10.20.0.4/32".parse().unwrap(), StaticRoute::Via([192, 0, 2, 7].into()));
    });
    assert_eq!(bench.fib("10.20.0.4/32"), None);
    bench.link(3, "eth1", &["192.0.2.1/24"]);
    assert_eq!(bench.fib("10.20.0.4/32"), Some(&route(gateway("192.0.2.7", 3), 0)));
    bench.link(3, "eth1", &[]);
    assert_eq!(bench.fib("10.20.0.4/32"), None);
}

#[test]
fn connected_prefixes_of_workload_interfaces_are_no_routes() {
    let mut bench = two();
    bench.link(7, "cali1234", &["169.254.1.1/30"]);
    bench.link(8, "eth1", &["192.0.2.1/24"]);
    assert!(bench.speaker.route(prefix("169.254.1.0/30")).is_none());
    assert!(bench.speaker.route(prefix("192.0.2.0/24")).is_some());
    bench.desire(|state| state.v4.ignored_interfaces.push("eth1".into()));
    assert!(bench.speaker.route(prefix("192.0.2.0/24")).is_none());
    assert!(bench.fib.is_empty(), "connected prefixes are never written");
}

// ---- next hops ----

#[test]
fn a_received_route_is_written_over_its_next_hop_and_removed_when_withdrawn() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    assert_eq!(bench.fib("10.244.1.0/26"), Some(&route(gateway(R2, 2), 1024)));
    bench.withdraw(id, "10.244.1.0/26", 0);
    assert_eq!(bench.fib("10.244.1.0/26"), None);
}

#[test]
fn a_next_hop_outside_the_subnet_goes_over_the_default_gateway_and_follows_it() {
    let mut bench = two();
    bench.announce(bench.id(R2), "10.244.3.128/26", "10.10.1.8", normal());
    bench.announce(bench.id(R2), "10.244.1.0/26", R2, normal());
    assert_eq!(bench.fib("10.244.3.128/26"), Some(&route(gateway("10.10.0.254", 2), 1024)));
    bench.fib_log.clear();
    bench.alien("0.0.0.0/0", Some(gateway("10.10.0.253", 2)), 0);
    assert_eq!(bench.fib("10.244.3.128/26"), Some(&route(gateway("10.10.0.253", 2), 1024)));
    assert_eq!(bench.fib_log.len(), 1, "only what depends on it is written: {:?}", bench.fib_log);
    bench.alien("0.0.0.0/0", None, 0);
    assert_eq!(bench.fib("10.244.3.128/26"), Some(&route(Target::Unreachable, 1024)));
}

#[test]
fn a_next_hop_of_the_nodes_own_subnet_is_never_sent_to_the_default_router() {
    let mut bench = two();
    bench.announce(bench.id(R2), "10.244.1.0/26", R2, normal());
    bench.link(3, "eth1", &["192.0.2.1/24"]);
    bench.alien("0.0.0.0/0", Some(gateway("192.0.2.254", 3)), 0);
    bench.link(2, "eth0", &[]);
    assert_eq!(bench.fib("10.244.1.0/26"), Some(&route(Target::Unreachable, 1024)));
    // A more specific route is somebody's intent.
    bench.alien("10.10.0.0/16", Some(gateway("192.0.2.253", 3)), 0);
    assert_eq!(bench.fib("10.244.1.0/26"), Some(&route(gateway("192.0.2.253", 3), 1024)));
    bench.link(2, "eth0", &["10.10.0.1/24"]);
    assert_eq!(bench.fib("10.244.1.0/26"), Some(&route(gateway(R2, 2), 1024)));
}

#[test]
fn next_hops_that_lead_nowhere_are_unreachable_and_those_to_blackholes_blackholes() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.alien("172.18.51.0/24", Some(Target::Blackhole), 0);
    bench.alien("172.18.52.0/24", Some(Target::Prohibit), 0);
    for (to, next_hop) in [
        ("172.29.1.0/24", "10.10.0.1"),
        ("172.29.2.0/24", "172.18.51.9"),
        ("172.29.3.0/24", "172.18.52.9"),
        ("172.29.4.0/24", "172.29.5.9"),
        ("172.29.5.0/24", R2),
    ] {
        bench.announce(id, to, next_hop, normal());
    }
    assert_eq!(bench.fib("172.29.1.0/24").unwrap().target, Target::Unreachable, "an own address");
    assert_eq!(bench.fib("172.29.2.0/24").unwrap().target, Target::Blackhole);
    assert_eq!(bench.fib("172.29.3.0/24").unwrap().target, Target::Prohibit);
    assert_eq!(bench.fib("172.29.4.0/24").unwrap().target, Target::Unreachable, "through a BGP route");
    bench.withdraw(id, "172.29.5.0/24", 0);
    assert_eq!(bench.fib("172.29.4.0/24").unwrap().target, gateway("10.10.0.254", 2), "no longer so");
}

#[test]
fn a_next_hop_behind_a_workload_interface_or_an_onlink_route_keeps_what_the_kernel_needs() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.link(7, "cali1234", &[]);
    bench.alien("10.244.0.5/32", Some(device(7)), 1024);
    bench.announce(id, "172.29.7.0/24", "10.244.0.5", normal());
    assert_eq!(bench.fib("172.29.7.0/24"), Some(&route(gateway("10.244.0.5", 7), 1024)));
    let onlink = Leg { via: Some(ip("169.254.0.1")), ifindex: 2, onlink: true, weight: 1 };
    bench.alien("192.0.2.0/24", Some(Target::Unicast(smallvec![onlink])), 0);
    bench.announce(id, "172.29.8.0/24", "192.0.2.7", normal());
    assert_eq!(bench.fib("172.29.8.0/24"), Some(&route(Target::Unicast(smallvec![onlink]), 1024)));
}

#[test]
fn an_ipv6_next_hop_with_a_link_local_part_is_reached_over_that_part() {
    let mut bench = Bench::settled(&[peer("fd00:10::2", 64512)]);
    bench.link(2, "eth0", &["10.10.0.1/24", "fd00:10::1/64"]);
    let id = bench.up("fd00:10::2");
    let next_hop =
        NextHop::V6 { global: "fd00:10::2".parse().unwrap(), link_local: Some("fe80::2".parse().unwrap()) };
    let reach = smallvec![Reach { next_hop, nlri: nlri(prefix("fd00:244::/64"), 0) }];
    let update = Update { reach, attributes: normal(), ..Update::default() };
    bench.tell(SpeakerInput::Update { peer: id, update });
    assert_eq!(bench.fib("fd00:244::/64"), Some(&route(gateway("fe80::2", 2), 1024)));
}

// ---- preference and multipath ----

#[test]
fn a_link_local_part_of_zeros_is_none() {
    let mut bench = Bench::settled(&[peer("fd00:10::2", 64512)]);
    bench.link(2, "eth0", &["10.10.0.1/24", "fd00:10::1/64"]);
    let id = bench.up("fd00:10::2");
    let nlri = nlri(prefix("fd00:244:1::/122"), 0);
    let next_hop = NextHop::V6 {
        global: "fd00:10::2".parse().unwrap(),
        link_local: Some(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let update =
        Update { reach: smallvec![Reach { next_hop, nlri }], attributes: normal(), ..Update::default() };
    bench.tell(SpeakerInput::Update { peer: id, update });
    assert_eq!(bench.fib("fd00:244:1::/122"), Some(&route(gateway("fd00:10::2", 2), 1024)));
}

#[test]
fn a_next_hop_that_no_host_has_is_refused_and_neither_written_nor_passed_on() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010), peer("fd00:10::2", 64512)]);
    bench.alien("::/0", Some(gateway("fe80::fe", 2)), 0);
    let (v4, external, v6) = (bench.up(R2), bench.up(E9), bench.up("fd00:10::2"));
    for next_hop in ["0.0.0.0", "224.0.0.5", "255.255.255.255"] {
        bench.announce(v4, "172.29.0.0/24", next_hop, normal());
        bench.drain_all();
        assert_eq!(bench.fib("172.29.0.0/24"), None, "{next_hop}");
        assert_eq!(bench.held(external, "172.29.0.0/24"), None, "{next_hop}");
        let reason = bench.speaker.route(prefix("172.29.0.0/24")).unwrap().paths[0].reason;
        assert_eq!(reason, Some(Reason::Refused(Refused::NextHop)), "{next_hop}");
    }
    for next_hop in ["::", "ff02::1"] {
        bench.announce(v6, "fd00:29::/64", next_hop, normal());
        assert_eq!(bench.fib("fd00:29::/64"), None, "{next_hop}");
    }
    // What a host has somewhere is a candidate as before.
    bench.announce(v4, "172.29.0.0/24", "127.0.0.1", normal());
    bench.drain_all();
    assert!(bench.held(external, "172.29.0.0/24").is_some());
}

#[test]
fn of_the_forms_of_an_ipv6_next_hop_those_with_a_global_address_first_are_used() {
    let global = "fd00:10::2";
    let forms: [(&str, Option<&str>, Option<&str>); 7] = [
        (global, None, Some(global)),
        (global, Some("fe80::2"), Some("fe80::2")),
        (global, Some("::"), Some(global)),
        ("fe80::2", None, None),
        ("fe80::2", Some("fe80::2"), None),
        ("::", Some("fe80::2"), None),
        ("fe80::2", Some(global), None),
    ];
    // What stands in NEXT_HOP beside it is not looked at.
    let beside = [None, Some([0, 0, 0, 0]), Some([10, 10, 0, 77])];
    for ((first, second, via), next_hop) in
        forms.into_iter().flat_map(|form| beside.map(|beside| (form, beside)))
    {
        let mut bench = Bench::settled(&[peer(global, 64512)]);
        bench.link(2, "eth0", &["10.10.0.1/24", "fd00:10::1/64"]);
        bench.alien("::/0", Some(gateway("fe80::fe", 2)), 0);
        let id = bench.up(global);
        let update = ipv6_update(first, second, next_hop);
        let decoded = bgp_proto::wire::decode(&update, &bench.contexts[&id]).unwrap();
        assert_eq!(decoded.faults, [], "{first} {second:?} {next_hop:?}");
        let bgp_proto::wire::Message::Update(update) = decoded.message else { panic!("an UPDATE") };
        bench.tell(SpeakerInput::Update { peer: id, update });
        let expected = via.map(|via| route(gateway(via, 2), 1024));
        assert_eq!(bench.fib("fd00:244::/64"), expected.as_ref(), "{first} {second:?} {next_hop:?}");
        let reason = bench.speaker.route(prefix("fd00:244::/64")).unwrap().paths[0].reason;
        assert_eq!(reason, via.is_none().then_some(Reason::Refused(Refused::NextHop)), "{first} {second:?}");
    }
}

/// An UPDATE of an internal peer for fd00:244::/64, octet by octet: addresses of the IPv6 next hop, and NEXT_HOP.
fn ipv6_update(first: &str, second: Option<&str>, next_hop: Option<[u8; 4]>) -> Vec<u8> {
    let hop: Vec<u8> = [Some(first), second]
        .into_iter()
        .flatten()
        .flat_map(|text| text.parse::<std::net::Ipv6Addr>().unwrap().octets())
        .collect();
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0];
    if let Some(next_hop) = next_hop {
        attributes.extend([0x40, 3, 4]);
        attributes.extend(next_hop);
    }
    attributes.extend([0x40, 5, 4]);
    attributes.extend(normal().local_pref.unwrap().to_be_bytes());
    let reach_len = u8::try_from(2 + 1 + 1 + hop.len() + 1 + 9).unwrap();
    attributes.extend([0x80, 14, reach_len, 0, 2, 1, u8::try_from(hop.len()).unwrap()]);
    attributes.extend(hop);
    attributes.extend([0, 64, 0xfd, 0, 0x02, 0x44, 0, 0, 0, 0]);
    let attributes_len = u16::try_from(attributes.len()).unwrap();
    let mut message = vec![0xff; 16];
    message.extend((19 + 4 + attributes_len).to_be_bytes());
    message.extend([2, 0, 0]);
    message.extend(attributes_len.to_be_bytes());
    message.extend(attributes);
    message
}

#[test]
fn a_next_hop_in_the_subnet_of_an_ignored_interface_resolves_by_whatever_else_there_is() {
    let mut bench = two();
    bench.desire(|state| state.v4.ignored_interfaces.push("net*".into()));
    bench.link(9, "net0", &["198.51.100.1/24"]);
    bench.announce(bench.id(R2), "172.29.0.0/24", "198.51.100.7", normal());
    assert_eq!(bench.fib("172.29.0.0/24"), Some(&route(gateway("10.10.0.254", 2), 1024)));
    bench.announce(bench.id(R2), "172.29.1.0/24", "198.51.100.1", normal());
    assert_eq!(bench.fib("172.29.1.0/24"), Some(&route(Target::Unreachable, 1024)), "our own address");
    bench.desire(|state| drop(state.v4.ignored_interfaces.pop()));
    assert_eq!(bench.fib("172.29.0.0/24"), Some(&route(gateway("198.51.100.7", 9), 1024)));
}

#[test]
fn an_elevated_route_beats_a_foreign_one_and_static_beats_it() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.alien("10.244.1.9/32", Some(device(2)), 1024);
    assert_eq!(bench.fib("10.244.1.9/32"), None, "foreign routes are not written back");
    bench.announce(id, "10.244.1.9/32", R2, attributes(Some(MAX_METRIC - 512), &[]));
    assert_eq!(bench.fib("10.244.1.9/32"), Some(&route(gateway(R2, 2), 512)));
    bench.desire(|state| own_block(state, "10.244.1.9/32"));
    assert_eq!(bench.fib("10.244.1.9/32"), Some(&blackhole()), "static goes before BGP");
}

#[test]
fn equal_routes_share_one_kernel_route_without_duplicates_and_at_most_16_legs() {
    let addresses: Vec<String> = (20..40).map(|n| format!("10.10.0.{n}")).collect();
    let peers: Vec<Peer> = addresses.iter().map(|addr| peer(addr, 64512)).collect();
    let mut bench = Bench::settled(&peers);
    let target = |bench: &Bench| bench.fib("172.28.0.0/24").unwrap().target.clone();
    for addr in &addresses {
        let id = bench.up(addr);
        bench.announce(id, "172.28.0.0/24", addr, normal());
    }
    let first: Vec<(&str, u32)> = addresses.iter().take(16).map(|addr| (addr.as_str(), 2)).collect();
    assert_eq!(target(&bench), unicast(&first));
    for addr in addresses.iter().skip(2) {
        bench.withdraw(bench.id(addr), "172.28.0.0/24", 0);
    }
    assert_eq!(target(&bench), unicast(&[("10.10.0.20", 2), ("10.10.0.21", 2)]));
    // The same next hop twice is one leg, one behind the default router is farther, a longer path is worse.
    bench.announce(bench.id("10.10.0.22"), "172.28.0.0/24", "10.10.0.20", normal());
    bench.announce(bench.id("10.10.0.23"), "172.28.0.0/24", "10.10.7.7", normal());
    bench.announce(
        bench.id("10.10.0.24"),
        "172.28.0.0/24",
        "10.10.0.24",
        attributes(Some(MAX_METRIC - 1024), &[7]),
    );
    assert_eq!(target(&bench), unicast(&[("10.10.0.20", 2), ("10.10.0.21", 2)]));
}

#[test]
fn a_leg_that_the_kernel_program_rejects_is_left_out() {
    let mut bench = two();
    bench.announce(bench.id(R2), "172.28.0.0/24", R2, normal());
    bench.announce(bench.id(R3), "172.28.0.0/24", R3, normal());
    assert_eq!(bench.fib("172.28.0.0/24").unwrap().target, unicast(&[(R2, 2), (R3, 2)]));
    bench.desire(|state| {
        let rule = Rule {
            when: vec![Match::NextHopWithin(prefix(R3))],
            then: Vec::new(),
            decision: Some(Decision::Reject),
            origin: String::new(),
        };
        Arc::make_mut(&mut state.v4.kernel).rules.insert(0, rule);
    });
    assert_eq!(bench.fib("172.28.0.0/24").unwrap().target, unicast(&[(R2, 2)]));
    bench.withdraw(bench.id(R2), "172.28.0.0/24", 0);
    assert_eq!(bench.fib("172.28.0.0/24"), None);
}

// ---- import ----

#[test]
fn paths_that_went_through_us_are_refused_until_the_rules_allow_them() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.announce(id, "172.29.0.0/24", R2, attributes(Some(100), &[64601, 64512]));
    let mut own = attributes(Some(100), &[]);
    own.originator_id = Some(RouterId([10, 10, 0, 1].into()));
    bench.announce(id, "172.29.1.0/24", R2, own);
    bench.announce(id, "127.0.0.0/8", R2, normal());
    assert!(bench.fib.is_empty(), "{:?}", bench.fib);
    let counts = bench.speaker.counts(id, Afi::Ipv4);
    assert_eq!((counts.imported, counts.filtered), (0, 3));
    bench.desire(|state| {
        state.peers.values_mut().for_each(|peer| Arc::make_mut(peer).treatment.allow_own_as = 1)
    });
    assert!(bench.fib("172.29.0.0/24").is_some(), "from what the peer had sent");
    bench.desire(|state| {
        state.peers.values_mut().for_each(|peer| Arc::make_mut(peer).treatment.allow_own_as = 0)
    });
    assert!(bench.fib("172.29.0.0/24").is_none());
}

#[test]
fn a_client_does_not_give_us_what_passed_our_cluster() {
    let cluster = ClusterId([1, 1, 1, 1].into());
    let mut client = peer(R2, 64512);
    client.treatment.rr_client = Some(cluster);
    let mut bench = Bench::settled(&[client, peer(R3, 64512)]);
    bench.up(R2);
    bench.up(R3);
    let mut looped = normal();
    looped.cluster_list = [ClusterId([9, 9, 9, 9].into()), cluster].into();
    bench.announce(bench.id(R2), "172.29.0.0/24", R2, looped.clone());
    bench.announce(bench.id(R3), "172.29.1.0/24", R3, looped);
    assert!(bench.fib("172.29.0.0/24").is_none());
    assert!(bench.fib("172.29.1.0/24").is_some(), "only asked of clients");
}

#[test]
fn what_external_peers_say_about_our_as_is_ignored() {
    let mut bench = Bench::settled(&[peer(E9, 65010), peer(R2, 64512)]);
    let external = bench.up(E9);
    let internal = bench.up(R2);
    let mut said = attributes(Some(MAX_METRIC), &[65010]);
    said.originator_id = Some(RouterId([10, 10, 0, 1].into()));
    bench.announce(external, "172.29.0.0/24", E9, said);
    bench.drain_all();
    assert_eq!(bench.fib("172.29.0.0/24").unwrap().metric, MAX_METRIC - 100);
    let (attributes, _) = bench.held(internal, "172.29.0.0/24").unwrap();
    assert_eq!((attributes.local_pref, attributes.originator_id), (Some(100), None));
}

#[test]
fn import_by_interface_follows_the_next_hop() {
    let mut picky = peer(R2, 64512);
    let rule = Rule {
        when: vec![Match::Interface("eth1".into())],
        then: Vec::new(),
        decision: Some(Decision::Reject),
        origin: String::new(),
    };
    picky.treatment.import = Arc::new(Program { rules: vec![rule], default: Decision::Accept });
    let mut bench = Bench::settled(&[picky]);
    let id = bench.up(R2);
    bench.announce(id, "172.29.0.0/24", "192.0.2.7", normal());
    assert!(bench.fib("172.29.0.0/24").is_some(), "over the default route");
    bench.link(3, "eth1", &["192.0.2.1/24"]);
    assert_eq!(bench.fib("172.29.0.0/24"), None);
    bench.link(3, "eth1", &[]);
    assert!(bench.fib("172.29.0.0/24").is_some());
    // The route that its own next hop is inside moves in a circle and comes to rest.
    bench.announce(id, "192.0.2.0/25", "192.0.2.7", normal());
    bench.link(3, "eth1", &["192.0.2.1/24"]);
}

// ---- export ----

#[test]
fn internal_routes_go_to_external_peers_only() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(R3, 64512), peer(E9, 65010)]);
    let (from, internal, external) = (bench.up(R2), bench.up(R3), bench.up(E9));
    let mut attributes = normal();
    attributes.med = Some(50);
    attributes.communities = [0xfde8_0064].into();
    bench.announce(from, "10.244.1.0/26", R2, attributes);
    bench.drain_all();
    assert_eq!(bench.held(internal, "10.244.1.0/26"), None);
    assert!(bench.neighbours[&internal].log.iter().all(|line| line.starts_with("EndOfRib")));
    assert_eq!(bench.held(from, "10.244.1.0/26"), None, "nor back");
    let (attributes, next_hop) = bench.held(external, "10.244.1.0/26").unwrap();
    assert_eq!(*next_hop, NextHop::V4([10, 10, 0, 1].into()));
    assert_eq!((attributes.local_pref, attributes.med), (None, Some(0)));
    assert_eq!(attributes.as_path, super::attributes(None, &[64512]).as_path);
    assert_eq!(attributes.communities, [0xfde8_0064]);
}

#[test]
fn well_known_communities_keep_routes_inside() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010), peer("10.10.0.10", 65011)]);
    let (internal, from, external) = (bench.up(R2), bench.up(E9), bench.up("10.10.0.10"));
    for (to, community) in [
        ("172.29.1.0/24", 0xffff_ff01),
        ("172.29.2.0/24", 0xffff_ff02),
        ("172.29.3.0/24", 0xffff_ff03),
        ("172.29.4.0/24", 0xffff_ff04),
    ] {
        let mut attributes = attributes(None, &[65010]);
        attributes.communities = [community].into();
        bench.announce(from, to, E9, attributes);
    }
    bench.drain_all();
    let holds = |id| -> Vec<String> {
        bench.neighbours[&id].held.keys().map(|(prefix, _)| prefix.to_string()).collect()
    };
    assert_eq!(holds(internal), ["172.29.1.0/24", "172.29.3.0/24", "172.29.4.0/24"]);
    assert_eq!(holds(external), ["172.29.4.0/24"]);
}

#[test]
fn a_reflector_names_the_originator_and_every_cluster_passed() {
    let (red, blue) = (ClusterId([1, 1, 1, 1].into()), ClusterId([2, 2, 2, 2].into()));
    let client = |addr, cluster| {
        let mut peer = peer(addr, 64512);
        peer.treatment.rr_client = Some(cluster);
        peer
    };
    let mut bench = Bench::settled(&[
        client(R2, red),
        client(R3, red),
        client("10.10.0.4", blue),
        peer("10.10.0.5", 64512),
        peer("10.10.0.6", 64512),
    ]);
    let ids: Vec<PeerId> =
        [R2, R3, "10.10.0.4", "10.10.0.5", "10.10.0.6"].into_iter().map(|addr| bench.up(addr)).collect();
    bench.announce(ids[0], "10.244.2.0/26", R2, normal());
    bench.announce(ids[3], "10.244.5.0/26", "10.10.0.5", normal());
    bench.drain_all();
    let seen = |id, of| {
        let (attributes, next_hop) = bench.held(id, of)?;
        assert_eq!(attributes.local_pref, Some(MAX_METRIC - 1024));
        Some((
            attributes.originator_id.unwrap().to_string(),
            attributes.cluster_list.clone(),
            next_hop.addr(),
        ))
    };
    let from_client = |clusters| Some((R2.to_owned(), clusters, ip(R2)));
    assert_eq!(seen(ids[1], "10.244.2.0/26"), from_client([red].into()));
    assert_eq!(seen(ids[2], "10.244.2.0/26"), from_client([blue, red].into()));
    assert_eq!(seen(ids[3], "10.244.2.0/26"), from_client([red].into()));
    assert_eq!(seen(ids[1], "10.244.5.0/26"), Some(("10.10.0.5".into(), [red].into(), ip("10.10.0.5"))));
    assert_eq!(seen(ids[4], "10.244.5.0/26"), None, "neither is a client");
    assert_eq!(seen(ids[0], "10.244.2.0/26"), None, "not back");
}

#[test]
fn a_learned_route_is_announced_with_its_gateway_inside_and_our_address_outside() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010)]);
    let (internal, external) = (bench.up(R2), bench.up(E9));
    bench.alien("10.244.100.0/26", Some(gateway("10.10.0.50", 2)), 100);
    bench.drain_all();
    let (attributes, next_hop) = bench.held(internal, "10.244.100.0/26").unwrap();
    assert_eq!(next_hop.addr(), ip("10.10.0.50"));
    assert_eq!(attributes.local_pref, Some(MAX_METRIC - 100));
    let (_, next_hop) = bench.held(external, "10.244.100.0/26").unwrap();
    assert_eq!(next_hop.addr(), ip("10.10.0.1"));
}

#[test]
fn a_learned_route_over_a_gateway_of_the_other_family_is_announced_with_our_address() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010)]);
    let (internal, external) = (bench.up(R2), bench.up(E9));
    bench.alien("10.244.100.0/26", Some(gateway("fd00:10::50", 2)), 100);
    bench.drain_all();
    for id in [internal, external] {
        let next_hop = bench.held(id, "10.244.100.0/26").map(|(_, next_hop)| next_hop.addr());
        assert_eq!(next_hop, Some(ip("10.10.0.1")));
    }
}

#[test]
fn nobody_is_told_to_forward_to_itself_and_a_route_that_comes_to_that_is_withdrawn() {
    let mut bench = two();
    bench.alien("10.244.100.0/26", Some(gateway("10.10.0.50", 2)), 100);
    bench.drain_all();
    assert!(bench.held(bench.id(R2), "10.244.100.0/26").is_some());
    bench.alien("10.244.100.0/26", Some(gateway(R2, 2)), 100);
    bench.drain_all();
    assert_eq!(bench.held(bench.id(R2), "10.244.100.0/26"), None);
    assert!(bench.held(bench.id(R3), "10.244.100.0/26").is_some());
}

#[test]
fn next_hop_rules_take_effect_without_a_new_session() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010)]);
    let (internal, external) = (bench.up(R2), bench.up(E9));
    bench.announce(external, "172.29.0.0/24", "10.10.0.77", attributes(None, &[65010]));
    bench.drain_all();
    assert_eq!(bench.held(internal, "172.29.0.0/24").unwrap().1.addr(), ip("10.10.0.77"));
    let set = |rule| {
        move |state: &mut DesiredState| {
            Arc::make_mut(state.peers.get_mut(&key(R2)).unwrap()).treatment.next_hop = rule;
        }
    };
    bench.neighbours.get_mut(&internal).unwrap().log.clear();
    bench.desire(set(NextHopRule::SelfAddress));
    bench.drain_all();
    assert_eq!(bench.held(internal, "172.29.0.0/24").unwrap().1.addr(), ip("10.10.0.1"));
    assert_eq!(bench.neighbours[&internal].log, ["announce 172.29.0.0/24"], "no withdrawal between");
}

#[test]
fn with_path_ids_every_route_is_sent_and_without_only_the_best() {
    let cluster = Some(ClusterId([1, 1, 1, 1].into()));
    let mut clients = [peer(R2, 64512), peer(R3, 64512), peer("10.10.0.4", 64512)];
    clients.iter_mut().for_each(|peer| peer.treatment.rr_client = cluster);
    let mut bench = Bench::settled(&clients);
    let first = bench.up(R2);
    let second = bench.up_with_add_path(R3);
    let third = bench.up_with_add_path("10.10.0.4");
    bench.announce(first, "172.28.0.0/24", R2, normal());
    bench.announce_path(second, "172.28.0.0/24", 7, R3, normal());
    bench.announce_path(second, "172.28.0.0/24", 8, "10.10.0.33", normal());
    bench.drain_all();
    let ids = |bench: &Bench, id| -> Vec<u32> {
        bench.neighbours[&id].held.keys().map(|(_, path_id)| *path_id).collect()
    };
    assert_eq!(ids(&bench, third), [1, 2, 3]);
    assert_eq!(ids(&bench, second), [1], "not what came from it");
    assert_eq!(ids(&bench, first), [0_u32; 0], "the best came from it, and the second best is not tried");
    let before = bench.neighbours[&third].held.clone();
    bench.withdraw(second, "172.28.0.0/24", 7);
    bench.drain_all();
    assert_eq!(ids(&bench, third), [1, 3]);
    assert!(bench.neighbours[&third].held.iter().all(|(key, route)| before[key] == *route), "ids are stable");
    bench.withdraw(first, "172.28.0.0/24", 0);
    bench.drain_all();
    assert_eq!(ids(&bench, first), [0]);
}

#[test]
fn routes_with_equal_attributes_share_an_update_and_what_changes_twice_is_sent_once() {
    let mut bench = two();
    let id = bench.id(R2);
    for n in 0..4 {
        bench.desire(|state| own_block(state, &format!("10.244.{n}.0/26")));
    }
    bench.desire(|state| {
        state.v4.statics.remove(&"10.244.3.0/26".parse().unwrap());
    });
    bench.neighbours.get_mut(&id).unwrap().log.clear();
    bench.drain(id);
    assert_eq!(bench.neighbours[&id].log, ["announce 10.244.0.0/26 10.244.1.0/26 10.244.2.0/26"]);
}

#[test]
fn a_read_takes_about_its_budget_and_at_least_one_message() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.desire(|state| {
        for n in 0..1000 {
            own_block(state, &format!("10.{}.{}.0/26", n / 256, n % 256));
        }
    });
    assert!(bench.read(id, 1), "at least one");
    let first = bench.neighbours[&id].held.len();
    assert!((1..10).contains(&first), "{first}");
    bench.read(id, 1000);
    let second = bench.neighbours[&id].held.len() - first;
    assert!((50..300).contains(&second), "{second}");
    bench.drain(id);
    assert_eq!(bench.neighbours[&id].held.len(), 1000);
}

#[test]
fn attributes_that_fill_a_message_are_not_sent_and_what_was_there_is_withdrawn() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010)]);
    let (internal, external) = (bench.up(R2), bench.up(E9));
    let said = |n: u32| Attributes { communities: (0..n).collect(), ..attributes(None, &[65010]) };
    bench.announce(external, "172.29.0.0/24", E9, said(10));
    bench.drain_all();
    assert!(bench.held(internal, "172.29.0.0/24").is_some());
    // One message in, but none out: LOCAL_PREF is added.
    bench.announce(external, "172.29.0.0/24", E9, said(1020));
    bench.announce(external, "172.29.1.0/24", E9, said(1020));
    bench.drain_all();
    assert_eq!(bench.held(internal, "172.29.0.0/24"), None);
    assert_eq!(bench.held(internal, "172.29.1.0/24"), None);
    bench.announce(external, "172.29.0.0/24", E9, said(10));
    bench.drain_all();
    assert!(bench.held(internal, "172.29.0.0/24").is_some());
}

// ---- sessions ----

#[test]
fn the_feed_ends_with_end_of_rib_and_a_refresh_is_marked_where_agreed() {
    let mut bench = Bench::settled(&[peer(R2, 64512)]);
    bench.desire(|state| own_block(state, "10.244.0.0/26"));
    let id = bench.id(R2);
    bench.up_with(id, |negotiated| negotiated.enhanced_refresh = true);
    // Too early: it waits for the first feed.
    bench.tell(SpeakerInput::RefreshRequested(id, Afi::Ipv4));
    bench.drain(id);
    let full = ["announce 10.244.0.0/26", "EndOfRib ipv4", "Begin", "announce 10.244.0.0/26", "End"];
    assert_eq!(bench.neighbours[&id].log, full);
    bench.up(R2);
    bench.drain(id);
    bench.tell(SpeakerInput::RefreshRequested(id, Afi::Ipv4));
    bench.drain(id);
    assert_eq!(
        bench.neighbours[&id].log,
        ["announce 10.244.0.0/26", "EndOfRib ipv4", "announce 10.244.0.0/26"]
    );
}

#[test]
fn end_of_rib_waits_for_the_kernels_first_word_but_routes_do_not() {
    let mut state = state();
    own_block(&mut state, "10.244.0.0/26");
    state.peers.insert(key(R2), Arc::new(peer(R2, 64512)));
    let mut bench = Bench::new(state);
    let id = bench.up(R2);
    bench.drain(id);
    assert_eq!(bench.neighbours[&id].log, ["announce 10.244.0.0/26"]);
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    bench.drain(id);
    assert_eq!(bench.neighbours[&id].log, ["announce 10.244.0.0/26", "EndOfRib ipv4"]);
}

#[test]
fn a_lost_sessions_routes_stay_until_they_are_swept() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010)]);
    let (id, external) = (bench.up(R2), bench.up(E9));
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.announce(id, "10.244.2.0/26", R2, normal());
    bench.drain_all();
    bench.fib_log.clear();
    bench.neighbours.get_mut(&external).unwrap().log.clear();
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv4)));
    assert_eq!(bench.speaker.counts(id, Afi::Ipv4).stale, 2);
    bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.drain_all();
    assert_eq!(bench.fib_log, [], "nothing moved");
    assert_eq!(bench.neighbours[&external].log, [""; 0]);
    bench.tell(SpeakerInput::SweepStale(id, Afi::Ipv4));
    bench.drain_all();
    assert!(bench.fib("10.244.1.0/26").is_some());
    assert_eq!(bench.fib("10.244.2.0/26"), None);
    assert_eq!(bench.neighbours[&external].log, ["withdraw 10.244.2.0/26"]);
    bench.tell(SpeakerInput::PeerDown(id));
    assert_eq!(bench.fib("10.244.1.0/26"), None);
}

#[test]
fn what_a_first_restart_left_stale_goes_with_the_second() {
    let mut bench = Bench::settled(&[peer(R2, 64512)]);
    let id = bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.announce(id, "10.244.2.0/26", R2, normal());
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv4)));
    bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.tell(SpeakerInput::SweepStale(id, Afi::Ipv4));
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv4)));
    assert!(bench.fib("10.244.1.0/26").is_some());
    assert_eq!(bench.fib("10.244.2.0/26"), None);
}

#[test]
fn a_session_that_drops_during_a_refresh_of_the_peers_routes_keeps_them() {
    let mut bench = Bench::settled(&[peer(R2, 64512)]);
    let id = bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.tell(SpeakerInput::MarkStale(id, Afi::Ipv4));
    bench.fib_log.clear();
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv4)));
    assert_eq!(bench.fib_log, [], "BoRR is no earlier restart");
    assert!(bench.fib("10.244.1.0/26").is_some());
}

/// A peer that knows LLGR_STALE.
fn up_aware(bench: &mut Bench, addr: &str) -> PeerId {
    let id = bench.id(addr);
    bench.up_with(id, |negotiated| {
        let families = Vec::new();
        negotiated.peer_open.capabilities = vec![
            Capability::GracefulRestart { restarting: false, notification: false, time: 120, families },
            Capability::LongLivedGr(Vec::new()),
        ];
    });
    id
}

fn with_communities(communities: &[u32]) -> Attributes {
    Attributes { communities: communities.into(), ..normal() }
}

#[test]
fn long_lived_stale_routes_are_marked_for_those_who_know_and_withdrawn_from_the_others() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(E9, 65010), peer(E8, 65011)]);
    let (id, aware, plain) = (bench.up(R2), up_aware(&mut bench, E9), bench.up(E8));
    bench.announce(id, "10.244.1.0/26", R2, with_communities(&[7]));
    bench.announce(id, "10.244.2.0/26", R2, with_communities(&[NO_LLGR]));
    bench.drain_all();
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv4)));
    assert!(!bench.neighbours[&plain].ready, "nobody hears of stale routes");
    bench.tell(SpeakerInput::LongLivedStale(id, AfiSet::only(Afi::Ipv4)));
    bench.drain(aware);
    bench.drain(plain);
    assert_eq!(bench.held(aware, "10.244.1.0/26").unwrap().0.communities, [7, LLGR_STALE]);
    assert_eq!(bench.held(plain, "10.244.1.0/26"), None);
    assert!(bench.fib("10.244.1.0/26").is_some(), "it forwards on");
    assert_eq!((bench.held(aware, "10.244.2.0/26"), bench.fib("10.244.2.0/26")), (None, None), "NO_LLGR");
    // The peer is back and sends the route again: it is as good as before.
    bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, with_communities(&[7]));
    bench.tell(SpeakerInput::SweepStale(id, Afi::Ipv4));
    bench.drain_all();
    assert_eq!(bench.held(aware, "10.244.1.0/26").unwrap().0.communities, [7]);
    assert!(bench.held(plain, "10.244.1.0/26").is_some());
}

#[test]
fn long_lived_stale_routes_go_when_swept_while_their_peer_is_away() {
    let mut bench = Bench::settled(&[peer(R2, 64512)]);
    let id = bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv4)));
    bench.tell(SpeakerInput::LongLivedStale(id, AfiSet::only(Afi::Ipv4)));
    assert!(bench.fib("10.244.1.0/26").is_some());
    bench.tell(SpeakerInput::SweepStale(id, Afi::Ipv4));
    assert_eq!(bench.fib("10.244.1.0/26"), None);
}

#[test]
fn a_route_that_came_long_lived_stale_loses_and_goes_only_to_those_who_know() {
    let mut bench = Bench::settled(&[peer(R2, 64512), peer(R3, 64512), peer(E9, 65010), peer(E8, 65011)]);
    let (worse, better) = (bench.up(R2), bench.up(R3));
    let (aware, plain) = (up_aware(&mut bench, E9), bench.up(E8));
    bench.announce(worse, "10.244.1.0/26", R2, with_communities(&[LLGR_STALE]));
    bench.drain_all();
    assert_eq!(bench.held(aware, "10.244.1.0/26").unwrap().0.communities, [LLGR_STALE]);
    assert_eq!(bench.held(plain, "10.244.1.0/26"), None);
    bench.announce(better, "10.244.1.0/26", R3, attributes(Some(1), &[65020, 65021]));
    bench.drain_all();
    assert_eq!(bench.fib("10.244.1.0/26").unwrap().target, gateway(R3, 2));
    assert!(bench.held(plain, "10.244.1.0/26").is_some());
    assert_eq!(bench.held(aware, "10.244.1.0/26").unwrap().0.communities, [0; 0]);
}

#[test]
fn an_ipv6_next_hop_of_ipv4_prefixes_goes_only_to_those_who_agreed() {
    let mut bench = Bench::settled(&[peer(E9, 65010), peer(R2, 64512), peer(R3, 64512)]);
    let (from, plain) = (bench.up(E9), bench.up(R2));
    let extended = bench.id(R3);
    bench.up_with(extended, |negotiated| negotiated.context.extended_next_hop = true);
    bench.announce(from, "172.29.0.0/24", "fd00:10::9", attributes(None, &[65010]));
    bench.drain_all();
    assert_eq!(bench.held(plain, "172.29.0.0/24"), None);
    assert!(bench.held(extended, "172.29.0.0/24").is_some());
    assert_eq!(bench.fib("172.29.0.0/24").unwrap().target, Target::Unreachable);
}

#[test]
fn stale_routes_of_other_families_than_those_kept_go_at_once() {
    let mut bench = Bench::settled(&[peer(R2, 64512)]);
    let id = bench.up(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.tell(SpeakerInput::Stale(id, AfiSet::only(Afi::Ipv6)));
    assert_eq!(bench.fib("10.244.1.0/26"), None);
}

#[test]
fn a_refresh_from_the_peer_marks_and_sweeps_without_losing_the_session() {
    let mut bench = two();
    let id = bench.id(R2);
    bench.announce(id, "10.244.1.0/26", R2, normal());
    bench.announce(id, "10.244.2.0/26", R2, normal());
    bench.tell(SpeakerInput::MarkStale(id, Afi::Ipv4));
    bench.announce(id, "10.244.2.0/26", R2, normal());
    bench.tell(SpeakerInput::SweepStale(id, Afi::Ipv4));
    assert_eq!(bench.fib("10.244.1.0/26"), None);
    assert!(bench.fib("10.244.2.0/26").is_some());
}

#[test]
fn a_removed_peer_takes_its_routes_and_late_events_of_it_reach_nobody() {
    let mut bench = two();
    let old = bench.id(R2);
    bench.announce(old, "10.244.1.0/26", R2, normal());
    bench.desire(|state| {
        state.peers.remove(&key(R2));
    });
    assert_eq!(bench.fib("10.244.1.0/26"), None);
    bench.now = bench.now + Millis(1);
    bench.desire(|state| {
        let peer = peer("10.10.0.7", 64512);
        state.peers.insert(peer.key.clone(), Arc::new(peer));
    });
    let new = bench.up("10.10.0.7");
    assert_eq!(new.slot, old.slot);
    bench.announce(new, "10.244.7.0/26", "10.10.0.7", normal());
    bench.tell(SpeakerInput::PeerDown(old));
    bench.tell(SpeakerInput::SweepStale(old, Afi::Ipv4));
    let update = Update { withdrawn: smallvec![nlri(prefix("10.244.7.0/26"), 0)], ..Update::default() };
    bench.tell(SpeakerInput::Update { peer: old, update });
    assert!(bench.fib("10.244.7.0/26").is_some());
}

#[test]
fn nobody_is_woken_for_routes_that_never_go_to_it() {
    let mut bench = two();
    bench.announce(bench.id(R2), "10.244.1.0/26", R2, normal());
    assert!(!bench.neighbours[&bench.id(R3)].ready);
}

#[test]
fn peers_with_equal_rules_are_one_group_in_which_routes_of_the_mesh_have_no_entry() {
    let peers: Vec<Peer> = (2..12).map(|n| peer(&format!("10.10.0.{n}"), 64512)).collect();
    let mut bench = Bench::settled(&peers);
    for n in 2..12 {
        bench.up(&format!("10.10.0.{n}"));
    }
    bench.announce(bench.id(R2), "10.244.1.0/26", R2, normal());
    let out = &bench.speaker.v4.out;
    assert_eq!((out.groups(), out.routes()), (1, 0));
    bench.desire(|state| own_block(state, "10.244.0.0/26"));
    let out = &bench.speaker.v4.out;
    assert_eq!((out.groups(), out.routes()), (1, 1));
}

#[test]
fn a_question_of_a_lost_session_is_not_answered() {
    let mut bench = two();
    bench.desire(|state| own_block(state, "10.244.0.0/26"));
    let id = bench.id(R2);
    let lost = bench.incarnations[&id];
    bench.up(R2);
    let mut out = Vec::new();
    let want = SpeakerInput::Want { peer: id, incarnation: lost, budget: 4096 };
    bench.speaker.handle(bench.now, want, &mut out);
    assert!(out.is_empty(), "{out:?}");
    bench.drain(id);
    assert_eq!(bench.neighbours[&id].log, ["announce 10.244.0.0/26", "EndOfRib ipv4"]);
}

#[test]
fn changed_programs_move_only_what_they_mean() {
    let mut bench = two();
    bench.desire(|state| {
        own_block(state, "10.244.0.0/26");
        own_block(state, "10.244.1.0/26");
    });
    bench.drain_all();
    let id = bench.id(R2);
    let reject = |text: &str| {
        let rule = Rule {
            when: vec![Match::Equals(prefix(text))],
            then: Vec::new(),
            decision: Some(Decision::Reject),
            origin: String::new(),
        };
        let mut program = (*normalise()).clone();
        program.rules.push(rule);
        Arc::new(program)
    };
    bench.neighbours.get_mut(&id).unwrap().log.clear();
    bench.fib_log.clear();
    bench.desire(|state| {
        state.v4.kernel = reject("10.244.1.0/26");
        let peer = Arc::make_mut(state.peers.get_mut(&key(R2)).unwrap());
        peer.treatment.export = reject("10.244.0.0/26");
    });
    bench.drain_all();
    assert_eq!(bench.neighbours[&id].log, ["withdraw 10.244.0.0/26"]);
    // The metric of the other one changed with the program.
    let told: Vec<String> = bench.fib_log.iter().map(|change| change.prefix.to_string()).collect();
    assert_eq!(told, ["10.244.0.0/26", "10.244.1.0/26"]);
    assert_eq!(bench.fib("10.244.1.0/26"), None);
}
