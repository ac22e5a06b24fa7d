//! What the datastore says, as values: Calico's resources, how each is read, and the snapshot of all of them.
//!
//! Owns: the resource types and [`Problem`], the one decoder of each kind whatever source its text comes from, Calico's
//! default paths (etcd's keys; Typha uses the same), the store, the brake on mass changes and the
//! [`Snapshot`](snapshot::Snapshot). Never: reads a
//! file, speaks to a datastore, or decides what follows from a resource. Core.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod brake;
pub mod decode;
pub mod encode;
pub mod paths;
pub mod problem;
mod resources;
pub mod selector;
pub mod snapshot;
pub mod store;

pub use problem::{Code, Problem, Severity};
pub use resources::*;
pub use selector::Selector;
