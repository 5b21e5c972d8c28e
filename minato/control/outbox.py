"""Purges on their way to one worker: sent as it confirms them, and one that clears its cache in place of too many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.control.channel import Message, Verb

# What may be under way at once: a worker that reads nothing for a while must still have room for other commands.
WINDOW_BYTES = 65_536
# What may wait here; beyond it the worker is to forget everything it has stored.
MAX_WAITING_BYTES = 262_144


class Outbox:
    """The purges that one worker has not confirmed yet, in order.

    Nothing is ever lost while the worker lives: what its channel does not take now is sent later, and where too much
    would wait for that, one PURGE of everything with the newest serial takes the place of all that waits. So its memory
    is bounded, and a worker that goes on after a long stop forgets rather too much than too little.
    """

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._sent: deque[Message] = deque()
        self._sent_bytes = 0

    def __repr__(self) -> str:
        return f"<Outbox {len(self._waiting)} waiting, {len(self._sent)} sent>"

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send yet."""
        return bool(self._waiting)

    def put(self, message: Message) -> None:
        """Send a PURGE now or later."""
        if self._waiting_bytes + message.size_bytes > MAX_WAITING_BYTES:
            self._waiting.clear()
            self._waiting_bytes = 0
            message = Message(Verb.PURGE, serial=message.serial, purges=(PurgeRequest(PurgeKind.ALL),))
        self._waiting.append(message)
        self._waiting_bytes += message.size_bytes
        self.flush()

    def confirm(self, serial: int) -> None:
        """The worker has carried out everything up to that serial: there is room for more."""
        while self._sent and self._sent[0].serial <= serial:
            self._sent_bytes -= self._sent.popleft().size_bytes
        self.flush()

    def flush(self) -> None:
        """Send what the window and the channel take now."""
        while self._waiting:
            message = self._waiting[0]
            if self._sent and self._sent_bytes + message.size_bytes > WINDOW_BYTES:
                return
            if not self._send(message):
                return
            self._waiting.popleft()
            self._waiting_bytes -= message.size_bytes
            self._sent.append(message)
            self._sent_bytes += message.size_bytes
