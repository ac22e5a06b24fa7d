//! Policy programs: what confd renders as filter text, as data.
//!
//! Owns: [`Program`] and its parts. Never: evaluates (see [`eval`](super::eval)) or knows resources; a program is
//! compiled by [`desired::programs`](crate::desired).

use std::fmt;

use bgp_proto::IpPrefix;
pub use bgp_proto::rib::{Device, SourceClass};

/// MAX = 2³¹ − 1: `LP = MAX − metric` and back, modulo 2³² (KERN-3, FILT-21).
pub const MAX_METRIC: u32 = 2_147_483_647;

/// Rules in order; the first that accepts or rejects ends it, else `default` does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Program {
    /// The rules.
    pub rules: Vec<Rule>,
    /// What is done with a route that no rule decided.
    pub default: Decision,
}

/// One rule: where all of `when` holds, the actions of `then` are done in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// Conditions, all of which must hold; none = always.
    pub when: Vec<Match>,
    /// Actions.
    pub then: Vec<Action>,
    /// What to do after the actions; `None` goes on with the next rule.
    pub decision: Option<Decision>,
    /// The words of the resource that it came from, as `IPPool/default: disableBGPExport`, for `explain`.
    pub origin: String,
}

/// Accept or reject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// The route passes.
    Accept,
    /// It does not.
    Reject,
}

/// A condition on a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Match {
    /// The prefix is this one or more specific.
    Within(IpPrefix),
    /// The prefix is this one.
    Equals(IpPrefix),
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
    /// The BGP next hop attribute (not the resolved gateway) is inside; false without one (KERN-12, KERN-20).
    NextHopWithin(IpPrefix),
}

/// A change to a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
    /// KERN-13: a BGP route leaves through this device, to its BGP next hop. Counts on the way to the kernel only.
    Through(Device),
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Decision::Accept => "accept",
            Decision::Reject => "reject",
        })
    }
}
