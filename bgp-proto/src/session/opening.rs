//! From a TCP connection to Established: OPENs, collisions, and what a end on the way leads to.
//!
//! Owns: the transitions of the states Connect, OpenSent and OpenConfirm of both connections (RFC 4271 §8.2.2, §6.8,
//! BGP-10 to BGP-15). Never: decides a collision itself ([`super::collision`]) or what is agreed on
//! ([`super::negotiate`]).

use bytes::Bytes;

use crate::prefix::{Afi, AfiSet};
use crate::session::collision::{Other, Side, Verdict, dominant, holds_back, on_open};
use crate::session::established::put_off;
use crate::session::fsm::{Dial, Link, OpenConfirm, OpenSent, Opening, Stage, State, Up, other};
use crate::session::limits::PrefixLimit;
use crate::session::machine::{ConnectionEnd, Session};
use crate::session::negotiate::{Agreed, OpenMood, build_open, negotiate};
use crate::session::timers::Timer;
use crate::session::{Conn, Endpoints, Event, Output, codec};
use crate::time::Millis;
use crate::wire::frame::Kind;
use crate::wire::{Notification, Open};

/// How long a connection that could be Established waits for a stronger one ([`holds_back`]).
const HOLD_BACK: Millis = Millis::secs(1);

/// How long a connection may stand without an OPEN where another of the same peer is further on, in seconds. The OPEN
/// is the first thing that a speaker sends; a port scan, a host that half died or the rest of a simultaneous open must
/// not hold the second slot for as long as an only connection may take (RFC 4271's large hold time of four minutes).
const SILENT: u16 = 5;
/// How long a peer may take to answer our OPEN before a newer connection of it, whoever dialled it, takes the place of
/// this one. There are speakers that keep the weaker connection of a collision and leave the stronger one open and
/// unread; only the hold timer would tell.
const MUTE: Millis = Millis::secs(5);

/// Cease/7, connection collision resolution.
const COLLISION: Notification = Notification::new(6, 7);

impl Session {
    pub(super) fn connected(&mut self, now: Millis, conn: Conn, ends: Endpoints, out: &mut Vec<Output>) {
        match (&mut self.state, conn) {
            (State::Opening(Opening { dial: dial @ Dial::Dialing(_), .. }), Conn::Active) => {
                *dial = Dial::Off;
                out.push(Output::Accept(Conn::Active));
                self.send_open(now, Conn::Active, Side::Us, ends, out);
            }
            (State::Opening(opening), Conn::Passive) => {
                // The peer dials once at a time: it has given up the connection that stands
                // in this slot, or forgotten it.
                if opening.take(Conn::Passive).is_some() {
                    self.notify(now, Conn::Passive, COLLISION, out);
                    out.push(Output::Close(Conn::Passive));
                }
                out.push(Output::Accept(Conn::Passive));
                self.send_open(now, Conn::Passive, Side::Peer, ends, out);
                self.yield_to_incoming(now);
                self.settle_held(now, out);
            }
            (State::Up(_), Conn::Passive) => self.challenge(now, ends, out),
            // An attempt that was given up while it succeeded, or a peer that must wait (BGP-6).
            _ => out.push(Output::Refuse(Bytes::new())),
        }
    }

    /// A peer that has just dialled us is about to come up: no dial of ours crosses it for a moment.
    fn yield_to_incoming(&mut self, now: Millis) {
        let later = Timer::jittered(now, self.spec.next.connect_delay, &mut self.jitter);
        if let State::Opening(Opening { dial: dial @ Dial::Pause(_), .. }) = &mut self.state
            && !std::mem::replace(&mut self.yielded, true)
        {
            *dial = Dial::Pause(later);
        }
    }

    /// Sends our OPEN on a connection whose slot is empty.
    pub(super) fn send_open(
        &mut self,
        now: Millis,
        conn: Conn,
        by: Side,
        ends: Endpoints,
        out: &mut Vec<Output>,
    ) {
        let sent = self.our_open();
        self.send(conn, Kind::Open, codec::open(&sent), out);
        let hold = Timer::jittered(now, self.spec.next.open_hold, &mut self.jitter);
        if let State::Opening(opening) = &mut self.state {
            opening.put(conn, Link::OpenSent(Box::new(OpenSent { by, ends, sent, hold })));
        }
        self.limit_silence(now, conn);
    }

    /// The time that a connection without an OPEN has beside another that is further on.
    pub(super) fn silence_timer(&mut self, now: Millis) -> Timer {
        Timer::jittered(now, self.spec.next.open_hold.min(SILENT), &mut self.jitter)
    }

    /// Gives a connection without an OPEN no more than [`SILENT`] if the other one has its OPEN.
    fn limit_silence(&mut self, now: Millis, conn: Conn) {
        let limit = self.silence_timer(now);
        if let State::Opening(opening) = &mut self.state
            && let Some(Link::OpenConfirm(_)) = opening.link(other(conn))
            && let Some(Link::OpenSent(link)) = opening.link_mut(conn)
            && limit.until < link.hold.until
        {
            link.hold = limit;
        }
    }

    pub(super) fn our_open(&self) -> Open {
        let mood = OpenMood { restarting: self.restarting, successor: self.successor, plain: self.plain };
        build_open(&self.spec.open, &self.spec.next, mood)
    }

    /// The peer's OPEN has come.
    pub(super) fn opened(&mut self, now: Millis, conn: Conn, open: Open, out: &mut Vec<Output>) {
        let State::Opening(opening) = &mut self.state else { return };
        let link = match opening.take(conn) {
            Some(Link::OpenSent(link)) => link,
            Some(link) => return opening.put(conn, link),
            None => return,
        };
        let agreed = match negotiate(&self.spec.open, &self.spec.next, &link.sent, open, conn, link.ends) {
            Ok(agreed) => agreed,
            Err(refused) => {
                opening.put(conn, Link::OpenSent(link));
                let end = ConnectionEnd::Refused(refused.notification, refused.reason);
                return self.drop_connection(now, conn, end, out);
            }
        };
        let other_conn = other(conn);
        let standing = match (opening.link(other_conn), &opening.dial) {
            (Some(Link::OpenSent(_)), _) => Some(Other::OpenSent),
            (Some(Link::OpenConfirm(other)), _) if other.held.is_some() => Some(Other::Held(other.by)),
            (Some(Link::OpenConfirm(other)), _) if now - other.since >= MUTE => Some(Other::Mute),
            (Some(Link::OpenConfirm(other)), _) => Some(Other::OpenConfirm(other.by)),
            (None, Dial::Pause(_) | Dial::Dialing(_)) if conn == Conn::Passive => Some(Other::Dialing),
            (None, _) => None,
        };
        let strong = self.dominant(&agreed);
        match standing.map_or(Verdict::KeepBoth, |other| on_open(link.by, other, strong)) {
            Verdict::KeepBoth | Verdict::TakeOver => {}
            Verdict::DropOtherQuietly => {
                self.give_up_dial(out);
            }
            Verdict::DropOther => self.drop_for_collision(now, other_conn, out),
            Verdict::DropThis => {
                self.hurry.due = true;
                self.notify(now, conn, COLLISION, out);
                out.push(Output::Close(conn));
                return;
            }
        }
        self.confirm(now, conn, link.by, agreed, out);
    }

    /// Stops dialling, because the peer's connection has got further.
    pub(super) fn give_up_dial(&mut self, out: &mut Vec<Output>) {
        let State::Opening(opening) = &mut self.state else { return };
        if let Dial::Dialing(_) = opening.dial {
            out.push(Output::AbortDial);
            self.hurry.due = true;
        }
        if let Dial::Dialing(_) | Dial::Pause(_) = opening.dial {
            opening.dial = Dial::Off;
        }
    }

    /// Closes the connection in this slot with Cease/7, if there is one.
    fn drop_for_collision(&mut self, now: Millis, conn: Conn, out: &mut Vec<Output>) {
        let State::Opening(opening) = &mut self.state else { return };
        if opening.take(conn).is_some() {
            self.hurry.due = true;
            self.notify(now, conn, COLLISION, out);
            out.push(Output::Close(conn));
        }
    }

    /// OpenConfirm: answers the peer's OPEN with a KEEPALIVE.
    pub(super) fn confirm(
        &mut self,
        now: Millis,
        conn: Conn,
        by: Side,
        agreed: Agreed,
        out: &mut Vec<Output>,
    ) {
        self.send(conn, Kind::Keepalive, codec::keepalive(), out);
        let hold_time = agreed.public.hold_time;
        let hold = if hold_time == 0 { self.spec.next.open_hold } else { hold_time };
        let hold = Timer::jittered(now, hold, &mut self.jitter);
        let keepalive = self.keepalive_timer(now, hold_time);
        let link = OpenConfirm {
            by,
            agreed: Box::new(agreed),
            since: now,
            hold,
            late: false,
            keepalive,
            held: None,
        };
        if let State::Opening(opening) = &mut self.state {
            opening.put(conn, Link::OpenConfirm(Box::new(link)));
        }
        self.limit_silence(now, other(conn));
    }

    /// A third of the hold time, or what is configured (PEER-61); none without a hold time (RFC 4271 §4.4).
    pub(super) fn keepalive_timer(&mut self, now: Millis, hold_time: u16) -> Option<Timer> {
        let interval = self.spec.next.keepalive.unwrap_or(hold_time / 3);
        (hold_time != 0).then(|| Timer::jittered(now, interval, &mut self.jitter))
    }

    fn dominant(&self, agreed: &Agreed) -> Side {
        let us = (self.spec.open.router_id, self.spec.open.local_asn);
        dominant(us, (agreed.public.peer_id, agreed.public.peer_asn))
    }

    /// The peer's KEEPALIVE has come in OpenConfirm.
    pub(super) fn confirmed(&mut self, now: Millis, conn: Conn, out: &mut Vec<Output>) {
        let State::Opening(opening) = &self.state else { return };
        let Some(Link::OpenConfirm(link)) = opening.link(conn) else { return };
        let waits = match opening.link(other(conn)) {
            Some(Link::OpenSent(other)) => holds_back(link.by, other.by, self.dominant(&link.agreed)),
            Some(Link::OpenConfirm(_)) | None => false,
        };
        if !waits {
            return self.establish(now, conn, out);
        }
        if let State::Opening(opening) = &mut self.state
            && let Some(Link::OpenConfirm(link)) = opening.link_mut(conn)
        {
            link.held = Some(now + HOLD_BACK);
        }
    }

    /// Promotes a connection that waited for another which is gone.
    fn settle_held(&mut self, now: Millis, out: &mut Vec<Output>) {
        let State::Opening(opening) = &self.state else { return };
        for conn in [Conn::Active, Conn::Passive] {
            let held = opening.link(conn).is_some_and(|link| link.stage() == Stage::Held);
            if held && opening.link(other(conn)).is_none() {
                return self.establish(now, conn, out);
            }
        }
    }

    pub(super) fn establish(&mut self, now: Millis, conn: Conn, out: &mut Vec<Output>) {
        self.give_up_dial(out);
        self.drop_for_collision(now, other(conn), out);
        let State::Opening(opening) = &mut self.state else { return };
        let link = match opening.take(conn) {
            Some(Link::OpenConfirm(link)) => link,
            Some(link) => return opening.put(conn, link),
            None => return,
        };
        self.hurry.due = false;
        self.successor = false;
        let hold_time = link.agreed.public.hold_time;
        let hold = (hold_time != 0).then(|| Timer::jittered(now, hold_time, &mut self.jitter));
        out.push(Output::Up(Box::new(link.agreed.public.clone())));
        let (families, marks_end) = (link.agreed.public.context.families, link.agreed.public.peer_graceful);
        for afi in self.helper.session_up(now, families, marks_end, link.agreed.preserved).iter() {
            out.push(Output::SweepStale(afi));
        }
        self.state = State::Up(Box::new(Up::new(
            conn,
            now,
            link.agreed,
            hold,
            link.keepalive,
            self.spec.next.max_prefix.map(PrefixLimit::new),
        )));
        self.record.since = now;
        self.record.forget_reasons();
        self.record.counters.established += 1;
        self.note(now, Event::Established, out);
    }

    pub(super) fn drop_opening(
        &mut self,
        now: Millis,
        conn: Conn,
        end: ConnectionEnd,
        out: &mut Vec<Output>,
    ) {
        let State::Opening(opening) = &mut self.state else { return };
        let (had_capabilities, by) = match opening.take(conn) {
            Some(Link::OpenSent(link)) => (!link.sent.capabilities.is_empty(), Some(link.by)),
            Some(Link::OpenConfirm(_)) | None => (false, None),
        };
        let rest = opening.link(other(conn)).map(Link::stage);
        let collision = matches!(&end, ConnectionEnd::Received(n) if (n.code, n.subcode) == (6, 7));
        // Before its OPEN nothing shows that who called is the peer: whatever else runs at its address, or behind it,
        // may have.
        let unproven = by == Some(Side::Peer) && !matches!(end, ConnectionEnd::Refused(..));
        let hard = matches!(&end, ConnectionEnd::Received(n) if (n.code, n.subcode) == (6, 9)) && !unproven;
        // A peer that we never dial has no other way to refuse them.
        let without = had_capabilities
            && (!unproven || self.spec.next.passive)
            && self.tries_without_capabilities(&end);
        let error = end.is_protocol_error() && !without && !unproven;
        let reason = self.close_connection(now, conn, end, out);
        if let Some(rest) = rest {
            if !collision {
                self.note_down(now, reason, out);
            }
            if rest == Stage::OpenSent && conn == Conn::Active {
                let dial = if self.spec.next.passive { Dial::Off } else { self.pause(now) };
                if let State::Opening(opening) = &mut self.state {
                    opening.dial = dial;
                }
            }
            return self.settle_held(now, out);
        }
        self.note_down(now, reason, out);
        if (error || hard) && self.helper.refused() {
            out.push(Output::Down);
        }
        if without || !unproven {
            self.plain = without;
        }
        if error {
            self.give_up_dial(out);
            self.hurry.due = false;
            return self.error_wait(now);
        }
        if let State::Opening(Opening { dial: Dial::Off, .. }) = self.state {
            let dial = self.redial(now, out);
            if let State::Opening(opening) = &mut self.state {
                opening.dial = dial;
            }
        }
    }

    /// The peer refused our OPEN for its capabilities, and can do without (BGP-15).
    fn tries_without_capabilities(&self, end: &ConnectionEnd) -> bool {
        matches!(end, ConnectionEnd::Received(n) if n.code == 2 && matches!(n.subcode, 4 | 7))
            && self.spec.open.families == AfiSet::only(Afi::Ipv4)
            && self.spec.open.peer_asn.0 <= 65535
    }

    /// What remains after an established session has ended without a protocol error.
    pub(super) fn reopen(
        &mut self,
        now: Millis,
        challenger: Option<(Conn, Endpoints)>,
        out: &mut Vec<Output>,
    ) {
        self.plain = false;
        self.record.since = now;
        self.state = State::Opening(Opening { dial: Dial::Off, incoming: None });
        if let Some((conn, ends)) = challenger {
            self.send_open(now, conn, Side::Peer, ends, out);
        }
        if let State::Opening(Opening { dial: Dial::Off, .. }) = self.state {
            let dial = self.redial(now, out);
            if let State::Opening(opening) = &mut self.state {
                opening.dial = dial;
            }
        }
    }

    /// The session moves to a new connection of the peer, whose OPEN has come.
    pub(super) fn replace_by(
        &mut self,
        now: Millis,
        conn: Conn,
        ends: Endpoints,
        agreed: Agreed,
        out: &mut Vec<Output>,
    ) {
        self.send_open(now, conn, Side::Peer, ends, out);
        self.confirm(now, conn, Side::Peer, agreed, out);
        self.give_up_dial(out);
    }

    pub(super) fn tick_link(&mut self, now: Millis, conn: Conn, out: &mut Vec<Output>) {
        let State::Opening(opening) = &mut self.state else { return };
        let other_has_open = matches!(opening.link(other(conn)), Some(Link::OpenConfirm(_)));
        match opening.link_mut(conn) {
            Some(Link::OpenSent(link)) if link.hold.is_due(now) && other_has_open => {
                self.drop_for_collision(now, conn, out);
                self.settle_held(now, out);
            }
            Some(Link::OpenSent(link)) if link.hold.is_due(now) => self.hold_expired(now, conn, out),
            Some(Link::OpenConfirm(link)) => {
                if link.held.is_some_and(|until| until <= now) {
                    // Nothing has shown what the peer kept: an OPEN on the stronger connection is the better sign.
                    return match other_has_open {
                        true => self.drop_for_collision(now, conn, out),
                        false => self.establish(now, conn, out),
                    };
                }
                if link.hold.is_due(now) && !put_off(&mut link.hold, &mut link.late, now) {
                    return self.hold_expired(now, conn, out);
                }
                if link.keepalive.is_some_and(|timer| timer.is_due(now)) {
                    let hold_time = link.agreed.public.hold_time;
                    self.send(conn, Kind::Keepalive, codec::keepalive(), out);
                    let timer = self.keepalive_timer(now, hold_time);
                    if let State::Opening(opening) = &mut self.state
                        && let Some(Link::OpenConfirm(link)) = opening.link_mut(conn)
                    {
                        link.keepalive = timer;
                    }
                }
            }
            Some(Link::OpenSent(_)) | None => {}
        }
    }
}
