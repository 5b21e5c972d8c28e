"""Which of the healthy upstreams gets the next request: round robin, least connections, the better of two."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol

from minato.config.model import BalancerKind, Service
from minato.decide.consistent_hash import ConsistentHash


class Rng(Protocol):
    """What the balancers need of ``random.Random``."""

    def random(self) -> float:
        """Return a number from 0 up to, not including, 1."""
        ...


class Balancer(Protocol):
    """One service's balancer in one worker."""

    def pick(self, candidates: Sequence[int], active: Callable[[int], int], rng: Rng, key: bytes = b"") -> int:
        """Choose an upstream.

        Args:
            candidates: positions in ``service.upstreams`` that may be chosen, each once; not empty.
            active: exchanges in flight of the upstream at a position, over all workers.
            rng: the source of chance.
            key: of the request, for ConsistentHash.

        Returns:
            One of the candidates.
        """
        ...


class RoundRobin:
    """Smooth weighted round robin, as nginx does it: weights 5, 1, 1 give a a b a c a a, never five a in a row.

    At each pick every candidate gains its weight, the one that holds most is picked and pays what all gained. So among
    the same candidates each gets its exact share in every ``sum(weights)`` picks. An upstream that is no candidate
    neither gains nor pays: it comes back with what it had, not with a claim to all it missed.
    """

    def __init__(self, weights: Sequence[int], offset: int = 0) -> None:
        self._weights = list(weights)
        self._credits = [0] * len(weights)
        self._advance(offset)

    def pick(self, candidates: Sequence[int], active: Callable[[int], int], rng: Rng, key: bytes = b"") -> int:
        del active, rng, key
        return self._pick(candidates)

    def _pick(self, candidates: Sequence[int]) -> int:
        weights = self._weights
        credits_ = self._credits
        total = 0
        best = candidates[0]
        best_credit = None
        for position in candidates:
            weight = weights[position]
            total += weight
            credit = credits_[position] = credits_[position] + weight
            if best_credit is None or credit > best_credit:
                best = position
                best_credit = credit
        credits_[best] -= total
        return best

    def _advance(self, offset: int) -> None:
        """Begin ``offset`` picks further on, so that workers do not all send their first request to the same one."""
        everyone = range(len(self._weights))
        for _ in range(offset % sum(self._weights)):
            self._pick(everyone)


class LeastConnections:
    """The upstream with the fewest exchanges in flight for its weight, the new one counted; ties are drawn by lot."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = list(weights)

    def pick(self, candidates: Sequence[int], active: Callable[[int], int], rng: Rng, key: bytes = b"") -> int:
        del key
        weights = self._weights
        ties = [candidates[0]]
        least_load = active(candidates[0]) + 1
        least_weight = weights[candidates[0]]
        for position in candidates[1:]:
            load = active(position) + 1
            weight = weights[position]
            # load / weight < least_load / least_weight without a division: exact, so that equal loads are ties.
            order = load * least_weight - least_load * weight
            if order < 0:
                ties = [position]
                least_load, least_weight = load, weight
            elif order == 0:
                ties.append(position)
        return ties[0] if len(ties) == 1 else ties[int(rng.random() * len(ties))]


class PowerOfTwo:
    """Of two upstreams drawn by lot the one with fewer exchanges in flight for its weight.

    It counts two, however many there are, and workers that see the same counts pick differently: no herd runs to the
    one that was least busy a moment ago. Both are drawn by weight, and a tie goes to the first. So idle upstreams get
    their share, too, and not the heaviest all.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = list(weights)

    def pick(self, candidates: Sequence[int], active: Callable[[int], int], rng: Rng, key: bytes = b"") -> int:
        del key
        weights = self._weights
        sums = list(accumulate([weights[position] for position in candidates]))
        at = bisect_right(sums, int(rng.random() * sums[-1]))
        first = candidates[at]
        if len(candidates) == 1:
            return first
        # The second is drawn from what is left when the first one's part is cut out.
        weight = weights[first]
        drawn = int(rng.random() * (sums[-1] - weight))
        second = candidates[bisect_right(sums, drawn if drawn < sums[at] - weight else drawn + weight)]
        return first if active(first) * weights[second] <= active(second) * weight else second


def make_balancer(service: Service, offset: int) -> Balancer:
    """Make the balancer that a service asks for.

    Args:
        service: the service; its upstreams' weights are taken.
        offset: the worker's slot, so that workers do not march in step.
    """
    weights = [upstream.weight for upstream in service.upstreams]
    if service.balancer is BalancerKind.LEAST_CONNECTIONS:
        return LeastConnections(weights)
    if service.balancer is BalancerKind.POWER_OF_TWO:
        return PowerOfTwo(weights)
    if service.balancer is BalancerKind.CONSISTENT_HASH:
        identities = [upstream.identity for upstream in service.upstreams]
        return ConsistentHash(identities, weights, service.hash.load_factor)
    return RoundRobin(weights, offset)
