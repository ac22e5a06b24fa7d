//! Where one message ends and the next begins (RFC 4271 §4.1, §6.1; RFC 8654 §3).
//!
//! Owns: the 19-octet header, the message types, and every rule about the length of a whole message (W1 to W6). Never:
//! looks into a message, keeps state, or asks for more bytes than a valid message may have.
//!
//! Input: what a connection has delivered so far. Output: a whole message, how many more bytes are needed, or the
//! NOTIFICATION that ends the connection. What can never become valid is told as soon as the bytes show it, so that no
//! buffer grows for it.

use bytes::Bytes;

use crate::wire::fault::{Fault, FaultKind};
use crate::wire::{Fatal, Notification};

/// Octets of the header.
pub const HEADER_LEN: usize = 19;
/// Largest message without the extended message capability; always the limit of OPEN and KEEPALIVE.
pub const MAX_LEN: usize = 4096;
/// Largest message with the extended message capability (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65535;

/// The type octet of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// 1.
    Open,
    /// 2.
    Update,
    /// 3.
    Notification,
    /// 4.
    Keepalive,
    /// 5 (RFC 2918).
    RouteRefresh,
}

impl Kind {
    /// The kind of a type octet.
    pub const fn from_code(code: u8) -> Option<Kind> {
        match code {
            1 => Some(Kind::Open),
            2 => Some(Kind::Update),
            3 => Some(Kind::Notification),
            4 => Some(Kind::Keepalive),
            5 => Some(Kind::RouteRefresh),
            _ => None,
        }
    }

    /// The type octet.
    pub const fn code(self) -> u8 {
        match self {
            Kind::Open => 1,
            Kind::Update => 2,
            Kind::Notification => 3,
            Kind::Keepalive => 4,
            Kind::RouteRefresh => 5,
        }
    }

    /// The name in the RFCs.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Open => "OPEN",
            Kind::Update => "UPDATE",
            Kind::Notification => "NOTIFICATION",
            Kind::Keepalive => "KEEPALIVE",
            Kind::RouteRefresh => "ROUTE-REFRESH",
        }
    }

    /// Shortest and longest message of this kind on a connection that allows `max_len`.
    ///
    /// ROUTE-REFRESH is not bounded here beyond the header: a wrong length of it is an error of that message, not of
    /// the header, and its NOTIFICATION quotes the whole message (RFC 7313 §5).
    const fn lengths(self, max_len: usize) -> (usize, usize) {
        match self {
            Kind::Open => (29, if max_len < MAX_LEN { max_len } else { MAX_LEN }),
            Kind::Update => (23, max_len),
            Kind::Notification => (21, max_len),
            Kind::Keepalive => (HEADER_LEN, HEADER_LEN),
            Kind::RouteRefresh => (HEADER_LEN, max_len),
        }
    }
}

/// One whole message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// All of it, header included.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The message without its header.
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// What the head of a buffer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next<'a> {
    /// At least so many bytes more are needed before anything can be said; never 0, and never more than complete the
    /// header or, once that is there, the message.
    NeedMore(usize),
    /// A whole message; the caller goes on after `bytes.len()` octets.
    Frame(Frame<'a>),
    /// Nothing that follows can make this a message: send this and close.
    Fatal(Notification),
}

/// Takes the message at the head of `buf`, where messages of up to `max_len` octets are allowed ([`MAX_LEN`] or
/// [`MAX_EXTENDED_LEN`]).
pub fn next_frame(buf: &[u8], max_len: usize) -> Next<'_> {
    match take(buf, max_len) {
        Ok(Head::NeedMore(more)) => Next::NeedMore(more),
        Ok(Head::Frame(frame)) => Next::Frame(frame),
        Err(fatal) => Next::Fatal(fatal.notification),
    }
}

/// What [`take`] found, when it is no error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head<'a> {
    /// As [`Next::NeedMore`].
    NeedMore(usize),
    /// As [`Next::Frame`].
    Frame(Frame<'a>),
}

/// As [`next_frame`], with the offset and the clause of an error.
pub fn take(buf: &[u8], max_len: usize) -> Result<Head<'_>, Fatal> {
    if let Some(at) = buf.iter().take(16).position(|octet| *octet != 0xff) {
        return Err(header_error(1, Bytes::new(), at, FaultKind::Marker));
    }
    let Some(&[high, low]) = buf.get(16..18) else {
        return Ok(Head::NeedMore(HEADER_LEN.saturating_sub(buf.len())));
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    // Only the two octets that were sent go into the data field; echoing "the message" by its own length is how
    // CVE-2017-15865 disclosed memory.
    let bad_length = || header_error(2, Bytes::copy_from_slice(&[high, low]), 16, FaultKind::MessageLength);
    if len < HEADER_LEN || len > max_len {
        return Err(bad_length());
    }
    let Some(&code) = buf.get(18) else {
        return Ok(Head::NeedMore(1));
    };
    let Some(kind) = Kind::from_code(code) else {
        return Err(header_error(3, Bytes::copy_from_slice(&[code]), 18, FaultKind::MessageType));
    };
    let (shortest, longest) = kind.lengths(max_len);
    if len < shortest || len > longest {
        return Err(bad_length());
    }
    match buf.get(..len) {
        Some(bytes) => Ok(Head::Frame(Frame { kind, bytes })),
        None => Ok(Head::NeedMore(len.saturating_sub(buf.len()))),
    }
}

fn header_error(subcode: u8, data: Bytes, offset: usize, kind: FaultKind) -> Fatal {
    Fatal::new(Notification { code: 1, subcode, data }, Fault::reset(offset, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: u16, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0xff; 16];
        bytes.extend(len.to_be_bytes());
        bytes.push(kind);
        bytes.resize(usize::from(len).max(HEADER_LEN), 0);
        bytes
    }

    fn refused(buf: &[u8], max_len: usize) -> (u8, u8, Vec<u8>) {
        match next_frame(buf, max_len) {
            Next::Fatal(n) => (n.code, n.subcode, n.data.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wrong_marker_octet_is_refused_as_soon_as_it_is_seen() {
        for at in 0..16 {
            let mut bytes = message(19, 4);
            bytes[at] = 0xfe;
            assert_eq!(refused(&bytes, MAX_LEN), (1, 1, vec![]));
            assert_eq!(refused(&bytes[..=at], MAX_LEN), (1, 1, vec![]));
        }
    }

    #[test]
    fn a_length_outside_the_limits_is_refused_with_the_two_length_octets_only() {
        for len in [0, 1, 18, 4097, 65535] {
            assert_eq!(refused(&message(len, 2)[..18], MAX_LEN), (1, 2, len.to_be_bytes().to_vec()));
        }
        assert!(matches!(next_frame(&message(65535, 2), MAX_EXTENDED_LEN), Next::Frame(_)));
    }

    #[test]
    fn each_type_has_its_own_shortest_and_longest_length() {
        for (kind, len, ok) in [
            (1, 28, false),
            (1, 29, true),
            (1, 4096, true),
            (1, 4097, false),
            (2, 22, false),
            (2, 23, true),
            (2, 65535, true),
            (3, 20, false),
            (3, 21, true),
            (4, 19, true),
            (4, 20, false),
            (5, 23, true),
        ] {
            let bytes = message(len, kind);
            if ok {
                assert!(matches!(next_frame(&bytes, MAX_EXTENDED_LEN), Next::Frame(_)), "{kind} {len}");
            } else {
                assert_eq!(
                    refused(&bytes, MAX_EXTENDED_LEN),
                    (1, 2, len.to_be_bytes().to_vec()),
                    "{kind} {len}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_type_is_refused_with_the_type_as_data() {
        for kind in [0, 6, 128, 255] {
            assert_eq!(refused(&message(19, kind), MAX_LEN), (1, 3, vec![kind]));
        }
    }

    #[test]
    fn the_bytes_still_needed_are_never_more_than_complete_the_header_or_the_message() {
        let bytes = message(60, 2);
        for have in 0..60 {
            let want = if have < 18 {
                HEADER_LEN - have
            } else if have < 19 {
                1
            } else {
                60 - have
            };
            assert_eq!(next_frame(&bytes[..have], MAX_LEN), Next::NeedMore(want), "{have}");
        }
    }

    #[test]
    fn what_follows_a_message_is_left_alone() {
        let mut bytes = message(19, 4);
        bytes.extend([1, 2, 3]);
        let Next::Frame(frame) = next_frame(&bytes, MAX_LEN) else { panic!() };
        assert_eq!(frame.bytes, &bytes[..19]);
        assert_eq!(frame.body(), b"");
    }
}
