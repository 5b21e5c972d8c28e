"""Clients that send their FIN early: those that still wait are served to the end, those that left are given up."""

from __future__ import annotations

import threading

import pytest

from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.net.support import Clock, send_until_stuck
from tests.system.harness import OriginConnection, request_bytes, wait_until

GET = request_bytes()
OLD_GET = request_bytes(version=b"1.0")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
UPGRADE = request_bytes(fields=[(b"Connection", b"upgrade"), (b"Upgrade", b"echo")])


def pass_time(here: Proxy, clock: Clock, seconds: float) -> None:
    """Let time pass for the server, and all that is due in it happen."""
    clock.advance(seconds)
    for _ in range(2):
        here.call(lambda: None)


def test_a_half_closed_client_that_reads_slowly_gets_its_whole_response(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    sent: list[int] = []
    stuck = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        sent.append(send_until_stuck(connection.sock, b"x" * 65_536))
        stuck.set()

    here = proxy(origin(script))
    with here.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        assert stuck.wait(20)
        client.half_close()
        for _ in range(5):  # less than the write timeout
            pass_time(here, clock, 10.0)
        assert client.digest(client.receive_head())[0] == sent[0]


def test_an_http_1_0_client_that_leaves_while_it_waits_aborts_its_exchange(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    noticed = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        if connection.wait_closed(5.0):
            noticed.set()

    there = origin(script)
    here = proxy(there)
    client = here.client()
    client.send(OLD_GET)
    there.wait_requests(1)
    pass_time(here, clock, 1.0)
    client.close()
    assert noticed.wait(3.0)


def test_an_http_1_0_client_that_ends_its_half_behind_the_request_is_served(
    clock: Clock, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    answer = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        answer.wait(5.0)
        connection.send(hello())

    there = origin(script)
    here = proxy(there)
    with here.client() as client:
        client.send(OLD_GET)
        client.half_close()
        there.wait_requests(1)
        pass_time(here, clock, 0.0)  # the FIN has been seen
        pass_time(here, clock, 5.0)
        answer.set()
        assert client.receive().body == b"hello"


def end_in_a_pipelined_body(origin: OriginMaker, proxy: ProxyMaker, *, late: bool) -> tuple[Proxy, bytes]:
    """Send a GET and part of a POST, then a FIN; return what comes back until the connection is closed.

    ``late``: the FIN comes right behind the GET's response instead of before it.
    """
    answer, answered = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        answer.wait(5.0)
        connection.send(hello())
        answered.set()
        connection.read_request()

    there = origin(script)
    here = proxy(there)
    with here.client(timeout_s=3.0) as client:
        client.send(GET + request_bytes(b"POST", target=b"/2", body=b"x" * 100)[:-50])
        there.wait_requests(1)
        if not late:
            client.half_close()
            assert client.receive_any_head().status == 100  # the probe: the server has seen the FIN
        with here.held():
            answer.set()
            assert answered.wait(5.0)
            if late:
                client.half_close()
        return here, client.read_to_end()


@pytest.mark.parametrize("late", [False, True])
def test_a_pipelined_request_whose_body_can_never_come_is_given_up_at_once(
    origin: OriginMaker, proxy: ProxyMaker, late: bool
) -> None:
    here, _ = end_in_a_pipelined_body(origin, proxy, late=late)
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == here.board.active(0) == 0, "both exchanges' end")


@pytest.mark.parametrize("late", [False, True])
def test_what_was_asked_before_a_request_that_is_given_up_is_answered(
    origin: OriginMaker, proxy: ProxyMaker, late: bool
) -> None:
    _, received = end_in_a_pipelined_body(origin, proxy, late=late)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\nhello" in received


@pytest.mark.parametrize("early", [b"", b"early"])
def test_a_tunnel_that_is_broken_as_it_opens_leaves_nothing(
    origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture, early: bytes
) -> None:
    """The client has ended its half by then, so that the tunnel finds out while it is being set up."""
    switch, switched = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        assert switch.wait(10)
        connection.send(SWITCH)
        connection.reset()
        switched.set()

    here = proxy(origin(script))
    with here.client() as client:
        client.send(UPGRADE + early)
        client.half_close()
        assert client.receive_any_head().status == 100  # the probe: the server has seen the FIN
        with here.held():
            switch.set()
            assert switched.wait(10)
        client.read_to_end()
    wait_until(lambda: here.counted(Counter.CONNECTIONS_ACTIVE) == 0, "the client's connection to be forgotten")
    assert (here.board.active(0), here.counted(Counter.REQUESTS_ACTIVE)) == (0, 0)
    here.drain()
    assert here.drained.wait(5.0)
    assert not [record for record in caplog.records if record.exc_info]
