use super::*;
use crate::datastore::files::snapshot_of_texts;
use crate::desired::{NodeFacts, Release, compile};
use crate::fib::fake::FakeKernel;
use crate::fib::{Leg, PROTOCOL, Target};
use crate::model::decode::Reading;
use bgp_proto::Asn;
use bgp_proto::wire::AsPath;
use bgp_proto::wire::Attributes;

const CLUSTER: &str = "
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-1}
spec: {bgp: {ipv4Address: 10.0.0.1/24}}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-2}
spec: {bgp: {ipv4Address: 10.0.0.2/24}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.0.0.254, asNumber: 65001}
";

fn state() -> Arc<DesiredState> {
    let snapshot = snapshot_of_texts("node-1", Reading::default(), &[("cluster.yaml", CLUSTER)]);
    let facts = NodeFacts {
        node_name: "node-1".into(),
        cluster_release: Some(Release::NEWEST),
        ..NodeFacts::default()
    };
    Arc::new(compile(&snapshot, &facts).unwrap())
}

/// A node with one network and what BIRD wrote there, and what BIRD says: a block of the other node, which the router is
/// told too.
struct Node {
    kernel: FakeKernel,
    bird: Incumbent,
}

impl Node {
    fn new() -> Node {
        let mut kernel = FakeKernel::new();
        let eth0 = kernel.add_link("eth0");
        kernel.add_address(eth0, "10.0.0.1/24");
        let via = Leg { via: Some(ip("10.0.0.2")), ifindex: eth0, onlink: false, weight: 1 };
        kernel.add_route(p(BLOCK), PROTOCOL, METRIC, Target::Unicast(smallvec![via]));
        let sessions = vec![
            session("Mesh_10_0_0_2", "10.0.0.2", 64512),
            session("Global_10_0_0_254", "10.0.0.254", 65001),
        ];
        let own = Attributes { local_pref: Some(100), ..Attributes::default() };
        let routes = vec![route("Mesh_10_0_0_2", "10.0.0.2", own.clone())];
        let told = Attributes { as_path: AsPath::sequence([Asn(64512)]), ..own };
        let told = vec![route("Mesh_10_0_0_2", "10.0.0.1", told)];
        let sent = BTreeMap::from([("Global_10_0_0_254".to_owned(), told)]);
        Node { kernel, bird: Incumbent { sessions, routes, sent } }
    }

    fn differences(mut self) -> Vec<String> {
        let mut mirror = Mirror::new();
        mirror.load(self.kernel.snapshot());
        let said = BTreeMap::from([(Afi::Ipv4, self.bird)]);
        compare(&state(), mirror, &said, 1).differences.iter().map(ToString::to_string).collect()
    }
}

const BLOCK: &str = "10.244.2.0/26";
/// Of the newest release.
const METRIC: u32 = 2_147_483_547;

fn p(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn session(name: &str, neighbour: &str, asn: u32) -> BirdSession {
    BirdSession {
        name: name.into(),
        established: true,
        neighbour: ip(neighbour),
        asn: Asn(asn),
        neighbour_id: None,
        source: Some(ip("10.0.0.1")),
        add_path: false,
    }
}

fn route(protocol: &str, next_hop: &str, attributes: Attributes) -> BirdRoute {
    BirdRoute { prefix: p(BLOCK), protocol: protocol.into(), next_hop: Some(ip(next_hop)), attributes }
}

#[test]
fn where_bird_does_what_we_would_do_nothing_differs() {
    assert_eq!(Node::new().differences(), Vec::<String>::new());
}

#[test]
fn a_session_of_another_as_and_one_that_bird_has_alone_are_told() {
    let mut node = Node::new();
    node.bird.sessions[0].asn = Asn(64513);
    node.bird.sessions.push(session("Node_10_0_0_9", "10.0.0.9", 64512));
    node.bird.sessions.last_mut().unwrap().established = false;
    assert_eq!(
        node.differences(),
        [
            "session Mesh_10_0_0_2 (10.0.0.2): AS 64513 in BIRD, 64512 in calico-bgpd",
            "session Node_10_0_0_9 (10.0.0.9): only BIRD has it",
        ]
    );
}

#[test]
fn a_session_that_bird_has_not_is_told() {
    let mut node = Node::new();
    node.bird.sessions.pop();
    node.bird.sent.clear();
    assert_eq!(node.differences(), ["session Global_10_0_0_254 (10.0.0.254): only calico-bgpd has it"]);
}

#[test]
fn a_route_that_the_kernel_has_otherwise_is_told_as_what_would_be_done() {
    let mut node = Node::new();
    node.kernel.remove_route(p(BLOCK), PROTOCOL);
    assert_eq!(
        node.differences(),
        ["kernel: add 10.244.2.0/26 via 10.0.0.2 dev eth0 proto bird metric 2147483547"]
    );
}

#[test]
fn what_a_neighbour_is_sent_otherwise_is_told_with_both_forms() {
    let mut node = Node::new();
    node.bird.sent.get_mut("Global_10_0_0_254").unwrap()[0].attributes.med = Some(7);
    assert_eq!(
        node.differences(),
        [
            "sent to Global_10_0_0_254: 10.244.2.0/26: BIRD: origin IGP, as_path 64512, next_hop 10.0.0.1, med 7; calico-bgpd: origin IGP, \
         as_path 64512, next_hop 10.0.0.1",
        ]
    );
}

#[test]
fn a_neighbour_that_is_away_is_waited_for_by_nobody_and_costs_no_route_of_others() {
    let mut node = Node::new();
    node.bird.sessions[1].established = false;
    node.bird.sent.clear();
    assert_eq!(node.differences(), Vec::<String>::new());
}
