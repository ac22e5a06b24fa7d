//! How soon a route of ours that somebody else took out or changed is repaired, and when ours yields.
//!
//! Owns: what was repaired of late, by prefix, and who may be at work. Three cases, for they want different answers:
//! an *empty* place is filled again at once, and within a second however often it happens (K3): nobody gains by a node
//! without routes. A place that holds *another* route with our mark is repaired ever more slowly: two owners in a
//! loop are worse than either (KRT-42, O13). A *rival* is a Felix of v3.33 or later that holds IPIP routes for its own
//! (KERN-10, REL-6): it deletes ours on the tunnel and leaves the others; there ours yields, prefix by prefix.
//! Never: writes, or looks at a clock; it is told the time. Inputs: losses, intended repairs. Outputs: when.

use std::collections::BTreeMap;
use std::time::Duration;

use bgp_proto::IpPrefix;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Ownership;

/// Repairs at once before the first wait.
const PATIENCE: u32 = 3;
/// A route that nobody touched for so long is at peace; losses that are further apart have nothing to do with each other.
pub(super) const PEACE: Duration = Duration::from_secs(60);
/// The longest wait for a place that is empty.
const REFILL: Duration = Duration::from_secs(1);
/// The waits for a place where another writes.
const CONTEST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long ours yields before the next attempt.
const YIELD: Duration = Duration::from_secs(30);
/// Losses so close together come from one hand.
const FLUSH: Duration = Duration::from_secs(1);
/// So often a tunnel route is deleted before ours yields.
const RIVAL: usize = 2;

/// What a repair finds at its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// No route of ours.
    Empty,
    /// Another one with our mark.
    Other,
}

/// Why a repair waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// Somebody keeps removing it.
    Removed(u32),
    /// Somebody keeps writing there.
    Contested(u32),
    /// Its rival has it.
    Yielded,
}

#[derive(Debug)]
struct Effort {
    repairs: u32,
    last: Instant,
}

/// What was repaired of late.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    ownership: Ownership,
    efforts: BTreeMap<IpPrefix, Effort>,
    /// When tunnel routes alone were deleted.
    losses: BTreeMap<IpPrefix, SmallVec<[Instant; RIVAL]>>,
    /// When a route beside the tunnel was last deleted.
    flushed: Option<Instant>,
    yielded: BTreeMap<IpPrefix, Instant>,
}

impl Repairs {
    /// Who owns what, by the settings of the cluster. Where that changed the answer is for whom ours had yielded.
    pub fn set_ownership(&mut self, ownership: Ownership) -> Vec<IpPrefix> {
        if self.ownership == ownership {
            return Vec::new();
        }
        self.ownership = ownership;
        self.losses.clear();
        std::mem::take(&mut self.yielded).into_keys().collect()
    }

    /// Somebody deleted a route of ours that is wanted. `others_stayed` says whether one beside the tunnel is there.
    /// The answer is for whom ours had yielded although it was a flush.
    pub fn lost(
        &mut self,
        prefix: IpPrefix,
        in_tunnel: bool,
        others_stayed: impl FnOnce() -> bool,
        now: Instant,
    ) -> Vec<IpPrefix> {
        let near = |at: &Instant| now.duration_since(*at) <= FLUSH;
        if !in_tunnel {
            self.flushed = Some(now);
            // What went just before went by the same hand.
            for losses in self.losses.values_mut() {
                losses.retain(|at| !near(at));
            }
            self.losses.retain(|_, losses| !losses.is_empty());
            let hasty: Vec<IpPrefix> =
                self.yielded.iter().filter(|(_, since)| near(since)).map(|(prefix, _)| *prefix).collect();
            self.yielded.retain(|_, since| !near(since));
            return hasty;
        }
        if self.flushed.as_ref().is_none_or(|at| !near(at)) {
            let losses = self.losses.entry(prefix).or_default();
            losses.retain(|at| now.duration_since(*at) < PEACE);
            losses.push(now);
            if losses.len() >= RIVAL && self.ownership.rival && others_stayed() {
                losses.drain(..losses.len() - RIVAL);
                self.yielded.insert(prefix, now);
            }
        }
        Vec::new()
    }

    /// Whether a repair may be made now; it is counted then. Otherwise why not, and when.
    pub fn may(&mut self, prefix: IpPrefix, place: Place, now: Instant) -> Result<(), (Wait, Instant)> {
        if let Some(since) = self.yielded.get(&prefix) {
            let retry = *since + YIELD;
            if now < retry {
                return Err((Wait::Yielded, retry));
            }
            self.yielded.remove(&prefix);
        }
        let effort = self.efforts.entry(prefix).or_insert(Effort { repairs: 0, last: now });
        if now.duration_since(effort.last) >= PEACE {
            effort.repairs = 0;
        }
        let beyond = effort.repairs.checked_sub(PATIENCE);
        let rest = match (beyond, place) {
            (None, _) => Duration::ZERO,
            (Some(_), Place::Empty) => REFILL,
            (Some(beyond), Place::Other) => CONTEST.0.saturating_mul(1 << beyond.min(16)).min(CONTEST.1),
        };
        if now.duration_since(effort.last) < rest {
            let wait = match place {
                Place::Empty => Wait::Removed(effort.repairs),
                Place::Other => Wait::Contested(effort.repairs),
            };
            return Err((wait, effort.last + rest));
        }
        effort.repairs = effort.repairs.saturating_add(1);
        effort.last = now;
        Ok(())
    }

    /// Something else is wanted there: what was belongs to the past.
    pub fn forget(&mut self, prefix: IpPrefix) {
        self.efforts.remove(&prefix);
        self.losses.remove(&prefix);
        self.yielded.remove(&prefix);
    }

    /// Forgets what has been at peace for long enough.
    pub fn prune(&mut self, now: Instant) {
        self.efforts.retain(|_, effort| now.duration_since(effort.last) < PEACE);
        self.losses.retain(|_, losses| losses.iter().any(|at| now.duration_since(*at) < PEACE));
    }

    /// How often each prefix was repaired since it last was at peace; only those more than once.
    pub fn repeated(&self) -> BTreeMap<IpPrefix, u32> {
        let often = self.efforts.iter().filter(|(_, effort)| effort.repairs > 1);
        often.map(|(prefix, effort)| (*prefix, effort.repairs)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    fn rival() -> Repairs {
        let mut repairs = Repairs::default();
        repairs.set_ownership(Ownership { rival: true, ..Ownership::default() });
        repairs
    }

    /// Seconds from a common start.
    fn clock() -> impl Fn(f64) -> Instant {
        let start = Instant::now();
        move |seconds| start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn an_empty_place_is_filled_at_once_the_first_times_and_within_a_second_always() {
        let (mut repairs, at) = (Repairs::default(), clock());
        let mut now = 0.0;
        for n in 0..100 {
            match repairs.may(p("10.244.1.0/26"), Place::Empty, at(now)) {
                Ok(()) => {}
                Err((_, retry)) => {
                    assert!(n >= 3 && retry <= at(now + 1.0), "{n}");
                    assert_eq!(repairs.may(p("10.244.1.0/26"), Place::Empty, retry), Ok(()));
                }
            }
            now += 1.1;
        }
    }

    #[test]
    fn where_another_writes_with_our_mark_the_waits_grow_to_half_a_minute() {
        let (mut repairs, at) = (Repairs::default(), clock());
        let (mut now, mut made) = (at(0.0), 0);
        while now < at(600.0) {
            match repairs.may(p("10.244.1.0/26"), Place::Other, now) {
                Ok(()) => made += 1,
                Err((wait, _)) => assert!(matches!(wait, Wait::Contested(_))),
            }
            now += Duration::from_millis(100);
        }
        assert!((10..40).contains(&made), "{made}");
    }

    #[test]
    fn ours_yields_where_tunnel_routes_alone_were_deleted_twice_within_a_minute() {
        let (mut repairs, at) = (rival(), clock());
        let block = p("10.244.1.0/26");
        repairs.lost(block, true, || true, at(0.0));
        assert_eq!(repairs.may(block, Place::Empty, at(0.0)), Ok(()));
        repairs.lost(block, true, || true, at(10.0));
        assert_eq!(repairs.may(block, Place::Empty, at(10.0)), Err((Wait::Yielded, at(40.0))));
        assert_eq!(repairs.may(p("10.244.2.0/26"), Place::Empty, at(10.0)), Ok(()), "another prefix");
        assert_eq!(repairs.may(block, Place::Empty, at(40.0)), Ok(()));
        repairs.lost(block, true, || true, at(41.0));
        assert_eq!(repairs.may(block, Place::Empty, at(41.0)), Err((Wait::Yielded, at(71.0))));
        assert_eq!(repairs.set_ownership(Ownership::default()), [block]);
        assert_eq!(repairs.may(block, Place::Empty, at(42.0)), Ok(()));
    }

    #[test]
    fn everything_else_is_a_flush() {
        let block = p("10.244.1.0/26");
        let yields = |mut repairs: Repairs, second: f64, stayed: bool, tunnel: bool| {
            let at = clock();
            repairs.lost(block, tunnel, || stayed, at(0.0));
            repairs.lost(block, tunnel, || stayed, at(second));
            matches!(repairs.may(block, Place::Empty, at(second)), Err((Wait::Yielded, _)))
        };
        assert!(yields(rival(), 59.0, true, true));
        assert!(!yields(rival(), 61.0, true, true), "not within a minute");
        assert!(!yields(rival(), 10.0, false, true), "no other of ours stayed");
        assert!(!yields(rival(), 10.0, true, false), "not on the tunnel");
        assert!(!yields(Repairs::default(), 10.0, true, true), "an older release has no such Felix");
    }

    #[test]
    fn a_flush_that_begins_with_the_tunnel_routes_is_known_as_one_by_what_follows() {
        let (mut repairs, at) = (rival(), clock());
        let (block, own) = (p("10.244.1.0/26"), p("10.244.0.0/26"));
        for second in [0.0, 10.0, 20.0] {
            repairs.lost(block, true, || true, at(second));
            let _ = repairs.may(block, Place::Empty, at(second));
            repairs.lost(own, false, || true, at(second + 0.01));
            let retry = repairs.may(block, Place::Empty, at(second + 1.0));
            assert!(retry.is_ok(), "{retry:?}");
        }
        // And one that ends with them.
        for second in [30.0, 40.0, 50.0] {
            repairs.lost(own, false, || true, at(second));
            repairs.lost(block, true, || true, at(second + 0.01));
            assert_eq!(repairs.may(block, Place::Empty, at(second + 1.1)), Ok(()));
        }
    }
}
