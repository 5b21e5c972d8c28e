"""Trailer fields: which of them may go on, and what of them a head may announce (RFC 9110, 6.5 and 6.6.2).

RFC 9110, 6.5.1 forbids trailers "where it would be necessary for message framing, routing, authentication, request
modifiers, response controls, or content format". A recipient that merges trailers into the head would be led astray by
such a field, so it ends here. Whatever else there is goes on.
"""

from __future__ import annotations

from typing import Final

from minato.protocol.fields import (
    HOP_BY_HOP_NAMES,
    Fields,
    fold_name,
    is_forwarded_name,
    is_overriding_name,
    list_members,
)

_FORBIDDEN: Final = HOP_BY_HOP_NAMES | frozenset(
    [
        # routing
        b"host",
        b"max-forwards",
        b"via",
        b"cdn-loop",
        # request modifiers
        b"cache-control",
        b"expect",
        b"pragma",
        b"range",
        # authentication
        b"authorization",
        b"www-authenticate",
        b"authentication-info",
        b"cookie",
        b"set-cookie",
        # response controls
        b"age",
        b"cache-status",
        b"cache-tag",
        b"date",
        b"expires",
        b"location",
        b"retry-after",
        b"vary",
        b"warning",
    ]
)
_FORBIDDEN_BEGINNINGS: Final = (b"content-", b"if-", b"proxy-")
# RFC 9530, 2: "The Content-Digest HTTP field can be used in requests and responses", in a trailer section, too.
_ALLOWED: Final = frozenset([b"content-digest"])


def may_be_trailer(name: bytes) -> bool:
    """Tell whether a field of that lower-case name may go on in a trailer section.

    Some servers take an underscore for a hyphen, so ``content_type`` may not, either.
    """
    plain = fold_name(name)
    if plain in _ALLOWED:
        return True
    is_forbidden = (
        plain in _FORBIDDEN
        or plain.startswith(_FORBIDDEN_BEGINNINGS)
        or plain.endswith(b"-cache-control")
        or is_forwarded_name(plain)
        or is_overriding_name(plain)
    )
    return not is_forbidden


def passable_trailers(trailers: Fields, head: Fields) -> Fields:
    """Return the trailer fields that go on, given the fields of their message's head.

    RFC 9110, 7.6.1: an intermediary removes "any header or trailer field(s)" that Connection nominates.
    """
    nominated = list_members(head, b"connection") if trailers else ()
    return [field for field in trailers if may_be_trailer(field[0]) and field[0] not in nominated]


def announced_trailers(head: Fields) -> bytes:
    """Return the value of a head's Trailer field as far as it names what may go on, empty where it names nothing."""
    names = list_members(head, b"trailer")
    nominated = list_members(head, b"connection") if names else ()
    if b"trailer" in nominated:
        return b""
    return b", ".join([name for name in names if may_be_trailer(name) and name not in nominated])
