//! What is held of the datastore between two snapshots.
//!
//! Owns: resources by key with their problems, and how they become a [`Snapshot`]: only this node's own live blocks are
//! in it (DS-37). Never: reads anything.

use std::collections::BTreeMap;

use super::Problem;
use super::decode::{Decoded, Resource, ResourceKey};
use super::snapshot::Snapshot;

/// Builds a [`Snapshot`] out of resources.
pub struct SnapshotBuilder<'a> {
    node: &'a str,
    use_pod_cidr: bool,
    snapshot: Snapshot,
}

impl<'a> SnapshotBuilder<'a> {
    /// For the node of this name; with `use_pod_cidr` block affinities are not read (DS-38).
    pub fn new(node: &'a str, use_pod_cidr: bool) -> Self {
        SnapshotBuilder { node, use_pod_cidr, snapshot: Snapshot::default() }
    }

    /// Adds one resource and its problems.
    pub fn add(&mut self, decoded: &Decoded) {
        let into = &mut self.snapshot;
        let key = &decoded.key;
        match &decoded.resource {
            None => {}
            Some(Resource::Node(node)) => {
                into.nodes.insert(key.name.clone(), node.clone());
            }
            Some(Resource::BgpConfiguration(config)) => {
                into.bgp_configurations.insert(key.name.clone(), config.clone());
            }
            Some(Resource::ClusterInformation(information)) if key.name == "default" => {
                into.cluster_information = Some(information.clone());
            }
            Some(Resource::ClusterInformation(_)) => {}
            Some(Resource::IpPool(pool)) => {
                into.pools.insert(key.name.clone(), pool.clone());
            }
            Some(Resource::BlockAffinity(block)) => {
                if block.node != self.node {
                    // What is wrong with the blocks of others is theirs to say.
                    return;
                }
                if block.is_host && !block.deleted && !self.use_pod_cidr {
                    // Two affinities for one block: the one that is further in force counts.
                    let state = into.blocks.entry(block.cidr).or_insert(block.state);
                    *state = block.state.min(*state);
                }
            }
            Some(Resource::BgpPeer(peer)) => {
                into.peers.insert(key.name.clone(), peer.clone());
            }
            Some(Resource::BgpFilter(filter)) => {
                into.filters.insert(key.name.clone(), filter.clone());
            }
            Some(Resource::Secret(secret)) => {
                into.secrets.insert(secret.name.clone(), secret.clone());
            }
            Some(Resource::Service(service)) => {
                into.services.insert(service.name.clone(), service.clone());
            }
            Some(Resource::EndpointSlice(slice)) => {
                into.endpoint_slices.insert(slice.name.clone(), slice.clone());
            }
            Some(Resource::FelixConfiguration(config)) => {
                into.felix_configurations.insert(key.name.clone(), config.clone());
            }
        }
        into.problems.extend(decoded.problems.iter().cloned());
    }

    /// Adds problems that belong to no resource.
    pub fn add_problems(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.snapshot.problems.extend(problems);
    }

    /// The snapshot, problems sorted.
    pub fn finish(mut self) -> Snapshot {
        self.snapshot.problems.sort();
        self.snapshot.problems.dedup();
        self.snapshot
    }
}

/// Resources of one place (a file, a cluster in etcd) by key.
pub type Held = BTreeMap<ResourceKey, Decoded>;
