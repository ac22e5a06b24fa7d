"""A neighbour that never reads (zero window): others are served, memory is bounded; it is let go by the send hold timer."""

import sys

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.programs import INTEROP

NEEDS = ["calico-bgpd", "bird1"]
# the send hold time is eight minutes unless set (RFC 9687)
VARIANTS = ["served", "let-go", "let-go-by-default"]
SECONDS = 700


def when(variant):
    return "soak" if variant == "let-go-by-default" else "always"


def run(lab, variant):
    datastore = FileDatastore(lab.out / "datastore")
    cluster = Cluster(lab, datastore, {"node-1": "calico-bgpd", "node-2": "bird1"})
    # 512 blocks: as many routes as make a refresh a few packets long
    here = cluster["node-1"]
    for number in range(512):
        cluster.add_block("node-1", f"10.244.{128 + number // 4}.{number % 4 * 64}/26")
    deaf = lab.host("deaf", 9)
    datastore.put(calico.node(deaf))
    if variant == "let-go" and here.kind == "calico-bgpd":
        here.daemon.environment["CALICO_BGPD_SEND_HOLD_TIME"] = "20"
    cluster.start()
    cluster.settled()
    before = here.daemon.memory()
    tool = deaf.spawn(sys.executable, "-u", str(INTEROP / "lib" / "raw.py"), "deaf", "--from", deaf.v4, "--to", here.host.v4, "--hold", "9", log="raw.log")
    log = deaf.folder / "raw.log"
    wait.until("the deaf neighbour is up", lambda: "established" in log.read_text(), 60)
    wait.until("bytes wait for the deaf neighbour", lambda: int(here.host.run("ss", "-Htn", "dst", deaf.v4).split()[2]) > 0, 30)
    if variant != "let-go":
        if here.kind == "calico-bgpd":
            # it deletes no routes until all neighbours have said what they have, or 30 s have passed: the deaf one's IPv6 session never comes up
            wait.until("the daemon has started", lambda: here.daemon.show("status")["phase"] == "normal", 60)
        cluster.add_block("node-1", "10.244.1.64/26")
        wait.until("a change reaches the other neighbour", cluster.blocks_everywhere, 30)
        wait.stays("the other sessions while one is deaf", cluster.established, 12, every=1)
        wait.check("memory is bounded", (here.daemon.memory() - before) < 16384 or f"!{before} KiB before, {here.daemon.memory()} now")
        cluster.remove_block("node-1", "10.244.1.64/26")
        wait.until("a change reaches the other neighbour", cluster.blocks_everywhere, 30)
        wait.check("the deaf neighbour is still there", "closed" not in log.read_text())
    if variant != "served":
        wait.until("the deaf neighbour is let go", lambda: "closed" in log.read_text(), 560, every=1)
        lab.say(log.read_text())
        if here.kind == "calico-bgpd":
            wait.check("the reason is shown", here.daemon.remembers(deaf.v4, "send hold timer expired"))
        wait.check("the others are up", cluster.established())
        wait.check("routes are there", cluster.blocks_everywhere())
    tool.kill()
