//! Differences between what was recorded and what was seen here, one line each, in the words of the lab that recorded.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Lines by group; none where the two agree.
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let groups = [
        ("sessions", sessions(expected, actual)),
        ("exports", exports(&expected["exports"], &actual["exports"])),
        ("kernel", kernel(&expected["kernel"], &actual["kernel"])),
        ("others", listed("other route", &expected["others"], &actual["others"])),
    ];
    let mut lines = Vec::new();
    for (group, found) in groups.into_iter().filter(|(_, found)| !found.is_empty()) {
        lines.push(format!("  {group}:"));
        lines.extend(found.into_iter().map(|line| format!("    {line}")));
    }
    lines
}

fn sessions(expected: &Value, actual: &Value) -> Vec<String> {
    let by_peer = |value: &Value| {
        let list = entries(&value["sessions"]);
        list.iter().map(|s| (s["peer"].as_str().unwrap().to_owned(), flat(s))).collect::<BTreeMap<_, _>>()
    };
    let (left, right) = (by_peer(expected), by_peer(actual));
    let mut lines = Vec::new();
    for peer in keys(&left, &right) {
        match (left.get(peer), right.get(peer)) {
            (Some(mine), Some(theirs)) => lines.extend(fields(&format!("session {peer}:"), mine, theirs)),
            (Some(_), None) => lines.push(format!("session {peer} missing")),
            _ => lines.push(format!("session {peer} not expected")),
        }
    }
    lines.extend(listed("connection to", &expected["unexpected"], &actual["unexpected"]));
    lines
}

/// A session with the fields of its OPEN beside the others. Without sockets nothing can be said about the TTL of an
/// answered connection, so it is left out on both sides.
fn flat(session: &Value) -> Value {
    let mut found = session.as_object().unwrap().clone();
    if session["dialledBy"] == "world" {
        found.remove("ttl");
    }
    if let Some(Value::Object(open)) = found.remove("open") {
        for (key, value) in open {
            let value = if key == "capabilities" { capabilities(&value) } else { value };
            found.insert(format!("open.{key}"), value);
        }
    }
    Value::Object(found)
}

fn capabilities(list: &Value) -> Value {
    let text = |c: &Value| format!("{}:{}", c["code"], c["value"].as_str().unwrap());
    entries(list).iter().map(text).collect::<Vec<_>>().join(" ").into()
}

fn exports(expected: &Value, actual: &Value) -> Vec<String> {
    let empty = Map::new();
    let (left, right) = (expected.as_object().unwrap_or(&empty), actual.as_object().unwrap_or(&empty));
    let by_peer = |map: &Map<String, Value>, peer: &str| {
        let list = map.get(peer).map(entries).unwrap_or_default();
        list.into_iter().map(|r| (r["prefix"].as_str().unwrap().to_owned(), r)).collect::<BTreeMap<_, _>>()
    };
    let peers: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let mut lines = Vec::new();
    for peer in peers {
        let (mine, theirs) = (by_peer(left, peer), by_peer(right, peer));
        for prefix in keys(&mine, &theirs) {
            let place = format!("exports to {peer}: {prefix}");
            match (mine.get(prefix), theirs.get(prefix)) {
                (Some(a), Some(b)) => lines.extend(fields(&place, a, b)),
                (Some(_), None) => lines.push(format!("{place} missing")),
                _ => lines.push(format!("{place} not expected")),
            }
        }
    }
    lines
}

fn kernel(expected: &Value, actual: &Value) -> Vec<String> {
    let group = |value: &Value| {
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for route in entries(value) {
            let word = |key: &str| route[key].as_str().map_or_else(|| route[key].to_string(), str::to_owned);
            let key = format!("{} table {}: {}", word("family"), word("table"), word("prefix"));
            found.entry(key).or_default().push(route);
        }
        found
    };
    let (left, right) = (group(expected), group(actual));
    let mut lines = Vec::new();
    for key in keys(&left, &right) {
        let place = format!("kernel {key}");
        let (mine, theirs) = (
            left.get(key).map(Vec::as_slice).unwrap_or_default(),
            right.get(key).map(Vec::as_slice).unwrap_or_default(),
        );
        let mut missing = mine.iter().filter(|route| !theirs.contains(route));
        let mut surplus = theirs.iter().filter(|route| !mine.contains(route));
        loop {
            match (missing.next(), surplus.next()) {
                (Some(want), Some(have)) => lines.extend(fields(&place, want, have)),
                (Some(want), None) => lines.push(format!("{place} missing ({})", brief(want))),
                (None, Some(have)) => lines.push(format!("{place} not expected ({})", brief(have))),
                (None, None) => break,
            }
        }
    }
    lines
}

fn listed(label: &str, expected: &Value, actual: &Value) -> Vec<String> {
    let (left, right) = (entries(expected), entries(actual));
    let missing = left.iter().filter(|e| !right.contains(e)).map(|e| format!("{label} {} missing", brief(e)));
    let surplus =
        right.iter().filter(|e| !left.contains(e)).map(|e| format!("{label} {} not expected", brief(e)));
    missing.chain(surplus).collect()
}

fn fields(place: &str, expected: &Value, actual: &Value) -> Vec<String> {
    let (left, right) = (expected.as_object().unwrap(), actual.as_object().unwrap());
    let names: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let line = |key: &String| match (left.get(key), right.get(key)) {
        (Some(want), None) => Some(format!("{place} {key} missing, expected {want}")),
        (None, Some(have)) => Some(format!("{place} {key} {have}, expected none")),
        (Some(want), Some(have)) if want != have => Some(format!("{place} {key} {have}, expected {want}")),
        _ => None,
    };
    names.into_iter().filter_map(line).collect()
}

fn brief(entry: &Value) -> String {
    let shown = |(key, value): (&String, &Value)| {
        (!["family", "table", "prefix"].contains(&key.as_str())).then(|| format!("{key} {value}"))
    };
    entry.as_object().unwrap().iter().filter_map(shown).collect::<Vec<_>>().join(" ")
}

fn entries(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn keys<'a, V>(left: &'a BTreeMap<String, V>, right: &'a BTreeMap<String, V>) -> Vec<&'a String> {
    left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))).collect()
}
