"""The new master's side of a succession: it finds the workers of one that was killed, and takes their sockets.

They go on until it says that its own workers serve; both accept from the very same sockets meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Container, Iterator, Sequence

from minato.config.model import ListenAddress
from minato.control.deed import Deed
from minato.control.last_will import door_prefix, peer_uid
from minato.control.listeners import Listeners
from minato.decide.orphanage import Notice
from minato.errors import BootError
from minato.net.bound import BoundListener

log = logging.getLogger("minato.orphans")

# An address in use is tried again for half a second: workers whose master was killed just now are about to notice.
TRIES = 6
# Where workers of a killed master are leaving sockets, or may be (of an address that it had just dropped): that takes a
# second and a half.
LEAVING_TRIES = 30
TRIES_PAUSE_S = 0.1
ANSWER_TIMEOUT_S = 1.0
_SOCKETS = "/proc/net/unix"
_LISTENING = 0x10000  # __SO_ACCEPTCON, linux/net.h


class Succession:
    """What this master has of others that were killed."""

    def __init__(self) -> None:
        # By the name of the door. Of each there is one share: closing another one would end the claim (fcntl(2)).
        self._deeds: dict[str, Deed] = {}
        self._is_sealed = False

    @property
    def is_heir(self) -> bool:
        """Whether workers of a killed master serve, and go on until `succeed`."""
        return bool(self._deeds)

    def bind(self, listeners: Listeners, addresses: Sequence[ListenAddress], slots: int) -> None:
        """Bind what a config asks for, beside the workers of a killed master if there are any; nobody else.

        Raises:
            BootError: an address cannot be bound.
        """
        for number in range(1, LEAVING_TRIES + 1):
            self._is_sealed = False
            self._claim(listeners, addresses)
            tries = LEAVING_TRIES if self._is_sealed or self.is_heir else TRIES
            if not listeners.is_one_taken(addresses) or number >= tries:
                break
            time.sleep(TRIES_PAUSE_S)
        # Where others accept, clients are not invited to further sockets before there is somebody to accept there, too.
        listeners.bind(addresses, slots, listens=not self.is_heir)

    def inherit(self, deed: Deed | None) -> None:
        """Take the share of the old master of an upgrade: should it be killed, its workers wait for this one.

        Raises:
            BootError: it was killed, and yet another master is in its place.
        """
        if deed is None:
            return
        self._deeds[""] = deed
        for _ in range(TRIES):
            if deed.claim():
                return
            time.sleep(TRIES_PAUSE_S)
        raise BootError("the old master was killed, and another one takes its place")

    def succeed(self, addresses: Sequence[ListenAddress]) -> None:
        """Say that this master's workers accept at these addresses; those of the killed one leave them to it."""
        for deed in self._deeds.values():
            deed.post(Notice.SUCCEEDED, addresses)
        self.renounce()

    def renounce(self) -> None:
        """Claim nothing any more."""
        for deed in self._deeds.values():
            deed.close()
        self._deeds.clear()

    def _claim(self, listeners: Listeners, addresses: Sequence[ListenAddress]) -> None:
        for name, deed in find_deeds(self._deeds):
            if self._take(deed, listeners, addresses):
                self._deeds[name] = deed
            else:
                deed.close()

    def _take(self, deed: Deed, listeners: Listeners, addresses: Sequence[ListenAddress]) -> bool:
        """Take the sockets of a killed master that served any of these addresses."""
        found = deed.read()
        is_ours = any(address.overlaps(other) for address in addresses for _, other in found)
        notice = deed.look()
        self._is_sealed |= is_ours and notice is Notice.SEALED
        if not is_ours or notice is not Notice.NONE or not deed.claim() or deed.look() is not Notice.NONE:
            for listener in found.values():
                listener.sock.close()
            return False
        log.info("workers of a master that was killed serve on; taking over from them")
        listeners.adopt(_beside(listeners, found))
        return True


def find_deeds(known: Container[str] = ()) -> Iterator[tuple[str, Deed]]:
    """Yield a share in what each killed master left whose workers wait for the next one, in this network namespace.

    Args:
        known: names of doors to pass by.
    """
    for name in _open_doors():
        if name in known:
            continue
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(ANSWER_TIMEOUT_S)
            sock.connect(f"\0{name}")
            if peer_uid(sock) == os.geteuid() and (deed := Deed.receive(sock)) is not None:
                yield name, deed


def _open_doors() -> list[str]:
    """Return the names of this user's doors at which somebody listens (proc_net_unix(5))."""
    found = set()
    with contextlib.suppress(OSError), open(_SOCKETS, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            # Num, RefCount, Protocol, Flags, Type, St, Inode, Path; "@" stands for the null byte.
            fields = line.split()
            if len(fields) == 8 and fields[7].startswith(f"@{door_prefix()}") and int(fields[3], 16) & _LISTENING:
                found.add(fields[7][1:])
    return sorted(found)


def _beside(
    listeners: Listeners, found: dict[tuple[int, ListenAddress], BoundListener]
) -> dict[tuple[int, ListenAddress], BoundListener]:
    """Give sockets of another master slots that no other socket has; copies of sockets that are there are closed."""
    bound = listeners.bound()
    known = {os.fstat(listener.sock.fileno()).st_ino for listener in bound.values()}
    taken = dict(bound)
    fresh: dict[tuple[int, ListenAddress], BoundListener] = {}
    for (wanted, address), listener in found.items():
        slot = wanted
        if os.fstat(listener.sock.fileno()).st_ino in known:
            listener.sock.close()
            continue
        while (slot, address) in taken:
            slot += 1
        taken[slot, address] = fresh[slot, address] = listener
    return fresh
