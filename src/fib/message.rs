//! Netlink messages as our own words, and back.
//!
//! Owns: which attributes we write, and how those that we read are understood. Never: sockets. Inputs and outputs:
//! bytes and message types of rtnetlink on one side, [`Notice`](super::mirror::Notice), [`RouteSeen`] and
//! [`RouteOp`] on the other.
//!
//! Rules: KRT-5, KRT-13, KRT-24, KRT-25, KRT-27, KRT-31; IPv6 multipath is one message with RTA_MULTIPATH, which
//! leaves the kernel in the state that BIRD's sequence of appends leaves it in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::{Afi, IpPrefix};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NlasIterator,
    Parseable,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RoutePreference, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use smallvec::SmallVec;

use super::mirror::{AddressSeen, RouteSeen, is_narrow};
use super::{Address, FibRoute, Leg, Link, PROTOCOL, RouteOp, TABLE_MAIN, Target, stored_metric};

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;

/// Reads a link from the payload of `RTM_NEWLINK` or `RTM_DELLINK`. `None`: not a link of the node (a bridge port of
/// family AF_BRIDGE goes by the same message), or malformed.
///
/// Read by hand: the message is large, full of attributes that differ by driver and release, and we need a name.
pub fn link(payload: &[u8]) -> Option<Link> {
    let (header, attributes) = payload.split_at_checked(16)?;
    let &[family, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = header else { return None };
    if family != 0 {
        return None;
    }
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    let up = u32::from_ne_bytes([f0, f1, f2, f3]) & IFF_UP != 0;
    let name = NlasIterator::new(attributes).filter_map(Result::ok).find(|nla| nla.kind() == IFLA_IFNAME)?;
    let name = name.value().split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Link { index, name: String::from_utf8_lossy(name).into_owned(), up })
}

/// Reads an address from the payload of `RTM_NEWADDR` or `RTM_DELADDR`. `None`: not of IPv4 or IPv6, or malformed.
pub fn address(payload: &[u8]) -> Option<AddressSeen> {
    let message = AddressMessage::parse(payload).ok()?;
    let (mut local, mut remote, mut flags) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => remote = Some(*addr),
            AddressAttribute::Flags(all) => flags = Some(*all),
            _ => {}
        }
    }
    let flags = flags.unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()));
    // On a point-to-point link IFA_ADDRESS is the other end, and the prefix is its; else the two are the same.
    let addr = local.or(remote)?;
    let prefix = IpPrefix::new(remote.unwrap_or(addr), message.header.prefix_len)?;
    let address = Address {
        ifindex: message.header.index,
        addr,
        prefix,
        secondary: addr.is_ipv4() && flags.contains(AddressFlags::Secondary),
        narrow: is_narrow(addr),
    };
    Some(AddressSeen {
        address,
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

/// Reads a route from the payload of `RTM_NEWROUTE` or `RTM_DELROUTE`. `Ok(None)`: a route that has no part in
/// what we do: of another family or table, cached, or with a key that ours never have (KRT-13).
///
/// # Errors
/// The message cannot be decoded.
pub fn route(payload: &[u8]) -> Result<Option<(IpPrefix, RouteSeen, RouteMessage)>, String> {
    let message = RouteMessage::parse(payload).map_err(|error| error.to_string())?;
    Ok(read_route(&message).map(|(prefix, seen)| (prefix, seen, message)))
}

fn read_route(message: &RouteMessage) -> Option<(IpPrefix, RouteSeen)> {
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    // In IPv6 these bits are part of no key.
    let other_key = unspecified.is_ipv4() && header.tos != 0;
    if other_key || header.source_prefix_length != 0 || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = unspecified;
    let mut metric = 0;
    let mut plain = true;
    let (mut oif, mut via, mut hops) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Iif(_) => return None,
            RouteAttribute::Destination(addr) => destination = ip(addr)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => via = Some(gateway(attribute)?),
            RouteAttribute::MultiPath(all) => hops = Some(all),
            RouteAttribute::CacheInfo(info) => plain &= info.expires == 0,
            RouteAttribute::Preference(preference) => plain &= *preference == RoutePreference::Medium,
            RouteAttribute::Metrics(metrics) => plain &= metrics.is_empty(),
            _ => plain = false,
        }
    }
    if table != TABLE_MAIN {
        return None;
    }
    let mut target = match header.kind {
        RouteType::BlackHole => Some(Target::Blackhole),
        RouteType::Unreachable => Some(Target::Unreachable),
        RouteType::Prohibit => Some(Target::Prohibit),
        RouteType::Unicast => match (hops, oif) {
            (Some(hops), _) => hops.iter().map(hop).collect::<Option<_>>().map(Target::Unicast),
            (None, Some(ifindex)) => {
                let onlink = header.flags.contains(RouteFlags::Onlink);
                let via = via.filter(|via: &IpAddr| !via.is_unspecified());
                Some(Target::Unicast(SmallVec::from_iter([Leg { via, ifindex, onlink, weight: 1 }])))
            }
            (None, None) => None,
        },
        _ => None,
    };
    if let Some(target) = &mut target {
        target.normalize();
        plain &= unspecified.is_ipv6() || header.scope == scope(target);
    }
    let prefix = IpPrefix::new(destination, header.destination_prefix_length)?;
    let metric = stored_metric(prefix.afi(), metric);
    Some((prefix, RouteSeen { metric, protocol: header.protocol.into(), target, plain }))
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => ip(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

fn hop(hop: &RouteNextHop) -> Option<Leg> {
    let is_gateway = |a: &&RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    let via = match hop.attributes.iter().find(is_gateway) {
        Some(attribute) => Some(gateway(attribute)?),
        None => None,
    };
    Some(Leg {
        via,
        ifindex: hop.interface_index,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        weight: u16::from(hop.hops) + 1,
    })
}

/// IPv4 wants to know how far away the next hop is; IPv6 does not look.
fn scope(target: &Target) -> RouteScope {
    match target.legs() {
        [] => RouteScope::Universe,
        legs if legs.iter().any(|leg| leg.via.is_some()) => RouteScope::Universe,
        _ => RouteScope::Link,
    }
}

/// The message of an operation, and its flags.
pub fn operation(op: &RouteOp) -> (RouteNetlinkMessage, u16) {
    match op {
        RouteOp::Add(prefix, route) => {
            (RouteNetlinkMessage::NewRoute(new_route(*prefix, route)), NLM_F_CREATE | NLM_F_EXCL)
        }
        RouteOp::Replace(prefix, route) => {
            (RouteNetlinkMessage::NewRoute(new_route(*prefix, route)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        RouteOp::Delete { prefix, metric, only } => {
            (RouteNetlinkMessage::DelRoute(del_route(*prefix, *metric, only.as_ref())), 0)
        }
    }
}

fn header(prefix: IpPrefix, scope: RouteScope, kind: RouteType) -> RouteHeader {
    RouteHeader {
        address_family: match prefix.afi() {
            Afi::Ipv4 => AddressFamily::Inet,
            Afi::Ipv6 => AddressFamily::Inet6,
        },
        destination_prefix_length: prefix.len(),
        source_prefix_length: 0,
        tos: 0,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(PROTOCOL),
        scope,
        kind,
        flags: RouteFlags::empty(),
    }
}

fn kind(target: &Target) -> RouteType {
    match target {
        Target::Blackhole => RouteType::BlackHole,
        Target::Unreachable => RouteType::Unreachable,
        Target::Prohibit => RouteType::Prohibit,
        Target::Unicast(_) => RouteType::Unicast,
    }
}

fn new_route(prefix: IpPrefix, route: &FibRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = header(prefix, scope(&route.target), kind(&route.target));
    message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    put_legs(&mut message, prefix, route.target.legs());
    message
}

fn del_route(prefix: IpPrefix, metric: u32, only: Option<&Target>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = header(prefix, RouteScope::NoWhere, only.map_or(RouteType::Unspec, kind));
    message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    put_legs(&mut message, prefix, only.map_or(&[], Target::legs));
    message
}

fn put_legs(message: &mut RouteMessage, prefix: IpPrefix, legs: &[Leg]) {
    match legs {
        [] => {}
        [leg] => {
            if leg.onlink {
                message.header.flags |= RouteFlags::Onlink;
            }
            message.attributes.push(RouteAttribute::Oif(leg.ifindex));
            message.attributes.extend(put_gateway(prefix, leg));
        }
        legs => {
            let hops = legs.iter().map(|leg| {
                let mut hop = RouteNextHop::default();
                hop.interface_index = leg.ifindex;
                // The field is "hops", one less than the weight, in a byte.
                hop.hops = u8::try_from(leg.weight.saturating_sub(1)).unwrap_or(u8::MAX);
                if leg.onlink {
                    hop.flags |= RouteNextHopFlags::Onlink;
                }
                hop.attributes.extend(put_gateway(prefix, leg));
                hop
            });
            message.attributes.push(RouteAttribute::MultiPath(hops.collect()));
        }
    }
}

fn put_gateway(prefix: IpPrefix, leg: &Leg) -> Option<RouteAttribute> {
    Some(match (prefix.afi(), leg.via?) {
        (Afi::Ipv4, IpAddr::V6(via)) => RouteAttribute::Via(RouteVia::Inet6(via)),
        (_, via) => RouteAttribute::Gateway(via.into()),
    })
}

/// A route of somebody else as it was heard, made ready to be written again.
pub fn again(heard: &RouteMessage) -> (RouteNetlinkMessage, u16) {
    let mut message = heard.clone();
    // What the kernel says of a route and does not take.
    message.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
    message.header.flags &= RouteFlags::Onlink;
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Appends a request to a batch; the answer is where in the batch it begins. A refused request is answered, one that
/// is fine only if [`ask_for_answer`] says so.
pub fn append(batch: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) -> usize {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = batch.len();
    batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(place) = batch.get_mut(start..) {
        message.serialize(place);
    }
    start
}

/// Has the request that begins at `start` answered in any case.
pub fn ask_for_answer(batch: &mut [u8], start: usize) {
    let flags = batch.get_mut(start..).and_then(|message| message.get_mut(6..8));
    if let Some([low, high]) = flags {
        [*low, *high] = (u16::from_ne_bytes([*low, *high]) | NLM_F_ACK).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{Emitable, NetlinkBuffer};
    use proptest::prelude::*;

    fn p(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    fn legs(hops: &[(&str, u32, bool)]) -> Target {
        let leg = |(via, ifindex, onlink): &(&str, u32, bool)| Leg {
            via: Some(via.parse().unwrap()),
            ifindex: *ifindex,
            onlink: *onlink,
            weight: 1,
        };
        let mut target = Target::Unicast(hops.iter().map(leg).collect());
        target.normalize();
        target
    }

    /// A request in the words of the transcripts.
    fn told(op: &RouteOp) -> String {
        let (message, flags) = operation(op);
        let mut batch = Vec::new();
        let start = append(&mut batch, message, flags, 1);
        ask_for_answer(&mut batch, start);
        let buffer = NetlinkBuffer::new_checked(&batch[..]).unwrap();
        assert_eq!(batch.len(), usize::try_from(buffer.length()).unwrap().next_multiple_of(4));
        let message = RouteMessage::parse(buffer.payload()).unwrap();
        let header = &message.header;
        let attributes: Vec<String> = message
            .attributes
            .iter()
            .map(|attribute| match attribute {
                RouteAttribute::Destination(addr) => format!("RTA_DST={}", ip(addr).unwrap()),
                RouteAttribute::Priority(metric) => format!("RTA_PRIORITY={metric}"),
                RouteAttribute::Oif(index) => format!("RTA_OIF={index}"),
                RouteAttribute::Gateway(addr) => format!("RTA_GATEWAY={}", ip(addr).unwrap()),
                RouteAttribute::Via(_) => format!("RTA_VIA={}", gateway(attribute).unwrap()),
                RouteAttribute::MultiPath(hops) => {
                    let hops: Vec<String> = hops
                        .iter()
                        .map(|h| format!("{}/{}/{:?}", hop(h).unwrap().via.unwrap(), h.hops, h.flags.bits()))
                        .collect();
                    format!("RTA_MULTIPATH={}", hops.join(","))
                }
                other => format!("{other:?}"),
            })
            .collect();
        format!(
            "{} nlm={:#x} family={} dst_len={} table={} protocol={} scope={} type={} flags={:#x} {}",
            buffer.message_type(),
            buffer.flags(),
            u8::from(header.address_family),
            header.destination_prefix_length,
            header.table,
            u8::from(header.protocol),
            u8::from(header.scope),
            u8::from(header.kind),
            header.flags.bits(),
            attributes.join(" "),
        )
    }

    fn add(prefix: &str, target: Target, metric: u32) -> String {
        told(&RouteOp::Add(p(prefix), FibRoute { target, metric }))
    }

    #[test]
    fn requests_are_those_of_the_recordings() {
        // REQUEST|ACK|CREATE|EXCL is 0x605; with REPLACE 0x505; REQUEST|ACK 0x5.
        assert_eq!(
            add("10.244.0.0/26", Target::Blackhole, 0),
            "24 nlm=0x605 family=2 dst_len=26 table=254 protocol=12 scope=0 type=6 flags=0x0 RTA_DST=10.244.0.0"
        );
        assert_eq!(
            add("10.244.2.0/26", legs(&[("10.99.0.3", 8, true)]), 1024),
            "24 nlm=0x605 family=2 dst_len=26 table=254 protocol=12 scope=0 type=1 flags=0x4 \
             RTA_DST=10.244.2.0 RTA_PRIORITY=1024 RTA_OIF=8 RTA_GATEWAY=10.99.0.3"
        );
        assert_eq!(
            add("fd00:10:244:0:250::/80", legs(&[("fd99::2", 6, false)]), 1024),
            "24 nlm=0x605 family=10 dst_len=80 table=254 protocol=12 scope=0 type=1 flags=0x0 \
             RTA_DST=fd00:10:244:0:250:: RTA_PRIORITY=1024 RTA_OIF=6 RTA_GATEWAY=fd99::2"
        );
        assert_eq!(
            add("10.1.0.0/16", legs(&[("10.99.0.3", 3, true), ("10.99.0.2", 3, false)]), 1024),
            "24 nlm=0x605 family=2 dst_len=16 table=254 protocol=12 scope=0 type=1 flags=0x0 \
             RTA_DST=10.1.0.0 RTA_PRIORITY=1024 RTA_MULTIPATH=10.99.0.2/0/0,10.99.0.3/0/4"
        );
        let delete = RouteOp::Delete { prefix: p("10.244.1.6/32"), metric: 512, only: None };
        assert_eq!(
            told(&delete),
            "25 nlm=0x5 family=2 dst_len=32 table=254 protocol=12 scope=255 type=0 flags=0x0 \
             RTA_DST=10.244.1.6 RTA_PRIORITY=512"
        );
        let delete = RouteOp::Delete { prefix: p("10.244.0.0/26"), metric: 0, only: Some(Target::Blackhole) };
        assert_eq!(
            told(&delete),
            "25 nlm=0x5 family=2 dst_len=26 table=254 protocol=12 scope=255 type=6 flags=0x0 RTA_DST=10.244.0.0"
        );
        let replace = RouteOp::Replace(
            p("10.244.1.0/26"),
            FibRoute { target: legs(&[("fe80::1", 2, false)]), metric: 9 },
        );
        assert_eq!(
            told(&replace),
            "24 nlm=0x505 family=2 dst_len=26 table=254 protocol=12 scope=0 type=1 flags=0x0 \
             RTA_DST=10.244.1.0 RTA_PRIORITY=9 RTA_OIF=2 RTA_VIA=fe80::1"
        );
    }

    fn seen_after(change: impl FnOnce(&mut RouteMessage)) -> Option<RouteSeen> {
        let route = FibRoute { target: legs(&[("10.99.0.2", 2, false)]), metric: 1024 };
        let mut message = new_route(p("10.244.1.0/26"), &route);
        change(&mut message);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        super::route(&bytes).unwrap().map(|(_, seen, _)| seen)
    }

    #[test]
    fn routes_of_other_tables_with_tos_or_cached_have_no_part() {
        assert!(seen_after(|_| ()).is_some());
        assert!(seen_after(|m| m.header.table = 255).is_none());
        assert!(seen_after(|m| m.attributes.push(RouteAttribute::Table(1000))).is_none());
        assert!(seen_after(|m| m.header.tos = 4).is_none());
        assert!(seen_after(|m| m.header.source_prefix_length = 8).is_none());
        assert!(seen_after(|m| m.header.flags |= RouteFlags::Cloned).is_none());
        assert!(seen_after(|m| m.attributes.push(RouteAttribute::Iif(3))).is_none());
    }

    #[test]
    fn what_a_wanted_route_cannot_say_makes_a_route_not_plain() {
        assert!(seen_after(|_| ()).unwrap().plain);
        let source = "10.99.0.1".parse::<IpAddr>().unwrap();
        assert!(!seen_after(|m| m.attributes.push(RouteAttribute::PrefSource(source.into()))).unwrap().plain);
        assert!(!seen_after(|m| m.header.scope = RouteScope::Link).unwrap().plain);
        let throw = seen_after(|m| m.header.kind = RouteType::Throw).unwrap();
        assert_eq!(throw.target, None);
    }

    #[test]
    fn a_bridge_port_is_not_taken_for_a_link() {
        let mut bytes = vec![0; 16];
        bytes[4..8].copy_from_slice(&7u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        bytes.extend([9u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat());
        bytes.extend(*b"eth0\0\0\0\0");
        assert_eq!(link(&bytes), Some(Link { index: 7, name: "eth0".into(), up: true }));
        bytes[0] = 7;
        assert_eq!(link(&bytes), None);
    }

    proptest! {
        #[test]
        fn a_written_route_is_read_back_as_it_was(
            v6 in any::<bool>(),
            metric in 0u32..3000,
            hops in proptest::collection::vec((any::<u8>(), 1u32..9, any::<bool>(), 1u16..256), 0..16),
        ) {
            let prefix = if v6 { p("fd00:10:244::/64") } else { p("10.244.0.0/16") };
            let mut target = Target::Unicast(
                hops.iter()
                    .map(|(host, ifindex, onlink, weight)| {
                        let via = if v6 { format!("fd99::1:{host:x}") } else { format!("10.99.0.{host}") };
                        Leg { via: via.parse().ok(), ifindex: *ifindex, onlink: *onlink, weight: *weight }
                    })
                    .collect(),
            );
            target.normalize();
            if hops.is_empty() {
                target = Target::Unreachable;
            }
            let message = new_route(prefix, &FibRoute { target: target.clone(), metric });
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let (read_prefix, seen, _) = super::route(&bytes).unwrap().unwrap();
            prop_assert_eq!(read_prefix, prefix);
            let metric = stored_metric(prefix.afi(), metric);
            prop_assert_eq!(seen, RouteSeen { metric, protocol: PROTOCOL, target: Some(target), plain: true });
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = link(&bytes);
            let _ = address(&bytes);
            let _ = super::route(&bytes);
        }

        #[test]
        fn no_damage_to_a_message_makes_its_reader_panic(
            at in proptest::collection::vec((0usize..120, any::<u8>()), 1..6),
            cut in 0usize..120,
        ) {
            let target = legs(&[("10.99.0.3", 3, true), ("10.99.0.2", 3, false)]);
            let message = new_route(p("10.1.0.0/16"), &FibRoute { target, metric: 7 });
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            for (at, byte) in at {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = super::route(&bytes);
        }
    }
}
