//! From what a peer sent to a path of the table.
//!
//! Owns: the loop checks (BGP-26, RFC 4456 §8), what is ignored from external peers (BGP-27), which prefixes are
//! taken at all (KRT-11), and the run of the import policy. Never: stores; the outcome goes to
//! [`Rib::put_received`](super::Rib::put_received).

use std::net::IpAddr;

use crate::ids::{Asn, ClusterId, RouterId};
use crate::prefix::IpPrefix;
use crate::rib::decision::DEFAULT_LOCAL_PREF;
use crate::rib::path::{Refused, SourceClass};
use crate::rib::policy::{Policy, RouteView};
use crate::wire::{AsPath, Attributes, NextHop, Segment};

/// What of a session decides about its routes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ImportProfile {
    /// The session is within one AS.
    pub internal: bool,
    /// Our AS in it.
    pub local_asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// The peer is our client, in this cluster.
    pub rr_client: Option<ClusterId>,
    /// How often our AS may stand in a path.
    pub allow_own_as: u8,
}

/// A route after import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// Its attributes.
    pub attributes: Attributes,
    /// Its next hop.
    pub next_hop: NextHop,
    /// Its preference.
    pub preference: u16,
    /// Why it may not be used.
    pub refused: Option<Refused>,
}

/// Imports one received route. `interface` names the interface towards the resolved next hop.
pub fn import(
    profile: &ImportProfile,
    prefix: IpPrefix,
    got: &Attributes,
    next_hop: NextHop,
    interface: &str,
    policy: &impl Policy,
) -> Imported {
    let mut attributes = got.clone();
    if profile.internal {
        attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
    } else {
        attributes.local_pref = Some(DEFAULT_LOCAL_PREF);
        attributes.originator_id = None;
        attributes.cluster_list.clear();
    }
    let refused = looped(profile, &attributes).or_else(|| (!is_ordinary(prefix)).then_some(Refused::Bogus));
    let mut view = RouteView {
        prefix,
        class: SourceClass::Bgp,
        interface,
        internal: Some(profile.internal),
        metric: None,
        preference: SourceClass::Bgp.preference(),
        attributes,
        next_hop: Some(next_hop),
    };
    let refused = refused.or_else(|| (!policy.accepts(&mut view)).then_some(Refused::Policy));
    Imported {
        attributes: view.attributes,
        next_hop: view.next_hop.unwrap_or(next_hop),
        preference: view.preference,
        refused,
    }
}

fn looped(profile: &ImportProfile, attributes: &Attributes) -> Option<Refused> {
    if count_as(&attributes.as_path, profile.local_asn) > usize::from(profile.allow_own_as) {
        return Some(Refused::AsLoop);
    }
    if attributes.originator_id == Some(profile.router_id) {
        return Some(Refused::OwnOriginator);
    }
    // Only towards clients: an unconfigured cluster id has nothing to be compared with.
    profile
        .rr_client
        .is_some_and(|cluster| attributes.cluster_list.contains(&cluster))
        .then_some(Refused::ClusterLoop)
}

fn count_as(path: &AsPath, asn: Asn) -> usize {
    path.segments
        .iter()
        .map(|segment| match segment {
            Segment::Sequence(list) | Segment::Set(list) => {
                list.iter().filter(|other| **other == asn).count()
            }
        })
        .sum()
}

/// Whether a prefix may be in the table: ordinary unicast, 240.0.0.0/4 among it, and the default route (KRT-11).
pub fn is_ordinary(prefix: IpPrefix) -> bool {
    if prefix.is_default() {
        return true;
    }
    match prefix.addr() {
        IpAddr::V4(addr) => {
            let [first, ..] = addr.octets();
            first != 0 && !addr.is_loopback() && !addr.is_multicast() && !addr.is_broadcast()
        }
        IpAddr::V6(addr) => {
            !addr.is_unspecified()
                && !addr.is_loopback()
                && !addr.is_multicast()
                && !addr.is_unicast_link_local()
        }
    }
}
