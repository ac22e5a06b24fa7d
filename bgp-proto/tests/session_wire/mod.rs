//! A network of two sessions: TCP as byte pipes in memory, with accepts and dials as events of their own.
//!
//! Owns: connections, their bytes, which end has closed. It keeps the shell's side of the contract, and asserts the
//! session's: nothing is sent on a connection that was closed, and nothing after a NOTIFICATION.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bgp_proto::session::{
    CloseCause, Conn, DialError, Endpoints, Input, NextOpen, OpenParams, Output, PeerSpec, Session,
    StateName, Transport, TtlRule,
};
use bgp_proto::wire::frame::{Next, next_frame};
use bgp_proto::{Afi, AfiSet, Asn, Millis, RouterId};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, node as u8 + 1)
}

/// Node `us` towards node `peer`, both in AS 64512.
pub fn spec(us: usize, peer: usize) -> PeerSpec {
    PeerSpec {
        transport: Transport { peer: address(peer).into(), scope: 0, port: 179, ttl: TtlRule::Multihop(64) },
        open: OpenParams {
            local_asn: Asn(64512),
            peer_asn: Asn(64512),
            router_id: RouterId(address(us)),
            families: AfiSet::only(Afi::Ipv4),
        },
        next: NextOpen::default(),
    }
}

/// One TCP connection; index 0 and 1 are the two nodes.
#[derive(Default, Clone, Debug)]
pub struct Tcp {
    /// Bytes on the way to each node.
    pub to: [VecDeque<u8>; 2],
    /// The node has closed its end; the other sees it after the bytes.
    pub closed: [bool; 2],
    /// The node has crashed: what is on the way to it is lost, and it says no more, not even that it closes.
    pub dead: [bool; 2],
    /// The slot that the connection has at each node; none before it is accepted.
    pub slot: [Option<Conn>; 2],
    pub dialled_by: usize,
    pub accepted: bool,
    /// NOTIFICATION sent by the node.
    pub notified: [bool; 2],
}

impl Tcp {
    /// Nothing can happen on it any more.
    pub fn gone(&self) -> bool {
        self.slot == [None, None] && (self.accepted || self.closed[self.dialled_by])
    }

    /// Both ends are open.
    pub fn works(&self) -> bool {
        self.closed == [false, false] && self.dead == [false, false]
    }
}

#[derive(Clone)]
pub struct Node {
    seed: u64,
    pub session: Session,
    pub log: Vec<(Millis, Output)>,
    /// Connection in each slot.
    pub slots: BTreeMap<u8, usize>,
    pub dialing: bool,
    pub sent: BTreeMap<u8, Vec<u8>>,
}

fn key(conn: Conn) -> u8 {
    match conn {
        Conn::Active => 0,
        Conn::Passive => 1,
    }
}

impl Node {
    fn new(spec: PeerSpec, seed: u64) -> Self {
        Node {
            session: Session::new(spec, seed, AfiSet::EMPTY),
            log: Vec::new(),
            slots: BTreeMap::new(),
            dialing: false,
            sent: BTreeMap::new(),
            seed,
        }
    }

    pub fn reconfigure(&mut self, change: impl FnOnce(&mut NextOpen)) {
        let mut next = self.session.spec().next.clone();
        change(&mut next);
        let mut out = Vec::new();
        self.session.handle(Millis(0), Input::Reconfigure(next), &mut out);
        assert!(out.is_empty(), "only before start");
    }

    pub fn count(&self, wanted: impl Fn(&Output) -> bool) -> usize {
        self.log.iter().filter(|(_, output)| wanted(output)).count()
    }
}

#[derive(Clone)]
pub struct Network {
    /// Whether outputs and sent bytes are remembered.
    pub keep_log: bool,
    pub now: Millis,
    pub nodes: [Node; 2],
    pub tcp: Vec<Tcp>,
    /// No bytes, dials or ends of streams get through.
    cut: bool,
}

impl Network {
    pub fn new(a: PeerSpec, b: PeerSpec) -> Self {
        Network::seeded(a, b, 1)
    }

    /// With timers that differ from those of another seed.
    pub fn seeded(a: PeerSpec, b: PeerSpec, seed: u64) -> Self {
        Network {
            keep_log: true,
            now: Millis(0),
            nodes: [Node::new(a, seed), Node::new(b, seed + 1)],
            tcp: Vec::new(),
            cut: false,
        }
    }

    pub fn node(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }

    pub fn state(&self, node: usize) -> StateName {
        self.nodes[node].session.state_name()
    }

    pub fn sent(&self, node: usize, conn: Conn) -> Vec<u8> {
        self.nodes[node].sent.get(&key(conn)).cloned().unwrap_or_default()
    }

    pub fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Connections that both ends hold open.
    pub fn links(&self) -> usize {
        self.tcp.iter().filter(|tcp| tcp.works()).count()
    }

    pub fn start(&mut self, node: usize) {
        self.input(node, Input::Start, None);
    }

    /// Gives one input; `candidate` is the connection that a `Connected` announces.
    pub fn input(&mut self, node: usize, input: Input<'_>, candidate: Option<usize>) {
        let mut out = Vec::new();
        self.nodes[node].session.handle(self.now, input, &mut out);
        if out.contains(&Output::Dial) {
            self.nodes[node].session.handle(self.now, Input::DialStarted, &mut out);
        }
        for output in out {
            self.obey(node, &output, candidate);
            if self.keep_log {
                self.nodes[node].log.push((self.now, output));
            }
        }
    }

    fn obey(&mut self, node: usize, output: &Output, candidate: Option<usize>) {
        match output {
            Output::Dial => {
                assert!(!self.nodes[node].dialing, "one dial at a time");
                self.nodes[node].dialing = true;
            }
            Output::AbortDial => {
                assert!(self.nodes[node].dialing, "no dial to abort");
                self.nodes[node].dialing = false;
            }
            Output::Accept(conn) => {
                let at = candidate.expect("Accept answers Connected");
                let before = self.nodes[node].slots.insert(key(*conn), at);
                assert_eq!(before, None, "the slot is free");
                self.tcp[at].slot[node] = Some(*conn);
                self.nodes[node].sent.insert(key(*conn), Vec::new());
            }
            Output::Refuse(bytes) => {
                let at = candidate.expect("Refuse answers Connected");
                self.tcp[at].to[1 - node].extend(bytes);
                self.tcp[at].closed[node] = true;
            }
            Output::Send(conn, bytes) => {
                let at =
                    *self.nodes[node].slots.get(&key(*conn)).expect("nothing is sent on a closed connection");
                assert!(!self.tcp[at].notified[node], "nothing follows a NOTIFICATION");
                if bytes[18] == 3 {
                    self.tcp[at].notified[node] = true;
                }
                self.tcp[at].to[1 - node].extend(bytes);
                if self.keep_log {
                    self.nodes[node].sent.get_mut(&key(*conn)).unwrap().extend(bytes);
                }
            }
            Output::Close(conn) => {
                let at = self.nodes[node].slots.remove(&key(*conn)).expect("only what is open is closed");
                self.tcp[at].closed[node] = true;
                self.tcp[at].slot[node] = None;
            }
            _ => {}
        }
    }

    fn ends(&self, node: usize, at: usize) -> Endpoints {
        let port = |n: usize| if self.tcp[at].dialled_by == n { 40_000 + at as u16 } else { 179 };
        let end = |n: usize| SocketAddr::new(IpAddr::V4(address(n)), port(n));
        Endpoints { local: end(node), remote: end(1 - node) }
    }

    /// The dial of `node` succeeds as TCP: the SYN is answered by the other's kernel.
    pub fn connect(&mut self, node: usize) -> bool {
        if !self.nodes[node].dialing || self.cut {
            return false;
        }
        self.nodes[node].dialing = false;
        self.tcp.push(Tcp { dialled_by: node, ..Tcp::default() });
        let at = self.tcp.len() - 1;
        let ends = self.ends(node, at);
        self.input(node, Input::Connected(Conn::Active, ends), Some(at));
        true
    }

    /// The dial of `node` fails.
    pub fn refuse_dial(&mut self, node: usize, error: DialError) -> bool {
        let there = std::mem::take(&mut self.nodes[node].dialing);
        if there {
            self.input(node, Input::DialFailed(error), None);
        }
        there
    }

    /// The node that was dialled takes connection `at` from its kernel.
    pub fn accept(&mut self, at: usize) -> bool {
        if self.tcp[at].accepted {
            return false;
        }
        self.tcp[at].accepted = true;
        let node = 1 - self.tcp[at].dialled_by;
        let ends = self.ends(node, at);
        self.input(node, Input::Connected(Conn::Passive, ends), Some(at));
        true
    }

    pub fn accept_all(&mut self) {
        self.connect(0);
        self.connect(1);
        for at in 0..self.tcp.len() {
            self.accept(at);
        }
    }

    /// The connection on which a node's session is up.
    pub fn established_on(&self, node: usize) -> Option<usize> {
        let conn = self.nodes[node].session.negotiated()?.conn;
        self.nodes[node].slots.get(&key(conn)).copied()
    }

    /// The process of a node ends without a word, and a new one starts at once.
    pub fn crash(&mut self, node: usize) {
        for tcp in &mut self.tcp {
            if tcp.slot[node].take().is_some() || (!tcp.accepted && tcp.dialled_by != node) {
                tcp.dead[node] = true;
                tcp.accepted = true;
                tcp.to[node].clear();
            }
        }
        let fresh = Node::new(self.nodes[node].session.spec().clone(), self.nodes[node].seed + 2);
        self.nodes[node] = fresh;
        self.start(node);
    }

    /// Whether [`Network::deliver`] would do something.
    pub fn can_deliver(&self, at: usize, node: usize) -> bool {
        let tcp = &self.tcp[at];
        tcp.slot[node].is_some() && !self.cut && (!tcp.to[node].is_empty() || tcp.closed[1 - node])
    }

    /// The earliest deadline comes.
    pub fn tick(&mut self) {
        if let Some(at) = self.deadline() {
            self.now = self.now.max(at);
            self.tick_due();
        }
    }

    pub fn tick_due(&mut self) {
        for node in 0..2 {
            if self.nodes[node].session.deadline().is_some_and(|at| at <= self.now) {
                self.input(node, Input::Tick, None);
                let deadline = self.nodes[node].session.deadline();
                assert!(deadline.is_none_or(|at| at > self.now), "a tick leaves no deadline behind");
            }
        }
    }

    /// Delivers one message, or the end of the stream, of connection `at` to `node`.
    pub fn deliver(&mut self, at: usize, node: usize) -> bool {
        let Some(conn) = self.tcp[at].slot[node] else { return false };
        if self.cut {
            return false;
        }
        let buffer: Vec<u8> = self.tcp[at].to[node].make_contiguous().to_vec();
        match next_frame(&buffer, 4096) {
            Next::Frame(frame) => {
                self.tcp[at].to[node].drain(..frame.bytes.len());
                self.input(node, Input::Frame(conn, frame.bytes), None);
                true
            }
            Next::NeedMore(_) if self.tcp[at].closed[1 - node] => {
                self.lose(at, node, CloseCause::Eof);
                true
            }
            Next::NeedMore(_) => false,
            Next::Fatal(notification) => panic!("{notification:?}"),
        }
    }

    /// The node is told that its end of the connection is gone.
    pub fn lose(&mut self, at: usize, node: usize, cause: CloseCause) -> bool {
        let Some(conn) = self.tcp[at].slot[node].take() else { return false };
        self.nodes[node].slots.remove(&key(conn));
        self.tcp[at].closed[node] = true;
        self.input(node, Input::Closed(conn, cause), None);
        true
    }

    /// Lets everything happen that needs no time.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for node in 0..2 {
                busy |= self.connect(node);
            }
            if !self.cut {
                for at in 0..self.tcp.len() {
                    busy |= self.accept(at);
                }
            }
            for at in 0..self.tcp.len() {
                for node in 0..2 {
                    busy |= self.deliver(at, node);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the network does not come to rest");
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Millis> {
        self.nodes.iter().filter_map(|node| node.session.deadline()).min()
    }

    /// Lets time pass, with everything that happens in it.
    pub fn run_until(&mut self, end: Millis) {
        for _ in 0..1_000_000 {
            self.settle();
            match self.deadline() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.tick_due();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("time does not pass");
    }
}
