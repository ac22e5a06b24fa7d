//! calico-bgpd: one daemon in the place of bird, bird6 and confd on the nodes of a Calico cluster.
//!
//! Data flows one way: datastore → snapshot → desired state → plan → sessions, table, kernel. Only observations flow
//! back. `model`, `desired`, `policy`, `speaker` and `fib::plan` are cores: no clocks, no I/O, no tokio.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`settings`] | flags, environment, defaults |
//! | [`app`], [`runtime`], [`clock`], [`random`] | every long-lived task; start and stop; threads; time; chance |
//! | [`datastore`] | resources from files, etcd or the Kubernetes API, as snapshots |
//! | [`model`] | resources, their decoders, the store, snapshots |
//! | [`desired`], [`policy`] | what this node shall do, compiled and compared |
//! | [`evaluate`] | what becomes of a route by these rules, for people |
//! | [`configure`] | snapshots to the state in force |
//! | [`roster`] | a task, a handle and a place at the listener for each peer |
//! | [`net`] | listener, dials, one task for each peer |
//! | [`core_thread`], [`speaker`] | the table, on a thread of its own |
//! | [`fib`] | the kernel's routes: as heard, as wanted, and what makes one the other |
//! | [`last_release`], [`restart_marker`] | the cluster's release and the graceful sessions, kept over restarts |
//! | [`shadow`] | what would be other in the place of the BIRD that runs here |
//! | [`control`], [`telemetry`] | what people and programs can ask, and the log |
//! | `capture` | BGP messages of captures and dumps as JSON; needs none of the above |

// Denied again in the modules that are cores.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod app;
#[cfg(feature = "capture")]
pub mod capture;
pub mod cli;
pub mod clock;
pub mod configure;
pub mod control;
pub mod core_thread;
pub mod datastore;
pub mod desired;
pub mod evaluate;
pub mod fib;
pub mod last_release;
pub mod model;
pub mod net;
pub mod policy;
pub mod random;
pub mod restart_marker;
pub mod roster;
pub mod runtime;
pub mod settings;
pub mod shadow;
pub mod speaker;
pub mod succession;
pub mod telemetry;
