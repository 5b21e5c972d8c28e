"""Addresses of upstreams as sockets take them; nobody is asked here."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """One socket address of an upstream.

    Attributes:
        family: ``socket.AF_INET`` or ``socket.AF_INET6``.
        sockaddr: what ``socket.connect`` takes for that family.
    """

    family: int
    sockaddr: tuple[Any, ...]

    @property
    def host(self) -> str:
        """The IP address, with the number of its scope where it has one."""
        scope = self.sockaddr[3] if self.family == socket.AF_INET6 else 0
        return f"{self.sockaddr[0]}%{scope}" if scope else str(self.sockaddr[0])


def resolve_numeric(host: str, port: int) -> ResolvedAddress | None:
    """Return the address of a host that is an IP address already; None for a name. Never asks anybody."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return ResolvedAddress(socket.AF_INET, (host, port))
    address, _, scope = host.partition("%")
    return ResolvedAddress(socket.AF_INET6, (address, port, 0, int(scope) if scope.isdigit() else 0))


def with_port(addresses: Iterable[str], port: int) -> tuple[ResolvedAddress, ...]:
    """Return IP addresses as socket addresses, in their order."""
    return tuple(filter(None, [resolve_numeric(address, port) for address in addresses]))
