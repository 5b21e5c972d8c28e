"""Mischief with configs: reload storms, other workers and addresses each time, configs that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

from tests.chaos.clients import ask_anew
from tests.chaos.judge import NotConfigured
from tests.chaos.rig import Rig, Scenario
from tests.system.harness.proxy import RELOADED

HUP_EVERY_S = 0.25
ALTERNATE_EVERY_S = 0.8
SPARE_CLIENT = "spare port"


async def storm(rig: Rig) -> None:
    """HUP four times a second."""
    async for _ in rig.ticks(HUP_EVERY_S):
        rig.target.reload()
        rig.count("reloads")
    if rig.target.name == "minato":
        await _settle(rig)
        # Overlapping ones are put together; and each needs the machine for a moment, which others use, too.
        generations = rig.figures["generations"]
        assert generations >= max(2, rig.figures["reloads"] / 20), f"only {generations:.0f} generations"


async def _settle(rig: Rig) -> None:
    """Reload once more: only then does "serves" mean that no reload is going on any more."""
    await asyncio.sleep(1.0)
    rig.figures["generations"] = len(rig.minato.instance.find_log(RELOADED))


async def alternate(rig: Rig) -> None:
    """Fewer and more workers, an address that comes and goes, with a service of its own."""
    target = rig.minato
    clients = 0
    away = NotConfigured(SPARE_CLIENT, 0.0)
    rig.excuses.append(away)
    async for _ in rig.ticks(ALTERNATE_EVERY_S):
        spare, workers = clients % 2 == 0, rig.rng.choice([1, 2, 3, 4])
        since = len(target.log())
        target.write(target.config(workers=workers, spare=spare))
        if not spare:
            rig.excuses.append(NotConfigured(SPARE_CLIENT, time.monotonic()))
        target.reload()
        await target.wait_for_log(rf"{RELOADED} with {workers} workers", since)
        if spare:
            rig.excuses = [_until_now(excuse) for excuse in rig.excuses]
        if not clients:
            for _ in range(2):
                rig.load.add(ask_anew(rig.world, 0.05, SPARE_CLIENT, rig.world.spare_port))
        clients += 1
        rig.count("reloads")
    assert rig.figures["reloads"] >= 2, "the address did not come and go"
    assert rig.ledger.ok[SPARE_CLIENT], "nobody was served on the address that came and went"


def _until_now(excuse: object) -> NotConfigured:
    assert isinstance(excuse, NotConfigured)
    return NotConfigured(excuse.client, excuse.from_s, min(excuse.to_s, time.monotonic()))


async def break_configs(rig: Rig) -> None:
    """YAML that is none, keys that are none, addresses that somebody else has: nobody notices."""
    target = rig.minato
    with _somebody_elses() as taken_port:
        broken: list[dict[str, Any] | str] = [
            "services: [\n",
            target.config() | {"servces": []},
            target.config(extra_port=taken_port),
            target.config() | {"workers": -1},
            # Nothing is wrong with the services, and more workers would accept.
            target.config(workers=6) | {"admin": {"listen": f"127.0.0.1:{taken_port}"}},
        ]
        async for _ in rig.ticks(0.4):
            target.write(broken[int(rig.figures.get("reloads", 0)) % len(broken)])
            since = len(target.log())
            target.reload()
            await target.wait_for_log("reload given up", since)
            rig.count("reloads")
    assert rig.figures["reloads"] >= len(broken), "not every broken config was tried"
    assert not target.instance.find_log(RELOADED), "a broken config was taken"
    since = len(target.log())
    target.write(target.config())
    target.reload()
    await target.wait_for_log(RELOADED, since)


async def take_address(rig: Rig) -> None:
    """A reload to a config with an address that somebody else listens on."""
    with _somebody_elses() as taken_port:
        rig.target.break_address(taken_port)
        async for _ in rig.ticks(max(rig.seconds / 4, 2.5)):
            rig.target.reload()
            rig.count("reloads")
        await asyncio.sleep(3.0)
    if rig.target.name == "minato":
        given_up = rig.minato.instance.find_log("reload given up")
        assert len(given_up) == rig.figures["reloads"], given_up
        assert any(re.search(rf"cannot listen on .*{taken_port}", line) for line in rig.minato.log())


@contextlib.contextmanager
def _somebody_elses() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


SCENARIOS = (
    Scenario("storm", "HUP four times a second", storm, share=8, peers=True),
    Scenario("alternate", "a reload to other workers, an address more or less", alternate),
    Scenario("broken", "reloads to configs that cannot be used", break_configs),
    Scenario("unbindable", "reloads to an address that is in use", take_address, share=0.8, peers=True),
)
