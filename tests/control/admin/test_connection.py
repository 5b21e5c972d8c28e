"""One connection to the admin API over a real socket pair: bounded in bytes and time, each request answered once."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from minato.control.admin import connection as connection_module
from minato.control.admin.answer import Answer, refuse
from minato.control.admin.connection import IDLE_S, LINGER_S, MAX_BODY_BYTES, REQUEST_S, AdminConnection
from minato.control.admin.routes import Reply, Route
from minato.net.loop import Loop

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"


REAL_MONOTONIC = time.monotonic


class Api:
    """A client, its connection, and a clock of the test's own."""

    def __init__(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = loop
        self.waiting: list[Reply] = []
        self.handled = 0
        self.closed: list[AdminConnection] = []
        self._skipped_s = 0.0
        self._monkeypatch = monkeypatch
        routes = {
            b"/ok": Route(b"GET", lambda body, reply: self._handle(reply, {"ok": True})),
            b"/echo": Route(b"POST", lambda body, reply: self._handle(reply, {"size": len(body)})),
            b"/later": Route(b"GET", lambda body, reply: self.waiting.append(reply)),
            b"/no": Route(b"GET", self._refuse),
            b"/big": Route(b"GET", lambda body, reply: self._handle(reply, {"big": "x" * 8_000_000})),
            b"/bug": Route(b"GET", lambda body, reply: 1 / 0),  # type: ignore[arg-type, return-value]
        }
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client = socket.create_connection(server.getsockname(), timeout=10)
            ours, _ = server.accept()
        ours.setblocking(False)
        self.connection = AdminConnection(loop, ours, routes, self.closed.append)

    def _handle(self, reply: Reply, content: dict[str, object]) -> None:
        self.handled += 1
        reply(Answer(200, content))

    def _refuse(self, body: bytes, reply: Reply) -> None:
        raise refuse(409, "no")

    def send(self, data: bytes) -> None:
        self.client.sendall(data)
        self.settle()

    def settle(self, turns: int = 10) -> None:
        for _ in range(turns):
            self.loop.turn(0.001)

    def skip(self, seconds: float) -> None:
        """Let the loop's clock run ahead."""
        self._skipped_s += seconds
        skipped_s, real = self._skipped_s, REAL_MONOTONIC
        self._monkeypatch.setattr("minato.net.loop.time.monotonic", lambda: real() + skipped_s)
        self.settle()

    def read(self) -> bytes:
        """Everything that is there."""
        self.client.setblocking(False)
        data = b""
        try:
            while part := self.client.recv(1_000_000):
                data += part
        except BlockingIOError:
            pass
        finally:
            self.client.settimeout(10)
        return data


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    loop = Loop()
    api = Api(loop, monkeypatch)
    yield api
    api.connection.close()
    api.client.close()
    loop.close()


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def body_of(data: bytes) -> object:
    return json.loads(data.partition(b"\r\n\r\n")[2])


def test_request_is_answered_in_json_that_nobody_stores_and_the_connection_stays(api: Api) -> None:
    api.send(GET)
    data = api.read()
    assert statuses(data) == [200]
    assert body_of(data) == {"ok": True}
    for line in (
        b"content-type: application/json",
        b"cache-control: no-store",
        b"x-content-type-options: nosniff",
        b"date: ",
    ):
        assert b"\r\n" + line in data
    api.send(GET)
    assert statuses(api.read()) == [200]


def test_head_has_no_body(api: Api) -> None:
    api.send(GET.replace(b"GET", b"HEAD"))
    assert api.read().endswith(b"content-length: 13\r\n\r\n")


def test_request_byte_by_byte_is_the_same(api: Api) -> None:
    for byte in HEAD + b"Content-Length: 5\r\n\r\nhello":
        api.client.sendall(bytes([byte]))
        api.settle(2)
    assert body_of(api.read()) == {"size": 5}


@pytest.mark.parametrize(
    ("version", "field", "stays"), [(b"1.0", b"", False), (b"1.0", b"keep-alive", True), (b"1.1", b"close", False)]
)
def test_connection_ends_where_the_client_wants_that(api: Api, version: bytes, field: bytes, stays: bool) -> None:
    request = b"GET /ok HTTP/%b\r\nHost: localhost\r\nConnection: %b\r\n\r\n" % (version, field or b"x")
    api.send(request)
    first = api.read()
    assert (b"connection: close" in first, b"connection: keep-alive" in first) == (not stays, stays)
    api.send(request)
    assert statuses(api.read()) == ([200] if stays else [])


def test_largest_body_is_taken_and_a_larger_one_refused_before_it_comes(api: Api) -> None:
    api.send(HEAD + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES)
    api.send(b"x" * MAX_BODY_BYTES)
    assert body_of(api.read()) == {"size": MAX_BODY_BYTES}
    api.send(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (MAX_BODY_BYTES + 1))
    assert statuses(api.read()) == [413]
    assert api.handled == 1


def test_body_without_length_is_refused(api: Api) -> None:
    api.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100)
    assert statuses(api.read()) == [411]


def test_client_that_waits_for_a_continue_gets_it(api: Api) -> None:
    api.send(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert api.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    api.send(b"{}")
    assert statuses(api.read()) == [200]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /ok HTTP/1.1\r\n\r\n", 400),
        (b"GET /ok HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /ok HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 3_000, 414),
        (b"GET /ok HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 431),
        (b"GET /ok HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (HEAD.replace(b"localhost", b"evil.test") + b"Content-Length: 2\r\n\r\n{}", 421),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /ok HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 405),
    ],
)
def test_bad_request_is_answered_and_ends_the_connection(api: Api, data: bytes, status: int) -> None:
    api.send(data)
    answer = api.read()
    assert statuses(answer) == [status]
    assert "error" in body_of(answer)  # type: ignore[operator]
    assert b"connection: close" in answer
    assert api.handled == 0
    api.skip(LINGER_S + 0.1)
    assert api.closed == [api.connection]


def test_answer_arrives_though_the_client_sends_on(api: Api) -> None:
    api.send(HEAD + b"Content-Length: 9999999\r\n\r\n")
    for _ in range(50):
        api.send(b"x" * 50_000)
    assert statuses(api.read()) == [413]


def test_handler_may_refuse(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/no"))
    data = api.read()
    assert (statuses(data), body_of(data)) == ([409], {"error": "no"})


def test_pipelined_requests_are_answered_one_by_one_over_several_turns(api: Api) -> None:
    api.client.sendall(GET * 20)
    api.loop.turn(0.1)
    assert api.handled == 1
    api.settle(500)
    assert api.handled == 20
    assert statuses(api.read()) == [200] * 20


def test_requests_behind_one_that_waits_are_not_read(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/later") + GET)
    assert (api.handled, api.read()) == (0, b"")
    api.waiting[0](Answer(202, {}))
    api.settle(100)
    assert statuses(api.read()) == [202, 200]


def test_reply_that_comes_twice_or_too_late_is_nothing(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/later"))
    api.waiting[0](Answer(202, {}))
    api.waiting[0](Answer(500, {}))
    api.settle()
    assert statuses(api.read()) == [202]
    api.send(GET.replace(b"/ok", b"/later"))
    api.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    api.client.close()
    api.settle()
    assert api.closed == [api.connection]
    api.waiting[1](Answer(202, {}))


def test_client_that_ends_its_half_behind_its_request_is_answered(api: Api) -> None:
    api.client.sendall(GET.replace(b"/ok", b"/later"))
    api.client.shutdown(socket.SHUT_WR)
    api.settle()
    api.waiting[0](Answer(202, {}))
    api.settle()
    assert statuses(api.read()) == [202]
    assert api.closed == [api.connection]


def test_drip_does_not_extend_the_deadline(api: Api) -> None:
    for _ in range(4):
        api.send(b"G")
        api.skip(REQUEST_S / 4)
    api.settle()
    data = api.read()
    assert statuses(data) == [408]
    api.skip(LINGER_S + 0.1)
    assert api.closed == [api.connection]


def test_client_that_sends_nothing_is_let_go(api: Api) -> None:
    api.skip(REQUEST_S + 0.1)
    assert (api.closed, api.read()) == ([api.connection], b"")


def test_idle_connection_is_let_go_later(api: Api) -> None:
    api.send(GET)
    api.skip(IDLE_S - 1)
    assert api.closed == []
    api.skip(2)
    assert api.closed == [api.connection]


def test_client_that_does_not_read_is_let_go(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/big"))
    api.skip(connection_module.WRITE_S + 0.1)
    assert api.closed == [api.connection]


def test_requests_behind_an_answer_that_the_client_does_not_take_wait(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/big") * 50)
    api.settle(200)
    handled = api.handled
    assert handled < 4, "what the kernel takes by itself, and one more"
    assert not api.connection.is_waiting, "an answer is on its way: it is not given up for others"
    for _ in range(5_000):
        api.read()
        api.settle(1)
        if api.handled > handled:
            break
    api.settle(200)
    assert handled < api.handled < handled + 4
    assert api.connection._stream.pending_bytes < 9_000_000


def read_until(api: Api, end: bytes) -> bytes:
    data = b""
    for _ in range(5_000):
        data += api.read()
        if data.endswith(end):
            break
        api.settle(1)
    return data


def test_pipelined_requests_are_all_answered_to_a_client_that_takes_its_time(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/big") * 3 + GET)
    data = read_until(api, b'{"ok": true}\n')
    assert statuses(data) == [200] * 4
    assert api.closed == []
    api.send(GET)
    assert statuses(api.read()) == [200]


def test_connection_that_is_to_end_does_so_with_the_answer_that_is_on_its_way(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/big") + GET)
    api.connection.finish()
    assert api.closed == []
    data = read_until(api, b"}\n")
    api.settle()
    assert len(data) > 8_000_000 and statuses(data) == [200]
    api.client.close()
    api.settle()
    assert api.closed == [api.connection]


def test_client_that_reads_slowly_gets_all_of_the_last_answer(api: Api) -> None:
    api.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    data = read_until(api, b"}\n")
    assert len(data) > 8_000_000
    api.settle()
    assert api.read() == b""
    api.client.close()
    api.settle()
    assert api.closed == [api.connection]


def test_bug_ends_its_connection_alone(api: Api) -> None:
    api.send(GET.replace(b"/ok", b"/bug"))
    assert (api.closed, api.read()) == ([api.connection], b"")
