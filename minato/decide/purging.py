"""Which worker has confirmed which purge: who was asked, who answered, who left, and when waiting ends; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PurgeOutcome:
    """How a purge came out.

    Attributes:
        serial: of the purge.
        purged: stored responses that were found, over all workers that confirmed.
        workers: how many confirmed.
        missing: the workers that neither confirmed nor ended in time, in ascending order.
    """

    serial: int
    purged: int
    workers: int
    missing: tuple[int, ...] = ()


@dataclass(slots=True)
class _Purge:
    waiting: set[int]
    deadline_s: float
    purged: int = 0
    workers: int = 0


@dataclass(slots=True)
class Purging:
    """The purges under way, any number at once.

    Workers are known by a number that no two of them have at a time (the pid). Serials ascend, and messages to and from
    a worker keep their order. So a worker that confirms one purge has carried out all before it, too: that is how one
    message can stand for several that a worker did not get.

    Attributes:
        serial: of the newest purge; 0 before the first.
    """

    serial: int = 0
    _open: dict[int, _Purge] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, workers: Iterable[int], deadline_s: float) -> int:
        """Note a purge that these workers are asked for; return its serial.

        Args:
            workers: all that may hold anything stored.
            deadline_s: monotonic second at which nobody waits any more.
        """
        self.serial += 1
        self._open[self.serial] = _Purge(set(workers), deadline_s)
        return self.serial

    def confirm(self, worker: int, serial: int, purged: int) -> None:
        """A worker says that it has carried out everything up to a serial, and what it found for that one.

        What comes after its deadline is not counted.
        """
        for number, purge in self._open.items():
            if number <= serial and worker in purge.waiting:
                purge.waiting.remove(worker)
                purge.workers += 1
                if number == serial:
                    purge.purged += purged

    def leave(self, worker: int) -> None:
        """A worker ended, and its cache with it: nothing is waited for, nothing counted."""
        for purge in self._open.values():
            purge.waiting.discard(worker)

    def next_deadline_s(self) -> float:
        """Return the monotonic second at which the first of them ends, answered or not; infinity without any."""
        return min((purge.deadline_s for purge in self._open.values()), default=math.inf)

    def take_finished(self, mono_s: float) -> list[PurgeOutcome]:
        """Return the purges that are over, each once, in the order of their serials."""
        over = [n for n, purge in self._open.items() if not purge.waiting or purge.deadline_s <= mono_s]
        finished = []
        for serial in over:
            purge = self._open.pop(serial)
            finished.append(PurgeOutcome(serial, purge.purged, purge.workers, tuple(sorted(purge.waiting))))
        return finished
