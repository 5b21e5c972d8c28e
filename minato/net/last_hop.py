"""Requests that end here: TRACE where it is off, TRACE and OPTIONS that may be forwarded no more (RFC 9110, 7.6.2)."""

from __future__ import annotations

from typing import Final

from minato.caching.answer import CachedAnswer
from minato.errors import RequestError
from minato.protocol.message import RequestHead
from minato.protocol.render import render_lines

LAST_HOP_METHODS: Final = frozenset([b"TRACE", b"OPTIONS"])
"""Requests with any other method are none of this module's business."""

# What an upstream allows is not known here; TRACE is not among it.
_ALLOW: Final = (b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
# RFC 9110, 9.3.8: the final recipient of a TRACE "SHOULD exclude any request fields that are likely to contain
# sensitive data".
_SENSITIVE: Final = frozenset([b"cookie", b"authorization", b"proxy-authorization"])


def answer_as_last_hop(head: RequestHead, date: bytes, *, traces: bool) -> CachedAnswer | None:
    """Return the answer to a request that goes no further, None for one that does.

    Args:
        head: of the request.
        date: an HTTP-date of now.
        traces: whether TRACE is on.

    Raises:
        RequestError: 405, TRACE where it is off.
    """
    if head.method == b"TRACE" and not traces:
        raise RequestError(405, "TRACE is not allowed", fields=(_ALLOW,))
    if head.hops_left != 0:
        return None
    if head.method == b"TRACE":
        fields = [(name, value) for name, value in head.fields if name not in _SENSITIVE]
        body = b"%b %b HTTP/1.%d\r\n%b\r\n" % (head.method, head.target, head.version % 10, render_lines(fields))
        return CachedAnswer(200, b"OK", [(b"content-type", b"message/http"), (b"date", date)], body)
    return CachedAnswer(200, b"OK", [_ALLOW, (b"date", date)], b"")
