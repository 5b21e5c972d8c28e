"""Overload, seen by how long new connections have waited to be accepted, and what is only a hiccup."""

from __future__ import annotations

import socket
import struct
from typing import Final

LOOK_GAP_S: Final = 0.05
_LONG_ENOUGH_S: Final = 1.0
_INFO_BYTES: Final = 48
_LAST_DATA_SENT_AT: Final = 44  # tcpi_last_data_sent of struct tcp_info: milliseconds


class AcceptWait:
    """The load signal of one worker.

    To a connection that is accepted nothing was sent yet but the end of its handshake; how long ago that is, it has
    waited, whatever its peer has sent meanwhile. A turn of the loop serves some of all kinds, so who waits at the door
    waits about as long as those inside. One long wait is a hiccup (a process that was stopped, say); only when nobody
    has waited less for a second is it overload.

    Attributes:
        is_too_long: whether new connections are to be turned away.
    """

    def __init__(self, limit_s: float) -> None:
        """``limit_s``: 0 for none."""
        self._limit_s = limit_s
        self._since_s: float | None = None
        self._looked_s = -LOOK_GAP_S
        self.is_too_long = False

    def look(self, sock: socket.SocketType, now_s: float) -> None:
        """Take a connection just accepted into account; in quiet times not each, since it costs a system call."""
        if not self._limit_s or (now_s - self._looked_s < LOOK_GAP_S and not self.is_too_long):
            return
        gap_s, self._looked_s = now_s - self._looked_s, now_s
        self.note(measure_wait_s(sock), now_s, gap_s)

    def note(self, waited_s: float, now_s: float, gap_s: float) -> None:
        """A connection has waited so long; the one that was noted before it came ``gap_s`` ago."""
        if waited_s < self._limit_s:
            self._since_s = None
            self.is_too_long = False
        elif self._since_s is None or gap_s > self._limit_s + _LONG_ENOUGH_S:
            self._since_s = now_s
        elif now_s - self._since_s >= _LONG_ENOUGH_S:
            self.is_too_long = True


def measure_wait_s(sock: socket.SocketType) -> float:
    """Return how long ago a connection to which nothing was written yet was made; 0: unknown."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return 0.0
    if len(info) < _INFO_BYTES:
        return 0.0
    waited_ms: int = struct.unpack_from("I", info, _LAST_DATA_SENT_AT)[0]
    return waited_ms / 1000.0
