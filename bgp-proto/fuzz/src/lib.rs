//! What several fuzz targets check.

use bgp_proto::wire::attr::AttributeCodes;
use bgp_proto::wire::{
    Context, Fatal, Message, Nlri, NlriList, Notification, PeerType, Update, decode, encode_reach,
    encode_unreach,
};
use bgp_proto::{Afi, AfiSet, Family};
use bytes::BytesMut;

/// A context from one octet.
pub fn context(octet: u8) -> Context {
    let bit = |n: u8| octet & 1 << n != 0;
    let set = |v4, v6| {
        [(v4, Afi::Ipv4), (v6, Afi::Ipv6)].into_iter().filter(|(on, _)| *on).map(|(_, afi)| afi).collect()
    };
    let add_path: AfiSet = set(bit(0), bit(1));
    let families: AfiSet = if bit(6) { set(bit(0), !bit(0)) } else { AfiSet::BOTH };
    Context {
        as4: !bit(2),
        families,
        add_path_rx: add_path,
        add_path_tx: add_path,
        extended_next_hop: bit(5),
        extended_message: bit(4),
        accept_as_set: bit(7),
        ..Context::new(if bit(3) { PeerType::Ibgp } else { PeerType::Ebgp })
    }
}

/// Nobody gets more than he may see: the NOTIFICATION fits, and every place is in the message.
pub fn check_fatal(fatal: &Fatal, message: &[u8]) {
    assert!((1..=7).contains(&fatal.notification.code));
    assert!(fatal.notification.data.len() <= Notification::MAX_DATA);
    assert!(fatal.faults.contains(&fatal.fault));
    assert!(fatal.faults.iter().all(|fault| usize::from(fault.offset) <= message.len()));
}

fn same<F: Family>(all: &[Nlri<F>], some: &[Nlri<F>]) -> bool {
    all.len() == some.len() && all.iter().zip(some).all(|(a, b)| a == b)
}

fn equal(a: &NlriList, b: &NlriList) -> bool {
    match (a, b) {
        (NlriList::V4(a), NlriList::V4(b)) => same(a, b),
        (NlriList::V6(a), NlriList::V6(b)) => same(a, b),
        _ => false,
    }
}

/// Decodes a message. What is accepted must be in a form that the table can have, and must encode and decode to itself.
pub fn check(message: &[u8], ctx: &Context) {
    let decoded = match decode(message, ctx) {
        Ok(decoded) => decoded,
        Err(fatal) => return check_fatal(&fatal, message),
    };
    assert!(decoded.faults.iter().all(|fault| usize::from(fault.offset) <= message.len()));
    if let Message::Update(update) = decoded.message {
        check_update(&update, ctx);
    }
}

/// As [`check`], for an UPDATE that was accepted.
pub fn check_update(update: &Update, ctx: &Context) {
    // The widest coding: what came with two-octet AS numbers may need four, and two messages may become one.
    let wide = Context {
        as4: true,
        extended_message: true,
        extended_next_hop: true,
        peer_type: PeerType::Ibgp,
        families: AfiSet::BOTH,
        strip: AttributeCodes::NONE,
        ..ctx.clone()
    };
    for reach in &update.reach {
        assert!(ctx.families.contains(reach.nlri.afi()) && !reach.nlri.is_empty());
        let mut out = BytesMut::new();
        let count = match &reach.nlri {
            NlriList::V4(list) => encode_reach(&wide, &update.attributes, reach.next_hop, list, &mut out),
            NlriList::V6(list) => encode_reach(&wide, &update.attributes, reach.next_hop, list, &mut out),
        };
        if count < reach.nlri.len() {
            // Only where the message was nearly as large as any can be.
            assert!(out.is_empty() || out.len() > 50_000);
            continue;
        }
        let again = decode(&out, &wide).expect("what we encode is valid");
        assert_eq!(again.faults, []);
        let Message::Update(again) = again.message else { panic!("another type") };
        assert!(equal(&again.reach[0].nlri, &reach.nlri));
        assert_eq!(again.reach[0].next_hop, reach.next_hop);
        let mut sent = update.attributes.clone();
        sent.unknown.iter_mut().for_each(|one| one.flags |= 0x20);
        assert_eq!(again.attributes, sent);
    }
    for withdrawn in &update.withdrawn {
        assert!(ctx.families.contains(withdrawn.afi()) && !withdrawn.is_empty());
        let mut out = BytesMut::new();
        let count = match withdrawn {
            NlriList::V4(list) => encode_unreach(&wide, list, &mut out),
            NlriList::V6(list) => encode_unreach(&wide, list, &mut out),
        };
        if count == withdrawn.len() {
            let Message::Update(again) = decode(&out, &wide).expect("valid").message else {
                panic!("another type")
            };
            assert!(equal(&again.withdrawn[0], withdrawn));
        }
    }
}
