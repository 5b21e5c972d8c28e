"""What a worker notes of how attempts with upstreams ended: failures in a row, and counts for the master to judge.

A failure is what the upstream did: no connection, a reset, rubbish, no response in time, a status that the config calls
a failure. What a client did is none. Nothing is noted of responses as long as nothing failed: the row that counts them
is replaced by one that tells (`ObservedRow`) only while there is a failure that a success would make up for. So passive
health costs an ordinary request nothing; with ``error_rate`` or ``statuses``, which need every response, half a
microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from minato.config.model import PassiveHealthConfig
from minato.net.loop import Loop
from minato.shared.row import ObservedRow, WorkerRow

_FIRST_ERROR: Final = 400
_PAST_LAST: Final = 600


class Attempts:
    """One worker's notes, per upstream column of the board.

    Attributes:
        is_on: whether failures are of any interest.
        answered: to be called with upstream and status of each response of which the row does not hear; None while
            that is of no interest.
    """

    def __init__(
        self,
        config: PassiveHealthConfig,
        row: WorkerRow,
        loop: Loop,
        put_row: Callable[[WorkerRow], None],
        wake_health: Callable[[], None],
    ) -> None:
        """Begin without a failure.

        Args:
            config: what is a failure, and how many in a row are too many.
            row: the worker's.
            loop: whose clock tells failures in a row from those far apart.
            put_row: is given what is to count what was forwarded from now on: the row, or one that tells us.
            wake_health: tells the health checker that there is something to read.
        """
        self.is_on = config.is_on
        self.answered: Callable[[int, int], None] | None = None
        self._most = config.consecutive
        self._window_s = config.window_s
        self._row = row
        self._observed = ObservedRow(row, self._note_answer)
        self._loop = loop
        self._put_row = put_row
        self._wake_health = wake_health
        self._counts_all = self.is_on and config.error_rate > 0
        self._failures = frozenset(
            status
            for low, high in config.statuses
            for status in range(max(low, _FIRST_ERROR), min(high + 1, _PAST_LAST))
        )
        self._needs_all = self._counts_all or (self.is_on and bool(self._failures))
        self._runs: dict[int, tuple[int, float]] = {}  # failures in a row, and when the latest was
        self._observe()

    def failed(self, upstream: int) -> None:
        """An attempt failed, and it was the upstream's fault."""
        if not self.is_on:
            return
        self._row.count_failed(upstream)
        if not self._most:
            return
        now_s = self._loop.now_s
        run, latest_s = self._runs.get(upstream, (0, now_s))
        run = 1 if now_s - latest_s > self._window_s else run + 1
        if run < self._most:
            self._runs[upstream] = run, now_s
        else:
            self._runs.pop(upstream, None)
            self._row.count_tripped(upstream)
            self._wake_health()
        self._observe()

    def forget(self, columns: Iterable[int]) -> None:
        """These columns are other upstreams' by now, or will be: there, failures in a row begin anew."""
        for column in columns:
            self._runs.pop(column, None)
        self._observe()

    def _note_answer(self, upstream: int, status: int) -> None:
        if status in self._failures:
            self.failed(upstream)
            return
        if self._counts_all:
            self._row.count_answered(upstream)
        if upstream in self._runs:
            del self._runs[upstream]
            self._observe()

    def _observe(self) -> None:
        """See to it that responses are told as long as they matter, and no longer."""
        matters = self._needs_all or bool(self._runs)
        if matters is not (self.answered is not None):
            self.answered = self._note_answer if matters else None
            self._put_row(self._observed if matters else self._row)
