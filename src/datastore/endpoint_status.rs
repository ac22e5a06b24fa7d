//! Felix's files about the workloads of this node, followed as they change.
//!
//! Owns: the folder `endpoint-status` (PEER-30, PEER-34): what each file says, and what it said last where it cannot be
//! read; the retry of what may be half written. A folder that is missing is an empty one: Felix makes it when it needs
//! it. Never: decides who is a peer ([`endpoint_status`] reads a file), or waits for Felix.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::feed::{Events, SourceEvent};
use super::files::FolderWatch;
use crate::model::decode::endpoint_status;
use crate::model::snapshot::Workloads;
use crate::model::{Code, Problem, WorkloadPeer};

/// The folder below the prefix.
pub const FOLDER: &str = "endpoint-status";
/// The safety net beneath the file system's notifications.
const POLL: Duration = Duration::from_secs(5);
/// A file that is no JSON is looked at again after this: its writer may be in the middle of it.
const HALF_WRITTEN: Duration = Duration::from_millis(50);
/// Larger files are none of Felix's.
const MAX_BYTES: u64 = 1 << 20;

/// What the files say.
#[derive(Debug, Default)]
struct Statuses {
    /// The last good content of each file; `None`: no peer.
    known: BTreeMap<String, Option<Arc<WorkloadPeer>>>,
}

/// The files of the folder with their contents; none where there is no folder.
type Contents = BTreeMap<String, io::Result<String>>;

impl Statuses {
    /// Takes the folder as it is now: the peers, and what cannot be read.
    fn take(&mut self, contents: Contents) -> (Workloads, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut known = BTreeMap::new();
        for (name, content) in contents {
            let last = self.known.remove(&name).flatten();
            let read = content.map_err(|error| error.to_string()).and_then(|text| endpoint_status(&text));
            let peer = match read {
                Ok(peer) => match (peer, last) {
                    (Some(peer), Some(last)) if *last == peer => Some(last),
                    (peer, _) => peer.map(Arc::new),
                },
                Err(why) => {
                    let stays = if last.is_some() { "; what it said last stays" } else { "" };
                    let place = format!("{FOLDER}/{}", name.escape_debug());
                    problems.push(Problem::of_whole(Code::Unreadable, place, format!("{why}{stays}")));
                    last
                }
            };
            known.insert(name, peer);
        }
        self.known = known;
        let peers = self.known.iter().filter_map(|(name, peer)| Some((name.clone(), peer.clone()?)));
        (peers.collect(), problems)
    }
}

fn contents(folder: &Path) -> io::Result<Contents> {
    let mut contents = Contents::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(contents),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let content = match std::fs::metadata(&path) {
            // It went away while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(error),
            Ok(metadata) if !metadata.is_file() => continue,
            Ok(metadata) if metadata.len() > MAX_BYTES => Err(io::Error::other("is larger than 1 MiB")),
            Ok(_) => std::fs::read_to_string(&path),
        };
        contents.insert(name, content);
    }
    Ok(contents)
}

/// The workloads that are peers now, and what cannot be read.
pub fn read_once(folder: &Path) -> (Workloads, Vec<Problem>) {
    match contents(folder) {
        Ok(contents) => Statuses::default().take(contents),
        Err(error) => (Workloads::default(), vec![unreadable(folder, &error)]),
    }
}

fn unreadable(folder: &Path, error: &io::Error) -> Problem {
    let why = format!("cannot be read: {error}; what it said last stays");
    Problem::of_whole(Code::Unreadable, folder.display().to_string(), why)
}

/// Follows the folder.
pub struct Follower {
    folder: PathBuf,
    statuses: Statuses,
    said: Option<(Workloads, Vec<Problem>)>,
}

impl Follower {
    /// Of a folder that may not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Follower { folder, statuses: Statuses::default(), said: None }
    }

    /// Looks, and tells what is new; whether a file may be half written. `Err`: nobody listens.
    pub async fn look(&mut self, events: &Events) -> Result<bool, ()> {
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || contents(&folder)).await.map_err(io::Error::other);
        let now = match read.flatten() {
            Ok(contents) => self.statuses.take(contents),
            Err(error) => {
                let last = self.said.as_ref().map(|(peers, _)| peers.clone()).unwrap_or_default();
                (last, vec![unreadable(&self.folder, &error)])
            }
        };
        let broken = !now.1.is_empty();
        if self.said.as_ref() != Some(&now) {
            let (peers, problems) = now.clone();
            self.said = Some(now);
            events.send(SourceEvent::Workloads { peers, problems }).await.map_err(|_| ())?;
        }
        Ok(broken)
    }

    /// Looks whenever something changes, until `stop`.
    pub async fn run(mut self, events: Events, stop: CancellationToken) {
        let (wake, mut woken) = mpsc::channel::<()>(1);
        let mut watch = FolderWatch::new(&self.folder, wake);
        let follow = async {
            let mut retried = false;
            loop {
                watch.renew();
                let Ok(broken) = self.look(&events).await else { return };
                retried = broken && !retried;
                let next = if retried { HALF_WRITTEN } else { POLL };
                tokio::select! {
                    _ = woken.recv() => {}
                    () = tokio::time::sleep(next) => {}
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(peer: &str, address: &str) -> String {
        format!(r#"{{"ifaceName":"cali1","ipv4Nets":["{address}/32"],"bgpPeerName":"{peer}"}}"#)
    }

    /// The next word of the follower: names of peers by file, and how many files cannot be read.
    async fn next(events: &mut mpsc::Receiver<SourceEvent>) -> (Vec<(String, String)>, usize) {
        let limit = Duration::from_secs(20);
        match tokio::time::timeout(limit, events.recv()).await.expect("nothing is said").unwrap() {
            SourceEvent::Workloads { peers, problems } => {
                let names = peers.iter().map(|(file, peer)| (file.clone(), peer.peer.clone()));
                (names.collect(), problems.len())
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_folder_is_followed_from_before_it_exists_and_a_broken_file_keeps_what_it_said() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join(FOLDER);
        let (events, mut said) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let task = tokio::spawn(Follower::new(folder.clone()).run(events, stop.clone()));
        assert_eq!(next(&mut said).await, (vec![], 0));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("k8s default%2Fpod eth0");
        let one = |peer: &str| vec![("k8s default%2Fpod eth0".to_owned(), peer.to_owned())];
        let put = |text: &str| {
            let new = outer.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        put(&status("tor", "10.0.0.1"));
        assert_eq!(next(&mut said).await, (one("tor"), 0));
        put("{");
        assert_eq!(next(&mut said).await, (one("tor"), 1));
        put(&status("dns", "10.0.0.1"));
        assert_eq!(next(&mut said).await, (one("dns"), 0));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(next(&mut said).await, (vec![], 0));
        std::fs::remove_dir(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        put(&status("tor", "10.0.0.1"));
        assert_eq!(next(&mut said).await, (one("tor"), 0));
        stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn a_file_that_was_never_good_is_no_peer_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), status("tor", "10.0.0.1")).unwrap();
        std::fs::write(folder.path().join("b"), "{").unwrap();
        std::fs::create_dir(folder.path().join("c")).unwrap();
        let (peers, problems) = read_once(folder.path());
        assert_eq!(peers.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            problems.iter().map(|problem| problem.resource.as_str()).collect::<Vec<_>>(),
            ["endpoint-status/b"]
        );
        assert_eq!(read_once(&folder.path().join("none")), (Workloads::default(), vec![]));
    }
}
