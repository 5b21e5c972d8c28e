"""Parsers of single values: a scalar in, a checked Python value out, or BadValue with a message that helps."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import TypeVar

from minato.config.nodes import Scalar, describe
from minato.config.problems import BadValue, did_you_mean, shown

MAX_TEXT_CHARS = 4_096
"""Longest text of any kind: PATH_MAX, and more than any name or URL needs."""

YEAR_S = 31_536_000

_DIGITS = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_WHOLE = re.compile(rf"[-+]?{_DIGITS}", re.ASCII)
_NUMBER = re.compile(rf"[-+]?(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_MAX_NUMBER_CHARS = 30  # int() refuses some thousand digits with a ValueError of its own; no bound needs more than 16
_STATUS_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)

_STATUS_OR_CLASS = re.compile(r"[45](?:[0-9]{2}|xx)", re.ASCII)
# RFC 6265, 4.1.1 wants a token, browsers send what they were given: all but what separates cookies.
_COOKIE_NAMES = re.compile(r'[^\s;,="*]*\*?', re.ASCII)
_PARAMETER_NAMES = re.compile(r"[^\s&=#*]*\*?", re.ASCII)
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

_ASCII_DIGITS = frozenset("0123456789")

_PROXY_FIELDS = frozenset({"connection", "forwarded", "via", "x-real-ip", "x_real_ip"})

NOT_NEGATIVE = frozenset(
    # RFC 6585, 3 to 6: responses with 428, 429, 431 or 511 MUST NOT be stored by a cache. A stored 400 or 413 would
    # let one malformed request answer for everybody; a stored 401 would be the answer to those with credentials, too.
    {400, 401, 407, 408, 411, 412, 413, 415, 416, 417, 421, 425, 426, 428, 429, 431, 505, 511}
)
"""Statuses of errors that tell about one request or one connection, not about the resource."""

E = TypeVar("E", bound=enum.Enum)


def boolean(scalar: Scalar) -> bool:
    """Return true or false (YAML's yes, no, on and off mean the same)."""
    value = scalar.boolean
    if value is None:
        raise BadValue(f"expected true or false, got {describe(scalar)}")
    return value


def whole_number(low: int, high: int) -> Callable[[Scalar], int]:
    """Return a parser of decimal integers from low to high, both included; ``1_000`` is fine, ``010`` is not."""

    def parse(scalar: Scalar) -> int:
        if not scalar.is_plain or not _WHOLE.fullmatch(scalar.text):
            raise BadValue(f"expected a whole number, got {describe(scalar)}{_number_hint(scalar)}")
        return int(_within(scalar, low, high, ""))

    return parse


def number(low: float, high: float) -> Callable[[Scalar], float]:
    """Return a parser of numbers, whole or not, from low to high, both included."""

    def parse(scalar: Scalar) -> float:
        if not scalar.is_plain or not _NUMBER.fullmatch(scalar.text):
            raise BadValue(f"expected a number, got {describe(scalar)}{_number_hint(scalar)}")
        return float(_within(scalar, low, high, ""))

    return parse


def seconds(low: float = 0.001, high: float = YEAR_S) -> Callable[[Scalar], float]:
    """Return a parser of durations, whole or not, in seconds from low to high."""

    def parse(scalar: Scalar) -> float:
        if not scalar.is_plain or not _NUMBER.fullmatch(scalar.text):
            raise BadValue(f"expected a number of seconds, got {describe(scalar)}{_number_hint(scalar)}")
        return float(_within(scalar, low, high, " seconds"))

    return parse


def load_factor(scalar: Scalar) -> float:
    """Return 0, for no bound, or how many times the average is the bound: from 1 to 1000."""
    if not scalar.is_plain or not _NUMBER.fullmatch(scalar.text):
        raise BadValue(f"expected a number, got {describe(scalar)}{_number_hint(scalar)}")
    number = float(_within(scalar, 0, 1_000, ""))
    if 0 < number < 1:
        raise BadValue(f"{scalar.text} is out of range: less than the average for all cannot be; 0 is no bound")
    return number


def share(scalar: Scalar) -> float:
    """Return a share of a whole: from 0 to 1."""
    if not scalar.is_plain or not _NUMBER.fullmatch(scalar.text):
        hint = " (0.5 is half of it)" if scalar.text.endswith("%") else _number_hint(scalar)
        raise BadValue(f"expected a share from 0 to 1, got {describe(scalar)}{hint}")
    return float(_within(scalar, 0, 1, ""))


def _within(scalar: Scalar, low: float, high: float, unit: str) -> int | float:
    """Return the number a scalar of numeric form holds, if it lies within the bounds."""
    text = scalar.text
    if len(text) > _MAX_NUMBER_CHARS:
        raise BadValue(f"is far too long for a number here (from {low:,} to {high:,}{unit})")
    number = int(text) if _WHOLE.fullmatch(text) else float(text)
    if not low <= number <= high:
        bound = f"at least {low:,}" if number < low else f"at most {high:,}"
        raise BadValue(f"{text} is out of range: {bound}{unit}")
    return number


def _number_hint(scalar: Scalar) -> str:
    """Return what to write instead, where that is plain to see."""
    if not scalar.is_plain:
        return " (leave out the quotes)" if _NUMBER.fullmatch(scalar.text[:_MAX_NUMBER_CHARS]) else ""
    return " (write plain decimal digits)" if scalar.text[:1] in _ASCII_DIGITS else ""


def member_of(kind: type[E]) -> Callable[[Scalar], E]:
    """Return a parser of the values of a string enum."""
    by_name: dict[str, E] = {member.value: member for member in kind}

    def parse(scalar: Scalar) -> E:
        if scalar.is_null or scalar.text not in by_name:
            *others, last = (f'"{name}"' for name in by_name)
            expected = f"{', '.join(others)} or {last}"
            hint = did_you_mean(scalar.text, by_name)
            raise BadValue(f"expected {expected}, got {describe(scalar)}" + (f"; {hint}" if "?" in hint else ""))
        return by_name[scalar.text]

    return parse


def printable_text(scalar: Scalar) -> str:
    """Return printable, non-empty text. Without quotes, ``123`` and ``off`` are text too where text is due."""
    value = scalar.text
    if scalar.is_null or not value:
        raise BadValue("must not be empty")
    if len(value) > MAX_TEXT_CHARS:
        raise BadValue(f"is longer than {MAX_TEXT_CHARS:,} characters")
    if not value.isprintable():
        raise BadValue(f"{shown(value)} holds a control or otherwise unprintable character")
    return value


def service_name(scalar: Scalar) -> str:
    """Return the name of a service, without white space around it."""
    name = printable_text(scalar).strip()
    if not name:
        raise BadValue("must not be empty")
    return name


def log_path(scalar: Scalar) -> str:
    """Return ``off``, ``-`` or a file's path."""
    value = printable_text(scalar)
    if scalar.boolean is not None and value != "off":
        raise BadValue(f'expected "off", "-" or the path of a file, got {value}')
    return value


def status_ranges(scalar: Scalar) -> tuple[tuple[int, int], ...]:
    """Return the inclusive ranges of ``200``, ``200-399`` or ``200,204,300-399``, in that order."""
    ranges = []
    for part in printable_text(scalar).split(","):
        match = _STATUS_RANGE.fullmatch(part.strip())
        if not match:
            raise BadValue(f'expected statuses such as "200", "200-399" or "200,204,300-399", got {describe(scalar)}')
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low:
            raise BadValue(f"the range {low}-{high} runs backwards")
        ranges.append((low, high))
    return tuple(ranges)


def statuses_or_off(scalar: Scalar) -> tuple[tuple[int, int], ...]:
    """Return the inclusive ranges of statuses, none for ``off``."""
    return () if scalar.text == "off" else status_ranges(scalar)


def failure_statuses(scalar: Scalar) -> tuple[tuple[int, int], ...]:
    """Return the inclusive ranges of responses that count as failures, none for ``off``."""
    ranges = statuses_or_off(scalar)
    if any(low < 400 for low, _ in ranges):
        raise BadValue(f"{shown(scalar.text)}: only an error, 400 and above, is a failure")
    return ranges


def negative_statuses(text: str) -> tuple[int, int]:
    """Return the first and the last of the statuses that ``404`` or ``5xx`` stands for, those of errors alone."""
    if not _STATUS_OR_CLASS.fullmatch(text):
        raise BadValue(
            f'expected the status of an error, such as 404, or "4xx" or "5xx" for a class, got {shown(text)}'
        )
    if text.endswith("xx"):
        first = int(text[0]) * 100
        return first, first + 99
    if int(text) in NOT_NEGATIVE:
        raise BadValue(f"{text} tells about one request, not about the resource; it is not stored for others")
    return int(text), int(text)


def cookie_names(scalar: Scalar) -> str:
    """Return the name of a cookie, or what names begin with and a ``*``."""
    return _names(scalar, _COOKIE_NAMES, "a cookie", "session")


def cookie_name(scalar: Scalar) -> str:
    """Return the name of one cookie (RFC 6265, 4.1.1: a token)."""
    name = printable_text(scalar)
    if not _FIELD_NAME.fullmatch(name):
        raise BadValue(f'{shown(name)} is not the name of a cookie, such as "session"')
    return name


def parameter_names(scalar: Scalar) -> str:
    """Return the name of a query parameter, or what names begin with and a ``*``."""
    return _names(scalar, _PARAMETER_NAMES, "a query parameter", "utm")


def _names(scalar: Scalar, pattern: re.Pattern[str], kind: str, example: str) -> str:
    name = printable_text(scalar)
    if "*" in name[:-1]:
        raise BadValue(f'{shown(name)}: a * stands only at the end, such as "{example}_*"')
    if not name.isascii() or not pattern.fullmatch(name):
        raise BadValue(f'{shown(name)} is not the name of {kind}, such as "{example}" or "{example}_*"')
    return name


def key_header(scalar: Scalar) -> str:
    """Return the lower-case name of a request field that may be part of a cache key."""
    lower = _header_name(scalar)
    if lower == "cookie":
        raise BadValue('every cookie is meant by key_cookies: ["*"]')
    if _is_proxy_field(lower):
        raise BadValue(f"{shown(scalar.text)} is not forwarded as clients send it, so it is no part of a key")
    return lower


def hashed_header(scalar: Scalar) -> str:
    """Return the lower-case name of a request field that an upstream may be chosen by."""
    lower = _header_name(scalar)
    if lower == "cookie":
        raise BadValue('one cookie is meant by by: "cookie" and the name of that')
    if _is_proxy_field(lower):
        raise BadValue(f'{shown(scalar.text)} is not believed as clients send it; by: "client" knows whom to believe')
    return lower


def _header_name(scalar: Scalar) -> str:
    name = printable_text(scalar)
    if not _FIELD_NAME.fullmatch(name):
        raise BadValue(f'{shown(name)} is not the name of a header, such as "X-Device"')
    return name.lower()


def _is_proxy_field(lower: str) -> bool:
    return lower in _PROXY_FIELDS or lower.replace("_", "-").startswith("x-forwarded-")


def network(scalar: Scalar) -> IPv4Network | IPv6Network:
    """Return the network of a CIDR or the one address."""
    value = printable_text(scalar)
    try:
        interface = ip_interface(value)
    except ValueError:
        interface = None
    if interface is None or "%" in value:
        raise BadValue(f'{shown(value)} is not an address or CIDR such as "10.0.0.0/8"')
    if interface.ip != interface.network.network_address:
        raise BadValue(f"{shown(value)} has bits set beyond its prefix; did you mean {shown(str(interface.network))}?")
    return interface.network
