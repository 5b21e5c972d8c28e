"""The h11 codec: h11 reads every message, behind the guard; nothing above this file knows h11.

Both halves work alike. Bytes are kept until a whole head is there; the guard checks it, then h11 parses it. Of a body
h11 is fed exactly the bytes that belong to it, counted for Content-Length. Chunks never get there: the scanner decides
about them anyway, and h11 would make an event of each, of a byte if it must be. What follows a message stays here for
the next one or for a tunnel, so that one h11 connection object serves one message.
"""

from __future__ import annotations

from typing import Final

import h11

from minato.config.model import Limits
from minato.protocol import guard
from minato.protocol.chunked import ChunkReader
from minato.protocol.codec import ClientEvent, ServerEvent, Signal
from minato.protocol.fields import FieldBlock, Fields, make_block
from minato.protocol.guard import Malformed
from minato.protocol.message import Framing, RequestHead, ResponseHead
from minato.protocol.semantics import is_asked_switch, make_request_head, make_response_head

_END_OF_HEAD: Final = b"\r\n\r\n"
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL: Final = 200
_MAX_INTERIM_RESPONSES: Final = 64
_MAX_INTERIM_BYTES: Final = 65_536  # of one response; whoever does not read has them all in memory
_MANY_LINES_BYTES: Final = 2048  # a shorter head may have what lines it likes
_REQUEST_LINE_REST_BYTES: Final = 32  # method, spaces and version around the target


class _MessageReader:
    """What both directions share: finding heads, feeding h11 its body, keeping the rest."""

    __slots__ = (
        "_buffer",
        "_checked_bytes",
        "_chunks",
        "_h11",
        "_has_no_body",
        "_left_bytes",
        "_limits",
        "trailers",
    )

    def __init__(self, limits: Limits) -> None:
        self.trailers: Fields = []
        self._limits = limits
        self._buffer = bytearray()
        self._checked_bytes = 0  # of an unfinished head: searched for its end and for bare LF already
        self._h11: h11.Connection | None = None  # set while a body is read
        self._has_no_body = False
        self._left_bytes: int | None = None  # of a body with Content-Length
        self._chunks: ChunkReader | None = None  # of a chunked body

    @property
    def buffered_bytes(self) -> int:
        return len(self._buffer)

    @property
    def passable_bytes(self) -> int:
        return 0  # h11 counts what it reads

    def skip(self, size: int) -> None:
        assert not size

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take_rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _cut_head(self) -> bytes | None:
        """Return the whole head at the front of the buffer, None while it is not all there."""
        buffer = self._buffer
        end = buffer.find(_END_OF_HEAD, max(self._checked_bytes - 3, 0))
        size = end + 4 if end >= 0 else len(buffer)
        if size > self._limits.header_bytes:
            raise Malformed("a head over the limit", 431)
        if end < 0:
            guard.check_partial_head(buffer, self._checked_bytes)
            self._checked_bytes = len(buffer)
            return None
        head = bytes(buffer[:size])
        del buffer[:size]
        self._checked_bytes = 0
        # Before anything is done with each of them; the request line and the empty one come on top.
        if size > _MANY_LINES_BYTES and head.count(b"\r\n") > self._limits.header_fields + 2:
            raise Malformed("more fields than the limit", 431)
        guard.check_head(head)
        return head

    def _parsed_fields(self, event: h11.Request | h11.Response | h11.InformationalResponse) -> FieldBlock:
        if len(event.headers) > self._limits.header_fields:
            raise Malformed("more fields than the limit", 431)
        return make_block(list(event.headers))

    def _begin_body(self, connection: h11.Connection, framing: Framing, length_bytes: int) -> None:
        self._h11 = connection
        self._left_bytes = length_bytes if framing is Framing.LENGTH else None
        self._chunks = ChunkReader() if framing is Framing.CHUNKED else None
        if framing is Framing.NONE:
            self._left_bytes = 0
        # Whatever h11 makes of its fields (205).
        self._has_no_body = framing is Framing.NONE or self._left_bytes == 0

    def _next_body_event(self) -> bytes | Signal:
        """Return a piece, END, or NEED_DATA, after feeding h11 what the buffer holds of this body."""
        connection = self._h11
        assert connection is not None
        if self._has_no_body:
            self.trailers = []
            self._h11 = None
            return Signal.END
        if self._chunks is not None:
            return self._next_chunks(self._chunks)
        self._feed_h11(connection)
        event = _next_h11_event(connection)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self.trailers = []
            self._h11 = None
            return Signal.END
        return Signal.NEED_DATA

    def _next_chunks(self, chunks: ChunkReader) -> bytes | Signal:
        if self._buffer and not chunks.done:
            data, at = chunks.read(bytes(self._buffer), 0)
            del self._buffer[:at]
            if data:
                return data
        if not chunks.done:
            return Signal.NEED_DATA
        self.trailers = chunks.trailers
        self._chunks = self._h11 = None
        return Signal.END

    def _feed_h11(self, connection: h11.Connection) -> None:
        buffer = self._buffer
        if not buffer:
            return
        if self._left_bytes is not None:
            own_bytes = min(self._left_bytes, len(buffer))
            self._left_bytes -= own_bytes
        else:
            own_bytes = len(buffer)
        if own_bytes:
            _feed(connection, bytes(buffer[:own_bytes]))
            del buffer[:own_bytes]


class H11ServerCodec(_MessageReader):
    """Reads requests (protocol.codec.ServerCodec)."""

    __slots__ = ()

    def read_whole(self, data: bytes) -> RequestHead | None:
        return None

    def next_event(self) -> ServerEvent:
        return self._next_body_event() if self._h11 is not None else self._next_head()

    def give_up_head(self) -> bytes | None:
        """Return what was fed if a head that was not all there is now, for another codec to read; else None."""
        at = self._checked_bytes
        if not at or self._buffer.find(_END_OF_HEAD, max(at - 3, 0)) < 0:
            return None
        self._checked_bytes = 0
        return self.take_rest()

    def _next_head(self) -> RequestHead | Signal:
        self._skip_empty_lines()
        is_head_request = self.begins_head_request
        try:
            self._check_request_line_size()
            head = self._cut_head()
            return self._read_head(head, *guard.split_request_line(head)) if head is not None else Signal.NEED_DATA
        except Malformed as error:
            error.is_to_head = is_head_request
            raise

    @property
    def begins_head_request(self) -> bool:
        return self._buffer.startswith(b"HEAD ")

    def _read_head(self, head: bytes, method: bytes, target: bytes, version: int) -> RequestHead:
        if len(target) > self._limits.target_bytes:
            raise Malformed("a request target over the limit", 414)
        framing = guard.declared_framing(*guard.framing_lines(head), version)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes + 1)
        _feed(connection, head)
        event = _next_h11_event(connection)
        if not isinstance(event, h11.Request) or event.method != method or event.target != target:
            raise Malformed("a malformed request")
        request = make_request_head(method, target, version, self._parsed_fields(event), framing)
        self._begin_body(connection, request.framing, request.length_bytes)
        return request

    def _skip_empty_lines(self) -> None:
        # RFC 9112, 2.2: a server "SHOULD ignore at least one empty line (CRLF) received prior to the request-line".
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
            self._checked_bytes = 0

    def _check_request_line_size(self) -> None:
        """Answer an endless target with 414 rather than with 431, in however many pieces it comes (RFC 9112, 3)."""
        max_bytes = self._limits.target_bytes + _REQUEST_LINE_REST_BYTES
        if len(self._buffer) > max_bytes and self._buffer.find(b"\r\n", 0, max_bytes + 2) < 0:
            raise Malformed("a request target over the limit", 414)


class H11ClientCodec(_MessageReader):
    """Reads responses (protocol.codec.ClientCodec)."""

    __slots__ = ("_eof", "_interim", "_interim_bytes", "_method", "_pending", "_upgrade", "body_at", "payload_bytes")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.body_at = 0
        self.payload_bytes = 0
        self._eof = False
        self._interim = self._interim_bytes = 0
        self._method = b""
        self._upgrade = b""
        self._pending: h11.Connection | None = None  # set while a response is due whose final head has not come

    def expect_response(self, method: bytes, upgrade: bytes) -> None:
        self._method, self._upgrade = method, upgrade
        self._interim = self._interim_bytes = 0
        self._pending = connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limits.header_bytes + 1)
        fields: Fields = [(b"host", b"upstream")]
        if upgrade:
            fields += [(b"connection", b"upgrade"), (b"upgrade", upgrade)]
        connection.send(h11.Request(method=method, target=b"/", headers=fields))

    def read_whole(self, data: bytes) -> ResponseHead | None:
        return None

    def feed_eof(self) -> None:
        self._eof = True

    def next_event(self) -> ClientEvent:
        if self._h11 is not None:
            return self._next_response_body()
        if self._pending is None:
            return Signal.NEED_DATA
        return self._next_head(self._pending)

    def _next_response_body(self) -> bytes | Signal:
        event = self._next_body_event()
        if event is Signal.NEED_DATA and self._eof:
            assert self._h11 is not None
            _feed(self._h11, b"")
            event = self._next_body_event()
            if event is Signal.NEED_DATA:
                raise Malformed("a response that ended too early")
        return event

    def _next_head(self, connection: h11.Connection) -> ResponseHead | Signal:
        head = self._cut_head()
        if head is None:
            if self._eof:
                raise Malformed("a connection closed before its response")
            return Signal.NEED_DATA
        status, reason, version = guard.split_status_line(head)
        if status == _SWITCHING_PROTOCOLS and not self._upgrade:
            raise Malformed("a switch of protocols that nobody asked for")
        framing = guard.declared_framing(*guard.framing_lines(head), version)
        _feed(connection, head)
        event = _next_h11_event(connection)
        if not isinstance(event, h11.Response | h11.InformationalResponse) or event.status_code != status:
            raise Malformed("a malformed response")
        response = make_response_head(self._method, status, reason, version, self._parsed_fields(event), framing)
        if status < _FIRST_FINAL:
            self._count_interim(status, len(head))
            if status == _SWITCHING_PROTOCOLS and not is_asked_switch(self._upgrade, response.upgrade):
                raise Malformed("a switch to a protocol that nobody asked for")
        else:
            self._pending = None
            self._begin_body(connection, response.framing, response.length_bytes)
        return response

    def _count_interim(self, status: int, size: int) -> None:
        self._interim += 1
        self._interim_bytes += size
        if self._interim > _MAX_INTERIM_RESPONSES or self._interim_bytes > _MAX_INTERIM_BYTES:
            raise Malformed("endless interim responses")
        if status == _SWITCHING_PROTOCOLS:
            self._pending = None


def _feed(connection: h11.Connection, data: bytes) -> None:
    try:
        connection.receive_data(data)
    except h11.RemoteProtocolError as error:
        raise _translated(error) from error


def _next_h11_event(connection: h11.Connection) -> object:
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        raise _translated(error) from error


def _translated(error: h11.RemoteProtocolError) -> Malformed:
    """h11's error with its status hint; its text names only what was sent, cut short for the log."""
    return Malformed(str(error)[:200], error.error_status_hint)
