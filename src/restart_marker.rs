//! Who had a session with graceful restart, kept over a restart of this process (RFC 4724 §4.1, KRT-50).
//!
//! Owns: the file `restart-marker` of the run directory, its form and its writing. It is a promise to ourselves: where
//! it is there and of this boot, our OPENs say that forwarding state has survived, and those whom it names are waited
//! for. Sessions are named by family, address, zone and port; BIRD's names change while a session stays the same. Never:
//! decides how long anything is kept; the table's recovery does. A file that is missing, of another version or damaged
//! is a cold start, and one that cannot be written is told and tried again with the next change (P4, P12).
//!
//! Writing is cheap: the first change after quiet is written at once, those that follow within `JOIN` together, and
//! nothing where nothing changed. Writing is durable: a new file is synced and then takes the place of the old one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bgp_proto::{Afi, AfiSet};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::desired::SessionKey;

/// Name in the run directory.
const NAME: &str = "restart-marker";
/// The form that this program writes and reads.
const VERSION: u32 = 1;
/// Octets that are read at most: some tens of thousands of sessions.
const MOST: u64 = 8 << 20;
/// Changes within this time are written together.
const JOIN: Duration = Duration::from_millis(500);

/// What a session with graceful restart agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Graceful {
    /// Families in which both sides do it.
    pub families: AfiSet,
    /// Seconds for which the peer asked that its routes be kept.
    pub restart_time: u16,
}

/// Sessions that had graceful restart.
pub type Sessions = BTreeMap<SessionKey, Graceful>;

/// Why a marker counts as none.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no marker.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    /// A later or earlier program wrote it.
    #[error("its version is {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// A family or an address that is none.
    #[error("{0:?} is no {1}")]
    Field(String, &'static str),
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    /// The kernel's `boot_id`: routes do not survive another boot.
    boot: String,
    sessions: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    family: String,
    address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    port: u16,
    /// Names of families.
    graceful: Vec<String>,
    restart_time: u16,
}

/// The file's path in a run directory.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join(NAME)
}

fn family(name: &str) -> Result<Afi, MarkerError> {
    let found = Afi::ALL.into_iter().find(|afi| afi.name() == name);
    found.ok_or_else(|| MarkerError::Field(name.to_string(), "family"))
}

/// What a file's text says: the boot in which it was written, and the sessions.
pub fn parse(text: &[u8]) -> Result<(String, Sessions), MarkerError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(text)?;
    if version != VERSION {
        return Err(MarkerError::Version(version));
    }
    let document: Document = serde_json::from_slice(text)?;
    let mut sessions = Sessions::new();
    for entry in document.sessions {
        let families: Result<AfiSet, _> = entry.graceful.iter().map(|name| family(name)).collect();
        let key = SessionKey {
            afi: family(&entry.family)?,
            addr: entry.address,
            zone: entry.zone.as_deref().map(Into::into),
            port: entry.port,
        };
        sessions.insert(key, Graceful { families: families?, restart_time: entry.restart_time });
    }
    Ok((document.boot, sessions))
}

/// The file's text.
pub fn render(boot: &str, sessions: &Sessions) -> serde_json::Result<Vec<u8>> {
    let entry = |(key, graceful): (&SessionKey, &Graceful)| Entry {
        family: key.afi.name().to_string(),
        address: key.addr,
        zone: key.zone.as_deref().map(str::to_string),
        port: key.port,
        graceful: graceful.families.iter().map(|afi| afi.name().to_string()).collect(),
        restart_time: graceful.restart_time,
    };
    let sessions = sessions.iter().map(entry).collect();
    let mut text = serde_json::to_vec(&Document { version: VERSION, boot: boot.to_string(), sessions })?;
    text.push(b'\n');
    Ok(text)
}

/// The marker of an earlier process in this boot. What cannot be used is told and counts as none.
pub fn read(run_dir: &Path) -> Option<Sessions> {
    let path = path(run_dir);
    let text = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(&path)?.take(MOST).read_to_end(&mut text)?;
        Ok(text)
    };
    let found = match text() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.into()),
        Ok(text) => parse(&text),
    };
    match found {
        Ok((written, sessions)) if written == boot() => Some(sessions),
        Ok(_) => {
            info!(path = %path.display(), "the restart marker is of another boot: neighbours are told of no restart");
            None
        }
        Err(error) => {
            let path = path.display();
            warn!(%path, "the restart marker counts as none, and neighbours are told of no restart: {error}");
            None
        }
    }
}

/// Which boot this is; empty where the kernel does not tell.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

/// Writes the file, whole or not at all.
fn write(run_dir: &Path, text: &[u8]) -> io::Result<()> {
    let new = run_dir.join(format!("{NAME}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path(run_dir))?;
    File::open(run_dir)?.sync_all()
}

/// A session as it stands in the next marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Noted {
    graceful: Graceful,
    /// This process has had the session; else an earlier one had.
    ours: bool,
}

/// What sessions tell of themselves for the next start. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Notes {
    noted: watch::Sender<BTreeMap<SessionKey, Noted>>,
}

impl Default for Notes {
    fn default() -> Self {
        Notes::after(&Sessions::new())
    }
}

impl Notes {
    /// Begins with what an earlier process had.
    pub fn after(earlier: &Sessions) -> Self {
        let noted =
            earlier.iter().map(|(key, graceful)| (key.clone(), Noted { graceful: *graceful, ours: false }));
        Notes { noted: watch::Sender::new(noted.collect()) }
    }

    /// A session is up; `None`: without graceful restart.
    pub fn up(&self, key: &SessionKey, graceful: Option<Graceful>) {
        let Some(graceful) = graceful else { return self.over(key) };
        let now = Noted { graceful, ours: true };
        self.noted.send_if_modified(|noted| noted.insert(key.clone(), now) != Some(now));
    }

    /// A session has ended, and neither side keeps routes for the other.
    pub fn over(&self, key: &SessionKey) {
        self.noted.send_if_modified(|noted| noted.remove(key).is_some());
    }

    /// Only these sessions are configured.
    pub fn retain(&self, configured: impl Fn(&SessionKey) -> bool) {
        self.noted.send_if_modified(|noted| {
            let before = noted.len();
            noted.retain(|key, _| configured(key));
            noted.len() != before
        });
    }

    /// Peers that have not been back by now are no longer waited for at the next start.
    fn forget_earlier(&self) {
        self.noted.send_if_modified(|noted| {
            let before = noted.len();
            noted.retain(|_, noted| noted.ours);
            noted.len() != before
        });
    }

    fn sessions(noted: &BTreeMap<SessionKey, Noted>) -> Sessions {
        noted.iter().map(|(key, noted)| (key.clone(), noted.graceful)).collect()
    }

    /// Keeps the file at what is noted, until `stop`, and once more then.
    pub async fn keep(self, run_dir: PathBuf, stop: CancellationToken) {
        let mut noted = self.noted.subscribe();
        let longest = noted.borrow().values().map(|noted| noted.graceful.restart_time).max();
        let mut earlier_until = longest.map(|secs| Instant::now() + Duration::from_secs(secs.into()));
        let mut writer = Writer { run_dir, boot: boot(), written: None, complaint: None };
        let mut stopping = false;
        while !stopping {
            let sessions = Notes::sessions(&noted.borrow_and_update());
            writer = writer.write(sessions).await;
            tokio::select! {
                () = stop.cancelled() => stopping = true,
                () = sleep(JOIN) => {}
            }
            tokio::select! {
                () = stop.cancelled() => stopping = true,
                // The sender is in `self`.
                _ = noted.changed() => {}
                () = sleep_until(earlier_until.unwrap_or_else(Instant::now)), if earlier_until.is_some() => {
                    earlier_until = None;
                    self.forget_earlier();
                }
            }
        }
        let sessions = Notes::sessions(&noted.borrow_and_update());
        writer.write(sessions).await;
    }
}

/// The file as last written.
struct Writer {
    run_dir: PathBuf,
    boot: String,
    written: Option<Sessions>,
    complaint: Option<String>,
}

impl Writer {
    async fn write(mut self, sessions: Sessions) -> Self {
        if self.written.as_ref() == Some(&sessions) {
            return self;
        }
        let (run_dir, boot) = (self.run_dir.clone(), self.boot.clone());
        let written = tokio::task::spawn_blocking(move || {
            let text = render(&boot, &sessions)?;
            write(&run_dir, &text).map(|()| sessions)
        });
        match written.await.map_err(io::Error::other).and_then(|written| written) {
            Ok(sessions) => {
                self.written = Some(sessions);
                if self.complaint.take().is_some() {
                    info!("the restart marker can be written again");
                }
            }
            Err(error) => {
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    let path = path(&self.run_dir);
                    warn!(path = %path.display(), "the restart marker cannot be written: after a restart, neighbours will drop this node's routes until they are learned anew: {error}");
                }
                self.complaint = Some(complaint);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        let v4 = AfiSet::only(Afi::Ipv4);
        let zoned =
            SessionKey { zone: Some("eth0".into()), ..SessionKey::new("fe80::1".parse().unwrap(), 1790) };
        Sessions::from([
            (SessionKey::new("10.0.0.2".parse().unwrap(), 179), Graceful { families: v4, restart_time: 120 }),
            (zoned, Graceful { families: AfiSet::BOTH, restart_time: 0 }),
        ])
    }

    async fn until(what: &str, done: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !done() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}");
    }

    #[test]
    fn what_was_written_is_read_whatever_the_sessions_are_called() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None, "a first start");
        write(dir.path(), &render(&boot(), &sessions()).unwrap()).unwrap();
        assert_eq!(read(dir.path()), Some(sessions()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_marker_of_another_boot_version_or_shape_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let good = render(&boot(), &sessions()).unwrap();
        let cut = good.get(..good.len() / 2).unwrap().to_vec();
        let other = String::from_utf8(good.clone()).unwrap().replace("ipv6", "ipx");
        let newer = br#"{"version":2,"something":"else"}"#.to_vec();
        let another_boot = render("another", &sessions()).unwrap();
        for text in [cut, other.into_bytes(), newer, another_boot, Vec::new(), vec![0; 64]] {
            std::fs::write(path(dir.path()), &text).unwrap();
            assert_eq!(read(dir.path()), None, "{}", String::from_utf8_lossy(&text));
        }
        assert!(matches!(parse(br#"{"version":2}"#), Err(MarkerError::Version(2))));
    }

    #[tokio::test]
    async fn the_file_follows_what_sessions_tell_and_holds_the_last_word_when_the_process_stops() {
        let dir = tempfile::tempdir().unwrap();
        let (notes, stop) = (Notes::default(), CancellationToken::new());
        let kept = tokio::spawn(notes.clone().keep(dir.path().to_path_buf(), stop.clone()));
        for (key, graceful) in &sessions() {
            notes.up(key, Some(*graceful));
        }
        until("all are written", || read(dir.path()) == Some(sessions())).await;
        let (first, _) = sessions().pop_first().unwrap();
        notes.over(&first);
        until("one is over", || read(dir.path()).is_some_and(|sessions| sessions.len() == 1)).await;
        notes.retain(|_| false);
        stop.cancel();
        kept.await.unwrap();
        assert_eq!(read(dir.path()), Some(Sessions::new()));
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_stops_nothing_and_is_written_when_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("later");
        let (notes, stop) = (Notes::after(&sessions()), CancellationToken::new());
        let kept = tokio::spawn(notes.clone().keep(run_dir.clone(), stop.clone()));
        sleep(Duration::from_millis(20)).await;
        assert!(!kept.is_finished());
        std::fs::create_dir(&run_dir).unwrap();
        let key = SessionKey::new("10.0.0.3".parse().unwrap(), 179);
        notes.up(&key, Some(Graceful { families: AfiSet::BOTH, restart_time: 1 }));
        until("it is written", || read(&run_dir).is_some_and(|sessions| sessions.len() == 3)).await;
        stop.cancel();
        kept.await.unwrap();
    }

    #[tokio::test]
    async fn peers_of_an_earlier_process_that_do_not_come_back_in_their_time_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dead = SessionKey::new("10.0.0.9".parse().unwrap(), 179);
        let back = SessionKey::new("10.0.0.8".parse().unwrap(), 179);
        let graceful = Graceful { families: AfiSet::BOTH, restart_time: 1 };
        let notes = Notes::after(&Sessions::from([(dead, graceful), (back.clone(), graceful)]));
        let stop = CancellationToken::new();
        let kept = tokio::spawn(notes.clone().keep(dir.path().to_path_buf(), stop.clone()));
        notes.up(&back, Some(graceful));
        until("only one is left", || read(dir.path()) == Some(Sessions::from([(back.clone(), graceful)])))
            .await;
        stop.cancel();
        kept.await.unwrap();
    }
}
