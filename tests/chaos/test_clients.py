"""The clients notice everything that a proxy can do wrong; each test plays such a proxy."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos import frames
from tests.chaos.bodies import body_of, digest_of
from tests.chaos.clients import Asker, World
from tests.chaos.ledger import Kind, Ledger
from tests.chaos.origin import Journal, Origin
from tests.chaos.streams import follow_events, talk

Tamper = Callable[[bytes], bytes | None]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TARGET = b"/b/500/one"
BODY = body_of(TARGET)
GOOD = b"HTTP/1.1 200 OK\r\nX-Digest: %s\r\nContent-Length: 500\r\n\r\n%s" % (digest_of(BODY).encode(), BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nX-Digest: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % digest_of(BODY).encode()


def play(answer: bytes, then: str = "close") -> Handler:
    """A proxy that answers every request with these bytes, then closes, resets or stays."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
                await writer.drain()
                if then != "stay":
                    break
        except asyncio.IncompleteReadError:
            pass
        if then == "reset":
            await asyncio.sleep(0.02)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()

    return handle


def ask(handler: Handler, *, keeps: bool = True, times: int = 1, pause_s: float = 0.0) -> Ledger:
    """Have a client ask a proxy so many times."""

    async def run() -> Ledger:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        world = World(Ledger(), random.Random(1), server.sockets[0].getsockname()[1], 0)
        asker = Asker(world, "client", keeps=keeps)
        for _ in range(times):
            await asker.get_target(TARGET, "one")
            await asyncio.sleep(pause_s)
        asker.close()
        server.close()
        return world.ledger

    return asyncio.run(run())


def kinds(ledger: Ledger) -> list[Kind]:
    return [trouble.kind for trouble in ledger.troubles]


@pytest.mark.parametrize("answer", [GOOD, CHUNKED + b"1f4\r\n" + BODY + b"\r\n0\r\n\r\n"], ids=["length", "chunked"])
def test_the_right_bytes_are_right(answer: bytes) -> None:
    ledger = ask(play(answer, "stay"), times=3)
    assert (ledger.ok["client"], kinds(ledger)) == (3, [])


@pytest.mark.parametrize(
    ("answer", "then", "kind"),
    [
        (GOOD[:-1], "close", Kind.CUT),
        (GOOD[:20], "close", Kind.CUT),
        (b"", "close", Kind.UNANSWERED),
        (b"", "reset", Kind.UNANSWERED),
        (GOOD[:-1] + b"?", "stay", Kind.WRONG),
        (GOOD.replace(b"X-Digest: ", b"X-Digest: 0"), "stay", Kind.WRONG),
        (GOOD.replace(b"Length: 500", b"Length: 499"), "stay", Kind.WRONG),
        (CHUNKED + b"1f4\r\n" + BODY + b"\r\n", "close", Kind.CUT),
        (CHUNKED + b"1f3\r\n" + BODY[1:] + b"\r\n0\r\n\r\n", "stay", Kind.WRONG),
        (CHUNKED + b"xyz\r\n", "stay", Kind.WRONG),
        (GOOD.replace(b"\r\nContent-Length: 500", b"")[:-9], "reset", Kind.CUT),
        (GOOD.replace(b"\r\nContent-Length: 500", b"")[:-9], "close", Kind.WRONG),
        (b"garbage\r\n\r\n", "stay", Kind.WRONG),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad", "stay", Kind.STATUS),
    ],
)
def test_what_is_not_right_is_noticed(answer: bytes, then: str, kind: Kind) -> None:
    assert kinds(ask(play(answer, then))) == [kind]


def test_an_idle_connection_that_is_closed_untold_is_an_early_close() -> None:
    assert kinds(ask(play(GOOD), pause_s=0.1)) == [Kind.EARLY_CLOSE]


def test_one_that_was_told_is_none() -> None:
    ledger = ask(play(GOOD.replace(b"X-Digest", b"Connection: close\r\nX-Digest")), pause_s=0.1)
    assert (kinds(ledger), ledger.told) == ([], 1)


def test_bytes_that_nobody_asked_for_are_wrong() -> None:
    assert kinds(ask(play(GOOD + b"more"), pause_s=0.1)) == [Kind.WRONG]


def test_a_request_that_runs_into_a_close_is_a_race() -> None:
    async def close_at_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert kinds(ask(close_at_the_second, times=2)) == [Kind.RACE]


def test_nobody_there_is_refused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        world = World(Ledger(), random.Random(1), sock.getsockname()[1], 0)
        asyncio.run(Asker(world, "client", keeps=True).get_target(TARGET, "one"))
    assert kinds(world.ledger) == [Kind.REFUSED]


# -- streams and tunnels, in front of the origin itself and of one whose bytes are tampered with


def stay(client: Callable[[World, int], Awaitable[None]], tamper: Tamper, tmp_path: object) -> Ledger:
    """Have one stream or tunnel of three go through a proxy that tampers with what the origin sends."""

    async def run() -> Ledger:
        loop = asyncio.get_running_loop()
        origin = await loop.create_server(Origin(Journal(f"{tmp_path}/journal")).accept, "127.0.0.1", 0)
        origin_port = origin.sockets[0].getsockname()[1]

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Tamper) -> None:
            while data := await reader.read(200_000):
                changed = change(data)
                if changed is None:
                    break
                writer.write(changed)
            writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up = await asyncio.open_connection("127.0.0.1", origin_port)
            await asyncio.gather(pump(reader, up[1], lambda data: data), pump(up[0], writer, tamper))

        proxy = await asyncio.start_server(relay, "127.0.0.1", 0)
        world = World(Ledger(), random.Random(1), proxy.sockets[0].getsockname()[1], 0)
        task = asyncio.ensure_future(client(world, 3))
        await asyncio.sleep(0)  # it has begun its first, which is to be the only one
        world.is_over.set()
        await task
        proxy.close()
        origin.close()
        return world.ledger

    return asyncio.run(run())


@pytest.mark.parametrize("client", [follow_events, talk])
def test_streams_and_tunnels_that_come_right(client: Callable[[World, int], Awaitable[None]], tmp_path: object) -> None:
    ledger = stay(client, lambda data: data, tmp_path)
    assert (ledger.ok.total(), ledger.moves.total(), kinds(ledger)) == (1, 3, [])


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lambda data: data.replace(b"id: 1\n", b"id: 0\n"), Kind.WRONG),
        (lambda data: re.sub(rb"[0-9a-f]+\r\nid: 1\n.*?\n\n\r\n", b"", data, flags=re.DOTALL), Kind.WRONG),
        (lambda data: b"0\r\n\r\n" if b"id: 2" in data else data, Kind.WRONG),
        (lambda data: None if b"id: 2" in data else data, Kind.CUT),
    ],
    ids=["a number twice", "one left out", "a clean end too early", "cut"],
)
def test_a_tampered_event_stream_is_noticed(tamper: Tamper, kind: Kind, tmp_path: object) -> None:
    assert kinds(stay(follow_events, tamper, tmp_path)) == [kind]


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lambda data: data if data.startswith(b"HTTP") else data[:-1] + bytes([data[-1] ^ 1]), Kind.WRONG),
        (lambda data: data if data.startswith(b"HTTP") else None, Kind.CUT),
        (lambda data: data.replace(b"Accept: ", b"Accept: x"), Kind.WRONG),
        (lambda data: data.replace(b"101 Switching Protocols", b"503 No"), Kind.STATUS),
    ],
    ids=["other bytes", "cut", "another key", "another status"],
)
def test_a_tampered_tunnel_is_noticed(tamper: Tamper, kind: Kind, tmp_path: object) -> None:
    assert kinds(stay(talk, tamper, tmp_path)) == [kind]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_masking_twice_changes_nothing(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    frame = frames.render(frames.TEXT, payload, b"\x01\x80\xff\x7f")
    assert frame[-size:] != payload or size == 0

    async def read() -> tuple[int, bytes]:
        from tests.chaos.wire import Wire

        wire = Wire()
        wire.data_received(frame)
        return await frames.read(wire)

    assert asyncio.run(read()) == (frames.TEXT, payload)
