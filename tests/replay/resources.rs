//! resources.yaml to a snapshot, as the file datastore reads it.

use calico_bgpd::datastore::files::snapshot_of_texts;
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;

use super::case::{Case, text};

pub fn snapshot(case: &Case) -> Snapshot {
    let resources = text(&case.folder.join("resources.yaml"));
    snapshot_of_texts(&case.node, Reading::default(), &[("resources.yaml", &resources)])
}
