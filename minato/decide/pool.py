"""Idle upstream connections of one worker: which to reuse, which to close; no I/O, it only says what to do."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Connection = TypeVar("Connection")

_MAX_RETIRED = 1024


class IdlePool(Generic[Connection]):
    """Keeps idle connections by origin, the most recently used first, at most ``max_idle`` of each origin."""

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._idle: dict[Hashable, list[Connection]] = {}
        self._retired: dict[Hashable, None] = {}

    def __repr__(self) -> str:
        counts = ", ".join(f"{origin}: {len(idle)} idle" for origin, idle in self._idle.items() if idle)
        return f"<IdlePool {counts or 'empty'}>"

    def __len__(self) -> int:
        return sum(len(idle) for idle in self._idle.values())

    def take(self, origin: Hashable) -> Connection | None:
        """Return the connection that was idle for the shortest time, None where there is none."""
        idle = self._idle.get(origin)
        return idle.pop() if idle else None

    def give(self, origin: Hashable, connection: Connection) -> Connection | None:
        """Keep an idle connection; return one to close where there are too many (the longest idle), else None."""
        idle = self._idle.get(origin)
        if idle is None:
            if origin in self._retired:
                return connection
            idle = self._idle[origin] = []
        idle.append(connection)
        return None if len(idle) <= self._max_idle else idle.pop(0)

    def retire(self, origin: Hashable) -> list[Connection]:
        """Keep no connections of that origin any more, nor those that are in use now; return the idle ones to close."""
        self._retired[origin] = None
        if len(self._retired) > _MAX_RETIRED:  # what is still in use after so many others is idle for once, at worst
            del self._retired[next(iter(self._retired))]
        return self._idle.pop(origin, [])

    def forget(self, origin: Hashable, connection: Connection) -> bool:
        """An idle connection died; tell whether it was here."""
        idle = self._idle.get(origin, [])
        if connection not in idle:
            return False
        idle.remove(connection)
        return True

    def take_all(self) -> list[Connection]:
        """Empty the pool and return what was in it, to be closed."""
        connections = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        return connections
