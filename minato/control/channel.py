"""What master and worker say to each other: small messages, with sockets where needed, over a socket pair."""

from __future__ import annotations

import array
import enum
import json
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.config.model import ListenAddress
from minato.net.bound import BoundListener

log = logging.getLogger("minato.channel")

MAX_MESSAGE_BYTES = 65_536
# What a purge takes besides its value, and what the kernel puts around a message.
_PURGE_BYTES = 24
_PLACE_BYTES = 16
_KERNEL_BYTES = 1_024
# The kernel refuses more than 253 descriptors in one message (SCM_MAX_FD).
MAX_LISTENERS_PER_MESSAGE = 100


class Verb(enum.Enum):
    """What a message asks for or says."""

    DRAIN = "drain"  # master to worker: accept no more, finish what is there within `seconds`
    LINGER = "linger"  # master to worker, before DRAIN: the addresses of `listeners` are dropped; see Server.drain
    SHED = "shed"  # master to worker, draining: let go of what is stored, for older generations pile up
    CLOSE_IDLE = "close idle"  # master to worker, draining: nobody comes after it, so idle connections need not stay
    STOP = "stop"  # master to worker: end now
    REOPEN_LOGS = "reopen logs"  # master to worker
    BORROW = "borrow"  # master to worker: accept from these sockets of `slot`, too: nobody attends to them
    GIVE_BACK = "give back"  # master to worker: the worker of `slot` is there again
    PURGE = "purge"  # master to worker: carry out `purges`, then confirm `serial`
    PURGED = "purged"  # worker to master: `serial` is carried out, `count` stored responses were found
    ADDRESSES = "addresses"  # master to worker: `upstream` has these `places` from now on; then confirm `serial`
    ADDRESSED = "addressed"  # worker to master: `serial` is carried out
    READY = "ready"  # worker to master: it serves
    DRAINING = "draining"  # worker to master: told to drain, or by a signal of its own, it accepts no more


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        verb: what it is about.
        slot: whose sockets, for BORROW and GIVE_BACK.
        seconds: the deadline of DRAIN, from now.
        listeners: the sockets of BORROW and LINGER. The receiver owns its copies.
        serial: which purge, for PURGE and PURGED; which change, for ADDRESSES and ADDRESSED.
        count: how many stored responses PURGED found.
        purges: what PURGE asks for; all of it has to fit into MAX_MESSAGE_BYTES.
        upstream: Upstream.key, as configured, of ADDRESSES.
        places: addresses and their columns on the board, of ADDRESSES.
    """

    verb: Verb
    slot: int = 0
    seconds: float = 0.0
    listeners: tuple[BoundListener, ...] = ()
    serial: int = 0
    count: int = 0
    purges: tuple[PurgeRequest, ...] = ()
    upstream: str = ""
    places: tuple[tuple[str, int], ...] = ()

    @property
    def size_bytes(self) -> int:
        """About what it takes in the socket's buffer, sockets aside: values, and what the kernel adds."""
        purges = sum(len(purge.value) + _PURGE_BYTES for purge in self.purges)
        return _KERNEL_BYTES + purges + len(self.upstream) + sum(len(place[0]) + _PLACE_BYTES for place in self.places)


class ChannelClosedError(Exception):
    """The other side is gone."""


class Channel:
    """One end of a socket pair that keeps messages apart (SOCK_SEQPACKET); it never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return two connected ends; neither survives an exec."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Message) -> bool:
        """Send a message, in parts where it has many sockets.

        Returns:
            False where the other side is gone, or reads so little that the message does not fit: it hangs, and its
            heartbeat says so soon.

        Raises:
            ValueError: the message is larger than MAX_MESSAGE_BYTES.
        """
        parts = [
            message.listeners[start : start + MAX_LISTENERS_PER_MESSAGE]
            for start in range(0, len(message.listeners), MAX_LISTENERS_PER_MESSAGE)
        ]
        return all([self._send_part(message, part) for part in parts or [()]])

    def receive(self) -> Message | None:
        """Return the next message; None when there is none now.

        Raises:
            ChannelClosedError: the other side is gone.
        """
        try:
            data, fds = self._receive_with_fds()
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ChannelClosedError(str(error)) from error
        if not data:
            raise ChannelClosedError("closed")
        return _decode(data, fds)

    def _send_part(self, message: Message, listeners: Sequence[BoundListener]) -> bool:
        data = _encode(message, listeners)
        fds = array.array("i", [listener.sock.fileno() for listener in listeners])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if listeners else []
        try:
            self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        except OSError as error:
            log.debug("cannot send %s: %s", message.verb.value, error)
            return False
        return True

    def _receive_with_fds(self) -> tuple[bytes, list[int]]:
        fds = array.array("i")
        space = socket.CMSG_SPACE(MAX_LISTENERS_PER_MESSAGE * fds.itemsize)
        data, ancillary, _, _ = self._sock.recvmsg(MAX_MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        return data, list(fds)


def _encode(message: Message, listeners: Sequence[BoundListener]) -> bytes:
    addresses = [[listener.address.host, listener.address.port] for listener in listeners]
    purges = [[purge.kind.value, purge.value.decode("latin-1"), purge.soft] for purge in message.purges]
    about = [message.verb.value, message.slot, message.seconds, addresses, message.serial, message.count, purges]
    parts = [*about, message.upstream, message.places]
    data = json.dumps(parts, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {len(data)} bytes would be cut short by its receiver")
    return data


def _decode(data: bytes, fds: list[int]) -> Message:
    verb, slot, seconds, names, serial, count, purges, upstream, places = json.loads(data)
    for fd in fds[len(names) :]:
        os.close(fd)
    listeners = tuple(
        # A receiver that is out of descriptors gets fewer than were sent.
        BoundListener(ListenAddress(host, port), socket.socket(fileno=fd))
        for (host, port), fd in zip(names, fds, strict=False)
    )
    requests = tuple(PurgeRequest(PurgeKind(kind), value.encode("latin-1"), soft) for kind, value, soft in purges)
    found = tuple((address, column) for address, column in places)
    return Message(Verb(verb), slot, seconds, listeners, serial, count, requests, upstream, found)
