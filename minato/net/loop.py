"""The event loop: epoll, one dict from fd to handler, one heap of deadlines; no system call for a timer."""

from __future__ import annotations

import heapq
import logging
import math
import select
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EXCLUSIVE = select.EPOLLEXCLUSIVE
HANGUP = select.EPOLLHUP | select.EPOLLERR
ENDED = select.EPOLLRDHUP

log = logging.getLogger("minato.loop")

Handler = Callable[[int], None]

Reader = Callable[[], object]

NEVER = math.inf
_MAX_EVENTS = 512


def _do_nothing() -> None:
    """The action of a closed timer."""


class Flushable(Protocol):
    """A stream with queued bytes."""

    def flush(self) -> bool:
        """Send what can be sent now."""


class Timer:
    """One deadline of one owner, moved as often as it likes: moving it later costs an assignment, no heap work.

    Attributes:
        due_s: monotonic second at which ``action`` runs; infinity when not set.
    """

    __slots__ = ("_loop", "_queued_s", "action", "due_s")

    def __init__(self, loop: Loop, action: Callable[[], None]) -> None:
        self._loop = loop
        self.action = action
        self._queued_s = NEVER
        self.due_s = NEVER

    def set(self, delay_s: float) -> None:
        """Run the action ``delay_s`` seconds from the loop's cached now, instead of whenever it was due before."""
        due_s = self.due_s = self._loop.now_s + delay_s
        if due_s < self._queued_s:
            self._queued_s = due_s
            self._loop.push_timer(due_s, self)

    @property
    def is_set(self) -> bool:
        return self.due_s != NEVER

    def cancel(self) -> None:
        """Forget the deadline. The heap's entry finds nothing to do and goes."""
        self.due_s = NEVER

    def close(self) -> None:
        """Cancel for good, and let go of whom the action belongs to: the heap may hold the entry for a while yet."""
        self.due_s = NEVER
        self.action = _do_nothing

    def pop(self, queued_s: float, now_s: float) -> None:
        """The heap's entry of ``queued_s`` came up: run, queue again for the later deadline, or do nothing."""
        if queued_s != self._queued_s:
            return  # an older entry; a nearer one was queued since
        self._queued_s = NEVER
        if self.due_s <= now_s:
            self.due_s = NEVER
            self.action()
        elif self.due_s != NEVER:
            self._queued_s = self.due_s
            self._loop.push_timer(self.due_s, self)


class Loop:
    """A level-triggered epoll loop.

    Attributes:
        now_s: monotonic seconds, read once per turn.
        wall_s: seconds since the epoch, read once per turn (for Date, Age and logs).
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._handlers: dict[int, Handler] = {}
        self._readers: dict[int, Reader] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = count()
        self._later: list[Callable[[], None]] = []
        self._dirty: list[Flushable] = []
        self.flush_soon = self._dirty.append  # a stream's flush is due at the end of this turn
        self._removed: set[int] = set()  # since the last poll: an event of theirs is not for who has that fd now
        self._running = False
        self.now_s = time.monotonic()
        self.wall_s = time.time()

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Call ``handler(events)`` whenever ``fd`` has one of ``events``."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def set_handler(self, fd: int, handler: Handler) -> None:
        """Hand a registered fd to another handler; no system call."""
        self._handlers[fd] = handler

    def set_reader(self, fd: int, reader: Reader | None) -> None:
        """Call ``reader()`` instead of the handler whenever ``fd`` is readable and nothing else; None: no more."""
        if reader is None:
            self._readers.pop(fd, None)
        else:
            self._readers[fd] = reader

    def remove(self, fd: int) -> None:
        """Stop watching ``fd``; to be called before it is closed. Events already fetched for it are dropped."""
        self._readers.pop(fd, None)
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._removed.add(fd)

    def forget(self, fd: int) -> None:
        """Drop the handler of an fd that somebody else has closed already (the kernel dropped its registration)."""
        self._handlers.pop(fd, None)
        self._readers.pop(fd, None)
        self._removed.add(fd)

    def timer(self, action: Callable[[], None]) -> Timer:
        """Return a new timer that is not set."""
        return Timer(self, action)

    def push_timer(self, due_s: float, timer: Timer) -> None:
        """Queue a timer's entry (for Timer alone)."""
        heapq.heappush(self._heap, (due_s, next(self._sequence), timer))

    def call_soon(self, action: Callable[[], None]) -> None:
        """Run ``action`` at the end of this turn, after all events were handled."""
        self._later.append(action)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Turn until ``stop``."""
        self._running = True
        while self._running:
            self.turn()

    def turn(self, max_wait_s: float = 60.0) -> None:
        """Wait for events until the next timer at the most, handle them, then due timers, then what was put off.

        An error that a handler, timer or action lets escape is a bug. It is logged and told to the object whose method
        failed (``on_crash``), so that one bad exchange ends itself and never the worker.
        """
        try:
            events = self._poll(self._wait_s(max_wait_s), _MAX_EVENTS)
        except InterruptedError:
            events = []
        now_s = self.now_s = time.monotonic()
        self.wall_s = time.time()
        handlers = self._handlers
        find_reader = self._readers.get
        removed = self._removed
        if removed:
            removed.clear()
        for fd, mask in events:
            if removed and fd in removed:
                continue
            if mask == READ and (reader := find_reader(fd)) is not None:
                try:
                    reader()
                except Exception:
                    _report_crash(reader)
                continue
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler(mask)
                except Exception:
                    _report_crash(handler)
        heap = self._heap
        if heap and heap[0][0] <= now_s:
            self._run_timers()
        if self._dirty or self._later:
            self._run_later()

    def _run_later(self) -> None:
        """Send what was queued, and run what was put off, until there is nothing of either."""
        dirty = self._dirty
        while True:
            for stream in dirty:  # grows while it is walked
                try:
                    stream.flush()
                except Exception:
                    _report_crash(stream.flush)
            dirty.clear()
            if not self._later:
                return
            later, self._later = self._later, []
            for action in later:
                try:
                    action()
                except Exception:
                    _report_crash(action)

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait for ``turn``: for who waits for them elsewhere."""
        return self._epoll.fileno()

    def next_wait_s(self, max_wait_s: float = 60.0) -> float:
        """Refresh the clocks and return the seconds until ``turn`` has timers to run; ``max_wait_s`` at the most."""
        self._read_clocks()
        return self._wait_s(max_wait_s)

    def close(self) -> None:
        """Close the epoll object; registered fds stay open."""
        self._handlers.clear()
        self._readers.clear()
        self._epoll.close()

    def _read_clocks(self) -> None:
        self.now_s = time.monotonic()
        self.wall_s = time.time()

    def _wait_s(self, max_wait_s: float) -> float:
        if self._later or self._dirty:
            return 0.0
        if not self._heap:
            return max_wait_s
        wait_s = self._heap[0][0] - time.monotonic()
        if wait_s <= 0.0:
            return 0.0
        return wait_s if wait_s < max_wait_s else max_wait_s

    def _run_timers(self) -> None:
        heap = self._heap
        now_s = self.now_s
        while heap and heap[0][0] <= now_s:
            queued_s, _, timer = heapq.heappop(heap)
            try:
                timer.pop(queued_s, now_s)
            except Exception:
                _report_crash(timer.action)


def _report_crash(failed: Callable[..., object]) -> None:
    log.exception("a bug; the connection it concerns is closed")
    on_crash = getattr(getattr(failed, "__self__", None), "on_crash", None)
    if on_crash is None:
        return
    try:
        on_crash()
    except Exception:
        log.exception("a bug while closing that connection")
