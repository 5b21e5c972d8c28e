"""What the cache sees of a request, and the traits of it that decide about storing and reuse."""

from __future__ import annotations

from dataclasses import dataclass

from minato.caching.directives import NO_REQUEST_DIRECTIVES, RequestDirectives, read_request_directives
from minato.caching.key import PrimaryKey
from minato.protocol.message import Fields

SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""RFC 9110, 9.2.1; every other method, known or not, may change what is stored."""


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """A request as the cache sees it.

    Attributes:
        method: as sent.
        scheme: ``b"http"`` or ``b"https"``, as it is told to the upstream (X-Forwarded-Proto).
        host: the authority the client asked for, lower case, with its port unless it is the scheme's own; behind a
            space what a trusted proxy says it was, where that is another.
        target: path and query as the client sent them, without the parameters that the service ignores.
        fields: end-to-end fields as the client sent them.
        has_body: whether it has a body, be it an empty one.
        service: index of the service it was routed to.
        extra: the extra part of its key, None where the service has none.
        is_bypassed: whether the service's rules, or its fields, let it pass the cache by.
        is_oddly_spelt: whether its authority is not spelt as ``host``: it may be answered from the cache, but what the
            upstream makes of that spelling is nobody else's.
    """

    method: bytes
    scheme: bytes
    host: bytes
    target: bytes
    fields: Fields
    has_body: bool
    service: int
    extra: bytes | None = None
    is_bypassed: bool = False
    is_oddly_spelt: bool = False

    @property
    def key(self) -> PrimaryKey:
        if self.extra is None:
            return (self.service, self.scheme, self.host, self.target)
        return (self.service, self.scheme, self.host, self.target, self.extra)


@dataclass(frozen=True, slots=True)
class RequestTraits:
    """What a request's fields mean to a cache.

    Attributes:
        directives: its Cache-Control or Pragma.
        has_authorization: whether it carries Authorization.
        is_for_origin: whether it has a condition that only the origin server may evaluate (RFC 9111, 4.3.2).
    """

    directives: RequestDirectives = NO_REQUEST_DIRECTIVES
    has_authorization: bool = False
    is_for_origin: bool = False


DECIDING_FIELDS = frozenset(
    {
        b"cache-control",
        b"pragma",
        b"authorization",
        b"range",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
    }
)
"""Request fields on which it may depend how a stored response answers, besides those that its Vary names."""

CONDITION_FIELDS = frozenset(
    {b"range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"}
)
"""Request fields to which the response may be less than the whole one."""

_CONTROL = frozenset({b"cache-control", b"pragma"})
_FOR_ORIGIN = frozenset({b"if-match", b"if-unmodified-since"})
_DECIDING = _CONTROL | _FOR_ORIGIN | {b"authorization"}
_PLAIN = RequestTraits()


def read_traits(fields: Fields) -> RequestTraits:
    """Return the traits of a request with those fields."""
    present = {name for name, _ in fields if name in _DECIDING}
    if not present:
        return _PLAIN
    directives = NO_REQUEST_DIRECTIVES if present.isdisjoint(_CONTROL) else read_request_directives(fields)
    return RequestTraits(directives, b"authorization" in present, not present.isdisjoint(_FOR_ORIGIN))
