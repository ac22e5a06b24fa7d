//! A scripted neighbour: one BGP speaker at one address with a fixed list of routes to tell, as the lab plays it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bgp_proto::session::Conn;
use bgp_proto::{IpPrefix, Millis};
use serde_json::{Map, Value, json};

use super::bytes::{self, KEEPALIVE, NOTIFICATION, OPEN, UPDATE};
use super::case::{Mode, Peer};

/// When a neighbour dials first, and how often it tries again.
pub const DIAL_AFTER: Millis = Millis(4_000);
pub const RETRY: Millis = Millis(1_000);

/// Who opened a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialler {
    Node,
    World,
}

impl Dialler {
    pub fn name(self) -> &'static str {
        match self {
            Dialler::Node => "node",
            Dialler::World => "world",
        }
    }

    /// The connection as the node's session names it.
    pub fn conn(self) -> Conn {
        match self {
            Dialler::Node => Conn::Active,
            Dialler::World => Conn::Passive,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Stage {
    Open,
    Keepalive,
    Established,
}

pub struct Connection {
    /// Which one of the situation's connections it is.
    pub token: u64,
    pub dialler: Dialler,
    /// The node's end.
    pub local: SocketAddr,
    stage: Stage,
    internal: bool,
    hold_time: u16,
    received: Vec<u8>,
    next_keepalive: Option<Millis>,
}

/// What a neighbour does on what it was sent.
pub enum Reaction {
    Send(Vec<u8>),
    Close,
}

pub struct Neighbour<'a> {
    pub spec: &'a Peer,
    pub connection: Option<Connection>,
    pub last_open: Option<Value>,
    pub routes: BTreeMap<IpPrefix, Map<String, Value>>,
    pub next_dial: Option<Millis>,
}

impl<'a> Neighbour<'a> {
    /// `late` is how much later than others it dials first.
    pub fn new(spec: &'a Peer, late: Millis) -> Self {
        let dials = spec.mode == Mode::Both && spec.dial.is_some();
        Neighbour {
            spec,
            connection: None,
            last_open: None,
            routes: BTreeMap::new(),
            next_dial: dials.then_some(DIAL_AFTER + late),
        }
    }

    pub fn established(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.stage == Stage::Established)
    }

    /// Takes a new connection, or refuses it where there is one already.
    pub fn adopt(&mut self, token: u64, dialler: Dialler, local: SocketAddr) -> Vec<Reaction> {
        if self.connection.is_some() {
            return vec![Reaction::Close];
        }
        self.connection = Some(Connection {
            token,
            dialler,
            local,
            stage: Stage::Open,
            internal: false,
            hold_time: 0,
            received: Vec::new(),
            next_keepalive: None,
        });
        if self.spec.mode == Mode::Silent {
            return Vec::new();
        }
        let spec = self.spec;
        vec![Reaction::Send(bytes::open(spec.family, spec.asn, spec.hold_time, spec.router_id))]
    }

    /// The node sent these bytes on the living connection.
    pub fn receive(&mut self, now: Millis, sent: &[u8]) -> Vec<Reaction> {
        let Some(connection) = &mut self.connection else { return Vec::new() };
        connection.received.extend(sent);
        let mut reactions = Vec::new();
        while let Some((kind, body)) = self.next_message() {
            match self.message(now, kind, &body) {
                Ok(found) => reactions.extend(found),
                Err(()) => {
                    self.lost();
                    reactions.push(Reaction::Close);
                    break;
                }
            }
        }
        reactions
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        bytes::take_message(&mut self.connection.as_mut()?.received)
    }

    /// One message; an error ends the connection.
    fn message(&mut self, now: Millis, kind: u8, body: &[u8]) -> Result<Vec<Reaction>, ()> {
        let spec = self.spec;
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        if kind == NOTIFICATION {
            return Err(());
        }
        match (&connection.stage, kind) {
            (Stage::Open, OPEN) => {
                let open = bytes::read_open(body);
                connection.internal = open["asn"] == spec.asn;
                let offered = u16::try_from(open["holdTime"].as_u64().unwrap()).unwrap();
                connection.hold_time = spec.hold_time.min(offered);
                self.last_open = Some(open);
                if spec.mode == Mode::Silent {
                    return Ok(Vec::new());
                }
                connection.stage = Stage::Keepalive;
                Ok(vec![Reaction::Send(bytes::message(KEEPALIVE, &[]))])
            }
            (Stage::Keepalive, KEEPALIVE) => {
                connection.stage = Stage::Established;
                connection.next_keepalive = keepalive_at(now, connection.hold_time);
                let internal = connection.internal;
                let routes = spec.announce.iter();
                let mut told: Vec<Reaction> = routes
                    .map(|route| Reaction::Send(bytes::announce(route, spec.asn, spec.address, internal)))
                    .collect();
                told.push(Reaction::Send(bytes::end_of_rib(spec.family)));
                Ok(told)
            }
            (Stage::Established, UPDATE) => {
                let update = bytes::read_update(body);
                for prefix in update.withdrawn {
                    self.routes.remove(&prefix);
                }
                for prefix in update.announced {
                    self.routes.insert(prefix, update.attributes.clone());
                }
                Ok(Vec::new())
            }
            (Stage::Open | Stage::Keepalive, _) if spec.mode != Mode::Silent => Err(()),
            _ => Ok(Vec::new()),
        }
    }

    /// The connection is gone, if it is this one.
    pub fn lose(&mut self, token: u64) {
        if self.connection.as_ref().is_some_and(|c| c.token == token) {
            self.lost();
        }
    }

    fn lost(&mut self) {
        self.connection = None;
        self.routes.clear();
    }

    /// When the neighbour wants to do something by itself.
    pub fn deadline(&self) -> Option<Millis> {
        match &self.connection {
            Some(connection) => connection.next_keepalive,
            None => self.next_dial,
        }
    }

    /// The keepalive that is due, if one is.
    pub fn keepalive(&mut self, now: Millis) -> Option<(u64, Vec<u8>)> {
        let connection = self.connection.as_mut()?;
        connection.next_keepalive.filter(|at| *at <= now)?;
        connection.next_keepalive = keepalive_at(now, connection.hold_time);
        Some((connection.token, bytes::message(KEEPALIVE, &[])))
    }

    /// The routes that it holds, as observed.json has them.
    pub fn exports(&self) -> Value {
        let route = |(prefix, attributes): (&IpPrefix, &Map<String, Value>)| {
            let mut route = attributes.clone();
            route.insert("prefix".into(), prefix.to_string().into());
            Value::Object(route)
        };
        json!(self.routes.iter().map(route).collect::<Vec<_>>())
    }
}

fn keepalive_at(now: Millis, hold_time: u16) -> Option<Millis> {
    (hold_time != 0).then(|| now + Millis(u64::from(hold_time) * 1000 / 3))
}
