//! BGPPeer (PEER-20 to PEER-68, PEER-90) and BGPFilter (FILT-50 to FILT-61).
//!
//! Owns: their fields, and what makes a BGPPeer or a rule unusable as a whole. Never: decides which peering takes
//! precedence (`desired`).

use std::net::{IpAddr, SocketAddrV6};
use std::sync::Arc;

use bgp_proto::{Afi, IpPrefix};

use super::fields::{Fields, Unusable, is_host, or_last, scalar_text};
use crate::model::{
    BgpFilter, BgpPeer, CommunityValue, FilterOperation, FilterRule, MatchOperator, NextHopMode, PeerAddress,
    PrefixMatch, Selector, SourceAddress,
};

/// A BGPPeer. Without a usable address or AS number it is refused as a whole (D1, D2); what merely contradicts itself
/// is kept: the rules of precedence decide (PEER-20, PEER-90).
pub fn bgp_peer(name: &str, root: &Fields<'_>, last: Option<&BgpPeer>) -> Option<BgpPeer> {
    let spec = root.object("spec");
    let before = last.cloned().unwrap_or_default();
    let (peer_ip, asn, local_asn) =
        (spec.text_as("peerIP", peer_address), spec.asn("asNumber"), spec.asn("localASNumber"));
    let sources = [("UseNodeIP", SourceAddress::UseNodeIp), ("None", SourceAddress::None)];
    let modes =
        [("Auto", NextHopMode::Auto), ("Self", NextHopMode::SelfAddress), ("Keep", NextHopMode::Keep)];
    let reverse = [("Auto", false), ("Manual", true)];
    let peer = BgpPeer {
        name: name.to_owned(),
        node: spec.text("node").ok()?,
        node_selector: selector(&spec, "nodeSelector", before.node_selector),
        peer_ip: peer_ip.ok()?,
        peer_selector: selector(&spec, "peerSelector", before.peer_selector),
        local_workload_selector: spec.text("localWorkloadSelector").ok()?,
        asn: asn.ok()?,
        local_asn: local_asn.ok()?,
        password: spec.secret_key_ref("password", before.password),
        source_address: or_last(spec.choice("sourceAddress", &sources), Some(before.source_address))
            .unwrap_or_default(),
        restart_time: or_last(spec.seconds("maxRestartTime"), before.restart_time),
        keepalive_time: or_last(spec.seconds("keepaliveTime"), before.keepalive_time),
        allowed_own_as: or_last(
            spec.number("numAllowedLocalASNumbers", 0..=u8::MAX),
            Some(before.allowed_own_as),
        )
        .unwrap_or(0),
        ttl_security: or_last(spec.number("ttlSecurity", 0..=u8::MAX), Some(before.ttl_security))
            .unwrap_or(0),
        reachable_by: spec.ip("reachableBy").ok()?,
        next_hop_mode: or_last(spec.choice("nextHopMode", &modes), before.next_hop_mode),
        keep_original_next_hop: or_last(
            spec.bool("keepOriginalNextHop"),
            Some(before.keep_original_next_hop),
        )
        .unwrap_or(false),
        filters: or_last(spec.texts("filters"), Some(before.filters)).unwrap_or_default(),
        reverse_peering_manual: or_last(
            spec.choice("reversePeering", &reverse),
            Some(before.reverse_peering_manual),
        )
        .unwrap_or(false),
    };
    Some(peer)
}

/// A selector. One that does not parse keeps its last good form; where it has none it selects nothing (SEL-8): without a
/// `nodeSelector` a BGPPeer is of all nodes.
fn selector(spec: &Fields<'_>, name: &str, last: Option<Arc<Selector>>) -> Option<Arc<Selector>> {
    let read =
        spec.text_as(name, |text| Selector::parse(text).map(Arc::new).map_err(|error| error.to_string()));
    read.unwrap_or_else(|_| {
        let text = spec.get(name).and_then(scalar_text).unwrap_or_default();
        Some(last.unwrap_or_else(|| Arc::new(Selector::nothing(&text))))
    })
}

/// `<ip>`, `<ipv4>:<port>` or `[<ipv6>]:<port>` (PEER-22) of a host; no zone, no port 0 (D1).
fn peer_address(text: &str) -> Result<PeerAddress, String> {
    let at = address_and_port(text)?;
    if is_host(at.addr) { Ok(at) } else { Err("not the address of a host".to_owned()) }
}

fn address_and_port(text: &str) -> Result<PeerAddress, String> {
    let bad = || "not an IP address, with or without a port (10.0.0.1:179, [fd00::1]:179)".to_owned();
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(PeerAddress { addr, port: None });
    }
    if text.contains('%') && text.trim_start_matches('[').parse::<SocketAddrV6>().is_err() {
        return Err("an address with a zone, which is not supported".to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let addr = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => IpAddr::V6(host.parse().map_err(|_| bad())?),
        None => IpAddr::V4(host.parse().map_err(|_| bad())?),
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(PeerAddress { addr, port: Some(port) }),
        _ => Err("an address with a port that is none (1 to 65535)".to_owned()),
    }
}

/// A BGPFilter. A rule that cannot be understood is left out and reported (FILT-54).
pub fn bgp_filter(name: &str, root: &Fields<'_>, last: Option<&BgpFilter>) -> BgpFilter {
    let spec = root.object("spec");
    let before = last.cloned().unwrap_or_default();
    let rules = |list: &str, afi: Afi, before: Vec<FilterRule>| match spec.objects(list) {
        Err(Unusable) => before,
        Ok(rules) => rules
            .unwrap_or_default()
            .iter()
            .filter_map(|(index, rule)| filter_rule(*index, rule, afi).ok())
            .collect(),
    };
    BgpFilter {
        name: name.to_owned(),
        export_v4: rules("exportV4", Afi::Ipv4, before.export_v4),
        export_v6: rules("exportV6", Afi::Ipv6, before.export_v6),
        import_v4: rules("importV4", Afi::Ipv4, before.import_v4),
        import_v6: rules("importV6", Afi::Ipv6, before.import_v6),
    }
}

fn filter_rule(index: usize, rule: &Fields<'_>, afi: Afi) -> Result<FilterRule, Unusable> {
    let prefix = prefix_match(rule, afi)?;
    let remote_peers = known(rule, "source", &[("RemotePeers", true)])?.unwrap_or(false);
    let interface = rule.text_as("interface", |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.*-".contains(&b);
        if text.len() <= 15 && text.bytes().all(allowed) {
            Ok(text.to_owned())
        } else {
            Err("not an interface pattern (letters, digits, _ . * -, at most 15)".to_owned())
        }
    })?;
    let internal = known(rule, "peerType", &[("iBGP", true), ("eBGP", false)])?;
    let communities = rule.object("communities");
    let community = match communities.list("values")? {
        None | Some([]) => None,
        Some([_]) => communities
            .parsed_list("values", "a community (aa:nn or aa:nn:mm)")?
            .and_then(|list| list.first().copied()),
        Some(_) => return Err(communities.refuse("values", "has more than the one value that is allowed")),
    };
    if communities.exists() && community.is_none() {
        return Err(communities.refuse("values", "has no community"));
    }
    let Some(accept) = known(rule, "action", &[("Accept", true), ("Reject", false)])? else {
        return Err(rule.refuse("action", "is missing"));
    };
    Ok(FilterRule {
        index,
        prefix,
        remote_peers,
        interface,
        internal,
        community,
        as_path_prefix: rule.asns("asPathPrefix")?.unwrap_or_default(),
        priority: rule.number("priority", PRIORITY)?,
        accept,
        operations: operations(rule)?,
    })
}

/// Priorities that LOCAL_PREF can carry (FILT-60).
const PRIORITY: std::ops::RangeInclusive<u32> = 1..=2_147_483_646;

/// As [`Fields::choice`], but an unknown word refuses the rule: guessing would let routes through.
fn known<T: Copy>(rule: &Fields<'_>, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Unusable> {
    rule.text_as(name, |text| {
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            format!("not known (known are {}); the rule is left out", words.join(", "))
        })
    })
}

fn prefix_match(rule: &Fields<'_>, afi: Afi) -> Result<Option<PrefixMatch>, Unusable> {
    let Some(cidr) = rule.parsed::<IpPrefix>("cidr")? else { return Ok(None) };
    if cidr.afi() != afi {
        return Err(rule.refuse("cidr", "is of the other address family"));
    }
    let operators = [
        ("In", MatchOperator::In),
        ("NotIn", MatchOperator::NotIn),
        ("Equal", MatchOperator::Equal),
        ("NotEqual", MatchOperator::NotEqual),
    ];
    let Some(operator) = known(rule, "matchOperator", &operators)? else {
        return Err(rule.refuse("matchOperator", "is missing beside cidr"));
    };
    let length = rule.object("prefixLength");
    let longest = if afi == Afi::Ipv4 { 32u8 } else { 128 };
    let bounds = (length.number("min", 0..=longest)?, length.number("max", 0..=longest)?);
    Ok(Some(PrefixMatch { cidr, operator, length: length.exists().then_some(bounds) }))
}

fn operations(rule: &Fields<'_>) -> Result<Vec<FilterOperation>, Unusable> {
    let wanted = rule.list("operations")?.map_or(0, <[_]>::len);
    let entries = rule.objects("operations")?.unwrap_or_default();
    if entries.len() != wanted {
        return Err(Unusable);
    }
    entries.iter().map(|(_, entry)| operation(entry)).collect()
}

fn operation(entry: &Fields<'_>) -> Result<FilterOperation, Unusable> {
    let (community, prepend, priority) =
        (entry.object("addCommunity"), entry.object("prependASPath"), entry.object("setPriority"));
    let missing = |of: &Fields<'_>, name: &str| of.refuse(name, "is missing");
    match (community.exists(), prepend.exists(), priority.exists()) {
        (true, false, false) => community
            .parsed::<CommunityValue>("value")?
            .map(FilterOperation::AddCommunity)
            .ok_or_else(|| missing(&community, "value")),
        (false, true, false) => prepend
            .asns("prefix")?
            .filter(|asns| !asns.is_empty())
            .map(FilterOperation::PrependAsPath)
            .ok_or_else(|| missing(&prepend, "prefix")),
        (false, false, true) => priority
            .number("value", PRIORITY)?
            .map(FilterOperation::SetPriority)
            .ok_or_else(|| missing(&priority, "value")),
        _ => Err(entry.log().refuse(
            entry.path("addCommunity"),
            "exactly one of addCommunity, prependASPath and setPriority is wanted",
        )),
    }
}
