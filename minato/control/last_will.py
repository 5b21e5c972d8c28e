"""What a master has ready for the case that it is killed: the deed, and the door at which its workers hand it over.

The door is a socket in Linux's abstract namespace, bound by the master and inherited by every worker. As long as the
master lives, a stopped one too, nobody listens there, and whoever knocks is refused. Workers whose master is gone
listen. So neither pids nor files say who lives, and nothing of it is left when the last process is gone. The namespace
is that of the network: as far as an address can be taken, so far can the door be found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import struct

from minato.control.deed import BoundSlots, Deed
from minato.errors import BootError

log = logging.getLogger("minato.orphans")

DOOR_PREFIX = "minato-orphans-"
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def door_prefix() -> str:
    """Return what the names of this user's doors begin with."""
    return f"{DOOR_PREFIX}{os.geteuid()}-"


class LastWill:
    """One master's, which its workers share.

    Attributes:
        deed: what is handed over.
        name: of the door.
    """

    def __init__(self, deed: Deed, writer: socket.socket, door: socket.socket | None, name: str) -> None:
        self.deed = deed
        self.name = name
        self._writer = writer
        self._door = door
        self._is_warned = False

    @classmethod
    def make(cls) -> LastWill:
        """Return the last_will of this process.

        Raises:
            BootError: no descriptors to be had.
        """
        try:
            deed, writer = Deed.make()
        except OSError as error:
            raise BootError(f"cannot start: {error.strerror}") from error
        name = f"{door_prefix()}{os.getpid()}-{secrets.token_hex(4)}"
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            door.bind(f"\0{name}")
        except OSError as error:
            log.warning("workers will not find the next master, should this one be killed: %s", error.strerror)
            door.close()
            return cls(deed, writer, None, name)
        return cls(deed, writer, door, name)

    def write(self, bound: BoundSlots) -> None:
        """For the master: these are the sockets, from now on."""
        try:
            self.deed.write(self._writer, bound)
        except OSError as error:
            if not self._is_warned:
                self._is_warned = True
                log.warning("the next master will not get the sockets, should this one be killed: %s", error.strerror)

    def become_worker(self) -> None:
        """In a new worker: keep what a worker needs."""
        self._writer.close()

    # -- for a worker whose master is gone

    def open_door(self) -> int | None:
        """Listen at the door. Returns a descriptor that is readable when somebody knocks; None without a door."""
        if self._door is None or self._door.fileno() < 0:
            return None
        try:
            self._door.listen(_BACKLOG)
        except OSError as error:
            log.warning("cannot listen for the next master: %s", error.strerror)
            return None
        return self._door.fileno()

    def answer(self) -> None:
        """Give a share to whoever knocks, if it is a process of the same user."""
        assert self._door is not None
        with contextlib.suppress(OSError):
            caller, _ = self._door.accept()
            with caller:
                if peer_uid(caller) == os.geteuid():
                    self.deed.send(caller)

    def close(self) -> None:
        """Let go of everything; in a worker that accepts no more, or a master that ends."""
        self.deed.close()
        self._writer.close()
        if self._door is not None:
            self._door.close()


def peer_uid(sock: socket.socket) -> int:
    """Return the user of the process at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])
