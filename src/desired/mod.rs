//! What this node shall do, compiled from what the datastore says: one typed state, which is compared with the last.
//!
//! Owns: [`DesiredState`] and [`compile`]: what cannot be understood becomes a Problem and the rest goes on.
//! Never: clocks, environment, sockets. Input: a [`Snapshot`](crate::model::snapshot::Snapshot) and [`NodeFacts`].
//!
//! | module | rules |
//! |---|---|
//! | `session_key` | what makes two sessions of two states the same one |
//! | `identity` | own AS, router id, listening, the cluster's release (NODE-4 to NODE-42, REL-1 to REL-3) |
//! | `inputs` | what all of these are given: the snapshot and its indexes |
//! | `peering`, `auth` | sessions, whatever asks for them (PEER-*), and their passwords |
//! | `origin` | routes that this node originates (FILT-2, FILT-41) |
//! | `services` | addresses of Services, aggregates, what of them the kernel is not given (SVC-*) |
//! | `filters` | rules of BGPFilters (FILT-50 to FILT-64) |
//! | `kept_filters` | filters that are deleted while in use (D4) |
//! | `programs` | import and export (FILT-10, FILT-20 to FILT-40) |
//! | `kernel` | what is written to the kernel (KERN-1 to KERN-20) |
//! | `doubts` | what resources say together and most likely do not mean |
//! | `diff` | what a change of the state means for what runs (BGP-37) |
//! | `compare` | the same in words, for people |
//! | `prior` | sessions of the compilation before, where what they hang on is the same |
//! | `view`, `render`, `bird_text` | the state as JSON, as text, and as BIRD 1.6 would have it |
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod auth;
mod bird_text;
mod compare;
mod compile;
mod diff;
mod doubts;
mod filters;
mod identity;
mod inputs;
mod kept_filters;
mod kernel;
#[cfg(test)]
mod laws;
mod origin;
mod peering;
mod prior;
mod programs;
mod render;
mod services;
mod session_key;
#[cfg(test)]
mod tests;
pub mod view;

pub use auth::{DEFAULT_SECRET_NAMESPACE, retain_keys};
pub use bgp_proto::rib::NextHopRule;
pub use bird_text::bird_text;
pub use compare::{Comparison, compare};
pub use compile::{Unready, compile, compile_after};
pub use diff::{PeerChange, Plan, diff};
pub use identity::{ReleaseTextError, router_id_hash};
pub use kept_filters::{Filters, keep_filters};
pub use prior::Prior;
pub use render::render_text;
pub use session_key::SessionKey;
pub use view::{Check, IntentView, check, view};

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::{NextOpen, PeerSpec};
use bgp_proto::{Afi, Asn, ClusterId, Family, Prefix, RouterId, V4, V6};

use crate::model::{NodeAddress, Problem, SecretBytes, SecretKeyRef};
use crate::policy::program::{Interner, Program};
use crate::policy::sets::Sets;

/// What the process knows of its node beside the datastore: settings that were read once at start, and what
/// an earlier snapshot said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeFacts {
    /// `NODENAME` (NODE-1).
    pub node_name: String,
    /// `CALICO_ROUTER_ID` (NODE-10).
    pub router_id: Option<String>,
    /// `CALICO_BGPD_CLUSTER_RELEASE`: `None` is `auto` (REL-1).
    pub cluster_release: Option<Release>,
    /// What ClusterInformation last told on this node (REL-2).
    pub last_release: Option<Release>,
    /// `USE_POD_CIDR` (DS-38).
    pub use_pod_cidr: bool,
    /// `CALICO_K8S_NODE_REF`: the name of this node in EndpointSlices; `None`: `NODENAME` (NODE-2).
    pub kubernetes_node: Option<String>,
    /// `CALICO_ADVERTISE_CLUSTER_IPS` as written (SVC-4).
    pub advertise_cluster_ips: Option<String>,
    /// The datastore is etcd, which never has a Secret.
    pub on_etcd: bool,
    /// `NAMESPACE`: where password secrets are (DS-40).
    pub secret_namespace: String,
    /// `CALICO_BGPD_STRICT`: a session whose password cannot be had stays down, where the incumbent leaves it unsigned.
    pub strict: bool,
    /// `CALICO_BGPD_MISSING_TUNNEL=underlay`: routes of IPIP pools go without their tunnel while it is not there, as the
    /// incumbent's do; else they wait for it (BDEF-10).
    pub bare_without_tunnel: bool,
    /// What every session has unless a resource says otherwise.
    pub sessions: NextOpen,
}

/// A Calico release, `major.minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Release {
    /// 3.
    pub major: u16,
    /// 33.
    pub minor: u16,
}

/// Where the release in force comes from (REL-1, REL-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReleaseSource {
    /// `CALICO_BGPD_CLUSTER_RELEASE`.
    Setting,
    /// ClusterInformation `default`.
    ClusterInformation,
    /// Unknown now: what ClusterInformation last told on this node, with a warning.
    LastKnown,
    /// Unknown: the newest that we know, with a warning.
    Assumed,
}

/// The release in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterRelease {
    /// Which.
    pub release: Release,
    /// Why.
    pub source: ReleaseSource,
}

/// Who writes the routes of pools into the kernel: we or Felix (KERN-10). Those of VXLAN pools are always Felix's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterRoutes {
    /// Routes of IPIP pools are ours.
    pub ipip: bool,
    /// Routes of un-encapsulated pools are ours.
    pub unencapsulated: bool,
    /// Why.
    pub source: ClusterRoutesSource,
}

/// Where [`ClusterRoutes`] comes from (KERN-10a).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterRoutesSource {
    /// `programClusterRoutes` of BGPConfiguration `default`.
    Configured,
    /// It is unset, and the cluster's release decides.
    Release,
}

/// The local node (NODE-4 to NODE-11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalNode {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: Asn,
    /// Its identifier, in both families.
    pub router_id: RouterId,
    /// Its IPv4 address.
    pub ipv4: Option<NodeAddress<V4>>,
    /// Its IPv6 address.
    pub ipv6: Option<NodeAddress<V6>>,
    /// Its cluster id: it is a route reflector.
    pub cluster_id: Option<ClusterId>,
}

/// The whole intent for one node.
#[derive(Clone, PartialEq, Debug)]
pub struct DesiredState {
    /// The node.
    pub node: LocalNode,
    /// The release whose rules are in force.
    pub release: ClusterRelease,
    /// Whose cluster routes are.
    pub cluster_routes: ClusterRoutes,
    /// Where to listen, for each family in which the node speaks BGP.
    pub listen: BTreeMap<Afi, Listen>,
    /// Sessions by what makes them the same session.
    pub peers: BTreeMap<SessionKey, Arc<Peer>>,
    /// IPv4 table.
    pub v4: FamilyIntent<V4>,
    /// IPv6 table.
    pub v6: FamilyIntent<V6>,
    /// Everything refused or not built yet, those of reading the resources among them; sorted.
    pub problems: Vec<Problem>,
}

/// A listening socket (NODE-20, NODE-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// `None`: all addresses of the family.
    pub addr: Option<IpAddr>,
    /// Port.
    pub port: u16,
}

/// Where a session comes from (PEER-1, PEER-3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerClass {
    /// Full mesh.
    Mesh,
    /// Global BGPPeer.
    Global,
    /// BGPPeer of some nodes, or a reverse peering.
    Node,
    /// Local workload.
    LocalWorkload,
}

impl PeerClass {
    /// One word for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            PeerClass::Mesh => "mesh",
            PeerClass::Global => "global",
            PeerClass::Node => "node",
            PeerClass::LocalWorkload => "localWorkload",
        }
    }
}

/// One session.
#[derive(Clone, PartialEq, Debug)]
pub struct Peer {
    /// What it is known by from one state to the next.
    pub key: SessionKey,
    /// BIRD's name, as `Mesh_10_0_0_2`: unique, and no more than what people are shown.
    pub name: String,
    /// Where it comes from.
    pub class: PeerClass,
    /// `Kind/name` of the resource that asks for it.
    pub resource: String,
    /// What the session machine needs.
    pub spec: PeerSpec,
    /// The TCP MD5 key.
    pub auth: Auth,
    /// What the speaker needs; a change resets nothing.
    pub treatment: Treatment,
}

impl DesiredState {
    /// The session that has this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Peer>> {
        self.peers.values().find(|peer| peer.name == name)
    }
}

/// TCP MD5 of a session (PEER-80 to PEER-85).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// No password is asked for.
    #[default]
    None,
    /// This key.
    Key {
        /// Where it comes from.
        from: SecretKeyRef,
        /// Raw bytes.
        key: SecretBytes,
    },
    /// A password is asked for and cannot be had: the session is unsigned, with a Problem (PEER-82).
    Missing(SecretKeyRef),
    /// A password is asked for and cannot be had, and `strict` is on: the session stays down, with a Problem.
    Withheld(SecretKeyRef),
}

/// How routes to and from a peer are treated.
#[derive(Clone, PartialEq, Debug)]
pub struct Treatment {
    /// Peer AS equals our AS in this session (PEER-68).
    pub internal: bool,
    /// The peer is our route reflector client, with this cluster id (PEER-70).
    pub rr_client: Option<ClusterId>,
    /// Next hop rule (PEER-64).
    pub next_hop: NextHopRule,
    /// How often our AS may stand in a received path (PEER-67).
    pub allow_own_as: u8,
    /// Import pipeline (FILT-10).
    pub import: Arc<Program>,
    /// Export pipeline (FILT-20).
    pub export: Arc<Program>,
}

/// What one family's table holds of our own, and which rules it has.
#[derive(Clone, PartialEq, Debug)]
pub struct FamilyIntent<F: Family> {
    /// Static routes (FILT-2, SVC-30, PEER-66).
    pub statics: BTreeMap<Prefix<F>, StaticRoute<F>>,
    /// Normal route priority `P` (NODE-40); `None` where the release has no such feature (REL-3).
    pub priority: Option<u32>,
    /// Interface patterns whose addresses are no direct routes, in match order, `cali*` and `kube-ipvs*` among them
    /// (NODE-35).
    pub ignored_interfaces: Vec<String>,
    /// What is written to the kernel, with which metric and over which device (KERN-2).
    pub kernel: Arc<Program>,
    /// What the programs of this family name.
    pub sets: Sets,
}

/// A static route of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StaticRoute<F: Family> {
    /// A blackhole: an own block or a service range.
    Blackhole,
    /// `reachableBy` (PEER-66).
    Via(F::Addr),
}

/// Gives programs, sets and peers that are as before the identity that they had: who compares pointers sees no change,
/// and one program is held once.
pub fn retain_policy(old: &DesiredState, new: &mut DesiredState) {
    let mut known = Interner::default();
    for peer in old.peers.values() {
        known.intern(&peer.treatment.import);
        known.intern(&peer.treatment.export);
    }
    known.intern(&old.v4.kernel);
    known.intern(&old.v6.kernel);
    share_programs(&mut known, new);
    new.v4.sets.retain(&old.v4.sets);
    new.v6.sets.retain(&old.v6.sets);
    for (key, peer) in &mut new.peers {
        if let Some(before) =
            old.peers.get(key).filter(|before| !Arc::ptr_eq(before, peer) && *before == peer)
        {
            peer.clone_from(before);
        }
    }
}

/// Makes equal programs of a state one.
fn share_programs(known: &mut Interner, state: &mut DesiredState) {
    for peer in state.peers.values_mut() {
        let (import, export) = (&peer.treatment.import, &peer.treatment.export);
        let shared = (known.intern(import), known.intern(export));
        if !Arc::ptr_eq(&shared.0, import) || !Arc::ptr_eq(&shared.1, export) {
            let treatment = &mut Arc::make_mut(peer).treatment;
            (treatment.import, treatment.export) = shared;
        }
    }
    for program in [&mut state.v4.kernel, &mut state.v6.kernel] {
        *program = known.intern(program);
    }
}
