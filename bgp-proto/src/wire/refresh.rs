//! ROUTE-REFRESH (RFC 2918, RFC 7313).
//!
//! Owns: the message in both directions. Never: decides whether a refresh is due or a family negotiated.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::Notification;
use crate::wire::capability::WireFamily;
use crate::wire::fault::{Fatal, Fault, FaultKind};
use crate::wire::frame::Frame;

/// The third octet of a ROUTE-REFRESH.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefreshKind {
    /// 0: send your routes again.
    Request,
    /// 1: Beginning of Route Refresh.
    Begin,
    /// 2: End of Route Refresh.
    End,
    /// Anything else; ignored (RFC 7313 §5).
    Unknown(u8),
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteRefresh {
    /// The family, known to us or not.
    pub family: WireFamily,
    /// Request or marker.
    pub kind: RefreshKind,
}

impl RefreshKind {
    /// The kind of a subtype octet.
    pub const fn from_code(code: u8) -> RefreshKind {
        match code {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        }
    }

    /// The subtype octet.
    pub const fn code(self) -> u8 {
        match self {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(code) => code,
        }
    }
}

/// Decodes a framed ROUTE-REFRESH.
pub(crate) fn decode(frame: Frame<'_>) -> Result<RouteRefresh, Fatal> {
    let Ok([high, low, kind, safi]) = <[u8; 4]>::try_from(frame.body()) else {
        // The data is the whole message (RFC 7313 §5), as much of it as a NOTIFICATION holds.
        let data = frame.bytes.get(..Notification::MAX_DATA).unwrap_or(frame.bytes);
        let notification = Notification { code: 7, subcode: 1, data: Bytes::copy_from_slice(data) };
        return Err(Fatal::new(notification, Fault::reset(16, FaultKind::RefreshLength)));
    };
    let family = WireFamily { afi: u16::from_be_bytes([high, low]), safi };
    Ok(RouteRefresh { family, kind: RefreshKind::from_code(kind) })
}

/// Appends the body.
pub(crate) fn encode(refresh: RouteRefresh, out: &mut BytesMut) {
    out.put_u16(refresh.family.afi);
    out.put_u8(refresh.kind.code());
    out.put_u8(refresh.family.safi);
}
