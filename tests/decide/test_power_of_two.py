"""The better of two: never a bad candidate, shares by weight, and far more even than chance alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.decide.balance import PowerOfTwo

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=8)
RANDOMS = st.randoms(use_true_random=False)


def idle(position: int) -> int:
    return 0


@given(weights=WEIGHTS, rng=RANDOMS, data=st.data())
def test_it_picks_a_candidate_whatever_the_candidates(
    weights: list[int], rng: random.Random, data: st.DataObject
) -> None:
    balancer = PowerOfTwo(weights)
    candidates = data.draw(st.lists(st.sampled_from(range(len(weights))), min_size=1, unique=True))
    for _ in range(20):
        assert balancer.pick(candidates, lambda position: rng.randrange(9), rng) in candidates


class Extremes:
    """Chance that goes to extremes: nothing, or as near to one as a float gets."""

    def __init__(self, choices: list[bool]) -> None:
        self._choices = choices

    def random(self) -> float:
        return 1 - 2**-53 if self._choices.pop() else 0.0


@given(weights=WEIGHTS, first=st.booleans(), second=st.booleans())
def test_extreme_draws_are_candidates_too(weights: list[int], first: bool, second: bool) -> None:
    candidates = list(range(len(weights)))
    assert PowerOfTwo(weights).pick(candidates, idle, Extremes([first, second])) in candidates


@given(weights=WEIGHTS.filter(lambda weights: len(weights) > 1), rng=RANDOMS, worst=st.integers(0, 7))
def test_the_busiest_of_all_is_never_picked(weights: list[int], rng: random.Random, worst: int) -> None:
    """It loses against whoever the other one is, which is never itself."""
    worst %= len(weights)
    balancer = PowerOfTwo(weights)
    candidates = list(range(len(weights)))
    for _ in range(20):
        assert balancer.pick(candidates, lambda position: 1000 if position == worst else 1, rng) != worst


def test_both_candidates_are_asked_and_nobody_else() -> None:
    rng = random.Random(5)
    for _ in range(200):
        asked: list[int] = []

        def active(position: int, asked: list[int] = asked) -> int:
            asked.append(position)
            return 0

        PowerOfTwo([3, 1, 4, 1, 5]).pick(range(5), active, rng)
        assert len(asked) == len(set(asked)) == 2


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [3, 1], [5, 3, 2], [10, 1, 1]])
def test_idle_upstreams_get_their_share_by_weight(weights: list[int]) -> None:
    balancer, rng = PowerOfTwo(weights), random.Random(2026)
    got = Counter(balancer.pick(range(len(weights)), idle, rng) for _ in range(12_000))
    for position, weight in enumerate(weights):
        assert got[position] / 12_000 == pytest.approx(weight / sum(weights), abs=0.025)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [3, 1], [5, 3, 2], [10, 1, 1]])
def test_busy_upstreams_fill_up_by_weight(weights: list[int]) -> None:
    balancer, rng = PowerOfTwo(weights), random.Random(2026)
    active = [0] * len(weights)
    for _ in range(4_000):
        active[balancer.pick(range(len(weights)), active.__getitem__, rng)] += 1
    for position, weight in enumerate(weights):
        assert active[position] / 4_000 == pytest.approx(weight / sum(weights), abs=0.01)


def test_requests_that_come_and_go_keep_their_share_by_weight() -> None:
    """400 in flight at all times, each over at a random moment: what an upstream has, and what it gets, by weight."""
    weights = [4, 2, 1, 1]
    balancer, rng = PowerOfTwo(weights), random.Random(7)
    active, got = [0] * 4, Counter[int]()
    flight: list[int] = []
    for turn in range(8_000):
        if turn >= 400:
            at = rng.randrange(len(flight))
            flight[at], flight[-1] = flight[-1], flight[at]
            active[flight.pop()] -= 1
        flight.append(balancer.pick(range(4), active.__getitem__, rng))
        active[flight[-1]] += 1
        got[flight[-1]] += 1
    for position, weight in enumerate(weights):
        assert got[position] / 8_000 == pytest.approx(weight / 8, abs=0.03)
        assert active[position] / 400 == pytest.approx(weight / 8, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_the_fullest_is_far_less_full_than_by_chance_alone(seed: int) -> None:
    """1000 balls into 1000 bins: log log n / log 2 against log n / log log n (Azar et al., 1994)."""
    rng = random.Random(seed)
    balancer, everyone = PowerOfTwo([1] * 1000), range(1000)
    by_two, by_chance = [0] * 1000, [0] * 1000
    for _ in range(1000):
        by_two[balancer.pick(everyone, by_two.__getitem__, rng)] += 1
        by_chance[rng.randrange(1000)] += 1
    assert max(by_two) <= 4 < max(by_chance)


def test_workers_that_see_the_same_do_not_all_run_to_the_same() -> None:
    loads = [5, 3, 4, 3, 9, 2]
    picks = {PowerOfTwo([1] * 6).pick(range(6), loads.__getitem__, random.Random(seed)) for seed in range(50)}
    assert len(picks) > 2
