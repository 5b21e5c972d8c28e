"""Whatever a client or an upstream writes into the fields the cache reads: nothing raises, the bounds hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minato.caching import CacheRequest
from minato.caching.writer import StoreWriter
from minato.protocol.fields import make_block
from minato.protocol.message import Fields, Framing, ResponseHead
from tests.caching.helpers import DATE, NOW_S, make_cache

VALUES = st.one_of(
    st.binary(max_size=30),
    st.text('max-ge=0123456789, "*\\Wno-store', max_size=30).map(str.encode),
    st.sampled_from([DATE, b"0", b"*", b'"1"', b'W/"1"', b"bytes=0-", b"accept, x-a", b"max-age=60", b"no-cache"]),
)
REQUEST_NAMES = [
    b"cache-control", b"pragma", b"authorization", b"if-none-match", b"if-modified-since", b"if-match", b"if-range",
    b"range", b"accept", b"x-a",
]  # fmt: skip
RESPONSE_NAMES = [
    b"cache-control", b"pragma", b"expires", b"date", b"age", b"vary", b"etag", b"last-modified", b"content-length",
    b"set-cookie", b"cache-status",
]  # fmt: skip


def lines(names: list[bytes]) -> st.SearchStrategy[Fields]:
    return st.lists(st.tuples(st.sampled_from(names), VALUES), max_size=6)


@given(
    request_fields=lines(REQUEST_NAMES),
    response_fields=lines(RESPONSE_NAMES),
    update_fields=lines(RESPONSE_NAMES),
    later_s=st.floats(-100, 10_000),
)
def test_no_fields_raise(
    request_fields: Fields, response_fields: Fields, update_fields: Fields, later_s: float
) -> None:
    cache = make_cache(ttl_s=60.0, capacity=2, max_memory_bytes=20_000)
    request = CacheRequest(b"GET", b"http", b"a", b"/", request_fields, False, 0)
    head = ResponseHead(200, b"OK", 11, make_block(response_fields), Framing.CHUNKED, 0, keep_alive=True)
    writer = cache.begin_store(request, head, request_time_s=NOW_S, response_time_s=NOW_S)
    if isinstance(writer, StoreWriter):
        writer.write(b"body")
        writer.commit(NOW_S)
    now_s = NOW_S + later_s
    found = cache.lookup(request, now_s)
    if found.stored is not None:
        cache.validation_fields(request, found.stored)
        update = ResponseHead(304, b"", 11, make_block(update_fields), Framing.NONE, 0, keep_alive=True)
        fresh = cache.freshen(request, found.stored, update, request_time_s=now_s, response_time_s=now_s)
        for stored in (found.stored, fresh or found.stored):
            answer = cache.answer(request, stored, now_s)
            assert answer.status in (200, 206, 304, 416)
            assert b"body".find(answer.body) >= 0
    stats = cache.stats()
    assert stats.used_bytes <= 20_000
    assert stats.reserved_bytes == 0
