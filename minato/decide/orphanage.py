"""What a worker does whose master was killed: how long it goes on, and how it leaves; facts and the clock go in."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass


class Notice(enum.IntEnum):
    """What stands on the notice board of a minato whose master is gone, for all of its workers."""

    NONE = 0
    SUCCEEDED = 1  # the workers of another master accept from the same sockets
    SEALED = 2  # nobody came in time: the sockets are about to be closed, and are not for anybody to take any more


class Phase(enum.Enum):
    """Where a worker stands."""

    WARDED = "the master lives"
    ORPHANED = "the master is gone, and nobody is in its place yet"
    LEAVING = "accepting no more"


class Step(enum.Enum):
    """What the worker does next."""

    WAIT = "wait"
    GO_ON = "accept from all sockets of the master, and give them to the next one"
    SEAL = "say that nobody may take the sockets any more, unless somebody is about to"
    YIELD = "accept what waits, then no more: others accept from the same sockets"
    CLOSE = "invite nobody, accept who is about to connect, close the sockets for all"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker sees now.

    Attributes:
        mono_s: monotonic seconds.
        is_gone: whether the master is.
        was_in_office: whether that master ever served: else the workers of the one before it do yet.
        can_hand_over: whether a new master finds this worker, and the sockets with it: else it needs the addresses.
        is_claimed: whether a new master that lives has taken the sockets, and does not serve yet.
        notice: what stands on the notice board.
        orphaned_s: how long workers go on while no new master comes.
        upgrade_s: how long a new master may take until it serves.
    """

    mono_s: float
    is_gone: bool = False
    was_in_office: bool = True
    can_hand_over: bool = True
    is_claimed: bool = False
    notice: Notice = Notice.NONE
    orphaned_s: float = 10.0
    upgrade_s: float = 60.0


class Orphanage:
    """One worker's way from the end of its master to its own.

    Attributes:
        phase: how far it has come.
    """

    def __init__(self) -> None:
        self.phase = Phase.WARDED
        self._unclaimed_s = math.inf  # since when nobody is about to take over
        self._claimed_s = math.inf  # since when somebody is

    def __repr__(self) -> str:
        return f"<Orphanage: {self.phase.value}>"

    def next_step(self, facts: Facts) -> Step:
        """Return what to do now and move on to the phase in which that is being done."""
        if self.phase is Phase.WARDED:
            return self._begin(facts) if facts.is_gone else Step.WAIT
        return self._await_successor(facts) if self.phase is Phase.ORPHANED else Step.WAIT

    def leave(self) -> None:
        """Say that the worker accepts no more for another reason: it was told to end."""
        self.phase = Phase.LEAVING

    def _begin(self, facts: Facts) -> Step:
        if facts.notice is Notice.SUCCEEDED or not (facts.was_in_office and facts.can_hand_over):
            return self._leave(Step.YIELD)
        self.phase = Phase.ORPHANED
        self._note_claim(facts)
        return Step.GO_ON

    def _await_successor(self, facts: Facts) -> Step:
        if facts.notice is Notice.SUCCEEDED:
            return self._leave(Step.YIELD)
        if facts.notice is Notice.SEALED:
            return self._leave(Step.CLOSE)
        self._note_claim(facts)
        if facts.is_claimed:
            # It has the sockets, and may accept from them yet: they are not for us to close.
            is_late = facts.mono_s >= self._claimed_s + facts.upgrade_s
            return self._leave(Step.YIELD) if is_late else Step.WAIT
        return Step.SEAL if facts.mono_s >= self._unclaimed_s + facts.orphaned_s else Step.WAIT

    def _note_claim(self, facts: Facts) -> None:
        """A new master that fails leaves the workers as long as they had at first: the next one may do better."""
        if facts.is_claimed:
            self._claimed_s = min(self._claimed_s, facts.mono_s)
            self._unclaimed_s = math.inf
        else:
            self._unclaimed_s = min(self._unclaimed_s, facts.mono_s)
            self._claimed_s = math.inf

    def _leave(self, step: Step) -> Step:
        self.phase = Phase.LEAVING
        return step
