//! What is written to the kernel, as a program for each family.
//!
//! Owns: KERN-2, KERN-3, KERN-10 to KERN-15, KERN-20 and REL-3, REL-12.
//! Never: runs it; that is the speaker's, for each best path.

use bgp_proto::{Afi, IpPrefix, Prefix};

use super::identity::Fields;
use super::inputs::Inputs;
use super::programs::{FROM_BGP, change, decide, pools};
use crate::fib::TUNNEL;
use crate::model::{EncapMode, IpPool};
use crate::policy::prefix_set::PrefixSet;
use crate::policy::program::{Action, Decision, Device, Match, Program, Rule};
use crate::policy::sets::SetId;

/// How packets between nodes travel in a pool (KERN-10).
enum Encapsulation {
    Vxlan,
    Ipip(EncapMode),
    None,
}

impl Encapsulation {
    /// VXLAN takes precedence where a pool has both.
    fn of(pool: &IpPool) -> Encapsulation {
        match (pool.vxlan, pool.ipip) {
            (EncapMode::Always | EncapMode::CrossSubnet, _) => Encapsulation::Vxlan,
            (EncapMode::Never, EncapMode::Never) => Encapsulation::None,
            (EncapMode::Never, mode) => Encapsulation::Ipip(mode),
        }
    }
}

/// The kernel program of a family.
pub(super) fn program<F: Fields>(inputs: &Inputs<'_>) -> Program {
    let range = "routes inside stay out of the kernel";
    let mut rules = vec![decide(vec![Match::InSet(SetId::ServiceRejects)], Decision::Reject, range)];
    if inputs.release.release.has_priorities() {
        rules.push(change(vec![FROM_BGP], Action::MetricFromLocalPref, "LOCAL_PREF as route priority"));
    }
    rules.extend(wireguard::<F>(inputs));
    let local = F::address(inputs.local);
    // KERN-14: without a subnet of its own the node has no IPv4 pool rules at all.
    if F::AFI == Afi::Ipv6 || local.is_some() {
        let subnet = local.map(|address| IpPrefix::from(address.subnet));
        for pool in pools::<F>(inputs) {
            rules.extend(pool_rules(inputs, pool, subnet));
        }
    }
    Program { rules, default: Decision::Accept }
}

/// KERN-20: routes to nodes that are reached over WireGuard are Felix's.
fn wireguard<F: Fields>(inputs: &Inputs<'_>) -> Option<Rule> {
    let reached = vec![FROM_BGP, Match::NextHopInSet(SetId::WireguardNextHops)];
    leaves_to_wireguard::<F>(inputs).then(|| decide(reached, Decision::Reject, "is reached over WireGuard"))
}

fn leaves_to_wireguard<F: Fields>(inputs: &Inputs<'_>) -> bool {
    inputs.release.release.leaves_wireguard_to_felix() && F::wireguard(inputs.local).is_some()
}

/// The nodes that KERN-20 means, by address.
pub(super) fn wireguard_next_hops<F: Fields>(inputs: &Inputs<'_>) -> PrefixSet {
    let on = leaves_to_wireguard::<F>(inputs);
    let others = inputs.snapshot.nodes.values().filter(|node| on && node.name != inputs.local.name);
    others
        .filter(|node| F::wireguard(node).is_some())
        .filter_map(|node| {
            Some((Prefix::<F>::host(F::address(node)?.addr), format!("Node/{}", node.name).into()))
        })
        .collect()
}

/// KERN-11 to KERN-13 for one pool.
fn pool_rules(inputs: &Inputs<'_>, pool: &IpPool, subnet: Option<IpPrefix>) -> Vec<Rule> {
    let within = Match::Within(pool.cidr);
    let rule = |when, decision, why: &str| decide(when, decision, format!("IPPool/{}: {why}", pool.name));
    let whole = |decision, why| vec![rule(vec![within.clone()], decision, why)];
    match Encapsulation::of(pool) {
        Encapsulation::Vxlan => whole(Decision::Reject, "routes of VXLAN pools are Felix's"),
        Encapsulation::Ipip(_) if !inputs.cluster_routes.ipip => {
            whole(Decision::Reject, "routes of IPIP pools are Felix's")
        }
        Encapsulation::None if !inputs.cluster_routes.unencapsulated => {
            whole(Decision::Reject, "routes of un-encapsulated pools are Felix's")
        }
        Encapsulation::None => whole(Decision::Accept, "routes of un-encapsulated pools are ours"),
        Encapsulation::Ipip(_) if pool.cidr.afi() == Afi::Ipv6 => {
            whole(Decision::Accept, "routes of IPIP pools are ours, and IPv6 has no tunnel")
        }
        Encapsulation::Ipip(mode) => {
            let mut rules = Vec::new();
            if let (EncapMode::CrossSubnet, Some(subnet)) = (mode, subnet) {
                let near = vec![within.clone(), FROM_BGP, Match::NextHopWithin(subnet)];
                rules.push(rule(near, Decision::Accept, "next hops in the node's subnet need no tunnel"));
            }
            let device = Device { name: TUNNEL, required: !inputs.facts.bare_without_tunnel };
            rules.push(Rule {
                when: vec![within],
                then: vec![Action::Through(device)],
                decision: Some(Decision::Accept),
                origin: format!("IPPool/{}: routes of IPIP pools are ours", pool.name),
            });
            rules
        }
    }
}
