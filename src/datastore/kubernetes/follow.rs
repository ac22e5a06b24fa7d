//! One collection, listed and then watched, for as long as the daemon runs (DS-42, DS-53).
//!
//! Owns: [`KindFollower`]: the list in pieces, the watch from its revision with bookmarks, and what each kind of failure
//! costs. A revision that is gone is answered by a new list, which the store takes as a difference (O2, O3); a kind that
//! may not be read, or is not there, by its rule (REL-11); anything else by another attempt, later and later, nodes of
//! one cluster spread over time. A resource whose fields of ours are as they were is not even told (DYN-11). Never:
//! decides what follows from a resource.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use super::api::{ANSWER, Api, Failure, SharedApi};
use super::endpoints::slices;
use super::items::{LineSplitter, ListSplitter, event, pruned};
use super::resource::{CalicoGroup, Resource, endpoint_slices, endpoints, text};
use crate::datastore::feed::{Events, SourceChange, SourceEvent};
use crate::model::store::SourceEntry;
use crate::model::{Kind, ResourceKey};
use crate::random::random;

/// Items of a page.
const PAGE: usize = 500;
/// Items that are handed on together.
const BATCH: usize = 200;
/// Shortest and longest pause between attempts (DS-53).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A kind that may not be read, or is not there, is asked for again this often (REL-11).
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long the server must refuse a kind, or say that there is none such, before that is believed: while it starts it
/// knows neither rights nor kinds.
const SURE: Duration = Duration::from_secs(3);
/// The same where it says that it does not have a kind that it had, or that nothing goes without.
const SURE_OF_LOSS: Duration = Duration::from_secs(30);
/// A watch is ended by the server after a time between these.
const WATCH_SECONDS: (u64, u64) = (300, 600);
/// A watch that held for so long was no failure.
const HELD: Duration = Duration::from_secs(5);
/// What comes this soon after a watch was opened anew had been missed.
const CATCHING_UP: Duration = Duration::from_secs(1);
/// How long what can be done without is waited for where it only stands beside the datastore (DS-6).
const WITHOUT: Duration = Duration::from_secs(10);
/// Failures in a row after which it is said aloud, where other kinds are told.
const SAID_AFTER: u32 = 3;

/// The pause before attempt number `failures` after a loss, 1 being the first.
pub fn pause(failures: u32, spread: Duration, random: u64) -> Duration {
    let share = u32::try_from(random % 1025).unwrap_or(0);
    if failures <= 1 {
        return spread * share / 1024;
    }
    let doubled = BACKOFF.0.saturating_mul(1 << (failures - 1).min(6)).min(BACKOFF.1);
    doubled / 2 + doubled * share / 2048
}

/// Where a list begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// With what the server has at hand: at start, when all nodes ask.
    Memory,
    /// With the latest.
    Latest,
}

/// Follows one collection.
pub struct KindFollower {
    api: SharedApi,
    what: Resource,
    node: String,
    events: Events,
    hasher: Arc<RandomState>,
    calico: Option<CalicoGroup>,
    /// The revision up to which all is told; `None` where a list is due.
    version: Option<String>,
    from: From,
    /// What was told last of each resource.
    told: BTreeMap<ResourceKey, u64>,
    /// All of it has been listed once.
    listed: bool,
    /// Failures in a row.
    failures: u32,
    /// A failure was said aloud.
    said: bool,
    /// Changes are not told at present.
    lost: bool,
    /// It stands beside the datastore.
    beside: bool,
    began: Instant,
    /// Since when the server refuses the kind, or says that there is none such.
    refused: Option<Instant>,
}

/// Counts a watch that is open.
struct Open<'a>(&'a Api);

impl<'a> Open<'a> {
    fn new(api: &'a Api) -> Self {
        api.open.fetch_add(1, Ordering::Relaxed);
        Open(api)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl KindFollower {
    /// For the node of this name.
    pub fn new(api: SharedApi, what: Resource, node: &str, events: Events) -> Self {
        KindFollower {
            api,
            what,
            node: node.to_owned(),
            events,
            hasher: Arc::new(RandomState::new()),
            calico: None,
            version: None,
            from: From::Memory,
            told: BTreeMap::new(),
            listed: false,
            failures: 0,
            said: false,
            lost: false,
            beside: false,
            began: Instant::now(),
            refused: None,
        }
    }

    /// It stands beside the datastore: nothing waits for it for long.
    pub fn beside(mut self, beside: bool) -> Self {
        self.beside = beside;
        self
    }

    /// Follows for ever.
    pub async fn run(mut self) {
        loop {
            let Err(failure) = self.follow().await;
            let unreachable = matches!(failure, Failure::Unreachable { .. });
            let mut returned = self.api.returned();
            let wait = self.failed(failure).await;
            tokio::select! {
                () = sleep(wait) => {}
                // Another one has found it: we need not wait for long any more.
                Ok(()) = returned.changed(), if unreachable => {
                    sleep(pause(1, SURE.min(wait), random())).await;
                }
            }
        }
    }

    /// Who listens no more has ended, and so shall we soon.
    async fn tell(&self, event: SourceEvent) {
        let _ = self.events.send(event).await;
    }

    /// The path with its query so far.
    async fn path(&mut self) -> Result<String, Failure> {
        let calico = match self.calico {
            Some(calico) => calico,
            None if !self.what.is_calico() => CalicoGroup::V1,
            None => *self.calico.insert(CalicoGroup::choose(&self.api).await?),
        };
        Ok(self.what.path(calico))
    }

    async fn follow(&mut self) -> Result<Infallible, Failure> {
        let mut version = match self.version.clone() {
            Some(version) => version,
            None => self.list().await?,
        };
        loop {
            self.watch(&version).await?;
            self.look_for_slices().await;
            match &self.version {
                Some(next) => version.clone_from(next),
                None => version = self.list().await?,
            }
        }
    }

    /// Whether EndpointSlices can be had by now in the place of Endpoints; then they are listed, as a difference.
    async fn look_for_slices(&mut self) {
        if self.what.is_endpoints() {
            let slices = endpoint_slices();
            if self.api.get(&format!("{}limit=1", slices.path(CalicoGroup::V1))).await.is_ok() {
                (self.what, self.version) = (slices, None);
            }
        }
    }

    /// Lists all of it; the revision of the list.
    async fn list(&mut self) -> Result<String, Failure> {
        let path = self.path().await?;
        let mut next = String::new();
        let mut told = BTreeMap::new();
        let version = loop {
            let query = match (next.as_str(), self.from) {
                ("", From::Memory) => "&resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned(),
                ("", From::Latest) => String::new(),
                (token, _) => format!("&continue={}", text(token)),
            };
            let mut answer = self.api.get(&format!("{path}limit={PAGE}{query}")).await?;
            let mut splitter = ListSplitter::new();
            let mut batch = Vec::new();
            while let Some(piece) = self.api.piece(&mut answer, ANSWER).await? {
                let mut wrong = None;
                let cut = splitter.push(&piece, |item| match pruned(self.what.kind, item) {
                    Ok(mut object) => {
                        Self::version_of(&mut object);
                        for (key, object) in self.resources(object) {
                            if let Some((entry, print)) = self.entry(key, object) {
                                told.insert(entry.key(), print);
                                batch.push(entry);
                            }
                        }
                    }
                    Err(error) => wrong = Some(error),
                });
                if let Some(error) = cut.err().or(wrong) {
                    return Err(Failure::malformed(&answer.server, &error));
                }
                if batch.len() >= BATCH {
                    self.tell(SourceEvent::Page(mem::take(&mut batch))).await;
                }
            }
            let meta = splitter.finish().map_err(|error| Failure::malformed(&answer.server, &error))?;
            if !batch.is_empty() {
                self.tell(SourceEvent::Page(batch)).await;
            }
            if meta.r#continue.is_empty() {
                break meta.resource_version;
            }
            next = meta.r#continue;
        };
        if self.what.kind == Kind::Node {
            self.api.nodes.store(told.len(), Ordering::Relaxed);
        }
        self.told = told;
        self.complete(&version).await;
        Ok(version)
    }

    /// All of it has been told.
    async fn complete(&mut self, version: &str) {
        (self.listed, self.from) = (true, From::Latest);
        self.version = Some(version.to_owned()).filter(|version| !version.is_empty());
        let revision = self.api.heard(version);
        self.tell(SourceEvent::Listed { kinds: vec![self.what.kind], revision }).await;
    }

    /// What an object stands for: itself, but for Endpoints.
    fn resources(&self, object: Map<String, Value>) -> Vec<(ResourceKey, Map<String, Value>)> {
        let objects = if self.what.is_endpoints() { slices(&object) } else { vec![object] };
        objects.into_iter().filter_map(|object| Some((self.key(&object)?, object))).collect()
    }

    /// A resource as the store takes it, with a number that tells its content from another; `None` for what belongs to
    /// another node.
    fn entry(&self, key: ResourceKey, object: Map<String, Value>) -> Option<(SourceEntry, u64)> {
        if self.what.kind == Kind::BlockAffinity {
            // Thousands of blocks of others are nothing to hold (DS-37).
            let node = object.get("spec").and_then(|spec| spec.get("node")).and_then(Value::as_str);
            if node.is_some_and(|node| node != self.node) {
                return None;
            }
        }
        let print = self.hasher.hash_one(&object);
        let from_kubernetes_node = self.what.kind == Kind::Node;
        Some((SourceEntry::Document { key, value: Value::Object(object), from_kubernetes_node }, print))
    }

    /// Takes its revision out of a resource: that is of no account to what it says.
    fn version_of(object: &mut Map<String, Value>) -> String {
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        let version = metadata.and_then(|metadata| metadata.remove("resourceVersion"));
        version.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn key(&self, object: &Map<String, Value>) -> Option<ResourceKey> {
        let metadata = object.get("metadata")?;
        let word = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (word("namespace"), word("name"));
        (!name.is_empty()).then_some(ResourceKey { kind: self.what.kind, namespace, name })
    }

    /// Watches from a revision until the server ends it, which it does now and then.
    async fn watch(&mut self, version: &str) -> Result<(), Failure> {
        let path = self.path().await?;
        let seconds = WATCH_SECONDS.0 + random() % (WATCH_SECONDS.1 - WATCH_SECONDS.0);
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
            text(version)
        );
        let mut answer = self.api.get(&format!("{path}{query}")).await?;
        let api = self.api.clone();
        let _open = Open::new(&api);
        let opened = Instant::now();
        let resumed = mem::take(&mut self.lost);
        self.refused = None;
        self.tell(SourceEvent::Connected { kinds: vec![self.what.kind], revision: self.api.heard(version) })
            .await;
        if mem::take(&mut self.said) {
            tracing::info!(kind = self.what.kind.name(), "changes of this kind are told again");
        }
        let began: Option<u64> = version.parse().ok();
        let mut lines = LineSplitter::default();
        let mut any = false;
        let silence = self.api.settings().silence;
        let server = answer.server.clone();
        while let Some(piece) = self.api.piece(&mut answer, silence).await? {
            let whole = lines.push(&piece).map_err(|error| Failure::malformed(&answer.server, &error))?;
            for line in whole {
                let missed = resumed && opened.elapsed() < CATCHING_UP;
                self.line(&line, &server, began, missed).await?;
                any = true;
            }
            if any || opened.elapsed() > HELD {
                self.failures = 0;
            }
        }
        if any || opened.elapsed() > HELD {
            self.failures = 0;
            return Ok(());
        }
        let why = "the watch was ended as soon as it was opened".to_owned();
        Err(Failure::Unreachable { server: answer.server, why })
    }

    /// Takes a line of a watch that began at revision `began`.
    async fn line(
        &mut self,
        line: &[u8],
        server: &str,
        began: Option<u64>,
        resumed: bool,
    ) -> Result<(), Failure> {
        let line = event(self.what.kind, line).map_err(|error| Failure::malformed(server, &error))?;
        let mut object = line.object;
        if line.event == "ERROR" {
            return Err(Failure::of_status(server, object));
        }
        let version = Self::version_of(&mut object);
        // Revisions are numbers that grow, but for a server that is none of Kubernetes' own.
        let number: Option<u64> = version.parse().ok();
        if let (Some(number), Some(began)) = (number, began)
            && number < began
        {
            // What was restored from a backup is another history.
            let why = format!("revision {number} follows {began}: it has gone back");
            return Err(Failure::Expired { server: server.to_owned(), why });
        }
        let known = self.version.as_deref().and_then(|known| known.parse::<u64>().ok());
        if let (Some(number), Some(known)) = (number, known)
            && number <= known
            && line.event != "BOOKMARK"
        {
            return Ok(());
        }
        let resources = self.resources(object);
        let changes: Vec<SourceChange> = match line.event.as_str() {
            "ADDED" | "MODIFIED" => {
                resources.into_iter().filter_map(|(key, object)| self.changed(key, object)).collect()
            }
            "DELETED" => resources.into_iter().filter_map(|(key, _)| self.gone(key)).collect(),
            _ => Vec::new(),
        };
        if !version.is_empty() {
            self.version = Some(version);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let revision = self.api.heard(self.version.as_deref().unwrap_or_default());
        self.tell(SourceEvent::Changed { changes, resumed, revision }).await;
        Ok(())
    }

    fn changed(&mut self, key: ResourceKey, object: Map<String, Value>) -> Option<SourceChange> {
        // One that went over to another node is gone for us.
        let Some((entry, print)) = self.entry(key.clone(), object) else { return self.gone(key) };
        let news = self.told.insert(key, print) != Some(print);
        news.then_some(SourceChange::Put(entry))
    }

    fn gone(&mut self, key: ResourceKey) -> Option<SourceChange> {
        self.told.remove(&key).map(|_| SourceChange::Delete(key))
    }

    /// What a failure costs: it is told, and the pause before the next attempt is given.
    async fn failed(&mut self, failure: Failure) -> Duration {
        let kind = self.what.kind;
        match &failure {
            Failure::Expired { .. } => {
                tracing::info!(kind = kind.name(), reason = %failure, "listing the kind again");
                self.tell(SourceEvent::Abandoned(kind)).await;
                (self.version, self.from) = (None, From::Latest);
                self.failures += 1;
                return pause(self.failures, self.api.spread(), random());
            }
            Failure::Refused { status: 403 | 404, why, .. } => {
                self.version = None;
                if let Some(wait) = self.refused(failure.status(), why.clone()).await {
                    return wait;
                }
                self.lose(&failure).await;
                // Whether that lasts is to be known soon, however long the server was away before.
                return pause(self.failures.min(3), self.api.spread(), random());
            }
            Failure::Refused { .. } | Failure::Unreachable { .. } => self.lose(&failure).await,
        }
        let asked = if let Failure::Refused { retry_after, .. } = failure { retry_after } else { None };
        let wait = pause(self.failures, self.api.spread(), random());
        wait.max(asked.unwrap_or_default().min(BACKOFF.1))
    }

    async fn lose(&mut self, failure: &Failure) {
        self.failures += 1;
        self.lost = true;
        let kind = self.what.kind;
        if self.failures == SAID_AFTER && self.api.open.load(Ordering::Relaxed) > 0 {
            self.said = true;
            tracing::warn!(kind = kind.name(), "changes of this kind are not told, trying again: {failure}");
        }
        if self.beside && !self.listed && self.began.elapsed() > WITHOUT {
            let why = format!("it is done without until it can be read: {failure}");
            self.tell(SourceEvent::Refused { kind, why, optional: true }).await;
            return;
        }
        let answered = failure.status().is_some();
        self.tell(SourceEvent::Lost { kind, why: failure.to_string(), answered }).await;
    }

    /// The server refuses the kind, or says that there is none such. The pause before it is asked again; `None` where that
    /// is no answer yet.
    async fn refused(&mut self, status: Option<u16>, why: String) -> Option<Duration> {
        let kind = self.what.kind;
        // Which of the two groups counts may have changed, by a migration.
        if self.what.is_calico() && status == Some(404) {
            self.calico = None;
        }
        self.path().await.ok()?;
        let calico = self.calico.unwrap_or(CalicoGroup::V1);
        let again = pause(0, ASK_AGAIN / 10, random()) + ASK_AGAIN;
        let served = self.what.is_served(&self.api, calico).await.ok()?;
        let since = *self.refused.get_or_insert_with(Instant::now);
        let loss = !served && (self.what.needed || self.listed);
        if since.elapsed() < if loss { SURE_OF_LOSS } else { SURE } {
            return None;
        }
        if kind == Kind::EndpointSlice && !self.what.is_endpoints() {
            tracing::info!("EndpointSlices cannot be had, so Endpoints are read: {why}");
            (self.what, self.refused) = (endpoints(), None);
            return Some(Duration::ZERO);
        }
        if served {
            // It has it, and does not give it: that it says that there is none is a fault of its own.
            if status == Some(404) {
                return None;
            }
            let optional = !self.what.needed;
            self.tell(SourceEvent::Refused { kind, why, optional }).await;
            self.lost = true;
            if self.what.is_endpoints() {
                self.what = endpoint_slices();
            }
            return Some(again);
        }
        self.told.clear();
        self.tell(SourceEvent::Abandoned(kind)).await;
        self.complete("").await;
        self.lost = false;
        Some(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::settings::KubernetesSettings;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_nodes_that_lost_the_server_together_come_back_over_ten_seconds() {
        let var = |_: &str| String::new();
        let api = Api::new(KubernetesSettings::from_env(&|_| None, &var).unwrap());
        api.nodes.store(1000, Ordering::Relaxed);
        let start = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let wait = pause(1, api.spread(), random());
            clients.spawn(async move {
                sleep(wait).await;
                start.elapsed().as_millis() / 500
            });
        }
        let mut halves = vec![0; 21];
        while let Some(half) = clients.join_next().await {
            halves[usize::try_from(half.unwrap()).unwrap()] += 1;
        }
        // 50 are to be expected in each half of a second; 7 standard deviations more are never seen.
        assert!(halves.iter().all(|count| *count < 100), "{halves:?}");
        assert!(halves.iter().filter(|count| **count > 0).count() >= 20, "{halves:?}");
    }

    #[test]
    fn the_first_attempt_after_a_loss_is_spread_and_later_ones_come_later_and_later() {
        let spread = Duration::from_secs(10);
        assert_eq!(pause(1, spread, 0), Duration::ZERO);
        assert_eq!(pause(1, spread, 1024), spread);
        let middle: Vec<u128> = (2..10).map(|n| pause(n, spread, 512).as_millis()).collect();
        assert_eq!(middle, [750, 1500, 3000, 6000, 12000, 22500, 22500, 22500]);
    }
}
