//! The rules of placement that the compiler cannot check.
//!
//! Pure cores import no shell, no channel is unbounded, no file grows without a reason, and `bgp-proto` depends on
//! nothing that has a clock or a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
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

// ---- imports

/// Modules by their path from the crate's root, which is itself "".
#[derive(Default)]
struct Modules {
    code: BTreeMap<String, String>,
    /// What a module hands on: (module, name) → path.
    handed_on: BTreeMap<(String, String), Vec<String>>,
}

/// An import: the segments of its path, and whether it hands the name on.
struct Import {
    path: Vec<String>,
    handed_on: bool,
}

/// `a::{b, c::{d as e}}` as paths.
fn expand(text: &str, prefix: &[String], into: &mut Vec<Vec<String>>) {
    let Some((head, rest)) = text.split_once('{') else {
        let name = text.split(" as ").next().unwrap();
        let path = prefix.iter().cloned().chain(name.split("::").map(|part| part.trim().to_string()));
        return into.push(path.filter(|part| !part.is_empty()).collect());
    };
    let prefix: Vec<String> = prefix
        .iter()
        .cloned()
        .chain(head.split("::").map(|part| part.trim().to_string()).filter(|part| !part.is_empty()))
        .collect();
    let rest = rest.trim_end().strip_suffix('}').unwrap();
    let (mut depth, mut from) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(rest[from..at].trim(), &prefix, into);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !rest[from..].trim().is_empty() {
        expand(rest[from..].trim(), &prefix, into);
    }
}

impl Modules {
    fn of(place: &str) -> Modules {
        let mut modules = Modules::default();
        for file in files_under(place).iter().filter(|file| !is_test_file(file)) {
            let name = file.strip_prefix(root().join(place)).unwrap().with_extension("");
            let parts: Vec<&str> = name.iter().map(|part| part.to_str().unwrap()).collect();
            let path = match parts.as_slice() {
                ["lib"] => String::new(),
                [parents @ .., "mod"] => parents.join("::"),
                whole => whole.join("::"),
            };
            let text = fs::read_to_string(file).unwrap();
            if !path.contains("rule_tests") {
                modules.code.insert(path, code(&text).map(|(_, line)| format!("{line}\n")).collect());
            }
        }
        let modules_of = modules.code.clone();
        for (module, text) in &modules_of {
            for import in modules.imports(module, text).into_iter().filter(|import| import.handed_on) {
                let name = import.path.last().unwrap().clone();
                modules.handed_on.insert((module.clone(), name), import.path);
            }
        }
        modules
    }

    /// The imports of a module and the paths in its code, from the root.
    fn imports(&self, module: &str, text: &str) -> Vec<Import> {
        let mut found = Vec::new();
        for statement in text.split_inclusive(';') {
            let statement = statement.trim();
            let at = statement.find("use ").filter(|at| {
                let before = statement[..*at].rsplit('\n').next().unwrap().trim();
                before.is_empty() || before == "pub" || before.starts_with("pub(") && before.ends_with(')')
            });
            let Some(at) = at else {
                for word in statement.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
                    if let Some(path) = self.absolute(module, word.split("::").map(str::to_string).collect())
                        && word.contains("::")
                    {
                        found.push(Import { path, handed_on: false });
                    }
                }
                continue;
            };
            let mut paths = Vec::new();
            expand(statement[at + 4..].trim_end_matches(';'), &[], &mut paths);
            let public = statement[..at].rsplit('\n').next().unwrap().contains("pub");
            for path in paths.into_iter().filter_map(|path| self.absolute(module, path)) {
                found.push(Import { path, handed_on: public });
            }
        }
        found
    }

    /// The path from the root, where it leads into this crate.
    fn absolute(&self, module: &str, path: Vec<String>) -> Option<Vec<String>> {
        let own: Vec<String> =
            module.split("::").filter(|part| !part.is_empty()).map(str::to_string).collect();
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([own, rest.to_vec()].concat()),
            "super" => Some([own[..own.len().checked_sub(1)?].to_vec(), rest.to_vec()].concat()),
            child => {
                let inside = [own, vec![child.to_string()]].concat();
                self.code.contains_key(&inside.join("::")).then(|| [inside, rest.to_vec()].concat())
            }
        }
    }

    /// The module that defines what a path names.
    fn target(&self, path: &[String]) -> String {
        let mut at = String::new();
        for (n, part) in path.iter().enumerate() {
            let next = if at.is_empty() { part.clone() } else { format!("{at}::{part}") };
            if self.code.contains_key(&next) {
                at = next;
            } else if let Some(leads) = self.handed_on.get(&(at.clone(), part.clone()))
                && leads.as_slice() != path
            {
                return self.target(&[leads.as_slice(), &path[n + 1..]].concat());
            } else {
                break;
            }
        }
        at
    }

    fn edges(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let of = |module: &String, text: &String| {
            let imports = self.imports(module, text).into_iter().filter(|import| !import.handed_on);
            imports.map(|import| self.target(&import.path)).filter(|target| target != module).collect()
        };
        self.code.iter().map(|(module, text)| (module.as_str(), of(module, text))).collect()
    }
}

/// Modules that import each other, directly or over others, as one list for each such set.
fn circles(edges: &BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reach = |from: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_string()]);
        while let Some(module) = next.pop() {
            for target in edges.get(module.as_str()).into_iter().flatten() {
                if seen.insert(target.clone()) {
                    next.push(target.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        edges.keys().map(|module| (*module, reach(module))).collect();
    let circle = |module: &str| {
        let back = |other: &&String| reached.get(other.as_str()).is_some_and(|r| r.contains(module));
        reached[module].iter().filter(back).cloned().collect::<BTreeSet<_>>()
    };
    edges.keys().map(|module| circle(module)).filter(|circle| !circle.is_empty()).collect()
}

#[test]
fn imports_in_bgp_proto_lead_one_way() {
    let modules = Modules::of("bgp-proto/src");
    let edges = modules.edges();
    assert!(edges["session::opening"].contains("session::machine"), "{edges:?}");
    assert!(edges["out::pack"].contains("wire::refresh"), "{edges:?}");
    let found = circles(&edges);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn circles_of_imports_are_found_over_others_and_over_names_that_are_handed_on() {
    let code = [
        ("", "pub mod a; pub mod b; pub mod c;"),
        ("a", "pub use inner::Thing; mod inner;"),
        ("a::inner", "use crate::b::{self, other::{X, Y}};\npub struct Thing;"),
        ("b", "fn f() { crate::c::g() }"),
        ("c", "use crate::a::Thing;\nuse std::fmt;"),
    ];
    let code = code.iter().map(|(module, text)| ((*module).to_string(), (*text).to_string())).collect();
    let mut modules = Modules { code, ..Modules::default() };
    let path = ["a", "inner", "Thing"].map(str::to_string).to_vec();
    modules.handed_on.insert(("a".into(), "Thing".into()), path);
    let names = ["a::inner", "b", "c"].map(str::to_string);
    assert_eq!(circles(&modules.edges()), BTreeSet::from([BTreeSet::from(names)]));
}
