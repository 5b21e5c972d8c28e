"""A whole worker of minato between a client and the recording origin, in one thread and with a clock moved by hand.

Loopback hands bytes over at once, so whoever has something to do is ready at once, nearly always: the rig lets all of
them go on until nobody is, waits for some milliseconds more (``patience_s``) where it matters, and lets time pass only
then. So deadlines cost nothing, and a thousand connections a second can be tried.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from types import TracebackType
from unittest import mock

from minato.config.model import BalancerKind, CacheConfig, Config, HostRule, ListenAddress, Service
from minato.config.model import Upstream as UpstreamConfig
from minato.net import loop as loop_module
from minato.net.bound import BoundListener
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress
from minato.net.server import Server
from minato.shared.board import Board, Counter
from tests.fuzzing.cases import Answer, Case, RequestCase, ResponseCase, request_id
from tests.fuzzing.origin import OriginConnection, RecordingOrigin
from tests.net.support import Clock

HOST = b"test.local"
_SERIALS = count(19_000)
_MAX_SENDS = 100
_MAX_STEPS = 20_000
_MAX_WAIT_S = 2.0  # of real time
_DEADLINES_S = (1.5, 11.0, 61.0, 80.0)


@dataclass(frozen=True)
class Upstream:
    """What one upstream connection received in a case, and whether minato ended it."""

    number: int
    received: bytes
    ended: bool


@dataclass(frozen=True)
class Seen:
    """What a case came to.

    Attributes:
        client: every byte that the client got, up to the end of its connection.
        ended: whether minato ended that connection by itself, in whatever time.
        upstreams: the connections that something was sent on.
        ids: of the requests of a `ResponseCase`, in order.
        given: by id, the method and the answers that the origin gave.
        troubles: what must never happen in any case: a bug in the log, a loop that spins, a count that is off.
    """

    case: Case
    client: bytes
    ended: bool
    upstreams: tuple[Upstream, ...]
    ids: tuple[bytes, ...]
    given: dict[bytes, list[tuple[bytes, Answer]]]
    troubles: tuple[str, ...]


def render_requests(methods: tuple[bytes, ...], ids: tuple[bytes, ...]) -> list[bytes]:
    """Return a request for each id; one in ten that have no body asks for an upgrade, too."""
    wires = []
    for method, own_id in zip(methods, ids, strict=True):
        length = b"Content-Length: 4\r\n" if method == b"POST" else b""
        asks = method == b"GET" and own_id.endswith(b"7")
        upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n" if asks else b""
        head = b"%b /%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (method, own_id, HOST, length, upgrade)
        wires.append(head + (b"post" if length else b""))
    return wires


class _Bugs(logging.Handler):
    """Keeps what is logged with a traceback, and errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.setFormatter(logging.Formatter())
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class _Client:
    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.received = b""
        self.ended = False

    def on_readable(self) -> bool:
        try:
            data = self.sock.recv(65_536)
        except ConnectionError:
            data = b""
        self.received += data
        self.ended = self.ended or not data
        return bool(data)

    def send(self, data: bytes) -> bytes:
        """Send what can be sent, and return the rest; nothing where minato has closed the connection by now."""
        try:
            return data[self.sock.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            return b""

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)


class Rig:
    """One worker, one origin; cases are tried one after the other, so that the pool outlives each."""

    def __init__(self, *, express: bool, cache: bool = False, patience_s: float = 0.002) -> None:
        self.express = express
        self.cache = cache
        self._patience_s = patience_s
        self._clock = Clock()
        self._patch = mock.patch.object(loop_module, "time", self._clock)
        self._patch.start()
        self._bugs = _Bugs()
        logging.getLogger("minato").addHandler(self._bugs)
        self._origin = RecordingOrigin()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self._port: int = self._listener.getsockname()[1]
        self._loop = Loop()
        self._server = self._make_server(express, cache)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], bool]] = {}
        self._watch(self._loop.fileno(), self._turn)
        self._watch(self._origin.listener.fileno(), self._accept)
        self._numbers = count()
        self._server.start()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _make_server(self, express: bool, cache: bool) -> Server:
        address = ListenAddress("127.0.0.1", self._port)
        upstream = UpstreamConfig(f"http://127.0.0.1:{self._origin.port}", "http", "127.0.0.1", self._origin.port)
        service = Service("s", address, BalancerKind.ROUND_ROBIN, (HostRule(HOST.decode(), "/"),), (upstream,))
        config = replace(Config("fuzz.yaml", (service,)), express=express, cache=CacheConfig(enabled=cache))
        self._board = Board.create(slots=1, upstream_keys=list(config.upstream_index()), serial=next(_SERIALS))
        self._board.set_health(0, True)
        return Server(
            config=config,
            loop=self._loop,
            board=self._board,
            slot=0,
            own=[BoundListener(address, self._listener)],
            orphans=[],
            addresses={upstream.key: (ResolvedAddress(socket.AF_INET, ("127.0.0.1", self._origin.port)),)},
            wake_health=lambda: None,
            access_log=None,
        )

    # -- one case

    def run(self, case: Case) -> Seen:
        """Try a case to its end."""
        self._origin.begin_case(case.answers if isinstance(case, ResponseCase) else None)
        ids = tuple(request_id(next(self._numbers)) for _ in case.methods) if isinstance(case, ResponseCase) else ()
        return self._run(case, ids)

    def repeat(self, seen: Seen) -> Seen:
        """Ask for the same once more, on another connection: what of it was stored comes from the store."""
        assert isinstance(seen.case, ResponseCase)
        self._origin.begin_case((), keep_given=True)
        return self._run(seen.case, seen.ids)

    def _run(self, case: Case, ids: tuple[bytes, ...]) -> Seen:
        self._board.set_health(0, True)
        client = _Client(self._port)
        self._watch(client.sock.fileno(), client.on_readable)
        try:
            if isinstance(case, RequestCase):
                self._send_pieces(client, case.pieces)
                if case.half_closes:
                    client.half_close()
                    self._settle()
            else:
                wires = tuple(render_requests(case.methods, ids))
                self._send_pieces(client, (b"".join(wires),) if case.pipelined else wires)
            ended = self._await_end(client)
        finally:
            self._unwatch(client.sock.fileno())
            client.sock.close()
        self._await_nobody()
        upstreams = tuple(
            Upstream(one.number, one.received, one.ended) for one in self._origin.connections if one.received
        )
        return Seen(case, client.received, ended, upstreams, ids, self._origin.given, tuple(self._find_troubles()))

    def _send_pieces(self, client: _Client, pieces: tuple[bytes, ...]) -> None:
        for piece in pieces:
            rest = client.send(piece)
            for _ in range(_MAX_SENDS if rest else 0):
                self._settle(self._patience_s)
                rest = client.send(rest)
            self._settle()

    def _await_end(self, client: _Client) -> bool:
        """Let time pass until minato ends the connection; else end it from the client's side, and tell that."""
        if not client.ended:
            self._settle(self._patience_s)
        for passing_s in _DEADLINES_S:
            if client.ended:
                return True
            self._pass_time(passing_s)
        by_itself = client.ended
        client.half_close()
        self._settle(0.0 if client.ended else self._patience_s)
        for passing_s in (0.0, *_DEADLINES_S):
            if not client.ended:
                self._pass_time(passing_s)
        return by_itself

    def _await_nobody(self) -> None:
        """Let minato see the client's end; what is counted still after two seconds stays counted."""
        self._settle()
        deadline_s = time.monotonic() + _MAX_WAIT_S
        while (self._is_somebody_there() or self._origin.waits()) and time.monotonic() < deadline_s:
            self._settle(self._patience_s)

    def _is_somebody_there(self) -> int:
        row = self._board.row(0)
        return row.get(Counter.CONNECTIONS_ACTIVE) or row.get(Counter.REQUESTS_ACTIVE) or self._board.active(0)

    def _pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self._loop.turn(0.0)
        self._settle()

    # -- turning

    def _watch(self, fd: int, handler: Callable[[], bool]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _settle(self, patience_s: float = 0.0) -> None:
        """Let everybody go on until nobody is ready, then let the origin send its next pieces, and so on."""
        for _ in range(_MAX_STEPS):
            events = self._epoll.poll(0) or (self._epoll.poll(patience_s) if patience_s else [])
            if not events and not self._origin.send_next():
                return
            for fd, _ in events:
                handler = self._handlers.get(fd)
                if handler is not None and not handler():
                    self._unwatch(fd)
        self._bugs.texts.append(f"still busy after {_MAX_STEPS} steps: the loop spins")

    def _turn(self) -> bool:
        self._loop.turn(0.0)
        return True

    def _accept(self) -> bool:
        connection = self._origin.accept()
        self._watch(connection.sock.fileno(), lambda: self._read(connection))
        return True

    def _read(self, connection: OriginConnection) -> bool:
        if connection.on_readable():
            return True
        self._unwatch(connection.sock.fileno())
        connection.sock.close()
        return True

    # -- what must hold after every case

    def _find_troubles(self) -> list[str]:
        troubles, self._bugs.texts = self._bugs.texts, []
        row = self._board.row(0)
        for counter in (Counter.CONNECTIONS_ACTIVE, Counter.REQUESTS_ACTIVE):
            if row.get(counter):
                troubles.append(f"{counter.name} is {row.get(counter)} with nobody there: {self._server!r}")
        if self._board.active(0):
            troubles.append(f"{self._board.active(0)} requests counted at the upstream with nobody there")
        return troubles

    def close(self) -> None:
        try:
            self._server.stop()
            self._settle()
        finally:
            logging.getLogger("minato").removeHandler(self._bugs)
            self._patch.stop()
            self._origin.close()
            self._listener.close()
            self._loop.close()
            self._epoll.close()
            self._board.close()
            self._board.unlink()
