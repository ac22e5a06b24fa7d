"""Two nodes restart while a third is dead for good: new blocks are everywhere in seconds, the dead one's routes stay for its restart time."""

import time

from lib import calico, wait
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.cluster import Cluster

# how node-4, which stays up, is run
VARIANTS = ["ours", "bird1"]
# longer than recovery takes at most
RESTART_TIME = 36


def needs(variant):
    return ["calico-bgpd", *(["bird1"] if variant == "bird1" else [])]


def run(lab, variant):
    kind = "bird1" if variant == "bird1" else CalicoBgpd.kind
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": CalicoBgpd.kind, "node-2": CalicoBgpd.kind, "node-3": CalicoBgpd.kind, "node-4": kind})
    cluster.datastore.put(calico.configuration(nodeMeshMaxRestartTime=f"{RESTART_TIME}s"))
    cluster.start()
    cluster.settled()
    dead, back = cluster["node-3"], [cluster["node-1"], cluster["node-2"]]
    lab.segment.cut(dead.host)
    for node in back:
        node.daemon.kill()
    for node in back:
        cluster.add_block(node.name, f"10.244.{node.host.number}.64/26")
    began = time.monotonic()
    for node in back:
        node.daemon.start()

    def arrived():
        for node in (*back, cluster["node-4"]):
            have = set(node.host.hops())
            missing = {b for n in back for b in n.blocks} - have
            if missing:
                return f"!{node.name} lacks {', '.join(sorted(missing))}"
        return True

    wait.until("the new blocks are everywhere", arrived, 10)
    took = time.monotonic() - began
    lab.say(f"the new blocks were everywhere {took:.1f} s after the start")

    def kept(node):
        have = node.host.hops()
        return all(cluster.owner(have.get(block, "nothing")) == dead.name for block in dead.blocks) or f"!{node.name} has {have}"

    for node in back:
        wait.check(f"{node.name} keeps the dead node's routes", kept(node))
        status, peer = node.daemon.show("status"), node.daemon.peers()[dead.host.v4]
        lab.say(f"{node.name}: phase {status['phase']}, waits for {status.get('recovery')}, {dead.name} in {peer['state']}: {peer.get('reason')}")
        wait.check("show peers says why the dead node's session is down", bool(peer.get("reason")))
        wait.check("show status says for whom it waits", status["phase"] == "normal" or peer["name"] in str(status["recovery"]) or f"!{status}")
    wait.stays("the dead node's routes within its restart time", lambda: all(kept(n) is True for n in back), RESTART_TIME - 3 - (time.monotonic() - began))
    wait.until("the dead node's routes go afterwards",
               lambda: all(not set(dead.blocks) & set(node.host.hops()) for node in back), 5)
    took = time.monotonic() - began
    lab.say(f"the dead node's routes went {took:.1f} s after the start")
    wait.check("the others' routes are there", arrived())
