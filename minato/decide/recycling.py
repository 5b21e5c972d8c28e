"""After how much work, or with how much memory, a worker is replaced by a fresh one; chance is an argument."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from minato.config.model import RecycleConfig

# A fresh worker that has too much memory already is not replaced at once: the next one would have as much.
MEMORY_RESPITE_S = 60.0
# A bound so low that workers reach it in no time must not become a storm of forks.
RESPITE_S = 1.0


class RecycleReason(enum.Enum):
    """Why a worker is replaced; NONE: it is not."""

    NONE = ""
    REQUESTS = "recycle.requests"
    MEMORY = "recycle.memory"

    @property
    def respite_s(self) -> float:
        """For how long its successor is left alone."""
        return MEMORY_RESPITE_S if self is RecycleReason.MEMORY else RESPITE_S


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has done, and what it takes.

    Attributes:
        requests: since its start.
        memory_bytes: resident.
    """

    requests: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a worker may do and take before it is replaced; 0: without bound."""

    requests: int = 0
    memory_bytes: int = 0

    @classmethod
    def draw(cls, config: RecycleConfig, share: float) -> Allowance:
        """Return the allowance of one worker: the bounds of the config at the most, up to ``jitter`` of them less.

        Args:
            share: at random, 0 to 1: workers that began together, with the same load, must not end together.
        """
        part = 1.0 - config.jitter * share
        return cls(_part(config.requests, part), _part(config.memory_bytes, part))

    def why_recycle(self, load: Load) -> RecycleReason:
        """Tell whether a worker has had enough, and of what."""
        if 0 < self.requests <= load.requests:
            return RecycleReason.REQUESTS
        if 0 < self.memory_bytes <= load.memory_bytes:
            return RecycleReason.MEMORY
        return RecycleReason.NONE


def _part(bound: int, part: float) -> int:
    return max(round(bound * part), 1) if bound else 0
