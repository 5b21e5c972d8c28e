"""Room at upstreams with caps: who waits for it, and who gets it. While nobody waits, nothing is looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from minato.config.model import QueueConfig
from minato.decide.queueing import Entrance, WaitQueue
from minato.errors import NoRoomError
from minato.net.loop import Loop
from minato.shared.board import Counter
from minato.shared.row import WorkerRow

if TYPE_CHECKING:
    from minato.net.runtime import ServiceRuntime, UpstreamRuntime

log = logging.getLogger("minato.exchange")

_POLL_S: Final = 0.01
_MAX_TURNS: Final = 1024
_TELL_EVERY_S: Final = 10.0


class Queued(Protocol):
    """An exchange that waits."""

    began_s: float

    def may_ask(self, upstream: UpstreamRuntime) -> bool:
        """Tell whether it may be sent to that upstream of its service."""

    def on_turn(self) -> None:
        """It is first: take what room there is, and leave the queue, or stay."""

    def on_wait_over(self, error: NoRoomError) -> None:
        """It has waited long enough, and is in the queue no longer."""

    def on_upstream_crash(self) -> None:
        """A bug ended the handling of its turn."""


class Room:
    """What a service with capped upstreams has in one worker.

    Attributes:
        queue: who waits.
        turn: who may take room now, though others wait; for one attempt, and until it has.
        shown: whose waiting the other workers can see on the board.
    """

    __slots__ = ("queue", "shown", "turn")

    def __init__(self, config: QueueConfig) -> None:
        self.queue: WaitQueue[Queued] = WaitQueue(config.size, config.timeout_s)
        self.turn: Queued | None = None
        self.shown: Queued | None = None

    def __repr__(self) -> str:
        return f"<Room {self.queue!r}>"


class Rooms:
    """All the queues of one worker: when they are looked at, and what the other workers know of them.

    A worker is told at once when an exchange of its own is over. What ends in others, or comes back to health, it finds
    by looking every hundredth of a second, while anybody waits.
    """

    def __init__(self, loop: Loop, row: WorkerRow, services: Sequence[ServiceRuntime]) -> None:
        self._loop = loop
        self._row = row
        self._services = services
        self._sharers = _find_sharers(services)
        self._waiting: dict[int, ServiceRuntime] = {}  # those with a queue that is not empty
        self._is_due = False
        self._shown_paused_s = loop.paused_s  # by which clock what is shown was put
        self._poll = loop.timer(self._serve_all)
        self._told: dict[str, tuple[float, int]] = {}  # when, and how often since

    def __repr__(self) -> str:
        waiting = ", ".join(f"{service.config.name}: {service.room!r}" for service in self._waiting.values())
        return f"<Rooms {waiting or 'nobody waits'}>"

    def enter(self, item: Queued, service: ServiceRuntime, *, is_retry: bool) -> None:
        """Let an exchange wait.

        Raises:
            NoRoomError: too many wait already, or it has waited for something else for too long.
        """
        room, name = service.room, service.config.name
        assert room is not None
        entrance = room.queue.enter(item, self._loop.now_s, item.began_s, is_retry=is_retry)
        if entrance is Entrance.TOO_LATE:
            raise self._time_out(service)
        if entrance is not Entrance.WAITS:
            self._row.add(Counter.QUEUE_OVERFLOWS)
            if room.queue.size:
                self._tell(f"service {name}: {room.queue.size} requests wait for room already; further ones get a 503")
            raise NoRoomError(f"no healthy upstream with room in service {name}, and the queue is full")
        self._row.add(Counter.REQUESTS_QUEUED)
        self._waiting[service.index] = service
        self._show(service)
        if not self._poll.is_set:
            self._poll.set(_POLL_S)
        if room.queue.has_retries:
            self.look_soon()  # what has no room for those may have room for others

    def leave(self, item: Queued, service: ServiceRuntime) -> None:
        """It waits no more; nothing happens where it did not."""
        room = service.room
        if room is None or not room.queue.leave(item):
            return
        if not room.queue:
            self._waiting.pop(service.index, None)
        self._show(service)

    def on_upstreams_changed(self) -> None:
        """Services have other upstreams: what the board says of who waits for which is said anew."""
        for column in self._sharers:
            self._row.put_waiting(column, 0)
        self._sharers = _find_sharers(self._services)
        self._show_all()
        self.look_soon()

    def look_soon(self) -> None:
        """An exchange with a capped upstream is over, or about to be: see at the end of the turn who gets the room."""
        if self._waiting and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_due = False
        self._serve_all()

    def _serve_all(self) -> None:
        self._poll.set(_POLL_S)  # first of all: whatever goes wrong with some, the others are looked at again
        if self._loop.paused_s != self._shown_paused_s:
            self._show_all()  # who waits has waited for less; else they would wait for what they were themselves
        for service in list(self._waiting.values()):
            self._expire(service)
            self._serve(service)
        if not self._waiting:
            self._poll.cancel()

    def _expire(self, service: ServiceRuntime) -> None:
        room = service.room
        assert room is not None
        expired = room.queue.take_expired(self._loop.now_s)
        if not expired:
            return
        if not room.queue:
            self._waiting.pop(service.index, None)
        self._show(service)
        for item in expired:
            self._run(item, service, partial(item.on_wait_over, self._time_out(service)))

    def _serve(self, service: ServiceRuntime) -> None:
        """Give out what room there is, in the order of the queue."""
        room = service.room
        assert room is not None
        passed: set[Queued] = set()
        for _ in range(_MAX_TURNS):
            item = room.queue.first(passed)
            if item is None:
                return
            room.turn = item
            self._run(item, service, item.on_turn)
            room.turn = None
            if item in room.queue:
                if not room.queue.is_retry(item):
                    return
                passed.add(item)

    def _run(self, item: Queued, service: ServiceRuntime, action: Callable[[], None]) -> None:
        """Tell an exchange; a bug in one of them must not be one for those behind it."""
        try:
            action()
        except Exception:
            log.exception("a bug; the connection it concerns is closed")
            self.leave(item, service)
            item.on_upstream_crash()

    def _show_all(self) -> None:
        self._shown_paused_s = self._loop.paused_s
        for service in self._waiting.values():
            assert service.room is not None
            service.room.shown = None
            self._show(service)

    def _show(self, service: ServiceRuntime) -> None:
        """Let the other workers know since when the first one waits, for each upstream that it may be sent to."""
        room = service.room
        assert room is not None
        first = room.queue.first(())
        if first is room.shown and not room.queue.has_retries:
            return
        room.shown = first
        for upstream in service.upstreams:
            if upstream.cap:
                since_s = [_first_since_s(*sharer) for sharer in self._sharers[upstream.index]]
                self._row.put_waiting(upstream.index, min(map(self._loop.machine_ms, filter(None, since_s)), default=0))

    def _time_out(self, service: ServiceRuntime) -> NoRoomError:
        room, name = service.room, service.config.name
        assert room is not None
        self._row.add(Counter.QUEUE_TIMEOUTS)
        detail = f"no room at an upstream of service {name} within {room.queue.timeout_s:g} s"
        self._tell(f"{detail}; the request gets a 503")
        return NoRoomError(detail)

    def _tell(self, message: str) -> None:
        """Log what overload brings about again and again, but not each time."""
        now_s = self._loop.now_s
        told_s, times = self._told.get(message, (-_TELL_EVERY_S, 0))
        if now_s - told_s < _TELL_EVERY_S:
            self._told[message] = (told_s, times + 1)
            return
        self._told[message] = (now_s, 0)
        log.warning("%s%s", message, f" ({times} more since the last such line)" if times else "")


def _find_sharers(services: Iterable[ServiceRuntime]) -> dict[int, list[tuple[ServiceRuntime, UpstreamRuntime]]]:
    """Return by column the services that may wait for it, and the upstream that it is there."""
    sharers: dict[int, list[tuple[ServiceRuntime, UpstreamRuntime]]] = {}
    for service in services:
        for upstream in service.upstreams:
            if upstream.cap:
                sharers.setdefault(upstream.index, []).append((service, upstream))
    return sharers


def _first_since_s(service: ServiceRuntime, upstream: UpstreamRuntime) -> float:
    """Return since when the first one is being served that waits for that upstream; 0.0 where there is none."""
    assert service.room is not None
    queue = service.room.queue
    first = queue.first([item for item in queue.retries() if not item.may_ask(upstream)])
    return queue.since_s(first) if first is not None else 0.0
