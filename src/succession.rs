//! Which sessions make way for their successors, and when (BGP-37).
//!
//! Owns: the order in which sessions are replaced when a change asks for more than one, as it is when the node's AS or
//! router id becomes another. All at once would take away what every neighbour knows of this node in one moment; so
//! of each family those that are up are replaced one after another, the next when the successor of the one before is up and
//! has its peer's routes, or has had its time. One that is down has nothing to lose and waits for nobody. Input: which sessions
//! are to be replaced, and how each is. Output: which are replaced now. Never: replaces one; reads a clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use bgp_proto::Millis;

use crate::desired::SessionKey;

/// How long the others wait for a successor.
const LIMIT: Millis = Millis::secs(10);

/// How a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// It is up.
    pub up: bool,
    /// Nothing of what it brought before is still to come again.
    pub complete: bool,
    /// How often it has come up.
    pub times_up: u64,
}

/// A session that was replaced while it was up.
#[derive(Clone, Debug)]
struct Successor {
    key: SessionKey,
    /// How often its place had come up before.
    times_up: u64,
    until: Millis,
}

impl Successor {
    /// It has taken its place, or has had the time for it.
    fn is_done(&self, now: Millis, seen: Standing) -> bool {
        let there = seen.up && seen.complete && seen.times_up > self.times_up;
        there || self.until <= now
    }
}

/// The sessions that wait to be replaced, and the successors that they wait for.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    waiting: BTreeSet<SessionKey>,
    /// One for each family.
    successors: Vec<Successor>,
}

impl Succession {
    /// These sessions, and no others, are to be replaced. Those that are to be replaced now, which wait no more.
    pub fn replace(
        &mut self,
        now: Millis,
        wanted: BTreeSet<SessionKey>,
        standing: impl Fn(&SessionKey) -> Standing,
    ) -> BTreeSet<SessionKey> {
        self.waiting = wanted;
        self.successors.retain(|successor| !successor.is_done(now, standing(&successor.key)));
        let mut due = BTreeSet::new();
        for key in &self.waiting {
            let seen = standing(key);
            if !seen.up {
                due.insert(key.clone());
            } else if self.successors.iter().all(|successor| successor.key.afi != key.afi) {
                let (key, times_up) = (key.clone(), seen.times_up);
                due.insert(key.clone());
                self.successors.push(Successor { key, times_up, until: now + LIMIT });
            }
        }
        self.waiting.retain(|key| !due.contains(key));
        due
    }

    /// Whether it is the turn of some that wait.
    pub fn is_due(&self, now: Millis, standing: impl Fn(&SessionKey) -> Standing) -> bool {
        self.successors.iter().any(|successor| successor.is_done(now, standing(&successor.key)))
            || self.waiting.iter().any(|key| !standing(key).up)
    }

    /// Whether sessions wait for their turn.
    pub fn is_under_way(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(last: u8) -> SessionKey {
        SessionKey::new([10, 0, 0, last].into(), 179)
    }

    fn keys(of: &[u8]) -> BTreeSet<SessionKey> {
        of.iter().map(|last| key(*last)).collect()
    }

    /// Sessions of which each is up for the first time.
    struct Node {
        succession: Succession,
        sessions: BTreeMap<SessionKey, Standing>,
        left: BTreeSet<SessionKey>,
        now: Millis,
    }

    impl Node {
        fn new(peers: &[u8]) -> Node {
            let up = Standing { up: true, complete: true, times_up: 1 };
            Node {
                succession: Succession::default(),
                sessions: keys(peers).into_iter().map(|key| (key, up)).collect(),
                left: keys(peers),
                now: Millis(0),
            }
        }

        /// Replaces what is due.
        fn step(&mut self) -> BTreeSet<SessionKey> {
            let sessions = &self.sessions;
            let expected = self.succession.is_due(self.now, |key| sessions[key]);
            let begins = !self.succession.is_under_way();
            let due = self.succession.replace(self.now, self.left.clone(), |key| sessions[key]);
            assert!(begins || due.is_empty() != expected, "{due:?}");
            self.left.retain(|key| !due.contains(key));
            due
        }

        fn set(&mut self, last: u8, up: bool, complete: bool, times_up: u64) {
            self.sessions.insert(key(last), Standing { up, complete, times_up });
        }
    }

    #[test]
    fn the_next_session_is_replaced_when_the_successor_of_the_one_before_has_its_routes() {
        let mut node = Node::new(&[1, 2, 3]);
        assert_eq!(node.step(), keys(&[1]));
        assert_eq!(node.step(), keys(&[]), "its old session is still seen");
        node.set(1, false, false, 1);
        assert_eq!(node.step(), keys(&[]));
        node.set(1, true, false, 2);
        assert_eq!(node.step(), keys(&[]), "End-of-RIB is not there");
        node.set(1, true, true, 2);
        assert_eq!(node.step(), keys(&[2]));
        assert!(node.succession.is_under_way());
        node.set(2, true, true, 2);
        assert_eq!((node.step(), node.succession.is_under_way()), (keys(&[3]), false));
    }

    #[test]
    fn a_successor_that_does_not_come_holds_up_the_others_for_a_bounded_time() {
        let mut node = Node::new(&[1, 2]);
        node.step();
        node.set(1, false, false, 1);
        node.now = Millis(9_999);
        assert_eq!(node.step(), keys(&[]));
        node.now = Millis::secs(10);
        assert_eq!(node.step(), keys(&[2]));
    }

    #[test]
    fn sessions_that_are_down_or_go_down_meanwhile_wait_for_nobody() {
        let mut node = Node::new(&[1, 2, 3, 4]);
        node.set(3, false, false, 1);
        assert_eq!(node.step(), keys(&[1, 3]));
        node.set(4, false, true, 1);
        assert_eq!(node.step(), keys(&[4]));
        assert_eq!(node.left, keys(&[2]));
    }

    #[test]
    fn sessions_of_different_families_do_not_wait_for_each_other() {
        let other = SessionKey::new("fd00::1".parse().unwrap(), 179);
        let up = |_: &SessionKey| Standing { up: true, complete: true, times_up: 1 };
        let mut succession = Succession::default();
        let wanted: BTreeSet<SessionKey> = keys(&[1, 2]).into_iter().chain([other.clone()]).collect();
        assert_eq!(succession.replace(Millis(0), wanted, up), [key(1), other].into());
        assert_eq!(succession.waiting(), 1);
    }

    #[test]
    fn a_session_that_need_not_be_replaced_any_more_is_not() {
        let mut node = Node::new(&[1, 2, 3]);
        node.step();
        node.left = keys(&[3]);
        node.set(1, true, true, 2);
        assert_eq!(node.step(), keys(&[3]));
        assert!(!node.succession.is_under_way());
    }
}
