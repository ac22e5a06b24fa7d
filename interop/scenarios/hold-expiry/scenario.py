"""Packets are dropped: the hold timer ends the session and says so; all is back after the cut."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd", "node-3": "calico-bgpd"},
                      hold=6, restart=0).start()
    cluster.settled()
    here, there, other = cluster["node-2"], cluster["node-1"], cluster["node-3"]
    lab.segment.cut(there.host)
    for node in (here, other):
        for address in there.addresses():
            wait.until(f"{node.name} gives {address} up", lambda n=node, a=address: n.daemon.state(a) != "Established", 30)
            if node.kind == "calico-bgpd":
                # by the events too: the first dial after it may have failed already, and that is the reason shown by then
                wait.check("the reason is shown", node.daemon.tells(address, "hold timer expired") is True or node.daemon.remembers(address, "hold timer expired"))
    wait.check("the others' sessions are up", all(here.daemon.established(a) is True for a in other.addresses()))
    wait.until("its routes are gone", lambda: not set(there.blocks) & set(here.host.kernel()), 20)
    wait.check("the others' routes are there", set(other.blocks) <= set(here.host.kernel()))
    lab.segment.heal()
    cluster.settled()
