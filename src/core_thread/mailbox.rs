//! From the core to a peer task: the few things that can be under way, each once.
//!
//! Owns: one place for each kind of message, so that the core never waits for a peer and a slow peer costs nothing
//! more the longer it is slow. A peer that has written all it was given and wants more rests: the core then gives it what
//! comes next without being asked, and the [courier](super::courier) writes it on the peer's line: the task is woken only
//! for what the line does not take. Every message names the incarnation of the session that it is meant for: what was on
//! its way when a session ended is dropped by the next one. Never: queues.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use bgp_proto::wire::Notification;
use bgp_proto::{Afi, AfiSet};
use bytes::{Buf, Bytes};
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
    /// Whole messages, or the rest of them.
    pub bytes: Bytes,
    /// More is there, to be asked for when these are written. Without: the core says when there is.
    pub more: bool,
    /// The beginning is written: nothing may come before the rest.
    pub begun: bool,
}

/// Where octets for a peer can be written.
pub trait Way: Send + Sync {
    /// Writes what the kernel takes now, and says how much that was. Never waits.
    fn write(&self, octets: &[u8]) -> io::Result<usize>;
}

/// The box between the two.
#[derive(Debug, Default)]
pub struct Mailbox {
    inside: Mutex<Inside>,
    arrived: Notify,
}

#[derive(Default)]
struct Inside {
    mail: Mail,
    /// While the peer's task leaves the line to others: it has written all it was given.
    rest: Option<Rest>,
}

struct Rest {
    /// Octets that the peer takes unasked.
    budget: usize,
    /// The line, as long as it is open.
    way: Weak<dyn Way>,
    /// An answer is under way.
    given: bool,
    /// Behind it there is something to ask for.
    again: bool,
}

/// What the peer's task finds when it rises.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Risen {
    /// An answer is under way, and comes by mail.
    pub under_way: bool,
    /// One is there.
    pub fill: Option<Fill>,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").field("mail", &self.mail).field("rests", &self.rest.is_some()).finish()
    }
}

impl Inside {
    /// The mail of an incarnation, if it is not over.
    fn of(&mut self, incarnation: Incarnation) -> Option<&mut Self> {
        if self.mail.incarnation < incarnation {
            *self = Inside { mail: Mail { incarnation, ..Mail::default() }, rest: None };
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
        match &mut inside.rest {
            Some(rest) if rest.given => {
                rest.again = true;
                None
            }
            Some(rest) => {
                rest.given = true;
                Some(rest.budget)
            }
            None => {
                inside.mail.ready = true;
                self.arrived.notify_one();
                None
            }
        }
    }

    /// The peer has written all it was given. From now on it takes `budget` octets at a time unasked, and `way` is left to
    /// those who bring them, until [`Mailbox::rise`]. `false`: there is something to ask for already.
    pub fn rest(&self, incarnation: Incarnation, budget: usize, way: Weak<dyn Way>) -> bool {
        let mut inside = self.lock();
        match inside.of(incarnation) {
            Some(inside) if inside.mail.ready => false,
            Some(inside) => {
                inside.rest = Some(Rest { budget, way, given: false, again: false });
                true
            }
            // A newer session of the same peer: nothing rests.
            None => true,
        }
    }

    /// The peer's task has something to write itself: nobody else writes from now on.
    pub fn rise(&self, incarnation: Incarnation) -> Risen {
        let mut inside = self.lock();
        let Some(inside) = inside.of(incarnation) else { return Risen::default() };
        let fill = inside.mail.fill.take();
        let rest = inside.rest.take();
        inside.mail.ready |= rest.as_ref().is_some_and(|rest| rest.again);
        Risen { under_way: rest.is_some_and(|rest| rest.given), fill }
    }

    /// Whether an answer is under way to a peer that rests: the courier is to bring it.
    pub fn is_given(&self, incarnation: Incarnation) -> bool {
        let mut inside = self.lock();
        inside.of(incarnation).and_then(|inside| inside.rest.as_ref()).is_some_and(|rest| rest.given)
    }

    /// Answers a request.
    pub fn fill(&self, incarnation: Incarnation, mut fill: Fill) {
        if let Some(inside) = self.lock().of(incarnation) {
            fill.more |= inside.rest.take().is_some_and(|rest| rest.again);
            inside.mail.fill = Some(fill);
            self.arrived.notify_one();
        }
    }

    /// Brings an answer to a peer: written at once where it rests, and then it goes on resting. What the line does not take,
    /// or all of it where the peer's task has risen meanwhile, comes by mail.
    pub fn bring(&self, incarnation: Incarnation, mut fill: Fill) {
        let mut inside = self.lock();
        let Some(inside) = inside.of(incarnation) else { return };
        if let Some(rest) = inside.rest.as_mut().filter(|rest| rest.given) {
            let way = rest.way.upgrade();
            while !fill.bytes.is_empty() {
                // An error shows itself to the task, which tries the same.
                let written = way.as_ref().and_then(|way| way.write(&fill.bytes).ok()).unwrap_or(0);
                if written == 0 {
                    break;
                }
                fill.bytes.advance(written.min(fill.bytes.len()));
                fill.begun = true;
            }
            fill.more |= rest.again;
            if fill.bytes.is_empty() && !fill.more {
                rest.given = false;
                return;
            }
        }
        inside.rest = None;
        inside.mail.fill = Some(fill);
        self.arrived.notify_one();
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
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn mail_of_an_ended_session_does_not_reach_the_next() {
        let mailbox = Mailbox::default();
        mailbox.fill(1, Fill { bytes: Bytes::from_static(b"old"), ..Fill::default() });
        mailbox.ready(2);
        mailbox.arrived().await;
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ready: true, ..Mail::default() });
        assert_eq!(mailbox.take(), Mail { incarnation: 2, ..Mail::default() });
    }

    #[test]
    fn what_comes_late_for_an_ended_session_leaves_the_mail_of_the_next_alone() {
        let mailbox = Mailbox::default();
        mailbox.ready(2);
        mailbox.fill(1, Fill { bytes: Bytes::from_static(b"old"), ..Fill::default() });
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

    /// A line that takes so many octets.
    struct Line(Mutex<(usize, Vec<u8>)>);

    impl Way for Line {
        fn write(&self, octets: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock().unwrap();
            let taken = octets.len().min(*room);
            *room -= taken;
            written.extend_from_slice(&octets[..taken]);
            if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }
    }

    fn line(room: usize) -> (Arc<dyn Way>, Arc<Line>) {
        let line = Arc::new(Line(Mutex::new((room, Vec::new()))));
        (line.clone(), line)
    }

    fn routes(more: bool) -> Fill {
        Fill { bytes: Bytes::from_static(b"routes"), more, begun: false }
    }

    fn mail_of(mailbox: &Mailbox) -> (Option<Fill>, bool) {
        let mail = mailbox.take();
        (mail.fill, mail.ready)
    }

    #[test]
    fn a_peer_that_rests_is_given_what_comes_on_its_line_and_its_task_is_not_woken() {
        let (mailbox, (way, written)) = (Mailbox::default(), line(100));
        assert!(mailbox.rest(1, 100, Arc::downgrade(&way)));
        for n in 1..3 {
            assert_eq!(mailbox.ready(1), Some(100));
            mailbox.bring(1, routes(false));
            assert_eq!(written.0.lock().unwrap().1, b"routes".repeat(n));
        }
        assert_eq!(mail_of(&mailbox), (None, false));
        assert!(mailbox.arrived().now_or_never().is_none());
        assert_eq!(mailbox.rise(1), Risen::default());
    }

    #[test]
    fn what_the_line_does_not_take_comes_by_mail_and_may_not_be_overtaken() {
        let (mailbox, (way, written)) = (Mailbox::default(), line(4));
        mailbox.rest(1, 100, Arc::downgrade(&way));
        mailbox.ready(1);
        mailbox.bring(1, routes(false));
        assert_eq!(written.0.lock().unwrap().1, b"rout");
        assert!(mailbox.arrived().now_or_never().is_some());
        let rest = Fill { bytes: Bytes::from_static(b"es"), more: false, begun: true };
        // A task that has something of its own to write hears of it before that.
        assert_eq!(mailbox.rise(1), Risen { under_way: false, fill: Some(rest) });
        assert_eq!(mail_of(&mailbox), (None, false));
    }

    #[test]
    fn an_answer_that_was_under_way_when_the_task_rose_comes_by_mail() {
        let (mailbox, (way, written)) = (Mailbox::default(), line(100));
        mailbox.rest(1, 100, Arc::downgrade(&way));
        mailbox.ready(1);
        assert_eq!(mailbox.rise(1), Risen { under_way: true, fill: None });
        mailbox.bring(1, routes(false));
        assert_eq!(written.0.lock().unwrap().1, b"");
        assert_eq!(mail_of(&mailbox), (Some(routes(false)), false));
    }

    #[test]
    fn what_came_up_while_an_answer_was_under_way_is_asked_for_behind_it() {
        let (mailbox, (way, _written)) = (Mailbox::default(), line(100));
        let again = |mailbox: &Mailbox| {
            mailbox.rest(1, 100, Arc::downgrade(&way));
            assert_eq!(mailbox.ready(1), Some(100));
            assert_eq!(mailbox.ready(1), None);
            assert!(mailbox.arrived().now_or_never().is_none());
        };
        let nothing = |more| Some(Fill { more, begun: true, ..Fill::default() });
        again(&mailbox);
        mailbox.bring(1, routes(false));
        assert_eq!(mail_of(&mailbox), (nothing(true), false));
        assert!(mailbox.arrived().now_or_never().is_some());
        // Or it comes by mail all the same.
        again(&mailbox);
        mailbox.fill(1, routes(false));
        assert_eq!(mail_of(&mailbox), (Some(routes(true)), false));
        assert!(mailbox.arrived().now_or_never().is_some());
        again(&mailbox);
        assert!(mailbox.rise(1).under_way);
        assert_eq!(mail_of(&mailbox), (None, true));
    }

    #[test]
    fn a_line_that_has_ended_takes_nothing_and_a_peer_that_has_something_to_ask_for_does_not_rest() {
        let (mailbox, (way, written)) = (Mailbox::default(), line(100));
        let weak = Arc::downgrade(&way);
        mailbox.rest(1, 100, weak.clone());
        mailbox.ready(1);
        drop((way, written));
        mailbox.bring(1, routes(false));
        assert_eq!(mail_of(&mailbox), (Some(routes(false)), false));
        assert_eq!(mailbox.ready(1), None);
        assert!(!mailbox.rest(1, 100, weak.clone()));
        assert!(mailbox.take().ready);
        assert!(mailbox.rest(1, 100, weak));
    }

    #[test]
    fn the_rest_of_an_ended_session_is_not_that_of_the_next() {
        let (mailbox, (way, _written)) = (Mailbox::default(), line(100));
        assert!(mailbox.rest(1, 100, Arc::downgrade(&way)));
        assert_eq!(mailbox.ready(2), None);
        assert!(mailbox.rest(1, 100, Arc::downgrade(&way)), "of no effect");
        assert_eq!(mailbox.ready(2), None);
        mailbox.bring(1, routes(false));
        assert_eq!(mailbox.take().fill, None);
    }
}
