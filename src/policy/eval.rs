//! Runs a program on a route.
//!
//! Owns: the meaning of every [`Match`] and [`Action`]. Never: looks anything up; all that a rule may ask stands in the
//! [`RouteView`]. The optional trace names each rule that applied, in the words of the resource it came from.

use bgp_proto::IpPrefix;
use bgp_proto::rib::decision::DEFAULT_LOCAL_PREF;
use bgp_proto::rib::{Policy, RouteView};

use super::glob;
use super::program::{Action, Decision, MAX_METRIC, Match, Program, SourceClass};

/// One rule that applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The rule's origin; `None`: the default of the program.
    pub origin: Option<String>,
    /// What it decided; `None`: it only changed the route.
    pub decision: Option<Decision>,
}

impl Program {
    /// A program of no rules.
    pub const fn always(default: Decision) -> Self {
        Program { rules: Vec::new(), default }
    }

    /// Runs it on a route, which it changes. Each rule that applies is added to `trace`.
    pub fn run(&self, route: &mut RouteView<'_>, mut trace: Option<&mut Vec<Step>>) -> Decision {
        for rule in &self.rules {
            if !rule.when.iter().all(|condition| holds(condition, route)) {
                continue;
            }
            for action in &rule.then {
                apply(action, route);
            }
            if let Some(trace) = trace.as_deref_mut() {
                trace.push(Step { origin: Some(rule.origin.clone()), decision: rule.decision });
            }
            if let Some(decision) = rule.decision {
                return decision;
            }
        }
        if let Some(trace) = trace {
            trace.push(Step { origin: None, decision: Some(self.default) });
        }
        self.default
    }

    /// Whether it asks for the interface of a route.
    pub fn reads_interface(&self) -> bool {
        self.asks(|condition| matches!(condition, Match::Interface(_)))
    }

    /// Whether it asks for the prefix of a route.
    pub fn reads_prefix(&self) -> bool {
        self.asks(|condition| matches!(condition, Match::Within(_) | Match::Equals(_)))
    }

    fn asks(&self, what: impl Fn(&Match) -> bool) -> bool {
        self.rules.iter().flat_map(|rule| &rule.when).any(what)
    }
}

impl Policy for Program {
    fn accepts(&self, route: &mut RouteView<'_>) -> bool {
        self.run(route, None) == Decision::Accept
    }

    fn reads_prefix(&self) -> bool {
        Program::reads_prefix(self)
    }

    fn reads_interface(&self) -> bool {
        Program::reads_interface(self)
    }
}

fn local_pref(route: &RouteView<'_>) -> u32 {
    route.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
}

fn holds(condition: &Match, route: &RouteView<'_>) -> bool {
    match condition {
        Match::Within(prefix) => prefix.covers(route.prefix),
        Match::Equals(prefix) => *prefix == route.prefix,
        Match::Source(class) => *class == route.class,
        Match::NotSource(class) => *class != route.class,
        Match::Interface(pattern) => glob::matches(pattern, route.interface),
        Match::MetricBelow(limit) => route.metric.is_some_and(|metric| metric < *limit),
        Match::LocalPrefAbove(limit) => local_pref(route) > *limit,
        Match::NextHopWithin(prefix) => {
            let next_hop = route.next_hop.filter(|_| route.class == SourceClass::Bgp);
            next_hop.is_some_and(|next_hop| IpPrefix::contains(*prefix, next_hop.addr()))
        }
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
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::policy::program::Rule;
    use bgp_proto::wire::{Attributes, NextHop};

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
        let run = |prefix: &str| program.run(&mut route(prefix, SourceClass::Static), None);
        assert_eq!(run("10.1.0.0/26"), Decision::Accept);
        assert_eq!(run("192.0.2.0/24"), Decision::Reject);
        let mut trace = Vec::new();
        program.run(&mut route("10.1.0.0/26", SourceClass::Static), Some(&mut trace));
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
        assert_eq!(program.run(&mut kernel, None), Decision::Reject, "an undefined metric is below nothing");
        kernel.metric = Some(0);
        assert_eq!(program.run(&mut kernel, None), Decision::Accept);
        kernel.metric = Some(1024);
        assert_eq!(program.run(&mut kernel, None), Decision::Reject);
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
}
