//! Address families and prefixes.
//!
//! Owns: [`Family`] with its two members [`V4`] and [`V6`], and [`Prefix`], which is masked on construction so
//! that two spellings of one network are one value. Never: parses configuration files or knows of sessions.
//! Everything that exists once for each family is written once, generic over [`Family`].

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Address Family Identifier with SAFI 1 (unicast): the two families that a Calico node speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Afi {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Afi {
    /// Both families, in the order in which everything lists them.
    pub const ALL: [Afi; 2] = [Afi::Ipv4, Afi::Ipv6];

    /// The number on the wire (RFC 4760).
    pub const fn code(self) -> u16 {
        match self {
            Afi::Ipv4 => 1,
            Afi::Ipv6 => 2,
        }
    }

    /// The family of a wire code, if we speak it.
    pub const fn from_code(code: u16) -> Option<Afi> {
        match code {
            1 => Some(Afi::Ipv4),
            2 => Some(Afi::Ipv6),
            _ => None,
        }
    }

    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Afi {
        match addr {
            IpAddr::V4(_) => Afi::Ipv4,
            IpAddr::V6(_) => Afi::Ipv6,
        }
    }

    /// `ipv4` or `ipv6`, as in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Afi::Ipv4 => "ipv4",
            Afi::Ipv6 => "ipv6",
        }
    }
}

impl fmt::Display for Afi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether an address is IPv6 link-local. IPv4 has no such thing here: 169.254.0.0/16 is not special (KRT-11).
pub const fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

/// A small set of families.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AfiSet(u8);

impl AfiSet {
    /// No family.
    pub const EMPTY: AfiSet = AfiSet(0);
    /// Both families.
    pub const BOTH: AfiSet = AfiSet(3);

    /// The set of one family.
    pub const fn only(afi: Afi) -> AfiSet {
        AfiSet(afi.code() as u8)
    }

    /// The set with `afi` in it as well.
    #[must_use]
    pub const fn with(self, afi: Afi) -> AfiSet {
        AfiSet(self.0 | afi.code() as u8)
    }

    /// The families that are in both sets.
    #[must_use]
    pub const fn and(self, other: AfiSet) -> AfiSet {
        AfiSet(self.0 & other.0)
    }

    /// The families that are in either set.
    #[must_use]
    pub const fn or(self, other: AfiSet) -> AfiSet {
        AfiSet(self.0 | other.0)
    }

    /// The families that are not in `other`.
    #[must_use]
    pub const fn without(self, other: AfiSet) -> AfiSet {
        AfiSet(self.0 & !other.0)
    }

    /// Whether `afi` is in the set.
    pub const fn contains(self, afi: Afi) -> bool {
        self.0 & afi.code() as u8 != 0
    }

    /// Whether the set has no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Afi> {
        Afi::ALL.into_iter().filter(move |afi| self.contains(*afi))
    }
}

impl FromIterator<Afi> for AfiSet {
    fn from_iter<I: IntoIterator<Item = Afi>>(iter: I) -> Self {
        iter.into_iter().fold(AfiSet::EMPTY, AfiSet::with)
    }
}

/// One address family, as a type: tables, prefixes and next hops are generic over it.
pub trait Family: Copy + Eq + Ord + Hash + fmt::Debug + Send + Sync + 'static {
    /// The address type of the standard library.
    type Addr: Copy
        + Eq
        + Ord
        + Hash
        + fmt::Debug
        + fmt::Display
        + FromStr
        + Into<IpAddr>
        + Send
        + Sync
        + 'static;
    /// An address as a number, most significant bit first.
    type Bits: num_traits::PrimInt
        + num_traits::Unsigned
        + num_traits::CheckedShr
        + Hash
        + fmt::Debug
        + Send
        + Sync
        + 'static;

    /// The family as a value.
    const AFI: Afi;
    /// 32 or 128.
    const MAX_LEN: u8;
    /// 4 or 16.
    const ADDR_BYTES: usize;

    /// An address as a number.
    fn to_bits(addr: Self::Addr) -> Self::Bits;
    /// A number as an address.
    fn from_bits(bits: Self::Bits) -> Self::Addr;
    /// The mask of the first `len` bits; a `len` above [`Self::MAX_LEN`] counts as that.
    fn mask(len: u8) -> Self::Bits;
    /// Builds the bits from the leading bytes of an address in network order; missing bytes are zero, surplus
    /// bytes are not read.
    fn bits_from_bytes(bytes: &[u8]) -> Self::Bits;
    /// Appends the first `count` bytes of the address in network order.
    fn put_bytes(bits: Self::Bits, count: usize, out: &mut impl bytes::BufMut);
    /// The address, if it is of this family.
    fn from_ip(addr: IpAddr) -> Option<Self::Addr>;
}

/// IPv4 unicast.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct V4;

/// IPv6 unicast.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct V6;

impl Family for V4 {
    type Addr = Ipv4Addr;
    type Bits = u32;
    const AFI: Afi = Afi::Ipv4;
    const MAX_LEN: u8 = 32;
    const ADDR_BYTES: usize = 4;

    fn to_bits(addr: Ipv4Addr) -> u32 {
        addr.to_bits()
    }
    fn from_bits(bits: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(bits)
    }
    #[inline]
    fn mask(len: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
    }
    #[inline]
    fn bits_from_bytes(bytes: &[u8]) -> u32 {
        if let Some(octets) = bytes.first_chunk() {
            return u32::from_be_bytes(*octets);
        }
        let mut octets = [0u8; 4];
        for (to, from) in octets.iter_mut().zip(bytes) {
            *to = *from;
        }
        u32::from_be_bytes(octets)
    }
    #[inline]
    fn put_bytes(bits: u32, count: usize, out: &mut impl bytes::BufMut) {
        let octets = bits.to_be_bytes();
        out.put_slice(octets.get(..count).unwrap_or(&octets));
    }
    fn from_ip(addr: IpAddr) -> Option<Ipv4Addr> {
        match addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    type Bits = u128;
    const AFI: Afi = Afi::Ipv6;
    const MAX_LEN: u8 = 128;
    const ADDR_BYTES: usize = 16;

    fn to_bits(addr: Ipv6Addr) -> u128 {
        addr.to_bits()
    }
    fn from_bits(bits: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(bits)
    }
    #[inline]
    fn mask(len: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
    }
    #[inline]
    fn bits_from_bytes(bytes: &[u8]) -> u128 {
        if let Some(octets) = bytes.first_chunk() {
            return u128::from_be_bytes(*octets);
        }
        let mut octets = [0u8; 16];
        for (to, from) in octets.iter_mut().zip(bytes) {
            *to = *from;
        }
        u128::from_be_bytes(octets)
    }
    #[inline]
    fn put_bytes(bits: u128, count: usize, out: &mut impl bytes::BufMut) {
        let octets = bits.to_be_bytes();
        out.put_slice(octets.get(..count).unwrap_or(&octets));
    }
    fn from_ip(addr: IpAddr) -> Option<Ipv6Addr> {
        match addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        }
    }
}

/// A network prefix. Host bits are zero by construction, so equality and hashing are by network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<F: Family> {
    bits: F::Bits,
    len: u8,
}

/// An IPv4 prefix.
pub type Prefix4 = Prefix<V4>;
/// An IPv6 prefix.
pub type Prefix6 = Prefix<V6>;

impl<F: Family> Prefix<F> {
    /// The network that holds `addr` with `len` leading bits; `None` if `len` is above the family's maximum.
    pub fn new(addr: F::Addr, len: u8) -> Option<Self> {
        Self::from_parts(F::to_bits(addr), len)
    }

    /// As [`Prefix::new`], from a number.
    #[inline]
    pub fn from_parts(bits: F::Bits, len: u8) -> Option<Self> {
        (len <= F::MAX_LEN).then(|| Prefix { bits: bits & F::mask(len), len })
    }

    /// The prefix of one address: `/32` or `/128`.
    pub fn host(addr: F::Addr) -> Self {
        Prefix { bits: F::to_bits(addr), len: F::MAX_LEN }
    }

    /// `0.0.0.0/0` or `::/0`.
    pub fn default_route() -> Self {
        Prefix { bits: F::mask(0), len: 0 }
    }

    /// The network address.
    pub fn addr(self) -> F::Addr {
        F::from_bits(self.bits)
    }

    /// The network address as a number.
    pub fn bits(self) -> F::Bits {
        self.bits
    }

    /// Length in bits.
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether this is the default route's prefix.
    pub fn is_default(self) -> bool {
        self.len == 0
    }

    /// Whether this is one address.
    pub fn is_host(self) -> bool {
        self.len == F::MAX_LEN
    }

    /// Whether `other` is this prefix or more specific.
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && other.bits & F::mask(self.len) == self.bits
    }

    /// Whether `addr` is inside.
    pub fn contains(self, addr: F::Addr) -> bool {
        F::to_bits(addr) & F::mask(self.len) == self.bits
    }

    /// The prefix, if `prefix` is of this family.
    pub fn from_ip(prefix: IpPrefix) -> Option<Self> {
        let addr = F::from_ip(prefix.addr())?;
        Self::new(addr, prefix.len())
    }
}

impl<F: Family> fmt::Display for Prefix<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.len)
    }
}

impl<F: Family> fmt::Debug for Prefix<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixTextError {
    /// The part before the slash is no address of the family.
    Address,
    /// The part after the slash is no length of the family.
    Length,
}

impl fmt::Display for PrefixTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PrefixTextError::Address => "not an IP address",
            PrefixTextError::Length => "not a prefix length of this address family",
        })
    }
}

impl std::error::Error for PrefixTextError {}

impl<F: Family> FromStr for Prefix<F> {
    type Err = PrefixTextError;

    /// Reads `<address>/<length>`, or a bare address as the prefix of that host; host bits are masked.
    fn from_str(text: &str) -> Result<Self, PrefixTextError> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => {
                // `u8::from_str` would take "+24".
                if !len.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(PrefixTextError::Length);
                }
                (addr, Some(len.parse::<u8>().map_err(|_| PrefixTextError::Length)?))
            }
            None => (text, None),
        };
        let addr = addr.parse::<F::Addr>().map_err(|_| PrefixTextError::Address)?;
        Prefix::new(addr, len.unwrap_or(F::MAX_LEN)).ok_or(PrefixTextError::Length)
    }
}

impl<F: Family> prefix_trie::Prefix for Prefix<F> {
    type R = F::Bits;
    fn repr(&self) -> F::Bits {
        self.bits
    }
    fn prefix_len(&self) -> u8 {
        self.len
    }
    fn from_repr_len(repr: F::Bits, len: u8) -> Self {
        Prefix { bits: repr & F::mask(len), len: len.min(F::MAX_LEN) }
    }
}

/// A prefix of either family, for places that list both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpPrefix {
    /// IPv4.
    V4(Prefix4),
    /// IPv6.
    V6(Prefix6),
}

impl IpPrefix {
    /// The network that holds `addr`; `None` if `len` is too large for its family.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        match addr {
            IpAddr::V4(addr) => Prefix::new(addr, len).map(IpPrefix::V4),
            IpAddr::V6(addr) => Prefix::new(addr, len).map(IpPrefix::V6),
        }
    }

    /// The prefix of one address: `/32` or `/128`.
    pub fn host(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => IpPrefix::V4(Prefix::host(addr)),
            IpAddr::V6(addr) => IpPrefix::V6(Prefix::host(addr)),
        }
    }

    /// The family.
    pub fn afi(self) -> Afi {
        match self {
            IpPrefix::V4(_) => Afi::Ipv4,
            IpPrefix::V6(_) => Afi::Ipv6,
        }
    }

    /// The network address.
    pub fn addr(self) -> IpAddr {
        match self {
            IpPrefix::V4(p) => p.addr().into(),
            IpPrefix::V6(p) => p.addr().into(),
        }
    }

    /// Length in bits.
    pub fn len(self) -> u8 {
        match self {
            IpPrefix::V4(p) => p.len(),
            IpPrefix::V6(p) => p.len(),
        }
    }

    /// Whether this is a default route's prefix.
    pub fn is_default(self) -> bool {
        self.len() == 0
    }

    /// Whether this is one address.
    pub fn is_host(self) -> bool {
        match self {
            IpPrefix::V4(p) => p.is_host(),
            IpPrefix::V6(p) => p.is_host(),
        }
    }

    /// Whether `other` is this prefix or more specific; never across families.
    pub fn covers(self, other: Self) -> bool {
        match (self, other) {
            (IpPrefix::V4(a), IpPrefix::V4(b)) => a.covers(b),
            (IpPrefix::V6(a), IpPrefix::V6(b)) => a.covers(b),
            _ => false,
        }
    }

    /// Whether `addr` is inside; never across families.
    pub fn contains(self, addr: IpAddr) -> bool {
        match (self, addr) {
            (IpPrefix::V4(p), IpAddr::V4(a)) => p.contains(a),
            (IpPrefix::V6(p), IpAddr::V6(a)) => p.contains(a),
            _ => false,
        }
    }
}

impl<F: Family> From<Prefix<F>> for IpPrefix {
    fn from(prefix: Prefix<F>) -> Self {
        // A prefix of a family always has a length that its addresses allow, so the fallback is never taken.
        IpPrefix::new(prefix.addr().into(), prefix.len()).unwrap_or(IpPrefix::V4(Prefix { bits: 0, len: 0 }))
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpPrefix::V4(p) => p.fmt(f),
            IpPrefix::V6(p) => p.fmt(f),
        }
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for IpPrefix {
    type Err = PrefixTextError;

    fn from_str(text: &str) -> Result<Self, PrefixTextError> {
        if text.contains(':') { text.parse().map(IpPrefix::V6) } else { text.parse().map(IpPrefix::V4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_network_are_equal() {
        let a: Prefix4 = "10.1.2.3/16".parse().unwrap();
        let b: Prefix4 = "10.1.0.0/16".parse().unwrap();
        assert_eq!(a, b);
        assert_eq!(a.to_string(), "10.1.0.0/16");
        let c: Prefix6 = "fd00:0:0::1/64".parse().unwrap();
        assert_eq!(c.to_string(), "fd00::/64");
    }

    #[test]
    fn covering_is_by_leading_bits_and_never_across_families() {
        let pool: IpPrefix = "10.244.0.0/16".parse().unwrap();
        assert!(pool.covers("10.244.3.0/26".parse().unwrap()));
        assert!(pool.covers(pool));
        assert!(!pool.covers("10.0.0.0/8".parse().unwrap()));
        assert!(!pool.covers("::/0".parse().unwrap()));
        let all: IpPrefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.covers(pool) && all.is_default());
    }

    #[test]
    fn lengths_outside_the_family_are_refused() {
        assert_eq!("10.0.0.0/33".parse::<Prefix4>(), Err(PrefixTextError::Length));
        assert_eq!("10.0.0.0/+8".parse::<Prefix4>(), Err(PrefixTextError::Length));
        assert_eq!("::/129".parse::<Prefix6>(), Err(PrefixTextError::Length));
        assert_eq!("10.0.0/8".parse::<IpPrefix>(), Err(PrefixTextError::Address));
    }

    #[test]
    fn a_bare_address_is_the_prefix_of_that_host() {
        let host: IpPrefix = "10.0.0.1".parse().unwrap();
        assert!(host.is_host());
        assert_eq!(host.to_string(), "10.0.0.1/32");
    }
}
