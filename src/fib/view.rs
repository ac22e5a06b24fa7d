//! What is wanted of the kernel beside what is there, prefix by prefix, for people.
//!
//! Owns: the words and the order of a [`KernelLine`], and the question that the reconciler answers between two pieces of
//! work. Never: decides what is written.

use std::fmt::Write as _;

use bgp_proto::{Afi, IpPrefix};
use tokio::sync::oneshot;

use super::mirror::{Mirror, RouteSeen};
use super::reconciler::RouteProblem;
use super::{FibRoute, PROTOCOL, Phase, Target, stored_metric};

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
