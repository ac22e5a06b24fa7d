"""BIRD 1.6.8 on `intent --format bird` of a recorded situation: what confd and BIRD did, it does."""

import json

from differential import play, record, situations
from lib import wait

VARIANTS = situations.names()
NEEDS = ["calico-bgpd", "bird1"]
SECONDS = 120
# filters with each condition and action, services, reflectors, own AS, next hops, passwords, TTL security, IPIP, each release
SPREAD = set("""
filter-all-conditions filter-communities-import filter-set-priority-export filter-prepend-own-as svc-dual-stack rr-reflects-service-ranges
own-as-allowed-with-local-as next-hop-keep-original mesh-passive-by-string-order-v6 password-present ttl-security reachable-by
v3.14-rr-mesh-and-selector v3.20-ipip-dual-stack v3.26-svc-local-policy v3.31-prio-service-aggregates
""".split())


def when(variant):
    return "always" if variant in SPREAD else "soak"


def without_tunnels(expected, seen):
    """Both without the next hops of routes that were recorded to leave through IPIP: only Calico's fork of BIRD writes such routes."""
    tunnelled = {(route["prefix"], route["table"]) for route in expected["kernel"] if any(hop["dev"] == "tunl0" for hop in route.get("nexthops", []))}
    return [{**each, "kernel": [{key: value for key, value in route.items() if key != "nexthops" or (route["prefix"], route["table"]) not in tunnelled}
                                for route in each["kernel"]]} for each in (expected, seen)]


def run(lab, variant):
    situation = situations.load(variant)
    seen = play.observe(situation, play.bird(situation, lab.out), lab.out, lab.say)
    (lab.out / "observed.json").write_text(json.dumps(seen, indent=1))
    found = record.differences(*without_tunnels(situation.observed, seen))
    for line in found:
        lab.say(line)
    if variant in situations.not_yet():
        wait.check("what not-yet.txt names is not as recorded", found)
        return
    wait.check("all is as recorded", not found or f"!{len(found)} differences: {'; '.join(found[:5])}")
