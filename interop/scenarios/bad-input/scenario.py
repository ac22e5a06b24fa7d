"""What operators get wrong: one clear line, the rest goes on, and it recovers by itself once mended."""

import shutil
import subprocess
import sys

from lib import calico, programs, wait
from lib.calico import EtcdDatastore, FileDatastore
from lib.cluster import Cluster
from lib.etcd import Etcd

NEEDS = ["calico-bgpd", "bird1", "etcd"]


def cluster_of_two(lab, datastore=None):
    return Cluster(lab, datastore or FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1"})


def told(daemon, *words, level=None):
    """Waits for a line of the daemon's log with all these words, and returns it."""
    def found():
        return [line for line in daemon.log().splitlines() if all(w.lower() in line.lower() for w in words) and (not level or level in line)]
    line = wait.until(f"a line of the log has {', '.join(words)}", found, 30)[0]
    daemon.host.lab.say(line)
    return line


def port_taken(lab):
    """Another program holds TCP 179: said once, everything else works (node-1 is passive, so no session), up when it is free."""
    cluster = cluster_of_two(lab)
    # in the host, for this process is not
    holder = cluster["node-1"].host.spawn(sys.executable, "-c", """
import socket, time
held = [socket.create_server(("0.0.0.0", 179)), socket.create_server(("::", 179), family=socket.AF_INET6, dualstack_ipv6=False)]
print("held", flush=True)
time.sleep(600)
""", log="holder.log")
    wait.until("port 179 is taken", lambda: "held" in (cluster["node-1"].folder / "holder.log").read_text(), 20)
    cluster.start()
    told(cluster["node-1"].daemon, ":179", "in use")
    wait.until("own blocks are in the kernel all the same", lambda: set(cluster["node-1"].blocks) <= set(cluster["node-1"].host.kernel()), 30)
    holder.kill()
    holder.wait()
    cluster.settled()


def no_node(lab):
    """NODENAME names no Node: said with the name; everything comes up when the Node appears."""
    datastore = FileDatastore(lab.out / "datastore")
    cluster = cluster_of_two(lab, datastore)
    node = calico.node(cluster["node-1"].host)
    datastore.delete(node)
    cluster.start()
    told(cluster["node-1"].daemon, "Node/node-1", "NODENAME")
    wait.stays("it goes on", cluster["node-1"].daemon.alive, 2)
    datastore.put(node)
    cluster.settled()


def no_address(lab):
    """The own Node has no BGP address: said with resource and field."""
    datastore = FileDatastore(lab.out / "datastore")
    cluster = cluster_of_two(lab, datastore)
    datastore.put(calico.resource("Node", "node-1", {}))
    cluster.start()
    told(cluster["node-1"].daemon, "Node/node-1", "spec.bgp")
    wait.stays("it goes on", cluster["node-1"].daemon.alive, 2)
    datastore.put(calico.node(cluster["node-1"].host))
    cluster.settled()


def same_address(lab):
    """Two other Nodes have one address: said with both names; the sessions are there all the same."""
    datastore = FileDatastore(lab.out / "datastore")
    cluster = cluster_of_two(lab, datastore)
    twin = calico.node(cluster["node-2"].host)
    twin["metadata"]["name"] = "node-2-twin"
    datastore.put(twin)
    cluster.start()
    told(cluster["node-1"].daemon, "node-2", "node-2-twin", "10.0.0.2")
    cluster.settled()
    datastore.delete(twin)
    wait.stays("the sessions stay when the twin goes", cluster.established, 3)


def etcd_down(lab):
    """etcd is down at the start: said with its address, tried again, and all comes up when it is there."""
    etcd = Etcd(lab.host("etcd", 250)).start()
    cluster = cluster_of_two(lab, EtcdDatastore(etcd))
    etcd.kill()
    cluster.start()
    told(cluster["node-1"].daemon, "10.0.0.250:2379")
    wait.stays("it goes on", cluster["node-1"].daemon.alive, 5)
    etcd.start()
    cluster.settled()


def etcd_dies(lab):
    """etcd dies while all is up: said with its address, shown, tried again; sessions and routes stay, and a session that is lost meanwhile comes back."""
    etcd = Etcd(lab.host("etcd", 250)).start()
    cluster = cluster_of_two(lab, EtcdDatastore(etcd)).start()
    cluster.settled()
    ours, bird = cluster["node-1"].daemon, cluster["node-2"].daemon
    etcd.kill()
    told(ours, "10.0.0.250:2379", "out of reach")

    def shown():
        source = ours.show("status")["datastore"]
        return source["state"] == "retrying" and source["failures"] >= 2 and "10.0.0.250:2379" in (source.get("lastError") or "") or f"!{source}"

    wait.until("the state is shown", shown, 60)
    lab.say(str(ours.show("status")["datastore"]))
    wait.stays("sessions and routes", cluster.all_right, 5)
    bird.kill()
    bird.start(restarting=True)
    cluster.settled()
    etcd.start()
    cluster.add_block("node-2", "10.244.2.64/26")
    cluster.add_block("node-1", "10.244.1.64/26")
    cluster.settled()
    lab.say(str(ours.show("status")["datastore"]))


def broken_document(lab):
    """A file that does not parse: said with its name; the other files count; a file that breaks later keeps its last good content."""
    datastore = FileDatastore(lab.out / "datastore")
    cluster = cluster_of_two(lab, datastore)
    (datastore.folder / "broken.yaml").write_text("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: [\n")
    cluster.start()
    told(cluster["node-1"].daemon, "broken.yaml")
    cluster.settled()
    own = datastore.path(calico.block(cluster["node-1"].host, cluster["node-1"].blocks[0]))
    own.write_text("{\n")
    told(cluster["node-1"].daemon, own.name)
    wait.stays("its last good content counts", cluster.all_right, 3)


def release_gone(lab):
    """ClusterInformation is deleted: the release that it told stays in force, also over a restart, and a warning names the setting."""
    datastore = FileDatastore(lab.out / "datastore")
    cluster = cluster_of_two(lab, datastore)
    information = calico.cluster("v3.32.1")
    datastore.put(information)
    cluster.start()
    cluster.settled()
    ours = cluster["node-1"].daemon

    def in_force(source):
        status = ours.show("status")
        return (status["release"], status["releaseSource"]) == ("v3.32", source) or f"!{status}"

    wait.check("the release is known", in_force("clusterInformation"))
    datastore.delete(information)
    told(ours, "ClusterInformation/default", "v3.32", "CALICO_BGPD_CLUSTER_RELEASE")
    wait.until("it stays in force", lambda: in_force("lastKnown"), 20)
    ours.kill()
    ours.start(restarting=True)
    cluster.settled()
    wait.until("it is in force again", lambda: in_force("lastKnown"), 20)


def not_root(lab):
    """Not root and without capabilities: one line that says which are wanted; no panic."""
    cluster = cluster_of_two(lab)
    node = cluster["node-1"]
    # copies that user nobody can reach, whatever folder the build is in
    copy, source = lab.run / "calico-bgpd", lab.run / "datastore"
    shutil.copy(programs.calico_bgpd(), copy)
    shutil.copytree(lab.out / "datastore", source)
    done = subprocess.run(["ip", "netns", "exec", node.host.ns, "timeout", "10", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                           "--bounding-set=-all", copy, "run"],
                          env={**node.daemon.env(), "DATASTORE_PATH": str(source), "CALICO_BGPD_RUN_DIR": "/run/nobody"}, capture_output=True, text=True,
                          cwd="/")
    output = done.stdout + done.stderr
    lab.say(output)
    wait.check("it says what it lacks", any(w in output for w in ("CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "root", "ermission")))
    wait.check("no panic", "panicked" not in output)


CASES = {f.__name__.replace("_", "-"): f for f in (port_taken, no_node, no_address, same_address, etcd_down, etcd_dies, broken_document, release_gone, not_root)}
VARIANTS = list(CASES)


def run(lab, variant):
    CASES[variant](lab)
