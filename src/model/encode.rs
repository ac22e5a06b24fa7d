//! Resources as documents: what the decoders of this crate read back as the same resource.
//!
//! Owns: [`documents`], the resources of a snapshot in the form that Calico's and Kubernetes' own have, only the fields
//! that we use. It is what is kept on disk of the last good state, and outlives a change of our own types. Never:
//! writes a password unless it is told to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bgp_proto::{Afi, Asn, IpPrefix};
use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;
use super::{
    AffinityState, BgpConfiguration, BgpFilter, BgpPeer, BindMode, CommunityValue, EncapMode, EndpointSlice,
    FelixConfiguration, FilterOperation, FilterRule, IpPool, MatchOperator, NamespacedName, NextHopMode,
    Node, NodeAddress, PeerAddress, ProgramClusterRoutes, Secret, SecretKeyRef, Service, ServiceType,
    SourceAddress, TrafficPolicy,
};

/// All resources of the snapshot of node `node`, in a stable order; Secrets only where `passwords` is set.
pub fn documents(snapshot: &Snapshot, node: &str, passwords: bool) -> Vec<Value> {
    let mut found = Vec::new();
    if let Some(information) = &snapshot.cluster_information {
        let mut spec = Map::new();
        put(&mut spec, "calicoVersion", information.calico_version.clone());
        put(&mut spec, "datastoreReady", information.datastore_ready);
        found.push(calico("ClusterInformation", "default", spec));
    }
    found.extend(snapshot.nodes.values().map(|node| self::node(node)));
    found.extend(snapshot.bgp_configurations.values().map(|config| bgp_configuration(config)));
    found.extend(snapshot.felix_configurations.values().map(|config| felix_configuration(config)));
    found.extend(snapshot.pools.values().map(|pool| ip_pool(pool)));
    found.extend(snapshot.blocks.iter().map(|(cidr, state)| block(node, *cidr, *state)));
    found.extend(snapshot.peers.values().map(|peer| bgp_peer(peer)));
    found.extend(snapshot.filters.values().map(|filter| bgp_filter(filter)));
    found.extend(snapshot.services.values().map(|service| self::service(service)));
    found.extend(snapshot.endpoint_slices.values().map(|slice| endpoint_slice(slice)));
    if passwords {
        found.extend(snapshot.secrets.values().map(|secret| self::secret(secret)));
    }
    found
}

/// Sets a field, where there is something to set it to.
fn put<T: Into<Value>>(map: &mut Map<String, Value>, name: &str, value: Option<T>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}

fn calico(kind: &str, name: &str, spec: Map<String, Value>) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn named(api_version: &str, kind: &str, name: &NamespacedName) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    map.insert("metadata".into(), json!({"name": name.name, "namespace": name.namespace}));
    map
}

fn texts<T: ToString>(list: &[T]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.iter().map(ToString::to_string).collect())
}

fn seconds(seconds: Option<u32>) -> Option<String> {
    seconds.map(|seconds| format!("{seconds}s"))
}

fn number(asn: Option<Asn>) -> Option<u32> {
    asn.map(|asn| asn.0)
}

/// The length of a subnet is all that its text adds to the address.
fn address<F: bgp_proto::Family>(of: Option<NodeAddress<F>>) -> Option<String> {
    of.map(|of| {
        let subnet = of.subnet.to_string();
        let length = subnet.rsplit_once('/').map_or("", |(_, length)| length);
        format!("{}/{length}", of.addr)
    })
}

fn node(node: &Node) -> Value {
    let Node { name, labels, asn, ipv4, ipv6, cluster_id, wireguard_v4, wireguard_v6, pod_cidrs } = node;
    let (mut bgp, mut wireguard) = (Map::new(), Map::new());
    put(&mut bgp, "asNumber", number(*asn));
    put(&mut bgp, "ipv4Address", address(*ipv4));
    put(&mut bgp, "ipv6Address", address(*ipv6));
    put(&mut bgp, "routeReflectorClusterID", cluster_id.map(|id| id.0.to_string()));
    put(&mut wireguard, "interfaceIPv4Address", wireguard_v4.map(|addr| addr.to_string()));
    put(&mut wireguard, "interfaceIPv6Address", wireguard_v6.map(|addr| addr.to_string()));
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"bgp": bgp, "wireguard": wireguard},
        "status": {"podCIDRs": texts(pod_cidrs)},
    })
}

fn key_ref(from: Option<&SecretKeyRef>) -> Option<Value> {
    from.map(|from| json!({"secretKeyRef": {"name": from.name, "key": from.key}}))
}

fn cidrs(list: &[IpPrefix]) -> Option<Vec<Value>> {
    (!list.is_empty()).then(|| list.iter().map(|cidr| json!({"cidr": cidr.to_string()})).collect())
}

fn bgp_configuration(config: &BgpConfiguration) -> Value {
    let BgpConfiguration {
        name,
        mesh_enabled,
        asn,
        listen_port,
        bind_mode,
        log_severity,
        ignored_interfaces,
        ipv4_priority,
        ipv6_priority,
        program_cluster_routes,
        mesh_password,
        mesh_restart_time,
        service_cluster_ips,
        service_external_ips,
        service_load_balancer_ips,
        load_balancer_aggregation,
        communities,
        prefix_advertisements,
    } = config;
    let mut spec = Map::new();
    put(&mut spec, "nodeToNodeMeshEnabled", *mesh_enabled);
    put(&mut spec, "asNumber", number(*asn));
    put(&mut spec, "listenPort", *listen_port);
    put(&mut spec, "bindMode", (*bind_mode == BindMode::NodeIp).then_some("NodeIP"));
    put(&mut spec, "logSeverityScreen", log_severity.clone());
    put(&mut spec, "ignoredInterfaces", texts(ignored_interfaces));
    put(&mut spec, "ipv4NormalRoutePriority", *ipv4_priority);
    put(&mut spec, "ipv6NormalRoutePriority", *ipv6_priority);
    let word = match program_cluster_routes {
        ProgramClusterRoutes::Unset => None,
        ProgramClusterRoutes::Enabled => Some("Enabled"),
        ProgramClusterRoutes::EnabledIpipOnly => Some("EnabledIPIPOnly"),
        ProgramClusterRoutes::EnabledNoEncapOnly => Some("EnabledNoEncapOnly"),
        ProgramClusterRoutes::Disabled => Some("Disabled"),
    };
    put(&mut spec, "programClusterRoutes", word);
    put(&mut spec, "nodeMeshPassword", key_ref(mesh_password.as_ref()));
    put(&mut spec, "nodeMeshMaxRestartTime", seconds(*mesh_restart_time));
    put(&mut spec, "serviceClusterIPs", cidrs(service_cluster_ips));
    put(&mut spec, "serviceExternalIPs", cidrs(service_external_ips));
    put(&mut spec, "serviceLoadBalancerIPs", cidrs(service_load_balancer_ips));
    let word = |on| if on { "Enabled" } else { "Disabled" };
    put(&mut spec, "serviceLoadBalancerAggregation", load_balancer_aggregation.map(word));
    let list: Vec<Value> =
        communities.iter().map(|named| json!({"name": named.name, "value": named.value})).collect();
    put(&mut spec, "communities", (!list.is_empty()).then_some(list));
    let list = prefix_advertisements.as_ref().map(|list| {
        let entry = |entry: &super::PrefixAdvertisement| json!({"cidr": entry.cidr.map(|cidr| cidr.to_string()), "communities": texts(&entry.communities)});
        list.iter().map(entry).collect::<Vec<Value>>()
    });
    put(&mut spec, "prefixAdvertisements", list);
    calico("BGPConfiguration", name, spec)
}

fn felix_configuration(config: &FelixConfiguration) -> Value {
    let FelixConfiguration { name, program_cluster_routes } = config;
    let mut spec = Map::new();
    put(&mut spec, "programClusterRoutes", program_cluster_routes.clone());
    calico("FelixConfiguration", name, spec)
}

fn ip_pool(pool: &IpPool) -> Value {
    let IpPool { name, cidr, ipip, vxlan, disable_bgp_export } = pool;
    let mode = |mode: EncapMode| match mode {
        EncapMode::Never => "Never",
        EncapMode::CrossSubnet => "CrossSubnet",
        EncapMode::Always => "Always",
    };
    let mut spec = Map::new();
    put(&mut spec, "cidr", Some(cidr.to_string()));
    put(&mut spec, "ipipMode", Some(mode(*ipip)));
    put(&mut spec, "vxlanMode", Some(mode(*vxlan)));
    put(&mut spec, "disableBGPExport", Some(*disable_bgp_export));
    calico("IPPool", name, spec)
}

fn block(node: &str, cidr: IpPrefix, state: AffinityState) -> Value {
    let state = match state {
        AffinityState::Confirmed => "confirmed",
        AffinityState::Pending => "pending",
        AffinityState::PendingDeletion => "pendingDeletion",
    };
    let mut spec = Map::new();
    put(&mut spec, "node", Some(node));
    put(&mut spec, "cidr", Some(cidr.to_string()));
    put(&mut spec, "state", Some(state));
    put(&mut spec, "deleted", Some("false"));
    calico("BlockAffinity", &format!("{node}-{cidr}"), spec)
}

fn peer_address(at: PeerAddress) -> String {
    match at.port {
        None => at.addr.to_string(),
        Some(port) => std::net::SocketAddr::new(at.addr, port).to_string(),
    }
}

fn bgp_peer(peer: &BgpPeer) -> Value {
    let BgpPeer {
        name,
        node,
        node_selector,
        peer_ip,
        peer_selector,
        local_workload_selector,
        asn,
        local_asn,
        password,
        source_address,
        restart_time,
        keepalive_time,
        allowed_own_as,
        ttl_security,
        reachable_by,
        next_hop_mode,
        keep_original_next_hop,
        filters,
        reverse_peering_manual,
    } = peer;
    let mut spec = Map::new();
    put(&mut spec, "node", node.clone());
    put(&mut spec, "nodeSelector", node_selector.as_ref().map(|selector| selector.text().to_owned()));
    put(&mut spec, "peerIP", peer_ip.map(peer_address));
    put(&mut spec, "peerSelector", peer_selector.as_ref().map(|selector| selector.text().to_owned()));
    put(&mut spec, "localWorkloadSelector", local_workload_selector.clone());
    put(&mut spec, "asNumber", number(*asn));
    put(&mut spec, "localASNumber", number(*local_asn));
    put(&mut spec, "password", key_ref(password.as_ref()));
    put(&mut spec, "sourceAddress", (*source_address == SourceAddress::None).then_some("None"));
    put(&mut spec, "maxRestartTime", seconds(*restart_time));
    put(&mut spec, "keepaliveTime", seconds(*keepalive_time));
    put(&mut spec, "numAllowedLocalASNumbers", Some(*allowed_own_as));
    put(&mut spec, "ttlSecurity", Some(*ttl_security));
    put(&mut spec, "reachableBy", reachable_by.map(|addr| addr.to_string()));
    let word = |mode| match mode {
        NextHopMode::Auto => "Auto",
        NextHopMode::SelfAddress => "Self",
        NextHopMode::Keep => "Keep",
    };
    put(&mut spec, "nextHopMode", next_hop_mode.map(word));
    put(&mut spec, "keepOriginalNextHop", Some(*keep_original_next_hop));
    put(&mut spec, "filters", texts(filters));
    put(&mut spec, "reversePeering", reverse_peering_manual.then_some("Manual"));
    calico("BGPPeer", name, spec)
}

fn community(value: CommunityValue) -> String {
    match value {
        CommunityValue::Standard(a, b) => format!("{a}:{b}"),
        CommunityValue::Large(a, b, c) => format!("{a}:{b}:{c}"),
    }
}

fn asns(list: &[Asn]) -> Vec<u32> {
    list.iter().map(|asn| asn.0).collect()
}

fn bgp_filter(filter: &BgpFilter) -> Value {
    let BgpFilter { name, export_v4, export_v6, import_v4, import_v6 } = filter;
    let mut spec = Map::new();
    for (list, rules) in
        [("exportV4", export_v4), ("exportV6", export_v6), ("importV4", import_v4), ("importV6", import_v6)]
    {
        // A rule's place in the list is kept, since it says which one is meant: an empty object is left out when read.
        let last = rules.iter().map(|rule| rule.index + 1).max().unwrap_or(0).min(4096);
        let entry =
            |index: usize| rules.iter().find(|rule| rule.index == index).map_or(Value::Null, filter_rule);
        put(&mut spec, list, (last > 0).then(|| (0..last).map(entry).collect::<Vec<Value>>()));
    }
    calico("BGPFilter", name, spec)
}

fn filter_rule(rule: &FilterRule) -> Value {
    let FilterRule {
        index: _,
        prefix,
        remote_peers,
        interface,
        internal,
        community: wanted,
        as_path_prefix,
        priority,
        accept,
        operations,
    } = rule;
    let mut map = Map::new();
    if let Some(prefix) = prefix {
        let operator = match prefix.operator {
            MatchOperator::In => "In",
            MatchOperator::NotIn => "NotIn",
            MatchOperator::Equal => "Equal",
            MatchOperator::NotEqual => "NotEqual",
        };
        put(&mut map, "cidr", Some(prefix.cidr.to_string()));
        put(&mut map, "matchOperator", Some(operator));
        put(&mut map, "prefixLength", prefix.length.map(|(min, max)| json!({"min": min, "max": max})));
    }
    put(&mut map, "source", remote_peers.then_some("RemotePeers"));
    put(&mut map, "interface", interface.clone());
    put(&mut map, "peerType", internal.map(|internal| if internal { "iBGP" } else { "eBGP" }));
    put(&mut map, "communities", wanted.map(|value| json!({"values": [community(value)]})));
    put(&mut map, "asPathPrefix", (!as_path_prefix.is_empty()).then(|| asns(as_path_prefix)));
    put(&mut map, "priority", *priority);
    put(&mut map, "action", Some(if *accept { "Accept" } else { "Reject" }));
    let list: Vec<Value> = operations
        .iter()
        .map(|operation| match operation {
            FilterOperation::AddCommunity(value) => json!({"addCommunity": {"value": community(*value)}}),
            FilterOperation::PrependAsPath(list) => json!({"prependASPath": {"prefix": asns(list)}}),
            FilterOperation::SetPriority(value) => json!({"setPriority": {"value": value}}),
        })
        .collect();
    put(&mut map, "operations", (!list.is_empty()).then_some(list));
    Value::Object(map)
}

fn family(afi: Afi) -> &'static str {
    match afi {
        Afi::Ipv4 => "IPv4",
        Afi::Ipv6 => "IPv6",
    }
}

fn service(service: &Service) -> Value {
    let Service {
        name,
        service_type,
        cluster_ip,
        cluster_ips,
        external_ips,
        load_balancer_ip,
        ingress_ips,
        traffic_policy,
        ip_families,
    } = service;
    let word = match service_type {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::Other => "ExternalName",
    };
    let mut spec = Map::new();
    put(&mut spec, "type", Some(word));
    put(&mut spec, "clusterIP", cluster_ip.map(|addr| addr.to_string()));
    let list: Vec<String> = cluster_ips.iter().map(ToString::to_string).collect();
    put(&mut spec, "clusterIPs", Some(list));
    put(&mut spec, "externalIPs", texts(external_ips));
    put(&mut spec, "loadBalancerIP", load_balancer_ip.map(|addr| addr.to_string()));
    let word = |policy| match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    };
    put(&mut spec, "externalTrafficPolicy", traffic_policy.map(word));
    let list: Vec<&str> = ip_families.iter().copied().map(family).collect();
    put(&mut spec, "ipFamilies", Some(list));
    let ingress: Vec<Value> = ingress_ips.iter().map(|addr| json!({"ip": addr.to_string()})).collect();
    let mut map = named("v1", "Service", name);
    map.insert("spec".into(), Value::Object(spec));
    map.insert("status".into(), json!({"loadBalancer": {"ingress": ingress}}));
    Value::Object(map)
}

fn endpoint_slice(slice: &EndpointSlice) -> Value {
    let EndpointSlice { name, service, family: afi, endpoints } = slice;
    let mut map = named("discovery.k8s.io/v1", "EndpointSlice", name);
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        metadata.insert("labels".into(), json!({"kubernetes.io/service-name": service}));
    }
    map.insert("addressType".into(), afi.map_or("FQDN", family).into());
    let list: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| json!({"nodeName": endpoint.node, "conditions": {"ready": endpoint.ready}}))
        .collect();
    map.insert("endpoints".into(), list.into());
    Value::Object(map)
}

fn secret(secret: &Secret) -> Value {
    let Secret { name, data } = secret;
    let mut map = named("v1", "Secret", name);
    let texts: Map<String, Value> =
        data.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value.expose()).into())).collect();
    map.insert("data".into(), Value::Object(texts));
    Value::Object(map)
}
