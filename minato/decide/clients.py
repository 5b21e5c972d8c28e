"""How many connections each client has open, so that none takes them all; no I/O, it only counts."""

from __future__ import annotations

from ipaddress import ip_address

_PREFIX_BYTES = 8


class ClientCap:
    """Counts what is open by client; a client is an IPv4 address, or the /64 network of an IPv6 one.

    A /64 is the least that a host of IPv6 gets, and its owner may use any address in it. What nobody has open takes no
    memory, so there are at most as many counts as there are connections.
    """

    __slots__ = ("_counts", "_limit")

    def __init__(self, limit: int) -> None:
        """``limit``: for each client; 0: none, and nothing is counted."""
        self._limit = limit
        self._counts: dict[str | bytes, int] = {}

    def __repr__(self) -> str:
        return f"<ClientCap {sum(self._counts.values())} of {len(self._counts)} clients, at most {self._limit} each>"

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return self._limit > 0

    def enter(self, address: str) -> bool:
        """Count one more of a client unless it has as many as it may; tell whether it was counted."""
        if not self._limit:
            return True
        key = _client_of(address)
        count = self._counts.get(key, 0)
        if count >= self._limit:
            return False
        self._counts[key] = count + 1
        return True

    def leave(self, address: str) -> None:
        """One that was counted is over."""
        if not self._limit:
            return
        key = _client_of(address)
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]


def _client_of(address: str) -> str | bytes:
    if ":" not in address:
        return address
    return ip_address(address.partition("%")[0]).packed[:_PREFIX_BYTES]
