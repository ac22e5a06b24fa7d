//! Laws of the codec: what is encoded decodes to the same values, nothing panics, and how
//! octets arrive does not matter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_proto::wire::attr::rules::rule;
use bgp_proto::wire::attr::{Aggregator, AttributeCodes};
use bgp_proto::wire::capability::{GrFamily, WireFamily};
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::*;
use bgp_proto::{Afi, AfiSet, Asn, ClusterId, Family, Prefix, RouterId, V4, V6};
use bytes::{Bytes, BytesMut};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn context() -> impl Strategy<Value = Context> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(as4, v4, v6, extended_message)| {
            let add_path: AfiSet = [(v4, Afi::Ipv4), (v6, Afi::Ipv6)]
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, afi)| afi)
                .collect();
            Context {
                as4,
                add_path_rx: add_path,
                add_path_tx: add_path,
                extended_next_hop: true,
                extended_message,
                accept_as_set: true,
                strip: AttributeCodes::NONE,
                // An internal peer may send every attribute.
                ..Context::new(PeerType::Ibgp)
            }
        },
    )
}

fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=65535u32, 65536..=u32::MAX, Just(23456)].prop_map(Asn)
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(Ipv6Addr::from_bits)
}

fn octets(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let segment = prop_oneof![
        3 => vec(asn(), 1..20).prop_map(|asns| Segment::Sequence(asns.into())),
        1 => vec(asn(), 1..5).prop_map(|asns| Segment::Set(asns.into())),
    ];
    vec(segment, 0..4).prop_map(|segments| AsPath { segments: segments.into() })
}

fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let codes = any::<u8>().prop_filter("known", |code| rule(*code).is_none());
    btree_map(codes, octets(300), 0..4).prop_map(|all| {
        // Those that come from us have the partial bit (RFC 4271 §5).
        all.into_iter().map(|(code, value)| UnknownAttribute { code, flags: 0xe0, value }).collect()
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let first = (
        prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)],
        as_path(),
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        any::<bool>(),
        option::of((asn(), v4()).prop_map(|(asn, router_id)| Aggregator { asn, router_id })),
    );
    let second = (
        vec(any::<u32>(), 0..100),
        vec(any::<[u8; 8]>(), 0..5),
        // A set in the order of the wire: receivers remove what is there twice (RFC 8092 §3).
        btree_set(any::<[u32; 3]>(), 0..5).prop_map(|all| all.into_iter().rev().collect()),
        option::of(v4().prop_map(RouterId)),
        vec(v4().prop_map(ClusterId), 0..5),
        option::of(any::<u32>().prop_map(Asn)),
        unknown(),
    );
    (first, second).prop_map(
        |(
            (origin, as_path, med, local_pref, atomic_aggregate, aggregator),
            (communities, ext_communities, large_communities, originator_id, cluster_list, otc, unknown),
        )| Attributes {
            origin,
            as_path,
            med,
            local_pref,
            atomic_aggregate,
            aggregator,
            communities: communities.into(),
            ext_communities: ext_communities.into(),
            large_communities,
            originator_id,
            cluster_list: cluster_list.into(),
            otc,
            unknown: unknown.into(),
        },
    )
}

fn nlri4(max: usize) -> impl Strategy<Value = Vec<Nlri<V4>>> {
    vec((any::<u32>(), any::<u32>(), 0..=32u8), 1..max).prop_map(|all| {
        all.into_iter()
            .map(|(path_id, bits, len)| Nlri { path_id, prefix: Prefix::from_parts(bits, len).unwrap() })
            .collect()
    })
}

fn nlri6(max: usize) -> impl Strategy<Value = Vec<Nlri<V6>>> {
    vec((any::<u32>(), any::<u128>(), 0..=128u8), 1..max).prop_map(|all| {
        all.into_iter()
            .map(|(path_id, bits, len)| Nlri { path_id, prefix: Prefix::from_parts(bits, len).unwrap() })
            .collect()
    })
}

fn next_hop6() -> impl Strategy<Value = NextHop> {
    (v6(), option::of(v6())).prop_map(|(global, link_local)| NextHop::V6 { global, link_local })
}

fn capability() -> impl Strategy<Value = Capability> {
    let family = || (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| WireFamily { afi, safi });
    let gr =
        move || (family(), any::<bool>()).prop_map(|(family, forwarding)| GrFamily { family, forwarding });
    let unknown = prop_oneof![10..=63u8, 76..=255u8];
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec((family(), any::<u16>()), 0..3).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        any::<u8>().prop_map(Capability::Role),
        (any::<bool>(), any::<bool>(), 0..4096u16, vec(gr(), 0..3)).prop_map(
            |(restarting, notification, time, families)| Capability::GracefulRestart {
                restarting,
                notification,
                time,
                families
            }
        ),
        asn().prop_map(Capability::FourOctetAs),
        vec((family(), any::<u8>()), 0..3).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRefresh),
        vec((gr(), 0..1u32 << 24), 0..3).prop_map(Capability::LongLivedGr),
        (octets(100), octets(100)).prop_map(|(host, domain)| Capability::Fqdn { host, domain }),
        octets(200).prop_map(Capability::SoftwareVersion),
        (unknown, octets(256)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

fn update_of(message: &[u8], ctx: &Context) -> Update {
    let decoded = decode(message, ctx).unwrap();
    assert_eq!(decoded.faults, [], "{message:02x?}");
    match decoded.message {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}

/// As they are on a wire without path ids.
fn ids<F: Family>(list: &[Nlri<F>], add_path: bool) -> Vec<Nlri<F>> {
    list.iter().map(|nlri| Nlri { path_id: if add_path { nlri.path_id } else { 0 }, ..*nlri }).collect()
}

/// Encodes everything, message for message, and checks that each is within the limit and says the same.
fn round_trip<F: Family>(
    ctx: &Context,
    attributes: &Attributes,
    next_hop: NextHop,
    prefixes: &[Nlri<F>],
    list: impl Fn(&NlriList) -> Vec<Nlri<F>>,
) -> Result<(), TestCaseError> {
    let add_path = ctx.add_path_tx.contains(F::AFI);
    let mut rest = prefixes;
    while !rest.is_empty() {
        let mut out = BytesMut::from(&b"before"[..]);
        let count = encode_reach(ctx, attributes, next_hop, rest, &mut out);
        if count == 0 {
            prop_assert_eq!(&out[..], b"before");
            prop_assert!(attributes.unknown.iter().map(|one| one.value.len()).sum::<usize>() > 300);
            break;
        }
        let message = &out[6..];
        prop_assert!(message.len() <= ctx.max_len());
        // Full: the next prefix would not have fitted.
        if let Some(next) = rest.get(count) {
            prop_assert!(message.len() + nlri::encoded_len(next, add_path) > ctx.max_len());
        }
        let update = update_of(message, ctx);
        prop_assert_eq!(&update.attributes, attributes);
        prop_assert_eq!(update.reach.len(), 1);
        prop_assert_eq!(update.reach[0].next_hop, next_hop);
        prop_assert_eq!(list(&update.reach[0].nlri), ids(&rest[..count], add_path));
        prop_assert!(update.withdrawn.is_empty() && update.end_of_rib.is_none());
        rest = &rest[count..];
    }
    let mut rest = prefixes;
    while !rest.is_empty() {
        let mut out = BytesMut::new();
        let count = encode_unreach(ctx, rest, &mut out);
        prop_assert!(count > 0 && out.len() <= ctx.max_len());
        let update = update_of(&out, ctx);
        prop_assert_eq!(update.withdrawn.len(), 1);
        prop_assert_eq!(list(&update.withdrawn[0]), ids(&rest[..count], add_path));
        prop_assert!(update.reach.is_empty());
        rest = &rest[count..];
    }
    Ok(())
}

fn list4(list: &NlriList) -> Vec<Nlri<V4>> {
    match list {
        NlriList::V4(list) => list.clone(),
        NlriList::V6(_) => panic!("IPv6"),
    }
}

fn list6(list: &NlriList) -> Vec<Nlri<V6>> {
    match list {
        NlriList::V6(list) => list.clone(),
        NlriList::V4(_) => panic!("IPv4"),
    }
}

/// A valid message of any kind, its context, and where the parts of interest are.
fn any_message() -> impl Strategy<Value = (Context, Vec<u8>)> {
    let update = (context(), attributes(), v4(), nlri4(30), next_hop6(), nlri6(30), any::<[bool; 3]>())
        .prop_map(|(ctx, attributes, hop4, list4, hop6, list6, [v6, reach, eor])| {
            let mut out = BytesMut::new();
            match (eor, reach, v6) {
                (true, true, v6) => encode_end_of_rib(if v6 { Afi::Ipv6 } else { Afi::Ipv4 }, &mut out),
                (_, true, false) => {
                    encode_reach(&ctx, &attributes, NextHop::V4(hop4), &list4, &mut out);
                }
                (_, true, true) => {
                    encode_reach(&ctx, &attributes, hop6, &list6, &mut out);
                }
                (_, false, false) => {
                    encode_unreach(&ctx, &list4, &mut out);
                }
                (_, false, true) => {
                    encode_unreach(&ctx, &list6, &mut out);
                }
            }
            (ctx, out.to_vec())
        });
    let open = (context(), vec(capability(), 0..8), 1..=65535u16, 3..=65535u16, 1..=u32::MAX).prop_map(
        |(ctx, capabilities, my_as, hold_time, id)| {
            let mut out = BytesMut::new();
            let router_id = RouterId(Ipv4Addr::from_bits(id));
            encode_open(&Open { my_as, hold_time, router_id, capabilities }, &mut out);
            (ctx, out.to_vec())
        },
    );
    let other =
        (context(), 0..3, any::<(u8, u8)>(), octets(100)).prop_map(|(ctx, which, (code, subcode), data)| {
            let mut out = BytesMut::new();
            match which {
                0 => encode_keepalive(&mut out),
                1 => encode_notification(&Notification { code, subcode, data }, &mut out),
                _ => {
                    let family = WireFamily { afi: code.into(), safi: subcode };
                    encode_refresh(RouteRefresh { family, kind: RefreshKind::from_code(code) }, &mut out);
                }
            }
            (ctx, out.to_vec())
        });
    prop_oneof![4 => update, 1 => open, 1 => other]
}

/// Everything that framing gives for octets that arrive in these pieces.
fn framed(pieces: &[&[u8]], max_len: usize) -> (Vec<Vec<u8>>, Option<Notification>, usize) {
    let mut buffer: Vec<u8> = Vec::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend(*piece);
        loop {
            match next_frame(&buffer, max_len) {
                Next::NeedMore(more) => {
                    assert!(more > 0 && buffer.len() + more <= max_len);
                    break;
                }
                Next::Frame(frame) => {
                    let len = frame.bytes.len();
                    frames.push(frame.bytes.to_vec());
                    buffer.drain(..len);
                }
                Next::Fatal(notification) => return (frames, Some(notification), 0),
            }
        }
    }
    (frames, None, buffer.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn ipv4_routes_come_back_as_they_were_sent(
        ctx in context(), attributes in attributes(), hop in v4(), prefixes in nlri4(1200)
    ) {
        round_trip::<V4>(&ctx, &attributes, NextHop::V4(hop), &prefixes, list4)?;
    }

    #[test]
    fn ipv6_routes_come_back_as_they_were_sent(
        ctx in context(), attributes in attributes(), hop in next_hop6(), prefixes in nlri6(500)
    ) {
        round_trip::<V6>(&ctx, &attributes, hop, &prefixes, list6)?;
    }

    #[test]
    fn ipv4_routes_with_an_ipv6_next_hop_come_back_as_they_were_sent(
        ctx in context(), attributes in attributes(), hop in next_hop6(), prefixes in nlri4(300)
    ) {
        round_trip::<V4>(&ctx, &attributes, hop, &prefixes, list4)?;
    }

    #[test]
    fn an_open_comes_back_as_it_was_sent(
        capabilities in vec(capability(), 0..12), my_as in 1..=65535u16,
        hold_time in prop_oneof![Just(0), 3..=65535u16], id in 1..=u32::MAX,
    ) {
        let open = Open { my_as, hold_time, router_id: RouterId(Ipv4Addr::from_bits(id)), capabilities };
        let mut out = BytesMut::new();
        encode_open(&open, &mut out);
        prop_assert_eq!(decode_open(&out).unwrap(), open);
    }

    #[test]
    fn the_small_messages_come_back_as_they_were_sent(
        code in any::<u8>(), subcode in any::<u8>(), data in octets(4075), afi in any::<u16>(), kind in any::<u8>(),
    ) {
        let ctx = Context::new(PeerType::Ebgp);
        let notification = Notification { code, subcode, data };
        let refresh =
            RouteRefresh { family: WireFamily { afi, safi: subcode }, kind: RefreshKind::from_code(kind) };
        let mut out = BytesMut::new();
        encode_notification(&notification, &mut out);
        prop_assert_eq!(decode(&out, &ctx).unwrap().message, Message::Notification(notification));
        out.clear();
        encode_refresh(refresh, &mut out);
        prop_assert_eq!(decode(&out, &ctx).unwrap().message, Message::RouteRefresh(refresh));
    }

    #[test]
    fn messages_split_anywhere_are_framed_the_same(
        messages in vec(any_message(), 1..4), garbage in octets(40), cut in any::<prop::sample::Index>(),
        extended in any::<bool>(),
    ) {
        let max_len = if extended { frame::MAX_EXTENDED_LEN } else { frame::MAX_LEN };
        let mut stream: Vec<u8> = messages.into_iter().flat_map(|(_, message)| message).collect();
        stream.extend(garbage);
        let at = cut.index(stream.len().max(1)).min(stream.len());
        let whole = framed(&[&stream], max_len);
        prop_assert_eq!(framed(&[&stream[..at], &stream[at..]], max_len), whole.clone());
        if stream.len() < 3000 {
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(framed(&single, max_len), whole);
        }
    }

    #[test]
    fn no_octets_make_a_decoder_panic_and_what_it_accepts_is_stable(
        (ctx, mut message) in any_message(), peer in any::<bool>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        // The last place that looks at a message is one octet or a few away from a valid one.
        for (at, octet) in changes {
            if message.len() > 19 {
                let at = 19 + at.index(message.len() - 19);
                message[at] = octet;
            }
        }
        let ctx = Context { peer_type: if peer { PeerType::Ebgp } else { PeerType::Ibgp }, ..ctx };
        let Ok(decoded) = decode(&message, &ctx) else { return Ok(()) };
        let Message::Update(update) = decoded.message else { return Ok(()) };
        for reach in &update.reach {
            // Into the widest form: what was read with two octets may need more.
            let wide = Context { extended_message: true, as4: true, peer_type: PeerType::Ibgp, ..ctx.clone() };
            let mut out = BytesMut::new();
            let count = match &reach.nlri {
                NlriList::V4(list) => encode_reach(&wide, &update.attributes, reach.next_hop, list, &mut out),
                NlriList::V6(list) => encode_reach(&wide, &update.attributes, reach.next_hop, list, &mut out),
            };
            prop_assert_eq!(count, reach.nlri.len());
            let again = update_of(&out, &wide);
            prop_assert_eq!(&again.reach[0], reach);
            let mut sent = update.attributes.clone();
            sent.unknown.iter_mut().for_each(|one| one.flags |= 0x20);
            prop_assert_eq!(again.attributes, sent);
        }
    }

    #[test]
    fn random_octets_behind_a_header_never_panic(
        ctx in context(), kind in 0..7u8, body in vec(any::<u8>(), 0..400), length in option::of(any::<u16>()),
    ) {
        let mut message = vec![0xff; 16];
        message.extend(length.unwrap_or(19 + body.len() as u16).to_be_bytes());
        message.push(kind);
        message.extend(body);
        if let Err(fatal) = decode(&message, &ctx) {
            prop_assert!((1..=7).contains(&fatal.notification.code));
            prop_assert!(usize::from(fatal.fault.offset) <= message.len());
            prop_assert!(fatal.notification.data.len() <= Notification::MAX_DATA);
        }
        let _ = decode_open(&message);
    }
}
