//! What the kernel tells, as routes: connected prefixes (KRT-4 to KRT-7) and routes of others (KRT-11 to KRT-15).
//!
//! Owns: the interfaces with their names and addresses. Never: writes to the kernel; routes with our own protocol
//! number do not come in here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::rib::{Forward, KernelRoute, LocalAddress, LocalRoute, LocalSource, Rib};
use bgp_proto::{Family, IpPrefix, Prefix};
use smallvec::SmallVec;

use crate::fib::{Address, AlienRoute, Link, Target};
use crate::policy::glob;

/// The interfaces as the kernel has them.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    links: BTreeMap<u32, Link>,
    by_name: BTreeMap<String, u32>,
    addresses: BTreeMap<u32, BTreeMap<(IpAddr, IpPrefix), Address>>,
    /// Which prefixes of others lead over each interface.
    aliens: BTreeMap<u32, BTreeSet<IpPrefix>>,
    over: BTreeMap<IpPrefix, SmallVec<[u32; 1]>>,
}

/// What became of an interface.
#[derive(Debug, Default)]
pub(super) struct LinkChange {
    /// It had another name before: filters may answer otherwise.
    pub renamed: bool,
    /// The names under which an interface came or went, or is another than before.
    pub names: Vec<String>,
}

impl Interfaces {
    /// Takes a link.
    pub fn set_link(&mut self, link: Link) -> LinkChange {
        let (index, name) = (link.index, link.name.clone());
        let old = self.links.insert(index, link);
        let mut names = Vec::new();
        let renamed = old.is_none_or(|old| {
            let renamed = old.name != name;
            if renamed && self.by_name.get(&old.name) == Some(&index) {
                self.by_name.remove(&old.name);
                names.push(old.name);
            }
            renamed
        });
        self.by_name.insert(name.clone(), index);
        names.push(name);
        LinkChange { renamed, names }
    }

    /// Forgets a link; the answer is its name.
    pub fn remove_link(&mut self, ifindex: u32) -> Option<String> {
        self.addresses.remove(&ifindex);
        let name = self.links.remove(&ifindex)?.name;
        if self.by_name.get(&name) == Some(&ifindex) {
            self.by_name.remove(&name);
        }
        Some(name)
    }

    /// Index of the interface of this name, if it is up.
    pub fn up_by_name(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied().filter(|index| self.links.get(index).is_some_and(|link| link.up))
    }

    /// Takes an address; the answer is what it said before.
    pub fn add_address(&mut self, address: Address) -> Option<Address> {
        let of_link = self.addresses.entry(address.ifindex).or_default();
        of_link.insert((address.addr, address.prefix), address)
    }

    /// Forgets an address; the answer is what it said.
    pub fn remove_address(&mut self, address: &Address) -> Option<Address> {
        let of_link = self.addresses.get_mut(&address.ifindex)?;
        let old = of_link.remove(&(address.addr, address.prefix));
        if of_link.is_empty() {
            self.addresses.remove(&address.ifindex);
        }
        old
    }

    /// Notes over which interfaces the foreign route of a prefix leads.
    pub fn alien(&mut self, prefix: IpPrefix, route: Option<&AlienRoute>) {
        for ifindex in self.over.remove(&prefix).unwrap_or_default() {
            if let Some(prefixes) = self.aliens.get_mut(&ifindex) {
                prefixes.remove(&prefix);
                if prefixes.is_empty() {
                    self.aliens.remove(&ifindex);
                }
            }
        }
        let legs = route.map_or(&[][..], |route| route.target.legs());
        let mut over: SmallVec<[u32; 1]> = legs.iter().map(|leg| leg.ifindex).collect();
        over.dedup();
        for ifindex in &over {
            self.aliens.entry(*ifindex).or_default().insert(prefix);
        }
        if !over.is_empty() {
            self.over.insert(prefix, over);
        }
    }

    /// Whether any route can lead over an interface: it has an address, or a foreign route leads over it. All others
    /// resolve through one of the two.
    pub fn carries(&self, ifindex: u32) -> bool {
        self.addresses.contains_key(&ifindex) || self.aliens.contains_key(&ifindex)
    }

    /// Name of an interface; empty if it is not known.
    pub fn name(&self, ifindex: u32) -> &str {
        self.links.get(&ifindex).map_or("", |link| link.name.as_str())
    }

    /// Name of the interface that a route leaves through, as filters see it.
    pub fn name_of(&self, forward: &Forward) -> &str {
        forward.interface().map_or("", |ifindex| self.name(ifindex))
    }

    /// Links with their addresses.
    pub fn all(&self) -> Vec<(Link, Vec<Address>)> {
        let addresses = |index| {
            self.addresses.get(index).map(|held| held.values().copied().collect()).unwrap_or_default()
        };
        self.links.iter().map(|(index, link)| (link.clone(), addresses(index))).collect()
    }

    pub fn indexes(&self) -> Vec<u32> {
        self.addresses
            .keys()
            .chain(self.links.keys())
            .copied()
            .collect::<BTreeSet<u32>>()
            .into_iter()
            .collect()
    }

    /// The name of an interface that is up.
    fn usable(&self, ifindex: u32) -> Option<&str> {
        self.links.get(&ifindex).filter(|link| link.up).map(|link| link.name.as_str())
    }

    fn addresses(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        self.addresses.get(&ifindex).into_iter().flat_map(BTreeMap::values)
    }
}

/// Which connected prefixes of each interface are in one family's table.
#[derive(Debug)]
pub(super) struct Direct<F: Family> {
    /// How many addresses open each.
    routes: BTreeMap<u32, BTreeMap<Prefix<F>, u32>>,
}

impl<F: Family> Default for Direct<F> {
    fn default() -> Self {
        Direct { routes: BTreeMap::new() }
    }
}

impl<F: Family> Direct<F> {
    /// Brings the table into agreement with one interface.
    pub fn update(&mut self, rib: &mut Rib<F>, interfaces: &Interfaces, ignored: &[String], ifindex: u32) {
        let mut local = Vec::new();
        let mut routes: BTreeMap<Prefix<F>, u32> = BTreeMap::new();
        if let Some(name) = interfaces.usable(ifindex) {
            let is_source = !glob::any(ignored, name);
            for address in interfaces.addresses(ifindex) {
                let Some(here) = local_address::<F>(address, is_source) else { continue };
                local.push(here);
                if is_source && opens_route(address) {
                    *routes.entry(here.prefix).or_default() += 1;
                }
            }
        }
        rib.set_addresses(ifindex, local);
        let old = self.routes.remove(&ifindex).unwrap_or_default();
        for prefix in old.keys().filter(|prefix| !routes.contains_key(prefix)) {
            rib.remove_local(*prefix, LocalSource::Direct(ifindex));
        }
        for prefix in routes.keys().filter(|prefix| !old.contains_key(prefix)) {
            rib.put_local(*prefix, LocalRoute::Direct(ifindex));
        }
        if !routes.is_empty() {
            self.routes.insert(ifindex, routes);
        }
    }

    /// The same where one address of an interface changed, for the cost of that address.
    pub fn change(
        &mut self,
        rib: &mut Rib<F>,
        interfaces: &Interfaces,
        ignored: &[String],
        old: Option<Address>,
        new: Option<Address>,
    ) {
        let Some(ifindex) = old.or(new).map(|address| address.ifindex) else { return };
        let Some(name) = interfaces.usable(ifindex) else { return };
        let is_source = !glob::any(ignored, name);
        let opens = |address: &&Address| is_source && opens_route(address);
        let prefix = |address: Option<Address>| {
            let address = address.as_ref().filter(opens)?;
            local_address::<F>(address, is_source).map(|here| here.prefix)
        };
        let (was, is) = (prefix(old), prefix(new));
        // What comes before what goes: a prefix that stays is never without its route.
        let local = |address: Option<Address>| local_address::<F>(&address?, is_source);
        if let Some(here) = local(new) {
            rib.add_address(ifindex, here);
        } else if let Some(gone) = local(old) {
            rib.remove_address(ifindex, gone);
        }
        if let Some(prefix) = is {
            let count = self.routes.entry(ifindex).or_default().entry(prefix).or_default();
            *count += 1;
            if *count == 1 {
                rib.put_local(prefix, LocalRoute::Direct(ifindex));
            }
        }
        if let Some(prefix) = was
            && let Some(routes) = self.routes.get_mut(&ifindex)
            && let Some(count) = routes.get_mut(&prefix)
        {
            *count -= 1;
            if *count == 0 {
                routes.remove(&prefix);
                if routes.is_empty() {
                    self.routes.remove(&ifindex);
                }
                rib.remove_local(prefix, LocalSource::Direct(ifindex));
            }
        }
    }
}

fn local_address<F: Family>(address: &Address, connected: bool) -> Option<LocalAddress<F>> {
    Some(LocalAddress {
        addr: F::from_ip(address.addr)?,
        prefix: Prefix::from_ip(address.prefix)?,
        connected,
    })
}

/// KRT-5, KRT-6.
const fn opens_route(address: &Address) -> bool {
    !address.secondary && !address.narrow
}

/// Puts the foreign route of a prefix into the table, or takes it out.
pub(super) fn alien<F: Family>(rib: &mut Rib<F>, prefix: Prefix<F>, route: Option<AlienRoute>) {
    match route {
        Some(route) => {
            let (metric, protocol) = (route.metric, route.protocol);
            let route = KernelRoute { forward: forward(&route.target), metric, protocol };
            rib.put_local(prefix, LocalRoute::Kernel(Box::new(route)));
        }
        None => rib.remove_local(prefix, LocalSource::Kernel),
    }
}

fn forward(target: &Target) -> Forward {
    match target {
        Target::Blackhole => Forward::Blackhole,
        Target::Unreachable => Forward::Unreachable,
        Target::Prohibit => Forward::Prohibit,
        Target::Unicast(legs) => Forward::Legs(legs.clone()),
    }
}
