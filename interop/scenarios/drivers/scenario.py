"""BIRD 1.6.8 with each other daemon, without calico-bgpd: are the drivers in order?"""

from lib import wait
from lib.daemon import Neighbour
from lib.drivers import FOREIGN
from lib.bird import Bird1

VARIANTS = [f"{kind}-{session}" for kind in FOREIGN for session in ("ibgp", "ebgp", "md5")]
WHEN = "asked"


def needs(variant):
    return ["bird1", variant.split("-")[0]]


def run(lab, variant):
    kind, session = variant.split("-")
    h1, h2 = lab.host("h1", 1), lab.host("h2", 2)
    asn = 64512 if session == "ibgp" else 64600
    password = "s3cret" if session == "md5" else None
    here = Bird1(h1, 64512, [Neighbour(a, asn, password=password) for a in (h2.v4, h2.v6)], ["10.244.1.0/26", "fd00:10:244:1::/122"]).start()
    there = FOREIGN[kind](h2, asn, [Neighbour(a, 64512, password=password) for a in (h1.v4, h1.v6)], ["10.244.2.0/26", "fd00:10:244:2::/122"]).start()
    wait.until("all sessions are up", lambda: here.established_all(), 60)
    wait.until("all sessions are up at the other end", lambda: there.established_all(), 20)

    def told(daemon, addresses, prefixes):
        have = {p for a in addresses for p in daemon.received(a)}
        return wait.equal(f"{daemon.kind} received", have, set(prefixes))

    wait.until("routes arrive", lambda: told(here, (h2.v4, h2.v6), ["10.244.2.0/26", "fd00:10:244:2::/122"]), 20)
    wait.until("routes arrive", lambda: told(there, (h1.v4, h1.v6), ["10.244.1.0/26", "fd00:10:244:1::/122"]), 20)
    lab.say(str(there.received(h1.v4)) + str(there.received(h1.v6)) + str(here.received(h2.v4)) + str(here.received(h2.v6)))
    if asn != 64512:
        wait.check("the AS path is there", there.received(h1.v4)["10.244.1.0/26"].as_path == (64512,))
        wait.check("the AS path is there", here.received(h2.v6)["fd00:10:244:2::/122"].as_path == (asn,))
    there.announce("10.244.2.64/26")
    there.announce("fd00:10:244:2::40/122")
    there.withdraw("10.244.2.0/26")
    there.withdraw("fd00:10:244:2::/122")
    wait.until("changes arrive", lambda: told(here, (h2.v4, h2.v6), ["10.244.2.64/26", "fd00:10:244:2::40/122"]), 20)
    # over IPv6 some give a link-local next hop too, and BIRD takes that
    wait.until("the kernel follows", lambda: wait.equal("routes", {p: "link-local" if hop.startswith("fe80:") else hop for p, hop in h1.hops().items()}, {
        "10.244.1.0/26": "blackhole", "fd00:10:244:1::/122": "blackhole", "10.244.2.64/26": h2.v4,
        "fd00:10:244:2::40/122": "link-local" if kind == "frr" else h2.v6}), 20)
    here.withdraw("10.244.1.0/26")
    wait.until("a withdrawal arrives", lambda: told(there, (h1.v4, h1.v6), ["fd00:10:244:1::/122"]), 20)
    there.shut(h1.v4)
    if kind == "exabgp":
        # where graceful restart is configured, its teardown is silent on purpose; it is back at once
        wait.until("closed", lambda: sum(e["type"] == "state" and e["neighbor"]["state"] == "down" for e in there.events(h1.v4)), 20)
    else:
        # by the log: some are back sooner than one can look
        wait.until("closed with a Cease", lambda: "Received: Administrative shutdown" in (here.folder / "bird.log").read_text(), 20)
    there.unshut(h1.v4)
    wait.until("up again", lambda: here.established_all() and there.established_all(), 60)
    if there.can_refresh:
        there.refresh(h1.v4)
    there.kill()
    # graceful restart: routes stay
    wait.until("closed", lambda: here.state(h2.v4) != "Established", 20)
    there.start(restarting=True)
    wait.until("up again", lambda: here.established_all(), 60)
    there.stop()
