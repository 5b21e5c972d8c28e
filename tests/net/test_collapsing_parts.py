"""A part that many want whole: one request completes it for all of them, and nobody takes a part for the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.net.gate import Gate
from tests.net.hit_support import MAX_AGE
from tests.net.proxy import Proxy, hello
from tests.system.harness import Client, request_bytes

Crowd = Callable[..., list[Client]]

WHOLE = b"0123456789"
TAG = b'ETag: "a"'
CROWD = 5


def part(first: int, last: int) -> bytes:
    content = b"Content-Range: bytes %d-%d/%d" % (first, last, len(WHOLE))
    response = hello(WHOLE[first : last + 1], MAX_AGE, TAG, content)
    return response.replace(b"200 OK", b"206 Partial Content", 1)


@pytest.fixture
def client(here: Proxy, gate: Gate) -> Iterator[Client]:
    """One that has just got the first half, which is stored."""
    with here.client() as client:
        client.send(request_bytes(fields=[(b"Range", b"bytes=0-4")]))
        gate.answer(part(0, 4))
        assert client.receive().status == 206
        yield client


def told(clients: list[Client]) -> list[tuple[int, bytes, bytes | None]]:
    responses = [client.receive() for client in clients]
    return [(response.status, response.body, response.get(b"cache-status")) for response in responses]


def test_a_crowd_costs_one_request_for_the_rest(client: Client, gate: Gate, crowd: Crowd) -> None:
    clients = crowd(CROWD)
    assert gate.answer(part(5, 9)).get(b"range") == b"bytes=5-"
    assert told(clients) == [
        (200, WHOLE, b"minato; fwd=partial; fwd-status=206; stored; ttl=60"),
        *[(200, WHOLE, b"minato; fwd=partial; collapsed; ttl=60")] * (CROWD - 1),
    ]
    assert gate.is_quiet()


def test_a_crowd_shares_the_new_whole_where_the_part_is_outdated(client: Client, gate: Gate, crowd: Crowd) -> None:
    clients = crowd(CROWD)
    gate.answer(hello(b"new", MAX_AGE))
    assert {answer[:2] for answer in told(clients)} == {(200, b"new")}
    assert gate.is_quiet()


def test_a_crowd_waits_for_the_whole_where_the_rest_is_of_no_use(client: Client, gate: Gate, crowd: Crowd) -> None:
    clients = crowd(CROWD)
    gate.answer(part(5, 7), stays=False)
    assert gate.answer(hello(b"new", MAX_AGE)).get(b"range") is None
    assert {answer[:2] for answer in told(clients)} == {(200, b"new")}
    assert gate.is_quiet()


def test_those_who_complete_a_part_each_on_its_own_all_get_the_whole(client: Client, gate: Gate, crowd: Crowd) -> None:
    clients = crowd(CROWD, request_bytes(fields=[(b"Cache-Control", b"no-cache")]))
    connections = [gate.next()[0] for _ in clients]
    head, rest = part(5, 9)[:-5], part(5, 9)[-5:]
    for connection in connections:
        connection.send(head)
    time.sleep(0.1)  # all heads are read: one read after the first whole was stored would be asked for again
    for connection in connections:
        connection.send(rest)
        gate.done(connection)
    assert gate.is_quiet()
    assert {answer[:2] for answer in told(clients)} == {(200, WHOLE)}
