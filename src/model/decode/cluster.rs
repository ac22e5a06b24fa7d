//! BGPConfiguration, ClusterInformation, FelixConfiguration, IPPool and BlockAffinity (DS-15, DS-36, DS-39, NODE-41).
//!
//! Owns: which fields these have, and what stays of a resource when one of them is refused. Never:
//! says what follows from it.

use bgp_proto::IpPrefix;

use super::fields::{Fields, or_last};
use crate::model::{
    AffinityState, BgpConfiguration, BindMode, BlockAffinity, ClusterInformation, EncapMode,
    FelixConfiguration, IpPool, NamedCommunity, PrefixAdvertisement, ProgramClusterRoutes,
};

/// Route priorities that leave room above and below (NODE-40).
const PRIORITY: std::ops::RangeInclusive<u32> = 1..=2_147_483_646;

/// A BGPConfiguration; a refused field keeps its last good value, so that a slip of the pen in one field does not
/// switch the mesh on.
pub fn bgp_configuration(name: &str, root: &Fields<'_>, last: Option<&BgpConfiguration>) -> BgpConfiguration {
    let spec = root.object("spec");
    let before = last.cloned().unwrap_or_default();
    BgpConfiguration {
        name: name.to_owned(),
        mesh_enabled: or_last(spec.bool("nodeToNodeMeshEnabled"), before.mesh_enabled),
        asn: or_last(spec.asn("asNumber"), before.asn),
        listen_port: or_last(
            spec.number("listenPort", 0..=u16::MAX).map(|port| port.filter(|port| *port != 0)),
            before.listen_port,
        ),
        bind_mode: or_last(
            spec.choice("bindMode", &[("None", BindMode::None), ("NodeIP", BindMode::NodeIp)]),
            Some(before.bind_mode),
        )
        .unwrap_or_default(),
        log_severity: or_last(spec.text("logSeverityScreen"), before.log_severity),
        ignored_interfaces: or_last(spec.texts("ignoredInterfaces"), Some(before.ignored_interfaces))
            .unwrap_or_default(),
        ipv4_priority: or_last(spec.number("ipv4NormalRoutePriority", PRIORITY), before.ipv4_priority),
        ipv6_priority: or_last(spec.number("ipv6NormalRoutePriority", PRIORITY), before.ipv6_priority),
        program_cluster_routes: or_last(
            spec.choice(
                "programClusterRoutes",
                &[
                    ("Enabled", ProgramClusterRoutes::Enabled),
                    ("EnabledIPIPOnly", ProgramClusterRoutes::EnabledIpipOnly),
                    ("EnabledNoEncapOnly", ProgramClusterRoutes::EnabledNoEncapOnly),
                    ("Disabled", ProgramClusterRoutes::Disabled),
                ],
            ),
            Some(before.program_cluster_routes),
        )
        .unwrap_or_default(),
        mesh_password: spec.secret_key_ref("nodeMeshPassword", before.mesh_password),
        mesh_restart_time: or_last(spec.seconds("nodeMeshMaxRestartTime"), before.mesh_restart_time),
        service_cluster_ips: cidrs(&spec, "serviceClusterIPs", before.service_cluster_ips),
        service_external_ips: cidrs(&spec, "serviceExternalIPs", before.service_external_ips),
        service_load_balancer_ips: cidrs(&spec, "serviceLoadBalancerIPs", before.service_load_balancer_ips),
        load_balancer_aggregation: or_last(
            spec.choice("serviceLoadBalancerAggregation", &[("Enabled", true), ("Disabled", false)]),
            before.load_balancer_aggregation,
        ),
        communities: communities(&spec, before.communities),
        prefix_advertisements: advertisements(&spec, before.prefix_advertisements),
    }
}

fn cidrs(spec: &Fields<'_>, name: &str, before: Vec<IpPrefix>) -> Vec<IpPrefix> {
    or_last(spec.cidr_objects(name), Some(before)).unwrap_or_default()
}

fn communities(spec: &Fields<'_>, before: Vec<NamedCommunity>) -> Vec<NamedCommunity> {
    let Ok(entries) = spec.objects("communities") else { return before };
    let named = |entry: &Fields<'_>| {
        Some(NamedCommunity { name: entry.text("name").ok()??, value: entry.text("value").ok()?? })
    };
    entries.iter().flatten().filter_map(|(_, entry)| named(entry)).collect()
}

fn advertisements(
    spec: &Fields<'_>,
    before: Option<Vec<PrefixAdvertisement>>,
) -> Option<Vec<PrefixAdvertisement>> {
    let Ok(entries) = spec.objects("prefixAdvertisements") else { return before };
    let advertisement = |entry: &Fields<'_>| PrefixAdvertisement {
        cidr: entry.parsed("cidr").ok().flatten(),
        communities: entry.texts("communities").ok().flatten().unwrap_or_default(),
    };
    entries.map(|entries| entries.iter().map(|(_, entry)| advertisement(entry)).collect())
}

/// ClusterInformation.
pub fn cluster_information(root: &Fields<'_>, last: Option<&ClusterInformation>) -> ClusterInformation {
    let spec = root.object("spec");
    ClusterInformation {
        calico_version: or_last(
            spec.text("calicoVersion"),
            last.and_then(|last| last.calico_version.clone()),
        ),
        datastore_ready: or_last(spec.bool("datastoreReady"), last.and_then(|last| last.datastore_ready)),
    }
}

/// FelixConfiguration: the one field that bears on whose routes are whose (FELIX-9). It is taken as written, since it is
/// Felix's to judge; of his other fields none is read, so none can be wrong here.
pub fn felix_configuration(
    name: &str,
    root: &Fields<'_>,
    last: Option<&FelixConfiguration>,
) -> FelixConfiguration {
    let spec = root.object("spec");
    let before = last.cloned().unwrap_or_default();
    FelixConfiguration {
        name: name.to_owned(),
        program_cluster_routes: or_last(spec.text("programClusterRoutes"), before.program_cluster_routes),
    }
}

/// IPPool; refused without a CIDR (DS-39).
pub fn ip_pool(name: &str, root: &Fields<'_>, last: Option<&IpPool>) -> Option<IpPool> {
    let spec = root.object("spec");
    let mode = |name: &str, last: Option<EncapMode>| {
        let modes = [
            ("Never", EncapMode::Never),
            ("CrossSubnet", EncapMode::CrossSubnet),
            ("Always", EncapMode::Always),
        ];
        or_last(spec.choice(name, &modes), last).unwrap_or_default()
    };
    let ipip = mode("ipipMode", last.map(|last| last.ipip));
    let vxlan = mode("vxlanMode", last.map(|last| last.vxlan));
    let disabled = or_last(spec.bool("disableBGPExport"), last.map(|last| last.disable_bgp_export));
    Some(IpPool {
        name: name.to_owned(),
        cidr: required_cidr(&spec)?,
        ipip,
        vxlan,
        disable_bgp_export: disabled.unwrap_or(false),
    })
}

/// BlockAffinity as a resource (DS-36); refused without a block or a node.
pub fn block_affinity(root: &Fields<'_>, last: Option<&BlockAffinity>) -> Option<BlockAffinity> {
    let spec = root.object("spec");
    let node = spec.text("node").ok()?;
    if node.is_none() {
        spec.refuse("node", "is missing");
    }
    let cidr = required_cidr(&spec);
    let (state, deleted) = affinity_value(&spec, last);
    let is_host = spec.text("type").map(|text| Some(text.is_none_or(|text| text == "host")));
    Some(BlockAffinity {
        node: node?,
        cidr: cidr?,
        is_host: or_last(is_host, last.map(|last| last.is_host)).unwrap_or(true),
        state,
        deleted,
    })
}

/// `state` and `deleted`, which the IPAM key's value has as well (DS-16).
pub fn affinity_value(fields: &Fields<'_>, last: Option<&BlockAffinity>) -> (AffinityState, bool) {
    let states = [
        ("confirmed", AffinityState::Confirmed),
        ("pending", AffinityState::Pending),
        ("pendingDeletion", AffinityState::PendingDeletion),
    ];
    let state = or_last(fields.choice("state", &states), last.map(|last| last.state));
    let deleted = or_last(fields.bool("deleted"), last.map(|last| last.deleted));
    (state.unwrap_or(AffinityState::Confirmed), deleted.unwrap_or(false))
}

fn required_cidr(spec: &Fields<'_>) -> Option<IpPrefix> {
    let cidr = spec.parsed("cidr").ok()?;
    if cidr.is_none() {
        spec.refuse("cidr", "is missing");
    }
    cidr
}
