//! Import and export programs of sessions.
//!
//! Owns: FILT-10, FILT-20 to FILT-22 and the steps 1, 2, 3, 5 and 8 of FILT-30, block aggregation (FILT-40, FILT-41),
//! and how the release changes them (REL-3, REL-4). Never: runs one ([`eval`](crate::policy::eval)).

use bgp_proto::{Afi, IpPrefix};

use super::ReleaseSource;
use super::compile::Inputs;
use super::identity::Fields;
use super::origin::blocks;
use crate::model::{AffinityState, IpPool};
use crate::policy::program::{Action, Decision, MAX_METRIC, Match, Program, Rule, SourceClass};

/// Preference of a received route that has an elevated priority (FILT-10 step 2).
const ELEVATED_PREFERENCE: u16 = 200;

/// A rule that decides.
pub(super) fn decide(when: Vec<Match>, decision: Decision, origin: impl Into<String>) -> Rule {
    Rule { when, then: Vec::new(), decision: Some(decision), origin: origin.into() }
}

/// A rule that changes the route and goes on.
pub(super) fn change(when: Vec<Match>, action: Action, origin: impl Into<String>) -> Rule {
    Rule { when, then: vec![action], decision: None, origin: origin.into() }
}

/// The pools of a family in the order of the incumbent's text, each CIDR once: of pools with equal CIDRs the one with
/// the lowest name counts (DS-39, FILT-34).
pub(super) fn pools<'a, F: Fields>(inputs: &Inputs<'a>) -> Vec<&'a IpPool> {
    let mut pools: Vec<&IpPool> = inputs.snapshot.pools.values().map(|pool| &**pool).collect();
    pools.retain(|pool| pool.cidr.afi() == F::AFI);
    // Names are in order already, so a stable sort keeps the lowest name first among equal CIDRs.
    pools.sort_by_cached_key(|pool| pool.cidr.to_string());
    pools.dedup_by_key(|pool| pool.cidr);
    pools
}

/// Import of every mesh session (FILT-10 without step 1).
pub(super) fn import(priority: Option<u32>) -> Program {
    let elevated = priority.map(|priority| {
        change(
            vec![Match::LocalPrefAbove(MAX_METRIC.wrapping_sub(priority))],
            Action::SetPreference(ELEVATED_PREFERENCE),
            "routes of elevated priority come before those of the node",
        )
    });
    Program { rules: elevated.into_iter().collect(), default: Decision::Accept }
}

/// Export of every session without filters (FILT-20, FILT-30).
pub(super) fn export<F: Fields>(inputs: &Inputs<'_>, priority: Option<u32>, internal: bool) -> Program {
    let pools = pools::<F>(inputs);
    let mut rules = Vec::new();
    rules.extend(priority.map(|priority| normalise::<F>(inputs, priority)));
    rules.extend(pools.iter().filter(|pool| pool.disable_bgp_export).map(|pool| {
        let origin = format!("IPPool/{}: spec.disableBGPExport", pool.name);
        decide(vec![Match::Within(pool.cidr)], Decision::Reject, origin)
    }));
    if internal {
        // FILT-32: Felix's routes to other nodes are learned from the kernel and are not ours to announce.
        let tunnels =
            ["*.cali", "*.calico"].into_iter().chain((!inputs.cluster_routes.ipip).then_some("tunl0"));
        rules.extend(tunnels.map(|name| {
            let origin = "routes over Felix's tunnel devices stay on the node";
            decide(vec![Match::Interface(name.to_owned())], Decision::Reject, origin)
        }));
    }
    let origin = "routes over Felix's BPF devices stay on the node";
    rules.push(decide(vec![Match::Interface("bpf*.cali".to_owned())], Decision::Reject, origin));
    for (block, state) in blocks::<F>(inputs) {
        if state == AffinityState::Confirmed {
            rules.extend(aggregate(block.into(), priority));
        }
    }
    rules.extend(pools.iter().filter(|pool| !pool.disable_bgp_export).map(|pool| {
        let origin = format!("IPPool/{}", pool.name);
        decide(vec![Match::Within(pool.cidr)], Decision::Accept, origin)
    }));
    Program { rules, default: Decision::Reject }
}

/// FILT-21, with REL-4: where the release is not known for certain, Felix may be older than 3.32, and a
/// metric of 0 says nothing.
fn normalise<F: Fields>(inputs: &Inputs<'_>, priority: u32) -> Rule {
    let unknown = matches!(inputs.release.source, ReleaseSource::LastKnown | ReleaseSource::Assumed);
    let zero_is_none = F::AFI == Afi::Ipv4 && unknown;
    change(Vec::new(), Action::Normalise { priority, zero_is_none }, "route priority as LOCAL_PREF")
}

/// FILT-40; without priorities there is no way out of a block (REL-3).
fn aggregate(block: IpPrefix, priority: Option<u32>) -> Vec<Rule> {
    let rule = |when, decision| decide(when, decision, format!("block {block} of this node"));
    let mut rules = vec![rule(vec![Match::Equals(block)], Decision::Accept)];
    if let Some(priority) = priority {
        rules.push(rule(vec![Match::Within(block), Match::MetricBelow(priority)], Decision::Accept));
    }
    rules.push(rule(vec![Match::Within(block)], Decision::Reject));
    rules
}

/// The condition "received by BGP".
pub(super) const FROM_BGP: Match = Match::Source(SourceClass::Bgp);
