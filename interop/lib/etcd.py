"""A real etcd on a host of its own."""

import signal

from . import programs, wait


def missing():
    return programs.absent("etcd", "etcdctl")


class Etcd:
    """One member; its data stays over stop and start."""

    def __init__(self, host):
        self.host = host
        self.endpoint = f"http://{host.v4}:2379"
        self.process = None

    def start(self):
        peer = "http://127.0.0.1:2380"
        self.process = self.host.spawn(
            programs.installed("etcd"), "--name=m1", f"--data-dir={self.host.folder}/data", f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=m1={peer}", "--logger=zap", "--log-level=warn", log="etcd.log")
        wait.until("etcd is healthy", lambda: "true" in self.ctl("endpoint", "health", "-w", "json"), 60)
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def ctl(self, *words):
        return self.host.run("env", "ETCDCTL_API=3", programs.installed("etcdctl"), f"--endpoints={self.endpoint}", *words)

    def put(self, key, value):
        self.ctl("put", "--", key, value)

    def delete(self, key):
        if self.ctl("del", "--", key).strip() != "1":
            raise wait.Failed(f"etcd has no key {key}")
