//! From pending bits to messages.
//!
//! Owns: one read of one reader: which pending entries it takes, how they are packed (BGP-18: withdrawals first and in
//! UPDATEs of their own, routes with equal attributes share an UPDATE), End-of-RIB and the marks of a refresh. Never: decides what is sent.
//!
//! Readers that come up together read the same: where all that is live in a window of ids is pending for a reader and
//! nothing in it came from it or leads to it, it is sent what was encoded for the one before it.

use bytes::{Bytes, BytesMut};

use crate::out::chunks::{Chunk, WINDOW};
use crate::out::group::Group;
use crate::out::reader::{Bits, Reader};
use crate::prefix::Family;
use crate::rib::{AttrId, AttrSet, AttrTable};
use crate::wire::capability::WireFamily;
use crate::wire::refresh::RefreshKind;
use crate::wire::{Context, Nlri, RouteRefresh, send};

/// Words of one window.
const WINDOW_WORDS: usize = 16;
/// Entries whose routes share UPDATEs, at most.
const BATCH: usize = 1024;
/// A window with fewer routes is not worth sharing.
const WORTH: u32 = 64;
/// Budgets that one shared answer may take.
const SHARED_BUDGETS: usize = 4;
/// What one look at a shared chunk came to.
enum Shared {
    /// It is the whole answer.
    Whole(Bytes),
    /// It was appended to what is there.
    Sent,
    /// It is for the next read: together with what is there it would be too much.
    Later,
    /// The reader is not in step here.
    No,
}

impl<F: Family> Group<F> {
    /// Appends messages for a reader to `out` until that has about `budget` octets or nothing is left; at least one if
    /// there is anything. `may_end`: End-of-RIB may be sent. Where `out` is empty the answer may instead be octets that
    /// readers in step share, up to four times the budget: they take room once, however many are slow to write them.
    pub fn fill(
        &mut self,
        slot: u32,
        attrs: &AttrTable,
        may_end: bool,
        budget: usize,
        out: &mut BytesMut,
    ) -> Option<Bytes> {
        self.flush();
        let place = self.place_of(slot);
        let mut batch = Batch::default();
        while out.len() < budget.max(1) {
            let reader = self.readers.get_mut(place)?;
            if let Some(refresh) = &mut reader.owed.refresh
                && std::mem::take(&mut refresh.begin)
            {
                marker::<F>(RefreshKind::Begin, out);
            }
            if let Some(id) = reader.pending.next(reader.at) {
                reader.at = id;
                match self.share(place, attrs, budget, out) {
                    Shared::Whole(bytes) => return Some(bytes),
                    Shared::Sent => {}
                    Shared::Later => return None,
                    Shared::No => self.send(place, attrs, budget, &mut batch, out),
                }
                continue;
            }
            // The scan has passed the end.
            reader.at = 0;
            if reader.owed.refresh.take().is_some_and(|refresh| refresh.end) {
                marker::<F>(RefreshKind::End, out);
            }
            if may_end && std::mem::take(&mut reader.owed.end_of_rib) {
                send::encode_end_of_rib(F::AFI, out);
                if let Some(enhanced) = reader.owed.later.take() {
                    reader.refresh(&self.live, enhanced);
                    continue;
                }
            }
            if reader.due == 0 {
                return None;
            }
        }
        None
    }

    /// Sends a window that is shared, where the reader is at its start and in step.
    fn share(&mut self, place: usize, attrs: &AttrTable, budget: usize, out: &mut BytesMut) -> Shared {
        if self.readers.len() < 2 {
            return Shared::No;
        }
        let Some(reader) = self.readers.get(place) else { return Shared::No };
        let window = reader.at / WINDOW;
        let Some(routes) = in_step(&self.live, reader, window) else { return Shared::No };
        let words = words_of(window);
        if !self.chunks.windows.contains_key(&window) {
            let chunk = self.encode_window(words.clone(), attrs);
            self.chunks.keep(window, chunk);
        }
        let Some(chunk) = self.chunks.windows.get(&window) else { return Shared::No };
        let Some(bytes) = &chunk.bytes else { return Shared::No };
        let Some(reader) = self.readers.get_mut(place) else { return Shared::No };
        if chunk.sources.binary_search(&reader.slot).is_ok()
            || chunk.next_hops.binary_search(&reader.addr).is_ok()
        {
            return Shared::No;
        }
        if bytes.len() > budget.saturating_mul(SHARED_BUDGETS) {
            return Shared::No;
        }
        let shared = if out.is_empty() {
            Shared::Whole(bytes.clone())
        } else if out.len() + bytes.len() > budget {
            return Shared::Later;
        } else {
            out.extend_from_slice(bytes);
            Shared::Sent
        };
        reader.held.or_words(&self.live, words.clone());
        reader.pending.clear_words(words);
        reader.due -= usize::try_from(routes).unwrap_or(0);
        reader.at = (window + 1) * WINDOW;
        shared
    }

    /// Messages for all that is live in some words.
    fn encode_window(&self, words: std::ops::Range<usize>, attrs: &AttrTable) -> Chunk {
        let mut batch: Batch = Batch::default();
        let mut chunk = Chunk { bytes: None, sources: Vec::new(), next_hops: Vec::new() };
        let from = u32::try_from(words.start).unwrap_or(u32::MAX).saturating_mul(u64::BITS);
        let to = from.saturating_add(WINDOW);
        let mut at = from;
        while let Some(id) = self.live.next(at).filter(|id| *id < to) {
            at = id + 1;
            let Some(entry) = self.entry(id) else { continue };
            let Some(set) = entry.attrs else { continue };
            chunk.sources.push(entry.source());
            batch.reach.push((set, id));
        }
        batch.sort();
        for (set, _) in batch.groups() {
            chunk.next_hops.extend(attrs.get(set).next_hop.map(|next_hop| next_hop.addr()));
        }
        chunk.sources.sort_unstable();
        chunk.sources.dedup();
        chunk.next_hops.sort_unstable();
        chunk.next_hops.dedup();
        let mut bytes = BytesMut::new();
        let mut nlri: Vec<Nlri<F>> = Vec::new();
        for (set, ids) in batch.groups() {
            nlri.clear();
            nlri.extend(ids.iter().filter_map(|(_, id)| self.nlri(*id)));
            if announce(&self.context, attrs.get(set), &nlri, &mut bytes) < nlri.len() {
                return chunk;
            }
        }
        chunk.bytes = Some(bytes.freeze());
        chunk
    }

    fn nlri(&self, id: u32) -> Option<Nlri<F>> {
        self.entry(id).map(|entry| Nlri { path_id: entry.path_id, prefix: entry.prefix })
    }

    /// Takes pending entries from where the reader is and sends them.
    fn send(
        &mut self,
        place: usize,
        attrs: &AttrTable,
        budget: usize,
        batch: &mut Batch,
        out: &mut BytesMut,
    ) {
        let room = budget.saturating_sub(out.len()).max(1);
        batch.clear();
        {
            let Some(reader) = self.readers.get_mut(place) else { return };
            let mut size = 0;
            let mut known = None;
            let first = reader.at;
            for _ in 0..BATCH {
                let Some(id) = reader.pending.next(reader.at) else { break };
                let enters = reader.at > first && id / WINDOW > (reader.at - 1) / WINDOW;
                if size >= room || (enters && in_step(&self.live, reader, id / WINDOW).is_some()) {
                    break;
                }
                reader.at = id + 1;
                reader.clear_pending(id);
                let Some(entry) = self.entries.get(usize::try_from(id).unwrap_or(usize::MAX)) else {
                    continue;
                };
                let set = entry.attrs.filter(|_| entry.is_for(reader.slot, Some(reader.addr), attrs));
                match set {
                    Some(set) => {
                        size += nlri_size::<F>();
                        if known.replace(set) != Some(set) {
                            size += attributes_size(attrs.get(set));
                        }
                        batch.reach.push((set, id));
                    }
                    None if reader.held.clear(id) => {
                        size += nlri_size::<F>();
                        batch.withdrawn.push(id);
                        if entry.attrs.is_none() {
                            batch.gone.push(id);
                        }
                    }
                    None => {}
                }
            }
        }
        let mut nlri: Vec<Nlri<F>> = batch.withdrawn.iter().filter_map(|id| self.nlri(*id)).collect();
        withdraw(&self.context, &nlri, out);
        for id in &batch.gone {
            self.heard(*id);
        }
        batch.sort();
        let mut unfit = Vec::new();
        for (set, ids) in batch.groups() {
            nlri.clear();
            nlri.extend(ids.iter().filter_map(|(_, id)| self.nlri(*id)));
            let sent = announce(&self.context, attrs.get(set), &nlri, out);
            let Some(reader) = self.readers.get_mut(place) else { return };
            for (_, id) in ids.iter().take(sent) {
                reader.held.set(*id);
            }
            // The attributes leave no room for a prefix: the peer must not keep what it had instead (W50).
            unfit.extend(ids.iter().skip(sent).map(|(_, id)| *id).filter(|id| reader.held.clear(*id)));
        }
        if !unfit.is_empty() {
            let nlri: Vec<Nlri<F>> = unfit.iter().filter_map(|id| self.nlri(*id)).collect();
            withdraw(&self.context, &nlri, out);
        }
    }
}

fn words_of(window: u32) -> std::ops::Range<usize> {
    let first = usize::try_from(window).unwrap_or(0) * WINDOW_WORDS;
    first..first + WINDOW_WORDS
}

/// How many routes a window holds, where all of them and nothing else is pending and sharing is worth it.
fn in_step(live: &Bits, reader: &Reader, window: u32) -> Option<u32> {
    let mut routes = 0;
    for at in words_of(window) {
        let live = live.word(at);
        if live != reader.pending.word(at) {
            return None;
        }
        routes += live.count_ones();
    }
    (routes >= WORTH).then_some(routes)
}

/// Entries of one read.
#[derive(Default)]
struct Batch {
    /// To be withdrawn.
    withdrawn: Vec<u32>,
    /// Those of them that have no attributes any more.
    gone: Vec<u32>,
    /// To be announced.
    reach: Vec<(AttrId, u32)>,
}

impl Batch {
    fn clear(&mut self) {
        self.withdrawn.clear();
        self.gone.clear();
        self.reach.clear();
    }

    /// Brings equal attributes together.
    fn sort(&mut self) {
        self.reach.sort_unstable();
    }

    /// The routes of each attribute set.
    fn groups(&self) -> impl Iterator<Item = (AttrId, &[(AttrId, u32)])> {
        self.reach.chunk_by(|a, b| a.0 == b.0).filter_map(|group| Some((group.first()?.0, group)))
    }
}

/// Announces prefixes, and says how many from the start.
fn announce<F: Family>(context: &Context, set: &AttrSet, nlri: &[Nlri<F>], out: &mut BytesMut) -> usize {
    let Some(next_hop) = set.next_hop else { return 0 };
    let mut sent = 0;
    while let Some(rest) = nlri.get(sent..).filter(|rest| !rest.is_empty()) {
        match send::encode_reach(context, &set.attributes, next_hop, rest, out) {
            0 => break,
            more => sent += more,
        }
    }
    sent
}

fn withdraw<F: Family>(context: &Context, mut nlri: &[Nlri<F>], out: &mut BytesMut) {
    while !nlri.is_empty() {
        let sent = send::encode_unreach(context, nlri, out);
        if sent == 0 {
            return;
        }
        nlri = nlri.get(sent..).unwrap_or_default();
    }
}

fn marker<F: Family>(kind: RefreshKind, out: &mut BytesMut) {
    send::encode_refresh(RouteRefresh { family: WireFamily::from(F::AFI), kind }, out);
}

const fn nlri_size<F: Family>() -> usize {
    F::ADDR_BYTES + 5
}

/// Octets of an UPDATE without its prefixes, roughly and rather too many.
fn attributes_size(set: &AttrSet) -> usize {
    let attributes = &set.attributes;
    let unknown: usize = attributes.unknown.iter().map(|attribute| attribute.value.len() + 4).sum();
    120 + attributes.as_path.hops() * 4
        + attributes.communities.len() * 4
        + attributes.ext_communities.len() * 8
        + attributes.large_communities.len() * 12
        + attributes.cluster_list.len() * 4
        + unknown
}
