"""What the comparison's report says of a series; no figure here was measured."""

from __future__ import annotations

from pathlib import Path

import report
from measure import Sample
from medians import medians_of
from targets import compare


def _run(cpu_us: float, **more: object) -> list[Sample]:
    return [Sample(1_000, rate=1.0, p99_us=1_000.0, cpu_us=cpu_us, **more)]  # type: ignore[arg-type]


def _verdicts(samples: dict[tuple[str, str], list[Sample]]) -> dict[tuple[str, str], str]:
    return {(outcome.title, outcome.measure): outcome.verdict for outcome in compare(medians_of(samples))}


def test_a_target_is_reached_up_to_its_limit() -> None:
    target = ("cache hit, same head", "CPU, minato : HAProxy")
    assert _verdicts({("hit", "minato"): _run(10.0), ("hit", "haproxy"): _run(10.0)})[target] == "reached"
    assert _verdicts({("hit", "minato"): _run(10.1), ("hit", "haproxy"): _run(10.0)})[target] == "not reached"


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert set(_verdicts({("hit", "minato"): _run(10.0)}).values()) == {"not measured"}


def test_a_run_with_errors_reaches_nothing() -> None:
    samples = {("hit", "minato"): _run(1.0, errors={"status": 1}), ("hit", "haproxy"): _run(10.0)}
    assert _verdicts(samples)["cache hit, same head", "CPU, minato : HAProxy"] == "errors"


def test_a_crowd_is_held_against_the_ratio_of_a_few() -> None:
    target = ("forward, 1000 connections", "CPU, minato : nginx, relative to 64 connections")
    few = {("forward", "minato"): _run(20.0), ("forward", "nginx"): _run(10.0)}
    assert _verdicts(few | {("c1000", "minato"): _run(50.0), ("c1000", "nginx"): _run(20.0)})[target] == "reached"
    assert _verdicts(few | {("c1000", "minato"): _run(51.0), ("c1000", "nginx"): _run(20.0)})[target] == "not reached"


def test_the_report_says_whether_the_cost_stays_flat(tmp_path: Path) -> None:
    samples = {
        ("services-1", "minato"): _run(10.0),
        ("services-1000", "minato"): _run(11.0),
        ("services-10000", "minato"): _run(11.2),
    }
    report.write(tmp_path, "series", {}, samples, {})
    rows = [line for line in (tmp_path / "series.md").read_text().splitlines() if "service" in line and "yes" in line]
    assert [row.split(" | ")[0] for row in rows] == ["| 1 service", "| 1,000 services, one asked"]
