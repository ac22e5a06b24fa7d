//! One BGP peer as a pure machine (RFC 4271 §8 and its extensions).
//!
//! Owns: the session with a peer, from the first dial to the last NOTIFICATION: two connections at most, their
//! collision, timers, what OPENs agree on, refresh, limits, graceful restart of the peer, reasons. Never: knows what a
//! route is for, reads a clock, touches a socket, sends an UPDATE (the shell writes what the table gives it).
//!
//! # How a shell drives it
//!
//! Give every event as an [`Input`] to [`Session::handle`] and do what the outputs say, in order. After each call ask
//! [`Session::deadline`] and give [`Input::Tick`] when it has come; before that tick, give every frame that can be read
//! at once, or [`Input::Unread`] where it cannot be taken (T17). What concerns sockets:
//!
//! - The answer to [`Output::Dial`] is [`Input::DialStarted`] as soon as the dial has its turn, and then one
//!   [`Input::Connected`] or one [`Input::DialFailed`], or none after [`Output::AbortDial`] (an answer that crosses it does
//!   no harm unless another `Dial` has been given since: drop it). Only the shell can end the wait for the turn.
//! - Every [`Input::Connected`] is answered by [`Output::Accept`] or [`Output::Refuse`] in the same call. `Accept` names
//!   the slot that the new socket takes: what it is called from then on. A [`Output::Close`] of the same slot that
//!   comes before it means the socket that was there.
//! - After [`Output::Close`] nothing more of that socket is told. Bytes handed to [`Output::Send`] before are written
//!   if the socket takes them; a blocked one is not waited for (RFC 9687 §3.2).
//! - UPDATEs are written between [`Output::Up`] and the [`Output::Close`] or [`Input::Closed`] of that connection.

mod codec;
mod collision;
mod established;
mod fsm;
pub mod gr;
mod history;
mod limits;
mod machine;
mod negotiate;
mod opening;
mod reason;
mod record;
mod status;
mod timers;

pub use history::History;
pub use machine::Session;
pub use record::{Counters, Messages};
pub use status::{StateName, Status};
pub use timers::Timer;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::ids::{Asn, RouterId};
use crate::prefix::{Afi, AfiSet};
use crate::wire::attr::AttributeCodes;
use crate::wire::{Context, Fault, Notification, Open, Update};

/// How far away the peer may be (PEER-62, BGP-4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TtlRule {
    /// Sent TTL or hop limit; nothing is demanded of the peer's.
    Multihop(u8),
    /// GTSM (RFC 5082): 255 is sent, `256 - hops` or more is accepted.
    Security {
        /// Hops between us and the peer, at least 1.
        hops: u8,
    },
}

impl TtlRule {
    /// The TTL that is sent (BGP-4).
    pub const fn sent(self) -> u8 {
        match self {
            TtlRule::Multihop(ttl) => ttl,
            TtlRule::Security { .. } => 255,
        }
    }

    /// The least TTL that is accepted; `None`: any.
    pub const fn least(self) -> Option<u8> {
        match self {
            TtlRule::Multihop(_) => None,
            TtlRule::Security { hops } => Some(u8::MAX - hops.saturating_sub(1)),
        }
    }
}

/// Where the peer is. A change means a new session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transport {
    /// The peer's address.
    pub peer: IpAddr,
    /// Interface index for an IPv6 link-local `peer`; 0 otherwise.
    pub scope: u32,
    /// The port that we dial.
    pub port: u16,
    /// TTL rule.
    pub ttl: TtlRule,
}

/// What OPEN says of us and demands of the peer. A change means a new session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenParams {
    /// The AS that we are in this session (PEER-68).
    pub local_asn: Asn,
    /// The AS that the peer must be.
    pub peer_asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// Families that the session carries; one for Calico's sessions.
    pub families: AfiSet,
}

/// What waits for the next connection or the next timer; a change resets nothing (BGP-37). All times in seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextOpen {
    /// Address to dial from; `None` lets the kernel choose.
    pub source: Option<IpAddr>,
    /// Never dial.
    pub passive: bool,
    /// Hold time offered (240).
    pub hold_time: u16,
    /// Keepalive interval if fixed, else a third of the negotiated hold time (PEER-61).
    pub keepalive: Option<u16>,
    /// Graceful restart: restart time offered (120), or `None` to not offer it.
    pub restart_time: Option<u16>,
    /// Offer the N bit (RFC 8538). Off: our OPEN is BIRD's.
    pub notification_gr: bool,
    /// Long-lived graceful restart (RFC 9494): seconds for which we ask the peer to keep our routes beyond our restart
    /// time (24 bits, 0: none), and keep the peer's as long as it asks. `None`: aware only, as BIRD is by
    /// default. Needs `restart_time`.
    pub long_lived: Option<u32>,
    /// Pause between dials that failed in TCP (2); the first ones are shorter.
    pub connect_delay: u16,
    /// Limit of one dial (5).
    pub connect_retry: u16,
    /// Back-off after a protocol error, doubling from the first to the second (5, 30).
    pub error_wait: (u16, u16),
    /// After so long without a protocol error the back-off starts anew (300).
    pub error_forget: u16,
    /// Hold timer before an OPEN has come (240).
    pub open_hold: u16,
    /// Send hold time (RFC 9687 §4: 480 or twice the hold time); `None` switches it off.
    pub send_hold: Option<u16>,
    /// Offer add-path in both directions.
    pub add_path: bool,
    /// Limit on prefixes received.
    pub max_prefix: Option<MaxPrefix>,
    /// Keep routes with an AS_SET in their path, as BIRD does, instead of withdrawing them (RFC 9774, W34).
    pub accept_as_set: bool,
    /// Attributes that are taken from the routes of external peers (W49).
    pub strip_external: AttributeCodes,
}

impl Default for NextOpen {
    /// BIRD's values as Calico configures it (BGP-1, BGP-2, PEER-69).
    fn default() -> Self {
        NextOpen {
            source: None,
            passive: false,
            hold_time: 240,
            keepalive: None,
            restart_time: Some(120),
            notification_gr: false,
            long_lived: None,
            connect_delay: 2,
            connect_retry: 5,
            error_wait: (5, 30),
            error_forget: 300,
            open_hold: 240,
            send_hold: Some(480),
            add_path: true,
            max_prefix: None,
            accept_as_set: false,
            strip_external: AttributeCodes::stripped_from_external(),
        }
    }
}

/// What to do about a peer that sends too many prefixes (T18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaxPrefix {
    /// Prefixes of one family.
    pub limit: u32,
    /// Close with Cease/1 above the limit; otherwise only warn.
    pub close: bool,
    /// Seconds until the next attempt after a close; `None`: never by itself.
    pub restart: Option<u16>,
}

/// Everything that configures one session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSpec {
    /// Where.
    pub transport: Transport,
    /// Who.
    pub open: OpenParams,
    /// How, from the next connection on.
    pub next: NextOpen,
}

/// One of the two connections that a session may have.
///
/// These are names of slots. Where the peer comes back while its old connection still stands in `Passive`, the new one
/// takes the free slot `Active` ([`Output::Accept`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Conn {
    /// The one that we dialled.
    Active,
    /// The one that the peer dialled.
    Passive,
}

/// The two ends of a TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoints {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// What two OPENs agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// Which connection it is.
    pub conn: Conn,
    /// Its ends.
    pub endpoints: Endpoints,
    /// The coding of messages.
    pub context: Context,
    /// The peer's OPEN.
    pub peer_open: Open,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer's identifier.
    pub peer_id: RouterId,
    /// Hold time in seconds; 0: none.
    pub hold_time: u16,
    /// Families in which both sides do graceful restart (the peer lists it, and we offered it).
    pub graceful: AfiSet,
    /// The peer's R bit: it is restarting itself.
    pub peer_restarting: bool,
    /// Whether the peer offers graceful restart at all (it then sends End-of-RIB).
    pub peer_graceful: bool,
    /// The peer answers ROUTE-REFRESH.
    pub refresh: bool,
    /// Both sides mark refreshes (RFC 7313).
    pub enhanced_refresh: bool,
}

/// What the world tells a session.
#[derive(Debug)]
pub enum Input<'a> {
    /// The peer is wanted: dial (unless passive) and accept.
    Start,
    /// The peer is no longer wanted, or an operator acts.
    Stop(StopReason),
    /// As `Stop`, with a text for the peer's operator where a Cease of subcode 2 or 4 is sent (RFC 9003).
    Shutdown(StopReason, &'a str),
    /// Parameters of the next connection changed.
    Reconfigure(NextOpen),
    /// Transport or OPEN parameters changed: a successor takes the place of this session. The peer's routes stay, as stale
    /// ones, until it has brought them again or their time is over ([`gr`]). The peer's address stays the same.
    Replace(Box<PeerSpec>),
    /// Families for which OPENs say from now on that we restart and kept our forwarding state; empty: recovery is over
    /// (RFC 4724 §4.1, BGP-16).
    Restarting(AfiSet),
    /// A TCP connection is up: the one that was dialled ([`Conn::Active`]), or one that the peer dialled
    /// ([`Conn::Passive`]).
    Connected(Conn, Endpoints),
    /// The dial has its turn among those of other peers and begins now: its time limit counts from here (T21).
    DialStarted,
    /// A dial failed.
    DialFailed(DialError),
    /// A whole message arrived, header included, as framed by the shell.
    Frame(Conn, &'a [u8]),
    /// The shell could not frame what arrived (marker, length or type): send this and close.
    BadFrame(Conn, Notification),
    /// The connection ended without our doing.
    Closed(Conn, CloseCause),
    /// Input of this connection waits to be read, and cannot be taken now: the hold timer
    /// must not run out over it (T17).
    Unread(Conn),
    /// The kernel took bytes of this connection: the send hold timer ends (RFC 9687).
    Wrote(Conn),
    /// Bytes wait that the kernel does not take: the send hold timer starts, if it does not run.
    Blocked(Conn),
    /// The core asks for the peer's routes again (import policy changed).
    RequestRefresh(Afi),
    /// The core closes the session (for instance: it cannot accept more).
    Close(Notification),
    /// The deadline that [`Session::deadline`] named has come.
    Tick,
}

/// Why a session is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StopReason {
    /// Not in the desired state any more: Cease/3.
    Deconfigured,
    /// A new task takes its place: close so that graceful restart holds where negotiated (BGP-37).
    Reconfigured,
    /// The process ends: close TCP without NOTIFICATION where graceful restart is negotiated (BGP-33).
    Exit,
    /// An operator's `disable`: Cease/2.
    AdminDown,
    /// An operator's `restart`: Cease/4.
    AdminReset,
}

/// What a dial ended in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DialError {
    /// ECONNREFUSED.
    Refused,
    /// No answer to SYN: a firewall, or MD5 that one side lacks.
    Timeout,
    /// EHOSTUNREACH.
    HostUnreachable,
    /// ENETUNREACH, ENETDOWN.
    NetworkUnreachable,
    /// EADDRNOTAVAIL: the source address is not ours.
    SourceUnavailable,
    /// Any other errno; 0: not known.
    Os(i32),
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseCause {
    /// FIN.
    Eof,
    /// RST.
    Reset,
    /// Any other errno; 0: not known.
    Os(i32),
}

/// What a session tells its shell, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Open a TCP connection to the peer ([`PeerSpec::transport`], [`NextOpen::source`]).
    Dial,
    /// Give up the dial under way.
    AbortDial,
    /// The connection that was just announced takes this slot.
    Accept(Conn),
    /// The connection that was just announced is not taken: write these bytes, which may be none, and close it.
    Refuse(Bytes),
    /// Close this connection, after what was handed to `Send` before.
    Close(Conn),
    /// Write these bytes.
    Send(Conn, Bytes),
    /// Established.
    Up(Box<Negotiated>),
    /// Routes changed. Only between `Up` and `Down`/`Stale`.
    Update(Update),
    /// The peer wants our routes of this family again.
    RefreshRequested(Afi),
    /// Nothing more of the initial routes of this family.
    EndOfRib(Afi),
    /// The session is gone but its routes of these families stay, marked stale (RFC 4724 §4.2); routes of others go.
    Stale(AfiSet),
    /// Mark the routes of this family stale without losing the session (BoRR, RFC 7313).
    MarkStale(Afi),
    /// Routes of this family that are still stale go, whether the session is up or its routes are kept without it.
    SweepStale(Afi),
    /// The peer is still away, and its stale routes of these families stay on as long-lived stale ones: the least
    /// preferred (RFC 9494 §4.2).
    LongLivedStale(AfiSet),
    /// The session is gone and so are all its routes.
    Down,
    /// Something happened that people want to know at level info.
    Event(Event),
}

/// What happened, for logs and for the ring of last events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The session came up.
    Established,
    /// The session went down, or an attempt failed; not told again while the reason stays the same.
    Down(DownReason),
    /// The session is gone and the peer's routes of these families are kept (RFC 4724).
    PeerRestarting(AfiSet),
    /// The peer did not come back within its restart time; its routes of these families are kept as
    /// long-lived stale ones (RFC 9494).
    LongLivedStale(AfiSet),
    /// The peer did not come back in time; its routes are gone.
    RestartTimedOut,
    /// An UPDATE had an error that does not end the session (RFC 7606); told once a minute.
    FaultyUpdate {
        /// The worst of its faults.
        fault: Fault,
        /// A few octets of the message, from shortly before the fault.
        excerpt: Bytes,
        /// How many others there were since the last one that was told.
        more: u64,
    },
    /// The peer has announced more prefixes than its limit (T18).
    PrefixLimit {
        /// The family.
        afi: Afi,
        /// The limit.
        limit: u32,
        /// The session is closed for it.
        closed: bool,
    },
}

/// Why a peer is not established.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// Nothing has been tried yet.
    Idle,
    /// A dial failed.
    Dial(DialError),
    /// TCP ended.
    Closed(CloseCause),
    /// We sent this.
    Sent(Notification),
    /// We received this.
    Received(Notification),
    /// We sent this, for a message of the peer that cannot be taken.
    Malformed {
        /// The NOTIFICATION.
        sent: Notification,
        /// What is wrong with the message, and where.
        fault: Fault,
    },
    /// OPEN names another AS.
    AsMismatch {
        /// As configured.
        expected: Asn,
        /// As in the OPEN.
        got: Asn,
    },
    /// The peer opened a new connection while the old one stood: it has restarted (BGP-30).
    Restarted,
    /// Nothing came for the hold time.
    HoldExpired,
    /// Nothing could be sent for the send hold time (RFC 9687).
    SendHoldExpired,
    /// Stopped.
    Stopped(StopReason),
}

impl DownReason {
    /// Whether BGP gives the reason, by what was said or by silence; else TCP does, or somebody here.
    pub fn is_of_bgp(&self) -> bool {
        use DownReason::{
            AsMismatch, Closed, Dial, HoldExpired, Idle, Malformed, Received, Restarted, SendHoldExpired,
            Sent, Stopped,
        };
        match self {
            Sent(_) | Malformed { .. } | Received(_) | AsMismatch { .. } | HoldExpired | SendHoldExpired => {
                true
            }
            Idle | Dial(_) | Closed(_) | Restarted | Stopped(_) => false,
        }
    }
}
