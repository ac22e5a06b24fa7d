"""What every driver of a BGP daemon offers to the scenarios, whatever the daemon."""

import os
import signal
import subprocess
from dataclasses import dataclass

from . import net, wait


# what stands for an AS number of four octets where there is room for two
AS_TRANS = 23456


@dataclass(frozen=True)
class Neighbour:
    """One session as the daemon in question should configure it. The family is that of the address."""

    address: str
    asn: int
    passive: bool = False         # wait to be dialled
    password: str | None = None   # TCP MD5
    gtsm: bool = False            # send TTL 255 and accept nothing from farther than one hop
    hold: int = 240               # hold time offered, seconds
    restart: int = 120            # graceful restart time offered, seconds; 0 offers none
    as4: bool = True              # AS numbers of four octets (RFC 6793)
    cluster: str | None = None    # reflect routes to it, with this cluster id (RFC 4456)
    called: str | None = None     # a name that is not made of the address

    @property
    def family(self):
        return net.version(self.address)

    @property
    def told_asn(self):
        """The neighbour's AS number as BIRD 1.6 and ExaBGP have to be told it where they are to have two octets only: the others read it in the capability
        that they do not send."""
        return self.asn if self.as4 or self.asn < 65536 else AS_TRANS

    @property
    def name(self):
        """A word that every daemon takes as a name."""
        return self.called or "n_" + self.address.replace(".", "_").replace(":", "_")


@dataclass(frozen=True)
class Route:
    """A route as a daemon received it."""

    next_hop: str
    as_path: tuple[int, ...]
    local_pref: int | None = None
    # of a reflected route (RFC 4456); OpenBGPD's driver and calico-bgpd's do not tell them
    originator: str | None = None
    clusters: tuple[str, ...] = ()


class Daemon:
    """A BGP daemon on a host: AS number, neighbours, and the prefixes that it originates.

    A driver implements launch, state, received, and what else its daemon can do; NotImplementedError says that a daemon cannot.
    """

    # the kind's name on command lines
    kind = ""
    # whether it waits minutes before it dials again where nobody listened
    dials_rarely = False
    # whether it can be made to send a ROUTE-REFRESH
    can_refresh = True
    # whether it sends its routes again when a neighbour asks
    answers_refresh = True
    # the families that it carries to neighbours with AS numbers of two octets; none: it cannot be had without those of four
    two_octets = (4, 6)

    def __init__(self, host, asn, neighbours=(), prefixes=()):
        self.host, self.asn = host, asn
        self.neighbours = list(neighbours)
        self.prefixes = [net.canonical(p) for p in prefixes]
        self.processes = []
        self.folder = host.folder

    # --- life

    @classmethod
    def missing(cls):
        """What is not installed, in words, or None."""
        raise NotImplementedError

    def launch(self, restarting):
        """Writes the configuration and starts the processes into self.processes."""
        raise NotImplementedError

    def start(self, restarting=False):
        """Starts the daemon; restarting: as one that says in its OPEN that it kept forwarding (RFC 4724's R and F bits), where it can."""
        self.launch(restarting)
        return self

    def stop(self, seconds=15):
        """Ends the daemon as its service manager would: SIGTERM."""
        self.end(signal.SIGTERM, seconds)

    def kill(self):
        """Ends the daemon as a crash would: it says nothing to anybody."""
        self.end(signal.SIGKILL, 10)

    def end(self, how, seconds):
        # the last started first: a daemon goes before what it speaks through
        for process in reversed(self.processes):
            if process.poll() is None:
                os.kill(process.pid, how)
        for process in self.processes:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise wait.Failed(f"{self.kind} on {self.host.name} did not end within {seconds} s of {how.name}") from None
        self.processes = []

    def memory(self):
        """Resident memory of all of its processes, in KiB."""
        total = 0
        for process in self.processes:
            with open(f"/proc/{process.pid}/status") as status:
                total += next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
        return total

    def alive(self):
        return bool(self.processes) and all(p.poll() is None for p in self.processes)

    # --- routes

    def announce(self, prefix):
        """Originates a prefix beside those it has."""
        raise NotImplementedError

    def withdraw(self, prefix):
        raise NotImplementedError

    def received(self, address):
        """prefix → Route: what the neighbour has sent and not withdrawn."""
        raise NotImplementedError

    def paths(self, address):
        """(prefix, Route) of each path, where the neighbour may send several of a prefix (RFC 7911) and the driver tells them apart."""
        return list(self.received(address).items())

    def refresh(self, address):
        """Asks the neighbour to send its routes again (RFC 2918)."""
        raise NotImplementedError

    def updates(self, address):
        """How many UPDATEs (or routes in them: whatever it counts) it has received from the neighbour; only good for comparing."""
        raise NotImplementedError

    # --- sessions

    def state(self, address):
        """The session's state in RFC 4271's words; 'Established' when it is up."""
        raise NotImplementedError

    def established(self, address):
        state = self.state(address)
        return True if state == "Established" else f"!{self.kind} on {self.host.name} has {address} in {state}"

    def established_all(self):
        for neighbour in self.neighbours:
            value = self.established(neighbour.address)
            if value is not True:
                return value
        return True

    def shut(self, address):
        """Ends the session administratively: Cease/2."""
        raise NotImplementedError

    def unshut(self, address):
        raise NotImplementedError

    def neighbour(self, address):
        return next(n for n in self.neighbours if n.address == address)
