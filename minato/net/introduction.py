"""A connection that begins with a PROXY header: who it is for is read before anything else happens to it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from minato.net.loop import READ, Loop
from minato.protocol.proxy_protocol import (
    MAX_V2_BYTES,
    Endpoints,
    MalformedProxyHeader,
    ProxyHeader,
    read_proxy_header,
)

_MAPPED_IPV4: Final = "::ffff:"


class Introduction:
    """An accepted connection up to the end of its PROXY header.

    What is behind the header stays in the socket for whoever takes it over. What is no header gets no answer, since
    nobody knows what the peer speaks; so does a header that is not whole in time.

    Attributes:
        peer: the address of whoever connected.
        is_idle: nothing is under way.
    """

    __slots__ = ("_data", "_loop", "_on_closed", "_on_introduced", "_sock", "_timer", "peer")

    is_idle = True

    def __init__(
        self,
        loop: Loop,
        sock: socket.SocketType,
        peer: str,
        timeout_s: float,
        on_introduced: Callable[[Introduction, socket.SocketType, ProxyHeader], None],
        on_closed: Callable[[Introduction, str], None],
    ) -> None:
        """Wait for the header; one of the two callbacks is called once, after this returns.

        Args:
            loop: the worker's.
            sock: connected and non-blocking; ``on_introduced`` takes it over, out of the loop.
            peer: its address.
            timeout_s: for the whole header, however it drips.
            on_introduced: hears the header.
            on_closed: hears that there will be none, and why (empty: ``close`` was called).
        """
        self.peer = peer
        self._loop = loop
        self._sock: socket.SocketType | None = sock  # None once it is closed or taken over
        self._data = b""
        self._on_introduced = on_introduced
        self._on_closed = on_closed
        self._timer = loop.timer(self._on_deadline)
        self._timer.set(timeout_s)
        loop.add(sock.fileno(), READ, self._on_event)

    def __repr__(self) -> str:
        return f"<Introduction of {self.peer}, {len(self._data)} bytes>"

    def on_readable(self) -> None:
        """Read on, and no further than to the header's end."""
        sock = self._sock
        if sock is None:
            return
        try:
            fresh = sock.recv(MAX_V2_BYTES, socket.MSG_PEEK)
            if not fresh:
                self._refuse("it ended before its PROXY header")
                return
            header = read_proxy_header(self._data + fresh)
            own = len(fresh) if header is None else header.size_bytes - len(self._data)
            self._data += sock.recv(own)
        except BlockingIOError:
            return
        except MalformedProxyHeader as error:
            self._refuse(str(error))
            return
        except OSError as error:
            self._refuse(error.strerror or "the connection broke")
            return
        if header is not None:
            self._let_go()
            self._on_introduced(self, sock, header)

    def on_crash(self) -> None:
        """The loop caught an error that nobody expected."""
        self.close()

    def close(self) -> None:
        """Close without an answer."""
        self._refuse("")

    def _let_go(self) -> socket.SocketType | None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self._timer.close()
            self._loop.remove(sock.fileno())
        return sock

    def _refuse(self, reason: str) -> None:
        sock = self._let_go()
        if sock is not None:
            sock.close()
            self._on_closed(self, reason)

    def _on_event(self, mask: int) -> None:
        self.on_readable()

    def _on_deadline(self) -> None:
        self._refuse("its PROXY header did not come in time")


def read_endpoints(sock: socket.SocketType) -> Endpoints | None:
    """Return the two ends of a client's connection; None where it is gone."""
    try:
        source, destination = sock.getpeername(), sock.getsockname()
    except OSError:
        return None
    return Endpoints(
        source[0].removeprefix(_MAPPED_IPV4), source[1], destination[0].removeprefix(_MAPPED_IPV4), destination[1]
    )
