//! What is done to all paths of a peer is done in parts; whatever comes between two parts, the outcome is as if it had
//! been done at once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::{Asn, RouterId};
use crate::prefix::V4;
use crate::wire::Nlri;

const SLOTS: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    Announce {
        slot: u32,
        prefix: u32,
        path_id: u32,
        med: u32,
    },
    Withdraw {
        slot: u32,
        prefix: u32,
        path_id: u32,
    },
    Age(u32),
    AgeMore(u32),
    SweepStale(u32),
    Sweep(u32),
    /// The session is another one: its routes compare anew.
    Peer {
        slot: u32,
        router_id: u8,
    },
    Remove(u32),
    /// A route of ours comes or goes.
    Local {
        prefix: u32,
        there: bool,
    },
    /// There is time for so much.
    Part(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (slot, prefix, path_id) = (0..SLOTS, 0..6u32, 0..3u32);
    let route = (slot.clone(), prefix.clone(), path_id);
    prop_oneof![
        8 => (route.clone(), 0..3u32)
            .prop_map(|((slot, prefix, path_id), med)| Op::Announce { slot, prefix, path_id, med }),
        2 => route.prop_map(|(slot, prefix, path_id)| Op::Withdraw { slot, prefix, path_id }),
        2 => slot.clone().prop_map(Op::Age),
        1 => slot.clone().prop_map(Op::AgeMore),
        1 => slot.clone().prop_map(Op::SweepStale),
        1 => slot.clone().prop_map(Op::Sweep),
        1 => (slot.clone(), 1..4u8).prop_map(|(slot, router_id)| Op::Peer { slot, router_id }),
        1 => slot.prop_map(Op::Remove),
        1 => (prefix, any::<bool>()).prop_map(|(prefix, there)| Op::Local { prefix, there }),
        4 => (0..4usize).prop_map(Op::Part),
    ]
}

fn prefix(n: u32) -> Prefix<V4> {
    Prefix::from_parts(0x0a00_0000 + (n << 8), 24).unwrap()
}

fn peer(slot: u32, router_id: u8) -> SourcePeer {
    SourcePeer {
        asn: Asn(64512),
        local_asn: Asn(64512),
        router_id: RouterId([router_id, 0, 0, 1].into()),
        addr: std::net::IpAddr::from([172, 16, 0, 2 + u8::try_from(slot).unwrap()]),
        internal: true,
        rr_client: None,
    }
}

fn step(rib: &mut Rib<V4>, up: &mut [bool], op: &Op) {
    match *op {
        Op::Announce { slot, prefix: n, path_id, med } => {
            let Some(place) = up.get_mut(usize::try_from(slot).unwrap()) else { return };
            if !std::mem::replace(place, true) {
                rib.set_peer(slot, peer(slot, 9));
            }
            let profile = ImportProfile {
                internal: true,
                local_asn: Asn(64512),
                router_id: RouterId([10, 0, 0, 1].into()),
                rr_client: None,
                allow_own_as: 0,
            };
            let rules = ImportRules { profile, policy: &policy::AcceptAll, interface: &|_| "" };
            // One of the three must not become long-lived stale.
            let communities = if med == 2 { [NO_LLGR].into() } else { Default::default() };
            let attributes = Attributes { med: Some(med), communities, ..Attributes::default() };
            let nlri = [Nlri { path_id, prefix: prefix(n) }];
            rib.announce(slot, &rules, attributes, NextHop::V4([172, 16, 0, 2].into()), &nlri);
        }
        Op::Withdraw { slot, prefix: n, path_id } => {
            rib.withdraw(slot, Nlri { path_id, prefix: prefix(n) });
        }
        Op::Age(slot) => rib.mark_stale(slot),
        Op::AgeMore(slot) => rib.mark_long_lived_stale(slot),
        Op::SweepStale(slot) => rib.sweep_stale(slot),
        Op::Sweep(slot) => rib.sweep(slot),
        Op::Peer { slot, router_id } => {
            rib.set_peer(slot, peer(slot, router_id));
            if let Some(place) = up.get_mut(usize::try_from(slot).unwrap()) {
                *place = true;
            }
        }
        Op::Remove(slot) => {
            rib.remove_peer(slot);
            if let Some(place) = up.get_mut(usize::try_from(slot).unwrap()) {
                *place = false;
            }
        }
        Op::Local { prefix: n, there: true } => rib.put_local(prefix(n), LocalRoute::Blackhole),
        Op::Local { prefix: n, there: false } => rib.remove_local(prefix(n), LocalSource::Static),
        Op::Part(_) => {}
    }
}

/// All that can be seen of the paths but the ids that they are sent under, which depend on the order of things.
fn view(rib: &Rib<V4>) -> Vec<String> {
    let paths = |dest: &Dest<V4>| -> Vec<String> {
        let path = |path: &Path<V4>| {
            let attributes = match &path.kind {
                PathKind::Bgp(bgp) => Some((rib.attrs(bgp.got).clone(), rib.attrs(bgp.used).clone())),
                _ => None,
            };
            format!("{:?} {} {:?} {attributes:?}", path.source(), path.path_id, path.freshness)
        };
        dest.paths.iter().map(path).collect()
    };
    let dests = rib.dests(None);
    dests.map(|(_, dest)| format!("{} {:?} {:?}", dest.prefix, dest.best_index(), paths(dest))).collect()
}

/// What was made of the changes that were told: by prefix and path id sent, what stands there.
#[derive(Default)]
struct Seen(BTreeMap<Prefix<V4>, BTreeMap<u32, String>>);

impl Seen {
    fn paths(rib: &Rib<V4>, prefix: Prefix<V4>) -> BTreeMap<u32, String> {
        let paths = rib.dest_of(prefix).into_iter().flat_map(|dest| &dest.paths);
        paths.map(|path| (path.out_id, format!("{:?}", path.kind))).collect()
    }

    fn hear(&mut self, rib: &mut Rib<V4>) {
        for (id, moved) in rib.take_moves() {
            let prefix = rib.prefix(id).unwrap();
            let now = Seen::paths(rib, prefix);
            let seen = self.0.entry(prefix).or_default();
            match moved {
                None => *seen = now,
                Some(moved) => {
                    for out_id in moved {
                        match now.get(&out_id) {
                            Some(path) => drop(seen.insert(out_id, path.clone())),
                            None => drop(seen.remove(&out_id)),
                        }
                    }
                }
            }
        }
        rib.free_ids();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_done_in_parts_ends_as_what_is_done_at_once(ops in prop::collection::vec(op(), 0..150)) {
        let (mut once, mut parts) = (Rib::new(1), Rib::new(1));
        let (mut up_once, mut up_parts) = ([false; SLOTS as usize], [false; SLOTS as usize]);
        let mut seen = Seen::default();
        for op in &ops {
            step(&mut once, &mut up_once, op);
            once.settle();
            once.take_changes();
            once.free_ids();
            step(&mut parts, &mut up_parts, op);
            if let Op::Part(work) = op {
                parts.settle_part(&mut work.clone());
                seen.hear(&mut parts);
            }
        }
        parts.settle();
        seen.hear(&mut parts);
        for (prefix, paths) in &seen.0 {
            prop_assert_eq!(paths, &Seen::paths(&parts, *prefix), "{}", prefix);
        }
        prop_assert!(!parts.is_busy());
        prop_assert_eq!(view(&parts), view(&once));
        prop_assert_eq!(parts.attr_sets(), once.attr_sets());
        for slot in 0..SLOTS {
            prop_assert_eq!(parts.peer(slot), once.peer(slot));
        }
    }
}
