"""The load: how many clients of which kind, from their first request to the end of their last."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from tests.chaos.clients import World, ask_anew, keep_asking, keep_posting
from tests.chaos.streams import follow_events, talk

END_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class Mix:
    """How many clients there are, and how long they think between two requests, on average.

    The defaults make some 500 requests a second, if the machine lets them.
    """

    keep_alive: int = 40
    per_request: int = 4
    post: int = 5
    events: int = 4
    tunnels: int = 3
    think_s: float = 0.1
    events_each: int = 30
    messages_each: int = 30


class Load:
    """All clients of a scenario."""

    def __init__(self, world: World, mix: Mix) -> None:
        self._world = world
        self._mix = mix
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        world, mix = self._world, self._mix
        self._add(keep_asking(world, mix.think_s) for _ in range(mix.keep_alive))
        self._add(ask_anew(world, mix.think_s) for _ in range(mix.per_request))
        self._add(keep_posting(world, mix.think_s) for _ in range(mix.post))
        self._add(follow_events(world, mix.events_each) for _ in range(mix.events))
        self._add(talk(world, mix.messages_each) for _ in range(mix.tunnels))

    def add(self, client: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have one client more."""
        task = asyncio.create_task(client)
        self._tasks.append(task)
        return task

    def _add(self, clients: Any) -> None:
        for client in clients:
            self.add(client)

    async def finish(self) -> None:
        """Have every client end what it is doing. Raises what a client raised, which is a bug of the client."""
        self._world.is_over.set()
        async with asyncio.timeout(END_TIMEOUT_S):
            await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
