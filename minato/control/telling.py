"""What one worker has yet to be told of changed addresses: always the newest, no more at a time than it confirms."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from minato.control.channel import Message

# What may be under way at once: a worker that reads nothing for a while must still have room for other commands.
WINDOW_BYTES = 16_384


class Telling:
    """The names whose addresses one worker does not know yet, and the messages that it has not confirmed.

    A message is made when it is sent. So a worker that reads nothing for hours, while names change again and again,
    costs no more than a set of names, and hears only of what is true by then.
    """

    def __init__(self, send: Callable[[Message], bool]) -> None:
        self._send = send
        self._untold: dict[str, None] = {}
        self._sent: deque[tuple[int, int]] = deque()  # serial and bytes
        self._sent_bytes = 0

    def __repr__(self) -> str:
        return f"<Telling {len(self._untold)} to tell, {len(self._sent)} sent>"

    @property
    def is_settled(self) -> bool:
        """Whether the worker has confirmed all there is."""
        return not self._untold and not self._sent

    def add(self, keys: Iterable[str]) -> None:
        """These have changed."""
        self._untold.update(dict.fromkeys(keys))

    def confirm(self, serial: int) -> None:
        """The worker has carried out everything up to that serial."""
        while self._sent and self._sent[0][0] <= serial:
            self._sent_bytes -= self._sent.popleft()[1]

    def flush(self, make: Callable[[str], Message]) -> None:
        """Send what the window and the channel take now; ``make`` makes the message about a key."""
        while self._untold:
            key = next(iter(self._untold))
            message = make(key)
            if self._sent and self._sent_bytes + message.size_bytes > WINDOW_BYTES:
                return
            if not self._send(message):
                return
            del self._untold[key]
            self._sent.append((message.serial, message.size_bytes))
            self._sent_bytes += message.size_bytes
