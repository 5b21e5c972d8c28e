"""One connection to an upstream: connect and TLS, then exchange after exchange; idle ones wait in the pool.

A connection serves one exchange at a time and reports to it through `UpstreamOwner`. It decides by itself whether it
can be reused after a response; whoever gives it up earlier closes it. A response that comes whole takes a shorter way;
net.loop has the hot path on one page.
"""

from __future__ import annotations

import enum
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from minato.config.model import Timeouts
from minato.errors import UpstreamError
from minato.net.connect import Blame, Connector, describe_error
from minato.net.loop import Loop
from minato.net.runtime import UpstreamRuntime
from minato.net.splice import MIN_SPLICE_BYTES, Moved, Splice
from minato.net.stream import Stream
from minato.net.tls_stream import TlsStream
from minato.protocol.codec import ClientCodec, Signal
from minato.protocol.guard import Malformed
from minato.protocol.message import Fields, RequestHead, ResponseHead

_FIRST_FINAL: Final = 200
_END: Final = Signal.END
_BAD_GATEWAY: Final = 502
_SERVICE_UNAVAILABLE: Final = 503
_GATEWAY_TIMEOUT: Final = 504
_PUBLIC_REASONS: Final = {
    _BAD_GATEWAY: "the upstream failed",
    _SERVICE_UNAVAILABLE: "overloaded",
    _GATEWAY_TIMEOUT: "the upstream is too slow",
}


class ConnectionState(enum.Enum):
    CONNECTING = "connecting"
    BUSY = "busy"
    IDLE = "idle"
    TUNNEL = "tunnel"
    CLOSED = "closed"


_CONNECTING: Final = ConnectionState.CONNECTING
_BUSY: Final = ConnectionState.BUSY
_IDLE: Final = ConnectionState.IDLE
_TUNNEL: Final = ConnectionState.TUNNEL
_CLOSED: Final = ConnectionState.CLOSED


class UpstreamOwner(Protocol):
    """The exchange, as its upstream connection sees it."""

    request_complete: bool
    takes_whole: bool

    def on_connected(self) -> None: ...
    def on_response_head(self, head: ResponseHead) -> None: ...
    def on_response_body(self, data: bytes) -> None: ...
    def splice_response(self, source: Stream) -> Splice | None: ...
    def on_response_spliced(self, size: int) -> None: ...
    def on_response_end(self, trailers: Fields) -> None: ...
    def on_whole_response(self, head: ResponseHead, data: bytes, body_at: int, payload_bytes: int) -> None: ...
    def on_upstream_drained(self) -> None: ...
    def on_upstream_deadline(self) -> None: ...
    def on_upstream_failed(self, error: UpstreamError) -> None: ...
    def on_upstream_crash(self) -> None: ...


class UpstreamConnection:
    """One connection to one upstream.

    Attributes:
        upstream: whose connection it is.
        state: what it is doing.
        preamble: what it begins with, before TLS: a PROXY header. To be set before ``connect``.
        reused: whether it has served an exchange before the present one.
        response_bytes: what was received for the present exchange; none from a stale pooled connection.
        idle_since_s: monotonic second at which it went into the pool.
        refused: whether the attempt failed because nobody accepts connections there.
        was_paused: whether the present response had to wait for its client.
        sent_before: what the stream had sent when the present exchange began; bytes.
        timer: the present exchange's deadline towards the upstream, or the idle one.
    """

    __slots__ = (
        "_codec",
        "_connector",
        "_eof",
        "_in_body",
        "_latest_owner",
        "_loop",
        "_make_room",
        "_on_idle",
        "_on_idle_closed",
        "_owner",
        "_paused",
        "_persistent",
        "_request_failed",
        "_splice",
        "_stream",
        "_timeouts",
        "_tls",
        "_untaken_bytes",
        "idle_since_s",
        "preamble",
        "refused",
        "response_bytes",
        "reused",
        "sent_before",
        "state",
        "timer",
        "upstream",
        "was_paused",
    )

    def __init__(
        self,
        loop: Loop,
        upstream: UpstreamRuntime,
        timeouts: Timeouts,
        codec: ClientCodec,
        tls: ssl.SSLContext | None,
        on_idle: Callable[[UpstreamConnection], None],
        on_idle_closed: Callable[[UpstreamConnection], None],
        make_room: Callable[[], bool],
    ) -> None:
        self.upstream = upstream
        self.state = _CONNECTING
        self.preamble = b""
        self.reused = False
        self.refused = False
        self.was_paused = False
        self.response_bytes = 0
        self.sent_before = 0
        self.idle_since_s = 0.0
        self.timer = loop.timer(self._on_deadline)
        self._loop = loop
        self._timeouts = timeouts
        self._tls = tls
        self._codec = codec
        self._on_idle = on_idle
        self._on_idle_closed = on_idle_closed
        self._make_room = make_room
        self._owner: UpstreamOwner | None = None
        self._latest_owner: UpstreamOwner | None = None
        self._connector: Connector | None = None
        self._stream: Stream | None = None
        self._eof = False
        self._paused = False
        self._in_body = False  # whether the final head was read
        self._persistent = False  # whether the response allows the next exchange
        self._request_failed = False  # whether the upstream stopped reading the request
        self._splice: Splice | None = None  # the way of the rest of the response, past the codec
        self._untaken_bytes = 0  # of a request that came in pieces, at the last look

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.upstream.url} {self.state.value}>"

    @property
    def stream(self) -> Stream:
        assert self._stream is not None
        return self._stream

    @property
    def sent_bytes(self) -> int:
        """How much of the present exchange's request the kernel took."""
        return self._stream.sent_bytes - self.sent_before if self._stream is not None else 0

    @property
    def congested(self) -> bool:
        return self._stream is not None and self._stream.congested

    @property
    def can_take_splice(self) -> bool:
        """Whether a body may be spliced into its stream; no more once the upstream stopped reading."""
        return self._stream is not None and self._stream.can_splice and not self._request_failed

    # -- what the exchange asks for

    def connect(self, owner: UpstreamOwner) -> None:
        """Begin to connect; ``owner`` hears ``on_connected`` or ``on_upstream_failed``, perhaps before this returns."""
        self._owner = self._latest_owner = owner
        self.timer.set(self._timeouts.connect_s)
        self._connector = Connector(
            self._loop,
            self.upstream,
            self._tls,
            self._on_connected,
            self._on_connect_failed,
            self.on_crash,
            self._make_room,
            self.preamble,
        )
        self._connector.start()

    def reuse(self, owner: UpstreamOwner) -> None:
        """Take an idle connection out of the pool for another exchange."""
        self._owner = self._latest_owner = owner
        self.reused = True
        self.state = _BUSY
        self.response_bytes = 0
        assert self._stream is not None
        self.sent_before = self._stream.sent_bytes
        self._in_body = self._persistent = False
        self.timer.cancel()

    def is_alive(self) -> bool:
        """Ask the socket whether the upstream has closed or sent what nobody asked for; a dead one is to be closed."""
        return not self.stream.is_readable()

    def send_head(self, head: RequestHead, data: bytes) -> None:
        """Send a rendered request head, and expect its response."""
        self._codec.expect_response(head.method, head.upgrade)
        assert self._stream is not None
        self._stream.write(data)

    def send_whole(self, head: RequestHead, data: bytes) -> None:
        """Send a rendered request with all of its body: `send_head` and `await_response` in one."""
        self._codec.expect_response(head.method, head.upgrade)
        assert self._stream is not None
        self._stream.write(data)
        self.timer.set(self._timeouts.response_s)

    def await_response(self) -> None:
        """The request is complete: from now on the response head is due."""
        if not self._in_body:
            self._untaken_bytes = self.stream.untaken_bytes()
            self.timer.set(self._timeouts.response_s)

    def send(self, data: bytes) -> None:
        """Send a piece of the request's body. Once the upstream stopped reading, it goes nowhere."""
        if not self._request_failed and self._stream is not None:
            self._stream.write(data)

    def pause(self) -> None:
        """Read no more of the response until ``resume``: the client is slow."""
        if not self._paused and self._stream is not None and not self._stream.closed:
            self._paused = self.was_paused = True
            self.timer.cancel()
            self._stream.pause_reading()

    def resume(self) -> None:
        if self._paused and self._stream is not None and not self._stream.closed:
            self._paused = False
            if not self._eof:
                self.timer.set(self._timeouts.read_s)
                self._stream.resume_reading()
            self._loop.call_soon(self._pump)

    def start_tunnel(self) -> tuple[Stream, bytes]:
        """After a 101: give away the stream and what came behind the head."""
        self.state = _TUNNEL
        self._owner = None
        self.timer.cancel()
        return self.stream, self._codec.take_rest()

    def close(self) -> None:
        """Close for good; the owner hears nothing any more."""
        if self.state is _CLOSED:
            return
        if self.state is _IDLE:
            self._on_idle_closed(self)
        self.state = _CLOSED
        self._owner = None
        self.timer.close()
        if self._stream is not None:
            self._stream.close()
            self._loop.call_soon(self._stream.disown)  # a bug in what follows is told by way of the stream
        if self._connector is not None:
            self._connector.close()

    # -- connecting

    def _on_connected(self, sock: socket.socket) -> None:
        self._connector = None
        kind = TlsStream if isinstance(sock, ssl.SSLSocket) else Stream
        self._stream = kind(self._loop, sock, self, self._timeouts.write_s, tells_end=True)
        self._stream.adopt_registration()
        self.state = _BUSY
        self.timer.cancel()
        assert self._owner is not None
        self._owner.on_connected()

    def _on_connect_failed(self, why: str, blame: Blame) -> None:
        self.refused = blame is Blame.NOT_ACCEPTED
        self._fail(_SERVICE_UNAVAILABLE if blame is Blame.HERE else _BAD_GATEWAY, why)

    # -- what the stream reports

    def on_readable(self) -> bool:
        """Read what is there and hand it on; tell whether there was anything."""
        if self._splice is not None:
            return self._relay_spliced(self._splice)
        stream = self._stream
        assert stream is not None
        try:
            data = stream.recv()
        except ssl.SSLZeroReturnError:
            data = b""
        except OSError as error:
            self._fail(_BAD_GATEWAY, describe_error(error))
            return False
        if data is None:
            return False
        if self.state is not _BUSY:
            # Idle: closed by the upstream, or a response that nobody asked for. Either way it must not be reused.
            self.close()
            return False
        if data:
            if stream.sent_bytes == self.sent_before:
                # Nothing of the request has been sent: whatever this answers, it is not this request.
                self._fail(_BAD_GATEWAY, "it sent something unasked")
                return False
            owner = self._owner
            if owner is not None and owner.takes_whole and not self._in_body and not self._request_failed:
                head = self._codec.read_whole(data)
                if head is not None:
                    self._finish_whole(owner, head, data)
                    return True
            self.response_bytes += len(data)
            self._codec.feed(data)
        else:
            return self._on_end(stream)
        self._pump()
        return True

    def _on_end(self, stream: Stream) -> bool:
        if self._request_failed:
            # The error of the connection was told to the writing side; to the reading side it looks like an end.
            self._fail(_BAD_GATEWAY, "connection reset")
            return False
        self._eof = True
        stream.pause_reading()
        self._codec.feed_eof()
        self._pump()
        return True

    def on_drained(self) -> None:
        if self._owner is not None:
            self._owner.on_upstream_drained()

    def on_flushed(self) -> None:
        pass

    def on_write_failed(self, error: OSError) -> None:
        """The upstream reads no more. It may have answered already, so what it sent is read before it is given up."""
        if isinstance(error, TimeoutError):
            self._fail(_GATEWAY_TIMEOUT, "it does not read the request")
        elif self.state is not _BUSY or self._request_failed:
            self._fail(_BAD_GATEWAY, describe_error(error))
        else:
            self._request_failed = True
            self.timer.set(self._timeouts.response_s)
            self._paused = False
            while self.state is _BUSY and not self._eof and not self._paused and self.on_readable():
                pass

    def on_crash(self) -> None:
        """A bug, here or in the exchange, ended the handling of an event; the owner may have been let go before it."""
        self.close()
        if self._latest_owner is not None:
            self._latest_owner.on_upstream_crash()

    # -- responses

    def _pump(self) -> None:
        """Hand on what the codec reads until it needs more, the client is slow, or the response is over."""
        next_event = self._codec.next_event
        try:
            while self.state is _BUSY and not self._paused:
                owner = self._owner
                if owner is None:
                    return
                event = next_event()
                if type(event) is bytes:
                    owner.on_response_body(event)
                elif event is _END:
                    self._finish_response(owner)
                elif type(event) is ResponseHead:
                    if event.status >= _FIRST_FINAL:
                        self._persistent = event.keep_alive
                        self._in_body = True
                    owner.on_response_head(event)
                else:
                    if self._in_body:
                        self._await_body(owner)
                    return
        except Malformed as error:
            self._fail(_BAD_GATEWAY, error.reason)

    def _await_body(self, owner: UpstreamOwner) -> None:
        """More of the body is due; much of it goes past the codec where nobody has to see it."""
        self.timer.set(self._timeouts.read_s)
        if self._splice is None and self._codec.passable_bytes >= MIN_SPLICE_BYTES and not self._eof:
            self._splice = owner.splice_response(self.stream)

    def _relay_spliced(self, splice: Splice) -> bool:
        """Move what is there past the codec; tell whether there may be more."""
        try:
            moved = splice.move(self._codec.passable_bytes, self._count_spliced)
        except OSError as error:
            self._fail(_BAD_GATEWAY, describe_error(error))
            return False
        if moved is Moved.NO_PIPE:
            self._splice = None
            return self.on_readable()
        if moved is Moved.END:
            return self._on_end(self.stream)
        if splice.sink.congested:
            self.pause()
        else:
            self._pump()
        return moved is not Moved.NOTHING

    def _count_spliced(self, size: int) -> None:
        self.response_bytes += size
        self._codec.skip(size)
        assert self._owner is not None
        self._owner.on_response_spliced(size)

    def _finish_whole(self, owner: UpstreamOwner, head: ResponseHead, data: bytes) -> None:
        """The whole response came in one piece, and nothing behind it."""
        self._owner = None
        self.state = _IDLE
        stream = self._stream
        assert stream is not None
        if head.keep_alive and not stream.pending_bytes and not stream.has_unread() and not stream.peer_ended:
            self.idle_since_s = self._loop.now_s
            self.timer.set(self._timeouts.upstream_idle_s)
            self._on_idle(self)
        else:
            self.close()
        owner.on_whole_response(head, data, self._codec.body_at, self._codec.payload_bytes)
        self._let_go()

    def _finish_response(self, owner: UpstreamOwner) -> None:
        self._owner = None
        self._splice = None
        self._untaken_bytes = 0
        self.was_paused = False
        self.state = _IDLE
        stream = self._stream
        assert stream is not None
        reusable = self._persistent and not self._eof and not self._request_failed and not stream.pending_bytes
        if (
            reusable
            and not stream.peer_ended
            and owner.request_complete
            and not self._codec.buffered_bytes
            and not stream.has_unread()
        ):
            self.idle_since_s = self._loop.now_s
            self.timer.set(self._timeouts.upstream_idle_s)
            self._on_idle(self)
        else:
            self.close()
        owner.on_response_end(self._codec.trailers)
        self._let_go()

    def _let_go(self) -> None:
        """What ended without a crash is not kept alive by an idle connection, unless that serves the next already."""
        if self._owner is None:
            self._latest_owner = None

    def _on_deadline(self) -> None:
        if self._connector is not None:
            self.refused = not self._connector.is_accepted
            self._fail(_GATEWAY_TIMEOUT, "it does not accept the connection in time")
        elif self._owner is not None:
            if not self._takes_request():
                self._owner.on_upstream_deadline()
        else:
            self.close()

    def _takes_request(self) -> bool:
        """Tell whether the upstream goes on to take a request that waited for it: then its response is not due yet."""
        before = self._untaken_bytes
        if not before or self._in_body:
            return False
        self._untaken_bytes = self.stream.untaken_bytes()
        if self._untaken_bytes >= before:
            return False
        self.timer.set(self._timeouts.response_s)
        return True

    def _fail(self, status: int, detail: str) -> None:
        """Close and tell the owner why, with the upstream's name in front."""
        detail = f"{self.upstream.url}: {detail}"
        owner = self._owner
        self.close()
        if owner is not None:
            fields = ((b"retry-after", b"1"),) if status == _SERVICE_UNAVAILABLE else ()
            owner.on_upstream_failed(UpstreamError(status, _PUBLIC_REASONS[status], detail=detail, fields=fields))
