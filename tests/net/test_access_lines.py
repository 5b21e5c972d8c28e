"""Lines of the access log made of parts that are kept must read as those that are rendered from nothing."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minato.config.model import AccessLogConfig, CacheConfig, LogFormat
from minato.telemetry.access_format import CombinedFormatter
from minato.telemetry.access_log import AccessLog
from tests.net.proxy import HOST, Entries, Proxy, hello
from tests.system.harness import Origin, OriginConnection
from tests.system.harness.origin import Script

OriginMaker = Callable[[Script], Origin]
ProxyMaker = Callable[..., Proxy]

_STAMP = re.compile(rb"\[[^]]*\]")
LONG = b"a" * (select.PIPE_BUF + 1)


def get(target: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"GET %b HTTP/1.1" % target, b"Host: " + HOST.encode(), *fields)) + b"\r\n\r\n"


REQUESTS = {
    "the same again": [get(b"/a", b"User-Agent: x")] * 4,
    "another target": [get(b"/%d" % index, b"User-Agent: x") for index in range(4)] * 3,
    "another agent": [get(b"/a", b"User-Agent: x%d" % (index % 2)) for index in range(6)],
    "another referer": [get(b"/a", b"Referer: http://r/%d" % (index % 2)) for index in range(6)],
    "a new cookie each": [get(b"/a", b"User-Agent: x", b"Cookie: a=%d" % index) for index in range(5)],
    "a cookie and another agent": [
        get(b"/a", b"User-Agent: x%d" % (index // 3), b"Cookie: a=%d" % index) for index in range(6)
    ],
    "without either": [get(b"/a")] * 3,
    "what needs escaping": [get(b"/a%22", b'User-Agent: "x\\\xff', b"Referer: \x7f\xe9".replace(b"\x7f", b"\\"))] * 3,
    "HTTP/1.0 between": [get(b"/a"), get(b"/a").replace(b"/1.1", b"/1.0", 1), get(b"/a")],
    "an absolute target between": [get(b"/a"), get(b"http://%b/a" % HOST.encode()), get(b"/a")] * 2,
    "heads to be refused": [get(b"/a"), get(b"/a", b"bad field"), get(b"/a")],
}


def respond(connection: OriginConnection) -> None:
    while (request := connection.read_request()) is not None:
        connection.origin.record(request)
        connection.send(hello(request.target[-200:], b"Cache-Control: max-age=60"))


def play(here: Proxy, wires: list[bytes]) -> None:
    client = here.client()
    for wire in wires:
        client.send(wire)
        if client.receive(b"GET").says_close():
            client.close()
            client = here.client()
    client.close()


@pytest.mark.parametrize("express", [True, False], ids=["express", "general"])
@pytest.mark.parametrize("cached", [False, True], ids=["forwarded", "cached"])
@pytest.mark.parametrize("wires", REQUESTS.values(), ids=REQUESTS)
def test_kept_parts_give_the_line_of_the_entry(
    origin: OriginMaker, proxy: ProxyMaker, tmp_path: Path, wires: list[bytes], cached: bool, express: bool
) -> None:
    there, path = origin(respond), tmp_path / "access.log"
    options: dict[str, Any] = {"cache": CacheConfig(enabled=cached), "express": express}
    entries, access_log = Entries(), AccessLog(AccessLogConfig(str(path), LogFormat.COMBINED))
    play(proxy(there, access_log=entries, **options), wires)
    here = proxy(there, access_log=access_log, **options)
    play(here, wires)
    here.call(access_log.close)
    expected = [_STAMP.sub(b"", CombinedFormatter()(entry)) for entry in entries.entries]
    assert len(expected) == len(wires)
    assert [_STAMP.sub(b"", line) for line in path.read_bytes().splitlines(keepends=True)] == expected


def test_a_line_too_long_for_a_pipe_is_cut_however_often_it_comes(
    origin: OriginMaker, proxy: ProxyMaker, tmp_path: Path
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    access_log = AccessLog(AccessLogConfig(str(path), LogFormat.COMBINED))
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as reader:
        here = proxy(origin(respond), access_log=access_log)
        play(here, [get(b"/" + LONG, b"User-Agent: x"), get(b"/b")] * 4)
        here.call(access_log.flush)
        lines = reader.read(1_000_000).splitlines(keepends=True)
        here.call(access_log.close)
    assert [len(line) <= select.PIPE_BUF and line.endswith(b'"\n') for line in lines] == [True] * 8
    assert [b'"GET /b HTTP/1.1"' in line for line in lines] == [False, True] * 4
