"""Caps on the exchanges in flight with an upstream, over all workers; without a lock, and yet not exceeded."""

from __future__ import annotations

from collections.abc import Sequence

from minato.decide.balance import Rng
from minato.decide.queueing import must_let_others_first
from minato.errors import NoRoomError
from minato.net.loop import Loop
from minato.net.room import Room, Rooms
from minato.net.runtime import ServiceRuntime, UpstreamRuntime
from minato.shared.board import Board
from minato.shared.row import WorkerRow


class Caps:
    """Takes room at capped upstreams for one worker.

    A worker counts itself in first and adds up the column then, and counts itself out again where that is too much. Of
    two that do so at the same time each sees the other, or at least the later one does; so both may back out though one
    had room, which the next look puts right, but never do both go on. (A processor may hold a store back for some
    nanoseconds, while Python takes a hundred times as long from one line to the next. If ever it did, the cap would be
    exceeded by one for each other worker at the most.)
    """

    def __init__(self, loop: Loop, board: Board, row: WorkerRow, rooms: Rooms) -> None:
        self._loop = loop
        self._rooms = rooms
        self._board = board
        self._row = row

    def claim(self, service: ServiceRuntime, candidates: Sequence[int], rng: Rng, key: bytes = b"") -> UpstreamRuntime:
        """Choose among candidates with room, count the exchange there, and take it out of the queue.

        Args:
            service: one with ``room``.
            candidates: positions of healthy upstreams; not empty.
            rng: the source of chance.
            key: of the request, for a balancer that hashes.

        Raises:
            NoRoomError: all are full, or others wait whose turn it is.
        """
        room = service.room
        assert room is not None
        if room.turn is None and room.queue:
            raise NoRoomError(f"others wait for room in service {service.config.name}")
        since_ms = self._since_ms(room)
        open_ = [position for position in candidates if self._has_room(service.upstreams[position], since_ms)]
        while open_:
            position = open_[0] if len(open_) == 1 else service.balancer.pick(open_, service.active, rng, key)
            if self._take(service, room, service.upstreams[position]):
                return service.upstreams[position]
            open_.remove(position)
        raise NoRoomError(f"no healthy upstream with room in service {service.config.name}")

    def claim_home(self, service: ServiceRuntime, home: UpstreamRuntime) -> UpstreamRuntime | None:
        """Do the same for the one upstream that a session is at; return None where there is no room for it now."""
        room = service.room
        assert room is not None
        may_take = room.turn is not None or not room.queue
        if may_take and self._has_room(home, self._since_ms(room)) and self._take(service, room, home):
            return home
        return None

    def _since_ms(self, room: Room) -> int:
        """Return since when the request that asks for room is being served: that whose turn it is, or a new one."""
        return self._loop.machine_ms(self._loop.now_s if room.turn is None else room.queue.since_s(room.turn))

    def _take(self, service: ServiceRuntime, room: Room, upstream: UpstreamRuntime) -> bool:
        """Count the exchange in; tell whether there is room for it after all."""
        self._row.upstream_begin(upstream.index)
        if upstream.cap and self._board.active(upstream.index) > upstream.cap:
            self._row.upstream_end(upstream.index)
            return False
        turn, room.turn = room.turn, None
        if turn is not None:
            self._rooms.leave(turn, service)
        return True

    def _has_room(self, upstream: UpstreamRuntime, since_ms: int) -> bool:
        """Tell whether an upstream has room for a request that is being served since then, and nobody comes first."""
        if not upstream.cap:
            return True
        board = self._board
        if board.active(upstream.index) >= upstream.cap:
            return False
        waiting_ms = board.waiting_since_ms(upstream.index)
        if not any(waiting_ms):
            return True
        now_ms = self._loop.machine_ms(self._loop.now_s)
        return not must_let_others_first(since_ms, now_ms, waiting_ms, board.heartbeats_ms())
