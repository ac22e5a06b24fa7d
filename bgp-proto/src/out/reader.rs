//! One reader of a group: what it holds, what it has yet to read.
//!
//! Owns: the two sets of bits over the group's `OutId`s, the place of the present scan, and what is owed at its end
//! (End-of-RIB, EoRR). Never: knows what an entry is.

use std::net::IpAddr;

/// Bits in one word.
const WORD: u32 = u64::BITS;

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

fn place(id: u32) -> (usize, u64) {
    (usize::try_from(id / WORD).unwrap_or(usize::MAX), 1 << (id % WORD))
}

impl Bits {
    pub fn get(&self, id: u32) -> bool {
        let (at, bit) = place(id);
        self.words.get(at).is_some_and(|word| word & bit != 0)
    }

    /// `true`: it was not there.
    pub fn set(&mut self, id: u32) -> bool {
        let (at, bit) = place(id);
        if self.words.len() <= at {
            // To the next multiple of eight words: 512 entries.
            self.words.resize((at | 7) + 1, 0);
        }
        let Some(word) = self.words.get_mut(at) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// `true`: it was there.
    pub fn clear(&mut self, id: u32) -> bool {
        let (at, bit) = place(id);
        let Some(word) = self.words.get_mut(at) else { return false };
        let old = *word & bit != 0;
        *word &= !bit;
        old
    }

    /// The least member that is not below `from`.
    pub fn next(&self, from: u32) -> Option<u32> {
        let (at, _) = place(from);
        let mut mask = u64::MAX << (from % WORD);
        for (n, word) in self.words.iter().enumerate().skip(at) {
            let word = word & mask;
            mask = u64::MAX;
            if word != 0 {
                return Some(u32::try_from(n).ok()? * WORD + word.trailing_zeros());
            }
        }
        None
    }

    /// All members, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let id = self.next(at)?;
            at = id + 1;
            Some(id)
        })
    }

    pub fn count(&self) -> usize {
        self.words.iter().map(|word| usize::try_from(word.count_ones()).unwrap_or(0)).sum()
    }

    /// The word at a place; beyond the end there is nothing.
    pub fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }

    /// Replaces a word.
    pub fn set_word(&mut self, at: usize, word: u64) {
        if self.words.len() <= at {
            if word == 0 {
                return;
            }
            self.words.resize((at | 7) + 1, 0);
        }
        if let Some(place) = self.words.get_mut(at) {
            *place = word;
        }
    }

    /// Takes in all members of another set.
    pub fn or(&mut self, other: &Bits) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Takes in the members that another set has in some words.
    pub fn or_words(&mut self, other: &Bits, words: std::ops::Range<usize>) {
        if self.words.len() < words.end {
            self.words.resize(words.end, 0);
        }
        for at in words {
            if let Some(word) = self.words.get_mut(at) {
                *word |= other.word(at);
            }
        }
    }

    /// Takes out all members in some words.
    pub fn clear_words(&mut self, words: std::ops::Range<usize>) {
        for at in words {
            if let Some(word) = self.words.get_mut(at) {
                *word = 0;
            }
        }
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }
}

/// A refresh under way (BGP-35).
#[derive(Clone, Copy, Debug)]
pub(super) struct Refresh {
    /// BoRR has yet to be sent.
    pub begin: bool,
    /// EoRR is sent at the end (RFC 7313).
    pub end: bool,
}

/// What is owed beside routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    /// End-of-RIB has yet to be sent; it follows the scan that began at the join.
    pub end_of_rib: bool,
    /// The refresh under way.
    pub refresh: Option<Refresh>,
    /// A refresh was asked for that has to wait for End-of-RIB (RFC 7313 §4); `true` inside: with markers.
    pub later: Option<bool>,
}

/// One reader.
#[derive(Debug)]
pub(super) struct Reader {
    pub slot: u32,
    pub addr: IpAddr,
    pub held: Bits,
    pub pending: Bits,
    /// Members of `pending`.
    pub due: usize,
    /// Where the present scan goes on.
    pub at: u32,
    pub owed: Owed,
    /// It is in the list of those to be woken.
    pub woken: bool,
}

impl Reader {
    /// A session that has just come up: nothing held, all that is there to be read.
    pub fn new(slot: u32, addr: IpAddr, live: &Bits) -> Self {
        Reader {
            slot,
            addr,
            held: Bits::default(),
            pending: live.clone(),
            due: live.count(),
            at: 0,
            owed: Owed { end_of_rib: true, refresh: None, later: None },
            woken: false,
        }
    }

    pub fn set_pending(&mut self, id: u32) {
        self.due += usize::from(self.pending.set(id));
    }

    pub fn clear_pending(&mut self, id: u32) {
        self.due -= usize::from(self.pending.clear(id));
    }

    /// Adds some bits of one word to what is pending, and takes others out.
    pub fn set_word(&mut self, at: usize, add: u64, take: u64) {
        let old = self.pending.word(at);
        let new = (old & !take) | add;
        if new != old {
            self.pending.set_word(at, new);
            let count = |word: u64| usize::try_from(word.count_ones()).unwrap_or(0);
            self.due = self.due + count(new) - count(old);
        }
    }

    /// Everything is sent again, also what is held.
    pub fn refresh(&mut self, live: &Bits, enhanced: bool) {
        if self.owed.end_of_rib {
            self.owed.later = Some(enhanced);
            return;
        }
        self.owed.refresh = Some(Refresh { begin: enhanced, end: enhanced });
        self.scan_all(live);
    }

    /// A scan of all that is live begins.
    pub fn scan_all(&mut self, live: &Bits) {
        self.pending.or(live);
        self.due = self.pending.count();
        self.at = 0;
    }

    /// Whether there is anything to read. `may_end`: End-of-RIB may be sent.
    pub fn has_work(&self, may_end: bool) -> bool {
        self.due > 0 || self.owed.refresh.is_some() || (self.owed.end_of_rib && may_end)
    }
}
