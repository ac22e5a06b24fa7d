//! Cost of the codec for each prefix, and the same messages through bgpkit-parser for comparison.
//!
//! A full UPDATE holds what fits into 4096 octets: /24 and /26 of IPv4 as blocks of Calico are, /64 and /122 of IPv6.
//! Throughput is counted in prefixes: `1 Gelem/s` is 1 ns a prefix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;

use bgp_proto::wire::AsPath;
use bgp_proto::wire::{
    Attributes, Context, Message, NextHop, Nlri, PeerType, decode, encode_reach, encode_unreach,
};
use bgp_proto::{AfiSet, Asn, Family, Prefix, V4, V6};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// What an ordinary route of an external peer has.
fn attributes() -> Attributes {
    Attributes {
        as_path: AsPath::sequence([64512, 65001, 4_200_000_001].map(Asn)),
        med: Some(100),
        communities: [64512 << 16 | 1, 64512 << 16 | 2].into(),
        large_communities: [[64512, 1, 2]].into(),
        ..Attributes::default()
    }
}

fn v4(len: u8, count: u32) -> Vec<Nlri<V4>> {
    (0..count)
        .map(|n| Nlri {
            path_id: n % 7,
            prefix: Prefix::from_parts(0x0a00_0000 + (n << (32 - len)), len).unwrap(),
        })
        .collect()
}

fn v6(len: u8, count: u32) -> Vec<Nlri<V6>> {
    (0..count)
        .map(|n| Nlri {
            path_id: n % 7,
            prefix: Prefix::from_parts(0xfd00 << 112 | u128::from(n) << (128 - len), len).unwrap(),
        })
        .collect()
}

/// Whether, and in which shape, path ids are on the wire.
fn context(add_path: bool) -> Context {
    let add_path = if add_path { AfiSet::BOTH } else { AfiSet::EMPTY };
    Context { add_path_rx: add_path, add_path_tx: add_path, ..Context::new(PeerType::Ebgp) }
}

struct Full<F: Family> {
    name: &'static str,
    ctx: Context,
    next_hop: NextHop,
    prefixes: Vec<Nlri<F>>,
}

impl<F: Family> Full<F> {
    fn bench(mut self, c: &mut Criterion) {
        let attributes = attributes();
        let mut out = BytesMut::with_capacity(65536);
        let count = encode_reach(&self.ctx, &attributes, self.next_hop, &self.prefixes, &mut out);
        let message = out.split().freeze();
        self.prefixes.truncate(count);
        assert!(
            matches!(decode(&message, &self.ctx).unwrap().message, Message::Update(u) if u.reach[0].nlri.len() == count)
        );

        let mut group = c.benchmark_group(self.name);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function("decode", |b| b.iter(|| decode(black_box(&message), &self.ctx).unwrap()));
        group.bench_function("decode, bgpkit-parser", |b| {
            let add_path = !self.ctx.add_path_rx.is_empty();
            b.iter(|| bgpkit(black_box(message.clone()), add_path));
        });
        group.bench_function("encode", |b| {
            b.iter(|| {
                out.clear();
                encode_reach(&self.ctx, &attributes, self.next_hop, black_box(&self.prefixes), &mut out)
            });
        });
        group.bench_function("encode withdrawals", |b| {
            b.iter(|| {
                out.clear();
                encode_unreach(&self.ctx, black_box(&self.prefixes), &mut out)
            });
        });
        group.finish();
    }
}

fn bgpkit(mut message: Bytes, add_path: bool) -> bgpkit_parser::models::BgpMessage {
    use bgpkit_parser::models::AsnLength;
    bgpkit_parser::parser::bgp::messages::parse_bgp_message(&mut message, add_path, &AsnLength::Bits32)
        .unwrap()
}

fn full_updates(c: &mut Criterion) {
    let hop4 = NextHop::V4([10, 0, 0, 1].into());
    let hop6 = NextHop::V6 { global: "fd00::1".parse().unwrap(), link_local: None };
    let (plain, ids) = (context(false), context(true));
    Full { name: "ipv4 /24", ctx: plain.clone(), next_hop: hop4, prefixes: v4(24, 2000) }.bench(c);
    Full { name: "ipv4 /26", ctx: plain.clone(), next_hop: hop4, prefixes: v4(26, 2000) }.bench(c);
    Full { name: "ipv4 /26 add-path", ctx: ids.clone(), next_hop: hop4, prefixes: v4(26, 2000) }.bench(c);
    Full { name: "ipv6 /64", ctx: plain.clone(), next_hop: hop6, prefixes: v6(64, 2000) }.bench(c);
    Full { name: "ipv6 /122", ctx: plain, next_hop: hop6, prefixes: v6(122, 2000) }.bench(c);
    Full { name: "ipv6 /122 add-path", ctx: ids, next_hop: hop6, prefixes: v6(122, 2000) }.bench(c);
}

/// One prefix in its own message: the price of the attributes.
fn single(c: &mut Criterion) {
    let hop4 = NextHop::V4([10, 0, 0, 1].into());
    Full { name: "one ipv4 prefix", ctx: context(false), next_hop: hop4, prefixes: v4(26, 1) }.bench(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = full_updates, single
}
criterion_main!(benches);
