"""Partial content: 206 responses as they are stored, and parts combined into more (RFC 9111, 3.3 and 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

from minato.caching.policy import NotStored
from minato.caching.ranges import ByteRange, find_gaps, parse_content_range
from minato.caching.stored import StoredResponse
from minato.caching.validation import is_strong_etag, strong_validator
from minato.protocol.message import Fields, Framing, ResponseHead, field_values, first_value

_OK = 200
MAX_SPANS = 16
"""Separate parts of one response; where there would be more, the newest alone is kept."""

OF_ONE_CONTENT = frozenset({b"content-length", b"content-range", b"content-digest", b"content-md5"})
"""Fields about the content of one message (RFC 9530, 2), a part or the whole: they do not hold for another one."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where the content of a 206 belongs.

    Attributes:
        span: its positions.
        complete_bytes: the length of the whole.
    """

    span: ByteRange
    complete_bytes: int


def read_part(fields: Fields) -> Part | None:
    """Return which part a 206 brings, None where it brings several, or where that cannot be told."""
    values = field_values(fields, b"content-range")
    found = parse_content_range(values[0]) if len(values) == 1 else None
    return None if found is None else Part(*found)


def is_same_version(stored: StoredResponse, fields: Fields) -> bool:
    """Tell whether a 206 with those fields is of the same version of the representation as a stored response.

    RFC 9111, 3.4: a cache can combine them where they "all share the same strong validator".
    """
    validator = strong_validator(stored)
    if not validator:
        return False
    if is_strong_etag(stored.etag):
        return first_value(fields, b"etag") == validator
    return first_value(fields, b"etag") is None and first_value(fields, b"last-modified") == validator


def is_combinable(stored: StoredResponse, other: StoredResponse, complete_bytes: int) -> bool:
    """Tell whether a stored response and one that is about to be stored are of one version, of so many bytes."""
    if stored.status != _OK or stored.complete_bytes != complete_bytes:
        return False
    return bool(strong_validator(stored)) and (stored.etag, stored.last_modified) == (other.etag, other.last_modified)


def place_part(
    stored: StoredResponse | None, response: ResponseHead, max_bytes: int, *, is_bare: bool = False
) -> tuple[Part, StoredResponse | None] | NotStored:
    """Return where the content of a 206 belongs and what it is to be combined with, or why it is not stored.

    Args:
        stored: what its request selects.
        response: the 206.
        max_bytes: a whole that is longer is not stored, nor are its parts.
        is_bare: whether it answers If-Range. RFC 9110, 15.3.7: it SHOULD NOT have the fields that tell about the
            content then, so that it is of use with those of the rest alone.
    """
    part = read_part(response.fields)
    if part is None or _is_multipart(response.fields):
        return NotStored.PART
    if response.framing is Framing.LENGTH and response.length_bytes != part.span.size:
        return NotStored.INCOMPLETE
    if part.complete_bytes > max_bytes:
        return NotStored.TOO_LARGE
    beginning = NotStored.PART if is_bare else (part, None)
    if stored is None or stored.status != _OK:
        return beginning
    if stored.complete_bytes == part.complete_bytes and is_same_version(stored, response.fields):
        return part, stored
    etag = first_value(response.fields, b"etag")
    is_outdated = bool(etag and stored.etag) and etag != stored.etag
    return beginning if stored.spans or is_outdated else NotStored.PART


def _is_multipart(fields: Fields) -> bool:
    """RFC 9110, 15.3.7.2: one with several parts MUST NOT have a Content-Range of its own; it would say nothing."""
    content_type = first_value(fields, b"content-type") or b""
    return content_type.lower().startswith(b"multipart/byteranges")


def find_missing(stored: StoredResponse) -> ByteRange | None:
    """Return the one range that would make a part whole, None where there are several or it cannot be combined."""
    gaps = find_gaps(stored.spans, stored.complete_bytes)
    return gaps[0] if len(gaps) == 1 and strong_validator(stored) else None


def combine(
    stored: StoredResponse, span: ByteRange, data: bytes, complete_bytes: int
) -> tuple[tuple[ByteRange, ...], bytes]:
    """Return the ranges and their bytes that a stored response and one more part of the same version have together.

    Where they overlap the newer bytes count. No ranges: it is whole.
    """
    pieces: list[tuple[ByteRange, bytes]] = []
    at = 0
    for held in stored.spans or (ByteRange(0, stored.complete_bytes - 1),):
        body = stored.body[at : at + held.size]
        at += held.size
        if held.first < span.first:
            last = min(held.last, span.first - 1)
            pieces.append((ByteRange(held.first, last), body[: last - held.first + 1]))
        if held.last > span.last:
            first = max(held.first, span.last + 1)
            pieces.append((ByteRange(first, held.last), body[first - held.first :]))
    pieces.append((span, data))
    pieces.sort(key=lambda piece: piece[0])
    spans: list[ByteRange] = []
    for piece, _ in pieces:
        if spans and spans[-1].last + 1 == piece.first:
            spans[-1] = ByteRange(spans[-1].first, piece.last)
        else:
            spans.append(piece)
    if len(spans) > MAX_SPANS:
        return (span,), data
    is_whole = spans == [ByteRange(0, complete_bytes - 1)]
    return () if is_whole else tuple(spans), b"".join([body for _, body in pieces])


def cut(stored: StoredResponse, wanted: ByteRange) -> memoryview | None:
    """Return the bytes of one range of a stored response, not copied; None where it is not held."""
    if not stored.spans:
        return memoryview(stored.body)[wanted.first : wanted.last + 1]
    at = 0
    for held in stored.spans:
        if held.holds(wanted):
            first = at + wanted.first - held.first
            return memoryview(stored.body)[first : first + wanted.size]
        at += held.size
    return None
