"""A foreign daemon is killed: its routes stay, are refreshed when it returns, and go at the timer when it does not."""

import time

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)
RESTART = 15


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd"}, restart=RESTART)
    here, there = cluster["node-2"], cluster["node-1"]
    cluster.claim_second(["node-1"])
    cluster.start().settled()
    # OpenBGPD names no family in its graceful restart capability
    keeps = variant != "openbgpd"

    there.daemon.kill()
    wait.until("its end is noticed", lambda: all(here.daemon.state(a) != "Established" for a in there.addresses()), 20)
    if keeps:
        wait.stays("its routes", lambda: cluster.blocks_everywhere("node-2"), 3)
    else:
        wait.until("its routes are gone", lambda: set(here.host.kernel()) == set(here.blocks), 10)
    cluster.give_back_first(["node-1"])
    there.daemon.start(restarting=True)
    cluster.settled()
    lab.say("it returned; what it no longer sends is gone")

    there.daemon.kill()
    gone = time.monotonic()
    wait.until("its end is noticed", lambda: all(here.daemon.state(a) != "Established" for a in there.addresses()), 20)
    if keeps:
        wait.stays("its routes", lambda: cluster.blocks_everywhere("node-2"), 6)
    wait.until("its routes are gone", lambda: set(here.host.kernel()) == set(here.blocks), RESTART + 15)
    lab.say(f"its routes went after {time.monotonic() - gone:.0f} s")
