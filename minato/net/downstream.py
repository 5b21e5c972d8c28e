"""One client connection: requests in, one exchange at a time, answers in order, and its end.

The connection pulls events from its codec; an exchange that does not want more of the body, a client that does not
read, or enough pipelined bytes stop the pulling, and then the reading. A request that comes whole takes a shorter way;
net.loop has the hot path on one page.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from minato.decide.pace import Pace
from minato.decide.route import RouteTable
from minato.errors import RequestError
from minato.net.context import WorkerContext
from minato.net.ending import CLOSED, CLOSING, EXCHANGING, LINGERING, READING_HEAD, TUNNEL, WAITING, Ending
from minato.net.exchange import Exchange
from minato.net.hits import answer_hit
from minato.net.introduction import read_endpoints
from minato.net.record import record_refused_head
from minato.net.splice import MIN_SPLICE_BYTES, Moved, Splice
from minato.net.stream import Stream
from minato.net.tunnel import Tunnel
from minato.net.upstream import UpstreamConnection
from minato.protocol.codec import ServerCodec, Signal
from minato.protocol.forwarded import Claims
from minato.protocol.guard import Malformed
from minato.protocol.message import Fields, Framing, RequestHead
from minato.protocol.proxy_protocol import Endpoints
from minato.protocol.render import Persistence, reason_phrase, render_response

_CHUNKED: Final = Framing.CHUNKED
_NO_TRAILERS: Final[Fields] = []  # never added to
_CLOSE: Final = Persistence.CLOSE
_SERVICE_UNAVAILABLE: Final = 503
# What one client may have at once, of what is answered here: so that one that sends thousands of requests in one piece
# keeps nobody waiting for more than some of them.
_REQUESTS_AT_ONCE: Final = 8
_LONG_HEAD_BYTES: Final = 8192  # to read such a one takes as long as to serve ten requests
_END_OF_HEAD: Final = b"\r\n\r\n"


class Downstream(Ending):
    """One client connection.

    Attributes:
        peer: the address of whoever connected, without port; ``peer_bytes`` for the wire.
        address: the client's: the peer's, unless that is a trusted proxy that names another for the present request.
        claims: what a trusted proxy says of the present request's client; None from others.
        routes: of the configured address it came in on.
        state: what it is doing.
        half_closed: whether the client has sent its FIN.
        told: the ends of its connection as a PROXY header told them; None where there was none.
        stream: its stream; while it is congested no more is to be written until the exchange hears on_client_drained.
        write: queues bytes for the client.
    """

    __slots__ = (
        "_advancing",
        "_is_counted",
        "_is_fed",
        "_on_closed",
        "_requests",
        "_tunnel",
        "_vouches",
        "address",
        "claims",
        "peer",
        "peer_bytes",
        "routes",
        "told",
    )

    def __init__(
        self,
        context: WorkerContext,
        sock: socket.SocketType,
        address: str,
        routes: RouteTable,
        on_closed: Callable[[Downstream], None],
    ) -> None:
        self.peer = self.address = address
        self.peer_bytes = address.encode("ascii")
        self.claims: Claims | None = None
        self.told: Endpoints | None = None
        self._vouches = context.trusts_some and context.is_trusted(address)  # whether it is a trusted proxy
        self._is_counted = False  # whether the present request counts for a client behind a proxy
        self.routes = routes
        self.state = WAITING
        self.half_closed = False
        self._context = context
        self._timeouts = context.timeouts
        self._codec: ServerCodec = context.codecs.make_server_codec()
        self._exchange: Exchange | None = None
        self._tunnel: Tunnel | None = None
        self._is_own_wish = False  # whether it closes against the client's wish
        self._is_fed = False  # whether the codec may hold bytes that wait
        self._request_open = False  # whether the present request's body has not ended
        self._requests = 0
        self._advancing = False
        self._must_reset = False
        self._splice: Splice | None = None  # the way of the rest of the present request, past the codec
        self._sent_at_end = 0  # sent bytes when the client's FIN came
        self._on_closed = on_closed
        self._timer = context.loop.timer(self._on_deadline)
        self.stream = Stream(context.loop, sock, self, self._timeouts.write_s, min_bytes_per_s=context.min_bytes_per_s)
        self.write = self.stream.write
        self.stream.start()
        # The first head is due from the accept on, so that silent connections do not pile up.
        self._timer.set(self._timeouts.client_header_s)

    def __repr__(self) -> str:
        return f"<Downstream {self.peer} {self.state.value}, request {self._requests}>"

    @property
    def is_idle(self) -> bool:
        """Whether it is between requests with nothing under way."""
        return self.state is WAITING and not self.stream.pending_bytes and not self._is_fed

    # -- what the exchange asks for (net.client.Client)

    @property
    def is_congested(self) -> bool:
        return self.stream.congested

    @property
    def sink(self) -> Stream | None:
        return self.stream if self.stream.can_splice else None

    def enter(self) -> bool:
        """Count the present exchange for a client behind a trusted proxy; tell whether it has not too many."""
        if self._context.is_trusted(self.address):
            return True  # it asks for itself
        self._is_counted = self._context.per_client.enter(self.address)
        return self._is_counted

    def find_endpoints(self) -> Endpoints | None:
        """Return the ends of the client's connection for a PROXY header; None where nobody can tell any more."""
        told = self.told or read_endpoints(self.stream.sock)
        if told is None or self.address == self.peer:
            return told
        return replace(told, source=self.address, source_port=0)  # no proxy says from which port it was asked

    def _leave(self) -> None:
        """The present exchange is over: it counts no more."""
        if self._is_counted:
            self._is_counted = False
            self._context.per_client.leave(self.address)

    def continue_request(self) -> None:
        """The exchange wants the body (again)."""
        if not self._advancing:
            self._advance()

    def discard_request(self) -> bool:
        """Read off what has come of a body that nobody wants; tell whether that was all of it."""
        try:
            while self._request_open:
                event = self._codec.next_event()
                if event is Signal.NEED_DATA:
                    return False
                self._request_open = event is not Signal.END
        except Malformed:
            return False
        return True

    def finish_exchange(self, persistence: Persistence) -> None:
        """The response is complete; go on with the next request, or close."""
        exchange, self._exchange = self._exchange, None
        self._splice = None
        if self._is_counted:
            self._leave()
        if persistence is _CLOSE or self._request_open:
            # One that wants to go on may be sending its next request just now (RFC 9112, 9.6).
            is_last = self._requests == self._context.last_request
            self._is_own_wish = is_last or (exchange is not None and exchange.head.keep_alive)
            must_wait = self._request_open or self._is_fed or self.stream.pending_bytes or self._must_reset
            self._must_reset = False  # but the kernel still resets it if it is closed before all is sent
            if self._is_own_wish or must_wait:
                self._begin_closing()
            else:
                self.close()  # all is sent, and the client sends nothing more
            return
        self.state = WAITING
        self._timer.set(self._timeouts.client_idle_s)
        if self._is_fed or self.half_closed:
            self.continue_request()

    def end_by_close(self) -> None:
        """The response that begins has neither a length nor chunks: until all of it is sent, only a RST shows a cut.

        Whatever ends it: its upstream, a timeout, the end of this process.
        """
        self._must_reset = True
        self.stream.set_reset_on_close(True)

    def abort_exchange(self) -> None:
        """The response cannot be completed: close so that the client sees it."""
        self._exchange = self._splice = None
        self._leave()
        self._begin_closing()

    def start_tunnel(self, upstream: UpstreamConnection) -> tuple[Tunnel, bytes, bytes]:
        """Join this connection with the upstream's; the tunnel's end is the exchange's.

        Returns:
            The tunnel, for the exchange to begin, and what has come already for the client and for the upstream.
        """
        stream, early = upstream.start_tunnel()
        self.state = TUNNEL
        self.stream.allow_any_pace()
        self._timer.cancel()
        self._tunnel = Tunnel(self.stream, stream, self._on_tunnel_closed)
        return self._tunnel, early, self._codec.take_rest()

    def on_exchange_crash(self, exchange: Exchange) -> None:
        """A bug ended the handling of that exchange: if it is still the present one, nobody else will end it."""
        if self._exchange is exchange:
            self.close()

    def close(self) -> None:
        """Close at once, whatever is under way."""
        if self.state is CLOSED:
            return
        if self._tunnel is not None and self.state is TUNNEL:
            self._tunnel.close()
            return
        if self.state is READING_HEAD:
            self._context.partial_heads.drop(self)
        self.state = CLOSED
        self._timer.close()
        self._leave()
        exchange, self._exchange = self._exchange, None
        try:
            if exchange is not None:
                exchange.on_client_left()
        finally:  # whatever became of the exchange
            self.stream.close()
            self.stream.disown()
            self._on_closed(self)

    # -- what the stream reports

    def on_readable(self) -> None:
        if self._splice is not None:
            self._forward_spliced(self._splice)
            return
        try:
            data = self.stream.recv()
        except OSError:
            self.close()
            return
        if data is None:
            return
        if data and self.state is WAITING and not self.stream.congested:
            head = self._codec.read_whole(data)
            if head is not None:
                self._begin_whole(head, data)
                return
        if self.state is LINGERING or self.state is CLOSING:
            if not data:
                self._on_end_while_closing()
        elif not data:
            self._on_client_end()
        else:
            self._codec.feed(data)
            self._is_fed = True
            if self._exchange is None and self._has_to_wait(data):
                self._update_reading()
            else:
                self._advance()

    def _has_to_wait(self, data: bytes) -> bool:
        """Tell whether what has just come is not for this turn."""
        backlog = self._context.backlog
        if backlog.holds(self):
            if self.state is READING_HEAD:
                self._await_head()
            return True
        if self.state is READING_HEAD:
            is_long = self._codec.buffered_bytes > _LONG_HEAD_BYTES
        else:
            is_long = len(data) > _LONG_HEAD_BYTES and data.find(_END_OF_HEAD, 0, _LONG_HEAD_BYTES) < 0
        if not is_long or self.stream.congested:
            return False
        self._await_head()
        backlog.put_off(self)
        return True

    def go_on(self) -> None:
        """Its turn has come (net.backlog)."""
        self._advance()

    def on_drained(self) -> None:
        if self._exchange is not None:
            self._exchange.on_client_drained()
        else:
            self.continue_request()

    def on_flushed(self) -> None:
        if self.state is CLOSING:
            self._finish_closing()

    def on_write_failed(self, error: OSError) -> None:
        if isinstance(error, TimeoutError):
            # It does not read: what the kernel still holds for it would stay for minutes after it has come again.
            self.stream.set_reset_on_close(True)
        self.close()

    def on_crash(self) -> None:
        self.close()

    # -- requests

    def _advance(self) -> None:
        """Pull events until there is nothing more to do now; then read on or pause."""
        self._advancing = True
        last = self._requests + _REQUESTS_AT_ONCE
        try:
            while self._step():
                if self._requests >= last and self._exchange is None:
                    self._context.backlog.put_off(self)
                    break
        except Malformed as error:
            self._refuse(error)
        finally:
            self._advancing = False
        self._update_reading()

    def _step(self) -> bool:
        """Do one thing; tell whether there may be another."""
        exchange = self._exchange
        if exchange is None:
            if self.state not in (WAITING, READING_HEAD) or self.stream.congested:
                return False
            event = self._codec.next_event()
            if not isinstance(event, RequestHead):
                self._await_head()
                return False
            self._begin_exchange(event)
            return self._exchange is None or self._request_open
        if not self._request_open:
            return False
        if not exchange.wants_body:
            self._timer.cancel()  # it is not the client that is slow
            if exchange.pace is not None:
                exchange.pace.rest(self._context.loop.now_s)
            return False
        event = self._codec.next_event()
        if event is Signal.NEED_DATA:
            self._await_body(exchange)
            return False
        if event is Signal.END:
            self._request_open = False
            self._splice = None
            exchange.request_complete = True
            self._timer.cancel()
            exchange.on_request_end(self._codec.trailers if exchange.head.framing is _CHUNKED else _NO_TRAILERS)
        else:
            assert isinstance(event, bytes)
            exchange.on_request_body(event)
        return True

    def _await_body(self, exchange: Exchange) -> None:
        """More of the body is due; much of it goes past the codec where nobody has to see it."""
        if self.half_closed:
            self._give_up_request(exchange)
            return
        self._timer.set(self._longest_pause_s(exchange))
        if self._splice is None and self._codec.passable_bytes >= MIN_SPLICE_BYTES:
            self._splice = exchange.splice_request(self.stream)

    def _longest_pause_s(self, exchange: Exchange) -> float:
        """Return for how long the client may send nothing more of the body; less for one that is slow altogether."""
        now_s, pause_s = self._context.loop.now_s, self._timeouts.client_body_s
        pace = exchange.pace
        if pace is None:
            pace = exchange.pace = Pace(pause_s, self._context.config.limits.upload_bytes_per_s, exchange.body_bytes_up)
        pace.wait(now_s, exchange.body_bytes_up)
        return min(pause_s, max(pace.left_s, 0.0))

    def _forward_spliced(self, splice: Splice) -> None:
        """Move what is there past the codec."""
        if self._exchange is None or not self._exchange.can_splice_request:
            self._splice = None  # what still comes is read, and goes nowhere, until the upstream's answer has gone out
            self.on_readable()
            return
        try:
            moved = splice.move(self._codec.passable_bytes, self._count_spliced)
        except OSError:
            self.close()
            return
        if moved is Moved.END:
            self._on_client_end()
        elif moved is Moved.NO_PIPE:
            self._splice = None
            self.on_readable()
        else:
            self._advance()

    def _count_spliced(self, size: int) -> None:
        self._codec.skip(size)
        assert self._exchange is not None
        self._exchange.on_request_spliced(size)

    def _await_head(self) -> None:
        """There is no whole head: the deadline of a head runs from its first byte."""
        self._is_fed = bool(self._codec.buffered_bytes)
        if self.half_closed:
            self._begin_closing()
        elif self._is_fed:
            if self.state is WAITING:
                if self._requests:
                    self._timer.set(self._timeouts.client_header_s)
                self.state = READING_HEAD
            self._context.partial_heads.hold(self, self._codec.buffered_bytes)

    def shed(self) -> None:
        """Too much memory is held by heads that do not end, and this is the oldest of them."""
        self._answer_refused(503, "too many unfinished heads", is_to_head=self._codec.begins_head_request)

    def _begin_exchange(self, head: RequestHead) -> None:
        self._timer.cancel()
        if self.state is READING_HEAD:
            self._context.partial_heads.drop(self)
        self._requests += 1
        if self._requests == self._context.last_request:
            head = replace(head, keep_alive=False, memo=None)
        self._request_open = True
        if self._vouches:
            self._identify(head)
        if head.framing is Framing.NONE or (head.framing is Framing.LENGTH and not head.length_bytes):
            self._request_open = self._codec.next_event() is not Signal.END
            if self._context.cache is not None and answer_hit(self._context, self, head):
                self.state = WAITING
                self._timer.set(self._timeouts.client_idle_s)
                return
        self.state = EXCHANGING
        exchange = Exchange(self._context, self, head, not self._request_open)
        self._exchange = exchange
        exchange.begin()

    def _begin_whole(self, head: RequestHead, data: bytes) -> None:
        """A whole request came in one piece, and nothing behind it: answer it from the cache, or begin its exchange."""
        self._requests += 1
        context = self._context
        if self._requests == context.last_request:
            head = replace(head, keep_alive=False, memo=None)
        if self._vouches:
            self._identify(head)
        if context.cache is not None and answer_hit(context, self, head):
            self._timer.set(self._timeouts.client_idle_s)
            return
        self._timer.cancel()
        self.state = EXCHANGING
        exchange = self._exchange = Exchange(context, self, head, True)
        exchange.begin(data[-head.length_bytes :] if head.length_bytes else b"")

    def _identify(self, head: RequestHead) -> None:
        """A trusted proxy's request: find out whose it is."""
        self.claims = self._context.read_claims(head, self.peer)
        self.address = self.claims.client

    def _update_reading(self) -> None:
        if self.state in (CLOSED, TUNNEL) or self.half_closed:
            return
        is_full = self._codec.buffered_bytes >= self._context.max_buffered_bytes and self.state is not LINGERING
        if is_full or (self._splice is not None and self._splice.sink.congested):
            self.stream.pause_reading()
        elif not self.stream.is_reading:
            self.stream.resume_reading()

    def _refuse(self, error: Malformed) -> None:
        """A request that cannot be read: tell the exchange, or answer it here, and close."""
        if self._exchange is not None:
            self._exchange.on_request_malformed(RequestError(error.status, _PUBLIC_REASONS.get(error.status, "")))
        else:
            self._answer_refused(error.status, error.reason, is_to_head=error.is_to_head)

    def _answer_refused(self, status: int, reason: str, *, is_to_head: bool) -> None:
        context = self._context
        public = _PUBLIC_REASONS.get(status, "malformed request").encode("ascii") + b"\n"
        fields: Fields = [(b"content-type", b"text/plain"), (b"date", context.date)]
        if status == _SERVICE_UNAVAILABLE:
            fields.append((b"retry-after", b"1"))
        head = render_response(status, reason_phrase(status), fields, Framing.LENGTH, len(public), b"close")
        body = b"" if is_to_head else public
        self.write(head + body)
        record_refused_head(context, self.peer, status, len(body), reason)
        self._is_own_wish = True  # it may be sending what follows
        self._begin_closing()

    # -- ends (the rest in net.ending)

    def _on_tunnel_closed(self) -> None:
        self.state = CLOSED
        self._leave()
        exchange, self._exchange = self._exchange, None
        try:
            if exchange is not None:
                exchange.on_tunnel_closed()
        finally:
            self._on_closed(self)

    def _on_deadline(self) -> None:
        if self.state is WAITING and self.stream.pending_bytes:
            self._timer.set(
                self._timeouts.client_idle_s
            )  # it still reads; how slowly it may is for the write timeout to say
        elif self.state is READING_HEAD:
            if self._context.backlog.holds(self):
                self._advance()  # it may be whole; then it is not the client that is late
            if self.state is READING_HEAD:
                is_to_head = self._codec.begins_head_request
                self._answer_refused(408, "the head did not come in time", is_to_head=is_to_head)
        elif self.state is EXCHANGING and self._request_open and self._exchange is not None:
            # Once a final response has begun, no more of the request is owed (RFC 9110, 10.1.1; RFC 9112, 9.5).
            if not self._exchange.response_begun:
                self._exchange.on_request_malformed(RequestError(408, _PUBLIC_REASONS[408]))
        elif self.state is EXCHANGING and (self.stream.pending_bytes or self.stream.sent_bytes != self._sent_at_end):
            pass  # it ended its half, but it takes the response: had it left, it would have answered with a RST
        else:
            self.close()


_PUBLIC_REASONS: Final = {
    400: "malformed request",
    408: "the request did not come in time",
    413: "the request's body is too large",
    414: "the request target is too long",
    417: "unknown expectation",
    431: "the request's fields are too large",
    501: "not implemented",
    503: "overloaded",
    505: "HTTP version not supported",
    508: "the request goes round in circles",
}
