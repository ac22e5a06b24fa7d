//! The session: RFC 4271 §8 for one peer with up to two connections.
//!
//! Owns: [`Session`], its inputs, starting and stopping, the dial, waits and back-off (BGP-9 to BGP-12). Never: the
//! exchange of OPENs, which is in [`super::opening`]; the established state's own work, which is in
//! [`super::established`]; sockets; clocks.
//!
//! Nothing here can fail: a fault becomes a NOTIFICATION in the output and a reason in the status.

use bytes::Bytes;

use crate::prefix::AfiSet;
use crate::session::fsm::{Dial, Link, Opening, Stage, State, Wait, admit};
use crate::session::gr::{End, Expired, Helper};
use crate::session::record::Record;
use crate::session::timers::{Jitter, Timer, earliest};
use crate::session::{
    CloseCause, Conn, DialError, DownReason, Event, Input, NextOpen, Output, PeerSpec, StopReason, codec,
};
use crate::time::Millis;
use crate::wire::frame::Kind;
use crate::wire::{Fatal, Notification, decode_open};

/// A session younger than this does not take a new connection for a restart of the peer: it is more likely what a
/// simultaneous open has left behind.
pub(super) const SETTLED: Millis = Millis::secs(5);

/// The first pause between dials; each one after is twice as long, up to the connect delay. Two ends hear of each
/// other at slightly different times, and one that restarts is back soon: whole connect delays from the first end
/// on would be most of the time that a session takes to come up.
const FIRST_PAUSE: Millis = Millis(100);

/// One peer as a pure machine. See the [module](super) for how a shell drives it.
#[derive(Clone, Debug)]
pub struct Session {
    pub(super) spec: PeerSpec,
    pub(super) jitter: Jitter,
    pub(super) state: State,
    pub(super) helper: Helper,
    pub(super) restarting: AfiSet,
    /// Until it is up: it takes the place of a session that was.
    pub(super) successor: bool,
    /// The peer refused our capabilities: the next OPEN has none (BGP-15).
    pub(super) plain: bool,
    backoff: Backoff,
    pub(super) hurry: Hurry,
    /// Pauses between dials since the start, or since a session that held.
    pub(super) pauses: u8,
    /// The pause before the next dial has been put off for a connection of the peer. Once is enough: who connects
    /// again and again and says nothing must not keep us from dialling.
    pub(super) yielded: bool,
    pub(super) record: Record,
}

/// Back-off after protocol errors (BGP-2, BGP-11).
#[derive(Clone, Debug, Default)]
struct Backoff {
    secs: u16,
    last: Option<Millis>,
}

impl Backoff {
    /// Counts an error and says how long to wait, in seconds.
    fn next(&mut self, now: Millis, next: &NextOpen) -> u16 {
        let (first, last) = next.error_wait;
        let forget = Millis::secs(next.error_forget.into());
        let anew = self.secs == 0 || self.last.is_none_or(|at| now - at >= forget);
        self.last = Some(now);
        self.secs = if anew { first } else { self.secs.saturating_mul(2).min(last) };
        self.secs
    }
}

/// A collision must not cost a pause: if the connection that was kept comes to nothing, the next dial goes out at once,
/// though not more often than once in a connect delay.
#[derive(Clone, Debug, Default)]
pub(super) struct Hurry {
    pub(super) due: bool,
    last: Option<Millis>,
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// We end it with this; the reason is what people are told.
    Sent(Notification, DownReason),
    /// We end it with this because the peer's OPEN, which is one, asks for what cannot be.
    Refused(Notification, DownReason),
    /// The peer ended it with this.
    Received(Notification),
    /// TCP ended.
    Closed(CloseCause),
}

impl ConnectionEnd {
    pub(super) fn sent(notification: Notification) -> Self {
        ConnectionEnd::Sent(notification.clone(), DownReason::Sent(notification))
    }

    /// The message of the peer cannot be taken.
    pub(super) fn malformed(fatal: Fatal) -> Self {
        let Fatal { notification, fault, .. } = fatal;
        ConnectionEnd::Sent(notification.clone(), DownReason::Malformed { sent: notification, fault })
    }

    /// Any NOTIFICATION but Cease, in either direction.
    pub(super) fn is_protocol_error(&self) -> bool {
        match self {
            ConnectionEnd::Sent(n, _) | ConnectionEnd::Refused(n, _) | ConnectionEnd::Received(n) => {
                n.code != 6
            }
            ConnectionEnd::Closed(_) => false,
        }
    }
}

impl Session {
    /// A session that is not started.
    ///
    /// `seed` spreads the timers; give each session another. `restarting`: families whose forwarding state survived
    /// our own restart, announced with the R and F bits until [`Input::Restarting`] says otherwise (RFC 4724 §4.1);
    /// [`AfiSet::EMPTY`] on a first start.
    pub fn new(spec: PeerSpec, seed: u64, restarting: AfiSet) -> Self {
        Session {
            spec,
            jitter: Jitter::new(seed),
            state: State::Down,
            helper: Helper::default(),
            restarting,
            successor: false,
            plain: false,
            backoff: Backoff::default(),
            hurry: Hurry::default(),
            pauses: 0,
            yielded: false,
            record: Record::default(),
        }
    }

    /// What the session was made with, as last reconfigured.
    pub fn spec(&self) -> &PeerSpec {
        &self.spec
    }

    /// Takes one input. What is to be done is appended to `out`, in order.
    pub fn handle(&mut self, now: Millis, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Start => self.start(now, out),
            Input::Stop(reason) => self.stop(now, reason, "", out),
            Input::Shutdown(reason, text) => self.stop(now, reason, text, out),
            Input::Reconfigure(next) => self.reconfigure(next, out),
            Input::Replace(spec) => self.replace(now, *spec, out),
            Input::Restarting(families) => self.restarting = families,
            Input::Connected(conn, ends) => self.connected(now, conn, ends, out),
            Input::DialStarted => self.dial_started(now),
            Input::DialFailed(error) => self.dial_failed(now, error, out),
            Input::Frame(conn, frame) => self.frame(now, conn, frame, out),
            Input::BadFrame(conn, notification) => {
                if self.stage(conn).is_some() {
                    self.drop_connection(now, conn, ConnectionEnd::sent(notification), out);
                }
            }
            Input::Closed(conn, cause) => self.drop_connection(now, conn, ConnectionEnd::Closed(cause), out),
            Input::Unread(conn) => self.unread(now, conn),
            Input::Wrote(conn) => self.wrote(conn),
            Input::Blocked(conn) => self.blocked(now, conn),
            Input::RequestRefresh(afi) => self.request_refresh(now, afi, out),
            Input::Close(notification) => self.close(now, notification, out),
            Input::Tick => self.tick(now, out),
        }
    }

    /// When [`Input::Tick`] is next wanted.
    pub fn deadline(&self) -> Option<Millis> {
        let state = match &self.state {
            State::Down => None,
            State::Waiting(wait) => wait.timer().map(|t| t.until),
            State::Opening(opening) => opening.deadline(),
            State::Up(up) => up.deadline(),
        };
        earliest([state, self.helper.deadline()])
    }

    // ---- starting and stopping

    fn start(&mut self, now: Millis, out: &mut Vec<Output>) {
        if let State::Down = self.state {
            self.record.since = now;
            self.record.forget_reasons();
            self.open_up(out);
        }
    }

    /// Goes to Opening with a dial at once, unless passive.
    fn open_up(&mut self, out: &mut Vec<Output>) {
        let dial = if self.spec.next.passive { Dial::Off } else { self.dial(out) };
        self.state = State::Opening(Opening { dial, incoming: None });
    }

    fn stop(&mut self, now: Millis, reason: StopReason, text: &str, out: &mut Vec<Output>) {
        let cease = match reason {
            StopReason::Deconfigured => Some(3),
            StopReason::AdminDown => Some(2),
            StopReason::AdminReset => Some(4),
            StopReason::Reconfigured | StopReason::Exit => None,
        };
        let cease = cease.map(|subcode| codec::cease(subcode, text));
        match std::mem::replace(&mut self.state, State::Down) {
            State::Down | State::Waiting(_) => {
                self.drop_kept(reason, out);
            }
            State::Opening(opening) => {
                self.stop_opening(now, &opening, cease, out);
                self.drop_kept(reason, out);
            }
            State::Up(up) => {
                let end = if reason == StopReason::Exit { End::Exit } else { End::Final };
                self.stop_up(now, *up, reason, end, cease, out);
            }
        }
        self.begin_anew(now, reason, out);
        if reason == StopReason::AdminReset {
            self.open_up(out);
        }
    }

    /// Gives up what has not come to a session.
    fn stop_opening(
        &mut self,
        now: Millis,
        opening: &Opening,
        cease: Option<Notification>,
        out: &mut Vec<Output>,
    ) {
        if let Dial::Dialing(_) = opening.dial {
            out.push(Output::AbortDial);
        }
        for conn in [Conn::Active, Conn::Passive] {
            if opening.link(conn).is_some() {
                if let Some(cease) = &cease {
                    self.notify(now, conn, cease.clone(), out);
                }
                out.push(Output::Close(conn));
            }
        }
    }

    /// Forgets what attempts and errors of the past mean for the next attempt.
    fn begin_anew(&mut self, now: Millis, reason: StopReason, out: &mut Vec<Output>) {
        self.plain = false;
        self.hurry = Hurry::default();
        self.pauses = 0;
        self.backoff = Backoff::default();
        self.record.since = now;
        self.note_down(now, DownReason::Stopped(reason), out);
    }

    /// Another AS, router id or transport: this session ends so that the peer keeps our routes where it can (BGP-37), its
    /// own stay until the successor has brought them again, and the successor begins after the shortest pause, so that
    /// its connection meets nothing of the old one at the peer.
    fn replace(&mut self, now: Millis, spec: PeerSpec, out: &mut Vec<Output>) {
        let was_up = matches!(self.state, State::Up(_));
        match std::mem::replace(&mut self.state, State::Down) {
            State::Down => {
                self.spec = spec;
                return;
            }
            State::Waiting(_) => {}
            State::Opening(opening) => self.stop_opening(now, &opening, None, out),
            State::Up(up) => {
                self.stop_up(now, *up, StopReason::Reconfigured, End::Replaced, None, out);
            }
        }
        self.successor |= self.helper.replace() || was_up;
        self.spec = spec;
        self.begin_anew(now, StopReason::Reconfigured, out);
        let dial = if self.spec.next.passive { Dial::Off } else { self.pause(now) };
        self.state = State::Opening(Opening { dial, incoming: None });
    }

    /// Routes kept for a peer that is away go with the session, but for the end of the process: that withdraws nothing.
    fn drop_kept(&mut self, reason: StopReason, out: &mut Vec<Output>) {
        if self.helper.clear() && reason != StopReason::Exit {
            out.push(Output::Down);
        }
    }

    fn reconfigure(&mut self, next: NextOpen, out: &mut Vec<Output>) {
        let old = std::mem::replace(&mut self.spec.next, next);
        let limit_changed = old.max_prefix != self.spec.next.max_prefix;
        match &mut self.state {
            State::Waiting(Wait::Limit(_)) if limit_changed => self.open_up(out),
            State::Opening(opening) if self.spec.next.passive => match opening.dial {
                Dial::Dialing(_) => {
                    out.push(Output::AbortDial);
                    opening.dial = Dial::Off;
                }
                Dial::Pause(_) => opening.dial = Dial::Off,
                Dial::Off | Dial::Open(_) => {}
            },
            State::Opening(Opening { dial: Dial::Off, incoming: None }) => self.open_up(out),
            State::Up(up) if limit_changed => {
                // A limit that is new waits for the next session: what came before was not counted.
                let rule = self.spec.next.max_prefix;
                up.limit = up.limit.take().zip(rule).map(|(limit, rule)| limit.with_rule(rule));
            }
            State::Down | State::Waiting(_) | State::Opening(_) | State::Up(_) => {}
        }
    }

    // ---- dialling

    pub(super) fn dial(&mut self, out: &mut Vec<Output>) -> Dial {
        self.record.counters.dials += 1;
        self.yielded = false;
        out.push(Output::Dial);
        Dial::Dialing(None)
    }

    /// The next attempt after one that failed: after the connect delay, or at once where a collision took the last.
    pub(super) fn redial(&mut self, now: Millis, out: &mut Vec<Output>) -> Dial {
        if self.spec.next.passive {
            return Dial::Off;
        }
        let delay = Millis::secs(self.spec.next.connect_delay.max(1).into());
        if std::mem::take(&mut self.hurry.due) && self.hurry.last.is_none_or(|at| now - at >= delay) {
            self.hurry.last = Some(now);
            return self.dial(out);
        }
        self.pause(now)
    }

    pub(super) fn pause(&mut self, now: Millis) -> Dial {
        let delay = Millis::secs(self.spec.next.connect_delay.max(1).into());
        let span = Millis(FIRST_PAUSE.0.checked_shl(self.pauses.into()).unwrap_or(u64::MAX)).min(delay);
        if span < delay {
            self.pauses += 1;
        }
        Dial::Pause(Timer::spread(now, span, &mut self.jitter))
    }

    fn dial_started(&mut self, now: Millis) {
        let timer = Timer::jittered(now, self.spec.next.connect_retry, &mut self.jitter);
        if let State::Opening(Opening { dial: Dial::Dialing(until @ None), .. }) = &mut self.state {
            *until = Some(timer);
        }
    }

    fn dial_failed(&mut self, now: Millis, error: DialError, out: &mut Vec<Output>) {
        if let State::Opening(Opening { dial: Dial::Dialing(_), .. }) = self.state {
            let dial = self.pause(now);
            if let State::Opening(opening) = &mut self.state {
                opening.dial = dial;
            }
            self.note_down(now, DownReason::Dial(error), out);
        }
    }

    /// What a connection is at; `None` if there is none in that slot.
    pub(super) fn stage(&self, conn: Conn) -> Option<Stage> {
        match &self.state {
            State::Down | State::Waiting(_) => None,
            State::Opening(opening) => opening.link(conn).map(Link::stage),
            State::Up(up) if up.conn == conn => Some(Stage::Established),
            State::Up(up) => up.challenger.as_ref().map(|_| Stage::Challenger),
        }
    }

    fn frame(&mut self, now: Millis, conn: Conn, frame: &[u8], out: &mut Vec<Output>) {
        let Some(stage) = self.stage(conn) else { return };
        let kind = match codec::kind(frame) {
            Ok(kind) => kind,
            Err(notification) => {
                return self.drop_connection(now, conn, ConnectionEnd::sent(notification), out);
            }
        };
        self.record.counters.received.count(kind);
        if let Err(notification) = admit(stage, kind) {
            return self.drop_connection(now, conn, ConnectionEnd::sent(notification), out);
        }
        match (stage, kind) {
            (_, Kind::Notification) => {
                self.drop_connection(
                    now,
                    conn,
                    ConnectionEnd::Received(codec::read_notification(frame)),
                    out,
                );
            }
            (Stage::Challenger | Stage::OpenSent, _) => match decode_open(frame) {
                Ok(open) if stage == Stage::Challenger => self.challenger_opened(now, conn, open, out),
                Ok(open) => self.opened(now, conn, open, out),
                Err(fatal) => self.drop_connection(now, conn, ConnectionEnd::malformed(fatal), out),
            },
            (Stage::OpenConfirm, _) => self.confirmed(now, conn, out),
            (Stage::Held, Kind::Keepalive) => {}
            (Stage::Held, _) => {
                // The peer holds this connection for Established, so it is.
                self.establish(now, conn, out);
                self.established_frame(now, frame, out);
            }
            (Stage::Established, _) => self.established_frame(now, frame, out),
        }
    }

    // ---- ends

    /// A connection is over, whatever it was at.
    pub(super) fn drop_connection(
        &mut self,
        now: Millis,
        conn: Conn,
        end: ConnectionEnd,
        out: &mut Vec<Output>,
    ) {
        match self.stage(conn) {
            None => {}
            Some(Stage::Established) => self.drop_established(now, end, out),
            Some(Stage::Challenger) => self.drop_challenger(now, end, out),
            Some(Stage::OpenSent | Stage::OpenConfirm | Stage::Held) => {
                self.drop_opening(now, conn, end, out);
            }
        }
    }

    pub(super) fn error_wait(&mut self, now: Millis) {
        let secs = self.backoff.next(now, &self.spec.next);
        self.plain = false;
        self.record.since = now;
        self.state = State::Waiting(Wait::Error(Timer::jittered(now, secs, &mut self.jitter)));
    }

    /// Sends what a end wants sent, closes what it wants closed, and gives the reason to tell.
    pub(super) fn close_connection(
        &mut self,
        now: Millis,
        conn: Conn,
        end: ConnectionEnd,
        out: &mut Vec<Output>,
    ) -> DownReason {
        match end {
            ConnectionEnd::Sent(notification, reason) | ConnectionEnd::Refused(notification, reason) => {
                self.notify(now, conn, notification, out);
                out.push(Output::Close(conn));
                reason
            }
            ConnectionEnd::Received(notification) => {
                out.push(Output::Close(conn));
                self.record.notified = Some((now, notification.clone()));
                DownReason::Received(notification)
            }
            ConnectionEnd::Closed(cause) => DownReason::Closed(cause),
        }
    }

    fn close(&mut self, now: Millis, notification: Notification, out: &mut Vec<Output>) {
        match &self.state {
            State::Down | State::Waiting(_) => {}
            State::Up(_) => self.drop_established(now, ConnectionEnd::sent(notification), out),
            State::Opening(_) => {
                for conn in [Conn::Active, Conn::Passive] {
                    self.drop_connection(now, conn, ConnectionEnd::sent(notification.clone()), out);
                }
            }
        }
    }

    // ---- time

    fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        self.tick_helper(now, out);
        match &self.state {
            State::Down => {}
            State::Waiting(wait) => {
                if wait.timer().is_some_and(|timer| timer.is_due(now)) {
                    self.record.since = now;
                    self.open_up(out);
                }
            }
            State::Opening(_) => {
                self.tick_dial(now, out);
                self.tick_link(now, Conn::Active, out);
                self.tick_link(now, Conn::Passive, out);
            }
            State::Up(_) => {}
        }
        // A connection that has waited for another may just have come up, with a keepalive due.
        self.tick_up(now, out);
    }

    /// Does what the timers of graceful restart say.
    pub(super) fn tick_helper(&mut self, now: Millis, out: &mut Vec<Output>) {
        while let Some(expired) = self.helper.tick(now) {
            let gone = match expired {
                Expired::Gone => {
                    out.push(Output::Down);
                    self.note(now, Event::RestartTimedOut, out);
                    continue;
                }
                Expired::Stale(families) => families,
                Expired::LongLived { gone, kept } => {
                    out.push(Output::LongLivedStale(kept));
                    self.note(now, Event::LongLivedStale(kept), out);
                    gone
                }
            };
            out.extend(gone.iter().map(Output::SweepStale));
        }
    }

    fn tick_dial(&mut self, now: Millis, out: &mut Vec<Output>) {
        let State::Opening(opening) = &self.state else { return };
        match opening.dial {
            Dial::Dialing(Some(timer)) if timer.is_due(now) => {
                out.push(Output::AbortDial);
                self.note_down(now, DownReason::Dial(DialError::Timeout), out);
            }
            Dial::Pause(timer) if timer.is_due(now) => {}
            _ => return,
        }
        let dial = self.dial(out);
        if let State::Opening(opening) = &mut self.state {
            opening.dial = dial;
        }
    }

    pub(super) fn hold_expired(&mut self, now: Millis, conn: Conn, out: &mut Vec<Output>) {
        let end = ConnectionEnd::Sent(Notification::new(4, 0), DownReason::HoldExpired);
        self.drop_connection(now, conn, end, out);
    }

    // ---- telling

    /// Hands bytes to the connection and counts them.
    pub(super) fn send(&mut self, conn: Conn, kind: Kind, bytes: Bytes, out: &mut Vec<Output>) {
        self.record.counters.sent.count(kind);
        out.push(Output::Send(conn, bytes));
    }

    pub(super) fn notify(
        &mut self,
        now: Millis,
        conn: Conn,
        notification: Notification,
        out: &mut Vec<Output>,
    ) {
        self.send(conn, Kind::Notification, codec::notification(&notification), out);
        self.record.notifying = Some((now, notification));
    }

    pub(super) fn note(&mut self, now: Millis, event: Event, out: &mut Vec<Output>) {
        self.record.history.push(now, event.clone());
        out.push(Output::Event(event));
    }

    /// Remembers why the session is down. The same reason again is no news: a peer that is
    /// away for a day gives one line.
    pub(super) fn note_down(&mut self, now: Millis, reason: DownReason, out: &mut Vec<Output>) {
        if reason.is_of_bgp() {
            self.record.spoken = Some((now, reason.clone()));
        }
        if self.record.last.as_ref() != Some(&reason) {
            self.record.last = Some(reason.clone());
            self.note(now, Event::Down(reason), out);
        }
    }
}
