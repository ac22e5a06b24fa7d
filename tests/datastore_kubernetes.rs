//! The Kubernetes API as the datastore, against a server that does as it is told; a real one is in the labs.
#![cfg(feature = "kube")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the test is the shell here")]

mod datastore_fixtures;
mod kube_api;

use std::sync::Arc;
use std::time::Duration;

use calico_bgpd::datastore::files::snapshot_of_texts;
use calico_bgpd::datastore::settings::{Backend, DatastoreSettings, KubernetesSettings};
use calico_bgpd::datastore::{SourceReceiver, SourceState, channel, read_once, run};
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;
use calico_bgpd::model::{Kind, NamespacedName};
use datastore_fixtures::{Dump, texts_of};
use kube_api::{Answer, KubeApi, PLURALS, Verb, recorded_items};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Long enough for a slow machine; nothing waits for it where all is well.
const DEADLINE: Duration = Duration::from_secs(60);
const CALICO: &str = "/apis/crd.projectcalico.org/v1";

fn settings(url: &str) -> DatastoreSettings {
    let url = url.to_owned();
    let get = move |name: &str| (name == "K8S_API_ENDPOINT").then(|| url.clone());
    DatastoreSettings::from_env(get).unwrap()
}

fn settings_with(url: &str, change: impl FnOnce(&mut KubernetesSettings)) -> DatastoreSettings {
    let mut settings = settings(url);
    let Backend::Kubernetes(kubernetes) = &mut settings.backend else { unreachable!() };
    change(kubernetes);
    settings
}

/// A source that runs until it is dropped.
struct Following {
    receiver: SourceReceiver,
    stop: CancellationToken,
}

impl Following {
    fn start(settings: DatastoreSettings, node: &'static str) -> Following {
        let (out, receiver) = channel();
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move { run(settings, node, out, token).await });
        Following { receiver, stop }
    }

    /// One that knows the whole cluster and is told of all its changes.
    async fn in_sync(api: &KubeApi) -> Following {
        Self::in_sync_with(api, settings(&api.url)).await
    }

    async fn in_sync_with(api: &KubeApi, settings: DatastoreSettings) -> Following {
        let mut source = Following::start(settings, "node-a");
        source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
        source.every_kind_in_sync().await;
        until("every watch", || PLURALS.iter().all(|plural| api.watchers(plural) > 0)).await;
        source
    }

    async fn every_kind_in_sync(&mut self) {
        for kind in calico_bgpd::datastore::kubernetes::kinds(false) {
            self.kind(kind, "in sync").await;
        }
    }

    async fn snapshot(&mut self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waits = self.receiver.snapshots.wait_for(|held| held.as_deref().is_some_and(&wanted));
        let found = tokio::time::timeout(DEADLINE, waits).await.map(|found| found.unwrap().clone().unwrap());
        found.unwrap_or_else(|_| {
            panic!("{what} is not reached; last: {:#?}", self.receiver.snapshots.borrow());
        })
    }

    async fn state(&mut self, wanted: SourceState) {
        let waits = self.receiver.status.wait_for(|status| status.state == wanted);
        let done = tokio::time::timeout(DEADLINE, waits).await.is_ok();
        assert!(done, "{wanted:?} is not reached");
    }

    async fn kind(&mut self, kind: Kind, state: &str) {
        let waits = self
            .receiver
            .status
            .wait_for(|status| status.kinds.iter().any(|(known, now)| *known == kind && now.name() == state));
        let done = tokio::time::timeout(DEADLINE, waits).await.is_ok();
        assert!(done, "{kind:?} is not {state}: {:?}", self.receiver.status.borrow());
    }

    fn now(&self) -> Option<Arc<Snapshot>> {
        self.receiver.snapshots.borrow().clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits for a condition outside of the source.
async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let waits = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waits).await.is_ok(), "{what} does not come about");
}

/// Lets so much time pass at once, but for what is under way.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn peer(name: &str, secret: Option<&str>) -> Value {
    let mut spec = json!({"peerIP": "10.192.0.77", "asNumber": 64599});
    if let Some(secret) = secret {
        spec["password"] = json!({"secretKeyRef": {"name": secret, "key": "k"}});
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

fn secret_named(name: &str) -> NamespacedName {
    NamespacedName { namespace: "kube-system".into(), name: name.into() }
}

/// The recorded items as one text of documents.
fn texts(items: &[Value]) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}

#[tokio::test]
async fn the_same_cluster_gives_the_same_snapshot_from_the_api_and_from_files() {
    for cluster in ["three-nodes", "three-nodes-v3"] {
        let api = KubeApi::with(cluster).await;
        let mut groups: Vec<(&str, &[&str])> = vec![("discovery.k8s.io/v1", &["endpointslices"])];
        let calico = [
            "bgpconfigurations",
            "bgpfilters",
            "bgppeers",
            "blockaffinities",
            "clusterinformations",
            "felixconfigurations",
            "ippools",
        ];
        if cluster == "three-nodes-v3" {
            groups.push(("projectcalico.org/v3", &calico));
            api.groups(&groups);
        }
        let items = recorded_items(cluster, "list");
        for node in ["node-a", "node-b", "node-c"] {
            let from_api = read_once(&settings(&api.url), node).await.unwrap();
            let from_files = snapshot_of_texts(node, Reading::default(), &[("all.json", &texts(&items))]);
            assert_eq!(from_api, from_files, "{cluster} {node}");
            assert!(from_api.problems.is_empty(), "{:?}", from_api.problems);
            assert!(!from_api.blocks.is_empty() && !from_api.secrets.is_empty(), "{cluster} {node}");
            // etcd has no Services and Secrets, and its Nodes have neither the labels nor the ranges of Kubernetes.
            let etcd = texts_of(&Dump::read("three-nodes/dump.json"));
            let from_etcd = snapshot_of_texts(node, Reading::default(), &[("all.json", &etcd)]);
            assert_eq!(from_api.peers, from_etcd.peers, "{cluster} {node}");
            assert_eq!(from_api.pools, from_etcd.pools, "{cluster} {node}");
            assert_eq!(from_api.filters, from_etcd.filters, "{cluster} {node}");
            assert_eq!(from_api.bgp_configurations, from_etcd.bgp_configurations, "{cluster} {node}");
            assert_eq!(
                from_api.felix_configurations["default"], from_etcd.felix_configurations["default"],
                "{cluster}"
            );
            assert_eq!(from_api.cluster_information, from_etcd.cluster_information, "{cluster} {node}");
            assert_eq!(from_api.blocks, from_etcd.blocks, "{cluster} {node}");
            for (name, node) in &from_etcd.nodes {
                let mut same = (*from_api.nodes[name]).clone();
                same.labels.clone_from(&node.labels);
                same.pod_cidrs.clone_from(&node.pod_cidrs);
                assert_eq!(same, **node, "{cluster}");
            }
        }
    }
}

#[tokio::test]
async fn recorded_changes_lead_where_the_second_lists_start() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    let changes = std::fs::read_to_string("fixtures/datastore/three-nodes/kubernetes/watch.jsonl").unwrap();
    for line in changes.lines() {
        let change: Value = serde_json::from_str(line).unwrap();
        api.line(change["resource"].as_str().unwrap(), &change["event"]);
    }
    let after = texts(&recorded_items("three-nodes", "list-after"));
    let wanted = snapshot_of_texts("node-a", Reading::default(), &[("all.json", &after)]);
    source.snapshot("the second lists", |snapshot| *snapshot == wanted).await;
}

#[tokio::test]
async fn a_list_of_several_pages_is_complete_and_one_that_expires_between_pages_begins_again() {
    let api = KubeApi::with("three-nodes").await;
    api.pages_of(1);
    let source = Following::in_sync(&api).await;
    let whole = source.now().unwrap();
    let first = texts(&recorded_items("three-nodes", "list"));
    assert_eq!(*whole, snapshot_of_texts("node-a", Reading::default(), &[("all.json", &first)]));
    drop(source);

    // The second page of the first list is refused once: nothing of the first page may be left over.
    let api = KubeApi::with("three-nodes").await;
    api.pages_of(2);
    api.fault("nodes", Verb::List, 1, Answer::Status(410, "Expired"));
    let source = Following::in_sync(&api).await;
    assert_eq!(source.now().unwrap().nodes, whole.nodes);
    assert_eq!(
        api.count("/api/v1/nodes", "resourceVersion=0"),
        1,
        "then the latest is asked for: {:?}",
        api.asked()
    );
}

#[tokio::test]
async fn an_expired_watch_is_answered_by_a_list_that_takes_away_only_what_is_gone() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    let before = source.now().unwrap();
    api.compact();
    api.delete_unseen("blockaffinities", "/node-a-10-244-174-128-26");
    // Also the first list after it is expired.
    api.fault("blockaffinities", Verb::List, 1, Answer::Status(410, "Expired"));
    api.close("blockaffinities");
    let after = source
        .snapshot("the block is gone", |snapshot| snapshot.blocks.len() + 1 == before.blocks.len())
        .await;
    assert!(after.peers.is(&before.peers) && after.nodes.is(&before.nodes));
    api.put("bgppeers", peer("later", None));
    source.snapshot("the watch goes on", |snapshot| snapshot.peers.contains_key("later")).await;
}

#[tokio::test]
async fn a_watch_that_is_silent_is_given_up_and_what_was_missed_is_told() {
    let api = KubeApi::with("three-nodes").await;
    let settings = settings_with(&api.url, |kubernetes| kubernetes.silence = Duration::from_millis(300));
    let mut source = Following::in_sync_with(&api, settings).await;
    api.silence("bgppeers");
    api.put("bgppeers", peer("missed", None));
    source.snapshot("what was missed", |snapshot| snapshot.peers.contains_key("missed")).await;
    assert_eq!(api.count(&format!("{CALICO}/bgppeers"), "limit="), 1, "no new list is needed for that");
}

#[tokio::test]
async fn replays_and_heartbeats_change_nothing() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    let old = api.get("bgppeers", "/tor-r1");
    api.edit("bgppeers", "/tor-r1", |peer| peer["spec"]["asNumber"] = json!(65001));
    let new = source
        .snapshot("the change", |snapshot| snapshot.peers["tor-r1"].asn.map(|asn| asn.0) == Some(65001))
        .await;
    let replayed = api.get("bgppeers", "/tor-r1");
    api.line("bgppeers", &json!({"type": "MODIFIED", "object": replayed}));
    for beat in 0..50 {
        api.edit("nodes", "/node-b", |node| {
            node["status"]["conditions"] = json!([{"lastHeartbeatTime": beat}])
        });
    }
    // What comes after them was told when they were done with.
    api.put("bgppeers", peer("mark", None));
    api.edit("nodes", "/node-b", |node| node["metadata"]["labels"]["mark"] = json!("x"));
    let after = source
        .snapshot("the marks", |snapshot| {
            snapshot.peers.contains_key("mark") && snapshot.nodes["node-b"].labels.contains_key("mark")
        })
        .await;
    assert_eq!(after.peers["tor-r1"], new.peers["tor-r1"]);
    // One from before the watch began is of another history: all is listed.
    api.line("bgppeers", &json!({"type": "MODIFIED", "object": old}));
    until("a list", || api.count(&format!("{CALICO}/bgppeers"), "limit=") == 2).await;
}

#[tokio::test]
async fn a_server_whose_history_goes_back_is_listed_again() {
    let api = KubeApi::with("three-nodes").await;
    let backup = api.revision();
    for number in 0..5 {
        api.put("bgppeers", peer(&format!("lost-{number}"), None));
    }
    let mut source = Following::in_sync(&api).await;
    source.snapshot("all peers", |snapshot| snapshot.peers.contains_key("lost-4")).await;
    for number in 0..5 {
        api.delete_unseen("bgppeers", &format!("/lost-{number}"));
    }
    api.rewind(backup);
    api.line(
        "bgppeers",
        &json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": backup.to_string()}}}),
    );
    source.snapshot("the restored peers", |snapshot| !snapshot.peers.contains_key("lost-0")).await;
}

#[tokio::test]
async fn the_server_away_leaves_the_snapshot_in_force_and_is_tried_again() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    let before = source.now().unwrap();
    for kind in PLURALS {
        api.fault(kind, Verb::Watch, u32::MAX, Answer::Hangup);
        api.fault(kind, Verb::List, u32::MAX, Answer::Hangup);
        api.close(kind);
    }
    source.state(SourceState::Retrying).await;
    assert_eq!(source.now().unwrap(), before);
    for (kind, state) in &source.receiver.status.borrow().kinds {
        assert_eq!(state.name(), "stale", "{kind:?}");
    }
    api.put("bgppeers", peer("later", None));
    for kind in PLURALS {
        api.mend(kind);
    }
    source.snapshot("what was missed", |snapshot| snapshot.peers.contains_key("later")).await;
    source.every_kind_in_sync().await;
    source.state(SourceState::Connected).await;
}

#[tokio::test]
async fn one_kind_that_fails_leaves_the_others_alone() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    api.fault("ippools", Verb::Watch, u32::MAX, Answer::Status(500, "InternalError"));
    api.close("ippools");
    source.kind(Kind::IpPool, "stale").await;
    api.put("bgppeers", peer("later", None));
    source.snapshot("the others go on", |snapshot| snapshot.peers.contains_key("later")).await;
    assert_eq!(source.receiver.status.borrow().state, SourceState::Connected);
    api.mend("ippools");
    source.kind(Kind::IpPool, "in sync").await;
}

#[tokio::test]
async fn a_kind_that_is_refused_keeps_what_was_known_and_is_asked_for_again_each_minute() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    let before = source.now().unwrap();
    api.fault("ippools", Verb::List, u32::MAX, Answer::Status(403, "Forbidden"));
    api.fault("ippools", Verb::Watch, u32::MAX, Answer::Status(403, "Forbidden"));
    api.close("ippools");
    source.kind(Kind::IpPool, "refused").await;
    let told = source.snapshot("it is said", |snapshot| !snapshot.problems.is_empty()).await;
    assert_eq!(told.pools, before.pools, "what was known stays");
    let asked = api.count(&format!("{CALICO}/ippools"), "");
    pass(Duration::from_secs(40)).await;
    api.put("bgppeers", peer("later", None));
    source.snapshot("the others go on", |snapshot| snapshot.peers.contains_key("later")).await;
    assert_eq!(api.count(&format!("{CALICO}/ippools"), ""), asked, "not before a minute is over");
    api.mend("ippools");
    pass(Duration::from_secs(30)).await;
    source.kind(Kind::IpPool, "in sync").await;
    source.snapshot("nothing is wrong any more", |snapshot| snapshot.problems.is_empty()).await;
}

#[tokio::test]
async fn nothing_is_published_while_a_kind_that_nothing_goes_without_is_refused() {
    let api = KubeApi::with("three-nodes").await;
    api.fault("ippools", Verb::List, u32::MAX, Answer::Status(403, "Forbidden"));
    let mut source = Following::start(settings(&api.url), "node-a");
    source.kind(Kind::IpPool, "refused").await;
    source.kind(Kind::Secret, "in sync").await;
    for kind in [Kind::Node, Kind::BgpPeer, Kind::BgpConfiguration, Kind::BlockAffinity, Kind::BgpFilter] {
        source.kind(kind, "in sync").await;
    }
    assert!(source.now().is_none(), "refused is not empty");
    let error = read_once(&settings(&api.url), "node-a").await.unwrap_err();
    assert!(error.contains("IPPool may not be read"), "{error}");
    api.mend("ippools");
    pass(Duration::from_secs(70)).await;
    source.snapshot("the cluster", |snapshot| !snapshot.pools.is_empty()).await;
}

#[tokio::test]
async fn kinds_newer_than_the_cluster_are_none_and_are_found_when_it_has_them() {
    let api = KubeApi::with("three-nodes").await;
    let old = ["bgpconfigurations", "bgppeers", "blockaffinities", "clusterinformations", "ippools"];
    api.groups(&[("crd.projectcalico.org/v1", &old), ("discovery.k8s.io/v1", &["endpointslices"])]);
    // The old role does not know it either.
    api.fault("bgpfilters", Verb::List, u32::MAX, Answer::Status(403, "Forbidden"));
    let mut source = Following::start(settings(&api.url), "node-a");
    let snapshot = source.snapshot("the cluster", |snapshot| snapshot.nodes.len() == 3).await;
    assert!(snapshot.filters.is_empty() && snapshot.felix_configurations.is_empty());
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    source.every_kind_in_sync().await;
    api.mend("bgpfilters");
    let new = [&old[..], &["bgpfilters", "felixconfigurations"]].concat();
    api.groups(&[("crd.projectcalico.org/v1", &new), ("discovery.k8s.io/v1", &["endpointslices"])]);
    pass(Duration::from_secs(70)).await;
    source
        .snapshot("the new kinds", |snapshot| {
            !snapshot.filters.is_empty() && !snapshot.felix_configurations.is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_server_that_has_forgotten_its_kinds_is_not_believed_at_once() {
    let api = KubeApi::with("three-nodes").await;
    let mut source = Following::in_sync(&api).await;
    let before = source.now().unwrap();
    api.groups(&[("discovery.k8s.io/v1", &["endpointslices"])]);
    for kind in ["bgppeers", "ippools", "bgpfilters"] {
        api.close(kind);
        api.fault(kind, Verb::Watch, u32::MAX, Answer::Text(404, "404 page not found"));
    }
    source.kind(Kind::BgpPeer, "stale").await;
    source.kind(Kind::IpPool, "stale").await;
    source.kind(Kind::BgpFilter, "stale").await;
    until("it is asked again", || api.count(&format!("{CALICO}/bgppeers"), "limit=") > 2).await;
    assert_eq!(source.now().unwrap(), before);
}

#[tokio::test]
async fn only_secrets_that_are_named_are_read_and_a_new_name_waits_for_its_secret() {
    let api = KubeApi::with("three-nodes").await;
    let secret = |name: &str, text: &str| json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": {"k": text}});
    api.put("secrets", secret("other", "b3RoZXI="));
    api.put("secrets", secret("fresh", "ZnJlc2g="));
    let mut source = Following::in_sync(&api).await;
    let names = |snapshot: &Snapshot| -> Vec<String> {
        snapshot.secrets.keys().map(|name| name.name.clone()).collect()
    };
    assert_eq!(names(&source.now().unwrap()), ["bgp-secrets"]);
    assert_eq!(api.count("/api/v1/secrets", ""), 0, "no list of all");

    let mut snapshots = source.receiver.snapshots.clone();
    snapshots.mark_unchanged();
    let watching = tokio::spawn(async move {
        // Each snapshot that has the peer has its secret as well.
        loop {
            snapshots.changed().await.unwrap();
            let snapshot = snapshots.borrow_and_update().clone().unwrap();
            if snapshot.peers.contains_key("signed") {
                return snapshot.secrets.contains_key(&secret_named("fresh"));
            }
        }
    });
    api.put("bgppeers", peer("signed", Some("fresh")));
    assert!(watching.await.unwrap(), "a session would have been unsigned for a moment");
    api.put("secrets", secret("fresh", "YWdhaW4="));
    source
        .snapshot("the new password", |snapshot| {
            snapshot.secrets[&secret_named("fresh")].data["k"].expose() == b"again"
        })
        .await;
    api.delete("bgppeers", "/signed");
    source
        .snapshot("it is forgotten", |snapshot| !snapshot.secrets.contains_key(&secret_named("fresh")))
        .await;
    until("its watch is ended", || api.watchers("secrets") == 1).await;
}

#[tokio::test]
async fn secrets_that_may_not_be_read_cost_nothing_but_themselves() {
    let api = KubeApi::with("three-nodes").await;
    api.fault("secrets", Verb::List, u32::MAX, Answer::Status(403, "Forbidden"));
    let mut source = Following::start(settings(&api.url), "node-a");
    let snapshot = source.snapshot("the cluster", |snapshot| snapshot.nodes.len() == 3).await;
    assert!(snapshot.secrets.is_empty());
    source.kind(Kind::Secret, "refused").await;
    source
        .snapshot("it is said", |snapshot| {
            snapshot.problems.iter().any(|problem| problem.to_string().contains("bgp-secrets"))
        })
        .await;
    api.mend("secrets");
    pass(Duration::from_secs(70)).await;
    source.snapshot("the password", |snapshot| snapshot.secrets.len() == 1).await;
    source.kind(Kind::Secret, "in sync").await;
    source.snapshot("nothing is wrong any more", |snapshot| snapshot.problems.is_empty()).await;
}

#[tokio::test]
async fn a_cluster_without_endpoint_slices_is_served_by_endpoints_until_it_has_them() {
    for refusal in ["not served", "forbidden"] {
        let api = KubeApi::with("three-nodes").await;
        let calico =
            ["bgpconfigurations", "bgpfilters", "bgppeers", "blockaffinities", "clusterinformations"];
        let calico = [&calico[..], &["felixconfigurations", "ippools"]].concat();
        let discovery = ("discovery.k8s.io/v1", &["endpointslices"][..]);
        if refusal == "not served" {
            api.groups(&[("crd.projectcalico.org/v1", &calico)]);
        } else {
            api.fault("endpointslices", Verb::List, u32::MAX, Answer::Status(403, "Forbidden"));
        }
        let address = |ip: &str, node: &str| json!({"ip": ip, "nodeName": node});
        let endpoints = |ready: Value| json!({"metadata": {"name": "lb", "namespace": "default"}, "subsets": [{"addresses": ready}]});
        api.put("endpoints", endpoints(json!([address("10.244.1.5", "node-a")])));
        let mut source = Following::start(settings(&api.url), "node-a");
        let nodes = |snapshot: &Snapshot| -> Vec<String> {
            let slices =
                snapshot.endpoint_slices.values().filter(|slice| slice.service.as_deref() == Some("lb"));
            slices.flat_map(|slice| &slice.endpoints).filter_map(|endpoint| endpoint.node.clone()).collect()
        };
        let first = source.snapshot("the cluster", |snapshot| snapshot.nodes.len() == 3).await;
        assert_eq!(nodes(&first), ["node-a"], "{refusal}");
        until("its watch", || api.watchers("endpoints") == 1).await;
        let both = json!([address("10.244.1.5", "node-a"), address("10.244.2.5", "node-b")]);
        api.put("endpoints", endpoints(both));
        source.snapshot("the change", |snapshot| nodes(snapshot) == ["node-a", "node-b"]).await;

        // Now there are slices: looked for where a watch ends, and taken as a difference.
        api.groups(&[("crd.projectcalico.org/v1", &calico), discovery]);
        api.mend("endpointslices");
        let mut snapshots = source.receiver.snapshots.clone();
        api.close("endpoints");
        let empty = loop {
            let snapshot = snapshots.borrow_and_update().clone().unwrap();
            if snapshot.endpoint_slices.values().all(|slice| !slice.name.name.ends_with("-ipv4")) {
                break snapshot.endpoint_slices.is_empty();
            }
            snapshots.changed().await.unwrap();
        };
        assert!(!empty, "{refusal}: no moment without endpoints");
    }
}

#[tokio::test]
async fn a_token_that_is_rotated_is_read_again_when_the_old_one_is_refused() {
    let api = KubeApi::with("three-nodes").await;
    api.token("first");
    let account = tempfile::tempdir().unwrap();
    std::fs::write(account.path().join("token"), "first").unwrap();
    let pod = settings_with(&api.url, |kubernetes| kubernetes.service_account = account.path().to_owned());
    let mut source = Following::in_sync_with(&api, pod).await;
    api.token("second");
    api.close("bgppeers");
    source.kind(Kind::BgpPeer, "stale").await;
    std::fs::write(account.path().join("token"), "second").unwrap();
    api.put("bgppeers", peer("later", None));
    source.snapshot("the change", |snapshot| snapshot.peers.contains_key("later")).await;
}

#[tokio::test]
async fn a_kubeconfig_is_merged_and_its_context_chosen() {
    let api = KubeApi::with("three-nodes").await;
    api.token("hush");
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let cluster = json!({"name": "c", "cluster": {"server": api.url}});
    let user = json!({"name": "u", "user": {"token": "hush"}});
    let context = |name: &str, user: &str| json!({"name": name, "context": {"cluster": "c", "user": user}});
    std::fs::write(&one, json!({"clusters": [cluster], "current-context": "wrong"}).to_string()).unwrap();
    let second = json!({"users": [user], "contexts": [context("wrong", "nobody"), context("right", "u")]});
    std::fs::write(&two, second.to_string()).unwrap();
    let list = format!("{}:/does/not/exist:{}", one.display(), two.display());
    let with = |context: &str| {
        let (list, context) = (list.clone(), context.to_owned());
        DatastoreSettings::from_env(move |name| match name {
            "KUBECONFIG" => Some(list.clone()),
            "K8S_CURRENT_CONTEXT" => Some(context.clone()),
            _ => None,
        })
        .unwrap()
    };
    let error = read_once(&with(""), "node-a").await.unwrap_err();
    assert!(error.contains("HTTP 401"), "{error}");
    assert_eq!(read_once(&with("right"), "node-a").await.unwrap().nodes.len(), 3);
    let error = read_once(&with("none"), "node-a").await.unwrap_err();
    assert!(error.contains("none") && !error.contains('\n'), "{error}");
}
