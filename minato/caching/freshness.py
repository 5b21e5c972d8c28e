"""Freshness lifetime and age of a response (RFC 9111, 4.2); every time is an argument."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from minato.caching.dates import parse_http_date
from minato.caching.directives import ResponseDirectives, has_pragma_no_cache, parse_delta_seconds
from minato.protocol.message import Fields, field_values, first_value

HEURISTIC_STATUSES = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""RFC 9110, 15.1: heuristically cacheable by default."""

_CONFIGURABLE_STATUSES = HEURISTIC_STATUSES - {405, 414, 501}
"""Those that get the configured lifetime: the others are about one request and how it was made, not the resource."""

_HEURISTIC_FRACTION = 0.1
_MAX_HEURISTIC_S = 86_400.0


class LifetimeSource(enum.Enum):
    """Where a freshness lifetime comes from, strongest first."""

    S_MAXAGE = "s-maxage"
    MAX_AGE = "max-age"
    EXPIRES = "expires"
    STATUS = "negative-ttl"
    CONFIGURED = "ttl"
    HEURISTIC = "heuristic"
    NONE = "none"

    @property
    def is_explicit(self) -> bool:
        """Whether the origin server itself stated it (RFC 9111, 4.2.1)."""
        return self in _EXPLICIT


_EXPLICIT = frozenset({LifetimeSource.S_MAXAGE, LifetimeSource.MAX_AGE, LifetimeSource.EXPIRES})


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a response is fresh, counted by its age, and on whose word."""

    lifetime_s: float
    source: LifetimeSource


def calculate_lifetime(
    status: int,
    fields: Fields,
    directives: ResponseDirectives,
    *,
    date_s: int,
    response_time_s: float,
    ttl_s: float,
    negative_ttl_s: float | None = None,
) -> Freshness:
    """Return the freshness lifetime for a shared cache (RFC 9111, 4.2.1 and 4.2.2).

    Args:
        status: of the response.
        fields: of the response.
        directives: its Cache-Control, or the targeted field that stands in for it.
        date_s: its date value, see ``read_date``.
        response_time_s: wall clock when it arrived.
        ttl_s: the configured lifetime of responses that bring none and are about the resource; 0 leaves those to the
            heuristic.
        negative_ttl_s: the same for this very status, cacheable by default or not; None where there is none.
    """
    if directives.s_maxage_s is not None:
        return Freshness(directives.s_maxage_s, LifetimeSource.S_MAXAGE)
    if directives.max_age_s is not None:
        return Freshness(directives.max_age_s, LifetimeSource.MAX_AGE)
    expires = field_values(fields, b"expires")
    if expires and not directives.is_targeted:
        return Freshness(_expires_lifetime_s(expires, date_s, response_time_s), LifetimeSource.EXPIRES)
    by_default = negative_ttl_s is not None or status in HEURISTIC_STATUSES
    # RFC 9111, 5.4 gives Pragma no meaning in responses, but an origin server that writes it does not want a guess.
    if not (by_default or directives.public) or has_pragma_no_cache(fields):
        return Freshness(0.0, LifetimeSource.NONE)
    if negative_ttl_s is not None:
        return Freshness(negative_ttl_s, LifetimeSource.STATUS)
    if status in _CONFIGURABLE_STATUSES and ttl_s > 0:
        return Freshness(ttl_s, LifetimeSource.CONFIGURED)
    return _guess_lifetime(fields, date_s, response_time_s)


def read_date(fields: Fields, response_time_s: float) -> int | None:
    """Return the date value of a response (RFC 9111, 4.2.3), or None where it brings no valid Date."""
    value = first_value(fields, b"date")
    return None if value is None else parse_http_date(value, response_time_s)


def calculate_initial_age(fields: Fields, *, date_s: int, request_time_s: float, response_time_s: float) -> float:
    """Return the corrected initial age in seconds (RFC 9111, 4.2.3).

    The apparent age is taken between whole seconds, since Date has no finer ones: a response of this very second is
    not up to a second old.
    """
    apparent_age_s = max(0, int(response_time_s) - date_s)
    response_delay_s = max(0.0, response_time_s - request_time_s)
    return max(float(apparent_age_s), _age_value_s(fields) + response_delay_s)


def calculate_current_age(initial_age_s: float, response_time_s: float, now_s: float) -> float:
    """Return the age at ``now_s``; a clock that was set back makes nothing younger than when it arrived."""
    return initial_age_s + max(0.0, now_s - response_time_s)


def _expires_lifetime_s(values: list[bytes], date_s: int, response_time_s: float) -> float:
    """Several Expires: the first counts (4.2.1). RFC 9111, 5.3: an invalid one, "0" among them, is a time in the past.

    One before Date makes it negative: so much staler it is when somebody would take it stale.
    """
    moment = parse_http_date(values[0], response_time_s)
    return 0.0 if moment is None else float(moment - date_s)


def _guess_lifetime(fields: Fields, date_s: int, response_time_s: float) -> Freshness:
    value = first_value(fields, b"last-modified")
    modified_s = None if value is None else parse_http_date(value, response_time_s)
    if modified_s is None or modified_s >= date_s:
        return Freshness(0.0, LifetimeSource.NONE)
    # RFC 9111, 4.2.2: a typical setting of this fraction might be 10 % of the interval since it was last modified.
    return Freshness(min((date_s - modified_s) * _HEURISTIC_FRACTION, _MAX_HEURISTIC_S), LifetimeSource.HEURISTIC)


def _age_value_s(fields: Fields) -> int:
    """RFC 9111, 5.1: of a list-based Age the first member SHOULD be used; an invalid Age SHOULD be ignored."""
    value = first_value(fields, b"age")
    if value is None:
        return 0
    return parse_delta_seconds(value.split(b",", 1)[0].strip(b" \t")) or 0
