"""Whose fault a failed attempt is, how failures in a row are counted, and that nobody pays for it while all is well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from minato.config.model import CacheConfig, PassiveHealthConfig, Timeouts
from minato.decide.outliers import Outcomes
from minato.net.attempts import Attempts
from minato.net.loop import Loop
from minato.shared.board import Board
from minato.shared.row import ObservedRow, WorkerRow
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello, never_answer, refused_port
from tests.net.support import Clock
from tests.system.harness import OriginConnection, request_bytes, wait_until

_SERIALS = count(9700)
THREE = PassiveHealthConfig(consecutive=3, window_s=10.0)


class Bench:
    """One worker's notes on a board of two upstreams, with a clock moved by hand."""

    def __init__(self, config: PassiveHealthConfig, clock: Clock, loop: Loop) -> None:
        self.board = Board.create(slots=1, upstream_keys=["a", "b"], serial=next(_SERIALS))
        self.clock = clock
        self.loop = loop
        self.row: WorkerRow = self.board.row(0)
        self.woken = 0
        self.attempts = Attempts(config, self.row, loop, self._put_row, self._wake)

    def _put_row(self, row: WorkerRow) -> None:
        self.row = row

    def _wake(self) -> None:
        self.woken += 1

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.loop.turn(0.0)

    def fail(self, times: int, upstream: int = 0) -> None:
        for _ in range(times):
            self.attempts.failed(upstream)

    def answer(self, status: int = 200, upstream: int = 0) -> None:
        self.row.upstream_begin(upstream)
        self.row.request_begun()
        self.row.forwarded(upstream, status, 0, 5)

    def counted(self, upstream: int = 0) -> Outcomes:
        return self.board.outcomes(upstream)

    @property
    def is_observing(self) -> bool:
        return isinstance(self.row, ObservedRow)


MakeBench = Callable[[PassiveHealthConfig], Bench]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    clock = Clock()
    monkeypatch.setattr("minato.net.loop.time", clock)
    loop = Loop()
    made: list[Bench] = []

    def make(config: PassiveHealthConfig) -> Bench:
        made.append(Bench(config, clock, loop))
        return made[-1]

    yield make
    loop.close()
    for one in made:
        one.board.unlink()
        one.board.close()


def test_so_many_failures_in_a_row_trip_and_wake_the_checker(bench: MakeBench) -> None:
    here = bench(THREE)
    here.fail(2)
    assert (here.counted().tripped, here.woken) == (0, 0)
    here.fail(1)
    assert here.counted() == Outcomes(failed=3, tripped=1)
    assert here.woken == 1


def test_a_success_ends_the_row(bench: MakeBench) -> None:
    here = bench(THREE)
    for _ in range(5):
        here.fail(2)
        here.answer()
    assert here.counted() == Outcomes(failed=10)


def test_a_success_of_another_upstream_does_not(bench: MakeBench) -> None:
    here = bench(THREE)
    here.fail(2)
    here.answer(upstream=1)
    here.fail(1)
    assert here.counted().tripped == 1


def test_after_it_tripped_the_row_begins_anew(bench: MakeBench) -> None:
    here = bench(THREE)
    here.fail(7)
    assert here.counted() == Outcomes(failed=7, tripped=2)


def test_failures_far_apart_are_not_in_a_row(bench: MakeBench) -> None:
    here = bench(THREE)
    for _ in range(6):
        here.fail(1)
        here.wait(10.1)
    assert here.counted() == Outcomes(failed=6)
    here.fail(2)
    here.wait(9.0)
    here.fail(1)
    assert here.counted().tripped == 1


def test_responses_are_told_only_while_a_failure_waits_for_a_success(bench: MakeBench) -> None:
    here = bench(THREE)
    assert not here.is_observing and here.attempts.answered is None
    here.fail(1)
    here.fail(1, upstream=1)
    assert here.is_observing and here.attempts.answered is not None
    here.answer()
    assert here.is_observing
    here.answer(upstream=1)
    assert not here.is_observing and here.attempts.answered is None
    here.fail(3)
    assert not here.is_observing  # it has tripped, and nothing is left to make up for


def test_an_observed_row_counts_as_the_row_does(bench: MakeBench) -> None:
    here = bench(THREE)
    here.fail(1)
    here.row.upstream_begin(0)
    assert here.board.active(0) == 1
    here.answer(status=404)
    assert here.board.active(0) == 1
    here.row.upstream_answered(0, 200)
    assert here.board.active(0) == 0


def test_what_failed_is_forgotten_when_columns_change_hands(bench: MakeBench) -> None:
    here = bench(THREE)
    here.fail(2)
    here.attempts.forget([0])
    assert not here.is_observing
    here.fail(2)
    assert here.counted() == Outcomes(failed=4)


def test_what_failed_elsewhere_is_not_forgotten_when_a_column_changes_hands(bench: MakeBench) -> None:
    here = bench(THREE)
    here.fail(2, upstream=1)
    here.attempts.forget([0])
    assert here.is_observing
    here.fail(1, upstream=1)
    assert here.counted(1).tripped == 1


def test_off_it_counts_nothing(bench: MakeBench) -> None:
    here = bench(PassiveHealthConfig(consecutive=0))
    here.fail(100)
    assert not here.is_observing
    assert here.counted() == Outcomes()


def test_the_error_rate_needs_every_answer(bench: MakeBench) -> None:
    here = bench(PassiveHealthConfig(consecutive=0, error_rate=0.5))
    assert here.is_observing
    here.answer()
    here.answer(404)
    here.fail(1)
    here.answer(500)
    assert here.counted() == Outcomes(failed=1, answered=3)
    assert here.is_observing


def test_statuses_that_are_failures_are(bench: MakeBench) -> None:
    here = bench(PassiveHealthConfig(consecutive=2, statuses=((500, 500), (503, 504))))
    here.answer(500)
    here.answer(502)
    here.answer(503)
    assert here.counted() == Outcomes(failed=2)
    here.answer(504)
    assert here.counted() == Outcomes(failed=3, tripped=1)


# Through a whole worker


PASSIVE = PassiveHealthConfig(consecutive=1000)


def failed(proxy: Proxy, upstream: int = 0) -> int:
    return proxy.call(lambda: proxy.board.outcomes(upstream)).failed


def drop(connection: OriginConnection) -> None:
    connection.read_request()


def reset(connection: OriginConnection) -> None:
    connection.read_request()
    connection.reset()


def garbage(connection: OriginConnection) -> None:
    connection.read_request()
    connection.send(b"nonsense\r\n\r\n")


def cut(connection: OriginConnection) -> None:
    connection.read_request()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")


@pytest.mark.parametrize("script", [drop, reset, garbage, cut, never_answer])
def test_what_an_upstream_does_is_its_failure(
    origin: OriginMaker, proxy: ProxyMaker, script: Callable[[OriginConnection], None]
) -> None:
    here = proxy(origin(script), passive_health=PASSIVE, timeouts=Timeouts(response_s=0.2), retries=0)
    with here.client() as client:
        client.send(request_bytes(b"GET"))
        client.read_to_end() if script is cut else client.receive()
    wait_until(lambda: failed(here) == 1, "the failure to be counted")


def test_a_refused_connection_is_a_failure(proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = proxy(dead, passive_health=PASSIVE, retries=0)
        with here.client() as client:
            assert client.request().status == 502
        assert failed(here) == 1


def test_a_status_is_a_failure_where_the_config_says_so(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def sick(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(b"HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")

    there = origin(sick)
    with proxy(there, passive_health=PASSIVE).client() as client:
        assert client.request().status == 500
    here = proxy(there, passive_health=PassiveHealthConfig(consecutive=1000, statuses=((500, 599),)))
    with here.client() as client:
        for _ in range(3):
            assert client.request().status == 500
    assert failed(here) == 3


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_whole_response_ends_the_row_whatever_its_way(
    origin: OriginMaker, proxy: ProxyMaker, is_chunked: bool
) -> None:
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" if is_chunked else hello()

    def by_turns(connection: OriginConnection) -> None:
        request = connection.read_request()
        if request is not None and request.target == b"/good":
            connection.send(good)

    here = proxy(origin(by_turns), passive_health=PassiveHealthConfig(consecutive=2), retries=0)
    for _ in range(3):
        for target, status in ((b"/bad", 502), (b"/good", 200)):
            with here.client() as client:
                client.send(request_bytes(b"GET", target=target))
                assert client.receive().status == status
    outcomes = here.call(lambda: here.board.outcomes(0))
    assert (outcomes.failed, outcomes.tripped) == (3, 0)


def test_a_stale_answer_in_place_of_an_error_hides_no_failure(origin: OriginMaker, proxy: ProxyMaker) -> None:
    answers = iter([hello(b"old", b'ETag: "1"', b"Cache-Control: max-age=0, stale-if-error=600")])

    def once(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(next(answers, b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n"))

    here = proxy(
        origin(once),
        cache=CacheConfig(enabled=True),
        passive_health=PassiveHealthConfig(consecutive=1000, statuses=((500, 599),)),
    )
    with here.client() as client:
        assert [client.request().body for _ in range(3)] == [b"old"] * 3
    assert failed(here) == 2


# What a client does


def test_a_client_that_leaves_is_no_failure(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(never_answer)
    here = proxy(there, passive_health=PASSIVE)
    for number in range(3):
        with here.client() as client:
            client.send(request_bytes(b"GET"))
            there.wait_for(lambda number=number: len(there.requests) == number + 1, "the request")
    wait_until(lambda: here.call(lambda: here.board.active(0)) == 0, "the exchanges to end")
    assert failed(here) == 0


def test_an_upstream_that_is_tired_of_a_slow_upload_is_not_blamed(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def impatient(connection: OriginConnection) -> None:
        connection.read_head()
        connection.reset()

    here = proxy(origin(impatient), passive_health=PASSIVE, retries=0)
    with here.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: test.local\r\nContent-Length: 10\r\n\r\nonly")
        assert client.receive().status == 502
    assert failed(here) == 0


def test_an_upstream_that_is_tired_of_a_slow_reader_is_not_blamed(origin: OriginMaker, proxy: ProxyMaker) -> None:
    gave_up = threading.Event()

    def impatient(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sock.settimeout(0.3)
        try:
            while True:
                connection.send(b"10000\r\n%b\r\n" % (b"x" * 65_536))
        except TimeoutError:
            connection.reset()
            gave_up.set()

    here = proxy(origin(impatient), passive_health=PASSIVE, retries=0)
    with here.client(rcvbuf_bytes=65_536) as client:
        client.send(request_bytes(b"GET"))
        client.receive_head()
        assert gave_up.wait(10)
        client.read_to_end()
    assert failed(here) == 0


def test_a_pooled_connection_that_ends_is_no_failure(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def once(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(hello())
        connection.read_head()
        connection.reset()

    here = proxy(origin(once), passive_health=PASSIVE)
    with here.client() as client:
        assert [client.request().status for _ in range(4)] == [200] * 4
    assert failed(here) == 0


def test_a_silent_stream_that_is_cut_is_no_failure(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def begin(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        connection.wait_closed()

    here = proxy(origin(begin), passive_health=PASSIVE, timeouts=Timeouts(read_s=0.2), retries=0)
    with here.client() as client:
        client.send(request_bytes(b"GET"))
        client.read_to_end()
    assert failed(here) == 0


def test_what_this_machine_lacks_is_no_failure(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = proxy(origin(never_answer), passive_health=PASSIVE, retries=0)
    with here.client() as client:
        client.send(b"GET / HTTP/1.1\r\n")  # the connection is accepted before sockets run out

        def no_socket(*args: Any, **kwargs: Any) -> socket.socket:
            raise OSError(105, "No buffer space available")

        wait_until(lambda: here.call(lambda: len(here.server._clients)) == 1, "the client")
        with monkeypatch.context() as patch:
            patch.setattr("minato.net.connect.socket.socket", no_socket)
            client.send(b"Host: test.local\r\n\r\n")
            assert client.receive().status == 503
    assert failed(here) == 0
