//! The states of RFC 4271 §8 as types.
//!
//! Owns: what is known in each state, and which message is expected in which (RFC 6608, T8). A state that has no OPEN
//! of the peer has no field for one. Never: does anything; transitions are in [`super::machine`], [`super::opening`]
//! and [`super::established`].
//!
//! RFC 4271 gives each connection a machine of its own; here the dial states (Idle, Active, Connect) belong to the
//! session, because there is one dial at a time, and a connection begins with OpenSent.

use crate::prefix::Afi;
use crate::session::collision::Side;
use crate::session::limits::{Bucket, PrefixLimit};
use crate::session::negotiate::Agreed;
use crate::session::timers::{Timer, earliest};
use crate::session::{Conn, Endpoints};
use crate::time::Millis;
use crate::wire::frame::Kind;
use crate::wire::{Notification, Open};

/// The whole session.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Not wanted.
    Down,
    /// Idle: neither dials nor accepts until the time is over.
    Waiting(Wait),
    /// Dialling, accepting, or exchanging OPENs.
    Opening(Opening),
    /// Established.
    Up(Box<Up>),
}

/// Why nothing is tried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// After a protocol error (BGP-11).
    Error(Timer),
    /// After too many prefixes; without a timer until somebody acts.
    Limit(Option<Timer>),
}

impl Wait {
    pub(super) fn timer(&self) -> Option<Timer> {
        match self {
            Wait::Error(timer) => Some(*timer),
            Wait::Limit(timer) => *timer,
        }
    }
}

/// Two slots for connections. The slot [`Conn::Active`] is `dial`, the slot [`Conn::Passive`] is `incoming`.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) dial: Dial,
    pub(super) incoming: Option<Link>,
}

/// What our own attempt is at.
#[derive(Clone, Debug)]
pub(super) enum Dial {
    /// Passive, or the peer's connection has got further than ours (BGP-13).
    Off,
    /// Active: until the next attempt.
    Pause(Timer),
    /// Connect: until this attempt is given up. No time runs before the attempt has its
    /// turn among those of other peers.
    Dialing(Option<Timer>),
    /// TCP is up in this slot.
    Open(Link),
}

/// A connection on which the session is not up yet.
#[derive(Clone, Debug)]
pub(super) enum Link {
    OpenSent(Box<OpenSent>),
    OpenConfirm(Box<OpenConfirm>),
}

/// Our OPEN is out.
#[derive(Clone, Debug)]
pub(super) struct OpenSent {
    pub(super) by: Side,
    pub(super) ends: Endpoints,
    pub(super) sent: Open,
    pub(super) hold: Timer,
}

/// Both OPENs are there, and our KEEPALIVE is out.
#[derive(Clone, Debug)]
pub(super) struct OpenConfirm {
    pub(super) by: Side,
    pub(super) agreed: Box<Agreed>,
    pub(super) since: Millis,
    /// Even where the hold time agreed on is none: a peer that dies here would be waited for without end.
    pub(super) hold: Timer,
    /// The hold timer has been put off once (T17).
    pub(super) late: bool,
    pub(super) keepalive: Option<Timer>,
    /// The peer's KEEPALIVE is there too, but the other connection may be the one that stays
    /// ([`super::collision::holds_back`]); until when.
    pub(super) held: Option<Millis>,
}

impl Link {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Link::OpenSent(_) => Stage::OpenSent,
            Link::OpenConfirm(link) if link.held.is_some() => Stage::Held,
            Link::OpenConfirm(_) => Stage::OpenConfirm,
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        match self {
            Link::OpenSent(link) => Some(link.hold.until),
            Link::OpenConfirm(link) => {
                earliest([Some(link.hold.until), link.keepalive.map(|t| t.until), link.held])
            }
        }
    }
}

impl Opening {
    pub(super) fn link(&self, conn: Conn) -> Option<&Link> {
        match (conn, &self.dial) {
            (Conn::Active, Dial::Open(link)) => Some(link),
            (Conn::Active, _) => None,
            (Conn::Passive, _) => self.incoming.as_ref(),
        }
    }

    pub(super) fn link_mut(&mut self, conn: Conn) -> Option<&mut Link> {
        match (conn, &mut self.dial) {
            (Conn::Active, Dial::Open(link)) => Some(link),
            (Conn::Active, _) => None,
            (Conn::Passive, _) => self.incoming.as_mut(),
        }
    }

    /// Empties a slot.
    pub(super) fn take(&mut self, conn: Conn) -> Option<Link> {
        match conn {
            Conn::Passive => self.incoming.take(),
            Conn::Active => match std::mem::replace(&mut self.dial, Dial::Off) {
                Dial::Open(link) => Some(link),
                dial => {
                    self.dial = dial;
                    None
                }
            },
        }
    }

    pub(super) fn put(&mut self, conn: Conn, link: Link) {
        match conn {
            Conn::Active => self.dial = Dial::Open(link),
            Conn::Passive => self.incoming = Some(link),
        }
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        let dial = match &self.dial {
            Dial::Off => None,
            Dial::Pause(timer) => Some(timer.until),
            Dial::Dialing(timer) => timer.map(|t| t.until),
            Dial::Open(link) => link.deadline(),
        };
        earliest([dial, self.incoming.as_ref().and_then(Link::deadline)])
    }
}

/// Established.
#[derive(Clone, Debug)]
pub(super) struct Up {
    pub(super) conn: Conn,
    pub(super) since: Millis,
    pub(super) agreed: Box<Agreed>,
    pub(super) hold: Option<Timer>,
    /// The hold timer has been put off once since the last message (T17).
    pub(super) late: bool,
    pub(super) keepalive: Option<Timer>,
    pub(super) send_hold: Option<Timer>,
    pub(super) limit: Option<PrefixLimit>,
    pub(super) v4: Refreshes,
    pub(super) v6: Refreshes,
    pub(super) challenger: Option<Challenger>,
}

/// Another connection of the peer beside the established one, in the slot that is free. Our OPEN is kept back until
/// the peer's has come: what does not speak BGP (a port scan, the rest of a simultaneous open) changes nothing.
#[derive(Clone, Debug)]
pub(super) struct Challenger {
    pub(super) ends: Endpoints,
    pub(super) hold: Timer,
}

/// Route refresh of one family.
#[derive(Clone, Debug)]
pub(super) struct Refreshes {
    /// How often the peer may ask for our routes.
    pub(super) asked: Bucket,
    /// The peer asked more often than that; it is served when this time has come.
    pub(super) owed: Option<Millis>,
    /// How often the peer may mark its routes stale.
    pub(super) begun: Bucket,
    /// BoRR has come and EoRR has not.
    pub(super) stale: Option<Timer>,
    /// End-of-RIB has come.
    pub(super) complete: bool,
}

impl Refreshes {
    pub(super) fn new(now: Millis) -> Self {
        Refreshes {
            asked: Bucket::full(now),
            owed: None,
            begun: Bucket::full(now),
            stale: None,
            complete: false,
        }
    }

    /// Whether the peer may have our routes again now; if not, it is owed them.
    pub(super) fn serve(&mut self, now: Millis) -> bool {
        let allowed = self.asked.take(now);
        self.owed = (!allowed).then(|| self.asked.next());
        allowed
    }

    fn deadline(&self) -> Option<Millis> {
        earliest([self.owed, self.stale.map(|t| t.until)])
    }
}

impl Up {
    pub(super) fn refreshes(&mut self, afi: Afi) -> &mut Refreshes {
        match afi {
            Afi::Ipv4 => &mut self.v4,
            Afi::Ipv6 => &mut self.v6,
        }
    }

    /// The slot that the session does not use.
    pub(super) fn free(&self) -> Conn {
        other(self.conn)
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        earliest([
            self.hold.map(|t| t.until),
            self.keepalive.map(|t| t.until),
            self.send_hold.map(|t| t.until),
            self.challenger.as_ref().map(|c| c.hold.until),
            self.v4.deadline(),
            self.v6.deadline(),
        ])
    }
}

/// The other slot.
pub(super) fn other(conn: Conn) -> Conn {
    match conn {
        Conn::Active => Conn::Passive,
        Conn::Passive => Conn::Active,
    }
}

/// What a connection is at, for the question which message may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Beside an established session, our OPEN kept back.
    Challenger,
    OpenSent,
    OpenConfirm,
    /// OpenConfirm with the peer's KEEPALIVE there.
    Held,
    Established,
}

/// Whether a message of this kind may come. If not, the FSM error to send: its data is the type of the message (RFC
/// 6608 §4). NOTIFICATION may always come.
pub(super) fn admit(stage: Stage, kind: Kind) -> Result<(), Notification> {
    let (expected, subcode) = match stage {
        Stage::Challenger | Stage::OpenSent => (matches!(kind, Kind::Open), 1),
        Stage::OpenConfirm => (matches!(kind, Kind::Keepalive), 2),
        Stage::Held => (!matches!(kind, Kind::Open), 2),
        Stage::Established => (!matches!(kind, Kind::Open), 3),
    };
    if expected || kind == Kind::Notification {
        Ok(())
    } else {
        Err(Notification { code: 5, subcode, data: bytes::Bytes::copy_from_slice(&[kind.code()]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_refuses_the_messages_that_it_does_not_expect_with_its_subcode() {
        use Kind::*;
        #[rustfmt::skip]
        let table: [(Stage, &[Kind], u8); 5] = [
            (Stage::Challenger,  &[Update, Keepalive, RouteRefresh], 1),
            (Stage::OpenSent,    &[Update, Keepalive, RouteRefresh], 1),
            (Stage::OpenConfirm, &[Open, Update, RouteRefresh],      2),
            (Stage::Held,        &[Open],                            2),
            (Stage::Established, &[Open],                            3),
        ];
        for (stage, refused, subcode) in table {
            for kind in [Open, Update, Notification, Keepalive, RouteRefresh] {
                let expected = if refused.contains(&kind) { Some((5, subcode, kind.code())) } else { None };
                let got = admit(stage, kind).err().map(|n| (n.code, n.subcode, n.data[0]));
                assert_eq!(got, expected, "{stage:?} {kind:?}");
            }
        }
    }
}
