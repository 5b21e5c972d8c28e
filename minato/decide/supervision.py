"""What becomes of the workers: who is forked, killed, drained, replaced or lent sockets; facts and the clock go in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from minato.decide.crew import Crew, Member, WorkerState
from minato.decide.probation import Probation
from minato.decide.recycling import Load, RecycleReason
from minato.decide.rollover import BOOT_TIMEOUT_S

G = TypeVar("G", bound=Crew[Any])
W = TypeVar("W", bound=Member)

# After so long without a heartbeat the others serve a worker's queue.
STALE_S = 1.0
# What a worker may take to end beyond its deadline.
STOP_GRACE_S = 2.0
# A worker beats four times a second; a shorter timeout would kill healthy ones on a busy machine.
MIN_HEARTBEAT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Loan(Generic[W]):
    """Sockets of slots that a worker is to accept from besides its own, and slots it no longer is to."""

    worker: W
    borrow: tuple[int, ...]
    give_back: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recycle(Generic[W]):
    """A worker to be replaced by a fresh one, which comes first.

    Attributes:
        has_row: whether there is a row on the board for that one; where there is none, it has to wait.
    """

    worker: W
    reason: RecycleReason
    has_row: bool = True


class Supervision(Generic[G, W]):
    """The generations of one master and their workers. It decides and remembers; who calls it forks, signals and tells.

    Attributes:
        generations: those that have workers, the oldest first.
        current: the one that serves; None before the first does, and once all are to end.
        probation: whether the current one crashes too often.
    """

    def __init__(self) -> None:
        self.generations: list[G] = []
        self.current: G | None = None
        self.probation: Probation[G] = Probation()

    def __repr__(self) -> str:
        return f"<Supervision {self.generations}, current {self.current and self.current.number}>"

    def workers(self) -> list[tuple[G, W]]:
        """Return every living worker with its generation."""
        return [(generation, worker) for generation in self.generations for worker in generation.workers.values()]

    def draining(self) -> int:
        """Return how many generations but the current one have workers."""
        return sum(generation is not self.current for generation in self.generations)

    def is_stranded(self, mono_s: float) -> bool:
        """Tell whether the current generation has no worker left that serves."""
        current = self.current
        return current is not None and not any(self._attends(worker, mono_s) for worker in current.workers.values())

    # -- what happened

    def note_forked(self, generation: G, worker: W) -> None:
        """A worker was forked."""
        generation.workers[worker.pid] = worker

    def note_not_forked(self, generation: G, slot: int, mono_s: float) -> None:
        """A worker could not be forked: try again later."""
        generation.respawn(slot).note_boot_failure(mono_s)

    def note_ready(self, generation: G, worker: W, mono_s: float) -> list[W]:
        """A worker serves. Returns those whose place it takes, which are to drain."""
        worker.ready_s = mono_s
        if worker.state is not WorkerState.STARTING:
            return []  # it was told to end while it started
        worker.become(WorkerState.READY)
        return [other for other in generation.serving() if other.slot == worker.slot and other is not worker]

    def note_draining(self, generation: G, worker: W, mono_s: float) -> bool:
        """A worker accepts no more. Returns whether somebody else than the master told it so."""
        worker.is_accepting = False
        if not worker.is_serving:
            return False
        self._take_leave(worker, WorkerState.DRAINING, mono_s + generation.drain_s)
        return True

    def note_dead(self, generation: G, worker: W, mono_s: float, *, is_crash: bool) -> float:
        """A worker is gone.

        Args:
            is_crash: whether it ended by its own fault: an error, a fault signal, memory that ran out.

        Returns:
            The seconds before its slot gets another one, mostly 0.
        """
        del generation.workers[worker.pid]
        generation.died += 1
        if generation is not self.current or worker.was_told:
            return 0.0
        lived_s = mono_s - worker.ready_s
        if is_crash or worker.state is WorkerState.KILLED:
            self.probation.note_crash(lived_s, mono_s)
        respawn = generation.respawn(worker.slot)
        if worker.ready_s > mono_s:
            return respawn.note_boot_failure(mono_s)
        return respawn.note_death(lived_s, mono_s)

    # -- what is to be done

    def overdue(self, mono_s: float) -> list[tuple[G, W, str]]:
        """Return the workers to be killed, and why: those that hang, and those that were to end and did not in time."""
        found = [
            (generation, worker, self._why_kill(generation, worker, mono_s)) for generation, worker in self.workers()
        ]
        return [entry for entry in found if entry[2]]

    def vacancies(self, mono_s: float) -> list[int]:
        """Return the slots of the current generation that want a worker now."""
        return self.current.vacant_slots(mono_s) if self.current is not None else []

    def surplus(self, mono_s: float) -> list[W]:
        """Return the workers of the current generation that are more than it should have; they are to drain.

        They stay as long as no other serves: those that are to stay may all have died just now.
        """
        generation = self.current
        if generation is None or not any(
            worker.slot < generation.target and self._attends(worker, mono_s) for worker in generation.workers.values()
        ):
            return []
        return [worker for worker in generation.serving() if worker.slot >= generation.target]

    def loans(self, slots: Iterable[int], mono_s: float) -> list[Loan[W]]:
        """Return who is to accept from the sockets of slots that nobody attends to, and who no longer is to.

        Nobody attends to slots beyond the number of workers, to one whose worker died and is not there again, and to
        one whose worker has not been heard of for ``STALE_S``.

        Args:
            slots: all that have sockets.
            mono_s: monotonic seconds.
        """
        if self.current is None:
            return []
        attending = [worker for worker in self.current.workers.values() if self._attends(worker, mono_s)]
        attended = {worker.slot for worker in attending}
        unattended = {slot for slot in slots if slot not in attended}
        loans: list[Loan[W]] = []
        for worker in attending:
            if worker.borrowed != unattended:
                borrow = tuple(sorted(unattended - worker.borrowed))
                loans.append(Loan(worker, borrow, tuple(sorted(worker.borrowed - unattended))))
                worker.borrowed = set(unattended)
        return loans

    def due_recycle(self, loads: Mapping[int, Load], mono_s: float) -> Recycle[W] | None:
        """Return the next worker to be replaced by a fresh one; None while one is being replaced, or none is due.

        One for which the board has no row is returned once, to be told, and again once there is one.

        Args:
            loads: by pid.
            mono_s: monotonic seconds.
        """
        generation = self.current
        if generation is None or generation.count(WorkerState.STARTING):
            return None
        for worker in generation.workers.values():
            if worker.pid in loads and self._attends(worker, mono_s) and generation.is_recycle_due(worker.slot, mono_s):
                reason = worker.allowance.why_recycle(loads[worker.pid])
                if reason is RecycleReason.NONE:
                    continue
                if generation.free_row(worker.slot) is None:
                    was_short, generation.is_short_of_rows = generation.is_short_of_rows, True
                    return None if was_short else Recycle(worker, reason, has_row=False)
                generation.is_short_of_rows = False
                generation.spare_from_recycling(worker.slot, mono_s + reason.respite_s)
                return Recycle(worker, reason)
        return None

    # -- what is being done

    def drain(self, workers: Iterable[W], deadline_s: float, mono_s: float) -> list[W]:
        """Have workers end within so many seconds. Returns those that are to be told."""
        told = [worker for worker in workers if worker.is_serving]
        for worker in told:
            self._take_leave(worker, WorkerState.DRAINING, mono_s + deadline_s)
        return told

    def stop(self, workers: Iterable[W], mono_s: float) -> list[W]:
        """Have workers end now. Returns those that are to be told."""
        told = [worker for worker in workers if worker.state not in (WorkerState.STOPPING, WorkerState.KILLED)]
        for worker in told:
            self._take_leave(worker, WorkerState.STOPPING, mono_s)
        return told

    def switch(self, generation: G, mono_s: float, *, is_return: bool = False) -> G | None:
        """Make a generation the current one. Returns the one before, whose workers are to drain.

        Args:
            generation: whose workers serve by now.
            mono_s: monotonic seconds.
            is_return: whether it has the config of the reserve.
        """
        old, self.current = self.current, generation
        generation.died = 0
        self.probation.begin(old, workers=generation.target, mono_s=mono_s, is_return=is_return)
        return old

    def bury(self, generation: G) -> bool:
        """Take out a generation that has no workers left and gets no more; tell whether it is one."""
        if generation.workers or generation is self.current or generation not in self.generations:
            return False
        self.generations.remove(generation)
        return True

    def _take_leave(self, worker: W, state: WorkerState, end_s: float) -> None:
        worker.become(state)
        worker.was_told = True
        worker.kill_at_s = end_s + STOP_GRACE_S

    def _attends(self, worker: W, mono_s: float) -> bool:
        return worker.state is WorkerState.READY and worker.silent_s(mono_s) <= STALE_S

    def _why_kill(self, generation: G, worker: W, mono_s: float) -> str:
        if worker.state is WorkerState.KILLED:
            return ""
        if worker.kill_at_s <= mono_s:
            return "did not end in time"
        silent_s = worker.silent_s(mono_s)
        if worker.state is not WorkerState.STARTING:
            limit_s = max(generation.heartbeat_s, MIN_HEARTBEAT_TIMEOUT_S)
            return f"hangs: no heartbeat for {silent_s:.1f} s" if silent_s > limit_s else ""
        # A generation that is not the current one yet has its own boot deadline, and is given up as a whole.
        is_late = generation is self.current and silent_s > BOOT_TIMEOUT_S
        return f"was not ready within {BOOT_TIMEOUT_S:g} s" if is_late else ""
