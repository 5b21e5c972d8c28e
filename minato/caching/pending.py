"""Purges and changes remembered for responses on their way: what was asked for before one is not stored after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from minato.caching.key import PrimaryKey, ResourceKey
from minato.protocol.message import Fields

Matches = Callable[[PrimaryKey, Fields], bool]
"""``(key, fields)`` -> whether a purge is about such a response."""

_MAX_PURGES = 256
MAX_CHANGES = 1024
_CLOCK_SLACK_S = 60.0


class PurgeLog:
    """The latest purges. What is older than all of them counts as purged, rather than that anything is missed."""

    def __init__(self) -> None:
        self._purges: deque[tuple[float, Matches]] = deque()
        self._floor_s = 0.0

    def note(self, matches: Matches, now_s: float) -> None:
        """Remember a purge of that moment, a wall clock."""
        self._forget_future(now_s)
        self._purges.append((now_s, matches))
        if len(self._purges) > _MAX_PURGES:
            self._floor_s = self._purges.popleft()[0]

    def covers(self, key: PrimaryKey, fields: Fields, *, request_time_s: float, response_time_s: float) -> bool:
        """Tell whether a response may be from before a purge that is about it.

        A purge of the same moment came first: the clock is read when a turn begins, and what comes in with the turn was
        sent before it; what the turn sends is sent later.

        Args:
            key: of the request.
            fields: of the response.
            request_time_s: wall clock when the request was forwarded.
            response_time_s: wall clock when the head arrived.
        """
        purges = self._purges
        if not purges:
            return False
        if response_time_s < request_time_s:
            return True  # the clock was set back meanwhile: no telling what came first
        if purges[-1][0] <= request_time_s:
            return False  # all the others are older still
        self._forget_future(response_time_s)
        if request_time_s < self._floor_s:
            return True
        return any(time_s > request_time_s and matches(key, fields) for time_s, matches in purges)

    def _forget_future(self, now_s: float) -> None:
        """Let go what a clock that was set back would otherwise have in force until it comes by again."""
        latest_s = now_s + _CLOCK_SLACK_S
        if self._floor_s > latest_s:
            self._floor_s = 0.0
        while self._purges and self._purges[-1][0] > latest_s:
            self._purges.pop()


class ChangeLog:
    """Which resources unsafe requests changed lately, and when. What is older than all of them counts as changed.

    Resources are known by their hashes: that two share one costs a response that could have been stored.
    """

    def __init__(self) -> None:
        # By hash, the latest change last: the wall clock of it, and of the one before it.
        self._times_s: dict[int, tuple[float, float]] = {}
        self._floor_s = 0.0

    def __len__(self) -> int:
        return len(self._times_s)

    def note(self, resource: ResourceKey, now_s: float) -> None:
        """Remember that it changed at that moment, a wall clock."""
        times_s, mark = self._times_s, hash(resource)
        latest_s, before_s = times_s.pop(mark, (0.0, 0.0))
        if len(times_s) >= MAX_CHANGES:
            self._floor_s = times_s.pop(next(iter(times_s)))[0]
        times_s[mark] = (now_s, before_s if latest_s == now_s else latest_s)

    def covers(
        self, resource: ResourceKey, *, request_time_s: float, response_time_s: float, is_change: bool = False
    ) -> bool:
        """Tell whether a response may be from before the resource changed; as `PurgeLog.covers`.

        ``is_change``: it is itself the response to the latest change, whose news it brings.
        """
        times_s = self._times_s
        if not times_s:
            return False
        if response_time_s < request_time_s:
            return True
        latest_s = response_time_s + _CLOCK_SLACK_S
        if request_time_s < self._floor_s <= latest_s:
            return True
        changed_s = times_s.get(hash(resource), (0.0, 0.0))[is_change]
        return request_time_s < changed_s <= latest_s
