"""A worker whose master is gone: does what minato.decide.orphanage says."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Collection, Sequence
from typing import Protocol

from minato.config.model import Config, ListenAddress
from minato.control.last_will import LastWill
from minato.decide.orphanage import Facts, Notice, Orphanage, Phase, Step
from minato.net.bound import BoundListener
from minato.net.loop import READ, Loop
from minato.net.syn_filter import invite_nobody

log = logging.getLogger("minato.orphans")

# So soon a worker knows that the next master's serve.
LOOK_EVERY_S = 0.1


class Ward(Protocol):
    """What an orphan asks of its worker."""

    def borrow(self, slot: int, listeners: tuple[BoundListener, ...]) -> None: ...
    def leave(self, dropped: Collection[ListenAddress]) -> None: ...


class Orphan:
    """What becomes of one worker once its master is gone.

    The health of upstreams stays as the master said it last, their addresses too; no worker that dies is replaced, but
    its sockets are served, since everyone accepts from all of them.
    """

    def __init__(
        self,
        loop: Loop,
        last_will: LastWill,
        config: Config,
        own: Sequence[BoundListener],
        fresh: Collection[ListenAddress],
        ward: Ward,
    ) -> None:
        """``fresh``: addresses of those of its own sockets that no master before had."""
        self._loop = loop
        self._last_will = last_will
        self._addresses = config.listen_addresses()
        self._timeouts = config.timeouts
        self._own = own
        self._fresh = fresh
        self._ward = ward
        self._plan = Orphanage()
        self._door: int | None = None
        self._left: dict[tuple[int, ListenAddress], BoundListener] = {}  # while it begins
        self._is_gone = False
        self._is_over = False  # nobody is to get the sockets from here any more
        self._is_closing = False
        self._look = loop.timer(self._advance)

    def begin(self) -> None:
        """The master is gone, and this worker serves."""
        self._is_gone = True
        self._left = self._last_will.deed.read()
        self._door = self._last_will.open_door()
        if self._door is not None:
            self._loop.add(self._door, READ, lambda events: self._last_will.answer())
        self._advance()
        self._drop_left()

    def close(self) -> None:
        """The worker accepts no more, for whatever reason; its copies of the sockets are about to be closed."""
        self._plan.leave()
        self._look.cancel()
        if self._door is not None:
            self._loop.remove(self._door)
            self._door = None
        if self._is_closing:
            self._shut_down()
        if self._is_over:
            # A worker that is stopped, or drains for long must keep nothing open that nobody accepts from.
            self._last_will.deed.burn()
        self._last_will.close()

    def _advance(self) -> None:
        step = self._plan.next_step(self._facts())
        if step is Step.GO_ON:
            self._go_on()
        elif step is Step.SEAL:
            self._seal()
        elif step is Step.YIELD:
            self._yield()
        elif step is Step.CLOSE:
            self._close()
        if self._plan.phase is Phase.ORPHANED:
            self._look.set(LOOK_EVERY_S)

    def _facts(self) -> Facts:
        deed = self._last_will.deed
        return Facts(
            mono_s=self._loop.now_s,
            is_gone=self._is_gone,
            was_in_office=deed.was_in_office,
            can_hand_over=self._door is not None and bool(self._left),
            is_claimed=deed.is_claimed(),
            notice=deed.look(),
            orphaned_s=self._timeouts.orphaned_s,
            upgrade_s=self._timeouts.upgrade_s,
        )

    def _go_on(self) -> None:
        log.warning("the master is gone; pid %d serves on until the next one does", os.getpid())
        known = {_inode(listener) for listener in self._own}
        for slot, address in list(self._left):
            if address in self._addresses and _inode(self._left[slot, address]) not in known:
                self._ward.borrow(slot, (self._left.pop((slot, address)),))

    def _drop_left(self) -> None:
        for listener in self._left.values():
            listener.sock.close()
        self._left.clear()

    def _seal(self) -> None:
        """No two do that at a time, nor while a new master takes the sockets."""
        deed = self._last_will.deed
        if deed.claim():
            if deed.look() is Notice.NONE:
                deed.post(Notice.SEALED)
            deed.unclaim()

    def _yield(self) -> None:
        self._is_over = True
        deed = self._last_will.deed
        dropped: set[ListenAddress] = set()
        if deed.look() is Notice.SUCCEEDED:
            dropped = set(self._addresses) - set(deed.kept())
            self._invite_nobody(dropped)
        elif not deed.was_in_office:
            # The workers before it serve on, but not from these.
            dropped = set(self._fresh)
            for listener in self._own:
                if listener.address in dropped:
                    invite_nobody(listener.sock)
        log.info("pid %d leaves the sockets to others and finishes what it has", os.getpid())
        self._ward.leave(dropped)

    def _close(self) -> None:
        log.warning("no new master came; pid %d accepts no more and finishes what it has", os.getpid())
        self._is_over = self._is_closing = True
        self._invite_nobody(self._addresses)
        self._ward.leave(self._addresses)

    def _invite_nobody(self, dropped: Collection[ListenAddress]) -> None:
        for listener in self._last_will.deed.read().values():
            if listener.address in dropped or self._is_closing:
                invite_nobody(listener.sock)
            listener.sock.close()

    def _shut_down(self) -> None:
        """Close the sockets in whatever process they are open: one that is stopped would let clients wait for ever."""
        for listener in self._last_will.deed.read().values():
            with contextlib.suppress(OSError):
                listener.sock.shutdown(socket.SHUT_RDWR)
            listener.sock.close()


def _inode(listener: BoundListener) -> int:
    return os.fstat(listener.sock.fileno()).st_ino
