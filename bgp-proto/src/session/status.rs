//! What people are shown of a session.
//!
//! Owns: [`Status`], a copy of everything that can be shown. Never: decides anything.

use crate::prefix::AfiSet;
use crate::session::fsm::{Dial, Link, Opening, State};
use crate::session::machine::Session;
use crate::session::record::Counters;
use crate::session::timers::Timer;
use crate::session::{DownReason, Event, Negotiated};
use crate::time::Millis;
use crate::wire::Notification;

/// The state of RFC 4271 §8.2.2 as BIRD shows it (BGP-9): of two connections, the one that has got further.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StateName {
    /// Stopped, or closed until somebody acts.
    Down,
    /// Waits after an error.
    Idle,
    /// Waits for the peer to dial.
    Passive,
    /// Waits before it dials.
    Active,
    /// Dials.
    Connect,
    /// Our OPEN is out.
    OpenSent,
    /// The peer's OPEN is here.
    OpenConfirm,
    /// Up.
    Established,
}

impl StateName {
    /// The name as BIRD writes it.
    pub const fn name(self) -> &'static str {
        match self {
            StateName::Down => "Down",
            StateName::Idle => "Idle",
            StateName::Passive => "Passive",
            StateName::Active => "Active",
            StateName::Connect => "Connect",
            StateName::OpenSent => "OpenSent",
            StateName::OpenConfirm => "OpenConfirm",
            StateName::Established => "Established",
        }
    }
}

impl std::fmt::Display for StateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// All that can be shown of a session. Times are those of the inputs; a timer tells when it
/// ends and what it was set to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The state.
    pub state: StateName,
    /// When the session started, came up, went down or began to wait after an error (CTL-17).
    pub since: Millis,
    /// Why it is not up; kept until it is (CTL-18).
    pub last: Option<DownReason>,
    /// The last reason since then that BGP gave and not TCP: what the peer said or did not say
    /// before its port was closed.
    pub spoken: Option<(Millis, DownReason)>,
    /// What was agreed on; only while Established.
    pub negotiated: Option<Box<Negotiated>>,
    /// The hold timer of the connection that has got furthest.
    pub hold: Option<Timer>,
    /// The keepalive timer of that connection.
    pub keepalive: Option<Timer>,
    /// Runs while the peer does not take our bytes (RFC 9687).
    pub send_hold: Option<Timer>,
    /// Until the next dial, in Active.
    pub connect_delay: Option<Timer>,
    /// Until this dial is given up, in Connect.
    pub connect_retry: Option<Timer>,
    /// Until the wait after an error, or after too many prefixes, is over.
    pub error_wait: Option<Timer>,
    /// The peer restarts and its routes are kept until then.
    pub restart: Option<Timer>,
    /// The peer is away, and unless it comes back the last of its routes go then.
    pub kept_until: Option<Millis>,
    /// Families with routes of the peer that are stale, whether the session is up or not.
    pub stale: AfiSet,
    /// The last NOTIFICATION that we sent.
    pub sent: Option<(Millis, Notification)>,
    /// The last NOTIFICATION that came.
    pub received: Option<(Millis, Notification)>,
    /// Counters.
    pub counters: Counters,
    /// The last events, oldest first.
    pub events: Vec<(Millis, Event)>,
}

impl Session {
    /// A copy of everything that can be shown.
    pub fn status(&self) -> Status {
        let record = &self.record;
        let mut status = Status {
            state: self.state_name(),
            since: record.since,
            last: record.last.clone(),
            spoken: record.spoken.clone(),
            negotiated: None,
            hold: None,
            keepalive: None,
            send_hold: None,
            connect_delay: None,
            connect_retry: None,
            error_wait: None,
            restart: self.helper.restart_timer(),
            kept_until: self.helper.kept_until(),
            stale: self.stale(),
            sent: record.notifying.clone(),
            received: record.notified.clone(),
            counters: record.counters,
            events: record.history.iter().cloned().collect(),
        };
        match &self.state {
            State::Down => {}
            State::Waiting(wait) => status.error_wait = wait.timer(),
            State::Opening(opening) => {
                match &opening.dial {
                    Dial::Pause(timer) => status.connect_delay = Some(*timer),
                    Dial::Dialing(timer) => status.connect_retry = *timer,
                    Dial::Off | Dial::Open(_) => {}
                }
                match furthest(opening) {
                    Some(Link::OpenSent(link)) => status.hold = Some(link.hold),
                    Some(Link::OpenConfirm(link)) => {
                        status.hold = Some(link.hold);
                        status.keepalive = link.keepalive;
                    }
                    None => {}
                }
            }
            State::Up(up) => {
                status.negotiated = Some(Box::new(up.agreed.public.clone()));
                status.hold = up.hold;
                status.keepalive = up.keepalive;
                status.send_hold = up.send_hold;
            }
        }
        status
    }

    /// The state alone: what [`Session::status`] says, without the copy.
    pub fn state_name(&self) -> StateName {
        match &self.state {
            State::Down => StateName::Down,
            State::Waiting(wait) if wait.timer().is_none() => StateName::Down,
            State::Waiting(_) => StateName::Idle,
            State::Opening(opening) => match (furthest(opening), &opening.dial) {
                (Some(Link::OpenConfirm(_)), _) => StateName::OpenConfirm,
                (Some(Link::OpenSent(_)), _) => StateName::OpenSent,
                (None, Dial::Dialing(_)) => StateName::Connect,
                (None, Dial::Pause(_)) => StateName::Active,
                (None, _) => StateName::Passive,
            },
            State::Up(_) => StateName::Established,
        }
    }

    /// Families with routes of the peer that are stale: while the session is up, those of which the peer has yet to send
    /// all routes again.
    pub fn stale(&self) -> AfiSet {
        self.helper.stale()
    }

    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// What was agreed on, while Established.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::Up(up) => Some(&up.agreed.public),
            State::Down | State::Waiting(_) | State::Opening(_) => None,
        }
    }
}

fn furthest(opening: &Opening) -> Option<&Link> {
    let dialled = match &opening.dial {
        Dial::Open(link) => Some(link),
        Dial::Off | Dial::Pause(_) | Dial::Dialing(_) => None,
    };
    match (dialled, &opening.incoming) {
        (Some(Link::OpenSent(_)), Some(incoming @ Link::OpenConfirm(_))) => Some(incoming),
        (Some(link), _) => Some(link),
        (None, incoming) => incoming.as_ref(),
    }
}
