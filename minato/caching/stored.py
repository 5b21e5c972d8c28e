"""A stored response: what is kept of a response, what of it decides about reuse, and the bytes it really takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from minato.caching.dates import format_http_date, parse_http_date
from minato.caching.directives import ResponseDirectives
from minato.caching.freshness import Freshness, calculate_current_age
from minato.caching.key import PrimaryKey, VariantNames, VariantValues, resource_of
from minato.caching.ranges import ByteRange
from minato.protocol.message import Fields, first_value

# What one more stored response takes besides its strings and fields: the object, its boxed numbers, its key, its places
# in a group of variants and in the eviction order. The store counts by itself what several share. Measured with
# tracemalloc; tests/caching/test_store_memory.py holds all of it against that.
ENTRY_OVERHEAD_BYTES = 480
# A field is a tuple of two, a place in the tuple of all, and ": " and the line's end in the rendered head.
_FIELD_OVERHEAD = 76
_SPAN_BYTES = 120

# Of a key with an extra part: its place in the index by URL, a set of its own at worst. Measured likewise.
_EXTENDED_KEY_OVERHEAD = 450

# RFC 9111, 3.1: fields that must not be stored; besides Age, which is computed for every answer, and Trailer, since
# trailer fields are not kept.
_NOT_KEPT = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"age",
        b"trailer",
    }
)


@dataclass(slots=True, eq=False)
class StoredResponse:
    """A response, whole or in parts.

    Once it is live, nothing but ``is_live``, ``has_rivals``, ``rendered`` and ``uses`` ever changes.

    Attributes:
        key: its primary cache key.
        names: the field names of its Vary.
        values: the values of those fields in the request that it answered.
        status: of the response.
        reason: its reason phrase.
        fields: end-to-end fields as they are sent, Date and Content-Length among them, Age and Cache-Status not.
        body: the whole content; of a part what ``spans`` say, one after the other.
        date_s: date value, seconds since the epoch.
        response_time_s: wall clock when it arrived, or was last validated.
        initial_age_s: its age at that time.
        lifetime_s: freshness lifetime; it is stale once its age reaches it.
        must_validate: no-cache: never reused without validation.
        forbids_stale: never reused stale, whatever the request says.
        while_revalidate_s: how long it may be reused stale while it is validated (RFC 5861, 3).
        if_error_s: how long it may be reused stale where the upstream fails (RFC 5861, 4).
        etag: the ETag, or empty.
        last_modified: the Last-Modified, or empty where there is none or it is no date.
        size_bytes: all memory that it takes, heads, keys and overhead included.
        serial: a larger one arrived later.
        complete_bytes: the length of the whole content.
        spans: the ranges of a part that are held, in order and apart; empty where it is whole.
        is_plain: whether it answers a plain GET as it is for as long as it is fresh.
        rendered: kept for whoever sends it: the whole answer's head as it was sent last, the Age in it, and where that
            begins and the ``ttl`` behind it ends.
        is_live: whether the store still holds it; False for good once it was replaced, evicted or purged.
        has_rivals: whether a response with another Vary was stored for the same key: a request may select either.
        uses: kept by the eviction order, which counts no further than it needs.
        tags: its cache tags, read when it is stored.
    """

    key: PrimaryKey
    names: VariantNames
    values: VariantValues
    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    date_s: int
    response_time_s: float
    initial_age_s: float
    lifetime_s: float
    must_validate: bool
    forbids_stale: bool
    etag: bytes
    last_modified: bytes
    size_bytes: int
    serial: int
    while_revalidate_s: int = 0
    if_error_s: int = 0
    complete_bytes: int = 0
    spans: tuple[ByteRange, ...] = ()
    is_plain: bool = False
    is_live: bool = False
    has_rivals: bool = False
    rendered: tuple[bytes, int, int, int] | None = None
    uses: int = 0
    tags: tuple[bytes, ...] = ()

    @property
    def has_validator(self) -> bool:
        return bool(self.etag or self.last_modified)

    @property
    def fresh_until_s(self) -> float:
        """The wall-clock second from which on it is stale."""
        return self.response_time_s - self.initial_age_s + self.lifetime_s

    def age_s(self, now_s: float) -> float:
        """Return the current age (RFC 9111, 4.2.3)."""
        return calculate_current_age(self.initial_age_s, self.response_time_s, now_s)

    def ttl_s(self, now_s: float) -> int:
        """Return the freshness lifetime that is left, in whole seconds; negative exactly where it is stale.

        It changes when Age does, since both are of the same whole seconds.
        """
        age_s = self.age_s(now_s)
        if age_s < self.lifetime_s:
            return int(self.lifetime_s) - int(age_s)
        return min(-1, math.floor(self.lifetime_s - age_s))

    def is_fresh(self, now_s: float) -> bool:
        """Tell whether the age is below the freshness lifetime (RFC 9111, 4.2)."""
        return self.age_s(now_s) < self.lifetime_s

    def __repr__(self) -> str:
        state = "live" if self.is_live else "gone"
        return f"<StoredResponse {self.key[3]!r} {self.status} {len(self.body)} bytes, {state}>"


def make_stored(
    *,
    key: PrimaryKey,
    names: VariantNames,
    values: VariantValues,
    status: int,
    reason: bytes,
    fields: Fields,
    directives: ResponseDirectives,
    freshness: Freshness,
    date_s: int,
    response_time_s: float,
    initial_age_s: float,
    body: bytes,
    serial: int,
) -> StoredResponse:
    """Return a stored response that no store holds yet; fields that must not be stored are left out."""
    kept = [field for field in fields if field[0] not in _NOT_KEPT and field[0] not in directives.withheld]
    last_modified = first_value(kept, b"last-modified") or b""
    stored = StoredResponse(
        key=key,
        names=names,
        values=values,
        status=status,
        reason=reason,
        fields=tuple(kept),
        body=body,
        date_s=date_s,
        response_time_s=response_time_s,
        initial_age_s=initial_age_s,
        lifetime_s=freshness.lifetime_s,
        must_validate=directives.no_cache,
        forbids_stale=directives.forbids_stale,
        while_revalidate_s=directives.stale_while_revalidate_s,
        if_error_s=directives.stale_if_error_s,
        complete_bytes=len(body),
        etag=first_value(kept, b"etag") or b"",
        last_modified=last_modified if parse_http_date(last_modified, response_time_s) is not None else b"",
        size_bytes=0,
        serial=serial,
    )
    _settle(stored)
    return stored


def complete_stored(
    stored: StoredResponse, body: bytes, spans: tuple[ByteRange, ...] = (), complete_bytes: int | None = None
) -> None:
    """Give a stored response that is not live yet its body, and the Content-Length that tells of it.

    Args:
        stored: without body so far.
        body: the whole content, or that of the spans.
        spans: of a part.
        complete_bytes: length of the whole that a part belongs to.
    """
    stored.body = body
    stored.spans = spans
    stored.complete_bytes = len(body) if complete_bytes is None else complete_bytes
    if stored.status != 204:  # RFC 9110, 8.6: MUST NOT send Content-Length in a 204
        others = [field for field in stored.fields if field[0] != b"content-length"]
        stored.fields = (*others, (b"content-length", b"%d" % stored.complete_bytes))
    _settle(stored)


def _settle(stored: StoredResponse) -> None:
    stored.is_plain = not (stored.must_validate or stored.spans or stored.status == 204)
    stored.size_bytes = _count_bytes(stored)


def as_stale(stored: StoredResponse, now_s: float) -> StoredResponse:
    """Return a copy that no store holds yet and that is stale from that moment on, whatever the clock does after it."""
    age_s = stored.age_s(now_s)
    return replace(
        stored,
        response_time_s=now_s,
        initial_age_s=age_s,
        lifetime_s=min(stored.lifetime_s, age_s),
        is_live=False,
        has_rivals=False,
        rendered=None,
    )


def with_date(fields: Fields, date_s: int | None, response_time_s: float) -> Fields:
    """Return the fields with a valid Date, where ``date_s`` says that they have none.

    RFC 9110, 6.6.1: a recipient with a clock MUST record the time a response without Date was received, and append it
    when it is cached; an invalid one MAY be replaced so.
    """
    if date_s is not None:
        return fields
    others = [field for field in fields if field[0] != b"date"]
    return [*others, (b"date", format_http_date(response_time_s))]


def _count_bytes(stored: StoredResponse) -> int:
    strings = [stored.body, stored.reason, stored.etag, stored.last_modified, *stored.key[1:], *stored.names]
    strings += [value for value in stored.values if value is not None]
    total = (
        ENTRY_OVERHEAD_BYTES
        + _SPAN_BYTES * len(stored.spans)
        + sum([_allocated_bytes(len(string)) for string in strings])
    )
    if resource_of(stored.key) != stored.key:
        total += _EXTENDED_KEY_OVERHEAD
    for name, value in stored.fields:
        # The content once more, since it is in the rendered head, too.
        content_bytes = len(name) + len(value)
        total += _FIELD_OVERHEAD + content_bytes + _allocated_bytes(len(name)) + _allocated_bytes(len(value))
    return total


def _allocated_bytes(length: int) -> int:
    """Return what a bytes object takes: 33 bytes and its content, in steps of 16."""
    return (length + 48) & -16
