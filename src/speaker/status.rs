//! Views of the speaker for people: routes in pages, counts for each peer.
//!
//! Owns: the shapes that control output is made of. Never: changes anything.

use bgp_proto::rib::{Forward, PathKind, Reason, Source};
use bgp_proto::wire::{Attributes, NextHop};
use bgp_proto::{Afi, DestId, Family, IpPrefix, PeerId, Prefix};

use super::Speaker;
use super::table::Table;
use crate::fib::Wish;

/// One destination.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpPrefix,
    /// Its paths, the best first, then in table order.
    pub paths: Vec<PathStatus>,
    /// What the kernel is to hold for it.
    pub kernel: Option<Wish>,
}

/// One path.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// Who put it there.
    pub source: Source,
    /// Name of the peer; empty unless it was received.
    pub peer: String,
    /// Path id received, or interface index of a connected prefix.
    pub path_id: u32,
    /// Preference (KRT-8).
    pub preference: u16,
    /// Its session was lost and it has not come again.
    pub stale: bool,
    /// Why it is not the best; `None` for the best.
    pub reason: Option<Reason>,
    /// Where it leads.
    pub forward: Forward,
    /// Name of the outgoing interface; empty if there is none.
    pub interface: String,
    /// Attributes after import; `None` unless it was received.
    pub attributes: Option<Attributes>,
    /// Next hop as received.
    pub next_hop: Option<NextHop>,
    /// Kernel metric of a foreign route.
    pub metric: Option<u32>,
}

/// Counts of one peer in one family, paths each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerCounts {
    /// Received and usable.
    pub imported: usize,
    /// Received and refused by import (policy, loops, odd prefixes).
    pub filtered: usize,
    /// Imported and the best of their prefixes.
    pub preferred: usize,
    /// Held by the peer.
    pub exported: usize,
    /// Imported or filtered, and stale.
    pub stale: usize,
}

impl Speaker {
    /// At most `limit` destinations of a family in order of their prefixes, after `after`.
    pub fn routes(&self, afi: Afi, after: Option<IpPrefix>, limit: usize) -> Vec<RouteStatus> {
        match afi {
            Afi::Ipv4 => self.page(&self.v4, after, limit),
            Afi::Ipv6 => self.page(&self.v6, after, limit),
        }
    }

    /// One destination.
    pub fn route(&self, prefix: IpPrefix) -> Option<RouteStatus> {
        match prefix {
            IpPrefix::V4(prefix) => self.describe(&self.v4, prefix),
            IpPrefix::V6(prefix) => self.describe(&self.v6, prefix),
        }
    }

    /// Counts of a peer; all zero if it is not known.
    pub fn counts(&self, peer: PeerId, afi: Afi) -> PeerCounts {
        if self.peers.get(peer).is_none() {
            return PeerCounts::default();
        }
        match afi {
            Afi::Ipv4 => counts(&self.v4, peer.slot),
            Afi::Ipv6 => counts(&self.v6, peer.slot),
        }
    }

    /// Number of destinations of a family.
    pub fn destinations(&self, afi: Afi) -> usize {
        match afi {
            Afi::Ipv4 => self.v4.rib.len(),
            Afi::Ipv6 => self.v6.rib.len(),
        }
    }

    fn page<F: Family>(&self, table: &Table<F>, after: Option<IpPrefix>, limit: usize) -> Vec<RouteStatus> {
        let after = after.and_then(Prefix::from_ip);
        let dests = table.rib.dests(after).take(limit);
        dests.filter_map(|(_, dest)| self.describe(table, dest.prefix)).collect()
    }

    fn describe<F: Family>(&self, table: &Table<F>, prefix: Prefix<F>) -> Option<RouteStatus> {
        let rib = &table.rib;
        let dest = rib.dest_of(prefix)?;
        let mut paths: Vec<PathStatus> = Vec::with_capacity(dest.paths.len());
        for (path, reason) in dest.paths.iter().zip(rib.reasons(dest)) {
            let forward = rib.forward(path);
            let set = match &path.kind {
                PathKind::Bgp(bgp) => Some(rib.attrs(bgp.used)),
                _ => None,
            };
            let status = PathStatus {
                source: path.source(),
                peer: match path.source() {
                    Source::Peer(slot) => {
                        self.peers.slot(slot).map(|peer| peer.name.clone()).unwrap_or_default()
                    }
                    _ => String::new(),
                },
                path_id: path.path_id,
                preference: path.preference,
                stale: path.is_stale(),
                reason,
                interface: self.interfaces.name_of(&forward).to_owned(),
                forward,
                attributes: set.map(|set| set.attributes.clone()),
                next_hop: set.and_then(|set| set.next_hop),
                metric: match &path.kind {
                    PathKind::Kernel(route) => Some(route.metric),
                    _ => None,
                },
            };
            match status.reason {
                None => paths.insert(0, status),
                Some(_) => paths.push(status),
            }
        }
        Some(RouteStatus { prefix: prefix.into(), paths, kernel: table.fib.told(prefix).cloned() })
    }
}

fn counts<F: Family>(table: &Table<F>, slot: u32) -> PeerCounts {
    let mut counts = PeerCounts::default();
    let dests = table.rib.dests_of(slot, DestId(0)).filter_map(|id| table.rib.dest(id));
    for (dest, path) in dests.flat_map(|dest| dest.paths_of(slot).map(move |path| (dest, path))) {
        let best = dest.best().is_some_and(|best| std::ptr::eq(best, path));
        counts.stale += usize::from(path.is_stale());
        counts.preferred += usize::from(best);
        if path.eligible() {
            counts.imported += 1;
        } else {
            counts.filtered += 1;
        }
    }
    counts.exported = table.out.held(slot);
    counts
}
