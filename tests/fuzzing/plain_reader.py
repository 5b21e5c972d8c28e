"""The plain reader: knows only the one canonical spelling of a message that minato may send, and refuses all others.

Written from RFC 9112 and from nothing of minato's, so that what it reads cannot be read in a second way: CRLF, token
names, one framing, lengths and chunk sizes without signs, leading zeros or extensions, trailers that frame nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.fuzzing.messages import Message, Reading

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t \x21-\x7e\x80-\xff]*")
_FIELD = re.compile(
    rb"(" + _TOKEN + rb"): ?((?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)"
)
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
_CHUNK_SIZE = re.compile(rb"0|[1-9a-fA-F][0-9a-fA-F]{0,14}")
_FRAMING = (b"content-length", b"transfer-encoding")
_SINGLETONS = (b"host", *_FRAMING)


class Refused(Exception):
    """Bytes that are not the beginning of a canonical message."""


def read_requests(data: bytes) -> Reading:
    """Read requests as an upstream gets them."""
    return _read(data, None, ends=False)


def read_responses(data: bytes, methods: Sequence[bytes], *, ends: bool) -> Reading:
    """Read responses as a client gets them that asked with ``methods``; ``ends``: and then saw the end."""
    return _read(data, list(methods), ends=ends)


def _read(data: bytes, methods: list[bytes] | None, *, ends: bool) -> Reading:
    reading = Reading([])
    at = 0
    while at < len(data):
        method = b"GET" if not methods else methods[0]
        try:
            message, at = _read_message(data, at, method if methods is not None else None, ends)
        except Refused as error:
            reading.error = f"{error} at {data[at : at + 80]!r}"
            return reading
        reading.messages.append(message)
        if message.start == (101,):
            return reading
        if methods and not message.is_interim:
            methods.pop(0)
        if methods is not None and not message.is_interim and _closes(message) and at < len(data):
            reading.error = f"bytes after a response that closes: {data[at : at + 80]!r}"
            return reading
        if not message.complete:
            return reading
    return reading


def _closes(message: Message) -> bool:
    return (message.get(b"connection") or b"").lower() == b"close"


def _read_message(data: bytes, at: int, method: bytes | None, ends: bool) -> tuple[Message, int]:
    """Return the message at ``at`` and the offset behind it; ``method`` is None for a request."""
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        _check_partial(data[at:])
        return Message((data[at:],)), len(data)
    lines = data[at:end].split(b"\r\n")
    message = _start(lines[0], is_request=method is None)
    message.at = at
    message.fields = [_field(line) for line in lines[1:]]
    for name in _SINGLETONS if method is None else _FRAMING:
        if sum(1 for key, _ in message.fields if key == name) > 1:
            raise Refused(f"{name!r} twice")
    if method is None and message.get(b"host") is None:
        raise Refused("a request without Host")
    return message, _read_body(data, end + 4, message, method, ends)


def _check_partial(data: bytes) -> None:
    for line in data.split(b"\r\n"):
        if b"\n" in line or b"\r" in line.removesuffix(b"\r") or b"\0" in line:
            raise Refused("a bare CR or LF, or NUL")


def _start(line: bytes, *, is_request: bool) -> Message:
    match = (_REQUEST_LINE if is_request else _STATUS_LINE).fullmatch(line)
    if match is None:
        raise Refused(f"a first line {line!r}")
    if is_request:
        return Message((match[1], match[2]))
    status = int(match[1])
    return Message((status,), is_interim=status < 200 and status != 101)


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Refused(f"a field line {line!r}")
    return match[1].lower(), match[2]


def _read_body(data: bytes, at: int, message: Message, method: bytes | None, ends: bool) -> int:
    length, coding = message.get(b"content-length"), message.get(b"transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise Refused(f"a length {length!r}")
    if coding is not None and (coding != b"chunked" or length is not None):
        raise Refused(f"a coding {coding!r} with the length {length!r}")
    status = message.start[0] if method is not None else 0
    assert isinstance(status, int) or method is None
    if method is not None and isinstance(status, int) and (status < 200 or status in (204, 304) or method == b"HEAD"):
        if coding is not None and (status < 200 or status == 204):
            raise Refused(f"a {status} with Transfer-Encoding")
        message.complete = True
        return at
    if coding is not None:
        return _read_chunks(data, at, message)
    if length is not None:
        message.body = data[at : at + int(length)]
        message.complete = len(message.body) == int(length)
        return at + len(message.body)
    if method is None:
        message.complete = True
        return at
    message.body = data[at:]
    message.complete = ends
    return len(data)


def _read_chunks(data: bytes, at: int, message: Message) -> int:
    while True:
        end = data.find(b"\r\n", at)
        line = data[at:end] if end >= 0 else data[at:].removesuffix(b"\r")
        if not _CHUNK_SIZE.fullmatch(line) and (end >= 0 or line):
            raise Refused(f"a chunk's size {line!r}")
        if end < 0:
            return len(data)
        size, at = int(line, 16), end + 2
        if not size:
            return _read_trailers(data, at, message)
        piece = data[at : at + size]
        message.body += piece
        at += len(piece)
        behind = data[at : at + 2]
        if len(piece) < size or len(behind) < 2:
            if behind not in (b"", b"\r"):
                raise Refused(f"{behind!r} after a chunk")
            return len(data)
        if behind != b"\r\n":
            raise Refused(f"{behind!r} after a chunk")
        at += 2


def _read_trailers(data: bytes, at: int, message: Message) -> int:
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            _check_partial(data[at:])
            return len(data)
        line, at = data[at:end], end + 2
        if not line:
            message.complete = True
            return at
        if _field(line)[0] in _SINGLETONS:
            raise Refused(f"a trailer {line!r}")
