//! The kernel's routing tables: what we want there, what is there, and how one becomes the other.
//!
//! Owns: the types between the speaker and the kernel. `plan` and `mirror` are pure; `linux` is the only place that
//! speaks netlink. Never: chooses routes. The kernel is twice in the picture: as a source ([`KernelEvent`]) and
//! as a sink ([`FibRoute`]).

pub mod cleanup;
pub mod dry_run;
pub mod fake;
pub mod linux;
pub mod message;
pub mod mirror;
pub mod plan;
pub mod reconciler;
mod repair;
pub mod view;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;

pub use bgp_proto::rib::Leg;
use bgp_proto::{Afi, IpPrefix};
use smallvec::SmallVec;

/// RTPROT_BIRD: the mark of our routes (KRT-12, FELIX rules).
pub const PROTOCOL: u8 = 12;
/// The main table.
pub const TABLE_MAIN: u32 = 254;

/// A route that we want in the kernel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FibRoute {
    /// Where it leads.
    pub target: Target,
    /// RTA_PRIORITY; 0 is sent as none, and the kernel then stores 0 (IPv4) or 1024 (IPv6) (KRT-18, KRT-24).
    pub metric: u32,
}

impl FibRoute {
    /// The route as the kernel will show it: legs sorted and without duplicates, no weight on a single leg.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.target.normalize();
        self
    }
}

/// The metric that the kernel stores for a route written with `metric` (KRT-18): IPv6 has no metric 0.
pub const fn stored_metric(afi: Afi, metric: u32) -> u32 {
    match (afi, metric) {
        (Afi::Ipv6, 0) => 1024,
        _ => metric,
    }
}

/// Where a route leads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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

impl Target {
    /// Brings the legs into the one order in which equal targets are equal values.
    pub fn normalize(&mut self) {
        let Target::Unicast(legs) = self else { return };
        for leg in legs.iter_mut() {
            leg.weight = leg.weight.max(1);
        }
        legs.sort_unstable();
        legs.dedup_by_key(|leg| (leg.via, leg.ifindex));
        if let [only] = legs.as_mut_slice() {
            // The kernel has no place for the weight of a single next hop.
            only.weight = 1;
        }
    }

    /// The legs; none but for [`Target::Unicast`].
    pub fn legs(&self) -> &[Leg] {
        match self {
            Target::Unicast(legs) => legs,
            Target::Blackhole | Target::Unreachable | Target::Prohibit => &[],
        }
    }

    /// The kernel's word for the kind of route.
    pub const fn kind(&self) -> &'static str {
        match self {
            Target::Blackhole => "blackhole",
            Target::Unreachable => "unreachable",
            Target::Prohibit => "prohibit",
            Target::Unicast(_) => "unicast",
        }
    }
}

/// A change of what we want, from the speaker to the reconciler: the latest for a prefix wins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FibChange {
    /// The prefix.
    pub prefix: IpPrefix,
    /// What is wanted there.
    pub wish: Wish,
}

/// What is wanted for a prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Wish {
    /// No route of ours.
    Nothing,
    /// This route.
    Route(FibRoute),
    /// A route through a device that is not there or not up: what the kernel holds stays as it is until then
    /// (BDEF-10).
    Waits {
        /// The device's name.
        device: &'static str,
    },
}

impl Wish {
    /// The route, if it is one.
    pub const fn route(&self) -> Option<&FibRoute> {
        match self {
            Wish::Route(route) => Some(route),
            Wish::Nothing | Wish::Waits { .. } => None,
        }
    }
}

impl From<Option<FibRoute>> for Wish {
    fn from(route: Option<FibRoute>) -> Self {
        route.map_or(Wish::Nothing, Wish::Route)
    }
}

/// The tunnel device of IPIP pools: Felix's, known by its name alone (KRT-34).
pub const TUNNEL: &str = "tunl0";

/// What the settings of the cluster say of who owns routes in the kernel (KERN-10, KERN-10a).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ownership {
    /// Routes of IPIP pools are ours.
    pub ipip: bool,
    /// Routes of pools without encapsulation are ours.
    pub unencapsulated: bool,
    /// The release is v3.33 or later, or not known: a Felix that holds IPIP routes for its own may run here, and it
    /// deletes those of protocol 12 on the tunnel that it does not want.
    pub rival: bool,
}

/// Whether routes of ours that nobody wants may be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// After start: routes found in the kernel stay (KRT-50); those written since may go.
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
    /// An address of an interface is usable, or says something else than before. Told after its interface.
    Address(Address),
    /// An address is no longer usable. Where an interface went, its addresses went with it without a word.
    AddressGone(Address),
    /// The alien route of lowest metric for a prefix, or that there is none any more.
    Alien(IpPrefix, Option<AlienRoute>),
    /// Everything known at start was told.
    Synced,
}

/// One operation on table main. What it writes and what it deletes is always marked with [`PROTOCOL`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteOp {
    /// Writes a route where there is none with this prefix and metric (`NLM_F_CREATE|NLM_F_EXCL`).
    Add(IpPrefix, FibRoute),
    /// Writes a route in the place of the one with this prefix and metric (`NLM_F_REPLACE`, which does not look at
    /// the protocol: only for keys on which the mirror holds a route of ours).
    Replace(IpPrefix, FibRoute),
    /// Takes a route of ours away.
    Delete {
        /// The prefix.
        prefix: IpPrefix,
        /// The metric as the kernel stores it.
        metric: u32,
        /// Only if it leads there; needed where prefix, metric and protocol do not tell two routes apart.
        only: Option<Target>,
    },
}

impl RouteOp {
    /// The prefix it is about.
    pub const fn prefix(&self) -> IpPrefix {
        match self {
            RouteOp::Add(prefix, _) | RouteOp::Replace(prefix, _) | RouteOp::Delete { prefix, .. } => *prefix,
        }
    }

    /// The metric of its key, as the kernel stores it.
    pub fn metric(&self) -> u32 {
        match self {
            RouteOp::Add(prefix, route) | RouteOp::Replace(prefix, route) => {
                stored_metric(prefix.afi(), route.metric)
            }
            RouteOp::Delete { metric, .. } => *metric,
        }
    }
}

/// The kernel's answer to an operation that it refused: a number of errno(3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Errno = Errno(1);
    /// No such route to replace.
    pub const ENOENT: Errno = Errno(2);
    /// No such route to delete.
    pub const ESRCH: Errno = Errno(3);
    /// Out of memory.
    pub const ENOMEM: Errno = Errno(12);
    /// A route with this prefix and metric is there already.
    pub const EEXIST: Errno = Errno(17);
    /// No such interface.
    pub const ENODEV: Errno = Errno(19);
    /// The message makes no sense to this kernel.
    pub const EINVAL: Errno = Errno(22);
    /// The interface is down.
    pub const ENETDOWN: Errno = Errno(100);
    /// The gateway is not on the interface.
    pub const ENETUNREACH: Errno = Errno(101);
    /// The gateway cannot be reached.
    pub const EHOSTUNREACH: Errno = Errno(113);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// Why the kernel refused an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The number.
    pub errno: Errno,
    /// The kernel's own words, if it had any.
    pub detail: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal { errno, detail: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{detail} ({})", self.errno),
            None => self.errno.fmt(f),
        }
    }
}

/// What came of a batch of operations.
#[derive(Debug, Default)]
pub struct Applied {
    /// The answer to each operation, in order.
    pub results: Vec<Result<(), Refusal>>,
    /// What the kernel said up to the last operation and including its echo. In the order of the kernel.
    pub notices: Vec<mirror::Notice>,
    /// Something it said was lost: a new dump is due.
    pub overrun: bool,
}

/// Why the kernel cannot be heard or spoken to.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It said more than the receive buffer holds; what exactly is lost. A dump mends it.
    #[error("the kernel dropped notifications: the receive buffer is full")]
    Overrun,
    /// The connection is of no use any more. A dump opens a new one.
    #[error("netlink: {context}: {source}")]
    Lost {
        /// What was tried.
        context: &'static str,
        /// What came of it.
        source: std::io::Error,
    },
}

/// The kernel as the reconciler needs it; netlink in production, memory in tests.
pub trait Kernel: Send {
    /// Everything, and what was said meanwhile. Opens the connection if there is none.
    fn dump(
        &mut self,
    ) -> impl Future<Output = Result<(mirror::KernelDump, Vec<mirror::Notice>), KernelError>> + Send;

    /// Does the operations in their order. A refused one does not stop the others.
    fn apply(&mut self, operations: &[RouteOp]) -> impl Future<Output = Result<Applied, KernelError>> + Send;

    /// What the kernel has said and nobody has taken yet; nothing is waited for. A plan made after this is as fresh
    /// as one can be.
    ///
    /// # Errors
    /// As [`Kernel::notices`].
    fn waiting(&mut self) -> Result<Vec<mirror::Notice>, KernelError>;

    /// The next things that the kernel says: at least one, in order. Safe to drop while waiting.
    fn notices(&mut self) -> impl Future<Output = Result<Vec<mirror::Notice>, KernelError>> + Send;
}
