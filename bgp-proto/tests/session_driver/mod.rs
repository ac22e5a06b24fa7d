//! One session driven by hand: the test is the peer, the network and the clock.
#![allow(dead_code)]

use bgp_proto::session::{
    Conn, Endpoints, Input, NextOpen, OpenParams, Output, PeerSpec, Session, StateName, Status, Transport,
    TtlRule,
};
use bgp_proto::wire::capability::{GrFamily, WireFamily};
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::{
    AsPath, Attributes, Capability, Context, Message, NextHop, Nlri, Notification, Open, Origin, PeerType,
    RouteRefresh, decode, decode_open, encode_end_of_rib, encode_keepalive, encode_notification, encode_open,
    encode_reach, encode_refresh,
};
use bgp_proto::{Afi, AfiSet, Asn, Millis, Prefix4, RouterId};
use bytes::BytesMut;

pub const V4: WireFamily = WireFamily { afi: 1, safi: 1 };
pub const V6: WireFamily = WireFamily { afi: 2, safi: 1 };
pub const MULTICAST: WireFamily = WireFamily { afi: 1, safi: 2 };

/// A peer spec that tests vary.
pub struct Spec(pub PeerSpec);

/// AS 64512, identifier 10.0.0.1, towards 10.0.0.2 in the same AS, with Calico's settings.
pub fn spec() -> Spec {
    Spec(PeerSpec {
        transport: Transport {
            peer: "10.0.0.2".parse().unwrap(),
            scope: 0,
            port: 179,
            ttl: TtlRule::Multihop(64),
        },
        open: OpenParams {
            local_asn: Asn(64512),
            peer_asn: Asn(64512),
            router_id: RouterId("10.0.0.1".parse().unwrap()),
            families: AfiSet::only(Afi::Ipv4),
        },
        next: NextOpen::default(),
    })
}

impl Spec {
    pub fn with<T>(mut self, change: impl FnOnce(&mut NextOpen) -> T) -> Self {
        change(&mut self.0.next);
        self
    }

    pub fn passive(self) -> Self {
        self.with(|next| next.passive = true)
    }
}

/// The peer's OPEN without capabilities.
pub fn plain_open() -> Open {
    Open {
        my_as: 64512,
        hold_time: 240,
        router_id: RouterId("10.0.0.2".parse().unwrap()),
        capabilities: vec![],
    }
}

fn open_gr(time: u16, notification: bool, forwarding: bool) -> Open {
    let families = vec![GrFamily { family: V4, forwarding }];
    Open {
        capabilities: vec![
            Capability::Multiprotocol(V4),
            Capability::RouteRefresh,
            Capability::GracefulRestart { restarting: forwarding, notification, time, families },
            Capability::FourOctetAs(Asn(64512)),
            Capability::EnhancedRefresh,
        ],
        ..plain_open()
    }
}

/// The peer's OPEN with all that Calico's BIRD offers, and this restart time.
pub fn open_with(time: u16) -> Open {
    open_gr(time, false, false)
}

/// The same with the N bit.
pub fn open_n() -> Open {
    open_gr(120, true, false)
}

/// The same with this long-lived stale time for IPv4 (RFC 9494).
pub fn open_long_lived(time: u16, stale_time: u32, forwarding: bool) -> Open {
    let mut open = open_gr(time, false, forwarding);
    open.capabilities.push(Capability::LongLivedGr(vec![(GrFamily { family: V4, forwarding }, stale_time)]));
    open
}

pub fn frame_of(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    match message {
        Message::Open(open) => encode_open(open, &mut out),
        Message::Notification(notification) => encode_notification(notification, &mut out),
        Message::Keepalive => encode_keepalive(&mut out),
        Message::RouteRefresh(refresh) => encode_refresh(*refresh, &mut out),
        Message::Update(_) => panic!("use announce"),
    }
    out.to_vec()
}

/// Types of the messages that were sent.
pub fn kinds(out: &[Output]) -> Vec<u8> {
    out.iter()
        .filter_map(|o| match o {
            Output::Send(_, bytes) => Some(bytes[18]),
            _ => None,
        })
        .collect()
}

pub struct Driver {
    pub session: Session,
    pub now: Millis,
    /// All outputs so far.
    pub log: Vec<Output>,
    /// Dials wait for their turn; else each has it at once.
    pub crowded: bool,
}

impl Driver {
    pub fn new(spec: Spec) -> Self {
        Driver::restarting(spec, AfiSet::EMPTY)
    }

    pub fn restarting(spec: Spec, families: AfiSet) -> Self {
        Driver {
            session: Session::new(spec.0, 42, families),
            now: Millis(0),
            log: Vec::new(),
            crowded: false,
        }
    }

    pub fn give(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.session.handle(self.now, input, &mut out);
        if out.contains(&Output::Dial) && !self.crowded {
            self.session.handle(self.now, Input::DialStarted, &mut out);
        }
        self.log.extend(out.iter().cloned());
        out
    }

    pub fn state(&self) -> StateName {
        self.session.state_name()
    }

    pub fn status(&self) -> Status {
        self.session.status()
    }

    pub fn deadline(&self) -> Option<Millis> {
        self.session.deadline()
    }

    /// Lets the next deadline come.
    pub fn tick(&mut self) -> Vec<Output> {
        self.now = self.now.max(self.deadline().expect("a deadline"));
        self.give(Input::Tick)
    }

    /// Lets time pass on an established session whose peer sends keepalives.
    pub fn pass(&mut self, time: Millis) {
        let end = self.now + time;
        while self.deadline().is_some_and(|at| at <= end) {
            self.tick();
            if let Some(negotiated) = self.session.negotiated() {
                let conn = negotiated.conn;
                self.receive(conn, &Message::Keepalive);
            }
        }
        self.now = end;
    }

    pub fn connect(&mut self, conn: Conn) -> Vec<Output> {
        let (local, remote) = match conn {
            Conn::Active => ("10.0.0.1:40000", "10.0.0.2:179"),
            Conn::Passive => ("10.0.0.1:179", "10.0.0.2:40000"),
        };
        let ends = Endpoints { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        self.give(Input::Connected(conn, ends))
    }

    pub fn receive(&mut self, conn: Conn, message: &Message) -> Vec<Output> {
        self.give(Input::Frame(conn, &frame_of(message)))
    }

    pub fn receive_end_of_rib(&mut self, conn: Conn) -> Vec<Output> {
        let mut out = BytesMut::new();
        encode_end_of_rib(Afi::Ipv4, &mut out);
        self.give(Input::Frame(conn, &out))
    }

    pub fn refresh(&mut self, family: WireFamily, kind: RefreshKind) -> Vec<Output> {
        let conn = self.session.negotiated().unwrap().conn;
        self.receive(conn, &Message::RouteRefresh(RouteRefresh { family, kind }))
    }

    pub fn announce(&mut self, prefixes: &[&str]) -> Vec<Output> {
        let attributes =
            Attributes { origin: Origin::Igp, as_path: AsPath::default(), ..Attributes::default() };
        let list: Vec<_> =
            prefixes.iter().map(|p| Nlri { path_id: 0, prefix: p.parse::<Prefix4>().unwrap() }).collect();
        let mut out = BytesMut::new();
        let context = Context::new(PeerType::Ibgp);
        encode_reach(&context, &attributes, NextHop::V4("10.0.0.2".parse().unwrap()), &list, &mut out);
        let conn = self.session.negotiated().unwrap().conn;
        self.give(Input::Frame(conn, &out))
    }

    pub fn establish(&mut self, conn: Conn) -> Vec<Output> {
        self.establish_with(conn, open_with(120))
    }

    /// As the peer that has restarted and kept its forwarding state.
    pub fn establish_preserved(&mut self, conn: Conn) -> Vec<Output> {
        self.establish_with(conn, open_gr(120, false, true))
    }

    pub fn establish_with(&mut self, conn: Conn, open: Open) -> Vec<Output> {
        if conn == Conn::Active && self.state() != StateName::Connect {
            self.tick();
        }
        let mut out = self.connect(conn);
        out.extend(self.receive(conn, &Message::Open(open)));
        out.extend(self.receive(conn, &Message::Keepalive));
        assert_eq!(self.state(), StateName::Established);
        out
    }

    /// The peer breaks the protocol on the active connection.
    pub fn fault_of_peer(&mut self) -> Vec<Output> {
        self.receive(Conn::Active, &Message::Keepalive)
    }

    pub fn opens(&self, out: &[Output]) -> Vec<Open> {
        out.iter()
            .filter_map(|o| match o {
                Output::Send(_, bytes) if bytes[18] == 1 => Some(decode_open(bytes).unwrap()),
                _ => None,
            })
            .collect()
    }

    pub fn notifications(&self, out: &[Output]) -> Vec<Notification> {
        out.iter()
            .filter_map(|o| match o {
                Output::Send(_, bytes) if bytes[18] == 3 => {
                    match decode(bytes, &Context::new(PeerType::Ibgp)).unwrap().message {
                        Message::Notification(notification) => Some(notification),
                        _ => None,
                    }
                }
                _ => None,
            })
            .collect()
    }
}
