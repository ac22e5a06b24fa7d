//! The full mesh.
//!
//! Owns: PEER-10 to PEER-16 and REL-8: who is in it, and nodes that cannot be. Never: reads BGPPeers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp_proto::Afi;
use bgp_proto::prefix::is_link_local;

use super::{Candidate, Rank, With, configured_port};
use crate::desired::identity::Fields;
use crate::desired::inputs::{Inputs, Problems};
use crate::model::{Code, Node, NodeAddress};

/// The other nodes of the mesh, by name; none without an own address in the family.
pub(super) fn candidates<'a, F: Fields>(
    inputs: &Inputs<'a>,
    own: Option<NodeAddress<F>>,
    problems: &mut Problems,
) -> Vec<Candidate<'a>> {
    let shared = shared_addresses::<F>(inputs, problems);
    let Some(own) = own else { return Vec::new() };
    if inputs.global.mesh_enabled == Some(false) {
        return Vec::new();
    }
    // REL-8: releases 3.13 to 3.20 had reflectors in the IPv4 mesh.
    let reflectors = F::AFI == Afi::Ipv4 && inputs.release.release.meshes_reflectors();
    let in_mesh = |node: &Node| reflectors || node.cluster_id.is_none();
    if !in_mesh(inputs.local) {
        return Vec::new();
    }
    let scopeless = |node: &Node, addr: IpAddr, then: &str, problems: &mut Problems| {
        let why = format!("{addr} is link-local and does not say on which interface: {then}");
        problems.add(Code::LinkLocalAddress, format!("Node/{}", node.name), F::ADDRESS_FIELD, why);
    };
    if is_link_local(own.addr.into()) {
        scopeless(inputs.local, own.addr.into(), "there is no session of the mesh", problems);
        return Vec::new();
    }
    let mut taken = BTreeSet::new();
    let mut found = Vec::new();
    for node in inputs.nodes.all().iter().filter(|node| in_mesh(node)) {
        let Some(address) = F::address(node) else { continue };
        // PEER-12: "another node" is decided by address.
        if address.addr == own.addr {
            continue;
        }
        let addr = address.addr.into();
        if is_link_local(addr) {
            scopeless(node, addr, "this node gets no session", problems);
            continue;
        }
        // Nodes are walked in order of their names, so of two with one address the lower name stays (T22).
        if !shared.contains(&address.addr) || taken.insert(address.addr) {
            found.push(Candidate {
                rank: if reflectors && (inputs.local.cluster_id.is_some() || node.cluster_id.is_some()) {
                    Rank::MeshWithReflector
                } else {
                    Rank::Mesh
                },
                peer: None,
                with: With::Node(node),
                addr,
                port: configured_port(inputs, node),
                calls_us: false,
            });
        }
    }
    found
}

/// One problem for each node that has the address of a node before it (D3); the local node comes first of all. The
/// addresses that are shared.
fn shared_addresses<F: Fields>(inputs: &Inputs<'_>, problems: &mut Problems) -> BTreeSet<F::Addr> {
    let local = inputs.local;
    let mut owners: Vec<(F::Addr, bool, &str)> = Vec::with_capacity(inputs.nodes.all().len());
    for node in inputs.nodes.all().iter() {
        owners.extend(F::address(node).map(|at| (at.addr, node.name != local.name, node.name.as_str())));
    }
    owners.sort_unstable();
    let mut shared = BTreeSet::new();
    let mut owners = owners.into_iter();
    let Some(mut first) = owners.next() else { return shared };
    for (address, is_other, name) in owners {
        if address != first.0 {
            first = (address, is_other, name);
            continue;
        }
        shared.insert(address);
        let why = format!("{address} is the address of Node/{} too: this node gets no session", first.2);
        problems.add(Code::SharedNodeAddress, format!("Node/{name}"), F::ADDRESS_FIELD, why);
    }
    shared
}
