//! Which part of the daemon may know which, and that a name means one thing.
//!
//! Arrows go downwards: a module names only those that stand before it in [`LAYERS`]. Inside a folder they may go anywhere
//! but round in a circle. What is read is the text of the files, so a path that a macro makes is not seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src`, from the bottom up.
const LAYERS: &[&str] = &[
    "clock",
    "random",
    "runtime",
    "model",
    "fib",
    "policy",
    "desired",
    "evaluate",
    "last_release",
    "restart_marker",
    "succession",
    "speaker",
    "core_thread",
    "net",
    "datastore",
    "telemetry",
    "settings",
    "roster",
    "configure",
    "control",
    "shadow",
    "capture",
    "cli",
    "app",
];

/// Public types whose names stand in more than one place, each with the reason why that is right.
const TWICE: &[(&str, &str)] = &[
    ("Action", "of a rule of policy, and of RFC 7606 for a malformed attribute"),
    ("Kind", "of a resource, and of a message on the wire"),
    ("Rule", "of policy, and of RFC 7606 for one attribute"),
    ("Verdict", "on a collision of connections, and on a malformed UPDATE"),
];

/// A module by its path, as `["net", "listener"]`.
type Module = Vec<String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(path: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            rust_files(&entry, into);
        } else if entry.extension().is_some_and(|ext| ext == "rs") {
            into.push(entry);
        }
    }
}

/// The code of a file on one line: no comments, and nothing from its test module on.
fn code(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The modules of `src` but its tests, with their code.
fn modules() -> BTreeMap<Module, String> {
    let src = root().join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let (mut modules, mut tests) = (BTreeMap::new(), Vec::new());
    for file in files {
        let path = file.strip_prefix(&src).unwrap().with_extension("");
        let mut module: Module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let text = fs::read_to_string(&file).unwrap();
        for part in text.split("#[cfg(test)]\nmod ").skip(1) {
            let name = part.split([';', ' ']).next().unwrap_or_default().to_owned();
            tests.push([module.clone(), vec![name]].concat());
        }
        modules.insert(module, code(&text));
    }
    let outside = [vec!["lib".to_owned()], vec!["main".to_owned()]];
    modules.retain(|module, _| {
        let of_tests = module.iter().any(|part| part == "tests");
        !of_tests && !outside.contains(module) && !tests.iter().any(|test| module.starts_with(test))
    });
    assert!(modules.len() > 100);
    modules
}

/// The paths of a `use` tree.
fn expand(prefix: &str, tree: &str, into: &mut Vec<String>) {
    let tree = tree.trim();
    match tree.find('{') {
        Some(at) if tree.ends_with('}') => {
            let prefix = format!("{prefix}{}", &tree[..at]);
            let (mut depth, mut from, inner) = (0, 0, &tree[at + 1..tree.len() - 1]);
            for (at, letter) in inner.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        expand(&prefix, &inner[from..at], into);
                        from = at + 1;
                    }
                    _ => {}
                }
            }
            expand(&prefix, &inner[from..], into);
        }
        _ if tree.is_empty() => {}
        _ => into.push(format!("{prefix}{}", tree.split(" as ").next().unwrap_or_default())),
    }
}

/// Every path of the crate that a module's code names.
fn named(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for part in code.split("use ").skip(1) {
        expand("", part.split(';').next().unwrap_or_default(), &mut paths);
    }
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let end = code[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            paths.push(code[at..].get(..end.unwrap_or(code.len() - at)).unwrap_or_default().to_owned());
        }
    }
    paths
}

/// The module that a path leads into, seen from another.
fn target(path: &str, from: &Module, all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut parts = path.split("::").peekable();
    let mut place = match parts.next()? {
        "crate" => Module::new(),
        "self" => from.clone(),
        "super" => {
            let mut place = from.clone();
            place.pop();
            while parts.next_if_eq(&"super").is_some() {
                place.pop();
            }
            place
        }
        _ => return None,
    };
    for part in parts {
        place.push(part.to_owned());
        if !all.contains_key(&place) {
            place.pop();
            break;
        }
    }
    (!place.is_empty() && place != *from).then_some(place)
}

fn arrows() -> BTreeSet<(Module, Module)> {
    let all = modules();
    let from = |(module, code): (&Module, &String)| {
        let targets = named(code).into_iter().filter_map(|path| target(&path, module, &all));
        targets.map(|target| (module.clone(), target)).collect::<Vec<_>>()
    };
    all.iter().flat_map(from).collect()
}

#[test]
fn no_module_knows_one_that_stands_above_it() {
    let arrows = arrows();
    let height = |module: &Module| {
        LAYERS
            .iter()
            .position(|layer| *layer == module[0])
            .unwrap_or_else(|| panic!("{module:?} has no layer"))
    };
    let found: Vec<_> = arrows.iter().filter(|(from, to)| height(from) < height(to)).collect();
    assert!(found.is_empty(), "{found:#?}");
    assert!(arrows.len() > 200, "the arrows are found: {}", arrows.len());
}

#[test]
fn no_circle_goes_through_the_modules_of_a_folder() {
    // By folder: which of its modules know which; what a folder has in common stands in its own file and is not asked.
    let mut folders: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, to) in arrows() {
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
            let folder = folders.entry(from[..common].to_vec()).or_default();
            folder.entry(a.clone()).or_default().insert(b.clone());
        }
    }
    let mut circles = Vec::new();
    for (folder, mut knows) in folders {
        // Whoever knows nobody that is left is in no circle.
        loop {
            let left: BTreeSet<String> = knows.keys().cloned().collect();
            knows.values_mut().for_each(|known| known.retain(|name| left.contains(name)));
            let before = knows.len();
            knows.retain(|_, known| !known.is_empty());
            if knows.len() == before {
                break;
            }
        }
        if !knows.is_empty() {
            circles.push((folder, knows));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn the_name_of_a_public_type_means_one_thing() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dir in ["src", "bgp-proto/src"] {
        let mut files = Vec::new();
        rust_files(&root().join(dir), &mut files);
        for file in files.iter().filter(|file| !file.iter().any(|part| part == "tests")) {
            let place = file.strip_prefix(root()).unwrap().display().to_string();
            let text = fs::read_to_string(file).unwrap();
            for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
                let mut words =
                    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
                let public = line.starts_with("pub ") && words.next() == Some("pub");
                if public
                    && words.next().is_some_and(|word| ["struct", "enum", "trait", "type"].contains(&word))
                {
                    places.entry(words.next().unwrap().to_owned()).or_default().push(place.clone());
                }
            }
        }
    }
    assert!(places.len() > 300, "{}", places.len());
    places.retain(|_, places| places.len() > 1);
    for (name, _) in TWICE {
        assert!(places.remove(*name).is_some(), "{name} needs no excuse any more");
    }
    assert!(places.is_empty(), "{places:#?}");
}

#[test]
fn the_reader_of_these_tests_sees_what_a_use_tree_names() {
    let text = "use crate::a::{self, b::{C, D as E}};\nlet x = super::f::g(1); // crate::not::this\n";
    let mut paths = named(&code(text));
    paths.sort();
    paths.dedup();
    assert_eq!(paths, ["crate::a::", "crate::a::b::C", "crate::a::b::D", "crate::a::self", "super::f::g"]);
}
