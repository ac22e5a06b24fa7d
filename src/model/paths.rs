//! Keys of Calico's etcd layout and what they hold (DS-10, DS-11, DS-16).
//!
//! Owns: which prefixes are listed and watched, and key → resource. Never: speaks to etcd or reads values.

use std::net::IpAddr;

use bgp_proto::IpPrefix;

use super::Kind;
use super::ResourceKey;

/// Where resources without a namespace live.
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
/// Where block affinities live, by node.
const AFFINITIES: &str = "/calico/ipam/v2/host/";

/// The kinds that are read from etcd, with their plurals. Secrets, Services and EndpointSlices are never there.
const PLURALS: [(&str, Kind); 7] = [
    ("bgpconfigurations", Kind::BgpConfiguration),
    ("bgpfilters", Kind::BgpFilter),
    ("bgppeers", Kind::BgpPeer),
    ("clusterinformations", Kind::ClusterInformation),
    ("felixconfigurations", Kind::FelixConfiguration),
    ("ippools", Kind::IpPool),
    ("nodes", Kind::Node),
];

/// The prefixes to list and watch for the node of this name; without block affinities where pod CIDRs stand in for
/// them (DS-38).
pub fn prefixes(node: &str, use_pod_cidr: bool) -> Vec<String> {
    let mut prefixes: Vec<String> =
        PLURALS.iter().map(|(plural, _)| format!("{RESOURCES}{plural}/")).collect();
    if !use_pod_cidr {
        prefixes.push(format!("{AFFINITIES}{node}/"));
    }
    prefixes
}

/// The kinds that these prefixes hold.
pub fn kinds(use_pod_cidr: bool) -> Vec<Kind> {
    let affinities = (!use_pod_cidr).then_some(Kind::BlockAffinity);
    PLURALS.iter().map(|(_, kind)| *kind).chain(affinities).collect()
}

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holds {
    /// A resource as JSON.
    Resource(ResourceKey),
    /// State of a block that belongs to this node.
    Affinity {
        /// The node.
        node: String,
        /// The block, masked.
        cidr: IpPrefix,
    },
}

impl Holds {
    /// The key under which the resource is held.
    pub fn key(&self) -> ResourceKey {
        match self {
            Holds::Resource(key) => key.clone(),
            Holds::Affinity { node, cidr } => {
                ResourceKey::global(Kind::BlockAffinity, format!("{node}-{cidr}"))
            }
        }
    }
}

/// What `key` holds; `None` for keys that are not ours to read: further path segments, other kinds, `virtual` and `@`
/// affinities, or a text that is no block (DS-10, DS-16, DS-17).
pub fn parse(key: &str) -> Option<Holds> {
    if let Some(rest) = key.strip_prefix(RESOURCES) {
        let (plural, name) = rest.split_once('/')?;
        let (_, kind) = PLURALS.iter().find(|(known, _)| *known == plural)?;
        let plain = !name.is_empty() && !name.contains('/');
        return plain.then(|| Holds::Resource(ResourceKey::global(*kind, name)));
    }
    let mut parts = key.strip_prefix(AFFINITIES)?.split('/');
    let (node, family, block, cidr) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if node.is_empty() || block != "block" || parts.next().is_some() {
        return None;
    }
    let (addr, len) = cidr.rsplit_once('-')?;
    let addr: IpAddr = addr.parse().ok()?;
    let right_family = match family {
        "ipv4" => addr.is_ipv4(),
        "ipv6" => addr.is_ipv6(),
        _ => false,
    };
    if !right_family || !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let cidr = IpPrefix::new(addr, len.parse().ok()?)?;
    Some(Holds::Affinity { node: node.to_owned(), cidr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_keys_have_exactly_one_segment_after_the_plural() {
        let holds = |key: &str| parse(&format!("/calico/resources/v3/projectcalico.org/{key}"));
        assert_eq!(
            holds("bgpconfigurations/node.node-a"),
            Some(Holds::Resource(ResourceKey::global(Kind::BgpConfiguration, "node.node-a")))
        );
        for other in ["nodes/", "nodes/a/b", "nodes", "tiers/default", "ipamconfigurations/default", ""] {
            assert_eq!(holds(other), None, "{other}");
        }
        assert_eq!(
            parse("calico/resources/v3/projectcalico.org/nodes/a"),
            None,
            "the leading slash is required"
        );
    }

    #[test]
    fn affinity_keys_name_the_block_with_a_dash_for_the_slash() {
        let cidr = |key: &str| match parse(&format!("/calico/ipam/v2/host/{key}")) {
            Some(Holds::Affinity { node, cidr }) => Some(format!("{node} {cidr}")),
            _ => None,
        };
        assert_eq!(
            cidr("kube-master/ipv4/block/192.168.221.64-26").as_deref(),
            Some("kube-master 192.168.221.64/26")
        );
        assert_eq!(cidr("n/ipv6/block/fd00:10:244:3f::c0-122").as_deref(), Some("n fd00:10:244:3f::c0/122"));
        assert_eq!(cidr("n/ipv4/block/192.168.221.70-26").as_deref(), Some("n 192.168.221.64/26"), "masked");
        for other in [
            "n/ipv4/block/192.168.221.64",
            "n/ipv4/block/192.168.221.64-33",
            "n/ipv4/block/192.168.221.64-+6",
            "n/ipv4/block/fd00::-122",
            "n/ipv6/block/10.0.0.0-26",
            "n/ipv5/block/10.0.0.0-26",
            "n/ipv4/blocks/10.0.0.0-26",
            "n/ipv4/block/10.0.0.0-26/x",
            "/ipv4/block/10.0.0.0-26",
            "n/ipv4/block/",
            "n",
        ] {
            assert_eq!(cidr(other), None, "{other}");
        }
    }

    #[test]
    fn block_affinities_are_not_watched_where_pod_cidrs_stand_in_for_them() {
        assert_eq!(prefixes("n", false).len(), 8);
        assert!(prefixes("n", false).contains(&"/calico/ipam/v2/host/n/".to_owned()));
        assert!(prefixes("n", true).iter().all(|prefix| !prefix.contains("ipam")));
    }
}
