//! Attribute sets, each held once however many paths carry it.
//!
//! Owns: [`AttrTable`], a slab with counts, freed at the last release (W51), and the values that the decision needs
//! of each set, computed once. Never: a route's prefix.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::num::NonZero;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::ids::Asn;
use crate::wire::{AsPath, Attributes, NextHop, Segment};

/// Community of a route that is kept although its speaker has been away for long (RFC 9494 §3.2).
pub const LLGR_STALE: u32 = 0xffff_0006;
/// Community of a route that must not be kept so (RFC 9494 §3.3).
pub const NO_LLGR: u32 = 0xffff_0007;

/// A handle to an attribute set in its [`AttrTable`]: its place, counted from 1, so that none takes no room of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttrId(NonZero<u32>);

impl AttrId {
    fn new(index: u32) -> Self {
        AttrId(NonZero::<u32>::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// Attributes with their next hop, and what the decision reads of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AttrSet {
    /// Everything but the next hop.
    pub attributes: Attributes,
    /// NEXT_HOP.
    pub next_hop: Option<NextHop>,
    /// AS_PATH length, a set counted as one (RFC 4271 §9.1.2.2).
    pub path_length: u32,
    /// The first AS of AS_PATH, if it begins with a sequence.
    pub first_as: Option<Asn>,
    /// It carries LLGR_STALE, from us or from somebody before us.
    pub long_lived_stale: bool,
}

impl AttrSet {
    fn new(attributes: Attributes, next_hop: Option<NextHop>) -> Self {
        let path_length = u32::try_from(attributes.as_path.hops()).unwrap_or(u32::MAX);
        let first_as = first_as(&attributes.as_path);
        let long_lived_stale = attributes.communities.contains(&LLGR_STALE);
        AttrSet { attributes, next_hop, path_length, first_as, long_lived_stale }
    }
}

fn first_as(path: &AsPath) -> Option<Asn> {
    match path.segments.first()? {
        Segment::Sequence(list) => list.first().copied(),
        Segment::Set(_) => None,
    }
}

#[derive(Debug)]
struct Slot {
    set: AttrSet,
    hash: u64,
    count: u32,
}

/// All attribute sets of one table.
#[derive(Debug)]
pub struct AttrTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
    empty: AttrSet,
}

impl AttrTable {
    /// A table whose hashes depend on `seed` (random in production, so that no peer can aim at collisions).
    pub fn new(seed: u64) -> Self {
        AttrTable {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            empty: AttrSet::default(),
        }
    }

    /// The handle of these attributes, with one more reference.
    pub fn intern(&mut self, attributes: Attributes, next_hop: Option<NextHop>) -> AttrId {
        let hash = self.hasher.hash_one((&attributes, &next_hop));
        let slots = &mut self.slots;
        let found = self.index.find(hash, |index| {
            slot(slots, *index).is_some_and(|slot| {
                slot.hash == hash && slot.set.next_hop == next_hop && slot.set.attributes == attributes
            })
        });
        if let Some(index) = found.copied() {
            let id = AttrId::new(index);
            self.retain(id);
            return id;
        }
        let entry = Slot { set: AttrSet::new(attributes, next_hop), hash, count: 1 };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = usize::try_from(index).ok().and_then(|index| slots.get_mut(index)) {
                    *place = entry;
                }
                index
            }
            None => {
                // Paths are bounded by memory long before a `u32` is.
                let index = u32::try_from(slots.len()).unwrap_or(u32::MAX);
                slots.push(entry);
                index
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, index, |index| slot(slots, *index).map_or(0, |slot| slot.hash));
        AttrId::new(index)
    }

    /// The same for attributes that are most often those that `already` has; they are cloned only where no set has them.
    pub fn intern_like(
        &mut self,
        already: Option<AttrId>,
        attributes: Cow<'_, Attributes>,
        next_hop: NextHop,
    ) -> AttrId {
        let set = already.map(|id| (id, self.get(id)));
        if let Some((id, set)) = set
            && set.next_hop == Some(next_hop)
            && set.attributes == *attributes
        {
            self.retain(id);
            return id;
        }
        self.intern(attributes.into_owned(), Some(next_hop))
    }

    /// One more reference.
    pub fn retain(&mut self, id: AttrId) {
        if let Some(slot) = usize::try_from(id.index()).ok().and_then(|index| self.slots.get_mut(index)) {
            slot.count = slot.count.saturating_add(1);
        }
    }

    /// One reference less; the last one frees the set.
    pub fn release(&mut self, id: AttrId) {
        let Some(entry) = usize::try_from(id.index()).ok().and_then(|index| self.slots.get_mut(index)) else {
            return;
        };
        debug_assert!(entry.count > 0, "released more often than retained");
        entry.count = entry.count.saturating_sub(1);
        if entry.count > 0 {
            return;
        }
        let hash = entry.hash;
        entry.set = AttrSet::default();
        if let Ok(found) = self.index.find_entry(hash, |index| *index == id.index()) {
            found.remove();
            self.free.push(id.index());
        }
    }

    /// The set behind a handle. A handle without reference gives an empty set.
    pub fn get(&self, id: AttrId) -> &AttrSet {
        slot(&self.slots, id.index()).map_or(&self.empty, |slot| &slot.set)
    }

    /// How many sets there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

fn slot(slots: &[Slot], index: u32) -> Option<&Slot> {
    slots.get(usize::try_from(index).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;

    fn med(med: u32) -> Attributes {
        Attributes { med: Some(med), ..Attributes::default() }
    }

    #[test]
    fn equal_sets_are_held_once_and_freed_at_the_last_release() {
        let mut table = AttrTable::new(7);
        let a = table.intern(med(1), None);
        let b = table.intern(med(1), None);
        let c = table.intern(med(2), None);
        assert_eq!(a, b);
        assert_ne!(a, c);
        table.release(a);
        assert_eq!(table.len(), 2);
        assert_eq!(table.get(b).attributes.med, Some(1));
        table.release(b);
        table.release(c);
        assert!(table.is_empty());
    }

    #[test]
    fn a_million_sets_one_after_another_take_the_place_of_one() {
        let mut table = AttrTable::new(7);
        for n in 0..1_000_000 {
            let id = table.intern(med(n), None);
            table.release(id);
        }
        assert!(table.is_empty());
        assert_eq!(table.slots.len(), 1);
    }

    #[test]
    fn a_set_counts_as_one_in_the_path_length() {
        let path = AsPath {
            segments: smallvec![
                Segment::Sequence(smallvec![Asn(1), Asn(2)]),
                Segment::Set(smallvec![Asn(3), Asn(4), Asn(5)]),
                Segment::Sequence(smallvec![Asn(6)]),
            ],
        };
        assert_eq!(path.hops(), 4);
        assert_eq!(first_as(&path), Some(Asn(1)));
        assert_eq!(first_as(&AsPath { segments: smallvec![Segment::Set(smallvec![Asn(3)])] }), None);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_map(steps in prop::collection::vec((any::<bool>(), 0u32..6), 0..200)) {
            let mut table = AttrTable::new(1);
            let mut held: Vec<(u32, AttrId)> = Vec::new();
            for (add, key) in steps {
                if add {
                    let id = table.intern(med(key), None);
                    held.push((key, id));
                } else if let Some(at) = held.iter().position(|(k, _)| *k == key) {
                    let (_, id) = held.remove(at);
                    table.release(id);
                }
                let distinct: std::collections::BTreeSet<u32> = held.iter().map(|(k, _)| *k).collect();
                prop_assert_eq!(table.len(), distinct.len());
                for (key, id) in &held {
                    prop_assert_eq!(table.get(*id).attributes.med, Some(*key));
                }
            }
        }
    }
}
