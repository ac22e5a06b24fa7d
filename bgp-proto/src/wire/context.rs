//! What a codec has to be told of a connection.
//!
//! Owns: [`Context`], what OPENs agreed on about the coding of messages, and [`PeerType`]. Never: negotiates; see
//! [`session`](crate::session).

use crate::prefix::AfiSet;
use crate::wire::attr::AttributeCodes;
use crate::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN};

/// Which side of an AS border the peer is on; decides attribute rules (RFC 4271 §5.1, RFC 7606 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerType {
    /// The peer is in another AS.
    Ebgp,
    /// The peer is in our AS.
    Ibgp,
}

/// What negotiation decided about the coding of messages on one connection, in both directions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Context {
    /// eBGP or iBGP.
    pub peer_type: PeerType,
    /// Four-octet AS numbers in AS_PATH and AGGREGATOR (RFC 6793).
    pub as4: bool,
    /// Families whose UPDATEs are taken; others are ignored with a count (W28).
    pub families: AfiSet,
    /// Families in which the peer sends path ids (RFC 7911).
    pub add_path_rx: AfiSet,
    /// Families in which we send path ids (RFC 7911).
    pub add_path_tx: AfiSet,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages up to 65535 octets but for OPEN and KEEPALIVE (RFC 8654).
    pub extended_message: bool,
    /// Routes with an AS_SET in their path are taken; else they are treated as withdrawn (RFC 9774).
    pub accept_as_set: bool,
    /// Attribute codes that are dropped on receipt (W49).
    pub strip: AttributeCodes,
}

impl Context {
    /// What two speakers of our time agree on with a peer of this type: four-octet AS numbers, both families, no path
    /// ids, messages of 4096 octets; and what we do unless configured otherwise.
    pub fn new(peer_type: PeerType) -> Context {
        Context {
            peer_type,
            as4: true,
            families: AfiSet::BOTH,
            add_path_rx: AfiSet::EMPTY,
            add_path_tx: AfiSet::EMPTY,
            extended_next_hop: false,
            extended_message: false,
            accept_as_set: false,
            strip: match peer_type {
                PeerType::Ebgp => AttributeCodes::stripped_from_external(),
                PeerType::Ibgp => AttributeCodes::NONE,
            },
        }
    }

    /// Largest message but for OPEN and KEEPALIVE.
    pub fn max_len(&self) -> usize {
        if self.extended_message { MAX_EXTENDED_LEN } else { MAX_LEN }
    }
}
