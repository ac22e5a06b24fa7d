//! The Secrets that are named, each watched by itself, and no others (DS-40).
//!
//! Owns: [`run`]: a follower for each name, started and ended as names come and go; what they say as one kind. A Secret
//! that may not be read counts as one that is not there, and is said: it costs the sessions that want its password, and
//! nothing else. Never: reads a Secret's content.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::api::SharedApi;
use super::follow::KindFollower;
use super::resource::secret;
use crate::datastore::feed::{Events, NamedSecrets, SourceChange, SourceEvent};
use crate::model::store::SourceEntry;
use crate::model::{Kind, NamespacedName, ResourceKey};

/// Words of followers that may wait.
const QUEUE: usize = 4;

/// What is known of one Secret.
#[derive(Default)]
struct Known {
    /// Ends its follower when it is dropped.
    _follower: JoinSet<()>,
    /// The list under way.
    listing: Option<SourceEntry>,
    /// What it is, before all have been told of together.
    first: Option<SourceEntry>,
    /// It is there.
    there: bool,
    /// It was asked for, and there was an answer.
    asked: bool,
    refused: Option<String>,
    lost: bool,
}

struct Secrets {
    api: SharedApi,
    /// They stand beside the datastore.
    beside: bool,
    events: Events,
    known: BTreeMap<NamespacedName, Known>,
    words: mpsc::Sender<(NamespacedName, SourceEvent)>,
    /// The kind as a whole was told of.
    listed: bool,
    said: BTreeSet<NamespacedName>,
}

/// Follows what is named, for ever.
pub async fn run(api: SharedApi, beside: bool, mut named: NamedSecrets, events: Events) {
    let (words, mut inbox) = mpsc::channel(QUEUE);
    let mut secrets =
        Secrets { api, beside, events, known: BTreeMap::new(), words, listed: false, said: BTreeSet::new() };
    loop {
        let wanted = named.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            secrets.want(wanted).await;
        }
        tokio::select! {
            changed = named.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some((name, word)) = inbox.recv() => secrets.take(name, word).await,
        }
    }
}

impl Secrets {
    async fn tell(&self, event: SourceEvent) {
        let _ = self.events.send(event).await;
    }

    async fn want(&mut self, wanted: BTreeSet<NamespacedName>) {
        let gone: Vec<NamespacedName> =
            self.known.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in gone {
            if self.known.remove(&name).is_some_and(|known| known.there) {
                self.change(SourceChange::Delete(key(&name))).await;
            }
        }
        for name in wanted {
            if !self.known.contains_key(&name) {
                let known = Known { _follower: self.follow(&name), ..Known::default() };
                self.known.insert(name, known);
            }
        }
        self.announce().await;
    }

    /// Starts a follower, with a name for its words.
    fn follow(&self, name: &NamespacedName) -> JoinSet<()> {
        let (events, mut inbox) = mpsc::channel(QUEUE);
        let what = secret(&name.namespace, &name.name);
        let follower = KindFollower::new(self.api.clone(), what, "", events).beside(self.beside);
        let (words, name) = (self.words.clone(), name.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run());
        tasks.spawn(async move {
            while let Some(word) = inbox.recv().await {
                if words.send((name.clone(), word)).await.is_err() {
                    return;
                }
            }
        });
        tasks
    }

    async fn change(&self, change: SourceChange) {
        let revision = self.api.heard("");
        self.tell(SourceEvent::Changed { changes: vec![change], resumed: false, revision }).await;
    }

    async fn take(&mut self, name: NamespacedName, word: SourceEvent) {
        let listed = self.listed;
        let Some(known) = self.known.get_mut(&name) else { return };
        match word {
            SourceEvent::Page(entries) => {
                known.listing = entries.into_iter().next_back().or(known.listing.take())
            }
            SourceEvent::Abandoned(_) => known.listing = None,
            SourceEvent::Listed { .. } => {
                (known.asked, known.refused, known.lost) = (true, None, false);
                let was = known.there;
                let entry = known.listing.take();
                known.there = entry.is_some();
                match (entry, listed) {
                    (entry, false) => known.first = entry,
                    (Some(entry), true) => self.change(SourceChange::Put(entry)).await,
                    (None, true) if was => self.change(SourceChange::Delete(key(&name))).await,
                    (None, true) => {}
                }
            }
            SourceEvent::Changed { changes, resumed, revision } => {
                known.there = matches!(changes.last(), Some(SourceChange::Put(_)));
                if listed {
                    self.tell(SourceEvent::Changed { changes, resumed, revision }).await;
                } else if let Some(SourceChange::Put(entry)) = changes.into_iter().next_back() {
                    known.first = Some(entry);
                } else {
                    known.first = None;
                }
            }
            SourceEvent::Refused { why, .. } => {
                (known.asked, known.listing) = (true, None);
                known.refused = Some(format!("{name}: {why}"));
            }
            SourceEvent::Connected { .. } => known.lost = false,
            SourceEvent::Lost { why, answered, .. } => {
                (known.lost, known.listing) = (true, None);
                self.tell(SourceEvent::Lost { kind: Kind::Secret, why, answered }).await;
            }
            SourceEvent::Unavailable(_) | SourceEvent::Workloads { .. } | SourceEvent::SecretsAsked(_) => {}
        }
        self.announce().await;
    }

    /// Tells what all of them are together, when that is known, and which have been asked for.
    async fn announce(&mut self) {
        let asked: BTreeSet<NamespacedName> =
            self.known.iter().filter(|(_, known)| known.asked).map(|(name, _)| name.clone()).collect();
        if !self.listed && asked.len() == self.known.len() {
            self.listed = true;
            let first = self.known.values_mut().filter_map(|known| known.first.take()).collect();
            self.tell(SourceEvent::Page(first)).await;
            let revision = self.api.heard("");
            self.tell(SourceEvent::Listed { kinds: vec![Kind::Secret], revision }).await;
        }
        if !self.listed {
            return;
        }
        let refused = self.known.values().find_map(|known| known.refused.clone());
        if let Some(why) = refused {
            self.tell(SourceEvent::Refused { kind: Kind::Secret, why, optional: true }).await;
        } else if self.known.values().all(|known| !known.lost) {
            let revision = self.api.heard("");
            self.tell(SourceEvent::Connected { kinds: vec![Kind::Secret], revision }).await;
        }
        if asked != self.said {
            self.said.clone_from(&asked);
            self.tell(SourceEvent::SecretsAsked(asked)).await;
        }
    }
}

fn key(name: &NamespacedName) -> ResourceKey {
    ResourceKey { kind: Kind::Secret, namespace: name.namespace.clone(), name: name.name.clone() }
}
