//! The recorded clusters of `fixtures/datastore`, as keys of etcd and as files.

use std::path::PathBuf;

use serde_json::{Value, json};

/// The recorded clusters with some of their nodes.
#[allow(dead_code, reason = "each test program uses a part of this module")]
pub const NODES: &[(&str, &[&str])] = &[
    ("three-nodes", &["node-a", "node-b", "node-c"]),
    ("route-reflectors", &["rr-1", "client-4"]),
    ("dcos-like", &["172.16.0.23"]),
];

/// The text of a file below `fixtures/datastore`.
pub fn fixture(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/datastore").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A recorded key space.
pub struct Dump(Vec<Value>);

impl Dump {
    /// Reads `fixtures/datastore/<path>`.
    pub fn read(path: &str) -> Dump {
        Dump(serde_json::from_str(&fixture(path)).unwrap())
    }

    /// Keys and values, in the order of keys.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|entry| (entry["key"].as_str().unwrap(), entry["value"].as_str().unwrap()))
    }

    /// BlockAffinity documents, which `calicoctl get` does not print.
    pub fn affinities(&self) -> Vec<Value> {
        let mut documents = Vec::new();
        for (key, value) in self.entries() {
            let Some(rest) = key.strip_prefix("/calico/ipam/v2/host/") else { continue };
            let parts: Vec<&str> = rest.split('/').collect();
            let (node, block) = (parts[0], parts[3]);
            let dash = block.rfind('-').unwrap();
            let value: Value = serde_json::from_str(value).unwrap();
            documents.push(json!({
                "apiVersion": "crd.projectcalico.org/v1",
                "kind": "BlockAffinity",
                "metadata": {"name": format!("{node}-{}", block.replace(['.', ':'], "-"))},
                "spec": {
                    "node": node,
                    "cidr": format!("{}/{}", &block[..dash], &block[dash + 1..]),
                    "state": value["state"],
                    "deleted": value["deleted"].to_string(),
                },
            }));
        }
        documents
    }
}

/// The cluster as a folder of files: what calicoctl printed, and the block affinities.
#[allow(dead_code, reason = "each test program uses a part of this module")]
pub fn cluster_files(cluster: &str, dump: &Dump) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("resources.yaml"), fixture(&format!("{cluster}/resources.yaml"))).unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": dump.affinities()});
    std::fs::write(dir.path().join("blocks.json"), serde_json::to_string_pretty(&list).unwrap()).unwrap();
    dir
}

/// The whole key space as JSON documents one after the other.
pub fn texts_of(dump: &Dump) -> String {
    let mut texts = String::new();
    for (key, value) in dump.entries() {
        if key.starts_with("/calico/resources/") {
            texts.push_str(value);
            texts.push('\n');
        }
    }
    for document in dump.affinities() {
        texts.push_str(&document.to_string());
        texts.push('\n');
    }
    texts
}
