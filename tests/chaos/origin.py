"""The origin, a process of its own: ``python -m tests.chaos.origin PORT JOURNAL``; obeys words on standard input.

GET ``/KIND/SIZE/NAME`` answers with ``bodies.body_of``: KIND is ``b`` (Content-Length), ``k`` (chunked), ``c`` or ``l``
(cacheable, for a second or a minute) or ``x`` (no length: half of it, then a RST, in every mode). POST echoes.
``/events/COUNT/MS`` are numbered events, ``/socket`` is a WebSocket echo, ``/health`` says how it is. The words are the
names in ``Mode``; each is confirmed by a line.

The journal has lines for each request that carries ``X-Name``: ``got NAME`` when it was read, then what was done to it.
It outlives a kill -9, so that afterwards everybody knows what this process was holding.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import sys
from collections.abc import Awaitable, Callable

from tests.chaos import frames
from tests.chaos.bodies import body_of, digest_of
from tests.chaos.wire import CutError, Wire, read_chunk

SLOW_PIECES = 8
SLOW_PAUSE_S = 0.05


class Mode(enum.Enum):
    """How it behaves."""

    GOOD = "good"
    HANGING = "hanging"  # reads requests and answers none, probes neither
    SLOW = "slow"  # each body in eight pieces over 0.4 s
    TRUNCATING = "truncating"  # half of each body, then the end
    RESETTING = "resetting"  # a RST where the response should be


class Fate(enum.Enum):
    """What the journal says of a request."""

    GOT = "got"
    DONE = "done"  # answered, or for streams: begun
    HUNG = "hung"
    CUT = "cut"
    RESET = "reset"


class Journal:
    """Lines of a file, each there as soon as it is written."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, fate: Fate, name: str) -> None:
        if name:
            os.write(self._fd, f"{fate.value} {name}\n".encode())


class Origin:
    """What all connections share."""

    def __init__(self, journal: Journal) -> None:
        self.mode = Mode.GOOD
        self.journal = journal
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self) -> Wire:
        """Make what asyncio calls a protocol for a new connection, and serve it once it is there."""
        wire = Wire()
        task = asyncio.get_running_loop().create_task(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return wire

    async def _serve(self, wire: Wire) -> None:
        try:
            while await _Exchange(self, wire).run():
                pass
        except CutError:
            pass
        finally:
            wire.close()


class _Exchange:
    """One request and its response."""

    def __init__(self, origin: Origin, wire: Wire) -> None:
        self._origin = origin
        self._wire = wire
        self._name = ""

    async def run(self) -> bool:
        """Answer one request; tell whether the connection goes on."""
        lines = (await self._wire.until(b"\r\n\r\n"))[:-4].split(b"\r\n")
        method, self._target, _ = lines[0].split(b" ")
        self._fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        self._name = self._fields.get(b"x-name", b"").decode("latin-1")
        self._note(Fate.GOT)
        body = await self._read_body()
        mode, route = self._origin.mode, self._target.split(b"/")[1]
        if mode is Mode.HANGING:
            return await self._hang()
        if route == b"health":
            return await self._send(b"fine", b"no-store")
        if mode is Mode.RESETTING:
            self._note(Fate.RESET)
            self._wire.reset()
            return False
        if route in (b"events", b"socket"):
            return await (self._send_events() if route == b"events" else self._echo_frames())
        if method == b"POST":
            return await self._send(body, b"no-store")
        routes: dict[bytes, Callable[[bytes], Awaitable[bool]]] = {
            b"b": lambda body: self._send(body, b"no-store"),
            b"c": lambda body: self._send(body, b"max-age=1"),
            b"l": lambda body: self._send(body, b"max-age=60"),
            b"k": self._send_chunked,
            b"x": self._send_lengthless,
        }
        return await routes[route](body_of(self._target))

    def _note(self, fate: Fate) -> None:
        self._origin.journal.write(fate, self._name)

    async def _read_body(self) -> bytes:
        if b"transfer-encoding" in self._fields:
            pieces = []
            while piece := await read_chunk(self._wire):
                pieces.append(piece)
            return b"".join(pieces)
        return await self._wire.exactly(int(self._fields.get(b"content-length", b"0")))

    async def _hang(self) -> bool:
        self._note(Fate.HUNG)
        while await self._wire.more():
            pass
        return False

    async def _send(self, body: bytes, caching: bytes) -> bool:
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCache-Control: %s\r\n"
            b"X-Digest: %s\r\nContent-Length: %d\r\n\r\n" % (caching, digest_of(body).encode(), len(body))
        )
        return await self._send_in_mode(head, [body], b"")

    async def _send_chunked(self, body: bytes) -> bool:
        head = (
            b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nX-Digest: %s\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" % digest_of(body).encode()
        )
        step = max(len(body) // 3, 1)
        chunks = [
            b"%x\r\n%s\r\n" % (len(part), part)
            for start in range(0, len(body), step)
            if (part := body[start : start + step])
        ]
        return await self._send_in_mode(head, chunks, b"0\r\n\r\n")

    async def _send_in_mode(self, head: bytes, pieces: list[bytes], end: bytes) -> bool:
        data = b"".join(pieces)
        is_probe = self._target.startswith(b"/health")
        if self._origin.mode is Mode.TRUNCATING and data and not is_probe:
            self._note(Fate.CUT)
            self._wire.send(head + data[: len(data) // 2])
            return False
        if self._origin.mode is Mode.SLOW and not is_probe:
            self._wire.send(head)
            step = len(data) // SLOW_PIECES + 1
            for start in range(0, len(data), step):
                await asyncio.sleep(SLOW_PAUSE_S)
                self._wire.send(data[start : start + step])
            self._wire.send(end)
        else:
            self._wire.send(head + data + end)
        self._note(Fate.DONE)
        return not self._wire.ended

    async def _send_lengthless(self, body: bytes) -> bool:
        """Half of a body without length, then a RST once that must have been read."""
        self._note(Fate.CUT)
        self._wire.send(
            b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n" + body[: len(body) // 2]
        )
        await asyncio.sleep(0.05)
        self._wire.reset()
        return False

    async def _send_events(self) -> bool:
        _, _, count, pause_ms = self._target.split(b"/")
        self._note(Fate.DONE)
        self._wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(int(count)):
            event = b"id: %d\ndata: %s\n\n" % (number, digest_of(self._target + b"/%d" % number).encode())
            self._wire.send(b"%x\r\n%s\r\n" % (len(event), event))
            await asyncio.sleep(int(pause_ms) / 1e3)
            if self._wire.ended:
                return False
        self._wire.send(b"0\r\n\r\n")
        return True

    async def _echo_frames(self) -> bool:
        """Become a WebSocket and send back what comes, until a close frame."""
        key = self._fields.get(b"sec-websocket-key", b"")
        self._note(Fate.DONE)
        self._wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n\r\n" % frames.accept_of(key)
        )
        while True:
            code, payload = await frames.read(self._wire)
            self._wire.send(frames.render(code, payload))
            if code == frames.CLOSE:
                return False


async def _main(port: int, journal: str) -> None:
    origin = Origin(Journal(journal))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(origin.accept, "127.0.0.1", port, backlog=1024)
    words = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    print("serves", flush=True)
    while line := await words.readline():  # the end of it: whoever started this is gone
        origin.mode = Mode(line.strip().decode())
        print(origin.mode.value, flush=True)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1]), sys.argv[2]))
