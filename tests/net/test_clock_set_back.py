"""A wall clock that is set back: what was stored by it would never grow old."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from minato.net import context as context_module
from tests.net.hit_support import CACHE, HOT, Versions, WallClock, ask, make_hot
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.system.harness import OriginConnection, request_bytes


class Clocks(SimpleNamespace):
    """Both clocks as the context reads them, in step with the loop's."""

    def __init__(self, wall: WallClock) -> None:
        super().__init__()
        self._wall = wall
        self.monotonic_s = 1_000.0

    def time(self) -> float:
        return self._wall.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def step(self, here: Proxy, wall_s: float, monotonic_s: float = 1.0) -> None:
        """Let a second go by, in which the wall clock moved so far."""
        self._wall.wall_s += wall_s
        self.monotonic_s += monotonic_s
        here.call(here.server._context._tick)


@pytest.fixture
def clocks(wall: WallClock, monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks(wall)
    monkeypatch.setattr(context_module, "time", clocks)
    return clocks


def test_a_clock_set_back_ends_everything_stored(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    here = proxy(origin(Versions()), cache=CACHE)
    with caplog.at_level(logging.WARNING, "minato.cache"), here.client() as client:
        make_hot(client, lanes)
        clocks.step(here, -3600.0)
        assert ask(client)[1] == b"GET / 2"
        clocks.step(here, 1.0)
        assert ask(client)[1] == b"GET / 2", "by the new clock it is stored as ever"
    assert [record.getMessage() for record in caplog.records] == [
        "the clock was set back by 3601.0 s: the cache lets 1 responses go"
    ]


def test_a_clock_set_back_in_small_steps_is_seen_too(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], clocks: Clocks
) -> None:
    here = proxy(origin(Versions()), cache=CACHE)
    with here.client() as client:
        make_hot(client, lanes)
        clocks.step(here, 0.5)
        clocks.step(here, 0.75)
        assert ask(client)[1] == b"GET / 1"
        clocks.step(here, 0.5)
        assert ask(client)[1] == b"GET / 2"


@pytest.mark.parametrize("wall_s", [1.0, 5.0, 0.25])
def test_a_clock_that_is_right_or_ahead_ends_nothing_that_is_fresh(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], clocks: Clocks, wall_s: float
) -> None:
    here = proxy(origin(Versions()), cache=CACHE)
    with here.client() as client:
        make_hot(client, lanes)
        clocks.step(here, wall_s)
        assert make_hot(client, lanes)[1] == b"GET / 1"
        assert lanes[-1] == HOT


def test_a_response_on_its_way_when_the_clock_is_set_back_is_not_kept(
    origin: OriginMaker, proxy: ProxyMaker, clocks: Clocks
) -> None:
    go_on = threading.Event()
    bodies = iter([b"1", b"2"])

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            wire = hello(next(bodies) * 10, b"Cache-Control: max-age=60")
            connection.send(wire[:-5])
            assert go_on.wait(10)
            connection.send(wire[-5:])

    here = proxy(origin(script), cache=CACHE)
    with here.client() as client:
        client.send(request_bytes())
        response = client.receive_head()
        clocks.step(here, -10.0)
        go_on.set()
        assert b"".join(client.pieces(response)) == b"1" * 10
        assert ask(client)[1] == b"2" * 10
