//! The Established state: what keeps it up, what comes in, and how it ends.
//!
//! Owns: hold, keepalive and send hold timers (RFC 4271 §4.4, RFC 9687, T1, T17), UPDATE and End-of-RIB, route refresh
//! and its markers both ways (RFC 2918, RFC 7313, W55), the prefix limit (T18), a second connection beside the session
//! (BGP-13, BGP-30, T4), and what a loss means for the peer's routes (BGP-29 to BGP-33, RFC 8538). Never: sends an
//! UPDATE; the shell writes those that the table gives it.

use bytes::Bytes;

use crate::prefix::Afi;
use crate::session::collision::{Other, Side, Verdict, dominant, on_open};
use crate::session::fsm::{Challenger, Refreshes, State, Up, Wait};
use crate::session::gr::{End, Loss};
use crate::session::limits::PrefixLimit;
use crate::session::machine::{ConnectionEnd, SETTLED, Session};
use crate::session::negotiate::{Agreed, negotiate};
use crate::session::timers::Timer;
use crate::session::{Conn, DownReason, Endpoints, Event, MaxPrefix, Output, StopReason, codec};
use crate::time::Millis;
use crate::wire::frame::Kind;
use crate::wire::refresh::RefreshKind;
use crate::wire::{Decoded, Fault, Message, Notification, Open, RouteRefresh, Update, decode};

/// A tick that comes this much after the hold timer's end means that we were asleep, not the peer (T17).
const ASLEEP: Millis = Millis(500);
/// How long routes stay stale after a BoRR without EoRR, in seconds (RFC 7313 §4).
const REFRESH_LIMIT: u16 = 360;

/// How many octets people are shown of an UPDATE with an error.
const EXCERPT: usize = 24;
/// How many of them stand before the fault: as many as an attribute has before its value.
pub(super) const LEAD: u16 = 4;

/// Puts a hold timer off by a second, once, if its tick comes so late that we were asleep and not the peer.
pub(super) fn put_off(hold: &mut Timer, late: &mut bool, now: Millis) -> bool {
    let grants = !*late && now - hold.until >= ASLEEP;
    if grants {
        *late = true;
        hold.until = now + Millis::secs(1);
    }
    grants
}

impl Up {
    pub(super) fn new(
        conn: Conn,
        now: Millis,
        agreed: Box<Agreed>,
        hold: Option<Timer>,
        keepalive: Option<Timer>,
        limit: Option<PrefixLimit>,
    ) -> Self {
        Up {
            conn,
            since: now,
            agreed,
            hold,
            late: false,
            keepalive,
            send_hold: None,
            limit,
            v4: Refreshes::new(now),
            v6: Refreshes::new(now),
            challenger: None,
        }
    }

    /// A refresh of the peer's routes is over, by EoRR or by its time: what was not announced again goes, and counts no
    /// more.
    fn refresh_ends(&mut self, afi: Afi, out: &mut Vec<Output>) {
        self.refreshes(afi).stale = None;
        if let Some(limit) = &mut self.limit {
            limit.refresh_ends(afi);
        }
        out.push(Output::SweepStale(afi));
    }
}

/// Cease/9 around another NOTIFICATION: what is meant to end the session for good where the plain form would be taken
/// for a graceful one (RFC 8538 §3, §5).
fn hard_reset(inner: &Notification) -> Notification {
    let mut data = vec![inner.code, inner.subcode];
    data.extend_from_slice(&inner.data);
    Notification { code: 6, subcode: 9, data: data.into() }
}

/// What the table is to do with the routes of a session that has ended.
fn tell_loss(loss: Loss, out: &mut Vec<Output>) {
    match loss {
        Loss::Drop => out.push(Output::Down),
        Loss::Keep { sweep, keep } => {
            out.extend(sweep.iter().map(Output::SweepStale));
            out.push(Output::Stale(keep));
        }
    }
}

impl Session {
    // ---- messages

    pub(super) fn established_frame(&mut self, now: Millis, frame: &[u8], out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        if let Some(hold) = &mut up.hold {
            *hold = Timer::jittered(now, hold.nominal, &mut self.jitter);
            up.late = false;
        }
        let conn = up.conn;
        match decode(frame, &up.agreed.public.context) {
            Ok(Decoded { message: Message::Update(update), faults, not_negotiated }) => {
                self.record.counters.ignored_updates += u64::from(!not_negotiated.is_empty());
                if let Some(worst) = faults.iter().max_by_key(|fault| fault.action) {
                    self.faulty(now, *worst, frame, out);
                }
                self.update(now, update, out);
            }
            Ok(Decoded { message: Message::RouteRefresh(refresh), .. }) => self.refresh(now, refresh, out),
            Ok(Decoded {
                message: Message::Keepalive | Message::Open(_) | Message::Notification(_), ..
            }) => {}
            Err(fatal) => self.drop_connection(now, conn, ConnectionEnd::malformed(fatal), out),
        }
    }

    /// An UPDATE had errors. It is applied as far as RFC 7606 lets it.
    fn faulty(&mut self, now: Millis, fault: Fault, frame: &[u8], out: &mut Vec<Output>) {
        self.record.counters.faulty_updates += 1;
        if let Some(more) = self.record.faults.another(now) {
            let from = frame.get(usize::from(fault.offset.saturating_sub(LEAD))..).unwrap_or_default();
            let excerpt = Bytes::copy_from_slice(from.get(..EXCERPT).unwrap_or(from));
            self.note(now, Event::FaultyUpdate { fault, excerpt, more }, out);
        }
    }

    fn update(&mut self, now: Millis, update: Update, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        let passed = up.limit.as_mut().map(|limit| (limit.count(&update), limit.rule()));
        for (afi, rule) in
            passed.into_iter().flat_map(|(passed, rule)| passed.iter().map(move |afi| (afi, rule)))
        {
            self.note(now, Event::PrefixLimit { afi, limit: rule.limit, closed: rule.close }, out);
            if rule.close {
                return self.over_limit(now, afi, rule, out);
            }
        }
        let end_of_rib = update.end_of_rib;
        if !update.withdrawn.is_empty() || !update.reach.is_empty() {
            out.push(Output::Update(update));
        }
        if let Some(afi) = end_of_rib {
            self.end_of_rib(afi, out);
        }
    }

    fn end_of_rib(&mut self, afi: Afi, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        if !up.agreed.public.context.families.contains(afi) {
            return;
        }
        up.refreshes(afi).complete = true;
        if self.helper.end_of_rib(afi) {
            out.push(Output::SweepStale(afi));
        }
        out.push(Output::EndOfRib(afi));
    }

    /// Cease/1 with the family and the limit (RFC 4486 §4).
    fn over_limit(&mut self, now: Millis, afi: Afi, rule: MaxPrefix, out: &mut Vec<Output>) {
        let mut data = afi.code().to_be_bytes().to_vec();
        data.push(1);
        data.extend_from_slice(&rule.limit.to_be_bytes());
        let cease = Notification { code: 6, subcode: 1, data: data.into() };
        let sent = self.hardened(cease.clone());
        if let State::Up(up) = &mut self.state
            && up.challenger.take().is_some()
        {
            out.push(Output::Close(up.free()));
        }
        self.drop_established(now, ConnectionEnd::Sent(sent, DownReason::Sent(cease)), out);
        // Nothing is tried before the time that was set for this.
        let timer = rule.restart.map(|secs| Timer::jittered(now, secs, &mut self.jitter));
        self.state = State::Waiting(Wait::Limit(timer));
    }

    fn refresh(&mut self, now: Millis, refresh: RouteRefresh, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        let negotiated = &up.agreed.public;
        let afi = refresh.family.unicast().filter(|afi| negotiated.context.families.contains(*afi));
        let (Some(afi), true) = (afi, negotiated.refresh) else {
            self.record.counters.ignored_refreshes += 1;
            return;
        };
        let (marks, waits_for_eor) = (negotiated.enhanced_refresh, negotiated.graceful.contains(afi));
        let state = up.refreshes(afi);
        match refresh.kind {
            RefreshKind::Request => {
                // Only the last of a flood matters: it is answered when there is a token again.
                if state.serve(now) {
                    out.push(Output::RefreshRequested(afi));
                }
            }
            // Before End-of-RIB the routes are already on trial (RFC 7313 §4).
            RefreshKind::Begin if marks && (state.complete || !waits_for_eor) && state.begun.take(now) => {
                state.stale = Some(Timer::exact(now, REFRESH_LIMIT));
                if let Some(limit) = &mut up.limit {
                    limit.refresh_begins(afi);
                }
                out.push(Output::MarkStale(afi));
            }
            RefreshKind::End if state.stale.is_some() => up.refresh_ends(afi, out),
            RefreshKind::Begin | RefreshKind::End | RefreshKind::Unknown(_) => {
                self.record.counters.ignored_refreshes += 1;
            }
        }
    }

    pub(super) fn request_refresh(&mut self, now: Millis, afi: Afi, out: &mut Vec<Output>) {
        let State::Up(up) = &self.state else { return };
        let negotiated = &up.agreed.public;
        if !negotiated.context.families.contains(afi) {
            return;
        }
        let conn = up.conn;
        if negotiated.refresh {
            let request = RouteRefresh { family: afi.into(), kind: RefreshKind::Request };
            return self.send(conn, Kind::RouteRefresh, codec::refresh(request), out);
        }
        // The peer cannot send its routes again: only a new session brings them (BGP-35), gracefully where that holds.
        if negotiated.graceful.is_empty() {
            self.drop_established(now, ConnectionEnd::sent(Notification::new(6, 6)), out);
        } else {
            out.push(Output::Close(conn));
            let reason = DownReason::Stopped(StopReason::Reconfigured);
            self.leave_established(now, End::Graceful, false, reason, out);
        }
    }

    // ---- the second connection

    /// A new connection of the peer beside the established session.
    pub(super) fn challenge(&mut self, now: Millis, ends: Endpoints, out: &mut Vec<Output>) {
        let hold = self.silence_timer(now);
        let State::Up(up) = &mut self.state else { return };
        let slot = up.free();
        if up.challenger.replace(Challenger { ends, hold }).is_some() {
            out.push(Output::Close(slot));
        }
        out.push(Output::Accept(slot));
    }

    pub(super) fn drop_challenger(&mut self, now: Millis, end: ConnectionEnd, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        if up.challenger.take().is_some() {
            let slot = up.free();
            self.close_connection(now, slot, end, out);
        }
    }

    /// The new connection speaks BGP and its OPEN has come.
    pub(super) fn challenger_opened(&mut self, now: Millis, conn: Conn, open: Open, out: &mut Vec<Output>) {
        let ours = self.our_open();
        let State::Up(up) = &mut self.state else { return };
        let Some(challenger) = &up.challenger else { return };
        let agreed = match negotiate(&self.spec.open, &self.spec.next, &ours, open, conn, challenger.ends) {
            Ok(agreed) => agreed,
            Err(refused) => {
                let end = ConnectionEnd::Refused(refused.notification, refused.reason);
                return self.drop_challenger(now, end, out);
            }
        };
        let us = (self.spec.open.router_id, self.spec.open.local_asn);
        let strong = dominant(us, (agreed.public.peer_id, agreed.public.peer_asn));
        let standing = Other::Established {
            graceful: !up.agreed.public.graceful.is_empty(),
            settled: now - up.since >= SETTLED,
        };
        if on_open(Side::Peer, standing, strong) != Verdict::TakeOver {
            return self.drop_challenger(now, ConnectionEnd::sent(Notification::new(6, 7)), out);
        }
        let (ends, old) = (challenger.ends, up.conn);
        up.challenger = None;
        out.push(Output::Close(old));
        self.leave_established(now, End::Graceful, false, DownReason::Restarted, out);
        self.replace_by(now, conn, ends, agreed, out);
    }

    // ---- ends

    /// The connection of the established session is over.
    pub(super) fn drop_established(&mut self, now: Millis, end: ConnectionEnd, out: &mut Vec<Output>) {
        let State::Up(up) = &self.state else { return };
        let graceful = match &end {
            ConnectionEnd::Closed(_) => true,
            ConnectionEnd::Sent(n, _) | ConnectionEnd::Refused(n, _) | ConnectionEnd::Received(n) => {
                up.agreed.notification_gr && (n.code, n.subcode) != (6, 9)
            }
        };
        let conn = up.conn;
        let error = end.is_protocol_error();
        let reason = self.close_connection(now, conn, end, out);
        let end = if graceful { End::Graceful } else { End::Final };
        self.leave_established(now, end, error, reason, out);
    }

    /// What follows from the end of an established session; its connection has been dealt with.
    fn leave_established(
        &mut self,
        now: Millis,
        end: End,
        error: bool,
        reason: DownReason,
        out: &mut Vec<Output>,
    ) {
        let State::Up(up) = &mut self.state else { return };
        if now - up.since >= SETTLED {
            self.pauses = 0;
        }
        let terms = up.agreed.terms();
        let (slot, challenger) = (up.free(), up.challenger.take());
        let loss = self.helper.session_down(now, end, terms);
        tell_loss(loss, out);
        self.note_down(now, reason, out);
        if let Loss::Keep { keep, .. } = loss {
            self.note(now, Event::PeerRestarting(keep), out);
            // Where the peer asked for no restart time, the long-lived period begins here.
            self.tick_helper(now, out);
        }
        if error {
            if challenger.is_some() {
                out.push(Output::Close(slot));
            }
            self.error_wait(now);
        } else {
            self.reopen(now, challenger.map(|c| (slot, c.ends)), out);
        }
    }

    /// Ends the established session because the peer is not wanted any more, or not in this form.
    pub(super) fn stop_up(
        &mut self,
        now: Millis,
        mut up: Up,
        reason: StopReason,
        end: End,
        cease: Option<Notification>,
        out: &mut Vec<Output>,
    ) {
        let slot = up.free();
        if up.challenger.take().is_some() {
            out.push(Output::Close(slot));
        }
        let negotiated = &up.agreed.public;
        let cease = match (cease, reason) {
            (Some(cease), _) => Some(cease),
            // The peer keeps our routes if it is told nothing (BGP-33, BGP-37).
            (None, _) if !negotiated.graceful.is_empty() => None,
            (None, StopReason::Exit) => Some(codec::cease(2, "")),
            (None, _) => Some(codec::cease(6, "")),
        };
        if let Some(plain) = cease {
            let for_good = matches!(reason, StopReason::Deconfigured | StopReason::AdminDown);
            let sent = if for_good && up.agreed.notification_gr { hard_reset(&plain) } else { plain };
            self.notify(now, up.conn, sent, out);
        }
        out.push(Output::Close(up.conn));
        let loss = self.helper.session_down(now, end, up.agreed.terms());
        tell_loss(loss, out);
    }

    /// A NOTIFICATION that is to end the session for good, in the form that the peer takes for that.
    fn hardened(&self, notification: Notification) -> Notification {
        match &self.state {
            State::Up(up) if up.agreed.notification_gr => hard_reset(&notification),
            _ => notification,
        }
    }

    // ---- time and the socket

    pub(super) fn tick_up(&mut self, now: Millis, out: &mut Vec<Output>) {
        let State::Up(up) = &mut self.state else { return };
        let conn = up.conn;
        if let Some(hold) = &mut up.hold
            && hold.is_due(now)
            && !put_off(hold, &mut up.late, now)
        {
            return self.hold_expired(now, conn, out);
        }
        if up.send_hold.is_some_and(|timer| timer.is_due(now)) {
            let end = ConnectionEnd::Sent(Notification::new(8, 0), DownReason::SendHoldExpired);
            return self.drop_connection(now, conn, end, out);
        }
        if up.challenger.as_ref().is_some_and(|c| c.hold.is_due(now)) {
            up.challenger = None;
            out.push(Output::Close(up.free()));
        }
        for afi in Afi::ALL {
            if up.refreshes(afi).stale.is_some_and(|timer| timer.is_due(now)) {
                up.refresh_ends(afi, out);
            }
            let state = up.refreshes(afi);
            if state.owed.is_some_and(|at| at <= now) && state.serve(now) {
                out.push(Output::RefreshRequested(afi));
            }
        }
        if up.keepalive.is_some_and(|timer| timer.is_due(now)) {
            let (hold_time, blocked) = (up.agreed.public.hold_time, up.send_hold.is_some());
            let timer = self.keepalive_timer(now, hold_time);
            if let State::Up(up) = &mut self.state {
                up.keepalive = timer;
            }
            // Behind bytes that do not leave, more of them help nobody.
            if !blocked {
                self.send(conn, Kind::Keepalive, codec::keepalive(), out);
            }
        }
    }

    /// Input of the peer waits to be read: it is alive, whatever the clock says (T17).
    pub(super) fn unread(&mut self, now: Millis, conn: Conn) {
        if let State::Up(up) = &mut self.state
            && up.conn == conn
            && let Some(hold) = &mut up.hold
        {
            let third = Millis(Millis::secs(hold.nominal.into()).0 / 3);
            hold.until = hold.until.max(now + third);
        }
    }

    pub(super) fn wrote(&mut self, conn: Conn) {
        if let State::Up(up) = &mut self.state
            && up.conn == conn
        {
            up.send_hold = None;
        }
    }

    pub(super) fn blocked(&mut self, now: Millis, conn: Conn) {
        let configured = self.spec.next.send_hold;
        if let State::Up(up) = &mut self.state
            && up.conn == conn
            && up.send_hold.is_none()
        {
            // RFC 9687 §4: eight minutes or twice the hold time. A shorter setting is taken as it is.
            let hold_time = up.agreed.public.hold_time;
            up.send_hold = configured.map(|secs| {
                let secs = if secs >= 480 { secs.max(hold_time.saturating_mul(2)) } else { secs };
                Timer::exact(now, secs.max(1))
            });
        }
    }
}
