"""What is left behind: bytes in a pooled connection, its end, bytes that a slow client has yet to read."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from minato.config.model import Timeouts
from minato.net.stream import RECV_BYTES
from tests.net.hit_support import CACHE, MAX_AGE
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.net.support import Clock
from tests.system.harness import Client, Origin, OriginConnection, request_bytes
from tests.system.harness.origin import respond_always

BIG_CACHE = replace(CACHE, max_body_size_bytes=16_777_216)
CLIENT_IDLE_S = 10.0
EXPRESS = pytest.mark.parametrize("express", [True, False])
GET = request_bytes()
POST = request_bytes(b"POST", target=b"/2", body=b"x")
HIT_BYTES = 200_000
HITS = 40  # together more than the kernel takes for a client that does not read


class Scene:
    """An origin whose first connection sends ``wire`` for its first request, when told; others answer ``fresh``."""

    def __init__(self, wire: bytes, *, closes: bool) -> None:
        self.go_on = threading.Event()
        self.sent = threading.Event()
        self._wire = wire
        self._closes = closes

    def __call__(self, connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            if connection.number:
                connection.send(hello(b"fresh", MAX_AGE))
                continue
            assert self.go_on.wait(10)
            connection.send(self._wire)
            if self._closes:
                connection.close()
            self.sent.set()
            if self._closes:
                return

    def play(self, here: Proxy, there: Origin, client: Client, wire: bytes) -> None:
        """Send the requests; all that the origin sends for the first comes to the loop at once."""
        client.send(wire)
        there.wait_requests(1)
        with here.held():
            self.go_on.set()
            assert self.sent.wait(10)


def filling_response() -> bytes:
    """Return a response that is just as long as what is read at once."""
    front_bytes = len(hello(b"a" * 10_000, MAX_AGE)) - 10_000
    wire = hello(b"a" * (RECV_BYTES - front_bytes), MAX_AGE)
    assert len(wire) == RECV_BYTES
    return wire


@EXPRESS
@pytest.mark.parametrize("second", [request_bytes(target=b"/2"), POST])
def test_an_unasked_response_behind_one_that_fills_the_read_answers_nobody(
    origin: OriginMaker, proxy: ProxyMaker, second: bytes, express: bool
) -> None:
    scene = Scene(filling_response() + hello(b"unasked", MAX_AGE), closes=False)
    there = origin(scene)
    here = proxy(there, cache=CACHE, express=express)
    with here.client() as client, here.client() as other:
        scene.play(here, there, client, GET + second)
        assert client.receive().body.strip(b"a") == b""
        assert client.receive().body == b"fresh"
        assert other.request(target=b"/2").body == b"fresh"
    assert [request.connection for request in there.requests[:2]] == [0, 1]


@EXPRESS
def test_a_post_is_not_risked_on_a_connection_that_has_ended_right_behind_its_response(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    scene = Scene(hello(), closes=True)
    there = origin(scene)
    here = proxy(there, express=express)
    with here.client() as client:
        scene.play(here, there, client, GET + POST)
        assert client.receive().body == b"hello"
        response = client.receive(b"POST")
    assert (response.status, response.body) == (200, b"fresh")
    assert [(request.method, request.connection) for request in there.requests] == [(b"GET", 0), (b"POST", 1)]


def stored_there(proxy: ProxyMaker, there: Origin, body_bytes: int, *, express: bool = True) -> Proxy:
    """Return a proxy that has the origin's response stored."""
    here = proxy(there, cache=BIG_CACHE, express=express, timeouts=Timeouts(client_idle_s=CLIENT_IDLE_S))
    with here.client() as client:
        assert len(client.request().body) == body_bytes
    return here


def let_turn(here: Proxy) -> None:
    """Let the loop handle all that has come to it."""
    for _ in range(3):
        here.call(lambda: None)


@EXPRESS
def test_a_slow_reader_of_a_hit_is_not_idle_while_bytes_are_pending(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    body = b"x" * (HITS * HIT_BYTES)
    there = origin(respond_always(hello(body, MAX_AGE)))
    here = stored_there(proxy, there, len(body), express=express)
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        head = client.receive_head()
        for _ in range(3):  # less than the write timeout
            let_turn(here)
            clock.advance(CLIENT_IDLE_S + 1.0)
        let_turn(here)
        assert client.digest(head)[0] == len(body)
        for _ in range(2):  # all is sent: now it is idle
            let_turn(here)
            clock.advance(CLIENT_IDLE_S + 1.0)
        assert client.is_closed()
    assert len(there.requests) == 1


@EXPRESS
def test_pipelined_hits_are_all_answered_to_a_client_that_ends_its_half_and_reads_late(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    there = origin(respond_always(hello(b"x" * HIT_BYTES, MAX_AGE)))
    here = stored_there(proxy, there, HIT_BYTES, express=express)
    with here.client(rcvbuf_bytes=65_536) as client:
        client.send(GET * HITS)
        client.half_close()
        first = client.receive_head()
        let_turn(here)  # the FIN has been seen, and the kernel takes no more
        sizes = [client.digest(first)[0]] + [client.digest(client.receive_head())[0] for _ in range(HITS - 1)]
        assert sizes == [HIT_BYTES] * HITS
        assert client.is_closed()
    assert len(there.requests) == 1
