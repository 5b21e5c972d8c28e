"""HTTP/1.1 on the wire, strictly: what responses must look like byte for byte, and requests put together by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

Fields = list[tuple[bytes, bytes]]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) ([\t -~\x80-\xff]*)")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_PIECE_BYTES = 65_536


class ProtocolViolation(AssertionError):
    """A message that no server may send."""


class Truncated(Exception):
    """The connection ended in the middle of a message: how a proxy says that a body was cut short."""


@dataclass
class Response:
    """One response: ``fields`` in order, names lower case; ``interim`` holds the 1xx responses before it."""

    status: int
    reason: bytes
    version: bytes
    fields: Fields
    raw_head: bytes
    body: bytes = b""
    interim: list[Response] = field(default_factory=list)

    def get(self, name: bytes) -> bytes | None:
        """The only value of a field; None where there is none."""
        values = self.values(name)
        assert len(values) < 2, f"{name!r} came {len(values)} times"
        return values[0] if values else None

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def says_close(self) -> bool:
        return b"close" in [value.lower() for value in self.values(b"connection")]


class Source:
    """A buffer in front of a ``recv``: lines, exact counts, whatever comes next."""

    def __init__(self, recv: Callable[[int], bytes]) -> None:
        self._recv = recv
        self.buffer = bytearray()

    def fill(self) -> bool:
        """Read once; False at the end of the stream."""
        data = self._recv(_PIECE_BYTES)
        self.buffer += data
        return bool(data)

    def until(self, mark: bytes, limit: int = 262_144) -> bytes:
        """Return the bytes up to and with ``mark``; b"" where the stream ends before the first byte."""
        while (end := self.buffer.find(mark)) < 0:
            if len(self.buffer) > limit:
                raise ProtocolViolation(f"no {mark!r} within {limit} bytes")
            if not self.fill():
                if self.buffer:
                    raise Truncated(f"ended inside {bytes(self.buffer[:200])!r}")
                return b""
        return self.take(end + len(mark))

    def take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def some(self, limit: int) -> bytes:
        """Return between 1 and ``limit`` bytes; b"" at the end of the stream."""
        if not self.buffer:
            data = self._recv(min(limit, _PIECE_BYTES))
            return data
        return self.take(min(limit, len(self.buffer)))

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.fill():
                raise Truncated(f"{len(self.buffer)} of {size} bytes")
        return self.take(size)


def read_response_head(source: Source) -> Response:
    """Read one head, interim or final. Raises Truncated at the end of the stream, ProtocolViolation on bad syntax."""
    raw = source.until(b"\r\n\r\n")
    if not raw:
        raise Truncated("no response")
    lines = raw[:-4].split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise ProtocolViolation(f"bad status line {lines[0]!r}")
    fields = parse_field_lines(lines[1:])
    response = Response(int(match[2]), match[3], b"1." + match[1], fields, raw)
    lengths, codings = response.values(b"content-length"), response.values(b"transfer-encoding")
    if len(lengths) > 1 or (lengths and not _DIGITS.fullmatch(lengths[0])):
        raise ProtocolViolation(f"content-length {lengths!r}")
    if lengths and codings:
        raise ProtocolViolation("both content-length and transfer-encoding")
    if codings and [value.lower() for value in codings] != [b"chunked"]:
        raise ProtocolViolation(f"transfer-encoding {codings!r}")
    return response


def parse_field_lines(lines: Iterable[bytes]) -> Fields:
    """Parse field lines, no folding, no space before the colon."""
    fields = []
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise ProtocolViolation(f"bad field line {line!r}")
        fields.append((match[1].lower(), match[2]))
    return fields


def body_pieces(source: Source, head: Response, method: bytes) -> Iterator[bytes]:
    """Yield the body as it arrives. Raises Truncated when it is cut short."""
    if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return
    if head.values(b"transfer-encoding"):
        yield from _chunks(source)
    elif (length := head.get(b"content-length")) is not None:
        left = int(length)
        while left:
            piece = source.some(left)
            if not piece:
                raise Truncated(f"{left} of {int(length)} bytes missing")
            left -= len(piece)
            yield piece
    else:
        while piece := source.some(_PIECE_BYTES):
            yield piece


def _chunks(source: Source) -> Iterator[bytes]:
    while True:
        line = source.until(b"\r\n")
        if not line:
            raise Truncated("no last chunk")
        match = _CHUNK_SIZE.fullmatch(line[:-2])
        if match is None:
            raise ProtocolViolation(f"chunk size {line!r}")
        left = int(match[1], 16)
        if not left:
            _trailers(source)
            return
        while left:
            piece = source.some(left)
            if not piece:
                raise Truncated("inside a chunk")
            left -= len(piece)
            yield piece
        if source.exactly(2) != b"\r\n":
            raise ProtocolViolation("no CRLF after a chunk")


def _trailers(source: Source) -> None:
    while line := source.until(b"\r\n"):
        if line == b"\r\n":
            return
        parse_field_lines([line[:-2]])
    raise Truncated("inside the trailer section")


def request_bytes(
    method: bytes = b"GET",
    target: bytes = b"/",
    *,
    host: bytes | None = b"test.local",
    fields: Iterable[tuple[bytes, bytes]] = (),
    body: bytes | None = None,
    version: bytes = b"1.1",
) -> bytes:
    """Put a request together as given; a Content-Length is added where there is a body."""
    lines = [b"%s %s HTTP/%s" % (method, target, version)]
    if host is not None:
        lines.append(b"Host: " + host)
    lines += [name + b": " + value for name, value in fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def response_bytes(
    body: bytes = b"", *, status: bytes = b"200 OK", fields: Iterable[tuple[bytes, bytes]] = (), length: bool = True
) -> bytes:
    """Put a response together as given, with its Content-Length unless told otherwise."""
    lines = [b"HTTP/1.1 " + status, *(name + b": " + value for name, value in fields)]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
