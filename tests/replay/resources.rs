//! resources.yaml to a snapshot, as the file datastore reads it.

use calico_bgpd::datastore::files::snapshot_of_texts;
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;

use super::case::Case;

pub fn snapshot(case: &Case) -> Snapshot {
    snapshot_of_texts(&case.node, Reading::default(), &[("resources.yaml", &case.resources)])
}
