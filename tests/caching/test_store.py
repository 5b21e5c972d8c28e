"""The store's bounds: capacity, bytes (reserved ones included), variants; and that they are true."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from minato.caching import Cache, CacheRequest, NotStored, Outcome, StoredResponse
from minato.caching.store import MAX_VARIANTS
from minato.caching.writer import StoreWriter
from minato.config.model import CacheConfig, CacheKind
from minato.protocol.fields import make_block
from minato.protocol.message import Framing, ResponseHead
from tests.caching.helpers import NOW_S, begin, make_cache, make_head, make_request, must_store, store

FRESH = "Cache-Control: max-age=60"


def targets_stored(cache: Cache, count: int) -> list[int]:
    """Which of /0 .. /count-1 are stored; a min-fresh out of reach looks without being a use of the order."""
    requests = [make_request("Cache-Control: min-fresh=999999", target=b"/%d" % n) for n in range(count)]
    return [n for n, request in enumerate(requests) if cache.lookup(request, NOW_S).reason.value == "request"]


def put(cache: Cache, number: int, body: bytes = b"body", vary: str = "") -> StoredResponse | NotStored:
    lines = [FRESH, f"Vary: {vary}"] if vary else [FRESH]
    return store(cache, make_request(target=b"/%d" % number), make_head(*lines), body)


def test_lru_evicts_what_was_not_used_for_longest() -> None:
    cache = make_cache(capacity=3)
    for number in (0, 1, 2):
        put(cache, number)
    assert cache.lookup(make_request(target=b"/0"), NOW_S).outcome is Outcome.HIT
    put(cache, 3)
    assert targets_stored(cache, 4) == [0, 2, 3]
    assert cache.stats().evictions == 1


def test_lfu_evicts_what_was_used_least() -> None:
    cache = make_cache(capacity=3, kind=CacheKind.LFU)
    for number in (0, 1, 2):
        put(cache, number)
    for number in (0, 0, 2, 1, 1):
        cache.lookup(make_request(target=b"/%d" % number), NOW_S)
    put(cache, 3)
    assert targets_stored(cache, 4) == [0, 1, 3]
    put(cache, 4)
    assert targets_stored(cache, 5) == [0, 1, 4]


def test_a_replaced_evicted_or_purged_response_says_that_it_is_gone() -> None:
    cache = make_cache(capacity=1)
    first = must_store(cache, make_request(), make_head(FRESH))
    second = must_store(cache, make_request(), make_head(FRESH))
    assert (first.is_live, second.is_live) == (False, True)
    third = must_store(cache, make_request(target=b"/other"), make_head(FRESH))
    assert (second.is_live, third.is_live) == (False, True)
    assert cache.clear() == 1
    assert not third.is_live
    assert cache.stats().used_bytes == 0


def test_bytes_are_bounded_and_the_oldest_go() -> None:
    size_bytes = must_store(make_cache(), make_request(target=b"/0"), make_head(FRESH), bytes(10_000)).size_bytes
    cache = make_cache(max_memory_bytes=3 * size_bytes + 2_000)  # a body being stored takes an eighth more
    for number in range(5):
        put(cache, number, bytes(10_000))
    assert targets_stored(cache, 5) == [2, 3, 4]
    assert cache.stats().used_bytes == 3 * size_bytes


def test_a_response_that_never_fits_evicts_nothing() -> None:
    cache = make_cache(max_memory_bytes=20_000)
    put(cache, 0)
    assert put(cache, 1, bytes(20_000)) is NotStored.TOO_LARGE
    assert targets_stored(cache, 2) == [0]


def test_nothing_is_stored_without_capacity() -> None:
    cache = make_cache(capacity=0)
    assert put(cache, 0) is NotStored.NO_MEMORY
    assert cache.stats().reserved_bytes == 0


def test_being_stored_counts_and_gives_up_rather_than_overrun() -> None:
    cache = make_cache(max_memory_bytes=100_000)
    writers = [begin(cache, make_request(target=b"/%d" % n), make_head(FRESH)) for n in range(10)]
    open_writers = [writer for writer in writers if isinstance(writer, StoreWriter)]
    kept = [writer.write(bytes(30_000)) for writer in open_writers]
    assert kept.count(True) == 2
    assert cache.stats().reserved_bytes <= 100_000
    results = [writer.commit(NOW_S) for writer in open_writers]
    assert sum(isinstance(result, StoredResponse) for result in results) == 2
    assert results.count(NotStored.NO_MEMORY) == 8
    assert cache.stats().reserved_bytes == 0


def test_stored_ones_make_room_for_one_being_stored() -> None:
    cache = make_cache(max_memory_bytes=50_000)
    put(cache, 0, bytes(20_000))
    writer = begin(cache, make_request(target=b"/1"), make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    assert writer.write(bytes(15_000))
    assert targets_stored(cache, 1) == [0]
    assert writer.write(bytes(15_000))
    assert targets_stored(cache, 1) == []
    assert writer.write(bytes(5_000))
    assert cache.stats().reserved_bytes <= 50_000


def test_heads_being_stored_are_bounded_too() -> None:
    cache = make_cache(max_memory_bytes=50_000)
    writers = [begin(cache, make_request(target=b"/%d" % n), make_head(FRESH)) for n in range(100)]
    assert NotStored.NO_MEMORY in writers
    assert cache.stats().reserved_bytes <= 50_000


def test_variants_of_one_uri_are_bounded_and_the_oldest_goes() -> None:
    cache = make_cache(capacity=1000)
    must_store(cache, make_request(target=b"/other"), make_head(FRESH))
    for number in range(500):
        must_store(cache, make_request(f"X-A: {number}"), make_head(FRESH, "Vary: X-A"))
    assert cache.stats().stored == MAX_VARIANTS + 1
    assert cache.lookup(make_request("X-A: 499"), NOW_S).outcome is Outcome.HIT
    assert cache.lookup(make_request("X-A: 0"), NOW_S).outcome is Outcome.MISS
    assert cache.lookup(make_request(target=b"/other"), NOW_S).outcome is Outcome.HIT


def test_variants_under_many_different_varies_are_bounded_as_well() -> None:
    cache = make_cache(capacity=1000)
    for number in range(200):
        must_store(cache, make_request(f"X-{number}: 1"), make_head(FRESH, f"Vary: X-{number}"))
    assert cache.stats().stored <= MAX_VARIANTS


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("kind", list(CacheKind))
def test_the_bytes_counted_are_no_less_than_the_memory_taken(kind: CacheKind, extra: bool) -> None:
    config = CacheConfig(enabled=True, kind=kind, capacity=10_000, max_memory_bytes=10**9)
    cache = Cache(config)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(350):  # just above two thirds of 512: dicts have just grown
        fill_one(cache, number, extra)
    gc.collect()
    real_bytes = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    counted_bytes = cache.stats().used_bytes
    assert cache.stats().stored == 350
    assert real_bytes <= counted_bytes <= 1.6 * real_bytes


def fill_one(cache: Cache, number: int, extra: bool) -> None:
    """Store one response none of whose strings is shared, used more often than the one before (worst case of LFU)."""
    time_s = NOW_S + number / 7
    request = CacheRequest(
        b"GET", b"http", b"%d.example" % number, b"/%d" % number, [(b"x-a", b"%d" % number)], False, 0
    )
    if extra:
        request = replace(request, extra=b"currency=%d" % number)
    fields = [(b"cache-control", b"max-age=%d" % (900 + number)), (b"vary", b"x-a"), (b"etag", b'"%d"' % number)]
    head = ResponseHead(200, b"OK", 11, make_block(fields), Framing.CHUNKED, 0, keep_alive=True)
    writer = cache.begin_store(request, head, request_time_s=time_s, response_time_s=time_s)
    assert isinstance(writer, StoreWriter)
    writer.write(b"%d" % number * 100)
    writer.commit(time_s)
    for _ in range(number % 100):
        cache.lookup(request, time_s)


CAPACITY, MEMORY_BYTES = 5, 40_000


class StoreMachine(RuleBasedStateMachine):
    """Any interleaving of storing, aborting, looking up, freshening, invalidating."""

    @initialize(kind=st.sampled_from(list(CacheKind)))
    def start(self, kind: CacheKind) -> None:
        self.cache = make_cache(capacity=CAPACITY, max_memory_bytes=MEMORY_BYTES, max_body_size_bytes=15_000, kind=kind)
        self.writers: list[StoreWriter] = []
        self.given: list[StoredResponse] = []

    @rule(number=st.integers(0, 7), value=st.integers(0, 2), vary=st.booleans())
    def begin(self, number: int, value: int, vary: bool) -> None:
        lines = [FRESH, 'ETag: "1"', *(["Vary: X-A"] if vary else [])]
        request = make_request(f"X-A: {value}", target=b"/%d" % number)
        writer = begin(self.cache, request, make_head(*lines))
        if isinstance(writer, StoreWriter):
            self.writers.append(writer)

    @rule(index=st.integers(0, 20), size_bytes=st.integers(0, 9_000))
    def write(self, index: int, size_bytes: int) -> None:
        if self.writers:
            self.writers[index % len(self.writers)].write(bytes(size_bytes))

    @rule(index=st.integers(0, 20), clean=st.booleans())
    def finish(self, index: int, clean: bool) -> None:
        if self.writers:
            writer = self.writers.pop(index % len(self.writers))
            if not clean:
                writer.abort()
            result = writer.commit(NOW_S)
            if isinstance(result, StoredResponse):
                self.given.append(result)

    @rule(number=st.integers(0, 7), value=st.integers(0, 2), vary=st.booleans())
    def look_up_and_freshen(self, number: int, value: int, vary: bool) -> None:
        request = make_request(f"X-A: {value}", target=b"/%d" % number)
        found = self.cache.lookup(request, NOW_S + 70)
        if found.stored is not None:
            head = make_head(FRESH, *(["Vary: X-A, X-B"] if vary else []), status=304)
            fresh = self.cache.freshen(request, found.stored, head, request_time_s=NOW_S, response_time_s=NOW_S)
            self.given.append(fresh)

    @rule(number=st.integers(0, 7))
    def invalidate(self, number: int) -> None:
        self.cache.invalidate(make_request(method=b"POST", target=b"/%d" % number), 204, [])

    @rule()
    def clear(self) -> None:
        self.cache.clear()

    @invariant()
    def stays_within_its_bounds(self) -> None:
        stats = self.cache.stats()
        live = [stored for stored in self.given if stored.is_live]
        assert stats.stored == len(live) <= CAPACITY
        assert stats.used_bytes == sum(stored.size_bytes for stored in live)
        assert stats.used_bytes + stats.reserved_bytes <= MEMORY_BYTES
        assert stats.reserved_bytes >= 0
        assert self.writers or stats.reserved_bytes == 0


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=200)
