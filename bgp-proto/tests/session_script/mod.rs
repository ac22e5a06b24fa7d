//! A session under a script of bytes: every byte string is a sequence of inputs, also of such that a correct shell or a
//! correct peer would not give. Whatever comes, the promises of the module hold:
//!
//! - it does not panic, and what one input brings forth is bounded;
//! - at most one connection is the session's: beside an established one another may stand, but it has heard no OPEN of us;
//! - each output is one that a shell can obey in its state, and each message is whole, valid, and due where it is sent;
//! - whatever waits has a deadline, the deadline lies ahead after a tick, and a peer that falls silent holds nothing.
//!
//! Used by the property test beside it and by the fuzz target.

use bgp_proto::session::{
    CloseCause, Conn, DialError, Endpoints, Input, MaxPrefix, NextOpen, OpenParams, Output, PeerSpec,
    Session, StateName, StopReason, Transport, TtlRule,
};
use bgp_proto::wire::capability::{GrFamily, WireFamily};
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::{
    Capability, Context, Message, Next, NextHop, Nlri, Notification, Open, PeerType, RouteRefresh, decode,
    encode_end_of_rib, encode_keepalive, encode_notification, encode_open, encode_reach, encode_refresh,
    encode_unreach, next_frame,
};
use bgp_proto::{Afi, AfiSet, Asn, Millis, Prefix4, RouterId, V4};
use bytes::BytesMut;

const FAMILY: WireFamily = WireFamily { afi: 1, safi: 1 };

/// Takes the script apart; zeroes when it is at its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn conn(&mut self) -> Conn {
        if self.byte() & 1 == 0 { Conn::Active } else { Conn::Passive }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn next_open(&mut self) -> NextOpen {
        let flags = self.byte();
        NextOpen {
            passive: flags & 1 != 0,
            hold_time: self.pick(&[240, 0, 3, 9]),
            keepalive: self.pick(&[None, None, Some(0), Some(30)]),
            restart_time: self.pick(&[Some(120), None, Some(0), Some(5000)]),
            notification_gr: flags & 2 != 0,
            long_lived: (flags & 8 != 0).then_some(60),
            send_hold: self.pick(&[Some(480), None, Some(0), Some(60)]),
            connect_delay: self.pick(&[2, 0]),
            connect_retry: self.pick(&[5, 0]),
            error_wait: self.pick(&[(5, 30), (0, 0)]),
            open_hold: self.pick(&[240, 0]),
            add_path: flags & 4 != 0,
            max_prefix: self.pick(&[
                None,
                Some(MaxPrefix { limit: 1, close: true, restart: Some(0) }),
                Some(MaxPrefix { limit: 1, close: false, restart: None }),
                Some(MaxPrefix { limit: 0, close: true, restart: None }),
            ]),
            ..NextOpen::default()
        }
    }

    /// A message that parses, of any kind.
    fn message(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        let prefixes = [Nlri { path_id: 0, prefix: "10.1.0.0/16".parse::<Prefix4>().unwrap() }; 1];
        let context = Context::new(PeerType::Ibgp);
        match self.byte() % 12 {
            0..=2 => encode_open(&self.open(), &mut out),
            3..=5 => encode_keepalive(&mut out),
            6 => encode_end_of_rib(self.pick(&Afi::ALL), &mut out),
            7 => {
                let next_hop = NextHop::V4("10.0.0.2".parse().unwrap());
                let prefix: Prefix4 = format!("10.{}.0.0/16", self.byte()).parse().unwrap();
                let list = [Nlri::<V4> { path_id: 0, prefix }];
                encode_reach(&context, &Default::default(), next_hop, &list, &mut out);
            }
            8 => {
                encode_unreach(&context, &prefixes, &mut out);
            }
            9 => {
                let notification = Notification {
                    code: self.byte() % 10,
                    subcode: self.byte() % 12,
                    data: self.bytes(3).into(),
                };
                encode_notification(&notification, &mut out);
            }
            _ => {
                let kind = self.pick(&[
                    RefreshKind::Request,
                    RefreshKind::Begin,
                    RefreshKind::End,
                    RefreshKind::Unknown(7),
                ]);
                let family = self.pick(&[
                    FAMILY,
                    FAMILY,
                    WireFamily { afi: 2, safi: 1 },
                    WireFamily { afi: 9, safi: 9 },
                ]);
                encode_refresh(RouteRefresh { family, kind }, &mut out);
            }
        }
        out
    }

    fn open(&mut self) -> Open {
        let flags = self.byte();
        let mut capabilities = vec![Capability::Multiprotocol(FAMILY), Capability::RouteRefresh];
        if flags & 1 == 0 {
            capabilities.push(Capability::GracefulRestart {
                restarting: flags & 2 != 0,
                notification: flags & 4 != 0,
                time: self.pick(&[120, 0, 4095, 1]),
                families: vec![GrFamily { family: FAMILY, forwarding: flags & 8 != 0 }],
            });
        }
        if let Some(time) = self.pick(&[None, Some(60), Some(1), Some(0)]) {
            let family = GrFamily { family: FAMILY, forwarding: flags & 2 != 0 };
            capabilities.push(Capability::LongLivedGr(vec![(family, time)]));
        }
        if flags & 16 == 0 {
            capabilities.push(Capability::EnhancedRefresh);
        }
        if flags & 96 == 96 {
            capabilities.clear();
        }
        Open {
            my_as: if flags & 0xc0 == 0xc0 { 65001 } else { 64512 },
            hold_time: self.pick(&[240, 240, 3, 0, 1]),
            router_id: RouterId(std::net::Ipv4Addr::new(10, 0, 0, self.pick(&[2, 2, 2, 1, 0]))),
            capabilities,
        }
    }

    /// A header that is right around a body that need not be.
    fn rubbish(&mut self) -> Vec<u8> {
        let kind = self.byte();
        let len = usize::from(self.byte() % 64);
        let body = self.bytes(len);
        let mut frame = vec![0xff; 16];
        frame.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
        frame.push(kind % 7);
        frame.extend(body);
        frame
    }
}

/// Octets that a session may send for one input: two OPENs and a few short messages.
const MOST_SENT: usize = 4 * 4096;
/// The longest that any timer may run: the long-lived stale time is given in 24 bits, everything else in 16.
const LONGEST: Millis = Millis::secs(0x00ff_ffff + 0xffff);

/// What has been sent on a connection.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Line {
    opened: bool,
    notified: bool,
}

/// What a shell knows, and what it may rely on.
#[derive(Default)]
struct Shell {
    dialing: bool,
    /// The dial has had its turn.
    started: bool,
    /// The connection in each slot.
    open: [Option<Line>; 2],
    up: bool,
    /// Routes of the peer are kept without a session.
    kept: bool,
    answers: usize,
    sent: usize,
}

fn slot(conn: Conn) -> usize {
    usize::from(conn == Conn::Passive)
}

/// The one message that these octets are.
fn whole(bytes: &[u8]) -> Message {
    let Next::Frame(frame) = next_frame(bytes, 4096) else { panic!("no whole message: {bytes:02x?}") };
    assert_eq!(frame.bytes.len(), bytes.len(), "one message at a time");
    let decoded = decode(bytes, &Context::new(PeerType::Ibgp)).expect("what we send is valid");
    assert_eq!(decoded.faults, []);
    decoded.message
}

impl Shell {
    fn obey(&mut self, output: &Output) {
        match output {
            Output::Dial => {
                assert!(!std::mem::replace(&mut self.dialing, true), "one dial at a time");
                self.started = false;
            }
            Output::AbortDial => assert!(std::mem::take(&mut self.dialing), "nothing to abort"),
            Output::Accept(conn) => {
                self.answers += 1;
                let before = self.open[slot(*conn)].replace(Line::default());
                assert_eq!(before, None, "the slot is taken");
            }
            Output::Refuse(bytes) => {
                self.answers += 1;
                assert!(bytes.is_empty() || matches!(whole(bytes), Message::Notification(_)));
            }
            Output::Close(conn) => assert!(self.open[slot(*conn)].take().is_some(), "closed twice"),
            Output::Send(conn, bytes) => self.send(*conn, bytes),
            Output::Up(negotiated) => {
                assert!(!std::mem::replace(&mut self.up, true), "up twice");
                let line = self.open[slot(negotiated.conn)].expect("up on a closed connection");
                assert!(line.opened && !line.notified, "up without our OPEN");
                self.kept = false;
            }
            Output::Update(_) | Output::EndOfRib(_) | Output::MarkStale(_) | Output::RefreshRequested(_) => {
                assert!(self.up, "routes without a session");
            }
            Output::SweepStale(_) => assert!(self.up | self.kept, "sweeps while no routes are there"),
            Output::LongLivedStale(families) => {
                assert!(self.kept && !families.is_empty(), "long-lived stale without being stale");
            }
            Output::Stale(families) => {
                assert!(std::mem::take(&mut self.up), "stale without a session");
                assert!(!families.is_empty(), "nothing is kept");
                self.kept = true;
            }
            Output::Down => {
                assert!(std::mem::take(&mut self.up) | std::mem::take(&mut self.kept), "down without routes");
            }
            Output::Event(event) => assert!(event.to_string().chars().all(|c| !c.is_control())),
        }
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let up = self.up;
        let line = self.open[slot(conn)].as_mut().expect("sent on a closed connection");
        assert!(!line.notified, "sent after a NOTIFICATION");
        self.sent += bytes.len();
        match whole(bytes) {
            Message::Open(open) => {
                assert!(!std::mem::replace(&mut line.opened, true), "a second OPEN");
                assert_eq!((open.asn(), open.router_id), (Asn(64512), RouterId([10, 0, 0, 1].into())));
            }
            Message::Notification(notification) => {
                assert!((1..=8).contains(&notification.code), "{notification:?}");
                line.notified = true;
            }
            Message::Keepalive => assert!(line.opened, "KEEPALIVE before OPEN"),
            Message::RouteRefresh(_) => assert!(line.opened && up, "ROUTE-REFRESH without a session"),
            Message::Update(_) => panic!("UPDATEs are not the session's"),
        }
    }
}

struct World {
    session: Session,
    shell: Shell,
    now: Millis,
}

impl World {
    fn give(&mut self, input: Input<'_>) {
        let connected = matches!(input, Input::Connected(..));
        match &input {
            Input::Connected(Conn::Active, _) | Input::DialFailed(_) => self.shell.dialing = false,
            Input::Closed(conn, _) => self.shell.open[slot(*conn)] = None,
            _ => {}
        }
        (self.shell.answers, self.shell.sent) = (0, 0);
        let mut out = Vec::new();
        self.session.handle(self.now, input, &mut out);
        assert!(out.len() < 24, "outputs without bound");
        for output in &out {
            self.shell.obey(output);
        }
        assert!(self.shell.sent <= MOST_SENT, "{} octets for one input", self.shell.sent);
        assert_eq!(self.shell.answers, usize::from(connected), "each connection has one answer");
        self.check();
    }

    /// What holds between any two inputs.
    fn check(&self) {
        let (session, shell) = (&self.session, &self.shell);
        assert_eq!(shell.up, session.is_established());
        assert_eq!(shell.up, session.negotiated().is_some());
        for line in shell.open.iter().flatten() {
            assert!(!line.notified, "left open after a NOTIFICATION");
        }
        let state = session.state_name();
        let open = shell.open.iter().flatten().count();
        let waits = match state {
            StateName::Down | StateName::Idle => {
                assert!(open == 0 && !shell.dialing, "{state} with a connection");
                state == StateName::Idle
            }
            StateName::Passive => {
                assert!(open == 0 && !shell.dialing);
                false
            }
            StateName::Active => {
                assert!(open == 0 && !shell.dialing);
                true
            }
            StateName::Connect => {
                assert!(open == 0 && shell.dialing);
                shell.started
            }
            StateName::OpenSent | StateName::OpenConfirm => {
                assert!(open > 0);
                assert!(shell.open.iter().flatten().all(|line| line.opened), "silent in {state}");
                true
            }
            StateName::Established => {
                let negotiated = session.negotiated().unwrap();
                assert!(shell.open[slot(negotiated.conn)].is_some() && !shell.dialing);
                let opened = shell.open.iter().flatten().filter(|line| line.opened).count();
                assert_eq!(opened, 1, "two connections survive");
                negotiated.hold_time != 0 || open == 2
            }
        };
        let deadline = session.deadline();
        assert!(deadline.is_some() || !(waits || shell.kept), "waits without end in {state}");
        assert!(deadline.is_none_or(|at| at <= self.now + LONGEST), "{deadline:?} at {}", self.now);
    }

    /// The peer says no more, and does not answer any dial: in time every connection is gone, but for an established
    /// one without hold time.
    fn fall_silent(&mut self) {
        let end = self.now + Millis::secs(600);
        while let Some(at) = self.session.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tick();
            if self.shell.dialing {
                self.give(Input::DialFailed(DialError::Refused));
            }
        }
        let for_ever = self.session.negotiated().filter(|agreed| agreed.hold_time == 0);
        let rest: Vec<bool> = self.shell.open.iter().map(Option::is_some).collect();
        let may_stay = |conn| for_ever.is_some_and(|agreed| agreed.conn == conn);
        assert_eq!(rest, [may_stay(Conn::Active), may_stay(Conn::Passive)], "held by silence");
    }

    fn tick(&mut self) {
        self.give(Input::Tick);
        let due = self.session.deadline().filter(|at| *at <= self.now);
        assert_eq!(due, None, "a tick leaves something due at {}: {:?}", self.now, self.session);
    }

    fn ends(conn: Conn) -> Endpoints {
        let (local, remote) = match conn {
            Conn::Active => ("10.0.0.1:40000", "10.0.0.2:179"),
            Conn::Passive => ("10.0.0.1:179", "10.0.0.2:40000"),
        };
        Endpoints { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 32 {
            0 => self.give(Input::Start),
            1 => {
                let reason = script.pick(&[
                    StopReason::Deconfigured,
                    StopReason::AdminDown,
                    StopReason::AdminReset,
                    StopReason::Reconfigured,
                ]);
                self.give(Input::Stop(reason));
                self.give(Input::Start);
            }
            2..=5 => {
                if self.shell.dialing {
                    self.give(Input::Connected(Conn::Active, Self::ends(Conn::Active)));
                }
            }
            6..=8 => self.give(Input::Connected(Conn::Passive, Self::ends(Conn::Passive))),
            9 => {
                if self.shell.dialing {
                    let error = script.pick(&[DialError::Refused, DialError::Timeout, DialError::Os(5)]);
                    self.give(Input::DialFailed(error));
                }
            }
            10..=19 => {
                let (conn, message) = (script.conn(), script.message());
                self.give(Input::Frame(conn, &message));
            }
            20 => {
                let (conn, frame) = (script.conn(), script.rubbish());
                self.give(Input::Frame(conn, &frame));
            }
            21 => {
                let conn = script.conn();
                let len = usize::from(script.byte());
                let frame = script.bytes(len);
                self.give(Input::Frame(conn, &frame));
            }
            22 => {
                let conn = script.conn();
                self.give(Input::BadFrame(conn, Notification::new(1, 3)));
            }
            23 => {
                let conn = script.conn();
                self.give(Input::Closed(conn, script.pick(&[CloseCause::Eof, CloseCause::Reset])));
            }
            24 => {
                let conn = script.conn();
                self.give(script.pick(&[Input::Blocked, Input::Wrote, Input::Unread])(conn));
            }
            25 => self.give(Input::RequestRefresh(script.pick(&Afi::ALL))),
            26 => {
                let notification = Notification::new(script.pick(&[6, 3]), script.byte() % 12);
                self.give(Input::Close(notification));
            }
            27 => {
                let next = script.next_open();
                if script.byte() < 128 {
                    self.give(Input::Reconfigure(next));
                } else {
                    let families = script.pick(&[AfiSet::only(Afi::Ipv4), AfiSet::BOTH]);
                    let old = self.session.spec();
                    let open = OpenParams { families, ..old.open.clone() };
                    let spec = PeerSpec { transport: old.transport.clone(), open, next };
                    self.give(Input::Replace(Box::new(spec)));
                }
            }
            28 if self.shell.dialing && script.byte() < 128 => {
                self.shell.started = true;
                self.give(Input::DialStarted);
            }
            28 => self.give(Input::Restarting(script.pick(&[AfiSet::EMPTY, AfiSet::BOTH]))),
            29 => {
                // Time passes, and the tick comes late.
                self.now = self.now + Millis(u64::from(script.byte()) << (script.byte() % 12));
                self.tick();
            }
            _ => {
                if let Some(at) = self.session.deadline() {
                    self.now = self.now.max(at);
                    self.tick();
                }
            }
        }
    }
}

/// Runs a script and checks every promise after every input. Says how often the session came up.
pub fn run(data: &[u8]) -> u64 {
    let mut script = Script(data);
    let spec = PeerSpec {
        transport: Transport {
            peer: "10.0.0.2".parse().unwrap(),
            scope: 0,
            port: 179,
            ttl: TtlRule::Security { hops: 1 },
        },
        open: OpenParams {
            local_asn: Asn(64512),
            peer_asn: Asn(64512),
            router_id: RouterId("10.0.0.1".parse().unwrap()),
            families: script.pick(&[AfiSet::only(Afi::Ipv4), AfiSet::BOTH]),
        },
        next: script.next_open(),
    };
    let mut world = World {
        session: Session::new(spec, u64::from(script.byte()), AfiSet::EMPTY),
        shell: Shell::default(),
        now: Millis(0),
    };
    world.give(Input::Start);
    while !script.0.is_empty() {
        world.step(&mut script);
    }
    let status = world.session.status();
    assert!(status.events.len() <= 32 && status.negotiated.is_some() == world.shell.up);
    assert!(status.last.is_none_or(|reason| reason.to_string().chars().all(|c| !c.is_control())));
    // It takes longer than all else.
    if data.len() % 8 == 1 {
        world.fall_silent();
    }
    world.give(Input::Stop(StopReason::Deconfigured));
    assert_eq!((world.session.state_name(), world.session.deadline()), (StateName::Down, None));
    assert_eq!(world.shell.open, [None, None], "connections left open");
    assert!(!world.shell.dialing && !world.shell.up && !world.shell.kept, "something is left behind");
    world.session.status().counters.established
}
