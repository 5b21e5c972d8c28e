"""The harness against itself: the client and the origins must tell good from bad, or no other test here can."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from .harness import App, Client, Origin, ProtocolViolation, Truncated, response_bytes
from .harness.app import pattern_sha256
from .harness.client import exchange_raw
from .harness.origin import respond_with


def test_client_reads_every_kind_of_body_from_the_app(origin: Callable[..., App]) -> None:
    app = origin()
    with Client(app.port) as client:
        for target in (b"/bytes/1000000", b"/chunked/1000000", b"/close/1000000"):
            client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.digest(client.receive_head()) == (1_000_000, pattern_sha256(1_000_000))


def test_app_echoes_what_it_received(origin: Callable[..., App]) -> None:
    with Client(origin(name="a").port) as client:
        answer = json.loads(client.request(b"POST", b"/x?y", fields=[(b"A", b"b")], body=b"12345").body)
    assert (answer["method"], answer["target"], answer["body_bytes"]) == ("POST", "/x?y", 5)
    assert ["a", "b"] in answer["fields"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"",
    ],
)
def test_client_sees_that_a_response_was_cut_short(answer: bytes, origin: Callable[..., Origin]) -> None:
    with Client(origin(respond_with(answer)).port) as client, pytest.raises(Truncated):
        client.request()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
    ],
)
def test_client_refuses_what_no_server_may_send(answer: bytes, origin: Callable[..., Origin]) -> None:
    with Client(origin(respond_with(answer)).port) as client, pytest.raises(ProtocolViolation):
        client.request()


def test_probes_do_not_reach_the_script(origin: Callable[..., Origin]) -> None:
    scripted = origin(respond_with(response_bytes(b"script")))
    Client(scripted.port).close()
    response, closed = exchange_raw(scripted.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response is not None and response.status == 200 and response.body == b"" and closed
    assert scripted.connections == [] and scripted.health.probes == 1
    response, closed = exchange_raw(scripted.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response is not None and response.body == b"script" and closed


def test_origin_records_the_exact_bytes_and_sees_the_client_leave(origin: Callable[..., Origin]) -> None:
    left: list[bool] = []

    def script(connection: Any) -> None:
        connection.read_request()
        left.append(connection.wait_closed())

    scripted = origin(script)
    sent = b"POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with Client(scripted.port) as client:
        client.send_in_pieces(sent, 7)
        scripted.wait_requests(1)
        client.reset()
        scripted.wait_for(scripted.connections[0].saw_end.is_set, "the client's end")
    assert bytes(scripted.connections[0].received) == sent
    assert scripted.requests[0].body == b"abc"


def test_stopped_origin_refuses_and_comes_back_on_its_port(origin: Callable[..., App]) -> None:
    app = origin()
    app.stop()
    with pytest.raises(ConnectionRefusedError):
        Client(app.port)
    app.start()
    with Client(app.port) as client:
        assert client.request(target=b"/status/204").status == 204
