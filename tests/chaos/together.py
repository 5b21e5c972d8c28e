"""Mischief of every kind at once, and long streams that outlive many reloads."""

from __future__ import annotations

import asyncio
import signal

from tests.chaos.failing import allowed_misdeeds
from tests.chaos.load import Mix
from tests.chaos.origin import Mode
from tests.chaos.processes import kill_one
from tests.chaos.reloading import HUP_EVERY_S
from tests.chaos.rig import Rig, Scenario, Ticks
from tests.chaos.rude import drip, flood, vanish
from tests.chaos.streams import follow_events, talk

# Generations that drain, at the most (decide/rollover.py), the one that serves and the one that starts.
_MOST_GENERATIONS = 8 + 2
_LONG_EVENTS = 200  # 50 ms each, so 10 s
_LONG_CLIENTS = 24
_CYCLES = 3


async def outlive(rig: Rig) -> None:
    """HUP four times a second under streams and tunnels of ten seconds: none is cut, and no processes pile up."""
    most = 0
    async for _ in rig.ticks(HUP_EVERY_S):
        rig.target.reload()
        rig.count("reloads")
        if rig.figures["reloads"] <= _LONG_CLIENTS:  # one by one, so that every generation has some to finish
            rig.load.add(follow_events(rig.world, _LONG_EVENTS))
            rig.load.add(talk(rig.world, _LONG_EVENTS * 3 // 4))
        most = max(most, len(await asyncio.to_thread(rig.minato.instance.workers)))
    rig.figures["most workers at once"] = most
    bound = _MOST_GENERATIONS * rig.minato.workers
    assert most <= bound, f"{most} workers at once; {bound} are the most there may be"
    assert most > 3 * rig.minato.workers, f"{most} workers at once: nothing piled up"
    await rig.load.finish()
    assert rig.ledger.ok["events"] and rig.ledger.ok["tunnel"], "no long stream came to its end"


async def do_everything(rig: Rig) -> None:
    """Reloads, workers killed, more and fewer of them, origins that hang and reset, rude clients, all at once."""
    for client in (vanish, drip, flood):
        rig.load.add(client(rig.world, rig))
    span_s = rig.seconds / _CYCLES
    for mode in [Mode.RESETTING, Mode.HANGING, Mode.SLOW]:
        origin = rig.rng.choice(rig.origins)
        await origin.set_mode(mode)
        async for left_s in Ticks(span_s, HUP_EVERY_S):
            if left_s < span_s / 2:
                await origin.set_mode(Mode.GOOD)
            await _do_something(rig)
        await origin.set_mode(Mode.GOOD)
    assert len(rig.figures) >= 4, f"only {set(rig.figures)}"
    await rig.load.finish()
    rig.excuses.append(allowed_misdeeds(rig))


async def _do_something(rig: Rig) -> None:
    deed = rig.rng.choice(["reload", "reload", "reload", "more", "fewer", "kill"])
    rig.count(deed)
    if deed == "kill":
        rig.excuses.append(await kill_one(rig))
        return
    rig.minato.send({"reload": signal.SIGHUP, "more": signal.SIGTTIN, "fewer": signal.SIGTTOU}[deed])


SCENARIOS = (
    Scenario(
        "long-streams",
        "HUP four times a second, streams and tunnels of ten seconds",
        outlive,
        share=1.5,
        mix=Mix(events=0, tunnels=0),
    ),
    Scenario("together", "all of it at once", do_everything, share=1.5, cacheable=False),
)
