"""A real Server in a thread of the test's process, in front of scripted origins: no processes, no config file."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from minato.config.model import BalancerKind, CacheConfig, Config, HostRule, Limits, ListenAddress, Service, Timeouts
from minato.config.model import Upstream as UpstreamConfig
from minato.net.bound import BoundListener
from minato.net.loop import READ, Loop
from minato.net.resolve import ResolvedAddress
from minato.net.server import Server
from minato.shared.board import Board, Counter
from minato.telemetry.access_log import AccessEntry
from tests.system.harness import Client, Origin, OriginConnection
from tests.system.harness.origin import Script

T = TypeVar("T")

HOST = "test.local"
_SERIALS = count(9000)
_WAIT_S = 10.0


class Proxy:
    """One worker's server with one service for HOST; ``settings`` go into its Config as they are.

    ``service`` and ``upstream`` go into its service and each of its upstreams.

    Attributes:
        port: where it listens.
        drained: set when a drain is over.
        health_woken: how often the health checker would have been woken.
    """

    def __init__(
        self,
        *upstream_ports: int,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        cache: CacheConfig | None = None,
        retries: int = 1,
        access_log: Any = None,
        service: Mapping[str, Any] | None = None,
        upstream: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self._access_log = access_log
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        config = self._config(upstream_ports, timeouts, limits, cache, retries)
        if service or upstream:
            (only,) = config.services
            upstreams = tuple(replace(one, **(upstream or {})) for one in only.upstreams)
            config = replace(config, services=(replace(only, upstreams=upstreams, **(service or {})),))
        self.config = replace(config, **settings)
        keys = list(self.config.upstream_index())
        self.board = Board.create(slots=1, upstream_keys=keys, serial=next(_SERIALS))
        for index in range(len(keys)):
            self.board.set_health(index, True)
        self.drained = threading.Event()
        self.health_woken = 0
        self.loop = Loop()
        self._tasks: deque[Callable[[], None]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self.loop.add(self._woken.fileno(), READ, lambda _: self._run_tasks())
        self.server = self._make_server()
        self.server.start()
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def _config(
        self,
        ports: tuple[int, ...],
        timeouts: Timeouts | None,
        limits: Limits | None,
        cache: CacheConfig | None,
        retries: int,
    ) -> Config:
        upstreams = tuple(UpstreamConfig(f"http://127.0.0.1:{port}", "http", "127.0.0.1", port) for port in ports)
        address = ListenAddress("127.0.0.1", self.port)
        rules = (HostRule(HOST, "/"),)
        service = Service("s", address, BalancerKind.ROUND_ROBIN, rules, upstreams, retries=retries)
        return Config(
            "test.yaml",
            (service,),
            cache=cache or CacheConfig(),
            timeouts=timeouts or Timeouts(),
            limits=limits or Limits(),
        )

    def _make_server(self) -> Server:
        upstreams = self.config.services[0].upstreams
        return Server(
            config=self.config,
            loop=self.loop,
            board=self.board,
            slot=0,
            own=[BoundListener(self.config.services[0].listen, self._listener)],
            orphans=[],
            addresses={one.key: (ResolvedAddress(socket.AF_INET, (one.host, one.port)),) for one in upstreams},
            wake_health=self._count_wake,
            access_log=self._access_log,
        )

    def _count_wake(self) -> None:
        self.health_woken += 1

    def _run_tasks(self) -> None:
        self._woken.recv(4096)
        while self._tasks:
            self._tasks.popleft()()

    def call(self, action: Callable[[], T]) -> T:
        """Run something in the loop's thread and return what it returns."""
        done = threading.Event()
        result: list[Any] = []

        def task() -> None:
            try:
                result.append(action())
            finally:
                done.set()

        self._tasks.append(task)
        self._wake.send(b"x")
        assert done.wait(_WAIT_S), "the loop does not turn"
        return result[0]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the loop, so that what comes meanwhile comes to it all at once."""
        is_held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            is_held.set()
            go_on.wait(_WAIT_S)

        holder = threading.Thread(target=lambda: self.call(hold))
        holder.start()
        assert is_held.wait(_WAIT_S)
        try:
            yield
        finally:
            go_on.set()
            holder.join(_WAIT_S)

    def drain(self, deadline_s: float = 30.0, *, sweep: bool = False) -> None:
        self.call(lambda: self.server.drain(deadline_s, self.drained.set, sweep=sweep))

    def counted(self, counter: Counter) -> int:
        return self.call(lambda: self.board.row(0).get(counter))

    def client(self, **options: Any) -> Client:
        return Client(self.port, **options)

    def close(self) -> None:
        """Stop the server and check that it leaves nothing behind."""
        self.call(self.server.stop)
        active = self.counted(Counter.CONNECTIONS_ACTIVE), self.counted(Counter.REQUESTS_ACTIVE)
        in_flight = [self.board.active(index) for index in range(len(self.board.upstream_keys))]
        self.call(self.loop.stop)
        self._thread.join(_WAIT_S)
        self.loop.close()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
        self.board.close()
        self.board.unlink()
        assert (active, set(in_flight)) == ((0, 0), {0} if in_flight else set())


class Entries:
    """An access log that keeps what it is told."""

    is_combined = False

    def __init__(self) -> None:
        self.entries: list[AccessEntry] = []

    def record(self, entry: AccessEntry) -> None:
        self.entries.append(entry)


def hello(body: bytes = b"hello", *fields: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OriginMaker = Callable[[Script], Origin]
ProxyMaker = Callable[..., Proxy]


def echo_target(connection: OriginConnection) -> None:
    """Answer every request with its target."""
    while (request := connection.read_request()) is not None:
        connection.send(hello(request.target))


def say(body: bytes, *fields: bytes) -> Script:
    """Return the script of an origin that answers every request with that body."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(hello(body, *fields))

    return script


def never_answer(connection: OriginConnection) -> None:
    if connection.read_request() is not None:
        connection.wait_closed()


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
