//! Messages to octets (RFC 4271 §4), exactly BIRD's octets where those are known (BGP-16, BGP-18).
//!
//! Owns: encoding of every message and the packing of prefixes into UPDATEs. Never: decides what is announced; the
//! attributes that come in are those that go out.
//!
//! Attributes stand in ascending order of their codes but for MP_REACH_NLRI, which is last. Nothing is ever written
//! that exceeds the peer's limit: what does not fit is left to the caller, who is told.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use crate::ids::Asn;
use crate::prefix::{Afi, Family};
use crate::wire::attr::rules::{EXTENDED_LENGTH, OPTIONAL, PARTIAL, TRANSITIVE, code};
use crate::wire::attr::{AsPath, Attributes, NextHop, Origin};
use crate::wire::capability::WireFamily;
use crate::wire::frame::{HEADER_LEN, Kind};
use crate::wire::nlri;
use crate::wire::refresh::RouteRefresh;
use crate::wire::update::Nlri;
use crate::wire::{Context, Notification, Open, open, refresh};

/// Octets of an UPDATE without any route: header and two lengths.
const UPDATE_MIN: usize = HEADER_LEN + 4;

/// Begins a message; the length is filled in by [`finish`]. Returns where it begins.
fn begin(kind: Kind, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_bytes(0xff, 16);
    out.put_u16(0);
    out.put_u8(kind.code());
    start
}

/// Fills in a two-octet length at `at` that counts what stands between `from` and the end.
fn patch(out: &mut BytesMut, at: usize, from: usize) {
    let len = u16::try_from(out.len() - from).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

fn finish(out: &mut BytesMut, start: usize) {
    patch(out, start + 16, start);
}

/// Appends an OPEN.
pub fn encode_open(open: &Open, out: &mut BytesMut) {
    let start = begin(Kind::Open, out);
    open::encode(open, out);
    finish(out, start);
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut BytesMut) {
    let start = begin(Kind::Keepalive, out);
    finish(out, start);
}

/// Appends a NOTIFICATION; data beyond [`Notification::MAX_DATA`] is cut.
pub fn encode_notification(notification: &Notification, out: &mut BytesMut) {
    let start = begin(Kind::Notification, out);
    notification.encode(out);
    finish(out, start);
}

/// Appends a ROUTE-REFRESH.
pub fn encode_refresh(message: RouteRefresh, out: &mut BytesMut) {
    let start = begin(Kind::RouteRefresh, out);
    refresh::encode(message, out);
    finish(out, start);
}

/// Appends the End-of-RIB of a family (RFC 4724 §2).
pub fn encode_end_of_rib(afi: Afi, out: &mut BytesMut) {
    let start = begin(Kind::Update, out);
    match afi {
        Afi::Ipv4 => out.put_u32(0),
        Afi::Ipv6 => {
            out.put_slice(&[0, 0, 0, 6]);
            put_header(OPTIONAL, code::MP_UNREACH_NLRI, 3, out);
            put_family(afi, out);
        }
    }
    finish(out, start);
}

/// Appends one UPDATE that withdraws as many of `prefixes`, from the start, as one message holds, and says how many.
/// IPv4 goes into the Withdrawn Routes field, IPv6 into MP_UNREACH_NLRI. Nothing is appended for no prefixes.
pub fn encode_unreach<F: Family>(ctx: &Context, prefixes: &[Nlri<F>], out: &mut BytesMut) -> usize {
    let add_path = ctx.add_path_tx.contains(F::AFI);
    let room = ctx.max_len() - UPDATE_MIN;
    let (count, start) = match F::AFI {
        Afi::Ipv4 => {
            let (count, len) = nlri::fitting(prefixes, add_path, room);
            if count == 0 {
                return 0;
            }
            let start = begin(Kind::Update, out);
            put_len(len, out);
            nlri::encode(prefixes.get(..count).unwrap_or_default(), add_path, len, out);
            out.put_u16(0);
            (count, start)
        }
        Afi::Ipv6 => {
            let (count, len) = nlri::fitting(prefixes, add_path, room - 4 - 3);
            if count == 0 {
                return 0;
            }
            let start = begin(Kind::Update, out);
            out.put_u16(0);
            put_len(len + 3 + header_len(len + 3), out);
            put_header(OPTIONAL, code::MP_UNREACH_NLRI, len + 3, out);
            put_family(F::AFI, out);
            nlri::encode(prefixes.get(..count).unwrap_or_default(), add_path, len, out);
            (count, start)
        }
    };
    finish(out, start);
    count
}

/// Appends one UPDATE that announces as many of `prefixes`, from the start, as one message holds, and says how many.
///
/// 0 means that nothing was appended: there are no prefixes, or the attributes leave no room for one. Routes whose
/// attributes do not fit must be withdrawn from this peer (W50).
///
/// IPv4 with an IPv4 next hop goes into the NLRI field; everything else into MP_REACH_NLRI, where an IPv4-mapped
/// address stands for an IPv4 next hop of IPv6 prefixes (RFC 4798 §2, RFC 8950 §3).
pub fn encode_reach<F: Family>(
    ctx: &Context,
    attributes: &Attributes,
    next_hop: NextHop,
    prefixes: &[Nlri<F>],
    out: &mut BytesMut,
) -> usize {
    let start = begin(Kind::Update, out);
    out.put_u32(0);
    let attributes_at = out.len();
    let classic = match (F::AFI, next_hop) {
        (Afi::Ipv4, NextHop::V4(addr)) => Some(addr),
        _ => None,
    };
    put_attributes(ctx, attributes, classic, out);
    let add_path = ctx.add_path_tx.contains(F::AFI);
    let limit = start + ctx.max_len();
    let count = if classic.is_some() {
        patch(out, attributes_at - 2, attributes_at);
        let (count, len) = nlri::fitting(prefixes, add_path, limit.saturating_sub(out.len()));
        nlri::encode(prefixes.get(..count).unwrap_or_default(), add_path, len, out);
        count
    } else {
        let hop = next_hop_octets(next_hop);
        let hop = hop.as_slice();
        // Family, length of the next hop, next hop, reserved octet.
        let fixed = 3 + 1 + hop.len() + 1;
        let room = limit.saturating_sub(out.len());
        let (mut count, mut len) = nlri::fitting(prefixes, add_path, room.saturating_sub(fixed + 3));
        if header_len(fixed + len) == 4 {
            (count, len) = nlri::fitting(prefixes, add_path, room.saturating_sub(fixed + 4));
        }
        put_header(OPTIONAL, code::MP_REACH_NLRI, fixed + len, out);
        put_family(F::AFI, out);
        out.put_u8(hop.len().try_into().unwrap_or_default());
        out.put_slice(hop);
        out.put_u8(0);
        nlri::encode(prefixes.get(..count).unwrap_or_default(), add_path, len, out);
        patch(out, attributes_at - 2, attributes_at);
        count
    };
    if count == 0 {
        out.truncate(start);
        return 0;
    }
    finish(out, start);
    count
}

fn next_hop_octets(next_hop: NextHop) -> smallvec::SmallVec<[u8; 32]> {
    let mut octets = smallvec::SmallVec::new();
    match next_hop {
        NextHop::V4(addr) => octets.extend_from_slice(&addr.to_ipv6_mapped().octets()),
        NextHop::V6 { global, link_local } => {
            octets.extend_from_slice(&global.octets());
            if let Some(link_local) = link_local {
                octets.extend_from_slice(&link_local.octets());
            }
        }
    }
    octets
}

fn put_len(len: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(len).unwrap_or(u16::MAX));
}

fn put_family(afi: Afi, out: &mut BytesMut) {
    let family = WireFamily::from(afi);
    out.put_u16(family.afi);
    out.put_u8(family.safi);
}

/// Octets of an attribute header for a value of `len` octets.
const fn header_len(len: usize) -> usize {
    if len > 255 { 4 } else { 3 }
}

fn put_header(flags: u8, code: u8, len: usize, out: &mut BytesMut) {
    match u8::try_from(len) {
        Ok(len) => out.put_slice(&[flags, code, len]),
        Err(_) => {
            out.put_slice(&[flags | EXTENDED_LENGTH, code]);
            put_len(len, out);
        }
    }
}

/// Appends everything but the attributes that carry prefixes, in ascending order of codes.
fn put_attributes(ctx: &Context, attributes: &Attributes, next_hop: Option<Ipv4Addr>, out: &mut BytesMut) {
    const WELL_KNOWN: u8 = TRANSITIVE;
    const BOTH: u8 = OPTIONAL | TRANSITIVE;
    let mut unknown = attributes.unknown.iter().peekable();
    // Unknown attributes stand between the others by their codes.
    let mut unknown_below = |code: u8, out: &mut BytesMut| {
        while let Some(attribute) = unknown.next_if(|attribute| attribute.code < code) {
            // We did not recognize it, and say so (RFC 4271 §5); a non-transitive one is not passed on.
            if attribute.flags & BOTH == BOTH {
                put_header(attribute.flags | PARTIAL, attribute.code, attribute.value.len(), out);
                out.put_slice(&attribute.value);
            }
        }
    };
    put_header(WELL_KNOWN, code::ORIGIN, 1, out);
    out.put_u8(match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    });
    put_path(code::AS_PATH, WELL_KNOWN, &attributes.as_path, ctx.as4, out);
    if let Some(addr) = next_hop {
        put_number(WELL_KNOWN, code::NEXT_HOP, addr.to_bits(), out);
    }
    if let Some(med) = attributes.med {
        put_number(OPTIONAL, code::MULTI_EXIT_DISC, med, out);
    }
    if let Some(local_pref) = attributes.local_pref {
        put_number(WELL_KNOWN, code::LOCAL_PREF, local_pref, out);
    }
    if attributes.atomic_aggregate {
        put_header(WELL_KNOWN, code::ATOMIC_AGGREGATE, 0, out);
    }
    if let Some(aggregator) = attributes.aggregator {
        put_header(BOTH, code::AGGREGATOR, if ctx.as4 { 8 } else { 6 }, out);
        put_asn(aggregator.asn, ctx.as4, out);
        out.put_u32(aggregator.router_id.to_bits());
    }
    put_words(BOTH, code::COMMUNITIES, attributes.communities.iter().copied(), out);
    if let Some(id) = attributes.originator_id {
        put_number(OPTIONAL, code::ORIGINATOR_ID, id.0.to_bits(), out);
    }
    put_words(OPTIONAL, code::CLUSTER_LIST, attributes.cluster_list.iter().map(|id| id.0.to_bits()), out);
    unknown_below(code::EXTENDED_COMMUNITIES, out);
    if !attributes.ext_communities.is_empty() {
        let octets = attributes.ext_communities.as_flattened();
        put_header(BOTH, code::EXTENDED_COMMUNITIES, octets.len(), out);
        out.put_slice(octets);
    }
    unknown_below(code::AS4_PATH, out);
    if !ctx.as4 {
        // What does not fit two octets travels beside (RFC 6793 §4.2.2).
        if attributes.as_path.asns().any(large) {
            put_path(code::AS4_PATH, BOTH, &attributes.as_path, true, out);
        }
        if let Some(aggregator) = attributes.aggregator.filter(|aggregator| large(aggregator.asn)) {
            put_header(BOTH, code::AS4_AGGREGATOR, 8, out);
            put_asn(aggregator.asn, true, out);
            out.put_u32(aggregator.router_id.to_bits());
        }
    }
    unknown_below(code::LARGE_COMMUNITY, out);
    put_words(BOTH, code::LARGE_COMMUNITY, attributes.large_communities.as_flattened().iter().copied(), out);
    unknown_below(code::ONLY_TO_CUSTOMER, out);
    if let Some(asn) = attributes.otc {
        put_number(BOTH, code::ONLY_TO_CUSTOMER, asn.0, out);
    }
    unknown_below(u8::MAX, out);
    // 255 is a code like any other; nothing is above it.
    for attribute in unknown {
        if attribute.flags & BOTH == BOTH {
            put_header(attribute.flags | PARTIAL, attribute.code, attribute.value.len(), out);
            out.put_slice(&attribute.value);
        }
    }
}

fn large(asn: Asn) -> bool {
    asn.0 > u32::from(u16::MAX)
}

fn put_asn(asn: Asn, as4: bool, out: &mut BytesMut) {
    if as4 { out.put_u32(asn.0) } else { out.put_u16(asn.two_octets()) }
}

fn put_path(code: u8, flags: u8, path: &AsPath, as4: bool, out: &mut BytesMut) {
    put_header(flags, code, path.encoded_len(as4), out);
    path.encode(as4, out);
}

fn put_number(flags: u8, code: u8, number: u32, out: &mut BytesMut) {
    put_header(flags, code, 4, out);
    out.put_u32(number);
}

/// A list of numbers; left out when empty, which no list attribute may be.
fn put_words(flags: u8, code: u8, words: impl ExactSizeIterator<Item = u32>, out: &mut BytesMut) {
    if words.len() == 0 {
        return;
    }
    put_header(flags, code, 4 * words.len(), out);
    words.for_each(|word| out.put_u32(word));
}
