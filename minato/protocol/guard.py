"""The guard: what h11 tolerates in a head and a proxy must not, refused once for both codecs and both directions.

The guard works on the raw bytes of a whole head, up to and including the empty line. It raises `Malformed` and knows
nothing of sides: a codec turns that into a 4xx for a client or a 502 for an upstream.
"""

from __future__ import annotations

import re

from minato.errors import MinatoError
from minato.protocol.message import Framing

_NO_CONTROL = bytes({*range(256)} - {*range(0x20), 0x7F} | {0x09, 0x0A, 0x0D})
_LENGTH_LINE = re.compile(rb"\r\ncontent-length:([^\r]*)", re.IGNORECASE)
_CODING_LINE = re.compile(rb"\r\ntransfer-encoding:([^\r]*)", re.IGNORECASE)
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-5][0-9][0-9])(?: ([\t \x21-\x7e\x80-\xff]*))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Malformed(MinatoError):
    """A message that must not be read on.

    Attributes:
        status: what a client would be answered with.
        is_to_head: whether it begins as a HEAD request does, so that no content may answer it (RFC 9110, 9.3.2).
    """

    is_to_head = False

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def check_partial_head(data: bytes | bytearray, start: int) -> None:
    """Refuse a bare LF as soon as it is there, so that a head that can never end in CRLF CRLF is not waited for.

    ``start`` is where the part begins that was not checked before.
    """
    at = data.find(b"\n", start)
    while at >= 0:
        if at == 0 or data[at - 1] != 0x0D:
            raise Malformed("a line that does not end in CRLF")
        at = data.find(b"\n", at + 1)


def check_head(head: bytes) -> None:
    """Check the line structure of a whole head.

    Raises:
        Malformed: bare CR or LF (RFC 9112, 2.2), obs-fold (5.2), control bytes (RFC 9110, 5.5).
    """
    # Counting and finding, not patterns: a head of 20 KB, such as one with thousands of ranges, takes a fifth as long.
    lines = head.count(b"\r\n")
    if head.count(b"\r") != lines or head.count(b"\n") != lines:
        raise Malformed("a line that does not end in CRLF")
    if b"\r\n " in head or b"\r\n\t" in head:
        raise Malformed("a folded field line")
    if head.translate(None, _NO_CONTROL):
        raise Malformed("a control character in the head")


def split_request_line(head: bytes) -> tuple[bytes, bytes, int]:
    """Return method, target and version (10 or 11) of a whole head's first line.

    Raises:
        Malformed: 400 for a line of another shape, 505 for another major version.
    """
    line = head[: head.index(b"\r\n")]
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Malformed("a malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise Malformed("only HTTP/1.x is spoken here", 505)
    return method, target, 10 if minor == b"0" else 11


def split_status_line(head: bytes) -> tuple[int, bytes, int]:
    """Return status, reason and version (10 or 11) of a whole head's first line.

    Raises:
        Malformed: a line of another shape, a status outside 100-599, another major version.
    """
    match = _STATUS_LINE.fullmatch(head[: head.index(b"\r\n")])
    if match is None:
        raise Malformed("a malformed status line")
    major, minor, status, reason = match.groups()
    if major != b"1":
        raise Malformed("a version other than HTTP/1.x")
    return int(status), reason or b"", 10 if minor == b"0" else 11


def framing_lines(head: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the raw values of every Content-Length and every Transfer-Encoding line of a head."""
    return (
        [value.strip(b" \t") for value in _LENGTH_LINE.findall(head)],
        [value.strip(b" \t") for value in _CODING_LINE.findall(head)],
    )


def declared_framing(lengths: list[bytes], codings: list[bytes], version: int) -> tuple[Framing, int] | None:
    """Return the framing that the fields declare, None where they declare none (RFC 9112, 6.3).

    Raises:
        Malformed: anything two readers could frame differently; 501 for a transfer coding that is not spoken here.
    """
    if codings:
        # RFC 9112, 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header
        # field MUST treat the message as if the framing is faulty".
        if version < 11:
            raise Malformed("Transfer-Encoding in an HTTP/1.0 message")
        if lengths:
            raise Malformed("both Content-Length and Transfer-Encoding")
        _check_codings(codings)
        return Framing.CHUNKED, 0
    if not lengths:
        return None
    # Deviation: RFC 9110, 8.6 lets a recipient take identical lengths for one; refusing them is good for whoever stands
    # behind minato and would have taken the other one.
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("an invalid Content-Length")
    return Framing.LENGTH, int(lengths[0])


def _check_codings(codings: list[bytes]) -> None:
    members = [member.strip(b" \t").lower() for value in codings for member in value.split(b",")]
    if members == [b"chunked"]:
        return
    # RFC 9112, 6.3: "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not
    # the final encoding, [...] the server MUST respond with the 400 (Bad Request) status code".
    if members[-1] != b"chunked" or members.count(b"chunked") > 1 or b"" in members:
        raise Malformed("an invalid Transfer-Encoding")
    raise Malformed("a transfer coding that is not spoken here", 501)
