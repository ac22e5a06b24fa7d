//! What was seen of etcd's history, so that nothing is missed and nothing is taken twice.
//!
//! Owns: [`EtcdHistory`], pure: the last revision of each key and prefix (a replayed event is dropped, D11), by what the
//! history is known again after a while ([`Mark`]: the last event, and whether its key is still as it left it at
//! that revision: a backup that was restored while others write has another history under the same revisions), and how
//! far etcd has said that there is nothing else. Never: speaks to etcd, or reads values.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::datastore::feed::SourceChange;
use crate::model::decode::Reading;
use crate::model::paths;
use crate::model::store::SourceEntry;

/// A key as a put left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyVersion<'a> {
    /// When the key was created.
    pub created: i64,
    /// When it was last written.
    pub revision: i64,
    /// How often it was written since it was created.
    pub version: i64,
    /// Its value.
    pub value: &'a [u8],
}

/// An event by which a history is known again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Its key.
    pub key: Vec<u8>,
    /// Its revision.
    pub revision: i64,
    /// What was written; `None` for a deletion.
    written: Option<(i64, i64, u64)>,
}

impl Mark {
    /// The mark of an event.
    pub fn new(key: &[u8], revision: i64, written: Option<KeyVersion<'_>>) -> Mark {
        Mark { key: key.to_vec(), revision, written: written.map(Mark::print) }
    }

    fn print(written: KeyVersion<'_>) -> (i64, i64, u64) {
        let mut hasher = DefaultHasher::new();
        written.value.hash(&mut hasher);
        (written.created, written.version, hasher.finish())
    }

    /// Whether the key, as it was at the mark's revision, is as the event left it.
    pub fn matches(&self, found: Option<KeyVersion<'_>>) -> bool {
        self.written == found.map(Mark::print) && found.is_none_or(|found| found.revision == self.revision)
    }

    /// Whether the key as it is now proves that the event was: only a put that nothing has followed can.
    pub fn still_stands(&self, found: Option<KeyVersion<'_>>) -> bool {
        found.is_some() && self.matches(found)
    }
}

/// What was seen so far.
#[derive(Clone, Debug)]
pub struct EtcdHistory {
    /// For each prefix the revision of the last event: prefixes are watched apart, and one may be behind another.
    seen: Vec<(String, i64)>,
    /// The last revision of each key that is there.
    keys: BTreeMap<Vec<u8>, i64>,
    mark: Option<Mark>,
    /// Everything up to here has been said, by etcd's own word.
    progress: i64,
}

impl EtcdHistory {
    /// Nothing seen yet, for the node of this name.
    pub fn new(node: &str, reading: Reading) -> Self {
        let prefixes = paths::prefixes(node, reading.use_pod_cidr);
        let seen = prefixes.into_iter().map(|prefix| (prefix, 0)).collect();
        EtcdHistory { seen, keys: BTreeMap::new(), mark: None, progress: 0 }
    }

    /// The prefixes that are listed and watched, each with the revision of the last event.
    pub fn seen(&self) -> &[(String, i64)] {
        &self.seen
    }

    /// The newest revision seen; 0 before the first list.
    pub fn revision(&self) -> i64 {
        self.seen.iter().map(|(_, revision)| *revision).max().unwrap_or(0).max(self.progress)
    }

    /// Everything up to here has been said.
    pub fn progress(&self) -> i64 {
        self.progress
    }

    /// Where every prefix can be watched from, where the history is known again by its mark: etcd has said that nothing
    /// before it was missed, and up to the mark the history is the one that was followed. A quiet prefix would otherwise
    /// ask for what is long compacted away.
    pub fn resumes_from(&self) -> i64 {
        self.mark.as_ref().map_or(0, |mark| mark.revision.min(self.progress))
    }

    /// By what the history is known again.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// A full list, made at `revision`, of these keys with their revisions.
    pub fn relisted(&mut self, keys: BTreeMap<Vec<u8>, i64>, mark: Option<Mark>, revision: i64) {
        self.keys = keys;
        self.mark = mark;
        self.progress = revision;
        for (_, seen) in &mut self.seen {
            *seen = revision;
        }
    }

    /// etcd says that there is no event up to `revision` that it has not told.
    pub fn advance(&mut self, revision: i64) {
        self.progress = self.progress.max(revision);
    }

    /// Takes an event: a key was written, or deleted. The change that it means, unless it was seen before or is none of
    /// ours.
    pub fn event(
        &mut self,
        key: &[u8],
        written: Option<KeyVersion<'_>>,
        revision: i64,
    ) -> Option<SourceChange> {
        let (_, seen) = self.seen.iter_mut().find(|(prefix, _)| key.starts_with(prefix.as_bytes()))?;
        // The events of one transaction have one revision, so only what is older was surely seen.
        if revision < *seen || self.keys.get(key).is_some_and(|known| *known >= revision) {
            return None;
        }
        *seen = revision;
        if self.mark.as_ref().is_none_or(|mark| mark.revision <= revision) {
            self.mark = Some(Mark::new(key, revision, written));
        }
        match written {
            Some(written) => {
                self.keys.insert(key.to_vec(), revision);
                entry(key, written.value).map(SourceChange::Put)
            }
            None => {
                self.keys.remove(key)?;
                let holds = std::str::from_utf8(key).ok().and_then(paths::parse)?;
                Some(SourceChange::Delete(holds.key()))
            }
        }
    }
}

/// The entry that a key and its value are; `None` where the key is none of ours.
pub fn entry(key: &[u8], value: &[u8]) -> Option<SourceEntry> {
    let place = std::str::from_utf8(key).ok()?;
    let holds = paths::parse(place)?;
    Some(SourceEntry::Text { holds, place: place.to_owned(), text: value.to_vec() })
}

#[cfg(test)]
mod tests {
    use bgp_proto::Millis;

    use super::*;
    use crate::model::snapshot::Snapshot;
    use crate::model::store::{Remembered, Store};

    const NODE: &[u8] = b"/calico/resources/v3/projectcalico.org/nodes/a";

    /// History and store as they work together.
    struct State {
        history: EtcdHistory,
        store: Store,
    }

    impl State {
        fn new() -> State {
            let reading = Reading::default();
            let store = Store::new("a", reading, &paths::kinds(false), Remembered::default());
            State { history: EtcdHistory::new("a", reading), store }
        }

        fn event(&mut self, key: &[u8], value: Option<&[u8]>, revision: i64) -> bool {
            let written = value.map(|value| KeyVersion { created: 1, revision, version: 1, value });
            match self.history.event(key, written, revision) {
                Some(SourceChange::Put(entry)) => self.store.put(entry),
                Some(SourceChange::Delete(key)) => self.store.delete(&key),
                Some(SourceChange::Problems(_)) | None => false,
            }
        }

        fn relist<'k>(&mut self, list: impl IntoIterator<Item = (&'k [u8], &'k [u8], i64)>, revision: i64) {
            let list: Vec<_> = list.into_iter().collect();
            self.store.page(list.iter().filter_map(|(key, value, _)| entry(key, value)).collect());
            self.store.listed(&paths::kinds(false), Millis(0));
            let keys = list.iter().map(|(key, _, revision)| (key.to_vec(), *revision)).collect();
            self.history.relisted(keys, None, revision);
        }

        fn snapshot(&mut self) -> Snapshot {
            self.store.snapshot()
        }
    }

    fn node(asn: u32) -> Vec<u8> {
        format!(r#"{{"kind":"Node","metadata":{{"name":"a"}},"spec":{{"bgp":{{"asNumber":{asn}}}}}}}"#)
            .into_bytes()
    }

    #[test]
    fn a_heartbeat_changes_nothing() {
        let mut state = State::new();
        assert!(state.event(NODE, Some(&node(1)), 5));
        let beat = br#"{"kind":"Node","metadata":{"name":"a","annotations":{"beat":"1"}},"spec":{"bgp":{"asNumber":1}}}"#;
        assert!(!state.event(NODE, Some(beat), 6));
        assert_eq!(state.history.revision(), 6, "and yet it is seen");
    }

    #[test]
    fn a_replayed_event_neither_goes_back_nor_brings_a_deleted_key_to_life() {
        let mut state = State::new();
        assert!(state.event(NODE, Some(&node(1)), 5));
        assert!(state.event(NODE, Some(&node(2)), 7));
        assert!(!state.event(NODE, Some(&node(1)), 5));
        assert_eq!(state.snapshot().nodes["a"].asn, Some(bgp_proto::Asn(2)));
        assert!(!state.event(NODE, None, 6));
        assert!(state.event(NODE, None, 8));
        assert!(!state.event(NODE, Some(&node(2)), 7));
        assert!(state.snapshot().nodes.is_empty());
        assert!(state.event(NODE, Some(&node(3)), 9), "created again");
    }

    #[test]
    fn a_list_is_the_truth_also_where_revisions_went_back() {
        let mut state = State::new();
        state.event(NODE, Some(&node(1)), 50);
        state.relist([(NODE, node(2).as_slice(), 3)], 4);
        assert_eq!(state.snapshot().nodes["a"].asn, Some(bgp_proto::Asn(2)));
        assert_eq!(state.history.revision(), 4);
        state.relist([], 5);
        assert!(state.snapshot().nodes.is_empty());
    }

    #[test]
    fn an_empty_affinity_value_is_an_implicitly_confirmed_block() {
        let mut state = State::new();
        let key = |cidr: &str| format!("/calico/ipam/v2/host/a/ipv4/block/{cidr}").into_bytes();
        state.event(&key("10.0.0.0-26"), Some(b""), 1);
        state.event(&key("10.0.0.64-26"), Some(br#"{"state":"confirmed","deleted":true}"#), 2);
        state.event(&key("10.0.0.128-26"), Some(b"{"), 3);
        state.event(&key("10.0.0.192-26"), Some(b"\"pending\""), 4);
        let snapshot = state.snapshot();
        let blocks: Vec<String> =
            snapshot.blocks.iter().map(|(block, state)| format!("{block} {state:?}")).collect();
        assert_eq!(blocks, ["10.0.0.0/26 Confirmed"]);
        assert_eq!(snapshot.problems.len(), 2);
    }

    #[test]
    fn a_history_is_known_by_its_last_event_and_not_by_numbers_alone() {
        let mut history = EtcdHistory::new("a", Reading::default());
        let written = |value| KeyVersion { created: 3, revision: 7, version: 2, value };
        history.event(NODE, Some(written(b"x")), 7);
        let mark = history.mark().unwrap().clone();
        assert!(mark.matches(Some(written(b"x"))) && mark.still_stands(Some(written(b"x"))));
        assert!(!mark.matches(Some(written(b"y"))) && !mark.matches(None));
        assert!(!mark.matches(Some(KeyVersion { version: 1, ..written(b"x") })));
        assert!(!mark.matches(Some(KeyVersion { revision: 6, ..written(b"x") })));
        history.event(NODE, None, 8);
        let mark = history.mark().unwrap();
        assert!(mark.matches(None) && !mark.matches(Some(written(b"x"))));
        assert!(!mark.still_stands(None), "that a key is not there now proves nothing");
    }

    #[test]
    fn progress_advances_what_was_seen_and_drops_no_event_that_it_overtook() {
        let mut state = State::new();
        state.event(NODE, Some(&node(1)), 5);
        state.history.advance(9);
        assert_eq!((state.history.revision(), state.history.seen()[6].1), (9, 5));
        assert!(state.event(NODE, Some(&node(2)), 7));
    }

    #[test]
    fn a_quiet_prefix_is_resumed_where_etcd_has_said_that_nothing_was_missed_and_no_later_than_the_mark() {
        let mut state = State::new();
        state.event(NODE, Some(&node(1)), 50);
        assert_eq!(state.history.resumes_from(), 0, "another watch may be behind");
        state.history.advance(40);
        assert_eq!(state.history.resumes_from(), 40);
        state.history.advance(90);
        assert_eq!(state.history.resumes_from(), 50, "what follows the mark may be another history's");
    }

    proptest::proptest! {
        #[test]
        fn events_in_order_lead_where_a_list_starts_whatever_is_replayed(
            steps in proptest::collection::vec((0usize..4, proptest::option::of(1u32..5), 0usize..6), 1..40)
        ) {
            let keys: Vec<Vec<u8>> =
                ["a", "b", "c", "d"].iter().map(|name| [NODE, name.as_bytes()].concat()).collect();
            let (mut followed, mut truth) = (State::new(), BTreeMap::new());
            let mut history: Vec<(usize, Option<Vec<u8>>, i64)> = Vec::new();
            for (step, (key, asn, replay)) in steps.into_iter().enumerate() {
                let (value, revision) = (asn.map(node), step as i64 + 1);
                followed.event(&keys[key], value.as_deref(), revision);
                match &value {
                    Some(value) => drop(truth.insert(key, (value.clone(), revision))),
                    None => drop(truth.remove(&key)),
                }
                history.push((key, value, revision));
                for (key, value, revision) in history.iter().rev().take(replay).rev() {
                    followed.event(&keys[*key], value.as_deref(), *revision);
                }
            }
            let mut listed = State::new();
            listed.relist(truth.iter().map(|(key, (value, at))| (keys[*key].as_slice(), value.as_slice(), *at)), 99);
            proptest::prop_assert_eq!(followed.snapshot(), listed.snapshot());
        }
    }
}
