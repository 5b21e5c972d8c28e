"""Whole messages where something ends: pooled connections that die, drains, and clients that are slow or gone."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from minato.config.model import Timeouts
from minato.net import context as context_module
from minato.net.downstream import Downstream
from minato.net.exchange import Exchange
from minato.net.stream import RECV_BYTES
from minato.shared.board import Counter
from tests.net.hit_support import CACHE, HOT, MAX_AGE, make_hot
from tests.net.proxy import Entries, OriginMaker, Proxy, ProxyMaker, hello, refused_port
from tests.net.support import Clock
from tests.system.harness import Client, OriginConnection, request_bytes

DATE = b"Date: Tue, 14 Nov 2023 22:13:20 GMT"
GET = request_bytes(target=b"/g")
BODY = b"a=1&b=2"
POST = request_bytes(b"POST", b"/p", body=BODY)
PUT = request_bytes(b"PUT", b"/p", body=BODY)
EXPRESS = pytest.mark.parametrize("express", [True, False])
HOW = pytest.mark.parametrize("how", ["FIN", "RST"])


@pytest.fixture
def wholes(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """Note the exchanges whose responses were relayed whole."""
    noted: list[Exchange] = []
    relay = Exchange.on_whole_response

    def note(exchange: Exchange, *args: Any) -> None:
        noted.append(exchange)
        relay(exchange, *args)

    monkeypatch.setattr(Exchange, "on_whole_response", note)
    return noted


def let_turn(here: Proxy) -> None:
    for _ in range(3):
        here.call(lambda: None)


def pooled(here: Proxy) -> int:
    return here.call(lambda: len(here.server._context.pool))


def end(connection: OriginConnection, how: str) -> None:
    if how == "FIN":
        connection.close()
    else:
        connection.reset()


def warm_up(client: Client) -> None:
    for _ in range(3):
        assert client.request(target=b"/g").status == 200


# -- pooled connections that die


def echo(connection: OriginConnection) -> None:
    while (request := connection.read_request()) is not None:
        connection.send(hello(b"%b %b" % (request.method, request.body), DATE))


@HOW
@EXPRESS
@pytest.mark.parametrize("wire", [POST, PUT, GET], ids=["POST", "PUT", "GET"])
def test_a_request_whose_pooled_connection_ends_in_the_same_turn_is_sent_once_more(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch, express: bool, how: str, wire: bytes
) -> None:
    """The loop hears of the request first, so nothing of it has been sent when it hears of the end.

    A request that could not be sent twice does not even get that far: its connection is asked first.
    """
    monkeypatch.setattr(context_module, "_TRUSTED_IDLE_S", 1000.0)
    go_on, ended = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        for _ in range(3):
            assert connection.read_request() is not None
            connection.send(hello(b"warm", DATE))
        if connection.number:
            echo(connection)
            return
        assert go_on.wait(10)
        end(connection, how)
        ended.set()

    there = origin(script)
    here = proxy(there, express=express, retries=0)
    with here.client() as client:
        warm_up(client)
        with here.held():
            client.send(wire)
            go_on.set()
            assert ended.wait(10)
        assert client.receive().body == b"warm"
        warm_up(client)
    assert [request.connection for request in there.requests] == [0] * 3 + [1] * 4
    assert there.requests[3].body == wire.partition(b"\r\n\r\n")[2]
    assert here.counted(Counter.RETRIES) == (wire == GET)
    assert here.counted(Counter.BYTES_IN) == len(there.requests[3].body)


class EndsInstead:
    """Answers but for a request to /p on a connection that has served others: that one ends without a byte."""

    def __init__(self, how: str) -> None:
        self._how = how

    def __call__(self, connection: OriginConnection) -> None:
        served = 0
        while (request := connection.read_request()) is not None:
            if request.target == b"/p" and served:
                end(connection, self._how)
                return
            served += 1
            connection.send(hello(b"%b %b" % (request.method, request.body), DATE))


@HOW
@EXPRESS
@pytest.mark.parametrize("cut", [0, 7, 3])
def test_a_post_that_was_sent_is_never_sent_again(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, how: str, cut: int
) -> None:
    there = origin(EndsInstead(how))
    here = proxy(there, express=express, retries=3)
    with here.client() as client:
        warm_up(client)
        client.send(POST[: len(POST) - cut])
        if cut:
            let_turn(here)
            client.send(POST[len(POST) - cut :])
        response = client.receive()
        assert (response.status, response.says_close()) == (502, False)
        warm_up(client)
    assert [request.method for request in there.requests].count(b"POST") == 1
    assert here.counted(Counter.RETRIES) == 0


@HOW
@EXPRESS
@pytest.mark.parametrize("cut", [0, 7, 3])
def test_a_put_that_was_sent_is_sent_again_with_its_body(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, how: str, cut: int
) -> None:
    there = origin(EndsInstead(how))
    here = proxy(there, express=express, retries=0)
    with here.client() as client:
        for _ in range(3):
            warm_up(client)
            client.send(PUT[: len(PUT) - cut])
            if cut:
                let_turn(here)
                client.send(PUT[len(PUT) - cut :])
            assert client.receive().body == b"PUT " + BODY
    puts = [(request.connection, request.body) for request in there.requests if request.method == b"PUT"]
    assert puts == [(number, BODY) for number in (0, 1, 1, 2, 2, 3)]
    assert here.counted(Counter.RETRIES) == 3
    assert here.counted(Counter.BYTES_IN) == 3 * len(BODY)


@EXPRESS
def test_a_whole_post_that_nobody_took_goes_to_the_next_upstream(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    there = origin(echo)
    with refused_port() as port:
        here = proxy(port, there, express=express)
        with here.client() as client:
            for _ in range(4):
                client.send(POST)
                assert client.receive().body == b"POST " + BODY
    assert [request.body for request in there.requests] == [BODY] * 4


def test_a_response_that_is_whole_with_its_fin_leaves_no_connection_in_the_pool(
    origin: OriginMaker, proxy: ProxyMaker, wholes: list[Exchange]
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.target != b"/end":
                connection.send(hello(b"hello", DATE))
                continue
            with here.held():
                connection.send(hello(b"hello", DATE))
                connection.half_close()
            connection.wait_closed()
            return

    there = origin(script)
    here = proxy(there, retries=0)
    with here.client() as client:
        warm_up(client)
        assert pooled(here) == 1
        client.send(request_bytes(target=b"/end"))
        assert client.receive().body == b"hello"
        assert len(wholes) == 2
        assert pooled(here) == 0
        client.send(POST)
        assert client.receive().body == b"hello"
    assert [request.connection for request in there.requests] == [0] * 4 + [1]


def filling(*fields: bytes) -> bytes:
    """Return a response that is just as long as what is read at once."""
    wire = hello(b"a" * 10_000, *fields)
    wire = hello(b"a" * (10_000 + RECV_BYTES - len(wire)), *fields)
    assert len(wire) == RECV_BYTES
    return wire


@pytest.mark.parametrize(
    ("first", "behind"),
    [
        (hello(b"hello", DATE), b"FIN"),
        (filling(DATE), b"FIN"),
        (filling(DATE), hello(b"unasked", DATE)),
        (filling(DATE), b"\r\n"),
    ],
    ids=["FIN", "FIN behind a filled read", "response behind a filled read", "line behind a filled read"],
)
@pytest.mark.parametrize("second", [POST, PUT], ids=["POST", "PUT"])
def test_a_request_pipelined_behind_a_whole_response_is_not_risked_on_a_connection_that_is_no_good(
    origin: OriginMaker, proxy: ProxyMaker, wholes: list[Exchange], first: bytes, behind: bytes, second: bytes
) -> None:
    """The next exchange begins in the very call that ends the first one, before any other event is heard of."""
    go_on, sent = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.target != b"/end":
                connection.send(first)
                continue
            assert go_on.wait(10)
            connection.send(first if behind == b"FIN" else first + behind)
            if behind == b"FIN":
                connection.half_close()
            sent.set()
            connection.wait_closed()
            return

    there = origin(script)
    here = proxy(there, retries=0)
    with here.client() as client:
        for _ in range(4):  # every other read of a response that fills one asks for more than that
            assert client.request(target=b"/g").status == 200
        whole_before = len(wholes)
        client.send(request_bytes(target=b"/end") + second)
        there.wait_requests(5)
        with here.held():
            go_on.set()
            assert sent.wait(10)
        assert client.receive().status == 200
        response = client.receive()
        assert (response.status, b"unasked" in response.body) == (200, False)
        assert len(wholes) == whole_before + 1
    assert [request.connection for request in there.requests] == [0] * 5 + [1]
    assert here.counted(Counter.RETRIES) == 0


@pytest.mark.parametrize("surplus", [b"x", hello(b"evil", DATE), b"\r\n"])
def test_bytes_behind_a_whole_response_that_come_later_reach_nobody(
    origin: OriginMaker, proxy: ProxyMaker, wholes: list[Exchange], surplus: bytes
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(request.target, DATE))
            if request.target == b"/s":
                let_turn(here)
                connection.send(surplus)

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        for _ in range(4):
            assert client.request(target=b"/s").body == b"/s"
            assert there.connections[-1].closed.wait(5.0)
            assert client.request(target=b"/n").body == b"/n"
    assert len(wholes) >= 4


# -- drains


@EXPRESS
@pytest.mark.parametrize("wire", [GET, POST], ids=["GET", "POST"])
def test_a_whole_response_of_a_drain_closes_both_connections(
    origin: OriginMaker, proxy: ProxyMaker, wholes: list[Exchange], express: bool, wire: bytes
) -> None:
    there = origin(echo)
    here = proxy(there, express=express)
    with here.client() as client:
        for _ in range(3):
            client.send(wire)
            assert not client.receive().says_close()
        here.drain()
        client.send(wire)
        response = client.receive()
        assert response.body.startswith(wire.partition(b" ")[0])
        assert response.values(b"connection") == [b"close"]
        assert client.is_closed()
    assert here.drained.wait(5.0)
    assert pooled(here) == 0
    assert there.connections[-1].closed.wait(5.0)
    assert bool(wholes) == express
    with proxy(there, express=express).client() as client:  # no head that says close was kept
        client.send(wire)
        assert not client.receive().says_close()


# -- clients that are slow or gone


class FaultySocket:
    """A socket whose next sends take as much as the plan says, or fail."""

    def __init__(self, sock: socket.socket, plan: list[int | OSError]) -> None:
        self._sock = sock
        self.plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        step = self.plan.pop(0) if self.plan else len(data)
        if isinstance(step, OSError):
            raise step
        return self._sock.send(data[:step])


def the_client(here: Proxy) -> Downstream:
    (client,) = here.server._clients
    return client


def make_faulty(here: Proxy, *plan: int | OSError) -> FaultySocket:
    def swap() -> FaultySocket:
        stream = the_client(here).stream
        stream.sock = faulty = FaultySocket(stream.sock, list(plan))  # type: ignore[assignment]
        return faulty

    return here.call(swap)


SLOW_PLANS = {
    "blocks": [BlockingIOError()],
    "blocks twice": [BlockingIOError(), BlockingIOError()],
    "one byte": [1],
    "one byte, then blocks": [1, BlockingIOError()],
    "all but one": [90],
    "trickles": [7] * 9,
    "none": [0],
}


@pytest.mark.parametrize("plan", SLOW_PLANS)
@pytest.mark.parametrize("lane", ["forwarded", "hot", "last"])
def test_a_whole_answer_that_the_kernel_takes_in_part_arrives_whole_and_once(
    origin: OriginMaker,
    proxy: ProxyMaker,
    wholes: list[Exchange],
    lanes: list[str],
    plan: str,
    lane: str,
) -> None:
    there = origin(lambda connection: answer_always(connection, hello(b"hello", DATE, MAX_AGE)))
    here = proxy(there, **({"cache": CACHE} if lane == "hot" else {}))
    with here.client() as client:
        warm_up(client)
        if lane == "hot":
            make_hot(client, lanes, GET)
        if lane == "last":
            here.server._context.draining = True
        before = len(wholes)
        faulty = make_faulty(here, *SLOW_PLANS[plan])
        client.send(GET)
        response = client.receive()
        assert (response.body, response.says_close()) == (b"hello", lane == "last")
        assert lane != "hot" or lanes[-1] == HOT
        assert len(wholes) == before + (lane != "hot")
        assert not faulty.plan
        if lane == "last":
            assert client.is_closed()
        else:
            assert not client.is_closed(0.02)
    here.server._context.draining = False


def answer_always(connection: OriginConnection, response: bytes) -> None:
    while connection.read_request() is not None:
        connection.send(response)


BROKEN = {
    "EPIPE": [BrokenPipeError()] * 3,
    "RST": [ConnectionResetError(), BrokenPipeError()],
    "RST behind a part": [5, ConnectionResetError(), BrokenPipeError()],
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("lane", ["forwarded", "hot", "last", "pipelined"])
def test_a_client_that_is_gone_when_its_whole_answer_leaves_ends_alone(
    origin: OriginMaker,
    proxy: ProxyMaker,
    lanes: list[str],
    caplog: pytest.LogCaptureFixture,
    how: str,
    lane: str,
) -> None:
    entries = Entries()
    there = origin(lambda connection: answer_always(connection, hello(b"hello", DATE, MAX_AGE)))
    here = proxy(there, access_log=entries, **({"cache": CACHE} if lane == "hot" else {}))
    with here.client() as client:
        warm_up(client)
        if lane == "hot":
            make_hot(client, lanes, GET)
        if lane == "last":
            here.server._context.draining = True
        logged = len(entries.entries)
        make_faulty(here, *BROKEN[how])
        client.send(GET * (2 if lane == "pipelined" else 1))
        client.read_to_end()
    let_turn(here)
    here.server._context.draining = False
    assert {entry.status for entry in entries.entries[logged:]} <= {200, 0}
    assert entries.entries[logged].status == 200
    assert len(entries.entries) - logged <= 2
    assert not here.server._clients
    assert [here.counted(counter) for counter in (Counter.CONNECTIONS_ACTIVE, Counter.REQUESTS_ACTIVE)] == [0, 0]
    assert "a bug" not in caplog.text
    with here.client() as client:
        warm_up(client)


def test_whole_answers_to_a_client_that_reads_nothing_wait_in_order(
    origin: OriginMaker, proxy: ProxyMaker, wholes: list[Exchange]
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            number = int(request.target[1:])
            connection.send(hello(b"%4d" % number * 3000, DATE))

    there = origin(script)
    here = proxy(there)
    with here.client(rcvbuf_bytes=4096) as client:
        for number in range(200):
            client.send(request_bytes(target=b"/%d" % number))
            if number < 20:  # as far as they are taken for a client that does not read
                there.wait_requests(number + 1)
        for number in range(200):
            assert client.receive().body == b"%4d" % number * 3000
    assert wholes


def test_a_whole_answer_is_counted_and_logged_before_its_client_can_know_of_it(
    origin: OriginMaker, proxy: ProxyMaker, wholes: list[Exchange]
) -> None:
    entries = Entries()
    here = proxy(origin(echo), access_log=entries)
    seen: list[tuple[int, int]] = []

    class Watched(FaultySocket):
        def send(self, data: bytes) -> int:
            seen.append((len(entries.entries), here.board.row(0).get(Counter.REQUESTS_ACTIVE)))
            return super().send(data)

    def swap() -> None:
        stream = the_client(here).stream
        stream.sock = Watched(stream.sock, [])  # type: ignore[assignment]

    with here.client() as client:
        warm_up(client)
        here.call(swap)
        for _ in range(2):
            warm_up(client)
    assert seen == [(number, 0) for number in range(4, 10)]
    assert len(wholes) >= 6


# -- deadlines


def let_pass(here: Proxy, clock: Clock, seconds: float) -> None:
    let_turn(here)
    clock.advance(seconds)
    let_turn(here)


@EXPRESS
@pytest.mark.parametrize("times", [0, 1, 3])
@pytest.mark.parametrize("wire", [GET, POST], ids=["GET", "POST"])
def test_the_deadlines_of_a_client_do_not_run_while_its_whole_request_waits_for_an_answer(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, express: bool, times: int, wire: bytes
) -> None:
    answer = threading.Event()

    def script(connection: OriginConnection) -> None:
        for _ in range(times):
            assert connection.read_request() is not None
            connection.send(hello(b"hello", DATE))
        assert connection.read_request() is not None
        assert answer.wait(10)
        connection.send(hello(b"late", DATE))

    timeouts = Timeouts(client_header_s=5.0, client_idle_s=7.0, client_body_s=5.0, response_s=60.0)
    there = origin(script)
    here = proxy(there, express=express, timeouts=timeouts)
    with here.client() as client:
        for _ in range(times):
            client.send(wire)
            assert client.receive().body == b"hello"
        client.send(wire)
        there.wait_requests(times + 1)
        for _ in range(3):
            let_pass(here, clock, 8.0)
        answer.set()
        assert client.receive().body == b"late"


@EXPRESS
@pytest.mark.parametrize("lane", ["forwarded", "hot"])
def test_the_deadlines_of_a_client_run_behind_a_whole_answer(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker, express: bool, lane: str
) -> None:
    timeouts = Timeouts(client_header_s=5.0, client_idle_s=20.0, upstream_idle_s=500.0)
    there = origin(lambda connection: answer_always(connection, hello(b"hello", b"Cache-Control: max-age=600")))
    here = proxy(there, express=express, timeouts=timeouts, **({"cache": CACHE} if lane == "hot" else {}))
    with here.client() as idle, here.client() as half:
        for _ in range(6):
            for client in (idle, half):
                assert client.request(target=b"/g").body == b"hello"
            let_pass(here, clock, 8.0)
        half.send(GET[:10])
        let_pass(here, clock, 4.0)
        let_pass(here, clock, 1.5)
        assert half.receive().status == 408
        assert not idle.is_closed(0.02)
        let_pass(here, clock, 7.0)
        assert idle.is_closed()


def test_a_pooled_connection_whose_upstream_takes_no_more_is_not_pooled_again(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    """Its answer to the present request may be there whole all the same."""
    there = origin(echo)
    here = proxy(there, retries=0)
    with here.client() as client:
        warm_up(client)

        def break_it() -> None:
            (connection,) = next(iter(here.server._context.pool._idle.values()))
            connection.stream.sock = FaultySocket(connection.stream.sock, [1, BrokenPipeError()])  # type: ignore[assignment]

        here.call(break_it)
        client.send(GET)
        let_turn(here)
        there.connections[0].send(hello(b"soon", DATE))
        assert client.receive().body == b"soon"
        let_turn(here)
        assert pooled(here) == 0
        warm_up(client)
    assert there.accepted == 2


# -- one exchange at a time


@EXPRESS
@pytest.mark.parametrize("first", [GET, POST], ids=["GET", "POST"])
@pytest.mark.parametrize("second", [GET, POST], ids=["GET", "POST"])
def test_a_whole_request_that_comes_during_an_exchange_waits_for_its_end(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, first: bytes, second: bytes
) -> None:
    answer = threading.Semaphore(0)

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            assert answer.acquire(timeout=10)
            connection.send(hello(request.method, DATE))

    there = origin(script)
    here = proxy(there, express=express)
    with here.client() as client:
        for _ in range(4):
            before = len(there.requests)
            client.send(first)
            there.wait_requests(before + 1)
            for _ in range(2):
                client.send(second)
                let_turn(here)
            assert len(there.requests) == before + 1
            answer.release(3)
            methods = [wire.partition(b" ")[0] for wire in (first, second, second)]
            assert [client.receive().body for _ in range(3)] == methods
    assert len(there.connections) == 1


@EXPRESS
@pytest.mark.parametrize("wire", [GET, POST], ids=["GET", "POST"])
def test_a_client_that_ends_its_half_behind_a_whole_request_is_answered_and_closed(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, wire: bytes
) -> None:
    answer = threading.Semaphore(0)

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            assert answer.acquire(timeout=10)
            connection.send(hello(request.method, DATE))

    here = proxy(origin(script), express=express)
    for _ in range(4):
        with here.client() as client:
            client.send(wire)
            if not express:
                let_turn(here)
            client.half_close()
            let_turn(here)
            answer.release()
            assert client.receive().body == wire.partition(b" ")[0]
            assert client.is_closed()
            let_turn(here)
            assert not here.server._clients


CHUNKED_POST = request_bytes(b"POST", b"/p", fields=[(b"Transfer-Encoding", b"chunked")]) + b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(("express", "wire"), [(False, POST), (False, CHUNKED_POST), (True, CHUNKED_POST)])
def test_a_client_that_ends_its_half_behind_a_body_that_waits_for_a_connection_is_answered(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, wire: bytes
) -> None:
    here = proxy(origin(echo), express=express)
    with here.client() as client:
        with here.held():
            client.send(wire)
            client.half_close()
        assert client.receive().status == 200


@pytest.mark.parametrize("cached", [False, True])
def test_whole_requests_of_a_client_that_reads_nothing_are_not_all_taken_up(
    origin: OriginMaker, proxy: ProxyMaker, cached: bool
) -> None:
    body = b"x" * 60_000
    there = origin(lambda connection: answer_always(connection, hello(body, MAX_AGE)))
    here = proxy(there, **({"cache": CACHE} if cached else {}))

    def pending() -> int:
        return the_client(here).stream.pending_bytes

    with here.client(rcvbuf_bytes=4096) as client:
        for _ in range(200):
            client.send(GET)
            let_turn(here)
        for _ in range(20):
            let_turn(here)
        assert here.call(pending) < 600_000
        for _ in range(200):
            assert client.receive().body == body


@EXPRESS
def test_a_client_told_to_close_by_a_drain_may_still_be_sending(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    """Closed at once, its next request would be answered with a RST, which may destroy the answer on its way."""
    here = proxy(origin(echo), express=express)
    with here.client() as client:
        client.request()
        here.drain()
        client.send(GET)
        assert client.receive().says_close()
        for _ in range(5):
            client.send(GET)
            here.call(lambda: None)
        assert client.is_closed()
    assert here.drained.wait(5)
