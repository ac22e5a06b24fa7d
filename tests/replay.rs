//! Recorded situations, played in process: resources through decoding and compilation, the neighbours' bytes through
//! the production sessions, the speaker and the kernel plan; then sessions, exports and kernel routes are compared with
//! what confd and BIRD did (`observed.json`).
//!
//! Every folder of `fixtures/confd` must come out as recorded. `REPLAY_CASES=<folder of folders>` plays others:
//! `REPLAY_CASES=… REPLAY_ONLY=mesh- cargo test --test replay -- --nocapture` lists which of them pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
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

/// The differences of one situation, in lines; none where it comes out as recorded.
fn differences(case: &Case) -> Vec<String> {
    match world::play(case) {
        Ok(seen) => compare::differences(&case.observed(), &seen),
        Err(why) => vec![format!("  not played to its end: {why}")],
    }
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("case.json").exists());
    found.sort();
    found
}

#[test]
fn every_recorded_situation_comes_out_as_recorded() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/confd");
    let of = std::env::var_os("REPLAY_CASES").map_or(own, PathBuf::from);
    let only = std::env::var("REPLAY_ONLY").unwrap_or_default();
    let mut failed = Vec::new();
    let mut passed = 0;
    for folder in folders(&of) {
        let case = Case::load(&folder);
        if !case.name.contains(&only) {
            continue;
        }
        // One situation that breaks the harness must not hide the others.
        let played = std::panic::AssertUnwindSafe(|| differences(&case));
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
    assert!(failed.is_empty(), "not as recorded: {}", failed.join(", "));
}
