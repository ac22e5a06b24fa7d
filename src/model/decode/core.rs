//! Kubernetes' own kinds: Secret (PEER-80), Service and EndpointSlice (SVC-20 to SVC-25).
//!
//! Owns: their fields and the defaults that the API server would have stored. Never: shows a Secret's value.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bgp_proto::Afi;

use super::fields::Fields;
use crate::model::{
    Endpoint, EndpointSlice, NamespacedName, Secret, SecretBytes, Service, ServiceType, TrafficPolicy,
};

/// A Secret. No message shows a value.
pub fn secret(name: NamespacedName, root: &Fields<'_>) -> Secret {
    let root = root.clone().veil();
    let mut data = std::collections::BTreeMap::new();
    for (key, text) in root.text_map("data") {
        // As Go's decoder does; kubectl wraps nothing, people do.
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => {
                data.insert(key, SecretBytes::new(bytes));
            }
            Err(_) => {
                root.object("data").refuse(&key, "is no base64 text");
            }
        }
    }
    for (key, text) in root.text_map("stringData") {
        data.insert(key, SecretBytes::new(text.into_bytes()));
    }
    Secret { name, data }
}

/// A Service.
pub fn service(name: NamespacedName, root: &Fields<'_>) -> Service {
    let spec = root.object("spec");
    let service_type = match spec.text("type").ok().flatten().as_deref() {
        None | Some("ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some(_) => ServiceType::Other,
    };
    let cluster_ip: Option<IpAddr> =
        cluster_addresses(&spec, spec.text("clusterIP").ok().flatten(), "clusterIP");
    let listed = spec.texts("clusterIPs").ok().flatten();
    let cluster_ips: Vec<IpAddr> = match listed {
        None => cluster_ip.into_iter().collect(),
        Some(texts) => {
            texts.into_iter().filter_map(|text| cluster_addresses(&spec, Some(text), "clusterIPs")).collect()
        }
    };
    let external_ips: Vec<IpAddr> = addresses(&spec, "externalIPs");
    let reachable_from_outside = matches!(service_type, ServiceType::NodePort | ServiceType::LoadBalancer)
        || (service_type == ServiceType::ClusterIp && !external_ips.is_empty());
    let policies = [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];
    let traffic_policy = spec
        .choice("externalTrafficPolicy", &policies)
        .ok()
        .flatten()
        .or(reachable_from_outside.then_some(TrafficPolicy::Cluster));
    let ingress =
        root.object("status").object("loadBalancer").objects("ingress").ok().flatten().unwrap_or_default();
    let mut ip_families: Vec<Afi> = spec
        .texts("ipFamilies")
        .ok()
        .flatten()
        .unwrap_or_default()
        .iter()
        .filter_map(|text| family(text))
        .collect();
    if ip_families.is_empty() {
        ip_families = cluster_ips.iter().copied().map(Afi::of).collect();
        ip_families.dedup();
    }
    Service {
        name,
        service_type,
        cluster_ip,
        cluster_ips,
        external_ips,
        load_balancer_ip: spec.ip("loadBalancerIP").ok().flatten(),
        ingress_ips: ingress.iter().filter_map(|(_, entry)| entry.ip("ip").ok().flatten()).collect(),
        traffic_policy,
        ip_families,
    }
}

/// A cluster IP; `None` as text stands for a headless Service.
fn cluster_addresses(spec: &Fields<'_>, text: Option<String>, field: &str) -> Option<IpAddr> {
    let text = text.filter(|text| text != "None")?;
    text.parse()
        .map_err(|_| spec.refuse(field, format!("{} is not an IP address", super::text::quoted(&text))))
        .ok()
}

fn addresses(fields: &Fields<'_>, name: &str) -> Vec<IpAddr> {
    fields.parsed_list(name, "an IP address").ok().flatten().unwrap_or_default()
}

fn family(text: &str) -> Option<Afi> {
    match text {
        "IPv4" => Some(Afi::Ipv4),
        "IPv6" => Some(Afi::Ipv6),
        _ => None,
    }
}

/// An EndpointSlice.
pub fn endpoint_slice(name: NamespacedName, root: &Fields<'_>) -> EndpointSlice {
    let labels = root.object("metadata").object("labels");
    let endpoints = root.objects("endpoints").ok().flatten().unwrap_or_default();
    let endpoint = |fields: &Fields<'_>| Endpoint {
        node: fields.text("nodeName").ok().flatten(),
        ready: fields.object("conditions").bool("ready").ok().flatten().unwrap_or(true),
    };
    EndpointSlice {
        name,
        service: labels.text("kubernetes.io/service-name").ok().flatten(),
        family: root.text("addressType").ok().flatten().and_then(|text| family(&text)),
        endpoints: endpoints.iter().map(|(_, fields)| endpoint(fields)).collect(),
    }
}
