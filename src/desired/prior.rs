//! What one compilation leaves for the next: sessions whose inputs did not change are not compiled again.
//!
//! Owns: [`Prior`]; which inputs sessions hang on: Nodes, BGPConfigurations, BGPPeers, BGPFilters,
//! local workloads, the release, the settings. Blocks, pools and Services change sets of prefixes that their programs
//! name; of Secrets they hang on the keys alone, which are looked up each time. Never: changes what comes out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::{Family, Prefix};

use super::inputs::{Inputs, Problems};
use super::{
    Auth, ClusterRelease, DesiredState, FamilyIntent, NodeFacts, Peer, SessionKey, StaticRoute, auth,
};
use crate::model::snapshot::Snapshot;
use crate::model::{Code, Problem};

/// The sessions that are asked for, and what comes with them.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Sessions.
    pub(super) peers: BTreeMap<SessionKey, Arc<Peer>>,
    /// Addresses of peers with the gateways to them (PEER-66).
    pub(super) gateways: Vec<(IpAddr, IpAddr)>,
    /// What is wrong with them, but for their keys.
    pub(super) problems: Vec<Problem>,
}

impl Asked {
    /// Adds the host routes over gateways of a family; what is there already stays.
    pub(super) fn put_gateways<F: Family>(&self, family: &mut FamilyIntent<F>) {
        for (to, via) in &self.gateways {
            if let (Some(to), Some(via)) = (F::from_ip(*to), F::from_ip(*via)) {
                family.statics.entry(Prefix::host(to)).or_insert(StaticRoute::Via(via));
            }
        }
    }

    /// Looks up the keys of all sessions again.
    pub(super) fn look_up_keys(&mut self, inputs: &Inputs<'_>, problems: &mut Problems) {
        let mut known: BTreeMap<String, Auth> = BTreeMap::new();
        for peer in self.peers.values_mut() {
            let (Auth::Key { from, .. } | Auth::Missing(from) | Auth::Withheld(from)) = &peer.auth else {
                continue;
            };
            let (resource, field) = match peer.class {
                super::PeerClass::Mesh => ("BGPConfiguration/default", "spec.nodeMeshPassword"),
                _ => (peer.resource.as_str(), "spec.password"),
            };
            let now = match known.get(resource) {
                Some(now) => now.clone(),
                None => {
                    let now = auth::of(inputs, Some(from), resource, field, problems);
                    known.insert(resource.to_owned(), now.clone());
                    now
                }
            };
            if peer.auth != now {
                Arc::make_mut(peer).auth = now;
            }
        }
    }

    /// Takes what is wrong with the sessions; what is wrong with keys is found each time.
    pub(super) fn take_problems(&mut self, found: Vec<Problem>) {
        let of_keys = [Code::MissingSecret, Code::InvalidPassword, Code::DoubtfulPassword];
        self.problems = found.into_iter().filter(|problem| !of_keys.contains(&problem.code)).collect();
    }
}

/// What a compilation was made of, and its sessions.
#[derive(Clone, Debug)]
pub struct Prior {
    snapshot: Arc<Snapshot>,
    facts: NodeFacts,
    release: ClusterRelease,
    asked: Asked,
}

impl Prior {
    /// The state that became of it is in force: its sessions are the ones to be shared.
    pub fn in_force(&mut self, state: &DesiredState) {
        self.asked.peers.clone_from(&state.peers);
    }

    /// Of a compilation that has been done.
    pub(super) fn of(
        snapshot: &Arc<Snapshot>,
        facts: &NodeFacts,
        release: ClusterRelease,
        asked: Asked,
    ) -> Prior {
        Prior { snapshot: snapshot.clone(), facts: facts.clone(), release, asked }
    }

    /// The sessions, where what they hang on is the same.
    pub(super) fn asked(
        &self,
        snapshot: &Snapshot,
        facts: &NodeFacts,
        release: ClusterRelease,
    ) -> Option<Asked> {
        let before = &*self.snapshot;
        let same = self.release == release
            && before.nodes == snapshot.nodes
            && before.bgp_configurations == snapshot.bgp_configurations
            && before.peers == snapshot.peers
            && before.filters == snapshot.filters
            && before.workload_peers == snapshot.workload_peers
            && self.facts == *facts;
        same.then(|| self.asked.clone())
    }
}
