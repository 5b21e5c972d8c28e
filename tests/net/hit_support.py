"""What the tests of hits without an exchange (net.hits) share: a second that lasts, and which lane was taken."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from minato.config.model import CacheConfig
from minato.net import hits
from minato.shared.row import WorkerRow
from tests.net.proxy import hello
from tests.system.harness import Client, OriginConnection, request_bytes

CACHE = CacheConfig(enabled=True, ttl_s=0.0)
GET = request_bytes(fields=[(b"User-Agent", b"curl/8.5.0"), (b"Accept", b"*/*")])
MAX_AGE = b"Cache-Control: max-age=60"
EXCHANGE, PLAIN, HOT = "exchange", "plain", "hot"


class WallClock:
    """Stands in for the ``time`` module inside the loop: the wall clock stands still, the monotonic one does not."""

    def __init__(self) -> None:
        self.wall_s = 1_700_000_000.25
        self.monotonic = time.monotonic

    def time(self) -> float:
        return self.wall_s


def note_lanes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note how each request is answered: in an exchange, as a plain hit, or hot."""
    taken: list[str] = []
    rendered: list[object] = []
    request_begun, hit_again, render_hit = WorkerRow.request_begun, WorkerRow.hit_again, hits.render_hit

    def note_exchange(row: WorkerRow) -> None:
        taken.append(EXCHANGE)
        request_begun(row)

    def note_hit(row: WorkerRow, *args: int) -> None:
        taken.append(PLAIN if rendered else HOT)
        rendered.clear()
        hit_again(row, *args)

    def note_rendering(*args: Any) -> bytes:
        rendered.append(args)
        return render_hit(*args)

    monkeypatch.setattr(WorkerRow, "request_begun", note_exchange)
    monkeypatch.setattr(WorkerRow, "hit_again", note_hit)
    monkeypatch.setattr(hits, "render_hit", note_rendering)
    return taken


def ask(client: Client, wire: bytes = GET) -> tuple[bytes, bytes]:
    """Send a request as it is; return the raw head and the body of its response."""
    client.send(wire)
    response = client.receive(wire.partition(b" ")[0])
    return response.raw_head, response.body


def make_hot(client: Client, lanes: list[str], wire: bytes = GET) -> tuple[bytes, bytes]:
    """Send the same bytes until they are answered hot; return that answer."""
    for _ in range(8):
        answer = ask(client, wire)
        if lanes[-1] == HOT:
            return answer
    raise AssertionError(f"never hot: {lanes}")


@dataclass
class Versions:
    """An origin's script: every response says which one it is, so that a stored one is told from a new one."""

    fields: tuple[bytes, ...] = (MAX_AGE,)
    made: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            with self.lock:
                self.made += 1
                body = b"%b %b %d" % (request.method, request.target, self.made)
            connection.send(hello(b"" if request.method == b"HEAD" else body, *self.fields))
