"""Validation: conditions evaluated against a stored response, requests that validate one, 304s merged into one."""

from __future__ import annotations

import re

from minato.caching.dates import parse_http_date
from minato.caching.ranges import ByteRange
from minato.caching.stored import StoredResponse
from minato.protocol.message import Fields, field_values, first_value

_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ENTITY_TAG_LIST = re.compile(rb"[ \t,]*(?:" + _ENTITY_TAG.pattern + rb"[ \t]*(?:,[ \t,]*|\Z))+")

_CONDITIONS = frozenset(
    {b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range", b"range"}
)
# RFC 9111, 3.2 excepts Content-Length, and what the stored bytes depend on: no 304 is a reason to relabel them.
_NOT_UPDATED = frozenset(
    {
        b"content-length",
        b"content-encoding",
        b"content-range",
        b"content-md5",
        b"content-digest",
        b"digest",
        b"transfer-encoding",
    }
)


def is_not_modified(fields: Fields, stored: StoredResponse, now_s: float) -> bool:
    """Tell whether a request's conditions are to be answered with 304 from a stored response (RFC 9111, 4.3.2).

    If-None-Match takes precedence over If-Modified-Since; without Last-Modified the stored Date stands in for it.
    """
    if not 200 <= stored.status < 300:  # RFC 9110, 13.2.1: no condition on what would not be a 2xx
        return False
    tags = field_values(fields, b"if-none-match")
    if tags:
        return _matches_any(b", ".join(tags), stored.etag)
    since = field_values(fields, b"if-modified-since")
    if len(since) != 1:  # RFC 9110, 13.1.3: MUST ignore it where it is not one valid date
        return False
    since_s = parse_http_date(since[0], now_s)
    return since_s is not None and _modified_s(stored) <= since_s


def is_range_applicable(fields: Fields, stored: StoredResponse) -> bool:
    """Tell whether If-Range lets a Range of the stored response be served (RFC 9110, 13.1.5): by strong comparison."""
    condition = first_value(fields, b"if-range")
    if condition is None:
        return True
    if condition.startswith((b'"', b"W/")):
        return condition == stored.etag and is_strong_etag(condition)
    return condition == stored.last_modified and _is_strong_date(stored)


def is_strong_etag(etag: bytes) -> bool:
    """Tell whether an ETag is a strong validator (RFC 9110, 8.8.3)."""
    return etag.startswith(b'"')


def strong_validator(stored: StoredResponse) -> bytes:
    """Return the strong validator of a stored response, as If-Range has it; empty where there is none."""
    if stored.etag:
        return stored.etag if is_strong_etag(stored.etag) else b""
    return stored.last_modified if stored.last_modified and _is_strong_date(stored) else b""


def make_completing_fields(fields: Fields, stored: StoredResponse, missing: ByteRange) -> Fields:
    """Return the fields of a request that makes a stored part whole (RFC 9111, 3.3), or gets the whole anew.

    RFC 9110, 13.1.5: with If-Range the range is sent only if the representation is still the same.
    """
    last = b"" if missing.last == stored.complete_bytes - 1 else b"%d" % missing.last
    kept = [field for field in fields if field[0] not in _CONDITIONS]
    return [*kept, (b"range", b"bytes=%d-%b" % (missing.first, last)), (b"if-range", strong_validator(stored))]


def make_validation_fields(fields: Fields, stored: StoredResponse) -> Fields:
    """Return a request's fields with its own conditions and Range replaced by those that validate a stored response.

    RFC 9111, 4.3.1: SHOULD send If-None-Match for a stored ETag, and If-Modified-Since for a Last-Modified.
    """
    conditional = [field for field in fields if field[0] not in _CONDITIONS]
    if stored.etag:
        conditional.append((b"if-none-match", stored.etag))
    if stored.last_modified:
        conditional.append((b"if-modified-since", stored.last_modified))
    return conditional


def is_same_representation(stored: StoredResponse, fields: Fields) -> bool:
    """Tell whether a 304 with those fields speaks of this stored response (RFC 9111, 4.3.4).

    Deviation: a 304 without any validator is believed also where the stored response has one. The request named just
    this one, and servers that leave ETag out of their 304s are common.
    """
    etag = first_value(fields, b"etag")
    if etag is not None:
        return bool(stored.etag) and _opaque(etag) == _opaque(stored.etag)
    modified = first_value(fields, b"last-modified")
    return modified is None or bool(stored.etag) or modified == stored.last_modified


def merge_fields(stored: Fields, update: Fields) -> Fields:
    """Return stored fields updated by those of a 304: names in the update replace the stored ones (RFC 9111, 3.2)."""
    added = [field for field in update if field[0] not in _NOT_UPDATED]
    names = {name for name, _ in added}
    return [field for field in stored if field[0] not in names] + added


def _matches_any(tags: bytes, etag: bytes) -> bool:
    """Weak comparison against a list of entity tags, or ``*`` (RFC 9110, 13.1.2)."""
    if tags == b"*":
        return True
    if not etag:
        return False
    if not _ENTITY_TAG_LIST.fullmatch(tags):  # an origin that forgets the quotes gets its own tag back like that
        return tags == etag
    return _opaque(etag) in map(_opaque, _ENTITY_TAG.findall(tags))


def _opaque(etag: bytes) -> bytes:
    return etag.removeprefix(b"W/")


def _is_strong_date(stored: StoredResponse) -> bool:
    # A Last-Modified is strong when it is clearly older than the response that brought it (RFC 9110, 8.8.2.2).
    return stored.date_s - _modified_s(stored) >= 60


def _modified_s(stored: StoredResponse) -> int:
    modified_s = parse_http_date(stored.last_modified, stored.response_time_s) if stored.last_modified else None
    return stored.date_s if modified_s is None else modified_s
