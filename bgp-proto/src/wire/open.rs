//! OPEN (RFC 4271 §4.2, RFC 9072).

use crate::ids::{Asn, RouterId};
use crate::wire::Capability;

/// A received or sent OPEN message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// The two-octet field; AS_TRANS from four-octet speakers.
    pub my_as: u16,
    /// Offered hold time in seconds; 0 = none.
    pub hold_time: u16,
    /// BGP identifier.
    pub router_id: RouterId,
    /// Capabilities in the order sent, each as often as sent (W14).
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The AS number: from capability 65 if it is there, else the field.
    pub fn asn(&self) -> Asn {
        self.capabilities
            .iter()
            .find_map(|c| match c {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
            .unwrap_or(Asn(u32::from(self.my_as)))
    }
}
