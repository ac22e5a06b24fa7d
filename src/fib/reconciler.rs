//! The task that makes the kernel what the speaker wants, and tells the speaker what the kernel is.
//!
//! Owns: the [`Mirror`], the wanted routes, what failed and when it is tried again. Never: chooses routes.
//! Inputs: [`FibInput`]s from the core, notices from a [`Kernel`]. Outputs: [`KernelEvent`]s to the core, a full state
//! first, then `Synced`, then changes; a [`FibStatus`]. Both channels are bounded and neither end waits while the
//! other does: wanted routes are taken in whatever the core does with the events, and the latest for a prefix wins.
//!
//! Level-triggered: whatever happened, the prefixes it touched are planned anew against the mirror. Nothing is written
//! before the first dump, no route that was found at start is deleted before [`Phase::Normal`], or while its next hop is
//! held, and nothing at all on exit (KRT-49).
//!
//! Rules: KRT-35 to KRT-42 in event-driven form, KRT-49 to KRT-51; K1 to K7, K11 to K13.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::{Afi, IpPrefix};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::mirror::{Mirror, Notice};
use super::plan::{Planned, Written, all_prefixes, plan};
use super::repair::{PEACE, Place, Repairs, Wait};
use super::view::{self, KernelLine, KernelLook, RouteProblem};
use super::{
    Errno, FibChange, FibRoute, Kernel, KernelError, KernelEvent, Ownership, PROTOCOL, Phase, RouteOp,
    TUNNEL, Wish,
};
use crate::random::random;

/// What the core tells the reconciler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FibInput {
    /// Routes are wanted, or no longer.
    Changes(Vec<FibChange>),
    /// Recovery ended (or began).
    Phase(Phase),
    /// Who owns what, by the settings of the cluster.
    Ownership(Ownership),
    /// Next hops through which routes that were found at start stay also after recovery; the whole set.
    Held(BTreeSet<IpAddr>),
}

/// How things stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FibStatus {
    /// Whether routes may be deleted yet.
    pub phase: Phase,
    /// The kernel has been read since the connection to it was opened.
    pub connected: bool,
    /// Why not, or why it had to be opened again.
    pub last_error: Option<String>,
    /// Routes that are wanted.
    pub desired: usize,
    /// Those of them that are in the kernel exactly so.
    pub installed: usize,
    /// Those that will be written next.
    pub pending: usize,
    /// Those that the kernel refuses, or that somebody keeps changing.
    pub failed: usize,
    /// Those whose place is taken.
    pub conflicts: usize,
    /// Those whose device is not there.
    pub waiting: usize,
    /// Routes written or removed again because somebody else had changed them.
    pub repaired: u64,
    /// Full reads of the kernel.
    pub dumps: u64,
    /// Times that notifications were lost.
    pub overruns: u64,
    /// What is wrong, by prefix. Of many it may be a quarter of a second old.
    pub problems: Arc<BTreeMap<IpPrefix, RouteProblem>>,
    /// How often routes were repaired that others removed or changed; those that it befell more than once of late.
    pub repeated: Arc<BTreeMap<IpPrefix, u32>>,
}

/// Time between audits, minus up to a quarter.
const AUDIT: Duration = Duration::from_secs(60);
/// A dump that is due because something may have been missed waits so long for more of the kind.
const DOUBT: Duration = Duration::from_millis(50);
/// After a dump that took t the next waits 20 t: at most a twentieth of the time goes into dumps (K9).
const DUMP_SHARE: u32 = 20;
/// The same where notifications were lost: nothing is written until then.
const DUMP_SHARE_MISSED: u32 = 4;
/// Waits after the first and the last of many failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Lists of more entries than this are handed to readers no more often than once in [`LISTING`].
const LONG_LIST: usize = 256;
/// See there.
const LISTING: Duration = Duration::from_millis(250);
/// What somebody removes is counted for so long before it is said, and not said again for [`PEACE`].
const COUNTING: Duration = Duration::from_secs(1);
/// Batches of wanted routes taken in before planning.
const INTAKE: usize = 64;

/// Runs until `stop` is cancelled or the core goes away. Routes stay.
pub async fn run<K: Kernel>(
    kernel: K,
    mut inbox: mpsc::Receiver<FibInput>,
    mut looks: mpsc::Receiver<KernelLook>,
    events: mpsc::Sender<KernelEvent>,
    status: watch::Sender<FibStatus>,
    stop: CancellationToken,
) {
    let mut this = Reconciler::new(kernel, status);
    let mut asked = true;
    loop {
        this.work().await;
        this.publish();
        let has_event = this.find_event();
        let deadline = this.deadline();
        tokio::select! {
            () = stop.cancelled() => break,
            permit = events.reserve(), if has_event => {
                let Ok(permit) = permit else { break };
                if let Some(event) = this.next_event.take() {
                    permit.send(event);
                }
            }
            input = inbox.recv() => {
                let Some(input) = input else { break };
                this.take(input);
                for _ in 1..INTAKE {
                    let Ok(input) = inbox.try_recv() else { break };
                    this.take(input);
                }
            }
            heard = this.kernel.notices(), if this.connected => this.heard(heard),
            look = looks.recv(), if asked => match look {
                // Who has gone does not wait for the answer.
                Some(look) => drop(look.answer.send(this.lines(look.afi, look.after, look.limit))),
                None => asked = false,
            },
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
    debug!("the reconciler ends; kernel routes stay");
}

/// A wanted route in trouble.
#[derive(Debug)]
struct Trouble {
    problem: RouteProblem,
    failures: u32,
    retry: Option<Instant>,
}

/// How many prefixes are in which kind of trouble.
#[derive(Debug, Default)]
struct Tally {
    conflicts: usize,
    waiting: usize,
    all: usize,
}

impl Tally {
    fn add(&mut self, problem: &RouteProblem) {
        self.all += 1;
        self.conflicts += usize::from(matches!(problem, RouteProblem::Conflict { .. }));
        self.waiting += usize::from(matches!(problem, RouteProblem::Waits { .. }));
    }

    fn remove(&mut self, problem: &RouteProblem) {
        self.all -= 1;
        self.conflicts -= usize::from(matches!(problem, RouteProblem::Conflict { .. }));
        self.waiting -= usize::from(matches!(problem, RouteProblem::Waits { .. }));
    }
}

/// What others removed since it was last said in the log.
#[derive(Debug, Default)]
struct Removals {
    count: usize,
    say_at: Option<Instant>,
    said: Option<Instant>,
}

struct Reconciler<K> {
    kernel: K,
    status: watch::Sender<FibStatus>,
    connected: bool,
    /// Notifications were lost since the last dump.
    missed: bool,
    synced: bool,
    last_error: Option<String>,
    mirror: Mirror,
    next_event: Option<KernelEvent>,
    desired: BTreeMap<IpPrefix, FibRoute>,
    /// Wanted through a device that is not there: not planned, so what is in the kernel stays.
    held: BTreeMap<IpPrefix, &'static str>,
    phase: Phase,
    /// Empty where it does not matter.
    written: Written,
    /// To be planned.
    dirty: BTreeSet<IpPrefix>,
    /// Those of them for which the core wants something else than before.
    fresh: BTreeSet<IpPrefix>,
    installed: BTreeSet<IpPrefix>,
    trouble: BTreeMap<IpPrefix, Trouble>,
    retries: BTreeSet<(Instant, IpPrefix)>,
    repairs: Repairs,
    removals: Removals,
    tally: Tally,
    problems: Arc<BTreeMap<IpPrefix, RouteProblem>>,
    repeated: Arc<BTreeMap<IpPrefix, u32>>,
    /// The two lists above are no longer what is so.
    lists_changed: bool,
    lists_at: Instant,
    reachability: u64,
    dump_at: Instant,
    dump_ended: Instant,
    dump_took: Duration,
    dump_failures: u32,
    repaired: u64,
    dumps: u64,
    overruns: u64,
}

impl<K: Kernel> Reconciler<K> {
    fn new(kernel: K, status: watch::Sender<FibStatus>) -> Self {
        let now = Instant::now();
        Reconciler {
            kernel,
            status,
            connected: false,
            missed: false,
            synced: false,
            last_error: None,
            mirror: Mirror::new(),
            next_event: None,
            desired: BTreeMap::new(),
            held: BTreeMap::new(),
            phase: Phase::Recovering,
            written: Written::default(),
            dirty: BTreeSet::new(),
            fresh: BTreeSet::new(),
            installed: BTreeSet::new(),
            trouble: BTreeMap::new(),
            retries: BTreeSet::new(),
            repairs: Repairs::default(),
            removals: Removals::default(),
            tally: Tally::default(),
            problems: Arc::default(),
            repeated: Arc::default(),
            lists_changed: false,
            lists_at: now,
            reachability: 0,
            dump_at: now,
            dump_ended: now,
            dump_took: Duration::ZERO,
            dump_failures: 0,
            repaired: 0,
            dumps: 0,
            overruns: 0,
        }
    }

    fn take(&mut self, input: FibInput) {
        match input {
            FibInput::Changes(changes) => {
                let mut waiting = Summary::new("routes wait for the device that they go through");
                for FibChange { prefix, wish } in changes {
                    self.wish(prefix, wish, &mut waiting);
                }
                waiting.write();
            }
            FibInput::Phase(phase) if phase != self.phase => {
                self.phase = phase;
                self.forget_what_was_found();
                match phase {
                    Phase::Normal => info!("recovery is over: routes found at start that nobody wants go"),
                    Phase::Recovering => info!("recovering: routes found at start stay"),
                }
                self.dirty.extend(all_prefixes(&self.desired, &self.mirror));
                self.fresh.extend(self.dirty.iter().copied());
            }
            FibInput::Phase(_) => {}
            FibInput::Ownership(ownership) => {
                let yielded = self.repairs.set_ownership(ownership);
                self.try_again(yielded);
            }
            FibInput::Held(held) => {
                if self.phase == Phase::Normal {
                    info!(?held, "routes found at start stay where their next hop is a peer that is away");
                }
                self.written.hold(held);
                self.forget_what_was_found();
                let unwanted = self.mirror.owned().filter(|prefix| !self.desired.contains_key(prefix));
                let unwanted: Vec<IpPrefix> = unwanted.collect();
                self.fresh.extend(unwanted.iter().copied());
                self.dirty.extend(unwanted);
            }
        }
    }

    fn forget_what_was_found(&mut self) {
        if !self.written.matters(self.phase) {
            self.written.clear();
        }
    }

    /// One page of what is wanted and what is there.
    fn lines(&self, afi: Afi, after: Option<IpPrefix>, limit: usize) -> Vec<KernelLine> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let concerned = |prefix: &&IpPrefix| prefix.afi() == afi;
        let desired = self.desired.range((from, Bound::Unbounded)).map(|(prefix, _)| prefix);
        let held = self.held.range((from, Bound::Unbounded)).map(|(prefix, _)| prefix);
        // Each of the three is in order; of their union as many as the page takes are enough.
        let owned = self.mirror.owned_after(after);
        let mut all: BTreeSet<IpPrefix> = desired.filter(concerned).take(limit).copied().collect();
        all.extend(held.filter(concerned).take(limit));
        all.extend(owned.filter(|prefix| prefix.afi() == afi).take(limit));
        let line = |prefix: IpPrefix| {
            let problem = self.trouble.get(&prefix).map(|trouble| &trouble.problem);
            let repaired = self.repeated.get(&prefix).copied();
            let waits = self.held.get(&prefix).copied();
            view::line(prefix, self.desired.get(&prefix), waits, problem, repaired, &self.mirror, self.phase)
        };
        all.into_iter().take(limit).filter_map(line).collect()
    }

    fn wish(&mut self, prefix: IpPrefix, wish: Wish, waiting: &mut Summary) {
        let was_held = self.held.remove(&prefix).is_some();
        let route = match wish {
            Wish::Waits { device } => {
                self.held.insert(prefix, device);
                self.desired.remove(&prefix);
                self.installed.remove(&prefix);
                self.repairs.forget(prefix);
                self.fresh.remove(&prefix);
                self.dirty.remove(&prefix);
                let problem = RouteProblem::Waits { device };
                waiting.note_if_new(&self.trouble, prefix, &problem);
                return self.put_trouble(prefix, problem, None);
            }
            Wish::Route(route) => Some(route.normalized()),
            Wish::Nothing => None,
        };
        if !was_held && self.desired.get(&prefix) == route.as_ref() {
            return;
        }
        match route {
            Some(route) => self.desired.insert(prefix, route),
            None => self.desired.remove(&prefix),
        };
        self.clear_trouble(prefix);
        self.installed.remove(&prefix);
        self.repairs.forget(prefix);
        self.fresh.insert(prefix);
        self.dirty.insert(prefix);
    }

    /// Does what is due, until nothing is.
    async fn work(&mut self) {
        let now = Instant::now();
        while let Some((at, prefix)) = self.retries.first().copied().filter(|(at, _)| *at <= now) {
            self.retries.remove(&(at, prefix));
            if let Some(trouble) = self.trouble.get_mut(&prefix) {
                trouble.retry = None;
            }
            self.dirty.insert(prefix);
        }
        if now >= self.dump_at {
            self.dump().await;
        }
        if self.removals.say_at.is_some_and(|at| at <= now) {
            let routes = self.removals.count;
            warn!(routes, "another program removes routes of ours; they are put back");
            self.removals = Removals { count: 0, say_at: None, said: Some(now) };
        }
        while self.may_write() && !self.dirty.is_empty() {
            let waiting = self.kernel.waiting();
            self.heard(waiting);
            if self.may_write() {
                self.round().await;
            }
        }
    }

    /// On a mirror that missed something a replace might hit the route of somebody else.
    fn may_write(&self) -> bool {
        self.connected && !self.missed
    }

    async fn dump(&mut self) {
        let begun = Instant::now();
        self.dumps += 1;
        self.dump_at = begun + audit_interval();
        match self.kernel.dump().await {
            Ok((snapshot, notices)) => {
                debug!(routes = snapshot.routes.len(), links = snapshot.links.len(), "kernel read");
                self.connected = true;
                self.missed = false;
                self.dump_failures = 0;
                self.mirror.load(snapshot);
                self.absorb(notices);
                // At every dump all of ours is compared, not only what looks changed.
                self.dirty.extend(all_prefixes(&self.desired, &self.mirror));
                self.repairs.prune(begun);
                self.lists_changed = true;
            }
            Err(error) => self.trouble_with_kernel(error),
        }
        self.dump_ended = Instant::now();
        self.dump_took = begun.elapsed();
    }

    fn heard(&mut self, heard: Result<Vec<Notice>, KernelError>) {
        match heard {
            Ok(notices) => self.absorb(notices),
            Err(error) => self.trouble_with_kernel(error),
        }
    }

    fn trouble_with_kernel(&mut self, error: KernelError) {
        match error {
            KernelError::Overrun => {
                self.overruns += 1;
                warn!("{error}; reading all of it again");
                self.missed = true;
                self.dump_soon(DUMP_SHARE_MISSED);
            }
            KernelError::Lost { .. } => {
                warn!(%error, "connection to the kernel lost; kernel routes stay");
                self.connected = false;
                self.dump_at = Instant::now() + backoff(self.dump_failures);
                self.dump_failures += 1;
                self.last_error = Some(error.to_string());
            }
        }
    }

    fn dump_soon(&mut self, share: u32) {
        let rested = self.dump_ended + self.dump_took * share;
        self.dump_at = self.dump_at.min(rested.max(Instant::now() + DOUBT));
    }

    fn absorb(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            let removed = match &notice {
                Notice::RouteGone { prefix, route, echo: false } if route.protocol == PROTOCOL => {
                    Some(*prefix)
                }
                _ => None,
            };
            self.mirror.apply(notice);
            if let Some(prefix) = removed {
                self.removed(prefix);
            }
        }
        for prefix in self.mirror.take_changed() {
            let ours = |seen: &super::mirror::RouteSeen| seen.protocol == PROTOCOL;
            if self.desired.contains_key(&prefix) || self.mirror.routes_at(prefix).iter().any(ours) {
                self.dirty.insert(prefix);
            }
        }
        if self.mirror.is_doubtful() {
            self.dump_soon(DUMP_SHARE);
        }
        if self.reachability != self.mirror.reachability() {
            self.reachability = self.mirror.reachability();
            // What could not be reached may be reached now; the links of a node change in bursts.
            let soon = Instant::now() + DOUBT;
            let refused =
                self.trouble.iter_mut().filter(|(_, t)| matches!(t.problem, RouteProblem::Refused(_)));
            for (prefix, trouble) in refused {
                if trouble.retry.is_none_or(|at| at > soon) {
                    if let Some(at) = trouble.retry.replace(soon) {
                        self.retries.remove(&(at, *prefix));
                    }
                    self.retries.insert((soon, *prefix));
                }
            }
        }
    }

    /// Somebody took a route of ours away; where it was wanted it matters whose hand that was.
    fn removed(&mut self, prefix: IpPrefix) {
        // What is there now is planned later; that it was there must not count for another.
        let was_there = self.installed.remove(&prefix);
        if !was_there || self.mirror.routes_at(prefix).iter().any(|seen| seen.protocol == PROTOCOL) {
            return;
        }
        let over_tunnel = |prefix: &IpPrefix| {
            let legs = self.desired.get(prefix).map_or(&[][..], |route| route.target.legs());
            legs.iter().any(|leg| self.mirror.link(leg.ifindex).is_some_and(|link| link.name == TUNNEL))
        };
        let others_stayed = || self.installed.iter().any(|prefix| !over_tunnel(prefix));
        let hasty = self.repairs.lost(prefix, over_tunnel(&prefix), others_stayed, Instant::now());
        self.try_again(hasty);
    }

    /// What was waited for has come: they are planned next.
    fn try_again(&mut self, prefixes: Vec<IpPrefix>) {
        for prefix in prefixes {
            if matches!(self.trouble.get(&prefix), Some(Trouble { problem: RouteProblem::Yielded, .. })) {
                self.clear_trouble(prefix);
            }
            self.dirty.insert(prefix);
        }
    }

    /// One plan and its operations. What the kernel tells of them makes the next round, which then has nothing to do.
    async fn round(&mut self) {
        let mut prefixes = std::mem::take(&mut self.dirty);
        let fresh = std::mem::take(&mut self.fresh);
        // A prefix that waits is not planned before its time.
        prefixes.retain(|prefix| !self.waits(*prefix) && !self.held.contains_key(prefix));
        let Planned { plan, conflicts, installed } =
            plan(prefixes.iter().copied(), &self.desired, &self.mirror, self.phase, &self.written);
        for prefix in &prefixes {
            self.installed.remove(prefix);
        }
        for prefix in installed {
            self.installed.insert(prefix);
            self.clear_trouble(prefix);
        }
        let mut log = Summary::new("routes not written: the place of each is taken by another program's");
        for conflict in conflicts {
            let problem = RouteProblem::Conflict { metric: conflict.metric, owner: conflict.owner };
            log.note_if_new(&self.trouble, conflict.prefix, &problem);
            // Its end is an event of the mirror: no retry.
            self.put_trouble(conflict.prefix, problem, None);
        }
        log.write();
        let busy: BTreeSet<IpPrefix> = plan.writes().chain(plan.deletes()).map(|op| op.prefix()).collect();
        for prefix in &prefixes {
            // Nobody wants it, and it is not there.
            if !self.desired.contains_key(prefix) && !busy.contains(prefix) {
                self.clear_trouble(*prefix);
            }
        }
        let mut refused = BTreeSet::new();
        let writes = self.without_contested(plan.writes(), &fresh);
        self.apply(&writes, &mut refused).await;
        // Where the new route was refused the old one stays.
        let deletes = plan.deletes().filter(|op| !refused.contains(&op.prefix()));
        let deletes = self.without_contested(deletes, &fresh);
        self.apply(&deletes, &mut refused).await;
    }

    /// Leaves out what has been repaired too often of late: two owners in a loop are worse than either (KRT-42).
    fn without_contested(
        &mut self,
        operations: impl Iterator<Item = RouteOp>,
        fresh: &BTreeSet<IpPrefix>,
    ) -> Vec<RouteOp> {
        let now = Instant::now();
        let mut kept = Vec::new();
        let mut contested = Summary::new("another program has to do with routes of ours; waiting");
        let before = self.repaired;
        for op in operations {
            let prefix = op.prefix();
            let was_refused =
                self.trouble.get(&prefix).is_some_and(|t| matches!(t.problem, RouteProblem::Refused(_)));
            if fresh.contains(&prefix) || was_refused {
                kept.push(op);
                continue;
            }
            let ours = |seen: &super::mirror::RouteSeen| seen.protocol == PROTOCOL;
            let empty = matches!(op, RouteOp::Add(..)) && !self.mirror.routes_at(prefix).iter().any(ours);
            let place = if empty { Place::Empty } else { Place::Other };
            if let Err((wait, retry)) = self.repairs.may(prefix, place, now) {
                let problem = match wait {
                    Wait::Removed(repairs) => RouteProblem::Removed { repairs },
                    Wait::Contested(repairs) => RouteProblem::Contested { repairs },
                    Wait::Yielded => RouteProblem::Yielded,
                };
                if place == Place::Other || problem == RouteProblem::Yielded {
                    contested.note_if_new(&self.trouble, prefix, &problem);
                }
                self.put_trouble(prefix, problem, Some(retry));
                continue;
            }
            if empty {
                self.removals.count += 1;
                let quiet = self.removals.said.map_or(now, |said| said + PEACE);
                self.removals.say_at.get_or_insert(quiet.max(now + COUNTING));
            }
            self.repaired += 1;
            self.lists_changed = true;
            debug!(%prefix, "not in the kernel as it should be; repaired");
            kept.push(op);
        }
        contested.write();
        if self.repaired > before {
            info!(routes = self.repaired - before, "repairing what was not in the kernel as it should be");
        }
        kept
    }

    async fn apply(&mut self, operations: &[RouteOp], refused: &mut BTreeSet<IpPrefix>) {
        if operations.is_empty() || !self.may_write() {
            return;
        }
        let applied = match self.kernel.apply(operations).await {
            Ok(applied) => applied,
            Err(error) => {
                // What was done shows in the dump that follows.
                self.dirty.extend(operations.iter().map(RouteOp::prefix));
                self.fresh.extend(operations.iter().map(RouteOp::prefix));
                return self.trouble_with_kernel(error);
            }
        };
        debug!(operations = operations.len(), "written");
        let mut log = Summary::new("routes refused by the kernel");
        for (op, result) in operations.iter().zip(applied.results) {
            let prefix = op.prefix();
            match (op, result) {
                (_, Ok(())) => {
                    self.clear_trouble(prefix);
                    if self.written.matters(self.phase) {
                        self.written.note(op);
                    }
                }
                (RouteOp::Delete { .. }, Err(refusal)) if refusal.errno == Errno::ESRCH => {
                    // Somebody was faster, without a word.
                    self.dump_soon(DUMP_SHARE);
                }
                (_, Err(refusal)) => {
                    refused.insert(prefix);
                    if refusal.errno == Errno::EEXIST || refusal.errno == Errno::ENOENT {
                        // The mirror did not know of it.
                        self.dump_soon(DUMP_SHARE);
                    }
                    let failures = self.trouble.get(&prefix).map_or(0, |t| t.failures);
                    let problem = RouteProblem::Refused(refusal);
                    log.note_if_new(&self.trouble, prefix, &problem);
                    self.put_trouble(prefix, problem, Some(Instant::now() + backoff(failures)));
                }
            }
        }
        log.write();
        if applied.overrun {
            self.trouble_with_kernel(KernelError::Overrun);
        }
        self.absorb(applied.notices);
    }

    fn waits(&self, prefix: IpPrefix) -> bool {
        self.trouble.get(&prefix).is_some_and(|trouble| trouble.retry.is_some())
    }

    fn put_trouble(&mut self, prefix: IpPrefix, problem: RouteProblem, retry: Option<Instant>) {
        let failures = self.trouble.get(&prefix).map_or(0, |t| t.failures).saturating_add(1);
        self.tally.add(&problem);
        let trouble = Trouble { problem, failures, retry };
        if let Some(old) = self.trouble.insert(prefix, trouble) {
            self.tally.remove(&old.problem);
            if let Some(at) = old.retry {
                self.retries.remove(&(at, prefix));
            }
        }
        if let Some(at) = retry {
            self.retries.insert((at, prefix));
        }
        self.lists_changed = true;
    }

    fn clear_trouble(&mut self, prefix: IpPrefix) {
        if let Some(trouble) = self.trouble.remove(&prefix) {
            self.tally.remove(&trouble.problem);
            if let Some(at) = trouble.retry {
                self.retries.remove(&(at, prefix));
            }
            self.lists_changed = true;
        }
    }

    /// Whether there is an event that the core should have next; it is kept until there is room for it.
    fn find_event(&mut self) -> bool {
        if self.next_event.is_none() {
            self.next_event = self.mirror.next_event();
        }
        if self.next_event.is_none() && self.connected && !self.synced {
            self.synced = true;
            self.next_event = Some(KernelEvent::Synced);
        }
        self.next_event.is_some()
    }

    fn deadline(&self) -> Instant {
        let retry = self.retries.first().map(|(at, _)| *at);
        let lists = self.lists_changed.then_some(self.lists_at);
        [retry, lists, self.removals.say_at].into_iter().flatten().fold(self.dump_at, Instant::min)
    }

    fn publish(&mut self) {
        let now = Instant::now();
        if self.lists_changed && self.lists_at <= now {
            self.lists_changed = false;
            self.problems = Arc::new(self.trouble.iter().map(|(p, t)| (*p, t.problem.clone())).collect());
            self.repeated = Arc::new(self.repairs.repeated());
            if self.problems.len() + self.repeated.len() > LONG_LIST {
                self.lists_at = now + LISTING;
            }
        }
        let desired = self.desired.len() + self.held.len();
        let status = FibStatus {
            phase: self.phase,
            connected: self.connected,
            last_error: self.last_error.clone(),
            desired,
            installed: self.installed.len(),
            pending: desired.saturating_sub(self.installed.len() + self.tally.all),
            failed: self.tally.all - self.tally.conflicts - self.tally.waiting,
            conflicts: self.tally.conflicts,
            waiting: self.tally.waiting,
            repaired: self.repaired,
            dumps: self.dumps,
            overruns: self.overruns,
            problems: Arc::clone(&self.problems),
            repeated: Arc::clone(&self.repeated),
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }
}

/// One line in the log for many prefixes: a link that goes down can take thousands along.
struct Summary {
    what: &'static str,
    count: usize,
    example: Option<(IpPrefix, String)>,
}

impl Summary {
    fn new(what: &'static str) -> Self {
        Summary { what, count: 0, example: None }
    }

    fn note_if_new(
        &mut self,
        trouble: &BTreeMap<IpPrefix, Trouble>,
        prefix: IpPrefix,
        problem: &RouteProblem,
    ) {
        if trouble.get(&prefix).is_none_or(|t| t.problem != *problem) {
            debug!(%prefix, "{problem}");
            self.count += 1;
            self.example.get_or_insert_with(|| (prefix, problem.to_string()));
        }
    }

    fn write(self) {
        if let Some((prefix, problem)) = self.example {
            warn!(count = self.count, example = %prefix, "{}: {problem}", self.what);
        }
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY.0.saturating_mul(1 << failures.min(16)).min(RETRY.1)
}

/// Nodes that started together should not audit together.
fn audit_interval() -> Duration {
    AUDIT - AUDIT / 4 * u32::try_from(random() % 1000).unwrap_or(0) / 1000
}
