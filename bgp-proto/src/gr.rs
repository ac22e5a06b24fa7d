//! Graceful restart of a peer (RFC 4724, RFC 8538, BGP-29 to BGP-32).
//!
//! Owns: [`Helper`], what happens to a peer's routes when the peer goes away and comes back. Never: touches a table; what
//! is to be done is returned. How long we wait for our peers after a restart of our own is the speaker's.
//!
//! Long-lived graceful restart (RFC 9494) is announced as "aware" only, so no route is ever kept as long-lived stale.

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

#[cfg(test)]
mod tests {
    use super::*;

    const V4: AfiSet = AfiSet::only(Afi::Ipv4);
    const V6: AfiSet = AfiSet::only(Afi::Ipv6);

    fn at(secs: u64) -> Millis {
        Millis::secs(secs)
    }

    #[test]
    fn a_loss_without_graceful_restart_or_without_restart_time_drops_everything() {
        let mut helper = Helper::default();
        assert_eq!(helper.lost(at(0), AfiSet::EMPTY, 120), Loss::Drop);
        assert_eq!(helper.lost(at(0), V4, 0), Loss::Drop);
        assert_eq!(helper.deadline(), None);
    }

    #[test]
    fn routes_are_kept_for_exactly_the_restart_time_of_the_peer() {
        let mut helper = Helper::default();
        assert_eq!(helper.lost(at(10), V4, 120), Loss::Keep { sweep: AfiSet::EMPTY, keep: V4 });
        assert_eq!(helper.deadline(), Some(at(130)));
        assert_eq!(helper.tick(Millis(129_999)), None);
        assert_eq!(helper.tick(at(130)), Some(Expired::Gone));
        assert_eq!((helper.deadline(), helper.tick(at(500))), (None, None));
    }

    #[test]
    fn families_that_the_peer_did_not_preserve_go_when_it_is_back() {
        let mut helper = Helper::default();
        helper.lost(at(0), AfiSet::BOTH, 120);
        assert_eq!(helper.regained(at(5), V6), V4);
        assert_eq!(helper.stale(), V6);
        assert!(!helper.end_of_rib(Afi::Ipv4));
        assert!(helper.end_of_rib(Afi::Ipv6));
        assert!(!helper.end_of_rib(Afi::Ipv6), "only the first End-of-RIB sweeps");
    }

    #[test]
    fn a_session_that_comes_up_for_the_first_time_sweeps_nothing() {
        let mut helper = Helper::default();
        assert_eq!(helper.regained(at(0), V4), AfiSet::EMPTY);
        assert!(!helper.end_of_rib(Afi::Ipv4));
    }

    #[test]
    fn a_peer_that_never_sends_end_of_rib_keeps_its_stale_routes_for_a_bounded_time() {
        let mut helper = Helper::default();
        helper.lost(at(0), V4, 120);
        assert_eq!(helper.regained(at(3), V4), AfiSet::EMPTY);
        assert_eq!(helper.deadline(), Some(at(363)));
        assert_eq!(helper.tick(at(363)), Some(Expired::Stale(V4)));
        assert_eq!(helper.stale(), AfiSet::EMPTY);
    }

    #[test]
    fn a_peer_that_goes_away_again_before_end_of_rib_loses_only_what_was_stale_already() {
        let mut helper = Helper::default();
        helper.lost(at(0), V4, 120);
        helper.regained(at(3), V4);
        assert_eq!(helper.lost(at(5), V4, 120), Loss::Keep { sweep: V4, keep: V4 });
        assert_eq!(helper.deadline(), Some(at(125)));
        assert_eq!(helper.regained(at(9), V4), AfiSet::EMPTY);
        assert!(helper.end_of_rib(Afi::Ipv4));
    }

    #[test]
    fn a_peer_that_fails_while_it_comes_back_does_not_touch_the_timer() {
        let mut helper = Helper::default();
        helper.lost(at(0), V4, 120);
        assert_eq!(helper.restart_timer(), Some(Timer { until: at(120), nominal: 120 }));
        assert!(helper.clear() && !helper.clear());
    }
}
