//! Calico Nodes, from their own resource (DS-12 to DS-14) or made of a Kubernetes Node's annotations (DS-33, DS-34).
//!
//! Owns: the fields of both, and what a wrong one costs. Never: chooses between the two: a Calico Node takes the place
//! of a Kubernetes Node of its name where the resources are put together.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use bgp_proto::{Asn, ClusterId, Family, IpPrefix, Prefix, V4};
use serde_json::Value;

use super::Reading;
use super::fields::{Fields, Unusable, is_host, or_last, scalar_text};
use crate::model::{Node, NodeAddress};

/// A Calico Node. Refused as a whole where its AS number cannot be read and no earlier one is known: it must not get
/// the global one by mistake (D2); also where `bgp`, or `spec` around it, is no object (D10).
pub fn calico(name: &str, root: &Fields<'_>, last: Option<&Node>) -> Option<Node> {
    let (spec, status) = (root.object("spec"), root.object("status"));
    let (bgp, wireguard) = (spec.object("bgp"), spec.object("wireguard"));
    if bgp.is_refused() {
        return None;
    }
    let asn = match (bgp.asn("asNumber"), last) {
        (Ok(asn), _) => asn,
        (Err(Unusable), Some(last)) => last.asn,
        (Err(Unusable), None) => return None,
    };
    Some(Node {
        name: name.to_owned(),
        labels: root.object("metadata").text_map("labels"),
        asn,
        // An address that cannot be read is an absent one (DS-14), not the last good one: it may be wrong by now.
        ipv4: bgp.text_as("ipv4Address", address).ok().flatten(),
        ipv6: bgp.text_as("ipv6Address", address).ok().flatten(),
        cluster_id: or_last(
            bgp.text_as("routeReflectorClusterID", cluster_id),
            last.and_then(|last| last.cluster_id),
        ),
        wireguard_v4: wireguard.parsed("interfaceIPv4Address").ok().flatten(),
        wireguard_v6: wireguard.parsed("interfaceIPv6Address").ok().flatten(),
        pod_cidrs: pod_cidrs(&status, last),
    })
}

/// Blocks of the node in host-local IPAM (DS-38).
fn pod_cidrs(fields: &Fields<'_>, last: Option<&Node>) -> Vec<IpPrefix> {
    let last = last.map(|last| last.pod_cidrs.clone());
    or_last(fields.parsed_list("podCIDRs", "a CIDR"), last).unwrap_or_default()
}

/// The Calico Node that a Kubernetes Node stands for. What an annotation says wrongly counts as absent; refused as a
/// whole where the annotations are no object (D10).
pub fn kubernetes(name: &str, root: &Fields<'_>, reading: Reading, last: Option<&Node>) -> Option<Node> {
    let (metadata, spec) = (root.object("metadata"), root.object("spec"));
    let notes = Annotations { fields: metadata.object("annotations") };
    if notes.fields.is_refused() {
        return None;
    }
    let mut labels = notes.labels();
    labels.extend(metadata.text_map("labels"));
    let pod_cidrs = pod_cidrs(&spec, last);
    let pod_cidr: Option<IpPrefix> = spec.parsed("podCIDR").ok().flatten();
    let (wireguard_v4, wireguard_v6) = match pod_cidr {
        // With host-local IPAM the WireGuard device has the second address of the node's range (DS-38).
        Some(pod_cidr) if reading.use_pod_cidr => {
            let base = match pod_cidr {
                IpPrefix::V4(range) => range.bits().checked_add(1).map(V4::from_bits),
                IpPrefix::V6(_) => None,
            };
            (base.filter(|_| notes.fields.get("projectcalico.org/WireguardPublicKey").is_some()), None)
        }
        _ => {
            (notes.read("IPv4WireguardInterfaceAddr", parse), notes.read("IPv6WireguardInterfaceAddr", parse))
        }
    };
    Some(Node {
        name: name.to_owned(),
        labels,
        asn: notes.read("ASNumber", |text| match text.parse() {
            Ok(Asn(0 | u32::MAX)) | Err(_) => Err("no AS number from 1 to 4294967294".to_owned()),
            Ok(asn) => Ok(asn),
        }),
        ipv4: notes.read("IPv4Address", address),
        ipv6: notes.read("IPv6Address", address),
        cluster_id: notes.read("RouteReflectorClusterID", cluster_id),
        wireguard_v4,
        wireguard_v6,
        pod_cidrs,
    })
}

struct Annotations<'a> {
    fields: Fields<'a>,
}

impl Annotations<'_> {
    fn read<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.fields.text_as(&format!("projectcalico.org/{name}"), read).ok().flatten()
    }

    /// Labels that only Calico knows of, a JSON object in an annotation; bad JSON is ignored (DS-33).
    fn labels(&self) -> BTreeMap<String, String> {
        let object = self.read("labels", |text| {
            serde_json::from_str::<BTreeMap<String, Value>>(text).map_err(|_| "no JSON object".to_owned())
        });
        let labels = object.into_iter().flatten();
        labels.filter_map(|(key, value)| scalar_text(&value).map(|text| (key, text))).collect()
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// `<ip>/<len>` with host bits kept, or a bare address (DS-14).
fn address<F: Family>(text: &str) -> Result<NodeAddress<F>, String> {
    let subnet: Prefix<F> =
        text.parse().map_err(|error: bgp_proto::prefix::PrefixTextError| error.to_string())?;
    let host = text.split('/').next().unwrap_or_default();
    let addr: F::Addr = host.parse().map_err(|_| "not an IP address".to_owned())?;
    if !is_host(addr.into()) {
        return Err("not the address of a host".to_owned());
    }
    Ok(NodeAddress { addr, subnet })
}

/// An IPv4 address, or an IPv4 network without host bits, of which the address counts.
fn cluster_id(text: &str) -> Result<ClusterId, String> {
    let host = text.split('/').next().unwrap_or_default();
    let subnet: Result<Prefix<V4>, _> = text.parse();
    match (host.parse::<Ipv4Addr>(), subnet) {
        (Ok(id), Ok(subnet)) if subnet.addr() == id || !text.contains('/') => Ok(ClusterId(id)),
        _ => Err("not an IPv4 address".to_owned()),
    }
}
