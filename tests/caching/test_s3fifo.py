"""S3-FIFO: against a model in plain lists; scans, ghosts, big responses, and what one eviction may take."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from minato.caching.ghosts import Ghosts
from minato.caching.s3fifo import S3FifoOrder
from minato.caching.stored import StoredResponse
from tests.caching.helpers import make_cache, make_head, make_request, must_store

SAMPLE = must_store(make_cache(), make_request(), make_head("Cache-Control: max-age=60"))


def make_stored(number: int, size_bytes: int = 1) -> StoredResponse:
    stored = copy.copy(SAMPLE)
    stored.key = (0, b"http", b"host", b"/%d" % number)
    stored.size_bytes = size_bytes
    return stored


def make_order(capacity: int = 20, max_memory_bytes: int = 10**9) -> S3FifoOrder:
    return S3FifoOrder(capacity=capacity, max_memory_bytes=max_memory_bytes)


def fill(order: S3FifoOrder, capacity: int, numbers: range) -> list[StoredResponse]:
    """Add responses as a store of that capacity would; return what was evicted."""
    evicted = []
    for number in numbers:
        if len(order) >= capacity:
            evicted.append(order.evict(0))
        order.add(make_stored(number))
    return evicted


@dataclass
class Model:
    """The paper's queues as lists. The ghosts are the real ones: which of them is forgotten is up to their table."""

    small_limit: int
    small: list[StoredResponse] = field(default_factory=list)
    main: list[StoredResponse] = field(default_factory=list)
    ghosts: Ghosts = field(default_factory=Ghosts)
    uses: dict[StoredResponse, int] = field(default_factory=dict)

    def add(self, stored: StoredResponse) -> None:
        self.uses[stored] = 0
        (self.main if self.ghosts.take(stored) else self.small).append(stored)

    def evict(self) -> StoredResponse:
        while True:
            if self.small and (len(self.small) >= self.small_limit or not self.main):
                stored = self.small.pop(0)
                if not self.uses[stored]:
                    self.ghosts.add(stored, len(self.small) + len(self.main))
                    return stored
                self.main.append(stored)
            else:
                stored = self.main.pop(0)
                if not self.uses[stored]:
                    return stored
                self.uses[stored] -= 1
                self.main.append(stored)


@given(numbers=st.lists(st.integers(0, 30), max_size=200))
def test_the_victims_are_the_models(numbers: list[int]) -> None:
    order, model = make_order(20), Model(2)
    inside: dict[int, StoredResponse] = {}
    for number in numbers:
        stored = inside.get(number)
        if stored is not None:
            order.touch(stored)
            model.uses[stored] = min(3, model.uses[stored] + 1)
            continue
        if len(inside) == 12:
            victim = order.evict(0)
            assert victim is model.evict()
            del inside[int(victim.key[3][1:])]
        stored = inside[number] = make_stored(number)
        order.add(stored)
        model.add(stored)


def test_a_scan_drives_out_nothing_that_was_used() -> None:
    order = make_order(100)
    wanted = [make_stored(number) for number in range(50)]
    for stored in wanted:
        order.add(stored)
        order.touch(stored)
    evicted = fill(order, 100, range(1_000, 11_000))
    assert len(evicted) == 9_950
    assert not set(evicted) & set(wanted)


def test_what_was_popular_once_goes_in_the_end() -> None:
    order = make_order(20)
    yesterday = [make_stored(number) for number in range(18)]
    for stored in yesterday:
        order.add(stored)
        for _ in range(1_000):
            order.touch(stored)
    gone: set[StoredResponse] = set()
    for number in range(100, 500):  # each is asked for twice, one after the other
        stored = make_stored(number)
        if len(order) == 20:
            gone.add(order.evict(0))
        order.add(stored)
        order.touch(stored)
    assert gone >= set(yesterday)


def test_what_comes_back_soon_after_it_went_is_no_passer_by() -> None:
    order = make_order(20)
    evicted = fill(order, 20, range(25))
    back = make_stored(int(evicted[-1].key[3][1:]))
    order.add(back)
    assert back not in fill(order, 20, range(100, 1_000))


def test_what_takes_the_place_of_one_stored_is_no_passer_by() -> None:
    order = make_order(20)
    fill(order, 20, range(19))
    again = make_stored(50)
    order.add(again, is_known=True)
    assert again not in fill(order, 20, range(100, 1_000))


def test_a_freshened_response_keeps_its_queue_and_its_uses() -> None:
    order = make_order(10)
    old, new, other = (make_stored(number) for number in range(3))
    order.add(old)
    order.touch(old)
    order.replace(old, new)
    order.add(other)
    assert order.evict(0) is other


def test_probation_is_a_share_of_the_bytes_as_well() -> None:
    order = make_order(1_000, max_memory_bytes=10_000)
    used = make_stored(0, 5_000)
    order.add(used)
    order.touch(used)
    order.add(make_stored(1, 900))
    assert order.evict(200) is not used  # 900 of 1,000 and 200 that come
    other = make_stored(2, 900)
    order.add(other)
    assert order.evict(50) is used  # 900 and 50 are within probation's share: the main queue gives room


def test_a_response_larger_than_probation_is_admitted_when_it_is_asked_for_again() -> None:
    order = make_order(1_000, max_memory_bytes=10_000)
    assert order.admits(make_stored(1), 1_000)
    assert not order.admits(make_stored(2), 1_001)
    assert order.admits(make_stored(2), 1_001)
    assert not order.admits(make_stored(3), 1_001)


def test_one_eviction_looks_at_a_bounded_number_even_if_all_were_just_used() -> None:
    order = make_order(10_000)
    for number in range(10_000):
        stored = make_stored(number)
        order.add(stored)
        order.touch(stored)
    before = sum(stored.uses for stored in (*order._small, *order._main))
    order.evict(0)
    after = sum(stored.uses for stored in (*order._small, *order._main))
    assert before - after <= 65


def test_the_uses_counted_are_bounded() -> None:
    order = make_order()
    stored = make_stored(0)
    order.add(stored)
    for _ in range(100):
        order.touch(stored)
    assert stored.uses == 3


def test_ghosts_take_eight_bytes_or_sixteen_for_each_response_that_is_stored() -> None:
    ghosts = Ghosts()
    for number in range(20_000):
        ghosts.add(make_stored(number), 10_000)
    assert ghosts.size_bytes == 8 * 16_384
    remembered = sum(ghosts.has(make_stored(number)) for number in range(20_000))
    assert 10_000 <= remembered <= 16_384
    for number in range(100):
        ghosts.add(make_stored(number), 100)
    assert ghosts.size_bytes <= 8 * 400


def test_a_ghost_outlives_a_table_that_grows_and_is_taken_once() -> None:
    ghosts = Ghosts()
    assert not ghosts.take(make_stored(1))
    ghosts.add(make_stored(1), 10)
    others = [make_stored(number) for number in range(2, 100)]
    elsewhere = iter([other for other in others if slot_of(other) != slot_of(make_stored(1))])
    for stored_count in (100, 200):
        ghosts.add(next(elsewhere), stored_count)
    assert ghosts.take(make_stored(1))
    assert not ghosts.take(make_stored(1))
    assert not ghosts.take(make_stored(100))


def slot_of(stored: StoredResponse) -> int:
    return hash((stored.key, stored.names, stored.values)) % 64
