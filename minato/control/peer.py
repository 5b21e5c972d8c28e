"""The other master, while two belong to one minato: its link in the loop, and its part in purges and drains."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.control.drains import Drained, Drains
from minato.control.link import Link, LinkClosedError, LinkMessage
from minato.control.purges import Purges
from minato.decide.purging import PurgeOutcome
from minato.net.loop import READ, WRITE, Loop

log = logging.getLogger("minato.upgrade")


class MasterPeer:
    """The other master: the new one as the old one sees it, or the other way round.

    From ``take_part_in_purges`` on, what either is asked to purge has the other purge everything, before it is
    answered: the workers of the new one may hold what came by while both served, those of the old one answer what
    comes on kept connections for as long as they drain. From ``take_part_in_drains`` on, what either is asked to drain
    the other drains, too, for the same reason. (One of an older version does not confirm that, and is missing.)

    Args:
        hear: called with every message that is not about purges.
        on_closed: called when the other closed the link.
    """

    def __init__(
        self,
        loop: Loop,
        purges: Purges,
        drains: Drains,
        hear: Callable[[LinkMessage], None],
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._purges = purges
        self._drains = drains
        self._hear_message = hear
        self._on_closed = on_closed
        self._link: Link | None = None
        self._pid = 0

    @property
    def is_linked(self) -> bool:
        """Whether the other master lives, as far as its link says."""
        return self._link is not None

    def connect(self, link: Link, pid: int) -> None:
        """Listen to a link from now on."""
        self._link = link
        self._pid = pid
        self._loop.add(link.fileno(), READ, lambda events: self.hear())

    def send(self, says: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message now or as soon as there is room; nothing where the link is closed."""
        if self._link is None:
            return
        try:
            self._link.send(says, sockets)
        except LinkClosedError:
            return  # what the other said before it went is heard first
        self._watch()

    def hear(self) -> None:
        """Read what the other has said up to now, and send what waits."""
        try:
            while self._link is not None and (message := self._link.receive()) is not None:
                self._take(message)
            if self._link is not None:
                self._link.flush()
                self._watch()
        except LinkClosedError:
            self.close()
            self._on_closed()

    def take_part_in_purges(self) -> None:
        """Have the other purge, too, whatever is purged here, until its link closes."""
        self._purges.ask_also(self._pid, lambda serial: self.send({"purge": serial}))

    def take_part_in_drains(self) -> None:
        """Have the other drain, too, whatever is to drain here, until its link closes."""
        self._drains.ask_also(self._pid, self.send)

    def close(self) -> None:
        """Close the link; the other hears of that at once."""
        if self._link is None:
            return
        link, self._link = self._link, None
        self._loop.remove(link.fileno())
        link.close()
        self._purges.leave(self._pid)
        self._drains.leave(self._pid)

    def forget(self) -> None:
        """In a forked child: close the copy of the link."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _take(self, message: LinkMessage) -> None:
        says = message.says
        if "purge" in says:
            self._purge(says["purge"])
        elif "purged" in says:
            self._purges.confirm(self._pid, *says["purged"])
        elif "drain" in says:
            self._drain(says["drain"], says["on"], says["serial"])
        elif "marked" in says:
            self._drains.confirm(self._pid, says["marked"])
        else:
            self._hear_message(message)

    def _purge(self, serial: int) -> None:
        def answer(outcome: PurgeOutcome) -> None:
            if not outcome.missing:  # else the other finds that this one is missing
                self.send({"purged": [serial, outcome.purged]})

        self._purges.begin([PurgeRequest(PurgeKind.ALL)], answer, asked_by=self._pid)

    def _drain(self, keys: Sequence[str], on: bool, serial: int) -> None:
        def answer(outcome: Drained) -> None:
            if serial and not outcome.missing:
                self.send({"marked": serial})

        self._drains.begin(keys, on, answer, asked_by=self._pid)

    def _watch(self) -> None:
        if self._link is not None:
            self._loop.modify(self._link.fileno(), READ | WRITE if self._link.is_waiting else READ)
