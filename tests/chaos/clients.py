"""Clients that check every byte: kept connections, one for each request, POST echoes."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.bodies import body_of, digest_of
from tests.chaos.ledger import Kind, Ledger, Outcome
from tests.chaos.wire import Answer, CutError, Wire, read_body, read_head
from tests.system.harness.wire import ProtocolViolation, request_bytes

TIMEOUT_S = 15.0
HOST = b"test.local"


@dataclass(slots=True)
class World:
    """What all clients share.

    Attributes:
        port: of the proxy; ``spare_port`` is one that scenarios add and remove.
        is_over: set when clients are to finish what they are doing, and end.
        cacheable: whether URLs that may be answered from the cache are asked for, too.
    """

    ledger: Ledger
    rng: random.Random
    port: int
    spare_port: int
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    cacheable: bool = True
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new_name(self, client: str) -> str:
        return f"{client.replace(' ', '-')}-{next(self._numbers)}"

    async def think(self, mean_s: float) -> None:
        """Wait for anything between nothing and twice the mean."""
        await asyncio.sleep(self.rng.uniform(0, 2 * mean_s))

    def choose_target(self, name: str) -> bytes:
        """Return a URL of its own, of any size; or one of a few that the cache may know."""
        draw = self.rng.random()
        if draw < 0.15 and self.cacheable:
            return b"/c/2048/%d" % self.rng.randrange(40)
        if draw < 0.3:
            return b"/k/%d/%s" % (self.rng.choice([1, 900, 30_000]), name.encode())
        if draw < 0.34:
            return b"/b/%d/%s" % (self.rng.choice([70_000, 300_000]), name.encode())
        return b"/b/%d/%s" % (self.rng.choice([0, 100, 1_024, 4_000]), name.encode())


class Asker:
    """Sends requests over one connection after the other, and records what becomes of each.

    Args:
        client: which kind of client, for the ledger.
        keeps: whether a connection is used again.
    """

    def __init__(self, world: World, client: str, *, keeps: bool, port: int | None = None) -> None:
        self._world = world
        self._client = client
        self._keeps = keeps
        self._port = port or world.port
        self._wire: Wire | None = None
        self._idle_since_s = 0.0

    async def ask(
        self, request: bytes, method: bytes, name: str, is_right: Callable[[Answer], str], timeout_s: float = TIMEOUT_S
    ) -> Outcome:
        """Send a request, read its response, record the outcome.

        Args:
            is_right: says what is wrong with a response; "" if nothing is.
        """
        begun_s = time.monotonic()
        reused = self._wire is not None
        kind, status, detail, port = Kind.OK, 0, "", 0
        try:
            async with asyncio.timeout(timeout_s):
                wire = self._wire or await self._connect()
                port = wire.port
                wire.is_idle = False
                wire.send(request)
                answer = await read_head(wire)
                status = answer.status
                await read_body(wire, answer)
            detail = is_right(answer)
            if detail:
                kind = Kind.WRONG if status == 200 else Kind.STATUS
        except TimeoutError:
            kind = Kind.SILENT
        except CutError as error:
            kind, detail = (Kind.CUT if error.begun else Kind.RACE if reused else Kind.UNANSWERED), str(error)
        except ProtocolViolation as error:
            kind, detail = Kind.WRONG, str(error)
        except OSError as error:
            kind, detail = Kind.REFUSED, str(error)
        outcome = Outcome(kind, self._client, method, name, port, begun_s, time.monotonic(), status, detail)
        self._world.ledger.record(outcome)
        if kind is Kind.OK:
            self._keep(answer)
        else:
            self.close()
        return outcome

    async def _connect(self) -> Wire:
        self._wire = wire = await Wire.connect(self._port)
        wire.on_idle_end = self._on_idle_end
        return wire

    def _keep(self, answer: Answer) -> None:
        wire = self._wire
        assert wire is not None
        if answer.says_close():
            self._world.ledger.told += 1
            self.close()
        elif not self._keeps:
            self.close()
        elif wire.ended:
            self._on_idle_end()
        else:
            wire.is_idle = True
            self._idle_since_s = time.monotonic()

    def _on_idle_end(self) -> None:
        """The connection ended although nobody had said that it would."""
        wire = self._wire
        assert wire is not None
        now_s = time.monotonic()
        detail = f"stray {bytes(wire.buffer[:80])!r}" if wire.buffer else ""
        kind = Kind.WRONG if wire.buffer else Kind.EARLY_CLOSE
        since_s = self._idle_since_s or now_s
        self._world.ledger.record(Outcome(kind, self._client, b"", "", wire.port, since_s, now_s, 0, detail))
        self.close()

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    # -- what the ordinary clients do

    async def get(self) -> Outcome:
        name = self._world.new_name(self._client)
        return await self.get_target(self._world.choose_target(name), name)

    async def get_target(self, target: bytes, name: str, version: bytes = b"1.1") -> Outcome:
        fields = [(b"X-Name", name.encode())]
        request = request_bytes(b"GET", target, host=HOST, fields=fields, version=version)
        return await self.ask(request, b"GET", name, lambda answer: check_body(answer, body_of(target)))

    async def post(self, timeout_s: float = TIMEOUT_S) -> Outcome:
        world = self._world
        name = world.new_name(self._client)
        body = world.rng.randbytes(world.rng.choice([1, 300, 2_000, 20_000, 100_000]))
        request = request_bytes(
            b"POST", b"/echo/0/" + name.encode(), host=HOST, fields=[(b"X-Name", name.encode())], body=body
        )
        return await self.ask(request, b"POST", name, lambda answer: check_body(answer, body), timeout_s)


def check_body(answer: Answer, body: bytes) -> str:
    """Say what is wrong with a response; "" if it is the one with this body, by length, bytes and digest."""
    if answer.status != 200:
        return answer.body[:80].decode("latin-1").strip()
    if len(answer.body) != len(body):
        return f"{len(answer.body)} bytes instead of {len(body)}"
    if answer.body != body or answer.values(b"x-digest") != [digest_of(body).encode()]:
        return "other bytes, or another digest"
    return ""


async def keep_asking(world: World, mean_s: float) -> None:
    """A client that keeps its connection for as long as it may."""
    asker = Asker(world, "keep-alive", keeps=True)
    while not world.is_over.is_set():
        await world.think(mean_s)
        await asker.get()
    asker.close()


async def ask_anew(world: World, mean_s: float, client: str = "per request", port: int | None = None) -> None:
    """A client with a connection for each request."""
    asker = Asker(world, client, keeps=False, port=port)
    while not world.is_over.is_set():
        await world.think(mean_s)
        await asker.get()


async def keep_posting(world: World, mean_s: float) -> None:
    """A client that posts and compares what comes back."""
    asker = Asker(world, "post", keeps=True)
    while not world.is_over.is_set():
        await world.think(mean_s)
        await asker.post()
    asker.close()
