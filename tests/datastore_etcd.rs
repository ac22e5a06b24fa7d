//! The etcd datastore against a real etcd: what Calico's own programs wrote, and what can go wrong.
//!
//! Needs the program `etcd` (Debian: `etcd-server`) in `PATH`, or its path in `ETCD_BINARY`.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the test is the shell here")]

mod datastore_fixtures;
#[cfg(feature = "kube")]
#[allow(dead_code, reason = "each test program uses a part of this module")]
mod kube_api;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use calico_bgpd::datastore::etcd::Progress;
use calico_bgpd::datastore::feed::FeedSettings;
use calico_bgpd::datastore::settings::{Backend, DatastoreSettings, EtcdSettings, Liveness};
use calico_bgpd::datastore::tls::TlsSettings;
use calico_bgpd::datastore::{SourceReceiver, SourceState, channel, read_once, run};
use calico_bgpd::model::AffinityState;
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;
use datastore_fixtures::{Dump, NODES, cluster_files, fixture, texts_of};
use etcd_client::{Client, CompactionOptions, Permission};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Long enough for a slow machine; nothing waits for it where all is well.
const DEADLINE: Duration = Duration::from_secs(60);

/// Shorter than the daemon's own, for the tests of a dead connection.
const LIVENESS: Liveness =
    Liveness { ask_after: Duration::from_millis(200), answer_within: Duration::from_secs(5) };

struct Etcd {
    child: Child,
    dir: tempfile::TempDir,
    client: u16,
    peer: u16,
    token: u32,
}

impl Etcd {
    async fn start() -> Etcd {
        // A port that was free may be taken when etcd comes to it: then it ends, and another is tried.
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let (client, peer) = (free_port(), free_port());
            let child = Self::spawn(&dir, client, peer, 0);
            let mut etcd = Etcd { child, dir, client, peer, token: 0 };
            if etcd.ready().await {
                return etcd;
            }
        }
        panic!("etcd ends as soon as it is started");
    }

    fn spawn(dir: &tempfile::TempDir, client: u16, peer: u16, token: u32) -> Child {
        let program = std::env::var("ETCD_BINARY").unwrap_or_else(|_| "etcd".to_owned());
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        Command::new(&program)
            .arg("--data-dir")
            .arg(dir.path().join(token.to_string()))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--initial-cluster-token", &token.to_string()])
            // Our connections of tests are asked for a sign of life more often than etcd would stand.
            .args(["--grpc-keepalive-min-time", "10ms"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{program} cannot be started ({error}): install etcd-server or set ETCD_BINARY")
            })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    async fn connect(&self) -> Client {
        Client::connect([self.url()], None).await.unwrap()
    }

    /// Whether it answers; `false` where it ended.
    async fn ready(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let answer = async { self.connect().await.get("x", None).await };
            match tokio::time::timeout(Duration::from_secs(2), answer).await {
                Ok(Ok(_)) => return true,
                last => assert!(tokio::time::Instant::now() < deadline, "etcd does not answer: {last:?}"),
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    async fn restart(&mut self) {
        self.child = Self::spawn(&self.dir, self.client, self.peer, self.token);
        assert!(self.ready().await, "etcd ends when it is started again");
    }

    /// What is in it now, as `etcdctl snapshot save` would take it.
    async fn backup(&self, client: &mut Client) -> std::path::PathBuf {
        let mut stream = client.maintenance_client().snapshot().await.unwrap();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            bytes.extend_from_slice(part.blob());
        }
        let path = self.dir.path().join("backup");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Starts with what a backup has; to its id it is the same cluster.
    async fn restart_restored(&mut self, backup: &std::path::Path) {
        let data = self.dir.path().join(self.token.to_string());
        std::fs::remove_dir_all(&data).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let program = std::env::var("ETCD_BINARY").unwrap_or_else(|_| "etcd".to_owned());
        // etcdctl, or etcdutl of later releases, stands beside etcd; one of another release will do.
        let beside = std::path::Path::new(&program).with_file_name("etcdutl");
        let tool = if beside.exists() { beside } else { "etcdctl".into() };
        let done = Command::new(&tool)
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(backup)
            .arg("--data-dir")
            .arg(&data)
            .args(["--name", "default", "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--initial-cluster-token", &self.token.to_string()])
            .output()
            .await
            .unwrap_or_else(|error| {
                panic!("{} cannot be run ({error}): install etcd-client", tool.display())
            });
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.restart().await;
    }

    /// Starts with nothing, as another cluster.
    async fn restart_empty(&mut self) {
        self.token += 1;
        self.restart().await;
    }

    /// Starts with nothing; to its id it is the same cluster.
    async fn restart_wiped(&mut self) {
        std::fs::remove_dir_all(self.dir.path().join(self.token.to_string())).unwrap();
        self.restart().await;
    }

    async fn load(&self, dump: &Dump) {
        let mut client = self.connect().await;
        for (key, value) in dump.entries() {
            client.put(key, value, None).await.unwrap();
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn settings(url: String) -> DatastoreSettings {
    let etcd = EtcdSettings {
        endpoints: vec![url],
        user: None,
        tls: TlsSettings::default(),
        liveness: LIVENESS,
        kubernetes: None,
    };
    DatastoreSettings { backend: Backend::Etcd(etcd), use_pod_cidr: false, feed: FeedSettings::default() }
}

/// A source that runs until it is dropped.
struct Following {
    receiver: SourceReceiver,
    stop: CancellationToken,
}

impl Following {
    fn start(url: String, node: &'static str) -> Following {
        Self::start_with(settings(url), node)
    }

    fn start_with(settings: DatastoreSettings, node: &'static str) -> Following {
        let (out, receiver) = channel();
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move { run(settings, node, out, token).await });
        Following { receiver, stop }
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
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// How the wire between the source and etcd is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Whole,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Everything is swallowed, nothing closed; new connections work.
    Stalled,
}

/// A wire between the source and etcd.
struct Wire {
    port: u16,
    state: watch::Sender<State>,
}

impl Wire {
    async fn to(etcd: &Etcd) -> Wire {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, etcd.client));
        let (sender, state) = watch::channel(State::Whole);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.clone();
                if *state.borrow_and_update() == State::Cut {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.changed() => {}
                    }
                    if *state.borrow() == State::Stalled {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Wire { port, state: sender }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

const NODE_A: &str = "/calico/resources/v3/projectcalico.org/nodes/node-a";

#[tokio::test]
async fn the_same_cluster_gives_the_same_snapshot_from_files_and_from_etcd() {
    for (cluster, nodes) in NODES {
        let etcd = Etcd::start().await;
        let dump = Dump::read(&format!("{cluster}/dump.json"));
        etcd.load(&dump).await;
        for node in *nodes {
            let from_etcd = read_once(&settings(etcd.url()), node).await.unwrap();
            let files = cluster_files(cluster, &dump);
            let from_files = read_once(
                &DatastoreSettings {
                    backend: Backend::File { path: files.path().to_owned() },
                    use_pod_cidr: false,
                    feed: FeedSettings::default(),
                },
                node,
            )
            .await
            .unwrap();
            assert_eq!(from_files, from_etcd, "{cluster} {node}");
            assert!(from_etcd.problems.is_empty() && from_etcd.nodes.contains_key(*node), "{cluster} {node}");
        }
    }
}

#[cfg(feature = "kube")]
fn settings_beside(etcd: &Etcd, api: &str) -> DatastoreSettings {
    let api = api.to_owned();
    let beside = DatastoreSettings::from_env(move |name| (name == "K8S_API_ENDPOINT").then(|| api.clone()));
    let Backend::Kubernetes(beside) = beside.unwrap().backend else { unreachable!() };
    let mut settings = settings(etcd.url());
    let Backend::Etcd(EtcdSettings { kubernetes, .. }) = &mut settings.backend else { unreachable!() };
    *kubernetes = Some(beside);
    settings
}

#[cfg(feature = "kube")]
#[tokio::test]
async fn beside_etcd_services_come_from_kubernetes_whose_loss_says_nothing_of_etcd() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let api = kube_api::KubeApi::with("three-nodes").await;
    let mut source = Following::start_with(settings_beside(&etcd, &api.url), "node-a");
    let both = |snapshot: &Snapshot| snapshot.nodes.len() == 3 && !snapshot.services.is_empty();
    let before = source.snapshot("what both have", both).await;
    assert!(!before.endpoint_slices.is_empty());
    assert_eq!(api.count("/api/v1/nodes", ""), 0, "what the datastore has is not asked for twice");
    for plural in ["services", "endpointslices"] {
        for verb in [kube_api::Verb::List, kube_api::Verb::Watch] {
            api.fault(plural, verb, u32::MAX, kube_api::Answer::Hangup);
        }
        api.close(plural);
    }
    let key = "/calico/resources/v3/projectcalico.org/nodes/node-d";
    let node = r#"{"metadata":{"name":"node-d"},"spec":{"bgp":{"ipv4Address":"10.0.0.44/24"}}}"#;
    etcd.connect().await.put(key, node, None).await.unwrap();
    let after = source.snapshot("a change in etcd", |snapshot| snapshot.nodes.len() == 4).await;
    assert_eq!((&after.services, &after.endpoint_slices), (&before.services, &before.endpoint_slices));
    source.state(SourceState::Connected).await;
}

#[cfg(feature = "kube")]
#[tokio::test]
async fn beside_etcd_a_kubernetes_that_was_never_there_is_done_without() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut source = Following::start_with(settings_beside(&etcd, &nobody), "node-a");
    let found = source.snapshot("what etcd has", |snapshot| snapshot.nodes.len() == 3).await;
    let said: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|problem| problem.contains("Service")), "{said:?}");
}

#[tokio::test]
async fn recorded_changes_lead_where_the_second_dump_starts() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut following: Vec<(Following, Snapshot)> = Vec::new();
    let after = Dump::read("three-nodes/dump-after.json");
    for node in ["node-a", "node-b", "node-c"] {
        let mut source = Following::start(etcd.url(), node);
        source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
        let texts = texts_of(&after);
        let wanted = calico_bgpd::datastore::files::snapshot_of_texts(
            node,
            Reading::default(),
            &[("all.json", texts.as_str())],
        );
        following.push((source, wanted));
    }
    let mut client = etcd.connect().await;
    let mut events = 0;
    for line in fixture("three-nodes/changes.jsonl").lines().skip(1) {
        let change: serde_json::Value = serde_json::from_str(line).unwrap();
        for event in change["events"].as_array().unwrap() {
            let key = event["key"].as_str().unwrap();
            match event["type"].as_str().unwrap() {
                "PUT" => drop(client.put(key, event["value"].as_str().unwrap(), None).await.unwrap()),
                _ => drop(client.delete(key, None).await.unwrap()),
            }
            events += 1;
        }
    }
    assert!(events > 20);
    for (source, wanted) in &mut following {
        assert!(wanted.problems.is_empty());
        source.snapshot("the second dump", |snapshot| snapshot == wanted).await;
    }
}

#[tokio::test]
async fn a_compaction_while_the_watch_is_cut_loses_nothing_and_leaves_no_phantom() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let wire = Wire::to(&etcd).await;
    let mut source = Following::start(wire.url(), "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;

    wire.state.send(State::Cut).unwrap();
    source.state(SourceState::Retrying).await;
    let mut client = etcd.connect().await;
    client.delete("/calico/resources/v3/projectcalico.org/nodes/node-b", None).await.unwrap();
    client.delete("/calico/ipam/v2/host/node-a/ipv4/block/10.244.9.0-26", None).await.unwrap();
    let block = "/calico/ipam/v2/host/node-a/ipv4/block/10.244.77.0-26";
    client.put(block, r#"{"state":"confirmed","deleted":false}"#, None).await.unwrap();
    // Came and went while nobody looked.
    client.put("/calico/ipam/v2/host/node-a/ipv4/block/10.244.78.0-26", "{}", None).await.unwrap();
    let gone = client.delete("/calico/ipam/v2/host/node-a/ipv4/block/10.244.78.0-26", None).await.unwrap();
    let revision = gone.header().unwrap().revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await.unwrap();
    assert_eq!(
        source.receiver.snapshots.borrow().as_ref().unwrap().nodes.len(),
        3,
        "an outage changes nothing"
    );

    wire.state.send(State::Whole).unwrap();
    let wanted = read_once(&settings(etcd.url()), "node-a").await.unwrap();
    assert_eq!(wanted.nodes.len(), 2);
    source.snapshot("the list after the compaction", |snapshot| *snapshot == wanted).await;
    source.state(SourceState::Connected).await;

    client.put(block, r#"{"state":"pendingDeletion","deleted":false}"#, None).await.unwrap();
    let block = "10.244.77.0/26".parse().unwrap();
    source
        .snapshot("a change after it", |snapshot| {
            snapshot.blocks.get(&block) == Some(&AffinityState::PendingDeletion)
        })
        .await;
}

#[tokio::test]
async fn changes_made_while_the_watch_is_cut_arrive_without_a_new_list() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let wire = Wire::to(&etcd).await;
    let mut source = Following::start(wire.url(), "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    wire.state.send(State::Cut).unwrap();
    source.state(SourceState::Retrying).await;
    let mut client = etcd.connect().await;
    client.delete("/calico/resources/v3/projectcalico.org/nodes/node-c", None).await.unwrap();
    client.delete("/calico/resources/v3/projectcalico.org/ippools/v6-pool", None).await.unwrap();
    wire.state.send(State::Whole).unwrap();
    source
        .snapshot("both deletions", |snapshot| snapshot.nodes.len() == 2 && snapshot.pools.len() == 2)
        .await;
}

#[tokio::test]
async fn a_connection_that_died_in_silence_is_noticed_and_replaced() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let wire = Wire::to(&etcd).await;
    let mut source = Following::start(wire.url(), "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    wire.state.send(State::Stalled).unwrap();
    let mut client = etcd.connect().await;
    client.delete("/calico/resources/v3/projectcalico.org/nodes/node-c", None).await.unwrap();
    source.snapshot("the change behind the dead connection", |snapshot| snapshot.nodes.len() == 2).await;
}

#[tokio::test]
async fn a_quiet_watch_is_not_taken_for_a_dead_one() {
    let etcd = Etcd::start().await;
    let wire = Wire::to(&etcd).await;
    let mut source = Following::start(wire.url(), "node-a");
    source.state(SourceState::Connected).await;
    let since = source.receiver.status.borrow().since;
    // Longer than a dead one is given.
    tokio::time::sleep(LIVENESS.ask_after + LIVENESS.answer_within + Duration::from_secs(1)).await;
    let status = source.receiver.status.borrow();
    assert_eq!((status.state, status.since, &status.last_error), (SourceState::Connected, since, &None));
}

#[tokio::test]
async fn an_etcd_that_dies_and_returns_leaves_the_snapshot_in_force_meanwhile() {
    let mut etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut source = Following::start(etcd.url(), "node-a");
    let before = source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    etcd.kill().await;
    source.state(SourceState::Retrying).await;
    let status = source.receiver.status.borrow().clone();
    assert!(status.in_sync && status.last_error.unwrap().contains(&etcd.url()));
    assert_eq!(source.receiver.snapshots.borrow().as_ref(), Some(&before));
    etcd.restart().await;
    source.state(SourceState::Connected).await;
    assert_eq!(source.receiver.snapshots.borrow().as_ref(), Some(&before));
    let mut client = etcd.connect().await;
    client.delete("/calico/resources/v3/projectcalico.org/nodes/node-c", None).await.unwrap();
    source.snapshot("a change after the return", |snapshot| snapshot.nodes.len() == 2).await;
}

#[tokio::test]
async fn an_etcd_that_returns_as_another_cluster_is_listed_again() {
    let mut etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut source = Following::start(etcd.url(), "rr-1");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    etcd.kill().await;
    source.state(SourceState::Retrying).await;
    etcd.restart_empty().await;
    etcd.load(&Dump::read("route-reflectors/dump.json")).await;
    let wanted = read_once(&settings(etcd.url()), "rr-1").await.unwrap();
    source.snapshot("the other cluster", |snapshot| *snapshot == wanted).await;
}

#[tokio::test]
async fn an_etcd_that_was_rebuilt_behind_a_cut_is_listed_again_whatever_its_revision_is() {
    let mut etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let wire = Wire::to(&etcd).await;
    let mut source = Following::start(wire.url(), "rr-1");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    wire.state.send(State::Cut).unwrap();
    source.state(SourceState::Retrying).await;
    etcd.kill().await;
    etcd.restart_wiped().await;
    etcd.load(&Dump::read("route-reflectors/dump.json")).await;
    let mut client = etcd.connect().await;
    while client.put("elsewhere", "x", None).await.unwrap().header().unwrap().revision() < 1000 {}
    let wanted = read_once(&settings(etcd.url()), "rr-1").await.unwrap();
    wire.state.send(State::Whole).unwrap();
    source.snapshot("the rebuilt cluster", |snapshot| *snapshot == wanted).await;
}

#[tokio::test]
async fn an_etcd_that_is_down_at_the_start_is_waited_for() {
    let mut etcd = Etcd::start().await;
    etcd.load(&Dump::read("dcos-like/dump.json")).await;
    etcd.kill().await;
    let mut source = Following::start(etcd.url(), "172.16.0.23");
    source.state(SourceState::Retrying).await;
    let status = source.receiver.status.borrow().clone();
    let error = status.last_error.unwrap();
    assert!(error.contains(&etcd.url()) && error.contains("refused"), "{error}");
    assert!(!status.in_sync && source.receiver.snapshots.borrow().is_none());
    let error = read_once(&settings(etcd.url()), "172.16.0.23").await.unwrap_err();
    assert!(error.contains(&etcd.url()), "{error}");
    etcd.restart().await;
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 6).await;
}

#[tokio::test]
async fn an_endpoint_that_is_dead_is_passed_over() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let DatastoreSettings { backend: Backend::Etcd(mut two), .. } = settings(dead) else { unreachable!() };
    two.endpoints.push(etcd.url());
    let two =
        DatastoreSettings { backend: Backend::Etcd(two), use_pod_cidr: false, feed: FeedSettings::default() };
    assert_eq!(read_once(&two, "node-a").await.unwrap().nodes.len(), 3);
    let mut source = Following::start_with(two, "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_does_not_keep_a_single_reading_from_the_next() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let DatastoreSettings { backend: Backend::Etcd(mut two), .. } = settings(url) else { unreachable!() };
    two.endpoints.push(etcd.url());
    two.liveness = Liveness::default();
    let two =
        DatastoreSettings { backend: Backend::Etcd(two), use_pod_cidr: false, feed: FeedSettings::default() };
    // `check` and `intent` give up after ten seconds.
    let read = tokio::time::timeout(Duration::from_secs(9), read_once(&two, "node-a"));
    assert_eq!(read.await.expect("the second endpoint is asked in time").unwrap().nodes.len(), 3);
}

#[tokio::test]
async fn an_endpoint_that_speaks_otherwise_is_asked_whether_it_is_etcd_without_tls() {
    for answer in [&b""[..], b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.0 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut heard = [0; 16];
                let _ = stream.read(&mut heard).await;
                let _ = stream.write_all(answer).await;
            }
        });
        let error = read_once(&settings(url.clone()), "node-a").await.unwrap_err();
        assert!(error.starts_with(&url) && error.ends_with("is it an etcd, and one without TLS?"), "{error}");
    }
    let refused = format!("http://127.0.0.1:{}", free_port());
    let error = read_once(&settings(refused), "node-a").await.unwrap_err();
    assert!(!error.contains("TLS"), "{error}");
}

#[tokio::test]
async fn an_etcd_that_asks_for_no_password_is_followed_with_one_as_well() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let DatastoreSettings { backend: Backend::Etcd(mut with), .. } = settings(etcd.url()) else {
        unreachable!()
    };
    with.user = Some(("calico".to_owned(), "unused".to_owned()));
    let with = DatastoreSettings {
        backend: Backend::Etcd(with),
        use_pod_cidr: false,
        feed: FeedSettings::default(),
    };
    let mut source = Following::start_with(with, "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
}

#[tokio::test]
async fn an_etcd_that_asks_for_a_password_is_followed_with_the_right_one_only() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut client = etcd.connect().await;
    client.user_add("root", "right", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    let with = |password: &str| {
        let DatastoreSettings { backend: Backend::Etcd(mut etcd), .. } = settings(etcd.url()) else {
            unreachable!()
        };
        etcd.user = Some(("root".to_owned(), password.to_owned()));
        DatastoreSettings { backend: Backend::Etcd(etcd), use_pod_cidr: false, feed: FeedSettings::default() }
    };
    for refused in [settings(etcd.url()), with("wrong")] {
        let mut source = Following::start_with(refused, "node-a");
        source.state(SourceState::Retrying).await;
        let error = source.receiver.status.borrow().last_error.clone().unwrap();
        assert!(error.contains(&etcd.url()) && !error.contains("wrong"), "{error}");
    }
    let mut source = Following::start_with(with("right"), "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    let mut client =
        Client::connect([etcd.url()], Some(etcd_client::ConnectOptions::new().with_user("root", "right")))
            .await
            .unwrap();
    client.delete(NODE_A, None).await.unwrap();
    source.snapshot("a change", |snapshot| snapshot.nodes.len() == 2).await;
}

#[tokio::test]
async fn a_user_who_may_read_calicos_keys_and_no_other_is_enough_and_one_who_may_not_is_told_which() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut client = etcd.connect().await;
    client.user_add("root", "right", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    for (name, prefix) in [("calico", "/calico/"), ("half", "/calico/resources/")] {
        client.user_add(name, "right", None).await.unwrap();
        client.role_add(name).await.unwrap();
        client.role_grant_permission(name, Permission::read(prefix).with_prefix()).await.unwrap();
        client.user_grant_role(name, name).await.unwrap();
    }
    client.auth_enable().await.unwrap();
    let of = |name: &str| {
        let DatastoreSettings { backend: Backend::Etcd(mut etcd), .. } = settings(etcd.url()) else {
            unreachable!()
        };
        etcd.user = Some((name.to_owned(), "right".to_owned()));
        DatastoreSettings { backend: Backend::Etcd(etcd), use_pod_cidr: false, feed: FeedSettings::default() }
    };
    let mut source = Following::start_with(of("calico"), "node-a");
    source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    let mut source = Following::start_with(of("half"), "node-a");
    source.state(SourceState::Retrying).await;
    let error = source.receiver.status.borrow().last_error.clone().unwrap();
    assert!(error.ends_with("permission denied, for /calico/ipam/v2/host/node-a/"), "{error}");
}

#[tokio::test]
async fn a_cluster_that_is_being_migrated_says_so() {
    let etcd = Etcd::start().await;
    let migrating = Dump::read("three-nodes/dump-migrating.json");
    etcd.load(&migrating).await;
    let snapshot = read_once(&settings(etcd.url()), "node-a").await.unwrap();
    assert_eq!(snapshot.cluster_information.unwrap().datastore_ready, Some(false));
}

#[tokio::test]
async fn an_empty_etcd_is_in_sync() {
    let etcd = Etcd::start().await;
    let mut source = Following::start(etcd.url(), "node-a");
    source.snapshot("the empty list", |snapshot| *snapshot == Snapshot::default()).await;
    assert!(source.receiver.status.borrow().in_sync);
}

#[tokio::test]
async fn a_value_that_does_not_parse_keeps_the_last_good_one_and_is_named() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut source = Following::start(etcd.url(), "node-b");
    let before = source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    let mut client = etcd.connect().await;
    client.put(NODE_A, r#"{"kind":"Node","spec":"#, None).await.unwrap();
    client.put(b"/calico/resources/v3/projectcalico.org/nodes/\xff".to_vec(), "{}", None).await.unwrap();
    let broken = source.snapshot("the problem", |snapshot| !snapshot.problems.is_empty()).await;
    assert_eq!(broken.nodes, before.nodes);
    let problem = broken.problems[0].to_string();
    assert!(problem.starts_with(NODE_A) && problem.contains("last good value"), "{problem}");
    client.delete(NODE_A, None).await.unwrap();
    let after = source.snapshot("the deletion", |snapshot| snapshot.problems.is_empty()).await;
    assert_eq!(after.nodes.len(), 2);
}

/// Writes transactions over two kinds one after the other; how often one was seen in part.
async fn transactions_seen_in_part(etcd: &Etcd) -> usize {
    let mut client = etcd.connect().await;
    let mut source = Following::start(etcd.url(), "node-a");
    let mut parts = 0;
    for asn in 1..20u32 {
        let puts: Vec<_> = ["bgpconfigurations/default", "nodes/node-a"]
            .iter()
            .map(|name| {
                let value = format!(r#"{{"spec":{{"asNumber":{asn},"bgp":{{"asNumber":{asn}}}}}}}"#);
                etcd_client::TxnOp::put(format!("/calico/resources/v3/projectcalico.org/{name}"), value, None)
            })
            .collect();
        client.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
        let seen = |snapshot: &Snapshot| {
            let config = snapshot.bgp_configurations.get("default").and_then(|config| config.asn);
            (config, snapshot.nodes.get("node-a").and_then(|node| node.asn))
        };
        let part = std::cell::Cell::new(0);
        let whole = |snapshot: &Snapshot| {
            let (config, node) = seen(snapshot);
            part.set(part.get() + usize::from(config != node));
            config == node && node.is_some_and(|node| node.0 == asn)
        };
        source.snapshot("the transaction", whole).await;
        parts += part.get();
    }
    parts
}

/// Which progress answers can be relied on depends on etcd's version.
#[tokio::test]
async fn a_transaction_over_several_kinds_is_never_seen_in_part_where_etcd_can_say_that_it_is_complete() {
    let etcd = Etcd::start().await;
    let status = etcd.connect().await.status().await.unwrap();
    let parts = transactions_seen_in_part(&etcd).await;
    if Progress::of_version(status.version()) == Progress::Barrier {
        assert_eq!(parts, 0, "etcd {}", status.version());
    }
}

#[tokio::test]
async fn a_backup_that_was_restored_while_others_write_is_listed_again() {
    let mut etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let wire = Wire::to(&etcd).await;
    let mut client = etcd.connect().await;
    let backup = etcd.backup(&mut client).await;
    let put = |n: u32, asn: u32| {
        let key = format!("/calico/resources/v3/projectcalico.org/nodes/n{n}");
        (key, format!(r#"{{"spec":{{"bgp":{{"asNumber":{asn}}}}}}}"#))
    };
    for n in 0..10 {
        let (key, value) = put(n, 1);
        client.put(key, value, None).await.unwrap();
    }
    let mut source = Following::start(wire.url(), "node-a");
    source.snapshot("all of them", |snapshot| snapshot.nodes.len() == 13).await;
    source.state(SourceState::Connected).await;
    wire.state.send(State::Cut).unwrap();
    source.state(SourceState::Retrying).await;
    etcd.kill().await;
    etcd.restart_restored(&backup).await;
    let mut client = etcd.connect().await;
    // Beyond the revision that was seen before, with the very key that was written last.
    for n in (0..10).rev().chain([9, 9, 9]) {
        let (key, value) = put(n, 2);
        client.put(key, value, None).await.unwrap();
    }
    client.delete("/calico/resources/v3/projectcalico.org/nodes/n0", None).await.unwrap();
    let wanted = read_once(&settings(etcd.url()), "node-a").await.unwrap();
    wire.state.send(State::Whole).unwrap();
    source.snapshot("the restored cluster", |snapshot| *snapshot == wanted).await;
}

#[tokio::test]
async fn a_datastore_that_is_emptied_keeps_everything_in_force_until_it_is_confirmed() {
    let etcd = Etcd::start().await;
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mut source = Following::start(etcd.url(), "node-a");
    let full = source.snapshot("the first list", |snapshot| snapshot.nodes.len() == 3).await;
    source.state(SourceState::Connected).await;
    let mut client = etcd.connect().await;
    let all = etcd_client::DeleteOptions::new().with_prefix();
    client.delete("/calico/", Some(all)).await.unwrap();
    let held = source.receiver.status.wait_for(|status| !status.held.is_empty());
    let held = tokio::time::timeout(DEADLINE, held).await.unwrap().unwrap().held.clone();
    assert!(held[0].0.contains("3 of 3 Node"), "{held:?}");
    assert_eq!(source.receiver.snapshots.borrow().as_ref(), Some(&full));
    etcd.load(&Dump::read("three-nodes/dump.json")).await;
    let mended = source.receiver.status.wait_for(|status| status.held.is_empty());
    tokio::time::timeout(DEADLINE, mended).await.unwrap().unwrap();
    assert_eq!(source.receiver.snapshots.borrow().as_ref(), Some(&full));
}

#[tokio::test]
async fn more_keys_than_fit_in_one_page_are_listed_completely() {
    let etcd = Etcd::start().await;
    let mut client = etcd.connect().await;
    for chunk in (0..1234).collect::<Vec<u32>>().chunks(100) {
        let puts: Vec<_> = chunk
            .iter()
            .map(|n| {
                let key = format!("/calico/resources/v3/projectcalico.org/nodes/n{n}");
                etcd_client::TxnOp::put(
                    key,
                    format!(r#"{{"spec":{{"bgp":{{"asNumber":{}}}}}}}"#, n + 1),
                    None,
                )
            })
            .collect();
        client.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
    }
    let snapshot = read_once(&settings(etcd.url()), "n7").await.unwrap();
    assert_eq!(snapshot.nodes.len(), 1234);
    assert!(snapshot.problems.is_empty());
}
