"""Runs a command under another Linux kernel: one that has ipip, dummy and vrf devices, where this machine's has none.

It is Debian's user-mode Linux with the files of this machine as its root. No hypervisor, no image, no network; root and x86-64 are needed.
The command is started in the folder that this one is started in, with the same environment and an empty standard input. What it writes is lost
with the guest, but for what it writes below a folder of --writable. /run is empty, and the network has nothing but `lo`.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from . import programs

HERE = pathlib.Path(__file__).resolve().parent.parent / "guest"
MODULES = pathlib.Path("/usr/lib/uml/modules")
PROGRAMS = ("linux.uml", "modprobe", "perl", "cc", "setpriv", "unshare")


def missing():
    """Why there can be no guest here, or None."""
    if os.uname().machine != "x86_64":
        return f"the guest kernel is for x86_64, and this machine is {os.uname().machine}"
    if gone := programs.absent(*PROGRAMS):
        return gone
    return None if any(MODULES.glob("*/kernel")) else "the guest kernel has no modules: is user-mode-linux installed whole?"


def registers(cache):
    """The library of registers.c, made where it is not there yet."""
    made = cache / "guest-registers.so"
    source = HERE / "registers.c"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            new = pathlib.Path(folder) / made.name
            command = [programs.installed("cc"), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(new), str(source)]
            # the compiler looks for its assembler and linker in PATH, which is short in a lab
            subprocess.run(command, check=True, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
            new.replace(made)
    return made


def command(out, seconds, *inner):
    """The command line that runs `inner` in a guest, where it may write to `out`. Killing the process ends the guest."""
    return [sys.executable, str(HERE / "run"), "--writable", str(out), "--seconds", str(seconds), "--", *inner]


def listed(items):
    return b"".join(os.fsencode(item) + b"\0" for item in items)


def boot(command, writable, memory, seconds):
    """Runs the command in a guest; its exit status. 124: it took too long; 125: the guest died before it."""
    with tempfile.TemporaryDirectory(prefix="guest-") as name:
        folder = pathlib.Path(name)
        for script in ("init", "second"):
            shutil.copy(HERE / script, folder)
        newest = max(MODULES.glob("*/kernel"), key=lambda found: found.stat().st_mtime).parent
        (folder / "modules").write_text(f"{newest}\n")
        (folder / "folder").write_text(os.getcwd())
        (folder / "writable").write_bytes(listed(str(pathlib.Path(w).resolve()) for w in writable))
        (folder / "command").write_bytes(listed(command))
        (folder / "environment").write_bytes(listed(f"{key}={value}" for key, value in os.environ.items()))
        outputs = [os.pipe(), os.pipe()]
        # pipes of their own: the guest makes its lines non-blocking, and the caller's stay as they are
        copies = [subprocess.Popen(["cat"], stdin=read, stdout=to) for (read, _), to in zip(outputs, (sys.stdout, sys.stderr))]
        # Its processes end with their namespace, that with setpriv's process, and that with ours: however we end.
        command = [programs.installed("setpriv"), "--pdeathsig", "KILL",
                   programs.installed("unshare"), "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
                   programs.installed("linux.uml"), f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "ro", f"init={folder}/init",
                   f"uml_dir={folder}/", "umid=guest", "con=null", "con0=null,fd:1", f"con1=null,fd:{outputs[0][1]}",
                   f"con2=null,fd:{outputs[1][1]}", "panic=1"]
        environment = {**os.environ, "LD_PRELOAD": str(registers(programs.cache()))}
        late = False
        with open(folder / "kernel.log", "wb") as log:
            kernel = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[write for _, write in outputs],
                                      env=environment)
        for ends in outputs:
            for end in ends:
                os.close(end)
        try:
            kernel.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            kernel.kill()
            kernel.wait()
            for copy in copies:
                copy.wait()
        status = folder / "status"
        if status.exists():
            return int(status.read_text())
        if late:
            print(f"interop/guest/run: the guest was ended after {seconds} seconds", file=sys.stderr)
            return 124
        print("interop/guest/run: the guest ended before the command; what its kernel said last:", file=sys.stderr)
        sys.stderr.write("".join((folder / "kernel.log").read_text(errors="replace").splitlines(keepends=True)[-15:]))
        return 125


def main():
    parser = argparse.ArgumentParser(prog="interop/guest/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="The exit status is the command's; 124 where it took too long, 125 where there was no guest.")
    parser.add_argument("--writable", action="append", default=[], metavar="FOLDER", help="a folder of this machine that the command may write to")
    parser.add_argument("--memory", default="1024M", metavar="SIZE", help="the guest's memory (default 1024M)")
    parser.add_argument("--seconds", type=int, default=600, metavar="N", help="how long it may run (default 600)")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("interop/guest/run: must be run as root", file=sys.stderr)
        return 125
    if gone := missing():
        print(f"interop/guest/run: {gone}", file=sys.stderr)
        return 125
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return boot(args.command, args.writable, args.memory, args.seconds)
