"""What a master hands to the next one: listening sockets, the admin API's, and what it knows of the upstreams."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from minato.config.model import ListenAddress
from minato.control.deed import Deed
from minato.control.link import MAX_SOCKETS_PER_MESSAGE, LinkMessage
from minato.net.bound import BoundListener

# Half of what a message may take: a key comes whole.
_HEALTH_BYTES = 32_768

BoundSlots = Mapping[tuple[int, ListenAddress], BoundListener]
Part = tuple[dict[str, Any], list[socket.socket]]


@dataclass(slots=True)
class Inheritance:
    """What came from the old master.

    Attributes:
        listeners: by slot and address; the very sockets that its workers accept from.
        admin: the admin API's, likewise.
        health: what it knows, by Upstream.key, as UpstreamHealth.snapshot says it.
        deed: its own, for the case that it is killed; an older master has none.
        is_whole: whether everything has come.
    """

    listeners: dict[tuple[int, ListenAddress], BoundListener] = field(default_factory=dict)
    admin: dict[tuple[int, ListenAddress], BoundListener] = field(default_factory=dict)
    health: dict[str, Any] = field(default_factory=dict)
    deed: Deed | None = None
    is_whole: bool = False

    def take(self, message: LinkMessage) -> None:
        """Add what one message brings."""
        kind = message.says.get("state")
        if kind in ("listeners", "admin"):
            into = self.listeners if kind == "listeners" else self.admin
            # A receiver that is out of descriptors gets fewer than were sent; the rest is bound, or fails to be.
            for (slot, host, port), sock in zip(message.says["sockets"], message.sockets, strict=False):
                address = ListenAddress(host, port)
                into[slot, address] = BoundListener(address, sock)
        elif kind == "health":
            self.health.update(message.says["health"])
        elif kind == "deed":
            for box in message.sockets:
                with box, contextlib.suppress(OSError):
                    self.deed = Deed.receive(box)
        elif kind == "whole":
            self.is_whole = True

    def renounce(self) -> None:
        """Close what has come."""
        for bound in (self.listeners, self.admin):
            for listener in bound.values():
                listener.sock.close()
        if self.deed is not None:
            self.deed.close()


def describe_state(
    listeners: BoundSlots, admin: BoundSlots, health: Mapping[str, Any], deed: socket.socket | None = None
) -> Iterator[Part]:
    """Yield the messages that an Inheritance takes, in order, each with its sockets; ``deed`` is a Deed.box."""
    if deed is not None:
        yield {"state": "deed"}, [deed]
    yield from _describe_sockets("listeners", listeners)
    yield from _describe_sockets("admin", admin)
    for part in _in_parts(health.items()):
        yield {"state": "health", "health": part}, []
    yield {"state": "whole"}, []


def _describe_sockets(kind: str, bound: BoundSlots) -> Iterator[Part]:
    items = list(bound.items())
    for start in range(0, len(items), MAX_SOCKETS_PER_MESSAGE):
        part = items[start : start + MAX_SOCKETS_PER_MESSAGE]
        names = [[slot, address.host, address.port] for (slot, address), _ in part]
        yield {"state": kind, "sockets": names}, [listener.sock for _, listener in part]


def _in_parts(items: Iterable[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    part: dict[str, Any] = {}
    size_bytes = 0
    for key, value in items:
        item_bytes = len(json.dumps([key, value]))
        if part and size_bytes + item_bytes > _HEALTH_BYTES:
            yield part
            part, size_bytes = {}, 0
        part[key] = value
        size_bytes += item_bytes
    if part:
        yield part
