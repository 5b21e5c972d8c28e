"""What a running instance holds: memory, descriptors, threads of all its processes, and its shared memory."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_SHM = Path("/dev/shm")
_PROC = Path("/proc")
# Without the pages of files: those are shared with every other Python on the machine, whose end would look like growth.
_PSS = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
_RSS = re.compile(r"^Rss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """Attributes:
    at_s: monotonic seconds.
    pss_kib, rss_kib: of all processes; with shared pages divided among them (those of files left out), and counted
        for each.
    master_rss_kib: RSS of the master alone.
    fds, master_fds: descriptors of all, and of the master alone.
    threads: of all.
    processes: how many there are.
    shm_bytes, shm_segments: in /dev/shm.
    """

    at_s: float
    pss_kib: int
    rss_kib: int
    master_rss_kib: int
    fds: int
    master_fds: int
    threads: int
    processes: int
    shm_bytes: int
    shm_segments: int


def take_sample(master: int) -> Sample:
    """Look at a master and its workers. Processes that end meanwhile count as gone."""
    pids = [master]
    with contextlib.suppress(psutil.NoSuchProcess):
        pids += [child.pid for child in psutil.Process(master).children(recursive=True)]
    looks = {pid: look for pid in pids if (look := _look_at(pid)) is not None}
    segments = _segment_sizes(master)
    pss, rss, fds, threads = (sum(column) for column in zip(*looks.values(), strict=True)) if looks else (0, 0, 0, 0)
    of_master = looks.get(master, (0, 0, 0, 0))
    return Sample(
        at_s=time.monotonic(),
        pss_kib=pss,
        rss_kib=rss,
        master_rss_kib=of_master[1],
        fds=fds,
        master_fds=of_master[2],
        threads=threads,
        processes=len(looks),
        shm_bytes=sum(segments),
        shm_segments=len(segments),
    )


def _look_at(pid: int) -> tuple[int, int, int, int] | None:
    """Return PSS and RSS in KiB, descriptors and threads of one process; None if it is gone."""
    directory = _PROC / str(pid)
    try:
        rollup = (directory / "smaps_rollup").read_text()
        descriptors = len(list((directory / "fd").iterdir()))
        threads = len(list((directory / "task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return _sum(_PSS.findall(rollup)), _sum(_RSS.findall(rollup)), descriptors, threads


def _sum(numbers: Iterable[str]) -> int:
    return sum(int(number) for number in numbers)


def _segment_sizes(master: int) -> list[int]:
    sizes = []
    for path in _SHM.glob(f"minato-{master}-*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes
