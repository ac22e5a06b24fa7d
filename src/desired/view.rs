//! The desired state as people and programs read it: `calico-bgpd intent --json`, `calico-bgpd check`.
//!
//! Owns: names and shape of the JSON, which are an interface: keys are added, never renamed. Absent means "not set".
//! Never: prints. The same view is the source of the readable text ([`render_text`](super::render_text)).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bgp_proto::{Afi, Family};
use serde::Serialize;

use super::{Auth, ClusterRoutesSource, DesiredState, FamilyIntent, NextHopRule, Peer, StaticRoute, Unready};
use crate::model::Problem;
use crate::model::problem::{self, ProblemView};
use crate::policy::prefix_set::PrefixSet;
use crate::policy::program::Program;
use crate::policy::sets::{SetId, Sets};
use crate::policy::words;

/// Everything that this node shall do.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentView {
    /// The local node.
    pub node: NodeView,
    /// The release in force.
    pub release: ReleaseView,
    /// Who writes which pool's routes into the kernel.
    pub cluster_routes: ClusterRoutesView,
    /// Listening sockets, IPv4 first.
    pub listen: Vec<ListenView>,
    /// Sessions by name.
    pub peers: Vec<SessionView>,
    /// The IPv4 table.
    pub ipv4: FamilyView,
    /// The IPv6 table.
    pub ipv6: FamilyView,
    /// Programs by the names that `peers` and the tables use; equal programs have one name.
    pub programs: BTreeMap<String, ProgramView>,
    /// What is wrong, or not done.
    pub problems: Vec<ProblemView>,
}

/// The local node.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub as_number: u32,
    /// Its BGP identifier.
    pub router_id: String,
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<String>,
    /// IPv4 subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_subnet: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<String>,
    /// IPv6 subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_subnet: Option<String>,
    /// Its cluster id, where it is a route reflector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_reflector_cluster_id: Option<String>,
}

/// The release in force and what it switches (REL-1 to REL-3).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseView {
    /// As `v3.33`.
    pub release: String,
    /// `setting` (CALICO_BGPD_CLUSTER_RELEASE), `clusterInformation`, `lastKnown` or `assumed`.
    pub source: &'static str,
    /// Routes carry priorities (REL-3).
    pub route_priorities: bool,
    /// Route reflectors are in the IPv4 mesh (REL-8).
    pub reflectors_in_mesh: bool,
    /// Routes to WireGuard peers are Felix's (REL-12).
    pub wireguard_routes_of_felix: bool,
}

/// Who writes routes of pools (KERN-10): `calico-bgpd` or `felix`.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRoutesView {
    /// Pools without encapsulation.
    pub unencapsulated: &'static str,
    /// IPIP pools.
    pub ipip: &'static str,
    /// VXLAN pools; always `felix`.
    pub vxlan: &'static str,
    /// `configured` (programClusterRoutes) or `release`.
    pub source: &'static str,
}

/// A listening socket.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenView {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Absent: all addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// TCP port.
    pub port: u16,
}

/// A session.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// As `Mesh_10_0_0_2`.
    pub name: String,
    /// `mesh`, `global`, `node` or `localWorkload`.
    pub class: &'static str,
    /// `Kind/name` of the resource that asks for it.
    pub resource: String,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// The peer's address.
    pub address: String,
    /// The port that is dialled.
    pub port: u16,
    /// The peer's AS.
    pub as_number: u32,
    /// Our AS in this session.
    pub local_as_number: u32,
    /// iBGP.
    pub internal: bool,
    /// The peer dials, we only accept.
    pub passive: bool,
    /// Address that we dial from; absent: the kernel chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// TTL that is sent.
    pub ttl: u8,
    /// TTL that is demanded of the peer (GTSM); absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_ttl: Option<u8>,
    /// `none`, `key`, `missing` (asked for and cannot be had: not signed) or `withheld` (the same: stays down).
    pub password: &'static str,
    /// Hold time offered, seconds.
    pub hold_time: u16,
    /// Keepalive interval, seconds; absent: a third of the hold time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<u16>,
    /// Graceful restart time offered, seconds; absent: not offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_time: Option<u16>,
    /// Cluster id towards this route reflector client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reflector_client_of: Option<String>,
    /// `Auto`, `Self` or `Keep`.
    pub next_hop_mode: &'static str,
    /// How often our AS may stand in a received path.
    pub num_allowed_local_as_numbers: u8,
    /// Name of the import program.
    pub import: String,
    /// Name of the export program.
    pub export: String,
}

/// One family's table.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyView {
    /// Routes that this node originates.
    pub originated: Vec<OriginatedView>,
    /// Normal route priority; absent where the release has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normal_route_priority: Option<u32>,
    /// Interfaces whose addresses are no direct routes.
    pub ignored_interfaces: Vec<String>,
    /// Name of the program that decides what is written to the kernel.
    pub kernel: String,
    /// What the sets that programs name hold, by name; empty ones are left out.
    pub sets: BTreeMap<&'static str, Vec<String>>,
}

/// An originated route.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginatedView {
    /// The prefix.
    pub prefix: String,
    /// The gateway; absent: a blackhole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// A program: the first rule that decides ends it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramView {
    /// Rules in order.
    pub rules: Vec<RuleView>,
    /// `accept` or `reject`, where no rule decided.
    pub default: String,
}

/// A rule of a program.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// Conditions, all of which must hold; none: always.
    pub when: Vec<String>,
    /// Changes made to the route.
    pub then: Vec<String>,
    /// `accept` or `reject`; absent: the next rule goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// What it comes from.
    pub origin: String,
}

/// Makes the view of a state.
pub fn view(state: &DesiredState) -> IntentView {
    let mut programs = Names::default();
    let node = &state.node;
    let release = state.release.release;
    let owner = |ours| if ours { "calico-bgpd" } else { "felix" };
    let mut peers: Vec<&Peer> = state.peers.values().map(|peer| &**peer).collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let peers = peers.into_iter().map(|peer| peer_view(peer, &mut programs)).collect();
    let ipv4 = family_view(&state.v4, &mut programs);
    let ipv6 = family_view(&state.v6, &mut programs);
    IntentView {
        node: NodeView {
            name: node.name.clone(),
            as_number: node.asn.0,
            router_id: node.router_id.to_string(),
            ipv4_address: node.ipv4.map(|address| address.addr.to_string()),
            ipv4_subnet: node.ipv4.map(|address| address.subnet.to_string()),
            ipv6_address: node.ipv6.map(|address| address.addr.to_string()),
            ipv6_subnet: node.ipv6.map(|address| address.subnet.to_string()),
            route_reflector_cluster_id: node.cluster_id.map(|id| id.to_string()),
        },
        release: ReleaseView {
            release: release.to_string(),
            source: state.release.source.name(),
            route_priorities: release.has_priorities(),
            reflectors_in_mesh: release.meshes_reflectors(),
            wireguard_routes_of_felix: release.leaves_wireguard_to_felix(),
        },
        cluster_routes: ClusterRoutesView {
            unencapsulated: owner(state.cluster_routes.unencapsulated),
            ipip: owner(state.cluster_routes.ipip),
            vxlan: owner(false),
            source: match state.cluster_routes.source {
                ClusterRoutesSource::Configured => "configured",
                ClusterRoutesSource::Release => "release",
            },
        },
        listen: state.listen.iter().map(|(afi, listen)| listen_view(*afi, listen)).collect(),
        peers,
        ipv4,
        ipv6,
        programs: programs.views,
        problems: state.problems.iter().map(ProblemView::from).collect(),
    }
}

fn listen_view(afi: Afi, listen: &super::Listen) -> ListenView {
    ListenView { family: afi.name(), address: listen.addr.map(|addr| addr.to_string()), port: listen.port }
}

fn peer_view(peer: &Peer, programs: &mut Names) -> SessionView {
    let (transport, open, next) = (&peer.spec.transport, &peer.spec.open, &peer.spec.next);
    let treatment = &peer.treatment;
    SessionView {
        name: peer.name.clone(),
        class: peer.class.name(),
        resource: peer.resource.clone(),
        family: peer.key.afi.name(),
        address: transport.peer.to_string(),
        port: transport.port,
        as_number: open.peer_asn.0,
        local_as_number: open.local_asn.0,
        internal: treatment.internal,
        passive: next.passive,
        source_address: next.source.map(|addr| addr.to_string()),
        ttl: transport.ttl.sent(),
        min_ttl: transport.ttl.least(),
        password: match peer.auth {
            Auth::None => "none",
            Auth::Key { .. } => "key",
            Auth::Missing(_) => "missing",
            Auth::Withheld(_) => "withheld",
        },
        hold_time: next.hold_time,
        keepalive_time: next.keepalive,
        restart_time: next.restart_time,
        reflector_client_of: treatment.rr_client.map(|id| id.to_string()),
        next_hop_mode: match treatment.next_hop {
            NextHopRule::Auto => "Auto",
            NextHopRule::SelfAddress => "Self",
            NextHopRule::Keep => "Keep",
        },
        num_allowed_local_as_numbers: treatment.allow_own_as,
        import: programs.name(peer.key.afi, "import", &treatment.import),
        export: programs.name(peer.key.afi, "export", &treatment.export),
    }
}

fn family_view<F: Family>(intent: &FamilyIntent<F>, programs: &mut Names) -> FamilyView {
    let originated = intent.statics.iter().map(|(prefix, route)| OriginatedView {
        prefix: prefix.to_string(),
        via: match route {
            StaticRoute::Blackhole => None,
            StaticRoute::Via(gateway) => Some(gateway.to_string()),
        },
    });
    FamilyView {
        originated: originated.collect(),
        normal_route_priority: intent.priority,
        ignored_interfaces: intent.ignored_interfaces.clone(),
        kernel: programs.name(F::AFI, "kernel", &intent.kernel),
        sets: sets_view(&intent.sets),
    }
}

/// Contents of the sets that are not empty.
fn sets_view(sets: &Sets) -> BTreeMap<&'static str, Vec<String>> {
    let contents = SetId::ALL.into_iter().filter_map(|set| Some((set.name(), sets.get(set)?)));
    let filled = contents.filter(|(_, content)| !content.is_empty());
    let prefixes =
        |content: &PrefixSet| content.entries().iter().map(|entry| entry.prefix.to_string()).collect();
    filled.map(|(name, content)| (name, prefixes(content))).collect()
}

/// Names for programs: family, use and a number in order of first use.
#[derive(Default)]
struct Names {
    known: Vec<(String, Arc<Program>)>,
    views: BTreeMap<String, ProgramView>,
}

impl Names {
    fn name(&mut self, afi: Afi, role: &str, program: &Arc<Program>) -> String {
        let group = format!("{}-{role}-", afi.name());
        let mut alike = self.known.iter().filter(|(name, _)| name.starts_with(&group));
        // Sessions share programs by pointer in the usual case; content decides.
        if let Some((name, _)) =
            alike.clone().find(|(_, known)| Arc::ptr_eq(known, program) || known == program)
        {
            return name.clone();
        }
        let name = format!("{group}{}", alike.by_ref().count() + 1);
        self.known.push((name.clone(), program.clone()));
        self.views.insert(name.clone(), program_view(program));
        name
    }
}

fn program_view(program: &Program) -> ProgramView {
    let rules = program.rules.iter().map(|rule| RuleView {
        when: rule.when.iter().map(words::condition).collect(),
        then: rule.then.iter().map(words::action).collect(),
        decision: rule.decision.map(|decision| decision.to_string()),
        origin: rule.origin.clone(),
    });
    ProgramView { rules: rules.collect(), default: program.default.to_string() }
}

/// The verdict of `calico-bgpd check`; its text has one line for each problem and one that sums up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Nothing that the resources ask for is left undone.
    pub ok: bool,
    /// What was found.
    pub problems: Vec<ProblemView>,
}

impl Check {
    /// 0 where everything is done, 1 where there is an error. Warnings alone do not fail.
    pub const fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { 1 }
    }
}

/// Judges what [`compile`](super::compile) returned.
pub fn check(compiled: Result<&DesiredState, &Unready>) -> Check {
    let problems = match compiled {
        Ok(state) => &state.problems,
        Err(unready) => &unready.problems,
    };
    let ok = compiled.is_ok() && !problems.iter().any(Problem::is_error);
    Check { ok, problems: problems.iter().map(ProblemView::from).collect() }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&problem::list(&self.problems))
    }
}
