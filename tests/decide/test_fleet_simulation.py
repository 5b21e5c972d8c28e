"""A fleet under thousands of random orders of events: what must hold holds after each, and breaks if the code does."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from minato.decide.fleet import Fleet, Group, Verdict
from minato.decide.health import Health, ProbeResult, UpstreamHealth
from minato.decide.standing import Availability, DrainedBy, EjectionRules, Standing

ORDERS = 400
EVENTS = 150


class Broken(AssertionError):
    """An invariant that does not hold; the message names it."""


def demand(holds: object, invariant: str) -> None:
    if not holds:
        raise Broken(invariant)


class Simulation:
    """One random order of events. What the fleet is told is noted here too, apart from it, to judge it by."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = 1000.0
        self.fleet = Fleet()
        self.board: dict[str, Standing] = {}
        self.active: dict[str, UpstreamHealth] = {}
        self.drained: dict[str, set[DrainedBy]] = {}
        self.refused: set[str] = set()
        self.began_s: dict[str, float] = {}
        self.suspected = 0
        self.reload()

    def run(self) -> None:
        events = [self.probe] * 6 + [self.suspect] * 5 + [self.refuse] * 2 + [self.drain, self.wait, self.wait]
        for _ in range(EVENTS):
            event = self.reload if self.rng.random() < 0.02 else self.rng.choice(events)
            event()
            self.settle()
        self.calm_down()

    # -- events

    def reload(self) -> None:
        rng = self.rng
        keys = [f"u{number}" for number in range(rng.randint(1, 6))]
        rng.shuffle(keys)
        self.rules = EjectionRules(True, rng.choice((1.0, 10.0)), rng.choice((10.0, 60.0)), rng.choice((0.1, 0.5, 1.0)))
        groups = [Group("all", tuple(keys))]
        if len(keys) > 1:
            groups.append(Group("some", tuple(rng.sample(keys, rng.randint(1, len(keys))))))
        self.groups = groups
        self.fleet.update(self.rules, keys, groups, self.now_s)
        fresh = {key: UpstreamHealth(rise=rng.randint(1, 2), fall=rng.randint(1, 3)) for key in keys}
        self.active = {key: self.active.get(key, fresh[key]) for key in keys}
        self.drained = {key: self.drained.get(key, set()) for key in keys}
        self.board = {key: self.board.get(key, Standing.DOWN) for key in keys}

    def probe(self, key: str | None = None, *, ok: bool | None = None) -> None:
        key = key or self.some()
        rng = self.rng
        ok = rng.random() < 0.7 if ok is None else ok
        drains = ok and rng.random() < 0.1
        self.active[key].feed(ProbeResult(ok, drains=drains))
        if ok:
            (self.drained[key].add if drains else self.drained[key].discard)(DrainedBy.PROBE)
        self.fleet.note_probe(key, self.active[key].state, ok=ok, drains=drains, reason="x", now_s=self.now_s)

    def suspect(self, key: str | None = None) -> None:
        key = key or self.some()
        others = [
            sum(self.board[one] is Standing.UP for one in group.keys if one != key)
            for group in self.groups
            if key in group.keys
        ]
        verdict = self.fleet.suspect(key, "x", self.now_s)
        if verdict is Verdict.EJECTED:
            self.suspected += 1
            demand(all(others), "the last open one is never ejected")

    def refuse(self) -> None:
        key = self.some()
        if self.fleet.is_contradicted(key, self.now_s):
            self.suspect(key)
            return
        self.active[key].feed(ProbeResult(False))
        self.fleet.note_refused(key, self.active[key].state, "x", self.now_s)

    def drain(self) -> None:
        key, on = self.some(), self.rng.random() < 0.5
        (self.drained[key].add if on else self.drained[key].discard)(DrainedBy.ADMIN)
        self.fleet.mark_drain(key, DrainedBy.ADMIN, on)

    def wait(self) -> None:
        self.now_s += self.rng.choice((0.1, 3.0, 12.0))

    def some(self) -> str:
        return self.rng.choice(list(self.board))

    # -- what must hold

    def settle(self) -> None:
        for change in self.fleet.settle(self.now_s):
            demand(self.board[change.key] is change.before is not change.after, "a change is told once, as it is")
            self.board[change.key] = change.after
            if change.after is Standing.EJECTED:
                self.began_s[change.key] = self.now_s
                longest_s = max(self.rules.base_s, self.rules.max_s, 60.0)  # 60: begun under the rules before
                demand(0 <= change.lasts_s <= longest_s, "no ejection is longer than the longest")
        for key, standing in self.board.items():
            demand(self.fleet[key].standing is standing, "what was told is what is")
            if standing is Standing.UP:
                demand(self.active[key].state is Health.UP, "what is down gets no traffic")
                demand(not self.drained[key], "what drains gets no traffic")
        for group in self.groups:
            self.check_group(group)

    def check_group(self, group: Group) -> None:
        standings = [self.board[key] for key in group.keys]
        ejected = standings.count(Standing.EJECTED)
        demand(ejected <= self.rules.most(len(standings)), "no more are ejected than the cap allows")
        if Standing.UP not in standings:
            useful = [key for key in group.keys if self.board[key] is Standing.EJECTED and not self.drained[key]]
            demand(not useful, "no ejection leaves a service without an open upstream")

    def calm_down(self) -> None:
        """Everything gets well: nothing stays stuck."""
        for key in self.board:
            self.fleet.mark_drain(key, DrainedBy.ADMIN, False)
            self.drained[key].discard(DrainedBy.ADMIN)
        self.now_s += 60.0
        for key in self.board:
            self.drained[key].clear()
            for _ in range(3):
                self.active[key].feed(ProbeResult(True))
                self.fleet.note_probe(key, self.active[key].state, ok=True, drains=False, reason="", now_s=self.now_s)
                self.settle()
        demand(all(one is Standing.UP for one in self.board.values()), "what is well gets traffic again")
        for key in self.board:
            one = self.fleet[key]
            demand(one.ejections <= self.suspected, "ejections are counted once each")
            one.eject(self.rules, "", self.now_s + 1e9)
            demand(one.ejections == 1, "good behaviour makes up for everything in the end")


def simulate(orders: int) -> None:
    for seed in range(orders):
        Simulation(seed).run()


def test_what_must_hold_holds_in_any_order_of_events() -> None:
    simulate(ORDERS)


# A test that cannot fail shows nothing: each invariant, and a fault that breaks it.


def _suspect_anyway(fleet: Fleet, key: str) -> Verdict:
    return Verdict.EJECTED


def _suspect_up_to_the_cap(fleet: Fleet, key: str) -> Verdict:
    for group in fleet.groups_of(key):
        members = fleet._members(group)
        if sum(one.is_ejected for one in members) >= fleet._rules.most(len(members)):
            return Verdict.TOO_MANY
    return Verdict.EJECTED


def _no_care(fleet: Fleet, group: Group, now_s: float) -> None:
    """Let services run out of upstreams."""


def _only_the_cap(fleet: Fleet, group: Group, now_s: float) -> None:
    members = [one for one in fleet._members(group) if one.is_ejected]
    for one in members[fleet._rules.most(len(group.keys)) :]:
        one.end_ejection("", now_s)


def _blind_to_drains(one: Availability) -> Standing:
    if one.health is not Health.UP:
        return Standing.DOWN
    return Standing.EJECTED if one.is_ejected else Standing.UP


def _blind_to_health(one: Availability) -> Standing:
    if one.is_ejected:
        return Standing.EJECTED
    return Standing.DRAINING if one.drained_by else Standing.UP


def _without_bound(rules: EjectionRules, ejections: int) -> float:
    return rules.base_s * 2.0**ejections


def _never_back(one: Availability, why: str, now_s: float) -> None:
    if why:
        one.until_s = None


def _never_forgive(one: Availability, rules: EjectionRules, now_s: float) -> None:
    """Hold everything against it for ever."""


def _never_settle(fleet: Fleet, key: str, one: Availability) -> None:
    """Overlook that something changed."""


MUTANTS: list[tuple[type, str, Callable[..., Any], str]] = [
    (Fleet, "_judge", _suspect_anyway, "the last open one is never ejected"),
    (Fleet, "_judge", _suspect_up_to_the_cap, "the last open one is never ejected"),
    (Fleet, "_keep_open", _no_care, "no more are ejected than the cap allows"),
    (Fleet, "_keep_open", _only_the_cap, "no ejection leaves a service without an open upstream"),
    (Availability, "standing", property(_blind_to_drains), "what drains gets no traffic"),  # type: ignore[list-item]
    (Availability, "standing", property(_blind_to_health), "what is down gets no traffic"),  # type: ignore[list-item]
    (EjectionRules, "duration_s", _without_bound, "no ejection is longer than the longest"),
    (Availability, "end_ejection", _never_back, "what is well gets traffic again"),
    (Availability, "_forgive", _never_forgive, "good behaviour makes up for everything in the end"),
    (Fleet, "_note", _never_settle, "what was told is what is"),
]


@pytest.mark.parametrize(("kind", "name", "fault", "invariant"), MUTANTS)
def test_each_invariant_breaks_when_the_code_does(
    kind: type, name: str, fault: Callable[..., Any], invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, name, fault)
    broken = set()
    for seed in range(ORDERS):
        try:
            Simulation(seed).run()
        except Broken as error:
            broken.add(str(error))
            if invariant in broken:
                return
    raise AssertionError(f"not seen: {invariant}; but {broken}")
