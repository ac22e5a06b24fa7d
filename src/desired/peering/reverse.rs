//! BGPPeers whose peer this node is: the other end of each of their sessions.
//!
//! Owns: PEER-40 to PEER-43, DEF-13, DEF-22. Never: anything of this node's own BGPPeers.

use std::rc::Rc;

use super::explicit::{with_node, written_asn};
use super::{Candidate, Rank};
use crate::desired::identity::{Fields, asn_of, listen_port};
use crate::desired::inputs::Inputs;
use crate::model::{BgpPeer, Node, NodeAddress};

/// The sessions of one family that this node has because it is somebody's peer.
pub(super) fn candidates<'a, F: Fields>(
    inputs: &Inputs<'a>,
    own: Option<NodeAddress<F>>,
    into: &mut Vec<Candidate<'a>>,
) {
    let Some(own) = own else { return };
    for peer in inputs.snapshot.peers.values() {
        if peer.reverse_peering_manual
            || peer.local_workload_selector.is_some()
            || !is_peer(inputs, peer, own)
        {
            continue;
        }
        for node in owners(inputs, peer).iter() {
            into.extend(with_node::<F>(inputs, Rank::Reverse, peer, node, own));
        }
    }
}

/// Whether the BGPPeer asks for sessions with this node. A `peerIP` asks for the node that has the address, the AS and,
/// where a port is written, that port.
fn is_peer<F: Fields>(inputs: &Inputs<'_>, peer: &BgpPeer, own: NodeAddress<F>) -> bool {
    match (&peer.peer_selector, peer.peer_ip) {
        (Some(selector), _) => selector.matches(&inputs.local.labels),
        (None, Some(at)) => {
            at.addr == own.addr.into()
                && asn_of(inputs.local, inputs.global) == written_asn(inputs, peer)
                && at.port.is_none_or(|port| listens_on(inputs, port))
        }
        (None, None) => false,
    }
}

/// Whether a written port fits what is configured of ours: the global one has to be it too where there is one (DEF-13).
fn listens_on(inputs: &Inputs<'_>, port: u16) -> bool {
    let global = inputs.global.listen_port.filter(|port| *port != 0);
    port == listen_port(inputs, &inputs.local.name) && global.is_none_or(|global| global == port)
}

/// The nodes whose sessions the BGPPeer is about (PEER-20).
fn owners<'a>(inputs: &Inputs<'a>, peer: &'a BgpPeer) -> Rc<Vec<&'a Node>> {
    match (&peer.node_selector, &peer.node) {
        (Some(selector), _) => inputs.nodes.selected(selector),
        (None, Some(name)) => {
            Rc::new(inputs.snapshot.nodes.get(name).map(|node| &**node).into_iter().collect())
        }
        (None, None) => inputs.nodes.all(),
    }
}
