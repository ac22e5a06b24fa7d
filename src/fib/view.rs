//! What is wanted of the kernel beside what is there, prefix by prefix, for people.
//!
//! Owns: the words and the order of a [`KernelLine`], and the question that the reconciler answers between two pieces of
//! work. Never: decides what is written.

use std::fmt::Write as _;

use bgp_proto::{Afi, IpPrefix};
use tokio::sync::oneshot;

use super::mirror::{Mirror, RouteSeen};
use super::{FibRoute, PROTOCOL, Phase, Refusal, TUNNEL, Target, stored_metric};

/// Why a wanted route is not in the kernel as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteProblem {
    /// The kernel refused it.
    Refused(Refusal),
    /// Somebody else's route holds its prefix and metric (KRT-38, K1). It is left alone.
    Conflict {
        /// The metric.
        metric: u32,
        /// The protocol number of the owner.
        owner: u8,
    },
    /// The device that it goes through is not there or not up (BDEF-10). What the kernel holds stays until then.
    Waits {
        /// The device's name.
        device: &'static str,
    },
    /// Somebody keeps removing it; it comes back within a second.
    Removed {
        /// How often it was put back since it last was at peace.
        repairs: u32,
    },
    /// A Felix that holds IPIP routes for its own deletes it: ours yields and tries again later.
    Yielded,
    /// Somebody keeps writing there with our mark; the next attempt waits.
    Contested {
        /// How often it was repaired since it last was at peace.
        repairs: u32,
    },
}

impl std::fmt::Display for RouteProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RouteProblem::Refused(refusal) => write!(f, "the kernel refuses it: {refusal}"),
            RouteProblem::Conflict { metric, owner } => {
                write!(f, "a route of protocol {owner} has the same prefix and metric {metric}")
            }
            RouteProblem::Waits { device } => {
                write!(
                    f,
                    "the device {device} is not there or not up; what the kernel holds stays until then"
                )
            }
            RouteProblem::Removed { repairs } => {
                write!(f, "another program keeps removing it (put back {repairs} times)")
            }
            RouteProblem::Yielded => write!(
                f,
                "another program, perhaps Felix, deletes routes over {TUNNEL} and no others: it is left to it, \
                 and tried again every 30 s; programClusterRoutes says who is to write them"
            ),
            RouteProblem::Contested { repairs } => {
                write!(f, "another program keeps changing it (repaired {repairs} times)")
            }
        }
    }
}

/// A question to the reconciler.
#[derive(Debug)]
pub struct KernelLook {
    /// Of this family.
    pub afi: Afi,
    /// Prefixes after this one.
    pub after: Option<IpPrefix>,
    /// At most so many.
    pub limit: usize,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Vec<KernelLine>>,
}

/// How a prefix fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineState {
    /// In the kernel exactly as wanted.
    Installed,
    /// Will be written, or taken away, next.
    Pending,
    /// Another owner's route has its place.
    Conflicting,
    /// The device that it goes through is not there.
    Waiting,
    /// Refused by the kernel, contested, or left to another.
    Failed,
    /// Found at start and not wanted yet: it stays until recovery ends.
    Adopted,
}

impl LineState {
    /// As `show kernel` has it.
    pub const fn name(self) -> &'static str {
        match self {
            LineState::Installed => "installed",
            LineState::Pending => "pending",
            LineState::Conflicting => "conflicting",
            LineState::Waiting => "waiting",
            LineState::Failed => "failed",
            LineState::Adopted => "adopted",
        }
    }
}

/// One prefix that is wanted, or holds a route of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelLine {
    /// The prefix.
    pub prefix: IpPrefix,
    /// How it fares.
    pub state: LineState,
    /// What is wanted, as `ip route` would say it.
    pub desired: Option<String>,
    /// What is there, ours and what stands in our place, as `ip route` would say it.
    pub actual: Vec<String>,
    /// Why it is not as wanted, or what else there is to say.
    pub reason: Option<String>,
}

/// The line of one prefix; `None`: it is not wanted and none of ours is there.
pub(super) fn line(
    prefix: IpPrefix,
    desired: Option<&FibRoute>,
    waits: Option<&'static str>,
    problem: Option<&RouteProblem>,
    repaired: Option<u32>,
    mirror: &Mirror,
    phase: Phase,
) -> Option<KernelLine> {
    let metric = desired.map(|route| stored_metric(prefix.afi(), route.metric));
    let seen = mirror.routes_at(prefix);
    let concerns = |seen: &&RouteSeen| seen.protocol == PROTOCOL || Some(seen.metric) == metric;
    let actual: Vec<&RouteSeen> = seen.iter().filter(concerns).collect();
    if desired.is_none() && waits.is_none() && actual.is_empty() {
        return None;
    }
    let ours: Vec<&&RouteSeen> = actual.iter().filter(|seen| seen.protocol == PROTOCOL).collect();
    let as_wanted = |seen: &&&RouteSeen| {
        desired.is_some_and(|route| {
            seen.plain && Some(seen.metric) == metric && seen.target.as_ref() == Some(&route.target)
        })
    };
    let state = match (problem, desired) {
        (Some(RouteProblem::Waits { .. }), _) => LineState::Waiting,
        (Some(RouteProblem::Conflict { .. }), _) => LineState::Conflicting,
        (Some(_), _) => LineState::Failed,
        (None, Some(_)) if ours.iter().any(as_wanted) => LineState::Installed,
        (None, None) if phase == Phase::Recovering => LineState::Adopted,
        (None, _) => LineState::Pending,
    };
    let times =
        repaired.map(|times| format!("repaired {times} times: another program removes or changes it"));
    let adopted =
        (state == LineState::Adopted).then(|| "found at start; stays until recovery ends".to_owned());
    Some(KernelLine {
        prefix,
        state,
        desired: desired.map(|route| words(&route.target, route.metric, None, mirror)),
        actual: actual
            .iter()
            .map(|seen| match &seen.target {
                Some(target) => words(target, seen.metric, Some(seen.protocol), mirror),
                None => format!("of another kind proto {} metric {}", seen.protocol, seen.metric),
            })
            .collect(),
        reason: problem.map(ToString::to_string).or(times).or(adopted),
    })
}

/// A route in the words of `ip route`, without its prefix.
pub(super) fn words(target: &Target, metric: u32, protocol: Option<u8>, mirror: &Mirror) -> String {
    let mut text = match target {
        Target::Unicast(_) => String::new(),
        other => other.kind().to_owned(),
    };
    for leg in target.legs() {
        let space = if text.is_empty() { "" } else { ", " };
        let via = leg.via.map(|via| format!("via {via} ")).unwrap_or_default();
        let dev =
            mirror.link(leg.ifindex).map_or_else(|| format!("#{}", leg.ifindex), |link| link.name.clone());
        let onlink = if leg.onlink { " onlink" } else { "" };
        // Writing into a String cannot fail.
        let _ = write!(text, "{space}{via}dev {dev}{onlink}");
    }
    if let Some(protocol) = protocol {
        let _ = write!(text, " proto {protocol}");
    }
    if metric != 0 {
        let _ = write!(text, " metric {metric}");
    }
    text
}
