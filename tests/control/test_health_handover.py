"""What is known of upstreams goes from one master to the next."""

from __future__ import annotations

import json

import pytest

from minato.config.model import PassiveHealthConfig
from minato.decide.fleet import Group
from minato.decide.health import Health
from minato.decide.standing import Standing
from tests.control.health_bench import SELDOM, SICK, Bench, addresses_of, by_key
from tests.control.health_origin import (
    make_upstream,
    stay_silent,
)


def test_what_the_old_master_knew_is_published_at_once_and_needs_no_first_round(bench: Bench) -> None:
    up, down, new = bench.origin(stay_silent), bench.origin(stay_silent), bench.origin(stay_silent)
    known, sick, unknown = (make_upstream(origin.port) for origin in (up, down, new))
    checker = bench.checker(config=SELDOM)
    checker.adopt_health(
        {
            known.key: {"state": "up", "run": 0, "down_since_s": 0.0},
            sick.key: {"state": "down", "run": 0, "down_since_s": 1.0},
            "http://not.configured/": {"state": "up", "run": 0, "down_since_s": 0.0},
        }
    )
    checker.update(SELDOM, by_key(known, sick), addresses_of(known, sick))
    assert bench.published.up == {known.key: True, sick.key: False}
    assert checker.wait_first_round(0.0)
    checker.update(SELDOM, by_key(known, unknown), addresses_of(known, unknown))
    assert not checker.wait_first_round(0.0)


def test_what_is_known_survives_from_one_checker_to_the_next(bench: Bench) -> None:
    well, sick = make_upstream(bench.origin().port), make_upstream(bench.origin(SICK).port)
    old = bench.checker(well, sick, config=SELDOM)
    assert old.wait_first_round(10)
    new = bench.checker(config=SELDOM, start=False)
    new.adopt_health(json.loads(json.dumps(old.export_health())))
    new.update(SELDOM, by_key(well, sick), addresses_of(well, sick))
    assert new.states() == {well.key: Health.UP, sick.key: Health.DOWN}


def test_drains_survive_from_one_checker_to_the_next_before_any_result(bench: Bench) -> None:
    stays, leaves = (make_upstream(bench.origin().port) for _ in range(2))
    old = bench.checker(stays, leaves, config=SELDOM)
    assert old.wait_first_round(10)
    old.mark_drain([leaves.key], True)
    new = bench.checker(config=SELDOM, start=False)
    new.adopt_health(json.loads(json.dumps(old.export_health())))
    new.update(SELDOM, by_key(stays, leaves), addresses_of(stays, leaves))
    assert {status.key: status.standing for status in new.statuses()} == {
        stays.key: Standing.UP,
        leaves.key: Standing.DRAINING,
    }


@pytest.mark.parametrize("ejected_first", [True, False])
def test_ejection_is_not_ended_while_the_others_are_not_taken_over_yet(bench: Bench, ejected_first: bool) -> None:
    fine, fails = (make_upstream(bench.origin().port) for _ in range(2))
    both = (fails, fine) if ejected_first else (fine, fails)
    groups, rules = [Group("web", tuple(one.key for one in both))], PassiveHealthConfig()
    health: dict[str, object] = {one.key: {"state": "up", "run": 0, "down_since_s": 0.0} for one in both}
    standing = {"ejections": 1, "ejected_for_s": 60.0, "ejected_reason": "5 failures in a row"}
    health[fails.key] = {"state": "up", "run": 0, "down_since_s": 0.0, "standing": standing}
    new = bench.checker(config=SELDOM, start=False)
    new.adopt_health(health)
    new.update(SELDOM, by_key(*both), addresses_of(*both), groups, rules)
    assert {one.key: one.standing for one in new.statuses()} == {fails.key: Standing.EJECTED, fine.key: Standing.UP}
    assert bench.published.up == {fails.key: False, fine.key: True}


def test_what_was_known_of_an_upstream_that_comes_later_is_not_believed(bench: Bench) -> None:
    late = make_upstream(bench.origin(stay_silent).port)
    checker = bench.checker(config=SELDOM)
    checker.adopt_health({late.key: {"state": "up", "run": 0, "down_since_s": 0.0}})
    checker.update(SELDOM, {}, {})
    checker.update(SELDOM, by_key(late), addresses_of(late))
    assert checker.states() == {late.key: Health.UNKNOWN}
