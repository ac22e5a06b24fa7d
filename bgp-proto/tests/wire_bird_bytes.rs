//! Octets that BIRD 1.6 sent on a wire (Calico's configuration), and what we make of them and of the same values.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bgp_proto::wire::attr::AttributeCodes;
use bgp_proto::wire::capability::{GrFamily, WireFamily};
use bgp_proto::wire::*;
use bgp_proto::{Afi, AfiSet, Asn, ClusterId, RouterId, V4, V6};
use bytes::BytesMut;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn ibgp(add_path: AfiSet) -> Context {
    Context { add_path_rx: add_path, add_path_tx: add_path, ..Context::new(PeerType::Ibgp) }
}

fn update(message: &[u8], ctx: &Context) -> Update {
    let decoded = decode(message, ctx).unwrap();
    assert_eq!(decoded.faults, []);
    match decoded.message {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}

const M: &str = "ffffffffffffffffffffffffffffffff";

#[test]
fn our_open_is_birds_octet_for_octet() {
    for (afi, restarting, hex) in [
        (
            Afi::Ipv4,
            false,
            "003f0104fc0000f00a6300012202200104000100010200400600780001010041040000fc0045040001010346004700",
        ),
        (
            Afi::Ipv6,
            false,
            "003f0104fc0000f00a6300012202200104000200010200400600780002010041040000fc0045040002010346004700",
        ),
        (
            Afi::Ipv4,
            true,
            "003f0104fc0000f00a6300012202200104000100010200400680780001018041040000fc0045040001010346004700",
        ),
    ] {
        let family = WireFamily::from(afi);
        let open = Open {
            my_as: 64512,
            hold_time: 240,
            router_id: RouterId([10, 99, 0, 1].into()),
            capabilities: vec![
                Capability::Multiprotocol(family),
                Capability::RouteRefresh,
                Capability::GracefulRestart {
                    restarting,
                    notification: false,
                    time: 120,
                    families: vec![GrFamily { family, forwarding: restarting }],
                },
                Capability::FourOctetAs(Asn(64512)),
                Capability::AddPath(vec![(family, 3)]),
                Capability::EnhancedRefresh,
                Capability::LongLivedGr(vec![]),
            ],
        };
        let message = bytes(&format!("{M}{hex}"));
        let mut out = BytesMut::new();
        encode_open(&open, &mut out);
        assert_eq!(out, message);
        assert_eq!(decode_open(&message).unwrap(), open);
    }
}

#[test]
fn our_ipv4_update_is_birds_octet_for_octet() {
    let message = bytes(&format!(
        "{M}003e0200000015400101004002004003040a6300014005047ffffbff000000021a0af40040000000021a0af40000"
    ));
    let ctx = ibgp(AfiSet::only(Afi::Ipv4));
    let update = update(&message, &ctx);
    let Reach { next_hop, nlri: NlriList::V4(list) } = &update.reach[0] else { panic!() };
    assert_eq!(*next_hop, NextHop::V4([10, 99, 0, 1].into()));
    let texts: Vec<String> = list.iter().map(|n| format!("{} {}", n.path_id, n.prefix)).collect();
    assert_eq!(texts, ["2 10.244.0.64/26", "2 10.244.0.0/26"]);
    assert_eq!(update.attributes, Attributes { local_pref: Some(0x7fff_fbff), ..Attributes::default() });
    let mut out = BytesMut::new();
    assert_eq!(encode_reach::<V4>(&ctx, &update.attributes, *next_hop, list, &mut out), 2);
    assert_eq!(out, message);
}

#[test]
fn a_reflected_ipv4_update_is_birds_octet_for_octet() {
    let message = bytes(&format!(
        "{M}00430200000023400101004002004003040a6300034005047ffffbff8009040a630003800a04f40000010000000a1a0af40200"
    ));
    let ctx = ibgp(AfiSet::only(Afi::Ipv4));
    let update = update(&message, &ctx);
    assert_eq!(update.attributes.originator_id, Some(RouterId([10, 99, 0, 3].into())));
    assert_eq!(update.attributes.cluster_list, [ClusterId([0xf4, 0, 0, 1].into())]);
    let Reach { next_hop, nlri: NlriList::V4(list) } = &update.reach[0] else { panic!() };
    let mut out = BytesMut::new();
    assert_eq!(encode_reach::<V4>(&ctx, &update.attributes, *next_hop, list, &mut out), 1);
    assert_eq!(out, message);
}

#[test]
fn our_ipv6_update_is_birds_octet_for_octet() {
    let message = bytes(&format!(
        "{M}0052020000003b400101004002004005047ffffbff800e2a00020110fd990000000000000000000000000001\
         00000000027afd000010024400000001000000000000"
    ));
    let ctx = ibgp(AfiSet::only(Afi::Ipv6));
    let update = update(&message, &ctx);
    let Reach { next_hop, nlri: NlriList::V6(list) } = &update.reach[0] else { panic!() };
    assert_eq!(*next_hop, NextHop::V6 { global: "fd99::1".parse().unwrap(), link_local: None });
    assert_eq!(list[0].prefix.to_string(), "fd00:10:244:0:1::/122");
    let mut out = BytesMut::new();
    assert_eq!(encode_reach::<V6>(&ctx, &update.attributes, *next_hop, list, &mut out), 1);
    assert_eq!(out, message);
}

#[test]
fn both_end_of_ribs_are_birds_octet_for_octet() {
    for (afi, hex) in [(Afi::Ipv4, "00170200000000"), (Afi::Ipv6, "001d0200000006800f03000201")] {
        let message = bytes(&format!("{M}{hex}"));
        let update = update(&message, &ibgp(AfiSet::BOTH));
        assert_eq!(update, Update { end_of_rib: Some(afi), ..Update::default() });
        let mut out = BytesMut::new();
        encode_end_of_rib(afi, &mut out);
        assert_eq!(out, message);
    }
}

#[test]
fn keepalive_and_notification_are_birds_octet_for_octet() {
    let mut out = BytesMut::new();
    encode_keepalive(&mut out);
    encode_notification(&Notification::new(6, 4), &mut out);
    assert_eq!(out, bytes(&format!("{M}001304{M}0015030604")));
}

#[test]
fn an_external_peer_has_the_attributes_stripped_that_calico_nodes_should_not_carry() {
    let ctx = Context::new(PeerType::Ebgp);
    assert_eq!(ctx.strip, AttributeCodes::of(&[22, 23, 29, 40, 128]));
    assert_eq!(Context::new(PeerType::Ibgp).strip, AttributeCodes::NONE);
}
