//! A session out of the candidate that has won.
//!
//! Owns: the attributes of sessions, whatever asks for them (PEER-3, PEER-4, PEER-14 to PEER-17, PEER-22, PEER-41,
//! PEER-60 to PEER-72). Never: what a session does with routes ([`programs`]), or which candidate wins.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::{NextOpen, OpenParams, PeerSpec, Transport, TtlRule};
use bgp_proto::{AfiSet, Asn, ClusterId};

use super::explicit::written_asn;
use super::{Candidate, Rank, With};
use crate::desired::identity::{Fields, asn_of};
use crate::desired::inputs::{Inputs, Problems};
use crate::desired::{Auth, LocalNode, NextHopRule, Peer, PeerClass, Treatment, auth, programs};
use crate::model::{BgpPeer, Code, NextHopMode, NodeAddress, SourceAddress};
use crate::policy::program::Program;

/// TTL of a session without TTL security (PEER-62).
const TTL: u8 = 64;
/// Largest restart time that the capability can carry (RFC 4724 §3: 12 bits).
const MAX_RESTART_TIME: u16 = 4095;

/// Makes the sessions of one family.
pub(super) struct Builder<'a, 'b> {
    inputs: &'b Inputs<'a>,
    local: &'b LocalNode,
    programs: Programs<'a, 'b>,
    /// The own address as text.
    own: String,
    /// Key and restart time of the mesh's sessions, when first asked for.
    mesh: Option<(Auth, u16)>,
}

impl<'a, 'b> Builder<'a, 'b> {
    /// For a family in which the node has this address, and whose normal route priority this is.
    pub(super) fn new(
        inputs: &'b Inputs<'a>,
        local: &'b LocalNode,
        own: impl Into<IpAddr>,
        priority: Option<u32>,
    ) -> Self {
        let programs = Programs { inputs, priority, imports: BTreeMap::new(), exports: BTreeMap::new() };
        Builder { inputs, local, programs, own: own.into().to_string(), mesh: None }
    }

    /// The session that `from` asks for.
    pub(super) fn session<F: Fields>(
        &mut self,
        from: &Candidate<'a>,
        own: NodeAddress<F>,
        problems: &mut Problems,
    ) -> Peer {
        let key = from.key();
        let class = from.class();
        let own: IpAddr = own.addr.into();
        let address = from.addr.to_string();
        let written = from.peer.filter(|_| !matches!(from.with, With::Node(_)));
        let local_asn = written.and_then(|peer| peer.local_asn).unwrap_or(self.local.asn);
        let peer_asn = self.peer_asn(from);
        let internal = peer_asn == local_asn;
        let resource = from.resource();
        // A workload is spoken to with what BGP has by default (PEER-33, DEF-23).
        let options = from.peer.filter(|_| !matches!(from.with, With::Workload));
        let (auth, restart_time) = self.auth_and_restart_time(from, options, &resource, problems);
        let from_node = match options {
            Some(peer) => peer.source_address == SourceAddress::UseNodeIp && !from.addr.is_loopback(),
            None => from.rank.is_mesh(),
        };
        let filters = from.peer.map_or(&[][..], |peer| &peer.filters);
        let ttl = match options.map_or(0, |peer| peer.ttl_security) {
            0 => TtlRule::Multihop(TTL),
            hops => TtlRule::Security { hops },
        };
        Peer {
            name: name(class, &address, from.port),
            class,
            spec: PeerSpec {
                transport: Transport { peer: from.addr, scope: 0, port: key.port, ttl },
                open: OpenParams {
                    local_asn,
                    peer_asn,
                    router_id: self.local.router_id,
                    families: AfiSet::only(F::AFI),
                },
                next: NextOpen {
                    source: from_node.then_some(own),
                    passive: is_passive(from, &address, &self.own),
                    keepalive: options.and_then(|peer| keepalive(peer, &resource, problems)),
                    restart_time: Some(restart_time),
                    ..self.inputs.facts.sessions.clone()
                },
            },
            auth,
            treatment: Treatment {
                internal,
                rr_client: self.rr_client(from, internal),
                next_hop: options.map_or(NextHopRule::Auto, |peer| next_hop_rule(peer, internal)),
                allow_own_as: written
                    .filter(|_| !matches!(from.with, With::Workload))
                    .map_or(0, |peer| peer.allowed_own_as),
                import: self.programs.import::<F>(filters),
                export: self.programs.export::<F>(programs::Use {
                    filters: filters.to_vec(),
                    internal,
                    node: matches!(from.with, With::Node(_) | With::Address(Some(_))),
                }),
            },
            key,
            resource,
        }
    }

    /// A Node's own AS (PEER-14, PEER-41), or what the BGPPeer says; without that the AS of the node with the address,
    /// and the global one at last (PEER-22, DEF-3).
    fn peer_asn(&self, from: &Candidate<'_>) -> Asn {
        let of_peer = |peer: &BgpPeer| written_asn(self.inputs, peer);
        match (from.with, from.peer) {
            (With::Node(node), _) => asn_of(node, self.inputs.global),
            (With::Address(Some(node)), Some(peer)) if peer.asn.is_none_or(|asn| asn == Asn(0)) => {
                asn_of(node, self.inputs.global)
            }
            (_, Some(peer)) => of_peer(peer),
            (_, None) => self.local.asn,
        }
    }

    fn auth_and_restart_time(
        &mut self,
        from: &Candidate<'_>,
        options: Option<&BgpPeer>,
        resource: &str,
        problems: &mut Problems,
    ) -> (Auth, u16) {
        let inputs = self.inputs;
        match (options, from.rank) {
            (Some(peer), _) => {
                let auth = auth::of(inputs, peer.password.as_ref(), resource, "spec.password", problems);
                let field = "spec.maxRestartTime";
                (auth, restart_time(peer.restart_time, resource, field, problems))
            }
            (None, rank) if rank.is_mesh() => self
                .mesh
                .get_or_insert_with(|| {
                    let resource = "BGPConfiguration/default";
                    let (password, field) = (inputs.global.mesh_password.as_ref(), "spec.nodeMeshPassword");
                    let auth = auth::of(inputs, password, resource, field, problems);
                    let (seconds, field) = (inputs.global.mesh_restart_time, "spec.nodeMeshMaxRestartTime");
                    (auth, restart_time(seconds, resource, field, problems))
                })
                .clone(),
            (None, _) => (Auth::None, restart_time(None, resource, "", problems)),
        }
    }

    /// PEER-70 to PEER-72: what is an address only may be anybody, a reflector of our cluster too.
    fn rr_client(&self, from: &Candidate<'_>, internal: bool) -> Option<ClusterId> {
        let theirs = match from.with {
            With::Node(node) => node.cluster_id,
            With::Address(_) | With::Workload => None,
        };
        let ours = self.local.cluster_id.filter(|_| internal && !from.rank.is_mesh());
        ours.filter(|ours| theirs != Some(*ours))
    }
}

/// Programs that sessions share, made when first asked for.
struct Programs<'a, 'b> {
    inputs: &'b Inputs<'a>,
    priority: Option<u32>,
    imports: BTreeMap<Vec<String>, Arc<Program>>,
    exports: BTreeMap<programs::Use, Arc<Program>>,
}

impl Programs<'_, '_> {
    /// The import program of sessions with these filters.
    fn import<F: Fields>(&mut self, filters: &[String]) -> Arc<Program> {
        if let Some(known) = self.imports.get(filters) {
            return known.clone();
        }
        let made = Arc::new(programs::import::<F>(self.inputs, filters, self.priority));
        self.imports.entry(filters.to_vec()).or_insert(made).clone()
    }

    /// The export program of such sessions.
    fn export<F: Fields>(&mut self, session: programs::Use) -> Arc<Program> {
        let (inputs, priority) = (self.inputs, self.priority);
        let made = self.exports.entry(session);
        let program =
            made.or_insert_with_key(|session| programs::export::<F>(inputs, priority, session).into());
        program.clone()
    }
}

/// The name of a session (PEER-3): class and address, with `_` for the separators of the address, and the port where
/// one is known, but in the mesh.
fn name(class: PeerClass, address: &str, port: Option<u16>) -> String {
    let prefix = match class {
        PeerClass::Mesh => "Mesh_",
        PeerClass::Global => "Global_",
        PeerClass::Node => "Node_",
        PeerClass::LocalWorkload => "Local_Workload_",
    };
    let mut name = String::with_capacity(prefix.len() + address.len());
    name.push_str(prefix);
    name.extend(address.chars().map(|c| if matches!(c, '.' | ':') { '_' } else { c }));
    if let Some(port) = port.filter(|_| class != PeerClass::Mesh) {
        name.push_str(&format!("_port_{port}"));
    }
    name
}

/// Who of two Calico nodes dials is decided by their addresses as text, as every BIRD node of the cluster decides it:
/// in the mesh (PEER-16) and between a global `peerIP` and the node that has it (PEER-63).
fn is_passive(from: &Candidate<'_>, address: &str, own: &str) -> bool {
    match (from.with, from.rank) {
        (With::Workload, _) => true,
        (With::Node(_), Rank::Mesh | Rank::MeshWithReflector) | (With::Address(Some(_)), Rank::Global) => {
            from.calls_us || address > own
        }
        _ => from.calls_us,
    }
}

/// A configured graceful restart time (PEER-61), or the default.
fn restart_time(configured: Option<u32>, resource: &str, field: &str, problems: &mut Problems) -> u16 {
    let Some(configured) = configured else {
        return NextOpen::default().restart_time.unwrap_or_default();
    };
    match u16::try_from(configured) {
        Ok(seconds) if seconds <= MAX_RESTART_TIME => seconds,
        _ => {
            let why = format!(
                "{configured} s is more than BGP can carry (RFC 4724 §3): {MAX_RESTART_TIME} s is used"
            );
            problems.add(Code::TimeTooLong, resource, field, why);
            MAX_RESTART_TIME
        }
    }
}

/// PEER-61.
fn keepalive(peer: &BgpPeer, resource: &str, problems: &mut Problems) -> Option<u16> {
    let seconds = peer.keepalive_time?;
    match u16::try_from(seconds) {
        Ok(seconds) => Some(seconds),
        Err(_) => {
            let why = format!("{seconds} s is longer than any hold time: a third of the hold time is used");
            problems.add(Code::TimeTooLong, resource, "spec.keepaliveTime", why);
            None
        }
    }
}

/// PEER-64.
fn next_hop_rule(peer: &BgpPeer, internal: bool) -> NextHopRule {
    match peer.next_hop_mode {
        Some(NextHopMode::SelfAddress) => NextHopRule::SelfAddress,
        Some(NextHopMode::Keep) => NextHopRule::Keep,
        Some(NextHopMode::Auto) => NextHopRule::Auto,
        None if peer.keep_original_next_hop && !internal => NextHopRule::Keep,
        None => NextHopRule::Auto,
    }
}
