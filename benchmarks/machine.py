"""What the figures were measured on: cores, kernel, versions, load; nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
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
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **{peer.name.removesuffix("-h11"): _version(peer) for peer in tools.values()},
        "wrk": _first_number(_output(["wrk", "-v"])),
    }


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
