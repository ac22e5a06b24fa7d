//! What a session remembers for people, beside its state.
//!
//! Owns: [`Counters`], the last reasons and NOTIFICATIONs, and how often faults are told. Never: decides anything.

use crate::session::DownReason;
use crate::session::history::History;
use crate::time::Millis;
use crate::wire::Notification;
use crate::wire::frame::Kind;

/// Messages of one direction. UPDATEs that we send do not pass through the session and are not counted here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Messages {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub refresh: u64,
}

impl Messages {
    pub(super) fn count(&mut self, kind: Kind) {
        *match kind {
            Kind::Open => &mut self.open,
            Kind::Update => &mut self.update,
            Kind::Notification => &mut self.notification,
            Kind::Keepalive => &mut self.keepalive,
            Kind::RouteRefresh => &mut self.refresh,
        } += 1;
    }
}

/// Counters since the session was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Messages received.
    pub received: Messages,
    /// Messages sent.
    pub sent: Messages,
    /// Attempts to connect.
    pub dials: u64,
    /// How often the session came up.
    pub established: u64,
    /// UPDATEs whose routes were withdrawn, or lost an attribute, for an error in them (RFC 7606).
    pub faulty_updates: u64,
    /// UPDATEs with prefixes of families that were not agreed on, which were ignored (W28).
    pub ignored_updates: u64,
    /// ROUTE-REFRESHes that asked for nothing that was agreed on (W55).
    pub ignored_refreshes: u64,
}

/// What the session remembers for people.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) since: Millis,
    pub(super) last: Option<DownReason>,
    pub(super) spoken: Option<(Millis, DownReason)>,
    pub(super) notifying: Option<(Millis, Notification)>,
    pub(super) notified: Option<(Millis, Notification)>,
    pub(super) counters: Counters,
    pub(super) faults: FaultsTold,
    pub(super) history: History,
}

/// Faulty UPDATEs may come by the thousand; people are told of one in a minute.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultsTold {
    last: Option<Millis>,
    untold: u64,
}

impl FaultsTold {
    const PAUSE: Millis = Millis::secs(60);

    /// Counts one. Where it is to be told: how many others were not.
    pub(super) fn another(&mut self, now: Millis) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < Self::PAUSE) {
            self.untold += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Record {
    /// The session starts, or is up.
    pub(super) fn forget_reasons(&mut self) {
        (self.last, self.spoken) = (None, None);
    }
}
