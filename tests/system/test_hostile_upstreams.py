"""Bad input from upstreams: a malformed or ambiguous response is a 502, and its connection is never reused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Instances
from .harness import Client, Minato, Origin, OriginConnection, Truncated, request_bytes, response_bytes


class Scripted:
    """An origin that sends whatever ``answer`` holds to every request of a connection."""

    def __init__(self, make: Callable[..., Origin]) -> None:
        self.answer = b""
        self.origin = make(self._script)

    def _script(self, connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(self.answer)


@pytest.fixture(scope="module")
def scripted(module_origin: Callable[..., Origin]) -> Scripted:
    return Scripted(module_origin)


@pytest.fixture(scope="module")
def proxy(module_instances: Instances, scripted: Scripted) -> Minato:
    return module_instances.start(
        scripted.origin, service_keys={"retries": 0}, timeouts={"response": 2, "read": 2}, health={"interval": 600}
    )


def ok(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n" + body


BAD_HEADS = {
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "text": b"hello there\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/3.1": b"HTTP/3.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICY": b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two-digit status": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "four-digit status": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status in words": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
    "signed status": b"HTTP/1.1 +200 OK\r\nContent-Length: 0\r\n\r\n",
    "space first": b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two lengths": ok(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
    "list of lengths": ok(b"Content-Length: 5, 6", body=b"hello!"),
    "negative length": ok(b"Content-Length: -1"),
    "signed length": ok(b"Content-Length: +5", body=b"hello"),
    "length in words": ok(b"Content-Length: five", body=b"hello"),
    "hex length": ok(b"Content-Length: 0x5", body=b"hello"),
    "empty length": ok(b"Content-Length:", body=b"hello"),
    "absurd length": ok(b"Content-Length: " + b"9" * 40, body=b"hello"),
    "length and chunked": ok(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "unknown coding": ok(b"Transfer-Encoding: gzip", body=b"hello"),
    "chunked twice": ok(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked not last": ok(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "space before the colon": ok(b"X : y", b"Content-Length: 0"),
    "space in a name": ok(b"X Y: z", b"Content-Length: 0"),
    "no colon": ok(b"nonsense", b"Content-Length: 0"),
    "empty name": ok(b": y", b"Content-Length: 0"),
    "NUL in a value": ok(b"X: a\0b", b"Content-Length: 0"),
    "bare CR in a value": ok(b"X: a\rb", b"Content-Length: 0"),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in fields": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "bad interim": b"HTTP/1.1 100 Continue\r\nX Y: z\r\n\r\n" + ok(b"Content-Length: 0"),
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_malformed_head_is_502_and_the_connection_is_not_reused(proxy: Minato, scripted: Scripted, name: str) -> None:
    scripted.answer = BAD_HEADS[name]
    with Client(proxy.port) as client:
        response = client.request()
        assert response.status == 502 and response.values(b"set-cookie") == []
        bad = scripted.origin.connections[-1]
        assert bad.saw_end.wait(5), "the connection must be closed"
        scripted.answer = response_bytes(b"good")
        assert client.request().body == b"good"
    assert scripted.origin.connections[-1] is not bad


BAD_BODIES = {
    "chunk size in words": b"five\r\nhello\r\n0\r\n\r\n",
    "chunk size signed": b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": b"\r\nhello\r\n0\r\n\r\n",
    "chunk size by LF": b"5\nhello\r\n0\r\n\r\n",
    "chunk too long": b"4\r\nhello\r\n0\r\n\r\n",
    "chunk size overflows": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "endless size line": b"0" * 100_000,
    "endless extension": b"5;" + b"x" * 100_000,
    "endless trailers": b"0\r\n" + b"a: b\r\n" * 50_000,
    "bad trailer": b"0\r\nno colon\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_malformed_body_never_ends_cleanly(proxy: Minato, scripted: Scripted, name: str) -> None:
    scripted.answer = ok(b"Transfer-Encoding: chunked", body=BAD_BODIES[name])
    with Client(proxy.port) as client:
        client.send(request_bytes())
        try:
            head = client.receive_head()
            if head.status == 200:
                with pytest.raises((Truncated, ConnectionError)):
                    list(client.pieces(head))
            else:
                assert head.status == 502
        except (Truncated, ConnectionError):
            pass  # cut before the head left
    assert scripted.origin.connections[-1].closed.wait(5)
    scripted.answer = response_bytes(b"good")
    with Client(proxy.port) as client:
        assert client.request().body == b"good"


WITH_SURPLUS = {
    "204": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    "204 chunked": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
    "200": ok(b"Content-Length: 2", body=b"hello"),
    "after the last chunk": ok(b"Transfer-Encoding: chunked", body=b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
}


@pytest.mark.parametrize("name", WITH_SURPLUS)
def test_bytes_that_belong_to_no_response_reach_nobody(proxy: Minato, scripted: Scripted, name: str) -> None:
    scripted.answer = WITH_SURPLUS[name]
    with Client(proxy.port) as client:
        response = client.request()
        assert response.status in (int(name[:3]) if name[:3].isdigit() else 200, 502)
        assert scripted.origin.connections[-1].saw_end.wait(5), "the connection must be closed"
        scripted.answer = response_bytes(b"good")
        assert client.request().body == b"good"


def test_body_behind_a_head_response_reaches_nobody(proxy: Minato, scripted: Scripted) -> None:
    scripted.answer = response_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    with Client(proxy.port) as client:
        assert client.request(b"HEAD").status == 200
        scripted.answer = response_bytes(b"good")
        assert client.request().body == b"good"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        ok(b"Content-Length:2", b"X:", body=b"ok"),
        ok(b"CONTENT-LENGTH:\t2\t", body=b"ok"),
        ok(b"Transfer-Encoding: Chunked", body=b"2\r\nok\r\n0\r\n\r\n"),
        ok(b"Transfer-Encoding: chunked", body=b"2;ext=1\r\nok\r\n000\r\nTrailer: x\r\n\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"Content-Length: 2", body=b"ok"),
        b"HTTP/1.1 200 D\xe9j\xe0 vu\r\nContent-Length: 2\r\nX: caf\xe9\r\n\r\nok",
    ],
)
def test_unusual_but_valid_responses_pass(proxy: Minato, scripted: Scripted, answer: bytes) -> None:
    scripted.answer = answer
    with Client(proxy.port) as client:
        for _ in range(2):
            response = client.request()
            assert response.status == 200 and response.body == b"ok"


@pytest.mark.parametrize("size", [1, 7])
def test_response_that_drips_is_read_the_same(
    minato: Callable[..., Minato], origin: Callable[..., Any], size: int
) -> None:
    wire = ok(b"Transfer-Encoding: chunked", b"X-A: b", body=b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            for start in range(0, len(wire), size):
                connection.send(wire[start : start + size])

    with minato(origin(script)).client() as client:
        for _ in range(3):
            response = client.request()
            assert response.body == b"hello world" and response.get(b"x-a") == b"b"


def test_worker_survived_all_of_it(proxy: Minato) -> None:
    assert len(proxy.workers(generation=1)) == 1
    assert proxy.find_log(r"SIGKILL|ended with status|Traceback") == []
