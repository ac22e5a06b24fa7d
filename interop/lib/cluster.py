"""A Calico cluster in full mesh on the lab's segment: each node run by calico-bgpd or by another daemon."""

import dataclasses
import os

from . import calico, net, wait
from .bird import LOCAL_PREF
from .calico_bgpd import CalicoBgpd
from .daemon import Neighbour
from .drivers import FOREIGN
from .net import canonical, version

ASN = 64512
METRIC = 2147483647 - LOCAL_PREF
# those that keep a node's kernel as Calico has it
AS_CALICO = (CalicoBgpd.kind, "bird1")


class Node:
    """A node of the cluster: its host, its daemon, its blocks."""

    def __init__(self, host, kind, asn):
        # what a lab expects of us can be tried with another daemon in our place (interop/run --stand-in)
        self.ours = kind == CalicoBgpd.kind
        self.kind = os.environ.get("CALICO_BGPD_STAND_IN", kind) if self.ours else kind
        self.host, self.asn, self.name = host, asn, host.name
        self.blocks = [canonical(c) for c in calico.blocks_of(host)]
        self.daemon = None

    @property
    def foreign(self):
        """Whether its daemon has a configuration of its own, not the datastore."""
        return self.kind != CalicoBgpd.kind

    @property
    def folder(self):
        return self.host.folder

    def addresses(self):
        return (self.host.v4, self.host.v6)


class Cluster:
    """`nodes` maps names to kinds of daemon; they get the numbers 1, 2, 3 … in that order. `asns` gives some an AS number of their own.

    The datastore holds a Node and the blocks of every node, whoever runs it. A foreign daemon is configured with the sessions that Calico would give
    a node there: one with each other node, passive where the other's address is the greater string (always active where `all_dial`).
    """

    def __init__(self, lab, datastore, nodes, asns=None, all_dial=False, password=None, **neighbour):
        self.lab, self.datastore = lab, datastore
        neighbour["password"] = password
        self.nodes = {}
        for number, (name, kind) in enumerate(nodes.items(), 1):
            self.nodes[name] = Node(lab.host(name, number), kind, (asns or {}).get(name, ASN))
        if password:
            datastore.put(calico.secret("bgp", mesh=password), *calico.base(nodeMeshPassword={"secretKeyRef": {"name": "bgp", "key": "mesh"}}))
        else:
            datastore.put(*calico.base())
        for node in self.nodes.values():
            datastore.put(calico.node(node.host, None if node.asn == ASN else node.asn), *(calico.block(node.host, b) for b in node.blocks))
        for node in self.nodes.values():
            if node.kind == CalicoBgpd.kind:
                node.daemon = CalicoBgpd(node.host, datastore, node.asn)
            else:
                sessions = [Neighbour(theirs, other.asn, passive=theirs > own and not all_dial, **neighbour) for other in self.others(node)
                            for own, theirs in zip(node.addresses(), other.addresses(), strict=True)]
                node.daemon = FOREIGN[node.kind](node.host, node.asn, sessions, node.blocks)

    def __getitem__(self, name):
        return self.nodes[name]

    def others(self, node):
        """Those that the node has sessions with. Two foreign daemons have none: they would test nothing of ours (BIRD 1.6 is a Calico node like us)."""
        return [n for n in self.nodes.values() if n is not node and (n.ours or node.ours or n.kind == node.kind == "bird1")]

    def start(self):
        later = [n for n in self.nodes.values() if n.daemon.dials_rarely]
        first = [n for n in self.nodes.values() if n not in later]
        for node in first:
            node.daemon.start()
        for node in first if later else ():
            wait.until(f"{node.name} listens", lambda n=node: len(n.host.run("ss", "-Htln", "sport = :179").splitlines()) == 2, 30)
        for node in later:
            node.daemon.start()
        return self

    # --- blocks

    def add_block(self, name, cidr):
        """The node claims a block. A foreign daemon that does not run will have it when it starts."""
        node = self.nodes[name]
        node.blocks.append(canonical(cidr))
        self.datastore.put(calico.block(node.host, cidr))
        self.tell(node, "announce", "append", cidr)

    def remove_block(self, name, cidr):
        """The node gives a block back."""
        node = self.nodes[name]
        node.blocks.remove(canonical(cidr))
        self.datastore.delete(calico.block(node.host, cidr))
        self.tell(node, "withdraw", "remove", cidr)

    @staticmethod
    def tell(node, running, waiting, cidr):
        """What the datastore says to us is said to a foreign daemon: now, or by what it will start with."""
        if node.foreign and node.daemon.processes:
            getattr(node.daemon, running)(cidr)
        elif node.foreign:
            getattr(node.daemon.prefixes, waiting)(canonical(cidr))

    def claim_second(self, names=None):
        """Each node (or those named) claims a second block of each family."""
        for name in names or self.nodes:
            for cidr in calico.second_blocks_of(self.nodes[name].host):
                self.add_block(name, cidr)

    def give_back_first(self, names=None):
        """Each node (or those named) gives back the first block of each family."""
        for name in names or self.nodes:
            for cidr in calico.blocks_of(self.nodes[name].host):
                self.remove_block(name, cidr)

    # --- changes of sessions

    def restart(self, name, **changes):
        """Starts a foreign daemon anew with changed neighbours (see daemon.Neighbour)."""
        daemon = self.nodes[name].daemon
        daemon.stop()
        daemon.neighbours = [dataclasses.replace(n, **changes) for n in daemon.neighbours]
        daemon.start()

    def our_password(self, password):
        """The Secret of the mesh's password gets another value."""
        self.datastore.put(calico.secret("bgp", mesh=password))
        self.stand_in(password=password)

    def strict_ttl(self, name):
        """A BGPPeer with ttlSecurity 1 takes the place of the mesh's sessions with a node, and the node's daemon does the same."""
        node = self.nodes[name]
        for family, address in zip((4, 6), node.addresses(), strict=True):
            self.datastore.put(calico.peer(f"{name}-v{family}", peerIP=address, asNumber=node.asn, ttlSecurity=1))
        self.stand_in(gtsm=True)

    def stand_in(self, **changes):
        """What the datastore says to us is said to a daemon in our place by its configuration."""
        for node in self.nodes.values():
            if node.ours and node.kind != CalicoBgpd.kind:
                for neighbour in node.daemon.neighbours:
                    node.daemon.replace(dataclasses.replace(neighbour, **changes))

    def leave(self, name):
        """The node leaves the cluster: its Node is deleted. Its blocks must be given back before."""
        node = self.nodes.pop(name)
        self.datastore.delete(calico.node(node.host))

    # --- what should be

    def established(self, of=None):
        """Whether all sessions are up, seen from both ends; of: only those of one node, seen from it."""
        for node in [self.nodes[of]] if of else self.nodes.values():
            for other in self.others(node):
                for address in other.addresses():
                    value = node.daemon.established(address)
                    if value is not True:
                        return value
        return True

    def blocks_everywhere(self, at=None):
        """Whether every node (or one) has exactly the routes it should: in its kernel with metric, or received, where it does not keep the kernel as Calico does."""
        for node in [self.nodes[at]] if at else self.nodes.values():
            value = self.kernel_right(node) if node.kind in AS_CALICO else self.received_right(node)
            if value is not True:
                return value
        return True

    def kernel_right(self, node):
        have = {p: (self.owner(net.hop(r)), r.get("metric", 0)) for p, r in node.host.kernel().items()}
        want = {b: ("blackhole", 0 if version(b) == 4 else 1024) for b in node.blocks}
        want |= {b: (other.name, self.metric(node, other)) for other in self.others(node) for b in other.blocks}
        return wait.equal(f"kernel routes of {node.name}", have, want)

    def received_right(self, node):
        known = {b for n in self.nodes.values() for b in n.blocks}
        for other in self.others(node):
            for family, address in zip((4, 6), other.addresses(), strict=True):
                have = {p: self.owner(r.next_hop) for p, r in node.daemon.received(address).items()}
                want = {b: other.name for b in other.blocks if version(b) == family}
                if node.asn != other.asn:
                    # over external sessions daemons pass on what they learnt from others: blocks that exist, but not by the direct way
                    want |= {p: h for p, h in have.items() if p not in want and p in known}
                value = wait.equal(f"routes that {node.name} has from {address}", have, want)
                if value is not True:
                    return value
        return True

    def owner(self, hop):
        """The name of the node that a next hop belongs to (over IPv6 a daemon may give its link-local address, too), else the hop itself."""
        return next((n.name for n in self.nodes.values() if hop in (n.host.v4, n.host.v6, n.host.link_local)), hop)

    @staticmethod
    def metric(node, other):
        """What is left of 2147483647 by LOCAL_PREF: Calico's on internal sessions with daemons that send it, else the default of 100."""
        return METRIC if node.asn == other.asn and other.kind in (*AS_CALICO, "bird2") else 2147483647 - 100

    def all_right(self):
        """Both: for watching that nothing changes."""
        up = self.established()
        return up if up is not True else self.blocks_everywhere()

    def settled(self, seconds=60):
        """Waits until all sessions are up and all blocks are where they should be."""
        wait.until("all sessions are up", self.established, seconds)
        wait.until("every node has every block", self.blocks_everywhere, seconds)

