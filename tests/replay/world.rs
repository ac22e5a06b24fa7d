//! One recorded situation played through the production cores on virtual time: resources, compilation, sessions, the
//! speaker and the plan for a kernel in memory; the neighbours are scripted. Only sockets, clock and kernel are models.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bgp_proto::session::{CloseCause, Conn, Endpoints, Input, Output, Session};
use bgp_proto::wire::Notification;
use bgp_proto::{Afi, AfiSet, IpPrefix, Millis, PeerId};
use calico_bgpd::desired::{self, Auth, DesiredState, NodeFacts, SessionKey, Unready};
use calico_bgpd::fib::fake::FakeKernel;
use calico_bgpd::fib::mirror::Mirror;
use calico_bgpd::fib::plan::{Written, plan};
use calico_bgpd::fib::{FibRoute, Phase, Target, Wish};
use calico_bgpd::speaker::{Speaker, SpeakerInput, SpeakerOutput};
use serde_json::{Value, json};

use super::case::{Case, Peer, prefix};
use super::neighbour::{Dialler, Neighbour, RETRY, Reaction};

/// How long a situation is played: a session that is not up by then does not come up (the lab waits 19 s).
const END: Millis = Millis(25_000);
/// Bytes that a peer's socket takes at once.
const BUDGET: usize = 65_536;
/// More inputs than any situation needs: two cores that keep each other busy are a failed test, not a hung one.
const MAX_INPUTS: usize = 200_000;

/// A session with its key in the desired state.
struct Running {
    key: SessionKey,
    session: Session,
    connections: Slots,
}

/// The connections that a session has taken.
#[derive(Default)]
struct Slots(Vec<(Conn, u64)>);

impl Slots {
    fn token(&self, conn: Conn) -> Option<u64> {
        self.0.iter().find(|(slot, _)| *slot == conn).map(|(_, token)| *token)
    }

    fn slot(&self, token: u64) -> Option<Conn> {
        self.0.iter().find(|(_, held)| *held == token).map(|(slot, _)| *slot)
    }

    fn fill(&mut self, conn: Conn, token: u64) {
        assert!(self.token(conn).is_none(), "{conn:?} is taken");
        self.0.push((conn, token));
    }

    fn free(&mut self, conn: Conn) -> Option<u64> {
        let token = self.token(conn);
        self.0.retain(|(slot, _)| *slot != conn);
        token
    }
}

/// An input that waits; frames are owned, and connections are known by their tokens until the session names a slot.
enum ToSession {
    Start,
    Connected(Conn, Endpoints, u64),
    Frame(u64, Vec<u8>),
    Closed(u64),
    Close(Notification),
    Tick,
}

enum Work {
    Session(PeerId, ToSession),
    Speaker(Box<SpeakerInput>),
}

/// Where the node called.
struct Call {
    local: Option<IpAddr>,
    ttl: u8,
    signed: bool,
}

pub struct World<'a> {
    case: &'a Case,
    state: Arc<DesiredState>,
    now: Millis,
    sessions: BTreeMap<PeerId, Running>,
    speaker: Speaker,
    kernel: FakeKernel,
    mirror: Mirror,
    wanted: BTreeMap<IpPrefix, FibRoute>,
    written: Written,
    phase: Phase,
    neighbours: BTreeMap<IpAddr, Neighbour<'a>>,
    called: BTreeMap<(IpAddr, u16), Call>,
    work: VecDeque<Work>,
    last_token: u64,
    /// Sessions that came up.
    established: u64,
    inputs: usize,
    refused: Vec<String>,
}

/// What the node intends.
pub fn intent(case: &Case) -> Result<DesiredState, Unready> {
    desired::compile(&super::resources::snapshot(case), &facts(case))
}

/// In which order neighbours come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the case lists them, at once.
    Listed,
    /// The last first, some time apart: what one has told is settled when the next comes.
    Reversed,
}

/// Plays a situation; the result has the form of observed.json.
pub fn play(case: &Case, order: Order) -> Result<Value, String> {
    let state = intent(case).map_err(|unready| unready.to_string())?;
    let mut world = World::new(case, Arc::new(state), order)?;
    let before = world.others();
    world.run()?;
    if !world.refused.is_empty() {
        return Err(world.refused.join("; "));
    }
    Ok(world.record(before))
}

/// Settings as the lab gives them to the daemon.
pub fn facts(case: &Case) -> NodeFacts {
    let env = |name: &str| case.env.get(name).cloned();
    for name in case.env.keys() {
        let known = ["CALICO_ROUTER_ID", "NAMESPACE", "CALICO_ADVERTISE_CLUSTER_IPS", "CALICO_K8S_NODE_REF"];
        assert!(known.contains(&name.as_str()), "{}: env {name} is not known here", case.name);
    }
    NodeFacts {
        node_name: case.node.clone(),
        router_id: env("CALICO_ROUTER_ID"),
        cluster_release: Some(case.release.parse().unwrap()),
        secret_namespace: env("NAMESPACE").unwrap_or_else(|| "kube-system".into()),
        kubernetes_node: env("CALICO_K8S_NODE_REF"),
        advertise_cluster_ips: env("CALICO_ADVERTISE_CLUSTER_IPS"),
        ..NodeFacts::default()
    }
}

impl<'a> World<'a> {
    fn new(case: &'a Case, state: Arc<DesiredState>, order: Order) -> Result<Self, String> {
        let late = |place: usize| match order {
            Order::Listed => Millis(0),
            Order::Reversed => Millis(50 * u64::try_from(case.peers.len() - place).unwrap()),
        };
        let neighbours = case.peers.iter().enumerate();
        let neighbours = neighbours.map(|(place, peer)| (peer.address, Neighbour::new(peer, late(place))));
        let mut world = World {
            case,
            now: Millis(0),
            sessions: BTreeMap::new(),
            speaker: Speaker::new(0),
            kernel: kernel(case)?,
            mirror: Mirror::new(),
            wanted: BTreeMap::new(),
            written: Written::default(),
            phase: Phase::default(),
            neighbours: neighbours.collect(),
            called: BTreeMap::new(),
            work: VecDeque::new(),
            last_token: 0,
            established: 0,
            inputs: 0,
            refused: Vec::new(),
            state,
        };
        for event in world.kernel.events() {
            world.tell(SpeakerInput::Kernel(event));
        }
        world.mirror.load(world.kernel.snapshot());
        while world.mirror.next_event().is_some() {}
        let mut ids = BTreeMap::new();
        let mut peers: Vec<_> = world.state.peers.iter().collect();
        if order == Order::Reversed {
            peers.reverse();
        }
        for (slot, (key, peer)) in (0..).zip(peers) {
            let id = PeerId { slot, generation: 0 };
            ids.insert(key.clone(), id);
            let session = Session::new(peer.spec.clone(), slot.into(), AfiSet::EMPTY);
            world.sessions.insert(id, Running { key: key.clone(), session, connections: Slots::default() });
        }
        world.tell(SpeakerInput::Desired { state: world.state.clone(), peers: Arc::new(ids.clone()) });
        let wanted = |key: &SessionKey| !matches!(world.state.peers[key].auth, Auth::Withheld(_));
        for id in ids.into_iter().filter_map(|(key, id)| wanted(&key).then_some(id)) {
            world.work.push_back(Work::Session(id, ToSession::Start));
        }
        Ok(world)
    }

    fn tell(&mut self, input: SpeakerInput) {
        self.work.push_back(Work::Speaker(Box::new(input)));
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            while let Some(work) = self.work.pop_front() {
                self.inputs += 1;
                if self.inputs > MAX_INPUTS {
                    return Err(format!("more than {MAX_INPUTS} inputs by {}", self.now));
                }
                match work {
                    Work::Session(id, input) => self.session(id, input),
                    Work::Speaker(input) => self.speaker(*input),
                }
            }
            let sessions = self.sessions.values().filter_map(|running| running.session.deadline());
            let neighbours = self.neighbours.values().filter_map(Neighbour::deadline);
            let next = sessions.chain(neighbours).chain(self.speaker.deadline()).min();
            match next {
                Some(next) if next <= END => self.now = self.now.max(next),
                _ => return Ok(()),
            }
            self.ticks();
        }
    }

    fn ticks(&mut self) {
        let now = self.now;
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        for (id, running) in &self.sessions {
            if due(running.session.deadline()) {
                self.work.push_back(Work::Session(*id, ToSession::Tick));
            }
        }
        if due(self.speaker.deadline()) {
            self.tell(SpeakerInput::Tick);
        }
        let waiting = self.neighbours.iter().filter(|(_, n)| due(n.deadline()));
        for address in waiting.map(|(address, _)| *address).collect::<Vec<_>>() {
            let Some(neighbour) = self.neighbours.get_mut(&address) else { continue };
            if let Some((token, keepalive)) = neighbour.keepalive(now) {
                let id = self.session_of(address).expect("the session that the neighbour speaks with");
                self.react(id, token, vec![Reaction::Send(keepalive)]);
            } else if neighbour.connection.is_none() {
                neighbour.next_dial = Some(now + RETRY);
                self.dialled_by_world(address);
            }
        }
    }

    // Connections

    /// The session that a connection with this neighbour belongs to.
    fn session_of(&self, neighbour: IpAddr) -> Option<PeerId> {
        let of = |running: &Running| &self.state.peers[&running.key].spec.transport;
        self.sessions.iter().find(|(_, running)| of(running).peer == neighbour).map(|(id, _)| *id)
    }

    /// Whether both ends sign with one key, or neither does.
    fn keys_agree(&self, peer: &desired::Peer, neighbour: &Peer) -> bool {
        let ours = match &peer.auth {
            Auth::Key { key, .. } => Some(key.expose()),
            Auth::None | Auth::Missing(_) | Auth::Withheld(_) => None,
        };
        ours == neighbour.password.as_deref().map(str::as_bytes)
    }

    /// The node dials. Without an answer nothing happens here: the session has its own limit for a dial.
    fn dial(&mut self, id: PeerId) {
        let peer = &self.state.peers[&self.sessions[&id].key];
        let transport = &peer.spec.transport;
        if !self.reachable(transport.peer) {
            return;
        }
        let local = peer.spec.next.source.or_else(|| self.source_for(transport.peer));
        let ttl = transport.ttl.sent();
        let signed = matches!(peer.auth, Auth::Key { .. });
        self.called.insert((transport.peer, transport.port), Call { local, ttl, signed });
        let Some(neighbour) = self.neighbours.get(&transport.peer) else { return };
        let Some(local) = local else { return };
        if neighbour.spec.port != transport.port || !self.keys_agree(peer, neighbour.spec) {
            return;
        }
        let local = SocketAddr::new(local, 40_000);
        self.connect(
            id,
            transport.peer,
            Dialler::Node,
            local,
            SocketAddr::new(transport.peer, transport.port),
        );
    }

    /// A neighbour dials; the listener lets configured peers in and nobody else.
    fn dialled_by_world(&mut self, address: IpAddr) {
        let neighbour = self.neighbours[&address].spec;
        let Some(to) = neighbour.dial else { return };
        let listens = self.state.listen.get(&Afi::of(to)).is_some_and(|listen| {
            listen.port == self.case.listen && listen.addr.is_none_or(|addr| addr == to)
        });
        let Some(id) = self.session_of(address).filter(|_| listens) else { return };
        if !self.keys_agree(&self.state.peers[&self.sessions[&id].key], neighbour) {
            return;
        }
        let local = SocketAddr::new(to, self.case.listen);
        self.connect(id, address, Dialler::World, local, SocketAddr::new(address, 50_000));
    }

    fn connect(
        &mut self,
        id: PeerId,
        address: IpAddr,
        dialler: Dialler,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        self.last_token += 1;
        let token = self.last_token;
        let connected = ToSession::Connected(dialler.conn(), Endpoints { local, remote }, token);
        self.work.push_back(Work::Session(id, connected));
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let reactions = neighbour.adopt(token, dialler, local);
        self.react(id, token, reactions);
    }

    /// What a neighbour does reaches the session's connection.
    fn react(&mut self, id: PeerId, token: u64, reactions: Vec<Reaction>) {
        for reaction in reactions {
            match reaction {
                Reaction::Send(mut bytes) => {
                    // One frame at a time, as the shell hands them over.
                    while let Some((kind, body)) = super::bytes::take_message(&mut bytes) {
                        let frame = super::bytes::message(kind, &body);
                        self.work.push_back(Work::Session(id, ToSession::Frame(token, frame)));
                    }
                    assert!(bytes.is_empty(), "half a message was sent");
                }
                Reaction::Close => self.work.push_back(Work::Session(id, ToSession::Closed(token))),
            }
        }
    }

    // The node

    fn session(&mut self, id: PeerId, input: ToSession) {
        let now = self.now;
        let Some(running) = self.sessions.get_mut(&id) else { return };
        let mut out = Vec::new();
        let session = &mut running.session;
        let mut announced = None;
        match input {
            ToSession::Start => session.handle(now, Input::Start, &mut out),
            ToSession::Connected(conn, ends, token) => {
                announced = Some(token);
                session.handle(now, Input::Connected(conn, ends), &mut out);
            }
            ToSession::Tick => session.handle(now, Input::Tick, &mut out),
            ToSession::Close(why) => session.handle(now, Input::Close(why), &mut out),
            // What was under way on a connection that is closed by now never arrives.
            ToSession::Frame(token, frame) => {
                if let Some(conn) = running.connections.slot(token) {
                    session.handle(now, Input::Frame(conn, &frame), &mut out);
                }
            }
            ToSession::Closed(token) => {
                if let Some(conn) = running.connections.slot(token) {
                    running.connections.free(conn);
                    session.handle(now, Input::Closed(conn, CloseCause::Eof), &mut out);
                }
            }
        }
        for output in out {
            self.session_output(id, announced, output);
        }
    }

    fn session_output(&mut self, id: PeerId, announced: Option<u64>, output: Output) {
        match output {
            Output::Dial => self.dial(id),
            Output::AbortDial | Output::Event(_) => {}
            Output::Accept(conn) => {
                let token = announced.expect("a connection to accept");
                let running = self.sessions.get_mut(&id).expect("a session that speaks");
                running.connections.fill(conn, token);
            }
            Output::Refuse(bytes) => {
                let token = announced.expect("a connection to refuse");
                self.deliver(id, token, &bytes);
                self.hang_up(id, token);
            }
            Output::Close(conn) => {
                let running = self.sessions.get_mut(&id).expect("a session that speaks");
                if let Some(token) = running.connections.free(conn) {
                    self.hang_up(id, token);
                }
            }
            Output::Send(conn, bytes) => self.send(id, conn, &bytes),
            Output::Up(negotiated) => {
                self.established += 1;
                let incarnation = self.established;
                self.tell(SpeakerInput::PeerUp { peer: id, incarnation, negotiated });
            }
            Output::Update(update) => self.tell(SpeakerInput::Update { peer: id, update }),
            Output::RefreshRequested(afi) => self.tell(SpeakerInput::RefreshRequested(id, afi)),
            Output::EndOfRib(afi) => self.tell(SpeakerInput::EndOfRib(id, afi)),
            Output::Stale(afis) => self.tell(SpeakerInput::Stale(id, afis)),
            Output::MarkStale(afi) => self.tell(SpeakerInput::MarkStale(id, afi)),
            Output::SweepStale(afi) => self.tell(SpeakerInput::SweepStale(id, afi)),
            Output::LongLivedStale(afis) => self.tell(SpeakerInput::LongLivedStale(id, afis)),
            Output::Down => self.tell(SpeakerInput::PeerDown(id)),
        }
    }

    fn peer_address(&self, id: PeerId) -> IpAddr {
        self.state.peers[&self.sessions[&id].key].spec.transport.peer
    }

    fn send(&mut self, id: PeerId, conn: Conn, bytes: &[u8]) {
        if let Some(token) = self.sessions[&id].connections.token(conn) {
            self.deliver(id, token, bytes);
        }
    }

    /// Bytes of the node reach the neighbour, if that connection still stands there.
    fn deliver(&mut self, id: PeerId, token: u64, bytes: &[u8]) {
        let (now, address) = (self.now, self.peer_address(id));
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        if neighbour.connection.as_ref().is_some_and(|c| c.token == token) {
            let reactions = neighbour.receive(now, bytes);
            self.react(id, token, reactions);
        }
    }

    fn hang_up(&mut self, id: PeerId, token: u64) {
        let address = self.peer_address(id);
        if let Some(neighbour) = self.neighbours.get_mut(&address) {
            neighbour.lose(token);
        }
    }

    fn speaker(&mut self, input: SpeakerInput) {
        let mut out = Vec::new();
        self.speaker.handle(self.now, input, &mut out);
        while self.speaker.settle(self.now, &mut out) {}
        for output in out {
            match output {
                SpeakerOutput::Ready(peer, incarnation) => {
                    self.tell(SpeakerInput::Want { peer, incarnation, budget: BUDGET });
                }
                SpeakerOutput::Fill { peer, incarnation, bytes, more } => {
                    if let Some(conn) = self.established(peer) {
                        self.send(peer, conn, &bytes);
                        if more {
                            self.tell(SpeakerInput::Want { peer, incarnation, budget: BUDGET });
                        }
                    }
                }
                SpeakerOutput::EndSession(peer, why) => {
                    self.work.push_back(Work::Session(peer, ToSession::Close(why)));
                }
                SpeakerOutput::Fib(changes) => {
                    let changed: Vec<IpPrefix> = changes.iter().map(|change| change.prefix).collect();
                    for change in changes {
                        match change.wish {
                            Wish::Route(route) => {
                                drop(self.wanted.insert(change.prefix, route.normalized()));
                            }
                            // No situation has a kernel that holds a route for it already.
                            Wish::Nothing | Wish::Waits { .. } => drop(self.wanted.remove(&change.prefix)),
                        }
                    }
                    self.reconcile(changed);
                }
                SpeakerOutput::Ownership(_) => {}
                SpeakerOutput::Held(_) => {}
                SpeakerOutput::Phase(phase) => {
                    self.phase = phase;
                    self.reconcile(calico_bgpd::fib::plan::all_prefixes(&self.wanted, &self.mirror));
                }
            }
        }
    }

    /// The connection on which a session is up: the only one that it has.
    fn established(&self, peer: PeerId) -> Option<Conn> {
        self.sessions.get(&peer)?.connections.0.first().map(|(conn, _)| *conn)
    }

    // The kernel

    fn reconcile(&mut self, prefixes: Vec<IpPrefix>) {
        let planned = plan(prefixes, &self.wanted, &self.mirror, self.phase, &self.written);
        for op in planned.plan.operations() {
            match self.kernel.apply(&op) {
                Ok(()) => self.written.note(&op),
                Err(errno) => self.refused.push(format!("the kernel refuses {op:?}: {errno}")),
            }
        }
        for notice in self.kernel.take_notices() {
            self.mirror.apply(notice);
        }
        while let Some(event) = self.mirror.next_event() {
            self.tell(SpeakerInput::Kernel(event));
        }
    }

    /// Whether the node's kernel has a way to an address.
    fn reachable(&self, addr: IpAddr) -> bool {
        self.case.subnets().any(|subnet| subnet.contains(addr))
            || [self.kernel.other_routes(), self.kernel.owned_routes()]
                .concat()
                .iter()
                .any(|route| route.kind == "unicast" && route.prefix.contains(addr))
    }

    /// The source address that the kernel would choose: that of the subnet, else the first of the family.
    fn source_for(&self, peer: IpAddr) -> Option<IpAddr> {
        let addresses = self.case.links.iter().flat_map(|link| &link.addresses);
        let own = |text: &String| text.split_once('/').and_then(|(addr, _)| addr.parse::<IpAddr>().ok());
        let near = addresses.clone().find(|text| prefix(text).contains(peer)).and_then(own);
        near.or_else(|| addresses.filter_map(own).find(|addr| addr.is_ipv4() == peer.is_ipv4()))
    }

    // The record

    /// Routes of others, one text each.
    fn others(&self) -> Vec<Value> {
        self.kernel.other_routes().iter().map(listed).collect()
    }

    fn record(&self, before: Vec<Value>) -> Value {
        let after = self.others();
        let change = |word: &str, route: &Value| {
            let mut route = route.clone();
            route["change"] = word.into();
            route
        };
        let gone = before.iter().filter(|route| !after.contains(route)).map(|route| change("removed", route));
        let come = after.iter().filter(|route| !before.contains(route)).map(|route| change("added", route));
        let scripted: BTreeSet<(IpAddr, u16)> =
            self.neighbours.values().map(|n| (n.spec.address, n.spec.port)).collect();
        let strangers = self.called.keys().filter(|target| !scripted.contains(target));
        let up = self.neighbours.values().filter(|n| n.established());
        json!({
            "sessions": self.neighbours.values().map(|n| self.seen(n)).collect::<Vec<_>>(),
            "unexpected": strangers.map(|(a, p)| json!({"address": a.to_string(), "port": p})).collect::<Vec<_>>(),
            "exports": up.map(|n| (n.spec.address.to_string(), n.exports())).collect::<serde_json::Map<_, _>>(),
            "kernel": self.kernel.owned_routes().iter().map(listed).collect::<Vec<_>>(),
            "others": gone.chain(come).collect::<Vec<_>>(),
        })
    }

    fn seen(&self, neighbour: &Neighbour<'_>) -> Value {
        let spec = neighbour.spec;
        let called = self.called.get(&(spec.address, spec.port));
        let mut seen = json!({"peer": spec.address.to_string(), "established": neighbour.established()});
        let up = neighbour.connection.as_ref().filter(|_| neighbour.established());
        match (up, called) {
            (Some(connection), _) if connection.dialler == Dialler::World => {
                seen["localPort"] = connection.local.port().into();
                let key =
                    self.session_of(spec.address).map(|id| &self.state.peers[&self.sessions[&id].key].auth);
                seen["md5"] = matches!(key, Some(Auth::Key { .. })).into();
            }
            (_, Some(call)) => {
                seen["ttl"] = call.ttl.into();
                seen["md5"] = call.signed.into();
            }
            _ => {}
        }
        if let Some(connection) = up {
            seen["dialledBy"] = connection.dialler.name().into();
            seen["localAddress"] = connection.local.ip().to_string().into();
        } else {
            seen["dialledBy"] = called.map_or(Value::Null, |_| "node".into());
            if let Some(local) = called.and_then(|call| call.local) {
                seen["localAddress"] = local.to_string().into();
            }
        }
        if let Some(open) = &neighbour.last_open {
            seen["open"] = open.clone();
        }
        seen
    }
}

/// A kernel route as observed.json has it.
fn listed(route: &calico_bgpd::fib::fake::ListedRoute) -> Value {
    let mut found = json!({
        "family": route.prefix.afi().name(),
        "table": calico_bgpd::fib::TABLE_MAIN,
        "prefix": route.prefix.to_string(),
        "type": route.kind,
        "metric": route.metric,
    });
    let several = route.next_hops.len() > 1;
    let mut hops: Vec<Value> = Vec::new();
    for hop in &route.next_hops {
        let mut shown = json!({"dev": hop.dev});
        if let Some(via) = hop.via {
            shown["via"] = via.to_string().into();
        }
        if several {
            shown["weight"] = 1.into();
        }
        if hop.onlink {
            shown["onlink"] = true.into();
        }
        hops.push(shown);
    }
    if !hops.is_empty() {
        // As text, so that the order is that of the recording.
        hops.sort_by_key(|hop| json!([hop["dev"], hop["via"]]).to_string());
        found["nexthops"] = hops.into();
    }
    found
}

/// The node's kernel before the daemon starts.
fn kernel(case: &Case) -> Result<FakeKernel, String> {
    let mut kernel = FakeKernel::new();
    let mut down = Vec::new();
    for (number, link) in (1..).zip(&case.links) {
        let index = kernel.add_link(&link.name);
        for address in &link.addresses {
            kernel.add_address(index, address);
        }
        if link.up {
            kernel.add_address(index, &format!("fe80::{number:x}/64"));
        } else {
            down.push(index);
        }
    }
    for route in &case.routes {
        let target = match route.kind.as_str() {
            "unicast" => {
                let dev = route.dev.clone().or_else(|| device_of(case, route.via?));
                let dev = dev.ok_or_else(|| format!("{}: no device for {}", case.name, route.prefix))?;
                kernel
                    .via(route.via, &dev, route.onlink)
                    .ok_or_else(|| format!("{}: no link {dev}", case.name))?
            }
            "blackhole" => Target::Blackhole,
            "unreachable" => Target::Unreachable,
            "prohibit" => Target::Prohibit,
            other => return Err(format!("{}: route type {other}", case.name)),
        };
        let boot = 3;
        kernel.add_route(prefix(&route.prefix), route.protocol.unwrap_or(boot), route.metric, target);
    }
    for index in down {
        kernel.set_link(index, false);
    }
    kernel.take_written();
    Ok(kernel)
}

/// The link in whose subnet a gateway lies.
fn device_of(case: &Case, via: IpAddr) -> Option<String> {
    let near = |link: &&super::case::Link| link.addresses.iter().any(|a| prefix(a).contains(via));
    case.links.iter().find(near).map(|link| link.name.clone())
}
