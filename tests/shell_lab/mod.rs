//! One daemon's shells in a test: a listener and peer tasks on real sockets, around a core that
//! does what the test wants.
#![allow(dead_code, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{NextOpen, OpenParams, PeerSpec, Transport, TtlRule};
use bgp_proto::{Afi, AfiSet, Asn, Millis, PeerId, RouterId};
use calico_bgpd::clock::Clock;
use calico_bgpd::core_thread::courier::Dispatch;
use calico_bgpd::core_thread::mailbox::Mailbox;
use calico_bgpd::core_thread::{self, Core, CorePort, KernelPort, Urgent};
use calico_bgpd::datastore::files;
use calico_bgpd::desired::{self, Auth, DesiredState, Listen, NodeFacts, Peer, SessionKey};
use calico_bgpd::fib::Phase;
use calico_bgpd::model::decode::Reading;
use calico_bgpd::net::caller::Caller;
use calico_bgpd::net::dial::DialGate;
use calico_bgpd::net::listener::{self, ListenPlan, ListenStatus};
use calico_bgpd::net::peer_task::{PeerTask, Wanted};
use calico_bgpd::net::peer_view::{Looks, PeerView};
use calico_bgpd::restart_marker::Notes;
use calico_bgpd::roster::{Place, RosterPorts};
use calico_bgpd::speaker::{SpeakerInput, SpeakerOutput};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing here takes as long on a machine that is merely busy.
pub const SOON: Duration = Duration::from_secs(20);

type Handler = Box<dyn FnMut(SpeakerInput, &mut Vec<SpeakerOutput>) + Send>;

/// A core that does what a test says.
pub struct Scripted(Handler);

impl Core for Scripted {
    fn handle(&mut self, _: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
        (self.0)(input, out);
    }
    fn settle(&mut self, _: Millis, _: &mut Vec<SpeakerOutput>) -> bool {
        false
    }
    fn deadline(&self) -> Option<Millis> {
        None
    }
}

fn any_state() -> Arc<DesiredState> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/clusters/three-nodes");
    let snapshot = files::read_once(path.as_ref(), "node-1", Reading::default()).unwrap();
    let facts = NodeFacts { node_name: "node-1".into(), ..NodeFacts::default() };
    Arc::new(desired::compile(&snapshot, &facts).unwrap())
}

/// One daemon's shells: a core's thread, a listener, peer tasks.
pub struct Shells {
    pub clock: Clock,
    pub port: CorePort<Scripted>,
    pub peers: BTreeMap<PeerId, Handle>,
    pub ports: RosterPorts<Scripted>,
    pub gate: DialGate,
    pub looks: Looks,
    pub stop: CancellationToken,
}

pub struct Handle {
    pub name: String,
    pub port: u16,
    pub wanted: watch::Sender<Wanted>,
    pub view: watch::Receiver<PeerView>,
    pub mailbox: Arc<Mailbox>,
    pub caller: Caller,
    pub task: Option<PeerTask<Scripted>>,
}

impl Drop for Shells {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shells {
    pub fn new(handler: impl FnMut(SpeakerInput, &mut Vec<SpeakerOutput>) + Send + 'static) -> Self {
        let clock = Clock::start();
        let (port, inbox) = core_thread::inboxes();
        let (events_tx, events) = mpsc::channel(1);
        let (wanted, wanted_rx) = mpsc::channel(1);
        let phase = watch::channel(Phase::Recovering).0;
        let core = Scripted(Box::new(handler));
        let dispatch = Dispatch::on(&tokio::runtime::Handle::current());
        std::thread::spawn(move || {
            let _ends = (events_tx, wanted_rx);
            core_thread::run(core, clock, inbox, KernelPort { events, wanted }, phase, dispatch).unwrap();
        });
        let ports = RosterPorts {
            clock,
            core: port.clone(),
            listen: watch::channel(Arc::default()).0,
            closers: TaskTracker::new(),
            looks: Looks::default(),
            notes: Notes::default(),
            restarting: AfiSet::EMPTY,
        };
        Shells {
            clock,
            port,
            peers: BTreeMap::new(),
            gate: DialGate::default(),
            looks: ports.looks.clone(),
            ports,
            stop: CancellationToken::new(),
        }
    }

    pub fn add(
        &mut self,
        name: &str,
        local: IpAddr,
        peer: SocketAddr,
        passive: bool,
        hold_time: u16,
    ) -> PeerId {
        let id = PeerId { slot: u32::try_from(self.peers.len()).unwrap(), generation: 1 };
        let id_of = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => RouterId(addr),
            // The last four octets will do.
            IpAddr::V6(addr) => RouterId(u32::try_from(addr.to_bits() & 0xffff_ffff).unwrap().into()),
        };
        let scope = match peer {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(peer) => peer.scope_id(),
        };
        let next = NextOpen { source: Some(local), passive, hold_time, ..NextOpen::default() };
        let spec = PeerSpec {
            transport: Transport { peer: peer.ip(), scope, port: peer.port(), ttl: TtlRule::Multihop(64) },
            open: OpenParams {
                local_asn: Asn(64512),
                peer_asn: Asn(64512),
                router_id: id_of(local),
                families: AfiSet::only(Afi::Ipv4),
            },
            next,
        };
        let (_, any) =
            any_state().peers.first_key_value().map(|(key, peer)| (key.clone(), peer.clone())).unwrap();
        let peer = Peer {
            key: SessionKey::new(peer.ip(), peer.port()),
            name: name.into(),
            spec,
            auth: Auth::None,
            ..(*any).clone()
        };
        let port = peer.key.port;
        let (place, task) = Place::new(id, Arc::new(peer), &self.gate, &self.ports);
        // Which of two at one address is meant is for the tests of the listener.
        let caller = Caller { local: None, ..place.caller() };
        let Place { wanted, mailbox, view, .. } = place;
        let handle = Handle { name: name.into(), port, wanted, view, mailbox, caller, task: Some(task) };
        self.peers.insert(id, handle);
        id
    }

    /// Tells the core of the peers and lets them run.
    pub async fn start(&mut self) {
        let desired = Urgent::Desired {
            state: any_state(),
            peers: Arc::new(
                self.peers
                    .iter()
                    .map(|(id, peer)| (SessionKey::new(peer.caller.addr, peer.port), *id))
                    .collect(),
            ),
            mailboxes: self.peers.iter().map(|(id, peer)| (*id, peer.mailbox.clone())).collect(),
        };
        self.port.urgent.send(desired).await.ok().unwrap();
        for peer in self.peers.values_mut() {
            tokio::spawn(peer.task.take().unwrap().run());
        }
    }

    /// Listens for the peers that were added.
    pub async fn listen(&self, addr: IpAddr) -> SocketAddr {
        self.listen_at(SocketAddr::new(addr, 0)).await
    }

    /// The same, on a port.
    pub async fn listen_at(&self, at: SocketAddr) -> SocketAddr {
        let (addr, port) = (at.ip(), at.port());
        let afi = Afi::of(addr);
        let plan = ListenPlan {
            sockets: BTreeMap::from([(afi, Listen { addr: Some(addr), port })]),
            callers: self.peers.values().map(|peer| peer.caller.clone()).collect(),
        };
        let (plan, plan_rx) = watch::channel(Arc::new(plan));
        let (status, mut status_rx) = watch::channel(ListenStatus::default());
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _plan = plan;
            listener::run(plan_rx, status, stop).await;
        });
        let ready = status_rx.wait_for(|status| matches!(status.sockets.get(&afi), Some(Ok(_))));
        let status = tokio::time::timeout(SOON, ready).await.unwrap().unwrap().clone();
        status.sockets[&afi].clone().unwrap()
    }

    pub async fn wait(&self, id: PeerId, what: &str, mut ready: impl FnMut(&PeerView) -> bool) -> PeerView {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let view = self.view(id).await;
            if ready(&view) {
                return view;
            }
            if tokio::time::Instant::now() >= deadline {
                panic!("{}: not {what}: {:?}", self.peers[&id].name, view.status)
            }
            // Sooner where its task shows something by itself.
            let mut news = self.peers[&id].view.clone();
            let _ = tokio::time::timeout(Duration::from_millis(20), news.changed()).await;
        }
    }

    pub async fn established(&self, id: PeerId) -> PeerView {
        self.wait(id, "established", PeerView::is_established).await
    }

    pub async fn view(&self, id: PeerId) -> PeerView {
        let view = &self.peers[&id].view;
        self.looks.refresh(vec![view.clone()]).await;
        view.borrow().clone()
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
