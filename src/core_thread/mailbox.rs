//! From the core to a peer task: the few things that can be under way, each once.
//!
//! Owns: one place for each kind of message, so that the core never waits for a peer and a slow peer costs nothing
//! more the longer it is slow. A peer that has written all it was given and wants more rests: the core then gives it what
//! comes next without being asked (one crossing of threads in place of three). Every message names the incarnation of the session that it is meant for: what was on its
//! way when a session ended is dropped by the next one. Never: queues.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bgp_proto::wire::Notification;
use bgp_proto::{Afi, AfiSet};
use bytes::Bytes;
use tokio::sync::Notify;

pub use crate::speaker::Incarnation;

/// What waits for the peer task.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// The incarnation that all of this is for.
    pub incarnation: Incarnation,
    /// There is something to ask for.
    pub ready: bool,
    /// The answer to the one request under way, or what came up while the peer rested.
    pub fill: Option<Fill>,
    /// Ask the peer for its routes of these families again.
    pub refresh: AfiSet,
    /// Close the session with this.
    pub end: Option<Notification>,
}

/// Routes for a peer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Whole messages.
    pub bytes: Bytes,
    /// More is there, to be asked for when these are written. Without: the core says when there is.
    pub more: bool,
}

/// The box between the two.
#[derive(Debug, Default)]
pub struct Mailbox {
    inside: Mutex<Inside>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    mail: Mail,
    /// Octets that the peer takes unasked: it has written all it was given.
    resting: Option<usize>,
}

impl Inside {
    /// The mail of an incarnation, if it is not over.
    fn of(&mut self, incarnation: Incarnation) -> Option<&mut Self> {
        if self.mail.incarnation < incarnation {
            *self = Inside { mail: Mail { incarnation, ..Mail::default() }, resting: None };
        }
        (self.mail.incarnation == incarnation).then_some(self)
    }
}

impl Mailbox {
    fn put(&self, incarnation: Incarnation, write: impl FnOnce(&mut Mail)) {
        if let Some(inside) = self.lock().of(incarnation) {
            write(&mut inside.mail);
            self.arrived.notify_one();
        }
    }

    /// There is something to read. `Some`: the peer rests and takes this many octets at once; it is not woken before they
    /// come. `None`: it will ask.
    pub fn ready(&self, incarnation: Incarnation) -> Option<usize> {
        let mut inside = self.lock();
        let inside = inside.of(incarnation)?;
        let budget = inside.resting.take();
        if budget.is_none() {
            inside.mail.ready = true;
            self.arrived.notify_one();
        }
        budget
    }

    /// The peer has written all it was given and takes `budget` octets unasked, once. `false`: there is something to ask
    /// for already.
    pub fn rest(&self, incarnation: Incarnation, budget: usize) -> bool {
        let mut inside = self.lock();
        match inside.of(incarnation) {
            Some(inside) if inside.mail.ready => false,
            Some(inside) => {
                inside.resting = Some(budget);
                true
            }
            // A newer session of the same peer: nothing rests.
            None => true,
        }
    }

    /// Answers a request.
    pub fn fill(&self, incarnation: Incarnation, fill: Fill) {
        self.put(incarnation, |mail| mail.fill = Some(fill));
    }

    /// The peer's routes are wanted again.
    pub fn refresh(&self, incarnation: Incarnation, afi: Afi) {
        self.put(incarnation, |mail| mail.refresh = mail.refresh.with(afi));
    }

    /// The session shall end.
    pub fn end(&self, incarnation: Incarnation, why: Notification) {
        self.put(incarnation, |mail| mail.end = Some(why));
    }

    /// Waits until something was put in since the last [`Mailbox::take`]. Cancel-safe.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes what is there.
    pub fn take(&self) -> Mail {
        let mut inside = self.lock();
        let incarnation = inside.mail.incarnation;
        std::mem::replace(&mut inside.mail, Mail { incarnation, ..Mail::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Whoever panicked with the lock left the plain values whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn mail_of_an_ended_session_does_not_reach_the_next() {
        let mailbox = Mailbox::default();
        mailbox.fill(1, Fill { bytes: Bytes::from_static(b"old"), more: false });
        mailbox.ready(2);
        mailbox.arrived().await;
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ready: true, ..Mail::default() });
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ..Mail::default() });
    }

    #[test]
    fn what_comes_late_for_an_ended_session_leaves_the_mail_of_the_next_alone() {
        let mailbox = Mailbox::default();
        mailbox.ready(2);
        mailbox.fill(1, Fill { bytes: Bytes::from_static(b"old"), more: false });
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ready: true, ..Mail::default() });
    }

    #[test]
    fn repeated_messages_take_one_place() {
        let mailbox = Mailbox::default();
        for _ in 0..1000 {
            mailbox.ready(1);
            mailbox.refresh(1, Afi::Ipv4);
            mailbox.refresh(1, Afi::Ipv6);
        }
        let mail = mailbox.take();
        assert!(mail.ready);
        assert_eq!(mail.refresh, AfiSet::BOTH);
    }

    #[test]
    fn a_peer_that_rests_is_given_what_comes_once_and_is_not_woken_to_ask() {
        let mailbox = Mailbox::default();
        assert!(mailbox.rest(1, 100));
        assert_eq!(mailbox.ready(1), Some(100));
        assert!(!mailbox.take().ready, "it has nothing to ask for: the answer comes by itself");
        // Until it has written that and rests again, it is told.
        assert_eq!(mailbox.ready(1), None);
        assert!(!mailbox.rest(1, 100), "there is something to ask for");
        assert!(mailbox.take().ready);
        assert!(mailbox.rest(1, 100));
    }

    #[test]
    fn the_rest_of_an_ended_session_is_not_that_of_the_next() {
        let mailbox = Mailbox::default();
        assert!(mailbox.rest(1, 100));
        assert_eq!(mailbox.ready(2), None);
        assert!(mailbox.rest(1, 100), "of no effect");
        assert_eq!(mailbox.ready(2), None);
    }
}
