//! What a running daemon says when asked: `calico-bgpd.sock`, one JSON request and one JSON answer a line.
//!
//! Answers are made of published views, and of looks at the core where a table is wanted. The one thing that can be done from here is to ask
//! peers for their routes again; what the node shall do comes from the datastore alone.

pub mod answer;
pub mod peer_view;
pub mod routes;
pub mod server;
pub mod show;

/// The socket's name in the run directory.
pub const SOCKET: &str = "calico-bgpd.sock";
