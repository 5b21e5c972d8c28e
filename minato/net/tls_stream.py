"""One non-blocking TLS connection in the loop, as a client: to an https upstream."""

from __future__ import annotations

import contextlib
import ssl
from typing import ClassVar

from minato.net.stream import RECV_BYTES, Stream


def send_close_alert(sock: ssl.SSLSocket) -> None:
    """Say that nothing more comes, and wait for no answer: the socket is to be closed next.

    RFC 9112, 9.8: "Clients MUST send a closure alert before closing the connection."
    """
    with contextlib.suppress(
        OSError, ValueError
    ):  # it broke, its handshake is not over, or the peer's alert is not there
        sock.unwrap()


class TlsStream(Stream):
    """A TLS connection, as a client."""

    # The ssl module cannot end one direction and still decrypt the other.
    can_half_close: ClassVar[bool] = False
    can_splice: ClassVar[bool] = False

    __slots__ = ()

    sock: ssl.SSLSocket

    def recv(self) -> bytes | None:
        # RECV_BYTES is the most a TLS record holds, so that no part of a record stays behind unseen by epoll.
        try:
            return self.sock.recv(RECV_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def has_unread(self) -> bool:
        return self.is_readable()

    def is_readable(self) -> bool:
        # There is no peeking behind TLS. Who asks gives the connection up if there is something; so a byte may be lost.
        try:
            self.sock.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        # An alert behind the loss of something would say that nothing is missing.
        if not (self.closed or self.pending_bytes):
            send_close_alert(self.sock)
        super().close()

    def _send_some(self) -> int:
        # A piece that blocked must be offered again as it was, so pieces are not gathered here.
        return self.sock.send(self._out[0])
