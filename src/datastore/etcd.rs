//! etcd v3: everything listed at one revision, then watched from the next (DS-10 to DS-18).
//!
//! Owns: [`EtcdState`], what etcd said so far, pure: a list is applied as a difference, an event older than what is
//! known is dropped (D11), a value that does not parse leaves the last good one (D10). [`run`] connects, lists, watches
//! and comes back after errors, with the last snapshot in force all the while (O1); a compaction is answered by listing
//! at once (O2); a watch that is silent is asked for a sign of life (O4). Never: decides what follows from a resource.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use etcd_client::{
    Client, ConnectOptions, EventType, GetOptions, KeyValue, SortOrder, SortTarget, WatchOptions,
};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::SourceSender;
use super::debounce::Debounce;
use super::settings::EtcdSettings;
use crate::model::decode::{Decoded, Reading, Resource, decode_affinity, decode_as};
use crate::model::paths::{self, Holds};
use crate::model::snapshot::Snapshot;
use crate::model::store::SnapshotBuilder;
use crate::model::{Problem, Severity};
use crate::random::random;

/// For connecting and for each answer (DS-4).
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a single reading waits for one endpoint before it asks the next one as well.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest and longest wait between attempts (DS-53).
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What etcd says to who brings a password where it asks for none.
const NO_USERS: &str = "authentication is not enabled";
/// Keys asked for at a time.
const PAGE: i64 = 500;
/// Largest message taken: a page of values, or the events of one revision. etcd's own values end at 1.5 MiB.
const MAX_MESSAGE: usize = 64 << 20;

/// What etcd said, by key.
#[derive(Clone, Debug)]
pub struct EtcdState {
    node: String,
    reading: Reading,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// For each prefix the last revision seen: prefixes are watched apart, and one may be behind another.
    seen: Vec<(String, i64)>,
}

#[derive(Clone, Debug)]
struct Entry {
    revision: i64,
    decoded: Decoded,
}

impl EtcdState {
    /// Nothing known yet.
    pub fn new(node: &str, reading: Reading) -> Self {
        let prefixes = paths::prefixes(node, reading.use_pod_cidr);
        let seen = prefixes.into_iter().map(|prefix| (prefix, 0)).collect();
        EtcdState { node: node.to_owned(), reading, entries: BTreeMap::new(), seen }
    }

    /// The prefixes that are listed and watched, each with the last revision seen.
    pub fn seen(&self) -> &[(String, i64)] {
        &self.seen
    }

    /// The newest revision seen; 0 before the first list.
    pub fn revision(&self) -> i64 {
        self.seen.iter().map(|(_, revision)| *revision).max().unwrap_or(0)
    }

    /// Applies a full list, made at `revision`, as a difference: keys that are not in it are gone. Entries are key,
    /// value and the key's revision.
    pub fn relist<'k>(&mut self, list: impl IntoIterator<Item = (&'k [u8], &'k [u8], i64)>, revision: i64) {
        let mut listed = BTreeSet::new();
        for (key, value, revision) in list {
            self.put(key, value, revision);
            listed.insert(key.to_vec());
        }
        self.entries.retain(|key, _| listed.contains(key));
        for (_, seen) in &mut self.seen {
            *seen = revision;
        }
    }

    /// Applies an event: a key was written, or with no value deleted. One that is older than what was seen is dropped
    /// (D11). Whether anything changed.
    pub fn event(&mut self, key: &[u8], value: Option<&[u8]>, revision: i64) -> bool {
        let Some((_, seen)) = self.seen.iter_mut().find(|(prefix, _)| key.starts_with(prefix.as_bytes()))
        else {
            return false;
        };
        // The events of one transaction have one revision, so only what is older was surely seen.
        if revision < *seen || self.entries.get(key).is_some_and(|entry| entry.revision >= revision) {
            return false;
        }
        *seen = revision;
        match value {
            Some(value) => self.put(key, value, revision),
            None => self.entries.remove(key).is_some(),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8], revision: i64) -> bool {
        let Some(holds) = std::str::from_utf8(key).ok().and_then(paths::parse) else { return false };
        let before = self.entries.get(key);
        let last = before.and_then(|entry| entry.decoded.resource.as_ref());
        let decoded = decode_value(key, value, &holds, self.reading, last);
        // Most writes are heartbeats that change nothing (DYN-11).
        let changed = before.is_none_or(|entry| entry.decoded != decoded);
        self.entries.insert(key.to_vec(), Entry { revision, decoded });
        changed
    }

    /// Everything known.
    pub fn snapshot(&self) -> Snapshot {
        let mut builder = SnapshotBuilder::new(&self.node, self.reading.use_pod_cidr);
        for entry in self.entries.values() {
            builder.add(&entry.decoded);
        }
        builder.finish()
    }
}

fn decode_value(
    key: &[u8],
    value: &[u8],
    holds: &Holds,
    reading: Reading,
    last: Option<&Resource>,
) -> Decoded {
    let affinity = matches!(holds, Holds::Affinity { .. });
    let parsed = if affinity && value.is_empty() {
        Ok(Value::Object(serde_json::Map::new()))
    } else {
        serde_json::from_slice(value)
    };
    match (parsed, holds) {
        (Ok(document), Holds::Resource(resource)) => decode_as(resource.clone(), &document, reading, last),
        (Ok(document), Holds::Affinity { node, cidr }) => {
            decode_affinity(holds.key(), node, *cidr, &document, last)
        }
        (Err(error), _) => {
            let stays = if last.is_some() { "; its last good value stays in force" } else { "" };
            let problem = Problem {
                resource: String::from_utf8_lossy(key).escape_debug().to_string(),
                field: String::new(),
                why: format!("the value is not JSON ({error}){stays}"),
                severity: Severity::Error,
            };
            Decoded {
                key: holds.key(),
                resource: last.cloned(),
                problems: vec![problem],
                from_kubernetes_node: false,
            }
        }
    }
}

/// Why a connection to etcd came to its end.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{endpoint}: {}", reason(.error))]
    Etcd { endpoint: String, error: etcd_client::Error },
    /// Somebody is there, who does not speak as etcd does without TLS.
    #[error("{endpoint}: {}; is it an etcd, and one without TLS?", reason(.error))]
    Strange { endpoint: String, error: etcd_client::Error },
    #[error("{endpoint}: {}, for {prefix}", reason(.error))]
    Denied { endpoint: String, error: etcd_client::Error, prefix: String },
    #[error("{endpoint}: {what} took longer than {} s", TIMEOUT.as_secs())]
    Late { endpoint: String, what: &'static str },
    #[error("{endpoint}: the watch ended: {why}")]
    Watch { endpoint: String, why: String },
    /// The history that the watch needs is gone: everything is listed again.
    #[error("{endpoint}: etcd no longer has the changes after revision {from}")]
    Compacted { endpoint: String, from: i64 },
}

/// What people need of an error: what was refused, and the system's own word for it.
fn reason(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut last = std::error::Error::source(status);
    while let Some(deeper) = last.and_then(std::error::Error::source) {
        last = Some(deeper);
    }
    match last.map(ToString::to_string) {
        Some(cause) if !cause.contains(status.message()) => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// Reads everything once, from the first endpoint that answers; the next one is asked where one says nothing.
///
/// # Errors
///
/// Where no endpoint answers, with the error of each.
pub async fn read_once(settings: &EtcdSettings, node: &str, reading: Reading) -> Result<Snapshot, String> {
    let mut endpoints = settings.endpoints.iter();
    let mut asked = JoinSet::new();
    let mut errors = Vec::new();
    loop {
        if let Some(endpoint) = endpoints.next() {
            let (endpoint, settings) = (endpoint.clone(), settings.clone());
            let mut state = EtcdState::new(node, reading);
            asked.spawn(async move {
                Link::connect(&endpoint, &settings).await?.list(&mut state).await?;
                Ok::<_, Ended>(state.snapshot())
            });
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

/// Lists, watches and publishes until `stop`.
pub async fn run(
    settings: EtcdSettings,
    node: &str,
    reading: Reading,
    out: SourceSender,
    stop: CancellationToken,
) {
    let mut follower = Follower {
        state: EtcdState::new(node, reading),
        cluster: None,
        newest: None,
        opened: false,
        debounce: Debounce::default(),
        out,
    };
    // Nodes spread over the members of etcd.
    let count = u64::try_from(settings.endpoints.len()).unwrap_or(1).max(1);
    let mut turn = usize::try_from(random() % count).unwrap_or(0);
    let mut wait = BACKOFF.0;
    let mut errors: Vec<String> = Vec::new();
    // The last connection ended by a compaction, too: etcd compacts faster than we list.
    let mut overtaken = false;
    loop {
        let Some(endpoint) = settings.endpoints.get(turn % settings.endpoints.len().max(1)) else { return };
        let started = Instant::now();
        follower.opened = false;
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follower.follow(endpoint, &settings) => ended,
        };
        if follower.debounce.due().is_some() {
            follower.publish();
        }
        let lasted = started.elapsed();
        if follower.opened && lasted > TIMEOUT {
            wait = BACKOFF.0;
        }
        if let Ended::Compacted { .. } = ended {
            tracing::info!(reason = %ended, "listing the datastore again");
            follower.cluster = None;
            if !std::mem::replace(&mut overtaken, true) || lasted > BACKOFF.0 {
                continue;
            }
        } else {
            overtaken = false;
            turn = turn.wrapping_add(1);
            errors.push(ended.to_string());
            // The other endpoints are tried at once; that none answers is one piece of news.
            if !follower.opened && errors.len() < settings.endpoints.len() {
                continue;
            }
            errors.sort();
            follower.out.retrying(errors.join("; "));
            errors.clear();
        }
        let pause = jittered(wait, random());
        wait = longer(wait);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
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

/// A key and the revision at which it was created. An etcd that was rebuilt from nothing has the id of the cluster
/// before it; it is not likely to have created the same key at the same revision.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Created {
    key: Vec<u8>,
    revision: i64,
}

impl Created {
    fn of(kv: &KeyValue) -> Created {
        Created { key: kv.key().to_vec(), revision: kv.create_revision() }
    }
}

/// A connection to one endpoint.
struct Link {
    endpoint: String,
    client: Client,
    /// It has answered as etcd does.
    answered: bool,
}

impl Link {
    async fn connect(endpoint: &str, settings: &EtcdSettings) -> Result<Link, Ended> {
        let options = ConnectOptions::new()
            .with_connect_timeout(TIMEOUT)
            .with_keep_alive(settings.liveness.ask_after, settings.liveness.answer_within)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let connect =
            async |options| within(endpoint, "connecting", Client::connect([endpoint], Some(options))).await;
        let client = match &settings.user {
            None => connect(options).await?,
            Some((name, password)) => match connect(options.clone().with_user(name, password)).await {
                // Users may be set up before, or after, etcd is told to ask for them; Calico's client goes on as well.
                Err(Ended::Etcd { error: etcd_client::Error::GRpcStatus(status), .. })
                    if status.message().contains(NO_USERS) =>
                {
                    connect(options).await?
                }
                connected => connected?,
            },
        };
        Ok(Link { endpoint: endpoint.to_owned(), client, answered: false })
    }

    async fn ask<T>(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Ended> {
        let answer = within(&self.endpoint, what, work).await;
        let answer = if self.answered { answer } else { answer.map_err(strange) };
        self.answered |= answer.is_ok();
        answer
    }

    /// Lists all prefixes at the revision of the first answer; the cluster's id and the key that was created last.
    async fn list(&mut self, state: &mut EtcdState) -> Result<(u64, Option<Created>), Ended> {
        let mut kv = self.client.kv_client().max_decoding_message_size(MAX_MESSAGE);
        let (mut revision, mut cluster) = (0, 0);
        let mut found: Vec<KeyValue> = Vec::new();
        for (prefix, _) in state.seen() {
            let end = range_end(prefix.as_bytes());
            let mut from = prefix.as_bytes().to_vec();
            loop {
                let options = GetOptions::new()
                    .with_range(end.clone())
                    .with_limit(PAGE)
                    .with_revision(revision)
                    .with_sort(SortTarget::Key, SortOrder::Ascend);
                let answer = self.ask("listing", kv.get(from.clone(), Some(options))).await;
                let mut answer = answer.map_err(|ended| denied(compacted(ended, revision), prefix))?;
                if let Some(header) = answer.header()
                    && revision == 0
                {
                    (revision, cluster) = (header.revision(), header.cluster_id());
                }
                let more = answer.more();
                found.extend(answer.take_kvs());
                match found.last() {
                    Some(last) if more => {
                        from = last.key().to_vec();
                        from.push(0);
                    }
                    _ => break,
                }
            }
        }
        state.relist(found.iter().map(|kv| (kv.key(), kv.value(), kv.mod_revision())), revision);
        let newest = found.iter().max_by_key(|kv| kv.create_revision()).map(Created::of);
        Ok((cluster, newest))
    }

    /// The cluster's id and present revision, and whether `newest` is there as it was created.
    async fn position(&mut self, newest: &Created) -> Result<(u64, i64, bool), Ended> {
        let mut kv = self.client.kv_client();
        let options = GetOptions::new().with_keys_only();
        let get = kv.get(newest.key.as_slice(), Some(options));
        let answer = self.ask("the first answer", get).await?;
        let (cluster, revision) =
            answer.header().map_or((0, 0), |header| (header.cluster_id(), header.revision()));
        let there = answer.kvs().first().map(Created::of);
        Ok((cluster, revision, there.as_ref() == Some(newest)))
    }
}

async fn within<T>(
    endpoint: &str,
    what: &'static str,
    work: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Ended> {
    match timeout(TIMEOUT, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Ended::Etcd { endpoint: endpoint.to_owned(), error }),
        Err(_) => Err(Ended::Late { endpoint: endpoint.to_owned(), what }),
    }
}

/// A compaction between two pages looks like any other refusal but for its text.
fn compacted(ended: Ended, from: i64) -> Ended {
    match ended {
        Ended::Etcd { endpoint, error: etcd_client::Error::GRpcStatus(status) }
            if status.message().contains("required revision has been compacted") =>
        {
            Ended::Compacted { endpoint, from }
        }
        other => other,
    }
}

/// What came back is no HTTP/2, or the end of the connection: most likely, TLS is wanted there.
fn strange(ended: Ended) -> Ended {
    match ended {
        Ended::Etcd { endpoint, error } => {
            let why = reason(&error);
            if ["h2 protocol error", "transport error", "stream closed"].iter().any(|sign| why.contains(sign))
            {
                Ended::Strange { endpoint, error }
            } else {
                Ended::Etcd { endpoint, error }
            }
        }
        other => other,
    }
}

/// What was asked for, where our user may not read it.
fn denied(ended: Ended, prefix: &str) -> Ended {
    match ended {
        Ended::Etcd { endpoint, error: etcd_client::Error::GRpcStatus(status) }
            if status.message().contains("permission denied") =>
        {
            let error = etcd_client::Error::GRpcStatus(status);
            Ended::Denied { endpoint, error, prefix: prefix.to_owned() }
        }
        other => other,
    }
}

/// The first key after all those that begin with `prefix`.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // All keys.
    vec![0]
}

/// Follows etcd over many connections.
struct Follower {
    state: EtcdState,
    /// The cluster whose revisions the state has; `None` where it must be listed (again).
    cluster: Option<u64>,
    /// By what the history is known again: the key created last.
    newest: Option<Created>,
    /// This connection got as far as watching.
    opened: bool,
    debounce: Debounce,
    out: SourceSender,
}

impl Follower {
    fn publish(&mut self) {
        self.out.publish(self.state.snapshot());
        self.debounce.published(Instant::now());
    }

    /// Follows over one connection until it ends.
    async fn follow(&mut self, endpoint: &str, settings: &EtcdSettings) -> Ended {
        match self.follow_until_error(endpoint, settings).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn follow_until_error(
        &mut self,
        endpoint: &str,
        settings: &EtcdSettings,
    ) -> Result<Infallible, Ended> {
        let mut link = Link::connect(endpoint, settings).await?;
        // Another cluster's revisions mean nothing, nor do those of another history: a watch from a revision that is
        // still to come would wait in silence, and one that begins in the middle would never tell what is not there.
        let same = match &self.newest {
            // No other key may be asked for: our user may be let in where Calico's keys are, and nowhere else.
            None => false,
            Some(newest) => {
                let (cluster, revision, there) = link.position(newest).await?;
                self.cluster == Some(cluster) && self.state.revision() <= revision && there
            }
        };
        if !same {
            self.cluster = None;
            let (listed, newest) = link.list(&mut self.state).await?;
            (self.cluster, self.newest) = (Some(listed), newest);
            // Also where nothing changed: the first list of an empty datastore is news.
            self.publish();
        }
        self.watch(link, settings).await
    }

    async fn watch(&mut self, link: Link, settings: &EtcdSettings) -> Result<Infallible, Ended> {
        let Link { endpoint, client, .. } = link;
        let ended = |why: &str| Ended::Watch { endpoint: endpoint.clone(), why: why.to_owned() };
        let broken = |error| Ended::Etcd { endpoint: endpoint.clone(), error };
        let options = |from: i64| WatchOptions::new().with_prefix().with_start_revision(from + 1);
        let mut watches = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let mut prefixes = self.state.seen().iter();
        let Some((first, from)) = prefixes.next() else { return Err(ended("nothing to watch")) };
        let watch = watches.watch(first.clone(), Some(options(*from)));
        let mut stream = within(&endpoint, "starting the watch", watch).await?;
        for (prefix, from) in prefixes {
            stream.watch(prefix.clone(), Some(options(*from))).await.map_err(broken)?;
        }
        let mut unopened = self.state.seen().len();
        let mut heard = Instant::now();
        let mut asked = false;
        loop {
            let liveness = settings.liveness;
            let patience = liveness.ask_after + if asked { liveness.answer_within } else { Duration::ZERO };
            let silent_until = heard + patience;
            let due = self.debounce.due();
            let response = tokio::select! {
                response = stream.message() => response,
                () = tokio::time::sleep_until(due.unwrap_or(silent_until)), if due.is_some() => {
                    self.publish();
                    continue;
                }
                () = tokio::time::sleep_until(silent_until) => {
                    if asked {
                        return Err(ended("no sign of life"));
                    }
                    asked = true;
                    stream.request_progress().await.map_err(broken)?;
                    continue;
                }
            };
            let Some(response) = response.map_err(broken)? else { return Err(ended("closed by etcd")) };
            heard = Instant::now();
            asked = false;
            if response.canceled() {
                return Err(if response.compact_revision() > 0 {
                    Ended::Compacted { endpoint: endpoint.clone(), from: self.state.revision() }
                } else {
                    ended(response.cancel_reason())
                });
            }
            unopened = unopened.saturating_sub(usize::from(response.created()));
            let mut changed = false;
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                let value = match event.event_type() {
                    EventType::Put => {
                        if self.newest.as_ref().is_none_or(|known| known.revision < kv.create_revision()) {
                            self.newest = Some(Created::of(kv));
                        }
                        Some(kv.value())
                    }
                    EventType::Delete => None,
                };
                changed |= self.state.event(kv.key(), value, kv.mod_revision());
            }
            if unopened == 0 {
                self.opened = true;
                self.out.connected(Some(self.state.revision()));
            }
            if changed {
                self.debounce.changed(Instant::now());
                if self.debounce.due().is_some_and(|due| due <= Instant::now()) {
                    self.publish();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[u8] = b"/calico/resources/v3/projectcalico.org/nodes/a";

    fn state() -> EtcdState {
        EtcdState::new("a", Reading::default())
    }

    fn node(asn: u32) -> Vec<u8> {
        format!(r#"{{"kind":"Node","metadata":{{"name":"a"}},"spec":{{"bgp":{{"asNumber":{asn}}}}}}}"#)
            .into_bytes()
    }

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
    fn a_heartbeat_changes_nothing() {
        let mut state = state();
        assert!(state.event(NODE, Some(&node(1)), 5));
        let beat = br#"{"kind":"Node","metadata":{"name":"a","annotations":{"beat":"1"}},"spec":{"bgp":{"asNumber":1}}}"#;
        assert!(!state.event(NODE, Some(beat), 6));
        assert_eq!(state.revision(), 6, "and yet it is seen");
    }

    #[test]
    fn a_replayed_event_neither_goes_back_nor_brings_a_deleted_key_to_life() {
        let mut state = state();
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
        let mut state = state();
        state.event(NODE, Some(&node(1)), 50);
        state.relist([(NODE, node(2).as_slice(), 3)], 4);
        assert_eq!(state.snapshot().nodes["a"].asn, Some(bgp_proto::Asn(2)));
        assert_eq!(state.revision(), 4);
        state.relist([], 5);
        assert!(state.snapshot().nodes.is_empty());
    }

    #[test]
    fn an_empty_affinity_value_is_an_implicitly_confirmed_block() {
        let mut state = state();
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
    fn the_range_of_a_prefix_ends_behind_its_last_key() {
        assert_eq!(range_end(b"a/"), b"a0");
        assert_eq!(range_end(&[0x61, 0xff]), b"b");
        assert_eq!(range_end(&[0xff]), [0]);
    }

    proptest::proptest! {
        #[test]
        fn events_in_order_lead_where_a_list_starts_whatever_is_replayed(
            steps in proptest::collection::vec((0usize..4, proptest::option::of(1u32..5), 0usize..6), 1..40)
        ) {
            let keys: Vec<Vec<u8>> =
                ["a", "b", "c", "d"].iter().map(|name| [NODE, name.as_bytes()].concat()).collect();
            let (mut followed, mut truth) = (state(), BTreeMap::new());
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
            let mut listed = state();
            listed.relist(truth.iter().map(|(key, (value, at))| (keys[*key].as_slice(), value.as_slice(), *at)), 99);
            proptest::prop_assert_eq!(followed.snapshot(), listed.snapshot());
        }
    }
}
