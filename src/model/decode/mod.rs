//! Documents to resources: what `calicoctl get`, `kubectl get` and people write, and what etcd holds.
//!
//! Owns: [`Resource`] and [`decode`], which takes one parsed document (a List gives many resources)
//! and is total: whatever cannot be used becomes a [`Problem`] that names resource and field. A refused field keeps the
//! value it had in the resource's last good form; a resource that makes no sense without it is refused as a whole (D1,
//! D2, D10). Unknown fields are ignored, unknown kinds skipped. Never: reads files, speaks to a datastore, or decides
//! what follows from a resource.

mod cluster;
mod core;
pub mod documents;
mod endpoint_status;
pub mod fields;
mod node;
mod peer;
pub mod tags;
#[cfg(test)]
mod tests;
pub mod text;

pub use endpoint_status::endpoint_status;

use std::sync::Arc;

use bgp_proto::IpPrefix;
use serde_json::{Map, Value};

use self::fields::{FieldLog, Fields, scalar_text, shown};
use super::paths::Holds;
use super::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, ClusterInformation, Code, EndpointSlice,
    FelixConfiguration, IpPool, Kind, Node, Problem, ResourceKey, Secret, Service,
};

/// A resource that was read.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "each variant is the model type of its name")]
pub enum Resource {
    Node(Arc<Node>),
    BgpConfiguration(Arc<BgpConfiguration>),
    ClusterInformation(Arc<ClusterInformation>),
    IpPool(Arc<IpPool>),
    BlockAffinity(Arc<BlockAffinity>),
    BgpPeer(Arc<BgpPeer>),
    BgpFilter(Arc<BgpFilter>),
    Secret(Arc<Secret>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    FelixConfiguration(Arc<FelixConfiguration>),
}

/// Settings that change how documents are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// `USE_POD_CIDR` (DS-38).
    pub use_pod_cidr: bool,
}

/// What became of one resource of a document.
#[derive(Clone, PartialEq, Debug)]
pub struct DecodedResource {
    /// Which resource.
    pub key: ResourceKey,
    /// The resource; `None` where it was refused and no last good form is known.
    pub resource: Option<Resource>,
    /// What could not be used.
    pub problems: Vec<Problem>,
    /// A Calico Node made of a Kubernetes Node; a Calico Node of that name takes its place.
    pub from_kubernetes_node: bool,
}

/// Reads one document. `place` names it in problems until the resource's own name is known; `last` finds the last good
/// form of a resource. Problems that belong to no resource are the second part of the result.
pub fn decode<'r>(
    document: &Value,
    place: &str,
    reading: Reading,
    last: &dyn Fn(&ResourceKey) -> Option<&'r Resource>,
) -> (Vec<DecodedResource>, Vec<Problem>) {
    let mut walk = Walk { reading, last, found: Vec::new(), problems: Vec::new() };
    walk.document(document, place, None);
    (walk.found, walk.problems)
}

/// Decodes a resource whose kind and name are known from elsewhere, as from its etcd key or the collection that has it.
pub fn decode_document(
    key: ResourceKey,
    from_kubernetes_node: bool,
    document: &Value,
    reading: Reading,
    last: Option<&Resource>,
) -> DecodedResource {
    decode_resource(key, from_kubernetes_node, document, reading, last)
}

/// Decodes the value of a block affinity's etcd key, which names node and block (DS-16).
pub fn decode_affinity(
    key: ResourceKey,
    node: &str,
    cidr: IpPrefix,
    document: &Value,
    last: Option<&Resource>,
) -> DecodedResource {
    let log = FieldLog::new(key.to_string());
    let resource = match document {
        Value::Object(_) | Value::Null => {
            let fields = Fields::root(document, &log);
            let (state, deleted) = cluster::affinity_value(&fields, block_of(last));
            let block = BlockAffinity { node: node.to_owned(), cidr, is_host: true, state, deleted };
            Some(Resource::BlockAffinity(Arc::new(block)))
        }
        other => {
            log.refuse("", format!("an object is wanted here, not {}", shown(other)));
            last.cloned()
        }
    };
    DecodedResource { key, resource, problems: log.into_problems(), from_kubernetes_node: false }
}

/// Decodes a value that has to be JSON, `place` being its place; one that is not keeps its last good form (D10). An empty
/// affinity value is an implicitly confirmed block (DS-16).
pub fn decode_text(
    holds: &Holds,
    place: &str,
    text: &[u8],
    reading: Reading,
    last: Option<&Resource>,
) -> DecodedResource {
    let parsed = match holds {
        Holds::Affinity { .. } if text.is_empty() => Ok(Value::Object(Map::new())),
        _ => serde_json::from_slice(text),
    };
    match (parsed, holds) {
        (Ok(document), Holds::Resource(resource)) => {
            decode_resource(resource.clone(), false, &document, reading, last)
        }
        (Ok(document), Holds::Affinity { node, cidr }) => {
            decode_affinity(holds.key(), node, *cidr, &document, last)
        }
        (Err(error), _) => {
            let stays = if last.is_some() { "; its last good value stays in force" } else { "" };
            let why = format!("the value is not JSON ({error}){stays}");
            DecodedResource {
                key: holds.key(),
                resource: last.cloned(),
                problems: vec![Problem::of_whole(Code::Unreadable, place.escape_debug().to_string(), why)],
                from_kubernetes_node: false,
            }
        }
    }
}

fn block_of(resource: Option<&Resource>) -> Option<&BlockAffinity> {
    if let Some(Resource::BlockAffinity(block)) = resource { Some(block) } else { None }
}

/// The kind of the items of a list that do not say their own.
#[derive(Clone, Copy)]
struct ItemType<'a> {
    api_version: &'a str,
    kind: &'a str,
}

struct Walk<'w, 'r> {
    reading: Reading,
    last: &'w dyn Fn(&ResourceKey) -> Option<&'r Resource>,
    found: Vec<DecodedResource>,
    problems: Vec<Problem>,
}

impl Walk<'_, '_> {
    fn problem(&mut self, place: &str, field: &str, why: impl Into<String>) {
        self.problems.push(Problem {
            resource: place.to_owned(),
            field: field.to_owned(),
            why: why.into(),
            code: Code::NoResource,
        });
    }

    fn document(&mut self, document: &Value, place: &str, item: Option<ItemType<'_>>) {
        let map = match document {
            Value::Null => return,
            // calicoctl takes a list of resources without a List around it.
            Value::Array(list) if item.is_none() => {
                for (index, value) in list.iter().enumerate() {
                    let unknown = ItemType { api_version: "", kind: "" };
                    self.document(value, &format!("{place} item {}", index + 1), Some(unknown));
                }
                return;
            }
            Value::Object(map) => map,
            other => {
                let why = format!("a resource is wanted here, not {}", shown(other));
                return self.problem(place, "", why);
            }
        };
        let kind = match word(map, "kind", item.map(|item| item.kind)) {
            Ok(kind) => kind,
            Err(why) => return self.problem(place, "kind", why),
        };
        let api_version = match word(map, "apiVersion", item.map(|item| item.api_version)) {
            Ok(api_version) => api_version,
            Err(why) => return self.problem(place, "apiVersion", why),
        };
        if let Some(item_kind) = kind.strip_suffix("List")
            && (map.contains_key("items") || map.get("metadata").is_none_or(|m| m.get("name").is_none()))
        {
            // Items of a plain List say themselves what they are.
            let api_version = if item_kind.is_empty() { "" } else { api_version };
            return self.list(map, place, ItemType { api_version, kind: item_kind });
        }
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let Some((kind, from_kubernetes_node)) = known_kind(group, kind) else { return };
        let wanted = match (kind, group) {
            (Kind::Secret | Kind::Service, _) => "v1",
            (Kind::Node, _) if from_kubernetes_node => "v1",
            (_, "crd.projectcalico.org") => "crd.projectcalico.org/v1",
            (Kind::EndpointSlice, _) => "discovery.k8s.io/v1",
            _ => "projectcalico.org/v3",
        };
        if api_version != wanted {
            let why = format!("{wanted} is wanted for {}, not {}", kind.name(), text::quoted(api_version));
            return self.problem(place, "apiVersion", why);
        }
        let metadata = map.get("metadata");
        let named = |name: &str| {
            metadata
                .and_then(|metadata| metadata.get(name))
                .and_then(scalar_text)
                .filter(|text| !text.is_empty())
        };
        let Some(name) = named("name") else {
            let (field, why) = match metadata {
                None | Some(Value::Object(_)) => {
                    let name = metadata.and_then(|metadata| metadata.get("name"));
                    ("metadata.name", missing(name, "text"))
                }
                other => ("metadata", missing(other, "an object")),
            };
            return self.problem(&format!("{place} ({})", kind.name()), field, why);
        };
        let namespace = if matches!(kind, Kind::Secret | Kind::Service | Kind::EndpointSlice) {
            named("namespace").unwrap_or_else(|| "default".to_owned())
        } else {
            String::new()
        };
        let key = ResourceKey { kind, namespace, name };
        let last = (self.last)(&key);
        self.found.push(decode_resource(key, from_kubernetes_node, document, self.reading, last));
    }

    fn list(&mut self, map: &Map<String, Value>, place: &str, item: ItemType<'_>) {
        match map.get("items") {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                for (index, value) in items.iter().enumerate() {
                    self.document(value, &format!("{place} item {}", index + 1), Some(item));
                }
            }
            Some(other) => {
                let why = format!("a list is wanted here, not {}", shown(other));
                self.problem(place, "items", why);
            }
        }
    }
}

/// A text field of a document's head, or what the list around it says.
fn word<'a>(map: &'a Map<String, Value>, name: &str, default: Option<&'a str>) -> Result<&'a str, String> {
    let value = map.get(name);
    let text = value.and_then(Value::as_str).or(default.filter(|_| value.is_none_or(Value::is_null)));
    text.filter(|text| !text.is_empty()).ok_or_else(|| missing(value, "text"))
}

/// Why there is nothing to be used in the place of `value`.
fn missing(value: Option<&Value>, what: &str) -> String {
    match value {
        None | Some(Value::Null) => "is missing".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "is empty".to_owned(),
        Some(other) => format!("{what} is wanted here, not {}", shown(other)),
    }
}

/// Our kind for an API group and kind; the flag is set for Kubernetes' own Node.
fn known_kind(group: &str, kind: &str) -> Option<(Kind, bool)> {
    let kind = match (group, kind) {
        ("", "Node") => return Some((Kind::Node, true)),
        ("", "Secret") => Kind::Secret,
        ("", "Service") => Kind::Service,
        ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
        ("projectcalico.org", "Node") => Kind::Node,
        // Without a group it is a slip of the pen: nobody else has kinds of these names there.
        ("projectcalico.org" | "crd.projectcalico.org" | "", kind) => match kind {
            "BGPConfiguration" => Kind::BgpConfiguration,
            "ClusterInformation" => Kind::ClusterInformation,
            "IPPool" => Kind::IpPool,
            "BlockAffinity" => Kind::BlockAffinity,
            "BGPPeer" => Kind::BgpPeer,
            "BGPFilter" => Kind::BgpFilter,
            "FelixConfiguration" => Kind::FelixConfiguration,
            _ => return None,
        },
        _ => return None,
    };
    Some((kind, false))
}

fn decode_resource(
    key: ResourceKey,
    from_kubernetes_node: bool,
    document: &Value,
    reading: Reading,
    last: Option<&Resource>,
) -> DecodedResource {
    let log = FieldLog::new(key.to_string());
    let resource = if document.is_object() {
        let root = Fields::root(document, &log);
        match key.kind {
            Kind::Node => {
                let last = if let Some(Resource::Node(last)) = last { Some(&**last) } else { None };
                let node = if from_kubernetes_node {
                    node::kubernetes(&key.name, &root, reading, last)
                } else {
                    node::calico(&key.name, &root, last)
                };
                node.map(wrap(Resource::Node))
            }
            Kind::BgpConfiguration => {
                let last =
                    if let Some(Resource::BgpConfiguration(last)) = last { Some(&**last) } else { None };
                Some(Resource::BgpConfiguration(Arc::new(cluster::bgp_configuration(&key.name, &root, last))))
            }
            Kind::ClusterInformation => {
                let last =
                    if let Some(Resource::ClusterInformation(last)) = last { Some(&**last) } else { None };
                Some(Resource::ClusterInformation(Arc::new(cluster::cluster_information(&root, last))))
            }
            Kind::IpPool => {
                let last = if let Some(Resource::IpPool(last)) = last { Some(&**last) } else { None };
                cluster::ip_pool(&key.name, &root, last).map(wrap(Resource::IpPool))
            }
            Kind::BlockAffinity => {
                cluster::block_affinity(&root, block_of(last)).map(wrap(Resource::BlockAffinity))
            }
            Kind::FelixConfiguration => {
                let last =
                    if let Some(Resource::FelixConfiguration(last)) = last { Some(&**last) } else { None };
                Some(Resource::FelixConfiguration(Arc::new(cluster::felix_configuration(
                    &key.name, &root, last,
                ))))
            }
            Kind::BgpPeer => {
                let last = if let Some(Resource::BgpPeer(last)) = last { Some(&**last) } else { None };
                peer::bgp_peer(&key.name, &root, last).map(wrap(Resource::BgpPeer))
            }
            Kind::BgpFilter => {
                let last = if let Some(Resource::BgpFilter(last)) = last { Some(&**last) } else { None };
                Some(Resource::BgpFilter(Arc::new(peer::bgp_filter(&key.name, &root, last))))
            }
            Kind::Secret => Some(Resource::Secret(Arc::new(core::secret(key.namespaced(), &root)))),
            Kind::Service => Some(Resource::Service(Arc::new(core::service(key.namespaced(), &root)))),
            Kind::EndpointSlice => {
                Some(Resource::EndpointSlice(Arc::new(core::endpoint_slice(key.namespaced(), &root))))
            }
        }
    } else {
        log.refuse("", format!("a resource is wanted here, not {}", shown(document)));
        None
    };
    let resource = resource.or_else(|| last.cloned());
    DecodedResource { key, resource, problems: log.into_problems(), from_kubernetes_node }
}

fn wrap<T>(variant: impl Fn(Arc<T>) -> Resource) -> impl Fn(T) -> Resource {
    move |value| variant(Arc::new(value))
}
