"""Drains that the admin API asks for: marked here and at the other masters of this minato, then answered."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minato.decide.purging import Purging
from minato.net.loop import Loop

log = logging.getLogger("minato.upgrade")

# Another master answers within a turn of its loop.
WAIT_S = 2.0
KEYS_PER_MESSAGE = 50  # a host's name has 253 bytes at the most; what a message takes is bounded

Mark = Callable[[Sequence[str], bool], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain, or its end, came out.

    Attributes:
        open_by_service: how many upstreams of each service get new requests.
        missing: the other masters, by pid, that have not confirmed it.
    """

    open_by_service: Mapping[str, int]
    missing: tuple[int, ...] = ()


class Drains:
    """All drains of one master.

    Where masters drain after upgrades, or one is about to take over, all are asked: a kept connection of an old one's
    worker may send one more request.
    """

    def __init__(self, loop: Loop, mark: Mark) -> None:
        self._loop = loop
        self._mark = mark
        self._waiting = Purging()
        self._callbacks: dict[int, Callable[[tuple[int, ...]], None]] = {}
        self._others: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._deadline = loop.timer(self._settle)

    def begin(self, keys: Sequence[str], on: bool, on_marked: Callable[[Drained], None], *, asked_by: int = 0) -> None:
        """Have these upstreams get no new requests, or end that, then call ``on_marked`` once.

        Args:
            asked_by: the other master that asks for it, which is not asked in turn.
        """
        open_by_service = self._mark(keys, on)
        others = {pid: ask for pid, ask in self._others.items() if pid != asked_by}
        serial = self._waiting.begin(others, self._loop.now_s + WAIT_S)
        self._callbacks[serial] = lambda missing: on_marked(Drained(open_by_service, missing))
        for start in range(0, len(keys), KEYS_PER_MESSAGE):
            part = list(keys[start : start + KEYS_PER_MESSAGE])
            is_last = start + KEYS_PER_MESSAGE >= len(keys)
            for ask in others.values():
                ask({"drain": part, "on": on, "serial": serial if is_last else 0})
        self._settle()

    def ask_also(self, pid: int, ask: Callable[[dict[str, Any]], None]) -> None:
        """Have another master take part in every drain until it leaves: it is asked by a message, and confirms it."""
        self._others[pid] = ask

    def confirm(self, pid: int, serial: int) -> None:
        """Another master has done everything up to that serial."""
        self._waiting.confirm(pid, serial, 0)
        self._settle()

    def leave(self, pid: int) -> None:
        """Another master is gone, and all that it had drained."""
        self._others.pop(pid, None)
        self._waiting.leave(pid)
        self._settle()

    def _settle(self) -> None:
        for outcome in self._waiting.take_finished(self._loop.now_s):
            if outcome.missing:
                pids = ", ".join(map(str, outcome.missing))
                log.warning("a drain was not confirmed within %g s by the master with pid %s", WAIT_S, pids)
            self._callbacks.pop(outcome.serial)(outcome.missing)
        if (due_s := self._waiting.next_deadline_s()) < math.inf:
            self._deadline.set(max(due_s - self._loop.now_s, 0.0))
