"""Cache-Control and Pragma: the syntax of a directive list, and what its directives say (RFC 9111, 5.2 and 5.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from minato.protocol.message import Fields, field_values

MAX_DELTA_S = 2**31
"""RFC 9111, 1.2.2: a larger number is taken for this one."""

Directive = tuple[bytes, bytes | None]
"""``(lower-case name, argument)``; None: no argument; ``b""``: one that is empty or malformed."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEMBER = re.compile(
    rb"[ \t]*(?P<name>" + _TOKEN + rb")"
    rb"(?:=(?:(?P<token>" + _TOKEN + rb')|"(?P<quoted>(?:[^"\\]|\\.)*)"))?'
    rb"[ \t]*(?:,|\Z)",
    re.DOTALL,
)
_NAME = re.compile(rb"[ \t]*(" + _TOKEN + rb")")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_FIELD_NAME = re.compile(_TOKEN)
_NUMBERS = frozenset({b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"})
_QUALIFIED = frozenset({b"no-cache", b"private"})
# Without these a response would be another one, for other requests, or for longer: they are not withheld by themselves.
_INDISPENSABLE = frozenset(
    {
        b"vary",
        b"date",
        b"age",
        b"expires",
        b"cache-control",
        b"minato-cache-control",
        b"cdn-cache-control",
        b"surrogate-control",
        b"pragma",
        b"etag",
        b"last-modified",
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"content-location",
        b"content-range",
        b"transfer-encoding",
        b"location",
    }
)
_MAX_DIGITS = len(str(MAX_DELTA_S))


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """What a request's Cache-Control asks for (RFC 9111, 5.2.1); seconds, None where it does not say.

    Attributes:
        max_stale_s: ``MAX_DELTA_S`` for a max-stale without argument.
        stale_if_error_s: how stale a response may be where the upstream fails (RFC 5861, 4).
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    min_fresh_s: int | None = None
    max_stale_s: int | None = None
    stale_if_error_s: int | None = None


@dataclass(frozen=True, slots=True)
class ResponseDirectives:
    """What a response says to a shared cache (RFC 9111, 5.2.2); seconds, None where it does not say.

    Attributes:
        no_cache: no-cache without field names.
        private: private without field names.
        withheld: the field names of no-cache and private; those fields are not stored (5.2.2.4, 5.2.2.7).
        stale_while_revalidate_s: how long it may be reused stale while it is being validated (RFC 5861, 3).
        stale_if_error_s: how long it may be reused stale where the upstream fails (RFC 5861, 4).
        is_targeted: whether this is a targeted field's word, so that Expires does not count (RFC 9213, 2.2).
    """

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    max_age_s: int | None = None
    s_maxage_s: int | None = None
    withheld: frozenset[bytes] = frozenset()
    stale_while_revalidate_s: int = 0
    stale_if_error_s: int = 0
    is_targeted: bool = False

    @property
    def forbids_stale(self) -> bool:
        """Whether a stale response must not be reused without validation (RFC 9111, 4.2.4)."""
        return self.must_revalidate or self.proxy_revalidate or self.no_cache or self.s_maxage_s is not None


NO_REQUEST_DIRECTIVES = RequestDirectives()
NO_RESPONSE_DIRECTIVES = ResponseDirectives()


def parse_directives(value: bytes) -> list[Directive]:
    """Return the directives of one Cache-Control line, in order.

    A malformed member keeps its name and gets the empty argument: a restriction stays one however it is written, a
    number becomes an invalid one. A comma inside a quoted string separates nothing; without its closing quote it does.
    """
    directives: list[Directive] = []
    position, end = 0, len(value)
    while position < end:
        match = _MEMBER.match(value, position)
        if match:
            directives.append((match["name"].lower(), _argument(match)))
            position = match.end()
            continue
        name = _NAME.match(value, position)
        if name:
            directives.append((name[1].lower(), b""))
        comma = value.find(b",", position)
        position = end if comma < 0 else comma + 1
    return directives


def parse_delta_seconds(argument: bytes | None) -> int | None:
    """Return a delta-seconds number, capped at ``MAX_DELTA_S``, or None where it is none (RFC 9111, 1.2.2)."""
    if argument is None or not argument.isdigit():
        return None
    digits = argument.lstrip(b"0")
    return MAX_DELTA_S if len(digits) > _MAX_DIGITS else min(int(digits or b"0"), MAX_DELTA_S)


def read_request_directives(fields: Fields) -> RequestDirectives:
    """Return what a request's Cache-Control, or its Pragma where there is no Cache-Control, asks for."""
    lines = field_values(fields, b"cache-control")
    if not lines:
        # RFC 9111, 5.4: without Cache-Control a cache MUST treat Pragma: no-cache as Cache-Control: no-cache.
        return RequestDirectives(no_cache=has_pragma_no_cache(fields))
    flags: set[bytes] = set()
    max_age_s = min_fresh_s = max_stale_s = stale_if_error_s = None
    for name, argument in _all_directives(lines):
        match name:
            case b"max-age":  # invalid: 0, nothing is young enough
                max_age_s = _lesser(max_age_s, parse_delta_seconds(argument) or 0)
            case b"min-fresh":  # invalid: nothing is fresh enough
                seconds = parse_delta_seconds(argument)
                min_fresh_s = max(min_fresh_s or 0, MAX_DELTA_S if seconds is None else seconds)
            case b"max-stale":
                seconds = MAX_DELTA_S if argument is None else parse_delta_seconds(argument) or 0
                max_stale_s = _lesser(max_stale_s, seconds)
            case b"stale-if-error":  # invalid: not at all
                stale_if_error_s = _lesser(stale_if_error_s, parse_delta_seconds(argument) or 0)
            case _:
                flags.add(name)
    return RequestDirectives(
        no_cache=b"no-cache" in flags,
        no_store=b"no-store" in flags,
        only_if_cached=b"only-if-cached" in flags,
        max_age_s=max_age_s,
        min_fresh_s=min_fresh_s,
        max_stale_s=max_stale_s,
        stale_if_error_s=stale_if_error_s,
    )


def combine_response_directives(directives: list[Directive], *, is_targeted: bool = False) -> ResponseDirectives:
    """Return what the directives of a response say together.

    RFC 9111, 4.2.1: of a directive with more than one value the first SHOULD be used; caches are encouraged to take a
    response with invalid freshness information for stale: an invalid number is 0.
    """
    if not (directives or is_targeted):
        return NO_RESPONSE_DIRECTIVES
    flags: set[bytes] = set()
    numbers: dict[bytes, int] = {}
    withheld: set[bytes] = set()
    for name, argument in directives:
        if name in _NUMBERS:
            numbers.setdefault(name, parse_delta_seconds(argument) or 0)
        elif name in _QUALIFIED and (names := _field_names(argument)):
            withheld |= names
        else:
            flags.add(name)
    return ResponseDirectives(
        no_store=b"no-store" in flags,
        no_cache=b"no-cache" in flags,
        private=b"private" in flags,
        public=b"public" in flags,
        must_revalidate=b"must-revalidate" in flags,
        proxy_revalidate=b"proxy-revalidate" in flags,
        must_understand=b"must-understand" in flags,
        max_age_s=numbers.get(b"max-age"),
        s_maxage_s=numbers.get(b"s-maxage"),
        withheld=frozenset(withheld),
        stale_while_revalidate_s=numbers.get(b"stale-while-revalidate", 0),
        stale_if_error_s=numbers.get(b"stale-if-error", 0),
        is_targeted=is_targeted,
    )


def has_pragma_no_cache(fields: Fields) -> bool:
    """Tell whether a Pragma line says no-cache (RFC 9111, 5.4)."""
    return any(name == b"no-cache" for name, _ in _all_directives(field_values(fields, b"pragma")))


def _all_directives(lines: list[bytes]) -> list[Directive]:
    return [directive for line in lines for directive in parse_directives(line)]


def _field_names(argument: bytes | None) -> set[bytes]:
    """Return the field names that no-cache or private is limited to, none where it is not, or not clearly, limited.

    Nor is it where it names a field that a response cannot be without. RFC 9111, 5.2.2.4 and 5.2.2.7: caches often
    handle the qualified form "as if an unqualified" one "was received".
    """
    names = {name.strip(b" \t").lower() for name in (argument or b"").split(b",")}
    names.discard(b"")
    is_clear = all(map(_FIELD_NAME.fullmatch, names)) and names.isdisjoint(_INDISPENSABLE)
    return names if is_clear else set()


def _argument(match: re.Match[bytes]) -> bytes | None:
    quoted: bytes | None = match["quoted"]
    if quoted is not None:
        return _QUOTED_PAIR.sub(rb"\1", quoted)
    token: bytes | None = match["token"]
    return token


def _lesser(known: int | None, other: int) -> int:
    return other if known is None else min(known, other)
