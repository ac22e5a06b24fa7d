//! The brake on mass changes: what vanishes all at once is not believed at once.
//!
//! Owns: [`Brake`]: which losses wait for the confirmation window, what is kept meanwhile, and what is said of it. A
//! loss counts as one where it came in one revision, list, reload or joined batch. It waits where two or more of a kind
//! go and the kind is left empty, or with nothing but this node's own, or where more than half of at least
//! twenty go; then everything that went with it waits; where this node's own Node went too, until that is back and the
//! window has passed since. One single deletion never waits, nor does a change. Of Services
//! and EndpointSlices only what a list says counts: people delete a namespace in one go and mean it. Never: asks what
//! time it is, or where the snapshot comes from.

use bgp_proto::Millis;

use super::snapshot::{Shared, Snapshot};
use super::{Kind, Node};

/// How many of a kind must have been there for "more than half of them" to be alarming.
const MANY: usize = 20;

/// What is kept although the datastore no longer has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Hold {
    /// When it is believed.
    pub until: Millis,
    /// What is lost, for people.
    pub what: String,
    kept: Snapshot,
}

/// Compares what the datastore has with what is in force.
#[derive(Clone, Debug)]
pub struct Brake {
    node: String,
    window: Millis,
    holds: Vec<Hold>,
}

impl Brake {
    /// For the node of this name; losses are believed after `window`. A window of nothing believes them at once.
    pub fn new(node: &str, window: Millis) -> Self {
        Brake { node: node.to_owned(), window, holds: Vec::new() }
    }

    /// What waits for confirmation.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// When [`Brake::pass`] has to be asked again at the latest.
    pub fn deadline(&self) -> Option<Millis> {
        self.holds.iter().map(|hold| hold.until).min()
    }

    /// What shall be in force, `before` being so now and the datastore having `now_there`; `relisted` where that comes
    /// from a list, or from a watch that missed something for a while. The second part is what waits since just now.
    pub fn pass(
        &mut self,
        before: &Snapshot,
        now_there: &Snapshot,
        relisted: bool,
        now: Millis,
    ) -> (Snapshot, Option<String>) {
        let mut confirmed = Snapshot::default();
        self.holds.retain_mut(|hold| {
            let own_was_lost = hold.kept.nodes.contains_key(&self.node);
            hold.kept = missing(&hold.kept, now_there);
            if own_was_lost {
                // Without our own Node nothing can be configured, and what is in force stays at any rate. When it comes
                // back, most likely the rest is on its way: what is written anew comes one by one.
                hold.until = now + self.window;
            }
            let due = hold.until <= now;
            if due {
                add(&mut confirmed, &hold.kept);
            }
            !due && count(&hold.kept) > 0
        });
        let mut next = now_there.clone();
        for hold in &self.holds {
            add(&mut next, &hold.kept);
        }
        let lost = missing(&missing(before, &next), &confirmed);
        let alarming = self.alarming(&lost, now_there, relisted);
        if alarming.is_empty() || self.window == Millis(0) {
            return (next, None);
        }
        let what = alarming.join(", ");
        add(&mut next, &lost);
        self.holds.push(Hold { until: now + self.window, what: what.clone(), kept: lost });
        (next, Some(what))
    }

    /// The kinds whose loss is alarming, for people.
    fn alarming(&self, lost: &Snapshot, left: &Snapshot, relisted: bool) -> Vec<String> {
        let own_config = format!("node.{}", self.node);
        let others =
            |nodes: &Shared<String, std::sync::Arc<Node>>| nodes.keys().any(|name| *name != self.node);
        // For each kind: how many went, how many are left, and whether any of those is not this node's own.
        let mut kinds = vec![
            (Kind::Node, lost.nodes.len(), left.nodes.len(), others(&left.nodes)),
            (Kind::BlockAffinity, lost.blocks.len(), left.blocks.len(), !left.blocks.is_empty()),
            (
                Kind::BgpPeer,
                lost.peers.len(),
                left.peers.len(),
                left.peers.values().any(|peer| peer.node.as_ref() != Some(&self.node)),
            ),
            (Kind::IpPool, lost.pools.len(), left.pools.len(), !left.pools.is_empty()),
            (
                Kind::BgpConfiguration,
                lost.bgp_configurations.len(),
                left.bgp_configurations.len(),
                left.bgp_configurations.keys().any(|name| *name != own_config),
            ),
        ];
        if relisted {
            let (services, slices) = (&left.services, &left.endpoint_slices);
            kinds.push((Kind::Service, lost.services.len(), services.len(), !services.is_empty()));
            kinds.push((Kind::EndpointSlice, lost.endpoint_slices.len(), slices.len(), !slices.is_empty()));
        }
        kinds
            .into_iter()
            .filter(|(_, gone, left, others)| {
                let total = gone + left;
                *gone >= 2 && (!others || (total >= MANY && gone * 2 > total))
            })
            .map(|(kind, gone, left, _)| format!("{gone} of {} {}", gone + left, kind.name()))
            .collect()
    }
}

/// Calls `$act` with each map of the two snapshots.
macro_rules! each_map {
    ($a:expr, $b:expr, $act:path) => {{
        $act(&mut $a.nodes, &$b.nodes);
        $act(&mut $a.bgp_configurations, &$b.bgp_configurations);
        $act(&mut $a.pools, &$b.pools);
        $act(&mut $a.blocks, &$b.blocks);
        $act(&mut $a.peers, &$b.peers);
        $act(&mut $a.filters, &$b.filters);
        $act(&mut $a.secrets, &$b.secrets);
        $act(&mut $a.services, &$b.services);
        $act(&mut $a.endpoint_slices, &$b.endpoint_slices);
        $act(&mut $a.felix_configurations, &$b.felix_configurations);
    }};
}

/// What `old` has and `new` has not.
fn missing(old: &Snapshot, new: &Snapshot) -> Snapshot {
    fn less<K: Ord + Clone, V: Clone>(old: &mut Shared<K, V>, new: &Shared<K, V>) {
        let only = |old: &Shared<K, V>| -> Shared<K, V> {
            let gone = old.iter().filter(|(key, _)| !new.contains_key(key));
            gone.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        *old = if old.is(new) { Shared::default() } else { only(old) };
    }
    let mut lost = old.clone();
    lost.problems.clear();
    each_map!(lost, new, less);
    if new.cluster_information.is_some() {
        lost.cluster_information = None;
    }
    lost
}

/// Adds what `more` has and `into` has not.
fn add(into: &mut Snapshot, more: &Snapshot) {
    fn with<K: Ord + Clone, V: Clone>(into: &mut Shared<K, V>, more: &Shared<K, V>) {
        if more.is_empty() {
            return;
        }
        for (key, value) in more {
            into.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    each_map!(into, more, with);
    if into.cluster_information.is_none() {
        into.cluster_information.clone_from(&more.cluster_information);
    }
}

/// How much a snapshot holds.
fn count(of: &Snapshot) -> usize {
    of.nodes.len()
        + of.bgp_configurations.len()
        + of.pools.len()
        + of.blocks.len()
        + of.peers.len()
        + of.filters.len()
        + of.secrets.len()
        + of.services.len()
        + of.endpoint_slices.len()
        + of.felix_configurations.len()
        + usize::from(of.cluster_information.is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{BgpConfiguration, NamespacedName, Service};

    const WINDOW: Millis = Millis(30_000);

    fn nodes(names: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for name in names {
            snapshot.nodes.insert((*name).to_owned(), Arc::new(Node::default()));
        }
        let default = BgpConfiguration { name: "default".into(), ..Default::default() };
        snapshot.bgp_configurations.insert("default".into(), Arc::new(default));
        snapshot
    }

    fn names(snapshot: &Snapshot) -> String {
        snapshot.nodes.keys().cloned().collect::<Vec<_>>().join(" ")
    }

    fn brake() -> Brake {
        Brake::new("a", WINDOW)
    }

    #[test]
    fn a_datastore_that_is_emptied_takes_nothing_away_before_the_window_has_passed() {
        let (full, mut brake) = (nodes(&["b", "c", "d"]), brake());
        let empty = Snapshot::default();
        let (kept, said) = brake.pass(&full, &empty, false, Millis(1000));
        assert_eq!(kept, full, "the one BGPConfiguration, which went with it, waits too");
        assert_eq!(said.as_deref(), Some("3 of 3 Node"));
        let (kept, said) = brake.pass(&kept, &empty, false, Millis(30_999));
        assert_eq!((kept, said), (full.clone(), None));
        assert_eq!(brake.deadline(), Some(Millis(31_000)));
        let (believed, said) = brake.pass(&full, &empty, false, Millis(31_000));
        assert_eq!((believed, said), (empty, None));
        assert_eq!(brake.deadline(), None);
    }

    #[test]
    fn a_loss_of_our_own_node_too_is_believed_only_when_that_is_back_and_the_rest_is_not() {
        let (full, mut brake) = (nodes(&["a", "b", "c"]), brake());
        let (mut kept, said) = brake.pass(&full, &Snapshot::default(), false, Millis(0));
        assert_eq!(said.as_deref(), Some("3 of 3 Node"));
        for seconds in [30, 60, 90] {
            kept = brake.pass(&kept, &Snapshot::default(), false, Millis::secs(seconds)).0;
            assert_eq!(kept, full);
        }
        // What was lost is written anew, one by one.
        for names in [&["a"][..], &["a", "b"]] {
            kept = brake.pass(&kept, &nodes(names), false, Millis::secs(100)).0;
            assert_eq!(kept, full);
        }
        let (believed, _) = brake.pass(&kept, &nodes(&["a", "b"]), false, Millis::secs(130));
        assert_eq!(names(&believed), "a b");
    }

    #[test]
    fn what_comes_back_was_never_gone_and_changes_go_on_meanwhile() {
        let (full, mut brake) = (nodes(&["a", "b", "c"]), brake());
        let (kept, _) = brake.pass(&full, &nodes(&["a"]), false, Millis(0));
        assert_eq!(names(&kept), "a b c", "nothing but our own is as bad as nothing");
        let (kept, _) = brake.pass(&kept, &nodes(&["a", "b", "d"]), false, Millis(10));
        assert_eq!(names(&kept), "a b c d");
        let (kept, _) = brake.pass(&kept, &nodes(&["a", "b", "c", "d"]), false, Millis(20));
        assert_eq!(names(&kept), "a b c d");
        assert!(brake.holds().is_empty());
    }

    #[test]
    fn one_deletion_and_the_lesser_half_never_wait() {
        let mut brake = brake();
        let (left, said) = brake.pass(&nodes(&["a", "b"]), &nodes(&["a"]), false, Millis(0));
        assert_eq!((names(&left).as_str(), said), ("a", None));
        let (left, said) = brake.pass(&nodes(&["a", "b", "c", "d"]), &nodes(&["a", "b"]), false, Millis(0));
        assert_eq!((names(&left).as_str(), said), ("a b", None));
        let many: Vec<String> = (0..20).map(|n| format!("n{n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(brake.pass(&nodes(&many), &nodes(&many[..10]), false, Millis(0)).1, None);
        let said = brake.pass(&nodes(&many), &nodes(&many[..9]), false, Millis(0)).1;
        assert_eq!(said.as_deref(), Some("11 of 20 Node"));
    }

    #[test]
    fn services_wait_only_where_a_list_lacks_them() {
        let mut full = nodes(&["a", "b"]);
        for name in ["x", "y"] {
            let name = NamespacedName { namespace: "default".into(), name: name.into() };
            let service = Service {
                name: name.clone(),
                service_type: Default::default(),
                cluster_ip: None,
                cluster_ips: Vec::new(),
                external_ips: Vec::new(),
                load_balancer_ip: None,
                ingress_ips: Vec::new(),
                traffic_policy: None,
                ip_families: Vec::new(),
            };
            full.services.insert(name, Arc::new(service));
        }
        let without = nodes(&["a", "b"]);
        assert_eq!(brake().pass(&full, &without, false, Millis(0)).1, None);
        assert_eq!(brake().pass(&full, &without, true, Millis(0)).1.as_deref(), Some("2 of 2 Service"));
    }

    #[test]
    fn a_window_of_nothing_is_no_brake() {
        let mut brake = Brake::new("a", Millis(0));
        assert_eq!(
            brake.pass(&nodes(&["a", "b"]), &Snapshot::default(), false, Millis(0)).0,
            Snapshot::default()
        );
    }
}
