"""What the figures were measured on: cores, kernel, versions, load; nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence

from peers import Peer, find_program


def describe(peers: Sequence[Peer]) -> dict[str, str]:
    """Label -> value, in the report's order."""
    tools = {peer.program: peer for peer in peers if find_program(peer.program)}
    return {
        "cores": str(os.cpu_count()),
        "processor": _processor(),
        "kernel": re.sub(r"^(\d+(?:\.\d+)*).*", r"\1", platform.release()),
        "load before the start": f"{os.getloadavg()[0]:.1f}",
        "Python": f"{platform.python_implementation()} {platform.python_version()} ({_python_build()})",
        **{peer.name.removesuffix("-h11"): _version(peer) for peer in tools.values()},
        "wrk": _first_number(_output(["wrk", "-v"])),
    }


def _python_build() -> str:
    """Where this Python is from, and whether it was optimised by a profile (8 to 20 % of minato's CPU time)."""
    from_distribution = sys.base_prefix == "/usr"
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    if "--enable-optimizations" in options:
        optimised = "optimised by a profile" + (", with LTO" if "--with-lto" in options else "")
    elif from_distribution:  # Debian, for one, optimises by a rule of its own that leaves no trace in the record
        optimised = "whether optimised by a profile is not on record"
    else:
        optimised = "not optimised by a profile"
    source = "the distribution's" if from_distribution else "not the distribution's"
    return f"{source}, {optimised}, {platform.python_compiler()}, {platform.python_build()[1]}"


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(peer: Peer) -> str:
    return _first_number(_output([find_program(peer.program) or peer.program, *peer.version]))


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def _first_number(text: str) -> str:
    """The upstream's version, without the distribution's suffix."""
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found[0] if found else "unknown"
