"""Consistent hashing: the same key to the same upstream, in every worker, after every restart and on every machine."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

_BUCKETS: Final = 16_384
_KEPT: Final = 8  # upstreams of each bucket that need not be worked out again


class ConsistentHash:
    """Weighted rendezvous hashing over a fixed number of buckets, perhaps with bounded loads.

    A key falls into a bucket, and each bucket has an order of the upstreams: each draws a score from its own name and
    the bucket's, an exponentially distributed one divided by its weight, and the lowest comes first. So each is first
    in its share of the buckets. The first candidate in the order gets the request. Since no score depends on another
    upstream:

    - one that goes down leaves its buckets to all others by weight, and no other bucket moves; when it comes back, it
      gets the same ones back. One that is added takes its share evenly from all, and so does one that gets more weight;
    - the order of the config makes no difference, and whoever knows the same names comes to the same result.

    It is not the ring that nginx and HAProxy use: there, the shares of ten upstreams with 160 points each have a
    standard deviation of 7 %, big weights want much memory, and what one that is full cannot take falls on a few
    neighbours. Here it is 2.5 %, in 256 KiB. The order of a bucket is worked out when it is first asked for.

    Bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018): an upstream with
    ``load_factor`` times its share of all that is in flight, the new request counted, is passed over. There is always
    one with less.
    """

    __slots__ = ("_load_factor", "_names", "_orders", "_weights", "_width")

    def __init__(self, identities: Sequence[str], weights: Sequence[int], load_factor: float = 0.0) -> None:
        """Make the balancer of upstreams with those names, which are all different, and weights.

        Args:
            identities: what the upstreams are known by, wherever they stand in the config.
            weights: of each.
            load_factor: the bound, at least 1; 0: none.
        """
        self._names = [blake2b(identity.encode(), digest_size=32).digest() for identity in identities]
        self._weights = list(weights)
        self._load_factor = load_factor
        self._width = min(len(self._names), _KEPT)
        # Of each bucket the first few in its order; one who is nobody, where that was not worked out yet.
        count = len(self._names)
        self._orders = array("H" if count < 1 << 16 else "I", [count]) * (_BUCKETS * self._width)

    def pick(self, candidates: Sequence[int], active: Callable[[int], int], rng: object, key: bytes = b"") -> int:
        del rng
        bucket = int.from_bytes(blake2b(key, digest_size=8).digest(), "big") % _BUCKETS
        if self._load_factor:
            return self._pick_bounded(candidates, active, bucket)
        first = self._orders[bucket * self._width]
        if first in candidates:
            return first
        return next(position for position in self._ranked(bucket) if position in candidates)

    def _pick_bounded(self, candidates: Sequence[int], active: Callable[[int], int], bucket: int) -> int:
        weights = self._weights
        loads = {position: active(position) for position in candidates}
        # An integer is below x exactly if, one more counted, it is not above x rounded up.
        bound = self._load_factor * (sum(loads.values()) + 1) / sum([weights[position] for position in candidates])
        return next(
            position
            for position in self._ranked(bucket)
            if position in loads and loads[position] < bound * weights[position]
        )

    def _ranked(self, bucket: int) -> Iterator[int]:
        """Yield all upstreams in the order of a bucket."""
        width, orders = self._width, self._orders
        at = bucket * width
        if orders[at] == len(self._names):
            orders[at : at + width] = array(orders.typecode, self._rank(bucket)[:width])
        yield from orders[at : at + width]
        if width < len(self._names):
            yield from self._rank(bucket)[width:]

    def _rank(self, bucket: int) -> list[int]:
        place = bucket.to_bytes(2, "big")
        scores = []
        for position, name in enumerate(self._names):
            drawn = int.from_bytes(blake2b(place, digest_size=8, key=name).digest(), "big")
            scores.append((-math.log((drawn + 0.5) / 2**64) / self._weights[position], name, position))
        scores.sort()
        return [position for _, _, position in scores]
