//! resources.yaml to a snapshot, as the file datastore reads it.

use std::sync::Arc;

use calico_bgpd::datastore::files::snapshot_of_texts;
use calico_bgpd::model::decode::{Reading, endpoint_status};
use calico_bgpd::model::snapshot::Snapshot;

use super::case::Case;

pub fn snapshot(case: &Case) -> Snapshot {
    let mut snapshot =
        snapshot_of_texts(&case.node, Reading::default(), &[("resources.yaml", &case.resources)]);
    for (file, status) in &case.endpoint_status {
        if let Some(peer) = endpoint_status(&status.to_string()).unwrap() {
            snapshot.workload_peers.insert(file.clone(), Arc::new(peer));
        }
    }
    snapshot
}
