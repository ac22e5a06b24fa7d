"""Drivers of BIRD 1.6 (bird and bird6, one process for each family) and BIRD 2 (one for both)."""

import re

from . import net, programs
from .daemon import Daemon, Route

# What a normal Calico route carries: 2147483647 - 1024. The kernel's metric is what is left of 2147483647, as Calico computes it.
LOCAL_PREF = 2147482623


class Bird(Daemon):
    """What both have in common: configuration text, and the control client's answers."""

    # shorter than confd's, so that labs need not wait
    times = "connect delay time 1; connect retry time 2; error wait time 1,2;"
    # socket and client for a family
    control: dict[int, tuple[str, str]]

    def answer(self, family, *words):
        client, socket = self.control[family]
        return self.host.run(client, "-s", str(self.folder / socket), *words)

    def tell(self, family, *words):
        text = self.answer(family, *words)
        if re.search(r"syntax error|unexpected|invalid|not found|error", text, re.I):
            raise RuntimeError(f"{self.kind} on {self.host.name}: {' '.join(words)}: {text.strip()}")
        return text

    def statics(self, family):
        return " ".join(f"route {p} blackhole;" for p in self.prefixes if net.version(p) == family)

    def session(self, neighbour, channel):
        """One protocol block. `channel` has the import, export and add-path lines in the version's syntax."""
        n = neighbour
        asn = n.told_asn if self.kind == "bird1" else n.asn
        lines = [f"local {self.host.address(n.family)} as {self.asn};", f"neighbor {n.address} as {asn};",
                 f"source address {self.host.address(n.family)};", "multihop 1; ttl security on;" if n.gtsm else "multihop;",
                 self.times, f"hold time {n.hold};",
                 f"graceful restart on; graceful restart time {n.restart};" if n.restart else "graceful restart off;"]
        if n.passive:
            lines.append("passive on;")
        if not n.as4:
            lines.append("enable as4 off;")
        if n.password:
            lines.append(f'password "{n.password}";')
        if n.cluster:
            lines.append(f"rr client; rr cluster id {n.cluster};")
        return f"protocol bgp {n.name} {{\n  " + "\n  ".join(lines) + f"\n  {channel}\n}}\n"

    def announce(self, prefix):
        self.prefixes.append(net.canonical(prefix))
        self.reconfigure()

    def withdraw(self, prefix):
        self.prefixes.remove(net.canonical(prefix))
        self.reconfigure()

    def replace(self, neighbour):
        """Gives the neighbour of that address another configuration."""
        self.neighbours = [neighbour if n.address == neighbour.address else n for n in self.neighbours]
        if self.processes:
            self.reconfigure()

    def state(self, address):
        n = self.neighbour(address)
        found = re.search(r"BGP state:\s+(\S+)", self.answer(n.family, "show", "protocols", "all", n.name))
        return found.group(1) if found else "Idle"

    def received(self, address):
        return dict(self.paths(address))

    def paths(self, address):
        n = self.neighbour(address)
        found, prefix, told = [], None, {}
        # 'PREFIX via …' (1.6), 'PREFIX unicast [n_… …' (2); a further path of one prefix begins with blanks; attributes follow each
        for line in self.answer(n.family, "show", "route", "all", "protocol", n.name).splitlines():
            if first := re.match(r"([0-9a-f.:]+/\d+)\s", line):
                prefix = net.canonical(first.group(1))
            elif attribute := re.match(r"\s+BGP\.(\w+):\s?(.*)", line):
                if attribute.group(1) == "origin":
                    told = {}
                    found.append((prefix, told))
                told[attribute.group(1)] = attribute.group(2).split()
        return [(prefix, Route(a["next_hop"][0], tuple(map(int, a.get("as_path", []))), *(int(v) for v in a.get("local_pref", [])),
                               **({"originator": a["originator_id"][0], "clusters": tuple(a["cluster_list"])} if "originator_id" in a else {})))
                for prefix, a in found]

    def refresh(self, address):
        n = self.neighbour(address)
        self.tell(n.family, "reload", "in", n.name)

    def updates(self, address):
        n = self.neighbour(address)
        return int(re.search(r"Import updates:\s+(\d+)", self.answer(n.family, "show", "protocols", "all", n.name)).group(1))

    def shut(self, address):
        n = self.neighbour(address)
        self.tell(n.family, "disable", n.name, '"closed by the lab"')

    def unshut(self, address):
        n = self.neighbour(address)
        self.tell(n.family, "enable", n.name)


class Bird1(Bird):
    """BIRD 1.6.8, configured as confd does for a Calico node but for shorter retry times."""

    kind = "bird1"
    FAMILIES = {4: ("bird", "birdc"), 6: ("bird6", "birdc6")}

    @classmethod
    def program(cls, name):
        return programs.cached(f"bird-1.6.8/usr/sbin/{name}")

    @classmethod
    def missing(cls):
        return None if cls.program("bird") else "BIRD 1.6.8 is not unpacked (make deps does it)"

    @property
    def control(self):
        return {f: (self.program(client), f"{daemon}.ctl") for f, (daemon, client) in self.FAMILIES.items()}

    def text(self, family):
        # what Calico's export filter does for a reflector whose pools have all these prefixes
        passed_on = "if source = RTS_BGP then accept; if source = RTS_INHERIT then { bgp_local_pref = 2147483647 - krt_metric; accept; } " \
            if any(n.cluster for n in self.neighbours) else ""
        channel = "add paths on; gateway recursive;\n" \
                  f"  import filter {{ if bgp_local_pref > {LOCAL_PREF} then preference = 200; accept; }};\n" \
                  f"  export filter {{ {passed_on}if source != RTS_STATIC then reject; bgp_local_pref = {LOCAL_PREF}; accept; }};"
        return f"""router id {self.host.v4};
log "{self.folder}/{self.FAMILIES[family][0]}.log" all;
protocol device {{ scan time 2; }}
protocol direct {{ interface -"cali*", "*"; }}
protocol static {{ {self.statics(family)} }}
protocol kernel {{
  learn; persist; scan time 2; merge paths on; graceful restart on; import all;
  export filter {{ if source = RTS_BGP then krt_metric = 2147483647 - bgp_local_pref; accept; }};
}}
""" + "".join(self.session(n, channel) for n in self.neighbours if n.family == family)

    def launch(self, restarting):
        for family, (daemon, _) in self.FAMILIES.items():
            (self.folder / f"{daemon}.conf").write_text(self.text(family))
            # in front, so that our child is the daemon; -d would log to the terminal only
            command = [self.program(daemon), "-f", "-c", f"{daemon}.conf", "-s", f"{daemon}.ctl", "-P", f"{daemon}.pid"]
            self.processes.append(self.host.spawn(*command, *["-R"] * restarting, log="bird.out"))

    def reconfigure(self):
        for family, (daemon, _) in self.FAMILIES.items():
            (self.folder / f"{daemon}.conf").write_text(self.text(family))
            self.tell(family, "configure")


class Bird2(Bird):
    """BIRD 2.0.12: both families in one process, a session for each."""

    kind = "bird2"

    @classmethod
    def missing(cls):
        return programs.absent("bird", "birdc")

    @property
    def control(self):
        return dict.fromkeys((4, 6), (programs.installed("birdc"), "bird.ctl"))

    def text(self):
        def channel(family):
            return f"""ipv{family} {{
    add paths on; gateway recursive; import all;
    export filter {{ if source != RTS_STATIC then reject; bgp_local_pref = {LOCAL_PREF}; accept; }};
  }};"""
        return f"""router id {self.host.v4};
log "{self.folder}/bird.log" all;
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; ipv6; interface -"cali*", "*"; }}
""" + "".join(f"""protocol static {{ ipv{f}; {self.statics(f)} }}
protocol kernel {{
  learn; persist; scan time 2; merge paths on; graceful restart on;
  ipv{f} {{ import all; export filter {{ if source = RTS_BGP then {{ krt_metric = 2147483647 - bgp_local_pref; accept; }} if source = RTS_STATIC then accept; reject; }}; }};
}}
""" for f in (4, 6)) + "".join(self.session(n, channel(n.family)) for n in self.neighbours)

    def launch(self, restarting):
        (self.folder / "bird.conf").write_text(self.text())
        self.processes.append(self.host.spawn(programs.installed("bird"), "-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid",
                                              *["-R"] * restarting, log="bird.out"))

    def reconfigure(self):
        (self.folder / "bird.conf").write_text(self.text())
        self.tell(4, "configure")
