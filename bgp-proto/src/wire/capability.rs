//! Capabilities of OPEN (RFC 5492).
//!
//! Owns: each capability's value in both directions. Never: decides what both sides agree on; that is negotiation. A
//! value that does not have the form of its capability is kept verbatim and means nothing (W13).

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::Asn;
use crate::prefix::Afi;
use crate::wire::input::{In, Parsed, Parser, be_u8, be_u16, be_u32, length_data};

/// AFI and SAFI.
pub(crate) fn wire_family(input: In<'_>) -> Parsed<'_, WireFamily> {
    (be_u16, be_u8).map(|(afi, safi)| WireFamily { afi, safi }).parse(input)
}

/// A family as numbers on the wire, known to us or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WireFamily {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

impl WireFamily {
    /// The family that we speak, if it is one: unicast of IPv4 or IPv6.
    pub const fn unicast(self) -> Option<Afi> {
        if self.safi == 1 { Afi::from_code(self.afi) } else { None }
    }
}

impl From<Afi> for WireFamily {
    fn from(afi: Afi) -> Self {
        WireFamily { afi: afi.code(), safi: 1 }
    }
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

/// Capability codes (IANA).
pub mod code {
    #![allow(missing_docs, reason = "the names are those of the registry")]
    pub const MULTIPROTOCOL: u8 = 1;
    pub const ROUTE_REFRESH: u8 = 2;
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    pub const EXTENDED_MESSAGE: u8 = 6;
    pub const ROLE: u8 = 9;
    pub const GRACEFUL_RESTART: u8 = 64;
    pub const FOUR_OCTET_AS: u8 = 65;
    pub const ADD_PATH: u8 = 69;
    pub const ENHANCED_REFRESH: u8 = 70;
    pub const LONG_LIVED_GR: u8 = 71;
    pub const FQDN: u8 = 73;
    pub const SOFTWARE_VERSION: u8 = 75;
}

/// Bits of the graceful restart flags and time (RFC 4724 §3, RFC 8538 §2).
const GR_RESTARTING: u16 = 0x8000;
const GR_NOTIFICATION: u16 = 0x4000;
const GR_TIME: u16 = 0x0fff;
/// The F bit of a family (RFC 4724 §3, RFC 9494 §3.1).
const FORWARDING: u8 = 0x80;

/// Applies `step` until the value is used up.
fn each<'a, T>(value: In<'a>, mut step: impl FnMut(In<'a>) -> Parsed<'a, T>) -> Option<Vec<T>> {
    let mut rest = value;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (after, one) = step(rest).ok()?;
        all.push(one);
        rest = after;
    }
    Some(all)
}

/// Applies `step`, which must use the value up.
fn whole<'a, T>(value: In<'a>, mut step: impl FnMut(In<'a>) -> Parsed<'a, T>) -> Option<T> {
    step(value).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, one)| one)
}

fn gr_family(input: In<'_>) -> Parsed<'_, GrFamily> {
    (wire_family, be_u8)
        .map(|(family, flags)| GrFamily { family, forwarding: flags & FORWARDING != 0 })
        .parse(input)
}

fn llgr_family(input: In<'_>) -> Parsed<'_, (GrFamily, u32)> {
    (gr_family, be_u8, be_u16)
        .map(|(family, high, low)| (family, u32::from(high) << 16 | u32::from(low)))
        .parse(input)
}

fn names(input: In<'_>) -> Parsed<'_, (In<'_>, In<'_>)> {
    (length_data(be_u8), length_data(be_u8)).parse(input)
}

impl Capability {
    /// The capability of this code and value.
    pub(crate) fn decode(code: u8, value: &[u8]) -> Capability {
        Capability::known(code, value)
            .unwrap_or_else(|| Capability::Unknown { code, value: Bytes::copy_from_slice(value) })
    }

    fn known(code: u8, value: &[u8]) -> Option<Capability> {
        Some(match code {
            code::MULTIPROTOCOL => {
                // The octet between AFI and SAFI is reserved and ignored.
                let (afi, _, safi) = whole(value, |value| (be_u16, be_u8, be_u8).parse(value))?;
                Capability::Multiprotocol(WireFamily { afi, safi })
            }
            code::ROUTE_REFRESH if value.is_empty() => Capability::RouteRefresh,
            code::EXTENDED_NEXT_HOP => Capability::ExtendedNextHop(each(value, |value| {
                (be_u16, be_u16, be_u16)
                    .map(|(afi, safi, hop)| (WireFamily { afi, safi: safi.try_into().unwrap_or(0) }, hop))
                    .parse(value)
            })?),
            code::EXTENDED_MESSAGE if value.is_empty() => Capability::ExtendedMessage,
            code::ROLE => Capability::Role(whole(value, be_u8)?),
            code::GRACEFUL_RESTART => {
                let (flags, families) = value.split_first_chunk::<2>()?;
                let flags = u16::from_be_bytes(*flags);
                Capability::GracefulRestart {
                    restarting: flags & GR_RESTARTING != 0,
                    notification: flags & GR_NOTIFICATION != 0,
                    time: flags & GR_TIME,
                    families: each(families, gr_family)?,
                }
            }
            code::FOUR_OCTET_AS => Capability::FourOctetAs(Asn(whole(value, be_u32)?)),
            code::ADD_PATH => Capability::AddPath(each(value, |value| (wire_family, be_u8).parse(value))?),
            code::ENHANCED_REFRESH if value.is_empty() => Capability::EnhancedRefresh,
            code::LONG_LIVED_GR => Capability::LongLivedGr(each(value, llgr_family)?),
            code::FQDN => {
                let (host, domain) = whole(value, names)?;
                Capability::Fqdn {
                    host: Bytes::copy_from_slice(host),
                    domain: Bytes::copy_from_slice(domain),
                }
            }
            code::SOFTWARE_VERSION => {
                let version = whole(value, |value| length_data(be_u8).parse(value))?;
                Capability::SoftwareVersion(Bytes::copy_from_slice(version))
            }
            _ => return None,
        })
    }

    /// Its code.
    pub fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => code::MULTIPROTOCOL,
            Capability::RouteRefresh => code::ROUTE_REFRESH,
            Capability::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
            Capability::Role(_) => code::ROLE,
            Capability::GracefulRestart { .. } => code::GRACEFUL_RESTART,
            Capability::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Capability::AddPath(_) => code::ADD_PATH,
            Capability::EnhancedRefresh => code::ENHANCED_REFRESH,
            Capability::LongLivedGr(_) => code::LONG_LIVED_GR,
            Capability::Fqdn { .. } => code::FQDN,
            Capability::SoftwareVersion(_) => code::SOFTWARE_VERSION,
            Capability::Unknown { code, .. } => *code,
        }
    }

    /// Its value as octets. Reserved bits that were ignored on receipt are zero.
    pub fn value(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.put_value(&mut out);
        out.freeze()
    }

    fn put_value(&self, out: &mut BytesMut) {
        let put_family = |family: &WireFamily, out: &mut BytesMut| {
            out.put_u16(family.afi);
            out.put_u8(family.safi);
        };
        let put_gr = |family: &GrFamily, out: &mut BytesMut| {
            put_family(&family.family, out);
            out.put_u8(if family.forwarding { FORWARDING } else { 0 });
        };
        match self {
            Capability::Multiprotocol(family) => {
                out.put_u16(family.afi);
                out.put_u8(0);
                out.put_u8(family.safi);
            }
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRefresh => {}
            Capability::ExtendedNextHop(tuples) => {
                for (family, hop) in tuples {
                    out.put_u16(family.afi);
                    out.put_u16(family.safi.into());
                    out.put_u16(*hop);
                }
            }
            Capability::Role(role) => out.put_u8(*role),
            Capability::GracefulRestart { restarting, notification, time, families } => {
                let flags = if *restarting { GR_RESTARTING } else { 0 }
                    | if *notification { GR_NOTIFICATION } else { 0 };
                out.put_u16(flags | time & GR_TIME);
                families.iter().for_each(|family| put_gr(family, out));
            }
            Capability::FourOctetAs(asn) => out.put_u32(asn.0),
            Capability::AddPath(tuples) => {
                for (family, mode) in tuples {
                    put_family(family, out);
                    out.put_u8(*mode);
                }
            }
            Capability::LongLivedGr(families) => {
                for (family, time) in families {
                    put_gr(family, out);
                    out.put_uint((*time).into(), 3);
                }
            }
            Capability::Fqdn { host, domain } => {
                put_short(host, out);
                put_short(domain, out);
            }
            Capability::SoftwareVersion(version) => put_short(version, out),
            Capability::Unknown { value, .. } => out.put_slice(value),
        }
    }
}

/// Appends a text with its length octet; cut at 255 octets.
fn put_short(text: &Bytes, out: &mut BytesMut) {
    let text = text.get(..255).unwrap_or(text);
    out.put_u8(text.len().try_into().unwrap_or(u8::MAX));
    out.put_slice(text);
}
