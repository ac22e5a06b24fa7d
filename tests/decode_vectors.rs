//! Every vector of `fixtures/wire` through `calico-bgpd decode`.
//!
//! A vector is a `.hex` file and a `.json` file of the same name: `title`, `source`, the `args` of the command, and in
//! `expect` one object for each message, of which every field must come out as it is written (others may be there).
#![cfg(feature = "capture")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use calico_bgpd::capture::{DecodeArgs, run};
use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: DecodeArgs,
}

fn decode(args: &[&str], input: &[u8]) -> Vec<Value> {
    let args = Command::parse_from([&["decode"], args].concat()).args;
    let mut out = Vec::new();
    run(&args, &mut &input[..], &mut out).unwrap();
    out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

/// One vector.
struct Vector {
    path: PathBuf,
    json: Value,
    /// The octets in hexadecimal, on one line.
    hex: String,
    octets: Vec<u8>,
}

impl Vector {
    fn read(path: PathBuf) -> Vector {
        let hex = fs::read_to_string(path.with_extension("hex")).unwrap().replace('\n', " ");
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let octets = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        Vector { path, json, hex, octets }
    }

    fn args(&self) -> Vec<&str> {
        self.json["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect()
    }

    fn lines_of_raw(&self) -> Vec<Value> {
        decode(&self.args(), &self.octets)
    }

    fn lines_of_hex(&self) -> Vec<Value> {
        decode(&[&self.args()[..], &["--hex"]].concat(), self.hex.as_bytes())
    }
}

fn vectors() -> Vec<Vector> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire");
    let mut found: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    found.sort();
    found.into_iter().map(Vector::read).collect()
}

/// Whether `got` has every field of `want`; of a NOTIFICATION, those that are on the wire.
fn agrees(want: &Value, got: &Value) -> bool {
    want.as_object().unwrap().iter().all(|(key, value)| match key.as_str() {
        "notification" => ["code", "subcode", "data"].iter().all(|part| got[key][part] == value[part]),
        _ => got[key] == *value,
    })
}

#[test]
fn every_vector_comes_out_as_its_file_says() {
    let vectors = vectors();
    assert!(vectors.len() > 250, "{}", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        let want = vector.json["expect"].as_array().unwrap();
        for got in [vector.lines_of_raw(), vector.lines_of_hex()] {
            if got.len() != want.len() || !want.iter().zip(&got).all(|(want, got)| agrees(want, got)) {
                wrong.push(format!("{}\n  want {want:?}\n  got  {got:?}", vector.path.display()));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn every_fault_of_the_wire_has_a_vector() {
    let numbers: BTreeSet<u32> = vectors()
        .iter()
        .filter_map(|vector| vector.path.file_stem()?.to_str()?.strip_prefix('w')?.get(..2)?.parse().ok())
        .collect();
    let wanted: BTreeSet<u32> = (1..=55).collect();
    assert_eq!(numbers, wanted);
}

#[test]
fn an_outcome_other_than_accept_names_its_error_and_a_reset_its_notification() {
    for vector in vectors() {
        for line in vector.lines_of_hex() {
            let place = vector.path.display();
            let errors = line["errors"].as_array().unwrap();
            let outcome = line["outcome"].as_str().unwrap();
            assert_eq!(errors.is_empty(), outcome == "accept", "{place}: {line}");
            assert_eq!(line.get("notification").is_some(), outcome == "session-reset", "{place}: {line}");
            for error in errors {
                assert!(
                    error["offset"].is_u64() && error["rfc"].as_str().unwrap().starts_with("RFC "),
                    "{line}"
                );
                assert!(error["attribute"].is_null() || error["attribute"].is_u64(), "{line}");
                assert!(!error["text"].as_str().unwrap().is_empty(), "{line}");
            }
        }
    }
}
