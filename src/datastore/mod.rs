//! Where the resources come from: files or etcd, one [`Snapshot`](snapshot::Snapshot) from each.
pub mod model;
pub mod snapshot;
