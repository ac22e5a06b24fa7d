//! The last events of a session, for "why is it down".
//!
//! Owns: a ring of the last [`History::KEPT`] events with the time of each. Never: grows.

use std::collections::VecDeque;

use crate::session::Event;
use crate::time::Millis;

/// The last events of a session, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History(VecDeque<(Millis, Event)>);

impl History {
    /// How many events are kept.
    pub const KEPT: usize = 32;

    pub(crate) fn push(&mut self, now: Millis, event: Event) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, event));
    }

    /// The events, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(Millis, Event)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_32() {
        let mut history = History::default();
        for at in 0..100 {
            history.push(Millis(at), Event::Established);
        }
        assert_eq!(history.iter().count(), 32);
        assert_eq!(history.iter().next().map(|e| e.0), Some(Millis(68)));
        assert_eq!(history.iter().next_back().map(|e| e.0), Some(Millis(99)));
    }
}
