//! Path attributes (RFC 4271 §4.3, §5 and later ones).
//!
//! Owns: the attributes of a route as values, the RFC 7606 table ([`rules`]) and the code of those attributes that have
//! an inner structure. Never: decides on routes.

pub mod as_path;
pub mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use smallvec::SmallVec;
use thin_vec::ThinVec;

use crate::ids::{Asn, ClusterId, RouterId};

/// ORIGIN (RFC 4271 §5.1.1); smaller is preferred.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Origin {
    /// 0.
    #[default]
    Igp,
    /// 1.
    Egp,
    /// 2.
    Incomplete,
}

/// The AS numbers of one segment. Most paths in a cluster have few: those stand in the path itself, without a place of
/// their own in memory.
pub type AsnList = SmallVec<[Asn; 4]>;

/// One AS_PATH segment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Segment {
    /// AS_SEQUENCE: at least one AS.
    Sequence(AsnList),
    /// AS_SET: counts as one in the path length.
    Set(AsnList),
}

/// AS_PATH.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct AsPath {
    /// Segments in order, nearest AS first.
    pub segments: SmallVec<[Segment; 1]>,
}

/// AGGREGATOR (RFC 4271 §5.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Aggregator {
    /// Who aggregated.
    pub asn: Asn,
    /// Its identifier.
    pub router_id: Ipv4Addr,
}

/// A next hop as carried by NEXT_HOP or MP_REACH_NLRI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, perhaps with the sender's link-local address (RFC 2545 §3).
    V6 {
        /// Global address (or link-local where only that was sent).
        global: Ipv6Addr,
        /// Second address of a 32-byte next hop.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address that is resolved: the global one.
    pub fn addr(self) -> IpAddr {
        match self {
            NextHop::V4(addr) => addr.into(),
            NextHop::V6 { global, .. } => global.into(),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => NextHop::V4(addr),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

/// An attribute that we do not decode, carried as it came (RFC 4271 §5, partial bit set when passed on).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UnknownAttribute {
    /// Type code.
    pub code: u8,
    /// The optional, transitive and partial bits as received.
    pub flags: u8,
    /// Value, verbatim.
    pub value: Bytes,
}

/// The attributes of a route but for its next hop, which stands beside the prefixes. A table may hold very many of them:
/// lists that most routes do not have take one word each.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH, with AS4_PATH merged in (RFC 6793 §4.2.3).
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; absent on eBGP.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, with AS4_AGGREGATOR merged in.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997) in the order received.
    pub communities: ThinVec<u32>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub ext_communities: ThinVec<[u8; 8]>,
    /// LARGE_COMMUNITY (RFC 8092), each value once.
    pub large_communities: ThinVec<[u32; 3]>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST (RFC 4456), nearest first.
    pub cluster_list: ThinVec<ClusterId>,
    /// ONLY_TO_CUSTOMER (RFC 9234).
    pub otc: Option<Asn>,
    /// Optional attributes that we do not decode, sorted by code.
    pub unknown: ThinVec<UnknownAttribute>,
}

/// A set of attribute type codes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct AttributeCodes([u64; 4]);

impl AttributeCodes {
    /// No code.
    pub const NONE: AttributeCodes = AttributeCodes([0; 4]);

    /// The set of these codes.
    pub fn of(codes: &[u8]) -> Self {
        let mut set = AttributeCodes::NONE;
        codes.iter().for_each(|code| set.insert(*code));
        set
    }

    /// What is taken from routes of external peers unless configured otherwise (W49).
    pub fn stripped_from_external() -> Self {
        AttributeCodes::of(&rules::STRIPPED_FROM_EXTERNAL)
    }

    /// Adds a code.
    pub fn insert(&mut self, code: u8) {
        if let Some(word) = self.0.get_mut(usize::from(code >> 6)) {
            *word |= 1 << (code & 63);
        }
    }

    /// Whether `code` is in the set.
    pub fn contains(&self, code: u8) -> bool {
        self.0.get(usize::from(code >> 6)).is_some_and(|word| word & (1 << (code & 63)) != 0)
    }
}
