//! The sessions that there are: a task, a handle and a place at the listener for each configured peer.
//!
//! Owns: which peers have a task and which handle each has, what the listener shall do, and that a change wakes those
//! tasks only that it is about. Never: compiles, compares, or decides what a change costs: a [`Plan`] says it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{StateName, StopReason};
use bgp_proto::{AfiSet, PeerId};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::clock::Clock;
use crate::core_thread::mailbox::Mailbox;
use crate::core_thread::{Core, CoreGone, CorePort, Urgent};
use crate::desired::{Auth, DesiredState, Peer, PeerChange, Plan, SessionKey};
use crate::model::SecretBytes;
use crate::net::caller::{self, Accepted, Caller};
use crate::net::dial::DialGate;
use crate::net::listener::ListenPlan;
use crate::net::peer_task::{PeerTask, Wanted};
use crate::net::peer_view::{Looks, PeerEntry, PeerView};
use crate::restart_marker::Notes;
use crate::succession::{Standing, Succession};

/// How long a session that takes another's place waits for its end.
const HANDOVER: Duration = Duration::from_secs(3);
/// Connections of a peer that may wait for its task.
const DOOR: usize = 2;

/// What runs the task of a peer: on sockets in the daemon; tests have peers without any.
pub trait RunPeer<C>: Send + 'static {
    /// The task, which ends when [`Wanted::stop`] says so.
    fn run(&self, task: PeerTask<C>) -> BoxFuture<'static, ()>;
}

/// Peers at the far end of TCP.
#[derive(Clone, Copy, Debug)]
pub struct OnSockets;

impl<C: Core> RunPeer<C> for OnSockets {
    fn run(&self, task: PeerTask<C>) -> BoxFuture<'static, ()> {
        task.run().boxed()
    }
}

/// What the tasks of peers are made with.
pub struct RosterPorts<C> {
    /// Time.
    pub clock: Clock,
    /// The table.
    pub core: CorePort<C>,
    /// What the listener shall do.
    pub listen: watch::Sender<Arc<ListenPlan>>,
    /// Connections that are being closed.
    pub closers: TaskTracker,
    /// Looks at all sessions.
    pub looks: Looks,
    /// What the next start has to know of graceful sessions.
    pub notes: Notes,
    /// Families whose forwarding state has survived our own restart, as OPENs say until recovery is over.
    pub restarting: AfiSet,
}

#[cfg(test)]
impl<C> RosterPorts<C> {
    /// Ports of which a test holds the far ends: what the table and the listener are told.
    pub(crate) fn held_by_a_test() -> (Self, mpsc::Receiver<Urgent<C>>, watch::Receiver<Arc<ListenPlan>>) {
        let (urgent, core) = mpsc::channel(16);
        let (listen, listens) = watch::channel(Arc::default());
        let ports = RosterPorts {
            clock: Clock::start(),
            core: CorePort { urgent, bulk: mpsc::channel(1).0 },
            listen,
            closers: TaskTracker::new(),
            looks: Looks::default(),
            notes: Notes::default(),
            restarting: AfiSet::EMPTY,
        };
        (ports, core, listens)
    }
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

/// A peer with its ways in and out, beside its task.
pub struct Place {
    /// Handle.
    pub id: PeerId,
    /// What is wanted.
    pub peer: Arc<Peer>,
    /// Commands to the task.
    pub wanted: watch::Sender<Wanted>,
    /// Where connections that the peer dialled go.
    pub door: mpsc::Sender<Accepted>,
    /// Where the core's mail goes.
    pub mailbox: Arc<Mailbox>,
    /// What the task shows.
    pub view: watch::Receiver<PeerView>,
}

impl Place {
    /// The place of a peer and the task that belongs there, which does not run yet.
    pub fn new<C>(
        id: PeerId,
        peer: Arc<Peer>,
        gate: &DialGate,
        ports: &RosterPorts<C>,
    ) -> (Place, PeerTask<C>) {
        let (wanted, wanted_rx) = watch::channel(Wanted {
            spec: peer.spec.clone(),
            key: md5_key(&peer),
            restarting: ports.restarting,
            shadowed: None,
            stop: None,
        });
        let (door, door_rx) = mpsc::channel(DOOR);
        let (view_tx, view) = watch::channel(PeerView::default());
        let mailbox = Arc::new(Mailbox::default());
        let task = PeerTask {
            id,
            name: peer.name.as_str().into(),
            held: held(&peer),
            wanted: wanted_rx,
            door: door_rx,
            mailbox: mailbox.clone(),
            core: ports.core.clone(),
            gate: gate.clone(),
            closers: ports.closers.clone(),
            view: view_tx,
            looks: ports.looks.subscribe(),
            notes: (ports.notes.clone(), peer.key.clone()),
            clock: ports.clock,
        };
        (Place { id, peer, wanted, door, mailbox, view }, task)
    }

    /// The peer as the listener knows it.
    pub fn caller(&self) -> Caller {
        let spec = &self.peer.spec;
        Caller {
            name: self.peer.name.clone(),
            addr: spec.transport.peer,
            scope: spec.transport.scope,
            asn: spec.open.peer_asn,
            local: spec.next.source,
            ttl: spec.transport.ttl,
            key: md5_key(&self.peer),
            door: self.door.clone(),
            view: self.view.clone(),
        }
    }

    /// Tells the task what is wanted of the session; it wakes only where something is new for it.
    fn tell_task(&self) {
        let (spec, key) = (&self.peer.spec, md5_key(&self.peer));
        self.wanted.send_if_modified(|wanted| {
            let news = wanted.spec != *spec || wanted.key != key;
            if news {
                wanted.spec = spec.clone();
                wanted.key = key;
            }
            news
        });
    }

    /// How the session is, as its task last showed it.
    fn standing(&self) -> Standing {
        let view = self.view.borrow();
        view.status.as_ref().map_or_else(Standing::default, |status| Standing {
            up: status.state == StateName::Established,
            complete: status.stale.is_empty(),
            times_up: status.counters.established,
        })
    }
}

/// A peer whose task runs.
struct Running {
    place: Place,
    /// `None` until the table has heard of the peer.
    task: Option<JoinHandle<()>>,
}

/// All peers that have a task.
pub struct Roster<C, P> {
    ports: RosterPorts<C>,
    run: P,
    gate: DialGate,
    slots: Slots,
    running: BTreeMap<SessionKey, Running>,
    succession: Succession,
    entries: Arc<[PeerEntry]>,
}

/// Sessions that make way, and those that come.
#[derive(Default)]
struct Turnover {
    ending: BTreeMap<SessionKey, JoinHandle<()>>,
    starting: Vec<Arc<Peer>>,
    /// Those that stay, and make way for a successor of their own.
    replaced: Vec<SessionKey>,
}

impl<C: Core, P: RunPeer<C>> Roster<C, P> {
    /// Without any peer.
    pub fn new(ports: RosterPorts<C>, run: P) -> Self {
        Roster {
            ports,
            run,
            gate: DialGate::default(),
            slots: Slots::default(),
            running: BTreeMap::new(),
            succession: Succession::default(),
            entries: Arc::default(),
        }
    }

    /// Whether OPENs say that we have restarted.
    pub fn is_restarting(&self) -> bool {
        !self.ports.restarting.is_empty()
    }

    /// Recovery is over: OPENs say no more of our restart.
    pub fn recovered(&mut self) {
        self.ports.restarting = AfiSet::EMPTY;
        for running in self.running.values() {
            running.place.wanted.send_if_modified(|wanted| {
                let news = !wanted.restarting.is_empty();
                wanted.restarting = AfiSet::EMPTY;
                news
            });
        }
    }

    /// The peers in the order in which BIRD lists them (PEER-3).
    pub fn entries(&self) -> Arc<[PeerEntry]> {
        self.entries.clone()
    }

    /// Leaves out of `plan` and `state` the sessions that have to wait before they are replaced ([`Succession`]): in
    /// `state` they stand as they are. Whether there are any: then the whole state is to be changed to again when
    /// [`Roster::is_turn`] says so.
    pub fn take_turns(&mut self, plan: &mut Plan, state: &mut Arc<DesiredState>) -> bool {
        let stays = |key: &SessionKey| {
            let pair = (self.running.get(key), state.peers.get(key));
            matches!(pair, (Some(running), Some(new)) if held(new) == held(&running.place.peer))
        };
        let replaced =
            plan.peers.iter().filter(|(key, change)| **change == PeerChange::Replaced && stays(key));
        let replaced: BTreeSet<SessionKey> = replaced.map(|(key, _)| key.clone()).collect();
        let now = self.ports.clock.now();
        let running = &self.running;
        let due = self.succession.replace(now, replaced.clone(), |key| standing(running, key));
        if !self.succession.is_under_way() {
            return false;
        }
        if !due.is_empty() {
            let (now, later) = (due.len(), self.succession.waiting());
            info!(
                now,
                later, "sessions are replaced one after another: neighbours do not lose all routes at once"
            );
        }
        let in_force = Arc::make_mut(state);
        for key in replaced.difference(&due) {
            plan.peers.remove(key);
            if let Some(running) = self.running.get(key) {
                in_force.peers.insert(key.clone(), running.place.peer.clone());
            }
        }
        true
    }

    /// Whether sessions that waited to be replaced wait no more.
    pub fn is_turn(&self) -> bool {
        self.succession.is_due(self.ports.clock.now(), |key| standing(&self.running, key))
    }

    /// Does what `plan` says, which leads to `state`.
    ///
    /// # Errors
    /// The table has ended; nothing is started then.
    pub async fn change(&mut self, plan: &Plan, state: &Arc<DesiredState>) -> Result<(), CoreGone> {
        let Turnover { mut ending, starting, replaced } = self.turn_over(plan, state);
        let mut tasks = Vec::new();
        for peer in starting {
            let after = predecessor(&mut ending, &peer.key);
            let key = peer.key.clone();
            let (place, task) = Place::new(self.slots.take(), peer, &self.gate, &self.ports);
            tasks.push((key.clone(), task, after));
            self.running.insert(key, Running { place, task: None });
        }
        // The table hears of new peers before these can speak.
        let places = || self.running.iter().map(|(key, running)| (key, &running.place));
        let desired = Urgent::Desired {
            state: state.clone(),
            peers: Arc::new(places().map(|(key, place)| (key.clone(), place.id)).collect()),
            mailboxes: places().map(|(_, place)| (place.id, place.mailbox.clone())).collect(),
        };
        self.ports.core.urgent.send(desired).await.map_err(|_| CoreGone)?;
        // Nor is a session replaced before the table knows of it: what the successor says is the new session's.
        for running in replaced.iter().filter_map(|key| self.running.get(key)) {
            running.place.tell_task();
        }
        for (key, task, after) in tasks {
            let task = self.run.run(task);
            let handle = tokio::spawn(async move {
                if let Some(after) = after {
                    // A connection that is still open at the other end would collide with the first dial.
                    let _ = timeout(HANDOVER, after).await;
                }
                task.await;
            });
            if let Some(running) = self.running.get_mut(&key) {
                running.task = Some(handle);
            }
        }
        self.ports.notes.retain(|key| self.running.contains_key(key));
        if !plan.listen.is_empty() || plan.peers.values().any(concerns_callers) {
            self.plan_listener(state);
        }
        if !plan.peers.is_empty() {
            self.list();
        }
        Ok(())
    }

    /// Ends what is to end and tells running sessions what is new for them; nothing starts yet.
    fn turn_over(&mut self, plan: &Plan, state: &DesiredState) -> Turnover {
        let mut turnover = Turnover::default();
        for (key, change) in &plan.peers {
            let (end, start) = match (change, state.peers.get(key)) {
                (PeerChange::Removed, _) | (_, None) => (Some(StopReason::Deconfigured), None),
                (PeerChange::Added, Some(peer)) => (None, Some(peer)),
                (PeerChange::Replaced | PeerChange::Updated { .. }, Some(peer)) => {
                    match self.running.get_mut(key).map(|running| &mut running.place) {
                        Some(place) if held(peer) == held(&place.peer) => {
                            place.peer = peer.clone();
                            if *change == PeerChange::Replaced {
                                turnover.replaced.push(key.clone());
                            } else {
                                place.tell_task();
                            }
                            (None, None)
                        }
                        _ => (Some(StopReason::Reconfigured), Some(peer)),
                    }
                }
            };
            if let Some(task) = end.and_then(|reason| self.end(key, reason)) {
                turnover.ending.insert(key.clone(), task);
            }
            turnover.starting.extend(start.cloned());
        }
        turnover
    }

    fn end(&mut self, key: &SessionKey, why: StopReason) -> Option<JoinHandle<()>> {
        let Running { place, task } = self.running.remove(key)?;
        place.wanted.send_modify(|wanted| wanted.stop = Some(why));
        self.slots.give_back(place.id);
        task
    }

    fn plan_listener(&self, state: &DesiredState) {
        let callers: Vec<Caller> = self.running.values().map(|running| running.place.caller()).collect();
        let mut shadowed = caller::shadowed(&callers);
        for Running { place, .. } in self.running.values() {
            let shadowed = shadowed.remove(&place.peer.name);
            place.wanted.send_if_modified(|wanted| {
                let news = wanted.shadowed != shadowed;
                wanted.shadowed = shadowed;
                news
            });
        }
        let plan = ListenPlan { sockets: state.listen.clone(), callers };
        self.ports.listen.send_replace(Arc::new(plan));
    }

    fn list(&mut self) {
        let places = self.running.values().map(|running| &running.place);
        let mut entries: Vec<PeerEntry> = places
            .map(|place| PeerEntry { id: place.id, peer: place.peer.clone(), view: place.view.clone() })
            .collect();
        entries.sort_by(|a, b| a.peer.name.cmp(&b.peer.name));
        self.entries = entries.into();
    }

    /// Ends all sessions so that neighbours keep our routes where they can (BGP-33), and waits for their ends.
    pub async fn end_all(mut self) {
        for running in self.running.values() {
            running.place.wanted.send_modify(|wanted| wanted.stop = Some(StopReason::Exit));
        }
        for task in std::mem::take(&mut self.running).into_values().filter_map(|running| running.task) {
            let _ = timeout(HANDOVER, task).await;
        }
    }
}

/// How the session in a place is; one that there is not is down.
fn standing(running: &BTreeMap<SessionKey, Running>, key: &SessionKey) -> Standing {
    running.get(key).map_or_else(Standing::default, |running| running.place.standing())
}

/// Whether the listener knows anything of what changes.
const fn concerns_callers(change: &PeerChange) -> bool {
    !matches!(change, PeerChange::Updated { next: false, key: false, shown: false, treatment: _ })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{NodeFacts, compile, diff};
    use crate::model::snapshot::Snapshot;
    use crate::model::{BgpPeer, Node, NodeAddress, PeerAddress};
    use crate::speaker::Speaker;
    use bgp_proto::Asn;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    /// Peers without sockets, and without anything that runs: a test looks at what has reached each.
    #[derive(Clone, Default)]
    struct Fakes(Arc<Mutex<BTreeMap<String, PeerTask<Speaker>>>>);

    impl RunPeer<Speaker> for Fakes {
        fn run(&self, task: PeerTask<Speaker>) -> BoxFuture<'static, ()> {
            let mut wanted = task.wanted.clone();
            self.0.lock().unwrap().insert(task.name.to_string(), task);
            Box::pin(async move { drop(wanted.wait_for(|wanted| wanted.stop.is_some()).await) })
        }
    }

    impl Fakes {
        /// Those that something new has reached since the last call.
        fn woken(&self) -> Vec<String> {
            let mut tasks = self.0.lock().unwrap();
            let woken = tasks.iter_mut().filter(|(_, task)| task.wanted.has_changed().is_ok_and(|new| new));
            woken
                .map(|(name, task)| {
                    task.wanted.mark_unchanged();
                    name.clone()
                })
                .collect()
        }

        fn stopped(&self, name: &str) -> Option<StopReason> {
            self.0.lock().unwrap()[name].wanted.borrow().stop
        }
    }

    struct World {
        snapshot: Snapshot,
        state: Option<Arc<DesiredState>>,
        roster: Roster<Speaker, Fakes>,
        fakes: Fakes,
        listen: watch::Receiver<Arc<ListenPlan>>,
        core: mpsc::Receiver<Urgent<Speaker>>,
    }

    impl World {
        /// A node with explicit peers 192.0.2.1 to 192.0.2.`peers`.
        fn new(peers: u8) -> World {
            let mut snapshot = Snapshot::default();
            let ipv4 = Some(NodeAddress {
                addr: Ipv4Addr::new(10, 0, 0, 1),
                subnet: "10.0.0.0/24".parse().unwrap(),
            });
            let node = Node { name: "a".into(), ipv4, ..Node::default() };
            snapshot.nodes.insert("a".into(), Arc::new(node));
            let (ports, core, listen) = RosterPorts::held_by_a_test();
            let fakes = Fakes::default();
            let roster = Roster::new(ports, fakes.clone());
            let mut world = World { snapshot, state: None, roster, fakes, listen, core };
            for n in 1..=peers {
                world.peer(n, |_| ());
            }
            world
        }

        fn peer(&mut self, n: u8, change: impl FnOnce(&mut BgpPeer)) {
            let addr = IpAddr::from([192, 0, 2, n]);
            let mut peer = BgpPeer {
                name: format!("p{n}"),
                peer_ip: Some(PeerAddress { addr, port: None }),
                ..BgpPeer::default()
            };
            change(&mut peer);
            self.snapshot.peers.insert(peer.name.clone(), Arc::new(peer));
        }

        /// Compiles and changes; what of it reached the core.
        async fn change(&mut self) -> usize {
            let facts = NodeFacts { node_name: "a".into(), ..NodeFacts::default() };
            let state = Arc::new(compile(&self.snapshot, &facts).unwrap());
            let plan = diff(self.state.as_deref(), &state);
            self.roster.change(&plan, &state).await.unwrap();
            self.state = Some(state);
            let mut told = 0;
            while let Ok(urgent) = self.core.try_recv() {
                let Urgent::Desired { peers, mailboxes, .. } = urgent else { panic!("nothing else is said") };
                assert_eq!(peers.len(), mailboxes.len());
                told = peers.len();
            }
            // Tasks that were spawned put themselves where the test finds them.
            tokio::task::yield_now().await;
            told
        }
    }

    #[tokio::test]
    async fn a_change_that_touches_three_sessions_wakes_three_tasks() {
        let mut world = World::new(200);
        assert_eq!(world.change().await, 200);
        assert_eq!(world.fakes.woken(), [""; 0], "what a task is made with is no news to it");
        world.listen.mark_unchanged();
        for n in [7, 8, 9] {
            world.peer(n, |peer| peer.keepalive_time = Some(20));
        }
        assert_eq!(world.change().await, 200);
        assert_eq!(world.fakes.woken(), ["Global_192_0_2_7", "Global_192_0_2_8", "Global_192_0_2_9"]);
    }

    #[tokio::test]
    async fn a_session_whose_as_changes_keeps_its_task_and_its_handle_and_its_task_hears_after_the_table() {
        let mut world = World::new(3);
        world.change().await;
        let ids = |world: &World| world.roster.entries().iter().map(|entry| entry.id).collect::<Vec<_>>();
        let before = ids(&world);
        world.peer(2, |peer| peer.asn = Some(Asn(65001)));
        world.change().await;
        assert_eq!((world.fakes.woken(), ids(&world)), (vec!["Global_192_0_2_2".to_string()], before));
        assert_eq!(world.fakes.stopped("Global_192_0_2_2"), None);
        let tasks = world.fakes.0.lock().unwrap();
        assert_eq!(tasks["Global_192_0_2_2"].wanted.borrow().spec.open.peer_asn, Asn(65001));
    }

    #[tokio::test]
    async fn what_is_about_routes_alone_wakes_no_task_and_no_listener() {
        let mut world = World::new(3);
        world.change().await;
        world.listen.mark_unchanged();
        world.peer(2, |peer| peer.allowed_own_as = 2);
        assert_eq!(world.change().await, 3, "the table is told");
        assert_eq!(world.fakes.woken(), [""; 0]);
        assert!(!world.listen.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_goes_is_stopped_and_a_new_one_takes_its_handle_with_another_generation() {
        let mut world = World::new(2);
        world.change().await;
        let id = |world: &World, name: &str| {
            world.roster.entries().iter().find(|entry| entry.peer.name == name).map(|entry| entry.id)
        };
        let gone = id(&world, "Global_192_0_2_1").unwrap();
        world.snapshot.peers.remove("p1");
        world.peer(9, |_| ());
        world.change().await;
        assert_eq!(world.fakes.stopped("Global_192_0_2_1"), Some(StopReason::Deconfigured));
        assert_eq!(world.fakes.stopped("Global_192_0_2_2"), None);
        let came = id(&world, "Global_192_0_2_9").unwrap();
        assert_eq!((came.slot, came.generation), (gone.slot, gone.generation + 1));
        let callers: Vec<String> =
            world.listen.borrow().callers.iter().map(|caller| caller.name.clone()).collect();
        assert_eq!(callers, ["Global_192_0_2_2", "Global_192_0_2_9"]);
    }

    #[tokio::test]
    async fn the_end_of_recovery_reaches_the_tasks_that_said_that_we_restarted() {
        let mut world = World::new(2);
        world.roster.ports.restarting = AfiSet::BOTH;
        world.change().await;
        world.roster.recovered();
        assert_eq!(world.fakes.woken().len(), 2);
        world.roster.recovered();
        assert_eq!(world.fakes.woken(), [""; 0]);
    }

    #[tokio::test]
    async fn without_a_table_nothing_is_started() {
        let mut world = World::new(2);
        world.core.close();
        let facts = NodeFacts { node_name: "a".into(), ..NodeFacts::default() };
        let state = Arc::new(compile(&world.snapshot, &facts).unwrap());
        assert!(world.roster.change(&diff(None, &state), &state).await.is_err());
        assert!(world.fakes.0.lock().unwrap().is_empty());
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
