//! What every part of the compilation may look at, and where it says what is wrong.
//!
//! Owns: [`Inputs`], with the indexes that are made once for all parts: Nodes by address and by label, and what each
//! selector selects. Never: decides anything of its own.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use super::{ClusterRelease, ClusterRoutes, NodeFacts};
use crate::model::selector::{Expression, Test};
use crate::model::snapshot::Snapshot;
use crate::model::{BgpConfiguration, Code, Node, Problem, Selector};

/// What every part of the compilation may look at.
pub(super) struct Inputs<'a> {
    /// The datastore.
    pub(super) snapshot: &'a Snapshot,
    /// Process settings.
    pub(super) facts: &'a NodeFacts,
    /// The local Node.
    pub(super) local: &'a Node,
    /// BGPConfiguration `default`, or all defaults where there is none (NODE-42).
    pub(super) global: &'a BgpConfiguration,
    /// The release in force.
    pub(super) release: ClusterRelease,
    /// Who writes which pool's routes.
    pub(super) cluster_routes: ClusterRoutes,
    /// All Nodes, in order of their names.
    pub(super) nodes: Nodes<'a>,
}

/// All Nodes, with what finds them.
pub(super) struct Nodes<'a> {
    all: Rc<Vec<&'a Node>>,
    /// In order of addresses; of each address the first counts.
    by_address: Vec<(IpAddr, &'a Node)>,
    /// Listening ports of their own, by name.
    ports: BTreeMap<&'a str, u16>,
    /// Places in `all` by label and value; made when a selector first asks.
    by_label: OnceCell<BTreeMap<&'a str, BTreeMap<&'a str, Vec<usize>>>>,
    selected: RefCell<BTreeMap<&'a str, Rc<Vec<&'a Node>>>>,
}

impl<'a> Nodes<'a> {
    /// Of what the datastore has.
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let all: Vec<&Node> = snapshot.nodes.values().map(|node| &**node).collect();
        let mut by_address = Vec::with_capacity(all.len());
        for node in &all {
            let addresses = [node.ipv4.map(|at| at.addr.into()), node.ipv6.map(|at| at.addr.into())];
            by_address.extend(addresses.into_iter().flatten().map(|address| (address, *node)));
        }
        // They come in order of their names, and of two with one address the lower name counts (T22).
        by_address.sort_by_key(|(address, _)| *address);
        let ports = snapshot.bgp_configurations.iter().filter_map(|(name, config)| {
            Some((name.strip_prefix("node.")?, config.listen_port.filter(|port| *port != 0)?))
        });
        let ports = ports.collect();
        Nodes {
            all: Rc::new(all),
            by_address,
            ports,
            by_label: OnceCell::new(),
            selected: RefCell::default(),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Rc<Vec<&'a Node>> {
        self.all.clone()
    }

    /// The Node with this address (PEER-27: compared as addresses).
    pub(super) fn at(&self, address: IpAddr) -> Option<&'a Node> {
        let place = self.by_address.partition_point(|(other, _)| *other < address);
        self.by_address.get(place).filter(|(found, _)| *found == address).map(|(_, node)| *node)
    }

    /// The port that the Node's own configuration sets.
    pub(super) fn port(&self, name: &str) -> Option<u16> {
        self.ports.get(name).copied()
    }

    /// Those that a selector selects.
    pub(super) fn selected(&self, selector: &'a Selector) -> Rc<Vec<&'a Node>> {
        if let Some(known) = self.selected.borrow().get(selector.text()) {
            return known.clone();
        }
        let nodes = |places: BTreeSet<usize>| {
            places.into_iter().filter_map(|place| self.all.get(place).copied()).collect::<Vec<_>>()
        };
        let mut found = match self.perhaps(selector.expression()) {
            Some(places) => nodes(places),
            None => self.all.to_vec(),
        };
        found.retain(|node| selector.matches(&node.labels));
        let found = Rc::new(found);
        self.selected.borrow_mut().insert(selector.text(), found.clone());
        found
    }

    /// Places of all Nodes that can match, and of some that do not; `None` where that would be nearly all.
    fn perhaps(&self, expression: &Expression) -> Option<BTreeSet<usize>> {
        let labels = self.by_label();
        let with = |label: &String, value: &String| {
            labels.get(label.as_str()).and_then(|values| values.get(value.as_str())).into_iter().flatten()
        };
        match expression {
            Expression::All | Expression::Not(_) => None,
            Expression::Nothing => Some(BTreeSet::new()),
            Expression::Value(label, Test::Is(value)) => Some(with(label, value).copied().collect()),
            Expression::Value(label, Test::In(values)) => {
                Some(values.iter().flat_map(|value| with(label, value)).copied().collect())
            }
            Expression::Has(label) | Expression::Value(label, _) => {
                let values = labels.get(label.as_str()).into_iter().flat_map(BTreeMap::values);
                Some(values.flatten().copied().collect())
            }
            Expression::And(all) => all.iter().filter_map(|one| self.perhaps(one)).min_by_key(BTreeSet::len),
            Expression::Or(any) => {
                any.iter().map(|one| self.perhaps(one)).try_fold(BTreeSet::new(), |mut found, more| {
                    found.extend(more?);
                    Some(found)
                })
            }
        }
    }

    fn by_label(&self) -> &BTreeMap<&'a str, BTreeMap<&'a str, Vec<usize>>> {
        self.by_label.get_or_init(|| {
            let mut index: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
            for (place, node) in self.all.iter().enumerate() {
                for (label, value) in &node.labels {
                    index.entry(label).or_default().entry(value).or_default().push(place);
                }
            }
            index
        })
    }
}

/// Problems as they are found.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// Adds one.
    pub(super) fn add(
        &mut self,
        code: Code,
        resource: impl Into<String>,
        field: &str,
        why: impl Into<String>,
    ) {
        self.0.push(Problem { resource: resource.into(), field: field.to_owned(), why: why.into(), code });
    }

    /// All of them in a stable order, each once.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
