//! From a snapshot of the datastore to the state in force.
//!
//! Owns: when a snapshot is compiled, the desired state in force, and what people are told of the configuration. Never:
//! compiles or compares by itself ([`desired`] does), touches a session ([`roster`](crate::roster) does), or undoes
//! anything because the datastore is silent: what cannot be compiled leaves the state before it in force (NODE-7, O1).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::Millis;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::core_thread::Core;
use crate::desired::{
    self, ClusterRelease, DesiredState, Filters, NodeFacts, PeerChange, Plan, Prior, ReleaseSource,
};
use crate::fib::Phase;
use crate::last_release;
use crate::model::snapshot::Snapshot;
use crate::model::{Problem, Severity};
use crate::net::peer_view::PeerEntry;
use crate::roster::{Roster, RunPeer};
use crate::telemetry::log::Log;

/// Changes that follow each other within this time are joined; the first after quiet is applied at once.
const JOIN: Duration = Duration::from_millis(50);
/// How often sessions that wait to be replaced are looked at, while there are any.
const SUCCESSION: Duration = Duration::from_millis(20);
/// Questions for another compilation that may wait.
const AGAIN: usize = 16;

/// Somebody wants the last snapshot compiled again, and hears when that is done.
pub type Again = oneshot::Sender<()>;

/// Where it is asked for, and where [`Configure`] hears of it.
pub fn again() -> (mpsc::Sender<Again>, mpsc::Receiver<Again>) {
    mpsc::channel(AGAIN)
}

/// The state in force, for people.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// `NODENAME`.
    pub node: String,
    /// Counts the states that were configured.
    pub generation: u64,
    /// The state; `None` before the first.
    pub state: Option<Arc<DesiredState>>,
    /// Sessions by name.
    pub peers: Arc<[PeerEntry]>,
    /// What is wrong, or not done, by the last snapshot.
    pub problems: Vec<Problem>,
    /// Why the last snapshot is not in force.
    pub waiting_for: Option<String>,
    /// When the state was last configured.
    pub at: Millis,
}

/// What it is configured with.
pub struct ConfigurePorts {
    /// Facts that no datastore has.
    pub facts: NodeFacts,
    /// Where what has to survive a restart is kept, if anywhere.
    pub state_dir: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
    /// What people see.
    pub in_force: watch::Sender<Arc<InForce>>,
    /// The log, whose level may follow the datastore.
    pub log: Option<Arc<Log>>,
    /// Somebody wants the last snapshot compiled again.
    pub again: mpsc::Receiver<Again>,
    /// What has to end on this node before anything is configured.
    pub incumbent: watch::Receiver<Option<String>>,
    /// Recovery.
    pub phase: watch::Receiver<Phase>,
}

/// The task that configures.
pub struct Configure<C, P> {
    ports: ConfigurePorts,
    roster: Roster<C, P>,
    /// In force. A session that waits to be replaced stands in it as it was.
    state: Option<Arc<DesiredState>>,
    /// What it was compiled of.
    prior: Option<Arc<Prior>>,
    /// The filters that it was compiled with.
    filters: Filters,
    /// What is wanted, while sessions wait to be replaced.
    wanted: Option<Arc<DesiredState>>,
    generation: u64,
    problems: Vec<Problem>,
    waiting_for: Option<String>,
    at: Millis,
}

impl<C: Core, P: RunPeer<C>> Configure<C, P> {
    /// Nothing is configured yet.
    pub fn new(ports: ConfigurePorts, roster: Roster<C, P>) -> Self {
        Configure {
            ports,
            roster,
            state: None,
            prior: None,
            filters: Filters::default(),
            wanted: None,
            generation: 0,
            problems: Vec::new(),
            waiting_for: Some("the datastore".into()),
            at: Millis(0),
        }
    }

    /// Configures each snapshot until `stop`; then ends all sessions.
    pub async fn run(
        mut self,
        mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
        stop: CancellationToken,
    ) {
        self.publish();
        if !self.alone(&stop).await {
            return;
        }
        let mut phase = self.ports.phase.clone();
        // Whether there is a snapshot that was not configured, and who asked for the last one once more.
        let (mut due, mut asked): (bool, Vec<Again>) = (true, Vec::new());
        loop {
            let snapshot = snapshots.borrow_and_update().clone().filter(|_| std::mem::take(&mut due));
            if let Some(snapshot) = snapshot {
                self.configure(snapshot).await;
                asked.drain(..).for_each(told);
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(JOIN) => {}
                }
            }
            // There is no snapshot yet.
            asked.drain(..).for_each(told);
            let recovering = self.roster.is_restarting();
            tokio::select! {
                () = stop.cancelled() => break,
                () = recovery_over(&mut phase), if recovering => self.roster.recovered(),
                () = sleep(SUCCESSION), if self.wanted.is_some() => self.take_turn().await,
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        // The source has ended for good; what is in force stays.
                        stop.cancelled().await;
                        break;
                    }
                    due = true;
                }
                Some(first) = self.ports.again.recv() => {
                    asked.push(first);
                    while let Ok(more) = self.ports.again.try_recv() {
                        asked.push(more);
                    }
                    due = true;
                }
            }
        }
        self.roster.end_all().await;
    }

    /// Waits until nobody else has this node's sessions and routes. False: `stop` came first.
    async fn alone(&mut self, stop: &CancellationToken) -> bool {
        let mut incumbent = self.ports.incumbent.clone();
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

    async fn configure(&mut self, snapshot: Arc<Snapshot>) {
        if let Some(log) = &self.ports.log {
            log.follow(log_severity(&snapshot, &self.ports.facts.node_name));
        }
        let snapshot = desired::keep_filters(&self.filters, &snapshot);
        let compiled =
            compile_apart(snapshot.clone(), self.ports.facts.clone(), self.state.clone(), self.prior.clone())
                .await;
        match compiled {
            Ok((state, prior)) => {
                self.prior = Some(Arc::new(prior));
                self.tell_problems(&state.problems);
                self.waiting_for = None;
                let kept =
                    keep_release(&mut self.ports.facts, state.release, self.ports.state_dir.as_deref());
                if let Err(error) = kept {
                    warn!(%error, "the cluster's release cannot be kept over a restart");
                }
                self.filters = snapshot.filters.clone();
                self.change_to(Arc::new(state)).await;
                self.at = self.ports.clock.now();
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

    /// Sessions wait to be replaced: perhaps it is the turn of some.
    async fn take_turn(&mut self) {
        if self.roster.is_turn()
            && let Some(wanted) = self.wanted.take()
        {
            self.change_to(wanted).await;
            self.publish();
        }
    }

    async fn change_to(&mut self, mut state: Arc<DesiredState>) {
        let mut plan = desired::diff(self.state.as_deref(), &state);
        let whole = state.clone();
        self.wanted = self.roster.take_turns(&mut plan, &mut state).then_some(whole);
        if !plan.is_empty() {
            if self.roster.change(&plan, &state).await.is_err() {
                // The process is about to end.
                return;
            }
            self.generation += 1;
            self.say_what_changed(&plan, &state);
        }
        self.state = Some(state);
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

    fn publish(&self) {
        self.ports.in_force.send_replace(Arc::new(InForce {
            node: self.ports.facts.node_name.clone(),
            generation: self.generation,
            state: self.state.clone(),
            peers: self.roster.entries(),
            problems: self.problems.clone(),
            waiting_for: self.waiting_for.clone(),
            at: self.at,
        }));
    }
}

/// Whoever asked may be gone.
fn told(again: Again) {
    let _ = again.send(());
}

/// Compiles where it keeps no session's timers waiting: a large cluster takes longer than a keepalive may. What is as in
/// the state before is that state's.
async fn compile_apart(
    snapshot: Arc<Snapshot>,
    facts: NodeFacts,
    before: Option<Arc<DesiredState>>,
    prior: Option<Arc<Prior>>,
) -> Result<(DesiredState, Prior), desired::Unready> {
    let compile = move || {
        let (mut state, mut prior) = desired::compile_after(prior.as_deref(), &snapshot, &facts)?;
        if let Some(before) = before {
            desired::retain_keys(&before, &mut state);
            desired::retain_policy(&before, &mut state);
        }
        prior.in_force(&state);
        Ok((state, prior))
    };
    match tokio::task::spawn_blocking(compile).await {
        Ok(compiled) => compiled,
        // A defect: it ends this task, as if it had compiled by itself.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Tasks are cancelled only where the runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
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

/// NODE-30: of this node's own configuration, else of the global one.
fn log_severity<'s>(snapshot: &'s Snapshot, node: &str) -> Option<&'s str> {
    let of = |name: &str| snapshot.bgp_configurations.get(name)?.log_severity.as_deref();
    of(&format!("node.{node}")).or_else(|| of("default"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Release;

    use crate::core_thread::Urgent;
    use crate::model::{BgpPeer, ClusterInformation, Node, NodeAddress, PeerAddress};
    use crate::net::peer_task::PeerTask;
    use crate::roster::RosterPorts;
    use crate::speaker::Speaker;
    use futures::future::BoxFuture;

    /// Peers that do nothing until they are stopped.
    struct Idle;

    impl RunPeer<Speaker> for Idle {
        fn run(&self, mut task: PeerTask<Speaker>) -> BoxFuture<'static, ()> {
            Box::pin(async move { drop(task.wanted.wait_for(|wanted| wanted.stop.is_some()).await) })
        }
    }

    /// The task that configures node `a`, on a core of which nothing but the way in is there.
    struct World {
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        again: mpsc::Sender<Again>,
        in_force: watch::Receiver<Arc<InForce>>,
        incumbent: watch::Sender<Option<String>>,
        core: mpsc::Receiver<Urgent<Speaker>>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
        _listen: watch::Receiver<Arc<crate::net::listener::ListenPlan>>,
        _phase: watch::Sender<Phase>,
    }

    impl World {
        fn new(incumbent: Option<&str>) -> World {
            let (roster, core, listens) = RosterPorts::held_by_a_test();
            let (in_force_tx, in_force) = watch::channel(Arc::default());
            let (again, again_rx) = again();
            let (incumbent, incumbent_rx) = watch::channel(incumbent.map(String::from));
            let (phase_tx, phase) = watch::channel(Phase::Normal);
            let ports = ConfigurePorts {
                facts: NodeFacts { node_name: "a".into(), ..NodeFacts::default() },
                state_dir: None,
                clock: roster.clock,
                in_force: in_force_tx,
                log: None,
                again: again_rx,
                incumbent: incumbent_rx,
                phase,
            };
            let (snapshots, snapshots_rx) = watch::channel(None);
            let stop = CancellationToken::new();
            let configure = Configure::new(ports, Roster::new(roster, Idle));
            let task = tokio::spawn(configure.run(snapshots_rx, stop.clone()));
            World {
                snapshots,
                again,
                in_force,
                incumbent,
                core,
                stop,
                task,
                _listen: listens,
                _phase: phase_tx,
            }
        }

        async fn until(&mut self, ready: impl FnMut(&Arc<InForce>) -> bool) -> Arc<InForce> {
            let waited = tokio::time::timeout(Duration::from_secs(20), self.in_force.wait_for(ready)).await;
            waited.unwrap().unwrap().clone()
        }
    }

    /// Node `a` with one peer, and perhaps a second.
    fn snapshot(peers: u8) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let ipv4 = Some(NodeAddress { addr: [10, 0, 0, 1].into(), subnet: "10.0.0.0/24".parse().unwrap() });
        snapshot.nodes.insert("a".into(), Arc::new(Node { name: "a".into(), ipv4, ..Node::default() }));
        let information =
            ClusterInformation { calico_version: Some("v3.33.0".into()), datastore_ready: Some(true) };
        snapshot.cluster_information = Some(Arc::new(information));
        for n in 1..=peers {
            let peer_ip = Some(PeerAddress { addr: [192, 0, 2, n].into(), port: None });
            let peer = BgpPeer { name: format!("p{n}"), peer_ip, ..BgpPeer::default() };
            snapshot.peers.insert(peer.name.clone(), Arc::new(peer));
        }
        snapshot
    }

    #[tokio::test]
    async fn what_cannot_be_compiled_leaves_the_state_before_it_in_force_and_says_why() {
        let mut world = World::new(None);
        world.snapshots.send_replace(Some(Arc::new(snapshot(1))));
        let before = world.until(|in_force| in_force.generation == 1).await;
        assert_eq!(before.peers.len(), 1);
        world.snapshots.send_replace(Some(Arc::new(Snapshot::default())));
        let after = world.until(|in_force| in_force.waiting_for.is_some()).await;
        assert!(Arc::ptr_eq(before.state.as_ref().unwrap(), after.state.as_ref().unwrap()));
        assert_eq!((after.generation, after.peers.len()), (1, 1));
        assert!(after.waiting_for.as_ref().unwrap().contains("Node/a"), "{:?}", after.waiting_for);
        world.snapshots.send_replace(Some(Arc::new(snapshot(2))));
        let mended = world.until(|in_force| in_force.waiting_for.is_none()).await;
        assert_eq!((mended.generation, mended.peers.len()), (2, 2));
    }

    #[tokio::test]
    async fn whoever_asks_for_another_compilation_hears_of_its_end_and_at_once_where_nothing_is_known() {
        let mut world = World::new(None);
        let ask = async |world: &World| {
            let (answer, done) = oneshot::channel();
            world.again.send(answer).await.unwrap();
            tokio::time::timeout(Duration::from_secs(20), done).await.unwrap().unwrap();
        };
        ask(&world).await;
        assert!(world.in_force.borrow().state.is_none());
        world.snapshots.send_replace(Some(Arc::new(snapshot(1))));
        let before = world.until(|in_force| in_force.generation == 1).await;
        ask(&world).await;
        let after = world.in_force.borrow().clone();
        assert!(!Arc::ptr_eq(before.state.as_ref().unwrap(), after.state.as_ref().unwrap()));
        assert_eq!(after.generation, 1, "nothing has changed by it");
    }

    #[tokio::test]
    async fn nothing_is_configured_while_another_bird_has_the_node_and_all_of_it_when_that_ends() {
        let mut world = World::new(Some("the end of another BIRD"));
        world.snapshots.send_replace(Some(Arc::new(snapshot(1))));
        world.until(|in_force| in_force.waiting_for.as_deref() == Some("the end of another BIRD")).await;
        assert!(world.core.try_recv().is_err());
        world.incumbent.send_replace(None);
        world.until(|in_force| in_force.generation == 1).await;
        assert!(matches!(world.core.try_recv(), Ok(Urgent::Desired { .. })));
        world.stop.cancel();
        world.task.await.unwrap();
    }

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
}
