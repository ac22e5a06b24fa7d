//! Routes of the table as they stand on the line.
//!
//! Owns: which path becomes which line, and the words for what became of it. Never: decides.

use std::fmt::Write as _;

use bgp_proto::Asn;
use bgp_proto::rib::{Forward, Reason, Refused, SourceClass};
use bgp_proto::wire::{Origin, Segment};

use super::answer::{AsPathItem, BgpRoute, PAGE, Page, Route};
use crate::fib::Wish;
use crate::fib::reconciler::FibStatus;
use crate::speaker::status::{PathStatus, RouteStatus};

/// One page: every path of these destinations, and where the next page begins if this one is full.
pub fn page(destinations: &[RouteStatus], fib: &FibStatus) -> Page {
    let routes = destinations
        .iter()
        .flat_map(|destination| destination.paths.iter().map(|path| route(destination, path, fib)))
        .collect();
    let full = destinations.len() >= PAGE;
    let next = destinations.last().filter(|_| full).map(|last| last.prefix.to_string());
    Page { routes, next }
}

fn route(destination: &RouteStatus, path: &PathStatus, fib: &FibStatus) -> Route {
    let best = path.reason.is_none();
    let wanted = destination.kernel.as_ref().filter(|_| best);
    let mut state = match (path.reason, wanted) {
        (Some(reason), _) => words(reason).to_string(),
        (None, None) => "best".to_string(),
        (None, Some(wish)) => match (fib.problems.get(&destination.prefix), wish) {
            (Some(problem), _) => format!("not in the kernel as wanted: {problem}"),
            (None, Wish::Route(route)) => match fib.repeated.get(&destination.prefix) {
                None => format!("kernel {}", route.target.kind()),
                Some(times) => format!(
                    "kernel {}, repaired {times} times: another program removes or changes it",
                    route.target.kind()
                ),
            },
            (None, Wish::Waits { device }) => format!("waits for the device {device}"),
            (None, Wish::Nothing) => "best".to_string(),
        },
    };
    if path.stale {
        let _ = write!(state, ", stale");
    }
    Route {
        prefix: destination.prefix.to_string(),
        source: match path.source.class() {
            SourceClass::Direct => "direct",
            SourceClass::Static => "static",
            SourceClass::Bgp => "bgp",
            SourceClass::Kernel => "kernel",
        }
        .into(),
        peer: Some(path.peer.clone()).filter(|name| !name.is_empty()),
        from: None,
        via: via(path),
        dev: Some(path.interface.clone()).filter(|name| !name.is_empty()),
        metric: wanted.and_then(Wish::route).map(|route| route.metric).or(path.metric),
        best,
        state,
        bgp: bgp(path),
    }
}

fn bgp(path: &PathStatus) -> Option<BgpRoute> {
    let attributes = path.attributes.as_ref()?;
    let numbers = |list: &[Asn]| list.iter().map(|asn| asn.0).collect::<Vec<_>>();
    let as_path = attributes.as_path.segments.iter().flat_map(|segment| match segment {
        Segment::Sequence(list) => numbers(list).into_iter().map(AsPathItem::As).collect(),
        Segment::Set(list) => vec![AsPathItem::Set(numbers(list))],
    });
    Some(BgpRoute {
        next_hop: path.next_hop.map(|next_hop| next_hop.addr().to_string()).unwrap_or_default(),
        as_path: as_path.collect(),
        origin: match attributes.origin {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        }
        .into(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: attributes.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect(),
    })
}

/// Gateways, or what becomes of packets instead.
fn via(path: &PathStatus) -> Option<String> {
    match &path.forward {
        Forward::Legs(legs) => {
            let gateways: Vec<String> =
                legs.iter().filter_map(|leg| leg.via).map(|via| via.to_string()).collect();
            Some(gateways.join(" ")).filter(|text| !text.is_empty())
        }
        Forward::Blackhole => Some("blackhole".into()),
        Forward::Unreachable => Some("unreachable".into()),
        Forward::Prohibit => Some("prohibit".into()),
    }
}

/// Why a path is not the best.
const fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::Refused(Refused::AsLoop) => "refused: our AS is in its AS_PATH",
        Reason::Refused(Refused::OwnOriginator) => "refused: we are its originator",
        Reason::Refused(Refused::ClusterLoop) => "refused: our cluster is in its CLUSTER_LIST",
        Reason::Refused(Refused::NextHop) => "refused: its next hop is no address of a host",
        Reason::Refused(Refused::Bogus) => "refused: no unicast network",
        Reason::Refused(Refused::Policy) => "refused by import policy",
        Reason::GatewayNotConnected => "its gateway is on no connected subnet",
        Reason::Preference => "another has a higher preference",
        Reason::Class => "a route of a class that goes first has the same preference",
        Reason::Unresolvable => "its next hop leads nowhere",
        Reason::LongLivedStale => "it is long-lived stale, another is not",
        Reason::LocalPref => "another has a higher LOCAL_PREF",
        Reason::PathLength => "another has a shorter AS_PATH",
        Reason::Origin => "another has a lower ORIGIN",
        Reason::Med => "another from the same AS has a lower MED",
        Reason::Internal => "another is external",
        Reason::IgpMetric => "the next hop of another is nearer",
        Reason::RouterId => "another comes from a lower router id",
        Reason::ClusterList => "another was reflected fewer times",
        Reason::PeerAddress => "another comes from a lower peer address",
        Reason::PathId => "another has a lower path id",
    }
}
