//! An API server that does as it is told: lists and watches like the real one, and what a real one does not do on demand.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Collections of the recorded clusters.
pub const PLURALS: [&str; 11] = [
    "bgpconfigurations",
    "bgpfilters",
    "bgppeers",
    "blockaffinities",
    "clusterinformations",
    "endpointslices",
    "felixconfigurations",
    "ippools",
    "nodes",
    "secrets",
    "services",
];

/// What is asked of a collection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// All of it, or a page.
    List,
    /// Its changes.
    Watch,
}

/// Another answer than the right one.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A Status with this code and reason.
    Status(u16, &'static str),
    /// This text with this code.
    Text(u16, &'static str),
    /// The connection ends without a word.
    Hangup,
}

struct Watcher {
    plural: String,
    name: Option<String>,
    lines: mpsc::Sender<Bytes>,
    /// Nothing more is sent, and nothing closed.
    silent: bool,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// Watches and pages from before are expired.
    oldest: u64,
    /// Collections by plural, resources by namespace and name.
    items: BTreeMap<String, BTreeMap<String, Value>>,
    /// Changes by plural.
    log: Vec<(u64, String, String, Value)>,
    /// In place of the right answer, so often (`u32::MAX`: always).
    faults: BTreeMap<(String, Verb), VecDeque<(u32, Answer)>>,
    watchers: Vec<Watcher>,
    /// Paths with queries, in order.
    asked: Vec<String>,
    /// Items of a page, at most.
    page: usize,
    /// Groups beside the core, with their plurals.
    groups: BTreeMap<String, Vec<String>>,
    /// The token that is wanted, if one is.
    token: Option<String>,
}

/// The server; it ends with the test.
#[derive(Clone)]
pub struct KubeApi {
    state: Arc<Mutex<State>>,
    /// Its URL.
    pub url: String,
}

/// A recorded list.
pub fn recorded(cluster: &str, folder: &str, plural: &str) -> Value {
    let path = format!("fixtures/datastore/{cluster}/kubernetes/{folder}/{plural}.json");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// The items of all lists of a recorded cluster, with the types that lists leave out.
#[allow(dead_code, reason = "each test program uses a part of this module")]
pub fn recorded_items(cluster: &str, folder: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for plural in PLURALS {
        let list = recorded(cluster, folder, plural);
        let kind = list["kind"].as_str().unwrap().strip_suffix("List").unwrap().to_owned();
        for item in list["items"].as_array().unwrap() {
            let mut item = item.clone();
            item["apiVersion"] = list["apiVersion"].clone();
            item["kind"] = json!(kind);
            all.push(item);
        }
    }
    all
}

fn key(item: &Value) -> String {
    let word = |name: &str| item["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", word("namespace"), word("name"))
}

impl KubeApi {
    /// With nothing in it, and Calico's old group.
    pub async fn start() -> KubeApi {
        let calico: Vec<String> = PLURALS
            .iter()
            .filter(|plural| !matches!(**plural, "nodes" | "secrets" | "services" | "endpointslices"))
            .map(|plural| (*plural).to_owned())
            .collect();
        let groups = BTreeMap::from([
            ("crd.projectcalico.org/v1".to_owned(), calico),
            ("discovery.k8s.io/v1".to_owned(), vec!["endpointslices".to_owned()]),
        ]);
        let state = State { revision: 100, page: 1000, groups, ..State::default() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let server = KubeApi { state: Arc::new(Mutex::new(state)), url };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = serving.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { server.answer(&request).ok_or("told to hang up") }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        server
    }

    /// With a recorded cluster.
    pub async fn with(cluster: &str) -> KubeApi {
        let server = KubeApi::start().await;
        server.load(cluster, "list");
        server
    }

    /// Puts the recorded lists of a cluster in.
    pub fn load(&self, cluster: &str, folder: &str) {
        let mut state = self.state.lock().unwrap();
        for plural in PLURALS {
            let list = recorded(cluster, folder, plural);
            let revision: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            state.revision = state.revision.max(revision);
            let items = list["items"].as_array().unwrap();
            let items = items.iter().map(|item| (key(item), item.clone())).collect();
            state.items.insert(plural.to_owned(), items);
        }
    }

    /// Another answer, so often.
    pub fn fault(&self, plural: &str, verb: Verb, times: u32, answer: Answer) {
        let mut state = self.state.lock().unwrap();
        state.faults.entry((plural.to_owned(), verb)).or_default().push_back((times, answer));
    }

    /// The right answers again.
    pub fn mend(&self, plural: &str) {
        self.state.lock().unwrap().faults.retain(|(faulty, _), _| faulty != plural);
    }

    /// Changes the server itself.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Which groups there are, with their plurals.
    pub fn groups(&self, groups: &[(&str, &[&str])]) {
        let owned = |(group, plurals): &(&str, &[&str])| {
            ((*group).to_owned(), plurals.iter().map(|plural| (*plural).to_owned()).collect())
        };
        self.change(|state| state.groups = groups.iter().map(owned).collect());
    }

    /// At most so many items in a page.
    pub fn pages_of(&self, items: usize) {
        self.change(|state| state.page = items);
    }

    /// Only requests with this token are answered.
    pub fn token(&self, token: &str) {
        self.change(|state| state.token = Some(token.to_owned()));
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// How many requests begin with `path` and have `part` in them.
    pub fn count(&self, path: &str, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.starts_with(path) && asked.contains(part)).count()
    }

    /// The revision that it is at.
    pub fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }

    /// Goes back to a revision, as after a backup was restored: nothing of what came later is there.
    pub fn rewind(&self, revision: u64) {
        self.change(|state| {
            state.revision = revision;
            state.log.retain(|(at, ..)| *at <= revision);
        });
    }

    /// Writes a resource.
    pub fn put(&self, plural: &str, mut item: Value) {
        self.change(|state| {
            state.revision += 1;
            item["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            let before = state.items.entry(plural.to_owned()).or_default().insert(key(&item), item.clone());
            let event = if before.is_some() { "MODIFIED" } else { "ADDED" };
            state.tell(plural, event, item);
        });
    }

    /// Changes a resource.
    pub fn edit(&self, plural: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut item = self.get(plural, name);
        edit(&mut item);
        self.put(plural, item);
    }

    /// A resource as it is; `name` with its namespace and a slash before it.
    pub fn get(&self, plural: &str, name: &str) -> Value {
        self.state.lock().unwrap().items[plural][name].clone()
    }

    /// Removes a resource.
    pub fn delete(&self, plural: &str, name: &str) {
        self.change(|state| {
            state.revision += 1;
            let mut item = state.items.get_mut(plural).unwrap().remove(name).unwrap();
            item["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            state.tell(plural, "DELETED", item);
        });
    }

    /// Removes without a word to anybody: nobody watches, or watches from before are expired.
    pub fn delete_unseen(&self, plural: &str, name: &str) {
        self.change(|state| {
            state.revision += 1;
            state.items.get_mut(plural).unwrap().remove(name).unwrap();
        });
    }

    /// Watches and pages from before now are expired.
    pub fn compact(&self) {
        self.change(|state| {
            state.revision += 1;
            state.oldest = state.revision;
        });
    }

    /// Sends a line to the open watches as it is.
    pub fn line(&self, plural: &str, line: &Value) {
        self.change(|state| state.send(plural, &line.to_string()));
    }

    /// Ends the open watches of a collection, as the server does now and then.
    pub fn close(&self, plural: &str) {
        self.change(|state| state.watchers.retain(|watcher| watcher.plural != plural));
    }

    /// The open watches of a collection say nothing more, and stay open.
    pub fn silence(&self, plural: &str) {
        self.change(|state| {
            for watcher in &mut state.watchers {
                watcher.silent |= watcher.plural == plural;
            }
        });
    }

    /// Open watches of a collection.
    pub fn watchers(&self, plural: &str) -> usize {
        let mut state = self.state.lock().unwrap();
        state.watchers.retain(|watcher| !watcher.lines.is_closed());
        state.watchers.iter().filter(|watcher| watcher.plural == plural && !watcher.silent).count()
    }

    /// `None`: the connection ends.
    fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let mut state = self.state.lock().unwrap();
        let uri = request.uri();
        state.asked.push(uri.to_string());
        let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if let Some(wanted) = &state.token
            && token != Some(format!("Bearer {wanted}").as_str())
        {
            return Some(status(401, "Unauthorized"));
        }
        let query: BTreeMap<&str, &str> =
            uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let path = uri.path();
        if path == "/apis" {
            let names = state.groups.keys().map(|group| json!({"name": group.split('/').next()}));
            return Some(ok(&json!({"kind": "APIGroupList", "groups": names.collect::<Vec<_>>()})));
        }
        let group = path.strip_prefix("/apis/").map(str::to_owned);
        if let Some(plurals) = group.as_ref().and_then(|group| state.groups.get(group)) {
            let names = plurals.iter().map(|plural| json!({"name": plural})).collect::<Vec<_>>();
            return Some(ok(&json!({"kind": "APIResourceList", "resources": names})));
        }
        let (parent, plural) = path.rsplit_once('/').unwrap();
        let verb = if query.contains_key("watch") { Verb::Watch } else { Verb::List };
        if let Some(faults) = state.faults.get_mut(&(plural.to_owned(), verb))
            && let Some((times, answer)) = faults.front_mut()
        {
            let answer = answer.clone();
            if *times != u32::MAX {
                *times -= 1;
            }
            if *times == 0 {
                faults.pop_front();
            }
            return match answer {
                Answer::Status(code, reason) => Some(status(code, reason)),
                Answer::Text(code, text) => {
                    Some(Response::builder().status(code).body(full(text.into())).unwrap())
                }
                Answer::Hangup => None,
            };
        }
        let served = parent.starts_with("/api/v1")
            || parent.strip_prefix("/apis/").is_some_and(|group| {
                state.groups.get(group).is_some_and(|plurals| plurals.iter().any(|known| known == plural))
            });
        if !served {
            return Some(Response::builder().status(404).body(full("404 page not found\n".into())).unwrap());
        }
        let name =
            query.get("fieldSelector").map(|selector| selector.rsplit("%3D").next().unwrap().to_owned());
        Some(match verb {
            Verb::List => state.list(plural, &query, name.as_deref()),
            Verb::Watch => state.watch(plural, &query, name),
        })
    }
}

impl State {
    fn tell(&mut self, plural: &str, event: &str, item: Value) {
        self.log.push((self.revision, plural.to_owned(), event.to_owned(), item.clone()));
        let line = json!({"type": event, "object": item});
        let name = item["metadata"]["name"].as_str().unwrap().to_owned();
        for watcher in &self.watchers {
            let wanted = watcher.name.as_ref().is_none_or(|wanted| *wanted == name);
            if watcher.plural == plural && wanted && !watcher.silent {
                let _ = watcher.lines.try_send(format!("{line}\n").into());
            }
        }
    }

    fn send(&mut self, plural: &str, line: &str) {
        for watcher in &self.watchers {
            if watcher.plural == plural && !watcher.silent {
                let _ = watcher.lines.try_send(format!("{line}\n").into());
            }
        }
    }

    fn list(&self, plural: &str, query: &BTreeMap<&str, &str>, name: Option<&str>) -> Response<Body> {
        let (at, skip) = match query.get("continue") {
            Some(token) => {
                let (at, skip) = token.split_once('.').unwrap();
                (at.parse().unwrap(), skip.parse().unwrap())
            }
            None => (self.revision, 0),
        };
        if at < self.oldest {
            return status(410, "Expired");
        }
        let nothing = BTreeMap::new();
        let items = self.items.get(plural).unwrap_or(&nothing);
        let wanted = items.values().filter(|item| name.is_none_or(|name| item["metadata"]["name"] == name));
        let page: Vec<&Value> = wanted.clone().skip(skip).take(self.page).collect();
        let next = match skip + page.len() < wanted.count() {
            true => format!("{at}.{}", skip + page.len()),
            false => String::new(),
        };
        let metadata = json!({"resourceVersion": at.to_string(), "continue": next});
        ok(&json!({"apiVersion": "v1", "items": page, "kind": "List", "metadata": metadata}))
    }

    fn watch(&mut self, plural: &str, query: &BTreeMap<&str, &str>, name: Option<String>) -> Response<Body> {
        let from: u64 = query["resourceVersion"].parse().unwrap();
        let (lines, receiver) = mpsc::channel::<Bytes>(4096);
        if from < self.oldest {
            let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"});
            lines.try_send(format!("{}\n", json!({"type": "ERROR", "object": status})).into()).unwrap();
        } else {
            for (at, of, event, item) in &self.log {
                if *at > from
                    && of == plural
                    && name.as_ref().is_none_or(|name| item["metadata"]["name"] == **name)
                {
                    let line = json!({"type": event, "object": item});
                    lines.try_send(format!("{line}\n").into()).unwrap();
                }
            }
            self.watchers.push(Watcher { plural: plural.to_owned(), name, lines, silent: false });
        }
        let body = stream::unfold(receiver, |mut receiver| async move {
            let line = receiver.recv().await?;
            Some((Ok(Frame::data(line)), receiver))
        });
        Response::new(StreamBody::new(body).boxed_unsync())
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

fn ok(value: &Value) -> Response<Body> {
    Response::new(full(value.to_string().into()))
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": ""});
    Response::builder().status(code).body(full(body.to_string().into())).unwrap()
}
