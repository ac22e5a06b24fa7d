//! One message with a good header, in any context. First octet: the context; second: the type; then the body.
#![no_main]

use bgp_proto_fuzz::{check, context};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [octet, kind, body @ ..] = input else { return };
    let ctx = context(*octet);
    let body = &body[..body.len().min(ctx.max_len() - 19)];
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    message.push(1 + kind % 5);
    message.extend_from_slice(body);
    check(&message, &ctx);
});
