//! A file's bytes to documents.
//!
//! Owns: splitting, which is done before anything is parsed, so that one broken document hides no other; YAML (as
//! sigs.k8s.io/yaml reads it: YAML 1.1 booleans and octal numbers, no base-60 numbers) and JSON, also several JSON
//! documents one after the other. Never: knows resources.

use serde_json::Value;

use super::tags::{Tagged, tagged};

/// One document of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// Its number in the file, from 1; documents of comments only are not counted.
    pub number: usize,
    /// The line on which it starts, from 1.
    pub line: usize,
    /// The value, or one sentence that says why there is none.
    pub value: Result<Value, String>,
    /// Values in it whose text YAML takes for a tag.
    pub tagged: Vec<Tagged>,
}

/// Splits `bytes` and parses each part.
pub fn documents(bytes: &[u8]) -> Vec<Document> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut found = Vec::new();
    for part in split(bytes) {
        let mut add = |line: usize, value: Result<Value, String>| {
            found.push(Document { number: found.len() + 1, line, value, tagged: Vec::new() });
        };
        match std::str::from_utf8(part.bytes) {
            Err(error) => {
                let line = part.line + newlines(part.bytes.get(..error.valid_up_to()).unwrap_or_default());
                add(part.line, Err(format!("line {line}: the text is not UTF-8")));
            }
            Ok(text) if json_follows(text) => match json(text) {
                Ok(values) => values.into_iter().for_each(|value| add(part.line, Ok(value))),
                // What begins like JSON may be a YAML flow mapping, or several JSON documents of which one is broken.
                Err(_) => match yaml(text, part.line) {
                    Ok(value) => add(part.line, Ok(value)),
                    Err(_) => {
                        for piece in json_pieces(text) {
                            let line =
                                part.line + newlines(text.get(..piece.start).unwrap_or_default().as_bytes());
                            let piece = text.get(piece).unwrap_or_default();
                            match json(piece) {
                                Ok(values) => values.into_iter().for_each(|value| add(line, Ok(value))),
                                Err(error) => add(line, Err(json_error(&error, line))),
                            }
                        }
                    }
                },
            },
            Ok(text) => {
                add(part.line, yaml(text, part.line));
                if let Some(document) = found.last_mut() {
                    document.tagged = tagged(text);
                }
            }
        }
    }
    found
}

struct Part<'a> {
    line: usize,
    bytes: &'a [u8],
}

/// Cuts at lines that begin with `---`, or are `...`; these never stand at the beginning of a line inside a document.
fn split(bytes: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    let mut cut = |from: usize, line: usize, to: usize| {
        let part = bytes.get(from..to).unwrap_or_default();
        // The first line with content is where people look for the document.
        if let Some(skipped) = blank_lines(part) {
            parts.push(Part { line: line + skipped, bytes: part });
        }
    };
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let next = at + line.len();
        if is_marker(line, b"---") {
            cut(start, start_line, at);
            // What follows on the line of the marker belongs to the document: the YAML parser knows the marker.
            (start, start_line) = (at, index + 1);
        } else if is_marker(line, b"...") {
            cut(start, start_line, at);
            (start, start_line) = (next, index + 2);
        }
        at = next;
    }
    cut(start, start_line, at);
    parts
}

fn is_marker(line: &[u8], marker: &[u8]) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.first().is_none_or(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')))
}

/// How many lines go before the first one with content; `None` where there is none.
fn blank_lines(part: &[u8]) -> Option<usize> {
    part.split(|b| *b == b'\n').position(|line| {
        let line = line.trim_ascii();
        !(line.is_empty() || line == b"---" || line.starts_with(b"#") || line.starts_with(b"%"))
    })
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b'\n').count()
}

fn json_follows(text: &str) -> bool {
    text.strip_prefix("---").unwrap_or(text).trim_start().starts_with(['{', '['])
}

fn json(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    let text = text.strip_prefix("---").unwrap_or(text);
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

fn json_error(error: &serde_json::Error, line: usize) -> String {
    let text = error.to_string();
    // serde_json ends its text with a place, counted from where the piece starts.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("line {}: {text}", line + error.line().saturating_sub(1))
}

/// Ranges of JSON documents that each begin a line with a brace, as printed ones do.
fn json_pieces(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut starts: Vec<usize> = text.match_indices("\n{").map(|(at, _)| at + 1).collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

fn yaml(text: &str, line: usize) -> Result<Value, String> {
    let mut options = serde_saphyr::Options::default();
    options.legacy_octal_numbers = true;
    options.non_finite_float_policy = serde_saphyr::options::NonFiniteFloatPolicy::AsString;
    options.with_snippet = false;
    options.emit_comments = false;
    // A large cluster is one list of many thousand resources: what a file can make us allocate is bounded by its size,
    // and where aliases multiply it, by a number. A resource in a List is ten deep; the parser recurses.
    options.budget = serde_saphyr::budget! {
        max_events: 50_000_000,
        max_nodes: 20_000_000,
        max_depth: 40,
        max_total_scalar_bytes: 1 << 30,
        max_recorded_anchor_events: 100_000,
    };
    options.alias_limits = serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        let first = message.lines().next().unwrap_or("not YAML");
        // Its own place is counted from where the document starts.
        let first = first.split(" at line ").next().unwrap_or(first).trim();
        // What a programmer could do about it is no help to who wrote the file.
        let first = first.split(", set DuplicateKeyPolicy").next().unwrap_or(first);
        let first = match first.contains("budget breached") || first.contains("alias replay") {
            true => "its anchors and aliases, or its size, stand for more than is read",
            false => first,
        };
        let place = error.location().map_or(0, |place| usize::try_from(place.line()).unwrap_or(0));
        let above = text.lines().take_while(|text| blank_lines(text.as_bytes()).is_none()).count();
        let line = line + place.saturating_sub(1).saturating_sub(above);
        format!("line {line}: {}", first.trim_start_matches("error: "))
    })
}
