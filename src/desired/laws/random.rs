//! Random snapshots with everything that asks for sessions, and what is left of a state without names.

use proptest::prelude::*;

use super::*;
use crate::model::{
    BgpFilter, BgpPeer, Endpoint, EndpointSlice, FilterRule, MatchOperator, NamespacedName, NextHopMode,
    PeerAddress, PrefixMatch, Secret, SecretBytes, SecretKeyRef, Selector, Service, ServiceType,
    SourceAddress, TrafficPolicy,
};

fn pick<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(of.to_vec())
}

fn maybe<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = Option<T>> + use<T> {
    proptest::option::weighted(0.3, pick(of))
}

fn selector() -> impl Strategy<Value = Option<Arc<Selector>>> {
    let texts = ["all()", "has(rr)", "!has(rr)", "rack == 'a'", "rack != 'a' || has(rr)"];
    maybe(&texts).prop_map(|text| text.map(|text| Arc::new(Selector::parse(text).unwrap())))
}

/// The Secret that some BGPPeers name, with one of two keys.
fn secret() -> impl Strategy<Value = Option<Secret>> {
    maybe_often(&[1u8, 2]).prop_map(|key| {
        let name = NamespacedName { namespace: "kube-system".into(), name: "bgp".into() };
        key.map(|key| Secret { name, data: [("key".to_owned(), SecretBytes::new(vec![key]))].into() })
    })
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

fn bgp_peer() -> impl Strategy<Value = BgpPeer> {
    let addresses: Vec<IpAddr> = [
        "10.0.0.0",
        "10.0.0.1",
        "10.0.0.3",
        "192.0.2.1",
        "fd00::1",
        "2001:db8::1",
        "fe80::1",
        "127.0.0.1",
        "::1",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect();
    let peer_ip = (maybe_often(&addresses), maybe(&[179u16, 1790]));
    let who = (maybe(&names(&["node-0", "node-1", "none"])), selector(), selector(), peer_ip);
    let asns = (maybe(&[Asn(0), Asn(64_512), Asn(65_001)]), maybe(&[Asn(64_512), Asn(65_002)]));
    let modes = maybe(&[NextHopMode::Auto, NextHopMode::SelfAddress, NextHopMode::Keep]);
    let times = (maybe(&[0u32, 30, 9999]), maybe(&[0u32, 10, 99_999]));
    let rest =
        (0u8..3, pick(&[0u8, 0, 1, 255]), maybe(&addresses), any::<[bool; 3]>(), maybe(&names(&["all()"])));
    let filters = proptest::collection::vec(pick(&names(&["f0", "f1", "gone"])), 0..3);
    (who, asns, modes, times, rest, filters).prop_map(|(who, asns, next_hop_mode, times, rest, filters)| {
        BgpPeer {
            name: String::new(),
            node: who.0,
            node_selector: who.1,
            peer_selector: who.2,
            peer_ip: who.3.0.map(|addr| PeerAddress { addr, port: who.3.1 }),
            local_workload_selector: rest.4,
            asn: asns.0,
            local_asn: asns.1,
            password: rest.3[2].then(|| SecretKeyRef { name: "bgp".into(), key: "key".into() }),
            source_address: if rest.3[0] { SourceAddress::None } else { SourceAddress::UseNodeIp },
            restart_time: times.0,
            keepalive_time: times.1,
            allowed_own_as: rest.0,
            ttl_security: rest.1,
            reachable_by: rest.2,
            next_hop_mode,
            keep_original_next_hop: rest.3[1],
            filters,
            reverse_peering_manual: rest.3[0] && rest.3[1],
        }
    })
}

fn maybe_often<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = Option<T>> + use<T> {
    proptest::option::weighted(0.8, pick(of))
}

fn filter() -> impl Strategy<Value = BgpFilter> {
    let operators = [MatchOperator::In, MatchOperator::NotIn, MatchOperator::Equal, MatchOperator::NotEqual];
    let lengths = proptest::option::of((maybe(&[8u8, 24, 33]), maybe(&[8u8, 24, 32])));
    let condition = (prefix(), pick(&operators), lengths).prop_map(|(cidr, operator, length)| PrefixMatch {
        cidr,
        operator,
        length,
    });
    let rule = (proptest::option::of(condition), any::<bool>());
    proptest::collection::vec(rule, 0..4).prop_map(|rules| {
        let list = |afi| {
            let mut list: Vec<FilterRule> = Vec::new();
            for (prefix, accept) in &rules {
                if prefix.is_none_or(|prefix| prefix.cidr.afi() == afi) {
                    list.push(FilterRule {
                        index: list.len(),
                        prefix: *prefix,
                        accept: *accept,
                        ..Default::default()
                    });
                }
            }
            list
        };
        let (v4, v6) = (list(Afi::Ipv4), list(Afi::Ipv6));
        BgpFilter {
            export_v4: v4.clone(),
            export_v6: v6.clone(),
            import_v4: v4,
            import_v6: v6,
            ..Default::default()
        }
    })
}

/// A snapshot with BGPPeers, filters, labels and Services.
pub(super) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let peers = proptest::collection::vec(bgp_peer(), 0..6);
    let filters = proptest::collection::vec(filter(), 0..3);
    let labels = proptest::collection::vec((any::<bool>(), maybe(&names(&["a", "b"]))), 6);
    let services = proptest::collection::vec((0u8..4, any::<bool>()), 0..3);
    (super::snapshot(), peers, filters, labels, services, secret()).prop_map(
        |(mut snapshot, peers, filters, labels, services, secret)| {
            snapshot.secrets =
                secret.into_iter().map(|secret| (secret.name.clone(), Arc::new(secret))).collect();
            for (number, peer) in peers.into_iter().enumerate() {
                let name = format!("peer-{number}");
                snapshot.peers.insert(name.clone(), Arc::new(BgpPeer { name, ..peer }));
            }
            for (number, filter) in filters.into_iter().enumerate() {
                let name = format!("f{number}");
                snapshot.filters.insert(name.clone(), Arc::new(BgpFilter { name, ..filter }));
            }
            for (number, (reflector, rack)) in labels.into_iter().enumerate() {
                let Some(node) = snapshot.nodes.get_mut(&format!("node-{number}")) else { continue };
                let node = Arc::make_mut(node);
                node.labels.extend(reflector.then(|| ("rr".to_owned(), String::new())));
                node.labels.extend(rack.map(|rack| ("rack".to_owned(), rack)));
            }
            for (number, (last, local)) in services.into_iter().enumerate() {
                let name = NamespacedName { namespace: "default".into(), name: format!("s{number}") };
                let ip: IpAddr = [10, 96, 0, last].into();
                let service = Service {
                    name: name.clone(),
                    service_type: ServiceType::LoadBalancer,
                    cluster_ip: Some(ip),
                    cluster_ips: vec![ip],
                    external_ips: vec![],
                    load_balancer_ip: None,
                    ingress_ips: vec![],
                    traffic_policy: Some(if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster }),
                    ip_families: vec![Afi::Ipv4],
                };
                snapshot.services.insert(name.clone(), Arc::new(service));
                let slice = EndpointSlice {
                    name: name.clone(),
                    service: Some(name.name.clone()),
                    family: Some(Afi::Ipv4),
                    endpoints: vec![Endpoint { node: Some("node-0".into()), ready: true }],
                };
                snapshot.endpoint_slices.insert(name, Arc::new(slice));
            }
            let ranges = snapshot.bgp_configurations.get_mut("default").map(Arc::make_mut);
            ranges
                .into_iter()
                .for_each(|config| config.service_cluster_ips = vec!["10.96.0.0/16".parse().unwrap()]);
            snapshot
        },
    )
}

/// The state without the words that come from names of resources.
pub(super) fn without_names(mut state: DesiredState) -> impl PartialEq + std::fmt::Debug {
    state.problems.clear();
    let bare = |program: &Program| {
        let mut program = program.clone();
        program.rules.iter_mut().for_each(|rule| rule.origin.clear());
        program
    };
    for peer in state.peers.values_mut() {
        let peer = Arc::make_mut(peer);
        peer.resource.clear();
        peer.treatment.import = bare(&peer.treatment.import).into();
        peer.treatment.export = bare(&peer.treatment.export).into();
    }
    let kernels = [bare(&state.v4.kernel), bare(&state.v6.kernel)];
    let seen = super::view(&state);
    (state.peers, kernels, state.v4.statics, state.v6.statics, [seen.ipv4.sets, seen.ipv6.sets])
}
