"""Eviction orders against models that do the same slowly."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching.order import EvictionOrder, LfuOrder, LruOrder, make_order
from minato.caching.stored import StoredResponse
from minato.config.model import CacheKind
from tests.caching.helpers import make_cache, make_head, make_request, must_store


def make_stored() -> StoredResponse:
    return must_store(make_cache(), make_request(), make_head("Cache-Control: max-age=60"))


POOL = [make_stored() for _ in range(8)]


@dataclass
class Model:
    """Every response with its uses and the moment of its last use."""

    frequency_counts: bool
    uses: dict[StoredResponse, tuple[int, int]] = field(default_factory=dict)
    clock: int = 0

    def use(self, stored: StoredResponse) -> None:
        self.clock += 1
        count = self.uses[stored][0] + 1 if stored in self.uses else 1
        self.uses[stored] = (count, self.clock)

    def victim(self) -> StoredResponse:
        rank = (lambda item: item[1]) if self.frequency_counts else (lambda item: item[1][1])
        return min(self.uses.items(), key=rank)[0]


STEPS = st.lists(st.tuples(st.sampled_from(["use", "use", "discard", "evict"]), st.integers(0, 7)), max_size=80)


@pytest.mark.parametrize("kind", list(CacheKind))
@given(steps=STEPS)
def test_the_victim_is_the_models(kind: CacheKind, steps: list[tuple[str, int]]) -> None:
    order, model = make_order(kind), Model(frequency_counts=kind is CacheKind.LFU)
    for step, index in steps:
        stored = POOL[index]
        if step == "use":
            (order.touch if stored in model.uses else order.add)(stored)
            model.use(stored)
        elif step == "discard" and stored in model.uses:
            order.discard(stored)
            del model.uses[stored]
        elif step == "evict" and model.uses:
            victim = order.victim()
            assert victim is model.victim()
            order.discard(victim)
            del model.uses[victim]
        assert len(order) == len(model.uses)
        if model.uses:
            assert order.victim() is model.victim()


@pytest.mark.parametrize("order", [LruOrder(), LfuOrder()])
def test_an_empty_order_has_no_victim(order: EvictionOrder) -> None:
    with pytest.raises(LookupError):
        order.victim()


def test_a_freshened_response_keeps_its_number_of_uses() -> None:
    order = LfuOrder()
    often, once, freshened = POOL[:3]
    order.add(often)
    order.touch(often)
    order.add(once)
    order.replace(often, freshened)
    assert order.victim() is once
    order.discard(once)
    assert order.victim() is freshened
