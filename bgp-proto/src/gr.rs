//! Graceful restart (RFC 4724, RFC 8538): the two machines.
//!
//! Owns: [`Helper`], what happens to a peer's routes when the peer goes away and comes back, and [`Deferral`], how long
//! a speaker that has itself restarted waits for its peers. Never: touches a table; what is to be done is returned.
//!
//! Helper: BGP-29 to BGP-32. Restarting side: design of the restart without loss, KRT-50, BGP-19, BGP-34. Long-lived
//! graceful restart (RFC 9494) is announced as "aware" only, so no route is ever kept as long-lived stale.

use std::collections::BTreeMap;

use crate::prefix::{Afi, AfiSet};
use crate::session::Timer;
use crate::time::Millis;

/// How long stale routes outlive the return of their peer when it never sends End-of-RIB (T7).
const STALE_LIMIT: u16 = 360;

/// What a peer's routes go through while the peer restarts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Helper {
    phase: Phase,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Phase {
    /// No stale routes.
    #[default]
    Fresh,
    /// The peer is away; its routes of these families are kept.
    Away { kept: AfiSet, restart: Timer },
    /// The peer is back; its routes of these families that it has not sent again are stale.
    Back { stale: AfiSet, limit: Timer },
}

/// What the loss of a session means for the routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All go.
    Drop,
    /// First those of `sweep` that are still stale from the time before go (RFC 4724 §4.2: a route that was stale
    /// already is deleted); then the rest of `keep` becomes stale, and other families go.
    Keep {
        /// Families with routes that were stale before.
        sweep: AfiSet,
        /// Families that are kept.
        keep: AfiSet,
    },
}

/// What has become of kept routes when a timer ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// The peer did not come back in time: all its routes go.
    Gone,
    /// The peer is back but never finished: what is still stale of these families goes.
    Stale(AfiSet),
}

impl Helper {
    /// The session is lost in a way that graceful restart covers.
    ///
    /// `graceful`: families in which it was negotiated. `time`: seconds that the peer asked for.
    pub fn lost(&mut self, now: Millis, graceful: AfiSet, time: u16) -> Loss {
        let before = std::mem::take(&mut self.phase);
        if graceful.is_empty() || time == 0 {
            return Loss::Drop;
        }
        let sweep = match before {
            Phase::Back { stale, .. } => stale.and(graceful),
            Phase::Fresh | Phase::Away { .. } => AfiSet::EMPTY,
        };
        self.phase = Phase::Away { kept: graceful, restart: Timer::exact(now, time) };
        Loss::Keep { sweep, keep: graceful }
    }

    /// The session is up again. `preserved`: families of the session whose forwarding state the peer kept (F bit).
    /// Returns the families whose kept routes go at once (BGP-31).
    pub fn regained(&mut self, now: Millis, preserved: AfiSet) -> AfiSet {
        let Phase::Away { kept, .. } = std::mem::take(&mut self.phase) else {
            return AfiSet::EMPTY;
        };
        let stale = kept.and(preserved);
        if !stale.is_empty() {
            self.phase = Phase::Back { stale, limit: Timer::exact(now, STALE_LIMIT) };
        }
        kept.iter().filter(|afi| !stale.contains(*afi)).collect()
    }

    /// The peer has sent all of its routes of a family. Whether what is still stale of it goes now.
    pub fn end_of_rib(&mut self, afi: Afi) -> bool {
        let Phase::Back { stale, limit } = &self.phase else {
            return false;
        };
        if !stale.contains(afi) {
            return false;
        }
        let rest: AfiSet = stale.iter().filter(|other| *other != afi).collect();
        self.phase = if rest.is_empty() { Phase::Fresh } else { Phase::Back { stale: rest, limit: *limit } };
        true
    }

    /// Forgets everything: the routes are gone. Whether routes were kept while the peer was away.
    pub fn clear(&mut self) -> bool {
        matches!(std::mem::take(&mut self.phase), Phase::Away { .. })
    }

    /// Looks at the timers.
    pub fn tick(&mut self, now: Millis) -> Option<Expired> {
        let expired = match &self.phase {
            Phase::Away { restart, .. } if restart.is_due(now) => Expired::Gone,
            Phase::Back { stale, limit } if limit.is_due(now) => Expired::Stale(*stale),
            _ => return None,
        };
        self.phase = Phase::Fresh;
        Some(expired)
    }

    /// When the next timer runs out.
    pub fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Fresh => None,
            Phase::Away { restart, .. } => Some(restart.until),
            Phase::Back { limit, .. } => Some(limit.until),
        }
    }

    /// The restart timer, while the peer is away and its routes are kept.
    pub fn restart_timer(&self) -> Option<Timer> {
        match &self.phase {
            Phase::Away { restart, .. } => Some(*restart),
            Phase::Fresh | Phase::Back { .. } => None,
        }
    }

    /// Families with stale routes.
    pub fn stale(&self) -> AfiSet {
        match &self.phase {
            Phase::Fresh => AfiSet::EMPTY,
            Phase::Away { kept: set, .. } | Phase::Back { stale: set, .. } => *set,
        }
    }
}

/// How a deferral ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// There was nothing to wait for: a first start.
    ColdStart,
    /// The datastore is in sync and every awaited peer has sent End-of-RIB or is not worth waiting for.
    Complete,
    /// The time was over.
    TimedOut,
}

/// What a speaker that has restarted waits for before it may remove what it found (and pass on what it has learned).
///
/// `K` names a peer across restarts, for instance its configured name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deferral<K> {
    families: AfiSet,
    awaited: BTreeMap<K, AfiSet>,
    in_sync: bool,
    until: Millis,
    ended: Option<Ending>,
}

impl<K: Ord> Deferral<K> {
    /// The time after which nothing is waited for any more, in seconds.
    pub const LIMIT: u16 = 30;

    /// A first start, or one whose forwarding state is not known to have survived: nothing is awaited and the OPENs
    /// carry neither R nor F.
    pub fn cold() -> Self {
        Deferral {
            families: AfiSet::EMPTY,
            awaited: BTreeMap::new(),
            in_sync: false,
            until: Millis(0),
            ended: Some(Ending::ColdStart),
        }
    }

    /// A restart. `families`: those whose forwarding state survived. `peers`: those that had a session with graceful
    /// restart before, with its families. `limit`: seconds, [`Deferral::LIMIT`] unless set.
    pub fn restarted(
        now: Millis,
        families: AfiSet,
        peers: impl IntoIterator<Item = (K, AfiSet)>,
        limit: u16,
    ) -> Self {
        if families.is_empty() {
            return Deferral::cold();
        }
        let awaited = peers.into_iter().filter(|(_, set)| !set.is_empty()).collect();
        Deferral { families, awaited, in_sync: false, until: now + Millis::secs(limit.into()), ended: None }
    }

    /// Families for which our OPENs say that we restart and kept our forwarding state; empty once it is over (BGP-16).
    pub fn open_flags(&self) -> AfiSet {
        if self.ended.is_some() { AfiSet::EMPTY } else { self.families }
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<Ending> {
        self.ended
    }

    /// Peers that are still awaited.
    pub fn awaited(&self) -> impl Iterator<Item = &K> {
        self.awaited.keys()
    }

    /// The datastore is in sync: peers that it does not name are not awaited.
    pub fn in_sync(&mut self, configured: impl Fn(&K) -> bool) {
        self.in_sync = true;
        self.awaited.retain(|peer, _| configured(peer));
        self.settle();
    }

    /// A session is up. A peer without graceful restart sends no End-of-RIB that can be relied on, and one that is
    /// restarting itself waits for us (RFC 4724 §4.1).
    pub fn established(&mut self, peer: &K, graceful: AfiSet, peer_restarting: bool) {
        if peer_restarting {
            self.awaited.remove(peer);
        } else {
            self.narrow(peer, |set| set.and(graceful));
        }
        self.settle();
    }

    /// The peer has sent all of its routes of a family.
    pub fn end_of_rib(&mut self, peer: &K, afi: Afi) {
        self.narrow(peer, |set| set.iter().filter(|other| *other != afi).collect());
        self.settle();
    }

    /// The peer cannot be reached, was refused, or is not wanted any more: nobody waits for it.
    pub fn gave_up(&mut self, peer: &K) {
        self.awaited.remove(peer);
        self.settle();
    }

    /// Looks at the time.
    pub fn tick(&mut self, now: Millis) {
        if self.ended.is_none() && self.until <= now && self.in_sync {
            self.ended = Some(Ending::TimedOut);
            self.awaited.clear();
        }
    }

    /// When [`Deferral::tick`] is wanted. None while only the datastore is waited for: unknown is not empty, so no
    /// time ends that wait.
    pub fn deadline(&self) -> Option<Millis> {
        (self.ended.is_none() && self.in_sync).then_some(self.until)
    }

    fn narrow(&mut self, peer: &K, to: impl Fn(AfiSet) -> AfiSet) {
        if let Some(set) = self.awaited.get_mut(peer) {
            *set = to(*set);
            if set.is_empty() {
                self.awaited.remove(peer);
            }
        }
    }

    fn settle(&mut self) {
        if self.ended.is_none() && self.in_sync && self.awaited.is_empty() {
            self.ended = Some(Ending::Complete);
        }
    }
}
