//! The rules of placement that the compiler cannot check.
//!
//! Pure cores import no shell, no channel is unbounded, no file grows without a reason, and `bgp-proto` depends on
//! nothing that has a clock or a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files that decide and do nothing: they are told the time, the kernel's state and the messages.
const CORES: &[&str] = &[
    "bgp-proto/src",
    "src/model",
    "src/desired",
    "src/policy",
    "src/speaker",
    "src/succession.rs",
    "src/fib/plan.rs",
    "src/fib/mirror.rs",
];

/// What a core must not name. `std::net` addresses are values and allowed; sockets are not.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "futures",
    "socket2",
    "libc::",
    "rustix",
    "netlink_",
    "rtnetlink",
    "kube::",
    "etcd_client",
    "notify::",
    "clap",
    "tracing",
    "std::time",
    "std::thread",
    "std::env",
    "std::fs",
    "std::process",
    "std::os",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant",
    "SystemTime",
    "rand::",
    "crate::app",
    "crate::capture",
    "crate::clock",
    "crate::configure",
    "crate::control",
    "crate::roster",
    "crate::core_thread",
    "crate::net",
    "crate::random",
    "crate::settings",
    "crate::telemetry",
    "crate::fib::linux",
    "crate::fib::reconciler",
];

/// Files above 1,000 lines, each with its reason.
const LONG: &[(&str, &str)] = &[];
const MAX_LINES: usize = 1000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path.to_path_buf());
        }
        return;
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries.iter().filter(|entry| !entry.ends_with("target")) {
        rust_files(entry, into);
    }
}

fn files_under(place: &str) -> Vec<PathBuf> {
    let path = root().join(place);
    assert!(path.exists(), "{place} has moved: this test guards it");
    let mut files = Vec::new();
    rust_files(&path, &mut files);
    assert!(!files.is_empty(), "{place}");
    files
}

/// The code of a file: no comments, and nothing from its test module on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
}

/// A file that is compiled for tests only.
fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// Whether `word` stands in `line`, not as the tail of a longer name.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && (word.ends_with(|c: char| !c.is_alphanumeric())
                || !line[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

#[test]
fn cores_name_no_shell_no_clock_and_no_socket() {
    let mut found = Vec::new();
    for place in CORES {
        for file in files_under(place).iter().filter(|file| !is_test_file(file)) {
            let text = fs::read_to_string(file).unwrap();
            for (n, line) in code(&text) {
                for word in FORBIDDEN.iter().filter(|word| names(line, word)) {
                    found.push(format!("{}:{n}: {word}", file.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Clippy says the same in cores only: shells may call what else `clippy.toml` bans there.
#[test]
fn no_channel_is_unbounded() {
    let mut found = Vec::new();
    for place in ["src", "bgp-proto/src"] {
        for file in files_under(place).iter().filter(|file| !is_test_file(file)) {
            let text = fs::read_to_string(file).unwrap();
            found.extend(
                code(&text)
                    .filter(|(_, line)| makes_unbounded_channel(line))
                    .map(|(n, line)| format!("{}:{n}: {line}", file.display())),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether `line` makes or imports a channel that takes whatever it is given: std's `channel` is
/// one, tokio's has a bound.
fn makes_unbounded_channel(line: &str) -> bool {
    ["unbounded", "unbounded_channel", "UnboundedSender", "mpsc::channel()"]
        .iter()
        .any(|word| names(line, word))
        || (line.contains("std::sync::mpsc") && names(line, "channel"))
}

#[test]
fn core_modules_have_the_banned_methods_denied() {
    for file in [
        "bgp-proto/src/lib.rs",
        "src/desired/mod.rs",
        "src/policy/mod.rs",
        "src/speaker/mod.rs",
        "src/succession.rs",
        "src/fib/plan.rs",
        "src/fib/mirror.rs",
    ] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(
            text.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types)]"),
            "{file} is a core and must say so"
        );
    }
}

#[test]
fn no_file_grows_beyond_a_thousand_lines_without_a_reason() {
    let mut found = Vec::new();
    for place in ["src", "bgp-proto/src", "tests"] {
        for file in files_under(place) {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            let excused = LONG.iter().any(|(long, _)| *long == name);
            if lines > MAX_LINES && !excused {
                found.push(format!("{name}: {lines} lines"));
            }
            assert!(lines > MAX_LINES || !excused, "{name} needs no excuse any more");
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn bgp_proto_depends_on_nothing_with_a_clock_or_a_socket() {
    let manifest = fs::read_to_string(root().join("bgp-proto/Cargo.toml")).unwrap();
    let dependencies: Vec<&str> = manifest
        .split("\n[")
        .filter(|section| section.starts_with("dependencies]"))
        .flat_map(str::lines)
        .collect();
    assert!(!dependencies.is_empty());
    for banned in ["tokio", "libc", "rand", "rustix", "socket2", "mio", "nix", "tracing", "log", "getrandom"]
    {
        let named = dependencies
            .iter()
            .find(|line| line.split(['=', '.', ' ']).next().is_some_and(|name| name == banned));
        assert_eq!(named, None, "bgp-proto is BGP and nothing else");
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    for file in files_under("src") {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let is_unsafe = code(&text).any(|(_, line)| names(line, "unsafe") && !line.contains("unsafe_code"));
        assert!(!is_unsafe || name == "src/net/sockopt.rs", "{name} has unsafe code");
    }
}

#[test]
fn every_module_says_what_it_owns() {
    for place in ["src", "bgp-proto/src"] {
        for file in files_under(place).iter().filter(|file| !is_test_file(file)) {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.starts_with("//!"), "{} has no module comment", file.display());
        }
    }
}

#[test]
fn unbounded_channels_are_told_from_bounded_ones() {
    assert!(makes_unbounded_channel("let (tx, rx) = mpsc::unbounded_channel();"));
    assert!(makes_unbounded_channel("let (tx, rx) = mpsc::channel();"));
    assert!(makes_unbounded_channel("use std::sync::mpsc::{Receiver, channel};"));
    assert!(makes_unbounded_channel("let (tx, rx) = std::sync::mpsc::channel::<u8>();"));
    assert!(!makes_unbounded_channel("use std::sync::mpsc::{Receiver, sync_channel};"));
    assert!(!makes_unbounded_channel("let (tx, rx) = mpsc::channel::<()>(1);"));
    assert!(!makes_unbounded_channel("let (tx, rx) = oneshot::channel();"));
}

#[test]
fn the_word_search_of_this_test_finds_words_and_not_parts_of_words() {
    assert!(names("use tokio::sync;", "tokio"));
    assert!(names("use std::time::Duration;", "std::time"));
    assert!(!names("let kubernetes = 1;", "kube"));
    assert!(!names("crate::network()", "crate::net"));
    assert!(!names("struct GotInstant;", "Instant"));
}
