//! Model check by small worlds (RFC 4271 §6.8, §8; T3, T4): two sessions and every interleaving of connect, accept,
//! message, time and fault up to a bound. Never two survivors, never stuck, always established again once faults stop.
//!
//! A state is what both sessions hold (but for counters and history) with all times replaced by their order, and what
//! is on the way between them. States that agree in that are explored once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, reason = "the size of the search is worth seeing")]

mod session_wire;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};

use bgp_proto::Millis;
use bgp_proto::session::{CloseCause, DialError, Input, NextOpen, PeerSpec, StateName};
use bgp_proto::wire::Notification;
use session_wire::{Network, spec};

/// One step of the world.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connect(usize),
    Accept(usize),
    Deliver(usize, usize),
    /// The next timer runs out before anything else happens.
    Tick,
    // Faults.
    RefuseDial(usize),
    Lose(usize, usize),
    Crash(usize),
    Cease(usize),
    ProtocolError(usize),
}

impl Step {
    fn is_fault(self) -> bool {
        !matches!(self, Step::Connect(_) | Step::Accept(_) | Step::Deliver(..))
    }
}

fn steps(net: &Network) -> Vec<Step> {
    let mut steps = Vec::new();
    for node in 0..2 {
        if net.nodes[node].dialing {
            steps.extend([Step::Connect(node), Step::RefuseDial(node)]);
        }
    }
    for (at, tcp) in net.tcp.iter().enumerate() {
        if !tcp.accepted && !tcp.gone() {
            steps.push(Step::Accept(at));
        }
        for node in 0..2 {
            if net.can_deliver(at, node) {
                steps.push(Step::Deliver(at, node));
            }
            if tcp.slot[node].is_some() {
                steps.push(Step::Lose(at, node));
            }
        }
    }
    for node in 0..2 {
        steps.push(Step::Crash(node));
        if net.state(node) >= StateName::OpenSent {
            steps.extend([Step::Cease(node), Step::ProtocolError(node)]);
        }
    }
    steps.push(Step::Tick);
    steps
}

fn take(net: &mut Network, step: Step) {
    match step {
        Step::Connect(node) => assert!(net.connect(node)),
        Step::Accept(at) => assert!(net.accept(at)),
        Step::Deliver(at, node) => assert!(net.deliver(at, node)),
        Step::Tick => net.tick(),
        Step::RefuseDial(node) => assert!(net.refuse_dial(node, DialError::Refused)),
        Step::Lose(at, node) => assert!(net.lose(at, node, CloseCause::Reset)),
        Step::Crash(node) => net.crash(node),
        Step::Cease(node) => net.input(node, Input::Close(Notification::new(6, 8)), None),
        Step::ProtocolError(node) => net.input(node, Input::Close(Notification::new(5, 0)), None),
    }
}

/// Names the path when a step of it panics.
struct Shown<'a>(&'a [Step]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("path: {:?}", self.0);
        }
    }
}

/// What tells two states apart.
fn fingerprint(net: &Network, hasher: &impl BuildHasher) -> u64 {
    let mut text = String::new();
    for node in &net.nodes {
        let session = format!("{:?}", node.session);
        let core = session.split(", record: ").next().unwrap();
        write!(text, "{core} {:?} {:?};", node.slots, node.dialing).unwrap();
    }
    for tcp in &net.tcp {
        if !tcp.gone() {
            write!(text, "{tcp:?}").unwrap();
        }
    }
    // Times count by their order only.
    let times: BTreeSet<u64> = text
        .split("Millis(")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap().parse().unwrap())
        .chain([net.now.0])
        .collect();
    let mut hash = hasher.build_hasher();
    let mut parts = text.split("Millis(");
    hash.write(parts.next().unwrap().as_bytes());
    for part in parts {
        let (time, rest) = part.split_once(')').unwrap();
        hash.write_usize(times.range(..time.parse::<u64>().unwrap()).count());
        hash.write(rest.as_bytes());
    }
    hash.write_usize(times.range(..net.now.0).count());
    hash.finish()
}

/// Two sessions are not up on two different connections that both work.
fn check_one_survivor(net: &Network, path: &[Step]) {
    let up = |node: usize| net.established_on(node).filter(|at| net.tcp[*at].works());
    if let (Some(a), Some(b)) = (up(0), up(1)) {
        assert_eq!(a, b, "two survivors after {path:?}");
    }
}

/// Both are up on the same connection, and there is no other.
fn same(net: &Network) -> bool {
    let up = (net.established_on(0), net.established_on(1));
    up.0.is_some() && up.0 == up.1 && net.links() == 1
}

/// From here on nothing fails: the session comes up, on one connection, and stays up.
fn check_recovers(net: &Network, path: &[Step]) {
    let _shown = Shown(path);
    let mut net = net.clone();
    let limit = net.now + Millis::secs(150);
    net.settle();
    while !same(&net) {
        assert!(net.now < limit, "not established after {path:?}: {:?}", [net.state(0), net.state(1)]);
        net.tick();
        net.settle();
    }
    let ups = |net: &Network| -> u64 {
        net.nodes.iter().map(|node| node.session.status().counters.established).sum()
    };
    let before = ups(&net);
    net.run_until(net.now + Millis::secs(35));
    assert!(same(&net) && ups(&net) == before, "flaps after {path:?}");
}

struct Search {
    hasher: std::hash::BuildHasherDefault<std::hash::DefaultHasher>,
    seen: hashbrown::HashMap<u64, (usize, usize), foldhash::fast::FixedState>,
    recoveries: usize,
    /// Ways in which an undisturbed start can end.
    ends: usize,
}

impl Search {
    fn explore(&mut self, net: &Network, depth: usize, faults: usize, path: &mut Vec<Step>) {
        check_one_survivor(net, path);
        let print = fingerprint(net, &self.hasher);
        match self.seen.get(&print) {
            // Explored with at least as much left to do.
            Some((d, f)) if *d >= depth && *f >= faults => return,
            Some(_) => {}
            None => {
                self.recoveries += 1;
                check_recovers(net, path);
            }
        }
        self.seen.insert(print, (depth, faults));
        if depth == 0 {
            return;
        }
        let quiet = path.iter().all(|step| !step.is_fault());
        if quiet && steps(net).into_iter().all(Step::is_fault) {
            // Everything has happened that needs no time: a collision has cost none.
            assert!(same(net), "waits for a timer after {path:?}");
            self.ends += 1;
        }
        for step in steps(net) {
            if step.is_fault() && faults == 0 {
                continue;
            }
            let mut next = net.clone();
            path.push(step);
            let shown = Shown(path);
            take(&mut next, step);
            drop(shown);
            self.explore(&next, depth - 1, faults - usize::from(step.is_fault()), path);
            path.pop();
        }
    }
}

fn explore(a: PeerSpec, b: PeerSpec, depth: usize, faults: usize) -> usize {
    let mut net = Network::new(a, b);
    net.keep_log = false;
    net.start(0);
    net.start(1);
    let mut search = Search {
        hasher: std::hash::BuildHasherDefault::default(),
        seen: hashbrown::HashMap::default(),
        recoveries: 0,
        ends: 0,
    };
    search.explore(&net, depth, faults, &mut Vec::new());
    eprintln!("depth {depth}, faults {faults}: {} states, {} ends", search.seen.len(), search.ends);
    assert!(search.ends > 0 || depth < 20);
    search.seen.len()
}

fn with(us: usize, peer: usize, change: impl Fn(&mut NextOpen)) -> PeerSpec {
    let mut spec = spec(us, peer);
    spec.next.hold_time = 30;
    spec.next.open_hold = 30;
    change(&mut spec.next);
    spec
}

#[test]
fn two_sessions_that_both_dial_end_with_one_connection_in_every_order_of_events() {
    let graceful = |_: &mut NextOpen| {};
    assert!(explore(with(0, 1, graceful), with(1, 0, graceful), 22, 0) > 100);
}

#[test]
fn they_recover_from_two_faults_at_any_moment() {
    let graceful = |_: &mut NextOpen| {};
    assert!(explore(with(0, 1, graceful), with(1, 0, graceful), 9, 2) > 1000);
}

#[test]
fn they_recover_without_graceful_restart() {
    let plain = |next: &mut NextOpen| next.restart_time = None;
    assert!(explore(with(0, 1, plain), with(1, 0, plain), 9, 2) > 1000);
}

#[test]
fn they_recover_where_one_side_is_passive() {
    let passive = |next: &mut NextOpen| next.passive = true;
    let dials = |_: &mut NextOpen| {};
    assert!(explore(with(0, 1, dials), with(1, 0, passive), 12, 3) > 1000);
}
