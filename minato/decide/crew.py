"""A generation and its workers, as far as decisions about them need to know them; time is an argument."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from minato.decide.recycling import Allowance
from minato.decide.respawn import Respawn


class WorkerState(enum.Enum):
    """What the master knows of a worker."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLED = "killed"


_ORDER = {state: rank for rank, state in enumerate(WorkerState)}


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """One worker.

    Attributes:
        slot: whose sockets it accepts from.
        row: its row on its generation's board.
        forked_s: monotonic second of its fork.
        ready_s: monotonic second at which it said that it serves; infinity before.
        kill_at_s: monotonic second at which it must be gone; infinity while it serves.
        beat: the last heartbeat that was seen, in the worker's own units; only its changes count.
        heard_s: monotonic second at which that was seen first.
        borrowed: slots whose sockets it was lent.
        is_accepting: whether it may still accept connections: until it says that it drains.
        was_told: to drain or to stop; then its end is no surprise, however it comes.
        allowance: after how much it is replaced.
    """

    pid: int
    slot: int
    row: int
    forked_s: float
    state: WorkerState = WorkerState.STARTING
    ready_s: float = math.inf
    kill_at_s: float = math.inf
    beat: int = 0
    heard_s: float = -math.inf
    borrowed: set[int] = field(default_factory=set)
    is_accepting: bool = True
    was_told: bool = False
    allowance: Allowance = field(default_factory=Allowance)

    @property
    def is_serving(self) -> bool:
        """Whether it accepts connections, or will in a moment."""
        return self.state in (WorkerState.STARTING, WorkerState.READY)

    def become(self, state: WorkerState) -> None:
        """Move on to a later state.

        Raises:
            ValueError: there is no way back.
        """
        if _ORDER[state] <= _ORDER[self.state]:
            raise ValueError(f"a worker that is {self.state.value} cannot become {state.value}")
        self.state = state

    def hear(self, beat: int, mono_s: float) -> None:
        """Note the heartbeat that stands on the board now."""
        if beat != self.beat:
            self.beat = beat
            self.heard_s = mono_s

    def silent_s(self, mono_s: float) -> float:
        """Return the seconds since it was last heard of."""
        return mono_s - max(self.heard_s, self.forked_s)


W = TypeVar("W", bound=Member)


@dataclass(slots=True, eq=False, kw_only=True)
class Crew(Generic[W]):
    """The workers of one generation.

    Attributes:
        number: 1 for the first; one that was given up has a number, too.
        target: how many workers it should have.
        rows: how many its board has: so many workers can there be at a time.
        heartbeat_s: a worker that is silent for longer hangs.
        drain_s: how long a worker may drain that was told by somebody else than the master.
        workers: by pid.
        died: workers of it that ended.
        is_short_of_rows: whether a worker is due to be recycled, and no row is free for a fresh one.
    """

    number: int
    target: int
    rows: int
    heartbeat_s: float
    drain_s: float
    workers: dict[int, W] = field(default_factory=dict)
    died: int = 0
    is_short_of_rows: bool = False
    _respawn: dict[int, Respawn] = field(default_factory=dict)
    _recycle_due_s: dict[int, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        states = ", ".join(f"{worker.slot} {worker.state.value}" for worker in self.workers.values())
        return f"<Generation {self.number}: {states or 'no workers'}>"

    def count(self, state: WorkerState) -> int:
        """Return how many workers are in that state."""
        return sum(worker.state is state for worker in self.workers.values())

    def serving(self) -> list[W]:
        """Return the workers that accept connections, or will in a moment."""
        return [worker for worker in self.workers.values() if worker.is_serving]

    def vacant_slots(self, mono_s: float) -> list[int]:
        """Return the slots that want a worker now."""
        taken = {worker.slot for worker in self.serving()}
        return [slot for slot in range(self.target) if slot not in taken and self.respawn(slot).due_s <= mono_s]

    def free_row(self, slot: int) -> int | None:
        """Return a row that no living worker writes, the slot's own if it can be; None when all are taken."""
        taken = {worker.row for worker in self.workers.values()}
        rows = [slot, *range(self.target, self.rows), *range(self.target)]
        return next((row for row in rows if row < self.rows and row not in taken), None)

    def respawn(self, slot: int) -> Respawn:
        """Return the back-off of a slot."""
        return self._respawn.setdefault(slot, Respawn())

    def is_recycle_due(self, slot: int, mono_s: float) -> bool:
        """Tell whether the slot's worker may be replaced by a fresh one, if it has had enough and a row is free."""
        due_s = max(self._recycle_due_s.get(slot, -math.inf), self.respawn(slot).due_s)
        return slot < self.target and due_s <= mono_s

    def spare_from_recycling(self, slot: int, until_s: float) -> None:
        """Replace the slot's worker by a fresh one no sooner than that."""
        self._recycle_due_s[slot] = until_s
