//! What makes a session the same one from one desired state to the next.
//!
//! Owns: [`SessionKey`], by which desired state, plan, tasks, handles and kept TCP MD5 keys find a session. Never: the
//! name that BIRD gives a session, which says where it comes from and changes with that.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::Afi;

/// The identity of a session: a family with one address and port of the peer. Whatever asks for it, the mesh or a
/// BGPPeer of any scope, it is the same session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// The family that it carries.
    pub afi: Afi,
    /// The peer's address.
    pub addr: IpAddr,
    /// The name of the interface on which a link-local address is; no other address has one.
    pub zone: Option<Arc<str>>,
    /// The peer's port; 179 where none is written (PEER-50).
    pub port: u16,
}

impl SessionKey {
    /// The session with an address that is not link-local.
    pub fn new(addr: IpAddr, port: u16) -> Self {
        SessionKey { afi: Afi::of(addr), addr, zone: None, port }
    }
}

impl fmt::Display for SessionKey {
    /// As `10.0.0.2 port 179`, `fe80::1%eth0 port 179`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)?;
        if let Some(zone) = &self.zone {
            write!(f, "%{zone}")?;
        }
        write!(f, " port {}", self.port)
    }
}
