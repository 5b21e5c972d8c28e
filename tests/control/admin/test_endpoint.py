"""The admin endpoint's socket and its connections: who gets in, who has to go, and what a change of address does."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from minato.config.model import ListenAddress
from minato.control.admin import endpoint as endpoint_module
from minato.control.admin.answer import Answer
from minato.control.admin.endpoint import MAX_CONNECTIONS, AdminEndpoint
from minato.control.admin.routes import Reply, Route
from minato.control.listeners import Listeners
from minato.errors import BootError
from minato.net.loop import Loop
from tests.ports import free_port

GET = b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"
LATER = GET.replace(b"/ok", b"/later")


class Api:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.loop = Loop()
        self.waiting: list[Reply] = []
        routes = {
            b"/ok": Route(b"GET", lambda body, reply: reply(Answer(200, {}))),
            b"/later": Route(b"GET", lambda body, reply: self.waiting.append(reply)),
        }
        self.endpoint = AdminEndpoint(self.loop, routes)
        self.address = ListenAddress("127.0.0.1", free_port())
        self.move(self.address)

    def move(self, address: ListenAddress | None) -> None:
        self.endpoint.bind(address)
        self.endpoint.serve(address)

    def connect(self, data: bytes = b"", port: int | None = None) -> socket.socket:
        sock = self.stack.enter_context(socket.create_connection(("127.0.0.1", port or self.address.port), timeout=10))
        sock.sendall(data)
        self.settle()
        return sock

    def settle(self, turns: int = 6) -> None:
        for _ in range(turns):
            self.loop.turn(0.001)

    def read(self, sock: socket.socket) -> bytes | None:
        """What is there, None where nothing is, nothing at the end."""
        self.settle()
        sock.setblocking(False)
        try:
            return sock.recv(65_536)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""


@pytest.fixture
def api() -> Iterator[Api]:
    with ExitStack() as stack:
        api = Api(stack)
        yield api
        api.endpoint.close()
        api.loop.close()


def test_client_that_keeps_its_request_back_makes_room_for_the_next(api: Api) -> None:
    dripping = [api.connect(b"GET /o") for _ in range(MAX_CONNECTIONS)]
    assert b" 200 OK" in (api.read(api.connect(GET)) or b"")
    assert [api.read(sock) for sock in dripping] == [b""] + [None] * (MAX_CONNECTIONS - 1)
    assert repr(api.endpoint) == f"<AdminEndpoint {api.address}, {MAX_CONNECTIONS} connections>"


def test_requests_under_way_are_not_given_up_for_others(api: Api) -> None:
    asking = [api.connect(LATER) for _ in range(MAX_CONNECTIONS)]
    refused = api.connect(GET)
    assert b" 503 Service Unavailable" in (api.read(refused) or b"")
    assert api.read(refused) == b""
    for reply in api.waiting:
        reply(Answer(200, {}))
    assert all(b" 200 OK" in (api.read(sock) or b"") for sock in asking)


def test_no_turn_accepts_more_than_a_few(api: Api) -> None:
    for _ in range(40):
        api.stack.enter_context(socket.create_connection(("127.0.0.1", api.address.port), timeout=10))
    api.loop.turn(0.1)
    assert "16 connections" in repr(api.endpoint)
    api.settle()
    assert "40 connections" in repr(api.endpoint)


def test_out_of_descriptors_it_rests_and_goes_on_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.calls = 0

        def fileno(self) -> int:
            return self.sock.fileno()

        def accept(self) -> None:
            self.calls += 1
            raise OSError(errno.EMFILE, "Too many open files")

    sock = api.endpoint._socket()
    assert sock is not None
    full = Full(sock)
    monkeypatch.setattr(endpoint_module, "_ACCEPT_PAUSE_S", 0.05)
    monkeypatch.setattr(api.endpoint, "_socket", lambda: full)
    client = api.connect(GET)
    assert (full.calls, api.read(client)) == (1, None)
    monkeypatch.undo()
    api.settle(200)
    assert b" 200 OK" in (api.read(client) or b"")


def test_address_moves_and_requests_by_the_old_one_are_answered(api: Api) -> None:
    idle, begun, asking = api.connect(GET), api.connect(GET[:10]), api.connect(LATER)
    assert b" 200 OK" in (api.read(idle) or b"")
    unheard = api.stack.enter_context(socket.create_connection(("127.0.0.1", api.address.port), timeout=10))
    other = ListenAddress("127.0.0.1", free_port())
    api.move(other)
    assert api.read(idle) == b""
    unheard.sendall(GET)
    begun.sendall(GET[10:])
    api.settle()
    api.waiting[0](Answer(200, {}))
    for sock in (unheard, begun, asking):
        answer = api.read(sock) or b""
        assert b" 200 OK" in answer and b"connection: close" in answer
    with pytest.raises(ConnectionRefusedError):
        api.connect()
    assert b" 200 OK" in (api.read(api.connect(GET, other.port)) or b"")


def test_address_may_widen_and_narrow(api: Api) -> None:
    for host in ("0.0.0.0", "127.0.0.1"):
        api.move(ListenAddress(host, api.address.port))
        assert b" 200 OK" in (api.read(api.connect(GET)) or b"")


def test_address_that_was_bound_and_given_up_is_free_again(api: Api) -> None:
    other = ListenAddress("127.0.0.1", free_port())
    api.endpoint.bind(other)
    api.endpoint.drop_others()
    socket.create_server(("127.0.0.1", other.port)).close()
    assert b" 200 OK" in (api.read(api.connect(GET)) or b"")


def test_address_of_somebody_else_cannot_be_bound(api: Api) -> None:
    services = Listeners()
    other = ListenAddress("127.0.0.1", free_port())
    services.bind([other], 2)
    with pytest.raises(BootError, match=f"cannot listen on 127.0.0.1:{other.port}: address already in use"):
        api.endpoint.bind(other)
    services.close()


def test_address_that_others_reach_is_warned_of(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        api.move(ListenAddress("127.0.0.1", free_port()))
        assert caplog.text == ""
        api.move(ListenAddress("0.0.0.0", free_port()))
    assert "asks nobody for a password" in caplog.text


def test_what_was_off_can_be_switched_on_and_off(api: Api) -> None:
    api.move(None)
    with pytest.raises(ConnectionRefusedError):
        api.connect()
    api.move(api.address)
    assert b" 200 OK" in (api.read(api.connect(GET)) or b"")
