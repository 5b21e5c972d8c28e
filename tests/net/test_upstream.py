"""Upstream connections against a scripted peer: connecting, reuse, early and lying responses, TLS."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minato.config.model import Limits, Timeouts
from minato.errors import UpstreamError
from minato.net import connect as connect_module
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress
from minato.net.runtime import UpstreamRuntime
from minato.net.upstream import ConnectionState, UpstreamConnection
from minato.protocol.message import Framing, RequestHead, ResponseHead
from tests.net.support import PATIENCE_S, Clock, read_available, read_exactly, reset, settle, turn_until
from tests.system.harness import Origin, OriginConnection
from tests.system.harness.tls import Authority, unknown_server

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BIG = random.Random(4).randbytes(3_000_000)


def request_head(method: bytes = b"GET", upgrade: bytes = b"") -> RequestHead:
    return RequestHead(method, b"/", 11, [(b"host", b"a")], Framing.NONE, 0, b"a", b"/", True, upgrade=upgrade)


class Exchange:
    """An UpstreamOwner that writes down what it is told; sends a GET as soon as it is connected."""

    def __init__(self, head: RequestHead | None = None, wire: bytes = GET, *, complete: bool = True) -> None:
        self.request_complete = complete
        self.connection: UpstreamConnection | None = None
        self.heads: list[ResponseHead] = []
        self.body = bytearray()
        self.told: list[str] = []
        self.error: UpstreamError | None = None
        self.pause_after: int | None = None
        self._head = head or request_head()
        self._wire = wire

    def on_connected(self) -> None:
        self.told.append("connected")
        self.send()

    def send(self) -> None:
        assert self.connection is not None
        self.connection.send_head(self._head, self._wire)
        if self.request_complete:
            self.connection.await_response()

    def on_response_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_response_body(self, data: bytes) -> None:
        self.body += data
        if self.pause_after is not None and len(self.body) > self.pause_after:
            assert self.connection is not None
            self.connection.pause()

    def on_response_end(self) -> None:
        self.told.append("end")

    def on_upstream_drained(self) -> None:
        self.told.append("drained")

    def on_upstream_deadline(self) -> None:
        self.told.append("deadline")

    def on_upstream_failed(self, error: UpstreamError) -> None:
        self.told.append("failed")
        self.error = error

    @property
    def statuses(self) -> list[int]:
        return [head.status for head in self.heads]

    @property
    def is_over(self) -> bool:
        return "end" in self.told or "failed" in self.told


def address_of(sock: socket.socket) -> ResolvedAddress:
    return ResolvedAddress(socket.AF_INET, sock.getsockname())


def refusing_address() -> tuple[socket.socket, ResolvedAddress]:
    """An address on which nobody listens, as long as the socket is kept open."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder, address_of(holder)


def upstream_of(*addresses: ResolvedAddress, tls: bool = False, name: str = "127.0.0.1") -> UpstreamRuntime:
    port = addresses[0].sockaddr[1] if addresses else 81
    return UpstreamRuntime(
        url=f"{'https' if tls else 'http'}://{name}:{port}",
        index=0,
        origin=("http", name, port),
        port=port,
        authority=b"a",
        server_name=name,
        is_tls=tls,
        prefix=b"",
        query=b"",
        addresses=addresses,
    )


class Bench:
    """A loop, a listening peer, connections to it; ``idle`` were offered for reuse, ``idle_closed`` taken back."""

    def __init__(self, loop: Loop, *, timeouts: Timeouts | None = None) -> None:
        self.loop = loop
        self.timeouts = timeouts or Timeouts()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.idle: list[UpstreamConnection] = []
        self.idle_closed: list[UpstreamConnection] = []
        self.made: list[UpstreamConnection] = []
        self.peers: list[socket.socket] = []

    def connection(
        self, upstream: UpstreamRuntime | None = None, tls: ssl.SSLContext | None = None
    ) -> UpstreamConnection:
        upstream = upstream or upstream_of(address_of(self.listener))
        made = UpstreamConnection(
            self.loop, upstream, self.timeouts, Limits(), tls, self.idle.append, self.idle_closed.append
        )
        self.made.append(made)
        return made

    def accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        peer.settimeout(PATIENCE_S)
        self.peers.append(peer)
        return peer

    def connect(self, exchange: Exchange) -> tuple[UpstreamConnection, socket.socket]:
        """Connect for the exchange; return the connection and the peer's side of it, its request read."""
        connection = exchange.connection = self.connection()
        connection.connect(exchange)
        peer = self.accept()
        turn_until(self.loop, lambda: "connected" in exchange.told)
        settle(self.loop)
        assert read_exactly(peer, len(GET)) == GET
        return connection, peer

    def reuse(self, connection: UpstreamConnection) -> Exchange:
        exchange = Exchange()
        exchange.connection = connection
        connection.reuse(exchange)
        exchange.send()
        return exchange

    def finish(self, exchange: Exchange) -> None:
        turn_until(self.loop, lambda: exchange.is_over, "the end of the exchange")

    def close(self) -> None:
        for connection in self.made:
            connection.close()
        for sock in (self.listener, *self.peers):
            sock.close()


@pytest.fixture
def bench(loop: Loop) -> Iterator[Bench]:
    bench = Bench(loop)
    yield bench
    bench.close()


def failed_connect(bench: Bench, *addresses: ResolvedAddress) -> tuple[UpstreamConnection, UpstreamError]:
    exchange = Exchange()
    exchange.connection = connection = bench.connection(upstream_of(*addresses))
    connection.connect(exchange)
    bench.finish(exchange)
    assert exchange.told == ["failed"]
    assert exchange.error is not None
    assert connection.state is ConnectionState.CLOSED
    return connection, exchange.error


# -- connecting


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


def test_closing_while_connecting_tells_nobody(bench: Bench) -> None:
    exchange = Exchange()
    connection = bench.connection()
    connection.connect(exchange)
    connection.close()
    connection.close()
    settle(bench.loop)
    assert exchange.told == []
    assert repr(connection).endswith(" closed>")


# -- reuse


def test_one_connection_serves_exchange_after_exchange(bench: Bench) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    for number in range(3):
        peer.sendall(OK)
        bench.finish(exchange)
        assert (exchange.body, len(bench.idle), connection.reused) == (b"ok", number + 1, number > 0)
        assert connection.is_alive()
        exchange = bench.reuse(connection)
        settle(bench.loop)
        assert (read_exactly(peer, len(GET)), connection.sent_bytes) == (GET, len(GET))


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"surplus",
        OK + OK,
        OK + b"\r\n",
        b"HTTP/1.1 204 x\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 204 x\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 304 x\r\ncontent-length: 2\r\n\r\nok",
    ],
)
def test_a_connection_that_cannot_be_trusted_is_not_reused(bench: Bench, response: bytes) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(response)
    bench.finish(exchange)
    assert exchange.told == ["connected", "end"]
    assert (connection.state, bench.idle) == (ConnectionState.CLOSED, [])
    assert peer.recv(1) == b""


def test_a_response_before_the_request_is_whole_ends_the_connection(bench: Bench) -> None:
    exchange = Exchange(complete=False)
    connection, peer = bench.connect(exchange)
    peer.sendall(OK)
    bench.finish(exchange)
    assert (exchange.told, connection.state) == (["connected", "end"], ConnectionState.CLOSED)


def test_an_idle_connection_that_the_upstream_closes_is_noticed(bench: Bench) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(OK)
    bench.finish(exchange)
    peer.close()
    turn_until(bench.loop, lambda: connection.state is ConnectionState.CLOSED)
    assert exchange.told == ["connected", "end"]


@pytest.mark.parametrize("end", ["close", "reset", "bytes"])
def test_a_dead_idle_connection_can_be_found_out_before_it_is_used(bench: Bench, end: str) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(OK)
    bench.finish(exchange)
    assert connection.is_alive()
    if end == "bytes":
        peer.sendall(OK)
    elif end == "close":
        peer.close()
    else:
        reset(peer)
    turn_until(Loop(), lambda: not connection.is_alive(), "the peer's end")


def test_bytes_that_nobody_asked_for_close_an_idle_connection(bench: Bench) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(OK)
    bench.finish(exchange)
    peer.sendall(OK)
    turn_until(bench.loop, lambda: connection.state is ConnectionState.CLOSED)


def test_an_idle_connection_is_closed_in_time(clock: Clock, loop: Loop) -> None:
    bench = Bench(loop, timeouts=Timeouts(upstream_idle_s=30.0))
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(OK)
    bench.finish(exchange)
    clock.advance(29.0)
    settle(loop)
    assert connection.state is ConnectionState.IDLE
    clock.advance(1.1)
    settle(loop)
    assert connection.state is ConnectionState.CLOSED
    bench.close()


def test_a_stale_connection_fails_without_a_byte_of_response(bench: Bench) -> None:
    first = Exchange()
    connection, peer = bench.connect(first)
    peer.sendall(OK)
    bench.finish(first)
    second = bench.reuse(connection)
    peer.close()
    bench.finish(second)
    assert second.error is not None
    assert (second.told, second.error.retryable) == (["failed"], True)
    assert (connection.reused, connection.response_bytes) == (True, 0)


# -- responses


def test_interim_responses_come_before_the_final_one(bench: Bench) -> None:
    exchange = Exchange()
    _, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    turn_until(bench.loop, lambda: exchange.statuses == [103])
    peer.sendall(OK)
    bench.finish(exchange)
    assert exchange.statuses == [103, 200]


def test_pieces_are_handed_on_as_they_come(bench: Bench) -> None:
    exchange = Exchange()
    _, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent")
    turn_until(bench.loop, lambda: exchange.body == b"event")
    peer.sendall(b"\r\n0\r\n\r\n")
    bench.finish(exchange)
    assert exchange.told == ["connected", "end"]


def test_a_body_without_length_ends_with_the_connection(bench: Bench) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    peer.close()
    bench.finish(exchange)
    assert (exchange.body, exchange.told) == (b"all of it", ["connected", "end"])
    assert (connection.state, bench.idle) == (ConnectionState.CLOSED, [])


@pytest.mark.parametrize(
    ("response", "retryable"),
    [
        (b"", True),
        (b"HTTP/1.1 200 O", False),
        (b"HTTP/1.1 103 x\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", False),
        (b"rubbish\r\n\r\n", False),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", False),
    ],
)
def test_a_response_cut_short_or_malformed_is_a_502(bench: Bench, response: bytes, retryable: bool) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(response)
    peer.close()
    bench.finish(exchange)
    assert exchange.told == ["connected", "failed"]
    assert exchange.error is not None
    assert (exchange.error.status, exchange.error.retryable) == (502, retryable)
    assert (connection.state, bench.idle) == (ConnectionState.CLOSED, [])


def test_a_reset_in_the_body_is_a_502(bench: Bench) -> None:
    exchange = Exchange()
    _, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    turn_until(bench.loop, lambda: exchange.body)
    reset(peer)
    bench.finish(exchange)
    assert exchange.error is not None
    assert (exchange.error.status, "connection reset" in exchange.error.detail) == (502, True)


def test_an_answer_before_the_whole_request_is_read_though_the_peer_then_resets(bench: Bench) -> None:
    """A 413 in the middle of an upload: the peer closes with unread bytes, so that the kernel sends a RST."""
    exchange = Exchange(complete=False)
    connection, peer = bench.connect(exchange)
    for _ in range(6):
        connection.send(BIG)
    settle(bench.loop)
    peer.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nbig\n")
    peer.close()
    bench.finish(exchange)
    assert (exchange.statuses, exchange.body) == ([413], b"big\n")
    assert exchange.told[-1] == "end"
    connection.send(b"the rest goes nowhere")
    settle(bench.loop)


def test_a_reset_in_the_middle_of_an_upload_without_an_answer_is_a_failure(bench: Bench) -> None:
    exchange = Exchange(complete=False)
    connection, peer = bench.connect(exchange)
    for _ in range(6):
        connection.send(BIG)
    settle(bench.loop)
    assert connection.congested
    reset(peer)
    bench.finish(exchange)
    assert exchange.told[-1] == "failed"


def test_the_exchange_hears_when_the_upstream_has_caught_up(bench: Bench) -> None:
    exchange = Exchange(complete=False)
    connection, peer = bench.connect(exchange)
    connection.send(BIG)
    assert connection.congested
    turn_until(bench.loop, lambda: (read_available(peer), "drained" in exchange.told)[1])
    assert not connection.congested


def test_a_paused_response_stays_with_the_upstream_until_it_is_resumed(bench: Bench) -> None:
    body = BIG * 6
    exchange = Exchange()
    exchange.pause_after = 10_000
    connection, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
    peer.setblocking(False)
    left = memoryview(body)

    def push() -> None:
        nonlocal left
        with contextlib.suppress(BlockingIOError):
            while left:
                left = left[peer.send(left[:262_144]) :]

    for _ in range(20):
        push()
        settle(bench.loop)
    assert len(exchange.body) < 50_000
    assert len(left) > 1_000_000
    exchange.pause_after = None
    connection.resume()
    turn_until(bench.loop, lambda: (push(), exchange.is_over)[1], "the whole body")
    assert exchange.body == body
    assert exchange.told[-1] == "end"


def test_a_response_that_was_received_whole_while_paused_is_not_lost_when_the_peer_is_gone(bench: Bench) -> None:
    exchange = Exchange()
    exchange.pause_after = 0
    connection, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 60000\r\n\r\n" + b"x" * 60_000)
    peer.close()
    settle(bench.loop, 10)
    assert not exchange.is_over
    exchange.pause_after = None
    connection.resume()
    bench.finish(exchange)
    assert (len(exchange.body), exchange.told[-1]) == (60_000, "end")


def test_the_response_is_due_once_the_request_is_whole(clock: Clock, loop: Loop) -> None:
    bench = Bench(loop, timeouts=Timeouts(response_s=10.0, read_s=60.0))
    exchange = Exchange(complete=False)
    connection, peer = bench.connect(exchange)
    clock.advance(100.0)
    settle(loop)
    assert "deadline" not in exchange.told
    connection.await_response()
    clock.advance(9.0)
    settle(loop)
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
    turn_until(loop, lambda: exchange.body)
    clock.advance(59.0)
    settle(loop)
    assert "deadline" not in exchange.told
    clock.advance(1.1)
    settle(loop)
    assert "deadline" in exchange.told
    bench.close()


def test_a_slow_client_is_not_taken_for_a_slow_upstream(clock: Clock, loop: Loop) -> None:
    bench = Bench(loop, timeouts=Timeouts(read_s=10.0))
    exchange = Exchange()
    exchange.pause_after = 0
    connection, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
    turn_until(loop, lambda: exchange.body)
    clock.advance(100.0)
    settle(loop)
    assert "deadline" not in exchange.told
    connection.resume()
    settle(loop)
    clock.advance(10.1)
    settle(loop)
    assert "deadline" in exchange.told
    bench.close()


def test_a_switch_gives_the_stream_away_with_what_came_behind(bench: Bench) -> None:
    exchange = Exchange(request_head(upgrade=b"websocket"))
    connection, peer = bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst frame")
    turn_until(bench.loop, lambda: exchange.statuses == [101])
    stream, early = connection.start_tunnel()
    assert (early, connection.state) == (b"first frame", ConnectionState.TUNNEL)
    stream.close()


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
