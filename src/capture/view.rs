//! One message as one JSON object.
//!
//! Owns: the names of all fields, which tools depend on. Attributes are named as in the recordings of `fixtures/confd`;
//! what does not apply is left out. Never: decides what an error leads to; that is `bgp_proto::wire`'s.

use std::net::Ipv4Addr;

use bgp_proto::wire::attr::rules::code;
use bgp_proto::wire::attr::{AsPath, UnknownAttribute};
use bgp_proto::wire::capability::WireFamily;
use bgp_proto::wire::fault::{Action, Fatal, Fault};
use bgp_proto::wire::receive::{self, Section, UpdateIn};
use bgp_proto::wire::{
    Context, Frame, Kind, Message, NextHop, NlriList, Notification, Open, Origin, RouteRefresh, Segment,
    Update, decode, open,
};
use bgp_proto::{Afi, Asn, IpPrefix, RouterId};
use serde::Serialize;

use super::kind_of;

/// What an OPEN is compared with; `None`: not compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checks {
    /// The AS that the sender should be.
    pub peer_asn: Option<Asn>,
    /// Our identifier, which an internal peer must not have.
    pub local_id: Option<RouterId>,
}

/// Where a message was found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagePlace {
    /// Seconds since 1970, from a capture or MRT record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
    /// Sender: `address:port` in a capture, `address` in MRT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Line of a text, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Octets of a raw stream before the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_offset: Option<u64>,
}

/// One line of output.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MessageLine {
    r#type: &'static str,
    outcome: &'static str,
    errors: Vec<ErrorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification: Option<NotificationView>,
    #[serde(flatten)]
    body: Body,
    #[serde(flatten)]
    place: MessagePlace,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct ErrorView {
    offset: usize,
    attribute: Option<u8>,
    rfc: &'static str,
    text: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct NotificationView {
    code: u8,
    subcode: u8,
    data: String,
    text: String,
}

/// What each type of message has beside.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
enum Body {
    None {},
    Open(OpenView),
    Update(Box<UpdateView>),
    Notification(NotificationView),
    Refresh(RefreshView),
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenView {
    version: u8,
    asn: Asn,
    my_as: u16,
    hold_time: u16,
    router_id: Ipv4Addr,
    capabilities: Vec<CapabilityView>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct CapabilityView {
    code: u8,
    value: String,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct RefreshView {
    afi: u16,
    safi: u8,
    subtype: u8,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct UpdateView {
    announced: Vec<PrefixView>,
    withdrawn: Vec<PrefixView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_of_rib: Option<&'static str>,
    attributes: AttributesView,
    /// Attributes that were taken away without being an error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<UnknownView>,
    /// Families whose prefixes are not decoded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecoded: Vec<FamilyView>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PrefixView {
    prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_id: Option<u32>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct FamilyView {
    afi: u16,
    safi: u8,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttributesView {
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_path: Option<Vec<HopView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_hop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    med: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_pref: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    atomic_aggregate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregator: Option<AggregatorView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    communities: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ext_communities: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    large_communities: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator_id: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cluster_list: Vec<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    otc: Option<Asn>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<UnknownView>,
}

/// An AS number, or the members of an AS_SET.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
enum HopView {
    As(Asn),
    Set(Vec<Asn>),
}

#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatorView {
    asn: Asn,
    router_id: Ipv4Addr,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct UnknownView {
    code: u8,
    flags: u8,
    value: String,
}

/// Two lower-case digits an octet.
fn hex(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// A whole message.
pub(crate) fn message(frame: Frame<'_>, ctx: &Context, checks: &Checks, place: &MessagePlace) -> MessageLine {
    let (body, result) = match frame.kind {
        Kind::Open => open_message(frame, ctx, checks),
        Kind::Update => update_message(frame, ctx),
        Kind::Notification | Kind::Keepalive | Kind::RouteRefresh => match decode(frame.bytes, ctx) {
            Ok(decoded) => (other_body(&decoded.message), Ok(Vec::new())),
            Err(fatal) => (Body::None {}, Err(fatal)),
        },
    };
    let (outcome, errors, notification) = match result {
        Ok(faults) => (outcome(&faults), faults, None),
        Err(fatal) => ("session-reset", fatal.faults, Some(fatal.notification)),
    };
    MessageLine {
        r#type: frame.kind.name(),
        outcome,
        errors: errors.iter().map(ErrorView::from).collect(),
        notification: notification.as_ref().map(NotificationView::from),
        body,
        place: place.clone(),
    }
}

/// A header that no message can have; nothing after it can be found.
pub(crate) fn invalid(fatal: &Fatal, place: &MessagePlace) -> MessageLine {
    MessageLine {
        r#type: "invalid",
        outcome: "session-reset",
        errors: fatal.faults.iter().map(ErrorView::from).collect(),
        notification: Some(NotificationView::from(&fatal.notification)),
        body: Body::None {},
        place: place.clone(),
    }
}

/// The input ends in this message, at least `want` octets before its end.
pub(crate) fn incomplete(octets: &[u8], want: usize, place: &MessagePlace) -> MessageLine {
    let text = format!("input ends inside the message; at least {want} more octets belong to it");
    broken_off(kind_of(octets).map_or("invalid", Kind::name), octets.len(), text, place)
}

/// Something that holds messages ends or breaks off.
pub(crate) fn broken_off(
    kind: &'static str,
    offset: usize,
    text: String,
    place: &MessagePlace,
) -> MessageLine {
    MessageLine {
        r#type: kind,
        outcome: "incomplete",
        errors: vec![ErrorView { offset, attribute: None, rfc: "RFC 4271 section 4.1", text }],
        notification: None,
        body: Body::None {},
        place: place.clone(),
    }
}

/// A line of text that does not hold octets: nothing in it is in step with BGP.
pub(crate) fn not_hex(at: usize, place: &MessagePlace) -> MessageLine {
    let text = format!("character {} of the line is no hexadecimal digit", at + 1);
    MessageLine {
        r#type: "invalid",
        outcome: "session-reset",
        errors: vec![ErrorView { offset: 0, attribute: None, rfc: "RFC 4271 section 6.1", text }],
        notification: Some(NotificationView::from(&Notification::new(1, 1))),
        body: Body::None {},
        place: place.clone(),
    }
}

/// The strongest thing that happens to a message that does not end the session.
fn outcome(faults: &[Fault]) -> &'static str {
    match faults.iter().map(|fault| fault.action).max() {
        None => "accept",
        Some(Action::Discard) => "attribute-discard",
        Some(Action::TreatAsWithdraw) => "treat-as-withdraw",
        Some(Action::Reset) => "session-reset",
    }
}

impl From<&Fault> for ErrorView {
    fn from(fault: &Fault) -> Self {
        ErrorView {
            offset: fault.offset.into(),
            attribute: fault.attribute,
            rfc: fault.kind.rfc(),
            text: fault.kind.text().to_owned(),
        }
    }
}

impl From<&Notification> for NotificationView {
    fn from(notification: &Notification) -> Self {
        NotificationView {
            code: notification.code,
            subcode: notification.subcode,
            data: hex(&notification.data),
            text: notification.to_string(),
        }
    }
}

fn open_message(frame: Frame<'_>, ctx: &Context, checks: &Checks) -> (Body, Result<Vec<Fault>, Fatal>) {
    let opened = open::read(frame.body());
    let open = match opened {
        Ok(open) => open,
        Err(fatal) => return (Body::None {}, Err(fatal)),
    };
    let view = OpenView::new(&open, frame.body());
    let result = open.check().and_then(|()| open.check_peer(ctx.peer_type, checks.peer_asn, checks.local_id));
    (Body::Open(view), result.map(|()| Vec::new()))
}

impl OpenView {
    fn new(open: &Open, body: &[u8]) -> Self {
        OpenView {
            version: open::VERSION,
            asn: open.asn(),
            my_as: open.my_as,
            hold_time: open.hold_time,
            router_id: open.router_id.0,
            capabilities: open::raw_capabilities(body)
                .unwrap_or_default()
                .into_iter()
                .map(|(code, value)| CapabilityView { code, value: hex(value) })
                .collect(),
        }
    }
}

fn other_body(message: &Message) -> Body {
    match message {
        Message::Notification(notification) => Body::Notification(notification.into()),
        Message::RouteRefresh(RouteRefresh { family: WireFamily { afi, safi }, kind }) => {
            Body::Refresh(RefreshView { afi: *afi, safi: *safi, subtype: kind.code() })
        }
        Message::Open(_) | Message::Update(_) | Message::Keepalive => Body::None {},
    }
}

fn update_message(frame: Frame<'_>, ctx: &Context) -> (Body, Result<Vec<Fault>, Fatal>) {
    let read = receive::read(frame.bytes, ctx);
    let mut view = UpdateView {
        attributes: AttributesView::new(&read),
        dropped: read.dropped.iter().map(UnknownView::from).collect(),
        ..UpdateView::default()
    };
    let result = read.judge(frame.bytes, ctx);
    let result = match result {
        Ok(judged) => {
            view.routes(&judged.update, ctx);
            view.undecoded = judged
                .not_negotiated
                .iter()
                .map(|family| FamilyView { afi: family.afi, safi: family.safi })
                .collect();
            Ok(judged.faults)
        }
        Err(fatal) => Err(fatal),
    };
    (Body::Update(Box::new(view)), result)
}

impl UpdateView {
    fn routes(&mut self, update: &Update, ctx: &Context) {
        let prefixes = |list: &NlriList| -> Vec<PrefixView> {
            let add_path = ctx.add_path_rx.contains(list.afi());
            let one = |prefix: IpPrefix, id| PrefixView {
                prefix: prefix.to_string(),
                path_id: add_path.then_some(id),
            };
            match list {
                NlriList::V4(list) => list.iter().map(|nlri| one(nlri.prefix.into(), nlri.path_id)).collect(),
                NlriList::V6(list) => list.iter().map(|nlri| one(nlri.prefix.into(), nlri.path_id)).collect(),
            }
        };
        self.announced = update.reach.iter().flat_map(|reach| prefixes(&reach.nlri)).collect();
        self.withdrawn = update.withdrawn.iter().flat_map(prefixes).collect();
        self.end_of_rib = update.end_of_rib.map(Afi::name);
    }
}

impl From<&UnknownAttribute> for UnknownView {
    fn from(attribute: &UnknownAttribute) -> Self {
        UnknownView { code: attribute.code, flags: attribute.flags, value: hex(&attribute.value) }
    }
}

impl AttributesView {
    fn new(read: &UpdateIn) -> Self {
        let all = &read.attributes;
        let has = |code| read.present.contains(code);
        // NEXT_HOP speaks for the NLRI field alone (RFC 4760 §3); without that, the next hop is MP_REACH_NLRI's.
        let classic = read.next_hop.map(NextHop::V4);
        let mut reach = read.sections.iter().filter_map(|section| match section {
            Section::Reach(next_hop, _) => Some(*next_hop),
            Section::Withdrawn(_) => None,
        });
        let of_field = reach.clone().any(|hop| hop == classic);
        let multiprotocol = reach.find_map(|hop| hop.filter(|_| hop != classic));
        let next_hop = if of_field { classic.or(multiprotocol) } else { multiprotocol.or(classic) };
        let link_local = match multiprotocol {
            Some(NextHop::V6 { link_local, .. }) => link_local,
            _ => None,
        };
        AttributesView {
            origin: has(code::ORIGIN).then_some(match all.origin {
                Origin::Igp => "igp",
                Origin::Egp => "egp",
                Origin::Incomplete => "incomplete",
            }),
            as_path: has(code::AS_PATH).then(|| hops(&all.as_path)),
            next_hop: next_hop.map(|hop| hop.addr().to_string()),
            link_local: link_local.map(|addr| addr.to_string()),
            med: all.med,
            local_pref: all.local_pref,
            atomic_aggregate: all.atomic_aggregate,
            aggregator: all
                .aggregator
                .map(|aggregator| AggregatorView { asn: aggregator.asn, router_id: aggregator.router_id }),
            communities: all.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect(),
            ext_communities: all.ext_communities.iter().map(|octets| hex(octets)).collect(),
            large_communities: all
                .large_communities
                .iter()
                .map(|[global, local1, local2]| format!("{global}:{local1}:{local2}"))
                .collect(),
            originator_id: all.originator_id.map(|id| id.0),
            cluster_list: all.cluster_list.iter().map(|id| id.0).collect(),
            otc: all.otc,
            others: all.unknown.iter().map(UnknownView::from).collect(),
        }
    }
}

fn hops(path: &AsPath) -> Vec<HopView> {
    let mut hops = Vec::new();
    for segment in &path.segments {
        match segment {
            Segment::Sequence(asns) => hops.extend(asns.iter().copied().map(HopView::As)),
            Segment::Set(asns) => hops.push(HopView::Set(asns.to_vec())),
        }
    }
    hops
}
