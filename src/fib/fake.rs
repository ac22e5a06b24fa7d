//! A kernel in memory, for tests and for replaying recorded situations without root.
//!
//! Owns: links, addresses and table main with the rules of the Linux tables as far as a routing daemon meets them: one
//! route for each prefix and metric, `EEXIST`, IPv6's metric 1024, deletes by protocol and metric, routes that
//! go with their link (silently in IPv4), gateways that must be on their link, notifications with echo. Never: used
//! in production. [`FakeKernel`] has the whole of it, synchronously; [`SharedKernel`] is one that a reconciler and its
//! test hold both. The tests of the netlink shell check the same rules against the real kernel.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bgp_proto::{Afi, IpPrefix};
use smallvec::smallvec;
use tokio::sync::Notify;

use super::mirror::{AddressSeen, KernelDump, Mirror, Notice, RouteSeen, is_narrow};
use super::plan::plan;
use super::{
    Address, Applied, Errno, FibRoute, Kernel, KernelError, KernelEvent, Leg, Link, PROTOCOL, Phase, RouteOp,
    Target, stored_metric,
};

/// A route as `ip route` would list it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ListedRoute {
    /// The prefix.
    pub prefix: IpPrefix,
    /// `unicast`, `blackhole`, `unreachable` or `prohibit`.
    pub kind: &'static str,
    /// As stored; 0: none.
    pub metric: u32,
    /// Empty but for unicast.
    pub next_hops: Vec<ListedHop>,
}

/// A next hop as `ip route` would list it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ListedHop {
    /// Gateway.
    pub via: Option<IpAddr>,
    /// Name of the interface.
    pub dev: String,
    /// The gateway counts as being on the link.
    pub onlink: bool,
}

/// A kernel in memory.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    links: BTreeMap<u32, Link>,
    addresses: Vec<AddressSeen>,
    routes: BTreeMap<IpPrefix, Vec<RouteSeen>>,
    notices: VecDeque<Notice>,
    refuse: BTreeMap<IpPrefix, Errno>,
    written: Vec<RouteOp>,
}

impl FakeKernel {
    /// A namespace with nothing but `lo` (index 1), up, with its addresses.
    pub fn new() -> Self {
        let mut kernel = FakeKernel::default();
        let lo = kernel.add_link("lo");
        for text in ["127.0.0.1/8", "::1/128"] {
            kernel.add_address(lo, text);
        }
        kernel
    }

    /// Adds a link that is up; the answer is its index.
    pub fn add_link(&mut self, name: &str) -> u32 {
        let index = self.links.keys().next_back().map_or(1, |last| last + 1);
        self.put_link(Link { index, name: name.to_owned(), up: true });
        index
    }

    /// Sets a link up or down. Down takes its routes along, and its IPv6 addresses but not its IPv4 ones.
    pub fn set_link(&mut self, index: u32, up: bool) {
        let Some(link) = self.links.get(&index).cloned() else { return };
        self.put_link(Link { up, ..link });
        if !up {
            self.drop_addresses(|seen| seen.address.ifindex == index && seen.address.addr.is_ipv6());
            self.drop_routes(index);
        }
    }

    /// Gives a link another name.
    pub fn rename_link(&mut self, index: u32, name: &str) {
        let Some(link) = self.links.get(&index).cloned() else { return };
        self.put_link(Link { name: name.to_owned(), ..link });
    }

    /// Removes a link with all that hangs on it.
    pub fn remove_link(&mut self, index: u32) {
        self.drop_addresses(|seen| seen.address.ifindex == index);
        self.drop_routes(index);
        if self.links.remove(&index).is_some() {
            self.notices.push_back(Notice::LinkGone(index));
        }
    }

    /// Adds an address, written as `10.0.0.1/24`. Text that is none is ignored.
    pub fn add_address(&mut self, index: u32, text: &str) {
        let (addr, len) = text.split_once('/').unwrap_or((text, ""));
        let Ok(addr) = addr.parse::<IpAddr>() else { return };
        let len = len.parse().unwrap_or(if addr.is_ipv4() { 32 } else { 128 });
        let Some(prefix) = IpPrefix::new(addr, len) else { return };
        let secondary = addr.is_ipv4()
            && self.addresses.iter().any(|s| s.address.ifindex == index && s.address.prefix == prefix);
        let address = Address { ifindex: index, addr, prefix, secondary, narrow: is_narrow(addr) };
        let seen = AddressSeen { address, tentative: false };
        self.addresses.push(seen);
        self.notices.push_back(Notice::Address(seen));
    }

    /// Removes an address.
    pub fn remove_address(&mut self, index: u32, addr: IpAddr) {
        self.drop_addresses(|seen| seen.address.ifindex == index && seen.address.addr == addr);
    }

    /// Puts a route there as somebody else, whatever was there at its key (as Felix does, and `ip route replace`).
    pub fn add_route(&mut self, prefix: IpPrefix, protocol: u8, metric: u32, mut target: Target) {
        target.normalize();
        let metric = stored_metric(prefix.afi(), metric);
        let route = RouteSeen { metric, protocol, target: Some(target), plain: true };
        self.store(prefix, route, false);
    }

    /// Appends a route as somebody else. In IPv6 a gateway becomes a leg of the gateways that are there with this
    /// metric, whoever wrote them; the kernel then tells the whole, with the protocol of the new one.
    pub fn append_route(&mut self, prefix: IpPrefix, protocol: u8, metric: u32, mut target: Target) {
        target.normalize();
        let metric = stored_metric(prefix.afi(), metric);
        let gateways =
            |target: &Target| !target.legs().is_empty() && target.legs().iter().all(|leg| leg.via.is_some());
        let entries = self.routes.entry(prefix).or_default();
        let joins = |e: &&mut RouteSeen| {
            prefix.afi() == Afi::Ipv6 && e.metric == metric && e.target.as_ref().is_some_and(gateways)
        };
        let told = match entries.iter_mut().find(joins).filter(|_| gateways(&target)) {
            Some(entry) => {
                if let (Some(Target::Unicast(all)), Target::Unicast(more)) = (&mut entry.target, &target) {
                    all.extend(more.iter().copied());
                }
                if let Some(whole) = &mut entry.target {
                    whole.normalize();
                }
                RouteSeen { protocol, ..entry.clone() }
            }
            None => {
                let route = RouteSeen { metric, protocol, target: Some(target), plain: true };
                entries.push(route.clone());
                entries.sort_by_key(|e| e.metric);
                route
            }
        };
        self.notices.push_back(Notice::Route { prefix, route: told, replaces: false, echo: false });
    }

    /// Removes all routes of a prefix with this protocol, as somebody else.
    pub fn remove_route(&mut self, prefix: IpPrefix, protocol: u8) {
        let Some(entries) = self.routes.get_mut(&prefix) else { return };
        for route in entries.extract_if(.., |e| e.protocol == protocol) {
            self.notices.push_back(Notice::RouteGone { prefix, route, echo: false });
        }
        if entries.is_empty() {
            self.routes.remove(&prefix);
        }
    }

    /// From now on every write for this prefix fails so; `None`: no more.
    pub fn refuse(&mut self, prefix: IpPrefix, why: Option<Errno>) {
        match why {
            Some(errno) => self.refuse.insert(prefix, errno),
            None => self.refuse.remove(&prefix),
        };
    }

    /// A target with one next hop on a link of this name, for [`Self::add_route`].
    pub fn via(&self, via: Option<IpAddr>, dev: &str, onlink: bool) -> Option<Target> {
        let link = self.links.values().find(|link| link.name == dev)?;
        Some(Target::Unicast(smallvec![Leg { via, ifindex: link.index, onlink, weight: 1 }]))
    }

    /// Does one operation as the netlink shell would have the kernel do it.
    pub fn apply(&mut self, op: &RouteOp) -> Result<(), Errno> {
        let answer = self.try_apply(op);
        if answer.is_ok() {
            self.written.push(op.clone());
        }
        answer
    }

    fn try_apply(&mut self, op: &RouteOp) -> Result<(), Errno> {
        if let Some(errno) = self.refuse.get(&op.prefix()) {
            return Err(*errno);
        }
        let (prefix, metric) = (op.prefix(), op.metric());
        match op {
            RouteOp::Add(_, route) | RouteOp::Replace(_, route) => {
                self.check(route)?;
                let taken = self.routes_at(prefix).iter().any(|e| e.metric == metric);
                if taken && matches!(op, RouteOp::Add(..)) {
                    return Err(Errno::EEXIST);
                }
                let target = Some(route.clone().normalized().target);
                self.store(prefix, RouteSeen { metric, protocol: PROTOCOL, target, plain: true }, true);
                Ok(())
            }
            RouteOp::Delete { only, .. } => {
                // Metric 0 means any.
                let fits = |e: &RouteSeen| {
                    e.protocol == PROTOCOL
                        && (metric == 0 || e.metric == metric)
                        && (only.is_none() || e.target == *only)
                };
                let entries = self.routes.get_mut(&prefix).ok_or(Errno::ESRCH)?;
                let at = entries.iter().position(fits).ok_or(Errno::ESRCH)?;
                let route = entries.remove(at);
                if entries.is_empty() {
                    self.routes.remove(&prefix);
                }
                self.notices.push_back(Notice::RouteGone { prefix, route, echo: true });
                Ok(())
            }
        }
    }

    /// What `fib_check_nh` would say.
    fn check(&self, route: &FibRoute) -> Result<(), Errno> {
        let Target::Unicast(legs) = &route.target else { return Ok(()) };
        if legs.is_empty() {
            return Err(Errno::EINVAL);
        }
        for leg in legs {
            let link = self.links.get(&leg.ifindex).ok_or(Errno::ENODEV)?;
            if !link.up {
                return Err(Errno::ENETDOWN);
            }
            let Some(via) = leg.via else { continue };
            let mut own = self.addresses.iter().map(|s| s.address).filter(|a| a.ifindex == leg.ifindex);
            if own.clone().any(|a| a.addr == via) {
                return Err(Errno::EINVAL);
            }
            let reachable =
                leg.onlink || own.any(|a| a.prefix.contains(via)) || self.on_link(via, leg.ifindex);
            if !reachable {
                return Err(match via {
                    IpAddr::V4(_) => Errno::ENETUNREACH,
                    IpAddr::V6(_) => Errno::EHOSTUNREACH,
                });
            }
        }
        Ok(())
    }

    /// Whether a route without gateway leads to the address on that link.
    fn on_link(&self, via: IpAddr, ifindex: u32) -> bool {
        let covering = self.routes.iter().filter(|(prefix, _)| prefix.contains(via));
        let best = covering.max_by_key(|(prefix, _)| prefix.len());
        best.is_some_and(|(_, entries)| {
            let legs = entries.iter().filter_map(|e| e.target.as_ref()).flat_map(Target::legs);
            legs.into_iter().any(|leg| leg.ifindex == ifindex && leg.via.is_none())
        })
    }

    fn store(&mut self, prefix: IpPrefix, route: RouteSeen, echo: bool) {
        let entries = self.routes.entry(prefix).or_default();
        let at_key = entries.iter_mut().find(|e| e.metric == route.metric);
        let replaces = at_key.is_some();
        match at_key {
            Some(entry) => *entry = route.clone(),
            None => entries.push(route.clone()),
        }
        entries.sort_by_key(|e| e.metric);
        self.notices.push_back(Notice::Route { prefix, route, replaces, echo });
    }

    fn put_link(&mut self, link: Link) {
        self.links.insert(link.index, link.clone());
        self.notices.push_back(Notice::Link(link));
    }

    fn drop_addresses(&mut self, which: impl Fn(&AddressSeen) -> bool) {
        for seen in self.addresses.extract_if(.., |seen| which(seen)) {
            self.notices.push_back(Notice::AddressGone(seen.address));
        }
    }

    /// A route goes when its last leg on a link that is up goes.
    fn drop_routes(&mut self, index: u32) {
        let gone = |leg: &Leg| leg.ifindex == index || !self.links.get(&leg.ifindex).is_some_and(|l| l.up);
        let dead = |e: &mut RouteSeen| {
            let legs = e.target.as_ref().map_or(&[][..], Target::legs);
            !legs.is_empty() && legs.iter().all(gone)
        };
        for (prefix, entries) in &mut self.routes {
            for route in entries.extract_if(.., |e| dead(e)) {
                // IPv4 does not tell.
                if prefix.afi() == Afi::Ipv6 {
                    self.notices.push_back(Notice::RouteGone { prefix: *prefix, route, echo: false });
                }
            }
        }
        self.routes.retain(|_, entries| !entries.is_empty());
    }

    /// All that is there now; what the notices say up to now is in it.
    pub fn snapshot(&mut self) -> KernelDump {
        self.notices.clear();
        KernelDump {
            links: self.links.values().cloned().collect(),
            addresses: self.addresses.clone(),
            routes: self
                .routes
                .iter()
                .flat_map(|(prefix, entries)| entries.iter().map(|e| (*prefix, e.clone())))
                .collect(),
        }
    }

    /// What was said since this was last asked.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.drain(..).collect()
    }

    /// The routes of a prefix.
    pub fn routes_at(&self, prefix: IpPrefix) -> &[RouteSeen] {
        self.routes.get(&prefix).map_or(&[], Vec::as_slice)
    }

    /// The operations that succeeded since this was last asked.
    pub fn take_written(&mut self) -> Vec<RouteOp> {
        std::mem::take(&mut self.written)
    }

    /// The routes with protocol 12, by prefix, then metric.
    pub fn owned_routes(&self) -> Vec<ListedRoute> {
        self.list(|protocol| protocol == PROTOCOL)
    }

    /// The routes of everybody else, by prefix, then metric.
    pub fn other_routes(&self) -> Vec<ListedRoute> {
        self.list(|protocol| protocol != PROTOCOL)
    }

    fn list(&self, which: impl Fn(u8) -> bool) -> Vec<ListedRoute> {
        let all = self.routes.iter().flat_map(|(prefix, entries)| entries.iter().map(|e| (*prefix, e)));
        all.filter(|(_, e)| which(e.protocol))
            .filter_map(|(prefix, e)| {
                let target = e.target.as_ref()?;
                let next_hops = target.legs().iter().map(|leg| ListedHop {
                    via: leg.via,
                    dev: self.links.get(&leg.ifindex).map_or_else(String::new, |l| l.name.clone()),
                    onlink: leg.onlink,
                });
                Some(ListedRoute {
                    prefix,
                    kind: target.kind(),
                    metric: e.metric,
                    next_hops: next_hops.collect(),
                })
            })
            .collect()
    }

    /// Makes the kernel what is wanted, in one go: a new mirror, a plan for every prefix, its operations. What was
    /// refused is the answer.
    pub fn reconcile(
        &mut self,
        desired: &BTreeMap<IpPrefix, FibRoute>,
        phase: Phase,
    ) -> Vec<(RouteOp, Errno)> {
        let mut mirror = Mirror::new();
        mirror.load(self.snapshot());
        let planned =
            plan(super::plan::all_prefixes(desired, &mirror), desired, &mirror, phase, &Default::default());
        let operations = planned.plan.operations();
        operations.into_iter().filter_map(|op| self.apply(&op).err().map(|errno| (op, errno))).collect()
    }

    /// Everything a speaker would be told of this kernel at start, `Synced` last.
    pub fn events(&mut self) -> Vec<KernelEvent> {
        let mut mirror = Mirror::new();
        mirror.load(self.snapshot());
        let mut events: Vec<KernelEvent> = std::iter::from_fn(|| mirror.next_event()).collect();
        events.push(KernelEvent::Synced);
        events
    }
}

/// A [`FakeKernel`] that a reconciler works on while a test changes it.
#[derive(Clone, Debug, Default)]
pub struct SharedKernel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kernel: Mutex<FakeKernel>,
    fault: Mutex<Fault>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Fault {
    overrun: bool,
    lost: bool,
    closed: bool,
}

impl SharedKernel {
    /// Shares a kernel.
    pub fn new(kernel: FakeKernel) -> Self {
        let shared = Shared { kernel: Mutex::new(kernel), ..Shared::default() };
        SharedKernel(Arc::new(shared))
    }

    /// Looks at it or changes it; what it says of that is heard.
    pub fn with<T>(&self, act: impl FnOnce(&mut FakeKernel) -> T) -> T {
        let result = act(&mut self.lock());
        self.0.changed.notify_one();
        result
    }

    /// Loses all notifications that were not yet heard.
    pub fn overrun(&self) {
        self.lock().take_notices();
        self.fault().overrun = true;
        self.0.changed.notify_one();
    }

    /// Breaks the connection, until the next dump opens it again; that one fails while it is `closed`.
    pub fn lose(&self, closed: bool) {
        *self.fault() = Fault { overrun: false, lost: true, closed };
        self.0.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, FakeKernel> {
        self.0.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> MutexGuard<'_, Fault> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost() -> KernelError {
        KernelError::Lost { context: "fake", source: io::ErrorKind::NotConnected.into() }
    }
}

impl Kernel for SharedKernel {
    async fn dump(&mut self) -> Result<(KernelDump, Vec<Notice>), KernelError> {
        let mut fault = self.fault();
        if fault.closed {
            return Err(Self::lost());
        }
        *fault = Fault::default();
        Ok((self.lock().snapshot(), Vec::new()))
    }

    async fn apply(&mut self, operations: &[RouteOp]) -> Result<Applied, KernelError> {
        if self.fault().lost {
            return Err(Self::lost());
        }
        let mut kernel = self.lock();
        let results = operations.iter().map(|op| kernel.apply(op).map_err(Into::into)).collect();
        Ok(Applied {
            results,
            notices: kernel.take_notices(),
            overrun: std::mem::take(&mut self.fault().overrun),
        })
    }

    fn waiting(&mut self) -> Result<Vec<Notice>, KernelError> {
        if self.fault().lost {
            return Err(Self::lost());
        }
        if std::mem::take(&mut self.fault().overrun) {
            return Err(KernelError::Overrun);
        }
        Ok(self.lock().take_notices())
    }

    async fn notices(&mut self) -> Result<Vec<Notice>, KernelError> {
        loop {
            let changed = Arc::clone(&self.0);
            let changed = changed.changed.notified();
            let notices = self.waiting()?;
            if !notices.is_empty() {
                return Ok(notices);
            }
            changed.await;
        }
    }
}
