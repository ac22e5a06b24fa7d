//! The speaker: both tables, next hops, policy, export and recovery, behind one queue in and one queue out.
//!
//! Owns: all routes. Never: sockets, clocks, netlink; it is told the time and the kernel's state. Core.
//!
//! | module | owns |
//! |---|---|
//! | `table` | one family: table, views, kernel routes |
//! | `peers` | the peers and what their sessions agreed on |
//! | `out` | what one peer is sent |
//! | `kernel_routes` | what the kernel tells, as routes |
//! | `fib_out` | what the kernel is to hold |
//! | `recovery` | the wait after a start |
//! | [`status`] | views for people |
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod fib_out;
mod kernel_routes;
mod out;
mod peers;
mod recovery;
pub mod status;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp_proto::session::Negotiated;
use bgp_proto::wire::{NlriList, Notification, Update};
use bgp_proto::{Afi, AfiSet, Family, IpPrefix, Millis, PeerId, V4, V6};
use bytes::{Bytes, BytesMut};

use crate::desired::{DesiredState, SessionKey};
use crate::fib::{FibChange, KernelEvent, Phase};
use kernel_routes::Interfaces;
use out::Feed;
use peers::{PeerState, Peers, Session};
use recovery::Recovery;
use table::Table;

pub use recovery::{RECOVERY_LIMIT, Restart};

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
    /// The peer's socket can take this many bytes.
    Want {
        /// Who.
        peer: PeerId,
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
    /// There is something to read for this peer: it should say `Want`.
    Ready(PeerId),
    /// Answer to `Want`: whole messages. Empty: nothing left, `Ready` will come.
    Fill {
        /// Who.
        peer: PeerId,
        /// UPDATE, End-of-RIB, BoRR, EoRR messages.
        bytes: Bytes,
    },
    /// Close the session.
    EndSession(PeerId, Notification),
    /// The desired kernel routes changed.
    Fib(Vec<FibChange>),
    /// Recovery ended (or began).
    Phase(Phase),
}

/// Both tables and everything around them.
#[derive(Debug)]
pub struct Speaker {
    peers: Peers,
    interfaces: Interfaces,
    v4: Table<V4>,
    v6: Table<V6>,
    recovery: Recovery,
}

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
        }
    }

    /// Takes one input and appends what follows from it. Never blocks, never fails. Inputs that name a peer that is not
    /// (or no longer) desired have no effect.
    pub fn handle(&mut self, now: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
        match input {
            SpeakerInput::Desired { state, peers } => self.desired(now, &state, &peers),
            SpeakerInput::PeerUp { peer, negotiated } => self.peer_up(peer, *negotiated),
            SpeakerInput::Update { peer, update } => self.update(peer, update),
            SpeakerInput::EndOfRib(peer, afi) => self.recovery.told(peer, afi),
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
            SpeakerInput::Want { peer, budget } => return self.want(peer, budget, out),
            SpeakerInput::Kernel(event) => self.kernel(event),
            SpeakerInput::Tick => (),
        }
        self.settle(now, out);
    }

    /// When [`SpeakerInput::Tick`] is wanted.
    pub fn deadline(&self) -> Option<Millis> {
        self.recovery.deadline()
    }

    /// Whether routes of ours that nobody wants may be removed from the kernel.
    pub fn phase(&self) -> Phase {
        self.recovery.phase()
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
            match self.peers.get_mut(id) {
                None => self.peers.insert(PeerState::new(id, peer)),
                Some(known) => {
                    let rules = known.treatment != peer.treatment || known.open != peer.spec.open;
                    known.name.clone_from(&peer.name);
                    known.addr = peer.spec.transport.peer;
                    known.open = peer.spec.open.clone();
                    if rules {
                        known.treatment = peer.treatment.clone();
                        self.treat_anew(id);
                    }
                }
            }
        }
        self.peers.rules_changed();
        let home4 = state.node.ipv4.as_ref().map(|address| address.subnet);
        let home6 = state.node.ipv6.as_ref().map(|address| address.subnet);
        self.v4.desired(&state.v4, home4, &self.interfaces);
        self.v6.desired(&state.v6, home6, &self.interfaces);
        let peers = state.peers.values().filter(|peer| self.recovery.expects(&peer.name));
        let expected: Vec<_> =
            peers.filter_map(|peer| Some((*handles.get(&peer.key)?, peer.key.afi))).collect();
        self.recovery.desired(now, expected.into_iter());
    }

    /// Rules changed: what came in is imported anew, what goes out is looked at again; nothing flaps.
    fn treat_anew(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.source = peer.source_peer();
        let Some(peer) = self.peers.get(id) else { return };
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                if let Some(source) = peer.source {
                    table.rib.set_peer(id.slot, source);
                }
                table.import_again(&self.interfaces, peer);
                table.export_again(id.slot);
            });
        }
    }

    fn remove_peer(&mut self, id: PeerId) {
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                table.close(id.slot);
                table.rib.remove_peer(id.slot);
            });
        }
        self.recovery.forget(id);
        self.peers.remove(id);
    }

    fn peer_up(&mut self, id: PeerId, negotiated: Negotiated) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        // Perhaps it sends no End-of-RIB, or waits for ours.
        if !negotiated.peer_graceful || negotiated.peer_restarting {
            self.recovery.excuse(id);
        }
        let session = Session::from(negotiated);
        let families = session.context.families;
        peer.session = Some(session);
        peer.source = peer.source_peer();
        peer.idle = true;
        let source = peer.source;
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                table.close(id.slot);
                if let Some(source) = source {
                    table.rib.set_peer(id.slot, source);
                }
                if families.contains(afi) {
                    table.open(id.slot);
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
            self.recovery.told(id, afi);
        }
    }

    fn refresh(&mut self, id: PeerId, afi: Afi) {
        let enhanced = self
            .peers
            .get(id)
            .and_then(|peer| peer.session.as_ref())
            .is_some_and(|session| session.enhanced_refresh);
        on_table!(self, afi, table => table.refresh(id.slot, enhanced));
    }

    fn kernel(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Link(link) => {
                let ifindex = link.index;
                let change = self.interfaces.set_link(link);
                self.interface(ifindex);
                if change.renamed {
                    self.renamed();
                }
                self.devices_changed(change.names);
            }
            KernelEvent::LinkGone(ifindex) => {
                let name = self.interfaces.remove_link(ifindex);
                self.interface(ifindex);
                self.devices_changed(name);
            }
            KernelEvent::Addresses(ifindex, addresses) => {
                self.interfaces.set_addresses(ifindex, addresses);
                self.interface(ifindex);
            }
            KernelEvent::Alien(IpPrefix::V4(prefix), route) => {
                kernel_routes::alien(&mut self.v4.rib, prefix, route);
            }
            KernelEvent::Alien(IpPrefix::V6(prefix), route) => {
                kernel_routes::alien(&mut self.v6.rib, prefix, route);
            }
            KernelEvent::Synced => {
                self.recovery.synced();
                // End-of-RIB may be sent now.
                for afi in Afi::ALL {
                    on_table!(self, afi, table => table.woken.extend(table.outs.keys()));
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
            self.v4.fib.device_changed(&name);
            self.v6.fib.device_changed(&name);
        }
    }

    /// A name changed, and filters may answer otherwise.
    fn renamed(&mut self) {
        for afi in Afi::ALL {
            on_table!(self, afi, table => {
                for peer in self.peers.iter() {
                    if peer.treatment.import.reads_interface() {
                        table.import_again(&self.interfaces, peer);
                    }
                    if peer.treatment.export.reads_interface() {
                        table.export_again(peer.id.slot);
                    }
                }
                if table.kernel.reads_interface() {
                    table.fib.touch_all(&table.rib);
                }
            });
        }
    }

    fn want(&mut self, id: PeerId, budget: usize, out: &mut Vec<SpeakerOutput>) {
        let complete = self.recovery.complete();
        let Some(peer) = self.peers.get(id) else { return };
        let Some(session) = &peer.session else { return };
        let feed = Feed {
            peer,
            profile: peer.export_profile(session),
            context: &session.context,
            interfaces: &self.interfaces,
            enhanced_refresh: session.enhanced_refresh,
            complete,
            deferred: self.recovery.deferred(),
        };
        let mut bytes = BytesMut::new();
        fill(&mut self.v4, &feed, budget, &mut bytes);
        fill(&mut self.v6, &feed, budget, &mut bytes);
        let empty = bytes.is_empty();
        out.push(SpeakerOutput::Fill { peer: id, bytes: bytes.freeze() });
        if empty && let Some(peer) = self.peers.get_mut(id) {
            // Much was looked at and nothing was news, or nothing is left.
            let more = has_work(&self.v4, id, complete) || has_work(&self.v6, id, complete);
            peer.idle = !more;
            if more {
                out.push(SpeakerOutput::Ready(id));
            }
        }
    }

    /// Decides, and tells peers, kernel and people what follows.
    fn settle(&mut self, now: Millis, out: &mut Vec<SpeakerOutput>) {
        self.v4.settle(&self.interfaces, &self.peers);
        self.v6.settle(&self.interfaces, &self.peers);
        let deferred = self.recovery.deferral_ends(now);
        for slot in self.peers.iter().map(|peer| peer.id.slot) {
            for afi in deferred.iter() {
                on_table!(self, afi, table => table.export_again(slot));
            }
        }
        // Before both are known, next hops seem to lead nowhere that do not.
        if self.recovery.informed() {
            let mut changes = Vec::new();
            for afi in Afi::ALL {
                on_table!(self, afi, table => {
                    table.fib.changes(&table.rib, &self.interfaces, &table.kernel, &mut changes);
                });
            }
            if !changes.is_empty() {
                out.push(SpeakerOutput::Fib(changes));
            }
        }
        if self.recovery.ends(now) {
            out.push(SpeakerOutput::Phase(Phase::Normal));
        }
        let complete = self.recovery.complete();
        let mut woken = std::mem::take(&mut self.v4.woken);
        woken.append(&mut self.v6.woken);
        for slot in woken {
            let Some(id) = self.peers.slot(slot).map(|peer| peer.id) else { continue };
            let more = has_work(&self.v4, id, complete) || has_work(&self.v6, id, complete);
            if let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.idle && more) {
                peer.idle = false;
                out.push(SpeakerOutput::Ready(id));
            }
        }
    }
}

fn has_work<F: Family>(table: &Table<F>, id: PeerId, complete: AfiSet) -> bool {
    table.outs.get(&id.slot).is_some_and(|out| out.has_work(complete))
}

fn fill<F: Family>(table: &mut Table<F>, feed: &Feed<'_>, budget: usize, bytes: &mut BytesMut) {
    if let Some(out) = table.outs.get_mut(&feed.peer.id.slot)
        && bytes.len() < budget.max(1)
    {
        out.fill(&mut table.rib, feed, budget.max(1), bytes);
    }
}
