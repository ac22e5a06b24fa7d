//! Everything known of the datastore at one moment.
//!
//! Owns: [`Snapshot`], immutable once published, and [`Shared`], the maps that it is made of: a kind in which nothing
//! changed is one map in all snapshots. Never: decides what follows from it.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bgp_proto::IpPrefix;

use super::{
    AffinityState, BgpConfiguration, BgpFilter, BgpPeer, ClusterInformation, EndpointSlice,
    FelixConfiguration, IpPool, NamespacedName, Node, Problem, Secret, Service, WorkloadPeer,
};

/// A map that snapshots share: cloning costs nothing, changing copies it where somebody else has it too.
pub struct Shared<K, V>(Arc<BTreeMap<K, V>>);

impl<K, V> Shared<K, V> {
    /// Whether both are one map; two maps that are equal need not be.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<K, V> Clone for Shared<K, V> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Shared(Arc::new(BTreeMap::new()))
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Shared<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || self.0 == other.0
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Shared<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K, V> Deref for Shared<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<K: Clone, V: Clone> DerefMut for Shared<K, V> {
    fn deref_mut(&mut self) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a, K, V> IntoIterator for &'a Shared<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Shared<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        Shared(Arc::new(items.into_iter().collect()))
    }
}

/// Workloads that are peers, by the name of their file.
pub type Workloads = Shared<String, Arc<WorkloadPeer>>;

/// Everything known at one moment. Maps are by name, so that walks are in a stable order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Nodes by name.
    pub nodes: Shared<String, Arc<Node>>,
    /// BGPConfigurations by name.
    pub bgp_configurations: Shared<String, Arc<BgpConfiguration>>,
    /// ClusterInformation `default`.
    pub cluster_information: Option<Arc<ClusterInformation>>,
    /// IPPools by name, those of one CIDR all of them (DS-39 says which one counts).
    pub pools: Shared<String, Arc<IpPool>>,
    /// This node's blocks (type `host`, not deleted; DS-16, DS-37).
    pub blocks: Shared<IpPrefix, AffinityState>,
    /// BGPPeers by name.
    pub peers: Shared<String, Arc<BgpPeer>>,
    /// Workloads of this node that speak BGP with it, by the name of Felix\'s file (PEER-30).
    pub workload_peers: Workloads,
    /// BGPFilters by name.
    pub filters: Shared<String, Arc<BgpFilter>>,
    /// Secrets.
    pub secrets: Shared<NamespacedName, Arc<Secret>>,
    /// Services.
    pub services: Shared<NamespacedName, Arc<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: Shared<NamespacedName, Arc<EndpointSlice>>,
    /// FelixConfigurations by name.
    pub felix_configurations: Shared<String, Arc<FelixConfiguration>>,
    /// What could not be read, sorted.
    pub problems: Vec<Problem>,
}

impl Snapshot {
    /// The datastore is locked, as while its content is moved to another one (O8): what is in force shall stay.
    pub fn is_locked(&self) -> bool {
        self.cluster_information
            .as_ref()
            .is_some_and(|information| information.datastore_ready == Some(false))
    }
}
