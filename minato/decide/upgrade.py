"""When a binary upgrade takes its next step: two state machines, of the old master and of the new one; no I/O.

The old master goes IDLE → STARTING → BOOTING → HANDING_OVER → OVER. Up to HANDING_OVER nothing has changed for clients,
and whatever is wrong with the new master ends in ENDING, then IDLE again. OVER is final: it accepts no more, drains and
ends. The new one goes BOOTING → ASKING → SERVING, or to REFUSED.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from minato.decide.rollover import MAX_DRAINING_GENERATIONS

HAND_OVER_TIMEOUT_S = 2.0
# A master that ends closes the link a moment before its exit status can be had.
LAST_WORDS_S = 1.0
# What takes no part in the protocol, such as a script that hangs, needs no longer to end than any process.
END_GRACE_S = 2.0


class Phase(enum.Enum):
    """Where an upgrade stands, as the old master sees it."""

    IDLE = "idle"
    STARTING = "starting"
    BOOTING = "booting"
    HANDING_OVER = "handing over"
    OVER = "over"
    ENDING = "ending what was given up"


class Step(enum.Enum):
    """What the old master does next."""

    WAIT = "wait"
    START = "execute the new master"
    SEND_STATE = "send it the sockets and what is known of the upstreams"
    RETIRE = "have the workers accept no more"
    SETTLE = "tell the new master that it alone accepts, and close the sockets"
    GIVE_UP = "say why, and have the new master end"
    RESUME = "the same, and start workers in place of those that were told to drain"
    KILL = "kill the new master, which does not end"
    FORGET = "the new master that was given up is gone"


class Reason(enum.Enum):
    """Why an upgrade was given up."""

    NONE = ""
    CANNOT_START = "it cannot be executed"
    DIED = "it ended before it was ready"
    LEFT = "it closed its link before it was ready"
    FOREIGN = "it was built for another version of the handover"
    TIMEOUT = "it was not ready in time"
    UNFIT = "its workers crash again and again"
    DIED_READY = "it ended just after it was ready"
    STOPPING = "minato is stopping"


class Said(enum.IntEnum):
    """The furthest that the new master has said it has come."""

    NOTHING = 0
    HELLO = 1
    READY = 2


@dataclass(frozen=True, slots=True)
class Facts:
    """What the old master sees now.

    Attributes:
        mono_s: monotonic seconds.
        can_begin: whether it serves and is not in the middle of a reload.
        is_alive: whether the new master was not collected yet.
        is_linked: whether the link to it is open.
        said: what it said.
        is_foreign: whether it said that it knows another version of the handover.
        is_unfit: whether it said that it cannot serve.
        accepting: own workers that may still accept connections.
        timeout_s: how long the new master may take until it is ready.
        drain_s: how long a new master that has begun to serve may take to end.
        draining: older generations that still have workers, those of older masters included.
    """

    mono_s: float
    can_begin: bool = False
    is_alive: bool = False
    is_linked: bool = False
    said: Said = Said.NOTHING
    is_foreign: bool = False
    is_unfit: bool = False
    accepting: int = 0
    timeout_s: float = 60.0
    drain_s: float = 30.0
    draining: int = 0


class Upgrade:
    """The old master's side.

    Attributes:
        phase: where the upgrade stands.
        reason: why the last one was given up.
        is_requested: whether one is to begin as soon as it can.
    """

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.reason = Reason.NONE
        self.is_requested = False
        self._deadline_s = math.inf
        self._unlinked_s = math.inf

    def __repr__(self) -> str:
        return f"<Upgrade {self.phase.value}{', requested' if self.is_requested else ''}>"

    @property
    def is_under_way(self) -> bool:
        """Whether there is a new master that may yet take over."""
        return self.phase in (Phase.STARTING, Phase.BOOTING, Phase.HANDING_OVER)

    def request(self) -> bool:
        """Ask for an upgrade. False where one is asked for, under way or over, or the last one's master still ends."""
        if self.is_requested or self.phase is not Phase.IDLE:
            return False
        self.is_requested = True
        return True

    def next_step(self, facts: Facts) -> Step:
        """Return what to do now and move on to the phase in which that is being done."""
        if self.phase is Phase.IDLE:
            return self._begin(facts)
        if self.phase in (Phase.STARTING, Phase.BOOTING):
            return self._await_ready(facts)
        if self.phase is Phase.HANDING_OVER:
            return self._await_drained(facts)
        return self._await_end(facts) if self.phase is Phase.ENDING else Step.WAIT

    def fail(self) -> None:
        """Say that START could not be done."""
        self.reason = Reason.CANNOT_START
        self._enter(Phase.IDLE, math.inf)

    def abort(self, facts: Facts) -> bool:
        """Give up because minato is stopping. Returns whether there is a new master that has to be told to end."""
        self.is_requested = False
        if not self.is_under_way:
            return False
        self._give_up(Reason.STOPPING, facts)
        return self.phase is Phase.ENDING

    def _begin(self, facts: Facts) -> Step:
        # As with reloads: a USR2 now and then beside long streams must not pile up masters without a bound.
        if not self.is_requested or not facts.can_begin or facts.draining >= MAX_DRAINING_GENERATIONS:
            return Step.WAIT
        self.is_requested = False
        self.reason = Reason.NONE
        self._unlinked_s = math.inf
        self._enter(Phase.STARTING, facts.mono_s + facts.timeout_s)
        return Step.START

    def _await_ready(self, facts: Facts) -> Step:
        if not facts.is_alive:
            return self._give_up(Reason.DIED, facts)
        if not facts.is_linked:
            self._unlinked_s = min(self._unlinked_s, facts.mono_s)
            is_late = facts.mono_s >= min(self._unlinked_s + LAST_WORDS_S, self._deadline_s)
            return self._give_up(Reason.LEFT, facts) if is_late else Step.WAIT
        if facts.is_foreign:
            return self._give_up(Reason.FOREIGN, facts)
        if facts.is_unfit:
            return self._give_up(Reason.UNFIT, facts)
        if self.phase is Phase.STARTING and facts.said >= Said.HELLO:
            self.phase = Phase.BOOTING
            return Step.SEND_STATE
        if self.phase is Phase.BOOTING and facts.said >= Said.READY:
            self._enter(Phase.HANDING_OVER, facts.mono_s + HAND_OVER_TIMEOUT_S)
            return Step.RETIRE
        return self._give_up(Reason.TIMEOUT, facts) if facts.mono_s >= self._deadline_s else Step.WAIT

    def _await_drained(self, facts: Facts) -> Step:
        if not facts.is_alive or not facts.is_linked:
            self._give_up(Reason.DIED_READY, facts)
            return Step.RESUME
        # A worker that hangs has its message, which it reads before it looks at any client; it holds nobody up.
        if facts.accepting and facts.mono_s < self._deadline_s:
            return Step.WAIT
        self._enter(Phase.OVER, math.inf)
        return Step.SETTLE

    def _await_end(self, facts: Facts) -> Step:
        if not facts.is_alive:
            self._enter(Phase.IDLE, math.inf)
            return Step.FORGET
        if facts.mono_s < self._deadline_s:
            return Step.WAIT
        self._deadline_s = math.inf
        return Step.KILL

    def _give_up(self, reason: Reason, facts: Facts) -> Step:
        self.reason = reason
        grace_s = END_GRACE_S + (facts.drain_s if facts.said >= Said.HELLO and facts.is_linked else 0.0)
        if facts.is_alive:
            self._enter(Phase.ENDING, facts.mono_s + grace_s)
        else:
            self._enter(Phase.IDLE, math.inf)
        return Step.GIVE_UP

    def _enter(self, phase: Phase, deadline_s: float) -> None:
        self.phase = phase
        self._deadline_s = deadline_s


class TakeoverPhase(enum.Enum):
    """Where an upgrade stands, as the new master sees it."""

    BOOTING = "booting"
    ASKING = "ready, waiting until the old one accepts no more"
    SERVING = "serving alone"
    REFUSED = "given up by the old one"


class TakeoverStep(enum.Enum):
    """What the new master does next."""

    WAIT = "wait"
    SAY_READY = "tell the old master that all workers serve"
    TAKE_OVER = "be the master: pid file, ready line, service manager"
    END = "stop gracefully, the old master goes on"


@dataclass(frozen=True, slots=True)
class TakeoverFacts:
    """What the new master sees now.

    Attributes:
        is_ready: whether all workers of its first generation serve.
        is_linked: whether the old master lives.
        is_settled: whether the old master said that it accepts no more.
        is_given_up: whether the old master said that it goes on.
    """

    is_ready: bool = False
    is_linked: bool = True
    is_settled: bool = False
    is_given_up: bool = False


class Takeover:
    """The new master's side. An old master that died leaves its place to the new one, at whatever point.

    Attributes:
        phase: where the upgrade stands.
    """

    def __init__(self) -> None:
        self.phase = TakeoverPhase.BOOTING

    def __repr__(self) -> str:
        return f"<Takeover {self.phase.value}>"

    def next_step(self, facts: TakeoverFacts) -> TakeoverStep:
        """Return what to do now and move on to the phase in which that is being done."""
        if self.phase in (TakeoverPhase.SERVING, TakeoverPhase.REFUSED):
            return TakeoverStep.WAIT
        if facts.is_given_up:
            self.phase = TakeoverPhase.REFUSED
            return TakeoverStep.END
        if not facts.is_ready:
            return TakeoverStep.WAIT
        if facts.is_settled or not facts.is_linked:
            self.phase = TakeoverPhase.SERVING
            return TakeoverStep.TAKE_OVER
        if self.phase is TakeoverPhase.ASKING:
            return TakeoverStep.WAIT
        self.phase = TakeoverPhase.ASKING
        return TakeoverStep.SAY_READY
