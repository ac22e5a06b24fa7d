//! What to write: desired routes, the mirror and the phase in, operations in a safe order out.
//!
//! Owns: the rules of ownership. A route is ours if it has protocol 12; nothing else is ever replaced or deleted.
//! Never: writes, waits, or remembers what failed. Inputs: the prefixes to look at, what is wanted, the [`Mirror`], the
//! [`Phase`]. Outputs: a [`Planned`].
//!
//! Rules: KRT-18, KRT-25, KRT-36 (mended), KRT-38, KRT-51; K1, K7, K12. Core.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::IpPrefix;

use super::mirror::{Mirror, RouteSeen};
use super::{FibRoute, PROTOCOL, Phase, RouteOp, Target, stored_metric};

/// A route to put into the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// The key is free.
    Add(IpPrefix, FibRoute),
    /// The key holds another route of ours.
    Replace(IpPrefix, FibRoute),
}

/// A route of ours to take out of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// The prefix.
    pub prefix: IpPrefix,
    /// The metric as stored.
    pub metric: u32,
    /// See [`RouteOp::Delete`].
    pub only: Option<Target>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FibPlan {
    /// More specific prefixes first.
    pub writes: Vec<Write>,
    /// After the writes; covering prefixes first. While recovering only what this run has written.
    pub deletes: Vec<Delete>,
}

/// Prefix and metric, as stored, of the routes that this run has written while it matters. All others of ours were
/// found at start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    keys: BTreeSet<(IpPrefix, u32)>,
    /// Next hops through which what was found stays also after recovery.
    held: BTreeSet<IpAddr>,
}

impl Written {
    /// The kernel has done this.
    pub fn note(&mut self, op: &RouteOp) {
        let key = (op.prefix(), op.metric());
        match op {
            RouteOp::Add(..) | RouteOp::Replace(..) => self.keys.insert(key),
            RouteOp::Delete { .. } => self.keys.remove(&key),
        };
    }

    /// These are the next hops through which what was found stays.
    pub fn hold(&mut self, held: BTreeSet<IpAddr>) {
        self.held = held;
    }

    /// Whether it matters what was found and what was written.
    pub fn matters(&self, phase: Phase) -> bool {
        phase == Phase::Recovering || !self.held.is_empty()
    }

    /// Nothing needs to be told apart any more.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// Whether a route of ours was found at start and stays though nobody wants it.
    fn keeps(&self, phase: Phase, prefix: IpPrefix, seen: &RouteSeen) -> bool {
        let through_held = || match &seen.target {
            Some(Target::Unicast(legs)) => {
                legs.iter().any(|leg| leg.via.is_some_and(|via| self.held.contains(&via)))
            }
            _ => false,
        };
        !self.keys.contains(&(prefix, seen.metric)) && (phase == Phase::Recovering || through_held())
    }
}

/// A prefix that we cannot have, because somebody else's route holds its key (KRT-38, K1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The prefix.
    pub prefix: IpPrefix,
    /// The metric at which the other route stands.
    pub metric: u32,
    /// The protocol number of its owner.
    pub owner: u8,
}

/// The result of planning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What to do.
    pub plan: FibPlan,
    /// Wanted, but taken by others. They are left alone.
    pub conflicts: Vec<Conflict>,
    /// Wanted, and in the kernel exactly so.
    pub installed: Vec<IpPrefix>,
}

impl FibPlan {
    /// The writes, in order.
    pub fn writes(&self) -> impl Iterator<Item = RouteOp> {
        self.writes.iter().cloned().map(RouteOp::from)
    }

    /// The deletes, in order; they come after the writes.
    pub fn deletes(&self) -> impl Iterator<Item = RouteOp> {
        self.deletes.iter().cloned().map(RouteOp::from)
    }

    /// All operations, in order.
    pub fn operations(&self) -> Vec<RouteOp> {
        self.writes().chain(self.deletes()).collect()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.deletes.is_empty()
    }
}

impl From<Write> for RouteOp {
    fn from(write: Write) -> Self {
        match write {
            Write::Add(prefix, route) => RouteOp::Add(prefix, route),
            Write::Replace(prefix, route) => RouteOp::Replace(prefix, route),
        }
    }
}

impl From<Delete> for RouteOp {
    fn from(Delete { prefix, metric, only }: Delete) -> Self {
        RouteOp::Delete { prefix, metric, only }
    }
}

/// Plans for some prefixes: those that changed, or after a snapshot [`all_prefixes`]. `desired` holds normalized
/// routes. While recovering a route that nobody wants goes only if it is in `written`: one that was found at start may
/// still be right, one that came in this run and was taken back is not (KRT-50). Nor does a route that leads nowhere
/// take the place of one found at start that leads somewhere: what its next hop needs may only not be there yet.
pub fn plan(
    prefixes: impl IntoIterator<Item = IpPrefix>,
    desired: &BTreeMap<IpPrefix, FibRoute>,
    mirror: &Mirror,
    phase: Phase,
    written: &Written,
) -> Planned {
    let mut writes = Vec::new();
    let mut deletes = Vec::new();
    let mut conflicts = Vec::new();
    let mut installed = Vec::new();
    for prefix in prefixes {
        let seen = mirror.routes_at(prefix);
        let found = |s: &RouteSeen| written.keeps(phase, prefix, s);
        let leads_somewhere = |s: &RouteSeen| matches!(s.target, Some(Target::Unicast(_)));
        let mut surplus: Vec<&RouteSeen> = seen.iter().filter(|s| s.protocol == PROTOCOL).collect();
        if let Some(route) = desired.get(&prefix) {
            let metric = stored_metric(prefix.afi(), route.metric);
            let foreign = seen.iter().find(|s| s.protocol != PROTOCOL && s.metric == metric);
            if let Some(at) = surplus.iter().position(|s| is_same(s, metric, route)) {
                installed.push(prefix);
                surplus.remove(at);
            } else if route.target == Target::Unreachable
                && surplus.iter().any(|s| found(s) && leads_somewhere(s))
            {
                // It waits for the end of recovery.
            } else if let Some(foreign) = foreign {
                // A replace would hit the first route of the key, and that may be the other's.
                conflicts.push(Conflict { prefix, metric, owner: foreign.protocol });
            } else if let Some(at) = surplus.iter().position(|s| s.metric == metric) {
                writes.push(Write::Replace(prefix, route.clone()));
                surplus.remove(at);
            } else {
                writes.push(Write::Add(prefix, route.clone()));
            }
        }
        surplus.retain(|s| !found(s));
        deletes.extend(surplus.into_iter().map(|s| delete(prefix, s, seen)));
    }
    // A packet must never fall from a specific route to its covering one because the one was late or the other early.
    writes.sort_by_key(|w| match w {
        Write::Add(prefix, _) | Write::Replace(prefix, _) => (Reverse(prefix.len()), *prefix),
    });
    deletes.sort_by_key(|d| (d.prefix.len(), d.prefix, d.metric));
    Planned { plan: FibPlan { writes, deletes }, conflicts, installed }
}

/// Every prefix that is wanted or holds a route of ours, each once.
pub fn all_prefixes(desired: &BTreeMap<IpPrefix, FibRoute>, mirror: &Mirror) -> Vec<IpPrefix> {
    let mut all: Vec<IpPrefix> = desired.keys().copied().chain(mirror.owned()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn is_same(seen: &RouteSeen, metric: u32, route: &FibRoute) -> bool {
    seen.plain && seen.metric == metric && seen.target.as_ref() == Some(&route.target)
}

fn delete(prefix: IpPrefix, seen: &RouteSeen, all: &[RouteSeen]) -> Delete {
    let shared = all.iter().filter(|s| s.protocol == PROTOCOL && s.metric == seen.metric).count() > 1;
    // In a delete, metric 0 means any metric: say more, lest a race costs a route of another metric.
    let vague = seen.metric == 0 || shared;
    Delete { prefix, metric: seen.metric, only: seen.target.clone().filter(|_| vague) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::fake::FakeKernel;
    use crate::fib::{Errno, Leg};
    use proptest::prelude::*;
    use smallvec::SmallVec;

    const FELIX: u8 = 80;

    fn p(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    /// A kernel with eth0 (index 2) and eth1 (index 3), dual stack.
    fn kernel() -> FakeKernel {
        let mut kernel = FakeKernel::new();
        for (index, name) in [(2, "eth0"), (3, "eth1")] {
            assert_eq!(kernel.add_link(name), index);
            kernel.add_address(index, &format!("10.99.{index}.1/24"));
            kernel.add_address(index, &format!("fd99:{index}::1/64"));
        }
        kernel
    }

    fn leg(prefix: IpPrefix, ifindex: u32, host: u8) -> Leg {
        let via = match prefix {
            IpPrefix::V4(_) => format!("10.99.{ifindex}.{host}"),
            IpPrefix::V6(_) => format!("fd99:{ifindex}::{host:x}"),
        };
        Leg { via: Some(via.parse().unwrap()), ifindex, onlink: false, weight: 1 }
    }

    fn unicast(prefix: IpPrefix, metric: u32, legs: &[(u32, u8)]) -> FibRoute {
        let legs: SmallVec<[Leg; 1]> = legs.iter().map(|(i, h)| leg(prefix, *i, *h)).collect();
        FibRoute { target: Target::Unicast(legs), metric }.normalized()
    }

    fn mirror_of(kernel: &mut FakeKernel) -> Mirror {
        let mut mirror = Mirror::new();
        mirror.load(kernel.snapshot());
        mirror
    }

    fn plan_all(kernel: &mut FakeKernel, desired: &BTreeMap<IpPrefix, FibRoute>, phase: Phase) -> Planned {
        let mirror = mirror_of(kernel);
        plan(all_prefixes(desired, &mirror), desired, &mirror, phase, &Written::default())
    }

    fn write_as_ours(kernel: &mut FakeKernel, prefix: IpPrefix, route: FibRoute) {
        kernel.apply(&RouteOp::Add(prefix, route)).unwrap();
    }

    #[test]
    fn after_recovery_what_was_found_stays_where_its_next_hop_is_held_and_what_was_written_goes() {
        let mut kernel = kernel();
        let (dead, gone, ours) = (p("10.1.0.0/26"), p("10.2.0.0/26"), p("10.3.0.0/26"));
        for (prefix, host) in [(dead, 7), (gone, 8), (ours, 7)] {
            kernel.apply(&RouteOp::Add(prefix, unicast(prefix, 1024, &[(2, host)]))).unwrap();
        }
        let mut written = Written::default();
        written.note(&RouteOp::Add(ours, unicast(ours, 1024, &[(2, 7)])));
        written.hold(BTreeSet::from(["10.99.2.7".parse().unwrap()]));
        assert!(written.matters(Phase::Normal));
        let mirror = mirror_of(&mut kernel);
        let prefixes = [dead, gone, ours];
        let planned = plan(prefixes, &BTreeMap::new(), &mirror, Phase::Normal, &written);
        let deleted: Vec<IpPrefix> = planned.plan.deletes.iter().map(|delete| delete.prefix).collect();
        assert_eq!(deleted, [gone, ours]);
        written.hold(BTreeSet::new());
        assert!(!written.matters(Phase::Normal));
        let planned = plan([dead], &BTreeMap::new(), &mirror, Phase::Normal, &Written::default());
        assert_eq!(planned.plan.deletes.len(), 1);
    }

    #[test]
    fn a_route_that_is_right_is_not_written() {
        let mut kernel = kernel();
        let block = p("10.244.1.0/26");
        let route = unicast(block, 1024, &[(2, 2)]);
        write_as_ours(&mut kernel, block, route.clone());
        let planned = plan_all(&mut kernel, &BTreeMap::from([(block, route)]), Phase::Normal);
        assert!(planned.plan.is_empty());
        assert_eq!(planned.installed, [block]);
    }

    #[test]
    fn a_route_that_differs_is_replaced_in_one_operation() {
        let mut kernel = kernel();
        for block in [p("10.244.1.0/26"), p("fd00:10:244::/122")] {
            write_as_ours(&mut kernel, block, unicast(block, 1024, &[(2, 2)]));
            let want = unicast(block, 1024, &[(2, 3), (3, 2)]);
            let planned = plan_all(&mut kernel, &BTreeMap::from([(block, want.clone())]), Phase::Recovering);
            assert_eq!(planned.plan.operations(), [RouteOp::Replace(block, want)]);
            kernel.remove_route(block, PROTOCOL);
        }
    }

    #[test]
    fn the_onlink_flag_and_the_gateway_are_compared() {
        let mut kernel = kernel();
        let block = p("10.244.1.0/26");
        write_as_ours(&mut kernel, block, unicast(block, 1024, &[(2, 2)]));
        let mut want = unicast(block, 1024, &[(2, 2)]);
        if let Target::Unicast(legs) = &mut want.target {
            legs[0].onlink = true;
        }
        let planned = plan_all(&mut kernel, &BTreeMap::from([(block, want.clone())]), Phase::Normal);
        assert_eq!(planned.plan.operations(), [RouteOp::Replace(block, want)]);
    }

    #[test]
    fn a_new_metric_is_added_before_the_old_one_is_deleted() {
        let mut kernel = kernel();
        let block = p("10.244.1.0/26");
        write_as_ours(&mut kernel, block, unicast(block, 1024, &[(2, 2)]));
        let want = unicast(block, 512, &[(2, 2)]);
        let planned = plan_all(&mut kernel, &BTreeMap::from([(block, want.clone())]), Phase::Normal);
        let delete = RouteOp::Delete { prefix: block, metric: 1024, only: None };
        assert_eq!(planned.plan.operations(), [RouteOp::Add(block, want), delete]);
    }

    #[test]
    fn the_delete_of_a_route_without_metric_says_what_it_leads_to() {
        let mut kernel = kernel();
        let block = p("10.244.1.0/26");
        write_as_ours(&mut kernel, block, FibRoute { target: Target::Blackhole, metric: 0 });
        let want = unicast(block, 1024, &[(2, 2)]);
        let planned = plan_all(&mut kernel, &BTreeMap::from([(block, want)]), Phase::Normal);
        let delete = RouteOp::Delete { prefix: block, metric: 0, only: Some(Target::Blackhole) };
        assert_eq!(planned.plan.deletes().collect::<Vec<_>>(), [delete]);
    }

    #[test]
    fn ipv6_metric_none_is_1024() {
        let mut kernel = kernel();
        let block = p("fd00:10:244::/122");
        let want = FibRoute { target: Target::Blackhole, metric: 0 };
        write_as_ours(&mut kernel, block, want.clone());
        assert_eq!(kernel.routes_at(block)[0].metric, 1024);
        let desired = BTreeMap::from([(block, want)]);
        assert!(plan_all(&mut kernel, &desired, Phase::Normal).plan.is_empty());
        // And an alien at 1024 is in its way (KRT-38).
        kernel.add_route(block, FELIX, 1024, Target::Blackhole);
        let planned = plan_all(&mut kernel, &desired, Phase::Normal);
        assert_eq!(planned.conflicts, [Conflict { prefix: block, metric: 1024, owner: FELIX }]);
    }

    #[test]
    fn a_key_that_another_holds_is_a_conflict_and_not_written() {
        let mut kernel = kernel();
        let block = p("10.244.1.0/26");
        let felix = kernel.via(None, "eth1", false).unwrap();
        kernel.add_route(block, FELIX, 1024, felix);
        let desired = BTreeMap::from([(block, unicast(block, 1024, &[(2, 2)]))]);
        let planned = plan_all(&mut kernel, &desired, Phase::Normal);
        assert!(planned.plan.is_empty());
        assert_eq!(planned.conflicts, [Conflict { prefix: block, metric: 1024, owner: FELIX }]);
        // At another metric the two live side by side.
        kernel.remove_route(block, FELIX);
        kernel.add_route(block, FELIX, 100, Target::Blackhole);
        let planned = plan_all(&mut kernel, &desired, Phase::Normal);
        assert_eq!(planned.plan.writes().count(), 1);
        assert!(planned.conflicts.is_empty());
    }

    #[test]
    fn specifics_come_first_on_the_way_in_and_last_on_the_way_out() {
        let mut kernel = kernel();
        let order = ["10.244.0.0/16", "10.244.1.0/26", "10.244.1.1/32"].map(p);
        let desired: BTreeMap<_, _> =
            order.iter().map(|x| (*x, FibRoute { target: Target::Blackhole, metric: 0 })).collect();
        let planned = plan_all(&mut kernel, &desired, Phase::Normal);
        let writes: Vec<_> = planned.plan.writes().map(|op| op.prefix()).collect();
        assert_eq!(writes, [order[2], order[1], order[0]]);
        assert!(kernel.reconcile(&desired, Phase::Normal).is_empty());
        let planned = plan_all(&mut kernel, &BTreeMap::new(), Phase::Normal);
        let deletes: Vec<_> = planned.plan.deletes().map(|op| op.prefix()).collect();
        assert_eq!(deletes, order);
    }

    #[test]
    fn a_route_found_at_start_goes_only_once_in_sync() {
        let mut kernel = kernel();
        let old = p("10.244.9.0/26");
        write_as_ours(&mut kernel, old, unicast(old, 1024, &[(2, 9)]));
        let desired = BTreeMap::new();
        assert!(plan_all(&mut kernel, &desired, Phase::Recovering).plan.is_empty());
        let planned = plan_all(&mut kernel, &desired, Phase::Normal);
        assert_eq!(planned.plan.operations(), [RouteOp::Delete { prefix: old, metric: 1024, only: None }]);
    }

    #[test]
    fn a_route_of_this_run_goes_at_once_and_leaves_what_was_found_beside_it() {
        let mut kernel = kernel();
        let block = p("10.244.9.0/26");
        write_as_ours(&mut kernel, block, unicast(block, 1024, &[(2, 9)]));
        let mut written = Written::default();
        let op = RouteOp::Add(block, unicast(block, 512, &[(2, 9)]));
        kernel.apply(&op).unwrap();
        written.note(&op);
        let mirror = mirror_of(&mut kernel);
        let planned = plan([block], &BTreeMap::new(), &mirror, Phase::Recovering, &written);
        assert_eq!(planned.plan.operations(), [RouteOp::Delete { prefix: block, metric: 512, only: None }]);
    }

    #[test]
    fn a_dead_end_takes_the_place_of_a_working_route_found_at_start_only_once_in_sync() {
        let mut kernel = kernel();
        let (block, new) = (p("10.244.9.0/26"), p("10.244.8.0/26"));
        let nowhere = FibRoute { target: Target::Unreachable, metric: 1024 };
        write_as_ours(&mut kernel, block, unicast(block, 1024, &[(2, 9)]));
        let desired = BTreeMap::from([(block, nowhere.clone()), (new, nowhere.clone())]);
        let planned = plan_all(&mut kernel, &desired, Phase::Recovering);
        assert_eq!(planned.plan.operations(), [RouteOp::Add(new, nowhere.clone())]);
        // What this run wrote has no such right, and goes although what was found stays.
        let mut written = Written::default();
        let op = RouteOp::Add(block, unicast(block, 512, &[(2, 9)]));
        kernel.apply(&op).unwrap();
        written.note(&op);
        let mirror = mirror_of(&mut kernel);
        let planned = plan([block], &desired, &mirror, Phase::Recovering, &written);
        assert_eq!(planned.plan.operations(), [RouteOp::Delete { prefix: block, metric: 512, only: None }]);
        let planned = plan([block], &desired, &mirror, Phase::Normal, &written);
        assert!(planned.plan.writes().eq([RouteOp::Replace(block, nowhere)]));
    }

    #[test]
    fn a_route_of_ours_that_somebody_embellished_is_replaced() {
        let block = p("10.244.1.0/26");
        let want = unicast(block, 1024, &[(2, 2)]);
        let mut mirror = Mirror::new();
        let seen =
            RouteSeen { metric: 1024, protocol: PROTOCOL, target: Some(want.target.clone()), plain: false };
        mirror.load(super::super::mirror::KernelDump { routes: vec![(block, seen)], ..Default::default() });
        let desired = BTreeMap::from([(block, want.clone())]);
        let planned = plan([block], &desired, &mirror, Phase::Normal, &Written::default());
        assert_eq!(planned.plan.operations(), [RouteOp::Replace(block, want)]);
    }

    /// Few prefixes and metrics, so that keys collide.
    fn any_prefix() -> impl Strategy<Value = IpPrefix> {
        (0u8..4, prop_oneof![Just(24u8), Just(26), Just(32)], any::<bool>()).prop_map(|(n, len, v6)| {
            let text =
                if v6 { format!("fd00:10:244:{n}::/{}", 96 + len) } else { format!("10.244.{n}.0/{len}") };
            p(&text)
        })
    }

    fn any_route(prefix: IpPrefix) -> impl Strategy<Value = (IpPrefix, FibRoute)> {
        let metric = prop_oneof![Just(0u32), Just(512), Just(1024)];
        let target = prop_oneof![
            Just(Target::Blackhole),
            Just(Target::Unreachable),
            proptest::collection::vec((2u32..4, 2u8..5), 1..4)
                .prop_map(move |legs| unicast(prefix, 0, &legs).target),
        ];
        (metric, target).prop_map(move |(metric, target)| (prefix, FibRoute { target, metric }.normalized()))
    }

    fn any_entry() -> impl Strategy<Value = (IpPrefix, FibRoute)> {
        any_prefix().prop_flat_map(any_route)
    }

    fn stored(kernel: &mut FakeKernel, ours: bool) -> BTreeSet<(IpPrefix, String)> {
        let routes = kernel.snapshot().routes.into_iter();
        routes.filter(|(_, r)| (r.protocol == PROTOCOL) == ours).map(|(p, r)| (p, format!("{r:?}"))).collect()
    }

    fn owned_prefixes(kernel: &FakeKernel) -> BTreeSet<IpPrefix> {
        kernel.owned_routes().into_iter().map(|route| route.prefix).collect()
    }

    /// The first moment, of the prefixes with a route of ours after each operation, that a packet would notice although
    /// it has the same way, or none of ours, before and after.
    fn gap(moments: &[BTreeSet<IpPrefix>]) -> Option<String> {
        let (before, after) = (moments.first()?, moments.last()?);
        let covers = |there: &BTreeSet<IpPrefix>, prefix: IpPrefix| there.iter().any(|p| p.covers(prefix));
        for now in moments {
            for prefix in before.union(after).copied() {
                if before.contains(&prefix) && after.contains(&prefix) && !now.contains(&prefix) {
                    return Some(format!("{prefix} is in old and new, and was away"));
                }
                if covers(before, prefix) && covers(after, prefix) && !covers(now, prefix) {
                    return Some(format!("{prefix} was covered by nothing"));
                }
                let alike = |cover: &&IpPrefix| {
                    cover.covers(prefix)
                        && before.contains(*cover) == before.contains(&prefix)
                        && after.contains(*cover) == after.contains(&prefix)
                };
                if let Some(cover) = now.iter().filter(alike).find(|_| !now.contains(&prefix)) {
                    return Some(format!("packets for {prefix} went along {cover}"));
                }
            }
        }
        None
    }

    #[test]
    fn a_gap_is_noticed() {
        let set = |texts: &[&str]| texts.iter().map(|text| p(text)).collect::<BTreeSet<IpPrefix>>();
        let (cover, specific) = ("10.244.0.0/16", "10.244.1.0/26");
        let deleted_first = [set(&[specific]), set(&[]), set(&[specific])];
        assert!(gap(&deleted_first).unwrap().contains("old and new"));
        let cover_late = [set(&[specific]), set(&[]), set(&[cover])];
        assert!(gap(&cover_late).unwrap().contains("covered by nothing"));
        let cover_first = [set(&[]), set(&[cover]), set(&[cover, specific])];
        assert!(gap(&cover_first).unwrap().contains("went along"));
        assert_eq!(gap(&[set(&[]), set(&[specific]), set(&[cover, specific])]), None);
    }

    proptest! {
        #[test]
        fn a_plan_applied_gives_what_is_wanted_and_touches_nobody_else(
            found in proptest::collection::vec((any_entry(), any::<bool>(), any::<bool>()), 0..12),
            wanted in proptest::collection::vec(any_entry(), 0..12),
            recovering in any::<bool>(),
        ) {
            let mut kernel = kernel();
            let mut written = Written::default();
            for ((prefix, route), ours, in_this_run) in found {
                if ours {
                    let op = RouteOp::Add(prefix, route);
                    if kernel.apply(&op).is_ok() && in_this_run {
                        written.note(&op);
                    }
                } else {
                    kernel.add_route(prefix, FELIX, route.metric, route.target);
                }
            }
            let desired: BTreeMap<_, _> = wanted.into_iter().collect();
            let phase = if recovering { Phase::Recovering } else { Phase::Normal };
            let found: BTreeSet<_> = kernel.owned_routes().into_iter().map(|r| (r.prefix, r.metric)).collect();
            let others = stored(&mut kernel, false);
            let mut mirror = mirror_of(&mut kernel);
            let planned = plan(all_prefixes(&desired, &mirror), &desired, &mirror, phase, &written);
            let mut moments = vec![owned_prefixes(&kernel)];
            for op in planned.plan.operations() {
                prop_assert_eq!(kernel.apply(&op), Ok::<(), Errno>(()), "{:?}", op);
                moments.push(owned_prefixes(&kernel));
            }
            let gap = gap(&moments);
            prop_assert_eq!(gap.as_deref(), None, "{:?}", planned.plan);
            // The notifications alone bring the mirror to where a new dump would.
            for notice in kernel.take_notices() {
                mirror.apply(notice);
            }
            prop_assert!(!mirror.is_doubtful());
            let fresh = mirror_of(&mut kernel);
            for prefix in desired.keys() {
                let sorted = |m: &Mirror| {
                    let mut all: Vec<String> = m.routes_at(*prefix).iter().map(|r| format!("{r:?}")).collect();
                    all.sort();
                    all
                };
                prop_assert_eq!(sorted(&mirror), sorted(&fresh));
            }
            prop_assert_eq!(&others, &stored(&mut kernel, false));
            let again = plan(all_prefixes(&desired, &fresh), &desired, &fresh, phase, &written);
            prop_assert!(again.plan.is_empty(), "not idempotent: {:?}", again.plan);
            // While recovering a dead end waits where a working route was found.
            let waits = |prefix: &IpPrefix, route: &FibRoute| {
                let works = |r: &RouteSeen| {
                    r.protocol == PROTOCOL
                        && !written.keys.contains(&(*prefix, r.metric))
                        && matches!(r.target, Some(Target::Unicast(_)))
                };
                recovering
                    && route.target == Target::Unreachable
                    && !again.installed.contains(prefix)
                    && fresh.routes_at(*prefix).iter().any(works)
            };
            let waiting = desired.iter().filter(|(prefix, route)| waits(prefix, route)).count();
            prop_assert_eq!(again.conflicts.len() + again.installed.len() + waiting, desired.len());
            let keys: BTreeSet<_> = kernel.owned_routes().into_iter().map(|r| (r.prefix, r.metric)).collect();
            let conflicts: BTreeSet<_> = again.conflicts.iter().map(|c| c.prefix).collect();
            let mut expected: BTreeSet<_> = desired
                .iter()
                .filter(|(p, r)| !conflicts.contains(*p) && !waits(p, r))
                .map(|(p, r)| (*p, stored_metric(p.afi(), r.metric)))
                .collect();
            if phase == Phase::Recovering {
                expected.extend(found.difference(&written.keys));
            }
            prop_assert_eq!(keys, expected);
        }
    }
}
