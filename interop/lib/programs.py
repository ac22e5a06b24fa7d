"""Where the daemons and tools of the labs are. ../deps installs them; this module only finds them."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

EXACT = "CALICO_BGPD_LABS_EXACT_PATH"
INTEROP = pathlib.Path(__file__).resolve().parent.parent
PROJECT = INTEROP.parent


def cache():
    """What ../deps unpacked or built beside the system: BIRD 1.6 and GoBGP 4."""
    base = os.environ.get("CALICO_BGPD_LABS_CACHE")
    return pathlib.Path(base) if base else pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "calico-bgpd-labs"


def cached(path):
    """A program in the cache, or None."""
    found = cache() / path
    return str(found) if os.access(found, os.X_OK) else None


def installed(name):
    """A program of the system, or None. The sbin folders count even where PATH lacks them, but not in a lab, whose PATH is exact."""
    more = "" if os.environ.get(EXACT) else ":/usr/sbin:/sbin:/usr/local/sbin"
    return shutil.which(name, path=os.environ.get("PATH", "") + more)


def exact_path(folder):
    """Fills `folder` with links to what ../deps names and nothing else. A lab that needs more fails here, not on somebody's fresh machine."""
    done = subprocess.run([str(INTEROP / "deps"), "--programs"], capture_output=True, text=True, check=True)
    for line in done.stdout.split("\n"):
        program = pathlib.Path(line)
        link = folder / ("python3" if line.startswith(sys.prefix) else program.name)
        if line and not link.is_symlink():
            link.symlink_to(program)
    return {"PATH": str(folder), EXACT: "1"}


def absent(*names):
    """A text that names those programs which are not installed, or None."""
    gone = [n for n in names if not installed(n)]
    return f"not installed: {', '.join(gone)}" if gone else None


def build(release=False):
    """Builds our own binary as cargo has it to be now, and says where it is. $CALICO_BGPD names another one."""
    if os.environ.get("CALICO_BGPD"):
        return os.environ["CALICO_BGPD"]
    command = ["cargo", "build", "--quiet", "--locked", "--bin", "calico-bgpd", "--message-format=json-render-diagnostics"]
    done = subprocess.run(command + (["--release"] if release else []), cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return None
    built = [json.loads(line) for line in done.stdout.splitlines()]
    return next((b["executable"] for b in built if b.get("executable") and b["target"]["name"] == "calico-bgpd"), None)


@functools.cache
def calico_bgpd():
    """Our own binary: $CALICO_BGPD, which ../run sets to the one that it built; else a fresh debug build; else None."""
    return build()
