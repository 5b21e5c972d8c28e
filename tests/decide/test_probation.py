"""The breaker for crash loops: when a new config is given up, and what is gone back to."""

from __future__ import annotations

import pytest

from minato.decide.probation import PROVEN_S, WATCH_S, YOUNG_S, Probation


def serve(*names: str, seconds: float = 60.0, workers: int = 1) -> tuple[Probation[str], float]:
    """Return a probation under which these generations served one after the other, the last since just now."""
    probation: Probation[str] = Probation()
    mono_s, old = 100.0, None
    for name in names:
        probation.begin(old, workers=workers, mono_s=mono_s)
        mono_s, old = mono_s + seconds, name
    return probation, mono_s - seconds


def crash(probation: Probation[str], times: int, mono_s: float, lived_s: float = 0.1) -> None:
    for _ in range(times):
        probation.note_crash(lived_s, mono_s)


def test_config_whose_workers_crash_again_and_again_is_lost_and_the_one_before_is_gone_back_to() -> None:
    probation, now_s = serve("a", "b")
    crash(probation, 2, now_s + 1.0)
    assert not probation.is_lost()
    crash(probation, 1, now_s + 1.1)
    assert probation.is_lost() and probation.reserve == "a"


@pytest.mark.parametrize(("workers", "most"), [(1, 3), (2, 5), (4, 9), (5, 10), (500, 10)])
def test_more_workers_may_crash_a_little_more_often(workers: int, most: int) -> None:
    probation, now_s = serve("a", "b", workers=workers)
    crash(probation, most - 1, now_s)
    assert not probation.is_lost()
    crash(probation, 1, now_s)
    assert probation.is_lost()


def test_first_config_has_nothing_to_go_back_to() -> None:
    probation, now_s = serve("a")
    crash(probation, 50, now_s)
    assert not probation.is_lost()


def test_crashes_long_after_the_switch_or_of_workers_that_served_long_are_not_held_against_the_config() -> None:
    probation, now_s = serve("a", "b")
    crash(probation, 50, now_s + WATCH_S + 0.1)
    crash(probation, 50, now_s + 10.0, lived_s=YOUNG_S)
    assert not probation.is_lost()


def test_what_was_gone_back_to_is_not_given_up_again() -> None:
    probation, now_s = serve("a", "b")
    crash(probation, 9, now_s)
    probation.begin("b", workers=1, mono_s=now_s + 1.0, is_return=True)
    crash(probation, 50, now_s + 1.1)
    assert not probation.is_lost() and probation.reserve is None


def test_storm_of_reloads_of_a_bad_config_does_not_forget_the_good_one() -> None:
    probation, now_s = serve("good", "bad 1")
    for number in range(2, 9):
        # Replaced before its workers had the time to crash, or after the first of them did.
        now_s += 0.25
        crash(probation, number % 2, now_s)
        probation.begin(f"bad {number - 1}", workers=1, mono_s=now_s)
    crash(probation, 3, now_s + 1.0)
    assert probation.is_lost() and probation.reserve == "good"


def test_config_that_served_for_a_while_is_the_one_to_go_back_to() -> None:
    probation, _ = serve("a", "b", "c", seconds=PROVEN_S)
    assert probation.reserve == "b"


def test_first_config_will_do_when_it_served_but_a_moment() -> None:
    probation, now_s = serve("a", "b", seconds=0.1)
    crash(probation, 3, now_s)
    assert probation.is_lost() and probation.reserve == "a"


def test_config_that_crashed_is_nothing_to_go_back_to() -> None:
    probation, now_s = serve("a", "b")
    crash(probation, 1, now_s + 1.0)
    probation.begin("b", workers=1, mono_s=now_s + 60.0)
    assert probation.reserve == "a"


def test_it_is_fit_a_second_after_the_last_crash() -> None:
    probation: Probation[str] = Probation()
    probation.begin(None, workers=1, mono_s=10.0)
    assert not probation.is_fit(10.9) and probation.is_fit(11.0)
    probation.note_crash(0.1, 11.0)
    assert not probation.is_fit(11.9) and probation.is_fit(12.0)
    assert not probation.crashes_too_often()
    for _ in range(2):
        probation.note_crash(0.1, 12.0)
    assert probation.crashes_too_often() and not probation.is_lost()  # there is nothing to go back to
