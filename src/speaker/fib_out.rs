//! What we want in the kernel: best paths through the kernel program (KRT-17 to KRT-23, KRT-28, KERN-1 to KERN-3).
//!
//! Owns: what the reconciler was last told, so that it hears of differences only. Never: looks at what is in the
//! kernel; that is the reconciler's.

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::rib::{Dest, Forward, MAX_LEGS, Path, PathKind, Policy, Rib, RouteView, SourceClass};
use bgp_proto::wire::Attributes;
use bgp_proto::{Family, IpPrefix, Prefix};
use smallvec::SmallVec;

use super::kernel_routes::Interfaces;
use crate::fib::{FibChange, FibRoute, Leg, Target};
use crate::policy::program::Program;

/// One family's part.
#[derive(Debug)]
pub(super) struct FibOut<F: Family> {
    told: BTreeMap<Prefix<F>, FibRoute>,
    dirty: BTreeSet<Prefix<F>>,
}

impl<F: Family> Default for FibOut<F> {
    fn default() -> Self {
        FibOut { told: BTreeMap::new(), dirty: BTreeSet::new() }
    }
}

impl<F: Family> FibOut<F> {
    /// These destinations have to be looked at.
    pub fn touch(&mut self, prefixes: impl IntoIterator<Item = Prefix<F>>) {
        self.dirty.extend(prefixes);
    }

    /// Everything has to be looked at.
    pub fn touch_all(&mut self, rib: &Rib<F>) {
        self.dirty.extend(rib.dests(None).map(|(prefix, _)| prefix));
        self.dirty.extend(self.told.keys().copied());
    }

    /// What was last told of a prefix.
    pub fn told(&self, prefix: Prefix<F>) -> Option<&FibRoute> {
        self.told.get(&prefix)
    }

    /// The differences to what was told.
    pub fn changes(
        &mut self,
        rib: &Rib<F>,
        interfaces: &Interfaces,
        program: &Program,
        out: &mut Vec<FibChange>,
    ) {
        for prefix in std::mem::take(&mut self.dirty) {
            let route = wanted(rib, interfaces, program, prefix);
            if self.told.get(&prefix) == route.as_ref() {
                continue;
            }
            match &route {
                Some(route) => drop(self.told.insert(prefix, route.clone())),
                None => drop(self.told.remove(&prefix)),
            }
            out.push(FibChange { prefix: prefix.into(), route });
        }
    }
}

/// What the kernel is to hold for a prefix: its best path through the kernel program. Nothing of ours for what the
/// kernel has from others, and for connected prefixes (KRT-7, KRT-17).
pub(super) fn wanted<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: &Program,
    prefix: Prefix<F>,
) -> Option<FibRoute> {
    let dest = rib.dest(prefix)?;
    let best = dest.best()?;
    if !matches!(best.source.class(), SourceClass::Static | SourceClass::Bgp) {
        return None;
    }
    let metric = accepted(rib, interfaces, program, prefix, best)?;
    let target = match rib.forward(best) {
        Forward::Blackhole => Target::Blackhole,
        Forward::Unreachable => Target::Unreachable,
        Forward::Prohibit => Target::Prohibit,
        Forward::Legs(_) => Target::Unicast(legs(rib, interfaces, program, prefix, dest)),
    };
    Some(FibRoute { target, metric })
}

/// The metric with which the program lets a path into the kernel.
fn accepted<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: &Program,
    prefix: Prefix<F>,
    path: &Path<F>,
) -> Option<u32> {
    let (attributes, next_hop) = match &path.kind {
        PathKind::Bgp(bgp) => {
            let set = rib.attrs(bgp.used);
            (set.attributes.clone(), set.next_hop)
        }
        _ => (Attributes::default(), None),
    };
    let mut view = RouteView {
        prefix: IpPrefix::from(prefix),
        class: path.source.class(),
        interface: interfaces.name_of(&rib.forward(path)),
        internal: None,
        metric: None,
        preference: path.preference,
        attributes,
        next_hop,
    };
    program.accepts(&mut view).then(|| view.metric.unwrap_or(0))
}

/// The next hops of the best path and of all that may stand beside it (KRT-28).
fn legs<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: &Program,
    prefix: Prefix<F>,
    dest: &Dest<F>,
) -> SmallVec<[Leg; 1]> {
    let mut legs: SmallVec<[Leg; 1]> = SmallVec::new();
    for (n, path) in rib.multipath(dest).enumerate() {
        if n > 0 && accepted(rib, interfaces, program, prefix, path).is_none() {
            continue;
        }
        if let Forward::Legs(more) = rib.forward(path) {
            legs.extend(more);
        }
    }
    let mut target = Target::Unicast(legs);
    target.normalize();
    match target {
        Target::Unicast(mut legs) => {
            legs.truncate(MAX_LEGS);
            legs
        }
        _ => SmallVec::new(),
    }
}
