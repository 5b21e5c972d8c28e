"""Peers that drip: cut for being slow altogether, never for what somebody else holds up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from minato.config.model import Limits, Timeouts
from minato.net.loop import Loop
from minato.net.stream import Stream
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, echo_target, hello, never_answer
from tests.net.support import Clock, Recorder, fill, send_until_stuck, settle, turn_until
from tests.system.harness import Client, OriginConnection, request_bytes, wait_until

Pair = Callable[[], tuple[socket.socket, socket.socket]]
MIB = 1_048_576


def pass_time(here: Proxy, clock: Clock, seconds: float) -> None:
    """Let time pass for the loop, and what comes of it happen."""
    clock.advance(seconds)
    for _ in range(2):
        here.call(lambda: None)


@contextlib.contextmanager
def upload(here: Proxy, *fields: tuple[bytes, bytes]) -> Iterator[Client]:
    with here.client() as client:
        client.send(request_bytes(b"POST", fields=fields))
        wait_until(lambda: here.board.active(0), "the request to be on its way")
        yield client


def drip(here: Proxy, clock: Clock, client: Client, piece: bytes, pause_s: float, most: int = 50) -> float:
    """Send a piece every ``pause_s`` until the server has answered; return after how long it did."""
    for number in range(most):
        with contextlib.suppress(OSError):
            client.send(piece)
        settle_bytes(here)
        pass_time(here, clock, pause_s)
        if here.call(lambda: here.board.active(0)) == 0:
            return (number + 1) * pause_s
    return most * pause_s


def settle_bytes(here: Proxy) -> None:
    """Loopback delivers at once; the loop has to take it in before time passes."""
    for _ in range(3):
        here.call(lambda: None)


LENGTH = (b"Content-Length", b"1000000")
CHUNKED = (b"Transfer-Encoding", b"chunked")


@pytest.mark.parametrize(("field", "piece"), [(LENGTH, b"x"), (CHUNKED, b"1\r\nx\r\n")], ids=["length", "chunked"])
def test_a_body_that_drips_is_408_though_no_pause_is_long(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, field: tuple[bytes, bytes], piece: bytes
) -> None:
    here = proxy(origin(never_answer), timeouts=Timeouts(client_body_s=60.0, response_s=1e6, write_s=1e6))
    with upload(here, field) as client:
        assert 60.0 <= drip(here, clock, client, piece, 5.0) <= 70.0
        response = client.receive()
        assert (response.status, response.says_close(), client.is_closed()) == (408, True, True)


def test_a_chunk_that_never_begins_is_408_after_one_pause(clock: Clock, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(never_answer), timeouts=Timeouts(client_body_s=60.0, response_s=1e6))
    with upload(here, CHUNKED) as client:
        assert drip(here, clock, client, b"0", 5.0) <= 65.0


def test_trailers_that_drip_are_408(clock: Clock, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(never_answer), timeouts=Timeouts(client_body_s=60.0, response_s=1e6))
    with upload(here, CHUNKED) as client:
        client.send(b"0\r\n")
        assert drip(here, clock, client, b"A: b\r\n", 5.0) <= 70.0
        assert client.receive().status == 408


def test_the_rest_of_a_fast_body_may_not_drip_for_long(clock: Clock, origin: OriginMaker, proxy: ProxyMaker) -> None:
    """Spliced, too: ten megabytes in a moment buy no drip of hours."""
    received = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_head()
        size = 0
        while size < 10 * MIB:
            size += len(connection.read_some())
        received.set()
        connection.wait_closed()

    here = proxy(origin(script), timeouts=Timeouts(client_body_s=60.0, response_s=1e6, write_s=1e6))
    with upload(here, (b"Content-Length", b"%d" % (20 * MIB))) as client:
        client.send(b"x" * (10 * MIB))
        assert received.wait(10)
        assert 60.0 <= drip(here, clock, client, b"x", 5.0) <= 70.0
        assert client.receive().status == 408


def test_pauses_within_the_timeout_are_no_drip(clock: Clock, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target), timeouts=Timeouts(client_body_s=60.0, response_s=1e6))
    with upload(here, (b"Content-Length", b"%d" % (20 * 15_000))) as client:
        assert drip(here, clock, client, b"x" * 15_000, 55.0, most=19) == 19 * 55.0
        client.send(b"x" * 15_000)
        assert client.receive().status == 200


def test_without_a_rate_a_body_may_drip(clock: Clock, origin: OriginMaker, proxy: ProxyMaker) -> None:
    limits = Limits(upload_bytes_per_s=0)
    here = proxy(origin(echo_target), limits=limits, timeouts=Timeouts(client_body_s=60.0, response_s=1e6))
    with upload(here, (b"Content-Length", b"21")) as client:
        assert drip(here, clock, client, b"x", 50.0, most=20) == 1000.0
        client.send(b"x")
        assert client.receive().status == 200


def test_an_origin_that_does_not_read_is_not_blamed_on_the_client(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    go_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_head()
        go_on.wait(20)
        size = 0
        while size < 40 * MIB:
            size += len(connection.read_some())
        connection.send(hello())

    timeouts = Timeouts(client_body_s=60.0, response_s=1e6, write_s=1e6)
    here = proxy(origin(script), timeouts=timeouts)
    with upload(here, (b"Content-Length", b"%d" % (40 * MIB))) as client:
        sent = send_until_stuck(client.sock, b"x" * 65_536)
        for _ in range(10):
            pass_time(here, clock, 100.0)
        go_on.set()
        client.sock.settimeout(10)
        client.send(b"x" * (40 * MIB - sent))
        assert client.receive().status == 200


def test_the_next_body_of_the_connection_has_a_credit_of_its_own(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = proxy(origin(echo_target), timeouts=Timeouts(client_body_s=60.0, response_s=1e6))
    with here.client() as client:
        for _ in range(3):
            client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"9")]))
            assert drip(here, clock, client, b"x", 5.0, most=8) == 40.0
            client.send(b"x")
            assert client.receive().status == 200


# -- readers


class Reading:
    """A stream with much to send, whose far side reads a little now and then."""

    def __init__(self, loop: Loop, clock: Clock, pair: Pair, min_bytes_per_s: int, sndbuf_bytes: int = 16_384) -> None:
        self.loop, self.clock = loop, clock
        near, self.far = pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf_bytes)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.owner = Recorder()
        self.stream = Stream(loop, near, self.owner, 60.0, min_bytes_per_s=min_bytes_per_s)
        self.owner.stream = self.stream
        self.stream.start()
        self.stream.write(b"x" * 50_000_000)
        settle(loop)
        clock.advance(1.0)
        settle(loop)

    def read(self, size: int) -> None:
        """Read that much, and let the kernel and the loop go on as far as they can."""
        while size:
            size -= len(self.far.recv(size))
            settle(self.loop)

    def is_cut(self) -> bool:
        settle(self.loop)
        return "write failed" in self.owner.told


def test_a_reader_below_the_rate_is_cut_though_it_never_pauses_for_long(
    loop_and_clock: tuple[Loop, Clock], pair: Pair
) -> None:
    loop, clock = loop_and_clock
    reading = Reading(loop, clock, pair, 3000)
    passed_s = 0.0
    while not reading.is_cut() and passed_s < 1000:
        reading.read(20_000)
        clock.advance(14.0)
        passed_s += 14.0
    assert 60.0 <= passed_s <= 400.0
    assert isinstance(reading.owner.error, TimeoutError)


def test_a_reader_above_the_rate_goes_on(loop_and_clock: tuple[Loop, Clock], pair: Pair) -> None:
    loop, clock = loop_and_clock
    reading = Reading(loop, clock, pair, 1000)
    for _ in range(60):
        reading.read(20_000)
        clock.advance(14.0)
        assert not reading.is_cut()


def test_without_a_rate_a_reader_may_be_slow(loop_and_clock: tuple[Loop, Clock], pair: Pair) -> None:
    loop, clock = loop_and_clock
    reading = Reading(loop, clock, pair, 0)
    for _ in range(60):
        reading.read(20_000)
        clock.advance(14.0)
        assert not reading.is_cut()


def test_a_reader_is_judged_by_what_it_reads_not_by_what_the_kernel_asks_for(
    loop_and_clock: tuple[Loop, Clock], pair: Pair
) -> None:
    """The kernel holds megabytes: it takes nothing for many minutes, while the client reads a kilobyte a second."""
    loop, clock = loop_and_clock
    reading = Reading(loop, clock, pair, 240, sndbuf_bytes=4_000_000)
    taken = reading.stream.sent_bytes
    for _ in range(20):
        reading.read(50_000)
        clock.advance(50.0)
        assert not reading.is_cut()
    assert reading.stream.sent_bytes == taken
    for _ in range(6):
        clock.advance(14.0)
        reading.is_cut()
    assert reading.is_cut()


def test_a_reader_that_stops_is_cut_once_the_pause_is_too_long(loop_and_clock: tuple[Loop, Clock], pair: Pair) -> None:
    loop, clock = loop_and_clock
    reading = Reading(loop, clock, pair, 240)
    for _ in range(3):
        clock.advance(19.0)
        assert not reading.is_cut()
    clock.advance(19.0)
    assert reading.is_cut()


def test_who_is_sent_nothing_is_no_slow_reader(loop_and_clock: tuple[Loop, Clock], pair: Pair) -> None:
    loop, clock = loop_and_clock
    near, far = pair()
    fill(near)
    near.setblocking(False)
    owner = Recorder()
    stream = Stream(loop, near, owner, 60.0, min_bytes_per_s=240)
    owner.stream = stream
    stream.start()
    stream.write(b"event")
    settle(loop)
    for _ in range(5):  # behind for a moment, again and again, and then for an hour with nothing to read
        far.settimeout(0)
        turn_until(loop, lambda: (drain(far), not stream.pending_bytes)[1])
        clock.advance(3600.0)
        settle(loop)
        fill(near)
        near.setblocking(False)
        stream.write(b"event")
        settle(loop)
    assert owner.told == [] and not stream.closed


def drain(far: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while far.recv(MIB):
            pass


def test_a_stream_of_a_tunnel_may_be_read_at_any_pace(loop_and_clock: tuple[Loop, Clock], pair: Pair) -> None:
    loop, clock = loop_and_clock
    reading = Reading(loop, clock, pair, 3000)
    reading.stream.allow_any_pace()
    for _ in range(60):
        reading.read(20_000)
        clock.advance(14.0)
        assert not reading.is_cut()


@pytest.fixture
def loop_and_clock(clock: Clock, loop: Loop) -> tuple[Loop, Clock]:
    return loop, clock
