"""Fixtures of the net tests: a loop, a clock that stands still, sockets that are closed afterwards."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from minato.net import loop as loop_module
from minato.net.loop import Loop
from tests.net.support import Clock, tcp_pair


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
