"""A node goes from BIRD to calico-bgpd and back: compared before by `shadow`, without the loss of a packet but in BIRD's own kernel."""

import dataclasses
import json
import shutil

from lib import calico, wait
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.cluster import Cluster
from lib.traffic import Probe, all_arrived, echo

NEEDS = ["calico-bgpd", "bird1"]


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "bird1", "node-2": "bird1", "node-3": "calico-bgpd"})
    node, bird = cluster["node-1"], cluster["node-1"].daemon
    # as confd names them
    bird.neighbours = [dataclasses.replace(n, called="Mesh_" + n.name.removeprefix("n_")) for n in bird.neighbours]
    pods = {}
    for number, name in enumerate(cluster.nodes, 1):
        addresses = (f"10.244.{number}.10", f"fd00:10:244:{number:x}::a")
        pods[name] = (cluster[name].host.pod("a", *addresses), addresses)
    cluster.start()
    cluster.settled()
    ours = CalicoBgpd(node.host, cluster.datastore)
    # the sockets of BIRD are where ours would be
    ours.run_folder = node.folder

    def shadow(*words):
        status, text = ours.once("shadow", "--json", *words)
        try:
            told = json.loads(text)
        except ValueError:
            raise wait.Failed(f"shadow ends with {status}: {text}") from None
        return status, told["differences"], told["compared"]

    def same():
        status, differences, _ = shadow()
        return status == 0 or f"!{differences}"

    # BIRD looks at the kernel every two seconds
    wait.until("shadow finds no difference", same, 30)
    sent, compared = 4 * len(node.blocks) // 2, shadow()[2]
    wait.check("it has compared all", wait.equal("compared", compared, {"sessions": 4, "established": 4, "kernel": 3 * len(node.blocks), "sent": sent}))

    others = lab.out / "other-resources"
    shutil.copytree(cluster.datastore.folder, others)
    other, gone = FileDatastore(others), cluster["node-3"]
    other.delete(calico.node(gone.host))
    other.put(calico.peer("router", peerIP="10.0.0.9", asNumber=65009), calico.block(node.host, "10.244.77.0/26"))
    status, differences, _ = shadow("--datastore-path", str(others))
    v4, v6 = gone.addresses()
    second = cluster["node-2"]
    expected = {f"session Mesh_{a.replace('.', '_').replace(':', '_')} only BIRD has it" for a in (v4, v6)}
    expected |= {"session Global_10_0_0_9 only calico-bgpd has it", "kernel add blackhole 10.244.77.0/26 proto bird"}
    expected |= {f"kernel del {block}" for block in gone.blocks}
    expected |= {f"sent Mesh_{second.host.v4.replace('.', '_')} 10.244.77.0/26"}
    found = {" ".join(word for word in (d["of"], d.get("name", ""), d.get("prefix") or d["what"].split(" via ")[0].removesuffix(" proto bird metric 1024")) if word)
             for d in differences}
    expected = {e.removesuffix(" proto bird") for e in expected}
    found = {f.removesuffix(" proto bird") for f in found}
    wait.check("what other resources would change is printed, and nothing else", wait.equal("differences", found, expected))
    wait.check("its exit status says that something differs", wait.equal("status", status, 1))
    lab.say("shadow tells the differences")

    target, addresses = pods["node-1"]
    for address in addresses:
        echo(lab, target, address)
    probes = [Probe(lab, pods[name][0], address) for name in ("node-2", "node-3") for address in addresses]

    bird.kill()
    ours.start()
    node.daemon, node.kind, node.ours = ours, ours.kind, True
    cluster.settled()
    wait.until("recovery is over", lambda: ours.show("status")["phase"] == "normal", 60)
    status, text = ours.once("shadow")
    wait.check("shadow does not take ours for a BIRD", status == 1 and "a calico-bgpd answers" in text or f"!{status}: {text}")
    lab.say("the node is ours")

    ours.stop()
    bird.start(restarting=True)
    node.daemon, node.kind, node.ours = bird, bird.kind, False
    cluster.settled()
    wait.until("BIRD's recovery is over", lambda: "recovery in progress" not in bird.answer(4, "show", "status") + bird.answer(6, "show", "status"), 60)
    wait.until("shadow finds no difference", same, 30)
    wait.stays("the routes", cluster.all_right, 3)
    # BIRD 1.6 takes an IPv6 route out of the kernel and puts it in again where the daemon behind it is another, by whichever it was run before: ip monitor
    # shows 0.1 ms, twice each way
    through_bird = probes.pop(1)
    all_arrived(lab, probes, 5000)
    result = through_bird.end()
    wait.check("of IPv6 through a kernel that BIRD writes no more is lost than BIRD's own gap", (result["lost"] <= 4 and not result["errors"]) or f"!{result}")
