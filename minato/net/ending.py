"""How a client's connection ends: its FIN, the last bytes on their way out, and what is still read meanwhile."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from minato.net.context import WorkerContext
from minato.net.stream import Stream
from minato.protocol.codec import ServerCodec
from minato.protocol.render import render_interim

if TYPE_CHECKING:
    from collections.abc import Callable

    from minato.config.model import Timeouts
    from minato.net.exchange import Exchange
    from minato.net.loop import Timer
    from minato.net.splice import Splice

_LINGER_S: Final = 2.0
_LEFT_GRACE_S: Final = 0.9
_HALF_CLOSE_S: Final = 0.1
_HTTP_1_1: Final = 11
_PROBE: Final = render_interim(100, b"Continue", [])


class ClientState(enum.Enum):
    """What the connection is doing."""

    WAITING = "waiting for a request"
    READING_HEAD = "reading a head"
    EXCHANGING = "in an exchange"
    CLOSING = "sending what is left, then closing"
    LINGERING = "closed for writing, discarding what still comes"
    TUNNEL = "a tunnel"
    CLOSED = "closed"


# Looking a member up on its class costs more than the whole of a comparison.
WAITING: Final = ClientState.WAITING
READING_HEAD: Final = ClientState.READING_HEAD
EXCHANGING: Final = ClientState.EXCHANGING
CLOSING: Final = ClientState.CLOSING
LINGERING: Final = ClientState.LINGERING
TUNNEL: Final = ClientState.TUNNEL
CLOSED: Final = ClientState.CLOSED


class Ending:
    """The half of `net.downstream.Downstream` that ends it; the other one is made of this.

    Attributes:
        state: what the connection is doing.
        half_closed: whether the client has sent its FIN.
        stream: its stream.
        write: queues bytes for the client.
    """

    __slots__ = (
        "_codec",
        "_context",
        "_exchange",
        "_is_own_wish",
        "_must_reset",
        "_request_open",
        "_sent_at_end",
        "_splice",
        "_timeouts",
        "_timer",
        "half_closed",
        "state",
        "stream",
        "write",
    )

    state: ClientState
    half_closed: bool
    stream: Stream
    write: Callable[[bytes | memoryview], None]
    _codec: ServerCodec
    _context: WorkerContext
    _exchange: Exchange | None
    _is_own_wish: bool  # whether it closes against the client's wish
    _must_reset: bool  # whether a FIN would look like the end of a response that is not whole
    _request_open: bool  # whether the present request's body has not ended
    _sent_at_end: int  # sent bytes when the client's FIN came
    _splice: Splice | None
    _timeouts: Timeouts
    _timer: Timer

    def close(self) -> None:
        """Close at once, whatever is under way."""
        raise NotImplementedError

    def _leave(self) -> None:
        """The present exchange is over: it counts no more."""
        raise NotImplementedError

    def shed(self) -> None:
        """Give up a head that does not end."""
        raise NotImplementedError

    def go_on(self) -> None:
        """The turn has come of what was put off."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Pull events until there is nothing more to do now."""
        raise NotImplementedError

    def _on_client_end(self) -> None:
        """The client sent its FIN. It may have left, or only have closed its half and still wait for the response."""
        self.half_closed = True
        self.stream.pause_reading()
        exchange = self._exchange
        if exchange is None:
            holds = self._context.backlog.holds
            if not holds(self):
                self._advance()  # requests that are buffered are still answered
            # on_drained goes on with them, or their turn comes
            is_put_off = self._codec.buffered_bytes and (self.stream.congested or holds(self))
            if self.state in (WAITING, READING_HEAD) and not is_put_off:
                self._begin_closing()
        elif self._request_open:
            self._advance()  # what is buffered may be the rest of it, for an upstream that is not ready yet
        elif not exchange.response_begun and exchange.head.version >= _HTTP_1_1:
            # A client that left answers this with a RST, and its exchange ends; one that waits skips the interim
            # response (RFC 9110, 15.2: "A client MUST be able to parse one or more 1xx responses").
            self.write(_PROBE)
        elif not exchange.response_begun:
            # There is nothing to probe an HTTP/1.0 client with. One that closes its half does so right behind the
            # request; one that ends later, while it waits, has left.
            if self._context.loop.now_s - exchange.began_s > _HALF_CLOSE_S:
                self.close()
        else:
            # Had it left, the next bytes of the response would be answered with a RST. If none come, it counts as gone.
            self._sent_at_end = self.stream.sent_bytes
            self._timer.set(_LEFT_GRACE_S)

    def _give_up_request(self, exchange: Exchange) -> None:
        """The client ended in the middle of a body, so the rest will never come. What was answered still goes out."""
        self._exchange = self._splice = None
        self._leave()
        exchange.on_client_left()
        self._begin_closing()

    def _begin_closing(self) -> None:
        if self.state is READING_HEAD:
            self._context.partial_heads.drop(self)
        self.state = CLOSING
        self._timer.cancel()
        self.stream.tells_flushed = True
        if self.stream.flush():
            self._finish_closing()

    def _finish_closing(self) -> None:
        """All is sent. Unread bytes would turn the close into a RST that destroys the response on its way: linger."""
        if self.state is not CLOSING:
            return
        may_be_unread = self._is_own_wish or self._request_open or self._codec.buffered_bytes
        if not self._must_reset:
            self.stream.set_reset_on_close(False)
        if self.half_closed or self._must_reset or not may_be_unread:
            self.close()
            return
        self.state = LINGERING
        self._codec.take_rest()
        self.stream.shutdown_write()
        self.stream.resume_reading()
        self._timer.set(_LINGER_S)

    def _on_end_while_closing(self) -> None:
        self.half_closed = True
        if self.state is LINGERING:
            self.close()
        else:
            self.stream.pause_reading()
