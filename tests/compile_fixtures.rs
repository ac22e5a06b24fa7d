//! Whole clusters compiled for each of their nodes: what the nodes intend must fit together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bgp_proto::{Afi, IpPrefix};
use calico_bgpd::datastore::files::read_once;
use calico_bgpd::desired::{DesiredState, NodeFacts, PeerClass, check, compile, diff, render_text, view};
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;

fn fixtures(of: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(of);
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty(), "no fixture in {of}");
    found
}

fn snapshot(resources: &Path, node: &str) -> Snapshot {
    read_once(resources, node, Reading::default()).unwrap()
}

fn state(snapshot: &Snapshot, node: &str) -> DesiredState {
    compile(snapshot, &NodeFacts { node_name: node.to_owned(), ..NodeFacts::default() }).unwrap()
}

/// What every node of a cluster intends, by name, each reading the resources for itself: blocks are those of the node.
fn states(resources: &Path) -> BTreeMap<String, DesiredState> {
    let names = snapshot(resources, "").nodes.keys().cloned().collect::<Vec<_>>().into_iter();
    names.map(|name| (name.clone(), state(&snapshot(resources, &name), &name))).collect()
}

fn address(state: &DesiredState, afi: Afi) -> Option<IpAddr> {
    match afi {
        Afi::Ipv4 => state.node.ipv4.map(|a| a.addr.into()),
        Afi::Ipv6 => state.node.ipv6.map(|a| a.addr.into()),
    }
}

/// Every resource folder or file of the fixtures.
fn all_resources() -> Vec<PathBuf> {
    let situations = fixtures("confd").into_iter().map(|folder| folder.join("resources.yaml"));
    fixtures("clusters").into_iter().chain(situations.filter(|file| file.exists())).collect()
}

#[test]
fn both_ends_of_every_mesh_session_intend_it_and_exactly_one_of_them_dials() {
    for resources in all_resources() {
        // Sessions are the same whoever's blocks are read.
        let snapshot = snapshot(&resources, "");
        let states: BTreeMap<&String, DesiredState> =
            snapshot.nodes.keys().map(|name| (name, state(&snapshot, name))).collect();
        let owner: BTreeMap<IpAddr, &DesiredState> = states
            .values()
            .flat_map(|state| Afi::ALL.into_iter().filter_map(move |afi| Some((address(state, afi)?, state))))
            .collect();
        for (name, state) in &states {
            for peer in state.peers.values().filter(|peer| peer.class == PeerClass::Mesh) {
                let place = format!("{}: {} of {name}", resources.display(), peer.name);
                let own = address(state, peer.key.afi).unwrap();
                let there = owner[&peer.spec.transport.peer];
                let back = there.peers.values().find(|other| other.spec.transport.peer == own).expect(&place);
                assert_ne!(peer.spec.next.passive, back.spec.next.passive, "{place}");
                assert_eq!(peer.spec.open.peer_asn, back.spec.open.local_asn, "{place}");
                assert_eq!(peer.spec.transport.port, there.listen[&peer.key.afi].port, "{place}");
            }
        }
    }
}

#[test]
fn the_clusters_of_the_demo_and_the_labs_compile_without_a_problem() {
    for resources in fixtures("clusters") {
        for (name, state) in states(&resources) {
            let verdict = check(Ok(&state));
            assert!(verdict.problems.is_empty(), "{}: {name}: {verdict}", resources.display());
        }
    }
}

#[test]
fn three_nodes_have_a_full_mesh_in_both_families_and_a_block_of_each_family() {
    let states = states(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/clusters/three-nodes"));
    assert_eq!(states.len(), 3);
    for (name, state) in &states {
        assert_eq!(state.peers.len(), 4, "{name}");
        assert_eq!((state.v4.statics.len(), state.v6.statics.len()), (1, 1), "{name}");
    }
    let blocks: BTreeSet<IpPrefix> =
        states.values().flat_map(|state| state.v4.statics.keys().map(|block| (*block).into())).collect();
    assert_eq!(blocks.len(), 3);
}

#[test]
fn compiling_the_same_resources_again_changes_nothing() {
    for resources in all_resources() {
        let name = snapshot(&resources, "").nodes.keys().next().cloned().unwrap();
        let [first, second] = [(), ()].map(|()| state(&snapshot(&resources, &name), &name));
        assert!(diff(Some(&first), &second).is_empty(), "{}: {name}", resources.display());
        assert_eq!(render_text(&first), render_text(&second));
        assert_eq!(view(&first), view(&second));
    }
}
