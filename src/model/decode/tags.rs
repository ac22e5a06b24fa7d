//! YAML tags that nobody meant: `nodeSelector: !has(rack)` without quotes is a tag, and no text.
//!
//! Owns: finding tags in a text, and saying which field of which resource has one. Never: changes what is read: as in
//! Calico's own tools that is what stands behind the tag, which is nothing at all where a selector is meant.

use granit_parser::{Event, Parser, Tag};
use serde_json::Value;

use super::fields::scalar_text;
use super::{DecodedResource, text::quoted};
use crate::model::{Code, Kind, Problem};

/// Tags of YAML itself, as `!!str`, mean what they say.
const CORE: &str = "tag:yaml.org,2002:";

/// A value with a tag that is not YAML's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tagged {
    path: Vec<Step>,
    tag: String,
    /// Nothing stands behind the tag.
    empty: bool,
}

/// One step into a document.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// An object or list that is not at its end yet.
enum Open {
    /// With the key whose value comes next; `None`: a key comes next.
    Map(Option<String>),
    /// With the number of the item that comes next.
    List(usize),
}

/// The tagged values of a YAML text, as far as it can be read.
pub(super) fn tagged(text: &str) -> Vec<Tagged> {
    let mut found = Vec::new();
    if !perhaps(text) {
        return found;
    }
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, _)) = event else { break };
        match &event {
            Event::Scalar(value, _, _, tag) => {
                note(&open, tag.as_deref(), value.is_empty(), &mut found);
                done(&mut open, Some(value));
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => done(&mut open, None),
            Event::SequenceStart(_, _, tag) => {
                note(&open, tag.as_deref(), false, &mut found);
                open.push(Open::List(0));
            }
            Event::MappingStart(_, _, tag) => {
                note(&open, tag.as_deref(), false, &mut found);
                open.push(Open::Map(None));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                done(&mut open, None);
            }
            _ => {}
        }
    }
    found
}

/// Whether an exclamation mark stands where a tag may begin; the most texts need no second parser.
fn perhaps(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        *byte == b'!' && before.is_none_or(|byte| byte.is_ascii_whitespace() || b"[{,".contains(byte))
    })
}

fn note(open: &[Open], tag: Option<&Tag>, empty: bool, found: &mut Vec<Tagged>) {
    let Some(tag) = tag.filter(|tag| tag.handle() != CORE) else { return };
    let path = open.iter().map(|open| match open {
        Open::Map(Some(key)) => Some(Step::Key(key.clone())),
        // A key with a tag is no field.
        Open::Map(None) => None,
        Open::List(index) => Some(Step::Index(*index)),
    });
    if let Some(path) = path.collect() {
        found.push(Tagged { path, tag: tag.original(), empty });
    }
}

/// A node has ended; `scalar` is its text where it is one.
fn done(open: &mut [Open], scalar: Option<&str>) {
    match open.last_mut() {
        Some(Open::Map(key)) => {
            *key = match key {
                None => Some(scalar.unwrap_or("?").to_owned()),
                Some(_) => None,
            };
        }
        Some(Open::List(index)) => *index += 1,
        None => {}
    }
}

/// Says of each tagged value which resource and field it is; those of resources that nobody reads are left out.
pub fn blame(document: &Value, tagged: &[Tagged], found: &mut [DecodedResource]) {
    for Tagged { path, tag, empty } in tagged {
        let (resource, field) = within_list(document, path);
        let Some(name) = resource.get("metadata").and_then(|m| m.get("name")).and_then(scalar_text) else {
            continue;
        };
        let kind = resource.get("kind").and_then(Value::as_str);
        let is_it = |decoded: &&mut DecodedResource| {
            decoded.key.name == name && kind.is_none_or(|kind| decoded.key.kind.name() == kind)
        };
        let Some(decoded) = found.iter_mut().find(is_it) else { continue };
        let shown = match decoded.key.kind {
            Kind::Secret => "what begins with an exclamation mark".to_owned(),
            _ => quoted(tag),
        };
        let read = if *empty { "nothing" } else { "what stands behind it" };
        let why = format!(
            "{shown} without quotes is a tag of YAML and not part of the text: {read} is read here, by Calico's tools too"
        );
        decoded.problems.push(Problem {
            resource: decoded.key.to_string(),
            field: words(field),
            why,
            code: Code::UnquotedTag,
        });
    }
}

/// The resource that a path leads into, through the lists around it, and the path inside the resource.
fn within_list<'v, 'p>(document: &'v Value, path: &'p [Step]) -> (&'v Value, &'p [Step]) {
    let (item, rest) = match (document, path) {
        (Value::Array(items), [Step::Index(index), rest @ ..]) => (items.get(*index), rest),
        (Value::Object(map), [Step::Key(key), Step::Index(index), rest @ ..]) if key == "items" => {
            (map.get(key).and_then(|items| items.get(*index)), rest)
        }
        _ => (None, path),
    };
    item.map_or((document, path), |item| within_list(item, rest))
}

fn words(path: &[Step]) -> String {
    let mut words = String::new();
    for step in path {
        match step {
            Step::Key(key) if words.is_empty() => words.push_str(key),
            Step::Key(key) => words.push_str(&format!(".{key}")),
            Step::Index(index) => words.push_str(&format!("[{index}]")),
        }
    }
    words.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use crate::datastore::files::snapshot_of_texts;
    use crate::model::decode::Reading;

    #[test]
    fn text_that_yaml_takes_for_a_tag_is_named_with_resource_and_field_wherever_it_stands() {
        let head = |name: &str| {
            format!("apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\n")
        };
        let text = [
            "spec:\n  nodeSelector: !has(rr)\n  peerSelector: '!has(rr)'\n",
            "spec:\n  nodeSelector: !has(rr) rack == 'a'\n  peerSelector: ! has(rr)\n",
            "spec:\n  nodeSelector: !!str all()\n  peerIP: !!str 10.0.0.1\n",
            "spec: {filters: [a, !b]}\n",
        ];
        let documents: Vec<String> =
            text.iter().zip(["a", "b", "c", "d"]).map(|(text, name)| head(name) + text).collect();
        let list = "apiVersion: v1\nkind: List\nitems:\n- kind: BGPPeer\n  apiVersion: projectcalico.org/v3\n  \
                    metadata: {name: e}\n  spec: {nodeSelector: !all() }\n- apiVersion: v1\n  kind: Secret\n  \
                    metadata: {name: f}\n  stringData: {key: !pass }\n";
        let text = format!("{}---\n{list}", documents.join("---\n"));
        let snapshot = snapshot_of_texts("n1", Reading::default(), &[("f.yaml", &text)]);
        let named: Vec<String> = snapshot
            .problems
            .iter()
            .map(|problem| format!("{} {}", problem.resource, problem.field))
            .collect();
        let wanted = [
            "BGPPeer/a spec.nodeSelector",
            "BGPPeer/b spec.nodeSelector",
            "BGPPeer/b spec.peerSelector",
            "BGPPeer/d spec.filters[1]",
            "BGPPeer/d spec.filters[1]",
            "BGPPeer/e spec.nodeSelector",
            "Secret/default/f stringData.key",
        ];
        assert_eq!(named, wanted, "{:?}", snapshot.problems);
        assert!(!snapshot.problems.iter().any(|problem| problem.why.contains("pass")));
        assert_eq!(snapshot.peers["a"].node_selector, None);
    }
}
