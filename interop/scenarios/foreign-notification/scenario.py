"""NOTIFICATIONs in both directions: the reason is shown in words, and the session comes back."""

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)
# those whose shutdown carries a text of the operator (RFC 9003)
TEXT = {"frr", "openbgpd"}


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd"}, restart=0).start()
    here, there = cluster["node-2"], cluster["node-1"]
    cluster.settled()

    there.daemon.shut(here.host.v4)
    words = ["administrative"] + ["closed by the lab"] * (variant in TEXT)
    if variant == "exabgp":
        # its teardown comes back by itself: the session may be up before one can look
        wait.until("the shutdown is in the log", lambda: "administrative" in here.daemon.log().lower(), 30)
    else:
        wait.until("the shutdown is shown", lambda: shown(here, there.host.v4, *words), 30)
        wait.check("the other family's session is up", here.daemon.established(there.host.v6))
    there.daemon.unshut(here.host.v4)
    cluster.settled()
    lab.say("a shutdown is shown")

    # the datastore says another AS than the daemon has
    cluster.datastore.put(calico.node(there.host, 64999))
    wait.until("both AS numbers are shown", lambda: shown(here, there.host.v4, "64999", "64512"), 60)
    wait.until("both AS numbers are shown", lambda: shown(here, there.host.v6, "64999", "64512"), 60)
    cluster.datastore.put(calico.node(there.host))
    cluster.settled(90)
    lab.say("an AS mismatch is shown")


def shown(node, address, *words):
    told = str(node.daemon.peers()[address])
    lacking = [w for w in words if w.lower() not in told.lower()]
    return f"!{address} is told as {told}: no {', '.join(lacking)}" if lacking else True
