//! The speaker driven by hand: what goes in is made by the tests, what comes out is decoded as a neighbour would.

mod fresh_start;
mod recovery;
mod rules;
mod situations;
mod slices;
mod succession;
mod tunnels;
mod views;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bgp_proto::session::{Conn, Endpoints, Negotiated, NextOpen, OpenParams, PeerSpec, Transport, TtlRule};
use bgp_proto::wire::{
    AsPath, Attributes, Context, Message, NextHop, Nlri, NlriList, Open, PeerType, Reach, Update, decode,
    frame,
};
use bgp_proto::{Afi, AfiSet, Asn, IpPrefix, Millis, PeerId, Prefix, RouterId};
use smallvec::smallvec;

use super::*;
use crate::desired::{
    Auth, ClusterRelease, ClusterRoutes, ClusterRoutesSource, DesiredState, FamilyIntent, LocalNode,
    NextHopRule, Peer, PeerClass, Release, ReleaseSource, StaticRoute, Treatment,
};
use crate::fib::{Address, AlienRoute, FibRoute, Leg, Link, Target, Wish};
use crate::model::NodeAddress;
use crate::policy::program::{Action, Decision, Device, MAX_METRIC, Match, Program, Rule, SourceClass};

pub const OUR_AS: Asn = Asn(64512);

/// What a neighbour holds: by prefix and path id.
pub type Held = BTreeMap<(IpPrefix, u32), (Attributes, NextHop)>;

/// A neighbour as it sees the session.
#[derive(Default)]
pub struct Neighbour {
    pub held: Held,
    /// Kinds of messages in the order in which they came.
    pub log: Vec<String>,
    pub ready: bool,
}

/// A speaker and its surroundings.
pub struct Bench {
    pub speaker: Speaker,
    pub now: Millis,
    pub state: DesiredState,
    pub ids: BTreeMap<SessionKey, PeerId>,
    pub contexts: BTreeMap<PeerId, Context>,
    /// Sessions that came up.
    pub sessions: Incarnation,
    /// The last one of each peer.
    pub incarnations: BTreeMap<PeerId, Incarnation>,
    pub neighbours: BTreeMap<PeerId, Neighbour>,
    /// What [`Bench::link`] last said.
    pub addresses: BTreeMap<u32, Vec<Address>>,
    pub fib: BTreeMap<IpPrefix, FibRoute>,
    /// All that was wished for last, what is no route included.
    pub wishes: BTreeMap<IpPrefix, Wish>,
    /// Every change that the reconciler was told, in order.
    pub fib_log: Vec<FibChange>,
    pub phases: Vec<Phase>,
    /// Next hops through which what was found stays.
    pub held: BTreeSet<IpAddr>,
}

pub fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// FILT-21, then everything goes out but connected prefixes and the default route.
pub fn normalise() -> Arc<Program> {
    let rule = |when, then, decision| Rule { when, then, decision, origin: "export".into() };
    let priority = Action::Normalise { priority: 1024, zero_is_none: false };
    let rules = vec![
        rule(Vec::new(), vec![priority], None),
        rule(vec![Match::Source(SourceClass::Direct)], Vec::new(), Some(Decision::Reject)),
        rule(vec![Match::Equals(prefix("0.0.0.0/0"))], Vec::new(), Some(Decision::Reject)),
    ];
    Arc::new(Program { rules, default: Decision::Accept })
}

/// FILT-10 step 2.
pub fn elevate() -> Arc<Program> {
    let rule = Rule {
        when: vec![Match::LocalPrefAbove(MAX_METRIC - 1024)],
        then: vec![Action::SetPreference(200)],
        decision: None,
        origin: "elevated".into(),
    };
    Arc::new(Program { rules: vec![rule], default: Decision::Accept })
}

/// KERN-3.
pub fn kernel_program() -> Arc<Program> {
    let rule = Rule {
        when: vec![Match::Source(SourceClass::Bgp)],
        then: vec![Action::MetricFromLocalPref],
        decision: None,
        origin: "metric".into(),
    };
    Arc::new(Program { rules: vec![rule], default: Decision::Accept })
}

fn intent<F: bgp_proto::Family>() -> FamilyIntent<F> {
    FamilyIntent {
        statics: BTreeMap::new(),
        priority: Some(1024),
        ignored_interfaces: vec!["cali*".into(), "kube-ipvs*".into()],
        kernel: kernel_program(),
        sets: crate::policy::sets::Sets::default(),
    }
}

/// A node 10.10.0.1/24 without peers.
pub fn state() -> DesiredState {
    DesiredState {
        node: LocalNode {
            name: "node-1".into(),
            asn: OUR_AS,
            router_id: RouterId([10, 10, 0, 1].into()),
            ipv4: Some(NodeAddress {
                addr: [10, 10, 0, 1].into(),
                subnet: Prefix::new([10, 10, 0, 0].into(), 24).unwrap(),
            }),
            ipv6: None,
            cluster_id: None,
        },
        release: ClusterRelease {
            release: Release { major: 3, minor: 33 },
            source: ReleaseSource::ClusterInformation,
        },
        cluster_routes: ClusterRoutes {
            ipip: false,
            unencapsulated: true,
            source: ClusterRoutesSource::Release,
        },
        listen: BTreeMap::new(),
        peers: BTreeMap::new(),
        v4: intent(),
        v6: intent(),
        problems: Vec::new(),
    }
}

/// A peer with this address and AS that takes and gives everything.
/// The key of the session with this address.
pub fn key(addr: &str) -> SessionKey {
    SessionKey::new(ip(addr), 179)
}

pub fn peer(addr: &str, asn: u32) -> Peer {
    let addr = ip(addr);
    let internal = Asn(asn) == OUR_AS;
    Peer {
        key: SessionKey::new(addr, 179),
        name: format!("Peer_{addr}"),
        class: PeerClass::Mesh,
        resource: String::new(),
        spec: PeerSpec {
            transport: Transport { peer: addr, scope: 0, port: 179, ttl: TtlRule::Multihop(255) },
            open: OpenParams {
                local_asn: OUR_AS,
                peer_asn: Asn(asn),
                router_id: RouterId([10, 10, 0, 1].into()),
                families: AfiSet::only(Afi::of(addr)),
            },
            next: NextOpen::default(),
        },
        auth: Auth::None,
        treatment: Treatment {
            internal,
            rr_client: None,
            next_hop: NextHopRule::Auto,
            allow_own_as: 0,
            import: elevate(),
            export: normalise(),
        },
    }
}

impl Bench {
    pub fn new(state: DesiredState) -> Bench {
        Bench::after(Restart::default(), state)
    }

    /// The same after a restart that left something behind.
    pub fn after(restart: Restart, state: DesiredState) -> Bench {
        let mut bench = Bench {
            speaker: Speaker::after(7, restart),
            now: Millis(1000),
            state,
            ids: BTreeMap::new(),
            contexts: BTreeMap::new(),
            sessions: 0,
            incarnations: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            addresses: BTreeMap::new(),
            fib: BTreeMap::new(),
            wishes: BTreeMap::new(),
            fib_log: Vec::new(),
            phases: Vec::new(),
            held: BTreeSet::new(),
        };
        bench.desire(|_| ());
        bench
    }

    /// A node with eth0 (10.10.0.1/24), a default route over 10.10.0.254 and these peers, in sync and past recovery.
    pub fn settled(peers: &[Peer]) -> Bench {
        let mut state = state();
        for peer in peers {
            state.peers.insert(peer.key.clone(), Arc::new(peer.clone()));
        }
        let mut bench = Bench::new(state);
        bench.link(2, "eth0", &["10.10.0.1/24"]);
        bench.alien("0.0.0.0/0", Some(gateway("10.10.0.254", 2)), 0);
        bench.tell(SpeakerInput::Kernel(KernelEvent::Synced));
        bench.past_recovery();
        assert_eq!(bench.phases, [Phase::Normal]);
        bench
    }

    /// As after a start on which some session was up, long ago.
    pub fn past_recovery(&mut self) {
        self.speaker.recovery.up(self.now);
        self.now = self.now + RECOVERY_LIMIT;
        self.tell(SpeakerInput::Tick);
    }

    pub fn tell(&mut self, input: SpeakerInput) {
        let mut out = Vec::new();
        self.speaker.handle(self.now, input, &mut out);
        while self.speaker.settle(self.now, &mut out) {}
        for output in out {
            match output {
                SpeakerOutput::Ready(peer, _) => {
                    let neighbour = self.neighbours.entry(peer).or_default();
                    assert!(!neighbour.ready, "{peer} is called twice");
                    neighbour.ready = true;
                }
                SpeakerOutput::Fill { .. } => panic!("nobody asked"),
                SpeakerOutput::Fib(changes) => {
                    for change in changes {
                        self.fib_log.push(change.clone());
                        let old = self.wishes.insert(change.prefix, change.wish.clone());
                        assert_ne!(old.unwrap_or(Wish::Nothing), change.wish, "{} is no news", change.prefix);
                        match change.wish {
                            Wish::Route(route) => drop(self.fib.insert(change.prefix, route)),
                            Wish::Nothing | Wish::Waits { .. } => drop(self.fib.remove(&change.prefix)),
                        }
                    }
                }
                SpeakerOutput::Phase(phase) => self.phases.push(phase),
                SpeakerOutput::Ownership(_) => {}
                SpeakerOutput::Held(held) => self.held = held,
                SpeakerOutput::EndSession(..) => panic!("{output:?}"),
            }
        }
    }

    /// Changes the desired state. A peer that was removed and comes back has a new handle.
    pub fn desire(&mut self, change: impl FnOnce(&mut DesiredState)) {
        change(&mut self.state);
        self.ids.retain(|key, _| self.state.peers.contains_key(key));
        for key in self.state.peers.keys() {
            if !self.ids.contains_key(key) {
                let slot = (0..).find(|slot| self.ids.values().all(|id| id.slot != *slot)).unwrap();
                let generation = u32::try_from(self.now.0).unwrap();
                self.ids.insert(key.clone(), PeerId { slot, generation });
            }
        }
        let peers = Arc::new(self.ids.clone());
        let state = Arc::new(self.state.clone());
        self.tell(SpeakerInput::Desired { state, peers });
    }

    pub fn id(&self, addr: &str) -> PeerId {
        self.ids[&key(addr)]
    }

    pub fn link(&mut self, ifindex: u32, name: &str, addresses: &[&str]) {
        let link = Link { index: ifindex, name: name.into(), up: true };
        self.tell(SpeakerInput::Kernel(KernelEvent::Link(link)));
        let addresses = addresses.iter().map(|text| {
            let (addr, _) = text.split_once('/').unwrap();
            Address { ifindex, addr: ip(addr), prefix: prefix(text), secondary: false, narrow: false }
        });
        let now: Vec<Address> = addresses.collect();
        let old = self.addresses.insert(ifindex, now.clone()).unwrap_or_default();
        for gone in old.into_iter().filter(|address| !now.contains(address)) {
            self.tell(SpeakerInput::Kernel(KernelEvent::AddressGone(gone)));
        }
        for address in now {
            self.tell(SpeakerInput::Kernel(KernelEvent::Address(address)));
        }
    }

    pub fn alien(&mut self, to: &str, target: Option<Target>, metric: u32) {
        let route = target.map(|target| AlienRoute { target, metric, protocol: 4 });
        self.tell(SpeakerInput::Kernel(KernelEvent::Alien(prefix(to), route)));
    }

    /// Brings the session of a peer up; `change` may negotiate otherwise.
    pub fn up_with(&mut self, id: PeerId, change: impl FnOnce(&mut Negotiated)) {
        let (key, _) = self.ids.iter().find(|(_, other)| **other == id).unwrap();
        let peer = &self.state.peers[key];
        let addr = peer.spec.transport.peer;
        let local = match addr {
            IpAddr::V4(_) => ip("10.10.0.1"),
            IpAddr::V6(_) => ip("fd00:10::1"),
        };
        let peer_id = match addr {
            IpAddr::V4(addr) => RouterId(addr),
            IpAddr::V6(addr) => RouterId(std::net::Ipv4Addr::from_bits(addr.segments()[7].into())),
        };
        let kind = if peer.treatment.internal { PeerType::Ibgp } else { PeerType::Ebgp };
        let mut context = Context::new(kind);
        context.families = peer.spec.open.families;
        let mut negotiated = Negotiated {
            conn: Conn::Active,
            endpoints: Endpoints { local: SocketAddr::new(local, 40000), remote: SocketAddr::new(addr, 179) },
            context,
            peer_open: Open { my_as: 0, hold_time: 240, router_id: peer_id, capabilities: Vec::new() },
            peer_asn: peer.spec.open.peer_asn,
            peer_id,
            hold_time: 240,
            graceful: AfiSet::EMPTY,
            peer_restarting: false,
            peer_graceful: false,
            refresh: true,
            enhanced_refresh: false,
        };
        change(&mut negotiated);
        self.contexts.insert(id, negotiated.context.clone());
        self.neighbours.insert(id, Neighbour::default());
        self.sessions += 1;
        self.incarnations.insert(id, self.sessions);
        let incarnation = self.sessions;
        self.tell(SpeakerInput::PeerUp { peer: id, incarnation, negotiated: Box::new(negotiated) });
    }

    pub fn up(&mut self, addr: &str) -> PeerId {
        let id = self.id(addr);
        self.up_with(id, |_| ());
        id
    }

    /// With path ids both ways.
    pub fn up_with_add_path(&mut self, addr: &str) -> PeerId {
        let id = self.id(addr);
        self.up_with(id, |negotiated| {
            negotiated.context.add_path_rx = negotiated.context.families;
            negotiated.context.add_path_tx = negotiated.context.families;
        });
        id
    }

    pub fn announce(&mut self, peer: PeerId, to: &str, next_hop: &str, attributes: Attributes) {
        self.announce_path(peer, to, 0, next_hop, attributes);
    }

    pub fn announce_path(
        &mut self,
        peer: PeerId,
        to: &str,
        path_id: u32,
        next_hop: &str,
        attributes: Attributes,
    ) {
        let nlri = nlri(prefix(to), path_id);
        let reach = smallvec![Reach { next_hop: ip(next_hop).into(), nlri }];
        let update = Update { reach, attributes, ..Update::default() };
        self.tell(SpeakerInput::Update { peer, update });
    }

    pub fn withdraw(&mut self, peer: PeerId, from: &str, path_id: u32) {
        let update = Update { withdrawn: smallvec![nlri(prefix(from), path_id)], ..Update::default() };
        self.tell(SpeakerInput::Update { peer, update });
    }

    /// Announces so many prefixes 10.128.0.0/28, 10.128.0.16/28 …, without waiting for what follows.
    pub fn announce_many(&mut self, peer: PeerId, next_hop: &str, prefixes: u32) {
        let prefix = |n: u32| Prefix::from_parts(0x0a80_0000 + (n << 4), 28).unwrap();
        for first in (0..prefixes).step_by(1000) {
            let nlri = (first..prefixes.min(first + 1000)).map(|n| Nlri { path_id: 0, prefix: prefix(n) });
            let nlri = NlriList::V4(nlri.collect());
            let reach = smallvec![Reach { next_hop: ip(next_hop).into(), nlri }];
            let update = Update { reach, attributes: normal(), ..Update::default() };
            self.speaker.handle(self.now, SpeakerInput::Update { peer, update }, &mut Vec::new());
        }
    }

    /// One read; `false` if nothing was left. What the neighbour is sent goes through the codec.
    pub fn read(&mut self, id: PeerId, budget: usize) -> bool {
        let mut out = Vec::new();
        let incarnation = self.incarnations[&id];
        self.speaker.handle(self.now, SpeakerInput::Want { peer: id, incarnation, budget }, &mut out);
        let context = &self.contexts[&id];
        // The neighbour decodes what we send: with path ids where we send them.
        let theirs = Context { add_path_rx: context.add_path_tx, ..context.clone() };
        let neighbour = self.neighbours.get_mut(&id).unwrap();
        let mut any = false;
        for output in out {
            match output {
                SpeakerOutput::Fill { peer, bytes, more, .. } => {
                    assert_eq!(peer, id);
                    any = !bytes.is_empty();
                    neighbour.ready = more;
                    neighbour.receive(&bytes, &theirs);
                }
                SpeakerOutput::Ready(peer, _) => {
                    assert_eq!(peer, id);
                    neighbour.ready = true;
                }
                other => panic!("{other:?}"),
            }
        }
        any
    }

    /// Reads for as long as the speaker says that there is something.
    pub fn drain(&mut self, id: PeerId) {
        let mut rounds = 0;
        while self.neighbours[&id].ready {
            self.read(id, 4096);
            rounds += 1;
            assert!(rounds < 10_000, "never empty");
        }
    }

    pub fn drain_all(&mut self) {
        for id in self.neighbours.keys().copied().collect::<Vec<_>>() {
            self.drain(id);
        }
    }

    /// What a neighbour holds of a prefix under the lowest path id.
    pub fn held(&self, id: PeerId, of: &str) -> Option<&(Attributes, NextHop)> {
        let of = prefix(of);
        self.neighbours[&id].held.range((of, 0)..=(of, u32::MAX)).next().map(|(_, route)| route)
    }

    pub fn fib(&self, of: &str) -> Option<&FibRoute> {
        self.fib.get(&prefix(of))
    }
}

impl Neighbour {
    fn receive(&mut self, mut bytes: &[u8], context: &Context) {
        while !bytes.is_empty() {
            let message = match frame::next_frame(bytes, context.max_len()) {
                frame::Next::Frame(frame) => frame.bytes,
                other => panic!("{other:?}"),
            };
            bytes = &bytes[message.len()..];
            let decoded = decode(message, context).unwrap();
            assert_eq!(decoded.faults, [], "we send what we would not accept");
            match decoded.message {
                Message::Update(update) => self.update(update),
                Message::RouteRefresh(refresh) => self.log.push(format!("{:?}", refresh.kind)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn update(&mut self, update: Update) {
        if let Some(afi) = update.end_of_rib {
            self.log.push(format!("EndOfRib {afi}"));
        }
        for list in &update.withdrawn {
            for key in keys(list) {
                assert!(self.held.remove(&key).is_some(), "{key:?} was withdrawn without being held");
                self.log.push(format!("withdraw {}", key.0));
            }
        }
        for reach in &update.reach {
            assert!(update.withdrawn.is_empty(), "withdrawals go in an UPDATE of their own");
            let mut names = Vec::new();
            for key in keys(&reach.nlri) {
                self.held.insert(key, (update.attributes.clone(), reach.next_hop));
                names.push(key.0.to_string());
            }
            self.log.push(format!("announce {}", names.join(" ")));
        }
    }
}

fn keys(list: &NlriList) -> Vec<(IpPrefix, u32)> {
    match list {
        NlriList::V4(list) => list.iter().map(|n| (n.prefix.into(), n.path_id)).collect(),
        NlriList::V6(list) => list.iter().map(|n| (n.prefix.into(), n.path_id)).collect(),
    }
}

pub fn nlri(prefix: IpPrefix, path_id: u32) -> NlriList {
    match prefix {
        IpPrefix::V4(prefix) => NlriList::V4(vec![Nlri { path_id, prefix }]),
        IpPrefix::V6(prefix) => NlriList::V6(vec![Nlri { path_id, prefix }]),
    }
}

pub fn gateway(via: &str, ifindex: u32) -> Target {
    Target::Unicast(smallvec![Leg { via: Some(ip(via)), ifindex, onlink: false, weight: 1 }])
}

pub fn device(ifindex: u32) -> Target {
    Target::Unicast(smallvec![Leg { via: None, ifindex, onlink: false, weight: 1 }])
}

/// Attributes with this LOCAL_PREF and path.
pub fn attributes(local_pref: Option<u32>, path: &[u32]) -> Attributes {
    let as_path = AsPath::sequence(path.iter().copied().map(Asn));
    Attributes { local_pref, as_path, ..Attributes::default() }
}

/// A route of normal priority from within the AS.
pub fn normal() -> Attributes {
    attributes(Some(MAX_METRIC - 1024), &[])
}

pub fn blackhole() -> FibRoute {
    FibRoute { target: Target::Blackhole, metric: 0 }
}

pub fn own_block(state: &mut DesiredState, prefix: &str) {
    state.v4.statics.insert(prefix.parse().unwrap(), StaticRoute::Blackhole);
}
