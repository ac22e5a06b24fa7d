//! The wire codec: BGP messages to bytes and back (RFC 4271 and its extensions).
//!
//! Owns: framing, every message, the RFC 7606 action table, encoding. Never: sessions, timers, policy; never
//! allocates by a length that a peer declares. A decoder is given its [`Context`] once, by negotiation; it never
//! learns options by watching messages pass.

pub mod attr;
pub mod capability;
pub mod context;
pub mod fault;
pub mod frame;
mod input;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod receive;
pub mod refresh;
pub mod send;
pub mod update;

pub use attr::{AsPath, AsnList, Attributes, NextHop, Origin, Segment, UnknownAttribute};
pub use capability::Capability;
pub use context::{Context, PeerType};
pub use fault::{Action, Fatal, Fault, FaultKind};
pub use frame::{Frame, Kind, Next, next_frame};
pub use notification::Notification;
pub use open::Open;
pub use refresh::RouteRefresh;
pub use send::{
    encode_end_of_rib, encode_keepalive, encode_notification, encode_open, encode_reach, encode_refresh,
    encode_unreach,
};
pub use update::{Nlri, NlriList, Reach, Update};

use smallvec::SmallVec;

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

/// A message and what was wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// The message. An UPDATE is as it is to be applied: what its faults lead to is done.
    pub message: Message,
    /// Faults of an UPDATE that do not end the connection.
    pub faults: Vec<Fault>,
    /// Families of an UPDATE whose prefixes were not looked at (W28).
    pub not_negotiated: SmallVec<[capability::WireFamily; 1]>,
}

impl From<Message> for Decoded {
    fn from(message: Message) -> Self {
        Decoded { message, faults: Vec::new(), not_negotiated: SmallVec::new() }
    }
}

/// Decodes one whole message, header included. An error is what the peer is told before the connection closes.
pub fn decode(message: &[u8], ctx: &Context) -> Result<Decoded, Fatal> {
    let frame = one_frame(message, ctx.max_len())?;
    let message = match frame.kind {
        Kind::Open => Message::Open(open::decode(frame.body())?),
        Kind::Update => {
            let judged = receive::read(frame.bytes, ctx).judge(frame.bytes, ctx)?;
            return Ok(Decoded {
                message: Message::Update(judged.update),
                faults: judged.faults,
                not_negotiated: judged.not_negotiated,
            });
        }
        Kind::Notification => Message::Notification(Notification::decode(frame.body())),
        Kind::Keepalive => Message::Keepalive,
        Kind::RouteRefresh => Message::RouteRefresh(refresh::decode(frame)?),
    };
    Ok(message.into())
}

/// Decodes an OPEN, header included, before anything is negotiated. Any other message is an error (5/0).
pub fn decode_open(message: &[u8]) -> Result<Open, Fatal> {
    let frame = one_frame(message, frame::MAX_LEN)?;
    match frame.kind {
        Kind::Open => open::decode(frame.body()),
        _ => Err(Fatal::plain(5, 0, 18, FaultKind::NotOpen)),
    }
}

/// The frame that is exactly `message`.
fn one_frame(message: &[u8], max_len: usize) -> Result<Frame<'_>, Fatal> {
    match frame::take(message, max_len)? {
        frame::Head::Frame(frame) if frame.bytes.len() == message.len() => Ok(frame),
        // The caller's framing differs from the header's: what follows cannot be trusted.
        _ => Err(Fatal::plain(1, 2, 16, FaultKind::MessageLength)),
    }
}
