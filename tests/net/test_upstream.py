"""Upstream connections against a scripted peer: reuse, and responses that are early, lying, cut or slow."""

from __future__ import annotations

import contextlib

import pytest

from minato.config.model import Timeouts
from minato.net.loop import Loop
from minato.net.upstream import ConnectionState
from tests.net.support import Clock, read_available, read_exactly, reset, settle, turn_until
from tests.net.upstream_bench import (
    BIG,
    GET,
    OK,
    Bench,
    Exchange,
    request_head,
)

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
