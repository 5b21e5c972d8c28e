"""One scenario from the first process to the last: proxy, origins, load and mischief, and what came of it."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.clients import World
from tests.chaos.judge import Excuse, Verdict, judge
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, Mix
from tests.chaos.origin_process import OriginProcess
from tests.chaos.targets import MinatoTarget, Target

_SETTLE_S = 0.5
_LAG_LOOK_S = 0.05
_LOG_LINES = 40


@dataclass(slots=True)
class Rig:
    """What a scenario's mischief has at hand.

    Attributes:
        seconds: how long it is to go on.
        excuses: it adds what may be lost because of it.
        figures: it adds what it counted.
        lag_s: how long our own process did not run, at the most: nobody else can be blamed for that.
    """

    target: Target
    origins: list[OriginProcess]
    world: World
    load: Load
    seconds: float
    excuses: list[Excuse] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    lag_s: float = 0.0

    @property
    def rng(self) -> random.Random:
        return self.world.rng

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger

    @property
    def minato(self) -> MinatoTarget:
        assert isinstance(self.target, MinatoTarget)
        return self.target

    def count(self, what: str, number: float = 1) -> None:
        self.figures[what] = self.figures.get(what, 0) + number

    def ticks(self, every_s: float) -> Ticks:
        return Ticks(self.seconds, every_s)


class Ticks:
    """``async for _ in Ticks(...)``: every so many seconds until the time is up."""

    def __init__(self, seconds: float, every_s: float) -> None:
        self._end_s = time.monotonic() + seconds
        self._every_s = every_s

    def __aiter__(self) -> Ticks:
        return self

    async def __anext__(self) -> float:
        await asyncio.sleep(self._every_s)
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise StopAsyncIteration
        return left_s


@dataclass(frozen=True, slots=True)
class Scenario:
    """Attributes:
    name: as on the command line.
    tells: what goes wrong meanwhile, for the report.
    run: does it. Raises AssertionError if the target does not behave.
    share: of the time, relative to the others.
    mix: of clients.
    cacheable: whether some URLs may be answered from the cache.
    peers: whether it can be held against nginx and HAProxy, too.
    sections: of minato's config, changed.
    """

    name: str
    tells: str
    run: Callable[[Rig], Awaitable[None]]
    share: float = 1.0
    mix: Mix = field(default_factory=Mix)
    cacheable: bool = True
    peers: bool = False
    sections: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What came of a scenario.

    Attributes:
        complaints: what else went wrong, besides requests.
        log: the end of the target's stderr.
    """

    scenario: Scenario
    target: str
    seed: int
    ledger: Ledger
    verdict: Verdict
    figures: dict[str, float]
    seconds: float
    lag_s: float = 0.0
    excuses: Sequence[Excuse] = ()
    complaints: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.complaints and not self.verdict.failures


async def run_scenario(scenario: Scenario, kind: type[Target], seconds: float, seed: int, directory: Path) -> Result:
    """Run one scenario on a proxy and origins of its own; whatever happens, they are ended."""
    directory.mkdir(parents=True)
    origins = [OriginProcess(directory, name) for name in ("a", "b")]
    options = scenario.sections if kind is MinatoTarget else {}
    target = kind(directory / kind.name, [origin.url for origin in origins], **options)
    world = World(Ledger(), random.Random(seed), target.port, target.spare_port, cacheable=scenario.cacheable)
    rig = Rig(target, origins, world, Load(world, scenario.mix), seconds)
    result = Result(scenario, kind.name, seed, world.ledger, Verdict(), rig.figures, seconds)
    try:
        for origin in origins:
            await origin.start()
        await target.start()
        begun_s = time.monotonic()
        await _mischief(rig, scenario)
        result.seconds = time.monotonic() - begun_s
    except (Exception, asyncio.CancelledError):
        result.complaints.append(traceback.format_exc())
    finally:
        rig.load.cancel()
        await asyncio.sleep(0)  # so that no client takes the proxy's end for a failure
        result.complaints += await target.stop()
        for origin in origins:
            origin.kill()
            result.complaints += [f"an origin complained: {origin.errors()}"] * bool(origin.errors())
    result.lag_s, result.excuses = rig.lag_s, rig.excuses
    result.verdict = judge(world.ledger, rig.excuses)
    result.log = target.log()[-_LOG_LINES:]
    return result


async def _mischief(rig: Rig, scenario: Scenario) -> None:
    rig.load.start()
    watch = asyncio.create_task(_watch_lag(rig))
    try:
        await asyncio.sleep(_SETTLE_S)
        await scenario.run(rig)
        await rig.load.finish()
    finally:
        watch.cancel()


async def _watch_lag(rig: Rig) -> None:
    while True:
        before_s = time.monotonic()
        await asyncio.sleep(_LAG_LOOK_S)
        rig.lag_s = max(rig.lag_s, time.monotonic() - before_s - _LAG_LOOK_S)
