//! What one peer is sent of one family.
//!
//! Owns: which destinations the peer has yet to hear of, and what it holds. Whatever interleaving of changes and reads
//! there is, a peer that has read everything holds exactly what [`export`] gives for the table as it is: a destination
//! that changes ten times between two reads is sent once. Size is bounded by the table, never by churn. Never: reads
//! the clock, or knows when the peer reads.
//!
//! BGP-18 (packing), BGP-20 (add-path: every path; without: the best), BGP-35 and RFC 7313 (refresh), RFC 4724 §2
//! (End-of-RIB), W50 (routes that do not fit into a message).

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::rib::{AttrId, ExportProfile, OutRoute, Path, PathKind, PathView, Rib, Source, export};
use bgp_proto::wire::capability::WireFamily;
use bgp_proto::wire::refresh::RefreshKind;
use bgp_proto::wire::{Context, Nlri, RouteRefresh, send};
use bgp_proto::{AfiSet, Family, IpPrefix, Prefix};
use bytes::BytesMut;

use super::kernel_routes::Interfaces;
use super::peers::PeerState;
use crate::policy::program::Program;

/// Destinations that one answer looks at, at most: a peer for whom nothing changed does not hold up the others.
const LOOKS: usize = 4096;
/// Destinations whose routes share UPDATEs.
const BATCH: usize = 1024;

/// A walk over the whole table.
#[derive(Clone, Copy, Debug)]
struct Walk<F: Family> {
    /// The last destination that was visited.
    after: Option<Prefix<F>>,
    /// Send also what the peer holds already.
    resend: bool,
    /// BoRR has yet to be sent.
    begin: bool,
    /// Send EoRR at the end.
    end: bool,
}

/// One peer's view.
#[derive(Debug)]
pub(super) struct OutView<F: Family> {
    pending: BTreeSet<Prefix<F>>,
    /// What the peer holds, by prefix and path id sent. Each handle is a reference in the table's attributes.
    held: BTreeMap<(Prefix<F>, u32), AttrId>,
    walk: Option<Walk<F>>,
    /// End-of-RIB has yet to be sent; it follows the initial feed.
    end_of_rib: bool,
    /// A refresh was asked for that has to wait for End-of-RIB (RFC 7313 §4).
    refresh: bool,
}

/// All that the feed of one peer reads.
pub(super) struct Feed<'a> {
    pub peer: &'a PeerState,
    pub profile: ExportProfile,
    pub context: &'a Context,
    pub interfaces: &'a Interfaces,
    pub enhanced_refresh: bool,
    /// Families in which End-of-RIB may be sent.
    pub complete: AfiSet,
    /// Families in which what peers told waits until our own restart is over.
    pub deferred: AfiSet,
}

impl Feed<'_> {
    fn program(&self) -> &Program {
        &self.peer.treatment.export
    }
}

/// Routes to be put into UPDATEs.
struct Batch<F: Family> {
    withdrawn: Vec<Nlri<F>>,
    reach: BTreeMap<AttrId, Vec<(Nlri<F>, bool)>>,
    /// Octets, roughly.
    size: usize,
}

impl<F: Family> OutView<F> {
    /// The view of a session that has just come up: nothing held, everything to be fed.
    pub fn new() -> Self {
        OutView {
            pending: BTreeSet::new(),
            held: BTreeMap::new(),
            walk: Some(Walk { after: None, resend: false, begin: false, end: false }),
            end_of_rib: true,
            refresh: false,
        }
    }

    /// Prefixes and paths that the peer holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What the peer holds of one prefix.
    pub fn held_of(&self, prefix: Prefix<F>) -> impl Iterator<Item = (u32, AttrId)> {
        self.held.range((prefix, 0)..=(prefix, u32::MAX)).map(|((_, path_id), id)| (*path_id, *id))
    }

    /// Whether the peer holds anything of a prefix.
    pub fn holds(&self, prefix: Prefix<F>) -> bool {
        self.held_of(prefix).next().is_some()
    }

    /// A destination changed.
    pub fn touch(&mut self, prefix: Prefix<F>) {
        self.pending.insert(prefix);
    }

    /// Rules changed: everything is looked at again, and only differences are sent. What is held of destinations that
    /// are gone from the table is pending already.
    pub fn look_again(&mut self) {
        let walk = self.walk.get_or_insert(Walk { after: None, resend: false, begin: false, end: false });
        walk.after = None;
    }

    /// The peer asks for everything again.
    pub fn refresh(&mut self, enhanced: bool) {
        if self.end_of_rib {
            self.refresh = true;
        } else {
            self.walk = Some(Walk { after: None, resend: true, begin: enhanced, end: enhanced });
        }
    }

    /// Whether there is anything to read.
    pub fn has_work(&self, complete: AfiSet) -> bool {
        !self.pending.is_empty() || self.walk.is_some() || (self.end_of_rib && complete.contains(F::AFI))
    }

    /// Gives back what it holds of the table.
    pub fn close(self, rib: &mut Rib<F>) {
        for id in self.held.into_values() {
            rib.release(id);
        }
    }

    /// Appends messages to `out` until that has `budget` octets or nothing is left.
    pub fn fill(&mut self, rib: &mut Rib<F>, feed: &Feed<'_>, budget: usize, out: &mut BytesMut) {
        let mut looks = LOOKS;
        while out.len() < budget && looks > 0 {
            if let Some(walk) = &mut self.walk
                && walk.begin
            {
                walk.begin = false;
                marker::<F>(RefreshKind::Begin, out);
            }
            let mut batch = Batch { withdrawn: Vec::new(), reach: BTreeMap::new(), size: 0 };
            // At least one destination is looked at, or an empty batch would mean that none is left.
            let room = budget.saturating_sub(out.len()).max(1);
            let mut looked = 0;
            while batch.size < room && looked < BATCH.min(looks) {
                let Some((prefix, resend)) = self.next(rib) else { break };
                looked += 1;
                self.look(rib, feed, prefix, resend, &mut batch);
            }
            looks -= looked;
            let written = out.len();
            self.write(rib, feed, batch, out);
            if looked > 0 {
                continue;
            }
            // Nothing is pending and the walk, if there was one, is at its end.
            if let Some(walk) = self.walk.take()
                && walk.end
            {
                marker::<F>(RefreshKind::End, out);
            }
            if self.end_of_rib && feed.complete.contains(F::AFI) {
                self.end_of_rib = false;
                send::encode_end_of_rib(F::AFI, out);
                if std::mem::take(&mut self.refresh) {
                    self.refresh(feed.enhanced_refresh);
                }
            }
            if out.len() == written && self.walk.is_none() {
                return;
            }
        }
    }

    /// The next destination to look at, and whether it is sent even if it is held.
    fn next(&mut self, rib: &Rib<F>) -> Option<(Prefix<F>, bool)> {
        if let Some(prefix) = self.pending.pop_first() {
            return Some((prefix, false));
        }
        let walk = self.walk.as_mut()?;
        let (prefix, _) = rib.dests(walk.after).next()?;
        walk.after = Some(prefix);
        Some((prefix, walk.resend))
    }

    /// Compares what the peer shall hold of a destination with what it holds.
    fn look(
        &mut self,
        rib: &mut Rib<F>,
        feed: &Feed<'_>,
        prefix: Prefix<F>,
        resend: bool,
        batch: &mut Batch<F>,
    ) {
        let routes = routes(rib, feed, prefix);
        let gone: Vec<(u32, AttrId)> =
            self.held_of(prefix).filter(|(id, _)| routes.iter().all(|(other, _)| other != id)).collect();
        for (path_id, id) in gone {
            self.held.remove(&(prefix, path_id));
            rib.release(id);
            batch.withdrawn.push(Nlri { path_id, prefix });
            batch.size += nlri_size::<F>();
        }
        for (path_id, route) in routes {
            let size = nlri_size::<F>() + attributes_size(&route);
            let id = rib.intern(route.attributes, Some(route.next_hop));
            let old = self.held.insert((prefix, path_id), id);
            if let Some(old) = old {
                rib.release(old);
            }
            if old == Some(id) && !resend {
                continue;
            }
            let group = batch.reach.entry(id).or_default();
            batch.size += if group.is_empty() { size } else { nlri_size::<F>() };
            group.push((Nlri { path_id, prefix }, old.is_some()));
        }
    }

    /// Withdrawals first and in UPDATEs of their own; routes with equal attributes share an UPDATE.
    fn write(&mut self, rib: &mut Rib<F>, feed: &Feed<'_>, batch: Batch<F>, out: &mut BytesMut) {
        withdraw(feed.context, &batch.withdrawn, out);
        for (id, group) in batch.reach {
            let nlri: Vec<Nlri<F>> = group.iter().map(|(nlri, _)| *nlri).collect();
            let mut rest = nlri.as_slice();
            while !rest.is_empty() {
                let set = rib.attrs(id);
                let sent = match set.next_hop {
                    Some(next_hop) => send::encode_reach(feed.context, &set.attributes, next_hop, rest, out),
                    None => 0,
                };
                if sent == 0 {
                    break;
                }
                rest = rest.get(sent..).unwrap_or_default();
            }
            if !rest.is_empty() {
                // The attributes leave no room for a prefix: the peer must not keep what it had instead.
                let had = group.len() - rest.len();
                let stale = group.iter().skip(had).filter(|(_, held)| *held).map(|(nlri, _)| *nlri);
                withdraw(feed.context, &stale.collect::<Vec<_>>(), out);
                for nlri in rest {
                    if let Some(id) = self.held.remove(&(nlri.prefix, nlri.path_id)) {
                        rib.release(id);
                    }
                }
            }
        }
    }
}

fn withdraw<F: Family>(context: &Context, mut nlri: &[Nlri<F>], out: &mut BytesMut) {
    while !nlri.is_empty() {
        let sent = send::encode_unreach(context, nlri, out);
        if sent == 0 {
            return;
        }
        nlri = nlri.get(sent..).unwrap_or_default();
    }
}

fn marker<F: Family>(kind: RefreshKind, out: &mut BytesMut) {
    send::encode_refresh(RouteRefresh { family: WireFamily::from(F::AFI), kind }, out);
}

const fn nlri_size<F: Family>() -> usize {
    F::ADDR_BYTES + 5
}

/// Octets of an UPDATE without its prefixes, roughly and rather too many.
fn attributes_size(route: &OutRoute) -> usize {
    let attributes = &route.attributes;
    let unknown: usize = attributes.unknown.iter().map(|attribute| attribute.value.len() + 4).sum();
    120 + attributes.as_path.hops() * 4
        + attributes.communities.len() * 4
        + attributes.ext_communities.len() * 8
        + attributes.large_communities.len() * 12
        + attributes.cluster_list.len() * 4
        + unknown
}

/// Whether any path of a destination could be sent to a peer, policy left aside: routes of the mesh never are, and
/// nobody needs to be woken for them.
pub(super) fn concerns<F: Family>(rib: &Rib<F>, prefix: Prefix<F>, peer: &PeerState) -> bool {
    rib.dest(prefix).is_some_and(|dest| {
        dest.paths.iter().any(|path| match path.source {
            Source::Peer(slot) if slot == peer.id.slot => false,
            Source::Peer(slot) => rib.peer(slot).is_some_and(|from| {
                !(from.internal && peer.treatment.internal && from.local_asn == peer.open.local_asn)
                    || from.rr_client.is_some()
                    || peer.treatment.rr_client.is_some()
            }),
            _ => true,
        })
    })
}

/// What a peer shall hold of a destination, by path id.
pub(super) fn routes<F: Family>(rib: &Rib<F>, feed: &Feed<'_>, prefix: Prefix<F>) -> Vec<(u32, OutRoute)> {
    let Some(dest) = rib.dest(prefix) else { return Vec::new() };
    let add_path = feed.context.add_path_tx.contains(F::AFI);
    let one = |path: &Path<F>| route(rib, feed, prefix, path);
    if add_path {
        let usable = dest.paths.iter().filter(|path| path.eligible());
        usable.filter_map(|path| Some((path.out_id, one(path)?))).collect()
    } else {
        dest.best().and_then(one).map(|route| (0, route)).into_iter().collect()
    }
}

/// One path, for one reader: the profile decides, but a route never goes back to where it came from, and the reader is
/// never told to forward to itself (BGP-23).
fn route<F: Family>(rib: &Rib<F>, feed: &Feed<'_>, prefix: Prefix<F>, path: &Path<F>) -> Option<OutRoute> {
    let from = match path.source {
        Source::Peer(slot) if slot == feed.peer.id.slot || feed.deferred.contains(F::AFI) => return None,
        Source::Peer(slot) => Some(rib.peer(slot)?),
        _ => None,
    };
    let (attributes, next_hop, metric) = match &path.kind {
        PathKind::Bgp(bgp) => {
            let set = rib.attrs(bgp.used);
            (Some(&set.attributes), set.next_hop, None)
        }
        PathKind::Kernel { metric, .. } => (None, None, Some(*metric)),
        _ => (None, None, None),
    };
    let forward = rib.forward(path);
    let view = PathView {
        prefix: IpPrefix::from(prefix),
        source: path.source,
        from,
        attributes,
        next_hop,
        forward: &forward,
        interface: feed.interfaces.name_of(&forward),
        metric,
    };
    // An IPv6 next hop for IPv4 prefixes is for those who agreed to it (RFC 8950).
    let fits = |addr| F::from_ip(addr).is_some() || feed.context.extended_next_hop;
    export(&feed.profile, &view, feed.program())
        .filter(|out| fits(out.next_hop.addr()) && out.next_hop.addr() != feed.peer.addr)
}
