//! One family: its table, what the peers hold of it and what the kernel is to hold.
//!
//! Owns: the routes of the family from their entry to their exit. Never: decides when anything is read or told.

use std::collections::{BTreeMap, BTreeSet};
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
    pub fib: FibOut<F>,
    pub direct: Direct<F>,
    pub ignored: Vec<String>,
    pub kernel: Arc<Program>,
    /// What the family's programs name.
    pub sets: Sets,
    statics: BTreeMap<Prefix<F>, StaticRoute<F>>,
}

/// How often import may be run anew because next hops moved. What still moves then moves in a circle: a route whose
/// acceptance changes the interface that its acceptance hangs on.
const ROUNDS: usize = 3;

impl<F: Family> Table<F> {
    pub fn new(seed: u64) -> Self {
        Table {
            rib: Rib::new(seed),
            out: AdjRibOut::new(seed),
            fib: FibOut::default(),
            direct: Direct::default(),
            ignored: Vec::new(),
            kernel: Arc::new(Program::always(Decision::Reject)),
            sets: Sets::default(),
            statics: BTreeMap::new(),
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
            self.fib.touch_all(&self.rib);
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
            if set.holds_next_hops() {
                if self.kernel.reads(set) {
                    self.fib.touch_all(&self.rib);
                }
                continue;
            }
            let within: Vec<Prefix<F>> = prefixes
                .into_iter()
                .filter_map(Prefix::from_ip)
                .flat_map(|outer| self.rib.dests_within(outer))
                .collect();
            let ids: Vec<DestId> = within.iter().filter_map(|prefix| self.rib.id(*prefix)).collect();
            self.out.reexport(&mut self.rib, ids);
            if self.kernel.reads(set) {
                self.fib.touch(within);
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

    /// Runs import anew on what the peer has sent (a change of rules needs nothing from the peer), and says for how many
    /// destinations.
    pub fn reimport(&mut self, interfaces: &Interfaces, peer: &PeerState) -> usize {
        let slot = peer.id.slot;
        let name = |forward: &Forward| interfaces.name_of(forward);
        let policy = Bound { program: &peer.desired.treatment.import, sets: &self.sets };
        let rules = rules(peer, &policy, &name);
        let dests: Vec<DestId> = self.rib.dests_of(slot, DestId(0)).collect();
        for id in &dests {
            self.rib.reimport(slot, &rules, *id);
        }
        dests.len()
    }

    /// The session is gone, or a new one takes its place: nothing is held.
    pub fn close(&mut self, slot: u32) {
        self.out.close(slot, self.rib.attr_table_mut());
    }

    /// Decides, and says to Adj-RIB-Out and kernel what changed.
    pub fn settle(&mut self, interfaces: &Interfaces, peers: &Peers) {
        self.rib.settle();
        let mut changes = self.rib.take_changes();
        if changes.is_empty() {
            return;
        }
        let by_interface = peers.import_by_interface();
        let mut moved = changes.clone();
        for _ in 0..ROUNDS {
            if by_interface.is_empty() || moved.is_empty() {
                break;
            }
            for id in moved {
                self.import_over_interface(interfaces, peers, by_interface, id);
            }
            self.rib.settle();
            moved = self.rib.take_changes();
            changes.extend(&moved);
        }
        self.out.reexport(&mut self.rib, changes.iter().copied());
        self.fib.touch(changes.into_iter().filter_map(|id| self.rib.prefix(id)));
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
