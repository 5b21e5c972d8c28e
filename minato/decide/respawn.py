"""How long to wait before a dead worker is replaced: not at all, unless it dies again and again."""

from __future__ import annotations

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
SHORT_LIFE_S = 1.0
TOLERATED_SHORT_LIVES = 3


class Respawn:
    """The back-off of one slot.

    A worker that served and died is replaced at once. One that cannot start is retried after 0.5 s, 1 s ... 30 s.
    One that starts and then dies within ``SHORT_LIFE_S`` is replaced at once a few times, then like that, too.
    """

    __slots__ = ("_boot_failures", "_short_lives", "due_s")

    def __init__(self) -> None:
        self._boot_failures = 0
        self._short_lives = 0
        self.due_s = 0.0

    def note_boot_failure(self, mono_s: float) -> float:
        """A worker died before it was ready. Returns the seconds to wait."""
        self._boot_failures += 1
        return self._wait(self._boot_failures, mono_s)

    def note_death(self, lived_s: float, mono_s: float) -> float:
        """A worker died ``lived_s`` seconds after it was ready. Returns the seconds to wait, mostly 0."""
        self._boot_failures = 0
        self._short_lives = self._short_lives + 1 if lived_s < SHORT_LIFE_S else 0
        return self._wait(self._short_lives - TOLERATED_SHORT_LIVES, mono_s)

    def _wait(self, failures: int, mono_s: float) -> float:
        # The exponent is bounded, too: 2.0 ** 1024 overflows.
        delay_s = min(FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16), MAX_BACKOFF_S) if failures > 0 else 0.0
        self.due_s = mono_s + delay_s
        return delay_s
