"""Both ends dial, five times: every session comes up on one connection."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)
SECONDS = 240


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

    for number in range(5):
        if number:
            there.daemon.stop()
            there.daemon.start()
        cluster.settled()
        wait.until("one connection for each session is left", one_each, 20)
        wait.stays("sessions after a collision", one_each, 2)
        lab.say(f"round {number + 1}: up, one connection each")
