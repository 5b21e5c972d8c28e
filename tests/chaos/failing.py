"""Mischief with origins: one of the two is killed, hangs, dawdles, cuts its responses short or resets connections."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tests.chaos.clients import Asker
from tests.chaos.judge import BAD_GATEWAY, GATEWAY_TIMEOUT, Misdeeds, OriginKilled
from tests.chaos.ledger import Kind
from tests.chaos.origin import Fate, Mode
from tests.chaos.origin_process import OriginProcess
from tests.chaos.rig import Rig, Scenario

# Longer than the config's timeouts.response: whoever waits for an origin that hangs has turned to the other by then.
_GIVEN_UP_S = 3.0
_POST_FAILED = frozenset([(Kind.STATUS, BAD_GATEWAY)])
_CUT_VISIBLY = frozenset([(Kind.CUT, 200)])
# What a deed must have led to, by the method of the request; GETs that could be asked again must have come right.
_ALLOWED: Mapping[tuple[Fate, bytes], frozenset[tuple[Kind, int]]] = {
    (Fate.HUNG, b"POST"): frozenset([(Kind.STATUS, GATEWAY_TIMEOUT)]),
    (Fate.RESET, b"POST"): _POST_FAILED,
    (Fate.CUT, b"GET"): _CUT_VISIBLY,
    (Fate.CUT, b"POST"): _CUT_VISIBLY | _POST_FAILED,
}


def allowed_misdeeds(rig: Rig) -> Misdeeds:
    """Put the journals of all origins together, once the load is over."""
    together: dict[str, list[Fate]] = defaultdict(list)
    for origin in rig.origins:
        for name, fates in origin.fates().items():
            together[name] += fates
    return Misdeeds(together, _ALLOWED)


def killed_origins(rig: Rig, spans: Sequence[tuple[OriginProcess, float, float]]) -> Iterator[OriginKilled]:
    """Make excuses of when which origin was killed, once the load is over."""
    fates = {id(origin): origin.fates() for origin in rig.origins}
    for origin, from_s, to_s in spans:
        others = {name for other in rig.origins if other is not origin for name in fates[id(other)]}
        yield OriginKilled(from_s, to_s, fates[id(origin)], others)


async def _misbehave(rig: Rig, mode: Mode) -> None:
    """One origin after the other is bad for a while, and good again; never both, counting those who still wait."""
    bad_s = min(2.5, rig.seconds / 5)
    good_s = _GIVEN_UP_S if mode is Mode.HANGING else bad_s
    turn = 0
    async for _ in rig.ticks(good_s):
        origin = rig.origins[turn % 2]
        await origin.set_mode(mode)
        await asyncio.sleep(bad_s)
        await origin.set_mode(Mode.GOOD)
        turn += 1
    await rig.load.finish()
    misdeeds = allowed_misdeeds(rig)
    rig.excuses.append(misdeeds)
    for deed in (Fate.HUNG, Fate.CUT, Fate.RESET):
        done = sum(deed in each for each in misdeeds.fates.values())
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
    rig.excuses += killed_origins(rig, spans)


async def cut_lengthless(rig: Rig) -> None:
    """Responses without a length, each reset in the middle: to be seen as cut, never as whole.

    HTTP/1.1 clients can be sent chunks, whose end is missing then; to HTTP/1.0 clients only a RST shows it.
    """
    asker = Asker(rig.world, "cut", keeps=False)
    async for _ in rig.ticks(0.02):
        for version in (b"1.1", b"1.0"):
            name = rig.world.new_name("cut")
            outcome = await asker.get_target(b"/x/4000/" + name.encode(), name, version)
            rig.count(f"cut, HTTP/{version.decode()}")
            rig.count(f"passed on as whole, HTTP/{version.decode()}", outcome.kind is not Kind.CUT)
    await rig.load.finish()
    rig.excuses.append(allowed_misdeeds(rig))


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
