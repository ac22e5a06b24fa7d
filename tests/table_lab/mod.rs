//! A real table that holds the intent of a node, with the sockets that people and programs ask it through.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bgp_proto::session::{Input, Session};
use bgp_proto::{Afi, AfiSet, Millis, PeerId};
use calico_bgpd::apply::{Applied, PeerEntry};
use calico_bgpd::clock::Clock;
use calico_bgpd::control::bird::server::Bird;
use calico_bgpd::control::counts::Counts;
use calico_bgpd::control::peer_view::Looks;
use calico_bgpd::control::peer_view::PeerView;
use calico_bgpd::control::server::{self, ControlSocket, Views};
use calico_bgpd::core_thread::{self, KernelPort, Urgent};
use calico_bgpd::datastore::{self, files};
use calico_bgpd::desired::{self, NodeFacts, SessionKey};
use calico_bgpd::fib::Phase;
use calico_bgpd::fib::reconciler::FibStatus;
use calico_bgpd::fib::view::{KernelLine, KernelLook, LineState};
use calico_bgpd::model::decode::Reading;
use calico_bgpd::net::listener::ListenStatus;
use calico_bgpd::net::mailbox::Mailbox;
use calico_bgpd::speaker::Speaker;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the sockets answer from, and how the test changes it.
pub struct Table {
    pub views: Views,
    pub applied: watch::Sender<Arc<Applied>>,
    pub phase: watch::Sender<Phase>,
    pub down: CancellationToken,
    _stop: DropGuard,
}

/// A table that holds the intent of node-1 of the cluster of three, and its control socket.
pub async fn serve(run_dir: &Path) -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clusters/three-nodes");
    let snapshot = files::read_once(path.as_ref(), "node-1", Reading::default()).unwrap();
    let facts = NodeFacts { node_name: "node-1".into(), ..NodeFacts::default() };
    let state = Arc::new(desired::compile(&snapshot, &facts).unwrap());

    let clock = Clock::start();
    let (core, inbox) = core_thread::inboxes();
    let (events_tx, events) = mpsc::channel(1);
    let (wanted, wanted_rx) = mpsc::channel(1);
    let phase_tx = watch::channel(Phase::Recovering).0;
    let kernel = KernelPort { events, wanted };
    core_thread::start(Speaker::new(1), clock, inbox, kernel, phase_tx, |why| panic!("{why}")).unwrap();

    let ids: BTreeMap<SessionKey, PeerId> = (0u32..)
        .zip(state.peers.keys())
        .map(|(slot, key)| (key.clone(), PeerId { slot, generation: 1 }))
        .collect();
    let mailboxes = ids.values().map(|id| (*id, Arc::new(Mailbox::default()))).collect();
    let desired = Urgent::Desired { state: state.clone(), peers: Arc::new(ids.clone()), mailboxes };
    core.urgent.send(desired).await.ok().unwrap();

    let entry = |peer: &Arc<desired::Peer>| PeerEntry {
        id: ids[&peer.key],
        peer: peer.clone(),
        view: watch::channel(started(peer)).1,
    };
    let applied = Applied {
        node: "node-1".into(),
        generation: 1,
        peers: state.peers.values().map(entry).collect(),
        state: Some(state.clone()),
        ..Applied::default()
    };
    let (source_tx, source) = datastore::channel();
    let stop = CancellationToken::new();
    let (applied, applied_rx) = watch::channel(Arc::new(applied));
    let (phase_shown, phase_rx) = watch::channel(Phase::Normal);
    let (kernel, mut looks) = mpsc::channel::<KernelLook>(1);
    tokio::spawn(async move {
        while let Some(look) = looks.recv().await {
            drop(look.answer.send(vec![installed(look.afi)]));
        }
    });
    let views = Views {
        kernel,
        clock,
        looks: Looks::default(),
        counts: Arc::new(Counts::new(core.clone())),
        again: Arc::default(),
        core,
        applied: applied_rx,
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
    Table { views, applied, phase: phase_shown, down, _stop: stop.drop_guard() }
}

/// A session that dials, or waits where it is passive.
fn started(peer: &desired::Peer) -> PeerView {
    let mut session = Session::new(peer.spec.clone(), 1, AfiSet::EMPTY);
    session.handle(Millis(0), Input::Start, &mut Vec::new());
    let mut view = PeerView::default();
    view.update(&session, Millis(0), None, true);
    view
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
