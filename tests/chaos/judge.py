"""The judge: which troubles are excused, and by what; everything else is a failure.

There are few excuses, and none is vague. A process was killed while it held that very connection; an origin was
killed, or did something on purpose, while it held that very request; a port was not configured just then. What it
did on purpose is demanded as well: a request that it never answered must not have been answered.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tests.chaos.ledger import Kind, Ledger, Outcome
from tests.chaos.origin import Fate

_BROKEN = frozenset([Kind.EARLY_CLOSE, Kind.RACE, Kind.UNANSWERED, Kind.CUT])
BAD_GATEWAY, GATEWAY_TIMEOUT = 502, 504


class Excuse(Protocol):
    """Why something may have failed."""

    def covers(self, outcome: Outcome) -> bool: ...


def _spans(outcome: Outcome, from_s: float, to_s: float) -> bool:
    return outcome.begun_s <= to_s and outcome.ended_s >= from_s


@dataclass(frozen=True, slots=True)
class Held:
    """A process that had accepted the connections from these ports was killed between two moments."""

    ports: frozenset[int]
    from_s: float
    to_s: float

    def covers(self, outcome: Outcome) -> bool:
        return outcome.port in self.ports and outcome.kind in _BROKEN and _spans(outcome, self.from_s, self.to_s)


@dataclass(frozen=True, slots=True)
class OriginKilled:
    """An origin was killed between two moments: what was with it then may be lost, where it could not be asked again.

    A response that had begun is cut, streams and tunnels end. A POST that was sent gets a 502, though it may not have
    been read.

    Attributes:
        got: names of the requests that this origin had read.
        got_by_others: names of those that another one had.
    """

    from_s: float
    to_s: float
    got: Container[str]
    got_by_others: Container[str]

    def covers(self, outcome: Outcome) -> bool:
        if not _spans(outcome, self.from_s, self.to_s):
            return False
        if outcome.kind is Kind.STATUS:
            is_502 = outcome.status == BAD_GATEWAY and outcome.method == b"POST"
            return is_502 and outcome.name not in self.got_by_others
        return outcome.kind is Kind.CUT and outcome.name in self.got


@dataclass(frozen=True, slots=True)
class NotConfigured:
    """Clients of the spare port, which was not served, or about to be closed, between two moments."""

    client: str
    from_s: float
    to_s: float = math.inf

    def covers(self, outcome: Outcome) -> bool:
        is_away = outcome.kind in (Kind.REFUSED, Kind.UNANSWERED)
        return is_away and outcome.client == self.client and _spans(outcome, self.from_s, self.to_s)


@dataclass(frozen=True, slots=True)
class Misdeeds:
    """What origins did on purpose, by the name of the request; and what the client must have seen of it.

    Attributes:
        fates: from the journals of all origins, put together.
        allowed: for what was done to a request, and its method, what may have come of it; every request that an
            origin did that to, and no other one answered, must have ended so.
    """

    fates: Mapping[str, list[Fate]]
    allowed: Mapping[tuple[Fate, bytes], frozenset[tuple[Kind, int]]]

    def covers(self, outcome: Outcome) -> bool:
        permitted = self._permitted(outcome)
        return permitted is not None and (outcome.kind, outcome.status) in permitted

    def contradictions(self, ledger: Ledger) -> list[Outcome]:
        """Return what must not have ended as it did, successes above all."""
        found = []
        for name in self.fates:
            outcome = ledger.by_name.get(name)
            permitted = self._permitted(outcome) if outcome is not None else None
            if outcome is not None and permitted is not None and (outcome.kind, outcome.status) not in permitted:
                found.append(outcome)
        return found

    def _permitted(self, outcome: Outcome) -> frozenset[tuple[Kind, int]] | None:
        fates = self.fates.get(outcome.name, ())
        deeds = [fate for fate in fates if fate not in (Fate.GOT, Fate.DONE)]
        if not deeds or Fate.DONE in fates:  # some origin answered it: it has to have come right
            return None
        return self.allowed.get((deeds[-1], outcome.method))


@dataclass(slots=True)
class Verdict:
    """Attributes:
    failures: what nothing excuses.
    excused: what was lost, and may have been.
    """

    failures: list[Outcome] = field(default_factory=list)
    excused: list[Outcome] = field(default_factory=list)


def judge(ledger: Ledger, excuses: Iterable[Excuse]) -> Verdict:
    """Hold every trouble against the excuses."""
    known = list(excuses)
    verdict = Verdict()
    for trouble in ledger.troubles:
        is_excused = trouble.kind is not Kind.WRONG and any(excuse.covers(trouble) for excuse in known)
        (verdict.excused if is_excused else verdict.failures).append(trouble)
    for misdeeds in (excuse for excuse in known if isinstance(excuse, Misdeeds)):
        for outcome in misdeeds.contradictions(ledger):
            # A worker may have been killed while it waited for an origin that never answers.
            if outcome not in verdict.failures and outcome not in verdict.excused:
                verdict.failures.append(outcome)
    return verdict
