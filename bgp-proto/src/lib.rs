//! BGP-4 and its routing table, and nothing of Calico, tokio or Linux.
//!
//! The crate is larger than its name: beside the codec it holds the session machine, the table, the decision and
//! the export, because one manifest without tokio, libc and rand lets the compiler check that they are pure.
//!
//! | module | owns |
//! |---|---|
//! | [`prefix`] | address families and masked prefixes |
//! | [`ids`] | AS numbers, router ids, handles of peers and destinations |
//! | [`time`] | milliseconds since start; nobody here reads a clock |
//! | [`wire`] | messages to bytes and back; RFC 7606 as a table |
//! | [`session`] | one peer: RFC 4271 machine, two connections, timers |
//! | [`rib`] | destinations, paths, next hops, the decision, what a path is on a session |
//! | [`out`] | Adj-RIB-Out: who is sent what, and what has yet to be sent |
//!
//! Every core has one shape: `handle(now, input, out)` never blocks and never fails, `deadline()` says when the next
//! tick is wanted, `status()` is a read-only view.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod ids;
pub mod out;
pub mod prefix;
pub mod rib;
pub mod session;
pub mod time;
pub mod wire;

pub use ids::{Asn, ClusterId, DestId, PeerId, RouterId};
pub use prefix::{Afi, AfiSet, Family, IpPrefix, Prefix, Prefix4, Prefix6, V4, V6};
pub use time::Millis;
