"""A raw client: sends exactly the bytes it is given, reads responses strictly, and can be slow, gone or rude."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
import struct
from collections.abc import Iterable, Iterator

from .wire import Response, Source, Truncated, body_pieces, read_response_head, request_bytes


class Client:
    """One connection to minato. Every wait is bounded by ``timeout_s`` (TimeoutError)."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", rcvbuf_bytes: int | None = None, timeout_s: float = 10.0
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family)
        if rcvbuf_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf_bytes)
        self.sock.settimeout(timeout_s)
        self.sock.connect((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._source = Source(self.sock.recv)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_in_pieces(self, data: bytes, size: int = 1) -> None:
        for start in range(0, len(data), size):
            self.sock.sendall(data[start : start + size])

    def request(
        self,
        method: bytes = b"GET",
        target: bytes = b"/",
        *,
        host: bytes | None = b"test.local",
        fields: Iterable[tuple[bytes, bytes]] = (),
        body: bytes | None = None,
        version: bytes = b"1.1",
    ) -> Response:
        """Send a request and read its whole response."""
        self.send(request_bytes(method, target, host=host, fields=fields, body=body, version=version))
        return self.receive(method)

    def receive(self, method: bytes = b"GET") -> Response:
        """Read the next final response with its body; the interim ones before it are kept in ``interim``."""
        head = self.receive_head()
        head.body = b"".join(self.pieces(head, method))
        return head

    def receive_head(self) -> Response:
        """Read the next final response's head; a 101 counts as final."""
        interim = []
        while True:
            head = read_response_head(self._source)
            if head.status >= 200 or head.status == 101:
                head.interim = interim
                return head
            interim.append(head)

    def receive_any_head(self) -> Response:
        """Read the next head, interim or final."""
        return read_response_head(self._source)

    def pieces(self, head: Response, method: bytes = b"GET") -> Iterator[bytes]:
        """Yield the body as it arrives."""
        return body_pieces(self._source, head, method)

    def digest(self, head: Response) -> tuple[int, str]:
        """Read the body, holding none of it: its length in bytes and its SHA-256 in hex."""
        sha, size = hashlib.sha256(), 0
        for piece in self.pieces(head):
            sha.update(piece)
            size += len(piece)
        return size, sha.hexdigest()

    def read_bytes(self, size: int) -> bytes:
        """Read exactly that many raw bytes (a tunnel)."""
        return self._source.exactly(size)

    def read_to_end(self) -> bytes:
        """Read raw bytes until the other side closes; a reset counts as the end."""
        try:
            while self._source.fill():
                pass
        except ConnectionError:
            pass
        return self._source.take(len(self._source.buffer))

    def is_closed(self, timeout_s: float = 5.0) -> bool:
        """Wait for the other side to close; False when it has not after ``timeout_s`` or sends more bytes."""
        self.sock.settimeout(timeout_s)
        try:
            return not self._source.buffer and not self.sock.recv(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def half_close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            raise ConnectionResetError(error.errno, "it was reset before") from error

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


def exchange_raw(
    port: int, data: bytes, *, timeout_s: float = 10.0, closes_within_s: float = 5.0
) -> tuple[Response | None, bool]:
    """Send bytes on a connection of their own: the first response, if any, and whether the connection was closed."""
    with Client(port, timeout_s=timeout_s) as client:
        with contextlib.suppress(ConnectionError):  # minato may well refuse and close before it read all of it
            client.send(data)
        try:
            response: Response | None = client.receive()
        except (Truncated, ConnectionError):
            response = None
        return response, client.is_closed(closes_within_s)


def fetch(
    port: int,
    target: bytes = b"/",
    *,
    method: bytes = b"GET",
    host: bytes = b"test.local",
    fields: Iterable[tuple[bytes, bytes]] = (),
    body: bytes | None = None,
) -> Response:
    """One request on a connection of its own."""
    with Client(port) as client:
        return client.request(method, target, host=host, fields=fields, body=body)
