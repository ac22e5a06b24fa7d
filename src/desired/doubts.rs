//! What the resources ask for together and most likely do not mean: nothing that is done changes by it.
//!
//! Owns: problems of several resources, or of fields beside each other: filters that are not there (FILT-52), fields that
//! exclude each other or that nothing reads (PEER-33, PEER-85, PEER-90, DEF-24), passwords of nobody, one cluster id on
//! nodes without a session between them (PEER-70 to PEER-72, DEF-34), CrossSubnet and masks of hosts (KERN-12), types of
//! pools that have two owners of their routes or none (KERN-10, FELIX-9), and rules of filters that are always so or
//! never (FILT-53, DEF-15). Never: changes what is compiled.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp_proto::{Afi, IpPrefix};

use super::DesiredState;
use super::inputs::{Inputs, Problems};
use crate::model::{BgpFilter, BgpPeer, Code, EncapMode, IpPool, MatchOperator, Node, PrefixMatch};

/// Says what is doubtful about what the state was compiled from.
pub(super) fn find(inputs: &Inputs<'_>, state: &DesiredState, problems: &mut Problems) {
    for peer in inputs.snapshot.peers.values() {
        filters_of(inputs, peer, problems);
        fields_of(inputs, peer, problems);
    }
    if inputs.global.mesh_password.is_some() && inputs.global.mesh_enabled == Some(false) {
        let why = "nothing reads it: the node-to-node mesh is off";
        problems.add(Code::UnusedPassword, "BGPConfiguration/default", "spec.nodeMeshPassword", why);
    }
    for filter in inputs.snapshot.filters.values() {
        rules_of(filter, problems);
    }
    cluster_ids(inputs, state, problems);
    host_masks(inputs, problems);
    owners_of_routes(inputs, problems);
}

/// FILT-52.
fn filters_of(inputs: &Inputs<'_>, peer: &BgpPeer, problems: &mut Problems) {
    for name in peer.filters.iter().filter(|name| !inputs.snapshot.filters.contains_key(*name)) {
        let then =
            if inputs.facts.strict { "its sessions carry no routes (strict)" } else { "it filters nothing" };
        let why = format!("there is no BGPFilter {name}: {then}");
        problems.add(Code::UnknownFilter, format!("BGPPeer/{}", peer.name), "spec.filters", why);
    }
}

/// PEER-90: of fields that exclude each other one counts; others are not read beside another one.
fn fields_of<'a>(inputs: &Inputs<'a>, peer: &'a BgpPeer, problems: &mut Problems) {
    let workload = peer.local_workload_selector.is_some();
    let (selects, addressed) = (peer.peer_selector.is_some(), peer.peer_ip.is_some());
    let asn = peer.asn.is_some();
    let excluded = [
        (peer.node.is_some() && peer.node_selector.is_some(), "spec.node", "spec.nodeSelector"),
        (workload && selects, "spec.peerSelector", "spec.localWorkloadSelector"),
        (workload && addressed, "spec.peerIP", "spec.localWorkloadSelector"),
        (!workload && selects && addressed, "spec.peerIP", "spec.peerSelector"),
        (!workload && selects && asn, "spec.asNumber", "spec.peerSelector"),
        (
            peer.keep_original_next_hop && peer.next_hop_mode.is_some(),
            "spec.keepOriginalNextHop",
            "spec.nextHopMode",
        ),
    ];
    let resource = || format!("BGPPeer/{}", peer.name);
    for (_, field, counts) in excluded.into_iter().filter(|(both, ..)| *both) {
        let why = format!("does not count beside {counts}: the two exclude each other");
        problems.add(Code::ExclusiveFields, resource(), field, why);
    }
    let unread = [
        (!workload && selects && peer.local_asn.is_some(), "spec.localASNumber"),
        (!workload && selects && peer.allowed_own_as > 0, "spec.numAllowedLocalASNumbers"),
        (selects && peer.reachable_by.is_some(), "spec.reachableBy"),
        (workload && peer.ttl_security > 0, "spec.ttlSecurity"),
        (workload && (peer.next_hop_mode.is_some() || peer.keep_original_next_hop), "spec.nextHopMode"),
        (workload && (peer.restart_time.is_some() || peer.keepalive_time.is_some()), "spec.maxRestartTime"),
        (workload && peer.allowed_own_as > 0, "spec.numAllowedLocalASNumbers"),
    ];
    let which = if workload { "localWorkloadSelector" } else { "peerSelector" };
    for (_, field) in unread.into_iter().filter(|(unread, _)| *unread) {
        let why = format!("is not read in a BGPPeer with {which}");
        problems.add(Code::IgnoredField, resource(), field, why);
    }
    if peer.password.is_some()
        && let Some(why) = nobody_reads_password(inputs, peer)
    {
        problems.add(Code::UnusedPassword, resource(), "spec.password", format!("nothing reads it: {why}"));
    }
}

/// Why no session of the whole cluster has the password of a BGPPeer.
fn nobody_reads_password<'a>(inputs: &Inputs<'a>, peer: &'a BgpPeer) -> Option<String> {
    if peer.local_workload_selector.is_some() {
        return Some("sessions with local workloads are not signed".to_owned());
    }
    match (&peer.node_selector, &peer.node) {
        (Some(selector), _) => inputs
            .nodes
            .selected(selector)
            .is_empty()
            .then(|| format!("nodeSelector {} selects no Node", selector.text())),
        (None, Some(name)) => {
            (!inputs.snapshot.nodes.contains_key(name)).then(|| format!("there is no Node/{name}"))
        }
        (None, None) => None,
    }
}

/// DEF-15, and lengths that no prefix has.
fn rules_of(filter: &BgpFilter, problems: &mut Problems) {
    let lists = [
        ("exportV4", &filter.export_v4),
        ("importV4", &filter.import_v4),
        ("exportV6", &filter.export_v6),
        ("importV6", &filter.import_v6),
    ];
    for (list, rules) in lists {
        for rule in rules {
            let Some(why) = rule.prefix.and_then(always_or_never) else { continue };
            let field = format!("spec.{list}[{}].prefixLength", rule.index);
            problems.add(Code::DoubtfulFilterRule, format!("BGPFilter/{}", filter.name), &field, why);
        }
    }
}

fn always_or_never(prefix: PrefixMatch) -> Option<String> {
    let (min, max) = prefix.length?;
    let longest = match prefix.cidr.afi() {
        Afi::Ipv4 => 32,
        Afi::Ipv6 => 128,
    };
    let (least, most) = (min.unwrap_or(0).max(prefix.cidr.len()), max.unwrap_or(longest));
    let operator = match prefix.operator {
        MatchOperator::Equal => "Equal with prefixLength matches no prefix",
        MatchOperator::NotEqual => "NotEqual with prefixLength matches every prefix",
        MatchOperator::In if least > most => "no prefix in it has such a length: it matches none",
        MatchOperator::NotIn if least > most => "no prefix in it has such a length: it matches every one",
        MatchOperator::In | MatchOperator::NotIn => return None,
    };
    Some(operator.to_owned())
}

/// Reflectors of one cluster id drop what the others reflect (RFC 4456 §8).
fn cluster_ids(inputs: &Inputs<'_>, state: &DesiredState, problems: &mut Problems) {
    let mut clusters: BTreeMap<_, Vec<&Node>> = BTreeMap::new();
    for node in inputs.snapshot.nodes.values() {
        if let Some(id) = node.cluster_id {
            clusters.entry(id).or_default().push(node);
        }
    }
    if clusters.is_empty() {
        return;
    }
    let mut at: BTreeMap<IpAddr, &super::Peer> = BTreeMap::new();
    for peer in state.peers.values() {
        at.insert(peer.key.addr, peer);
    }
    let session = |node: &Node| {
        let addresses = [node.ipv4.map(|own| own.addr.into()), node.ipv6.map(|own| own.addr.into())];
        addresses.into_iter().flatten().find_map(|address: IpAddr| at.get(&address).copied())
    };
    let local = inputs.local;
    for (id, reflectors) in &clusters {
        if let Some(ours) = local.cluster_id.filter(|ours| ours == id) {
            for other in reflectors.iter().filter(|other| other.name != local.name) {
                match session(other) {
                    None => {
                        let why = format!(
                            "{ours} is the cluster id of Node/{} too, and there is no session between the two: neither \
                             learns the routes of the other",
                            local.name
                        );
                        let field = "spec.bgp.routeReflectorClusterID";
                        problems.add(Code::SharedClusterId, format!("Node/{}", other.name), field, why);
                    }
                    // DEF-34.
                    Some(peer) if peer.treatment.rr_client.is_some() => {
                        let why = format!(
                            "Node/{} is a reflector of this node's cluster id {ours}: by its address it is taken for a \
                             client, by a peerSelector it would not be",
                            other.name
                        );
                        problems.add(Code::ReflectorByAddress, peer.resource.clone(), "spec.peerIP", why);
                    }
                    Some(_) => {}
                }
            }
        } else if reflectors.iter().any(|node| session(node).is_some()) {
            for missed in reflectors.iter().filter(|node| session(node).is_none() && node.name != local.name)
            {
                let why = format!(
                    "Node/{} has no session with it, and has one with another reflector of the same cluster id {id}: \
                     reflectors do not pass on what those of their own id reflect",
                    local.name
                );
                let field = "spec.bgp.routeReflectorClusterID";
                problems.add(Code::SharedClusterId, format!("Node/{}", missed.name), field, why);
            }
        }
    }
}

/// KERN-12: behind the mask of a host every other node is off-subnet.
fn host_masks(inputs: &Inputs<'_>, problems: &mut Problems) {
    let crosses = |pool: &&IpPool| {
        let mode = if pool.vxlan == EncapMode::Never { pool.ipip } else { pool.vxlan };
        mode == EncapMode::CrossSubnet
    };
    let crossing = |afi: Afi| {
        let mut pools = inputs.snapshot.pools.values().map(|pool| &**pool);
        pools.find(|pool| pool.cidr.afi() == afi && crosses(pool))
    };
    let mut told = |afi: Afi, field: &str, subnet: fn(&Node) -> Option<IpPrefix>| {
        let Some(pool) = crossing(afi) else { return };
        let hosts = |node: &&Node| subnet(node).is_some_and(|subnet| subnet.is_host());
        let nodes = inputs.snapshot.nodes.values().map(|node| &**node);
        let others = nodes.filter(hosts).filter(|node| node.name != inputs.local.name);
        // One of the others stands for all of them: each says it of itself.
        let named = Some(inputs.local).filter(hosts).into_iter().chain(others.take(1));
        for node in named {
            let why = format!(
                "the mask is that of a host, so every other node is off its subnet: CrossSubnet of IPPool/{} always \
                 encapsulates",
                pool.name
            );
            problems.add(Code::HostMask, format!("Node/{}", node.name), field, why);
        }
    };
    told(Afi::Ipv4, "spec.bgp.ipv4Address", |node| node.ipv4.map(|own| own.subnet.into()));
    told(Afi::Ipv6, "spec.bgp.ipv6Address", |node| node.ipv6.map(|own| own.subnet.into()));
}

/// KERN-10, FELIX-9: each type of pool that there is has to have one owner of its routes.
fn owners_of_routes(inputs: &Inputs<'_>, problems: &mut Problems) {
    let pools = || inputs.snapshot.pools.values().filter(|pool| pool.vxlan == EncapMode::Never);
    let (ours, felix) = (inputs.cluster_routes, felix_owns(inputs));
    for (what, there, ours, felix) in [
        ("IPIP", pools().any(|pool| pool.ipip != EncapMode::Never), ours.ipip, felix.0),
        ("un-encapsulated", pools().any(|pool| pool.ipip == EncapMode::Never), ours.unencapsulated, felix.1),
    ] {
        let (code, why) = match (there, ours, felix) {
            (true, true, true) => (Code::RoutesWithTwoOwners, "the BGP daemon and Felix both"),
            (true, false, false) => (Code::RoutesWithoutOwner, "neither the BGP daemon nor Felix"),
            _ => continue,
        };
        let why = format!(
            "{why} write the routes of {what} pools by this field and that of FelixConfiguration: one has to be the \
             complement of the other"
        );
        problems.add(code, "BGPConfiguration/default", "spec.programClusterRoutes", why);
    }
}

/// Whether Felix writes the routes of IPIP pools, and of those without encapsulation.
fn felix_owns(inputs: &Inputs<'_>) -> (bool, bool) {
    let all = &inputs.snapshot.felix_configurations;
    let of = |name: &str| all.get(name)?.program_cluster_routes.as_deref();
    let own = format!("node.{}", inputs.local.name);
    let release = inputs.release.release;
    if !release.felix_may_own_routes() {
        return (false, false);
    }
    match of(&own).or_else(|| of("default")) {
        Some("Enabled") => (true, true),
        Some("Disabled") => (false, false),
        Some("EnabledIPIPOnly") if release.felix_owns_ipip() => (true, false),
        Some("EnabledNoEncapOnly") if release.felix_owns_ipip() => (false, true),
        _ => (release.felix_owns_ipip(), false),
    }
}
