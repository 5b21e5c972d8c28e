"""The samples of a series, summed up per work and peer."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from measure import Sample

Samples = Mapping[tuple[str, str], Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Median:
    """The samples of one work by one peer, summed up; see Sample for the units.

    ``spread``: (largest - smallest) / median of the CPU figure.
    """

    rate: float | None
    p50_us: float | None
    p99_us: float | None
    cpu_us: float | None
    user_us: float | None
    system_us: float | None
    softirq_us: float | None
    spread: float | None
    pss_kib: float | None
    connection_bytes: float | None
    connections: int
    errors: dict[str, int]


Medians = Mapping[tuple[str, str], Median]


def median_of(samples: Sequence[Sample]) -> Median:
    errors: dict[str, int] = {}
    for sample in samples:
        for kind, count in sample.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    cpu = [sample.cpu_us for sample in samples if sample.cpu_us is not None]
    middle = _median(cpu)
    return Median(
        rate=_median(sample.rate for sample in samples),
        p50_us=_median(sample.p50_us for sample in samples),
        p99_us=_median(sample.p99_us for sample in samples),
        cpu_us=middle,
        user_us=_median(sample.user_us for sample in samples),
        system_us=_median(sample.system_us for sample in samples),
        softirq_us=_median(sample.softirq_us for sample in samples),
        spread=(max(cpu) - min(cpu)) / middle if middle else None,
        pss_kib=_median(sample.pss_kib for sample in samples),
        connection_bytes=_median(sample.connection_bytes for sample in samples),
        connections=min((sample.requests for sample in samples), default=0),
        errors=errors,
    )


def medians_of(samples: Samples) -> dict[tuple[str, str], Median]:
    return {cell: median_of(series) for cell, series in samples.items()}


def ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
