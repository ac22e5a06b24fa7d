//! What becomes of a route: through a peer's import, another peer's export, and the rules of the kernel.
//!
//! Owns: [`evaluate`] and the form of its answer. The rules are those that run in production, and so is what runs them;
//! an answer adds the words of each rule that applied. Never: reads a table; next hops are not resolved, and the
//! interface is what the question says. Input: a [`DesiredState`] and a [`Question`].
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use bgp_proto::rib::{
    Admitted, ExportProfile, Forward, ImportProfile, PathView, Policy, ProgramId, RouteView, Source,
    SourceClass, SourcePeer, export,
};
use bgp_proto::wire::{AsPath, Attributes, NextHop, Segment};
use bgp_proto::{Afi, IpPrefix, RouterId};
use serde::Serialize;

use crate::desired::{DesiredState, Peer};
use crate::policy::eval::{Bound, Step};
use crate::policy::program::{Community, Decision};
use crate::policy::sets::Sets;

/// A route, and the way that it goes.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its prefix.
    pub prefix: IpPrefix,
    /// The session that it is received on, by name or address.
    pub from: Option<String>,
    /// The session that it is sent on, by name or address.
    pub to: Option<String>,
    /// Its class where it is not received.
    pub class: SourceClass,
    /// The interface that it leaves through; empty: none.
    pub interface: String,
    /// Its metric, of a route of the kernel.
    pub metric: Option<u32>,
    /// Its attributes, of a received route.
    pub attributes: Attributes,
    /// Its next hop, of a received route; `None`: the address of the peer.
    pub next_hop: Option<IpAddr>,
}

/// What becomes of the route, one stage after the other; a stage that rejects it is the last one on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// The prefix.
    pub prefix: String,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// One run of a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// `import from NAME`, `export to NAME` or `kernel`.
    pub stage: String,
    /// `accept` or `reject`.
    pub verdict: &'static str,
    /// Why it is rejected where no rule did so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the stage changed, in words.
    pub changes: Vec<String>,
    /// The rules that applied, in order.
    pub trace: Vec<TraceView>,
}

/// A rule that applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TraceView {
    /// In the words of its resource.
    pub rule: String,
    /// `accept`, `reject`, or `continue`.
    pub outcome: &'static str,
}

/// A peer that the state does not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPeer(pub String);

impl fmt::Display for UnknownPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no session has the name or address {:?}", self.0)
    }
}

impl std::error::Error for UnknownPeer {}

/// A program that writes down what it did.
struct Traced<'a> {
    bound: Bound<'a>,
    steps: RefCell<Vec<Step>>,
}

impl<'a> Traced<'a> {
    fn new(bound: Bound<'a>) -> Self {
        Traced { bound, steps: RefCell::new(Vec::new()) }
    }

    fn into_views(self) -> Vec<TraceView> {
        let view = |step: Step| TraceView {
            rule: step.origin.unwrap_or_else(|| "no rule decided".to_owned()),
            outcome: match step.decision {
                Some(Decision::Accept) => "accept",
                Some(Decision::Reject) => "reject",
                None => "continue",
            },
        };
        self.steps.into_inner().into_iter().map(view).collect()
    }
}

impl Policy for Traced<'_> {
    fn accepts(&self, route: &mut RouteView<'_>) -> bool {
        self.bound.run(route, Some(&mut self.steps.borrow_mut())) == Decision::Accept
    }
}

/// A route between two stages.
struct Now {
    attributes: Attributes,
    next_hop: Option<NextHop>,
}

/// Sends a route on its way.
///
/// # Errors
/// [`UnknownPeer`] where the question names a session that there is not.
pub fn evaluate(state: &DesiredState, question: &Question) -> Result<Evaluation, UnknownPeer> {
    let afi = question.prefix.afi();
    let find = |name: &Option<String>| match name {
        None => Ok(None),
        Some(name) => peer(state, afi, name).map(Some).ok_or_else(|| UnknownPeer(name.clone())),
    };
    let (from, to) = (find(&question.from)?, find(&question.to)?);
    let sets = match afi {
        Afi::Ipv4 => &state.v4.sets,
        Afi::Ipv6 => &state.v6.sets,
    };
    let mut stages = Vec::new();
    let mut now = Now { attributes: question.attributes.clone(), next_hop: None };
    let mut goes_on = true;
    if let Some(peer) = from {
        let (stage, after) = import_stage(question, peer, sets);
        stages.push(stage);
        goes_on = after.is_some();
        now = after.unwrap_or(now);
    }
    if goes_on && let Some(peer) = to {
        stages.push(export_stage(question, from, peer, &now, sets));
    }
    let class = if from.is_some() { SourceClass::Bgp } else { question.class };
    if goes_on && matches!(class, SourceClass::Bgp | SourceClass::Static) {
        stages.push(kernel_stage(state, question, class, &now, sets));
    }
    Ok(Evaluation { prefix: question.prefix.to_string(), stages })
}

fn peer<'a>(state: &'a DesiredState, afi: Afi, name: &str) -> Option<&'a Peer> {
    let address: Option<IpAddr> = name.parse().ok();
    let peers = state.peers.values().map(|peer| &**peer).filter(|peer| peer.key.afi == afi);
    let mut matching = peers.filter(|peer| peer.name == name || Some(peer.spec.transport.peer) == address);
    matching.next()
}

fn import_stage(question: &Question, peer: &Peer, sets: &Sets) -> (Stage, Option<Now>) {
    let treatment = &peer.treatment;
    let profile = ImportProfile {
        internal: treatment.internal,
        local_asn: peer.spec.open.local_asn,
        router_id: peer.spec.open.router_id,
        rr_client: treatment.rr_client,
        allow_own_as: treatment.allow_own_as,
    };
    let traced = Traced::new(Bound { program: &treatment.import, sets });
    let next_hop = question.next_hop.unwrap_or(peer.spec.transport.peer).into();
    let admitted = Admitted::new(&profile, question.attributes.clone());
    let imported = admitted.import(question.prefix, next_hop, &question.interface, &traced);
    let mut changes = differences(&question.attributes, &imported.attributes);
    let base = SourceClass::Bgp.preference();
    if imported.preference != base {
        changes.push(format!("preference {} -> {}", base, imported.preference));
    }
    let why = imported.refused.map(|refused| format!("{refused:?}"));
    let now = Now { attributes: imported.attributes.into_owned(), next_hop: Some(imported.next_hop) };
    let stage = Stage {
        stage: format!("import from {}", peer.name),
        verdict: if why.is_none() { "accept" } else { "reject" },
        changes,
        trace: traced.into_views(),
        why: why.filter(|why| why != "Policy"),
    };
    let accepted = stage.verdict == "accept";
    (stage, accepted.then_some(now))
}

fn export_stage(question: &Question, from: Option<&Peer>, peer: &Peer, now: &Now, sets: &Sets) -> Stage {
    let treatment = &peer.treatment;
    let own = peer.spec.next.source;
    let profile = ExportProfile {
        afi: question.prefix.afi(),
        internal: treatment.internal,
        local_asn: peer.spec.open.local_asn,
        local_addr: own.unwrap_or(match question.prefix.afi() {
            Afi::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Afi::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }),
        rr_client: treatment.rr_client,
        next_hop: treatment.next_hop,
        program: ProgramId(0),
        long_lived_aware: true,
        add_path: false,
        extended_next_hop: false,
        as4: true,
        extended_message: false,
    };
    let source_peer = from.map(|from| SourcePeer {
        asn: from.spec.open.peer_asn,
        local_asn: from.spec.open.local_asn,
        router_id: RouterId(Ipv4Addr::UNSPECIFIED),
        addr: from.spec.transport.peer,
        internal: from.treatment.internal,
        rr_client: from.treatment.rr_client,
    });
    let source = match (&source_peer, question.class) {
        (Some(_), _) | (None, SourceClass::Bgp) => Source::Peer(0),
        (None, SourceClass::Direct) => Source::Direct,
        (None, SourceClass::Static) => Source::Static,
        (None, SourceClass::Kernel) => Source::Kernel,
    };
    let view = PathView {
        prefix: question.prefix,
        source,
        from: source_peer.as_ref(),
        attributes: source_peer.is_some().then_some(&now.attributes),
        next_hop: now.next_hop,
        forward: &Forward::Blackhole,
        interface: &question.interface,
        metric: question.metric,
    };
    let traced = Traced::new(Bound { program: &treatment.export, sets });
    let sent = export(&profile, &view, &traced);
    let trace = traced.into_views();
    let mut changes = Vec::new();
    if let Some(sent) = &sent {
        changes = differences(&now.attributes, &sent.attributes);
        changes.push(format!("next hop {}", sent.next_hop.addr()));
    }
    Stage {
        stage: format!("export to {}", peer.name),
        verdict: if sent.is_some() { "accept" } else { "reject" },
        // Before the program there are the rules of reflection and of well-known communities (FILT-23).
        why: (sent.is_none() && trace.is_empty()).then(|| "not passed on between these sessions".to_owned()),
        changes,
        trace,
    }
}

fn kernel_stage(
    state: &DesiredState,
    question: &Question,
    class: SourceClass,
    now: &Now,
    sets: &Sets,
) -> Stage {
    let program = match question.prefix.afi() {
        Afi::Ipv4 => &state.v4.kernel,
        Afi::Ipv6 => &state.v6.kernel,
    };
    let mut view = RouteView {
        prefix: question.prefix,
        class,
        interface: &question.interface,
        internal: None,
        metric: None,
        preference: class.preference(),
        attributes: Cow::Borrowed(&now.attributes),
        next_hop: now.next_hop.or(question.next_hop.map(NextHop::from)),
        device: None,
    };
    let traced = Traced::new(Bound { program, sets });
    let accepted = traced.accepts(&mut view);
    let mut changes = Vec::new();
    changes.extend(view.metric.map(|metric| format!("metric {metric}")));
    changes.extend(view.device.map(|device| format!("through {}", device.name)));
    Stage {
        stage: "kernel".to_owned(),
        verdict: if accepted { "accept" } else { "reject" },
        why: None,
        changes,
        trace: traced.into_views(),
    }
}

/// What differs between two sets of attributes, in words.
fn differences(before: &Attributes, after: &Attributes) -> Vec<String> {
    let mut changes = Vec::new();
    let mut change = |name: &str, before: String, after: String| {
        if before != after {
            changes.push(format!("{name} {before} -> {after}"));
        }
    };
    let or_none = |value: Option<u32>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    change("LOCAL_PREF", or_none(before.local_pref), or_none(after.local_pref));
    change("MED", or_none(before.med), or_none(after.med));
    change("AS path", path(&before.as_path), path(&after.as_path));
    let standard = |attributes: &Attributes| -> String {
        list(attributes.communities.iter().map(|value| Community::Standard(*value)))
    };
    let large = |attributes: &Attributes| -> String {
        list(attributes.large_communities.iter().map(|value| Community::Large(*value)))
    };
    change("communities", standard(before), standard(after));
    change("large communities", large(before), large(after));
    changes
}

fn list(values: impl Iterator<Item = impl fmt::Display>) -> String {
    let values: Vec<String> = values.map(|value| value.to_string()).collect();
    if values.is_empty() { "none".to_owned() } else { values.join(" ") }
}

fn path(path: &AsPath) -> String {
    list(path.segments.iter().map(|segment| match segment {
        Segment::Sequence(asns) => list(asns.iter().map(|asn| asn.0)),
        Segment::Set(asns) => format!("{{{}}}", list(asns.iter().map(|asn| asn.0))),
    }))
}

impl Evaluation {
    /// As text; each rule that applied with `trace`. Ends in a line break.
    pub fn to_text(&self, trace: bool) -> String {
        let mut lines = vec![self.prefix.clone()];
        for stage in &self.stages {
            let why = stage.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            lines.push(format!("  {}: {}{why}", stage.stage, stage.verdict));
            lines.extend(stage.changes.iter().map(|change| format!("      {change}")));
            if trace {
                lines.extend(stage.trace.iter().map(|step| format!("    {}: {}", step.outcome, step.rule)));
            }
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::Asn;

    use super::*;
    use crate::datastore::files::snapshot_of_texts;
    use crate::desired::{NodeFacts, Release, compile};
    use crate::model::decode::Reading;

    const CLUSTER: &str = "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-1}
spec: {bgp: {ipv4Address: 10.0.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-2}
spec: {bgp: {ipv4Address: 10.0.0.2/24}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: edge}
spec:
  importV4:
  - {cidr: 10.99.0.0/16, matchOperator: In, action: Reject}
  exportV4:
  - {cidr: 10.244.7.0/24, matchOperator: In, action: Accept, operations: [{addCommunity: {value: '64512:7'}}]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.254, asNumber: 65001, filters: [edge]}
";

    fn state() -> DesiredState {
        let snapshot = snapshot_of_texts("node-1", Reading::default(), &[("cluster.yaml", CLUSTER)]);
        let facts = NodeFacts {
            node_name: "node-1".into(),
            cluster_release: Some(Release::NEWEST),
            ..NodeFacts::default()
        };
        compile(&snapshot, &facts).unwrap()
    }

    fn question(prefix: &str) -> Question {
        Question {
            prefix: prefix.parse().unwrap(),
            from: None,
            to: None,
            class: SourceClass::Static,
            interface: String::new(),
            metric: None,
            attributes: Attributes::default(),
            next_hop: None,
        }
    }

    #[test]
    fn a_route_of_this_node_goes_through_filter_and_kernel_rules_with_the_words_of_each() {
        let answer =
            evaluate(&state(), &Question { to: Some("10.0.0.254".into()), ..question("10.244.7.0/26") })
                .unwrap();
        let [sent, kernel] = answer.stages.as_slice() else { panic!("{answer:?}") };
        assert_eq!((sent.stage.as_str(), sent.verdict), ("export to Global_10_0_0_254", "accept"));
        assert_eq!(sent.trace.last().unwrap().rule, "BGPFilter/edge: spec.exportV4[0]");
        assert!(sent.changes.contains(&"communities none -> 64512:7".to_owned()), "{:?}", sent.changes);
        assert!(sent.changes.contains(&"AS path none -> 64512".to_owned()), "{:?}", sent.changes);
        assert_eq!((kernel.stage.as_str(), kernel.verdict), ("kernel", "accept"));
    }

    #[test]
    fn a_received_route_ends_where_it_is_rejected() {
        let from_tor = Question { from: Some("Global_10_0_0_254".into()), ..question("10.99.1.0/24") };
        let answer =
            evaluate(&state(), &Question { to: Some("Mesh_10_0_0_2".into()), ..from_tor.clone() }).unwrap();
        assert_eq!(answer.stages.len(), 1);
        assert_eq!(answer.stages[0].verdict, "reject");
        assert_eq!(answer.stages[0].trace[0].rule, "BGPFilter/edge: spec.importV4[0]");
        let mut looped = Question { prefix: "10.98.0.0/24".parse().unwrap(), ..from_tor };
        looped.attributes.as_path = AsPath::sequence([Asn(65001), Asn(64512)]);
        let answer = evaluate(&state(), &looped).unwrap();
        assert_eq!(answer.stages[0].why.as_deref(), Some("AsLoop"));
    }

    #[test]
    fn a_session_that_there_is_not_is_named() {
        let asked = Question { to: Some("10.0.0.77".into()), ..question("10.244.7.0/26") };
        assert_eq!(evaluate(&state(), &asked), Err(UnknownPeer("10.0.0.77".into())));
    }
}
