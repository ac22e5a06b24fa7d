//! Who the local node is, where it listens, and which release's rules are in force.
//!
//! Owns: NODE-4, NODE-10, NODE-11, NODE-20, NODE-21, NODE-35, NODE-40, REL-1 to REL-3, KERN-10 and KERN-10a.
//! Never: looks at peers. Inputs: the local Node, the global and the per-node BGPConfiguration,
//! ClusterInformation, process settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use bgp_proto::{Asn, Family, RouterId, V4, V6};
use sha2::{Digest, Sha256};

use super::inputs::{Inputs, Problems};
use super::{
    ClusterRelease, ClusterRoutes, ClusterRoutesSource, Listen, LocalNode, NodeFacts, Release, ReleaseSource,
};
use crate::model::{
    BgpConfiguration, BindMode, ClusterInformation, Code, Node, NodeAddress, ProgramClusterRoutes,
};

/// AS number where neither node nor configuration has one (NODE-4).
pub const DEFAULT_ASN: Asn = Asn(64512);
/// Port where no configuration has one (NODE-20).
pub const DEFAULT_PORT: u16 = 179;
/// Normal route priority where no configuration has one (NODE-40).
pub const DEFAULT_PRIORITY: u32 = 1024;

impl Release {
    /// The newest release whose rules we know; later ones are taken as this one (REL-1).
    pub const NEWEST: Release = Release { major: 3, minor: 33 };

    /// Felix gives routes priorities, and BGP carries them (REL-3).
    pub fn has_priorities(self) -> bool {
        self >= Release { major: 3, minor: 32 }
    }

    /// Where `programClusterRoutes` is unset, IPIP routes belong to Felix (KERN-10a).
    pub fn felix_owns_ipip(self) -> bool {
        self >= Release { major: 3, minor: 33 }
    }

    /// FelixConfiguration has `programClusterRoutes` (FELIX-9).
    pub fn felix_may_own_routes(self) -> bool {
        self >= Release { major: 3, minor: 31 }
    }

    /// Routes to WireGuard peers are left to Felix (REL-12).
    pub fn leaves_wireguard_to_felix(self) -> bool {
        self >= Release { major: 3, minor: 33 }
    }

    /// A node with the label that excludes it from load balancers announces no services (REL-9).
    pub fn excludes_labelled_nodes(self) -> bool {
        self >= Release { major: 3, minor: 18 }
    }

    /// A single address in `serviceLoadBalancerIPs` is announced for a Service that has it only (REL-9).
    pub fn has_single_load_balancer_ips(self) -> bool {
        self >= Release { major: 3, minor: 25 }
    }

    /// A single address in `serviceExternalIPs` is announced for a Service that has it only (REL-9).
    pub fn has_single_external_ips(self) -> bool {
        self >= Release { major: 3, minor: 30 }
    }

    /// Internal peers are not told routes over Felix's tunnel devices, whoever they are (REL-7).
    pub fn keeps_tunnel_routes_from_internal_routers(self) -> bool {
        self >= Release { major: 3, minor: 27 }
    }

    /// Route reflectors take part in the IPv4 mesh (REL-8).
    pub fn meshes_reflectors(self) -> bool {
        self >= Release { major: 3, minor: 13 } && self < Release { major: 3, minor: 21 }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.major, self.minor)
    }
}

/// A text that names no release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReleaseTextError;

impl fmt::Display for ReleaseTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a Calico release such as v3.33")
    }
}

impl std::error::Error for ReleaseTextError {}

impl FromStr for Release {
    type Err = ReleaseTextError;

    /// Reads `major.minor` with or without a leading `v`; what follows the second number is ignored (REL-1).
    fn from_str(text: &str) -> Result<Self, ReleaseTextError> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = text.split_once('.').ok_or(ReleaseTextError)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (minor, _) = rest.split_at_checked(end).ok_or(ReleaseTextError)?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse::<u16>().map_err(|_| ReleaseTextError) } else { Err(ReleaseTextError) }
        };
        Ok(Release { major: number(major)?, minor: number(minor)? })
    }
}

impl ReleaseSource {
    /// As in `intent` and `show status`.
    pub const fn name(self) -> &'static str {
        match self {
            ReleaseSource::Setting => "setting",
            ReleaseSource::ClusterInformation => "clusterInformation",
            ReleaseSource::LastKnown => "lastKnown",
            ReleaseSource::Assumed => "assumed",
        }
    }
}

/// REL-1, REL-2.
pub(super) fn release(
    information: Option<&ClusterInformation>,
    facts: &NodeFacts,
    problems: &mut Problems,
) -> ClusterRelease {
    if let Some(release) = facts.cluster_release {
        return ClusterRelease { release: release.min(Release::NEWEST), source: ReleaseSource::Setting };
    }
    let written =
        information.and_then(|information| information.calico_version.as_deref()).unwrap_or_default();
    if let Ok(release) = written.parse::<Release>() {
        return ClusterRelease {
            release: release.min(Release::NEWEST),
            source: ReleaseSource::ClusterInformation,
        };
    }
    let why = if written.is_empty() { "no release of Calico is known" } else { "names no release of Calico" };
    let (release, source, which) = match facts.last_release {
        Some(last) => {
            (last.min(Release::NEWEST), ReleaseSource::LastKnown, ", the last one known on this node,")
        }
        None => (Release::NEWEST, ReleaseSource::Assumed, ""),
    };
    problems.add(
        Code::UnknownRelease,
        "ClusterInformation/default",
        "spec.calicoVersion",
        format!(
            "{why}, so the rules of {release}{which} are used; CALICO_BGPD_CLUSTER_RELEASE sets another release"
        ),
    );
    ClusterRelease { release, source }
}

/// KERN-10, KERN-10a.
pub(super) fn cluster_routes(global: &BgpConfiguration, release: Release) -> ClusterRoutes {
    let of = |ipip, unencapsulated| ClusterRoutes {
        ipip,
        unencapsulated,
        source: ClusterRoutesSource::Configured,
    };
    match global.program_cluster_routes {
        ProgramClusterRoutes::Unset => ClusterRoutes {
            ipip: !release.felix_owns_ipip(),
            unencapsulated: true,
            source: ClusterRoutesSource::Release,
        },
        ProgramClusterRoutes::Enabled => of(true, true),
        ProgramClusterRoutes::EnabledIpipOnly => of(true, false),
        ProgramClusterRoutes::EnabledNoEncapOnly => of(false, true),
        ProgramClusterRoutes::Disabled => of(false, false),
    }
}

/// The AS of a node: its own, else the global one (NODE-4, NODE-5).
pub(super) fn asn_of(node: &Node, global: &BgpConfiguration) -> Asn {
    node.asn.or(global.asn).unwrap_or(DEFAULT_ASN)
}

/// The local node (NODE-4 to NODE-11). A node without any address is a problem, and the rest goes on (NODE-6).
pub(super) fn local_node(inputs: &Inputs<'_>, problems: &mut Problems) -> LocalNode {
    let node = inputs.local;
    if node.ipv4.is_none() && node.ipv6.is_none() {
        problems.add(
            Code::NoNodeAddress,
            format!("Node/{}", node.name),
            "spec.bgp.ipv4Address",
            "this node has neither an IPv4 nor an IPv6 address for BGP: no session is configured",
        );
    }
    LocalNode {
        name: node.name.clone(),
        asn: asn_of(node, inputs.global),
        router_id: router_id(node, inputs.facts, problems),
        ipv4: node.ipv4,
        ipv6: node.ipv6,
        cluster_id: node.cluster_id,
    }
}

/// NODE-10. Without an IPv4 address the incumbent has no valid configuration; the hash serves then.
fn router_id(node: &Node, facts: &NodeFacts, problems: &mut Problems) -> RouterId {
    let own = || node.ipv4.map_or_else(|| router_id_hash(&node.name), |address| RouterId(address.addr));
    match facts.router_id.as_deref() {
        None | Some("") => own(),
        Some("hash") => router_id_hash(&node.name),
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(id) if !id.is_unspecified() => RouterId(id),
            _ => {
                let id = own();
                let why = format!(
                    "{text:?} is neither `hash` nor an IPv4 address other than 0.0.0.0: {id} is used"
                );
                problems.add(Code::InvalidSetting, "environment", "CALICO_ROUTER_ID", why);
                id
            }
        },
    }
}

/// The router id of a node name (NODE-11).
pub fn router_id_hash(node_name: &str) -> RouterId {
    let digest = Sha256::digest(node_name.as_bytes());
    let mut octets = [0u8; 4];
    for (to, from) in octets.iter_mut().zip(digest) {
        *to = from;
    }
    let [first, ..] = &mut octets;
    if *first > 223 {
        *first -= 32;
    }
    RouterId(Ipv4Addr::from(octets))
}

/// The port on which `node` listens (NODE-20, PEER-15).
pub(super) fn listen_port(inputs: &Inputs<'_>, node: &str) -> u16 {
    let set = |config: &BgpConfiguration| config.listen_port.filter(|port| *port != 0);
    let own = inputs.snapshot.bgp_configurations.get(&format!("node.{node}")).and_then(|config| set(config));
    own.or_else(|| set(inputs.global)).unwrap_or(DEFAULT_PORT)
}

/// Where to listen for a family in which the node has `address` (NODE-20, NODE-21).
pub(super) fn listen(inputs: &Inputs<'_>, address: IpAddr) -> Listen {
    let addr = match inputs.global.bind_mode {
        BindMode::None => None,
        BindMode::NodeIp => Some(address),
    };
    Listen { addr, port: listen_port(inputs, &inputs.local.name) }
}

/// Interfaces whose addresses are no direct routes (NODE-35).
pub(super) fn ignored_interfaces(global: &BgpConfiguration) -> Vec<String> {
    let ours = ["cali*", "kube-ipvs*"].map(str::to_owned);
    global.ignored_interfaces.iter().cloned().chain(ours).collect()
}

/// What Calico keeps apart by family in its resources.
pub(super) trait Fields: Family {
    /// The node's address.
    fn address(node: &Node) -> Option<NodeAddress<Self>>;
    /// The node's WireGuard interface address.
    fn wireguard(node: &Node) -> Option<Self::Addr>;
    /// The configured normal route priority.
    fn priority(global: &BgpConfiguration) -> Option<u32>;
    /// Field of the address, for problems.
    const ADDRESS_FIELD: &'static str;
}

impl Fields for V4 {
    fn address(node: &Node) -> Option<NodeAddress<V4>> {
        node.ipv4
    }
    fn wireguard(node: &Node) -> Option<Ipv4Addr> {
        node.wireguard_v4
    }
    fn priority(global: &BgpConfiguration) -> Option<u32> {
        global.ipv4_priority
    }
    const ADDRESS_FIELD: &'static str = "spec.bgp.ipv4Address";
}

impl Fields for V6 {
    fn address(node: &Node) -> Option<NodeAddress<V6>> {
        node.ipv6
    }
    fn wireguard(node: &Node) -> Option<std::net::Ipv6Addr> {
        node.wireguard_v6
    }
    fn priority(global: &BgpConfiguration) -> Option<u32> {
        global.ipv6_priority
    }
    const ADDRESS_FIELD: &'static str = "spec.bgp.ipv6Address";
}

/// Normal route priority `P` of a family (NODE-40); `None` where the release has no such thing (REL-3).
pub(super) fn priority<F: Fields>(inputs: &Inputs<'_>) -> Option<u32> {
    let configured = F::priority(inputs.global).unwrap_or(DEFAULT_PRIORITY);
    inputs.release.release.has_priorities().then_some(configured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_with_and_without_v_and_with_any_tail() {
        for text in ["v3.33.0-0.dev", "3.33", "v3.33", "v3.33.1", "3.33-rc1"] {
            assert_eq!(text.parse(), Ok(Release { major: 3, minor: 33 }), "{text}");
        }
        for text in
            ["", "v", "v3", "v3.", "three.two", "v.3", "3.x", "v3.99999", "-3.1", "+3.1", "vv3.1", "3 .1"]
        {
            assert_eq!(text.parse::<Release>(), Err(ReleaseTextError), "{text:?}");
        }
    }

    #[test]
    fn router_id_hashes_are_those_of_calico() {
        for (name, id) in [
            ("kube-master", "25.79.212.8"),
            ("nodeTest", "109.174.215.226"),
            ("node1", "202.18.243.27"),
            ("Testrobin123", "207.94.5.27"),
            ("node-18", "213.194.139.227"),
            ("node-39", "220.10.121.49"),
        ] {
            assert_eq!(router_id_hash(name).to_string(), id, "{name}");
        }
    }

    #[test]
    fn an_unset_owner_of_cluster_routes_follows_the_release() {
        let unset = BgpConfiguration::default();
        assert!(cluster_routes(&unset, Release { major: 3, minor: 32 }).ipip);
        assert!(!cluster_routes(&unset, Release { major: 3, minor: 33 }).ipip);
        assert!(cluster_routes(&unset, Release { major: 3, minor: 33 }).unencapsulated);
    }

    #[test]
    fn a_configured_owner_of_cluster_routes_does_not_follow_the_release() {
        let of = |program_cluster_routes, minor| {
            let config = BgpConfiguration { program_cluster_routes, ..Default::default() };
            let routes = cluster_routes(&config, Release { major: 3, minor });
            (routes.ipip, routes.unencapsulated)
        };
        for minor in [8, 32, 33] {
            assert_eq!(of(ProgramClusterRoutes::Enabled, minor), (true, true));
            assert_eq!(of(ProgramClusterRoutes::EnabledIpipOnly, minor), (true, false));
            assert_eq!(of(ProgramClusterRoutes::EnabledNoEncapOnly, minor), (false, true));
            assert_eq!(of(ProgramClusterRoutes::Disabled, minor), (false, false));
        }
    }
}
