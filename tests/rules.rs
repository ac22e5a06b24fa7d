//! The rule book knows every rule, and what it says holds a rule is there.
//!
//! The numbers are those of the references that calico-bgpd is built by; they are never given twice or taken back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From a number to a number.
type Range = (u32, u32);

/// Rules by what they are about: the first number, the last, and those left out between them.
const RULES: &[(&str, u32, u32, &[Range])] = &[
    ("DS", 1, 66, &[(8, 9), (20, 29), (44, 49), (55, 59)]),
    ("NODE", 1, 43, &[(8, 9), (12, 19), (23, 29), (33, 34), (36, 39)]),
    ("SEL", 1, 9, &[]),
    ("PEER", 1, 90, &[(5, 9), (19, 19), (28, 29), (35, 39), (44, 49), (55, 59), (73, 79), (86, 89)]),
    ("FILT", 1, 64, &[(3, 9), (12, 19), (24, 29), (39, 39), (44, 49)]),
    ("KERN", 1, 21, &[(5, 9), (16, 19)]),
    ("SVC", 1, 41, &[(6, 9), (13, 19), (26, 29), (34, 39)]),
    ("DYN", 1, 40, &[(4, 9), (14, 19), (23, 29), (34, 39)]),
    ("DEF", 1, 36, &[]),
    ("KRT", 1, 55, &[]),
    ("BGP", 1, 42, &[]),
    ("CTL", 1, 35, &[]),
    ("HEALTH", 1, 21, &[]),
    ("UNIT", 1, 20, &[]),
    ("FELIX", 1, 11, &[]),
    ("PKG", 1, 11, &[]),
    ("BDEF", 1, 34, &[]),
    ("REL", 1, 13, &[]),
];
/// The one rule whose number has a letter.
const LETTERED: &str = "KERN-10a";
/// Faults by where they come from, and how many there are: 133.
const FAULTS: &[(&str, u32)] = &[("W", 55), ("T", 22), ("D", 14), ("K", 14), ("P", 14), ("O", 14)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// State and evidence by number, as the rule book has them.
fn book() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let mut rules = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, sentence, state, by] = cells[..] else { continue };
        if !id.starts_with(|letter: char| letter.is_ascii_uppercase()) {
            continue;
        }
        assert!(sentence.len() > 5, "{id} says nothing");
        let twice = rules.insert(id.to_owned(), (state.to_owned(), by.to_owned()));
        assert!(twice.is_none(), "{id} stands there twice");
    }
    rules
}

/// What stands between the first two backquotes behind `word`.
fn named<'a>(by: &'a str, word: &str) -> Option<&'a str> {
    by.split_once(word)?.1.trim_start().strip_prefix('`')?.split('`').next()
}

fn situation_is_recorded_and_comes_out(name: &str) -> bool {
    let folder = root().join("fixtures/situations");
    let waits = fs::read_to_string(folder.join("not-yet.txt")).unwrap_or_default();
    let recorded = fs::read_dir(&folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.extension().is_some_and(|ending| ending == "jsonl")
            && fs::read_to_string(path).unwrap().contains(&format!("\"name\":\"{name}\""))
    });
    (recorded || root().join("fixtures/confd").join(name).is_dir()) && !waits.lines().any(|line| line == name)
}

fn is_there(by: &str) -> bool {
    if let Some(test) = named(by, "test") {
        let file = named(by, " in").expect("the file of a test stands behind it");
        return fs::read_to_string(root().join(file)).is_ok_and(|text| text.contains(&format!("fn {test}(")));
    }
    if let Some(name) = named(by, "situation") {
        return situation_is_recorded_and_comes_out(name);
    }
    if let Some(name) = named(by, "lab") {
        return root().join("interop/scenarios").join(name).join("scenario.py").is_file();
    }
    named(by, "vector").is_some_and(|file| Path::new(&root()).join(file).is_file())
}

#[test]
fn every_rule_and_every_fault_stands_in_the_rule_book_once() {
    let mut wanted = vec![LETTERED.to_owned()];
    for (word, first, last, holes) in RULES {
        let there = (*first..=*last).filter(|n| !holes.iter().any(|(from, to)| (from..=to).contains(&n)));
        wanted.extend(there.map(|n| format!("{word}-{n}")));
    }
    wanted.extend(FAULTS.iter().flat_map(|(word, last)| (1..=*last).map(move |n| format!("{word}{n}"))));
    let book = book();
    let missing: Vec<&String> = wanted.iter().filter(|id| !book.contains_key(*id)).collect();
    assert!(missing.is_empty(), "not in the rule book: {missing:?}");
    let unknown: Vec<&String> = book.keys().filter(|id| !wanted.contains(id)).collect();
    assert!(unknown.is_empty(), "no such rules: {unknown:?}");
}

#[test]
fn what_holds_a_rule_is_there_and_every_rule_has_a_state() {
    for (id, (state, by)) in book() {
        match state.as_str() {
            "held" => assert!(is_there(&by), "{id} is held by {by:?}, which is not there or does not pass"),
            "nothing to do" => assert!(by.len() > 5, "{id}: why is there nothing to do?"),
            "differs" | "not built yet" => {}
            other => panic!("{id} has the state {other:?}"),
        }
    }
}
