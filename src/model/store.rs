//! What is held of the datastore between two snapshots.
//!
//! Owns: [`Store`]: resources by kind with their last good content and their problems, the state of each kind, and how
//! they become a [`Snapshot`]. What is absent, what is not known yet and what may not be read are three things: a kind
//! is believed empty only where the datastore has said so. Only this node's own live blocks are in a snapshot (DS-37).
//! Never: reads anything, or asks what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use bgp_proto::Millis;

use super::ResourceKey;
use super::decode::{DecodedResource, Reading, Resource, decode_document, decode_text};
use super::paths::Holds;
use super::snapshot::{Shared, Snapshot};
use super::{Code, Kind, NamespacedName, Problem, SecretKeyRef, WorkloadPeer};

/// What is known of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KindState {
    /// Never seen, or only in what was kept from an earlier run.
    Unknown,
    /// All of the kind is known, and its changes are told.
    InSync {
        /// Since when.
        since: Millis,
    },
    /// It was known; changes are not told at present.
    Stale {
        /// Since when.
        since: Millis,
    },
    /// The datastore does not let us read it; what was known before stays.
    Refused {
        /// Since when.
        since: Millis,
        /// In the datastore's words.
        why: String,
        /// It was known before.
        known: bool,
    },
}

impl KindState {
    /// One word for people and for JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            KindState::Unknown => "unknown",
            KindState::InSync { .. } => "in sync",
            KindState::Stale { .. } => "stale",
            KindState::Refused { .. } => "refused",
        }
    }

    /// Whether all of the kind was known at some time of this run.
    pub const fn is_known(&self) -> bool {
        match self {
            KindState::Unknown => false,
            KindState::InSync { .. } | KindState::Stale { .. } => true,
            KindState::Refused { known, .. } => *known,
        }
    }
}

/// A resource as a source has it.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceEntry {
    /// A value whose kind and name are known from its place.
    Text {
        /// Which resource.
        holds: Holds,
        /// Its place, for people, where the value is not even JSON.
        place: String,
        /// JSON.
        text: Vec<u8>,
    },
    /// A document that is split into values already.
    Document {
        /// Which resource.
        key: ResourceKey,
        /// The document.
        value: serde_json::Value,
        /// A Kubernetes Node, of which the Calico Node is made (DS-33).
        from_kubernetes_node: bool,
    },
    /// A resource that the source has read by itself.
    Read(DecodedResource),
}

impl SourceEntry {
    /// Which resource it is.
    pub fn key(&self) -> ResourceKey {
        match self {
            SourceEntry::Text { holds, .. } => holds.key(),
            SourceEntry::Document { key, .. } => key.clone(),
            SourceEntry::Read(decoded) => decoded.key.clone(),
        }
    }
}

/// Resources of one place (a file, a kind) by key.
pub type Held = BTreeMap<ResourceKey, DecodedResource>;

/// Last good forms from an earlier run, for what cannot be read now.
pub type Remembered = Arc<BTreeMap<ResourceKey, Resource>>;

#[derive(Clone, Debug)]
struct Content {
    state: KindState,
    held: Held,
    /// The part of a list that has come so far; in force when it is complete.
    listing: Held,
    /// The snapshot does not show it yet.
    changed: bool,
    problems: Vec<Problem>,
}

/// Everything held.
#[derive(Clone, Debug)]
pub struct Store {
    node: String,
    reading: Reading,
    kinds: BTreeMap<Kind, Content>,
    remembered: Remembered,
    problems: Vec<Problem>,
    /// Of files about workloads.
    workload_problems: Vec<Problem>,
    snapshot: Snapshot,
}

impl Store {
    /// Nothing known yet of these kinds, for the node of this name.
    pub fn new(node: &str, reading: Reading, kinds: &[Kind], remembered: Remembered) -> Self {
        let unknown = || Content {
            state: KindState::Unknown,
            held: Held::new(),
            listing: Held::new(),
            changed: false,
            problems: Vec::new(),
        };
        Store {
            node: node.to_owned(),
            reading,
            kinds: kinds.iter().map(|kind| (*kind, unknown())).collect(),
            remembered,
            problems: Vec::new(),
            workload_problems: Vec::new(),
            snapshot: Snapshot::default(),
        }
    }

    /// A resource is there, or is another one now. Whether that changed anything: most writes are heartbeats (DYN-11).
    pub fn put(&mut self, entry: SourceEntry) -> bool {
        let decoded = self.decode(entry);
        let Some(content) = self.kinds.get_mut(&decoded.key.kind) else { return false };
        if content.held.get(&decoded.key) == Some(&decoded) {
            return false;
        }
        content.held.insert(decoded.key.clone(), decoded);
        content.changed = true;
        true
    }

    /// A resource is gone. Whether it was there.
    pub fn delete(&mut self, key: &ResourceKey) -> bool {
        let Some(content) = self.kinds.get_mut(&key.kind) else { return false };
        let was = content.held.remove(key).is_some();
        content.changed |= was;
        was
    }

    /// A part of a list; nothing changes by it before [`Store::listed`].
    pub fn page(&mut self, entries: Vec<SourceEntry>) {
        for entry in entries {
            let decoded = self.decode(entry);
            if let Some(content) = self.kinds.get_mut(&decoded.key.kind) {
                // What is as it was is shared with the snapshots before.
                let same = content.held.get(&decoded.key).filter(|held| **held == decoded).cloned();
                content.listing.insert(decoded.key.clone(), same.unwrap_or(decoded));
            }
        }
    }

    /// The lists of these kinds are complete: all of them is what the pages said. Whether that changed anything.
    pub fn listed(&mut self, kinds: &[Kind], now: Millis) -> bool {
        let mut changed = false;
        for kind in kinds {
            let Some(content) = self.kinds.get_mut(kind) else { continue };
            let listing = mem::take(&mut content.listing);
            let news = content.held != listing;
            if news {
                content.held = listing;
                content.changed = true;
            }
            let was_refused = matches!(content.state, KindState::Refused { .. });
            content.changed |= was_refused;
            changed |= news || was_refused || !content.state.is_known();
            if !matches!(content.state, KindState::InSync { .. }) {
                content.state = KindState::InSync { since: now };
            }
        }
        if self.is_known() {
            // What cannot be read from now on has its last good form here.
            self.remembered = Remembered::default();
        }
        changed
    }

    /// The list of this kind under way is worth nothing.
    pub fn abandon(&mut self, kind: Kind) {
        if let Some(content) = self.kinds.get_mut(&kind) {
            content.listing.clear();
        }
    }

    /// Changes of this kind are not told at present. Whether those of any are.
    pub fn lost(&mut self, kind: Kind, now: Millis) -> bool {
        self.abandon(kind);
        if let Some(content) = self.kinds.get_mut(&kind)
            && matches!(content.state, KindState::InSync { .. })
        {
            content.state = KindState::Stale { since: now };
        }
        self.kinds.values().any(|content| matches!(content.state, KindState::InSync { .. }))
    }

    /// Problems that belong to no resource, in place of those before. Whether they differ.
    pub fn set_problems(&mut self, problems: Vec<Problem>) -> bool {
        let news = self.problems != problems;
        self.problems = problems;
        news
    }

    /// The workloads that are peers, and what is wrong with Felix's files, in place of those before. Whether they differ.
    pub fn set_workloads(
        &mut self,
        peers: Shared<String, Arc<WorkloadPeer>>,
        problems: Vec<Problem>,
    ) -> bool {
        let news = self.snapshot.workload_peers != peers || self.workload_problems != problems;
        self.snapshot.workload_peers = peers;
        self.workload_problems = problems;
        news
    }

    /// The workloads that are peers.
    pub fn workloads(&self) -> Shared<String, Arc<WorkloadPeer>> {
        self.snapshot.workload_peers.clone()
    }

    /// The datastore is out of reach, but for these kinds, which come from elsewhere: nothing changes but that what it has
    /// may be out of date. Lists under way are worth nothing.
    pub fn stale(&mut self, but: &[Kind], now: Millis) {
        for (_, content) in self.kinds.iter_mut().filter(|(kind, _)| !but.contains(kind)) {
            content.listing.clear();
            if matches!(content.state, KindState::InSync { .. }) {
                content.state = KindState::Stale { since: now };
            }
        }
    }

    /// Changes of these kinds are told again, none having been missed. Whether that changes what is known.
    pub fn resumed(&mut self, kinds: &[Kind], now: Millis) -> bool {
        let mut news = false;
        for kind in kinds {
            let Some(content) = self.kinds.get_mut(kind) else { continue };
            let refused = matches!(content.state, KindState::Refused { known: true, .. });
            if refused || matches!(content.state, KindState::Stale { .. }) {
                content.state = KindState::InSync { since: now };
            }
            content.changed |= refused;
            news |= refused;
        }
        news
    }

    /// A kind may not be read: what is known of it stays, and it is said. Where it is optional, nothing waits for it.
    /// Whether that is news.
    pub fn refused(&mut self, kind: Kind, why: String, optional: bool, now: Millis) -> bool {
        let Some(content) = self.kinds.get_mut(&kind) else { return false };
        if matches!(&content.state, KindState::Refused { why: said, .. } if *said == why) {
            return false;
        }
        content.listing.clear();
        let known = content.state.is_known() || optional;
        content.state = KindState::Refused { since: now, why, known };
        content.changed = true;
        true
    }

    /// The Secrets that BGPPeers and BGPConfigurations name, of this namespace; `None` before both are known (DS-40).
    pub fn secrets_named(&self, namespace: &str) -> Option<BTreeSet<NamespacedName>> {
        let of = |kind| self.kinds.get(&kind).filter(|content| content.state.is_known());
        let (peers, configs) = (of(Kind::BgpPeer)?, of(Kind::BgpConfiguration)?);
        let passwords = peers.held.values().chain(configs.held.values()).filter_map(|decoded| match decoded
            .resource
            .as_ref()?
        {
            Resource::BgpPeer(peer) => peer.password.as_ref(),
            Resource::BgpConfiguration(config) => config.mesh_password.as_ref(),
            _ => None,
        });
        Some(secrets_of(passwords, namespace))
    }

    /// Whether each kind has been known in full once, so that what is not there is absent and not merely unknown.
    pub fn is_known(&self) -> bool {
        self.kinds.values().all(|content| content.state.is_known())
    }

    /// The state of each kind.
    pub fn states(&self) -> impl Iterator<Item = (Kind, &KindState)> {
        self.kinds.iter().map(|(kind, content)| (*kind, &content.state))
    }

    /// Everything known. Kinds that did not change are those of the snapshot before.
    pub fn snapshot(&mut self) -> Snapshot {
        for (kind, content) in &mut self.kinds {
            if !mem::take(&mut content.changed) {
                continue;
            }
            let mut builder = SnapshotBuilder::new(&self.node, self.reading.use_pod_cidr);
            for decoded in content.held.values() {
                builder.add(decoded);
            }
            if let KindState::Refused { why, .. } = &content.state {
                builder.add_problems([Problem::of_whole(Code::KindRefused, kind.name(), why.as_str())]);
            }
            let part = builder.finish();
            content.problems = part.problems;
            let whole = &mut self.snapshot;
            match kind {
                Kind::Node => whole.nodes = part.nodes,
                Kind::BgpConfiguration => whole.bgp_configurations = part.bgp_configurations,
                Kind::ClusterInformation => whole.cluster_information = part.cluster_information,
                Kind::IpPool => whole.pools = part.pools,
                Kind::BlockAffinity => whole.blocks = part.blocks,
                Kind::BgpPeer => whole.peers = part.peers,
                Kind::BgpFilter => whole.filters = part.filters,
                Kind::Secret => whole.secrets = part.secrets,
                Kind::Service => whole.services = part.services,
                Kind::EndpointSlice => whole.endpoint_slices = part.endpoint_slices,
                Kind::FelixConfiguration => whole.felix_configurations = part.felix_configurations,
            }
        }
        let of_kinds = self.kinds.values().flat_map(|content| content.problems.iter().cloned());
        let mut problems: Vec<Problem> =
            of_kinds.chain(self.problems.iter().chain(&self.workload_problems).cloned()).collect();
        problems.sort();
        problems.dedup();
        self.snapshot.problems = problems;
        self.snapshot.clone()
    }

    /// Reads an entry; what cannot be read keeps its last good form (D10).
    fn decode(&self, entry: SourceEntry) -> DecodedResource {
        let last = |key: &ResourceKey| {
            let held = self.kinds.get(&key.kind).and_then(|content| content.held.get(key));
            held.and_then(|held| held.resource.as_ref()).or_else(|| self.remembered.get(key))
        };
        match entry {
            SourceEntry::Read(decoded) => decoded,
            SourceEntry::Document { key, value, from_kubernetes_node } => {
                let last = last(&key);
                decode_document(key, from_kubernetes_node, &value, self.reading, last)
            }
            SourceEntry::Text { holds, place, text } => {
                let last = last(&holds.key());
                decode_text(&holds, &place, &text, self.reading, last)
            }
        }
    }
}

/// The Secrets of this namespace to which these refer.
pub fn secrets_of<'a>(
    passwords: impl Iterator<Item = &'a SecretKeyRef>,
    namespace: &str,
) -> BTreeSet<NamespacedName> {
    passwords
        .filter(|password| !password.name.is_empty())
        .map(|password| NamespacedName { namespace: namespace.to_owned(), name: password.name.clone() })
        .collect()
}

/// Builds a [`Snapshot`] out of resources.
pub struct SnapshotBuilder<'a> {
    node: &'a str,
    use_pod_cidr: bool,
    snapshot: Snapshot,
}

impl<'a> SnapshotBuilder<'a> {
    /// For the node of this name; with `use_pod_cidr` block affinities are not read (DS-38).
    pub fn new(node: &'a str, use_pod_cidr: bool) -> Self {
        SnapshotBuilder { node, use_pod_cidr, snapshot: Snapshot::default() }
    }

    /// Adds one resource and its problems.
    pub fn add(&mut self, decoded: &DecodedResource) {
        let (into, node) = (&mut self.snapshot, self.node);
        let key = &decoded.key;
        match &decoded.resource {
            None => {}
            Some(Resource::Node(node)) => {
                into.nodes.insert(key.name.clone(), node.clone());
            }
            Some(Resource::BgpConfiguration(config)) => {
                into.bgp_configurations.insert(key.name.clone(), config.clone());
            }
            Some(Resource::ClusterInformation(information)) if key.name == "default" => {
                into.cluster_information = Some(information.clone());
            }
            Some(Resource::ClusterInformation(_)) => {}
            Some(Resource::IpPool(pool)) => {
                into.pools.insert(key.name.clone(), pool.clone());
            }
            Some(Resource::BlockAffinity(block)) => {
                if block.node != self.node {
                    // What is wrong with the blocks of others is theirs to say.
                    return;
                }
                if block.is_host && !block.deleted && !self.use_pod_cidr {
                    // Two affinities for one block: the one that is further in force counts.
                    let state = into.blocks.entry(block.cidr).or_insert(block.state);
                    *state = block.state.min(*state);
                }
            }
            Some(Resource::BgpPeer(peer)) => {
                into.peers.insert(key.name.clone(), peer.clone());
            }
            Some(Resource::BgpFilter(filter)) => {
                into.filters.insert(key.name.clone(), filter.clone());
            }
            Some(Resource::Secret(secret)) => {
                into.secrets.insert(secret.name.clone(), secret.clone());
            }
            Some(Resource::Service(service)) => {
                into.services.insert(service.name.clone(), service.clone());
            }
            Some(Resource::EndpointSlice(slice)) => {
                into.endpoint_slices.insert(slice.name.clone(), slice.clone());
            }
            // Those of other nodes say nothing here (FELIX-9).
            Some(Resource::FelixConfiguration(config)) if is_felixs(&key.name, node) => {
                into.felix_configurations.insert(key.name.clone(), config.clone());
            }
            Some(Resource::FelixConfiguration(_)) => {}
        }
        into.problems.extend(decoded.problems.iter().cloned());
    }

    /// Adds problems that belong to no resource.
    pub fn add_problems(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.snapshot.problems.extend(problems);
    }

    /// The snapshot, problems sorted.
    pub fn finish(mut self) -> Snapshot {
        self.snapshot.problems.sort();
        self.snapshot.problems.dedup();
        self.snapshot
    }
}

/// Whether a FelixConfiguration of this name is read by Felix of this node.
fn is_felixs(name: &str, node: &str) -> bool {
    name == "default" || name.strip_prefix("node.").is_some_and(|whose| whose == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = r#"{"metadata":{"name":"a"},"spec":{"bgp":{"asNumber":1}}}"#;

    fn text(kind: Kind, name: &str, text: &str) -> SourceEntry {
        let holds = Holds::Resource(ResourceKey::global(kind, name));
        SourceEntry::Text { holds, place: format!("/{name}"), text: text.as_bytes().to_vec() }
    }

    fn store() -> Store {
        Store::new("a", Reading::default(), &[Kind::Node, Kind::IpPool], Remembered::default())
    }

    #[test]
    fn a_kind_is_absent_only_when_its_list_was_empty() {
        let mut store = store();
        assert!(!store.is_known(), "unknown is not empty");
        assert!(store.listed(&[Kind::Node], Millis(5)));
        assert!(store.refused(Kind::IpPool, "no".into(), false, Millis(6)));
        assert!(!store.is_known(), "nor is refused");
        assert_eq!(store.snapshot().problems.len(), 1);
        assert!(store.listed(&[Kind::IpPool], Millis(7)), "an empty list is news where nothing was known");
        assert!(store.is_known());
        store.stale(&[], Millis(8));
        assert!(
            store.is_known()
                && store.states().all(|(_, state)| *state == KindState::Stale { since: Millis(8) })
        );
    }

    #[test]
    fn of_felixs_configurations_the_global_one_and_that_of_this_node_count_with_one_field() {
        let kind = Kind::FelixConfiguration;
        let spec =
            r#"{"spec":{"programClusterRoutes":"Disabled","ipv4NormalRoutePriority":"not ours to judge"}}"#;
        let mut store = Store::new("a", Reading::default(), &[kind], Remembered::default());
        store.page(["default", "node.a", "node.b", "other"].map(|name| text(kind, name, spec)).into());
        store.listed(&[kind], Millis(0));
        let snapshot = store.snapshot();
        let names: Vec<&String> = snapshot.felix_configurations.keys().collect();
        assert_eq!(names, ["default", "node.a"]);
        let field = &snapshot.felix_configurations["node.a"].program_cluster_routes;
        assert_eq!((field.as_deref(), snapshot.problems.len()), (Some("Disabled"), 0));
    }

    #[test]
    fn a_heartbeat_is_no_change_and_nothing_is_compiled_for_it() {
        let mut store = store();
        assert!(store.put(text(Kind::Node, "a", NODE)));
        for beat in 0..3 {
            let status = format!(
                r#"{{"metadata":{{"name":"a","resourceVersion":"{beat}"}},"spec":{{"bgp":{{"asNumber":1}}}},
                "status":{{"conditions":[{{"type":"Ready","lastHeartbeatTime":"{beat}"}}]}}}}"#
            );
            assert!(!store.put(text(Kind::Node, "a", &status)), "{beat}");
        }
        assert!(store.put(text(
            Kind::Node,
            "a",
            r#"{"metadata":{"name":"a"},"spec":{"bgp":{"asNumber":2}}}"#
        )));
    }

    #[test]
    fn an_optional_kind_that_may_not_be_read_keeps_nothing_waiting_and_is_said() {
        let mut store = store();
        store.listed(&[Kind::Node], Millis(1));
        assert!(store.refused(Kind::IpPool, "no".into(), true, Millis(2)) && store.is_known());
        assert_eq!(store.snapshot().problems.len(), 1);
        assert!(
            store.listed(&[Kind::IpPool], Millis(3)),
            "that it may be read is news, even where there is none"
        );
        assert!(store.snapshot().problems.is_empty());
    }

    #[test]
    fn one_kind_that_is_lost_leaves_the_others_as_they_are() {
        let mut store = store();
        store.listed(&[Kind::Node, Kind::IpPool], Millis(1));
        assert!(store.lost(Kind::Node, Millis(2)));
        let states: Vec<_> = store.states().map(|(kind, state)| (kind, state.name())).collect();
        assert_eq!(states, [(Kind::Node, "stale"), (Kind::IpPool, "in sync")]);
        assert!(!store.lost(Kind::IpPool, Millis(3)), "now none is told");
        store.resumed(&[Kind::Node], Millis(4));
        assert_eq!(
            store.states().next().map(|(_, state)| state.clone()),
            Some(KindState::InSync { since: Millis(4) })
        );
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_takes_away_only_what_is_gone() {
        let mut store = store();
        store.page(vec![text(Kind::Node, "a", NODE), text(Kind::Node, "b", NODE)]);
        assert!(store.snapshot().nodes.is_empty());
        store.listed(&[Kind::Node, Kind::IpPool], Millis(1));
        let before = store.snapshot();
        store.page(vec![text(Kind::Node, "a", NODE)]);
        store.abandon(Kind::Node);
        assert_eq!(store.snapshot(), before);
        store.page(vec![text(Kind::Node, "b", NODE)]);
        store.listed(&[Kind::Node, Kind::IpPool], Millis(2));
        let after = store.snapshot();
        assert_eq!(after.nodes.keys().collect::<Vec<_>>(), ["b"]);
        assert!(after.pools.is(&before.pools), "what did not change is shared");
        assert!(Arc::ptr_eq(&after.nodes["b"], &before.nodes["b"]));
    }

    #[test]
    fn what_cannot_be_read_at_the_start_has_the_last_good_form_of_the_run_before() {
        let mut first = store();
        first.page(vec![text(Kind::Node, "a", NODE)]);
        first.listed(&[Kind::Node, Kind::IpPool], Millis(1));
        let good = first.snapshot().nodes["a"].clone();
        let remembered = [(ResourceKey::global(Kind::Node, "a"), Resource::Node(good.clone()))];
        let mut store =
            Store::new("a", Reading::default(), &[Kind::Node], Arc::new(remembered.into_iter().collect()));
        store.page(vec![text(Kind::Node, "a", "{")]);
        store.listed(&[Kind::Node], Millis(1));
        let snapshot = store.snapshot();
        assert_eq!(snapshot.nodes["a"], good);
        assert_eq!(snapshot.problems[0].code, Code::Unreadable);
    }
}
