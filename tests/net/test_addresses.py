"""The addresses of a name change under a worker: new requests go to the new ones, others end where they are."""

from __future__ import annotations

import socket
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from minato.config.model import CacheConfig, Limits
from minato.config.model import Upstream as UpstreamConfig
from minato.net.bound import BoundListener
from minato.net.resolve import ResolvedAddress
from minato.net.server import Server
from minato.shared.board import Board, Counter
from tests.system.harness import App, wait_until

from .proxy import Proxy

_SERIALS = count(9500)
NAME = "app.test"
COLUMNS = 8


class NamedProxy(Proxy):
    """A proxy whose one upstream is a name; column 0 of the board is that of its first address, and so on."""

    def __init__(self, port: int, *addresses: str, weight: int = 1, **options: Any) -> None:
        self.name = UpstreamConfig(f"http://{NAME}:{port}", "http", NAME, port, weight=weight)
        self._first = addresses
        super().__init__(port, **options)

    def _config(self, *arguments: Any) -> Any:
        config = super()._config(*arguments)
        return replace(config, services=(replace(config.services[0], upstreams=(self.name,)),))

    def _make_server(self) -> Server:
        self.board.close()
        self.board.unlink()
        keys = [self.name.at(address).key for address in self._first] or [self.name.key]
        spare = COLUMNS - len(keys)
        self.board = Board.create(slots=1, upstream_keys=keys, serial=next(_SERIALS), spare=spare, key_bytes=80)
        for column in range(COLUMNS):
            self.board.set_health(column, bool(self._first))
        return Server(
            config=self.config,
            loop=self.loop,
            board=self.board,
            slot=0,
            own=[BoundListener(self.config.services[0].listen, self._listener)],
            orphans=[],
            addresses={
                self.name.key: tuple(
                    ResolvedAddress(socket.AF_INET, (address, self.name.port)) for address in self._first
                )
            },
            wake_health=self._count_wake,
            access_log=self._access_log,
            columns={key: column for column, key in enumerate(keys)},
        )

    def change(self, **places: int) -> None:
        """Give the name these addresses (``b=1``: 127.0.0.2 in column 1)."""
        found = [(address_of(letter), column) for letter, column in places.items()]
        self.call(lambda: self.server.change_addresses(self.name.key, found))

    def active(self, column: int) -> int:
        return self.call(lambda: self.board.active(column))

    def pooled(self) -> int:
        return self.call(lambda: len(self.server._context.pool))


def address_of(letter: str) -> str:
    return f"127.0.0.{ord(letter) - ord('a') + 1}"


class Apps:
    """Origins on several addresses and one port; they answer with their letter."""

    def __init__(self, letters: str) -> None:
        self.all: dict[str, App] = {}
        self.port = 0
        for letter in letters:
            self.all[letter] = app = App(name=letter, host=address_of(letter), port=self.port)
            self.port = app.port
            body = letter.encode()
            app.routes[b"/who"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body
            app.routes[b"/cached"] = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\n" + body

    def __getitem__(self, letter: str) -> App:
        return self.all[letter]

    def close(self) -> None:
        for app in self.all.values():
            app.stop()


@pytest.fixture
def apps() -> Iterator[Apps]:
    made = Apps("abc")
    yield made
    made.close()


@pytest.fixture
def named(apps: Apps) -> Iterator[Callable[..., NamedProxy]]:
    made: list[NamedProxy] = []

    def make(letters: str, **options: Any) -> NamedProxy:
        made.append(NamedProxy(apps.port, *map(address_of, letters), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(proxy: NamedProxy, number: int, target: bytes = b"/who") -> Tally[bytes]:
    with proxy.client() as client:
        return Tally(client.request(target=target).body for _ in range(number))


def test_each_address_of_a_name_gets_its_share(named: Callable[..., NamedProxy]) -> None:
    assert ask(named("abc"), 30) == {b"a": 10, b"b": 10, b"c": 10}


def test_address_that_is_down_gets_nothing(named: Callable[..., NamedProxy]) -> None:
    proxy = named("abc")
    proxy.call(lambda: proxy.board.set_health(1, False))
    assert ask(proxy, 20) == {b"a": 10, b"c": 10}


def test_name_and_host_field_stay_what_they_were(named: Callable[..., NamedProxy], apps: Apps) -> None:
    proxy = named("a")
    with proxy.client() as client:
        client.request(target=b"/echo", host=b"test.local")
    assert apps["a"].requests[-1].get(b"host") == b"test.local"


def test_requests_go_to_the_new_addresses_at_once_on_a_connection_that_is_kept(
    named: Callable[..., NamedProxy],
) -> None:
    proxy = named("a")
    with proxy.client() as client:
        assert client.request(target=b"/who").body == b"a"
        proxy.change(b=1)
        assert [client.request(target=b"/who").body for _ in range(3)] == [b"b"] * 3
        proxy.change(b=1, c=2)
        assert Tally(client.request(target=b"/who").body for _ in range(10)) == {b"b": 5, b"c": 5}


def test_idle_connections_to_an_address_that_is_gone_are_closed(named: Callable[..., NamedProxy], apps: Apps) -> None:
    proxy = named("a")
    ask(proxy, 1)
    assert proxy.pooled() == 1
    proxy.change(b=1)
    assert proxy.pooled() == 0
    assert apps["a"].connections[0].wait_closed()


def test_idle_connections_to_an_address_that_stays_are_kept(named: Callable[..., NamedProxy], apps: Apps) -> None:
    proxy = named("a")
    ask(proxy, 1)
    proxy.change(a=0, b=1)
    proxy.call(lambda: proxy.board.set_health(1, False))
    ask(proxy, 1)
    assert len(apps["a"].connections) == 1


def test_exchange_under_way_ends_at_the_address_that_is_gone_and_its_connection_is_not_kept(
    named: Callable[..., NamedProxy], apps: Apps
) -> None:
    proxy = named("a")
    with proxy.client() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: test.local\r\n\r\n")
        apps["a"].wait_requests(1)
        proxy.change(b=1)
        assert proxy.active(0) == 1
        assert ask(proxy, 2) == {b"b": 2}
        apps["a"].gate.set()
        assert client.receive().status == 200
    assert apps["a"].connections[0].wait_closed()
    assert (proxy.active(0), proxy.active(1)) == (0, 0)
    assert proxy.pooled() == 1  # to b


def test_retry_after_a_change_goes_to_a_new_address_whatever_stands_at_the_old_position(
    named: Callable[..., NamedProxy], apps: Apps
) -> None:
    """The address that failed was at position 0, and so is the one that is left to try."""
    proxy = named("a")
    is_there, go_on = threading.Event(), threading.Event()

    def break_off(connection: Any, request: Any) -> None:
        is_there.set()
        go_on.wait(10)
        connection.reset()

    apps["a"].routes[b"/who"] = break_off
    with proxy.client() as client:
        client.send(b"GET /who HTTP/1.1\r\nHost: test.local\r\n\r\n")
        assert is_there.wait(10)
        proxy.change(b=1)
        go_on.set()
        assert client.receive().body == b"b"


def test_retry_after_a_change_does_not_go_to_the_same_address_at_another_position(
    named: Callable[..., NamedProxy], apps: Apps
) -> None:
    proxy = named("b", retries=5)
    is_there, go_on = threading.Event(), threading.Event()

    def break_off(connection: Any, request: Any) -> None:
        is_there.set()
        go_on.wait(10)
        connection.reset()

    apps["b"].routes[b"/who"] = break_off
    apps["a"].stop()
    apps["c"].stop()
    with proxy.client() as client:
        client.send(b"GET /who HTTP/1.1\r\nHost: test.local\r\n\r\n")
        assert is_there.wait(10)
        proxy.change(a=1, b=0, c=2)
        go_on.set()
        assert client.receive().status == 502
    assert len(apps["b"].requests) == 1


def test_request_that_waits_for_room_gets_it_at_an_address_that_comes(
    named: Callable[..., NamedProxy], apps: Apps
) -> None:
    proxy = named("a", limits=Limits(upstream_connections=1))
    with proxy.client() as busy, proxy.client() as waiting:
        busy.send(b"GET /slow HTTP/1.1\r\nHost: test.local\r\n\r\n")
        apps["a"].wait_requests(1)
        waiting.send(b"GET /who HTTP/1.1\r\nHost: test.local\r\n\r\n")
        wait_until(lambda: proxy.counted(Counter.REQUESTS_QUEUED), "it to wait")
        proxy.change(a=0, b=1)
        assert waiting.receive().body == b"b"
        proxy.change(b=1)
        assert proxy.call(lambda: proxy.board.waiting_since_ms(0)) == [0]
        apps["a"].gate.set()
        assert busy.receive().status == 200
    assert (proxy.active(0), proxy.active(1)) == (0, 0)


def test_name_without_an_address_serves_as_soon_as_it_has_one(named: Callable[..., NamedProxy]) -> None:
    proxy = named("")
    with proxy.client() as client:
        assert client.request(target=b"/who").status == 503
        proxy.change(a=3)
        proxy.call(lambda: proxy.board.set_health(3, True))
        assert client.request(target=b"/who").body == b"a"


def test_cache_survives_a_change(named: Callable[..., NamedProxy], apps: Apps) -> None:
    proxy = named("a", cache=CacheConfig(enabled=True))
    assert ask(proxy, 3, b"/cached") == {b"a": 3}
    proxy.change(b=1)
    assert ask(proxy, 3, b"/cached") == {b"a": 3}
    assert not apps["b"].requests


def test_address_that_comes_back_is_served_again(named: Callable[..., NamedProxy]) -> None:
    proxy = named("a")
    for _ in range(3):
        proxy.change(b=1)
        assert ask(proxy, 2) == {b"b": 2}
        proxy.change(a=0)
        assert ask(proxy, 2) == {b"a": 2}
    assert proxy.pooled() == 1


def test_failures_in_a_row_go_on_at_addresses_that_stay_and_begin_anew_in_columns_that_change_hands(
    named: Callable[..., NamedProxy],
) -> None:
    proxy = named("ab")
    attempts = proxy.server._context.attempts

    def fail(column: int, times: int) -> int:
        for _ in range(times):
            proxy.call(lambda: attempts.failed(column))
        return proxy.board.outcomes(column).tripped

    assert [fail(column, 4) for column in (0, 1)] == [0, 0]
    proxy.change(a=0, c=1)
    assert [fail(column, 1) for column in (0, 1)] == [1, 0]


def test_changes_for_a_name_that_no_service_has_are_ignored(named: Callable[..., NamedProxy]) -> None:
    proxy = named("a")
    proxy.call(lambda: proxy.server.change_addresses("http://other.test:80/", [("127.0.0.9", 1)]))
    assert ask(proxy, 1) == {b"a": 1}


def test_thousand_changes_leave_nothing_behind(named: Callable[..., NamedProxy]) -> None:
    proxy = named("a")
    for number in range(1_000):
        places = [(f"10.0.{number // 250}.{number % 250}", number % COLUMNS)]
        proxy.call(lambda places=places: proxy.server.change_addresses(proxy.name.key, places))
    services = proxy.server._services
    assert len(services._columns) == 1
    assert len(services._origins._numbers) == 1
    assert len(proxy.server._context.pool._idle) <= 1
    proxy.change(a=0)
    assert ask(proxy, 1) == {b"a": 1}
