"""Two clusters of route reflectors with clients of every foreign daemon: originator, cluster list, withdrawals, no loops."""

from lib import calico, wait
from lib.bird import Bird1
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.daemon import Neighbour
from lib.drivers import FOREIGN

VARIANTS = ["beside-bird1", "beside-ours"]
SECONDS = 200
ASN = 64512
# a client of each kind for the first reflector; of `both` reflectors, and of the second alone
FIRST = ["bird1", "bird2", "gobgp3", "gobgp4", "frr", "openbgpd", "exabgp"]
CLUSTERS = {"one": "244.0.0.1", "two": "244.0.0.2"}
# what its driver tells lacks ORIGINATOR_ID and CLUSTER_LIST
SILENT = ("openbgpd",)


def needs(variant):
    return ["calico-bgpd", *FIRST]


class Client:
    def __init__(self, host, kind, clusters):
        self.host, self.kind, self.clusters = host, kind, clusters
        self.daemon, self.blocks = None, calico.blocks_of(host)


def ends(host, others, **fields):
    """The sessions of a host with others; the one whose address is the greater text dials, as Calico has it."""
    return [Neighbour(other.address(f), ASN, passive=other.address(f) > host.address(f), **fields) for other in others for f in (4, 6)]


def run(lab, variant):
    one, two = lab.host("rr-1", 1), lab.host("rr-2", 2)
    reflectors = {"one": one, "two": two}
    clients = [Client(lab.host(kind, number), kind, ("one",)) for number, kind in enumerate(FIRST, 11)]
    clients += [Client(lab.host("both", 30), "bird2", ("one", "two")), Client(lab.host("far", 31), "bird1", ("two",))]

    datastore = FileDatastore(lab.out / "datastore")
    datastore.put(*calico.base(nodeToNodeMeshEnabled=False))
    for name, host in reflectors.items():
        datastore.put(calico.node(host, labels={"reflector": name}, routeReflectorClusterID=CLUSTERS[name]))
        datastore.put(calico.peer(f"cluster-{name}", nodeSelector=f"reflector == '{name}'", peerSelector=f"has({name})"),
                      calico.peer(f"cluster-{name}-clients", nodeSelector=f"has({name})", peerSelector=f"reflector == '{name}'"))
    datastore.put(calico.peer("reflectors", nodeSelector="has(reflector)", peerSelector="has(reflector)"))
    for client in clients:
        datastore.put(calico.node(client.host, labels=dict.fromkeys(client.clusters, "")))
        client.daemon = FOREIGN[client.kind](client.host, ASN, ends(client.host, [reflectors[c] for c in client.clusters]), client.blocks)
    daemons = [CalicoBgpd(one, datastore)]
    if variant == "beside-ours":
        daemons.append(CalicoBgpd(two, datastore))
    else:
        seconds = [c.host for c in clients if "two" in c.clusters]
        daemons.append(Bird1(two, ASN, ends(two, [one, *seconds], cluster=CLUSTERS["two"])))
    # one of them dials once in two minutes where nobody listened
    for daemon in daemons:
        daemon.start()
    wait.until("the reflectors listen", lambda: all(len(h.run("ss", "-Htln", "sport = :179").splitlines()) == 2 for h in (one, two)), 30)
    for client in clients:
        client.daemon.start()
    wait.until("all clients have their sessions", lambda: next((v for v in (c.daemon.established_all() for c in clients) if v is not True), True), 90)

    def right(client):
        """Whether a client has of each of its reflectors all blocks of the others, as they should be, and nothing else."""
        for name in client.clusters:
            for family in (4, 6):
                address = reflectors[name].address(family)
                found = client.daemon.paths(address)
                wanted = {b for other in clients if other is not client for b in other.blocks if calico.net.version(b) == family}
                value = wait.equal(f"prefixes that {client.host.name} has from {address}", {p for p, _ in found}, wanted)
                if value is not True:
                    return value
                for prefix, route in found:
                    owner = next(other for other in clients if prefix in other.blocks)
                    if route.next_hop not in (owner.host.address(family), owner.host.link_local):
                        return f"!{client.host.name} has {prefix} over {route.next_hop}, which is not {owner.host.name}"
                    if client.kind in SILENT:
                        continue
                    other = "two" if name == "one" else "one"
                    ways = [(CLUSTERS[c],) if c == name else (CLUSTERS[name], CLUSTERS[other]) for c in owner.clusters]
                    if name == "two" and variant == "beside-bird1":
                        # RFC 4456 wants it in front; BIRD 1.6 puts its own behind
                        ways = [way[::-1] for way in ways]
                    if route.originator != owner.host.v4 or route.clusters not in ways:
                        return f"!{client.host.name} has {prefix} of {owner.host.name} from {address} as {route}, expected by way of {ways}"
        return True

    def all_right():
        return next((v for v in map(right, clients) if v is not True), True)

    def silent():
        """Nothing goes round: nobody is told anything any more."""
        return [client.daemon.updates(reflectors[c].address(f)) for client in clients for c in client.clusters for f in (4, 6)]

    wait.until("every client has the others' blocks", all_right, 60)
    lab.say("all blocks are reflected")
    for client in clients:
        for cidr in calico.second_blocks_of(client.host):
            client.daemon.announce(cidr)
            client.blocks.append(cidr)
    wait.until("new blocks are everywhere", all_right, 30)
    for client in clients:
        for cidr in calico.blocks_of(client.host):
            client.daemon.withdraw(cidr)
            client.blocks.remove(cidr)
    wait.until("withdrawn blocks are gone everywhere", all_right, 30)
    told = silent()
    wait.stays("the reflectors are silent", lambda: wait.equal("updates", silent(), told), 5, every=1)
    lab.say("changes are followed, and nothing goes round")

    # what a client of both clusters told each of them must not live on as the other's
    gone = next(c for c in clients if c.host.name == "both")
    gone.daemon.stop()
    clients.remove(gone)
    datastore.delete(calico.node(gone.host))
    if variant == "beside-bird1":
        daemons[1].neighbours = [n for n in daemons[1].neighbours if n.address not in (gone.host.v4, gone.host.v6)]
        daemons[1].reconfigure()
    wait.until("nothing of a client that left is kept alive between the clusters", all_right, 30)
    told = silent()
    wait.stays("the reflectors are silent", lambda: wait.equal("updates", silent(), told), 3, every=1)
