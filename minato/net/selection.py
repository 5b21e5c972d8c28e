"""Which upstream of a service gets the next request: who may be chosen at all, then the service's balancer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from minato.config.model import Config
from minato.decide.standing import Standing
from minato.decide.warming import thin_out, warmth
from minato.errors import ExchangeError, NoRoomError, Source
from minato.net.caps import Caps
from minato.net.loop import Loop
from minato.net.runtime import ServiceRuntime, UpstreamRuntime
from minato.shared.board import Board
from minato.shared.row import WorkerRow

_SERVICE_UNAVAILABLE: Final = 503
_KEEPS_SESSIONS: Final = frozenset([int(Standing.UP), int(Standing.DRAINING)])

_EJECTED: Final = int(Standing.EJECTED)


class Selector:
    """Chooses upstreams for one worker: healthy by the board, with room, not tried before; backups last.

    It counts the exchanges in.
    """

    def __init__(self, config: Config, board: Board, row: WorkerRow, caps: Caps, loop: Loop) -> None:
        self._board = board
        self._begin = row.upstream_begin
        self._caps = caps
        self._slow_start_ms = config.health.slow_start_s * 1000.0
        self._loop = loop
        self._retry_after_s = max(1, round(config.health.interval_s))
        self._rng = random.Random()

    def pick(self, service: ServiceRuntime, tried: tuple[int, ...], key: bytes = b"") -> UpstreamRuntime | None:
        """Choose an upstream, and count an exchange in flight with it.

        Args:
            service: whose.
            tried: columns of the upstreams that this request was sent to before; positions may have changed since.
            key: of the request, for a balancer that hashes.

        Returns:
            A healthy one with room that was not tried yet; None where there is none.

        Raises:
            NoRoomError: all that are healthy and not tried yet are full.
            ExchangeError: 503, no upstream of the service is healthy.
        """
        health = self._board.health
        upstreams = service.upstreams
        candidates: Sequence[int] = service.positions
        if tried or service.is_choosy:
            candidates = self._open_positions(service)
            if candidates and tried:
                candidates = [position for position in candidates if upstreams[position].index not in tried]
                if not candidates:
                    return None
            if candidates and service.room is not None:
                return self._claim(service, candidates, key)
            if service.is_choosy and len(candidates) > 1:
                candidates = self._choose_among(service, candidates)
        else:
            for upstream in upstreams:
                if not health[upstream.index]:
                    candidates = self._open_positions(service)
                    break
        if len(candidates) == 1:
            upstream = upstreams[candidates[0]]
        elif candidates:
            upstream = upstreams[service.balancer.pick(candidates, service.active, self._rng, key)]
        else:
            raise self._nobody(service)
        self._begin(upstream.index)
        return upstream

    def pick_ejected(self, service: ServiceRuntime, tried: tuple[int, ...], key: bytes = b"") -> UpstreamRuntime | None:
        """Choose, for a retry that finds nobody else, one that is ejected; it may be well again: its checks succeed.

        The exchange is counted there. None where all are tried, or full.
        """
        standing, upstreams = self._board.standing, service.upstreams
        candidates = [one.position for one in upstreams if standing[one.index] == _EJECTED and one.index not in tried]
        if not candidates:
            return None
        if service.room is not None:
            try:
                return self._caps.claim(service, candidates, self._rng, key)
            except NoRoomError:
                return None
        upstream = upstreams[service.balancer.pick(candidates, service.active, self._rng, key)]
        self._begin(upstream.index)
        return upstream

    def keeps_sessions(self, upstream: UpstreamRuntime) -> bool:
        """Tell whether sessions stay at an upstream, be it full at the moment: also where it drains."""
        return self._board.standing[upstream.index] in _KEEPS_SESSIONS

    def pick_home(self, service: ServiceRuntime, home: UpstreamRuntime) -> UpstreamRuntime | None:
        """Return the upstream of a session, which it keeps, the exchange counted there; None where that has no room."""
        if service.room is not None:
            return self._caps.claim_home(service, home)
        self._begin(home.index)
        return home

    def _claim(self, service: ServiceRuntime, candidates: Sequence[int], key: bytes) -> UpstreamRuntime:
        """Take room at one of these; where those that come first are full, at one of the others.

        Raises:
            NoRoomError: all are full.
        """
        if not (service.backups or self._slow_start_ms):
            return self._caps.claim(service, candidates, self._rng, key)
        rest = list(candidates)
        while True:
            first = self._choose_among(service, rest)
            rest = [position for position in rest if position not in first]
            try:
                return self._caps.claim(service, first, self._rng, key)
            except NoRoomError:
                if not rest:
                    raise

    def _choose_among(self, service: ServiceRuntime, candidates: Sequence[int]) -> Sequence[int]:
        """Leave out backups where there are others, and those that warm up as often as they are not warm yet."""
        if service.backups:
            first_choice = [position for position in candidates if position not in service.backups]
            candidates = first_choice or candidates
        slow_start_ms = self._slow_start_ms
        if slow_start_ms and len(candidates) > 1:
            recovered_ms, now_ms = self._board.recovered_ms, self._loop.machine_ms(self._loop.now_s)
            upstreams = service.upstreams
            candidates = thin_out(
                candidates,
                lambda position: warmth(recovered_ms[upstreams[position].index], now_ms, slow_start_ms),
                self._rng.random,
            )
        return candidates

    def _open_positions(self, service: ServiceRuntime) -> Sequence[int]:
        """Return the positions of the upstreams that are healthy."""
        health = self._board.health
        return [upstream.position for upstream in service.upstreams if health[upstream.index]]

    def _nobody(self, service: ServiceRuntime) -> ExchangeError:
        return ExchangeError(
            _SERVICE_UNAVAILABLE,
            "no upstream is available",
            detail=f"no healthy upstream in service {service.config.name}",
            source=Source.UPSTREAM,
            fields=((b"retry-after", b"%d" % self._retry_after_s),),
        )
