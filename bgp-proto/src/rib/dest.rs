//! Destinations: a prefix, its paths and its dense id.
//!
//! Owns: [`Dest`] and `Dests`, the index from prefixes to ids and the destinations by id. An id names its prefix as
//! long as anything of it is left: a path, a place in a queue, or a pin of somebody who keeps something by its id; until
//! then the same prefix has the same id. Never: decides.

use std::collections::{BTreeMap, VecDeque};

use prefix_trie::PrefixMap;
use smallvec::SmallVec;

use crate::ids::DestId;
use crate::prefix::{Family, Prefix};
use crate::rib::dense::FreeIds;
use crate::rib::path::{Lead, Path, PathKind, Source};

/// It waits for a decision.
const TOUCHED: u8 = 1;
/// It waits to be told as changed.
const CHANGED: u8 = 2;
/// It waits to be freed.
const GONE: u8 = 4;

/// From so many paths on it is noted which of them changed.
const MANY: usize = 4;
/// More of them are as good as all.
const MOVED: usize = 64;

/// The path ids under which the paths of a destination are sent that are others than before.
pub type MovedPaths = SmallVec<[u32; 4]>;

/// No path is best.
const NONE: u32 = u32::MAX;

/// One prefix and its paths.
#[derive(Clone, Debug)]
pub struct Dest<F: Family> {
    /// The prefix.
    pub prefix: Prefix<F>,
    /// The paths, ordered by source and path id.
    pub paths: SmallVec<[Path<F>; 1]>,
    best: u32,
    pins: u32,
    /// What it gives to next hops that it covers.
    lead: LeadKind,
    marks: u8,
}

/// The leads that most destinations have need nothing more to be told; the others stand beside the destinations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeadKind {
    Nothing,
    Recursive,
    Other,
}

impl<F: Family> Dest<F> {
    fn new(prefix: Prefix<F>) -> Self {
        Dest { prefix, paths: SmallVec::new(), best: NONE, pins: 0, lead: LeadKind::Nothing, marks: 0 }
    }

    /// Index of the best path.
    pub fn best_index(&self) -> Option<usize> {
        (self.best != NONE).then_some(usize::try_from(self.best).unwrap_or(usize::MAX))
    }

    /// Whether the decision is that of the paths as they are; if not, the destination will come as changed.
    pub fn is_settled(&self) -> bool {
        self.marks & TOUCHED == 0
    }

    /// The best path.
    pub fn best(&self) -> Option<&Path<F>> {
        self.paths.get(self.best_index()?)
    }

    pub(super) fn set_best(&mut self, index: Option<usize>) {
        self.best = index.and_then(|index| u32::try_from(index).ok()).unwrap_or(NONE);
    }

    /// Where a path is, or where it would have to be put.
    pub(super) fn place(&self, source: Source, path_id: u32) -> Result<usize, usize> {
        self.paths.binary_search_by(|path| (path.source(), path.path_id).cmp(&(source, path_id)))
    }

    /// One path.
    pub fn path(&self, source: Source, path_id: u32) -> Option<&Path<F>> {
        self.place(source, path_id).ok().and_then(|at| self.paths.get(at))
    }

    /// Where the paths of a peer begin.
    pub(super) fn first_of(&self, slot: u32) -> usize {
        self.paths.partition_point(|path| path.source() < Source::Peer(slot))
    }

    /// The paths of a peer.
    pub fn paths_of(&self, slot: u32) -> impl Iterator<Item = &Path<F>> {
        let first = self.first_of(slot);
        let rest = self.paths.get(first..).unwrap_or_default().iter();
        rest.take_while(move |path| matches!(&path.kind, PathKind::Bgp(bgp) if bgp.slot == slot))
    }

    /// The lowest path id that no path of this destination is sent with.
    pub(super) fn free_out_id(&self) -> u32 {
        if self.paths.is_empty() {
            return 1;
        }
        // Bits of the ids from 1 on; one more place than there are paths, so that one is always free.
        let mut used: SmallVec<[u64; 4]> = SmallVec::from_elem(0, self.paths.len() / 64 + 1);
        for path in &self.paths {
            let at = path.out_id.wrapping_sub(1);
            let word = usize::try_from(at / 64).ok().and_then(|word| used.get_mut(word));
            if let Some(word) = word {
                *word |= 1 << (at % 64);
            }
        }
        let free = used.iter().zip(0u32..).find(|(word, _)| **word != u64::MAX);
        free.map_or(u32::MAX, |(word, at)| at * 64 + word.trailing_ones() + 1)
    }
}

/// All destinations of a table.
#[derive(Debug)]
pub(super) struct Dests<F: Family> {
    index: PrefixMap<Prefix<F>, DestId>,
    slots: Vec<Dest<F>>,
    /// The leads of connected, static and foreign routes that are best. They are few.
    leads: BTreeMap<DestId, Lead>,
    free: FreeIds,
    /// How many have a path.
    live: usize,
    touched: VecDeque<DestId>,
    changed: Vec<DestId>,
    /// Of destinations that are touched or changed: where there is no entry all of their paths are concerned.
    moved: BTreeMap<DestId, MovedPaths>,
    gone: Vec<DestId>,
}

impl<F: Family> Default for Dests<F> {
    fn default() -> Self {
        Dests {
            index: PrefixMap::new(),
            slots: Vec::new(),
            leads: BTreeMap::new(),
            free: FreeIds::default(),
            live: 0,
            touched: VecDeque::new(),
            changed: Vec::new(),
            moved: BTreeMap::new(),
            gone: Vec::new(),
        }
    }
}

impl<F: Family> Dests<F> {
    /// The id of a prefix, if it has one.
    pub fn id(&self, prefix: Prefix<F>) -> Option<DestId> {
        self.index.get(&prefix).copied()
    }

    /// The id of a prefix.
    pub fn id_or_new(&mut self, prefix: Prefix<F>) -> DestId {
        let (slots, free) = (&mut self.slots, &mut self.free);
        *self.index.entry(prefix).or_insert_with(|| {
            if let Some(id) = free.pop()
                && let Some(place) = slots.get_mut(id.index())
            {
                *place = Dest::new(prefix);
                return id;
            }
            // Memory is at its end long before a `u32` is.
            let id = DestId(u32::try_from(slots.len()).unwrap_or(u32::MAX));
            slots.push(Dest::new(prefix));
            id
        })
    }

    /// A destination, one without paths among them.
    pub fn get(&self, id: DestId) -> Option<&Dest<F>> {
        self.slots.get(id.index())
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: DestId) -> Option<&mut Dest<F>> {
        self.slots.get_mut(id.index())
    }

    /// Number of destinations with a path.
    pub fn len(&self) -> usize {
        self.live
    }

    /// All ids are below this.
    pub fn bound(&self) -> usize {
        self.slots.len()
    }

    /// Those with a path, in order of their prefixes, after `after` if that is given.
    pub fn iter(&self, after: Option<Prefix<F>>) -> impl Iterator<Item = (DestId, &Dest<F>)> {
        let all = match after {
            Some(prefix) => self.index.iter_from(&prefix, false),
            None => self.index.iter(),
        };
        all.filter_map(|(_, id)| Some((*id, self.get(*id).filter(|dest| !dest.paths.is_empty())?)))
    }

    /// The longest one that covers an address and leads anywhere, or would, and what it gives.
    pub fn longest_match(&self, host: Prefix<F>) -> Option<(Prefix<F>, &Lead)> {
        // From short to long; destinations without a usable path are as if they were not there.
        let covering = self.index.cover(&host).filter_map(|(_, id)| Some((*id, self.get(*id)?)));
        let (id, dest) = covering.filter(|(_, dest)| dest.lead != LeadKind::Nothing).last()?;
        Some((dest.prefix, self.lead(id, dest)))
    }

    fn lead(&self, id: DestId, dest: &Dest<F>) -> &Lead {
        match dest.lead {
            LeadKind::Nothing => &Lead::Nothing,
            LeadKind::Recursive => &Lead::Recursive,
            LeadKind::Other => self.leads.get(&id).unwrap_or(&Lead::Nothing),
        }
    }

    /// Notes what a destination gives to next hops that it covers; its prefix where that is another thing than before.
    pub fn set_lead(&mut self, id: DestId, lead: Lead) -> Option<Prefix<F>> {
        let dest = self.slots.get_mut(id.index())?;
        let kind = match lead {
            Lead::Nothing => LeadKind::Nothing,
            Lead::Recursive => LeadKind::Recursive,
            Lead::Connected(_) | Lead::Over(_) => LeadKind::Other,
        };
        let before = std::mem::replace(&mut dest.lead, kind);
        let same = if kind == LeadKind::Other {
            self.leads.get(&id) == Some(&lead) && before == kind
        } else {
            before == kind
        };
        if before == LeadKind::Other && kind != before {
            self.leads.remove(&id);
        }
        if !same && kind == LeadKind::Other {
            self.leads.insert(id, lead);
        }
        (!same).then_some(dest.prefix)
    }

    /// Puts a path where none was.
    pub fn insert(&mut self, id: DestId, at: usize, path: Path<F>) {
        let Some(dest) = self.slots.get_mut(id.index()) else { return };
        self.live += usize::from(dest.paths.is_empty());
        let out_id = path.out_id;
        dest.paths.insert(at, path);
        // Until the destination is settled the best path is the one that it was.
        dest.set_best(dest.best_index().map(|best| best + usize::from(best >= at)));
        self.touch_path(id, out_id);
    }

    /// Takes a path out.
    pub fn remove(&mut self, id: DestId, at: usize) -> Option<Path<F>> {
        let dest = self.slots.get_mut(id.index()).filter(|dest| at < dest.paths.len())?;
        let path = dest.paths.remove(at);
        let best = dest.best_index().filter(|best| *best != at);
        dest.set_best(best.map(|best| best - usize::from(best > at)));
        if dest.paths.is_empty() {
            // What was many paths once needs no room any more.
            dest.paths = SmallVec::new();
            self.live -= 1;
        }
        self.touch_path(id, path.out_id);
        Some(path)
    }

    // ---- queues ----

    fn mark(&mut self, id: DestId, mark: u8) -> bool {
        let Some(dest) = self.slots.get_mut(id.index()) else { return false };
        let news = dest.marks & mark == 0;
        dest.marks |= mark;
        news
    }

    /// It has to be decided anew; all of its paths may be others than before.
    pub fn touch(&mut self, id: DestId) {
        self.moved.remove(&id);
        self.put_in_queue(id);
    }

    /// It has to be decided anew because of the path that is sent under this id.
    pub fn touch_path(&mut self, id: DestId, out_id: u32) {
        let Some(dest) = self.slots.get(id.index()) else { return };
        if dest.marks & (TOUCHED | CHANGED) == 0 {
            if dest.paths.len() >= MANY {
                self.moved.insert(id, std::iter::once(out_id).collect());
            }
        } else if let Some(moved) = self.moved.get_mut(&id) {
            if moved.len() == MOVED {
                self.moved.remove(&id);
            } else if !moved.contains(&out_id) {
                moved.push(out_id);
            }
        }
        self.put_in_queue(id);
    }

    fn put_in_queue(&mut self, id: DestId) {
        if self.mark(id, TOUCHED) {
            self.touched.push_back(id);
        }
    }

    /// The next that has to be decided anew; it counts as changed from now on.
    pub fn next_touched(&mut self) -> Option<DestId> {
        let id = self.touched.pop_front()?;
        if let Some(dest) = self.slots.get_mut(id.index()) {
            dest.marks &= !TOUCHED;
        }
        if self.mark(id, CHANGED) {
            self.changed.push(id);
        }
        Some(id)
    }

    /// Whether anything has to be decided anew.
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What changed since the last call.
    pub fn take_changed(&mut self) -> Vec<(DestId, Option<MovedPaths>)> {
        let changed = std::mem::take(&mut self.changed);
        for id in &changed {
            if let Some(dest) = self.slots.get_mut(id.index()) {
                dest.marks &= !CHANGED;
            }
        }
        // One that is touched again meanwhile comes once more, with all of its paths.
        changed.into_iter().map(|id| (id, self.moved.remove(&id))).collect()
    }

    /// Notes that there may be nothing left of a destination.
    pub fn leave(&mut self, id: DestId) {
        if self.get(id).is_some_and(|dest| dest.paths.is_empty() && dest.pins == 0) && self.mark(id, GONE) {
            self.gone.push(id);
        }
    }

    /// Frees the ids of destinations of which nothing is left.
    pub fn free_gone(&mut self) {
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|id| {
            let Some(dest) = self.slots.get_mut(id.index()) else { return false };
            if !dest.paths.is_empty() || dest.pins > 0 {
                dest.marks &= !GONE;
                return false;
            }
            if dest.marks != GONE {
                return true;
            }
            self.index.remove(&dest.prefix);
            dest.marks = 0;
            self.free.insert(*id);
            false
        });
        self.gone = gone;
    }

    /// One more who keeps something by this id.
    pub fn pin(&mut self, id: DestId) {
        if let Some(dest) = self.slots.get_mut(id.index()) {
            dest.pins += 1;
        }
    }

    /// One less.
    pub fn unpin(&mut self, id: DestId) {
        if let Some(dest) = self.slots.get_mut(id.index()) {
            debug_assert!(dest.pins > 0, "unpinned more often than pinned");
            dest.pins = dest.pins.saturating_sub(1);
        }
        self.leave(id);
    }
}
