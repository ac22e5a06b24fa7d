//! The Kubernetes API: each kind listed and watched by itself, over one connection (DS-30 to DS-43).
//!
//! Owns: [`run`], which follows every kind and tells the feed, and [`read_once`]. A translator and nothing more: lists
//! in pieces, watches with bookmarks, of each resource only the fields that our decoders look at; no copy of what was
//! seen is held here. Never: reads what a resource says, or decides what follows from it.

mod api;
mod endpoints;
mod follow;
mod items;
mod resource;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp_proto::Millis;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::api::Api;
use self::follow::KindFollower;
use self::resource::{Resource, resources};
use super::feed::{Events, NamedSecrets, QUEUE, SourceChange, SourceEvent};
use super::settings::KubernetesSettings;
use crate::model::decode::Reading;
use crate::model::snapshot::Snapshot;
use crate::model::store::{Remembered, Store, secrets_of};
use crate::model::{Code, Kind, NamespacedName, Problem};

/// So many refusals of one kind in a row end a single reading.
const REFUSALS: u32 = 6;

/// The kinds that are read.
pub fn kinds(use_pod_cidr: bool) -> Vec<Kind> {
    let all = resources(use_pod_cidr).into_iter().map(|resource| resource.kind);
    all.chain([Kind::Secret]).collect()
}

/// The kinds that only Kubernetes has, whichever datastore has the others (DS-6).
pub const BESIDE: [Kind; 3] = [Kind::Secret, Kind::Service, Kind::EndpointSlice];

/// What of the API server is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything: it is the datastore.
    Whole,
    /// What another datastore has not.
    Beside,
}

impl Scope {
    fn resources(self, reading: Reading) -> Vec<Resource> {
        let mut all = resources(reading.use_pod_cidr);
        all.retain(|resource| self == Scope::Whole || BESIDE.contains(&resource.kind));
        all
    }
}

/// Follows every kind of a scope, and the Secrets that are named, until `stop`.
pub async fn run(
    settings: KubernetesSettings,
    scope: Scope,
    node: &str,
    reading: Reading,
    named: Option<NamedSecrets>,
    events: Events,
    stop: CancellationToken,
) {
    let mut tasks = start(settings, scope, node, reading, named, events);
    tokio::select! {
        () = stop.cancelled() => {}
        // None of them ends but by a defect, or because nobody listens any more.
        ended = tasks.join_next() => {
            if let Some(Err(error)) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn start(
    settings: KubernetesSettings,
    scope: Scope,
    node: &str,
    reading: Reading,
    named: Option<NamedSecrets>,
    events: Events,
) -> JoinSet<()> {
    let api = Arc::new(Api::new(settings));
    let beside = scope == Scope::Beside;
    let mut tasks = JoinSet::new();
    for resource in scope.resources(reading) {
        let follower = KindFollower::new(api.clone(), resource, node, events.clone());
        tasks.spawn(follower.beside(beside).run());
    }
    if let Some(named) = named {
        tasks.spawn(secrets::run(api, beside, named, events));
    }
    tasks
}

/// Reads everything once.
///
/// # Errors
///
/// What the server says to one of the kinds, where nothing can be said without it.
pub async fn read_once(
    settings: &KubernetesSettings,
    node: &str,
    reading: Reading,
) -> Result<Snapshot, String> {
    read(settings, Scope::Whole, node, reading, None).await
}

/// Adds to a snapshot of another datastore what only Kubernetes has; that it cannot be read is a problem in it.
pub async fn read_beside(settings: &KubernetesSettings, node: &str, reading: Reading, into: &mut Snapshot) {
    let peers = into.peers.values().filter_map(|peer| peer.password.as_ref());
    let mesh = into.bgp_configurations.values().filter_map(|config| config.mesh_password.as_ref());
    let named = secrets_of(peers.chain(mesh), &settings.secret_namespace);
    match read(settings, Scope::Beside, node, reading, Some(named)).await {
        Ok(found) => {
            (into.secrets, into.services) = (found.secrets, found.services);
            into.endpoint_slices = found.endpoint_slices;
            into.problems.extend(found.problems);
        }
        Err(why) => into.problems.push(Problem::of_whole(Code::KindRefused, Kind::Service.name(), why)),
    }
    into.problems.sort();
}

async fn read(
    settings: &KubernetesSettings,
    scope: Scope,
    node: &str,
    reading: Reading,
    secrets: Option<BTreeSet<NamespacedName>>,
) -> Result<Snapshot, String> {
    let (events, mut inbox) = mpsc::channel(QUEUE);
    let (name, named) = watch::channel(secrets);
    // They end with us.
    let _tasks = start(settings.clone(), scope, node, reading, Some(named), events);
    let mut kinds = kinds(reading.use_pod_cidr);
    kinds.retain(|kind| scope == Scope::Whole || BESIDE.contains(kind));
    let mut store = Store::new(node, reading, &kinds, Remembered::default());
    let mut refusals: BTreeMap<Kind, u32> = BTreeMap::new();
    while let Some(event) = inbox.recv().await {
        match event {
            SourceEvent::Page(entries) => store.page(entries),
            SourceEvent::Listed { kinds, .. } => {
                store.listed(&kinds, Millis(0));
            }
            SourceEvent::Changed { changes, .. } => {
                for change in changes {
                    match change {
                        SourceChange::Put(entry) => store.put(entry),
                        SourceChange::Delete(key) => store.delete(&key),
                        SourceChange::Problems(problems) => store.set_problems(problems),
                    };
                }
            }
            SourceEvent::Refused { kind, why, optional } => {
                store.refused(kind, why.clone(), optional, Millis(0));
                if !optional {
                    return Err(format!("{} may not be read: {why}", kind.name()));
                }
            }
            SourceEvent::Abandoned(kind) => store.abandon(kind),
            // A refusal is believed, or not, when it has lasted.
            SourceEvent::Lost { kind, answered: true, why } => {
                store.abandon(kind);
                let times = refusals.entry(kind).or_insert(0);
                *times += 1;
                if *times > REFUSALS {
                    return Err(why);
                }
            }
            SourceEvent::Lost { why, .. } | SourceEvent::Unavailable(why) => return Err(why),
            SourceEvent::Connected { .. } | SourceEvent::Workloads { .. } | SourceEvent::SecretsAsked(_) => {}
        }
        if store.is_known() {
            return Ok(store.snapshot());
        }
        let wanted = store.secrets_named(&settings.secret_namespace);
        if wanted.is_some() {
            name.send_if_modified(|before| {
                let news = *before != wanted;
                *before = wanted;
                news
            });
        }
    }
    Err("the reading of the API server ended".to_owned())
}
