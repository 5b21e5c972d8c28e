"""Which stored response goes first when room is needed: least recently or least frequently used, both O(1)."""

from __future__ import annotations

from typing import Protocol

from minato.caching.stored import StoredResponse
from minato.config.model import CacheKind


class EvictionOrder(Protocol):
    """The order in which stored responses are evicted."""

    def add(self, stored: StoredResponse) -> None: ...

    def touch(self, stored: StoredResponse) -> None:
        """Note one use of a response that was added."""

    def discard(self, stored: StoredResponse) -> None: ...

    def replace(self, old: StoredResponse, new: StoredResponse) -> None:
        """Put a freshened response where the old one stood, as recently and as often used."""

    def victim(self) -> StoredResponse:
        """Return the response to evict next, without removing it.

        Raises:
            LookupError: where there is none.
        """

    def __len__(self) -> int: ...


class LruOrder:
    """Least recently used first: a dict keeps its keys in the order of their last use."""

    def __init__(self) -> None:
        self._by_use: dict[StoredResponse, None] = {}

    def add(self, stored: StoredResponse) -> None:
        self._by_use[stored] = None

    def touch(self, stored: StoredResponse) -> None:
        del self._by_use[stored]
        self._by_use[stored] = None

    def discard(self, stored: StoredResponse) -> None:
        del self._by_use[stored]

    def replace(self, old: StoredResponse, new: StoredResponse) -> None:
        del self._by_use[old]
        self._by_use[new] = None

    def victim(self) -> StoredResponse:
        for stored in self._by_use:
            return stored
        raise LookupError("nothing is stored")

    def __len__(self) -> int:
        return len(self._by_use)


class _Bucket:
    """The responses of one number of uses, least recently used first; buckets are chained by that number."""

    __slots__ = ("fewer", "members", "more", "uses")

    def __init__(self, uses: int) -> None:
        self.uses = uses
        self.members: dict[StoredResponse, None] = {}
        self.fewer = self
        self.more = self


class LfuOrder:
    """Least frequently used first, among those the least recently used.

    Buckets form a ring in ascending order of uses, with a bucket of 0 uses that is always empty as its anchor.
    """

    def __init__(self) -> None:
        self._anchor = _Bucket(0)
        self._buckets: dict[StoredResponse, _Bucket] = {}

    def add(self, stored: StoredResponse) -> None:
        self._enter(stored, 1, self._anchor)

    def touch(self, stored: StoredResponse) -> None:
        bucket = self._buckets[stored]
        del bucket.members[stored]
        self._enter(stored, bucket.uses + 1, bucket)
        self._unlink_if_empty(bucket)

    def discard(self, stored: StoredResponse) -> None:
        bucket = self._buckets.pop(stored)
        del bucket.members[stored]
        self._unlink_if_empty(bucket)

    def replace(self, old: StoredResponse, new: StoredResponse) -> None:
        bucket = self._buckets.pop(old)
        del bucket.members[old]
        bucket.members[new] = None
        self._buckets[new] = bucket

    def victim(self) -> StoredResponse:
        for stored in self._anchor.more.members:
            return stored
        raise LookupError("nothing is stored")

    def __len__(self) -> int:
        return len(self._buckets)

    def _enter(self, stored: StoredResponse, uses: int, after: _Bucket) -> None:
        bucket = after.more
        if bucket.uses != uses:
            bucket = _Bucket(uses)
            bucket.fewer, bucket.more = after, after.more
            after.more.fewer = bucket
            after.more = bucket
        bucket.members[stored] = None
        self._buckets[stored] = bucket

    def _unlink_if_empty(self, bucket: _Bucket) -> None:
        if not bucket.members:
            bucket.fewer.more = bucket.more
            bucket.more.fewer = bucket.fewer


def make_order(kind: CacheKind) -> EvictionOrder:
    """Return an empty order of the configured kind."""
    return LfuOrder() if kind is CacheKind.LFU else LruOrder()
