"""The retry budget: never more than its share, never less than its minimum."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.decide.budget import SAVING_S, RetryBudget

# What happens: so many seconds pass, so many requests come, so many of them want a retry.
STEPS = st.lists(
    st.tuples(st.floats(0, 30, allow_nan=False), st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=30
)
SHARES = st.floats(0, 2)
MINIMA = st.floats(0, 20)


def play(budget: RetryBudget, steps: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Return after each step the second, the requests so far, and the retries that it was allowed."""
    now_s, requests = 0.0, 0
    played = []
    for pause_s, new, failures in steps:
        now_s += pause_s
        requests += new
        played.append((now_s, requests, sum(budget.spend(now_s, requests) for _ in range(failures))))
    return played


@given(SHARES, MINIMA, STEPS)
def test_retries_are_at_most_savings_and_share_and_minimum_in_any_window(
    share: float, min_per_s: float, steps: list[tuple[float, int, int]]
) -> None:
    played = play(RetryBudget(share, min_per_s, 0.0), steps)
    for first in range(len(played)):
        began_s, before, _ = played[first - 1] if first else (0.0, 0, 0)
        # All that can have been saved by then: what came in, and the savings it began with.
        burst = share * before + min_per_s * (began_s + SAVING_S)
        window = played[first:]
        totals = accumulate(retries for _, _, retries in window)
        for (now_s, requests, _), total in zip(window, totals, strict=True):
            assert total <= burst + share * (requests - before) + min_per_s * (now_s - began_s) + 1e-6


@given(st.floats(0.01, 1), st.integers(1, 2000), st.floats(0, 20))
def test_savings_of_steady_traffic_are_ten_seconds_of_it(share: float, per_s: int, min_per_s: float) -> None:
    budget = RetryBudget(share, min_per_s, 0.0)
    for second in range(1, 201):
        budget.refill(float(second), second * per_s)
    burst = sum(budget.spend(200.0, 200 * per_s) for _ in range(30_000))
    expected = SAVING_S * (share * per_s + min_per_s)
    assert expected * 0.9 - 1 <= burst <= expected * 1.1 + 1


@given(STEPS)
def test_every_retry_is_allowed_where_the_share_is_all_there_can_be(steps: list[tuple[float, int, int]]) -> None:
    """With as many retries for each request as it may have, and none saved or lost in between, nobody is refused."""
    budget, requests = RetryBudget(1.0, 0.0, 0.0), 0
    for _, new, _ in steps:
        requests += new
        assert all(budget.spend(0.0, requests) for _ in range(new))
        assert not budget.spend(0.0, requests)


def test_it_begins_with_savings_of_the_minimum() -> None:
    budget = RetryBudget(0.2, 10, 50.0, requests=1_000_000)
    assert sum(budget.spend(50.0, 1_000_000) for _ in range(500)) == 100


def test_nothing_is_allowed_without_share_and_minimum() -> None:
    budget = RetryBudget(0, 0, 0.0)
    assert not any(budget.spend(float(second), second * 100) for second in range(100))


@pytest.mark.parametrize("pause_s", [0.001, 0.1, 1.0])
def test_it_recovers_at_the_rate_of_its_income(pause_s: float) -> None:
    budget = RetryBudget(0.2, 10, 0.0)
    while budget.spend(0.0, 0):
        pass
    allowed, now_s = 0, 0.0
    for _ in range(round(20 / pause_s)):  # a storm: ten times as many failures as may be retried
        now_s += pause_s
        requests = int(now_s * 1000)
        while allowed < 10_000 and budget.spend(now_s, requests):
            allowed += 1
    # 200 of the requests and 10 of the seconds, less what fades before it makes a whole one.
    assert 20 * 210 * 0.9 <= allowed <= 20 * 210


def test_a_storm_gets_its_share_and_no_more_from_one_second_to_the_next() -> None:
    budget = RetryBudget(0.1, 0, 0.0)
    allowed = [sum(budget.spend(second, int(second) * 1000) for _ in range(1000)) for second in map(float, range(60))]
    assert all(80 <= one <= 100 for one in allowed[1:])


def test_savings_fade() -> None:
    budget = RetryBudget(1.0, 0, 0.0)
    budget.refill(1.0, 1000)
    budget.refill(101.0, 1000)  # ten time constants
    assert not budget.spend(101.0, 1000)


def test_requests_that_turn_out_to_be_none_are_not_paid_for_twice() -> None:
    budget = RetryBudget(1.0, 0, 0.0)
    for requests in (100, 40, 100, 40, 100):
        budget.refill(0.0, requests)
    assert sum(budget.spend(0.0, 100) for _ in range(500)) == 100


def test_a_clock_that_stands_still_or_jumps_does_no_harm() -> None:
    budget = RetryBudget(0.2, 10, 100.0)
    budget.refill(90.0, 0)
    assert sum(budget.spend(100.0, 0) for _ in range(500)) == 100
    budget.refill(1e9, 5)
    assert sum(budget.spend(1e9, 5) for _ in range(500)) in (99, 100)


def test_what_was_not_asked_is_given_back() -> None:
    budget = RetryBudget(0, 0.1, 0.0)
    assert budget.spend(0.0, 0)
    assert not budget.spend(0.0, 0)
    budget.give_back()
    assert budget.spend(0.0, 0)
