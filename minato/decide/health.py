"""Thresholds of health: from results of probes, and from refused connections, to up or down."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class Health(enum.Enum):
    """What is known of an upstream. Only UP gets traffic."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe found, or one refused connection says.

    Attributes:
        ok: whether the upstream answered as expected.
        reason: why not, in a few words for the log; empty where ok.
        is_ours: whether this machine is to blame; it says nothing of the upstream then, and is not fed to its health.
        drains: whether it is well and says that it is about to leave; the reason says how then.
    """

    ok: bool
    reason: str = ""
    is_ours: bool = False
    drains: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of health. ``reason`` is that of the result that brought it about."""

    before: Health
    after: Health
    reason: str


class UpstreamHealth:
    """The health of one upstream.

    The first result decides at once, so that a start waits for one round only; after that it takes ``fall`` failures in
    a row to go down and ``rise`` successes in a row to come up.
    """

    __slots__ = ("_fall", "_rise", "_run", "state")

    def __init__(self, *, rise: int, fall: int) -> None:
        self.state = Health.UNKNOWN
        self._run = 0  # results in a row that speak against the state
        self.set_thresholds(rise=rise, fall=fall)

    def set_thresholds(self, *, rise: int, fall: int) -> None:
        """Use other thresholds from the next result on; state and run stay."""
        if rise < 1 or fall < 1:
            raise ValueError(f"rise and fall are at least 1: {rise}, {fall}")
        self._rise = rise
        self._fall = fall

    def snapshot(self) -> dict[str, object]:
        """Return what is known, in plain values, for another process to ``restore``."""
        return {"state": self.state.value, "run": self._run}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on from what another one knew; thresholds may be others by now."""
        self.state = Health(snapshot["state"])
        self._run = int(snapshot["run"])

    def feed(self, result: ProbeResult) -> Transition | None:
        """Take in a result; return the change it brings about, if any."""
        before = self.state
        if before is Health.UNKNOWN:
            return self._become(Health.UP if result.ok else Health.DOWN, result.reason)
        if result.ok is (before is Health.UP):
            self._run = 0
            return None
        self._run += 1
        if self._run < (self._rise if result.ok else self._fall):
            return None
        return self._become(Health.UP if result.ok else Health.DOWN, result.reason)

    def _become(self, after: Health, reason: str) -> Transition:
        before = self.state
        self.state = after
        self._run = 0
        return Transition(before, after, reason)

    def __repr__(self) -> str:
        return f"<UpstreamHealth {self.state.value}, {self._run} against it>"


def judge_status(status: int, expect: Iterable[tuple[int, int]], drain: Iterable[tuple[int, int]] = ()) -> ProbeResult:
    """Judge a final status by the inclusive ranges that count as healthy; those of ``drain`` go before.

    Statuses of these mean: healthy, but about to leave.
    """
    if any(low <= status <= high for low, high in drain):
        return ProbeResult(True, f"its health check says {status}", drains=True)
    ranges = tuple(expect)
    if any(low <= status <= high for low, high in ranges):
        return ProbeResult(True)
    wanted = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    return ProbeResult(False, f"status {status}, expected {wanted}")
