"""Bad input at random: seeded mutations of valid requests and responses; no worker ends, minato answers on."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from .harness import Minato, OriginConnection, fetch, request_bytes, response_bytes
from .harness.client import Client

StartMinato = Callable[..., Minato]

REQUESTS = [
    request_bytes(target=b"/a?b=c", fields=[(b"Accept", b"*/*"), (b"Cookie", b"a=b")]),
    request_bytes(b"POST", body=b"0123456789"),
    request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]) + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    request_bytes(b"PUT", fields=[(b"Expect", b"100-continue")], body=b"abc"),
    request_bytes(fields=[(b"Connection", b"Upgrade, X-A"), (b"Upgrade", b"websocket"), (b"X-A", b"1")]),
    request_bytes(target=b"http://test.local/x", version=b"1.0", fields=[(b"Connection", b"keep-alive")]),
    request_bytes(fields=[(b"If-None-Match", b'"a", W/"b"'), (b"Cache-Control", b"max-age=0, no-cache")]),
    request_bytes(b"HEAD") + request_bytes(target=b"/second"),
]
RESPONSES = [
    response_bytes(b"0123456789", fields=[(b"ETag", b'"a"'), (b"Cache-Control", b"max-age=5, s-maxage=7")]),
    response_bytes(fields=[(b"Transfer-Encoding", b"chunked")], length=False) + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + response_bytes(b"x", fields=[(b"Vary", b"Accept, Cookie")]),
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nExpires: Mon, 01 Jan 2024 00:00:00 GMT\r\nAge: 5\r\n\r\nto the end",
    b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
    b"HTTP/1.1 204 No Content\r\n\r\n",
]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b'"',
    b"chunked",
    b"0",
    b"-1",
    b"99999999999999999999",
]
TOKENS += [
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: x\r\n",
    b"HTTP/1.1",
    b"\xff\xfe",
    b"%",
    b"x" * 5000,
]


def mutate(rng: random.Random, wire: bytes) -> bytes:
    """Change a message in one to six places."""
    data = bytearray(wire)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            data[place:place] = rng.choice(TOKENS)
        elif kind == 1:
            del data[place : place + rng.randint(1, 20)]
        elif kind == 2 and place < len(data):
            data[place] = rng.randrange(256)
        elif kind == 3:
            data[place : place + rng.randint(1, 8)] = rng.choice(TOKENS)
        elif kind == 4:
            data[place:place] = data[place : place + rng.randint(1, 40)]
        elif kind == 5:
            del data[place:]
    return bytes(data)


def throw(port: int, wires: list[bytes], rng: random.Random) -> None:
    """Send each on a connection of its own, at once or in pieces, and read until minato ends it."""
    for wire in wires:
        with Client(port, timeout_s=20) as client, contextlib.suppress(ConnectionError):
            client.send_in_pieces(wire, rng.choice([len(wire) or 1, 1 + len(wire) // 3]))
            client.half_close()
            client.read_to_end()


def in_parallel(port: int, wires: list[bytes], seed: int, threads: int = 10) -> list[BaseException]:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            throw(port, wires[number::threads], random.Random(seed + number))
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(120)
    assert not any(thread.is_alive() for thread in running)
    return errors


TIMEOUTS = {"client_header": 1, "client_body": 1, "client_idle": 1, "response": 0.5, "read": 0.5, "write": 5}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_mutated_requests_end_no_worker(
    minato: StartMinato, origin: Callable[..., Any], seed: int, cache: bool
) -> None:
    rng = random.Random(seed)
    app = origin()
    app.routes[b"/cached"] = RESPONSES[0]
    instance = minato(app, timeouts=dict(TIMEOUTS), cache={"enabled": cache})
    before = instance.worker_pids()
    assert in_parallel(instance.port, [mutate(rng, rng.choice(REQUESTS)) for _ in range(600)], seed) == []
    assert fetch(instance.port).status == 200
    assert instance.worker_pids() == before
    app.failures.clear()  # the app's own parser is no match for these


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("cache", [False, True])
def test_mutated_responses_end_no_worker(
    minato: StartMinato, origin: Callable[..., Any], seed: int, cache: bool
) -> None:
    rng = random.Random(seed)
    answers = [mutate(rng, rng.choice(RESPONSES)) for _ in range(500)]
    answers_left = iter(answers)
    lock = threading.Lock()

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            with lock:
                answer = next(answers_left, None)
            connection.send(answer or response_bytes(b"ok"))
            if answer and rng.random() < 0.7:
                return

    scripted = origin(script)
    instance = minato(
        scripted,
        timeouts=dict(TIMEOUTS),
        cache={"enabled": cache},
        health={"interval": 600},
        service_keys={"retries": 1},
    )
    before = instance.worker_pids()
    requests = [rng.choice(REQUESTS).replace(b"/a", b"/%d" % (n % 40)) for n in range(500)]
    assert in_parallel(instance.port, requests, seed) == []
    with lock:
        answers_left = iter([])
    assert fetch(instance.port, b"/fresh").body == b"ok"
    assert instance.worker_pids() == before
    scripted.failures.clear()
