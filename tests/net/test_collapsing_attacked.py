"""Request collapsing under attack: what a review found, each with the client or upstream that it takes."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.config.model import CacheConfig, CacheKind
from minato.net.exchange import Exchange
from minato.shared.board import Counter
from tests.net.gate import CACHE, Gate, wait_for_active
from tests.net.hit_support import MAX_AGE
from tests.net.proxy import Entries, Proxy, hello
from tests.system.harness import Client, Origin, request_bytes
from tests.system.harness.origin import Script

OriginMaker = Callable[[Script], Origin]
ProxyMaker = Callable[..., Proxy]
Crowd = Callable[..., list[Client]]

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n"
END = b"0\r\n\r\n"
LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nCache-Control: max-age=60\r\n\r\n"
ROOMY = CacheConfig(enabled=True, ttl_s=0.0, max_body_size_bytes=30_000_000)
OVERDUE = hello(b"old", b"Cache-Control: max-age=0, stale-while-revalidate=60", b'ETag: "1"')


def cache_of(here: Proxy) -> Any:
    return here.server._context.cache


def unattended(here: Proxy) -> int:
    return here.call(lambda: len(here.server._context.unattended))


def await_true(condition: Callable[[], object], what: str, timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.005)


def is_nothing_left(here: Proxy) -> bool:
    context = here.server._context
    left = here.call(lambda: (len(context.unattended), len(cache_of(here).flights), cache_of(here).flights.validating))
    return left == (0, 0, set())


def invalidate(here: Proxy, how: str) -> None:
    cache = cache_of(here)
    kinds = {"url": (PurgeKind.URL, b"http://test.local/"), "all": (PurgeKind.ALL, b"")}
    kind, value = kinds[how]
    here.call(lambda: cache.purge(PurgeRequest(kind, value), time.time()))


@pytest.mark.parametrize("how", ["url", "all"])
def test_who_shares_gets_every_byte_also_after_the_writer_is_gone(
    gate: Gate, crowd: Crowd, here: Proxy, how: str
) -> None:
    body = bytes(range(256)) * 700  # much is still to come, so that it could be spliced past those who share it
    clients = crowd(4)
    connection, _ = gate.next()
    connection.send(LENGTH_HEAD % len(body) + body[:2_000])
    heads = [client.receive_head() for client in clients]
    wait = [client.read_bytes(2_000) for client in clients]
    assert wait == [body[:2_000]] * 4
    invalidate(here, how)
    connection.send(body[2_000:])
    gate.done(connection)
    assert {client.read_bytes(len(body) - 2_000) for client in clients} == {body[2_000:]}
    assert all(head.status == 200 for head in heads)
    for client in clients:  # and nothing else comes on those connections
        client.send(request_bytes(target=b"/next"))
    for _ in clients[:1]:
        gate.answer(hello(b"next", MAX_AGE))
    assert [client.receive().body for client in clients] == [b"next"] * 4


def test_what_is_shared_but_short_is_a_cut(gate: Gate, crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a piece ever get lost, it must show."""
    clients = crowd(2)
    connection, _ = gate.next()
    connection.send(LENGTH_HEAD % 10 + b"12345")
    for client in clients:
        client.receive_head()
        assert client.read_bytes(5) == b"12345"
    monkeypatch.setattr("minato.net.follower.Follower.on_shared_body", lambda self, data: None)
    connection.send(b"67890")
    gate.done(connection)
    assert clients[0].read_bytes(5) == b"67890"
    assert clients[1].read_to_end() == b""
    assert clients[1].is_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\nCache-Control: max-age=60\r\n\r\n" + b"x" * 1000,
        CHUNKED_HEAD + b"40000\r\n" + b"x" * 0x40000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 9000\r\n\r\n",
    ],
    ids=["too large", "outgrows the cache", "no-store"],
)
def test_a_validation_behind_an_answer_that_is_of_no_use_is_given_up(
    gate: Gate, crowd: Crowd, here: Proxy, answer: bytes
) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    for _ in range(5):
        client.send(request_bytes())
        client.receive()
    connection, _ = gate.next()
    assert gate.is_quiet(), "one at a time"
    connection.send(answer)
    assert connection.wait_closed(), "nobody wants the rest"
    gate.done(connection, stays=False)
    await_true(lambda: is_nothing_left(here), "the validation is over")


def test_a_response_that_nobody_wants_any_more_is_given_up(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    clients = crowd(3)
    connection, _ = gate.next()
    connection.send(CHUNKED_HEAD + b"40000\r\n" + b"x" * 0x40000 + b"\r\n")  # more than is stored
    for client in clients:
        client.receive_head()
        assert client.read_bytes(0x40000)
    for client in clients:
        client.reset()
    assert connection.wait_closed()
    gate.done(connection, stays=False)
    await_true(lambda: is_nothing_left(here), "the exchange is over")


def test_a_request_whose_leader_and_followers_all_left_is_given_up(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    clients = crowd(3)
    connection, _ = gate.next()
    for client in clients:
        client.reset()
    assert connection.wait_closed()
    gate.done(connection, stays=False)
    await_true(lambda: is_nothing_left(here), "the exchange is over")


@pytest.mark.parametrize("slow_one", ["leader", "follower"])
def test_a_client_that_reads_too_slowly_is_cut_rather_than_slow_down_others(
    gate: Gate, here: Proxy, monkeypatch: pytest.MonkeyPatch, slow_one: str
) -> None:
    monkeypatch.setattr("minato.net.sharing._MAX_HOLD_S", 0.3)
    slow, quick = Client(here.port, rcvbuf_bytes=4096), here.client()
    first, second = (slow, quick) if slow_one == "leader" else (quick, slow)
    for count, client in enumerate((first, second), 1):
        client.send(request_bytes())
        wait_for_active(here, count)
    connection, _ = gate.next()
    pieces = 200

    def send() -> None:
        connection.send(CHUNKED_HEAD)
        for _ in range(pieces):
            connection.send(b"10000\r\n" + b"y" * 65_536 + b"\r\n")
        connection.send(END)
        gate.done(connection)

    sender = threading.Thread(target=send)
    sender.start()
    assert len(quick.receive().body) == pieces * 65_536
    sender.join(10)
    assert END not in slow.read_to_end()[-100:]
    quick.close()
    slow.close()


def test_a_slow_leader_keeps_nobody_waiting_who_needs_the_whole(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = proxy(origin(gate), cache=ROOMY)
    body = b"z" * 12_000_000
    leader, partial, late = Client(here.port, rcvbuf_bytes=4096), here.client(), here.client()
    leader.send(request_bytes())
    connection, _ = gate.next()
    partial.send(request_bytes(fields=[(b"Range", b"bytes=0-3")]))
    wait_for_active(here, 2)
    sender = threading.Thread(target=lambda: connection.send(LENGTH_HEAD % len(body) + body))
    sender.start()
    late.send(request_bytes())
    assert partial.receive().body == b"zzzz"
    assert len(late.receive().body) == len(body)
    sender.join(10)
    gate.done(connection)
    for client in (leader, partial, late):
        client.close()


def test_who_needs_the_whole_does_not_wait_for_ever(gate: Gate, crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minato.net.follower._MAX_WAIT_S", 0.2)
    crowd(1)
    first, _ = gate.next()
    first.send(CHUNKED_HEAD + b"1\r\nx\r\n")
    partial = crowd(1, request_bytes(fields=[(b"Range", b"bytes=0-3")]))[0]
    second, request = gate.next()
    assert request.get(b"range") == b"bytes=0-3"
    second.send(hello(b"alone"))
    assert partial.receive().body == b"alone"
    first.send(END)
    for connection in (first, second):
        gate.done(connection)


@pytest.mark.parametrize("where", ["leader", "follower"])
def test_a_bug_in_one_exchange_hangs_nobody_else(
    gate: Gate, crowd: Crowd, here: Proxy, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    clients = crowd(3)
    connection, _ = gate.next()
    method = {"leader": "on_response_body", "follower": "relay_shared"}[where]
    original, broken = getattr(Exchange, method), []

    def break_once(exchange: Exchange, data: bytes) -> None:
        if data == b"secnd" and not broken:
            broken.append(exchange)
            raise RuntimeError("a bug made for the test")
        original(exchange, data)

    monkeypatch.setattr(Exchange, method, break_once)
    connection.send(CHUNKED_HEAD + b"5\r\nfirst\r\n")
    for client in clients:
        client.receive_head()
    connection.send(b"5\r\nsecnd\r\n")
    await_true(lambda: broken, "the bug")
    if where == "follower":
        connection.send(END)
        gate.done(connection)
        ended = [client.read_to_end() if client.is_closed(0.3) else b"" for client in clients]
        assert sum(bool(END in data) for data in ended) <= 2
    else:
        assert connection.wait_closed()
        gate.done(connection, stays=False)
        assert all(END not in client.read_to_end() for client in clients)
    await_true(lambda: is_nothing_left(here), "nothing is left")
    newcomer = here.client()
    newcomer.send(request_bytes())
    if where == "leader":
        gate.answer(hello(b"new", MAX_AGE))
    assert newcomer.receive().status == 200
    newcomer.close()


def test_a_part_that_nobody_asked_for_is_no_answer(gate: Gate, crowd: Crowd) -> None:
    client = crowd(1)[0]
    gate.answer(hello(b"0123456789", b"Cache-Control: max-age=1", b'ETag: "1"'))
    client.receive()
    time.sleep(1.1)
    leader = crowd(1, request_bytes(fields=[(b"Range", b"bytes=2-4")]))[0]
    follower = crowd(1)[0]
    part = (
        b'HTTP/1.1 206 Part\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\nETag: "1"\r\n%b\r\n\r\n234' % MAX_AGE
    )
    gate.answer(part)
    assert leader.receive().status == 206
    gate.answer(hello(b"0123456789", MAX_AGE))
    assert follower.receive().body == b"0123456789"


def test_variants_are_not_fetched_one_after_the_other(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    clients = [crowd(1, request_bytes(fields=[(b"Cookie", b"user=%d" % (n % 6))]))[0] for n in range(12)]
    answer = hello(b"page", MAX_AGE, b"Vary: Cookie")
    gate.answer(answer)
    asked = [gate.next() for _ in range(5)]  # all the others at once, each variant once
    assert gate.is_quiet()
    for connection, _ in asked:
        connection.send(answer)
        gate.done(connection)
    assert [client.receive().body for client in clients] == [b"page"] * 12


@pytest.mark.parametrize("control", [b"Cache-Control: no-cache", b"Cache-Control: max-age=0"])
def test_what_is_never_reused_as_it_is_is_not_waited_for_again(gate: Gate, crowd: Crowd, control: bytes) -> None:
    answer = hello(b"page", control, b'ETag: "1"')
    for number in range(2):
        clients = crowd(3)
        asked = [gate.next()]
        if number == 0:
            asked[0][0].send(answer)
            gate.done(asked[0][0])
        others = [gate.next() for _ in range(2)]
        for connection, _ in others if number == 0 else [*asked, *others]:
            connection.send(answer)
            gate.done(connection)
        assert [client.receive().body for client in clients] == [b"page"] * 3


def test_a_purge_during_a_validation_makes_no_herd(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    client = crowd(1)[0]
    gate.answer(hello(b"old", b"Cache-Control: max-age=1", b'ETag: "1"'))
    client.receive()
    time.sleep(1.1)
    clients = crowd(6)
    connection, _ = gate.next()
    invalidate(here, "all")
    connection.send(b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n")
    gate.done(connection)
    assert clients[0].receive().body == b"old"  # it asked before the purge
    gate.answer(hello(b"new", MAX_AGE))
    assert [client.receive().body for client in clients[1:]] == [b"new"] * 5
    assert gate.is_quiet()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_soft_purge_is_not_undone_by_a_304_from_before_it(
    gate: Gate, crowd: Crowd, here: Proxy, method: bytes
) -> None:
    client = crowd(1)[0]
    gate.answer(hello(b"old", b"Cache-Control: max-age=1", b'ETag: "1"'))
    client.receive()
    if method == b"GET":
        time.sleep(1.1)
        client.send(request_bytes())
    else:
        client.send(request_bytes(b"HEAD", fields=[(b"Cache-Control", b"no-cache")]))
    connection, _ = gate.next()
    here.call(lambda: cache_of(here).purge(PurgeRequest(PurgeKind.ALL, soft=True), time.time()))
    validated = b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nCache-Control: max-age=60\r\n\r\n'
    confirmed = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\n'
    connection.send(validated if method == b"GET" else confirmed)
    gate.done(connection)
    client.receive(method)
    client.send(request_bytes())
    gate.answer(hello(b"new", MAX_AGE, b'ETag: "2"'))
    assert client.receive().body == b"new"


def test_a_large_response_that_would_be_asked_for_twice_is_stored_the_first_time_where_others_wait(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = proxy(
        origin(gate),
        cache=CacheConfig(
            enabled=True, ttl_s=0.0, kind=CacheKind.LFU, max_memory_bytes=200_000, max_body_size_bytes=150_000
        ),
    )
    filler = here.client()
    for number in range(90):
        filler.send(request_bytes(target=b"/%d" % number))
        gate.answer(hello(bytes(2_000), MAX_AGE))
        filler.receive()
    clients = [here.client() for _ in range(8)]
    for count, client in enumerate(clients, 1):
        client.send(request_bytes(target=b"/large"))
        wait_for_active(here, count)
    large = hello(bytes(120_000), MAX_AGE)
    gate.answer(large)
    bodies = {len(client.receive().body) for client in clients}
    assert bodies == {120_000}
    assert gate.is_quiet()
    for client in [filler, *clients]:
        client.close()


def test_collapsed_requests_leave_nothing_for_the_garbage_collector(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    gc.collect()
    gc.disable()
    try:
        for number in range(5):
            clients = crowd(6, request_bytes(target=b"/%d" % number))
            gate.answer(hello(b"x", MAX_AGE))
            for client in clients:
                client.receive()
        wait_for_active(here, 0)
        left = here.call(lambda: [one for one in gc.get_objects() if type(one) is Exchange])
        assert len(left) <= 1  # the latest one's connection keeps it until its next
    finally:
        gc.enable()


def test_every_client_has_its_line_and_nobody_else(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    entries = Entries()
    here = proxy(origin(gate), cache=CACHE, access_log=entries)
    leader, follower = here.client(), here.client()
    for count, client in enumerate((leader, follower), 1):
        client.send(request_bytes())
        wait_for_active(here, count)
    connection, _ = gate.next()
    leader.reset()
    await_true(lambda: unattended(here) == 1, "the leader to go on without its client")
    connection.send(OVERDUE.replace(b"max-age=0", b"max-age=1"))
    gate.done(connection)
    assert follower.receive().body == b"old"
    time.sleep(1.1)
    before = here.counted(Counter.REQUESTS), here.counted(Counter.RESPONSES_2XX)
    follower.send(request_bytes())
    assert follower.receive().body == b"old"
    gate.answer(hello(b"new", MAX_AGE))
    await_true(lambda: is_nothing_left(here), "the validation is over")
    assert [(entry.failure[:15], entry.cache) for entry in entries.entries] == [
        ("the client left", "uri-miss"),
        ("", "collapsed"),
        ("", "hit"),
    ]
    assert here.counted(Counter.REQUESTS) == before[0] + 1
    assert here.counted(Counter.RESPONSES_2XX) == before[1] + 1
    follower.close()


def test_a_worker_that_drains_begins_no_validation(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    here.drain()
    client.send(request_bytes())
    assert client.receive().body == b"old"
    assert gate.is_quiet()


def test_204_is_shared_without_a_body_or_a_length(gate: Gate, crowd: Crowd) -> None:
    clients = crowd(3)
    connection, _ = gate.next()
    connection.send(b"HTTP/1.1 204 Nothing\r\nCache-Control: max-age=60\r\n\r\n")
    gate.done(connection)
    responses = [client.receive() for client in clients]
    assert [response.status for response in responses] == [204] * 3
    assert [response.get(b"content-length") for response in responses] == [None] * 3


def test_followers_are_counted_as_collapsed(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    clients = crowd(5)
    connection, _ = gate.next()
    connection.send(LENGTH_HEAD % 5)
    for client in clients:
        client.receive_head()
    connection.send(b"hello")
    gate.done(connection)
    for client in clients:
        assert client.read_bytes(5) == b"hello"
    wait_for_active(here, 0)
    assert here.counted(Counter.CACHE_COLLAPSED) == 4
    assert here.counted(Counter.CACHE_HITS) == 0
