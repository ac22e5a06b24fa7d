//! What the API server sends, cut into resources: lists as they arrive, and lines of a watch.
//!
//! Owns: [`ListSplitter`], which never holds more of a list than one item, however long the list is; [`LineSplitter`];
//! [`pruned`] and [`event`], which read JSON and keep only the fields that our decoders look at, so that the status of a
//! thousand Nodes costs no memory. Never: knows what a field means.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::Kind;

/// A resource, or a line, that is longer than this is refused: etcd takes 1.5 MiB.
const LONGEST: usize = 16 << 20;
/// Annotations of a Node that are ours to read begin with this (DS-33).
const CALICO: &str = "projectcalico.org/";

/// What was sent is no answer of an API server.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// The error where it cannot be read for this reason.
pub fn malformed(why: impl fmt::Display) -> Unreadable {
    Unreadable(format!("what the API server sends cannot be read: {why}"))
}

/// What a list says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    /// The revision at which it is the list.
    pub resource_version: String,
    /// Where the next page begins; empty at the end.
    pub r#continue: String,
}

/// What is being copied out of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copying {
    Nothing,
    Key,
    Item,
    Metadata,
}

/// Cuts a list into its items while it arrives.
#[derive(Debug)]
pub struct ListSplitter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// A key of the list itself comes next, not a value.
    key_next: bool,
    /// The key of the list itself whose value comes or is under way.
    key: Vec<u8>,
    in_items: bool,
    copying: Copying,
    copy: Vec<u8>,
    metadata: Option<Vec<u8>>,
    ended: bool,
}

impl ListSplitter {
    /// Nothing has arrived yet.
    pub fn new() -> Self {
        ListSplitter {
            depth: 0,
            in_string: false,
            escaped: false,
            key_next: false,
            key: Vec::new(),
            in_items: false,
            copying: Copying::Nothing,
            copy: Vec::new(),
            metadata: None,
            ended: false,
        }
    }

    /// Takes what has arrived and gives each item that is complete by it, as JSON.
    ///
    /// # Errors
    ///
    /// Where it cannot be a list.
    pub fn push(&mut self, chunk: &[u8], mut item: impl FnMut(&[u8])) -> Result<(), Unreadable> {
        // Where the part that is copied begins in this chunk.
        let mut from = 0;
        for (at, &byte) in chunk.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.copying == Copying::Key {
                            self.take(chunk.get(from..at))?;
                            self.key = std::mem::take(&mut self.copy);
                            self.copying = Copying::Nothing;
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => {
                    if self.depth == 0 {
                        return Err(malformed("an object is wanted, not a text"));
                    }
                    self.in_string = true;
                    if self.depth == 1 && self.key_next {
                        (self.copying, from) = (Copying::Key, at + 1);
                    }
                }
                b'{' | b'[' => {
                    if self.ended || (self.depth == 0 && byte != b'{') {
                        return Err(malformed("an object is wanted"));
                    }
                    match self.depth {
                        0 => self.key_next = true,
                        1 if self.key == b"items" && byte == b'[' => self.in_items = true,
                        1 if self.key == b"metadata" && byte == b'{' => {
                            (self.copying, from) = (Copying::Metadata, at);
                        }
                        2 if self.in_items && byte == b'{' => (self.copying, from) = (Copying::Item, at),
                        _ => {}
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    self.depth =
                        self.depth.checked_sub(1).ok_or_else(|| malformed("a bracket closes nothing"))?;
                    match (self.copying, self.depth) {
                        (Copying::Item, 2) => {
                            self.copying = Copying::Nothing;
                            // Most items come in one piece and need no copy.
                            let rest = chunk.get(from..=at).unwrap_or_default();
                            if self.copy.is_empty() {
                                item(rest);
                            } else {
                                self.take(Some(rest))?;
                                item(&self.copy);
                                self.copy.clear();
                            }
                        }
                        (Copying::Metadata, 1) => {
                            self.copying = Copying::Nothing;
                            self.take(chunk.get(from..=at))?;
                            self.metadata = Some(std::mem::take(&mut self.copy));
                        }
                        (_, 1) => self.in_items = false,
                        (_, 0) => self.ended = true,
                        _ => {}
                    }
                }
                b',' if self.depth == 1 => self.key_next = true,
                b':' if self.depth == 1 => self.key_next = false,
                _ if self.depth == 0 && !byte.is_ascii_whitespace() => {
                    return Err(malformed("an object is wanted, not a text"));
                }
                _ => {}
            }
        }
        if self.copying != Copying::Nothing {
            self.take(chunk.get(from..))?;
        }
        Ok(())
    }

    /// What the list says of itself, where all of it has arrived.
    ///
    /// # Errors
    ///
    /// Where it ends before its end, or says no revision.
    pub fn finish(self) -> Result<ListMeta, Unreadable> {
        if !self.ended {
            return Err(malformed("it ends in the middle"));
        }
        let metadata = self.metadata.ok_or_else(|| malformed("a list without metadata"))?;
        let meta: ListMeta = serde_json::from_slice(&metadata).map_err(malformed)?;
        if meta.resource_version.is_empty() {
            return Err(malformed("a list without resourceVersion"));
        }
        Ok(meta)
    }

    fn take(&mut self, part: Option<&[u8]>) -> Result<(), Unreadable> {
        let part = part.unwrap_or_default();
        if self.copy.len() + part.len() > LONGEST {
            return Err(malformed("a resource of more than 16 MiB"));
        }
        self.copy.extend_from_slice(part);
        Ok(())
    }
}

/// Cuts what arrives of a watch into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    held: Vec<u8>,
}

impl LineSplitter {
    /// Takes what has arrived and gives the lines that are complete by it.
    ///
    /// # Errors
    ///
    /// Where a line does not end.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Vec<u8>>, Unreadable> {
        let mut lines = Vec::new();
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            let mut whole = std::mem::take(&mut self.held);
            whole.extend_from_slice(line);
            if !whole.iter().all(u8::is_ascii_whitespace) {
                lines.push(whole);
            }
            rest = after.get(1..).unwrap_or_default();
        }
        if self.held.len() + rest.len() > LONGEST {
            return Err(malformed("a line of more than 16 MiB"));
        }
        self.held.extend_from_slice(rest);
        Ok(lines)
    }
}

/// A line of a watch.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WatchLine {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`.
    pub event: String,
    /// The resource, or a Status.
    pub object: Map<String, Value>,
}

/// Reads a resource of a kind, and keeps of it what our decoders look at.
///
/// # Errors
///
/// Where it is no JSON object.
pub fn pruned(kind: Kind, json: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Pruned(Part::Resource(kind)).deserialize(&mut deserializer).map_err(malformed)
}

/// Reads a line of a watch of a kind, and keeps the same of its resource.
///
/// # Errors
///
/// Where it is none.
pub fn event(kind: Kind, json: &[u8]) -> Result<WatchLine, Unreadable> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let mut line = Pruned(Part::Line(kind)).deserialize(&mut deserializer).map_err(malformed)?;
    match (line.remove("type"), line.remove("object")) {
        (Some(Value::String(event)), Some(Value::Object(object))) => Ok(WatchLine { event, object }),
        _ => Err(malformed("a line of a watch has neither type nor object")),
    }
}

/// What is read.
#[derive(Clone, Copy)]
enum Part {
    Line(Kind),
    Resource(Kind),
    Metadata(Kind),
    /// Those of Calico only.
    Annotations,
}

/// What becomes of a value.
enum Keep {
    No,
    Whole,
    Part(Part),
}

impl Part {
    fn keep(self, key: &str) -> Keep {
        match (self, key) {
            (Part::Line(_), "type") => Keep::Whole,
            (Part::Line(kind), "object") => Keep::Part(Part::Resource(kind)),
            (Part::Resource(kind), "metadata") => Keep::Part(Part::Metadata(kind)),
            // Of a Status, in the place of a resource.
            (Part::Resource(_), "code" | "message" | "reason") => Keep::Whole,
            (Part::Resource(Kind::Secret), "data") => Keep::Whole,
            (Part::Resource(Kind::Secret), _) => Keep::No,
            (Part::Resource(Kind::EndpointSlice), "addressType" | "endpoints" | "subsets") => Keep::Whole,
            (Part::Resource(Kind::Service), "status") => Keep::Whole,
            (Part::Resource(_), "spec") => Keep::Whole,
            (Part::Metadata(Kind::Node), "annotations") => Keep::Part(Part::Annotations),
            (Part::Metadata(_), "name" | "namespace" | "labels" | "resourceVersion") => Keep::Whole,
            // Of a bookmark that ends what was there at first.
            (Part::Annotations, key) if key.starts_with(CALICO) => Keep::Whole,
            _ => Keep::No,
        }
    }
}

struct Pruned(Part);

impl<'de> DeserializeSeed<'de> for Pruned {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pruned {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            match self.0.keep(&key) {
                Keep::No => {
                    access.next_value::<IgnoredAny>()?;
                }
                Keep::Whole => {
                    kept.insert(key, access.next_value()?);
                }
                Keep::Part(part) => {
                    let value = access.next_value_seed(OrNothing(part))?;
                    kept.insert(key, value);
                }
            }
        }
        Ok(kept)
    }
}

/// A part that may be `null`, as Go writes what is not there.
struct OrNothing(Part);

impl<'de> DeserializeSeed<'de> for OrNothing {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OrNothing {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or nothing")
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Pruned(self.0).deserialize(deserializer).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn split(text: &str, chunk: usize) -> Result<(Vec<Value>, ListMeta), Unreadable> {
        let mut splitter = ListSplitter::new();
        let mut items = Vec::new();
        for part in text.as_bytes().chunks(chunk) {
            splitter.push(part, |item| items.push(serde_json::from_slice(item).unwrap()))?;
        }
        Ok((items, splitter.finish()?))
    }

    #[test]
    fn a_list_is_cut_into_its_items_wherever_it_is_broken_into_pieces() {
        let text = r#" {"apiVersion":"v1","items":[ {"a":"}]\"","items":[{"b":1}]}, {"metadata":{"continue":"no"}} ,{}],
            "kind":"List","metadata":{"continue":"x\"y","remainingItemCount":7,"resourceVersion":"12"}} "#;
        for chunk in 1..text.len() {
            let (items, meta) = split(text, chunk).unwrap();
            assert_eq!(
                items,
                [json!({"a":"}]\"","items":[{"b":1}]}), json!({"metadata":{"continue":"no"}}), json!({})]
            );
            assert_eq!((meta.resource_version.as_str(), meta.r#continue.as_str()), ("12", "x\"y"));
        }
        let empty = r#"{"kind":"List","metadata":{"resourceVersion":"3"},"items":null}"#;
        assert_eq!(split(empty, 7).unwrap().0, [] as [Value; 0]);
    }

    #[test]
    fn what_is_no_list_or_ends_in_the_middle_is_an_error() {
        for text in [
            "404 page not found",
            r#"{"metadata":{"resourceVersion":"1"},"items":[{}"#,
            r#"{"metadata":{},"items":[]}"#,
            r#"{"items":[]}"#,
            r#"[{}]"#,
            "]",
            "",
        ] {
            assert!(split(text, 3).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_splitter_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), chunk in 1..20usize) {
            let mut splitter = ListSplitter::new();
            for part in bytes.chunks(chunk) {
                if splitter.push(part, |_| {}).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn lines_are_whole_wherever_they_are_broken() {
        let text = "{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for chunk in 1..text.len() {
            let mut splitter = LineSplitter::default();
            let lines: Vec<Vec<u8>> =
                text.as_bytes().chunks(chunk).flat_map(|part| splitter.push(part).unwrap()).collect();
            assert_eq!(lines, [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()]);
        }
    }

    #[test]
    fn of_a_node_only_our_fields_are_kept() {
        let node = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}, "managedFields": [{}],
                "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24", "volumes.kubernetes.io/x": "true"}},
            "spec": {"podCIDR": "10.1.0.0/24"},
            "status": {"images": [{"names": ["x"]}], "conditions": []}
        });
        let kept = pruned(Kind::Node, node.to_string().as_bytes()).unwrap();
        let wanted = json!({
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"x": "y"},
                "annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24"}},
            "spec": {"podCIDR": "10.1.0.0/24"}
        });
        assert_eq!(Value::Object(kept), wanted);
        let bare = pruned(Kind::Node, br#"{"metadata":{"name":"a","annotations":null}}"#).unwrap();
        assert_eq!(Value::Object(bare), json!({"metadata": {"name": "a", "annotations": null}}));
        assert!(pruned(Kind::Node, b"[]").is_err());
    }

    #[test]
    fn a_line_of_a_watch_is_an_event_with_a_resource_or_a_status() {
        let line = event(Kind::Secret, br#"{"type":"ADDED","object":{"data":{"k":"dg=="},"type":"Opaque"}}"#)
            .unwrap();
        assert_eq!((line.event.as_str(), line.object.len()), ("ADDED", 1));
        let line = event(
            Kind::Node,
            br#"{"object":{"kind":"Status","status":"Failure","code":410,"reason":"Expired"},"type":"ERROR"}"#,
        );
        assert_eq!(line.unwrap().object.get("code"), Some(&json!(410)));
        for wrong in ["{}", "null", r#"{"type":"ADDED"}"#, r#"{"type":1,"object":{}}"#, "{"] {
            assert!(event(Kind::Node, wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
