"""Started beside a BIRD that runs the node: left alone while it lives, taken over without the loss of a packet when it is killed."""

from lib import wait
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.cluster import Cluster
from lib.traffic import Probe, all_arrived, echo

NEEDS = ["calico-bgpd", "bird1"]


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "bird1", "node-2": "bird1", "node-3": "calico-bgpd"})
    pods = {}
    for number, name in enumerate(cluster.nodes, 1):
        addresses = (f"10.244.{number}.10", f"fd00:10:244:{number:x}::a")
        pods[name] = (cluster[name].host.pod("a", *addresses), addresses)
    cluster.start()
    cluster.settled()
    node, bird = cluster["node-1"], cluster["node-1"].daemon

    ours = CalicoBgpd(node.host, cluster.datastore)
    # the sockets of BIRD are where ours would be
    ours.run_folder = node.folder
    target, addresses = pods["node-1"]
    for address in addresses:
        echo(lab, target, address)
    for family in (4, 6):
        node.host.spawn("ip", "-N", f"-{family}", "monitor", "route", log="monitor.log")
    monitor = node.folder / "monitor.log"

    def changes():
        return [line for line in monitor.read_text().splitlines() if " proto 12" in line]

    def sessions():
        return [node.host.connections(address) for other in cluster.others(node) for address in other.addresses()]

    probes = [Probe(lab, pods[name][0], address) for name in ("node-2", "node-3") for address in addresses]
    before, status = sessions(), None
    ours.start()

    def waits():
        told = ours.show("status")
        text = str(told)
        return "bird.ctl" in text and "1.6.8" in text or f"!{told}"

    wait.until("show status names BIRD and its socket", waits, 30)
    wait.until("the log says so", lambda: "no session is opened and no route is written before the end of another BIRD" in ours.log(), 10)
    wait.stays("BIRD's sessions and routes while ours waits", lambda: cluster.established() is True and sessions() == before and not changes(), 6)
    wait.check("BIRD still has its socket", "BIRD 1.6.8" in bird.answer(4, "show", "status"))
    status, text = ours.once("check")
    wait.check("check looks at the datastore while ours runs", status == 0 or f"!{status}: {text}")
    ours.stop(2)
    status, text = ours.once("check")
    wait.check("check names the BIRD that runs", "bird.ctl" in text or f"!{status}: {text}")
    wait.check("the end of ours is nothing to BIRD", cluster.all_right() is True and not changes())
    lab.say("BIRD did not notice ours")

    ours.start()
    wait.until("show status names BIRD and its socket", waits, 30)
    bird.kill()
    node.daemon, node.kind, node.ours = ours, ours.kind, True
    wait.until("the log says that recovery begins", lambda: "recovery begins" in ours.log(), 30)
    cluster.settled()
    wait.until("recovery is over", lambda: ours.show("status")["phase"] == "normal", 60)
    wait.stays("the routes", cluster.all_right, 3)
    wanted = {block for other in cluster.others(node) for block in other.blocks}
    gone = {line.split()[1] for line in changes() if line.startswith("Deleted ")} & wanted
    wait.check("no route of the node was deleted", wait.equal("deleted", gone, set()))
    all_arrived(lab, probes, 5000)
