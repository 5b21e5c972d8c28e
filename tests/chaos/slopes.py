"""Whether a series is flat: a line through the medians of whole cycles, and the floors of the first and last ones.

A reload starts with empty caches and two generations for a moment, so that memory is a saw with one tooth
between two reloads. Only whole teeth can be compared.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SLOPE_PERCENT_PER_MIN = 1.0
_LEAST_CYCLES = 3
_SURE = 3  # standard errors


@dataclass(frozen=True, slots=True)
class Trend:
    """Attributes:
    mean: of the whole series.
    slope_percent_per_min: of the line through the cycles' medians, relative to the mean.
    error_percent_per_min: standard error of that; infinite for fewer than three cycles.
    first_floor, last_floor: median of the cycles' minima, in the first and in the last third.
    """

    mean: float
    slope_percent_per_min: float
    error_percent_per_min: float
    first_floor: float
    last_floor: float


def fit_trend(times_s: Sequence[float], values: Sequence[float], cycle_s: float, warm_up_s: float) -> Trend:
    """Fit a trend to samples in time order.

    Args:
        cycle_s: the length of a tooth of the saw.
        warm_up_s: how much of the beginning does not count.

    Raises:
        ValueError: there are fewer than three whole cycles after the warm-up.
    """
    start_s = times_s[0] + warm_up_s
    cycles: dict[int, list[float]] = defaultdict(list)
    for time_s, value in zip(times_s, values, strict=True):
        if time_s >= start_s:
            cycles[int((time_s - start_s) // cycle_s)].append(value)
    whole = [cycles[number] for number in sorted(cycles)[: int((times_s[-1] - start_s) // cycle_s)]]
    if len(whole) < _LEAST_CYCLES:
        raise ValueError(f"{len(whole)} whole cycles are too few to see a slope")
    # Medians, so that it does not matter for how long two generations happened to stand side by side.
    medians = [statistics.median(cycle) for cycle in whole]
    mean = statistics.fmean(value for cycle in whole for value in cycle)
    slope, error = _line(medians)
    percent_per_min = 100 / mean * 60 / cycle_s if mean else 0.0
    floors = [min(cycle) for cycle in whole]
    third = max(len(floors) // 3, 1)
    return Trend(
        mean=mean,
        slope_percent_per_min=slope * percent_per_min,
        error_percent_per_min=error * percent_per_min if mean else 0.0,
        first_floor=statistics.median(floors[:third]),
        last_floor=statistics.median(floors[-third:]),
    )


def _line(values: Sequence[float]) -> tuple[float, float]:
    """Return the least-squares slope per step, and its standard error."""
    count = len(values)
    middle, mean = (count - 1) / 2, statistics.fmean(values)
    spread = sum((step - middle) ** 2 for step in range(count))
    slope = sum((step - middle) * (value - mean) for step, value in enumerate(values)) / spread
    rest = sum((value - mean - slope * (step - middle)) ** 2 for step, value in enumerate(values))
    error = math.sqrt(rest / (count - 2) / spread) if count > 2 else math.inf
    return slope, error


def grows_steadily(trend: Trend) -> bool:
    """Whether a series that jitters rises by more than 1 % of its mean a minute, and not by chance."""
    slope = trend.slope_percent_per_min
    return slope > MAX_SLOPE_PERCENT_PER_MIN and slope > _SURE * trend.error_percent_per_min


def is_unclear(trend: Trend) -> bool:
    """Whether the samples are too few to tell such a rise from chance."""
    return _SURE * trend.error_percent_per_min > 2 * MAX_SLOPE_PERCENT_PER_MIN


def has_risen(trend: Trend) -> bool:
    """Whether there are more of things that are never there by chance, at the lowest of a cycle, than before."""
    return trend.last_floor > trend.first_floor
