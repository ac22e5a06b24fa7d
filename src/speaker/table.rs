//! One family: its table, what the peers hold of it and what the kernel is to hold.
//!
//! Owns: the routes of the family from their entry to their exit. Never: decides when anything is read or told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp_proto::rib::{AttrId, Imported, PathKind, Rib, Source, import};
use bgp_proto::wire::{Attributes, NextHop, Nlri};
use bgp_proto::{Family, IpPrefix, Prefix};

use super::adj_rib_out::AdjRibOut;
use super::fib_out::FibOut;
use super::kernel_routes::{Direct, Interfaces};
use super::peers::{PeerState, Peers};
use crate::desired::{FamilyIntent, StaticRoute};
use crate::policy::program::{Decision, Program};

/// Path id of a static route: there is one for a prefix.
const ONE: u32 = 0;

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
            statics: BTreeMap::new(),
        }
    }

    /// Takes the family's intent; what is unchanged is not touched.
    pub fn desired(&mut self, intent: &FamilyIntent<F>, home: Option<Prefix<F>>, interfaces: &Interfaces) {
        for prefix in self.statics.keys().filter(|prefix| !intent.statics.contains_key(prefix)) {
            self.rib.remove_local(*prefix, Source::Static, ONE);
        }
        for (prefix, route) in &intent.statics {
            let kind = match route {
                StaticRoute::Blackhole => PathKind::Blackhole,
                StaticRoute::Via(via) => PathKind::Gateway { via: *via, ifindex: None },
            };
            self.rib.put_local(*prefix, Source::Static, ONE, kind);
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
    }

    /// Addresses or the name of an interface changed.
    pub fn interface(&mut self, interfaces: &Interfaces, ifindex: u32) {
        self.direct.update(&mut self.rib, interfaces, &self.ignored, ifindex);
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
        let got = self.rib.intern(attributes, Some(next_hop));
        for nlri in nlri {
            let imported = self.import(interfaces, peer, nlri.prefix, got);
            self.rib.put_received(peer.id.slot, nlri.prefix, nlri.path_id, got, imported, true);
        }
        self.rib.release(got);
    }

    pub fn withdrawn(&mut self, slot: u32, nlri: &[Nlri<F>]) {
        for nlri in nlri {
            self.rib.withdraw(slot, nlri.prefix, nlri.path_id);
        }
    }

    /// Runs import anew on what the peer has sent (a change of rules needs nothing from the peer).
    /// The number of paths.
    pub fn import_again(&mut self, interfaces: &Interfaces, peer: &PeerState) -> usize {
        let slot = peer.id.slot;
        let paths = self.rib.paths_of(slot);
        for (prefix, path_id) in &paths {
            self.import_path_again(interfaces, peer, *prefix, *path_id);
        }
        paths.len()
    }

    fn import_path_again(
        &mut self,
        interfaces: &Interfaces,
        peer: &PeerState,
        prefix: Prefix<F>,
        path_id: u32,
    ) {
        let slot = peer.id.slot;
        let Some(path) = self.rib.path(prefix, Source::Peer(slot), path_id) else { return };
        let PathKind::Bgp(bgp) = &path.kind else { return };
        let got = bgp.got;
        let imported = self.import(interfaces, peer, prefix, got);
        self.rib.put_received(slot, prefix, path_id, got, imported, false);
    }

    fn import(&self, interfaces: &Interfaces, peer: &PeerState, prefix: Prefix<F>, got: AttrId) -> Imported {
        let set = self.rib.attrs(got);
        // What was interned as received has a next hop.
        let next_hop = set.next_hop.unwrap_or(NextHop::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let program = &*peer.treatment.import;
        let forward = program.reads_interface().then(|| self.rib.resolve(next_hop).forward);
        let interface = forward.as_ref().map_or("", |forward| interfaces.name_of(forward));
        let profile = peer.import_profile();
        import(&profile, IpPrefix::from(prefix), &set.attributes, next_hop, interface, program)
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
            for prefix in moved {
                self.import_over_interface(interfaces, peers, by_interface, prefix);
            }
            self.rib.settle();
            moved = self.rib.take_changes();
            changes.extend(&moved);
        }
        self.out.touch(changes.iter().copied());
        self.fib.touch(changes);
    }

    /// The next hops of a destination moved: import rules that ask for interfaces may answer otherwise.
    fn import_over_interface(
        &mut self,
        interfaces: &Interfaces,
        peers: &Peers,
        slots: &BTreeSet<u32>,
        prefix: Prefix<F>,
    ) {
        let paths: Vec<(u32, u32)> = self
            .rib
            .dest(prefix)
            .into_iter()
            .flat_map(|dest| &dest.paths)
            .filter_map(|path| match path.source {
                Source::Peer(slot) if slots.contains(&slot) => Some((slot, path.path_id)),
                _ => None,
            })
            .collect();
        for (slot, path_id) in paths {
            if let Some(peer) = peers.slot(slot) {
                self.import_path_again(interfaces, peer, prefix, path_id);
            }
        }
    }
}
