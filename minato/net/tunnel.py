"""A tunnel: after a 101 the bytes of both sides pass through unread, with back-pressure, until both have ended."""

from __future__ import annotations

import socket
from collections.abc import Callable

from minato.net.stream import Stream

# Tunnels have no idle timeout, since a WebSocket may be silent for hours; keep-alive probes find a peer that is gone.
_KEEPALIVE_IDLE_S = 60
_KEEPALIVE_INTERVAL_S = 15
_KEEPALIVE_PROBES = 4


class Tunnel:
    """Joins two streams.

    Attributes:
        bytes_down: passed to the client.
        bytes_up: passed to the upstream.
    """

    def __init__(self, client: Stream, upstream: Stream, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self.bytes_down = 0
        self.bytes_up = 0
        self._closed = False
        self._client = _End(self, client)
        self._upstream = _End(self, upstream)
        self._client.peer, self._upstream.peer = self._upstream, self._client
        for end in (self._client, self._upstream):
            _keep_alive(end.stream.sock)
            end.stream.set_owner(end)
            end.stream.tells_flushed = True
            end.stream.resume_reading()

    def begin(self, to_client: bytes, to_upstream: bytes, *, client_ended: bool) -> None:
        """Pass on what each side had sent already, and the client's FIN if it had come; it may close the tunnel."""
        self._client.stream.write(to_client)
        self._upstream.stream.write(to_upstream)
        self.bytes_down += len(to_client)
        self.bytes_up += len(to_upstream)
        if client_ended:
            self._client.end()

    def count(self, end: _End, size: int) -> None:
        """Count bytes that came from ``end``."""
        if end is self._client:
            self.bytes_up += size
        else:
            self.bytes_down += size

    def check_over(self) -> None:
        """Close when both sides have ended and all has been passed on."""
        ends = (self._client, self._upstream)
        if all(end.ended for end in ends) and not any(end.stream.pending_bytes for end in ends):
            self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._client.stream.close()
        self._upstream.stream.close()
        self._on_closed()


class _End:
    """One side: reads from its stream, writes to its peer's."""

    peer: _End

    def __init__(self, tunnel: Tunnel, stream: Stream) -> None:
        self.tunnel = tunnel
        self.stream = stream
        self.ended = False

    def on_readable(self) -> None:
        try:
            data = self.stream.recv()
        except OSError:
            self.tunnel.close()
            return
        if data is None:
            return
        if not data:
            self.end()
            return
        self.tunnel.count(self, len(data))
        self.peer.stream.write(data)
        if self.peer.stream.congested:
            self.stream.pause_reading()

    def end(self) -> None:
        """This side sends nothing more: tell the other, once it has what came before."""
        self.ended = True
        self.stream.pause_reading()
        if self.peer.stream.flush():
            self._pass_on_end(self.peer.stream)

    def _pass_on_end(self, stream: Stream) -> None:
        """What came before the end of one side has gone to the other: let it end there, too."""
        if stream.can_half_close:
            stream.shutdown_write()
            self.tunnel.check_over()
        else:
            self.tunnel.close()

    def on_drained(self) -> None:
        if not self.peer.ended:
            self.peer.stream.resume_reading()

    def on_flushed(self) -> None:
        """All that waited has gone: pass on the end of the other side, if that is what is left."""
        if self.peer.ended:
            self._pass_on_end(self.stream)

    def on_write_failed(self, error: OSError) -> None:
        self.tunnel.close()

    def on_crash(self) -> None:
        self.tunnel.close()


def _keep_alive(sock: socket.SocketType) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
