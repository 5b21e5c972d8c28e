"""The application behind uvicorn: the same resources, server-sent events and a WebSocket; REAL_FILE names the file."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

FILE = Path(os.environ["REAL_FILE"])
SEEN: dict[int, asyncio.Event] = {}

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await _echo_messages(receive, send)
    elif scope["type"] == "http":
        await _answer(scope, receive, send)


async def _answer(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path == "/file":
        await _reply(send, FILE.read_bytes())
    elif path == "/stream":
        await _begin(send, 200, [])
        data = FILE.read_bytes()
        for at in range(0, len(data), 50_000):
            await send({"type": "http.response.body", "body": data[at : at + 50_000], "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/echo":
        await _echo(scope, receive, send)
    elif path == "/redirect":
        await _reply(send, b"", 302, [(b"location", b"/file")])
    elif path == "/gzip":
        await _reply(send, gzip.compress(FILE.read_bytes()), 200, [(b"content-encoding", b"gzip")])
    elif path == "/events":
        await _send_events(send)
    elif path.startswith("/seen/"):
        SEEN[int(path[6:])].set()
        await _reply(send, b"ok")
    else:
        await _reply(send, b"well")


async def _begin(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _reply(send: Send, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await _begin(send, status, [*(headers or []), (b"content-length", b"%d" % len(body))])
    await send({"type": "http.response.body", "body": body})


async def _echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    sha, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        sha.update(message.get("body", b""))
        size += len(message.get("body", b""))
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    told = {
        "method": scope["method"],
        "bytes": size,
        "sha256": sha.hexdigest(),
        "coding": headers.get("transfer-encoding"),
        "length": headers.get("content-length"),
    }
    await _reply(send, json.dumps(told).encode())


async def _send_events(send: Send) -> None:
    await _begin(send, 200, [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")])
    for number in range(3):
        SEEN[number] = asyncio.Event()
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.wait_for(SEEN[number].wait(), 10)  # the next event waits until the client has seen this one
    await send({"type": "http.response.body"})


async def _echo_messages(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "leave":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        await send({"type": "websocket.send", **{key: message[key] for key in ("text", "bytes") if message.get(key)}})
