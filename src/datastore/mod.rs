//! Where the resources come from: files or etcd, one [`Snapshot`] from each.
//!
//! Owns: the channel between a source and the task that compiles: the last [`Snapshot`] wins, and nothing is published
//! before everything is listed once. A source that loses its datastore keeps the last snapshot (O1) and says so in its
//! [`SourceStatus`]. Never: decides what follows from a resource.

#[cfg(feature = "etcd")]
mod debounce;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod files;
pub mod settings;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::settings::{Backend, DatastoreSettings};
use crate::model::decode::Reading;
use crate::model::snapshot::Snapshot;

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

/// What the source says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceStatus {
    /// Present state.
    pub state: SourceState,
    /// Since when it is in that state.
    pub since: Instant,
    /// Everything was listed at least once, so that a snapshot is published.
    pub in_sync: bool,
    /// The last error; it stays when the datastore is back.
    pub last_error: Option<String>,
    /// Failed attempts since the datastore was last reached.
    pub failures: u32,
    /// The datastore's revision up to which changes are in the snapshot (etcd).
    pub revision: Option<i64>,
    /// When a snapshot was last published.
    pub published: Option<Instant>,
}

/// The source's end of the channel.
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

/// A channel between a source and its reader.
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
    });
    (SourceSender { snapshots, status }, SourceReceiver { snapshots: snapshots_out, status: status_out })
}

impl SourceSender {
    /// Publishes a snapshot; one that equals the last is swallowed (DYN-11).
    pub fn publish(&self, snapshot: Snapshot) {
        let news = self.snapshots.send_if_modified(|held| {
            let news = held.as_deref() != Some(&snapshot);
            if news {
                *held = Some(Arc::new(snapshot));
            }
            news
        });
        if news {
            self.status.send_modify(|status| {
                status.in_sync = true;
                status.published = Some(Instant::now());
            });
        }
    }

    /// The datastore is reached, up to `revision`.
    pub fn connected(&self, revision: Option<i64>) {
        self.status.send_if_modified(|status| {
            let entered = status.state != SourceState::Connected;
            let news = entered || status.revision != revision;
            if entered {
                if status.state == SourceState::Retrying {
                    tracing::info!(after_failures = status.failures, "the datastore is in reach again");
                }
                status.state = SourceState::Connected;
                status.since = Instant::now();
                status.failures = 0;
            }
            status.revision = revision;
            news
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
}

/// Follows the datastore for the node of this name until `stop`; errors are retried for ever.
pub async fn run(settings: DatastoreSettings, node: &str, out: SourceSender, stop: CancellationToken) {
    let reading = Reading { use_pod_cidr: settings.use_pod_cidr };
    match settings.backend {
        Backend::File { path } => files::run(path, node, reading, out, stop).await,
        #[cfg(feature = "etcd")]
        Backend::Etcd(etcd) => etcd::run(etcd, node, reading, out, stop).await,
        #[cfg(not(feature = "etcd"))]
        Backend::Etcd(_) => {
            out.retrying(NO_ETCD.to_owned());
            stop.cancelled().await;
        }
    }
}

/// Reads the datastore once, for the node of this name.
///
/// # Errors
///
/// One line that says what cannot be reached or read.
pub async fn read_once(settings: &DatastoreSettings, node: &str) -> Result<Snapshot, String> {
    let reading = Reading { use_pod_cidr: settings.use_pod_cidr };
    match &settings.backend {
        Backend::File { path } => files::read_once(path, node, reading)
            .map_err(|error| format!("{} cannot be read: {error}", path.display())),
        #[cfg(feature = "etcd")]
        Backend::Etcd(etcd) => etcd::read_once(etcd, node, reading).await,
        #[cfg(not(feature = "etcd"))]
        Backend::Etcd(_) => Err(NO_ETCD.to_owned()),
    }
}

#[cfg(not(feature = "etcd"))]
const NO_ETCD: &str = "this program was built without etcd support";

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
