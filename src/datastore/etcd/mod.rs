//! etcd v3: everything listed at one revision, then watched from the next (DS-10 to DS-18).
//!
//! Owns: [`run`], which connects, lists, watches and comes back after errors, and says what it sees to the feed. What
//! one transaction changed arrives in pieces, one for each watched prefix, and is said when all of it is there: where
//! etcd's progress answer is a barrier (3.4.25, 3.5.8 and later) by that, else when each watch has passed the revision,
//! or after 5 ms. A compaction is answered by listing at once (O2); a watch that is silent is asked for a sign of life
//! (O4). Never: reads values, or decides what follows from a resource.

mod history;
mod link;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bgp_proto::Millis;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::history::EtcdHistory;
pub use self::link::Progress;
use self::link::{Ended, EtcdLink, Known, Listing, MAX_MESSAGE, TIMEOUT, within, written};
use super::feed::{Events, SourceChange, SourceEvent};
use super::settings::EtcdSettings;
use crate::model::decode::Reading;
use crate::model::snapshot::Snapshot;
use crate::model::store::{Remembered, Store};
use crate::model::{Kind, paths};
use crate::random::random;

/// How long a single reading waits for one endpoint before it asks the next one as well.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest and longest wait between attempts (DS-53).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long the pieces of a transaction are waited for where etcd cannot say that all of them were sent.
const PIECES: Duration = Duration::from_millis(5);
/// The same for what a watch that was resumed has to catch up with, prefix by prefix.
const CATCHING_UP: Duration = Duration::from_millis(100);
/// A barrier that has no answer is asked for again: etcd gives none while a watch of ours is behind.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Reads everything once, from the first endpoint that answers; the next one is asked where one says nothing.
///
/// # Errors
///
/// Where no endpoint answers, with the error of each.
pub async fn read_once(settings: &EtcdSettings, node: &str, reading: Reading) -> Result<Snapshot, String> {
    settings.tls.install();
    let mut endpoints = settings.endpoints.iter();
    let mut asked = JoinSet::new();
    let mut errors = Vec::new();
    loop {
        if let Some(endpoint) = endpoints.next() {
            let (endpoint, settings, node) = (endpoint.clone(), settings.clone(), node.to_owned());
            asked.spawn(async move { read_from(&endpoint, &settings, &node, reading).await });
        }
        match timeout(PATIENCE, asked.join_next()).await {
            Ok(Some(Ok(Ok(snapshot)))) => return Ok(snapshot),
            Ok(Some(Ok(Err(ended)))) => errors.push(ended.to_string()),
            Ok(Some(Err(error))) => errors.push(error.to_string()),
            Ok(None) => return Err(errors.join("; ")),
            Err(_) => {}
        }
    }
}

async fn read_from(
    endpoint: &str,
    settings: &EtcdSettings,
    node: &str,
    reading: Reading,
) -> Result<Snapshot, Ended> {
    let mut link = EtcdLink::connect(endpoint, settings).await?;
    let mut listing = Listing::new(&EtcdHistory::new(node, reading));
    let kinds = paths::kinds(reading.use_pod_cidr);
    let mut store = Store::new(node, reading, &kinds, Remembered::default());
    while let Some(page) = listing.next(&mut link).await? {
        store.page(page);
    }
    store.listed(&kinds, Millis(0));
    Ok(store.snapshot())
}

/// Lists, watches and tells until `stop`.
pub async fn run(
    settings: EtcdSettings,
    node: &str,
    reading: Reading,
    events: Events,
    stop: CancellationToken,
) {
    settings.tls.install();
    let follower = Follower {
        history: EtcdHistory::new(node, reading),
        kinds: paths::kinds(reading.use_pod_cidr),
        cluster: None,
        opened: false,
        waiting: Waiting::default(),
        events,
    };
    stop.run_until_cancelled(follower.run(settings)).await;
}

/// Half to whole of it, so that nodes that lost etcd together do not come back together.
fn jittered(wait: Duration, random: u64) -> Duration {
    let share = u32::try_from(random % 513).unwrap_or(0);
    wait / 2 + wait * share / 1024
}

/// The wait after this one, should the next attempt fail too.
fn longer(wait: Duration) -> Duration {
    (wait * 2).min(BACKOFF.1)
}

/// Follows etcd over many connections.
struct Follower {
    history: EtcdHistory,
    kinds: Vec<Kind>,
    /// The cluster whose history it is; `None` where it must be listed (again).
    cluster: Option<u64>,
    /// This connection got as far as watching.
    opened: bool,
    waiting: Waiting,
    events: Events,
}

/// What has been heard and not been told yet. It outlives a connection: the pieces that lack come over the next one.
#[derive(Default)]
struct Waiting {
    /// By revision.
    changes: BTreeMap<i64, Vec<SourceChange>>,
    /// When the first of it came.
    since: Option<Instant>,
    /// When a barrier was last asked for that has not been answered.
    asked: Option<Instant>,
    /// For each watch the revision of its last word.
    passed: BTreeMap<i64, i64>,
    /// What comes up to here was missed.
    missed_until: i64,
    progress: Progress,
    /// The answer before the last, which no event can be behind any more even where answers overtake events.
    answered: i64,
}

impl Waiting {
    /// When something must be done without any word of etcd.
    fn due(&self) -> Option<Instant> {
        let since = self.since?;
        match (self.progress, self.asked) {
            (Progress::Barrier, Some(asked)) => Some(asked + ASK_AGAIN),
            (Progress::Barrier, None) => Some(since),
            _ if self.changes.keys().next().is_some_and(|first| *first <= self.missed_until) => {
                Some(since + CATCHING_UP)
            }
            _ => Some(since + PIECES),
        }
    }

    /// The last revision of which all pieces are there, as far as words of the watches tell.
    fn complete(&self, watches: usize) -> i64 {
        let behind = self.passed.values().min().copied().unwrap_or(0);
        if self.passed.len() < watches { 0 } else { behind - 1 }
    }

    /// Takes out what is complete up to and with `revision`.
    fn take(&mut self, revision: i64) -> Vec<SourceChange> {
        let later = self.changes.split_off(&(revision + 1));
        let ready = std::mem::replace(&mut self.changes, later);
        self.since = (!self.changes.is_empty()).then(Instant::now);
        ready.into_values().flatten().collect()
    }
}

impl Follower {
    async fn run(mut self, settings: EtcdSettings) {
        // Nodes spread over the members of etcd.
        let count = u64::try_from(settings.endpoints.len()).unwrap_or(1).max(1);
        let mut turn = usize::try_from(random() % count).unwrap_or(0);
        let mut wait = BACKOFF.0;
        let mut errors: Vec<String> = Vec::new();
        // The last connection ended by a compaction, too: etcd compacts faster than we list.
        let mut overtaken = false;
        loop {
            let Some(endpoint) = settings.endpoints.get(turn % settings.endpoints.len().max(1)) else {
                return;
            };
            let started = Instant::now();
            self.opened = false;
            let Err(ended) = self.follow(endpoint, &settings).await;
            let lasted = started.elapsed();
            if self.opened && lasted > TIMEOUT {
                wait = BACKOFF.0;
            }
            if let Ended::Compacted { .. } = ended {
                tracing::info!(reason = %ended, "listing the datastore again");
                self.cluster = None;
                if !std::mem::replace(&mut overtaken, true) || lasted > BACKOFF.0 {
                    continue;
                }
            } else {
                overtaken = false;
                turn = turn.wrapping_add(1);
                errors.push(ended.to_string());
                // The other endpoints are tried at once; that none answers is one piece of news.
                if !self.opened && errors.len() < settings.endpoints.len() {
                    continue;
                }
                errors.sort();
                self.tell(SourceEvent::Unavailable(errors.join("; "))).await;
                errors.clear();
            }
            tokio::time::sleep(jittered(wait, random())).await;
            wait = longer(wait);
        }
    }

    /// Who listens no more has ended, and so shall we soon.
    async fn tell(&self, event: SourceEvent) {
        let _ = self.events.send(event).await;
    }

    /// Follows over one connection until it ends.
    async fn follow(&mut self, endpoint: &str, settings: &EtcdSettings) -> Result<Infallible, Ended> {
        let mut link = EtcdLink::connect(endpoint, settings).await?;
        // Another cluster's revisions mean nothing, nor do those of another history: a watch from a revision that is
        // still to come would wait in silence, and one that begins in the middle would never tell what is not there.
        let (known, now) = match self.cluster {
            Some(cluster) => link.knows(&self.history, cluster).await?,
            None => (Known::Other, 0),
        };
        let least = match known {
            // It is ours up to the last event, and what was told is what etcd said was.
            Known::Same => self.history.resumes_from(),
            // Nothing of ours was changed between the last event and what etcd said last.
            Known::Compacted => self.history.progress(),
            Known::Other => {
                self.cluster = None;
                let mut listing = Listing::new(&self.history);
                while let Some(page) = listing.next(&mut link).await? {
                    self.tell(SourceEvent::Page(page)).await;
                }
                let Listing { revision, cluster, keys, mark, .. } = listing;
                self.history.relisted(keys, mark, revision);
                self.waiting = Waiting::default();
                self.cluster = Some(cluster);
                let (kinds, revision) = (self.kinds.clone(), Some(revision));
                self.tell(SourceEvent::Listed { kinds, revision }).await;
                0
            }
        };
        let progress = link.progress().await;
        self.watch(link, settings, progress, now, least).await
    }

    async fn watch(
        &mut self,
        link: EtcdLink,
        settings: &EtcdSettings,
        progress: Progress,
        missed_until: i64,
        least: i64,
    ) -> Result<Infallible, Ended> {
        let EtcdLink { endpoint, client, .. } = link;
        let ended = |why: &str| Ended::Watch { endpoint: endpoint.clone(), why: why.to_owned() };
        let broken = |error| Ended::Etcd { endpoint: endpoint.clone(), error };
        // An etcd that has a barrier gives no answer while a watch waits for a revision that is still to come, which may
        // be for long: so the last revision is watched again, and what that brings was seen.
        let next = i64::from(progress != Progress::Barrier);
        let options =
            |from: i64| WatchOptions::new().with_prefix().with_start_revision(from.max(least) + next);
        let mut watches = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let mut prefixes = self.history.seen().iter();
        let Some((first, from)) = prefixes.next() else { return Err(ended("nothing to watch")) };
        let watch = watches.watch(first.clone(), Some(options(*from)));
        let mut stream: WatchStream = within(&endpoint, "starting the watch", watch).await?;
        for (prefix, from) in prefixes {
            stream.watch(prefix.clone(), Some(options(*from))).await.map_err(broken)?;
        }
        let watches = self.history.seen().len();
        let mut unopened = watches;
        let mut heard = Instant::now();
        // A sign of life was asked for.
        let mut questioned = false;
        let changes = std::mem::take(&mut self.waiting.changes);
        let since = (!changes.is_empty()).then(Instant::now);
        self.waiting = Waiting { changes, since, missed_until, progress, ..Waiting::default() };
        loop {
            let liveness = settings.liveness;
            let patience =
                liveness.ask_after + if questioned { liveness.answer_within } else { Duration::ZERO };
            let silent_until = heard + patience;
            let due = self.waiting.due().filter(|_| unopened == 0);
            let response = tokio::select! {
                biased;
                response = stream.message() => response,
                () = sleep_until(due.unwrap_or(silent_until)), if due.is_some() => {
                    if progress == Progress::Barrier {
                        self.waiting.asked = Some(Instant::now());
                        stream.request_progress().await.map_err(broken)?;
                    } else {
                        self.release(i64::MAX - 1).await;
                    }
                    if heard.elapsed() < patience {
                        continue;
                    }
                    return Err(ended("no sign of life"));
                }
                () = sleep_until(silent_until), if progress != Progress::None => {
                    if questioned {
                        return Err(ended("no sign of life"));
                    }
                    questioned = true;
                    stream.request_progress().await.map_err(broken)?;
                    continue;
                }
            };
            let Some(response) = response.map_err(broken)? else { return Err(ended("closed by etcd")) };
            heard = Instant::now();
            questioned = false;
            if response.canceled() {
                return Err(if response.compact_revision() > 0 {
                    Ended::Compacted { endpoint: endpoint.clone(), from: self.history.revision() }
                } else {
                    ended(response.cancel_reason())
                });
            }
            if response.created() {
                unopened = unopened.saturating_sub(1);
                if unopened == 0 {
                    self.opened = true;
                    self.connected().await;
                }
                continue;
            }
            self.take(&response, watches).await;
        }
    }

    async fn connected(&self) {
        let (kinds, revision) = (self.kinds.clone(), Some(self.history.revision()));
        self.tell(SourceEvent::Connected { kinds, revision }).await;
    }

    /// Takes a word of a watch that is no opening and no end.
    async fn take(&mut self, response: &WatchResponse, watches: usize) {
        let waiting = &mut self.waiting;
        let revision = response.header().map_or(0, |header| header.revision());
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let put = (event.event_type() == EventType::Put).then(|| written(kv));
            if let Some(change) = self.history.event(kv.key(), put, kv.mod_revision()) {
                waiting.changes.entry(kv.mod_revision()).or_default().push(change);
                waiting.since.get_or_insert_with(Instant::now);
            }
        }
        if !response.events().is_empty() {
            if waiting.progress != Progress::Barrier {
                let last = response.events().last().and_then(|event| event.kv()).map(|kv| kv.mod_revision());
                waiting.passed.insert(response.watch_id(), last.unwrap_or(revision));
                let complete = waiting.complete(watches);
                self.release(complete).await;
            }
            return;
        }
        // Nothing in it: an answer to a question for progress.
        match waiting.progress {
            Progress::Barrier => {
                waiting.asked = None;
                self.history.advance(revision);
                self.release(revision).await;
            }
            Progress::Alive | Progress::None => {
                self.history.advance(waiting.answered);
                waiting.answered = revision;
            }
        }
        self.connected().await;
    }

    /// Tells what is complete up to and with `revision`.
    async fn release(&mut self, revision: i64) {
        let waiting = &mut self.waiting;
        let resumed = waiting.changes.keys().next().is_some_and(|first| *first <= waiting.missed_until);
        let changes = waiting.take(revision);
        if !changes.is_empty() {
            let revision = Some(self.history.revision());
            self.tell(SourceEvent::Changed { changes, resumed, revision }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_half_a_second_to_half_a_minute_and_spread_over_half_of_it() {
        let waits: Vec<u128> = std::iter::successors(Some(BACKOFF.0), |wait| Some(longer(*wait)))
            .take(8)
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        let wait = Duration::from_secs(8);
        let pauses: Vec<Duration> = (0..513).map(|random| jittered(wait, random)).collect();
        assert_eq!((pauses.first(), pauses.last()), (Some(&(wait / 2)), Some(&wait)));
        assert!(pauses.is_sorted());
    }

    #[test]
    fn a_revision_is_complete_without_a_barrier_when_each_watch_has_passed_it() {
        let mut waiting = Waiting::default();
        waiting.changes.insert(7, vec![SourceChange::Problems(Vec::new())]);
        waiting.changes.insert(9, vec![SourceChange::Problems(Vec::new())]);
        waiting.passed.insert(1, 9);
        assert_eq!(waiting.complete(2), 0, "one watch has said nothing yet");
        waiting.passed.insert(2, 8);
        assert_eq!(waiting.complete(2), 7, "another piece of revision 8 may follow");
        assert_eq!(waiting.take(7).len(), 1);
        assert_eq!(waiting.changes.len(), 1);
    }
}
