//! The routes that this node originates by intent.
//!
//! Owns: which blocks are the node's and which of them are blackholes (FILT-2, FILT-41, DS-38).
//! Never: says who hears of them; that is the export program.

use std::collections::BTreeMap;

use bgp_proto::{IpPrefix, Prefix};

use super::StaticRoute;
use super::identity::Fields;
use super::inputs::Inputs;
use super::services::Services;
use crate::model::AffinityState;

/// The node's blocks of one family, in order. With host-local IPAM the pod CIDRs are the blocks (DS-38).
pub(super) fn blocks<F: Fields>(inputs: &Inputs<'_>) -> BTreeMap<Prefix<F>, AffinityState> {
    let of_family = |(block, state): (IpPrefix, AffinityState)| Some((Prefix::from_ip(block)?, state));
    if inputs.facts.use_pod_cidr {
        let confirmed = inputs.local.pod_cidrs.iter().map(|block| (*block, AffinityState::Confirmed));
        confirmed.filter_map(of_family).collect()
    } else {
        inputs.snapshot.blocks.iter().map(|(block, state)| (*block, *state)).filter_map(of_family).collect()
    }
}

/// Blackholes for the node's blocks, every one but a pending one and one of full length (FILT-2), and for the addresses
/// of Services that it announces (SVC-30).
pub(super) fn statics<F: Fields>(
    inputs: &Inputs<'_>,
    services: &Services,
) -> BTreeMap<Prefix<F>, StaticRoute<F>> {
    let routed =
        |(block, state): &(Prefix<F>, AffinityState)| *state != AffinityState::Pending && !block.is_host();
    let blocks = blocks::<F>(inputs).into_iter().filter(routed).map(|(block, _)| block);
    blocks.chain(services.statics()).map(|prefix| (prefix, StaticRoute::Blackhole)).collect()
}
