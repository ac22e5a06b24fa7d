"""Where the daemons and tools of the labs are. ../deps installs them; this module only finds them."""

import functools
import json
import os
import pathlib
import shutil
import subprocess

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
    """A program of the system, or None. The sbin folders count even where PATH lacks them."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def absent(*names):
    """A text that names those programs which are not installed, or None."""
    gone = [n for n in names if not installed(n)]
    return f"not installed: {', '.join(gone)}" if gone else None


@functools.cache
def calico_bgpd():
    """Our own binary: $CALICO_BGPD, else where cargo puts a build of this workspace (the newer of debug and release), else None."""
    if os.environ.get("CALICO_BGPD"):
        return os.environ["CALICO_BGPD"]
    target = os.environ.get("CARGO_TARGET_DIR")
    if not target:
        done = subprocess.run(["cargo", "metadata", "--format-version=1", "--no-deps", "--offline"], cwd=PROJECT, capture_output=True, text=True)
        if done.returncode != 0:
            return None
        target = json.loads(done.stdout)["target_directory"]
    builds = [p for p in (pathlib.Path(PROJECT, target, profile, "calico-bgpd") for profile in ("debug", "release")) if p.exists()]
    return str(max(builds, key=lambda p: p.stat().st_mtime)) if builds else None
