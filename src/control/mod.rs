//! What a running daemon says when asked: `calico-bgpd.sock`, one JSON request and one JSON answer a line.
//!
//! Nothing here changes anything: answers are made of published views, and of looks at the core where a table is wanted.

pub mod answer;
pub mod peer_view;
pub mod routes;
pub mod server;
pub mod show;

/// The socket's name in the run directory.
pub const SOCKET: &str = "calico-bgpd.sock";
