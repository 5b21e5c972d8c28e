"""Balancing: exact shares in smooth order for RoundRobin, the minimal load and fair ties for LeastConnections."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import BalancerKind, HostRule, ListenAddress, Service, Upstream
from minato.decide.balance import LeastConnections, RoundRobin, make_balancer

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def service_of(kind: BalancerKind, weights: list[int]) -> Service:
    upstreams = tuple(
        Upstream(f"http://127.0.0.1:{9000 + index}", "http", "127.0.0.1", 9000 + index, weight=weight)
        for index, weight in enumerate(weights)
    )
    return Service("s", ListenAddress("", 8080), kind, (HostRule("*", "/"),), upstreams)


def idle(position: int) -> int:
    return 0


def round_robin_picks(balancer: RoundRobin, candidates: list[int], count: int) -> list[int]:
    rng = random.Random(0)
    return [balancer.pick(candidates, idle, rng) for _ in range(count)]


def test_round_robin_takes_turns() -> None:
    assert round_robin_picks(RoundRobin([1, 1, 1]), [0, 1, 2], 6) == [0, 1, 2, 0, 1, 2]


def test_round_robin_spreads_a_heavy_upstream_smoothly() -> None:
    assert round_robin_picks(RoundRobin([5, 1, 1]), [0, 1, 2], 7) == [0, 0, 1, 0, 2, 0, 0]


@given(weights=WEIGHTS, rounds=st.integers(1, 3), offset=st.integers(0, 600))
def test_round_robin_gives_exact_shares_in_every_full_round(weights: list[int], rounds: int, offset: int) -> None:
    picks = round_robin_picks(RoundRobin(weights, offset), list(range(len(weights))), sum(weights) * rounds)
    assert Counter(picks) == {position: weight * rounds for position, weight in enumerate(weights)}


@given(weights=WEIGHTS, data=st.data())
def test_round_robin_picks_a_candidate_whatever_the_candidates(weights: list[int], data: st.DataObject) -> None:
    balancer = RoundRobin(weights)
    subsets = st.lists(st.sampled_from(range(len(weights))), min_size=1, unique=True)
    for candidates in data.draw(st.lists(subsets, max_size=30)):
        assert balancer.pick(candidates, idle, random.Random(0)) in candidates


@given(
    weights=WEIGHTS.filter(lambda weights: len(weights) > 1), before=st.integers(0, 50), while_down=st.integers(0, 200)
)
def test_round_robin_does_not_flood_an_upstream_that_comes_back(
    weights: list[int], before: int, while_down: int
) -> None:
    everyone = list(range(len(weights)))
    balancer = RoundRobin(weights)
    round_robin_picks(balancer, everyone, before)
    round_robin_picks(balancer, everyone[1:], while_down)
    total = sum(weights)
    share = Counter(round_robin_picks(balancer, everyone, total))
    # One round's worth is owed or due at most, however long it was away.
    assert all(abs(share[position] - weight) <= weight + 1 for position, weight in enumerate(weights))


@given(weights=WEIGHTS, rounds=st.integers(1, 60))
def test_round_robin_stays_even_among_candidates_that_change(weights: list[int], rounds: int) -> None:
    """Every second request finds one upstream tried and failed already: the others share its part by weight."""
    count = len(weights) + 2
    balancer = RoundRobin([1] * count)
    picks: Counter[int] = Counter()
    for turn in range(rounds * count * 2):
        tried = (turn // 2) % count
        candidates = [position for position in range(count) if turn % 2 == 0 or position != tried]
        picks[balancer.pick(candidates, idle, random.Random(0))] += 1
    assert max(picks.values()) - min(picks.values()) <= 3


def test_workers_do_not_march_in_step() -> None:
    service = service_of(BalancerKind.ROUND_ROBIN, [1, 1, 1, 1])
    first = [make_balancer(service, slot).pick([0, 1, 2, 3], idle, random.Random(0)) for slot in range(4)]
    assert sorted(first) == [0, 1, 2, 3]


LOADS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=8)


@given(LOADS, st.randoms(use_true_random=False))
def test_least_connections_picks_a_minimal_load(loads: list[tuple[int, int]], rng: random.Random) -> None:
    balancer = LeastConnections([weight for _, weight in loads])
    picked = balancer.pick(list(range(len(loads))), lambda position: loads[position][0], rng)
    after = [Fraction(active + 1, weight) for active, weight in loads]
    assert after[picked] == min(after)


@given(LOADS.filter(lambda loads: len(loads) > 1), st.randoms(use_true_random=False))
def test_least_connections_never_picks_what_is_no_candidate(loads: list[tuple[int, int]], rng: random.Random) -> None:
    balancer = LeastConnections([weight for _, weight in loads])
    candidates = list(range(1, len(loads)))
    assert balancer.pick(candidates, lambda position: loads[position][0], rng) in candidates


@pytest.mark.parametrize(
    ("weights", "active"), [([1, 1, 1], [4, 4, 4]), ([1, 2, 4], [0, 1, 3]), ([3, 3, 3], [0, 0, 0])]
)
def test_least_connections_draws_ties_by_lot(weights: list[int], active: list[int]) -> None:
    balancer = LeastConnections(weights)
    rng = random.Random(2026)
    picks = Counter(balancer.pick([0, 1, 2], active.__getitem__, rng) for _ in range(3000))
    assert all(abs(picks[position] - 1000) < 150 for position in range(3)), picks


@given(WEIGHTS)
def test_least_connections_fills_idle_upstreams_by_weight(weights: list[int]) -> None:
    balancer = LeastConnections(weights)
    active = [0] * len(weights)
    rng = random.Random(1)
    for _ in range(sum(weights)):
        active[balancer.pick(list(range(len(weights))), active.__getitem__, rng)] += 1
    assert active == weights


def test_service_gets_the_balancer_it_asks_for() -> None:
    assert isinstance(make_balancer(service_of(BalancerKind.ROUND_ROBIN, [1]), 3), RoundRobin)
    assert isinstance(make_balancer(service_of(BalancerKind.LEAST_CONNECTIONS, [1]), 3), LeastConnections)
