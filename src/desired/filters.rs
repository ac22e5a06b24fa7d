//! BGPFilters as rules of programs.
//!
//! Owns: FILT-50 to FILT-64: each rule of a resource becomes one rule of a program, with the resource's words kept for
//! traces. Never: decides where in a pipeline filters stand ([`programs`](super::programs)).

use bgp_proto::{Afi, Family};

use super::inputs::Inputs;
use crate::model::{BgpFilter, CommunityValue, FilterOperation, FilterRule, MatchOperator, PrefixMatch};
use crate::policy::program::{Action, Community, Decision, Lengths, MAX_METRIC, Match, Rule, SourceClass};

/// Which of a filter's lists counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Import,
    Export,
}

/// The rules of the filters of these names, in list order. Names of filters that do not exist stand for no rules
/// (FILT-52); where `strict` is on nothing passes beside one.
pub(super) fn rules<F: Family>(inputs: &Inputs<'_>, names: &[String], direction: Direction) -> Vec<Rule> {
    let missing = names.iter().find(|name| !inputs.snapshot.filters.contains_key(*name));
    if let Some(name) = missing.filter(|_| inputs.facts.strict) {
        let origin = format!("BGPFilter/{name}: there is none, and strict is on");
        return vec![Rule { when: Vec::new(), then: Vec::new(), decision: Some(Decision::Reject), origin }];
    }
    let filters = names.iter().filter_map(|name| inputs.snapshot.filters.get(name));
    filters.flat_map(|filter| of_filter(filter, F::AFI, direction)).collect()
}

/// The rules of one filter for a family and a direction.
pub(super) fn of_filter(filter: &BgpFilter, afi: Afi, direction: Direction) -> Vec<Rule> {
    let (list, field) = match (direction, afi) {
        (Direction::Import, Afi::Ipv4) => (&filter.import_v4, "importV4"),
        (Direction::Import, Afi::Ipv6) => (&filter.import_v6, "importV6"),
        (Direction::Export, Afi::Ipv4) => (&filter.export_v4, "exportV4"),
        (Direction::Export, Afi::Ipv6) => (&filter.export_v6, "exportV6"),
    };
    list.iter().map(|rule| of_rule(filter, field, rule)).collect()
}

fn of_rule(filter: &BgpFilter, field: &str, rule: &FilterRule) -> Rule {
    let mut when = Vec::new();
    when.extend(rule.prefix.and_then(prefix_condition));
    if rule.remote_peers {
        when.push(Match::Source(SourceClass::Bgp));
    }
    when.extend(rule.interface.clone().map(Match::Interface));
    when.extend(rule.internal.map(Match::Internal));
    when.extend(rule.community.map(|value| Match::Community(value.into())));
    if !rule.as_path_prefix.is_empty() {
        when.push(Match::AsPathBegins(rule.as_path_prefix.clone()));
    }
    when.extend(rule.priority.map(|priority| Match::LocalPrefIs(MAX_METRIC.wrapping_sub(priority))));
    // Operations belong to `Accept` only (FILT-61).
    let then = if rule.accept { rule.operations.iter().map(action).collect() } else { Vec::new() };
    Rule {
        when,
        then,
        decision: Some(if rule.accept { Decision::Accept } else { Decision::Reject }),
        origin: format!("BGPFilter/{}: spec.{field}[{}]", filter.name, rule.index),
    }
}

/// FILT-53; `None`: every prefix matches. With `prefixLength`, BIRD compares a prefix with a set of prefixes, which are
/// never equal (DEF-15).
fn prefix_condition(prefix: PrefixMatch) -> Option<Match> {
    let PrefixMatch { cidr, operator, length } = prefix;
    let lengths = length.map(|(min, max)| {
        let longest = match cidr.afi() {
            Afi::Ipv4 => 32,
            Afi::Ipv6 => 128,
        };
        Lengths { min: min.unwrap_or(0).max(cidr.len()), max: max.unwrap_or(longest) }
    });
    let whole = Lengths { min: cidr.len(), max: u8::MAX };
    match (operator, lengths) {
        (MatchOperator::In, None) => Some(Match::Within(cidr)),
        (MatchOperator::In, Some(lengths)) => Some(Match::WithinLengths(cidr, lengths)),
        (MatchOperator::NotIn, lengths) => Some(Match::NotWithinLengths(cidr, lengths.unwrap_or(whole))),
        (MatchOperator::Equal, None) => Some(Match::Equals(cidr)),
        (MatchOperator::Equal, Some(_)) => Some(Match::Never),
        (MatchOperator::NotEqual, None) => Some(Match::NotEquals(cidr)),
        (MatchOperator::NotEqual, Some(_)) => None,
    }
}

fn action(operation: &FilterOperation) -> Action {
    match operation {
        FilterOperation::AddCommunity(value) => Action::AddCommunity((*value).into()),
        FilterOperation::PrependAsPath(asns) => Action::PrependAsPath(asns.clone()),
        FilterOperation::SetPriority(priority) => Action::SetLocalPref(MAX_METRIC.wrapping_sub(*priority)),
    }
}

impl From<CommunityValue> for Community {
    fn from(value: CommunityValue) -> Community {
        match value {
            CommunityValue::Standard(a, b) => Community::Standard(u32::from(a) << 16 | u32::from(b)),
            CommunityValue::Large(a, b, c) => Community::Large([a, b, c]),
        }
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::rib::RouteView;
    use bgp_proto::wire::{AsPath, Attributes, NextHop, Segment};
    use bgp_proto::{Asn, IpPrefix};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::eval::Bound;
    use crate::policy::glob;
    use crate::policy::program::Program;
    use crate::policy::sets::Sets;

    /// A filter read as its specification says it, rule by rule: `None` where no rule decides.
    fn interpret(rules: &[FilterRule], route: &mut RouteView<'_>) -> Option<bool> {
        for rule in rules {
            let lp = route.attributes.local_pref.unwrap_or(100);
            let inside = |cidr: IpPrefix| cidr.covers(route.prefix);
            let prefix = rule.prefix.is_none_or(|prefix| {
                let PrefixMatch { cidr, operator, length } = prefix;
                let lengths = length.is_none_or(|(min, max)| {
                    let len = route.prefix.len();
                    len >= cidr.len().max(min.unwrap_or(0)) && len <= max.unwrap_or(128)
                });
                match operator {
                    MatchOperator::In => inside(cidr) && lengths,
                    MatchOperator::NotIn => !(inside(cidr) && lengths),
                    MatchOperator::Equal => length.is_none() && route.prefix == cidr,
                    MatchOperator::NotEqual => length.is_some() || route.prefix != cidr,
                }
            });
            let path: Vec<Asn> = route.attributes.as_path.asns().collect();
            let community = rule.community.is_none_or(|value| match value {
                CommunityValue::Standard(a, b) => {
                    let number = u32::from(a) * 65536 + u32::from(b);
                    route.attributes.communities.contains(&number)
                }
                CommunityValue::Large(a, b, c) => route.attributes.large_communities.contains(&[a, b, c]),
            });
            let applies = prefix
                && (!rule.remote_peers || route.class == SourceClass::Bgp)
                && rule.interface.as_ref().is_none_or(|name| glob::matches(name, route.interface))
                && rule.internal.is_none_or(|internal| route.internal == Some(internal))
                && community
                && path.starts_with(&rule.as_path_prefix)
                && rule.priority.is_none_or(|priority| lp == 2_147_483_647 - priority);
            if !applies {
                continue;
            }
            if !rule.accept {
                return Some(false);
            }
            for operation in &rule.operations {
                let attributes = route.attributes.to_mut();
                match operation {
                    FilterOperation::SetPriority(priority) => {
                        attributes.local_pref = Some(2_147_483_647 - priority);
                    }
                    FilterOperation::PrependAsPath(asns) => {
                        let path = asns.iter().copied().chain(attributes.as_path.asns());
                        attributes.as_path = AsPath::sequence(path.collect::<Vec<_>>());
                    }
                    FilterOperation::AddCommunity(CommunityValue::Standard(a, b)) => {
                        let number = u32::from(*a) * 65536 + u32::from(*b);
                        if !attributes.communities.contains(&number) {
                            attributes.communities.push(number);
                        }
                    }
                    FilterOperation::AddCommunity(CommunityValue::Large(a, b, c)) => {
                        if !attributes.large_communities.contains(&[*a, *b, *c]) {
                            attributes.large_communities.push([*a, *b, *c]);
                        }
                    }
                }
            }
            return Some(true);
        }
        None
    }

    fn prefix() -> impl Strategy<Value = IpPrefix> {
        (0..4u32, prop_oneof![Just(8u8), 14..=18u8, Just(24), Just(32)]).prop_map(|(bits, len)| {
            IpPrefix::new(std::net::Ipv4Addr::from(0x0a00_0000 | bits << 16).into(), len).unwrap()
        })
    }

    fn community() -> impl Strategy<Value = CommunityValue> {
        prop_oneof![
            (0..2u16, 0..2u16).prop_map(|(a, b)| CommunityValue::Standard(a, b)),
            (0..2u32).prop_map(|a| CommunityValue::Large(a, 0, 1)),
        ]
    }

    fn asns(least: usize) -> impl Strategy<Value = Vec<Asn>> {
        prop::collection::vec((1..3u32).prop_map(Asn), least..3)
    }

    fn operation() -> impl Strategy<Value = FilterOperation> {
        prop_oneof![
            community().prop_map(FilterOperation::AddCommunity),
            asns(1).prop_map(FilterOperation::PrependAsPath),
            (1023..1026u32).prop_map(FilterOperation::SetPriority),
        ]
    }

    prop_compose! {
        fn prefix_match()(
            cidr in prefix(),
            operator in prop_oneof![
                Just(MatchOperator::In), Just(MatchOperator::NotIn),
                Just(MatchOperator::Equal), Just(MatchOperator::NotEqual),
            ],
            length in prop::option::of((prop::option::of(14..=32u8), prop::option::of(14..=32u8))),
        ) -> PrefixMatch {
            PrefixMatch { cidr, operator, length }
        }
    }

    prop_compose! {
        fn rule()(
            prefix in prop::option::weighted(0.7, prefix_match()),
            remote_peers in prop::bool::weighted(0.2),
            interface in prop::option::weighted(0.2, prop_oneof![Just("*"), Just("eth*"), Just("tunl0")]),
            internal in prop::option::weighted(0.2, any::<bool>()),
            community in prop::option::weighted(0.2, community()),
            as_path_prefix in prop_oneof![3 => Just(Vec::new()), 1 => asns(0)],
            priority in prop::option::weighted(0.2, 1023..1026u32),
            accept in any::<bool>(),
            operations in prop::collection::vec(operation(), 0..4),
        ) -> FilterRule {
            let interface = interface.map(str::to_owned);
            let index = 0;
            FilterRule {
                index, prefix, remote_peers, interface, internal, community, as_path_prefix, priority, accept,
                operations,
            }
        }
    }

    prop_compose! {
        fn route()(
            prefix in prefix(),
            class in prop_oneof![Just(SourceClass::Bgp), Just(SourceClass::Static), Just(SourceClass::Kernel)],
            interface in prop_oneof![Just(""), Just("eth0"), Just("tunl0")],
            internal in any::<bool>(),
            local_pref in prop::option::of((1023..1026u32).prop_map(|p| 2_147_483_647 - p)),
            path in asns(0),
            communities in prop::collection::btree_set(community(), 0..3),
        ) -> RouteView<'static> {
            let mut attributes = Attributes { local_pref, as_path: AsPath::sequence(path), ..Default::default() };
            for value in communities {
                match value.into() {
                    Community::Standard(value) => attributes.communities.push(value),
                    Community::Large(value) => attributes.large_communities.push(value),
                }
            }
            RouteView {
                prefix, class, interface, internal: Some(internal), metric: None,
                preference: class.preference(), attributes: std::borrow::Cow::Owned(attributes),
                next_hop: Some(NextHop::V4([10, 0, 0, 1].into())), device: None,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn the_program_of_a_filter_says_what_the_resource_says(
            rules in prop::collection::vec(rule(), 0..6),
            route in route(),
        ) {
            let filter = BgpFilter { name: "f".into(), export_v4: rules.clone(), ..Default::default() };
            let made = of_filter(&filter, Afi::Ipv4, Direction::Export);
            // What no rule decides differs by the default.
            for default in [Decision::Accept, Decision::Reject] {
                let program = Program { rules: made.clone(), default };
                let (mut by_program, mut by_resource) = (route.clone(), route.clone());
                let sets = Sets::default();
                let verdict = Bound { program: &program, sets: &sets }.run(&mut by_program, None);
                let expected = interpret(&rules, &mut by_resource)
                    .map_or(default, |accept| if accept { Decision::Accept } else { Decision::Reject });
                prop_assert_eq!(verdict, expected);
                if expected == Decision::Accept {
                    let asns = |route: &RouteView<'_>| route.attributes.as_path.asns().collect::<Vec<_>>();
                    prop_assert_eq!(asns(&by_program), asns(&by_resource));
                    by_program.attributes.to_mut().as_path.segments.retain(|segment: &mut Segment| match segment {
                        Segment::Sequence(list) | Segment::Set(list) => !list.is_empty(),
                    });
                    prop_assert_eq!(&by_program.attributes.communities, &by_resource.attributes.communities);
                    prop_assert_eq!(&by_program.attributes.large_communities, &by_resource.attributes.large_communities);
                    prop_assert_eq!(by_program.attributes.local_pref, by_resource.attributes.local_pref);
                }
            }
        }
    }

    #[test]
    fn a_rule_keeps_the_words_of_its_resource() {
        let rule = FilterRule { index: 3, accept: true, ..Default::default() };
        let filter = BgpFilter { name: "edge".into(), import_v6: vec![rule], ..Default::default() };
        let rules = of_filter(&filter, Afi::Ipv6, Direction::Import);
        assert_eq!(rules[0].origin, "BGPFilter/edge: spec.importV6[3]");
        assert!(of_filter(&filter, Afi::Ipv4, Direction::Import).is_empty());
        assert!(of_filter(&filter, Afi::Ipv6, Direction::Export).is_empty());
    }

    #[test]
    fn bounds_that_cross_match_no_prefix() {
        let prefix = PrefixMatch {
            cidr: "10.0.0.0/8".parse().unwrap(),
            operator: MatchOperator::In,
            length: Some((Some(26), Some(24))),
        };
        let lengths = Lengths { min: 26, max: 24 };
        assert_eq!(prefix_condition(prefix), Some(Match::WithinLengths(prefix.cidr, lengths)));
    }
}
