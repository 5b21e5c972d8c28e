"""Who waits for room at full upstreams, in which order and for how long; and which worker goes first."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

OVERTAKING_MS: Final = 100
"""Room goes to the worker whose turn it is to within this time: to hand it on takes up to a poll of the other one."""

ALIVE_MS: Final = 1_000
"""A worker whose heartbeat is older waits for nothing any more, as far as the others are concerned."""


class Entrance(enum.Enum):
    """Whether a request may wait, and why not."""

    WAITS = "it waits for room"
    FULL = "the queue is full"
    TOO_LATE = "it has waited long enough already"


@dataclass(frozen=True, slots=True)
class _Place:
    since_s: float
    due_s: float


class WaitQueue(Generic[Item]):
    """The requests of one service that wait for room, in one worker: first come, first served, and retries first.

    Retries are let in whatever the size: they were let in before, and are no more than what the caps let go to the
    upstreams. Items are hashed and compared by identity or cheaply.
    """

    __slots__ = ("_next_due_s", "_others", "_retries", "size", "timeout_s")

    def __init__(self, size: int, timeout_s: float) -> None:
        """Begin empty.

        Args:
            size: how many may wait, retries aside; 0: nobody.
            timeout_s: for how long each may wait.
        """
        self.size = size
        self.timeout_s = timeout_s
        self._retries: OrderedDict[Item, _Place] = OrderedDict()
        self._others: OrderedDict[Item, _Place] = OrderedDict()
        self._next_due_s = math.inf  # nobody is due before it

    def __repr__(self) -> str:
        return f"<WaitQueue {len(self._retries)} retries, {len(self._others)} of {self.size} others>"

    def __len__(self) -> int:
        return len(self._retries) + len(self._others)

    def __contains__(self, item: Item) -> bool:
        return item in self._retries or item in self._others

    @property
    def has_retries(self) -> bool:
        return bool(self._retries)

    def enter(self, item: Item, now_s: float, since_s: float, *, is_retry: bool = False) -> Entrance:
        """Let one in at its place; nothing changes unless it ``WAITS``.

        Args:
            item: not in it yet.
            now_s: monotonic second.
            since_s: when it began to be served: its turn among workers goes by that, and so does its deadline, so that
                who has waited for something else before does not wait twice as long.
            is_retry: whether it was sent once already: it has the whole timeout.
        """
        if is_retry:
            if not self.size:
                return Entrance.FULL
            place = self._retries[item] = _Place(since_s, now_s + self.timeout_s)
        else:
            if len(self._others) >= self.size:
                return Entrance.FULL
            if since_s + self.timeout_s <= now_s:
                return Entrance.TOO_LATE
            place = self._others[item] = _Place(since_s, since_s + self.timeout_s)
        self._next_due_s = min(self._next_due_s, place.due_s)
        return Entrance.WAITS

    def leave(self, item: Item) -> bool:
        """Take one out; tell whether it was in."""
        return self._retries.pop(item, None) is not None or self._others.pop(item, None) is not None

    def first(self, passed: Container[Item]) -> Item | None:
        """Return whose turn it is, None where it is nobody's.

        Args:
            passed: retries for which there is no room where they may go: who stands behind them need not wait for that.
        """
        for item in self._retries:
            if item not in passed:
                return item
        return next(iter(self._others), None)

    def retries(self) -> Iterator[Item]:
        """Return those that were sent once already, in their order."""
        return iter(self._retries)

    def is_retry(self, item: Item) -> bool:
        return item in self._retries

    def since_s(self, item: Item) -> float:
        """Return since when one that waits is being served."""
        place = self._retries.get(item) or self._others[item]
        return place.since_s

    def take_expired(self, now_s: float) -> list[Item]:
        """Take out who has waited long enough, and return them."""
        if now_s < self._next_due_s:
            return []
        expired = [
            item for lane in (self._retries, self._others) for item, place in lane.items() if place.due_s <= now_s
        ]
        for item in expired:
            self.leave(item)
        lanes = (self._retries, self._others)
        self._next_due_s = min((place.due_s for lane in lanes for place in lane.values()), default=math.inf)
        return expired


def must_let_others_first(since_ms: int, now_ms: int, waiting_ms: Sequence[int], beats_ms: Sequence[int]) -> bool:
    """Tell whether room is to be left to another worker, whose oldest request has waited longer.

    Each worker notices at once when its own exchanges end, but those of others only when it looks again. Without this,
    one that has all the room would keep it for ever. Within `OVERTAKING_MS` it may, so that room is not handed to and
    fro, and lies idle meanwhile, between workers that wait alike.

    Args:
        since_ms: monotonic millisecond since when the request that is to get the room is being served.
        now_ms: monotonic millisecond.
        waiting_ms: by slot, since when its oldest request waits; 0: none does. The asking worker's own may be among it.
        beats_ms: by slot, of the last heartbeat: a worker that hangs or is stopped cannot use the room.
    """
    latest_ms = since_ms - OVERTAKING_MS
    return any(
        0 < waits_ms < latest_ms and beats_ms[slot] > now_ms - ALIVE_MS for slot, waits_ms in enumerate(waiting_ms)
    )
