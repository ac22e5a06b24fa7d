//! Adj-RIB-Out: what the peers are sent, kept once for each group of peers that are sent the same.
//!
//! Owns: [`Group`], the routes that export gives for one [`ExportProfile`](crate::rib::ExportProfile), with the readers
//! that share them. Never: knows which peer is which, policy programs, clocks or
//! sockets; a reader is a slot and an address. Input: the routes of a destination whenever they changed, readers that
//! come, go, ask for everything again or move. Output: the slots that have something to read, and whole messages.
//!
//! A group has one entry for each dense `OutId`: a prefix and a sent path id, with attributes or without (then it lives
//! on for those who hold it and have yet to hear that it is gone). A reader is two sets of bits over these ids: what it
//! *holds*, and what is *pending*. A change sets a bit in each reader that may get it or holds it; a read sends the
//! entries as they are then and moves the bits, so ten changes between two reads are sent once, and a slow reader costs
//! nothing more the longer it is slow.
//!
//! | module | owns |
//! |---|---|
//! | [`routes`](mod@routes) | the routes of one destination for a profile |
//! | [`group`] | entries, readers, changes |
//! | `reader` | the two sets of bits, End-of-RIB, refresh |
//! | `pack` | from pending bits to messages |
//! | `chunks` | what readers in step share |
//!
//! RFC 4271 §3.2 (Adj-RIBs-Out), BGP-18 (packing), BGP-20 (add-path), BGP-35 and RFC 7313 (refresh), RFC 4724 §2
//! (End-of-RIB), W50 (routes that do not fit into a message).

mod chunks;
pub mod group;
mod pack;
mod reader;
pub mod routes;
#[cfg(test)]
mod tests;

pub use group::{Group, Pins, Sent};
pub use routes::{Exporter, routes};
