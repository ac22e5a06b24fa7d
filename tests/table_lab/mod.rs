//! A real table that holds the intent of a node, with the sockets that people and programs ask it through.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Input, Session};
use bgp_proto::{Afi, AfiSet, Millis};
use calico_bgpd::clock::Clock;
use calico_bgpd::configure::{self, Configure, ConfigurePorts, InForce};
use calico_bgpd::control::bird::server::Bird;
use calico_bgpd::control::counts::Counts;
use calico_bgpd::control::server::{self, ControlSocket, Views};
use calico_bgpd::core_thread::courier::Dispatch;
use calico_bgpd::core_thread::{self, KernelPort};
use calico_bgpd::datastore::{self, files};
use calico_bgpd::desired::NodeFacts;
use calico_bgpd::fib::Phase;
use calico_bgpd::fib::reconciler::FibStatus;
use calico_bgpd::fib::view::{KernelLine, KernelLook, LineState};
use calico_bgpd::model::decode::Reading;
use calico_bgpd::model::snapshot::Snapshot;
use calico_bgpd::net::listener::ListenStatus;
use calico_bgpd::net::peer_task::PeerTask;
use calico_bgpd::net::peer_view::Looks;
use calico_bgpd::restart_marker::Notes;
use calico_bgpd::roster::{Roster, RosterPorts, RunPeer};
use calico_bgpd::speaker::Speaker;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// What the sockets answer from, and how the test changes it.
pub struct Table {
    pub views: Views,
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub phase: watch::Sender<Phase>,
    pub down: CancellationToken,
    _stop: DropGuard,
}

impl Table {
    /// Has the intent of node-1 of the cluster of three in force.
    pub async fn configure(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clusters/three-nodes");
        let snapshot = files::read_once(path.as_ref(), "node-1", Reading::default()).unwrap();
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
        let mut in_force = self.views.in_force.clone();
        let in_force = in_force.wait_for(|in_force| in_force.state.is_some()).await.unwrap().clone();
        for mut entry in in_force.peers.iter().cloned() {
            entry.view.wait_for(|view| view.status.is_some()).await.unwrap();
        }
        // The table has been told by now; that it has decided is another thing.
        let decided = async {
            for afi in Afi::ALL {
                while self.views.core.look(move |core| core.routes(afi, None, 1).is_empty()).await.unwrap() {
                    tokio::task::yield_now().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), decided).await.unwrap();
    }
}

/// Peers without sockets: each shows a session that dials, or waits where it is passive.
struct Still;

impl RunPeer<Speaker> for Still {
    fn run(&self, mut task: PeerTask<Speaker>) -> BoxFuture<'static, ()> {
        let spec = task.wanted.borrow().spec.clone();
        let mut session = Session::new(spec, 1, AfiSet::EMPTY);
        session.handle(Millis(0), Input::Start, &mut Vec::new());
        Box::pin(async move {
            task.view.send_if_modified(|view| view.update(&session, Millis(0), None, true));
            while task.wanted.borrow_and_update().stop.is_none() {
                tokio::select! {
                    changed = task.wanted.changed() => if changed.is_err() { return },
                    looked = task.looks.changed() => {
                        if looked.is_err() {
                            return;
                        }
                        let look = *task.looks.borrow_and_update();
                        task.view.send_modify(|view| view.answer(look, &session, Millis(0), None));
                    }
                }
            }
        })
    }
}

/// A table that holds the intent of node-1 of the cluster of three, and its sockets.
pub async fn serve(run_dir: &Path) -> Table {
    let table = unconfigured(run_dir).await;
    table.configure().await;
    table
}

/// The same before the datastore has said anything.
pub async fn unconfigured(run_dir: &Path) -> Table {
    let clock = Clock::start();
    let (core, inbox) = core_thread::inboxes();
    let (events_tx, events) = mpsc::channel(1);
    let (wanted, wanted_rx) = mpsc::channel(1);
    let phase_tx = watch::channel(Phase::Recovering).0;
    let kernel = KernelPort { events, wanted };
    let failed = |why: &str| panic!("{why}");
    core_thread::start(Speaker::new(1), clock, inbox, kernel, phase_tx, Dispatch::default(), failed).unwrap();
    let looks = Looks::default();
    let stop = CancellationToken::new();
    let roster = RosterPorts {
        clock,
        core: core.clone(),
        listen: watch::channel(Arc::default()).0,
        closers: TaskTracker::new(),
        looks: looks.clone(),
        notes: Notes::default(),
        restarting: AfiSet::EMPTY,
    };
    let (in_force_tx, in_force) = watch::channel(Arc::new(InForce::default()));
    let (again, again_rx) = configure::again();
    let ports = ConfigurePorts {
        facts: NodeFacts { node_name: "node-1".into(), ..NodeFacts::default() },
        state_dir: None,
        clock,
        in_force: in_force_tx,
        log: None,
        again: again_rx,
        incumbent: watch::channel(None).1,
        phase: watch::channel(Phase::Normal).1,
    };
    let (snapshots, snapshots_rx) = watch::channel(None);
    let configure = Configure::new(ports, Roster::new(roster, Still));
    tokio::spawn(configure.run(snapshots_rx, stop.clone()));
    let (source_tx, source) = datastore::channel();
    let (phase_shown, phase_rx) = watch::channel(Phase::Normal);
    let (kernel, mut kernel_looks) = mpsc::channel::<KernelLook>(1);
    tokio::spawn(async move {
        while let Some(look) = kernel_looks.recv().await {
            drop(look.answer.send(vec![installed(look.afi)]));
        }
    });
    let views = Views {
        kernel,
        clock,
        looks,
        counts: Arc::new(Counts::new(core.clone())),
        again,
        core,
        in_force,
        source: source.status,
        listen: watch::channel(ListenStatus {
            recent: vec!["10.0.0.77".parse().unwrap()],
            sockets: BTreeMap::from([(
                Afi::Ipv6,
                Err("cannot listen on [::]:179: the port is in use".into()),
            )]),
            keyless: BTreeMap::from([("10.0.0.2/32".parse().unwrap(), "no room for its key".into())]),
            ..ListenStatus::default()
        })
        .1,
        phase: phase_rx,
        fib: watch::channel(FibStatus::default()).1,
    };
    let socket = ControlSocket::bind(run_dir).unwrap();
    let down = CancellationToken::new();
    for (afi, name) in [(Afi::Ipv4, "bird.ctl"), (Afi::Ipv6, "bird6.ctl")] {
        let bird = Bird { afi, views: views.clone(), down: down.clone() };
        tokio::spawn(calico_bgpd::control::bird::server::run(run_dir.join(name), bird, stop.clone()));
    }
    let (stopped, shown) = (stop.clone(), views.clone());
    tokio::spawn(async move {
        let _ends = (events_tx, wanted_rx, source_tx);
        server::run(socket, shown, stopped).await;
    });
    Table { views, snapshots, phase: phase_shown, down, _stop: stop.drop_guard() }
}

/// What the kernel's part would answer.
fn installed(afi: Afi) -> KernelLine {
    let text = if afi == Afi::Ipv4 { "10.244.0.0/26" } else { "fd00:10:244::/122" };
    KernelLine {
        prefix: text.parse().unwrap(),
        state: LineState::Installed,
        desired: Some("blackhole".into()),
        actual: vec!["blackhole proto 12".into()],
        reason: None,
    }
}
