"""Validation: conditions evaluated against a stored response, requests that validate one, 304s merged into one."""

from __future__ import annotations

import re

from minato.caching.dates import parse_http_date
from minato.caching.freshness import read_date
from minato.caching.ranges import ByteRange
from minato.caching.stored import StoredResponse
from minato.protocol.message import Fields, field_values, first_value

_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ENTITY_TAG_LIST = re.compile(rb"[ \t,]*(?:" + _ENTITY_TAG.pattern + rb"[ \t]*(?:,[ \t,]*|\Z))+")
# RFC 9110, 8.8.2.2: a Last-Modified is strong where it is so much older than the Date that clocks make no difference.
_STRONG_AFTER_S = 60

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
    conditions = field_values(fields, b"if-range")
    if not conditions:
        return True
    condition = conditions[0]
    if len(conditions) > 1:  # it is one validator; of several there is no telling which one the client has
        return False
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
    return [
        *make_unconditional_fields(fields),
        (b"range", b"bytes=%d-%b" % (missing.first, last)),
        (b"if-range", strong_validator(stored)),
    ]


def make_unconditional_fields(fields: Fields) -> Fields:
    """Return a request's fields without its conditions and its Range: what it is answered with is the whole."""
    return [field for field in fields if field[0] not in _CONDITIONS]


def make_validation_fields(fields: Fields, stored: StoredResponse) -> Fields:
    """Return a request's fields with its own conditions and Range replaced by those that validate a stored response.

    RFC 9111, 4.3.1: SHOULD send If-None-Match for a stored ETag, and If-Modified-Since for a Last-Modified.
    """
    conditional = make_unconditional_fields(fields)
    if stored.etag:
        conditional.append((b"if-none-match", stored.etag))
    if stored.last_modified:
        conditional.append((b"if-modified-since", stored.last_modified))
    return conditional


def is_same_representation(stored: StoredResponse, fields: Fields, response_time_s: float) -> bool:
    """Tell whether a 304 with those fields, which answers a validation of a stored response, speaks of it.

    RFC 9111, 4.3.4: it MUST NOT be used to update what has none of its strong validators; where it has weak ones alone
    they have to correspond.

    Deviation: a 304 without any validator is believed also where the stored response has one. The request named just
    this one, and servers that leave ETag out of their 304s are common.
    """
    etag, modified, modified_s = _read_validators(fields, response_time_s)
    is_same_date = modified is not None and modified == stored.last_modified
    if etag is not None and is_strong_etag(etag):
        return etag == stored.etag or is_same_strong_date(stored, fields, response_time_s)
    if modified_s is not None and _date_s(fields, response_time_s) - modified_s >= _STRONG_AFTER_S:
        return is_same_date
    agreements = []
    if etag is not None and stored.etag:
        agreements.append(_opaque(etag) == _opaque(stored.etag))
    if modified is not None and stored.last_modified:
        agreements.append(is_same_date)
    return all(agreements) if agreements else etag is None and modified is None


def is_same_strong_date(stored: StoredResponse, fields: Fields, response_time_s: float) -> bool:
    """Tell whether a response has the Last-Modified of a stored one, and that is a strong validator of both."""
    _, modified, modified_s = _read_validators(fields, response_time_s)
    if modified_s is None or modified != stored.last_modified or not _is_strong_date(stored):
        return False
    return _date_s(fields, response_time_s) - modified_s >= _STRONG_AFTER_S


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


def _read_validators(fields: Fields, response_time_s: float) -> tuple[bytes | None, bytes | None, int | None]:
    """Return the ETag, the Last-Modified, and the second that it names; None where there is none, or it is no date."""
    modified = first_value(fields, b"last-modified")
    modified_s = None if modified is None else parse_http_date(modified, response_time_s)
    return first_value(fields, b"etag"), None if modified_s is None else modified, modified_s


def _date_s(fields: Fields, response_time_s: float) -> int:
    date_s = read_date(fields, response_time_s)
    return int(response_time_s) if date_s is None else date_s


def _is_strong_date(stored: StoredResponse) -> bool:
    # A Last-Modified is strong when it is clearly older than the response that brought it (RFC 9110, 8.8.2.2).
    return stored.date_s - _modified_s(stored) >= _STRONG_AFTER_S


def _modified_s(stored: StoredResponse) -> int:
    modified_s = parse_http_date(stored.last_modified, stored.response_time_s) if stored.last_modified else None
    return stored.date_s if modified_s is None else modified_s
