"""Issue line 6, connections: keep-alive on both sides, the pool of upstream connections, pipelining, dead ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from .harness import Minato, OriginConnection, Truncated, request_bytes, response_bytes, wait_until
from .harness.origin import respond_with

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]


def test_both_sides_are_kept_alive(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    with minato(app).client() as client:
        for _ in range(20):
            response = client.request()
            assert response.status == 200 and not response.says_close()
    assert len(app.connections) == 1 and len(app.requests) == 20


def test_upstream_connection_is_reused_by_other_clients(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    instance = minato(app)
    for _ in range(10):
        with instance.client() as client:
            client.request(b"POST", body=b"abc")
    assert len(app.connections) == 1


def test_client_that_says_close_gets_it(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    instance = minato(app)
    for _ in range(2):
        with instance.client() as client:
            response = client.request(fields=[(b"Connection", b"close")])
            assert response.says_close() and client.is_closed()
    assert len(app.connections) == 1  # close is between the client and minato


def test_upstream_that_says_close_is_not_reused(minato: StartMinato, origin: MakeOrigin) -> None:
    closing = response_bytes(b"x", fields=[(b"Connection", b"close")])

    def script(connection: OriginConnection) -> None:
        while connection.read_request():
            connection.send(closing)

    scripted = origin(script)
    with minato(scripted).client() as client:
        for _ in range(3):
            assert client.request().body == b"x"
    assert len(scripted.connections) == 3


def test_dead_idle_upstream_connection_is_noticed(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin(respond_with(response_bytes(b"one")))
    with minato(scripted).client() as client:
        for number in range(5):
            assert client.request(b"POST", body=b"x").body == b"one"  # even what cannot be retried
            scripted.wait_for(scripted.connections[number].closed.is_set, "the origin to close")
    assert len(scripted.connections) == 5


def test_upstream_that_closes_as_the_request_arrives_is_asked_anew(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(response_bytes(b"one"))
        connection.read_head()  # the second request is read and never answered
        connection.close()

    scripted = origin(script)
    with minato(scripted).client() as client:
        assert client.request().body == b"one"
        assert client.request().body == b"one"


def test_idle_upstream_connections_end_after_their_time(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    instance = minato(app, timeouts={"upstream_idle": 0.5})
    with instance.client() as client:
        client.request()
        app.wait_for(app.connections[0].closed.is_set, "the idle connection to end")
        assert client.request().status == 200
    assert len(app.connections) == 2


def test_idle_client_connections_end_after_their_time(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(), timeouts={"client_idle": 0.5}).client() as client:
        client.request()
        assert client.is_closed()


def test_new_client_connection_without_a_request_ends_after_its_time(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(), timeouts={"client_idle": 0.5, "client_header": 0.5}).client() as client:
        assert client.read_to_end()[:12] in (b"", b"HTTP/1.1 408")


def test_bytes_after_an_upstream_response_close_its_connection(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        while connection.read_request():
            connection.send(response_bytes(b"good") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    scripted = origin(script)
    with minato(scripted).client() as client:
        for number in range(3):
            assert client.request().body == b"good"
            scripted.wait_for(scripted.connections[number].saw_end.is_set, "the connection to be dropped")
    assert len(scripted.connections) == 3


def test_unasked_bytes_on_an_idle_connection_close_it(minato: StartMinato, origin: MakeOrigin) -> None:
    idle = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(response_bytes(b"good"))
        idle.wait(10)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        connection.wait_closed(5)

    scripted = origin(script)
    with minato(scripted).client() as client:
        assert client.request().body == b"good"
        idle.set()
        scripted.wait_for(scripted.connections[0].saw_end.is_set, "the connection to be dropped")
        assert client.request().body == b"good"


@pytest.mark.parametrize("size", [None, 1, 7])
def test_pipelined_requests_are_answered_in_order(minato: StartMinato, origin: MakeOrigin, size: int | None) -> None:
    app = origin()
    wire = b"".join(
        request_bytes(b"POST" if n % 3 == 0 else b"GET", b"/p%d" % n, body=b"x" * n if n % 3 == 0 else None)
        for n in range(12)
    )
    with minato(app).client() as client:
        client.send_in_pieces(wire, size or len(wire))
        targets = [json.loads(client.receive().body)["target"] for _ in range(12)]
    assert targets == [f"/p{n}" for n in range(12)]


def test_pipelined_request_waits_for_the_slow_one_before_it(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    with minato(app).client() as client:
        client.send(request_bytes(target=b"/slow") + request_bytes(target=b"/fast"))
        app.wait_requests(1)
        app.gate.set()
        assert client.receive().body == b"slow\n"
        assert json.loads(client.receive().body)["target"] == "/fast"


def test_hundreds_of_pipelined_requests_are_all_answered(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    with minato(app).client() as client:
        client.send(b"".join(request_bytes(target=b"/p%d" % n) for n in range(300)))
        for number in range(300):
            assert json.loads(client.receive().body)["target"] == f"/p{number}"


def test_pipelined_requests_before_a_half_close_are_all_answered(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin()).client() as client:
        client.send(b"".join(request_bytes(target=b"/p%d" % n) for n in range(5)))
        client.half_close()
        assert [json.loads(client.receive().body)["target"] for _ in range(5)] == [f"/p{n}" for n in range(5)]
        assert client.is_closed()


def test_malformed_pipelined_request_is_refused_after_the_answers_before_it(
    minato: StartMinato, origin: MakeOrigin
) -> None:
    with minato(origin()).client() as client:
        client.send(request_bytes(target=b"/good") + b"BAD\r\n\r\n" + request_bytes(target=b"/never"))
        assert client.receive().status == 200
        assert client.receive().status == 400
        assert client.is_closed()


def test_empty_lines_before_a_request_are_forgiven(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin()).client() as client:
        client.send(b"\r\n" + request_bytes())
        assert client.receive().status == 200


def test_more_upstream_connections_than_the_limit_is_503(minato: StartMinato, origin: MakeOrigin) -> None:
    """Without a queue the client is told to come back; with one: test_queue.py."""
    app = origin()
    instance = minato(app, limits={"upstream_connections": 2}, service_keys={"queue": {"size": 0}})
    clients = [instance.client() for _ in range(5)]
    for client in clients[:2]:
        client.send(request_bytes(target=b"/slow"))
    app.wait_requests(2)
    for client in clients[2:]:
        response = client.request(target=b"/slow")
        assert response.status == 503 and int(response.get(b"retry-after") or b"0") >= 1
    app.gate.set()
    assert [client.receive().status for client in clients[:2]] == [200, 200]
    assert [client.request().status for client in clients] == [200] * 5  # there is room again
    assert len(app.connections) == 2
    for client in clients:
        client.close()


def test_full_upstream_is_passed_over_for_one_with_room(minato: StartMinato, origin: MakeOrigin) -> None:
    a, b = origin(name="a"), origin(name="b")
    instance = minato(a, b, limits={"upstream_connections": 1})
    with instance.client() as holding, instance.client() as client:
        holding.send(request_bytes(target=b"/slow"))
        wait_until(lambda: a.requests or b.requests, "the slow request")
        free = b"b" if a.requests else b"a"
        assert {client.request().get(b"x-origin") for _ in range(6)} == {free}


def test_limit_of_client_connections_makes_the_rest_wait_or_go(minato: StartMinato, origin: MakeOrigin) -> None:
    instance = minato(origin(), limits={"connections": 4}, timeouts={"client_idle": 30})
    clients = [instance.client() for _ in range(4)]
    for client in clients:
        assert client.request().status == 200
    late = instance.client(timeout_s=5)
    late.send(request_bytes())
    clients[0].close()

    def is_served() -> bool:
        try:
            return late.receive().status == 200
        except (Truncated, ConnectionError):  # refused at once: a new one must be welcome, since a place is free
            with instance.client() as again:
                return again.request().status == 200

    assert wait_until(is_served, "a place to become free")
    for client in [*clients[1:], late]:
        client.close()
