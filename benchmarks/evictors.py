"""Caches that do nothing but evict, to compare their hit ratios: minato's own orders, and what else was to be had."""

from __future__ import annotations

import heapq
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from minato.caching.order import EvictionOrder, LruOrder
from minato.caching.s3fifo import S3FifoOrder


class Evictor(Protocol):
    """A cache of keys."""

    def ask(self, key: int, size_bytes: int) -> bool:
        """Return whether the key is there; it is brought in where it is not."""


@dataclass(slots=True, eq=False)
class _Stored:
    """As much of a stored response as an order looks at."""

    key: int
    size_bytes: int
    names: tuple[()] = ()
    values: tuple[()] = ()
    uses: int = 0


class Ours:
    """One of minato's orders under a count and a byte limit, used as the store uses it."""

    def __init__(self, order: EvictionOrder, capacity: int, max_bytes: int) -> None:
        self._order = order
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._by_key: dict[int, _Stored] = {}

    def ask(self, key: int, size_bytes: int) -> bool:
        stored = self._by_key.get(key)
        if stored is not None:
            self._order.touch(stored)
            return True
        stored = _Stored(key, size_bytes)
        if self._used_bytes + size_bytes > self._max_bytes and not self._order.admits(stored, size_bytes):
            return False
        if size_bytes > self._max_bytes:
            return False
        while len(self._by_key) >= self._capacity or self._used_bytes + size_bytes > self._max_bytes:
            gone = self._order.evict(size_bytes)
            self._used_bytes -= gone.size_bytes
            del self._by_key[gone.key]
        self._by_key[key] = stored
        self._used_bytes += size_bytes
        self._order.add(stored)
        return False


class ClassicLfu:
    """Least frequently used first, among those the least recently used: minato's LFU before S3-FIFO."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._uses: dict[int, int] = {}
        self._buckets: dict[int, OrderedDict[int, None]] = {}
        self._fewest = 1

    def ask(self, key: int, size_bytes: int) -> bool:
        uses = self._uses.get(key, 0)
        if uses:
            bucket = self._buckets[uses]
            del bucket[key]
            if not bucket:
                del self._buckets[uses]
                self._fewest += uses == self._fewest
        else:
            self._make_room()
            self._fewest = 1
        self._uses[key] = uses + 1
        self._buckets.setdefault(uses + 1, OrderedDict())[key] = None
        return uses > 0

    def _make_room(self) -> None:
        if len(self._uses) >= self._capacity:
            bucket = self._buckets[self._fewest]
            key, _ = bucket.popitem(last=False)
            if not bucket:
                del self._buckets[self._fewest]
            del self._uses[key]


class _Sketch:
    """A count-min sketch of four rows, halved after ten counts for every place in the cache."""

    def __init__(self, capacity: int) -> None:
        self._mask = (1 << max(6, (capacity * 4).bit_length())) - 1
        self._rows = [array("B", bytes(self._mask + 1)) for _ in range(4)]
        self._left = self._period = 10 * capacity

    def add(self, key: int) -> None:
        for row, slot in zip(self._rows, self._slots(key), strict=True):
            if row[slot] < 15:
                row[slot] += 1
        self._left -= 1
        if not self._left:
            self._left = self._period // 2
            self._rows = [array("B", [count >> 1 for count in row]) for row in self._rows]

    def count(self, key: int) -> int:
        return min(row[slot] for row, slot in zip(self._rows, self._slots(key), strict=True))

    def _slots(self, key: int) -> list[int]:
        mixed = (key + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        return [(mixed >> shift ^ mixed >> 33) & self._mask for shift in (0, 11, 22, 31)]


class WTinyLfu:
    """A window of 1 % in front of a segmented LRU (20 % on probation); a sketch decides between their two victims."""

    def __init__(self, capacity: int) -> None:
        self._window_count = max(1, capacity // 100)
        self._main_count = capacity - self._window_count
        self._protected_count = self._main_count * 8 // 10
        self._window: OrderedDict[int, None] = OrderedDict()
        self._probation: OrderedDict[int, None] = OrderedDict()
        self._protected: OrderedDict[int, None] = OrderedDict()
        self._sketch = _Sketch(capacity)

    def ask(self, key: int, size_bytes: int) -> bool:
        self._sketch.add(key)
        if key in self._window:
            self._window.move_to_end(key)
            return True
        if key in self._protected:
            self._protected.move_to_end(key)
            return True
        if key in self._probation:
            self._promote(key)
            return True
        self._window[key] = None
        if len(self._window) > self._window_count:
            self._admit(self._window.popitem(last=False)[0])
        return False

    def _promote(self, key: int) -> None:
        del self._probation[key]
        self._protected[key] = None
        if len(self._protected) > self._protected_count:
            self._probation[self._protected.popitem(last=False)[0]] = None

    def _admit(self, candidate: int) -> None:
        if len(self._probation) + len(self._protected) >= self._main_count:
            queue = self._probation or self._protected
            victim = next(iter(queue))
            if self._sketch.count(candidate) <= self._sketch.count(victim):
                return
            del queue[victim]
        self._probation[candidate] = None


class Sieve:
    """One FIFO with a hand that spares what was used since it came by last (NSDI 2024)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used: dict[int, bool] = {}
        self._queue: list[int] = []
        self._hand = 0

    def ask(self, key: int, size_bytes: int) -> bool:
        if key in self._used:
            self._used[key] = True
            return True
        if len(self._queue) >= self._capacity:
            self._evict()
        self._queue.append(key)
        self._used[key] = False
        return False

    def _evict(self) -> None:
        while self._used[self._queue[self._hand]]:
            self._used[self._queue[self._hand]] = False
            self._hand = (self._hand + 1) % len(self._queue)
        del self._used[self._queue.pop(self._hand)]
        self._hand %= max(1, len(self._queue))


class Belady:
    """Evicts what is asked for last of all, which takes knowing the future: no cache of whole objects hits more."""

    def __init__(self, capacity: int, trace: Sequence[int]) -> None:
        self._capacity = capacity
        self._next = _next_uses(trace)
        self._at = 0
        self._due: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def ask(self, key: int, size_bytes: int) -> bool:
        due = self._next[self._at]
        self._at += 1
        is_hit = key in self._due
        if not is_hit and len(self._due) >= self._capacity:
            self._evict()
        self._due[key] = due
        heapq.heappush(self._heap, (-due, key))
        return is_hit

    def _evict(self) -> None:
        while True:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == -due:
                del self._due[key]
                return


def _next_uses(trace: Sequence[int]) -> list[int]:
    after: dict[int, int] = {}
    found = [0] * len(trace)
    for at in range(len(trace) - 1, -1, -1):
        found[at] = after.get(trace[at], len(trace) + at)
        after[trace[at]] = at
    return found


def make_lru(capacity: int, max_bytes: int = 1 << 60) -> Ours:
    return Ours(LruOrder(), capacity, max_bytes)


def make_s3fifo(capacity: int, max_bytes: int = 1 << 60) -> Ours:
    return Ours(S3FifoOrder(capacity=capacity, max_memory_bytes=max_bytes), capacity, max_bytes)
