"""Accepting when descriptors run out, while listeners come and go."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from minato.net.bound import BoundListener
from minato.shared.board import Counter
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.net.support import Clock
from tests.system.harness import Client, request_bytes
from tests.system.harness.origin import respond_always

GET = request_bytes()


class ScarceSocket(socket.socket):
    """A listening socket that finds no descriptor left for its first ``failures`` accepts."""

    failures = 0

    def __init__(self) -> None:
        super().__init__()
        self.exhausted = threading.Event()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def _accept(self) -> tuple[int, object]:
        if self.failures:
            self.failures -= 1
            self.exhausted.set()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super()._accept()


MakeListener = Callable[[Proxy], BoundListener]


@pytest.fixture
def listener() -> Iterator[MakeListener]:
    """Make further listeners of a proxy's service."""
    made: list[ScarceSocket] = []

    def make(here: Proxy) -> BoundListener:
        made.append(ScarceSocket())
        return BoundListener(here.config.services[0].listen, made[-1])

    yield make
    for sock in made:
        sock.close()


def run_out(here: Proxy, listener: MakeListener) -> BoundListener:
    """Let the server adopt a listener whose first accept finds no descriptor; return it, its client still waiting."""
    scarce = listener(here)
    assert isinstance(scarce.sock, ScarceSocket)
    scarce.sock.failures = 1
    here.call(lambda: here.server.adopt([scarce]))
    with Client(scarce.sock.getsockname()[1]):
        assert scarce.sock.exhausted.wait(5.0)
    here.call(lambda: None)
    return scarce


def test_a_listener_adopted_while_accepting_is_paused_waits_like_the_others(
    clock: Clock,
    origin: OriginMaker,
    proxy: ProxyMaker,
    listener: MakeListener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = proxy(origin(respond_always(hello())))
    scarce, adopted = run_out(here, listener), [listener(here), listener(here)]
    here.call(lambda: here.server.adopt(adopted))
    ports = [here.port, *(one.sock.getsockname()[1] for one in (scarce, *adopted))]
    clients = [Client(port) for port in ports]
    for client in clients:
        client.send(GET)
    for _ in range(3):
        here.call(lambda: None)
    assert here.counted(Counter.CONNECTIONS_ACCEPTED) == 0
    clock.advance(1.0)
    here.call(lambda: None)
    assert [client.receive().body for client in clients] == [b"hello"] * 4
    for client in clients:
        client.close()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_listener_released_while_accepting_is_paused_is_not_taken_up_again(
    clock: Clock,
    origin: OriginMaker,
    proxy: ProxyMaker,
    listener: MakeListener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = proxy(origin(respond_always(hello())))
    scarce = run_out(here, listener)
    here.call(lambda: here.server.release([scarce]))
    with here.client() as client:
        client.send(GET)
        clock.advance(1.0)
        here.call(lambda: None)
        assert client.receive().body == b"hello"
    assert not [record for record in caplog.records if record.exc_info]
