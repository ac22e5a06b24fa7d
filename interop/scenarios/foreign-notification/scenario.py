"""NOTIFICATIONs in both directions: the reason is shown in words, and the session comes back."""

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)
# those whose shutdown carries a text of the operator (RFC 9003)
TEXT = {"bird1", "bird2", "frr", "openbgpd"}


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd"}, restart=0).start()
    here, there = cluster["node-2"], cluster["node-1"]
    cluster.settled()

    there.daemon.shut(here.host.v4)
    words = ["administrative"] + ["closed by the lab"] * (variant in TEXT)
    # GoBGP goes on accepting and closing connections, which is the reason shown by then; ExaBGP's session may be up again before one can look
    wait.until("the shutdown is remembered", lambda: here.daemon.remembers(there.host.v4, *words), 30)
    if variant in TEXT:
        wait.check("the shutdown is shown", here.daemon.tells(there.host.v4, *words))
    if variant != "exabgp":
        wait.check("the other family's session is up", here.daemon.established(there.host.v6))
    there.daemon.unshut(here.host.v4)
    cluster.settled()
    lab.say("a shutdown is shown")

    # the datastore says another AS than the daemon has
    cluster.datastore.put(calico.node(there.host, 64999))
    for address in there.addresses():
        wait.until("both AS numbers are told", lambda a=address: here.daemon.remembers(a, "64999", "64512"), 60)
    cluster.datastore.put(calico.node(there.host))
    cluster.settled(90)
    lab.say("an AS mismatch is shown")
