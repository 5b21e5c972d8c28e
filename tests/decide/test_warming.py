"""Slow start: from a tenth to all of it in a straight line, whatever the balancer; nobody else loses."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.decide.balance import Balancer, LeastConnections, RoundRobin
from minato.decide.warming import FIRST_SHARE, thin_out, warmth

SLOW_MS = 30_000.0


def test_it_begins_with_a_tenth_and_ends_with_all() -> None:
    assert warmth(1000, 1000, SLOW_MS) == pytest.approx(FIRST_SHARE)
    assert warmth(1000, 1000 + SLOW_MS / 2, SLOW_MS) == pytest.approx(0.55)
    assert warmth(1000, 1000 + SLOW_MS, SLOW_MS) == 1.0


def test_what_never_was_down_is_warm_from_the_beginning() -> None:
    assert warmth(0, 1.0, SLOW_MS) == 1.0


def test_a_moment_in_the_future_is_the_beginning() -> None:
    assert warmth(5000, 4000, SLOW_MS) == pytest.approx(FIRST_SHARE)


@given(st.integers(1, 10**12), st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_share_grows_and_stays_within_its_bounds(recovered_ms: int, one_ms: float, other_ms: float) -> None:
    early_ms, late_ms = sorted((one_ms, other_ms))
    early = warmth(recovered_ms, recovered_ms + early_ms, SLOW_MS)
    late = warmth(recovered_ms, recovered_ms + late_ms, SLOW_MS)
    assert FIRST_SHARE <= early <= late <= 1.0


@given(st.lists(st.floats(0.1, 1), min_size=1, max_size=6), st.integers())
def test_somebody_always_stands_and_only_candidates_do(shares: list[float], seed: int) -> None:
    candidates = list(range(len(shares)))
    standing = thin_out(candidates, shares.__getitem__, random.Random(seed).random)
    assert standing and set(standing) <= set(candidates)
    assert {position for position in candidates if shares[position] == 1.0} <= set(standing)


BALANCERS: dict[str, Callable[[list[int]], Balancer]] = {
    "round robin": RoundRobin,
    "least connections": LeastConnections,
}


@pytest.mark.parametrize("make", BALANCERS.values(), ids=BALANCERS.keys())
@pytest.mark.parametrize(("weights", "warm"), list(itertools.product(([1, 1, 1], [3, 1, 2]), (0.1, 0.5, 0.9))))
def test_it_gets_that_share_of_what_it_would_get(
    make: Callable[[list[int]], Balancer], weights: list[int], warm: float
) -> None:
    """Idle upstreams: with nothing in flight LeastConnections goes by weight alone, so give it equal ones."""
    if make is LeastConnections:
        weights = [1, 1, 1]
    rng, balancer, picks = random.Random(7), make(weights), 30_000
    shares = [warm, 1.0, 1.0]
    got = Counter(
        balancer.pick(thin_out([0, 1, 2], shares.__getitem__, rng.random), lambda position: 0, rng)
        for _ in range(picks)
    )
    assert sum(got.values()) == picks
    full = picks * weights[0] / sum(weights)
    assert got[0] == pytest.approx(warm * full, rel=0.08)
    rest = picks - got[0]
    assert got[1] == pytest.approx(rest * weights[1] / (weights[1] + weights[2]), rel=0.08)
