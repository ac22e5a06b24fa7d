//! OPEN: the one that we send, and what two of them agree on.
//!
//! Owns: building our OPEN exactly as BIRD does (BGP-16), the checks of the peer's (BGP-14, W7 to W10) and the
//! agreement (BGP-17, W15, W16). Never: bytes, connections, timers. What is not offered is never agreed on.

use bytes::Bytes;

use crate::ids::Asn;
use crate::prefix::{Afi, AfiSet};
use crate::session::{Conn, DownReason, Endpoints, Negotiated, NextOpen, OpenParams};
use crate::wire::capability::{GrFamily, WireFamily};
use crate::wire::{Capability, Context, Notification, Open, PeerType};

/// SAFI of unicast.
const UNICAST: u8 = 1;
/// The wire form of a family.
pub(crate) fn wire_family(afi: Afi) -> WireFamily {
    WireFamily { afi: afi.code(), safi: UNICAST }
}

/// The family of a wire form, if we speak it.
pub(crate) fn afi_of(family: WireFamily) -> Option<Afi> {
    if family.safi == UNICAST { Afi::from_code(family.afi) } else { None }
}

/// What is special about the next OPEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct OpenMood {
    /// Families whose forwarding state survived our restart; the R bit is set while there is one (RFC 4724 §4.1).
    pub restarting: AfiSet,
    /// Without capabilities, because the peer refused them (BGP-15).
    pub plain: bool,
}

/// Builds our OPEN. The order of capabilities is BIRD's.
pub(crate) fn build_open(params: &OpenParams, next: &NextOpen, mood: OpenMood) -> Open {
    // BIRD writes AS_TRANS for 65535 too (BGP-16).
    let my_as =
        if params.local_asn.0 < 65535 { params.local_asn.two_octets() } else { Asn::TRANS.two_octets() };
    let mut open =
        Open { my_as, hold_time: next.hold_time, router_id: params.router_id, capabilities: Vec::new() };
    if mood.plain {
        return open;
    }
    let families = || params.families.iter();
    let caps = &mut open.capabilities;
    caps.extend(families().map(|afi| Capability::Multiprotocol(wire_family(afi))));
    caps.push(Capability::RouteRefresh);
    if let Some(time) = next.restart_time {
        caps.push(Capability::GracefulRestart {
            restarting: !mood.restarting.and(params.families).is_empty(),
            notification: next.notification_gr,
            time: time.min(4095),
            families: families()
                .map(|afi| GrFamily { family: wire_family(afi), forwarding: mood.restarting.contains(afi) })
                .collect(),
        });
    }
    caps.push(Capability::FourOctetAs(params.local_asn));
    if next.add_path {
        caps.push(Capability::AddPath(families().map(|afi| (wire_family(afi), 3)).collect()));
    }
    caps.push(Capability::EnhancedRefresh);
    if next.restart_time.is_some() {
        // Aware only: we know LLGR_STALE and keep nothing for long (RFC 9494 §4.2).
        caps.push(Capability::LongLivedGr(Vec::new()));
    }
    open
}

/// What two OPENs agreed on: what others are told, and what only the session needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Agreed {
    /// What others are told.
    pub public: Negotiated,
    /// Both set the N bit (RFC 8538): a NOTIFICATION other than Hard Reset is graceful.
    pub notification_gr: bool,
    /// How long the peer asks us to keep its routes, in seconds.
    pub peer_restart_time: u16,
    /// Families for which the peer says that it kept its forwarding state (F bit).
    pub preserved: AfiSet,
}

/// Why an OPEN is refused: what to send, and what to tell people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub notification: Notification,
    pub reason: DownReason,
}

impl Refused {
    fn new(subcode: u8, data: Bytes) -> Self {
        let notification = Notification { code: 2, subcode, data };
        Refused { reason: DownReason::Sent(notification.clone()), notification }
    }
}

/// Checks the peer's OPEN against what is configured (RFC 4271 §6.2, RFC 6286 §2.1, RFC 7607).
pub(crate) fn check(params: &OpenParams, peer: &Open) -> Result<(), Refused> {
    if matches!(peer.hold_time, 1 | 2) {
        return Err(Refused::new(6, Bytes::new()));
    }
    let four_octets = peer.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
    let got = peer.asn();
    // AS_TRANS stands for an AS that was not told (W8).
    let untold = !four_octets && got == Asn::TRANS;
    if got != params.peer_asn || got.0 == 0 || untold {
        let data = if four_octets {
            Bytes::copy_from_slice(&got.0.to_be_bytes())
        } else {
            Bytes::copy_from_slice(&peer.my_as.to_be_bytes())
        };
        let mut refused = Refused::new(2, data);
        refused.reason = DownReason::AsMismatch { expected: params.peer_asn, got };
        return Err(refused);
    }
    let internal = params.local_asn == params.peer_asn;
    if peer.router_id.0.is_unspecified() || (internal && peer.router_id == params.router_id) {
        return Err(Refused::new(3, Bytes::new()));
    }
    Ok(())
}

/// The peer's graceful restart capability. Of several instances only the last counts (RFC 4724 §3).
fn graceful_of(open: &Open) -> Option<(bool, bool, u16, &[GrFamily])> {
    open.capabilities.iter().rev().find_map(|c| match c {
        Capability::GracefulRestart { restarting, notification, time, families } => {
            Some((*restarting, *notification, *time, families.as_slice()))
        }
        _ => None,
    })
}

/// Families that an OPEN names; none at all stands for IPv4 (W16), and where we do not carry that, for what we carry
/// (BGP-17: BIRD does not ask for the capability).
fn families_of(open: &Open, ours: AfiSet) -> AfiSet {
    let mut named = open.capabilities.iter().filter_map(|c| match c {
        Capability::Multiprotocol(family) => Some(*family),
        _ => None,
    });
    let Some(first) = named.next() else {
        let ipv4 = AfiSet::only(Afi::Ipv4).and(ours);
        return if ipv4.is_empty() { ours } else { ipv4 };
    };
    std::iter::once(first).chain(named).filter_map(afi_of).collect::<AfiSet>().and(ours)
}

/// Families that an OPEN lists for add-path: (those it wants to receive, those it wants to send). Of several tuples
/// of a family the last counts; a mode other than 1 to 3 voids its tuple (RFC 7911 §4).
fn add_path_of(open: &Open) -> (AfiSet, AfiSet) {
    let mut modes: [(Afi, u8); 2] = [(Afi::Ipv4, 0), (Afi::Ipv6, 0)];
    for capability in &open.capabilities {
        let Capability::AddPath(tuples) = capability else { continue };
        for (family, mode) in tuples {
            for slot in &mut modes {
                if afi_of(*family) == Some(slot.0) && (1..=3).contains(mode) {
                    slot.1 = *mode;
                }
            }
        }
    }
    let with = |bit: u8| modes.iter().filter(|(_, mode)| mode & bit != 0).map(|(afi, _)| *afi).collect();
    (with(1), with(2))
}

/// Agrees on a session, or refuses the peer's OPEN.
pub(crate) fn negotiate(
    params: &OpenParams,
    sent: &Open,
    peer: Open,
    conn: Conn,
    endpoints: Endpoints,
) -> Result<Agreed, Refused> {
    check(params, &peer)?;
    let both = |wanted: fn(&Capability) -> bool| {
        sent.capabilities.iter().any(wanted) && peer.capabilities.iter().any(wanted)
    };
    let families = families_of(&peer, families_of(sent, params.families));
    let (we_receive, we_send) = add_path_of(sent);
    let (peer_receives, peer_sends) = add_path_of(&peer);
    let internal = params.local_asn == params.peer_asn;
    let ours = graceful_of(sent);
    let theirs = graceful_of(&peer);
    let listed = |list: &[GrFamily], forwarding: bool| {
        // The last of several entries of a family counts (W15).
        let mut set = [(Afi::Ipv4, false), (Afi::Ipv6, false)];
        for entry in list {
            for slot in &mut set {
                if afi_of(entry.family) == Some(slot.0) {
                    slot.1 = entry.forwarding || !forwarding;
                }
            }
        }
        set.iter().filter(|(_, there)| *there).map(|(afi, _)| *afi).collect::<AfiSet>()
    };
    let (graceful, preserved) = match (ours, theirs) {
        (Some(_), Some((_, _, _, list))) => {
            (listed(list, false).and(families), listed(list, true).and(families))
        }
        _ => (AfiSet::EMPTY, AfiSet::EMPTY),
    };
    let context = Context {
        as4: both(|c| matches!(c, Capability::FourOctetAs(_))),
        families,
        add_path_rx: we_receive.and(peer_sends).and(families),
        add_path_tx: we_send.and(peer_receives).and(families),
        ..Context::new(if internal { PeerType::Ibgp } else { PeerType::Ebgp })
    };
    let peer_restart_time = theirs.map_or(0, |gr| gr.2);
    let notification_gr = ours.is_some_and(|gr| gr.1) && theirs.is_some_and(|gr| gr.1);
    let public = Negotiated {
        conn,
        endpoints,
        context,
        peer_asn: peer.asn(),
        peer_id: peer.router_id,
        hold_time: sent.hold_time.min(peer.hold_time),
        graceful,
        peer_restarting: theirs.is_some_and(|gr| gr.0),
        peer_graceful: theirs.is_some(),
        refresh: both(|c| matches!(c, Capability::RouteRefresh)),
        enhanced_refresh: both(|c| matches!(c, Capability::RouteRefresh))
            && both(|c| matches!(c, Capability::EnhancedRefresh)),
        peer_open: peer,
    };
    Ok(Agreed { public, notification_gr, peer_restart_time, preserved })
}
