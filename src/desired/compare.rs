//! What would change by going from one desired state to another, for people and programs: `calico-bgpd diff`.
//!
//! Owns: the shape of the JSON, which is an interface as that of [`view`](super::view) is, and the words. What becomes of
//! sessions is what [`diff`] says, which the daemon acts on. Never: compiles, or does any of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::view::{FamilyView, IntentView, ProgramView, RuleView, SessionView, view};
use super::{DesiredState, Peer, PeerChange, diff};
use crate::model::problem::ProblemView;

/// All that differs.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Fields of the node, its release, owners of routes and listening sockets that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node: Vec<FieldChange>,
    /// Sessions that differ, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<SessionChange>,
    /// The IPv4 table.
    #[serde(skip_serializing_if = "FamilyChange::is_empty")]
    pub ipv4: FamilyChange,
    /// The IPv6 table.
    #[serde(skip_serializing_if = "FamilyChange::is_empty")]
    pub ipv6: FamilyChange,
    /// Problems that come and go.
    #[serde(skip_serializing_if = "Change::is_empty")]
    pub problems: Change,
}

/// What comes and what goes, in words.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What is new.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// What is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// All is as it was but its order.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reordered: bool,
}

/// A field with another value.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Its name, as in `intent --json`.
    pub field: String,
    /// Before; absent: not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// After.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// A session that differs.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionChange {
    /// Its name; that of the new one where it is another.
    pub name: String,
    /// The peer's address.
    pub address: String,
    /// `added`, `removed`, `replaced` (a new connection), or `stays`.
    pub effect: &'static str,
    /// When what differs takes effect, where the session stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<&'static str>,
    /// Which fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Rules of its import.
    #[serde(skip_serializing_if = "Change::is_empty")]
    pub import: Change,
    /// Rules of its export.
    #[serde(skip_serializing_if = "Change::is_empty")]
    pub export: Change,
}

/// A family's table.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyChange {
    /// Routes that this node originates.
    #[serde(skip_serializing_if = "Change::is_empty")]
    pub originated: Change,
    /// Rules for what is written to the kernel.
    #[serde(skip_serializing_if = "Change::is_empty")]
    pub kernel: Change,
    /// Sets of prefixes that rules name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<&'static str, Change>,
    /// Other fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

impl Change {
    fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

impl FamilyChange {
    fn is_empty(&self) -> bool {
        *self == FamilyChange::default()
    }
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Comparison::default()
    }
}

/// Compares two states of one node.
pub fn compare(old: &DesiredState, new: &DesiredState) -> Comparison {
    let (before, after) = (view(old), view(new));
    let general = |view: &IntentView| {
        serde_json::json!({
            "node": view.node, "release": view.release, "clusterRoutes": view.cluster_routes, "listen": view.listen,
        })
    };
    let peers = |view: &IntentView| -> BTreeMap<String, SessionView> {
        view.peers.iter().map(|peer| (peer.name.clone(), peer.clone())).collect()
    };
    let (old_views, new_views) = (peers(&before), peers(&after));
    let mut sessions: Vec<SessionChange> = diff(Some(old), new)
        .peers
        .iter()
        .filter_map(|(key, change)| {
            let at = |state: &DesiredState| state.peers.get(key).map(|peer| Peer::clone(peer));
            let (was, is) = (at(old), at(new));
            let shown = is.as_ref().or(was.as_ref())?;
            let view_of = |peer: &Option<Peer>, views: &BTreeMap<String, SessionView>| {
                peer.as_ref().and_then(|peer| views.get(&peer.name)).cloned()
            };
            let (was, is) = (view_of(&was, &old_views), view_of(&is, &new_views));
            let programs = |name: fn(&SessionView) -> &String| {
                let program = |view: &Option<SessionView>, of: &IntentView| {
                    view.as_ref().and_then(|view| of.programs.get(name(view))).cloned()
                };
                // Those of a session that comes or goes as a whole are no news.
                match (program(&was, &before), program(&is, &after)) {
                    (Some(was), Some(is)) => rules(&was, &is),
                    _ => Change::default(),
                }
            };
            let (effect, when) = effect(*change);
            Some(SessionChange {
                name: shown.name.clone(),
                address: shown.spec.transport.peer.to_string(),
                effect,
                when,
                import: programs(|view| &view.import),
                export: programs(|view| &view.export),
                fields: match (&was, &is) {
                    (Some(was), Some(is)) => fields(&without_programs(was), &without_programs(is)),
                    _ => Vec::new(),
                },
            })
        })
        .collect();
    sessions.sort_by(|a, b| a.name.cmp(&b.name));
    Comparison {
        node: fields(&general(&before), &general(&after)),
        sessions,
        ipv4: family((&before, &before.ipv4), (&after, &after.ipv4)),
        ipv6: family((&before, &before.ipv6), (&after, &after.ipv6)),
        problems: lists(
            before.problems.iter().map(ProblemView::to_string),
            after.problems.iter().map(ProblemView::to_string),
        ),
    }
}

fn effect(change: PeerChange) -> (&'static str, Vec<&'static str>) {
    match change {
        PeerChange::Added => ("added", Vec::new()),
        PeerChange::Removed => ("removed", Vec::new()),
        PeerChange::Replaced => ("replaced", Vec::new()),
        PeerChange::Updated { next, key, treatment, shown: _ } => {
            let when = [
                (treatment, "at once"),
                (key, "the key at once, on the live connection"),
                (next, "with the next connection"),
            ];
            ("stays", when.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect())
        }
    }
}

/// Names of programs say nothing from one state to another.
fn without_programs(peer: &SessionView) -> Value {
    let mut value = serde_json::to_value(peer).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        map.remove("import");
        map.remove("export");
    }
    value
}

fn family(old: (&IntentView, &FamilyView), new: (&IntentView, &FamilyView)) -> FamilyChange {
    let originated = |family: &FamilyView| -> Vec<String> {
        let words = family.originated.iter().map(|route| match &route.via {
            Some(via) => format!("{} via {via}", route.prefix),
            None => format!("{} blackhole", route.prefix),
        });
        words.collect()
    };
    let none = ProgramView { rules: Vec::new(), default: String::new() };
    let kernel = |(view, family): (&IntentView, &FamilyView)| {
        view.programs.get(&family.kernel).cloned().unwrap_or_else(|| none.clone())
    };
    let others = |family: &FamilyView| {
        serde_json::json!({
            "normalRoutePriority": family.normal_route_priority, "ignoredInterfaces": family.ignored_interfaces,
        })
    };
    let mut sets = BTreeMap::new();
    for name in old.1.sets.keys().chain(new.1.sets.keys()) {
        let of = |family: &FamilyView| family.sets.get(name).cloned().unwrap_or_default();
        let change = lists(of(old.1), of(new.1));
        if !change.is_empty() {
            sets.insert(*name, change);
        }
    }
    FamilyChange {
        originated: lists(originated(old.1), originated(new.1)),
        kernel: rules(&kernel(old), &kernel(new)),
        sets,
        fields: fields(&others(old.1), &others(new.1)),
    }
}

fn rules(old: &ProgramView, new: &ProgramView) -> Change {
    let words = |program: &ProgramView| -> Vec<String> {
        let otherwise = format!("otherwise {}", program.default);
        program.rules.iter().map(rule).chain([otherwise]).collect()
    };
    lists(words(old), words(new))
}

fn rule(rule: &RuleView) -> String {
    let when = if rule.when.is_empty() { "always".to_owned() } else { rule.when.join(" and ") };
    let then: Vec<&str> = rule.then.iter().chain(&rule.decision).map(String::as_str).collect();
    format!("{when}: {} [{}]", then.join(", "), rule.origin)
}

/// What of two lists is in one of them only, as often as it is there.
fn lists(old: impl IntoIterator<Item = String>, new: impl IntoIterator<Item = String>) -> Change {
    let (old, new): (Vec<String>, Vec<String>) = (old.into_iter().collect(), new.into_iter().collect());
    let surplus = |of: &[String], over: &[String]| {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        over.iter().for_each(|item| *counts.entry(item).or_default() += 1);
        let mut found = Vec::new();
        for item in of {
            match counts.get_mut(item) {
                Some(count) if *count > 0 => *count -= 1,
                _ => found.push(item.clone()),
            }
        }
        found
    };
    let (added, removed) = (surplus(&new, &old), surplus(&old, &new));
    let reordered = added.is_empty() && removed.is_empty() && old != new;
    Change { added, removed, reordered }
}

/// The fields of two values that differ, by their paths.
fn fields(old: &Value, new: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    walk("", Some(old), Some(new), &mut found);
    found
}

fn walk(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<FieldChange>) {
    if old == new {
        return;
    }
    let empty = Map::new();
    let object = |value: Option<&Value>| value.and_then(Value::as_object).is_some();
    if object(old) || object(new) {
        let old = old.and_then(Value::as_object).unwrap_or(&empty);
        let new = new.and_then(Value::as_object).unwrap_or(&empty);
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            walk(&path, old.get(key), new.get(key), found);
        }
        return;
    }
    let set = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
    let (from, to) = (set(old), set(new));
    if from != to {
        found.push(FieldChange { field: path.to_owned(), from, to });
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |value: &Option<Value>| match value {
            None => "not set".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        write!(f, "{}: {} -> {}", self.field, words(&self.from), words(&self.to))
    }
}

fn write_change(f: &mut fmt::Formatter<'_>, indent: &str, what: &str, change: &Change) -> fmt::Result {
    if change.is_empty() {
        return Ok(());
    }
    if change.reordered {
        return writeln!(f, "{indent}{what}: in another order");
    }
    writeln!(f, "{indent}{what}:")?;
    change.removed.iter().try_for_each(|item| writeln!(f, "{indent}  - {item}"))?;
    change.added.iter().try_for_each(|item| writeln!(f, "{indent}  + {item}"))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing would change");
        }
        self.node.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        for session in &self.sessions {
            let when = if session.when.is_empty() {
                String::new()
            } else {
                format!(", {}", session.when.join(", "))
            };
            writeln!(f, "session {} ({}): {}{when}", session.name, session.address, session.effect)?;
            session.fields.iter().try_for_each(|change| writeln!(f, "  {change}"))?;
            write_change(f, "  ", "import", &session.import)?;
            write_change(f, "  ", "export", &session.export)?;
        }
        for (name, family) in [("IPv4", &self.ipv4), ("IPv6", &self.ipv6)] {
            if family.is_empty() {
                continue;
            }
            writeln!(f, "{name}")?;
            family.fields.iter().try_for_each(|change| writeln!(f, "  {change}"))?;
            write_change(f, "  ", "routes of this node", &family.originated)?;
            write_change(f, "  ", "rules for the kernel", &family.kernel)?;
            for (set, change) in &family.sets {
                write_change(f, "  ", set, change)?;
            }
        }
        write_change(f, "", "problems", &self.problems)
    }
}
