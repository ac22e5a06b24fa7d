//! The file datastore on a real folder: what is read, what a change does, what an accident does not do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the test is the shell here")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use calico_bgpd::datastore::feed::FeedSettings;
use calico_bgpd::datastore::files::{FileSet, LOSS_DELAY, SETTLES_WITHIN, read_once};
use calico_bgpd::datastore::settings::{Backend, DatastoreSettings};
use calico_bgpd::datastore::{SourceReceiver, SourceState, channel, run};
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Long enough for a slow machine; nothing waits for it where all is well.
const DEADLINE: Duration = Duration::from_secs(60);

fn node(name: &str, asn: u32) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  bgp:\n    asNumber: {asn}\n"
    )
}

/// Names and AS numbers of the nodes, as `a=1 b=2`.
fn nodes(snapshot: &Snapshot) -> String {
    let nodes = snapshot.nodes.iter().map(|(name, node)| format!("{name}={}", node.asn.unwrap()));
    nodes.collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> Snapshot {
    read_once(path, "a", Reading::default()).unwrap()
}

#[test]
fn a_folder_gives_its_yaml_yml_and_json_files_but_no_hidden_or_deeper_ones() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put("a.yaml", &node("a", 1));
    put("b.yml", &node("b", 2));
    put(
        "c.json",
        r#"{"apiVersion":"projectcalico.org/v3","kind":"Node","metadata":{"name":"c"},"spec":{"bgp":{"asNumber":3}}}"#,
    );
    put(".hidden.yaml", &node("hidden", 4));
    put("notes.txt", &node("notes", 5));
    put("d.yaml.bak", &node("backup", 6));
    std::fs::create_dir(dir.path().join("deeper.yaml")).unwrap();
    std::fs::write(dir.path().join("deeper.yaml/e.yaml"), node("deeper", 7)).unwrap();
    std::os::unix::fs::symlink(dir.path().join("notes.txt"), dir.path().join("link.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.yaml")).unwrap();
    let snapshot = read(dir.path());
    assert_eq!(nodes(&snapshot), "a=1 b=2 c=3 notes=5");
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
}

#[test]
fn one_file_of_any_name_is_read_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster");
    std::fs::write(&path, format!("{}---\n{}", node("a", 1), node("b", 2))).unwrap();
    assert_eq!(nodes(&read(&path)), "a=1 b=2");
}

#[test]
fn of_one_resource_in_two_files_the_first_file_name_wins_with_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b.yaml"), node("a", 2)).unwrap();
    std::fs::write(dir.path().join("a.yaml"), node("a", 1)).unwrap();
    let snapshot = read(dir.path());
    assert_eq!(nodes(&snapshot), "a=1");
    assert_eq!(
        snapshot.problems[0].to_string(),
        "Node/a: is in a.yaml and in b.yaml; the one in a.yaml is used"
    );
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    assert!(read_once(Path::new("/nonexistent/cluster"), "a", Reading::default()).is_err());
}

/// A set of one file, changed in place as by a shell's `>`.
struct OneFile {
    set: FileSet,
    now: Instant,
}

impl OneFile {
    fn new(text: &str) -> OneFile {
        let mut file = OneFile { set: FileSet::new("a", Reading::default()), now: Instant::now() };
        file.put(text);
        file.pass(LOSS_DELAY);
        file
    }

    fn put(&mut self, text: &str) -> Snapshot {
        self.set.put("f.yaml", text.as_bytes(), None, self.now);
        self.set.snapshot()
    }

    fn pass(&mut self, time: Duration) -> Snapshot {
        self.now += time;
        self.set.expire(self.now);
        self.set.snapshot()
    }
}

#[test]
fn while_a_document_cannot_be_read_nothing_that_its_file_said_is_removed() {
    let mut file = OneFile::new(&format!("{}---\n{}", node("a", 1), node("b", 2)));
    let broken = file.put(&format!("{}---\nkind: [\n---\n{}", node("a", 9), node("c", 3)));
    assert_eq!(nodes(&broken), "a=9 b=2 c=3", "what can be read is in force");
    assert_eq!(broken.problems.len(), 1);
    assert_eq!(nodes(&file.pass(Duration::from_secs(3600))), "a=9 b=2 c=3", "however long it lasts");
    file.put(&node("a", 9));
    let mended = file.pass(LOSS_DELAY);
    assert_eq!((nodes(&mended).as_str(), mended.problems.len()), ("a=9", 0));
}

#[test]
fn a_file_that_is_written_in_place_loses_nothing_before_the_writer_had_time_to_finish() {
    let mut file = OneFile::new(&format!("{}---\n{}", node("a", 1), node("b", 2)));
    assert_eq!(nodes(&file.put("")), "a=1 b=2", "truncated");
    file.pass(LOSS_DELAY / 2);
    assert_eq!(nodes(&file.put(&node("a", 5))), "a=5 b=2", "half written");
    file.pass(LOSS_DELAY / 2);
    assert_eq!(nodes(&file.pass(LOSS_DELAY / 4)), "a=5 b=2", "counted from the last change");
    assert_eq!(nodes(&file.pass(LOSS_DELAY / 4)), "a=5", "a lasting loss is meant");
}

#[test]
fn a_file_that_is_left_empty_keeps_its_last_content_with_a_problem() {
    let mut file = OneFile::new(&format!("{}---\n{}", node("a", 1), node("b", 2)));
    for nothing in ["", "\n \n"] {
        file.put(nothing);
        let empty = file.pass(Duration::from_secs(3600));
        assert_eq!(nodes(&empty), "a=1 b=2");
        let problems: Vec<String> = empty.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            ["f.yaml: is empty; what it said before stays in force until it says something or is removed"]
        );
    }
    file.put("# nothing any more\n");
    let meant = file.pass(LOSS_DELAY);
    assert_eq!((nodes(&meant).as_str(), meant.problems.len()), ("", 0));
    // Who never said anything keeps nothing.
    assert!(OneFile::new("").set.snapshot().problems.is_empty());
}

#[test]
fn a_resource_that_moves_to_another_file_is_never_absent_and_no_problem() {
    let mut file = OneFile::new(&format!("{}---\n{}", node("a", 1), node("b", 2)));
    file.put(&node("a", 1));
    file.set.put("g.yaml", node("b", 3).as_bytes(), None, file.now);
    let moved = file.set.snapshot();
    assert_eq!((nodes(&moved).as_str(), moved.problems.len()), ("a=1 b=3", 0));
}

struct Following {
    receiver: SourceReceiver,
    stop: CancellationToken,
}

impl Following {
    fn start(path: PathBuf) -> Following {
        let (out, receiver) = channel();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let settings = DatastoreSettings {
            backend: Backend::File { path },
            use_pod_cidr: false,
            feed: FeedSettings::default(),
        };
        tokio::spawn(async move { run(settings, "a", out, token).await });
        Following { receiver, stop }
    }

    async fn nodes(&mut self, wanted: &str) -> Arc<Snapshot> {
        let waits =
            self.receiver.snapshots.wait_for(|held| held.as_deref().is_some_and(|s| nodes(s) == wanted));
        let found = tokio::time::timeout(DEADLINE, waits).await.map(|found| found.unwrap().clone().unwrap());
        found.unwrap_or_else(|_| {
            let last = self.receiver.snapshots.borrow().as_deref().map(nodes);
            panic!("{wanted} is not reached; last: {last:?}")
        })
    }

    async fn state(&mut self, wanted: SourceState) {
        let waits = self.receiver.status.wait_for(|status| status.state == wanted);
        let done = tokio::time::timeout(DEADLINE, waits).await.is_ok();
        assert!(done, "{wanted:?} is not reached");
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn files_that_are_added_changed_renamed_and_removed_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut source = Following::start(dir.path().to_owned());
    source.nodes("").await;
    std::fs::write(at("a.yaml"), node("a", 1)).unwrap();
    source.nodes("a=1").await;
    std::fs::write(at("a.yaml"), node("a", 2)).unwrap();
    source.nodes("a=2").await;
    std::fs::write(at(".new"), node("b", 3)).unwrap();
    std::fs::rename(at(".new"), at("b.yaml")).unwrap();
    source.nodes("a=2 b=3").await;
    std::fs::write(at(".new"), node("c", 4)).unwrap();
    std::fs::rename(at(".new"), at("b.yaml")).unwrap();
    source.nodes("a=2 c=4").await;
    std::fs::remove_file(at("a.yaml")).unwrap();
    source.nodes("c=4").await;
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_when_its_link_is_switched() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (folder, asn) in [("..one", 1), ("..two", 2)] {
        std::fs::create_dir(at(folder)).unwrap();
        std::fs::write(at(folder).join("a.yaml"), node("a", asn)).unwrap();
    }
    std::os::unix::fs::symlink("..one", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let mut source = Following::start(dir.path().to_owned());
    source.nodes("a=1").await;
    std::os::unix::fs::symlink("..two", at("..data_tmp")).unwrap();
    std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
    source.nodes("a=2").await;
}

#[tokio::test]
async fn a_folder_that_vanishes_is_an_outage_and_is_followed_again_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cluster");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), node("a", 1)).unwrap();
    let mut source = Following::start(folder.clone());
    let before = source.nodes("a=1").await;
    std::fs::rename(&folder, dir.path().join("away")).unwrap();
    source.state(SourceState::Retrying).await;
    assert_eq!(source.receiver.snapshots.borrow().as_ref(), Some(&before), "an outage deletes nothing");
    let error = source.receiver.status.borrow().last_error.clone().unwrap();
    assert!(error.contains(folder.to_str().unwrap()), "{error}");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), node("a", 2)).unwrap();
    source.nodes("a=2").await;
    source.state(SourceState::Connected).await;
    std::fs::write(folder.join("b.yaml"), node("b", 3)).unwrap();
    source.nodes("a=2 b=3").await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cluster");
    let mut source = Following::start(folder.clone());
    source.state(SourceState::Retrying).await;
    assert!(source.receiver.snapshots.borrow().is_none() && !source.receiver.status.borrow().in_sync);
    std::fs::create_dir(&folder).unwrap();
    source.nodes("").await;
    assert!(source.receiver.status.borrow().in_sync);
}

#[tokio::test]
async fn a_single_file_that_vanishes_is_an_outage_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.yaml");
    std::fs::write(&path, node("a", 1)).unwrap();
    let mut source = Following::start(path.clone());
    source.nodes("a=1").await;
    std::fs::remove_file(&path).unwrap();
    source.state(SourceState::Retrying).await;
    source.nodes("a=1").await;
    std::fs::write(&path, node("a", 2)).unwrap();
    source.nodes("a=2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_not_read_while_somebody_is_in_the_middle_of_writing_it() {
    // Where the machine is so slow that the writer takes longer than is waited for, another attempt is made.
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, node("a", 1)).unwrap();
        let mut source = Following::start(dir.path().to_owned());
        source.nodes("a=1").await;
        let begun = std::time::Instant::now();
        let text = node("a", 4567);
        let mut file = std::fs::File::create(&path).unwrap();
        // Cut in the middle of a number, and longer than a folder has to be quiet.
        file.write_all(&text.as_bytes()[..text.len() - 3]).unwrap();
        file.flush().unwrap();
        let changed = source.receiver.snapshots.has_changed().unwrap();
        tokio::time::sleep(SETTLES_WITHIN / 4).await;
        let read = source.receiver.snapshots.has_changed().unwrap();
        file.write_all(&text.as_bytes()[text.len() - 3..]).unwrap();
        drop(file);
        if begun.elapsed() > SETTLES_WITHIN / 2 {
            continue;
        }
        assert!(!changed && !read, "{}", nodes(source.receiver.snapshots.borrow().as_deref().unwrap()));
        source.nodes("a=4567").await;
        return;
    }
    panic!("too slow a machine");
}

#[tokio::test]
async fn a_writer_that_never_closes_its_file_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    std::fs::write(&path, node("a", 1)).unwrap();
    let mut source = Following::start(dir.path().to_owned());
    source.nodes("a=1").await;
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(node("a", 2).as_bytes()).unwrap();
    source.nodes("a=2").await;
    // Nor is another file, which comes later.
    std::fs::write(dir.path().join("b.yaml"), node("b", 3)).unwrap();
    source.nodes("a=2 b=3").await;
    drop(file);
}
