//! What peers send: from an UPDATE to paths, and what becomes of the paths when the peer goes.
//!
//! Owns: the entry and the exit of received paths. The attributes of an UPDATE are interned once however many prefixes
//! it has, and policy runs once for all of them unless it reads prefixes. What is done to all paths of a peer is a *walk*
//! over its own destinations that [`Rib::settle_part`] goes on with in parts. What the peer sends meanwhile finds each
//! destination as if the walk were over: it is done there first.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::ids::DestId;
use crate::prefix::{Family, IpPrefix};
use crate::rib::attrs::{AttrId, LLGR_STALE, NO_LLGR};
use crate::rib::dense::DestSet;
use crate::rib::import::{Admitted, ImportRules, Imported, is_ordinary};
use crate::rib::nexthop::resolve;
use crate::rib::path::{BgpPath, Freshness, NextHopId, Path, PathKind, Refused, Source};
use crate::rib::policy::Policy;
use crate::rib::{Rib, SourcePeer};
use crate::wire::{Attributes, NextHop, Nlri};

/// The outcome of import, interned: any number of paths may be made of it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    used: AttrId,
    next_hop: NextHopId,
    preference: u16,
    refused: Option<Refused>,
}

/// What is done to all paths of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// They are decided anew.
    Touch,
    /// They are stale.
    Age,
    /// Those that are stale are long-lived stale.
    AgeMore,
    /// Those that are stale go.
    SweepStale,
    /// They go.
    Sweep,
}

/// One walk over the destinations of a peer.
#[derive(Debug)]
struct Walk {
    due: Due,
    /// Where it has yet to be done, from `next` on.
    rest: DestSet,
    next: DestId,
}

/// What is under way with one peer.
#[derive(Debug, Default)]
struct WalksOfPeer {
    /// In the order in which they began.
    walks: SmallVec<[Walk; 1]>,
    /// The peer is forgotten at their end.
    forget: bool,
}

/// What is under way, by slot.
#[derive(Debug, Default)]
pub(super) struct Walks {
    of: BTreeMap<u32, WalksOfPeer>,
}

impl Walks {
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// Destinations that a walk visits before it looks at what is left of its work.
const STRIDE: usize = 256;

impl<F: Family> Rib<F> {
    /// What is known of the session in a slot, for the decision and for export.
    pub fn set_peer(&mut self, slot: u32, peer: SourcePeer) {
        let Ok(at) = usize::try_from(slot) else { return };
        if self.peers.len() <= at {
            self.peers.resize(at + 1, None);
            self.by_peer.resize_with(at + 1, Default::default);
        }
        if let Some(under_way) = self.walks.of.get_mut(&slot) {
            under_way.forget = false;
        }
        if let Some(place) = self.peers.get_mut(at)
            && place.replace(peer).is_some_and(|old| old != peer)
        {
            self.begin(slot, Due::Touch);
        }
    }

    /// Forgets a slot, its paths included.
    pub fn remove_peer(&mut self, slot: u32) {
        self.sweep(slot);
        match self.walks.of.get_mut(&slot) {
            Some(under_way) => under_way.forget = true,
            None => self.forget(slot),
        }
    }

    fn forget(&mut self, slot: u32) {
        if let Some(place) = usize::try_from(slot).ok().and_then(|at| self.peers.get_mut(at)) {
            *place = None;
        }
    }

    /// Takes the routes of an UPDATE: attributes as they were received, and the prefixes.
    pub fn announce<P: Policy>(
        &mut self,
        slot: u32,
        rules: &ImportRules<'_, P>,
        attributes: Attributes,
        next_hop: NextHop,
        nlri: &[Nlri<F>],
    ) {
        if usize::try_from(slot).ok().is_none_or(|at| self.by_peer.len() <= at) {
            debug_assert!(false, "set_peer comes first");
            return;
        }
        let admitted = Admitted::new(&rules.profile, attributes);
        let got = self.attrs.intern(admitted.attributes.clone(), Some(next_hop));
        let interface = self.interface(rules, next_hop);
        let mut shared: Option<Outcome> = None;
        for nlri in nlri {
            let prefix = IpPrefix::from(nlri.prefix);
            let outcome = match shared {
                Some(outcome) if !rules.policy.reads_prefix() => {
                    let bogus = (!is_ordinary(prefix)).then_some(Refused::Bogus);
                    Outcome { refused: admitted.refused.or(bogus).or(outcome.refused), ..outcome }
                }
                _ => {
                    let imported = admitted.import(prefix, next_hop, interface, rules.policy);
                    let outcome = self.outcome(imported, shared.map_or(got, |outcome| outcome.used));
                    // The first one holds what most of the others are.
                    match shared {
                        None => shared = Some(outcome),
                        Some(_) => self.drop_outcome(outcome),
                    }
                    outcome
                }
            };
            let id = self.dests.id_or_new(nlri.prefix);
            self.catch_up(slot, id);
            self.put_received(slot, id, nlri.path_id, got, outcome, true);
        }
        if let Some(outcome) = shared {
            self.drop_outcome(outcome);
        }
        self.attrs.release(got);
    }

    /// Runs import anew on the paths of a peer to one destination: a change of rules needs nothing from the peer, and
    /// what is stale stays stale.
    pub fn reimport<P: Policy>(&mut self, slot: u32, rules: &ImportRules<'_, P>, id: DestId) {
        self.catch_up(slot, id);
        let Some(dest) = self.dests.get(id) else { return };
        let prefix = IpPrefix::from(dest.prefix);
        let mut next = dest.first_of(slot);
        // Paths stay where they are.
        while let Some((path_id, bgp)) = self.received(slot, id, next) {
            next += 1;
            let set = self.attrs.get(bgp.got);
            let Some(next_hop) = set.next_hop else { continue };
            let admitted = Admitted::new(&rules.profile, set.attributes.clone());
            let interface = self.interface(rules, next_hop);
            let imported = admitted.import(prefix, next_hop, interface, rules.policy);
            let outcome = self.outcome(imported, bgp.got);
            self.put_received(slot, id, path_id, bgp.got, outcome, false);
            self.drop_outcome(outcome);
        }
    }

    /// Withdraws a received path.
    pub fn withdraw(&mut self, slot: u32, nlri: Nlri<F>) {
        let Some(id) = self.dests.id(nlri.prefix) else { return };
        self.catch_up(slot, id);
        let place = self.dests.get(id).map(|dest| dest.place(Source::Peer(slot), nlri.path_id));
        if let Some(Ok(at)) = place {
            self.remove(id, at);
        }
    }

    /// The destinations to which a peer has paths, from `first` on.
    pub fn dests_of(&self, slot: u32, first: DestId) -> impl Iterator<Item = DestId> {
        let dests = usize::try_from(slot).ok().and_then(|at| self.by_peer.get(at));
        dests.into_iter().flat_map(move |dests| dests.from(first))
    }

    /// Withdraws the paths of a peer that `goes` names, from one destination.
    fn remove_from(&mut self, slot: u32, id: DestId, goes: impl Fn(&Path<F>) -> bool) {
        let Some(mut at) = self.dests.get(id).map(|dest| dest.first_of(slot)) else { return };
        while let Some(path) = self.dests.get(id).and_then(|dest| dest.paths.get(at)) {
            if path.source() != Source::Peer(slot) {
                return;
            }
            if goes(path) {
                self.remove(id, at);
            } else {
                at += 1;
            }
        }
    }

    /// Withdraws all paths of a peer.
    pub fn sweep(&mut self, slot: u32) {
        self.begin(slot, Due::Sweep);
    }

    /// Withdraws the paths of a peer that are still stale.
    pub fn sweep_stale(&mut self, slot: u32) {
        self.begin(slot, Due::SweepStale);
    }

    /// Marks all paths of a peer stale. They stay what they are otherwise; which of them go, and when, is decided by
    /// the session's graceful restart.
    pub fn mark_stale(&mut self, slot: u32) {
        self.begin(slot, Due::Age);
    }

    /// The stale paths of a peer are long-lived stale from now on, but for those that must
    /// not be: they go (RFC 9494 §4.2).
    pub fn mark_long_lived_stale(&mut self, slot: u32) {
        self.begin(slot, Due::AgeMore);
    }

    // ---- walks ----

    fn begin(&mut self, slot: u32, due: Due) {
        let dests = usize::try_from(slot).ok().and_then(|at| self.by_peer.get(at));
        if let Some(dests) = dests.filter(|dests| !dests.is_empty()) {
            let walk = Walk { due, rest: dests.clone(), next: DestId(0) };
            self.walks.of.entry(slot).or_default().walks.push(walk);
        }
    }

    /// Goes on with the walks.
    pub(super) fn walk(&mut self, work: &mut usize) {
        while *work > 0
            && let Some(mut entry) = self.walks.of.first_entry()
        {
            let slot = *entry.key();
            let Some(walk) = entry.get_mut().walks.first_mut() else {
                if entry.remove().forget {
                    self.forget(slot);
                }
                continue;
            };
            let due = walk.due;
            let some: Vec<DestId> = walk.rest.from(walk.next).take(STRIDE.min(*work)).collect();
            match some.last() {
                Some(last) => walk.next = DestId(last.0 + 1),
                None => drop(entry.get_mut().walks.remove(0)),
            }
            *work -= some.len();
            some.into_iter().for_each(|id| self.visit(slot, due, id));
        }
    }

    /// Does to the paths of a peer to one destination what is under way for all.
    fn catch_up(&mut self, slot: u32, id: DestId) {
        let Some(under_way) = self.walks.of.get_mut(&slot) else { return };
        let mut here: SmallVec<[Due; 1]> = SmallVec::new();
        for walk in &mut under_way.walks {
            if id >= walk.next && walk.rest.contains(id) {
                walk.rest.remove(id);
                here.push(walk.due);
            }
        }
        here.into_iter().for_each(|due| self.visit(slot, due, id));
    }

    fn visit(&mut self, slot: u32, due: Due, id: DestId) {
        match due {
            Due::Touch => self.dests.touch(id),
            Due::Age => self.age(slot, id),
            Due::AgeMore => self.age_more(slot, id),
            Due::SweepStale => self.remove_from(slot, id, Path::is_stale),
            Due::Sweep => self.remove_from(slot, id, |_| true),
        }
    }

    fn age(&mut self, slot: u32, id: DestId) {
        let Some(dest) = self.dests.get_mut(id) else { return };
        let first = dest.first_of(slot);
        let paths = dest.paths.iter_mut().skip(first);
        for path in paths.take_while(|path| path.source() == Source::Peer(slot)) {
            path.freshness = path.freshness.max(Freshness::Stale);
        }
    }

    fn age_more(&mut self, slot: u32, id: DestId) {
        let mut at = self.dests.get(id).map_or(0, |dest| dest.first_of(slot));
        while let Some((path_id, bgp)) = self.received(slot, id, at) {
            let path = self.dests.get(id).and_then(|dest| dest.paths.get(at));
            let Some(path) = path.filter(|path| path.is_stale()) else {
                at += 1;
                continue;
            };
            let preference = path.preference;
            let sets = [self.attrs.get(bgp.got), self.attrs.get(bgp.used)];
            if sets.iter().any(|set| set.attributes.communities.contains(&NO_LLGR)) {
                self.remove(id, at);
                continue;
            }
            if let Some(path) = self.dests.get_mut(id).and_then(|dest| dest.paths.get_mut(at)) {
                path.freshness = Freshness::LongLivedStale;
            }
            let BgpPath { used, next_hop, refused, .. } = bgp;
            let outcome = Outcome { used, next_hop, preference, refused };
            self.put_received(slot, id, path_id, bgp.got, outcome, false);
            at += 1;
        }
    }

    // ---- inside ----

    fn received(&self, slot: u32, id: DestId, at: usize) -> Option<(u32, BgpPath)> {
        let path = self.dests.get(id)?.paths.get(at)?;
        match path.kind {
            PathKind::Bgp(bgp) if bgp.slot == slot => Some((path.path_id, bgp)),
            _ => None,
        }
    }

    fn interface<'a, P: Policy>(&self, rules: &ImportRules<'a, P>, next_hop: NextHop) -> &'a str {
        if !rules.policy.reads_interface() {
            return "";
        }
        (rules.interface)(&resolve(&self.dests, &self.connected, next_hop).forward)
    }

    /// Interns what import made: most often what is there `already`. Give it back by [`Rib::drop_outcome`].
    fn outcome(&mut self, imported: Imported<'_>, already: AttrId) -> Outcome {
        let Imported { attributes, next_hop: key, preference, refused } = imported;
        let used = self.attrs.intern_like(Some(already), attributes, key);
        let (dests, connected) = (&self.dests, &self.connected);
        let next_hop = self.next_hops.hold(key, || resolve(dests, connected, key));
        Outcome { used, next_hop, preference, refused }
    }

    fn drop_outcome(&mut self, outcome: Outcome) {
        self.attrs.release(outcome.used);
        self.next_hops.release(outcome.next_hop);
    }

    /// Puts a path. The caller keeps its own references. A path that is put again without `fresh` stays stale if it was
    /// (a change of rules, not news from the peer).
    fn put_received(
        &mut self,
        slot: u32,
        id: DestId,
        path_id: u32,
        got: AttrId,
        outcome: Outcome,
        fresh: bool,
    ) {
        let Some(dest) = self.dests.get(id) else { return };
        let place = dest.place(Source::Peer(slot), path_id);
        let old = place.ok().and_then(|at| dest.paths.get(at));
        let freshness = old.filter(|_| !fresh).map_or(Freshness::Fresh, |path| path.freshness);
        self.attrs.retain(got);
        let used = match freshness {
            Freshness::LongLivedStale => self.with_llgr_stale(outcome.used),
            _ => {
                self.attrs.retain(outcome.used);
                outcome.used
            }
        };
        let Outcome { next_hop, preference, refused, .. } = outcome;
        self.next_hops.add_user(next_hop, id);
        if place.is_err()
            && let Some(dests) = usize::try_from(slot).ok().and_then(|at| self.by_peer.get_mut(at))
        {
            dests.insert(id);
        }
        let kind = PathKind::Bgp(BgpPath { slot, got, used, next_hop, refused });
        self.put(id, place, path_id, preference, kind, freshness);
    }

    /// One more reference to these attributes, with LLGR_STALE among them.
    fn with_llgr_stale(&mut self, id: AttrId) -> AttrId {
        let set = self.attrs.get(id);
        if set.long_lived_stale {
            self.attrs.retain(id);
            return id;
        }
        let (mut attributes, next_hop) = (set.attributes.clone(), set.next_hop);
        attributes.communities.push(LLGR_STALE);
        self.attrs.intern(attributes, next_hop)
    }
}
