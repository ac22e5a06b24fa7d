//! Times of day as BIRD writes them: local time (CTL-13, CTL-17).
//!
//! Owns: the zone of the host, and the two forms. Never: counts time; ages come from the process's clock, so that a
//! jump of the wall clock moves what is shown and nothing else (P6).

use bgp_proto::Millis;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A time is shown as a time of day for so long.
const TODAY: Millis = Millis::secs(20 * 3600);

/// One moment on both clocks.
#[derive(Clone, Debug)]
pub struct Wall {
    zone: TimeZone,
    now: Timestamp,
    clock: Millis,
}

impl Wall {
    /// Now; `clock` is what the process's clock shows.
    pub fn now(clock: Millis) -> Wall {
        Wall { zone: TimeZone::system(), now: Timestamp::now(), clock }
    }

    /// A moment of a test.
    #[cfg(test)]
    pub fn at(now: &str, clock: Millis) -> Wall {
        Wall { zone: TimeZone::UTC, now: now.parse().unwrap(), clock }
    }

    /// What the process's clock shows.
    pub const fn clock(&self) -> Millis {
        self.clock
    }

    /// `HH:MM:SS`, or the date where that is long ago (CTL-17).
    pub fn short(&self, at: Millis) -> String {
        let form = if self.clock - at < TODAY { "%H:%M:%S" } else { "%Y-%m-%d" };
        self.written(at, form)
    }

    /// Date and time (CTL-13).
    pub fn long(&self, at: Millis) -> String {
        self.written(at, "%Y-%m-%d %H:%M:%S")
    }

    fn written(&self, at: Millis, form: &str) -> String {
        let age = SignedDuration::from_millis(i64::try_from((self.clock - at).0).unwrap_or(i64::MAX));
        let time = self.now.checked_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned_datetime(self.zone.clone()).strftime(form).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_ago_is_shown_by_its_day() {
        let wall = Wall::at("2026-11-21T21:40:00Z", Millis::secs(90_000));
        assert_eq!(wall.short(Millis::secs(90_000)), "21:40:00");
        assert_eq!(wall.short(Millis::secs(18_001)), "01:40:01");
        assert_eq!(wall.short(Millis::secs(18_000)), "2026-11-21");
        assert_eq!(wall.long(Millis(0)), "2026-11-20 20:40:00");
    }
}
