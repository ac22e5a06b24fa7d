//! Which path of a destination is best, and why the others are not (KRT-9, KRT-10, BGP-40).
//!
//! Owns: the decision, by successive elimination; there is no `Ord` on paths, because MED makes their order
//! intransitive. Never: changes a path.
//!
//! As BIRD 1.6 is configured by Calico: an absent LOCAL_PREF counts as 100, an absent MED as 0; age never counts; MEDs
//! are compared only between paths from one neighbouring AS. BIRD's result depends there on the order of arrival; ours
//! does not: a path is out if any path that is still in has the same neighbouring AS and a lower MED.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::ids::{Asn, RouterId};
use crate::prefix::Family;
use crate::rib::attrs::AttrTable;
use crate::rib::nexthop::NextHops;
use crate::rib::path::{BgpPath, Path, PathKind, Refused, SourceClass, SourcePeer};
use crate::wire::Origin;

/// LOCAL_PREF of a route that has none (PEER-69).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Why a path is not the best, in the order in which it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It may not be used.
    Refused(Refused),
    /// The gateway of the static route is on no connected subnet (KRT-19).
    GatewayNotConnected,
    /// Another has a higher preference.
    Preference,
    /// Another of equal preference is of a class that goes first.
    Class,
    /// Its next hop leads nowhere, and another's leads somewhere.
    Unresolvable,
    /// It is long-lived stale, and another is not (RFC 9494 §4.3).
    LongLivedStale,
    /// Another has a higher LOCAL_PREF.
    LocalPref,
    /// Another has a shorter AS_PATH.
    PathLength,
    /// Another has a lower ORIGIN.
    Origin,
    /// Another from the same neighbouring AS has a lower MED.
    Med,
    /// It is internal, another is external.
    Internal,
    /// Another's next hop is nearer.
    IgpMetric,
    /// Another's originator or router has a lower identifier.
    RouterId,
    /// Another was reflected fewer times.
    ClusterList,
    /// Another's peer has a lower address.
    PeerAddress,
    /// Another has a lower path id, or interface index.
    PathId,
}

/// What the decision reads beside the paths.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a, F: Family> {
    pub attrs: &'a AttrTable,
    pub next_hops: &'a NextHops<F>,
    pub peers: &'a [Option<SourcePeer>],
}

impl<F: Family> Facts<'_, F> {
    fn peer(&self, slot: u32) -> Option<&SourcePeer> {
        self.peers.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    fn rank(&self, index: usize, path: &Path<F>) -> Rank {
        let bgp = match &path.kind {
            PathKind::Bgp(bgp) => Some(self.bgp_rank(bgp)),
            _ => None,
        };
        Rank { index, preference: path.preference, class: path.source().class(), path_id: path.path_id, bgp }
    }

    fn bgp_rank(&self, bgp: &BgpPath) -> BgpRank {
        let set = self.attrs.get(bgp.used);
        let peer = self.peer(bgp.slot);
        let resolution = self.next_hops.resolution(bgp.next_hop);
        BgpRank {
            resolvable: resolution.resolvable(),
            long_lived_stale: set.long_lived_stale,
            local_pref: set.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            path_length: set.path_length,
            origin: set.attributes.origin,
            med: set.attributes.med.unwrap_or(0),
            neighbour: set.first_as.or(peer.map(|peer| peer.asn)),
            internal: peer.is_some_and(|peer| peer.internal),
            igp_metric: resolution.igp_metric,
            router_id: set.attributes.originator_id.or(peer.map(|peer| peer.router_id)),
            cluster_length: set.attributes.cluster_list.len(),
            peer_addr: peer.map(|peer| peer.addr),
        }
    }
}

struct Rank {
    index: usize,
    preference: u16,
    class: SourceClass,
    path_id: u32,
    bgp: Option<BgpRank>,
}

struct BgpRank {
    resolvable: bool,
    long_lived_stale: bool,
    local_pref: u32,
    path_length: u32,
    origin: Origin,
    med: u32,
    neighbour: Option<Asn>,
    internal: bool,
    igp_metric: u32,
    router_id: Option<RouterId>,
    cluster_length: usize,
    peer_addr: Option<IpAddr>,
}

type Ranks = SmallVec<[Rank; 2]>;

/// Index of the best path. Each loser is told to `lost` with its reason.
pub(super) fn decide<F: Family>(
    paths: &[Path<F>],
    facts: Facts<'_, F>,
    mut lost: impl FnMut(usize, Reason),
) -> Option<usize> {
    let mut ranks = Ranks::new();
    for (index, path) in paths.iter().enumerate() {
        match &path.kind {
            PathKind::Bgp(BgpPath { refused: Some(refused), .. }) => lost(index, Reason::Refused(*refused)),
            PathKind::Gateway { ifindex: None, .. } => lost(index, Reason::GatewayNotConnected),
            _ => ranks.push(facts.rank(index, path)),
        }
    }
    if ranks.len() > 1 {
        eliminate(&mut ranks, &mut lost);
    }
    ranks.first().map(|rank| rank.index)
}

fn eliminate(ranks: &mut Ranks, lost: &mut impl FnMut(usize, Reason)) {
    keep_least(ranks, Reason::Preference, lost, |rank| u16::MAX - rank.preference);
    keep_least(ranks, Reason::Class, lost, |rank| rank.class);
    // From here on all are of one class; the keys of local paths are all equal.
    let bgp = |rank: &Rank, key: fn(&BgpRank) -> u64| rank.bgp.as_ref().map(key);
    keep_least(ranks, Reason::Unresolvable, lost, |rank| bgp(rank, |b| u64::from(!b.resolvable)));
    keep_least(ranks, Reason::LongLivedStale, lost, |rank| bgp(rank, |b| u64::from(b.long_lived_stale)));
    keep_least(ranks, Reason::LocalPref, lost, |rank| bgp(rank, |b| u64::from(u32::MAX - b.local_pref)));
    keep_least(ranks, Reason::PathLength, lost, |rank| bgp(rank, |b| u64::from(b.path_length)));
    keep_least(ranks, Reason::Origin, lost, |rank| rank.bgp.as_ref().map(|b| b.origin));
    if ranks.len() > 1 {
        let mut least_med: SmallVec<[_; 4]> =
            ranks.iter().filter_map(|rank| rank.bgp.as_ref()).map(|b| (b.neighbour, b.med)).collect();
        least_med.sort_unstable();
        least_med.dedup_by_key(|(neighbour, _)| *neighbour);
        let is_above = |b: &BgpRank| {
            let at = least_med.binary_search_by_key(&b.neighbour, |(neighbour, _)| *neighbour);
            at.ok().and_then(|at| least_med.get(at)).is_some_and(|(_, least)| b.med > *least)
        };
        keep_least(ranks, Reason::Med, lost, |rank| rank.bgp.as_ref().is_some_and(is_above));
    }
    keep_least(ranks, Reason::Internal, lost, |rank| bgp(rank, |b| u64::from(b.internal)));
    keep_least(ranks, Reason::IgpMetric, lost, |rank| bgp(rank, |b| u64::from(b.igp_metric)));
    keep_least(ranks, Reason::RouterId, lost, |rank| rank.bgp.as_ref().map(|b| b.router_id));
    keep_least(ranks, Reason::ClusterList, lost, |rank| rank.bgp.as_ref().map(|b| b.cluster_length));
    keep_least(ranks, Reason::PeerAddress, lost, |rank| rank.bgp.as_ref().map(|b| b.peer_addr));
    keep_least(ranks, Reason::PathId, lost, |rank| rank.path_id);
}

fn keep_least<K: Ord>(
    ranks: &mut Ranks,
    reason: Reason,
    lost: &mut impl FnMut(usize, Reason),
    key: impl Fn(&Rank) -> K,
) {
    if ranks.len() < 2 {
        return;
    }
    let Some(least) = ranks.iter().map(&key).min() else { return };
    ranks.retain(|rank| {
        let stays = key(rank) == least;
        if !stays {
            lost(rank.index, reason);
        }
        stays
    });
}

/// Whether `other` may stand beside `best` in one kernel route (KRT-28).
pub(super) fn mergeable<F: Family>(best: &Path<F>, other: &Path<F>, facts: Facts<'_, F>) -> bool {
    if !other.eligible() || best.preference != other.preference {
        return false;
    }
    let (PathKind::Bgp(a), PathKind::Bgp(b)) = (&best.kind, &other.kind) else { return false };
    let (a, b) = (facts.bgp_rank(a), facts.bgp_rank(b));
    a.resolvable
        && b.resolvable
        && a.long_lived_stale == b.long_lived_stale
        && a.local_pref == b.local_pref
        && a.path_length == b.path_length
        && a.origin == b.origin
        && (a.neighbour != b.neighbour || a.med == b.med)
        && a.internal == b.internal
        && a.igp_metric == b.igp_metric
}
