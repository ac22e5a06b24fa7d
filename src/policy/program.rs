//! Policy programs: what confd renders as filter text, as data.
//!
//! Owns: [`Program`] and its parts, and what a program can be influenced by. Programs are compared and ordered by
//! content, so that equal ones can be one ([`Interner`]). Never: evaluates (see [`eval`](super::eval)) or knows
//! resources; a program is compiled by [`desired::programs`](crate::desired).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::sets::SetId;
pub use bgp_proto::rib::{Device, SourceClass};
use bgp_proto::{Asn, IpPrefix};

/// MAX = 2³¹ − 1: `LP = MAX − metric` and back, modulo 2³² (KERN-3, FILT-21).
pub const MAX_METRIC: u32 = 2_147_483_647;

/// Rules in order; the first that accepts or rejects ends it, else `default` does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Program {
    /// The rules.
    pub rules: Vec<Rule>,
    /// What is done with a route that no rule decided.
    pub default: Decision,
}

/// One rule: where all of `when` holds, the actions of `then` are done in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rule {
    /// Conditions, all of which must hold; none = always.
    pub when: Vec<Match>,
    /// Actions.
    pub then: Vec<Action>,
    /// What to do after the actions; `None` goes on with the next rule.
    pub decision: Option<Decision>,
    /// The words of the resource that it came from, as `BGPFilter/edge: spec.exportV4[0]`, for traces. Of a rule that
    /// asks a set, what is said of its entry.
    pub origin: String,
}

/// Accept or reject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Decision {
    /// The route passes.
    Accept,
    /// It does not.
    Reject,
}

/// A condition on a route.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Match {
    /// The prefix is this one or more specific.
    Within(IpPrefix),
    /// The prefix is this one.
    Equals(IpPrefix),
    /// It is not.
    NotEquals(IpPrefix),
    /// The prefix is inside, and its length is one of these (FILT-53).
    WithinLengths(IpPrefix, Lengths),
    /// It is not so.
    NotWithinLengths(IpPrefix, Lengths),
    /// No route does (FILT-53: `Equal` with `prefixLength`).
    Never,
    /// The prefix is an entry of this set or more specific than one.
    InSet(SetId),
    /// The prefix is an entry of this set, and not inside another one.
    EntryOf(SetId),
    /// The route is of this class.
    Source(SourceClass),
    /// The route is not of this class.
    NotSource(SourceClass),
    /// The name of the outgoing interface (empty if none) matches this shell glob (FILT-56).
    Interface(String),
    /// The metric is defined and below this (FILT-40 step 2).
    MetricBelow(u32),
    /// LOCAL_PREF is above this, unsigned (FILT-10 step 2).
    LocalPrefAbove(u32),
    /// LOCAL_PREF is this (FILT-60).
    LocalPrefIs(u32),
    /// The BGP next hop attribute (not the resolved gateway) is inside; false without one (KERN-12).
    NextHopWithin(IpPrefix),
    /// The BGP next hop attribute is an entry of this set (KERN-20).
    NextHopInSet(SetId),
    /// The session is internal (`true`) or external (FILT-57).
    Internal(bool),
    /// The route has this community (FILT-58).
    Community(Community),
    /// AS_PATH begins with these ASs (FILT-59).
    AsPathBegins(Vec<Asn>),
}

/// Lengths of prefixes, both ends among them; none where the first is above the second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lengths {
    /// The shortest.
    pub min: u8,
    /// The longest.
    pub max: u8,
}

/// A community.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 8092.
    Large([u32; 3]),
}

/// A change to a route.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// FILT-21: BGP routes get metric MAX − LP; others get this metric where they have none (or 0 where the second
    /// says that 0 counts as none, REL-4), then LP := MAX − metric.
    Normalise {
        /// `P`.
        priority: u32,
        /// REL-4: metric 0 of a kernel route counts as none.
        zero_is_none: bool,
    },
    /// Preference (FILT-10 step 2).
    SetPreference(u16),
    /// KERN-3: kernel metric := MAX − LP.
    MetricFromLocalPref,
    /// LOCAL_PREF (FILT-61).
    SetLocalPref(u32),
    /// Adds a community that is not there (FILT-38, FILT-61).
    AddCommunity(Community),
    /// Puts ASs in front of AS_PATH, the first of them first (FILT-61).
    PrependAsPath(Vec<Asn>),
    /// KERN-13: a BGP route leaves through this device, to its BGP next hop. Counts on the way to the kernel only.
    Through(Device),
}

impl Program {
    /// A program of no rules.
    pub const fn always(default: Decision) -> Self {
        Program { rules: Vec::new(), default }
    }

    fn asks(&self, of: impl Fn(&Match) -> bool) -> bool {
        self.rules.iter().flat_map(|rule| &rule.when).any(of)
    }

    /// Whether its outcome can depend on the content of a set.
    pub fn reads(&self, set: SetId) -> bool {
        self.asks(|condition| match condition {
            Match::InSet(asked) | Match::EntryOf(asked) | Match::NextHopInSet(asked) => *asked == set,
            _ => false,
        })
    }

    /// Whether its outcome can depend on the prefix of a route. Of one that does not, routes that share their
    /// attributes share the outcome.
    pub fn reads_prefix(&self) -> bool {
        self.asks(|condition| match condition {
            Match::Within(_)
            | Match::Equals(_)
            | Match::NotEquals(_)
            | Match::WithinLengths(..)
            | Match::NotWithinLengths(..)
            | Match::InSet(_)
            | Match::EntryOf(_) => true,
            Match::Never
            | Match::Source(_)
            | Match::NotSource(_)
            | Match::Interface(_)
            | Match::MetricBelow(_)
            | Match::LocalPrefAbove(_)
            | Match::LocalPrefIs(_)
            | Match::NextHopWithin(_)
            | Match::NextHopInSet(_)
            | Match::Internal(_)
            | Match::Community(_)
            | Match::AsPathBegins(_) => false,
        })
    }

    /// Whether its outcome can depend on the interface of a route.
    pub fn reads_interface(&self) -> bool {
        self.asks(|condition| matches!(condition, Match::Interface(_)))
    }
}

/// Makes equal programs one.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    by_content: BTreeSet<Arc<Program>>,
    /// What was asked for before, by its address, with what it became: sessions share programs, and a long one is
    /// compared once. It holds what was asked for, or the address could become another program's.
    asked: BTreeMap<usize, (Arc<Program>, Arc<Program>)>,
}

impl Interner {
    /// The program of this content: the one that is known, or else this one from now on.
    pub fn intern(&mut self, program: &Arc<Program>) -> Arc<Program> {
        let address = Arc::as_ptr(program).addr();
        if let Some((_, known)) = self.asked.get(&address) {
            return known.clone();
        }
        let known = self.by_content.get(program).unwrap_or(program).clone();
        self.by_content.insert(known.clone());
        self.asked.insert(address, (program.clone(), known.clone()));
        known
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Accept => "accept",
            Decision::Reject => "reject",
        })
    }
}
