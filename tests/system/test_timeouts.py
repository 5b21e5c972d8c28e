"""Issue line 6, timeouts: each with its status or its abrupt end; what is slow but alive is left alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from .harness import Minato, OriginConnection, Truncated, request_bytes, response_bytes
from .harness.app import pattern
from .harness.origin import respond_always

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]


def silent(connection: OriginConnection) -> None:
    """Read the request and never answer."""
    connection.read_request()
    connection.wait_closed(30)


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nHost: test.local\r\n", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nA: b"]
)
def test_slow_head_is_408(minato: StartMinato, origin: MakeOrigin, sent: bytes) -> None:
    with minato(origin(), timeouts={"client_header": 0.5}).client() as client:
        client.send(sent)
        response = client.receive()
        assert response.status == 408 and response.says_close() and client.is_closed()


def test_head_that_drips_is_408_all_the_same(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(), timeouts={"client_header": 1}).client() as client:
        stop = threading.Event()

        def drip() -> None:
            try:
                client.send(b"GET / HTTP/1.1\r\nHost: test.local\r\nX-Drip: ")
                while not stop.wait(0.1):
                    client.send(b"x")
            except OSError:
                pass  # the point of the test

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        response = client.receive()
        stop.set()
        thread.join(5)
        assert response.status == 408


@pytest.mark.parametrize(
    "head", [[(b"Content-Length", b"100")], [(b"Transfer-Encoding", b"chunked")]], ids=["length", "chunked"]
)
def test_slow_body_is_408(minato: StartMinato, origin: MakeOrigin, head: list[tuple[bytes, bytes]]) -> None:
    with minato(origin(), timeouts={"client_body": 0.5}).client() as client:
        client.send(request_bytes(b"POST", fields=head) + b"5\r\nab")
        response = client.receive()
        assert response.status == 408 and response.says_close() and client.is_closed()


def test_upstream_that_never_answers_is_504(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(silent), timeouts={"response": 0.5}, service_keys={"retries": 0}).client() as client:
        assert client.request().status == 504
        assert client.request(b"POST", body=b"x").status == 504  # the client's connection goes on


def test_upstream_with_half_a_head_is_504(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        connection.wait_closed(30)

    with minato(origin(script), timeouts={"response": 0.5}, service_keys={"retries": 0}).client() as client:
        assert client.request().status == 504


@contextmanager
def healthy_then_full() -> Iterator[tuple[int, Callable[[], None]]]:
    """A port that answers one probe and never accepts again; the function fills its queue: connecting then hangs."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        probed = threading.Thread(target=_answer_probe, args=(listener,), daemon=True)
        probed.start()

        def fill() -> None:
            probed.join(5)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))

        yield port, fill


def test_upstream_that_does_not_accept_is_504(minato: StartMinato) -> None:
    with healthy_then_full() as (port, fill):
        url = f"http://127.0.0.1:{port}"
        instance = minato(url, timeouts={"connect": 0.5}, health={"interval": 600}, service_keys={"retries": 0})
        fill()
        with instance.client() as client:
            assert client.request().status == 504


def _answer_probe(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        with sock:
            if sock.recv(4096):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return


def test_connect_timeout_tries_another_upstream(minato: StartMinato, origin: MakeOrigin) -> None:
    with healthy_then_full() as (port, fill):
        good = origin(name="good")
        instance = minato(f"http://127.0.0.1:{port}", good, timeouts={"connect": 0.3}, health={"interval": 600})
        fill()
        with instance.client() as client:
            for _ in range(3):
                assert client.request(b"POST", body=b"x").get(b"x-origin") == b"good"  # nothing was sent yet


@pytest.mark.parametrize("chunked", [False, True])
def test_upstream_that_stalls_in_mid_body_is_cut_uncleanly(
    minato: StartMinato, origin: MakeOrigin, chunked: bool
) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        if chunked:
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        else:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        connection.wait_closed(30)

    with minato(origin(script), timeouts={"read": 0.5}).client() as client:
        client.send(request_bytes())
        head = client.receive_head()
        with pytest.raises((Truncated, ConnectionError)):
            list(client.pieces(head))


def test_client_that_never_reads_is_let_go(minato: StartMinato, origin: MakeOrigin) -> None:
    ended = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        try:
            for piece in pattern(100_000_000):
                connection.send(piece)
        except OSError:
            ended.set()

    with minato(origin(script), timeouts={"write": 1}).client(rcvbuf_bytes=8192) as client:
        client.send(request_bytes())
        assert ended.wait(8)


def test_slow_but_steady_body_is_not_cut(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for number in range(10):
            time.sleep(0.15)  # the time between the pieces is what is tested
            connection.send(b"%d" % number)

    with minato(origin(script), timeouts={"read": 1.2, "write": 1.2, "response": 1.2}).client() as client:
        assert client.request().body == b"0123456789"


def test_slow_but_steady_upload_is_not_cut(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(), timeouts={"client_body": 1.2, "client_header": 1.2, "response": 1.2}).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"10")]))
        for number in range(10):
            time.sleep(0.15)  # the time between the pieces is what is tested
            client.send(b"%d" % number)
        assert client.receive().status == 200


def test_answers_of_timeouts_say_nothing_about_the_inside(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin(silent)
    with minato(scripted, timeouts={"response": 0.3}, service_keys={"retries": 0}).client() as client:
        response = client.request()
        assert b"127.0.0.1" not in response.body and b"%d" % scripted.port not in response.body
        assert (response.get(b"content-type") or b"").startswith(b"text/plain") and len(response.body) < 300


def test_minato_goes_on_after_each_kind_of_timeout(minato: StartMinato, origin: MakeOrigin) -> None:
    instance = minato(origin(respond_always(response_bytes(b"ok"))), timeouts={"client_header": 0.6})
    before = instance.worker_pids()
    slow = [instance.client() for _ in range(20)]
    for client in slow:
        client.send(b"GET /")
    for client in slow:
        assert client.receive().status == 408
        client.close()
    with instance.client() as client:
        assert client.request().body == b"ok"
    assert instance.worker_pids() == before
