//! OPEN where lengths are at their limits, in both directions (RFC 4271 §4.2, RFC 5492, RFC 8654, RFC 9072).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bgp_proto::RouterId;
use bgp_proto::wire::*;
use bytes::{Bytes, BytesMut};

fn unknown(code: u8, len: usize) -> Capability {
    Capability::Unknown { code, value: Bytes::from(vec![code; len]) }
}

fn encoded(capabilities: Vec<Capability>) -> (Open, BytesMut) {
    let open = Open { my_as: 65001, hold_time: 90, router_id: RouterId([10, 0, 0, 1].into()), capabilities };
    let mut out = BytesMut::new();
    encode_open(&open, &mut out);
    (open, out)
}

#[test]
fn the_extended_form_is_used_only_where_the_parameters_need_it() {
    // Two capabilities of two octets more than their values, in one parameter of two octets more.
    let (open, out) = encoded(vec![unknown(200, 100), unknown(201, 149)]);
    assert_eq!(out[28..31], [255, 2, 253]);
    assert_eq!(decode_open(&out).unwrap(), open);
    let (open, out) = encoded(vec![unknown(200, 100), unknown(201, 150)]);
    assert_eq!(out[28..35], [255, 255, 1, 1, 2, 0, 254]);
    assert_eq!(decode_open(&out).unwrap(), open);
}

#[test]
fn capabilities_beyond_4096_octets_are_left_out() {
    let all: Vec<Capability> = (0..20).map(|n| unknown(200 + n, 255)).collect();
    let (_, out) = encoded(all.clone());
    assert!(out.len() <= 4096 && out.len() + 257 > 4096, "{}", out.len());
    assert_eq!(decode_open(&out).unwrap().capabilities, all[..15]);
    // To the last octet, and one more.
    for (last, count) in [(204, 16), (205, 15)] {
        let mut some = all[..15].to_vec();
        some.push(unknown(255, last));
        let (_, out) = encoded(some.clone());
        assert_eq!(decode_open(&out).unwrap().capabilities, some[..count], "{last}: {}", out.len());
    }
}

#[test]
fn a_known_capability_of_a_wrong_length_means_nothing() {
    for (code, lengths) in [
        (1, &[0, 3, 5][..]),
        (2, &[1, 4]),
        (5, &[1, 5, 7]),
        (6, &[1]),
        (9, &[0, 2]),
        (64, &[0, 1, 3, 5]),
        (65, &[0, 2, 5]),
        (69, &[1, 3, 5]),
        (70, &[1]),
        (71, &[1, 6, 8]),
    ] {
        for len in lengths {
            let (open, out) = encoded(vec![unknown(code, *len)]);
            assert_eq!(decode_open(&out).unwrap(), open, "{code} of {len}");
        }
    }
}
