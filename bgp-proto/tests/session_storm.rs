//! A thousand pairs of speakers that dial each other at once (T3), on virtual time: every dial, accept and message
//! takes a time of its own, in order on each connection. Whatever the order of events, exactly one connection of each
//! pair survives, soon, and nothing moves any more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod session_wire;

use std::collections::BTreeMap;

use bgp_proto::session::StateName;
use bgp_proto::{Asn, Millis, RouterId};
use session_wire::{Network, Tcp, spec};

const PAIRS: u64 = 1000;
/// The longest way from one end to the other, in milliseconds: a satellite and a bad day.
const WAY: u64 = 600;
/// How much later than the other one an end may start.
const LATER: u64 = 1000;

/// What can happen, once for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// The dial of a node, by its number, gets its answer.
    Connect(usize, u64),
    Accept(usize),
    /// Message number so-and-so of a connection, or its end, reaches a node.
    Deliver(usize, usize, u64),
}

/// A small generator: the same worlds on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// What a second connection met when its OPEN came.
#[derive(Default, Debug)]
struct Met {
    open_sent: u64,
    open_confirm: u64,
    established: u64,
}

impl Met {
    fn add(&mut self, other: &Met) {
        self.open_sent += other.open_sent;
        self.open_confirm += other.open_confirm;
        self.established += other.established;
    }
}

struct Pair {
    net: Network,
    /// When the second end starts.
    later: Millis,
    dice: Dice,
    /// The way from each node to the other takes as long as this and at most as much again.
    way: [u64; 2],
    due: BTreeMap<Event, Millis>,
    delivered: BTreeMap<(usize, usize), u64>,
    met: Met,
    /// Dials of each node whose connections exist, or do not any more.
    answered: [u64; 2],
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.below(2);
        let (mut a, mut b) = (spec(0, 1), spec(1, 0));
        match dice.below(3) {
            0 => {}
            1 => std::mem::swap(&mut a.open.router_id, &mut b.open.router_id),
            // RFC 6286: equal identifiers are told apart by the AS.
            _ => {
                let shared = RouterId("10.9.9.9".parse().unwrap());
                (a.open.router_id, b.open.router_id) = (shared, shared);
                let (low, high) = (Asn(64512), Asn(4_200_000_000));
                let (ours, theirs) = if dice.below(2) == 0 { (low, high) } else { (high, low) };
                (a.open.local_asn, a.open.peer_asn) = (ours, theirs);
                (b.open.local_asn, b.open.peer_asn) = (theirs, ours);
            }
        }
        if dice.below(4) == 0 {
            (a.next.restart_time, b.next.restart_time) = (None, None);
        }
        let longest = [1, 5, WAY / 10, WAY / 2][dice.below(4) as usize];
        let way = [dice.below(longest), dice.below(longest)];
        Pair {
            net: Network::seeded(a, b, seed * 2),
            later: Millis(dice.below(LATER)),
            dice,
            way,
            due: BTreeMap::new(),
            delivered: BTreeMap::new(),
            met: Met::default(),
            answered: [0, 0],
        }
    }

    fn dials(&self, node: usize) -> u64 {
        self.net.nodes[node].session.status().counters.dials
    }

    /// What can happen now, and is not before what it must follow.
    fn possible(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for node in 0..2 {
            if self.net.nodes[node].dialing {
                events.push(Event::Connect(node, self.dials(node)));
            }
        }
        for (at, tcp) in self.net.tcp.iter().enumerate() {
            if !tcp.accepted {
                events.push(Event::Accept(at));
            }
            for node in 0..2 {
                if self.net.can_deliver(at, node) {
                    let number = self.delivered.get(&(at, node)).copied().unwrap_or_default();
                    events.push(Event::Deliver(at, node, number));
                }
            }
        }
        events
    }

    /// A dial that was given up may have reached the other end all the same: it accepts, and hears that this is over.
    fn give_up_late(&mut self) {
        for node in 0..2 {
            let given_up = self.dials(node) - u64::from(self.net.nodes[node].dialing);
            while self.answered[node] < given_up {
                self.answered[node] += 1;
                if self.dice.below(2) == 0 {
                    let mut tcp = Tcp { dialled_by: node, ..Tcp::default() };
                    tcp.closed[node] = true;
                    self.net.tcp.push(tcp);
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connect(node, _) => {
                self.answered[node] += 1;
                assert!(self.net.connect(node));
            }
            Event::Accept(at) => assert!(self.net.accept(at)),
            Event::Deliver(at, node, _) => {
                *self.delivered.entry((at, node)).or_default() += 1;
                self.meet(at, node);
                assert!(self.net.deliver(at, node));
            }
        }
    }

    /// Counts what an OPEN beside another connection meets.
    fn meet(&mut self, at: usize, node: usize) {
        let open = self.net.tcp[at].to[node].get(18) == Some(&1);
        if open && self.net.nodes[node].slots.len() == 2 {
            *match self.net.state(node) {
                StateName::OpenSent => &mut self.met.open_sent,
                StateName::OpenConfirm => &mut self.met.open_confirm,
                StateName::Established => &mut self.met.established,
                other => panic!("two connections in {other}"),
            } += 1;
        }
    }

    /// Lets time pass, with everything that happens in it, up to a time or until `done`.
    fn run(&mut self, end: Millis, done: impl Fn(&Network) -> bool) {
        let mut later = (self.net.now == Millis(0)).then(|| (self.dice.below(2) as usize, self.later));
        if let Some((node, _)) = later {
            self.net.start(1 - node);
        }
        while !done(&self.net) {
            self.give_up_late();
            let possible = self.possible();
            self.due.retain(|event, _| possible.contains(event));
            for event in possible {
                let from = match event {
                    Event::Connect(node, _) => node,
                    Event::Accept(at) => self.net.tcp[at].dialled_by,
                    Event::Deliver(_, node, _) => 1 - node,
                };
                let ways = if matches!(event, Event::Connect(..)) {
                    self.way[0] + self.way[1]
                } else {
                    self.way[from]
                };
                let takes = Millis(ways + self.dice.below(ways + 2));
                let now = self.net.now;
                self.due.entry(event).or_insert(now + takes);
            }
            let next = self.due.iter().map(|(event, at)| (*at, *event)).min();
            let times = [next.map(|(at, _)| at), self.net.deadline(), later.map(|(_, at)| at)];
            let Some(at) = times.into_iter().flatten().min().filter(|at| *at <= end) else {
                self.net.now = end;
                return;
            };
            self.net.now = self.net.now.max(at);
            if let Some((node, _)) = later.filter(|(_, start)| *start <= at) {
                later = None;
                self.net.start(node);
            } else if let Some((_, event)) = next.filter(|(due, _)| *due <= at) {
                self.due.remove(&event);
                self.happen(event);
            } else {
                self.net.tick_due();
            }
        }
    }

    fn ups(&self) -> [u64; 2] {
        [0, 1].map(|node| self.net.nodes[node].session.status().counters.established)
    }
}

/// Both are up on the same connection, and there is no other.
fn settled(net: &Network) -> bool {
    let up = (net.established_on(0), net.established_on(1));
    up.0.is_some() && up.0 == up.1 && net.links() == 1
}

/// A thousand pairs of which both ends have started, within a second of each other.
fn thousand() -> impl Iterator<Item = Pair> {
    (1..=PAIRS).map(|seed| {
        let mut pair = Pair::new(seed);
        pair.run(Millis::secs(60), settled);
        assert!(settled(&pair.net), "pair {seed}: {:?}", [pair.net.state(0), pair.net.state(1)]);
        pair
    })
}

#[test]
fn of_a_thousand_pairs_that_dial_at_once_each_keeps_exactly_one_connection() {
    let mut met = Met::default();
    let mut slowest = [Millis(0); 2];
    for mut pair in thousand() {
        let near = pair.way.iter().all(|way| *way < 5);
        let took = pair.net.now - pair.later;
        slowest[usize::from(near)] = slowest[usize::from(near)].max(took);
        // Nothing moves any more, for longer than any timer runs; and nothing was up before that did not last.
        let end = pair.net.now + Millis::secs(600);
        pair.run(end, |net| !settled(net));
        assert!(settled(&pair.net) && pair.ups() == [1, 1], "{:?} {:?}", pair.ups(), pair.net.tcp);
        met.add(&pair.met);
    }
    let [far, near] = slowest;
    assert!(near <= Millis(300), "on one network: {near:?}");
    assert!(far <= Millis(6 * WAY), "three round trips: {far:?}");
    assert!(met.open_sent > 100 && met.open_confirm > 100, "{met:?}");
}

#[test]
fn a_thousand_pairs_of_which_one_end_vanishes_and_is_back_at_once_keep_one_connection_each() {
    let mut met = Met::default();
    let mut slowest = [Millis(0); 2];
    for mut pair in thousand() {
        let calm = pair.net.now + Millis(5000 + pair.dice.below(5000));
        pair.run(calm, |_| false);
        let before = pair.net.now;
        let gone = pair.dice.below(2) as usize;
        // A new process counts its dials from the start.
        pair.answered[gone] = 0;
        pair.net.crash(gone);
        pair.run(before + Millis::secs(600), settled);
        let graceful = pair.net.nodes[0].session.spec().next.restart_time.is_some();
        let took = pair.net.now - before;
        slowest[usize::from(graceful)] = slowest[usize::from(graceful)].max(took);
        let end = pair.net.now + Millis::secs(600);
        pair.run(end, |net| !settled(net));
        let ups = if gone == 0 { [1, 2] } else { [2, 1] };
        assert!(settled(&pair.net) && pair.ups() == ups, "{:?} {:?}", pair.ups(), pair.net.tcp);
        met.add(&pair.met);
    }
    let [plain, graceful] = slowest;
    assert!(graceful <= Millis(6 * WAY), "the new connection wins: {graceful:?}");
    assert!(plain <= Millis::secs(245), "the hold timer ends the old one: {plain:?}");
    assert!(met.established > 500, "{met:?}");
}
