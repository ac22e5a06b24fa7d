//! The law of every incremental step: whatever happened, and in whatever order, the outcome is that of a
//! start with what is true in the end. The kernel is the one in memory, and what it says goes through the
//! mirror, as in production.

use super::*;
use proptest::prelude::*;

use crate::fib::fake::FakeKernel;
use crate::fib::mirror::Mirror;

const PEERS: [(&str, u32); 4] =
    [("10.10.0.2", 64512), ("10.10.0.3", 64512), ("10.10.0.8", 65010), ("10.10.0.9", 65010)];
/// Those that filter by interface cover no next hop: a route that its own next hop is inside has no one answer.
const PREFIXES: [&str; 8] = [
    "10.244.1.0/26",
    "10.244.1.9/32",
    "172.28.0.0/16",
    "172.28.1.0/24",
    "192.0.2.0/24",
    "192.0.2.0/28",
    "10.10.0.0/24",
    "0.0.0.0/0",
];
const NEXT_HOPS: [&str; 8] = [
    "10.10.0.2",
    "10.10.0.3",
    "10.20.0.5",
    "172.28.1.5",
    "192.0.2.7",
    "10.10.0.1",
    "10.20.0.1",
    "198.51.100.9",
];
/// Names and addresses.
const LINKS: [(&str, &str); 3] =
    [("eth0", "10.10.0.1/24"), ("eth1", "10.20.0.1/24"), ("cali1", "192.0.2.1/25")];

#[derive(Clone, Debug)]
enum Op {
    Announce { peer: usize, prefix: usize, path_id: u32, next_hop: usize, rank: u8, path: u8 },
    Withdraw { peer: usize, prefix: usize, path_id: u32 },
    Up(usize),
    Down(usize),
    Static { prefix: usize, kind: u8 },
    Import { peer: usize, kind: u8 },
    KernelProgram(bool),
    Home(bool),
    Ignored(bool),
    Alien { prefix: usize, protocol: u8, metric: u32, link: usize, kind: u8 },
    AlienGone { prefix: usize, protocol: u8 },
    LinkUp { link: usize, up: bool },
    LinkGone(usize),
    LinkNew(usize),
    Rename { link: usize, to: usize },
    Address { link: usize, on: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..PEERS.len();
    let prefix = 0..PREFIXES.len();
    let link = 0..LINKS.len();
    let protocol = prop::sample::select(vec![4u8, 80]);
    let next_hop = 0..NEXT_HOPS.len();
    prop_oneof![
        10 => (peer.clone(), prefix.clone(), 0u32..2, next_hop, 0u8..4, 0u8..4).prop_map(
            |(peer, prefix, path_id, next_hop, rank, path)| Op::Announce {
                peer, prefix, path_id, next_hop, rank, path
            }
        ),
        3 => (peer.clone(), prefix.clone(), 0u32..2)
            .prop_map(|(peer, prefix, path_id)| Op::Withdraw { peer, prefix, path_id }),
        1 => peer.clone().prop_map(Op::Up),
        1 => peer.clone().prop_map(Op::Down),
        2 => (prefix.clone(), 0u8..4).prop_map(|(prefix, kind)| Op::Static { prefix, kind }),
        1 => (peer, 0u8..3).prop_map(|(peer, kind)| Op::Import { peer, kind }),
        1 => any::<bool>().prop_map(Op::KernelProgram),
        1 => any::<bool>().prop_map(Op::Home),
        1 => any::<bool>().prop_map(Op::Ignored),
        5 => (prefix.clone(), protocol.clone(), 0u32..3, link.clone(), 0u8..5).prop_map(
            |(prefix, protocol, metric, link, kind)| Op::Alien { prefix, protocol, metric, link, kind }
        ),
        2 => (prefix, protocol).prop_map(|(prefix, protocol)| Op::AlienGone { prefix, protocol }),
        2 => (link.clone(), any::<bool>()).prop_map(|(link, up)| Op::LinkUp { link, up }),
        1 => link.clone().prop_map(Op::LinkGone),
        2 => link.clone().prop_map(Op::LinkNew),
        1 => (link.clone(), 0..LINKS.len()).prop_map(|(link, to)| Op::Rename { link, to }),
        3 => (link, any::<bool>()).prop_map(|(link, on)| Op::Address { link, on }),
    ]
}

fn only_if(when: Vec<Match>, decision: Decision, rest: &Program) -> Arc<Program> {
    let rule = Rule { when, then: Vec::new(), decision: Some(decision), origin: String::new() };
    let rules = std::iter::once(rule).chain(rest.rules.iter().cloned()).collect();
    Arc::new(Program { rules, default: rest.default })
}

/// By peer, prefix and path id.
type Received = BTreeMap<(usize, usize, u32), (&'static str, Attributes)>;

struct World {
    kernel: FakeKernel,
    mirror: Mirror,
    links: [Option<u32>; LINKS.len()],
    bench: Bench,
    received: Received,
    up: [bool; PEERS.len()],
}

impl World {
    fn new() -> World {
        let mut kernel = FakeKernel::new();
        let links = LINKS.map(|(name, address)| {
            let index = kernel.add_link(name);
            kernel.add_address(index, address);
            Some(index)
        });
        let mut state = state();
        for (addr, asn) in PEERS {
            let peer = peer(addr, asn);
            state.peers.insert(peer.key.clone(), Arc::new(peer));
        }
        World::start(kernel, links, state, BTreeMap::new(), [true; PEERS.len()])
    }

    fn start(
        mut kernel: FakeKernel,
        links: [Option<u32>; LINKS.len()],
        state: DesiredState,
        received: Received,
        up: [bool; PEERS.len()],
    ) -> World {
        let mut mirror = Mirror::new();
        mirror.load(kernel.snapshot());
        let mut world = World { kernel, mirror, links, bench: Bench::new(state), received, up };
        world.pump();
        world.bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
        world.bench.past_recovery();
        for n in (0..PEERS.len()).filter(|n| up[*n]) {
            world.bring_up(n);
        }
        for ((peer, prefix, path_id), (next_hop, attributes)) in world.received.clone() {
            world.announce(peer, prefix, path_id, next_hop, attributes);
        }
        world
    }

    fn bring_up(&mut self, n: usize) {
        let id = self.bench.id(PEERS[n].0);
        // Path ids only from them to us: those that we choose depend on what was before, and may.
        self.bench.up_with(id, |negotiated| negotiated.context.add_path_rx = negotiated.context.families);
    }

    fn announce(&mut self, n: usize, prefix: usize, path_id: u32, next_hop: &str, attributes: Attributes) {
        let id = self.bench.id(PEERS[n].0);
        self.bench.announce_path(id, PREFIXES[prefix], path_id, next_hop, attributes);
    }

    /// What the kernel said reaches the speaker.
    fn pump(&mut self) {
        for notice in self.kernel.take_notices() {
            self.mirror.apply(notice);
        }
        if self.mirror.is_doubtful() {
            self.mirror.load(self.kernel.snapshot());
        }
        while let Some(event) = self.mirror.next_event() {
            self.bench.tell(SpeakerInput::Kernel(event));
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Announce { peer, prefix, path_id, next_hop, rank, path } if self.up[peer] => {
                let ranks = [Some(100), Some(200), Some(MAX_METRIC - 1024), Some(MAX_METRIC - 512)];
                let paths: [&[u32]; 4] = [&[], &[65010], &[65010, 65011], &[65010, 64512]];
                let mut attributes = attributes(ranks[usize::from(rank)], paths[usize::from(path)]);
                attributes.med = (path == 1).then_some(path_id);
                let next_hop = NEXT_HOPS[next_hop];
                self.received.insert((peer, prefix, path_id), (next_hop, attributes.clone()));
                self.announce(peer, prefix, path_id, next_hop, attributes);
            }
            Op::Withdraw { peer, prefix, path_id } if self.up[peer] => {
                self.received.remove(&(peer, prefix, path_id));
                self.bench.withdraw(self.bench.id(PEERS[peer].0), PREFIXES[prefix], path_id);
            }
            Op::Up(peer) if !self.up[peer] => {
                self.up[peer] = true;
                self.bring_up(peer);
            }
            Op::Down(peer) if self.up[peer] => {
                self.up[peer] = false;
                let id = self.bench.id(PEERS[peer].0);
                self.bench.tell(SpeakerInput::PeerDown(id));
                self.bench.neighbours.remove(&id);
                self.received.retain(|(from, _, _), _| *from != peer);
            }
            Op::Static { prefix, kind } => self.bench.desire(|state| {
                let prefix = PREFIXES[prefix].parse().unwrap();
                match kind {
                    0 => state.v4.statics.insert(prefix, StaticRoute::Blackhole),
                    1 => state.v4.statics.insert(prefix, StaticRoute::Via([10, 20, 0, 7].into())),
                    2 => state.v4.statics.insert(prefix, StaticRoute::Via([192, 0, 2, 9].into())),
                    _ => state.v4.statics.remove(&prefix),
                };
            }),
            Op::Import { peer, kind } => self.bench.desire(|state| {
                let peer = Arc::make_mut(state.peers.get_mut(&key(PEERS[peer].0)).unwrap());
                let pods = Match::Within(prefix("10.244.0.0/16"));
                match kind {
                    0 => peer.treatment.import = elevate(),
                    1 => {
                        let when = vec![pods, Match::Interface("eth*".into())];
                        peer.treatment.import = only_if(when, Decision::Reject, &elevate());
                    }
                    _ => peer.treatment.allow_own_as ^= 1,
                }
            }),
            Op::KernelProgram(picky) => self.bench.desire(|state| {
                let when = vec![Match::Interface("cali*".into())];
                state.v4.kernel = match picky {
                    true => only_if(when, Decision::Reject, &kernel_program()),
                    false => kernel_program(),
                };
            }),
            Op::Home(there) => self.bench.desire(|state| {
                let subnet = Prefix::new([10, 10, 0, 0].into(), 24).unwrap();
                let address = NodeAddress { addr: [10, 10, 0, 1].into(), subnet };
                state.node.ipv4 = there.then_some(address);
            }),
            Op::Ignored(more) => self.bench.desire(|state| {
                state.v4.ignored_interfaces = vec!["cali*".into()];
                if more {
                    state.v4.ignored_interfaces.push("eth1*".into());
                }
            }),
            Op::Alien { prefix: to, protocol, metric, link, kind } => {
                let name = self.links[link].and_then(|index| self.mirror.link(index));
                let name = name.map_or(String::new(), |link| link.name.clone());
                let gateway = ["10.10.0.254", "10.20.0.254", "192.0.2.3"][link].parse().unwrap();
                // The kernel takes no route over a link that is down.
                let up = self.links[link].is_some_and(|index| self.mirror.link(index).is_some_and(|l| l.up));
                let target = match kind {
                    0 => Some(Target::Blackhole),
                    _ if !up => None,
                    1 => self.kernel.via(None, &name, false),
                    2 => self.kernel.via(Some(gateway), &name, true),
                    _ => self.kernel.via(Some(gateway), &name, false),
                };
                if let Some(target) = target {
                    self.kernel.add_route(prefix(PREFIXES[to]), protocol, metric, target);
                }
            }
            Op::AlienGone { prefix: to, protocol } => {
                self.kernel.remove_route(prefix(PREFIXES[to]), protocol)
            }
            Op::LinkUp { link, up } => {
                if let Some(index) = self.links[link] {
                    self.kernel.set_link(index, up);
                }
            }
            Op::LinkGone(link) => {
                if let Some(index) = self.links[link].take() {
                    self.kernel.remove_link(index);
                }
            }
            // The index of a link that went is used again.
            Op::LinkNew(link) if self.links[link].is_none() => {
                self.links[link] = Some(self.kernel.add_link(LINKS[link].0));
            }
            Op::Rename { link, to } => {
                if let Some(index) = self.links[link] {
                    // Twice the same name would not be possible.
                    self.kernel.rename_link(index, &format!("{}.{index}", LINKS[to].0));
                }
            }
            Op::Address { link, on } => {
                let (_, address) = LINKS[link];
                let (addr, _) = address.split_once('/').unwrap();
                if let Some(index) = self.links[link] {
                    self.kernel.remove_address(index, ip(addr));
                    if on {
                        self.kernel.add_address(index, address);
                    }
                }
            }
            _ => (),
        }
        self.pump();
    }

    /// A daemon that starts now.
    fn again(&self) -> World {
        let (kernel, state) = (self.kernel.clone(), self.bench.state.clone());
        World::start(kernel, self.links, state, self.received.clone(), self.up)
    }

    /// The table as people see it, but for the ids under which paths are sent: they are what was free when a path came.
    fn table(&self) -> Vec<String> {
        let mut routes = self.bench.speaker.routes(Afi::Ipv4, None, usize::MAX);
        routes.iter_mut().flat_map(|route| &mut route.paths).for_each(|path| path.out_id = 0);
        routes.iter().map(|route| format!("{route:#?}")).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_the_outcome_is_that_of_a_start_with_what_is_true_now(
        ops in prop::collection::vec(op(), 0..80)
    ) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
        }
        let mut fresh = world.again();
        prop_assert_eq!(&world.bench.fib, &fresh.bench.fib);
        prop_assert_eq!(world.table(), fresh.table());
        world.bench.drain_all();
        fresh.bench.drain_all();
        for (n, (addr, _)) in PEERS.iter().enumerate().filter(|(n, _)| world.up[*n]) {
            let held = |world: &World| world.bench.neighbours[&world.bench.id(PEERS[n].0)].held.clone();
            prop_assert_eq!(held(&world), held(&fresh), "{}", addr);
        }
    }
}
