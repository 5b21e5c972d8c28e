"""Hot answers: what they are, how long they hold, and how much they may hold on to. net.hits makes and sends them."""

from __future__ import annotations

from minato.caching.stored import StoredResponse
from minato.decide.route import RouteTable
from minato.protocol.message import HeadMemo


class HotAnswer:
    """An answer that may go out again.

    Attributes:
        routes: of the listen address that it is for.
        from_s: wall clock when it was rendered.
        until_s: wall clock when Age grows, or the stored response becomes stale.
        stored: the stored response.
        wire: head and body.
        status: of the answer.
        body_bytes: size of the body.
    """

    __slots__ = ("body_bytes", "from_s", "routes", "status", "stored", "until_s", "wire")

    def __init__(
        self, routes: RouteTable, now_s: float, stored: StoredResponse, wire: bytes, status: int, body_bytes: int
    ) -> None:
        self.routes = routes
        self.from_s = now_s
        self.until_s = min(stored.fresh_until_s, now_s + 1.0 - stored.age_s(now_s) % 1.0)
        self.stored = stored
        self.wire = wire
        self.status = status
        self.body_bytes = body_bytes

    def holds(self, now_s: float) -> bool:
        """Tell whether it may go out at that wall-clock time."""
        return self.from_s <= now_s < self.until_s and self.stored.is_live and not self.stored.has_rivals


class HotAnswers:
    """Which memos have a hot answer, so that what these hold, evicted responses too, stays within a budget."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._memos: list[HeadMemo] = []
        self._held_bytes = 0

    def keep(self, memo: HeadMemo, hot: HotAnswer) -> None:
        """Keep an answer with the memo of its heads.

        Once too much is held, all are let go, to come back with their next request.
        """
        size_bytes = len(hot.wire) + len(hot.stored.body)
        if size_bytes > self._max_bytes:
            return
        if self._held_bytes + size_bytes > self._max_bytes:
            self.clear()
        self._held_bytes += size_bytes
        self._memos.append(memo)
        memo.hot = hot

    def clear(self) -> None:
        """Let all of them go."""
        for held in self._memos:
            held.hot = None
        self._memos.clear()
        self._held_bytes = 0
