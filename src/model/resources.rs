//! The Calico resources, only the fields we use (DS-10 to DS-41).
//!
//! Owns: typed resources, equal when nothing that matters to BGP differs (a heartbeat of a Node changes nothing,
//! DYN-11). Never: reads files or speaks to a datastore. Values here are checked: what could not be understood became
//! a [`Problem`](super::Problem) when the resource was read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bgp_proto::{Afi, Asn, ClusterId, Family, IpPrefix, Prefix, V4, V6};
use zeroize::Zeroizing;

use super::Selector;

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

/// What identifies a resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResourceKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for kinds that have none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ResourceKey {
    /// The key of a resource without a namespace.
    pub fn global(kind: Kind, name: impl Into<String>) -> Self {
        ResourceKey { kind, namespace: String::new(), name: name.into() }
    }

    pub(super) fn namespaced(&self) -> NamespacedName {
        NamespacedName { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from outside: control characters must not reach a terminal.
        let (namespace, name) = (self.namespace.escape_debug(), self.name.escape_debug());
        if self.namespace.is_empty() {
            write!(f, "{}/{name}", self.kind.name())
        } else {
            write!(f, "{}/{namespace}/{name}", self.kind.name())
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
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

/// A block affinity, of any node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockAffinity {
    /// The node that owns the block.
    pub node: String,
    /// The block, masked.
    pub cidr: IpPrefix,
    /// `type`: only `host` matters to BGP (DS-36).
    pub is_host: bool,
    /// `state`.
    pub state: AffinityState,
    /// `deleted`: the block is being given back (DS-37).
    pub deleted: bool,
}

/// `peerIP` (PEER-22).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerAddress {
    /// Address.
    pub addr: IpAddr,
    /// Port, where one is written; never 0.
    pub port: Option<u16>,
}

/// `sourceAddress` (PEER-60).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SourceAddress {
    /// The node IP of the family.
    #[default]
    UseNodeIp,
    /// The kernel's choice.
    None,
}

/// `nextHopMode` (PEER-64).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHopMode {
    /// Protocol default.
    Auto,
    /// Always the own address.
    SelfAddress,
    /// Never changed.
    Keep,
}

/// A workload that speaks BGP with its node, as Felix's endpoint status says (PEER-30 to PEER-32).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkloadPeer {
    /// `bgpPeerName`: the BGPPeer that has selected it.
    pub peer: String,
    /// Its first address of each family.
    pub addresses: Vec<IpAddr>,
}

/// BGPPeer (PEER-20 to PEER-68).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BgpPeer {
    /// `metadata.name`.
    pub name: String,
    /// `node`; empty is unset.
    pub node: Option<String>,
    /// `nodeSelector`; empty is unset.
    pub node_selector: Option<Arc<Selector>>,
    /// `peerIP`.
    pub peer_ip: Option<PeerAddress>,
    /// `peerSelector`; empty is unset.
    pub peer_selector: Option<Arc<Selector>>,
    /// `localWorkloadSelector`, which Felix evaluates; empty is unset.
    pub local_workload_selector: Option<String>,
    /// `asNumber`.
    pub asn: Option<Asn>,
    /// `localASNumber`.
    pub local_asn: Option<Asn>,
    /// `password.secretKeyRef`.
    pub password: Option<SecretKeyRef>,
    /// `sourceAddress`.
    pub source_address: SourceAddress,
    /// `maxRestartTime` in whole seconds (PEER-61).
    pub restart_time: Option<u32>,
    /// `keepaliveTime` in whole seconds (PEER-61).
    pub keepalive_time: Option<u32>,
    /// `numAllowedLocalASNumbers`.
    pub allowed_own_as: u8,
    /// `ttlSecurity`: hops; 0 is off.
    pub ttl_security: u8,
    /// `reachableBy`.
    pub reachable_by: Option<IpAddr>,
    /// `nextHopMode`.
    pub next_hop_mode: Option<NextHopMode>,
    /// `keepOriginalNextHop`.
    pub keep_original_next_hop: bool,
    /// `filters`, in order.
    pub filters: Vec<String>,
    /// `reversePeering: Manual`: no reverse peering is generated (PEER-42).
    pub reverse_peering_manual: bool,
}

/// A community as BGPFilter and `prefixAdvertisements` write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CommunityValue {
    /// `aa:nn` (RFC 1997).
    Standard(u16, u16),
    /// `aa:nn:mm` (RFC 8092).
    Large(u32, u32, u32),
}

impl std::str::FromStr for CommunityValue {
    type Err = CommunityTextError;

    fn from_str(text: &str) -> Result<Self, CommunityTextError> {
        fn part<T: std::str::FromStr>(text: &str) -> Result<T, CommunityTextError> {
            // `from_str` of a number would take "+1".
            if !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(CommunityTextError);
            }
            text.parse().map_err(|_| CommunityTextError)
        }
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(a), Some(b), None, None) => Ok(CommunityValue::Standard(part(a)?, part(b)?)),
            (Some(a), Some(b), Some(c), None) => Ok(CommunityValue::Large(part(a)?, part(b)?, part(c)?)),
            _ => Err(CommunityTextError),
        }
    }
}

/// A text that is no community.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommunityTextError;

impl fmt::Display for CommunityTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a community (aa:nn with numbers up to 65535, or aa:nn:mm)")
    }
}

impl std::error::Error for CommunityTextError {}

/// `matchOperator` with its `cidr` (FILT-53).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MatchOperator {
    /// Equal or more specific.
    In,
    /// Not [`MatchOperator::In`].
    NotIn,
    /// The same prefix.
    Equal,
    /// Another prefix.
    NotEqual,
}

/// The prefix condition of a filter rule (FILT-53).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixMatch {
    /// `cidr`, masked (FILT-54).
    pub cidr: IpPrefix,
    /// `matchOperator`.
    pub operator: MatchOperator,
    /// `prefixLength`: `min` and `max`, where the object is there.
    pub length: Option<(Option<u8>, Option<u8>)>,
}

/// An entry of `operations` (FILT-61).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilterOperation {
    /// `addCommunity`.
    AddCommunity(CommunityValue),
    /// `prependASPath`.
    PrependAsPath(Vec<Asn>),
    /// `setPriority`.
    SetPriority(u32),
}

/// A rule of a BGPFilter; conditions that are `None` match everything (FILT-50).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilterRule {
    /// Its place in the resource's list, which a rule that was left out does not change.
    pub index: usize,
    /// `cidr`, `matchOperator`, `prefixLength`.
    pub prefix: Option<PrefixMatch>,
    /// `source: RemotePeers`.
    pub remote_peers: bool,
    /// `interface`, a glob.
    pub interface: Option<String>,
    /// `peerType`: `Some(true)` is iBGP, `Some(false)` is eBGP.
    pub internal: Option<bool>,
    /// `communities.values`, one.
    pub community: Option<CommunityValue>,
    /// `asPathPrefix`; empty matches every path.
    pub as_path_prefix: Vec<Asn>,
    /// `priority`.
    pub priority: Option<u32>,
    /// `action: Accept`; else `Reject`.
    pub accept: bool,
    /// `operations`, in order.
    pub operations: Vec<FilterOperation>,
}

/// BGPFilter (FILT-50 to FILT-61).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BgpFilter {
    /// `metadata.name`.
    pub name: String,
    /// `exportV4`.
    pub export_v4: Vec<FilterRule>,
    /// `exportV6`.
    pub export_v6: Vec<FilterRule>,
    /// `importV4`.
    pub import_v4: Vec<FilterRule>,
    /// `importV6`.
    pub import_v6: Vec<FilterRule>,
}

/// Name of a resource in a namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamespacedName {
    /// `metadata.namespace`; `default` where it is missing.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Bytes of a Secret: never printed, shared and not copied, wiped when the last holder lets go.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

impl SecretBytes {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        SecretBytes(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// Secret (core/v1): `data`, with `stringData` over it (PEER-80).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secret {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Values by key, decoded.
    pub data: BTreeMap<String, SecretBytes>,
}

/// `spec.type` of a Service (SVC-20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServiceType {
    /// `ClusterIP`, or absent.
    #[default]
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
    /// Any other: never advertised.
    Other,
}

/// `externalTrafficPolicy` (SVC-20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrafficPolicy {
    /// `Cluster`; also where it is absent on a Service that is reachable from outside.
    Cluster,
    /// `Local`.
    Local,
}

/// Service (core/v1), what SVC-20 to SVC-25 read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and name.
    pub name: NamespacedName,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// `spec.clusterIP`; `None` for empty and for the text `None` (headless).
    pub cluster_ip: Option<IpAddr>,
    /// `spec.clusterIPs`; where absent, `clusterIP`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerIP`.
    pub load_balancer_ip: Option<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`.
    pub ingress_ips: Vec<IpAddr>,
    /// `spec.externalTrafficPolicy`; `None` only for a ClusterIP Service without external IPs.
    pub traffic_policy: Option<TrafficPolicy>,
    /// `spec.ipFamilies`; where absent, those of `clusterIPs`.
    pub ip_families: Vec<Afi>,
}

/// An endpoint of an EndpointSlice (SVC-21).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// `nodeName`.
    pub node: Option<String>,
    /// `conditions.ready` is true or absent.
    pub ready: bool,
}

/// EndpointSlice (discovery.k8s.io/v1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Label `kubernetes.io/service-name`.
    pub service: Option<String>,
    /// `addressType`; `None` for `FQDN` and what is unknown.
    pub family: Option<Afi>,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

/// FelixConfiguration, what bears on who programs which route (FELIX-9).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FelixConfiguration {
    /// `default` or `node.<nodename>`.
    pub name: String,
    /// `programClusterRoutes` as written.
    pub program_cluster_routes: Option<String>,
}
