//! The wire codec: BGP messages to bytes and back (RFC 4271 and its extensions).
//!
//! Owns: framing, every message, the RFC 7606 action table, encoding. Never: sessions, timers, policy; never
//! allocates by a length that a peer declares. A decoder is given its [`Context`] once, by negotiation; it never
//! learns options by watching messages pass.

pub mod attr;
pub mod capability;
pub mod notification;
pub mod open;
pub mod refresh;
pub mod update;

pub use attr::{AsPath, Attributes, NextHop, Origin, Segment, UnknownAttribute};
pub use capability::Capability;
pub use notification::Notification;
pub use open::Open;
pub use refresh::RouteRefresh;
pub use update::{Nlri, NlriList, Reach, Update};

use crate::prefix::AfiSet;

/// Which side of an AS border the peer is on; decides attribute rules (RFC 4271 §5.1, RFC 7606 §7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerType {
    /// The peer is in another AS.
    Ebgp,
    /// The peer is in our AS.
    Ibgp,
}

/// What negotiation decided about the coding of messages, for one direction pair of one connection.
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
    /// Families whose next hop may be an IPv6 address though the prefixes are IPv4 (RFC 8950).
    pub extended_next_hop: bool,
    /// Messages up to 65535 octets but for OPEN and KEEPALIVE (RFC 8654).
    pub extended_message: bool,
    /// What an AS_SET in AS_PATH leads to: treat-as-withdraw (RFC 9774) unless set.
    pub accept_as_set: bool,
    /// Attribute codes that are dropped on receipt (W49); 256 bits.
    pub strip: attr::AttributeCodes,
}

/// One BGP message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Type 1.
    Open(Open),
    /// Type 2.
    Update(Update),
    /// Type 3.
    Notification(Notification),
    /// Type 4.
    Keepalive,
    /// Type 5 (RFC 2918, RFC 7313).
    RouteRefresh(RouteRefresh),
}
