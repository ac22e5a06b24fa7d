//! BGP messages as the scripted neighbours speak them. Written without the production codec, so that an error in that
//! one cannot hide behind itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::{Afi, IpPrefix};
use serde_json::{Map, Value, json};

use super::case::{Announcement, Hop, prefix};

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;

const HEADER: usize = 19;
const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const EXTENDED_LENGTH: u8 = 0x10;

/// A whole message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// Takes the first whole message from the front of `stream`: its type and body.
pub fn take_message(stream: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let length = usize::from(u16::from_be_bytes([*stream.get(16)?, *stream.get(17)?]));
    assert!(stream[..16] == [0xff; 16] && (HEADER..=4096).contains(&length), "broken framing: {stream:02x?}");
    if stream.len() < length {
        return None;
    }
    let message: Vec<u8> = stream.drain(..length).collect();
    Some((message[18], message[HEADER..].to_vec()))
}

/// OPEN of a neighbour: its family, route refresh, 4-octet AS.
pub fn open(afi: Afi, asn: u32, hold_time: u16, router_id: Ipv4Addr) -> Vec<u8> {
    let capabilities: Vec<u8> =
        [&[1, 4][..], &afi.code().to_be_bytes(), &[0, 1, 2, 0, 65, 4], &asn.to_be_bytes()].concat();
    let short = u16::try_from(asn).unwrap_or(23456);
    let length = u8::try_from(capabilities.len()).unwrap();
    let body = [
        &[4][..],
        &short.to_be_bytes(),
        &hold_time.to_be_bytes(),
        &router_id.octets(),
        &[length + 2, 2, length],
        &capabilities,
    ];
    message(OPEN, &body.concat())
}

/// An OPEN as observed.json has it.
pub fn read_open(body: &[u8]) -> Value {
    let mut reader = Reader(body);
    assert_eq!(reader.u8(), 4, "version of {body:02x?}");
    let (short, hold_time, router_id) = (reader.u16(), reader.u16(), Ipv4Addr::from(reader.u32()));
    let mut asn = u32::from(short);
    let length = usize::from(reader.u8());
    let mut parameters = Reader(reader.take(length));
    assert!(reader.0.is_empty(), "octets after the parameters of {body:02x?}");
    let mut capabilities = Vec::new();
    while !parameters.0.is_empty() {
        assert_eq!(parameters.u8(), 2, "parameter type in {body:02x?}");
        let length = usize::from(parameters.u8());
        let mut list = Reader(parameters.take(length));
        while !list.0.is_empty() {
            let (code, length) = (list.u8(), usize::from(list.u8()));
            let value = list.take(length);
            if code == 65 {
                asn = Reader(value).u32();
            }
            capabilities.push(json!({"code": code, "value": hex(value)}));
        }
    }
    json!({"asn": asn, "holdTime": hold_time, "routerId": router_id.to_string(), "capabilities": capabilities})
}

/// An UPDATE that announces one route; defaults follow the kind of session, internal or external.
pub fn announce(route: &Announcement, own_asn: u32, own_address: IpAddr, internal: bool) -> Vec<u8> {
    let network = prefix(&route.prefix);
    let nlri = nlri(network);
    let next_hop = route.next_hop.unwrap_or(own_address);
    let usual = if internal { vec![] } else { vec![Hop::As(own_asn)] };
    let origin = ["igp", "egp", "incomplete"].iter().position(|name| *name == route.origin).unwrap();
    let mut attributes = Vec::new();
    let mut add = |flags: u8, code: u8, value: &[u8]| put_attribute(&mut attributes, flags, code, value);
    add(TRANSITIVE, 1, &[u8::try_from(origin).unwrap()]);
    add(TRANSITIVE, 2, &as_path(route.as_path.as_ref().unwrap_or(&usual)));
    if let (Afi::Ipv4, IpAddr::V4(hop)) = (network.afi(), next_hop) {
        add(TRANSITIVE, 3, &hop.octets());
    }
    if let Some(med) = route.med {
        add(OPTIONAL, 4, &med.to_be_bytes());
    }
    if let Some(preference) = route.local_pref.or(internal.then_some(100)) {
        add(TRANSITIVE, 5, &preference.to_be_bytes());
    }
    if !route.communities.is_empty() {
        add(OPTIONAL | TRANSITIVE, 8, &numbers(&route.communities, |n| (n as u16).to_be_bytes().to_vec()));
    }
    if let Some(id) = route.originator_id {
        add(OPTIONAL, 9, &id.octets());
    }
    if !route.cluster_list.is_empty() {
        add(OPTIONAL, 10, &route.cluster_list.iter().flat_map(|id| id.octets()).collect::<Vec<u8>>());
    }
    if let (Afi::Ipv6, IpAddr::V6(hop)) = (network.afi(), next_hop) {
        add(OPTIONAL, 14, &[&[0, 2, 1, 16][..], &hop.octets(), &[0], &nlri].concat());
    }
    if !route.large_communities.is_empty() {
        add(OPTIONAL | TRANSITIVE, 32, &numbers(&route.large_communities, |n| n.to_be_bytes().to_vec()));
    }
    update(&attributes, if network.afi() == Afi::Ipv4 { &nlri } else { &[] })
}

/// End-of-RIB (RFC 4724 §2).
pub fn end_of_rib(afi: Afi) -> Vec<u8> {
    match afi {
        Afi::Ipv4 => update(&[], &[]),
        Afi::Ipv6 => update(&[OPTIONAL, 15, 3, 0, 2, 1], &[]),
    }
}

fn update(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    message(UPDATE, &[&[0, 0][..], &length.to_be_bytes(), attributes, nlri].concat())
}

fn put_attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, code, length]),
        Err(_) => {
            out.extend([flags | EXTENDED_LENGTH, code]);
            out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        }
    }
    out.extend(value);
}

fn nlri(prefix: IpPrefix) -> Vec<u8> {
    let octets = match prefix.addr() {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    [&[prefix.len()], &octets[..usize::from(prefix.len().div_ceil(8))]].concat()
}

fn as_path(hops: &[Hop]) -> Vec<u8> {
    let mut segments: Vec<(u8, Vec<u32>)> = Vec::new();
    for hop in hops {
        match (hop, segments.last_mut()) {
            (Hop::As(asn), Some((2, run))) => run.push(*asn),
            (Hop::As(asn), _) => segments.push((2, vec![*asn])),
            (Hop::Set(set), _) => segments.push((1, set.clone())),
        }
    }
    let segment = |(kind, hops): &(u8, Vec<u32>)| {
        let head = [*kind, u8::try_from(hops.len()).unwrap()];
        head.into_iter().chain(hops.iter().flat_map(|asn| asn.to_be_bytes())).collect::<Vec<u8>>()
    };
    segments.iter().flat_map(segment).collect()
}

fn numbers(list: &[String], encode: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let parts = list.iter().flat_map(|text| text.split(':'));
    parts.flat_map(|part| encode(part.parse().unwrap())).collect()
}

/// What an UPDATE says.
#[derive(Default)]
pub struct Update {
    pub withdrawn: Vec<IpPrefix>,
    pub announced: Vec<IpPrefix>,
    /// With the names of observed.json.
    pub attributes: Map<String, Value>,
}

pub fn read_update(body: &[u8]) -> Update {
    let mut reader = Reader(body);
    let mut found = Update::default();
    let length = usize::from(reader.u16());
    found.withdrawn = Reader(reader.take(length)).prefixes(Afi::Ipv4);
    let length = usize::from(reader.u16());
    let mut attributes = Reader(reader.take(length));
    found.announced = reader.prefixes(Afi::Ipv4);
    while !attributes.0.is_empty() {
        let (flags, code) = (attributes.u8(), attributes.u8());
        let extended = flags & EXTENDED_LENGTH != 0;
        let length = usize::from(if extended { attributes.u16() } else { attributes.u8().into() });
        read_attribute(&mut found, flags, code, Reader(attributes.take(length)));
    }
    found
}

fn read_attribute(found: &mut Update, flags: u8, code: u8, mut value: Reader<'_>) {
    let mut set = |name: &str, value: Value| {
        assert!(found.attributes.insert(name.into(), value).is_none(), "{name} twice");
    };
    match code {
        1 => set("origin", ["igp", "egp", "incomplete"][usize::from(value.u8())].into()),
        2 => set("asPath", value.as_path()),
        3 => set("nextHop", Ipv4Addr::from(value.u32()).to_string().into()),
        4 => set("med", value.u32().into()),
        5 => set("localPref", value.u32().into()),
        8 => set("communities", value.colons(2, |r| r.u16().into())),
        9 => set("originatorId", Ipv4Addr::from(value.u32()).to_string().into()),
        10 => {
            let list = value.all(|r| Ipv4Addr::from(r.u32()).to_string());
            set("clusterList", list.into());
        }
        14 => {
            let afi = value.afi();
            let length = usize::from(value.u8());
            let mut hops = Reader(value.take(length));
            let hop = |hops: &mut Reader<'_>| {
                Value::from(hops.address(if length >= 16 { 16 } else { 4 }).to_string())
            };
            set("nextHop", hop(&mut hops));
            if !hops.0.is_empty() {
                set("linkLocal", hop(&mut hops));
            }
            assert_eq!(value.u8(), 0, "reserved octet of MP_REACH_NLRI");
            found.announced.extend(value.prefixes(afi));
        }
        15 => {
            let afi = value.afi();
            found.withdrawn.extend(value.prefixes(afi));
        }
        16 => {
            let list = value.all(|r| hex(r.take(8)));
            set("extCommunities", list.into());
        }
        32 => set("largeCommunities", value.colons(3, Reader::u32)),
        _ => {
            let other = json!({"code": code, "flags": flags, "value": hex(value.0)});
            let others = found.attributes.entry("others").or_insert_with(|| json!([]));
            others.as_array_mut().unwrap().push(other);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Takes octets from the front; a message that is too short is a failed test.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at_checked(count).expect("a message that is long enough");
        self.0 = rest;
        head
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn all<T>(&mut self, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut list = Vec::new();
        while !self.0.is_empty() {
            list.push(read(self));
        }
        list
    }

    fn afi(&mut self) -> Afi {
        let afi = Afi::from_code(self.u16()).expect("a family that was offered");
        assert_eq!(self.u8(), 1, "SAFI");
        afi
    }

    fn address(&mut self, octets: usize) -> IpAddr {
        match octets {
            4 => Ipv4Addr::from(self.u32()).into(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)).unwrap()).into(),
        }
    }

    fn prefixes(&mut self, afi: Afi) -> Vec<IpPrefix> {
        self.all(|reader| {
            let len = reader.u8();
            let mut octets = [0; 16];
            let sent = reader.take(usize::from(len.div_ceil(8)));
            octets[..sent.len()].copy_from_slice(sent);
            let addr = match afi {
                Afi::Ipv4 => Reader(&octets).address(4),
                Afi::Ipv6 => Reader(&octets).address(16),
            };
            IpPrefix::new(addr, len).expect("a length of the family")
        })
    }

    fn as_path(&mut self) -> Value {
        let mut path: Vec<Value> = Vec::new();
        while !self.0.is_empty() {
            let (kind, count) = (self.u8(), self.u8());
            let mut hops: Vec<u32> = (0..count).map(|_| self.u32()).collect();
            if kind == 2 {
                path.extend(hops.into_iter().map(Value::from));
            } else {
                hops.sort_unstable();
                path.push(hops.into());
            }
        }
        path.into()
    }

    /// Groups of numbers with colons between them, sorted by number.
    fn colons(&mut self, group: usize, read: impl Fn(&mut Self) -> u32) -> Value {
        let mut list = self.all(|reader| (0..group).map(|_| read(reader)).collect::<Vec<u32>>());
        list.sort();
        let text = |group: &Vec<u32>| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(":");
        list.iter().map(text).collect::<Vec<_>>().into()
    }
}
