//! What can be wrong with a message, where it is, and what follows from it (RFC 7606 §2).
//!
//! Owns: the names of all faults with their RFC clauses and texts, the three actions, and the error of a decoder.
//! Never: decides which action a fault of an attribute has; that is [`crate::wire::attr::rules`], and then `judge`.
//!
//! Faults are plain data without strings, so that a message full of them costs little.

use bytes::Bytes;

use crate::wire::Notification;

/// What a fault leads to, the weakest first (RFC 7606 §2, §3 (h)). "AFI/SAFI disable" is not used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// The attribute is removed and the message goes on.
    Discard,
    /// All routes of the message are withdrawn.
    TreatAsWithdraw,
    /// NOTIFICATION, and the connection closes.
    Reset,
}

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultKind {
    /// The marker is not all ones.
    Marker,
    /// The length field does not fit the message type, or exceeds the limit.
    MessageLength,
    /// The type field is none of 1 to 5.
    MessageType,
    /// Another message where only OPEN is allowed.
    NotOpen,
    /// ROUTE-REFRESH is not 23 octets long.
    RefreshLength,
    /// OPEN: a version other than 4.
    Version,
    /// OPEN: AS number 0, in the field or in capability 65.
    OpenAsZero,
    /// OPEN: not the AS that was configured.
    OpenAs,
    /// OPEN: identifier 0.
    OpenIdZero,
    /// OPEN: our own identifier, from a peer in our AS.
    OpenIdOwn,
    /// OPEN: hold time 1 or 2.
    HoldTime,
    /// OPEN: the length of the optional parameters does not fit the message.
    ParametersLength,
    /// OPEN: a parameter runs past the optional parameters.
    ParameterLength,
    /// OPEN: a capability runs past its parameter.
    CapabilityLength,
    /// OPEN: an optional parameter other than capabilities.
    ParameterType,
    /// UPDATE: withdrawn routes and attributes together exceed the message.
    UpdateLengths,
    /// UPDATE: a prefix is longer than its family allows or than the field.
    WithdrawnPrefix,
    /// UPDATE: as above, in the NLRI field.
    NlriPrefix,
    /// UPDATE: one to three octets are left after the last attribute.
    AttributeUnderrun,
    /// UPDATE: an attribute runs past the total attribute length.
    AttributeOverrun,
    /// The optional or the transitive bit is not as the attribute's definition says.
    Flags,
    /// The value has a length that the attribute does not allow.
    Length,
    /// A second copy.
    Duplicate,
    /// A second copy of an attribute that carries prefixes.
    DuplicateMp,
    /// A well-known attribute that nobody knows.
    UnknownWellKnown,
    /// A mandatory attribute is missing.
    Missing,
    /// An attribute that only peers of the same AS may send.
    FromExternal,
    /// ORIGIN: none of 0, 1, 2.
    OriginValue,
    /// AS_PATH: a segment type that does not exist.
    SegmentType,
    /// AS_PATH: an empty segment.
    SegmentEmpty,
    /// AS_PATH: a segment runs past the attribute, or one octet is left over.
    SegmentLength,
    /// AS_PATH: AS number 0.
    AsZero,
    /// AS_PATH: an AS_SET.
    AsSet,
    /// AS_PATH: a confederation segment, though we are in no confederation.
    Confederation,
    /// AGGREGATOR: AS number 0.
    AggregatorAsZero,
    /// AS4_PATH or AS4_AGGREGATOR from a peer that speaks four-octet AS numbers.
    As4FromNewSpeaker,
    /// AS4_PATH or AS4_AGGREGATOR beside an AGGREGATOR that is not AS_TRANS, or AS4_AGGREGATOR without AGGREGATOR.
    As4Aggregator,
    /// AS4_PATH is longer than AS_PATH.
    As4PathLonger,
    /// AS4_PATH holds confederation segments; they are removed.
    As4Confederation,
    /// MP_REACH_NLRI or MP_UNREACH_NLRI is too short for its fixed part.
    MpShort,
    /// MP_REACH_NLRI: the next hop has a length that its family does not have.
    MpNextHop,
    /// MP_REACH_NLRI or MP_UNREACH_NLRI: a prefix is longer than its family allows or than the attribute.
    MpPrefix,
}

impl FaultKind {
    /// The clause that forbids it.
    pub const fn rfc(self) -> &'static str {
        use FaultKind::*;
        match self {
            Marker | MessageLength | MessageType => "RFC 4271 section 6.1",
            NotOpen => "RFC 6608 section 4",
            RefreshLength => "RFC 7313 section 5",
            Version | OpenAs | ParameterType | HoldTime => "RFC 4271 section 6.2",
            OpenAsZero => "RFC 7607 section 2",
            OpenIdZero | OpenIdOwn => "RFC 6286 section 2.2",
            ParametersLength | ParameterLength => "RFC 9072 section 2",
            CapabilityLength => "RFC 5492 section 4",
            UpdateLengths => "RFC 4271 section 6.3",
            WithdrawnPrefix | NlriPrefix | MpPrefix | MpShort => "RFC 7606 section 5.3",
            AttributeUnderrun | AttributeOverrun => "RFC 7606 section 4",
            Flags => "RFC 7606 section 3 (c)",
            Length | SegmentType | SegmentEmpty | SegmentLength | OriginValue | FromExternal => {
                "RFC 7606 section 7"
            }
            Duplicate | DuplicateMp => "RFC 7606 section 3 (g)",
            UnknownWellKnown => "RFC 4271 section 6.3",
            Missing => "RFC 7606 section 3 (d)",
            AsZero | AggregatorAsZero => "RFC 7607 section 2",
            AsSet => "RFC 9774 section 3",
            Confederation => "RFC 5065 section 5",
            As4FromNewSpeaker => "RFC 6793 section 4.1",
            As4Aggregator | As4PathLonger => "RFC 6793 section 4.2.3",
            As4Confederation => "RFC 6793 section 6",
            MpNextHop => "RFC 7606 section 7.11",
        }
    }

    /// What is wrong, in words.
    pub const fn text(self) -> &'static str {
        use FaultKind::*;
        match self {
            Marker => "marker is not all ones",
            MessageLength => "message length is not allowed",
            MessageType => "unknown message type",
            NotOpen => "not an OPEN message",
            RefreshLength => "ROUTE-REFRESH is not 23 octets long",
            Version => "unsupported version",
            OpenAsZero => "AS number 0",
            OpenAs => "not the AS number of the peer",
            OpenIdZero => "BGP identifier 0",
            OpenIdOwn => "our own BGP identifier from a peer in our AS",
            HoldTime => "hold time of 1 or 2 seconds",
            ParametersLength => "length of the optional parameters does not fit the message",
            ParameterLength => "optional parameter runs past the optional parameters",
            CapabilityLength => "capability runs past its parameter",
            ParameterType => "unknown optional parameter",
            UpdateLengths => "withdrawn routes and attributes exceed the message",
            WithdrawnPrefix => "malformed prefix among the withdrawn routes",
            NlriPrefix => "malformed prefix in the NLRI field",
            AttributeUnderrun => "octets left over after the last attribute",
            AttributeOverrun => "attribute runs past the total attribute length",
            Flags => "attribute flags conflict with the attribute's definition",
            Length => "attribute length is not allowed",
            Duplicate => "second copy of an attribute",
            DuplicateMp => "second copy of an attribute that carries prefixes",
            UnknownWellKnown => "unknown well-known attribute",
            Missing => "mandatory attribute is missing",
            FromExternal => "attribute from an external peer",
            OriginValue => "undefined ORIGIN",
            SegmentType => "undefined segment type",
            SegmentEmpty => "segment without an AS number",
            SegmentLength => "segment does not fit the attribute",
            AsZero => "AS number 0 in the path",
            AsSet => "AS_SET in the path",
            Confederation => "confederation segment from outside a confederation",
            AggregatorAsZero => "aggregator has AS number 0",
            As4FromNewSpeaker => "AS4 attribute from a peer with four-octet AS numbers",
            As4Aggregator => "AS4 attribute does not go with AGGREGATOR",
            As4PathLonger => "AS4_PATH is longer than AS_PATH",
            As4Confederation => "confederation segment in AS4_PATH",
            MpShort => "attribute is too short for its family and next hop",
            MpNextHop => "next hop length does not fit the address family",
            MpPrefix => "malformed prefix in a multiprotocol attribute",
        }
    }
}

/// One fault of one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// Where, in octets from the start of the message.
    pub offset: u16,
    /// The attribute that it is about.
    pub attribute: Option<u8>,
    /// What.
    pub kind: FaultKind,
    /// What it leads to by itself. The message may meet a stronger one (RFC 7606 §5.2).
    pub action: Action,
    /// Subcode of the UPDATE error if it comes to a reset.
    pub subcode: u8,
}

impl Fault {
    /// A fault outside attributes that ends the connection; its NOTIFICATION stands beside it.
    pub(crate) fn reset(offset: usize, kind: FaultKind) -> Fault {
        Fault { offset: clamp(offset), attribute: None, kind, action: Action::Reset, subcode: 0 }
    }
}

/// An offset as it is kept; messages have at most 65535 octets.
pub(crate) fn clamp(offset: usize) -> u16 {
    u16::try_from(offset).unwrap_or(u16::MAX)
}

/// The message ends the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal {
    /// What the peer is told.
    pub notification: Notification,
    /// The fault that decided.
    pub fault: Fault,
    /// All faults that were found, `fault` among them, in wire order.
    pub faults: Vec<Fault>,
}

impl Fatal {
    /// One fault and what it deserves.
    pub(crate) fn new(notification: Notification, fault: Fault) -> Fatal {
        Fatal { notification, fault, faults: vec![fault] }
    }

    /// One fault without data.
    pub(crate) fn plain(code: u8, subcode: u8, offset: usize, kind: FaultKind) -> Fatal {
        Fatal::new(Notification { code, subcode, data: Bytes::new() }, Fault::reset(offset, kind))
    }
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at octet {} ({})", self.fault.kind.text(), self.fault.offset, self.fault.kind.rfc())
    }
}

impl std::error::Error for Fatal {}
