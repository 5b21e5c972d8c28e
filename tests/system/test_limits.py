"""Issue line 6, limits: each with its status; at the limit is allowed, one over is not; the upstream sees nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Instances
from .harness import App, Minato, OriginConnection, exchange_raw, request_bytes

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]
LIMITS = {"header_bytes": 2000, "header_fields": 20, "target_bytes": 500, "body_bytes": 10_000}


@pytest.fixture(scope="module")
def app(module_origin: Callable[..., App]) -> App:
    return module_origin()


@pytest.fixture(scope="module")
def limited(module_instances: Instances, app: App) -> Minato:
    return module_instances.start(app, limits=LIMITS)


def many_fields(number: int) -> list[tuple[bytes, bytes]]:
    return [(b"X-%d" % n, b"1") for n in range(number - 1)]  # Host is one more


def filled_head(size: int) -> bytes:
    """A request whose head is that many bytes."""
    bare = request_bytes(fields=[(b"X-Fill", b"")])
    return request_bytes(fields=[(b"X-Fill", b"x" * (size - len(bare)))])


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (request_bytes(target=b"/" + b"x" * 499), 200),
        (request_bytes(target=b"/" + b"x" * 500), 414),
        (request_bytes(target=b"/" + b"x" * 100_000), 414),
        (request_bytes(fields=many_fields(20)), 200),
        (request_bytes(fields=many_fields(21)), 431),
        (filled_head(1900), 200),
        (filled_head(2101), 431),
        (filled_head(200_000), 431),
        (b"GET / HTTP/1.1\r\nHost: test.local\r\n" + b"X: y\r\n" * 100_000, 431),
        (request_bytes(b"POST", body=b"x" * 10_000), 200),
        (request_bytes(b"POST", fields=[(b"Content-Length", b"10001")]), 413),
        (request_bytes(b"POST", fields=[(b"Content-Length", b"99999999999999")]), 413),
        (request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"gzip, chunked")]), 501),
        (b"GET / HTTP/2.0\r\nHost: test.local\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: test.local\r\n\r\n", 200),
        (b"GET / HTTP/3.7\r\nHost: test.local\r\n\r\n", 505),
        (request_bytes(fields=[(b"Expect", b"pigs-fly")]), 417),
        (request_bytes(host=b"unknown.test"), 404),
    ],
)
def test_each_limit_has_its_status(limited: Minato, app: App, wire: bytes, status: int) -> None:
    before = len(app.requests)
    response, _ = exchange_raw(limited.port, wire, closes_within_s=0.01)
    # HTTP/1.2 does not exist: a recipient may read it as 1.1 (RFC 9110, 2.5) or refuse it.
    allowed = (200, 505, 400) if b"HTTP/1.2" in wire else (status,)
    assert response is not None and response.status in allowed
    assert len(app.requests) - before == (1 if response.status == 200 else 0)


@pytest.mark.parametrize(
    "wire",
    [
        request_bytes(target=b"/" + b"x" * 500),
        request_bytes(fields=many_fields(21)),
        filled_head(5000),
        request_bytes(b"POST", fields=[(b"Content-Length", b"10001")]),
        request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"gzip, chunked")]),
        b"GET / HTTP/2.0\r\nHost: test.local\r\n\r\n",
    ],
)
def test_connection_ends_after_what_was_not_read_to_its_end(limited: Minato, wire: bytes) -> None:
    response, closed = exchange_raw(limited.port, wire)
    assert response is not None and response.says_close() and closed


def test_chunked_body_over_the_limit_is_413(limited: Minato) -> None:
    wire = request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]) + b"1000\r\n%s\r\n" % (b"x" * 4096) * 3
    response, closed = exchange_raw(limited.port, wire + b"0\r\n\r\n", closes_within_s=1)
    assert response is not None and response.status == 413
    assert closed is response.says_close()  # kept is right as well, since the body came to its end


def test_chunked_body_within_the_limit_passes(limited: Minato) -> None:
    wire = request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")])
    wire += b"1000\r\n%s\r\n" % (b"x" * 4096) * 2 + b"0\r\n\r\n"
    with limited.client() as client:
        client.send(wire)
        assert json.loads(client.receive().body)["body_bytes"] == 8192


def test_413_reaches_a_client_that_sends_on(limited: Minato) -> None:
    """Closing with unread bytes would reset the connection and take the answer along."""
    for _ in range(5):
        response, _ = exchange_raw(limited.port, request_bytes(b"POST", body=b"x" * 2_000_000))
        assert response is not None and response.status == 413


def test_expect_continue_over_the_limit_is_refused_without_a_100(limited: Minato) -> None:
    with limited.client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"10001"), (b"Expect", b"100-continue")]))
        assert client.receive_any_head().status == 413


def test_unlimited_by_default(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin()).client() as client:
        assert json.loads(client.request(b"POST", body=b"x" * 3_000_000).body)["body_bytes"] == 3_000_000


def test_endless_upstream_head_is_502(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.send(b"X-Endless: %s\r\n" % (b"x" * 1000))

    with minato(origin(script)).client() as client:
        assert client.request().status == 502


def test_endless_chunk_extension_is_refused(limited: Minato) -> None:
    wire = request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]) + b"1;" + b"x" * 1_000_000
    response, closed = exchange_raw(limited.port, wire)
    assert response is None or response.status in (400, 413, 431)
    assert closed


def test_endless_trailers_are_refused(limited: Minato) -> None:
    wire = request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]) + b"0\r\n" + b"X: y\r\n" * 200_000
    response, closed = exchange_raw(limited.port, wire)
    assert response is None or response.status in (400, 413, 431)
    assert closed


def test_endless_interim_responses_end_in_502(minato: StartMinato, origin: MakeOrigin) -> None:
    stopped = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        try:
            while True:
                connection.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 50)
        except OSError:
            stopped.set()

    with minato(origin(script), timeouts={"response": 2}).client() as client:
        client.send(request_bytes())
        statuses = set()
        while (head := client.receive_any_head()).status < 200:
            statuses.add(head.status)
        assert head.status in (502, 504)
    assert stopped.wait(5)
