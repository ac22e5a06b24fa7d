//! Graceful restart of a peer (RFC 4724, RFC 8538, RFC 9494; BGP-29 to BGP-32).
//!
//! Owns: [`Helper`], what happens to a peer's routes when its session ends and when there is one again, and
//! [`StaleTimes`]. Nobody else decides that. Never: touches a table; what is to be done is returned. How long we wait for
//! our peers after a restart of our own is the speaker's.
//!
//! Two things take a session away and leave the routes right. *The peer restarts*: RFC 4724 says which routes are kept,
//! and the peer says by its F bits what it has preserved. *We replace the session*, because its AS or our router id is
//! another one now: nothing has happened to anybody's forwarding, so all routes stay until the successor has brought
//! them again, whether graceful restart was agreed on or not. No F bit is asked for, and a peer that refuses the
//! successor, because it has yet to hear of the change, costs nothing before the time is over.

use crate::prefix::{Afi, AfiSet};
use crate::session::timers::Timer;
use crate::time::Millis;

/// How long stale routes outlive the return of their peer when it never sends End-of-RIB (T7).
const STALE_LIMIT: u16 = 360;
/// The same where the peer has not said that it sends one: without graceful restart few do.
const UNMARKED_LIMIT: u16 = 30;
/// How long routes wait for the successor of a session whose peer asked for no restart time: as BIRD asks by default.
const SUCCESSOR_TIME: u16 = 120;

/// For each family how long its routes stay when the restart time is over, in seconds; 0: not at all (RFC 9494 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StaleTimes {
    v4: u32,
    v6: u32,
}

impl StaleTimes {
    /// What the wire can say: 24 bits, half a year.
    pub const MAX: u32 = 0x00ff_ffff;
    /// No family.
    pub const NONE: StaleTimes = StaleTimes { v4: 0, v6: 0 };

    /// The same with this time for a family, at most [`StaleTimes::MAX`].
    #[must_use]
    pub fn with(mut self, afi: Afi, secs: u32) -> StaleTimes {
        let secs = secs.min(Self::MAX);
        match afi {
            Afi::Ipv4 => self.v4 = secs,
            Afi::Ipv6 => self.v6 = secs,
        }
        self
    }

    /// The time of a family.
    pub fn get(self, afi: Afi) -> u32 {
        match afi {
            Afi::Ipv4 => self.v4,
            Afi::Ipv6 => self.v6,
        }
    }

    /// The families whose time is not 0.
    pub fn families(self) -> AfiSet {
        Afi::ALL.into_iter().filter(|afi| self.get(*afi) != 0).collect()
    }
}

/// What a peer's routes go through while the peer restarts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Helper {
    phase: Phase,
    long_lived: Running,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Phase {
    /// No stale routes.
    #[default]
    Fresh,
    /// The peer is away; its routes of these families are kept.
    Away {
        /// We replaced the session ourselves: nothing is known against the routes.
        replaced: bool,
        kept: AfiSet,
        /// `None`: it is over, and what is kept is long-lived stale.
        restart: Option<Timer>,
        times: StaleTimes,
    },
    /// The peer is back; its routes of these families that it has not sent again are stale.
    Back {
        stale: AfiSet,
        limit: Timer,
        /// Families whose long-lived stale time ran out before End-of-RIB.
        overdue: AfiSet,
    },
}

/// When the long-lived stale time of each family runs out, where it runs. It is not set again before the peer has sent
/// all of its routes of the family (RFC 9494 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Running {
    v4: Option<Millis>,
    v6: Option<Millis>,
}

impl Running {
    fn of(&mut self, afi: Afi) -> &mut Option<Millis> {
        match afi {
            Afi::Ipv4 => &mut self.v4,
            Afi::Ipv6 => &mut self.v6,
        }
    }

    fn where_until(self, test: impl Fn(Millis) -> bool) -> AfiSet {
        Afi::ALL.into_iter().filter(|afi| { self }.of(*afi).is_some_and(&test)).collect()
    }

    fn families(self) -> AfiSet {
        self.where_until(|_| true)
    }

    fn due(self, now: Millis) -> AfiSet {
        self.where_until(|until| until <= now)
    }

    fn stop_all_but(&mut self, families: AfiSet) {
        for afi in Afi::ALL.into_iter().filter(|afi| !families.contains(*afi)) {
            *self.of(afi) = None;
        }
    }
}

/// How an established session has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// In a way that graceful restart covers.
    Graceful,
    /// For good, or with an error.
    Final,
    /// Another one with the same peer takes its place.
    Replaced,
    /// The process ends. That withdraws nothing: what is in the kernel stays.
    Exit,
}

/// What the session that has ended had agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Families that it carried.
    pub families: AfiSet,
    /// Those in which graceful restart was negotiated.
    pub graceful: AfiSet,
    /// How long the peer asked us to keep its routes, in seconds.
    pub restart_time: u16,
    /// How long they stay beyond that.
    pub stale_times: StaleTimes,
}

/// What the end of a session means for the routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All go.
    Drop,
    /// First those of `sweep` that are still stale from the time before go (RFC 4724 §4.2: a route that was stale
    /// already is deleted); then the rest of `keep` becomes stale, and other families go.
    Keep {
        /// Families with routes that were stale before, and whose long-lived stale time does not run.
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
    /// What is still stale of these families goes: the peer never finished, or their long-lived stale time is over.
    Stale(AfiSet),
    /// The peer did not come back within its restart time, and asked for more.
    LongLived {
        /// Families whose routes go.
        gone: AfiSet,
        /// Families whose routes are long-lived stale from now on.
        kept: AfiSet,
    },
}

/// What a peer that is back has preserved, by family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Preserved {
    /// F bits of its graceful restart capability (RFC 4724 §3).
    pub graceful: AfiSet,
    /// F bits of its long-lived graceful restart capability (RFC 9494 §4.2).
    pub long_lived: AfiSet,
}

impl Helper {
    /// The session has ended.
    pub fn session_down(&mut self, now: Millis, end: End, terms: Terms) -> Loss {
        match end {
            End::Graceful => self.peer_away(now, terms),
            End::Final => {
                *self = Helper::default();
                Loss::Drop
            }
            End::Replaced => self.replaced(now, terms),
            End::Exit => {
                *self = Helper::default();
                Loss::Keep { sweep: AfiSet::EMPTY, keep: terms.families }
            }
        }
    }

    fn peer_away(&mut self, now: Millis, terms: Terms) -> Loss {
        let Terms { graceful, restart_time: time, stale_times: times, .. } = terms;
        let (stale, overdue) = match std::mem::take(&mut self.phase) {
            Phase::Back { stale, overdue, .. } => (stale, overdue),
            Phase::Fresh | Phase::Away { .. } => (AfiSet::EMPTY, AfiSet::EMPTY),
        };
        // A family that outlived its time has no more of it before its End-of-RIB.
        let keep = graceful.without(overdue);
        let keep = if time == 0 { keep.and(times.families()) } else { keep };
        self.long_lived.stop_all_but(keep);
        if keep.is_empty() {
            return Loss::Drop;
        }
        let restart = Some(Timer::exact(now, time));
        self.phase = Phase::Away { replaced: false, kept: keep, restart, times };
        Loss::Keep { sweep: stale.and(keep).without(self.long_lived.families()), keep }
    }

    /// What was stale before waits for the successor as well: the end of the session says nothing about it.
    fn replaced(&mut self, now: Millis, terms: Terms) -> Loss {
        let keep = terms.families;
        *self = Helper::default();
        if keep.is_empty() {
            return Loss::Drop;
        }
        let time = if terms.restart_time == 0 { SUCCESSOR_TIME } else { terms.restart_time };
        let (restart, times) = (Some(Timer::exact(now, time)), StaleTimes::NONE);
        self.phase = Phase::Away { replaced: true, kept: keep, restart, times };
        Loss::Keep { sweep: AfiSet::EMPTY, keep }
    }

    /// There is no session, and the next one has other parameters. Whether routes are kept for it: a peer that went away
    /// went, it seems, because of the change that it heard of first. Its restart timer runs on.
    pub fn replace(&mut self) -> bool {
        match &mut self.phase {
            Phase::Away { replaced, .. } => {
                *replaced = true;
                true
            }
            Phase::Fresh | Phase::Back { .. } => false,
        }
    }

    /// A session is up again. Returns the families whose kept routes go at once (BGP-31).
    ///
    /// `families`: what it carries. `marks_end`: the peer offers graceful restart, so it sends End-of-RIB.
    pub fn session_up(
        &mut self,
        now: Millis,
        families: AfiSet,
        marks_end: bool,
        preserved: Preserved,
    ) -> AfiSet {
        let Phase::Away { replaced, kept, .. } = std::mem::take(&mut self.phase) else {
            return AfiSet::EMPTY;
        };
        let long_lived = self.long_lived.families();
        let stays = |afi: &Afi| {
            let set = match (replaced, long_lived.contains(*afi)) {
                (true, _) => families,
                (false, true) => preserved.long_lived,
                (false, false) => preserved.graceful,
            };
            set.contains(*afi)
        };
        let stale: AfiSet = kept.iter().filter(stays).collect();
        self.long_lived.stop_all_but(stale);
        if !stale.is_empty() {
            let limit = Timer::exact(now, if marks_end { STALE_LIMIT } else { UNMARKED_LIMIT });
            self.phase = Phase::Back { stale, limit, overdue: AfiSet::EMPTY };
        }
        kept.without(stale)
    }

    /// The peer is there and ends the attempt at a session with an error. Whether routes that were kept for it go: it
    /// is not what it was (BGP-32, W54). One whose session we replaced may have yet to hear of the change.
    pub fn refused(&mut self) -> bool {
        match self.phase {
            Phase::Away { replaced: false, .. } => self.clear(),
            Phase::Away { replaced: true, .. } | Phase::Fresh | Phase::Back { .. } => false,
        }
    }

    /// The peer has sent all of its routes of a family. Whether what is still stale of it goes now.
    pub fn end_of_rib(&mut self, afi: Afi) -> bool {
        let Phase::Back { stale, overdue, .. } = &mut self.phase else {
            return false;
        };
        let done = AfiSet::only(afi);
        let sweeps = stale.contains(afi);
        *stale = stale.without(done);
        *overdue = overdue.without(done);
        *self.long_lived.of(afi) = None;
        if stale.is_empty() && overdue.is_empty() {
            self.phase = Phase::Fresh;
        }
        sweeps
    }

    /// Forgets everything: the routes are gone. Whether routes were kept while the peer was away.
    pub fn clear(&mut self) -> bool {
        matches!(std::mem::take(self).phase, Phase::Away { .. })
    }

    /// Looks at the timers. To be called until it returns `None`.
    pub fn tick(&mut self, now: Millis) -> Option<Expired> {
        let over = self.long_lived.due(now);
        match &mut self.phase {
            Phase::Fresh => None,
            Phase::Away { kept, .. } if !over.is_empty() => {
                *kept = kept.without(over);
                let rest = *kept;
                self.long_lived.stop_all_but(rest);
                if rest.is_empty() {
                    self.phase = Phase::Fresh;
                    return Some(Expired::Gone);
                }
                Some(Expired::Stale(over))
            }
            Phase::Away { kept, restart, times, .. } if restart.is_some_and(|timer| timer.is_due(now)) => {
                let long = times.families();
                let stays: AfiSet = kept
                    .iter()
                    .filter(|afi| self.long_lived.of(*afi).is_some() || long.contains(*afi))
                    .collect();
                if stays.is_empty() {
                    self.phase = Phase::Fresh;
                    return Some(Expired::Gone);
                }
                for afi in stays.iter() {
                    let until = now + Millis::secs(times.get(afi).into());
                    self.long_lived.of(afi).get_or_insert(until);
                }
                let gone = kept.without(stays);
                (*kept, *restart) = (stays, None);
                Some(Expired::LongLived { gone, kept: stays })
            }
            Phase::Back { stale, limit, overdue } => {
                let due = if limit.is_due(now) { *stale } else { over };
                if due.is_empty() {
                    return None;
                }
                *stale = stale.without(due);
                // Also where our own limit came first: what the peer has not said by then is not waited for again.
                *overdue = overdue.or(due.and(self.long_lived.families()));
                let (rest, late) = (*stale, *overdue);
                self.long_lived.stop_all_but(rest);
                if rest.is_empty() && late.is_empty() {
                    self.phase = Phase::Fresh;
                }
                Some(Expired::Stale(due))
            }
            Phase::Away { .. } => None,
        }
    }

    /// When the next timer runs out.
    pub fn deadline(&self) -> Option<Millis> {
        let phase = match &self.phase {
            Phase::Fresh => return None,
            Phase::Away { restart, .. } => restart.map(|timer| timer.until),
            Phase::Back { stale, limit, .. } => (!stale.is_empty()).then_some(limit.until),
        };
        [phase, self.long_lived.v4, self.long_lived.v6].into_iter().flatten().min()
    }

    /// The restart timer, while the peer is away and its routes are kept.
    pub fn restart_timer(&self) -> Option<Timer> {
        match &self.phase {
            Phase::Away { restart, .. } => *restart,
            Phase::Fresh | Phase::Back { .. } => None,
        }
    }

    /// When the last routes of the peer go if it stays away.
    pub fn kept_until(&self) -> Option<Millis> {
        let Phase::Away { kept, restart, times, .. } = &self.phase else { return None };
        let over = restart.map(|timer| timer.until);
        let last = |afi| {
            let running = { self.long_lived }.of(afi).as_ref().copied();
            running.or_else(|| Some(over? + Millis::secs(times.get(afi).into())))
        };
        kept.iter().filter_map(last).max()
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

    /// A graceful end of a session with both families.
    fn away(
        helper: &mut Helper,
        now: Millis,
        graceful: AfiSet,
        restart_time: u16,
        times: StaleTimes,
    ) -> Loss {
        let terms = Terms { families: AfiSet::BOTH, graceful, restart_time, stale_times: times };
        helper.session_down(now, End::Graceful, terms)
    }

    fn back(helper: &mut Helper, now: Millis, preserved: Preserved) -> AfiSet {
        helper.session_up(now, AfiSet::BOTH, true, preserved)
    }

    /// The session with a peer that knows no graceful restart is replaced.
    fn replaced(helper: &mut Helper, now: Millis, restart_time: u16) -> Loss {
        let (graceful, stale_times) = (AfiSet::EMPTY, StaleTimes::NONE);
        helper.session_down(now, End::Replaced, Terms { families: V4, graceful, restart_time, stale_times })
    }

    #[test]
    fn routes_of_a_replaced_session_wait_for_the_successor_and_then_for_its_end_of_rib() {
        let mut helper = Helper::default();
        assert_eq!(replaced(&mut helper, at(0), 0), Loss::Keep { sweep: AfiSet::EMPTY, keep: V4 });
        assert!(!helper.refused(), "the peer may have yet to hear of the change");
        assert_eq!(helper.deadline(), Some(at(120)));
        // No F bit is asked for.
        assert_eq!(helper.session_up(at(5), V4, true, graceful(AfiSet::EMPTY)), AfiSet::EMPTY);
        assert_eq!(helper.stale(), V4);
        assert!(helper.end_of_rib(Afi::Ipv4));
    }

    #[test]
    fn a_successor_that_carries_the_family_no_longer_costs_its_routes() {
        let mut helper = Helper::default();
        replaced(&mut helper, at(0), 60);
        assert_eq!(helper.deadline(), Some(at(60)));
        assert_eq!(helper.session_up(at(5), V6, true, graceful(AfiSet::EMPTY)), V4);
        assert_eq!(helper.stale(), AfiSet::EMPTY);
    }

    #[test]
    fn a_successor_that_never_comes_or_marks_no_end_keeps_old_routes_for_a_bounded_time() {
        let mut helper = Helper::default();
        replaced(&mut helper, at(0), 0);
        let mut other = helper.clone();
        assert_eq!(helper.tick(at(120)), Some(Expired::Gone));
        other.session_up(at(5), V4, false, graceful(AfiSet::EMPTY));
        assert_eq!(other.tick(Millis(34_999)), None);
        assert_eq!(other.tick(at(35)), Some(Expired::Stale(V4)));
    }

    #[test]
    fn a_peer_that_refuses_us_while_it_restarts_loses_its_routes() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), V4, 120, StaleTimes::NONE);
        assert!(helper.refused() && !helper.refused());
        assert_eq!(helper.stale(), AfiSet::EMPTY);
    }

    fn graceful(set: AfiSet) -> Preserved {
        Preserved { graceful: set, long_lived: AfiSet::EMPTY }
    }

    #[test]
    fn a_loss_without_graceful_restart_or_without_restart_time_drops_everything() {
        let mut helper = Helper::default();
        assert_eq!(away(&mut helper, at(0), AfiSet::EMPTY, 120, StaleTimes::NONE), Loss::Drop);
        assert_eq!(away(&mut helper, at(0), V4, 0, StaleTimes::NONE), Loss::Drop);
        assert_eq!(helper.deadline(), None);
    }

    #[test]
    fn routes_are_kept_for_exactly_the_restart_time_of_the_peer() {
        let mut helper = Helper::default();
        assert_eq!(
            away(&mut helper, at(10), V4, 120, StaleTimes::NONE),
            Loss::Keep { sweep: AfiSet::EMPTY, keep: V4 }
        );
        assert_eq!(helper.deadline(), Some(at(130)));
        assert_eq!(helper.tick(Millis(129_999)), None);
        assert_eq!(helper.tick(at(130)), Some(Expired::Gone));
        assert_eq!((helper.deadline(), helper.tick(at(500))), (None, None));
    }

    #[test]
    fn families_that_the_peer_did_not_preserve_go_when_it_is_back() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), AfiSet::BOTH, 120, StaleTimes::NONE);
        assert_eq!(back(&mut helper, at(5), graceful(V6)), V4);
        assert_eq!(helper.stale(), V6);
        assert!(!helper.end_of_rib(Afi::Ipv4));
        assert!(helper.end_of_rib(Afi::Ipv6));
        assert!(!helper.end_of_rib(Afi::Ipv6), "only the first End-of-RIB sweeps");
    }

    #[test]
    fn a_session_that_comes_up_for_the_first_time_sweeps_nothing() {
        let mut helper = Helper::default();
        assert_eq!(back(&mut helper, at(0), graceful(V4)), AfiSet::EMPTY);
        assert!(!helper.end_of_rib(Afi::Ipv4));
    }

    #[test]
    fn a_peer_that_never_sends_end_of_rib_keeps_its_stale_routes_for_a_bounded_time() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), V4, 120, StaleTimes::NONE);
        assert_eq!(back(&mut helper, at(3), graceful(V4)), AfiSet::EMPTY);
        assert_eq!(helper.deadline(), Some(at(363)));
        assert_eq!(helper.tick(at(363)), Some(Expired::Stale(V4)));
        assert_eq!(helper.stale(), AfiSet::EMPTY);
    }

    #[test]
    fn a_peer_that_goes_away_again_before_end_of_rib_loses_only_what_was_stale_already() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), V4, 120, StaleTimes::NONE);
        back(&mut helper, at(3), graceful(V4));
        assert_eq!(away(&mut helper, at(5), V4, 120, StaleTimes::NONE), Loss::Keep { sweep: V4, keep: V4 });
        assert_eq!(helper.deadline(), Some(at(125)));
        assert_eq!(back(&mut helper, at(9), graceful(V4)), AfiSet::EMPTY);
        assert!(helper.end_of_rib(Afi::Ipv4));
    }

    #[test]
    fn a_peer_that_fails_while_it_comes_back_does_not_touch_the_timer() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), V4, 120, StaleTimes::NONE);
        assert_eq!(helper.restart_timer(), Some(Timer { until: at(120), nominal: 120 }));
        assert!(helper.clear() && !helper.clear());
    }

    // ---- RFC 9494

    /// An hour for IPv4, two for IPv6.
    fn hours() -> StaleTimes {
        StaleTimes::NONE.with(Afi::Ipv4, 3600).with(Afi::Ipv6, 7200)
    }

    fn long_lived(set: AfiSet) -> Preserved {
        Preserved { graceful: set, long_lived: set }
    }

    /// Both families away since second 0, and the restart time of 120 s over.
    fn in_the_long_lived_period() -> Helper {
        let mut helper = Helper::default();
        away(&mut helper, at(0), AfiSet::BOTH, 120, hours());
        assert_eq!(helper.kept_until(), Some(at(7320)));
        let expired = Expired::LongLived { gone: AfiSet::EMPTY, kept: AfiSet::BOTH };
        assert_eq!(helper.tick(at(120)), Some(expired));
        assert_eq!((helper.tick(at(120)), helper.restart_timer()), (None, None));
        helper
    }

    #[test]
    fn each_family_goes_when_its_own_long_lived_stale_time_is_over() {
        let mut helper = in_the_long_lived_period();
        assert_eq!((helper.deadline(), helper.kept_until()), (Some(at(3720)), Some(at(7320))));
        assert_eq!(helper.tick(at(3719)), None);
        assert_eq!(helper.tick(at(3720)), Some(Expired::Stale(V4)));
        assert_eq!((helper.tick(at(3720)), helper.stale()), (None, V6));
        assert_eq!(helper.tick(at(7320)), Some(Expired::Gone));
        assert_eq!(helper, Helper::default());
    }

    #[test]
    fn a_family_without_long_lived_stale_time_goes_with_the_restart_timer() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), AfiSet::BOTH, 120, StaleTimes::NONE.with(Afi::Ipv6, 60));
        assert_eq!(helper.tick(at(120)), Some(Expired::LongLived { gone: V4, kept: V6 }));
        assert_eq!(helper.tick(at(180)), Some(Expired::Gone));
    }

    #[test]
    fn with_a_restart_time_of_zero_the_long_lived_period_begins_at_once() {
        let mut helper = Helper::default();
        let times = StaleTimes::NONE.with(Afi::Ipv4, 60);
        let kept = Loss::Keep { sweep: AfiSet::EMPTY, keep: V4 };
        assert_eq!(away(&mut helper, at(5), AfiSet::BOTH, 0, times), kept, "IPv6 asked for nothing");
        assert_eq!(helper.tick(at(5)), Some(Expired::LongLived { gone: AfiSet::EMPTY, kept: V4 }));
        assert_eq!(helper.deadline(), Some(at(65)));
    }

    #[test]
    fn a_peer_that_is_back_in_the_long_lived_period_must_have_preserved_by_that_capability() {
        let mut helper = in_the_long_lived_period();
        let preserved = Preserved { graceful: AfiSet::BOTH, long_lived: V6 };
        assert_eq!(back(&mut helper, at(200), preserved), V4);
        assert_eq!(helper.stale(), V6);
        assert!(helper.end_of_rib(Afi::Ipv6));
        assert_eq!((helper.deadline(), helper), (None, Helper::default()));
    }

    #[test]
    fn a_peer_that_is_back_within_its_restart_time_has_preserved_by_the_plain_capability() {
        let mut helper = Helper::default();
        away(&mut helper, at(0), V4, 120, hours());
        assert_eq!(back(&mut helper, at(5), graceful(V4)), AfiSet::EMPTY);
        assert_eq!(helper.deadline(), Some(at(365)), "no long-lived time runs");
    }

    #[test]
    fn the_long_lived_stale_time_is_not_set_again_by_a_second_loss_before_end_of_rib() {
        let mut helper = in_the_long_lived_period();
        assert_eq!(back(&mut helper, at(3500), long_lived(V4)), V6);
        let kept = Loss::Keep { sweep: AfiSet::EMPTY, keep: V4 };
        assert_eq!(
            away(&mut helper, at(3510), V4, 120, hours()),
            kept,
            "what is long-lived stale is not swept"
        );
        assert_eq!(helper.tick(at(3630)), Some(Expired::LongLived { gone: AfiSet::EMPTY, kept: V4 }));
        assert_eq!(helper.deadline(), Some(at(3720)), "as set the first time");
        assert_eq!(helper.tick(at(3720)), Some(Expired::Gone));
    }

    #[test]
    fn end_of_rib_makes_the_long_lived_stale_time_whole_again() {
        let mut helper = in_the_long_lived_period();
        back(&mut helper, at(3500), long_lived(V4));
        assert!(helper.end_of_rib(Afi::Ipv4));
        away(&mut helper, at(3510), V4, 120, hours());
        assert_eq!(helper.kept_until(), Some(at(3510 + 120 + 3600)));
    }

    #[test]
    fn a_family_whose_time_ran_out_before_end_of_rib_is_not_kept_at_the_next_loss() {
        let mut helper = in_the_long_lived_period();
        back(&mut helper, at(3700), long_lived(V4));
        assert_eq!(helper.tick(at(3720)), Some(Expired::Stale(V4)));
        assert_eq!((helper.deadline(), helper.stale()), (None, AfiSet::EMPTY));
        assert_eq!(away(&mut helper.clone(), at(3730), V4, 120, hours()), Loss::Drop);
        assert!(!helper.end_of_rib(Afi::Ipv4), "nothing is left to sweep");
        assert!(
            matches!(away(&mut helper, at(3730), V4, 120, hours()), Loss::Keep { .. }),
            "it is whole again"
        );
    }

    #[test]
    fn a_stale_time_is_bounded_by_what_the_wire_can_say() {
        let times = StaleTimes::NONE.with(Afi::Ipv4, u32::MAX);
        assert_eq!((times.get(Afi::Ipv4), times.families()), (0x00ff_ffff, V4));
    }
}
