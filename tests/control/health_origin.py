"""Origins for the tests of health checks: each connection is answered by a function of the test's choice."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from minato.config.model import HealthConfig, Upstream
from minato.net.resolve import ResolvedAddress

Behaviour = Callable[["Origin", socket.socket], None]

QUICK = HealthConfig(interval_s=0.05, tcp_timeout_s=0.3, http_timeout_s=0.4)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def respond(data: bytes) -> Behaviour:
    """Read the request head, send these bytes, close."""

    def behave(origin: Origin, conn: socket.socket) -> None:
        origin.read_head(conn)
        conn.sendall(data)

    return behave


def send_at_once(data: bytes) -> Behaviour:
    """Send these bytes without reading anything, then wait for the prober to go."""

    def behave(origin: Origin, conn: socket.socket) -> None:
        with contextlib.suppress(OSError):
            conn.sendall(data)
        origin.wait_for_end(conn)

    return behave


def stay_silent(origin: Origin, conn: socket.socket) -> None:
    """Read the request and never answer."""
    origin.wait_for_end(conn)


def reset(origin: Origin, conn: socket.socket) -> None:
    """Read the request, then reset the connection."""
    origin.read_head(conn)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def drip(origin: Origin, conn: socket.socket) -> None:
    """Send a head that never ends, a byte at a time, until the prober goes."""
    conn.settimeout(0.02)
    with contextlib.suppress(OSError):
        conn.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not origin.is_stopping:
            conn.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if conn.recv(4096) == b"":
                    return


@dataclass
class Origin:
    """A listening origin; ``behave`` may be exchanged at any time."""

    behave: Behaviour = field(default_factory=lambda: respond(OK))
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    is_stopping: bool = False

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((self.host, self.port))
        self.sock.listen(128)
        self.port = self.sock.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> ResolvedAddress:
        return resolved(self.port, self.host)

    def upstream(self, *, scheme: str = "http", host: str | None = None, health_uri: str = "/health") -> Upstream:
        return make_upstream(self.port, scheme=scheme, host=host or self.host, health_uri=health_uri)

    def read_head(self, conn: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and (more := conn.recv(4096)):
            data += more
        with self._changed:
            self.requests.append(data)
            self._changed.notify_all()

    def wait_for_end(self, conn: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while conn.recv(4096):
                pass

    def wait_for_connections(self, count: int, timeout_s: float = 10.0) -> None:
        """Wait until that many connections came in."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= count, timeout_s), self.connections

    def stop(self) -> None:
        """Stop listening and end every connection; the port refuses from now on."""
        self.is_stopping = True
        # shutdown wakes the accepting thread; a mere close would leave the port listening until it comes back.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for conn in list(self._open):
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            self._open.add(conn)  # before anybody hears of it and may stop this origin
            with self._changed:
                self.connections += 1
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                self._open.discard(conn)
                conn = self.tls.wrap_socket(conn, server_side=True)
                self._open.add(conn)
            self.behave(self, conn)
        self._open.discard(conn)
        conn.close()


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port whose queue is full, so that connecting hangs; yields the port."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def refusing_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def resolved(port: int, host: str = "127.0.0.1") -> ResolvedAddress:
    if ":" in host:
        return ResolvedAddress(socket.AF_INET6, (host, port, 0, 0))
    return ResolvedAddress(socket.AF_INET, (host, port))


def make_upstream(port: int, *, scheme: str = "http", host: str = "127.0.0.1", health_uri: str = "/health") -> Upstream:
    return Upstream(url=f"{scheme}://{host}:{port}", scheme=scheme, host=host, port=port, health_uri=health_uri)
