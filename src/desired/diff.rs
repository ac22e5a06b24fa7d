//! What has to be done to come from one desired state to the next.
//!
//! Owns: [`diff`] and [`Plan`]. The class of a field is decided by where it is declared: `transport` and `open` mean a
//! new session, `next` waits for the next connection, `treatment` takes effect at once and resets nothing (BGP-37).
//! Never: does any of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::Afi;

use super::{Auth, DesiredState, Listen, Peer, SessionKey};

/// The differences between two desired states, each with its consequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Sessions that differ.
    pub peers: BTreeMap<SessionKey, PeerChange>,
    /// Listening sockets that differ: the new one, or `None` where the family is no longer listened on.
    pub listen: BTreeMap<Afi, Option<Listen>>,
    /// Own routes, kernel rules or the node itself differ: the speaker has to look.
    pub tables: bool,
}

impl Plan {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }
}

/// What becomes of one session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerChange {
    /// It is new.
    Added,
    /// It is no longer wanted.
    Removed,
    /// Where or who the peer is differs, or the session becomes signed or unsigned: a new session takes its place.
    Replaced,
    /// The session stays.
    Updated {
        /// Parameters of the next connection differ.
        next: bool,
        /// The TCP MD5 key differs; it is set on the live socket.
        key: bool,
        /// Import, export or another treatment of routes differs.
        treatment: bool,
        /// Its name, class or resource differs: what people are shown.
        shown: bool,
    },
}

/// Compares two states; `old` is `None` at the start.
pub fn diff(old: Option<&DesiredState>, new: &DesiredState) -> Plan {
    let no_peers = BTreeMap::new();
    let no_listen = BTreeMap::new();
    let old_peers = old.map_or(&no_peers, |old| &old.peers);
    let old_listen = old.map_or(&no_listen, |old| &old.listen);
    let kept = new.peers.iter().filter_map(|(key, peer)| {
        let change = match old_peers.get(key) {
            None => Some(PeerChange::Added),
            Some(before) if Arc::ptr_eq(before, peer) => None,
            Some(before) => compare(before, peer),
        };
        Some((key.clone(), change?))
    });
    let gone = old_peers.keys().filter(|key| !new.peers.contains_key(*key));
    let peers = kept.chain(gone.map(|key| (key.clone(), PeerChange::Removed))).collect();
    let listen = Afi::ALL.into_iter().filter(|afi| old_listen.get(afi) != new.listen.get(afi));
    let listen = listen.map(|afi| (afi, new.listen.get(&afi).copied())).collect();
    let tables = old.is_none_or(|old| (&old.node, &old.v4, &old.v6) != (&new.node, &new.v4, &new.v6));
    Plan { peers, listen, tables }
}

/// What becomes of a session that is in both states; `None` where nothing does.
fn compare(old: &Peer, new: &Peer) -> Option<PeerChange> {
    let signed = |peer: &Peer| matches!(peer.auth, Auth::Key { .. });
    let (before, after) = (&old.spec, &new.spec);
    if before.transport != after.transport || before.open != after.open || signed(old) != signed(new) {
        return Some(PeerChange::Replaced);
    }
    let next = before.next != after.next;
    let key = old.auth != new.auth;
    let treatment = old.treatment != new.treatment;
    let shown = (&old.name, old.class, &old.resource) != (&new.name, new.class, &new.resource);
    (next || key || treatment || shown).then_some(PeerChange::Updated { next, key, treatment, shown })
}
