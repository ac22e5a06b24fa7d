//! `bird.ctl` and `bird6.ctl`: BIRD 1.6's control protocol, so that `birdc`, `birdcl`, exporters and Calico's own
//! programs go on working when BIRD is gone (CTL-1 to CTL-35).
//!
//! Owns: the two sockets, the grammar of what is asked, and the text of every answer. Answers are made of the views
//! that tasks publish, so they come while the table is busy; only listings of routes and counts look at the
//! table, a page at a time. Never: changes what the node shall do, which comes from the datastore alone: commands that
//! would (`disable`, `restart`) are refused in words.
//!
//! | module | owns |
//! |---|---|
//! | [`command`] | what is asked (CTL-7, CTL-9) |
//! | [`reply`] | reply codes and line form (CTL-5) |
//! | [`wall`] | times of day (CTL-13, CTL-17) |
//! | [`protocols`] | `show protocols [all]`: rows and their text (CTL-16 to CTL-23) |
//! | [`sessions`] | what of a session stands in such a row |
//! | [`routes`] | `show route`: rows, attributes (CTL-24, CTL-25, CTL-33) |
//! | [`listing`] | which routes are listed, in pages (CTL-26) |
//! | [`node`] | `show status`, `show interfaces`, `show symbols`, `show memory` |
//! | [`server`] | clients |

pub mod command;
pub mod listing;
pub mod node;
pub mod protocols;
pub mod reply;
pub mod routes;
pub mod server;
pub mod sessions;
pub mod wall;

/// What the greeting and `show status` call this program; status reporters want a `v` (CTL-3, HEALTH-12).
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), "-calico-bgpd");
