"""Counts of failures: growth, never less than nothing; and the share of them within a window that slides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minato.decide.outliers import BUCKETS, ErrorRate, Outcomes

WINDOW_S = 10.0
STEP_S = WINDOW_S / BUCKETS


def test_counts_that_fell_are_no_growth() -> None:
    assert Outcomes(5, 6, 7, 8).since(Outcomes(9, 2, 9, 1)) == Outcomes(0, 4, 0, 7)


def test_counts_of_two_places_add_up() -> None:
    assert Outcomes(1, 2, 3, 4) + Outcomes(10, 20, 30, 40) == Outcomes(11, 22, 33, 44)


def test_a_rate_needs_so_many_requests() -> None:
    rate = ErrorRate(WINDOW_S)
    rate.add(9, 0, 0.0)
    assert not rate.is_above(0.5, 10)
    rate.add(0, 1, 0.1)
    assert rate.is_above(0.5, 10)


def test_a_rate_is_above_from_the_share_on() -> None:
    rate = ErrorRate(WINDOW_S)
    rate.add(4, 6, 0.0)
    assert rate.is_above(0.4, 1) and not rate.is_above(0.41, 1)
    assert rate.describe() == "4 of 10 requests failed"


def test_no_failure_is_above_no_rate() -> None:
    rate = ErrorRate(WINDOW_S)
    rate.add(0, 100, 0.0)
    assert not rate.is_above(0.001, 1)


def test_what_is_older_than_the_window_counts_no_more() -> None:
    rate = ErrorRate(WINDOW_S)
    rate.add(10, 0, 0.0)
    rate.add(0, 10, WINDOW_S - STEP_S)
    assert rate.is_above(0.5, 20)
    rate.add(0, 0, WINDOW_S)
    assert not rate.is_above(0.01, 1)
    assert rate.describe() == "0 of 10 requests failed"


def test_cleared_it_begins_anew() -> None:
    rate = ErrorRate(WINDOW_S)
    rate.add(10, 0, 0.0)
    rate.clear()
    assert not rate.is_above(0.5, 1)
    rate.add(1, 0, 0.1)
    assert rate.describe() == "1 of 1 requests failed"


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_the_window_holds_all_that_is_young_and_nothing_that_is_old(steps: list[tuple[float, int, int]]) -> None:
    rate = ErrorRate(WINDOW_S)
    now_s = 0.0
    told: list[tuple[float, int]] = []
    for gap_s, failed, answered in steps:
        now_s += gap_s
        rate.add(failed, answered, now_s)
        told.append((now_s, failed + answered))
        young = sum(count for when_s, count in told if now_s - when_s < WINDOW_S - STEP_S - 1e-6)
        most = sum(count for when_s, count in told if now_s - when_s <= WINDOW_S + 1e-6)
        counted = int(rate.describe().split()[2])
        assert young <= counted <= most
        assert len(rate._buckets) <= BUCKETS + 1
