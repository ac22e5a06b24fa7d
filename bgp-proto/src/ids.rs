//! Small typed numbers: AS numbers, identifiers, handles of peers and destinations.
//!
//! Owns: the newtypes that keep an AS number from being taken for a router id. Never: wire encoding (an AS number
//! becomes AS_TRANS only in the encoder, RFC 6793).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A four-octet AS number (RFC 6793).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Asn(pub u32);

impl Asn {
    /// AS_TRANS, the stand-in for a four-octet AS towards an old speaker (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);

    /// The value for a two-octet field: itself, or AS_TRANS.
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no AS number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsnTextError;

impl fmt::Display for AsnTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an AS number (0 to 4294967295, or <high>.<low>)")
    }
}

impl std::error::Error for AsnTextError {}

impl FromStr for Asn {
    type Err = AsnTextError;

    /// Reads a decimal number or the dotted form `<high 16>.<low 16>` (RFC 5396 asdot+).
    fn from_str(text: &str) -> Result<Self, AsnTextError> {
        let number = |text: &str, max: u32| {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(AsnTextError);
            }
            text.parse::<u32>().ok().filter(|n| *n <= max).ok_or(AsnTextError)
        };
        match text.split_once('.') {
            Some((high, low)) => Ok(Asn(number(high, 65535)? << 16 | number(low, 65535)?)),
            None => number(text, u32::MAX).map(Asn),
        }
    }
}

/// A BGP identifier (RFC 6286): any non-zero number, written as an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RouterId(pub Ipv4Addr);

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A route reflector's cluster id (RFC 4456).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub Ipv4Addr);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A configured peer, by slot and generation: an event that was under way when its peer was removed names a
/// generation that no longer exists, and is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId {
    /// Index into dense per-peer tables; reused after removal.
    pub slot: u32,
    /// Grows with each reuse of the slot.
    pub generation: u32,
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer{}.{}", self.slot, self.generation)
    }
}

/// A destination of one table: dense, the lowest free number first, so that what is kept for each destination is a
/// vector and sets of destinations are bitmaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DestId(pub u32);

impl DestId {
    /// Its place in a vector.
    pub fn index(self) -> usize {
        // No platform with a smaller `usize` is built for.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for DestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dest{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_are_read_in_plain_and_dotted_form() {
        assert_eq!("64512".parse(), Ok(Asn(64512)));
        assert_eq!("1.10".parse(), Ok(Asn(65546)));
        assert_eq!("4294967295".parse(), Ok(Asn(u32::MAX)));
        for bad in ["", "-1", "+1", "4294967296", "1.65536", "1.2.3", " 1"] {
            assert_eq!(bad.parse::<Asn>(), Err(AsnTextError), "{bad:?}");
        }
    }

    #[test]
    fn only_numbers_above_65535_become_as_trans() {
        assert_eq!(Asn(65535).two_octets(), 65535);
        assert_eq!(Asn(65536).two_octets(), 23456);
    }
}
