//! Clients of BIRD's sockets.
//!
//! Owns: one socket of one family, its clients, and which view answers what. Never: makes a client wait for another:
//! listings go out in pages, and who reads slowly keeps the table from nothing. A socket at which a BIRD answers is
//! waited for; the file that a dead process left is replaced.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bgp_proto::{Afi, Millis, PeerId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::VERSION;
use super::command::{self, BirdCommand, CommandFault, ConfigureCommand, Destinations, RouteQuery, Which};
use super::listing::{PeerKind, RouteListing};
use super::node::{self, Interface, NodeReply, Wait};
use super::protocols::{self, Protocol};
use super::reply::{Reply, code};
use super::routes::{DIRECT, KERNEL, PeerOfRoutes, Rows, STATIC};
use super::sessions;
use super::wall::Wall;
use crate::configure::InForce;
use crate::control::accept::serve;
use crate::control::server::Views;
use crate::control::socket::BoundSocket;
use crate::core_thread::{CoreGone, Urgent};
use crate::fib::Phase;
use crate::net::incumbent::who_answers;
use crate::net::peer_view::PeerEntry;
use crate::speaker::RECOVERY_LIMIT;
use crate::speaker::status::RouteStatus;

/// Clients of one socket at once, most of them silent; others wait.
const CLIENTS: usize = 256;
/// Longest command with its end (CTL-4).
const MAX_COMMAND: usize = 4095;
/// How long a client may take for what it is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may say nothing: people type here.
const SILENCE: Duration = Duration::from_secs(3600);
/// Destinations of one look at the table.
const PAGE: usize = 256;
/// How long the count of those that recovery waits for may take.
const GLANCE: Duration = Duration::from_millis(250);
/// How long an answer to `configure` waits for the new state.
const CONFIGURE: Duration = Duration::from_secs(10);
/// Between two looks at a socket that somebody has.
const AGAIN: Duration = Duration::from_secs(2);

/// What a socket of one family answers from.
#[derive(Clone)]
pub struct Bird {
    /// Which family's.
    pub afi: Afi,
    /// The views.
    pub views: Views,
    /// Cancelled by `down`.
    pub down: CancellationToken,
}

/// Serves a family at `path` until `stop`. A path that cannot be bound is tried again.
pub async fn run(path: PathBuf, bird: Bird, stop: CancellationToken) {
    let mut told = None;
    let bound = loop {
        let why = match who_answers(&path).await {
            Some(greeting) => format!("another program answers there: {greeting:?}"),
            None => match BoundSocket::at(&path) {
                Ok(bound) => break bound,
                Err(error) => error.to_string(),
            },
        };
        if told.as_ref() != Some(&why) {
            warn!(path = %path.display(), "no BIRD socket for now: {why}");
            told = Some(why);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    };
    if told.is_some() {
        info!(path = %path.display(), "the BIRD socket is there");
    }
    serve(&bound.listener, CLIENTS, "bird.ctl", stop, |stream| {
        let bird = bird.clone();
        async move { client(stream, &bird).await }
    })
    .await;
}

/// What is said to one client.
struct Talk {
    writer: OwnedWriteHalf,
    reply: Reply,
}

impl Talk {
    async fn send(&mut self) -> io::Result<()> {
        let text = self.reply.take();
        timeout(PATIENCE, self.writer.write_all(text.as_bytes()))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?
    }
}

async fn client(stream: UnixStream, bird: &Bird) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut talk = Talk { writer, reply: Reply::welcome(VERSION) };
    talk.send().await?;
    let mut restricted = false;
    loop {
        let line =
            timeout(SILENCE, command_line(&mut reader)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let parsed = match line {
            None => return Ok(()),
            Some(Err(fault)) => Err(fault),
            Some(Ok(line)) => command::parse(&line, bird.afi),
        };
        match parsed {
            Ok(command) if restricted && command.changes() => talk.reply.last(8007, "Access denied"),
            Ok(BirdCommand::Restrict) => {
                restricted = true;
                talk.reply.last(16, "Access restricted");
            }
            Ok(command) => match bird.answer(&command, &mut talk).await {
                Ok(()) => {}
                Err(Trouble::Said(fault)) => talk.reply.last(fault.code, fault.text),
                Err(Trouble::Client(error)) => return Err(error),
            },
            Err(fault) => talk.reply.last(fault.code, fault.text),
        }
        talk.send().await?;
        if talk.reply.closes() {
            return Ok(());
        }
    }
}

/// One line without its end; `None`: the client has nothing more to ask. One that is too long is read to its end.
async fn command_line(
    reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
) -> io::Result<Option<Result<String, CommandFault>>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let room = u64::try_from(MAX_COMMAND - line.len()).unwrap_or_default();
        let read = (&mut *reader).take(room).read_until(b'\n', &mut line).await?;
        if line.ends_with(b"\n") {
            break;
        }
        if read == 0 {
            return Ok(None);
        }
        if line.len() >= MAX_COMMAND {
            too_long = true;
            line.clear();
        }
    }
    Ok(Some(if too_long {
        Err(CommandFault::new(9000, "Command too long"))
    } else {
        Ok(String::from_utf8_lossy(&line).into_owned())
    }))
}

/// Why there is no answer.
enum Trouble {
    /// What to say instead.
    Said(CommandFault),
    /// Nobody to say it to.
    Client(io::Error),
}

impl From<CommandFault> for Trouble {
    fn from(fault: CommandFault) -> Self {
        Trouble::Said(fault)
    }
}

impl From<CoreGone> for Trouble {
    fn from(gone: CoreGone) -> Self {
        Trouble::Said(CommandFault::new(8000, gone.to_string()))
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Client(error)
    }
}

impl Bird {
    async fn answer(&self, command: &BirdCommand, talk: &mut Talk) -> Result<(), Trouble> {
        let reply = &mut talk.reply;
        match command {
            BirdCommand::Status => node::status(reply, &self.node().await),
            BirdCommand::Protocols { all, which } => self.protocols(reply, *all, which).await?,
            BirdCommand::Route(query) => return self.routes(query, talk).await,
            BirdCommand::Interfaces { summary } => {
                let afi = self.afi;
                let known = self.views.core.look(|core| core.interfaces()).await?;
                let known: Vec<Interface> =
                    known.into_iter().map(|(link, addresses)| Interface::of(link, addresses, afi)).collect();
                node::interfaces(reply, &known, *summary);
            }
            BirdCommand::Symbols => {
                let in_force = self.views.in_force.borrow().clone();
                let own = [STATIC, KERNEL, "device1", DIRECT].into_iter();
                node::symbols(
                    reply,
                    own.chain(self.entries(&in_force).map(|entry| entry.peer.name.as_str())),
                );
            }
            BirdCommand::Memory => {
                node::memory(reply, &std::fs::read_to_string("/proc/self/statm").unwrap_or_default());
            }
            BirdCommand::Configure(what) => self.configure(reply, *what).await,
            BirdCommand::Enable(which) => {
                for name in self.names(which)? {
                    reply.line(10, format_args!("{name}: already enabled"));
                }
                reply.done();
            }
            BirdCommand::Switch(which) => {
                self.names(which)?;
                reply.last(8007, "Access denied: sessions are switched off in the datastore, not here");
            }
            BirdCommand::Reload { inward, outward, which } => {
                self.reload(reply, *inward, *outward, which).await?
            }
            BirdCommand::Down => {
                reply.last(7, "Shutdown requested");
                reply.close();
                info!("shutdown is requested on the BIRD socket");
                self.down.cancel();
            }
            BirdCommand::Nothing => reply.done(),
            BirdCommand::Restrict => {}
        }
        Ok(())
    }

    /// Sessions of this socket's family.
    fn entries<'a>(&self, in_force: &'a InForce) -> impl Iterator<Item = &'a PeerEntry> {
        let afi = self.afi;
        in_force.peers.iter().filter(move |entry| entry.peer.key.afi == afi)
    }

    fn recovering(&self) -> bool {
        *self.views.phase.borrow() == Phase::Recovering
    }

    async fn node(&self) -> NodeReply {
        let in_force = self.views.in_force.borrow().clone();
        let wall = Wall::now(self.views.clock.now());
        let recovery = if self.recovering() {
            let asked = timeout(GLANCE, self.views.core.look(|core| core.recovery())).await;
            match asked {
                Ok(Ok(recovery)) => recovery,
                // Busy: those that are not up are waited for in any case.
                _ => {
                    let down = in_force.peers.iter().filter(|entry| !entry.view.borrow().is_established());
                    Some((down.count(), None))
                }
            }
        } else {
            None
        };
        NodeReply {
            version: VERSION,
            router_id: in_force.state.as_ref().map(|state| state.node.router_id),
            now: wall.long(wall.clock()),
            started: wall.long(Millis(0)),
            configured: wall.long(in_force.at),
            recovery: recovery.map(|(sessions, deadline)| Wait {
                sessions,
                left: deadline.map_or(RECOVERY_LIMIT, |deadline| deadline - wall.clock()).as_secs(),
                whole: RECOVERY_LIMIT.as_secs(),
            }),
        }
    }

    async fn protocols(&self, reply: &mut Reply, all: bool, which: &Which) -> Result<(), Trouble> {
        let in_force = self.views.in_force.borrow().clone();
        if in_force.state.is_none() {
            // Without sessions it would look as if none were wanted, and the node as if it were ready.
            let why = in_force.waiting_for.as_deref().unwrap_or("the datastore");
            return Err(CommandFault::new(8000, format!("No configuration yet, waiting for {why}")).into());
        }
        let wall = Wall::now(self.views.clock.now());
        let recovering = self.recovering();
        let wanted = self.wanted(&in_force, which)?;
        let (mut counts, mut sources) = (BTreeMap::new(), None);
        if all {
            let ids: Vec<(PeerId, Afi)> =
                in_force.peers.iter().map(|entry| (entry.id, entry.peer.key.afi)).collect();
            counts = self.views.counts.peers(&ids).await?;
            sources = self.views.counts.sources(self.afi).await?;
        }
        let own = protocols::own(&wall.short(Millis(0)), recovering, sources.as_ref());
        protocols::header(reply);
        let named = |protocol: &&Protocol| wanted.contains(&protocol.name);
        own.iter().filter(named).for_each(|own| protocols::protocol(reply, own, all));
        for entry in self.entries(&in_force).filter(|entry| wanted.contains(&entry.peer.name)) {
            let row = sessions::session(entry, counts.get(&entry.id).copied(), recovering, &wall);
            protocols::protocol(reply, &row, all);
        }
        reply.done();
        Ok(())
    }

    /// The names that are meant (CTL-21).
    fn wanted(&self, in_force: &InForce, which: &Which) -> Result<Vec<String>, CommandFault> {
        let own = [STATIC, KERNEL, "device1", DIRECT].map(String::from);
        let names = own.into_iter().chain(self.entries(in_force).map(|entry| entry.peer.name.clone()));
        let found: Vec<String> = names
            .filter(|name| match which {
                Which::All => true,
                Which::Name(wanted) => wanted == name,
                Which::Pattern(pattern) => command::matches(pattern, name),
            })
            .collect();
        match which {
            Which::Name(name) if found.is_empty() => {
                Err(CommandFault::new(code::NO_PROTOCOL, format!("{name} is not a protocol")))
            }
            _ if found.is_empty() => Err(CommandFault::new(8003, "No protocols match")),
            _ => Ok(found),
        }
    }

    fn names(&self, which: &Which) -> Result<Vec<String>, CommandFault> {
        self.wanted(&self.views.in_force.borrow().clone(), which)
    }

    /// There is no file to read: the last snapshot is compiled again, and what is answered is true of that (CTL-28).
    async fn configure(&self, reply: &mut Reply, what: ConfigureCommand) {
        let file = match self.afi {
            Afi::Ipv4 => "/etc/calico/confd/config/bird.cfg",
            Afi::Ipv6 => "/etc/calico/confd/config/bird6.cfg",
        };
        match what {
            ConfigureCommand::Confirm => return reply.last(18, "Reconfiguration confirmed"),
            ConfigureCommand::Undo => reply.line(21, "Undo requested"),
            ConfigureCommand::Check | ConfigureCommand::Now { .. } => {
                reply.line(2, format_args!("Reading configuration from {file}"));
            }
        }
        if let ConfigureCommand::Now { undo } = what {
            if let Some(secs) = undo {
                reply.line(22, format_args!("Undo scheduled in {secs} s"));
            }
            let (answer, done) = oneshot::channel();
            let asked = async {
                // Where nobody configures any more the process is about to end.
                let _ = self.views.again.send(answer).await;
                let _ = done.await;
            };
            if timeout(CONFIGURE, asked).await.is_err() {
                return reply.last(4, "Reconfiguration in progress");
            }
        }
        let waiting = self.views.in_force.borrow().waiting_for.clone();
        match (waiting, what) {
            (Some(why), _) => reply.last(8002, format_args!("datastore: {why}")),
            (None, ConfigureCommand::Check) => reply.last(20, "Configuration OK"),
            (None, _) => reply.last(3, "Reconfigured"),
        }
    }

    async fn reload(
        &self,
        reply: &mut Reply,
        inward: bool,
        outward: bool,
        which: &Which,
    ) -> Result<(), Trouble> {
        let in_force = self.views.in_force.borrow().clone();
        let wanted = self.wanted(&in_force, which)?;
        for entry in self.entries(&in_force).filter(|entry| wanted.contains(&entry.peer.name)) {
            let can = entry.view.borrow().can_refresh();
            let name = &entry.peer.name;
            if inward && !can {
                reply.line(8006, format_args!("{name}: reload failed"));
                continue;
            }
            if inward {
                self.views
                    .core
                    .urgent
                    .send(Urgent::Refresh(entry.id, self.afi))
                    .await
                    .map_err(|_| CoreGone)?;
            }
            if outward {
                self.views
                    .core
                    .urgent
                    .send(Urgent::Resend(entry.id, self.afi))
                    .await
                    .map_err(|_| CoreGone)?;
            }
            reply.line(15, format_args!("{name}: reloading"));
        }
        reply.done();
        Ok(())
    }

    async fn routes(&self, query: &RouteQuery, talk: &mut Talk) -> Result<(), Trouble> {
        let in_force = self.views.in_force.borrow().clone();
        let afi = self.afi;
        let names = self.wanted(&in_force, &Which::All)?;
        let asked = [query.protocol.as_ref(), query.export.as_ref().map(|(_, name)| name)];
        if let Some(name) = asked.into_iter().flatten().find(|name| !names.contains(name)) {
            return Err(CommandFault::new(code::SYNTAX, format!("{name} is not a protocol")).into());
        }
        let to = query.export.as_ref().and_then(|(_, name)| {
            in_force.peers.iter().find(|entry| entry.peer.name == *name).map(|entry| entry.id)
        });
        let wall = Wall::now(self.views.clock.now());
        let (mut peers, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        for entry in self.entries(&in_force) {
            let (peer, view) = (&entry.peer, entry.view.borrow());
            let since = view.status.as_ref().map_or(Millis(0), |status| status.since);
            peers.insert(peer.name.clone(), PeerOfRoutes { addr: peer.spec.transport.peer, since });
            let client = peer.treatment.rr_client.is_some();
            kinds.insert(peer.name.clone(), PeerKind { internal: peer.treatment.internal, client });
        }
        let fib = self.views.fib.borrow().clone();
        let rows = Rows { wall: &wall, peers: &peers, fib: &fib, plain: query.is_plain(), all: query.all };
        let mut listing = RouteListing::new(query, &kinds);
        let mut after = None;
        loop {
            let what = query.what;
            let page = self.views.core.look(move |core| {
                let page: Vec<RouteStatus> = match what {
                    Destinations::All => core.routes(afi, after, PAGE),
                    Destinations::Exact(prefix) => core.route(prefix).into_iter().collect(),
                    Destinations::For(host) => core.route_for(host).into_iter().collect(),
                };
                let sent = |route: &RouteStatus| to.map_or_else(Vec::new, |to| core.sent(to, route.prefix));
                page.into_iter().map(|route| (sent(&route), route)).collect::<Vec<_>>()
            });
            let page = page.await?;
            for (sent, route) in &page {
                listing.destination(&mut talk.reply, &rows, route, sent);
            }
            after = page.last().map(|(_, route)| route.prefix);
            if what != Destinations::All || page.len() < PAGE {
                break;
            }
            talk.send().await?;
        }
        listing.end(&mut talk.reply);
        Ok(())
    }
}
