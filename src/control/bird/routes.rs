//! `show route`: rows and attributes (CTL-24, CTL-25, CTL-33).
//!
//! Owns: the text of a route. Never: chooses which are listed (see [`listing`](super::listing)).
//!
//! Plain `show route` is what Calico's status reporter reads, and it gives up on lines that its expressions do not
//! match (CTL-32): there a route has one `via` row for each leg, prohibit reads `unreachable`, and a workload's peer has
//! a name that the reporter takes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use bgp_proto::rib::{Forward, Leg, Source};
use bgp_proto::wire::{AsPath, Attributes, Origin, Segment};
use bgp_proto::{IpPrefix, Millis};

use super::reply::Reply;
use super::wall::Wall;
use crate::fib::FibRoute;
use crate::fib::Target;
use crate::fib::reconciler::FibStatus;
use crate::speaker::status::{PathStatus, RouteStatus};

const ROW: u16 = 1007;
const TYPE: u16 = 1008;
const ATTRIBUTE: u16 = 1012;
/// RTPROT_BOOT, what BIRD shows for a route whose owner is not told.
const NO_PROTOCOL: u8 = 3;

/// Names of protocols that routes come from beside sessions.
pub const STATIC: &str = "static1";
/// Connected prefixes.
pub const DIRECT: &str = "direct1";
/// Routes of others.
pub const KERNEL: &str = "kernel1";

/// A session as far as its routes show it.
#[derive(Clone, Debug)]
pub struct PeerOfRoutes {
    /// Its address.
    pub addr: IpAddr,
    /// When it came up, or went.
    pub since: Millis,
}

/// What rows are made with.
pub struct Rows<'a> {
    /// Times.
    pub wall: &'a Wall,
    /// Sessions by name.
    pub peers: &'a BTreeMap<String, PeerOfRoutes>,
    /// What the kernel refuses.
    pub fib: &'a FibStatus,
    /// As Calico's reporter wants it.
    pub plain: bool,
    /// With attributes.
    pub all: bool,
}

/// The protocol that a path comes from.
pub fn protocol_of(path: &PathStatus) -> &str {
    match path.source {
        Source::Static => STATIC,
        Source::Direct => DIRECT,
        Source::Kernel => KERNEL,
        Source::Peer(_) => &path.peer,
    }
}

impl Rows<'_> {
    /// Some paths of a destination. `as_written`: where the kernel's route leads instead of where the path does.
    pub fn destination(
        &self,
        reply: &mut Reply,
        route: &RouteStatus,
        paths: &[&PathStatus],
        as_written: Option<&FibRoute>,
    ) {
        let mut column = route.prefix.to_string();
        for path in paths {
            let (legs, names) = match (as_written, &path.forward) {
                (Some(written), _) => (written.target.legs(), &route.kernel_interfaces),
                (None, Forward::Legs(legs)) => (legs.as_slice(), &path.interfaces),
                (None, _) => (&[][..], &path.interfaces),
            };
            let legs: Vec<(Leg, &str)> = legs.iter().copied().zip(names.iter().map(String::as_str)).collect();
            let gateway = match legs.as_slice() {
                [(leg, _)] => leg.via,
                _ => None,
            };
            let rest = self.rest(route.prefix, path, gateway);
            let mut row = |leads: &str| {
                reply.line(ROW, format_args!("{column:<18} {leads} {rest}"));
                column.clear();
            };
            match legs.as_slice() {
                [] => row(self.special(path, as_written)),
                [(leg, name)] => row(&way(*leg, name)),
                several if self.plain => several.iter().for_each(|(leg, name)| row(&way(*leg, name))),
                several => {
                    row("multipath");
                    for (leg, name) in several {
                        reply.line(ROW, format_args!("\t{} weight {}", way(*leg, name), leg.weight));
                    }
                }
            }
            if self.all {
                self.attributes(reply, path);
            }
        }
    }

    fn special(&self, path: &PathStatus, as_written: Option<&FibRoute>) -> &'static str {
        let (blackhole, prohibit) = match as_written {
            Some(route) => (route.target == Target::Blackhole, route.target == Target::Prohibit),
            None => (path.forward == Forward::Blackhole, path.forward == Forward::Prohibit),
        };
        match (blackhole, prohibit) {
            (true, _) => "blackhole",
            (_, true) if !self.plain => "prohibited",
            _ => "unreachable",
        }
    }

    /// Everything behind where it leads.
    fn rest(&self, prefix: IpPrefix, path: &PathStatus, gateway: Option<IpAddr>) -> String {
        let name = protocol_of(path);
        let peer = self.peers.get(name).filter(|_| matches!(path.source, Source::Peer(_)));
        let since = self.wall.short(peer.map_or(Millis(0), |peer| peer.since));
        let from = peer.map(|peer| peer.addr).filter(|addr| Some(*addr) != gateway);
        let from = from.map(|addr| format!(" from {addr}")).unwrap_or_default();
        let mark = match (path.reason, self.fib.problems.contains_key(&prefix)) {
            (Some(_), _) => "",
            (None, false) => " *",
            (None, true) => " !",
        };
        let name = match name.strip_prefix("Local_Workload_") {
            Some(rest) if self.plain => format!("Node_{rest}"),
            _ => name.to_string(),
        };
        format!("[{name} {since}{from}]{mark}{}", info(path))
    }

    fn attributes(&self, reply: &mut Reply, path: &PathStatus) {
        let source = match path.source {
            Source::Static => "static",
            Source::Direct => "device",
            Source::Kernel => "inherit",
            Source::Peer(_) => "BGP",
        };
        reply.line(TYPE, format_args!("\tType: {source} unicast univ"));
        let mut line = |name: &str, value: String| reply.line(ATTRIBUTE, format_args!("\t{name}: {value}"));
        if path.source == Source::Kernel {
            line("Kernel.source", path.protocol.unwrap_or(NO_PROTOCOL).to_string());
            line("Kernel.metric", path.metric.unwrap_or_default().to_string());
        }
        if let Some(attributes) = &path.attributes {
            let next_hop = path.next_hop.map(|next_hop| next_hop.addr().to_string());
            bgp(attributes, next_hop, line);
        }
    }
}

fn way(leg: Leg, name: &str) -> String {
    match leg.via {
        Some(via) => format!("via {via} on {name}"),
        None => format!("dev {name}"),
    }
}

/// Preference, and for BGP how far the next hop is, the last AS and the origin.
fn info(path: &PathStatus) -> String {
    let preference = path.preference;
    let Some(attributes) = &path.attributes else { return format!(" ({preference})") };
    let stale = if path.stale { "s" } else { "" };
    let far = match (&path.forward, path.igp_metric) {
        (Forward::Legs(_), Some(metric)) => metric.to_string(),
        (Forward::Legs(_), None) => "?".into(),
        _ => "-".into(),
    };
    let last = match attributes.as_path.segments.last() {
        Some(Segment::Sequence(list)) => list.last(),
        Some(Segment::Set(list)) => list.first(),
        None => None,
    };
    let last = last.map(|asn| format!("AS{asn}")).unwrap_or_default();
    let origin = match attributes.origin {
        Origin::Igp => "i",
        Origin::Egp => "e",
        Origin::Incomplete => "?",
    };
    format!(" ({preference}{stale}/{far}) [{last}{origin}]")
}

/// The attributes of BGP on one line, in BIRD's words.
pub fn attributes_text(attributes: &Attributes, next_hop: Option<IpAddr>) -> String {
    let mut parts = Vec::new();
    let next_hop = next_hop.map(|next_hop| next_hop.to_string());
    bgp(attributes, next_hop, |name, value| {
        let name = name.strip_prefix("BGP.").unwrap_or(name);
        parts.push(format!("{name} {value}").trim_end().to_owned());
    });
    parts.join(", ")
}

fn bgp(attributes: &Attributes, next_hop: Option<String>, mut line: impl FnMut(&str, String)) {
    let origin = match attributes.origin {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "Incomplete",
    };
    line("BGP.origin", origin.into());
    line("BGP.as_path", as_path(&attributes.as_path));
    if let Some(next_hop) = next_hop {
        line("BGP.next_hop", next_hop);
    }
    if let Some(med) = attributes.med {
        line("BGP.med", med.to_string());
    }
    if let Some(local_pref) = attributes.local_pref {
        line("BGP.local_pref", local_pref.to_string());
    }
    if attributes.atomic_aggregate {
        line("BGP.atomic_aggr", String::new());
    }
    if let Some(aggregator) = &attributes.aggregator {
        line("BGP.aggregator", format!("{} AS{}", aggregator.router_id, aggregator.asn));
    }
    let list = |texts: Vec<String>| texts.join(" ");
    if !attributes.communities.is_empty() {
        let pairs = attributes.communities.iter().map(|c| format!("({},{})", c >> 16, c & 0xffff));
        line("BGP.community", list(pairs.collect()));
    }
    if let Some(id) = attributes.originator_id {
        line("BGP.originator_id", id.to_string());
    }
    if !attributes.cluster_list.is_empty() {
        line("BGP.cluster_list", list(attributes.cluster_list.iter().map(ToString::to_string).collect()));
    }
    if !attributes.ext_communities.is_empty() {
        line("BGP.ext_community", list(attributes.ext_communities.iter().map(ext_community).collect()));
    }
    if !attributes.large_communities.is_empty() {
        let triples = attributes.large_communities.iter().map(|[a, b, c]| format!("({a}, {b}, {c})"));
        line("BGP.large_community", list(triples.collect()));
    }
}

fn as_path(path: &AsPath) -> String {
    let mut text = String::new();
    for segment in &path.segments {
        let (open, numbers, close) = match segment {
            Segment::Sequence(list) => ("", list, ""),
            Segment::Set(list) => ("{", list, "}"),
        };
        if !text.is_empty() {
            text.push(' ');
        }
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        // Writing into a string cannot fail.
        let _ = write!(text, "{open}{}{close}", numbers.join(" "));
    }
    text
}

/// As BIRD writes one whose kind it does not name.
fn ext_community(octets: &[u8; 8]) -> String {
    let [a, b, c, d, e, f, g, h] = *octets;
    let (high, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    format!("(generic, 0x{high:x}, 0x{low:x})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::view::RouteProblem;
    use bgp_proto::rib::Reason;
    use bgp_proto::wire::NextHop;
    use bgp_proto::{Asn, RouterId};
    use std::sync::Arc;

    fn leg(via: Option<&str>, weight: u16) -> Leg {
        Leg { via: via.map(|via| via.parse().unwrap()), ifindex: 1, onlink: false, weight }
    }

    /// A path over these legs; the name of an interface stands before its gateway.
    fn path(source: Source, peer: &str, preference: u16, legs: &[(&str, Option<&str>, u16)]) -> PathStatus {
        PathStatus {
            source,
            peer: peer.into(),
            path_id: 0,
            out_id: 1,
            preference,
            stale: false,
            reason: None,
            forward: Forward::Legs(legs.iter().map(|(_, via, weight)| leg(*via, *weight)).collect()),
            interface: String::new(),
            interfaces: legs.iter().map(|(name, ..)| (*name).to_string()).collect(),
            igp_metric: None,
            attributes: None,
            next_hop: None,
            metric: None,
            protocol: None,
        }
    }

    fn special(source: Source, preference: u16, forward: Forward) -> PathStatus {
        PathStatus { forward, ..path(source, "", preference, &[]) }
    }

    fn alien(legs: &[(&str, Option<&str>, u16)], protocol: u8, metric: u32) -> PathStatus {
        let path = path(Source::Kernel, "", 10, legs);
        PathStatus { protocol: Some(protocol), metric: Some(metric), ..path }
    }

    fn received(peer: &str, gateway: &str, local_pref: u32) -> PathStatus {
        PathStatus {
            igp_metric: Some(0),
            next_hop: Some(NextHop::V4(gateway.parse().unwrap())),
            attributes: Some(Attributes { local_pref: Some(local_pref), ..Attributes::default() }),
            ..path(Source::Peer(0), peer, 100, &[("eth0", Some(gateway), 1)])
        }
    }

    fn shown(rows: &[(&str, Vec<PathStatus>)], plain: bool, all: bool, refused: &[&str]) -> String {
        let wall = Wall::at("2026-11-21T01:33:33Z", Millis(0));
        let peer = |addr: &str| PeerOfRoutes { addr: addr.parse().unwrap(), since: Millis(0) };
        let peers = BTreeMap::from([
            ("Mesh_10_99_0_2".to_string(), peer("10.99.0.2")),
            ("Mesh_10_99_0_3".to_string(), peer("10.99.0.3")),
            ("Global_10_99_0_1".to_string(), peer("10.99.0.1")),
            ("Local_Workload_10_244_0_5".to_string(), peer("10.244.0.5")),
        ]);
        let problem = |prefix: &&str| (prefix.parse().unwrap(), RouteProblem::Contested { repairs: 3 });
        let fib =
            FibStatus { problems: Arc::new(refused.iter().map(problem).collect()), ..FibStatus::default() };
        let rows_of = Rows { wall: &wall, peers: &peers, fib: &fib, plain, all };
        let mut reply = Reply::default();
        for (prefix, paths) in rows {
            let route = RouteStatus {
                prefix: prefix.parse().unwrap(),
                paths: paths.clone(),
                kernel: None,
                kernel_interfaces: Vec::new(),
            };
            let paths: Vec<&PathStatus> = route.paths.iter().collect();
            rows_of.destination(&mut reply, &route, &paths, None);
        }
        reply.done();
        reply.take()
    }

    /// A recorded answer with all times of day made one.
    fn recorded(text: &str, command: &str) -> String {
        let from = text.find(&format!(">>> {command}\n")).unwrap() + command.len() + 5;
        let text = &text[from..];
        let text = &text[..text.find("0000 \n").unwrap() + 6];
        let mut out = String::new();
        for line in text.lines() {
            let times: Vec<usize> = line.match_indices(':').map(|(at, _)| at).collect();
            let mut line = line.to_string();
            if let Some(at) = times.iter().find(|at| times.contains(&(*at + 3)) && line[..**at].contains('['))
            {
                line.replace_range(at - 2..at + 6, "01:33:33");
            }
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    fn table() -> Vec<(&'static str, Vec<PathStatus>)> {
        vec![
            ("0.0.0.0/0", vec![alien(&[("eth0", Some("10.99.0.254"), 1)], 3, 0)]),
            ("10.99.0.0/24", vec![path(Source::Direct, "", 240, &[("eth0", None, 1)])]),
            (
                "10.244.1.6/32",
                vec![PathStatus { preference: 200, ..received("Mesh_10_99_0_2", "10.99.0.2", 2147483135) }],
            ),
            ("10.244.0.5/32", vec![alien(&[("calixx00001", None, 1)], 80, 1024)]),
            ("10.244.2.0/26", vec![received("Mesh_10_99_0_3", "10.99.0.3", 2147482623)]),
            ("10.244.0.64/26", vec![special(Source::Static, 200, Forward::Blackhole)]),
            ("10.244.0.0/26", vec![special(Source::Static, 200, Forward::Blackhole)]),
            ("10.244.0.0/32", vec![path(Source::Direct, "", 240, &[("tunl0", None, 1)])]),
            ("10.244.1.0/26", vec![received("Mesh_10_99_0_2", "10.99.0.2", 2147482623)]),
        ]
    }

    #[test]
    fn a_table_is_listed_as_bird_lists_it() {
        let (short, long) = (
            include_str!("../../../fixtures/bird-ctl/show-route.txt"),
            include_str!("../../../fixtures/bird-ctl/show-route-all.txt"),
        );
        assert_eq!(shown(&table(), true, false, &[]), recorded(short, "show route"));
        assert_eq!(shown(&table(), false, true, &[]), recorded(long, "show route all"));
    }

    #[test]
    fn kinds_of_routes_are_listed_as_bird_lists_them_but_where_calicos_reporter_would_give_up() {
        let blackholes = vec![
            special(Source::Static, 200, Forward::Blackhole),
            PathStatus {
                reason: Some(Reason::Preference),
                ..special(Source::Kernel, 10, Forward::Blackhole)
            },
        ];
        let rows = [
            ("198.51.100.0/24", vec![special(Source::Kernel, 10, Forward::Unreachable)]),
            ("198.18.0.0/15", vec![special(Source::Kernel, 10, Forward::Prohibit)]),
            (
                "203.0.113.0/24",
                vec![alien(&[("eth0", Some("10.99.0.2"), 2), ("eth0", Some("10.99.0.3"), 1)], 4, 0)],
            ),
            ("10.244.0.0/26", blackholes),
        ];
        let text =
            recorded(include_str!("../../../fixtures/bird-ctl/show-route-alien-kinds.txt"), "show route");
        let ours = shown(&rows, false, false, &[]);
        for line in ours.lines().filter(|line| *line != "0000 ") {
            let line = line.replace("1007-", " ");
            assert!(text.contains(&format!("{line}\n")), "{line}");
        }
        let plain = shown(&rows, true, false, &[]);
        assert!(plain.contains(" 198.18.0.0/15      unreachable [kernel1 01:33:33] * (10)\n"), "{plain}");
        let legs = " 203.0.113.0/24     via 10.99.0.2 on eth0 [kernel1 01:33:33] * (10)\n                    via 10.99.0.3 on eth0 [kernel1 01:33:33] * (10)\n";
        assert!(plain.contains(legs), "{plain}");
    }

    #[test]
    fn a_workloads_routes_have_a_name_that_calicos_reporter_takes_in_the_plain_listing_only() {
        let rows = [("10.1.0.0/16", vec![received("Local_Workload_10_244_0_5", "10.244.0.5", 100)])];
        assert!(shown(&rows, true, false, &[]).contains("[Node_10_244_0_5 "));
        assert!(shown(&rows, false, false, &[]).contains("[Local_Workload_10_244_0_5 "));
    }

    #[test]
    fn what_the_kernel_refuses_what_was_reflected_and_what_leads_nowhere_is_marked() {
        let refused = [("10.244.1.0/26", vec![received("Mesh_10_99_0_2", "10.99.0.2", 100)])];
        let text = shown(&refused, false, false, &["10.244.1.0/26"]);
        assert_eq!(
            text,
            "1007-10.244.1.0/26      via 10.99.0.2 on eth0 [Mesh_10_99_0_2 01:33:33] ! (100/0) [i]\n0000 \n"
        );
        let mut reflected = received("Global_10_99_0_1", "10.99.0.3", 2147482623);
        if let Some(attributes) = &mut reflected.attributes {
            attributes.originator_id = Some(RouterId("10.99.0.3".parse().unwrap()));
            attributes.cluster_list = [bgp_proto::ClusterId("244.0.0.1".parse().unwrap())].into();
            attributes.communities = [64512 << 16 | 100, 1].into();
            attributes.large_communities = [[1, 2, 3]].into();
            attributes.as_path = AsPath::sequence([Asn(1), Asn(65002)]);
        }
        let text = shown(&[("10.244.2.0/26", vec![reflected])], false, true, &[]);
        for line in [
            "[Global_10_99_0_1 01:33:33 from 10.99.0.1] * (100/0) [AS65002i]\n",
            " \tBGP.as_path: 1 65002\n",
            " \tBGP.community: (64512,100) (0,1)\n",
            " \tBGP.originator_id: 10.99.0.3\n",
            " \tBGP.cluster_list: 244.0.0.1\n",
            " \tBGP.large_community: (1, 2, 3)\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let nowhere =
            PathStatus { forward: Forward::Unreachable, ..received("Mesh_10_99_0_3", "10.99.0.3", 100) };
        let text = shown(&[("10.244.9.0/26", vec![nowhere])], false, false, &[]);
        assert!(
            text.contains("unreachable [Mesh_10_99_0_3 01:33:33 from 10.99.0.3] * (100/-) [i]"),
            "{text}"
        );
    }
}
