//! Messages that readers in step share.
//!
//! Owns: what was encoded of windows of ids, until an entry in one changes, and how much of it is kept. Never: encodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;

/// Ids of one window.
pub(super) const WINDOW: u32 = 1024;
/// Octets of chunks that are kept for a group; beyond it all are dropped and made anew where somebody needs them.
const KEPT: usize = 1024 * 1024;

/// Messages that announce all that is live in one window.
#[derive(Debug)]
pub(super) struct Chunk {
    /// `None`: the window holds a route that does not fit into a message.
    pub bytes: Option<Bytes>,
    /// Slots of the peers that its routes came from, sorted.
    pub sources: Vec<u32>,
    /// Their next hops, sorted.
    pub next_hops: Vec<IpAddr>,
}

/// What is kept for readers that follow.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    pub windows: BTreeMap<u32, Chunk>,
    octets: usize,
}

impl Chunks {
    /// An entry changed.
    pub fn forget(&mut self, id: u32) {
        if let Some(chunk) = self.windows.remove(&(id / WINDOW)) {
            self.octets -= chunk.bytes.map_or(0, |bytes| bytes.len());
        }
    }

    pub fn keep(&mut self, window: u32, chunk: Chunk) {
        let octets = chunk.bytes.as_ref().map_or(0, Bytes::len);
        if self.octets + octets > KEPT {
            self.windows.clear();
            self.octets = 0;
        }
        self.octets += octets;
        self.windows.insert(window, chunk);
    }
}
