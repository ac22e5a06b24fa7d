//! The table alone: import, decision, export, a next hop that moves, a peer that goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use bgp_proto::out::{Exporter, routes};
use bgp_proto::rib::policy::AcceptAll;
use bgp_proto::rib::{
    Dest, ExportProfile, Forward, ImportProfile, ImportRules, KernelRoute, Leg, LocalRoute, NextHopRule,
    Policy, ProgramId, Rib, RouteView, SourcePeer,
};
use bgp_proto::wire::{AsPath, Attributes, NextHop, Nlri};
use bgp_proto::{Afi, Asn, ClusterId, Prefix4, RouterId, V4};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const PREFIXES: u32 = 100_000;
/// Prefixes of one UPDATE.
const EACH: usize = 5;

/// Accepts what it is asked about, prefix by prefix.
struct ByPrefix;

impl Policy for ByPrefix {
    fn accepts(&self, route: &mut RouteView<'_>) -> bool {
        !route.prefix.is_default()
    }
    fn reads_interface(&self) -> bool {
        false
    }
}

fn nlri() -> Vec<Nlri<V4>> {
    let prefix = |n: u32| Prefix4::from_parts(0x1000_0000 + (n << 8), 24).unwrap();
    (0..PREFIXES).map(|n| Nlri { path_id: 1, prefix: prefix(n) }).collect()
}

fn addr(slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0002 + slot)
}

fn table(peers: u32) -> Rib<V4> {
    let mut rib = Rib::new(1);
    rib.put_local(Prefix4::default_route(), default_route(254));
    for slot in 0..peers {
        let rr_client = Some(ClusterId([1, 1, 1, 1].into()));
        rib.set_peer(
            slot,
            SourcePeer {
                asn: Asn(64512),
                local_asn: Asn(64512),
                router_id: RouterId(addr(slot)),
                addr: addr(slot).into(),
                internal: true,
                rr_client,
            },
        );
    }
    rib
}

fn default_route(last: u8) -> LocalRoute<V4> {
    let leg = Leg { via: Some([192, 0, 2, last].into()), ifindex: 2, onlink: false, weight: 1 };
    let forward = Forward::Legs(std::iter::once(leg).collect());
    LocalRoute::Kernel(Box::new(KernelRoute { forward, metric: 0, protocol: 3 }))
}

fn announce<P: Policy>(rib: &mut Rib<V4>, slot: u32, policy: &P, nlri: &[Nlri<V4>]) {
    let profile = ImportProfile {
        internal: true,
        local_asn: Asn(64512),
        router_id: RouterId([10, 0, 0, 1].into()),
        rr_client: None,
        allow_own_as: 0,
    };
    let rules = ImportRules { profile, policy, interface: &|_| "" };
    let next_hop = NextHop::V4(addr(slot));
    for (n, nlri) in (0u32..).zip(nlri.chunks(EACH)) {
        let as_path = AsPath::sequence([Asn(65001), Asn(65002 + n % 20_000)]);
        rib.announce(slot, &rules, Attributes { as_path, ..Attributes::default() }, next_hop, nlri);
    }
}

fn settle(rib: &mut Rib<V4>) -> usize {
    rib.settle();
    let changes = rib.take_changes().len();
    rib.free_ids();
    changes
}

fn import(c: &mut Criterion) {
    let nlri = nlri();
    let mut group = c.benchmark_group("rib/import and decide");
    group.sample_size(10).throughput(Throughput::Elements(PREFIXES.into()));
    group.bench_function("100,000 prefixes, 5 in an UPDATE", |b| {
        b.iter_batched(
            || table(1),
            |mut rib| {
                announce(&mut rib, 0, &AcceptAll, &nlri);
                black_box(settle(&mut rib));
                rib
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("the same through a program that reads prefixes", |b| {
        b.iter_batched(
            || table(1),
            |mut rib| {
                announce(&mut rib, 0, &ByPrefix, &nlri);
                black_box(settle(&mut rib));
                rib
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn decision(c: &mut Criterion) {
    let nlri = nlri();
    let mut group = c.benchmark_group("rib/decide");
    group.sample_size(10);
    group.bench_function("1,000 destinations of 8 paths", |b| {
        let mut rib = table(8);
        for slot in 0..8 {
            announce(&mut rib, slot, &AcceptAll, &nlri[..1000]);
        }
        settle(&mut rib);
        let mut id = 0;
        b.iter(|| {
            // Another router id of one peer: all its destinations are decided anew.
            id += 1;
            let peer = SourcePeer { router_id: RouterId(Ipv4Addr::from_bits(id)), ..*rib.peer(3).unwrap() };
            rib.set_peer(3, peer);
            assert_eq!(settle(&mut rib), 1000);
        });
    });
    for clients in [125, 250, 500, 1000] {
        group.bench_function(format!("one of {clients} paths to one prefix leaves and comes"), |b| {
            let mut rib = table(clients);
            for slot in 0..clients {
                announce(&mut rib, slot, &AcceptAll, &nlri[..1]);
            }
            settle(&mut rib);
            b.iter(|| {
                rib.withdraw(clients / 2, nlri[0]);
                settle(&mut rib);
                announce(&mut rib, clients / 2, &AcceptAll, &nlri[..1]);
                settle(&mut rib)
            });
        });
    }
    group.finish();
}

fn moves(c: &mut Criterion) {
    let nlri = nlri();
    let mut group = c.benchmark_group("rib/next hop");
    group.sample_size(10);
    group.bench_function("of 100,000 destinations moves", |b| {
        let mut rib = table(1);
        announce(&mut rib, 0, &AcceptAll, &nlri);
        settle(&mut rib);
        let mut gateway = 0u8;
        b.iter(|| {
            gateway ^= 1;
            rib.put_local(Prefix4::default_route(), default_route(gateway));
            assert_eq!(settle(&mut rib), nlri.len() + 1);
        });
    });
    group.bench_function("a peer with 4 of 100,000 destinations goes and comes", |b| {
        let mut rib = table(2);
        announce(&mut rib, 0, &AcceptAll, &nlri);
        settle(&mut rib);
        b.iter(|| {
            announce(&mut rib, 1, &AcceptAll, &nlri[50_000..50_004]);
            settle(&mut rib);
            rib.sweep(1);
            settle(&mut rib)
        });
    });
    group.finish();
}

fn export(c: &mut Criterion) {
    let nlri = nlri();
    let mut rib = table(1);
    announce(&mut rib, 0, &AcceptAll, &nlri);
    settle(&mut rib);
    let profile = ExportProfile {
        afi: Afi::Ipv4,
        internal: true,
        local_asn: Asn(64512),
        local_addr: [10, 0, 0, 1].into(),
        rr_client: Some(ClusterId([1, 1, 1, 1].into())),
        next_hop: NextHopRule::Auto,
        program: ProgramId(0),
        long_lived_aware: true,
        add_path: true,
        extended_next_hop: false,
        as4: true,
        extended_message: false,
    };
    let exporter = Exporter { profile: &profile, policy: &AcceptAll, deferred: false };
    let mut group = c.benchmark_group("rib/export");
    group.sample_size(10).throughput(Throughput::Elements(PREFIXES.into()));
    group.bench_function("100,000 destinations, once for a group", |b| {
        b.iter(|| {
            let sent =
                |(_, dest): (_, &Dest<V4>)| routes(&rib, &exporter, dest.prefix, dest, None, |_| "").len();
            // The default route is one more.
            assert_eq!(rib.dests(None).map(sent).sum::<usize>(), nlri.len() + 1);
        });
    });
    group.finish();
}

criterion_group!(benches, import, decision, moves, export);
criterion_main!(benches);
