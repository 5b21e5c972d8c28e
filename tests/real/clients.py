"""Real clients behind one small face: each sends one request with a library or program of its own."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import aiohttp
import httpx
import requests

from tests.system.harness.load import find_tool

TIMEOUT_S = 20
_PIECE_BYTES = 10_000
CLIENT_MJS = Path(__file__).parent / "client.mjs"


@dataclass
class Reply:
    """What the client made of it: field names in lower case; ``text`` may be left empty where the body is long."""

    status: int
    bytes: int
    sha256: str
    text: str
    headers: Mapping[str, str]

    def json(self) -> dict[str, object]:
        return dict(json.loads(self.text))


def reply(status: int, body: bytes, headers: Mapping[str, str]) -> Reply:
    lower = {name.lower(): value for name, value in headers.items()}
    return Reply(status, len(body), sha256(body).hexdigest(), body[:2000].decode("latin-1"), lower)


def run(*command: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode in ok, (command, done.returncode, done.stderr.decode("utf-8", "replace"))
    return done


def _pieces(size: int) -> Iterator[bytes]:
    for at in range(0, size, _PIECE_BYTES):
        yield b"x" * min(_PIECE_BYTES, size - at)


async def _async_pieces(size: int) -> AsyncIterator[bytes]:
    for piece in _pieces(size):
        yield piece


def by_curl(url: str, *, method: str = "GET", length: int = 0, chunked: int = 0) -> Reply:
    with tempfile.TemporaryDirectory() as directory:
        body, head = Path(directory, "body"), Path(directory, "head")
        command = [find_tool("curl"), "-sSL", "--compressed", "-o", str(body), "-D", str(head)]
        command += ["-I"] if method == "HEAD" else ["-X", method] if method != "GET" else []
        if length or chunked:
            upload = Path(directory, "upload")
            upload.write_bytes(b"x" * (length or chunked))
            command += ["--data-binary", f"@{upload}"]
        command += ["-H", "Transfer-Encoding: chunked"] if chunked else []
        status = run(*command, "-w", "%{http_code}", url).stdout[-3:]
        *_, last = head.read_text("latin-1").strip().split("\r\n\r\n")
        got = b"" if method == "HEAD" or not body.exists() else body.read_bytes()
        return reply(int(status), got, _fields(last))


def by_wget(url: str, *, method: str = "GET", length: int = 0, chunked: int = 0) -> Reply:
    assert not chunked, "wget sends no chunks"
    with tempfile.TemporaryDirectory() as directory:
        body = Path(directory, "body")
        command = [find_tool("wget"), "--server-response", "--compression=auto", "-O", str(body), "--tries=1"]
        command += ["--spider"] if method == "HEAD" else []
        if length:
            upload = Path(directory, "upload")
            upload.write_bytes(b"x" * length)
            command.append(f"--post-file={upload}")
        told = run(*command, url).stderr.decode("latin-1")
        last = re.split(r"(?m)^  HTTP/1\.1 ", told)[-1]
        return reply(int(last[:3]), body.read_bytes() if body.exists() else b"", _fields(last))


def _fields(head: str) -> dict[str, str]:
    lines = [line.strip().partition(": ") for line in head.splitlines()[1:] if ": " in line]
    return {name: value for name, _, value in lines}


def by_requests(url: str, *, method: str = "GET", length: int = 0, chunked: int = 0) -> Reply:
    data = b"x" * length if length else _pieces(chunked) if chunked else None
    answer = requests.request(method, url, data=data, timeout=TIMEOUT_S, allow_redirects=True)
    return reply(answer.status_code, answer.content, answer.headers)


def by_httpx(url: str, *, method: str = "GET", length: int = 0, chunked: int = 0) -> Reply:
    content = b"x" * length if length else _pieces(chunked) if chunked else None
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True) as client:
        answer = client.request(method, url, content=content)
    return reply(answer.status_code, answer.content, answer.headers)


def by_aiohttp(url: str, *, method: str = "GET", length: int = 0, chunked: int = 0) -> Reply:
    async def send() -> Reply:
        data = b"x" * length if length else _async_pieces(chunked) if chunked else None
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, data=data, allow_redirects=True) as answer,
        ):
            return reply(answer.status, await answer.read(), answer.headers)

    return asyncio.run(send())


def by_node(url: str, *, method: str = "GET", length: int = 0, chunked: int = 0) -> Reply:
    kind = "length" if length else "chunked" if chunked else "none"
    return Reply(**ask_node("send", url, method, kind, str(length or chunked)))  # type: ignore[arg-type]


def ask_node(task: str, *arguments: str) -> dict[str, object]:
    return dict(json.loads(run(find_tool("node"), str(CLIENT_MJS), task, *arguments).stdout))


CLIENTS = {
    "curl": by_curl,
    "wget": by_wget,
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "node": by_node,
}
