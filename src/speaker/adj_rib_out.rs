//! Adj-RIB-Out of one family: which group each peer reads, and what has yet to be exported for the groups.
//!
//! Owns: the groups by their [`ExportProfile`], each with the program that the profile names, and the work that is under
//! way: destinations that changed, groups that are exported anew, peers that move to another group. All of it is done in
//! parts of bounded size ([`AdjRibOut::export`]); what comes in meanwhile is no less right for it. Never: reads the clock,
//! or knows when a peer reads.
//!
//! A peer whose rules changed reads its old group until the new one is complete, and is then sent the differences.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::out::{Exporter, Group, Pins, Sent, routes};
use bgp_proto::rib::{AttrId, AttrTable, ExportProfile, MovedPaths, Rib};
use bgp_proto::{DestId, Family, Prefix};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::kernel_routes::Interfaces;
use crate::policy::eval::Bound;
use crate::policy::program::Program;
use crate::policy::sets::Sets;

/// A group and its state.
#[derive(Debug)]
struct ExportGroup<F: Family> {
    profile: ExportProfile,
    program: Arc<Program>,
    group: Group<F>,
    /// All destinations are exported anew; the last that was visited.
    walk: Option<Option<Prefix<F>>>,
    /// Peers that move here.
    awaited: usize,
    /// What the last route is sent with: most often the next one is of the same UPDATE.
    last: Option<AttrId>,
}

/// All groups of one family.
#[derive(Debug)]
pub(super) struct AdjRibOut<F: Family> {
    /// Places stay: a peer names its group by place.
    groups: Vec<Option<ExportGroup<F>>>,
    places: BTreeMap<ExportProfile, usize>,
    /// The group that each established peer reads, by slot.
    reads: BTreeMap<u32, usize>,
    /// Where a peer moves to.
    moves: BTreeMap<u32, usize>,
    /// What the programs name.
    sets: Sets,
    /// Destinations that are to be exported anew, each once; their ids are pinned meanwhile.
    changed: VecDeque<DestId>,
    /// Which they are, by id.
    marked: Vec<bool>,
    /// The paths that are concerned, of those where it is not all.
    moved: BTreeMap<DestId, MovedPaths>,
    /// Of groups that are gone, until the table hears of it.
    pins: Pins,
}

impl<F: Family> AdjRibOut<F> {
    pub fn new() -> Self {
        AdjRibOut {
            groups: Vec::new(),
            places: BTreeMap::new(),
            reads: BTreeMap::new(),
            moves: BTreeMap::new(),
            sets: Sets::default(),
            changed: VecDeque::new(),
            marked: Vec::new(),
            moved: BTreeMap::new(),
            pins: Pins::default(),
        }
    }

    // ---- peers ----

    /// The session is up: all that there is will be sent.
    pub fn open(&mut self, slot: u32, addr: IpAddr, profile: ExportProfile, program: &Arc<Program>) {
        let at = self.place(profile, program);
        if let Some(group) = self.group_mut(at) {
            group.group.join(slot, addr);
            self.reads.insert(slot, at);
        }
    }

    /// The rules for a peer may be others than before; nothing that it holds is sent again.
    pub fn reassign(&mut self, slot: u32, profile: ExportProfile, program: &Arc<Program>) {
        let Some(now) = self.reads.get(&slot).copied() else { return };
        let target = self.moves.get(&slot).copied().unwrap_or(now);
        if self.group(target).is_some_and(|group| group.profile == profile) {
            return;
        }
        self.stay(slot);
        let at = self.place(profile, program);
        if at != now
            && let Some(group) = self.group_mut(at)
        {
            group.awaited += 1;
            self.moves.insert(slot, at);
        }
    }

    /// Gives up a move that was under way.
    fn stay(&mut self, slot: u32) {
        if let Some(at) = self.moves.remove(&slot)
            && let Some(group) = self.group_mut(at)
        {
            group.awaited -= 1;
        }
    }

    /// The peer asks for everything again; `enhanced`: between BoRR and EoRR.
    pub fn refresh(&mut self, slot: u32, enhanced: bool) {
        if let Some(group) = self.read_by_mut(slot) {
            group.group.refresh(slot, enhanced);
        }
    }

    /// The session is gone.
    pub fn close(&mut self, slot: u32, attrs: &mut AttrTable) {
        self.stay(slot);
        if let Some(at) = self.reads.remove(&slot) {
            if let Some(group) = self.group_mut(at) {
                group.group.leave(slot);
            }
            self.drop_idle(attrs);
        }
    }

    /// Number of routes that a peer holds.
    pub fn held(&self, slot: u32) -> usize {
        self.read_by(slot).map_or(0, |group| group.group.held(slot))
    }

    /// Path ids under which a peer holds routes of a destination.
    pub fn held_of(&self, slot: u32, dest: DestId) -> Vec<u32> {
        self.read_by(slot).map(|group| group.group.held_of(slot, dest)).unwrap_or_default()
    }

    /// Whether there is anything to read. `may_end`: End-of-RIB may be sent in this family.
    pub fn has_work(&self, slot: u32, may_end: bool) -> bool {
        self.read_by(slot).is_some_and(|group| group.group.has_work(slot, may_end && group.walk.is_none()))
    }

    /// Appends messages for a peer to `out` until that has about `budget` octets or nothing is left. The answer may
    /// instead be octets that it shares with other peers.
    pub fn fill(
        &mut self,
        slot: u32,
        attrs: &AttrTable,
        may_end: bool,
        budget: usize,
        out: &mut BytesMut,
    ) -> Option<Bytes> {
        let group = self.read_by_mut(slot)?;
        let may_end = may_end && group.walk.is_none();
        group.group.fill(slot, attrs, may_end, budget, out)
    }

    /// Slots that got something to read since the last call.
    pub fn take_woken(&mut self) -> Vec<u32> {
        let mut woken = Vec::new();
        for group in self.groups.iter_mut().flatten() {
            woken.append(&mut group.group.take_woken());
        }
        woken
    }

    /// Number of groups.
    #[cfg(test)]
    pub fn groups(&self) -> usize {
        self.places.len()
    }

    /// Number of routes of all groups.
    #[cfg(test)]
    pub fn routes(&self) -> usize {
        self.groups.iter().flatten().map(|group| group.group.routes()).sum()
    }

    // ---- routes ----

    /// Programs name these sets from now on. Which destinations are to be exported anew is the caller's to say.
    pub fn set_sets(&mut self, sets: Sets) {
        self.sets = sets;
    }

    /// These destinations are to be exported anew, with some of their paths or all.
    pub fn reexport(
        &mut self,
        rib: &mut Rib<F>,
        ids: impl IntoIterator<Item = (DestId, Option<MovedPaths>)>,
    ) {
        if self.places.is_empty() {
            return;
        }
        self.marked.resize(self.marked.len().max(rib.id_bound()), false);
        for (id, moved) in ids {
            let Some(mark) = self.marked.get_mut(id.index()) else { continue };
            if !std::mem::replace(mark, true) {
                rib.pin(id);
                self.changed.push_back(id);
                self.moved.extend(moved.map(|moved| (id, moved)));
            } else if let Some(moved) = moved {
                if let Some(before) = self.moved.get_mut(&id) {
                    before.extend(moved);
                }
            } else {
                self.moved.remove(&id);
            }
        }
    }

    fn next_changed(&mut self) -> Option<(DestId, Option<MovedPaths>)> {
        let id = self.changed.pop_front()?;
        if let Some(mark) = self.marked.get_mut(id.index()) {
            *mark = false;
        }
        Some((id, self.moved.remove(&id)))
    }

    /// Everything is to be exported anew for all groups.
    pub fn reexport_all(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.walk = Some(None);
        }
    }

    /// The same for the groups whose program asks for interfaces.
    pub fn reexport_by_interface(&mut self) {
        for group in self.groups.iter_mut().flatten().filter(|group| group.program.reads_interface()) {
            group.walk = Some(None);
        }
    }

    /// End-of-RIB may be sent from now on.
    pub fn complete(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.group.complete();
        }
    }

    /// Whether [`AdjRibOut::export`] has more to do.
    pub fn is_busy(&self) -> bool {
        !self.changed.is_empty()
            || !self.moves.is_empty()
            || self.groups.iter().flatten().any(|group| group.walk.is_some())
    }

    /// Exports what is to be exported until `work` is used up; one unit is one destination for one group. `deferred`: what
    /// peers told waits until our own restart is over.
    pub fn export(&mut self, rib: &mut Rib<F>, interfaces: &Interfaces, deferred: bool, work: &mut usize) {
        while *work > 0
            && let Some((id, moved)) = self.next_changed()
        {
            for group in self.groups.iter_mut().flatten() {
                group.export(rib, interfaces, &self.sets, deferred, id, moved.as_deref());
                *work = work.saturating_sub(1);
            }
            rib.unpin(id);
        }
        for group in self.groups.iter_mut().flatten() {
            group.walk(rib, interfaces, &self.sets, deferred, work);
        }
        while *work > 0
            && let Some(slot) = self.next_move()
        {
            self.stay_or_move(slot, rib.attr_table());
            *work = work.saturating_sub(1 + self.held(slot) / 8);
        }
        self.drop_idle(rib.attr_table_mut());
        if self.places.is_empty() {
            while let Some((id, _)) = self.next_changed() {
                rib.unpin(id);
            }
        }
        for group in self.groups.iter_mut().flatten() {
            group.group.flush();
            self.pins.append(group.group.take_pins());
        }
        let Pins { taken, given_up } = std::mem::take(&mut self.pins);
        taken.into_iter().for_each(|id| rib.pin(id));
        given_up.into_iter().for_each(|id| rib.unpin(id));
    }

    /// A peer whose new group is complete.
    fn next_move(&self) -> Option<u32> {
        let ready = |at: usize| self.group(at).is_some_and(|group| group.walk.is_none());
        self.moves.iter().find(|(_, at)| ready(**at)).map(|(slot, _)| *slot)
    }

    fn stay_or_move(&mut self, slot: u32, attrs: &AttrTable) {
        let Some(to) = self.moves.get(&slot).copied() else { return };
        self.stay(slot);
        let Some(from) = self.reads.get(&slot).copied() else { return };
        // Both at once: one is taken out of its place meanwhile.
        let Some(mut old) = self.groups.get_mut(from).and_then(Option::take) else { return };
        if let Some(new) = self.group_mut(to) {
            old.group.move_to(slot, &mut new.group, attrs);
            self.reads.insert(slot, to);
        }
        if let Some(place) = self.groups.get_mut(from) {
            *place = Some(old);
        }
    }

    fn drop_idle(&mut self, attrs: &mut AttrTable) {
        for place in &mut self.groups {
            if let Some(mut group) = place.take_if(|group| group.group.is_idle() && group.awaited == 0) {
                self.places.remove(&group.profile);
                group.group.close(attrs);
                self.pins.append(group.group.take_pins());
            }
        }
    }

    fn place(&mut self, profile: ExportProfile, program: &Arc<Program>) -> usize {
        if let Some(at) = self.places.get(&profile) {
            return *at;
        }
        let group = ExportGroup {
            profile,
            program: program.clone(),
            group: Group::new(&profile),
            walk: Some(None),
            awaited: 0,
            last: None,
        };
        let at = self.groups.iter().position(Option::is_none).unwrap_or(self.groups.len());
        match self.groups.get_mut(at) {
            Some(place) => *place = Some(group),
            None => self.groups.push(Some(group)),
        }
        self.places.insert(profile, at);
        at
    }

    fn group(&self, at: usize) -> Option<&ExportGroup<F>> {
        self.groups.get(at)?.as_ref()
    }

    fn group_mut(&mut self, at: usize) -> Option<&mut ExportGroup<F>> {
        self.groups.get_mut(at)?.as_mut()
    }

    fn read_by(&self, slot: u32) -> Option<&ExportGroup<F>> {
        self.group(*self.reads.get(&slot)?)
    }

    fn read_by_mut(&mut self, slot: u32) -> Option<&mut ExportGroup<F>> {
        self.group_mut(*self.reads.get(&slot)?)
    }
}

impl<F: Family> ExportGroup<F> {
    /// Exports one destination anew, or `only` its paths under these ids.
    fn export(
        &mut self,
        rib: &mut Rib<F>,
        interfaces: &Interfaces,
        sets: &Sets,
        deferred: bool,
        id: DestId,
        only: Option<&[u32]>,
    ) {
        // Without path ids it is the best path that counts, whichever changed; where it is yet to be decided the
        // destination comes once more.
        if !self.profile.add_path && rib.dest(id).is_some_and(|dest| !dest.is_settled()) {
            return;
        }
        let only = only.filter(|_| self.profile.add_path);
        let policy = Bound { program: &self.program, sets };
        let exporter = Exporter { profile: &self.profile, policy: &policy, deferred };
        let Some(prefix) = rib.prefix(id) else { return };
        let routes = match rib.dest(id) {
            Some(dest) => routes(rib, &exporter, prefix, dest, only, |forward| interfaces.name_of(forward)),
            None => Default::default(),
        };
        let table = rib.attr_table_mut();
        let mut sent: SmallVec<[Sent; 1]> = SmallVec::with_capacity(routes.len());
        for (path_id, source, route) in routes {
            let (attributes, next_hop) = (Cow::Owned(route.attributes), route.next_hop);
            let attrs = table.intern_like(self.last, attributes, next_hop);
            self.last = Some(attrs);
            sent.push(Sent { path_id, attrs, source });
        }
        self.group.set_some(id, prefix, only, &mut sent, table);
    }

    /// Goes on with the export of everything. What is gone from the table came in as a change of its own.
    fn walk(
        &mut self,
        rib: &mut Rib<F>,
        interfaces: &Interfaces,
        sets: &Sets,
        deferred: bool,
        work: &mut usize,
    ) {
        if self.walk.is_none() {
            return;
        }
        while *work > 0
            && let Some(after) = self.walk
        {
            let next: Vec<(DestId, Prefix<F>)> =
                rib.dests(after).map(|(id, dest)| (id, dest.prefix)).take(*work).collect();
            self.walk = next.last().map(|(_, last)| Some(*last));
            *work -= next.len();
            for (id, _) in next {
                self.export(rib, interfaces, sets, deferred, id, None);
            }
        }
        if self.walk.is_none() {
            self.group.complete();
        }
    }
}
