"""Which stored response goes first when room is needed: the interface, and least recently used first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from minato.caching.s3fifo import S3FifoOrder
from minato.caching.stored import StoredResponse
from minato.config.model import CacheKind


class EvictionOrder(Protocol):
    """The order in which stored responses are evicted."""

    @property
    def overhead_bytes(self) -> int:
        """What it holds besides what a stored response has counted for it already."""

    def admits(self, stored: StoredResponse, size_bytes: int) -> bool:
        """Tell whether a response of that size, not added yet, is worth what would have to go for it."""

    def add(self, stored: StoredResponse, *, is_known: bool = False) -> None:
        """Take in a response; ``is_known``: in the place of one that was stored until now, with the uses of that."""

    def touch(self, stored: StoredResponse) -> None:
        """Note one use of a response that was added."""

    def discard(self, stored: StoredResponse) -> None:
        """Take out a response that goes for another reason than want of room."""

    def replace(self, old: StoredResponse, new: StoredResponse) -> None:
        """Put a freshened response where the old one stood, as recently and as often used."""

    def evict(self, incoming_bytes: int) -> StoredResponse:
        """Take out the response that goes first and return it.

        Args:
            incoming_bytes: of what room is made for, and of all else that is just being stored.

        Raises:
            LookupError: where there is none.
        """

    def __len__(self) -> int: ...


class LruOrder:
    """Least recently used first.

    An OrderedDict, since a dict whose first keys were deleted has to be searched for the next one.
    """

    overhead_bytes = 0

    def __init__(self) -> None:
        self._by_use: OrderedDict[StoredResponse, None] = OrderedDict()

    def admits(self, stored: StoredResponse, size_bytes: int) -> bool:
        return True

    def add(self, stored: StoredResponse, *, is_known: bool = False) -> None:
        self._by_use[stored] = None

    def touch(self, stored: StoredResponse) -> None:
        stored.uses = 1
        self._by_use.move_to_end(stored)

    def discard(self, stored: StoredResponse) -> None:
        del self._by_use[stored]

    def replace(self, old: StoredResponse, new: StoredResponse) -> None:
        del self._by_use[old]
        self._by_use[new] = None

    def evict(self, incoming_bytes: int) -> StoredResponse:
        return self._by_use.popitem(last=False)[0]

    def __len__(self) -> int:
        return len(self._by_use)


def make_order(kind: CacheKind, *, capacity: int, max_memory_bytes: int) -> EvictionOrder:
    """Return an empty order of the configured kind for a store of those limits."""
    if kind is CacheKind.LFU:
        return S3FifoOrder(capacity=capacity, max_memory_bytes=max_memory_bytes)
    return LruOrder()
