"""Mischief with processes: workers killed, stopped, more and fewer of them, upgrades, a master that is killed."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil

from tests.chaos.judge import Held
from tests.chaos.rig import Rig, Scenario
from tests.system.harness.proxy import RELOADED

HEARTBEAT_S = 4
# A silent worker's queue is lent after a second, and looked after four times a second; the rest is for a busy machine.
STALL_S = 2.0
_REPLACED_S = 10.0
_UPGRADED_S = 30.0


# What was on its way to us when a worker was killed has been read by then.
_ARRIVED_S = 0.25


async def freeze_one(rig: Rig) -> tuple[psutil.Process, Held]:
    """SIGSTOP one of the workers, and note whose connections it has: from now on it accepts no others."""
    workers = await asyncio.to_thread(rig.minato.instance.workers)
    worker = rig.rng.choice(workers)
    return worker, await asyncio.to_thread(_freeze, rig, worker)


def _freeze(rig: Rig, worker: psutil.Process) -> Held:
    from_s = time.monotonic()
    worker.suspend()
    while worker.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        time.sleep(0.001)
    return Held(rig.minato.held_ports(worker.pid), from_s, from_s)


async def kill_one(rig: Rig) -> Held:
    """kill -9 of one of the workers; the excuse for what it held."""
    worker, held = await freeze_one(rig)
    worker.kill()
    await asyncio.sleep(_ARRIVED_S)
    return Held(held.ports, held.from_s, time.monotonic())


async def kill_workers(rig: Rig) -> None:
    """kill -9 of one worker after the other."""
    async for _ in rig.ticks(1.2):
        pids = await asyncio.to_thread(rig.minato.instance.worker_pids)
        held = await kill_one(rig)
        rig.excuses.append(held)
        await _wait_replaced(rig, pids)
        rig.count("kills")
        rig.count("connections held", len(held.ports))
    assert rig.figures["kills"]
    assert rig.figures["connections held"], "no killed worker had a connection: nothing was tried"


async def _wait_replaced(rig: Rig, before: list[int]) -> None:
    """Wait until not all of these are there any more, but as many as there were."""
    async with asyncio.timeout(_REPLACED_S):
        while True:
            pids = await asyncio.to_thread(rig.minato.instance.worker_pids)
            if not set(before) <= set(pids) and len(pids) >= rig.minato.workers:
                return
            await asyncio.sleep(0.05)


async def stop_worker(rig: Rig) -> None:
    """SIGSTOP of a worker: it is killed when its heartbeat is too old; nobody else waits for it meanwhile."""
    instance = rig.minato.instance
    while True:
        since = len(instance.lines)
        worker, held = await freeze_one(rig)
        await rig.minato.wait_for_log(rf"pid {worker.pid}\) hangs", since, HEARTBEAT_S + 5)
        await _wait_replaced(rig, [worker.pid])
        await asyncio.sleep(_ARRIVED_S)
        until_s = time.monotonic()
        rig.excuses.append(Held(held.ports, held.from_s, until_s))
        rig.count("stops")
        rig.count("connections held", len(held.ports))
        rig.count("slowest of the others, ms", 0)
        _check_nobody_stalled(rig, held, until_s)
        await asyncio.sleep(1.0)
        if rig.figures["stops"] * (HEARTBEAT_S + 2) > rig.seconds:
            return


def _check_nobody_stalled(rig: Rig, held: Held, until_s: float) -> None:
    """Requests on connections that the stopped worker did not have took no longer than its queue waits."""
    quick = [
        outcome
        for outcome in rig.ledger.by_name.values()
        if outcome.port not in held.ports
        and outcome.client in ("keep-alive", "per request", "post")
        and held.from_s <= outcome.ended_s <= until_s
    ]
    assert len(quick) > 50, f"only {len(quick)} requests went on beside the stopped worker"
    slowest = max(quick, key=lambda outcome: outcome.ended_s - outcome.begun_s)
    took_s = slowest.ended_s - slowest.begun_s
    rig.figures["slowest of the others, ms"] = max(rig.figures["slowest of the others, ms"], took_s * 1e3)
    assert took_s < STALL_S + 2 * rig.lag_s, f"waited for a stopped worker: {slowest} (our own lag: {rig.lag_s:.2f} s)"


async def resize(rig: Rig) -> None:
    """TTIN and TTOU, a few times each in a row."""
    ups = 0
    async for _ in rig.ticks(0.25):
        is_up = ups <= 0 or (ups < 3 and rig.rng.random() < 0.5)
        rig.minato.send(signal.SIGTTIN if is_up else signal.SIGTTOU)
        ups += 1 if is_up else -1
        rig.count("more" if is_up else "fewer")
    expected = rig.minato.workers + ups
    async with asyncio.timeout(_REPLACED_S):
        while (
            len(await asyncio.to_thread(rig.minato.instance.worker_pids)) != expected
        ):  # the others have drained by then
            await asyncio.sleep(0.05)


async def upgrade(rig: Rig) -> None:
    """USR2, again and again, a reload in between: a new master, new workers, the same sockets."""
    target = rig.minato
    async for _ in rig.ticks(0.5):
        since = len(target.log())
        old_pid = target.pid
        target.send(signal.SIGUSR2)
        await target.wait_for_log("^minato: ready", since)
        async with asyncio.timeout(_UPGRADED_S):
            while target.pid == old_pid or not target.has_ended(old_pid):
                await asyncio.sleep(0.05)
        rig.count("upgrades")
        since = len(target.log())
        target.reload()
        await target.wait_for_log(RELOADED, since)
        rig.count("reloads")
    assert rig.figures["upgrades"]


async def kill_master(rig: Rig) -> None:
    """kill -9 of the master, which holds no request; another one follows at once or after a while, as with systemd."""
    target = rig.minato
    async for _ in rig.ticks(min(2.0, rig.seconds / 6)):
        from_s = time.monotonic()
        await target.kill_and_start(pause_s=rig.rng.choice((0.0, 0.1, 1.0)))
        rig.count("masters killed")
        rig.count("until the next was ready, ms", (time.monotonic() - from_s) * 1e3)
    assert rig.figures["masters killed"]
    async with asyncio.timeout(30):
        while target.workers_left():
            await asyncio.sleep(0.1)


async def kill_masters_in_a_row(rig: Rig) -> None:
    """The next master is killed, too: while it starts, or just after it was ready; then one follows that lives."""
    target = rig.minato
    async for _ in rig.ticks(min(1.5, rig.seconds / 4)):
        await target.kill_and_start(lives_s=rig.rng.uniform(0.0, 1.2))
        rig.count("masters killed while they started")
        await target.kill_and_start()
        await asyncio.sleep(rig.rng.uniform(0.0, 0.2))
        await target.kill_and_start()
        rig.count("masters killed", 2)
    assert rig.figures["masters killed"] >= 2
    async with asyncio.timeout(30):
        while target.workers_left():
            await asyncio.sleep(0.1)


SCENARIOS = (
    Scenario("kill-worker", "kill -9 of workers", kill_workers),
    Scenario(
        "stop-worker",
        "SIGSTOP of a worker, until the master kills it",
        stop_worker,
        sections={"workers": 3, "timeouts": {"heartbeat": HEARTBEAT_S}},
    ),
    Scenario("resize", "TTIN and TTOU", resize),
    Scenario("upgrade", "USR2: a new master takes over", upgrade),
    Scenario("kill-master", "kill -9 of the master, another one follows", kill_master),
    Scenario(
        "kill-masters", "kill -9 of the master, of the next one while it starts, and so on", kill_masters_in_a_row
    ),
)
