//! What we want in the kernel: best paths through the kernel program (KRT-17 to KRT-23, KRT-28, KRT-30 to KRT-34, KERN-1
//! to KERN-3, KERN-13; BDEF-4, BDEF-10).
//!
//! Owns: which destinations are to be selected for the kernel anew, each once, in parts of bounded size; and the number of
//! the wish that the reconciler was last told of each, so that it hears of differences only. Wishes are few, for many
//! destinations share a next hop. Never: looks at what is in the kernel; that is the reconciler's, as is the map of all
//! that is wanted there.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::rib::{
    Dest, DestSet, Device, Forward, MAX_LEGS, Path, PathKind, Policy, Rib, RouteView, SourceClass,
};
use bgp_proto::wire::Attributes;
use bgp_proto::{DestId, Family, IpPrefix};
use smallvec::SmallVec;

use super::kernel_routes::Interfaces;
use crate::fib::{FibChange, FibRoute, Leg, Target, Wish};
use crate::policy::eval::Bound;

/// One family's part.
#[derive(Debug, Default)]
pub(super) struct FibOut {
    wishes: Wishes,
    /// Destinations that are to be selected anew, each once; their ids are pinned meanwhile.
    changed: VecDeque<DestId>,
    /// Which they are, by id.
    marked: Vec<bool>,
    /// All are to be selected anew, from this one on.
    walk: Option<DestId>,
    /// Which hang on the device of a name: the others have no part in its coming and going.
    through: BTreeMap<&'static str, DestSet>,
}

impl FibOut {
    /// These destinations are to be selected anew.
    pub fn reselect<F: Family>(&mut self, rib: &mut Rib<F>, ids: impl IntoIterator<Item = DestId>) {
        self.marked.resize(self.marked.len().max(rib.id_bound()), false);
        for id in ids {
            if let Some(mark) = self.marked.get_mut(id.index())
                && !std::mem::replace(mark, true)
            {
                rib.pin(id);
                self.changed.push_back(id);
            }
        }
    }

    /// All are to be selected anew.
    pub fn reselect_all(&mut self) {
        self.walk = Some(DestId(0));
    }

    /// A device of this name came, went, or is another than before.
    pub fn device_changed<F: Family>(&mut self, rib: &mut Rib<F>, name: &str) {
        let through: Vec<DestId> = self.through.get(name).into_iter().flat_map(DestSet::iter).collect();
        self.reselect(rib, through);
    }

    /// What the reconciler was last told of a destination; `None`: nothing is wanted there.
    pub fn wish(&self, id: DestId) -> Option<&Wish> {
        self.wishes.get(id)
    }

    /// How many destinations are queued.
    #[cfg(test)]
    pub fn queued(&self) -> usize {
        self.changed.len()
    }

    /// Whether [`FibOut::changes`] has more to do.
    pub fn is_busy(&self) -> bool {
        !self.changed.is_empty() || self.walk.is_some()
    }

    /// The present wishes for what is to be selected anew, until `work` is used up; one unit is one destination.
    pub fn changes<F: Family>(
        &mut self,
        rib: &mut Rib<F>,
        interfaces: &Interfaces,
        program: Bound<'_>,
        work: &mut usize,
        out: &mut Vec<FibChange>,
    ) {
        while *work > 0
            && let Some(id) = self.changed.pop_front()
        {
            *work -= 1;
            if let Some(mark) = self.marked.get_mut(id.index()) {
                *mark = false;
            }
            self.select(rib, interfaces, program, id, out);
            rib.unpin(id);
        }
        while *work > 0
            && let Some(id) = self.walk
        {
            *work -= 1;
            self.walk = Some(DestId(id.0 + 1)).filter(|next| next.index() < rib.id_bound());
            if rib.dest(id).is_some() {
                self.select(rib, interfaces, program, id, out);
            }
        }
    }

    fn select<F: Family>(
        &mut self,
        rib: &mut Rib<F>,
        interfaces: &Interfaces,
        program: Bound<'_>,
        id: DestId,
        out: &mut Vec<FibChange>,
    ) {
        let Some(prefix) = rib.prefix(id) else { return };
        // What is yet to be decided comes as a change of its own.
        if rib.dest(id).is_some_and(|dest| !dest.is_settled()) {
            return;
        }
        let Wanted { wish, devices } = wanted(rib, interfaces, program, id);
        self.hangs_on(id, &devices);
        let before = self.wishes.get(id).unwrap_or(&Wish::Nothing);
        if *before == wish {
            return;
        }
        match (before, &wish) {
            (Wish::Nothing, _) => rib.pin(id),
            (_, Wish::Nothing) => rib.unpin(id),
            _ => {}
        }
        self.wishes.set(id, &wish);
        out.push(FibChange { prefix: prefix.into(), wish });
    }

    fn hangs_on(&mut self, id: DestId, devices: &[&'static str]) {
        self.through.retain(|name, ids| {
            if !devices.contains(name) {
                ids.remove(id);
            }
            !ids.is_empty()
        });
        for name in devices {
            self.through.entry(name).or_default().insert(id);
        }
    }
}

/// The wish of each destination, each different one held once.
#[derive(Debug, Default)]
struct Wishes {
    /// By id of the destination: the number of its wish, and 0 for none.
    of: Vec<u32>,
    /// By number, from 1 on; how many destinations have it. `None`: the number is free.
    wishes: Vec<Option<(Arc<Wish>, usize)>>,
    numbers: BTreeMap<Arc<Wish>, u32>,
    free: Vec<u32>,
}

impl Wishes {
    fn place(number: u32) -> Option<usize> {
        usize::try_from(number.checked_sub(1)?).ok()
    }

    fn get(&self, id: DestId) -> Option<&Wish> {
        let wish = self.wishes.get(Self::place(*self.of.get(id.index())?)?)?;
        wish.as_ref().map(|(wish, _)| &**wish)
    }

    fn set(&mut self, id: DestId, wish: &Wish) {
        let number = if *wish == Wish::Nothing { 0 } else { self.number(wish) };
        if self.of.len() <= id.index() {
            self.of.resize(id.index() + 1, 0);
        }
        let Some(of) = self.of.get_mut(id.index()) else { return };
        let old = std::mem::replace(of, number);
        let Some(place) = Self::place(old).and_then(|at| self.wishes.get_mut(at)) else { return };
        if let Some((_, count)) = place {
            *count -= 1;
        }
        if let Some((wish, _)) = place.take_if(|(_, count)| *count == 0) {
            self.numbers.remove(&wish);
            self.free.push(old);
        }
    }

    /// The number of a wish, with one more destination.
    fn number(&mut self, wish: &Wish) -> u32 {
        let known = self.numbers.get(wish).copied();
        let number = known.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.wishes.push(None);
            // Destinations are bounded by memory long before a `u32` is.
            u32::try_from(self.wishes.len()).unwrap_or(u32::MAX)
        });
        if let Some(place) = Self::place(number).and_then(|at| self.wishes.get_mut(at)) {
            let (_, count) = place.get_or_insert_with(|| {
                let wish = Arc::new(wish.clone());
                self.numbers.insert(wish.clone(), number);
                (wish, 0)
            });
            *count += 1;
        }
        number
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

/// What the kernel is to hold for a destination: its best path through the kernel program. Nothing of ours for what the
/// kernel has from others, and for connected prefixes (KRT-7, KRT-17).
pub(super) fn wanted<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: Bound<'_>,
    id: DestId,
) -> Wanted {
    let Some((dest, best)) = rib.dest(id).and_then(|dest| Some((dest, dest.best()?))) else {
        return Wish::Nothing.into();
    };
    if !matches!(best.source().class(), SourceClass::Static | SourceClass::Bgp) {
        return Wish::Nothing.into();
    }
    let Some(way) = accepted(rib, interfaces, program, dest, best) else { return Wish::Nothing.into() };
    let target = match rib.forward(best) {
        Forward::Blackhole => Target::Blackhole,
        Forward::Unreachable => Target::Unreachable,
        Forward::Prohibit => Target::Prohibit,
        Forward::Legs(_) => return unicast(rib, interfaces, program, dest, way),
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
    dest: &Dest<F>,
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
        prefix: IpPrefix::from(dest.prefix),
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

/// The next hops of the best path and of all that may stand beside it (KRT-28), each through its own device or along
/// its own way (BDEF-4). Those whose device is not there are left out; where none is left the route waits.
fn unicast<F: Family>(
    rib: &Rib<F>,
    interfaces: &Interfaces,
    program: Bound<'_>,
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
        let way = best.take().or_else(|| accepted(rib, interfaces, program, dest, path));
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
