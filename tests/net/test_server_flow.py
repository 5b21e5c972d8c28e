"""A whole server in one thread: back-pressure both ways, early answers, bodiless responses, old clients."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minato.config.model import Timeouts
from tests.net.proxy import Proxy, hello
from tests.net.support import send_until_stuck
from tests.system.harness import Client, Origin, OriginConnection, request_bytes, wait_until
from tests.system.harness.origin import Script, respond_always

GET = request_bytes()


@contextlib.contextmanager
def serving(script: Script, **settings: Any) -> Iterator[tuple[Proxy, Origin]]:
    origin = Origin(script)
    proxy = Proxy(origin.port, retries=0, **settings)
    try:
        yield proxy, origin
    finally:
        proxy.close()
        origin.stop()
        assert not origin.failures


def test_an_origin_is_slowed_by_a_client_that_does_not_read() -> None:
    sent: list[int] = []
    stuck = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        sent.append(send_until_stuck(connection.sock, b"x" * 65_536))
        stuck.set()

    with serving(script) as (proxy, _), proxy.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        assert stuck.wait(20)
        assert sent[0] < 60_000_000
        size, _ = client.digest(client.receive_head())
        assert size == sent[0]


def test_a_client_is_slowed_by_an_origin_that_does_not_read() -> None:
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

    with serving(script) as (proxy, origin), proxy.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"900000000")]))
        sent = send_until_stuck(client.sock, b"x" * 65_536)
        assert sent < 60_000_000
        go_on.set()
        assert origin.connections[0].closed.wait(20)
        assert received == [sent]


def test_a_client_that_floods_with_pipelined_requests_is_slowed() -> None:
    answer = threading.Event()

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            answer.wait(20)
            connection.send(hello())

    with serving(script) as (proxy, _), proxy.client() as client:
        assert send_until_stuck(client.sock, GET * 100) < 60_000_000
        answer.set()
        client.sock.settimeout(10)
        assert client.receive().body == b"hello"


def test_a_client_that_pipelines_and_reads_nothing_is_slowed() -> None:
    """The responses have nowhere to go, so no further request may be taken up."""
    with serving(respond_always(hello(b"x" * 50_000))) as (proxy, origin), proxy.client(rcvbuf_bytes=8192) as client:
        client.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(100):
                client.send(GET * 50)
        before = -1

        def stalled() -> bool:
            nonlocal before
            previous, before = before, len(origin.requests)
            return previous == before

        wait_until(stalled, "no more requests at the origin", every_s=0.3)
        assert 0 < before < 600
        client.sock.settimeout(10)
        assert len(client.receive().body) == 50_000


def test_an_answer_before_the_whole_upload_reaches_the_client() -> None:
    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")

    with serving(script) as (proxy, _), proxy.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"100000000")]) + b"x" * 1000)
        response = client.receive()
        assert (response.status, response.body) == (403, b"no\n")
        assert client.is_closed()


def test_an_answer_in_the_middle_of_a_flood_of_upload_reaches_the_client() -> None:
    """The origin closes with bytes unread: its RST must not take the answer with it."""

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")

    for _ in range(5):
        with serving(script) as (proxy, _), proxy.client() as client:
            client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"100000000")]))

            def flood(client: Client = client) -> None:
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        client.send(b"x" * 65_536)

            thread = threading.Thread(target=flood)
            thread.start()
            response = client.receive()
            assert (response.status, response.body) == (403, b"no\n")
            client.close()
            thread.join(10)


@pytest.mark.parametrize(
    ("method", "response", "length", "connections"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None, 1),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"0", 1),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None, 1),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None, 1),
        # What names a body may be followed by it, though it must not.
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"5", 3),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None, 3),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", b"5", 3),
    ],
)
def test_bodiless_responses_keep_the_clients_connection(
    method: bytes, response: bytes, length: bytes | None, connections: int
) -> None:
    with serving(respond_always(response)) as (proxy, origin), proxy.client() as client:
        for _ in range(3):
            answer = client.request(method)
            assert (answer.body, answer.get(b"content-length"), answer.says_close()) == (b"", length, False)
            assert not answer.values(b"transfer-encoding")
        assert len(origin.connections) == connections


@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_body_that_must_not_come_and_comes_late_answers_no_other_request(method: bytes, express: bool) -> None:
    status = b"200 OK" if method == b"HEAD" else b"304 Not Modified"
    evil = hello(b"evil")
    head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(evil))

    def script(connection: OriginConnection) -> None:
        answer = hello(b"good")
        while (request := connection.read_request()) is not None:
            if request.target == b"/bodiless":
                connection.send(head)
                answer = evil  # once the next request came on the same connection, nobody can tell what it is
            else:
                connection.send(answer)

    with serving(script, express=express) as (proxy, _), proxy.client() as client:
        for _ in range(3):
            assert client.request(method, target=b"/bodiless").body == b""
            assert client.request(target=b"/next").body == b"good"


def test_bytes_behind_a_response_do_not_reach_the_next_client() -> None:
    evil = hello(b"evil")
    with serving(respond_always(hello() + evil)) as (proxy, origin), proxy.client() as client:
        assert [client.request().body for _ in range(3)] == [b"hello"] * 3
        assert len(origin.connections) == 3


def test_a_body_without_length_is_chunked_for_new_clients_and_ends_by_close_for_old_ones() -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    with serving(script) as (proxy, _):
        with proxy.client() as client:
            for _ in range(2):
                response = client.request()
                assert (response.body, response.get(b"transfer-encoding")) == (b"until the end", b"chunked")
        with proxy.client() as client:
            response = client.request(version=b"1.0", fields=[(b"Connection", b"keep-alive")])
            assert (response.body, response.says_close()) == (b"until the end", True)
            assert not response.values(b"transfer-encoding")


def test_old_clients_keep_their_connection_when_they_ask() -> None:
    with serving(respond_always(hello())) as (proxy, _), proxy.client() as client:
        keep = [(b"Connection", b"keep-alive")]
        assert client.request(version=b"1.0", fields=keep).get(b"connection") == b"keep-alive"
        assert client.request(version=b"1.0").says_close()
        assert client.is_closed()


@pytest.mark.parametrize(
    ("framing", "body", "version", "length", "connection"),
    [
        (b"Content-Length: 5", b"hello", b"1.1", b"5", None),
        (b"Content-Length: 5", b"hello", b"1.0", b"5", b"keep-alive"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", b"1.1", None, None),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", b"1.0", None, b"close"),
    ],
)
def test_framing_and_persistence_are_said_as_the_clients_version_needs_it(
    framing: bytes, body: bytes, version: bytes, length: bytes | None, connection: bytes | None
) -> None:
    wire = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body
    with serving(respond_always(wire)) as (proxy, _), proxy.client() as client:
        response = client.request(version=version, fields=[(b"Connection", b"keep-alive")])
        assert (response.body, response.get(b"content-length")) == (b"hello", length)
        assert response.get(b"connection") == connection
        assert bool(response.values(b"transfer-encoding")) is (length is None and version == b"1.1")


def test_a_client_that_says_close_is_told_so_and_closed() -> None:
    with serving(respond_always(hello())) as (proxy, origin):
        for _ in range(2):
            with proxy.client() as client:
                assert client.request(fields=[(b"Connection", b"close")]).says_close()
                assert client.is_closed()
        assert len(origin.connections) == 1


def test_events_leave_as_they_come() -> None:
    step = threading.Semaphore(0)

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            connection.send(b"8\r\ndata: %d\n\r\n" % number)
            step.acquire(timeout=5)
        connection.send(b"0\r\n\r\n")

    with serving(script) as (proxy, _), proxy.client() as client:
        client.send(GET)
        pieces = client.pieces(client.receive_head())
        for number in range(3):
            assert next(pieces) == b"data: %d\n" % number
            step.release()
        assert list(pieces) == []


def test_an_upstream_that_goes_on_taking_a_request_is_not_late_with_its_response() -> None:
    size = 4_000_000

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        left = size
        while left:
            left -= len(connection.read_some(65_536) or b"")
            time.sleep(3.0 * 65_536 / size)  # it takes three seconds, and minato has passed on all of it long before
        connection.send(hello(b"taken"))

    with serving(script, timeouts=Timeouts(response_s=1.0)) as (proxy, _), proxy.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"%d" % size)]) + b"x" * size)
        assert client.receive().body == b"taken"
        assert not proxy.board.row(0)._failed[0]


def test_an_upstream_that_takes_no_more_of_a_request_is_late() -> None:
    gone = threading.Event()

    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        gone.wait(20)

    with serving(script, timeouts=Timeouts(response_s=0.5)) as (proxy, _), proxy.client() as client:
        # As much as kernels take at once; more than the upstream's own does for somebody who does not read.
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"1000000")]) + b"x" * 1_000_000)
        assert client.receive().status == 504
        gone.set()


@pytest.mark.parametrize("express", [True, False])
def test_a_response_that_began_before_the_request_was_whole_is_not_cut_for_want_of_the_rest(express: bool) -> None:
    def script(connection: OriginConnection) -> None:
        assert connection.read_head() is not None
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            connection.send(b"x")
            time.sleep(0.1)

    timeouts = Timeouts(client_body_s=0.3)
    with serving(script, express=express, timeouts=timeouts) as (proxy, _), proxy.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"5"), (b"Expect", b"100-continue")]))
        response = client.receive()
        assert (response.body, response.says_close()) == (b"x" * 10, True)


@pytest.mark.parametrize("express", [True, False])
def test_a_client_that_is_given_up_for_not_reading_leaves_nothing_in_the_kernel(express: bool) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
        send_until_stuck(connection.sock, b"x" * 65_536)

    timeouts = Timeouts(write_s=0.5)
    with serving(script, express=express, timeouts=timeouts) as (proxy, _), proxy.client(rcvbuf_bytes=8192) as client:
        client.send(GET)
        # Not a FIN behind what it does not take: that would stay, for as long as it answers the kernel's probes.
        wait_until(lambda: tcp_state(client) == TCP_CLOSE, "the reset")


TCP_CLOSE = 7  # tcp_states.h


def tcp_state(client: Client) -> int:
    return client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize(
    "wire",
    [
        request_bytes(fields=[(b"X ", b"1")]),
        b"GET / HTTP/3.0\r\nHost: test.local\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
    ids=["a field", "a version", "two hosts"],
)
def test_a_refusal_reaches_a_client_that_goes_on_sending(wire: bytes, express: bool) -> None:
    """RFC 9112, 9.6: a connection that is closed while more comes is reset, and the response may be lost with it."""
    with serving(respond_always(hello()), express=express) as (proxy, _), proxy.client() as client:
        client.send(wire)
        for _ in range(20):
            time.sleep(0.005)
            client.send(GET[:10])
        response = client.receive()
        assert 400 <= response.status < 506 and response.says_close()
