"""Writing messages: heads and bodies are generated here, never echoed, so that each has exactly one framing."""

from __future__ import annotations

import enum

from minato.protocol.message import Fields, Framing, RequestHead

_REASONS = {
    200: b"OK",
    304: b"Not Modified",
    400: b"Bad Request",
    404: b"Not Found",
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
}
_HTTP_1_1 = 11


class Persistence(enum.Enum):
    """What a response tells the client about its connection."""

    KEEP = "keep-alive"
    CLOSE = "close"


def reason_phrase(status: int) -> bytes:
    """Return the standard phrase of a status that minato sends of its own."""
    return _REASONS.get(status, b"Unknown")


def render_request(method: bytes, target: bytes, fields: Fields, framing: Framing, length_bytes: int) -> bytes:
    """Return a request head; ``fields`` carry no framing."""
    lines = [method + b" " + target + b" HTTP/1.1\r\n"]
    lines += [name + b": " + value + b"\r\n" for name, value in fields]
    lines.append(_framing_line(framing, length_bytes))
    return b"".join(lines)


def render_response(
    status: int, reason: bytes, fields: Fields, framing: Framing, length_bytes: int, connection: bytes = b""
) -> bytes:
    """Return a response head; ``fields`` carry no framing; ``connection`` is the value of Connection, if any."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
    lines += [name + b": " + value + b"\r\n" for name, value in fields]
    if connection:
        lines.append(b"connection: " + connection + b"\r\n")
    lines.append(_framing_line(framing, length_bytes))
    return b"".join(lines)


def render_interim(status: int, reason: bytes, fields: Fields) -> bytes:
    """Return an interim (1xx) response."""
    return render_response(status, reason, fields, Framing.NONE, 0)


def response_framing(request: RequestHead, framing: Framing, length_bytes: int) -> tuple[Framing, int]:
    """Return how a response that came framed as ``framing`` goes to that client.

    A body of unknown length goes in chunks, to an HTTP/1.0 client up to the close (RFC 9112, 6.1, 6.3).
    """
    if framing in (Framing.CHUNKED, Framing.CLOSE):
        return (Framing.CHUNKED if request.version >= _HTTP_1_1 else Framing.CLOSE), 0
    return framing, length_bytes


def connection_value(request: RequestHead, persistence: Persistence) -> bytes:
    """Return the Connection field's value of a response, empty where the version's default says it (RFC 9112, 9.3)."""
    if persistence is Persistence.CLOSE:
        return b"close"
    return b"" if request.version >= _HTTP_1_1 else b"keep-alive"


def encode_piece(framing: Framing, data: bytes) -> bytes:
    """Return a piece of a body as it goes on the wire; nothing for an empty one, for an empty chunk would end it."""
    if framing is Framing.CHUNKED and data:
        return b"%x\r\n%b\r\n" % (len(data), data)
    return data


def encode_end(framing: Framing) -> bytes:
    """Return what ends a body on the wire."""
    return b"0\r\n\r\n" if framing is Framing.CHUNKED else b""


def _framing_line(framing: Framing, length_bytes: int) -> bytes:
    if framing is Framing.LENGTH:
        return b"content-length: %d\r\n\r\n" % length_bytes
    return b"transfer-encoding: chunked\r\n\r\n" if framing is Framing.CHUNKED else b"\r\n"
