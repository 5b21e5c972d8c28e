"""When many connections are ready in one turn, none of them takes long."""

from __future__ import annotations

import socket
from collections.abc import Callable

from minato.net.loop import READ, Loop
from minato.net.splice import MAX_MOVE_BYTES, MAX_TURN_BYTES, PipePool
from minato.net.stream import RECV_BYTES
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.net.support import recorded_stream, settle
from tests.system.harness.origin import respond_always

Pair = Callable[[], tuple[socket.socket, socket.socket]]


def test_of_a_crowd_each_has_its_turn_and_no_turn_takes_long(loop: Loop, pair: Pair) -> None:
    """What a turn did is sent at its end, so all of a turn wait for the last one of it."""
    seen: list[bool] = []
    for _ in range(100):
        near, far = pair()
        loop.add(near.fileno(), READ, lambda _, near=near: seen.append((near.recv(1), loop.is_crowded)[1]))
        far.send(b"x")
    loop.turn(1.0)
    assert seen == [True] * 64
    loop.turn(1.0)
    assert seen[64:] == [False] * 36
    del seen[64:]
    near, far = pair()
    loop.add(near.fileno(), READ, lambda _: seen.append((near.recv(1), loop.is_crowded)[1]))
    far.send(b"x")
    loop.turn(1.0)
    assert seen[64:] == [False]


def test_in_a_crowd_no_stream_reads_more_than_its_share(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.pause_reading()
    far.setblocking(False)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2_000_000)
    far.send(b"x" * 1_000_000)
    settle(loop)
    assert owner.received == b""
    loop.is_crowded = True
    assert [len(stream.recv() or b"") for _ in range(3)] == [RECV_BYTES] * 3
    loop.is_crowded = False
    assert [len(stream.recv() or b"") for _ in range(3)] == [RECV_BYTES, 2 * RECV_BYTES, 4 * RECV_BYTES]
    while stream.recv():
        pass
    far.send(b"x" * 8 * RECV_BYTES)
    loop.is_crowded = True
    assert [len(stream.recv() or b"") for _ in range(2)] == [RECV_BYTES] * 2


def test_transfers_share_what_a_turn_may_move_and_each_goes_on() -> None:
    pool = PipePool()
    moved = []
    for _ in range(500):
        moved.append(pool.share_of_turn(1.0))
        pool.count_moved(moved[-1])
    assert moved[0] == MAX_MOVE_BYTES
    assert min(moved) == 65_536
    assert sum(moved) <= MAX_TURN_BYTES + 500 * 65_536
    assert pool.share_of_turn(1.01) == MAX_MOVE_BYTES


def test_the_kernel_takes_little_for_a_client_beyond_what_is_on_its_way(origin: OriginMaker, proxy: ProxyMaker) -> None:
    """Accepted sockets inherit it from the listener: no call for each."""
    here = proxy(origin(respond_always(hello())))
    with here.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: test.local\r\n\r\n")
        assert client.receive().status == 200
        (downstream,) = here.call(lambda: list(here.server._clients))
        sock = downstream.stream.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 131_072
