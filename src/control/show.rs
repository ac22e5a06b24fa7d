//! `calico-bgpd show` and `refresh`: asks the daemon and prints tables, or JSON.
//!
//! Owns: the client's side of the socket and the layout of tables. Nobody parses these; programs take `--json`.
//! Never: reads the daemon's files or memory.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SOCKET;
use super::answer::{
    Answer, KernelPage, KernelRouteAnswer, Page, PeerAnswer, RefreshRequest, Refreshed, Request, Route,
    ShowRequest, StatusAnswer,
};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// No daemon, or none that this user may ask.
    #[error("{}", if source.kind() == io::ErrorKind::PermissionDenied {
        format!("{} is not for this user to ask; root may", path.display())
    } else {
        format!("nobody answers at {}: is calico-bgpd running, with this run directory?", path.display())
    })]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon is stopped, or too busy to answer.
    #[error("the daemon does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The daemon went away, or the answer is no answer.
    #[error("the daemon's answer cannot be read: {0}")]
    Answer(String),
    /// The daemon says why it cannot answer.
    #[error("{0}")]
    Refused(String),
}

/// One connection to the daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
    patience: Duration,
}

impl Client {
    /// Connects to the daemon of this run directory.
    pub fn connect(run_dir: &Path) -> Result<Client, ShowError> {
        Client::connect_with(run_dir, PATIENCE)
    }

    fn connect_with(run_dir: &Path, patience: Duration) -> Result<Client, ShowError> {
        let path = run_dir.join(SOCKET);
        let connect = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Client { stream: BufReader::new(stream), patience }),
            Err(source) => Err(ShowError::Connect { path, source }),
        }
    }

    /// Asks.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ShowError> {
        let broken = |error: &dyn std::fmt::Display| ShowError::Answer(error.to_string());
        let patience = self.patience;
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ShowError::Silent(patience),
            _ => broken(&error),
        };
        let mut line = serde_json::to_string(request).map_err(|e| broken(&e))?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).map_err(lost)?;
        let mut answer = String::new();
        (&mut self.stream).take(MAX_ANSWER).read_line(&mut answer).map_err(lost)?;
        match serde_json::from_str(&answer).map_err(|e| broken(&e))? {
            Answer::Error(why) => Err(ShowError::Refused(why)),
            answer => Ok(answer),
        }
    }

    /// All sessions.
    pub fn peers(&mut self) -> Result<Vec<PeerAnswer>, ShowError> {
        match self.ask(&Request::Show(ShowRequest::Peers))? {
            Answer::Peers(peers) => Ok(peers),
            _ => Err(ShowError::Answer("it answers another question".into())),
        }
    }

    /// All routes of a family, page by page.
    pub fn routes(&mut self, family: &str) -> Result<Vec<Route>, ShowError> {
        let mut routes = Vec::new();
        let mut after = None;
        loop {
            let request = Request::Show(ShowRequest::Routes { family: family.to_string(), after });
            let Answer::Routes(Page { routes: page, next }) = self.ask(&request)? else {
                return Err(ShowError::Answer("it answers another question".into()));
            };
            routes.extend(page);
            match next {
                Some(_) => after = next,
                None => return Ok(routes),
            }
        }
    }

    /// What is wanted of the kernel in a family and what is there, page by page.
    pub fn kernel(&mut self, family: &str) -> Result<Vec<KernelRouteAnswer>, ShowError> {
        let mut routes = Vec::new();
        let mut after = None;
        loop {
            let request = Request::Show(ShowRequest::Kernel { family: family.to_string(), after });
            let Answer::KernelRoutes(KernelPage { routes: page, next }) = self.ask(&request)? else {
                return Err(ShowError::Answer("it answers another question".into()));
            };
            routes.extend(page);
            match next {
                Some(_) => after = next,
                None => return Ok(routes),
            }
        }
    }

    /// The daemon's state.
    pub fn status(&mut self) -> Result<StatusAnswer, ShowError> {
        match self.ask(&Request::Show(ShowRequest::Status))? {
            Answer::Status(status) => Ok(*status),
            _ => Err(ShowError::Answer("it answers another question".into())),
        }
    }

    /// Has the session of this name or address, or `all`, ask its peer for its routes again.
    pub fn refresh(&mut self, peer: &str) -> Result<Vec<Refreshed>, ShowError> {
        match self.ask(&Request::Refresh(RefreshRequest { peer: peer.to_string() }))? {
            Answer::Refreshed(answers) => Ok(answers),
            _ => Err(ShowError::Answer("it answers another question".into())),
        }
    }
}

/// Seconds as people say them: `42s`, `12m03s`, `5h20m`, `3d04h`.
pub fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d{:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// A table with a heading; columns as wide as they must be.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            let _ = write!(row, "{cell:<width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(&mut heading.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

/// `show kernel`.
pub fn kernel_table(routes: &[KernelRouteAnswer]) -> String {
    let rows: Vec<Vec<String>> = routes
        .iter()
        .map(|route| {
            let there = if route.actual.is_empty() { "-".to_string() } else { route.actual.join("; ") };
            vec![
                route.prefix.clone(),
                route.state.clone(),
                route.desired.clone().unwrap_or_else(|| "-".to_string()),
                there,
                route.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["PREFIX", "STATE", "WANTED", "THERE", "REASON"], &rows)
}

/// `refresh`: a line for each session.
pub fn refresh_text(answers: &[Refreshed]) -> String {
    answers.iter().fold(String::new(), |mut text, answer| {
        let said = answer.refused.as_deref().unwrap_or("asked for its routes");
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}: {said}", answer.name);
        text
    })
}

/// `show peers`.
pub fn peers_table(peers: &[PeerAnswer]) -> String {
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|peer| {
            vec![
                peer.name.clone(),
                peer.address.clone(),
                peer.as_number.to_string(),
                peer.family.clone(),
                peer.state.clone(),
                age(peer.since_seconds),
                number(peer.accepted.or(peer.received)),
                number(peer.sent),
                peer.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    table(&["NAME", "ADDRESS", "AS", "FAMILY", "STATE", "SINCE", "IN", "OUT", "REASON"], &rows)
}

/// `show peers NAME`: everything of one session.
pub fn peer_text(peer: &PeerAnswer) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{what:<20}{value}");
        }
    };
    line("name", peer.name.clone());
    line("asked for by", peer.resource.clone());
    line("address", format!("{} port {}", peer.address, peer.port));
    line("AS", format!("{} (ours {})", peer.as_number, peer.local_as_number));
    line("family", peer.family.clone());
    line("state", format!("{} for {}", peer.state, age(peer.since_seconds)));
    line("dialled by", if peer.passive { "the peer only".into() } else { String::new() });
    line("reason", peer.reason.clone().unwrap_or_default());
    line("our address", peer.local_address.clone().unwrap_or_default());
    line("router id", peer.router_id.clone().unwrap_or_default());
    line("hold time", peer.hold_time.map(|t| format!("{t}s")).unwrap_or_default());
    line("graceful restart", peer.graceful_restart.map(|on| on.to_string()).unwrap_or_default());
    line("routes kept for", peer.routes_kept_seconds.map(age).unwrap_or_default());
    line(
        "routes",
        format!(
            "{} received, {} accepted, {} sent",
            number(peer.received),
            number(peer.accepted),
            number(peer.sent)
        ),
    );
    line("faulty updates", peer.faulty_updates.to_string());
    line("attempts", format!("{} dials, {} times established", peer.dials, peer.established));
    for event in &peer.events {
        line("event", format!("{} ago: {}", age(event.age_seconds), event.text));
    }
    text
}

/// `show routes`.
pub fn routes_table(routes: &[Route]) -> String {
    let rows: Vec<Vec<String>> = routes
        .iter()
        .map(|route| {
            let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            vec![
                if route.best { "*".into() } else { String::new() },
                route.prefix.clone(),
                or_dash(&route.via),
                or_dash(&route.dev),
                number(route.metric.map(u64::from)),
                route.peer.clone().unwrap_or_else(|| route.source.clone()),
                route.state.clone(),
            ]
        })
        .collect();
    table(&["", "PREFIX", "VIA", "DEV", "METRIC", "SOURCE", "STATE"], &rows)
}

/// `show status`.
pub fn status_text(status: &StatusAnswer) -> String {
    let mut text = String::new();
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known yet".into());
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<20}{value}");
    };
    line("calico-bgpd", format!("{}, running for {}", status.version, age(status.uptime_seconds)));
    line(
        "node",
        match (&status.router_id, status.as_number) {
            (Some(id), Some(asn)) => format!("{}, AS {asn}, router id {id}", status.node),
            _ => format!("{}, not configured yet", status.node),
        },
    );
    line(
        "Calico release",
        match &status.release_source {
            Some(source) => format!("{} ({source})", known(&status.release)),
            None => known(&status.release),
        },
    );
    line("phase", status.phase.clone());
    let datastore = &status.datastore;
    let sync = if datastore.in_sync { "in sync" } else { "not in sync" };
    line("datastore", format!("{} for {}, {sync}", datastore.state, age(datastore.since_seconds)));
    if let Some(error) = &datastore.last_error {
        line("last error", error.clone());
    }
    if let Some(known) = datastore.known_age_seconds.filter(|_| datastore.state != "connected") {
        line("known as of", format!("{} ago", age(known)));
    }
    if let Some(written) = datastore.from_disk_age_seconds {
        line("in force", format!("the last good state of an earlier run, kept on disk {} ago", age(written)));
    }
    if datastore.locked {
        line(
            "locked",
            "ClusterInformation/default: spec.datastoreReady is false; nothing changes meanwhile".into(),
        );
    }
    for loss in &datastore.unconfirmed {
        let left = age(loss.in_seconds);
        line("unconfirmed", format!("{} lost at once; what stood on that stays for {left} more", loss.what));
    }
    for kind in &datastore.kinds {
        let why = kind.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        line("kind", format!("{} is {}{why}", kind.kind, kind.state));
    }
    if let Some(error) = &datastore.cache_error {
        line("cache", error.clone());
    }
    if let Some(why) = &status.waiting_for {
        line("waiting for", why.clone());
    }
    for what in &status.recovery {
        line("recovery waits for", what.clone());
    }
    let kernel = &status.kernel;
    let mut routes = format!("{} of {} routes as wanted", kernel.installed, kernel.desired);
    if kernel.failed + kernel.conflicts > 0 {
        let _ = write!(routes, ", {} refused, {} in conflict", kernel.failed, kernel.conflicts);
    }
    if !kernel.connected {
        routes = format!("not reached: {}", kernel.last_error.clone().unwrap_or_default());
    }
    line("kernel", routes);
    line("generation", status.generation.to_string());
    for listen in &status.listen {
        let what = listen.address.clone().or_else(|| listen.error.clone()).unwrap_or_default();
        line("listening", what);
    }
    line("peers", format!("{} of {} established", status.peers_established, status.peers));
    if status.strangers > 0 {
        line("unknown callers", status.strangers.to_string());
    }
    for problem in &status.problems {
        let said = problem.to_string();
        let said = said.strip_prefix(&format!("{}: ", problem.severity)).unwrap_or(&said);
        line(&problem.severity, said.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_may_not_be_asked_is_not_taken_for_a_daemon_that_is_not_there() {
        let line = |kind: io::ErrorKind| {
            ShowError::Connect { path: "/run/x.sock".into(), source: kind.into() }.to_string()
        };
        assert_eq!(
            line(io::ErrorKind::PermissionDenied),
            "/run/x.sock is not for this user to ask; root may"
        );
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            assert!(line(kind).starts_with("nobody answers at /run/x.sock: "), "{kind}");
        }
    }

    #[test]
    fn a_daemon_that_is_stopped_is_said_not_to_answer() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let mut client = Client::connect_with(dir.path(), Duration::from_millis(20)).unwrap();
        let error = client.status().err().unwrap();
        assert!(matches!(error, ShowError::Silent(_)), "{error}");
        assert_eq!(ShowError::Silent(PATIENCE).to_string(), "the daemon does not answer within 30 s");
    }

    #[test]
    fn ages_are_short() {
        let texts = [0, 59, 60, 3599, 3600, 86_399, 86_400, 90_061].map(age);
        assert_eq!(texts, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "1d01h"]);
    }

    #[test]
    fn a_table_is_aligned_and_has_no_blanks_at_line_ends() {
        let peer = PeerAnswer {
            name: "Mesh_192_0_2_1".into(),
            address: "192.0.2.1".into(),
            as_number: 64512,
            family: "ipv4".into(),
            state: "Active".into(),
            reason: Some("connection refused".into()),
            ..PeerAnswer::default()
        };
        let up = PeerAnswer { reason: None, sent: Some(3), state: "Established".into(), ..peer.clone() };
        let text = peers_table(&[peer, up]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("STATE"), lines[1].find("Active"));
        assert_eq!(lines[0].find("REASON"), lines[1].find("connection"));
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text}");
    }
}
