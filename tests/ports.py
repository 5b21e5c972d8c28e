"""Free ports for listeners that are bound later, by another process: never those of the ephemeral range."""

from __future__ import annotations

import os
import socket
from itertools import count

_FIRST, _WORKERS, _PER_WORKER = 20_000, 8, 1_500


def _worker_number() -> int:
    """The number of the pytest-xdist worker: each has ports of its own, so that two never pick the same."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _WORKERS


_offsets = count(os.getpid() * 37)


def free_port() -> int:
    """Return a port that nobody listens on, on any address; no port is given out twice in a row."""
    first = _FIRST + _worker_number() * _PER_WORKER
    for offset in _offsets:
        port = first + offset % _PER_WORKER
        if _is_free(port):
            return port
    raise AssertionError("unreachable")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("::", port))
        except OSError:
            return False
    return True
