"""All upstreams and the services they serve: who is up, ejected or draining, and how many may be ejected at a time.

One state machine for the whole fleet, since no upstream is judged alone: whoever is ejected leaves others behind, and
those have to be there. What holds at all times, once an event was settled:

- of a service's upstreams no more are ejected than its share allows;
- no ejection leaves a service without an open upstream (one that is UP), not even by what happens to the others later;
- an upstream that drains is not open.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minato.decide.health import Health
from minato.decide.standing import Availability, DrainedBy, EjectionRules, Standing

REFUSES = "connections are refused, although its health check succeeds"


@dataclass(frozen=True, slots=True)
class Group:
    """One service's upstreams, by key."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """An upstream that stands elsewhere now, and why.

    Attributes:
        lasts_s: of an ejection, how long it lasts at the least; 0 otherwise.
    """

    key: str
    before: Standing
    after: Standing
    reason: str
    lasts_s: float = 0.0


class Verdict(enum.Enum):
    """What became of a suspicion."""

    EJECTED = "ejected"
    NOT_OPEN = "it gets no new requests as it is"
    OFF = "nobody is ejected"
    LAST_OPEN = "no other upstream is open"
    TOO_MANY = "so many are ejected already as may be"


class Fleet:
    """The upstreams of all services.

    Every event is told by one call; ``settle`` then says what changed. Unknown keys are ignored: an upstream that is
    watched no more may still have an event on its way.
    """

    def __init__(self) -> None:
        self._rules = EjectionRules()
        self._groups: tuple[Group, ...] = ()
        self._all: dict[str, Availability] = {}
        self._settled: dict[str, Standing] = {}
        self._inherited: dict[str, Mapping[str, Any]] = {}
        self._names: dict[str, str] = {}
        self._is_unsettled = False

    def __repr__(self) -> str:
        standings = ", ".join(f"{key} {one.standing.name}" for key, one in self._all.items())
        return f"<Fleet {standings or 'without upstreams'}>"

    def __getitem__(self, key: str) -> Availability:
        return self._all[key]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The services."""
        return self._groups

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    # -- events

    def update(
        self,
        rules: EjectionRules,
        keys: Iterable[str],
        groups: Sequence[Group],
        now_s: float,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """These are the upstreams from now on, and the services that they serve; what is known of each stays.

        Args:
            rules: of ejections.
            keys: of the upstreams.
            groups: the services.
            now_s: monotonic second.
            names: of those that are addresses of a name, which that is. An address that is new drains if the admin API
                has all others of its name drain: it is the name that was asked for.
        """
        self._rules = rules
        self._groups = tuple(groups)
        known, names_before, self._names = self._all, self._names, dict(names or {})
        drained = _drained_names(known, names_before)
        self._all = {key: known.get(key) or self._begin(key, now_s) for key in keys}
        for key in self._all.keys() - known.keys():
            if self._names.get(key) in drained:
                self._mark(self._all[key], DrainedBy.ADMIN, True, "")
        self._await_names(self._all.keys() - known.keys())
        self._settled = {key: self._settled.get(key, Standing.DOWN) for key in self._all}
        self._is_unsettled = True
        if not rules.is_on:
            for one in self._all.values():
                one.doubted_s = None
                if one.is_ejected:
                    one.end_ejection("ejections are off", now_s)

    def note_probe(self, key: str, health: Health, *, ok: bool, drains: bool, reason: str, now_s: float) -> None:
        """A probe had a result, and by that its health is what it is."""
        one = self._all.get(key)
        if one is None:
            return
        self._set_health(one, health, reason, now_s)
        if not ok:
            one.doubted_s = None
            one.fell_by_refusal = False  # it had fallen indeed
            if one.until_s is not None and now_s >= one.until_s and health is Health.DOWN:
                one.end_ejection("", now_s)  # from here on it is down, and comes up as what was down does
            self._note(key, one)
            return
        self._mark(one, DrainedBy.PROBE, drains, reason)
        if one.until_s is not None and now_s >= one.until_s and health is Health.UP:
            one.end_ejection("", now_s)
        self._note(key, one)

    def note_known(self, key: str, health: Health) -> None:
        """Another master knew its health; that is no news of how it does."""
        one = self._all.get(key)
        if one is not None:
            one.health = health
            one.is_known = health is Health.DOWN  # what comes up from there has recovered
            self._note(key, one)

    def is_contradicted(self, key: str, now_s: float) -> bool:
        """Tell whether a connection that was refused just now says nothing of its health, since its probes differ.

        A refused connection takes an upstream down at once, and the next probe brings it up. Where that happens again
        and again, workers and probes see different things, and the workers are right: that is a reason to suspect it.
        """
        one = self._all.get(key)
        if one is None or one.doubted_s is None or now_s - one.doubted_s > self._rules.window_s:
            return False
        one.doubted_s = now_s
        return True

    def note_refused(self, key: str, health: Health, reason: str, now_s: float) -> None:
        """A connection was refused, and by that its health is what it is."""
        one = self._all.get(key)
        if one is None:
            return
        if one.health is Health.UP and health is Health.DOWN:
            one.fell_by_refusal = True
        self._set_health(one, health, reason, now_s)
        self._note(key, one)

    def suspect(self, key: str, reason: str, now_s: float) -> Verdict:
        """Requests fail there: eject it, if that may be."""
        one = self._all.get(key)
        if one is None or one.standing is not Standing.UP:
            return Verdict.NOT_OPEN
        verdict = self._judge(key)
        if verdict is Verdict.EJECTED:
            one.eject(self._rules, reason, now_s)
            self._note(key, one)
        return verdict

    def mark_drain(self, key: str, by: DrainedBy, on: bool, reason: str = "") -> None:
        """Somebody wants an upstream to drain, or wants that no more."""
        one = self._all.get(key)
        if one is not None:
            self._mark(one, by, on, reason)
            self._note(key, one)
            if by is DrainedBy.ADMIN:  # of a name without addresses: that goes before what they were
                self._inherited = {other: told for other, told in self._inherited.items() if told.get("name") != key}

    def settle(self, now_s: float) -> list[Change]:
        """See to it that every service keeps somebody; return all that changed since the last time."""
        if not self._is_unsettled:
            return []
        self._is_unsettled = False
        for group in self._groups:
            self._keep_open(group, now_s)
        return [
            self._change(key, one, now_s) for key, one in self._all.items() if one.standing is not self._settled[key]
        ]

    # -- what is asked

    def open_in(self, group: Group) -> int:
        """Return how many of a service's upstreams get new requests."""
        return sum(one.standing is Standing.UP for one in self._members(group))

    def groups_of(self, key: str) -> list[Group]:
        """Return the services that an upstream serves."""
        return [group for group in self._groups if key in group.keys]

    # -- over to another master

    def export(self, now_s: float) -> dict[str, dict[str, Any]]:
        """Return what the next master has to know, by key: plain values for JSON, times as seconds from now."""
        return {
            key: {
                "drained_by": sorted(by.name for by in one.drained_by),
                "drain_reason": one.drain_reason,
                "ejections": one.ejections,
                "ejected_for_s": None if one.until_s is None else max(one.until_s - now_s, 0.0),
                "ejected_reason": one.ejected_reason,
                "returned_s_ago": now_s - one.returned_s,
                "recovered_s_ago": None if one.recovered_s is None else now_s - one.recovered_s,
                "name": self._names.get(key),
            }
            for key, one in self._all.items()
        }

    def inherit(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what another master exported; each upstream begins with it at the next ``update``.

        What is not among them then is forgotten, but for addresses of a name that has none yet: they may be about to
        come.
        """
        self._inherited = dict(state)

    # -- inside

    def _note(self, key: str, one: Availability) -> None:
        if one.standing is not self._settled[key]:
            self._is_unsettled = True

    def _change(self, key: str, one: Availability, now_s: float) -> Change:
        """Take a changed standing for the settled one; what comes up again after it was known recovers."""
        before, after = self._settled[key], one.standing
        self._settled[key] = after
        returned_early = before is Standing.EJECTED and one.returned_reason
        if after is Standing.UP and one.is_known:
            # One that is back for want of others has to bear what there is to bear.
            one.recovered_s = None if returned_early else now_s
        one.is_known = True
        reason = one.returned_reason if before is Standing.EJECTED and after is Standing.UP else one.reason
        lasts_s = one.until_s - now_s if after is Standing.EJECTED and one.until_s is not None else 0.0
        return Change(key, before, after, reason, max(lasts_s, 0.0))

    def _begin(self, key: str, now_s: float) -> Availability:
        one = Availability(returned_s=now_s)
        told = self._inherited.pop(key, None)
        if told is None:
            return one
        one.drained_by = {by for by in DrainedBy if by.name in told.get("drained_by", ())}
        one.drain_reason = str(told.get("drain_reason", ""))
        one.ejections = int(told.get("ejections", 0))
        if (left_s := told.get("ejected_for_s")) is not None and self._rules.is_on:
            one.until_s = now_s + float(left_s)
            one.ejected_reason = str(told.get("ejected_reason", ""))
        one.returned_s = now_s - float(told.get("returned_s_ago", 0.0))
        if (ago_s := told.get("recovered_s_ago")) is not None:
            one.recovered_s = now_s - float(ago_s)
        return one

    def _await_names(self, new: Collection[str]) -> None:
        """Keep of what was inherited what names may yet resolve to; a new name drains if all that it was did."""
        nameless = self._all.keys() - self._names.keys()
        self._inherited = {key: told for key, told in self._inherited.items() if told.get("name") in nameless}
        awaited = {told["name"] for told in self._inherited.values()}
        admin = DrainedBy.ADMIN.name
        open_ = {told["name"] for told in self._inherited.values() if admin not in told.get("drained_by", ())}
        for name in awaited.intersection(new) - open_:
            self._mark(self._all[name], DrainedBy.ADMIN, True, "")

    def _members(self, group: Group) -> list[Availability]:
        return [self._all[key] for key in group.keys if key in self._all]

    def _judge(self, key: str) -> Verdict:
        """Tell whether an upstream that is open may be ejected, for the sake of every service that it serves."""
        if not self._rules.is_on:
            return Verdict.OFF
        for group in self.groups_of(key):
            members = self._members(group)
            if sum(member.standing is Standing.UP for member in members) < 2:
                return Verdict.LAST_OPEN
            if sum(member.is_ejected for member in members) >= self._rules.most(len(members)):
                return Verdict.TOO_MANY
        return Verdict.EJECTED

    def _keep_open(self, group: Group, now_s: float) -> None:
        """End ejections that a service cannot afford any more: others went down, drain, or are configured no more."""
        members = self._members(group)
        ejected = sorted((one for one in members if one.is_ejected), key=lambda one: one.until_s or -math.inf)
        surplus = len(ejected) - self._rules.most(len(members))
        for one in ejected[: max(surplus, 0)]:
            one.end_ejection(f"service {group.name} has fewer upstreams now", now_s)
        if any(one.standing is Standing.UP for one in members):
            return
        for one in members:
            if one.standing is Standing.EJECTED and not one.drained_by:
                one.end_ejection(f"no other upstream of service {group.name} is open", now_s)

    def _set_health(self, one: Availability, health: Health, reason: str, now_s: float) -> None:
        before, one.health = one.health, health
        if before is Health.UNKNOWN and health is Health.DOWN:
            one.is_known = True
        if health is Health.DOWN and before is not Health.DOWN:
            one.down_reason = reason
            one.doubted_s = None
            # One that was killed fails requests a moment before a probe or a refusal tells: then it is just down, and
            # comes back as soon as it is up. Ejections are for what health checks do not see.
            if one.is_ejected and now_s - one.ejected_s <= self._rules.window_s:
                one.withdraw_ejection(now_s)
        elif health is Health.UP and before is Health.DOWN:
            if one.fell_by_refusal and self._rules.is_on:
                one.doubted_s = now_s
            one.fell_by_refusal = False

    def _mark(self, one: Availability, by: DrainedBy, on: bool, reason: str) -> None:
        if on is not (by in one.drained_by):
            # Also where it stands as it stood, ejected: whether a service could have it back is another matter now.
            self._is_unsettled = True
        if on:
            one.drained_by.add(by)
            one.drain_reason = reason or f"asked by {by.value}"
        elif by in one.drained_by:
            one.drained_by.discard(by)
            if one.drained_by:
                one.drain_reason = f"asked by {next(iter(one.drained_by)).value}"


def _drained_names(known: Mapping[str, Availability], names: Mapping[str, str]) -> set[str]:
    """Return the names of which the admin API has every address drain."""
    has_others = {names.get(key, key) for key, one in known.items() if DrainedBy.ADMIN not in one.drained_by}
    return {names.get(key, key) for key in known} - has_others
