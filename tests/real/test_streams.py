"""What is more than a request and a response: events as they come, interim responses, trailers, WebSocket, load."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator

import aiohttp
import httpx
import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.real.clients import TIMEOUT_S, ask_node, run
from tests.real.conftest import Front
from tests.real.origins import MAKERS
from tests.system.harness.load import Wrk, find_tool

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]
EVENTS = [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]
MIB = 1_048_576

# The origin sends the next event only when the client has asked for /seen/N: one that is held back stops all.


def events_by_requests(url: str) -> list[bytes]:
    with requests.get(f"{url}/events", stream=True, timeout=TIMEOUT_S) as answer:
        return _acknowledged(url, answer.iter_content(None))


def events_by_httpx(url: str) -> list[bytes]:
    with httpx.stream("GET", f"{url}/events", timeout=TIMEOUT_S) as answer:
        return _acknowledged(url, answer.iter_raw())


def _acknowledged(url: str, pieces: Iterator[bytes]) -> list[bytes]:
    seen = []
    for number, piece in enumerate(pieces):
        seen.append(piece)
        requests.get(f"{url}/seen/{number}", timeout=TIMEOUT_S)
    return seen


def events_by_aiohttp(url: str) -> list[bytes]:
    async def read() -> list[bytes]:
        seen = []
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/events") as answer:
            async for piece in answer.content.iter_any():
                async with session.get(f"{url}/seen/{len(seen)}") as told:
                    await told.read()
                seen.append(piece)
        return seen

    return asyncio.run(read())


def events_by_node(url: str) -> list[bytes]:
    told = ask_node("events", url)
    assert told["done"] is True
    return [text.encode() for text in told["seen"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("origin", ["node", "uvicorn"])
@pytest.mark.parametrize("read", [events_by_requests, events_by_httpx, events_by_aiohttp, events_by_node])
def test_events_arrive_as_they_are_sent(front: Front, origin: str, read: Callable[[str], list[bytes]]) -> None:
    assert read(front.url(origin)) == EVENTS


def test_early_hints_arrive(front: Front) -> None:
    told = ask_node("raw", front.url("node", "/hints"))
    assert told["status"] == 200
    (hint,) = told["informed"]  # type: ignore[misc]
    assert (hint["status"], hint["headers"]["link"]) == (103, "</style.css>; rel=preload")
    by_curl = run(find_tool("curl"), "-sSfi", front.url("node", "/hints")).stdout
    assert by_curl.startswith(b"HTTP/1.1 103 ")
    assert by_curl.endswith(b"hinted")
    of_an_old_client = run(find_tool("curl"), "-sSfi", "--http1.0", front.url("node", "/hints")).stdout
    assert of_an_old_client.startswith(b"HTTP/1.1 200 ")


def test_trailers_arrive_as_they_were_sent_or_not_at_all(front: Front) -> None:
    told = ask_node("raw", front.url("node", "/trailers"))
    assert told["status"] == 200
    assert told["trailers"] in ({}, {"x-sum": "42"})
    assert run(find_tool("curl"), "-sSf", front.url("node", "/trailers")).stdout == b"body"


# -- WebSocket


@pytest.fixture
def websocket(front: Front) -> Iterator[ClientConnection]:
    url = front.url("uvicorn", "/ws").replace("http:", "ws:")
    with connect(url, open_timeout=TIMEOUT_S, max_size=64 * MIB) as connection:
        yield connection


def test_websocket_messages_come_back(websocket: ClientConnection) -> None:
    for message in ("hello", "\u00fc\u20ac", b"\x00\xff", ""):
        websocket.send(message)
        if message:
            assert websocket.recv(TIMEOUT_S) == message
    websocket.send(["frag", "men", "ted"])
    assert websocket.recv(TIMEOUT_S) == "fragmented"


def test_large_websocket_messages_come_back_whole(websocket: ClientConnection) -> None:
    for size in (125, 126, 65_535, 65_536, MIB, 8 * MIB):
        message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        websocket.send(message)
        assert websocket.recv(TIMEOUT_S) == message


def test_many_websocket_messages_keep_their_order(websocket: ClientConnection) -> None:
    for number in range(500):
        websocket.send(str(number))
    assert [websocket.recv(TIMEOUT_S) for _ in range(500)] == [str(number) for number in range(500)]


def test_a_websocket_ping_is_answered_by_the_origin(websocket: ClientConnection) -> None:
    assert websocket.ping(b"are you there").wait(TIMEOUT_S)


def test_a_websocket_is_closed_by_either_side_with_its_code(front: Front, websocket: ClientConnection) -> None:
    websocket.send("leave")
    with pytest.raises(ConnectionClosed) as closed:
        websocket.recv(TIMEOUT_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")
    with connect(front.url("uvicorn", "/ws").replace("http:", "ws:"), open_timeout=TIMEOUT_S) as other:
        other.close(1000, "done")
        assert other.close_code == 1000


# -- load


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("origin", ["nginx", "node"])
def test_ab_sees_no_failure(front: Front, origin: str, keep_alive: bool) -> None:
    options = ["-k"] if keep_alive else []
    told = run(find_tool("ab"), "-q", "-n", "500", "-c", "20", *options, front.url(origin, "/health")).stdout.decode()
    assert re.search(r"Complete requests: +500\n", told), told
    assert re.search(r"Failed requests: +0\n", told), told
    assert "Non-2xx" not in told
    kept = re.search(r"Keep-Alive requests: +(\d+)\n", told)
    assert (kept is not None and int(kept[1]) == 500) is keep_alive, told


@pytest.mark.parametrize("origin", list(MAKERS))
def test_wrk_sees_no_failure(front: Front, origin: str) -> None:
    report = Wrk(front.ports[origin], seconds=1, connections=8, host="127.0.0.1", path="/health").report()
    assert report.requests > 50, report.text
    assert report.bad_statuses == 0, report.text
    assert not any(report.socket_errors.values()), report.text
