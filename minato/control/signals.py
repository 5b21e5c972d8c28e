"""Signals as a queue: a handler does nothing but note its number; the process reads them when it gets to it."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType

from minato.net.loop import READ, Loop

MASTER_SIGNALS = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
# Of these any number means what one means; a flood of them is one that was not taken yet.
_IDEMPOTENT = frozenset([signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD])


class SignalQueue:
    """The signals that arrived and were not taken yet, in order.

    A byte in a socket pair wakes the loop, so that no signal waits for the next event.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._arrived: deque[signal.Signals] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        loop.add(self._wake_reader.fileno(), READ, self._on_wake)

    def install(self, caught: Iterable[signal.Signals], ignored: Iterable[signal.Signals] = ()) -> None:
        """Queue the first, ignore the second, and let in what was held back around a fork. Main thread only."""
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        for number in caught:
            signal.signal(number, self._note)
        # When a burst of signals fills the pair, the queue has them all the same.
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def take(self) -> signal.Signals | None:
        """Return the oldest signal that was not taken yet, None when there is none."""
        return self._arrived.popleft() if self._arrived else None

    def take_all(self) -> list[signal.Signals]:
        """Return the signals that were not taken yet, the oldest first; not those that arrive while they are obeyed."""
        return [self._arrived.popleft() for _ in range(len(self._arrived))]

    def restore(self, numbers: Iterable[signal.Signals]) -> None:
        """Give the signals their default meaning back and close the queue."""
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        self._loop.remove(self._wake_reader.fileno())
        self.forget()

    def forget(self) -> None:
        """Stop being woken and close the socket pair; in a new worker, which makes a queue of its own."""
        signal.set_wakeup_fd(-1)
        self._wake_reader.close()
        self._wake_writer.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number not in _IDEMPOTENT or number not in self._arrived:
            self._arrived.append(signal.Signals(number))

    def _on_wake(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(512):
                pass


@contextlib.contextmanager
def hold_signals(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Keep signals waiting, around a fork: a child must not take one before it has handlers of its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
