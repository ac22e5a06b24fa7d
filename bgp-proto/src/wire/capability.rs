//! Capabilities of OPEN (RFC 5492).

use bytes::Bytes;

use crate::ids::Asn;

/// A family as numbers on the wire, known to us or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WireFamily {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

/// One family of a graceful restart capability (RFC 4724 §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GrFamily {
    /// The family.
    pub family: WireFamily,
    /// The F bit: forwarding state was preserved.
    pub forwarding: bool,
}

/// One capability. Known codes with a wrong fixed length, and unknown codes, are kept verbatim (W13, W14).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Capability {
    /// 1, RFC 4760.
    Multiprotocol(WireFamily),
    /// 2, RFC 2918.
    RouteRefresh,
    /// 5, RFC 8950: (family, next hop AFI).
    ExtendedNextHop(Vec<(WireFamily, u16)>),
    /// 6, RFC 8654.
    ExtendedMessage,
    /// 9, RFC 9234.
    Role(u8),
    /// 64, RFC 4724, RFC 8538.
    GracefulRestart {
        /// The R bit.
        restarting: bool,
        /// The N bit (RFC 8538).
        notification: bool,
        /// Seconds, 12 bits.
        time: u16,
        /// Families in the order sent.
        families: Vec<GrFamily>,
    },
    /// 65, RFC 6793.
    FourOctetAs(Asn),
    /// 69, RFC 7911: (family, mode: 1 receive, 2 send, 3 both).
    AddPath(Vec<(WireFamily, u8)>),
    /// 70, RFC 7313.
    EnhancedRefresh,
    /// 71, RFC 9494: (family, F bit, stale time in seconds).
    LongLivedGr(Vec<(GrFamily, u32)>),
    /// 73, draft-walton-bgp-hostname: host and domain name.
    Fqdn {
        /// Host name.
        host: Bytes,
        /// Domain name.
        domain: Bytes,
    },
    /// 75, draft-abraitis-bgp-version-capability.
    SoftwareVersion(Bytes),
    /// Anything else, verbatim.
    Unknown {
        /// Capability code.
        code: u8,
        /// Its value.
        value: Bytes,
    },
}
