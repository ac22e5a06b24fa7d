//! A connection to one etcd, and what can be asked over it.
//!
//! Owns: [`EtcdLink`]: connecting, one page of a list, whether the history is the one that was followed, what this
//! etcd's progress answers are worth. [`Ended`]: why a connection came to its end, in one line. Never: keeps anything.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, KeyValue, SortOrder, SortTarget, TlsOptions,
};
use tokio::time::timeout;

use super::history::{EtcdHistory, KeyVersion, Mark, entry};
use crate::datastore::settings::EtcdSettings;
use crate::datastore::tls::TlsSettings;
use crate::model::store::SourceEntry;

/// For connecting and for each answer (DS-4).
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// What etcd says to who brings a password where it asks for none.
const NO_USERS: &str = "authentication is not enabled";
/// Keys asked for at a time.
const PAGE: i64 = 500;
/// Largest message taken: a page of values, or the events of one revision. etcd's own values end at 1.5 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Why a connection to etcd came to its end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("{endpoint}: {}", reason(.error))]
    Etcd { endpoint: String, error: etcd_client::Error },
    /// Somebody is there, who does not speak as etcd does without TLS.
    #[error("{endpoint}: {}; {ask}", reason(.error))]
    Strange { endpoint: String, error: etcd_client::Error, ask: &'static str },
    /// What TLS needs is not there.
    #[error("{endpoint}: {why}")]
    Unsecured { endpoint: String, why: String },
    #[error("{endpoint}: {}, for {prefix}", reason(.error))]
    Denied { endpoint: String, error: etcd_client::Error, prefix: String },
    #[error("{endpoint}: {what} took longer than {} s", TIMEOUT.as_secs())]
    Late { endpoint: String, what: &'static str },
    #[error("{endpoint}: the watch ended: {why}")]
    Watch { endpoint: String, why: String },
    /// The history that the watch needs is gone: everything is listed again.
    #[error("{endpoint}: etcd no longer has the changes after revision {from}")]
    Compacted { endpoint: String, from: i64 },
}

/// What people need of an error: what was refused, and the system's own word for it.
pub fn reason(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut last = std::error::Error::source(status);
    while let Some(deeper) = last.and_then(std::error::Error::source) {
        last = Some(deeper);
    }
    match last.map(ToString::to_string) {
        Some(cause) if !cause.contains(status.message()) => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// What the answer to a progress request means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Progress {
    /// Before 3.4 there is none.
    #[default]
    None,
    /// It is a sign of life; events that it counts as told may still be on their way (before 3.4.25 and 3.5.8).
    Alive,
    /// Everything up to its revision has been told.
    Barrier,
}

impl Progress {
    /// By etcd's version; one that cannot be told is taken for an old one.
    pub fn of_version(version: &str) -> Progress {
        let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        match (next(), next(), next()) {
            (0, ..) => Progress::Alive,
            (3, 0..=3, _) | (1..=2, ..) => Progress::None,
            (3, 4, patch) if patch < 25 => Progress::Alive,
            (3, 5, patch) if patch < 8 => Progress::Alive,
            _ => Progress::Barrier,
        }
    }
}

/// Whether the history is the one that was followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It is, and nothing of it is missing.
    Same,
    /// It is; what lies before its last compaction is gone.
    Compacted,
    /// It is another one, or cannot be told.
    Other,
}

/// A connection to one endpoint.
pub struct EtcdLink {
    /// Its URL.
    pub endpoint: String,
    /// The client.
    pub client: Client,
    /// It has answered as etcd does.
    answered: bool,
}

impl EtcdLink {
    /// Connects to an endpoint, with its user where there is one.
    pub async fn connect(endpoint: &str, settings: &EtcdSettings) -> Result<EtcdLink, Ended> {
        let mut options = ConnectOptions::new()
            .with_auto_token_refresh(true)
            .with_connect_timeout(TIMEOUT)
            .with_keep_alive(settings.liveness.ask_after, settings.liveness.answer_within)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if is_https(endpoint) {
            let tls = tls(&settings.tls);
            options =
                options.with_tls(tls.map_err(|why| Ended::Unsecured { endpoint: endpoint.to_owned(), why })?);
        }
        let connect =
            async |options| within(endpoint, "connecting", Client::connect([endpoint], Some(options))).await;
        let client = match &settings.user {
            None => connect(options).await?,
            Some((name, password)) => match connect(options.clone().with_user(name, password)).await {
                // Users may be set up before, or after, etcd is told to ask for them; Calico's client goes on as well.
                Err(Ended::Etcd { error: etcd_client::Error::GRpcStatus(status), .. })
                    if status.message().contains(NO_USERS) =>
                {
                    connect(options).await?
                }
                connected => connected?,
            },
        };
        Ok(EtcdLink { endpoint: endpoint.to_owned(), client, answered: false })
    }

    async fn ask<T>(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Ended> {
        let answer = within(&self.endpoint, what, work).await;
        let answer = if self.answered { answer } else { answer.map_err(strange) };
        self.answered |= answer.is_ok();
        answer
    }

    /// What this etcd's progress answers are worth.
    pub async fn progress(&mut self) -> Progress {
        let mut maintenance = self.client.maintenance_client();
        match self.ask("its version", maintenance.status()).await {
            Ok(status) => Progress::of_version(status.version()),
            Err(_) => Progress::Alive,
        }
    }

    /// Whether etcd still has the history that was followed, in the cluster of that id, and its present revision.
    ///
    /// # Errors
    ///
    /// Where etcd does not answer.
    pub async fn knows(&mut self, history: &EtcdHistory, cluster: u64) -> Result<(Known, i64), Ended> {
        // No other key may be asked for: our user may be let in where Calico's keys are, and nowhere else.
        let Some(mark) = history.mark() else { return Ok((Known::Other, 0)) };
        let mut kv = self.client.kv_client().max_decoding_message_size(MAX_MESSAGE);
        let then = kv.get(mark.key.as_slice(), Some(GetOptions::new().with_revision(mark.revision)));
        let (answer, compacted) = match self.ask("the first answer", then).await {
            Ok(answer) => (answer, false),
            // Its history ends before: it cannot be ours.
            Err(Ended::Etcd { error: etcd_client::Error::GRpcStatus(status), .. })
                if status.message().contains("future revision") =>
            {
                return Ok((Known::Other, 0));
            }
            Err(ended) => match compacted(ended, mark.revision) {
                Ended::Compacted { .. } => {
                    (self.ask("the first answer", kv.get(mark.key.as_slice(), None)).await?, true)
                }
                other => return Err(other),
            },
        };
        let (now_cluster, revision) =
            answer.header().map_or((0, 0), |header| (header.cluster_id(), header.revision()));
        let found = answer.kvs().first().map(written);
        let same = match compacted {
            false => mark.matches(found),
            true => mark.still_stands(found),
        };
        Ok(match same && now_cluster == cluster && history.revision() <= revision {
            true if compacted => (Known::Compacted, revision),
            true => (Known::Same, revision),
            false => (Known::Other, revision),
        })
    }
}

/// A key-value pair as history has it.
pub fn written(kv: &KeyValue) -> KeyVersion<'_> {
    KeyVersion {
        created: kv.create_revision(),
        revision: kv.mod_revision(),
        version: kv.version(),
        value: kv.value(),
    }
}

/// A list of all prefixes at one revision, in pages.
#[derive(Debug)]
pub struct Listing {
    prefixes: Vec<String>,
    /// Where the next page begins.
    from: Vec<u8>,
    /// Its revision; 0 before the first answer.
    pub revision: i64,
    /// The cluster's id.
    pub cluster: u64,
    /// Keys with their revisions.
    pub keys: BTreeMap<Vec<u8>, i64>,
    /// The key written last.
    pub mark: Option<Mark>,
}

impl Listing {
    /// Of all that is watched.
    pub fn new(history: &EtcdHistory) -> Self {
        let mut prefixes: Vec<String> = history.seen().iter().map(|(prefix, _)| prefix.clone()).collect();
        prefixes.reverse();
        Listing { prefixes, from: Vec::new(), revision: 0, cluster: 0, keys: BTreeMap::new(), mark: None }
    }

    /// The next page; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where etcd does not answer, refuses, or compacts in between.
    pub async fn next(&mut self, link: &mut EtcdLink) -> Result<Option<Vec<SourceEntry>>, Ended> {
        let Some(prefix) = self.prefixes.last().cloned() else { return Ok(None) };
        if self.from.is_empty() {
            self.from = prefix.as_bytes().to_vec();
        }
        let mut kv = link.client.kv_client().max_decoding_message_size(MAX_MESSAGE);
        let options = GetOptions::new()
            .with_range(range_end(prefix.as_bytes()))
            .with_limit(PAGE)
            .with_revision(self.revision)
            .with_sort(SortTarget::Key, SortOrder::Ascend);
        let answer = link.ask("listing", kv.get(self.from.clone(), Some(options))).await;
        let answer = answer.map_err(|ended| denied(compacted(ended, self.revision), &prefix))?;
        if let Some(header) = answer.header()
            && self.revision == 0
        {
            (self.revision, self.cluster) = (header.revision(), header.cluster_id());
        }
        let mut entries = Vec::with_capacity(answer.kvs().len());
        for kv in answer.kvs() {
            self.keys.insert(kv.key().to_vec(), kv.mod_revision());
            if self.mark.as_ref().is_none_or(|mark| mark.revision < kv.mod_revision()) {
                self.mark = Some(Mark::new(kv.key(), kv.mod_revision(), Some(written(kv))));
            }
            entries.extend(entry(kv.key(), kv.value()));
        }
        match answer.kvs().last() {
            Some(last) if answer.more() => {
                self.from = last.key().to_vec();
                self.from.push(0);
            }
            _ => {
                self.prefixes.pop();
                self.from.clear();
            }
        }
        Ok(Some(entries))
    }
}

fn is_https(endpoint: &str) -> bool {
    endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Files are read for each connection: certificates are rotated.
fn tls(settings: &TlsSettings) -> Result<TlsOptions, String> {
    let mut options = TlsOptions::new();
    match &settings.ca {
        Some(ca) => options = options.ca_certificate(Certificate::from_pem(ca.read()?.as_slice())),
        None => options = options.with_native_roots(),
    }
    if let Some((cert, key)) = &settings.identity {
        options = options.identity(Identity::from_pem(cert.read()?.as_slice(), key.read()?.as_slice()));
    }
    Ok(options)
}

/// The answer, or that it took too long.
pub async fn within<T>(
    endpoint: &str,
    what: &'static str,
    work: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Ended> {
    match timeout(TIMEOUT, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Ended::Etcd { endpoint: endpoint.to_owned(), error }),
        Err(_) => Err(Ended::Late { endpoint: endpoint.to_owned(), what }),
    }
}

/// A compaction between two pages looks like any other refusal but for its text.
fn compacted(ended: Ended, from: i64) -> Ended {
    match ended {
        Ended::Etcd { endpoint, error: etcd_client::Error::GRpcStatus(status) }
            if status.message().contains("required revision has been compacted") =>
        {
            Ended::Compacted { endpoint, from }
        }
        other => other,
    }
}

/// What came back before any answer is no HTTP/2, or the end of the connection. Most likely, without TLS, TLS is wanted
/// there; with TLS 1.3, a client learns only so that its certificate is refused.
fn strange(ended: Ended) -> Ended {
    match ended {
        Ended::Etcd { endpoint, error } => {
            let why = reason(&error);
            let says = |signs: &[&str]| signs.iter().any(|sign| why.contains(sign));
            let ask = match is_https(&endpoint) {
                true if why.contains("invalid peer certificate") => None,
                true => {
                    says(&["connection closed", "broken pipe", "connection reset", "CertificateRequired"])
                        .then_some("does it accept our certificate?")
                }
                false => says(&["h2 protocol error", "transport error", "stream closed"])
                    .then_some("is it an etcd, and one without TLS?"),
            };
            match ask {
                Some(ask) => Ended::Strange { endpoint, error, ask },
                None => Ended::Etcd { endpoint, error },
            }
        }
        other => other,
    }
}

/// What was asked for, where our user may not read it.
fn denied(ended: Ended, prefix: &str) -> Ended {
    match ended {
        Ended::Etcd { endpoint, error: etcd_client::Error::GRpcStatus(status) }
            if status.message().contains("permission denied") =>
        {
            let error = etcd_client::Error::GRpcStatus(status);
            Ended::Denied { endpoint, error, prefix: prefix.to_owned() }
        }
        other => other,
    }
}

/// The first key after all those that begin with `prefix`.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // All keys.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_behind_its_last_key() {
        assert_eq!(range_end(b"a/"), b"a0");
        assert_eq!(range_end(&[0x61, 0xff]), b"b");
        assert_eq!(range_end(&[0xff]), [0]);
    }

    #[test]
    fn a_progress_answer_is_a_barrier_only_where_it_cannot_overtake_events() {
        for (version, progress) in [
            ("3.3.27", Progress::None),
            ("3.4.0", Progress::Alive),
            ("3.4.24", Progress::Alive),
            ("3.4.25", Progress::Barrier),
            ("3.5.7", Progress::Alive),
            ("3.5.8", Progress::Barrier),
            ("3.5.30", Progress::Barrier),
            ("3.6.0-rc.4", Progress::Barrier),
            ("4.0.0", Progress::Barrier),
            ("", Progress::Alive),
            ("unknown", Progress::Alive),
        ] {
            assert_eq!(Progress::of_version(version), progress, "{version}");
        }
    }
}
