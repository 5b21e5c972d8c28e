"""The caches that the comparison of eviction policies is made with, on traces whose outcome is known."""

from __future__ import annotations

from random import Random

import pytest
from evictors import Belady, ClassicLfu, Evictor, Sieve, WTinyLfu, make_lru, make_s3fifo
from traces import TRACES, Trace

CAPACITY = 50


def make_all(trace: Trace) -> dict[str, Evictor]:
    return {
        "lru": make_lru(CAPACITY),
        "lfu": ClassicLfu(CAPACITY),
        "sieve": Sieve(CAPACITY),
        "w-tinylfu": WTinyLfu(CAPACITY),
        "s3-fifo": make_s3fifo(CAPACITY),
        "belady": Belady(CAPACITY, trace),
    }


def count_hits(trace: Trace) -> dict[str, int]:
    return {name: sum(evictor.ask(key, 1) for key in trace) for name, evictor in make_all(trace).items()}


def test_what_fits_is_missed_once_alone() -> None:
    trace = [key for _ in range(5) for key in range(CAPACITY - 5)]
    hits = count_hits(trace)
    assert {name: hits[name] for name in ("lru", "lfu", "sieve", "s3-fifo", "belady")} == dict.fromkeys(
        ("lru", "lfu", "sieve", "s3-fifo", "belady"), 4 * (CAPACITY - 5)
    )


def test_lru_misses_all_of_a_loop_that_does_not_fit_and_belady_most_of_it_hits() -> None:
    trace = [at % (CAPACITY + 1) for at in range(2_000)]
    hits = count_hits(trace)
    assert hits["lru"] == 0
    assert hits["belady"] > 0.9 * 2_000


@pytest.mark.parametrize("title", ["Zipf 1.0", "Zipf 0.9, scans", "Zipf 0.9, shifting", "Zipf 0.9, drifting"])
def test_nobody_hits_more_than_who_knows_the_future_and_s3fifo_more_than_lru_on_scans(title: str) -> None:
    trace = TRACES[title](Random(7))[:30_000]
    hits = count_hits(trace)
    assert max(hits, key=lambda name: hits[name]) == "belady"
    if title in ("Zipf 1.0", "Zipf 0.9, scans"):
        assert hits["s3-fifo"] > 1.2 * hits["lru"]


def test_bytes_are_bounded_as_well() -> None:
    for evictor in (make_lru(10**6, 1_000), make_s3fifo(10**6, 1_000)):
        assert not evictor.ask(1, 2_000)
        assert not evictor.ask(1, 2_000)
        assert not evictor.ask(2, 90)
        assert evictor.ask(2, 90)
