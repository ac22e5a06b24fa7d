//! The Calico resources, only the fields we use (DS-10 to DS-41).
//!
//! Owns: typed resources, equal when nothing that matters to BGP differs (a heartbeat of a Node changes nothing,
//! DYN-11). Never: reads files or speaks to a datastore. Values here are checked: what could not be understood became
//! a [`Problem`] when the resource was read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_proto::{Asn, ClusterId, Family, IpPrefix, Prefix, V4, V6};

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Something is left out or done as a default; nothing that worked is lost.
    Warning,
    /// Something that the resources ask for is not done; `check` fails.
    Error,
}

/// Input that was refused, or whose effect is not built yet: which resource, which field, why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Problem {
    /// `Kind/name` (with a namespace `Kind/namespace/name`), a file's path with the document's number, or an etcd key.
    pub resource: String,
    /// Path of the field, as in `spec.bgp.ipv4Address`; empty where the whole resource is meant.
    pub field: String,
    /// One sentence without a full stop.
    pub why: String,
    /// How bad.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.resource, self.why)
        } else {
            write!(f, "{}: {}: {}", self.resource, self.field, self.why)
        }
    }
}

/// The kinds that are read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Calico Node.
    Node,
    /// BGPConfiguration: `default` and `node.<name>`.
    BgpConfiguration,
    /// ClusterInformation `default`.
    ClusterInformation,
    /// IPPool.
    IpPool,
    /// Block affinity, as an IPAM key or as a resource.
    BlockAffinity,
    /// BGPPeer.
    BgpPeer,
    /// BGPFilter.
    BgpFilter,
    /// Secret (core/v1).
    Secret,
    /// Service (core/v1).
    Service,
    /// EndpointSlice (discovery.k8s.io/v1).
    EndpointSlice,
    /// FelixConfiguration.
    FelixConfiguration,
}

impl Kind {
    /// The kind as resources spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Node => "Node",
            Kind::BgpConfiguration => "BGPConfiguration",
            Kind::ClusterInformation => "ClusterInformation",
            Kind::IpPool => "IPPool",
            Kind::BlockAffinity => "BlockAffinity",
            Kind::BgpPeer => "BGPPeer",
            Kind::BgpFilter => "BGPFilter",
            Kind::Secret => "Secret",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::FelixConfiguration => "FelixConfiguration",
        }
    }
}

/// A node's own address with its subnet (DS-14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodeAddress<F: Family> {
    /// The node IP.
    pub addr: F::Addr,
    /// The masked subnet; a host prefix where the text had no length.
    pub subnet: Prefix<F>,
}

/// Calico Node (DS-12, DS-33).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.bgp.asNumber`.
    pub asn: Option<Asn>,
    /// `spec.bgp.ipv4Address`.
    pub ipv4: Option<NodeAddress<V4>>,
    /// `spec.bgp.ipv6Address`.
    pub ipv6: Option<NodeAddress<V6>>,
    /// `spec.bgp.routeReflectorClusterID`, not empty: the node is a route reflector.
    pub cluster_id: Option<ClusterId>,
    /// `spec.wireguard.interfaceIPv4Address`.
    pub wireguard_v4: Option<Ipv4Addr>,
    /// `spec.wireguard.interfaceIPv6Address`.
    pub wireguard_v6: Option<Ipv6Addr>,
    /// `status.podCIDRs` (DS-38).
    pub pod_cidrs: Vec<IpPrefix>,
}

/// `{name, value}` of BGPConfiguration `communities`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedCommunity {
    /// Name.
    pub name: String,
    /// `aa:nn` or `aa:nn:mm`.
    pub value: String,
}

/// An entry of `prefixAdvertisements`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrefixAdvertisement {
    /// `cidr`.
    pub cidr: Option<IpPrefix>,
    /// Names or values.
    pub communities: Vec<String>,
}

/// A reference to one key of a Secret (PEER-80).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SecretKeyRef {
    /// Secret's name.
    pub name: String,
    /// Key in its data.
    pub key: String,
}

/// `bindMode` (NODE-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BindMode {
    /// All addresses.
    #[default]
    None,
    /// The node IP of the family.
    NodeIp,
}

/// `programClusterRoutes` (KERN-10).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProgramClusterRoutes {
    /// Absent or unrecognised.
    #[default]
    Unset,
    /// We program IPIP and un-encapsulated pools.
    Enabled,
    /// We program IPIP pools.
    EnabledIpipOnly,
    /// We program un-encapsulated pools.
    EnabledNoEncapOnly,
    /// Felix programs all.
    Disabled,
}

/// BGPConfiguration (NODE-41 says which of `default` and `node.<name>` matters for what).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BgpConfiguration {
    /// `default` or `node.<nodename>`.
    pub name: String,
    /// `nodeToNodeMeshEnabled`; unset = on.
    pub mesh_enabled: Option<bool>,
    /// `asNumber`.
    pub asn: Option<Asn>,
    /// `listenPort`; 0 is unset.
    pub listen_port: Option<u16>,
    /// `bindMode`.
    pub bind_mode: BindMode,
    /// `logSeverityScreen` as written; empty is unset.
    pub log_severity: Option<String>,
    /// `ignoredInterfaces` in list order.
    pub ignored_interfaces: Vec<String>,
    /// `ipv4NormalRoutePriority`.
    pub ipv4_priority: Option<u32>,
    /// `ipv6NormalRoutePriority`.
    pub ipv6_priority: Option<u32>,
    /// `programClusterRoutes`.
    pub program_cluster_routes: ProgramClusterRoutes,
    /// `nodeMeshPassword`.
    pub mesh_password: Option<SecretKeyRef>,
    /// `nodeMeshMaxRestartTime` in whole seconds (PEER-61).
    pub mesh_restart_time: Option<u32>,
    /// `serviceClusterIPs`.
    pub service_cluster_ips: Vec<IpPrefix>,
    /// `serviceExternalIPs`.
    pub service_external_ips: Vec<IpPrefix>,
    /// `serviceLoadBalancerIPs`.
    pub service_load_balancer_ips: Vec<IpPrefix>,
    /// `serviceLoadBalancerAggregation`; unset = on.
    pub load_balancer_aggregation: Option<bool>,
    /// `communities`.
    pub communities: Vec<NamedCommunity>,
    /// `prefixAdvertisements`; `None` where the field is absent (FILT-36).
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
}

/// ClusterInformation `default`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterInformation {
    /// `spec.calicoVersion` (REL-1).
    pub calico_version: Option<String>,
    /// `spec.datastoreReady` (O8).
    pub datastore_ready: Option<bool>,
}

/// `ipipMode`, `vxlanMode` (DS-39).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EncapMode {
    /// `Never`, absent or unrecognised.
    #[default]
    Never,
    /// `CrossSubnet`.
    CrossSubnet,
    /// `Always`.
    Always,
}

/// IPPool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IpPool {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cidr`, masked.
    pub cidr: IpPrefix,
    /// `spec.ipipMode`.
    pub ipip: EncapMode,
    /// `spec.vxlanMode`.
    pub vxlan: EncapMode,
    /// `spec.disableBGPExport`.
    pub disable_bgp_export: bool,
}

/// State of a block affinity (DS-16, FILT-41).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AffinityState {
    /// `confirmed`, empty or missing.
    Confirmed,
    /// `pending`.
    Pending,
    /// `pendingDeletion`.
    PendingDeletion,
}
