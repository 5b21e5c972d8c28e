"""How slow a peer may be: pauses are free within the credit, drips are not, and only waiting counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minato.decide.pace import MIN_CREDIT_S, Pace


def test_a_peer_that_sends_nothing_has_its_whole_credit_and_no_more() -> None:
    pace = Pace(60.0, 240)
    assert not pace.wait(100.0, 0)
    assert pace.left_s == 60.0
    assert not pace.wait(150.0, 0)
    assert pace.left_s == 10.0


def test_bytes_bring_back_seconds_at_the_rate() -> None:
    pace = Pace(60.0, 240)
    pace.wait(0.0, 0)
    assert pace.wait(40.0, 2400)
    assert pace.left_s == 30.0


def test_what_came_early_buys_no_more_than_the_credit() -> None:
    pace = Pace(60.0, 240)
    pace.wait(0.0, 0)
    pace.wait(1.0, 1_000_000_000)
    pace.wait(51.0, 1_000_000_001)
    assert pace.left_s < 11.0


def test_a_drip_is_found_however_steady() -> None:
    pace, now_s = Pace(60.0, 240), 0.0
    while pace.left_s > 0:
        pace.wait(now_s, int(now_s))  # a byte a second
        now_s += 1.0
    assert 60.0 <= now_s < 63.0


def test_who_is_just_fast_enough_goes_on_for_ever() -> None:
    pace = Pace(60.0, 240)
    for turn in range(1000):
        pace.wait(turn * 50.0, turn * 12_000)
        assert pace.left_s > 9.0


def test_time_in_which_nobody_waits_costs_nothing() -> None:
    pace = Pace(60.0, 240)
    pace.wait(0.0, 0)
    pace.rest(10.0)
    pace.rest(500.0)
    pace.wait(1000.0, 0)
    assert pace.left_s == 50.0


def test_short_pauses_leave_room_for_a_slow_start() -> None:
    assert Pace(0.5, 240).left_s == MIN_CREDIT_S


def test_without_a_rate_any_byte_fills_the_credit() -> None:
    pace = Pace(60.0, 0)
    pace.wait(0.0, 0)
    pace.wait(59.0, 1)
    assert pace.left_s == 60.0


def test_bytes_of_before_do_not_count() -> None:
    pace = Pace(60.0, 240, total_bytes=1_000_000)
    pace.wait(0.0, 1_000_000)
    assert not pace.wait(30.0, 1_000_000)
    assert pace.left_s == 30.0


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.integers(0, 100_000)), max_size=50))
def test_nobody_at_or_above_the_rate_ever_runs_out(steps: list[tuple[float, int]]) -> None:
    pace, now_s, total = Pace(60.0, 240), 0.0, 0
    pace.wait(now_s, total)
    for seconds, surplus in steps:
        now_s += seconds
        total += int(seconds * 240) + 1 + surplus
        pace.wait(now_s, total)
        assert 9.9 <= pace.left_s <= 60.0
