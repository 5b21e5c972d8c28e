"""Freshness lifetime and age, by the formulas of RFC 9111, 4.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching.dates import format_http_date
from minato.caching.freshness import (
    Freshness,
    LifetimeSource,
    calculate_current_age,
    calculate_initial_age,
    calculate_lifetime,
    read_date,
)
from minato.caching.targeted import read_control
from minato.protocol.message import Fields
from tests.caching.helpers import NOW_S, date_after, fields_of

S_MAXAGE, MAX_AGE, EXPIRES = LifetimeSource.S_MAXAGE, LifetimeSource.MAX_AGE, LifetimeSource.EXPIRES
CONFIGURED, HEURISTIC, NONE = LifetimeSource.CONFIGURED, LifetimeSource.HEURISTIC, LifetimeSource.NONE
IN_A_MINUTE = f"Expires: {date_after(60).decode()}"
AN_HOUR_AGO = f"Last-Modified: {date_after(-3600).decode()}"
A_YEAR_AGO = f"Last-Modified: {date_after(-365 * 86_400).decode()}"


def lifetime(fields: Fields, *, status: int = 200, ttl_s: float = 0.0) -> Freshness:
    return calculate_lifetime(
        status, fields, read_control(fields), date_s=int(NOW_S), response_time_s=NOW_S, ttl_s=ttl_s
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Cache-Control: s-maxage=5, max-age=10", IN_A_MINUTE], Freshness(5, S_MAXAGE)),
        (["Cache-Control: max-age=10", IN_A_MINUTE], Freshness(10, MAX_AGE)),
        (["Cache-Control: max-age=x", IN_A_MINUTE], Freshness(0, MAX_AGE)),
        (["Cache-Control: public", IN_A_MINUTE], Freshness(60, EXPIRES)),
        ([IN_A_MINUTE, "Expires: 0"], Freshness(60, EXPIRES)),
        (["Expires: 0"], Freshness(0, EXPIRES)),
        (["Expires: -1"], Freshness(0, EXPIRES)),
        ([f"Expires: {date_after(-60).decode()}"], Freshness(-60, EXPIRES)),
        ([IN_A_MINUTE, f"Expires: {date_after(20).decode()}"], Freshness(60, EXPIRES)),
        (["Expires: 0", IN_A_MINUTE], Freshness(0, EXPIRES)),
        ([AN_HOUR_AGO], Freshness(360, HEURISTIC)),
        ([A_YEAR_AGO], Freshness(86_400, HEURISTIC)),
        ([f"Last-Modified: {date_after(60).decode()}"], Freshness(0, NONE)),
        (["Last-Modified: yesterday"], Freshness(0, NONE)),
        ([AN_HOUR_AGO, "Pragma: no-cache"], Freshness(0, NONE)),
        ([], Freshness(0, NONE)),
    ],
)
def test_lifetime_comes_from_the_strongest_word(lines: list[str], expected: Freshness) -> None:
    assert lifetime(fields_of(*lines)) == expected


@pytest.mark.parametrize("status", [200, 203, 204, 206, 300, 301, 308, 404, 410])
def test_the_configured_ttl_is_for_statuses_that_tell_about_the_resource(status: int) -> None:
    assert lifetime([], status=status, ttl_s=300) == Freshness(300, CONFIGURED)


@pytest.mark.parametrize("status", [201, 302, 307, 400, 403, 405, 414, 500, 501, 502, 503])
def test_the_configured_ttl_is_for_no_other_status(status: int) -> None:
    assert lifetime([], status=status, ttl_s=300) == Freshness(0, NONE)


@pytest.mark.parametrize("status", [405, 414, 501])
def test_what_tells_about_one_request_still_gets_the_heuristic_lifetime(status: int) -> None:
    assert lifetime(fields_of(AN_HOUR_AGO), status=status, ttl_s=300) == Freshness(360, HEURISTIC)


def test_the_configured_ttl_yields_to_the_origins_word() -> None:
    assert lifetime(fields_of("Cache-Control: max-age=1"), ttl_s=300) == Freshness(1, MAX_AGE)
    assert lifetime(fields_of("Expires: 0"), ttl_s=300) == Freshness(0, EXPIRES)
    assert lifetime(fields_of("Pragma: no-cache"), ttl_s=300) == Freshness(0, NONE)


def test_public_lets_another_status_have_a_heuristic_lifetime() -> None:
    assert lifetime(fields_of("Cache-Control: public", AN_HOUR_AGO), status=302) == Freshness(360, HEURISTIC)
    assert lifetime(fields_of(AN_HOUR_AGO), status=302) == Freshness(0, NONE)


def initial_age(*lines: str, date_s: float = NOW_S, delay_s: float = 0.0) -> float:
    return calculate_initial_age(
        fields_of(*lines), date_s=int(date_s), request_time_s=NOW_S - delay_s, response_time_s=NOW_S
    )


def test_initial_age_is_the_larger_of_apparent_age_and_age_with_delay() -> None:
    assert initial_age() == 0
    assert initial_age(date_s=NOW_S - 30) == 30
    assert initial_age(date_s=NOW_S + 30) == 0
    assert initial_age("Age: 20", date_s=NOW_S - 30) == 30
    assert initial_age("Age: 40", date_s=NOW_S - 30) == 40
    assert initial_age("Age: 40", delay_s=2.5) == 42.5


@pytest.mark.parametrize(
    ("line", "age_s"),
    [("7, 9", 7), ("7 , 9", 7), ("abc", 0), ("-7", 0), ("7.0", 0), ("", 0), ("99999999999", 2**31)],
)
def test_of_an_age_list_the_first_member_counts_and_an_invalid_age_is_ignored(line: str, age_s: int) -> None:
    assert initial_age(f"Age: {line}") == age_s


def test_the_first_of_two_age_lines_counts() -> None:
    assert initial_age("Age: 3", "Age: 50") == 3


def test_a_response_of_this_second_has_no_apparent_age() -> None:
    age_s = calculate_initial_age([], date_s=int(NOW_S), request_time_s=NOW_S + 0.9, response_time_s=NOW_S + 0.9)
    assert age_s == 0


def test_a_missing_or_invalid_date_is_none() -> None:
    assert read_date([], NOW_S) is None
    assert read_date(fields_of("Date: today"), NOW_S) is None
    assert read_date([(b"date", format_http_date(NOW_S))], NOW_S) == NOW_S


@given(
    initial_age_s=st.floats(0, 1e9),
    arrived_s=st.floats(1, 4e9),
    clock=st.lists(st.floats(0, 4e9), min_size=2, max_size=8),
)
def test_age_never_goes_back(initial_age_s: float, arrived_s: float, clock: list[float]) -> None:
    ages = [calculate_current_age(initial_age_s, arrived_s, now_s) for now_s in sorted(clock)]
    assert ages == sorted(ages)
    assert all(age_s >= initial_age_s for age_s in ages)


@given(st.integers(0, 2**33), st.integers(-(10**9), 10**9), st.floats(0, 1000))
def test_initial_age_is_never_less_than_what_any_hop_says(age: int, skew_s: int, delay_s: float) -> None:
    date_s = int(NOW_S) + skew_s
    age_s = initial_age(f"Age: {age}", date_s=date_s, delay_s=delay_s)
    assert age_s >= max(min(age, 2**31), NOW_S - date_s, 0)
