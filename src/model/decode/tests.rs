use proptest::prelude::*;

use super::documents::documents;
use super::*;
use crate::datastore::files::snapshot_of_texts;
use crate::model::snapshot::Snapshot;
use crate::model::*;

fn read(text: &str) -> Snapshot {
    snapshot_of_texts("n1", Reading::default(), &[("f.yaml", text)])
}

/// Reads a text that must raise no problem.
fn clean(text: &str) -> Snapshot {
    let snapshot = read(text);
    assert!(snapshot.problems.is_empty(), "{:#?}", snapshot.problems);
    snapshot
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    snapshot.problems.iter().map(|problem| format!("{}: {}", problem.resource, problem.field)).collect()
}

/// A Calico resource of `kind` with this `spec`, in flow style.
fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}\n---\n"
    )
}

fn node(spec: &str) -> Node {
    (*clean(&resource("Node", "n1", spec)).nodes["n1"]).clone()
}

#[test]
fn a_bare_scalar_in_a_place_for_text_is_the_text_that_calicos_tools_make_of_it() {
    let table: Vec<(String, String)> =
        serde_json::from_str(include_str!("../../../fixtures/datastore/yaml-scalars.json")).unwrap();
    assert!(table.len() > 80);
    for (written, wanted) in table {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: n1\n  labels:\n    a: {written}\n"
        );
        let snapshot = read(&text);
        // A tag is dropped as they do it, and not in silence.
        let tagged = written.starts_with('!') && !written.starts_with("!!");
        assert_eq!(problems(&snapshot).len(), usize::from(tagged), "{written:?}: {:?}", snapshot.problems);
        assert_eq!(snapshot.nodes["n1"].labels["a"], wanted, "{written:?}");
    }
}

#[test]
fn a_bare_community_stays_as_written() {
    let snapshot = clean(&resource(
        "BGPConfiguration",
        "default",
        "{communities: [{name: c, value: 5663:12}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [5663:12, 1:2:3, c]}]}",
    ));
    let config = &snapshot.bgp_configurations["default"];
    assert_eq!(config.communities[0].value, "5663:12");
    assert_eq!(config.prefix_advertisements.as_ref().unwrap()[0].communities, ["5663:12", "1:2:3", "c"]);
}

#[test]
fn as_numbers_are_read_as_number_text_and_dotted_text() {
    for (written, wanted) in
        [("64512", 64512), ("'64512'", 64512), ("'1.10'", 65546), ("4200000000", 4_200_000_000)]
    {
        assert_eq!(node(&format!("{{bgp: {{asNumber: {written}}}}}")).asn, Some(Asn(wanted)), "{written}");
    }
    // A bare 1.10 is the number 1.1: the AS that was meant cannot be known.
    for bad in ["0", "4294967295", "4294967296", "-1", "1.10", "1.5", "'1.2.3'", "x", "[1]", "true"] {
        let snapshot = read(&resource("Node", "n1", &format!("{{bgp: {{asNumber: {bad}}}}}")));
        assert_eq!(problems(&snapshot), ["Node/n1: spec.bgp.asNumber"], "{bad}");
        assert!(snapshot.nodes.is_empty(), "a node must not get the global AS by mistake: {bad}");
    }
}

use bgp_proto::Asn;

#[test]
fn a_node_address_keeps_its_host_bits_and_is_canonical() {
    let node = node("{bgp: {ipv4Address: 10.0.1.2/16, ipv6Address: 'fd00:0:0::1/64'}}");
    let (v4, v6) = (node.ipv4.unwrap(), node.ipv6.unwrap());
    assert_eq!((v4.addr.to_string(), v4.subnet.to_string()), ("10.0.1.2".into(), "10.0.0.0/16".into()));
    assert_eq!((v6.addr.to_string(), v6.subnet.to_string()), ("fd00::1".into(), "fd00::/64".into()));
}

#[test]
fn a_bare_node_address_is_the_subnet_of_that_host() {
    assert_eq!(node("{bgp: {ipv4Address: 10.0.1.2}}").ipv4.unwrap().subnet.to_string(), "10.0.1.2/32");
}

#[test]
fn a_bad_address_counts_as_absent_for_its_family_only() {
    for bad in [
        "10.0.0.1/33",
        "10.0.0.1/",
        "010.0.0.1",
        "fd00::1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "10.0.0",
        "' 10.0.0.1'",
        "{}",
    ] {
        let spec = format!("{{bgp: {{asNumber: 1, ipv4Address: {bad}, ipv6Address: 'fd00::1'}}}}");
        let snapshot = read(&resource("Node", "n1", &spec));
        assert_eq!(problems(&snapshot), ["Node/n1: spec.bgp.ipv4Address"], "{bad}");
        let node = &snapshot.nodes["n1"];
        assert!(node.ipv4.is_none() && node.ipv6.is_some() && node.asn.is_some(), "{bad}");
    }
}

#[test]
fn a_node_without_spec_is_a_node_without_bgp() {
    for spec in ["{}", "null", "{bgp: null}", "{bgp: {}}"] {
        assert_eq!(node(spec), Node { name: "n1".into(), ..Node::default() });
    }
}

#[test]
fn a_cluster_id_is_an_address_or_a_network_without_host_bits() {
    let read =
        |text: &str| read(&resource("Node", "n1", &format!("{{bgp: {{routeReflectorClusterID: {text}}}}}")));
    assert_eq!(read("244.0.0.1").nodes["n1"].cluster_id.unwrap().to_string(), "244.0.0.1");
    assert_eq!(read("10.0.0.0/8").nodes["n1"].cluster_id.unwrap().to_string(), "10.0.0.0");
    assert_eq!(read("''").nodes["n1"].cluster_id, None);
    for bad in ["10.0.0.1/8", "x", "'::1'"] {
        assert_eq!(problems(&read(bad)), ["Node/n1: spec.bgp.routeReflectorClusterID"]);
    }
}

const KUBERNETES_NODE: &str = r#"
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {zone: a, both: kubernetes}
  annotations:
    projectcalico.org/IPv4Address: 10.0.0.1/24
    projectcalico.org/IPv6Address: nonsense
    projectcalico.org/ASNumber: "1.10"
    projectcalico.org/RouteReflectorClusterID: 244.0.0.1
    projectcalico.org/IPv4WireguardInterfaceAddr: 192.168.3.1
    projectcalico.org/WireguardPublicKey: key
    projectcalico.org/labels: '{"mine":"1","both":"calico"}'
spec: {podCIDR: 10.244.3.0/24, podCIDRs: [10.244.3.0/24, "fd00:10:244:3::/64"]}
"#;

#[test]
fn a_kubernetes_node_becomes_a_calico_node_by_its_annotations() {
    let snapshot = read(KUBERNETES_NODE);
    assert_eq!(problems(&snapshot), ["Node/n1: metadata.annotations.projectcalico.org/IPv6Address"]);
    let node = &snapshot.nodes["n1"];
    assert_eq!(node.ipv4.unwrap().addr.to_string(), "10.0.0.1");
    assert_eq!((node.ipv6, node.asn), (None, Some(Asn(65546))));
    assert_eq!(node.cluster_id.unwrap().to_string(), "244.0.0.1");
    assert_eq!(node.wireguard_v4.unwrap().to_string(), "192.168.3.1");
    let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["both=kubernetes", "mine=1", "zone=a"]);
    assert_eq!(node.pod_cidrs.len(), 2);
}

#[test]
fn with_pod_cidrs_the_wireguard_address_is_the_second_of_the_range() {
    let reading = Reading { use_pod_cidr: true };
    let snapshot = snapshot_of_texts("n1", reading, &[("f.yaml", KUBERNETES_NODE)]);
    assert_eq!(snapshot.nodes["n1"].wireguard_v4.unwrap().to_string(), "10.244.3.1");
    let without_key = KUBERNETES_NODE.replace("WireguardPublicKey", "Other");
    let snapshot = snapshot_of_texts("n1", reading, &[("f.yaml", &without_key)]);
    assert_eq!(snapshot.nodes["n1"].wireguard_v4, None);
}

#[test]
fn a_calico_node_takes_the_place_of_the_kubernetes_node_of_its_name() {
    let calico = resource("Node", "n1", "{bgp: {ipv4Address: 10.9.9.9}}");
    for text in [format!("{KUBERNETES_NODE}\n---\n{calico}"), format!("{calico}{KUBERNETES_NODE}")] {
        assert_eq!(clean_but_for_annotations(&text).nodes["n1"].ipv4.unwrap().addr.to_string(), "10.9.9.9");
    }
}

fn clean_but_for_annotations(text: &str) -> Snapshot {
    let snapshot = read(text);
    assert!(snapshot.problems.iter().all(|problem| problem.field.contains("annotations")), "{snapshot:#?}");
    snapshot
}

#[test]
fn every_field_of_a_bgp_configuration_is_read() {
    let snapshot = clean(&resource(
        "BGPConfiguration",
        "default",
        "{nodeToNodeMeshEnabled: false, asNumber: 65001, listenPort: 178, bindMode: NodeIP, logSeverityScreen: Debug, \
         ignoredInterfaces: [docker*, eth1], ipv4NormalRoutePriority: 2000, ipv6NormalRoutePriority: 1, \
         programClusterRoutes: EnabledIPIPOnly, nodeMeshPassword: {secretKeyRef: {name: s, key: k}}, \
         nodeMeshMaxRestartTime: 1m30.5s, serviceClusterIPs: [{cidr: 10.96.0.1/12}, {cidr: ''}], \
         serviceExternalIPs: [{cidr: 'fd00::/64'}], serviceLoadBalancerIPs: [{cidr: 1.2.3.4/32}], \
         serviceLoadBalancerAggregation: Disabled, unknownField: {a: [1]}}",
    ));
    let config = &snapshot.bgp_configurations["default"];
    assert_eq!(
        (config.mesh_enabled, config.asn, config.listen_port),
        (Some(false), Some(Asn(65001)), Some(178))
    );
    assert_eq!(config.bind_mode, BindMode::NodeIp);
    assert_eq!(config.log_severity.as_deref(), Some("Debug"));
    assert_eq!(config.ignored_interfaces, ["docker*", "eth1"]);
    assert_eq!((config.ipv4_priority, config.ipv6_priority), (Some(2000), Some(1)));
    assert_eq!(config.program_cluster_routes, ProgramClusterRoutes::EnabledIpipOnly);
    assert_eq!(config.mesh_password, Some(SecretKeyRef { name: "s".into(), key: "k".into() }));
    assert_eq!(config.mesh_restart_time, Some(91), "rounded half away from zero");
    assert_eq!(config.service_cluster_ips, ["10.96.0.0/12".parse().unwrap()]);
    assert_eq!(config.service_external_ips.len() + config.service_load_balancer_ips.len(), 2);
    assert_eq!(config.load_balancer_aggregation, Some(false));
    assert_eq!(config.prefix_advertisements, None);
}

#[test]
fn a_listen_port_of_zero_is_unset() {
    let snapshot = clean(&resource("BGPConfiguration", "default", "{listenPort: 0}"));
    assert_eq!(snapshot.bgp_configurations["default"].listen_port, None);
}

#[test]
fn wrong_fields_of_a_bgp_configuration_are_named_and_the_others_kept() {
    let snapshot = read(&resource(
        "BGPConfiguration",
        "default",
        "{nodeToNodeMeshEnabled: maybe, asNumber: 0, listenPort: 65536, ipv4NormalRoutePriority: 2147483647, \
         nodeMeshMaxRestartTime: 10, serviceClusterIPs: [{cidr: 10.0.0.0/8}, {cidr: x}], ignoredInterfaces: eth0, \
         programClusterRoutes: Sometimes, logSeverityScreen: Info}",
    ));
    assert_eq!(
        problems(&snapshot),
        [
            "BGPConfiguration/default: spec.asNumber",
            "BGPConfiguration/default: spec.ignoredInterfaces",
            "BGPConfiguration/default: spec.ipv4NormalRoutePriority",
            "BGPConfiguration/default: spec.listenPort",
            "BGPConfiguration/default: spec.nodeMeshMaxRestartTime",
            "BGPConfiguration/default: spec.nodeToNodeMeshEnabled",
            "BGPConfiguration/default: spec.programClusterRoutes",
            "BGPConfiguration/default: spec.serviceClusterIPs[1].cidr",
        ]
    );
    let config = &snapshot.bgp_configurations["default"];
    assert_eq!(config.log_severity.as_deref(), Some("Info"));
    assert!(config.service_cluster_ips.is_empty(), "the list is refused as a whole");
    let warned: Vec<&str> = snapshot
        .problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Warning)
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(warned, ["spec.programClusterRoutes"], "an unknown word is the default, as with Felix");
}

#[test]
fn cluster_information_has_release_and_readiness() {
    let snapshot =
        clean(&resource("ClusterInformation", "default", "{calicoVersion: v3.28.1, datastoreReady: false}"));
    let information = snapshot.cluster_information.unwrap();
    assert_eq!(
        (information.calico_version.as_deref(), information.datastore_ready),
        (Some("v3.28.1"), Some(false))
    );
    assert_eq!(clean(&resource("ClusterInformation", "other", "{}")).cluster_information, None);
}

#[test]
fn a_pool_needs_a_cidr_and_unknown_modes_mean_never() {
    let snapshot = clean(&resource(
        "IPPool",
        "p",
        "{cidr: 10.244.1.2/16, ipipMode: CrossSubnet, vxlanMode: Always, disableBGPExport: true}",
    ));
    let pool = &snapshot.pools["p"];
    assert_eq!(pool.cidr.to_string(), "10.244.0.0/16");
    assert_eq!(
        (pool.ipip, pool.vxlan, pool.disable_bgp_export),
        (EncapMode::CrossSubnet, EncapMode::Always, true)
    );
    let snapshot = read(&resource("IPPool", "p", "{cidr: 10.0.0.0/8, ipipMode: always}"));
    assert_eq!(
        (snapshot.pools["p"].ipip, problems(&snapshot)),
        (EncapMode::Never, vec!["IPPool/p: spec.ipipMode".into()])
    );
    for bad in ["{}", "{cidr: x}", "{cidr: ''}"] {
        let snapshot = read(&resource("IPPool", "p", bad));
        assert_eq!((problems(&snapshot), snapshot.pools.len()), (vec!["IPPool/p: spec.cidr".to_owned()], 0));
    }
}

#[test]
fn only_own_live_host_blocks_are_in_the_snapshot() {
    let block = |name: &str, spec: &str| resource("BlockAffinity", name, spec);
    let text = [
        block("a", "{node: n1, cidr: 10.0.0.0/26, state: confirmed, type: host, deleted: false}"),
        block("b", "{node: n1, cidr: 10.0.1.5/26, deleted: 'false'}"),
        block("c", "{node: n1, cidr: 10.0.2.0/26, state: pendingDeletion, type: '', deleted: ''}"),
        block("d", "{node: n1, cidr: 'fd00::/122', state: pending}"),
        block("e", "{node: n2, cidr: 10.0.4.0/26}"),
        block("f", "{node: n1, cidr: 10.0.5.0/26, type: virtual}"),
        block("g", "{node: n1, cidr: 10.0.6.0/26, deleted: true}"),
        block("h", "{node: n1, cidr: 10.0.7.0/26, deleted: 'true'}"),
        // Twice the same block: the state that is further in force.
        block("i", "{node: n1, cidr: 10.0.2.0/26, state: pending}"),
    ];
    let snapshot = clean(&text.concat().replace("projectcalico.org/v3", "crd.projectcalico.org/v1"));
    let blocks: Vec<String> =
        snapshot.blocks.iter().map(|(cidr, state)| format!("{cidr} {state:?}")).collect();
    assert_eq!(
        blocks,
        ["10.0.0.0/26 Confirmed", "10.0.1.0/26 Confirmed", "10.0.2.0/26 Pending", "fd00::/122 Pending"]
    );
    let with_pod_cidrs = snapshot_of_texts("n1", Reading { use_pod_cidr: true }, &[("f", &text.concat())]);
    assert!(with_pod_cidrs.blocks.is_empty());
}

#[test]
fn every_field_of_a_bgp_peer_is_read() {
    let snapshot = clean(&resource(
        "BGPPeer",
        "p",
        "{node: n1, nodeSelector: \"rack == 'r1'\", peerIP: '172.19.4.87:1790', asNumber: 64533, localASNumber: '1.1', \
         password: {secretKeyRef: {name: s, key: k}}, sourceAddress: None, maxRestartTime: 1m30s, keepaliveTime: 400ms, \
         numAllowedLocalASNumbers: 1, ttlSecurity: 2, reachableBy: 10.224.0.1, nextHopMode: Self, \
         keepOriginalNextHop: true, filters: [f1, 2], reversePeering: Manual, peerSelector: '', \
         localWorkloadSelector: all()}",
    ));
    let wanted = BgpPeer {
        name: "p".into(),
        node: Some("n1".into()),
        node_selector: Some(Arc::new(Selector::parse("rack == 'r1'").unwrap())),
        peer_ip: Some(PeerAddress { addr: "172.19.4.87".parse().unwrap(), port: Some(1790) }),
        peer_selector: None,
        local_workload_selector: Some("all()".into()),
        asn: Some(Asn(64533)),
        local_asn: Some(Asn(65537)),
        password: Some(SecretKeyRef { name: "s".into(), key: "k".into() }),
        source_address: SourceAddress::None,
        restart_time: Some(90),
        keepalive_time: Some(0),
        allowed_own_as: 1,
        ttl_security: 2,
        reachable_by: Some("10.224.0.1".parse().unwrap()),
        next_hop_mode: Some(NextHopMode::SelfAddress),
        keep_original_next_hop: true,
        filters: vec!["f1".into(), "2".into()],
        reverse_peering_manual: true,
    };
    assert_eq!(*snapshot.peers["p"], wanted);
}

#[test]
fn peer_addresses_have_a_port_only_in_the_forms_that_can_be_told_apart() {
    let peer = |text: &str| read(&resource("BGPPeer", "p", &format!("{{peerIP: '{text}', asNumber: 1}}")));
    for (text, addr, port) in [
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:179", "10.0.0.1", Some(179)),
        ("fd00:0::1", "fd00::1", None),
        ("[fd00::1]:1790", "fd00::1", Some(1790)),
        ("fd00::1:179", "fd00::1:179", None),
    ] {
        let wanted = PeerAddress { addr: addr.parse().unwrap(), port };
        assert_eq!(peer(text).peers["p"].peer_ip, Some(wanted), "{text}");
    }
    for bad in [
        "10.0.0.1:0",
        "10.0.0.1:",
        "10.0.0.1:65536",
        "10.0.0.1:+1",
        "fe80::1%eth0",
        "[fe80::1%1]:179",
        "tor",
        "[fd00::1]",
        "10.0.0.1/32",
        "0.0.0.0",
        "224.0.0.5:179",
        "255.255.255.255",
        "::",
        "[ff02::5]:179",
    ] {
        let snapshot = peer(bad);
        assert_eq!(problems(&snapshot), ["BGPPeer/p: spec.peerIP"], "{bad}");
        assert!(snapshot.peers.is_empty(), "{bad}");
    }
}

#[test]
fn a_password_reference_that_lacks_a_part_still_asks_for_a_password() {
    let snapshot = read(&resource("BGPPeer", "p", "{peerIP: 10.0.0.1, password: {secretKeyRef: {name: s}}}"));
    assert_eq!(problems(&snapshot), ["BGPPeer/p: spec.password.secretKeyRef.key"]);
    assert!(snapshot.peers["p"].password.is_some());
}

#[test]
fn filter_rules_are_read_with_all_their_conditions() {
    let snapshot = clean(&resource(
        "BGPFilter",
        "f",
        "{exportV4: [{cidr: 10.0.0.5/8, prefixLength: {min: 16, max: 24}, matchOperator: In, peerType: eBGP, \
         source: RemotePeers, interface: eth*, asPathPrefix: [65000, '1.1'], priority: 512, \
         communities: {values: [65000:1:2]}, action: Accept, operations: [{addCommunity: {value: 65000:100}}, \
         {prependASPath: {prefix: [1, 2]}}, {setPriority: {value: 7}}]}, {action: Reject}], \
         importV6: [{cidr: 'fd00::/8', matchOperator: NotEqual, prefixLength: {}, action: Reject}]}",
    ));
    let filter = &snapshot.filters["f"];
    let rule = FilterRule {
        index: 0,
        prefix: Some(PrefixMatch {
            cidr: "10.0.0.0/8".parse().unwrap(),
            operator: MatchOperator::In,
            length: Some((Some(16), Some(24))),
        }),
        remote_peers: true,
        interface: Some("eth*".into()),
        internal: Some(false),
        community: Some(CommunityValue::Large(65000, 1, 2)),
        as_path_prefix: vec![Asn(65000), Asn(65537)],
        priority: Some(512),
        accept: true,
        operations: vec![
            FilterOperation::AddCommunity(CommunityValue::Standard(65000, 100)),
            FilterOperation::PrependAsPath(vec![Asn(1), Asn(2)]),
            FilterOperation::SetPriority(7),
        ],
    };
    assert_eq!(filter.export_v4, [rule, FilterRule { index: 1, ..FilterRule::default() }]);
    assert_eq!(filter.import_v6[0].prefix.unwrap().length, Some((None, None)));
    assert!(filter.export_v6.is_empty() && filter.import_v4.is_empty());
}

#[test]
fn a_filter_rule_that_cannot_be_understood_is_left_out_and_named() {
    for (rule, field) in [
        ("{cidr: 10.0.0.0/8, action: Accept}", "matchOperator"),
        ("{cidr: 10.0.0.0/8, matchOperator: Within, action: Accept}", "matchOperator"),
        ("{cidr: 'fd00::/8', matchOperator: In, action: Accept}", "cidr"),
        (
            "{cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {max: 33}, action: Accept}",
            "prefixLength.max",
        ),
        ("{action: Maybe}", "action"),
        ("{}", "action"),
        ("{source: Local, action: Accept}", "source"),
        ("{peerType: internal, action: Accept}", "peerType"),
        ("{interface: 'eth 0', action: Accept}", "interface"),
        ("{interface: abcdefghijklmnop, action: Accept}", "interface"),
        ("{communities: {values: [65536:1]}, action: Accept}", "communities.values[0]"),
        ("{communities: {values: ['1:1', '1:2']}, action: Accept}", "communities.values"),
        ("{communities: {values: []}, action: Accept}", "communities.values"),
        ("{asPathPrefix: [0], action: Accept}", "asPathPrefix[0]"),
        ("{priority: 0, action: Accept}", "priority"),
        ("{action: Accept, operations: [{}]}", "operations[0].addCommunity"),
        ("{action: Accept, operations: [{addCommunity: {}}]}", "operations[0].addCommunity.value"),
        ("{action: Accept, operations: [{setPriority: null}]}", "operations[0].addCommunity"),
        ("{action: Accept, operations: [{setPriority: {value: -1}}]}", "operations[0].setPriority.value"),
        (
            "{action: Accept, operations: [{prependASPath: {prefix: []}}]}",
            "operations[0].prependASPath.prefix",
        ),
        ("{action: Accept, operations: [1]}", "operations[0]"),
        ("7", ""),
    ] {
        let snapshot =
            read(&resource("BGPFilter", "f", &format!("{{exportV4: [{rule}, {{action: Reject}}]}}")));
        let path = if field.is_empty() {
            "spec.exportV4[0]".to_owned()
        } else {
            format!("spec.exportV4[0].{field}")
        };
        assert!(
            problems(&snapshot).contains(&format!("BGPFilter/f: {path}")),
            "{rule}: {:?}",
            problems(&snapshot)
        );
        let rules = &snapshot.filters["f"].export_v4;
        assert_eq!((rules.len(), rules[0].index), (1, 1), "{rule}: the other rule stays");
    }
}

#[test]
fn a_secret_has_its_data_decoded_and_string_data_over_it_and_shows_neither() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n\
                data:\n  a: YQpi\n  b: |\n    eHh4\n    eHh4\n  c: '%%hush'\n  e: ''\nstringData: {a: over, d: 123}\n";
    let snapshot = read(text);
    let secret = &snapshot.secrets[&NamespacedName { namespace: "default".into(), name: "s".into() }];
    let values: Vec<(&str, &[u8])> =
        secret.data.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    let wanted: [(&str, &[u8]); 4] = [("a", b"over"), ("b", b"xxxxxx"), ("d", b"123"), ("e", b"")];
    assert_eq!(values, wanted);
    assert_eq!(problems(&snapshot), ["Secret/default/s: data.c"]);
    let shown = format!("{snapshot:?}");
    assert!(!shown.contains("hush") && !shown.contains("over"), "{shown}");
}

#[test]
fn a_service_has_the_defaults_that_the_api_server_would_store() {
    let service = |spec: &str| {
        let text =
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: x}}, spec: {spec}}}");
        let name = NamespacedName { namespace: "x".into(), name: "s".into() };
        (*clean(&text).services[&name]).clone()
    };
    let plain = service("{clusterIP: 10.96.0.1}");
    assert_eq!((plain.service_type, plain.traffic_policy), (ServiceType::ClusterIp, None));
    assert_eq!(plain.cluster_ips, ["10.96.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(plain.ip_families, [bgp_proto::Afi::Ipv4]);
    assert_eq!(service("{externalIPs: [1.2.3.4]}").traffic_policy, Some(TrafficPolicy::Cluster));
    assert_eq!(service("{type: NodePort}").traffic_policy, Some(TrafficPolicy::Cluster));
    assert_eq!(
        service("{type: LoadBalancer, externalTrafficPolicy: Local}").traffic_policy,
        Some(TrafficPolicy::Local)
    );
    let headless = service("{clusterIP: None, clusterIPs: [None]}");
    assert_eq!((headless.cluster_ip, headless.cluster_ips.len()), (None, 0));
    assert_eq!(service("{type: ExternalName, externalName: x.y}").service_type, ServiceType::Other);
}

#[test]
fn an_endpoint_is_ready_unless_it_says_otherwise() {
    let snapshot = clean(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e, labels: {kubernetes.io/service-name: s}}\n\
         addressType: IPv6\nendpoints:\n- {nodeName: n1}\n- {nodeName: n2, conditions: {ready: false}}\n- {conditions: {ready: null}}\n",
    );
    let slice = snapshot.endpoint_slices.values().next().unwrap();
    assert_eq!((slice.service.as_deref(), slice.family), (Some("s"), Some(bgp_proto::Afi::Ipv6)));
    let ready: Vec<bool> = slice.endpoints.iter().map(|endpoint| endpoint.ready).collect();
    assert_eq!(ready, [true, false, true]);
}

#[test]
fn lists_are_read_item_by_item() {
    let item = |n: u32| format!("{{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: n{n}}}}}");
    for text in [
        format!("{{apiVersion: v1, kind: List, items: [{}, {}]}}", item(1), item(2)),
        format!("{{apiVersion: projectcalico.org/v3, kind: NodeList, metadata: {{}}, items: [{}, {}]}}", item(1), item(2)),
        "{apiVersion: projectcalico.org/v3, kind: NodeList, items: [{metadata: {name: n1}}, {metadata: {name: n2}}]}".into(),
        format!("[{}, {}]", item(1), item(2)),
    ] {
        assert_eq!(clean(&text).nodes.len(), 2, "{text}");
    }
    assert!(clean("{apiVersion: v1, kind: List, items: []}").nodes.is_empty());
    assert!(clean("{apiVersion: projectcalico.org/v3, kind: NodeList}").nodes.is_empty());
    let broken = read(&format!("{{apiVersion: v1, kind: List, items: [7, {}, {{kind: Node}}]}}", item(1)));
    assert_eq!(
        (broken.nodes.len(), problems(&broken)),
        (1, vec!["f.yaml document 1 item 1: ".into(), "f.yaml document 1 item 3: apiVersion".to_owned(),])
    );
}

#[test]
fn kinds_that_mean_nothing_to_bgp_are_skipped_in_silence() {
    for head in [
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}",
        "{apiVersion: projectcalico.org/v3, kind: CalicoNodeStatus, metadata: {name: x}}",
        "{apiVersion: projectcalico.org/v3, kind: IPAMConfigurationList, items: [{metadata: {name: default}}]}",
        "{apiVersion: v1, kind: ConfigMapList, items: [{metadata: {name: default}}]}",
        "{apiVersion: example.com/v1, kind: Node, metadata: {name: x}}",
        "",
        "# a comment\n---\n---\n# another\n",
        "null",
    ] {
        assert_eq!(clean(head), Snapshot::default(), "{head}");
    }
}

#[test]
fn a_document_that_is_no_resource_is_named_by_file_and_number() {
    for (text, place) in [
        ("just text", "f.yaml document 1: "),
        ("{kind: Node}", "f.yaml document 1: apiVersion"),
        ("{apiVersion: projectcalico.org/v3}", "f.yaml document 1: kind"),
        (
            "{apiVersion: projectcalico.org/v1, kind: Node, metadata: {name: n}}",
            "f.yaml document 1: apiVersion",
        ),
        ("{apiVersion: v1, kind: IPPool, metadata: {name: p}}", "f.yaml document 1: apiVersion"),
        ("{apiVersion: v1, kind: BGPPeerList, items: [{}]}", "f.yaml document 1 item 1: apiVersion"),
        ("{apiVersion: '', kind: Node, metadata: {name: p}}", "f.yaml document 1: apiVersion"),
        ("{apiVersion: projectcalico.org/v3, kind: '', metadata: {name: p}}", "f.yaml document 1: kind"),
        ("{apiVersion: projectcalico.org/v3, kind: 5, metadata: {name: p}}", "f.yaml document 1: kind"),
        ("{apiVersion: projectcalico.org/v3, kind: Node}", "f.yaml document 1 (Node): metadata.name"),
        ("{apiVersion: projectcalico.org/v3, kind: Node, metadata: n}", "f.yaml document 1 (Node): metadata"),
        (
            "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: ''}}",
            "f.yaml document 1 (Node): metadata.name",
        ),
    ] {
        assert_eq!(problems(&read(text)), [place], "{text}");
    }
    let why = |head: &str| {
        let text = format!("{{apiVersion: projectcalico.org/v3, {head}}}");
        read(&text).problems.into_iter().map(|problem| problem.why).collect::<Vec<_>>()
    };
    assert_eq!(why("kind: [Node]"), ["text is wanted here, not a list"]);
    assert_eq!(why("kind: Node, metadata: {name: {a: b}}"), ["text is wanted here, not an object"]);
    assert_eq!(why("kind: Node, metadata: n1"), ["an object is wanted here, not \"n1\""]);
    assert_eq!(why("kind: Node, metadata: {}"), ["is missing"]);
}

#[test]
fn one_broken_document_hides_no_other() {
    let good = |n: u32| format!("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: n{n}\n");
    for broken in ["a: [", "a: b: c", "\tx: 1", "a: &x\n- *y", "\"unclosed", "{", "- }", "a: 1\na: 2", "|"] {
        let text = format!("{}---\n{broken}\n---\n{}", good(1), good(2));
        let snapshot = read(&text);
        assert_eq!(snapshot.nodes.len(), 2, "{broken}");
        assert!(snapshot.problems[0].resource == "f.yaml document 2", "{broken}: {:?}", snapshot.problems);
    }
    let snapshot =
        snapshot_of_bytes(&[good(1).as_bytes(), b"---\n\xff\xfe\n---\n", good(2).as_bytes()].concat());
    assert_eq!((snapshot.nodes.len(), snapshot.problems.len()), (2, 1));
    let json = |n: u32| {
        format!(
            "{{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Node\",\"metadata\":{{\"name\":\"n{n}\"}}}}\n"
        )
    };
    let snapshot = read(&format!("{}{{\"kind\": \n{}", json(1), json(2)));
    assert_eq!((snapshot.nodes.len(), problems(&snapshot)), (2, vec!["f.yaml document 2: ".to_owned()]));
}

fn snapshot_of_bytes(bytes: &[u8]) -> Snapshot {
    let mut set = crate::datastore::files::FileSet::new("n1", Reading::default());
    set.put("f.yaml", bytes, None, tokio::time::Instant::now());
    set.snapshot()
}

#[test]
fn a_broken_document_is_described_with_its_line_in_the_file() {
    for (text, line) in [
        ("a: 1\n---\n# note\n\nb: 1\nc: [\n", "line 6"),
        ("a: b: c\n", "line 1"),
        ("a: 1\n---\nb: c: d\n", "line 3"),
        ("{\"a\": 1,\n \"b\": ]}\n", "line 2"),
    ] {
        let broken: Vec<String> =
            documents(text.as_bytes()).into_iter().filter_map(|document| document.value.err()).collect();
        assert_eq!(broken.len(), 1, "{text:?}: {broken:?}");
        assert!(broken[0].starts_with(line) && !broken[0].contains('\n'), "{text:?}: {broken:?}");
    }
}

#[test]
fn documents_are_split_at_markers_and_nowhere_else() {
    let count = |text: &str| documents(text.as_bytes()).len();
    assert_eq!(count("---\na: 1\n---\nb: 2\n"), 2);
    assert_eq!(count("\u{feff}---\r\na: 1\r\n---\r\nb: 2\r\n"), 2);
    assert_eq!(count("a: 1\n...\n---\nb: 2\n...\n"), 2);
    assert_eq!(count("%YAML 1.2\n---\na: 1\n"), 1);
    assert_eq!(count("a: |\n  ---\n  x\nb: 1\n"), 1);
    assert_eq!(count("a: ----\n----: b\n---x: 1\n"), 1);
    assert_eq!(count("--- {a: 1}\n--- # note\nb: 2\n"), 2);
    assert_eq!(count("{\"a\":1}\n{\"b\":2}{\"c\":3}\n"), 3);
    assert_eq!(count("---\n---\n# nothing\n"), 0);
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (this, last) in "bcdefghijk".chars().zip("abcdefghij".chars()) {
        bomb.push_str(&format!(
            "{this}: &{this} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
        ));
    }
    let error = documents(bomb.as_bytes())[0].value.clone().unwrap_err();
    assert!(error.ends_with("its anchors and aliases, or its size, stand for more than is read"), "{error}");
    let error = documents(b"a: 1\nb: 2\na: 3\n")[0].value.clone().unwrap_err();
    assert_eq!(error, "line 3: duplicate mapping key: a");
    let deep = "[".repeat(100_000);
    assert!(documents(deep.as_bytes()).iter().all(|document| document.value.is_err()));
    let deep = "- ".repeat(100_000);
    assert!(documents(deep.as_bytes()).iter().all(|document| document.value.is_err()));
}

#[test]
fn a_refused_field_keeps_its_last_good_value() {
    let mut set = crate::datastore::files::FileSet::new("n1", Reading::default());
    let now = tokio::time::Instant::now();
    let mut put = |text: &str| {
        set.put("f.yaml", text.as_bytes(), None, now);
        set.snapshot()
    };
    put(&resource("BGPConfiguration", "default", "{nodeToNodeMeshEnabled: false, asNumber: 65001}"));
    let after =
        put(&resource("BGPConfiguration", "default", "{nodeToNodeMeshEnabled: nope, asNumber: 65002}"));
    let config = &after.bgp_configurations["default"];
    assert_eq!((config.mesh_enabled, config.asn), (Some(false), Some(Asn(65002))));

    put(&resource("Node", "n2", "{bgp: {asNumber: 7, ipv4Address: 10.0.0.1}}"));
    let after = put(&resource("Node", "n2", "{bgp: {asNumber: 0, ipv4Address: 10.0.0.2}}"));
    let node = &after.nodes["n2"];
    assert_eq!((node.asn, node.ipv4.unwrap().addr.to_string()), (Some(Asn(7)), "10.0.0.2".into()));

    put(&resource("BGPPeer", "p", "{peerIP: 10.0.0.1, asNumber: 7}"));
    let after = put(&resource("BGPPeer", "p", "{peerIP: nowhere, asNumber: 8}"));
    assert_eq!(after.peers["p"].asn, Some(Asn(7)), "refused as a whole");
    assert!(problems(&after).contains(&"BGPPeer/p: spec.peerIP".to_owned()));
}

/// What becomes of a good document when a second version of it is read.
fn reread(first: &str, second: &str) -> Snapshot {
    let mut set = crate::datastore::files::FileSet::new("n1", Reading::default());
    let now = tokio::time::Instant::now();
    set.put("f.yaml", first.as_bytes(), None, now);
    assert!(set.snapshot().problems.is_empty(), "{:?}", set.snapshot().problems);
    set.put("f.yaml", second.as_bytes(), None, now);
    set.snapshot()
}

#[test]
fn a_spec_that_is_no_object_takes_nothing_out_of_force() {
    let specs = [
        (
            "BGPConfiguration",
            "default",
            "{nodeToNodeMeshEnabled: false, bindMode: NodeIP, communities: [{name: a, value: '1:1'}]}",
        ),
        ("Node", "n2", "{bgp: {asNumber: 7, ipv4Address: 10.0.0.2/24}}"),
        ("IPPool", "p", "{cidr: 10.1.0.0/16, disableBGPExport: true, ipipMode: Always}"),
        ("BGPPeer", "p", "{peerIP: 10.0.0.1, asNumber: 7, keepOriginalNextHop: true}"),
        ("BGPFilter", "f", "{exportV4: [{action: Reject}]}"),
        ("BlockAffinity", "b", "{node: n1, cidr: 10.1.0.0/26, state: pending}"),
        ("ClusterInformation", "default", "{calicoVersion: v3.29.0}"),
    ];
    for (kind, name, spec) in specs {
        let good = clean(&resource(kind, name, spec));
        for bad in ["[]", "true", "nodeToNodeMeshEnabled=false", "5"] {
            let mut after = reread(&resource(kind, name, spec), &resource(kind, name, bad));
            assert_eq!(problems(&after), [format!("{kind}/{name}: spec")], "{kind} {bad}");
            after.problems.clear();
            assert_eq!(after, good, "{kind} {bad}");
        }
        let first = read(&resource(kind, name, "[]"));
        assert!(first.nodes.is_empty() && first.pools.is_empty() && first.peers.is_empty(), "{kind}");
    }
}

#[test]
fn a_field_of_a_wrong_type_keeps_its_last_good_value_in_every_kind() {
    let cases = [
        (
            "IPPool",
            "{cidr: 10.1.0.0/16, disableBGPExport: true}",
            "{cidr: 10.1.0.0/16, disableBGPExport: 'yes'}",
        ),
        ("IPPool", "{cidr: 10.1.0.0/16, vxlanMode: Always}", "{cidr: 10.1.0.0/16, vxlanMode: [Always]}"),
        (
            "BlockAffinity",
            "{node: n1, cidr: 10.1.0.0/26, deleted: true}",
            "{node: n1, cidr: 10.1.0.0/26, deleted: 1}",
        ),
        (
            "BlockAffinity",
            "{node: n1, cidr: 10.1.0.0/26, state: pending}",
            "{node: n1, cidr: 10.1.0.0/26, state: {}}",
        ),
        (
            "BlockAffinity",
            "{node: n1, cidr: 10.1.0.0/26, type: virtual}",
            "{node: n1, cidr: 10.1.0.0/26, type: []}",
        ),
        ("BGPConfiguration", "{bindMode: NodeIP}", "{bindMode: [NodeIP]}"),
        ("BGPConfiguration", "{programClusterRoutes: Disabled}", "{programClusterRoutes: {}}"),
        ("BGPConfiguration", "{communities: [{name: a, value: '1:1'}]}", "{communities: {a: '1:1'}}"),
        (
            "BGPConfiguration",
            "{nodeMeshPassword: {secretKeyRef: {name: s, key: k}}}",
            "{nodeMeshPassword: [s, k]}",
        ),
        ("BGPPeer", "{peerIP: 10.0.0.1, nextHopMode: Self}", "{peerIP: 10.0.0.1, nextHopMode: []}"),
        ("BGPPeer", "{peerIP: 10.0.0.1, sourceAddress: None}", "{peerIP: 10.0.0.1, sourceAddress: []}"),
        ("BGPPeer", "{peerIP: 10.0.0.1, reversePeering: Manual}", "{peerIP: 10.0.0.1, reversePeering: []}"),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, keepOriginalNextHop: true}",
            "{peerIP: 10.0.0.1, keepOriginalNextHop: 5}",
        ),
    ];
    for (kind, good, bad) in cases {
        let mut after = reread(&resource(kind, "x", good), &resource(kind, "x", bad));
        assert_eq!(after.problems.len(), 1, "{kind} {bad}: {:?}", after.problems);
        after.problems.clear();
        assert_eq!(after, clean(&resource(kind, "x", good)), "{kind} {bad}");
    }
}

#[test]
fn pod_cidrs_of_a_wrong_type_take_no_block_out_of_force() {
    let node = |status: &str| {
        format!("{{apiVersion: projectcalico.org/v3, kind: Node, metadata: {{name: n1}}, status: {status}}}")
    };
    let after = reread(&node("{podCIDRs: [10.1.0.0/24]}"), &node("{podCIDRs: 10.1.0.0/24}"));
    assert_eq!(after.nodes["n1"].pod_cidrs.len(), 1);
    let node = |spec: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, spec: {spec}}}");
    let after = reread(&node("{podCIDRs: [10.1.0.0/24]}"), &node("{podCIDRs: 10.1.0.0/24}"));
    assert_eq!(after.nodes["n1"].pod_cidrs.len(), 1);
}

#[test]
fn a_password_in_the_place_of_its_reference_is_not_shown_and_still_asks_for_a_password() {
    for (kind, name, field) in
        [("BGPConfiguration", "default", "nodeMeshPassword"), ("BGPPeer", "p", "password")]
    {
        for (value, place) in [("hush", ""), ("{secretKeyRef: hush}", ".secretKeyRef")] {
            let snapshot = read(&resource(kind, name, &format!("{{{field}: {value}}}")));
            assert_eq!(problems(&snapshot), [format!("{kind}/{name}: spec.{field}{place}")]);
            assert!(!snapshot.problems[0].to_string().contains("hush"), "{:?}", snapshot.problems);
            let config = snapshot.bgp_configurations.get(name).map(|config| config.mesh_password.is_some());
            let peer = snapshot.peers.get(name).map(|peer| peer.password.is_some());
            assert_eq!(config.or(peer), Some(true), "{kind} {value}");
        }
    }
}

#[test]
fn no_message_shows_what_stands_in_a_secret() {
    for body in [
        "data: hush",
        "stringData: hush",
        "data: {a: [hush]}",
        "data: {a: '%hush'}",
        "data: 7357",
        "stringData: {a: {b: hush}}",
    ] {
        let snapshot = read(&format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{body}\n"));
        assert_eq!(snapshot.problems.len(), 1, "{body}");
        let text = snapshot.problems[0].to_string();
        assert!(!text.contains("hush") && !text.contains("7357"), "{text}");
    }
}

#[test]
fn hostile_names_reach_no_terminal() {
    let snapshot =
        read("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: \"a\\n\\e[31mb\"}}");
    assert!(snapshot.problems[0].to_string().chars().all(|c| !c.is_control()));
}

/// Values that resemble resources, and everything else.
fn any_value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "10.0.0.1/24",
            "fd00::1",
            "1.10",
            "5663:12",
            "1m30s",
            "Accept",
            "In",
            "host",
            "true",
            "",
            "x",
            "10.0.0.1:0",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "bgp",
        "asNumber",
        "ipv4Address",
        "labels",
        "annotations",
        "cidr",
        "peerIP",
        "exportV4",
        "operations",
        "addCommunity",
        "value",
        "values",
        "communities",
        "action",
        "matchOperator",
        "prefixLength",
        "min",
        "max",
        "data",
        "stringData",
        "secretKeyRef",
        "password",
        "key",
        "name",
        "clusterIPs",
        "endpoints",
        "conditions",
        "ready",
        "nodeToNodeMeshEnabled",
        "serviceClusterIPs",
        "prefixAdvertisements",
        "state",
        "deleted",
        "node",
        "projectcalico.org/labels",
        "podCIDRs",
        "items",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_whatsoever_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        snapshot_of_bytes(&bytes);
    }

    #[test]
    fn no_yaml_like_text_makes_reading_panic(text in "[-a-c:{}\\[\\]&*!|>'\"#%,?0-9 \n\t.~<=]{0,200}") {
        read(&text);
    }

    #[test]
    fn no_document_of_a_known_kind_makes_decoding_panic_and_problems_name_it(
        kind in 0usize..11, metadata in any_value(), spec in any_value(), status in any_value(), data in any_value(),
    ) {
        let kinds = ["Node", "BGPConfiguration", "ClusterInformation", "IPPool", "BlockAffinity", "BGPPeer", "BGPFilter",
            "FelixConfiguration", "Secret", "Service", "EndpointSlice"];
        let api_version = match kind { 0..=7 => "projectcalico.org/v3", 10 => "discovery.k8s.io/v1", _ => "v1" };
        let mut metadata = metadata;
        if let Some(map) = metadata.as_object_mut() {
            map.insert("name".into(), "x".into());
        }
        let document = serde_json::json!({"apiVersion": api_version, "kind": kinds[kind], "metadata": metadata, "spec": spec,
            "status": status, "data": data, "endpoints": data});
        let (found, problems) = decode(&document, "here", Reading::default(), &|_| None);
        prop_assert_eq!(found.len() + problems.len(), 1);
        for problem in found.iter().flat_map(|decoded| &decoded.problems) {
            prop_assert!(problem.resource.starts_with(kinds[kind]) && !problem.field.is_empty());
        }
    }

    #[test]
    fn a_document_reads_the_same_as_yaml_and_as_json(spec in any_value()) {
        // Text that YAML would take for something else is quoted by JSON, and JSON is YAML.
        let document = serde_json::json!({"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration",
            "metadata": {"name": "default"}, "spec": spec});
        let json = read(&document.to_string());
        let yaml = read(&format!("---\n- {}", document));
        prop_assert_eq!(json.bgp_configurations, yaml.bgp_configurations);
    }
}
