//! The whole compilation, in order: identity, then sessions, then each family's routes and programs.
//!
//! Owns: the order, and what is said about things not built yet.
//! Never: stops at a problem: but for a missing local Node there is always a state.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::{Afi, IpPrefix, V4, V6};

use super::identity::{self, Fields};
use super::inputs::{Inputs, Nodes, Problems};
use super::prior::{Asked, Prior};
use super::services::Services;
use super::{DesiredState, FamilyIntent, NodeFacts, doubts, kernel, origin, peering, programs, services};
use crate::model::snapshot::Snapshot;
use crate::model::{BgpConfiguration, BindMode, Code, Problem, ProgramClusterRoutes};
use crate::policy::program::Interner;
use crate::policy::sets::SetId;

/// Nothing can be configured yet: the local Node has not been seen (NODE-7). What was in force stays in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unready {
    /// Why, and whatever else is wrong; sorted.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.problems.iter().filter(|problem| problem.is_error());
        match lines.next() {
            Some(problem) => problem.fmt(f),
            None => f.write_str("the local node is not known yet"),
        }
    }
}

impl std::error::Error for Unready {}

/// The first of the Nodes that there are, for those who look for a slip of the pen.
fn some_names<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let mut names: Vec<&str> = names.map(String::as_str).take(4).collect();
    if names.len() > 3 {
        names.truncate(3);
        names.push("others");
    }
    if names.is_empty() { String::new() } else { format!(" (there are {})", names.join(", ")) }
}

/// Compiles what the datastore says into what this node shall do.
///
/// # Errors
/// [`Unready`] while there is no Node of this name: nothing can be configured then, and what was in force before stays
/// (NODE-7). Everything else that is wrong is a problem inside the state.
pub fn compile(snapshot: &Snapshot, facts: &NodeFacts) -> Result<DesiredState, Unready> {
    compile_parts(snapshot, facts, None).map(|(state, _)| state)
}

/// As [`compile`], with the sessions of the compilation before where nothing that they hang on changed.
///
/// # Errors
/// As there.
pub fn compile_after(
    prior: Option<&Prior>,
    snapshot: &Arc<Snapshot>,
    facts: &NodeFacts,
) -> Result<(DesiredState, Prior), Unready> {
    let (state, mut asked) = compile_parts(snapshot, facts, prior)?;
    asked.peers.clone_from(&state.peers);
    let prior = Prior::of(snapshot, facts, state.release, asked);
    Ok((state, prior))
}

/// The state, and what comes with its sessions; those of `prior` where they are the same.
fn compile_parts(
    snapshot: &Snapshot,
    facts: &NodeFacts,
    prior: Option<&Prior>,
) -> Result<(DesiredState, Asked), Unready> {
    let mut problems = Problems(snapshot.problems.clone());
    let none = BgpConfiguration { name: "default".to_owned(), ..Default::default() };
    let global = snapshot.bgp_configurations.get("default").map_or(&none, |config| config);
    if snapshot.is_locked() {
        let why =
            "the datastore is locked: a daemon that runs keeps its configuration until this is true again";
        problems.add(Code::DatastoreLocked, "ClusterInformation/default", "spec.datastoreReady", why);
    }
    let release = identity::release(snapshot.cluster_information.as_deref(), facts, &mut problems);
    let Some(local) = snapshot.nodes.get(&facts.node_name) else {
        let resource = format!("Node/{}", facts.node_name);
        let refused = snapshot.problems.iter().any(|p| p.resource == resource && p.is_error());
        let why = if refused {
            "the Node of the name that NODENAME has cannot be used: nothing is configured until it can"
                .to_owned()
        } else {
            format!(
                "there is no Node of the name that NODENAME has{}: nothing is configured until there is",
                some_names(snapshot.nodes.keys())
            )
        };
        problems.add(Code::NoLocalNode, resource, "", why);
        return Err(Unready { problems: problems.finish() });
    };
    let cluster_routes = identity::cluster_routes(global, release.release);
    let nodes = Nodes::new(snapshot);
    let inputs = Inputs { snapshot, facts, local, global, release, cluster_routes, nodes };

    configurations(&inputs, &mut problems);
    programs::check_communities(&inputs, &mut problems);
    equal_pools(&inputs, &mut problems);
    let node = identity::local_node(&inputs, &mut problems);
    let services = services::services(&inputs, &mut problems);
    let mut v4 = family::<V4>(&inputs, &services);
    let mut v6 = family::<V6>(&inputs, &services);
    let mut asked = prior.and_then(|prior| prior.asked(snapshot, facts, release)).unwrap_or_else(|| {
        let (mut asked, mut found) = (Asked::default(), Problems::default());
        peering::sessions::<V4>(&inputs, &node, v4.priority, &mut asked, &mut found);
        peering::sessions::<V6>(&inputs, &node, v6.priority, &mut asked, &mut found);
        asked.take_problems(found.0);
        asked
    });
    asked.look_up_keys(&inputs, &mut problems);
    problems.0.extend(asked.problems.iter().cloned());
    asked.put_gateways(&mut v4);
    asked.put_gateways(&mut v6);
    let sessions = std::mem::take(&mut asked.peers);
    let addresses = [node.ipv4.map(|a| IpAddr::from(a.addr)), node.ipv6.map(|a| IpAddr::from(a.addr))];
    let listen =
        addresses.into_iter().flatten().map(|a| (Afi::of(a), identity::listen(&inputs, a))).collect();
    let mut state =
        DesiredState { node, release, cluster_routes, listen, peers: sessions, v4, v6, problems: Vec::new() };
    doubts::find(&inputs, &state, &mut problems);
    state.problems = problems.finish();
    super::share_programs(&mut Interner::default(), &mut state);
    Ok((state, asked))
}

/// One family's own routes and kernel rules.
fn family<F: Fields>(inputs: &Inputs<'_>, services: &Services) -> FamilyIntent<F> {
    let mut sets =
        programs::sets::<F>(inputs).with(SetId::WireguardNextHops, kernel::wireguard_next_hops::<F>(inputs));
    services.fill::<F>(&mut sets);
    FamilyIntent {
        statics: origin::statics::<F>(inputs, services),
        priority: identity::priority::<F>(inputs),
        ignored_interfaces: identity::ignored_interfaces(inputs.global),
        kernel: kernel::program::<F>(inputs).into(),
        sets,
    }
}

/// One problem for each pool that does not count, since another one has its CIDR (D7, DS-39).
fn equal_pools(inputs: &Inputs<'_>, problems: &mut Problems) {
    let mut first: BTreeMap<IpPrefix, &str> = BTreeMap::new();
    for (name, pool) in &inputs.snapshot.pools {
        let counts = *first.entry(pool.cidr).or_insert(name);
        if counts != name {
            let why = format!("{} is the CIDR of IPPool/{counts} too, and only that one counts", pool.cidr);
            problems.add(Code::EqualPool, format!("IPPool/{name}"), "spec.cidr", why);
        }
    }
}

/// BGPConfigurations: fields that count in `default` only, and names that Calico does not look at (NODE-41).
fn configurations(inputs: &Inputs<'_>, problems: &mut Problems) {
    for (name, config) in &inputs.snapshot.bgp_configurations {
        let resource = format!("BGPConfiguration/{name}");
        if name == "default" {
            continue;
        }
        if !name.starts_with("node.") {
            let why = "is ignored: only `default` and `node.<name of a node>` are looked at";
            problems.add(Code::IgnoredResource, resource, "", why);
            continue;
        }
        let ignored = [global_only(config), service_fields(config)].concat();
        if !ignored.is_empty() {
            let why = "is ignored here: it counts in BGPConfiguration default only";
            problems.add(Code::IgnoredField, resource, &ignored.join(", "), why);
        }
    }
}

/// Names of the fields of a list for which the condition beside them holds.
fn set<const N: usize>(fields: [(&'static str, bool); N]) -> Vec<&'static str> {
    fields.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
}

fn service_fields(config: &BgpConfiguration) -> Vec<&'static str> {
    set([
        ("spec.serviceClusterIPs", !config.service_cluster_ips.is_empty()),
        ("spec.serviceExternalIPs", !config.service_external_ips.is_empty()),
        ("spec.serviceLoadBalancerIPs", !config.service_load_balancer_ips.is_empty()),
        ("spec.serviceLoadBalancerAggregation", config.load_balancer_aggregation.is_some()),
    ])
}

fn global_only(config: &BgpConfiguration) -> Vec<&'static str> {
    set([
        ("spec.nodeToNodeMeshEnabled", config.mesh_enabled.is_some()),
        ("spec.asNumber", config.asn.is_some()),
        ("spec.bindMode", config.bind_mode != BindMode::None),
        ("spec.ignoredInterfaces", !config.ignored_interfaces.is_empty()),
        ("spec.ipv4NormalRoutePriority", config.ipv4_priority.is_some()),
        ("spec.ipv6NormalRoutePriority", config.ipv6_priority.is_some()),
        ("spec.programClusterRoutes", config.program_cluster_routes != ProgramClusterRoutes::Unset),
        ("spec.nodeMeshPassword", config.mesh_password.is_some()),
        ("spec.nodeMeshMaxRestartTime", config.mesh_restart_time.is_some()),
    ])
}
