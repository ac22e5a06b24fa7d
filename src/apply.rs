//! From a snapshot of the datastore to running sessions.
//!
//! Owns: the desired state in force, which peers have a task and which handle each has, what the listener shall do,
//! what people are told of the configuration. Never: compiles or compares by itself (see [`desired`]); never undoes
//! anything because the datastore is silent: what cannot be compiled leaves the state before it in force (NODE-7, O1).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::StopReason;
use bgp_proto::{AfiSet, Millis, PeerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::control::peer_view::{Looks, PeerView};
use crate::core_thread::{Core, CorePort, Urgent};
use crate::desired::{
    self, Auth, ClusterRelease, DesiredState, NodeFacts, Peer, PeerChange, Plan, ReleaseSource, SessionKey,
};
use crate::fib::Phase;
use crate::last_release;
use crate::model::snapshot::Snapshot;
use crate::model::{Problem, SecretBytes, Severity};
use crate::net::caller::{self, Accepted, Caller};
use crate::net::dial::DialGate;
use crate::net::listener::ListenPlan;
use crate::net::mailbox::Mailbox;
use crate::net::peer_task::{PeerTask, Wanted};
use crate::restart_marker::Notes;
use crate::telemetry::log::Log;

/// Changes that follow each other within this time are joined; the first after quiet is applied at once.
const JOIN: Duration = Duration::from_millis(50);
/// How long a session that takes another's place waits for its end.
const HANDOVER: Duration = Duration::from_secs(3);
/// Connections of a peer that may wait for its task.
const DOOR: usize = 2;

/// A session as the control socket sees it.
#[derive(Clone, Debug)]
pub struct PeerEntry {
    /// Handle.
    pub id: PeerId,
    /// What is wanted.
    pub peer: Arc<Peer>,
    /// What its task shows.
    pub view: watch::Receiver<PeerView>,
}

/// The state in force, for people.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// `NODENAME`.
    pub node: String,
    /// Counts the states that were applied.
    pub generation: u64,
    /// The state; `None` before the first.
    pub state: Option<Arc<DesiredState>>,
    /// Sessions by name.
    pub peers: Vec<PeerEntry>,
    /// What is wrong, or not done, by the last snapshot.
    pub problems: Vec<Problem>,
    /// Why the last snapshot is not in force.
    pub waiting_for: Option<String>,
    /// When the state was last applied.
    pub at: Millis,
}

/// Handles: lowest free slot first, each use of a slot with another generation.
#[derive(Debug, Default)]
struct Slots {
    generations: Vec<u32>,
    free: BTreeSet<u32>,
}

impl Slots {
    fn take(&mut self) -> PeerId {
        let slot = self.free.pop_first().unwrap_or_else(|| {
            self.generations.push(0);
            u32::try_from(self.generations.len() - 1).unwrap_or(u32::MAX)
        });
        let mut id = PeerId { slot, generation: 0 };
        if let Some(generation) = usize::try_from(slot).ok().and_then(|slot| self.generations.get_mut(slot)) {
            *generation = generation.wrapping_add(1);
            id.generation = *generation;
        }
        id
    }

    fn give_back(&mut self, id: PeerId) {
        self.free.insert(id.slot);
    }
}

/// A peer with a task.
struct Running {
    id: PeerId,
    peer: Arc<Peer>,
    wanted: watch::Sender<Wanted>,
    door: mpsc::Sender<Accepted>,
    mailbox: Arc<Mailbox>,
    view: watch::Receiver<PeerView>,
    /// `None` until the table has heard of the peer.
    task: Option<JoinHandle<()>>,
}

/// What the task that applies is made with.
pub struct Surroundings<C> {
    /// Facts that no datastore has.
    pub facts: NodeFacts,
    /// Where what has to survive a restart is kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
    /// The table.
    pub core: CorePort<C>,
    /// What the listener shall do.
    pub listen: watch::Sender<Arc<ListenPlan>>,
    /// What people see.
    pub applied: watch::Sender<Arc<Applied>>,
    /// Connections that are being closed.
    pub closers: TaskTracker,
    /// The log, whose level may follow the datastore.
    pub log: Option<Arc<Log>>,
    /// Somebody wants the last snapshot compiled again.
    pub again: Arc<Notify>,
    /// Looks at all sessions.
    pub looks: Looks,
    /// What has to end on this node before anything is configured.
    pub incumbent: watch::Receiver<Option<String>>,
    /// What the next start has to know of graceful sessions.
    pub notes: Notes,
    /// Families whose forwarding state has survived our own restart, as OPENs say until recovery is over.
    pub restarting: AfiSet,
    /// Recovery.
    pub phase: watch::Receiver<Phase>,
}

/// Applies snapshots.
pub struct Applier<C> {
    surroundings: Surroundings<C>,
    gate: DialGate,
    slots: Slots,
    running: BTreeMap<SessionKey, Running>,
    state: Option<Arc<DesiredState>>,
    generation: u64,
    problems: Vec<Problem>,
    waiting_for: Option<String>,
    at: Millis,
}

/// Sessions that make way, and those that come.
#[derive(Default)]
struct Turnover {
    ending: BTreeMap<SessionKey, JoinHandle<()>>,
    starting: Vec<Arc<Peer>>,
}

impl<C: Core> Applier<C> {
    /// Nothing is applied yet.
    pub fn new(surroundings: Surroundings<C>) -> Self {
        Applier {
            surroundings,
            gate: DialGate::default(),
            slots: Slots::default(),
            running: BTreeMap::new(),
            state: None,
            generation: 0,
            problems: Vec::new(),
            waiting_for: Some("the datastore".into()),
            at: Millis(0),
        }
    }

    /// Applies each snapshot until `stop`; then ends all sessions so that neighbours keep our
    /// routes where they can (BGP-33).
    pub async fn run(
        mut self,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        stop: CancellationToken,
    ) {
        self.publish();
        if !self.alone(&stop).await {
            return;
        }
        let mut phase = self.surroundings.phase.clone();
        // Whether there is a snapshot that was not applied.
        let mut due = true;
        loop {
            let snapshot = snapshots.borrow_and_update().clone().filter(|_| std::mem::take(&mut due));
            if let Some(snapshot) = snapshot {
                self.apply(snapshot).await;
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(JOIN) => {}
                }
            }
            let recovering = !self.surroundings.restarting.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                () = recovery_over(&mut phase), if recovering => self.recovered(),
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        // The source has ended for good; what is in force stays.
                        stop.cancelled().await;
                        break;
                    }
                    due = true;
                }
                () = self.surroundings.again.notified() => due = true,
            }
        }
        self.end_all().await;
    }

    /// Waits until nobody else has this node's sessions and routes. False: `stop` came first.
    async fn alone(&mut self, stop: &CancellationToken) -> bool {
        let mut incumbent = self.surroundings.incumbent.clone();
        let before = self.waiting_for.clone();
        loop {
            let who = incumbent.borrow_and_update().clone();
            let free = who.is_none();
            self.waiting_for = who.or_else(|| before.clone());
            self.publish();
            if free {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                changed = incumbent.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                }
            }
        }
    }

    /// Recovery is over: OPENs say no more of our restart.
    fn recovered(&mut self) {
        self.surroundings.restarting = AfiSet::EMPTY;
        for running in self.running.values() {
            running.wanted.send_if_modified(|wanted| {
                let news = !wanted.restarting.is_empty();
                wanted.restarting = AfiSet::EMPTY;
                news
            });
        }
    }

    async fn apply(&mut self, snapshot: Arc<Snapshot>) {
        if let Some(log) = &self.surroundings.log {
            log.follow(log_severity(&snapshot, &self.surroundings.facts.node_name));
        }
        let compiled = compile_apart(snapshot.clone(), self.surroundings.facts.clone()).await;
        match compiled {
            Ok(mut state) => {
                if let Some(old) = &self.state {
                    desired::retain_keys(old, &mut state);
                    desired::retain_policy(old, &mut state);
                }
                self.tell_problems(&state.problems);
                self.waiting_for = None;
                if let Err(error) = keep_release(
                    &mut self.surroundings.facts,
                    state.release,
                    self.surroundings.state_dir.as_deref(),
                ) {
                    warn!(%error, "the cluster's release cannot be kept over a restart");
                }
                self.change_to(Arc::new(state)).await;
                self.at = self.surroundings.clock.now();
            }
            Err(unready) => {
                self.tell_problems(&unready.problems);
                let why = unready
                    .problems
                    .iter()
                    .find(|problem| problem.is_error())
                    .map_or_else(|| "a state that can be configured".to_string(), ToString::to_string);
                self.wait_for(why);
            }
        }
        self.publish();
    }

    /// Leaves in force what is; says so once.
    fn wait_for(&mut self, why: String) {
        if self.waiting_for.as_ref() != Some(&why) && self.state.is_some() {
            warn!("the last configuration stays in force: {why}");
        }
        self.waiting_for = Some(why);
    }

    /// Says what is newly wrong and what is no longer, each thing once.
    fn tell_problems(&mut self, problems: &[Problem]) {
        let (appeared, mended) = news(&self.problems, problems);
        for problem in appeared {
            match problem.severity() {
                Severity::Error => error!("{problem}"),
                Severity::Warning => warn!("{problem}"),
            }
        }
        for problem in mended {
            info!("no longer so: {problem}");
        }
        self.problems = problems.to_vec();
    }

    async fn change_to(&mut self, state: Arc<DesiredState>) {
        let plan = desired::diff(self.state.as_deref(), &state);
        if plan.is_empty() {
            self.state = Some(state);
            return;
        }
        let Turnover { mut ending, starting } = self.turn_over(&plan, &state);
        let mut tasks = Vec::new();
        for peer in starting {
            let after = predecessor(&mut ending, &peer.key);
            let key = peer.key.clone();
            let (running, task) = self.prepare(peer);
            tasks.push((key.clone(), task, after));
            self.running.insert(key, running);
        }
        // The table hears of new peers before these can speak.
        let desired = Urgent::Desired {
            state: state.clone(),
            peers: Arc::new(self.running.iter().map(|(key, peer)| (key.clone(), peer.id)).collect()),
            mailboxes: self.running.values().map(|peer| (peer.id, peer.mailbox.clone())).collect(),
        };
        if self.surroundings.core.urgent.send(desired).await.is_err() {
            return;
        }
        for (key, task, after) in tasks {
            let handle = tokio::spawn(async move {
                if let Some(after) = after {
                    // A connection that is still open at the other end would collide with the first dial.
                    let _ = timeout(HANDOVER, after).await;
                }
                task.run().await;
            });
            if let Some(running) = self.running.get_mut(&key) {
                running.task = Some(handle);
            }
        }
        self.surroundings.notes.retain(|key| self.running.contains_key(key));
        self.generation += 1;
        self.say_what_changed(&plan, &state);
        self.state = Some(state);
        self.plan_listener();
    }

    /// Ends what is to end and tells running sessions what is new for them; nothing starts yet.
    fn turn_over(&mut self, plan: &Plan, state: &DesiredState) -> Turnover {
        let mut turnover = Turnover::default();
        for (key, change) in &plan.peers {
            let (end, start) = match (change, state.peers.get(key)) {
                (PeerChange::Removed, _) | (_, None) => (Some(StopReason::Deconfigured), None),
                (PeerChange::Added, Some(peer)) => (None, Some(peer)),
                (PeerChange::Replaced, Some(peer)) => (Some(StopReason::Reconfigured), Some(peer)),
                (PeerChange::Updated { .. }, Some(peer)) => match self.running.get_mut(key) {
                    Some(running) if held(peer) == held(&running.peer) => {
                        running.peer = peer.clone();
                        running.wanted.send_modify(|wanted| {
                            wanted.next = peer.spec.next.clone();
                            wanted.key = md5_key(peer);
                        });
                        (None, None)
                    }
                    _ => (Some(StopReason::Reconfigured), Some(peer)),
                },
            };
            if let Some(task) = end.and_then(|reason| self.end(key, reason)) {
                turnover.ending.insert(key.clone(), task);
            }
            turnover.starting.extend(start.cloned());
        }
        turnover
    }

    fn say_what_changed(&self, plan: &Plan, state: &DesiredState) {
        let count = |wanted: fn(&PeerChange) -> bool| plan.peers.values().filter(|c| wanted(c)).count();
        info!(
            generation = self.generation,
            peers = state.peers.len(),
            added = count(|c| matches!(c, PeerChange::Added)),
            removed = count(|c| matches!(c, PeerChange::Removed)),
            restarted = count(|c| matches!(c, PeerChange::Replaced)),
            changed = count(|c| matches!(c, PeerChange::Updated { .. })),
            "configured"
        );
    }

    fn prepare(&mut self, peer: Arc<Peer>) -> (Running, PeerTask<C>) {
        let id = self.slots.take();
        let (wanted, wanted_rx) = watch::channel(Wanted {
            next: peer.spec.next.clone(),
            key: md5_key(&peer),
            restarting: self.surroundings.restarting,
            shadowed: None,
            stop: None,
        });
        let (door, door_rx) = mpsc::channel(DOOR);
        let (view, view_rx) = watch::channel(PeerView::default());
        let mailbox = Arc::new(Mailbox::default());
        let task = PeerTask {
            id,
            name: peer.name.as_str().into(),
            spec: peer.spec.clone(),
            held: held(&peer),
            wanted: wanted_rx,
            door: door_rx,
            mailbox: mailbox.clone(),
            core: self.surroundings.core.clone(),
            gate: self.gate.clone(),
            closers: self.surroundings.closers.clone(),
            view,
            looks: self.surroundings.looks.subscribe(),
            notes: (self.surroundings.notes.clone(), peer.key.clone()),
            clock: self.surroundings.clock,
        };
        let running = Running { id, peer, wanted, door, mailbox, view: view_rx, task: None };
        (running, task)
    }

    fn end(&mut self, key: &SessionKey, why: StopReason) -> Option<JoinHandle<()>> {
        let running = self.running.remove(key)?;
        running.wanted.send_modify(|wanted| wanted.stop = Some(why));
        self.slots.give_back(running.id);
        running.task
    }

    fn plan_listener(&self) {
        let Some(state) = &self.state else { return };
        let callers: Vec<Caller> = self
            .running
            .values()
            .map(|running| {
                let spec = &running.peer.spec;
                Caller {
                    name: running.peer.name.clone(),
                    addr: spec.transport.peer,
                    scope: spec.transport.scope,
                    asn: spec.open.peer_asn,
                    local: spec.next.source,
                    ttl: spec.transport.ttl,
                    key: md5_key(&running.peer),
                    door: running.door.clone(),
                    view: running.view.clone(),
                }
            })
            .collect();
        let mut shadowed = caller::shadowed(&callers);
        for running in self.running.values() {
            let shadowed = shadowed.remove(&running.peer.name);
            running.wanted.send_if_modified(|wanted| {
                let news = wanted.shadowed != shadowed;
                wanted.shadowed = shadowed;
                news
            });
        }
        let plan = ListenPlan { sockets: state.listen.clone(), callers };
        self.surroundings.listen.send_replace(Arc::new(plan));
    }

    fn publish(&self) {
        let mut peers: Vec<PeerEntry> = self
            .running
            .values()
            .map(|running| PeerEntry {
                id: running.id,
                peer: running.peer.clone(),
                view: running.view.clone(),
            })
            .collect();
        // PEER-3: as BIRD lists them.
        peers.sort_by(|a, b| a.peer.name.cmp(&b.peer.name));
        self.surroundings.applied.send_replace(Arc::new(Applied {
            node: self.surroundings.facts.node_name.clone(),
            generation: self.generation,
            state: self.state.clone(),
            peers,
            problems: self.problems.clone(),
            waiting_for: self.waiting_for.clone(),
            at: self.at,
        }));
    }

    async fn end_all(mut self) {
        for running in self.running.values() {
            running.wanted.send_modify(|wanted| wanted.stop = Some(StopReason::Exit));
        }
        for task in std::mem::take(&mut self.running).into_values().filter_map(|running| running.task) {
            let _ = timeout(HANDOVER, task).await;
        }
    }
}

/// Compiles where it keeps no session's timers waiting: a large cluster takes longer than a keepalive may.
async fn compile_apart(snapshot: Arc<Snapshot>, facts: NodeFacts) -> Result<DesiredState, desired::Unready> {
    match tokio::task::spawn_blocking(move || desired::compile(&snapshot, &facts)).await {
        Ok(compiled) => compiled,
        // A defect: it ends the task that applies, as if it had compiled by itself.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Tasks are cancelled only where the runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The session whose end another one has to wait for: it has its place, or at least its address.
fn predecessor<T>(ending: &mut BTreeMap<SessionKey, T>, of: &SessionKey) -> Option<T> {
    let place = |key: &SessionKey| (key.addr, key.zone.clone());
    let same = if ending.contains_key(of) {
        of.clone()
    } else {
        ending.keys().find(|key| place(key) == place(of))?.clone()
    };
    ending.remove(&same)
}

async fn recovery_over(phase: &mut watch::Receiver<Phase>) {
    // Where the table is gone there is nothing to wait for either.
    let _ = phase.wait_for(|phase| *phase == Phase::Normal).await;
}

/// Remembers what ClusterInformation says, for when it says nothing any more (REL-2).
fn keep_release(facts: &mut NodeFacts, now: ClusterRelease, state_dir: Option<&Path>) -> io::Result<()> {
    if now.source != ReleaseSource::ClusterInformation || facts.last_release == Some(now.release) {
        return Ok(());
    }
    facts.last_release = Some(now.release);
    state_dir.map_or(Ok(()), |dir| last_release::write(dir, now.release))
}

/// The problems that were not there before, and those whose field, or whose resource where no field is named, has none
/// any more.
fn news<'p>(before: &'p [Problem], now: &'p [Problem]) -> (Vec<&'p Problem>, Vec<&'p Problem>) {
    let old: BTreeSet<&Problem> = before.iter().collect();
    let places: BTreeSet<(&str, &str)> = now.iter().map(place).collect();
    let appeared = now.iter().filter(|problem| !old.contains(problem)).collect();
    let mended = before.iter().filter(|problem| !places.contains(&place(problem))).collect();
    (appeared, mended)
}

fn place(problem: &Problem) -> (&str, &str) {
    (&problem.resource, &problem.field)
}

/// Why a session must not start.
fn held(peer: &Peer) -> Option<String> {
    match &peer.auth {
        Auth::Withheld(from) => {
            Some(format!("its password, key {:?} of Secret {:?}, cannot be used", from.key, from.name))
        }
        Auth::None | Auth::Key { .. } | Auth::Missing(_) => None,
    }
}

/// The key with which a session is signed.
fn md5_key(peer: &Peer) -> Option<SecretBytes> {
    match &peer.auth {
        Auth::Key { key, .. } => Some(key.clone()),
        Auth::None | Auth::Missing(_) | Auth::Withheld(_) => None,
    }
}

/// NODE-30: of this node's own configuration, else of the global one.
fn log_severity<'s>(snapshot: &'s Snapshot, node: &str) -> Option<&'s str> {
    let of = |name: &str| snapshot.bgp_configurations.get(name)?.log_severity.as_deref();
    of(&format!("node.{node}")).or_else(|| of("default"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Release;

    #[test]
    fn a_problem_is_news_when_it_comes_and_when_its_place_has_none_any_more() {
        let problem = |resource: &str, field: &str, why: &str| Problem {
            resource: resource.into(),
            field: field.into(),
            why: why.into(),
            code: crate::model::Code::FieldRefused,
        };
        let (a, b) = (problem("Node/a", "spec.bgp", "x"), problem("Node/b", "spec.bgp", "x"));
        let changed = problem("Node/a", "spec.bgp", "y");
        let texts = |found: &[&Problem]| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        let told = |before: &[Problem], now: &[Problem]| {
            let (appeared, mended) = news(before, now);
            (texts(&appeared), texts(&mended))
        };
        let (old, new) = ([a.clone(), b.clone()], [changed.clone()]);
        assert_eq!(told(&old, &new), (vec![changed.to_string()], vec![b.to_string()]));
        assert_eq!(told(&old, &old), (vec![], vec![]));
        assert_eq!(told(&[], std::slice::from_ref(&a)), (vec![a.to_string()], vec![]));
    }

    #[test]
    fn only_what_cluster_information_says_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut facts = NodeFacts::default();
        let mut keep = |minor, source| {
            let now = ClusterRelease { release: Release { major: 3, minor }, source };
            keep_release(&mut facts, now, Some(dir.path())).unwrap();
            let text = std::fs::read_to_string(last_release::path(dir.path())).unwrap_or_default();
            assert_eq!(last_release::parse(&text), facts.last_release);
            facts.last_release.map(|release| release.minor)
        };
        assert_eq!(keep(33, ReleaseSource::Assumed), None);
        assert_eq!(keep(31, ReleaseSource::ClusterInformation), Some(31));
        assert_eq!(keep(14, ReleaseSource::Setting), Some(31));
        assert_eq!(keep(32, ReleaseSource::ClusterInformation), Some(32));
        assert_eq!(keep(32, ReleaseSource::LastKnown), Some(32));
    }

    #[test]
    fn a_session_waits_for_the_end_of_the_one_in_its_place_else_of_one_with_its_address() {
        let key = |addr: &str, port| SessionKey::new(addr.parse().unwrap(), port);
        let mut ending: BTreeMap<SessionKey, u8> =
            [(key("10.0.0.1", 180), 1), (key("10.0.0.1", 179), 2), (key("10.0.0.2", 179), 3)].into();
        assert_eq!(predecessor(&mut ending, &key("10.0.0.1", 179)), Some(2));
        assert_eq!(predecessor(&mut ending, &key("10.0.0.1", 1179)), Some(1));
        assert_eq!(predecessor(&mut ending, &key("10.0.0.1", 179)), None);
        assert_eq!(ending.len(), 1);
    }

    #[test]
    fn a_slot_is_reused_with_another_generation() {
        let mut slots = Slots::default();
        let (a, b) = (slots.take(), slots.take());
        assert_eq!((a.slot, b.slot), (0, 1));
        slots.give_back(a);
        let again = slots.take();
        assert_eq!(again.slot, 0);
        assert_ne!(again.generation, a.generation);
    }
}
