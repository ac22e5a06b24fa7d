//! What reflectors and path ids make use of, by rule: BGP-20, BGP-25 to BGP-27, BGP-40, BDEF-21.

use std::net::IpAddr;

use super::*;
use crate::ids::{Asn, ClusterId, RouterId};
use crate::out::{Exporter, routes};
use crate::prefix::{Afi, Prefix4, V4};
use crate::wire::{AsPath, Nlri, Segment};
use policy::AcceptAll;

const OURS: Asn = Asn(64512);
const RED: ClusterId = ClusterId(std::net::Ipv4Addr::new(1, 1, 1, 1));
const BLUE: ClusterId = ClusterId(std::net::Ipv4Addr::new(2, 2, 2, 2));
const TO: &str = "172.16.0.0/24";

fn prefix(text: &str) -> Prefix4 {
    text.parse().unwrap()
}

fn router(n: u8) -> RouterId {
    RouterId([10, 0, 0, n].into())
}

fn as_path(asns: &[u32]) -> AsPath {
    let sequence = || Segment::Sequence(asns.iter().copied().map(Asn).collect());
    AsPath { segments: (!asns.is_empty()).then(sequence).into_iter().collect() }
}

fn session(n: u8, rr_client: Option<ClusterId>) -> SourcePeer {
    SourcePeer {
        asn: OURS,
        local_asn: OURS,
        router_id: router(n),
        addr: IpAddr::from([10, 0, 0, n]),
        internal: true,
        rr_client,
    }
}

fn import_profile(internal: bool, rr_client: Option<ClusterId>, allow_own_as: u8) -> ImportProfile {
    ImportProfile { internal, local_asn: OURS, router_id: router(1), rr_client, allow_own_as }
}

fn export_profile(rr_client: Option<ClusterId>, add_path: bool) -> ExportProfile {
    ExportProfile {
        afi: Afi::Ipv4,
        internal: true,
        local_asn: OURS,
        local_addr: [10, 0, 0, 1].into(),
        rr_client,
        next_hop: NextHopRule::Auto,
        program: ProgramId(0),
        long_lived_aware: true,
        add_path,
        extended_next_hop: false,
        as4: true,
        extended_message: false,
    }
}

fn announce(rib: &mut Rib<V4>, slot: u32, path_id: u32, attributes: Attributes) {
    let profile = import_profile(true, None, 0);
    let rules = ImportRules { profile, policy: &AcceptAll, interface: &|_| "" };
    let next_hop = NextHop::V4([10, 0, 0, 50].into());
    rib.announce(slot, &rules, attributes, next_hop, &[Nlri { path_id, prefix: prefix(TO) }]);
}

/// BGP-40 (f): MEDs count within one neighbouring AS only, so that three paths have no order of their own; the outcome is
/// one all the same, whoever comes first.
#[test]
fn three_paths_with_meds_have_one_winner_and_the_same_reasons_in_every_order_of_arrival() {
    let via = |asn, med| Attributes { as_path: as_path(&[asn]), med: Some(med), ..Attributes::default() };
    // By router id alone the first is best, and the second goes before the third.
    let paths = [(0, via(65001, 20)), (1, via(65002, 0)), (2, via(65001, 10))];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (order, settle_each) in orders.into_iter().flat_map(|order| [(order, false), (order, true)]) {
        let mut rib = Rib::new(1);
        for slot in 0u8..3 {
            rib.set_peer(slot.into(), session(slot + 10, None));
        }
        for at in order {
            let (slot, attributes) = paths[at].clone();
            announce(&mut rib, slot, 0, attributes);
            if settle_each {
                rib.settle();
            }
        }
        rib.settle();
        let dest = rib.dest_of(prefix(TO)).unwrap();
        let reasons = [Some(Reason::Med), None, Some(Reason::RouterId)];
        assert_eq!(rib.reasons(dest), reasons, "{order:?}");
        assert_eq!(dest.best_index(), Some(1));
    }
}

#[test]
fn every_loser_has_a_reason_and_the_best_has_none() {
    let mut rib = Rib::new(1);
    for slot in 0u8..4 {
        rib.set_peer(slot.into(), session(slot + 10, None));
    }
    announce(&mut rib, 0, 0, Attributes { as_path: as_path(&[64512]), ..Attributes::default() });
    announce(&mut rib, 1, 0, Attributes { originator_id: Some(router(1)), ..Attributes::default() });
    announce(&mut rib, 2, 1, Attributes::default());
    announce(&mut rib, 2, 2, Attributes::default());
    announce(&mut rib, 3, 1, Attributes { local_pref: Some(99), ..Attributes::default() });
    rib.put_local(prefix(TO), LocalRoute::Gateway([192, 0, 2, 1].into()));
    rib.settle();
    let dest = rib.dest_of(prefix(TO)).unwrap();
    let expected = [
        Some(Reason::GatewayNotConnected),
        Some(Reason::Refused(Refused::AsLoop)),
        Some(Reason::Refused(Refused::OwnOriginator)),
        None,
        Some(Reason::PathId),
        Some(Reason::LocalPref),
    ];
    assert_eq!(rib.reasons(dest), expected);
}

/// BDEF-21, kept: a node that has both its own blackhole and that of another in the kernel says both where there are path ids.
#[test]
fn with_path_ids_a_block_that_is_also_in_the_kernel_is_sent_twice_and_without_once() {
    let mut rib: Rib<V4> = Rib::new(1);
    rib.put_local(prefix(TO), LocalRoute::Blackhole);
    let route = KernelRoute { forward: Forward::Blackhole, metric: 1024, protocol: 80 };
    rib.put_local(prefix(TO), LocalRoute::Kernel(Box::new(route)));
    rib.settle();
    let dest = rib.dest_of(prefix(TO)).unwrap();
    let sent = |add_path| {
        let profile = export_profile(None, add_path);
        let exporter = Exporter { profile: &profile, policy: &AcceptAll, deferred: false };
        routes(&rib, &exporter, prefix(TO), dest, None, |_| "")
    };
    let twice = sent(true);
    assert_eq!(twice.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(twice[0].2, twice[1].2, "equal but for the id");
    let once = sent(false);
    assert_eq!(once.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [0]);
}

/// BGP-25, RFC 4456 §8: from, to, CLUSTER_LIST received, CLUSTER_LIST sent (`None`: nothing is sent).
#[test]
fn a_route_is_reflected_where_either_side_is_a_client_and_names_the_clusters_that_it_passed() {
    type Case = (Option<ClusterId>, Option<ClusterId>, &'static [ClusterId], Option<&'static [ClusterId]>);
    let cases: [Case; 8] = [
        (None, None, &[], None),
        (Some(RED), None, &[], Some(&[RED])),
        (None, Some(RED), &[], Some(&[RED])),
        (Some(RED), Some(RED), &[], Some(&[RED])),
        (Some(RED), Some(BLUE), &[], Some(&[BLUE, RED])),
        (Some(RED), None, &[BLUE], Some(&[RED, BLUE])),
        (None, Some(BLUE), &[BLUE], None),
        (None, Some(BLUE), &[RED], Some(&[BLUE, RED])),
    ];
    for (from, to, received, expected) in cases {
        for originator in [None, Some(router(77))] {
            let attributes = Attributes {
                local_pref: Some(100),
                originator_id: originator,
                cluster_list: received.into(),
                ..Attributes::default()
            };
            let source = session(9, from);
            let view = PathView {
                prefix: prefix(TO).into(),
                source: Source::Peer(3),
                from: Some(&source),
                attributes: Some(&attributes),
                next_hop: Some(NextHop::V4([10, 0, 0, 9].into())),
                forward: &Forward::Blackhole,
                interface: "",
                metric: None,
            };
            let sent = export(&export_profile(to, true), &view, &AcceptAll);
            let lists = sent.as_ref().map(|sent| sent.attributes.cluster_list.as_slice());
            assert_eq!(lists, expected, "{from:?} {to:?} {received:?}");
            if let Some(sent) = sent {
                assert_eq!(sent.attributes.originator_id, originator.or(Some(router(9))));
                assert_eq!(sent.next_hop, NextHop::V4([10, 0, 0, 9].into()), "untouched");
                assert_eq!(sent.attributes.local_pref, Some(100), "untouched");
            }
        }
    }
}

#[test]
fn sessions_of_different_local_as_are_not_between_internal_peers_and_need_no_reflector() {
    let source = SourcePeer { local_asn: Asn(65000), ..session(9, None) };
    let attributes = Attributes::default();
    let view = PathView {
        prefix: prefix(TO).into(),
        source: Source::Peer(3),
        from: Some(&source),
        attributes: Some(&attributes),
        next_hop: Some(NextHop::V4([10, 0, 0, 9].into())),
        forward: &Forward::Blackhole,
        interface: "",
        metric: None,
    };
    let sent = export(&export_profile(None, true), &view, &AcceptAll).unwrap();
    assert_eq!((sent.attributes.originator_id, sent.attributes.cluster_list), (None, [].into()));
}

/// BGP-26, BGP-27.
#[test]
fn loops_are_found_by_as_originator_and_cluster_each_where_it_counts() {
    let looped = |profile, attributes: Attributes| Admitted::new(&profile, attributes).refused;
    let path = |asns: &[u32]| Attributes { as_path: as_path(asns), ..Attributes::default() };
    let ours = OURS.0;
    for internal in [false, true] {
        let profile = |allowed| import_profile(internal, None, allowed);
        assert_eq!(looped(profile(0), path(&[65001, ours])), Some(Refused::AsLoop));
        assert_eq!(looped(profile(1), path(&[65001, ours])), None);
        assert_eq!(looped(profile(1), path(&[ours, 65001, ours])), Some(Refused::AsLoop));
        assert_eq!(looped(profile(2), path(&[ours, 65001, ours])), None);
    }
    let originated = Attributes { originator_id: Some(router(1)), ..Attributes::default() };
    let passed = Attributes { cluster_list: [BLUE, RED].into(), ..Attributes::default() };
    assert_eq!(looped(import_profile(true, None, 0), originated.clone()), Some(Refused::OwnOriginator));
    assert_eq!(looped(import_profile(true, Some(RED), 0), passed.clone()), Some(Refused::ClusterLoop));
    assert_eq!(looped(import_profile(true, None, 0), passed.clone()), None, "not a client");
    let external = import_profile(false, Some(RED), 0);
    assert_eq!(looped(external, originated), None);
    let admitted = Admitted::new(&external, Attributes { local_pref: Some(5), ..passed });
    assert_eq!(admitted.refused, None);
    assert_eq!((admitted.attributes.local_pref, admitted.attributes.cluster_list), (Some(100), [].into()));
}

/// An address that hundreds announce: each of the others keeps its id and what is known of it when one leaves.
#[test]
fn one_of_five_hundred_paths_leaves_and_nothing_else_changes() {
    let mut rib = Rib::new(1);
    for slot in 0u16..500 {
        let [high, low] = slot.to_be_bytes();
        let addr = IpAddr::from([10, 1, high, low]);
        rib.set_peer(slot.into(), SourcePeer { addr, ..session(9, Some(RED)) });
        announce(&mut rib, slot.into(), 7, Attributes::default());
    }
    rib.settle();
    rib.take_changes();
    let paths = |rib: &Rib<V4>| rib.dest_of(prefix(TO)).unwrap().paths.to_vec();
    let mut before = paths(&rib);
    let mut ids: Vec<u32> = before.iter().map(|path| path.out_id).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=500));
    rib.withdraw(250, Nlri { path_id: 7, prefix: prefix(TO) });
    rib.settle();
    assert_eq!(rib.take_changes().len(), 1);
    let gone = before.remove(250);
    assert_eq!(paths(&rib), before);
    announce(&mut rib, 499, 8, Attributes::default());
    assert_eq!(paths(&rib).last().map(|path| path.out_id), Some(gone.out_id), "the lowest free one");
}
