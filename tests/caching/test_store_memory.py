"""The bytes that the store counts are the bytes that it takes, whatever the shape of what is stored."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from minato.caching import Cache, CacheRequest, StoredResponse
from minato.caching.pending import MAX_RECENT_CHANGES
from minato.caching.purge import PurgeKind, PurgeRequest
from minato.caching.writer import StoreWriter
from minato.config.model import CacheKind
from minato.net.hits import render_hit
from minato.protocol.fields import make_block
from minato.protocol.message import Fields, Framing, ResponseHead
from tests.caching.helpers import NOW_S, make_cache

Shape = Callable[[int], tuple[bytes, Fields, Fields, bytes]]
"""number -> target, request fields, response fields, body; nothing of it is shared with another number's."""


def fresh(value: bytes) -> bytes:
    """The same bytes in an object of their own, as they are when they come from a socket."""
    return bytes(bytearray(value))


def dated(number: int, *fields: tuple[bytes, bytes]) -> Fields:
    own = [(b"cache-control", b"max-age=%d" % (1_000_000 + number)), (b"etag", b'"%016x"' % number)]
    return [(fresh(name), value) for name, value in (*own, *fields)]


def tiny(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    return b"/tiny/%06d" % number, [], dated(number), b"%06d" % number


def page(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    fields = [(b"x-field-%02d" % n, b"value %06d of %d" % (number, n)) for n in range(10)]
    return b"/page/%06d" % number, [], dated(number, *fields), b"%06d" % number * 500


def many_fields(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    fields = [(b"x-field-%02d" % n, b"%06d of %d" % (number, n)) for n in range(90)]
    return b"/many/%06d" % number, [], dated(number, *fields), b"%06d" % number


def big(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    return b"/big/%06d" % number, [], dated(number), b"%06d" % number * 10_000


def long_target(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    return b"/%06d" % number * 1_000, [], dated(number), b"%06d" % number


def variants(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    request = [(b"accept-language", b"x-%06d" % number)]
    fields = dated(number, (b"vary", fresh(b"accept-language")))
    return b"/of/%d" % (number // 50), request, fields, b"%06d" % number * 20


def varies(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    name = b"x-%06d" % number
    return b"/of/%d" % (number // 50), [(name, b"1")], dated(number, (b"vary", name)), b"%06d" % number * 20


def tags_of_their_own(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    tags = b", ".join(b"tag-%06d-%d" % (number, n) for n in range(12))
    return b"/tags/%06d" % number, [], dated(number, (b"cache-tag", tags)), b"%06d" % number * 20


def tags_of_many(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    tags = b" ".join(b"tag-%d" % (number * n % 31) for n in range(1, 6))
    return b"/tags/%06d" % number, [], dated(number, (b"cache-tag", tags)), b"%06d" % number * 20


def extra_parts(number: int) -> tuple[bytes, Fields, Fields, bytes]:
    return b"/extra/%06d" % number, [], dated(number), b"%06d" % number * 20


SHAPES = [extra_parts, tiny, page, many_fields, big, long_target, variants, varies, tags_of_their_own, tags_of_many]


def fill_one(cache: Cache, shape: Shape, number: int) -> None:
    """Store one response and answer with it once, so that its rendered head is there, too."""
    target, request_fields, fields, body = shape(number)
    time_s = NOW_S + number / 7
    extra = b"currency=%06d" % number if shape is extra_parts else None
    request = CacheRequest(b"GET", b"http", b"%d.example" % (number % 7), target, request_fields, False, 0, extra)
    head = ResponseHead(200, b"OK", 11, make_block(fields), Framing.CHUNKED, 0, keep_alive=True)
    writer = cache.begin_store(request, head, request_time_s=time_s, response_time_s=time_s)
    assert isinstance(writer, StoreWriter)
    writer.write(body)
    stored = writer.commit(time_s)
    assert isinstance(stored, StoredResponse)
    render_hit(stored, time_s)


def take_memory(work: Callable[[], None]) -> int:
    """Return how many bytes a piece of work leaves allocated."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


@pytest.mark.parametrize("count", [350, 600])  # just after the dicts have grown, and just before they will
@pytest.mark.parametrize("kind", list(CacheKind))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_bytes_counted_are_the_memory_taken(shape: Shape, kind: CacheKind, count: int) -> None:
    cache = make_cache(kind=kind, capacity=10_000, max_memory_bytes=10**9)
    fill_one(cache, shape, 999_999)  # what is made once
    base = cache.stats().used_bytes

    def fill() -> None:
        for number in range(count):
            fill_one(cache, shape, number)

    real_bytes = take_memory(fill)
    counted_bytes = cache.stats().used_bytes - base
    # tracemalloc counts what was asked for; the allocator gives that in steps of 16 bytes, up to a tenth more.
    assert real_bytes <= counted_bytes <= 1.15 * real_bytes, counted_bytes / real_bytes


@pytest.mark.parametrize("kind", list(CacheKind))
def test_a_full_store_takes_no_more_than_max_memory(kind: CacheKind) -> None:
    cache = make_cache(kind=kind, capacity=100_000, max_memory_bytes=2_000_000)
    fill_one(cache, tiny, 999_999)

    def fill() -> None:
        for number in range(2_500):
            fill_one(cache, SHAPES[number % len(SHAPES)], number)

    real_bytes = take_memory(fill)
    stats = cache.stats()
    assert stats.evictions > 1_500
    assert 1_800_000 <= stats.used_bytes <= 2_000_000
    assert 0.85 * stats.used_bytes <= real_bytes <= 1.05 * stats.used_bytes, real_bytes / stats.used_bytes


@pytest.mark.parametrize("kind", list(CacheKind))
def test_nothing_is_left_of_what_was_evicted_or_purged(kind: CacheKind) -> None:
    cache = make_cache(kind=kind, capacity=500, max_memory_bytes=10**9)
    empty_bytes = cache.stats().used_bytes

    def fill_and_purge() -> None:
        for number in range(3_000):
            fill_one(cache, SHAPES[number % len(SHAPES)], number)
        for tag in range(31):
            cache.purge(PurgeRequest(PurgeKind.TAG, b"tag-%d" % tag), NOW_S)
        cache.purge(PurgeRequest(PurgeKind.PREFIX, b"0.example"), NOW_S)
        for number in range(3_000):
            target, request_fields, _, _ = SHAPES[number % len(SHAPES)](number)
            host = b"%d.example" % (number % 7)
            cache.invalidate(CacheRequest(b"PUT", b"http", host, target, request_fields, False, 0), 204, [], NOW_S)

    real_bytes = take_memory(fill_and_purge)
    stats = cache.stats()
    assert stats.stored == 0
    assert stats.used_bytes - empty_bytes <= 8 * 500 * 2  # the ghosts' table, where there is one
    # Empty dicts keep the size that they once had, and 32 purges and the latest changes are remembered.
    assert real_bytes < 200_000 + 200 * MAX_RECENT_CHANGES
