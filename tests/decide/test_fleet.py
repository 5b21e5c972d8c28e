"""Ejections, drains and recoveries, one rule at a time; all of them at random are in test_fleet_simulation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from minato.decide.fleet import Change, Fleet, Group, Verdict
from minato.decide.health import Health
from minato.decide.standing import Availability, DrainedBy, EjectionRules, Standing

RULES = EjectionRules(is_on=True, base_s=10.0, max_s=300.0, max_share=0.5, window_s=10.0)
UP, DOWN, EJECTED, DRAINING = Standing.UP, Standing.DOWN, Standing.EJECTED, Standing.DRAINING


class Bench:
    """A fleet with a clock, all upstreams of one service and up."""

    def __init__(self, keys: str = "ab", rules: EjectionRules = RULES, groups: tuple[Group, ...] | None = None) -> None:
        self.fleet = Fleet()
        self.now_s = 1000.0
        self.changes: list[Change] = []
        self.fleet.update(rules, keys, groups or (Group("web", tuple(keys)),), self.now_s)
        for key in keys:
            self.probe(key)
        self.changes.clear()

    def settle(self) -> list[Change]:
        changes = self.fleet.settle(self.now_s)
        self.changes += changes
        return changes

    def probe(self, key: str, ok: bool = True, *, drains: bool = False, reason: str = "") -> list[Change]:
        health = Health.UP if ok else Health.DOWN
        self.fleet.note_probe(key, health, ok=ok, drains=drains, reason=reason, now_s=self.now_s)
        return self.settle()

    def suspect(self, key: str) -> Verdict:
        verdict = self.fleet.suspect(key, "5 failures in a row", self.now_s)
        self.settle()
        return verdict

    def refuse(self, key: str) -> None:
        self.fleet.note_refused(key, Health.DOWN, "connection refused", self.now_s)
        self.settle()

    def mark(self, key: str, on: bool = True, by: DrainedBy = DrainedBy.ADMIN) -> None:
        self.fleet.mark_drain(key, by, on)
        self.settle()

    def stands(self) -> str:
        return " ".join(f"{key}:{self.fleet[key].standing.name}" for key in self.fleet)


def test_a_suspect_is_ejected_where_another_one_is_open() -> None:
    bench = Bench()
    assert bench.suspect("a") is Verdict.EJECTED
    assert bench.changes == [Change("a", UP, EJECTED, "5 failures in a row", 10.0)]


def test_the_only_upstream_is_never_ejected() -> None:
    bench = Bench("a")
    assert bench.suspect("a") is Verdict.LAST_OPEN
    assert bench.stands() == "a:UP" and bench.changes == []


def test_the_last_open_one_is_never_ejected() -> None:
    bench = Bench("abc")
    bench.probe("a", ok=False)
    bench.mark("b")
    assert bench.suspect("c") is Verdict.LAST_OPEN
    assert bench.stands() == "a:DOWN b:DRAINING c:UP"


@pytest.mark.parametrize(
    ("share", "upstreams", "most"), [(0.5, 2, 1), (0.5, 5, 2), (0.1, 5, 1), (0.3, 10, 3), (1, 4, 4), (0, 4, 0)]
)
def test_the_share_caps_ejections_and_allows_one_at_least(share: float, upstreams: int, most: int) -> None:
    assert EjectionRules(is_on=True, max_share=share).most(upstreams) == most


def test_beyond_the_cap_nobody_is_ejected() -> None:
    bench = Bench("abcd")
    assert [bench.suspect(key) for key in "abc"] == [Verdict.EJECTED, Verdict.EJECTED, Verdict.TOO_MANY]


def test_an_upstream_of_two_services_is_ejected_only_if_both_can_spare_it() -> None:
    bench = Bench("abc", groups=(Group("web", ("a", "b")), Group("api", ("b",))))
    assert bench.suspect("b") is Verdict.LAST_OPEN
    assert bench.suspect("a") is Verdict.EJECTED


def test_one_that_is_not_open_is_not_ejected_again() -> None:
    bench = Bench("abc")
    bench.suspect("a")
    assert bench.suspect("a") is Verdict.NOT_OPEN
    assert bench.fleet["a"].ejections == 1


def test_nobody_is_ejected_where_that_is_off_or_nothing_is_known() -> None:
    bench = Bench(rules=EjectionRules())
    assert bench.suspect("a") is Verdict.OFF
    assert bench.suspect("nobody") is Verdict.NOT_OPEN


def test_a_probe_that_succeeds_after_its_time_brings_it_back() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.now_s += 9.99
    assert bench.probe("a") == []
    bench.now_s += 0.01
    assert bench.probe("a") == [Change("a", EJECTED, UP, "", 0.0)]


def test_a_failing_probe_keeps_it_down_and_it_comes_up_as_what_was_down_does() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.now_s += 20
    assert [change.after for change in bench.probe("a", ok=False, reason="timeout")] == [DOWN]
    assert [change.after for change in bench.probe("a")] == [UP]


def test_it_comes_up_into_its_ejection_while_that_lasts() -> None:
    bench = Bench(rules=replace(RULES, base_s=20.0))
    bench.suspect("a")
    bench.now_s += 10.1
    bench.probe("a", ok=False)
    bench.now_s += 4
    assert bench.probe("a") == [Change("a", DOWN, EJECTED, "5 failures in a row", pytest.approx(5.9))]


def test_an_ejection_that_a_failed_probe_explains_is_forgotten() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.now_s += 1
    bench.probe("a", ok=False, reason="connection refused")
    assert (bench.stands(), bench.fleet["a"].ejections) == ("a:DOWN b:UP", 0)
    bench.now_s += 1
    assert [change.after for change in bench.probe("a")] == [UP]


def test_an_ejection_that_a_refused_connection_explains_is_forgotten() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.refuse("a")
    bench.now_s += 1
    assert [change.after for change in bench.probe("a")] == [UP]


def test_each_ejection_lasts_twice_as_long_up_to_the_longest() -> None:
    bench = Bench()
    lasted = []
    for _ in range(8):
        bench.suspect("a")
        until_s = bench.fleet["a"].until_s
        assert until_s is not None
        lasted.append(until_s - bench.now_s)
        bench.now_s = until_s
        bench.probe("a")
    assert lasted == [10, 20, 40, 80, 160, 300, 300, 300]


def test_good_behaviour_makes_up_for_ejections_one_by_one() -> None:
    one = Availability()
    for _ in range(3):
        one.eject(RULES, "", 0.0)
        one.end_ejection("", 0.0)
    assert one.ejections == 3
    one.eject(RULES, "", 39.0)  # one second short of its third: 40 s
    assert one.ejections == 4
    one.end_ejection("", 100.0)
    one.eject(RULES, "", 100.0 + 80 + 40)  # makes up for the fourth and the third
    assert one.ejections == 3
    one.end_ejection("", 1000.0)
    one.eject(RULES, "", 9999.0)
    assert one.ejections == 1


def test_a_very_long_row_of_ejections_is_no_overflow() -> None:
    assert RULES.duration_s(100_000) == 300.0


def test_ejections_end_early_when_nobody_else_is_left() -> None:
    bench = Bench("abc", EjectionRules(is_on=True, max_share=1.0))
    bench.suspect("a")
    bench.suspect("b")
    bench.changes.clear()
    bench.probe("c", ok=False, reason="timeout")
    assert bench.stands() == "a:UP b:UP c:DOWN"
    early = [change.reason for change in bench.changes if change.before is EJECTED]
    assert early == ["no other upstream of service web is open"] * 2
    assert bench.fleet["a"].recovered_s is None  # there is nobody to spare it


def test_the_last_open_one_that_drains_ends_ejections_of_others() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.mark("b")
    assert bench.stands() == "a:UP b:DRAINING"


def test_a_smaller_service_may_have_fewer_ejected() -> None:
    bench = Bench("abcd")
    bench.suspect("a")
    bench.now_s += 1
    bench.suspect("b")
    bench.fleet.update(RULES, "abc", (Group("web", ("a", "b", "c")),), bench.now_s)
    bench.settle()
    assert bench.stands() == "a:UP b:EJECTED c:UP"  # the one that would have been back first


def test_a_reload_keeps_ejections_drains_and_recoveries() -> None:
    bench = Bench("abcd")
    bench.suspect("a")
    bench.mark("b")
    bench.probe("c", ok=False)
    bench.now_s += 1
    bench.probe("c")
    until_s, recovered_s = bench.fleet["a"].until_s, bench.fleet["c"].recovered_s
    bench.changes.clear()
    bench.fleet.update(RULES, "ebcad", (Group("new", tuple("abcde")),), bench.now_s + 1)
    assert bench.settle() == []
    assert bench.stands() == "e:DOWN b:DRAINING c:UP a:EJECTED d:UP"
    assert (bench.fleet["a"].until_s, bench.fleet["c"].recovered_s) == (until_s, recovered_s)


def test_a_reload_that_turns_ejections_off_ends_them() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.fleet.update(EjectionRules(), "ab", (Group("web", ("a", "b")),), bench.now_s)
    assert [change.after for change in bench.settle()] == [UP]


def test_what_is_configured_no_more_is_forgotten() -> None:
    bench = Bench()
    bench.mark("a")
    bench.fleet.update(RULES, "b", (Group("web", ("b",)),), bench.now_s)
    bench.fleet.update(RULES, "ab", (Group("web", ("a", "b")),), bench.now_s)
    bench.settle()
    bench.probe("a")
    assert bench.stands() == "a:UP b:UP"


def test_events_about_unknown_upstreams_are_nothing() -> None:
    bench = Bench()
    bench.probe("z")
    bench.refuse("z")
    bench.mark("z")
    assert not bench.fleet.is_contradicted("z", bench.now_s)
    assert bench.stands() == "a:UP b:UP"


# Drains


def test_both_marks_have_to_go_before_it_is_up() -> None:
    bench = Bench()
    bench.mark("a")
    assert bench.changes[-1] == Change("a", UP, DRAINING, "asked by the admin API")
    bench.probe("a", drains=True, reason="its health check says 503")
    bench.mark("a", on=False)
    assert bench.stands() == "a:DRAINING b:UP"
    bench.probe("a")
    assert bench.stands() == "a:UP b:UP"


def test_a_failed_probe_ends_no_drain() -> None:
    bench = Bench()
    bench.probe("a", drains=True, reason="its health check says 503")
    bench.probe("a", ok=False)
    assert bench.stands() == "a:DOWN b:UP"
    assert bench.fleet["a"].drained_by == {DrainedBy.PROBE}


def test_all_may_drain_and_then_nobody_is_open() -> None:
    bench = Bench()
    bench.mark("a")
    bench.mark("b")
    assert bench.fleet.open_in(Group("web", ("a", "b"))) == 0


def test_one_that_is_ejected_and_drains_comes_back_to_drain() -> None:
    bench = Bench()
    bench.suspect("a")
    bench.mark("a")
    bench.now_s += 10
    assert [change.after for change in bench.probe("a")] == [DRAINING]


# Recoveries


def test_the_first_result_is_no_recovery() -> None:
    bench = Bench()
    assert bench.fleet["a"].recovered_s is None


def test_one_that_was_down_at_first_recovers_when_it_comes_up() -> None:
    fleet = Fleet()
    fleet.update(RULES, "a", (Group("web", ("a",)),), 0.0)
    fleet.note_probe("a", Health.DOWN, ok=False, drains=False, reason="refused", now_s=0.0)
    fleet.settle(0.0)
    fleet.note_probe("a", Health.UP, ok=True, drains=False, reason="", now_s=5.0)
    fleet.settle(5.0)
    assert fleet["a"].recovered_s == 5.0


@pytest.mark.parametrize("leave", ["probe", "eject", "drain"])
def test_what_was_down_ejected_or_drained_recovers(leave: str) -> None:
    bench = Bench()
    if leave == "probe":
        bench.probe("a", ok=False)
    elif leave == "eject":
        bench.suspect("a")
    else:
        bench.mark("a")
    bench.now_s += 50
    bench.mark("a", on=False)
    bench.probe("a")
    assert (bench.fleet["a"].standing, bench.fleet["a"].recovered_s) == (UP, bench.now_s)


# Refused connections that probes contradict


def test_a_probe_that_succeeds_after_a_refusal_puts_the_next_refusal_in_doubt() -> None:
    bench = Bench()
    assert not bench.fleet.is_contradicted("a", bench.now_s)
    bench.refuse("a")
    bench.now_s += 1
    bench.probe("a")
    bench.now_s += 1
    assert bench.fleet.is_contradicted("a", bench.now_s)


def test_the_doubt_lasts_for_the_window_after_the_latest_refusal() -> None:
    bench = Bench()
    bench.refuse("a")
    bench.probe("a")
    for _ in range(5):
        bench.now_s += 9
        assert bench.fleet.is_contradicted("a", bench.now_s)
    bench.now_s += 10.1
    assert not bench.fleet.is_contradicted("a", bench.now_s)


def test_a_probe_that_fails_ends_the_doubt() -> None:
    bench = Bench()
    bench.refuse("a")
    bench.probe("a")
    bench.probe("a", ok=False)
    bench.probe("a")
    assert not bench.fleet.is_contradicted("a", bench.now_s)


def test_what_was_down_indeed_after_a_refusal_leaves_no_doubt() -> None:
    bench = Bench()
    bench.refuse("a")
    bench.probe("a", ok=False)
    bench.probe("a")
    assert not bench.fleet.is_contradicted("a", bench.now_s)


def test_recovering_from_a_failed_probe_is_no_doubt() -> None:
    bench = Bench()
    bench.probe("a", ok=False)
    bench.probe("a")
    assert not bench.fleet.is_contradicted("a", bench.now_s)


# Over to another master


def test_another_master_goes_on_where_this_one_stopped() -> None:
    bench = Bench("abcd")
    bench.suspect("a")
    bench.suspect("b")
    bench.mark("b")
    bench.probe("c", ok=False)
    bench.now_s += 3
    bench.probe("c")
    bench.now_s += 1
    state = json.loads(json.dumps(bench.fleet.export(bench.now_s)))
    heir = Fleet()
    heir.inherit(state)
    heir.update(RULES, "abcd", (Group("web", tuple("abcd")),), 50.0)
    for key in "abcd":
        heir.note_probe(key, Health.UP, ok=True, drains=False, reason="", now_s=50.0)
    heir.settle(50.0)
    assert [heir[key].standing for key in "abcd"] == [EJECTED, EJECTED, UP, UP]
    assert heir["a"].until_s == pytest.approx(56.0) and heir["a"].ejections == 1
    assert heir["b"].drained_by == {DrainedBy.ADMIN}
    assert heir["c"].recovered_s == pytest.approx(49.0)


def inherit(bench: Bench) -> Fleet:
    heir = Fleet()
    heir.inherit(json.loads(json.dumps(bench.fleet.export(bench.now_s))))
    return heir


def test_what_another_master_knew_of_an_upstream_that_is_not_configured_is_forgotten() -> None:
    bench = Bench("abc")
    bench.suspect("a")
    bench.mark("b")
    heir = inherit(bench)
    heir.update(RULES, "c", (Group("web", ("c",)),), 50.0)
    heir.update(RULES, "abc", (Group("web", tuple("abc")),), 60.0)
    assert not heir["a"].is_ejected and not heir["b"].drained_by


def test_what_another_master_knew_of_an_address_that_its_name_has_lost_is_forgotten() -> None:
    bench = Bench("ab")
    names = {"a": "app", "b": "app"}
    bench.fleet.update(RULES, "ab", (Group("web", tuple("ab")),), bench.now_s, names)
    bench.mark("b")
    heir = inherit(bench)
    heir.update(RULES, "a", (Group("web", ("a",)),), 50.0, {"a": "app"})
    heir.update(RULES, "ab", (Group("web", ("a", "b")),), 60.0, names)
    assert not heir["b"].drained_by


def test_what_another_master_knew_of_addresses_waits_for_a_name_that_does_not_resolve_yet() -> None:
    bench = Bench("abc")
    names = {"a": "app", "b": "app"}
    bench.fleet.update(RULES, "abc", (Group("web", tuple("abc")),), bench.now_s, names)
    bench.suspect("a")
    for key in "ab":
        bench.mark(key)
    heir = inherit(bench)
    heir.update(RULES, ["app", "c"], (Group("web", ("app", "c")),), 50.0)
    heir.update(RULES, ["app", "c"], (Group("web", ("app", "c")),), 51.0)
    assert heir["app"].drained_by == {DrainedBy.ADMIN}  # it is the name that was asked for
    heir.update(RULES, "adc", (Group("web", tuple("adc")),), 52.0, {"a": "app", "d": "app"})
    assert heir["a"].is_ejected
    assert [heir[key].drained_by for key in "adc"] == [{DrainedBy.ADMIN}, {DrainedBy.ADMIN}, set()]
    heir.update(RULES, "abdc", (Group("web", tuple("abdc")),), 53.0, names | {"d": "app"})
    assert heir["b"].ejections == 0 and heir["b"].drained_by  # as what is new of a name that drains


def test_name_that_is_wanted_back_before_it_resolves_does_not_drain_when_it_does() -> None:
    bench = Bench("ab")
    bench.fleet.update(RULES, "ab", (Group("web", tuple("ab")),), bench.now_s, {"a": "app"})
    bench.mark("a")
    heir = inherit(bench)
    for now_s in (50.0, 51.0, 52.0):
        heir.update(RULES, ["app", "b"], (Group("web", ("app", "b")),), now_s)
        assert bool(heir["app"].drained_by) is (now_s == 50.0)
        heir.mark_drain("app", DrainedBy.ADMIN, False)
    heir.update(RULES, "ab", (Group("web", tuple("ab")),), 53.0, {"a": "app"})
    assert not heir["a"].drained_by


def test_an_address_that_is_new_drains_where_all_of_its_name_do() -> None:
    bench = Bench("abc")
    names = {"a": "app", "b": "app", "d": "app"}
    bench.fleet.update(RULES, "abc", bench.fleet.groups, bench.now_s, names)
    bench.mark("a")
    bench.fleet.update(RULES, "acd", bench.fleet.groups, bench.now_s, names)  # b did not drain: nor does d
    assert not bench.fleet["d"].drained_by
    bench.mark("d")
    bench.fleet.update(RULES, "bc", bench.fleet.groups, bench.now_s, names)
    bench.probe("b")
    assert bench.stands() == "b:DRAINING c:UP"
    assert bench.fleet["b"].reason == "asked by the admin API"
    bench.mark("b", False)
    assert bench.stands() == "b:UP c:UP"


def test_a_drain_by_its_health_check_is_that_address_alone() -> None:
    bench = Bench("a")
    bench.fleet.update(RULES, "a", bench.fleet.groups, bench.now_s, {"a": "app"})
    bench.mark("a", by=DrainedBy.PROBE)
    bench.fleet.update(RULES, "ab", bench.fleet.groups, bench.now_s, {"a": "app", "b": "app"})
    assert not bench.fleet["b"].drained_by
