//! Any values: what is encoded is within the peer's limit, and decodes to the same values.
#![no_main]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use arbitrary::Arbitrary;
use bgp_proto::wire::attr::rules::rule;
use bgp_proto::wire::attr::{Aggregator, AttributeCodes};
use bgp_proto::wire::{
    AsPath, AsnList, Attributes, Context, Message, NextHop, Nlri, NlriList, Origin, PeerType, Segment,
    UnknownAttribute, decode, encode_reach, encode_unreach,
};
use bgp_proto::{AfiSet, Asn, ClusterId, Family, Prefix, RouterId, V4, V6};
use bgp_proto_fuzz::context;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Route {
    context: u8,
    origin: u8,
    path: Vec<(bool, Vec<u32>)>,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<(u32, u32)>,
    communities: Vec<u32>,
    ext_communities: Vec<[u8; 8]>,
    large_communities: Vec<[u32; 3]>,
    originator_id: Option<u32>,
    cluster_list: Vec<u32>,
    otc: Option<u32>,
    unknown: Vec<(u8, Vec<u8>)>,
    hop4: u32,
    hop6: (u128, Option<u128>),
    v4: Vec<(u32, u32, u8)>,
    v6: Vec<(u32, u128, u8)>,
}

impl Route {
    fn attributes(&self) -> Attributes {
        let asn = |asn: u32| Asn(asn.max(1));
        let mut unknown: Vec<UnknownAttribute> = self
            .unknown
            .iter()
            .filter(|(code, _)| rule(*code).is_none())
            .map(|(code, value)| UnknownAttribute {
                code: *code,
                flags: 0xe0,
                value: Bytes::copy_from_slice(value),
            })
            .collect();
        unknown.sort_by_key(|one| one.code);
        unknown.dedup_by_key(|one| one.code);
        Attributes {
            origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(self.origin % 3)],
            as_path: AsPath {
                segments: self
                    .path
                    .iter()
                    .map(|(set, asns)| (set, asns.iter().copied().take(255).map(asn).collect::<AsnList>()))
                    .filter(|(_, asns)| !asns.is_empty())
                    .map(|(set, asns)| if *set { Segment::Set(asns) } else { Segment::Sequence(asns) })
                    .collect(),
            },
            med: self.med,
            local_pref: self.local_pref,
            atomic_aggregate: self.atomic_aggregate,
            aggregator: self
                .aggregator
                .map(|(number, id)| Aggregator { asn: asn(number), router_id: Ipv4Addr::from_bits(id) }),
            communities: self.communities.iter().copied().collect(),
            ext_communities: self.ext_communities.iter().copied().collect(),
            // Receivers remove what is there twice (RFC 8092 §3).
            large_communities: BTreeSet::from_iter(self.large_communities.iter().copied())
                .into_iter()
                .collect(),
            originator_id: self.originator_id.map(|id| RouterId(Ipv4Addr::from_bits(id))),
            cluster_list: self.cluster_list.iter().map(|id| ClusterId(Ipv4Addr::from_bits(*id))).collect(),
            otc: self.otc.map(Asn),
            unknown: unknown.into(),
        }
    }
}

fn list<F: Family>(list: &NlriList) -> Vec<(u32, String)> {
    match list {
        NlriList::V4(list) => list.iter().map(|nlri| (nlri.path_id, nlri.prefix.to_string())).collect(),
        NlriList::V6(list) => list.iter().map(|nlri| (nlri.path_id, nlri.prefix.to_string())).collect(),
    }
}

fn expected<F: Family>(list: &[Nlri<F>], add_path: bool) -> Vec<(u32, String)> {
    list.iter().map(|nlri| (if add_path { nlri.path_id } else { 0 }, nlri.prefix.to_string())).collect()
}

fn check<F: Family>(ctx: &Context, attributes: &Attributes, next_hop: NextHop, prefixes: &[Nlri<F>]) {
    let add_path = ctx.add_path_tx.contains(F::AFI);
    let mut out = BytesMut::new();
    let count = encode_reach(ctx, attributes, next_hop, prefixes, &mut out);
    if count == 0 {
        assert!(out.is_empty());
    } else {
        assert!(out.len() <= ctx.max_len());
        let decoded = decode(&out, ctx).expect("what we encode is valid");
        assert_eq!(decoded.faults, []);
        let Message::Update(update) = decoded.message else { panic!("another type") };
        assert_eq!(&update.attributes, attributes);
        assert_eq!(update.reach[0].next_hop, next_hop);
        assert_eq!(list::<F>(&update.reach[0].nlri), expected(&prefixes[..count], add_path));
    }
    let mut out = BytesMut::new();
    let count = encode_unreach(ctx, prefixes, &mut out);
    assert_eq!(count == 0, prefixes.is_empty());
    if count > 0 {
        assert!(out.len() <= ctx.max_len());
        let Message::Update(update) = decode(&out, ctx).expect("valid").message else {
            panic!("another type")
        };
        assert_eq!(list::<F>(&update.withdrawn[0]), expected(&prefixes[..count], add_path));
    }
}

fuzz_target!(|route: Route| {
    let ctx = Context {
        peer_type: PeerType::Ibgp,
        families: AfiSet::BOTH,
        accept_as_set: true,
        extended_next_hop: true,
        strip: AttributeCodes::NONE,
        ..context(route.context)
    };
    let attributes = route.attributes();
    let v4: Vec<Nlri<V4>> = route
        .v4
        .iter()
        .filter_map(|(path_id, bits, len)| {
            Some(Nlri { path_id: *path_id, prefix: Prefix::from_parts(*bits, len % 33)? })
        })
        .collect();
    let v6: Vec<Nlri<V6>> = route
        .v6
        .iter()
        .filter_map(|(path_id, bits, len)| {
            Some(Nlri { path_id: *path_id, prefix: Prefix::from_parts(*bits, len % 129)? })
        })
        .collect();
    let hop4 = NextHop::V4(Ipv4Addr::from_bits(route.hop4));
    let hop6 = NextHop::V6 {
        global: Ipv6Addr::from_bits(route.hop6.0),
        link_local: route.hop6.1.map(Ipv6Addr::from_bits),
    };
    check(&ctx, &attributes, hop4, &v4);
    check(&ctx, &attributes, hop6, &v4);
    check(&ctx, &attributes, hop6, &v6);
});
