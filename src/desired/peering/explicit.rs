//! BGPPeers that this node is an owner of.
//!
//! Owns: PEER-20 to PEER-27: which BGPPeers are this node's and with whom; what is said where one asks for ourselves
//! (PEER-2). Never: decides between candidates.

use bgp_proto::prefix::is_link_local;
use bgp_proto::{Afi, Asn};

use super::{Candidate, Rank, With, configured_port};
use crate::desired::identity::{DEFAULT_ASN, Fields, asn_of, listen_port};
use crate::desired::inputs::{Inputs, Problems};
use crate::model::{BgpPeer, Code, Node, NodeAddress, PeerAddress};

/// The sessions of one family that BGPPeers want this node to have.
pub(super) fn candidates<'a, F: Fields>(
    inputs: &Inputs<'a>,
    own: Option<NodeAddress<F>>,
    into: &mut Vec<Candidate<'a>>,
    problems: &mut Problems,
) {
    for peer in inputs.snapshot.peers.values() {
        if peer.local_workload_selector.is_some() || !is_owner(peer, inputs.local) {
            continue;
        }
        let rank = rank(peer);
        if let Some(selector) = &peer.peer_selector {
            let Some(own) = own else { continue };
            for node in inputs.nodes.selected(selector).iter() {
                into.extend(with_node::<F>(inputs, rank, peer, node, own));
            }
            continue;
        }
        let Some(at) = peer.peer_ip else {
            let why = "there is neither an address nor a selector: there is no session";
            problems.add(Code::NoPeerAddress, format!("BGPPeer/{}", peer.name), "spec.peerIP", why);
            continue;
        };
        if Afi::of(at.addr) == F::AFI {
            into.extend(with_address::<F>(inputs, rank, peer, at, own, problems));
        }
    }
}

/// Global where neither `node` nor `nodeSelector` says whose it is (PEER-3).
pub(super) fn rank(peer: &BgpPeer) -> Rank {
    if peer.node.is_none() && peer.node_selector.is_none() { Rank::Global } else { Rank::Node }
}

/// PEER-20: where both are set `nodeSelector` counts.
pub(super) fn is_owner(peer: &BgpPeer, node: &Node) -> bool {
    match (&peer.node_selector, &peer.node) {
        (Some(selector), _) => selector.matches(&node.labels),
        (None, Some(name)) => *name == node.name,
        (None, None) => true,
    }
}

/// The session with a node that a selector found; none with ourselves (PEER-2), and none where the node has no address
/// of the family (PEER-26).
pub(super) fn with_node<'a, F: Fields>(
    inputs: &Inputs<'a>,
    rank: Rank,
    peer: &'a BgpPeer,
    node: &'a Node,
    own: NodeAddress<F>,
) -> Option<Candidate<'a>> {
    let address = F::address(node).filter(|address| address.addr != own.addr)?;
    let addr = address.addr.into();
    // Which interface it is on is nowhere said; the mesh or whoever looks at the Node says so.
    (!is_link_local(addr)).then(|| Candidate {
        rank,
        peer: Some(peer),
        with: With::Node(node),
        addr,
        port: configured_port(inputs, node),
        calls_us: false,
    })
}

/// The session with an address that is written in the BGPPeer.
fn with_address<'a, F: Fields>(
    inputs: &Inputs<'a>,
    rank: Rank,
    peer: &'a BgpPeer,
    at: PeerAddress,
    own: Option<NodeAddress<F>>,
    problems: &mut Problems,
) -> Option<Candidate<'a>> {
    let resource = || format!("BGPPeer/{}", peer.name);
    if is_link_local(at.addr) {
        let why =
            format!("{} is link-local and does not say on which interface: there is no session", at.addr);
        problems.add(Code::LinkLocalAddress, resource(), "spec.peerIP", why);
        return None;
    }
    let Some(own) = own else {
        let why = format!("this node has no {} address: it has no session to {}", F::AFI.name(), at.addr);
        problems.add(Code::NoAddressOfFamily, resource(), "spec.peerIP", why);
        return None;
    };
    if let Some(via) = peer.reachable_by.filter(|via| Afi::of(*via) != F::AFI) {
        // PEER-66: without the route to it the peer cannot be reached.
        let why = format!("{via} is of the other address family than peerIP: there is no session");
        problems.add(Code::GatewayOfOtherFamily, resource(), "spec.reachableBy", why);
        return None;
    }
    let node = inputs.nodes.at(at.addr);
    let port = at.port.or_else(|| known_port(inputs, peer, node));
    let ours = port.unwrap_or(super::DEFAULT_PORT) == listen_port(inputs, &inputs.local.name);
    if ours && own.addr.into() == at.addr {
        // A global peering, or one of a selector, that also meets its own target is nothing to speak of.
        if peer.node.is_some() && peer.node_selector.is_none() {
            let why = format!("{} is this node itself: there is no session", at.addr);
            problems.add(Code::PeerIsThisNode, resource(), "spec.peerIP", why);
        }
        return None;
    }
    Some(Candidate {
        rank,
        peer: Some(peer),
        with: With::Address(node),
        addr: at.addr,
        port,
        // Our own socket answers there: whoever it is has to call.
        calls_us: ours && at.addr.is_loopback(),
    })
}

/// The AS that a BGPPeer says, or the global one (PEER-22, PEER-24).
pub(super) fn written_asn(inputs: &Inputs<'_>, peer: &BgpPeer) -> Asn {
    peer.asn.filter(|asn| *asn != Asn(0)).or(inputs.global.asn).unwrap_or(DEFAULT_ASN)
}

/// The port of a peer that is written without one (PEER-24): that of the Calico node with this address and AS.
fn known_port(inputs: &Inputs<'_>, peer: &BgpPeer, node: Option<&Node>) -> Option<u16> {
    let node = node.filter(|node| asn_of(node, inputs.global) == written_asn(inputs, peer))?;
    configured_port(inputs, node)
}
