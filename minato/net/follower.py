"""A request that waits for another one's response, on the side of its exchange: what it does when it is woken."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from minato.caching.flights import Flight, Verdict
from minato.errors import UpstreamError

if TYPE_CHECKING:
    from minato.net.client import Client
    from minato.net.loop import Loop, Timer
    from minato.net.sharing import Sharing

log = logging.getLogger("minato.exchange")

_BAD_GATEWAY: Final = 502
# One failed leader is bad luck. After two the upstream is, and whoever waits finds out by itself.
_MAX_FAILED_LEADERS: Final = 2
# Nor is anybody made to wait once more who has waited for so long.
_MAX_WAIT_S: Final = 5.0


class Follower:
    """One exchange in one flight after the other, until it has an answer or goes on alone.

    Attributes:
        failed_leaders: how many flights failed it so far.
    """

    __slots__ = ("_began_s", "_client", "_exchange", "_flight", "_is_woken", "_loop", "_patience", "failed_leaders")

    def __init__(self, exchange: Sharing, client: Client, loop: Loop) -> None:
        self._exchange = exchange
        self._client = client
        self._loop = loop
        self._began_s = loop.now_s
        self._flight: Flight | None = None
        self._patience: Timer | None = None
        self._is_woken = False
        self.failed_leaders = 0

    def __repr__(self) -> str:
        return f"<Follower of {self._flight!r}>"

    @property
    def may_wait(self) -> bool:
        """Whether it may wait for one more."""
        has_time = self._loop.now_s - self._began_s < _MAX_WAIT_S
        return has_time and self.failed_leaders < _MAX_FAILED_LEADERS

    @property
    def is_congested(self) -> bool:
        return self._client.is_congested

    def follow(self, flight: Flight) -> None:
        """Begin to wait."""
        self._flight = flight
        flight.wait(self)

    def leave(self) -> None:
        """The exchange is over, or goes on alone."""
        flight, self._flight = self._flight, None
        if self._patience is not None:
            self._patience.close()
        if flight is not None:
            flight.leave(self)

    def on_client_drained(self) -> None:
        """The client has caught up."""
        if self._flight is not None:
            self._flight.on_follower_drained()

    # -- what the flight tells. What may fail is put off: a bug in one follower must not be one in the leader or others.

    def wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._on_woken)

    def on_shared_body(self, data: bytes) -> None:
        try:
            self._exchange.relay_shared(data)
        except Exception:
            log.exception("a bug; the connection it concerns is closed")
            self.leave()
            self._loop.call_soon(self.on_crash)

    def on_shared_end(self) -> None:
        self._flight = None
        self._loop.call_soon(self._on_end)

    def on_shared_cut(self) -> None:
        self._flight = None
        self._loop.call_soon(self._on_cut)

    def on_crash(self) -> None:
        """The loop caught an error that nobody expected while this follower was woken."""
        self._exchange.on_upstream_crash()

    def _on_end(self) -> None:
        self._exchange.end_shared()

    def _on_cut(self) -> None:
        cut = UpstreamError(_BAD_GATEWAY, "the upstream failed", detail="the response that it shared was cut")
        self._exchange.cut_shared(cut)

    def _on_woken(self) -> None:
        self._is_woken = False
        flight, exchange = self._flight, self._exchange
        if flight is None or not exchange.is_waiting:
            return
        verdict = exchange.judge_flight(flight)
        if verdict is Verdict.WAIT:
            self._wait_for_the_whole()
            return
        if self._patience is not None:
            self._patience.cancel()
        if verdict is Verdict.SHARE:
            assert flight.writer is not None
            exchange.begin_shared(flight.writer.stored, flight.writer.length_bytes)
            for piece in flight.share(self):
                exchange.relay_shared(piece)
            return
        if verdict is Verdict.FALL_BACK:
            self.leave()
            exchange.fall_back(flight.failure_status)
            return
        if flight.has_failed:
            self.failed_leaders += 1
        self.leave()
        exchange.go_on(may_wait=verdict is Verdict.START_OVER and self.may_wait)

    def _wait_for_the_whole(self) -> None:
        """It needs all of the response (it has a condition, or wants a range), but does not wait for ever."""
        if self._patience is None:
            self._patience = self._loop.timer(self._on_impatience)
        if not self._patience.is_set:
            self._patience.set(_MAX_WAIT_S)

    def _on_impatience(self) -> None:
        if self._exchange.is_waiting:
            self.leave()
            self._exchange.go_on(may_wait=False)
