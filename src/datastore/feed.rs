//! From what a source says to the snapshots that are compiled: one task for all sources.
//!
//! Owns: the store; the joining of changes; the freeze while the datastore is locked (O8); the brake on mass changes; the
//! cache on disk, and the start with it where the datastore is out of reach; what status says of all that. Nothing is
//! published before each kind has been known in full once: unknown is not empty. Never: speaks to a datastore, or
//! decides what follows from a resource.

use std::collections::BTreeSet;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bgp_proto::Millis;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::SourceSender;
use super::cache::{Cache, CacheSettings, Kept};
use super::debounce::Debounce;
use crate::clock::Clock;
use crate::model::brake::Brake;
use crate::model::decode::Reading;
use crate::model::snapshot::{Snapshot, Workloads};
use crate::model::store::{Remembered, SourceEntry, Store, secrets_of};
use crate::model::{Kind, NamespacedName, Problem, ResourceKey};

/// Messages of a source that may wait.
pub const QUEUE: usize = 16;
/// How long the datastore is waited for at start before what was kept of it is used.
const START_WITHOUT: Duration = Duration::from_secs(3);
/// The cache is written this often at most.
const CACHE_EVERY: Duration = Duration::from_secs(5);
/// How long the first word of a Secret that is newly named is waited for: until then nobody knows whether it is there.
const SECRET_WITHIN: Duration = Duration::from_secs(5);
/// Larger pages are read beside the threads that carry sessions.
const LARGE: usize = 64;

/// How the feed works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedSettings {
    /// How long a mass loss must last before it is believed; nothing switches the brake off.
    pub confirm_losses: Duration,
    /// Where the last good state is kept, if anywhere.
    pub cache: Option<CacheSettings>,
    /// The folder of Felix's files about local workloads, if they are followed (PEER-30).
    pub endpoint_status: Option<PathBuf>,
}

impl Default for FeedSettings {
    /// 30 s, no cache, and no files of Felix.
    fn default() -> Self {
        FeedSettings { confirm_losses: Duration::from_secs(30), cache: None, endpoint_status: None }
    }
}

/// One change of one resource.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceChange {
    /// It is there, or is another one now.
    Put(SourceEntry),
    /// It is gone.
    Delete(ResourceKey),
    /// What is wrong with things that are no resources, in place of what was.
    Problems(Vec<Problem>),
}

impl SourceChange {
    /// Of which kind.
    fn kind(&self) -> Option<Kind> {
        match self {
            SourceChange::Put(entry) => Some(entry.key().kind),
            SourceChange::Delete(key) => Some(key.kind),
            SourceChange::Problems(_) => None,
        }
    }
}

/// What a source says.
#[derive(Debug)]
pub enum SourceEvent {
    /// A part of a list; it counts when the list is complete.
    Page(Vec<SourceEntry>),
    /// The lists of these kinds are complete; all of the kind is what the pages said.
    Listed {
        /// Which.
        kinds: Vec<Kind>,
        /// The datastore's revision of it.
        revision: Option<i64>,
    },
    /// Changes that belong together, as those of one transaction.
    Changed {
        /// In order.
        changes: Vec<SourceChange>,
        /// They were missed for a while, and are told now that the watch has been resumed.
        resumed: bool,
        /// The datastore's revision after them.
        revision: Option<i64>,
    },
    /// The datastore answers and tells changes of these kinds; all up to this revision have been said.
    Connected {
        /// Which.
        kinds: Vec<Kind>,
        /// Up to where.
        revision: Option<i64>,
    },
    /// It is out of reach, and tried again.
    Unavailable(String),
    /// The list of this kind under way is worth nothing; it begins again.
    Abandoned(Kind),
    /// Changes of this kind are not told at present, whatever is the case with others; it is tried again.
    Lost {
        /// Which.
        kind: Kind,
        /// Why.
        why: String,
        /// The datastore answers, only not as it should.
        answered: bool,
    },
    /// These Secrets were asked for and have been told of, if they are there (DS-40).
    SecretsAsked(BTreeSet<NamespacedName>),
    /// What Felix's files say of this node's workloads, and what of them cannot be read (PEER-30).
    Workloads {
        /// Those that are peers.
        peers: Workloads,
        /// What cannot be read.
        problems: Vec<Problem>,
    },
    /// A kind may not be read.
    Refused {
        /// Which.
        kind: Kind,
        /// In its words.
        why: String,
        /// What it would say can be done without: nothing waits for it.
        optional: bool,
    },
}

/// Where a source says it.
pub type Events = mpsc::Sender<SourceEvent>;

/// The state of the task.
pub struct Feed {
    store: Store,
    brake: Brake,
    debounce: Debounce,
    clock: Clock,
    started: Instant,
    out: SourceSender,
    /// What is in force.
    published: Option<Arc<Snapshot>>,
    /// What an earlier run left; until the datastore has said all it has.
    kept: Option<Kept>,
    /// Changes since the last publication were missed for a while, or listed.
    relisted: bool,
    locked: bool,
    secrets: Option<Secrets>,
    /// Kinds that come from elsewhere than the datastore.
    beside: Vec<Kind>,
    cache: Option<CacheWriter>,
}

/// Which Secrets are to be read; `None` before the resources are known that name them.
pub type NamedSecrets = watch::Receiver<Option<BTreeSet<NamespacedName>>>;

/// The Secrets that are named, for a source that reads only those.
struct Secrets {
    namespace: String,
    named: watch::Sender<Option<BTreeSet<NamespacedName>>>,
    asked: BTreeSet<NamespacedName>,
    /// Until when what is named and not asked for yet is waited for.
    wait_until: Option<Instant>,
}

/// Writes the cache now and then, one write at a time.
struct CacheWriter {
    cache: Arc<Cache>,
    wanted: Option<Arc<Snapshot>>,
    not_before: Instant,
    writing: Option<JoinHandle<Result<(), String>>>,
}

impl Feed {
    /// Nothing is known yet but what the cache has.
    pub fn new(
        settings: &FeedSettings,
        node: &str,
        datastore: String,
        reading: Reading,
        kinds: &[Kind],
        out: SourceSender,
    ) -> (Feed, Remembered) {
        let cache = settings.cache.clone().map(|cache| Cache::new(cache, node, datastore, reading));
        let mut kept = None;
        if let Some(cache) = &cache {
            match cache.read() {
                Ok(found) => kept = found,
                Err(why) => {
                    warn!(path = %cache.path().display(), "the last good state of the datastore cannot be used: {why}");
                    out.cache_failed(format!("{}: {why}", cache.path().display()));
                }
            }
        }
        let remembered = kept.as_mut().map(|kept| std::mem::take(&mut kept.resources)).unwrap_or_default();
        let remembered: Remembered = Arc::new(remembered);
        let started = Instant::now();
        let window = u64::try_from(settings.confirm_losses.as_millis()).unwrap_or(u64::MAX / 2);
        let feed = Feed {
            store: Store::new(node, reading, kinds, remembered.clone()),
            brake: Brake::new(node, Millis(window)),
            debounce: Debounce::default(),
            clock: Clock::start(),
            started,
            out,
            published: None,
            kept,
            relisted: false,
            locked: false,
            secrets: None,
            beside: Vec::new(),
            cache: cache.map(|cache| CacheWriter {
                cache: Arc::new(cache),
                wanted: None,
                not_before: started,
                writing: None,
            }),
        };
        (feed, remembered)
    }

    /// Says which Secrets of a namespace are named, to a source that reads no others (DS-40).
    pub fn name_secrets(&mut self, namespace: &str) -> NamedSecrets {
        let (named, receiver) = watch::channel(None);
        self.secrets = Some(Secrets {
            namespace: namespace.to_owned(),
            named,
            asked: BTreeSet::new(),
            wait_until: None,
        });
        receiver
    }

    /// These kinds come from elsewhere than the datastore: what is said of them says nothing of its state (DS-6).
    pub fn set_beside(&mut self, kinds: &[Kind]) {
        self.beside = kinds.to_vec();
    }

    fn is_beside(&self, kind: Kind) -> bool {
        self.beside.contains(&kind)
    }

    /// What is named by what is known now, and by what is in force: that may stand on a resource that is about to be
    /// believed gone.
    fn secrets_changed(&mut self) {
        let Some(secrets) = &mut self.secrets else { return };
        let Some(mut named) = self.store.secrets_named(&secrets.namespace) else { return };
        if let Some(published) = &self.published {
            let peers = published.peers.values().filter_map(|peer| peer.password.as_ref());
            let mesh =
                published.bgp_configurations.values().filter_map(|config| config.mesh_password.as_ref());
            named.extend(secrets_of(peers.chain(mesh), &secrets.namespace));
        }
        secrets.wait_until = match named.is_subset(&secrets.asked) {
            true => None,
            false => secrets.wait_until.or_else(|| Some(Instant::now() + SECRET_WITHIN)),
        };
        secrets.named.send_if_modified(|before| {
            let news = before.as_ref() != Some(&named);
            *before = Some(named);
            news
        });
    }

    /// Until when nothing is published, for want of a Secret's first word.
    fn waits_until(&self) -> Option<Instant> {
        self.secrets.as_ref().and_then(|secrets| secrets.wait_until)
    }

    /// Takes what the source says until `stop`.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<SourceEvent>, stop: CancellationToken) {
        loop {
            self.act();
            let due = self.due();
            tokio::select! {
                () = stop.cancelled() => break,
                event = inbox.recv() => match event {
                    Some(event) => self.take(event).await,
                    // The source has ended for good; what is in force stays.
                    None => {
                        stop.cancelled().await;
                        break;
                    }
                },
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
                written = written(self.cache.as_mut()) => self.cache_was_written(written),
            }
        }
        self.write_last().await;
    }

    async fn take(&mut self, event: SourceEvent) {
        let now = self.clock.now();
        let changed = match event {
            SourceEvent::Page(entries) => {
                self.page(entries).await;
                false
            }
            SourceEvent::Listed { kinds, revision } => {
                let changed = self.store.listed(&kinds, now);
                self.relisted |= changed;
                if !kinds.iter().all(|kind| self.is_beside(*kind)) {
                    self.out.heard(revision);
                }
                changed
            }
            SourceEvent::Changed { changes, resumed, revision } => {
                let mut changed = false;
                let beside = |change: &SourceChange| change.kind().is_some_and(|kind| self.is_beside(kind));
                let beside = !self.beside.is_empty() && changes.iter().all(beside);
                for change in changes {
                    changed |= match change {
                        SourceChange::Put(entry) => self.store.put(entry),
                        SourceChange::Delete(key) => self.store.delete(&key),
                        SourceChange::Problems(problems) => self.store.set_problems(problems),
                    };
                }
                self.relisted |= changed && resumed;
                if !beside {
                    self.out.heard(revision);
                }
                changed
            }
            SourceEvent::Connected { kinds, revision } => {
                let news = self.store.resumed(&kinds, now);
                if !kinds.iter().all(|kind| self.is_beside(*kind)) {
                    self.out.connected(revision);
                }
                news
            }
            SourceEvent::Abandoned(kind) => {
                self.store.abandon(kind);
                false
            }
            SourceEvent::Lost { kind, why, .. } => {
                if !self.store.lost(kind, now) && !self.is_beside(kind) {
                    self.out.retrying(why);
                    self.start_without();
                }
                false
            }
            SourceEvent::SecretsAsked(asked) => {
                if let Some(secrets) = &mut self.secrets {
                    secrets.asked = asked;
                }
                self.secrets_changed();
                false
            }
            SourceEvent::Unavailable(why) => {
                self.store.stale(&self.beside, now);
                self.out.retrying(why);
                self.start_without();
                false
            }
            SourceEvent::Workloads { peers, problems } => {
                let changed = self.store.set_workloads(peers, problems);
                if changed && !self.store.is_known() && self.published.take().is_some() {
                    self.start_without();
                }
                changed
            }
            SourceEvent::Refused { kind, why, optional } => {
                let news = self.store.refused(kind, why.clone(), optional, now);
                if news {
                    error!(
                        kind = kind.name(),
                        "the datastore does not let it be read; what was known stays: {why}"
                    );
                }
                news
            }
        };
        if changed {
            self.debounce.changed(Instant::now());
            self.secrets_changed();
        }
        self.out.kinds(self.store.states().map(|(kind, state)| (kind, state.clone())).collect());
    }

    /// Thousands of documents take their time.
    async fn page(&mut self, entries: Vec<SourceEntry>) {
        if entries.len() < LARGE {
            self.store.page(entries);
            return;
        }
        let none = Store::new("", Reading::default(), &[], Remembered::default());
        let mut store = std::mem::replace(&mut self.store, none);
        let read = tokio::task::spawn_blocking(move || {
            store.page(entries);
            store
        });
        match read.await {
            Ok(store) => self.store = store,
            // A defect, and the store is gone: the task ends as if it had happened here.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// When there is something to do without any word of the source.
    fn due(&self) -> Option<Instant> {
        let brake = self.brake.deadline().map(|at| self.clock.instant(at));
        let without = (self.published.is_none() && self.kept.is_some()).then(|| self.started + START_WITHOUT);
        let cache = self.cache.as_ref().and_then(|cache| {
            (cache.wanted.is_some() && cache.writing.is_none()).then_some(cache.not_before)
        });
        let changes = self.debounce.due().filter(|_| self.store.is_known());
        let changes = changes.map(|due| self.waits_until().map_or(due, |until| due.max(until)));
        [brake, without, cache, changes].into_iter().flatten().min()
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Instant::now();
        let waits = self.waits_until().is_some_and(|until| until > now);
        let changes = self.debounce.due().is_some_and(|due| due <= now) && self.store.is_known() && !waits;
        let confirmed = self.brake.deadline().is_some_and(|due| due <= self.clock.now());
        if changes || confirmed {
            self.publish();
        }
        if self.published.is_none() && now >= self.started + START_WITHOUT {
            self.start_without();
        }
        if let Some(cache) = &mut self.cache {
            cache.start(now);
        }
    }

    /// The datastore has said nothing of use: the last good state of an earlier run is better than none.
    fn start_without(&mut self) {
        if self.published.is_some() {
            return;
        }
        let Some(kept) = &self.kept else { return };
        let age = SystemTime::now().duration_since(kept.written).unwrap_or_default();
        warn!(
            age_seconds = age.as_secs(),
            "the datastore has not been read yet; sessions and routes begin with its last good state, kept on disk"
        );
        let mut snapshot = kept.snapshot.clone();
        snapshot.workload_peers = self.store.workloads();
        let snapshot = Arc::new(snapshot);
        self.out.publish_kept(snapshot.clone(), kept.written);
        self.published = Some(snapshot);
    }

    fn publish(&mut self) {
        self.debounce.published(Instant::now());
        let there = self.store.snapshot();
        let was_locked = std::mem::replace(&mut self.locked, there.is_locked());
        if self.locked {
            // What is read while the datastore is moved to another one may lack anything (O8).
            self.start_without();
            self.relisted = true;
            if self.published.is_some() {
                if !was_locked {
                    warn!(
                        "the datastore is locked (ClusterInformation/default: spec.datastoreReady): nothing changes meanwhile"
                    );
                }
                self.out.frozen(true);
                return;
            }
        } else if was_locked {
            info!("the datastore is no longer locked");
        }
        self.out.frozen(self.locked);
        let kept = self.kept.take();
        let relisted = std::mem::take(&mut self.relisted);
        let before = match (&self.published, &kept) {
            (Some(published), _) => published.clone(),
            // What an earlier run had in force counts as well: routes of it are still in the kernel.
            (None, Some(kept)) => Arc::new(kept.snapshot.clone()),
            (None, None) => Arc::default(),
        };
        let (next, waits) = self.brake.pass(&before, &there, relisted, self.clock.now());
        if let Some(what) = waits {
            error!("the datastore lost {what} at once: what stood on that stays until the loss is confirmed");
        }
        let holds = self.brake.holds().iter();
        self.out.held(holds.map(|hold| (hold.what.clone(), self.clock.instant(hold.until))).collect());
        let next = self.out.publish(next);
        if let Some(cache) = &mut self.cache
            && !self.locked
            && !self.published.as_ref().is_some_and(|before| Arc::ptr_eq(before, &next))
        {
            cache.wanted = Some(next.clone());
        }
        self.published = Some(next);
        self.secrets_changed();
    }

    fn cache_was_written(&mut self, written: Result<(), String>) {
        let Some(cache) = &mut self.cache else { return };
        cache.writing = None;
        cache.not_before = Instant::now() + CACHE_EVERY;
        match written {
            Ok(()) => self.out.cache_written(),
            Err(why) => {
                let why = format!("{}: {why}", cache.cache.path().display());
                if self.out.cache_failed(why.clone()) {
                    warn!("the last good state of the datastore cannot be kept over a restart: {why}");
                }
            }
        }
    }

    /// What is not on disk yet gets there before the end.
    async fn write_last(mut self) {
        if let Some(written) = self.cache.as_mut().and_then(|cache| cache.writing.take()) {
            let _ = written.await;
        }
        if let Some(cache) = &mut self.cache {
            cache.not_before = Instant::now();
            cache.start(Instant::now());
            if let Some(written) = cache.writing.take() {
                let _ = written.await;
            }
        }
    }
}

impl CacheWriter {
    fn start(&mut self, now: Instant) {
        if self.writing.is_some() || self.not_before > now {
            return;
        }
        let Some(snapshot) = self.wanted.take() else { return };
        let cache = self.cache.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            cache.write(&snapshot).map_err(|error| error.to_string())
        }));
    }
}

/// Ends when the write under way does.
async fn written(cache: Option<&mut CacheWriter>) -> Result<(), String> {
    match cache.and_then(|cache| cache.writing.as_mut()) {
        Some(writing) => writing.await.unwrap_or_else(|error| Err(error.to_string())),
        None => pending().await,
    }
}
