"""The retry budget of one worker: decide.budget with the worker's clock and counters."""

from __future__ import annotations

import time

from minato.config.model import RetryBudgetConfig
from minato.decide.budget import RetryBudget
from minato.shared.board import Counter
from minato.shared.row import WorkerRow


class Retries:
    """Asked when an attempt failed. Nothing is counted for it that is not counted anyway."""

    __slots__ = ("_budget", "_row")

    def __init__(self, config: RetryBudgetConfig, row: WorkerRow) -> None:
        self._row = row
        self._budget = RetryBudget(config.share, config.min_per_s, time.monotonic(), self._requests())

    def __repr__(self) -> str:
        return f"<Retries {self._budget!r}>"

    def refill(self) -> None:
        """Take in the traffic since the last time; each second."""
        self._budget.refill(time.monotonic(), self._requests())

    def spend(self) -> bool:
        """Take one retry from the budget; tell whether there was one. That there was none is counted."""
        if self._budget.spend(time.monotonic(), self._requests()):
            return True
        self._row.add(Counter.RETRIES_DENIED)
        return False

    def give_back(self) -> None:
        """There was nobody to ask once more."""
        self._budget.give_back()

    def _requests(self) -> int:
        """Return the requests so far that were not answered by the cache alone."""
        get = self._row.get
        return get(Counter.REQUESTS) - get(Counter.CACHE_HITS) - get(Counter.CACHE_COLLAPSED)
