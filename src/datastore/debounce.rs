//! When changes are published: the first after quiet at once, those close behind it together.
//!
//! Owns: [`Debounce`], pure. What belongs together (one transaction, one list) reaches it as one change. Never: waits.

use std::time::Duration;

use tokio::time::Instant;

/// Changes this close to the one before are joined.
const JOIN: Duration = Duration::from_millis(50);
/// No change waits longer.
const AT_MOST: Duration = Duration::from_secs(1);

/// Tells when pending changes are due.
#[derive(Clone, Copy, Default, Debug)]
pub struct Debounce {
    published: Option<Instant>,
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    last: Instant,
}

impl Debounce {
    /// Something changed.
    pub fn changed(&mut self, now: Instant) {
        let first = self.pending.map_or(now, |pending| pending.first);
        self.pending = Some(Pending { first, last: now });
    }

    /// When what is pending shall be published; `None` where nothing is.
    pub fn due(&self) -> Option<Instant> {
        let Pending { first, last } = self.pending?;
        match self.published {
            Some(published) if first < published + JOIN => Some((last + JOIN).min(first + AT_MOST)),
            _ => Some(first),
        }
    }

    /// What was pending is published.
    pub fn published(&mut self, now: Instant) {
        self.published = Some(now);
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_change_after_quiet_is_due_at_once() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        debounce.changed(start);
        assert_eq!(debounce.due(), Some(start));
        debounce.published(at(start, 1));
        assert_eq!(debounce.due(), None);
        debounce.changed(at(start, 80));
        assert_eq!(debounce.due(), Some(at(start, 80)));
    }

    #[test]
    fn changes_close_behind_are_joined_but_wait_a_second_at_most() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        debounce.changed(start);
        debounce.published(start);
        debounce.changed(at(start, 10));
        assert_eq!(debounce.due(), Some(at(start, 60)));
        for millis in (40..2000).step_by(30) {
            debounce.changed(at(start, millis));
        }
        assert_eq!(debounce.due(), Some(at(start, 1010)));
    }
}
