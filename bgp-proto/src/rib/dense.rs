//! Sets of dense ids.
//!
//! Owns: [`DestSet`], what a peer or a next hop has of the table, and `FreeIds`, which ids may be given out again.
//! Never: knows what a destination is.

use crate::ids::DestId;

const BITS: u32 = u64::BITS;

/// A set of destinations: the non-empty words of a bitmap, in order. A peer with four routes in a large table has a
/// few words, one with all of them a bit for each.
#[derive(Clone, Debug, Default)]
pub struct DestSet {
    words: Vec<(u32, u64)>,
}

impl DestSet {
    fn place(&self, word: u32) -> Result<usize, usize> {
        // Ids are given out in order, so most calls are for the last word or behind it.
        match self.words.last() {
            None => Err(0),
            Some((last, _)) if *last < word => Err(self.words.len()),
            Some((last, _)) if *last == word => Ok(self.words.len() - 1),
            Some(_) => self.words.binary_search_by_key(&word, |(at, _)| *at),
        }
    }

    /// Adds an id.
    pub fn insert(&mut self, id: DestId) {
        let bit = 1 << (id.0 % BITS);
        match self.place(id.0 / BITS) {
            Ok(at) => {
                if let Some((_, word)) = self.words.get_mut(at) {
                    *word |= bit;
                }
            }
            Err(at) => self.words.insert(at, (id.0 / BITS, bit)),
        }
    }

    /// Takes an id out.
    pub fn remove(&mut self, id: DestId) {
        let Ok(at) = self.place(id.0 / BITS) else { return };
        let Some((_, word)) = self.words.get_mut(at) else { return };
        *word &= !(1 << (id.0 % BITS));
        if *word == 0 {
            self.words.remove(at);
            if self.words.is_empty() {
                self.words = Vec::new();
            }
        }
    }

    /// Whether an id is in it.
    pub fn contains(&self, id: DestId) -> bool {
        let word = self.place(id.0 / BITS).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|(_, word)| word & (1 << (id.0 % BITS)) != 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.words.iter().map(|(_, word)| usize::try_from(word.count_ones()).unwrap_or(0)).sum()
    }

    /// The ids from `first` on, in order: a long walk can be left and taken up again.
    pub fn from(&self, first: DestId) -> impl Iterator<Item = DestId> {
        let at = self.place(first.0 / BITS).unwrap_or_else(|at| at);
        let words = self.words.get(at..).unwrap_or_default().iter();
        words.flat_map(|(at, word)| ones(*at, *word)).skip_while(move |id| *id < first)
    }

    /// All ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = DestId> {
        self.from(DestId(0))
    }
}

fn ones(at: u32, mut word: u64) -> impl Iterator<Item = DestId> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(DestId(at * BITS + bit))
    })
}

/// Ids that were given back, the lowest first.
#[derive(Debug, Default)]
pub(super) struct FreeIds {
    words: Vec<u64>,
    count: usize,
    /// No word before this one has a bit.
    hint: usize,
}

impl FreeIds {
    /// Gives an id back.
    pub fn insert(&mut self, id: DestId) {
        let at = id.index() / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        if let Some(word) = self.words.get_mut(at) {
            *word |= 1 << (id.0 % BITS);
            self.count += 1;
            self.hint = self.hint.min(at);
        }
    }

    /// Takes the lowest one.
    pub fn pop(&mut self) -> Option<DestId> {
        if self.count == 0 {
            return None;
        }
        let (at, word) = self.words.iter_mut().enumerate().skip(self.hint).find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.count -= 1;
        self.hint = at;
        Some(DestId(u32::try_from(at).unwrap_or(u32::MAX).saturating_mul(BITS) + bit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_and_not_taken(ops in prop::collection::vec((0u32..300, any::<bool>()), 0..200)) {
            let (mut set, mut model) = (DestSet::default(), BTreeSet::new());
            for (id, put) in ops {
                if put {
                    set.insert(DestId(id));
                    model.insert(DestId(id));
                } else {
                    set.remove(DestId(id));
                    model.remove(&DestId(id));
                }
                prop_assert_eq!(set.contains(DestId(id)), put);
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(set.from(DestId(130)).eq(model.range(DestId(130)..).copied()));
        }
    }

    #[test]
    fn the_lowest_free_id_is_given_out_first() {
        let mut free = FreeIds::default();
        for id in [200, 3, 64, 7] {
            free.insert(DestId(id));
        }
        assert_eq!(free.pop(), Some(DestId(3)));
        free.insert(DestId(1));
        let rest: Vec<u32> = std::iter::from_fn(|| free.pop()).map(|id| id.0).collect();
        assert_eq!(rest, [1, 7, 64, 200]);
    }
}
