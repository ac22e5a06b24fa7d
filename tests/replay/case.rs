//! Situations: `case.json` as types, with resources and recording beside it, out of a folder or of a file that has one
//! situation in each line. An unknown field is an error, so that a case never asks for something that is silently
//! left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use bgp_proto::{Afi, IpPrefix};
use serde::Deserialize;
use serde_json::Value;

/// One situation: a node and the world around it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub node: String,
    #[serde(rename = "title")]
    pub _title: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The Calico release that was recorded.
    #[serde(default = "newest")]
    pub release: String,
    #[serde(default)]
    pub endpoint_status: BTreeMap<String, Value>,
    #[serde(default)]
    pub links: Vec<Link>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default = "bgp_port")]
    pub listen: u16,
    #[serde(default)]
    pub peers: Vec<Peer>,
    #[serde(rename = "settle")]
    pub _settle: Option<f64>,
    /// The datastore, as YAML documents.
    #[serde(skip)]
    pub resources: String,
    /// What the incumbents did.
    #[serde(skip)]
    pub observed: Value,
}

/// A situation in one line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    case: Case,
    resources: String,
    observed: Value,
}

/// An interface of the node.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    pub name: String,
    #[serde(rename = "kind")]
    pub _kind: String,
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default = "yes")]
    pub up: bool,
    #[serde(default, rename = "remote")]
    pub _remote: Vec<String>,
}

/// A kernel route that is there before the daemon starts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    pub prefix: String,
    #[serde(default = "unicast", rename = "type")]
    pub kind: String,
    pub via: Option<IpAddr>,
    pub dev: Option<String>,
    pub protocol: Option<u8>,
    #[serde(default)]
    pub metric: u32,
    #[serde(rename = "scope")]
    pub _scope: Option<String>,
    #[serde(default)]
    pub onlink: bool,
}

/// A scripted neighbour.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    pub address: IpAddr,
    pub asn: u32,
    pub router_id: std::net::Ipv4Addr,
    #[serde(deserialize_with = "family")]
    pub family: Afi,
    #[serde(default = "bgp_port")]
    pub port: u16,
    pub dial: Option<IpAddr>,
    pub password: Option<String>,
    #[serde(rename = "link")]
    pub _link: Option<String>,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default = "hold_time")]
    pub hold_time: u16,
    #[serde(default)]
    pub announce: Vec<Announcement>,
}

/// How a neighbour behaves.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Listens, and dials after four seconds where no connection is up.
    #[default]
    Both,
    /// Listens only.
    Passive,
    /// Listens only, and never answers.
    Silent,
}

/// A route that a neighbour sends. What is left out takes the usual value of its kind of session.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Announcement {
    pub prefix: String,
    pub next_hop: Option<IpAddr>,
    #[serde(default = "igp")]
    pub origin: String,
    pub as_path: Option<Vec<Hop>>,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    #[serde(default)]
    pub communities: Vec<String>,
    #[serde(default)]
    pub large_communities: Vec<String>,
    pub originator_id: Option<std::net::Ipv4Addr>,
    #[serde(default)]
    pub cluster_list: Vec<std::net::Ipv4Addr>,
}

/// An entry of `asPath`; a nested list stands for an AS_SET.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub enum Hop {
    As(u32),
    Set(Vec<u32>),
}

fn newest() -> String {
    "v3.33".into()
}

fn bgp_port() -> u16 {
    179
}

fn hold_time() -> u16 {
    240
}

fn yes() -> bool {
    true
}

fn igp() -> String {
    "igp".into()
}

fn unicast() -> String {
    "unicast".into()
}

fn family<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Afi, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "ipv4" => Ok(Afi::Ipv4),
        "ipv6" => Ok(Afi::Ipv6),
        other => Err(serde::de::Error::custom(format!("no family: {other}"))),
    }
}

impl Case {
    /// Reads FOLDER/case.json.
    pub fn load(folder: &Path) -> Case {
        let mut case: Case = serde_json::from_str(&text(&folder.join("case.json")))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        case.resources = text(&folder.join("resources.yaml"));
        case.observed = serde_json::from_str(&text(&folder.join("observed.json"))).unwrap();
        case
    }

    /// Reads a line of FILE.jsonl.
    pub fn of_line(line: &str) -> Case {
        let Line { name, case, resources, observed } = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: {error}", &line[..line.len().min(80)]));
        assert_eq!(name, case.name, "the name of a line is that of its case");
        Case { resources, observed, ..case }
    }

    /// The prefixes of the node's own addresses.
    pub fn subnets(&self) -> impl Iterator<Item = IpPrefix> {
        self.links.iter().flat_map(|link| &link.addresses).map(|address| prefix(address))
    }
}

/// A prefix or an address with a length, masked.
pub fn prefix(text: &str) -> IpPrefix {
    let (addr, len) = text.split_once('/').unwrap();
    IpPrefix::new(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
}

pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
