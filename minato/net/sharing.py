"""What an exchange does in a flight: it waits for another one's response and shares it, or leads and is waited for.

Between the two halves of an exchange, `net.uplink` and `net.exchange`. Who waits for whom is decided in
caching.flights.
"""

from __future__ import annotations

import logging
from typing import Final

from minato.caching.answer import CachedAnswer
from minato.caching.flights import Flight, Verdict
from minato.caching.stored import StoredResponse
from minato.decide.exchange import Phase
from minato.errors import ExchangeError, UpstreamError
from minato.net.cache_session import CacheSession
from minato.net.client import Nobody
from minato.net.follower import Follower
from minato.net.loop import Timer
from minato.net.uplink import Uplink
from minato.protocol import render
from minato.protocol.message import Fields, Framing
from minato.shared.board import Counter

log = logging.getLogger("minato.exchange")

_WAITING: Final = Phase.WAITING
_NO_CONTENT: Final = 204
_SMALL_BYTES: Final = 4096
_LATE_BYTES: Final = 16_384
_MAX_HOLD_S: Final = 5.0
_NO_TRAILERS: Final[Fields] = []  # never added to


class Sharing(Uplink):
    """The part of an exchange that has to do with others of the same resource."""

    _follower: Follower | None = None
    _framing_down = Framing.NONE
    _body_bytes_down = 0
    _shared_bytes: int | None = None  # the declared length of a response that is shared
    _late: bytearray | None = None  # small pieces for a client that is behind
    _hold_timer: Timer | None = None
    _is_broken = False  # a bug left it in no known state

    def _look_up(self, *, may_wait: bool) -> bool:
        """Answer from the store, or begin to wait; tell whether there is nothing to be forwarded now."""
        raise NotImplementedError

    def _send_head(self, status: int, reason: bytes, lines: bytes, framing: Framing, length_bytes: int) -> bytes:
        raise NotImplementedError

    def _send_answer(self, answer: CachedAnswer) -> None:
        raise NotImplementedError

    def on_client_left(self) -> None:
        raise NotImplementedError

    def _end(self, failure: str) -> None:
        raise NotImplementedError

    def _log(self, failure: str) -> None:
        raise NotImplementedError

    def on_response_end(self, trailers: Fields = _NO_TRAILERS) -> None:
        raise NotImplementedError

    # -- following

    @property
    def is_waiting(self) -> bool:
        return self.phase is _WAITING

    def _wait_for(self, flight: Flight) -> None:
        self._go(_WAITING)
        if self._follower is None:
            self._follower = Follower(self, self._client, self._context.loop)
        self._follower.follow(flight)

    def judge_flight(self, flight: Flight) -> Verdict:
        """Return what this one is to do about the flight it waits for."""
        assert self._cache is not None
        return self._cache.judge(flight, self._context.loop.wall_s)

    def go_on(self, *, may_wait: bool) -> None:
        """The wait is over without a response to share: look up again, and forward what is not there."""
        service = self._service
        assert service is not None
        try:
            if not self._look_up(may_wait=may_wait):
                self._attempt(service)
        except ExchangeError as error:
            self._fail(error)

    def fall_back(self, status: int | None) -> None:
        """The upstream failed the leader: answer with what is stored, where this request may have it stale, too."""
        assert self._cache is not None
        answer = self._cache.answer_failure(self._context.loop.wall_s, status, is_collapsed=True)
        if answer is None:
            self.go_on(may_wait=False)
        else:
            self._context.row.add(Counter.CACHE_COLLAPSED)
            self._send_answer(answer)

    def begin_shared(self, stored: StoredResponse, length_bytes: int | None) -> None:
        """Answer with a response whose body arrives in `relay_shared`."""
        assert self._cache is not None
        self._go(Phase.RELAYING)
        fields = [*self._cache.shared_fields(stored, self._context.loop.wall_s), (b"via", b"1.1 minato")]
        if stored.status == _NO_CONTENT:
            framing = Framing.NONE
        else:
            framing = Framing.LENGTH if length_bytes is not None else render.unknown_length_framing(self.head)
            self._shared_bytes = length_bytes
        self._context.row.add(Counter.CACHE_COLLAPSED)
        self._send_head(stored.status, stored.reason, render.render_lines(fields), framing, length_bytes or 0)

    def relay_shared(self, data: bytes) -> None:
        """Send a piece. All who share it queue the same bytes: chunks are framed around it."""
        if not data:
            return  # an empty chunk would be the last one
        self._body_bytes_down += len(data)
        is_chunked = self._framing_down is Framing.CHUNKED
        if len(data) < _SMALL_BYTES and self._client.is_congested:
            self._gather(render.encode_piece(Framing.CHUNKED, data) if is_chunked else data)
            return
        self._flush_late()
        write = self._client.write
        if is_chunked:
            write(b"%x\r\n" % len(data))
            write(data)
            write(b"\r\n")
        else:
            write(data)

    def _gather(self, data: bytes) -> None:
        """Put small pieces together for a client that is behind: each by itself would take many times its size."""
        if self._late is None:
            self._late = bytearray()
        self._late += data
        if len(self._late) >= _LATE_BYTES:
            self._flush_late()

    def _flush_late(self) -> None:
        late, self._late = self._late, None
        if late:
            self._client.write(bytes(late))

    def end_shared(self) -> None:
        """The shared response is complete."""
        if self.phase is not Phase.RELAYING:
            return
        self._flush_late()
        if self._shared_bytes is not None and self._shared_bytes != self._body_bytes_down:
            # It must never look whole, whatever went wrong.
            self._fail(
                UpstreamError(502, "the upstream failed", detail="the response that it shared was not all of it")
            )
            return
        self.on_response_end()

    def cut_shared(self, error: ExchangeError) -> None:
        """The shared response was cut."""
        self._fail(error)

    def on_client_drained(self) -> None:
        self._flush_late()
        if self._follower is not None:
            self._follower.on_client_drained()
        self.on_pace_changed()

    # -- leading

    @property
    def _is_held_back(self) -> bool:
        """Whether the response is to come no faster: its client is behind.

        While it is stored and others wait for it or share it, a slow client does not make it slow for them; what is not
        stored any more comes at the pace of the slowest. See `Flight`.
        """
        flight = self._cache.flight if self._cache is not None else None
        if flight is None or not flight.has_followers:
            return self._client.is_congested
        return flight.must_hold_back or (flight.has_overrun and self._client.is_congested)

    def _hold_back(self) -> None:
        """Pause the upstream. Where one slow client makes it slow for others, that has an end."""
        assert self._connection is not None
        self._connection.pause()
        if self._cache is not None and self._cache.is_awaited:
            if self._hold_timer is None:
                self._hold_timer = self._context.loop.timer(self._on_held_too_long)
            if not self._hold_timer.is_set:
                self._hold_timer.set(_MAX_HOLD_S)

    def _on_held_too_long(self) -> None:
        flight = self._cache.flight if self._cache is not None else None
        if flight is None or not self._is_held_back or not flight.has_followers:
            return
        log.warning("clients that read too slowly are cut: others wait for the same response (%s)", self.head.path)
        flight.cut_congested()
        if self._client.is_congested and flight.has_followers:
            slow = self._client
            if self._go_on_without_client():
                slow.abort_exchange()
        self.on_pace_changed()

    def on_pace_changed(self) -> None:
        """Its client or a follower has caught up, one came or left: go on with what was held back."""
        if self._connection is not None and not self._is_held_back:
            if self._hold_timer is not None:
                self._hold_timer.cancel()
            self._connection.resume()

    def on_followers_gone(self) -> None:
        """Nobody follows any more: what is for no client and not for the store is of no use."""
        self._give_up_if_useless()

    def _go_on_without_client(self) -> bool:
        """The client left. If others wait for the response, it is fetched for them; tell whether that is so."""
        is_awaited = self._cache is not None and self._cache.is_awaited
        if self._is_broken or not is_awaited or isinstance(self._client, Nobody):
            return False
        self._log("the client left; others wait for the response")
        self._client = Nobody(self._client)
        self._context.unattended.add(self)
        self.on_pace_changed()
        return True

    def _give_up_if_useless(self) -> None:
        """End an exchange that no client waits for once its response is of no use to anybody else either."""
        if not isinstance(self._client, Nobody) or self.phase is Phase.DONE or self._is_useful:
            return
        self._abandon_upstream()
        self._end("nobody wants the response any more")

    @property
    def _is_useful(self) -> bool:
        """Whether a response that no client takes is of use."""
        return self._cache is not None and self._cache.is_wanted

    def _end_sharing(self, cache: CacheSession) -> None:
        """The exchange is over: nobody waits for it any more, nor does it wait for anybody."""
        cache.close()
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.leave()
        if self._hold_timer is not None:
            self._hold_timer.close()
