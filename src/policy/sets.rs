//! The sets of one family that programs name.
//!
//! Owns: which sets there are ([`SetId`]), their contents ([`Sets`]), and what a changed content means for the table
//! ([`SetChange`]). A program holds ids and never contents, so that a claimed block, a new Service or a Node that joins
//! changes no program, and touches only the routes that the set gained or lost. Never: fills a set; that is `desired`.

use std::sync::Arc;

use bgp_proto::IpPrefix;

use super::prefix_set::PrefixSet;

/// A set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SetId {
    /// Own blocks whose inside is not announced (FILT-40, FILT-41).
    OwnBlocks,
    /// Pools with `disableBGPExport` (FILT-30 step 1).
    UnexportedPools,
    /// All other pools (FILT-30 step 8).
    ExportedPools,
    /// Static service routes of the node (FILT-30 step 6, SVC-30).
    ServiceRoutes,
    /// Service ranges and addresses that this node passes on as a route reflector (FILT-30 step 7, FILT-33).
    ReflectedServices,
    /// Service ranges that the kernel is not given (KERN-2 step 1, SVC-31).
    ServiceRejects,
    /// Addresses of nodes that are reached over WireGuard (KERN-20); asked with next hops.
    WireguardNextHops,
}

impl SetId {
    /// All of them.
    pub const ALL: [SetId; 7] = [
        SetId::OwnBlocks,
        SetId::UnexportedPools,
        SetId::ExportedPools,
        SetId::ServiceRoutes,
        SetId::ReflectedServices,
        SetId::ServiceRejects,
        SetId::WireguardNextHops,
    ];

    /// In words, for people.
    pub const fn name(self) -> &'static str {
        match self {
            SetId::OwnBlocks => "own blocks",
            SetId::UnexportedPools => "pools that are not exported",
            SetId::ExportedPools => "exported pools",
            SetId::ServiceRoutes => "service routes",
            SetId::ReflectedServices => "service ranges that a reflector passes on",
            SetId::ServiceRejects => "service ranges",
            SetId::WireguardNextHops => "nodes reached over WireGuard",
        }
    }

    /// Programs ask it with the next hop of a route, not with its prefix.
    pub const fn holds_next_hops(self) -> bool {
        matches!(self, SetId::WireguardNextHops)
    }
}

/// The contents of all sets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sets {
    of: [Arc<PrefixSet>; SetId::ALL.len()],
}

/// A set that has another content than before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetChange {
    /// Which.
    pub set: SetId,
    /// What it gained or lost. Only routes within these prefixes can be treated otherwise; of a set of next hops, only
    /// routes with a next hop inside.
    pub prefixes: Vec<IpPrefix>,
}

impl Sets {
    /// Puts a content into a set.
    pub fn put(&mut self, set: SetId, content: PrefixSet) {
        if let Some(place) = self.of.get_mut(set as usize) {
            *place = Arc::new(content);
        }
    }

    /// The same, as one more step of a chain.
    #[must_use]
    pub fn with(mut self, set: SetId, content: PrefixSet) -> Self {
        self.put(set, content);
        self
    }

    /// The content of a set.
    pub fn get(&self, set: SetId) -> Option<&PrefixSet> {
        self.of.get(set as usize).map(|content| &**content)
    }

    /// Takes over the identity of contents that are as before.
    pub fn retain(&mut self, old: &Sets) {
        for (new, old) in self.of.iter_mut().zip(&old.of) {
            if new == old {
                new.clone_from(old);
            }
        }
    }

    /// What changed since `old`.
    pub fn changes(&self, old: &Sets) -> Vec<SetChange> {
        let pairs = SetId::ALL.into_iter().zip(self.of.iter().zip(&old.of));
        let differ = pairs.filter(|(_, (new, old))| !Arc::ptr_eq(new, old));
        differ
            .map(|(set, (new, old))| SetChange { set, prefixes: new.difference(old) })
            .filter(|change| !change.prefixes.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_has_its_own_place() {
        for (place, set) in SetId::ALL.into_iter().enumerate() {
            assert_eq!(set as usize, place);
        }
    }

    #[test]
    fn a_change_names_what_a_set_gained_and_lost() {
        let of = |prefixes: &[&str]| {
            PrefixSet::new(prefixes.iter().map(|text| (text.parse().unwrap(), Arc::from(*text))))
        };
        let old = Sets::default().with(SetId::OwnBlocks, of(&["10.0.1.0/26", "10.0.2.0/26"]));
        let mut new = Sets::default().with(SetId::OwnBlocks, of(&["10.0.2.0/26", "10.0.3.0/26"]));
        let prefixes = ["10.0.1.0/26", "10.0.3.0/26"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(new.changes(&old), [SetChange { set: SetId::OwnBlocks, prefixes }]);
        new.put(SetId::OwnBlocks, of(&["10.0.1.0/26", "10.0.2.0/26"]));
        assert!(new.changes(&old).is_empty());
        new.retain(&old);
        assert!(Arc::ptr_eq(&new.of[0], &old.of[0]));
    }
}
