"""Compares eviction policies by their hit ratios over synthetic traces; writes docs/eviction.png, prints the tables.

    PYTHONPATH=. python benchmarks/eviction.py

The seed is fixed: every run gives the same figures. It takes about a minute and a half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import matplotlib
from evictors import Belady, ClassicLfu, Evictor, Sieve, WTinyLfu, make_lru, make_s3fifo
from tables import table
from traces import KEYS, TRACES, Trace, sizes, zipf_with_scans

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SEED = 20_231_023
CAPACITIES = (KEYS // 100, KEYS // 10)
MEMORY_BYTES = (20_000_000, 100_000_000)
PNG = Path(__file__).parents[1] / "docs" / "eviction.png"
POLICIES: dict[str, Callable[[int, Trace], Evictor]] = {
    "LRU": lambda capacity, trace: make_lru(capacity),
    "classic LFU": lambda capacity, trace: ClassicLfu(capacity),
    "SIEVE": lambda capacity, trace: Sieve(capacity),
    "W-TinyLFU": lambda capacity, trace: WTinyLfu(capacity),
    "S3-FIFO": lambda capacity, trace: make_s3fifo(capacity),
    "Belady": Belady,
}
COLOURS = ("#8a94a0", "#c3c9cf", "#9db8a0", "#5b8db8", "#c8442e", "#30343a")
Ratios = dict[str, float]


def compare_counts(trace: Trace, capacity: int) -> Ratios:
    """Return the hit ratio of every policy where the number of keys is what is bounded."""
    ratios = {}
    for name, make in POLICIES.items():
        evictor = make(capacity, trace)
        ratios[name] = sum(evictor.ask(key, 1) for key in trace) / len(trace)
    return ratios


def compare_bytes(trace: Trace, max_bytes: int) -> dict[str, tuple[float, float]]:
    """Return (hits, bytes of hits) as shares of the requests and their bytes, for minato's two orders."""
    size_of = sizes(Random(SEED))
    asked = [(key, size_of(key)) for key in trace]
    total_bytes = sum(size for _, size in asked)
    shares = {}
    for name, make in {"LRU": make_lru, "S3-FIFO": make_s3fifo}.items():
        evictor = make(1 << 30, max_bytes)
        hit_sizes = [size for key, size in asked if evictor.ask(key, size)]
        shares[name] = (len(hit_sizes) / len(asked), sum(hit_sizes) / total_bytes)
    return shares


def draw(results: Mapping[int, Mapping[str, Ratios]]) -> None:
    """Write the PNG: a field per capacity, a group of bars per trace."""
    figure, axes = plt.subplots(len(results), 1, figsize=(13, 7), layout="constrained", sharex=True)
    for axis, (capacity, by_trace) in zip(axes, results.items(), strict=True):
        for index, (name, colour) in enumerate(zip(POLICIES, COLOURS, strict=True)):
            places = [at + (index - 2.5) * 0.14 for at in range(len(by_trace))]
            axis.bar(places, [ratios[name] for ratios in by_trace.values()], 0.13, color=colour, label=name)
        axis.set_title(f"room for {capacity / KEYS:.0%} of the keys", fontsize=10, loc="left")
        axis.set_ylabel("hit ratio", fontsize=9)
        axis.set_xticks(range(len(by_trace)), [title.replace(", ", ",\n") for title in by_trace], fontsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].legend(ncols=len(POLICIES), fontsize=8, frameon=False)
    figure.savefig(PNG, dpi=100)
    plt.close(figure)


def main() -> None:
    results: dict[int, dict[str, Ratios]] = {capacity: {} for capacity in CAPACITIES}
    for title, make in TRACES.items():
        trace = make(Random(SEED))
        for capacity in CAPACITIES:
            results[capacity][title] = compare_counts(trace, capacity)
    draw(results)
    for capacity, by_trace in results.items():
        rows = [(title, *(f"{ratios[name]:.3f}" for name in POLICIES)) for title, ratios in by_trace.items()]
        print(table([f"room for {capacity:,} of {KEYS:,} keys", *POLICIES], rows))
    trace = zipf_with_scans(Random(SEED), 0.9)
    rows = []
    for max_bytes in MEMORY_BYTES:
        for name, shares in compare_bytes(trace, max_bytes).items():
            rows.append((f"{name}, {max_bytes // 1_000_000} MB", *(f"{share:.3f}" for share in shares)))
    print(table(["Zipf 0.9 with scans, sizes of 0.5 KB to 16 MB", "hits", "bytes of hits"], rows))


if __name__ == "__main__":
    main()
