//! The last good state of the datastore on disk, for a start with the datastore out of reach.
//!
//! Owns: `datastore-cache.json` in the state directory: one version number, whose state it is (node and datastore: that
//! of another is not ours), when it was written, and the resources as documents. Mode 0600, written beside and renamed
//! into place, so that a crash leaves the old one. What cannot be read or written is said and costs nothing else (P4,
//! P12). Never: decides when the cache is in force.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::ResourceKey;
use crate::model::decode::{Reading, Resource, decode};
use crate::model::encode::documents;
use crate::model::snapshot::Snapshot;
use crate::model::store::SnapshotBuilder;

/// The form that this program writes and reads.
const VERSION: u32 = 1;
/// Name of the file in the state directory.
const FILE: &str = "datastore-cache.json";
/// A larger file is none of ours.
const MAX_BYTES: u64 = 512 << 20;

/// Where the cache is, and what may be in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheSettings {
    /// The state directory.
    pub dir: PathBuf,
    /// Whether passwords of sessions are in it.
    pub passwords: bool,
}

/// What the cache had at start.
#[derive(Debug)]
pub struct Kept {
    /// The last good state.
    pub snapshot: Snapshot,
    /// Its resources, as last good forms.
    pub resources: BTreeMap<ResourceKey, Resource>,
    /// When it was written.
    pub written: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    node: String,
    datastore: String,
    /// Seconds since 1970.
    written: u64,
    resources: Vec<Value>,
}

/// The file of one node and one datastore.
#[derive(Clone, Debug)]
pub struct Cache {
    settings: CacheSettings,
    node: String,
    datastore: String,
    reading: Reading,
}

impl Cache {
    /// For a node and a datastore, by their names.
    pub fn new(settings: CacheSettings, node: &str, datastore: String, reading: Reading) -> Self {
        Cache { settings, node: node.to_owned(), datastore, reading }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.settings.dir.join(FILE)
    }

    /// Reads it; `Ok(None)` where there is none, or only that of another node or datastore.
    ///
    /// # Errors
    ///
    /// One line that says why what is there cannot be used.
    pub fn read(&self) -> Result<Option<Kept>, String> {
        let path = self.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| error.to_string())?;
        let version = serde_json::from_slice::<Value>(&text)
            .map_err(|error| format!("not JSON, or cut off: {error}"))?
            .get("version")
            .and_then(Value::as_u64);
        if version != Some(VERSION.into()) {
            return Err(format!("version {VERSION} is wanted, not {}", version.unwrap_or_default()));
        }
        let content: Content = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if content.node != self.node || content.datastore != self.datastore {
            return Ok(None);
        }
        let mut builder = SnapshotBuilder::new(&self.node, self.reading.use_pod_cidr);
        let mut resources = BTreeMap::new();
        for document in &content.resources {
            let (found, _) = decode(document, "the cache", self.reading, &|_| None);
            for decoded in found {
                builder.add(&decoded);
                if let Some(resource) = decoded.resource {
                    resources.insert(decoded.key, resource);
                }
            }
        }
        let mut snapshot = builder.finish();
        // What was wrong then is said again by the datastore, if it still is.
        snapshot.problems.clear();
        let written = UNIX_EPOCH + Duration::from_secs(content.written);
        Ok(Some(Kept { snapshot, resources, written }))
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be made or the file not be written.
    pub fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let written = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let content = Content {
            version: VERSION,
            node: self.node.clone(),
            datastore: self.datastore.clone(),
            written,
            resources: documents(snapshot, &self.node, self.settings.passwords),
        };
        let text = zeroize::Zeroizing::new(serde_json::to_vec(&content).map_err(io::Error::other)?);
        fs::create_dir_all(&self.settings.dir)?;
        let beside = self.settings.dir.join(format!(".{FILE}.new"));
        // What a crash left there may have another mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&beside, self.path())?;
        sync_dir(&self.settings.dir);
        Ok(())
    }
}

/// A rename that is not on disk yet leaves the file before it: no harm.
fn sync_dir(dir: &Path) {
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::datastore::files::snapshot_of_texts;

    fn cache(dir: &Path, passwords: bool, node: &str) -> Cache {
        let settings = CacheSettings { dir: dir.to_owned(), passwords };
        Cache::new(settings, node, "etcd at a".into(), Reading::default())
    }

    const EVERYTHING: &str = include_str!("../../fixtures/datastore/every-kind.yaml");

    #[test]
    fn what_is_written_is_read_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = snapshot_of_texts("n1", Reading::default(), &[("all.yaml", EVERYTHING)]);
        assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
        let cache = cache(&dir.path().join("made"), true, "n1");
        cache.write(&wanted).unwrap();
        cache.write(&wanted).unwrap();
        let mode = fs::metadata(cache.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(cache.read().unwrap().unwrap().snapshot, wanted);
        let other = super::Cache { node: "n2".into(), ..cache.clone() };
        assert!(other.read().unwrap().is_none(), "another node's");
        let without = super::Cache {
            settings: CacheSettings { passwords: false, ..cache.settings.clone() },
            ..cache.clone()
        };
        without.write(&wanted).unwrap();
        wanted.secrets = Default::default();
        assert_eq!(cache.read().unwrap().unwrap().snapshot, wanted);
        assert!(!fs::read_to_string(cache.path()).unwrap().contains("Secret\""));
    }

    #[test]
    fn each_recorded_cluster_is_read_back_as_it_was() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/datastore");
        for (cluster, node) in
            [("three-nodes", "node-a"), ("route-reflectors", "rr-1"), ("dcos-like", "172.16.0.23")]
        {
            let text = fs::read_to_string(root.join(cluster).join("resources.yaml")).unwrap();
            let wanted = snapshot_of_texts(node, Reading::default(), &[("all.yaml", &text)]);
            assert!(!wanted.nodes.is_empty() && wanted.problems.is_empty());
            let dir = tempfile::tempdir().unwrap();
            let cache = cache(dir.path(), true, node);
            cache.write(&wanted).unwrap();
            assert_eq!(cache.read().unwrap().unwrap().snapshot, wanted, "{cluster}");
        }
    }

    #[test]
    fn a_cache_that_is_cut_off_or_of_another_version_is_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), true, "n1");
        assert!(cache.read().unwrap().is_none(), "none is no error");
        cache.write(&Snapshot::default()).unwrap();
        let text = fs::read_to_string(cache.path()).unwrap();
        for broken in [&text[..text.len() - 2], "", &text.replace("\"version\":1", "\"version\":99")] {
            fs::write(cache.path(), broken).unwrap();
            let why = cache.read().unwrap_err();
            assert!(
                !why.contains('\n')
                    && (why.contains("cut off") || why.contains("version 1 is wanted, not 99")),
                "{why}"
            );
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(cache(&dir.path().join("file/below"), true, "n1").write(&Snapshot::default()).is_err());
    }
}
