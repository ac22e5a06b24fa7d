//! The table as a whole.

use std::net::IpAddr;

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::ids::{Asn, ClusterId, RouterId};
use crate::prefix::{Prefix4, V4};
use crate::wire::{AsPath, Nlri, Origin};

fn prefix(text: &str) -> Prefix4 {
    text.parse().unwrap()
}

fn source_peer(slot: u32, internal: bool) -> SourcePeer {
    let addr = IpAddr::from([10, 0, 0, 10 + u8::try_from(slot).unwrap()]);
    SourcePeer {
        asn: if internal { Asn(64512) } else { Asn(65000 + slot) },
        local_asn: Asn(64512),
        router_id: RouterId([10, 0, 0, 100 - u8::try_from(slot).unwrap()].into()),
        addr,
        internal,
        rr_client: None,
    }
}

fn kernel(forward: Forward, metric: u32) -> LocalRoute<V4> {
    LocalRoute::Kernel(Box::new(KernelRoute { forward, metric, protocol: 3 }))
}

/// A table on 10.0.0.1/24 with a default route, and three peers: 0 and 1 internal, 2 external.
fn table() -> Rib<V4> {
    let mut rib = Rib::new(1);
    let subnet = prefix("10.0.0.0/24");
    rib.set_addresses(2, vec![LocalAddress { addr: [10, 0, 0, 1].into(), prefix: subnet, connected: true }]);
    rib.put_local(subnet, LocalRoute::Direct(2));
    let leg = Leg { via: Some(IpAddr::from([10, 0, 0, 254])), ifindex: 2, onlink: false, weight: 1 };
    rib.put_local(prefix("0.0.0.0/0"), kernel(Forward::Legs(smallvec![leg]), 0));
    for slot in 0..3 {
        rib.set_peer(slot, source_peer(slot, slot < 2));
    }
    rib.settle();
    rib
}

fn put(rib: &mut Rib<V4>, slot: u32, to: &str, path_id: u32, next_hop: [u8; 4], attributes: Attributes) {
    put_preferred(rib, slot, to, path_id, next_hop, attributes, 100);
}

fn put_preferred(
    rib: &mut Rib<V4>,
    slot: u32,
    to: &str,
    path_id: u32,
    next_hop: [u8; 4],
    attributes: Attributes,
    preference: u16,
) {
    rib.announce(
        slot,
        &rules(&Prefer(preference)),
        attributes,
        NextHop::V4(next_hop.into()),
        &[nlri(to, path_id)],
    );
}

fn nlri(to: &str, path_id: u32) -> Nlri<V4> {
    Nlri { path_id, prefix: prefix(to) }
}

/// Import that keeps all attributes and sets the preference.
struct Prefer(u16);

impl Policy for Prefer {
    fn accepts(&self, route: &mut RouteView<'_>) -> bool {
        route.preference = self.0;
        true
    }
}

fn rules<P: Policy>(policy: &P) -> ImportRules<'_, P> {
    let profile = ImportProfile {
        internal: true,
        local_asn: Asn(64512),
        router_id: RouterId([10, 0, 0, 1].into()),
        rr_client: None,
        allow_own_as: 0,
    };
    ImportRules { profile, policy, interface: &|_| "" }
}

fn prefixes(rib: &Rib<V4>, ids: &[DestId]) -> Vec<String> {
    let mut all: Vec<Prefix4> = ids.iter().filter_map(|id| rib.prefix(*id)).collect();
    all.sort_unstable();
    all.iter().map(ToString::to_string).collect()
}

fn path(asns: &[u32]) -> AsPath {
    AsPath::sequence(asns.iter().copied().map(Asn))
}

fn base() -> Attributes {
    Attributes { local_pref: Some(100), as_path: path(&[65001, 65002]), ..Attributes::default() }
}

const DIRECT: [u8; 4] = [10, 0, 0, 50];
const FAR: [u8; 4] = [192, 0, 2, 1];
const TO: &str = "172.16.0.0/24";

/// Slot, next hop, attributes.
type Route = (u32, [u8; 4], Attributes);

/// Puts two routes and says who wins and why the other lost.
fn duel(a: Route, b: Route) -> (u32, Reason) {
    let mut rib = table();
    put(&mut rib, a.0, TO, 1, a.1, a.2);
    put(&mut rib, b.0, TO, 2, b.1, b.2);
    rib.settle();
    let dest = rib.dest_of(prefix(TO)).unwrap();
    let reason = rib.reasons(dest).into_iter().flatten().next().unwrap();
    (dest.best().unwrap().path_id, reason)
}

#[test]
fn each_step_of_the_decision_is_asked_in_its_order() {
    let with = |change: fn(&mut Attributes)| {
        let mut attributes = base();
        change(&mut attributes);
        attributes
    };
    // The first of each pair wins although every later step speaks for the second.
    let cases: Vec<(Route, Route, Reason)> = vec![
        ((0, DIRECT, base()), (2, [10, 0, 0, 1], with(|a| a.local_pref = Some(999))), Reason::Unresolvable),
        (
            (0, FAR, base()),
            (2, DIRECT, with(|a| (a.local_pref, a.communities) = (Some(999), [LLGR_STALE].into()))),
            Reason::LongLivedStale,
        ),
        (
            (0, FAR, with(|a| a.local_pref = Some(101))),
            (2, DIRECT, with(|a| a.as_path = path(&[]))),
            Reason::LocalPref,
        ),
        (
            (0, FAR, with(|a| (a.as_path, a.origin) = (path(&[65001]), Origin::Incomplete))),
            (2, DIRECT, base()),
            Reason::PathLength,
        ),
        ((0, FAR, with(|a| a.med = Some(9))), (2, DIRECT, with(|a| a.origin = Origin::Egp)), Reason::Origin),
        ((0, FAR, with(|a| a.med = Some(8))), (2, DIRECT, with(|a| a.med = Some(9))), Reason::Med),
        (
            (2, FAR, with(|a| a.med = Some(9))),
            (0, DIRECT, with(|a| a.as_path = path(&[65009, 1]))),
            Reason::Internal,
        ),
        ((0, DIRECT, base()), (1, FAR, base()), Reason::IgpMetric),
        ((1, DIRECT, base()), (0, DIRECT, base()), Reason::RouterId),
        (
            (0, DIRECT, with(|a| a.originator_id = Some(RouterId([1, 1, 1, 1].into())))),
            (1, DIRECT, base()),
            Reason::RouterId,
        ),
        (
            (1, DIRECT, with(|a| a.originator_id = Some(RouterId([1, 1, 1, 1].into())))),
            (
                0,
                DIRECT,
                with(|a| {
                    a.originator_id = Some(RouterId([1, 1, 1, 1].into()));
                    a.cluster_list = [ClusterId([2, 2, 2, 2].into())].into();
                }),
            ),
            Reason::ClusterList,
        ),
        (
            (0, DIRECT, with(|a| a.originator_id = Some(RouterId([1, 1, 1, 1].into())))),
            (1, DIRECT, with(|a| a.originator_id = Some(RouterId([1, 1, 1, 1].into())))),
            Reason::PeerAddress,
        ),
        ((0, DIRECT, base()), (0, DIRECT, base()), Reason::PathId),
    ];
    for (winner, loser, reason) in cases {
        assert_eq!(duel(winner.clone(), loser.clone()), (1, reason));
        if reason != Reason::PathId {
            assert_eq!(duel(loser, winner), (2, reason), "the other way round");
        }
    }
}

#[test]
fn a_path_into_a_blackhole_is_no_nearer_than_one_that_leads_nowhere() {
    // As BIRD 1.6 decides: the router id does.
    let mut rib = table();
    rib.put_local(prefix("192.0.2.0/24"), kernel(Forward::Blackhole, 0));
    put(&mut rib, 1, TO, 1, [10, 0, 0, 1], base());
    put(&mut rib, 0, TO, 2, FAR, base());
    rib.settle();
    let dest = rib.dest_of(prefix(TO)).unwrap();
    assert_eq!(rib.reasons(dest), [Some(Reason::RouterId), None], "peer 1 has the lower router id");
}

#[test]
fn absent_local_pref_is_100_and_absent_med_is_0() {
    let none = Attributes { local_pref: None, ..base() };
    assert_eq!(duel((0, DIRECT, base()), (0, DIRECT, none.clone())).1, Reason::PathId);
    let low = Attributes { local_pref: Some(99), ..base() };
    assert_eq!(duel((0, DIRECT, none), (0, DIRECT, low)), (1, Reason::LocalPref));
    let med = Attributes { med: Some(1), ..base() };
    assert_eq!(duel((0, DIRECT, base()), (0, DIRECT, med)), (1, Reason::Med));
}

#[test]
fn meds_of_different_neighbours_are_not_compared_and_an_empty_path_has_the_peer_as_neighbour() {
    let other = Attributes { med: Some(5), as_path: path(&[65009, 65002]), ..base() };
    assert_eq!(duel((1, DIRECT, other), (0, DIRECT, base())).1, Reason::RouterId);
    let empty = |med| Attributes { med: Some(med), as_path: path(&[]), ..base() };
    assert_eq!(duel((0, DIRECT, empty(1)), (1, DIRECT, empty(2))), (1, Reason::Med), "both of our own AS");
}

#[test]
fn preference_comes_before_everything_and_static_before_bgp() {
    let mut rib = table();
    let best = |rib: &Rib<V4>| rib.dest_of(prefix(TO)).unwrap().best().unwrap().source();
    put(&mut rib, 0, TO, 0, DIRECT, base());
    // Elevated, but its next hop leads nowhere: preference is compared first.
    put_preferred(&mut rib, 1, TO, 0, [10, 0, 0, 1], base(), 200);
    rib.settle();
    assert_eq!(best(&rib), Source::Peer(1));
    rib.put_local(prefix(TO), LocalRoute::Blackhole);
    rib.settle();
    assert_eq!(best(&rib), Source::Static);
    rib.put_local(prefix(TO), LocalRoute::Direct(3));
    rib.settle();
    assert_eq!(best(&rib), Source::Direct);
    let dest = rib.dest_of(prefix(TO)).unwrap();
    let lost = Some(Reason::Preference);
    assert_eq!(rib.reasons(dest), [None, lost, lost, lost]);
}

#[test]
fn a_changed_route_touches_only_destinations_whose_next_hops_it_covers() {
    let mut rib = table();
    put(&mut rib, 0, "172.16.1.0/24", 0, DIRECT, base());
    put(&mut rib, 0, "172.16.2.0/24", 0, FAR, base());
    put(&mut rib, 0, "172.16.3.0/24", 0, [198, 51, 100, 1], base());
    rib.settle();
    rib.take_changes();
    rib.put_local(prefix("192.0.2.0/24"), kernel(Forward::Blackhole, 0));
    rib.settle();
    let changes = rib.take_changes();
    assert_eq!(prefixes(&rib, &changes), ["172.16.2.0/24", "192.0.2.0/24"]);
    // The same route again, or another metric of it, changes nothing for them.
    rib.put_local(prefix("192.0.2.0/24"), kernel(Forward::Blackhole, 7));
    rib.settle();
    let changes = rib.take_changes();
    assert_eq!(prefixes(&rib, &changes), ["192.0.2.0/24"]);
}

#[test]
fn a_long_lived_stale_path_keeps_its_mark_until_it_comes_again() {
    let mut rib = table();
    put(&mut rib, 0, TO, 1, DIRECT, base());
    put(&mut rib, 0, "172.16.1.0/24", 1, DIRECT, Attributes { communities: [NO_LLGR].into(), ..base() });
    rib.mark_long_lived_stale(0);
    rib.settle();
    assert_eq!(rib.len(), 4, "what is fresh is left alone");
    rib.mark_stale(0);
    rib.mark_long_lived_stale(0);
    rib.settle();
    assert!(rib.dest_of(prefix("172.16.1.0/24")).is_none(), "NO_LLGR");
    let marked = |rib: &Rib<V4>| {
        let path = rib.dest_of(prefix(TO)).unwrap().best().unwrap();
        let PathKind::Bgp(bgp) = path.kind else { panic!("received") };
        (path.freshness, rib.attrs(bgp.used).attributes.communities.clone())
    };
    assert_eq!(marked(&rib), (Freshness::LongLivedStale, [LLGR_STALE].into()));
    // Import runs anew, or the session is lost again.
    let id = rib.id(prefix(TO)).unwrap();
    rib.reimport(0, &rules(&Prefer(100)), id);
    rib.mark_stale(0);
    rib.settle();
    assert_eq!(marked(&rib), (Freshness::LongLivedStale, [LLGR_STALE].into()));
    put(&mut rib, 0, TO, 1, DIRECT, base());
    rib.settle();
    assert_eq!(marked(&rib), (Freshness::Fresh, [].into()));
    rib.sweep(0);
    rib.settle();
    assert_eq!(rib.attr_sets(), 0, "nothing leaks");
}

#[test]
fn a_long_lived_stale_path_never_stands_beside_a_fresh_one() {
    let mut rib = table();
    put(&mut rib, 0, TO, 1, [10, 0, 0, 50], base());
    put(&mut rib, 1, TO, 1, [10, 0, 0, 51], base());
    rib.settle();
    let legs = |rib: &Rib<V4>| rib.multipath(rib.dest_of(prefix(TO)).unwrap()).count();
    assert_eq!(legs(&rib), 2);
    rib.mark_stale(0);
    rib.settle();
    assert_eq!(legs(&rib), 2, "stale is as good as fresh");
    rib.mark_long_lived_stale(0);
    rib.settle();
    assert_eq!(legs(&rib), 1);
}

#[test]
fn the_same_route_again_is_no_change() {
    let mut rib = table();
    put(&mut rib, 0, TO, 0, DIRECT, base());
    rib.settle();
    rib.take_changes();
    rib.mark_stale(0);
    put(&mut rib, 0, TO, 0, DIRECT, base());
    rib.settle();
    assert!(rib.take_changes().is_empty());
    rib.sweep_stale(0);
    assert!(rib.dest_of(prefix(TO)).is_some(), "it is fresh");
}

#[test]
fn paths_are_sent_with_small_ids_that_stay() {
    let mut rib = table();
    for path_id in [900, 700, 800] {
        put(&mut rib, 0, TO, path_id, DIRECT, base());
    }
    let ids = |rib: &Rib<V4>| -> Vec<(u32, u32)> {
        rib.dest_of(prefix(TO)).unwrap().paths.iter().map(|path| (path.path_id, path.out_id)).collect()
    };
    assert_eq!(ids(&rib), [(700, 2), (800, 3), (900, 1)]);
    rib.withdraw(0, nlri(TO, 700));
    put(&mut rib, 0, TO, 600, DIRECT, base());
    put(&mut rib, 0, TO, 800, DIRECT, Attributes { med: Some(1), ..base() });
    assert_eq!(ids(&rib), [(600, 2), (800, 3), (900, 1)]);
}

#[test]
fn an_id_names_its_prefix_until_nothing_is_left_of_it_and_then_the_lowest_is_given_out_first() {
    let mut rib = table();
    put(&mut rib, 0, "172.16.1.0/24", 0, DIRECT, base());
    put(&mut rib, 0, "172.16.2.0/24", 0, DIRECT, base());
    put(&mut rib, 0, "172.16.3.0/24", 0, DIRECT, base());
    rib.settle();
    rib.take_changes();
    let (first, second) =
        (rib.id(prefix("172.16.1.0/24")).unwrap(), rib.id(prefix("172.16.2.0/24")).unwrap());
    rib.pin(second);
    rib.withdraw(0, nlri("172.16.1.0/24", 0));
    rib.withdraw(0, nlri("172.16.2.0/24", 0));
    rib.settle();
    rib.free_ids();
    assert_eq!(rib.prefix(first), Some(prefix("172.16.1.0/24")), "its end is not told yet");
    let changes = rib.take_changes();
    assert_eq!(prefixes(&rib, &changes), ["172.16.1.0/24", "172.16.2.0/24"]);
    assert!(rib.dest(first).is_none() && rib.len() == 3);
    rib.free_ids();
    assert_eq!(rib.id(prefix("172.16.1.0/24")), None);
    assert_eq!(rib.id(prefix("172.16.2.0/24")), Some(second), "somebody keeps something by this id");
    put(&mut rib, 0, "172.16.9.0/24", 0, DIRECT, base());
    put(&mut rib, 0, "172.16.2.0/24", 0, DIRECT, base());
    assert_eq!(rib.id(prefix("172.16.9.0/24")), Some(first));
    assert_eq!(rib.id(prefix("172.16.2.0/24")), Some(second));
    rib.withdraw(0, nlri("172.16.2.0/24", 0));
    rib.settle();
    rib.take_changes();
    rib.unpin(second);
    rib.free_ids();
    assert_eq!(rib.id(prefix("172.16.2.0/24")), None);
    assert_eq!(rib.id_bound(), 5, "two of the node, three of the peer");
}

#[test]
fn policy_is_asked_once_for_all_prefixes_of_an_update_unless_it_reads_them() {
    struct Counting(std::cell::Cell<u32>, bool);
    impl Policy for Counting {
        fn accepts(&self, _: &mut RouteView<'_>) -> bool {
            self.0.set(self.0.get() + 1);
            true
        }
        fn reads_prefix(&self) -> bool {
            self.1
        }
    }
    let list = [nlri("172.16.1.0/24", 0), nlri("127.0.0.0/8", 0), nlri("172.16.2.0/24", 0)];
    for (reads_prefix, runs) in [(false, 1), (true, 2)] {
        let mut rib = table();
        let policy = Counting(std::cell::Cell::new(0), reads_prefix);
        rib.announce(0, &rules(&policy), base(), NextHop::V4(DIRECT.into()), &list);
        rib.settle();
        assert_eq!(policy.0.get(), runs);
        let refused = |to| match rib.dest_of(prefix(to)).unwrap().paths[0].kind {
            PathKind::Bgp(bgp) => bgp.refused,
            _ => None,
        };
        let all = ["172.16.1.0/24", "127.0.0.0/8", "172.16.2.0/24"].map(refused);
        assert_eq!(all, [None, Some(Refused::Bogus), None]);
        assert_eq!(rib.attr_sets(), 1, "what was received and what is used are equal");
    }
}

#[test]
fn the_paths_of_a_peer_go_and_the_others_stay() {
    let mut rib = table();
    for to in ["172.16.1.0/24", "172.16.2.0/24"] {
        for (slot, path_id) in [(0, 1), (0, 2), (1, 1), (2, 0)] {
            put(&mut rib, slot, to, path_id, DIRECT, base());
        }
    }
    put(&mut rib, 0, "172.16.3.0/24", 0, FAR, base());
    rib.withdraw(0, nlri("172.16.2.0/24", 1));
    let mine = |rib: &Rib<V4>, slot| rib.dests_of(slot, DestId(0)).count();
    assert_eq!((mine(&rib, 0), mine(&rib, 1)), (3, 2));
    rib.sweep(0);
    rib.settle();
    assert_eq!((mine(&rib, 0), mine(&rib, 1), rib.len()), (0, 2, 4));
    assert_eq!(rib.next_hops().len(), 1, "nobody uses the other one");
    let left: Vec<Source> =
        rib.dest_of(prefix("172.16.2.0/24")).unwrap().paths.iter().map(Path::source).collect();
    assert_eq!(left, [Source::Peer(1), Source::Peer(2)]);
}

#[derive(Clone, Debug)]
struct Candidate {
    slot: u32,
    path_id: u32,
    next_hop: [u8; 4],
    preference: u16,
    attributes: Attributes,
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (
        (0u32..3, 0u32..3),
        prop::sample::select(vec![DIRECT, [10, 0, 0, 51], FAR, [10, 0, 0, 1]]),
        prop::sample::select(vec![100u16, 100, 100, 200]),
        prop::option::of(99u32..102),
        prop::sample::select(vec![
            vec![],
            vec![65001],
            vec![65001, 65002],
            vec![65002, 65001],
            vec![65003, 1],
        ]),
        prop::option::of(0u32..3),
        prop::sample::select(vec![Origin::Igp, Origin::Igp, Origin::Incomplete]),
        prop::option::of(1u8..3),
    )
        .prop_map(
            |((slot, path_id), next_hop, preference, local_pref, asns, med, origin, originator)| Candidate {
                slot,
                path_id,
                next_hop,
                preference,
                attributes: Attributes {
                    origin,
                    as_path: path(&asns),
                    med,
                    local_pref,
                    originator_id: originator.map(|n| RouterId([n, 1, 1, 1].into())),
                    ..Attributes::default()
                },
            },
        )
}

type Name = (Source, u32);

/// The winner and its companions after putting these in this order.
fn outcome(candidates: &[Candidate]) -> Option<(Name, Vec<Name>)> {
    let mut rib = table();
    for c in candidates {
        put_preferred(&mut rib, c.slot, TO, c.path_id, c.next_hop, c.attributes.clone(), c.preference);
        rib.settle();
    }
    let dest = rib.dest_of(prefix(TO))?;
    let name = |path: &Path<V4>| (path.source(), path.path_id);
    let mut together: Vec<_> = rib.multipath(dest).map(name).collect();
    together.sort_unstable();
    Some((dest.best().map(name)?, together))
}

proptest! {
    #[test]
    fn the_winner_does_not_depend_on_the_order_of_arrival(
        candidates in prop::collection::vec(candidate(), 1..9),
        seed in any::<u64>(),
    ) {
        // One path for each source and id: a later one would replace it.
        let mut unique: Vec<Candidate> = Vec::new();
        for c in candidates {
            if !unique.iter().any(|other| (other.slot, other.path_id) == (c.slot, c.path_id)) {
                unique.push(c);
            }
        }
        let mut shuffled = unique.clone();
        let mut state = seed;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, (state >> 33) as usize % (at + 1));
        }
        prop_assert_eq!(outcome(&unique), outcome(&shuffled));
    }

    #[test]
    fn a_path_that_lost_does_not_change_the_winner_by_leaving_unless_med_brought_it_down(
        candidates in prop::collection::vec(candidate(), 2..7),
    ) {
        // Without MED the order is total, so losers are irrelevant.
        let mut unique: Vec<Candidate> = Vec::new();
        for mut c in candidates {
            c.attributes.med = None;
            if !unique.iter().any(|other| (other.slot, other.path_id) == (c.slot, c.path_id)) {
                unique.push(c);
            }
        }
        let (best, _) = outcome(&unique).unwrap();
        for leaves in 0..unique.len() {
            let mut rest = unique.clone();
            let gone = rest.remove(leaves);
            if (Source::Peer(gone.slot), gone.path_id) != best && !rest.is_empty() {
                prop_assert_eq!(outcome(&rest).unwrap().0, best);
            }
        }
    }
}
