"""Validation behind a stale answer (stale-while-revalidate): once, for nobody, and of no harm to anybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from minato.shared.board import Counter
from tests.net.gate import CACHE, Gate, wait_for_active
from tests.net.hit_support import MAX_AGE
from tests.net.proxy import Proxy, hello
from tests.system.harness import Client, Origin, request_bytes
from tests.system.harness.origin import Script

OriginMaker = Callable[[Script], Origin]
ProxyMaker = Callable[..., Proxy]
Crowd = Callable[..., list[Client]]


def cache_status(response: Any) -> bytes:
    return bytes(response.get(b"cache-status"))


OVERDUE = hello(b"old", b"Cache-Control: max-age=0, stale-while-revalidate=60", b'ETag: "1"')
VALIDATED = b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n"


def settle(here: Proxy) -> None:
    """Wait until no exchange is under way, with or without a client."""
    wait_for_active(here, 0)
    deadline_s = time.monotonic() + 10
    while here.call(lambda: len(here.server._context.unattended)):
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_stale_answer_is_validated_once_behind_it(gate: Gate, crowd: Crowd, here: Proxy, method: bytes) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    for _ in range(3):
        client.send(request_bytes(method, fields=[(b"Range", b"bytes=0-0"), (b"If-None-Match", b'"x"')]))
        response = client.receive(method)
        assert response.status in (200, 206)
        assert cache_status(response).startswith(b"minato; hit; ttl=-1; detail=stale-while-revalidate")
    connection, request = gate.next()
    assert request.method == b"GET"
    assert (request.get(b"if-none-match"), request.get(b"range")) == (b'"1"', None)
    connection.send(VALIDATED)
    gate.done(connection)
    settle(here)
    client.send(request_bytes())
    response = client.receive()
    assert (response.body, cache_status(response)) == (b"old", b"minato; hit; ttl=60")
    assert gate.is_quiet()
    assert here.counted(Counter.CACHE_VALIDATIONS) == 1


def test_what_a_client_says_of_its_answer_is_not_said_to_the_upstream(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    client.send(request_bytes(fields=[(b"Cache-Control", b"only-if-cached")]))
    assert client.receive().body == b"old"
    request = gate.answer(VALIDATED)
    assert (request.get(b"cache-control"), request.get(b"if-none-match")) == (None, b'"1"')
    settle(here)


def test_a_client_that_wants_nothing_stored_has_nothing_validated(gate: Gate, crowd: Crowd) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    client.send(request_bytes(fields=[(b"Cache-Control", b"no-store")]))
    assert client.receive().body == b"old"
    assert gate.is_quiet()


def test_what_changed_is_stored_anew_behind_a_stale_answer(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    client.send(request_bytes())
    assert client.receive().body == b"old"
    gate.answer(hello(b"new", MAX_AGE, b'ETag: "2"'))
    settle(here)
    client.send(request_bytes())
    assert client.receive().body == b"new"


def test_a_validation_behind_the_answer_that_fails_hurts_nobody_and_is_tried_again(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = proxy(origin(gate), cache=CACHE, retries=0)
    client = here.client()
    client.send(request_bytes())
    gate.answer(OVERDUE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1), stays=False)
    client.receive()
    for _ in range(2):
        client.send(request_bytes())
        assert client.receive().body == b"old"
        connection, _ = gate.next()
        connection.close()
        gate.done(connection, stays=False)
        settle(here)
    client.send(request_bytes())
    assert client.receive().body == b"old"
    gate.answer(VALIDATED)
    settle(here)
    client.close()


def test_a_worker_that_stops_gives_up_what_it_validates_behind_answers(gate: Gate, crowd: Crowd, here: Proxy) -> None:
    client = crowd(1)[0]
    gate.answer(OVERDUE)
    client.receive()
    client.send(request_bytes())
    client.receive()
    connection, _ = gate.next()
    here.drain()
    client.close()
    assert here.drained.wait(5)
    assert connection.wait_closed()
    gate.done(connection, stays=False)
