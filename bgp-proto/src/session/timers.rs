//! Timers as deadlines, and the jitter that all of them have.
//!
//! Owns: [`Jitter`], a small seeded generator, and [`Timer`], a deadline that remembers what it was set to so that
//! people can be shown `148/240`. Never: a clock. BGP-3: BIRD starts every BGP timer at 75 to 100 % of its value (RFC
//! 4271 §10 asks the same of the connect and keepalive timers).

use crate::time::Millis;

/// A splitmix64 generator: enough to spread timers, with no dependency and the same result on every machine.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Jitter(u64);

impl std::fmt::Debug for Jitter {
    /// The number says nothing to people, and it differs between two sessions that are in the same state.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jitter")
    }
}

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 75 to 100 % of `full`.
    pub(crate) fn spread(&mut self, full: Millis) -> Millis {
        let quarter = full.0 / 4;
        Millis(full.0 - quarter + self.next() % (quarter + 1))
    }
}

/// A running timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// When it runs out.
    pub until: Millis,
    /// The value it was set from, before jitter, in seconds.
    pub nominal: u16,
}

impl Timer {
    /// A timer with jitter. Zero counts as one second: no timer of BGP may spin.
    pub(crate) fn jittered(now: Millis, secs: u16, jitter: &mut Jitter) -> Timer {
        Timer::spread(now, Millis::secs(secs.max(1).into()), jitter)
    }

    /// The same for a time that may be shorter than a second; people are shown whole ones.
    pub(crate) fn spread(now: Millis, span: Millis, jitter: &mut Jitter) -> Timer {
        let nominal = u16::try_from(span.0.div_ceil(1000)).unwrap_or(u16::MAX);
        Timer { until: now + jitter.spread(span), nominal }
    }

    /// A timer that runs out at exactly its value.
    pub(crate) fn exact(now: Millis, secs: u16) -> Timer {
        Timer { until: now + Millis::secs(secs.into()), nominal: secs }
    }

    /// Whether it has run out.
    pub fn is_due(&self, now: Millis) -> bool {
        self.until <= now
    }

    /// Time left.
    pub fn left(&self, now: Millis) -> Millis {
        self.until - now
    }
}

/// The earliest of some deadlines.
pub(crate) fn earliest(deadlines: impl IntoIterator<Item = Option<Millis>>) -> Option<Millis> {
    deadlines.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jittered_timer_runs_for_75_to_100_percent_and_uses_the_whole_range() {
        let mut jitter = Jitter::new(7);
        let runs: Vec<u64> =
            (0..2000).map(|_| Timer::jittered(Millis(500), 240, &mut jitter).until.0 - 500).collect();
        assert!(runs.iter().all(|ms| (180_000..=240_000).contains(ms)));
        assert!(runs.iter().any(|ms| *ms < 182_000) && runs.iter().any(|ms| *ms > 238_000));
    }

    #[test]
    fn a_timer_of_zero_seconds_still_waits() {
        assert!(Timer::jittered(Millis(0), 0, &mut Jitter::new(1)).until >= Millis(750));
    }

    #[test]
    fn sessions_with_different_seeds_do_not_march_in_step() {
        let (mut a, mut b) = (Jitter::new(1), Jitter::new(2));
        assert_ne!(a.spread(Millis::secs(240)), b.spread(Millis::secs(240)));
    }
}
