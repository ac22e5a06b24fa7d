//! The speaker: both tables, next hops, policy, export and recovery, behind one queue in and one queue out.
//!
//! Owns: all routes. Never: sockets, clocks, netlink; it is told the time and the kernel's state. Core.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bgp_proto::session::Negotiated;
use bgp_proto::wire::{Notification, Update};
use bgp_proto::{Afi, AfiSet, PeerId};
use bytes::Bytes;

use crate::desired::DesiredState;
use crate::fib::{FibChange, KernelEvent, Phase};

/// What the world tells the speaker.
#[derive(Debug)]
pub enum SpeakerInput {
    /// The desired state, whole; the speaker finds out what changed. The first one means: the datastore is in sync.
    Desired {
        /// The state.
        state: Arc<DesiredState>,
        /// The handle of each of its peers, by name.
        peers: Arc<BTreeMap<String, PeerId>>,
    },
    /// A session is established.
    PeerUp {
        /// Who.
        peer: PeerId,
        /// What was agreed.
        negotiated: Box<Negotiated>,
    },
    /// Routes changed.
    Update {
        /// Who.
        peer: PeerId,
        /// What.
        update: Update,
    },
    /// The peer has sent all of its routes of this family.
    EndOfRib(PeerId, Afi),
    /// The peer wants our routes of this family again.
    RefreshRequested(PeerId, Afi),
    /// The session is gone; routes of these families stay, marked stale; all others go.
    Stale(PeerId, AfiSet),
    /// Mark this family's routes stale while the session lives.
    MarkStale(PeerId, Afi),
    /// Routes of this family that are still stale go.
    SweepStale(PeerId, Afi),
    /// The session is gone and so are its routes.
    PeerDown(PeerId),
    /// An attempt to reach the peer failed: recovery does not wait for it.
    PeerUnreachable(PeerId),
    /// The peer's socket can take this many bytes.
    Want {
        /// Who.
        peer: PeerId,
        /// Bytes; at least one message is filled in if there is anything.
        budget: usize,
    },
    /// The kernel changed.
    Kernel(KernelEvent),
    /// The deadline has come.
    Tick,
}

/// What the speaker tells the world, in order.
#[derive(Debug)]
pub enum SpeakerOutput {
    /// There is something to read for this peer: it should say `Want`.
    Ready(PeerId),
    /// Answer to `Want`: whole messages. Empty: nothing left, `Ready` will come.
    Fill {
        /// Who.
        peer: PeerId,
        /// UPDATE, End-of-RIB, BoRR, EoRR messages.
        bytes: Bytes,
    },
    /// Ask the peer for its routes again.
    RequestRefresh(PeerId, Afi),
    /// Close the session.
    EndSession(PeerId, Notification),
    /// The desired kernel routes changed.
    Fib(Vec<FibChange>),
    /// Recovery ended (or began).
    Phase(Phase),
}
