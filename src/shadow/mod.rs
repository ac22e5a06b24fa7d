//! What would be other if this daemon stood in the place of the BIRD that runs on the node: `calico-bgpd shadow`.
//!
//! Owns: the comparison, its words and the shape of its JSON. BIRD's routes go through the production import, decision,
//! next hops, export and kernel plan; what comes out is compared with what BIRD wrote into the kernel and with what it
//! sends to each neighbour. Never: opens a session, writes a route, or asks anybody ([`bird`] asks BIRD). A route that
//! BIRD's import refused is in no table of BIRD's: what ours would make of it is not seen.
//!
//! Inputs: the [`DesiredState`], a [`Mirror`] of the kernel, what BIRD said ([`Incumbent`]). Output: [`Shadow`]. Core, but
//! for [`bird`].

pub mod bird;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bgp_proto::session::{Conn, Endpoints, Negotiated};
use bgp_proto::wire::frame::{Head, MAX_LEN, take};
use bgp_proto::wire::{Context, Message, Nlri, NlriList, Open, PeerType, Reach, Update, decode};
use bgp_proto::{Afi, AfiSet, IpPrefix, Millis, PeerId, RouterId};
use serde::{Serialize, Serializer};
use smallvec::smallvec;

use self::bird::{BirdRoute, BirdSession};
use crate::control::bird::routes::attributes_text;
use crate::desired::{DesiredState, Peer, SessionKey};
use crate::fib::dry_run::words;
use crate::fib::mirror::Mirror;
use crate::fib::plan::{Written, all_prefixes, plan};
use crate::fib::{FibRoute, Phase, Wish};
use crate::speaker::{Incarnation, Speaker, SpeakerInput, SpeakerOutput};

/// Octets that are read of what a neighbour would be sent, at a time.
const BUDGET: usize = 1 << 20;
/// The only session that each peer has here.
const FIRST: Incarnation = 1;

/// What the BIRD of one family said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Incumbent {
    /// Its BGP sessions.
    pub sessions: Vec<BirdSession>,
    /// Its table.
    pub routes: Vec<BirdRoute>,
    /// By session: what the neighbour is sent.
    pub sent: BTreeMap<String, Vec<BirdRoute>>,
}

/// All that differs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// Each difference; none: the switch changes nothing.
    pub differences: Vec<Difference>,
    /// What was compared.
    pub compared: Compared,
}

/// How much was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Sessions of BIRD's.
    pub sessions: usize,
    /// Those of them that are established: what goes over them was compared.
    pub established: usize,
    /// Routes that the kernel would hold.
    pub kernel: usize,
    /// Prefixes sent, over all neighbours.
    pub sent: usize,
}

/// One thing that would be other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(tag = "of", rename_all = "camelCase")]
pub enum Difference {
    /// A session.
    Session {
        /// Its name, BIRD's where both have it.
        name: String,
        /// Its neighbour.
        address: IpAddr,
        /// What differs.
        what: String,
    },
    /// A route in the kernel.
    Kernel {
        /// What would be done, in the words of `ip route`.
        what: String,
    },
    /// A route that a neighbour is sent.
    Sent {
        /// The session.
        name: String,
        /// The prefix.
        #[serde(serialize_with = "as_text")]
        prefix: IpPrefix,
        /// What BIRD sends; absent: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        bird: Option<String>,
        /// What we would send; absent: nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        ours: Option<String>,
    },
}

fn as_text<S: Serializer>(prefix: &IpPrefix, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(prefix)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Session { name, address, what } => write!(f, "session {name} ({address}): {what}"),
            Difference::Kernel { what } => write!(f, "kernel: {what}"),
            Difference::Sent { name, prefix, bird, ours } => {
                write!(f, "sent to {name}: {prefix}: ")?;
                match (bird, ours) {
                    (Some(bird), Some(ours)) => write!(f, "BIRD: {bird}; calico-bgpd: {ours}"),
                    (Some(bird), None) => write!(f, "only by BIRD: {bird}"),
                    (None, ours) => write!(f, "only by calico-bgpd: {}", ours.as_deref().unwrap_or_default()),
                }
            }
        }
    }
}

impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        let Compared { sessions, established, kernel, sent } = self.compared;
        let differ = match self.differences.len() {
            0 => "no difference".to_owned(),
            1 => "1 difference".to_owned(),
            several => format!("{several} differences"),
        };
        writeln!(
            f,
            "{differ}: {sessions} sessions ({established} established), {kernel} kernel routes, {sent} prefixes sent"
        )
    }
}

/// Compares. `said` has an entry for each family whose BIRD was asked; of others nothing is compared but the kernel's
/// routes of blocks and services. `mirror` is the kernel as it is, read and told to nobody yet.
pub fn compare(
    state: &Arc<DesiredState>,
    mut mirror: Mirror,
    said: &BTreeMap<Afi, Incumbent>,
    seed: u64,
) -> Shadow {
    let mut shadow = Shadow::default();
    let mut world = World::new(state, &mut mirror, seed);
    for (afi, incumbent) in said {
        let pairs = sessions(state, *afi, incumbent, &mut shadow);
        world.receive(incumbent, &pairs);
    }
    world.run();
    shadow.compared.kernel = world.wanted.len();
    let prefixes = all_prefixes(&world.wanted, &mirror).into_iter();
    let asked = prefixes.filter(|prefix| said.contains_key(&prefix.afi()) && !world.waits.contains(prefix));
    let planned = plan(asked, &world.wanted, &mirror, Phase::Normal, &Written::default());
    let link = |index| mirror.link(index).map(|link| link.name.as_str());
    for op in planned.plan.operations() {
        shadow.differences.push(Difference::Kernel { what: words(&op, link) });
    }
    for conflict in planned.conflicts {
        let (prefix, owner) = (conflict.prefix, conflict.owner);
        let what = format!("{prefix} is a route of protocol {owner}, and stays");
        shadow.differences.push(Difference::Kernel { what });
    }
    for incumbent in said.values() {
        sent(incumbent, &world, &mut shadow);
    }
    shadow.differences.sort();
    shadow
}

/// Which of our peers each session of BIRD's is; differences of the sessions themselves go to `shadow`.
fn sessions<'a>(
    state: &'a DesiredState,
    afi: Afi,
    incumbent: &Incumbent,
    shadow: &mut Shadow,
) -> BTreeMap<String, &'a Arc<Peer>> {
    let mut pairs = BTreeMap::new();
    let mut differs = |name: &str, address, what: String| {
        shadow.differences.push(Difference::Session { name: name.to_owned(), address, what });
    };
    let mut ours: BTreeMap<&SessionKey, &Arc<Peer>> =
        state.peers.iter().filter(|(key, _)| key.afi == afi).collect();
    for theirs in &incumbent.sessions {
        let at = |peer: &Peer| peer.spec.transport.peer == theirs.neighbour;
        let named = ours.iter().find(|(_, peer)| at(peer) && peer.name == theirs.name);
        let found = named.or_else(|| ours.iter().find(|(_, peer)| at(peer)));
        let Some((key, peer)) = found.map(|(key, peer)| (*key, *peer)) else {
            differs(&theirs.name, theirs.neighbour, "only BIRD has it".to_owned());
            continue;
        };
        ours.remove(key);
        if peer.name != theirs.name {
            differs(&theirs.name, theirs.neighbour, format!("calico-bgpd names it {}", peer.name));
        }
        let asn = peer.spec.open.peer_asn;
        if asn != theirs.asn {
            differs(
                &theirs.name,
                theirs.neighbour,
                format!("AS {} in BIRD, {asn} in calico-bgpd", theirs.asn),
            );
        }
        if let (Some(source), Some(bound)) = (theirs.source, peer.spec.next.source)
            && source != bound
        {
            let what = format!("from address {source} in BIRD, {bound} in calico-bgpd");
            differs(&theirs.name, theirs.neighbour, what);
        }
        pairs.insert(theirs.name.clone(), peer);
    }
    for peer in ours.values() {
        differs(&peer.name, peer.spec.transport.peer, "only calico-bgpd has it".to_owned());
    }
    shadow.compared.sessions += incumbent.sessions.len();
    shadow.compared.established += incumbent.sessions.iter().filter(|session| session.established).count();
    pairs
}

/// What each neighbour is sent, beside what it would be sent.
fn sent(incumbent: &Incumbent, world: &World, shadow: &mut Shadow) {
    for session in incumbent.sessions.iter().filter(|session| session.established) {
        let Some(sent) = world.sent.get(&session.name) else { continue };
        let mut theirs: BTreeMap<IpPrefix, BTreeSet<String>> = BTreeMap::new();
        for route in incumbent.sent.get(&session.name).into_iter().flatten() {
            let text = sent_text(route.attributes.clone(), route.next_hop, sent.internal);
            theirs.entry(route.prefix).or_default().insert(text);
        }
        let prefixes: BTreeSet<IpPrefix> = theirs.keys().chain(sent.routes.keys()).copied().collect();
        shadow.compared.sent += prefixes.len();
        let joined = |texts: &BTreeSet<String>| texts.iter().cloned().collect::<Vec<_>>().join(" | ");
        for prefix in prefixes {
            let ours = sent.routes.get(&prefix).map(|paths| paths.values().cloned().collect());
            let (bird, ours) = (theirs.get(&prefix).map(joined), ours.as_ref().map(joined));
            if bird != ours {
                shadow.differences.push(Difference::Sent { name: session.name.clone(), prefix, bird, ours });
            }
        }
    }
}

/// The attributes as a neighbour gets them, in one line. What an external neighbour is not sent is left out, as are
/// extended communities, which BIRD shows in words of its own; the order of sets is none (BIRD puts its own cluster id at
/// the other end of CLUSTER_LIST).
fn sent_text(
    mut attributes: bgp_proto::wire::Attributes,
    next_hop: Option<IpAddr>,
    internal: bool,
) -> String {
    if !internal {
        attributes.local_pref = None;
    }
    attributes.communities.sort_unstable();
    attributes.large_communities.sort_unstable();
    attributes.cluster_list.sort_unstable();
    attributes.ext_communities.clear();
    attributes_text(&attributes, next_hop)
}

/// What one neighbour would be sent.
struct Sent {
    context: Context,
    internal: bool,
    /// By prefix and path id (0 where there are none).
    routes: BTreeMap<IpPrefix, BTreeMap<u32, String>>,
}

/// The production cores with a clock that stands still but for their own deadlines.
struct World {
    speaker: Speaker,
    now: Millis,
    ids: BTreeMap<SessionKey, PeerId>,
    names: BTreeMap<PeerId, String>,
    inputs: Vec<SpeakerInput>,
    wanted: BTreeMap<IpPrefix, FibRoute>,
    /// Routes through a device that is not there.
    waits: BTreeSet<IpPrefix>,
    sent: BTreeMap<String, Sent>,
}

impl World {
    fn new(state: &Arc<DesiredState>, mirror: &mut Mirror, seed: u64) -> World {
        let ids: BTreeMap<SessionKey, PeerId> = (0..)
            .zip(state.peers.keys())
            .map(|(slot, key)| (key.clone(), PeerId { slot, generation: 0 }))
            .collect();
        let mut inputs = Vec::new();
        while let Some(event) = mirror.next_event() {
            inputs.push(SpeakerInput::Kernel(event));
        }
        inputs.push(SpeakerInput::Kernel(crate::fib::KernelEvent::Synced));
        inputs.push(SpeakerInput::Listening(true));
        inputs.push(SpeakerInput::Desired { state: state.clone(), peers: Arc::new(ids.clone()) });
        World {
            speaker: Speaker::new(seed),
            now: Millis(0),
            ids,
            names: BTreeMap::new(),
            inputs,
            wanted: BTreeMap::new(),
            waits: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }

    /// The established sessions of a BIRD come up with what it has learnt from each; nobody is waited for.
    fn receive(&mut self, incumbent: &Incumbent, pairs: &BTreeMap<String, &Arc<Peer>>) {
        let mut routes: BTreeMap<&str, Vec<&BirdRoute>> = BTreeMap::new();
        for route in &incumbent.routes {
            routes.entry(&route.protocol).or_default().push(route);
        }
        for session in &incumbent.sessions {
            let Some(peer) = pairs.get(&session.name) else { continue };
            let Some(id) = self.ids.get(&peer.key).copied() else { continue };
            if !session.established {
                self.inputs.push(SpeakerInput::PeerUnreachable(id));
                continue;
            }
            let negotiated = negotiated(session, peer);
            let context = negotiated.context.clone();
            let internal = context.peer_type == PeerType::Ibgp;
            self.names.insert(id, session.name.clone());
            self.sent.insert(session.name.clone(), Sent { context, internal, routes: BTreeMap::new() });
            let negotiated = Box::new(negotiated);
            self.inputs.push(SpeakerInput::PeerUp { peer: id, incarnation: FIRST, negotiated });
            let mut paths: BTreeMap<IpPrefix, u32> = BTreeMap::new();
            for route in routes.get(session.name.as_str()).into_iter().flatten() {
                let path = paths.entry(route.prefix).or_default();
                *path += 1;
                // Without path ids there is one path.
                if session.add_path || *path == 1 {
                    let path_id = if session.add_path { *path } else { 0 };
                    self.inputs
                        .push(SpeakerInput::Update { peer: id, update: update(route, session, path_id) });
                }
            }
            for afi in Afi::ALL {
                self.inputs.push(SpeakerInput::EndOfRib(id, afi));
            }
        }
    }

    /// Until recovery is over and nothing is left to do.
    fn run(&mut self) {
        let inputs = std::mem::take(&mut self.inputs);
        for input in inputs {
            self.step(input);
        }
        while self.speaker.phase() != Phase::Normal {
            let Some(at) = self.speaker.deadline() else { return };
            self.now = self.now.max(at);
            self.step(SpeakerInput::Tick);
        }
    }

    fn step(&mut self, input: SpeakerInput) {
        let mut next = Some(input);
        let mut asks = Vec::new();
        while let Some(input) = next.take() {
            let mut out = Vec::new();
            self.speaker.handle(self.now, input, &mut out);
            while self.speaker.settle(self.now, &mut out) {}
            for output in out {
                match output {
                    SpeakerOutput::Ready(peer, _) => asks.push(peer),
                    SpeakerOutput::Fill { peer, bytes, more, .. } => {
                        self.read(peer, &bytes);
                        asks.extend(more.then_some(peer));
                    }
                    SpeakerOutput::Fib(changes) => {
                        for change in changes {
                            self.wanted.remove(&change.prefix);
                            self.waits.remove(&change.prefix);
                            match change.wish {
                                Wish::Nothing => {}
                                Wish::Route(route) => {
                                    self.wanted.insert(change.prefix, route.normalized());
                                }
                                Wish::Waits { .. } => {
                                    self.waits.insert(change.prefix);
                                }
                            }
                        }
                    }
                    SpeakerOutput::EndSession(..)
                    | SpeakerOutput::Phase(_)
                    | SpeakerOutput::Ownership(_)
                    | SpeakerOutput::Held(_) => {}
                }
            }
            next = asks.pop().map(|peer| SpeakerInput::Want { peer, incarnation: FIRST, budget: BUDGET });
        }
    }

    /// What a neighbour makes of the messages that it would be sent.
    fn read(&mut self, peer: PeerId, bytes: &[u8]) {
        let Some(sent) = self.names.get(&peer).and_then(|name| self.sent.get_mut(name)) else { return };
        // The other end reads path ids where we send them.
        let mut context = sent.context.clone();
        (context.add_path_rx, context.add_path_tx) = (context.add_path_tx, context.add_path_rx);
        context.accept_as_set = true;
        let mut rest = bytes;
        while let Ok(Head::Frame(frame)) = take(rest, MAX_LEN) {
            rest = rest.get(frame.bytes.len()..).unwrap_or_default();
            let Ok(decoded) = decode(frame.bytes, &context) else { continue };
            let Message::Update(update) = decoded.message else { continue };
            for list in &update.withdrawn {
                for (prefix, path_id) in paths(list) {
                    let Some(paths) = sent.routes.get_mut(&prefix) else { continue };
                    paths.remove(&path_id);
                    if paths.is_empty() {
                        sent.routes.remove(&prefix);
                    }
                }
            }
            for reach in &update.reach {
                let text = sent_text(update.attributes.clone(), Some(reach.next_hop.addr()), sent.internal);
                for (prefix, path_id) in paths(&reach.nlri) {
                    sent.routes.entry(prefix).or_default().insert(path_id, text.clone());
                }
            }
        }
    }
}

/// Prefixes with their path ids.
fn paths(list: &NlriList) -> Vec<(IpPrefix, u32)> {
    match list {
        NlriList::V4(list) => list.iter().map(|nlri| (IpPrefix::V4(nlri.prefix), nlri.path_id)).collect(),
        NlriList::V6(list) => list.iter().map(|nlri| (IpPrefix::V6(nlri.prefix), nlri.path_id)).collect(),
    }
}

/// A session as BIRD's stands.
fn negotiated(session: &BirdSession, peer: &Peer) -> Negotiated {
    let addr = session.neighbour;
    let kind = if peer.treatment.internal { PeerType::Ibgp } else { PeerType::Ebgp };
    let mut context = Context::new(kind);
    context.families = peer.spec.open.families;
    if session.add_path {
        (context.add_path_rx, context.add_path_tx) = (context.families, context.families);
    }
    let unspecified: IpAddr = match addr {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = session.source.or(peer.spec.next.source).unwrap_or(unspecified);
    let router_id = session.neighbour_id.unwrap_or(RouterId(std::net::Ipv4Addr::UNSPECIFIED));
    Negotiated {
        conn: Conn::Active,
        endpoints: Endpoints {
            local: SocketAddr::new(local, 0),
            remote: SocketAddr::new(addr, peer.spec.transport.port),
        },
        context,
        peer_open: Open { my_as: 0, hold_time: 0, router_id, capabilities: Vec::new() },
        peer_asn: peer.spec.open.peer_asn,
        peer_id: router_id,
        hold_time: 0,
        graceful: AfiSet::EMPTY,
        peer_restarting: false,
        peer_graceful: true,
        refresh: false,
        enhanced_refresh: false,
    }
}

/// The UPDATE that a route of BIRD's may have come in by.
fn update(route: &BirdRoute, session: &BirdSession, path_id: u32) -> Update {
    let nlri = match route.prefix {
        IpPrefix::V4(prefix) => NlriList::V4(vec![Nlri { path_id, prefix }]),
        IpPrefix::V6(prefix) => NlriList::V6(vec![Nlri { path_id, prefix }]),
    };
    let next_hop = route.next_hop.unwrap_or(session.neighbour).into();
    Update {
        reach: smallvec![Reach { next_hop, nlri }],
        attributes: route.attributes.clone(),
        ..Update::default()
    }
}
