"""Writing messages: heads and bodies are generated here, never echoed, so that each has exactly one framing."""

from __future__ import annotations

import enum

from minato.protocol.message import Fields, Framing, RequestHead

_REASONS = {
    200: b"OK",
    304: b"Not Modified",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    412: b"Precondition Failed",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    508: b"Loop Detected",
}
_HTTP_1_1 = 11


class Persistence(enum.Enum):
    """What a response tells the client about its connection."""

    KEEP = "keep-alive"
    CLOSE = "close"


def reason_phrase(status: int) -> bytes:
    """Return the standard phrase of a status that minato sends of its own."""
    return _REASONS.get(status, b"Unknown")


def render_request_head(method: bytes, target: bytes, lines: bytes, framing: Framing, length_bytes: int) -> bytes:
    """Return a request head; ``lines`` are field lines on the wire (`render_lines`) and carry no framing."""
    end = b"\r\n" if framing is Framing.NONE else _framing_line(framing, length_bytes)
    return b"%b %b HTTP/1.1\r\n%b%b" % (method, target, lines, end)


def render_lines(fields: Fields) -> bytes:
    """Return fields as they go on the wire."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def render_response(
    status: int, reason: bytes, fields: Fields, framing: Framing, length_bytes: int, connection: bytes = b""
) -> bytes:
    """Return a response head; ``fields`` carry no framing; ``connection`` is the value of Connection, if any."""
    return render_response_head(status, reason, render_lines(fields), framing, length_bytes, connection)


def render_response_head(
    status: int, reason: bytes, lines: bytes, framing: Framing, length_bytes: int, connection: bytes = b""
) -> bytes:
    """Return a response head; ``lines`` are field lines on the wire (`render_lines`) and carry no framing."""
    if connection:
        lines += b"connection: %b\r\n" % connection
    return b"HTTP/1.1 %d %b\r\n%b%b" % (status, reason, lines, _framing_line(framing, length_bytes))


def render_interim(status: int, reason: bytes, fields: Fields) -> bytes:
    """Return an interim (1xx) response."""
    return render_response(status, reason, fields, Framing.NONE, 0)


def unknown_length_framing(request: RequestHead) -> Framing:
    """Return how a body of unknown length goes to that client: in chunks, or up to the close (RFC 9112, 6.1, 6.3)."""
    return Framing.CHUNKED if request.version >= _HTTP_1_1 else Framing.CLOSE


def encode_piece(framing: Framing, data: bytes) -> bytes:
    """Return a piece of a body as it goes on the wire; nothing for an empty one, for an empty chunk would end it."""
    if framing is Framing.CHUNKED and data:
        return b"%x\r\n%b\r\n" % (len(data), data)
    return data


def encode_end(framing: Framing, trailers: Fields | None = None) -> bytes:
    """Return what ends a body on the wire; trailers are for chunked ones."""
    if framing is not Framing.CHUNKED:
        return b""
    return b"0\r\n%b\r\n" % render_lines(trailers) if trailers else b"0\r\n\r\n"


def _framing_line(framing: Framing, length_bytes: int) -> bytes:
    if framing is Framing.LENGTH:
        return b"content-length: %d\r\n\r\n" % length_bytes
    return b"transfer-encoding: chunked\r\n\r\n" if framing is Framing.CHUNKED else b"\r\n"
