"""The deadline of a peer that bytes wait for: it may pause, and it may be slow, both within bounds."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from typing import Final

from minato.decide.pace import Pace
from minato.net.loop import Loop

_LOOKS: Final = 4  # within the longest pause
_NO_INT: Final = bytes(4)


class WriteWatch:
    """Looks at what a peer takes while its socket is blocked.

    The kernel holds some megabytes on their way to the peer, and asks for more only when a good part has gone. So a
    peer may read all the time, and the kernel take nothing for minutes: what counts is what the peer acknowledged.
    """

    __slots__ = ("_loop", "_on_slow", "_pace", "_pause_s", "_progress_s", "_sent_bytes", "_sock", "_timer")

    def __init__(
        self, loop: Loop, sock: socket.SocketType, pause_s: float, min_bytes_per_s: int, on_slow: Callable[[], None]
    ) -> None:
        """Make a watch that rests.

        Args:
            loop: whose clock and timers.
            sock: the peer's.
            pause_s: for so long it may take nothing.
            min_bytes_per_s: at which it breaks even (`decide.pace`); 0: any progress will do.
            on_slow: called when it has been too slow; the watch rests then.
        """
        self._loop = loop
        self._sock = sock
        self._pause_s = pause_s
        self._on_slow = on_slow
        self._pace = Pace(pause_s, min_bytes_per_s)
        self._progress_s = 0.0  # when it was last seen to have taken anything
        self._sent_bytes = 0
        self._timer = loop.timer(self._on_time)

    def note_blocked(self, sent_bytes: int) -> None:
        """The socket takes no more now; the kernel has taken so much so far."""
        if sent_bytes != self._sent_bytes or not self._timer.is_set:
            self._sent_bytes = sent_bytes
            self._progress_s = self._loop.now_s
            if not self._look():
                self._timer.set(0.0)  # not here, in the middle of whoever writes

    def rest(self) -> None:
        """Nothing waits for the peer any more."""
        self._timer.cancel()
        self._pace.rest(self._loop.now_s)

    def close(self) -> None:
        """Rest for good, and let go of whom it tells."""
        self._timer.close()
        self._on_slow = _do_nothing

    def _look(self) -> bool:
        """Set the time of the next look; tell whether the peer may go on like that."""
        now_s, pace = self._loop.now_s, self._pace
        if pace.wait(now_s, self._sent_bytes - unacknowledged_bytes(self._sock)):
            self._progress_s = now_s
        left_s = min(pace.left_s, self._progress_s + self._pause_s - now_s)
        if left_s <= 0.0:
            return False
        self._timer.set(min(left_s, self._pause_s / _LOOKS))
        return True

    def _on_time(self) -> None:
        if not self._look():
            self._on_slow()


def unacknowledged_bytes(sock: socket.SocketType) -> int:
    """Return how much of what the kernel took the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _NO_INT), sys.byteorder)


def _do_nothing() -> None:
    """Whom a closed watch tells."""
