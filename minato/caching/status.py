"""Cache-Status: what the cache did with a request, as a field value and for the log (RFC 9211)."""

from __future__ import annotations

import enum
import math
import re

from minato.caching.key import PrimaryKey

ONLY_IF_CACHED = b"minato; detail=only-if-cached"


class LookupReason(enum.Enum):
    """Why a lookup came out as it did; the value is the log's word and, but for HIT, the ``fwd`` of RFC 9211, 2.2."""

    HIT = "hit"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    STALE = "stale"
    REQUEST = "request"
    METHOD = "method"
    BYPASS = "bypass"
    PARTIAL = "partial"


_NOT_IN_STRING = re.compile(rb"[^\x20-\x7e]")
_ESCAPED = re.compile(rb'["\\]')
_FORWARDED = {reason: b"minato; fwd=" + reason.value.encode() for reason in LookupReason}


def render_forwarded(
    reason: LookupReason,
    *,
    upstream_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl_s: float | None = None,
    key: bytes = b"",
    detail: bytes = b"",
) -> bytes:
    """Return the Cache-Status member of a response that came, or was validated, through an upstream (RFC 9211, 2).

    Args:
        reason: why the request was forwarded.
        upstream_status: rendered as ``fwd-status``; give it where it differs from the answer's own status, as a 304
            to a validation does.
        stored: whether the response is being stored, or the stored one was freshened.
        collapsed: whether it was forwarded as one with other requests.
        ttl_s: the freshness lifetime that is left, rounded down; negative where it is stale.
        key: what `render_key` returns, where it is to be shown.
        detail: a token that says more.
    """
    parts = [_FORWARDED[reason]]
    if upstream_status is not None:
        parts.append(b"fwd-status=%d" % upstream_status)
    if stored:
        parts.append(b"stored")
    if collapsed:
        parts.append(b"collapsed")
    if ttl_s is not None:
        parts.append(b"ttl=%d" % math.floor(ttl_s))
    return _finish(b"; ".join(parts), key, detail)


def render_hit(ttl_s: int, *, key: bytes = b"", detail: bytes = b"") -> bytes:
    """Return the member of an answer from the store; a stale one has a negative ``ttl`` (RFC 9211, 2.4)."""
    return _finish(b"minato; hit; ttl=%d" % ttl_s, key, detail)


def render_key(key: PrimaryKey) -> bytes:
    """Return the parameter ``key`` of a member, with what parts it from the one in front (RFC 9211, 2.7).

    Its value is scheme, host and target, and behind a space the extra part, as a string of RFC 8941, 3.3.3; bytes that
    such a string cannot hold are escaped with ``%``.
    """
    _, scheme, host, target, *extra = key
    text = b" ".join([scheme + b"://" + host + target, *extra])
    text = _NOT_IN_STRING.sub(lambda match: b"%%%02X" % match[0][0], text)
    return b'; key="' + _ESCAPED.sub(rb"\\\g<0>", text) + b'"'


def _finish(member: bytes, key: bytes, detail: bytes) -> bytes:
    return member + key + (b"; detail=" + detail if detail else b"")
