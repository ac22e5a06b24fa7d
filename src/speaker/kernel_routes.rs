//! What the kernel tells, as routes: connected prefixes (KRT-4 to KRT-7) and routes of others (KRT-11 to KRT-15).
//!
//! Owns: the interfaces with their names and addresses. Never: writes to the kernel; routes with our own protocol
//! number do not come in here.

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::rib::{Forward, KernelRoute, LocalAddress, LocalRoute, LocalSource, Rib};
use bgp_proto::{Family, Prefix};

use crate::fib::{Address, AlienRoute, Link, Target};
use crate::policy::glob;

/// The interfaces as the kernel has them.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    links: BTreeMap<u32, Link>,
    by_name: BTreeMap<String, u32>,
    addresses: BTreeMap<u32, Vec<Address>>,
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

    pub fn set_addresses(&mut self, ifindex: u32, addresses: Vec<Address>) {
        self.addresses.insert(ifindex, addresses);
    }

    /// Name of an interface; empty if it is not known.
    pub fn name(&self, ifindex: u32) -> &str {
        self.links.get(&ifindex).map_or("", |link| link.name.as_str())
    }

    /// Name of the interface that a route leaves through, as filters see it.
    pub fn name_of(&self, forward: &Forward) -> &str {
        forward.interface().map_or("", |ifindex| self.name(ifindex))
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

    /// The addresses of an interface that is up and known by name.
    fn usable(&self, ifindex: u32) -> Option<(&Link, &[Address])> {
        let link = self.links.get(&ifindex).filter(|link| link.up)?;
        Some((link, self.addresses.get(&ifindex)?))
    }
}

/// Which connected prefixes of each interface are in one family's table.
#[derive(Debug)]
pub(super) struct Direct<F: Family> {
    routes: BTreeMap<u32, BTreeSet<Prefix<F>>>,
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
        let mut routes = BTreeSet::new();
        if let Some((link, addresses)) = interfaces.usable(ifindex) {
            let is_source = !glob::any(ignored, &link.name);
            for address in addresses {
                let Some(prefix) = Prefix::<F>::from_ip(address.prefix) else { continue };
                let Some(addr) = F::from_ip(address.addr) else { continue };
                local.push(LocalAddress { addr, prefix });
                if is_source && !address.secondary && !address.narrow {
                    routes.insert(prefix);
                }
            }
        }
        rib.set_addresses(ifindex, local);
        let old = self.routes.remove(&ifindex).unwrap_or_default();
        for prefix in old.difference(&routes) {
            rib.remove_local(*prefix, LocalSource::Direct(ifindex));
        }
        for prefix in routes.difference(&old) {
            rib.put_local(*prefix, LocalRoute::Direct(ifindex));
        }
        if !routes.is_empty() {
            self.routes.insert(ifindex, routes);
        }
    }
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
