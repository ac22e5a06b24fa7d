//! Whether the node is alive and ready, by the rule of Calico's own probes (HEALTH-5), for both families at once.
//!
//! Owns: the rule, with a reason for everything that is not ready. Never: asks anybody.

use std::net::IpAddr;

use bgp_proto::Millis;

use super::server::Views;
use crate::desired::PeerClass;
use crate::fib::Phase;

/// For so long after the start every session has to be up; after that one is enough.
const AT_START: Millis = Millis::secs(30);

/// What the rule looks at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// Why there is no configuration yet.
    pub waiting_for: Option<String>,
    /// The end of a restart is waited for.
    pub recovering: bool,
    /// Since the start.
    pub age: Millis,
    /// Sessions that count: peer, and whether it is up. Those of local workloads do not.
    pub peers: Vec<(IpAddr, bool)>,
}

impl Readiness {
    /// As things stand.
    pub fn at(views: &Views) -> Readiness {
        let in_force = views.in_force.borrow().clone();
        let waiting = in_force.waiting_for.clone().unwrap_or_else(|| "the datastore".to_string());
        let counts = |class| matches!(class, PeerClass::Mesh | PeerClass::Global | PeerClass::Node);
        Readiness {
            waiting_for: in_force.state.is_none().then_some(waiting),
            recovering: *views.phase.borrow() == Phase::Recovering,
            age: views.clock.now(),
            peers: in_force
                .peers
                .iter()
                .filter(|entry| counts(entry.peer.class))
                .map(|entry| (entry.peer.spec.transport.peer, entry.view.borrow().is_established()))
                .collect(),
        }
    }

    /// Why the node is not ready; empty: it is.
    pub fn reasons(&self) -> Vec<String> {
        if let Some(waiting) = &self.waiting_for {
            return vec![format!("nothing is configured yet, waiting for {waiting}")];
        }
        let at_start = self.age < AT_START;
        let mut reasons = Vec::new();
        for v4 in [true, false] {
            let of_family = || self.peers.iter().filter(move |(peer, _)| peer.is_ipv4() == v4);
            let down: Vec<String> =
                of_family().filter(|(_, up)| !up).map(|(peer, _)| peer.to_string()).collect();
            let none = of_family().count() == down.len();
            if !down.is_empty() && (at_start || none) {
                reasons.push(format!("BGP not established with {}", down.join(",")));
            }
        }
        if at_start && self.recovering {
            reasons.push("graceful restart in progress".into());
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(secs: u64, peers: &[(&str, bool)], recovering: bool) -> Vec<String> {
        let peers = peers.iter().map(|(peer, up)| (peer.parse().unwrap(), *up)).collect();
        Readiness { waiting_for: None, recovering, age: Millis::secs(secs), peers }.reasons()
    }

    #[test]
    fn at_start_every_session_has_to_be_up_and_later_one_of_each_family() {
        let some = [("10.0.0.2", true), ("10.0.0.3", false)];
        assert_eq!(look(5, &some, false), ["BGP not established with 10.0.0.3"]);
        assert!(look(30, &some, false).is_empty());
        let six = [("10.0.0.2", true), ("fd00::2", false), ("fd00::3", false)];
        assert_eq!(look(100, &six, false), ["BGP not established with fd00::2,fd00::3"]);
        assert!(look(5, &[], false).is_empty());
    }

    #[test]
    fn a_restart_that_is_not_over_is_no_readiness_at_start() {
        assert_eq!(look(5, &[("10.0.0.2", true)], true), ["graceful restart in progress"]);
        assert!(look(31, &[("10.0.0.2", true)], true).is_empty());
        let nothing = Readiness { waiting_for: Some("the datastore".into()), ..Readiness::default() };
        assert_eq!(nothing.reasons(), ["nothing is configured yet, waiting for the datastore"]);
    }
}
