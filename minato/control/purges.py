"""Carries purges to the workers of every generation, and tells who asked once all have confirmed or time is up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from minato.caching.purge import PurgeRequest
from minato.control.channel import Message, Verb
from minato.control.generation import WorkerHandle, WorkerState
from minato.control.outbox import Outbox
from minato.control.supervisor import Supervisor
from minato.decide.purging import PurgeOutcome, Purging
from minato.net.loop import Loop

log = logging.getLogger("minato.purge")

# A worker confirms within a turn of its loop: one that takes longer hangs, or the machine does.
WAIT_S = 2.0
_RETRY_S = 0.05

OnPurged = Callable[[PurgeOutcome], None]


class Purges:
    """All purges of one master.

    Every worker that may hold anything is asked, those that drain or were told to stop as well. Not asked are those
    that do not serve yet, since they hold nothing, and those that were killed. A worker that does not confirm in time
    is missing from the answer, but keeps its message: when it goes on, it reads that before it looks at any client
    (what it had begun to handle in the very moment it stopped excepted).
    """

    def __init__(self, loop: Loop, supervisor: Supervisor) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._purging = Purging()
        self._callbacks: dict[int, OnPurged] = {}
        self._outboxes: dict[int, Outbox] = {}
        self._others: dict[int, Callable[[int], None]] = {}
        self._deadline = loop.timer(self._settle)
        self._retry = loop.timer(self._flush)
        supervisor.on_purged = self._on_purged
        supervisor.on_gone = self._on_gone

    def __repr__(self) -> str:
        return f"<Purges {len(self._purging)} under way, {len(self._outboxes)} workers known>"

    def begin(self, purges: Sequence[PurgeRequest], on_purged: OnPurged, asked_by: int = 0) -> None:
        """Have every worker carry out these purges, then call ``on_purged`` once; at once where there is no worker.

        Args:
            asked_by: the other master that asks for it, which is not asked in turn.
        """
        self._supervisor.hear()  # one that has said by now that it serves is no longer about to start
        workers = [worker for _, worker in self._supervisor.workers() if _may_hold_something(worker)]
        others = {pid: ask for pid, ask in self._others.items() if pid != asked_by}
        pids = [*(worker.pid for worker in workers), *others]
        serial = self._purging.begin(pids, self._loop.now_s + WAIT_S)
        self._callbacks[serial] = on_purged
        message = Message(Verb.PURGE, serial=serial, purges=tuple(purges))
        for worker in workers:
            self._outboxes.setdefault(worker.pid, Outbox(worker.channel.send)).put(message)
        for ask in others.values():
            ask(serial)
        self._settle()
        self._retry_later()

    def ask_also(self, pid: int, ask: Callable[[int], None]) -> None:
        """Have another master take part in every purge until it leaves: it is asked by serial, and ``confirm``s it."""
        self._others[pid] = ask

    def confirm(self, pid: int, serial: int, count: int) -> None:
        """Another master has carried out everything up to that serial."""
        self._purging.confirm(pid, serial, count)
        self._settle()

    def leave(self, pid: int) -> None:
        """Another master is gone."""
        self._others.pop(pid, None)
        self._purging.leave(pid)
        self._settle()

    def _on_purged(self, worker: WorkerHandle, message: Message) -> None:
        self._purging.confirm(worker.pid, message.serial, message.count)
        if (outbox := self._outboxes.get(worker.pid)) is not None:
            outbox.confirm(message.serial)
        self._settle()

    def _on_gone(self, worker: WorkerHandle) -> None:
        self._outboxes.pop(worker.pid, None)
        self._purging.leave(worker.pid)
        self._settle()

    def _settle(self) -> None:
        """Tell the outcome of every purge that is over."""
        for outcome in self._purging.take_finished(self._loop.now_s):
            if outcome.missing:
                pids = ", ".join(map(str, outcome.missing))
                log.warning("a purge was not confirmed within %g s by the workers with pid %s", WAIT_S, pids)
            self._callbacks.pop(outcome.serial)(outcome)
        if (due_s := self._purging.next_deadline_s()) < math.inf:
            self._deadline.set(max(due_s - self._loop.now_s, 0.0))

    def _flush(self) -> None:
        for outbox in self._outboxes.values():
            outbox.flush()
        self._retry_later()

    def _retry_later(self) -> None:
        """A channel that is full tells nobody when it has room again; as a rule a confirmation does, much sooner."""
        if any(outbox.is_waiting for outbox in self._outboxes.values()):
            self._retry.set(_RETRY_S)


def _may_hold_something(worker: WorkerHandle) -> bool:
    return worker.ready_s < math.inf and worker.state is not WorkerState.KILLED
