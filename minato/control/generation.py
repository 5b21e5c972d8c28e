"""A generation: the workers that serve one config, as the master knows them."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from minato.config.model import Config, ListenAddress
from minato.control.channel import Channel
from minato.control.places import Places
from minato.decide.respawn import Respawn
from minato.shared.board import Board

# Rows for workers that are replaced while they still drain, and for TTIN; every row costs LeastConnections a little.
SPARE_ROWS = 4


class WorkerState(enum.Enum):
    """What the master knows of a worker."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLED = "killed"


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker process.

    Attributes:
        slot: whose sockets it accepts from.
        row: its row on its generation's board.
        channel: the master's end.
        forked_s: monotonic second of its fork.
        ready_s: monotonic second at which it said that it serves; infinity before.
        kill_at_s: monotonic second at which it must be gone; infinity while it serves.
        borrowed: slots whose sockets it was lent.
        is_accepting: whether it may still accept connections: until it says that it drains.
    """

    pid: int
    slot: int
    row: int
    channel: Channel
    forked_s: float
    state: WorkerState = WorkerState.STARTING
    ready_s: float = math.inf
    kill_at_s: float = math.inf
    borrowed: set[int] = field(default_factory=set)
    is_accepting: bool = True

    @property
    def is_serving(self) -> bool:
        """Whether it accepts connections, or will in a moment."""
        return self.state in (WorkerState.STARTING, WorkerState.READY)


@dataclass(slots=True, eq=False)
class Generation:
    """The workers of one config and their board.

    Attributes:
        number: 1 for the first; one that was given up has a number, too.
        target: how many workers it should have.
        places: addresses and columns of its upstreams, as they are now.
        bound: the sockets that were bound for it alone so far; closed again if it is given up.
    """

    number: int
    config: Config
    target: int
    board: Board
    places: Places
    bound: list[tuple[int, ListenAddress]] = field(default_factory=list)
    workers: dict[int, WorkerHandle] = field(default_factory=dict)
    died: int = 0
    _respawn: dict[int, Respawn] = field(default_factory=dict)

    def __repr__(self) -> str:
        states = ", ".join(f"{worker.slot} {worker.state.value}" for worker in self.workers.values())
        return f"<Generation {self.number}: {states or 'no workers'}>"

    def count(self, state: WorkerState) -> int:
        """Return how many workers are in that state."""
        return sum(worker.state is state for worker in self.workers.values())

    def serving(self) -> Iterable[WorkerHandle]:
        """Return the workers that accept connections, or will in a moment."""
        return [worker for worker in self.workers.values() if worker.is_serving]

    def vacant_slots(self, mono_s: float) -> list[int]:
        """Return the slots that want a worker now."""
        taken = {worker.slot for worker in self.serving()}
        return [slot for slot in range(self.target) if slot not in taken and self.respawn(slot).due_s <= mono_s]

    def free_row(self, slot: int) -> int | None:
        """Return a row that no living worker writes, the slot's own if it can be; None when all are taken."""
        taken = {worker.row for worker in self.workers.values()}
        rows = [slot, *range(self.target, self.board.slots), *range(self.target)]
        return next((row for row in rows if row < self.board.slots and row not in taken), None)

    def respawn(self, slot: int) -> Respawn:
        """Return the back-off of a slot."""
        return self._respawn.setdefault(slot, Respawn())
