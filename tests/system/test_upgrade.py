"""Issue line 6, tunnels: opened by the upstream's 101 alone, transparent both ways, ended with either side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from .harness import Client, Minato, OriginConnection, request_bytes, response_bytes
from .harness.app import pattern

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]

UPGRADE = [
    (b"Connection", b"keep-alive, Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"Sec-WebSocket-Version", b"13"),
]
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def echoing(connection: OriginConnection) -> None:
    """Switch protocols, then send back whatever comes."""
    connection.read_request()
    connection.send(SWITCH)
    while data := connection.read_some():
        connection.send(data)


def open_tunnel(client: Client) -> None:
    client.send(request_bytes(target=b"/chat", fields=UPGRADE))
    head = client.receive_head()
    assert head.status == 101
    assert head.get(b"upgrade") == b"websocket"
    assert b"upgrade" in (head.get(b"connection") or b"").lower()
    assert head.get(b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_tunnel_opens_after_101_and_carries_any_bytes(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin(echoing)
    with minato(scripted).client() as client:
        open_tunnel(client)
        for message in (b"x", b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
            client.send(message)
            assert client.read_bytes(len(message)) == message
    request = scripted.requests[0]
    assert request.get(b"upgrade") == b"websocket"
    assert b"upgrade" in (request.get(b"connection") or b"").lower()
    assert request.get(b"sec-websocket-key") == b"dGhlIHNhbXBsZSBub25jZQ=="


def test_bytes_sent_together_with_the_101_arrive(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(SWITCH + b"hello at once")
        connection.wait_closed(10)

    with minato(origin(script)).client() as client:
        open_tunnel(client)
        assert client.read_bytes(13) == b"hello at once"


def test_tunnel_has_back_pressure_and_loses_nothing(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin(echoing)).client() as client:
        open_tunnel(client)
        size = 20_000_000

        def send() -> None:
            for piece in pattern(size):
                client.send(piece)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        for piece in pattern(size):
            assert client.read_bytes(len(piece)) == piece
        thread.join(10)


def test_end_of_the_client_ends_the_upstream(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin(echoing)
    with minato(scripted).client() as client:
        open_tunnel(client)
    scripted.wait_for(scripted.connections[0].saw_end.is_set, "the tunnel's end", timeout_s=3)


def test_end_of_the_upstream_ends_the_client(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(SWITCH + b"bye")

    with minato(origin(script)).client() as client:
        open_tunnel(client)
        assert client.read_to_end() == b"bye"


def test_half_closed_tunnel_still_carries_the_other_way(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(SWITCH)
        received = b""
        while data := connection.read_some():
            received += data
        connection.send(b"got " + received)

    with minato(origin(script)).client() as client:
        open_tunnel(client)
        client.send(b"last words")
        client.half_close()
        assert client.read_to_end() == b"got last words"


def test_no_tunnel_when_the_upstream_declines(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin()
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: test.local\r\n\r\n"
    with minato(scripted).client() as client:
        client.send(request_bytes(target=b"/plain", fields=UPGRADE))
        assert client.receive().status == 200
        client.send(smuggled)
        assert client.receive().status == 200
    assert [request.target for request in scripted.requests] == [b"/plain", b"/smuggled"]
    assert scripted.requests[1].get(b"via") == b"1.1 minato"  # it went through the proxy, not through a tunnel


def test_101_that_nobody_asked_for_is_502(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(SWITCH)
        connection.wait_closed(5)

    scripted = origin(script)
    with minato(scripted).client() as client:
        assert client.request().status == 502
    scripted.wait_for(scripted.connections[0].saw_end.is_set, "the connection to be dropped")


def test_http_1_0_request_does_not_upgrade(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin()
    with minato(scripted).client() as client:
        assert client.request(fields=UPGRADE, version=b"1.0").status == 200
    assert scripted.requests[0].values(b"upgrade") == []


def test_upgrade_field_that_connection_does_not_name_is_not_forwarded(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin()
    with minato(scripted).client() as client:
        assert client.request(fields=[(b"Upgrade", b"websocket")]).status == 200
    assert scripted.requests[0].values(b"upgrade") == []


def test_upgrade_to_h2c_is_not_offered_to_the_upstream(minato: StartMinato, origin: MakeOrigin) -> None:
    scripted = origin()
    fields = [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABkAAQ")]
    with minato(scripted).client() as client:
        assert client.request(fields=fields).status == 200
    assert scripted.requests[0].values(b"http2-settings") == []


def test_idle_tunnel_outlives_the_timeouts_of_exchanges(minato: StartMinato, origin: MakeOrigin) -> None:
    import time

    timeouts = {"client_idle": 0.5, "client_header": 0.5, "client_body": 0.5, "response": 0.5}
    with minato(origin(echoing), timeouts=timeouts).client() as client:
        open_tunnel(client)
        time.sleep(1.5)  # idleness is what is tested
        client.send(b"still here")
        assert client.read_bytes(10) == b"still here"


@pytest.mark.parametrize("tail", [b"early"])
def test_bytes_of_the_client_before_the_101_wait_for_it(minato: StartMinato, origin: MakeOrigin, tail: bytes) -> None:
    scripted = origin(echoing)
    with minato(scripted).client() as client:
        client.send(request_bytes(target=b"/chat", fields=UPGRADE) + tail)
        assert client.receive_head().status == 101
        assert client.read_bytes(len(tail)) == tail


def test_refused_upgrade_with_a_body_of_its_own(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        while connection.read_request():
            connection.send(response_bytes(b"use version 13", status=b"426 Upgrade Required"))

    with minato(origin(script)).client() as client:
        client.send(request_bytes(fields=UPGRADE))
        assert client.receive().body == b"use version 13"
        assert client.request().status == 426
