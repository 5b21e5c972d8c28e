"""Responses that are cut by a RST, and bytes that answer nothing: never a clean end, never stored, never an answer."""

from __future__ import annotations

import threading

import pytest

from minato.config.model import CacheConfig
from tests.net.proxy import OriginMaker, ProxyMaker, echo_target, hello
from tests.net.support import reset, send_until_stuck, settle, turn_until
from tests.net.upstream_bench import BIG, OK, Bench, Exchange
from tests.system.harness import OriginConnection, Truncated, request_bytes

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=100\r\n\r\n"


def test_a_reset_while_the_client_is_slow_is_no_end(bench: Bench) -> None:
    exchange = Exchange()
    exchange.pause_after = 0
    connection, peer = bench.connect(exchange)
    peer.sendall(UNTIL_CLOSE + b"x" * 60_000)
    turn_until(bench.loop, lambda: exchange.body)
    reset(peer)
    settle(bench.loop, 10)
    exchange.pause_after = None
    connection.resume()
    bench.finish(exchange)
    assert exchange.told == ["connected", "failed"]


def test_a_reset_behind_part_of_a_response_while_the_request_is_sent_is_no_end(bench: Bench) -> None:
    exchange = Exchange(complete=False)
    connection, peer = bench.connect(exchange)
    for _ in range(6):
        connection.send(BIG)
    peer.sendall(UNTIL_CLOSE + b"partial")
    turn_until(bench.loop, lambda: exchange.body == b"partial")
    assert connection.congested
    reset(peer)
    bench.finish(exchange)
    assert exchange.told == ["connected", "failed"]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_slow_client_sees_that_its_response_was_cut_and_nothing_of_it_is_stored(
    origin: OriginMaker, proxy: ProxyMaker, version: bytes
) -> None:
    was_reset = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(UNTIL_CLOSE)
        if connection.number:
            connection.send(b"the next one")
            return
        send_until_stuck(connection.sock, b"x" * 65_536, stuck_s=0.3)
        connection.reset()
        was_reset.set()

    there = origin(script)
    here = proxy(there, cache=CacheConfig(enabled=True, max_memory_bytes=1 << 30, max_body_size_bytes=1 << 30))
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(request_bytes(version=version))
        assert was_reset.wait(20)
        with pytest.raises((Truncated, ConnectionResetError)):
            client.digest(client.receive_head())
    with here.client() as client:
        assert client.request().body == b"the next one"


def test_an_uploading_client_sees_that_its_response_was_cut(origin: OriginMaker, proxy: ProxyMaker) -> None:
    stuck = threading.Event()

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        connection.send(UNTIL_CLOSE + b"partial")
        assert stuck.wait(20)
        connection.reset()

    with proxy(origin(script)).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"900000000")]))
        send_until_stuck(client.sock, b"x" * 65_536, stuck_s=0.3)
        client.sock.settimeout(10)
        pieces = client.pieces(client.receive_head())
        assert next(pieces) == b"partial"
        stuck.set()
        with pytest.raises((Truncated, ConnectionResetError)):
            list(pieces)


def test_what_came_before_the_request_fails_the_attempt(bench: Bench) -> None:
    first = Exchange()
    connection, peer = bench.connect(first)
    peer.sendall(OK)
    bench.finish(first)
    peer.sendall(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 4\r\n\r\nEVIL")
    second = bench.reuse(connection)
    bench.finish(second)
    assert (second.told, second.statuses) == (["failed"], [])
    assert second.error is not None
    assert second.error.retryable


def test_what_an_idle_connection_said_before_the_request_is_not_its_answer(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    speak, spoken = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        if connection.number:
            echo_target(connection)
            return
        connection.read_request()
        connection.send(hello())
        assert speak.wait(10)
        connection.send(hello(b"EVIL"))
        spoken.set()
        connection.read_request()

    there = origin(script)
    here = proxy(there)
    with here.client() as first, here.client() as second:
        assert first.request().body == b"hello"
        with here.held():
            second.send(request_bytes(target=b"/2"))
            speak.set()
            assert spoken.wait(10)
        assert second.receive().body == b"/2"
        assert first.request(target=b"/3").body == b"/3"
