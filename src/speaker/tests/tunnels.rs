//! Routes through tunnel devices (KRT-30 to KRT-34, KERN-13; BDEF-4, BDEF-10).

use super::rules::{R2, R3, route, two};
use super::*;

/// What the kernel program says of an IPIP pool 10.244.0.0/16 whose routes are ours (KERN-11).
fn ipip(bench: &mut Bench, near: Option<&str>, required: bool) {
    let rule = |when, then| Rule { when, then, decision: Some(Decision::Accept), origin: String::new() };
    let pool = Match::Within(prefix("10.244.0.0/16"));
    let near = near.map(|near| rule(vec![pool.clone(), Match::NextHopWithin(prefix(near))], Vec::new()));
    let through = Action::Through(Device { name: "tunl0", required });
    bench.desire(|state| {
        let mut program = (*kernel_program()).clone();
        program.rules.extend(near);
        program.rules.push(rule(vec![pool], vec![through]));
        state.v4.kernel = Arc::new(program);
    });
}

fn through_tunnel(ends: &[&str], ifindex: u32) -> Target {
    let leg = |end: &&str| Leg { via: Some(ip(end)), ifindex, onlink: true, weight: 1 };
    Target::Unicast(ends.iter().map(leg).collect())
}

#[test]
fn routes_of_an_ipip_pool_go_through_the_tunnel_to_the_received_next_hop() {
    let mut bench = two();
    bench.link(8, "tunl0", &["10.244.0.1/32"]);
    bench.alien("0.0.0.0/0", Some(gateway("10.10.0.254", 2)), 0);
    ipip(&mut bench, None, true);
    bench.announce(bench.id(R2), "10.244.2.0/26", R2, normal());
    // Not the router on the way there, but the node itself is the other end.
    bench.announce(bench.id(R2), "10.244.9.0/26", "192.0.2.9", normal());
    bench.announce(bench.id(R2), "172.28.0.0/24", R2, normal());
    bench.desire(|state| own_block(state, "10.244.0.0/26"));
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&[R2], 8), 1024)));
    assert_eq!(bench.fib("10.244.9.0/26"), Some(&route(through_tunnel(&["192.0.2.9"], 8), 1024)));
    assert_eq!(bench.fib("172.28.0.0/24"), Some(&route(gateway(R2, 2), 1024)), "outside the pool");
    assert_eq!(bench.fib("10.244.0.0/26"), Some(&blackhole()));
    // An own address leads nowhere, tunnel or not.
    bench.announce(bench.id(R2), "10.244.2.0/26", "10.10.0.1", normal());
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(Target::Unreachable, 1024)));
}

#[test]
fn each_leg_of_an_ecmp_route_goes_its_own_way_through_the_tunnel_or_beside_it() {
    let mut bench = two();
    bench.link(8, "tunl0", &["10.244.0.1/32"]);
    bench.announce(bench.id(R2), "10.244.2.0/26", R2, normal());
    bench.announce(bench.id(R3), "10.244.2.0/26", R3, normal());
    ipip(&mut bench, None, true);
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&[R2, R3], 8), 1024)));
    ipip(&mut bench, Some(&format!("{R2}/32")), true);
    let mut mixed = Target::Unicast(
        [gateway(R2, 2), through_tunnel(&[R3], 8)].iter().flat_map(|target| target.legs().to_vec()).collect(),
    );
    mixed.normalize();
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(mixed, 1024)));
    // Without its tunnel one leg remains.
    bench.tell(SpeakerInput::Kernel(KernelEvent::LinkGone(8)));
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(gateway(R2, 2), 1024)));
}

#[test]
fn next_hops_behind_one_router_are_one_leg_of_a_tunnel_route_that_of_the_better_path() {
    let mut bench = two();
    bench.link(8, "tunl0", &["10.244.0.1/32"]);
    bench.alien("0.0.0.0/0", Some(gateway("10.10.0.254", 2)), 0);
    for (from, next_hop) in [(R2, "192.0.2.2"), (R3, "192.0.2.3")] {
        bench.announce(bench.id(from), "10.244.2.0/26", next_hop, normal());
    }
    ipip(&mut bench, None, true);
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&["192.0.2.2"], 8), 1024)));
}

#[test]
fn a_route_whose_tunnel_is_missing_waits_and_follows_the_device_by_its_name() {
    let mut bench = two();
    let block = prefix("10.244.2.0/26");
    bench.announce(bench.id(R2), "10.244.2.0/26", R2, normal());
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(gateway(R2, 2), 1024)));
    ipip(&mut bench, None, true);
    let waits = Wish::Waits { device: "tunl0" };
    assert_eq!(bench.wishes[&block], waits);
    let link = |index, name: &str, up| KernelEvent::Link(Link { index, name: name.into(), up });
    bench.tell(SpeakerInput::Kernel(link(8, "tunl0", false)));
    assert_eq!(bench.wishes[&block], waits, "it is down");
    bench.tell(SpeakerInput::Kernel(link(8, "tunl0", true)));
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&[R2], 8), 1024)));
    bench.tell(SpeakerInput::Kernel(link(8, "tunl-old", true)));
    assert_eq!(bench.wishes[&block], waits, "it has another name");
    bench.tell(SpeakerInput::Kernel(link(9, "tunl0", true)));
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&[R2], 9), 1024)));
    bench.tell(SpeakerInput::Kernel(KernelEvent::LinkGone(8)));
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&[R2], 9), 1024)));
    bench.tell(SpeakerInput::Kernel(KernelEvent::LinkGone(9)));
    assert_eq!(bench.wishes[&block], waits);
    bench.withdraw(bench.id(R2), "10.244.2.0/26", 0);
    assert_eq!(bench.wishes[&block], Wish::Nothing);
}

#[test]
fn where_it_is_set_so_routes_go_without_a_missing_tunnel_as_birds_do() {
    let mut bench = two();
    ipip(&mut bench, None, false);
    bench.announce(bench.id(R2), "10.244.2.0/26", R2, normal());
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(gateway(R2, 2), 1024)));
    bench.link(8, "tunl0", &[]);
    assert_eq!(bench.fib("10.244.2.0/26"), Some(&route(through_tunnel(&[R2], 8), 1024)));
}
