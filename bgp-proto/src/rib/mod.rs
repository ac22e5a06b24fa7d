//! The routing table: destinations, paths, next hops, the decision, and what is sent to whom.
//!
//! Owns: [`Rib`], BIRD's `master` table for one family: connected, static, received and foreign routes together,
//! compared by preference first (KRT-8). Never: knows of sockets, policy programs or Calico; policy comes in as
//! [`Policy`]. Input: paths put and withdrawn, the node's addresses. Output: the destinations that changed.
//!
//! A change is made by any number of calls, then [`Rib::settle_part`] does what is due to all paths of a peer and decides
//! once for each destination that was touched, as much at a time as the caller has time for, and
//! [`Rib::take_changes`] names those whose paths, order or next hops are not what they were, by their dense ids. An id
//! names its prefix until [`Rib::free_ids`] finds nothing left of it: no path, nothing to be told, no [pin](Rib::pin).
//!
//! | module | owns |
//! |---|---|
//! | [`path`] | sources, paths, where a path leads |
//! | [`dest`] | destinations and their ids |
//! | [`dense`] | sets of ids |
//! | [`attrs`] | attribute sets, each held once |
//! | [`decision`] | the best path and the reason of every loser |
//! | [`nexthop`] | tracked next hops, recursive resolution |
//! | [`policy`] | the view of a route that policy works on |
//! | [`mod@import`] | from what a peer sent to a path |
//! | `received` | the paths of peers: their entry, their ageing, their exit |
//! | [`mod@export`] | from a path to what a peer is sent |

pub mod attrs;
pub mod decision;
pub mod dense;
pub mod dest;
pub mod export;
pub mod import;
pub mod nexthop;
pub mod path;
pub mod policy;
mod received;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk_tests;

pub use attrs::{AttrId, AttrSet, AttrTable, LLGR_STALE, NO_LLGR};
pub use decision::Reason;
pub use dense::DestSet;
pub use dest::{Dest, MovedPaths};
pub use export::{ExportProfile, NextHopRule, OutRoute, PathView, ProgramId, export};
pub use import::{Admitted, ImportProfile, ImportRules, Imported, is_ordinary};
pub use nexthop::{Connected, LocalAddress, NextHops, Resolution, Unresolved, is_host};
pub use path::{
    BgpPath, Forward, Freshness, KernelRoute, Leg, LocalRoute, LocalSource, NextHopId, Path, PathKind,
    Refused, Source, SourceClass, SourcePeer,
};
pub use policy::{Device, Policy, RouteView};

use crate::ids::DestId;
use crate::prefix::{Family, Prefix};
use crate::wire::{Attributes, NextHop};
use decision::Facts;
use dest::Dests;
use path::Lead;
use received::Walks;

/// Most next hops of one kernel route (KRT-28).
pub const MAX_LEGS: usize = 16;

/// One family's table.
#[derive(Debug)]
pub struct Rib<F: Family> {
    dests: Dests<F>,
    attrs: AttrTable,
    next_hops: NextHops<F>,
    connected: Connected<F>,
    peers: Vec<Option<SourcePeer>>,
    /// The destinations to which each peer has paths, by slot.
    by_peer: Vec<DestSet>,
    /// What is under way with all paths of a peer.
    walks: Walks,
    /// Destinations with a static route over a gateway, which follows the addresses.
    gateways: DestSet,
}

impl<F: Family> Rib<F> {
    /// An empty table; `seed` makes hashes unpredictable for peers.
    pub fn new(seed: u64) -> Self {
        Rib {
            dests: Dests::default(),
            attrs: AttrTable::new(seed),
            next_hops: NextHops::default(),
            connected: Connected::default(),
            peers: Vec::new(),
            by_peer: Vec::new(),
            walks: Walks::default(),
            gateways: DestSet::default(),
        }
    }

    // ---- inputs ----

    /// Replaces the addresses of an interface. An empty list forgets it.
    pub fn set_addresses(&mut self, ifindex: u32, addresses: Vec<LocalAddress<F>>) {
        if self.connected.set(ifindex, addresses) {
            self.addresses_changed();
        }
    }

    /// Adds one address of an interface: only next hops that it may concern are resolved again.
    pub fn add_address(&mut self, ifindex: u32, address: LocalAddress<F>) {
        if self.connected.add(ifindex, address) {
            self.address_changed(address);
        }
    }

    /// Removes one address of an interface: only next hops that it may concern are resolved again.
    pub fn remove_address(&mut self, ifindex: u32, address: LocalAddress<F>) {
        if self.connected.remove(ifindex, address) {
            self.address_changed(address);
        }
    }

    /// The other end of a point-to-point link has a prefix that does not hold the address itself.
    fn address_changed(&mut self, address: LocalAddress<F>) {
        self.addresses_changed_within(&[address.prefix, Prefix::host(address.addr)]);
    }

    /// Replaces the subnets that are the node's by intent: a next hop inside is not resolved through a default route.
    pub fn set_home(&mut self, home: Vec<Prefix<F>>) {
        if self.connected.set_home(home) {
            self.addresses_changed();
        }
    }

    /// Puts a path of our own: connected, static or foreign.
    pub fn put_local(&mut self, prefix: Prefix<F>, route: LocalRoute<F>) {
        let id = self.dests.id_or_new(prefix);
        let source = match &route {
            LocalRoute::Direct(ifindex) => LocalSource::Direct(*ifindex),
            LocalRoute::Blackhole | LocalRoute::Gateway(_) => LocalSource::Static,
            LocalRoute::Kernel(_) => LocalSource::Kernel,
        };
        let kind = match route {
            LocalRoute::Direct(ifindex) => PathKind::Direct { ifindex },
            LocalRoute::Kernel(route) => PathKind::Kernel(route),
            LocalRoute::Blackhole => {
                self.gateways.remove(id);
                PathKind::Blackhole
            }
            LocalRoute::Gateway(via) => {
                self.gateways.insert(id);
                PathKind::Gateway { via, ifindex: self.connected.interface_of(via) }
            }
        };
        let (source, path_id) = source.key();
        let Some(place) = self.dests.get(id).map(|dest| dest.place(source, path_id)) else { return };
        self.put(id, place, path_id, source.class().preference(), kind, Freshness::Fresh);
    }

    /// Takes a path of our own away.
    pub fn remove_local(&mut self, prefix: Prefix<F>, source: LocalSource) {
        let Some(id) = self.dests.id(prefix) else { return };
        let (source, path_id) = source.key();
        if let Some(Ok(at)) = self.dests.get(id).map(|dest| dest.place(source, path_id)) {
            self.remove(id, at);
            if source == Source::Static {
                self.gateways.remove(id);
            }
        }
    }

    /// One more holder of these attributes, as they were received. Give it back by [`Rib::release`].
    pub fn intern(&mut self, attributes: Attributes, next_hop: Option<NextHop>) -> AttrId {
        self.attrs.intern(attributes, next_hop)
    }

    /// One more holder of attributes.
    pub fn retain(&mut self, id: AttrId) {
        self.attrs.retain(id);
    }

    /// Gives attributes back.
    pub fn release(&mut self, id: AttrId) {
        self.attrs.release(id);
    }

    /// One more who keeps something by this id: it names its prefix until [`Rib::unpin`], and if the prefix comes back
    /// meanwhile it has the same id.
    pub fn pin(&mut self, id: DestId) {
        self.dests.pin(id);
    }

    /// One less. The id is free at the next [`Rib::free_ids`] if that was all.
    pub fn unpin(&mut self, id: DestId) {
        self.dests.unpin(id);
    }

    /// Goes on with what is due to all paths of a peer, then decides for destinations that were touched and for those
    /// whose next hops lead elsewhere therefore, until `work` is used up: one unit is one destination with few paths.
    pub fn settle_part(&mut self, work: &mut usize) {
        self.walk(work);
        // A lead depends on preference and class only, never on next hops: nothing is visited without end.
        while *work > 0
            && let Some(id) = self.dests.next_touched()
        {
            let paths = self.dests.get(id).map_or(0, |dest| dest.paths.len());
            *work = work.saturating_sub(1 + paths / 16);
            self.decide(id);
        }
    }

    /// The same to the end.
    pub fn settle(&mut self) {
        while self.is_busy() {
            let mut work = usize::MAX;
            self.settle_part(&mut work);
        }
    }

    /// Whether [`Rib::settle_part`] has more to do.
    pub fn is_busy(&self) -> bool {
        self.dests.has_touched() || !self.walks.is_empty()
    }

    fn decide(&mut self, id: DestId) {
        let Some(dest) = self.dests.get_mut(id) else { return };
        let facts = Facts { attrs: &self.attrs, next_hops: &self.next_hops, peers: &self.peers };
        dest.set_best(decision::decide(&dest.paths, facts, |_, _| ()));
        let lead = Lead::of(dest.best());
        if let Some(prefix) = self.dests.set_lead(id, lead) {
            for next_hop in self.next_hops.inside(&prefix) {
                self.resolve_again(next_hop);
            }
        }
        self.dests.leave(id);
    }

    /// The destinations that changed since the last call, each once. One that is gone still names its prefix.
    pub fn take_changes(&mut self) -> Vec<DestId> {
        self.take_moves().into_iter().map(|(id, _)| id).collect()
    }

    /// The same; of a destination of many paths, with those that are others than before where these are few.
    pub fn take_moves(&mut self) -> Vec<(DestId, Option<MovedPaths>)> {
        self.dests.take_changed()
    }

    /// Frees the ids of destinations of which nothing is left. Call it when what [`Rib::take_changes`] gave is done.
    pub fn free_ids(&mut self) {
        self.dests.free_gone();
    }

    /// The attribute sets, for those who hold some of their own.
    pub fn attr_table_mut(&mut self) -> &mut AttrTable {
        &mut self.attrs
    }

    /// The same, to look at.
    pub fn attr_table(&self) -> &AttrTable {
        &self.attrs
    }

    // ---- views ----

    /// The id of a prefix, if it has one.
    pub fn id(&self, prefix: Prefix<F>) -> Option<DestId> {
        self.dests.id(prefix)
    }

    /// The prefix of an id that is in use.
    pub fn prefix(&self, id: DestId) -> Option<Prefix<F>> {
        self.dests.get(id).map(|dest| dest.prefix)
    }

    /// A destination that has a path.
    pub fn dest(&self, id: DestId) -> Option<&Dest<F>> {
        self.dests.get(id).filter(|dest| !dest.paths.is_empty())
    }

    /// The same, by its prefix.
    pub fn dest_of(&self, prefix: Prefix<F>) -> Option<&Dest<F>> {
        self.dest(self.dests.id(prefix)?)
    }

    /// The destinations that are `outer` or inside it, in order of their prefixes, after `after` if that is given.
    pub fn dests_within(
        &self,
        outer: Prefix<F>,
        after: Option<Prefix<F>>,
    ) -> impl Iterator<Item = (DestId, &Dest<F>)> {
        let own = self.id(outer).filter(|_| after.is_none());
        let own = own.and_then(|id| Some((id, self.dest(id)?)));
        let inside = self.dests(Some(after.unwrap_or(outer)));
        own.into_iter().chain(inside.take_while(move |(_, dest)| outer.covers(dest.prefix)))
    }

    /// The destinations that have a path over a next hop inside `addresses`.
    pub fn dests_over(&self, addresses: Prefix<F>) -> impl Iterator<Item = DestId> {
        let next_hops = self.next_hops.inside(&addresses).into_iter();
        next_hops.filter_map(|id| self.next_hops.users(id)).flat_map(DestSet::iter)
    }

    /// The destinations in order of their prefixes, after `after` if that is given.
    pub fn dests(&self, after: Option<Prefix<F>>) -> impl Iterator<Item = (DestId, &Dest<F>)> {
        self.dests.iter(after)
    }

    /// Number of destinations.
    pub fn len(&self) -> usize {
        self.dests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.dests.len() == 0
    }

    /// All ids are below this.
    pub fn id_bound(&self) -> usize {
        self.dests.bound()
    }

    /// The session in a slot.
    pub fn peer(&self, slot: u32) -> Option<&SourcePeer> {
        self.peers.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    /// The attributes behind a handle.
    pub fn attrs(&self, id: AttrId) -> &AttrSet {
        self.attrs.get(id)
    }

    /// Number of attribute sets held.
    pub fn attr_sets(&self) -> usize {
        self.attrs.len()
    }

    /// The tracked next hops.
    pub fn next_hops(&self) -> &NextHops<F> {
        &self.next_hops
    }

    /// The node's addresses.
    pub fn connected(&self) -> &Connected<F> {
        &self.connected
    }

    /// Where a path leads.
    pub fn forward(&self, path: &Path<F>) -> Forward {
        match &path.kind {
            PathKind::Direct { ifindex } => {
                let leg = Leg { via: None, ifindex: *ifindex, onlink: false, weight: 1 };
                Forward::Legs(std::iter::once(leg).collect())
            }
            PathKind::Blackhole => Forward::Blackhole,
            PathKind::Gateway { via, ifindex } => path::gateway_forward::<F>(*via, *ifindex),
            PathKind::Kernel(route) => route.forward.clone(),
            PathKind::Bgp(bgp) => self.next_hops.resolution(bgp.next_hop).forward.clone(),
        }
    }

    /// The paths that the kernel may use beside the best one of a destination, the best first (KRT-28).
    pub fn multipath<'a>(&'a self, dest: &'a Dest<F>) -> impl Iterator<Item = &'a Path<F>> {
        let best = dest.best();
        let facts = Facts { attrs: &self.attrs, next_hops: &self.next_hops, peers: &self.peers };
        let others = dest.paths.iter().enumerate().filter_map(move |(index, path)| {
            (Some(index) != dest.best_index() && decision::mergeable(best?, path, facts)).then_some(path)
        });
        best.into_iter().chain(others)
    }

    /// Why each path of a destination is not the best; `None` for the best. In the order of its paths.
    pub fn reasons(&self, dest: &Dest<F>) -> Vec<Option<Reason>> {
        let facts = Facts { attrs: &self.attrs, next_hops: &self.next_hops, peers: &self.peers };
        let mut reasons = vec![None; dest.paths.len()];
        decision::decide(&dest.paths, facts, |index, reason| {
            if let Some(place) = reasons.get_mut(index) {
                *place = Some(reason);
            }
        });
        reasons
    }

    // ---- inside ----

    /// Puts a path at its place. What the new one holds is held already.
    fn put(
        &mut self,
        id: DestId,
        place: Result<usize, usize>,
        path_id: u32,
        preference: u16,
        kind: PathKind<F>,
        freshness: Freshness,
    ) {
        let Some(dest) = self.dests.get_mut(id) else { return };
        match place {
            Ok(at) => {
                let Some(path) = dest.paths.get_mut(at) else { return };
                let same = path.kind == kind && path.preference == preference;
                path.preference = preference;
                path.freshness = freshness;
                let old = std::mem::replace(&mut path.kind, kind);
                if !same {
                    let out_id = path.out_id;
                    self.dests.touch_path(id, out_id);
                }
                self.drop_kind(id, &old);
            }
            Err(at) => {
                let out_id = dest.free_out_id();
                self.dests.insert(id, at, Path { kind, path_id, out_id, preference, freshness });
            }
        }
    }

    fn remove(&mut self, id: DestId, at: usize) {
        let Some(path) = self.dests.remove(id, at) else { return };
        self.drop_kind(id, &path.kind);
        if let PathKind::Bgp(bgp) = path.kind
            && self.dests.get(id).is_none_or(|dest| dest.paths_of(bgp.slot).next().is_none())
            && let Some(dests) = usize::try_from(bgp.slot).ok().and_then(|at| self.by_peer.get_mut(at))
        {
            dests.remove(id);
        }
    }

    /// Gives back what a path held that is no longer in its destination.
    fn drop_kind(&mut self, id: DestId, kind: &PathKind<F>) {
        if let PathKind::Bgp(bgp) = kind {
            self.attrs.release(bgp.got);
            self.attrs.release(bgp.used);
            let others = self.dests.get(id).into_iter().flat_map(|dest| &dest.paths);
            if !others.into_iter().any(|path| path.is_over(bgp.next_hop)) {
                self.next_hops.remove_user(bgp.next_hop, id);
            }
        }
    }

    fn resolve_again(&mut self, next_hop: NextHopId) {
        let Some(key) = self.next_hops.key(next_hop) else { return };
        let resolution = nexthop::resolve(&self.dests, &self.connected, key);
        if let Some(users) = self.next_hops.store(next_hop, resolution) {
            users.iter().for_each(|id| self.dests.touch(id));
        }
    }

    fn addresses_changed(&mut self) {
        self.addresses_changed_within(&[Prefix::default_route()]);
    }

    fn addresses_changed_within(&mut self, prefixes: &[Prefix<F>]) {
        for id in self.gateways.iter() {
            let Some(dest) = self.dests.get_mut(id) else { continue };
            let mut moved = false;
            for path in &mut dest.paths {
                if let PathKind::Gateway { via, ifindex } = &mut path.kind
                    && prefixes.iter().any(|prefix| prefix.contains(*via))
                {
                    let now = self.connected.interface_of(*via);
                    moved |= *ifindex != now;
                    *ifindex = now;
                }
            }
            if moved {
                self.dests.touch(id);
            }
        }
        for prefix in prefixes {
            for next_hop in self.next_hops.inside(prefix) {
                self.resolve_again(next_hop);
            }
        }
    }
}
