"""Synthetic traces of requests: which key is asked for in which order. The same seed gives the same trace."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from random import Random

KEYS = 10_000
REQUESTS = 200_000
Trace = list[int]


def zipf(rng: Random, skew: float, count: int = REQUESTS) -> Trace:
    """Keys whose popularity falls with the power ``skew`` of their rank."""
    weights = list(accumulate(1 / rank**skew for rank in range(1, KEYS + 1)))
    return rng.choices(range(KEYS), cum_weights=weights, k=count)


def zipf_with_scans(rng: Random, skew: float) -> Trace:
    """Every fifth part is a scan: a crawler asks for 2,000 keys in turn that nobody else ever wants."""
    trace: Trace = []
    fresh = KEYS
    while len(trace) < REQUESTS:
        trace += zipf(rng, skew, 8_000)
        trace += range(fresh, fresh + 2_000)
        fresh += 2_000
    return trace


def with_passers_by(rng: Random, skew: float) -> Trace:
    """Four in ten requests are for a key that is asked for once alone, spread evenly."""
    fresh = iter(range(KEYS, KEYS + REQUESTS))
    return [next(fresh) if rng.random() < 0.4 else key for key in zipf(rng, skew)]


def shifting(rng: Random, skew: float) -> Trace:
    """Ten times in the trace other keys are the popular ones: yesterday's news."""
    part = REQUESTS // 10
    return [(key * 7_919 + turn * 3_571) % KEYS for turn in range(10) for key in zipf(rng, skew, part)]


def drifting(rng: Random, skew: float) -> Trace:
    """The popular keys move on by one every 20 requests: a newsroom that publishes all day."""
    return [(key + at // 20) % (2 * KEYS) for at, key in enumerate(zipf(rng, skew))]


def loop(rng: Random) -> Trace:
    """1,500 keys in turn, again and again: a playlist, a health check over all products."""
    return [at % 1_500 for at in range(REQUESTS // 2)]


def loop_in_zipf(rng: Random, skew: float) -> Trace:
    """A third of the requests are a loop over 3,000 keys of its own, the others by popularity."""
    at = 0
    trace: Trace = []
    for key in zipf(rng, skew):
        if rng.random() < 1 / 3:
            trace.append(KEYS + at % 3_000)
            at += 1
        else:
            trace.append(key)
    return trace


TRACES: dict[str, Callable[[Random], Trace]] = {
    "Zipf 0.6": lambda rng: zipf(rng, 0.6),
    "Zipf 0.8": lambda rng: zipf(rng, 0.8),
    "Zipf 1.0": lambda rng: zipf(rng, 1.0),
    "Zipf 1.2": lambda rng: zipf(rng, 1.2),
    "Zipf 0.9, scans": lambda rng: zipf_with_scans(rng, 0.9),
    "Zipf 0.9, 40 % asked for once": lambda rng: with_passers_by(rng, 0.9),
    "Zipf 0.9, shifting": lambda rng: shifting(rng, 0.9),
    "Zipf 0.9, drifting": lambda rng: drifting(rng, 0.9),
    "loop": loop,
    "loop in Zipf 0.9": lambda rng: loop_in_zipf(rng, 0.9),
}


def sizes(rng: Random) -> Callable[[int], int]:
    """Return a size for each key: median 8 KB, one in a hundred above 500 KB."""
    known: dict[int, int] = {}

    def size_of(key: int) -> int:
        if key not in known:
            known[key] = min(16_000_000, int(rng.lognormvariate(9.0, 1.8)) + 500)
        return known[key]

    return size_of
