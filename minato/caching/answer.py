"""The answer that a stored response gives to a request: whole, head alone, 304, ranges of it, or 416."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from minato.caching.partial import OF_ONE_CONTENT, cut
from minato.caching.ranges import ByteRange, Unsatisfiable, parse_ranges
from minato.caching.request import CacheRequest
from minato.caching.stored import StoredResponse
from minato.caching.validation import is_not_modified, is_range_applicable
from minato.protocol.message import Fields, field_values, first_value

# RFC 9110, 15.4.5: a 304 SHOULD NOT have representation metadata that does not guide cache updates.
_NOT_IN_304 = OF_ONE_CONTENT | {b"content-type", b"content-encoding", b"content-language", b"accept-ranges"}
_ABOUT_CONTENT = _NOT_IN_304 | {b"etag", b"last-modified", b"cache-control", b"expires", b"content-location"}


@dataclass(slots=True)
class CachedAnswer:
    """A response made of a stored one.

    Attributes:
        body: empty for HEAD, 304 and 204, where Content-Length may say more.
        more: what comes behind it, piece by piece.
    """

    status: int
    reason: bytes
    fields: Fields
    body: bytes | memoryview
    more: tuple[bytes | memoryview, ...] = ()

    @property
    def body_bytes(self) -> int:
        return len(self.body) + sum(map(len, self.more))


def make_answer(request: CacheRequest, stored: StoredResponse, now_s: float, cache_status: bytes) -> CachedAnswer:
    """Return the answer to a GET or HEAD from a stored response, its conditions and a single Range evaluated.

    Every answer carries Age (RFC 9111, 5.1) and ends its Cache-Status with this cache's member (RFC 9211, 2).
    """
    own: Fields = [(b"age", b"%d" % stored.age_s(now_s)), (b"cache-status", cache_status)]
    if is_not_modified(request.fields, stored, now_s):
        fields = [field for field in stored.fields if _belongs_in_304(field[0], stored)]
        return CachedAnswer(304, b"Not Modified", fields + own, b"")
    if request.method == b"HEAD":
        return CachedAnswer(stored.status, stored.reason, [*stored.fields, *own], b"")
    wanted = _wanted_range(request.fields, stored)
    if wanted is None:
        return CachedAnswer(stored.status, stored.reason, [*stored.fields, *own], stored.body)
    if isinstance(wanted, list):
        return _partial(stored, wanted, own)
    fields = [field for field in stored.fields if field[0] not in _ABOUT_CONTENT]
    own += [(b"content-range", b"bytes */%d" % stored.complete_bytes), (b"content-length", b"0")]
    return CachedAnswer(416, b"Range Not Satisfiable", fields + own, b"")


def can_answer_range(fields: Fields, stored: StoredResponse) -> bool:
    """Tell whether a stored part has all that a request asks for; a request for the whole asks for more."""
    wanted = _wanted_range(fields, stored)
    if isinstance(wanted, list):
        return all(cut(stored, span) is not None for span in wanted)
    return wanted is not None


def _wanted_range(fields: Fields, stored: StoredResponse) -> list[ByteRange] | Unsatisfiable | None:
    values = field_values(fields, b"range")
    if len(values) != 1 or stored.status != 200 or not is_range_applicable(fields, stored):
        return None
    return parse_ranges(values[0], stored.complete_bytes)


def _partial(stored: StoredResponse, wanted: list[ByteRange], own: Fields) -> CachedAnswer:
    pieces = [piece for span in wanted if (piece := cut(stored, span)) is not None]
    if len(pieces) > 1:
        return _multipart(stored, wanted, pieces, own)
    body = pieces[0]  # not a copy for every client
    fields = [field for field in stored.fields if field[0] not in OF_ONE_CONTENT]
    own += [
        (b"content-range", b"bytes %d-%d/%d" % (wanted[0].first, wanted[0].last, stored.complete_bytes)),
        (b"content-length", b"%d" % len(body)),
    ]
    return CachedAnswer(206, b"Partial Content", fields + own, body)


def _multipart(stored: StoredResponse, wanted: list[ByteRange], pieces: list[memoryview], own: Fields) -> CachedAnswer:
    """Several ranges: RFC 9110, 15.3.7.2 and 14.6. The content is not copied: many clients may be slow to take it."""
    boundary = _boundary(stored)
    content_type = first_value(list(stored.fields), b"content-type")
    label = b"content-type: %b\r\n" % content_type if content_type is not None else b""
    front = b"--%b\r\n%bcontent-range: bytes %%d-%%d/%d\r\n\r\n" % (
        boundary,
        label.replace(b"%", b"%%"),
        stored.complete_bytes,
    )
    parts: list[bytes | memoryview] = []
    for span, piece in zip(wanted, pieces, strict=True):
        parts += [front % (span.first, span.last), piece, b"\r\n"]
    answer = CachedAnswer(206, b"Partial Content", [], parts[0], (*parts[1:], b"--%b--\r\n" % boundary))
    fields = [field for field in stored.fields if field[0] not in OF_ONE_CONTENT and field[0] != b"content-type"]
    own += [
        (b"content-type", b"multipart/byteranges; boundary=" + boundary),
        (b"content-length", b"%d" % answer.body_bytes),
    ]
    answer.fields = fields + own
    return answer


def _boundary(stored: StoredResponse) -> bytes:
    """Return what the content does not hold: the hash of bytes is another one in each process, which nobody knows."""
    return hashlib.sha256(b"%d %d" % (hash(stored.key), stored.serial)).hexdigest()[:40].encode()


def _belongs_in_304(name: bytes, stored: StoredResponse) -> bool:
    # Last-Modified guides the client's own cache where there is no ETag.
    return name not in _NOT_IN_304 and (name != b"last-modified" or not stored.etag)
