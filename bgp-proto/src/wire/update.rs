//! UPDATE as it goes on to the table (RFC 4271 §4.3, RFC 4760, RFC 7606, RFC 7911).
//!
//! Owns: its parts as values, whichever field or attribute of the message they came in. Never: octets; those are
//! [`receive`](super::receive)'s and [`send`](super::send)'s.

use smallvec::SmallVec;

use crate::prefix::{Afi, Family, Prefix, V4, V6};
use crate::wire::attr::{Attributes, NextHop};

/// One prefix of an UPDATE, with its path id (0 where add-path is off).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nlri<F: Family> {
    /// Path identifier (RFC 7911).
    pub path_id: u32,
    /// The prefix, masked.
    pub prefix: Prefix<F>,
}

/// Prefixes of one family, in wire order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NlriList {
    /// IPv4 unicast.
    V4(Vec<Nlri<V4>>),
    /// IPv6 unicast.
    V6(Vec<Nlri<V6>>),
}

impl NlriList {
    /// The family.
    pub fn afi(&self) -> Afi {
        match self {
            NlriList::V4(_) => Afi::Ipv4,
            NlriList::V6(_) => Afi::Ipv6,
        }
    }

    /// Number of prefixes.
    pub fn len(&self) -> usize {
        match self {
            NlriList::V4(list) => list.len(),
            NlriList::V6(list) => list.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Announced prefixes of one family with their next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// From NEXT_HOP or MP_REACH_NLRI.
    pub next_hop: NextHop,
    /// The prefixes.
    pub nlri: NlriList,
}

/// An UPDATE as it is to be applied: RFC 7606 is already done. Withdrawals come first; a prefix that the message both
/// withdrew and announced stands in `reach` only (W30).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Update {
    /// Withdrawn prefixes, those of treat-as-withdraw among them.
    pub withdrawn: SmallVec<[NlriList; 2]>,
    /// Announced prefixes; empty under treat-as-withdraw.
    pub reach: SmallVec<[Reach; 1]>,
    /// Attributes of everything in `reach`; default when that is empty.
    pub attributes: Attributes,
    /// End-of-RIB of this family (RFC 4724 §2).
    pub end_of_rib: Option<Afi>,
}
