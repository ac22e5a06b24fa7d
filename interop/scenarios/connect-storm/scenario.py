"""500 dials from strangers and 500 from a neighbour's address: sessions stay, the log does not grow."""

import sys

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.programs import INTEROP

NEEDS = ["calico-bgpd", "bird1"]


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1"}, restart=0).start()
    here, there = cluster["node-1"], cluster["node-2"]
    strangers = lab.host("strangers", 200)
    addresses = [strangers.v4]
    for number in range(201, 220):
        strangers.ip("addr", "add", f"10.0.0.{number}/24", "dev", "eth0")
        addresses.append(f"10.0.0.{number}")
    cluster.settled()
    size = len(here.daemon.log().splitlines()) if here.kind == "calico-bgpd" else 0
    raw = (sys.executable, str(INTEROP / "lib" / "raw.py"), "storm", "--count", "500")
    for host, source, target in ((strangers, ",".join(addresses), here.host.v4), (strangers, strangers.v6, here.host.v6),
                                 (there.host, there.host.v4, here.host.v4), (there.host, there.host.v6, here.host.v6)):
        # one second connection of a neighbour may wait for its OPEN, for it decides which of two lives
        may_stay = int(host is there.host)
        told = host.run(*raw, "--from", source, "--to", target, "--may-stay", str(may_stay), timeout=120)
        lab.say(told)
        wait.check("the session is up during a storm", cluster.established())
        wait.check("nobody stays connected", int(told.split()[0]) <= may_stay or f"!{told}")
    wait.stays("sessions after a storm", cluster.established, 3)
    wait.check("they are the same sessions", here.kind != "calico-bgpd" or all(p["established"] == 1 for p in here.daemon.peers().values()))
    wait.check("routes are there", cluster.blocks_everywhere())
    if here.kind == "calico-bgpd":
        wait.check("the log did not grow with the dials", len(here.daemon.log().splitlines()) - size < 40)
