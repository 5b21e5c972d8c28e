"""A connection that is watched all the time, and responses read strictly from it: no end is taken for granted."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.system.harness.wire import Fields, ProtocolViolation, parse_field_lines

MAX_HEAD_BYTES = 65_536


class CutError(Exception):
    """The connection ended inside a message; ``begun`` tells whether a byte of it had come."""

    def __init__(self, begun: bool, what: str) -> None:
        super().__init__(what)
        self.begun = begun


@dataclass(slots=True)
class Answer:
    """One final response, whole."""

    status: int
    fields: Fields
    body: bytes = b""
    is_delimited: bool = True  # False: its end was the connection's

    def values(self, name: bytes) -> list[bytes]:
        return [value.lower() for key, value in self.fields if key == name]

    def says_close(self) -> bool:
        return b"close" in self.values(b"connection") or not self.is_delimited


@dataclass(slots=True)
class Wire(asyncio.Protocol):
    """One connection.

    Attributes:
        buffer: what came and was not taken yet.
        ended: whether the other side closed or reset it.
        port: our own port, which names the connection on both sides.
        on_idle_end: called when it ends while ``is_idle``.
        is_idle: whether a request could be sent now, and none is on its way.
    """

    buffer: bytearray = field(default_factory=bytearray)
    ended: bool = False
    was_reset: bool = False
    port: int = 0
    is_idle: bool = False
    on_idle_end: Callable[[], None] | None = None
    transport: asyncio.Transport | None = None
    _waiter: asyncio.Future[None] | None = None

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Wire:
        """Raises OSError."""
        _, wire = await asyncio.get_running_loop().create_connection(cls, host, port)
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._wake()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.was_reset = isinstance(error, ConnectionResetError)
        self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            if self.is_idle and self.on_idle_end is not None:
                self.on_idle_end()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        self.is_idle = False
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Close with a RST."""
        self.is_idle = False
        if self.transport is not None and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    async def more(self) -> bool:
        """Wait until something comes; False at the end of the stream."""
        if self.ended:
            return False
        before = len(self.buffer)
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
        return len(self.buffer) > before

    async def until(self, mark: bytes) -> bytes:
        """Return what comes up to and with ``mark``. Raises CutError."""
        start = 0
        while (end := self.buffer.find(mark, start)) < 0:
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise ProtocolViolation(f"no {mark!r} within {MAX_HEAD_BYTES} bytes")
            start = max(len(self.buffer) - len(mark) + 1, 0)
            if not await self.more():
                raise CutError(bool(self.buffer), f"the end came before {mark!r}")
        return self.take(end + len(mark))

    async def exactly(self, size: int) -> bytes:
        """Raises CutError."""
        while len(self.buffer) < size:
            if not await self.more():
                raise CutError(True, f"the end came after {len(self.buffer)} of {size} bytes")
        return self.take(size)

    def take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data


async def read_head(wire: Wire) -> Answer:
    """Read the head of a final response (or a 101). Raises CutError, ProtocolViolation."""
    while True:
        lines = (await wire.until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        parts = lines[0].split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise ProtocolViolation(f"status line {lines[0][:200]!r}")
        answer = Answer(int(parts[1]), parse_field_lines(lines[1:]))
        if answer.status >= 200 or answer.status == 101:
            return answer


async def read_body(wire: Wire, answer: Answer) -> None:
    """Read the body. Raises CutError, ProtocolViolation."""
    try:
        if answer.status in (204, 304):
            return
        if b"chunked" in answer.values(b"transfer-encoding"):
            pieces = []
            while piece := await read_chunk(wire):
                pieces.append(piece)
            answer.body = b"".join(pieces)
        elif lengths := answer.values(b"content-length"):
            if len(lengths) > 1:
                raise ProtocolViolation(f"content-length {lengths!r}")
            answer.body = await wire.exactly(int(lengths[0]))
        else:
            answer.is_delimited = False
            while await wire.more():
                pass
            if wire.was_reset:
                raise CutError(True, "reset where the end of the connection is the end of the body")
            answer.body = wire.take(len(wire.buffer))
    except CutError as error:
        raise CutError(True, str(error)) from error


async def read_chunk(wire: Wire) -> bytes:
    """Read one chunk; b"" is the last. Raises CutError, ProtocolViolation."""
    line = (await wire.until(b"\r\n"))[:-2]
    try:
        size = int(line, 16)
    except ValueError:
        raise ProtocolViolation(f"chunk size {line[:80]!r}") from None
    if not size:
        while await wire.until(b"\r\n") != b"\r\n":
            pass
        return b""
    data = await wire.exactly(size + 2)
    if not data.endswith(b"\r\n"):
        raise ProtocolViolation("no CRLF behind a chunk")
    return data[:-2]
