//! The attributes of an UPDATE that announces and withdraws in both families. First octet: the context; second: which of
//! the good parts stand beside; then the attributes.
#![no_main]

use bgp_proto_fuzz::{check, context};
use libfuzzer_sys::fuzz_target;

/// ORIGIN, AS_PATH (empty, which is good in both sizes), NEXT_HOP.
const MANDATORY: &[u8] = &[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 0, 0, 1];
/// MP_REACH_NLRI with one IPv6 prefix behind a path id; without ids these are five prefixes.
const REACH: &[u8] = &[
    0x80, 14, 28, 0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 16,
    0x20, 1,
];
/// The same of IPv4.
const PREFIX: &[u8] = &[0, 0, 0, 0, 16, 10, 1];

fuzz_target!(|input: &[u8]| {
    let [octet, parts, attributes @ ..] = input else { return };
    let ctx = context(*octet);
    let mut all = Vec::new();
    if parts & 1 != 0 {
        all.extend_from_slice(MANDATORY);
    }
    if parts & 2 != 0 {
        all.extend_from_slice(REACH);
    }
    all.extend_from_slice(&attributes[..attributes.len().min(ctx.max_len() - 200)]);
    let nlri = if parts & 4 != 0 { PREFIX } else { &[] };
    let withdrawn = if parts & 8 != 0 { PREFIX } else { &[] };
    let len = 19 + 4 + withdrawn.len() + all.len() + nlri.len();
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&(len as u16).to_be_bytes());
    message.push(2);
    message.extend_from_slice(&(withdrawn.len() as u16).to_be_bytes());
    message.extend_from_slice(withdrawn);
    message.extend_from_slice(&(all.len() as u16).to_be_bytes());
    message.extend_from_slice(&all);
    message.extend_from_slice(nlri);
    check(&message, &ctx);
});
