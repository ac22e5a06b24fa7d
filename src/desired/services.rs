//! Addresses of Services: which of them this node announces, and what of them stays out of the kernel.
//!
//! Owns: SVC-1 to SVC-5, SVC-10, SVC-11, SVC-20 to SVC-25, SVC-30 to SVC-32, FILT-33 and REL-9. Inputs:
//! BGPConfiguration `default`, Services, EndpointSlices, the local Node's label, process settings. Never: reads the
//! kernel, or keeps state: what a Service had before does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::{Family, IpPrefix, Prefix};

use super::inputs::{Inputs, Problems};
use crate::model::{Code, EndpointSlice, NamespacedName, Service, ServiceType, TrafficPolicy};
use crate::policy::prefix_set::PrefixSet;
use crate::policy::sets::{SetId, Sets};

/// The label that takes a node out of the announcement of services (SVC-5).
const EXCLUSION_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Where most of what is wrong with services is written.
const CONFIGURATION: &str = "BGPConfiguration/default";

/// The ranges that BGPConfiguration names, each list in its order.
struct Ranges {
    cluster: Vec<IpPrefix>,
    external: Vec<IpPrefix>,
    load_balancer: Vec<IpPrefix>,
    /// Where the cluster ranges come from.
    cluster_words: Arc<str>,
}

/// What follows from Services and their ranges, for both families. Prefixes with the resource that they come from.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Static routes of this node (SVC-30).
    routes: BTreeMap<IpPrefix, Arc<str>>,
    /// What the kernel is not given, with all that lies inside (SVC-31).
    rejects: BTreeMap<IpPrefix, Arc<str>>,
    /// What this node passes on as a route reflector (FILT-33).
    reflected: BTreeMap<IpPrefix, Arc<str>>,
}

impl Services {
    /// The static routes of a family.
    pub(super) fn statics<F: Family>(&self) -> impl Iterator<Item = Prefix<F>> {
        self.routes.keys().filter_map(|prefix| Prefix::from_ip(*prefix))
    }

    /// Puts its prefixes of a family into the sets that programs name.
    pub(super) fn fill<F: Family>(&self, sets: &mut Sets) {
        for (set, content) in [
            (SetId::ServiceRoutes, &self.routes),
            (SetId::ServiceRejects, &self.rejects),
            (SetId::ReflectedServices, &self.reflected),
        ] {
            let of_family = content.iter().filter(|(prefix, _)| prefix.afi() == F::AFI);
            sets.put(set, PrefixSet::new(of_family.map(|(prefix, words)| (*prefix, words.clone()))));
        }
    }
}

/// Which addresses of Services this node announces.
pub(super) fn services(inputs: &Inputs<'_>, problems: &mut Problems) -> Services {
    let ranges = ranges(inputs, problems);
    let mut services = Services::default();
    let config: Arc<str> = CONFIGURATION.into();
    let external = (&ranges.external, inputs.release.release.has_single_external_ips());
    let load_balancer = (&ranges.load_balancer, inputs.release.release.has_single_load_balancer_ips());
    let aggregation = inputs.global.load_balancer_aggregation != Some(false);
    // SVC-10; REL-9: older releases take a single address for a range.
    let aggregates = |(list, singles): (&Vec<IpPrefix>, bool)| -> Vec<IpPrefix> {
        list.iter().filter(|cidr| !(singles && cidr.is_host())).copied().collect()
    };
    let mut announced: BTreeMap<IpPrefix, Arc<str>> = BTreeMap::new();
    announced.extend(ranges.cluster.iter().map(|cidr| (*cidr, ranges.cluster_words.clone())));
    announced.extend(aggregates(external).into_iter().map(|cidr| (cidr, config.clone())));
    if aggregation {
        announced.extend(aggregates(load_balancer).into_iter().map(|cidr| (cidr, config.clone())));
    }
    services.rejects.clone_from(&announced);
    if inputs.local.cluster_id.is_some() {
        let lists = ranges.load_balancer.iter().chain(&ranges.external);
        services.reflected = lists.map(|cidr| (*cidr, config.clone())).collect();
    }
    if is_excluded(inputs, problems) {
        return services;
    }
    services.routes = announced;
    host_routes(inputs, &ranges, aggregation, &mut services.routes);
    keep_nodes_reachable(inputs, &mut services, problems);
    services
}

/// SVC-1, SVC-4.
fn ranges(inputs: &Inputs<'_>, problems: &mut Problems) -> Ranges {
    let global = inputs.global;
    let mut ranges = Ranges {
        cluster: global.service_cluster_ips.clone(),
        external: global.service_external_ips.clone(),
        load_balancer: global.service_load_balancer_ips.clone(),
        cluster_words: CONFIGURATION.into(),
    };
    if let Some(text) = inputs.facts.advertise_cluster_ips.as_deref().filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(cidr) => {
                ranges.cluster = vec![cidr];
                ranges.cluster_words = "environment CALICO_ADVERTISE_CLUSTER_IPS".into();
            }
            Err(_) => {
                let why = format!("{text:?} is no CIDR: serviceClusterIPs of BGPConfiguration default count");
                problems.add(Code::InvalidSetting, "environment", "CALICO_ADVERTISE_CLUSTER_IPS", why);
            }
        }
    }
    ranges
}

/// SVC-5; REL-9: older releases know no such label.
fn is_excluded(inputs: &Inputs<'_>, problems: &mut Problems) -> bool {
    match inputs.local.labels.get(EXCLUSION_LABEL).map(String::as_str) {
        None => false,
        Some("true") => inputs.release.release.excludes_labelled_nodes(),
        Some(value) => {
            let why = format!(
                "label {EXCLUSION_LABEL} has the value {value:?}: only `true` keeps this node from announcing services"
            );
            problems.add(
                Code::UnknownLabelValue,
                format!("Node/{}", inputs.local.name),
                "metadata.labels",
                why,
            );
            false
        }
    }
}

/// Adds the routes of single addresses (SVC-23).
fn host_routes(
    inputs: &Inputs<'_>,
    ranges: &Ranges,
    aggregation: bool,
    routes: &mut BTreeMap<IpPrefix, Arc<str>>,
) {
    if ranges.cluster.is_empty() && ranges.external.is_empty() && ranges.load_balancer.is_empty() {
        return;
    }
    let mut slices: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in inputs.snapshot.endpoint_slices.values() {
        if let Some(service) = &slice.service {
            slices.entry((&slice.name.namespace, service)).or_default().push(slice);
        }
    }
    let decision = Decision {
        node: inputs.facts.kubernetes_node.as_deref().unwrap_or(&inputs.local.name),
        single_external: singles(&ranges.external, inputs.release.release.has_single_external_ips()),
        single_load_balancer: singles(
            &ranges.load_balancer,
            inputs.release.release.has_single_load_balancer_ips(),
        ),
        aggregation,
    };
    let within = |list: &[IpPrefix], addr: IpAddr| list.iter().any(|cidr| cidr.contains(addr));
    for (name, service) in &inputs.snapshot.services {
        let NamespacedName { namespace, name: plain } = name;
        let slices = slices.get(&(namespace.as_str(), plain.as_str())).map_or(&[][..], Vec::as_slice);
        if !decision.announces(service, slices) {
            continue;
        }
        let words: Arc<str> = format!("Service/{name}").into();
        // Whether a cluster IP lies in a cluster range is not asked.
        let cluster = service.cluster_ips.iter().filter(|_| !ranges.cluster.is_empty());
        let external = service.external_ips.iter().filter(|addr| within(&ranges.external, **addr));
        let ingress = service.ingress_ips.iter().filter(|addr| within(&ranges.load_balancer, **addr));
        for addr in cluster.chain(external).chain(ingress) {
            routes.entry(IpPrefix::host(*addr)).or_insert_with(|| words.clone());
        }
    }
}

/// The single addresses of a list, where the release knows them as such.
fn singles(list: &[IpPrefix], known: bool) -> BTreeSet<IpAddr> {
    list.iter().filter(|cidr| known && cidr.is_host()).map(|cidr| cidr.addr()).collect()
}

/// What decides whether a Service has routes of its own (SVC-20), but for the exclusion of the whole node.
struct Decision<'a> {
    /// The name of this node in EndpointSlices.
    node: &'a str,
    single_external: BTreeSet<IpAddr>,
    single_load_balancer: BTreeSet<IpAddr>,
    aggregation: bool,
}

impl Decision<'_> {
    fn announces(&self, service: &Service, slices: &[&EndpointSlice]) -> bool {
        // Rows 1, 3 and 4.
        if slices.is_empty() || service.service_type == ServiceType::Other || service.cluster_ip.is_none() {
            return false;
        }
        let cluster_policy = service.traffic_policy == Some(TrafficPolicy::Cluster);
        let local_policy = service.traffic_policy == Some(TrafficPolicy::Local);
        let balanced = service.ingress_ips.iter().chain(&service.load_balancer_ip);
        // Rows 5 and 6: no endpoint is asked for (SVC-22).
        if cluster_policy
            && ((service.service_type == ServiceType::LoadBalancer
                && balanced.into_iter().any(|addr| self.single_load_balancer.contains(addr)))
                || service.external_ips.iter().any(|addr| self.single_external.contains(addr)))
        {
            return true;
        }
        // Rows 7 to 9.
        (local_policy || !self.aggregation)
            && slices.iter().any(|slice| self.has_endpoint(service, slice, local_policy))
    }

    /// SVC-21.
    fn has_endpoint(&self, service: &Service, slice: &EndpointSlice, here: bool) -> bool {
        slice.family.is_some_and(|family| service.ip_families.contains(&family))
            && slice
                .endpoints
                .iter()
                .any(|endpoint| endpoint.ready && (!here || endpoint.node.as_deref() == Some(self.node)))
    }
}

/// K8: a blackhole in the kernel for the address of a node would cut it off; the address is announced all the same.
fn keep_nodes_reachable(inputs: &Inputs<'_>, services: &mut Services, problems: &mut Problems) {
    for node in inputs.snapshot.nodes.values() {
        let addresses = [node.ipv4.map(|own| IpAddr::from(own.addr)), node.ipv6.map(|own| own.addr.into())];
        for address in addresses.into_iter().flatten().map(IpPrefix::host) {
            let Some(words) = services.routes.get(&address) else { continue };
            let why = format!(
                "{} is the address of Node/{} too: the kernel is not given a blackhole for it",
                address.addr(),
                node.name
            );
            problems.add(Code::ServiceOnNodeAddress, &**words, "", why);
            services.rejects.insert(address, words.clone());
        }
    }
}
