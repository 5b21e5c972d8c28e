"""One worker more, one fewer (TTIN, TTOU): the target of a generation, its sockets, a larger board if need be."""

from __future__ import annotations

import logging

from minato.control.generation import Generation
from minato.control.listeners import Listeners
from minato.control.rollover import RolloverDriver
from minato.errors import BootError

log = logging.getLogger("minato.master")


class Resizing:
    """Changes how many workers a generation should have; the supervisor sees to it that it has them."""

    def __init__(self, listeners: Listeners, rollover: RolloverDriver) -> None:
        self._listeners = listeners
        self._rollover = rollover

    def add(self, generation: Generation) -> None:
        """One worker more; with a new generation where the board has no room for it and a spare row.

        Without a spare row no worker could be recycled, nor one be forked while another of its slot drains.
        """
        target = generation.target + 1
        if target >= generation.board.slots:
            log.info("%d workers need a larger board: rolling over to a new generation", target)
            self._rollover.request(workers=target)
            return
        try:
            self._listeners.bind(generation.config.listen_addresses(), target)
        except BootError as error:
            log.error("cannot add a worker: %s", error)
            return
        generation.target = target
        log.info("%d workers", target)

    def remove(self, generation: Generation) -> None:
        """One worker fewer, but never none."""
        if generation.target == 1:
            log.warning("one worker is the least; SIGTERM stops minato")
            return
        generation.target -= 1
        log.info("%d workers", generation.target)
