//! When the start is over (KRT-50 to KRT-52).
//!
//! Owns: for whom we wait after a start, and for how long. Until the end of recovery no route that was found in the
//! kernel is removed: every peer has told all of its routes by then, or had the time for it. One that refuses our
//! dial, or restarts itself, says nothing about routes. Two things keep what was found longer. *Nobody speaks to us*:
//! while there are peers and none has been up, or neighbours cannot reach us because our port is taken, what was found
//! is all that anybody knows. *A peer is away*: a route through a peer that has not told its routes since the start
//! stays until the restart time that this peer last asked for is over. Never: removes anything itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::{Afi, AfiSet, Millis, PeerId};

use crate::desired::SessionKey;
use crate::fib::Phase;

/// Nobody is waited for longer than this after the datastore was in sync, or than the restart time that it asked for.
/// BIRD waits 240 s.
pub const RECOVERY_LIMIT: Millis = Millis::secs(30);
/// How long routes through a peer that is away stay where nobody knows what restart time it asked for.
const UNKNOWN_RESTART_TIME: Millis = Millis::secs(30);

/// What is known of the run before this one. By default nothing: a cold start.
#[derive(Clone, Debug, Default)]
pub struct Restart {
    /// Families whose forwarding state has survived, as our OPENs say with the R and F bits (RFC 4724 §4.1). Until
    /// recovery ends, what peers told is not passed on in these, and no End-of-RIB is sent: it
    /// would make the neighbours drop what they keep for us before all of it has come again. In
    /// other families nobody keeps anything for us.
    pub families: AfiSet,
    /// The peers that had a session with graceful restart, and the restart time in seconds that each asked for; nobody
    /// else is waited for. `None`: not known, and all are.
    pub peers: Option<BTreeMap<SessionKey, u16>>,
}

/// What the end of recovery waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WaitsFor {
    /// The datastore.
    Datastore,
    /// The first look at the kernel.
    Kernel,
    /// Our port: neighbours cannot reach us.
    Listener,
    /// A first session: there are peers and none has been up.
    FirstSession,
    /// End-of-RIB of these.
    EndOfRib(BTreeSet<(PeerId, Afi)>),
}

/// A peer that has not told its routes since the start.
#[derive(Clone, Copy, Debug)]
struct Absent {
    addr: IpAddr,
    /// Until when routes through it stay.
    until: Millis,
}

/// A peer of the first desired state.
pub(super) struct Expected {
    pub id: PeerId,
    pub addr: IpAddr,
    pub key: SessionKey,
}

/// The wait after a start. It ends once.
#[derive(Debug)]
pub(super) struct Recovery {
    restart: Restart,
    phase: Phase,
    datastore_synced: bool,
    kernel_synced: bool,
    /// Neighbours can reach us, as far as is known.
    listening: bool,
    /// There are peers.
    has_peers: bool,
    /// A session has been up.
    has_spoken: bool,
    /// Who has yet to send End-of-RIB, and for how long it is waited for since `began`.
    waiting: BTreeMap<(PeerId, Afi), Millis>,
    /// The shortest of these times; never too long.
    shortest: Option<Millis>,
    /// Those of them for whom the others do not wait as well.
    excused: BTreeSet<PeerId>,
    absent: BTreeMap<PeerId, Absent>,
    /// When the first of them is waited for no longer; never too late.
    next_absence_over: Option<Millis>,
    /// Somebody is absent no more.
    absent_changed: bool,
    /// Since when peers could tell: the datastore was known, and nothing was in the way.
    began: Option<Millis>,
    deferral_over: bool,
    /// The next hops whose routes stay, as last told.
    held: BTreeSet<IpAddr>,
}

impl Default for Recovery {
    fn default() -> Self {
        Recovery::after(Restart::default())
    }
}

impl Recovery {
    pub fn after(restart: Restart) -> Self {
        Recovery {
            restart,
            phase: Phase::default(),
            datastore_synced: false,
            kernel_synced: false,
            listening: true,
            has_peers: false,
            has_spoken: false,
            waiting: BTreeMap::new(),
            shortest: None,
            excused: BTreeSet::new(),
            absent: BTreeMap::new(),
            next_absence_over: None,
            absent_changed: true,
            began: None,
            deferral_over: false,
            held: BTreeSet::new(),
        }
    }

    /// Families in which what peers told waits.
    pub fn deferred(&self) -> AfiSet {
        if self.deferral_over { AfiSet::EMPTY } else { self.restart.families }
    }

    /// Families in which End-of-RIB may be sent: all that there was at start is in the table.
    pub fn complete(&self) -> AfiSet {
        if self.kernel_synced { AfiSet::BOTH.without(self.deferred()) } else { AfiSet::EMPTY }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn recovering(&self) -> bool {
        self.phase == Phase::Recovering
    }

    /// How many End-of-RIBs are waited for.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether both datastore and kernel are known, so that what we want in the kernel can be told.
    pub fn informed(&self) -> bool {
        self.datastore_synced && self.kernel_synced
    }

    /// What the end is waited for, while recovering.
    pub fn waits_for(&self) -> Vec<WaitsFor> {
        if !self.recovering() {
            return Vec::new();
        }
        let reasons = [
            (!self.datastore_synced, WaitsFor::Datastore),
            (!self.kernel_synced, WaitsFor::Kernel),
            (!self.listening, WaitsFor::Listener),
            (self.has_peers && !self.has_spoken, WaitsFor::FirstSession),
            (!self.waiting.is_empty(), WaitsFor::EndOfRib(self.waiting.keys().copied().collect())),
        ];
        reasons.into_iter().filter(|(so, _)| *so).map(|(_, what)| what).collect()
    }

    /// The datastore says that these are the peers. Only those of the first time are waited for, and of them those that
    /// had a session with graceful restart, where that is known.
    pub fn desired(&mut self, now: Millis, peers: Vec<Expected>) {
        self.has_peers = !peers.is_empty();
        if self.datastore_synced {
            let ids: BTreeSet<(PeerId, Afi)> = peers.iter().map(|peer| (peer.id, peer.key.afi)).collect();
            self.waiting.retain(|peer, _| ids.contains(peer));
            let ids: BTreeSet<PeerId> = ids.into_iter().map(|(id, _)| id).collect();
            self.absent.retain(|id, _| ids.contains(id));
            self.absent_changed = true;
            return;
        }
        self.datastore_synced = true;
        self.began = Some(now);
        for Expected { id, addr, key } in peers {
            let known = self.restart.peers.as_ref();
            let restart_time = known.and_then(|peers| peers.get(&key)).copied();
            let stays = restart_time.map_or(UNKNOWN_RESTART_TIME, |secs| Millis::secs(secs.into()));
            if known.is_none() || restart_time.is_some() {
                // Who asked for no time at all said nothing of how long it is away.
                let waits = if restart_time == Some(0) { RECOVERY_LIMIT } else { stays.min(RECOVERY_LIMIT) };
                self.waiting.insert((id, key.afi), waits);
            }
            self.absent.insert(id, Absent { addr, until: now + stays });
        }
        self.shortest = self.waiting.values().min().copied();
    }

    pub fn synced(&mut self) {
        self.kernel_synced = true;
    }

    /// Whether neighbours can reach us.
    pub fn listening(&mut self, now: Millis, listening: bool) {
        if listening && !self.listening {
            self.give_time(now);
        }
        self.listening = listening;
    }

    /// A session is up.
    pub fn up(&mut self, now: Millis) {
        if !std::mem::replace(&mut self.has_spoken, true) {
            self.give_time(now);
        }
    }

    /// What was in the way is gone: peers have their time from now on.
    fn give_time(&mut self, now: Millis) {
        if let Some(began) = self.began.as_mut().filter(|_| self.phase == Phase::Recovering) {
            *began = (*began).max(now);
        }
    }

    /// The peer has told all of its routes of this family.
    pub fn end_of_rib(&mut self, peer: PeerId, afi: Afi) {
        self.waiting.remove(&(peer, afi));
        self.absent_changed |= self.absent.remove(&peer).is_some();
    }

    /// The peer will not tell, or not soon, or waits for our End-of-RIB itself: the other peers do not wait for it.
    pub fn excuse(&mut self, peer: PeerId) {
        self.excused.insert(peer);
    }

    /// The peer is none any more.
    pub fn forget(&mut self, peer: PeerId) {
        self.waiting.retain(|(other, _), _| *other != peer);
        self.excused.remove(&peer);
        self.absent_changed |= self.absent.remove(&peer).is_some();
    }

    /// Ends the deferral if it is time; the families in which it ended, exactly once.
    pub fn deferral_ends(&mut self, now: Millis) -> AfiSet {
        if self.deferral_over || !self.informed() {
            return AfiSet::EMPTY;
        }
        // It is asked after every slice, and there may be thousands: who waits for nothing looks at nobody.
        self.give_up(now);
        let told = || self.waiting.keys().all(|(peer, _)| self.excused.contains(peer));
        if !self.restart.families.is_empty() && !told() {
            return AfiSet::EMPTY;
        }
        self.deferral_over = true;
        self.restart.families
    }

    /// Ends the wait if it is time; `true` exactly once.
    pub fn ends(&mut self, now: Millis) -> bool {
        if !self.recovering() || !self.informed() || self.is_blocked() {
            return false;
        }
        self.give_up(now);
        if self.waiting.is_empty() {
            self.phase = Phase::Normal;
            self.excused.clear();
            return true;
        }
        false
    }

    /// After recovery: the next hops whose routes stay from now on, where they are others than before.
    pub fn newly_held(&mut self, now: Millis) -> Option<BTreeSet<IpAddr>> {
        if self.recovering() {
            return None;
        }
        // It is asked after every slice, and there may be thousands.
        let is_over = self.next_absence_over.is_some_and(|over| over <= now);
        if !std::mem::take(&mut self.absent_changed) && !is_over {
            return None;
        }
        self.absent.retain(|_, absent| absent.until > now);
        self.next_absence_over = self.absent.values().map(|absent| absent.until).min();
        let held: BTreeSet<IpAddr> = self.absent.values().map(|absent| absent.addr).collect();
        (held != self.held).then(|| {
            self.held.clone_from(&held);
            held
        })
    }

    /// Neighbours cannot reach us, or none of them has spoken.
    fn is_blocked(&self) -> bool {
        !self.listening || (self.has_peers && !self.has_spoken)
    }

    /// Who had its time is waited for no longer.
    fn give_up(&mut self, now: Millis) {
        let Some(began) = self.began else { return };
        // It is asked after every slice, and there may be thousands.
        if self.shortest.is_some_and(|shortest| began + shortest <= now) {
            self.waiting.retain(|_, waits| began + *waits > now);
            self.shortest = self.waiting.values().min().copied();
        }
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Millis> {
        if self.recovering() {
            // What else is in the way ends with an input of its own.
            let may_end = self.informed() && !self.is_blocked();
            return self
                .began
                .zip(self.shortest)
                .filter(|_| may_end)
                .map(|(began, shortest)| began + shortest);
        }
        self.next_absence_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId { slot: 0, generation: 0 };
    const B: PeerId = PeerId { slot: 1, generation: 0 };
    const C: PeerId = PeerId { slot: 2, generation: 0 };

    fn addr(id: PeerId) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(id.slot).unwrap()])
    }

    fn expected(peers: &[PeerId]) -> Vec<Expected> {
        let expected =
            |id: &PeerId| Expected { id: *id, addr: addr(*id), key: SessionKey::new(addr(*id), 179) };
        peers.iter().map(expected).collect()
    }

    fn started_after(restart: Restart, peers: &[PeerId]) -> Recovery {
        let mut recovery = Recovery::after(restart);
        recovery.desired(Millis(1000), expected(peers));
        recovery.synced();
        recovery
    }

    /// Peers of which one has been up.
    fn started(peers: &[PeerId]) -> Recovery {
        let mut recovery = started_after(Restart::default(), peers);
        recovery.up(Millis(1000));
        recovery
    }

    #[test]
    fn it_waits_for_every_peer_or_the_limit_and_ends_once() {
        let mut recovery = started(&[A, B]);
        recovery.end_of_rib(A, Afi::Ipv4);
        assert!(!recovery.ends(Millis(30_999)));
        assert_eq!(recovery.deadline(), Some(Millis(31_000)));
        assert!(recovery.ends(Millis(31_000)));
        assert!(!recovery.ends(Millis(40_000)));
        assert_eq!(recovery.newly_held(Millis(31_000)), None, "nobody is away any more");
        assert_eq!(recovery.deadline(), None);
        let mut recovery = started(&[A, B]);
        recovery.end_of_rib(A, Afi::Ipv4);
        recovery.forget(B);
        assert!(recovery.ends(Millis(1001)));
    }

    #[test]
    fn an_excused_peer_holds_up_the_kernel_but_not_the_others() {
        let both = Restart { families: AfiSet::BOTH, peers: None };
        let mut recovery = started_after(both, &[A, B]);
        recovery.up(Millis(1000));
        recovery.excuse(B);
        assert_eq!(recovery.deferral_ends(Millis(1001)), AfiSet::EMPTY);
        recovery.end_of_rib(A, Afi::Ipv4);
        assert_eq!(
            (recovery.deferral_ends(Millis(1001)), recovery.deferred()),
            (AfiSet::BOTH, AfiSet::EMPTY)
        );
        assert_eq!(recovery.deferral_ends(Millis(1002)), AfiSet::EMPTY);
        assert!(!recovery.ends(Millis(30_999)));
        assert!(recovery.ends(Millis(31_000)));
    }

    #[test]
    fn without_datastore_or_kernel_no_time_is_enough() {
        let mut recovery = Recovery::default();
        recovery.synced();
        assert!(!recovery.ends(Millis::secs(10_000)));
        let mut recovery = Recovery::default();
        recovery.desired(Millis(0), Vec::new());
        assert!(!recovery.ends(Millis::secs(10_000)));
        recovery.synced();
        assert!(recovery.ends(Millis::secs(10_000)));
    }

    #[test]
    fn peers_that_come_late_are_not_waited_for_and_removed_ones_no_longer() {
        let mut recovery = started(&[A]);
        recovery.desired(Millis(2000), expected(&[B]));
        assert!(recovery.ends(Millis(2000)));
    }

    #[test]
    fn while_there_are_peers_and_none_has_been_up_it_does_not_end() {
        let mut recovery = started_after(Restart::default(), &[A, B]);
        recovery.excuse(A);
        recovery.excuse(B);
        assert!(!recovery.ends(Millis::secs(10_000)));
        assert_eq!(recovery.deadline(), None, "no time ends it");
        assert!(recovery.waits_for().contains(&WaitsFor::FirstSession));
        recovery.up(Millis::secs(10_000));
        assert!(!recovery.ends(Millis::secs(10_000)), "the peer has its time to tell");
        recovery.end_of_rib(A, Afi::Ipv4);
        assert!(recovery.ends(Millis::secs(10_030)));
    }

    #[test]
    fn while_neighbours_cannot_reach_us_it_does_not_end() {
        let mut recovery = started(&[A]);
        recovery.listening(Millis(1000), false);
        recovery.end_of_rib(A, Afi::Ipv4);
        assert!(!recovery.ends(Millis::secs(10_000)));
        assert_eq!(recovery.waits_for(), [WaitsFor::Listener]);
        recovery.listening(Millis::secs(10_000), true);
        assert!(recovery.ends(Millis::secs(10_000)));
    }

    #[test]
    fn routes_through_a_peer_that_is_away_stay_for_the_restart_time_that_it_last_asked_for() {
        let key = |id| SessionKey::new(addr(id), 179);
        let peers = BTreeMap::from([(key(A), 100), (key(B), 120)]);
        let mut recovery = started_after(Restart { families: AfiSet::EMPTY, peers: Some(peers) }, &[A, B, C]);
        recovery.up(Millis(1000));
        recovery.end_of_rib(A, Afi::Ipv4);
        assert!(recovery.ends(Millis(31_000)));
        // Of C nothing is known, and its 30 s are over.
        assert_eq!(recovery.newly_held(Millis(31_000)), Some(BTreeSet::from([addr(B)])));
        assert_eq!(recovery.newly_held(Millis(31_001)), None);
        assert_eq!(recovery.deadline(), Some(Millis(121_000)));
        assert_eq!(recovery.newly_held(Millis(121_000)), Some(BTreeSet::new()));
        assert_eq!(recovery.deadline(), None);
    }

    #[test]
    fn a_peer_that_is_away_is_waited_for_no_longer_than_the_restart_time_that_it_asked_for() {
        let key = |id| SessionKey::new(addr(id), 179);
        let peers = BTreeMap::from([(key(A), 120), (key(B), 20)]);
        let restart = Restart { families: AfiSet::BOTH, peers: Some(peers) };
        let mut recovery = started_after(restart, &[A, B]);
        recovery.up(Millis(1000));
        recovery.end_of_rib(A, Afi::Ipv4);
        assert_eq!(recovery.deferral_ends(Millis(20_999)), AfiSet::EMPTY);
        assert!(!recovery.ends(Millis(20_999)));
        assert_eq!(recovery.deadline(), Some(Millis(21_000)));
        assert_eq!(recovery.deferral_ends(Millis(21_000)), AfiSet::BOTH);
        assert!(recovery.ends(Millis(21_000)));
        assert_eq!(recovery.newly_held(Millis(21_000)), None, "its routes go");
    }

    #[test]
    fn nobody_is_waited_for_who_had_no_graceful_session() {
        let peers = BTreeMap::from([(SessionKey::new(addr(A), 179), 120)]);
        let mut recovery = started_after(Restart { families: AfiSet::BOTH, peers: Some(peers) }, &[A, B]);
        recovery.up(Millis(1000));
        recovery.end_of_rib(A, Afi::Ipv4);
        assert!(recovery.ends(Millis(1001)));
        assert_eq!(recovery.newly_held(Millis(1001)), Some(BTreeSet::from([addr(B)])), "for 30 s");
    }
}
