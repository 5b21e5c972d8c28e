"""What failed requests, drains, slow start and backups are asked for with: every key, and what is wrong with others."""

from __future__ import annotations

import pytest

from minato.config import HealthConfig, PassiveHealthConfig

from .samples import GOOD_SERVICE, Complaints, Load, bad, upstream


def test_passive_health_is_on_by_default_and_counts_no_status(load: Load) -> None:
    config = load(GOOD_SERVICE).passive_health
    assert config == PassiveHealthConfig(5, 0.0, 10.0, 20, 10.0, 300.0, 0.5, ())
    assert config.is_on


def test_every_key_of_passive_health_arrives(load: Load) -> None:
    text = (
        "passive_health: {consecutive: 3, error_rate: .25, window: 20, min_requests: 7, eject: 2.5, max_eject: 60,\n"
        '                 max_ejected: 1, statuses: "500,502-504"}\n'
    )
    assert load(text + GOOD_SERVICE).passive_health == PassiveHealthConfig(
        3, 0.25, 20.0, 7, 2.5, 60.0, 1.0, ((500, 500), (502, 504))
    )


@pytest.mark.parametrize("text", ["{consecutive: 0}", "{max_ejected: 0}", "{max_ejected: 0, error_rate: 0.5}"])
def test_passive_health_is_off_where_nothing_ejects(text: str, load: Load) -> None:
    assert not load(f"passive_health: {text}\n{GOOD_SERVICE}").passive_health.is_on


def test_the_error_rate_alone_is_enough(load: Load) -> None:
    assert load(f"passive_health: {{consecutive: 0, error_rate: 0.5}}\n{GOOD_SERVICE}").passive_health.is_on


def test_drain_statuses_and_slow_start_arrive(load: Load) -> None:
    health = load(f'health: {{drain: "404,503", slow_start: 30}}\n{GOOD_SERVICE}').health
    assert (health.drain, health.slow_start_s) == (((404, 404), (503, 503)), 30.0)
    assert load(f"health: {{drain: off}}\n{GOOD_SERVICE}").health == HealthConfig()


def test_a_backup_is_one(load: Load) -> None:
    upstreams = "upstreams: [{host: http://a}, {host: http://b, backup: true}]"
    text = f"services:\n- {{name: web, listen_port: 80, hosts: [http://e/], {upstreams}}}\n"
    assert [one.backup for one in load(text).services[0].upstreams] == [False, True]


BAD = [
    bad(
        "a share in percent",
        "passive_health: {error_rate: 50%}\n",
        "1: passive_health.error_rate: expected a share from 0 to 1, got 50% (0.5 is half of it)",
    ),
    bad(
        "a share above the whole",
        "passive_health: {max_ejected: 1.5}\n",
        "1: passive_health.max_ejected: 1.5 is out of range: at most 1",
    ),
    bad(
        "a share that is no number",
        "passive_health: {max_ejected: .nan}\n",
        "1: passive_health.max_ejected: expected a share from 0 to 1, got .nan",
    ),
    bad(
        "a window of no length",
        "passive_health: {window: 0}\n",
        "1: passive_health.window: 0 is out of range: at least 0.1 seconds",
    ),
    bad(
        "successes as failures",
        'passive_health: {statuses: "200-599"}\n',
        '1: passive_health.statuses: "200-599": only an error, 400 and above, is a failure',
    ),
    bad(
        "a longest ejection that is shorter than the first",
        "passive_health:\n  max_eject: 5\n",
        "2: passive_health.max_eject: max_eject (5 s) is less than eject (10 s)",
    ),
    bad(
        "a first ejection that is longer than the longest",
        "passive_health:\n  eject: 400\n",
        "2: passive_health.eject: max_eject (300 s) is less than eject (400 s)",
    ),
    bad(
        "a drain status that is none",
        'health: {drain: "gone"}\n',
        '1: health.drain: expected statuses such as "200", "200-399" or "200,204,300-399", got the text "gone"',
    ),
    bad(
        "a slow start of a year",
        "health: {slow_start: 31_536_000}\n",
        "1: health.slow_start: 31_536_000 is out of range: at most 86,400 seconds",
    ),
    bad(
        "a backup that is a number",
        upstream("http://a", "backup: 2"),
        "7: services[0].upstreams[0].backup: expected true or false, got 2",
    ),
    bad(
        "nothing but backups",
        upstream("http://a", "backup: true"),
        "5: services[0].upstreams: all are backups; one at least must not be",
    ),
]


@pytest.mark.parametrize(("text", "lines"), BAD)
def test_each_mistake_is_reported_with_line_and_path(text: str, lines: list[str], complaints: Complaints) -> None:
    assert complaints(text) == lines


def test_a_bad_upstream_beside_backups_is_the_only_complaint(complaints: Complaints) -> None:
    upstreams = "upstreams: [{host: nonsense}, {host: http://b, backup: true}]"
    text = f"services:\n- {{name: web, listen_port: 80, hosts: [http://e/], {upstreams}}}\n"
    [line] = complaints(text)
    assert "nonsense" in line
