"""Stale responses: who may be answered with one, for how long, and who must not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import Cache, Lookup, LookupReason, Outcome
from tests.caching.helpers import NOW_S, date_after, make_cache, make_head, make_request, must_store

TAG = 'ETag: "1"'
DAY_S = 86_400


def look_up(directives: str, at_s: float, *request: str) -> tuple[Cache, Lookup]:
    """Look up what was stored with max-age=10 and these directives; the time counts from its end."""
    cache = make_cache()
    must_store(cache, make_request(), make_head(f"Cache-Control: max-age=10{directives}", TAG))
    return cache, cache.lookup(make_request(*request), NOW_S + 10 + at_s)


def test_within_stale_while_revalidate_it_is_a_hit_that_wants_validation() -> None:
    for at_s, overdue in ((-1, False), (0, True), (29, True)):
        _, found = look_up(", stale-while-revalidate=30", at_s)
        assert (found.outcome, found.needs_background_validation) == (Outcome.HIT, overdue)
    _, found = look_up(", stale-while-revalidate=30", 30)
    assert (found.outcome, found.needs_background_validation) == (Outcome.STALE, False)


@pytest.mark.parametrize("word", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=10"])
def test_what_forbids_stale_reuse_forbids_it_while_revalidating_too(word: str) -> None:
    _, found = look_up(f", stale-while-revalidate=30, {word}", 5)
    assert found.outcome is Outcome.STALE


@pytest.mark.parametrize(
    "request_line",
    ["no-cache", "max-age=5", "max-age=100", "min-fresh=0", "max-age=0", "max-stale=4", "max-age=100, max-stale=4"],
)
def test_a_request_that_wants_it_fresh_gets_no_stale_one(request_line: str) -> None:
    _, found = look_up(", stale-while-revalidate=30", 5, f"Cache-Control: {request_line}")
    assert (found.outcome, found.reason) == (Outcome.STALE, LookupReason.REQUEST)
    assert found.fallback is None


@pytest.mark.parametrize("request_line", ["max-age=100, max-stale", "max-age=100, max-stale=5", "max-stale=5"])
def test_a_request_that_takes_it_so_stale_gets_it(request_line: str) -> None:
    _, found = look_up(", stale-while-revalidate=30", 5, f"Cache-Control: {request_line}")
    assert (found.outcome, found.needs_background_validation) == (Outcome.HIT, False)


def may_answer(directives: str, stale_s: float, status: int | None, *request: str) -> bool:
    cache, found = look_up(directives, stale_s, *request)
    if found.fallback is None:
        return False
    return cache.may_answer_failure(make_request(*request), found.fallback, NOW_S + 10 + stale_s, status)


def test_stale_if_error_of_the_response_counts_for_as_long_as_it_says() -> None:
    assert may_answer(", stale-if-error=60", 60, 503)
    assert not may_answer(", stale-if-error=60", 61, 503)
    assert not may_answer("", 1, 503)


def test_stale_if_error_of_the_request_counts_too() -> None:
    assert may_answer("", 60, 500, "Cache-Control: stale-if-error=60")
    assert not may_answer("", 61, 500, "Cache-Control: stale-if-error=60")


def test_without_any_upstream_a_day_is_the_limit() -> None:
    assert may_answer("", DAY_S, None)
    assert not may_answer("", DAY_S + 1, None)
    assert may_answer(f", stale-if-error={2 * DAY_S}", DAY_S + 1, None)


@pytest.mark.parametrize("status", [None, 503])
def test_no_failure_makes_a_client_take_what_is_staler_than_it_says(status: int | None) -> None:
    assert not may_answer(", stale-if-error=60", 5, status, "Cache-Control: max-stale=4")
    assert may_answer(", stale-if-error=60", 5, status, "Cache-Control: max-stale=4, stale-if-error=5")


@pytest.mark.parametrize("word", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=10"])
@pytest.mark.parametrize("status", [None, 503])
def test_what_forbids_stale_reuse_forbids_it_on_failures_too(word: str, status: int | None) -> None:
    assert not may_answer(f", stale-if-error=60, {word}", 5, status, "Cache-Control: stale-if-error=60")


def test_a_response_without_validator_is_a_fallback_as_well() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head("Cache-Control: max-age=10"))
    found = cache.lookup(make_request(), NOW_S + 11)
    assert (found.outcome, found.stored, found.fallback) == (Outcome.MISS, None, stored)


@given(
    st.sets(st.sampled_from(["must-revalidate", "proxy-revalidate", "s-maxage=10", "stale-if-error=9", "public"])),
    st.integers(0, 100_000),
    st.sampled_from([None, 500, 502, 503, 504]),
)
def test_never_against_the_responses_word(words: set[str], stale_s: int, status: int | None) -> None:
    forbidden = words & {"must-revalidate", "proxy-revalidate", "s-maxage=10"}
    allowed = may_answer("".join(f", {word}" for word in sorted(words)), stale_s, status)
    limit_s = 9 if "stale-if-error=9" in words else -1
    assert allowed == (not forbidden and stale_s <= max(limit_s, DAY_S if status is None else -1))


def test_a_response_that_expired_before_it_was_sent_is_that_much_staler() -> None:
    cache = make_cache()
    lines = (f"Expires: {date_after(-5).decode()}", "Cache-Control: stale-while-revalidate=3", TAG)
    must_store(cache, make_request(), make_head(*lines))
    assert cache.lookup(make_request(), NOW_S).outcome is Outcome.STALE
    assert cache.lookup(make_request("Cache-Control: max-stale=4"), NOW_S).outcome is Outcome.STALE
    assert cache.lookup(make_request("Cache-Control: max-stale=5"), NOW_S).outcome is Outcome.HIT
