"""A well-behaved origin: echoes, bodies of any size with known digests, events on demand, slow answers on a gate."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache

from .origin import Origin, OriginConnection, Request
from .wire import response_bytes

Route = Callable[[OriginConnection, Request], None]

_BLOCK = bytes(range(251)) * 1044  # about 256 KiB with a period that is no power of two: no piece can be taken twice


def pattern(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of the known pattern."""
    while size > 0:
        yield _BLOCK[:size] if size < len(_BLOCK) else _BLOCK
        size -= len(_BLOCK)


@lru_cache
def pattern_sha256(size: int) -> str:
    sha = hashlib.sha256()
    for piece in pattern(size):
        sha.update(piece)
    return sha.hexdigest()


class App(Origin):
    """The routes: /bytes/N, /chunked/N, /close/N, /status/N, /events, /slow, and an echo in JSON for all the rest.

    Attributes:
        routes: further routes by path (no query), or bytes to answer with as they are.
        gate: /slow answers when it is set; `arrived` counts those that wait.
        next_event: release it once for every event /events is to send; set `ended` first to end the stream.
    """

    def __init__(
        self, *, name: str = "app", tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.routes: dict[bytes, Route | bytes] = {}
        self.gate = threading.Event()
        self.next_event = threading.Semaphore(0)
        self.ended = False
        self.hits: dict[bytes, int] = {}
        super().__init__(self._serve_app, tls=tls, host=host, port=port, name=name)

    def _serve_app(self, connection: OriginConnection) -> None:
        while (request := connection.read_head()) is not None:
            self.record(request)
            path = request.target.split(b"?")[0]
            self.hits[path] = self.hits.get(path, 0) + 1
            route = self._find(path)
            if isinstance(route, bytes):
                request.body = b"".join(connection.body_pieces(request))
                connection.send(route)
            else:
                route(connection, request)
            if request.version == b"HTTP/1.0" or b"close" in request.values(b"connection"):
                return

    def _find(self, path: bytes) -> Route | bytes:
        if path in self.routes:
            return self.routes[path]
        built_in: dict[bytes, Route] = {
            b"bytes": _send_bytes,
            b"chunked": _send_chunked,
            b"close": _send_until_close,
            b"status": _send_status,
            b"events": self._send_events,
            b"slow": self._send_slowly,
        }
        return built_in.get(path.lstrip(b"/").split(b"/")[0], self._echo)

    def stop(self) -> None:
        """Stop, and let go whoever waits for an event or the gate."""
        self.gate.set()
        self.ended = True
        self.next_event.release(100)
        super().stop()

    def start(self) -> None:
        self.gate.clear()
        self.ended = False
        super().start()

    def _echo(self, connection: OriginConnection, request: Request) -> None:
        sha, size = hashlib.sha256(), 0
        for piece in connection.body_pieces(request):
            sha.update(piece)
            size += len(piece)
        answer = {
            "origin": self.name,
            "method": request.method.decode(),
            "target": request.target.decode("latin-1"),
            "fields": [[name.decode(), value.decode("latin-1")] for name, value in request.fields],
            "body_bytes": size,
            "body_sha256": sha.hexdigest(),
        }
        body = json.dumps(answer).encode()
        head = response_bytes(b"", fields=self._fields(len(body)), length=False)
        connection.send(head if request.method == b"HEAD" else head + body)

    def _fields(self, length: int) -> list[tuple[bytes, bytes]]:
        return [
            (b"Content-Type", b"application/json"),
            (b"Cache-Control", b"no-store"),
            (b"X-Origin", self.name.encode()),
            (b"Content-Length", b"%d" % length),
        ]

    def _send_events(self, connection: OriginConnection, request: Request) -> None:
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        number = 0
        while self.next_event.acquire(timeout=30) and not self.ended:
            event = b"data: %d\n\n" % number
            connection.send(b"%x\r\n%s\r\n" % (len(event), event))
            number += 1
        connection.send(b"0\r\n\r\n")

    def _send_slowly(self, connection: OriginConnection, request: Request) -> None:
        list(connection.body_pieces(request))
        self.gate.wait(30)
        connection.send(response_bytes(b"slow\n", fields=[(b"Cache-Control", b"no-store")]))


def _number(request: Request) -> int:
    return int(request.target.split(b"?")[0].rsplit(b"/", 1)[1])


def _send_bytes(connection: OriginConnection, request: Request) -> None:
    size = _number(request)
    connection.send(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n" % size)
    if request.method != b"HEAD":
        for piece in pattern(size):
            connection.send(piece)


def _send_chunked(connection: OriginConnection, request: Request) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in pattern(_number(request)):
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.send(b"0\r\n\r\n")


def _send_until_close(connection: OriginConnection, request: Request) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\r\n")
    for piece in pattern(_number(request)):
        connection.send(piece)
    connection.close()


def _send_status(connection: OriginConnection, request: Request) -> None:
    list(connection.body_pieces(request))
    status = _number(request)
    with_body = status not in (204, 304) and request.method != b"HEAD"
    body = b"status\n" if with_body else b""
    connection.send(response_bytes(body, status=b"%d Status" % status, length=with_body))
