"""Both ends dial, as it comes and at the very same moment: every session comes up on one connection."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)
SECONDS = 240
# These are seen to send an OPEN on both connections. The others close one before they have said anything on it.
OPENS_BOTH = {"bird1", "bird2", "frr", "gobgp4"}


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd"}, all_dial=True).start()
    here, there = cluster["node-2"], cluster["node-1"]

    def one_each():
        for address in there.addresses():
            value = wait.equal(f"connections with {address}", len(here.host.connections(address)), 1)
            if value is not True:
                return value
        return cluster.established()

    def both_dial(family):
        return here.host.dials(there.host.address(family)) and there.host.dials(here.host.address(family))

    def spare():
        """OPENs that came on connections which did not become sessions."""
        return sum(p["messagesReceived"]["open"] - p["established"] for p in here.daemon.peers().values()) if here.kind == "calico-bgpd" else 0

    wire = lab.segment.relayed(there.host)
    for number, held in enumerate((None, 4, 6, 4, 6)):
        if number:
            there.daemon.stop()
            # its last words must not be held: who has not heard them does not dial
            wait.until("its end is known", lambda: all(here.daemon.established(a) is not True for a in there.addresses()), 20)
            wire.hold()
            there.daemon.start()
        if held:
            wait.until(f"both ends have dialled over IPv{held}", lambda f=held: both_dial(f), 60, every=0.05)
            wire.release()
        cluster.settled()
        wait.until("one connection for each session is left", one_each, 20)
        wait.stays("sessions after a collision", one_each, 2)
        lab.say(f"round {number + 1}: up, one connection each; {spare()} connections were given up after an OPEN")
    if here.kind == "calico-bgpd" and variant in OPENS_BOTH:
        wait.check("there were two connections at least once", spare() > 0)
