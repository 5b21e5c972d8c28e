"""A generation: the workers that serve one config, as the master has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from minato.config.model import Config, ListenAddress, Service, Upstream
from minato.control.channel import Channel
from minato.control.places import Places
from minato.decide.crew import Crew, Member, WorkerState
from minato.shared.board import Board

__all__ = ["SPARE_ROWS", "Generation", "WorkerHandle", "WorkerState", "make_generation"]

# Rows for workers that are replaced while they still drain, and for TTIN; every row costs LeastConnections a little.
SPARE_ROWS = 4


@dataclass(slots=True, eq=False, kw_only=True)
class WorkerHandle(Member):
    """One worker process.

    Attributes:
        channel: the master's end.
    """

    channel: Channel


@dataclass(slots=True, eq=False, kw_only=True, repr=False)
class Generation(Crew[WorkerHandle]):
    """The workers of one config and their board.

    Attributes:
        places: addresses and columns of its upstreams, as they are now.
        bound: the sockets that were bound for it alone so far; closed again if it is given up.
    """

    config: Config
    board: Board
    places: Places
    bound: list[tuple[int, ListenAddress]] = field(default_factory=list)

    def upstreams(self) -> Iterable[tuple[Service, list[Upstream]]]:
        """Yield each service with its upstreams as they are now, each address of a name one of its own.

        How a service uses an upstream (weight, whether it is a backup) is as in that service.
        """
        for service in self.config.services:
            members = []
            for upstream in service.upstreams:
                known = self.places.members_of(upstream.key)
                members += [upstream.at(one.address) if one.address else upstream for one in known]
            yield service, members


def make_generation(
    number: int,
    config: Config,
    target: int,
    board: Board,
    places: Places,
    bound: list[tuple[int, ListenAddress]] | None = None,
) -> Generation:
    """Return a generation that has no workers yet."""
    return Generation(
        number=number,
        target=target,
        rows=board.slots,
        heartbeat_s=config.timeouts.heartbeat_s,
        drain_s=config.timeouts.drain_s,
        config=config,
        board=board,
        places=places,
        bound=bound if bound is not None else [],
    )
