"""Mischief by clients: some vanish in the middle of anything, some drip, some flood; the others must not notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.chaos.clients import HOST, World
from tests.chaos.rig import Rig, Scenario
from tests.chaos.wire import CutError, Wire, read_head
from tests.system.harness.wire import request_bytes

_HEAD = request_bytes(b"GET", b"/b/300000/rude", host=HOST)


async def vanish(world: World, rig: Rig) -> None:
    """Leave with a RST: inside a head, inside a body, before the response, inside the response."""
    large_post = request_bytes(b"POST", b"/echo/0/rude", host=HOST, body=b"x" * 200_000)
    events = request_bytes(b"GET", b"/events/100/20", host=HOST)
    while not world.is_over.is_set():
        sent = world.rng.choice([_HEAD[:20], _HEAD, large_post[:150_000], large_post, events])
        async with _connection(world, rig, "vanished") as wire:
            wire.send(sent)
            await asyncio.sleep(world.rng.choice([0, 0.005, 0.1]))
            wire.reset()
        await world.think(0.05)


async def drip(world: World, rig: Rig) -> None:
    """A few bytes of a head or a body a second; or a large response that is hardly read."""
    post = request_bytes(b"POST", b"/echo/0/rude", host=HOST, body=b"x" * 200)
    while not world.is_over.is_set():
        data = world.rng.choice([_HEAD, post])
        async with _connection(world, rig, "dripped") as wire:
            for start in range(0, len(data) - 1, 4):
                if world.is_over.is_set() or wire.ended:
                    break
                wire.send(data[start : start + 4])
                await asyncio.sleep(0.2)
        await world.think(0.05)


async def hardly_read(world: World, rig: Rig) -> None:
    """Ask for much and take it in sips."""
    while not world.is_over.is_set():
        async with _connection(world, rig, "hardly read") as wire:
            assert wire.transport is not None
            wire.send(request_bytes(b"GET", b"/b/8000000/rude", host=HOST))
            for _ in range(30):
                wire.transport.pause_reading()
                await asyncio.sleep(0.1)
                if world.is_over.is_set() or wire.ended:
                    break
                wire.transport.resume_reading()
                await asyncio.sleep(0)
                wire.buffer.clear()
        await world.think(0.05)


async def flood(world: World, rig: Rig) -> None:
    """Many connections at once that send garbage, heads without end, or many requests and read nothing."""
    garbage = [b"\x16\x03\x01 garbage\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4_000, _HEAD * 20]
    while not world.is_over.is_set():
        data = world.rng.choice(garbage)
        await asyncio.gather(*(_pour(world, rig, data) for _ in range(15)))
        await world.think(0.3)


async def _pour(world: World, rig: Rig, data: bytes) -> None:
    async with _connection(world, rig, "flooded") as wire:
        wire.send(data)
        with contextlib.suppress(CutError, AssertionError, TimeoutError):
            async with asyncio.timeout(0.5):
                await read_head(wire)


@contextlib.asynccontextmanager
async def _connection(world: World, rig: Rig, deed: str) -> AsyncIterator[Wire]:
    """A connection that is always closed in the end, by a RST; whether it could be made is nobody's concern."""
    try:
        wire = await Wire.connect(world.port)
    except OSError:
        yield Wire(ended=True)
        return
    rig.count(deed)
    try:
        yield wire
    finally:
        wire.reset()


async def be_rude(rig: Rig) -> None:
    for client in (vanish, vanish, drip, drip, drip, hardly_read, flood):
        rig.load.add(client(rig.world, rig))
    await asyncio.sleep(rig.seconds)
    missing = {"vanished", "dripped", "hardly read", "flooded"} - set(rig.figures)
    assert not missing, f"nobody {missing}"


SCENARIOS = (Scenario("rude", "clients that vanish, drip, hardly read, flood", be_rude, share=1.2),)
