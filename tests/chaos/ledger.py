"""What came of every request: counted where it went well, kept with its circumstances where it did not."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field

MAX_TROUBLES = 20_000


class Kind(enum.Enum):
    """What can become of a request, or of a connection between two."""

    OK = "ok"
    EARLY_CLOSE = "early close"  # an idle connection that had not been told was closed; no request was under way
    RACE = "race"  # a request was sent on a kept connection just as that was closed
    REFUSED = "refused"
    UNANSWERED = "unanswered"  # a new connection ended without a byte
    CUT = "cut"  # the response ended early, and showed it
    STATUS = "status"  # a whole response with another status
    WRONG = "wrong"  # a whole response with other bytes, or no HTTP at all: what must never be
    SILENT = "silent"  # nothing came in time


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's, stream's, tunnel's or idle connection's end.

    Attributes:
        kind: what became of it.
        client: which kind of client.
        method: of the request; b"" for an idle connection.
        name: the request's own name, which the origin's journal knows, too.
        port: the client's own port; 0 where there was no connection.
        begun_s, ended_s: monotonic seconds.
        status: of the response; 0 without one.
        detail: for who reads it.
    """

    kind: Kind
    client: str
    method: bytes
    name: str
    port: int
    begun_s: float
    ended_s: float
    status: int = 0
    detail: str = ""

    def __str__(self) -> str:
        what = f"{self.method.decode() or 'idle'} {self.name} (port {self.port})"
        took_ms = (self.ended_s - self.begun_s) * 1e3
        return (
            f"{self.kind.value}: {self.client} {what} after {took_ms:.0f} ms {self.status or ''} {self.detail}".rstrip()
        )


@dataclass(slots=True)
class Ledger:
    """All outcomes of one scenario.

    Attributes:
        ok: successes by client.
        moves: events of streams and messages of tunnels that came right.
        told: connections that ended after `Connection: close`, as they should.
        troubles: all else, the first MAX_TROUBLES.
        kinds: of the requests that reached their end, by name; for those that the origin's journal names.
        longest: the request that took longest.
    """

    ok: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)
    told: int = 0
    troubles: list[Outcome] = field(default_factory=list)
    by_name: dict[str, Outcome] = field(default_factory=dict)
    longest: Outcome | None = None

    def record(self, outcome: Outcome) -> None:
        if outcome.name:
            self.by_name[outcome.name] = outcome
        if outcome.kind is Kind.OK:
            self.ok[outcome.client] += 1
        elif len(self.troubles) < MAX_TROUBLES:
            self.troubles.append(outcome)

    @property
    def requests(self) -> int:
        """How many requests were answered or failed."""
        return self.ok.total() + sum(trouble.kind is not Kind.EARLY_CLOSE for trouble in self.troubles)

    def count(self, *kinds: Kind) -> int:
        return sum(trouble.kind in kinds for trouble in self.troubles)
