"""Clients that stay: event streams whose events are numbered, and WebSocket tunnels whose echoes are compared."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable

from tests.chaos import frames
from tests.chaos.bodies import digest_of
from tests.chaos.clients import HOST, World
from tests.chaos.ledger import Kind, Outcome
from tests.chaos.wire import Answer, CutError, Wire, read_chunk, read_head
from tests.system.harness.wire import ProtocolViolation, request_bytes

SILENCE_S = 10.0
EVENT_PAUSE_MS = 50
FRAME_PAUSE_S = 0.05


class _Wrong(Exception):
    """What came is not what should have."""


async def follow_events(world: World, count: int) -> None:
    """Read one event stream after the other, each of so many events; every number once, in order, and then the end."""
    while not world.is_over.is_set():
        await _run(world, "events", lambda wire, name: _read_events(world, wire, name, count))
        await world.think(0.05)


async def talk(world: World, count: int) -> None:
    """Open one WebSocket after the other, each for so many messages and the closing handshake."""
    while not world.is_over.is_set():
        await _run(world, "tunnel", lambda wire, name: _exchange_frames(world, wire, name, count))
        await world.think(0.05)


async def _run(world: World, client: str, use: Callable[[Wire, str], Awaitable[int]]) -> None:
    begun_s, name = time.monotonic(), world.new_name(client)
    kind, status, detail, wire = Kind.OK, 0, "", None
    try:
        async with asyncio.timeout(SILENCE_S):
            wire = await Wire.connect(world.port)
        status = await use(wire, name)
    except TimeoutError:
        kind = Kind.SILENT
    except CutError as error:
        kind, detail = (Kind.CUT if error.begun else Kind.UNANSWERED), str(error)
    except (_Wrong, ProtocolViolation) as error:
        kind, detail = Kind.WRONG, str(error)
    except OSError as error:
        kind, detail = Kind.REFUSED, str(error)
    if status not in (0, 101, 200):
        kind = Kind.STATUS
    port = wire.port if wire is not None else 0
    world.ledger.record(Outcome(kind, client, b"GET", name, port, begun_s, time.monotonic(), status, detail))
    if wire is not None:
        wire.close()


async def _ask(wire: Wire, target: bytes, name: str, *fields: tuple[bytes, bytes]) -> Answer:
    wire.send(request_bytes(b"GET", target, host=HOST, fields=[(b"X-Name", name.encode()), *fields]))
    async with asyncio.timeout(SILENCE_S):
        return await read_head(wire)


async def _read_events(world: World, wire: Wire, name: str, count: int) -> int:
    target = b"/events/%d/%d" % (count, EVENT_PAUSE_MS)
    answer = await _ask(wire, target, name)
    if answer.status != 200:
        return answer.status
    text = b""
    number = 0
    try:
        while piece := await _next_chunk(wire):
            text += piece
            while b"\n\n" in text:
                event, _, text = text.partition(b"\n\n")
                expected = b"id: %d\ndata: %s" % (number, digest_of(target + b"/%d" % number).encode())
                if event != expected:
                    raise _Wrong(f"event {event[:90]!r} where {number} was due")
                number += 1
                world.ledger.moves["events"] += 1
    except CutError as error:
        raise CutError(True, f"{error} (event {number} of {count})") from error
    if number != count or text:
        raise _Wrong(f"a clean end after {number} of {count} events")
    return 200


async def _next_chunk(wire: Wire) -> bytes:
    async with asyncio.timeout(SILENCE_S):
        return await read_chunk(wire)


async def _exchange_frames(world: World, wire: Wire, name: str, count: int) -> int:
    key = base64.b64encode(world.rng.randbytes(16))
    upgrade = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Version", b"13"))
    answer = await _ask(wire, b"/socket", name, *upgrade, (b"Sec-WebSocket-Key", key))
    if answer.status != 101:
        return answer.status
    if answer.values(b"sec-websocket-accept") != [frames.accept_of(key).lower()]:
        raise _Wrong("Sec-WebSocket-Accept is not for this key")
    try:
        for _ in range(count):
            payload = world.rng.randbytes(world.rng.choice([10, 200, 70_000]))
            await _echo(wire, frames.TEXT, payload, world.rng.randbytes(4))
            world.ledger.moves["messages"] += 1
            await asyncio.sleep(FRAME_PAUSE_S)
        await _echo(wire, frames.CLOSE, b"\x03\xe8", world.rng.randbytes(4))
    except CutError as error:
        raise CutError(True, str(error)) from error
    return 101


async def _echo(wire: Wire, code: int, payload: bytes, mask: bytes) -> None:
    wire.send(frames.render(code, payload, mask))
    async with asyncio.timeout(SILENCE_S):
        if await frames.read(wire) != (code, payload):
            raise _Wrong("another frame came back")
