//! Sessions of the full mesh, and what all sessions share.
//!
//! Owns: the full mesh (PEER-10 to PEER-17), session names (PEER-3), what a session machine is given (PEER-61,
//! PEER-69). Never: reads BGPPeers; their sessions are in [`bgp_peers`](super::bgp_peers).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::prefix::is_link_local;
use bgp_proto::session::{NextOpen, OpenParams, PeerSpec, Transport, TtlRule};
use bgp_proto::{Afi, AfiSet};

use super::compile::{Inputs, Problems};
use super::identity::{Fields, asn_of, listen_port};
use super::{Auth, LocalNode, NextHopRule, Peer, PeerClass, SessionKey, Treatment, auth, programs};
use crate::model::{Node, Severity};
use crate::policy::program::Program;

/// TTL of a session without TTL security (PEER-62).
pub(super) const TTL: u8 = 64;
/// Largest restart time that the capability can carry (RFC 4724 §3: 12 bits).
const MAX_RESTART_TIME: u16 = 4095;

/// The name of a session (PEER-3): class and address, with `_` for the separators of the address.
pub(super) fn name(class: PeerClass, address: IpAddr) -> String {
    let prefix = match class {
        PeerClass::Mesh => "Mesh",
        PeerClass::Global => "Global",
        PeerClass::Node => "Node",
        PeerClass::LocalWorkload => "Local_Workload",
    };
    format!("{prefix}_{}", address.to_string().replace(['.', ':'], "_"))
}

/// Programs that sessions share, made when first asked for.
pub(super) struct Programs<'a, 'b> {
    inputs: &'a Inputs<'b>,
    priority: Option<u32>,
    imports: BTreeMap<Vec<String>, Arc<Program>>,
    exports: BTreeMap<programs::Use, Arc<Program>>,
}

impl<'a, 'b> Programs<'a, 'b> {
    /// For a family whose normal route priority this is.
    pub(super) fn new(inputs: &'a Inputs<'b>, priority: Option<u32>) -> Self {
        Programs { inputs, priority, imports: BTreeMap::new(), exports: BTreeMap::new() }
    }

    /// The import program of sessions with these filters.
    pub(super) fn import<F: Fields>(&mut self, filters: &[String]) -> Arc<Program> {
        if let Some(known) = self.imports.get(filters) {
            return known.clone();
        }
        let made = Arc::new(programs::import::<F>(self.inputs, filters, self.priority));
        self.imports.entry(filters.to_vec()).or_insert(made).clone()
    }

    /// The export program of such sessions.
    pub(super) fn export<F: Fields>(&mut self, session: programs::Use) -> Arc<Program> {
        let (inputs, priority) = (self.inputs, self.priority);
        let made = self.exports.entry(session);
        let program =
            made.or_insert_with_key(|session| programs::export::<F>(inputs, priority, session).into());
        program.clone()
    }
}

/// Adds the mesh sessions of one family.
pub(super) fn mesh<F: Fields>(
    inputs: &Inputs<'_>,
    local: &LocalNode,
    shared: &mut Programs<'_, '_>,
    sessions: &mut BTreeMap<SessionKey, Arc<Peer>>,
    problems: &mut Problems,
) {
    shared_addresses::<F>(inputs, problems);
    let Some(own) = F::address(inputs.local) else { return };
    if inputs.global.mesh_enabled == Some(false) {
        return;
    }
    // REL-8: releases 3.13 to 3.20 had reflectors in the IPv4 mesh.
    let reflectors = F::AFI == Afi::Ipv4 && inputs.release.release.meshes_reflectors();
    let in_mesh = |node: &Node| reflectors || node.cluster_id.is_none();
    if !in_mesh(inputs.local) {
        return;
    }
    let seconds = inputs.global.mesh_restart_time;
    let field = "spec.nodeMeshMaxRestartTime";
    let restart_time = restart_time(seconds, "BGPConfiguration/default", field, problems);
    let scopeless = |node: &Node, addr: IpAddr, then: &str, problems: &mut Problems| {
        let why = format!("{addr} is link-local and does not say on which interface: {then}");
        problems.add(Severity::Error, format!("Node/{}", node.name), F::ADDRESS_FIELD, why);
    };
    if is_link_local(own.addr.into()) {
        return scopeless(inputs.local, own.addr.into(), "there is no session of the mesh", problems);
    }
    let password = inputs.global.mesh_password.as_ref();
    let auth = auth::of(inputs, password, "BGPConfiguration/default", "spec.nodeMeshPassword", problems);
    let mesh = Mesh { inputs, local, own: own.addr.into(), restart_time, auth };
    let mut taken = BTreeSet::new();
    for node in inputs.snapshot.nodes.values().filter(|node| in_mesh(node)) {
        let Some(address) = F::address(node) else { continue };
        // PEER-12: "another node" is decided by address.
        if address.addr == own.addr {
            continue;
        }
        let peer = address.addr.into();
        if is_link_local(peer) {
            scopeless(node, peer, "this node gets no session", problems);
            continue;
        }
        // Nodes are walked in order of their names, so of two with one address the lower name stays (T22).
        // Whatever ports they have: a session of the mesh is one with an address.
        if taken.insert(peer) {
            let key = SessionKey::new(peer, listen_port(inputs, &node.name));
            sessions.insert(key.clone(), Arc::new(mesh.session::<F>(key, node, shared)));
        }
    }
}

/// What all mesh sessions of a family have in common.
struct Mesh<'a> {
    inputs: &'a Inputs<'a>,
    local: &'a LocalNode,
    own: IpAddr,
    restart_time: u16,
    auth: Auth,
}

impl Mesh<'_> {
    /// The session with another node.
    fn session<F: Fields>(&self, key: SessionKey, node: &Node, shared: &mut Programs<'_, '_>) -> Peer {
        let peer_asn = asn_of(node, self.inputs.global);
        let internal = peer_asn == self.local.asn;
        let peer = key.addr;
        Peer {
            name: name(PeerClass::Mesh, peer),
            class: PeerClass::Mesh,
            resource: format!("Node/{}", node.name),
            spec: PeerSpec {
                transport: Transport { peer, scope: 0, port: key.port, ttl: TtlRule::Multihop(TTL) },
                open: OpenParams {
                    local_asn: self.local.asn,
                    peer_asn,
                    router_id: self.local.router_id,
                    families: AfiSet::only(F::AFI),
                },
                next: NextOpen {
                    source: Some(self.own),
                    // PEER-16: by text, as every BIRD node of the cluster decides it.
                    passive: peer.to_string() > self.own.to_string(),
                    restart_time: Some(self.restart_time),
                    ..self.inputs.facts.sessions.clone()
                },
            },
            auth: self.auth.clone(),
            treatment: Treatment {
                internal,
                rr_client: None,
                next_hop: NextHopRule::Auto,
                allow_own_as: 0,
                import: shared.import::<F>(&[]),
                export: shared.export::<F>(programs::Use { filters: Vec::new(), internal, node: true }),
            },
            key,
        }
    }
}

/// A configured graceful restart time (PEER-61), or the default.
pub(super) fn restart_time(
    configured: Option<u32>,
    resource: &str,
    field: &str,
    problems: &mut Problems,
) -> u16 {
    let Some(configured) = configured else {
        return NextOpen::default().restart_time.unwrap_or_default();
    };
    match u16::try_from(configured) {
        Ok(seconds) if seconds <= MAX_RESTART_TIME => seconds,
        _ => {
            let why = format!(
                "{configured} s is more than BGP can carry (RFC 4724 §3): {MAX_RESTART_TIME} s is used"
            );
            problems.add(Severity::Error, resource, field, why);
            MAX_RESTART_TIME
        }
    }
}

/// One problem for each node that has the address of a node before it (D3); the local node comes first of all.
fn shared_addresses<F: Fields>(inputs: &Inputs<'_>, problems: &mut Problems) {
    let mut owners: BTreeMap<F::Addr, &str> = BTreeMap::new();
    let local = inputs.local;
    let others = inputs.snapshot.nodes.values().map(|node| &**node).filter(|node| node.name != local.name);
    for node in std::iter::once(local).chain(others) {
        let Some(address) = F::address(node) else { continue };
        match owners.entry(address.addr) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(&node.name);
            }
            std::collections::btree_map::Entry::Occupied(entry) => {
                let owner = entry.get();
                let why =
                    format!("{} is the address of Node/{owner} too: this node gets no session", address.addr);
                problems.add(Severity::Error, format!("Node/{}", node.name), F::ADDRESS_FIELD, why);
            }
        }
    }
}
