"""A recorded situation from outside: what confd and BIRD did, ours does."""

import json

from differential import play, record, situations
from lib import wait

VARIANTS = situations.names()
NEEDS = ["calico-bgpd"]
SECONDS = 120
# of each kind of rule one, and of each release
SPREAD = set("""
block-state-empty ecmp-many kernel-same-prefix-several-metrics live-migration-target-here local-as-makes-external
mesh-and-global-peer-same-address mesh-passive-by-string-order-v6 next-hop-keep-original node-bind-mode-node-ip node-listen-port-per-node
own-as-allowed-three password-present password-secret-absent peer-two-external-reflect-between reachable-by rr-reflects-service-ranges
selector-peers-and-or svc-dual-stack svc-local-policy ttl-security wireguard-all filter-all-conditions filter-communities-export filter-prepend
local-workload-peer-internal v3.14-ipip-through-reflector v3.20-vxlan-keep-next-hop v3.26-svcx-lb-single-and-range v3.31-ipip-felix-enabled
v3.32-pool-ipv6-vxlan
""".split())


def when(variant):
    return "always" if variant in SPREAD else "soak"


def run(lab, variant):
    situation = situations.load(variant)
    seen = play.play(situation, lab.out, lab.say)
    (lab.out / "observed.json").write_text(json.dumps(seen, indent=1))
    found = record.differences(situation.observed, seen)
    for line in found:
        lab.say(line)
    if variant in situations.not_yet():
        wait.check("what not-yet.txt names is not as recorded", found)
        return
    wait.check("all is as recorded", not found or f"!{len(found)} differences: {'; '.join(found[:5])}")
