//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use crate::wire::capability::WireFamily;

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
