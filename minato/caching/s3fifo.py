"""Eviction by frequency that resists scans: S3-FIFO; docs/eviction.md shows it beside others.

Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction, SOSP 2023. What is stored begins in a
small queue, on probation; what was used there goes on to the main queue, the rest, most of any scan, goes soon. What
comes back soon after that starts in the main queue, from which goes first what was not used since it was last looked
at. A use counts up two bits and moves nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from minato.caching.ghosts import Ghosts
from minato.caching.stored import StoredResponse

_MAX_USES = 3
_PROVEN_USES = 1  # the paper asks for two: no better against scans, worse where popularity moves (docs/eviction.md)
_SHARE = 10  # a tenth of the cache is for those on probation
_MAX_STEPS = 64  # looked at for one eviction: where all were just used, no client waits for the whole queue


class S3FifoOrder:
    """Both queues bounded by their share of the count or of the bytes, whichever is exceeded."""

    def __init__(self, *, capacity: int, max_memory_bytes: int) -> None:
        self._small_count = max(1, capacity // _SHARE)
        self._small_bytes = max_memory_bytes // _SHARE
        self._small: OrderedDict[StoredResponse, None] = OrderedDict()
        self._main: OrderedDict[StoredResponse, None] = OrderedDict()
        self._ghosts = Ghosts()
        self._used_small_bytes = 0

    @property
    def overhead_bytes(self) -> int:
        return self._ghosts.size_bytes

    def admits(self, stored: StoredResponse, size_bytes: int) -> bool:
        """A response that outgrows all of probation has to be asked for twice before others go for it."""
        if size_bytes <= self._small_bytes or self._ghosts.has(stored):
            return True
        self._ghosts.add(stored, len(self))
        return False

    def add(self, stored: StoredResponse, *, is_known: bool = False) -> None:
        if self._ghosts.take(stored) or is_known:
            self._main[stored] = None
        else:
            self._small[stored] = None
            self._used_small_bytes += stored.size_bytes

    def touch(self, stored: StoredResponse) -> None:
        if stored.uses < _MAX_USES:
            stored.uses += 1

    def discard(self, stored: StoredResponse) -> None:
        if stored in self._small:
            del self._small[stored]
            self._used_small_bytes -= stored.size_bytes
        else:
            del self._main[stored]

    def replace(self, old: StoredResponse, new: StoredResponse) -> None:
        """In the same queue, behind the others of it."""
        new.uses = old.uses
        if old in self._small:
            del self._small[old]
            self._small[new] = None
            self._used_small_bytes += new.size_bytes - old.size_bytes
        else:
            del self._main[old]
            self._main[new] = None

    def evict(self, incoming_bytes: int) -> StoredResponse:
        for _ in range(_MAX_STEPS):
            if self._is_probation_full(incoming_bytes):
                stored = self._pop_small()
                if stored.uses < _PROVEN_USES:
                    self._ghosts.add(stored, len(self))
                    return stored
                self._main[stored] = None
            else:
                stored = next(iter(self._main))
                if not stored.uses:
                    break
                stored.uses -= 1
                self._main.move_to_end(stored)
        if not self._main:
            return self._pop_small()
        return self._main.popitem(last=False)[0]

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def _is_probation_full(self, incoming_bytes: int) -> bool:
        if not self._main:
            return True
        if not self._small:
            return False
        return len(self._small) >= self._small_count or self._used_small_bytes + incoming_bytes >= self._small_bytes

    def _pop_small(self) -> StoredResponse:
        stored, _ = self._small.popitem(last=False)
        self._used_small_bytes -= stored.size_bytes
        return stored
