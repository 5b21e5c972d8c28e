"""Which TCP connections a process has accepted, as the kernel tells it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

# The kernel's table is read in pieces while it changes, so that one look may miss some.
_LOOKS = 4
_TABLE = Path("/proc/self/net/tcp")


def accepted_from(pid: int, ports: Collection[int]) -> frozenset[int]:
    """Return the clients' ports of the IPv4 connections that a process, stopped by now, has on these ports of ours."""
    inodes = _socket_inodes(pid)
    return frozenset(
        port for _ in range(_LOOKS) for inode, port in connections_on(_TABLE.read_text(), ports) if inode in inodes
    )


def has_accepted(pid: int, sock: socket.socket) -> bool:
    """Tell whether a process has accepted this IPv4 connection of ours; ask again if not, one look may miss it."""
    ours, port = sock.getsockname()[1], sock.getpeername()[1]
    inodes = [inode for inode, remote in connections_on(_TABLE.read_text(), [port]) if remote == ours]
    return not _socket_inodes(pid).isdisjoint(inodes)


def _socket_inodes(pid: int) -> set[str]:
    found = set()
    directory = Path(f"/proc/{pid}/fd")
    try:
        numbers = os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return found  # it is gone
    for fd in numbers:
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(directory / fd)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def connections_on(table: str, ports: Iterable[int]) -> list[tuple[str, int]]:
    """Return inode and remote port of every connection in the table (proc_pid_net(5)) with one of these local ports.

    There may be tens of thousands of others that have ended, and a process is standing still meanwhile: lines are
    searched before they are split.
    """
    wanted = "|".join(f"{port:04X}" for port in ports)
    lines = re.findall(rf"^ *[0-9]+: [0-9A-F]{{8}}:(?:{wanted}) .*$", table, re.MULTILINE)
    rows = [line.split() for line in lines]
    return [(row[9], remote) for row in rows if (remote := int(row[2].rpartition(":")[2], 16))]
