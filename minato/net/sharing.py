"""What an exchange does in a flight: it waits for another one's response and shares it, or leads and is waited for.

Between the two halves of an exchange, `net.uplink` and `net.exchange`. Who waits for whom is decided in
caching.flights.
"""

from __future__ import annotations

from typing import Final

from minato.caching.answer import CachedAnswer
from minato.caching.flights import Flight, Verdict
from minato.caching.stored import StoredResponse
from minato.decide.exchange import Phase
from minato.errors import ExchangeError
from minato.net.client import Nobody
from minato.net.follower import Follower
from minato.net.uplink import Uplink
from minato.protocol import render
from minato.protocol.message import Framing
from minato.shared.board import Counter

_WAITING: Final = Phase.WAITING
_NO_CONTENT: Final = 204


class Sharing(Uplink):
    """The part of an exchange that has to do with others of the same resource."""

    _follower: Follower | None = None
    _framing_down = Framing.NONE
    _body_bytes_down = 0

    def _look_up(self, *, may_wait: bool) -> bool:
        """Answer from the store, or begin to wait; tell whether there is nothing to be forwarded now."""
        raise NotImplementedError

    def _send_head(self, status: int, reason: bytes, lines: bytes, framing: Framing, length_bytes: int) -> bytes:
        raise NotImplementedError

    def _send_answer(self, answer: CachedAnswer) -> None:
        raise NotImplementedError

    def on_client_left(self) -> None:
        raise NotImplementedError

    def on_response_end(self) -> None:
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
        answer = self._cache.answer_failure(self._context.loop.wall_s, status)
        if answer is None:
            self.go_on(may_wait=False)
        else:
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
        self._context.row.add(Counter.CACHE_COLLAPSED)
        self._send_head(stored.status, stored.reason, render.render_lines(fields), framing, length_bytes or 0)

    def relay_shared(self, data: bytes) -> None:
        """Send a piece. All who share it queue the same bytes: chunks are framed around it."""
        if not data:
            return  # an empty chunk would be the last one
        self._body_bytes_down += len(data)
        write = self._client.write
        if self._framing_down is Framing.CHUNKED:
            write(b"%x\r\n" % len(data))
            write(data)
            write(b"\r\n")
        else:
            write(data)

    def end_shared(self) -> None:
        """The shared response is complete."""
        if self.phase is Phase.RELAYING:
            self.on_response_end()

    def cut_shared(self, error: ExchangeError) -> None:
        """The shared response was cut."""
        self._fail(error)

    def on_client_drained(self) -> None:
        if self._follower is not None:
            self._follower.on_client_drained()
        self.on_pace_changed()

    # -- leading

    @property
    def _is_held_back(self) -> bool:
        """Whether the response is to come no faster: its client is behind.

        While it is shared and stored, a slow client does not make it slow for the others; see `Flight`.
        """
        flight = self._cache.flight if self._cache is not None else None
        if flight is None or not flight.is_shared:
            return self._client.is_congested
        return flight.must_hold_back or (flight.has_overrun and self._client.is_congested)

    def on_pace_changed(self) -> None:
        """Its client or a follower has caught up, or one more shares: go on with what was held back."""
        if self._connection is not None and not self._is_held_back:
            self._connection.resume()

    def _go_on_without_client(self) -> bool:
        """The client left. If others wait for the response, it is fetched for them; tell whether that is so."""
        if self._cache is None or not self._cache.is_awaited or isinstance(self._client, Nobody):
            return False
        self._client = Nobody(self._client)
        self._context.unattended.add(self)
        self.on_pace_changed()
        return True
