"""Which upstream of a service gets the next request: who may be chosen at all, then the service's balancer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from minato.config.model import Config
from minato.errors import ExchangeError, Source
from minato.net.runtime import ServiceRuntime, UpstreamRuntime
from minato.shared.board import Board

_SERVICE_UNAVAILABLE: Final = 503


class Selector:
    """Chooses upstreams for one worker: healthy by the board, with room, not tried before."""

    def __init__(self, config: Config, board: Board) -> None:
        self._board = board
        self._cap = config.limits.upstream_connections
        self._retry_after_s = max(1, round(config.health.interval_s))
        self._rng = random.Random()

    def pick(self, service: ServiceRuntime, tried: tuple[int, ...], key: bytes = b"") -> UpstreamRuntime | None:
        """Choose an upstream.

        Args:
            service: whose.
            tried: positions in the service that this request was sent to before.
            key: of the request, for a balancer that hashes.

        Returns:
            A healthy one with room that was not tried yet; None where there is none.

        Raises:
            ExchangeError: 503, no upstream of the service is healthy, or all are full.
        """
        health = self._board.health
        upstreams = service.upstreams
        candidates: Sequence[int] = service.positions
        if tried or self._cap:
            candidates = self._open_positions(service)
            if candidates and tried:
                candidates = [position for position in candidates if position not in tried]
                if not candidates:
                    return None
        else:
            for upstream in upstreams:
                if not health[upstream.index]:
                    candidates = self._open_positions(service)
                    break
        if len(candidates) == 1:
            return upstreams[candidates[0]]
        if not candidates:
            raise self._nobody(service)
        return upstreams[service.balancer.pick(candidates, service.active, self._rng, key)]

    def keeps_sessions(self, upstream: UpstreamRuntime) -> bool:
        """Tell whether sessions stay at an upstream, be it full at the moment."""
        return bool(self._board.health[upstream.index])

    def pick_home(self, home: UpstreamRuntime) -> UpstreamRuntime | None:
        """Return the upstream of a session, which it keeps; None where that has no room."""
        return home if not self._cap or self._board.active(home.index) < self._cap else None

    def _open_positions(self, service: ServiceRuntime) -> Sequence[int]:
        """Return the positions of the upstreams that are healthy and have room."""
        health = self._board.health
        cap = self._cap
        active = self._board.active
        return [
            upstream.position
            for upstream in service.upstreams
            if health[upstream.index] and not (cap and active(upstream.index) >= cap)
        ]

    def _nobody(self, service: ServiceRuntime) -> ExchangeError:
        return ExchangeError(
            _SERVICE_UNAVAILABLE,
            "no upstream is available",
            detail=f"no healthy upstream with room in service {service.config.name}",
            source=Source.UPSTREAM,
            fields=((b"retry-after", b"%d" % self._retry_after_s),),
        )
