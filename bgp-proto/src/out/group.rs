//! A group: the routes that export gives for one profile, and who reads them.
//!
//! Owns: the entries with their dense ids, the readers, and what a change means for each of them. Whatever interleaving
//! of changes and reads there is, a reader that has read everything holds exactly the group's routes but those that came
//! from it or lead to it, and nothing was withdrawn that it did not hold. Never: decides what is sent; that is
//! [`routes`](mod@super::routes).
//!
//! Cost: changes are noted, and one [`Group::flush`] puts all of them into the readers' bits, a word for 64 entries;
//! joining and a refresh copy one set of bits; nothing grows with the number of changes. An id is free again when its entry has no
//! attributes and no reader has yet to hear of that.
//!
//! Destinations are named by the table's dense ids. The group keeps something by an id as long as it has an entry of it, and the
//! owner of the table pins it for that time ([`Group::take_pins`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::ids::DestId;
use crate::out::chunks::Chunks;
use crate::out::reader::{Bits, Reader};
use crate::prefix::{Family, Prefix};
use crate::rib::{AttrId, AttrTable, ExportProfile};
use crate::wire::Context;

/// No entry, no reader, no source.
pub(super) const NONE: u32 = u32::MAX;

/// One route of a destination as it is to be sent. `attrs` is a reference that the group takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// The path id that it is sent with; 0 without add-path.
    pub path_id: u32,
    /// Attributes and next hop.
    pub attrs: AttrId,
    /// Slot of the peer that it came from.
    pub source: Option<u32>,
}

/// What the group sends under one `OutId`.
#[derive(Debug)]
pub(super) struct Entry<F: Family> {
    pub prefix: Prefix<F>,
    /// The table's id of the prefix.
    dest: DestId,
    pub path_id: u32,
    /// `None`: withdrawn, and kept for those who have yet to hear of it.
    pub attrs: Option<AttrId>,
    /// With attributes the slot of the peer that it came from, or [`NONE`]; without them how many readers hold it.
    who: u32,
    /// The next entry of the same prefix, in order of path ids.
    next: u32,
}

impl<F: Family> Entry<F> {
    /// Slot of the peer that a route came from, or [`NONE`].
    pub fn source(&self) -> u32 {
        if self.attrs.is_some() { self.who } else { NONE }
    }

    /// Whether a reader may get it: it does not come from it, and does not lead to it (BGP-23).
    pub fn is_for(&self, slot: u32, addr: Option<IpAddr>, attrs: &AttrTable) -> bool {
        let next_hop = self.attrs.and_then(|id| attrs.get(id).next_hop).map(|next_hop| next_hop.addr());
        self.source() != slot && next_hop.is_some() && next_hop != addr
    }
}

/// One group of readers.
#[derive(Debug)]
pub struct Group<F: Family> {
    pub(super) context: Context,
    pub(super) entries: Vec<Entry<F>>,
    free: Vec<u32>,
    /// The first entry of each destination, by its id.
    heads: Vec<u32>,
    /// Destinations of which it has an entry now and had none, and the other way round.
    pins: Pins,
    /// Entries with attributes.
    pub(super) live: Bits,
    pub(super) readers: Vec<Reader>,
    /// Place of each slot's reader.
    places: Vec<u32>,
    /// The readers of each address.
    slots: BTreeMap<IpAddr, SmallVec<[u32; 1]>>,
    woken: Vec<u32>,
    dirty: Dirty,
    pub(super) chunks: Chunks,
}

/// Destinations that a group begins or ends to keep something of.
#[derive(Debug, Default)]
pub struct Pins {
    /// They are to be pinned, before the others are given up.
    pub taken: Vec<DestId>,
    /// They are to be unpinned.
    pub given_up: Vec<DestId>,
}

impl Pins {
    /// Takes in what came later.
    pub fn append(&mut self, mut later: Pins) {
        self.taken.append(&mut later.taken);
        self.given_up.append(&mut later.given_up);
    }
}

/// What changed and is not in the readers' bits yet.
#[derive(Debug, Default)]
struct Dirty {
    /// New or changed entries.
    live: Bits,
    /// Entries that were withdrawn.
    dead: Bits,
    /// Entries that a reader may not get, with its slot.
    barred: Vec<(u32, u32)>,
    /// Words in which there is anything.
    words: std::ops::Range<usize>,
}

impl Dirty {
    fn note(&mut self, id: u32) {
        let at = index(id / u64::BITS);
        self.words = if self.words.is_empty() {
            at..at + 1
        } else {
            self.words.start.min(at)..self.words.end.max(at + 1)
        };
    }
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

impl<F: Family> Group<F> {
    /// A group without routes and readers.
    pub fn new(profile: &ExportProfile) -> Self {
        Group {
            context: profile.context(),
            entries: Vec::new(),
            free: Vec::new(),
            heads: Vec::new(),
            pins: Pins::default(),
            live: Bits::default(),
            readers: Vec::new(),
            places: Vec::new(),
            slots: BTreeMap::new(),
            woken: Vec::new(),
            dirty: Dirty::default(),
            chunks: Chunks::default(),
        }
    }

    // ---- routes ----

    /// Replaces what is sent of a destination. `routes` is sorted here by path id; no two have the same. The readers hear of
    /// any number of such changes by one [`Group::flush`].
    pub fn set(&mut self, dest: DestId, prefix: Prefix<F>, routes: &mut [Sent], attrs: &mut AttrTable) {
        self.set_some(dest, prefix, None, routes, attrs);
    }

    /// The same for `only` these path ids, where some are given; `routes` has no others.
    pub fn set_some(
        &mut self,
        dest: DestId,
        prefix: Prefix<F>,
        only: Option<&[u32]>,
        routes: &mut [Sent],
        attrs: &mut AttrTable,
    ) {
        let concerned = |path_id| only.is_none_or(|ids| ids.contains(&path_id));
        let first = self.head(dest);
        if first == NONE && routes.is_empty() {
            return;
        }
        routes.sort_unstable_by_key(|route| route.path_id);
        let mut chain = Chain { first, last: NONE, at: first };
        // They are told last: a flush frees ids, and the chain is not whole before its head is set.
        let mut moved: SmallVec<[Moved; 2]> = SmallVec::new();
        for route in routes.iter() {
            while let Some(entry) = self.entry(chain.at).filter(|entry| entry.path_id < route.path_id) {
                let (path_id, next) = (entry.path_id, entry.next);
                if concerned(path_id) {
                    self.withdraw(&mut chain, next, attrs);
                } else {
                    chain.pass(next);
                }
            }
            match self.entry(chain.at).filter(|entry| entry.path_id == route.path_id).map(|entry| entry.next)
            {
                Some(next) => {
                    moved.extend(self.replace(chain.at, *route, attrs));
                    chain.last = chain.at;
                    chain.at = next;
                }
                None => {
                    let id = self.add(dest, prefix, *route, chain.at);
                    self.link(&mut chain, id);
                    chain.last = id;
                    self.changed(id, *route, attrs);
                }
            }
        }
        while let Some((path_id, next)) = self.entry(chain.at).map(|entry| (entry.path_id, entry.next)) {
            if concerned(path_id) {
                self.withdraw(&mut chain, next, attrs);
            } else {
                chain.pass(next);
            }
        }
        self.set_head(dest, chain.first);
        if !moved.is_empty() {
            self.flush();
        }
        for Moved { id, from, to } in moved {
            self.look_again(id, from, attrs);
            self.look_again(id, to, attrs);
        }
    }

    /// Number of routes.
    pub fn routes(&self) -> usize {
        self.live.count()
    }

    /// Number of ids in use, those of withdrawn routes that somebody still holds among them.
    pub fn ids(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// What changed since the last call in the destinations of which it has entries. The ids that it took are pinned before
    /// anything else can free them.
    pub fn take_pins(&mut self) -> Pins {
        std::mem::take(&mut self.pins)
    }

    /// Gives back what it holds of the attribute table, and all of its destinations. The group is of no use afterwards.
    pub fn close(&mut self, attrs: &mut AttrTable) {
        for id in self.entries.iter_mut().filter_map(|entry| entry.attrs.take()) {
            attrs.release(id);
        }
        self.readers.clear();
        self.places.clear();
        let heads = std::mem::take(&mut self.heads).into_iter().zip(0..);
        let kept = heads.filter(|(head, _)| *head != NONE).map(|(_, id)| DestId(id));
        self.pins.given_up.extend(kept);
    }

    pub(super) fn entry(&self, id: u32) -> Option<&Entry<F>> {
        self.entries.get(index(id))
    }

    fn head(&self, dest: DestId) -> u32 {
        self.heads.get(dest.index()).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, dest: DestId, new: u32) {
        let at = dest.index();
        if self.heads.len() <= at {
            self.heads.resize(at + 1, NONE);
        }
        let Some(place) = self.heads.get_mut(at) else { return };
        match (std::mem::replace(place, new), new) {
            (NONE, NONE) => {}
            (NONE, _) => self.pins.taken.push(dest),
            (_, NONE) => self.pins.given_up.push(dest),
            _ => {}
        }
    }

    /// Puts `id` after the last visited entry of a chain.
    fn link(&mut self, chain: &mut Chain, id: u32) {
        match self.entries.get_mut(index(chain.last)) {
            Some(last) => last.next = id,
            None => chain.first = id,
        }
    }

    fn add(&mut self, dest: DestId, prefix: Prefix<F>, route: Sent, next: u32) -> u32 {
        let id = self.place(Entry {
            prefix,
            dest,
            path_id: route.path_id,
            attrs: Some(route.attrs),
            who: route.source.unwrap_or(NONE),
            next,
        });
        self.live.set(id);
        id
    }

    fn place(&mut self, entry: Entry<F>) -> u32 {
        match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.entries.get_mut(index(id)) {
                    *place = entry;
                }
                id
            }
            None => {
                // Routes are bounded by memory long before a `u32` is.
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        }
    }

    /// `Some`: equal attributes from another peer; nothing changes but for the two.
    fn replace(&mut self, id: u32, route: Sent, attrs: &mut AttrTable) -> Option<Moved> {
        let source = route.source.unwrap_or(NONE);
        let entry = self.entries.get_mut(index(id))?;
        let (old, old_source) = (entry.attrs.replace(route.attrs), entry.who);
        entry.who = source;
        if let Some(old) = old {
            attrs.release(old);
        }
        if old == Some(route.attrs) {
            return (old_source != source).then_some(Moved { id, from: old_source, to: source });
        }
        self.live.set(id);
        self.changed(id, route, attrs);
        None
    }

    /// Whether one reader may get an entry is another question than before.
    fn look_again(&mut self, id: u32, slot: u32, attrs: &AttrTable) {
        self.chunks.forget(id);
        let may = self.entry(id).is_some_and(|entry| entry.is_for(slot, self.addr_of(slot), attrs));
        let at = self.place_of(slot);
        let Some(reader) = self.readers.get_mut(at) else { return };
        if may || reader.held.get(id) {
            reader.set_pending(id);
            wake(reader, &mut self.woken);
        } else {
            reader.clear_pending(id);
        }
    }

    fn addr_of(&self, slot: u32) -> Option<IpAddr> {
        self.reader(slot).map(|reader| reader.addr)
    }

    /// A new or changed entry: whoever may get it, or holds what it was, has something to read.
    fn changed(&mut self, id: u32, route: Sent, attrs: &AttrTable) {
        self.chunks.forget(id);
        let dirty = &mut self.dirty;
        if !dirty.live.set(id) {
            // What was true of the change before this one.
            dirty.barred.retain(|(other, _)| *other != id);
        }
        dirty.dead.clear(id);
        dirty.note(id);
        dirty.barred.extend(route.source.map(|slot| (id, slot)));
        let next_hop = attrs.get(route.attrs).next_hop.map(|next_hop| next_hop.addr());
        if let Some(slots) = next_hop.and_then(|addr| self.slots.get(&addr)) {
            dirty.barred.extend(slots.iter().map(|slot| (id, *slot)));
        }
    }

    /// Withdraws the entry at the place of a chain, and goes on to `next`.
    fn withdraw(&mut self, chain: &mut Chain, next: u32, attrs: &mut AttrTable) {
        let id = chain.at;
        chain.at = next;
        chain.last = id;
        let Some(entry) = self.entries.get_mut(index(id)) else { return };
        let Some(old) = entry.attrs.take() else {
            // Somebody has yet to hear of it.
            return;
        };
        entry.who = 0;
        attrs.release(old);
        self.live.clear(id);
        self.chunks.forget(id);
        if self.dirty.live.clear(id) {
            self.dirty.barred.retain(|(other, _)| *other != id);
        }
        self.dirty.dead.set(id);
        self.dirty.note(id);
    }

    /// Tells the readers what changed: who may get it or holds it has something to read. Ids that nobody holds are free.
    pub fn flush(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.words.is_empty() {
            return;
        }
        for reader in &mut self.readers {
            let mut news = false;
            for at in dirty.words.clone() {
                let (live, dead) = (dirty.live.word(at), dirty.dead.word(at));
                if live | dead == 0 {
                    continue;
                }
                let mut gone = if dead == 0 { 0 } else { reader.held.word(at) & dead };
                reader.set_word(at, live | gone, dead & !gone);
                news |= live | gone != 0;
                while gone != 0 {
                    let id = at * 64 + index(gone.trailing_zeros());
                    gone &= gone - 1;
                    if let Some(entry) = self.entries.get_mut(id) {
                        entry.who += 1;
                    }
                }
            }
            if news {
                wake(reader, &mut self.woken);
            }
        }
        for (id, slot) in dirty.barred {
            let at = self.place_of(slot);
            let barred = self.entry(id).is_some_and(|entry| entry.attrs.is_some());
            if let Some(reader) = self.readers.get_mut(at).filter(|reader| barred && !reader.held.get(id)) {
                reader.clear_pending(id);
            }
        }
        for id in dirty.dead.iter() {
            if self.entry(id).is_some_and(|entry| entry.attrs.is_none() && entry.who == 0) {
                self.unlink(id);
            }
        }
    }

    /// A reader has heard that an entry is gone, or has gone itself.
    pub(super) fn heard(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(index(id)) else { return };
        debug_assert!(entry.attrs.is_none() && entry.who > 0, "counted only while withdrawn");
        entry.who = entry.who.saturating_sub(1);
        if entry.who == 0 {
            self.unlink(id);
        }
    }

    /// Frees an id.
    fn unlink(&mut self, id: u32) {
        let Some(entry) = self.entry(id) else { return };
        let (dest, next) = (entry.dest, entry.next);
        let first = self.head(dest);
        if first == id {
            self.set_head(dest, next);
        } else {
            let mut at = first;
            while let Some(entry) = self.entries.get_mut(index(at)) {
                if entry.next == id {
                    entry.next = next;
                    break;
                }
                at = entry.next;
            }
        }
        self.free.push(id);
    }

    // ---- readers ----

    /// A session has come up; all that is there is pending.
    pub fn join(&mut self, slot: u32, addr: IpAddr) {
        let reader = Reader::new(slot, addr, &self.live);
        self.insert(reader);
    }

    fn insert(&mut self, mut reader: Reader) {
        let at = index(reader.slot);
        if self.places.len() <= at {
            self.places.resize(at + 1, NONE);
        }
        wake(&mut reader, &mut self.woken);
        self.slots.entry(reader.addr).or_default().push(reader.slot);
        if let Some(place) = self.places.get_mut(at) {
            debug_assert!(*place == NONE, "a slot joins once");
            *place = u32::try_from(self.readers.len()).unwrap_or(NONE);
        }
        self.readers.push(reader);
    }

    /// The session is gone.
    pub fn leave(&mut self, slot: u32) {
        self.flush();
        self.take(slot);
    }

    fn take(&mut self, slot: u32) -> Option<Reader> {
        let place = self.places.get_mut(index(slot))?;
        let at = index(std::mem::replace(place, NONE));
        if at >= self.readers.len() {
            return None;
        }
        let reader = self.readers.swap_remove(at);
        if let Some(slots) = self.slots.get_mut(&reader.addr) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.slots.remove(&reader.addr);
            }
        }
        if let Some(moved) = self.readers.get(at)
            && let Some(place) = self.places.get_mut(index(moved.slot))
        {
            *place = u32::try_from(at).unwrap_or(NONE);
        }
        // What is pending without attributes is held, or it would not be pending.
        let gone: Vec<u32> = (0..reader.pending.len())
            .filter(|at| reader.pending.word(*at) & !self.live.word(*at) != 0)
            .flat_map(|at| {
                let word = reader.pending.word(at) & !self.live.word(at);
                (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| (at, bit))
            })
            .filter_map(|(at, bit)| Some(u32::try_from(at).ok()? * u64::BITS + bit))
            .collect();
        for id in gone {
            self.heard(id);
        }
        Some(reader)
    }

    /// Moves a reader to another group of the same family, whose routes are complete. What is held there already in the
    /// same form is not sent again; what is held and not there is withdrawn; nothing flaps.
    pub fn move_to(&mut self, slot: u32, other: &mut Group<F>, attrs: &AttrTable) {
        self.flush();
        other.flush();
        let Some(reader) = self.reader(slot) else { return };
        let (addr, owed) = (reader.addr, reader.owed);
        let mut held = Vec::with_capacity(reader.held.count());
        for id in reader.held.iter() {
            if let Some(entry) = self.entry(id) {
                let same = entry.attrs.filter(|_| !reader.pending.get(id));
                held.push((entry.dest, entry.prefix, entry.path_id, same));
            }
        }
        self.take(slot);
        let mut reader = Reader::new(slot, addr, &other.live);
        reader.owed = owed;
        for (dest, prefix, path_id, had) in held {
            let id = other.adopt(dest, prefix, path_id);
            reader.held.set(id);
            let now = other.entry(id).filter(|entry| entry.attrs.is_some() && entry.attrs == had);
            let same = now.is_some_and(|entry| entry.is_for(slot, Some(addr), attrs));
            // A refresh under way sends everything.
            if same && owed.refresh.is_none() {
                reader.clear_pending(id);
            } else {
                reader.set_pending(id);
            }
        }
        other.insert(reader);
    }

    /// The id of a prefix and path id that a reader brings along; without attributes where the group does not send it.
    fn adopt(&mut self, dest: DestId, prefix: Prefix<F>, path_id: u32) -> u32 {
        let first = self.head(dest);
        let mut chain = Chain { first, last: NONE, at: first };
        while let Some(entry) = self.entries.get_mut(index(chain.at)).filter(|entry| entry.path_id <= path_id)
        {
            if entry.path_id == path_id {
                entry.who += u32::from(entry.attrs.is_none());
                return chain.at;
            }
            chain.last = chain.at;
            chain.at = entry.next;
        }
        let id = self.place(Entry { prefix, dest, path_id, attrs: None, who: 1, next: chain.at });
        self.link(&mut chain, id);
        self.set_head(dest, chain.first);
        id
    }

    /// The reader asks for everything again; `enhanced`: between BoRR and EoRR.
    pub fn refresh(&mut self, slot: u32, enhanced: bool) {
        let at = self.place_of(slot);
        if let Some(reader) = self.readers.get_mut(at) {
            reader.refresh(&self.live, enhanced);
            wake(reader, &mut self.woken);
        }
    }

    /// End-of-RIB may be sent from now on: those who wait for it have something to read.
    pub fn complete(&mut self) {
        for reader in self.readers.iter_mut().filter(|reader| reader.owed.end_of_rib) {
            wake(reader, &mut self.woken);
        }
    }

    /// Slots that got something to read since the last call.
    pub fn take_woken(&mut self) -> Vec<u32> {
        self.flush();
        for slot in &self.woken {
            let at = self.places.get(index(*slot)).map_or(usize::MAX, |place| index(*place));
            if let Some(reader) = self.readers.get_mut(at) {
                reader.woken = false;
            }
        }
        std::mem::take(&mut self.woken)
    }

    /// Whether there is anything to read for a slot, as of the last [`Group::flush`]. `may_end`: End-of-RIB may be sent.
    pub fn has_work(&self, slot: u32, may_end: bool) -> bool {
        self.reader(slot).is_some_and(|reader| reader.has_work(may_end))
    }

    /// How many routes a slot holds.
    pub fn held(&self, slot: u32) -> usize {
        self.reader(slot).map_or(0, |reader| reader.held.count())
    }

    /// Path ids under which a slot holds routes of a destination, in order.
    pub fn held_of(&self, slot: u32, dest: DestId) -> Vec<u32> {
        let Some(reader) = self.reader(slot) else { return Vec::new() };
        let mut held = Vec::new();
        let mut id = self.head(dest);
        while let Some(entry) = self.entry(id) {
            if reader.held.get(id) {
                held.push(entry.path_id);
            }
            id = entry.next;
        }
        held
    }

    /// Whether nobody reads.
    pub fn is_idle(&self) -> bool {
        self.readers.is_empty()
    }

    /// Slots of the readers.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.readers.iter().map(|reader| reader.slot)
    }

    fn reader(&self, slot: u32) -> Option<&Reader> {
        self.readers.get(self.place_of(slot))
    }

    pub(super) fn place_of(&self, slot: u32) -> usize {
        self.places.get(index(slot)).map_or(usize::MAX, |place| index(*place))
    }
}

/// An entry whose route comes from another slot than before.
struct Moved {
    id: u32,
    from: u32,
    to: u32,
}

/// A walk over the entries of one prefix.
struct Chain {
    first: u32,
    /// The last entry that was passed and stays.
    last: u32,
    /// The next to visit.
    at: u32,
}

impl Chain {
    /// The entry stays as it is.
    fn pass(&mut self, next: u32) {
        self.last = self.at;
        self.at = next;
    }
}

fn wake(reader: &mut Reader, woken: &mut Vec<u32>) {
    if !std::mem::replace(&mut reader.woken, true) {
        woken.push(reader.slot);
    }
}
