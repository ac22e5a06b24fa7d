"""A real kube-apiserver over a real etcd on a host of its own: no scheduler, no controller, no kubelet; and Calico's resources in it."""

import base64
import json
import pathlib
import signal
import sys

from . import etcd, programs, wait

RELEASE = "1.36.3"
NAMESPACE = "kube-system"
ACCOUNT = "calico-node"
CALICO = "crd.projectcalico.org"
# kind → plural, in Calico's group
CUSTOM = {"BGPConfiguration": "bgpconfigurations", "BGPPeer": "bgppeers", "BGPFilter": "bgpfilters", "IPPool": "ippools",
          "BlockAffinity": "blockaffinities", "ClusterInformation": "clusterinformations", "FelixConfiguration": "felixconfigurations"}


def program():
    return programs.cached(f"kube-apiserver-{RELEASE}/kube-apiserver")


def missing():
    """Why it cannot be had here, or None."""
    gone = etcd.missing() or programs.absent("openssl")
    return gone or (None if program() else f"kube-apiserver {RELEASE} is not in {programs.cache()}: interop/deps test builds it")


class Refused(Exception):
    """The API server answers otherwise than with success."""


class KubeApi:
    """The server at https://HOST:6443. Its data stays over stop and start."""

    def __init__(self, host):
        self.host, self.folder = host, host.folder
        self.etcd = etcd.Etcd(host)
        self.url = f"https://{host.v4}:6443"
        self.ca = self.folder / "ca.crt"
        self.process = None

    def start(self):
        if self.etcd.process is None:
            self.pki()
            self.etcd.start()
        f = self.folder
        self.process = self.host.spawn(
            program(), f"--etcd-servers={self.etcd.endpoint}", f"--bind-address={self.host.v4}", "--secure-port=6443",
            f"--advertise-address={self.host.v4}", "--endpoint-reconciler-type=none", f"--tls-cert-file={f}/server.crt",
            f"--tls-private-key-file={f}/server.key", f"--client-ca-file={self.ca}", f"--token-auth-file={f}/tokens.csv",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={f}/account.key",
            f"--service-account-key-file={f}/account.pub", "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
            "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--profiling=false", log="kube-apiserver.log")
        wait.until("kube-apiserver is ready", lambda: self.call("GET", "/readyz"), 120)
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def pki(self):
        """An authority, the certificates of the server and of a client, the key of service accounts, and the administrator's token: all new."""
        f = self.folder
        new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
        self.host.run(*new, "-subj", "/CN=lab", "-keyout", f"{f}/ca.key", "-out", str(self.ca))
        self.host.run(*new, "-subj", "/CN=kube-apiserver", "-CA", str(self.ca), "-CAkey", f"{f}/ca.key", "-addext", "basicConstraints=critical,CA:FALSE",
                      "-addext", f"subjectAltName=IP:{self.host.v4},IP:{self.host.v6},DNS:kubernetes.default.svc", "-keyout", f"{f}/server.key",
                      "-out", f"{f}/server.crt")
        self.host.run(*new, "-subj", f"/CN={ACCOUNT}", "-CA", str(self.ca), "-CAkey", f"{f}/ca.key", "-addext", "basicConstraints=critical,CA:FALSE",
                      "-addext", "extendedKeyUsage=clientAuth", "-keyout", f"{f}/client.key", "-out", f"{f}/client.crt")
        self.host.run("openssl", "genrsa", "-out", f"{f}/account.key", "2048")
        self.host.run("openssl", "rsa", "-in", f"{f}/account.key", "-pubout", "-out", f"{f}/account.pub")
        (f / "tokens.csv").write_text('admin-of-the-lab,admin,1,"system:masters"\n')

    def call(self, verb, path, body=None, kind="application/json"):
        """What the server answers to its administrator, as text."""
        request = {"url": self.url + path, "verb": verb, "body": body if body is None else json.dumps(body), "type": kind, "ca": str(self.ca)}
        answer = json.loads(self.host.run(sys.executable, str(pathlib.Path(__file__).with_name("kube_request.py")), input=json.dumps(request)))
        if answer["status"] // 100 != 2:
            raise Refused(f"{verb} {path}: {answer['status']} {answer['text'][:500]}")
        return answer["text"]

    def apply(self, path, item):
        """Makes the object as it is given, or changes it to that."""
        return json.loads(self.call("PATCH", f"{path}/{item['metadata']['name']}?fieldManager=lab&force=true", item, "application/apply-patch+yaml"))

    def delete(self, path, name):
        self.call("DELETE", f"{path}/{name}")

    def define(self):
        """Calico's kinds, of any content: the definitions of Calico's manifests say more, which matters to who writes."""
        for kind, plural in CUSTOM.items():
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            version = {"name": "v1", "served": True, "storage": True,
                       "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}}}
            self.apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{CALICO}"},
                "spec": {"group": CALICO, "scope": "Cluster", "versions": [version],
                         "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}}})
        for plural in CUSTOM.values():
            wait.until(f"{plural} are served", lambda p=plural: self.call("GET", f"/apis/{CALICO}/v1/{p}"), 60)
        self.role()
        self.call("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts",
                  {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}})

    def role(self, without=()):
        """The rights of Calico's own role (DS-43), and those to read Secrets of the namespace; but for some kinds."""
        rbac, read = "/apis/rbac.authorization.k8s.io/v1", ["get", "list", "watch"]
        rules = [("", [p for p in ("nodes", "services", "endpoints") if p not in without]), ("discovery.k8s.io", ["endpointslices"]),
                 (CALICO, [p for p in CUSTOM.values() if p not in without])]
        self.apply(f"{rbac}/clusterroles", {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT},
            "rules": [{"apiGroups": [group], "resources": plurals, "verbs": read} for group, plurals in rules]})
        self.apply(f"{rbac}/namespaces/{NAMESPACE}/roles", {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": ACCOUNT},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": read}]})
        subject = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE},
                   {"kind": "User", "name": ACCOUNT, "apiGroup": "rbac.authorization.k8s.io"}]
        for path, kind, role in ((f"{rbac}/clusterrolebindings", "ClusterRoleBinding", "ClusterRole"),
                                 (f"{rbac}/namespaces/{NAMESPACE}/rolebindings", "RoleBinding", "Role")):
            self.apply(path, {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": ACCOUNT}, "subjects": subject,
                              "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": ACCOUNT}})

    def token(self):
        """A token of the service account."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        return json.loads(self.call("POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}))["status"]["token"]

    def compact(self):
        """etcd forgets what was before now."""
        revision = json.loads(self.etcd.ctl("get", "x", "-w", "json"))["header"]["revision"]
        self.etcd.ctl("compact", str(revision), "--physical")


class KubernetesDatastore:
    """DATASTORE_TYPE=kubernetes, as calicoctl and Calico's node write there."""

    def __init__(self, api):
        self.api = api
        self.kubeconfig = api.folder / "kubeconfig"
        self.account = pathlib.Path("/run/secrets/kubernetes.io/serviceaccount")

    def environment(self):
        return {"DATASTORE_TYPE": "kubernetes", "KUBECONFIG": str(self.kubeconfig)}

    def as_pod(self):
        """The environment of a pod, whose files all hosts share here."""
        return {"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": self.api.host.v4, "KUBERNETES_SERVICE_PORT": "6443"}

    def by_certificate(self):
        """The environment of who has a certificate and no kubeconfig."""
        return {"KUBECONFIG": "", "K8S_API_ENDPOINT": self.api.url, "K8S_CA_FILE": str(self.api.ca),
                "K8S_CERT_FILE": f"{self.api.folder}/client.crt", "K8S_KEY_FILE": f"{self.api.folder}/client.key"}

    def credentials(self):
        """Writes a fresh token where pods and kubeconfigs find it."""
        token, ca = self.api.token(), self.api.ca.read_text()
        self.account.mkdir(parents=True, exist_ok=True)
        for name, text in (("ca.crt", ca), ("namespace", NAMESPACE), ("token", token)):
            self.replace(self.account / name, text)
        self.replace(self.kubeconfig, json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.api.url, "certificate-authority-data": base64.b64encode(ca.encode()).decode()}}],
            "users": [{"name": "node", "user": {"token": token}}], "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "node"}}]}))

    @staticmethod
    def replace(path, text):
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.rename(path)

    def place(self, item):
        """The collection and the object of a resource as the labs write it."""
        metadata, spec = dict(item["metadata"]), item.get("spec")
        if item["kind"] == "Node":
            words = {"ipv4Address": "IPv4Address", "ipv6Address": "IPv6Address", "asNumber": "ASNumber",
                     "routeReflectorClusterID": "RouteReflectorClusterID"}
            metadata["annotations"] = {f"projectcalico.org/{words[k]}": str(v) for k, v in spec["bgp"].items()}
            return "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        if item["kind"] == "Secret":
            return f"/api/v1/namespaces/{NAMESPACE}/secrets", item
        plural = CUSTOM[item["kind"]]
        return f"/apis/{CALICO}/v1/{plural}", {"apiVersion": f"{CALICO}/v1", "kind": item["kind"], "metadata": metadata, "spec": spec}

    def put(self, *items):
        for item in items:
            self.api.apply(*self.place(item))

    def delete(self, *items):
        for item in items:
            path, there = self.place(item)
            self.api.delete(path, there["metadata"]["name"])
