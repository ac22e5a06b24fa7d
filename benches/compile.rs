//! The compiler alone: from a snapshot to the desired state, in large clusters.
//!
//! What issue reports complain of: the same peers asked for by global BGPPeers, by those of single nodes and by
//! selectors of reflectors, and labels of Nodes that change each second (D6); and the full mesh. Each from nothing, and
//! after a label of one Node changed, with what is as before shared and the plan of it made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    clippy::disallowed_methods,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::Asn;
use calico_bgpd::desired::{self, NodeFacts};
use calico_bgpd::model::snapshot::Snapshot;
use calico_bgpd::model::{BgpConfiguration, BgpPeer, Node, NodeAddress, PeerAddress, Selector};
use criterion::{Criterion, criterion_group, criterion_main};

const SELF: &str = "node-0000";

fn name(n: u32) -> String {
    format!("node-{n:04}")
}

/// Node `n`, in rack `n / 40`, which has two reflectors, the first two of it.
fn node(n: u32) -> Node {
    let addr = Ipv4Addr::from_bits(0xac10_0001 + n);
    let labels = [
        ("kubernetes.io/hostname".to_owned(), name(n)),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("rack".to_owned(), format!("rack-{}", n / 40)),
        ("reflector".to_owned(), (n % 40 < 2).to_string()),
    ];
    Node {
        name: name(n),
        ipv4: Some(NodeAddress { addr, subnet: bgp_proto::Prefix::new(addr, 12).unwrap() }),
        labels: BTreeMap::from(labels),
        ..Node::default()
    }
}

fn snapshot(nodes: u32, mesh: bool, peers: Vec<BgpPeer>) -> Snapshot {
    let config = BgpConfiguration {
        name: "default".into(),
        asn: Some(Asn(64512)),
        mesh_enabled: Some(mesh),
        ..BgpConfiguration::default()
    };
    Snapshot {
        nodes: (0..nodes).map(|n| (name(n), Arc::new(node(n)))).collect(),
        bgp_configurations: [("default".to_owned(), Arc::new(config))].into_iter().collect(),
        peers: peers.into_iter().map(|peer| (peer.name.clone(), Arc::new(peer))).collect(),
        ..Snapshot::default()
    }
}

fn selector(text: &str) -> Option<Arc<Selector>> {
    Some(Arc::new(Selector::parse(text).unwrap()))
}

fn address(addr: u32) -> Option<PeerAddress> {
    Some(PeerAddress { addr: Ipv4Addr::from_bits(addr).into(), port: None })
}

/// 2,600 BGPPeers: two routers of each of 1,000 nodes by address, 350 peerings of nodes with reflectors by selectors of
/// each rack, hostname and all, and 250 global ones, half of which ask for what others ask for too.
fn peerings() -> Vec<BgpPeer> {
    let mut peers = Vec::new();
    for n in 0..2000 {
        peers.push(BgpPeer {
            name: format!("router-{n}"),
            node: Some(name(n / 2)),
            peer_ip: address(0x0a00_0000 + n / 80 * 2 + n % 2),
            asn: Some(Asn(65000)),
            ..BgpPeer::default()
        });
    }
    for n in 0..350 {
        let (owners, reflectors) = match n % 3 {
            0 => (
                format!("rack == 'rack-{}'", n % 25),
                format!("reflector == 'true' && rack == 'rack-{}'", n % 25),
            ),
            1 => (format!("kubernetes.io/hostname == '{}'", name(n)), "reflector == 'true'".to_owned()),
            _ => (
                format!("all() && !(rack == 'rack-{}')", n % 25),
                format!("reflector == 'true' && rack in {{'rack-{}', 'rack-{}'}}", n % 25, (n + 1) % 25),
            ),
        };
        peers.push(BgpPeer {
            name: format!("reflectors-{n}"),
            node_selector: selector(&owners),
            peer_selector: selector(&reflectors),
            ..BgpPeer::default()
        });
    }
    for n in 0..250 {
        let addr = if n % 2 == 0 { 0x0a01_0000 + n } else { 0xac10_0001 + n };
        peers.push(BgpPeer { name: format!("global-{n}"), peer_ip: address(addr), ..BgpPeer::default() });
    }
    assert_eq!(peers.len(), 2600);
    peers
}

/// One Node gets another label that no selector looks at.
fn relabelled(snapshot: &Snapshot) -> Arc<Snapshot> {
    let mut changed = snapshot.clone();
    let node = Arc::make_mut(changed.nodes.get_mut("node-0777").unwrap());
    node.labels.insert("heartbeat".into(), "2".into());
    Arc::new(changed)
}

/// What the work costs so many times: CPU of this thread, since others may be at work on the machine.
fn cpu<T>(times: u64, mut work: impl FnMut() -> T) -> Duration {
    let used = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
    };
    let before = used();
    for _ in 0..times {
        drop(black_box(work()));
    }
    used() - before
}

fn compile(c: &mut Criterion) {
    let facts = NodeFacts { node_name: SELF.into(), ..NodeFacts::default() };
    let cases = [
        ("1,000 nodes, 2,600 BGPPeers", snapshot(1000, false, peerings())),
        ("a mesh of 5,000", snapshot(5000, true, Vec::new())),
    ];
    for (words, snapshot) in cases {
        let snapshot = Arc::new(snapshot);
        let (state, prior) = desired::compile_after(None, &snapshot, &facts).unwrap();
        println!("{words}: {} sessions, {} problems", state.peers.len(), state.problems.len());
        c.bench_function(&format!("{words}: compile"), |b| {
            b.iter_custom(|times| cpu(times, || desired::compile(black_box(&snapshot), &facts).unwrap()));
        });
        let changed = relabelled(&snapshot);
        c.bench_function(&format!("{words}: a label changes, compile"), |b| {
            b.iter_custom(|times| {
                cpu(times, || {
                    let (mut new, mut prior) =
                        desired::compile_after(Some(&prior), &changed, &facts).unwrap();
                    desired::retain_keys(&state, &mut new);
                    desired::retain_policy(&state, &mut new);
                    prior.in_force(&new);
                    assert!(desired::diff(Some(&state), &new).is_empty());
                    (new, prior)
                })
            });
        });
    }
}

criterion_group!(benches, compile);
criterion_main!(benches);
