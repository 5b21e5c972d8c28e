"""Which upstream of a service gets the next request: who may be chosen at all, then the service's balancer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from minato.config.model import Config
from minato.errors import ExchangeError, Source
from minato.net.caps import Caps
from minato.net.runtime import ServiceRuntime, UpstreamRuntime
from minato.shared.board import Board, WorkerRow

_SERVICE_UNAVAILABLE: Final = 503


class Selector:
    """Chooses upstreams for one worker: healthy by the board, with room, not tried before. It counts them in."""

    def __init__(self, config: Config, board: Board, row: WorkerRow, caps: Caps) -> None:
        self._board = board
        self._begin = row.upstream_begin
        self._caps = caps
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
        if tried or service.room is not None:
            candidates = self._open_positions(service)
            if candidates and tried:
                candidates = [position for position in candidates if upstreams[position].index not in tried]
                if not candidates:
                    return None
            if candidates and service.room is not None:
                return self._caps.claim(service, candidates, self._rng, key)
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

    def keeps_sessions(self, upstream: UpstreamRuntime) -> bool:
        """Tell whether sessions stay at an upstream, be it full at the moment."""
        return bool(self._board.health[upstream.index])

    def pick_home(self, service: ServiceRuntime, home: UpstreamRuntime) -> UpstreamRuntime | None:
        """Return the upstream of a session, which it keeps, the exchange counted there; None where that has no room."""
        if service.room is not None:
            return self._caps.claim_home(service, home)
        self._begin(home.index)
        return home

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
