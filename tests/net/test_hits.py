"""Hits without an exchange: plain or hot, they say byte for byte what an exchange says, and count and log as one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from minato.config.model import CacheKind
from minato.shared.board import Counter
from tests.net.hit_support import (
    CACHE,
    EXCHANGE,
    GET,
    HOT,
    MAX_AGE,
    PLAIN,
    Versions,
    WallClock,
    ask,
    make_hot,
)
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.system.harness import request_bytes
from tests.system.harness.origin import respond_always

STORED = {
    "plain": hello(b"hello", MAX_AGE),
    "empty": hello(b"", MAX_AGE),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "not found": b"HTTP/1.1 404 Nothing \xe4 here\r\nContent-Length: 2\r\nCache-Control: max-age=9\r\n\r\nno",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\nCache-Control: max-age=9\r\n\r\nok",
    "moved": b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\nCache-Control: max-age=9\r\n\r\n",
    "no content": b"HTTP/1.1 204 None\r\nCache-Control: max-age=9\r\n\r\n",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=9\r\n\r\nok",
    "aged": hello(b"x", MAX_AGE, b"Age: 7", b"Date: Tue, 14 Nov 2023 22:13:00 GMT"),
    "vary": hello(b"x", MAX_AGE, b"Vary: Accept-Encoding, User-Agent"),
    "validators": hello(b"x", MAX_AGE, b'ETag: "1"', b"Last-Modified: Tue, 14 Nov 2023 22:13:00 GMT"),
    "caches behind": hello(
        b"x", MAX_AGE, b"Cache-Status: other; hit", b"Via: 1.1 other", b"Cache-Status: third; fwd=miss"
    ),
    "cookie": hello(b"x", b"Cache-Control: public, max-age=9", b"Set-Cookie: a=1", b"Set-Cookie: b=2"),
    "hop-by-hop": hello(b"x", MAX_AGE, b"Connection: X-A, keep-alive", b"X-A: 1", b"Keep-Alive: timeout=5", b"X-B: 2"),
    "large": hello(bytes(100_000), MAX_AGE),
}
REQUESTS = {
    "curl": GET,
    "browser": request_bytes(
        fields=[(b"Accept-Encoding", b"gzip"), (b"Cookie", b"a=b"), (b"Connection", b"keep-alive")]
    ),
    "head": request_bytes(b"HEAD"),
    "head with cookie": request_bytes(b"HEAD", fields=[(b"Cookie", b"a=b")]),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("stored_name", STORED)
@pytest.mark.parametrize("passed_s", [0.0, 3.0])
@pytest.mark.parametrize("show_key", [False, True])
def test_every_lane_says_the_same_byte_for_byte(
    origin: OriginMaker,
    proxy: ProxyMaker,
    lanes: list[str],
    wall: WallClock,
    stored_name: str,
    request_name: str,
    passed_s: float,
    show_key: bool,
) -> None:
    there = origin(respond_always(STORED[stored_name]))
    with proxy(there, cache=replace(CACHE, show_key=show_key)).client() as client:
        ask(client, request_bytes(fields=[(b"Accept-Encoding", b"gzip")]))
        ask(client, GET)
        wall.wall_s += passed_s
        wire = REQUESTS[request_name]
        answers = [ask(client, wire) for _ in range(6)]
        # A field that has to be weighed, and changes nothing, sends a request through an exchange.
        weighed = wire[:-2] + b"Pragma: x\r\n\r\n"
        general = ask(client, weighed)
        assert lanes[-1] == EXCHANGE
        if stored_name != "vary":
            assert len(there.requests) == 1
            assert set(answers) == {general}
            assert b"minato; hit; ttl=" in general[0]
            assert (b'; key="http://test.local/"\r\n' in general[0]) == show_key
        elif wire.startswith(b"GET"):
            assert set(answers[1:]) == {general}
    if stored_name != "large" and (stored_name != "vary" or wire.startswith(b"GET")):
        assert lanes.count(HOT) >= 2


def test_a_cookie_that_never_repeats_does_not_cost_an_exchange(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    there = origin(Versions())
    with proxy(there, cache=CACHE).client() as client:
        wires = [request_bytes(fields=[(b"Cookie", b"sid=%d" % number), (b"Accept", b"*/*")]) for number in range(20)]
        assert {ask(client, wire)[1] for wire in wires} == {b"GET / 1"}
    assert lanes[0] == EXCHANGE
    assert lanes[1] == PLAIN
    assert EXCHANGE not in lanes[1:]
    assert lanes[-1] == HOT, "the cookie aside it came again"


def test_a_packet_of_pipelined_hits_is_answered_in_order(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    there = origin(Versions())
    other = request_bytes(target=b"/other")
    with proxy(there, cache=CACHE).client() as client:
        make_hot(client, lanes)
        make_hot(client, lanes, other)
        client.send((GET + other + GET) * 10)
        bodies = [client.receive().body for _ in range(30)]
        assert bodies == [b"GET / 1", b"GET /other 2", b"GET / 1"] * 10
        make_hot(client, lanes)
    assert EXCHANGE not in lanes[-31:-1]


def test_a_hot_request_in_two_pieces_is_answered_once(origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]) -> None:
    there = origin(Versions())
    with proxy(there, cache=CACHE).client() as client:
        expected = make_hot(client, lanes)
        for cut in (1, len(GET) // 2, len(GET) - 1):
            client.send(GET[:cut])
            time.sleep(0.02)  # so that the pieces come by themselves; the test holds if they do not
            assert ask(client, GET[cut:]) == expected
        assert ask(client) == expected


def test_every_lane_counts_alike(origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]) -> None:
    here = proxy(origin(respond_always(hello(b"12345", MAX_AGE))), cache=CACHE)
    counters = [Counter.REQUESTS, Counter.RESPONSES_2XX, Counter.CACHE_HITS, Counter.CACHE_MISSES, Counter.BYTES_OUT]
    with here.client() as client:
        for number in range(8):
            ask(client)
            assert [here.counted(one) for one in counters] == [number + 1, number + 1, number, 1, 5 * (number + 1)]
        ask(client, request_bytes(b"HEAD"))
        assert here.counted(Counter.BYTES_OUT) == 40
    assert {EXCHANGE, PLAIN, HOT} <= set(lanes)
    assert here.counted(Counter.REQUESTS_ACTIVE) == 0


def test_every_kind_of_status_is_counted_in_its_class(origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]) -> None:
    here = proxy(origin(respond_always(STORED["not found"])), cache=CACHE)
    with here.client() as client:
        make_hot(client, lanes)
        assert here.counted(Counter.RESPONSES_4XX) == here.counted(Counter.REQUESTS) == len(lanes)


class Lines:
    """Stands in for the access log."""

    is_combined = False

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.record = self.entries.append

    def flush(self) -> None:
        pass

    reopen = close = flush


def test_every_lane_logs_alike(origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock) -> None:
    log = Lines()
    here = proxy(origin(Versions()), cache=CACHE, access_log=log)
    wire = request_bytes(target=b"/a?b", fields=[(b"User-Agent", b"x/1"), (b"Referer", b"http://r/")])
    with here.client() as client:
        for _ in range(6):
            ask(client, wire)
    assert {EXCHANGE, PLAIN, HOT} <= set(lanes)
    miss, *hits = [replace(entry, duration_s=0.0) for entry in log.entries]
    assert len(hits) == 5
    assert (miss.cache, hits[0].cache) == ("uri-miss", "hit")
    assert all(hit == replace(miss, cache="hit", upstream="") for hit in hits)
    assert (miss.referer, miss.user_agent, miss.target, miss.body_bytes) == (b"http://r/", b"x/1", b"/a?b", 10)
    assert all(0 <= entry.duration_s < 5.0 for entry in log.entries)


@pytest.mark.parametrize("lane", [HOT, PLAIN])
@pytest.mark.parametrize("kind", [CacheKind.LRU, CacheKind.LFU])
def test_hits_without_an_exchange_count_for_what_is_evicted_first(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], lane: str, kind: CacheKind
) -> None:
    there = origin(Versions())
    here = proxy(there, cache=replace(CACHE, capacity=2, kind=kind))
    one, two, three = (request_bytes(target=b"/%d" % number) for number in range(3))
    with here.client() as client:
        make_hot(client, lanes, one)
        for _ in range(3):
            ask(client, two)
        for number in range(6):
            ask(client, one if lane == HOT else one[:-2] + b"X-Number: %d\r\n\r\n" % number)
            assert lanes[-1] == lane
        ask(client, three)
        assert b"minato; hit" in ask(client, one)[0]
        assert b"minato; hit" not in ask(client, two)[0]
