//! The one clock of the process, as the cores count time.
//!
//! Owns: when the process started. Monotonic: jumps of the wall clock move no timer (P6). Never: tells the time of day.

use bgp_proto::Millis;
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds since start, from tokio's clock, so that tests can pause it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Now.
    pub fn now(self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When a deadline of a core is due; a year from now where that is beyond what the system can count.
    pub fn instant(self, at: Millis) -> Instant {
        const YEAR: u64 = 365 * 86_400_000;
        // A core sees whole milliseconds: waking a fraction early would find nothing due and spin.
        self.start
            .checked_add(Duration::from_millis(at.0))
            .unwrap_or_else(|| self.start + Duration::from_millis(YEAR))
    }
}
