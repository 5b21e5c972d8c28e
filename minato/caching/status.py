"""Cache-Status: what the cache did with a request, as a field value and for the log (RFC 9211)."""

from __future__ import annotations

import enum

HIT = b"minato; hit"
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


_FORWARDED = {reason: b"minato; fwd=" + reason.value.encode() for reason in LookupReason}


def render_forwarded(
    reason: LookupReason, *, upstream_status: int | None = None, stored: bool = False, collapsed: bool = False
) -> bytes:
    """Return the Cache-Status member of a response that came, or was validated, through an upstream.

    Args:
        reason: why the request was forwarded.
        upstream_status: rendered as ``fwd-status``; give it where it differs from the answer's own status, as a 304
            to a validation does.
        stored: whether the response is being stored, or the stored one was freshened.
        collapsed: whether it is the response to another request, which this one waited for.
    """
    parts = [_FORWARDED[reason]]
    if upstream_status is not None:
        parts.append(b"fwd-status=%d" % upstream_status)
    if stored:
        parts.append(b"stored")
    if collapsed:
        parts.append(b"collapsed")
    return b"; ".join(parts)
