//! Recorded situations, played in process: resources through decoding and compilation, the neighbours' bytes through
//! the production sessions, the speaker and the kernel plan; then sessions, exports and kernel routes are compared with
//! what confd and BIRD did (`observed.json`).
//!
//! All of `fixtures/confd` and `fixtures/situations` must come out as recorded, but for those that
//! `fixtures/situations/not-yet.txt` names: that list only shrinks, for one that passes must not be on it.
//! `REPLAY_CASES=<folder of folders>` plays others: `REPLAY_CASES=… REPLAY_ONLY=mesh- cargo test --test replay -- //! --nocapture` lists which of them pass; `REPLAY_ONLY` by itself chooses among ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, reason = "the list of situations is the report of this test")]
// The environment chooses what is played.
#![allow(clippy::disallowed_methods)]

#[path = "replay/bytes.rs"]
mod bytes;
#[path = "replay/case.rs"]
mod case;
#[path = "replay/compare.rs"]
mod compare;
#[path = "replay/neighbour.rs"]
mod neighbour;
#[path = "replay/resources.rs"]
mod resources;
#[path = "replay/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use world::Order;

/// The differences of one situation, in lines; none where it comes out as recorded. What the intent says of itself goes
/// below them: often it is the reason.
fn differences(case: &Case, order: Order) -> Vec<String> {
    let mut lines = match world::play(case, order) {
        Ok(seen) => compare::differences(&case.observed, &seen),
        Err(why) => vec![format!("  not played to its end: {why}")],
    };
    if !lines.is_empty()
        && let Ok(state) = world::intent(case)
        && !state.problems.is_empty()
    {
        lines.push("  problems of the intent:".into());
        lines.extend(state.problems.iter().map(|problem| format!("    {problem}")));
    }
    lines
}

/// The situations of a folder: its folders, and the lines of its files.
fn situations(of: &Path) -> Vec<Case> {
    let entries = std::fs::read_dir(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.join("case.json").exists() {
            found.push(Case::load(&path));
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            found.extend(case::text(&path).lines().map(Case::of_line));
        }
    }
    found
}

/// What came of some situations.
#[derive(Default)]
struct Outcome {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// Plays situations on all processors and prints what came of each.
fn play_all(cases: &[Case], order: Order) -> Outcome {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Outcome::default());
    let one_after_another = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            // One situation that breaks the harness must not hide the others.
            let played = std::panic::AssertUnwindSafe(|| differences(case, order));
            let lines = std::panic::catch_unwind(played).unwrap_or_else(|panic| {
                let why = panic.downcast_ref::<String>().cloned();
                vec![format!("  panicked: {}", why.unwrap_or_else(|| "see above".into()))]
            });
            let mut outcome = outcome.lock().unwrap();
            if lines.is_empty() {
                println!("ok     {}", case.name);
                outcome.passed.insert(case.name.clone());
            } else {
                println!("FAILED {}\n{}", case.name, lines.join("\n"));
                outcome.failed.insert(case.name.clone());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(one_after_another);
        }
    });
    let outcome = outcome.into_inner().unwrap();
    println!("{} passed, {} failed", outcome.passed.len(), outcome.failed.len());
    outcome
}

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder)
}

/// Those that do not come out as recorded yet.
fn not_yet() -> BTreeSet<String> {
    let text = case::text(&fixtures("situations/not-yet.txt"));
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_recorded_situation_comes_out_as_recorded() {
    let only = std::env::var("REPLAY_ONLY").unwrap_or_default();
    let others = std::env::var_os("REPLAY_CASES").map(PathBuf::from);
    let mut cases = match &others {
        Some(folder) => situations(folder),
        None => {
            let mut ours = situations(&fixtures("confd"));
            let known: BTreeSet<String> = ours.iter().map(|case| case.name.clone()).collect();
            let lines = situations(&fixtures("situations"));
            ours.extend(lines.into_iter().filter(|case| !known.contains(&case.name)));
            ours
        }
    };
    let names: BTreeSet<String> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(names.len(), cases.len(), "each situation has a name of its own");
    cases.retain(|case| case.name.contains(&only));
    assert!(!cases.is_empty(), "no situation found");
    let Outcome { passed, failed } = play_all(&cases, Order::Listed);
    let expected = if others.is_some() { BTreeSet::new() } else { not_yet() };
    let unknown = expected.difference(&names).cloned().collect();
    assert_eq!(listed(&unknown), "", "in not-yet.txt and no situation");
    let broken = failed.difference(&expected).cloned().collect();
    assert_eq!(listed(&broken), "", "not as recorded");
    let mended = passed.intersection(&expected).cloned().collect();
    assert_eq!(listed(&mended), "", "as recorded: take them out of not-yet.txt");
}

#[test]
fn the_order_in_which_neighbours_come_changes_nothing() {
    let Outcome { failed, .. } = play_all(&situations(&fixtures("confd")), Order::Reversed);
    assert_eq!(listed(&failed), "", "not as recorded");
}

#[test]
fn every_kind_of_difference_is_named() {
    let recorded = Case::load(&fixtures("confd/node-dual-stack-mesh")).observed;
    assert_eq!(compare::differences(&recorded, &recorded), Vec::<String>::new());
    let named = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut seen = recorded.clone();
        change(&mut seen);
        compare::differences(&recorded, &seen)
    };
    type Change = dyn Fn(&mut serde_json::Value);
    let changes: [(&Change, &str); 9] = [
        (
            &|seen| seen["sessions"][0]["established"] = false.into(),
            "session 10.10.0.2: established false, expected true",
        ),
        (
            &|seen| seen["sessions"][0]["open"]["holdTime"] = 90.into(),
            "session 10.10.0.2: open.holdTime 90, expected 240",
        ),
        (&|seen| drop(seen["sessions"].as_array_mut().unwrap().remove(0)), "session 10.10.0.2 missing"),
        (
            &|seen| seen["unexpected"] = serde_json::json!([{"address": "10.9.9.9", "port": 179}]),
            "connection to address \"10.9.9.9\" port 179 not expected",
        ),
        (
            &|seen| seen["exports"]["10.10.0.2"][0]["localPref"] = 100.into(),
            "exports to 10.10.0.2: 10.244.0.0/26 localPref 100",
        ),
        (
            &|seen| seen["exports"]["10.10.0.2"] = serde_json::json!([]),
            "exports to 10.10.0.2: 10.244.0.0/26 missing",
        ),
        (
            &|seen| seen["kernel"][1]["metric"] = 0.into(),
            "kernel ipv4 table 254: 10.244.0.20/32 metric 0, expected 512",
        ),
        (
            &|seen| drop(seen["kernel"].as_array_mut().unwrap().remove(1)),
            "kernel ipv4 table 254: 10.244.0.20/32 missing",
        ),
        (&|seen| seen["others"] = serde_json::json!([{"change": "removed"}]), "other route"),
    ];
    for (change, line) in changes {
        let lines = named(change);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].trim_start().starts_with(line), "{lines:?}");
    }
}
