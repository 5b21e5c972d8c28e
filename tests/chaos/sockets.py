"""Which TCP connections a process has accepted, as the kernel tells it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

# The kernel's table is read in pieces while it changes, so that one look may miss some.
_LOOKS = 4


def accepted_from(pid: int, ports: Collection[int]) -> frozenset[int]:
    """Return the clients' ports of the IPv4 connections that a process, stopped by now, has on these ports of ours."""
    inodes = _socket_inodes(pid)
    return frozenset(port for _ in range(_LOOKS) for inode, port in _connections(ports) if inode in inodes)


def _socket_inodes(pid: int) -> set[str]:
    found = set()
    directory = Path(f"/proc/{pid}/fd")
    for fd in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(directory / fd)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def _connections(ports: Iterable[int]) -> list[tuple[str, int]]:
    """Return inode and remote port of every connection whose local port is one of these (proc_pid_net(5)).

    There may be tens of thousands of others that have ended, and the process is standing still meanwhile: lines are
    looked at by their fixed columns first.
    """
    ends = {f"{port:04X}" for port in ports}
    found = []
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        if line[15:19] in ends:
            columns = line.split()
            if remote := int(columns[2].rpartition(":")[2], 16):
                found.append((columns[9], remote))
    return found
