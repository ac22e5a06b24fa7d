//! Conditions and actions in words, for `intent` and traces.
//!
//! Owns: one phrase for each [`Match`] and [`Action`]. Never: parsed by anybody.

use std::fmt;

use bgp_proto::Asn;

use super::program::{Action, Community, Device, Lengths, Match, SourceClass};

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Community::Standard(value) => write!(f, "{}:{}", value >> 16, value & 0xffff),
            Community::Large([a, b, c]) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

fn list(asns: &[Asn]) -> String {
    let asns: Vec<String> = asns.iter().map(|asn| asn.0.to_string()).collect();
    asns.join(" ")
}

/// A condition in words.
pub fn condition(condition: &Match) -> String {
    match condition {
        Match::Within(prefix) => format!("within {prefix}"),
        Match::Equals(prefix) => format!("equal to {prefix}"),
        Match::Source(class) => format!("source {}", class_name(*class)),
        Match::NotSource(class) => format!("source not {}", class_name(*class)),
        Match::Interface(glob) => format!("interface {glob}"),
        Match::MetricBelow(metric) => format!("metric below {metric}"),
        Match::LocalPrefAbove(value) => format!("LOCAL_PREF above {value}"),
        Match::NextHopWithin(prefix) => format!("next hop within {prefix}"),
        Match::NotEquals(prefix) => format!("not equal to {prefix}"),
        Match::WithinLengths(prefix, Lengths { min, max }) => {
            format!("within {prefix}, length {min} to {max}")
        }
        Match::NotWithinLengths(prefix, Lengths { min, max }) => {
            format!("not within {prefix} with a length of {min} to {max}")
        }
        Match::Never => "never".to_owned(),
        Match::InSet(set) => format!("within {}", set.name()),
        Match::EntryOf(set) => format!("one of {}", set.name()),
        Match::LocalPrefIs(value) => format!("LOCAL_PREF {value}"),
        Match::NextHopInSet(set) => format!("next hop one of {}", set.name()),
        Match::Internal(true) => "session internal".to_owned(),
        Match::Internal(false) => "session external".to_owned(),
        Match::Community(value) => format!("community {value}"),
        Match::AsPathBegins(asns) => format!("AS path begins with {}", list(asns)),
    }
}

/// A class as conditions name it.
pub const fn class_name(class: SourceClass) -> &'static str {
    match class {
        SourceClass::Direct => "direct",
        SourceClass::Static => "static",
        SourceClass::Bgp => "BGP",
        SourceClass::Kernel => "kernel",
    }
}

/// A change in words.
pub fn action(action: &Action) -> String {
    match action {
        Action::Normalise { priority, zero_is_none: false } => {
            format!("metric {priority} where there is none, LOCAL_PREF from metric")
        }
        Action::Normalise { priority, zero_is_none: true } => {
            format!("metric {priority} where there is none or 0, LOCAL_PREF from metric")
        }
        Action::SetPreference(preference) => format!("preference {preference}"),
        Action::MetricFromLocalPref => "metric from LOCAL_PREF".to_owned(),
        Action::SetLocalPref(value) => format!("LOCAL_PREF {value}"),
        Action::AddCommunity(value) => format!("add community {value}"),
        Action::PrependAsPath(asns) => format!("prepend {} to the AS path", list(asns)),
        Action::Through(Device { name, required: true }) => format!("through {name} to the BGP next hop"),
        Action::Through(Device { name, required: false }) => {
            format!("through {name} to the BGP next hop, if there is a {name}")
        }
    }
}
