"""Cache-Status: what the cache did with a request, as a field value and for the log (RFC 9211)."""

from __future__ import annotations

import enum
import math

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
    PARTIAL = "partial"


_FORWARDED = {reason: b"minato; fwd=" + reason.value.encode() for reason in LookupReason}


def render_forwarded(
    reason: LookupReason,
    *,
    upstream_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl_s: float | None = None,
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
    if detail:
        parts.append(b"detail=" + detail)
    return b"; ".join(parts)


def render_stale_hit(ttl_s: float) -> bytes:
    """Return the member of a stale answer that is validated in the background (RFC 9211, 2.4: a negative ``ttl``)."""
    return b"minato; hit; ttl=%d; detail=stale-while-revalidate" % math.floor(ttl_s)
