//! Adj-RIB-Out with 5,000 readers of 10,000 routes (2,500 attribute sets of 4), as a route reflector has them.
//!
//! Time is that of the table's thread: what a change costs, what a join costs until End-of-RIB with all octets encoded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use bgp_proto::out::{Group, Sent};
use bgp_proto::rib::{AttrTable, ExportProfile, NextHopRule, ProgramId};
use bgp_proto::wire::{Attributes, NextHop};
use bgp_proto::{Afi, Asn, ClusterId, DestId, Prefix, RouterId, V4};
use bytes::BytesMut;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const READERS: u32 = 5_000;
const ROUTES: u32 = 10_000;
/// Routes of one client.
const EACH: u32 = 4;

fn profile() -> ExportProfile {
    ExportProfile {
        afi: Afi::Ipv4,
        internal: true,
        local_asn: Asn(64512),
        local_addr: [10, 255, 0, 1].into(),
        rr_client: Some(ClusterId([10, 255, 0, 1].into())),
        next_hop: NextHopRule::Auto,
        program: ProgramId(0),
        long_lived_aware: true,
        add_path: true,
        extended_next_hop: false,
        as4: true,
        extended_message: false,
    }
}

fn addr(slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + slot)
}

fn set(group: &mut Group<V4>, attrs: &mut AttrTable, n: u32, med: Option<u32>) {
    let source = n / EACH;
    let attributes = Attributes {
        local_pref: Some(100),
        med,
        originator_id: Some(RouterId(addr(source))),
        cluster_list: [ClusterId([10, 255, 0, 1].into())].into(),
        ..Attributes::default()
    };
    let attrs_id = attrs.intern(attributes, Some(NextHop::V4(addr(source))));
    let prefix = Prefix::from_parts(0x0af4_0000 + (n << 6), 26).unwrap();
    group.set(DestId(n), prefix, &mut [Sent { path_id: 1, attrs: attrs_id, source: Some(source) }], attrs);
}

fn full() -> (Group<V4>, AttrTable) {
    let (mut group, mut attrs) = (Group::new(&profile()), AttrTable::new(7));
    (0..ROUTES).for_each(|n| set(&mut group, &mut attrs, n, None));
    (group, attrs)
}

fn join(group: &mut Group<V4>, attrs: &AttrTable) -> usize {
    let mut octets = 0;
    let mut out = BytesMut::with_capacity(64 * 1024);
    for slot in 0..READERS {
        group.join(slot, addr(slot).into());
    }
    // One answer for each in turn, as the readers ask.
    let mut reading: Vec<u32> = group.take_woken();
    while !reading.is_empty() {
        reading.retain(|slot| {
            out.clear();
            let shared = group.fill(*slot, attrs, true, 32 * 1024, &mut out);
            octets += shared.map_or(out.len(), |bytes| bytes.len());
            group.has_work(*slot, true)
        });
    }
    octets
}

fn out(c: &mut Criterion) {
    let mut c = c.benchmark_group("adj_rib_out/5000x10000");
    c.sample_size(10);
    c.bench_function("every reader joins and reads to End-of-RIB", |b| {
        b.iter_batched_ref(full, |(group, attrs)| black_box(join(group, attrs)), BatchSize::PerIteration);
    });
    let (mut group, mut attrs) = full();
    join(&mut group, &attrs);
    let mut med = 0;
    c.bench_function("one route changes", |b| {
        b.iter(|| {
            med += 1;
            set(&mut group, &mut attrs, 5, Some(med));
            group.flush();
        });
    });
    c.bench_function("one route goes and comes", |b| {
        b.iter(|| {
            let prefix = Prefix::from_parts(0x0af4_0000 + (9 << 6), 26).unwrap();
            group.set(DestId(9), prefix, &mut [], &mut attrs);
            group.flush();
            set(&mut group, &mut attrs, 9, None);
            group.flush();
        });
    });
    c.bench_function("every route changes", |b| {
        b.iter(|| {
            med += 1;
            // In 20 settlements.
            for n in 0..ROUTES {
                set(&mut group, &mut attrs, n, Some(med));
                if n % (ROUTES / 20) == 0 {
                    group.flush();
                }
            }
            group.flush();
        });
    });
    c.bench_function("a reader leaves and joins", |b| {
        b.iter(|| {
            group.leave(17);
            group.join(17, addr(17).into());
            black_box(group.take_woken());
        });
    });
    c.finish();
}

criterion_group!(benches, out);
criterion_main!(benches);
