//! The daemon: what is started, in which order, and how it ends.
//!
//! Owns: every long-lived task and thread but those of peers, which [`roster`](crate::roster) starts and ends; the run
//! directory's lock; signals. Never: decides about routes or sessions.
//!
//! Start: lock, table, kernel, listener, sessions, datastore, control socket. Stop: sessions first (TCP closed without
//! NOTIFICATION where graceful restart is negotiated, BGP-33), then the rest; kernel routes stay (KRT-49).

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::{Afi, AfiSet};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::cli::EXIT_DEFECT;
use crate::clock::Clock;
use crate::configure::{self, Configure, ConfigurePorts, InForce};
use crate::control::bird::{self, server::Bird};
use crate::control::counts::Counts;
use crate::control::http;
use crate::control::server::{self, ControlSocket, Views};
use crate::core_thread::courier::Dispatch;
use crate::core_thread::{self, CorePort, KernelPort, Urgent};
use crate::datastore;
use crate::fib::Phase;
use crate::fib::cleanup;
use crate::fib::dry_run::DryRun;
use crate::fib::linux::LinuxKernel;
use crate::fib::reconciler::{self, FibStatus};
use crate::net::incumbent;
use crate::net::listener::{self, ListenPlan, ListenStatus};
use crate::net::peer_view::Looks;
use crate::random::random;
use crate::restart_marker::{self, Notes, Sessions};
use crate::roster::{OnSockets, Roster, RosterPorts};
use crate::settings::Settings;
use crate::speaker::{Restart, Speaker};
use crate::telemetry::log::Log;

/// Messages between the table and the kernel that may wait.
const KERNEL_QUEUE: usize = 256;
/// Questions about kernel routes that wait.
const KERNEL_LOOKS: usize = 4;
/// How long each step of an orderly stop may take.
const STOP: Duration = Duration::from_secs(3);
/// The task that configures, in the log.
const CONFIGURE: &str = "configure";
/// CAP_NET_ADMIN of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Another instance.
    #[error("{path} is locked: calico-bgpd already runs with this run directory{}", match .pid { Some(pid) => format!(" (process {pid})"), None => String::new() })]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the other instance wrote into it.
        pid: Option<u32>,
    },
    /// Not root.
    #[error(
        "CAP_NET_ADMIN is missing, without which no route can be written: run calico-bgpd as root or give it that capability"
    )]
    NotPermitted,
    /// The system refuses something that nothing can go on without.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A part that must not end has ended; the log has said which and why.
    #[error("a part of the daemon failed")]
    Defect,
}

/// The lock of a run directory; held while this lives.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of a run directory, making the directory where it is missing.
    ///
    /// `Ok(None)`: the directory cannot be written (P4); the daemon goes on without it.
    pub fn take(run_dir: &Path) -> Result<Option<RunLock>, AppError> {
        let path = run_dir.join("calico-bgpd.lock");
        let open = || -> io::Result<File> {
            std::fs::create_dir_all(run_dir)?;
            File::options().read(true).write(true).create(true).truncate(false).open(&path)
        };
        let mut file = match open() {
            Ok(file) => file,
            Err(error) => {
                warn!(path = %path.display(), %error, "no lock and no control socket: the run directory cannot be written");
                return Ok(None);
            }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                return Err(AppError::Locked { path, pid });
            }
            Err(TryLockError::Error(source)) => {
                return Err(AppError::System { what: "cannot lock the run directory", source });
            }
        }
        // For people only; the lock itself is the kernel's.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot write the process number into the lock file");
        }
        Ok(Some(RunLock { _file: file }))
    }
}

/// Whether `CapEff` of a `/proc/<pid>/status` text has CAP_NET_ADMIN; `None` where it cannot be told.
fn has_net_admin(status: &str) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask & (1 << CAP_NET_ADMIN) != 0)
}

/// Runs the daemon until SIGTERM or SIGINT. Call inside the runtime.
pub async fn run(settings: Settings, log: Arc<Log>) -> Result<(), AppError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if has_net_admin(&status) == Some(false) {
        return Err(AppError::NotPermitted);
    }
    let system = |what| move |source| AppError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot listen for SIGINT"))?;
    let mut ignored = Ignored::new().map_err(system("cannot listen for SIGHUP"))?;
    let lock = RunLock::take(&settings.run_dir)?;
    let clock = Clock::start();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = settings.node.facts.node_name,
        run_dir = %settings.run_dir.display(),
        "calico-bgpd starts"
    );

    let (core, inbox) = core_thread::inboxes::<Speaker>();
    let (events_tx, events) = mpsc::channel(KERNEL_QUEUE);
    let (fib_tx, fib_rx) = mpsc::channel(KERNEL_QUEUE);
    let (looks_tx, looks) = mpsc::channel(KERNEL_LOOKS);
    let (phase_tx, phase) = watch::channel(Phase::Recovering);
    let (fib_status_tx, fib) = watch::channel(FibStatus::default());
    let (listen_tx, listen) = watch::channel(Arc::new(ListenPlan::default()));
    let (listen_status_tx, listen_status) = watch::channel(ListenStatus::default());
    let (in_force_tx, in_force) = watch::channel(Arc::new(InForce::default()));
    let (source_tx, source) = datastore::channel();
    let closers = TaskTracker::new();
    let sockets: Vec<PathBuf> =
        [&settings.bird_socket, &settings.bird6_socket].into_iter().flatten().cloned().collect();
    let (incumbent_tx, alone) = watch::channel(incumbent::found(&sockets).await);
    let session_looks = Looks::default();
    let (stop_sessions, stop_rest) = (CancellationToken::new(), CancellationToken::new());

    let ((again, again_rx), down) = (configure::again(), CancellationToken::new());
    let kernel = KernelPort { events, wanted: fib_tx };
    let last_words = log.clone();
    let failed = move |why: &str| {
        // Its state is suspect; sessions and routes survive a restart.
        error!("the table failed and the process ends; kernel routes stay: {why}");
        last_words.flush(STOP);
        std::process::exit(i32::from(EXIT_DEFECT));
    };
    let earlier = lock.as_ref().and_then(|_| restart_marker::read(&settings.run_dir));
    let found = forwarding(earlier.is_some(), alone.borrow().is_some()).await;
    let restart = restart_after(earlier.as_ref(), found);
    let notes = Notes::after(&earlier.unwrap_or_default());
    let restarting = restart.families;
    let speaker = Speaker::after(random(), restart);
    let dispatch = Dispatch::on(&tokio::runtime::Handle::current());
    let core_thread = core_thread::start(speaker, clock, inbox, kernel, phase_tx, dispatch, failed)
        .map_err(system("cannot start a thread"))?;
    let reconciler = if settings.dry_run {
        let (lines, said) = mpsc::channel(KERNEL_QUEUE);
        tokio::task::spawn_blocking(move || print_lines(said));
        let kernel = DryRun::new(LinuxKernel::new(), lines);
        tokio::spawn(reconciler::run(kernel, fib_rx, looks, events_tx, fib_status_tx, stop_rest.clone()))
    } else {
        let kernel = LinuxKernel::new();
        tokio::spawn(reconciler::run(kernel, fib_rx, looks, events_tx, fib_status_tx, stop_rest.clone()))
    };
    let mut tasks: Vec<(&'static str, JoinHandle<()>)> = vec![("kernel", reconciler)];
    tasks.push(("listener", tokio::spawn(listener::run(listen, listen_status_tx, stop_rest.clone()))));
    let roster = RosterPorts {
        clock,
        core: core.clone(),
        listen: listen_tx,
        closers: closers.clone(),
        looks: session_looks.clone(),
        notes: notes.clone(),
        restarting,
    };
    let configure = ConfigurePorts {
        facts: settings.node.facts.clone(),
        state_dir: lock.is_some().then(|| settings.run_dir.clone()),
        clock,
        in_force: in_force_tx,
        log: Some(log),
        again: again_rx,
        incumbent: alone.clone(),
        phase: phase.clone(),
    };
    let configure = Configure::new(configure, Roster::new(roster, OnSockets));
    let mut configure = tokio::spawn(configure.run(source.snapshots.clone(), stop_sessions.clone()));
    if lock.is_some() {
        // It ends after the sessions, whose last word it writes.
        tasks.push(("restart marker", tokio::spawn(notes.keep(settings.run_dir.clone(), stop_rest.clone()))));
    }
    tasks
        .push(("port", tokio::spawn(tell_listening(listen_status.clone(), core.clone(), stop_rest.clone()))));
    if alone.borrow().is_some() {
        tokio::spawn(incumbent::until_silent(sockets, incumbent_tx));
    }
    let (node, stop) = (settings.node.facts.node_name.clone(), stop_rest.clone());
    let datastore = settings.node.datastore.clone();
    tasks.push((
        "datastore",
        tokio::spawn(async move { datastore::run(datastore, &node, source_tx, stop).await }),
    ));
    if lock.is_some() {
        let views = Views {
            clock,
            core: core.clone(),
            in_force,
            source: source.status,
            listen: listen_status,
            phase,
            fib,
            kernel: looks_tx,
            counts: Arc::new(Counts::new(core.clone())),
            again,
            looks: session_looks,
        };
        if let Some(address) = settings.http {
            let served = http::run(address, views.clone(), stop_rest.clone());
            tasks.push(("http", tokio::spawn(served)));
        }
        for (afi, path) in [(Afi::Ipv4, &settings.bird_socket), (Afi::Ipv6, &settings.bird6_socket)] {
            if let Some(path) = path {
                let bird = Bird { afi, views: views.clone(), down: down.clone() };
                let served = bird::server::run(path.clone(), bird, stop_rest.clone());
                let (mut alone, stop) = (alone.clone(), stop_rest.clone());
                let served = async move {
                    // Before, the place is another's.
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = alone.wait_for(Option::is_none) => {}
                    }
                    served.await;
                };
                tasks.push(("bird.ctl", tokio::spawn(served)));
            }
        }
        match ControlSocket::bind(&settings.run_dir) {
            Ok(socket) => {
                tasks.push(("control", tokio::spawn(server::run(socket, views, stop_rest.clone()))));
            }
            Err(error) => {
                let run_dir = settings.run_dir.display();
                warn!(%run_dir, %error, "no control socket: show cannot ask this daemon");
            }
        }
    }
    // The table ends when nobody can reach it any more.
    drop(core);

    // Nothing below ends by itself: what does has failed.
    let failed = loop {
        break tokio::select! {
            _ = terminate.recv() => { info!("SIGTERM: sessions end, routes stay"); None }
            () = down.cancelled() => { info!("down: sessions end, routes stay"); None }
            _ = interrupt.recv() => { info!("SIGINT: sessions end, routes stay"); None }
            name = ignored.recv() => {
                info!("{name} has no effect: what changes in the datastore is followed as it changes");
                continue;
            }
            end = &mut configure => Some((CONFIGURE, end)),
            (name, end) = first_to_end(&mut tasks) => Some((name, end)),
        };
    };
    let result = match failed {
        Some((name, end)) => {
            let why = end.err().map_or_else(|| "it ended by itself".to_string(), |panic| panic.to_string());
            error!(
                task = name,
                "a part of the daemon failed and the process ends; kernel routes stay: {why}"
            );
            Err(AppError::Defect)
        }
        None => Ok(()),
    };
    stop_sessions.cancel();
    wait_for(&mut [(CONFIGURE, configure)], STOP * 2).await;
    closers.close();
    if timeout(STOP, closers.wait()).await.is_err() {
        warn!("some connections did not close in time");
    }
    stop_rest.cancel();
    wait_for(&mut tasks, STOP).await;
    // Every way into the table is closed by now, so its thread ends.
    let ended = timeout(STOP, tokio::task::spawn_blocking(move || core_thread.join())).await;
    if ended.is_err() {
        warn!("the table did not end in time");
    }
    info!("calico-bgpd ends; kernel routes stay");
    result
}

/// What a dry run would write, to standard output. Blocks: call it on a thread of its own.
fn print_lines(mut said: mpsc::Receiver<String>) {
    while let Some(line) = said.blocking_recv() {
        if writeln!(io::stdout(), "{line}").is_err() {
            // A reader that has had enough.
            return;
        }
    }
}

/// The families in which somebody else has forwarded until now: a BIRD that still has the sessions, or one that has left
/// its routes in the kernel and whose place this is. Nobody where a process of ours has left its marker, which says more.
async fn forwarding(marker: bool, beside_bird: bool) -> Option<AfiSet> {
    if beside_bird {
        return Some(AfiSet::BOTH);
    }
    if marker {
        return None;
    }
    let found = cleanup::families(&mut LinuxKernel::new()).await;
    let found =
        found.inspect_err(|error| warn!(%error, "cannot look for routes that were left in the kernel"));
    let families = found.ok().filter(|families| !families.is_empty())?;
    info!(
        "the kernel holds routes of protocol bird: neighbours are told that forwarding went on, and all are waited for"
    );
    Some(families)
}

/// What is known of the time before this start: what was found in the place of a marker, or the marker. Neighbours who
/// keep routes through this node are told that they are right to.
fn restart_after(earlier: Option<&Sessions>, found: Option<AfiSet>) -> Restart {
    if let Some(families) = found {
        return Restart { families, peers: None };
    }
    let Some(sessions) = earlier else { return Restart::default() };
    let families = sessions.values().fold(AfiSet::EMPTY, |all, graceful| all.or(graceful.families));
    if !families.is_empty() {
        info!(
            sessions = sessions.len(),
            "restarted: neighbours are told that forwarding went on, and those with graceful restart are waited for"
        );
    }
    let peers = sessions.iter().map(|(key, graceful)| (key.clone(), graceful.restart_time));
    Restart { families, peers: Some(peers.collect()) }
}

/// Tells the table whether neighbours can reach us.
async fn tell_listening(
    mut status: watch::Receiver<ListenStatus>,
    core: CorePort<Speaker>,
    stop: CancellationToken,
) {
    let mut told = true;
    loop {
        let listening = status.borrow_and_update().sockets.values().all(Result::is_ok);
        if told != listening {
            told = listening;
            if core.urgent.send(Urgent::Listening(listening)).await.is_err() {
                return stop.cancelled().await;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => {
                if changed.is_err() {
                    return stop.cancelled().await;
                }
            }
        }
    }
}

/// Signals that BIRD's users and their scripts send, for which there is nothing to do, and which would end the process.
struct Ignored {
    hangup: Signal,
    user1: Signal,
}

impl Ignored {
    fn new() -> io::Result<Ignored> {
        Ok(Ignored { hangup: signal(SignalKind::hangup())?, user1: signal(SignalKind::user_defined1())? })
    }

    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.hangup.recv() => "SIGHUP",
            _ = self.user1.recv() => "SIGUSR1",
        }
    }
}

async fn first_to_end(
    tasks: &mut [(&'static str, JoinHandle<()>)],
) -> (&'static str, Result<(), tokio::task::JoinError>) {
    let (end, index, _) = futures::future::select_all(tasks.iter_mut().map(|(_, task)| task)).await;
    (tasks.get(index).map_or("task", |(name, _)| name), end)
}

/// Waits until all of these have ended, for `limit` at most. What has ended already may have been asked for its result,
/// and a handle cannot be asked twice.
async fn wait_for(tasks: &mut [(&'static str, JoinHandle<()>)], limit: Duration) {
    let deadline = tokio::time::Instant::now() + limit;
    for (name, task) in tasks {
        if !task.is_finished() && tokio::time::timeout_at(deadline, task).await.is_err() {
            warn!(task = *name, "did not end in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_and_a_dead_one_is_not_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("made/on/demand");
        let lock = RunLock::take(&run_dir).unwrap();
        assert!(lock.is_some());
        let error = RunLock::take(&run_dir).unwrap_err().to_string();
        assert!(error.contains("already runs") && error.contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        assert!(RunLock::take(&run_dir).unwrap().is_some());
    }

    #[test]
    fn a_run_directory_that_cannot_be_made_is_no_reason_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(RunLock::take(&file.join("below")).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_part_that_ended_is_named_with_its_words_and_not_waited_for_again() {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut tasks = [
            ("patient", tokio::spawn(async move { stopped.cancelled().await })),
            ("hasty", tokio::spawn(async { panic!("no such thing") })),
        ];
        let (name, end) = first_to_end(&mut tasks).await;
        assert_eq!(name, "hasty");
        assert!(end.unwrap_err().to_string().contains("no such thing"));
        stop.cancel();
        wait_for(&mut tasks, STOP).await;
        assert!(tasks.iter().all(|(_, task)| task.is_finished()));
    }

    /// Sessions, connections, tasks, the table; then what main waits for.
    #[test]
    fn systemd_waits_longer_than_a_stop_takes_and_starts_the_daemon_however_often_it_failed() {
        let unit = include_str!("../systemd/calico-bgpd.service");
        let value =
            |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
        let stop: u64 = value("TimeoutStopSec").trim_end_matches('s').parse().unwrap();
        assert!(Duration::from_secs(stop) > STOP * 5 + Duration::from_secs(2), "{stop}");
        assert_eq!(value("StartLimitIntervalSec"), "0");
        let section = unit.split("[Service]").next().unwrap();
        assert!(section.contains("StartLimitIntervalSec"), "it is of [Unit]");
    }

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert_eq!(has_net_admin("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(has_net_admin("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000000\n"), Some(false));
        assert_eq!(has_net_admin(""), None);
    }
}
