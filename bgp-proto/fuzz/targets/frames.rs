//! A stream of octets: however it is cut, the same messages come out, and each of them can be decoded. First octet: the
//! context; the next two: where the stream is cut; then the stream.
#![no_main]

use bgp_proto::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN};
use bgp_proto::wire::{Next, Notification, next_frame};
use bgp_proto_fuzz::{check, context};
use libfuzzer_sys::fuzz_target;

/// Messages, and how it ended.
type Framed = (Vec<Vec<u8>>, Option<Notification>);

fn frames(pieces: &[&[u8]], max_len: usize) -> Framed {
    let mut buffer = Vec::new();
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match next_frame(&buffer, max_len) {
                Next::NeedMore(more) => {
                    assert!(more > 0 && buffer.len() + more <= max_len);
                    break;
                }
                Next::Frame(frame) => {
                    let len = frame.bytes.len();
                    messages.push(frame.bytes.to_vec());
                    buffer.drain(..len);
                }
                Next::Fatal(notification) => return (messages, Some(notification)),
            }
        }
    }
    (messages, None)
}

fuzz_target!(|input: &[u8]| {
    let [octet, high, low, stream @ ..] = input else { return };
    let cut = u16::from_be_bytes([*high, *low]);
    let ctx = context(*octet);
    assert_eq!(ctx.max_len(), if ctx.extended_message { MAX_EXTENDED_LEN } else { MAX_LEN });
    let whole = frames(&[stream], ctx.max_len());
    let (head, tail) = stream.split_at(usize::from(cut).min(stream.len()));
    assert_eq!(frames(&[head, tail], ctx.max_len()), whole);
    for message in &whole.0 {
        check(message, &ctx);
    }
});
