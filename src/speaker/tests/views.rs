//! Laws that hold whatever happens in which order.

use super::*;
use bgp_proto::ClusterId;
use bgp_proto::rib::{Path, PathKind, PathView, Source, export};
use proptest::prelude::*;

use crate::speaker::fib_out::wanted;

/// Internal, internal with path ids, client, external with path ids.
const PEERS: [(&str, u32); 4] =
    [("10.10.0.2", 64512), ("10.10.0.3", 64512), ("10.10.0.4", 64512), ("10.10.0.9", 65010)];
const PREFIXES: [&str; 6] =
    ["10.244.1.0/26", "10.244.1.9/32", "172.28.0.0/16", "172.28.1.0/24", "192.0.2.0/24", "0.0.0.0/0"];
const NEXT_HOPS: [&str; 6] = ["10.10.0.2", "10.10.0.3", "10.10.7.7", "172.28.1.5", "192.0.2.7", "10.10.0.1"];

#[derive(Clone, Debug)]
enum Op {
    Announce { peer: usize, prefix: usize, path_id: u32, next_hop: usize, local_pref: u32, path: u32 },
    Withdraw { peer: usize, prefix: usize, path_id: u32 },
    Own { prefix: usize, on: bool },
    Alien { prefix: usize, kind: u8 },
    Address { on: bool },
    Treat { peer: usize, kind: u8 },
    Up(usize),
    Down(usize),
    Stale(usize),
    MarkStale(usize),
    Sweep(usize),
    Refresh(usize),
    Read { peer: usize, budget: usize },
    Replace(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..PEERS.len();
    let prefix = 0..PREFIXES.len();
    prop_oneof![
        8 => (peer.clone(), prefix.clone(), 0u32..3, 0..NEXT_HOPS.len(), 0u32..4, 0u32..3).prop_map(
            |(peer, prefix, path_id, next_hop, local_pref, path)| Op::Announce {
                peer, prefix, path_id, next_hop, local_pref, path
            }
        ),
        4 => (peer.clone(), prefix.clone(), 0u32..3)
            .prop_map(|(peer, prefix, path_id)| Op::Withdraw { peer, prefix, path_id }),
        2 => (prefix.clone(), any::<bool>()).prop_map(|(prefix, on)| Op::Own { prefix, on }),
        2 => (prefix, 0u8..4).prop_map(|(prefix, kind)| Op::Alien { prefix, kind }),
        1 => any::<bool>().prop_map(|on| Op::Address { on }),
        2 => (peer.clone(), 0u8..5).prop_map(|(peer, kind)| Op::Treat { peer, kind }),
        2 => peer.clone().prop_map(Op::Up),
        1 => peer.clone().prop_map(Op::Down),
        1 => peer.clone().prop_map(Op::Stale),
        1 => peer.clone().prop_map(Op::MarkStale),
        1 => peer.clone().prop_map(Op::Sweep),
        2 => peer.clone().prop_map(Op::Refresh),
        8 => (peer.clone(), 1usize..300).prop_map(|(peer, budget)| Op::Read { peer, budget }),
        1 => peer.prop_map(Op::Replace),
    ]
}

struct Play {
    bench: Bench,
    /// Peers whose session is up; BGP has no UPDATE without one.
    up: [bool; PEERS.len()],
}

impl Play {
    fn new() -> Play {
        let mut peers = PEERS.map(|(addr, asn)| peer(addr, asn));
        peers[2].treatment.rr_client = Some(ClusterId([1, 1, 1, 1].into()));
        let mut play = Play { bench: Bench::settled(&peers), up: [false; PEERS.len()] };
        for n in 0..PEERS.len() {
            play.bring_up(n);
        }
        play
    }

    fn id(&self, n: usize) -> PeerId {
        self.bench.id(PEERS[n].0)
    }

    fn bring_up(&mut self, n: usize) {
        let id = self.id(n);
        self.bench.up_with(id, |negotiated| {
            if n % 2 == 1 {
                negotiated.context.add_path_rx = negotiated.context.families;
                negotiated.context.add_path_tx = negotiated.context.families;
                negotiated.enhanced_refresh = true;
            }
        });
        self.up[n] = true;
    }

    fn lose(&mut self, n: usize, input: SpeakerInput) {
        self.bench.tell(input);
        self.bench.neighbours.remove(&self.id(n));
        self.up[n] = false;
    }

    fn step(&mut self, op: Op) {
        let bench = &mut self.bench;
        match op {
            Op::Announce { peer, prefix, path_id, next_hop, local_pref, path } if self.up[peer] => {
                let path_id = if peer % 2 == 1 { path_id } else { 0 };
                let path: &[u32] = match path {
                    0 => &[],
                    1 => &[65010],
                    _ => &[65010, 64512],
                };
                let local_pref = [100, 200, MAX_METRIC - 1024, MAX_METRIC - 512][local_pref as usize];
                let id = bench.id(PEERS[peer].0);
                let attributes = attributes(Some(local_pref), path);
                bench.announce_path(id, PREFIXES[prefix], path_id, NEXT_HOPS[next_hop], attributes);
            }
            Op::Withdraw { peer, prefix, path_id } if self.up[peer] => {
                bench.withdraw(bench.id(PEERS[peer].0), PREFIXES[prefix], path_id);
            }
            Op::Own { prefix, on } => bench.desire(|state| {
                let prefix = PREFIXES[prefix].parse().unwrap();
                if on {
                    state.v4.statics.insert(prefix, StaticRoute::Blackhole);
                } else {
                    state.v4.statics.remove(&prefix);
                }
            }),
            Op::Alien { prefix, kind } => {
                let target = match kind {
                    0 => None,
                    1 => Some(gateway("10.10.0.254", 2)),
                    2 => Some(device(2)),
                    _ => Some(Target::Blackhole),
                };
                bench.alien(PREFIXES[prefix], target, u32::from(kind) * 512);
            }
            Op::Address { on } => bench.link(2, "eth0", if on { &["10.10.0.1/24"] } else { &[] }),
            Op::Treat { peer, kind } => bench.desire(|state| {
                let peer = Arc::make_mut(state.peers.get_mut(&key(PEERS[peer].0)).unwrap());
                let treatment = &mut peer.treatment;
                match kind {
                    0 => treatment.next_hop = NextHopRule::SelfAddress,
                    1 => treatment.next_hop = NextHopRule::Auto,
                    2 => treatment.allow_own_as ^= 1,
                    3 => treatment.export = Arc::new(Program::always(Decision::Reject)),
                    _ => treatment.export = normalise(),
                }
            }),
            Op::Up(peer) => self.bring_up(peer),
            Op::Down(peer) if self.up[peer] => self.lose(peer, SpeakerInput::PeerDown(self.id(peer))),
            Op::Stale(peer) if self.up[peer] => {
                self.lose(peer, SpeakerInput::Stale(self.id(peer), AfiSet::only(Afi::Ipv4)));
            }
            Op::MarkStale(peer) => bench.tell(SpeakerInput::MarkStale(bench.id(PEERS[peer].0), Afi::Ipv4)),
            Op::Sweep(peer) => bench.tell(SpeakerInput::SweepStale(bench.id(PEERS[peer].0), Afi::Ipv4)),
            Op::Refresh(peer) => {
                bench.tell(SpeakerInput::RefreshRequested(bench.id(PEERS[peer].0), Afi::Ipv4));
            }
            Op::Read { peer, budget } if self.up[peer] => {
                bench.read(bench.id(PEERS[peer].0), budget);
            }
            Op::Replace(n) => {
                // Out and in again under a new handle.
                let old = self.id(n);
                let key = key(PEERS[n].0);
                let bench = &mut self.bench;
                let peer = bench.state.peers[&key].clone();
                bench.desire(|state| {
                    state.peers.remove(&key);
                });
                bench.neighbours.remove(&old);
                bench.now = bench.now + Millis(1);
                bench.desire(|state| {
                    state.peers.insert(key.clone(), peer);
                });
                self.up[n] = false;
            }
            _ => (),
        }
    }

    /// What export gives for the table as it is, path by path: nothing of groups, entries or bits.
    fn expected(&self, n: usize) -> Held {
        let speaker = &self.bench.speaker;
        let (peer, rib) = (speaker.peers.get(self.id(n)).unwrap(), &speaker.v4.rib);
        let profile = peer.export_profile(Afi::Ipv4).unwrap();
        let policy = Bound { program: &peer.desired.treatment.export, sets: &speaker.v4.sets };
        let mut held = Held::new();
        for dest in rib.dests(None).map(|(_, dest)| dest) {
            let prefix = dest.prefix;
            let paths: Vec<(u32, &Path<V4>)> = match profile.add_path {
                true => dest.paths.iter().filter(|p| p.eligible()).map(|path| (path.out_id, path)).collect(),
                false => dest.best().into_iter().map(|path| (0, path)).collect(),
            };
            for (path_id, path) in paths {
                let slot = match path.source() {
                    Source::Peer(slot) => Some(slot),
                    _ => None,
                };
                if slot == Some(peer.id.slot) {
                    continue;
                }
                let set = match &path.kind {
                    PathKind::Bgp(bgp) => Some(rib.attrs(bgp.used)),
                    _ => None,
                };
                let forward = rib.forward(path);
                let view = PathView {
                    prefix: prefix.into(),
                    source: path.source(),
                    from: slot.and_then(|slot| rib.peer(slot)),
                    attributes: set.map(|set| &set.attributes),
                    next_hop: set.and_then(|set| set.next_hop),
                    interface: speaker.interfaces.name_of(&forward),
                    forward: &forward,
                    metric: match &path.kind {
                        PathKind::Kernel(route) => Some(route.metric),
                        _ => None,
                    },
                };
                if let Some(route) = export(&profile, &view, &policy)
                    && route.next_hop.addr() != peer.addr
                {
                    held.insert((prefix.into(), path_id), (route.attributes, route.next_hop));
                }
            }
        }
        held
    }

    fn check_kernel(&self) {
        let speaker = &self.bench.speaker;
        let table = &speaker.v4;
        let program = Bound { program: &table.kernel, sets: &table.sets };
        let mut expected = BTreeMap::new();
        for prefix in table.rib.dests(None).map(|(_, dest)| dest.prefix) {
            let id = table.rib.id(prefix).unwrap();
            let wanted = wanted(&table.rib, &speaker.interfaces, program, id);
            expected.extend(wanted.wish.route().map(|route| (IpPrefix::from(prefix), route.clone())));
        }
        assert_eq!(self.bench.fib, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_between_reads_each_peer_ends_with_what_export_gives(
        ops in prop::collection::vec(op(), 0..120)
    ) {
        let mut play = Play::new();
        for op in ops {
            play.step(op);
            play.check_kernel();
        }
        play.bench.drain_all();
        for (n, (addr, _)) in PEERS.iter().enumerate().filter(|(n, _)| play.up[*n]) {
            prop_assert_eq!(&play.bench.neighbours[&play.id(n)].held, &play.expected(n), "{}", addr);
        }
        // Nothing is kept of what is gone.
        play.bench.desire(|state| {
            state.peers.clear();
            state.v4.statics.clear();
        });
        play.bench.neighbours.clear();
        for prefix in PREFIXES {
            play.bench.alien(prefix, None, 0);
        }
        play.bench.link(2, "eth0", &[]);
        let table = &play.bench.speaker.v4;
        prop_assert!(table.rib.is_empty());
        prop_assert_eq!(table.rib.attr_sets(), 0);
        prop_assert!(table.rib.next_hops().is_empty());
        prop_assert!(play.bench.fib.is_empty());
    }
}
