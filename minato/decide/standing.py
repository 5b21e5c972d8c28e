"""What one upstream's standing is: active health, ejection and drain marks, combined into who may be sent what."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from minato.decide.health import Health


class Standing(enum.IntEnum):
    """What workers may do with an upstream; its number is what stands on the board."""

    DOWN = 0
    """Nothing: its health check fails, or has not had a result yet."""
    UP = 1
    """Everything. The only one that gets new traffic."""
    EJECTED = 2
    """Nothing, although its health check succeeds: requests failed there."""
    DRAINING = 3
    """Well, but about to leave: only what belongs there already (a sticky session) may still go there."""


class DrainedBy(enum.Enum):
    """Who said that an upstream drains."""

    ADMIN = "the admin API"
    PROBE = "its health check"


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """How long ejections last, and how many there may be.

    Attributes:
        is_on: whether anybody is ejected at all.
        base_s: seconds of the first one; each further one lasts twice as long as the one before.
        max_s: seconds that none exceeds.
        max_share: of a service's upstreams, how many may be ejected at a time; one at least, if it is not 0.
        window_s: seconds within which refused connections and successful probes contradict each other.
    """

    is_on: bool = False
    base_s: float = 10.0
    max_s: float = 300.0
    max_share: float = 0.5
    window_s: float = 10.0

    def most(self, upstreams: int) -> int:
        """Return how many of so many upstreams may be ejected at a time."""
        if not self.is_on or not self.max_share:
            return 0
        return max(1, int(self.max_share * upstreams + 1e-9))

    def duration_s(self, ejections: int) -> float:
        """Return how long the so-manieth ejection lasts; the first is number 1."""
        # Beyond 2^64 seconds every base is above every maximum, and a float stays one.
        return min(self.base_s * 2.0 ** min(ejections - 1, 64), max(self.base_s, self.max_s))


@dataclass(slots=True)
class Availability:
    """One upstream. Seconds are monotonic.

    Attributes:
        health: by its active checks and refused connections.
        drained_by: who wants it to drain.
        ejections: how many there were, less those that good behaviour made up for.
        ejected_s: when the latest ejection began.
        until_s: when the present ejection ends at the soonest; None where there is none.
        returned_s: when the latest ejection ended.
        recovered_s: when it became UP again; None as long as it never was anything else.
        doubted_s: when its probes last contradicted refused connections; None where they do not.
        is_known: whether its health was known before its latest change: what comes up then has recovered.
        fell_by_refusal: whether it was a refused connection that took it down.
        down_reason, ejected_reason, drain_reason: why it is, or was last, in that standing.
        returned_reason: why its latest ejection ended early; empty where its time was up.
    """

    health: Health = Health.UNKNOWN
    drained_by: set[DrainedBy] = field(default_factory=set)
    ejections: int = 0
    ejected_s: float = 0.0
    until_s: float | None = None
    returned_s: float = 0.0
    recovered_s: float | None = None
    doubted_s: float | None = None
    fell_by_refusal: bool = False
    is_known: bool = False
    down_reason: str = ""
    ejected_reason: str = ""
    drain_reason: str = ""
    returned_reason: str = ""

    @property
    def is_ejected(self) -> bool:
        return self.until_s is not None

    @property
    def standing(self) -> Standing:
        if self.health is not Health.UP:
            return Standing.DOWN
        if self.is_ejected:
            return Standing.EJECTED
        return Standing.DRAINING if self.drained_by else Standing.UP

    @property
    def reason(self) -> str:
        """Why it stands where it stands, in a few words; empty where it is up."""
        standing = self.standing
        if standing is Standing.DOWN:
            return self.down_reason or ("not probed yet" if self.health is Health.UNKNOWN else "")
        if standing is Standing.EJECTED:
            return self.ejected_reason
        return self.drain_reason if standing is Standing.DRAINING else ""

    def eject(self, rules: EjectionRules, why: str, now_s: float) -> float:
        """Eject it; return for how many seconds at the least."""
        self._forgive(rules, now_s)
        self.ejections += 1
        duration_s = rules.duration_s(self.ejections)
        self.ejected_s = now_s
        self.until_s = now_s + duration_s
        self.ejected_reason = why
        return duration_s

    def end_ejection(self, why: str, now_s: float) -> None:
        """It is back."""
        self.until_s = None
        self.returned_s = now_s
        self.returned_reason = why

    def withdraw_ejection(self, now_s: float) -> None:
        """It should not have been ejected: what failed there has another explanation."""
        self.end_ejection("", now_s)
        self.ejections -= 1

    def _forgive(self, rules: EjectionRules, now_s: float) -> None:
        """Behaving for as long as the latest ejection lasted makes up for it, and so on for the ones before."""
        calm_s = now_s - self.returned_s
        while self.ejections and calm_s >= (due_s := rules.duration_s(self.ejections)):
            calm_s -= due_s
            self.ejections -= 1
