"""When a rollover takes its next step: a state machine of phases; facts and the clock go in, a step comes out."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

BOOT_TIMEOUT_S = 10.0
PREPARE_TIMEOUT_S = 30.0
HAND_OVER_TIMEOUT_S = 2.0
MAX_DRAINING_GENERATIONS = 8


class Phase(enum.Enum):
    """Where a rollover stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    PROBING = "probing"
    BOOTING = "booting"
    HANDING_OVER = "handing over"


class Step(enum.Enum):
    """What the master does next."""

    WAIT = "wait"
    PREPARE = "read the config, begin to resolve names"
    BIND = "bind new addresses, make a board, begin to probe new upstreams"
    FORK = "fork the new generation"
    SWITCH = "make the new generation the current one and drain the old"
    FINISH = "say that the new generation serves, alone"
    ABANDON = "give the new generation up"


class Reason(enum.Enum):
    """Why a rollover was given up."""

    NONE = ""
    UNUSABLE = "the new config cannot be used"
    PREPARE_TIMEOUT = "names were not resolved in time"
    WORKER_DIED = "a new worker died while it started"
    BOOT_TIMEOUT = "not every new worker was ready in time"


class Preparation(enum.Enum):
    """How far reading the config and resolving its names has come."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the master sees now.

    Attributes:
        mono_s: monotonic seconds.
        may_begin: whether nothing else is to be done before another rollover.
        preparation: of the config and the names.
        is_probed: whether every new upstream had its first probe.
        wanted: workers of the new generation that were forked.
        ready: how many of them said that they serve.
        died: how many of them are gone.
        accepting: workers of the old generation that may still accept connections.
        draining: older generations that still have workers.
        is_stranded: whether the old generation has no worker left that serves.
    """

    mono_s: float
    may_begin: bool = True
    preparation: Preparation = Preparation.PENDING
    is_probed: bool = False
    wanted: int = 0
    ready: int = 0
    died: int = 0
    accepting: int = 0
    draining: int = 0
    is_stranded: bool = False


class Rollover:
    """One rollover at a time; what is asked for meanwhile is remembered, and any number of times makes one more.

    The first start of minato is a rollover, too: from no generation to the first.

    Attributes:
        phase: where the present rollover stands.
        reason: why the last one was given up.
        is_requested: whether another one is to follow.
    """

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.reason = Reason.NONE
        self.is_requested = False
        self._deadline_s = math.inf

    def __repr__(self) -> str:
        return f"<Rollover {self.phase.value}{', one more requested' if self.is_requested else ''}>"

    def request(self) -> bool:
        """Ask for a rollover. Returns whether it can begin now, rather than after the present one."""
        self.is_requested = True
        return self.phase is Phase.IDLE

    def cancel(self) -> None:
        """Forget the present rollover and what was asked for: minato is stopping."""
        self.is_requested = False
        self._enter(Phase.IDLE, math.inf)

    def next_step(self, facts: Facts, probe_timeout_s: float) -> Step:
        """Return what to do now and move on to the phase in which that is being done.

        Args:
            facts: what is known now.
            probe_timeout_s: how long the first round of probes may take; upstreams without a result get no traffic.
        """
        if self.phase is Phase.IDLE:
            return self._begin(facts)
        if self.phase is Phase.PREPARING:
            return self._await_preparation(facts, probe_timeout_s)
        if self.phase is Phase.PROBING:
            return self._await_probes(facts)
        if self.phase is Phase.BOOTING:
            return self._await_workers(facts)
        return self._await_hand_over(facts)

    def fail(self) -> None:
        """Say that the step just returned cannot be done (an address in use, no shared memory)."""
        self._abandon(Reason.UNUSABLE)

    def _begin(self, facts: Facts) -> Step:
        # Each generation that drains holds processes; without a bound, a HUP a second beside one long download would
        # pile them up.
        if not self.is_requested or not facts.may_begin or facts.draining >= MAX_DRAINING_GENERATIONS:
            return Step.WAIT
        self.is_requested = False
        self.reason = Reason.NONE
        self._enter(Phase.PREPARING, facts.mono_s + PREPARE_TIMEOUT_S)
        return Step.PREPARE

    def _await_preparation(self, facts: Facts, probe_timeout_s: float) -> Step:
        if facts.preparation is Preparation.DONE:
            self._enter(Phase.PROBING, facts.mono_s + probe_timeout_s)
            return Step.BIND
        if facts.preparation is Preparation.FAILED:
            return self._abandon(Reason.UNUSABLE)
        return self._abandon(Reason.PREPARE_TIMEOUT) if facts.mono_s >= self._deadline_s else Step.WAIT

    def _await_probes(self, facts: Facts) -> Step:
        if not facts.is_probed and facts.mono_s < self._deadline_s:
            return Step.WAIT
        self._enter(Phase.BOOTING, facts.mono_s + BOOT_TIMEOUT_S)
        return Step.FORK

    def _await_workers(self, facts: Facts) -> Step:
        are_all_ready = facts.ready >= facts.wanted and not facts.died
        # Some of the new workers are better than none of the old.
        are_some_better = facts.ready and facts.is_stranded and (facts.died or facts.mono_s >= self._deadline_s)
        if are_all_ready or are_some_better:
            self._enter(Phase.HANDING_OVER, facts.mono_s + HAND_OVER_TIMEOUT_S)
            return Step.SWITCH
        if facts.died:
            return self._abandon(Reason.WORKER_DIED)
        return self._abandon(Reason.BOOT_TIMEOUT) if facts.mono_s >= self._deadline_s else Step.WAIT

    def _await_hand_over(self, facts: Facts) -> Step:
        # Who is told that a reload is done may count on it: what he connects from now on meets the new config. An old
        # worker that hangs cannot hold that up for long; nothing is left to give up.
        if facts.accepting and facts.mono_s < self._deadline_s:
            return Step.WAIT
        self._enter(Phase.IDLE, math.inf)
        return Step.FINISH

    def _abandon(self, reason: Reason) -> Step:
        self.reason = reason
        self._enter(Phase.IDLE, math.inf)
        return Step.ABANDON

    def _enter(self, phase: Phase, deadline_s: float) -> None:
        self.phase = phase
        self._deadline_s = deadline_s
