"""Request collapsing: many clients, one cold or stale resource, one request to the upstream; and what can go wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minato.caching.purge import PurgeKind, PurgeRequest
from tests.net.gate import CACHE, CLIENTS, Gate, wait_for_active
from tests.net.hit_support import MAX_AGE
from tests.net.proxy import Proxy, hello
from tests.system.harness import Client, Origin, request_bytes
from tests.system.harness.origin import Script

OriginMaker = Callable[[Script], Origin]
ProxyMaker = Callable[..., Proxy]

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n"
END = b"0\r\n\r\n"


def cache_status(response: Any) -> bytes:
    return bytes(response.get(b"cache-status"))


Crowd = Callable[..., list[Client]]


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_crowd_costs_one_request_and_all_get_the_answer(gate: Gate, crowd: Crowd, is_chunked: bool) -> None:
    clients = crowd()
    body = CHUNKED_HEAD + b"5\r\nhello\r\n" + END if is_chunked else hello(b"hello", MAX_AGE)
    gate.answer(body)
    responses = [client.receive() for client in clients]
    assert [response.body for response in responses] == [b"hello"] * CLIENTS
    assert [cache_status(response) for response in responses] == [
        b"minato; fwd=uri-miss; stored; ttl=60",
        *[b"minato; fwd=uri-miss; collapsed; ttl=60"] * (CLIENTS - 1),
    ]
    assert gate.is_quiet()
    clients[3].send(request_bytes())
    assert cache_status(clients[3].receive()).startswith(b"minato; hit")


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_the_others_get_each_piece_as_the_leader_does(gate: Gate, crowd: Crowd, is_chunked: bool) -> None:
    clients = crowd()
    connection, _ = gate.next()
    head = CHUNKED_HEAD if is_chunked else b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nCache-Control: max-age=60\r\n\r\n"
    connection.send(head)
    heads = [client.receive_head() for client in clients]
    streams = [client.pieces(head) for client, head in zip(clients, heads, strict=True)]
    for piece in (b"first", b"secnd", b"third"):
        connection.send(b"5\r\n%b\r\n" % piece if is_chunked else piece)
        assert [read_piece(stream, 5) for stream in streams] == [piece] * CLIENTS
    connection.send(END if is_chunked else b"")
    assert [b"".join(stream) for stream in streams] == [b""] * CLIENTS
    gate.done(connection)


def read_piece(stream: Iterator[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += next(stream)
    return data


def test_who_comes_in_the_middle_gets_what_was_there_and_the_rest(gate: Gate, crowd: Crowd) -> None:
    leader = crowd(1)[0]
    connection, _ = gate.next()
    connection.send(CHUNKED_HEAD + b"5\r\nfirst\r\n")
    stream = leader.pieces(leader.receive_head())
    assert read_piece(stream, 5) == b"first"
    late = crowd(3)
    streams = [client.pieces(client.receive_head()) for client in late]
    assert [read_piece(one, 5) for one in streams] == [b"first"] * 3
    connection.send(b"4\r\nrest\r\n" + END)
    assert [b"".join(one) for one in [stream, *streams]] == [b"rest"] * 4
    gate.done(connection)
    assert gate.is_quiet()


UNSHAREABLE = {
    "no-store": hello(b"own", b"Cache-Control: no-store"),
    "private": hello(b"own", b"Cache-Control: private"),
    "set-cookie": hello(b"own", b"Set-Cookie: a=1", b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"),
    "no lifetime": hello(b"own"),
    "vary-star": hello(b"own", b"Vary: *", MAX_AGE),
    "too large": b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
}


@pytest.mark.parametrize("response", UNSHAREABLE.values(), ids=UNSHAREABLE)
def test_what_cannot_be_shared_releases_all_at_once_and_is_remembered(
    gate: Gate, crowd: Crowd, response: bytes
) -> None:
    clients = crowd()
    connection, _ = gate.next()
    connection.send(response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")  # the head is enough
    others = [gate.next() for _ in range(CLIENTS - 1)]
    assert gate.is_quiet()
    for one, _ in others:
        one.send(response)
        gate.done(one)
    connection.send(response.partition(b"\r\n\r\n")[2])
    gate.done(connection)
    body = response.partition(b"\r\n\r\n")[2]
    assert [client.receive().body for client in clients] == [body] * CLIENTS
    again = crowd(4)
    asked = [gate.next() for _ in again]  # nobody waits for anybody
    for one, _ in asked:
        one.send(response)
        gate.done(one)
    assert [client.receive().body for client in again] == [body] * 4


def test_an_error_of_the_server_is_not_remembered(gate: Gate, crowd: Crowd) -> None:
    failed = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
    clients = crowd(3)
    for _ in range(3):
        gate.answer(failed)
    assert [client.receive().status for client in clients] == [503] * 3
    clients = crowd(3)
    gate.answer(hello(b"well", MAX_AGE))
    assert [client.receive().body for client in clients] == [b"well"] * 3
    assert gate.is_quiet()


def test_a_resource_that_can_be_shared_again_is(gate: Gate, crowd: Crowd) -> None:
    client = crowd(1)[0]
    gate.answer(hello(b"own", b"Cache-Control: no-store"))
    assert client.receive().body == b"own"
    client = crowd(1)[0]
    gate.answer(hello(b"all", MAX_AGE))
    assert client.receive().body == b"all"
    client = crowd(1, request_bytes(b"DELETE"))[0]
    gate.answer(hello(b"gone"))
    assert client.receive().body == b"gone"
    clients = crowd(3)
    gate.answer(hello(b"back", MAX_AGE))
    assert [client.receive().body for client in clients] == [b"back"] * 3
    assert gate.is_quiet()


def test_a_validation_is_made_once_for_all(gate: Gate, crowd: Crowd) -> None:
    first = crowd(1)[0]
    gate.answer(hello(b"old", b"Cache-Control: max-age=1", b'ETag: "1"'))
    first.receive()
    time.sleep(1.1)
    clients = crowd()
    gate.answer(hello(b"new", MAX_AGE, b'ETag: "2"'))
    assert [client.receive().body for client in clients] == [b"new"] * CLIENTS
    assert gate.is_quiet()


def test_what_must_be_validated_each_time_is_not_serialised(gate: Gate, crowd: Crowd) -> None:
    validated = b'HTTP/1.1 304 Not Modified\r\nCache-Control: no-cache\r\nETag: "1"\r\n\r\n'
    first = crowd(1)[0]
    gate.answer(hello(b"page", b"Cache-Control: no-cache", b'ETag: "1"'))
    first.receive()
    clients = crowd(4)
    gate.answer(validated)
    for _ in range(3):
        gate.answer(validated)
    assert [client.receive().body for client in clients] == [b"page"] * 4
    again = crowd(4)
    asked = [gate.next() for _ in again]
    for connection, _ in asked:
        connection.send(validated)
        gate.done(connection)
    assert [client.receive().body for client in again] == [b"page"] * 4


BUSY = b"HTTP/1.1 503 Busy\r\n"


@pytest.mark.parametrize(
    "failure",
    [b"", BUSY + b"Content-Length: 0\r\n\r\n", BUSY + b"Content-Length: 9\r\n\r\nsorry", BUSY + b"\r\n"],
    ids=["cut", "503", "503-unfinished", "503-endless"],
)
def test_where_the_upstream_fails_all_get_what_is_stored(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker, failure: bytes
) -> None:
    here = proxy(origin(gate), cache=CACHE, retries=0)
    clients = [here.client() for _ in range(4)]
    clients[0].send(request_bytes())
    stale = hello(b"stale", b"Cache-Control: max-age=1, stale-if-error=60", b'ETag: "1"', b"Connection: close")
    gate.answer(stale, stays=False)
    clients[0].receive()
    time.sleep(1.1)
    for client in clients:
        client.send(request_bytes())
    wait_for_active(here, 4)
    connection, _ = gate.next()
    if failure:
        connection.send(failure)
    else:
        connection.close()
    gate.done(connection, stays=bool(failure))
    assert [client.receive().body for client in clients] == [b"stale"] * 4
    assert gate.is_quiet()
    for client in clients:
        client.close()


def test_a_304_about_something_else_is_asked_again_once_for_all(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    first = crowd(1)[0]
    gate.answer(hello(b"old", b"Cache-Control: max-age=1", b'ETag: W/"1"'))
    first.receive()
    time.sleep(1.1)
    clients = crowd()
    asked = gate.answer(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
    assert asked.get(b"if-none-match") == b'W/"1"'
    asked = gate.answer(hello(b"new", b"Cache-Control: max-age=60", b'ETag: "1"'))
    assert asked.get(b"if-none-match") is None
    assert [client.receive().body for client in clients] == [b"new"] * CLIENTS
    assert gate.is_quiet()


def test_a_leader_that_leaves_while_others_wait_leaves_the_request_to_them(gate: Gate, crowd: Crowd) -> None:
    clients = crowd()
    connection, _ = gate.next()
    clients[0].reset()
    time.sleep(0.05)
    connection.send(hello(b"hello", MAX_AGE))
    gate.done(connection)
    assert [client.receive().body for client in clients[1:]] == [b"hello"] * (CLIENTS - 1)
    assert gate.is_quiet()


def test_a_leader_that_leaves_in_the_middle_does_not_cut_the_others(gate: Gate, crowd: Crowd) -> None:
    clients = crowd()
    connection, _ = gate.next()
    connection.send(CHUNKED_HEAD + b"5\r\nfirst\r\n")
    streams = [client.pieces(client.receive_head()) for client in clients]
    assert [read_piece(one, 5) for one in streams] == [b"first"] * CLIENTS
    clients[0].reset()
    time.sleep(0.05)
    connection.send(b"4\r\nrest\r\n" + END)
    assert [b"".join(one) for one in streams[1:]] == [b"rest"] * (CLIENTS - 1)
    gate.done(connection)


def test_a_leader_that_nobody_waits_for_takes_its_request_along(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    clients = crowd(3)
    connection, _ = gate.next()
    for client in clients[1:]:
        client.reset()
    wait_for_active(here, 1)
    clients[0].reset()
    wait_for_active(here, 0)
    assert connection.wait_closed()
    gate.done(connection, stays=False)


def test_followers_that_leave_hurt_nobody(gate: Gate, crowd: Crowd) -> None:
    clients = crowd()
    connection, _ = gate.next()
    clients[2].reset()
    connection.send(CHUNKED_HEAD + b"5\r\nfirst\r\n")
    clients[4].receive_head()
    clients[4].reset()
    time.sleep(0.05)
    connection.send(b"4\r\nrest\r\n" + END)
    gate.done(connection)
    left = [client for number, client in enumerate(clients) if number not in (2, 4)]
    assert [client.receive().body for client in left] == [b"firstrest"] * len(left)


def test_a_leader_that_fails_fails_nobody_else(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(gate), cache=CACHE, retries=0)
    clients = [here.client() for _ in range(4)]
    clients[0].send(request_bytes())
    connection, _ = gate.next()
    for client in clients[1:]:
        client.send(request_bytes())
    wait_for_active(here, 4)
    connection.close()
    gate.done(connection, stays=False)
    assert clients[0].receive().status == 502
    gate.answer(hello(b"hello", MAX_AGE))
    assert [client.receive().body for client in clients[1:]] == [b"hello"] * 3
    assert gate.is_quiet()
    for client in clients:
        client.close()


def test_after_two_failed_leaders_everybody_finds_out_alone(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(gate), cache=CACHE, retries=0)
    clients = [here.client() for _ in range(5)]
    for client in clients:
        client.send(request_bytes())
    wait_for_active(here, 5)
    for _ in range(2):
        connection, _ = gate.next()
        connection.close()
        gate.done(connection, stays=False)
    asked = [gate.next() for _ in range(3)]
    for connection, _ in asked:
        connection.send(hello(b"hello", MAX_AGE))
        gate.done(connection)
    statuses = sorted(client.receive().status for client in clients)
    assert statuses == [200, 200, 200, 502, 502]
    for client in clients:
        client.close()


def test_nobody_waits_for_a_second_one_when_the_first_took_long(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minato.net.follower._MAX_WAIT_S", 0.1)
    here = proxy(origin(gate), cache=CACHE, retries=0)
    clients = [here.client() for _ in range(4)]
    for count, client in enumerate(clients, 1):
        client.send(request_bytes())
        wait_for_active(here, count)
    connection, _ = gate.next()
    time.sleep(0.2)
    connection.close()
    gate.done(connection, stays=False)
    asked = [gate.next() for _ in range(3)]
    for connection, _ in asked:
        connection.send(hello(b"hello", MAX_AGE))
        gate.done(connection)
    assert [client.receive().status for client in clients] == [502, 200, 200, 200]
    for client in clients:
        client.close()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_response_cut_in_the_middle_is_a_cut_for_all_who_share_it(gate: Gate, crowd: Crowd, is_chunked: bool) -> None:
    clients = crowd(4)
    connection, _ = gate.next()
    head = CHUNKED_HEAD + b"5\r\n" if is_chunked else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n%b\r\n\r\n" % MAX_AGE
    connection.send(head + b"first" + (b"\r\n" if is_chunked else b""))
    for client in clients:
        client.receive_head()
    connection.close()
    gate.done(connection, stays=False)
    for client in clients:
        raw = client.read_to_end()
        assert b"first" in raw
        assert END not in raw
    again = crowd(1)[0]  # nothing of it was stored
    gate.answer(hello(b"whole", MAX_AGE))
    assert again.receive().body == b"whole"


def test_only_those_share_it_whom_vary_lets(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    german = request_bytes(fields=[(b"Accept-Language", b"de")])
    french = request_bytes(fields=[(b"Accept-Language", b"fr")])
    germans = crowd(3, german)
    frenchmen = crowd(3, french)
    request = gate.answer(hello(b"guten Tag", MAX_AGE, b"Vary: Accept-Language"))
    assert request.get(b"accept-language") == b"de"
    request = gate.answer(hello(b"bonjour", MAX_AGE, b"Vary: Accept-Language"))
    assert request.get(b"accept-language") == b"fr"
    assert [client.receive().body for client in germans] == [b"guten Tag"] * 3
    assert [client.receive().body for client in frenchmen] == [b"bonjour"] * 3
    assert gate.is_quiet()


def test_conditions_and_ranges_wait_for_the_whole(gate: Gate, crowd: Crowd) -> None:
    leader = crowd(1)[0]
    conditional = crowd(1, request_bytes(fields=[(b"If-None-Match", b'"1"')]))[0]
    partial = crowd(1, request_bytes(fields=[(b"Range", b"bytes=1-3")]))[0]
    gate.answer(hello(b"hello", MAX_AGE, b'ETag: "1"'))
    assert leader.receive().body == b"hello"
    assert conditional.receive().status == 304
    response = partial.receive()
    assert (response.status, response.body) == (206, b"ell")
    assert gate.is_quiet()


ALONE = {
    "no-cache": request_bytes(fields=[(b"Cache-Control", b"no-cache")]),
    "max-age=0": request_bytes(fields=[(b"Cache-Control", b"max-age=0")]),
    "pragma": request_bytes(fields=[(b"Pragma", b"no-cache")]),
    "no-store": request_bytes(fields=[(b"Cache-Control", b"no-store")]),
    "authorization": request_bytes(fields=[(b"Authorization", b"Basic eDp5")]),
    "a body": request_bytes(body=b"x"),
    "if-match": request_bytes(fields=[(b"If-Match", b'"1"')]),
    "POST": request_bytes(b"POST", body=b"x"),
}


@pytest.mark.parametrize("wire", ALONE.values(), ids=ALONE)
def test_requests_that_want_an_answer_of_their_own_wait_for_nobody(gate: Gate, crowd: Crowd, wire: bytes) -> None:
    leader = crowd(1)[0]
    first, _ = gate.next()
    alone = crowd(2, wire)
    others = [gate.next() for _ in range(2)]
    for connection, _ in [(first, None), *others]:
        connection.send(hello(b"hello", MAX_AGE))
        gate.done(connection)
    assert [client.receive().body for client in [leader, *alone]] == [b"hello"] * 3


def test_an_old_client_shares_it_too(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    leader = crowd(1)[0]
    old = here.client()
    old.send(request_bytes().replace(b"HTTP/1.1", b"HTTP/1.0"))
    wait_for_active(here, 2)
    gate.answer(CHUNKED_HEAD + b"5\r\nhello\r\n" + END)
    assert leader.receive().body == b"hello"
    assert old.read_to_end().endswith(b"\r\n\r\nhello")
    old.close()
    assert gate.is_quiet()


def test_an_unsafe_request_keeps_later_ones_from_what_was_asked_before_it(gate: Gate, crowd: Crowd) -> None:
    early = crowd(2)
    first, _ = gate.next()
    first.send(CHUNKED_HEAD + b"3\r\nold\r\n")
    poster = crowd(1, request_bytes(b"POST", body=b"x"))[0]
    gate.answer(hello(b"done"))
    assert poster.receive().body == b"done"
    late = crowd(2)
    second, _ = gate.next()
    second.send(hello(b"new", MAX_AGE))
    gate.done(second)
    assert [client.receive().body for client in late] == [b"new"] * 2
    first.send(END)
    gate.done(first)
    assert [client.receive().body for client in early] == [b"old"] * 2
    early[0].send(request_bytes())
    assert early[0].receive().body == b"new"


def test_an_unsafe_request_before_the_response_began_does_so_too(gate: Gate, crowd: Crowd) -> None:
    early = crowd(3)
    first, _ = gate.next()
    poster = crowd(1, request_bytes(b"POST", body=b"x"))[0]
    gate.answer(hello(b"done"))
    assert poster.receive().body == b"done"
    late = crowd(2)
    second, _ = gate.next()
    second.send(hello(b"new", MAX_AGE))
    gate.done(second)
    assert [client.receive().body for client in late] == [b"new"] * 2
    first.send(hello(b"old", MAX_AGE))
    gate.done(first)
    assert early[0].receive().body == b"old"
    # Who waited for it gets what is stored by now.
    assert [client.receive().body for client in early[1:]] == [b"new"] * 2
    early[0].send(request_bytes())
    assert early[0].receive().body == b"new"
    assert gate.is_quiet()


def test_a_slow_leader_does_not_make_it_slow_for_the_others(gate: Gate, here: Proxy) -> None:
    leader = Client(here.port, rcvbuf_bytes=4096)
    body = b"x" * 190_000
    leader.send(request_bytes())
    connection, _ = gate.next()
    others = [here.client() for _ in range(3)]
    for other in others:
        other.send(request_bytes())
    wait_for_active(here, 4)
    connection.send(hello(body, MAX_AGE))
    gate.done(connection)
    assert [other.receive().body for other in others] == [body] * 3
    assert leader.receive().body == body
    for client in [leader, *others]:
        client.close()


def test_a_body_that_outgrows_the_cache_still_reaches_all_who_share_it(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    clients = crowd(3)
    connection, _ = gate.next()
    received: list[bytes] = []
    readers = [threading.Thread(target=lambda one=client: received.append(one.receive().body)) for client in clients]
    for reader in readers:
        reader.start()
    connection.send(CHUNKED_HEAD)
    for _ in range(40):
        connection.send(b"10000\r\n" + b"y" * 65_536 + b"\r\n")
    connection.send(END)
    gate.done(connection)
    for reader in readers:
        reader.join(10)
    assert received == [b"y" * 65_536 * 40] * 3
    again = crowd(2)
    for _ in again:  # it is remembered
        gate.answer(hello(b"small", MAX_AGE))
    assert [client.receive().body for client in again] == [b"small"] * 2


def test_a_body_that_outgrew_the_cache_comes_no_faster_than_its_slowest_client_reads(gate: Gate, here: Proxy) -> None:
    quick, slow = here.client(), Client(here.port, rcvbuf_bytes=4096)
    for count, client in enumerate((quick, slow), 1):
        client.send(request_bytes())
        wait_for_active(here, count)
    connection, _ = gate.next()
    sent = threading.Event()

    def send() -> None:
        connection.send(CHUNKED_HEAD)
        for _ in range(400):
            connection.send(b"10000\r\n" + b"y" * 65_536 + b"\r\n")
        connection.send(END)
        gate.done(connection)
        sent.set()

    received: list[int] = []
    threads = [
        threading.Thread(target=send),
        threading.Thread(target=lambda: received.append(len(quick.receive().body))),
    ]
    for thread in threads:
        thread.start()
    assert not sent.wait(0.5)
    pending = here.call(lambda: max(client.stream.pending_bytes for client in here.server._clients))
    assert pending < 2_000_000
    received.append(len(slow.receive().body))
    for thread in threads:
        thread.join(10)
    assert received == [400 * 65_536] * 2
    quick.close()
    slow.close()


PURGES = [
    PurgeRequest(PurgeKind.URL, b"http://%b/" % request_bytes().partition(b"Host: ")[2].partition(b"\r\n")[0]),
    PurgeRequest(PurgeKind.TAG, b"b"),
    PurgeRequest(PurgeKind.ALL),
    PurgeRequest(PurgeKind.ALL, soft=True),
]


def purge(here: Proxy, purged: PurgeRequest) -> int:
    context = here.server._context
    cache = context.cache
    assert cache is not None
    return here.call(lambda: cache.purge(purged, context.loop.wall_s))


@pytest.mark.parametrize("purged", PURGES)
def test_who_waits_for_a_response_from_before_a_purge_shares_one_from_after_it(
    gate: Gate, crowd: Crowd, here: Proxy, purged: PurgeRequest
) -> None:
    leader, *others = crowd()
    connection, _ = gate.next()
    assert purge(here, purged) == 0
    connection.send(hello(b"old", MAX_AGE, b"Cache-Tag: a, b"))
    gate.done(connection)
    assert leader.receive().body == b"old"
    gate.answer(hello(b"new", MAX_AGE))
    assert [client.receive().body for client in others] == [b"new"] * len(others)
    leader.send(request_bytes())
    assert leader.receive().body == b"new"
    assert gate.is_quiet()


@pytest.mark.parametrize("purged", PURGES)
def test_who_comes_after_a_purge_does_not_share_what_came_in_part_before_it(
    gate: Gate, crowd: Crowd, here: Proxy, purged: PurgeRequest
) -> None:
    early = crowd(3)
    first, _ = gate.next()
    first.send(CHUNKED_HEAD.replace(b"\r\n\r\n", b"\r\nCache-Tag: a, b\r\n\r\n") + b"2\r\nol\r\n")
    streams = [client.pieces(client.receive_head()) for client in early]
    assert [read_piece(stream, 2) for stream in streams] == [b"ol"] * 3
    assert purge(here, purged) == 0
    late = crowd(3)
    gate.answer(hello(b"new", MAX_AGE))
    assert [client.receive().body for client in late] == [b"new"] * 3
    first.send(b"1\r\nd\r\n" + END)
    assert [b"".join(stream) for stream in streams] == [b"d"] * 3
    gate.done(first)
    late[0].send(request_bytes())
    assert late[0].receive().body == b"new"
    assert gate.is_quiet()
