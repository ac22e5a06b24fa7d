//! Views of the speaker for people: routes in pages, counts for each peer.
//!
//! Owns: the shapes that control output is made of. Never: changes anything.

use bgp_proto::rib::nexthop::IGP_UNKNOWN;
use bgp_proto::rib::{Forward, Leg, PathKind, Reason, Source};
use bgp_proto::wire::{Attributes, NextHop};
use bgp_proto::{Afi, DestId, Family, IpPrefix, Millis, PeerId, Prefix};

use super::Speaker;
use super::table::Table;
use crate::fib::{Address, Link, Wish};

/// One destination.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpPrefix,
    /// Its paths, the best first, then in table order.
    pub paths: Vec<PathStatus>,
    /// What the kernel is to hold for it.
    pub kernel: Option<Wish>,
    /// Interface names of the legs of that, in their order.
    pub kernel_interfaces: Vec<String>,
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
    /// Path id under which it is sent where the session has add-path.
    pub out_id: u32,
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
    /// Interface names of its legs, in their order.
    pub interfaces: Vec<String>,
    /// How far its next hop is; `None` where that is not known, or it has none (KRT-48).
    pub igp_metric: Option<u32>,
    /// Attributes after import; `None` unless it was received.
    pub attributes: Option<Attributes>,
    /// Next hop as received.
    pub next_hop: Option<NextHop>,
    /// Kernel metric of a foreign route.
    pub metric: Option<u32>,
    /// Who made a foreign route (rtm_protocol).
    pub protocol: Option<u8>,
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

    /// The destination that a packet to this host would take.
    pub fn route_for(&self, host: IpPrefix) -> Option<RouteStatus> {
        (0..=host.len())
            .rev()
            .filter_map(|len| self.route(IpPrefix::new(host.addr(), len)?))
            .find(|route| route.paths.first().is_some_and(|path| path.reason.is_none()))
    }

    /// Path ids under which a peer holds routes of a prefix; 0 where the session has no add-path.
    pub fn sent(&self, peer: PeerId, prefix: IpPrefix) -> Vec<u32> {
        match (self.peers.get(peer), prefix) {
            (None, _) => Vec::new(),
            (Some(peer), IpPrefix::V4(prefix)) => sent(&self.v4, peer.id.slot, prefix),
            (Some(peer), IpPrefix::V6(prefix)) => sent(&self.v6, peer.id.slot, prefix),
        }
    }

    /// Interfaces with their addresses, in order of their indexes.
    pub fn interfaces(&self) -> Vec<(Link, Vec<Address>)> {
        self.interfaces.all()
    }

    /// How many sessions the end of recovery still waits for, and until when at most; `None` when it is over.
    pub fn recovery(&self) -> Option<(usize, Option<Millis>)> {
        self.recovery.recovering().then(|| (self.recovery.waiting(), self.recovery.deadline()))
    }

    /// Paths of a family by who put them there, of at most `limit` destinations after `after`; and the last of these
    /// where there may be more.
    pub fn sources(&self, afi: Afi, after: Option<IpPrefix>, limit: usize) -> (Sources, Option<IpPrefix>) {
        match afi {
            Afi::Ipv4 => sources(&self.v4, after, limit),
            Afi::Ipv6 => sources(&self.v6, after, limit),
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
                        self.peers.slot(slot).map(|peer| peer.desired.name.clone()).unwrap_or_default()
                    }
                    _ => String::new(),
                },
                path_id: path.path_id,
                out_id: path.out_id,
                preference: path.preference,
                stale: path.is_stale(),
                reason,
                interface: self.interfaces.name_of(&forward).to_owned(),
                interfaces: match &forward {
                    Forward::Legs(legs) => self.names(legs),
                    _ => Vec::new(),
                },
                forward,
                igp_metric: match &path.kind {
                    PathKind::Bgp(bgp) => Some(rib.next_hops().resolution(bgp.next_hop).igp_metric)
                        .filter(|metric| *metric != IGP_UNKNOWN),
                    _ => None,
                },
                attributes: set.map(|set| set.attributes.clone()),
                next_hop: set.and_then(|set| set.next_hop),
                metric: match &path.kind {
                    PathKind::Kernel(route) => Some(route.metric),
                    _ => None,
                },
                protocol: match &path.kind {
                    PathKind::Kernel(route) => Some(route.protocol),
                    _ => None,
                },
            };
            match status.reason {
                None => paths.insert(0, status),
                Some(_) => paths.push(status),
            }
        }
        let kernel = table.fib.wish(rib.id(prefix)?).cloned();
        let kernel_interfaces = kernel
            .as_ref()
            .and_then(Wish::route)
            .map(|route| self.names(route.target.legs()))
            .unwrap_or_default();
        Some(RouteStatus { prefix: prefix.into(), paths, kernel, kernel_interfaces })
    }

    fn names(&self, legs: &[Leg]) -> Vec<String> {
        legs.iter().map(|leg| self.interfaces.name(leg.ifindex).to_owned()).collect()
    }
}

/// Paths by who put them there: all, and those that are the best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// Static.
    pub fixed: (usize, usize),
    /// Connected.
    pub direct: (usize, usize),
    /// Of others, in the kernel.
    pub kernel: (usize, usize),
    /// Destinations wanted in the kernel.
    pub to_kernel: usize,
}

fn sources<F: Family>(
    table: &Table<F>,
    after: Option<IpPrefix>,
    limit: usize,
) -> (Sources, Option<IpPrefix>) {
    let mut sources = Sources::default();
    let (mut last, mut seen) = (None, 0);
    for (id, dest) in table.rib.dests(after.and_then(Prefix::from_ip)).take(limit) {
        let prefix = dest.prefix;
        (last, seen) = (Some(IpPrefix::from(prefix)), seen + 1);
        let wish = table.fib.wish(id);
        sources.to_kernel += usize::from(wish.and_then(Wish::route).is_some());
        for path in &dest.paths {
            let (all, best) = match path.source() {
                Source::Static => &mut sources.fixed,
                Source::Direct => &mut sources.direct,
                Source::Kernel => &mut sources.kernel,
                Source::Peer(_) => continue,
            };
            *all += 1;
            *best += usize::from(dest.best().is_some_and(|best| std::ptr::eq(best, path)));
        }
    }
    (sources, last.filter(|_| seen == limit))
}

fn sent<F: Family>(table: &Table<F>, slot: u32, prefix: Prefix<F>) -> Vec<u32> {
    table.rib.id(prefix).map(|id| table.out.held_of(slot, id)).unwrap_or_default()
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
