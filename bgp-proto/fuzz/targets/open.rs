//! OPEN: any body; what is accepted encodes and decodes to itself.
#![no_main]

use bgp_proto::wire::{decode_open, encode_open};
use bgp_proto_fuzz::check_fatal;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let body = &body[..body.len().min(4096 - 19)];
    let mut message = vec![0xff; 16];
    message.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    message.push(1);
    message.extend_from_slice(body);
    match decode_open(&message) {
        Ok(open) => {
            let mut out = BytesMut::new();
            encode_open(&open, &mut out);
            assert_eq!(decode_open(&out).as_ref(), Ok(&open));
        }
        Err(fatal) => check_fatal(&fatal, &message),
    }
});
