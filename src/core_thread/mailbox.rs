//! From the core to a peer task: the few things that can be under way, each once.
//!
//! Owns: one place for each kind of message, so that the core never waits for a peer and a slow peer costs nothing
//! more the longer it is slow. Every message names the incarnation of the session that it is meant for: what was on its
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
    /// The answer to the one request under way; empty means that nothing was left.
    pub fill: Option<Bytes>,
    /// Ask the peer for its routes of these families again.
    pub refresh: AfiSet,
    /// Close the session with this.
    pub end: Option<Notification>,
}

/// The box between the two.
#[derive(Debug, Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Notify,
}

impl Mailbox {
    fn put(&self, incarnation: Incarnation, write: impl FnOnce(&mut Mail)) {
        let mut mail = self.lock();
        if incarnation < mail.incarnation {
            return;
        }
        if mail.incarnation != incarnation {
            *mail = Mail { incarnation, ..Mail::default() };
        }
        write(&mut mail);
        drop(mail);
        self.arrived.notify_one();
    }

    /// There is something to ask for.
    pub fn ready(&self, incarnation: Incarnation) {
        self.put(incarnation, |mail| mail.ready = true);
    }

    /// Answers a request.
    pub fn fill(&self, incarnation: Incarnation, bytes: Bytes) {
        self.put(incarnation, |mail| mail.fill = Some(bytes));
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
        let mut mail = self.lock();
        let incarnation = mail.incarnation;
        std::mem::replace(&mut *mail, Mail { incarnation, ..Mail::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // Whoever panicked with the lock left the plain values whole.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn mail_of_an_ended_session_does_not_reach_the_next() {
        let mailbox = Mailbox::default();
        mailbox.fill(1, Bytes::from_static(b"old"));
        mailbox.ready(2);
        mailbox.arrived().await;
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ready: true, ..Mail::default() });
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ..Mail::default() });
    }

    #[test]
    fn what_comes_late_for_an_ended_session_leaves_the_mail_of_the_next_alone() {
        let mailbox = Mailbox::default();
        mailbox.ready(2);
        mailbox.fill(1, Bytes::from_static(b"old"));
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
}
