//! OPEN: the one that we send, and what two of them agree on.
//!
//! Owns: building our OPEN exactly as BIRD does (BGP-16), the checks of the peer's (BGP-14, W7 to W10) and the
//! agreement (BGP-17, W15, W16). Never: bytes, connections, timers. What is not offered is never agreed on.

use bytes::Bytes;

use crate::ids::Asn;
use crate::prefix::{Afi, AfiSet};
use crate::session::gr::{Preserved, StaleTimes, Terms};
use crate::session::{Conn, DownReason, Endpoints, Negotiated, NextOpen, OpenParams};
use crate::wire::attr::AttributeCodes;
use crate::wire::capability::{GrFamily, WireFamily};
use crate::wire::{Capability, Context, Fatal, FaultKind, Notification, Open, PeerType};

/// What is special about the next OPEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct OpenMood {
    /// Families whose forwarding state survived our restart; the R bit is set while there is one (RFC 4724 §4.1).
    pub restarting: AfiSet,
    /// This session takes the place of another one with the same peer: in every family our forwarding state is what it
    /// was, and the F bits say so, that the peer keeps our routes until it has them again.
    pub successor: bool,
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
    let kept = |afi: Afi| GrFamily {
        family: afi.into(),
        forwarding: mood.successor || mood.restarting.contains(afi),
    };
    let caps = &mut open.capabilities;
    caps.extend(families().map(|afi| Capability::Multiprotocol(afi.into())));
    caps.push(Capability::RouteRefresh);
    if let Some(time) = next.restart_time {
        caps.push(Capability::GracefulRestart {
            restarting: !mood.restarting.and(params.families).is_empty(),
            notification: next.notification_gr,
            time: time.min(4095),
            families: families().map(kept).collect(),
        });
    }
    caps.push(Capability::FourOctetAs(params.local_asn));
    if next.add_path {
        caps.push(Capability::AddPath(families().map(|afi| (afi.into(), 3)).collect()));
    }
    caps.push(Capability::EnhancedRefresh);
    if next.restart_time.is_some() {
        // Without a family: we know LLGR_STALE and keep nothing for long (RFC 9494 §3.1).
        let offered = next
            .long_lived
            .map(|time| families().map(|afi| (kept(afi), time.min(StaleTimes::MAX))).collect());
        caps.push(Capability::LongLivedGr(offered.unwrap_or_default()));
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
    /// How long the peer asks us to keep its routes beyond that (RFC 9494).
    pub stale_times: StaleTimes,
    /// What the peer says that it kept (F bits).
    pub preserved: Preserved,
}

impl Negotiated {
    /// How long the peer asks that its routes be kept while it restarts, in seconds; 0 where it asks for nothing.
    pub fn restart_time(&self) -> u16 {
        restart_time(&self.peer_open)
    }

    /// Whether the peer may be sent routes that are long-lived stale (RFC 9494 §4.3).
    pub fn long_lived_aware(&self) -> bool {
        is_long_lived_aware(&self.peer_open)
    }
}

impl Agreed {
    /// What the end of the session has to know of it.
    pub fn terms(&self) -> Terms {
        Terms {
            families: self.public.context.families,
            graceful: self.public.graceful,
            restart_time: self.peer_restart_time,
            stale_times: self.stale_times,
        }
    }
}

/// Why an OPEN is refused: what to send, and what to tell people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub notification: Notification,
    pub reason: DownReason,
}

/// Checks the peer's OPEN against what is configured: what [`Open::check`] and [`Open::check_peer`] find, as a refusal.
pub(crate) fn check(params: &OpenParams, peer: &Open) -> Result<(), Refused> {
    let kind = if params.local_asn == params.peer_asn { PeerType::Ibgp } else { PeerType::Ebgp };
    peer.check().and_then(|()| peer.check_peer(kind, Some(params.peer_asn), Some(params.router_id))).map_err(
        |fatal| {
            let Fatal { mut notification, fault, .. } = fatal;
            if notification.subcode == 2 {
                // The AS that was told, as BIRD sends it.
                let four_octets = peer.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)));
                notification.data = if four_octets {
                    Bytes::copy_from_slice(&peer.asn().0.to_be_bytes())
                } else {
                    Bytes::copy_from_slice(&peer.my_as.to_be_bytes())
                };
            }
            let reason = match fault.kind {
                FaultKind::OpenAs => DownReason::AsMismatch { expected: params.peer_asn, got: peer.asn() },
                FaultKind::OpenIdOwn => DownReason::Malformed { sent: notification.clone(), fault },
                _ => DownReason::Sent(notification.clone()),
            };
            Refused { notification, reason }
        },
    )
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

/// The restart time of the peer's graceful restart capability, in seconds; 0 where there is none.
fn restart_time(open: &Open) -> u16 {
    graceful_of(open).map_or(0, |(_, _, time, _)| time)
}

/// The peer's long-lived graceful restart capability: stale times and F bits. Of several instances the last counts, of
/// several entries of a family too; without graceful restart it means nothing (W15, RFC 9494 §4.1).
fn long_lived_of(open: &Open) -> Option<(StaleTimes, AfiSet)> {
    graceful_of(open)?;
    let list = open.capabilities.iter().rev().find_map(|c| match c {
        Capability::LongLivedGr(list) => Some(list),
        _ => None,
    })?;
    let mut found = (StaleTimes::NONE, AfiSet::EMPTY);
    for (entry, time) in list {
        let Some(afi) = entry.family.unicast() else { continue };
        found.0 = found.0.with(afi, *time);
        let others = found.1.without(AfiSet::only(afi));
        found.1 = if entry.forwarding { others.with(afi) } else { others };
    }
    Some(found)
}

/// Whether the sender of an OPEN knows what LLGR_STALE means, so that it may be sent such routes (RFC 9494 §4.3).
fn is_long_lived_aware(open: &Open) -> bool {
    long_lived_of(open).is_some()
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
    std::iter::once(first).chain(named).filter_map(WireFamily::unicast).collect::<AfiSet>().and(ours)
}

/// Families that an OPEN lists for add-path: (those it wants to receive, those it wants to send). Of several tuples
/// of a family the last counts; a mode other than 1 to 3 voids its tuple (RFC 7911 §4).
fn add_path_of(open: &Open) -> (AfiSet, AfiSet) {
    let mut modes: [(Afi, u8); 2] = [(Afi::Ipv4, 0), (Afi::Ipv6, 0)];
    for capability in &open.capabilities {
        let Capability::AddPath(tuples) = capability else { continue };
        for (family, mode) in tuples {
            for slot in &mut modes {
                if family.unicast() == Some(slot.0) && (1..=3).contains(mode) {
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
    next: &NextOpen,
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
                if entry.family.unicast() == Some(slot.0) {
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
    let (times, long_lived) = long_lived_of(&peer).unwrap_or_default();
    // Both list the family, and both do graceful restart in it.
    let ours_too = if next.long_lived.is_some() { graceful } else { AfiSet::EMPTY };
    let stale_times = ours_too.iter().fold(StaleTimes::NONE, |kept, afi| kept.with(afi, times.get(afi)));
    let preserved = Preserved { graceful: preserved, long_lived: long_lived.and(graceful) };
    let context = Context {
        as4: both(|c| matches!(c, Capability::FourOctetAs(_))),
        families,
        add_path_rx: we_receive.and(peer_sends).and(families),
        add_path_tx: we_send.and(peer_receives).and(families),
        accept_as_set: next.accept_as_set,
        strip: if internal { AttributeCodes::NONE } else { next.strip_external },
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
    Ok(Agreed { public, notification_gr, peer_restart_time, stale_times, preserved })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RouterId;

    const V4: WireFamily = WireFamily { afi: 1, safi: 1 };
    const V6: WireFamily = WireFamily { afi: 2, safi: 1 };

    fn params(families: AfiSet) -> OpenParams {
        OpenParams {
            local_asn: Asn(64512),
            peer_asn: Asn(64512),
            router_id: RouterId("10.0.0.1".parse().unwrap()),
            families,
        }
    }

    fn peer(capabilities: Vec<Capability>) -> Open {
        let router_id = RouterId("10.0.0.2".parse().unwrap());
        Open { my_as: 64512, hold_time: 240, router_id, capabilities }
    }

    fn agree(params: &OpenParams, next: &NextOpen, open: Open) -> Result<Agreed, Refused> {
        let sent = build_open(params, next, OpenMood::default());
        let end = "10.0.0.1:179".parse().unwrap();
        negotiate(params, next, &sent, open, Conn::Active, Endpoints { local: end, remote: end })
    }

    fn agreed(capabilities: Vec<Capability>) -> Agreed {
        agree(&params(AfiSet::BOTH), &NextOpen::default(), peer(capabilities)).unwrap()
    }

    fn code_of(params: &OpenParams, open: &Open) -> Option<(u8, u8, Vec<u8>)> {
        check(params, open)
            .err()
            .map(|r| (r.notification.code, r.notification.subcode, r.notification.data.to_vec()))
    }

    fn gr(time: u16, families: &[(WireFamily, bool)]) -> Capability {
        Capability::GracefulRestart {
            restarting: false,
            notification: false,
            time,
            families: families
                .iter()
                .map(|(family, forwarding)| GrFamily { family: *family, forwarding: *forwarding })
                .collect(),
        }
    }

    #[test]
    fn the_order_of_capabilities_is_birds() {
        let open = build_open(&params(AfiSet::BOTH), &NextOpen::default(), OpenMood::default());
        let codes: Vec<u8> = open.capabilities.iter().map(Capability::code).collect();
        assert_eq!(codes, [1, 1, 2, 64, 65, 69, 70, 71]);
    }

    #[test]
    fn as_numbers_from_65535_on_are_as_trans_in_the_fixed_field() {
        for (asn, field) in [(64512, 64512), (65534, 65534), (65535, 23456), (70000, 23456)] {
            let params = OpenParams { local_asn: Asn(asn), ..params(AfiSet::BOTH) };
            let open = build_open(&params, &NextOpen::default(), OpenMood::default());
            assert_eq!((open.my_as, open.asn()), (field, Asn(asn)));
        }
    }

    #[test]
    fn a_restarting_speaker_sets_r_and_the_f_bit_of_each_family_that_survived() {
        let mood = OpenMood { restarting: AfiSet::only(Afi::Ipv6), ..OpenMood::default() };
        let open = build_open(&params(AfiSet::BOTH), &NextOpen::default(), mood);
        let expected = Capability::GracefulRestart {
            restarting: true,
            notification: false,
            time: 120,
            families: vec![
                GrFamily { family: V4, forwarding: false },
                GrFamily { family: V6, forwarding: true },
            ],
        };
        assert!(open.capabilities.contains(&expected));
        let other = build_open(&params(AfiSet::only(Afi::Ipv4)), &NextOpen::default(), mood);
        assert!(other.capabilities.contains(&gr(120, &[(V4, false)])), "none of its families survived");
    }

    #[test]
    fn the_successor_of_a_session_sets_the_f_bits_and_does_not_claim_a_restart() {
        let mood = OpenMood { successor: true, ..OpenMood::default() };
        let open = build_open(&params(AfiSet::BOTH), &NextOpen::default(), mood);
        assert!(open.capabilities.contains(&gr(120, &[(V4, true), (V6, true)])));
    }

    #[test]
    fn settings_change_what_is_offered() {
        let next = NextOpen {
            restart_time: Some(5000),
            notification_gr: true,
            add_path: false,
            ..NextOpen::default()
        };
        let open = build_open(&params(AfiSet::only(Afi::Ipv4)), &next, OpenMood::default());
        assert!(matches!(
            open.capabilities[2],
            Capability::GracefulRestart { notification: true, time: 4095, .. }
        ));
        assert!(!open.capabilities.iter().any(|c| matches!(c, Capability::AddPath(_))));
        let next = NextOpen { restart_time: None, ..NextOpen::default() };
        let open = build_open(&params(AfiSet::only(Afi::Ipv4)), &next, OpenMood::default());
        let codes: Vec<u8> = open.capabilities.iter().map(Capability::code).collect();
        assert_eq!(codes, [1, 2, 65, 69, 70]);
        let plain = OpenMood { plain: true, ..OpenMood::default() };
        assert!(build_open(&params(AfiSet::BOTH), &next, plain).capabilities.is_empty());
    }

    #[test]
    fn a_hold_time_of_one_or_two_seconds_is_refused_and_others_are_not() {
        for (hold_time, refused) in [(0, false), (1, true), (2, true), (3, false), (65535, false)] {
            let open = Open { hold_time, ..peer(vec![]) };
            let expected = refused.then(|| (2, 6, vec![]));
            assert_eq!(code_of(&params(AfiSet::BOTH), &open), expected, "{hold_time}");
        }
    }

    #[test]
    fn another_as_is_refused_with_the_number_as_wide_as_the_peer_writes_it() {
        let params = params(AfiSet::BOTH);
        let old = Open { my_as: 65001, ..peer(vec![]) };
        assert_eq!(code_of(&params, &old), Some((2, 2, vec![0xfd, 0xe9])));
        let new = Open { my_as: 23456, ..peer(vec![Capability::FourOctetAs(Asn(70000))]) };
        assert_eq!(code_of(&params, &new), Some((2, 2, vec![0, 1, 0x11, 0x70])));
        let reason = check(&params, &new).unwrap_err().reason;
        assert_eq!(reason, DownReason::AsMismatch { expected: Asn(64512), got: Asn(70000) });
    }

    #[test]
    fn as_trans_without_the_capability_names_nobody() {
        let trans = OpenParams { peer_asn: Asn::TRANS, ..params(AfiSet::BOTH) };
        let open = Open { my_as: 23456, ..peer(vec![]) };
        assert_eq!(code_of(&trans, &open), Some((2, 2, vec![0x5b, 0xa0])));
        let wide = OpenParams { peer_asn: Asn(70000), ..params(AfiSet::BOTH) };
        let open = Open { my_as: 23456, ..peer(vec![Capability::FourOctetAs(Asn(70000))]) };
        assert_eq!(code_of(&wide, &open), None);
    }

    #[test]
    fn our_own_identifier_is_refused_inside_the_as_and_allowed_across() {
        let ours = RouterId("10.0.0.1".parse().unwrap());
        let open = Open { router_id: ours, ..peer(vec![]) };
        assert_eq!(code_of(&params(AfiSet::BOTH), &open), Some((2, 3, vec![])));
        let external = OpenParams { peer_asn: Asn(65001), ..params(AfiSet::BOTH) };
        let open = Open { my_as: 65001, ..open };
        assert_eq!(code_of(&external, &open), None);
        let zero = Open { router_id: RouterId("0.0.0.0".parse().unwrap()), ..open };
        assert_eq!(code_of(&external, &zero), Some((2, 3, vec![])));
    }

    #[test]
    fn what_the_peer_does_not_offer_is_not_used() {
        let agreed = agreed(vec![]);
        let public = agreed.public;
        assert!(!public.context.as4 && !public.refresh && !public.enhanced_refresh && !public.peer_graceful);
        assert!(public.context.add_path_rx.is_empty() && public.context.add_path_tx.is_empty());
        assert!(public.graceful.is_empty());
        assert_eq!(public.context.families, AfiSet::only(Afi::Ipv4), "no capability stands for IPv4");
    }

    #[test]
    fn what_we_do_not_offer_is_not_used() {
        let next = NextOpen { restart_time: None, add_path: false, ..NextOpen::default() };
        let open = peer(vec![
            Capability::Multiprotocol(V4),
            gr(120, &[(V4, true)]),
            Capability::AddPath(vec![(V4, 3)]),
            Capability::ExtendedMessage,
        ]);
        let agreed = agree(&params(AfiSet::only(Afi::Ipv4)), &next, open).unwrap();
        assert!(agreed.public.graceful.is_empty() && agreed.public.context.add_path_tx.is_empty());
        assert!(!agreed.public.context.extended_message);
        assert!(agreed.public.peer_graceful, "it still sends End-of-RIB");
    }

    #[test]
    fn families_are_those_of_both_and_a_peer_that_names_none_gets_what_we_carry() {
        let both = agreed(vec![Capability::Multiprotocol(V6)]);
        assert_eq!(both.public.context.families, AfiSet::only(Afi::Ipv6));
        let six = params(AfiSet::only(Afi::Ipv6));
        let silent = agree(&six, &NextOpen::default(), peer(vec![])).unwrap();
        assert_eq!(silent.public.context.families, AfiSet::only(Afi::Ipv6));
        let other = agree(&six, &NextOpen::default(), peer(vec![Capability::Multiprotocol(V4)])).unwrap();
        assert!(other.public.context.families.is_empty());
        let multicast = WireFamily { afi: 1, safi: 2 };
        let strange = agreed(vec![Capability::Multiprotocol(multicast)]);
        assert!(strange.public.context.families.is_empty());
    }

    #[test]
    fn path_ids_are_used_in_the_direction_that_both_want_and_strange_modes_are_ignored() {
        let with = |mode| agreed(vec![Capability::Multiprotocol(V4), Capability::AddPath(vec![(V4, mode)])]);
        let four = AfiSet::only(Afi::Ipv4);
        for (mode, rx, tx) in [
            (0, AfiSet::EMPTY, AfiSet::EMPTY),
            (1, AfiSet::EMPTY, four),
            (2, four, AfiSet::EMPTY),
            (3, four, four),
            (4, AfiSet::EMPTY, AfiSet::EMPTY),
            (255, AfiSet::EMPTY, AfiSet::EMPTY),
        ] {
            let context = with(mode).public.context;
            assert_eq!((context.add_path_rx, context.add_path_tx), (rx, tx), "{mode}");
        }
    }

    #[test]
    fn the_last_graceful_restart_capability_counts_and_the_last_entry_of_a_family() {
        let mp = Capability::Multiprotocol(V4);
        let twice = agreed(vec![mp.clone(), gr(10, &[(V4, true)]), gr(4095, &[])]);
        assert!(twice.public.graceful.is_empty());
        assert_eq!(twice.peer_restart_time, 4095);
        let double = agreed(vec![mp, gr(60, &[(V4, true), (V4, false), (V6, true)])]);
        assert_eq!(double.public.graceful, AfiSet::only(Afi::Ipv4), "IPv6 is not carried");
        assert!(double.preserved.graceful.is_empty());
    }

    #[test]
    fn as_sets_are_kept_only_by_setting_and_borders_strip_what_must_not_cross() {
        let four = params(AfiSet::only(Afi::Ipv4));
        let keep = NextOpen { accept_as_set: true, ..NextOpen::default() };
        assert!(!agreed(vec![]).public.context.accept_as_set);
        let inside = agree(&four, &keep, peer(vec![])).unwrap().public.context;
        assert!(inside.accept_as_set && !inside.strip.contains(40));
        let external = OpenParams { peer_asn: Asn(65001), ..four };
        let open = Open { my_as: 65001, ..peer(vec![]) };
        let border = agree(&external, &keep, open.clone()).unwrap().public.context;
        assert!(border.peer_type == PeerType::Ebgp && border.strip.contains(40));
        let chosen = NextOpen { strip_external: AttributeCodes::of(&[26]), ..keep };
        let border = agree(&external, &chosen, open).unwrap().public.context;
        assert!(border.strip.contains(26) && !border.strip.contains(40));
    }

    #[test]
    fn the_smaller_hold_time_holds() {
        let open = Open { hold_time: 9, ..peer(vec![]) };
        let agreed = agree(&params(AfiSet::BOTH), &NextOpen::default(), open).unwrap();
        assert_eq!(agreed.public.hold_time, 9);
    }

    #[test]
    fn enhanced_refresh_needs_plain_refresh() {
        assert!(!agreed(vec![Capability::EnhancedRefresh]).public.enhanced_refresh);
        let both = agreed(vec![Capability::RouteRefresh, Capability::EnhancedRefresh]);
        assert!(both.public.refresh && both.public.enhanced_refresh);
    }

    fn llgr(families: &[(WireFamily, bool, u32)]) -> Capability {
        let entry = |(family, forwarding, time): &(WireFamily, bool, u32)| {
            (GrFamily { family: *family, forwarding: *forwarding }, *time)
        };
        Capability::LongLivedGr(families.iter().map(entry).collect())
    }

    #[test]
    fn our_families_are_listed_for_long_lived_graceful_restart_only_by_setting() {
        let last =
            |next: &NextOpen, mood| build_open(&params(AfiSet::BOTH), next, mood).capabilities.pop().unwrap();
        assert_eq!(last(&NextOpen::default(), OpenMood::default()), llgr(&[]));
        let next = NextOpen { long_lived: Some(u32::MAX), ..NextOpen::default() };
        let most = 0x00ff_ffff;
        assert_eq!(last(&next, OpenMood::default()), llgr(&[(V4, false, most), (V6, false, most)]));
        let mood = OpenMood { restarting: AfiSet::only(Afi::Ipv6), ..OpenMood::default() };
        assert_eq!(last(&next, mood), llgr(&[(V4, false, most), (V6, true, most)]));
        let without = NextOpen { restart_time: None, ..next };
        assert!(!matches!(last(&without, OpenMood::default()), Capability::LongLivedGr(_)));
    }

    #[test]
    fn long_lived_graceful_restart_holds_where_graceful_restart_does_and_both_list_the_family() {
        let next = NextOpen { long_lived: Some(0), ..NextOpen::default() };
        let times = |next: &NextOpen, mut capabilities: Vec<Capability>| {
            capabilities.extend([V4, V6].map(Capability::Multiprotocol));
            let agreed = agree(&params(AfiSet::BOTH), next, peer(capabilities)).unwrap();
            let get = |afi| agreed.stale_times.get(afi);
            (get(Afi::Ipv4), get(Afi::Ipv6), agreed.preserved.long_lived, agreed.public.long_lived_aware())
        };
        let both = llgr(&[(V4, false, 60), (V6, true, 70)]);
        let full = gr(120, &[(V4, false), (V6, false)]);
        let v6 = AfiSet::only(Afi::Ipv6);
        assert_eq!(times(&next, vec![full.clone(), both.clone()]), (60, 70, v6, true));
        assert_eq!(times(&NextOpen::default(), vec![full.clone(), both.clone()]), (0, 0, v6, true));
        assert_eq!(times(&next, vec![both.clone()]), (0, 0, AfiSet::EMPTY, false), "W15");
        assert_eq!(
            times(&next, vec![gr(120, &[(V4, false)]), both.clone()]),
            (60, 0, AfiSet::EMPTY, true),
            "IPv6 has no graceful restart"
        );
        assert_eq!(times(&next, vec![full.clone()]), (0, 0, AfiSet::EMPTY, false));
        assert_eq!(times(&next, vec![full.clone(), llgr(&[])]), (0, 0, AfiSet::EMPTY, true), "aware only");
        let twice = llgr(&[(V4, true, 60), (V4, false, 5)]);
        assert_eq!(times(&next, vec![full, both, twice]), (5, 0, AfiSet::EMPTY, true), "the last counts");
    }
}
