//! NOTIFICATION (RFC 4271 §4.5, RFC 4486, 6608, 8538, 9003, 9687).

use bytes::Bytes;

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

impl Notification {
    /// A NOTIFICATION without data.
    pub const fn new(code: u8, subcode: u8) -> Self {
        Notification { code, subcode, data: Bytes::new() }
    }
}
