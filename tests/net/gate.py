"""An origin whose answers wait for the test: for what happens in front of it while a response is on its way."""

from __future__ import annotations

import queue
import time

from minato.config.model import CacheConfig
from minato.shared.board import Counter
from tests.net.proxy import Proxy
from tests.system.harness import OriginConnection
from tests.system.harness.origin import Request

CACHE = CacheConfig(enabled=True, ttl_s=0.0, max_body_size_bytes=200_000)
CLIENTS = 12


class Gate:
    """An origin's script whose connections wait for the test: each request is handed over with its connection."""

    def __init__(self) -> None:
        self.asked: queue.Queue[tuple[OriginConnection, Request]] = queue.Queue()
        self.pending: dict[OriginConnection, queue.Queue[bool]] = {}

    def __call__(self, connection: OriginConnection) -> None:
        answered = self.pending[connection] = queue.Queue()
        while (request := connection.read_request()) is not None:
            self.asked.put((connection, request))
            if not answered.get(timeout=20):
                return

    def next(self) -> tuple[OriginConnection, Request]:
        return self.asked.get(timeout=10)

    def done(self, connection: OriginConnection, *, stays: bool = True) -> None:
        """The response was sent: read the connection's next request, or close it."""
        self.pending[connection].put(stays)

    def answer(self, response: bytes, *, stays: bool = True) -> Request:
        connection, request = self.next()
        connection.send(response)
        self.done(connection, stays=stays)
        return request

    def is_quiet(self, seconds: float = 0.1) -> bool:
        """Tell whether no further request comes in that time."""
        try:
            self.asked.get(timeout=seconds)
        except queue.Empty:
            return True
        return False


def wait_for_active(here: Proxy, number: int) -> None:
    deadline_s = time.monotonic() + 10
    while here.counted(Counter.REQUESTS_ACTIVE) != number:
        assert time.monotonic() < deadline_s, here.counted(Counter.REQUESTS_ACTIVE)
        time.sleep(0.002)
