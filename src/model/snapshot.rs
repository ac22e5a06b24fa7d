//! Everything known of the datastore at one moment.
//!
//! Owns: [`Snapshot`], immutable once published. Never: decides what follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::IpPrefix;

use super::{
    AffinityState, BgpConfiguration, BgpFilter, BgpPeer, ClusterInformation, EndpointSlice,
    FelixConfiguration, IpPool, NamespacedName, Node, Problem, Secret, Service,
};

/// Everything known at one moment. Maps are by name, so that walks are in a stable order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// BGPConfigurations by name.
    pub bgp_configurations: BTreeMap<String, Arc<BgpConfiguration>>,
    /// ClusterInformation `default`.
    pub cluster_information: Option<Arc<ClusterInformation>>,
    /// IPPools by name, those of one CIDR all of them (DS-39 says which one counts).
    pub pools: BTreeMap<String, Arc<IpPool>>,
    /// This node's blocks (type `host`, not deleted; DS-16, DS-37).
    pub blocks: BTreeMap<IpPrefix, AffinityState>,
    /// BGPPeers by name.
    pub peers: BTreeMap<String, Arc<BgpPeer>>,
    /// BGPFilters by name.
    pub filters: BTreeMap<String, Arc<BgpFilter>>,
    /// Secrets.
    pub secrets: BTreeMap<NamespacedName, Arc<Secret>>,
    /// Services.
    pub services: BTreeMap<NamespacedName, Arc<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    /// FelixConfigurations by name.
    pub felix_configurations: BTreeMap<String, Arc<FelixConfiguration>>,
    /// What could not be read, sorted.
    pub problems: Vec<Problem>,
}
