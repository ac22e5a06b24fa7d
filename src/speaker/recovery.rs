//! When the start is over (KRT-50 to KRT-52).
//!
//! Owns: for whom we wait after a start, and for how long. Until the end of recovery no route that was found in the
//! kernel is removed: every peer has told all of its routes by then, or had the time for it. One that refuses our
//! dial, or restarts itself, says nothing about routes. Never: removes anything itself.

use std::collections::BTreeSet;

use bgp_proto::{Afi, AfiSet, Millis, PeerId};

use crate::fib::Phase;

/// Nobody is waited for longer than this after the datastore was in sync. BIRD waits 240 s.
pub const RECOVERY_LIMIT: Millis = Millis::secs(30);

/// What is known of the run before this one. By default nothing: a cold start.
#[derive(Clone, Debug, Default)]
pub struct Restart {
    /// Families whose forwarding state has survived, as our OPENs say with the R and F bits (RFC 4724 §4.1). Until
    /// recovery ends, what peers told is not passed on in these, and no End-of-RIB is sent: it
    /// would make the neighbours drop what they keep for us before all of it has come again. In
    /// other families nobody keeps anything for us.
    pub families: AfiSet,
    /// Names of the peers that had a session with graceful restart; nobody else is waited for. `None`: not known, and
    /// all are.
    pub peers: Option<BTreeSet<String>>,
}

/// The wait after a start. It ends once.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    restart: Restart,
    phase: Phase,
    datastore_synced: bool,
    kernel_synced: bool,
    /// Who has yet to send End-of-RIB.
    waiting: BTreeSet<(PeerId, Afi)>,
    /// Those of them for whom the others do not wait as well.
    excused: BTreeSet<PeerId>,
    deadline: Option<Millis>,
    deferral_over: bool,
}

impl Recovery {
    pub fn after(restart: Restart) -> Self {
        Recovery { restart, ..Recovery::default() }
    }

    /// Families in which what peers told waits.
    pub fn deferred(&self) -> AfiSet {
        if self.deferral_over { AfiSet::EMPTY } else { self.restart.families }
    }

    /// Families in which End-of-RIB may be sent: all that there was at start is in the table.
    pub fn complete(&self) -> AfiSet {
        if self.kernel_synced { AfiSet::BOTH.without(self.deferred()) } else { AfiSet::EMPTY }
    }

    /// Whether the end of recovery is waited for because of this peer.
    pub fn expects(&self, name: &str) -> bool {
        self.restart.peers.as_ref().is_none_or(|peers| peers.contains(name))
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

    /// The datastore says that these are the peers. Only those of the first time are waited for.
    pub fn desired(&mut self, now: Millis, peers: impl Iterator<Item = (PeerId, Afi)>) {
        if self.datastore_synced {
            let peers: BTreeSet<_> = peers.collect();
            self.waiting.retain(|peer| peers.contains(peer));
        } else {
            self.datastore_synced = true;
            self.waiting = peers.collect();
            self.deadline = Some(now + RECOVERY_LIMIT);
        }
    }

    pub fn synced(&mut self) {
        self.kernel_synced = true;
    }

    /// The peer has told all of its routes of this family.
    pub fn end_of_rib(&mut self, peer: PeerId, afi: Afi) {
        self.waiting.remove(&(peer, afi));
    }

    /// The peer will not tell, or not soon, or waits for our End-of-RIB itself: the other peers do not wait for it.
    pub fn excuse(&mut self, peer: PeerId) {
        self.excused.insert(peer);
    }

    /// The peer is none any more.
    pub fn forget(&mut self, peer: PeerId) {
        self.waiting.retain(|(other, _)| *other != peer);
        self.excused.remove(&peer);
    }

    /// Ends the deferral if it is time; the families in which it ended, exactly once.
    pub fn deferral_ends(&mut self, now: Millis) -> AfiSet {
        let told = self.waiting.iter().all(|(peer, _)| self.excused.contains(peer));
        if self.deferral_over || !self.informed() || !(told || self.is_late(now)) {
            return AfiSet::EMPTY;
        }
        self.deferral_over = true;
        self.restart.families
    }

    /// Ends the wait if it is time; `true` exactly once.
    pub fn ends(&mut self, now: Millis) -> bool {
        if self.recovering() && self.informed() && (self.waiting.is_empty() || self.is_late(now)) {
            self.phase = Phase::Normal;
            self.waiting.clear();
            self.excused.clear();
            return true;
        }
        false
    }

    fn is_late(&self, now: Millis) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Millis> {
        // Without the kernel the end of the limit changes nothing; its `Synced` is an input of its own.
        self.deadline.filter(|_| self.recovering() && self.informed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId { slot: 0, generation: 0 };
    const B: PeerId = PeerId { slot: 1, generation: 0 };

    fn started(peers: &[PeerId]) -> Recovery {
        let mut recovery = Recovery::default();
        recovery.desired(Millis(1000), peers.iter().map(|peer| (*peer, Afi::Ipv4)));
        recovery.synced();
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
        assert_eq!(recovery.deadline(), None);
        let mut recovery = started(&[A, B]);
        recovery.end_of_rib(A, Afi::Ipv4);
        recovery.forget(B);
        assert!(recovery.ends(Millis(1001)));
    }

    #[test]
    fn an_excused_peer_holds_up_the_kernel_but_not_the_others() {
        let both = Restart { families: AfiSet::BOTH, peers: None };
        let mut recovery = Recovery { restart: both, ..started(&[A, B]) };
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
        recovery.desired(Millis(0), std::iter::empty());
        assert!(!recovery.ends(Millis::secs(10_000)));
        recovery.synced();
        assert!(recovery.ends(Millis::secs(10_000)));
    }

    #[test]
    fn peers_that_come_late_are_not_waited_for_and_removed_ones_no_longer() {
        let mut recovery = started(&[A]);
        recovery.desired(Millis(2000), [(B, Afi::Ipv4)].into_iter());
        assert!(recovery.ends(Millis(2000)));
    }
}
