"""Many clients at once, one cold or stale resource: a worker asks the upstream once, and all get the right answer."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .harness import App, Minato, OriginConnection, Request, fetch, free_port, request_bytes, service, wait_until
from .harness.app import pattern

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

CROWD = 500
FIRST, REST = b"first piece\n", b"".join(pattern(50_000))
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: %s\r\n\r\n"
MAX_AGE = b"max-age=60"


class Stepper:
    """A route that sends a head and a first piece, and the rest once it is let go."""

    def __init__(self, control: bytes = MAX_AGE) -> None:
        self.control = control
        self.may_begin, self.may_end = threading.Event(), threading.Event()
        self.asked = 0

    def __call__(self, connection: OriginConnection, request: Request) -> None:
        self.asked += 1
        assert self.may_begin.wait(20)
        connection.send(HEAD % self.control + b"%x\r\n%b\r\n" % (len(FIRST), FIRST))
        assert self.may_end.wait(20)
        connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(REST), REST))


class Crowd:
    """That many connections, each with one request; ``received`` is what came on each so far."""

    def __init__(self, port: int, wire: bytes, number: int = CROWD) -> None:
        self.received = [bytearray() for _ in range(number)]
        self._socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(number)]
        self._selector = selectors.DefaultSelector()
        for index, sock in enumerate(self._socks):
            sock.sendall(wire)
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, index)

    def read_until(self, is_done: Callable[[bytearray], bool], timeout_s: float = 20.0) -> None:
        """Read until every connection has got what it should."""
        deadline_s = time.monotonic() + timeout_s
        while not all(map(is_done, self.received)):
            missing = sum(not is_done(data) for data in self.received)
            assert time.monotonic() < deadline_s, f"{missing} of {len(self.received)} miss something"
            for key, _ in self._selector.select(0.1):
                data = self._socks[key.data].recv(1 << 20)
                self.received[key.data] += data
                if not data:
                    assert is_done(self.received[key.data]), "the connection ended too early"
                    self._selector.unregister(key.fileobj)

    def close(self) -> None:
        self._selector.close()
        for sock in self._socks:
            sock.close()


@contextmanager
def crowd(instance: Minato, path: bytes, number: int = CROWD) -> Iterator[Crowd]:
    made = Crowd(instance.port, request_bytes(target=path), number)
    try:
        yield made
    finally:
        made.close()


def body_of(data: bytes) -> bytes:
    """Return the content of a chunked response."""
    rest, body = data.partition(b"\r\n\r\n")[2], b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]


@pytest.fixture
def cached(minato: StartMinato, origin: MakeApp) -> Callable[..., tuple[Minato, App]]:
    def start(workers: int = 2, **sections: Any) -> tuple[Minato, App]:
        app = origin()
        return minato(app, workers=workers, cache={"enabled": True, "ttl": 0}, **sections), app

    return start


def test_a_crowd_on_a_cold_resource_costs_each_worker_one_request(cached: Callable[..., tuple[Minato, App]]) -> None:
    instance, app = cached(workers=2)
    app.routes[b"/cold"] = step = Stepper()
    with crowd(instance, b"/cold") as clients:
        wait_until(lambda: step.asked == 2, "each worker to ask")
        time.sleep(0.3)  # for those that would not wait
        assert step.asked == 2
        step.may_begin.set()
        clients.read_until(lambda data: FIRST in data)  # long before the end
        step.may_end.set()
        clients.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
        assert {body_of(bytes(data)) for data in clients.received} == {FIRST + REST}
    assert step.asked == 2
    assert fetch(instance.port, b"/cold").body == FIRST + REST


def test_a_crowd_on_what_cannot_be_shared_is_not_kept_waiting(cached: Callable[..., tuple[Minato, App]]) -> None:
    instance, app = cached(workers=1, limits={"upstream_connections": 0})
    app.routes[b"/own"] = step = Stepper(b"no-store")
    with crowd(instance, b"/own", 60) as clients:
        wait_until(lambda: step.asked == 1, "the first to ask")
        step.may_begin.set()
        wait_until(lambda: step.asked == 60, "all to ask, while the first is not answered")
        step.may_end.set()
        clients.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
    with crowd(instance, b"/own", 10) as clients:
        clients.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
    assert step.asked == 70


def test_a_crowd_survives_a_reload_in_the_middle(cached: Callable[..., tuple[Minato, App]]) -> None:
    instance, app = cached(workers=2)
    app.routes[b"/cold"] = step = Stepper()
    with crowd(instance, b"/cold", 100) as clients:
        wait_until(lambda: step.asked == 2, "each worker to ask")
        instance.reload()
        step.may_begin.set()
        clients.read_until(lambda data: FIRST in data)
        step.may_end.set()
        clients.read_until(lambda data: data.endswith(b"0\r\n\r\n"))
        assert {body_of(bytes(data)) for data in clients.received} == {FIRST + REST}


def test_a_crowd_whose_upstream_dies_is_answered_by_another(minato: StartMinato, origin: MakeApp) -> None:
    doomed, other = origin(), origin()
    asked = threading.Event()

    def die(connection: OriginConnection, request: Request) -> None:
        asked.set()
        time.sleep(0.3)
        connection.reset()

    doomed.routes[b"/cold"] = die
    other.routes[b"/cold"] = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nhello"
    instance = minato(
        services=[service(free_port(), [doomed, other], retries=1)], cache={"enabled": True, "ttl": 0}, workers=1
    )
    for _ in range(2):  # whichever is first in turn
        with crowd(instance, b"/cold", 50) as clients:
            clients.read_until(lambda data: data.endswith(b"\r\n\r\nhello"))
    assert sum(app.hits.get(b"/cold", 0) for app in (doomed, other)) <= 3
