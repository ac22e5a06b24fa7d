//! Where the resources come from: files, etcd or the Kubernetes API, one [`Snapshot`] from each.
//!
//! Owns: which source runs. A source is a translator: it says what is there, what changed and whether it is reached
//! ([`feed::SourceEvent`]); the [`feed`] makes snapshots of that, alike for all. Never: decides what follows from a
//! resource.

pub mod cache;
mod debounce;
pub mod endpoint_status;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod feed;
pub mod files;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod settings;
mod status;
pub mod tls;

use futures::future::Either;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::endpoint_status::Follower;
use self::feed::{Feed, QUEUE};
use self::settings::{Backend, DatastoreSettings, EtcdSettings};
pub use self::status::{SourceReceiver, SourceSender, SourceState, SourceStatus, channel};
use crate::model::Kind;
use crate::model::decode::Reading;
use crate::model::snapshot::Snapshot;

/// Follows the datastore for the node of this name until `stop`; errors are retried for ever.
pub async fn run(settings: DatastoreSettings, node: &str, out: SourceSender, stop: CancellationToken) {
    let reading = Reading { use_pod_cidr: settings.use_pod_cidr };
    #[cfg(feature = "kube")]
    let beside: &[Kind] = match &settings.backend {
        Backend::Etcd(etcd) if etcd.kubernetes.is_some() => &kubernetes::BESIDE,
        _ => &[],
    };
    #[cfg(not(feature = "kube"))]
    let beside: &[Kind] = &[];
    let kinds = match &settings.backend {
        Backend::File { .. } => files::KINDS.to_vec(),
        Backend::Etcd(_) => {
            let kinds = crate::model::paths::kinds(reading.use_pod_cidr);
            kinds.into_iter().chain(beside.iter().copied()).collect()
        }
        #[cfg(feature = "kube")]
        Backend::Kubernetes(_) => kubernetes::kinds(reading.use_pod_cidr),
        #[cfg(not(feature = "kube"))]
        Backend::Kubernetes(_) => crate::model::paths::kinds(reading.use_pod_cidr),
    };
    let datastore = settings.backend.to_string();
    let (mut feed, remembered) = Feed::new(&settings.feed, node, datastore, reading, &kinds, out);
    let (events, inbox) = mpsc::channel(QUEUE);
    let felix = match settings.feed.endpoint_status {
        Some(folder) => {
            let mut follower = Follower::new(folder);
            // Before anything that the datastore says: what is compiled first knows the workloads.
            let _ = follower.look(&events).await;
            Either::Left(follower.run(events.clone(), stop.clone()))
        }
        None => Either::Right(std::future::ready(())),
    };
    let named = match &settings.backend {
        Backend::Kubernetes(kubernetes) => Some(feed.name_secrets(&kubernetes.secret_namespace)),
        Backend::Etcd(EtcdSettings { kubernetes: Some(kubernetes), .. }) if !beside.is_empty() => {
            Some(feed.name_secrets(&kubernetes.secret_namespace))
        }
        _ => None,
    };
    feed.set_beside(beside);
    let feed = feed.run(inbox, stop.clone());
    match settings.backend {
        Backend::File { path } => {
            tokio::join!(feed, felix, files::run(path, node, reading, remembered, events, stop));
        }
        #[cfg(feature = "etcd")]
        Backend::Etcd(etcd) => {
            #[cfg(feature = "kube")]
            let others = match etcd.kubernetes.clone() {
                Some(settings) => {
                    let (events, stop) = (events.clone(), stop.clone());
                    let scope = kubernetes::Scope::Beside;
                    Either::Left(kubernetes::run(settings, scope, node, reading, named, events, stop))
                }
                None => Either::Right(std::future::ready(())),
            };
            #[cfg(not(feature = "kube"))]
            let others = std::future::ready(drop(named));
            tokio::join!(feed, felix, others, etcd::run(etcd, node, reading, events, stop));
        }
        #[cfg(not(feature = "etcd"))]
        Backend::Etcd(_) => {
            let _ = (remembered, events.send(feed::SourceEvent::Unavailable(NO_ETCD.to_owned())).await);
            tokio::join!(feed, felix);
        }
        #[cfg(feature = "kube")]
        Backend::Kubernetes(kubernetes) => {
            let scope = kubernetes::Scope::Whole;
            let source = kubernetes::run(kubernetes, scope, node, reading, named, events, stop);
            tokio::join!(feed, felix, source);
        }
        #[cfg(not(feature = "kube"))]
        Backend::Kubernetes(_) => {
            let _ = (named, events.send(feed::SourceEvent::Unavailable(NO_KUBERNETES.to_owned())).await);
            tokio::join!(feed, felix);
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
    let read = match &settings.backend {
        Backend::File { path } => files::read_once(path, node, reading)
            .map_err(|error| format!("{} cannot be read: {error}", path.display())),
        #[cfg(feature = "etcd")]
        Backend::Etcd(etcd) => etcd::read_once(etcd, node, reading).await,
        #[cfg(not(feature = "etcd"))]
        Backend::Etcd(_) => Err(NO_ETCD.to_owned()),
        #[cfg(feature = "kube")]
        Backend::Kubernetes(kubernetes) => kubernetes::read_once(kubernetes, node, reading).await,
        #[cfg(not(feature = "kube"))]
        Backend::Kubernetes(_) => Err(NO_KUBERNETES.to_owned()),
    };
    let mut snapshot = read?;
    #[cfg(feature = "kube")]
    if let Backend::Etcd(EtcdSettings { kubernetes: Some(settings), .. }) = &settings.backend {
        kubernetes::read_beside(settings, node, reading, &mut snapshot).await;
    }
    if let Some(folder) = &settings.feed.endpoint_status {
        let (peers, problems) = endpoint_status::read_once(folder);
        snapshot.workload_peers = peers;
        snapshot.problems.extend(problems);
    }
    Ok(snapshot)
}

#[cfg(not(feature = "etcd"))]
const NO_ETCD: &str = "this program was built without etcd support";

#[cfg(not(feature = "kube"))]
const NO_KUBERNETES: &str = "this program was built without Kubernetes support";
