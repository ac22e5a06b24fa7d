//! Recorded situations, played in process: resources through decoding and compilation, the neighbours' bytes through
//! the production sessions, the speaker and the kernel plan; then sessions, exports and kernel routes are compared with
//! what confd and BIRD did (`observed.json`).
//!
//! Every folder of `fixtures/confd` must come out as recorded. `REPLAY_CASES=<folder of folders>` plays others:
//! `REPLAY_CASES=… REPLAY_ONLY=mesh- cargo test --test replay -- --nocapture` lists which of them pass.
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

use std::path::{Path, PathBuf};

use case::Case;
use world::Order;

/// The differences of one situation, in lines; none where it comes out as recorded. What the intent says of itself goes
/// below them: often it is the reason.
fn differences(case: &Case, order: Order) -> Vec<String> {
    let mut lines = match world::play(case, order) {
        Ok(seen) => compare::differences(&case.observed(), &seen),
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

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("case.json").exists());
    found.sort();
    found
}

/// Plays every situation of a folder whose name contains `only`, and prints what came of each; the names of those that
/// are not as recorded.
fn play_all(of: &Path, only: &str, order: Order) -> Vec<String> {
    let mut failed = Vec::new();
    let mut passed = 0;
    for case in folders(of).iter().map(|folder| Case::load(folder)).filter(|case| case.name.contains(only)) {
        // One situation that breaks the harness must not hide the others.
        let played = std::panic::AssertUnwindSafe(|| differences(&case, order));
        let lines = std::panic::catch_unwind(played).unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().cloned();
            vec![format!("  panicked: {}", why.unwrap_or_else(|| "see above".into()))]
        });
        if lines.is_empty() {
            println!("ok     {}", case.name);
            passed += 1;
        } else {
            println!("FAILED {}\n{}", case.name, lines.join("\n"));
            failed.push(case.name);
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    assert!(passed + failed.len() > 0, "no situation found in {}", of.display());
    failed
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/confd")
}

#[test]
fn every_recorded_situation_comes_out_as_recorded() {
    let of = std::env::var_os("REPLAY_CASES").map_or_else(fixtures, PathBuf::from);
    let only = std::env::var("REPLAY_ONLY").unwrap_or_default();
    let failed = play_all(&of, &only, Order::Listed);
    assert!(failed.is_empty(), "not as recorded: {}", failed.join(", "));
}

#[test]
fn the_order_in_which_neighbours_come_changes_nothing() {
    let failed = play_all(&fixtures(), "", Order::Reversed);
    assert!(failed.is_empty(), "not as recorded: {}", failed.join(", "));
}

#[test]
fn every_kind_of_difference_is_named() {
    let recorded = Case::load(&fixtures().join("node-dual-stack-mesh")).observed();
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
