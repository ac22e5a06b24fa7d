"""A reader that is stopped with SIGSTOP: others are not delayed, memory does not grow, and it gets what is true when it reads again."""

import os
import signal
import time

from lib import calico, wait
from lib.bird import Bird1, Bird2
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.crowd import Feed, address, place
from lib.daemon import Neighbour

NEEDS = ["calico-bgpd", "bird1", "bird2"]
ASN, PREFIXES, ROUNDS = 64512, 2000, 50


def prefix(n):
    return f"10.244.{128 + n // 200}.{n % 200}/32"


def run(lab):
    ours, slow, live, crowd = lab.host("node-1", 1), lab.host("slow", 2), lab.host("live", 3), lab.host("crowd", 4)
    place(crowd, [11])
    datastore = FileDatastore(lab.out / "datastore")
    datastore.put(*calico.base(nodeToNodeMeshEnabled=False), calico.node(ours, routeReflectorClusterID="244.0.0.1"))
    datastore.put(*(calico.peer(name, node=ours.name, peerIP=at, asNumber=ASN) for name, at in (("slow", slow.v4), ("live", live.v4), ("feed", address(11, 4)))))
    for host in (ours, slow, live):
        # what the kernel would buffer of some megabytes is no patience of the daemon's
        host.buffers(32768)
    daemon = CalicoBgpd(ours, datastore).start()
    readers = [kind(host, ASN, [Neighbour(ours.v4, ASN)]).start() for kind, host in ((Bird2, slow), (Bird1, live))]
    feed = Feed(crowd, "feed", [(address(11, 4), ASN, "10.9.0.11")], [ours.v4]).up()
    for reader in readers:
        wait.until("the readers' sessions are up", reader.established_all, 30)
    wait.until("the start is over", lambda: daemon.show("status")["phase"] == "normal", 60)

    def change(number):
        """All routes change, and a last one comes that tells of it. Seconds until it has come to the live reader."""
        mark = f"10.244.1.{number}/32"
        feed.tell(*({"from": address(11, 4), "prefix": prefix(n), "next_hop": crowd.v4, "local_pref": 1000 + number * PREFIXES + n} for n in range(PREFIXES)),
                  {"from": address(11, 4), "prefix": mark, "next_hop": crowd.v4, "local_pref": 100})
        began = time.monotonic()
        wait.until(f"round {number} has come to the live reader", lambda: mark in readers[1].answer(4, "show", "route", mark), 15, every=0.02)
        return time.monotonic() - began

    def table(reader):
        return {p: route.local_pref for p, route in reader.received(ours.v4).items()}

    before = max(change(number) for number in range(5))
    wait.until("both have everything", lambda: len(table(readers[0])) == PREFIXES + 5 and table(readers[0]) == table(readers[1]), 30)
    memory, told = daemon.memory(), readers[0].updates(ours.v4)
    os.kill(readers[0].processes[0].pid, signal.SIGSTOP)
    longest = max(change(number) for number in range(5, 5 + ROUNDS))
    grown = daemon.memory() - memory
    lab.say(f"a round took {before:.2f} s at most before, {longest:.2f} s with a reader stopped; memory grew by {grown} KiB from {memory}")
    waiting = int(ours.run("ss", "-Htn", "dst", slow.v4).split()[2])
    wait.check("octets wait for the slow reader", waiting > 0)
    wait.check("memory does not grow", grown < 4096 or f"!{grown} KiB")
    wait.check("the slow reader's session is up", daemon.established(slow.v4))
    os.kill(readers[0].processes[0].pid, signal.SIGCONT)
    want = table(readers[1])
    wait.check("the live reader has the last round", want[prefix(7)] == 1000 + (4 + ROUNDS) * PREFIXES + 7)
    wait.until("the slow reader has what the other has", lambda: wait.equal("routes of the slow reader", table(readers[0]), want), 30)
    late = readers[0].updates(ours.v4) - told
    lab.say(f"the slow reader was told {late} routes for {ROUNDS * PREFIXES} changes")
    wait.check("it was told what is true, not what had been", late < ROUNDS * PREFIXES / 5 or f"!{late} routes")
