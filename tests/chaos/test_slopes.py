"""Flat is told from growing, through noise and through the teeth of a saw."""

from __future__ import annotations

import random

import pytest

from tests.chaos.slopes import fit_trend, grows_steadily, has_risen, is_unclear

CYCLE_S, SECONDS = 20.0, 300


def saw(growth_per_min: float, noise: float = 0.0) -> list[float]:
    """Samples a second apart: 1000, a tooth of 30 % on it, noise, and a growth relative to 1000."""
    rng = random.Random(5)
    return [
        1_000 * (1 + growth_per_min * t / 60) + 300 * (t % CYCLE_S) / CYCLE_S + rng.gauss(0, noise)
        for t in range(SECONDS + 1)
    ]


def fit(values: list[float], warm_up_s: float = 20.0):  # type: ignore[no-untyped-def]
    return fit_trend([float(t) for t in range(len(values))], values, CYCLE_S, warm_up_s)


@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_a_saw_that_does_not_grow_is_flat(noise: float) -> None:
    trend = fit(saw(0.0, noise))
    assert abs(trend.slope_percent_per_min) < 0.5
    assert not grows_steadily(trend)


@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_growth_shows_through_the_teeth(noise: float) -> None:
    trend = fit(saw(0.03, noise))
    assert grows_steadily(trend)
    assert trend.slope_percent_per_min == pytest.approx(2.5, abs=0.6)  # 3 % of 1000, relative to a mean of some 1200


def test_what_may_be_chance_is_said_to_be_unclear() -> None:
    assert is_unclear(fit(saw(0.0, 200.0)))
    assert not is_unclear(fit(saw(0.0, 5.0))) and not is_unclear(fit(saw(0.03, 5.0)))


def test_what_happens_in_the_warm_up_does_not_count() -> None:
    values = [1_000.0 + min(t, 160) for t in range(SECONDS + 1)]
    assert grows_steadily(fit(values, warm_up_s=20.0))
    assert not grows_steadily(fit(values, warm_up_s=160.0))


def test_one_thing_more_in_each_cycle_has_risen() -> None:
    leaking = [30.0 + t // CYCLE_S for t in range(SECONDS + 1)]
    steady = [30.0 + (t % 7 == 0) for t in range(SECONDS + 1)]
    assert has_risen(fit(leaking))
    assert not has_risen(fit(steady))


def test_one_thing_left_behind_once_has_risen() -> None:
    assert has_risen(fit([30.0 + (t > 150) for t in range(SECONDS + 1)]))


def test_a_column_of_zeros_is_flat() -> None:
    trend = fit([0.0] * (SECONDS + 1))
    assert not grows_steadily(trend) and not has_risen(trend)


def test_too_few_cycles_are_said_to_be_too_few() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit([1.0] * 70)
