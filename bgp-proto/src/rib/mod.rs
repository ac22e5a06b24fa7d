//! The routing table: destinations, paths, next hops, the decision, and what is sent to whom.
//!
//! Owns: [`Rib`], BIRD's `master` table for one family: connected, static, received and foreign routes together,
//! compared by preference first (KRT-8). Never: knows of sockets, policy programs or Calico; policy comes in as
//! [`Policy`]. Input: paths put and withdrawn, the node's addresses. Output: the destinations that changed.
//!
//! A change is made by any number of calls, then [`Rib::settle`] decides once for each destination that was touched and
//! [`Rib::take_changes`] names those whose paths, order or next hops are not what they were.
//!
//! | module | owns |
//! |---|---|
//! | [`path`] | sources, paths, where a path leads |
//! | [`attrs`] | attribute sets, each held once |
//! | [`decision`] | the best path and the reason of every loser |
//! | [`nexthop`] | tracked next hops, recursive resolution |
//! | [`policy`] | the view of a route that policy works on |
//! | [`mod@import`] | from what a peer sent to a path |
//! | [`mod@export`] | from a path to what a peer is sent |

pub mod attrs;
pub mod decision;
pub mod export;
pub mod import;
pub mod nexthop;
pub mod path;
pub mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use prefix_trie::PrefixMap;

pub use attrs::{AttrId, AttrSet, AttrTable, LLGR_STALE, NO_LLGR};
pub use decision::Reason;
pub use export::{ExportProfile, NextHopRule, OutRoute, PathView, ProgramId, export};
pub use import::{ImportProfile, Imported, import, is_ordinary};
pub use nexthop::{Connected, LocalAddress, NextHops, Resolution, Unresolved};
pub use path::{
    BgpPath, Dest, Forward, Freshness, Leg, Path, PathKind, Refused, Source, SourceClass, SourcePeer,
};
pub use policy::{Device, Policy, RouteView};

use crate::prefix::{Family, Prefix};
use crate::wire::{Attributes, NextHop};
use decision::Facts;
use nexthop::Lead;

/// Most next hops of one kernel route (KRT-28).
pub const MAX_LEGS: usize = 16;

/// One family's table.
#[derive(Debug)]
pub struct Rib<F: Family> {
    dests: PrefixMap<Prefix<F>, Dest<F>>,
    attrs: AttrTable,
    next_hops: NextHops<F>,
    connected: Connected<F>,
    peers: Vec<Option<SourcePeer>>,
    /// The paths of each peer, by slot.
    by_peer: Vec<BTreeSet<(Prefix<F>, u32)>>,
    /// Static routes over a gateway, which follow the addresses.
    gateways: BTreeSet<Prefix<F>>,
    touched: BTreeSet<Prefix<F>>,
    changed: BTreeSet<Prefix<F>>,
}

impl<F: Family> Rib<F> {
    /// An empty table; `seed` makes hashes unpredictable for peers.
    pub fn new(seed: u64) -> Self {
        Rib {
            dests: PrefixMap::new(),
            attrs: AttrTable::new(seed),
            next_hops: NextHops::default(),
            connected: Connected::default(),
            peers: Vec::new(),
            by_peer: Vec::new(),
            gateways: BTreeSet::new(),
            touched: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    // ---- inputs ----

    /// Replaces the addresses of an interface. An empty list forgets it.
    pub fn set_addresses(&mut self, ifindex: u32, addresses: Vec<LocalAddress<F>>) {
        if self.connected.set(ifindex, addresses) {
            self.addresses_changed();
        }
    }

    /// Replaces the subnets that are the node's by intent: a next hop inside is not resolved through a default route.
    pub fn set_home(&mut self, home: Vec<Prefix<F>>) {
        if self.connected.set_home(home) {
            self.addresses_changed();
        }
    }

    /// What is known of the session in a slot, for the decision and for export.
    pub fn set_peer(&mut self, slot: u32, peer: SourcePeer) {
        let Ok(at) = usize::try_from(slot) else { return };
        if self.peers.len() <= at {
            self.peers.resize(at + 1, None);
            self.by_peer.resize_with(at + 1, BTreeSet::new);
        }
        if let Some(place) = self.peers.get_mut(at)
            && place.replace(peer).is_some_and(|old| old != peer)
            && let Some(paths) = self.by_peer.get(at)
        {
            self.touched.extend(paths.iter().map(|(prefix, _)| *prefix));
        }
    }

    /// Forgets a slot, its paths included.
    pub fn remove_peer(&mut self, slot: u32) {
        self.sweep(slot);
        if let Some(place) = usize::try_from(slot).ok().and_then(|at| self.peers.get_mut(at)) {
            *place = None;
        }
    }

    /// Puts a path of our own: connected, static or foreign. `kind` must be of the class of `source`.
    pub fn put_local(&mut self, prefix: Prefix<F>, source: Source, path_id: u32, kind: PathKind<F>) {
        let kind = match kind {
            PathKind::Gateway { via, .. } => {
                self.gateways.insert(prefix);
                PathKind::Gateway { via, ifindex: self.connected.interface_of(via) }
            }
            PathKind::Bgp(_) => {
                debug_assert!(false, "received paths come in by put_received");
                return;
            }
            kind => {
                if source == Source::Static {
                    self.gateways.remove(&prefix);
                }
                kind
            }
        };
        self.put(prefix, source, path_id, source.class().preference(), kind, Freshness::Fresh);
    }

    /// Takes a path of our own away.
    pub fn remove_local(&mut self, prefix: Prefix<F>, source: Source, path_id: u32) {
        self.remove(prefix, source, path_id);
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

    /// Puts a received path. The caller keeps its own reference to `got`. A path that is put again without `fresh`
    /// stays stale if it was (a change of rules, not news from the peer).
    pub fn put_received(
        &mut self,
        slot: u32,
        prefix: Prefix<F>,
        path_id: u32,
        got: AttrId,
        mut imported: Imported,
        fresh: bool,
    ) {
        let Some(paths) = usize::try_from(slot).ok().and_then(|at| self.by_peer.get_mut(at)) else {
            debug_assert!(false, "set_peer comes first");
            return;
        };
        paths.insert((prefix, path_id));
        let source = Source::Peer(slot);
        let old = self.path(prefix, source, path_id).filter(|_| !fresh);
        let freshness = old.map_or(Freshness::Fresh, |path| path.freshness);
        let communities = &mut imported.attributes.communities;
        if freshness == Freshness::LongLivedStale && !communities.contains(&LLGR_STALE) {
            communities.push(LLGR_STALE);
        }
        let key = imported.next_hop;
        self.attrs.retain(got);
        let used = self.attrs.intern(imported.attributes, Some(key));
        let (dests, connected) = (&self.dests, &self.connected);
        let next_hop = self.next_hops.track(key, prefix, || nexthop::resolve(dests, connected, key));
        let kind = PathKind::Bgp(BgpPath { got, used, next_hop, refused: imported.refused });
        self.put(prefix, source, path_id, imported.preference, kind, freshness);
    }

    /// Withdraws a received path.
    pub fn withdraw(&mut self, slot: u32, prefix: Prefix<F>, path_id: u32) {
        if let Some(paths) = usize::try_from(slot).ok().and_then(|at| self.by_peer.get_mut(at))
            && paths.remove(&(prefix, path_id))
        {
            self.remove(prefix, Source::Peer(slot), path_id);
        }
    }

    /// Withdraws all paths of a peer.
    pub fn sweep(&mut self, slot: u32) {
        for (prefix, path_id) in self.paths_of(slot) {
            self.withdraw(slot, prefix, path_id);
        }
    }

    /// Marks all paths of a peer stale. They stay what they are otherwise; which of them go, and when, is decided by
    /// the session's graceful restart.
    pub fn mark_stale(&mut self, slot: u32) {
        for (prefix, path_id) in self.paths_of(slot) {
            if let Some(path) = self.path_mut(prefix, Source::Peer(slot), path_id) {
                path.freshness = path.freshness.max(Freshness::Stale);
            }
        }
    }

    /// The stale paths of a peer are long-lived stale from now on, but for those that must
    /// not be: they go (RFC 9494 §4.2).
    pub fn mark_long_lived_stale(&mut self, slot: u32) {
        for (prefix, path_id) in self.paths_of(slot) {
            let source = Source::Peer(slot);
            let Some(path) = self.path(prefix, source, path_id).filter(|path| path.is_stale()) else {
                continue;
            };
            let PathKind::Bgp(bgp) = path.kind else { continue };
            let (got, used) = (self.attrs.get(bgp.got), self.attrs.get(bgp.used));
            if [got, used].iter().any(|set| set.attributes.communities.contains(&NO_LLGR)) {
                self.withdraw(slot, prefix, path_id);
                continue;
            }
            let Some(next_hop) = used.next_hop else { continue };
            let imported = Imported {
                attributes: used.attributes.clone(),
                next_hop,
                preference: path.preference,
                refused: bgp.refused,
            };
            if let Some(path) = self.path_mut(prefix, source, path_id) {
                path.freshness = Freshness::LongLivedStale;
            }
            self.put_received(slot, prefix, path_id, bgp.got, imported, false);
        }
    }

    /// Withdraws the paths of a peer that are still stale.
    pub fn sweep_stale(&mut self, slot: u32) {
        for (prefix, path_id) in self.paths_of(slot) {
            if self.path(prefix, Source::Peer(slot), path_id).is_some_and(Path::is_stale) {
                self.withdraw(slot, prefix, path_id);
            }
        }
    }

    /// Decides for every destination that was touched, and for those whose next hops lead elsewhere therefore.
    pub fn settle(&mut self) {
        let mut concerned = BTreeSet::new();
        while let Some(prefix) = self.touched.pop_first() {
            self.changed.insert(prefix);
            let Some(dest) = self.dests.get_mut(&prefix) else { continue };
            let facts = Facts { attrs: &self.attrs, next_hops: &self.next_hops, peers: &self.peers };
            dest.best = decision::decide(&dest.paths, facts, |_, _| ());
            let lead = Lead::of(dest);
            let moved = dest.lead != lead;
            dest.lead = lead;
            if dest.paths.is_empty() {
                self.dests.remove(&prefix);
            }
            if moved {
                for id in self.next_hops.inside(&prefix) {
                    self.resolve_again(id, &mut concerned);
                }
                // A lead depends on preference and class only, never on next hops: nothing is visited without end.
                self.touched.append(&mut concerned);
            }
        }
    }

    /// The destinations that changed since the last call.
    pub fn take_changes(&mut self) -> BTreeSet<Prefix<F>> {
        std::mem::take(&mut self.changed)
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

    /// The destination of a prefix.
    pub fn dest(&self, prefix: Prefix<F>) -> Option<&Dest<F>> {
        self.dests.get(&prefix)
    }

    /// The destinations in order of their prefixes, after `after` if that is given.
    pub fn dests(&self, after: Option<Prefix<F>>) -> impl Iterator<Item = (Prefix<F>, &Dest<F>)> {
        match after {
            Some(prefix) => self.dests.iter_from(&prefix, false),
            None => self.dests.iter(),
        }
    }

    /// Number of destinations.
    pub fn len(&self) -> usize {
        self.dests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.dests.is_empty()
    }

    /// The paths of a peer: prefix and received path id.
    pub fn paths_of(&self, slot: u32) -> Vec<(Prefix<F>, u32)> {
        let paths = usize::try_from(slot).ok().and_then(|at| self.by_peer.get(at));
        paths.map(|paths| paths.iter().copied().collect()).unwrap_or_default()
    }

    /// One path.
    pub fn path(&self, prefix: Prefix<F>, source: Source, path_id: u32) -> Option<&Path<F>> {
        self.dests.get(&prefix)?.paths.iter().find(|path| path.source == source && path.path_id == path_id)
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

    /// Where a next hop leads, whether it is tracked or not.
    pub fn resolve(&self, next_hop: NextHop) -> Resolution<F> {
        nexthop::resolve(&self.dests, &self.connected, next_hop)
    }

    /// Where a path leads.
    pub fn forward(&self, path: &Path<F>) -> Forward {
        match &path.kind {
            PathKind::Direct { ifindex } => {
                let leg = Leg { via: None, ifindex: *ifindex, onlink: false, weight: 1 };
                Forward::Legs(std::iter::once(leg).collect())
            }
            PathKind::Blackhole => Forward::Blackhole,
            PathKind::Gateway { via, ifindex } => nexthop::gateway_forward::<F>(*via, *ifindex),
            PathKind::Kernel { forward, .. } => forward.clone(),
            PathKind::Bgp(bgp) => self.next_hops.resolution(bgp.next_hop).forward.clone(),
        }
    }

    /// The paths that the kernel may use beside the best one of a destination, the best first (KRT-28).
    pub fn multipath<'a>(&'a self, dest: &'a Dest<F>) -> impl Iterator<Item = &'a Path<F>> {
        let best = dest.best();
        let facts = Facts { attrs: &self.attrs, next_hops: &self.next_hops, peers: &self.peers };
        let others = dest.paths.iter().enumerate().filter_map(move |(index, path)| {
            (Some(index) != dest.best && decision::mergeable(best?, path, facts)).then_some(path)
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

    fn path_mut(&mut self, prefix: Prefix<F>, source: Source, path_id: u32) -> Option<&mut Path<F>> {
        let dest = self.dests.get_mut(&prefix)?;
        dest.paths.iter_mut().find(|path| path.source == source && path.path_id == path_id)
    }

    fn put(
        &mut self,
        prefix: Prefix<F>,
        source: Source,
        path_id: u32,
        preference: u16,
        kind: PathKind<F>,
        freshness: Freshness,
    ) {
        let dest = self.dests.entry(prefix).or_default();
        let place = dest.paths.binary_search_by(|path| (path.source, path.path_id).cmp(&(source, path_id)));
        let old = match place {
            Ok(at) => {
                let Some(path) = dest.paths.get_mut(at) else { return };
                let same = path.kind == kind && path.preference == preference;
                path.preference = preference;
                path.freshness = freshness;
                let old = std::mem::replace(&mut path.kind, kind);
                if !same {
                    self.touched.insert(prefix);
                }
                Some(old)
            }
            Err(at) => {
                let out_id = dest.free_out_id();
                dest.paths.insert(at, Path { source, path_id, out_id, preference, freshness, kind });
                // Until the destination is settled its best index would name another path.
                dest.best = None;
                self.touched.insert(prefix);
                None
            }
        };
        if let Some(old) = old {
            self.drop_kind(prefix, &old);
        }
    }

    fn remove(&mut self, prefix: Prefix<F>, source: Source, path_id: u32) {
        let Some(dest) = self.dests.get_mut(&prefix) else { return };
        let place = dest.paths.binary_search_by(|path| (path.source, path.path_id).cmp(&(source, path_id)));
        let Ok(at) = place else { return };
        let path = dest.paths.remove(at);
        dest.best = None;
        self.touched.insert(prefix);
        self.drop_kind(prefix, &path.kind);
        if matches!(path.kind, PathKind::Gateway { .. }) {
            self.gateways.remove(&prefix);
        }
    }

    fn drop_kind(&mut self, prefix: Prefix<F>, kind: &PathKind<F>) {
        if let PathKind::Bgp(bgp) = kind {
            self.attrs.release(bgp.got);
            self.attrs.release(bgp.used);
            self.next_hops.untrack(bgp.next_hop, prefix);
        }
    }

    fn resolve_again(&mut self, id: nexthop::NextHopId, concerned: &mut BTreeSet<Prefix<F>>) {
        let Some(key) = self.next_hops.key(id) else { return };
        let resolution = nexthop::resolve(&self.dests, &self.connected, key);
        self.next_hops.store(id, resolution, concerned);
    }

    fn addresses_changed(&mut self) {
        for prefix in &self.gateways {
            if let Some(dest) = self.dests.get_mut(prefix) {
                for path in &mut dest.paths {
                    if let PathKind::Gateway { via, ifindex } = &mut path.kind {
                        let now = self.connected.interface_of(*via);
                        if *ifindex != now {
                            *ifindex = now;
                            self.touched.insert(*prefix);
                        }
                    }
                }
            }
        }
        let mut concerned = BTreeSet::new();
        for id in self.next_hops.inside(&Prefix::default_route()) {
            self.resolve_again(id, &mut concerned);
        }
        self.touched.append(&mut concerned);
    }
}
