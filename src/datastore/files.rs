//! The file datastore: a file, or a folder of `*.yaml`, `*.yml` and `*.json` (not hidden, not recursive).
//!
//! Owns: [`FileSet`], the content of the files with the rules that keep what is in force: a document that cannot be
//! read removes nothing that its file said before, nor does a file without a single character; a file that loses
//! resources in place, or vanishes, is believed when that has lasted [`LOSS_DELAY`] (an editor or a copy may be under
//! way; a file that is renamed into place is believed at once); a folder that cannot be read is an outage and changes
//! nothing; where two files have one resource, the first file name wins. [`run`] watches and polls, and reads when the
//! folder is quiet and nobody is in the middle of writing a file of it, but no later than [`SETTLES_WITHIN`] after it
//! saw a change. Never: knows what resources mean.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{EventKind, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::{Events, SourceChange, SourceEvent};
use crate::model::ResourceKey;
use crate::model::decode::documents::documents;
use crate::model::decode::{DecodedResource, Reading, decode, tags};
use crate::model::snapshot::Snapshot;
use crate::model::store::{Held, Remembered, SnapshotBuilder, SourceEntry};
use crate::model::{Code, Kind, Problem};

/// Everything may be in a file.
pub const KINDS: [Kind; 11] = [
    Kind::Node,
    Kind::BgpConfiguration,
    Kind::ClusterInformation,
    Kind::IpPool,
    Kind::BlockAffinity,
    Kind::BgpPeer,
    Kind::BgpFilter,
    Kind::Secret,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::FelixConfiguration,
];

/// How long a loss of resources must last before it is believed.
pub const LOSS_DELAY: Duration = Duration::from_secs(1);
/// How long the files must not change before they are read: several that belong together change one after the other.
const QUIET: Duration = Duration::from_millis(100);
/// How long that, and the end of a writer, is waited for.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// The safety net beneath the file system's notifications.
const POLL: Duration = Duration::from_secs(5);
/// How often a datastore that is out of reach is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Larger files are refused.
const MAX_BYTES: u64 = 256 << 20;

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files by name, as the folder has them now; without a fingerprint where even that cannot be had.
type Listing = BTreeMap<String, (PathBuf, Option<Fingerprint>)>;

#[derive(Clone, Debug, Default)]
struct File {
    print: Option<Fingerprint>,
    held: Held,
    /// What the file said before and may still mean.
    carried: Held,
    problems: Vec<Problem>,
    /// A part of it cannot be read.
    broken: bool,
    /// It is no longer there; forgotten when the loss is believed.
    gone: bool,
    changed_at: Option<Instant>,
}

/// The content of all files.
#[derive(Clone, Debug)]
pub struct FileSet {
    reading: Reading,
    node: String,
    files: BTreeMap<String, File>,
    /// Last good forms of an earlier run.
    remembered: Remembered,
}

impl FileSet {
    /// No file yet.
    pub fn new(node: &str, reading: Reading) -> Self {
        FileSet { reading, node: node.to_owned(), files: BTreeMap::new(), remembered: Remembered::default() }
    }

    /// What cannot be read, and was never read before, has its last good form in `remembered`.
    pub fn remember(mut self, remembered: Remembered) -> Self {
        self.remembered = remembered;
        self
    }

    /// Takes the content that file `name` has from `now` on; `print` as the file system has it.
    pub fn put(&mut self, name: &str, bytes: &[u8], print: Option<Fingerprint>, now: Instant) {
        let before = self.files.remove(name).unwrap_or_default();
        let mut file = File { print, changed_at: Some(now), ..File::default() };
        let remembered = self.remembered.clone();
        let last = |key: &ResourceKey| {
            before.said(key).and_then(|decoded| decoded.resource.as_ref()).or_else(|| remembered.get(key))
        };
        for document in documents(bytes) {
            let place = format!("{name} document {}", document.number);
            let value = match document.value {
                Ok(value) => value,
                Err(why) => {
                    file.problems.push(Problem::of_whole(Code::Unreadable, place, why));
                    file.broken = true;
                    continue;
                }
            };
            let (mut resources, problems) = decode(&value, &place, self.reading, &last);
            tags::blame(&value, &document.tagged, &mut resources);
            file.broken |= !problems.is_empty();
            file.problems.extend(problems);
            for decoded in resources {
                match file.held.get(&decoded.key) {
                    Some(first) if first.from_kubernetes_node == decoded.from_kubernetes_node => {
                        let why = format!("is in {name} more than once; the first one is used");
                        file.problems.push(Problem::of_whole(Code::Twice, decoded.key.to_string(), why));
                    }
                    // A Calico Node says more than the Kubernetes Node of its name.
                    Some(_) if decoded.from_kubernetes_node => {}
                    _ => {
                        file.held.insert(decoded.key.clone(), decoded);
                    }
                }
            }
        }
        if bytes.iter().all(u8::is_ascii_whitespace)
            && (!before.held.is_empty() || !before.carried.is_empty())
        {
            // A full disk or a crash leaves this; who means it removes the file.
            let why = "is empty; what it said before stays in force until it says something or is removed";
            file.problems.push(Problem::of_whole(Code::Unreadable, name, why));
            file.broken = true;
        }
        let replaced = print.map(|print| print.inode) != before.print.map(|print| print.inode);
        if file.broken || !replaced {
            file.carry(before);
        }
        self.files.insert(name.to_owned(), file);
    }

    /// Whether the listing shows what was read already. What could not be read is tried again.
    fn has(&self, listing: &Listing) -> bool {
        let known = self.files.iter().filter(|(_, file)| !file.gone);
        let known = known.map(|(name, file)| (name, file.print));
        known.eq(listing.iter().map(|(name, (_, print))| (name, *print)))
            && listing.values().all(|(_, print)| print.is_some())
    }

    /// File `name` is there and cannot be read: what it said stays.
    pub fn unreadable(&mut self, name: &str, why: &str, now: Instant) {
        let mut file = File { broken: true, changed_at: Some(now), ..File::default() };
        file.carry(self.files.remove(name).unwrap_or_default());
        file.problems.push(Problem::of_whole(Code::Unreadable, name, why));
        self.files.insert(name.to_owned(), file);
    }

    /// File `name` is gone.
    pub fn vanished(&mut self, name: &str, now: Instant) {
        if let Some(before) = self.files.get_mut(name)
            && !before.gone
        {
            let mut file = File { gone: true, changed_at: Some(now), ..File::default() };
            file.carry(std::mem::take(before));
            *before = file;
        }
    }

    /// Believes losses that have lasted; whether anything changed by that.
    pub fn expire(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for file in self.files.values_mut() {
            if file.loss_is_believed_at().is_some_and(|at| at <= now) {
                file.carried.clear();
                changed = true;
            }
        }
        self.files.retain(|_, file| !file.gone || !file.carried.is_empty());
        changed
    }

    /// When [`FileSet::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.files.values().filter_map(File::loss_is_believed_at).min()
    }

    /// Everything that the files say.
    pub fn snapshot(&self) -> Snapshot {
        let mut builder = SnapshotBuilder::new(&self.node, self.reading.use_pod_cidr);
        let (taken, problems) = self.content();
        for decoded in taken.values() {
            builder.add(decoded);
        }
        builder.add_problems(problems);
        builder.finish()
    }

    /// Each resource as the file has it that counts, and what is wrong with the files.
    fn content(&self) -> (BTreeMap<&ResourceKey, &DecodedResource>, Vec<Problem>) {
        let mut taken: BTreeMap<&ResourceKey, (&str, &DecodedResource)> = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, file) in &self.files {
            for (key, decoded) in &file.held {
                match taken.get(key) {
                    None => {
                        taken.insert(key, (name, decoded));
                    }
                    Some((_, first)) if first.from_kubernetes_node && !decoded.from_kubernetes_node => {
                        taken.insert(key, (name, decoded));
                    }
                    Some((_, first)) if !first.from_kubernetes_node && decoded.from_kubernetes_node => {}
                    Some((first, _)) => {
                        let why = format!("is in {first} and in {name}; the one in {first} is used");
                        problems.push(Problem::of_whole(Code::Twice, key.to_string(), why));
                    }
                }
            }
        }
        for (name, file) in &self.files {
            problems.extend(file.problems.iter().cloned());
            for (key, decoded) in &file.carried {
                taken.entry(key).or_insert((name, decoded));
            }
        }
        (taken.into_iter().map(|(key, (_, decoded))| (key, decoded)).collect(), problems)
    }

    /// The changes that lead from what was said last to what the files say now.
    fn news(&self, said: &mut Held) -> (Vec<SourceChange>, Vec<Problem>) {
        let (taken, problems) = self.content();
        let gone = said.keys().filter(|key| !taken.contains_key(key)).cloned();
        let mut changes: Vec<SourceChange> = gone.map(SourceChange::Delete).collect();
        for (key, decoded) in &taken {
            if said.get(key) != Some(*decoded) {
                changes.push(SourceChange::Put(SourceEntry::Read((*decoded).clone())));
            }
        }
        *said = taken.into_iter().map(|(key, decoded)| (key.clone(), decoded.clone())).collect();
        (changes, problems)
    }
}

impl File {
    fn said(&self, key: &ResourceKey) -> Option<&DecodedResource> {
        self.held.get(key).or_else(|| self.carried.get(key))
    }

    fn carry(&mut self, before: File) {
        let said = before.carried.into_iter().chain(before.held);
        self.carried = said.filter(|(key, _)| !self.held.contains_key(key)).collect();
    }

    fn loss_is_believed_at(&self) -> Option<Instant> {
        let waits = !self.broken && !self.carried.is_empty();
        self.changed_at.filter(|_| waits).map(|at| at + LOSS_DELAY)
    }
}

/// The snapshot of texts that are already at hand, each with the name of its file.
pub fn snapshot_of_texts(node: &str, reading: Reading, texts: &[(&str, &str)]) -> Snapshot {
    let mut set = FileSet::new(node, reading);
    let now = Instant::now();
    for (name, text) in texts {
        set.put(name, text.as_bytes(), None, now);
    }
    set.snapshot()
}

/// Reads the file or folder once.
///
/// # Errors
///
/// Where the file or folder itself cannot be read. A file of the folder that cannot be read is a problem in the
/// snapshot.
pub fn read_once(path: &Path, node: &str, reading: Reading) -> io::Result<Snapshot> {
    let mut set = FileSet::new(node, reading);
    apply(&mut set, &list(path)?, Instant::now());
    Ok(set.snapshot())
}

/// The files that count, with their fingerprints.
fn list(path: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() {
        listing.insert(name_of(path), (path.to_owned(), Some(print_of(&metadata))));
        return Ok(listing);
    }
    // Fails with a clear word for what is neither a file nor a folder.
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let name = name_of(&path);
        if !is_read(&name) {
            continue;
        }
        // Links are followed, as in a mounted ConfigMap. A pipe would never end, a folder is not descended into.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                listing.insert(name, (path, Some(print_of(&metadata))));
            }
            Ok(_) => {}
            // It went away while we looked, or is a link to nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                listing.insert(name, (path, None));
            }
        }
    }
    Ok(listing)
}

/// Whether a file of this name in a folder counts.
fn is_read(name: &str) -> bool {
    let known = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
    known && !name.starts_with('.')
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn print_of(metadata: &std::fs::Metadata) -> Fingerprint {
    Fingerprint {
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// Brings the set to what the listing has.
fn apply(set: &mut FileSet, listing: &Listing, now: Instant) {
    for (name, (path, print)) in listing {
        if print.is_some() && set.files.get(name).is_some_and(|file| file.print == *print) {
            continue;
        }
        if print.is_some_and(|print| print.len > MAX_BYTES) {
            set.unreadable(name, "is larger than 256 MiB", now);
            continue;
        }
        match std::fs::read(path) {
            Ok(bytes) => set.put(name, &bytes, *print, now),
            Err(error) => set.unreadable(name, &format!("cannot be read: {error}"), now),
        }
    }
    let gone: Vec<String> = set.files.keys().filter(|name| !listing.contains_key(*name)).cloned().collect();
    for name in gone {
        set.vanished(&name, now);
    }
}

/// Watches the file or folder until `stop`.
pub async fn run(
    path: PathBuf,
    node: &str,
    reading: Reading,
    remembered: Remembered,
    events: Events,
    stop: CancellationToken,
) {
    let follow = follow(path, FileSet::new(node, reading).remember(remembered), events);
    stop.run_until_cancelled(follow).await;
}

async fn follow(path: PathBuf, mut set: FileSet, events: Events) {
    let (wake, mut woken) = mpsc::channel::<()>(1);
    let mut watch = FolderWatch::new(&path, wake);
    let (mut in_sync, mut away) = (false, false);
    let mut said = Held::new();
    loop {
        watch.renew();
        let mut next = POLL;
        match settled(&path, &set, &watch.writing).await {
            Err(error) => {
                let why = format!("{} cannot be read: {error}", path.display());
                if events.send(SourceEvent::Unavailable(why)).await.is_err() {
                    return;
                }
                away = true;
                next = RETRY;
            }
            Ok(listing) => {
                let news = !set.has(&listing);
                if news {
                    let mut read = set.clone();
                    let work = move || {
                        apply(&mut read, &listing, Instant::now());
                        read
                    };
                    match tokio::task::spawn_blocking(work).await {
                        Ok(read) => set = read,
                        Err(error) => tracing::error!(%error, "reading the files failed"),
                    }
                }
                let believed = set.expire(Instant::now());
                let mut what = Vec::new();
                if news || believed || !in_sync {
                    let (mut changes, problems) = set.news(&mut said);
                    changes.push(SourceChange::Problems(problems));
                    if in_sync {
                        what.push(SourceEvent::Changed { changes, resumed: away, revision: None });
                    } else {
                        let entry = |change: &SourceChange| match change {
                            SourceChange::Put(entry) => Some(entry.clone()),
                            SourceChange::Delete(_) | SourceChange::Problems(_) => None,
                        };
                        what.push(SourceEvent::Page(changes.iter().filter_map(entry).collect()));
                        what.push(SourceEvent::Listed { kinds: KINDS.to_vec(), revision: None });
                        changes.retain(|change| matches!(change, SourceChange::Problems(_)));
                        what.insert(0, SourceEvent::Changed { changes, resumed: false, revision: None });
                    }
                }
                in_sync = true;
                away = false;
                what.push(SourceEvent::Connected { kinds: KINDS.to_vec(), revision: None });
                for event in what {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                if let Some(at) = set.deadline() {
                    next = next.min(at.saturating_duration_since(Instant::now()));
                }
            }
        }
        tokio::select! {
            _ = woken.recv() => {}
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// The listing, once it has not changed for [`QUIET`] and nobody writes, or is as before.
async fn settled(path: &Path, set: &FileSet, writing: &Writing) -> io::Result<Listing> {
    let look = || {
        let path = path.to_owned();
        async move { tokio::task::spawn_blocking(move || list(&path)).await.map_err(io::Error::other)? }
    };
    let started = Instant::now();
    let mut listing = look().await?;
    while !set.has(&listing) {
        if started.elapsed() >= SETTLES_WITHIN {
            // Somebody keeps a file open, or does nothing but write.
            writing.forget();
            break;
        }
        tokio::time::sleep(QUIET).await;
        let again = look().await?;
        let quiet = again == listing && !writing.any_of(&listing);
        listing = again;
        if quiet {
            break;
        }
    }
    Ok(listing)
}

/// The files that were written to and not closed since: a value that is cut in the middle may well be another value.
#[derive(Clone, Debug, Default)]
struct Writing(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Writing {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeSet<PathBuf>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes an event that concerns the folder, or the one file `path`.
    fn note(&self, event: &notify::Event, path: &Path) {
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                // What is not read need not be waited for.
                let read = event.paths.iter().filter(|at| is_read(&name_of(at)) || at.ends_with(path));
                self.with(|writing| writing.extend(read.cloned()));
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => self.with(|writing| {
                for path in &event.paths {
                    writing.remove(path);
                }
            }),
            _ => {}
        }
    }

    fn any_of(&self, listing: &Listing) -> bool {
        self.with(|writing| writing.iter().any(|path| listing.contains_key(&name_of(path))))
    }

    fn forget(&self) {
        self.with(BTreeSet::clear);
    }
}

/// The file system's notifications, renewed where the folder was replaced by another one.
pub(super) struct FolderWatch {
    path: PathBuf,
    wake: mpsc::Sender<()>,
    writing: Writing,
    watching: Option<(notify::RecommendedWatcher, u64)>,
    /// The folder that is watched was removed. The next one may well have its inode.
    removed: Arc<AtomicBool>,
    complained: bool,
}

impl FolderWatch {
    /// Of a file or folder that may be yet to come; `wake` is told of each change.
    pub(super) fn new(path: &Path, wake: mpsc::Sender<()>) -> Self {
        FolderWatch {
            // As notifications have it.
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            wake,
            writing: Writing::default(),
            watching: None,
            removed: Arc::default(),
            complained: false,
        }
    }

    /// A file is watched by its folder, since it may be replaced by renaming; so is a folder that is yet to come.
    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !self.path.is_dir() => parent,
            _ => &self.path,
        }
    }

    /// Watches anew where that is needed; to be called before each look.
    pub(super) fn renew(&mut self) {
        let Ok(metadata) = std::fs::metadata(self.folder()) else {
            self.watching = None;
            self.writing.forget();
            return;
        };
        let removed = self.removed.load(Ordering::Acquire);
        if self.watching.as_ref().is_some_and(|(_, inode)| *inode == metadata.ino() && !removed) {
            return;
        }
        // What the watch before this one said of writers has no end any more.
        self.writing.forget();
        let (wake, writing, path) = (self.wake.clone(), self.writing.clone(), self.path.clone());
        // Each watch has its own: the last words of the one before are not about this one.
        self.removed = Arc::default();
        let (folder, removed) = (self.folder().to_owned(), self.removed.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = &event {
                writing.note(event, &path);
                if event.kind.is_remove() && event.paths.contains(&folder) {
                    removed.store(true, Ordering::Release);
                }
            }
            // Our own reading is no change. A full channel means that a look is due anyway.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = wake.try_send(());
            }
        });
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(self.folder(), notify::RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watching {
            Ok(watcher) => self.watching = Some((watcher, metadata.ino())),
            Err(error) => {
                self.watching = None;
                if !std::mem::replace(&mut self.complained, true) {
                    let folder = self.folder().display().to_string();
                    tracing::warn!(folder, %error, "no notifications of changed files; looking every 5 s");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_folder_that_was_replaced_is_watched_also_where_the_new_one_has_its_inode() {
        let outer = tempfile::tempdir().unwrap();
        // Relative, as people write it.
        let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect::<PathBuf>();
        let folder = up.join(outer.path().strip_prefix("/").unwrap()).join("resources");
        std::fs::create_dir(&folder).unwrap();
        let (wake, _woken) = mpsc::channel(1);
        let mut watch = FolderWatch::new(&folder, wake);
        watch.renew();
        let inode = std::fs::metadata(&folder).unwrap().ino();
        for _ in 0..100 {
            std::fs::remove_dir(&folder).unwrap();
            std::fs::create_dir(&folder).unwrap();
            if std::fs::metadata(&folder).unwrap().ino() == inode {
                break;
            }
        }
        let mut file = std::fs::File::create(folder.join("a.yaml")).unwrap();
        let begun = std::time::Instant::now();
        while watch.writing.with(|writing| writing.is_empty()) {
            assert!(begun.elapsed() < Duration::from_secs(10), "no notification of the new folder");
            watch.renew();
            file.write_all(b"#").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
