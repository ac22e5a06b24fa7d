//! Next hops: which are in use, where each leads, and whom a changed route concerns.
//!
//! Owns: the tracked next hops with their users, the node's own addresses and connected subnets, and the recursive
//! resolution by longest match over the table itself (KRT-44 to KRT-48, KRT-55). Never: decides between paths.
//! A next hop inside one of the node's own connected subnets is never resolved through a default route: while its
//! address is away, the default router is the wrong way (a deliberate difference from BIRD).

use std::collections::BTreeMap;
use std::net::IpAddr;

use prefix_trie::PrefixMap;
use smallvec::{SmallVec, smallvec};

use crate::ids::DestId;
use crate::prefix::{Family, Prefix};
use crate::rib::dense::DestSet;
use crate::rib::dest::Dests;
use crate::rib::path::{Forward, Lead, Leg, NextHopId};
use crate::wire::NextHop;

/// IGP metric of a next hop behind a gateway: greater than every number, equal to itself (KRT-48).
pub const IGP_UNKNOWN: u32 = u32::MAX;

/// An address of the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LocalAddress<F: Family> {
    /// The address.
    pub addr: F::Addr,
    /// The prefix that it opens on the link.
    pub prefix: Prefix<F>,
    /// Whether that is a connected subnet of the node; not so on interfaces that intent leaves out. Equal for all
    /// addresses of an interface.
    pub connected: bool,
}

/// Why a next hop leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unresolved<F: Family> {
    /// It is no address that a host can have everywhere: unspecified, multicast, broadcast, or link-local alone.
    NoHost,
    /// No route covers it.
    NoRoute,
    /// It is an address of this node.
    OwnAddress,
    /// The covering route is itself a BGP route (KRT-45).
    ThroughBgp(Prefix<F>),
    /// It belongs into a connected subnet of the node, and only the default route covers it.
    OnlyDefault,
    /// It is of another address family than the table.
    OtherFamily,
}

/// Where a next hop leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolution<F: Family> {
    /// Unreachable where it leads nowhere.
    pub forward: Forward,
    /// 0 or [`IGP_UNKNOWN`] (KRT-48). 0 where it leads nowhere: such paths compare as those into a blackhole do.
    pub igp_metric: u32,
    /// The route that was matched.
    pub through: Option<Prefix<F>>,
    /// Why it leads nowhere.
    pub unresolved: Option<Unresolved<F>>,
}

impl<F: Family> Resolution<F> {
    fn nowhere(why: Unresolved<F>, through: Option<Prefix<F>>) -> Self {
        Resolution { forward: Forward::Unreachable, igp_metric: 0, through, unresolved: Some(why) }
    }

    /// Whether packets get anywhere (BGP-40).
    pub fn resolvable(&self) -> bool {
        matches!(self.forward, Forward::Legs(_))
    }
}

/// The node's addresses by interface, and what follows from them.
#[derive(Debug)]
pub struct Connected<F: Family> {
    interfaces: BTreeMap<u32, Vec<LocalAddress<F>>>,
    own: BTreeMap<F::Addr, u32>,
    /// The interfaces on each, and whether it is a connected subnet there.
    subnets: PrefixMap<Prefix<F>, BTreeMap<u32, bool>>,
    /// Subnets that are the node's by intent, whether or not an address is there now.
    home: Vec<Prefix<F>>,
}

impl<F: Family> Default for Connected<F> {
    fn default() -> Self {
        Connected {
            interfaces: BTreeMap::new(),
            own: BTreeMap::new(),
            subnets: PrefixMap::new(),
            home: Vec::new(),
        }
    }
}

impl<F: Family> Connected<F> {
    /// Replaces the addresses of an interface; `false` if nothing changed.
    pub(super) fn set(&mut self, ifindex: u32, mut addresses: Vec<LocalAddress<F>>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        let old = self.interfaces.remove(&ifindex).unwrap_or_default();
        let changed = old != addresses;
        if changed {
            for address in &old {
                if let Some(count) = self.own.get_mut(&address.addr) {
                    *count -= 1;
                    if *count == 0 {
                        self.own.remove(&address.addr);
                    }
                }
                if let Some(set) = self.subnets.get_mut(&address.prefix) {
                    set.remove(&ifindex);
                    if set.is_empty() {
                        self.subnets.remove(&address.prefix);
                    }
                }
            }
            for address in &addresses {
                *self.own.entry(address.addr).or_default() += 1;
                self.subnets.entry(address.prefix).or_default().insert(ifindex, address.connected);
            }
        }
        if !addresses.is_empty() {
            self.interfaces.insert(ifindex, addresses);
        }
        changed
    }

    /// Adds an address of an interface; `false` if it was there.
    pub(super) fn add(&mut self, ifindex: u32, address: LocalAddress<F>) -> bool {
        let there = self.interfaces.entry(ifindex).or_default();
        let Err(at) = there.binary_search(&address) else { return false };
        there.insert(at, address);
        *self.own.entry(address.addr).or_default() += 1;
        self.subnets.entry(address.prefix).or_default().insert(ifindex, address.connected);
        true
    }

    /// Removes an address of an interface; `false` if it was not there.
    pub(super) fn remove(&mut self, ifindex: u32, address: LocalAddress<F>) -> bool {
        let Some(there) = self.interfaces.get_mut(&ifindex) else { return false };
        let Ok(at) = there.binary_search(&address) else { return false };
        there.remove(at);
        let shared = there.iter().any(|other| other.prefix == address.prefix);
        if there.is_empty() {
            self.interfaces.remove(&ifindex);
        }
        if let Some(count) = self.own.get_mut(&address.addr) {
            *count -= 1;
            if *count == 0 {
                self.own.remove(&address.addr);
            }
        }
        if !shared && let Some(set) = self.subnets.get_mut(&address.prefix) {
            set.remove(&ifindex);
            if set.is_empty() {
                self.subnets.remove(&address.prefix);
            }
        }
        true
    }

    /// Replaces the subnets that are the node's by intent; `false` if nothing changed.
    pub(super) fn set_home(&mut self, home: Vec<Prefix<F>>) -> bool {
        let changed = self.home != home;
        self.home = home;
        changed
    }

    /// Whether the address is one of ours.
    pub fn is_own(&self, addr: F::Addr) -> bool {
        self.own.contains_key(&addr)
    }

    /// The interface on whose subnet an address is; the longest subnet counts, then the lowest index. None for an
    /// own address.
    pub fn interface_of(&self, addr: F::Addr) -> Option<u32> {
        if self.is_own(addr) {
            return None;
        }
        self.subnets.get_lpm(&Prefix::host(addr)).and_then(|(_, set)| set.keys().next().copied())
    }

    fn is_home(&self, addr: F::Addr) -> bool {
        match self.subnets.get_lpm(&Prefix::host(addr)) {
            Some((_, set)) => set.values().any(|connected| *connected),
            None => self.home.iter().any(|prefix| prefix.contains(addr)),
        }
    }
}

#[derive(Debug)]
struct Entry<F: Family> {
    key: NextHop,
    /// Destinations with a path over it.
    users: DestSet,
    /// Those who are about to put paths over it.
    holds: u32,
    resolution: Resolution<F>,
}

/// The next hops in use.
#[derive(Debug)]
pub struct NextHops<F: Family> {
    entries: Vec<Option<Entry<F>>>,
    free: Vec<u32>,
    by_key: BTreeMap<NextHop, NextHopId>,
    by_address: PrefixMap<Prefix<F>, SmallVec<[NextHopId; 1]>>,
    none: Resolution<F>,
}

impl<F: Family> Default for NextHops<F> {
    fn default() -> Self {
        NextHops {
            entries: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_address: PrefixMap::new(),
            none: Resolution::nowhere(Unresolved::NoRoute, None),
        }
    }
}

impl<F: Family> NextHops<F> {
    fn entry(&self, id: NextHopId) -> Option<&Entry<F>> {
        self.entries.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    fn entry_mut(&mut self, id: NextHopId) -> Option<&mut Entry<F>> {
        self.entries.get_mut(usize::try_from(id.0).ok()?)?.as_mut()
    }

    /// The handle of a next hop, held until [`NextHops::release`]. A new one is resolved by `resolve`.
    pub(super) fn hold(&mut self, key: NextHop, resolve: impl FnOnce() -> Resolution<F>) -> NextHopId {
        let known = self.by_key.get(&key).copied();
        let id = known.unwrap_or_else(|| self.begin(key, resolve()));
        if let Some(entry) = self.entry_mut(id) {
            entry.holds += 1;
        }
        id
    }

    fn begin(&mut self, key: NextHop, resolution: Resolution<F>) -> NextHopId {
        let entry = Some(Entry { key, users: DestSet::default(), holds: 0, resolution });
        let free = self.free.pop();
        let place = free.and_then(|at| self.entries.get_mut(usize::try_from(at).ok()?));
        let id = match (free, place) {
            (Some(index), Some(place)) => {
                *place = entry;
                NextHopId(index)
            }
            _ => {
                self.entries.push(entry);
                NextHopId(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.by_key.insert(key, id);
        if let Some(addr) = F::from_ip(key.addr()) {
            self.by_address.entry(Prefix::host(addr)).or_default().push(id);
        }
        id
    }

    /// Gives back what [`NextHops::hold`] gave.
    pub(super) fn release(&mut self, id: NextHopId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.holds = entry.holds.saturating_sub(1);
        }
        self.end_if_unused(id);
    }

    /// A path of this destination goes over it.
    pub(super) fn add_user(&mut self, id: NextHopId, user: DestId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.users.insert(user);
        }
    }

    /// No path of this destination goes over it any longer; the last one ends the tracking.
    pub(super) fn remove_user(&mut self, id: NextHopId, user: DestId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.users.remove(user);
        }
        self.end_if_unused(id);
    }

    fn end_if_unused(&mut self, id: NextHopId) {
        let unused = self.entry(id).filter(|entry| entry.holds == 0 && entry.users.is_empty());
        let Some(key) = unused.map(|entry| entry.key) else { return };
        if let Some(place) = usize::try_from(id.0).ok().and_then(|at| self.entries.get_mut(at)) {
            *place = None;
            self.free.push(id.0);
        }
        self.by_key.remove(&key);
        if let Some(addr) = F::from_ip(key.addr()) {
            let host = Prefix::host(addr);
            if let Some(list) = self.by_address.get_mut(&host) {
                list.retain(|other| *other != id);
                if list.is_empty() {
                    self.by_address.remove(&host);
                }
            }
        }
    }

    /// Where a tracked next hop leads.
    pub fn resolution(&self, id: NextHopId) -> &Resolution<F> {
        self.entry(id).map_or(&self.none, |entry| &entry.resolution)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The tracked next hops that a route to `prefix` may concern.
    pub(super) fn inside(&self, prefix: &Prefix<F>) -> Vec<NextHopId> {
        self.by_address.children(prefix).flat_map(|(_, list)| list.iter().copied()).collect()
    }

    /// The destinations with a path over a next hop.
    pub(super) fn users(&self, id: NextHopId) -> Option<&DestSet> {
        self.entry(id).map(|entry| &entry.users)
    }

    /// The next hop behind a handle.
    pub(super) fn key(&self, id: NextHopId) -> Option<NextHop> {
        self.entry(id).map(|entry| entry.key)
    }

    /// Stores where it leads now. If that changed, whom it concerns.
    pub(super) fn store(&mut self, id: NextHopId, resolution: Resolution<F>) -> Option<&DestSet> {
        let entry = self.entry_mut(id).filter(|entry| entry.resolution != resolution)?;
        entry.resolution = resolution;
        Some(&entry.users)
    }
}

/// Whether it is an address that a host may have, as far as that can be told by looking at it: that of an IPv6 pair is
/// its first one. 169.254.0.0/16 is not special (KRT-11).
pub fn is_host(next_hop: NextHop) -> bool {
    match next_hop.addr() {
        IpAddr::V4(addr) => !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast()),
        IpAddr::V6(addr) => !(addr.is_unspecified() || addr.is_multicast() || addr.is_unicast_link_local()),
    }
}

/// Where `next_hop` leads, by longest match (KRT-44, KRT-45, KRT-47).
pub(super) fn resolve<F: Family>(
    table: &Dests<F>,
    connected: &Connected<F>,
    next_hop: NextHop,
) -> Resolution<F> {
    let Some(addr) = F::from_ip(next_hop.addr()) else {
        return Resolution::nowhere(Unresolved::OtherFamily, None);
    };
    if !is_host(next_hop) {
        return Resolution::nowhere(Unresolved::NoHost, None);
    }
    if connected.is_own(addr) {
        return Resolution::nowhere(Unresolved::OwnAddress, None);
    }
    let Some((prefix, lead)) = table.longest_match(Prefix::host(addr)) else {
        return Resolution::nowhere(Unresolved::NoRoute, None);
    };
    if prefix.is_default() && connected.is_home(addr) {
        return Resolution::nowhere(Unresolved::OnlyDefault, Some(prefix));
    }
    let through = Some(prefix);
    // On a connected link the kernel is given the link-local address where the peer sent one.
    let on_link = match next_hop {
        NextHop::V6 { link_local: Some(link_local), .. } if !link_local.is_unspecified() => link_local.into(),
        _ => addr.into(),
    };
    match lead {
        Lead::Nothing => Resolution::nowhere(Unresolved::NoRoute, None),
        Lead::Recursive => Resolution::nowhere(Unresolved::ThroughBgp(prefix), through),
        Lead::Connected(ifindex) => Resolution {
            forward: Forward::Legs(smallvec![Leg {
                via: Some(on_link),
                ifindex: *ifindex,
                onlink: false,
                weight: 1
            }]),
            igp_metric: 0,
            through,
            unresolved: None,
        },
        Lead::Over(forward) => match &**forward {
            Forward::Legs(legs) => {
                let device = legs.len() == 1 && legs.iter().all(|leg| leg.via.is_none());
                let legs = legs.iter().map(|leg| Leg { via: leg.via.or(Some(on_link)), ..*leg }).collect();
                Resolution {
                    forward: Forward::Legs(legs),
                    igp_metric: if device { 0 } else { IGP_UNKNOWN },
                    through,
                    unresolved: None,
                }
            }
            other => Resolution { forward: other.clone(), igp_metric: 0, through, unresolved: None },
        },
    }
}
