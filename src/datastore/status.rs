//! What the datastore's side shows: the last snapshot, and the state of its source.
//!
//! Owns: the two channels from the feed to those who compile and those who look. The last [`Snapshot`] wins. Never:
//! decides what is published.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::Kind;
use crate::model::snapshot::Snapshot;
use crate::model::store::KindState;

/// Whether the source reaches its datastore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// Not reached yet since the start.
    Connecting,
    /// Listed, and told of changes.
    Connected,
    /// Out of reach; tried again and again.
    Retrying,
}

impl SourceState {
    /// One word for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            SourceState::Connecting => "connecting",
            SourceState::Connected => "connected",
            SourceState::Retrying => "retrying",
        }
    }
}

/// What the source says of itself, and the feed of what it made of it.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceStatus {
    /// Present state.
    pub state: SourceState,
    /// Since when it is in that state.
    pub since: Instant,
    /// Everything was listed at least once, so that a snapshot of the datastore itself is published.
    pub in_sync: bool,
    /// The last error; it stays when the datastore is back.
    pub last_error: Option<String>,
    /// Failed attempts since the datastore was last reached.
    pub failures: u32,
    /// The datastore's revision up to which changes are in the snapshot (etcd).
    pub revision: Option<i64>,
    /// When a snapshot was last published.
    pub published: Option<Instant>,
    /// When the datastore last said anything: what is known is as old as that.
    pub heard: Option<Instant>,
    /// The state of each kind.
    pub kinds: Vec<(Kind, KindState)>,
    /// The datastore is locked: nothing changes meanwhile.
    pub frozen: bool,
    /// Mass losses that wait for confirmation: what, and until when.
    pub held: Vec<(String, Instant)>,
    /// What is in force was kept on disk by an earlier run, at that time.
    pub from_disk: Option<SystemTime>,
    /// When the last good state was last written to disk.
    pub kept: Option<Instant>,
    /// Why it cannot be kept, or could not be used.
    pub cache_error: Option<String>,
}

/// The feed's end of the channel.
#[derive(Debug)]
pub struct SourceSender {
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    status: watch::Sender<SourceStatus>,
}

/// The compiling task's end of the channel: `None` until everything is listed once.
#[derive(Clone, Debug)]
pub struct SourceReceiver {
    /// The last snapshot.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The source's state.
    pub status: watch::Receiver<SourceStatus>,
}

/// A channel between the feed and its readers.
pub fn channel() -> (SourceSender, SourceReceiver) {
    let (snapshots, snapshots_out) = watch::channel(None);
    let (status, status_out) = watch::channel(SourceStatus {
        state: SourceState::Connecting,
        since: Instant::now(),
        in_sync: false,
        last_error: None,
        failures: 0,
        revision: None,
        published: None,
        heard: None,
        kinds: Vec::new(),
        frozen: false,
        held: Vec::new(),
        from_disk: None,
        kept: None,
        cache_error: None,
    });
    (SourceSender { snapshots, status }, SourceReceiver { snapshots: snapshots_out, status: status_out })
}

impl SourceSender {
    /// Publishes what the datastore has; a snapshot that equals the last is swallowed (DYN-11). What is in force then.
    pub fn publish(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let mut in_force = None;
        let news = self.snapshots.send_if_modified(|held| match held {
            Some(held) if **held == snapshot => {
                in_force = Some(held.clone());
                false
            }
            _ => {
                let next = Arc::new(snapshot);
                in_force = Some(next.clone());
                *held = Some(next);
                true
            }
        });
        self.status.send_if_modified(|status| {
            let first = !status.in_sync || status.from_disk.is_some();
            status.in_sync = true;
            status.from_disk = None;
            if news {
                status.published = Some(Instant::now());
            }
            news || first
        });
        in_force.unwrap_or_default()
    }

    /// Publishes what an earlier run kept on disk, then.
    pub fn publish_kept(&self, snapshot: Arc<Snapshot>, written: SystemTime) {
        self.snapshots.send_replace(Some(snapshot));
        self.status.send_modify(|status| {
            status.from_disk = Some(written);
            status.published = Some(Instant::now());
        });
    }

    /// The datastore said something, up to `revision`.
    pub fn heard(&self, revision: Option<i64>) {
        self.status.send_if_modified(|status| {
            let news = status.revision != revision;
            status.revision = revision;
            status.heard = Some(Instant::now());
            news
        });
    }

    /// The datastore is reached, up to `revision`.
    pub fn connected(&self, revision: Option<i64>) {
        self.heard(revision);
        self.status.send_if_modified(|status| {
            let entered = status.state != SourceState::Connected;
            if entered {
                if status.state == SourceState::Retrying {
                    tracing::info!(after_failures = status.failures, "the datastore is in reach again");
                }
                status.state = SourceState::Connected;
                status.since = Instant::now();
                status.failures = 0;
            }
            entered
        });
    }

    /// The datastore is out of reach. Said aloud when that begins and when the reason changes.
    pub fn retrying(&self, error: String) {
        self.status.send_modify(|status| {
            if status.state != SourceState::Retrying || status.last_error.as_deref() != Some(&error) {
                tracing::warn!(%error, "the datastore is out of reach; sessions and routes stay, trying again");
            }
            if status.state != SourceState::Retrying {
                status.state = SourceState::Retrying;
                status.since = Instant::now();
            }
            status.failures = status.failures.saturating_add(1);
            status.last_error = Some(error);
        });
    }

    /// The state of each kind.
    pub fn kinds(&self, kinds: Vec<(Kind, KindState)>) {
        self.change(|status| &mut status.kinds, kinds);
    }

    /// Whether the datastore is locked.
    pub fn frozen(&self, frozen: bool) {
        self.change(|status| &mut status.frozen, frozen);
    }

    /// What waits for confirmation, and until when.
    pub fn held(&self, held: Vec<(String, Instant)>) {
        self.change(|status| &mut status.held, held);
    }

    /// The last good state is on disk.
    pub fn cache_written(&self) {
        self.status.send_modify(|status| {
            status.kept = Some(Instant::now());
            status.cache_error = None;
        });
    }

    /// It cannot be kept, or used. Whether that is news.
    pub fn cache_failed(&self, why: String) -> bool {
        self.change(|status| &mut status.cache_error, Some(why))
    }

    fn change<T: PartialEq>(&self, field: impl Fn(&mut SourceStatus) -> &mut T, value: T) -> bool {
        self.status.send_if_modified(|status| {
            let field = field(status);
            let news = *field != value;
            *field = value;
            news
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_snapshot_that_equals_the_last_is_not_published() {
        let (out, mut receiver) = channel();
        out.publish(Snapshot::default());
        assert!(receiver.snapshots.has_changed().unwrap(), "the first one is news even where it is empty");
        receiver.snapshots.mark_unchanged();
        out.publish(Snapshot::default());
        assert!(!receiver.snapshots.has_changed().unwrap());
    }

    #[tokio::test]
    async fn the_status_tells_since_when_and_why_the_datastore_is_out_of_reach() {
        let (out, receiver) = channel();
        let status = || receiver.status.borrow().clone();
        assert_eq!(status().state, SourceState::Connecting);
        out.connected(Some(7));
        let since = status().since;
        out.connected(Some(8));
        assert_eq!((status().since, status().revision), (since, Some(8)));
        out.retrying("refused".into());
        out.retrying("no route".into());
        let retrying = status();
        assert_eq!((retrying.state, retrying.failures), (SourceState::Retrying, 2));
        assert_eq!((retrying.last_error.as_deref(), retrying.revision), (Some("no route"), Some(8)));
        out.connected(Some(9));
        assert_eq!((status().state, status().failures), (SourceState::Connected, 0));
        assert_eq!(status().last_error.as_deref(), Some("no route"), "kept for those who ask later");
    }
}
