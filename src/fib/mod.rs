//! The kernel's routing tables: what we want there, what is there, and how one becomes the other.
//!
//! Owns: the types between the speaker and the kernel. `plan` and `mirror` are pure; `linux` is the only place that
//! speaks netlink. The kernel is twice in the picture: as a source ([`KernelEvent`]) and as a sink ([`FibRoute`]).

use std::net::IpAddr;

use bgp_proto::IpPrefix;
use smallvec::SmallVec;

/// RTPROT_BIRD: the mark of our routes (KRT-12, FELIX rules).
pub const PROTOCOL: u8 = 12;
/// The main table.
pub const TABLE_MAIN: u32 = 254;

/// A route that we want in the kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FibRoute {
    /// Where it leads.
    pub target: Target,
    /// RTA_PRIORITY; 0 is sent as none, and the kernel then stores 0 (IPv4) or 1024 (IPv6) (KRT-18, KRT-24).
    pub metric: u32,
}

/// Where a route leads.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// Dropped silently.
    Blackhole,
    /// Answered with ICMP unreachable (KRT-23).
    Unreachable,
    /// Answered with ICMP prohibited.
    Prohibit,
    /// Sent on. Sorted by address, without duplicates, 1 to 16 legs (KRT-28).
    Unicast(SmallVec<[Leg; 1]>),
}

/// One next hop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Leg {
    /// Gateway; `None`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// Interface.
    pub ifindex: u32,
    /// The gateway is on the link whatever the addresses say.
    pub onlink: bool,
    /// Weight, 1 or more.
    pub weight: u16,
}

/// A change of what we want, from the speaker to the reconciler: the latest for a prefix wins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FibChange {
    /// The prefix.
    pub prefix: IpPrefix,
    /// The route; `None`: nothing.
    pub route: Option<FibRoute>,
}

/// Whether routes of ours that nobody wants may be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// After start: routes found in the kernel stay (design §5.8).
    #[default]
    Recovering,
    /// In sync.
    Normal,
}

/// An interface as the kernel has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    /// Interface.
    pub ifindex: u32,
    /// The address itself.
    pub addr: IpAddr,
    /// The prefix it opens on the link.
    pub prefix: IpPrefix,
    /// An IPv4 secondary address: no direct route (KRT-5).
    pub secondary: bool,
    /// Scope is link or narrower (host): no direct route (KRT-6).
    pub narrow: bool,
}

/// A route of somebody else (KRT-12 to KRT-14).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlienRoute {
    /// Where it leads.
    pub target: Target,
    /// RTA_PRIORITY, 0 if none.
    pub metric: u32,
    /// rtm_protocol.
    pub protocol: u8,
}

/// What the kernel tells the speaker. Events are states, not edges: each replaces what was known under its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelEvent {
    /// An interface appeared or changed.
    Link(Link),
    /// An interface went.
    LinkGone(u32),
    /// The usable addresses of an interface, all of them.
    Addresses(u32, Vec<Address>),
    /// The alien route of lowest metric for a prefix, or that there is none any more.
    Alien(IpPrefix, Option<AlienRoute>),
    /// Everything known at start was told.
    Synced,
}
