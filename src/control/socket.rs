//! The socket files (CTL-1, CTL-2).
//!
//! Owns: when a path may be taken, and its mode, which is set before anybody can connect. Never: takes the place of a
//! program that answers there: that is a BIRD that still runs.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// A bound socket; its file goes when this goes.
#[derive(Debug)]
pub struct BoundSocket {
    /// The socket.
    pub listener: UnixListener,
    path: PathBuf,
}

impl BoundSocket {
    /// Binds at `path`, in the place of whatever file is there. The socket has its mode before it has its name.
    pub fn at(path: &Path) -> io::Result<BoundSocket> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let nascent = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let _ = std::fs::remove_file(&nascent);
        let listener = UnixListener::bind(&nascent)?;
        let placed = std::fs::set_permissions(&nascent, std::fs::Permissions::from_mode(MODE))
            .and_then(|()| std::fs::rename(&nascent, path));
        if let Err(error) = placed {
            let _ = std::fs::remove_file(&nascent);
            return Err(error);
        }
        Ok(BoundSocket { listener, path: path.to_path_buf() })
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::incumbent::who_answers;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn the_mode_stands_and_a_dead_socket_is_replaced_and_the_file_goes_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bird.ctl");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(who_answers(&path).await, None);
        let bound = BoundSocket::at(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(bound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
