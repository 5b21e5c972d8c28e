"""Mischief with origins: one of the two is killed, hangs, dawdles, cuts its responses short or resets connections."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping

from tests.chaos.clients import Asker
from tests.chaos.judge import BAD_GATEWAY, GATEWAY_TIMEOUT, Misdeeds, OriginKilled
from tests.chaos.ledger import Kind
from tests.chaos.origin import Fate, Mode
from tests.chaos.origin_process import OriginProcess
from tests.chaos.rig import Rig, Scenario

_POST_FAILED = frozenset([(Kind.STATUS, BAD_GATEWAY)])
_CUT_VISIBLY = frozenset([(Kind.CUT, 200)])
# What a deed must have led to, by the method of the request; GETs that could be asked again must have come right.
_ALLOWED: Mapping[tuple[Fate, bytes], frozenset[tuple[Kind, int]]] = {
    (Fate.HUNG, b"POST"): frozenset([(Kind.STATUS, GATEWAY_TIMEOUT)]),
    (Fate.RESET, b"POST"): _POST_FAILED,
    (Fate.CUT, b"GET"): _CUT_VISIBLY,
    (Fate.CUT, b"POST"): _CUT_VISIBLY | _POST_FAILED,
}


def _fates(rig: Rig) -> dict[str, list[Fate]]:
    """Put the journals of all origins together."""
    together: dict[str, list[Fate]] = defaultdict(list)
    for origin in rig.origins:
        for name, fates in origin.fates().items():
            together[name] += fates
    return together


async def _misbehave(rig: Rig, mode: Mode) -> None:
    """One origin after the other is bad for a while, and good again."""
    pause_s = min(2.5, rig.seconds / 5)
    turn = 0
    async for _ in rig.ticks(pause_s):
        origin = rig.origins[turn % 2]
        await origin.set_mode(mode)
        await asyncio.sleep(pause_s)
        await origin.set_mode(Mode.GOOD)
        turn += 1
    await rig.load.finish()
    fates = _fates(rig)
    rig.excuses.append(Misdeeds(fates, _ALLOWED))
    for deed in (Fate.HUNG, Fate.CUT, Fate.RESET):
        done = sum(deed in each for each in fates.values())
        if done:
            rig.figures[f"requests {deed.value}"] = done
    assert mode is Mode.SLOW or rig.figures, f"nothing was done to any request while {mode.value}"


async def hang(rig: Rig) -> None:
    await _misbehave(rig, Mode.HANGING)


async def dawdle(rig: Rig) -> None:
    await _misbehave(rig, Mode.SLOW)


async def truncate(rig: Rig) -> None:
    await _misbehave(rig, Mode.TRUNCATING)


async def reset(rig: Rig) -> None:
    await _misbehave(rig, Mode.RESETTING)


async def kill_origins(rig: Rig) -> None:
    """kill -9 of one origin after the other; each is there again a moment later."""
    spans: list[tuple[OriginProcess, float, float]] = []
    async for _ in rig.ticks(1.0):
        origin = rig.origins[len(spans) % 2]
        from_s = time.monotonic()
        origin.kill()
        spans.append((origin, from_s, time.monotonic()))
        await asyncio.sleep(1.0)
        await origin.start()
        await asyncio.sleep(2.5)  # until the next probe found it, both are needed for the next turn
        rig.count("kills")
    assert rig.figures["kills"] >= 1
    await rig.load.finish()
    fates = {id(origin): origin.fates() for origin in rig.origins}
    for origin, from_s, to_s in spans:
        others = {name for other in rig.origins if other is not origin for name in fates[id(other)]}
        rig.excuses.append(OriginKilled(from_s, to_s, fates[id(origin)], others))


async def cut_lengthless(rig: Rig) -> None:
    """Responses without a length, each reset in the middle: to be seen as cut, never as whole."""
    asker = Asker(rig.world, "cut", keeps=False)
    whole = 0
    async for _ in rig.ticks(0.02):
        name = rig.world.new_name("cut")
        outcome = await asker.get_target(b"/x/4000/" + name.encode(), name)
        rig.count("responses cut")
        if outcome.kind is not Kind.CUT:
            whole += 1
    rig.figures["passed on as whole"] = whole
    await rig.load.finish()
    rig.excuses.append(Misdeeds(_fates(rig), _ALLOWED))



SCENARIOS = (
    Scenario("origin-killed", "kill -9 of an origin, started again a second later", kill_origins, cacheable=False),
    Scenario("origin-hangs", "an origin reads requests and answers none", hang, cacheable=False),
    Scenario("origin-slow", "an origin takes half a second for each body", dawdle, cacheable=False),
    Scenario("origin-truncates", "an origin sends half of each body", truncate, cacheable=False),
    Scenario("origin-resets", "an origin resets the connection instead of answering", reset, cacheable=False),
    Scenario(
        "lengthless",
        "responses without a length, cut by a reset",
        cut_lengthless,
        share=0.5,
        cacheable=False,
        peers=True,
    ),
)
