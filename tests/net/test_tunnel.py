"""Tunnels: bytes both ways, half-closes, back-pressure, and one end for both sides."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from minato.net.loop import Loop
from minato.net.stream import HIGH_WATER_BYTES, MAX_RECV_BYTES, Stream
from minato.net.tunnel import Tunnel
from tests.net.support import PATIENCE_S, Clock, Recorder, fill, read_available, reset, settle, turn_until

Pair = Callable[[], tuple[socket.socket, socket.socket]]
BIG = random.Random(3).randbytes(6_000_000)


class Ends:
    """A tunnel between two TCP pairs; ``client`` and ``origin`` are the far ends."""

    def __init__(self, loop: Loop, pair: Pair, write_timeout_s: float = 60.0) -> None:
        self.loop = loop
        near_client, self.client = pair()
        near_origin, self.origin = pair()
        self.streams = [Stream(loop, near, Recorder(), write_timeout_s) for near in (near_client, near_origin)]
        for stream in self.streams:
            stream.start()
        self.closed = 0
        self.tunnel = Tunnel(self.streams[0], self.streams[1], self._on_closed)

    def _on_closed(self) -> None:
        self.closed += 1

    def receive(self, sock: socket.socket, size: int) -> bytes:
        """Read exactly ``size`` bytes at a far end, turning the loop."""
        data = bytearray()
        turn_until(self.loop, lambda: (data.extend(read_available(sock)), len(data) >= size)[1], f"{size} bytes")
        return bytes(data)

    def saturate(self) -> int:
        """Send from the origin until nobody takes more, the client reading nothing; return how many bytes went."""
        sent = 0

        def stuck() -> bool:
            nonlocal sent
            more = fill(self.origin)
            sent += more
            settle(self.loop)
            return not more and self.streams[0].congested

        turn_until(self.loop, stuck, "back-pressure")
        return sent

    def ended(self, sock: socket.socket) -> None:
        """Wait for the end at a far end."""
        sock.setblocking(False)

        def at_end() -> bool:
            try:
                return not sock.recv(1)
            except BlockingIOError:
                return False

        turn_until(self.loop, at_end, "the end")


@pytest.fixture
def ends(loop: Loop, pair: Pair) -> Iterator[Ends]:
    ends = Ends(loop, pair)
    yield ends
    ends.tunnel.close()


def test_bytes_pass_both_ways_and_are_counted(ends: Ends) -> None:
    ends.client.send(b"to origin")
    ends.origin.send(b"back")
    assert ends.receive(ends.origin, 9) == b"to origin"
    assert ends.receive(ends.client, 4) == b"back"
    assert (ends.tunnel.bytes_up, ends.tunnel.bytes_down, ends.closed) == (9, 4, 0)


def test_what_came_before_the_tunnel_opened_goes_first(ends: Ends) -> None:
    ends.tunnel.begin(b"early down", b"early up", client_ended=False)
    ends.client.send(b"+")
    ends.origin.send(b"-")
    assert ends.receive(ends.client, 11) == b"early down-"
    assert ends.receive(ends.origin, 9) == b"early up+"
    assert (ends.tunnel.bytes_up, ends.tunnel.bytes_down) == (9, 11)


@pytest.mark.parametrize("first", ["client", "origin"])
def test_each_side_may_end_first_and_still_receive(ends: Ends, first: str) -> None:
    one, other = (ends.client, ends.origin) if first == "client" else (ends.origin, ends.client)
    one.send(b"last")
    one.shutdown(socket.SHUT_WR)
    assert ends.receive(other, 4) == b"last"
    ends.ended(other)
    assert ends.closed == 0
    other.send(b"reply")
    assert ends.receive(one, 5) == b"reply"
    other.shutdown(socket.SHUT_WR)
    ends.ended(one)
    turn_until(ends.loop, lambda: ends.closed)
    settle(ends.loop)
    assert ends.closed == 1
    assert all(stream.closed for stream in ends.streams)


def test_a_client_that_had_ended_before_is_passed_on(ends: Ends) -> None:
    ends.tunnel.begin(b"", b"only this", client_ended=True)
    assert ends.receive(ends.origin, 9) == b"only this"
    ends.ended(ends.origin)
    ends.origin.send(b"reply")
    assert ends.receive(ends.client, 5) == b"reply"


def test_a_slow_reader_slows_the_sender(ends: Ends) -> None:
    sent = ends.saturate()
    assert ends.streams[0].pending_bytes <= HIGH_WATER_BYTES + MAX_RECV_BYTES
    received = 0

    def all_through() -> bool:
        nonlocal received
        received += len(read_available(ends.client))
        return received == sent

    turn_until(ends.loop, all_through, "the rest")
    assert ends.tunnel.bytes_down == sent


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_large_transfer_arrives_whole_before_the_end(ends: Ends, way: str) -> None:
    source, sink = (ends.origin, ends.client) if way == "down" else (ends.client, ends.origin)
    source.setblocking(False)
    left = memoryview(BIG)
    data = bytearray()

    def done() -> bool:
        nonlocal left
        if left:
            with contextlib.suppress(BlockingIOError):
                left = left[source.send(left[:100_000]) :]
            if not left:
                source.shutdown(socket.SHUT_WR)
        data.extend(read_available(sink))
        return len(data) >= len(BIG)

    turn_until(ends.loop, done, "all of it")
    assert data == BIG
    ends.ended(sink)


def test_the_origins_last_bytes_reach_a_slow_client_that_ended_first(ends: Ends) -> None:
    ends.client.shutdown(socket.SHUT_WR)
    ends.ended(ends.origin)
    ends.origin.settimeout(PATIENCE_S)
    sent = 0
    while not ends.streams[0].congested:
        ends.origin.sendall(BIG[sent : sent + 16_384])
        sent += 16_384
        settle(ends.loop)
    ends.origin.sendall(BIG[sent : sent + 20_000])
    sent += 20_000
    ends.origin.close()
    settle(ends.loop)
    assert ends.receive(ends.client, sent) == BIG[:sent]
    ends.ended(ends.client)
    turn_until(ends.loop, lambda: ends.closed)


@pytest.mark.parametrize("side", ["client", "origin"])
def test_a_reset_of_one_side_closes_the_other(ends: Ends, side: str) -> None:
    reset(getattr(ends, side))
    turn_until(ends.loop, lambda: ends.closed)
    assert all(stream.closed for stream in ends.streams)


def test_a_reset_while_the_sender_is_paused_closes_the_tunnel(ends: Ends) -> None:
    ends.saturate()
    reset(ends.origin)
    turn_until(ends.loop, lambda: ends.closed)


def test_a_side_that_never_reads_ends_the_tunnel_at_the_write_deadline(clock: Clock, loop: Loop, pair: Pair) -> None:
    ends = Ends(loop, pair, write_timeout_s=10.0)
    ends.saturate()
    clock.advance(9.0)
    settle(loop)
    assert ends.closed == 0
    clock.advance(1.1)
    settle(loop)
    assert ends.closed == 1


def test_close_closes_once(ends: Ends) -> None:
    ends.tunnel.close()
    ends.tunnel.close()
    assert ends.closed == 1


def test_keep_alive_probes_find_a_peer_that_is_gone(ends: Ends) -> None:
    for stream in ends.streams:
        assert stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 120
