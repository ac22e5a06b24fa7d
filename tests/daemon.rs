//! The daemon as a process: signals, streams, its run directory. Each test in a network namespace of its own.
//!
//! Needs root and util-linux.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the test is the shell here")]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clusters/three-nodes");
const BIN: &str = env!("CARGO_BIN_EXE_calico-bgpd");
const DEADLINE: Duration = Duration::from_secs(60);

struct Daemon {
    child: Child,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Starts it with this run directory; what it says goes to `log`.
    fn start(run_dir: &Path, log: &Path) -> Daemon {
        Daemon::start_on(CLUSTER.as_ref(), run_dir, log)
    }

    /// As node-1 of the cluster in this folder.
    fn start_on(cluster: &Path, run_dir: &Path, log: &Path) -> Daemon {
        let file = std::fs::File::create(log).unwrap();
        let child = Command::new("unshare")
            .args(["--net", BIN, "run", "--run-dir"])
            .arg(run_dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs([("NODENAME", "node-1"), ("DATASTORE_TYPE", "file")])
            .env("DATASTORE_PATH", cluster)
            .env("CALICO_BGPD_STATE_DIR", run_dir.join("state"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let daemon = Daemon { child, log: log.to_owned() };
        daemon.until_it_says("configured");
        daemon
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn until_it_says(&self, words: &str) {
        let begun = Instant::now();
        while !self.said().contains(words) {
            assert!(begun.elapsed() < DEADLINE, "never said: {words}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    fn ends(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "does not end\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn show_status(run_dir: &Path) -> Output {
    Command::new(BIN).args(["show", "status", "--run-dir"]).arg(run_dir).output().unwrap()
}

#[test]
fn signals_that_birds_users_send_end_nothing_and_sigterm_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let mut daemon = Daemon::start(&run_dir, &dir.path().join("log"));
    for (signal, word) in [("HUP", "SIGHUP"), ("USR1", "SIGUSR1")] {
        daemon.signal(signal);
        daemon.until_it_says(&format!("{word} has no effect"));
    }
    assert!(show_status(&run_dir).status.success());
    daemon.signal("TERM");
    assert!(daemon.ends().success(), "{}", daemon.said());
    assert!(daemon.said().contains("kernel routes stay"), "{}", daemon.said());
    assert!(!daemon.said().contains("did not end in time"), "{}", daemon.said());
    assert!(!run_dir.join("calico-bgpd.sock").exists());
    let nobody = show_status(&run_dir);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("nobody answers"));
}

#[test]
fn a_second_daemon_on_the_same_run_directory_names_the_first_and_leaves_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let daemon = Daemon::start(&run_dir, &dir.path().join("log"));
    let second = Command::new(BIN)
        .args(["run", "--run-dir"])
        .arg(&run_dir)
        .envs([("NODENAME", "node-1"), ("DATASTORE_TYPE", "file"), ("DATASTORE_PATH", CLUSTER)])
        .env("CALICO_BGPD_STATE_DIR", run_dir.join("state"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = [second.stdout, second.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains(&format!("already runs with this run directory (process {})", daemon.child.id())),
        "{said}"
    );
    assert!(show_status(&run_dir).status.success());
}

#[test]
fn without_a_socket_it_runs_and_still_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    // What is in the place of the socket cannot be removed.
    std::fs::create_dir_all(run_dir.join("calico-bgpd.sock/in-the-way")).unwrap();
    let mut daemon = Daemon::start(&run_dir, &dir.path().join("log"));
    assert!(daemon.said().contains("no control socket"), "{}", daemon.said());
    daemon.signal("TERM");
    assert!(daemon.ends().success());
    assert!(!daemon.said().contains("did not end in time"), "{}", daemon.said());
}

#[test]
fn while_the_datastore_is_locked_the_configuration_in_force_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("cluster");
    std::fs::create_dir(&cluster).unwrap();
    for name in ["nodes.yaml", "blocks.yaml", "pools.yaml", "cluster.yaml"] {
        std::fs::copy(Path::new(CLUSTER).join(name), cluster.join(name)).unwrap();
    }
    let run_dir = dir.path().join("run");
    let daemon = Daemon::start_on(&cluster, &run_dir, &dir.path().join("log"));
    let change = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(cluster.join(name)).unwrap();
        assert!(text.contains(from));
        std::fs::write(cluster.join("new"), text.replace(from, to)).unwrap();
        std::fs::rename(cluster.join("new"), cluster.join(name)).unwrap();
    };
    change("cluster.yaml", "datastoreReady: true", "datastoreReady: false");
    daemon.until_it_says("the datastore is locked (ClusterInformation/default: spec.datastoreReady)");
    let status = || String::from_utf8(show_status(&run_dir).stdout).unwrap();
    assert!(status().contains("of 4 established") && status().contains("locked"), "{}", status());
    change("nodes.yaml", "name: node-2", "name: node-9");
    change("nodes.yaml", "10.0.0.2/24", "10.0.0.9/24");
    assert!(!daemon.said().contains("generation=2"), "{}", daemon.said());
    change("cluster.yaml", "datastoreReady: false", "datastoreReady: true");
    daemon.until_it_says("generation=2");
    let said = daemon.said();
    let (unlocked, configured) = (said.find("no longer locked").unwrap(), said.find("generation=2").unwrap());
    assert!(unlocked < configured, "{said}");
    assert!(!status().contains("locked"), "{}", status());
}
