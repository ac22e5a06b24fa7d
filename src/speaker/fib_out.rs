//! What we want in the kernel: best paths through the kernel program (KRT-17 to KRT-23, KRT-28, KRT-30 to KRT-34, KERN-1
//! to KERN-3, KERN-13; BDEF-4, BDEF-10).
//!
//! Owns: what the reconciler was last told, so that it hears of differences only. Never: looks at what is in the
//! kernel; that is the reconciler's.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::rib::{
    Dest, Device, Forward, MAX_LEGS, Path, PathKind, Policy, Rib, RouteView, SourceClass, Unresolved,
};
use bgp_proto::wire::Attributes;
use bgp_proto::{Family, IpPrefix, Prefix};
use smallvec::{SmallVec, smallvec};

use super::kernel_routes::Interfaces;
use crate::fib::{FibChange, FibRoute, Leg, Target, Wish};
use crate::policy::eval::Bound;

/// One family's part.
#[derive(Debug)]
pub(super) struct FibOut<F: Family> {
    /// Never [`Wish::Nothing`].
    told: BTreeMap<Prefix<F>, Wish>,
    dirty: BTreeSet<Prefix<F>>,
    /// Which prefixes hang on the device of a name: the others have no part in its coming and going.
    through: BTreeMap<&'static str, BTreeSet<Prefix<F>>>,
}

impl<F: Family> Default for FibOut<F> {
    fn default() -> Self {
        FibOut { told: BTreeMap::new(), dirty: BTreeSet::new(), through: BTreeMap::new() }
    }
}

impl<F: Family> FibOut<F> {
    /// These destinations have to be looked at.
    pub fn touch(&mut self, prefixes: impl IntoIterator<Item = Prefix<F>>) {
        self.dirty.extend(prefixes);
    }

    /// Everything has to be looked at.
    pub fn touch_all(&mut self, rib: &Rib<F>) {
        self.dirty.extend(rib.dests(None).map(|(_, dest)| dest.prefix));
        self.dirty.extend(self.told.keys().copied());
    }

    /// A device of this name came, went, or is another than before.
    pub fn device_changed(&mut self, name: &str) {
        self.dirty.extend(self.through.get(name).into_iter().flatten());
    }

    /// What was last told of a prefix; `None`: nothing is wanted there.
    pub fn told(&self, prefix: Prefix<F>) -> Option<&Wish> {
        self.told.get(&prefix)
    }

    /// The differences to what was told.
    pub fn changes(
        &mut self,
        rib: &Rib<F>,
        interfaces: &Interfaces,
        program: Bound<'_>,
        out: &mut Vec<FibChange>,
    ) {
        for prefix in std::mem::take(&mut self.dirty) {
            let Wanted { wish, devices } = wanted(rib, interfaces, program, prefix);
            self.hangs_on(prefix, &devices);
            if self.told.get(&prefix).unwrap_or(&Wish::Nothing) == &wish {
                continue;
            }
            match &wish {
                Wish::Nothing => drop(self.told.remove(&prefix)),
                wish => drop(self.told.insert(prefix, wish.clone())),
            }
            out.push(FibChange { prefix: prefix.into(), wish });
        }
    }

    fn hangs_on(&mut self, prefix: Prefix<F>, devices: &[&'static str]) {
        self.through.retain(|name, prefixes| {
            if !devices.contains(name) {
                prefixes.remove(&prefix);
            }
            !prefixes.is_empty()
        });
        for name in devices {
            self.through.entry(name).or_default().insert(prefix);
        }
    }
}

/// What is wanted for a prefix, and on which devices that hangs by name.
pub(super) struct Wanted {
    pub wish: Wish,
    pub devices: SmallVec<[&'static str; 1]>,
}

impl From<Wish> for Wanted {
    fn from(wish: Wish) -> Self {
        Wanted { wish, devices: SmallVec::new() }
    }
}

/// What the kernel is to hold for a prefix: its best path through the kernel program. Nothing of ours for what the
/// kernel has from others, and for connected prefixes (KRT-7, KRT-17).
pub(super) fn wanted<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: Bound<'_>,
    prefix: Prefix<F>,
) -> Wanted {
    let Some((dest, best)) = rib.dest_of(prefix).and_then(|dest| Some((dest, dest.best()?))) else {
        return Wish::Nothing.into();
    };
    if !matches!(best.source().class(), SourceClass::Static | SourceClass::Bgp) {
        return Wish::Nothing.into();
    }
    let Some(way) = accepted(rib, interfaces, program, prefix, best) else { return Wish::Nothing.into() };
    let target = match rib.forward(best) {
        Forward::Blackhole => Target::Blackhole,
        Forward::Unreachable => match off_the_map(rib, best, &way) {
            Some(through) => return through_tunnel(interfaces, through, way.metric),
            None => Target::Unreachable,
        },
        Forward::Prohibit => Target::Prohibit,
        Forward::Legs(_) => return unicast(rib, interfaces, program, prefix, dest, way),
    };
    Wish::Route(FibRoute { target, metric: way.metric }).into()
}

/// How the program lets a path into the kernel.
struct Way {
    metric: u32,
    /// The tunnel, and its other end.
    through: Option<(Device, IpAddr)>,
}

/// The metric and the device with which the program lets a path into the kernel.
fn accepted<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: Bound<'_>,
    prefix: Prefix<F>,
    path: &Path<F>,
) -> Option<Way> {
    let (attributes, next_hop) = match &path.kind {
        PathKind::Bgp(bgp) => {
            let set = rib.attrs(bgp.used);
            (Cow::Borrowed(&set.attributes), set.next_hop)
        }
        _ => (Cow::Owned(Attributes::default()), None),
    };
    let mut view = RouteView {
        prefix: IpPrefix::from(prefix),
        class: path.source().class(),
        interface: interfaces.name_of(&rib.forward(path)),
        internal: None,
        metric: None,
        preference: path.preference,
        attributes,
        next_hop,
        device: None,
    };
    if !program.accepts(&mut view) {
        return None;
    }
    // A tunnel is of the family of its ends.
    let end = next_hop.map(|next_hop| next_hop.addr()).filter(|end| F::from_ip(*end).is_some());
    Some(Way { metric: view.metric.unwrap_or(0), through: view.device.zip(end) })
}

/// The tunnel of a path to whose next hop no route of the table leads, as on nodes with a host mask, whose default route
/// is strange to it (KRT-13). The kernel has the way: BIRD writes such routes into the tunnel too.
fn off_the_map<F: Family>(rib: &Rib<F>, path: &Path<F>, way: &Way) -> Option<(Device, IpAddr)> {
    let PathKind::Bgp(bgp) = &path.kind else { return None };
    let no_route = rib.next_hops().resolution(bgp.next_hop).unresolved == Some(Unresolved::NoRoute);
    way.through.filter(|_| no_route)
}

fn through_tunnel(interfaces: &Interfaces, through: (Device, IpAddr), metric: u32) -> Wanted {
    let (device, end) = through;
    let target = match interfaces.up_by_name(device.name) {
        Some(ifindex) => Target::Unicast(smallvec![Leg { via: Some(end), ifindex, onlink: true, weight: 1 }]),
        None if device.required => {
            return Wanted { wish: Wish::Waits { device: device.name }, devices: smallvec![device.name] };
        }
        None => Target::Unreachable,
    };
    Wanted { wish: Wish::Route(FibRoute { target, metric }), devices: smallvec![device.name] }
}

/// The next hops of the best path and of all that may stand beside it (KRT-28), each through its own device or along
/// its own way (BDEF-4). Those whose device is not there are left out; where none is left the route waits.
fn unicast<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: Bound<'_>,
    prefix: Prefix<F>,
    dest: &Dest<F>,
    best: Way,
) -> Wanted {
    let metric = best.metric;
    let mut best = Some(best);
    let mut legs: SmallVec<[Leg; 1]> = SmallVec::new();
    let mut routers: SmallVec<[Leg; 1]> = SmallVec::new();
    let mut devices: SmallVec<[&'static str; 1]> = SmallVec::new();
    let mut missing = None;
    for path in rib.multipath(dest) {
        // The first is the best path.
        let way = best.take().or_else(|| accepted(rib, interfaces, program, prefix, path));
        let Some(Way { through, .. }) = way else { continue };
        let Forward::Legs(own) = rib.forward(path) else { continue };
        // Paths that leave by the same routers are one leg, that of the better path, whatever tunnel they are for.
        if own.iter().all(|leg| routers.contains(leg)) {
            continue;
        }
        routers.extend(own.iter().copied());
        if let Some((device, end)) = through {
            if !devices.contains(&device.name) {
                devices.push(device.name);
            }
            match interfaces.up_by_name(device.name) {
                Some(ifindex) => {
                    legs.push(Leg { via: Some(end), ifindex, onlink: true, weight: 1 });
                    continue;
                }
                None if device.required => {
                    missing = Some(device.name);
                    continue;
                }
                None => {}
            }
        }
        legs.extend(own);
    }
    if let Some(device) = missing.filter(|_| legs.is_empty()) {
        return Wanted { wish: Wish::Waits { device }, devices };
    }
    let mut target = Target::Unicast(legs);
    target.normalize();
    if let Target::Unicast(legs) = &mut target {
        legs.truncate(MAX_LEGS);
    }
    Wanted { wish: Wish::Route(FibRoute { target, metric }), devices }
}
