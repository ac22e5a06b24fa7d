//! What a running daemon says when asked: `calico-bgpd.sock`, one JSON request and one JSON answer
//! a line (docs/control.md), BIRD's own sockets ([`bird`]), and HTTP for machines ([`http`]).
//!
//! Owns: the protocols of the sockets, and both ends of the first. Answers are made of published views, and of looks at the core
//! where a table is wanted. Never: changes what the node shall do, which comes from the datastore alone; the one thing
//! that can be done from here is to ask peers for their routes again.

mod accept;
pub mod answer;
pub mod bird;
pub mod counts;
pub mod http;
pub mod metrics;
pub mod ready;
pub mod reason;
pub mod routes;
pub mod server;
pub mod show;
mod socket;

/// The socket's name in the run directory.
pub const SOCKET: &str = "calico-bgpd.sock";
