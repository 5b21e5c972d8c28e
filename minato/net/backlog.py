"""Clients with more to do than one turn of the loop is for: each turn one of them goes on."""

from __future__ import annotations

import os
from typing import Protocol

from minato.net.loop import READ, Loop


class Patient(Protocol):
    """A connection with something to do that waits for its turn."""

    def go_on(self) -> None:
        """Do some of it; what is left is to be put off again."""


class Backlog:
    """A queue that epoll comes round to once a turn, like to any connection, so that all others have theirs between.

    It is an event of its own while anybody waits. So the loop knows nothing of it, and pays nothing while nobody does.
    """

    __slots__ = ("_fd", "_loop", "_waiting")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fd = -1
        self._waiting: dict[Patient, None] = {}  # in order

    def __repr__(self) -> str:
        return f"<Backlog of {len(self._waiting)}>"

    def holds(self, client: Patient) -> bool:
        """Tell whether a client waits."""
        return client in self._waiting

    def put_off(self, client: Patient) -> None:
        """Have a client go on in a later turn, behind those that wait already."""
        self._waiting[client] = None
        if self._fd < 0:
            try:
                self._fd = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._loop.add(self._fd, READ, self._on_turn)
            except OSError:  # out of descriptors, or of what epoll may watch
                self._close()
                self._loop.call_soon(self._run_all)

    def _on_turn(self, mask: int) -> None:
        client = next(iter(self._waiting))
        del self._waiting[client]
        if not self._waiting:
            self._close()
        client.go_on()

    def _run_all(self) -> None:
        while self._waiting and self._fd < 0:
            client = next(iter(self._waiting))
            del self._waiting[client]
            client.go_on()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove(fd)
            os.close(fd)
