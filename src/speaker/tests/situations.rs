//! Recorded situations of confd and BIRD: resources and a scripted world in, routes of neighbours and kernel out.
//!
//! Sessions are taken as recorded (who is established); everything from the UPDATE inwards is the production code.

use std::collections::BTreeMap;
use std::path::Path;

use bgp_proto::wire::Segment;
use serde_json::{Value, json};
use smallvec::SmallVec;

use super::*;
use crate::datastore::files::snapshot_of_texts;
use crate::desired::{NodeFacts, compile};
use crate::model::decode::Reading;

fn load(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value) -> u32 {
    value.as_u64().map_or(0, |n| u32::try_from(n).unwrap())
}

fn pair(text: &str) -> Vec<u32> {
    text.split(':').map(|part| part.parse().unwrap()).collect()
}

/// The attributes of an announcement of case.json.
fn announced(route: &Value, internal: bool, asn: u32) -> Attributes {
    let path = match route["asPath"].as_array() {
        Some(path) => {
            let mut segments = SmallVec::new();
            for part in path {
                match (part.as_array(), segments.last_mut()) {
                    (Some(set), _) => {
                        segments.push(Segment::Set(set.iter().map(|n| Asn(number(n))).collect()))
                    }
                    (None, Some(Segment::Sequence(list))) => list.push(Asn(number(part))),
                    (None, _) => segments.push(Segment::Sequence(smallvec![Asn(number(part))])),
                }
            }
            AsPath { segments }
        }
        None if internal => AsPath::default(),
        None => AsPath::sequence([Asn(asn)]),
    };
    Attributes {
        origin: match text(route, "origin") {
            "egp" => bgp_proto::wire::Origin::Egp,
            "incomplete" => bgp_proto::wire::Origin::Incomplete,
            _ => bgp_proto::wire::Origin::Igp,
        },
        as_path: path,
        med: route["med"].as_u64().map(|n| u32::try_from(n).unwrap()),
        local_pref: match route["localPref"].as_u64() {
            Some(n) => Some(u32::try_from(n).unwrap()),
            None => internal.then_some(100),
        },
        communities: list(route, "communities")
            .iter()
            .map(|c| pair(c.as_str().unwrap()))
            .map(|parts| parts[0] << 16 | parts[1])
            .collect(),
        large_communities: list(route, "largeCommunities")
            .iter()
            .map(|c| pair(c.as_str().unwrap()).try_into().unwrap())
            .collect(),
        originator_id: route["originatorId"].as_str().map(|id| RouterId(id.parse().unwrap())),
        cluster_list: list(route, "clusterList")
            .iter()
            .map(|id| bgp_proto::ClusterId(id.as_str().unwrap().parse().unwrap()))
            .collect(),
        ..Attributes::default()
    }
}

/// A held route in the words of observed.json.
fn exported(prefix: IpPrefix, attributes: &Attributes, next_hop: NextHop) -> Value {
    let mut route = json!({"prefix": prefix.to_string(), "nextHop": next_hop.addr().to_string()});
    route["origin"] = match attributes.origin {
        bgp_proto::wire::Origin::Igp => "igp",
        bgp_proto::wire::Origin::Egp => "egp",
        bgp_proto::wire::Origin::Incomplete => "incomplete",
    }
    .into();
    let mut path = Vec::new();
    for segment in &attributes.as_path.segments {
        match segment {
            Segment::Sequence(list) => path.extend(list.iter().map(|asn| json!(asn.0))),
            Segment::Set(set) => path.push(json!(set.iter().map(|asn| asn.0).collect::<Vec<_>>())),
        }
    }
    route["asPath"] = path.into();
    if let Some(local_pref) = attributes.local_pref {
        route["localPref"] = local_pref.into();
    }
    if let Some(med) = attributes.med {
        route["med"] = med.into();
    }
    if !attributes.communities.is_empty() {
        let mut communities = attributes.communities.clone();
        communities.sort_unstable();
        let text = communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff));
        route["communities"] = text.collect::<Vec<_>>().into();
    }
    if !attributes.large_communities.is_empty() {
        let mut communities = attributes.large_communities.clone();
        communities.sort_unstable();
        let text = communities.iter().map(|[a, b, c]| format!("{a}:{b}:{c}"));
        route["largeCommunities"] = text.collect::<Vec<_>>().into();
    }
    if let Some(id) = attributes.originator_id {
        route["originatorId"] = id.to_string().into();
    }
    if !attributes.cluster_list.is_empty() {
        let text = attributes.cluster_list.iter().map(ToString::to_string);
        route["clusterList"] = text.collect::<Vec<_>>().into();
    }
    route
}

/// Runs one situation; what differs from the recording, one line each.
fn differences(folder: &Path) -> Vec<String> {
    let case = load(&folder.join("case.json"));
    let observed = load(&folder.join("observed.json"));
    let resources = std::fs::read_to_string(folder.join("resources.yaml")).unwrap();
    let node = text(&case, "node");
    let snapshot = snapshot_of_texts(node, Reading::default(), &[("resources.yaml", &resources)]);
    let facts = NodeFacts {
        node_name: node.into(),
        router_id: case["env"]["CALICO_ROUTER_ID"].as_str().map(str::to_owned),
        cluster_release: Some(Release { major: 3, minor: 33 }),
        ..NodeFacts::default()
    };
    let state = match compile(&snapshot, &facts) {
        Ok(state) => state,
        Err(unready) => return vec![format!("compile: {unready}")],
    };
    let by_address: BTreeMap<IpAddr, SessionKey> =
        state.peers.keys().map(|key| (key.addr, key.clone())).collect();
    let mut bench = Bench::new(state);
    let mut names = BTreeMap::new();
    for (n, link) in list(&case, "links").iter().enumerate() {
        let ifindex = u32::try_from(n + 2).unwrap();
        let addresses: Vec<&str> = list(link, "addresses").iter().map(|a| a.as_str().unwrap()).collect();
        bench.link(ifindex, text(link, "name"), &addresses);
        names.insert(text(link, "name").to_owned(), ifindex);
    }
    let mut aliens: BTreeMap<IpPrefix, (u32, Target)> = BTreeMap::new();
    for route in list(&case, "routes") {
        let to = prefix(text(route, "prefix"));
        if route["protocol"].as_u64() == Some(2) {
            continue;
        }
        let metric = match (route["metric"].as_u64(), to.afi()) {
            (Some(metric), _) => u32::try_from(metric).unwrap(),
            (None, Afi::Ipv4) => 0,
            (None, Afi::Ipv6) => 1024,
        };
        let target = match text(route, "type") {
            "blackhole" => Target::Blackhole,
            "unreachable" => Target::Unreachable,
            "prohibit" => Target::Prohibit,
            _ => Target::Unicast(smallvec![Leg {
                via: route["via"].as_str().map(ip),
                ifindex: names[text(route, "dev")],
                onlink: route["onlink"].as_bool().unwrap_or_default(),
                weight: 1,
            }]),
        };
        if aliens.get(&to).is_none_or(|(least, _)| metric < *least) {
            aliens.insert(to, (metric, target));
        }
    }
    // A route of somebody else with our prefix and metric keeps its place in the kernel (KRT-38).
    let taken: BTreeMap<IpPrefix, u32> = aliens.iter().map(|(to, (metric, _))| (*to, *metric)).collect();
    for (to, (metric, target)) in aliens {
        bench.alien(&to.to_string(), Some(target), metric);
    }
    bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
    let mut wrong = Vec::new();
    for scripted in list(&case, "peers") {
        let address = text(scripted, "address");
        let session = list(&observed, "sessions").iter().find(|session| text(session, "peer") == address);
        if !session.is_some_and(|session| session["established"] == json!(true)) {
            continue;
        }
        let Some(id) = by_address.get(&ip(address)).map(|key| bench.ids[key]) else {
            wrong.push(format!("no peer {address}"));
            continue;
        };
        let local = session.map(|session| ip(text(session, "localAddress"))).unwrap();
        let peer_id = RouterId(text(scripted, "routerId").parse().unwrap());
        bench.up_with(id, |negotiated| {
            negotiated.endpoints.local.set_ip(local);
            negotiated.peer_id = peer_id;
        });
    }
    for scripted in list(&case, "peers") {
        let address = text(scripted, "address");
        let Some(key) = by_address.get(&ip(address)) else { continue };
        let id = bench.ids[key];
        if !bench.contexts.contains_key(&id) {
            continue;
        }
        let internal = bench.state.peers[key].treatment.internal;
        let asn = number(&scripted["asn"]);
        for route in list(scripted, "announce") {
            let next_hop = route["nextHop"].as_str().unwrap_or(address);
            bench.announce(id, text(route, "prefix"), next_hop, announced(route, internal, asn));
        }
    }
    bench.past_recovery();
    bench.drain_all();

    for (address, expected) in observed["exports"].as_object().unwrap() {
        let held = by_address.get(&ip(address)).and_then(|key| bench.neighbours.get(&bench.ids[key]));
        let got: BTreeMap<String, Value> = held
            .into_iter()
            .flat_map(|neighbour| &neighbour.held)
            .map(|((prefix, _), (attributes, next_hop))| {
                (prefix.to_string(), exported(*prefix, attributes, *next_hop))
            })
            .collect();
        let expected: BTreeMap<String, Value> = expected
            .as_array()
            .unwrap()
            .iter()
            .map(|route| (text(route, "prefix").to_owned(), route.clone()))
            .collect();
        compare(&format!("to {address}"), &expected, &got, &mut wrong);
    }
    let dev: BTreeMap<u32, &String> = names.iter().map(|(name, ifindex)| (*ifindex, name)).collect();
    let got: BTreeMap<String, Value> = bench
        .fib
        .iter()
        .map(|(prefix, route)| (prefix, route, crate::fib::stored_metric(prefix.afi(), route.metric)))
        .filter(|(prefix, _, metric)| taken.get(prefix) != Some(metric))
        .map(|(prefix, route, metric)| {
            let mut value = json!({
                "family": prefix.afi().name(), "table": 254, "prefix": prefix.to_string(),
                "type": route.target.kind(), "metric": metric,
            });
            let legs = route.target.legs();
            if !legs.is_empty() {
                let legs = legs.iter().map(|leg| {
                    let mut value = json!({"dev": dev[&leg.ifindex]});
                    if let Some(via) = leg.via {
                        value["via"] = via.to_string().into();
                    }
                    if leg.onlink {
                        value["onlink"] = true.into();
                    }
                    if legs.len() > 1 {
                        value["weight"] = leg.weight.into();
                    }
                    value
                });
                let mut legs: Vec<Value> = legs.collect();
                // The recording has them in the order of their text.
                legs.sort_by_key(|leg| text(leg, "via").to_owned());
                value["nexthops"] = legs.into();
            }
            (prefix.to_string(), value)
        })
        .collect();
    let expected: BTreeMap<String, Value> = list(&observed, "kernel")
        .iter()
        .map(|route| (text(route, "prefix").to_owned(), route.clone()))
        .collect();
    compare("kernel", &expected, &got, &mut wrong);
    wrong
}

fn compare(
    what: &str,
    expected: &BTreeMap<String, Value>,
    got: &BTreeMap<String, Value>,
    wrong: &mut Vec<String>,
) {
    for (prefix, route) in expected {
        match got.get(prefix) {
            None => wrong.push(format!("{what}: {prefix} missing, expected {route}")),
            Some(other) if other != route => wrong.push(format!("{what}: {other}, expected {route}")),
            Some(_) => (),
        }
    }
    for (prefix, route) in got.iter().filter(|(prefix, _)| !expected.contains_key(*prefix)) {
        wrong.push(format!("{what}: {prefix} unexpected: {route}"));
    }
}

fn situation(name: &str) -> Vec<String> {
    differences(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/confd").join(name))
}

#[test]
fn a_mesh_gives_the_routes_that_confd_and_bird_gave() {
    for name in [
        "mesh-explicitly-on",
        "mesh-local-is-reflector",
        "mesh-passive-by-string-order",
        "mesh-passive-by-string-order-v6",
        "mesh-no-reflection-between-internal",
        "mesh-ebgp-between-nodes",
        "node-dual-stack-mesh",
    ] {
        let wrong = situation(name);
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}
