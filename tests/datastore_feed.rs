//! What the feed makes of what a source says: joining, freeze, brake, cache and status, on a clock of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calico_bgpd::datastore::cache::CacheSettings;
use calico_bgpd::datastore::feed::{Events, Feed, FeedSettings, QUEUE, SourceChange, SourceEvent};
use calico_bgpd::datastore::{SourceReceiver, SourceState, channel};
use calico_bgpd::model::Kind;
use calico_bgpd::model::ResourceKey;
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::paths::Holds;
use calico_bgpd::model::snapshot::Snapshot;
use calico_bgpd::model::store::SourceEntry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};
use tokio_util::sync::CancellationToken;

const KINDS: [Kind; 3] = [Kind::Node, Kind::IpPool, Kind::ClusterInformation];

struct World {
    events: Events,
    receiver: SourceReceiver,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl World {
    fn new() -> World {
        Self::with(&FeedSettings::default())
    }

    fn on_disk(dir: &Path) -> World {
        let cache = CacheSettings { dir: dir.to_owned(), passwords: true };
        Self::with(&FeedSettings { cache: Some(cache), ..FeedSettings::default() })
    }

    fn with(settings: &FeedSettings) -> World {
        let (out, receiver) = channel();
        let (feed, _) = Feed::new(settings, "a", "etcd at x".into(), Reading::default(), &KINDS, out);
        let (events, inbox) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        World { events, receiver, task: tokio::spawn(feed.run(inbox, stop.clone())), stop }
    }

    async fn say(&self, event: SourceEvent) {
        self.events.send(event).await.unwrap();
        self.settle().await;
    }

    /// Lets the feed do all that it can do now.
    async fn settle(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn pass(&self, time: Duration) {
        advance(time).await;
        self.settle().await;
    }

    async fn list(&self, entries: Vec<SourceEntry>) {
        self.say(SourceEvent::Page(entries)).await;
        self.say(SourceEvent::Listed { kinds: KINDS.to_vec(), revision: Some(1) }).await;
    }

    async fn change(&self, changes: Vec<SourceChange>) {
        self.say(SourceEvent::Changed { changes, resumed: false, revision: Some(2) }).await;
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.receiver.snapshots.borrow().clone()
    }

    fn nodes(&self) -> Option<String> {
        self.snapshot().map(|held| held.nodes.keys().cloned().collect::<Vec<_>>().join(" "))
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn key(kind: Kind, name: &str) -> ResourceKey {
    ResourceKey::global(kind, name)
}

fn entry(kind: Kind, name: &str, text: &str) -> SourceEntry {
    SourceEntry::Text {
        holds: Holds::Resource(key(kind, name)),
        place: format!("/{name}"),
        text: text.into(),
    }
}

fn node(name: &str) -> SourceEntry {
    entry(Kind::Node, name, r#"{"spec":{"bgp":{"asNumber":1}}}"#)
}

fn locked(locked: bool) -> SourceEntry {
    entry(Kind::ClusterInformation, "default", &format!(r#"{{"spec":{{"datastoreReady":{}}}}}"#, !locked))
}

fn pool() -> SourceEntry {
    entry(Kind::IpPool, "p", r#"{"spec":{"cidr":"10.0.0.0/16"}}"#)
}

fn gone(name: &str) -> SourceChange {
    SourceChange::Delete(key(Kind::Node, name))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_each_kind_was_known_once() {
    let world = World::new();
    world.say(SourceEvent::Page(vec![node("a")])).await;
    world.say(SourceEvent::Listed { kinds: vec![Kind::Node], revision: None }).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.nodes(), None);
    let states: Vec<String> =
        world.receiver.status.borrow().kinds.iter().map(|(_, s)| s.name().into()).collect();
    assert_eq!(states, ["in sync", "unknown", "unknown"]);
    let rest = vec![Kind::IpPool, Kind::ClusterInformation];
    world.say(SourceEvent::Listed { kinds: rest, revision: None }).await;
    assert_eq!(world.nodes().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn the_first_change_after_quiet_waits_for_nothing_and_those_behind_it_for_each_other() {
    let world = World::new();
    world.list(vec![]).await;
    world.pass(Duration::from_secs(1)).await;
    let begun = Instant::now();
    world.change(vec![SourceChange::Put(node("a"))]).await;
    assert_eq!((world.nodes().as_deref(), begun.elapsed()), (Some("a"), Duration::ZERO));
    world.pass(Duration::from_millis(10)).await;
    world.change(vec![SourceChange::Put(node("b"))]).await;
    world.pass(Duration::from_millis(40)).await;
    world.change(vec![SourceChange::Put(node("c"))]).await;
    world.pass(Duration::from_millis(49)).await;
    assert_eq!(world.nodes().as_deref(), Some("a"));
    world.pass(Duration::from_millis(2)).await;
    assert_eq!(world.nodes().as_deref(), Some("a b c"));
}

#[tokio::test(start_paused = true)]
async fn a_datastore_that_is_emptied_is_believed_after_the_window_and_what_returns_was_never_gone() {
    let world = World::new();
    world.list(vec![node("a"), node("b"), node("c"), pool()]).await;
    world.pass(Duration::from_secs(1)).await;
    let full = world.snapshot().unwrap();
    let everything = || {
        let mut all = vec![gone("a"), gone("b"), gone("c")];
        all.push(SourceChange::Delete(key(Kind::IpPool, "p")));
        all
    };
    world.change(everything()).await;
    assert_eq!(world.snapshot().as_ref(), Some(&full));
    let held = world.receiver.status.borrow().held.clone();
    assert_eq!((held.len(), held[0].0.as_str()), (1, "3 of 3 Node"));
    world.pass(Duration::from_secs(20)).await;
    world
        .change(
            ["a", "b", "c"]
                .map(|name| SourceChange::Put(node(name)))
                .into_iter()
                .chain([SourceChange::Put(pool())])
                .collect(),
        )
        .await;
    world.pass(Duration::from_secs(60)).await;
    assert!(
        Arc::ptr_eq(&world.snapshot().unwrap(), &full),
        "nothing was published that anybody could act on"
    );
    assert!(world.receiver.status.borrow().held.is_empty());
    // All but our own Node.
    world.change(everything().split_off(1)).await;
    world.pass(Duration::from_secs(29)).await;
    assert_eq!(world.nodes().as_deref(), Some("a b c"));
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.nodes().as_deref(), Some("a"));
    assert!(world.snapshot().unwrap().pools.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_node_that_is_deleted_goes_at_once() {
    let world = World::new();
    world.list(vec![node("a"), node("b")]).await;
    world.pass(Duration::from_secs(1)).await;
    world.change(vec![gone("b")]).await;
    assert_eq!(world.nodes().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn nothing_changes_while_the_datastore_is_locked() {
    let world = World::new();
    world.list(vec![node("a"), node("b"), locked(false)]).await;
    world.pass(Duration::from_secs(1)).await;
    world.change(vec![SourceChange::Put(locked(true)), gone("b")]).await;
    world.change(vec![SourceChange::Put(node("d"))]).await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.nodes().as_deref(), Some("a b"));
    assert!(world.receiver.status.borrow().frozen);
    world.change(vec![SourceChange::Put(locked(false))]).await;
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.nodes().as_deref(), Some("a d"));
    assert!(!world.receiver.status.borrow().frozen);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_takes_nothing_away() {
    let world = World::new();
    world.list(vec![node("a"), node("b"), node("c")]).await;
    world.pass(Duration::from_secs(1)).await;
    world.say(SourceEvent::Page(vec![node("a")])).await;
    world.say(SourceEvent::Unavailable("gone".into())).await;
    assert!(world.receiver.status.borrow().kinds.iter().all(|(_, state)| state.name() == "stale"));
    world.list(vec![node("a"), node("b"), node("c")]).await;
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.nodes().as_deref(), Some("a b c"));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_refused_keeps_what_was_known_and_is_a_problem() {
    let world = World::new();
    world.list(vec![node("a"), pool()]).await;
    world.pass(Duration::from_secs(1)).await;
    world.say(SourceEvent::Refused { kind: Kind::IpPool, why: "forbidden".into(), optional: false }).await;
    let snapshot = world.snapshot().unwrap();
    assert_eq!(snapshot.pools.len(), 1);
    assert_eq!(snapshot.problems[0].to_string(), "IPPool: forbidden");
}

#[tokio::test]
async fn a_start_with_the_datastore_out_of_reach_begins_with_what_was_kept_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = World::on_disk(dir.path());
    first.list(vec![node("a"), node("b")]).await;
    first.receiver.snapshots.wait_for(Option::is_some).await.unwrap();
    let good = first.snapshot().unwrap();
    first.end().await;
    let mut second = World::on_disk(dir.path());
    assert_eq!(second.nodes(), None);
    second.say(SourceEvent::Unavailable("no route".into())).await;
    second.receiver.snapshots.wait_for(Option::is_some).await.unwrap();
    assert_eq!(second.snapshot().unwrap(), good);
    let status = second.receiver.status.borrow().clone();
    assert!(status.from_disk.is_some() && !status.in_sync && status.state == SourceState::Retrying);
    // Also what is broken by then has its last good form.
    let broken = entry(Kind::Node, "b", "{");
    second.list(vec![node("a"), broken, node("c")]).await;
    let wanted = |held: &Option<Arc<Snapshot>>| held.as_ref().is_some_and(|held| held.nodes.len() == 3);
    second.receiver.snapshots.wait_for(wanted).await.unwrap();
    let status = second.receiver.status.borrow().clone();
    assert!(status.from_disk.is_none() && status.in_sync);
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_with_a_datastore_that_was_all_but_emptied_waits_for_the_window_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let first = World::on_disk(dir.path());
    first.list(vec![node("a"), node("b"), node("c")]).await;
    first.end().await;
    let second = World::on_disk(dir.path());
    second.list(vec![node("a")]).await;
    assert_eq!(second.nodes().as_deref(), Some("a b c"));
    second.pass(Duration::from_secs(31)).await;
    assert_eq!(second.nodes().as_deref(), Some("a"));
}

#[tokio::test]
async fn a_start_in_the_middle_of_a_migration_begins_with_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = World::on_disk(dir.path());
    first.list(vec![node("a"), node("b"), locked(false)]).await;
    first.end().await;
    let mut second = World::on_disk(dir.path());
    second.list(vec![locked(true)]).await;
    second.receiver.snapshots.wait_for(Option::is_some).await.unwrap();
    assert_eq!(second.nodes().as_deref(), Some("a b"));
    assert!(second.receiver.status.borrow().frozen);
    second.end().await;
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_costs_nothing_but_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut world = World::on_disk(&file.join("below"));
    world.list(vec![node("a")]).await;
    world.receiver.snapshots.wait_for(Option::is_some).await.unwrap();
    let failed = world.receiver.status.wait_for(|status| status.cache_error.is_some());
    tokio::time::timeout(Duration::from_secs(30), failed).await.unwrap().unwrap();
    world.end().await;
}
