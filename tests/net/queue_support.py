"""A proxy in front of capped upstreams, and clients that wait for room there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from minato.config.model import QueueConfig
from minato.net.room import Rooms
from minato.shared.board import Counter
from tests.net.gate import Gate, wait_for_active
from tests.net.proxy import Proxy, ProxyMaker
from tests.system.harness import Client, OriginConnection, request_bytes, wait_until

QUEUE = QueueConfig(size=100, timeout_s=10.0)


def capped(proxy: ProxyMaker, *origins: Any, cap: int = 1, queue: QueueConfig = QUEUE, **options: Any) -> Proxy:
    service = {"queue": queue, **options.pop("service", {})}
    return proxy(*origins, upstream={"max_connections": cap}, service=service, **options)


@contextlib.contextmanager
def asking(here: Proxy, *targets: bytes, method: bytes = b"GET") -> Iterator[list[Client]]:
    """Have a client ask for each target, one after the other."""
    clients = []
    active = here.counted(Counter.REQUESTS_ACTIVE)
    for count, target in enumerate(targets, 1):
        client = here.client()
        clients.append(client)
        client.send(request_bytes(method, target, body=b"body" if method == b"POST" else None))
        wait_for_active(here, active + count)
    yield clients
    for client in clients:
        client.close()


def waiting(here: Proxy) -> int:
    (service,) = here.server._context.services
    return here.call(lambda: len(service.room.queue) if service.room is not None else 0)


def nobody_waits(here: Proxy) -> bool:
    """Tell whether nothing is left of a wait: no queue, no poll, nothing on the board."""
    rooms: Rooms = here.server._context.rooms
    wait_until(lambda: not here.call(lambda: rooms._poll.is_set), "the end of the polling")
    return repr(rooms) == "<Rooms nobody waits>" and not any(here.board.waiting_since_ms(0))


def poll_gates(*gates: Gate) -> tuple[Gate, OriginConnection] | None:
    for gate in gates:
        if not gate.asked.empty():
            return gate, gate.next()[0]
    return None
