"""Thresholds of health: the first result decides, then rise and fall in a row."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.decide.health import Health, ProbeResult, Transition, UpstreamHealth, judge_status

OK = ProbeResult(True)
REFUSED = ProbeResult(False, "connection refused")


def _states(health: UpstreamHealth, results: list[ProbeResult]) -> list[Health]:
    states = []
    for result in results:
        health.feed(result)
        states.append(health.state)
    return states


def test_an_upstream_begins_unknown() -> None:
    assert UpstreamHealth(rise=1, fall=1).state is Health.UNKNOWN


def test_the_first_result_decides_whatever_the_thresholds() -> None:
    assert UpstreamHealth(rise=5, fall=5).feed(OK) == Transition(Health.UNKNOWN, Health.UP, "")
    assert UpstreamHealth(rise=5, fall=5).feed(REFUSED) == Transition(Health.UNKNOWN, Health.DOWN, "connection refused")


def test_it_takes_fall_failures_in_a_row_to_go_down() -> None:
    health = UpstreamHealth(rise=1, fall=3)
    up, down = Health.UP, Health.DOWN
    results = [OK, REFUSED, REFUSED, OK, REFUSED, REFUSED, REFUSED]
    assert _states(health, results) == [up, up, up, up, up, up, down]


def test_it_takes_rise_successes_in_a_row_to_come_up() -> None:
    health = UpstreamHealth(rise=3, fall=1)
    up, down = Health.UP, Health.DOWN
    results = [REFUSED, OK, OK, REFUSED, OK, OK, OK]
    assert _states(health, results) == [down, down, down, down, down, down, up]


def test_the_transition_carries_the_last_reason_and_comes_once() -> None:
    health = UpstreamHealth(rise=1, fall=2)
    health.feed(OK)
    assert health.feed(ProbeResult(False, "first")) is None
    assert health.feed(ProbeResult(False, "second")) == Transition(Health.UP, Health.DOWN, "second")
    assert health.feed(ProbeResult(False, "third")) is None
    assert health.feed(OK) == Transition(Health.DOWN, Health.UP, "")


def test_new_thresholds_keep_state_and_run() -> None:
    health = UpstreamHealth(rise=1, fall=5)
    health.feed(OK)
    health.feed(REFUSED)
    health.set_thresholds(rise=1, fall=2)
    assert health.state is Health.UP
    assert health.feed(REFUSED) is not None


def test_what_one_process_knew_another_goes_on_from() -> None:
    old, new = UpstreamHealth(rise=1, fall=2), UpstreamHealth(rise=1, fall=2)
    old.feed(OK)
    old.feed(REFUSED)
    new.restore(json.loads(json.dumps(old.snapshot())))
    assert new.state is Health.UP
    assert new.feed(REFUSED) is not None  # the second in a row


@pytest.mark.parametrize(("rise", "fall"), [(0, 1), (1, 0), (-1, 1)])
def test_thresholds_below_one_are_refused(rise: int, fall: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        UpstreamHealth(rise=rise, fall=fall)


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=60))
def test_the_state_only_changes_after_enough_results_in_a_row(rise: int, fall: int, outcomes: list[bool]) -> None:
    """Against a slow but plain model: look back over the results since the last change."""
    health = UpstreamHealth(rise=rise, fall=fall)
    expected: bool | None = None
    since_change: list[bool] = []
    for ok in outcomes:
        transition = health.feed(ProbeResult(ok))
        since_change.append(ok)
        needed = 1 if expected is None else fall if expected else rise
        changes = ok is not expected and len(since_change) >= needed and set(since_change[-needed:]) == {ok}
        if changes:
            expected, since_change = ok, []
        assert (transition is not None) is changes
        assert (health.state is Health.UP) is expected


@pytest.mark.parametrize(
    ("status", "expect", "ok"),
    [
        (200, ((200, 200),), True),
        (201, ((200, 200),), False),
        (204, ((200, 200), (204, 204)), True),
        (200, ((200, 399),), True),
        (399, ((200, 399),), True),
        (400, ((200, 399),), False),
        (199, ((200, 399),), False),
    ],
)
def test_a_status_is_judged_by_inclusive_ranges(status: int, expect: tuple[tuple[int, int], ...], ok: bool) -> None:
    assert judge_status(status, expect).ok is ok


def test_an_unexpected_status_says_what_was_expected() -> None:
    assert judge_status(500, ((200, 200), (204, 299))).reason == "status 500, expected 200,204-299"
