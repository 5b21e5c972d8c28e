"""From counts of failures to suspicion: failures in a row as workers saw them, and their share within a window."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

BUCKETS = 10


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What workers counted of one upstream, ever, over all of them.

    Attributes:
        refused: connections that nobody accepted.
        failed: attempts that failed, those included.
        answered: responses that came whole and were no failure; only counted where the error rate is asked for.
        tripped: how often a worker saw so many failures in a row as are too many.
    """

    refused: int = 0
    failed: int = 0
    answered: int = 0
    tripped: int = 0

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.refused + other.refused,
            self.failed + other.failed,
            self.answered + other.answered,
            self.tripped + other.tripped,
        )

    def __sub__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            self.refused - other.refused,
            self.failed - other.failed,
            self.answered - other.answered,
            self.tripped - other.tripped,
        )

    def since(self, earlier: Outcomes) -> Outcomes:
        """Return what came after an earlier count. Counts never fall, except where somebody forgot them: that is 0."""
        return Outcomes(
            max(self.refused - earlier.refused, 0),
            max(self.failed - earlier.failed, 0),
            max(self.answered - earlier.answered, 0),
            max(self.tripped - earlier.tripped, 0),
        )


class ErrorRate:
    """The share of failures within a sliding window, in a tenth of its length as the step.

    What is older than the window counts no more; what is younger than nine tenths of it counts for sure.
    """

    __slots__ = ("_answered", "_buckets", "_failed", "_step_s")

    def __init__(self, window_s: float) -> None:
        self._step_s = window_s / BUCKETS
        self._buckets: deque[list[float]] = deque()  # [begin, failed, answered]
        self._failed = 0
        self._answered = 0

    def add(self, failed: int, answered: int, now_s: float) -> None:
        """Count what came in since the last time; ``now_s`` never goes back."""
        self._expire(now_s)
        if not failed and not answered:
            return
        if not self._buckets or now_s >= self._buckets[-1][0] + self._step_s:
            self._buckets.append([now_s, 0, 0])
        newest = self._buckets[-1]
        newest[1] += failed
        newest[2] += answered
        self._failed += failed
        self._answered += answered

    def is_above(self, share: float, least: int) -> bool:
        """Tell whether at least that share of at least so many requests failed."""
        total = self._failed + self._answered
        return total >= max(least, 1) and self._failed >= share * total and self._failed > 0

    def clear(self) -> None:
        """Forget all of it."""
        self._buckets.clear()
        self._failed = self._answered = 0

    def describe(self) -> str:
        return f"{self._failed} of {self._failed + self._answered} requests failed"

    def _expire(self, now_s: float) -> None:
        oldest_s = now_s - self._step_s * BUCKETS
        while self._buckets and self._buckets[0][0] <= oldest_s:
            _, failed, answered = self._buckets.popleft()
            self._failed -= int(failed)
            self._answered -= int(answered)
