"""Scenarios one after the other, each with its share of the time, on one target or several."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos import failing, processes, reloading, rude, together
from tests.chaos.rig import Result, Scenario, run_scenario
from tests.chaos.targets import TARGETS, is_installed

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for module in (reloading, processes, failing, rude, together)
    for scenario in module.SCENARIOS
}
LEAST_S = 3.0


def choose(targets: Sequence[str], names: Sequence[str]) -> list[tuple[Scenario, str]]:
    """Return what is to be run; peers take part in what they can be held against."""
    return [
        (SCENARIOS[name], target)
        for name in names
        for target in targets
        if target == "minato" or (SCENARIOS[name].peers and is_installed(target))
    ]


def run_campaign(
    chosen: Sequence[tuple[Scenario, str]], seconds: float, seed: int, tell: Callable[[Result], None]
) -> list[Result]:
    """Run them, in that time for all together; each gets at least LEAST_S.

    Args:
        seed: chance of the clients and of the mischief; how the machine schedules is beyond it.
        tell: is given each result as soon as it is there.
    """
    shares = sum(scenario.share for scenario, _ in chosen)
    results = []
    with tempfile.TemporaryDirectory(prefix="minato-chaos-") as base:
        for number, (scenario, target) in enumerate(chosen):
            span_s = max(seconds * scenario.share / shares, LEAST_S)
            directory = Path(base) / f"{number}-{scenario.name}"
            result = asyncio.run(run_scenario(scenario, TARGETS[target], span_s, seed, directory))
            results.append(result)
            tell(result)
    return results
