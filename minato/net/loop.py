"""The event loop: epoll, one dict from fd to handler, deadlines in ticks of 10 ms; no system call for a timer.

THE HOT PATH, ON ONE PAGE
=========================
`Loop.turn` is the hot loop; all that a worker does happens in it. A turn has four named parts::

    poll        one epoll_wait; the clocks are read once, and are `now_s` and `wall_s` for the whole turn
    events      for each descriptor: its reader, if it is readable and nothing else, or its handler with the events
    timers      `_run_timers`: the deadlines of every tick that is over
    later       `_run_later`: one `send` for each stream with something queued, then what was put off (`call_soon`)

What a request does in it, and in which file. Most messages are small, come whole in one read, and say what others
said before; these take the short way that is shown. It does what the general one would (docs/architecture.md), byte
for byte, and gives way to it whenever anything is unusual; tests hold the two against each other::

    events  client readable    downstream  Downstream.on_readable   recv; codec.read_whole: one request, nothing else?
                                           Downstream._begin_whole  an Exchange, unless
                               hits        answer_hit               ... a stored answer can be queued at once
                               exchange    Exchange.begin           route (kept in the head's memo), upstream, pool
                               uplink      Uplink._send_request     as rendered last, or of kept parts; queued
    later   the request goes   stream      Stream.flush             one send
    events  upstream readable  upstream    UpstreamConnection.on_readable   recv; codec.read_whole: one response?
                                           UpstreamConnection._finish_whole back into the pool
                               exchange    Exchange.on_whole_response       count, log, queue head and body
                               downstream  Downstream.finish_exchange       next request
    later   the response goes  stream      Stream.flush             one send

So a forwarded request costs two recv, two send and its share of two epoll_wait, and a hit one recv and one send; a
kept connection is never registered again, and no timer costs a system call. Requests are sent in the last part, not at
once, so that an upstream's end that came in the same turn is seen first.

What is remembered, and for how long: the express codec keeps lines, blocks of lines and whole heads in bounded tables
(protocol.field_table), admitted at their second sight. A head that is seen again is the same object; heads that differ
in the cookie alone share a `HeadMemo`. Where it was routed, how it was rendered, which answer went to it and how its
line in the access log ends are kept there, each with what it depends on (route table, upstream and client, second and
stored response), so that it is never used for anything else.

What each measure gains stands in docs/performance.md.

Timers
======
All deadlines that fall into one tick share one list, and the heap holds ticks. So a connection that lives for a request
leaves an item in a list behind, not an entry in a heap of a hundred thousand: 3 us less for each such connection.
"""

from __future__ import annotations

import heapq
import logging
import math
import select
import time
from collections.abc import Callable
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
# Of a turn. What it did is sent at its end, and who comes meanwhile waits for that: turns of a crowd are to be short,
# and one more poll for so many events costs nothing that can be measured.
_MAX_EVENTS = 64
_PAUSE_S = 1.0
_TICKS_PER_S = 100
# A deadline belongs to the tick that ends with it, rounding errors aside.
_ROUNDING = 1e-6
_TO_TICK_END = 1.0 - _ROUNDING


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

    __slots__ = ("_loop", "_queued_s", "_queued_tick", "action", "due_s")

    def __init__(self, loop: Loop, action: Callable[[], None]) -> None:
        self._loop = loop
        self.action = action
        self._queued_s = NEVER  # the beginning of the tick that it waits in
        self._queued_tick = 0
        self.due_s = NEVER

    def set(self, delay_s: float) -> None:
        """Run the action ``delay_s`` seconds from the loop's cached now, instead of whenever it was due before."""
        due_s = self.due_s = self._loop.now_s + delay_s
        if due_s < self._queued_s:
            self._queue()

    @property
    def is_set(self) -> bool:
        return self.due_s != NEVER

    def cancel(self) -> None:
        """Forget the deadline. What waits in its tick finds nothing to do and goes."""
        self.due_s = NEVER

    def close(self) -> None:
        """Cancel for good, and let go of whom the action belongs to: its tick may hold the timer for a while yet."""
        self.due_s = NEVER
        self.action = _do_nothing

    def come_up(self, tick: int) -> None:
        """That tick is over: run, wait for the tick of the later deadline, or do nothing (for Loop alone)."""
        if tick != self._queued_tick:
            return  # it has waited for a nearer one since
        self._queued_s = NEVER
        self._queued_tick = 0
        if self.due_s == NEVER:
            return
        if self.due_s <= self._loop.now_s or int(self.due_s * _TICKS_PER_S + _TO_TICK_END) <= tick:
            self.due_s = NEVER
            self.action()
        else:
            self._queue()

    def _queue(self) -> None:
        due_s, now_s = self.due_s, self._loop.now_s
        # What is due already runs in this very turn, or the next.
        tick = int(due_s * _TICKS_PER_S + _TO_TICK_END) if due_s > now_s else int(now_s * _TICKS_PER_S)
        self._queued_tick = tick
        self._queued_s = (tick - 1) / _TICKS_PER_S
        self._loop.queue_timer(tick, self)


class Loop:
    """A level-triggered epoll loop.

    Args:
        forgives_pauses: whether time in which the process did not run (stopped, or on a machine that stood still) does
            not count: timers are later by as much. Who answers in time must not be late because nobody looked.

    Attributes:
        now_s: monotonic seconds, read once per turn; less pauses, where those are forgiven. It is then a clock of this
            loop alone: what other processes are to compare with theirs goes through `machine_ms`.
        wall_s: seconds since the epoch, read once per turn (for Date, Age and logs).
        is_crowded: whether so many wait in this turn that none should take long.
    """

    def __init__(self, *, forgives_pauses: bool = False) -> None:
        self._forgives_pauses = forgives_pauses
        self._paused_s = 0.0  # all pauses so far
        self._expected_s = 0.0  # seconds that whoever waits outside of ``turn`` may take
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._handlers: dict[int, Handler] = {}
        self._readers: dict[int, Reader] = {}
        self._ticks: list[int] = []  # a heap of those below
        self._timers: dict[int, list[Timer]] = {}  # by the tick that they wait for
        self._later: list[Callable[[], None]] = []
        self._dirty: list[Flushable] = []
        self.flush_soon = self._dirty.append  # a stream's flush is due at the end of this turn
        self._first: int | None = None  # the descriptor that is looked after first of all after a stop
        self._removed: set[int] = set()  # since the last poll: an event of theirs is not for who has that fd now
        self._running = False
        self.is_crowded = False
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

    def put_first(self, fd: int) -> None:
        """After a pause of a second or more (an idle wait, or a stopped process) handle ``fd`` before all else.

        The order in which epoll tells is not that in which they became ready, and of very many it tells some. The
        handler is called whether there is anything or not.
        """
        self._first = fd

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
        """Drop the handler of an fd that is closed, or right after this (the kernel drops its registration then)."""
        self._handlers.pop(fd, None)
        self._readers.pop(fd, None)
        self._removed.add(fd)

    def timer(self, action: Callable[[], None]) -> Timer:
        """Return a new timer that is not set."""
        return Timer(self, action)

    def queue_timer(self, tick: int, timer: Timer) -> None:
        """Let a timer know when that tick is over (for Timer alone)."""
        waiting = self._timers.get(tick)
        if waiting is None:
            self._timers[tick] = [timer]
            heapq.heappush(self._ticks, tick)
        else:
            waiting.append(timer)

    @property
    def paused_s(self) -> float:
        """How far ``now_s`` is behind the machine's monotonic clock, which is the same for all processes."""
        return self._paused_s

    def machine_ms(self, second_s: float) -> int:
        """Return a second of this loop's clock as a millisecond of the machine's."""
        return int((second_s + self._paused_s) * 1000)

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
        wait_s = self._wait_s(max_wait_s)
        try:
            events = self._poll(wait_s, _MAX_EVENTS)
        except InterruptedError:
            events = []
        self.is_crowded = len(events) == _MAX_EVENTS
        last_s = self.now_s
        now_s = self.now_s = time.monotonic() - self._paused_s
        self.wall_s = time.time()
        handlers = self._handlers
        find_reader = self._readers.get
        removed = self._removed
        if removed:
            removed.clear()
        if now_s - last_s >= _PAUSE_S:
            if self._first is not None:
                events.insert(0, (self._first, READ))
            if self._forgives_pauses:
                now_s = self._forgive(now_s - last_s, max(wait_s, self._expected_s))
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
        ticks = self._ticks
        if ticks and ticks[0] <= now_s * _TICKS_PER_S + _ROUNDING:
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
        self.refresh()
        self._expected_s = self._wait_s(max_wait_s)
        return self._expected_s

    def close(self) -> None:
        """Close the epoll object; registered fds stay open."""
        self._handlers.clear()
        self._readers.clear()
        self._epoll.close()

    def refresh(self) -> None:
        """Read the clocks, for who sets timers from outside of ``turn``."""
        last_s = self.now_s
        now_s = self.now_s = time.monotonic() - self._paused_s
        self.wall_s = time.time()
        if self._forgives_pauses and now_s - last_s >= _PAUSE_S:
            self._forgive(now_s - last_s, self._expected_s)

    def _forgive(self, passed_s: float, expected_s: float) -> float:
        """Set the clock back by a pause; return what it says then. Less than a second is a busy machine, and counts.

        How long the wait lasted before the pause nobody knows: it does not count either, lest the timer that ended it
        come up at once.
        """
        if passed_s - expected_s >= _PAUSE_S:
            self._paused_s += passed_s
            self.now_s -= passed_s
        return self.now_s

    def _wait_s(self, max_wait_s: float) -> float:
        if self._later or self._dirty:
            return 0.0
        if not self._ticks:
            return max_wait_s
        wait_s = self._ticks[0] / _TICKS_PER_S - (time.monotonic() - self._paused_s)
        if wait_s <= 0.0:
            return 0.0
        return wait_s if wait_s < max_wait_s else max_wait_s

    def _run_timers(self) -> None:
        ticks = self._ticks
        now = self.now_s * _TICKS_PER_S + _ROUNDING
        while ticks and ticks[0] <= now:
            tick = heapq.heappop(ticks)
            for timer in self._timers.pop(tick):
                try:
                    timer.come_up(tick)
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
