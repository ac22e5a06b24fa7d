//! BGPFilters that are deleted while BGPPeers name them.
//!
//! Owns: D4: what such a filter said last stays in force, with a problem, as long as a BGPPeer names it: to let all
//! routes pass where somebody wanted few of them is the worse mistake. Never: knows what a filter says.

use std::sync::Arc;

use crate::model::snapshot::{Shared, Snapshot};
use crate::model::{BgpFilter, Code, Problem};

/// BGPFilters by name.
pub type Filters = Shared<String, Arc<BgpFilter>>;

/// The snapshot with what it lacks of the filters that were in force `before` and that its BGPPeers name.
pub fn keep_filters(before: &Filters, snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
    let gone = |name: &&String| !snapshot.filters.contains_key(*name) && before.contains_key(*name);
    if snapshot.filters.is(before) || !before.keys().any(|name| !snapshot.filters.contains_key(name)) {
        return snapshot.clone();
    }
    let mut whole: Option<Snapshot> = None;
    for peer in snapshot.peers.values() {
        for name in peer.filters.iter().filter(gone) {
            let whole = whole.get_or_insert_with(|| (**snapshot).clone());
            let Some(filter) = before.get(name) else { continue };
            if whole.filters.insert(name.clone(), filter.clone()).is_none() {
                let why = format!(
                    "was deleted, and BGPPeer/{} names it: what it said last stays in force",
                    peer.name
                );
                whole.problems.push(Problem::of_whole(Code::KeptFilter, format!("BGPFilter/{name}"), why));
            }
        }
    }
    whole.map_or_else(|| snapshot.clone(), Arc::new)
}
