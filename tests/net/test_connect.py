"""Connecting to an upstream: refusals, addresses in turn, deadlines, meeting oneself, TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minato.config.model import Timeouts
from minato.errors import UpstreamError
from minato.net import connect as connect_module
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress
from minato.net.upstream import ConnectionState, UpstreamConnection
from tests.net.support import Clock, settle, turn_until
from tests.net.upstream_bench import (
    BIG,
    GET,
    OK,
    Bench,
    Exchange,
    address_of,
    refusing_address,
    upstream_of,
)
from tests.system.harness import Origin, OriginConnection
from tests.system.harness.tls import Authority, unknown_server


def failed_connect(bench: Bench, *addresses: ResolvedAddress) -> tuple[UpstreamConnection, UpstreamError]:
    exchange = Exchange()
    exchange.connection = connection = bench.connection(upstream_of(*addresses))
    connection.connect(exchange)
    bench.finish(exchange)
    assert exchange.told == ["failed"]
    assert exchange.error is not None
    assert connection.state is ConnectionState.CLOSED
    return connection, exchange.error


def test_a_request_is_sent_and_its_response_read(bench: Bench) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    assert (connection.state, connection.sent_bytes) == (ConnectionState.BUSY, len(GET))
    peer.sendall(OK)
    bench.finish(exchange)
    assert (exchange.statuses, exchange.body, exchange.told) == ([200], b"ok", ["connected", "end"])
    assert (connection.state, bench.idle) == (ConnectionState.IDLE, [connection])


def test_a_refused_connection_is_told_as_such(bench: Bench) -> None:
    holder, address = refusing_address()
    with holder:
        connection, error = failed_connect(bench, address)
    assert connection.refused
    assert (error.status, error.retryable, error.public) == (502, True, "the upstream failed")
    assert "connection refused" in error.detail
    assert connection.upstream.url in error.detail


def test_the_next_address_is_tried(bench: Bench) -> None:
    holder, address = refusing_address()
    with holder:
        exchange = Exchange()
        connection = exchange.connection = bench.connection(upstream_of(address, address_of(bench.listener)))
        connection.connect(exchange)
        turn_until(bench.loop, lambda: exchange.told == ["connected"])
    assert not connection.refused


def test_all_addresses_refused_is_one_failure(bench: Bench) -> None:
    holder, address = refusing_address()
    with holder:
        connection, _ = failed_connect(bench, address, address, address)
    assert connection.refused


def test_a_name_that_does_not_resolve_is_a_failure_but_no_refusal(bench: Bench) -> None:
    connection, error = failed_connect(bench)
    assert not connection.refused
    assert (error.status, "does not resolve" in error.detail) == (502, True)


def test_a_peer_that_does_not_accept_in_time_counts_as_refusing(clock: Clock, loop: Loop) -> None:
    bench = Bench(loop, timeouts=Timeouts(connect_s=5.0))
    bench.listener.listen(0)
    waiting = [socket.socket() for _ in range(4)]  # they fill the queue, so that the kernel drops the next SYN
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(bench.listener.getsockname())
    exchange = Exchange()
    connection = exchange.connection = bench.connection()
    connection.connect(exchange)
    settle(loop)
    clock.advance(4.9)
    settle(loop)
    assert exchange.told == []
    clock.advance(0.2)
    settle(loop)
    assert exchange.told == ["failed"]
    assert exchange.error is not None
    assert (exchange.error.status, connection.refused) == (504, True)
    for sock in waiting:
        sock.close()
    bench.close()


def test_a_connection_that_met_itself_counts_as_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting to a free ephemeral port of this machine may pick that very port as its own."""
    holder, address = refusing_address()
    holder.close()

    class FromThere(socket.socket):
        def connect_ex(self, there: tuple[str, int]) -> int:  # type: ignore[override]
            self.bind(there)
            return super().connect_ex(there)

    patched = types.SimpleNamespace(**vars(socket))
    patched.socket = FromThere
    monkeypatch.setattr(connect_module, "socket", patched)
    connection, error = failed_connect(bench, address)
    assert connection.refused
    assert "connection refused" in error.detail


class Scarce:
    """Stands in for ``socket.socket``: fails for as long as ``is_out`` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, is_out: Callable[[], bool]) -> None:
        self.tries = 0
        self._is_out = is_out
        self._real = socket.socket
        patched = types.SimpleNamespace(**vars(socket))
        patched.socket = self
        monkeypatch.setattr(connect_module, "socket", patched)

    def __call__(self, *args: int) -> socket.socket:
        self.tries += 1
        if self._is_out():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._real(*args)


def test_without_descriptors_it_is_503_and_not_the_upstreams_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = Scarce(monkeypatch, lambda: True)
    connection, error = failed_connect(bench, address_of(bench.listener))
    assert (error.status, error.public, error.fields) == (503, "overloaded", ((b"retry-after", b"1"),))
    assert "cannot connect from here" in error.detail
    assert not connection.refused
    assert scarce.tries == 1


def test_idle_connections_make_room_for_one_that_is_needed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.spare = [socket.socket()]
    scarce = Scarce(monkeypatch, lambda: scarce.tries == 1)
    exchange = Exchange()
    connection = exchange.connection = bench.connection(upstream_of(address_of(bench.listener)))
    connection.connect(exchange)
    turn_until(bench.loop, lambda: exchange.told == ["connected"])
    assert (bench.spare, scarce.tries) == ([], 2)


def test_an_address_that_this_machine_cannot_ask_does_not_keep_the_next_from_being_tried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where IPv6 is off, "localhost" still has an IPv6 address first."""

    class OneFamily(socket.socket):
        def connect_ex(self, there: tuple[str, int]) -> int:  # type: ignore[override]
            return errno.EADDRNOTAVAIL if there[1] == 1 else super().connect_ex(there)

    patched = types.SimpleNamespace(**vars(socket))
    patched.socket = OneFamily
    monkeypatch.setattr(connect_module, "socket", patched)
    unknown = ResolvedAddress(socket.AF_INET, ("127.0.0.1", 1))
    exchange = Exchange()
    connection = exchange.connection = bench.connection(upstream_of(unknown, address_of(bench.listener)))
    connection.connect(exchange)
    turn_until(bench.loop, lambda: exchange.told == ["connected"])
    holder, refusing = refusing_address()
    with holder:
        connection, error = failed_connect(bench, refusing, unknown)
    assert (error.status, connection.refused) == (502, True)
    connection, error = failed_connect(bench, unknown)
    assert (error.status, connection.refused) == (503, False)


def test_closing_while_connecting_tells_nobody(bench: Bench) -> None:
    exchange = Exchange()
    connection = bench.connection()
    connection.connect(exchange)
    connection.close()
    connection.close()
    settle(bench.loop)
    assert exchange.told == []
    assert repr(connection).endswith(" closed>")


# -- TLS


Serve = Callable[[ssl.SSLContext], Origin]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve OK responses of 300 KB by TLS, in a thread."""
    origins: list[Origin] = []

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + BIG[:300_000])

    def start(context: ssl.SSLContext) -> Origin:
        origins.append(Origin(script, tls=context))
        return origins[-1]

    yield start
    for origin in origins:
        origin.stop()


def tls_exchange(bench: Bench, authority: Authority, origin: Origin, name: str) -> tuple[UpstreamConnection, Exchange]:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    address = ResolvedAddress(socket.AF_INET, ("127.0.0.1", origin.port))
    exchange = Exchange()
    connection = exchange.connection = bench.connection(upstream_of(address, tls=True, name=name), context)
    connection.connect(exchange)
    bench.finish(exchange)
    return connection, exchange


@pytest.mark.parametrize("name", ["origin.test", "127.0.0.1"])
def test_a_verified_tls_upstream_is_spoken_to_and_reused(
    bench: Bench, authority: Authority, serve: Serve, name: str
) -> None:
    connection, exchange = tls_exchange(bench, authority, serve(authority.server("origin.test", "127.0.0.1")), name)
    assert exchange.error is None
    assert (exchange.told, exchange.body) == (["connected", "end"], BIG[:300_000])
    second = bench.reuse(bench.idle.pop())
    bench.finish(second)
    assert second.body == BIG[:300_000]
    assert connection.reused


@pytest.mark.parametrize("bad", ["unknown authority", "other name"])
def test_a_tls_upstream_that_cannot_be_verified_is_a_502(
    bench: Bench, authority: Authority, serve: Serve, bad: str
) -> None:
    context = {
        "unknown authority": unknown_server("origin.test"),
        "other name": authority.server("another.test"),
    }[bad]
    connection, exchange = tls_exchange(bench, authority, serve(context), "origin.test")
    assert exchange.told == ["failed"]
    assert exchange.error is not None
    assert (exchange.error.status, connection.refused, connection.state) == (502, False, ConnectionState.CLOSED)
    assert "certificate not valid" in exchange.error.detail
    assert connection.sent_bytes == 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_an_upstream_that_speaks_no_tls_is_a_502(bench: Bench, answer: bytes) -> None:
    exchange = Exchange()
    address = address_of(bench.listener)
    connection = exchange.connection = bench.connection(upstream_of(address, tls=True), ssl.create_default_context())
    connection.connect(exchange)
    peer = bench.accept()
    peer.sendall(answer)
    peer.shutdown(socket.SHUT_WR)
    bench.finish(exchange)
    assert exchange.error is not None
    assert (exchange.told, exchange.error.status, connection.refused) == (["failed"], 502, False)
