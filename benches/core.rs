//! The table's thread through its inbox, sockets left out: what events cost with very many peers.
//!
//! The desired state is compiled from resources; sessions, UPDATEs and reads come in as the peer tasks send them. CPU is
//! that of the core's thread alone, in milliseconds; memory is what is allocated in the process, counted, beside what it
//! was at the start of the part. `cargo bench --bench core -- 1000 5000` chooses the numbers of peers, and words choose
//! the parts: `mesh`, `reflector`, `anycast`, `transit`, `idle`; all without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    clippy::disallowed_methods
)]
#![allow(clippy::print_stdout)]

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bgp_proto::session::{Conn, Endpoints, Negotiated};
use bgp_proto::wire::{Attributes, Context, NextHop, Nlri, NlriList, Open, PeerType, Reach, Update};
use bgp_proto::{AfiSet, Asn, Millis, PeerId, Prefix, RouterId, V4};
use calico_bgpd::clock::Clock;
use calico_bgpd::core_thread::courier::Dispatch;
use calico_bgpd::core_thread::mailbox::{Fill, Mailbox};
use calico_bgpd::core_thread::{self, Batch, Core, CorePort, KernelPort, Urgent, inboxes};
use calico_bgpd::datastore::files;
use calico_bgpd::desired::{self, DesiredState, NodeFacts};
use calico_bgpd::fib::reconciler::FibInput;
use calico_bgpd::fib::{Address, AlienRoute, KernelEvent, Leg, Link, Phase, Target};
use calico_bgpd::model::decode::Reading;
use calico_bgpd::speaker::{Speaker, SpeakerInput, SpeakerOutput};
use smallvec::smallvec;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::sync::{mpsc, oneshot, watch};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const AS: Asn = Asn(64512);
/// 172.16.0.0.
const NODES: u32 = 0xac10_0000;
/// 10.0.0.0.
const PODS: u32 = 0x0a00_0000;
const BUDGET: usize = 32 * 1024;
/// So many peers have an answer under way at once: their tasks are woken in turn.
const TASKS: usize = 64;

fn addr(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(NODES + u32::try_from(n).unwrap() + 1)
}

fn block(n: usize) -> Prefix<V4> {
    Prefix::from_parts(PODS + (u32::try_from(n).unwrap() << 6), 26).unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// One of a full mesh.
    Mesh,
    /// A reflector whose clients are named by address.
    Reflector,
}

/// The intent of node 0 with so many peers and own blocks.
fn intent(role: Role, peers: usize, blocks: usize) -> DesiredState {
    let mut text = String::from(
        "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\n\
         spec: {calicoVersion: v3.33.0, clusterGUID: x, clusterType: 'typha,bgp', datastoreReady: true}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool}\n\
         spec: {cidr: 10.0.0.0/8, blockSize: 26, ipipMode: Never, vxlanMode: Never, nodeSelector: all()}\n---\n",
    );
    let mesh = role == Role::Mesh;
    write!(
        text,
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{asNumber: 64512, nodeToNodeMeshEnabled: {mesh}}}\n---\n"
    )
    .unwrap();
    let reflects = if mesh { "" } else { ", routeReflectorClusterID: 172.31.0.1" };
    let mut node = |n: usize, more: &str| {
        write!(
            text,
            "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: node-{n}}}\n\
             spec: {{bgp: {{ipv4Address: {}/12{more}}}}}\n---\n",
            addr(n)
        )
        .unwrap();
    };
    node(0, reflects);
    if mesh {
        (1..=peers).for_each(|n| node(n, ""));
    } else {
        for n in 1..=peers {
            write!(
                text,
                "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: client-{n}}}\n\
                 spec: {{peerIP: {}, asNumber: 64512}}\n---\n",
                addr(n)
            )
            .unwrap();
        }
    }
    for n in 0..blocks {
        let block = block(200_000 + n);
        let name = block.to_string().replace(['.', '/'], "-");
        write!(
            text,
            "apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {{name: node-0-{name}}}\n\
             spec: {{cidr: {block}, deleted: false, node: node-0, state: confirmed, type: host}}\n---\n"
        )
        .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    let snapshot = files::read_once(folder.path(), "node-0", Reading::default()).unwrap();
    let facts = NodeFacts { node_name: "node-0".into(), ..NodeFacts::default() };
    desired::compile(&snapshot, &facts).unwrap()
}

/// The speaker, with the time of its longest slice.
struct Timed {
    speaker: Speaker,
    began: Option<Instant>,
    longest: Arc<Mutex<Duration>>,
}

impl Core for Timed {
    fn handle(&mut self, now: Millis, input: SpeakerInput, out: &mut Vec<SpeakerOutput>) {
        self.began.get_or_insert_with(Instant::now);
        self.speaker.handle(now, input, out);
    }

    fn settle(&mut self, now: Millis, out: &mut Vec<SpeakerOutput>) -> bool {
        let began = self.began.take().unwrap_or_else(Instant::now);
        let more = self.speaker.settle(now, out);
        let mut longest = self.longest.lock().unwrap();
        *longest = longest.max(began.elapsed());
        more
    }

    fn deadline(&self) -> Option<Millis> {
        self.speaker.deadline()
    }
}

/// A core and the far ends of its peers' mailboxes.
struct Rig {
    port: CorePort<Timed>,
    events: mpsc::Sender<KernelEvent>,
    mailboxes: Vec<Arc<Mailbox>>,
    ids: Vec<PeerId>,
    incarnations: Vec<u64>,
    add_path: bool,
    /// Peers that have something to read or wait for an answer.
    reading: BTreeSet<usize>,
    octets: usize,
    longest: Arc<Mutex<Duration>>,
    thread: String,
    /// Without it nobody wants to know what the kernel is to hold.
    _wanted: Option<mpsc::Receiver<FibInput>>,
}

impl Rig {
    fn new(role: Role, peers: usize, add_path: bool) -> Rig {
        let (port, inbox) = inboxes();
        let (events, kernel_events) = mpsc::channel(64);
        let (wanted, fib) = mpsc::channel(4);
        let phase = watch::channel(Phase::Recovering).0;
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let core = Timed { speaker: Speaker::new(7), began: None, longest: longest.clone() };
        let kernel = KernelPort { events: kernel_events, wanted };
        let before = threads();
        core_thread::start(core, Clock::start(), inbox, kernel, phase, Dispatch::default(), |why| {
            panic!("{why}")
        })
        .unwrap();
        let thread = threads().difference(&before).next().unwrap().clone();
        let ids = (0..peers).map(|n| PeerId { slot: u32::try_from(n).unwrap(), generation: 1 }).collect();
        let mut rig = Rig {
            port,
            events,
            mailboxes: (0..peers).map(|_| Arc::new(Mailbox::default())).collect(),
            ids,
            incarnations: vec![0; peers],
            add_path,
            reading: BTreeSet::new(),
            octets: 0,
            longest,
            thread,
            _wanted: Some(fib),
        };
        rig.desire(intent(role, peers, 1));
        let link = Link { index: 2, name: "eth0".into(), up: true };
        rig.kernel(KernelEvent::Link(link));
        let prefix = Prefix::<V4>::new(addr(0), 12).unwrap().into();
        let address = Address { ifindex: 2, addr: addr(0).into(), prefix, secondary: false, narrow: false };
        rig.kernel(KernelEvent::Address(address));
        rig.kernel(KernelEvent::Synced);
        rig.sync();
        rig
    }

    fn desire(&mut self, state: DesiredState) {
        assert_eq!(state.peers.len(), self.ids.len());
        let by_addr: BTreeMap<IpAddr, PeerId> =
            self.ids.iter().enumerate().map(|(n, id)| (addr(n + 1).into(), *id)).collect();
        let handles = state.peers.keys().map(|key| (key.clone(), by_addr[&key.addr])).collect();
        let mailboxes = self.ids.iter().copied().zip(self.mailboxes.iter().cloned()).collect();
        let desired = Urgent::Desired { state: Arc::new(state), peers: Arc::new(handles), mailboxes };
        self.port.urgent.blocking_send(desired).ok().unwrap();
    }

    fn kernel(&self, event: KernelEvent) {
        self.events.blocking_send(event).unwrap();
    }

    /// Waits until the core has nothing to do.
    fn sync(&self) {
        let mut quiet = 0;
        while quiet < 2 {
            let (told, heard) = oneshot::channel();
            let look = move |core: &Timed| {
                let _ = told.send(core.speaker.is_busy());
            };
            let look = Urgent::Look(Box::new(look));
            self.port.urgent.blocking_send(look).ok().unwrap();
            quiet = if heard.blocking_recv().unwrap() { 0 } else { quiet + 1 };
        }
    }

    /// One batch from each peer, and all of it done.
    fn batches(&self, of: impl Iterator<Item = (usize, Vec<SpeakerInput>)>) {
        let mut credits = Vec::new();
        for (n, inputs) in of {
            let (credit, taken) = oneshot::channel();
            let batch = Batch { peer: self.ids[n], incarnation: self.incarnations[n], inputs, credit };
            self.port.bulk.blocking_send(batch).ok().unwrap();
            credits.push(taken);
        }
        credits.into_iter().for_each(|taken| drop(taken.blocking_recv()));
        self.sync();
    }

    fn up(&mut self, peers: std::ops::Range<usize>) {
        peers.clone().for_each(|n| self.incarnations[n] += 1);
        let inputs: Vec<_> = peers
            .map(|n| {
                let mut context = Context::new(PeerType::Ibgp);
                context.families = AfiSet::only(bgp_proto::Afi::Ipv4);
                if self.add_path {
                    context.add_path_rx = context.families;
                    context.add_path_tx = context.families;
                }
                let peer_id = RouterId(addr(n + 1));
                let local = SocketAddr::new(addr(0).into(), 179);
                let negotiated = Negotiated {
                    conn: Conn::Active,
                    endpoints: Endpoints { local, remote: SocketAddr::new(addr(n + 1).into(), 179) },
                    context,
                    peer_open: Open {
                        my_as: 0,
                        hold_time: 240,
                        router_id: peer_id,
                        capabilities: Vec::new(),
                    },
                    peer_asn: AS,
                    peer_id,
                    hold_time: 240,
                    graceful: AfiSet::EMPTY,
                    peer_restarting: false,
                    peer_graceful: false,
                    refresh: true,
                    enhanced_refresh: false,
                };
                let (peer, incarnation) = (self.ids[n], self.incarnations[n]);
                (n, vec![SpeakerInput::PeerUp { peer, incarnation, negotiated: Box::new(negotiated) }])
            })
            .collect();
        self.batches(inputs.into_iter());
    }

    /// The peers have told all that they have.
    fn end_of_rib(&self, peers: std::ops::Range<usize>) {
        self.batches(peers.map(|n| (n, vec![SpeakerInput::EndOfRib(self.ids[n], bgp_proto::Afi::Ipv4)])));
    }

    fn announce(&self, n: usize, prefixes: &[Prefix<V4>], med: Option<u32>) -> (usize, Vec<SpeakerInput>) {
        let nlri = prefixes.iter().map(|prefix| Nlri { path_id: 0, prefix: *prefix }).collect();
        let next_hop = NextHop::V4(addr(n + 1));
        let reach = smallvec![Reach { next_hop, nlri: NlriList::V4(nlri) }];
        let attributes = Attributes { local_pref: Some(100), med, ..Attributes::default() };
        let update = Update { reach, attributes, ..Update::default() };
        (n, vec![SpeakerInput::Update { peer: self.ids[n], update }])
    }

    /// Peers announce four prefixes each.
    fn announce_four(&self, peers: std::ops::Range<usize>) {
        let four = |n: usize| (0..4).map(|k| block(n * 4 + k)).collect::<Vec<_>>();
        self.batches(peers.map(|n| self.announce(n, &four(n), None)));
    }

    fn down(&mut self, n: usize) {
        let down = Urgent::PeerDown(self.ids[n], self.incarnations[n]);
        self.port.urgent.blocking_send(down).ok().unwrap();
        self.sync();
    }

    /// Everybody reads to the end, as the peer tasks do: one question at a time.
    fn read(&mut self) -> usize {
        let before = self.octets;
        (0..self.ids.len()).for_each(|n| self.take_mail(n));
        while !self.reading.is_empty() {
            let reading: Vec<usize> = self.reading.iter().copied().collect();
            for some in reading.chunks(TASKS) {
                let wants = some.iter().map(|n| {
                    let (peer, incarnation) = (self.ids[*n], self.incarnations[*n]);
                    (*n, vec![SpeakerInput::Want { peer, incarnation, budget: BUDGET }])
                });
                self.batches(wants);
                some.iter().for_each(|n| self.take_mail(*n));
            }
        }
        self.octets - before
    }

    fn take_mail(&mut self, n: usize) {
        let mail = self.mailboxes[n].take();
        if mail.incarnation != self.incarnations[n] {
            return;
        }
        if let Some(Fill { bytes, more, .. }) = mail.fill {
            self.octets += bytes.len();
            if !more {
                self.reading.remove(&n);
            }
        }
        if mail.ready {
            self.reading.insert(n);
        }
    }

    /// The longest slice since the last call, ms of the clock.
    fn longest(&self) -> f64 {
        std::mem::take(&mut *self.longest.lock().unwrap()).as_secs_f64() * 1e3
    }

    /// CPU of the core's thread, ms.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.thread)).unwrap();
        text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
    }

    /// What `what` costs the core.
    fn cost<T>(&mut self, what: impl FnOnce(&mut Rig) -> T) -> (f64, T) {
        self.sync();
        let before = self.cpu();
        let outcome = what(self);
        self.sync();
        (self.cpu() - before, outcome)
    }
}

fn threads() -> BTreeSet<String> {
    let list = std::fs::read_dir("/proc/self/task").unwrap();
    list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What is allocated, MiB.
fn allocated() -> f64 {
    let stats = ALLOCATOR.stats();
    // What was moved to a larger or smaller place counts in the two already.
    (stats.bytes_allocated as f64 - stats.bytes_deallocated as f64) / 1048576.0
}

fn print(peers: usize, event: &str, ms: f64, more: &str) {
    println!("{peers:>6}  {event:<64} {ms:>10.3} ms  {more}");
}

fn link(index: u32, name: &str) -> KernelEvent {
    KernelEvent::Link(Link { index, name: name.into(), up: true })
}

/// A node of a full mesh.
fn mesh(peers: usize) {
    let mut rig = Rig::new(Role::Mesh, peers, true);
    rig.up(0..peers);
    rig.end_of_rib(0..peers);
    rig.read();
    let (ms, ()) = rig.cost(|rig| rig.announce_four(0..peers));
    print(peers, "mesh: UPDATEs of 4 prefixes from every peer", ms, "");
    let (ms, ()) = rig.cost(|rig| (0..100).for_each(|n| rig.kernel(link(100 + n, &format!("cali{n}")))));
    print(peers, "mesh: a pod's interface appears", ms / 100.0, "");
    let (ms, ()) = rig.cost(|rig| {
        for n in 0..100 {
            let ifindex = 1000 + n;
            let prefix = Prefix::<V4>::from_parts(PODS + (200_000 << 6) + n % 64, 32).unwrap().into();
            let leg = Leg { via: None, ifindex, onlink: false, weight: 1 };
            let target = Target::Unicast(smallvec![leg]);
            rig.kernel(link(ifindex, &format!("pod{n}")));
            rig.kernel(KernelEvent::Alien(prefix, Some(AlienRoute { target, metric: 0, protocol: 3 })));
            rig.sync();
            rig.kernel(KernelEvent::Alien(prefix, None));
            rig.kernel(KernelEvent::LinkGone(ifindex));
            rig.sync();
        }
    });
    print(peers, "mesh: a pod comes and goes, with its route", ms / 100.0, "");
    for addresses in [1000, 2000] {
        let (ms, ()) = rig.cost(|rig| {
            let ifindex = 5000 + addresses;
            rig.kernel(link(ifindex, "kube-ipvs0"));
            for n in 0..addresses {
                let addr = Ipv4Addr::from_bits(0x0a60_0000 + n);
                let prefix = Prefix::<V4>::host(addr).into();
                let (secondary, narrow) = (false, false);
                let address = Address { ifindex, addr: addr.into(), prefix, secondary, narrow };
                rig.kernel(KernelEvent::Address(address));
                rig.sync();
            }
            rig.kernel(KernelEvent::LinkGone(ifindex));
        });
        print(peers, &format!("mesh: kube-ipvs0 gets {addresses} addresses one by one"), ms, "");
    }
    let state = intent(Role::Mesh, peers, 2);
    let (ms, ()) = rig.cost(|rig| {
        rig.desire(state);
        rig.sync();
    });
    let (read, octets) = rig.cost(Rig::read);
    print(
        peers,
        "mesh: the node claims a block",
        ms,
        &format!("+ {read:.2} ms, all peers told, {octets} octets"),
    );
    rig.down(peers / 2);
    rig.read();
    let (ms, ()) = rig.cost(|rig| rig.up(peers / 2..peers / 2 + 1));
    print(peers, "mesh: a peer joins, nothing of others to send to it", ms, "");
    let (ms, octets) = rig.cost(Rig::read);
    print(peers, "mesh: and reads to End-of-RIB", ms, &format!("{octets} octets"));
    let (ms, ()) = rig.cost(|_| std::thread::sleep(Duration::from_secs(1)));
    print(peers, "mesh: nothing happens, a second", ms, "");
}

/// A route reflector: 10,000 prefixes at 2,500 clients and more.
fn reflector(peers: usize) {
    let mut rig = Rig::new(Role::Reflector, peers, true);
    let empty = allocated();
    let sources = peers.min(2500);
    let (ms, ()) = rig.cost(|rig| {
        rig.up(0..peers);
        rig.announce_four(0..sources);
        rig.end_of_rib(0..peers);
    });
    print(peers, &format!("reflector: all come up, {sources} clients send 4"), ms, "");
    print(peers, "reflector: longest slice meanwhile (clock)", rig.longest(), "");
    let (ms, octets) = rig.cost(Rig::read);
    let megabytes = octets / 1_000_000;
    let more = format!("{megabytes} MB; {:.1} MiB for all of it", allocated() - empty);
    print(peers, "reflector: all read to End-of-RIB", ms, &more);
    print(peers, "reflector: longest slice meanwhile (clock)", rig.longest(), "");
    let (mut change, mut read) = (0.0, 0.0);
    for n in 0..20 {
        change += rig.cost(|rig| rig.batches(std::iter::once(rig.announce(7, &[block(28)], Some(n))))).0;
        read += rig.cost(Rig::read).0;
    }
    print(
        peers,
        "reflector: one client's block changes",
        change / 20.0,
        &format!("+ {:.2} ms, all read it", read / 20.0),
    );
    rig.down(peers - 1);
    rig.read();
    let (ms, octets) = rig.cost(|rig| {
        rig.up(peers - 1..peers);
        rig.read()
    });
    print(peers, "reflector: a client comes back and reads all", ms, &format!("{octets} octets"));
}

/// One prefix from every client, all paths sent to all.
fn anycast(peers: usize) {
    let mut rig = Rig::new(Role::Reflector, peers, true);
    rig.up(0..peers);
    let service = [Prefix::from_parts(0x0afa_0001, 32).unwrap()];
    rig.batches((0..peers).map(|n| rig.announce(n, &service, None)).collect::<Vec<_>>().into_iter());
    rig.end_of_rib(0..peers);
    rig.read();
    let (mut change, mut read) = (0.0, 0.0);
    for n in 0..20 {
        change += rig
            .cost(|rig| {
                let nlri = vec![Nlri { path_id: 0, prefix: service[0] }];
                let update = Update { withdrawn: smallvec![NlriList::V4(nlri)], ..Update::default() };
                rig.batches(std::iter::once((n, vec![SpeakerInput::Update { peer: rig.ids[n], update }])));
            })
            .0;
        read += rig.cost(Rig::read).0;
    }
    let more = format!("+ {:.3} ms, all read it", read / 20.0);
    print(peers, "anycast: one of all clients leaves", change / 20.0, &more);
}

/// 500,000 prefixes from one peer, five in an UPDATE, to one other; the kernel left out.
fn transit() {
    let prefixes = 500_000;
    let mut rig = Rig::new(Role::Reflector, 2, true);
    rig._wanted = None;
    rig.up(0..2);
    rig.end_of_rib(0..2);
    rig.read();
    let empty = allocated();
    let route =
        |n: usize| Prefix::<V4>::from_parts(0x0a40_0000 + (u32::try_from(n).unwrap() << 4), 28).unwrap();
    let updates =
        || (0..prefixes / 5).collect::<Vec<_>>().chunks(250).map(<[usize]>::to_vec).collect::<Vec<_>>();
    let (ms, ()) = rig.cost(|rig| {
        for some in updates() {
            let all = some.iter().flat_map(|n| {
                let five: Vec<_> = (0..5).map(|k| route(n * 5 + k)).collect();
                rig.announce(0, &five, Some(u32::try_from(*n).unwrap())).1
            });
            rig.batches(std::iter::once((0, all.collect())));
        }
    });
    let more = format!("{:.1} MiB", allocated() - empty);
    print(1, "transit: 500,000 prefixes come in, 100,000 attribute sets", ms, &more);
    let (ms, octets) = rig.cost(Rig::read);
    let more = format!("{octets} octets; {:.1} MiB", allocated() - empty);
    print(1, "transit: the other peer reads them", ms, &more);
    rig.longest();
    let (ms, ()) = rig.cost(|rig| rig.down(0));
    print(
        1,
        "transit: the first peer is gone",
        ms,
        &format!("longest slice {:.2} ms (clock)", rig.longest()),
    );
    let (ms, octets) = rig.cost(Rig::read);
    print(
        1,
        "transit: the other peer hears of it",
        ms,
        &format!("{octets} octets; {:.1} MiB", allocated() - empty),
    );
}

/// What a peer takes that is established and has nothing to say.
fn idle(peers: usize) {
    let mut rig = Rig::new(Role::Mesh, peers, true);
    let before = allocated();
    rig.up(0..peers);
    rig.end_of_rib(0..peers);
    rig.read();
    let each = (allocated() - before) * 1048576.0 / peers as f64;
    println!("{peers:>6}  {:<64} {each:>10.0} octets", "idle: an established peer, the table's side");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let parts = ["mesh", "reflector", "anycast", "transit", "idle"];
    let all = !args.iter().any(|arg| parts.contains(&arg.as_str()));
    let wanted = |part: &str| all || args.iter().any(|arg| arg == part);
    let sizes = if chosen.is_empty() { vec![500, 1000, 2000, 5000] } else { chosen.clone() };
    println!("{:>6}  {:<64} {:>13}", "peers", "event", "core CPU");
    for peers in &sizes {
        if wanted("mesh") {
            mesh(*peers);
        }
        if wanted("reflector") {
            reflector(*peers);
        }
        if wanted("idle") {
            idle(*peers);
        }
    }
    if wanted("anycast") {
        [60, 125, 250, 500, 1000].into_iter().for_each(anycast);
    }
    if wanted("transit") {
        transit();
    }
}
