"""An upstream connection on the bench: a scripted peer on loopback and an exchange that writes down what it hears."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable

from minato.config.model import Limits, Timeouts
from minato.errors import UpstreamError
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress
from minato.net.runtime import UpstreamRuntime
from minato.net.upstream import UpstreamConnection
from minato.protocol.codec import ClientCodec
from minato.protocol.fields import make_block
from minato.protocol.h11_codec import H11ClientCodec
from minato.protocol.message import Fields, Framing, RequestHead, ResponseHead
from tests.net.support import PATIENCE_S, read_exactly, settle, turn_until

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BIG = random.Random(4).randbytes(3_000_000)


def request_head(method: bytes = b"GET", upgrade: bytes = b"") -> RequestHead:
    return RequestHead(
        method, b"/", 11, make_block([(b"host", b"a")]), Framing.NONE, 0, b"a", b"/", True, upgrade=upgrade
    )


class Exchange:
    """An UpstreamOwner that writes down what it is told; sends a GET as soon as it is connected."""

    def __init__(self, head: RequestHead | None = None, wire: bytes = GET, *, complete: bool = True) -> None:
        self.request_complete = complete
        self.takes_whole = False
        self.connection: UpstreamConnection | None = None
        self.heads: list[ResponseHead] = []
        self.body = bytearray()
        self.told: list[str] = []
        self.error: UpstreamError | None = None
        self.pause_after: int | None = None
        self._head = head or request_head()
        self._wire = wire

    def on_connected(self) -> None:
        self.told.append("connected")
        self.send()

    def send(self) -> None:
        assert self.connection is not None
        self.connection.send_head(self._head, self._wire)
        if self.request_complete:
            self.connection.await_response()

    def on_response_head(self, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_response_body(self, data: bytes) -> None:
        self.body += data
        if self.pause_after is not None and len(self.body) > self.pause_after:
            assert self.connection is not None
            self.connection.pause()

    def on_response_end(self, trailers: Fields) -> None:
        self.told.append("end")

    def on_upstream_drained(self) -> None:
        self.told.append("drained")

    def on_upstream_deadline(self) -> None:
        self.told.append("deadline")

    def on_upstream_failed(self, error: UpstreamError) -> None:
        self.told.append("failed")
        self.error = error

    @property
    def statuses(self) -> list[int]:
        return [head.status for head in self.heads]

    @property
    def is_over(self) -> bool:
        return "end" in self.told or "failed" in self.told


def address_of(sock: socket.socket) -> ResolvedAddress:
    return ResolvedAddress(socket.AF_INET, sock.getsockname())


def refusing_address() -> tuple[socket.socket, ResolvedAddress]:
    """An address on which nobody listens, as long as the socket is kept open."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder, address_of(holder)


def upstream_of(*addresses: ResolvedAddress, tls: bool = False, name: str = "127.0.0.1") -> UpstreamRuntime:
    port = addresses[0].sockaddr[1] if addresses else 81
    return UpstreamRuntime(
        url=f"{'https' if tls else 'http'}://{name}:{port}",
        index=0,
        position=0,
        origin=0,
        port=port,
        authority=b"a",
        server_name=name,
        is_tls=tls,
        prefix=b"",
        query=b"",
        addresses=addresses,
    )


class Bench:
    """A loop, a listening peer, connections to it; ``idle`` were offered for reuse, ``idle_closed`` taken back."""

    def __init__(self, loop: Loop, *, timeouts: Timeouts | None = None) -> None:
        self.loop = loop
        self.timeouts = timeouts or Timeouts()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.idle: list[UpstreamConnection] = []
        self.idle_closed: list[UpstreamConnection] = []
        self.made: list[UpstreamConnection] = []
        self.spare: list[socket.socket] = []  # what is closed when descriptors run out
        self.make_codec: Callable[[], ClientCodec] = lambda: H11ClientCodec(Limits())
        self.peers: list[socket.socket] = []

    def connection(
        self, upstream: UpstreamRuntime | None = None, tls: ssl.SSLContext | None = None
    ) -> UpstreamConnection:
        upstream = upstream or upstream_of(address_of(self.listener))
        made = UpstreamConnection(
            self.loop,
            upstream,
            self.timeouts,
            self.make_codec(),
            tls,
            self.idle.append,
            self.idle_closed.append,
            self.make_room,
        )
        self.made.append(made)
        return made

    def make_room(self) -> bool:
        had_any = bool(self.spare)
        while self.spare:
            self.spare.pop().close()
        return had_any

    def accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        peer.settimeout(PATIENCE_S)
        self.peers.append(peer)
        return peer

    def connect(self, exchange: Exchange) -> tuple[UpstreamConnection, socket.socket]:
        """Connect for the exchange; return the connection and the peer's side of it, its request read."""
        connection = exchange.connection = self.connection()
        connection.connect(exchange)
        peer = self.accept()
        turn_until(self.loop, lambda: "connected" in exchange.told)
        settle(self.loop)
        assert read_exactly(peer, len(GET)) == GET
        return connection, peer

    def reuse(self, connection: UpstreamConnection) -> Exchange:
        exchange = Exchange()
        exchange.connection = connection
        connection.reuse(exchange)
        exchange.send()
        return exchange

    def finish(self, exchange: Exchange) -> None:
        turn_until(self.loop, lambda: exchange.is_over, "the end of the exchange")

    def close(self) -> None:
        for connection in self.made:
            connection.close()
        for sock in (self.listener, *self.peers):
            sock.close()
