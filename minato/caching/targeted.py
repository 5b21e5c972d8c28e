"""Which field controls this cache: targeted ones before Cache-Control and Expires (RFC 9213)."""

from __future__ import annotations

import re

from minato.caching.directives import (
    Directive,
    ResponseDirectives,
    combine_response_directives,
    parse_directives,
)
from minato.caching.structured import NotStructured, parse_dictionary
from minato.protocol.message import Fields, field_values

TARGET_LIST = (b"minato-cache-control", b"cdn-cache-control")
"""RFC 9213, 2.2: the first of these with a valid, non-empty value is the one that counts."""

SURROGATE = b"surrogate-control"
"""The older field of the same purpose (Edge Architecture Specification), where there is none of the target list."""

_CONTROLS = frozenset({b"cache-control", SURROGATE, *TARGET_LIST})
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# "max-age=3600+600": fresh for an hour, and stale for ten minutes more; the second number is not used here.
_SURROGATE_STALE = re.compile(rb"^([ \t]*max-age=\d+)\+\d+", re.IGNORECASE)
_NUMBERS = frozenset({b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"})
_OWN_TARGET = b"minato"
OWN_CAPABILITY = _OWN_TARGET + b'="Surrogate/1.0"'
"""What minato tells upstreams in Surrogate-Capability: its name as a target, and that it reads Surrogate-Control."""


def read_control(fields: Fields) -> ResponseDirectives:
    """Return the directives of a response that this cache has to follow.

    RFC 9213, 2.2: a cache MUST use the first valid, non-empty field of its target list, and MUST ignore Cache-Control
    and Expires then (``is_targeted`` says so).
    """
    present = {name for name, _ in fields if name in _CONTROLS}
    for name in TARGET_LIST:
        if name in present:
            directives = _read_targeted(field_values(fields, name))
            if directives is not None:
                return combine_response_directives(directives, is_targeted=True)
    if SURROGATE in present:
        surrogate = _read_surrogate(field_values(fields, SURROGATE))
        if surrogate:
            return combine_response_directives(surrogate, is_targeted=True)
    lines = field_values(fields, b"cache-control") if b"cache-control" in present else []
    return combine_response_directives([directive for line in lines for directive in parse_directives(line)])


def _read_targeted(lines: list[bytes]) -> list[Directive] | None:
    """Return the directives of a targeted field, None where it is to be ignored: empty, or no dictionary (2.1).

    One whose members all say no (``no-store=?0``) is neither: it has no directives, and counts.
    """
    try:
        members = parse_dictionary(lines)
    except NotStructured:
        return None
    if not members:
        return None
    directives: list[Directive] = []
    for name, (value, _) in members.items():
        if value is False:
            continue
        if name in _NUMBERS:
            # SHOULD NOT consume values of another type: such a number is an invalid one, not an absent one.
            is_number = isinstance(value, int) and not isinstance(value, bool)
            directives.append((name, str(value).encode() if is_number else b""))
        else:
            directives.append((name, value if isinstance(value, bytes) else None))
    return directives


def _read_surrogate(lines: list[bytes]) -> list[Directive]:
    """Return the directives of Surrogate-Control that are for every surrogate, or for minato by name."""
    directives: list[Directive] = []
    for line in lines:
        for member in line.split(b","):
            said, semicolon, target = (part.strip(b" \t") for part in member.rpartition(b";"))
            if not semicolon or not _TOKEN.fullmatch(target):
                directives += parse_directives(_SURROGATE_STALE.sub(rb"\1", member))
            elif target == _OWN_TARGET:
                directives += parse_directives(_SURROGATE_STALE.sub(rb"\1", said))
    return directives
