"""All drivers by the names that scenarios and command lines use."""

import os

from . import etcd, kubernetes, programs
from .bird import Bird1, Bird2
from .calico_bgpd import CalicoBgpd
from .exabgp import Exabgp
from .frr import Frr
from .gobgp import Gobgp3, Gobgp4
from .openbgpd import Openbgpd

FOREIGN = {d.kind: d for d in (Bird1, Bird2, Gobgp3, Gobgp4, Frr, Openbgpd, Exabgp)}
ALL = {CalicoBgpd.kind: CalicoBgpd, **FOREIGN}


def missing(need):
    """Why something that a scenario needs cannot be had here, or None: a daemon's kind, 'etcd', 'kubernetes', or a program's name."""
    if need == CalicoBgpd.kind:
        need = os.environ.get("CALICO_BGPD_STAND_IN", need)
    if need in ALL:
        return ALL[need].missing()
    if need == "etcd":
        return etcd.missing()
    if need == "kubernetes":
        return kubernetes.missing()
    return programs.absent(need)
