//! One family: its table, what the peers hold of it and what the kernel is to hold.
//!
//! Owns: the routes of the family from their entry to their exit. Never: decides when anything is read or told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bgp_proto::rib::{Forward, ImportRules, LocalRoute, LocalSource, Rib, Source};
use bgp_proto::wire::{Attributes, NextHop, Nlri};
use bgp_proto::{DestId, Family, Prefix};

use super::adj_rib_out::AdjRibOut;
use super::fib_out::FibOut;
use super::kernel_routes::{Direct, Interfaces};
use super::peers::{PeerState, Peers};
use crate::desired::{FamilyIntent, StaticRoute};
use crate::fib::Address;
use crate::policy::eval::Bound;
use crate::policy::program::{Decision, Program};
use crate::policy::sets::{SetChange, Sets};

/// One family's part of the speaker.
#[derive(Debug)]
pub(super) struct Table<F: Family> {
    pub rib: Rib<F>,
    /// What the peers are sent.
    pub out: AdjRibOut<F>,
    pub fib: FibOut,
    pub direct: Direct<F>,
    pub ignored: Vec<String>,
    pub kernel: Arc<Program>,
    /// What the family's programs name.
    pub sets: Sets,
    statics: BTreeMap<Prefix<F>, StaticRoute<F>>,
    /// Slots whose routes are to be imported anew, each from this destination on.
    reimports: BTreeMap<u32, DestId>,
    /// Prefixes that sets gained or lost, whose routes are to be looked at again.
    regained: VecDeque<Regained<F>>,
}

/// A prefix that a set gained or lost.
#[derive(Debug)]
struct Regained<F: Family> {
    within: Prefix<F>,
    /// Where to go on.
    after: Option<Prefix<F>>,
    /// The kernel's program asks this set as well.
    kernel: bool,
}

/// How often import may be run anew because next hops moved. What still moves then moves in a circle: a route whose
/// acceptance changes the interface that its acceptance hangs on.
const ROUNDS: usize = 3;

impl<F: Family> Table<F> {
    pub fn new(seed: u64) -> Self {
        Table {
            rib: Rib::new(seed),
            out: AdjRibOut::new(),
            fib: FibOut::default(),
            direct: Direct::default(),
            ignored: Vec::new(),
            kernel: Arc::new(Program::always(Decision::Reject)),
            sets: Sets::default(),
            statics: BTreeMap::new(),
            reimports: BTreeMap::new(),
            regained: VecDeque::new(),
        }
    }

    /// Takes the family's intent; what is unchanged is not touched.
    pub fn desired(&mut self, intent: &FamilyIntent<F>, home: Option<Prefix<F>>, interfaces: &Interfaces) {
        for prefix in self.statics.keys().filter(|prefix| !intent.statics.contains_key(prefix)) {
            self.rib.remove_local(*prefix, LocalSource::Static);
        }
        for (prefix, route) in &intent.statics {
            let route = match route {
                StaticRoute::Blackhole => LocalRoute::Blackhole,
                StaticRoute::Via(via) => LocalRoute::Gateway(*via),
            };
            self.rib.put_local(*prefix, route);
        }
        self.statics.clone_from(&intent.statics);
        // One address is no subnet: what is meant to be on the link is not said.
        self.rib.set_home(home.into_iter().filter(|home| !home.is_host()).collect());
        if self.ignored != intent.ignored_interfaces {
            self.ignored.clone_from(&intent.ignored_interfaces);
            for ifindex in interfaces.indexes() {
                self.interface(interfaces, ifindex);
            }
        }
        if self.kernel != intent.kernel {
            self.kernel = intent.kernel.clone();
            self.fib.reselect_all();
        }
        self.sets_changed(intent.sets.clone());
    }

    /// Takes the sets; only what they gained or lost is looked at again, by all whose programs name them. Import
    /// programs name none.
    fn sets_changed(&mut self, sets: Sets) {
        let changes = sets.changes(&self.sets);
        self.out.set_sets(sets.clone());
        self.sets = sets;
        for SetChange { set, prefixes } in changes {
            let kernel = self.kernel.reads(set);
            for prefix in prefixes.into_iter().filter_map(Prefix::from_ip) {
                if !set.holds_next_hops() {
                    self.regained.push_back(Regained { within: prefix, after: None, kernel });
                } else if kernel {
                    let over: Vec<DestId> = self.rib.dests_over(prefix).collect();
                    self.fib.reselect(&mut self.rib, over);
                }
            }
        }
    }

    /// Goes on with what sets gained or lost.
    fn regain(&mut self, work: &mut usize) {
        while *work > 0
            && let Some(Regained { within, after, kernel }) = self.regained.front_mut()
        {
            let (within, kernel) = (*within, *kernel);
            let some = self.rib.dests_within(within, *after).take(*work);
            let some: Vec<(DestId, Prefix<F>)> = some.map(|(id, dest)| (id, dest.prefix)).collect();
            match some.last() {
                Some((_, last)) => *after = Some(*last),
                None => drop(self.regained.pop_front()),
            }
            *work -= some.len();
            self.out.reexport(&mut self.rib, some.iter().map(|(id, _)| (*id, None)));
            if kernel {
                self.fib.reselect(&mut self.rib, some.into_iter().map(|(id, _)| id));
            }
        }
    }

    /// Addresses or the name of an interface changed.
    pub fn interface(&mut self, interfaces: &Interfaces, ifindex: u32) {
        self.direct.update(&mut self.rib, interfaces, &self.ignored, ifindex);
    }

    /// One address of an interface came, went, or says something else than before.
    pub fn address(&mut self, interfaces: &Interfaces, old: Option<Address>, new: Option<Address>) {
        self.direct.change(&mut self.rib, interfaces, &self.ignored, old, new);
    }

    /// Routes of a peer.
    pub fn announced(
        &mut self,
        interfaces: &Interfaces,
        peer: &PeerState,
        attributes: Attributes,
        next_hop: NextHop,
        nlri: &[Nlri<F>],
    ) {
        let policy = Bound { program: &peer.desired.treatment.import, sets: &self.sets };
        let name = |forward: &Forward| interfaces.name_of(forward);
        self.rib.announce(peer.id.slot, &rules(peer, &policy, &name), attributes, next_hop, nlri);
    }

    pub fn withdrawn(&mut self, slot: u32, nlri: &[Nlri<F>]) {
        for nlri in nlri {
            self.rib.withdraw(slot, *nlri);
        }
    }

    /// Import is to be run anew on what the peer has sent: a change of rules needs nothing from the peer.
    pub fn reimport(&mut self, slot: u32) {
        self.reimports.insert(slot, DestId(0));
    }

    /// The peer is none any more: what it has sent is not imported anew.
    pub fn forget_reimport(&mut self, slot: u32) {
        self.reimports.remove(&slot);
    }

    /// Goes on with imports. What a peer sent since its rules changed was imported by the new ones.
    fn run_reimports(&mut self, interfaces: &Interfaces, peers: &Peers, work: &mut usize) {
        while *work > 0
            && let Some((slot, from)) = self.reimports.pop_first()
        {
            let Some(peer) = peers.slot(slot) else { continue };
            let name = |forward: &Forward| interfaces.name_of(forward);
            let policy = Bound { program: &peer.desired.treatment.import, sets: &self.sets };
            let rules = rules(peer, &policy, &name);
            let dests: Vec<DestId> = self.rib.dests_of(slot, from).take(*work).collect();
            *work -= dests.len();
            if *work == 0
                && let Some(last) = dests.last()
            {
                self.reimports.insert(slot, DestId(last.0 + 1));
            }
            dests.into_iter().for_each(|id| self.rib.reimport(slot, &rules, id));
        }
    }

    /// Whether there is work left by which the table's routes may become others.
    pub fn is_unsettled(&self) -> bool {
        !self.reimports.is_empty() || !self.regained.is_empty() || self.rib.is_busy()
    }

    /// Whether there is any work left; that for the kernel waits for the one who is `informed`.
    pub fn is_busy(&self, informed: bool) -> bool {
        self.is_unsettled() || self.out.is_busy() || (informed && self.fib.is_busy())
    }

    /// The session is gone, or a new one takes its place: nothing is held.
    pub fn close(&mut self, slot: u32) {
        self.out.close(slot, self.rib.attr_table_mut());
    }

    /// Decides, and says to Adj-RIB-Out and kernel what changed. Each kind of work is done until `work` is used up.
    pub fn settle(&mut self, interfaces: &Interfaces, peers: &Peers, work: usize) {
        let (mut reimport, mut regain, mut decide) = (work, work, work);
        self.run_reimports(interfaces, peers, &mut reimport);
        self.regain(&mut regain);
        let work = &mut decide;
        self.rib.settle_part(work);
        let mut changes = self.rib.take_moves();
        if !changes.is_empty() {
            let by_interface = peers.import_by_interface();
            let mut moved = changes.clone();
            for _ in 0..ROUNDS {
                if by_interface.is_empty() || moved.is_empty() {
                    break;
                }
                for (id, _) in moved {
                    self.import_over_interface(interfaces, peers, by_interface, id);
                }
                self.rib.settle_part(work);
                moved = self.rib.take_moves();
                changes.extend(moved.iter().cloned());
            }
            self.fib.reselect(&mut self.rib, changes.iter().map(|(id, _)| *id));
            self.out.reexport(&mut self.rib, changes);
        }
        self.rib.free_ids();
    }

    /// The next hops of a destination moved: import rules that ask for interfaces may answer otherwise.
    fn import_over_interface(
        &mut self,
        interfaces: &Interfaces,
        peers: &Peers,
        slots: &BTreeSet<u32>,
        id: DestId,
    ) {
        let paths = self.rib.dest(id).into_iter().flat_map(|dest| &dest.paths);
        let concerned: BTreeSet<u32> = paths
            .filter_map(|path| match path.source() {
                Source::Peer(slot) if slots.contains(&slot) => Some(slot),
                _ => None,
            })
            .collect();
        for peer in concerned.into_iter().filter_map(|slot| peers.slot(slot)) {
            let policy = Bound { program: &peer.desired.treatment.import, sets: &self.sets };
            let name = |forward: &Forward| interfaces.name_of(forward);
            self.rib.reimport(peer.id.slot, &rules(peer, &policy, &name), id);
        }
    }
}

/// The rules for what a peer sends.
fn rules<'a>(
    peer: &PeerState,
    policy: &'a Bound<'a>,
    name: &'a dyn Fn(&Forward) -> &'a str,
) -> ImportRules<'a, Bound<'a>> {
    ImportRules { profile: peer.import_profile(), policy, interface: name }
}
