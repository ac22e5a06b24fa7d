//! The release of Calico that ClusterInformation last told on this node, kept over restarts (REL-2).
//!
//! Owns: the file `cluster-release` of the run directory, which holds one release such as `v3.31`. Never: decides
//! which release is in force; [`compile`](crate::desired::compile) does. A file that cannot be read counts as none.

use std::io;
use std::path::{Path, PathBuf};

use crate::desired::Release;

/// Name in the run directory.
const NAME: &str = "cluster-release";

/// The file's path in a run directory.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(NAME)
}

/// What the file's text says.
pub fn parse(text: &str) -> Option<Release> {
    text.trim().parse().ok()
}

/// Writes the file, whole or not at all: a reader never sees half a number.
pub fn write(run_dir: &Path, release: Release) -> io::Result<()> {
    let (new, path) = (run_dir.join(format!("{NAME}.new")), path(run_dir));
    std::fs::write(&new, format!("{release}\n"))?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_junk_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for release in [Release { major: 3, minor: 31 }, Release { major: 3, minor: 8 }] {
            write(dir.path(), release).unwrap();
            assert_eq!(parse(&std::fs::read_to_string(path(dir.path())).unwrap()), Some(release));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(parse(""), None);
        assert_eq!(parse("\0\0\0\0"), None);
    }
}
