"""Purges and changes remembered for responses on their way: what was asked for before one is not stored after it."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable

from minato.caching.key import PrimaryKey, ResourceKey
from minato.protocol.message import Fields

Matches = Callable[[PrimaryKey, Fields], bool]
"""``(key, fields)`` -> whether a purge is about such a response."""

_MAX_PURGES = 256
MAX_RECENT_CHANGES = 1024
"""Changed resources that are known each; some 200 bytes for one."""
PLACES = 4096
"""For those that changed before them; 8 bytes each."""

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
    """When unsafe requests changed resources.

    The latest ones are known each by the hash of its resource. Of older ones only the place that the hash gives is
    kept, as a change of any resource of that place: a response that could have been stored is not, if it was asked for
    before that.
    """

    def __init__(self) -> None:
        # Wall clocks: of that resource's latest change, and of the one before it at another moment; oldest first.
        self._recent: dict[int, tuple[float, float]] = {}
        self._older_s = array("d", bytes(8 * PLACES))  # the latest of each place

    def note(self, resource: ResourceKey, now_s: float) -> None:
        """Remember that it changed at that moment, a wall clock."""
        recent, name = self._recent, hash(resource)
        latest_s, before_s = recent.pop(name, (0.0, 0.0))
        recent[name] = (now_s, before_s if latest_s == now_s else latest_s)
        if len(recent) > MAX_RECENT_CHANGES:
            oldest = next(iter(recent))
            place = oldest % PLACES
            self._older_s[place] = max(self._older_s[place], recent.pop(oldest)[0])

    def covers(
        self, resource: ResourceKey, *, request_time_s: float, response_time_s: float, is_change: bool = False
    ) -> bool:
        """Tell whether a response may be from before the resource changed; as `PurgeLog.covers`.

        ``is_change``: it is itself the response to the latest change, whose news it brings.
        """
        if not self._recent:
            return False
        if response_time_s < request_time_s:
            return True
        name = hash(resource)
        latest_s = response_time_s + _CLOCK_SLACK_S  # one that is ahead of that was noted before the clock was set back
        if request_time_s < self._older_s[name % PLACES] <= latest_s:
            return True
        changes_s = self._recent.get(name)
        return changes_s is not None and request_time_s < changes_s[is_change] <= latest_s
