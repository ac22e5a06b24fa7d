//! Sets of prefixes that programs ask by containment.
//!
//! Owns: [`PrefixSet`]: its entries in order, each with the resource that it stands for, and the search: linear while a
//! set is small, a trie when it is large. Never: knows what a set is for ([`sets`](super::sets)). A set is made once and
//! never changed; another content is another set.

use std::fmt;
use std::sync::Arc;

use bgp_proto::{Family, IpPrefix, Prefix, Prefix4, Prefix6};
use prefix_trie::PrefixMap;

/// Entries from which on a trie is faster than a walk over them.
const LARGE: usize = 16;

/// One entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry {
    /// The prefix.
    pub prefix: IpPrefix,
    /// The resource that it stands for, as `IPPool/default`, for traces.
    pub subject: Arc<str>,
}

/// A set of prefixes of both families.
#[derive(Clone, Default)]
pub struct PrefixSet {
    /// In order of the prefixes, each once: of two that cover one prefix the outer one comes first.
    entries: Vec<Entry>,
    large: Option<Box<Trie>>,
}

/// Places in `entries`.
#[derive(Clone, Default)]
struct Trie {
    v4: PrefixMap<Prefix4, usize>,
    v6: PrefixMap<Prefix6, usize>,
}

impl PrefixSet {
    /// The set of these entries; of several for one prefix the first one counts.
    pub fn new(entries: impl IntoIterator<Item = (IpPrefix, Arc<str>)>) -> Self {
        let mut entries: Vec<Entry> =
            entries.into_iter().map(|(prefix, subject)| Entry { prefix, subject }).collect();
        entries.sort_by_key(|entry| entry.prefix);
        entries.dedup_by_key(|entry| entry.prefix);
        let large = (entries.len() > LARGE).then(|| {
            let mut trie = Trie::default();
            for (place, entry) in entries.iter().enumerate() {
                match entry.prefix {
                    IpPrefix::V4(prefix) => drop(trie.v4.insert(prefix, place)),
                    IpPrefix::V6(prefix) => drop(trie.v6.insert(prefix, place)),
                }
            }
            Box::new(trie)
        });
        PrefixSet { entries, large }
    }

    /// The entries in order of their prefixes.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The outermost entry that is `prefix` or covers it.
    pub fn covering(&self, prefix: IpPrefix) -> Option<&Entry> {
        let Some(trie) = &self.large else {
            return self.entries.iter().find(|entry| entry.prefix.covers(prefix));
        };
        let place = match prefix {
            IpPrefix::V4(prefix) => trie.v4.get_spm(&prefix).map(|(_, place)| *place),
            IpPrefix::V6(prefix) => trie.v6.get_spm(&prefix).map(|(_, place)| *place),
        };
        self.entries.get(place?)
    }

    /// Prefixes that are in exactly one of the two sets.
    pub fn difference(&self, other: &PrefixSet) -> Vec<IpPrefix> {
        let mut differ = Vec::new();
        let mut ours = self.entries.iter().map(|entry| entry.prefix).peekable();
        let mut theirs = other.entries.iter().map(|entry| entry.prefix).peekable();
        loop {
            match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a == b => {
                    ours.next();
                    theirs.next();
                }
                (Some(a), Some(b)) if a < b => differ.extend(ours.next()),
                (Some(_), None) => differ.extend(ours.next()),
                (_, Some(_)) => differ.extend(theirs.next()),
                (None, None) => return differ,
            }
        }
    }
}

impl<F: Family> FromIterator<(Prefix<F>, Arc<str>)> for PrefixSet {
    fn from_iter<T: IntoIterator<Item = (Prefix<F>, Arc<str>)>>(entries: T) -> Self {
        PrefixSet::new(entries.into_iter().map(|(prefix, subject)| (prefix.into(), subject)))
    }
}

impl PartialEq for PrefixSet {
    fn eq(&self, other: &PrefixSet) -> bool {
        self.entries == other.entries
    }
}

impl Eq for PrefixSet {}

impl fmt::Debug for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|entry| (entry.prefix, &entry.subject))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> PrefixSet {
        PrefixSet::new(prefixes.into_iter().map(|text| (text.parse().unwrap(), Arc::from(text))))
    }

    #[test]
    fn the_outermost_entry_covers_and_families_are_apart() {
        let set = set(["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"]);
        let covering =
            |text: &str| set.covering(text.parse().unwrap()).map(|entry| entry.subject.to_string());
        assert_eq!(covering("10.1.2.0/24").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(covering("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(covering("0.0.0.0/0"), None);
        assert_eq!(covering("fd00:1::/64").as_deref(), Some("fd00::/8"));
        assert_eq!(covering("::/0"), None);
    }

    #[test]
    fn sets_differ_by_their_prefixes_and_not_by_what_these_stand_for() {
        let renamed = PrefixSet::new([("10.0.0.0/8".parse().unwrap(), Arc::from("IPPool/b"))]);
        assert!(set(["10.0.0.0/8"]).difference(&renamed).is_empty());
        let differ = set(["10.0.0.0/8", "fd00::/8"]).difference(&set(["11.0.0.0/8", "10.0.0.0/8"]));
        assert_eq!(differ, ["11.0.0.0/8", "fd00::/8"].map(|text| text.parse::<IpPrefix>().unwrap()));
    }

    fn prefix() -> impl Strategy<Value = IpPrefix> {
        let v4 = (any::<u32>(), 0..=32u8)
            .prop_map(|(bits, len)| IpPrefix::V4(Prefix::from_parts(bits & 0xc0f0_0003, len).unwrap()));
        let v6 = (any::<u128>(), 0..=12u8)
            .prop_map(|(bits, len)| IpPrefix::V6(Prefix::from_parts(bits, len).unwrap()));
        prop_oneof![3 => v4, 1 => v6]
    }

    proptest! {
        #[test]
        fn the_trie_finds_what_the_walk_finds(
            entries in prop::collection::vec(prefix(), 0..80),
            asked in prop::collection::vec(prefix(), 1..30),
        ) {
            let set = PrefixSet::new(entries.iter().map(|prefix| (*prefix, Arc::from(""))));
            for prefix in asked {
                let walk = set.entries().iter().find(|entry| entry.prefix.covers(prefix));
                prop_assert_eq!(set.covering(prefix), walk);
            }
        }
    }
}
