"""A whole server that splices large bodies: whole, in order, slowed, cut and counted like any other body."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minato.config.model import CacheConfig, Limits, Timeouts
from minato.net import downstream as downstream_module
from minato.net import splice as splice_module
from minato.net.splice import Pipe
from minato.shared.board import Counter
from tests.net.proxy import Entries, OriginMaker, Proxy, ProxyMaker, hello, never_answer
from tests.net.support import Clock, open_pipes, send_until_stuck
from tests.system.harness import Client, OriginConnection, Truncated, request_bytes, wait_until
from tests.system.harness.origin import respond_always

BODY = random.Random(7).randbytes(1_500_000)
HUGE_BYTES = 900_000_000  # more than the kernel takes for anybody who does not read
GET = request_bytes()
PUT = request_bytes(b"PUT", fields=[(b"Content-Length", b"%d" % len(BODY))])
EITHER_WAY = pytest.mark.parametrize("express", [True, False])


class Spliced:
    """Counts the bytes that went through pipes."""

    def __init__(self) -> None:
        self.total_bytes = 0


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Run around all the other fixtures: what they closed has closed its pipes, and nothing went wrong inside."""
    before = open_pipes()
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    wait_until(lambda: open_pipes() <= before, "the pipes to be closed")


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch) -> Spliced:
    spliced = Spliced()
    real = Pipe.fill

    def fill(self: Pipe, fd: int, max_bytes: int) -> int:
        size = real(self, fd, max_bytes)
        spliced.total_bytes += size
        return size

    monkeypatch.setattr(Pipe, "fill", fill)
    return spliced


def begin(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size


def echo_digest(connection: OriginConnection) -> None:
    """Answer every request with the digest of its body."""
    while (request := connection.read_request()) is not None:
        connection.send(hello(request.target + b" " + hashlib.sha256(request.body).hexdigest().encode()))


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def held_pipes(here: Proxy) -> int:
    return here.call(lambda: here.server._context.pipes.held)


# -- responses


@EITHER_WAY
def test_a_large_response_arrives_whole_and_the_connections_serve_on(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, express: bool
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(BODY if request.target == b"/large" else request.target))

    there = origin(script)
    here = proxy(there, express=express)
    with here.client() as client:
        for number in range(3):
            assert client.request(target=b"/large").body == BODY
            assert client.request(target=b"/%d" % number).body == b"/%d" % number
    assert len(there.connections) == 1
    assert (spliced.total_bytes > 3_000_000) == express
    assert held_pipes(here) == 0


def test_pipelined_large_responses_come_in_order(origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(request.target + BODY))

    here = proxy(origin(script))
    with here.client(rcvbuf_bytes=65_536) as client:
        client.send(b"".join(request_bytes(target=b"/%d" % number) for number in range(5)))
        for number in range(5):
            assert client.receive().body == b"/%d" % number + BODY
    assert spliced.total_bytes > 5_000_000


def test_a_small_response_is_not_spliced(origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced) -> None:
    here = proxy(origin(respond_always(hello(BODY[:50_000]))))
    with here.client() as client:
        assert client.request().body == BODY[:50_000]
    assert spliced.total_bytes == 0


def test_a_response_that_is_stored_is_not_spliced_and_one_that_is_too_large_is(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    there = origin(respond_always(hello(BODY, b"Cache-Control: max-age=60")))
    here = proxy(there, cache=CacheConfig(enabled=True, max_body_size_bytes=2_000_000))
    with here.client() as client:
        assert client.request().body == client.request().body == BODY
    assert len(there.requests) == 1
    assert spliced.total_bytes == 0
    other = proxy(there, cache=CacheConfig(enabled=True, max_body_size_bytes=1_000_000))
    with other.client() as client:
        assert client.request().body == client.request().body == BODY
    assert len(there.requests) == 3
    assert spliced.total_bytes > 2_000_000


def test_without_pipes_bodies_are_copied(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice_module.PipePool, "_make", lambda self: None)
    here = proxy(origin(echo_digest))
    other = proxy(origin(respond_always(hello(BODY))))
    with here.client() as client, other.client() as reader:
        client.send(PUT + BODY)
        assert client.receive().body == b"/ " + digest(BODY)
        assert reader.request().body == BODY
    assert spliced.total_bytes == 0


def test_pipes_that_run_out_in_the_middle_make_no_difference(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, chance = splice_module.PipePool.take, random.Random(3)
    monkeypatch.setattr(splice_module.PipePool, "take", lambda self: real(self) if chance.random() < 0.5 else None)
    here = proxy(origin(respond_always(hello(BODY))))
    other = proxy(origin(echo_digest))
    with here.client() as client, other.client() as sender:
        for _ in range(5):
            assert client.request().body == BODY
            sender.send(PUT + BODY)
            assert sender.receive().body == b"/ " + digest(BODY)


@pytest.mark.parametrize("surplus", [hello(b"unasked"), b"x"])
def test_bytes_behind_a_spliced_response_answer_nobody(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, surplus: bytes
) -> None:
    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(hello(b"fresh") if connection.number else hello(BODY) + surplus)

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        client.send(GET + request_bytes(target=b"/2"))
        assert client.receive().body == BODY
        assert client.receive().body == b"fresh"
    assert spliced.total_bytes
    assert len(there.connections) == 2


@pytest.mark.parametrize("cut", [OriginConnection.close, OriginConnection.reset], ids=["FIN", "RST"])
def test_a_response_that_is_cut_is_delivered_up_to_there_and_never_ends_cleanly(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, cut: Callable[[OriginConnection], None]
) -> None:
    may_cut = threading.Event()

    def script(connection: OriginConnection) -> None:
        assert connection.read_request() is not None
        connection.send(begin(len(BODY)) + BODY[:1_000_000])
        assert may_cut.wait(10)
        cut(connection)

    log = Entries()
    here = proxy(origin(script), access_log=log)
    with here.client() as client:
        client.send(GET)
        pieces = client.pieces(client.receive_head())
        received = b""
        while len(received) < 1_000_000:
            received += next(pieces)
        may_cut.set()
        with pytest.raises(Truncated):
            next(pieces)
    assert received == BODY[:1_000_000]
    assert spliced.total_bytes
    assert log.entries[0].body_bytes == 1_000_000
    assert held_pipes(here) == 0


@pytest.mark.parametrize("cut", [OriginConnection.close, OriginConnection.reset], ids=["FIN", "RST"])
def test_a_slow_client_gets_what_had_come_before_the_cut(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, cut: Callable[[OriginConnection], None]
) -> None:
    sent: list[int] = []
    was_cut = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(HUGE_BYTES))
        sent.append(send_until_stuck(connection.sock, b"x" * 65_536))
        cut(connection)
        was_cut.set()

    here = proxy(origin(script))
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        assert was_cut.wait(30)
        head, size = client.receive_head(), 0
        with pytest.raises(Truncated):
            for piece in client.pieces(head):
                size += len(piece)
    # A reset takes with it what the sender's kernel had not sent yet, but nothing of what minato had read.
    assert size == sent[0] if cut is OriginConnection.close else spliced.total_bytes <= size <= sent[0]
    assert spliced.total_bytes > 100_000


def test_an_origin_is_slowed_by_a_client_that_does_not_read_and_nothing_spins(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    sent: list[int] = []
    stuck = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(HUGE_BYTES))
        sent.append(send_until_stuck(connection.sock, b"x" * 65_536))
        stuck.set()

    here = proxy(origin(script))
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        assert stuck.wait(20)
        assert sent[0] < 60_000_000
        assert held_pipes(here) == 1
        turns = count_turns(here)
        assert turns < 20
        pieces = client.pieces(client.receive_head())
        size = 0
        while size < sent[0]:
            size += len(next(pieces))
        assert size == sent[0]
    wait_until(lambda: held_pipes(here) == 0, "the pipe to be given back")
    assert spliced.total_bytes > 1_000_000


def count_turns(here: Proxy) -> int:
    """Count how often the loop turns in a third of a second in which nothing happens."""
    turns = 0
    real = here.loop.turn

    def turn(*arguments: Any) -> None:
        nonlocal turns
        turns += 1
        real(*arguments)

    here.call(lambda: setattr(here.loop, "turn", turn))
    threading.Event().wait(0.3)
    here.call(lambda: delattr(here.loop, "turn"))
    return turns


@pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["FIN", "RST"])
def test_a_client_that_leaves_in_the_middle_ends_the_upstreams_work(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, leave: Callable[[Client], None]
) -> None:
    ended = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(HUGE_BYTES))
        with contextlib.suppress(OSError):
            while True:
                connection.send(b"x" * 65_536)
        ended.set()

    log = Entries()
    here = proxy(origin(script), access_log=log)
    client = here.client()
    client.send(GET)
    pieces = client.pieces(client.receive_head())
    received = 0
    while received < 10_000_000:
        received += len(next(pieces))
    leave(client)
    assert ended.wait(10)
    wait_until(lambda: log.entries, "the log's entry")
    assert log.entries[0].body_bytes >= received
    assert held_pipes(here) == 0


def test_a_half_closed_client_gets_its_whole_response(origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced) -> None:
    go_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(len(BODY)) + BODY[:700_000])
        assert go_on.wait(10)
        connection.send(BODY[700_000:])

    here = proxy(origin(script))
    with here.client() as client:
        client.send(GET)
        pieces = client.pieces(client.receive_head())
        received = next(pieces)
        client.half_close()
        go_on.set()
        assert received + b"".join(pieces) == BODY
    assert spliced.total_bytes > 1_000_000


def test_a_client_that_stops_reading_is_cut_at_the_write_timeout(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    stuck = threading.Event()
    ended = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(HUGE_BYTES))
        send_until_stuck(connection.sock, b"x" * 65_536)
        stuck.set()
        connection.wait_closed()
        ended.set()

    here = proxy(origin(script), timeouts=Timeouts(write_s=30.0, read_s=5.0))
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        assert stuck.wait(20)
        clock.advance(8.0)  # what the kernel held was still on its way to the client
        here.call(lambda: None)
        clock.advance(25.0)  # the upstream is not the one who is slow, so its timeout does not count
        here.call(lambda: None)
        assert not ended.is_set()
        clock.advance(6.0)
        here.call(lambda: None)
        assert ended.wait(5)
        assert spliced.total_bytes
        assert held_pipes(here) == 0


def test_an_upstream_that_stops_in_the_middle_is_cut_at_the_read_timeout(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(HUGE_BYTES) + BODY)
        connection.wait_closed()

    here = proxy(origin(script), timeouts=Timeouts(read_s=20.0))
    with here.client() as client:
        client.send(GET)
        pieces = client.pieces(client.receive_head())
        received = 0
        while received < len(BODY):
            received += len(next(pieces))
        clock.advance(15.0)
        here.call(lambda: None)
        assert here.counted(Counter.REQUESTS_ACTIVE) == 1
        clock.advance(6.0)
        here.call(lambda: None)
        assert client.is_closed()
    assert spliced.total_bytes > 1_000_000


# -- requests


@EITHER_WAY
def test_a_large_request_arrives_whole_and_the_connections_serve_on(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, express: bool
) -> None:
    there = origin(echo_digest)
    here = proxy(there, express=express)
    with here.client() as client:
        for _ in range(3):
            client.send(PUT + BODY)
            assert client.receive().body == b"/ " + digest(BODY)
            assert client.request(target=b"/2").body == b"/2 " + digest(b"")
    assert len(there.connections) == 1
    assert (spliced.total_bytes > 3_000_000) == express
    assert held_pipes(here) == 0


def test_a_request_pipelined_behind_a_large_body_is_not_part_of_it(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    here = proxy(origin(echo_digest))
    with here.client() as client:
        client.send((PUT + BODY + request_bytes(target=b"/behind")) * 3)
        for _ in range(3):
            assert client.receive().body == b"/ " + digest(BODY)
            assert client.receive().body == b"/behind " + digest(b"")
    assert spliced.total_bytes > 3_000_000


def test_a_large_request_and_a_large_response_at_once(origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_head()) is not None:
            connection.send(begin(len(BODY)))
            for piece in connection.body_pieces(request):
                connection.send(piece)

    here = proxy(origin(script))
    with here.client() as client:
        sender = threading.Thread(target=client.send, args=(PUT + BODY,))
        sender.start()
        assert client.receive().body == BODY
        sender.join(10)
    assert spliced.total_bytes > 2_000_000


def test_a_client_is_slowed_by_an_origin_that_does_not_read_and_nothing_spins(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    go_on = threading.Event()
    received: list[int] = []

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        go_on.wait(20)
        received.append(0)
        connection.sock.settimeout(0.7)
        with contextlib.suppress(TimeoutError):
            while piece := connection.read_some():
                received[0] += len(piece)

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"%d" % HUGE_BYTES)]))
        sent = send_until_stuck(client.sock, b"x" * 65_536)
        assert sent < 60_000_000
        assert count_turns(here) < 20
        go_on.set()
        assert there.connections[0].closed.wait(20)
        assert received == [sent]
    wait_until(lambda: held_pipes(here) == 0, "the pipe to be given back")
    assert spliced.total_bytes > 1_000_000


def test_an_origin_that_does_not_read_is_given_up_at_the_write_timeout(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    there = origin(lambda connection: connection.read_head() and threading.Event().wait(3))
    here = proxy(there, timeouts=Timeouts(write_s=30.0, client_body_s=5.0))
    with here.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"%d" % HUGE_BYTES)]))
        send_until_stuck(client.sock, b"x" * 65_536)
        clock.advance(8.0)  # what the kernel held was still on its way to the origin
        here.call(lambda: None)
        clock.advance(25.0)  # it is not the client who is slow, so its timeout does not count
        here.call(lambda: None)
        assert held_pipes(here) == 1
        clock.advance(6.0)
        here.call(lambda: None)
        assert held_pipes(here) == 0
        client.sock.settimeout(10)
        assert client.receive().status == 504


def test_a_client_that_stops_in_the_middle_of_its_body_is_told(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    here = proxy(origin(never_answer), timeouts=Timeouts(client_body_s=20.0))
    with here.client() as client:
        client.send(PUT + BODY[:1_000_000])
        wait_until(lambda: spliced.total_bytes > 800_000, "the body to be spliced")
        clock.advance(21.0)
        here.call(lambda: None)
        assert client.receive().status == 408
        assert client.is_closed()


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close], ids=["FIN", "RST", "half"])
def test_a_request_that_is_cut_is_cut_at_the_origin(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, leave: Callable[[Client], None]
) -> None:
    received: list[bytes] = []
    ended = threading.Event()

    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        pieces = connection.body_pieces(request)
        with contextlib.suppress(Truncated, OSError):
            received.extend(pieces)
            received.append(b"a clean end")
        ended.set()

    here = proxy(origin(script))
    client = here.client()
    client.send(PUT + BODY[:1_000_000])
    wait_until(lambda: sum(map(len, received)) == 1_000_000, "what was sent to arrive")
    leave(client)
    assert ended.wait(10)
    assert b"".join(received) == BODY[:1_000_000]
    assert spliced.total_bytes > 800_000
    client.close()
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 0, "the client's end")


def test_an_answer_in_the_middle_of_a_flood_of_upload_reaches_the_client(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    """The origin closes with bytes unread: its RST must not take the answer with it."""

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        for _ in range(20):
            connection.read_some()
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")

    there = origin(script)
    here = proxy(there)
    for _ in range(5):
        with here.client() as client:
            client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"%d" % HUGE_BYTES)]))

            def flood(client: Client = client) -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client.send(b"x" * 65_536)

            threading.Thread(target=flood, daemon=True).start()
            response = client.receive()
            assert (response.status, response.body) == (403, b"no\n")
    assert spliced.total_bytes > 1_000_000


def test_what_comes_behind_an_upload_that_is_not_answered_yet_waits_and_nothing_spins(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    was_read, answer = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            was_read.set()
            assert answer.wait(10)
            connection.send(hello(request.target))

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        client.send(PUT + BODY)
        assert was_read.wait(10)
        assert spliced.total_bytes > 1_000_000
        client.send(request_bytes(target=b"/behind"))
        assert count_turns(here) < 20
        answer.set()
        assert client.receive().body == b"/"
        assert client.receive().body == b"/behind"


def test_an_upload_goes_on_into_nothing_when_the_upstream_broke_behind_part_of_its_answer(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    """The client has yet to read what was answered, and sends meanwhile: that must not cost it the answer."""
    was_reset = threading.Event()

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        while not spliced.total_bytes:
            connection.read_some()
        connection.send(begin(HUGE_BYTES))
        send_until_stuck(connection.sock, b"x" * 65_536)
        connection.reset()
        was_reset.set()

    here = proxy(origin(script))
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"%d" % HUGE_BYTES)]))
        client.send(BODY)
        assert was_reset.wait(20)
        for _ in range(20):
            client.send(BODY)
        assert here.counted(Counter.REQUESTS_ACTIVE) == 1
        size = 0
        with pytest.raises(Truncated):
            for piece in client.pieces(client.receive_head()):
                size += len(piece)
        assert size > 300_000  # what the kernel takes for a client that does not read


def test_a_client_that_still_sends_hears_of_a_response_that_is_cut(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    sent_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        while not spliced.total_bytes:
            connection.read_some()
        connection.send(begin(9) + b"half")
        assert sent_on.wait(10)
        connection.half_close()
        connection.wait_closed()

    here = proxy(origin(script))
    with here.client() as client:
        client.send(PUT + BODY[:1_000_000])
        head = client.receive_head()
        sent_on.set()
        with pytest.raises(Truncated):
            for _ in client.pieces(head):
                client.send(BODY[:100_000])
        client.send(BODY[:100_000])
        client.half_close()


def test_a_connection_serves_on_after_an_upload_that_an_origin_did_not_take_in_time(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the body was read, so that the answer leaves the client's connection open."""

    def block(self: Pipe, fd: int) -> int:
        raise BlockingIOError

    monkeypatch.setattr(Pipe, "drain", block)
    monkeypatch.setattr(downstream_module, "MIN_SPLICE_BYTES", 1)

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_head()) is not None:
            if request.method == b"GET":
                connection.send(hello())

    here = proxy(origin(script), timeouts=Timeouts(write_s=30.0))
    with here.client() as client:
        client.request()
        with here.held():  # so that it is all there when it is read
            client.send(request_bytes(b"POST", body=BODY[:50_000]))
        wait_until(lambda: held_pipes(here) == 1, "the body to be read")
        clock.advance(16.0)  # at a look on the way it is seen that the head was taken, if that was not seen before
        here.call(lambda: None)
        clock.advance(31.0)
        assert client.receive().status == 504
        assert client.request().body == b"hello"


@pytest.mark.parametrize("method", [b"PUT", b"POST"])
def test_a_body_that_went_by_is_not_sent_once_more(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced, method: bytes
) -> None:
    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        connection.origin.record(request)
        for _ in range(20):
            connection.read_some()
        connection.reset()

    there = origin(script)
    here = proxy(there, there, retries=1)
    with here.client() as client:
        with contextlib.suppress(ConnectionError):
            client.send(request_bytes(method, fields=[(b"Content-Length", b"%d" % len(BODY))]) + BODY)
        assert client.receive().status == 502
    assert len(there.requests) == 1
    assert spliced.total_bytes


def test_what_may_have_to_be_sent_once_more_is_copied(origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced) -> None:
    def fail(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        pieces = connection.body_pieces(request)
        got = 0
        while got < 40_000:
            got += len(next(pieces))
        connection.reset()

    here = proxy(origin(fail), origin(echo_digest), retries=1)
    body = BODY[:150_000]
    for _ in range(2):  # whichever is tried first
        with here.client() as client:
            client.send(request_bytes(b"PUT", fields=[(b"Content-Length", b"150000")]) + body[:40_000])
            threading.Event().wait(0.2)
            client.send(body[40_000:])
            assert client.receive().body == b"/ " + digest(body)


def test_a_request_over_the_limit_is_refused_before_anything_is_moved(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    here = proxy(origin(echo_digest), limits=Limits(body_bytes=1_000_000))
    with here.client() as client:
        with contextlib.suppress(ConnectionError):
            client.send(PUT + BODY)
        assert client.receive().status == 413
    assert spliced.total_bytes == 0


# -- what is counted


def test_spliced_bytes_are_counted_like_others(origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced) -> None:
    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(hello(BODY))

    log = Entries()
    here = proxy(origin(script), access_log=log)
    with here.client() as client:
        client.send((PUT + BODY) * 2)
        for _ in range(2):
            assert client.receive().body == BODY
    wait_until(lambda: len(log.entries) == 2, "the end to be noted")
    assert [entry.body_bytes for entry in log.entries] == [len(BODY)] * 2
    assert here.counted(Counter.BYTES_IN) == here.counted(Counter.BYTES_OUT) == 2 * len(BODY)
    assert spliced.total_bytes > 4_000_000


def test_a_draining_server_finishes_what_is_spliced_and_closes(
    origin: OriginMaker, proxy: ProxyMaker, spliced: Spliced
) -> None:
    go_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(begin(len(BODY)) + BODY[:700_000])
        assert go_on.wait(10)
        connection.send(BODY[700_000:])

    here = proxy(origin(script))
    with here.client() as client:
        client.send(GET)
        pieces = client.pieces(client.receive_head())
        received = next(pieces)
        here.drain()
        go_on.set()
        assert received + b"".join(pieces) == BODY
        client.close()
        assert here.drained.wait(5)
