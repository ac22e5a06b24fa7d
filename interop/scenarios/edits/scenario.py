"""The edits of a running cluster, done and undone under a probe: sessions stay, and no packet is lost."""

import dataclasses

from lib import calico, traffic, wait
from lib.calico import EtcdDatastore
from lib.cluster import Cluster
from lib.etcd import Etcd

NEEDS = ["calico-bgpd", "etcd"]
VARIANTS = ["cluster", "peer"]
SECONDS = 400


def when(variant):
    return "soak" if variant == "cluster" else "always"


# how long it is watched that an edit changes nothing: what a daemon does at all, it does within some tens of milliseconds
WATCHED = 1.0


@dataclasses.dataclass
class Edit:
    """Resources that are written, and those that are deleted. Undone, the first are as before (or gone, where they are new)."""

    words: str
    put: list
    delete: list = dataclasses.field(default_factory=list)
    # nodes some of whose sessions end or begin by it; others must keep all of theirs
    sessions: tuple = ()
    # why packets may be lost
    loses: str = ""


class Datastore:
    """Remembers what it holds, so that an edit can be undone."""

    def __init__(self, below):
        self.below, self.held = below, {}

    def environment(self):
        return self.below.environment()

    def put(self, *items):
        for item in items:
            self.held[item["kind"], item["metadata"]["name"]] = item
            self.below.put(item)

    def delete(self, *items):
        for item in items:
            del self.held[item["kind"], item["metadata"]["name"]]
            self.below.delete(item)

    def do(self, edit):
        """Answers what undoes it."""
        before = [self.held.get((item["kind"], item["metadata"]["name"])) for item in edit.put]
        # backwards: a peering is as before while the labels that it asked for still are there
        undo = Edit(edit.words, [*edit.delete, *(b for b in reversed(before) if b)], [new for new, b in zip(edit.put, before, strict=True) if not b])
        self.put(*edit.put)
        self.delete(*edit.delete)
        return undo


def configuration(**spec):
    return [calico.configuration(**spec)]


def of_the_cluster(nodes):
    """Edits of a mesh. Node 2 is the one that is edited."""
    two = nodes["node-2"].host
    every = ("node-1", "node-2", "node-3")
    pools = [("pool-v4", "10.244.0.0/16")]
    pool = lambda **spec: [calico.pool(*pools[0], **spec)]  # noqa: E731
    node = lambda labels=None, asn=None, **bgp: [calico.node(two, asn, labels, **bgp)]  # noqa: E731
    stranger = calico.resource("Node", "node-4", {"bgp": {"ipv4Address": "10.0.0.44/24"}})
    return [
        Edit("Node asNumber", node(asn=64999), sessions=every),
        Edit("Node routeReflectorClusterID", node(routeReflectorClusterID="244.0.0.1"), sessions=every, loses="the node leaves the mesh"),
        Edit("global asNumber", configuration(asNumber=64513), sessions=every),
        Edit("nodeMeshMaxRestartTime 3m", configuration(nodeMeshMaxRestartTime="3m")),
        Edit("listenPort", configuration(listenPort=1179), sessions=every, loses="a session with another port is another session"),
        Edit("ignoredInterfaces", configuration(ignoredInterfaces=["x*"])),
        Edit("Node rewritten", node()),
        Edit("Node labels", node(labels={"zone": "a"})),
        Edit("Node asNumber equal to the global one", node(asn=64512)),
        Edit("another Node added", [stranger]),
        Edit("IPv6 address removed", node(ipv6Address=None), sessions=every, loses="over IPv6, which the node no longer speaks"),
        Edit("block added", [calico.block(two, "10.244.2.64/26")]),
        Edit("IPPool added", [calico.pool("other", "10.245.0.0/16")]),
        Edit("IPPool disableBGPExport", pool(disableBGPExport=True), loses="the pool's routes are withdrawn"),
        Edit("ClusterInformation of an older release", [calico.cluster("v3.26.0")]),
        # from v3.33 on these routes would be Felix's, and there is none here
        Edit("IPPool ipipMode CrossSubnet", [calico.cluster("v3.26.0"), *pool(ipipMode="CrossSubnet")]),
        Edit("nodeMeshMaxRestartTime 120s", configuration(nodeMeshMaxRestartTime="120s")),
        Edit("logSeverityScreen", configuration(logSeverityScreen="Debug")),
        Edit("logSeverityScreen of a node", [calico.resource("BGPConfiguration", "node.node-2", {"logSeverityScreen": "Debug"})]),
        Edit("serviceClusterIPs", configuration(serviceClusterIPs=[{"cidr": "10.96.0.0/12"}])),
        Edit("serviceExternalIPs, serviceLoadBalancerIPs", configuration(serviceExternalIPs=[{"cidr": "203.0.113.0/24"}],
                                                                         serviceLoadBalancerIPs=[{"cidr": "198.51.100.0/24"}])),
        Edit("communities, prefixAdvertisements", configuration(communities=[{"name": "a", "value": "64512:7"}],
                                                                prefixAdvertisements=[{"cidr": "10.244.0.0/16", "communities": ["a"]}])),
        Edit("ipv4NormalRoutePriority", configuration(ipv4NormalRoutePriority=2000)),
        Edit("programClusterRoutes", configuration(programClusterRoutes="Enabled")),
        Edit("unused BGPFilter", [rules("Reject")]),
        Edit("bindMode NodeIP", configuration(bindMode="NodeIP")),
        Edit("a BGPPeer equal to the mesh's session", [calico.peer("a", node="node-1", peerIP=two.v4, asNumber=64512)]),
    ]


def rules(action):
    return calico.resource("BGPFilter", "f", {"exportV4": [{"action": action, "matchOperator": "In", "cidr": "192.0.2.0/24"}]})


def of_a_peer(nodes):
    """Edits of the BGPPeer by which node 1 and node 2 have their session; node 2 has it as the reverse of node 1's."""
    two = nodes["node-2"].host
    both = ("node-1", "node-2")
    base = {"node": "node-1", "peerIP": two.v4, "asNumber": 64512}

    def change(words, sessions=(), loses="", drop=(), **spec):
        return Edit(words, [calico.peer("a", **{k: v for k, v in (base | spec).items() if k not in drop})], sessions=sessions, loses=loses)

    labels = [calico.node(nodes[name].host, labels={"name": name}) for name in both]
    return [
        change("BGPPeer keepaliveTime", keepaliveTime="20s"),
        change("BGPPeer maxRestartTime", maxRestartTime="60s"),
        change("BGPPeer nextHopMode Self", nextHopMode="Self"),
        change("BGPPeer nextHopMode Keep", nextHopMode="Keep"),
        change("BGPPeer nextHopMode Auto", nextHopMode="Auto"),
        change("BGPPeer sourceAddress None", sourceAddress="None"),
        change("BGPPeer numAllowedLocalASNumbers", numAllowedLocalASNumbers=1),
        change("BGPPeer ttlSecurity", ttlSecurity=1, sessions=both),
        change("BGPPeer port 179 written", peerIP=f"{two.v4}:179"),
        change("BGPPeer made global", drop=("node",)),
        change("BGPPeer localASNumber", localASNumber=65010, sessions=both, loses="the other end does not know this AS"),
        change("BGPPeer asNumber wrong", asNumber=65010, sessions=both, loses="the peer is another one"),
        change("BGPPeer rewritten"),
        Edit("BGPPeer filters", [rules("Reject"), calico.peer("a", **base, filters=["f"])]),
        change("BGPPeer reachableBy", reachableBy="10.0.0.2"),
        Edit("BGPPeer renamed", [calico.peer("b", **base)], [calico.peer("a", **base)]),
        Edit("BGPPeer node to nodeSelector", [*labels, calico.peer("a", nodeSelector="name == 'node-1'", peerIP=two.v4, asNumber=64512)]),
        Edit("BGPPeer peerIP to peerSelector", [*labels, calico.peer("a", node="node-1", peerSelector="name == 'node-2'")]),
        Edit("nodeToNodeMeshEnabled beside the BGPPeer", configuration()),
    ]


def run(lab, variant):
    etcd = Etcd(lab.host("etcd", 250)).start()
    datastore = Datastore(EtcdDatastore(etcd))
    cluster = Cluster(lab, datastore, dict.fromkeys(("node-1", "node-2", "node-3"), "calico-bgpd")).start()
    cluster.settled()
    one, two = cluster["node-1"], cluster["node-2"]
    pods = {node: node.host.pod("a", f"10.244.{node.host.number}.10", f"fd00:10:244:{node.host.number:x}::a") for node in (one, two)}
    ways = [(one, "10.244.2.10"), (two, "10.244.1.10")]
    edits = of_a_peer(cluster.nodes)
    if variant == "cluster":
        ways += [(one, "fd00:10:244:2::a")]
        edits = of_the_cluster(cluster.nodes)
    for node, to in ways:
        traffic.echo(lab, pods[one if node is two else two], to)
    if variant == "peer":
        datastore.put(calico.peer("a", node="node-1", peerIP=two.host.v4, asNumber=64512), *configuration(nodeToNodeMeshEnabled=False))
        wait.until("only the peering is left", lambda: len(sessions(one)) == 1 and not sessions(cluster["node-3"]), 30)

    wrong = []
    for edit in edits:
        before = {name: (sessions(node), kernel(node)) for name, node in cluster.nodes.items()}
        probes = [traffic.Probe(lab, pods[node], to) for node, to in ways]
        undo = datastore.do(edit)
        told = watch(edit, cluster, before)
        datastore.do(undo)
        told += watch(edit, cluster, before)
        told += returned(edit, cluster, before)
        found = {probe.name: probe.end() for probe in probes}
        lost = {name: result["lost"] for name, result in found.items() if result["lost"] or result["errors"]}
        if lost and not edit.loses:
            told.append(f"lost {lost}")
        if any(result["sent"] < 100 for result in found.values()):
            told.append("the probe did not run")
        why = f" ({edit.loses})" if lost and edit.loses else ""
        lab.say(f"{edit.words}: sessions {'changed' if edit.sessions else 'kept'}, lost {lost or 'nothing'}{why}{'; NOT SO: ' if told else ''}{'; '.join(told)}")
        wrong += [f"{edit.words}: {text}" for text in told]
    wait.check(f"{len(edits)} edits cost what they have to", not wrong or f"!{'; '.join(wrong)}")


def sessions(node):
    """address → the connection of each session that is up: another one after a new session."""
    return {address: node.host.connections(address) for address, peer in node.daemon.peers().items() if peer["state"] == "Established"}


def kernel(node):
    return node.host.hops()


def watch(edit, cluster, before):
    """What of the sessions that an edit must not cost has changed while they were watched."""
    kept = [node for name, node in cluster.nodes.items() if name not in edit.sessions]
    if not kept:
        try:
            wait.until("every daemon has acted", lambda: any(sessions(node) != before[node.name][0] for node in cluster.nodes.values()), 10)
        except wait.Failed as failure:
            return [str(failure)]
        # A second restart before the first is over costs the routes that are kept from the first (RFC 4724, section 4.2).
        return [] if edit.loses else again(cluster, before)
    try:
        # more sessions may have come
        wait.stays("sessions", lambda: all(before[node.name][0].items() <= sessions(node).items() for node in kept), WATCHED)
    except wait.Failed:
        return [f"sessions of {node.name} {before[node.name][0]} became {sessions(node)}" for node in kept
                if not before[node.name][0].items() <= sessions(node).items()]
    return []


def again(cluster, before):
    """What is wrong where all sessions are to be up again, and stay so."""
    def up():
        return all(set(sessions(node)) == set(before[node.name][0]) for node in cluster.nodes.values())

    try:
        wait.until("all sessions are up again", up, 30)
        wait.stays("sessions", up, WATCHED)
    except wait.Failed as failure:
        return [str(failure)]
    return []


def returned(edit, cluster, before):
    """After it was undone: the same peers are up, and the kernels hold what they held."""
    def same():
        for node in cluster.nodes.values():
            up, routes = before[node.name]
            for what, have, want in (("sessions", set(sessions(node)), set(up)), ("routes", kernel(node), routes)):
                value = wait.equal(f"{what} of {node.name}", have, want)
                if value is not True:
                    return value
        return True

    try:
        wait.until("all is as before", same, 60)
    except wait.Failed as failure:
        return [str(failure)]
    return []
