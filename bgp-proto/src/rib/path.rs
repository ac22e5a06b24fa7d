//! Paths: where each comes from, what it is and where it leads.
//!
//! Owns: [`Source`], [`Path`], [`Forward`]. Never: compares paths (see [`decision`](super::decision)).

use std::net::IpAddr;

use smallvec::{SmallVec, smallvec};

use crate::ids::{Asn, ClusterId, RouterId};
use crate::prefix::Family;
use crate::rib::attrs::AttrId;

/// A handle to a tracked next hop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NextHopId(pub(super) u32);

/// Origin class of a route (FILT-1); the order is that of the tie-break between classes of equal preference: static
/// before BGP (KRT-9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SourceClass {
    /// Prefix of a local interface; preference 240.
    Direct,
    /// Ours by intent; preference 200.
    Static,
    /// Received; preference 100.
    Bgp,
    /// Found in the kernel; preference 10.
    Kernel,
}

impl SourceClass {
    /// The preference of the class before any policy (KRT-8).
    pub const fn preference(self) -> u16 {
        match self {
            SourceClass::Direct => 240,
            SourceClass::Static => 200,
            SourceClass::Bgp => 100,
            SourceClass::Kernel => 10,
        }
    }
}

/// Who put a path into the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The interface table.
    Direct,
    /// The datastore.
    Static,
    /// The peer in this slot.
    Peer(u32),
    /// A route of somebody else in the kernel.
    Kernel,
}

impl Source {
    /// Its class.
    pub const fn class(self) -> SourceClass {
        match self {
            Source::Direct => SourceClass::Direct,
            Source::Static => SourceClass::Static,
            Source::Peer(_) => SourceClass::Bgp,
            Source::Kernel => SourceClass::Kernel,
        }
    }
}

/// What the table knows of the session that a path came over. It lives as long as the paths do, so also while the
/// session is down and its paths are stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePeer {
    /// The peer's AS.
    pub asn: Asn,
    /// Our AS in that session.
    pub local_asn: Asn,
    /// The peer's identifier.
    pub router_id: RouterId,
    /// The peer's address.
    pub addr: IpAddr,
    /// The session is within one AS.
    pub internal: bool,
    /// The peer is our route reflector client, in this cluster (RFC 4456).
    pub rr_client: Option<ClusterId>,
}

/// One next hop of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Leg {
    /// Gateway; `None`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// Interface index.
    pub ifindex: u32,
    /// The gateway is on the link whatever the addresses say (KRT-55).
    pub onlink: bool,
    /// Weight, 1 or more.
    pub weight: u16,
}

/// Where a route leads, as the kernel would see it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Forward {
    /// Dropped.
    Blackhole,
    /// Refused; also: a next hop that leads nowhere (KRT-23).
    Unreachable,
    /// Refused by an administrator.
    Prohibit,
    /// Sent on: at least one leg.
    Legs(SmallVec<[Leg; 1]>),
}

impl Forward {
    /// The only gateway or device leg; `None` for several and for none.
    pub fn single_leg(&self) -> Option<Leg> {
        match self {
            Forward::Legs(legs) => match legs.as_slice() {
                [leg] => Some(*leg),
                _ => None,
            },
            _ => None,
        }
    }

    /// The outgoing interface, as filters see it: only a route with one leg has one (FILT-1).
    pub fn interface(&self) -> Option<u32> {
        self.single_leg().map(|leg| leg.ifindex)
    }
}

/// Why a received path may not be used. It stays in the table, so that a change of rules needs nothing from the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// Our AS stands in AS_PATH more often than allowed (BGP-26).
    AsLoop,
    /// ORIGINATOR_ID is our identifier (RFC 4456 §8).
    OwnOriginator,
    /// CLUSTER_LIST holds our cluster id (RFC 4456 §8).
    ClusterLoop,
    /// The prefix is no ordinary unicast network (KRT-11).
    Bogus,
    /// The next hop is an address that no host has: unspecified, multicast, broadcast, or link-local alone, whose
    /// interface nobody knows (W38).
    NextHop,
    /// Import policy.
    Policy,
}

/// Whether a path is what its source says now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Freshness {
    /// It is.
    Fresh,
    /// Its session was lost, or asked to send it again, and it has not come again yet (RFC 4724 §4.2).
    Stale,
    /// The same, and the peer is away for longer than its restart time: LLGR_STALE is on it (RFC 9494 §4.2).
    LongLivedStale,
}

/// The BGP part of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BgpPath {
    /// Slot of the peer that sent it.
    pub slot: u32,
    /// Attributes as received and admitted: without what does not count on such a session.
    pub got: AttrId,
    /// Attributes after import.
    pub used: AttrId,
    /// The next hop to resolve: that of `used`.
    pub next_hop: NextHopId,
    /// Why it may not be used.
    pub refused: Option<Refused>,
}

/// A route of somebody else in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelRoute {
    /// Where it leads.
    pub forward: Forward,
    /// Its metric (RTA_PRIORITY).
    pub metric: u32,
    /// Who made it (rtm_protocol).
    pub protocol: u8,
}

/// What a path is. Its source and class follow from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathKind<F: Family> {
    /// A connected prefix on this interface.
    Direct {
        /// Interface index.
        ifindex: u32,
    },
    /// A blackhole of ours.
    Blackhole,
    /// A static route over a gateway that must be on a connected subnet (KRT-19).
    Gateway {
        /// The gateway.
        via: F::Addr,
        /// The interface on whose subnet it is; `None`: on none, the path does not count.
        ifindex: Option<u32>,
    },
    /// A route of somebody else. They are few.
    Kernel(Box<KernelRoute>),
    /// A received route.
    Bgp(BgpPath),
}

impl<F: Family> PathKind<F> {
    /// Who put it there.
    pub const fn source(&self) -> Source {
        match self {
            PathKind::Direct { .. } => Source::Direct,
            PathKind::Blackhole | PathKind::Gateway { .. } => Source::Static,
            PathKind::Kernel(_) => Source::Kernel,
            PathKind::Bgp(bgp) => Source::Peer(bgp.slot),
        }
    }
}

/// A route of our own, as it is put into the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalRoute<F: Family> {
    /// A connected prefix on this interface.
    Direct(u32),
    /// A blackhole of ours.
    Blackhole,
    /// A static route over this gateway.
    Gateway(F::Addr),
    /// A route of somebody else in the kernel.
    Kernel(Box<KernelRoute>),
}

/// Names one route of our own of a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalSource {
    /// That of an interface, by its index.
    Direct(u32),
    /// The one that is ours by intent.
    Static,
    /// That of somebody else in the kernel: there is one for a prefix (KRT-14).
    Kernel,
}

impl LocalSource {
    /// Source and path id in the table.
    pub(super) const fn key(self) -> (Source, u32) {
        match self {
            LocalSource::Direct(ifindex) => (Source::Direct, ifindex),
            LocalSource::Static => (Source::Static, 0),
            LocalSource::Kernel => (Source::Kernel, 0),
        }
    }
}

/// One path of a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path<F: Family> {
    /// What it is, and who put it there.
    pub kind: PathKind<F>,
    /// Tells paths of one source apart: the path id received, or the interface of a direct route.
    pub path_id: u32,
    /// The path id under which it is sent: small, unique in its destination, stable for its life (BGP-18).
    pub out_id: u32,
    /// Higher wins (KRT-8).
    pub preference: u16,
    /// Whether it is stale.
    pub freshness: Freshness,
}

impl<F: Family> Path<F> {
    /// Who put it there.
    pub const fn source(&self) -> Source {
        self.kind.source()
    }

    /// Whether it is stale in any way.
    pub fn is_stale(&self) -> bool {
        self.freshness != Freshness::Fresh
    }

    /// Whether it may be chosen at all.
    pub fn eligible(&self) -> bool {
        match &self.kind {
            PathKind::Bgp(bgp) => bgp.refused.is_none(),
            PathKind::Gateway { ifindex, .. } => ifindex.is_some(),
            _ => true,
        }
    }

    /// Whether it goes over this next hop.
    pub(super) const fn is_over(&self, next_hop: NextHopId) -> bool {
        matches!(&self.kind, PathKind::Bgp(bgp) if bgp.next_hop.0 == next_hop.0)
    }
}

/// What a destination gives to next hops that it covers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Lead {
    /// No path: a shorter prefix counts.
    #[default]
    Nothing,
    /// The best path is itself recursive.
    Recursive,
    /// A connected prefix.
    Connected(u32),
    /// A static or foreign route. They are few.
    Over(Box<Forward>),
}

impl Lead {
    /// The lead of a destination with this best path.
    pub(super) fn of<F: Family>(best: Option<&Path<F>>) -> Lead {
        match best.map(|path| &path.kind) {
            None => Lead::Nothing,
            Some(PathKind::Bgp(_)) => Lead::Recursive,
            Some(PathKind::Direct { ifindex }) => Lead::Connected(*ifindex),
            Some(PathKind::Blackhole) => Lead::Over(Box::new(Forward::Blackhole)),
            Some(PathKind::Kernel(route)) => Lead::Over(Box::new(route.forward.clone())),
            Some(PathKind::Gateway { via, ifindex }) => {
                Lead::Over(Box::new(gateway_forward::<F>(*via, *ifindex)))
            }
        }
    }
}

/// Where a static route over a gateway leads.
pub fn gateway_forward<F: Family>(via: F::Addr, ifindex: Option<u32>) -> Forward {
    match ifindex {
        Some(ifindex) => {
            Forward::Legs(smallvec![Leg { via: Some(via.into()), ifindex, onlink: false, weight: 1 }])
        }
        None => Forward::Unreachable,
    }
}
