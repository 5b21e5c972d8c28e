"""Consistent hashing: stable everywhere, by weight, and disturbed by changes no more than need be."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minato.decide.consistent_hash import ConsistentHash

KEYS = [b"/article/%d" % number for number in range(4_000)]
FEW = KEYS[:300]
WEIGHTS = st.lists(st.integers(1, 20), min_size=2, max_size=12)
# Without a bound nobody asks for loads, and there is no chance in it.
NO_LOADS = [0] * 100
GOLDEN = [4, 3, 0, 2, 4, 4, 4, 3, 2, 3, 2, 4, 4, 4, 1, 2, 1, 4, 4, 1]


def names_of(count: int) -> list[str]:
    return [f"http://10.0.0.{number}:8080" for number in range(count)]


def picks(balancer: ConsistentHash, candidates: list[int], keys: Iterable[bytes] = FEW) -> list[int]:
    return [balancer.pick(candidates, NO_LOADS.__getitem__, None, key) for key in keys]


def test_keys_go_where_they_always_went() -> None:
    """The mapping is part of the contract: another one would empty all caches behind it at an upgrade."""
    balancer = ConsistentHash(names_of(5), [1, 2, 3, 4, 5])
    assert picks(balancer, [0, 1, 2, 3, 4], KEYS[:20]) == GOLDEN


def test_another_process_comes_to_the_same_result() -> None:
    """Python's own hashes differ from process to process."""
    code = (
        "from minato.decide.consistent_hash import ConsistentHash\n"
        "one = ConsistentHash([f'http://10.0.0.{n}:8080' for n in range(7)], [1, 1, 2, 1, 5, 1, 1])\n"
        "print([one.pick(range(7), lambda _: 0, None, b'/article/%d' % n) for n in range(300)])\n"
    )
    command = [sys.executable, "-c", code]
    outputs = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    here = ConsistentHash(names_of(7), [1, 1, 2, 1, 5, 1, 1])
    assert outputs == {f"{picks(here, list(range(7)))}\n"}


@given(weights=WEIGHTS, order=st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_config_makes_no_difference(weights: list[int], order: object) -> None:
    names = names_of(len(weights))
    places = list(range(len(weights)))
    order.shuffle(places)  # type: ignore[attr-defined]
    one = ConsistentHash(names, weights)
    other = ConsistentHash([names[place] for place in places], [weights[place] for place in places])
    everyone = list(range(len(weights)))
    assert picks(one, everyone) == [places[position] for position in picks(other, everyone)]


@given(weights=WEIGHTS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_only_the_keys_of_those_that_are_down_move(weights: list[int], data: st.DataObject) -> None:
    everyone = list(range(len(weights)))
    balancer = ConsistentHash(names_of(len(weights)), weights)
    down = data.draw(st.sets(st.sampled_from(everyone), max_size=len(weights) - 1))
    left = [position for position in everyone if position not in down]
    before, after = picks(balancer, everyone), picks(balancer, left)
    assert all(new == old for old, new in zip(before, after, strict=True) if old not in down)
    assert down.isdisjoint(after)
    assert picks(balancer, everyone) == before  # and they come back


def test_the_keys_of_one_that_is_down_are_spread_over_all_others() -> None:
    balancer = ConsistentHash(names_of(5), [1] * 5)
    orphans = [key for key in KEYS if balancer.pick(range(5), NO_LOADS.__getitem__, None, key) == 0]
    heirs = Counter(picks(balancer, [1, 2, 3, 4], orphans))
    assert all(abs(heirs[position] - len(orphans) / 4) < 0.3 * len(orphans) / 4 for position in (1, 2, 3, 4)), heirs


def test_more_may_be_down_than_the_order_of_a_bucket_remembers() -> None:
    balancer = ConsistentHash(names_of(40), [1] * 40)
    assert set(picks(balancer, [39])) == {39}
    assert set(picks(balancer, [38, 39])) == {38, 39}


@given(weights=WEIGHTS, new=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_one_that_is_added_takes_keys_and_moves_no_other(weights: list[int], new: int) -> None:
    count = len(weights)
    before = picks(ConsistentHash(names_of(count), weights), list(range(count)))
    after = picks(ConsistentHash(names_of(count + 1), [*weights, new]), list(range(count + 1)))
    assert all(now in (old, count) for old, now in zip(before, after, strict=True))


def test_one_that_is_added_takes_its_share() -> None:
    for count in (1, 4, 9):
        after = picks(ConsistentHash(names_of(count + 1), [1] * (count + 1)), list(range(count + 1)), KEYS)
        share = after.count(count) / len(KEYS)
        assert share == pytest.approx(1 / (count + 1), rel=0.15)


@given(weights=WEIGHTS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_more_weight_takes_keys_and_moves_no_other(weights: list[int], data: st.DataObject) -> None:
    everyone = list(range(len(weights)))
    heavier = data.draw(st.sampled_from(everyone))
    changed = [weight + 3 * (position == heavier) for position, weight in enumerate(weights)]
    before = picks(ConsistentHash(names_of(len(weights)), weights), everyone)
    after = picks(ConsistentHash(names_of(len(weights)), changed), everyone)
    assert all(now in (old, heavier) for old, now in zip(before, after, strict=True))


@pytest.mark.parametrize("weights", [[1] * 10, [1, 2, 3, 4], [100, 300], [1000, 1, 1], [7] * 3])
def test_each_gets_its_share_of_the_keys(weights: list[int]) -> None:
    balancer = ConsistentHash(names_of(len(weights)), weights)
    keys = [b"key %d" % number for number in range(20_000)]
    got = Counter(picks(balancer, list(range(len(weights))), keys))
    for position, weight in enumerate(weights):
        share = weight / sum(weights)
        # Five standard deviations of 16,384 buckets and of 20,000 keys that are dealt to them.
        slack = 5 * math.sqrt(share * (1 - share) * (1 / 16_384 + 1 / 20_000))
        assert abs(got[position] / len(keys) - share) < slack, (position, got)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 300])
def test_its_memory_is_bounded_whatever_the_weights(count: int) -> None:
    balancer = ConsistentHash(names_of(count), [1000] * count)
    picks(balancer, list(range(count)))
    orders = balancer._orders
    assert orders.itemsize * len(orders) <= 262_144


LOADS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=10)
FACTORS = st.floats(1, 4)


@given(loads=LOADS, factor=FACTORS, key=st.binary(max_size=20), data=st.data())
@settings(deadline=None)
def test_nobody_gets_more_than_the_bound(
    loads: list[tuple[int, int]], factor: float, key: bytes, data: st.DataObject
) -> None:
    everyone = list(range(len(loads)))
    candidates = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
    weights = [weight for _, weight in loads]
    balancer = ConsistentHash(names_of(len(loads)), weights, factor)
    picked = balancer.pick(candidates, lambda position: loads[position][0], None, key)
    total = sum(loads[position][0] for position in candidates) + 1
    capacity = factor * total * weights[picked] / sum(weights[position] for position in candidates)
    assert picked in candidates
    assert loads[picked][0] + 1 <= math.ceil(capacity * (1 + 1e-12))


@given(weights=WEIGHTS, factor=FACTORS)
@settings(max_examples=25, deadline=None)
def test_a_bound_changes_nothing_while_nobody_is_near_it(weights: list[int], factor: float) -> None:
    everyone = list(range(len(weights)))
    free = ConsistentHash(names_of(len(weights)), weights)
    bound = ConsistentHash(names_of(len(weights)), weights, factor)
    assert picks(bound, everyone) == picks(free, everyone)


def test_one_hot_key_is_spread_as_far_as_the_bound_wants_and_no_further() -> None:
    balancer = ConsistentHash(names_of(5), [1] * 5, 1.25)
    active = [0] * 5
    for _ in range(100):
        active[balancer.pick(range(5), active.__getitem__, None, b"/hot")] += 1
    assert sorted(active)[-1] == 25  # ceil(1.25 * 100 / 5)
    assert sorted(active)[0] == 0  # the bound leaves room enough on four


def test_the_bound_goes_by_weight() -> None:
    weights = [1, 2, 5]
    balancer = ConsistentHash(names_of(3), weights, 1.0)
    active = [0] * 3
    for _ in range(80):
        active[balancer.pick(range(3), active.__getitem__, None, b"/hot")] += 1
    assert active == [10, 20, 50]
