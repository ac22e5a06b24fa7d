"""Calico's resources as the labs write them, and the two datastores to put them into: a folder of files, and etcd."""

import ipaddress
import json

from . import net

V3 = "projectcalico.org/v3"


def resource(kind, name, spec):
    return {"apiVersion": V3, "kind": kind, "metadata": {"name": name}, "spec": spec}


def node(host, asn=None, labels=None, **bgp):
    """The Node of a host of the lab, dual stack. `bgp` adds to or replaces fields of spec.bgp."""
    fields = {"ipv4Address": f"{host.v4}/24", "ipv6Address": f"{host.v6}/64", **({"asNumber": asn} if asn else {}), **bgp}
    item = resource("Node", host.name, {"bgp": {k: v for k, v in fields.items() if v is not None},
                                        "orchRefs": [{"nodeName": host.name, "orchestrator": "k8s"}]})
    return {**item, "metadata": {**item["metadata"], "labels": labels}} if labels else item


def pool(name, cidr, **spec):
    """A pool without encapsulation."""
    return resource("IPPool", name, {"cidr": cidr, "blockSize": 26 if net.version(cidr) == 4 else 122, "ipipMode": "Never", "vxlanMode": "Never",
                                     "nodeSelector": "all()", **spec})


def configuration(**spec):
    """BGPConfiguration 'default' with the mesh on."""
    return resource("BGPConfiguration", "default", {"asNumber": 64512, "logSeverityScreen": "Info", "nodeToNodeMeshEnabled": True, **spec})


def cluster(release="v3.33.0"):
    return resource("ClusterInformation", "default", {"calicoVersion": release, "clusterType": "k8s,bgp", "datastoreReady": True,
                                                      "clusterGUID": "5a1d6b4e0d7e4a6f9d0f3a1c2b4e6f80"})


def block(host, cidr):
    """A block affinity: the block belongs to the host's node."""
    words = cidr.replace("::/", "-").replace("/", "-").replace(".", "-").replace(":", "-")
    return resource("BlockAffinity", f"{host.name}-{words}", {"cidr": cidr, "node": host.name, "state": "confirmed", "type": "host", "deleted": "false"})


def secret(name, **keys):
    """A Secret where Calico's node looks for passwords."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "kube-system"}, "type": "Opaque", "stringData": keys}


def peer(name, **spec):
    return resource("BGPPeer", name, spec)


def base(**spec):
    """What every lab's cluster has: its facts, the mesh (`spec` adds to BGPConfiguration 'default'), and a pool of each family."""
    return [cluster(), configuration(**spec), pool("pool-v4", "10.244.0.0/16"), pool("pool-v6", "fd00:10:244::/48")]


def blocks_of(host):
    """One block of each family for a host, by its number."""
    return [f"10.244.{host.number}.0/26", f"fd00:10:244:{host.number:x}::/122"]


def second_blocks_of(host):
    """Another one of each."""
    return [f"10.244.{host.number}.64/26", f"fd00:10:244:{host.number:x}::40/122"]


class FileDatastore:
    """DATASTORE_TYPE=file: one document in each file of a folder."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def environment(self):
        return {"DATASTORE_TYPE": "file", "DATASTORE_PATH": str(self.folder)}

    def path(self, item):
        return self.folder / f"{item['kind'].lower()}.{item['metadata']['name']}.json"

    def put(self, *items):
        for item in items:
            # written beside and moved: a reader never meets half a file. Hidden files are not read.
            temporary = self.folder / f".{self.path(item).name}"
            temporary.write_text(json.dumps(item, indent=2) + "\n")
            temporary.rename(self.path(item))

    def delete(self, *items):
        for item in items:
            self.path(item).unlink()


class EtcdDatastore:
    """DATASTORE_TYPE=etcdv3, with the keys that Calico's own programs write."""

    PLURALS = {"Node": "nodes", "IPPool": "ippools", "BGPConfiguration": "bgpconfigurations", "ClusterInformation": "clusterinformations",
               "BGPPeer": "bgppeers", "BGPFilter": "bgpfilters"}

    def __init__(self, etcd):
        self.etcd = etcd

    def environment(self):
        return {"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": self.etcd.endpoint}

    def entry(self, item):
        """The key and value of a resource. Block affinities have keys of their own."""
        spec = item["spec"]
        if item["kind"] == "BlockAffinity":
            network = ipaddress.ip_network(spec["cidr"])
            return (f"/calico/ipam/v2/host/{spec['node']}/ipv{network.version}/block/{network.network_address}-{network.prefixlen}",
                    json.dumps({"state": spec["state"], "deleted": False}, separators=(",", ":")))
        return (f"/calico/resources/v3/projectcalico.org/{self.PLURALS[item['kind']]}/{item['metadata']['name']}",
                json.dumps({**item, "metadata": {"creationTimestamp": "2026-11-21T08:17:22Z", **item["metadata"]}}, separators=(",", ":")))

    def put(self, *items):
        for item in items:
            self.etcd.put(*self.entry(item))

    def delete(self, *items):
        for item in items:
            self.etcd.delete(self.entry(item)[0])
