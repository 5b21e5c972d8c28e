"""The listening sockets: one for each slot and address, bound by the master, open while it is configured."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from minato.config.model import ListenAddress
from minato.errors import BootError
from minato.net.bound import BoundListener
from minato.net.syn_filter import invite_again, invite_nobody

log = logging.getLogger("minato.listeners")

_TRIES_PAUSE_S = 0.1


class Listeners:
    """All listening sockets of the master, by (slot, address).

    The sockets of one address form an SO_REUSEPORT group: the kernel spreads connections evenly over the slots. A
    socket outlives every worker of its slot, and with it the connections that wait in its queue. Slots therefore only
    ever grow: closing a socket would reset what waits in it.

    Attributes:
        on_changed: called when there are other sockets.
    """

    def __init__(self) -> None:
        self.on_changed: Callable[[], None] = lambda: None
        self._sockets: dict[tuple[int, ListenAddress], BoundListener] = {}
        self._adopted: set[tuple[int, ListenAddress]] = set()

    def __repr__(self) -> str:
        return f"<Listeners {len(self.addresses())} addresses, {len(self.slots())} slots>"

    def addresses(self) -> tuple[ListenAddress, ...]:
        """Return every address that is bound, once each."""
        return tuple(dict.fromkeys(address for _, address in self._sockets))

    def slots(self) -> list[int]:
        """Return every slot that has a socket, in ascending order."""
        return sorted({slot for slot, _ in self._sockets})

    def of_slot(self, slot: int, addresses: Iterable[ListenAddress]) -> tuple[BoundListener, ...]:
        """Return the slot's sockets for those of the addresses that it has one for."""
        return tuple(self._sockets[slot, address] for address in addresses if (slot, address) in self._sockets)

    def bound(self) -> dict[tuple[int, ListenAddress], BoundListener]:
        """Return every socket by its slot and address."""
        return dict(self._sockets)

    def adopt(self, bound: Mapping[tuple[int, ListenAddress], BoundListener]) -> None:
        """Take over sockets that another master bound: what is missing beside them is bound as if they were ours."""
        self._sockets.update(bound)
        self._adopted.update(bound)
        self.on_changed()

    def fresh_of_slot(self, slot: int, addresses: Iterable[ListenAddress]) -> tuple[ListenAddress, ...]:
        """Return for which of the addresses the slot has a socket that no other master had."""
        keys = [(slot, address) for address in addresses]
        return tuple(key[1] for key in keys if key in self._sockets and key not in self._adopted)

    def is_one_taken(self, addresses: Iterable[ListenAddress]) -> bool:
        """Tell whether one of these addresses, beside which nothing of ours is bound, is in use."""
        ours = self.addresses()
        return any(_is_taken(address) for address in addresses if not any(address.overlaps(other) for other in ours))

    def bind(
        self, addresses: Sequence[ListenAddress], slots: int, tries: int = 1, *, listens: bool = True
    ) -> list[tuple[int, ListenAddress]]:
        """Bind what is missing so that each of the first ``slots`` slots has a socket for each address.

        Args:
            addresses: of a config.
            slots: how many slots have a worker.
            tries: how often an address in use is tried; more than once where a master that was killed may have
                left workers that are just about to notice.
            listens: whether clients are invited at once; if not, the worker of each slot does it when it serves.

        Returns:
            What was bound, for ``unbind``.

        Raises:
            BootError: an address cannot be bound; then nothing is.
        """
        bound: list[tuple[int, ListenAddress]] = []
        ours = self.addresses()
        for address in addresses:
            if not any(address.overlaps(other) for other in ours):
                _check_free(address, tries)
        try:
            for address in addresses:
                for slot in range(slots):
                    if (slot, address) not in self._sockets:
                        sock = _open_socket(address, share=True)
                        self._sockets[slot, address] = BoundListener(address, sock)
                        bound.append((slot, address))
                        if listens:
                            sock.listen(socket.SOMAXCONN)
        except OSError as error:
            self.unbind(bound)
            raise _describe(address, error) from error
        if bound:
            self.on_changed()
        return bound

    def unbind(self, keys: Iterable[tuple[int, ListenAddress]]) -> None:
        """Close the sockets that a ``bind`` made, which have served nobody."""
        keys = list(keys)
        closed = [self._sockets.pop(key).sock for key in keys]
        self._adopted.difference_update(keys)
        for sock in closed:
            sock.close()
        if closed:
            self.on_changed()

    def invite_nobody(self, addresses: Iterable[ListenAddress]) -> None:
        """Let nobody connect to these addresses any more; who has begun to is still let in."""
        dropped = set(addresses)
        for (_, address), listener in self._sockets.items():
            if address in dropped:
                invite_nobody(listener.sock)

    def invite_again(self) -> None:
        """Let whoever wants to connect to every address."""
        for listener in self._sockets.values():
            invite_again(listener.sock)

    def keep_only(self, addresses: Iterable[ListenAddress]) -> None:
        """Close the master's copies of all other addresses' sockets; workers that hold one still accept from it."""
        kept = set(addresses)
        self.unbind([key for key in self._sockets if key[1] not in kept])

    def close_others(self, kept: Iterable[BoundListener]) -> None:
        """In a new worker: close all sockets but its own."""
        kept_fds = {listener.sock.fileno() for listener in kept}
        for listener in self._sockets.values():
            if listener.sock.fileno() not in kept_fds:
                listener.sock.close()
        self._sockets.clear()

    def close(self) -> None:
        """Close everything."""
        self.keep_only(())


def _is_taken(address: ListenAddress) -> bool:
    try:
        _open_socket(address, share=False).close()
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _check_free(address: ListenAddress, tries: int) -> None:
    """Bind without SO_REUSEPORT and close again: SO_REUSEPORT alone would let a second minato share the address.

    Raises:
        BootError: the address is in use or cannot be had.
    """
    while True:
        try:
            _open_socket(address, share=False).close()
            return
        except OSError as error:
            tries -= 1
            if error.errno != errno.EADDRINUSE or tries <= 0:
                raise _describe(address, error) from error
        time.sleep(_TRIES_PAUSE_S)


def _open_socket(address: ListenAddress, *, share: bool) -> socket.socket:
    sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            # "" is all addresses of both families; an address that was written down is just that address.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address.host else 0)
        host = address.host or ("::" if sock.family == socket.AF_INET6 else "0.0.0.0")
        sock.bind((host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _family(address: ListenAddress) -> socket.AddressFamily:
    if address.host:
        return socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.AF_INET6 if _has_ipv6() else socket.AF_INET


def _has_ipv6() -> bool:
    """Tell whether a socket can be bound to all IPv6 addresses here; kernels with IPv6 switched off cannot."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def _describe(address: ListenAddress, error: OSError) -> BootError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return BootError(f"cannot listen on {address}: {reason}")
