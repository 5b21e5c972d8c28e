"""Whether a new generation crashes again and again, and which earlier one served well: the breaker for crash loops."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

G = TypeVar("G")

# For so long after the switch crashes are held against the new config.
WATCH_S = 30.0
# A worker that served for longer than this before it crashed is no sign of a config that cannot serve.
YOUNG_S = 5.0
# A generation that served for so long without a crash is one to go back to.
PROVEN_S = 5.0
# A master that is to take over has served beside the old one for so long without a crash.
FIT_S = 1.0
_LEAST_CRASHES = 3
_MOST_CRASHES = 10


class Probation(Generic[G]):
    """Watches the serving generation, and remembers the last one before it that served well.

    Attributes:
        reserve: the generation whose config is gone back to; None: there is none, or that one serves already.
        crashes: young workers of the serving generation that crashed while it was watched.
    """

    def __init__(self) -> None:
        self.reserve: G | None = None
        self.crashes = 0
        self._since_s = -math.inf
        self._allowed = _LEAST_CRASHES
        self._quiet_since_s = -math.inf

    def __repr__(self) -> str:
        return f"<Probation {self.crashes} of {self._allowed} crashes, {self.reserve!r} in reserve>"

    def begin(self, old: G | None, *, workers: int, mono_s: float, is_return: bool = False) -> None:
        """A generation begins to serve.

        Args:
            old: the one that served until now.
            workers: of the new one.
            mono_s: monotonic seconds.
            is_return: whether the new one has the config of the reserve: then there is nothing further to go back to.
        """
        if is_return:
            self.reserve = None
        elif old is not None and not self.crashes and (self.reserve is None or mono_s - self._since_s >= PROVEN_S):
            self.reserve = old
        self.crashes = 0
        self._since_s = self._quiet_since_s = mono_s
        # Each worker may meet the same bad luck twice; many workers are no reason to wait for very many crashes.
        self._allowed = max(_LEAST_CRASHES, min(2 * workers + 1, _MOST_CRASHES))

    def note_crash(self, lived_s: float, mono_s: float) -> None:
        """A worker of the serving generation crashed ``lived_s`` seconds after it was ready (0 or less: before)."""
        if lived_s < YOUNG_S and self.seconds_served(mono_s) <= WATCH_S:
            self.crashes += 1
        self._quiet_since_s = mono_s

    def is_lost(self) -> bool:
        """Tell whether it is time to go back to the reserve."""
        return self.reserve is not None and self.crashes_too_often()

    def crashes_too_often(self) -> bool:
        """Tell whether the present generation has crashed more often than bad luck explains."""
        return self.crashes >= self._allowed

    def is_fit(self, mono_s: float) -> bool:
        """Tell whether nothing has crashed for so long that another master may leave its place to this one."""
        return mono_s - self._quiet_since_s >= FIT_S

    def seconds_served(self, mono_s: float) -> float:
        """Return for how long the present generation has served."""
        return mono_s - self._since_s
