//! The socket files (CTL-1, CTL-2).
//!
//! Owns: when a path may be taken, and its mode, which is set before anybody can connect. Never: takes the place of a
//! program that answers there: that is a BIRD that still runs.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Owner and group may ask.
const MODE: u32 = 0o660;
/// How long a program at the other end may take for its greeting.
const GREETING: Duration = Duration::from_secs(2);

/// A bound socket; its file goes when this goes.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Binds at `path`, in the place of whatever file is there. The socket has its mode before it has its name.
    pub fn at(path: &Path) -> io::Result<Bound> {
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
        Ok(Bound { listener, path: path.to_path_buf() })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who answers at a path: the first line that is said there, or `None` where nobody listens.
pub async fn who_answers(path: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    let mut greeting = vec![0; 128];
    // One that accepts and says nothing is alive all the same.
    let read = timeout(GREETING, stream.read(&mut greeting)).await.unwrap_or(Ok(0)).unwrap_or(0);
    greeting.truncate(read);
    let text = String::from_utf8_lossy(&greeting);
    Some(text.lines().next().unwrap_or_default().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_mode_stands_and_a_dead_socket_is_replaced_and_the_file_goes_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bird.ctl");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(who_answers(&path).await, None);
        let bound = Bound::at(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(bound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_program_that_answers_is_known_by_its_greeting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bird.ctl");
        let bird = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = bird.accept().await.unwrap();
            stream.write_all(b"0001 BIRD 1.6.8 ready.\n").await.unwrap();
        });
        assert_eq!(who_answers(&path).await.as_deref(), Some("0001 BIRD 1.6.8 ready."));
    }
}
