"""The health thread and what workers count: ejections and their end, refusals that probes contradict, the log."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minato.config.model import HealthConfig, PassiveHealthConfig, Upstream
from minato.control.health import HealthChecker
from minato.control.probe import ProbeTarget
from minato.control.standings import Standings
from minato.control.upstream_watch import UpstreamWatch
from minato.decide.fleet import Group
from minato.decide.health import Health, ProbeResult
from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing
from minato.net.loop import Loop
from tests.control.health_bench import Bench, addresses_of, by_key, messages
from tests.control.health_origin import QUICK, Origin, make_upstream
from tests.net.support import Clock

OK, FAILED = ProbeResult(True), ProbeResult(False, "status 500, expected 200")
UP, DOWN, EJECTED, DRAINING = Standing.UP, Standing.DOWN, Standing.EJECTED, Standing.DRAINING
FIVE = PassiveHealthConfig()


class Desk:
    """Standings of upstreams that are up, with a clock and counts set by hand."""

    def __init__(self, config: PassiveHealthConfig = FIVE, keys: str = "ab") -> None:
        self.now_s = 100.0
        self.paused_s = 0.0
        self.counts: dict[str, Outcomes] = {}
        self.published: dict[str, tuple[Standing, int]] = {}
        self.ejected: list[tuple[str, float]] = []
        self.standings = Standings(
            lambda: self.now_s,
            lambda key, standing, recovered_ms: self.published.update({key: (standing, recovered_ms)}),
            lambda: dict(self.counts),
            lambda key, until_s: self.ejected.append((key, until_s)),
            lambda second_s: int((second_s + self.paused_s) * 1000),
        )
        self.standings.update(config, keys, [Group("web", tuple(keys))])
        for key in keys:
            self.standings.on_result(key, Health.UP, OK)

    def count(self, key: str, **more: int) -> dict[str, bool]:
        self.counts[key] = self.counts.get(key, Outcomes()) + Outcomes(**more)
        return self.standings.look()

    def stands(self) -> str:
        return " ".join(f"{key}:{standing.name}" for key, (standing, _) in sorted(self.published.items()))


RATE = PassiveHealthConfig(consecutive=0, error_rate=0.5, min_requests=10, window_s=10.0)


def test_error_rates_go_on_while_other_upstreams_come_and_go() -> None:
    desk = Desk(RATE, "abc")
    for turn in range(10):
        desk.now_s += 0.5
        keys = "abc" if turn % 2 else "abd"
        desk.standings.update(RATE, keys, [Group("web", tuple("ab")), Group("other", (keys[2],))])
        desk.count("a", failed=1)
    assert desk.published["a"][0] is EJECTED


@pytest.mark.parametrize("change", [{"window_s": 20.0}, {"statuses": ((500, 599),)}])
def test_error_rates_begin_anew_where_they_are_of_something_else(change: dict[str, Any]) -> None:
    desk = Desk(RATE)
    desk.count("a", failed=9)
    desk.standings.update(replace(RATE, **change), "ab")
    desk.count("a", failed=9)
    assert desk.published["a"][0] is UP
    desk.count("a", failed=1)
    assert desk.published["a"][0] is EJECTED


def test_recoveries_are_published_by_the_clock_of_the_machine() -> None:
    desk = Desk()
    desk.paused_s = 50.0
    desk.standings.on_result("a", Health.DOWN, FAILED)
    desk.standings.on_result("a", Health.UP, OK)
    assert desk.published == {"a": (UP, 150_000), "b": (UP, 0)}


def test_failures_in_a_row_eject_and_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    desk = Desk()
    desk.count("a", failed=4)
    assert desk.stands() == "a:UP b:UP"
    desk.count("a", failed=1, tripped=1)
    assert (desk.stands(), desk.ejected) == ("a:EJECTED b:UP", [("a", 110.0)])
    desk.now_s += 11
    desk.standings.on_result("a", Health.UP, OK)
    assert desk.published["a"] == (UP, 111_000)
    assert messages(caplog)[-2:] == [
        "upstream a is ejected for 10 s: 5 failures in a row",
        "upstream a is back after its ejection",
    ]


def test_an_error_rate_ejects_and_what_was_before_counts_no_more() -> None:
    desk = Desk(PassiveHealthConfig(consecutive=0, error_rate=0.5, min_requests=10, eject_s=1))
    desk.count("a", failed=4, answered=5)
    assert desk.stands() == "a:UP b:UP"
    desk.count("a", failed=1)
    assert desk.stands() == "a:EJECTED b:UP"
    desk.now_s += 1
    desk.standings.on_result("a", Health.UP, OK)
    desk.count("a", failed=5)
    assert desk.stands() == "a:UP b:UP"


def test_what_fails_while_it_is_ejected_is_not_held_against_it() -> None:
    desk = Desk()
    desk.count("a", tripped=1)
    desk.count("a", tripped=3)
    desk.now_s += 10
    desk.standings.on_result("a", Health.UP, OK)
    assert desk.stands() == "a:UP b:UP"
    assert desk.standings.statuses()[0].ejections == 1


def test_a_suspect_that_may_not_be_ejected_is_told_of_seldom(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(keys="a")
    for _ in range(21):
        desk.count("a", tripped=1)
        desk.now_s += 1
    told = [line for line in messages(caplog) if "is not ejected" in line]
    assert told == ["upstream a fails (5 failures in a row), but is not ejected: no other upstream is open"] * 3


def test_off_nothing_that_workers_count_ejects() -> None:
    desk = Desk(PassiveHealthConfig(consecutive=0))
    desk.count("a", failed=100, tripped=10)
    assert desk.stands() == "a:UP b:UP"


def test_counts_that_were_there_before_an_upstream_was_known_are_not_held_against_it() -> None:
    desk = Desk(keys="ab")
    desk.standings.update(FIVE, "b", [Group("web", ("b",))])
    desk.count("a", refused=3, tripped=3)
    desk.standings.update(FIVE, "ab", [Group("web", ("a", "b"))])
    desk.standings.on_result("a", Health.UP, OK)
    assert desk.standings.look() == {}
    assert desk.stands() == "a:UP b:UP"


def test_each_standing_is_told_with_its_reason() -> None:
    desk = Desk(keys="abcd")
    desk.count("a", tripped=1)
    desk.standings.mark_drain("b", True)
    desk.standings.on_result("c", Health.DOWN, FAILED)
    told = [(one.key, one.standing, one.reason, one.ejected_for_s) for one in desk.standings.statuses()]
    assert told == [
        ("a", EJECTED, "5 failures in a row", 10.0),
        ("b", DRAINING, "asked by the admin API", None),
        ("c", DOWN, "status 500, expected 200", None),
        ("d", UP, "", None),
    ]
    assert desk.standings.open_by_service() == {"web": 1}


# With the thread


def watch(bench: Bench, *origins: Origin, passive: PassiveHealthConfig, config: HealthConfig = QUICK) -> HealthChecker:
    upstreams = [origin.upstream() for origin in origins]
    checker = bench.checker(*upstreams, config=config, start=False)
    keys = tuple(upstream.key for upstream in upstreams)
    checker.update(config, by_key(*upstreams), addresses_of(*upstreams), [Group("web", keys)], passive)
    checker.start()
    assert checker.wait_first_round()
    return checker


def test_a_probe_ends_an_ejection_when_its_time_is_up_however_seldom_probes_are(bench: Bench) -> None:
    well, other = bench.origin(), bench.origin()
    checker = watch(bench, well, other, passive=replace(FIVE, eject_s=0.3), config=replace(QUICK, interval_s=3600.0))
    trip(bench, checker, well.upstream())
    bench.published.wait_until(well.upstream(), False)
    bench.published.wait_until(well.upstream(), True)


def trip(bench: Bench, checker: HealthChecker, upstream: Upstream) -> None:
    with checker.fork_lock:
        bench.tripped[upstream.key] = bench.tripped.get(upstream.key, 0) + 1
    checker.wake()


def test_an_upstream_that_refuses_workers_but_answers_probes_is_ejected_and_does_not_flap(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refusing, other = bench.origin(), bench.origin()
    upstream = refusing.upstream()
    checker = watch(bench, refusing, other, passive=FIVE, config=replace(QUICK, interval_s=3600.0))

    bench.refuse(checker, upstream)
    bench.published.wait_until(upstream, False)
    bench.published.wait_until(upstream, True)  # by the probe that was made at once
    bench.refuse(checker, upstream)
    bench.published.wait_until(upstream, False)
    with checker.fork_lock:  # what is published is logged in the same turn
        lines = [line for line in messages(caplog) if upstream.key in line]
    assert sum("is down" in line for line in lines) == 1
    assert lines[-1] == (
        f"upstream {upstream.key} is ejected for 10 s: connections are refused, although its health check succeeds"
    )


def test_the_only_upstream_that_refuses_workers_but_answers_probes_stays_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = bench.origin()
    upstream = refusing.upstream()
    checker = watch(bench, refusing, passive=FIVE, config=replace(QUICK, interval_s=3600.0))
    bench.refuse(checker, upstream)
    bench.published.wait_until(upstream, False)
    bench.published.wait_until(upstream, True)
    calls = len(bench.published.calls)
    bench.refuse(checker, upstream)
    bench.published.wait_for(lambda: len(bench.published.calls) > calls)  # the probe that was made at once
    assert [up for _, up in bench.published.calls[calls:]] == [True]
    assert sum("is down" in line for line in messages(caplog)) == 1
    assert any("is not ejected: no other upstream is open" in line for line in messages(caplog))


def test_since_when_one_is_down_goes_to_the_next_master_by_the_clock_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("minato.net.loop.time", clock)
    loops = [Loop(forgives_pauses=True) for _ in range(2)]
    target = ProbeTarget(make_upstream(1), (), QUICK)
    old, new = (UpstreamWatch(loop, target, report=lambda *told: None, rng=random.Random(1)) for loop in loops)
    clock.advance(50.0)
    loops[0].turn(0.0)
    old.down_since_s = loops[0].now_s
    new.restore(old.snapshot())
    loops[1].now_s = clock.monotonic()
    assert (loops[0].paused_s, loops[1].paused_s) == (50.0, 0.0)
    assert new.down_since_s == loops[1].now_s
    for loop in loops:
        loop.close()


def test_a_round_in_between_does_not_put_off_the_probe_that_ends_an_ejection(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("minato.net.loop.time", clock)
    probed_s: list[float] = []

    class AtOnce:
        def __init__(self, loop: Loop, target: ProbeTarget, done: Callable[[ProbeResult], None]) -> None:
            self._done = done

        def start(self) -> None:
            probed_s.append(clock.now_s - began_s)
            self._done(OK)

    monkeypatch.setattr("minato.control.upstream_watch.Probe", AtOnce)
    loop = Loop()
    target = ProbeTarget(make_upstream(1), (), replace(QUICK, interval_s=10.0))
    watch_ = UpstreamWatch(loop, target, report=lambda *told: None, rng=random.Random(1))
    began_s = clock.now_s
    watch_.start()
    for _ in range(250):
        clock.advance(0.1)
        loop.turn(0.0)
        if len(probed_s) == 1:
            watch_.probe_at(began_s + 15.0)
    loop.close()
    first_s, second_s, third_s, *_ = probed_s
    assert first_s < 1 and 9 <= second_s <= 10.2  # the second round comes a little early
    assert 15.0 < third_s < 15.3
