//! From a path to what one peer is sent.
//!
//! Owns: [`export`], one pure function of a profile and a path: reflection (BGP-25), well-known communities, AS_PATH,
//! MED, next hop (BGP-22 to BGP-24, PEER-65), LOCAL_PREF on internal sessions only, then the export policy
//! (BGP-38). Never: knows which peer reads. What is not in the profile cannot influence what is sent; the only tests
//! for each reader are [`PathView::source`] (never back to where it came from) and [`OutRoute::next_hop`] (never the
//! reader's own address), and the caller makes them.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::ids::{Asn, ClusterId};
use crate::prefix::{Afi, AfiSet, IpPrefix, is_link_local};
use crate::rib::attrs::LLGR_STALE;
use crate::rib::decision::DEFAULT_LOCAL_PREF;
use crate::rib::path::{Forward, Source, SourcePeer};
use crate::rib::policy::{Policy, RouteView};
use crate::wire::attr::as_path::SEGMENT_MAX;
use crate::wire::attr::rules::{PARTIAL, TRANSITIVE};
use crate::wire::{AsPath, Attributes, Context, NextHop, PeerType, Segment};

/// NO_EXPORT (RFC 1997).
const NO_EXPORT: u32 = 0xffff_ff01;
/// NO_ADVERTISE (RFC 1997).
const NO_ADVERTISE: u32 = 0xffff_ff02;
/// NO_EXPORT_SUBCONFED (RFC 1997).
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
/// Bit of an extended community's type: it does not cross ASs (RFC 4360 §2).
const NON_TRANSITIVE_TYPE: u8 = 0x40;

/// `nextHopMode` (PEER-64).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum NextHopRule {
    /// Kept on internal sessions, ours on external ones (PEER-65).
    #[default]
    Auto,
    /// Always ours.
    SelfAddress,
    /// Kept wherever there is one.
    Keep,
}

impl NextHopRule {
    /// Whether a next hop that is there already is kept on a session.
    const fn keeps(self, internal: bool) -> bool {
        match self {
            NextHopRule::SelfAddress => false,
            NextHopRule::Keep => true,
            NextHopRule::Auto => internal,
        }
    }
}

/// A policy program, as its owner numbers them: equal programs have equal numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProgramId(pub u32);

/// All of a session that decides about what is sent on it in one family: the whole key of a group of
/// [Adj-RIB-Out](crate::out). That what peers told waits for the end of our own restart is a state of the table, not of
/// a session: were it in here, its end would send all again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExportProfile {
    /// The family.
    pub afi: Afi,
    /// The session is within one AS.
    pub internal: bool,
    /// Our AS in it.
    pub local_asn: Asn,
    /// Our address in it.
    pub local_addr: IpAddr,
    /// The peer is our client, in this cluster.
    pub rr_client: Option<ClusterId>,
    /// The next hop rule.
    pub next_hop: NextHopRule,
    /// The export program.
    pub program: ProgramId,
    /// The peer knows what LLGR_STALE means; one that does not would take such a route for a good one (RFC 9494 §4.3).
    pub long_lived_aware: bool,
    /// Every usable path is sent, with path ids (RFC 7911).
    pub add_path: bool,
    /// The peer takes IPv6 next hops of IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// AS numbers travel in four octets (RFC 6793).
    pub as4: bool,
    /// Messages up to 65535 octets (RFC 8654).
    pub extended_message: bool,
}

impl ExportProfile {
    /// What encoding reads of a session, and no more.
    pub fn context(&self) -> Context {
        let family = AfiSet::only(self.afi);
        let peer_type = if self.internal { PeerType::Ibgp } else { PeerType::Ebgp };
        Context {
            families: family,
            as4: self.as4,
            add_path_tx: if self.add_path { family } else { AfiSet::EMPTY },
            extended_next_hop: self.extended_next_hop,
            extended_message: self.extended_message,
            ..Context::new(peer_type)
        }
    }
}

/// A path as export sees it.
#[derive(Clone, Copy, Debug)]
pub struct PathView<'a> {
    /// The prefix.
    pub prefix: IpPrefix,
    /// Who put it into the table.
    pub source: Source,
    /// The session that it came over.
    pub from: Option<&'a SourcePeer>,
    /// Attributes of a received path, after import.
    pub attributes: Option<&'a Attributes>,
    /// Next hop of a received path, after import.
    pub next_hop: Option<NextHop>,
    /// Where it leads.
    pub forward: &'a Forward,
    /// Name of the outgoing interface; empty if there is none.
    pub interface: &'a str,
    /// Kernel metric of a foreign route.
    pub metric: Option<u32>,
}

/// What is sent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OutRoute {
    /// Attributes but the next hop.
    pub attributes: Attributes,
    /// The next hop.
    pub next_hop: NextHop,
}

/// What a peer with this profile is sent for this path; `None`: nothing.
pub fn export(profile: &ExportProfile, path: &PathView<'_>, policy: &impl Policy) -> Option<OutRoute> {
    let (attributes, next_hop) = match (path.attributes, path.from) {
        (Some(attributes), Some(from)) => received(profile, path, attributes, from)?,
        _ => {
            let (attributes, next_hop) = originated(profile, path);
            (Cow::Owned(attributes), next_hop)
        }
    };
    let mut view = RouteView {
        prefix: path.prefix,
        class: path.source.class(),
        interface: path.interface,
        internal: Some(profile.internal),
        metric: path.metric,
        preference: path.source.class().preference(),
        attributes,
        next_hop: Some(next_hop),
        device: None,
    };
    if !policy.accepts(&mut view) {
        return None;
    }
    let next_hop = view.next_hop.unwrap_or(next_hop);
    Some(OutRoute { attributes: for_wire(profile, view.attributes.into_owned()), next_hop })
}

/// BGP-21, BGP-23.
fn originated(profile: &ExportProfile, path: &PathView<'_>) -> (Attributes, NextHop) {
    let mut attributes = Attributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..Attributes::default() };
    if !profile.internal {
        prepend(&mut attributes.as_path, &[profile.local_asn]);
    }
    // A gateway of the other family (RTA_VIA) is for our kernel, not for others: those reach the route through us.
    let gateway = path.forward.single_leg().and_then(|leg| leg.via);
    let gateway = gateway.filter(|via| Afi::of(*via) == path.prefix.afi() && !is_link_local(*via));
    let keeps = profile.next_hop.keeps(profile.internal);
    (attributes, gateway.filter(|_| keeps).unwrap_or(profile.local_addr).into())
}

/// BGP-22, BGP-24, BGP-25.
fn received<'a>(
    profile: &ExportProfile,
    path: &PathView<'_>,
    attributes: &'a Attributes,
    from: &SourcePeer,
) -> Option<(Cow<'a, Attributes>, NextHop)> {
    // A client whose cluster the route has passed has seen it.
    if profile.rr_client.is_some_and(|cluster| attributes.cluster_list.contains(&cluster)) {
        return None;
    }
    let has = |community| attributes.communities.contains(&community);
    if has(NO_ADVERTISE) || (!profile.internal && (has(NO_EXPORT) || has(NO_EXPORT_SUBCONFED))) {
        return None;
    }
    if has(LLGR_STALE) && !profile.long_lived_aware {
        return None;
    }
    let mut attributes = Cow::Borrowed(attributes);
    if profile.internal && from.internal && profile.local_asn == from.local_asn {
        reflect(profile, &mut attributes, from)?;
    }
    if !profile.internal {
        let attributes = attributes.to_mut();
        prepend(&mut attributes.as_path, &[profile.local_asn]);
        // The neighbour that set it is not the one that reads it; BIRD sends 0 instead of none.
        if attributes.med.is_some() {
            attributes.med = Some(0);
        }
    }
    let keeps = profile.next_hop.keeps(profile.internal);
    let next_hop =
        path.next_hop.filter(|_| keeps).map_or(profile.local_addr.into(), |next_hop| match next_hop {
            // All sessions are multihop: a link-local address means nothing at the other end.
            NextHop::V6 { global, .. } => NextHop::V6 { global, link_local: None },
            v4 => v4,
        });
    Some((attributes, next_hop))
}

/// RFC 4456; `None` where neither side is a client.
fn reflect(profile: &ExportProfile, attributes: &mut Cow<'_, Attributes>, from: &SourcePeer) -> Option<()> {
    let entered = from.rr_client.or(profile.rr_client)?;
    let attributes = attributes.to_mut();
    attributes.originator_id.get_or_insert(from.router_id);
    attributes.cluster_list.insert(0, entered);
    // Two clients of different clusters: the route leaves one and enters the other.
    if let Some(left) = profile.rr_client.filter(|left| *left != entered) {
        attributes.cluster_list.insert(0, left);
    }
    Some(())
}

/// What crosses this session at all.
fn for_wire(profile: &ExportProfile, mut attributes: Attributes) -> Attributes {
    if profile.internal {
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
    } else {
        attributes.local_pref = None;
        attributes.originator_id = None;
        attributes.cluster_list.clear();
        attributes.ext_communities.retain(|[kind, ..]| kind & NON_TRANSITIVE_TYPE == 0);
    }
    attributes.unknown.retain(|attribute| attribute.flags & TRANSITIVE != 0);
    for attribute in &mut attributes.unknown {
        attribute.flags |= PARTIAL;
    }
    attributes
}

/// Puts ASs in front of a path, the first of them first.
pub fn prepend(path: &mut AsPath, asns: &[Asn]) {
    if asns.is_empty() {
        return;
    }
    match path.segments.first_mut() {
        Some(Segment::Sequence(list)) if list.len() + asns.len() <= SEGMENT_MAX => {
            list.insert_many(0, asns.iter().copied());
        }
        _ => path.segments.insert(0, Segment::Sequence(asns.into())),
    }
}
