"""``make soak``: moderate load for a long time, reloads, an origin that flaps; exit status 1 unless all stays flat.

50,000 URLs, half of the time with a cache that is far too small for them, half of it with one that has room for all.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from tests.chaos.clients import Asker, World
from tests.chaos.failing import allowed_misdeeds, killed_origins
from tests.chaos.load import Mix
from tests.chaos.origin import Mode
from tests.chaos.origin_process import OriginProcess
from tests.chaos.report import render_failures, render_line
from tests.chaos.rig import Result, Rig, Scenario, run_scenario
from tests.chaos.sampling import Sample, take_sample
from tests.chaos.slopes import Trend, fit_trend, grows_steadily, has_risen, is_unclear
from tests.chaos.targets import MinatoTarget

URLS = 50_000
CAPACITIES = (1_000, 100_000)  # per worker
RELOAD_EVERY_S = 20.0
SAMPLE_EVERY_S = 1.0
# Of the time between two reloads: when the origin begins to misbehave, and for how long; so all cycles are alike.
FLAP_AT, FLAP_FOR = (0.15, 0.45, 0.75), 0.12
_LONGEST_WARM_UP_S = 60.0
_MIX = Mix(keep_alive=8, per_request=3, post=4, events=3, tunnels=2, think_s=0.1)
_FETCHERS = 20
_THINK_S = 0.07
# What must not have more at its lowest than before; the rest may jitter, and must not rise by more than 1 % a minute.
_COUNTED = ("master_fds", "threads", "processes", "shm_bytes", "shm_segments")
_JITTERING = ("pss_kib", "rss_kib", "master_rss_kib", "fds")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a half takes, and how often what happens in it."""

    seconds: float

    @property
    def reload_every_s(self) -> float:
        """A short try has shorter teeth, so that there are enough of them."""
        return min(RELOAD_EVERY_S, self.seconds / 8)

    @property
    def warm_up_s(self) -> float:
        return min(_LONGEST_WARM_UP_S, self.seconds / 4)


async def fetch_many(world: World) -> None:
    """A client that asks for any of many URLs, some of them far more often than others."""
    asker = Asker(world, "soak", keeps=True)
    while not world.is_over.is_set():
        await world.think(_THINK_S)
        number = int(URLS * world.rng.random() ** 2)
        await asker.get_target(b"/l/%d/%d" % (500 + number % 4_000, number), world.new_name("soak"))
    asker.close()


async def soak(rig: Rig, plan: Plan, samples: list[Sample]) -> None:
    """Have many URLs asked for while there are reloads and an origin flaps; sample all the while."""
    for _ in range(_FETCHERS):
        rig.load.add(fetch_many(rig.world))
    spans: list[tuple[OriginProcess, float, float]] = []
    flapping = asyncio.create_task(_flap(rig, plan.reload_every_s, spans))
    async for _ in rig.ticks(SAMPLE_EVERY_S):
        samples.append(await asyncio.to_thread(take_sample, rig.minato.pid))
    await flapping
    await rig.load.finish()
    rig.excuses += [allowed_misdeeds(rig), *killed_origins(rig, spans)]


async def _flap(rig: Rig, cycle_s: float, spans: list[tuple[OriginProcess, float, float]]) -> None:
    """Reload at the beginning of each cycle; then one of the origins is killed, resets connections, and hangs."""
    origin = rig.origins[0]
    start_s = time.monotonic()
    for cycle in range(int(rig.seconds / cycle_s)):
        rig.target.reload()
        rig.count("reloads")
        for deed, at in zip((None, Mode.RESETTING, Mode.HANGING), FLAP_AT, strict=True):
            await _sleep_until(start_s + (cycle + at) * cycle_s)
            if deed is None:
                from_s = time.monotonic()
                origin.kill()
                spans.append((origin, from_s, time.monotonic()))
            else:
                await origin.set_mode(deed)
            await _sleep_until(start_s + (cycle + at + FLAP_FOR) * cycle_s)
            await origin.recover()
            rig.count("flaps")
        await _sleep_until(start_s + (cycle + 1) * cycle_s)


async def _sleep_until(at_s: float) -> None:
    await asyncio.sleep(max(at_s - time.monotonic(), 0.0))


def judge_samples(samples: list[Sample], plan: Plan) -> tuple[dict[str, Trend], list[str]]:
    """Return the trend of every column, and what is wrong with them."""
    times_s = [sample.at_s for sample in samples]
    trends: dict[str, Trend] = {}
    wrong = []
    for name in (field.name for field in fields(Sample) if field.name != "at_s"):
        values = [float(getattr(sample, name)) for sample in samples]
        trend = trends[name] = fit_trend(times_s, values, plan.reload_every_s, plan.warm_up_s)
        if name in _JITTERING and grows_steadily(trend):
            wrong.append(f"{name} grows by {trend.slope_percent_per_min:.2f} % a minute")
        if name in _COUNTED and has_risen(trend):
            wrong.append(f"{name} has risen from {trend.first_floor:.0f} to {trend.last_floor:.0f}")
    return trends, wrong


def render_trends(trends: dict[str, Trend]) -> str:
    """A table in Markdown."""
    rows = ["| | mean | slope, % a minute | lowest of a cycle, first and last third |", "|---|---:|---:|---:|"]
    for name, trend in trends.items():
        unclear = " (too short to tell)" if name in _JITTERING and is_unclear(trend) else ""
        slope = f"{trend.slope_percent_per_min:+.2f} ± {trend.error_percent_per_min:.2f}{unclear}"
        rows.append(f"| {name} | {trend.mean:,.0f} | {slope} | {trend.first_floor:,.0f} → {trend.last_floor:,.0f} |")
    return "\n".join(rows)


def run_half(capacity: int, plan: Plan, seed: int, directory: Path) -> tuple[Result, dict[str, Trend], list[str]]:
    """Soak with one capacity."""
    samples: list[Sample] = []

    async def run(rig: Rig) -> None:
        await soak(rig, plan, samples)

    sections: dict[str, object] = {"cache": {"capacity": capacity}}
    scenario = Scenario("soak", f"soak, {capacity:,} stored responses per worker", run, mix=_MIX, sections=sections)
    result = asyncio.run(run_scenario(scenario, MinatoTarget, plan.seconds, seed, directory))
    if result.complaints:
        return result, {}, ["it did not get to its end"]
    trends, wrong = judge_samples(samples, plan)
    return result, trends, wrong


def main(tell: Callable[[str], None] = lambda text: print(text, flush=True)) -> int:
    """Return 1 if something grew, or a request was lost."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for both capacities together (default: 10)")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    plan = Plan(arguments.minutes * 60 / len(CAPACITIES))
    tell(f"seed {seed}, a reload every {plan.reload_every_s:.1f} s, {plan.warm_up_s:.0f} s of warm-up")
    has_failed = False
    with tempfile.TemporaryDirectory(prefix="minato-soak-") as base:
        for capacity in CAPACITIES:
            result, trends, wrong = run_half(capacity, plan, seed, Path(base) / str(capacity))
            tell(f"\ncapacity {capacity:,}\n{render_line(result)}\n\n{render_trends(trends)}")
            if wrong or not result.is_good:
                has_failed = True
                tell("\n".join(["NOT FLAT:", *wrong]) if wrong else "")
                tell(render_failures(result))
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
