//! Sockets: the listener, the dials and one task for each peer around a pure
//! [`Session`](bgp_proto::session::Session).
//!
//! Owns: every TCP socket of the daemon. Never: decides anything about BGP: bytes, timers and commands go in, what the
//! session says is done.

pub mod caller;
pub mod dial;
pub mod incumbent;
pub mod line;
pub mod listener;
pub mod md5;
pub mod peer_task;
pub mod peer_view;
pub mod sockopt;
mod strangers;
mod ttl_filter;
