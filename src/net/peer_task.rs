//! The shell around one [`Session`]: sockets, one timer, the way to and from the core.
//!
//! Owns: up to two connections, the dial, what the session has for the core and what the core has for the peer. Never:
//! decides anything about BGP: bytes and times go in, and what the session says is done.
//!
//! - **Pull.** Routes come from the core only when the connection has written all that it had, one answer at a time; so a slow
//!   peer holds at most one answer, and the rest waits where it can still change. A connection that is done and knows of
//!   nothing more rests: the next answer comes unasked, and is written by the courier.
//! - **Credit.** One batch is with the core at a time. While that is so and the next is full, nothing is read, and TCP tells
//!   the peer. Keepalives go on; bytes that wait unread keep the hold timer from expiring (T17).
//! - **Panics** end this peer's session only; it starts anew (P8).

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{
    CloseCause, Conn, DialError, DownReason, Endpoints, Event, Input, Output, PeerSpec, Session, StopReason,
};
use bgp_proto::wire::frame::{MAX_EXTENDED_LEN, MAX_LEN, Next, next_frame};
use bgp_proto::{AfiSet, IpPrefix, Millis, PeerId};
use futures::FutureExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::caller::Accepted;
use super::dial::{Destination, DialFailure, DialGate, Turn};
use super::line::{Line, READ};
use super::peer_view::{PeerView, Shadowed};
use super::sockopt;
use crate::clock::Clock;
use crate::core_thread::mailbox::{Fill, Incarnation, Mailbox, Risen};
use crate::core_thread::{BATCH_BYTES, Batch, CorePort, Urgent, panic_text};
use crate::desired::SessionKey;
use crate::model::SecretBytes;
use crate::random::random;
use crate::restart_marker::{Graceful, Notes};
use crate::speaker::SpeakerInput;

/// Bytes of routes asked for at once.
const BUDGET: usize = 32 * 1024;
/// How long a peer gets to answer before the core hears that it cannot be dialled, and no longer has the others wait
/// for its routes: it may be starting as we are, or be one that only dials.
const PATIENCE: Millis = Millis::secs(5);
/// Pause before a session starts anew after a defect.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// What may change while a task lives; the latest counts.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The session's parameters. What its transport and OPENs have in them is changed by a successor.
    pub spec: PeerSpec,
    /// The MD5 key.
    pub key: Option<SecretBytes>,
    /// Families whose forwarding our own restart preserved, while recovery lasts.
    pub restarting: AfiSet,
    /// Another peer gets the connections that this one dials.
    pub shadowed: Option<Shadowed>,
    /// The task shall end.
    pub stop: Option<StopReason>,
}

/// What a peer task is made with.
pub struct PeerTask<C> {
    /// Handle.
    pub id: PeerId,
    /// Session name.
    pub name: Arc<str>,
    /// Why the session must not start (`strict`), in words.
    pub held: Option<String>,
    /// Commands.
    pub wanted: watch::Receiver<Wanted>,
    /// Connections that the peer dialled.
    pub door: mpsc::Receiver<Accepted>,
    /// Mail from the core.
    pub mailbox: Arc<Mailbox>,
    /// The way to the core.
    pub core: CorePort<C>,
    /// Bound on dials.
    pub gate: DialGate,
    /// Connections that are being closed.
    pub closers: TaskTracker,
    /// What people see.
    pub view: watch::Sender<PeerView>,
    /// Somebody wants to see all of it as it is now.
    pub looks: watch::Receiver<u64>,
    /// What the next start has to know of graceful sessions, and under which key this one stands there.
    pub notes: (Notes, SessionKey),
    /// Time.
    pub clock: Clock,
}

impl<C: 'static> PeerTask<C> {
    /// Runs until told to stop. A panic inside costs the session, not the task.
    pub async fn run(mut self) {
        let mut incarnation = 0;
        loop {
            let mut shell = Shell::new(&mut self, incarnation);
            let end = AssertUnwindSafe(shell.run()).catch_unwind().await;
            incarnation = shell.incarnation;
            drop(shell);
            let Err(panic) = end else { return };
            warn!(peer = %self.name, panic = panic_text(&panic), "a defect ended this session; it starts anew");
            self.view.send_modify(|view| view.defects += 1);
            // Where the core has ended the process is about to.
            let _ = self.core.urgent.send(Urgent::PeerDown(self.id, incarnation)).await;
            sleep(AFTER_PANIC).await;
        }
    }
}

/// What a dial is at.
enum Dialling {
    /// It waits for its turn among those of other peers.
    Queued(Pin<Box<dyn Future<Output = Turn> + Send>>),
    Connecting(Pin<Box<dyn Future<Output = Result<TcpStream, DialFailure>> + Send>>),
}

/// What the task woke up for.
enum Woke {
    Wanted,
    Gone,
    Accepted(Accepted),
    Mail,
    Turn(Turn),
    Dialled(Result<TcpStream, DialFailure>),
    Readable(Conn),
    Writable(Conn),
    BatchTaken,
    Sent,
    Look,
    Deadline,
}

/// Two places for connections.
#[derive(Default)]
struct Lines {
    active: Option<Line>,
    passive: Option<Line>,
}

impl Lines {
    fn slot(&mut self, conn: Conn) -> &mut Option<Line> {
        match conn {
            Conn::Active => &mut self.active,
            Conn::Passive => &mut self.passive,
        }
    }

    async fn readable(&self) -> Conn {
        tokio::select! {
            () = readable(self.active.as_ref()) => Conn::Active,
            () = readable(self.passive.as_ref()) => Conn::Passive,
        }
    }

    async fn writable(&self) -> Conn {
        tokio::select! {
            () = writable(self.active.as_ref()) => Conn::Active,
            () = writable(self.passive.as_ref()) => Conn::Passive,
        }
    }
}

async fn readable(line: Option<&Line>) {
    match line {
        Some(line) => line.readable().await,
        None => std::future::pending().await,
    }
}

async fn writable(line: Option<&Line>) {
    match line {
        Some(line) => line.writable().await,
        None => std::future::pending().await,
    }
}

/// What the session has for the core.
#[derive(Default)]
struct ToCore {
    inputs: Vec<SpeakerInput>,
    bytes: usize,
    /// The batch that the core has not finished yet.
    credit: Option<oneshot::Receiver<()>>,
    /// A session ended with its routes: goes before any later batch.
    down: Option<Incarnation>,
    /// The peer cannot be dialled.
    unreachable: bool,
}

impl ToCore {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }

    fn owes_urgent(&self) -> bool {
        self.down.is_some() || self.unreachable
    }

    fn may_send(&self) -> bool {
        !self.inputs.is_empty() && self.credit.is_none() && self.down.is_none()
    }
}

/// What the peer has asked of the core for its present session.
#[derive(Default)]
struct Pull {
    /// The core has something to be asked for.
    ready: bool,
    /// An answer is under way.
    asked: bool,
    /// The core gives what comes next without being asked.
    resting: bool,
}

struct Shell<'a, C> {
    task: &'a mut PeerTask<C>,
    session: Session,
    out: Vec<Output>,
    lines: Lines,
    /// A connection that the session has not placed yet.
    arriving: Option<Line>,
    dialling: Option<Dialling>,
    to_core: ToCore,
    pull: Pull,
    /// The connection of the established session.
    up: Option<Conn>,
    incarnation: Incarnation,
    key: Option<SecretBytes>,
    restarting: AfiSet,
    /// When this incarnation of the task began.
    began: Millis,
    /// A dial has failed.
    missed: bool,
    /// The core has heard that the peer cannot be dialled.
    told: bool,
    /// What the last dial could not set.
    note: Option<String>,
    /// Something happened that people want to see at once.
    news: bool,
}

impl<'a, C: 'static> Shell<'a, C> {
    fn new(task: &'a mut PeerTask<C>, incarnation: Incarnation) -> Self {
        let wanted = task.wanted.borrow_and_update().clone();
        Shell {
            session: Session::new(wanted.spec, random(), wanted.restarting),
            began: task.clock.now(),
            missed: false,
            told: false,
            task,
            out: Vec::new(),
            lines: Lines::default(),
            arriving: None,
            dialling: None,
            to_core: ToCore::default(),
            pull: Pull::default(),
            up: None,
            incarnation,
            key: wanted.key,
            restarting: wanted.restarting,
            note: None,
            news: true,
        }
    }

    async fn run(&mut self) {
        if self.task.wanted.borrow().stop.is_some() {
            return;
        }
        let shadowed = self.task.wanted.borrow().shadowed.clone();
        self.show_shadow(shadowed);
        match &self.task.held {
            Some(why) => {
                let why = why.clone();
                self.task.view.send_modify(|view| view.hold(why));
            }
            None => self.input(Input::Start),
        }
        loop {
            self.settle();
            match self.wait().await {
                Woke::Wanted => {
                    if self.wanted_changed() {
                        self.settle();
                        return;
                    }
                }
                Woke::Gone => {
                    self.input(Input::Stop(StopReason::Exit));
                    self.settle();
                    return;
                }
                Woke::Accepted(Accepted { stream, endpoints }) => {
                    // A peer that is back at once: the end of its old connection came before the new one.
                    self.read_what_came();
                    self.arriving = Some(Line::new(stream, endpoints, MAX_LEN));
                    self.input(Input::Connected(Conn::Passive, endpoints));
                }
                Woke::Mail => self.mail(),
                Woke::Turn(turn) => {
                    let to = self.destination();
                    self.dialling = Some(Dialling::Connecting(Box::pin(turn.dial(to))));
                    self.input(Input::DialStarted);
                }
                Woke::Dialled(result) => self.dialled(result),
                Woke::Readable(conn) => self.read(conn),
                Woke::Writable(conn) => self.flush(conn),
                Woke::BatchTaken => self.to_core.credit = None,
                Woke::Sent => {}
                Woke::Look => self.show(),
                Woke::Deadline => self.tick(),
            }
        }
    }

    /// Waits for the next thing to do.
    async fn wait(&mut self) -> Woke {
        let deadline = self.session.deadline().map(|at| self.task.clock.instant(at));
        let reading = !self.to_core.is_full();
        let may_send = self.to_core.may_send();
        let owes_urgent = self.to_core.owes_urgent();
        let has_credit_out = self.to_core.credit.is_some();
        tokio::select! {
            changed = self.task.wanted.changed() => {
                if changed.is_ok() { Woke::Wanted } else { Woke::Gone }
            }
            Some(accepted) = self.task.door.recv() => Woke::Accepted(accepted),
            () = self.task.mailbox.arrived() => Woke::Mail,
            woke = dialled(&mut self.dialling) => woke,
            conn = self.lines.readable(), if reading => Woke::Readable(conn),
            conn = self.lines.writable() => Woke::Writable(conn),
            () = taken(&mut self.to_core.credit), if has_credit_out => Woke::BatchTaken,
            slot = self.task.core.urgent.reserve(), if owes_urgent => {
                if let Ok(slot) = slot {
                    match self.to_core.down.take() {
                        Some(incarnation) => slot.send(Urgent::PeerDown(self.task.id, incarnation)),
                        None => {
                            self.to_core.unreachable = false;
                            slot.send(Urgent::Unreachable(self.task.id));
                        }
                    }
                    Woke::Sent
                } else {
                    Woke::Gone
                }
            }
            slot = self.task.core.bulk.reserve(), if may_send => {
                if let Ok(slot) = slot {
                    let (credit, taken) = oneshot::channel();
                    let inputs = std::mem::take(&mut self.to_core.inputs);
                    self.to_core.bytes = 0;
                    self.to_core.credit = Some(taken);
                    slot.send(Batch { peer: self.task.id, incarnation: self.incarnation, inputs, credit });
                    Woke::Sent
                } else {
                    Woke::Gone
                }
            }
            Ok(()) = self.task.looks.changed() => Woke::Look,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Woke::Deadline,
        }
    }

    fn now(&self) -> Millis {
        self.task.clock.now()
    }

    fn input(&mut self, input: Input<'_>) {
        let now = self.now();
        self.session.handle(now, input, &mut self.out);
    }

    /// Does what the session said until it has nothing more to say, writes, asks for routes, and shows the state.
    fn settle(&mut self) {
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                self.perform(output);
            }
            self.flush(Conn::Active);
            self.flush(Conn::Passive);
        }
        if self.arriving.take().is_some() {
            debug_assert!(false, "the session placed no connection");
        }
        self.ask();
        let now = self.now();
        let (session, note, news) = (&self.session, self.note.as_deref(), std::mem::take(&mut self.news));
        self.task.view.send_if_modified(|view| view.update(session, now, note, news));
    }

    /// Somebody looks.
    fn show(&mut self) {
        let number = *self.task.looks.borrow_and_update();
        let now = self.now();
        let (session, note) = (&self.session, self.note.as_deref());
        self.task.view.send_modify(|view| view.answer(number, session, now, note));
    }

    fn perform(&mut self, output: Output) {
        let id = self.task.id;
        match output {
            Output::Dial => {
                let waited = self.now() - self.began >= PATIENCE;
                if self.missed && waited && !std::mem::replace(&mut self.told, true) {
                    self.to_core.unreachable = true;
                }
                let gate = self.task.gate.clone();
                self.dialling = Some(Dialling::Queued(Box::pin(async move { gate.turn().await })));
            }
            Output::AbortDial => self.dialling = None,
            Output::Accept(conn) => {
                let line = self.arriving.take();
                *self.lines.slot(conn) = line;
            }
            Output::Refuse(bytes) => {
                if let Some(mut line) = self.arriving.take() {
                    line.push(bytes, false);
                    self.task.closers.spawn(line.hang_up());
                }
            }
            Output::Close(conn) => {
                self.rise(conn);
                if let Some(line) = self.lines.slot(conn).take() {
                    self.task.closers.spawn(line.hang_up());
                }
                self.left(conn);
            }
            Output::Send(conn, bytes) => {
                if let Some(line) = self.lines.slot(conn) {
                    line.push(bytes, false);
                }
            }
            Output::Up(negotiated) => {
                self.incarnation += 1;
                self.up = Some(negotiated.conn);
                self.pull = Pull::default();
                if negotiated.context.extended_message
                    && let Some(line) = self.lines.slot(negotiated.conn)
                {
                    line.max_message = MAX_EXTENDED_LEN;
                }
                let graceful =
                    Graceful { families: negotiated.graceful, restart_time: negotiated.restart_time() };
                let (notes, key) = &self.task.notes;
                notes.up(key, Some(graceful).filter(|graceful| !graceful.families.is_empty()));
                self.tell(SpeakerInput::PeerUp { peer: id, incarnation: self.incarnation, negotiated });
            }
            Output::Update(update) => self.tell(SpeakerInput::Update { peer: id, update }),
            Output::RefreshRequested(afi) => self.tell(SpeakerInput::RefreshRequested(id, afi)),
            Output::EndOfRib(afi) => self.tell(SpeakerInput::EndOfRib(id, afi)),
            Output::MarkStale(afi) => self.tell(SpeakerInput::MarkStale(id, afi)),
            Output::SweepStale(afi) => self.tell(SpeakerInput::SweepStale(id, afi)),
            Output::Stale(families) => {
                self.session_over();
                self.tell(SpeakerInput::Stale(id, families));
            }
            Output::LongLivedStale(families) => self.tell(SpeakerInput::LongLivedStale(id, families)),
            Output::Down => {
                self.session_over();
                let (notes, key) = &self.task.notes;
                notes.over(key);
                self.to_core.inputs.clear();
                self.to_core.bytes = 0;
                self.to_core.down = Some(self.incarnation);
            }
            Output::Event(event) => self.event(&event),
        }
    }

    /// Puts something into the next batch.
    fn tell(&mut self, input: SpeakerInput) {
        self.to_core.inputs.push(input);
    }

    fn session_over(&mut self) {
        self.task.mailbox.rise(self.incarnation);
        self.up = None;
        self.pull = Pull::default();
    }

    /// A connection is gone.
    fn left(&mut self, conn: Conn) {
        if self.up == Some(conn) {
            self.session_over();
        }
    }

    fn event(&mut self, event: &Event) {
        self.news = true;
        let peer = &self.task.name;
        if let Event::Down(DownReason::Dial(_)) = event {
            self.missed = true;
        }
        info!(%peer, address = %self.session.spec().transport.peer, "{event}");
    }

    fn destination(&self) -> Destination {
        let PeerSpec { transport, next, .. } = self.session.spec();
        Destination {
            peer: transport.peer,
            scope: transport.scope,
            port: transport.port,
            source: next.source,
            ttl: transport.ttl,
            key: self.key.clone(),
        }
    }

    fn dialled(&mut self, result: Result<TcpStream, DialFailure>) {
        self.dialling = None;
        self.note = None;
        let ends = result.and_then(|stream| {
            let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
            match ends {
                Ok((local, remote)) => Ok((stream, Endpoints { local, remote })),
                // The peer ended it before we looked.
                Err(_) => Err(DialFailure { error: DialError::Refused, note: None }),
            }
        });
        match ends {
            Ok((stream, endpoints)) => {
                self.arriving = Some(Line::new(stream, endpoints, MAX_LEN));
                self.input(Input::Connected(Conn::Active, endpoints));
            }
            Err(failure) => {
                self.note = failure.note;
                self.input(Input::DialFailed(failure.error));
            }
        }
    }

    /// Reads once, and gives the session every whole message.
    fn read(&mut self, conn: Conn) {
        let mut buf = [0; READ];
        let Some(line) = self.lines.slot(conn) else { return };
        let filled = match line.read(&mut buf) {
            Ok(Some(filled)) => filled,
            Ok(None) => return,
            Err(cause) => return self.connection_ended(conn, cause),
        };
        let ends = line.endpoints;
        let mut rest = buf.get(..filled).unwrap_or_default();
        loop {
            // The session may have closed the connection, or put another one in its place.
            let Some(line) = self.lines.slot(conn).as_mut().filter(|line| line.endpoints == ends) else {
                return;
            };
            match next_frame(rest, line.max_message) {
                Next::NeedMore(_) => return line.keep(rest),
                Next::Frame(frame) => {
                    let (len, told) = (frame.bytes.len(), self.to_core.inputs.len());
                    self.input(Input::Frame(conn, frame.bytes));
                    for output in std::mem::take(&mut self.out) {
                        self.perform(output);
                    }
                    if self.to_core.inputs.len() > told {
                        self.to_core.bytes += len;
                    }
                    rest = rest.get(len..).unwrap_or_default();
                }
                Next::Fatal(notification) => return self.input(Input::BadFrame(conn, notification)),
            }
        }
    }

    /// A connection ended without our doing.
    fn connection_ended(&mut self, conn: Conn, cause: CloseCause) {
        if self.lines.slot(conn).take().is_some() {
            self.left(conn);
            self.input(Input::Closed(conn, cause));
        }
    }

    fn flush(&mut self, conn: Conn) {
        if self.lines.slot(conn).as_ref().is_none_or(Line::is_drained) {
            return;
        }
        self.rise(conn);
        let Some(line) = self.lines.slot(conn) else { return };
        match line.flush() {
            Ok(done) => {
                if done.wrote {
                    self.input(Input::Wrote(conn));
                }
                if done.blocked {
                    self.input(Input::Blocked(conn));
                }
            }
            Err(cause) => self.connection_ended(conn, cause),
        }
    }

    /// Asks the core for routes when the connection has written all it had, or lets it give the next ones unasked.
    fn ask(&mut self) {
        let Some(conn) = self.up else { return };
        let drained = self.lines.slot(conn).as_ref().is_some_and(Line::is_drained);
        if !drained || self.pull.asked || self.pull.resting {
            return;
        }
        let way = self.lines.slot(conn).as_ref().map(Line::way);
        self.pull.resting =
            !self.pull.ready && way.is_some_and(|way| self.task.mailbox.rest(self.incarnation, BUDGET, way));
        if !self.pull.resting {
            self.pull.ready = false;
            self.pull.asked = true;
            self.tell(SpeakerInput::Want {
                peer: self.task.id,
                incarnation: self.incarnation,
                budget: BUDGET,
            });
        }
    }

    fn mail(&mut self) {
        let mail = self.task.mailbox.take();
        let Some(conn) = self.up.filter(|_| mail.incarnation == self.incarnation) else { return };
        if let Some(fill) = mail.fill {
            self.take_fill(conn, fill);
            self.flush(conn);
        }
        self.pull.ready |= mail.ready;
        for afi in mail.refresh.iter() {
            self.input(Input::RequestRefresh(afi));
        }
        if let Some(why) = mail.end {
            self.input(Input::Close(why));
        }
    }

    /// An answer, or what is left of it.
    fn take_fill(&mut self, conn: Conn, fill: Fill) {
        let Fill { bytes, more, begun } = fill;
        self.pull = Pull { ready: more, ..Pull::default() };
        if let Some(line) = self.lines.slot(conn) {
            if begun {
                line.push_rest(bytes);
            } else {
                line.push(bytes, true);
            }
        }
    }

    /// There is something to be written that does not come from the core: while the peer rests the line is left to the
    /// courier, who may be in the middle of a message.
    fn rise(&mut self, conn: Conn) {
        if self.up != Some(conn) || !std::mem::take(&mut self.pull.resting) {
            return;
        }
        let Risen { under_way, fill } = self.task.mailbox.rise(self.incarnation);
        self.pull.asked = under_way;
        if let Some(fill) = fill {
            self.take_fill(conn, fill);
        }
    }

    /// Hears what has arrived on both connections by now, as far as the core can take it.
    fn read_what_came(&mut self) {
        for conn in [Conn::Active, Conn::Passive] {
            if !self.to_core.is_full() {
                self.read(conn);
                self.settle();
            }
        }
    }

    /// The deadline has come. What arrived before it is heard first; where we do not read because the core is behind,
    /// the session hears that something waits (T17).
    fn tick(&mut self) {
        for conn in [Conn::Active, Conn::Passive] {
            if !self.to_core.is_full() {
                self.read(conn);
                self.settle();
            } else if self.lines.slot(conn).as_ref().is_some_and(Line::has_unread) {
                self.input(Input::Unread(conn));
            }
        }
        let now = self.now();
        if self.session.deadline().is_some_and(|at| at <= now) {
            self.input(Input::Tick);
        }
    }

    /// Brings the session to what is wanted now. True when it shall end.
    fn wanted_changed(&mut self) -> bool {
        let wanted = self.task.wanted.borrow_and_update().clone();
        if let Some(reason) = wanted.stop {
            self.input(Input::Stop(reason));
            return true;
        }
        let spec = self.session.spec();
        let signed = wanted.key.is_some() == self.key.is_some();
        if (&spec.transport, &spec.open) != (&wanted.spec.transport, &wanted.spec.open) || !signed {
            // Behind what the peer has sent until now, as far as the core can take it.
            self.read_what_came();
            self.input(Input::Replace(Box::new(wanted.spec)));
            self.settle();
        } else if spec.next != wanted.spec.next {
            self.input(Input::Reconfigure(wanted.spec.next));
        }
        if wanted.restarting != self.restarting {
            self.restarting = wanted.restarting;
            self.input(Input::Restarting(wanted.restarting));
        }
        self.show_shadow(wanted.shadowed);
        if wanted.key != self.key {
            self.key = wanted.key;
            self.rekey();
        }
        false
    }

    fn show_shadow(&self, shadowed: Option<Shadowed>) {
        self.task.view.send_if_modified(|view| {
            let news = view.shadowed != shadowed;
            view.shadowed = shadowed;
            news
        });
    }

    /// A key that was exchanged for another is set on what is open; the session stays (T11).
    fn rekey(&mut self) {
        let Some(key) = &self.key else { return };
        let host = IpPrefix::host(self.session.spec().transport.peer);
        for line in [&self.lines.active, &self.lines.passive].into_iter().flatten() {
            if let Err(error) = sockopt::set_md5_key(line.stream(), host, key.expose()) {
                warn!(peer = %self.task.name, %error, "cannot set the new key on the open connection");
            }
        }
    }
}

async fn dialled(dialling: &mut Option<Dialling>) -> Woke {
    match dialling {
        Some(Dialling::Queued(turn)) => Woke::Turn(turn.await),
        Some(Dialling::Connecting(stream)) => Woke::Dialled(stream.await),
        None => std::future::pending().await,
    }
}

async fn taken(credit: &mut Option<oneshot::Receiver<()>>) {
    if let Some(credit) = credit {
        // Either way the core is done with the batch.
        let _ = credit.await;
    }
}
