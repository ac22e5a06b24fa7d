//! NOTIFICATION (RFC 4271 §4.5, RFC 4486, 6608, 7313, 8538, 9003, 9384, 9687).
//!
//! Owns: the message in both directions, the names of codes and subcodes, and the text that an administrator may have
//! put in. Never: decides when one is sent. What a peer wrote is printed escaped (W52).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::input::{In, Parsed, Parser, be_u8, rest};

/// A NOTIFICATION, sent or received.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode; 0 = unspecific.
    pub subcode: u8,
    /// Data field, verbatim.
    pub data: Bytes,
}

/// Names as BIRD prints them (CTL-19), those newer than BIRD 1.6 by their RFC.
const NAMES: [(u8, u8, &str); 48] = [
    (1, 0, "Invalid message header"),
    (1, 1, "Connection not synchronized"),
    (1, 2, "Bad message length"),
    (1, 3, "Bad message type"),
    (2, 0, "Invalid OPEN message"),
    (2, 1, "Unsupported version number"),
    (2, 2, "Bad peer AS"),
    (2, 3, "Bad BGP identifier"),
    (2, 4, "Unsupported optional parameter"),
    (2, 5, "Authentication failure"),
    (2, 6, "Unacceptable hold time"),
    (2, 7, "Required capability missing"),
    (2, 8, "No supported AFI/SAFI"),
    (2, 11, "Role mismatch"),
    (3, 0, "Invalid UPDATE message"),
    (3, 1, "Malformed attribute list"),
    (3, 2, "Unrecognized well-known attribute"),
    (3, 3, "Missing mandatory attribute"),
    (3, 4, "Invalid attribute flags"),
    (3, 5, "Invalid attribute length"),
    (3, 6, "Invalid ORIGIN attribute"),
    (3, 7, "AS routing loop"),
    (3, 8, "Invalid NEXT_HOP attribute"),
    (3, 9, "Optional attribute error"),
    (3, 10, "Invalid network field"),
    (3, 11, "Malformed AS_PATH"),
    (4, 0, "Hold timer expired"),
    (5, 0, "Unexpected message"),
    (5, 1, "Unexpected message in OpenSent state"),
    (5, 2, "Unexpected message in OpenConfirm state"),
    (5, 3, "Unexpected message in Established state"),
    (6, 0, "Cease"),
    (6, 1, "Maximum number of prefixes reached"),
    (6, 2, "Administrative shutdown"),
    (6, 3, "Peer de-configured"),
    (6, 4, "Administrative reset"),
    (6, 5, "Connection rejected"),
    (6, 6, "Other configuration change"),
    (6, 7, "Connection collision resolution"),
    (6, 8, "Out of Resources"),
    (6, 9, "Hard reset"),
    (6, 10, "BFD down"),
    (7, 0, "Invalid ROUTE-REFRESH message"),
    (7, 1, "Invalid ROUTE-REFRESH message length"),
    (8, 0, "Send hold timer expired"),
    (8, 1, "Send hold timer expired"),
    (9, 0, "Loss of LSDB synchronization"),
    (9, 1, "Loss of LSDB synchronization"),
];

impl Notification {
    /// Most octets of data that fit a message of 4096 octets.
    pub const MAX_DATA: usize = 4096 - 21;

    /// A NOTIFICATION without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Notification { code, subcode, data: Bytes::new() }
    }

    /// The name of code and subcode, if it has one.
    pub fn name(&self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(code, subcode, _)| (*code, *subcode) == (self.code, self.subcode))
            .map(|(.., name)| *name)
    }

    /// What an administrator wrote for us to read, with everything escaped that is not a printable character: the
    /// communication of Cease/2 and Cease/4 (RFC 9003 §2), also inside of a Hard Reset (RFC 8538 §3). `None` if there
    /// is none, or its length octet does not fit the data.
    pub fn communication(&self) -> Option<String> {
        let (code, subcode, data) = match (self.code, self.subcode) {
            (6, 9) => parts(&self.data).ok().map(|(_, inner)| inner)?,
            (code, subcode) => (code, subcode, &*self.data),
        };
        if !matches!((code, subcode), (6, 2 | 4)) {
            return None;
        }
        let (len, text) = data.split_first()?;
        let text = text.get(..usize::from(*len)).filter(|text| !text.is_empty())?;
        Some(escaped(text))
    }

    /// Decodes the body of a framed NOTIFICATION. One that is too short to say anything is 0/0: an error in a
    /// NOTIFICATION is not answered (RFC 4271 §6.4).
    pub(crate) fn decode(body: &[u8]) -> Notification {
        let (code, subcode, data) = parts(body).map(|(_, parts)| parts).unwrap_or_default();
        Notification { code, subcode, data: Bytes::copy_from_slice(data) }
    }

    /// Appends the body; data that no message holds is cut.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.code);
        out.put_u8(self.subcode);
        out.put_slice(self.data.get(..Notification::MAX_DATA).unwrap_or(&self.data));
    }
}

/// Code, subcode, data: the body of a message, and again the data of a Hard Reset.
fn parts(input: In<'_>) -> Parsed<'_, (u8, u8, In<'_>)> {
    (be_u8, be_u8, rest).parse(input)
}

/// Text of a stranger for a log or a terminal: valid UTF-8 stays but for controls and other invisible characters.
fn escaped(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '"' || c == '\'' {
                out.push(c);
            } else {
                out.extend(c.escape_debug());
            }
        }
        for octet in chunk.invalid() {
            out.extend(std::ascii::escape_default(*octet).map(char::from));
        }
    }
    out
}

impl fmt::Display for Notification {
    /// The name, or `Unknown error M.m` (CTL-19); then the communication, if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "Unknown error {}.{}", self.code, self.subcode)?,
        }
        match self.communication() {
            Some(text) => write!(f, ": \"{text}\""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cease(subcode: u8, data: &[u8]) -> Notification {
        Notification { code: 6, subcode, data: Bytes::copy_from_slice(data) }
    }

    #[test]
    fn every_name_stands_once_and_an_unknown_pair_is_told_by_its_numbers() {
        for (at, (code, subcode, _)) in NAMES.iter().enumerate() {
            assert!(!NAMES[..at].iter().any(|(c, s, _)| (c, s) == (code, subcode)), "{code}/{subcode}");
        }
        assert_eq!(Notification::new(2, 2).to_string(), "Bad peer AS");
        assert_eq!(Notification::new(6, 7).to_string(), "Connection collision resolution");
        assert_eq!(Notification::new(77, 3).to_string(), "Unknown error 77.3");
    }

    #[test]
    fn the_communication_is_shown_escaped_and_never_read_beyond_its_data() {
        assert_eq!(cease(2, b"\x05maint").communication().as_deref(), Some("maint"));
        assert_eq!(cease(4, "\u{8}grüße 1".as_bytes()).communication().as_deref(), Some("grüße "));
        assert_eq!(cease(2, b"\x08a\nb\x1b[0m\0x").communication().as_deref(), Some("a\\nb\\u{1b}[0m\\0"));
        assert_eq!(cease(2, b"\x03a\xff\xfe").communication().as_deref(), Some("a\\xff\\xfe"));
        assert_eq!(cease(2, &[b'x'; 256]).communication().map(|text| text.len()), Some(120));
        for none in [&b""[..], b"\0", b"\x05four"] {
            assert_eq!(cease(2, none).communication(), None, "{none:?}");
        }
        assert_eq!(cease(6, b"\x05maint").communication(), None);
        assert_eq!(cease(9, b"\x06\x02\x02ok").communication().as_deref(), Some("ok"));
        assert_eq!(cease(9, b"\x06").communication(), None);
    }
}
