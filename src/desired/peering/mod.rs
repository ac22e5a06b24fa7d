//! From what asks for sessions to the sessions.
//!
//! Owns: [`Candidate`] and [`Rank`], and the one place that says which candidate for an address and port becomes the
//! session and which ones lose (PEER-18, PEER-50 to PEER-54). Never: makes a session ([`session`]).
//!
//! | module | candidates |
//! |---|---|
//! | `mesh` | other nodes (PEER-10 to PEER-17) |
//! | `explicit` | BGPPeers that this node is an owner of (PEER-20 to PEER-27) |
//! | `reverse` | BGPPeers that this node is the peer of (PEER-40 to PEER-43) |
//! | `workload` | local workloads (PEER-30 to PEER-34) |

mod explicit;
mod mesh;
mod reverse;
mod session;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::identity::{DEFAULT_PORT, Fields};
use super::inputs::{Inputs, Problems};
use super::prior::Asked;
use super::{LocalNode, PeerClass, SessionKey};
use crate::model::{BgpPeer, Code, Node, NodeAddress};

/// Which of several candidates for one address and port comes first (PEER-51, PEER-52; PEER-18).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    /// A global BGPPeer.
    Global,
    /// The full mesh, where a reflector is in it (REL-8): BIRD gives the connection of a peer to the first session by
    /// name, and `Mesh_` comes before `Node_`. As recorded.
    MeshWithReflector,
    /// A BGPPeer of some nodes, this one among them.
    Node,
    /// A BGPPeer whose peer this node is.
    Reverse,
    /// The full mesh.
    Mesh,
}

impl Rank {
    /// The full mesh asks for it.
    fn is_mesh(self) -> bool {
        matches!(self, Rank::Mesh | Rank::MeshWithReflector)
    }
}

/// Who the peer is.
#[derive(Clone, Copy, Debug)]
enum With<'a> {
    /// An address that is written in a BGPPeer; the Node that has it, if one does.
    Address(Option<&'a Node>),
    /// A Node that a selector or the mesh found.
    Node(&'a Node),
    /// A local workload.
    Workload,
}

/// Something that asks for a session.
#[derive(Clone, Debug)]
struct Candidate<'a> {
    rank: Rank,
    /// The BGPPeer; `None` in the mesh.
    peer: Option<&'a BgpPeer>,
    with: With<'a>,
    addr: IpAddr,
    /// The port, where one is written or known of the peer.
    port: Option<u16>,
    /// It is on this node and calls us: we never dial it.
    calls_us: bool,
}

impl Candidate<'_> {
    fn key(&self) -> SessionKey {
        SessionKey::new(self.addr, self.port.unwrap_or(DEFAULT_PORT))
    }

    fn class(&self) -> PeerClass {
        match (self.with, self.rank) {
            (With::Workload, _) => PeerClass::LocalWorkload,
            (_, Rank::Global) => PeerClass::Global,
            (_, Rank::Node | Rank::Reverse) => PeerClass::Node,
            (_, Rank::Mesh | Rank::MeshWithReflector) => PeerClass::Mesh,
        }
    }

    fn resource(&self) -> String {
        match (self.peer, self.with) {
            (Some(peer), _) => ["BGPPeer/", &peer.name].concat(),
            (None, With::Node(node)) => ["Node/", &node.name].concat(),
            (None, _) => String::new(),
        }
    }
}

/// The port that a node's own or the global configuration sets (NODE-20, PEER-15).
fn configured_port(inputs: &Inputs<'_>, node: &Node) -> Option<u16> {
    inputs.nodes.port(&node.name).or(inputs.global.listen_port.filter(|port| *port != 0))
}

/// Adds the sessions of one family, and the routes that lead to their peers (PEER-66).
pub(super) fn sessions<F: Fields>(
    inputs: &Inputs<'_>,
    local: &LocalNode,
    priority: Option<u32>,
    asked: &mut Asked,
    problems: &mut Problems,
) {
    let own: Option<NodeAddress<F>> = F::address(inputs.local);
    let mut candidates = Vec::new();
    explicit::candidates::<F>(inputs, own, &mut candidates, problems);
    workload::candidates::<F>(inputs, own, &mut candidates);
    reverse::candidates::<F>(inputs, own, &mut candidates);
    let mesh = mesh::candidates::<F>(inputs, own, problems);
    let (early, mesh): (Vec<_>, Vec<_>) =
        mesh.into_iter().partition(|candidate| candidate.rank == Rank::MeshWithReflector);
    candidates.extend(early);
    candidates.sort_by_key(|candidate| (candidate.rank, candidate.peer.map(|peer| &peer.name)));
    let (winners, addresses) = decide(candidates, problems);
    let Some(own) = own else { return };
    let mut builder = session::Builder::new(inputs, local, own.addr, priority);
    let mut made = Vec::with_capacity(winners.len() + mesh.len());
    for winner in &winners {
        // PEER-66; DEF-22: the other end of a reverse peering has the route too.
        if let Some(via) = winner.peer.and_then(|peer| peer.reachable_by)
            && !matches!(winner.with, With::Workload)
        {
            asked.gateways.push((winner.addr, via));
        }
        made.push((winner.key(), Arc::new(builder.session::<F>(winner, own, problems))));
    }
    for candidate in mesh {
        // PEER-18: the explicit peering takes the place of the mesh's, whatever their ports.
        if addresses.is_empty() || !addresses.contains(&candidate.addr) {
            made.push((candidate.key(), Arc::new(builder.session::<F>(&candidate, own, problems))));
        }
    }
    // Those of a large mesh are put into order once.
    asked.peers.append(&mut made.into_iter().collect());
}

/// The candidates that become sessions, and their addresses. Of several for one address and port the first wins, and
/// nothing of the others counts (PEER-51).
fn decide<'a>(
    candidates: Vec<Candidate<'a>>,
    problems: &mut Problems,
) -> (Vec<Candidate<'a>>, BTreeSet<IpAddr>) {
    let mut places: BTreeMap<SessionKey, usize> = BTreeMap::new();
    let mut winners: Vec<Candidate<'a>> = Vec::new();
    // How many sessions a BGPPeer leaves to another one, and the first of them.
    let mut lost: BTreeMap<(&'a str, &'a str), (usize, SessionKey)> = BTreeMap::new();
    for candidate in candidates {
        let key = candidate.key();
        let Some(winner) = places.get(&key).and_then(|place| winners.get(*place)) else {
            places.insert(key, winners.len());
            winners.push(candidate);
            continue;
        };
        // Both ends of a peering may ask for it: what is generated for the other end is nobody's mistake.
        if let (Some(winner), Some(loser)) = (winner.peer, candidate.peer)
            && winner.name != loser.name
            && candidate.rank != Rank::Reverse
        {
            let (count, _) = lost.entry((&loser.name, &winner.name)).or_insert((0, key));
            *count += 1;
        }
    }
    for ((loser, winner), (count, first)) in lost {
        let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let why = format!(
            "BGPPeer/{winner} already asks for a session to {first}{others}: this one has none there"
        );
        problems.add(Code::OverriddenPeering, format!("BGPPeer/{loser}"), "spec", why);
    }
    let addresses = winners.iter().map(|winner| winner.addr).collect();
    (winners, addresses)
}
