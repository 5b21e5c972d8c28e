"""Names of upstreams: when each is to be asked for again, and what its answers and failures make of its addresses."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from minato.config.model import DnsConfig

FIRST_BACK_OFF_S = 1.0
MIN_GAP_S = 0.1
# Most answers come within milliseconds: they are looked for so often during the first second.
QUICK_S = 1.0
LOOK_S = 0.02
# The share of an interval by which a question may come early, so that many names are not asked for at once for ever.
JITTER = 0.1


class Turn(enum.Enum):
    """What is new about a name; each is told once, not at every question."""

    RESOLVED = "resolves"
    CHANGED = "has other addresses"
    FAILING = "does not resolve"
    RECOVERED = "resolves again, to the same addresses"


@dataclass(frozen=True, slots=True)
class News:
    """Something new about a name.

    Attributes:
        host: the name.
        turn: what is new.
        addresses: what it has now: after a failure what it had before.
        reason: why it does not resolve; "" otherwise.
        left_out: how many addresses beyond ``max_addresses`` the answer had.
    """

    host: str
    turn: Turn
    addresses: tuple[str, ...]
    reason: str = ""
    left_out: int = 0


@dataclass(slots=True)
class _Name:
    """``asked_s``: when the question under way was put; infinity where there is none."""

    addresses: tuple[str, ...] = ()
    is_failing: bool = False
    failures: int = 0
    due_s: float = -math.inf
    wanted_s: float = -math.inf
    asked_s: float = math.inf
    heard_s: float = -math.inf

    @property
    def is_under_way(self) -> bool:
        return self.asked_s < math.inf


class Names:
    """All names of one master. Monotonic seconds go in, names to ask for and news come out.

    A name that does not resolve keeps the addresses it had. It is asked for again after 1, 2, 4 ... seconds, at the
    latest after the interval; and never while a question for it is under way, however long that takes.
    """

    def __init__(self, config: DnsConfig) -> None:
        self._config = config
        self._names: dict[str, _Name] = {}

    def __repr__(self) -> str:
        under_way = sum(name.is_under_way for name in self._names.values())
        return f"<Names {len(self._names)} known, {under_way} under way>"

    def configure(self, config: DnsConfig, mono_s: float) -> None:
        """Go on by another config."""
        self._config = config
        for name in self._names.values():
            if name.wanted_s < name.due_s:
                name.due_s = min(name.due_s, mono_s + config.interval_s) if config.interval_s else math.inf

    def watch(self, hosts: Iterable[str]) -> None:
        """Watch these names and no others; those that are new are due at once."""
        self._names = {host: self._names.get(host) or _Name() for host in hosts}

    def want(self, hosts: Iterable[str], mono_s: float) -> None:
        """Have names asked for now, whatever the interval; where a question is under way, right after it."""
        for host in hosts:
            name = self._names[host]
            name.due_s = name.wanted_s = mono_s

    def addresses(self, host: str) -> tuple[str, ...]:
        """Return what a name is, in numeric order; nothing where it never resolved."""
        name = self._names.get(host)
        return name.addresses if name else ()

    def is_heard(self, host: str, since_s: float) -> bool:
        """Tell whether an answer, a failure or a timeout came since then."""
        return self._names[host].heard_s >= since_s

    def take_due(self, mono_s: float) -> list[str]:
        """Return the names to ask for now; they count as under way."""
        due = [host for host, name in self._names.items() if name.due_s <= mono_s and not name.is_under_way]
        for host in due:
            self._names[host].asked_s = mono_s
        return due

    def next_look_s(self, mono_s: float) -> float:
        """Return the seconds until there may be something to do; infinity where only an answer will tell."""
        next_s = math.inf
        for name in self._names.values():
            if not name.is_under_way:
                next_s = min(next_s, name.due_s - mono_s)
            elif mono_s - name.asked_s < QUICK_S:
                next_s = min(next_s, LOOK_S)
        return max(next_s, 0.0)

    def answer(self, host: str, found: Iterable[str], reason: str, mono_s: float, chance: float) -> News | None:
        """Take in how a question ended.

        Args:
            host: what was asked for.
            found: its addresses, in any order; none where there is no such name or nobody knows.
            reason: why there are none.
            mono_s: now.
            chance: 0 to 1, how much of the jitter the next question takes.
        """
        name = self._names.get(host)
        if name is None:
            return None
        is_wanted_anew = name.wanted_s > name.asked_s
        name.asked_s = math.inf
        name.heard_s = mono_s
        addresses = sort_addresses(found)
        news = self._resolved(host, name, addresses) if addresses else self._failed(host, name, reason)
        if not is_wanted_anew:
            name.due_s = mono_s + self._gap_s(name, chance)
        return news

    def take_overdue(self, mono_s: float) -> list[News]:
        """Note the questions that have been under way for too long; they still are, but count as failures meanwhile."""
        news = []
        for host, name in self._names.items():
            if mono_s - name.asked_s >= self._config.timeout_s and name.heard_s <= name.asked_s:
                name.heard_s = mono_s
                news.append(self._failed(host, name, f"no answer within {self._config.timeout_s:g} s"))
        return [one for one in news if one is not None]

    def _resolved(self, host: str, name: _Name, addresses: Sequence[str]) -> News | None:
        limit = self._config.max_addresses
        before, name.addresses = name.addresses, tuple(addresses[:limit])
        was_failing, name.is_failing, name.failures = name.is_failing, False, 0
        left_out = max(len(addresses) - limit, 0)
        if name.addresses != before:
            turn = Turn.CHANGED if before else Turn.RESOLVED
            return News(host, turn, name.addresses, left_out=left_out)
        return News(host, Turn.RECOVERED, name.addresses) if was_failing else None

    def _failed(self, host: str, name: _Name, reason: str) -> News | None:
        name.failures += 1
        if name.is_failing:
            return None
        name.is_failing = True
        return News(host, Turn.FAILING, name.addresses, reason)

    def _gap_s(self, name: _Name, chance: float) -> float:
        interval_s = self._config.interval_s
        if not interval_s:
            return math.inf
        if name.failures:
            interval_s = min(interval_s, FIRST_BACK_OFF_S * 2.0 ** min(name.failures - 1, 30))
        return max(interval_s * (1 - JITTER * chance), MIN_GAP_S)


def sort_addresses(found: Iterable[str]) -> list[str]:
    """Return addresses once each in numeric order, IPv4 first: resolvers shuffle, and that is no change."""
    known = {address: ip_address(address) for address in found}
    return sorted(known, key=lambda address: (known[address].version, int(known[address]), address))


def is_name(host: str) -> bool:
    """Tell whether a host is a name whose addresses may change and are servers of their own.

    RFC 6761, 6.3: localhost is this machine, whatever it is asked by; its addresses are ways to one server.
    """
    try:
        ip_address(host)
    except ValueError:
        return not is_localhost(host)
    return False


def is_localhost(host: str) -> bool:
    """Tell whether a host is this machine by its special name."""
    name = host.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")
