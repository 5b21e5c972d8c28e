"""The link between two masters of one minato during a binary upgrade: small messages, with sockets where needed.

Both ends may be of different versions of minato. What holds for all of them: one message is one packet, a JSON object;
the new master's first is ``{"hello": VERSION, "pid": PID}``. Everything else holds within one VERSION alone.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Of all that the masters say to each other; to be raised with every change that an older one would not understand.
VERSION = 1
MAX_MESSAGE_BYTES = 65_536
# The kernel refuses more than 253 descriptors in one message (SCM_MAX_FD).
MAX_SOCKETS_PER_MESSAGE = 100


class LinkClosedError(Exception):
    """The other master is gone, or sent what is no message."""


@dataclass(frozen=True, slots=True)
class LinkMessage:
    """One message: what it says by name, and the sockets that came with it, which the receiver owns."""

    says: dict[str, Any]
    sockets: list[socket.socket] = field(default_factory=list)


class Link:
    """One end of a socket pair that keeps messages apart (SOCK_SEQPACKET). What the kernel does not take now waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._waiting: deque[tuple[bytes, Sequence[socket.socket]]] = deque()

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Return two connected ends; neither survives an exec."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send yet."""
        return bool(self._waiting)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._waiting.clear()
        self._sock.close()

    def set_patience(self, seconds: float) -> None:
        """Have ``receive`` wait for so long; 0: not at all, which is how it is at first."""
        self._sock.settimeout(seconds)

    def send(self, says: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message after those that wait; sockets are to stay open until it went.

        Raises:
            LinkClosedError: the other master is gone.
            ValueError: the message would be cut short by its receiver.
        """
        data = json.dumps(says, separators=(",", ":")).encode()
        if len(data) > MAX_MESSAGE_BYTES or len(sockets) > MAX_SOCKETS_PER_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes and {len(sockets)} sockets is too large")
        self._waiting.append((data, sockets))
        self.flush()

    def flush(self) -> None:
        """Send what the kernel takes now.

        Raises:
            LinkClosedError: the other master is gone.
        """
        while self._waiting:
            data, sockets = self._waiting[0]
            fds = array.array("i", [sock.fileno() for sock in sockets])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if sockets else []
            try:
                self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise LinkClosedError(error.strerror or str(error)) from error
            self._waiting.popleft()

    def receive(self) -> LinkMessage | None:
        """Return the next message; None when there is none now.

        Raises:
            LinkClosedError: the other master is gone.
        """
        try:
            data, sockets = self._receive()
        except (BlockingIOError, InterruptedError, TimeoutError):
            return None
        except OSError as error:
            raise LinkClosedError(error.strerror or str(error)) from error
        try:
            says = json.loads(data)
        except ValueError:
            says = None
        if not isinstance(says, dict):
            for sock in sockets:
                sock.close()
            raise LinkClosedError("no message" if data else "closed")
        return LinkMessage(says, sockets)

    def _receive(self) -> tuple[bytes, list[socket.socket]]:
        fds = array.array("i")
        space = socket.CMSG_SPACE(MAX_SOCKETS_PER_MESSAGE * fds.itemsize)
        data, ancillary, _, _ = self._sock.recvmsg(MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        sockets = []
        for fd in fds:
            try:
                sockets.append(socket.socket(fileno=fd))
                sockets[-1].setblocking(False)
            except OSError:
                with contextlib.suppress(OSError):
                    os.close(fd)
        return data, sockets
