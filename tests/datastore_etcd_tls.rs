//! etcd with TLS, client certificates and several members, as DC/OS and OpenStack run it.
//!
//! Needs the program `etcd` (Debian: `etcd-server`) in `PATH`, or its path in `ETCD_BINARY`.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the test is the shell here")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use calico_bgpd::datastore::feed::FeedSettings;
use calico_bgpd::datastore::settings::{Backend, DatastoreSettings, EtcdSettings, Liveness};
use calico_bgpd::datastore::tls::{Pem, TlsSettings};
use calico_bgpd::datastore::{SourceReceiver, SourceState, channel, read_once, run};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// Whom some trust, and who makes certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `<name>.crt` and `<name>.key`.
    fn pair(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_file, key_file) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }
}

/// A cluster with TLS that wants client certificates.
struct Cluster {
    dir: tempfile::TempDir,
    authority: Authority,
    members: Vec<Child>,
    clients: Vec<u16>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Cluster {
    async fn start(members: usize) -> Cluster {
        // A port that was free may be taken when etcd comes to it: then it ends, and others are tried.
        for _ in 0..5 {
            let mut cluster = Cluster::spawn(members);
            if cluster.ready().await {
                return cluster;
            }
        }
        panic!("etcd ends as soon as it is started");
    }

    fn spawn(count: usize) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("etcd-ca");
        std::fs::write(dir.path().join("ca.crt"), &authority.pem).unwrap();
        let (cert, key) = authority.pair(dir.path(), "server");
        authority.pair(dir.path(), "client");
        let program = std::env::var("ETCD_BINARY").unwrap_or_else(|_| "etcd".to_owned());
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let all: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let members = ports.iter().enumerate().map(|(n, (client, peer))| {
            let (client, peer) = (format!("https://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            Command::new(&program)
                .args(["--name", &format!("m{n}"), "--log-level", "error", "--client-cert-auth"])
                .arg("--data-dir")
                .arg(dir.path().join(format!("m{n}")))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &all.join(",")])
                .args(["--trusted-ca-file".as_ref(), dir.path().join("ca.crt").as_os_str()])
                .args(["--cert-file".as_ref(), cert.as_os_str(), "--key-file".as_ref(), key.as_os_str()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| panic!("{program} cannot be started ({error}): install etcd-server"))
        });
        let members = members.collect();
        Cluster { members, clients: ports.iter().map(|(client, _)| *client).collect(), dir, authority }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn urls(&self) -> Vec<String> {
        self.clients.iter().map(|port| format!("https://127.0.0.1:{port}")).collect()
    }

    async fn connect(&self) -> Result<Client, etcd_client::Error> {
        let read = |name: &str| std::fs::read(self.at(name)).unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.authority.pem))
            .identity(Identity::from_pem(read("client.crt"), read("client.key")));
        let last = self.urls().pop().unwrap();
        Client::connect([last], Some(ConnectOptions::new().with_tls(tls))).await
    }

    /// Whether it answers; `false` where a member ended.
    async fn ready(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let answer = async { self.connect().await?.get("x", None).await };
            match tokio::time::timeout(Duration::from_secs(2), answer).await {
                Ok(Ok(_)) => return true,
                last => assert!(tokio::time::Instant::now() < deadline, "etcd does not answer: {last:?}"),
            }
            if self.members.iter_mut().any(|member| member.try_wait().unwrap().is_some()) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn put_node(&self, name: &str) {
        let key = format!("/calico/resources/v3/projectcalico.org/nodes/{name}");
        let value = r#"{"spec":{"bgp":{"asNumber":1}}}"#;
        let deadline = tokio::time::Instant::now() + DEADLINE;
        // While the members choose a leader, none writes.
        loop {
            match async { self.connect().await?.put(key.clone(), value, None).await }.await {
                Ok(_) => return,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
        }
    }

    fn tls(&self) -> TlsSettings {
        let file = |name: &str| Pem::File(self.at(name));
        TlsSettings {
            ca: Some(file("ca.crt")),
            identity: Some((file("client.crt"), file("client.key"))),
            ..TlsSettings::default()
        }
    }

    fn settings(&self, tls: TlsSettings) -> DatastoreSettings {
        let etcd = EtcdSettings {
            endpoints: self.urls(),
            user: None,
            tls,
            liveness: Liveness::default(),
            kubernetes: None,
        };
        DatastoreSettings { backend: Backend::Etcd(etcd), use_pod_cidr: false, feed: FeedSettings::default() }
    }
}

/// A source that runs until it is dropped.
struct Following {
    receiver: SourceReceiver,
    stop: CancellationToken,
}

impl Following {
    fn start(settings: DatastoreSettings) -> Following {
        let (out, receiver) = channel();
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move { run(settings, "a", out, token).await });
        Following { receiver, stop }
    }

    async fn nodes(&mut self, wanted: usize) {
        let waits = self
            .receiver
            .snapshots
            .wait_for(|held| held.as_ref().is_some_and(|held| held.nodes.len() == wanted));
        let done = tokio::time::timeout(DEADLINE, waits).await.is_ok();
        assert!(done, "{wanted} Nodes are not reached: {:?}", self.receiver.status.borrow());
    }

    async fn state(&mut self, wanted: SourceState) {
        let waits = self.receiver.status.wait_for(|status| status.state == wanted);
        let done = tokio::time::timeout(DEADLINE, waits).await.is_ok();
        assert!(done, "{wanted:?} is not reached: {:?}", self.receiver.status.borrow());
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn an_etcd_with_client_certificates_is_followed_and_what_is_wrong_with_them_is_one_line() {
    let cluster = Cluster::start(1).await;
    cluster.put_node("a").await;
    let read = async |tls: TlsSettings| read_once(&cluster.settings(tls), "a").await;
    assert_eq!(read(cluster.tls()).await.unwrap().nodes.len(), 1);
    let mut source = Following::start(cluster.settings(cluster.tls()));
    source.nodes(1).await;
    cluster.put_node("b").await;
    source.nodes(2).await;

    let other = Authority::new("other-ca");
    std::fs::write(cluster.at("other-ca.crt"), &other.pem).unwrap();
    let (cert, key) = other.pair(cluster.dir.path(), "stranger");
    let missing = cluster.at("not-there.crt");
    let url = &cluster.urls()[0];
    for (tls, words) in [
        (TlsSettings { ca: Some(Pem::File(cluster.at("other-ca.crt"))), ..cluster.tls() }, "UnknownIssuer"),
        (TlsSettings { identity: Some((Pem::File(cert), Pem::File(key))), ..cluster.tls() }, "certificate"),
        (TlsSettings { identity: None, ..cluster.tls() }, "certificate"),
        (TlsSettings { ca: Some(Pem::File(missing)), ..cluster.tls() }, "not-there.crt cannot be read"),
    ] {
        let error = read(tls).await.unwrap_err();
        // etcd's releases say it each in their own way: «certificate required», «BadCertificate»
        let named = error.to_lowercase().contains(&words.to_lowercase());
        assert!(error.starts_with(url) && named && !error.contains('\n'), "{words}: {error}");
    }
}

#[tokio::test]
async fn certificates_that_were_rotated_count_from_the_next_connection_on() {
    let cluster = Cluster::start(1).await;
    cluster.put_node("a").await;
    let right = std::fs::read(cluster.at("client.crt")).unwrap();
    std::fs::write(cluster.at("client.crt"), "nothing yet").unwrap();
    let mut source = Following::start(cluster.settings(cluster.tls()));
    source.state(SourceState::Retrying).await;
    std::fs::write(cluster.at("client.crt"), right).unwrap();
    source.nodes(1).await;
}

#[tokio::test]
async fn a_member_that_dies_costs_nothing_where_there_are_others() {
    let mut cluster = Cluster::start(3).await;
    cluster.put_node("a").await;
    let mut source = Following::start(cluster.settings(cluster.tls()));
    source.nodes(1).await;
    source.state(SourceState::Connected).await;
    // The last one stays for our own writes; one of the other two may be the one that is followed.
    cluster.members[0].kill().await.unwrap();
    cluster.put_node("b").await;
    source.nodes(2).await;
}
