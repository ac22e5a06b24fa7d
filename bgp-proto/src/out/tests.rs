//! Laws of Adj-RIB-Out. What a reader shall hold is told by a plain map of what was put in; what it holds is decoded from
//! the octets that it read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::ids::{Asn, ClusterId, DestId};
use crate::prefix::{Afi, Prefix, V4};
use crate::rib::{AttrTable, ExportProfile, NextHopRule, ProgramId};
use crate::wire::refresh::RefreshKind;
use crate::wire::{Attributes, Context, Message, NextHop, NlriList, decode, frame};

/// Readers' slots; each has the address 10.0.0.<slot>.
const READERS: u32 = 4;
/// Prefixes of the bulk begin here.
const BULK: u32 = 100;
/// How many there are in one part of it.
const PART: u32 = 400;

pub(super) fn profile() -> ExportProfile {
    ExportProfile {
        afi: Afi::Ipv4,
        internal: true,
        local_asn: Asn(64512),
        local_addr: [10, 0, 0, 100].into(),
        rr_client: None,
        next_hop: NextHopRule::Auto,
        program: ProgramId(0),
        long_lived_aware: false,
        add_path: true,
        extended_next_hop: false,
        as4: true,
        extended_message: false,
    }
}

fn addr(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn prefix(n: u32) -> Prefix<V4> {
    Prefix::from_parts(0x0b00_0000 + (n << 8), 24).unwrap()
}

/// The table's id of a prefix.
fn dest(prefix: Prefix<V4>) -> DestId {
    DestId((u32::from(prefix.addr()) - 0x0b00_0000) >> 8)
}

/// What is told of one route: attributes by number, next hop, source.
type Route = (u32, u32, Option<u32>);
type Key = (Prefix<V4>, u32);

/// More communities than a message has room for.
const UNFIT: u32 = 9;

fn attributes(n: u32) -> Attributes {
    let communities = if n == UNFIT { (0..1020).collect() } else { Default::default() };
    Attributes { med: Some(n), local_pref: Some(100), communities, ..Attributes::default() }
}

#[derive(Clone, Debug)]
enum Op {
    Set { group: usize, prefix: u32, routes: Vec<(u32, Route)> },
    Part { group: usize, part: u32, med: Option<u32> },
    Join { reader: u32, group: usize },
    Leave(u32),
    Move { reader: u32, group: usize },
    Refresh { reader: u32, enhanced: bool },
    Read { reader: u32, budget: usize, may_end: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let reader = 0..READERS;
    let med = prop_oneof![8 => 0u32..3, 1 => Just(UNFIT)];
    // Some sources and next hops are readers, some are not.
    let route = (1u32..5, (med, 0..READERS + 2, prop::option::of(0..READERS + 1)));
    prop_oneof![
        8 => (0usize..2, 0u32..6, prop::collection::vec(route, 0..4))
            .prop_map(|(group, prefix, routes)| Op::Set { group, prefix, routes }),
        2 => (0usize..2, 0u32..3, prop::option::weighted(0.8, 0u32..40))
            .prop_map(|(group, part, med)| Op::Part { group, part, med }),
        3 => (reader.clone(), 0usize..2).prop_map(|(reader, group)| Op::Join { reader, group }),
        1 => reader.clone().prop_map(Op::Leave),
        2 => (reader.clone(), 0usize..2).prop_map(|(reader, group)| Op::Move { reader, group }),
        2 => (reader.clone(), any::<bool>()).prop_map(|(reader, enhanced)| Op::Refresh { reader, enhanced }),
        8 => (reader, prop_oneof![1usize..200, 1000usize..40_000], any::<bool>())
            .prop_map(|(reader, budget, may_end)| Op::Read { reader, budget, may_end }),
    ]
}

struct At {
    group: usize,
    held: BTreeMap<Key, (Attributes, NextHop)>,
    /// What was sent since BoRR.
    again: Option<BTreeSet<Key>>,
    ended: bool,
    /// When it joined, or moved.
    since: u64,
    /// When it asked for everything again.
    asked: u64,
}

struct Play {
    attrs: AttrTable,
    groups: [Group<V4>; 2],
    views: [BTreeMap<Key, (u64, Route)>; 2],
    readers: BTreeMap<u32, At>,
    /// What the owner of the table has pinned for each group, and how often.
    pins: [BTreeMap<DestId, usize>; 2],
    step: u64,
}

fn may(slot: u32, (med, next_hop, source): Route) -> bool {
    source != Some(slot) && next_hop != slot && med != UNFIT
}

impl Play {
    fn new() -> Play {
        Play {
            attrs: AttrTable::new(7),
            groups: [Group::new(&profile()), Group::new(&profile())],
            views: [BTreeMap::new(), BTreeMap::new()],
            readers: BTreeMap::new(),
            pins: [BTreeMap::new(), BTreeMap::new()],
            step: 0,
        }
    }

    fn set(&mut self, group: usize, prefix: Prefix<V4>, routes: &BTreeMap<u32, Route>) {
        let view = &mut self.views[group];
        view.retain(|(other, path_id), _| *other != prefix || routes.contains_key(path_id));
        let mut sent: Vec<Sent> = Vec::new();
        for (path_id, route) in routes {
            let (med, next_hop, source) = *route;
            let now = (self.step, *route);
            let at = view.entry((prefix, *path_id)).or_insert(now);
            if at.1 != *route {
                *at = now;
            }
            let attrs = self.attrs.intern(attributes(med), Some(addr(next_hop).into()));
            sent.push(Sent { path_id: *path_id, attrs, source });
        }
        sent.reverse();
        self.groups[group].set(dest(prefix), prefix, &mut sent, &mut self.attrs);
        self.pin(group);
    }

    /// Pins for a group what it asks for.
    fn pin(&mut self, group: usize) {
        let Pins { taken, given_up } = self.groups[group].take_pins();
        let pins = &mut self.pins[group];
        taken.into_iter().for_each(|id| *pins.entry(id).or_default() += 1);
        for id in given_up {
            let count = pins.get_mut(&id).expect("given up without being taken");
            *count -= 1;
            if *count == 0 {
                pins.remove(&id);
            }
        }
    }

    fn step(&mut self, op: Op) {
        self.step += 1;
        match op {
            Op::Set { group, prefix: n, routes } => {
                self.set(group, prefix(n), &routes.into_iter().collect());
            }
            Op::Part { group, part, med } => {
                for n in 0..PART {
                    let source = (n % 50 == 0).then_some(n / 50 % READERS);
                    let route = med.map(|med| (1, (UNFIT + 1 + med + n / 4, READERS + 1, source)));
                    self.set(group, prefix(BULK + part * PART + n), &route.into_iter().collect());
                }
            }
            Op::Join { reader, group } => {
                self.leave(reader);
                self.groups[group].join(reader, addr(reader));
                let at = At {
                    group,
                    held: BTreeMap::new(),
                    again: None,
                    ended: false,
                    since: self.step,
                    asked: 0,
                };
                self.readers.insert(reader, at);
            }
            Op::Leave(reader) => self.leave(reader),
            Op::Move { reader, group } => {
                let Some(at) = self.readers.get_mut(&reader) else { return };
                if at.group == group {
                    return;
                }
                let [a, b] = &mut self.groups;
                let (from, to) = if at.group == 0 { (a, b) } else { (b, a) };
                from.move_to(reader, to, &self.attrs);
                at.group = group;
                at.since = self.step;
            }
            Op::Refresh { reader, enhanced } => {
                let Some(at) = self.readers.get_mut(&reader) else { return };
                self.groups[at.group].refresh(reader, enhanced);
                at.asked = self.step;
            }
            Op::Read { reader, budget, may_end } => {
                self.read(reader, budget, may_end);
            }
        }
    }

    fn leave(&mut self, reader: u32) {
        if let Some(at) = self.readers.remove(&reader) {
            self.groups[at.group].leave(reader);
        }
    }

    /// One read; whether anything came.
    fn read(&mut self, reader: u32, budget: usize, may_end: bool) -> bool {
        let Some(at) = self.readers.get_mut(&reader) else { return false };
        let mut out = BytesMut::new();
        if let Some(shared) = self.groups[at.group].fill(reader, &self.attrs, may_end, budget, &mut out) {
            assert!(out.is_empty());
            out.extend_from_slice(&shared);
        }
        let context = Context { add_path_rx: profile().context().add_path_tx, ..profile().context() };
        let mut bytes = &out[..];
        while !bytes.is_empty() {
            let frame::Next::Frame(frame) = frame::next_frame(bytes, context.max_len()) else {
                panic!("no whole message")
            };
            bytes = &bytes[frame.bytes.len()..];
            let decoded = decode(frame.bytes, &context).unwrap();
            assert_eq!(decoded.faults, [], "we send what we would not accept");
            let view = &self.views[at.group];
            match decoded.message {
                Message::Update(update) => {
                    for list in &update.withdrawn {
                        let NlriList::V4(list) = list else { panic!("{list:?}") };
                        for nlri in list {
                            let had = at.held.remove(&(nlri.prefix, nlri.path_id));
                            assert!(had.is_some(), "{} was withdrawn without being held", nlri.prefix);
                        }
                    }
                    for reach in &update.reach {
                        let NlriList::V4(list) = &reach.nlri else { panic!("{reach:?}") };
                        for nlri in list {
                            let key = (nlri.prefix, nlri.path_id);
                            at.held.insert(key, (update.attributes.clone(), reach.next_hop));
                            if let Some(again) = &mut at.again {
                                again.insert(key);
                            }
                        }
                    }
                    if update.end_of_rib.is_some() {
                        assert!(may_end && !std::mem::replace(&mut at.ended, true), "End-of-RIB comes once");
                        for (key, (since, route)) in view {
                            let told =
                                *since >= at.since || !may(reader, *route) || at.held.contains_key(key);
                            assert!(told, "{key:?} was there at the join and is not sent");
                        }
                    }
                }
                Message::RouteRefresh(refresh) if refresh.kind == RefreshKind::Begin => {
                    assert!(at.ended, "a refresh waits for End-of-RIB");
                    at.again = Some(BTreeSet::new());
                }
                Message::RouteRefresh(refresh) => {
                    assert_eq!(refresh.kind, RefreshKind::End);
                    let again = at.again.take().expect("EoRR follows BoRR");
                    for (key, (since, route)) in view {
                        let old = *since < at.asked && at.since < at.asked;
                        assert!(
                            !old || !may(reader, *route) || again.contains(key),
                            "{key:?} was not sent again"
                        );
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        !out.is_empty()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for reader in 0..READERS {
            let Some(group) = self.readers.get(&reader).map(|at| at.group) else { continue };
            self.groups[group].flush();
            while self.groups[group].has_work(reader, true) {
                self.read(reader, 4096, true);
            }
            prop_assert!(!self.read(reader, 4096, true), "there was nothing left to read");
            let at = &self.readers[&reader];
            prop_assert!(at.ended);
            let expected: BTreeMap<Key, (Attributes, NextHop)> = self.views[group]
                .iter()
                .filter(|(_, (_, route))| may(reader, *route))
                .map(|(key, (_, (med, next_hop, _)))| (*key, (attributes(*med), addr(*next_hop).into())))
                .collect();
            prop_assert_eq!(&at.held, &expected);
            prop_assert_eq!(self.groups[group].held(reader), expected.len());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_between_reads_each_reader_ends_with_its_groups_routes(
        ops in prop::collection::vec(op(), 0..60)
    ) {
        let mut play = Play::new();
        for op in ops {
            play.step(op);
        }
        play.check()?;
        for group in &mut play.groups {
            group.flush();
            prop_assert_eq!(group.ids(), group.routes(), "an id is free when nobody has to hear of it");
        }
        for group in 0..2 {
            play.pin(group);
            let kept: BTreeMap<DestId, usize> =
                play.views[group].keys().map(|(prefix, _)| (dest(*prefix), 1)).collect();
            prop_assert_eq!(&play.pins[group], &kept, "a destination is kept while something of it is");
        }
        // Nothing is kept of what is gone.
        for group in 0..2 {
            let prefixes: BTreeSet<Prefix<V4>> = play.views[group].keys().map(|(prefix, _)| *prefix).collect();
            for prefix in prefixes {
                play.set(group, prefix, &BTreeMap::new());
            }
        }
        play.check()?;
        for group in &mut play.groups {
            group.flush();
            prop_assert_eq!(group.ids(), 0);
        }
        prop_assert!(play.attrs.is_empty());
    }
}

#[test]
fn a_path_that_comes_from_another_peer_while_one_before_it_goes_leaves_the_others_where_they_are() {
    let mut play = Play::new();
    play.step(Op::Set { group: 0, prefix: 1, routes: vec![(3, (2, 4, None)), (2, (0, 0, None))] });
    play.step(Op::Set { group: 0, prefix: 1, routes: vec![(1, (0, 0, None)), (3, (2, 4, Some(0)))] });
    // A head that was lost would add the paths once more.
    play.step(Op::Set { group: 0, prefix: 1, routes: vec![(1, (0, 0, None)), (3, (2, 4, Some(0)))] });
    assert_eq!((play.groups[0].ids(), play.groups[0].routes()), (2, 2));
    play.step(Op::Join { reader: 1, group: 0 });
    play.check().unwrap();
}

#[test]
fn what_changes_often_between_two_reads_is_sent_once_and_what_came_and_went_never() {
    let mut play = Play::new();
    play.step(Op::Join { reader: 0, group: 0 });
    play.step(Op::Read { reader: 0, budget: 4096, may_end: true });
    for med in [1, 2, 3] {
        play.set(0, prefix(1), &BTreeMap::from([(1, (med, 9, None))]));
        play.set(0, prefix(2), &BTreeMap::from([(1, (med, 9, None))]));
    }
    play.set(0, prefix(2), &BTreeMap::new());
    let mut out = BytesMut::new();
    assert_eq!(play.groups[0].fill(0, &play.attrs, true, 4096, &mut out), None);
    let one = out.len();
    let mut expected = BytesMut::new();
    let nlri = [crate::wire::Nlri { path_id: 1, prefix: prefix(1) }];
    crate::wire::encode_reach(&profile().context(), &attributes(3), addr(9).into(), &nlri, &mut expected);
    assert_eq!((one, out), (expected.len(), expected));
}

#[test]
fn readers_in_step_are_handed_the_same_memory_and_a_source_what_is_left() {
    let mut play = Play::new();
    for part in 0..3 {
        play.step(Op::Part { group: 0, part, med: Some(0) });
    }
    let mut read = |slot| {
        play.groups[0].join(slot, addr(slot));
        let (mut shared, mut own) = (Vec::new(), BytesMut::new());
        while let Some(bytes) = play.groups[0].fill(slot, &play.attrs, true, 32 * 1024, &mut own) {
            shared.push(bytes);
        }
        (shared.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>(), own, play.groups[0].held(slot))
    };
    // Slots 20 to 22 are nobody's source; 1 is the source of six routes. Alone nobody shares.
    let (parts, own, held) = read(20);
    assert_eq!((parts.len(), own.is_empty(), held), (0, false, 1200));
    let (parts, own, held) = read(21);
    let mut end_of_rib = BytesMut::new();
    crate::wire::send::encode_end_of_rib(Afi::Ipv4, &mut end_of_rib);
    assert_eq!((parts.len(), held), (2, 1200));
    assert_eq!(own, end_of_rib);
    assert_eq!(read(1).2, 1194);
    assert_eq!(read(22).0, parts);
}

#[test]
fn a_reader_that_moves_is_sent_differences_only() {
    let mut play = Play::new();
    for (n, there) in [(1, true), (2, false), (3, true)] {
        play.set(0, prefix(n), &BTreeMap::from([(1, (n, 9, None))]));
        if there {
            play.set(1, prefix(n), &BTreeMap::from([(1, (n.min(2), 9, None))]));
        }
    }
    play.step(Op::Join { reader: 0, group: 0 });
    play.step(Op::Read { reader: 0, budget: 4096, may_end: true });
    play.step(Op::Move { reader: 0, group: 1 });
    let mut out = BytesMut::new();
    assert_eq!(play.groups[1].fill(0, &play.attrs, true, 4096, &mut out), None);
    let mut expected = BytesMut::new();
    let nlri = |n| [crate::wire::Nlri { path_id: 1, prefix: prefix(n) }];
    let context = profile().context();
    crate::wire::encode_unreach(&context, &nlri(2), &mut expected);
    crate::wire::encode_reach(&context, &attributes(2), addr(9).into(), &nlri(3), &mut expected);
    assert_eq!(out, expected);
}

/// Every field of the key but the program, whose content is its owner's, shows in what is sent.
#[test]
fn profiles_that_differ_in_one_field_are_other_groups() {
    let ExportProfile {
        afi,
        internal,
        local_asn,
        local_addr,
        rr_client,
        next_hop,
        program,
        long_lived_aware,
        add_path,
        extended_next_hop,
        as4,
        extended_message,
    } = profile();
    let base = profile();
    let others = [
        ExportProfile { afi: if afi == Afi::Ipv4 { Afi::Ipv6 } else { Afi::Ipv4 }, ..base },
        ExportProfile { internal: !internal, ..base },
        ExportProfile { local_asn: Asn(local_asn.0 + 1), ..base },
        ExportProfile { local_addr: if local_addr == addr(1) { addr(2) } else { addr(1) }, ..base },
        ExportProfile { rr_client: rr_client.xor(Some(ClusterId([1, 1, 1, 1].into()))), ..base },
        ExportProfile {
            next_hop: if next_hop == NextHopRule::Auto { NextHopRule::Keep } else { NextHopRule::Auto },
            ..base
        },
        ExportProfile { program: ProgramId(program.0 + 1), ..base },
        ExportProfile { long_lived_aware: !long_lived_aware, ..base },
        ExportProfile { add_path: !add_path, ..base },
        ExportProfile { extended_next_hop: !extended_next_hop, ..base },
        ExportProfile { as4: !as4, ..base },
        ExportProfile { extended_message: !extended_message, ..base },
    ];
    let all: BTreeSet<ExportProfile> = others.into_iter().chain([base]).collect();
    assert_eq!(all.len(), others.len() + 1);
}
