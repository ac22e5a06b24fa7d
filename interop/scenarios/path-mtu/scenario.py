"""A path that drops large packets: the session ends with a reason that names the MTU, others stay, all is back when it is mended."""

from lib import net, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

# bird1 offers a hold time of 9 s; ours that of Calico, 240 s
VARIANTS = ["bird1", "calico-bgpd"]
SECONDS = 500


def needs(variant):
    return ["calico-bgpd", "bird1"]


def when(variant):
    return "soak" if variant == "calico-bgpd" else "always"


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": variant, "node-3": "bird1"}, hold=9, restart=0)
    here, there = cluster["node-1"], cluster["node-2"]
    cluster.start()
    cluster.settled()
    rule = f"iifname {here.name} oifname {there.name} meta length > 700 drop"
    net.sh("ip", "netns", "exec", lab.segment.SWITCH, "nft", "-f", "-",
           input=f"add table bridge cb\nadd chain bridge cb cuts {{ type filter hook forward priority 0; policy accept; }}\nadd rule bridge cb cuts {rule}\n")
    # one UPDATE that needs a large packet
    blocks = [f"10.244.{128 + number // 4}.{number % 4 * 64}/26" for number in range(256)]
    for block in blocks:
        cluster.add_block(here.name, block)
    if here.kind == "calico-bgpd":
        wait.until("the reason names the MTU", lambda: here.daemon.remembers(there.host.v4, "the peer sent 4/0", "MTU"), 60 if there.foreign else 300)
    if there.kind == "calico-bgpd":
        wait.check("the other end heard nothing", there.daemon.remembers(here.host.v4, "hold timer expired"))
    wait.until("others have every block", lambda: cluster.blocks_everywhere("node-3"), 30)
    wait.stays("the other sessions", lambda: cluster.established("node-3"), 12, every=1)
    lab.segment.heal()
    cluster.settled(120)
