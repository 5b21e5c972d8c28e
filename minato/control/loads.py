"""What workers have done and what they take, for their recycling: looked up from outside, at no cost to a request."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minato.control.generation import Generation, WorkerHandle
from minato.decide.recycling import Load
from minato.shared.board import Counter

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def measure_loads(generation: Generation, workers: Iterable[WorkerHandle]) -> dict[int, Load]:
    """Return the loads of a generation's workers by pid; nothing of those that are gone."""
    loads = {}
    for worker in workers:
        requests = generation.board.row(worker.row).get(Counter.REQUESTS)
        loads[worker.pid] = Load(requests, resident_bytes(worker.pid) if worker.allowance.memory_bytes else 0)
    return loads


def resident_bytes(pid: int, proc: Path = _PROC) -> int:
    """Return what a process takes as ``ps`` tells it (RSS), what it shares with others included; 0 when it is gone."""
    try:
        return int((proc / str(pid) / "statm").read_text("ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
