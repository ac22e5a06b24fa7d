//! An UPDATE from octets to what is to be done about it, in two stages (RFC 4271 §4.3, RFC 7606).
//!
//! Owns: [`read`], which takes a message apart and never stops at a bad attribute, and [`UpdateIn::judge`], which
//! applies what the faults lead to. Never: knows peers, tables or policy; keeps state between messages.
//!
//! Inputs: a whole message and the negotiated [`Context`]. Outputs: an [`UpdateIn`] with all faults as data; then an
//! [`Update`] that can be applied as it is, or the NOTIFICATION that ends the connection.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::ids::{Asn, ClusterId, RouterId};
use crate::prefix::{Afi, Family, V4, V6};
use crate::wire::attr::as_path::{self, PathIn};
use crate::wire::attr::rules::{
    self, EXTENDED_LENGTH, OPTIONAL, PARTIAL, Rule, TRANSITIVE, Verdict, code, subcode,
};
use crate::wire::attr::{Aggregator, AttributeCodes, Attributes, NextHop, Origin, UnknownAttribute};
use crate::wire::capability::{WireFamily, wire_family};
use crate::wire::fault::{Action, Fatal, Fault, FaultKind, clamp};
use crate::wire::frame::HEADER_LEN;
use crate::wire::input::{In, Parsed, Parser, be_u8, be_u16, length_data, rest};
use crate::wire::update::{Nlri, NlriList, Reach, Update};
use crate::wire::{Context, Notification, PeerType, nlri};

/// Prefixes of one field, in the order of the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Section {
    /// From the Withdrawn Routes field or MP_UNREACH_NLRI.
    Withdrawn(NlriList),
    /// From the NLRI field or MP_REACH_NLRI; without a next hop if NEXT_HOP is missing or malformed.
    Reach(Option<NextHop>, NlriList),
}

/// Part of a message, as offsets from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Span {
    from: usize,
    to: usize,
}

/// An UPDATE as it came: everything that could be read, and everything that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UpdateIn {
    /// Prefixes in wire order.
    pub sections: SmallVec<[Section; 2]>,
    /// Attributes that could be read. AS4_PATH and AS4_AGGREGATOR are merged in.
    pub attributes: Attributes,
    /// Codes of the attributes that are in `attributes`, and NEXT_HOP.
    pub present: AttributeCodes,
    /// NEXT_HOP.
    pub next_hop: Option<Ipv4Addr>,
    /// Attributes that were taken away: those of [`Context::strip`], and unknown non-transitive ones.
    pub dropped: Vec<UnknownAttribute>,
    /// Families whose prefixes were not looked at.
    pub not_negotiated: SmallVec<[WireFamily; 1]>,
    /// The message is nothing but this family's End-of-RIB.
    pub end_of_rib: Option<Afi>,
    /// All faults, in the order found.
    pub faults: Vec<Fault>,
    /// The message names reachable prefixes, decoded or not.
    reachable: bool,
    /// Codes met, well-formed or not.
    seen: AttributeCodes,
    /// Where the attributes begin.
    attributes_at: usize,
    /// The first fault that withdraws or resets, with the attribute that has it.
    worst: Option<(Fault, Span)>,
}

/// An UPDATE that goes on to the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What is to be applied.
    pub update: Update,
    /// All faults; none leads to a reset.
    pub faults: Vec<Fault>,
    /// Families whose prefixes were not looked at (W28).
    pub not_negotiated: SmallVec<[WireFamily; 1]>,
}

impl UpdateIn {
    /// The strongest action that a fault by itself leads to.
    fn strongest(&self) -> Option<Action> {
        self.faults.iter().map(|fault| fault.action).max()
    }

    fn fault(&mut self, offset: usize, attribute: Option<u8>, kind: FaultKind, verdict: Verdict, span: Span) {
        let fault = Fault {
            offset: clamp(offset),
            attribute,
            kind,
            action: verdict.action,
            subcode: verdict.subcode,
        };
        if verdict.action > self.worst.map_or(Action::Discard, |(worst, _)| worst.action) {
            self.worst = Some((fault, span));
        }
        self.faults.push(fault);
    }
}

/// Where an attribute stands, for its faults.
#[derive(Clone, Copy)]
struct Place {
    code: u8,
    span: Span,
    value_at: usize,
}

/// Takes an UPDATE apart. `frame` is the whole message, as framing gave it.
pub fn read(frame: &[u8], ctx: &Context) -> UpdateIn {
    let mut update = UpdateIn::default();
    let body = frame.get(HEADER_LEN..).unwrap_or_default();
    let Ok((_, (withdrawn, attributes, announced))) = fields(body) else {
        let verdict = Verdict { action: Action::Reset, subcode: subcode::MALFORMED_ATTRIBUTE_LIST };
        update.fault(HEADER_LEN, None, FaultKind::UpdateLengths, verdict, Span::default());
        return update;
    };
    let withdrawn_at = HEADER_LEN + 2;
    let attributes_at = withdrawn_at + withdrawn.len() + 2;
    let announced_at = attributes_at + attributes.len();
    update.attributes_at = attributes_at;
    let network_field = Verdict { action: Action::Reset, subcode: subcode::INVALID_NETWORK_FIELD };

    match nlri::decode::<V4>(withdrawn, ctx.add_path_rx.contains(Afi::Ipv4)) {
        Ok(list) if list.is_empty() => {}
        Ok(list) => update.sections.push(Section::Withdrawn(NlriList::V4(list))),
        Err(bad) => {
            let at = withdrawn_at + bad.0;
            update.fault(at, None, FaultKind::WithdrawnPrefix, network_field, Span::default());
            return update;
        }
    }
    let mut reader = Reader { ctx, update, as4_path: None, as4_aggregator: None };
    reader.attributes(attributes, attributes_at);
    reader.merge_as4();
    let mut update = reader.update;
    if update.strongest() == Some(Action::Reset) {
        return update;
    }
    match nlri::decode::<V4>(announced, ctx.add_path_rx.contains(Afi::Ipv4)) {
        Ok(list) if list.is_empty() => {}
        Ok(list) => {
            update.reachable = true;
            update.sections.push(Section::Reach(update.next_hop.map(NextHop::V4), NlriList::V4(list)));
        }
        Err(bad) => {
            update.fault(announced_at + bad.0, None, FaultKind::NlriPrefix, network_field, Span::default());
        }
    }
    if body.len() == 4 {
        update.end_of_rib = Some(Afi::Ipv4);
    } else if !(withdrawn.is_empty() && announced.is_empty() && update.faults.is_empty()) {
        update.end_of_rib = None;
    }
    update
}

/// Withdrawn routes, attributes, NLRI.
fn fields(body: In<'_>) -> Parsed<'_, (In<'_>, In<'_>, In<'_>)> {
    (length_data(be_u16), length_data(be_u16), rest).parse(body)
}

/// Flags and code, then the value.
fn attribute(input: In<'_>) -> Parsed<'_, (u8, u8, usize)> {
    let (input, flags) = be_u8(input)?;
    let (input, code) = be_u8(input)?;
    let (input, len) = if flags & EXTENDED_LENGTH != 0 {
        be_u16.map(usize::from).parse(input)?
    } else {
        be_u8.map(usize::from).parse(input)?
    };
    Ok((input, (flags, code, len)))
}

/// Family, next hop and prefixes of MP_REACH_NLRI (RFC 4760 §3).
fn mp_reach(value: In<'_>) -> Parsed<'_, (WireFamily, In<'_>, In<'_>)> {
    let (input, family) = wire_family(value)?;
    let (input, next_hop) = length_data(be_u8).parse(input)?;
    // Reserved; ignored on receipt.
    let (input, _) = be_u8(input)?;
    Ok((&[], (family, next_hop, input)))
}

/// The attribute loop: the part that has to go on whatever it meets.
struct Reader<'c> {
    ctx: &'c Context,
    update: UpdateIn,
    as4_path: Option<(Place, PathIn)>,
    as4_aggregator: Option<(Place, Aggregator)>,
}

impl Reader<'_> {
    fn attributes(&mut self, field: &[u8], field_at: usize) {
        let mut rest = field;
        let mut alone = true;
        while !rest.is_empty() {
            let at = field_at + field.len() - rest.len();
            let end = field_at + field.len();
            let Ok((after, (flags, code, len))) = attribute(rest) else {
                let span = Span { from: at, to: end };
                self.update.fault(at, None, FaultKind::AttributeUnderrun, rules::LIST, span);
                return;
            };
            let Some((value, after)) = after.split_at_checked(len) else {
                // Prefixes that end beyond the attributes cannot be found, so nothing can be withdrawn for them
                // (RFC 7606 §3 (j)).
                let hidden = matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI);
                let action = if hidden { Action::Reset } else { rules::LIST.action };
                let verdict = Verdict { action, ..rules::LIST };
                let span = Span { from: at, to: end };
                self.update.fault(at, Some(code), FaultKind::AttributeOverrun, verdict, span);
                return;
            };
            rest = after;
            let span = Span { from: at, to: end - rest.len() };
            let place = Place { code, span, value_at: span.to - value.len() };
            self.one(place, flags, value);
            if self.update.worst.is_some_and(|(worst, _)| worst.action == Action::Reset) {
                return;
            }
            alone &= rest.is_empty() && at == field_at;
        }
        if !alone {
            self.update.end_of_rib = None;
        }
    }

    fn fault(&mut self, place: Place, offset: usize, kind: FaultKind, verdict: Verdict) {
        self.update.fault(offset, Some(place.code), kind, verdict, place.span);
    }

    /// One attribute whose octets are all there.
    fn one(&mut self, place: Place, flags: u8, value: &[u8]) {
        let code = place.code;
        let at = place.span.from;
        let rule = rules::rule(code);
        if self.update.seen.contains(code) {
            let mp = matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI);
            let kind = if mp { FaultKind::DuplicateMp } else { FaultKind::Duplicate };
            self.fault(place, at, kind, rule.map_or(rules::UNKNOWN_DUPLICATE, |rule| rule.on_duplicate));
            return;
        }
        self.update.seen.insert(code);
        let Some(rule) = rule else {
            self.unknown(place, flags, value);
            return;
        };
        let needed = rule.on_missing.is_some() || matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI);
        if self.ctx.strip.contains(code) && !needed {
            self.drop(code, flags, value);
            return;
        }
        if flags & (OPTIONAL | TRANSITIVE) != rule.flags {
            self.fault(place, at, FaultKind::Flags, rule.on_flags);
            return;
        }
        if self.ctx.peer_type == PeerType::Ebgp
            && let Some(verdict) = rule.on_external
        {
            self.fault(place, at, FaultKind::FromExternal, verdict);
            return;
        }
        if matches!(code, code::AS4_PATH | code::AS4_AGGREGATOR) && self.ctx.as4 {
            self.fault(place, at, FaultKind::As4FromNewSpeaker, rule.on_value);
            return;
        }
        if !rule.length.allows(value.len(), self.ctx.as4) {
            self.fault(place, at, FaultKind::Length, rule.on_length);
            return;
        }
        self.known(place, rule, flags, value);
    }

    fn drop(&mut self, code: u8, flags: u8, value: &[u8]) {
        self.update.dropped.push(opaque(code, flags, value));
    }

    /// An attribute that is carried or dropped, but not decoded (W48, W49).
    fn unknown(&mut self, place: Place, flags: u8, value: &[u8]) {
        let code = place.code;
        if self.ctx.strip.contains(code) {
            self.drop(code, flags, value);
        } else if flags & OPTIONAL == 0 {
            let at = place.span.from;
            if rules::OPAQUE.contains(&code) {
                self.fault(place, at, FaultKind::Flags, rules::OPAQUE_FLAGS);
            } else {
                self.fault(place, at, FaultKind::UnknownWellKnown, rules::UNKNOWN_WELL_KNOWN);
            }
        } else if flags & TRANSITIVE == 0 {
            self.drop(code, flags, value);
        } else {
            self.keep(code, flags, value);
        }
    }

    fn keep(&mut self, code: u8, flags: u8, value: &[u8]) {
        let unknown = &mut self.update.attributes.unknown;
        let at = unknown.partition_point(|other| other.code < code);
        unknown.insert(at, opaque(code, flags, value));
        self.update.present.insert(code);
    }

    /// An attribute with a row in the table, whose flags and length are right.
    fn known(&mut self, place: Place, rule: &Rule, flags: u8, value: &[u8]) {
        let code = place.code;
        let number = || be_number(value);
        let attributes = &mut self.update.attributes;
        match code {
            code::ORIGIN => match value {
                [0] => attributes.origin = Origin::Igp,
                [1] => attributes.origin = Origin::Egp,
                [2] => attributes.origin = Origin::Incomplete,
                _ => return self.fault(place, place.value_at, FaultKind::OriginValue, rule.on_value),
            },
            code::AS_PATH => return self.as_path(place, rule, value),
            code::AS4_PATH => self.as4_path = Some((place, as_path::read(value, true))),
            code::NEXT_HOP => self.update.next_hop = Some(Ipv4Addr::from_bits(number())),
            code::MULTI_EXIT_DISC => attributes.med = Some(number()),
            code::LOCAL_PREF => attributes.local_pref = Some(number()),
            code::ATOMIC_AGGREGATE => attributes.atomic_aggregate = true,
            code::AGGREGATOR | code::AS4_AGGREGATOR => {
                let aggregator = aggregator(value);
                if aggregator.asn.0 == 0 {
                    return self.fault(place, place.value_at, FaultKind::AggregatorAsZero, rule.on_value);
                }
                if code == code::AGGREGATOR {
                    attributes.aggregator = Some(aggregator);
                } else {
                    self.as4_aggregator = Some((place, aggregator));
                }
            }
            code::COMMUNITIES => attributes.communities = words(value).collect(),
            code::ORIGINATOR_ID => {
                attributes.originator_id = Some(RouterId(Ipv4Addr::from_bits(number())));
            }
            code::CLUSTER_LIST => {
                attributes.cluster_list = words(value).map(|id| ClusterId(Ipv4Addr::from_bits(id))).collect();
            }
            code::EXTENDED_COMMUNITIES => attributes.ext_communities = value.as_chunks::<8>().0.into(),
            code::LARGE_COMMUNITY => {
                let all = &mut attributes.large_communities;
                *all = value.as_chunks::<12>().0.iter().map(large_community).collect();
                // Redundant values are removed in silence (RFC 8092 §3).
                if all.len() > 1 {
                    let mut seen = BTreeSet::new();
                    all.retain(|one| seen.insert(*one));
                }
            }
            code::ONLY_TO_CUSTOMER => attributes.otc = Some(Asn(number())),
            code::MP_REACH_NLRI => return self.mp_reach(place, rule, value),
            code::MP_UNREACH_NLRI => return self.mp_unreach(place, rule, value),
            _ => return self.keep(code, flags, value),
        }
        self.update.present.insert(code);
    }

    fn as_path(&mut self, place: Place, rule: &Rule, value: &[u8]) {
        let found = as_path::read(value, self.ctx.as4);
        if let Some((offset, kind)) = found.broken {
            return self.fault(place, place.value_at + offset, kind, rule.on_value);
        }
        for (offset, kind) in [
            (found.zero, FaultKind::AsZero),
            (found.confederation, FaultKind::Confederation),
            (found.set.filter(|_| !self.ctx.accept_as_set), FaultKind::AsSet),
        ] {
            if let Some(offset) = offset {
                self.fault(place, place.value_at + offset, kind, rule.on_value);
            }
        }
        self.update.attributes.as_path = found.path;
        self.update.present.insert(code::AS_PATH);
    }

    /// AS_PATH and AGGREGATOR of an old speaker, with what new ones sent along (RFC 6793 §4.2.3, §6).
    fn merge_as4(&mut self) {
        let discard = Verdict { action: Action::Discard, subcode: subcode::OPTIONAL_ATTRIBUTE };
        let aggregator = self.update.attributes.aggregator;
        let mut path_counts = true;
        if let Some((place, as4)) = self.as4_aggregator.take() {
            if aggregator.is_some_and(|aggregator| aggregator.asn == Asn::TRANS) {
                self.update.attributes.aggregator = Some(as4);
            } else {
                self.fault(place, place.span.from, FaultKind::As4Aggregator, discard);
                path_counts = aggregator.is_none();
            }
        }
        let Some((place, found)) = self.as4_path.take() else { return };
        let at = place.value_at;
        if let Some((offset, kind)) = found.broken {
            return self.fault(place, at + offset, kind, discard);
        }
        // RFC 9774 names AS4_PATH as well.
        if let Some(offset) = found.set.or(found.confederation_set).filter(|_| !self.ctx.accept_as_set) {
            let withdraw = Verdict { action: Action::TreatAsWithdraw, subcode: subcode::MALFORMED_AS_PATH };
            self.fault(place, at + offset, FaultKind::AsSet, withdraw);
        }
        if let Some(offset) = found.zero {
            return self.fault(place, at + offset, FaultKind::AsZero, discard);
        }
        if let Some(offset) = found.confederation {
            self.fault(place, at + offset, FaultKind::As4Confederation, discard);
        }
        if !path_counts {
            return self.fault(place, place.span.from, FaultKind::As4Aggregator, discard);
        }
        match self.update.attributes.as_path.reconstruct(&found.path) {
            Some(path) => self.update.attributes.as_path = path,
            None => self.fault(place, place.span.from, FaultKind::As4PathLonger, discard),
        }
    }

    /// The family, if its prefixes are to be decoded; else it is noted as not negotiated.
    fn family(&mut self, family: WireFamily) -> Option<Afi> {
        let afi = family.unicast().filter(|afi| self.ctx.families.contains(*afi));
        if afi.is_none() {
            self.update.not_negotiated.push(family);
        }
        afi
    }

    fn prefixes(&mut self, afi: Afi, field: &[u8]) -> Result<NlriList, nlri::BadPrefix> {
        let add_path = self.ctx.add_path_rx.contains(afi);
        Ok(match afi {
            Afi::Ipv4 => NlriList::V4(nlri::decode(field, add_path)?),
            Afi::Ipv6 => NlriList::V6(nlri::decode(field, add_path)?),
        })
    }

    fn mp_reach(&mut self, place: Place, rule: &Rule, value: &[u8]) {
        let Ok((_, (family, next_hop, field))) = mp_reach(value) else {
            let kind = if value.len() < 5 { FaultKind::MpShort } else { FaultKind::MpNextHop };
            return self.fault(place, place.span.from, kind, rule.on_length);
        };
        self.update.reachable |= !field.is_empty();
        let Some(afi) = self.family(family) else { return };
        let next_hop = match (afi, next_hop.len()) {
            (Afi::Ipv4, 4) => NextHop::V4(Ipv4Addr::from_bits(be_number(next_hop))),
            (Afi::Ipv4, 16 | 32) if self.ctx.extended_next_hop => next_hop_v6(next_hop),
            (Afi::Ipv6, 16 | 32) => next_hop_v6(next_hop),
            _ => return self.fault(place, place.value_at + 3, FaultKind::MpNextHop, rule.on_length),
        };
        match self.prefixes(afi, field) {
            Ok(list) => {
                self.update.sections.push(Section::Reach(Some(next_hop), list));
                self.update.present.insert(code::MP_REACH_NLRI);
            }
            Err(bad) => {
                let at = place.span.to - field.len() + bad.0;
                self.fault(place, at, FaultKind::MpPrefix, rule.on_value);
            }
        }
    }

    fn mp_unreach(&mut self, place: Place, rule: &Rule, value: &[u8]) {
        let Ok((field, family)) = wire_family(value) else {
            return self.fault(place, place.span.from, FaultKind::MpShort, rule.on_length);
        };
        let Some(afi) = self.family(family) else { return };
        match self.prefixes(afi, field) {
            Ok(list) if list.is_empty() => self.update.end_of_rib = Some(afi),
            Ok(list) => {
                self.update.sections.push(Section::Withdrawn(list));
                self.update.present.insert(code::MP_UNREACH_NLRI);
            }
            Err(bad) => {
                let at = place.value_at + 3 + bad.0;
                self.fault(place, at, FaultKind::MpPrefix, rule.on_value);
            }
        }
    }
}

/// The unused bits of the flags are ignored, and zero when sent on (RFC 4271 §4.3).
fn opaque(code: u8, flags: u8, value: &[u8]) -> UnknownAttribute {
    let flags = flags & (OPTIONAL | TRANSITIVE | PARTIAL);
    UnknownAttribute { code, flags, value: Bytes::copy_from_slice(value) }
}

/// Four octets; the caller has checked the length.
fn be_number(octets: &[u8]) -> u32 {
    octets.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets))
}

fn words(octets: &[u8]) -> impl Iterator<Item = u32> {
    octets.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
}

fn large_community(octets: &[u8; 12]) -> [u32; 3] {
    let mut parts = words(octets);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Six octets with a two-octet AS number, or eight.
fn aggregator(value: &[u8]) -> Aggregator {
    let (asn, address) = value.split_at(value.len().saturating_sub(4));
    let asn = asn.iter().fold(0, |asn, octet| asn << 8 | u32::from(*octet));
    Aggregator { asn: Asn(asn), router_id: Ipv4Addr::from_bits(be_number(address)) }
}

/// Sixteen octets, or thirty-two with a link-local address behind (RFC 2545 §3).
fn next_hop_v6(octets: &[u8]) -> NextHop {
    let address = |octets: Option<&[u8; 16]>| octets.map(|octets| Ipv6Addr::from(*octets));
    NextHop::V6 {
        global: address(octets.first_chunk()).unwrap_or(Ipv6Addr::UNSPECIFIED),
        link_local: address(octets.get(16..).and_then(<[u8]>::first_chunk)),
    }
}

impl UpdateIn {
    /// Applies what the faults lead to. `frame` is the message that was read.
    pub fn judge(mut self, frame: &[u8], ctx: &Context) -> Result<Judged, Fatal> {
        self.demand_mandatory();
        if let Some((fault, span)) = self.worst
            // An error with nothing reachable: what should be withdrawn instead was perhaps never seen (RFC 7606 §5.2).
            && (fault.action == Action::Reset || !self.reachable)
        {
            let notification =
                Notification { code: 3, subcode: fault.subcode, data: notification_data(frame, fault, span) };
            return Err(Fatal { notification, fault, faults: self.faults });
        }
        let withdraw = self.strongest() == Some(Action::TreatAsWithdraw);
        let end_of_rib = self.end_of_rib.filter(|afi| ctx.families.contains(*afi));
        let mut not_negotiated = self.not_negotiated;
        let mut sections = self.sections;
        sections.retain(|section| {
            let (Section::Withdrawn(list) | Section::Reach(_, list)) = section;
            let wanted = ctx.families.contains(list.afi());
            let family = WireFamily::from(list.afi());
            if !wanted && !not_negotiated.contains(&family) {
                not_negotiated.push(family);
            }
            wanted && !list.is_empty()
        });
        announcement_wins(&mut sections);
        let mut update = Update { end_of_rib, ..Update::default() };
        for section in sections {
            match section {
                Section::Withdrawn(list) => update.withdrawn.push(list),
                Section::Reach(_, nlri) if withdraw => update.withdrawn.push(nlri),
                Section::Reach(Some(next_hop), nlri) => update.reach.push(Reach { next_hop, nlri }),
                // A missing next hop is a fault that withdraws.
                Section::Reach(None, nlri) => update.withdrawn.push(nlri),
            }
        }
        if !update.reach.is_empty() {
            update.attributes = self.attributes;
        }
        Ok(Judged { update, faults: self.faults, not_negotiated })
    }

    /// The mandatory attributes of a message that announces prefixes (RFC 7606 §3 (d)). NEXT_HOP is mandatory for the
    /// NLRI field only.
    fn demand_mandatory(&mut self) {
        let mut classic = false;
        let mut any = false;
        for section in &self.sections {
            if let Section::Reach(next_hop, list) = section
                && !list.is_empty()
            {
                any = true;
                classic |= next_hop.is_none();
            }
        }
        if !any {
            return;
        }
        for rule in &rules::RULES {
            if let Some(verdict) = rule.on_missing
                && !self.seen.contains(rule.code)
                && (rule.code != code::NEXT_HOP || classic)
            {
                let at = self.attributes_at;
                self.fault(at, Some(rule.code), FaultKind::Missing, verdict, Span::default());
            }
        }
    }
}

/// The data field that RFC 4271 §6.3 asks for: the attribute, or the code of one that is missing.
fn notification_data(frame: &[u8], fault: Fault, span: Span) -> Bytes {
    match (fault.subcode, fault.attribute) {
        (subcode::MISSING_WELL_KNOWN, Some(code)) => Bytes::copy_from_slice(&[code]),
        (
            subcode::UNRECOGNIZED_WELL_KNOWN
            | subcode::ATTRIBUTE_FLAGS
            | subcode::ATTRIBUTE_LENGTH
            | subcode::INVALID_ORIGIN
            | subcode::OPTIONAL_ATTRIBUTE,
            Some(_),
        ) => {
            let attribute = frame.get(span.from..span.to).unwrap_or_default();
            Bytes::copy_from_slice(attribute.get(..Notification::MAX_DATA).unwrap_or(attribute))
        }
        _ => Bytes::new(),
    }
}

/// Removes from the withdrawn prefixes those that the same message announces (RFC 4271 §4.3, W30).
fn announcement_wins(sections: &mut SmallVec<[Section; 2]>) {
    let both = |sections: &[Section]| {
        sections.iter().any(|section| matches!(section, Section::Withdrawn(_)))
            && sections.iter().any(|section| matches!(section, Section::Reach(..)))
    };
    if !both(sections) {
        return;
    }
    let v4: Vec<Nlri<V4>> = announced(sections, |list| match list {
        NlriList::V4(list) => Some(list),
        NlriList::V6(_) => None,
    });
    let v6: Vec<Nlri<V6>> = announced(sections, |list| match list {
        NlriList::V6(list) => Some(list),
        NlriList::V4(_) => None,
    });
    for section in sections.iter_mut() {
        match section {
            Section::Withdrawn(NlriList::V4(list)) => list.retain(|nlri| !holds(&v4, nlri)),
            Section::Withdrawn(NlriList::V6(list)) => list.retain(|nlri| !holds(&v6, nlri)),
            Section::Reach(..) => {}
        }
    }
    sections.retain(|section| !matches!(section, Section::Withdrawn(list) if list.is_empty()));
}

/// The announced prefixes of one family, sorted.
fn announced<F: Family>(
    sections: &[Section],
    of_family: impl Fn(&NlriList) -> Option<&Vec<Nlri<F>>>,
) -> Vec<Nlri<F>> {
    let mut all: Vec<Nlri<F>> = sections
        .iter()
        .filter_map(|section| match section {
            Section::Reach(_, list) => of_family(list),
            Section::Withdrawn(_) => None,
        })
        .flatten()
        .copied()
        .collect();
    all.sort_unstable_by_key(|nlri| (nlri.prefix, nlri.path_id));
    all
}

fn holds<F: Family>(sorted: &[Nlri<F>], nlri: &Nlri<F>) -> bool {
    sorted.binary_search_by_key(&(nlri.prefix, nlri.path_id), |other| (other.prefix, other.path_id)).is_ok()
}
