//! Import and export programs of sessions.
//!
//! Owns: FILT-10, FILT-20 to FILT-22, FILT-30, communities (FILT-36 to FILT-38), block aggregation (FILT-40, FILT-41),
//! and how the release changes them (REL-3, REL-4, REL-7). Never: runs one ([`eval`](crate::policy::eval)).

use bgp_proto::{Afi, IpPrefix, Prefix};

use super::ReleaseSource;
use super::filters::{self, Direction};
use super::identity::Fields;
use super::inputs::{Inputs, Problems};
use super::origin::blocks;
use crate::model::{AffinityState, BgpConfiguration, Code, CommunityValue, IpPool, PrefixAdvertisement};
use crate::policy::prefix_set::PrefixSet;
use crate::policy::program::{Action, Decision, MAX_METRIC, Match, Program, Rule, SourceClass};
use crate::policy::sets::{SetId, Sets};

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

/// What a session's programs hang on beside the family.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Use {
    /// Names of BGPFilters in order; none on mesh sessions (TC-17).
    pub(super) filters: Vec<String>,
    /// The session is within one AS.
    pub(super) internal: bool,
    /// The peer is a Calico node (REL-7).
    pub(super) node: bool,
}

/// Import (FILT-10).
pub(super) fn import<F: Fields>(inputs: &Inputs<'_>, filters: &[String], priority: Option<u32>) -> Program {
    let mut rules = filters::rules::<F>(inputs, filters, Direction::Import);
    rules.extend(priority.map(|priority| {
        change(
            vec![Match::LocalPrefAbove(MAX_METRIC.wrapping_sub(priority))],
            Action::SetPreference(ELEVATED_PREFERENCE),
            "routes of elevated priority come before those of the node",
        )
    }));
    Program { rules, default: Decision::Accept }
}

/// Export (FILT-20, FILT-30).
pub(super) fn export<F: Fields>(inputs: &Inputs<'_>, priority: Option<u32>, session: &Use) -> Program {
    let mut rules = Vec::new();
    rules.extend(priority.map(|priority| normalise::<F>(inputs, priority)));
    rules.extend(filters::rules::<F>(inputs, &session.filters, Direction::Export));
    rules.push(decide(vec![Match::InSet(SetId::UnexportedPools)], Decision::Reject, "spec.disableBGPExport"));
    if session.internal {
        // FILT-32: Felix's routes to other nodes are learned from the kernel and are not ours to announce.
        let kept = session.node || inputs.release.release.keeps_tunnel_routes_from_internal_routers();
        let vxlan = ["*.cali", "*.calico"].into_iter().filter(|_| kept);
        let tunnels = vxlan.chain((!inputs.cluster_routes.ipip).then_some("tunl0"));
        rules.extend(tunnels.map(|name| {
            let origin = "routes over Felix's tunnel devices stay on the node";
            decide(vec![Match::Interface(name.to_owned())], Decision::Reject, origin)
        }));
    }
    let origin = "routes over Felix's BPF devices stay on the node";
    rules.push(decide(vec![Match::Interface("bpf*.cali".to_owned())], Decision::Reject, origin));
    rules.extend(communities::<F>(inputs));
    rules.extend(aggregate(priority));
    let origin = "service route of this node";
    rules.push(decide(vec![Match::InSet(SetId::ServiceRoutes)], Decision::Accept, origin));
    let origin = "service range that a route reflector passes on";
    rules.push(decide(vec![Match::InSet(SetId::ReflectedServices)], Decision::Accept, origin));
    rules.push(decide(vec![Match::InSet(SetId::ExportedPools)], Decision::Accept, "spec.cidr"));
    Program { rules, default: Decision::Reject }
}

/// FILT-21, with REL-4: where the release is not known for certain, Felix may be older than 3.32, and a
/// metric of 0 says nothing.
fn normalise<F: Fields>(inputs: &Inputs<'_>, priority: u32) -> Rule {
    let unknown = matches!(inputs.release.source, ReleaseSource::LastKnown | ReleaseSource::Assumed);
    let zero_is_none = F::AFI == Afi::Ipv4 && unknown;
    change(Vec::new(), Action::Normalise { priority, zero_is_none }, "route priority as LOCAL_PREF")
}

/// FILT-36 to FILT-38: what `prefixAdvertisements` add, in list order.
fn communities<F: Fields>(inputs: &Inputs<'_>) -> Vec<Rule> {
    let Some((config, list)) = advertisements(inputs) else { return Vec::new() };
    let of_family = (0..).zip(list).filter_map(|(place, entry)| Some((place, entry.cidr?, entry)));
    let of_family = of_family.filter(|(_, cidr, _)| cidr.afi() == F::AFI);
    let rule = |(place, cidr, entry): (usize, IpPrefix, &PrefixAdvertisement)| {
        let mut values = Vec::new();
        for value in entry.communities.iter().filter_map(|text| community(config, text).ok()) {
            let add = Action::AddCommunity(value.into());
            if !values.contains(&add) {
                values.push(add);
            }
        }
        (!values.is_empty()).then(|| Rule {
            when: vec![Match::Within(cidr)],
            then: values,
            decision: None,
            origin: format!("BGPConfiguration/{}: spec.prefixAdvertisements[{place}]", config.name),
        })
    };
    of_family.filter_map(rule).collect()
}

/// The list that counts: the node's own where it has one, for both families (FILT-36, DEF-18).
fn advertisements<'a>(inputs: &Inputs<'a>) -> Option<(&'a BgpConfiguration, &'a [PrefixAdvertisement])> {
    let own = inputs.snapshot.bgp_configurations.get(&format!("node.{}", inputs.local.name));
    let list = |config: &'a BgpConfiguration| {
        let list = config.prefix_advertisements.as_deref().filter(|list| !list.is_empty())?;
        Some((config, list))
    };
    own.and_then(|config| list(config)).or_else(|| list(inputs.global))
}

/// A literal value, or a name of the same BGPConfiguration (FILT-37); else why it is neither.
fn community(config: &BgpConfiguration, text: &str) -> Result<CommunityValue, String> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let named = config.communities.iter().find(|named| named.name == text);
    match named {
        None => Err(format!("{text:?} is neither a community nor the name of one in `communities`")),
        Some(named) => named.value.parse().map_err(|error| format!("{text:?} is {:?}: {error}", named.value)),
    }
}

/// What of `prefixAdvertisements` has no effect.
pub(super) fn check_communities(inputs: &Inputs<'_>, problems: &mut Problems) {
    let Some((config, list)) = advertisements(inputs) else { return };
    let resource = format!("BGPConfiguration/{}", config.name);
    for (place, entry) in list.iter().enumerate() {
        let field = format!("spec.prefixAdvertisements[{place}]");
        if entry.cidr.is_none() {
            let why = "has no CIDR and no effect";
            problems.add(Code::IgnoredField, resource.clone(), &format!("{field}.cidr"), why);
        }
        for why in entry.communities.iter().filter_map(|text| community(config, text).err()) {
            let field = format!("{field}.communities");
            problems.add(Code::UnknownCommunity, resource.clone(), &field, format!("{why}: it is left out"));
        }
    }
}

/// FILT-40; without priorities there is no way out of a block (REL-3).
fn aggregate(priority: Option<u32>) -> Vec<Rule> {
    let within = Match::InSet(SetId::OwnBlocks);
    let mut rules = vec![decide(vec![Match::EntryOf(SetId::OwnBlocks)], Decision::Accept, "of this node")];
    if let Some(priority) = priority {
        let origin = "of this node, the route inside has an elevated priority";
        rules.push(decide(vec![within.clone(), Match::MetricBelow(priority)], Decision::Accept, origin));
    }
    rules.push(decide(vec![within], Decision::Reject, "of this node, announced as a whole"));
    rules
}

/// The sets that exports name.
pub(super) fn sets<F: Fields>(inputs: &Inputs<'_>) -> Sets {
    let pools = |exported: bool| {
        let pools = pools::<F>(inputs).into_iter().filter(move |pool| pool.disable_bgp_export != exported);
        PrefixSet::new(pools.map(|pool| (pool.cidr, format!("IPPool/{}", pool.name).into())))
    };
    let aggregated = |(block, state): (Prefix<F>, AffinityState)| {
        (state == AffinityState::Confirmed).then(|| (block, format!("block {block}").into()))
    };
    Sets::default()
        .with(SetId::OwnBlocks, blocks::<F>(inputs).into_iter().filter_map(aggregated).collect())
        .with(SetId::UnexportedPools, pools(false))
        .with(SetId::ExportedPools, pools(true))
}

/// The condition "received by BGP".
pub(super) const FROM_BGP: Match = Match::Source(SourceClass::Bgp);
