"""Upstream connections against a scripted peer: reuse, and responses that are early, lying, cut or slow."""

from __future__ import annotations

import contextlib
import socket

import pytest

from minato.config.model import Limits, Timeouts
from minato.net.loop import Loop
from minato.net.stream import RECV_BYTES
from minato.net.upstream import ConnectionState, UpstreamConnection
from minato.protocol.message import ResponseHead
from tests.net.support import Clock, read_available, read_exactly, reset, settle, turn_until
from tests.net.upstream_bench import (
    BIG,
    GET,
    OK,
    Bench,
    Exchange,
    request_head,
)
from tests.protocol.differential import Worker

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
    assert (exchange.told, bench.idle_closed) == (["connected", "end"], [connection])


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
    "response",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 103 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_a_response_cut_short_or_malformed_is_a_502(bench: Bench, response: bytes) -> None:
    exchange = Exchange()
    connection, peer = bench.connect(exchange)
    peer.sendall(response)
    peer.close()
    bench.finish(exchange)
    assert exchange.told == ["connected", "failed"]
    assert exchange.error is not None
    assert exchange.error.status == 502
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


# -- responses that come whole


class WholeExchange(Exchange):
    """One that takes a response whole."""

    def __init__(self, *, complete: bool = True) -> None:
        super().__init__(complete=complete)
        self.takes_whole = True

    def on_whole_response(self, head: ResponseHead, data: bytes, body_at: int, payload_bytes: int) -> None:
        self.heads.append(head)
        self.body += data[body_at:]
        self.told.append("whole")

    @property
    def is_over(self) -> bool:
        return "whole" in self.told or super().is_over


@pytest.fixture
def whole_bench(bench: Bench) -> Bench:
    """A bench whose connections know ``OK`` and a like of it that says close."""
    worker = Worker(Limits())
    bench.make_codec = worker.client_codec
    for response in (OK, CLOSES, FILLS) * 3:
        codec = worker.client_codec()
        codec.expect_response(b"GET", b"")
        codec.feed(response)
        codec.next_event()
    return bench


CLOSES = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
FILLS = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (RECV_BYTES - 42)
FILLS += b"x" * (RECV_BYTES - 42)


def reuse_whole(connection: UpstreamConnection) -> WholeExchange:
    exchange = WholeExchange()
    exchange.connection = connection
    connection.reuse(exchange)
    exchange.send()
    return exchange


def test_one_connection_serves_whole_response_after_whole_response(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    for number in range(3):
        peer.sendall(OK)
        whole_bench.finish(exchange)
        assert (bytes(exchange.body), exchange.told[-1], exchange.statuses) == (b"ok", "whole", [200])
        assert (len(whole_bench.idle), connection.state) == (number + 1, ConnectionState.IDLE)
        exchange = reuse_whole(connection)
        settle(whole_bench.loop)
        assert read_exactly(peer, len(GET)) == GET


def test_whole_and_other_responses_take_turns_on_a_connection(whole_bench: Bench) -> None:
    exchange: Exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    for response, told in [(OK, "whole"), (OK.replace(b"200", b"404"), "end"), (OK, "whole")] * 2:
        peer.sendall(response)
        whole_bench.finish(exchange)
        assert (bytes(exchange.body), exchange.told[-1]) == (b"ok", told)
        exchange = reuse_whole(connection)
        settle(whole_bench.loop)
        peer.sendall(OK[:20])
        settle(whole_bench.loop)
        peer.sendall(OK[20:])
        whole_bench.finish(exchange)
        assert (bytes(exchange.body), exchange.told[-1]) == (b"ok", "end")
        exchange = reuse_whole(connection)
        settle(whole_bench.loop)


def test_a_whole_response_that_says_close_ends_its_connection(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    peer.sendall(CLOSES)
    whole_bench.finish(exchange)
    assert (exchange.told[-1], connection.state, whole_bench.idle) == ("whole", ConnectionState.CLOSED, [])
    assert read_exactly(peer, len(b"")) == b""


@pytest.mark.parametrize("behind", [OK, b"x"])
def test_a_whole_response_that_fills_the_read_is_looked_behind(whole_bench: Bench, behind: bytes) -> None:
    assert len(FILLS) == RECV_BYTES
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    peer.sendall(FILLS + behind)
    whole_bench.finish(exchange)
    assert (exchange.told[-1], connection.state, whole_bench.idle) == ("whole", ConnectionState.CLOSED, [])


def test_a_whole_response_that_fills_the_read_and_has_nothing_behind_it_keeps_its_connection(
    whole_bench: Bench,
) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    for number in range(4):
        peer.sendall(FILLS)
        whole_bench.finish(exchange)
        assert (exchange.told[-1], connection.state) == ("whole", ConnectionState.IDLE)
        assert len(whole_bench.idle) == number + 1
        exchange = reuse_whole(connection)
        settle(whole_bench.loop)


def test_a_whole_response_with_its_end_is_the_last_one(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    peer.sendall(OK)
    peer.shutdown(socket.SHUT_WR)
    whole_bench.finish(exchange)
    assert (exchange.told[-1], connection.state, whole_bench.idle) == ("whole", ConnectionState.CLOSED, [])


def test_a_whole_response_before_the_request_was_taken_ends_the_connection(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    for _ in range(6):
        connection.send(BIG)
    settle(whole_bench.loop)
    assert connection.congested
    peer.sendall(OK)
    whole_bench.finish(exchange)
    assert (exchange.told[-1], connection.state, whole_bench.idle) == ("whole", ConnectionState.CLOSED, [])


def test_a_whole_response_to_nothing_is_no_response(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    peer.sendall(OK)
    whole_bench.finish(exchange)
    exchange = WholeExchange()
    connection.reuse(exchange)
    peer.sendall(OK)
    whole_bench.finish(exchange)
    assert (exchange.told, connection.state) == (["failed"], ConnectionState.CLOSED)


def test_a_connection_is_closed_in_time_behind_a_whole_response(clock: Clock, whole_bench: Bench) -> None:
    whole_bench.timeouts = Timeouts(upstream_idle_s=30.0, response_s=10.0)
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    peer.sendall(OK)
    whole_bench.finish(exchange)
    clock.advance(29.0)
    settle(whole_bench.loop)
    assert (connection.state, exchange.told[-1]) == (ConnectionState.IDLE, "whole")
    clock.advance(1.1)
    settle(whole_bench.loop)
    assert connection.state is ConnectionState.CLOSED


def test_a_known_response_behind_an_interim_one_is_the_final_one(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    connection, peer = whole_bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    turn_until(whole_bench.loop, lambda: exchange.statuses == [103])
    peer.sendall(OK)
    whole_bench.finish(exchange)
    assert (exchange.statuses, bytes(exchange.body)) == ([103, 200], b"ok")
    assert connection.state is ConnectionState.IDLE


def test_a_known_response_inside_the_body_of_another_one_is_body(whole_bench: Bench) -> None:
    exchange = WholeExchange()
    _, peer = whole_bench.connect(exchange)
    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * len(OK)))
    turn_until(whole_bench.loop, lambda: exchange.statuses)
    for _ in range(2):
        peer.sendall(OK)
        settle(whole_bench.loop)
    whole_bench.finish(exchange)
    assert (bytes(exchange.body), exchange.told[-1]) == (OK + OK, "end")
