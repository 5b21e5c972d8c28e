"""HTTP dates: what is read, what is refused, and that the two directions agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching.dates import format_http_date, parse_http_date

EXAMPLE_S = 784_111_777
NOW_S = 1_700_000_000.0  # November 2023


@pytest.mark.parametrize(
    "value",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"sun, 06 nov 1994 08:49:37 gmt",
    ],
)
def test_the_three_formats_of_rfc_9110_are_read_in_any_case(value: bytes) -> None:
    assert parse_http_date(value, NOW_S) == EXAMPLE_S


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"-1",
        b"784111777",
        b"Sun, 06 Nov 1994",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 30 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 0٦ Nov 1994 08:49:37 GMT".encode(),
    ],
)
def test_anything_else_is_no_date(value: bytes) -> None:
    assert parse_http_date(value, NOW_S) is None


def test_a_two_digit_year_is_at_most_50_years_ahead() -> None:
    assert parse_http_date(b"Friday, 01-Jan-73 00:00:00 GMT", NOW_S) == 3_250_454_400  # 2073
    assert parse_http_date(b"Friday, 01-Jan-74 00:00:00 GMT", NOW_S) == 126_230_400  # 1974


def test_a_leap_second_is_read() -> None:
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW_S) == 1_483_228_800


@given(st.integers(min_value=0, max_value=253_402_300_799))
def test_a_date_that_was_written_reads_the_same(seconds: int) -> None:
    assert parse_http_date(format_http_date(seconds), NOW_S) == seconds


@given(st.binary(max_size=40))
def test_no_bytes_raise(value: bytes) -> None:
    parse_http_date(value, NOW_S)
