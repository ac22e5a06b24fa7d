//! Workloads of this node that speak BGP with it.
//!
//! Owns: PEER-31 to PEER-33. Felix has chosen them; its files say which BGPPeer each belongs to. Never: reads the files.

use bgp_proto::Afi;

use super::explicit::rank;
use super::{Candidate, With};
use crate::desired::identity::Fields;
use crate::desired::inputs::Inputs;
use crate::model::NodeAddress;

/// The sessions of one family with workloads of this node.
pub(super) fn candidates<'a, F: Fields>(
    inputs: &Inputs<'a>,
    own: Option<NodeAddress<F>>,
    into: &mut Vec<Candidate<'a>>,
) {
    if own.is_none() {
        return;
    }
    for workload in inputs.snapshot.workload_peers.values() {
        let Some(peer) = inputs.snapshot.peers.get(&workload.peer) else { continue };
        let addresses = workload.addresses.iter().filter(|addr| Afi::of(**addr) == F::AFI);
        into.extend(addresses.map(|addr| Candidate {
            rank: rank(peer),
            peer: Some(peer),
            with: With::Workload,
            addr: *addr,
            port: None,
            calls_us: false,
        }));
    }
}
