"""The new master's side of a binary upgrade: what it inherits, and when it is the master."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import stat
import time
from collections.abc import MutableMapping, Sequence
from typing import Protocol

from minato.config.model import ListenAddress
from minato.control.drains import Drains
from minato.control.handover import Inheritance
from minato.control.link import VERSION, Link, LinkClosedError, LinkMessage
from minato.control.peer import MasterPeer
from minato.control.purges import Purges
from minato.control.reexec import HANDOVER_VARIABLE
from minato.control.system import remove_dead_boards
from minato.decide.upgrade import HAND_OVER_TIMEOUT_S, Takeover, TakeoverFacts, TakeoverPhase, TakeoverStep
from minato.errors import BootError
from minato.net.loop import Loop, Timer

log = logging.getLogger("minato.upgrade")

# The old master answers within a turn of its loop.
STATE_TIMEOUT_S = 10.0
# Between the end of the link and that of the process that held it there is a moment.
END_WAIT_S = 1.0
# An old master that goes on answers a ready one in HAND_OVER_TIMEOUT_S at the most.
TELL_WAIT_S = HAND_OVER_TIMEOUT_S + 1.0


class NewMaster(Protocol):
    """What an upgrade asks of the master that takes over."""

    def addresses(self) -> Sequence[ListenAddress]: ...
    def take_over(self, *, reload: bool) -> None: ...
    def yield_to_old(self) -> None: ...


class Predecessor:
    """The old master, as long as it lives; one that is not there (no upgrade) has no say in anything.

    Args:
        link: to the old master; None without one.
    """

    def __init__(self, link: Link | None = None) -> None:
        self._link = link
        self._plan = Takeover()
        self._is_settled = False
        self._is_given_up = self._is_unfit = False
        self._is_reload_due = False
        self._end_s = math.inf
        self._draining = 1  # the one that serves now
        self._drains: Drains | None = None
        self._peer: MasterPeer | None = None
        self._patience: Timer | None = None
        if link is None:
            self._plan.phase = TakeoverPhase.SERVING

    def __repr__(self) -> str:
        return f"<Predecessor {self._plan}>"

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Predecessor:
        """Return the master that started this one to take its place, if one did; nobody else finds it after this."""
        value = environment.pop(HANDOVER_VARIABLE, None)
        if value is None:
            return cls()
        try:
            fd = int(value)
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise ValueError(value)
            os.set_inheritable(fd, False)
            return cls(Link(socket.socket(fileno=fd)))
        except (ValueError, OSError):
            log.warning("%s is %r, which is no link to another master: starting afresh", HANDOVER_VARIABLE, value)
            return cls()

    @property
    def is_master(self) -> bool:
        """Whether the place of the old master has not been taken yet."""
        return self._plan.phase is not TakeoverPhase.SERVING

    @property
    def is_contested(self) -> bool:
        """Whether there is an old master yet that could go on in place of this one."""
        return self._plan.phase is TakeoverPhase.BOOTING and self._peer is not None and self._peer.is_linked

    def inherit(self) -> Inheritance:
        """Say hello and wait for what there is to inherit. One that was killed meanwhile is none to wait for.

        Raises:
            BootError: the old master does not say, or has given up.
        """
        inheritance = Inheritance()
        if self._link is None:
            return inheritance
        deadline_s = time.monotonic() + STATE_TIMEOUT_S
        try:
            self._link.send({"hello": VERSION, "pid": os.getpid()})
            while not inheritance.is_whole:
                self._link.set_patience(max(deadline_s - time.monotonic(), 0.001))
                message = self._link.receive()
                if message is None:
                    raise BootError(f"the old master handed nothing over within {STATE_TIMEOUT_S:g} s")
                if "given_up" in message.says:
                    raise BootError("the old master has given the upgrade up")
                inheritance.take(message)
        except LinkClosedError:
            log.warning("the old master ended before it handed over; this one starts as any other")
            inheritance.renounce()
            self.close()
            self._link = None
            self._plan.phase = TakeoverPhase.SERVING
            return Inheritance()
        self._link.set_patience(0.0)
        return inheritance

    def attach(self, loop: Loop, purges: Purges, drains: Drains) -> None:
        """Listen to it from now on."""
        self._drains = drains
        # One that was killed has left its boards behind.
        sweep = loop.timer(remove_dead_boards)
        self._patience = loop.timer(self._tell_wait)
        self._peer = MasterPeer(loop, purges, drains, self._hear, lambda: sweep.set(END_WAIT_S))
        if self._link is not None:
            self._peer.connect(self._link, os.getppid())
            self._peer.take_part_in_purges()
            self._peer.take_part_in_drains()

    def advance(self, master: NewMaster, *, is_ready: bool) -> None:
        """Take every step that can be taken now."""
        if not self.is_master:
            return
        while (step := self._plan.next_step(self._facts(is_ready))) is not TakeoverStep.WAIT:
            if step is TakeoverStep.SAY_READY:
                kept = [[address.host, address.port] for address in master.addresses()]
                self.send({"ready": True, "addresses": kept})
                if self._patience is not None:
                    self._patience.set(TELL_WAIT_S)
            elif step is TakeoverStep.TAKE_OVER:
                master.take_over(reload=self._is_reload_due)
            else:
                log.warning("the old master has given the upgrade up and goes on; this one ends")
                master.yield_to_old()

    def say_unfit(self) -> None:
        """Tell the old master that this one cannot serve; it says so, and has this one end."""
        if not self._is_unfit:
            self._is_unfit = True
            self.send({"unfit": True})

    def pass_on(self, command: str) -> None:
        """Have the old master, which drains, do the same: ``stop``, ``stop fast``, ``reopen logs``, ``shed``."""
        if not self.is_master:
            self.send({"command": command})

    def count_draining(self) -> int:
        """Return how many generations of it and of masters before it have workers yet; a master counts as one."""
        is_draining = not self.is_master and self._peer is not None and self._peer.is_linked
        return self._draining if is_draining else 0

    def is_draining(self, now_s: float) -> bool:
        """Tell whether it is the master no more and has not ended, though it should have where it was told to."""
        return not self.is_master and self._peer is not None and self._peer.is_linked and now_s < self._end_s

    def stop(self, command: str, end_s: float) -> None:
        """This master stops: so does an old one that drains; one that is the master yet hears that it remains so.

        Args:
            command: what it is told.
            end_s: from this second on it is waited for no longer; by the clock of ``is_draining``.
        """
        self._end_s = end_s
        if self.is_master and self._peer is not None:
            self._peer.close()
        self.pass_on(command)

    def send(self, says: dict[str, object]) -> None:
        if self._peer is not None:
            self._peer.send(says)

    def forget(self) -> None:
        """In a new worker: close the copy of the link."""
        if self._peer is not None:
            self._peer.forget()

    def close(self) -> None:
        """This master ends."""
        if self._peer is not None:
            self._peer.close()
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.close()

    def _tell_wait(self) -> None:
        if self._plan.phase is TakeoverPhase.ASKING:
            log.warning(
                "the workers of this master serve, but it waits for the old master (pid %d), which does not answer: "
                "it may be stopped (SIGCONT has it go on). Its workers serve, too, until it goes on or ends",
                os.getppid(),
            )

    def _facts(self, is_ready: bool) -> TakeoverFacts:
        is_linked = self._peer is not None and self._peer.is_linked
        return TakeoverFacts(is_ready, is_linked, self._is_settled, self._is_given_up)

    def _hear(self, message: LinkMessage) -> None:
        if "settled" in message.says:
            self._is_settled = True
            self._is_reload_due = bool(message.says.get("reload"))
        elif "draining" in message.says:
            self._draining = int(message.says["draining"])
        elif "drained" in message.says:
            drained = message.says["drained"]
            self._take_drains(drained, True)
            self._take_drains([key for key in message.says["of"] if key not in drained], False)
        elif "given_up" in message.says:
            self._is_given_up = True

    def _take_drains(self, keys: Sequence[str], on: bool) -> None:
        """Take what the old master's admin API was told of upstreams since this one inherited."""
        if self._drains is not None and keys:
            self._drains.begin(keys, on, lambda outcome: None, asked_by=os.getppid())
