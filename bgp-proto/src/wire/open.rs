//! OPEN (RFC 4271 §4.2, §6.2; RFC 5492; RFC 9072).
//!
//! Owns: the message in both directions and the checks that need nothing but the message. Never: compares it with what
//! is configured ([`Open::check_peer`] is given both), nor decides what both sides agree on.

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::{Asn, RouterId};
use crate::wire::fault::{Fatal, Fault, FaultKind};
use crate::wire::frame::{HEADER_LEN, MAX_LEN};
use crate::wire::input::{In, Parsed, Parser, be_u8, be_u16, be_u32, length_data, rest};
use crate::wire::{Capability, Notification, PeerType};

/// The only version that there is.
pub const VERSION: u8 = 4;
/// Optional parameter "Capabilities" (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// Says that lengths of optional parameters have two octets (RFC 9072 §2).
const EXTENDED: u8 = 255;
/// Offset of the first optional parameter in the message.
const PARAMETERS_AT: usize = HEADER_LEN + 10;

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

    /// The checks of a received OPEN that need nothing but the message: an AS (RFC 7607 §2), an identifier (RFC 6286
    /// §2.2) and a hold time (RFC 4271 §4.2) that exist.
    pub fn check(&self) -> Result<(), Fatal> {
        if self.my_as == 0 || self.capabilities.contains(&Capability::FourOctetAs(Asn(0))) {
            return Err(Fatal::plain(2, 2, HEADER_LEN + 1, FaultKind::OpenAsZero));
        }
        if self.router_id.0.is_unspecified() {
            return Err(Fatal::plain(2, 3, HEADER_LEN + 5, FaultKind::OpenIdZero));
        }
        if matches!(self.hold_time, 1 | 2) {
            return Err(Fatal::plain(2, 6, HEADER_LEN + 3, FaultKind::HoldTime));
        }
        Ok(())
    }

    /// The checks of a received OPEN that need to know who the peer should be: its AS, and that it is not ourselves
    /// (RFC 4271 §6.2, RFC 6286 §2.2: one identifier in two ASes is allowed). AS_TRANS alone stands for an AS that was
    /// not told (W8). What is `None` is not checked.
    pub fn check_peer(
        &self,
        peer_type: PeerType,
        peer_asn: Option<Asn>,
        local_id: Option<RouterId>,
    ) -> Result<(), Fatal> {
        let four_octets = self.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
        let untold = !four_octets && self.asn() == Asn::TRANS;
        if peer_asn.is_some_and(|asn| asn != self.asn() || untold) {
            return Err(Fatal::plain(2, 2, HEADER_LEN + 1, FaultKind::OpenAs));
        }
        if peer_type == PeerType::Ibgp && local_id == Some(self.router_id) {
            return Err(Fatal::plain(2, 3, HEADER_LEN + 5, FaultKind::OpenIdOwn));
        }
        Ok(())
    }
}

/// Version, AS, hold time, identifier; then the octet that counts the optional parameters, and those.
type Fields<'a> = (u8, u16, u16, u32, u8, In<'a>);

fn fields(body: In<'_>) -> Parsed<'_, Fields<'_>> {
    (be_u8, be_u16, be_u16, be_u32, be_u8, rest).parse(body)
}

/// The optional parameters behind their two-octet length.
fn sized(input: In<'_>) -> Parsed<'_, In<'_>> {
    length_data(be_u16).parse(input)
}

/// One optional parameter or one capability.
fn tlv(input: In<'_>, extended: bool) -> Parsed<'_, (u8, In<'_>)> {
    if extended {
        (be_u8, length_data(be_u16)).parse(input)
    } else {
        (be_u8, length_data(be_u8)).parse(input)
    }
}

/// Decodes the body of a framed OPEN and makes the checks that need no configuration.
pub(crate) fn decode(body: &[u8]) -> Result<Open, Fatal> {
    let open = read(body)?;
    open.check()?;
    Ok(open)
}

/// Decodes the body of a framed OPEN, whatever its values mean.
pub fn read(body: &[u8]) -> Result<Open, Fatal> {
    let Ok((_, (version, my_as, hold_time, id, len, parameters))) = fields(body) else {
        return Err(Fatal::plain(2, 0, HEADER_LEN, FaultKind::ParametersLength));
    };
    if version != VERSION {
        // The data is the version that we do speak, in two octets (RFC 4271 §6.2).
        let data = Bytes::from_static(&[0, VERSION]);
        let notification = Notification { code: 2, subcode: 1, data };
        return Err(Fatal::new(notification, Fault::reset(HEADER_LEN, FaultKind::Version)));
    }
    let capabilities = optional_parameters(len, parameters)?
        .into_iter()
        .map(|(code, value)| Capability::decode(code, value))
        .collect();
    Ok(Open { my_as, hold_time, router_id: RouterId(Ipv4Addr::from_bits(id)), capabilities })
}

/// Codes and values of the capabilities in the body of a framed OPEN, verbatim.
pub fn raw_capabilities(body: &[u8]) -> Result<Vec<(u8, &[u8])>, Fatal> {
    match fields(body) {
        Ok((_, (.., len, parameters))) => optional_parameters(len, parameters),
        Err(_) => Err(Fatal::plain(2, 0, HEADER_LEN, FaultKind::ParametersLength)),
    }
}

fn optional_parameters(len: u8, field: &[u8]) -> Result<Vec<(u8, &[u8])>, Fatal> {
    let wrong_length = |at| Fatal::plain(2, 0, at, FaultKind::ParametersLength);
    let (extended, field) = match field {
        // The one-octet length is ignored in the extended form, but for 0, which means that there are none.
        [EXTENDED, rest @ ..] if len != 0 => match sized(rest) {
            Ok(([], parameters)) => (true, parameters),
            _ => return Err(wrong_length(PARAMETERS_AT)),
        },
        _ if usize::from(len) == field.len() => (false, field),
        _ => return Err(wrong_length(PARAMETERS_AT - 1)),
    };
    let field_at = PARAMETERS_AT + if extended { 3 } else { 0 };
    let mut capabilities = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        let at = field_at + field.len() - rest.len();
        let Ok((after, (kind, value))) = tlv(rest, extended) else {
            return Err(Fatal::plain(2, 0, at, FaultKind::ParameterLength));
        };
        if kind != CAPABILITIES {
            return Err(Fatal::plain(2, 4, at, FaultKind::ParameterType));
        }
        let value_at = field_at + field.len() - after.len() - value.len();
        let mut inner = value;
        while !inner.is_empty() {
            let Ok((after, (code, octets))) = tlv(inner, false) else {
                let at = value_at + value.len() - inner.len();
                return Err(Fatal::plain(2, 0, at, FaultKind::CapabilityLength));
            };
            capabilities.push((code, octets));
            inner = after;
        }
        rest = after;
    }
    Ok(capabilities)
}

/// Appends the body. All capabilities stand in one parameter, as BIRD sends them (BGP-16); where they exceed 253
/// octets, in the extended form (RFC 9072). What exceeds a message is left out.
pub(crate) fn encode(open: &Open, out: &mut BytesMut) {
    out.put_u8(VERSION);
    out.put_u16(open.my_as);
    out.put_u16(open.hold_time);
    out.put_u32(open.router_id.0.to_bits());
    let mut list = BytesMut::new();
    for capability in &open.capabilities {
        let value = capability.value();
        let value = value.get(..255).unwrap_or(&value);
        if list.len() + 2 + value.len() > MAX_LEN - PARAMETERS_AT - 6 {
            break;
        }
        list.put_u8(capability.code());
        list.put_u8(value.len().try_into().unwrap_or(u8::MAX));
        list.put_slice(value);
    }
    match u8::try_from(list.len()) {
        Ok(0) => out.put_u8(0),
        Ok(len) if len <= 253 => out.put_slice(&[len + 2, CAPABILITIES, len]),
        _ => {
            let len = u16::try_from(list.len()).unwrap_or(u16::MAX);
            out.put_slice(&[EXTENDED, EXTENDED]);
            out.put_u16(len.saturating_add(3));
            out.put_u8(CAPABILITIES);
            out.put_u16(len);
        }
    }
    out.put_slice(&list);
}
