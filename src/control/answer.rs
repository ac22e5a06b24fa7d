//! Requests and answers of the control socket, as they stand on the line.
//!
//! Owns: names and shapes, which are an interface: keys are added, never renamed. Absent means "not known" or "not
//! there". Times are ages in seconds: they need no clock that both sides share. Never: fills them in
//! ([`server`](super::server)).

use serde::{Deserialize, Serialize};

use crate::model::problem::ProblemView;

/// Prefixes of one page, each with all of its routes.
pub const PAGE: usize = 1000;

/// A request: what it wants is its first key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Request {
    /// `{"show": …}`: something to see.
    Show(ShowRequest),
    /// `{"refresh": …}`: something to do.
    Refresh(RefreshRequest),
}

impl Request {
    /// Reads a request; the error names what is wrong in the kind of request that it is.
    pub fn parse(line: &[u8]) -> serde_json::Result<Request> {
        #[derive(Deserialize)]
        struct Kind {
            refresh: Option<serde::de::IgnoredAny>,
        }
        match serde_json::from_slice(line)? {
            Kind { refresh: Some(_) } => serde_json::from_slice(line).map(Request::Refresh),
            Kind { refresh: None } => serde_json::from_slice(line).map(Request::Show),
        }
    }
}

/// Have peers send their routes again (RFC 2918).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// A session's name, its peer's address, or `all`.
    #[serde(rename = "refresh")]
    pub peer: String,
}

/// What is to be seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "show", rename_all = "lowercase", deny_unknown_fields)]
pub enum ShowRequest {
    /// Sessions.
    Peers,
    /// One page of routes.
    Routes {
        /// `ipv4` or `ipv6`.
        family: String,
        /// Go on after this prefix.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// One page of what is wanted of the kernel and what is there.
    Kernel {
        /// `ipv4` or `ipv6`.
        family: String,
        /// Go on after this prefix.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// The daemon.
    Status,
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`ShowRequest::Peers`].
    Peers(Vec<PeerAnswer>),
    /// To [`ShowRequest::Routes`].
    Routes(Page),
    /// To [`ShowRequest::Kernel`].
    KernelRoutes(KernelPage),
    /// To [`ShowRequest::Status`].
    Status(Box<StatusAnswer>),
    /// To [`RefreshRequest`].
    Refreshed(Vec<Refreshed>),
    /// The request could not be answered; why.
    Error(String),
}

/// A page of kernel routes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelPage {
    /// The routes, by prefix.
    pub routes: Vec<KernelRouteAnswer>,
    /// There is more after this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One prefix that is wanted in the kernel, or holds a route of ours there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRouteAnswer {
    /// The prefix.
    pub prefix: String,
    /// `installed`, `pending`, `conflicting`, `waiting`, `failed` or `adopted`.
    pub state: String,
    /// What is wanted, in the words of `ip route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// What is there: routes of ours, and what stands in their place.
    pub actual: Vec<String>,
    /// Why it is not as wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One session.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerAnswer {
    /// BIRD's name of the session.
    pub name: String,
    /// The peer's address.
    pub address: String,
    /// The peer's port for our dials.
    pub port: u16,
    /// The peer's AS.
    pub as_number: u32,
    /// Our AS in the session.
    pub local_as_number: u32,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `mesh`, `global`, `node` or `localWorkload`.
    pub class: String,
    /// The resource that asks for it.
    pub resource: String,
    /// We do not dial.
    pub passive: bool,
    /// State of RFC 4271.
    pub state: String,
    /// Since when.
    pub since_seconds: u64,
    /// Why it is not established, or carries no routes though it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Our address in the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<String>,
    /// The peer's BGP identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Hold time agreed on, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<u16>,
    /// Both sides do graceful restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<bool>,
    /// The peer is away; its routes are kept for so many seconds more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes_kept_seconds: Option<u64>,
    /// Routes received and not refused for their form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Of these, accepted by policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// Routes that the peer has from us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Messages received.
    pub messages_received: MessagesAnswer,
    /// Messages sent, but for UPDATE.
    pub messages_sent: MessagesAnswer,
    /// UPDATEs with errors that cost routes or attributes but not the session.
    pub faulty_updates: u64,
    /// Attempts to connect.
    pub dials: u64,
    /// Times that the session came up.
    pub established: u64,
    /// Defects of ours that ended it.
    pub defects: u64,
    /// The last events, oldest first.
    pub events: Vec<EventAnswer>,
}

/// Counted messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagesAnswer {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub refresh: u64,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventAnswer {
    /// How long ago.
    pub age_seconds: u64,
    /// What.
    pub text: String,
}

/// Whether a peer was asked for its routes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refreshed {
    /// The session's name.
    pub name: String,
    /// Why the peer was not asked; absent where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One page of routes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// Routes in order of prefix, the best of each prefix first.
    pub routes: Vec<Route>,
    /// There is more: ask again with `after` set to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One route.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The prefix.
    pub prefix: String,
    /// `direct`, `static`, `bgp` or `kernel`.
    pub source: String,
    /// The session that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Address of the peer that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where it leads: gateways, or `blackhole`, `unreachable`, `prohibit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Metric in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The one that is used.
    pub best: bool,
    /// In words: used, or why not.
    pub state: String,
    /// What BGP says of it, after import.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpRoute>,
}

/// The BGP side of a route, after import.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpRoute {
    /// NEXT_HOP as received.
    pub next_hop: String,
    /// AS_PATH; an AS_SET is a list of its own.
    pub as_path: Vec<AsPathItem>,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// COMMUNITIES, as `64512:100`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
}

/// One step of an AS_PATH.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsPathItem {
    /// An AS of a sequence.
    As(u32),
    /// An AS_SET.
    Set(Vec<u32>),
}

/// The daemon.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusAnswer {
    /// Version of the program.
    pub version: String,
    /// This node.
    pub node: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Grows with each desired state that was applied; 0 before the first.
    pub generation: u64,
    /// Why the last snapshot could not be applied, while the state before it stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Our AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// Our BGP identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Calico release in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Where the release is known from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_source: Option<String>,
    /// `recovering` or `normal`.
    pub phase: String,
    /// What the end of recovery waits for, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<String>,
    /// The datastore.
    pub datastore: Datastore,
    /// The kernel's routes.
    pub kernel: KernelAnswer,
    /// Listening sockets.
    pub listen: Vec<ListenAnswer>,
    /// Connections from addresses of no peer.
    pub strangers: u64,
    /// Sessions wanted.
    pub peers: usize,
    /// Sessions established.
    pub peers_established: usize,
    /// What is wrong, or not done.
    pub problems: Vec<ProblemView>,
}

/// The datastore as the daemon sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Datastore {
    /// `connecting`, `connected` or `retrying`.
    pub state: String,
    /// Since when.
    pub since_seconds: u64,
    /// Everything was listed once.
    pub in_sync: bool,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Failed attempts since it was last reached.
    pub failures: u32,
    /// Revision (etcd).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// How old what is known is: since when the datastore has said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_age_seconds: Option<u64>,
    /// It is locked: nothing changes meanwhile.
    #[serde(default)]
    pub locked: bool,
    /// Kinds that are not in sync.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindAnswer>,
    /// Mass losses that wait for confirmation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfirmed: Vec<Unconfirmed>,
    /// What is in force was kept on disk by an earlier run; how old it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_disk_age_seconds: Option<u64>,
    /// How long ago the last good state was written to disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_age_seconds: Option<u64>,
    /// Why it cannot be kept on disk, or what was there not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_error: Option<String>,
}

/// A kind of resource that is not in sync.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindAnswer {
    /// The kind.
    pub kind: String,
    /// `unknown`, `stale` or `refused`.
    pub state: String,
    /// Why it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A mass loss that is not believed yet.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unconfirmed {
    /// What is lost, as in `3 of 4 Node`.
    pub what: String,
    /// After which time it is believed.
    pub in_seconds: u64,
}

/// The kernel's routes as the daemon sees them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelAnswer {
    /// The kernel can be asked and told.
    pub connected: bool,
    /// Routes wanted.
    pub desired: usize,
    /// Of these, there as wanted.
    pub installed: usize,
    /// Of these, refused by the kernel or changed by somebody again and again.
    pub failed: usize,
    /// Of these, in a place that somebody else's route has.
    pub conflicts: usize,
    /// Why the kernel could not be asked or told, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// One listening socket.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenAnswer {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Why there is no socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_that_a_person_can_type() {
        let read = |text: &str| Request::parse(text.as_bytes());
        for (text, request) in [
            (r#"{"show":"peers"}"#, Request::Show(ShowRequest::Peers)),
            (
                r#"{"show":"routes","family":"ipv4"}"#,
                Request::Show(ShowRequest::Routes { family: "ipv4".into(), after: None }),
            ),
            (
                r#"{"refresh":"Mesh_10_0_0_2"}"#,
                Request::Refresh(RefreshRequest { peer: "Mesh_10_0_0_2".into() }),
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(read(text).unwrap(), request);
        }
        for (bad, word) in [
            (r#"{"show":"secrets"}"#, "secrets"),
            (r#"{"show":"routes","family":"ipv4","afer":"x"}"#, "afer"),
            (r#"{"refresh":7}"#, "string"),
            (r#"{"refresh":"all","family":"ipv4"}"#, "family"),
            ("{}", "show"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }

    #[test]
    fn every_key_stands_in_the_documentation() {
        let documented = include_str!("../../docs/control.md");
        let fields = include_str!("answer.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "));
        let mut keys = 0;
        for (field, _) in fields.filter(|(field, _)| !field.contains(' ') && *field != "bgp") {
            let mut words = field.split('_');
            let first = words.next().unwrap().to_string();
            let key = words.fold(first, |key, word| key + &word[..1].to_uppercase() + &word[1..]);
            let named =
                [format!("`{key}`"), format!("\"{key}\":")].iter().any(|text| documented.contains(text));
            assert!(named, "{key}");
            keys += 1;
        }
        assert!(keys > 60, "{keys}");
    }

    #[test]
    fn answers_are_named_by_their_key() {
        let text = serde_json::to_string(&Answer::Error("no".into())).unwrap();
        assert_eq!(text, r#"{"error":"no"}"#);
        let text = serde_json::to_string(&Answer::Routes(Page::default())).unwrap();
        assert_eq!(text, r#"{"routes":{"routes":[]}}"#);
    }
}
