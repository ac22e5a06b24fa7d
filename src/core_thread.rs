//! The thread of the table.
//!
//! Owns: one [`Core`] (in the daemon the speaker) on an OS thread of its own, two bounded inboxes, one deadline, and
//! the delivery of what the core says. Never: runs on a runtime worker, waits for a peer or for the kernel, or decides
//! anything. A long walk in here delays routes but no keepalive: those live with the peer tasks.
//!
//! What comes from one session stays in order: its messages travel as [`Batch`]es of one incarnation, one at a time.
//! Only the end of a session overtakes them, in the urgent inbox; what of its incarnation comes later is dropped.

pub mod courier;
pub mod mailbox;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::{Afi, IpPrefix, Millis, PeerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use self::courier::{Dispatch, Post};
use self::mailbox::{Fill, Incarnation, Mailbox};
use crate::clock::Clock;
use crate::desired::{DesiredState, SessionKey};
use crate::fib::reconciler::FibInput;
use crate::fib::{FibChange, KernelEvent, Ownership, Phase};
use crate::speaker::{Speaker, SpeakerInput, SpeakerOutput};

/// Batches that may wait; with at most [`BATCH_BYTES`] each this bounds what waits for the core to 16 MiB.
const BULK: usize = 256;
/// Bytes of messages after which a peer sends its batch and reads no further until the core has taken it.
pub const BATCH_BYTES: usize = 64 * 1024;
/// Urgent messages that may wait.
const URGENT: usize = 1024;
/// Inputs of one slice, after which the core settles.
const SLICE: usize = 256;
/// The share of a slice that is for inputs while the core has work left: it must get on faster than more comes in.
const BUSY_SHARE: u32 = 4;
/// Time of one slice, after which the core settles.
const SLICE_TIME: Duration = Duration::from_millis(1);

/// What the thread drives. The speaker in the daemon; tests have slow ones and broken ones.
pub trait Core: Send + 'static {
    /// Takes one input; never blocks for anything but its own work.
    fn handle(&mut self, now: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>);
    /// Says what follows from the inputs since the last call; `true`: there is more to do.
    fn settle(&mut self, now: Millis, out: &mut Vec<SpeakerOutput>) -> bool;
    /// When [`SpeakerInput::Tick`] is wanted.
    fn deadline(&self) -> Option<Millis>;
}

impl Core for Speaker {
    fn handle(&mut self, now: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
        Speaker::handle(self, now, input, out);
    }

    fn settle(&mut self, now: Millis, out: &mut Vec<SpeakerOutput>) -> bool {
        Speaker::settle(self, now, out)
    }

    fn deadline(&self) -> Option<Millis> {
        Speaker::deadline(self)
    }
}

/// Messages of one session, in order.
#[derive(Debug)]
pub struct Batch {
    /// Whose.
    pub peer: PeerId,
    /// Which session of this peer.
    pub incarnation: Incarnation,
    /// What was said.
    pub inputs: Vec<SpeakerInput>,
    /// Dropped when the core has taken all of it: the peer may send the next.
    pub credit: oneshot::Sender<()>,
}

/// A look at the core, done on its thread.
pub type Look<C> = Box<dyn FnOnce(&C) + Send>;

/// What does not wait behind the messages of sessions.
pub enum Urgent<C> {
    /// A new desired state with the handle and the mailbox of each of its peers.
    Desired {
        /// The state.
        state: Arc<DesiredState>,
        /// Handles by session.
        peers: Arc<BTreeMap<SessionKey, PeerId>>,
        /// Where each peer's mail goes.
        mailboxes: BTreeMap<PeerId, Arc<Mailbox>>,
    },
    /// A session is gone with its routes: nothing more of this incarnation is taken.
    PeerDown(PeerId, Incarnation),
    /// An attempt to reach a peer failed.
    Unreachable(PeerId),
    /// Somebody wants a peer to send its routes of this family again. Without a session nothing happens.
    Refresh(PeerId, Afi),
    /// Somebody wants a peer to be sent our routes of this family again.
    Resend(PeerId, Afi),
    /// Whether neighbours can reach us.
    Listening(bool),
    /// Somebody wants to see something.
    Look(Look<C>),
}

/// The way into the core. Cheap to clone.
pub struct CorePort<C> {
    /// Goes first.
    pub urgent: mpsc::Sender<Urgent<C>>,
    /// Messages of sessions.
    pub bulk: mpsc::Sender<Batch>,
}

impl<C> Clone for CorePort<C> {
    fn clone(&self) -> Self {
        CorePort { urgent: self.urgent.clone(), bulk: self.bulk.clone() }
    }
}

/// The core does not answer: it has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the table's thread has ended")]
pub struct CoreGone;

impl<C: Core> CorePort<C> {
    /// Runs `look` on the core's thread and brings back what it says.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&C) -> T + Send + 'static,
    ) -> Result<T, CoreGone> {
        let (answer, answered) = oneshot::channel();
        let look: Look<C> = Box::new(move |core| drop(answer.send(look(core))));
        self.urgent.send(Urgent::Look(look)).await.map_err(|_| CoreGone)?;
        answered.await.map_err(|_| CoreGone)
    }
}

/// The receiving ends, for the thread.
pub struct Inbox<C> {
    urgent: mpsc::Receiver<Urgent<C>>,
    bulk: mpsc::Receiver<Batch>,
}

/// Makes the two inboxes.
pub fn inboxes<C>() -> (CorePort<C>, Inbox<C>) {
    let (urgent, urgent_rx) = mpsc::channel(URGENT);
    let (bulk, bulk_rx) = mpsc::channel(BULK);
    (CorePort { urgent, bulk }, Inbox { urgent: urgent_rx, bulk: bulk_rx })
}

/// The two ends towards the kernel's reconciler.
pub struct KernelPort {
    /// What the kernel tells.
    pub events: mpsc::Receiver<KernelEvent>,
    /// What is wanted of it.
    pub wanted: mpsc::Sender<FibInput>,
}

/// Drives `core` until every port is dropped. Blocks: call it on a thread of its own.
pub fn run<C: Core>(
    core: C,
    clock: Clock,
    inbox: Inbox<C>,
    kernel: KernelPort,
    phase: watch::Sender<Phase>,
    dispatch: Dispatch,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(Driver::new(core, clock, phase, dispatch).run(inbox, kernel));
    Ok(())
}

/// Starts the thread. `failed` hears why where it ends by a panic or cannot start its runtime; where every port
/// was dropped it just ends.
pub fn start<C: Core>(
    core: C,
    clock: Clock,
    inbox: Inbox<C>,
    kernel: KernelPort,
    phase: watch::Sender<Phase>,
    dispatch: Dispatch,
    failed: impl FnOnce(&str) + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("core".into()).spawn(move || {
        let run = AssertUnwindSafe(|| run(core, clock, inbox, kernel, phase, dispatch));
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed(&error.to_string()),
            Err(panic) => failed(panic_text(&*panic)),
        }
    })
}

/// The text of a panic, where it has one.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// What the thread knows of a peer's session.
#[derive(Clone, Copy, Default)]
struct Sessions {
    /// The newest whose messages came.
    current: Incarnation,
    /// The newest that has ended.
    ended: Incarnation,
}

struct Driver<C> {
    core: C,
    clock: Clock,
    phase: watch::Sender<Phase>,
    out: Vec<SpeakerOutput>,
    mailboxes: BTreeMap<PeerId, Arc<Mailbox>>,
    sessions: BTreeMap<PeerId, Sessions>,
    /// The batch that is being worked on.
    open: Option<OpenBatch>,
    /// The core has work left.
    behind: bool,
    /// Peers that rest and are given what came up: who, for which session, how many octets.
    given: VecDeque<(PeerId, Incarnation, usize)>,
    fib: FibBacklog,
    /// Answers to peers that rest.
    dispatch: Dispatch,
}

/// A batch that slices take from.
struct OpenBatch {
    peer: PeerId,
    incarnation: Incarnation,
    inputs: std::vec::IntoIter<SpeakerInput>,
    /// Dropped with the batch.
    _credit: oneshot::Sender<()>,
}

impl From<Batch> for OpenBatch {
    fn from(batch: Batch) -> Self {
        let Batch { peer, incarnation, inputs, credit } = batch;
        OpenBatch { peer, incarnation, inputs: inputs.into_iter(), _credit: credit }
    }
}

/// What the reconciler has not taken yet: the latest for each prefix.
#[derive(Default)]
struct FibBacklog {
    changes: BTreeMap<IpPrefix, FibChange>,
    held: Option<BTreeSet<IpAddr>>,
    phase: Option<Phase>,
    ownership: Option<Ownership>,
}

impl FibBacklog {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.held.is_none() && self.phase.is_none() && self.ownership.is_none()
    }

    /// Changes first: what was wanted when the phase changed must be known before anything is deleted.
    fn next(&mut self) -> Option<FibInput> {
        if let Some(ownership) = self.ownership.take() {
            Some(FibInput::Ownership(ownership))
        } else if self.changes.is_empty() {
            self.held.take().map(FibInput::Held).or_else(|| self.phase.take().map(FibInput::Phase))
        } else {
            Some(FibInput::Changes(std::mem::take(&mut self.changes).into_values().collect()))
        }
    }
}

impl<C: Core> Driver<C> {
    fn new(core: C, clock: Clock, phase: watch::Sender<Phase>, dispatch: Dispatch) -> Self {
        Driver {
            core,
            clock,
            phase,
            out: Vec::new(),
            mailboxes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            open: None,
            behind: false,
            given: VecDeque::new(),
            fib: FibBacklog::default(),
            dispatch,
        }
    }

    async fn run(&mut self, mut inbox: Inbox<C>, kernel: KernelPort) {
        let KernelPort { mut events, wanted } = kernel;
        let mut listening = true;
        // The core has work left, or a batch is not done.
        let mut busy = false;
        loop {
            let deadline = self.core.deadline().map(|at| self.clock.instant(at));
            let backlog = !self.fib.is_empty();
            tokio::select! {
                biased;
                urgent = inbox.urgent.recv() => match urgent {
                    Some(urgent) => self.urgent(urgent),
                    // Every port holds both senders, so the bulk inbox ends with this one.
                    None => return,
                },
                event = events.recv(), if listening => match event {
                    Some(event) => self.feed(SpeakerInput::Kernel(event)),
                    None => listening = false,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.feed(SpeakerInput::Tick);
                }
                slot = wanted.reserve(), if backlog => match slot {
                    Ok(slot) => {
                        if let Some(input) = self.fib.next() {
                            slot.send(input);
                        }
                    }
                    // The reconciler ends when the process does.
                    Err(_) => self.fib = FibBacklog::default(),
                },
                () = std::future::ready(()), if busy => {}
                batch = inbox.bulk.recv() => match batch {
                    Some(batch) => self.open = Some(batch.into()),
                    None => return,
                },
            }
            self.slice(&mut inbox, &mut events);
            self.settle();
            busy = self.behind || self.open.is_some() || !self.given.is_empty();
        }
    }

    /// Takes what is there, urgent first, for as long as a slice lasts.
    fn slice(&mut self, inbox: &mut Inbox<C>, events: &mut mpsc::Receiver<KernelEvent>) {
        let share = if self.behind { BUSY_SHARE } else { 1 };
        let until = Instant::now() + SLICE_TIME / share;
        for _ in 0..SLICE {
            if let Ok(urgent) = inbox.urgent.try_recv() {
                self.urgent(urgent);
            } else if let Ok(event) = events.try_recv() {
                self.feed(SpeakerInput::Kernel(event));
            } else if let Some(input) = self.next_input(inbox) {
                self.feed(input);
            } else {
                return;
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// What a resting peer would ask for, else the next message of a session that has not ended.
    fn next_input(&mut self, inbox: &mut Inbox<C>) -> Option<SpeakerInput> {
        if let Some((peer, incarnation, budget)) = self.given.pop_front() {
            return Some(SpeakerInput::Want { peer, incarnation, budget });
        }
        loop {
            if self.open.is_none() {
                self.open = Some(inbox.bulk.try_recv().ok()?.into());
            }
            let batch = self.open.as_mut()?;
            let (peer, incarnation) = (batch.peer, batch.incarnation);
            // A peer that is no longer wanted, or a session that has ended.
            let wanted = self.mailboxes.contains_key(&peer) && {
                let sessions = self.sessions.entry(peer).or_default();
                sessions.current = sessions.current.max(incarnation);
                sessions.ended < incarnation
            };
            match batch.inputs.next().filter(|_| wanted) {
                Some(input) => return Some(input),
                None => self.open = None,
            }
        }
    }

    /// Has the core say what follows, as much as there is time for in a slice, and hands it on.
    fn settle(&mut self) {
        self.behind = self.core.settle(self.clock.now(), &mut self.out);
        self.deliver();
    }

    fn feed(&mut self, input: SpeakerInput) {
        self.core.handle(self.clock.now(), input, &mut self.out);
    }

    fn urgent(&mut self, urgent: Urgent<C>) {
        match urgent {
            Urgent::Desired { state, peers, mailboxes } => {
                self.sessions.retain(|peer, _| mailboxes.contains_key(peer));
                self.mailboxes = mailboxes;
                self.feed(SpeakerInput::Desired { state, peers });
            }
            Urgent::PeerDown(peer, incarnation) => {
                if self.mailboxes.contains_key(&peer) {
                    let sessions = self.sessions.entry(peer).or_default();
                    sessions.ended = sessions.ended.max(incarnation);
                    self.feed(SpeakerInput::PeerDown(peer));
                }
            }
            Urgent::Unreachable(peer) => self.feed(SpeakerInput::PeerUnreachable(peer)),
            Urgent::Refresh(peer, afi) => self.mail(peer, |mailbox, n| mailbox.refresh(n, afi)),
            Urgent::Resend(peer, afi) => self.feed(SpeakerInput::RefreshRequested(peer, afi)),
            Urgent::Listening(listening) => self.feed(SpeakerInput::Listening(listening)),
            Urgent::Look(look) => look(&self.core),
        }
    }

    /// Hands on what the core said.
    fn deliver(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                SpeakerOutput::Ready(peer, n) => {
                    let budget = self.mailboxes.get(&peer).and_then(|mailbox| mailbox.ready(n));
                    self.given.extend(budget.map(|budget| (peer, n, budget)));
                }
                SpeakerOutput::Fill { peer, incarnation, bytes, more } => {
                    let Some(mailbox) = self.mailboxes.get(&peer) else { continue };
                    let fill = Fill { bytes, more, begun: false };
                    if mailbox.is_given(incarnation) {
                        self.dispatch.post(Post { mailbox: mailbox.clone(), incarnation, fill });
                    } else {
                        mailbox.fill(incarnation, fill);
                    }
                }
                SpeakerOutput::EndSession(peer, why) => self.mail(peer, |mailbox, n| mailbox.end(n, why)),
                SpeakerOutput::Fib(changes) => {
                    self.fib.changes.extend(changes.into_iter().map(|change| (change.prefix, change)));
                }
                SpeakerOutput::Ownership(ownership) => self.fib.ownership = Some(ownership),
                SpeakerOutput::Held(held) => self.fib.held = Some(held),
                SpeakerOutput::Phase(phase) => {
                    self.fib.phase = Some(phase);
                    self.phase.send_replace(phase);
                }
            }
        }
        self.dispatch.send();
    }

    /// For the session that stands.
    fn mail(&self, peer: PeerId, put: impl FnOnce(&Mailbox, Incarnation)) {
        if let Some(sessions) = self.sessions.get(&peer) {
            self.mail_to(peer, |mailbox| put(mailbox, sessions.current));
        }
    }

    fn mail_to(&self, peer: PeerId, put: impl FnOnce(&Mailbox)) {
        if let Some(mailbox) = self.mailboxes.get(&peer) {
            put(mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::mpsc::{Receiver, SyncSender};

    const PEER: PeerId = PeerId { slot: 0, generation: 1 };

    /// Writes down what it is told.
    struct Recorder(SyncSender<String>);

    impl Core for Recorder {
        fn handle(&mut self, _: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
            if let SpeakerInput::Want { peer, incarnation, .. } = input {
                let bytes = Bytes::from_static(b"update");
                out.push(SpeakerOutput::Fill { peer, incarnation, bytes, more: false });
            }
            let _ = self.0.send(format!("{input:?}"));
        }
        fn settle(&mut self, _: Millis, _: &mut Vec<SpeakerOutput>) -> bool {
            let _ = self.0.send("settle".into());
            false
        }
        fn deadline(&self) -> Option<Millis> {
            None
        }
    }

    fn batch(incarnation: Incarnation, inputs: Vec<SpeakerInput>) -> (Batch, oneshot::Receiver<()>) {
        let (credit, taken) = oneshot::channel();
        (Batch { peer: PEER, incarnation, inputs, credit }, taken)
    }

    /// Works on a batch until it is done.
    fn run(driver: &mut Driver<Recorder>, inbox: &mut Inbox<Recorder>, batch: Batch) {
        let (_, mut events) = mpsc::channel(1);
        driver.open = Some(batch.into());
        while driver.open.is_some() {
            driver.slice(inbox, &mut events);
            driver.settle();
        }
    }

    fn recorder() -> (Driver<Recorder>, Inbox<Recorder>, Receiver<String>, Arc<Mailbox>) {
        let (told, heard) = std::sync::mpsc::sync_channel(100);
        let (_, inbox) = inboxes();
        let mailbox = Arc::new(Mailbox::default());
        let mut driver = Driver::new(
            Recorder(told),
            Clock::start(),
            watch::channel(Phase::Recovering).0,
            Dispatch::default(),
        );
        driver.mailboxes.insert(PEER, mailbox.clone());
        (driver, inbox, heard, mailbox)
    }

    #[test]
    fn what_an_ended_session_still_had_under_way_is_dropped_and_the_next_one_is_heard() {
        let (mut driver, mut inbox, heard, _) = recorder();
        driver.urgent(Urgent::PeerDown(PEER, 1));
        run(&mut driver, &mut inbox, batch(1, vec![SpeakerInput::EndOfRib(PEER, Afi::Ipv4)]).0);
        run(&mut driver, &mut inbox, batch(2, vec![SpeakerInput::EndOfRib(PEER, Afi::Ipv6)]).0);
        let heard: Vec<String> = heard.try_iter().filter(|line| line != "settle").collect();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].contains("PeerDown") && heard[1].contains("Ipv6"), "{heard:?}");
    }

    #[test]
    fn the_credit_comes_back_when_the_batch_is_done_and_the_fill_names_the_session() {
        let (mut driver, mut inbox, _heard, mailbox) = recorder();
        let (batch, mut taken) = batch(3, vec![want(3)]);
        run(&mut driver, &mut inbox, batch);
        assert_eq!(taken.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let mail = mailbox.take();
        let fill = Fill { bytes: Bytes::from_static(b"update"), more: false, begun: false };
        assert_eq!((mail.incarnation, mail.fill), (3, Some(fill)));
    }

    fn want(incarnation: Incarnation) -> SpeakerInput {
        SpeakerInput::Want { peer: PEER, incarnation, budget: 100 }
    }

    /// A line that is never full.
    #[derive(Default)]
    struct Open(std::sync::Mutex<Vec<u8>>);

    impl mailbox::Way for Open {
        fn write(&self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
    }

    #[tokio::test]
    async fn a_peer_that_rests_is_given_what_came_up_without_asking() {
        let (mut driver, mut inbox, heard, mailbox) = recorder();
        driver.dispatch = Dispatch::on(&tokio::runtime::Handle::current());
        let (_, mut events) = mpsc::channel(1);
        let line = Arc::new(Open::default());
        let way: Arc<dyn mailbox::Way> = line.clone();
        assert!(mailbox.rest(1, 100, Arc::downgrade(&way)));
        for n in 1..3 {
            driver.out.push(SpeakerOutput::Ready(PEER, 1));
            driver.deliver();
            driver.slice(&mut inbox, &mut events);
            driver.settle();
            while line.0.lock().unwrap().len() < n * b"update".len() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(mailbox.take().fill, None);
        assert!(heard.try_iter().any(|line| line.contains("budget: 100")));
        // With nobody to bring them answers come by mail.
        driver.dispatch = Dispatch::default();
        driver.out.push(SpeakerOutput::Ready(PEER, 1));
        driver.deliver();
        driver.slice(&mut inbox, &mut events);
        driver.settle();
        assert!(mailbox.take().fill.is_some());
        driver.out.push(SpeakerOutput::Ready(PEER, 1));
        driver.deliver();
        assert!(mailbox.take().ready, "it has not rested again, and asks when it has written that");
    }

    #[test]
    fn an_answer_to_a_lost_session_is_not_delivered_to_the_next() {
        let (mut driver, mut inbox, _heard, mailbox) = recorder();
        let (_, mut events) = mpsc::channel(1);
        // Both in one slice: the second session is heard before the answer to the first is handed on.
        driver.open = Some(batch(1, vec![want(1)]).0.into());
        driver.slice(&mut inbox, &mut events);
        driver.open = Some(batch(2, vec![SpeakerInput::EndOfRib(PEER, Afi::Ipv4)]).0.into());
        driver.slice(&mut inbox, &mut events);
        driver.settle();
        assert_eq!(mailbox.take().incarnation, 1, "named as what it is: the task of the second drops it");
    }

    #[test]
    fn the_core_settles_once_for_a_slice_and_urgent_messages_go_between_slices() {
        let (told, heard) = std::sync::mpsc::sync_channel(10_000);
        let (port, mut inbox) = inboxes();
        let (_, mut events) = mpsc::channel(1);
        let mut driver = Driver::new(
            Recorder(told),
            Clock::start(),
            watch::channel(Phase::Recovering).0,
            Dispatch::default(),
        );
        driver.mailboxes.insert(PEER, Arc::new(Mailbox::default()));
        let inputs = (0..1000).map(|_| SpeakerInput::EndOfRib(PEER, Afi::Ipv4)).collect();
        driver.open = Some(batch(1, inputs).0.into());
        driver.slice(&mut inbox, &mut events);
        driver.settle();
        port.urgent.try_send(Urgent::Unreachable(PEER)).unwrap();
        while driver.open.is_some() {
            driver.slice(&mut inbox, &mut events);
            driver.settle();
        }
        let heard: Vec<String> = heard.try_iter().collect();
        let at = |word: &str| heard.iter().position(|line| line.contains(word)).unwrap();
        assert!(at("settle") <= SLICE, "{}", at("settle"));
        assert_eq!(at("PeerUnreachable"), at("settle") + 1);
    }

    #[test]
    fn the_sweep_of_a_large_peer_is_cut_into_slices_and_urgent_messages_go_between() {
        use crate::speaker::tests::{Bench, peer};
        const ROUTES: u32 = 20_000;
        let mut bench = Bench::settled(&[peer("10.10.0.2", 64512)]);
        let id = bench.up("10.10.0.2");
        bench.announce_many(id, "10.10.0.2", ROUTES);
        bench.tell(SpeakerInput::Tick);
        let (port, mut inbox) = inboxes();
        let (_, mut events) = mpsc::channel(1);
        let mut driver = Driver::new(
            bench.speaker,
            Clock::start(),
            watch::channel(Phase::Recovering).0,
            Dispatch::default(),
        );
        driver.mailboxes.insert(id, Arc::new(Mailbox::default()));
        driver.urgent(Urgent::PeerDown(id, 1));
        let (told, heard) = std::sync::mpsc::channel();
        while driver.core.is_busy() {
            let told = told.clone();
            let look = move |core: &Speaker| told.send(core.destinations(Afi::Ipv4)).unwrap();
            port.urgent.try_send(Urgent::Look(Box::new(look))).ok().unwrap();
            driver.slice(&mut inbox, &mut events);
            driver.settle();
        }
        let seen: Vec<usize> = heard.try_iter().collect();
        assert!(seen.first().unwrap() > &20_000 && seen.last().unwrap() < &10, "{seen:?}");
        let most = seen.windows(2).map(|pair| pair[0] - pair[1]).max().unwrap();
        assert!(most <= 1024, "{most} of {ROUTES} went in one slice");
    }

    #[test]
    fn a_refresh_reaches_the_session_that_stands_and_none_where_there_was_none() {
        let (mut driver, mut inbox, _heard, mailbox) = recorder();
        driver.urgent(Urgent::Refresh(PEER, Afi::Ipv4));
        assert!(mailbox.take().refresh.is_empty());
        run(&mut driver, &mut inbox, batch(2, vec![SpeakerInput::EndOfRib(PEER, Afi::Ipv4)]).0);
        driver.urgent(Urgent::Refresh(PEER, Afi::Ipv4));
        let mail = mailbox.take();
        assert_eq!((mail.incarnation, mail.refresh.contains(Afi::Ipv4)), (2, true));
    }

    /// Fails at once.
    struct Broken;

    impl Core for Broken {
        fn handle(&mut self, _: Millis, _: SpeakerInput, _: &mut Vec<SpeakerOutput>) {
            panic!("a defect in the table");
        }
        fn settle(&mut self, _: Millis, _: &mut Vec<SpeakerOutput>) -> bool {
            false
        }
        fn deadline(&self) -> Option<Millis> {
            Some(Millis(0))
        }
    }

    #[test]
    fn a_panic_of_the_core_is_told_with_its_words() {
        let (_port, inbox) = inboxes();
        let (_events, events) = mpsc::channel(1);
        let (wanted, _wanted) = mpsc::channel(1);
        let (told, heard) = std::sync::mpsc::sync_channel(1);
        let phase = watch::channel(Phase::Recovering).0;
        let failed = move |why: &str| told.send(why.to_string()).unwrap();
        let kernel = KernelPort { events, wanted };
        let thread =
            start(Broken, Clock::start(), inbox, kernel, phase, Dispatch::default(), failed).unwrap();
        thread.join().unwrap();
        assert_eq!(heard.recv().unwrap(), "a defect in the table");
    }

    #[test]
    fn messages_of_a_peer_that_is_gone_reach_nobody() {
        let (mut driver, mut inbox, heard, _) = recorder();
        driver.mailboxes.clear();
        run(&mut driver, &mut inbox, batch(1, vec![SpeakerInput::EndOfRib(PEER, Afi::Ipv4)]).0);
        driver.urgent(Urgent::PeerDown(PEER, 1));
        assert_eq!(heard.try_iter().filter(|line| line != "settle").count(), 0);
    }
}
