"""HTTP dates (RFC 9110, 5.6.7): the three formats are read, the preferred one is written; no clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_DAY_NAME = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY_NAME = rb"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH = rb"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_TIME = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_IMF_FIXDATE = re.compile(_DAY_NAME + rb", (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" gmt")
_RFC850_DATE = re.compile(_LONG_DAY_NAME + rb", (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + rb" gmt")
_ASCTIME_DATE = re.compile(_DAY_NAME + rb" " + _MONTH + rb" (?P<day>\d\d| \d) " + _TIME + rb" (?P<year>\d{4})")

_LEAP_SECOND = 60
_PIVOT_YEARS = 50


def parse_http_date(value: bytes, now_s: float) -> int | None:
    """Return the second since the epoch that an HTTP-date names, or None where it is none.

    RFC 9111, 4.2: a cache SHOULD match dates case-insensitively, and SHOULD take another zone than GMT for invalid.

    Args:
        value: the field's value.
        now_s: the wall clock; it decides the century of a two-digit year.
    """
    lower = value.lower()
    match = _IMF_FIXDATE.fullmatch(lower) or _ASCTIME_DATE.fullmatch(lower)
    if match:
        return _to_seconds(match, int(match["year"]))
    match = _RFC850_DATE.fullmatch(lower)
    if match:
        return _to_seconds(match, _full_year(int(match["year"]), now_s))
    return None


def format_http_date(seconds: float) -> bytes:
    """Return that second since the epoch as an IMF-fixdate, such as ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    when = datetime.fromtimestamp(int(seconds), UTC)
    day_name, month_name = _DAYS[when.weekday()], _MONTHS[when.month - 1]
    clock = (when.hour, when.minute, when.second)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (day_name, when.day, month_name, when.year, *clock)


def _to_seconds(match: re.Match[bytes], year: int) -> int | None:
    second = int(match["second"])
    if second > _LEAP_SECOND:
        return None
    month, day, hour, minute = _MONTH_NUMBERS[match["month"]], int(match["day"]), int(match["hour"]), match["minute"]
    try:
        whole_minute = datetime(year, month, day, hour, int(minute), tzinfo=UTC)
    except ValueError:  # 30 February, hour 24, year 0
        return None
    return int(whole_minute.timestamp()) + second


def _full_year(two_digits: int, now_s: float) -> int:
    """RFC 9110, 5.6.7: a year that appears to be more than 50 years in the future is the last one in the past."""
    this_year = datetime.fromtimestamp(int(now_s), UTC).year
    year = this_year - this_year % 100 + two_digits
    return year - 100 if year > this_year + _PIVOT_YEARS else year
