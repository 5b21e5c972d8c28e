"""Least recently used first, against a model that does the same slowly; what both orders promise the store."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching.order import EvictionOrder, LruOrder, make_order
from minato.caching.stored import StoredResponse
from minato.config.model import CacheKind
from tests.caching.helpers import make_cache, make_head, make_request, must_store


def make_stored(number: int) -> StoredResponse:
    return must_store(make_cache(), make_request(target=b"/%d" % number), make_head("Cache-Control: max-age=60"))


POOL = [make_stored(number) for number in range(8)]
STEPS = st.lists(st.tuples(st.sampled_from(["use", "use", "discard", "replace", "evict"]), st.integers(0, 7)))


def make(kind: CacheKind) -> EvictionOrder:
    return make_order(kind, capacity=10, max_memory_bytes=100_000)


@given(steps=STEPS)
def test_lru_evicts_what_was_not_used_for_longest(steps: list[tuple[str, int]]) -> None:
    order: EvictionOrder = LruOrder()
    model: list[StoredResponse] = []
    for step, index in steps:
        stored = POOL[index]
        if step == "use":
            if stored in model:
                order.touch(stored)
                model.remove(stored)
            else:
                order.add(stored)
            model.append(stored)
        elif step == "discard" and stored in model:
            order.discard(stored)
            model.remove(stored)
        elif step == "replace" and stored in model and POOL[index - 1] not in model:
            order.replace(stored, POOL[index - 1])
            model.remove(stored)
            model.append(POOL[index - 1])
        elif step == "evict" and model:
            assert order.evict(0) is model.pop(0)
        assert len(order) == len(model)


@pytest.mark.parametrize("kind", list(CacheKind))
@given(steps=STEPS)
def test_whatever_was_added_is_evicted_once_unless_it_was_discarded(
    kind: CacheKind, steps: list[tuple[str, int]]
) -> None:
    order = make(kind)
    inside: set[StoredResponse] = set()
    pool = [copy.copy(stored) for stored in POOL]
    for step, index in steps:
        stored, other = pool[index], pool[index - 1]
        if step == "use":
            (order.touch if stored in inside else order.add)(stored)
            inside.add(stored)
        elif step == "discard" and stored in inside:
            order.discard(stored)
            inside.remove(stored)
        elif step == "replace" and stored in inside and other not in inside:
            order.replace(stored, other)
            inside = inside - {stored} | {other}
        elif step == "evict" and inside:
            inside.remove(order.evict(index * 5_000))
        assert len(order) == len(inside)
    while inside:
        inside.remove(order.evict(0))
    with pytest.raises(LookupError):
        order.evict(0)


def test_lru_admits_everything() -> None:
    assert make(CacheKind.LRU).admits(POOL[0], 10**12)
