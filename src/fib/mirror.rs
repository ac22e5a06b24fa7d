//! The kernel as last heard.
//!
//! Owns: links, addresses and the routes of table main in both families, as a dump and the notifications after it
//! told them, and what of it the speaker has been told. Never: asks the kernel anything, or decides what to write.
//! Inputs: [`KernelDump`] and [`Notice`], in the order of the kernel's own stream. Outputs: [`KernelEvent`]s for the
//! speaker, the prefixes that changed, and lookups for [`super::plan`].
//!
//! Rules: KRT-4 to KRT-6 (addresses), KRT-11 (prefixes), KRT-12 to KRT-14 (routes of others). Core.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

use bgp_proto::prefix::is_link_local;
use bgp_proto::rib::is_ordinary;
use bgp_proto::{Afi, IpPrefix};
use smallvec::SmallVec;

use super::{Address, AlienRoute, KernelEvent, Leg, Link, PROTOCOL, Target};

/// A route of table main as the kernel has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteSeen {
    /// RTA_PRIORITY as stored: in IPv6 never 0.
    pub metric: u32,
    /// rtm_protocol.
    pub protocol: u8,
    /// Where it leads, normalized. `None`: a kind that we do not read (throw, local, ...); it only holds its key.
    pub target: Option<Target>,
    /// It says nothing beyond what a [`super::FibRoute`] can say: no preferred source, no MTU, no encapsulation.
    pub plain: bool,
}

/// An address of an interface, and what the kernel says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressSeen {
    /// The address.
    pub address: Address,
    /// IPv6 duplicate detection has not finished, or has failed: not usable (KRT-5).
    pub tentative: bool,
}

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelDump {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<AddressSeen>,
    /// All routes of table main; routes of one prefix in the kernel's order.
    pub routes: Vec<(IpPrefix, RouteSeen)>,
}

/// One thing that the kernel said after a [`KernelDump`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A link appeared or changed.
    Link(Link),
    /// A link went.
    LinkGone(u32),
    /// An address appeared or changed.
    Address(AddressSeen),
    /// An address went.
    AddressGone(Address),
    /// A route appeared.
    Route {
        /// The prefix.
        prefix: IpPrefix,
        /// The route; of an IPv6 multipath route always the whole.
        route: RouteSeen,
        /// It took the place of the first route with this prefix and metric.
        replaces: bool,
        /// It answers a request of ours.
        echo: bool,
    },
    /// A route went; of an IPv6 multipath route perhaps one leg only.
    RouteGone {
        /// The prefix.
        prefix: IpPrefix,
        /// The route, or the leg of it.
        route: RouteSeen,
        /// It answers a request of ours.
        echo: bool,
    },
}

/// Addresses of this scope produce no direct route (KRT-6): loopback, and IPv6 link-local. 169.254/16 is ordinary.
pub fn is_narrow(addr: IpAddr) -> bool {
    addr.is_loopback() || is_link_local(addr)
}

type Entries = SmallVec<[RouteSeen; 1]>;
/// An address of one link and the prefix it opens.
type AddressKey = (IpAddr, IpPrefix);
type Addresses = BTreeMap<AddressKey, AddressSeen>;
/// A link and the gateway on it.
type Hop = (u32, Option<IpAddr>);

/// The kernel as last heard.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, Addresses>,
    routes: BTreeMap<IpPrefix, Entries>,
    /// Which prefixes have a leg over a link and gateway, so that the change of a link or an address costs what hangs on
    /// it and no more (K9).
    by_hop: BTreeMap<Hop, BTreeSet<IpPrefix>>,
    told: Told,
    dirty: Dirty,
    changed: BTreeSet<IpPrefix>,
    doubtful: bool,
    reachability: u64,
}

/// What the speaker knows.
#[derive(Clone, Debug, Default)]
struct Told {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, BTreeMap<AddressKey, Address>>,
    aliens: BTreeMap<IpPrefix, AlienRoute>,
}

/// What the speaker may not know yet.
#[derive(Clone, Debug, Default)]
struct Dirty {
    links: BTreeSet<u32>,
    addresses: BTreeSet<(u32, AddressKey)>,
    prefixes: BTreeSet<IpPrefix>,
}

impl Mirror {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a snapshot in the place of everything heard before. What did not change causes no event.
    pub fn load(&mut self, snapshot: KernelDump) {
        self.doubtful = false;
        let links: BTreeMap<u32, Link> = snapshot.links.into_iter().map(|l| (l.index, l)).collect();
        let mut addresses: BTreeMap<u32, Addresses> = BTreeMap::new();
        for seen in snapshot.addresses {
            let key = (seen.address.addr, seen.address.prefix);
            addresses.entry(seen.address.ifindex).or_default().insert(key, seen);
        }
        let mut routes: BTreeMap<IpPrefix, Entries> = BTreeMap::new();
        for (prefix, route) in snapshot.routes {
            routes.entry(prefix).or_default().push(route);
        }
        let touched = |old: &mut dyn Iterator<Item = u32>, new: &mut dyn Iterator<Item = u32>| {
            old.chain(new).collect::<BTreeSet<u32>>()
        };
        for index in touched(&mut self.links.keys().copied(), &mut links.keys().copied()) {
            if self.links.get(&index) != links.get(&index) {
                self.touch_link(index);
            }
        }
        for index in touched(&mut self.addresses.keys().copied(), &mut addresses.keys().copied()) {
            let (old, new) = (self.addresses.get(&index), addresses.get(&index));
            if old == new {
                continue;
            }
            let keys = |all: Option<&Addresses>| all.into_iter().flatten().map(|(key, _)| *key).collect();
            let (was, is): (BTreeSet<AddressKey>, BTreeSet<AddressKey>) = (keys(old), keys(new));
            let differs =
                |key: &&AddressKey| old.and_then(|old| old.get(*key)) != new.and_then(|new| new.get(*key));
            let changed: Vec<AddressKey> = was.union(&is).filter(differs).copied().collect();
            for key in changed {
                self.touch_address(index, key);
            }
        }
        self.links = links;
        self.addresses = addresses;
        let old = std::mem::take(&mut self.routes);
        for prefix in old.keys().filter(|p| !routes.contains_key(*p)) {
            self.dirty.prefixes.insert(*prefix);
            self.changed.insert(*prefix);
        }
        for (prefix, entries) in &routes {
            if old.get(prefix) != Some(entries) {
                self.dirty.prefixes.insert(*prefix);
                self.changed.insert(*prefix);
            }
        }
        self.by_hop.clear();
        for (prefix, entries) in &routes {
            for hop in hops_of(entries) {
                self.by_hop.entry(hop).or_default().insert(*prefix);
            }
        }
        self.routes = routes;
    }

    /// Takes one notice.
    pub fn apply(&mut self, notice: Notice) {
        match notice {
            Notice::Link(link) => {
                let index = link.index;
                let goes_down = !link.up;
                let before = self.links.insert(index, link.clone());
                if before.as_ref() != Some(&link) {
                    self.touch_link(index);
                    if goes_down && before.is_some_and(|before| before.up) {
                        self.drop_silent(index);
                    }
                }
            }
            Notice::LinkGone(index) => {
                if self.links.remove(&index).is_some() {
                    self.touch_link(index);
                    self.drop_silent(index);
                }
                for key in self.addresses.remove(&index).unwrap_or_default().into_keys() {
                    self.touch_address(index, key);
                }
            }
            Notice::Address(seen) => {
                let key = (seen.address.addr, seen.address.prefix);
                let index = seen.address.ifindex;
                if self.addresses.entry(index).or_default().insert(key, seen) != Some(seen) {
                    self.touch_address(index, key);
                }
            }
            Notice::AddressGone(address) => {
                let Some(there) = self.addresses.get_mut(&address.ifindex) else { return };
                let key = (address.addr, address.prefix);
                if there.remove(&key).is_some() {
                    if there.is_empty() {
                        self.addresses.remove(&address.ifindex);
                    }
                    self.touch_address(address.ifindex, key);
                    // The kernel drops IPv4 routes that prefer this source without a word, and all of them at the last
                    // address.
                    self.doubtful |= address.addr.is_ipv4();
                }
            }
            Notice::Route { prefix, route, replaces, echo: _ } => self.route_is(prefix, route, replaces),
            Notice::RouteGone { prefix, route, echo: _ } => self.route_went(prefix, &route),
        }
    }

    fn route_is(&mut self, prefix: IpPrefix, route: RouteSeen, replaces: bool) {
        let merges = prefix.afi() == Afi::Ipv6 && is_ecmp(&route);
        let mut entries = self.routes.remove(&prefix).unwrap_or_default();
        self.unindex(prefix, &entries);
        let at_key = |e: &RouteSeen| e.metric == route.metric;
        if replaces {
            // The kernel replaces the first route of the key; which one that is we know for certain only if there
            // is no other.
            self.doubtful |= entries.iter().filter(|e| at_key(e)).count() > 1;
            match entries.iter_mut().find(|e| at_key(e)) {
                Some(entry) => *entry = route,
                None => entries.push(route),
            }
        } else if merges {
            // IPv6 keeps all gateways of one prefix and metric as one route, and tells it whole.
            match entries.iter_mut().find(|e| at_key(e) && is_ecmp(e)) {
                Some(entry) => {
                    // The whole shows as its first member's, but the notice has the protocol of the new one. And who
                    // owns which leg nobody says.
                    self.doubtful |= entry.protocol != route.protocol;
                    *entry = RouteSeen { protocol: entry.protocol, ..route };
                }
                None => entries.push(route),
            }
        } else if !entries.contains(&route) {
            entries.push(route);
        }
        self.put(prefix, entries);
    }

    fn route_went(&mut self, prefix: IpPrefix, gone: &RouteSeen) {
        let Some(mut entries) = self.routes.remove(&prefix) else { return };
        self.unindex(prefix, &entries);
        let exact = entries.iter().position(|e| e == gone);
        let alike = |e: &RouteSeen| e.metric == gone.metric && e.target == gone.target;
        if let Some(at) = exact.or_else(|| entries.iter().position(alike)) {
            entries.remove(at);
        } else if let Some(at) = entries.iter().position(|e| e.metric == gone.metric && holds_legs(e, gone)) {
            if let Some(entry) = entries.get_mut(at) {
                let lost = gone.target.as_ref().map_or(&[][..], Target::legs);
                if let Some(Target::Unicast(legs)) = &mut entry.target {
                    legs.retain(|leg| !lost.iter().any(|l| same_hop(l, leg)));
                }
                if let Some(target) = &mut entry.target {
                    target.normalize();
                }
            }
        } else if entries.iter().any(|e| e.metric == gone.metric) {
            // Something of this key went, and we cannot say what.
            self.doubtful = true;
        }
        self.put(prefix, entries);
    }

    /// The kernel drops IPv4 routes of a link that goes down without a word: those with no other leg that is alive.
    /// What becomes of the dead leg of the others differs; a dump tells.
    fn drop_silent(&mut self, index: u32) {
        let over: BTreeSet<IpPrefix> = self.over_link(index).filter(|p| p.afi() == Afi::Ipv4).collect();
        for prefix in over {
            let Some(mut entries) = self.routes.remove(&prefix) else { continue };
            self.unindex(prefix, &entries);
            let links = &self.links;
            let alive = |leg: &Leg| links.get(&leg.ifindex).is_some_and(|link| link.up);
            entries.retain(|entry| {
                let legs = entry.target.as_ref().map_or(&[][..], Target::legs);
                legs.is_empty() || legs.iter().any(alive)
            });
            let concerned = |hop: Hop| hop.0 == index;
            self.doubtful |= hops_of(&entries).any(concerned);
            self.put(prefix, entries);
        }
    }

    /// The prefixes with a leg on a link.
    fn over_link(&self, index: u32) -> impl Iterator<Item = IpPrefix> {
        self.by_hop
            .range((index, None)..)
            .take_while(move |(hop, _)| hop.0 == index)
            .flat_map(|(_, all)| all)
            .copied()
    }

    fn put(&mut self, prefix: IpPrefix, entries: Entries) {
        for hop in hops_of(&entries) {
            if self.by_hop.entry(hop).or_default().insert(prefix) {
                self.touch_gateways(hop, prefix);
            }
        }
        if !entries.is_empty() {
            self.routes.insert(prefix, entries);
        }
        self.dirty.prefixes.insert(prefix);
        self.changed.insert(prefix);
    }

    fn unindex(&mut self, prefix: IpPrefix, entries: &Entries) {
        for hop in hops_of(entries) {
            if let Some(prefixes) = self.by_hop.get_mut(&hop) {
                prefixes.remove(&prefix);
                if prefixes.is_empty() {
                    self.by_hop.remove(&hop);
                }
            }
            self.touch_gateways(hop, prefix);
        }
    }

    /// A route over a link alone came or went: aliens whose gateways it leads to hang on that.
    fn touch_gateways(&mut self, (index, via): Hop, prefix: IpPrefix) {
        if via.is_some() {
            return;
        }
        let on_link = self.by_hop.range((index, None)..).take_while(|(hop, _)| hop.0 == index);
        let concerned = on_link.filter(|((_, via), _)| via.is_some_and(|via| prefix.contains(via)));
        self.dirty.prefixes.extend(concerned.flat_map(|(_, prefixes)| prefixes));
    }

    fn touch_link(&mut self, index: u32) {
        self.reachability = self.reachability.wrapping_add(1);
        self.dirty.links.insert(index);
        let told = self.told.addresses.get(&index).into_iter().flat_map(BTreeMap::keys);
        let seen = self.addresses.get(&index).into_iter().flat_map(BTreeMap::keys);
        self.dirty.addresses.extend(told.chain(seen).map(|key| (index, *key)));
        // Whether an alien's gateway can be believed hangs on the link and its addresses (KRT-13).
        let over: Vec<IpPrefix> = self.over_link(index).collect();
        self.dirty.prefixes.extend(over);
    }

    fn touch_address(&mut self, index: u32, key: AddressKey) {
        self.reachability = self.reachability.wrapping_add(1);
        self.dirty.addresses.insert((index, key));
        let (addr, prefix) = key;
        let on_link = self.by_hop.range((index, None)..).take_while(|(hop, _)| hop.0 == index);
        let concerned =
            on_link.filter(|((_, via), _)| via.is_some_and(|via| via == addr || prefix.contains(via)));
        self.dirty.prefixes.extend(concerned.flat_map(|(_, prefixes)| prefixes));
    }

    /// The routes of a prefix, in the kernel's order as far as it is known.
    pub fn routes_at(&self, prefix: IpPrefix) -> &[RouteSeen] {
        self.routes.get(&prefix).map_or(&[], |entries| entries.as_slice())
    }

    /// The prefixes with a route of ours.
    pub fn owned(&self) -> impl Iterator<Item = IpPrefix> {
        self.owned_after(None)
    }

    /// The same, after one of them.
    pub fn owned_after(&self, after: Option<IpPrefix>) -> impl Iterator<Item = IpPrefix> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.routes.range((from, Bound::Unbounded));
        rest.filter(|(_, entries)| entries.iter().any(|e| e.protocol == PROTOCOL)).map(|(prefix, _)| *prefix)
    }

    /// How many routes are known.
    pub fn len(&self) -> usize {
        self.routes.values().map(|entries| entries.len()).sum()
    }

    /// Whether no route is known.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The link of an index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The prefixes whose routes changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<IpPrefix> {
        std::mem::take(&mut self.changed)
    }

    /// Whether the kernel may have changed without telling: a new [`KernelDump`] is due.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// A number that changes with every change of a link or an address: what could not be reached then may be now.
    pub fn reachability(&self) -> u64 {
        self.reachability
    }

    /// The next thing that the speaker does not know: links, then addresses, then routes.
    pub fn next_event(&mut self) -> Option<KernelEvent> {
        while let Some(index) = self.dirty.links.pop_first() {
            match self.links.get(&index) {
                Some(link) if self.told.links.get(&index) == Some(link) => {}
                Some(link) => {
                    self.told.links.insert(index, link.clone());
                    return Some(KernelEvent::Link(link.clone()));
                }
                None => {
                    if self.told.links.remove(&index).is_some() {
                        self.told.addresses.remove(&index);
                        return Some(KernelEvent::LinkGone(index));
                    }
                }
            }
        }
        while let Some((index, key)) = self.dirty.addresses.pop_first() {
            let usable = self.usable_address(index, key);
            let told = self.told.addresses.get(&index).and_then(|all| all.get(&key)).copied();
            match (told, usable) {
                (old, Some(new)) if old != Some(new) => {
                    self.told.addresses.entry(index).or_default().insert(key, new);
                    return Some(KernelEvent::Address(new));
                }
                (Some(old), None) => {
                    if let Some(all) = self.told.addresses.get_mut(&index) {
                        all.remove(&key);
                        if all.is_empty() {
                            self.told.addresses.remove(&index);
                        }
                    }
                    return Some(KernelEvent::AddressGone(old));
                }
                _ => {}
            }
        }
        while let Some(prefix) = self.dirty.prefixes.pop_first() {
            let alien = self.alien(prefix);
            if self.told.aliens.get(&prefix) != alien.as_ref() {
                match &alien {
                    Some(alien) => self.told.aliens.insert(prefix, alien.clone()),
                    None => self.told.aliens.remove(&prefix),
                };
                return Some(KernelEvent::Alien(prefix, alien));
            }
        }
        None
    }

    /// The address if it counts: its link is up, and it is past duplicate detection (KRT-4, KRT-5).
    fn usable_address(&self, index: u32, key: AddressKey) -> Option<Address> {
        self.links.get(&index).filter(|link| link.up)?;
        let seen = self.addresses.get(&index)?.get(&key)?;
        (!seen.tentative).then_some(seen.address)
    }

    /// The alien of lowest metric that can be believed (KRT-12 to KRT-14).
    fn alien(&self, prefix: IpPrefix) -> Option<AlienRoute> {
        if !is_ordinary(prefix) {
            return None;
        }
        let believed = |seen: &RouteSeen| {
            if matches!(seen.protocol, 0 | 1 | 2 | PROTOCOL) {
                return None;
            }
            let target = self.believed(seen.target.as_ref()?)?;
            Some(AlienRoute { target, metric: seen.metric, protocol: seen.protocol })
        };
        // `min_by_key` takes the first of equals, as the kernel does.
        self.routes_at(prefix).iter().filter_map(believed).min_by_key(|alien| alien.metric)
    }

    /// The target without dead legs; `None` if a next hop is strange (KRT-13).
    fn believed(&self, target: &Target) -> Option<Target> {
        let Target::Unicast(legs) = target else { return Some(target.clone()) };
        let alive: SmallVec<[Leg; 1]> = match legs.as_slice() {
            [_] => legs.clone(),
            _ => legs.iter().filter(|leg| self.link(leg.ifindex).is_some_and(|l| l.up)).copied().collect(),
        };
        if alive.is_empty() || !alive.iter().all(|leg| self.is_plausible(leg)) {
            return None;
        }
        let mut target = Target::Unicast(alive);
        target.normalize();
        Some(target)
    }

    fn is_plausible(&self, leg: &Leg) -> bool {
        let Some(link) = self.link(leg.ifindex) else { return false };
        let Some(via) = leg.via else { return true };
        if matches!(via, IpAddr::V6(v6) if v6.to_bits() >> 32 == 0) {
            return false;
        }
        let seen = self.addresses.get(&leg.ifindex).into_iter().flat_map(BTreeMap::values);
        let mut usable = seen.filter(|seen| link.up && !seen.tentative).map(|seen| seen.address);
        if usable.clone().any(|address| address.addr == via) {
            return false;
        }
        leg.onlink || usable.any(|address| address.prefix.contains(via)) || self.is_on_link(via, leg.ifindex)
    }

    /// Whether a route over the link alone leads to an address, as on hosts whose own address has the mask of a host:
    /// the kernel takes such a gateway, and Calico's BIRD every one.
    fn is_on_link(&self, addr: IpAddr, ifindex: u32) -> bool {
        let Some(over) = self.by_hop.get(&(ifindex, None)) else { return false };
        let longest = IpPrefix::host(addr).len();
        (0..=longest).any(|len| IpPrefix::new(addr, len).is_some_and(|prefix| over.contains(&prefix)))
    }
}

fn hops_of(entries: &Entries) -> impl Iterator<Item = Hop> {
    entries.iter().filter_map(|e| e.target.as_ref()).flat_map(Target::legs).map(|leg| (leg.ifindex, leg.via))
}

/// What IPv6 merges into one multipath route: gateway routes.
fn is_ecmp(route: &RouteSeen) -> bool {
    let legs = route.target.as_ref().map_or(&[][..], Target::legs);
    !legs.is_empty() && legs.iter().all(|leg| leg.via.is_some())
}

fn same_hop(a: &Leg, b: &Leg) -> bool {
    (a.via, a.ifindex) == (b.via, b.ifindex)
}

/// Whether `part` is one or more of the legs of `whole`.
fn holds_legs(whole: &RouteSeen, part: &RouteSeen) -> bool {
    let (Some(Target::Unicast(all)), Some(Target::Unicast(some))) = (&whole.target, &part.target) else {
        return false;
    };
    some.len() < all.len() && some.iter().all(|leg| all.iter().any(|l| same_hop(l, leg)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib::fake::FakeKernel;
    use smallvec::smallvec;

    const FELIX: u8 = 80;

    fn p(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A kernel with eth0 (10.0.0.1/24), and its mirror, everything told.
    fn node() -> (FakeKernel, Mirror) {
        let mut kernel = FakeKernel::new();
        let eth0 = kernel.add_link("eth0");
        kernel.add_address(eth0, "10.0.0.1/24");
        kernel.add_address(eth0, "fd99::1/64");
        let mut mirror = Mirror::new();
        mirror.load(kernel.snapshot());
        events(&mut mirror);
        (kernel, mirror)
    }

    fn events(mirror: &mut Mirror) -> Vec<KernelEvent> {
        std::iter::from_fn(|| mirror.next_event()).collect()
    }

    fn catch_up(kernel: &mut FakeKernel, mirror: &mut Mirror) -> Vec<KernelEvent> {
        for notice in kernel.take_notices() {
            mirror.apply(notice);
        }
        events(mirror)
    }

    fn seen(protocol: u8, metric: u32, target: Target) -> RouteSeen {
        RouteSeen { metric, protocol, target: Some(target), plain: true }
    }

    fn gateways(vias: &[&str]) -> Target {
        let legs = vias.iter().map(|v| Leg { via: Some(ip(v)), ifindex: 2, onlink: false, weight: 1 });
        let mut target = Target::Unicast(legs.collect());
        target.normalize();
        target
    }

    #[test]
    fn an_alien_outside_ordinary_unicast_is_not_told() {
        let (mut kernel, mut mirror) = node();
        for text in
            ["0.0.0.0/1", "127.7.0.0/16", "224.0.0.0/4", "0.1.0.0/16", "fe80::/64", "ff00::/8", "::/1"]
        {
            kernel.add_route(p(text), 4, 0, Target::Blackhole);
        }
        catch_up(&mut kernel, &mut mirror);
        let told: Vec<IpPrefix> = mirror.told.aliens.keys().copied().collect();
        assert_eq!(told, [p("0.0.0.0/1"), p("::/1")]);
    }

    #[test]
    fn at_start_links_come_before_addresses_and_addresses_before_routes() {
        let (mut kernel, _) = node();
        let target = kernel.via(Some(ip("10.0.0.254")), "eth0", false).unwrap();
        kernel.add_route(p("0.0.0.0/0"), 4, 0, target);
        let rank = |event: &KernelEvent| match event {
            KernelEvent::Link(_) | KernelEvent::LinkGone(_) => 0,
            KernelEvent::Address(_) | KernelEvent::AddressGone(_) => 1,
            KernelEvent::Alien(..) => 2,
            KernelEvent::Synced => 3,
        };
        let all = kernel.events();
        assert!(all.is_sorted_by_key(rank));
        assert_eq!(all.iter().filter(|e| rank(e) == 2).count(), 1);
    }

    #[test]
    fn the_alien_of_lowest_metric_is_told_and_the_next_when_it_goes() {
        let (mut kernel, mut mirror) = node();
        let block = p("10.244.1.0/26");
        kernel.add_route(block, 3, 200, Target::Blackhole);
        kernel.add_route(block, FELIX, 100, Target::Unreachable);
        let alien = |target, metric, protocol| AlienRoute { target, metric, protocol };
        let low = alien(Target::Unreachable, 100, FELIX);
        assert_eq!(catch_up(&mut kernel, &mut mirror), [KernelEvent::Alien(block, Some(low))]);
        kernel.remove_route(block, FELIX);
        let high = alien(Target::Blackhole, 200, 3);
        assert_eq!(catch_up(&mut kernel, &mut mirror), [KernelEvent::Alien(block, Some(high))]);
        kernel.remove_route(block, 3);
        assert_eq!(catch_up(&mut kernel, &mut mirror), [KernelEvent::Alien(block, None)]);
    }

    #[test]
    fn routes_of_the_kernel_of_redirects_and_of_ourselves_are_no_aliens() {
        let (mut kernel, mut mirror) = node();
        for protocol in [0, 1, 2, PROTOCOL] {
            kernel.add_route(p("10.244.1.0/26"), protocol, u32::from(protocol), Target::Blackhole);
        }
        assert_eq!(catch_up(&mut kernel, &mut mirror), []);
        assert_eq!(mirror.owned().collect::<Vec<_>>(), [p("10.244.1.0/26")]);
    }

    #[test]
    fn an_unread_kind_of_route_holds_its_key_but_is_not_told() {
        let (_, mut mirror) = node();
        let prefix = p("10.244.1.0/26");
        let route = RouteSeen { metric: 0, protocol: 4, target: None, plain: true };
        mirror.apply(Notice::Route { prefix, route: route.clone(), replaces: false, echo: false });
        assert_eq!(events(&mut mirror), []);
        assert_eq!(mirror.routes_at(prefix), [route]);
    }

    #[test]
    fn a_gateway_outside_the_links_subnets_is_strange_unless_onlink() {
        let (mut kernel, mut mirror) = node();
        let default = p("0.0.0.0/0");
        for (via, onlink, known) in [
            ("10.0.0.254", false, true),
            ("192.168.0.1", false, false),
            ("192.168.0.1", true, true),
            ("10.0.0.1", true, false),
        ] {
            let target = kernel.via(Some(ip(via)), "eth0", onlink).unwrap();
            kernel.add_route(default, 4, 0, target);
            catch_up(&mut kernel, &mut mirror);
            assert_eq!(mirror.told.aliens.contains_key(&default), known, "{via} {onlink}");
        }
    }

    #[test]
    fn a_gateway_to_which_a_route_over_the_link_leads_is_believed_as_long_as_that_is_there() {
        let (mut kernel, mut mirror) = node();
        let (default, gateway) = (p("0.0.0.0/0"), p("192.168.0.254/32"));
        let target = kernel.via(Some(ip("192.168.0.254")), "eth0", false).unwrap();
        kernel.add_route(default, 16, 0, target);
        assert_eq!(catch_up(&mut kernel, &mut mirror), []);
        let over = kernel.via(None, "eth0", false).unwrap();
        kernel.add_route(gateway, 4, 0, over.clone());
        catch_up(&mut kernel, &mut mirror);
        assert!(mirror.told.aliens.contains_key(&default));
        kernel.remove_route(gateway, 4);
        catch_up(&mut kernel, &mut mirror);
        assert!(!mirror.told.aliens.contains_key(&default));
    }

    #[test]
    fn an_alien_is_believed_as_soon_as_its_gateways_subnet_appears() {
        let (mut kernel, mut mirror) = node();
        let default = p("0.0.0.0/0");
        let target = kernel.via(Some(ip("192.168.0.254")), "eth0", false).unwrap();
        kernel.add_route(default, 4, 0, target);
        assert_eq!(catch_up(&mut kernel, &mut mirror), []);
        kernel.add_address(2, "192.168.0.1/24");
        let told = catch_up(&mut kernel, &mut mirror);
        assert!(matches!(told[..], [KernelEvent::Address(_), KernelEvent::Alien(_, Some(_))]), "{told:?}");
        kernel.remove_address(2, ip("192.168.0.1"));
        let told = catch_up(&mut kernel, &mut mirror);
        assert!(matches!(told[..], [KernelEvent::AddressGone(_), KernelEvent::Alien(_, None)]), "{told:?}");
    }

    #[test]
    fn a_tentative_address_is_not_usable_until_it_is_not() {
        let (_, mut mirror) = node();
        let prefix = p("fd98::/64");
        let address = Address { ifindex: 2, addr: ip("fd98::1"), prefix, secondary: false, narrow: false };
        mirror.apply(Notice::Address(AddressSeen { address, tentative: true }));
        assert_eq!(events(&mut mirror), []);
        mirror.apply(Notice::Address(AddressSeen { address, tentative: false }));
        let told = events(&mut mirror);
        assert_eq!(told, [KernelEvent::Address(address)]);
    }

    #[test]
    fn a_link_that_goes_down_has_no_usable_addresses_and_no_ipv4_routes() {
        let (mut kernel, mut mirror) = node();
        let default = p("0.0.0.0/0");
        let target = kernel.via(Some(ip("10.0.0.254")), "eth0", false).unwrap();
        kernel.add_route(default, 4, 0, target);
        catch_up(&mut kernel, &mut mirror);
        assert!(!mirror.is_doubtful());
        kernel.set_link(2, false);
        let told = catch_up(&mut kernel, &mut mirror);
        let down = Link { index: 2, name: "eth0".into(), up: false };
        assert!(told.contains(&KernelEvent::Link(down)), "{told:?}");
        let gone = told.iter().filter(|event| matches!(event, KernelEvent::AddressGone(_))).count();
        assert_eq!(gone, 2, "{told:?}");
        // The gateway is no longer on a usable subnet, so the alien is not waited for.
        assert!(told.contains(&KernelEvent::Alien(default, None)), "{told:?}");
        // IPv4 routes went without a word, and a dump would say nothing else.
        assert!(!mirror.is_doubtful() && mirror.routes_at(default).is_empty());
        mirror.take_changed();
        mirror.load(kernel.snapshot());
        assert_eq!(events(&mut mirror), []);
        assert!(mirror.take_changed().is_empty());
    }

    #[test]
    fn a_pods_interface_that_comes_and_goes_costs_its_own_events_and_no_dump() {
        let (mut kernel, mut mirror) = node();
        for n in 0..50 {
            kernel.add_route(p(&format!("10.7.{n}.0/24")), FELIX, 0, Target::Blackhole);
        }
        catch_up(&mut kernel, &mut mirror);
        let veth = kernel.add_link("cali1234");
        kernel.add_address(veth, "fe80::ecee:eeff:feee:eeee/64");
        let pod = kernel.via(None, "cali1234", false).unwrap();
        kernel.add_route(p("10.244.0.5/32"), 3, 1024, pod);
        assert_eq!(catch_up(&mut kernel, &mut mirror).len(), 3);
        kernel.remove_link(veth);
        let told = catch_up(&mut kernel, &mut mirror);
        let gone = [KernelEvent::LinkGone(veth), KernelEvent::Alien(p("10.244.0.5/32"), None)];
        assert_eq!(told, gone);
        assert!(!mirror.is_doubtful());
        mirror.take_changed();
        mirror.load(kernel.snapshot());
        assert_eq!(events(&mut mirror), []);
        assert!(mirror.take_changed().is_empty());
    }

    #[test]
    fn each_of_many_addresses_of_a_link_is_told_by_itself() {
        let (mut kernel, mut mirror) = node();
        let ipvs = kernel.add_link("kube-ipvs0");
        for n in 0..200 {
            kernel.add_address(ipvs, &format!("10.96.0.{n}/32"));
        }
        let told = catch_up(&mut kernel, &mut mirror);
        assert_eq!(told.iter().filter(|event| matches!(event, KernelEvent::Address(_))).count(), 200);
        kernel.add_address(ipvs, "10.96.1.1/32");
        assert_eq!(catch_up(&mut kernel, &mut mirror).len(), 1);
        kernel.remove_address(ipvs, ip("10.96.0.7"));
        assert!(
            matches!(catch_up(&mut kernel, &mut mirror)[..], [KernelEvent::AddressGone(gone)] if gone.addr == ip("10.96.0.7"))
        );
        // A dump finds single ones too.
        kernel.add_address(ipvs, "10.96.1.2/32");
        kernel.remove_address(ipvs, ip("10.96.1.1"));
        mirror.load(kernel.snapshot());
        assert_eq!(events(&mut mirror).len(), 2);
    }

    #[test]
    fn dead_legs_of_a_multipath_alien_are_left_out() {
        let (mut kernel, mut mirror) = node();
        let eth1 = kernel.add_link("eth1");
        kernel.add_address(eth1, "10.0.1.1/24");
        let leg = |via: &str, ifindex| Leg { via: Some(ip(via)), ifindex, onlink: false, weight: 1 };
        let both = smallvec![leg("10.0.0.254", 2), leg("10.0.1.254", eth1)];
        let prefix = p("10.9.0.0/16");
        kernel.add_route(prefix, 4, 0, Target::Unicast(both));
        catch_up(&mut kernel, &mut mirror);
        kernel.set_link(eth1, false);
        let told = catch_up(&mut kernel, &mut mirror);
        let alien = AlienRoute { target: gateways(&["10.0.0.254"]), metric: 0, protocol: 4 };
        assert!(told.contains(&KernelEvent::Alien(prefix, Some(alien))), "{told:?}");
    }

    #[test]
    fn a_snapshot_that_says_the_same_causes_no_event_and_no_change() {
        let (mut kernel, mut mirror) = node();
        kernel.add_route(p("10.244.1.0/26"), FELIX, 0, Target::Blackhole);
        catch_up(&mut kernel, &mut mirror);
        mirror.take_changed();
        mirror.load(kernel.snapshot());
        assert_eq!(events(&mut mirror), []);
        assert!(mirror.take_changed().is_empty());
    }

    #[test]
    fn a_snapshot_finds_what_was_missed() {
        let (mut kernel, mut mirror) = node();
        let (gone, new) = (p("10.244.1.0/26"), p("10.244.2.0/26"));
        kernel.add_route(gone, FELIX, 0, Target::Blackhole);
        catch_up(&mut kernel, &mut mirror);
        mirror.take_changed();
        kernel.remove_route(gone, FELIX);
        kernel.add_route(new, FELIX, 0, Target::Blackhole);
        kernel.remove_link(2);
        mirror.load(kernel.snapshot());
        let told = events(&mut mirror);
        assert!(told.contains(&KernelEvent::LinkGone(2)), "{told:?}");
        assert!(told.contains(&KernelEvent::Alien(gone, None)), "{told:?}");
        assert!(matches!(told.last(), Some(KernelEvent::Alien(x, Some(_))) if *x == new), "{told:?}");
        assert_eq!(mirror.take_changed().into_iter().collect::<Vec<_>>(), [gone, new]);
    }

    #[test]
    fn an_ipv6_multipath_route_is_told_whole_and_loses_legs_one_by_one() {
        let (_, mut mirror) = node();
        let prefix = p("fd00::/64");
        let is = |mirror: &mut Mirror, target, replaces| {
            mirror.apply(Notice::Route { prefix, route: seen(12, 1024, target), replaces, echo: false });
        };
        is(&mut mirror, gateways(&["fd99::2"]), false);
        is(&mut mirror, gateways(&["fd99::2", "fd99::3", "fd99::4"]), false);
        assert_eq!(mirror.routes_at(prefix).len(), 1);
        let gone = seen(12, 1024, gateways(&["fd99::3"]));
        mirror.apply(Notice::RouteGone { prefix, route: gone, echo: false });
        assert_eq!(mirror.routes_at(prefix), [seen(12, 1024, gateways(&["fd99::2", "fd99::4"]))]);
        is(&mut mirror, gateways(&["fd99::9"]), true);
        assert_eq!(mirror.routes_at(prefix), [seen(12, 1024, gateways(&["fd99::9"]))]);
        let gone = seen(12, 1024, gateways(&["fd99::9"]));
        mirror.apply(Notice::RouteGone { prefix, route: gone, echo: false });
        assert!(mirror.is_empty() && !mirror.is_doubtful());
    }

    #[test]
    fn ipv6_link_routes_of_two_links_share_a_prefix_and_metric() {
        let (_, mut mirror) = node();
        let prefix = p("fd00::/64");
        for ifindex in [2, 3] {
            let target = Target::Unicast(smallvec![Leg { via: None, ifindex, onlink: false, weight: 1 }]);
            mirror.apply(Notice::Route { prefix, route: seen(2, 256, target), replaces: false, echo: false });
        }
        assert_eq!(mirror.routes_at(prefix).len(), 2);
    }

    #[test]
    fn a_deletion_that_fits_no_known_route_of_its_key_asks_for_a_dump() {
        let (_, mut mirror) = node();
        let prefix = p("10.1.0.0/16");
        mirror.apply(Notice::Route {
            prefix,
            route: seen(4, 5, Target::Blackhole),
            replaces: false,
            echo: false,
        });
        mirror.apply(Notice::RouteGone { prefix, route: seen(4, 5, Target::Unreachable), echo: false });
        assert!(mirror.is_doubtful());
    }
}
