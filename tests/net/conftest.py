"""Fixtures of the net tests: a loop, a clock that stands still, sockets that are closed afterwards."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minato.net import loop as loop_module
from minato.net.loop import Loop
from minato.shared.board import Counter
from tests.net.gate import CACHE, CLIENTS, Gate, wait_for_active
from tests.net.hit_support import WallClock, note_lanes
from tests.net.proxy import Proxy
from tests.net.support import Clock, tcp_pair
from tests.net.upstream_bench import Bench
from tests.system.harness import Client, Origin, request_bytes
from tests.system.harness.origin import Script


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Make the loop's time stand still (ask for it before ``loop``)."""
    clock = Clock()
    monkeypatch.setattr(loop_module, "time", clock)
    return clock


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    if "clock" in request.fixturenames:
        request.getfixturevalue("clock")
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make TCP pairs (near, far)."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        both = tcp_pair()
        made.extend(both)
        return both

    yield make
    for sock in made:
        sock.close()


@pytest.fixture
def bench(loop: Loop) -> Iterator[Bench]:
    bench = Bench(loop)
    yield bench
    bench.close()


@pytest.fixture
def origin() -> Iterator[Callable[[Script], Origin]]:
    made: list[Origin] = []

    def make(script: Script) -> Origin:
        made.append(Origin(script))
        return made[-1]

    yield make
    for one in made:
        one.stop()
        assert not one.failures


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(*origins: Origin | int, **options: Any) -> Proxy:
        ports = [one if isinstance(one, int) else one.port for one in origins]
        made.append(Proxy(*ports, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """Make a second last until the test advances it."""
    clock = WallClock()
    monkeypatch.setattr(loop_module, "time", clock)
    return clock


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch, wall: WallClock) -> list[str]:
    """Note how each request is answered: in an exchange, as a plain hit, or hot; in a second that lasts."""
    return note_lanes(monkeypatch)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture(params=[True, False], ids=["express", "general"])
def here(
    request: pytest.FixtureRequest, gate: Gate, origin: Callable[[Script], Origin], proxy: Callable[..., Proxy]
) -> Proxy:
    return proxy(origin(gate), cache=CACHE, express=request.param)


@pytest.fixture
def crowd(here: Proxy) -> Iterator[Callable[..., list[Client]]]:
    made: list[Client] = []

    def gather(number: int = CLIENTS, wire: bytes | None = None) -> list[Client]:
        """Send the same request on as many connections, the first one ahead of the others; return when all wait."""
        active = here.counted(Counter.REQUESTS_ACTIVE)
        clients = [here.client() for _ in range(number)]
        made.extend(clients)
        for count, client in enumerate(clients, 1):
            client.send(wire or request_bytes())
            if count in (1, number):
                wait_for_active(here, active + count)
        return clients

    yield gather
    for client in made:
        client.close()
