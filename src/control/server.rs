//! The server's side of the control socket.
//!
//! Owns: `calico-bgpd.sock`, its clients, and how published views become answers. Never: changes what the node shall
//! do. A socket file that a dead process left is replaced: the lock of the run directory says that it is dead (P11).

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::StateName;
use bgp_proto::{Afi, IpPrefix, Millis, PeerId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::accept::serve;
use super::answer::{self, Answer, Refreshed, Request, ShowRequest};
use super::counts::Counts;
use super::reason::reason;
use super::routes::page;
use super::socket::BoundSocket;
use crate::clock::Clock;
use crate::configure::{Again, InForce};
use crate::core_thread::{CoreGone, CorePort, Urgent};
use crate::datastore::SourceStatus;
use crate::fib::Phase;
use crate::fib::reconciler::FibStatus;
use crate::fib::view::KernelLook;
use crate::model::problem::ProblemView;
use crate::model::store::KindState;
use crate::net::dial;
use crate::net::listener::ListenStatus;
use crate::net::peer_view::{Looks, PeerEntry, PeerView};
use crate::speaker::status::PeerCounts;
use crate::speaker::{Speaker, WaitsFor};

/// Clients at once, most of them silent; others wait.
const CLIENTS: usize = 256;
/// Answers at once; others wait.
const ANSWERS: usize = 16;
/// Longest request.
const MAX_REQUEST: u64 = 4096;
/// How long a client may be silent, or take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that answers are made of.
#[derive(Clone)]
pub struct Views {
    /// Time.
    pub clock: Clock,
    /// For tables.
    pub core: CorePort<Speaker>,
    /// For counters of sessions.
    pub looks: Looks,
    /// The desired state, and how it fares.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// The datastore.
    pub source: watch::Receiver<SourceStatus>,
    /// Listening sockets.
    pub listen: watch::Receiver<ListenStatus>,
    /// Recovery.
    pub phase: watch::Receiver<Phase>,
    /// The kernel.
    pub fib: watch::Receiver<FibStatus>,
    /// Counts of the table.
    pub counts: Arc<Counts>,
    /// Has the last snapshot compiled again.
    pub again: mpsc::Sender<Again>,
    /// The kernel, route by route.
    pub kernel: mpsc::Sender<KernelLook>,
}

/// The bound socket; its file goes when this goes.
pub struct ControlSocket(BoundSocket);

impl ControlSocket {
    /// Binds in the run directory. Call only with the directory's lock held.
    pub fn bind(run_dir: &Path) -> io::Result<ControlSocket> {
        let path = run_dir.join(super::SOCKET);
        Ok(ControlSocket(BoundSocket::at(&path)?))
    }
}

/// Serves until `stop`.
pub async fn run(socket: ControlSocket, views: Views, stop: CancellationToken) {
    let answers = Arc::new(Semaphore::new(ANSWERS));
    serve(&socket.0.listener, CLIENTS, super::SOCKET, stop, |stream| {
        let (views, answers) = (views.clone(), answers.clone());
        async move { client(stream, &views, &answers).await }
    })
    .await;
}

async fn client(stream: UnixStream, views: &Views, answers: &Semaphore) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut request = (&mut reader).take(MAX_REQUEST);
        let read = request.read_until(b'\n', &mut line);
        if timeout(PATIENCE, read).await.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
            return Ok(());
        }
        let turn = answers.acquire().await.map_err(io::Error::other)?;
        let whole = line.ends_with(b"\n") || line.len() < usize::try_from(MAX_REQUEST).unwrap_or(usize::MAX);
        let answer = if whole {
            match Request::parse(&line) {
                Ok(request) => views.answer(&request).await,
                Err(error) => Answer::Error(format!("not a request: {error}")),
            }
        } else {
            Answer::Error(format!("a request has at most {MAX_REQUEST} bytes"))
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        // Who reads slowly keeps nobody waiting.
        drop(turn);
        timeout(PATIENCE, writer.write_all(&text)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if !whole {
            return Ok(());
        }
    }
}

impl Views {
    async fn answer(&self, request: &Request) -> Answer {
        match request {
            Request::Show(ShowRequest::Peers) => self.peers().await,
            Request::Show(ShowRequest::Routes { family, after }) => {
                self.routes(family, after.as_deref()).await
            }
            Request::Show(ShowRequest::Kernel { family, after }) => {
                self.kernel(family, after.as_deref()).await
            }
            Request::Show(ShowRequest::Status) => self.status().await,
            Request::Refresh(wanted) => self.refresh(&wanted.peer).await,
        }
    }

    pub(super) async fn peers(&self) -> Answer {
        let in_force = self.in_force.borrow().clone();
        let views = in_force.peers.iter().map(|entry| entry.view.clone()).collect();
        self.looks.refresh(views).await;
        let ids: Vec<(PeerId, Afi)> =
            in_force.peers.iter().map(|entry| (entry.id, entry.peer.key.afi)).collect();
        let counts = match self.counts.peers(&ids).await {
            Ok(counts) => counts,
            Err(gone) => return Answer::Error(gone.to_string()),
        };
        let now = self.clock.now();
        let listen = self.listen.borrow().clone();
        let mut strangers = listen.recent.clone();
        // One that has become a peer's address since is no stranger any more.
        strangers.retain(|addr| in_force.peers.iter().all(|entry| entry.peer.spec.transport.peer != *addr));
        let peers = in_force
            .peers
            .iter()
            .map(|entry| {
                let mut peer = peer(entry, &entry.view.borrow(), counts.get(&entry.id).copied(), now);
                hint_at_strangers(&mut peer, entry, &strangers);
                if let (Some(why), Some(reason)) =
                    (listen.refuses(entry.peer.spec.transport.peer), &mut peer.reason)
                {
                    *reason = format!("{reason}; connections from it cannot be accepted: {why}");
                }
                peer
            })
            .collect();
        Answer::Peers(peers)
    }

    async fn routes(&self, family: &str, after: Option<&str>) -> Answer {
        let (afi, after) = match page_of(family, after) {
            Ok(page) => page,
            Err(why) => return Answer::Error(why),
        };
        match self.core.look(move |core| core.routes(afi, after, answer::PAGE)).await {
            Ok(routes) => {
                let mut page = page(&routes, &self.fib.borrow());
                // The table knows sessions by name; the desired state has their addresses.
                let in_force = self.in_force.borrow().clone();
                for route in &mut page.routes {
                    let name = route.peer.as_ref();
                    let entry = in_force.peers.iter().find(|entry| Some(&entry.peer.name) == name);
                    route.from = entry.map(|entry| entry.peer.spec.transport.peer.to_string());
                }
                Answer::Routes(page)
            }
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    async fn kernel(&self, family: &str, after: Option<&str>) -> Answer {
        let (afi, after) = match page_of(family, after) {
            Ok(page) => page,
            Err(why) => return Answer::Error(why),
        };
        let (answer, answered) = oneshot::channel();
        let look = KernelLook { afi, after, limit: answer::PAGE, answer };
        let gone = || Answer::Error("the part that writes kernel routes has ended".into());
        if self.kernel.send(look).await.is_err() {
            return gone();
        }
        let Ok(lines) = answered.await else { return gone() };
        let next = lines.last().filter(|_| lines.len() >= answer::PAGE).map(|last| last.prefix.to_string());
        let routes = lines.into_iter().map(|line| answer::KernelRouteAnswer {
            prefix: line.prefix.to_string(),
            state: line.state.name().into(),
            desired: line.desired,
            actual: line.actual,
            reason: line.reason,
        });
        Answer::KernelRoutes(answer::KernelPage { routes: routes.collect(), next })
    }

    /// As BIRD's `reload in`: a peer that cannot send its routes again is not asked, and its session stays.
    async fn refresh(&self, wanted: &str) -> Answer {
        let in_force = self.in_force.borrow().clone();
        let mut answers = Vec::new();
        for entry in in_force.peers.iter() {
            let peer = &entry.peer;
            if wanted != "all" && wanted != peer.name && wanted.parse() != Ok(peer.spec.transport.peer) {
                continue;
            }
            let refused = cannot_refresh(&entry.view.borrow());
            if refused.is_none() {
                info!(peer = peer.name, "is asked for its routes again");
                if self.core.urgent.send(Urgent::Refresh(entry.id, peer.key.afi)).await.is_err() {
                    return Answer::Error(CoreGone.to_string());
                }
            }
            answers.push(Refreshed { name: peer.name.clone(), refused: refused.map(str::to_string) });
        }
        if answers.is_empty() && wanted != "all" {
            return Answer::Error(format!("no session has the name or address {wanted:?}"));
        }
        Answer::Refreshed(answers)
    }

    pub(super) async fn status(&self) -> Answer {
        let waits = self.core.look(Speaker::waits_for).await.unwrap_or_default();
        let in_force = self.in_force.borrow().clone();
        let source = self.source.borrow().clone();
        let listen = self.listen.borrow().clone();
        let fib = self.fib.borrow().clone();
        let state = in_force.state.as_deref();
        let established = in_force.peers.iter().filter(|entry| entry.view.borrow().is_established()).count();
        let problems = in_force.problems.iter().map(ProblemView::from).collect();
        let phase = match *self.phase.borrow() {
            Phase::Recovering => "recovering",
            Phase::Normal => "normal",
        };
        Answer::Status(Box::new(answer::StatusAnswer {
            version: env!("CARGO_PKG_VERSION").into(),
            node: in_force.node.clone(),
            uptime_seconds: self.clock.now().as_secs(),
            generation: in_force.generation,
            waiting_for: in_force.waiting_for.clone(),
            as_number: state.map(|state| state.node.asn.0),
            router_id: state.map(|state| state.node.router_id.to_string()),
            release: state.map(|state| state.release.release.to_string()),
            release_source: state.map(|state| state.release.source.name().to_string()),
            phase: phase.into(),
            recovery: waits.iter().map(|what| recovery_waits(what, &in_force)).collect(),
            datastore: datastore(source),
            kernel: answer::KernelAnswer {
                connected: fib.connected,
                desired: fib.desired,
                installed: fib.installed,
                failed: fib.failed,
                conflicts: fib.conflicts,
                last_error: fib.last_error,
            },
            listen: listen
                .sockets
                .iter()
                .map(|(afi, socket)| answer::ListenAnswer {
                    family: afi.name().into(),
                    address: socket.as_ref().ok().map(ToString::to_string),
                    error: socket.as_ref().err().cloned(),
                })
                .collect(),
            strangers: listen.strangers,
            peers: in_force.peers.len(),
            peers_established: established,
            problems,
        }))
    }
}

/// Which page is asked for: its family and the last prefix of the page before.
fn page_of(family: &str, after: Option<&str>) -> Result<(Afi, Option<IpPrefix>), String> {
    let Some(afi) = Afi::ALL.into_iter().find(|afi| afi.name() == family) else {
        return Err(format!("{family:?} is neither ipv4 nor ipv6"));
    };
    match after.map(|text| (text, text.parse::<IpPrefix>())) {
        None => Ok((afi, None)),
        Some((_, Ok(prefix))) if prefix.afi() == afi => Ok((afi, Some(prefix))),
        Some((text, _)) => Err(format!("{text:?} is no {family} prefix")),
    }
}

/// What the end of recovery waits for, in words.
fn recovery_waits(what: &WaitsFor, in_force: &InForce) -> String {
    match what {
        WaitsFor::Datastore => "the datastore".to_string(),
        WaitsFor::Kernel => "a first look at the kernel".to_string(),
        WaitsFor::Listener => {
            "the port on which neighbours call: what was found in the kernel stays".to_string()
        }
        WaitsFor::FirstSession => {
            "a first session: until one has been up, what was found in the kernel stays".to_string()
        }
        WaitsFor::EndOfRib(peers) => {
            let name = |id: &PeerId| {
                let entry = in_force.peers.iter().find(|entry| entry.id == *id);
                entry.map_or_else(|| id.to_string(), |entry| entry.peer.name.clone())
            };
            let names: Vec<String> = peers.iter().take(8).map(|(id, _)| name(id)).collect();
            let more = peers.len().saturating_sub(names.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("all routes of {}{more}", names.join(", "))
        }
    }
}

/// Why a peer cannot be asked for its routes again, if it cannot.
fn cannot_refresh(view: &PeerView) -> Option<&'static str> {
    match (view.is_established(), view.can_refresh()) {
        (false, _) => Some("the session is not established"),
        (true, false) => Some("the peer offers no route refresh (RFC 2918)"),
        (true, true) => None,
    }
}

/// T10: a peer that we wait for may be the one that calls from an address of nobody.
fn hint_at_strangers(peer: &mut answer::PeerAnswer, entry: &PeerEntry, strangers: &[IpAddr]) {
    let expected = entry.peer.spec.transport.peer;
    let seen: Vec<String> = strangers
        .iter()
        .filter(|addr| addr.is_ipv4() == expected.is_ipv4())
        .map(ToString::to_string)
        .collect();
    // Also where we dial: both ends may, and ours may be what a firewall or the wrong address stops.
    let waits = [StateName::Passive, StateName::Active, StateName::Connect];
    if waits.iter().any(|state| peer.state == state.name())
        && !seen.is_empty()
        && let Some(reason) = &mut peer.reason
    {
        *reason = format!(
            "{reason}; connections from unexpected source {} were refused, expected is {expected}",
            seen.join(", ")
        );
    }
}

/// The datastore as the feed tells of it.
fn datastore(source: SourceStatus) -> answer::Datastore {
    let until = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs();
    let kinds = source.kinds.iter().filter(|(_, state)| !matches!(state, KindState::InSync { .. }));
    answer::Datastore {
        state: source.state.name().into(),
        since_seconds: since(source.since),
        in_sync: source.in_sync,
        failures: source.failures,
        revision: source.revision,
        known_age_seconds: source.heard.map(since),
        locked: source.frozen,
        kinds: kinds
            .map(|(kind, state)| answer::KindAnswer {
                kind: kind.name().into(),
                state: state.name().into(),
                why: match state {
                    KindState::Refused { why, .. } => Some(why.clone()),
                    _ => None,
                },
            })
            .collect(),
        unconfirmed: source
            .held
            .into_iter()
            .map(|(what, at)| answer::Unconfirmed { what, in_seconds: until(at) })
            .collect(),
        from_disk_age_seconds: source
            .from_disk
            .map(|written| written.elapsed().unwrap_or_default().as_secs()),
        cache_age_seconds: source.kept.map(since),
        cache_error: source.cache_error,
        last_error: source.last_error,
    }
}

fn since(at: Instant) -> u64 {
    Instant::now().saturating_duration_since(at).as_secs()
}

/// One session as it stands on the line.
fn peer(entry: &PeerEntry, view: &PeerView, counts: Option<PeerCounts>, now: Millis) -> answer::PeerAnswer {
    let wanted = &entry.peer;
    let spec = &wanted.spec;
    let age = |at: Millis| (now - at).as_secs();
    let mut peer = answer::PeerAnswer {
        name: wanted.name.clone(),
        address: spec.transport.peer.to_string(),
        port: spec.transport.port,
        as_number: spec.open.peer_asn.0,
        local_as_number: spec.open.local_asn.0,
        family: wanted.key.afi.name().into(),
        class: wanted.class.name().into(),
        resource: wanted.resource.clone(),
        passive: spec.next.passive,
        state: view.state().name().into(),
        since_seconds: now.as_secs(),
        defects: view.defects,
        ..answer::PeerAnswer::default()
    };
    if let Some(counts) = counts {
        let count = |n: usize| Some(u64::try_from(n).unwrap_or(u64::MAX));
        peer.received = count(counts.imported + counts.filtered);
        peer.accepted = count(counts.imported);
        peer.sent = count(counts.exported);
    }
    let lacking =
        spec.next.source.filter(|addr| !view.is_established() && !dial::is_here(*addr, spec.transport.scope));
    peer.reason = reason(view, &wanted.auth, spec.transport.ttl, lacking);
    let Some(status) = &view.status else { return peer };
    peer.since_seconds = age(status.since);
    peer.routes_kept_seconds = status.kept_until.map(|at| (at - now).as_secs());
    if let Some(negotiated) = &status.negotiated {
        peer.local_address = Some(negotiated.endpoints.local.ip().to_string());
        peer.router_id = Some(negotiated.peer_id.to_string());
        peer.hold_time = Some(negotiated.hold_time);
        peer.graceful_restart = Some(!negotiated.graceful.is_empty());
    }
    let messages = |m: bgp_proto::session::Messages| answer::MessagesAnswer {
        open: m.open,
        update: m.update,
        notification: m.notification,
        keepalive: m.keepalive,
        refresh: m.refresh,
    };
    peer.messages_received = messages(status.counters.received);
    peer.messages_sent = messages(status.counters.sent);
    peer.faulty_updates = status.counters.faulty_updates;
    peer.dials = status.counters.dials;
    peer.established = status.counters.established;
    peer.events = status
        .events
        .iter()
        .map(|(at, event)| answer::EventAnswer { age_seconds: age(*at), text: event.to_string() })
        .collect();
    peer
}
