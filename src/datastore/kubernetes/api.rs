//! One client of the API server for all that is followed.
//!
//! Owns: [`Api`]: how the server is reached (DS-5; files are read again for each client, and a new client is made after
//! each loss, so that rotated certificates and tokens count), requests spaced on our side, over one HTTP/2 connection
//! whose silent end is noticed by pings (O4); what an answer other than 200 means. Never: knows what is asked for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response, StatusCode};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube_client::client::{Body, ClientBuilder, ConfigExt as _};
use kube_client::config::{AuthInfo, Kubeconfig};
use kube_client::{Client, Config};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tower::{BoxError, ServiceBuilder};

use super::items::Unreadable;
use crate::datastore::settings::KubernetesSettings;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take to begin, and each further piece of a list.
pub const ANSWER: Duration = Duration::from_secs(60);
/// Of a refusal's text, as much is read.
const REFUSAL: usize = 64 << 10;
/// Between the nodes of a cluster, that is what one gets of the time over which they come back (O10).
const SPREAD_OF_A_NODE: Duration = Duration::from_millis(10);
/// Shortest and longest time over which nodes come back that lost the API server together.
const SPREAD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Why there is no answer, or no use in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The server cannot be reached, or falls silent.
    #[error("{server}: {why}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// Why.
        why: String,
    },
    /// It answers otherwise.
    #[error("{server}: {why} (HTTP {status})")]
    Refused {
        /// Its URL.
        server: String,
        /// HTTP status.
        status: u16,
        /// In its words.
        why: String,
        /// It asks to be left alone for so long.
        retry_after: Option<Duration>,
    },
    /// What was asked for begins at a revision that it does not have any more (HTTP 410), or not yet.
    #[error("{server}: {why}")]
    Expired {
        /// Its URL.
        server: String,
        /// In its words.
        why: String,
    },
}

impl Failure {
    /// That what this server sends cannot be read.
    pub fn malformed(server: &str, error: &Unreadable) -> Failure {
        Failure::Unreachable { server: server.to_owned(), why: error.to_string() }
    }

    /// What a Status stands for that a watch has in the place of a resource.
    pub fn of_status(server: &str, object: Map<String, Value>) -> Failure {
        let status = Status::deserialize(Value::Object(object)).unwrap_or_default();
        failure(server.to_owned(), status, None)
    }

    /// The HTTP status, where there is an answer.
    pub fn status(&self) -> Option<u16> {
        if let Failure::Refused { status, .. } = self { Some(*status) } else { None }
    }
}

/// The fields of a Status that say what is wrong.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
}

/// Lets so many requests pass in a time, and some at once.
#[derive(Debug)]
struct Limiter {
    interval: Duration,
    burst: u32,
    /// When the next one would be due, had none been allowed to go ahead.
    due: std::sync::Mutex<Instant>,
}

impl Limiter {
    fn new(interval: Duration, burst: u32) -> Self {
        Limiter { interval, burst, due: std::sync::Mutex::new(Instant::now()) }
    }

    /// How long the next request has to wait.
    fn reserve(&self, now: Instant) -> Duration {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(now) + self.interval;
        let ahead = self.interval * self.burst;
        due.saturating_duration_since(now).saturating_sub(ahead)
    }
}

/// A client with its number.
#[derive(Default)]
struct Current {
    client: Option<Client>,
    server: String,
    number: u64,
}

/// The API server.
pub struct Api {
    settings: KubernetesSettings,
    current: Mutex<Current>,
    limiter: Limiter,
    /// Nodes of the cluster.
    pub nodes: AtomicUsize,
    /// Watches that are open.
    pub open: AtomicUsize,
    /// The latest revision heard of anything.
    latest: AtomicI64,
    /// The last request had no answer.
    down: AtomicBool,
    /// Counts the times that it answered again.
    returned: watch::Sender<u64>,
}

impl Api {
    /// Not connected yet.
    pub fn new(settings: KubernetesSettings) -> Self {
        // Who comes second finds the same there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let limiter = Limiter::new(settings.interval, settings.burst);
        Api {
            settings,
            current: Mutex::default(),
            limiter,
            nodes: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            latest: AtomicI64::new(0),
            down: AtomicBool::new(false),
            returned: watch::Sender::new(0),
        }
    }

    /// How it is reached.
    pub fn settings(&self) -> &KubernetesSettings {
        &self.settings
    }

    /// Takes note of a revision; the latest of all.
    pub fn heard(&self, version: &str) -> Option<i64> {
        let version = version.parse().unwrap_or(0);
        let latest = self.latest.fetch_max(version, Ordering::Relaxed).max(version);
        (latest > 0).then_some(latest)
    }

    /// Over which time nodes come back that lost the API server together: more nodes, more time.
    pub fn spread(&self) -> Duration {
        let nodes = u32::try_from(self.nodes.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        SPREAD_OF_A_NODE.saturating_mul(nodes).clamp(SPREAD.0, SPREAD.1)
    }

    /// Asks for a path with its query; the answer's body is still to come.
    ///
    /// # Errors
    ///
    /// Where there is no answer, or another than 200.
    pub async fn get(&self, path: &str) -> Result<Incoming, Failure> {
        let wait = self.limiter.reserve(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
        let answer = self.ask(path).await;
        let down = matches!(answer, Err(Failure::Unreachable { .. }));
        if self.down.swap(down, Ordering::Relaxed) && !down {
            self.returned.send_modify(|count| *count += 1);
        }
        answer
    }

    /// Says when the server answers again that was out of reach.
    pub fn returned(&self) -> watch::Receiver<u64> {
        self.returned.subscribe()
    }

    async fn ask(&self, path: &str) -> Result<Incoming, Failure> {
        let (client, server, number) = self.client().await?;
        let unreachable = |why: String| Failure::Unreachable { server: server.clone(), why };
        let request =
            Request::get(path).body(Body::empty()).map_err(|error| unreachable(error.to_string()))?;
        let response = match timeout(ANSWER, client.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.discard(number).await;
                return Err(unreachable(chain(&error)));
            }
            Err(_) => {
                self.discard(number).await;
                return Err(unreachable(format!("no answer within {} s", ANSWER.as_secs())));
            }
        };
        if response.status() == StatusCode::OK {
            return Ok(Incoming { body: response.into_body(), server, number });
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            // The token may have been changed since it was read.
            self.discard(number).await;
        }
        Err(refusal(server, response).await)
    }

    /// The client at hand, or a new one.
    async fn client(&self) -> Result<(Client, String, u64), Failure> {
        let mut current = self.current.lock().await;
        if let Some(client) = &current.client {
            return Ok((client.clone(), current.server.clone(), current.number));
        }
        let settings = self.settings.clone();
        // Files are read, and a program of the kubeconfig may be run.
        let made = tokio::task::spawn_blocking(move || connect(&settings)).await;
        let made = made.unwrap_or_else(|error| Err(error.to_string()));
        let (client, server) =
            made.map_err(|why| Failure::Unreachable { server: self.settings.to_string(), why })?;
        current.client = Some(client.clone());
        current.server = server;
        current.number += 1;
        Ok((client, current.server.clone(), current.number))
    }

    /// The next request makes a new client, if this one is still at hand.
    async fn discard(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.client = None;
        }
    }

    /// The next piece of a body; `None` at its end.
    ///
    /// # Errors
    ///
    /// Where the connection ends or is silent for too long.
    pub async fn piece(&self, answer: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, Failure> {
        let why = loop {
            match timeout(patience, answer.body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => continue,
                },
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => break chain(&error),
                Err(_) => break format!("no sign of life for {} s", patience.as_secs_f32().round()),
            }
        };
        self.discard(answer.number).await;
        Err(Failure::Unreachable { server: answer.server.clone(), why })
    }
}

/// An answer whose body is still to come.
pub struct Incoming {
    body: Body,
    /// Who answers.
    pub server: String,
    number: u64,
}

async fn refusal(server: String, response: Response<Body>) -> Failure {
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let read = async {
        let mut body = body;
        let mut text = Vec::new();
        while text.len() < REFUSAL
            && let Some(Ok(frame)) = body.frame().await
        {
            text.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        }
        text
    };
    let text = timeout(CONNECT, read).await.unwrap_or_default();
    let mut status: Status = serde_json::from_slice(&text).unwrap_or_else(|_| {
        // A kind that is not served is answered in plain text.
        let line = String::from_utf8_lossy(&text);
        let line = line.lines().next().unwrap_or_default().trim();
        Status { message: line.chars().take(200).collect(), ..Status::default() }
    });
    status.code = head.status.as_u16();
    failure(server, status, retry_after)
}

fn failure(server: String, status: Status, retry_after: Option<Duration>) -> Failure {
    let Status { code, reason, message } = status;
    let message: String = message.chars().filter(|c| !c.is_control()).collect();
    let why = match (message.is_empty(), reason.is_empty()) {
        (false, _) => message,
        (true, false) => reason.clone(),
        (true, true) => "refused without a reason".to_owned(),
    };
    let too_large = why.contains("Too large resource version");
    if code == StatusCode::GONE.as_u16() || matches!(reason.as_str(), "Expired" | "Gone") || too_large {
        return Failure::Expired { server, why };
    }
    Failure::Refused { server, status: code, why, retry_after }
}

/// An error with those that led to it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    // The client's word for what its parts say.
    if let Some(part) = text.strip_prefix("ServiceError: ") {
        text = part.to_owned();
    }
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    // rustls adds where to read on.
    text.split(": https://docs.rs/").next().unwrap_or_default().to_owned()
}

/// A client by the settings, and the server's URL. Blocks.
fn connect(settings: &KubernetesSettings) -> Result<(Client, String), String> {
    let config = config(settings)?;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(settings.liveness.ask_after));
    let tls = config.rustls_client_config().map_err(|error| chain(&error))?;
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(|error| format!("tls-server-name {name:?}: {error}"))?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = https.enable_all_versions().wrap_connector(http);
    let transport = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(settings.liveness.ask_after)
        .http2_keep_alive_timeout(settings.liveness.answer_within)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let authorize = config.auth_layer().map_err(|error| chain(&error))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(authorize)
        .layer(config.extra_headers_layer().map_err(|error| chain(&error))?)
        .map_err(BoxError::from)
        .service(transport);
    Ok((ClientBuilder::new(service, config.default_namespace).build(), server))
}

/// By which of the ways (DS-5): files of KUBECONFIG, the home folder's, or as a pod.
fn config(settings: &KubernetesSettings) -> Result<Config, String> {
    let home = settings.home.as_ref().filter(|path| {
        settings.kubeconfig.is_empty()
            && settings.endpoint.is_none()
            && settings.in_cluster.is_none()
            && path.is_file()
    });
    let files: Vec<&PathBuf> = settings.kubeconfig.iter().chain(home).collect();
    let mut config = if files.is_empty() { in_cluster(settings)? } else { by_files(settings, &files)? };
    if let Some(endpoint) = &settings.endpoint {
        config.cluster_url = endpoint.parse().map_err(|error| format!("{endpoint}: {error}"))?;
    }
    if let Some(ca) = &settings.ca_file {
        let text = read(ca)?;
        let certificates = certificates(&text).map_err(|why| format!("{}: {why}", ca.display()))?;
        config.root_cert = Some(certificates);
        config.root_cert_file = Some(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) {
        let path = |path: &Path| Some(path.to_string_lossy().into_owned());
        let auth = &mut config.auth_info;
        (auth.client_certificate, auth.client_certificate_data) = (path(cert), None);
        (auth.client_key, auth.client_key_data) = (path(key), None);
    }
    if let Some(token) = &settings.token {
        let token = serde_json::json!({ "token": token.as_str() });
        let AuthInfo { token, .. } = AuthInfo::deserialize(token).map_err(|error| error.to_string())?;
        (config.auth_info.token, config.auth_info.token_file) = (token, None);
    }
    config.accept_invalid_certs |= settings.insecure;
    Ok(config)
}

fn by_files(settings: &KubernetesSettings, files: &[&PathBuf]) -> Result<Config, String> {
    let mut merged: Option<Kubeconfig> = None;
    for path in files {
        let next = match Kubeconfig::read_from(path) {
            Ok(next) => next,
            // As kubectl does: of several, one that is not there says nothing.
            Err(_) if files.len() > 1 && !path.exists() => continue,
            Err(error) => return Err(chain(&error)),
        };
        merged = Some(match merged {
            None => next,
            Some(before) => before.merge(next).map_err(|error| chain(&error))?,
        });
    }
    let mut kubeconfig = merged.ok_or("none of the files of KUBECONFIG is there")?;
    if let Some(context) = &settings.context {
        kubeconfig.current_context = Some(context.clone());
    }
    Config::try_from(kubeconfig).map_err(|error| chain(&error))
}

/// As a pod: by its environment and its service account; with `K8S_API_ENDPOINT` also outside.
fn in_cluster(settings: &KubernetesSettings) -> Result<Config, String> {
    let server = match (&settings.endpoint, &settings.in_cluster) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some((host, port))) if host.contains(':') => format!("https://[{host}]:{port}"),
        (None, Some((host, port))) => format!("https://{host}:{port}"),
        (None, None) => {
            return Err("nothing says where the API server is: KUBECONFIG, K8S_API_ENDPOINT and \
                        KUBERNETES_SERVICE_HOST are not set"
                .to_owned());
        }
    };
    let mut config = Config::new(server.parse().map_err(|error| format!("{server}: {error}"))?);
    let (token, ca) = (settings.service_account.join("token"), settings.service_account.join("ca.crt"));
    // Who names the server and is no pod, or says who he is, has other means.
    let is_somebody = settings.token.is_some() || settings.cert_file.is_some();
    if !is_somebody && (settings.endpoint.is_none() || token.is_file()) {
        read(&token)?;
        config.auth_info.token_file = Some(token.to_string_lossy().into_owned());
    }
    if settings.ca_file.is_none() && !settings.insecure && (settings.endpoint.is_none() || ca.is_file()) {
        let text = read(&ca)?;
        config.root_cert = Some(certificates(&text).map_err(|why| format!("{}: {why}", ca.display()))?);
        config.root_cert_file = Some(ca);
    }
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// The certificates of a PEM text.
fn certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text).map(|found| found.map(|der| der.as_ref().to_vec())).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(found) }
}

/// All that follow share one.
pub type SharedApi = Arc<Api>;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_burst_are_spaced() {
        let limiter = Limiter::new(Duration::from_millis(200), 3);
        let start = Instant::now();
        let waits: Vec<u128> = (0..6).map(|_| limiter.reserve(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 200, 400, 600]);
        let later = start + Duration::from_secs(60);
        let waits: Vec<u128> = (0..4).map(|_| limiter.reserve(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 200], "a quiet hour does not make a larger burst");
    }

    #[test]
    fn an_expired_revision_is_known_by_each_of_its_wordings() {
        let of = |code, reason: &str, message: &str| {
            failure("s".into(), Status { code, reason: reason.into(), message: message.into() }, None)
        };
        for expired in [
            of(410, "Expired", "too old resource version: 1 (279)"),
            of(410, "Gone", ""),
            of(504, "Timeout", "Too large resource version: 9, current: 1"),
        ] {
            assert!(matches!(expired, Failure::Expired { .. }), "{expired}");
        }
        let refused = of(403, "Forbidden", "nodes is forbidden\u{1b}[0m");
        assert_eq!(
            (refused.status(), refused.to_string()),
            (Some(403), "s: nodes is forbidden[0m (HTTP 403)".into())
        );
    }

    #[tokio::test]
    async fn more_nodes_come_back_over_more_time() {
        let var = |_: &str| String::new();
        let api = Api::new(KubernetesSettings::from_env(&|_| None, &var).unwrap());
        let spread = |nodes| {
            api.nodes.store(nodes, Ordering::Relaxed);
            api.spread()
        };
        assert_eq!(spread(3), Duration::from_millis(500));
        assert_eq!(spread(200), Duration::from_secs(2));
        assert_eq!(spread(5000), Duration::from_secs(10));
    }
}
