//! From what a peer sent to a path of the table.
//!
//! Owns: the loop checks (BGP-26, RFC 4456 §8), what is ignored from external peers (BGP-27), which prefixes are
//! taken at all (KRT-11), which next hops (W38), and the run of the import policy. Never: stores; the outcome goes to
//! [`Rib::announce`](super::Rib::announce).

use std::borrow::Cow;
use std::net::IpAddr;

use crate::ids::{Asn, ClusterId, RouterId};
use crate::prefix::IpPrefix;
use crate::rib::decision::DEFAULT_LOCAL_PREF;
use crate::rib::nexthop::is_host;
use crate::rib::path::{Forward, Refused, SourceClass};
use crate::rib::policy::{Policy, RouteView};
use crate::wire::{Attributes, NextHop};

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

/// What a peer sent, before policy: all of it that does not depend on the prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// The attributes as they may count on this session.
    pub attributes: Attributes,
    /// The session is within one AS.
    pub internal: bool,
    /// Why it may not be used whatever policy says.
    pub refused: Option<Refused>,
}

/// A route after import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported<'a> {
    /// Its attributes; borrowed where policy left them as they were.
    pub attributes: Cow<'a, Attributes>,
    /// Its next hop.
    pub next_hop: NextHop,
    /// Its preference.
    pub preference: u16,
    /// Why it may not be used.
    pub refused: Option<Refused>,
}

impl Admitted {
    /// Takes the attributes of a received route.
    pub fn new(profile: &ImportProfile, mut attributes: Attributes) -> Self {
        if profile.internal {
            attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        } else {
            attributes.local_pref = Some(DEFAULT_LOCAL_PREF);
            attributes.originator_id = None;
            attributes.cluster_list.clear();
        }
        let refused = looped(profile, &attributes);
        Admitted { attributes, internal: profile.internal, refused }
    }

    /// Runs the import policy on the route to one prefix. `interface` names the interface towards the resolved next hop.
    pub fn import(
        &self,
        prefix: IpPrefix,
        next_hop: NextHop,
        interface: &str,
        policy: &impl Policy,
    ) -> Imported<'_> {
        let mut view = RouteView {
            prefix,
            class: SourceClass::Bgp,
            interface,
            internal: Some(self.internal),
            metric: None,
            preference: SourceClass::Bgp.preference(),
            attributes: Cow::Borrowed(&self.attributes),
            next_hop: Some(next_hop),
            device: None,
        };
        let refused = self.refused.or_else(|| (!is_ordinary(prefix)).then_some(Refused::Bogus));
        let refused = refused.or_else(|| (!policy.accepts(&mut view)).then_some(Refused::Policy));
        let next_hop = view.next_hop.unwrap_or(next_hop);
        let refused = refused.or_else(|| (!is_host(next_hop)).then_some(Refused::NextHop));
        Imported {
            // The view's lifetime is the shorter one of attributes and interface.
            attributes: match view.attributes {
                Cow::Borrowed(_) => Cow::Borrowed(&self.attributes),
                Cow::Owned(attributes) => Cow::Owned(attributes),
            },
            next_hop,
            preference: view.preference,
            refused,
        }
    }
}

fn looped(profile: &ImportProfile, attributes: &Attributes) -> Option<Refused> {
    let own = attributes.as_path.asns().filter(|asn| *asn == profile.local_asn).count();
    if own > usize::from(profile.allow_own_as) {
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

/// The rules of one session for what comes in.
pub struct ImportRules<'a, P> {
    /// What of the session decides.
    pub profile: ImportProfile,
    /// The import policy.
    pub policy: &'a P,
    /// Name of the interface that a route leaves through, as policy sees it; empty if there is none.
    pub interface: &'a dyn Fn(&Forward) -> &'a str,
}

/// Whether a prefix may be in the table (KRT-11), whoever it comes from: its network is ordinary unicast,
/// 240.0.0.0/4 and 169.254.0.0/16 among it, or it is the default route or a half of it (0.0.0.0/1 covers
/// 0.0.0.0/8 but is not in it).
pub fn is_ordinary(prefix: IpPrefix) -> bool {
    match prefix.addr() {
        IpAddr::V4(addr) => match addr.octets() {
            [0, ..] => prefix.len() < 8,
            _ => !(addr.is_loopback() || addr.is_multicast() || addr.is_broadcast()),
        },
        IpAddr::V6(addr) => !(addr.is_loopback() || addr.is_multicast() || addr.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_its_halves_and_ordinary_unicast_are_taken_and_nothing_else() {
        let is = |text: &str| is_ordinary(text.parse().unwrap());
        for good in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "10.0.0.0/8",
            "126.0.0.0/7",
            "169.254.1.1/32",
            "240.0.0.0/4",
            "255.255.255.0/24",
            "::/0",
            "::/1",
            "8000::/1",
            "2001:db8::/32",
            "fc00::/7",
            "fec0::/10",
            "::ffff:0:0/96",
        ] {
            assert!(is(good), "{good}");
        }
        for bad in [
            "0.0.0.0/8",
            "0.0.0.0/32",
            "0.1.0.0/16",
            "127.0.0.0/8",
            "127.0.0.1/32",
            "224.0.0.0/4",
            "224.0.0.0/3",
            "239.1.2.3/32",
            "255.255.255.255/32",
            "::1/128",
            "fe80::/9",
            "fe80::/64",
            "ff00::/8",
            "ff02::1/128",
        ] {
            assert!(!is(bad), "{bad}");
        }
    }
}
