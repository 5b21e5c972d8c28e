"""Scripted origins: raw-socket servers whose connections run a function of the test; health is answered apart."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .wire import Fields, Source, Truncated, parse_field_lines

HEALTH_TARGET = b"/health"
_RECORD_BYTES = 1_048_576


@dataclass
class Request:
    """A request as the origin read it: ``fields`` in order, names lower case; ``head`` the raw bytes."""

    method: bytes
    target: bytes
    version: bytes
    fields: Fields
    head: bytes
    body: bytes = b""
    connection: int = 0

    def get(self, name: bytes) -> bytes | None:
        values = self.values(name)
        assert len(values) < 2, f"{name!r} came {len(values)} times"
        return values[0] if values else None

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


class OriginConnection:
    """One accepted connection.

    Attributes:
        number: counts the connections that carried something else than a probe, from 0.
        received: the first mebibyte of bytes received.
        closed: set when this side saw the end of the connection or closed it.
    """

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin = origin
        self.sock = sock
        self.number = -1
        self.received = bytearray()
        self.closed = threading.Event()
        self.saw_end = threading.Event()
        self._source = Source(self._recv)

    def _recv(self, size: int) -> bytes:
        data = self.sock.recv(size)
        if len(self.received) < _RECORD_BYTES:
            self.received += data
        if not data:
            self.saw_end.set()
            self.origin.changed()
        return data

    def read_head(self) -> Request | None:
        """Read a request's head; None where the connection ended before or inside one."""
        try:
            raw = self._source.until(b"\r\n\r\n")
        except (Truncated, OSError):
            return None
        if not raw:
            return None
        lines = raw[:-4].split(b"\r\n")
        method, target, version = lines[0].split(b" ")
        return Request(method, target, version, parse_field_lines(lines[1:]), raw, connection=self.number)

    def body_pieces(self, request: Request) -> Iterator[bytes]:
        """Yield the request's body as it arrives. Raises Truncated when it is cut short."""
        if request.values(b"transfer-encoding"):
            while size := int(self._source.until(b"\r\n") or b"0", 16):
                yield self._source.exactly(size)
                assert self._source.exactly(2) == b"\r\n"
            while self._source.until(b"\r\n") not in (b"\r\n", b""):
                pass
        left = int(request.get(b"content-length") or 0)
        while left:
            piece = self._source.some(left)
            if not piece:
                raise Truncated(f"{left} bytes of the request missing")
            left -= len(piece)
            yield piece

    def read_request(self) -> Request | None:
        """Read a whole request and record it; None where the connection ended."""
        request = self.read_head()
        if request is None:
            return None
        self.origin.record(request)
        with contextlib.suppress(Truncated, OSError):
            request.body = b"".join(self.body_pieces(request))
            return request
        return None

    def unread_first_line(self) -> bytes:
        """Wait for the first bytes and return them, leaving them unread."""
        while b"\r\n" not in self._source.buffer:
            if not self._source.fill():
                break
        return bytes(self._source.buffer)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_some(self, limit: int = 65_536) -> bytes:
        return self._source.some(limit)

    def wait_closed(self, timeout_s: float = 10.0) -> bool:
        """Read on until the other side closes or resets; False when it has not after ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        try:
            while (left_s := deadline_s - time.monotonic()) > 0:
                self.sock.settimeout(left_s)
                if not self._recv(65_536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            self.saw_end.set()
            self.origin.changed()
            return True
        return False

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()
        self.closed.set()
        self.origin.changed()


Script = Callable[[OriginConnection], None]


@dataclass
class Health:
    """How the origin answers probes: a status, those of ``once`` first; or not at all until ``hang`` is cleared."""

    status: bytes = b"200 OK"
    once: list[bytes] = field(default_factory=list)
    hang: bool = False
    probes: int = 0
    heads: list[bytes] = field(default_factory=list)


class Origin:
    """A server on loopback. Probes (requests for HEALTH_TARGET, connections without a byte) never reach the script.

    Attributes:
        connections: those that carried something else than a probe, in order.
        accepted: how many connections were accepted; ``unnumbered`` of them turned out to be probes or ended empty.
        requests: every request that was recorded, in order, over all connections.
        health: how probes are answered.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        name: str = "origin",
    ) -> None:
        self.script = script
        self.name = name
        self.health = Health()
        self.connections: list[OriginConnection] = []
        self.requests: list[Request] = []
        self.accepted = 0
        self.unnumbered = 0
        self.failures: list[BaseException] = []
        self._tls = tls
        self._host = host
        self._open: set[OriginConnection] = set()
        self._change = threading.Condition()
        self._listener: socket.socket | None = None
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def start(self) -> None:
        """Listen (again, on the same port as before)."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self.port))
        listener.listen(512)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and end every connection: from now on connections are refused."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    @property
    def has_unread(self) -> bool:
        """Whether there are connections that nothing was read from yet, so that it is not clear what they carry."""
        waits = self._listener is not None and bool(select.select([self._listener], [], [], 0)[0])
        return waits or self.accepted > len(self.connections) + self.unnumbered

    def record(self, request: Request) -> None:
        with self._change:
            self.requests.append(request)
            self._change.notify_all()

    def changed(self) -> None:
        with self._change:
            self._change.notify_all()

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
        """Wait until ``condition`` holds; it is asked again after every connection, request, probe and close."""
        with self._change:
            if not self._change.wait_for(condition, timeout_s):
                raise AssertionError(f"{self.name}: not within {timeout_s} s: {what}")

    def wait_requests(self, number: int, timeout_s: float = 10.0) -> None:
        self.wait_for(lambda: len(self.requests) >= number, f"{number} requests", timeout_s)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(60)
        if self._tls is not None:
            try:
                sock = self._tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True)
            except OSError:
                self.unnumbered += 1
                sock.close()
                return
        connection = OriginConnection(self, sock)
        self._open.add(connection)
        try:
            self._run(connection)
        except (OSError, Truncated):
            pass  # the other side went away, which many tests are about
        except BaseException as error:
            self.failures.append(error)  # told at the end of the test
        finally:
            if connection.number < 0:
                self.unnumbered += 1
            connection.close()
            self._open.discard(connection)

    def _run(self, connection: OriginConnection) -> None:
        first = connection.unread_first_line()
        if not first:
            return
        if first.split(b" ", 2)[1:2] == [HEALTH_TARGET]:
            self._answer_probe(connection)
            return
        with self._change:
            connection.number = len(self.connections)
            self.connections.append(connection)
            self._change.notify_all()
        self.script(connection)

    def _answer_probe(self, connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        with self._change:
            self.health.probes += 1
            self.health.heads.append(request.head)
            self._change.notify_all()
        if self.health.hang:
            connection.wait_closed(60)
            return
        status = self.health.once.pop(0) if self.health.once else self.health.status
        connection.send(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)


def respond_with(*responses: bytes) -> Script:
    """A script that answers a connection's requests with these bytes one after the other, then closes it."""

    def script(connection: OriginConnection) -> None:
        for response in responses:
            if connection.read_request() is None:
                return
            connection.send(response)

    return script


def respond_always(response: bytes) -> Script:
    """A script that answers every request of a connection with the same bytes and keeps it open."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(response)

    return script
