//! The speaker: both tables, next hops, policy, export and recovery, behind one queue in and one queue out.
//!
//! Owns: all routes. Never: sockets, clocks, netlink; it is told the time and the kernel's state. Core.
//!
//! | module | owns |
//! |---|---|
//! | `table` | one family: table, views, kernel routes |
//! | `peers` | the peers and what their sessions agreed on |
//! | `adj_rib_out` | what the peers are sent, in groups |
//! | `programs` | numbers for policy programs |
//! | `kernel_routes` | what the kernel tells, as routes |
//! | `fib_out` | what the kernel is to hold |
//! | `recovery` | the wait after a start |
//! | [`status`] | views for people |
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod adj_rib_out;
mod fib_out;
mod kernel_routes;
mod peers;
mod programs;
mod recovery;
pub mod status;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::Negotiated;
use bgp_proto::wire::{NlriList, Notification, Update};
use bgp_proto::{Afi, AfiSet, IpPrefix, Millis, PeerId, V4, V6};
use bytes::{Bytes, BytesMut};

use crate::desired::{DesiredState, Release, ReleaseSource, SessionKey};
use crate::fib::{FibChange, KernelEvent, Ownership, Phase};
use crate::policy::eval::Bound;
use kernel_routes::Interfaces;
use peers::{PeerState, Peers, Session};
use programs::Programs;
use recovery::{Expected, Recovery};
use table::Table;

pub use recovery::{RECOVERY_LIMIT, Restart, WaitsFor};

/// Counts the times that a session of one peer came up, from 1.
pub type Incarnation = u64;

/// What the world tells the speaker.
#[derive(Debug)]
pub enum SpeakerInput {
    /// The desired state, whole; the speaker finds out what changed. The first one means: the datastore is in sync.
    Desired {
        /// The state.
        state: Arc<DesiredState>,
        /// The handle of each of its peers, by name.
        peers: Arc<BTreeMap<SessionKey, PeerId>>,
    },
    /// A session is established.
    PeerUp {
        /// Who.
        peer: PeerId,
        /// Which session of this peer.
        incarnation: Incarnation,
        /// What was agreed.
        negotiated: Box<Negotiated>,
    },
    /// Routes changed.
    Update {
        /// Who.
        peer: PeerId,
        /// What.
        update: Update,
    },
    /// The peer has sent all of its routes of this family.
    EndOfRib(PeerId, Afi),
    /// The peer wants our routes of this family again.
    RefreshRequested(PeerId, Afi),
    /// The session is gone; routes of these families stay, marked stale; all others go.
    Stale(PeerId, AfiSet),
    /// The peer stays away, and its stale routes of these families become long-lived stale: the
    /// least preferred (RFC 9494).
    LongLivedStale(PeerId, AfiSet),
    /// Mark this family's routes stale while the session lives.
    MarkStale(PeerId, Afi),
    /// Routes of this family that are still stale go.
    SweepStale(PeerId, Afi),
    /// The session is gone and so are its routes.
    PeerDown(PeerId),
    /// An attempt to reach the peer failed: what the others are told after our restart does not wait for it.
    PeerUnreachable(PeerId),
    /// Whether neighbours can reach us: our port is ours.
    Listening(bool),
    /// The peer's socket can take this many bytes.
    Want {
        /// Who.
        peer: PeerId,
        /// The session that asks; another one than the present is told nothing.
        incarnation: Incarnation,
        /// Bytes; at least one message is filled in if there is anything.
        budget: usize,
    },
    /// The kernel changed.
    Kernel(KernelEvent),
    /// The deadline has come.
    Tick,
}

/// What the speaker tells the world, in order.
#[derive(Debug)]
pub enum SpeakerOutput {
    /// There is something to read for this session of a peer: it should say `Want`.
    Ready(PeerId, Incarnation),
    /// Answer to `Want`: whole messages.
    Fill {
        /// Who.
        peer: PeerId,
        /// The session that asked.
        incarnation: Incarnation,
        /// UPDATE, End-of-RIB, BoRR, EoRR messages.
        bytes: Bytes,
        /// There is more to `Want`. Without: `Ready` will come.
        more: bool,
    },
    /// Close the session, whichever it is.
    EndSession(PeerId, Notification),
    /// The desired kernel routes changed.
    Fib(Vec<FibChange>),
    /// Recovery ended (or began).
    Phase(Phase),
    /// Who owns what in the kernel is another than before.
    Ownership(Ownership),
    /// After recovery: routes that were found at start and lead through one of these stay, because its peer has yet to
    /// tell its routes. Each time the whole set.
    Held(BTreeSet<IpAddr>),
}

/// Both tables and everything around them.
#[derive(Debug)]
pub struct Speaker {
    peers: Peers,
    interfaces: Interfaces,
    v4: Table<V4>,
    v6: Table<V6>,
    recovery: Recovery,
    programs: Programs,
    /// As last told.
    ownership: Option<Ownership>,
}

/// Units of each kind of work in one slice, together about a millisecond: one destination swept, decided, selected for
/// the kernel or exported for one group, or one path imported anew.
const SLICE: usize = 1024;

/// Does the same with the table of a family that is known at run time only.
macro_rules! on_table {
    ($speaker:expr, $afi:expr, $table:ident => $body:expr) => {
        match $afi {
            Afi::Ipv4 => {
                let $table = &mut $speaker.v4;
                $body
            }
            Afi::Ipv6 => {
                let $table = &mut $speaker.v6;
                $body
            }
        }
    };
}

impl Speaker {
    /// A speaker that knows nothing. `seed` makes hashes unpredictable for peers: random in production, fixed in tests.
    pub fn new(seed: u64) -> Self {
        Speaker::after(seed, Restart::default())
    }

    /// The same after a restart that left something behind.
    pub fn after(seed: u64, restart: Restart) -> Self {
        Speaker {
            peers: Peers::default(),
            interfaces: Interfaces::default(),
            v4: Table::new(seed),
            v6: Table::new(seed),
            recovery: Recovery::after(restart),
            programs: Programs::default(),
            ownership: None,
        }
    }

    /// Takes one input. What follows from it is told by [`Speaker::settle`], once for any number of inputs; only the
    /// answer to [`SpeakerInput::Want`] comes at once. Never blocks, never fails. Inputs that name a peer that is not (or
    /// no longer) desired have no effect.
    pub fn handle(&mut self, now: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
        match input {
            SpeakerInput::Desired { state, peers } => {
                let ownership = ownership(&state);
                if self.ownership.replace(ownership) != Some(ownership) {
                    out.push(SpeakerOutput::Ownership(ownership));
                }
                self.desired(now, &state, &peers);
            }
            SpeakerInput::PeerUp { peer, incarnation, negotiated } => {
                self.peer_up(now, peer, incarnation, *negotiated);
            }
            SpeakerInput::Listening(listening) => self.recovery.listening(now, listening),
            SpeakerInput::Update { peer, update } => self.update(peer, update),
            SpeakerInput::EndOfRib(peer, afi) => self.recovery.end_of_rib(peer, afi),
            SpeakerInput::RefreshRequested(peer, afi) => self.refresh(peer, afi),
            SpeakerInput::Stale(peer, families) => self.peer_gone(peer, families),
            SpeakerInput::LongLivedStale(peer, families) => self.long_lived_stale(peer, families),
            SpeakerInput::PeerDown(peer) => self.peer_gone(peer, AfiSet::EMPTY),
            SpeakerInput::MarkStale(peer, afi) => {
                if self.peers.get(peer).is_some() {
                    on_table!(self, afi, table => table.rib.mark_stale(peer.slot));
                }
            }
            SpeakerInput::SweepStale(peer, afi) => {
                if self.peers.get(peer).is_some() {
                    on_table!(self, afi, table => table.rib.sweep_stale(peer.slot));
                }
            }
            SpeakerInput::PeerUnreachable(peer) => self.recovery.excuse(peer),
            SpeakerInput::Want { peer, incarnation, budget } => self.want(peer, incarnation, budget, out),
            SpeakerInput::Kernel(event) => self.kernel(event),
            SpeakerInput::Tick => (),
        }
    }

    /// When [`SpeakerInput::Tick`] is wanted.
    pub fn deadline(&self) -> Option<Millis> {
        self.recovery.deadline()
    }

    /// Whether routes of ours that nobody wants may be removed from the kernel.
    pub fn phase(&self) -> Phase {
        self.recovery.phase()
    }

    /// What the end of recovery waits for; nothing once it is over.
    pub fn waits_for(&self) -> Vec<WaitsFor> {
        self.recovery.waits_for()
    }

    fn desired(&mut self, now: Millis, state: &DesiredState, handles: &BTreeMap<SessionKey, PeerId>) {
        let wanted: BTreeSet<PeerId> =
            state.peers.keys().filter_map(|key| handles.get(key).copied()).collect();
        let gone: Vec<PeerId> =
            self.peers.iter().map(|peer| peer.id).filter(|id| !wanted.contains(id)).collect();
        for id in gone {
            self.remove_peer(id);
        }
        for (key, peer) in &state.peers {
            let Some(id) = handles.get(key).copied() else { continue };
            if self.peers.get(id).is_some_and(|known| Arc::ptr_eq(&known.desired, peer)) {
                continue;
            }
            let import = self.programs.id(&peer.treatment.import);
            let export = self.programs.id(&peer.treatment.export);
            match self.peers.get_mut(id) {
                None => self.peers.insert(PeerState::new(id, peer, import, export)),
                Some(known) if known.is_replaced_by(peer) => {
                    // The routes keep what the old session made of them until the successor brings them again. What else
                    // import goes by may change all the same.
                    let rules = |peer: &PeerState| {
                        let treatment = &peer.desired.treatment;
                        (peer.import_program, treatment.rr_client, treatment.allow_own_as)
                    };
                    let before = rules(known);
                    known.desired = peer.clone();
                    (known.import_program, known.export_program) = (import, export);
                    if before != rules(known) {
                        self.v4.reimport(id.slot);
                        self.v6.reimport(id.slot);
                    }
                    self.session_replaced(id);
                }
                Some(known) => {
                    let imported = (known.import_profile(), known.import_program);
                    known.addr = peer.spec.transport.peer;
                    known.desired = peer.clone();
                    (known.import_program, known.export_program) = (import, export);
                    if imported != (known.import_profile(), known.import_program) {
                        self.v4.reimport(id.slot);
                        self.v6.reimport(id.slot);
                    }
                    self.treatment_changed(id);
                }
            }
        }
        let peers = &self.peers;
        let used = |id| peers.iter().any(|peer| peer.import_program == id || peer.export_program == id);
        self.programs.retain(used);
        self.peers.rules_changed();
        let home4 = state.node.ipv4.as_ref().map(|address| address.subnet);
        let home6 = state.node.ipv6.as_ref().map(|address| address.subnet);
        self.v4.desired(&state.v4, home4, &self.interfaces);
        self.v6.desired(&state.v6, home6, &self.interfaces);
        if !self.recovery.recovering() {
            return;
        }
        let expected = state.peers.values().filter_map(|peer| {
            let (key, addr) = (peer.key.clone(), peer.spec.transport.peer);
            Some(Expected { id: *handles.get(&key)?, addr, key })
        });
        let expected = expected.collect();
        self.recovery.desired(now, expected);
    }

    /// Rules may have changed: the decision knows the session as it is now, and the peer reads the group that is its now.
    fn treatment_changed(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.source = peer.source_peer();
        let Some(peer) = self.peers.get(id) else { return };
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                if let Some(source) = peer.source {
                    table.rib.set_peer(id.slot, source);
                }
                if let Some(profile) = peer.export_profile(afi) {
                    table.out.reassign(id.slot, profile, &peer.desired.treatment.export);
                }
            });
        }
    }

    fn remove_peer(&mut self, id: PeerId) {
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                table.close(id.slot);
                table.rib.remove_peer(id.slot);
                table.forget_reimport(id.slot);
            });
        }
        self.recovery.forget(id);
        self.peers.remove(id);
    }

    fn peer_up(&mut self, now: Millis, id: PeerId, incarnation: Incarnation, negotiated: Negotiated) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        self.recovery.up(now);
        // Perhaps it sends no End-of-RIB, or waits for ours.
        if !negotiated.peer_graceful || negotiated.peer_restarting {
            self.recovery.excuse(id);
        }
        let session = Session::new(incarnation, negotiated);
        let families = session.context.families;
        peer.session = Some(session);
        peer.source = peer.source_peer();
        peer.idle = true;
        let Some(peer) = self.peers.get(id) else { return };
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                table.close(id.slot);
                if let Some(source) = peer.source {
                    table.rib.set_peer(id.slot, source);
                }
                if families.contains(afi)
                    && let Some(profile) = peer.export_profile(afi)
                {
                    table.out.open(id.slot, peer.addr, profile, &peer.desired.treatment.export);
                }
            });
        }
    }

    fn peer_gone(&mut self, id: PeerId, stale: AfiSet) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.session = None;
        peer.idle = true;
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                table.close(id.slot);
                if stale.contains(afi) {
                    table.rib.mark_stale(id.slot);
                } else {
                    table.rib.sweep(id.slot);
                }
            });
        }
        self.recovery.excuse(id);
    }

    /// What its session still says is that of the old parameters; its task ends it.
    fn session_replaced(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.session.take().is_some()
        {
            peer.idle = true;
            for afi in Afi::ALL {
                on_table!(self, afi, table => {
                    table.close(id.slot);
                    table.rib.mark_stale(id.slot);
                });
            }
        }
    }

    fn long_lived_stale(&mut self, id: PeerId, families: AfiSet) {
        if self.peers.get(id).is_some_and(|peer| peer.session.is_none()) {
            for afi in families.iter() {
                on_table!(self, afi, table => table.rib.mark_long_lived_stale(id.slot));
            }
        }
    }

    fn update(&mut self, id: PeerId, update: Update) {
        let Some(peer) = self.peers.get(id) else { return };
        if peer.session.is_none() {
            return;
        }
        for list in &update.withdrawn {
            match list {
                NlriList::V4(list) => self.v4.withdrawn(id.slot, list),
                NlriList::V6(list) => self.v6.withdrawn(id.slot, list),
            }
        }
        for reach in update.reach {
            let attributes = update.attributes.clone();
            match &reach.nlri {
                NlriList::V4(list) => {
                    self.v4.announced(&self.interfaces, peer, attributes, reach.next_hop, list);
                }
                NlriList::V6(list) => {
                    self.v6.announced(&self.interfaces, peer, attributes, reach.next_hop, list);
                }
            }
        }
        if let Some(afi) = update.end_of_rib {
            self.recovery.end_of_rib(id, afi);
        }
    }

    fn refresh(&mut self, id: PeerId, afi: Afi) {
        let enhanced = self
            .peers
            .get(id)
            .and_then(|peer| peer.session.as_ref())
            .is_some_and(|session| session.enhanced_refresh);
        on_table!(self, afi, table => table.out.refresh(id.slot, enhanced));
    }

    fn kernel(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Link(link) => {
                let ifindex = link.index;
                let change = self.interfaces.set_link(link);
                self.interface(ifindex);
                if change.renamed && self.interfaces.carries(ifindex) {
                    self.renamed();
                }
                self.devices_changed(change.names);
            }
            KernelEvent::LinkGone(ifindex) => {
                let name = self.interfaces.remove_link(ifindex);
                self.interface(ifindex);
                self.devices_changed(name);
            }
            KernelEvent::Address(address) => {
                let old = self.interfaces.add_address(address);
                self.v4.address(&self.interfaces, old, Some(address));
                self.v6.address(&self.interfaces, old, Some(address));
            }
            KernelEvent::AddressGone(address) => {
                let old = self.interfaces.remove_address(&address);
                self.v4.address(&self.interfaces, old, None);
                self.v6.address(&self.interfaces, old, None);
            }
            KernelEvent::Alien(IpPrefix::V4(prefix), route) => {
                self.interfaces.alien(prefix.into(), route.as_ref());
                kernel_routes::alien(&mut self.v4.rib, prefix, route);
            }
            KernelEvent::Alien(IpPrefix::V6(prefix), route) => {
                self.interfaces.alien(prefix.into(), route.as_ref());
                kernel_routes::alien(&mut self.v6.rib, prefix, route);
            }
            KernelEvent::Synced => {
                self.recovery.synced();
                // End-of-RIB may be sent now.
                for afi in Afi::ALL {
                    on_table!(self, afi, table => table.out.complete());
                }
            }
        }
    }

    fn interface(&mut self, ifindex: u32) {
        self.v4.interface(&self.interfaces, ifindex);
        self.v6.interface(&self.interfaces, ifindex);
    }

    /// Routes that go through devices of these names may go now, or no longer, or elsewhere (KRT-34).
    fn devices_changed(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.v4.fib.device_changed(&mut self.v4.rib, &name);
            self.v6.fib.device_changed(&mut self.v6.rib, &name);
        }
    }

    /// A name changed, and filters may answer otherwise.
    fn renamed(&mut self) {
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                for peer in self.peers.iter() {
                    if peer.desired.treatment.import.reads_interface() {
                        table.reimport(peer.id.slot);
                    }
                }
                table.out.reexport_by_interface();
                if table.kernel.reads_interface() {
                    table.fib.reselect_all();
                }
            });
        }
    }

    fn want(&mut self, id: PeerId, incarnation: Incarnation, budget: usize, out: &mut Vec<SpeakerOutput>) {
        let complete = self.recovery.complete();
        if self.peers.get(id).and_then(PeerState::incarnation) != Some(incarnation) {
            return;
        }
        let mut bytes = BytesMut::new();
        let mut shared = None;
        for afi in Afi::ALL {
            if bytes.len() < budget.max(1) && shared.is_none() {
                on_table!(self, afi, table => {
                    let attrs = table.rib.attr_table();
                    shared = table.out.fill(id.slot, attrs, complete.contains(afi), budget, &mut bytes);
                });
            }
        }
        let bytes = shared.unwrap_or_else(|| bytes.freeze());
        let more = self.has_work(id.slot);
        out.push(SpeakerOutput::Fill { peer: id, incarnation, bytes, more });
        if let Some(peer) = self.peers.get_mut(id) {
            peer.idle = !more;
        }
    }

    /// Whether there is anything to read for a slot.
    fn has_work(&self, slot: u32) -> bool {
        let complete = self.recovery.complete();
        self.v4.out.has_work(slot, complete.contains(Afi::Ipv4))
            || self.v6.out.has_work(slot, complete.contains(Afi::Ipv6))
    }

    /// Decides, and tells peers, kernel and people what follows from all inputs since the last call. Long work is done in
    /// parts: `true`, there is more to do, and the call is to be repeated when what came in meanwhile has been handled.
    pub fn settle(&mut self, now: Millis, out: &mut Vec<SpeakerOutput>) -> bool {
        self.v4.settle(&self.interfaces, &self.peers, SLICE);
        self.v6.settle(&self.interfaces, &self.peers, SLICE);
        for afi in self.recovery.deferral_ends(now).iter() {
            on_table!(self, afi, table => table.out.reexport_all());
        }
        let deferred = self.recovery.deferred();
        let mut work = SLICE;
        for afi in Afi::ALL {
            let deferred = deferred.contains(afi);
            on_table!(self, afi, table => {
                table.out.export(&mut table.rib, &self.interfaces, deferred, &mut work);
            });
        }
        // Before both are known, next hops seem to lead nowhere that do not.
        if self.recovery.informed() {
            let mut changes = Vec::new();
            let mut work = SLICE;
            for afi in Afi::ALL {
                on_table!(self, afi, table => {
                    let program = Bound { program: &table.kernel, sets: &table.sets };
                    table.fib.changes(&mut table.rib, &self.interfaces, program, &mut work, &mut changes);
                });
            }
            if !changes.is_empty() {
                out.push(SpeakerOutput::Fib(changes));
            }
        }
        // What is still to be imported, decided or selected anew may be wanted in the kernel.
        let undecided = self.v4.is_unsettled() || self.v6.is_unsettled();
        if !undecided && !self.v4.fib.is_busy() && !self.v6.fib.is_busy() && self.recovery.ends(now) {
            // Before the end: what stays must be known when the rest goes.
            if let Some(held) = self.recovery.newly_held(now) {
                out.push(SpeakerOutput::Held(held));
            }
            out.push(SpeakerOutput::Phase(Phase::Normal));
        } else if let Some(held) = self.recovery.newly_held(now) {
            out.push(SpeakerOutput::Held(held));
        }
        self.wake(out);
        self.is_busy()
    }

    /// Whether [`Speaker::settle`] has more to do.
    pub fn is_busy(&self) -> bool {
        let informed = self.recovery.informed();
        self.v4.is_busy(informed) || self.v6.is_busy(informed)
    }

    /// Calls those who wait and have something to read.
    fn wake(&mut self, out: &mut Vec<SpeakerOutput>) {
        let mut woken = self.v4.out.take_woken();
        woken.append(&mut self.v6.out.take_woken());
        for slot in woken {
            let Some(id) = self.peers.slot(slot).map(|peer| peer.id) else { continue };
            let more = self.has_work(slot);
            if let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.idle && more)
                && let Some(incarnation) = peer.incarnation()
            {
                peer.idle = false;
                out.push(SpeakerOutput::Ready(id, incarnation));
            }
        }
    }
}

/// KERN-10, KERN-10a: whether a Felix may be there that holds IPIP routes for its own.
fn ownership(state: &DesiredState) -> Ownership {
    let known = matches!(state.release.source, ReleaseSource::Setting | ReleaseSource::ClusterInformation);
    let takes = Release { major: 3, minor: 33 };
    Ownership {
        ipip: state.cluster_routes.ipip,
        unencapsulated: state.cluster_routes.unencapsulated,
        rival: !known || state.release.release >= takes,
    }
}
