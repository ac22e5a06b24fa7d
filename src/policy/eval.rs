//! Runs a program, together with the sets that it names, on a route.
//!
//! Owns: the meaning of every [`Match`] and [`Action`]. Never: looks anything up; all that a rule may ask stands in the
//! [`RouteView`] and in the sets. The optional trace names each rule that applied, in the words of the resource it came
//! from.

use bgp_proto::rib::decision::DEFAULT_LOCAL_PREF;
use bgp_proto::rib::export::prepend;
use bgp_proto::rib::{Policy, RouteView};
use bgp_proto::wire::Segment;
use bgp_proto::{Asn, IpPrefix};

use super::glob;
use super::prefix_set::Entry;
use super::program::{Action, Community, Decision, Lengths, MAX_METRIC, Match, Program, Rule, SourceClass};
use super::sets::{SetId, Sets};

/// One rule that applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The rule's origin; `None`: the default of the program.
    pub origin: Option<String>,
    /// What it decided; `None`: it only changed the route.
    pub decision: Option<Decision>,
}

/// A program and the sets that it names: all that is needed to judge a route.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// The program.
    pub program: &'a Program,
    /// The family's sets.
    pub sets: &'a Sets,
}

impl Bound<'_> {
    /// Runs it on a route, which it changes. Each rule that applies is added to `trace`.
    pub fn run(self, route: &mut RouteView<'_>, mut trace: Option<&mut Vec<Step>>) -> Decision {
        for rule in &self.program.rules {
            if !rule.when.iter().all(|condition| holds(condition, route, self.sets)) {
                continue;
            }
            if let Some(trace) = trace.as_deref_mut() {
                let origin = Some(words(rule, route, self.sets));
                trace.push(Step { origin, decision: rule.decision });
            }
            for action in &rule.then {
                apply(action, route);
            }
            if let Some(decision) = rule.decision {
                return decision;
            }
        }
        let decision = self.program.default;
        if let Some(trace) = trace {
            trace.push(Step { origin: None, decision: Some(decision) });
        }
        decision
    }
}

impl Policy for Bound<'_> {
    fn accepts(&self, route: &mut RouteView<'_>) -> bool {
        self.run(route, None) == Decision::Accept
    }

    fn reads_prefix(&self) -> bool {
        self.program.reads_prefix()
    }

    fn reads_interface(&self) -> bool {
        self.program.reads_interface()
    }
}

/// The origin of a rule, with the entry of the set that made it apply.
fn words(rule: &Rule, route: &RouteView<'_>, sets: &Sets) -> String {
    let entry = rule.when.iter().find_map(|condition| match condition {
        Match::InSet(set) | Match::EntryOf(set) => covering(*set, route.prefix, sets),
        Match::NextHopInSet(set) => covering(*set, next_hop(route)?, sets),
        _ => None,
    });
    entry.map_or_else(|| rule.origin.clone(), |entry| format!("{}: {}", entry.subject, rule.origin))
}

fn covering(set: SetId, prefix: IpPrefix, sets: &Sets) -> Option<&Entry> {
    sets.get(set)?.covering(prefix)
}

/// The next hop of a received route; on export every route has one, which says nothing of where it came from.
fn next_hop(route: &RouteView<'_>) -> Option<IpPrefix> {
    let received = route.next_hop.filter(|_| route.class == SourceClass::Bgp)?;
    Some(IpPrefix::host(received.addr()))
}

fn local_pref(route: &RouteView<'_>) -> u32 {
    route.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
}

fn within_lengths(prefix: IpPrefix, lengths: Lengths, route: &RouteView<'_>) -> bool {
    prefix.covers(route.prefix) && (lengths.min..=lengths.max).contains(&route.prefix.len())
}

/// An AS_SET stands for each of its members, as in BIRD's path masks.
fn begins(segments: &[Segment], asns: &[Asn]) -> bool {
    let mut path = segments.iter().flat_map(|segment| match segment {
        Segment::Sequence(list) => list.chunks(1),
        Segment::Set(list) => list.chunks(list.len().max(1)),
    });
    asns.iter().all(|asn| path.next().is_some_and(|place| place.contains(asn)))
}

fn holds(condition: &Match, route: &RouteView<'_>, sets: &Sets) -> bool {
    match condition {
        Match::Within(prefix) => prefix.covers(route.prefix),
        Match::Equals(prefix) => *prefix == route.prefix,
        Match::Source(class) => *class == route.class,
        Match::NotSource(class) => *class != route.class,
        Match::Interface(pattern) => glob::matches(pattern, route.interface),
        Match::MetricBelow(limit) => route.metric.is_some_and(|metric| metric < *limit),
        Match::LocalPrefAbove(limit) => local_pref(route) > *limit,
        Match::LocalPrefIs(value) => local_pref(route) == *value,
        Match::NotEquals(prefix) => *prefix != route.prefix,
        Match::WithinLengths(prefix, lengths) => within_lengths(*prefix, *lengths, route),
        Match::NotWithinLengths(prefix, lengths) => !within_lengths(*prefix, *lengths, route),
        Match::Never => false,
        Match::InSet(set) => covering(*set, route.prefix, sets).is_some(),
        Match::EntryOf(set) => {
            covering(*set, route.prefix, sets).is_some_and(|entry| entry.prefix == route.prefix)
        }
        Match::NextHopWithin(prefix) => next_hop(route).is_some_and(|next_hop| prefix.covers(next_hop)),
        Match::NextHopInSet(set) => {
            next_hop(route).is_some_and(|next_hop| covering(*set, next_hop, sets).is_some())
        }
        Match::Internal(internal) => route.internal == Some(*internal),
        Match::Community(value) => has(route, *value),
        Match::AsPathBegins(asns) => begins(&route.attributes.as_path.segments, asns),
    }
}

fn apply(action: &Action, route: &mut RouteView<'_>) {
    match action {
        Action::Normalise { priority, zero_is_none } => {
            if route.class == SourceClass::Bgp {
                route.metric = Some(MAX_METRIC.wrapping_sub(local_pref(route)));
                return;
            }
            let metric = route.metric.filter(|metric| !(*zero_is_none && *metric == 0)).unwrap_or(*priority);
            route.metric = Some(metric);
            route.attributes.to_mut().local_pref = Some(MAX_METRIC.wrapping_sub(metric));
        }
        Action::SetPreference(preference) => route.preference = *preference,
        Action::Through(device) => {
            // A route without BGP next hop has nothing to say to the other end of a tunnel (KERN-13).
            if route.class == SourceClass::Bgp {
                route.device = Some(*device);
            }
        }
        Action::MetricFromLocalPref => route.metric = Some(MAX_METRIC.wrapping_sub(local_pref(route))),
        Action::SetLocalPref(value) => route.attributes.to_mut().local_pref = Some(*value),
        Action::AddCommunity(value) => {
            if !has(route, *value) {
                let attributes = route.attributes.to_mut();
                match value {
                    Community::Standard(value) => attributes.communities.push(*value),
                    Community::Large(value) => attributes.large_communities.push(*value),
                }
            }
        }
        Action::PrependAsPath(asns) => prepend(&mut route.attributes.to_mut().as_path, asns),
    }
}

fn has(route: &RouteView<'_>, community: Community) -> bool {
    match community {
        Community::Standard(value) => route.attributes.communities.contains(&value),
        Community::Large(value) => route.attributes.large_communities.contains(&value),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use super::*;
    use crate::policy::prefix_set::PrefixSet;
    use bgp_proto::wire::{AsPath, AsnList, Attributes, NextHop};
    use smallvec::smallvec;

    fn route(prefix: &str, class: SourceClass) -> RouteView<'static> {
        RouteView {
            prefix: prefix.parse().unwrap(),
            class,
            interface: "",
            internal: Some(true),
            metric: None,
            preference: class.preference(),
            attributes: Cow::Owned(Attributes::default()),
            next_hop: None,
            device: None,
        }
    }

    fn run(program: &Program, route: &mut RouteView<'_>) -> Decision {
        Bound { program, sets: &Sets::default() }.run(route, None)
    }

    fn holds(condition: &Match, route: &RouteView<'_>) -> bool {
        super::holds(condition, route, &Sets::default())
    }

    fn rule(when: Vec<Match>, then: Vec<Action>, decision: Option<Decision>) -> Rule {
        Rule { when, then, decision, origin: "IPPool/a: test".into() }
    }

    #[test]
    fn the_first_rule_that_decides_ends_it_and_the_default_is_last() {
        let program = Program {
            rules: vec![
                rule(vec![Match::Within("10.0.0.0/8".parse().unwrap())], vec![], Some(Decision::Accept)),
                rule(vec![Match::Within("10.1.0.0/16".parse().unwrap())], vec![], Some(Decision::Reject)),
            ],
            default: Decision::Reject,
        };
        let decide = |prefix: &str| run(&program, &mut route(prefix, SourceClass::Static));
        assert_eq!(decide("10.1.0.0/26"), Decision::Accept);
        assert_eq!(decide("192.0.2.0/24"), Decision::Reject);
        let mut trace = Vec::new();
        let bound = Bound { program: &program, sets: &Sets::default() };
        bound.run(&mut route("10.1.0.0/26", SourceClass::Static), Some(&mut trace));
        assert_eq!(trace, [Step { origin: Some("IPPool/a: test".into()), decision: Some(Decision::Accept) }]);
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold() {
        let program = Program {
            rules: vec![rule(
                vec![Match::Source(SourceClass::Kernel), Match::MetricBelow(1024)],
                vec![],
                Some(Decision::Accept),
            )],
            default: Decision::Reject,
        };
        let mut kernel = route("10.1.0.1/32", SourceClass::Kernel);
        assert_eq!(run(&program, &mut kernel), Decision::Reject, "an undefined metric is below nothing");
        kernel.metric = Some(0);
        assert_eq!(run(&program, &mut kernel), Decision::Accept);
        kernel.metric = Some(1024);
        assert_eq!(run(&program, &mut kernel), Decision::Reject);
    }

    #[test]
    fn normalising_turns_metrics_and_local_pref_into_each_other() {
        let normalise = |zero_is_none| Action::Normalise { priority: 1024, zero_is_none };
        let mut block = route("10.1.0.0/26", SourceClass::Static);
        apply(&normalise(false), &mut block);
        assert_eq!((block.metric, block.attributes.local_pref), (Some(1024), Some(2_147_482_623)));
        let mut elevated = route("10.1.0.1/32", SourceClass::Kernel);
        elevated.metric = Some(512);
        apply(&normalise(false), &mut elevated);
        assert_eq!(elevated.attributes.local_pref, Some(2_147_483_135));
        let mut received = route("10.2.0.0/26", SourceClass::Bgp);
        received.attributes.to_mut().local_pref = Some(2_147_483_648);
        apply(&normalise(false), &mut received);
        assert_eq!(received.metric, Some(u32::MAX), "modulo 2^32");
        assert_eq!(received.attributes.local_pref, Some(2_147_483_648));
        let mut zero = route("10.1.0.1/32", SourceClass::Kernel);
        zero.metric = Some(0);
        apply(&normalise(true), &mut zero);
        assert_eq!(zero.metric, Some(1024));
        zero.metric = Some(0);
        apply(&normalise(false), &mut zero);
        assert_eq!((zero.metric, zero.attributes.local_pref), (Some(0), Some(MAX_METRIC)));
    }

    #[test]
    fn a_next_hop_condition_asks_for_the_attribute_of_a_received_route() {
        let condition = Match::NextHopWithin("10.0.0.0/24".parse().unwrap());
        let mut received = route("10.2.0.0/26", SourceClass::Bgp);
        assert!(!holds(&condition, &received));
        received.next_hop = Some(NextHop::V4("10.0.0.7".parse().unwrap()));
        assert!(holds(&condition, &received));
        received.class = SourceClass::Static;
        assert!(!holds(&condition, &received), "on export every route has a next hop to be sent");
    }

    #[test]
    fn local_pref_is_compared_unsigned_and_absent_is_100() {
        let mut received = route("10.2.0.0/26", SourceClass::Bgp);
        assert!(!holds(&Match::LocalPrefAbove(100), &received));
        assert!(holds(&Match::LocalPrefAbove(99), &received));
        received.attributes.to_mut().local_pref = Some(u32::MAX);
        assert!(holds(&Match::LocalPrefAbove(MAX_METRIC), &received));
    }

    #[test]
    fn a_route_without_interface_matches_only_patterns_that_match_nothing() {
        let block = route("10.1.0.0/26", SourceClass::Static);
        assert!(holds(&Match::Interface("*".into()), &block));
        assert!(!holds(&Match::Interface("*.calico".into()), &block));
    }

    fn set(entries: &[(&str, &str)]) -> PrefixSet {
        PrefixSet::new(entries.iter().map(|(prefix, subject)| (prefix.parse().unwrap(), Arc::from(*subject))))
    }

    #[test]
    fn a_rule_asks_a_set_and_names_the_entry_that_made_it_apply() {
        let program = Program {
            rules: vec![
                rule(vec![Match::EntryOf(SetId::OwnBlocks)], vec![], Some(Decision::Accept)),
                rule(vec![Match::InSet(SetId::OwnBlocks)], vec![], Some(Decision::Reject)),
            ],
            default: Decision::Accept,
        };
        let sets = Sets::default().with(SetId::OwnBlocks, set(&[("10.1.0.0/26", "block 10.1.0.0/26")]));
        let judge = |prefix: &str| {
            let mut trace = Vec::new();
            let bound = Bound { program: &program, sets: &sets };
            let verdict = bound.run(&mut route(prefix, SourceClass::Static), Some(&mut trace));
            (verdict, trace.remove(0).origin)
        };
        let origin = Some("block 10.1.0.0/26: IPPool/a: test".to_owned());
        assert_eq!(judge("10.1.0.0/26"), (Decision::Accept, origin.clone()));
        assert_eq!(judge("10.1.0.1/32"), (Decision::Reject, origin));
        assert_eq!(judge("10.0.0.0/8"), (Decision::Accept, None));
        assert!(program.reads(SetId::OwnBlocks) && !program.reads(SetId::ServiceRoutes));
        assert!(program.reads_prefix() && !program.reads_interface());
    }

    #[test]
    fn a_set_of_next_hops_is_asked_with_the_next_hop() {
        let sets = Sets::default().with(SetId::WireguardNextHops, set(&[("10.0.0.7/32", "Node/n7")]));
        let condition = Match::NextHopInSet(SetId::WireguardNextHops);
        let mut received = route("10.2.0.0/26", SourceClass::Bgp);
        assert!(!super::holds(&condition, &received, &sets));
        received.next_hop = Some(NextHop::V4("10.0.0.7".parse().unwrap()));
        assert!(super::holds(&condition, &received, &sets));
        received.next_hop = Some(NextHop::V4("10.0.0.8".parse().unwrap()));
        assert!(!super::holds(&condition, &received, &sets));
    }

    #[test]
    fn lengths_are_counted_inside_the_prefix_only() {
        let inside = |prefix: &str, min, max| {
            let cidr = "10.0.0.0/8".parse().unwrap();
            let lengths = Lengths { min, max };
            let asked = route(prefix, SourceClass::Bgp);
            let within = holds(&Match::WithinLengths(cidr, lengths), &asked);
            assert_ne!(within, holds(&Match::NotWithinLengths(cidr, lengths), &asked));
            within
        };
        assert!(inside("10.1.0.0/24", 24, 26) && inside("10.1.0.0/26", 24, 26));
        assert!(!inside("10.1.0.0/23", 24, 26) && !inside("10.1.0.0/27", 24, 26));
        assert!(!inside("11.1.0.0/24", 24, 26));
        assert!(!inside("10.1.0.0/24", 26, 24), "the shortest above the longest: none");
    }

    #[test]
    fn a_path_begins_with_its_first_as_and_a_set_stands_for_each_member() {
        let asns = |list: &[u32]| list.iter().copied().map(Asn).collect::<AsnList>();
        let mut received = route("10.2.0.0/26", SourceClass::Bgp);
        received.attributes.to_mut().as_path = AsPath {
            segments: smallvec![
                Segment::Sequence(asns(&[1, 2])),
                Segment::Set(asns(&[3, 4])),
                Segment::Sequence(asns(&[5])),
            ],
        };
        for (list, expected) in [
            (&[][..], true),
            (&[1], true),
            (&[2], false),
            (&[1, 2], true),
            (&[1, 2, 4, 5], true),
            (&[1, 2, 3, 4], false),
            (&[1, 2, 3, 5, 6], false),
        ] {
            assert_eq!(holds(&Match::AsPathBegins(asns(list).into_vec()), &received), expected, "{list:?}");
        }
    }

    #[test]
    fn a_community_is_added_once_and_ases_go_in_front_in_their_order() {
        let mut received = route("10.2.0.0/26", SourceClass::Bgp);
        received.attributes.to_mut().as_path = AsPath::sequence([Asn(9)]);
        for action in [
            Action::AddCommunity(Community::Standard(7)),
            Action::AddCommunity(Community::Standard(7)),
            Action::AddCommunity(Community::Large([1, 2, 3])),
            Action::PrependAsPath(vec![Asn(1), Asn(2)]),
            Action::SetLocalPref(5),
        ] {
            apply(&action, &mut received);
        }
        assert_eq!(received.attributes.communities, [7]);
        assert_eq!(received.attributes.large_communities, [[1, 2, 3]]);
        assert_eq!(received.attributes.as_path, AsPath::sequence([Asn(1), Asn(2), Asn(9)]));
        assert!(holds(&Match::LocalPrefIs(5), &received));
        assert!(holds(&Match::Community(Community::Large([1, 2, 3])), &received));
        assert!(!holds(&Match::Community(Community::Standard(8)), &received));
    }
}
