"""Bad input from clients: malformed heads, smuggling in every known class, bad chunks; 400 and the end of the line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from .conftest import Instances
from .harness import App, Client, Minato, exchange_raw, request_bytes
from .harness.wire import ProtocolViolation, Truncated

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test.local\r\n\r\n"


@pytest.fixture(scope="module")
def app(module_origin: Callable[..., App]) -> App:
    return module_origin()


@pytest.fixture(scope="module")
def proxy(module_instances: Instances, app: App) -> Minato:
    return module_instances.start(app, timeouts={"client_header": 5, "client_body": 5})


def head(*lines: bytes, method: bytes = b"POST") -> bytes:
    return b"\r\n".join([method + b" /first HTTP/1.1", b"Host: test.local", *lines]) + b"\r\n\r\n"


def field(line: bytes) -> bytes:
    return head(line, method=b"GET")


FIVE_CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"

FRAMING = {
    "length and chunked": head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + FIVE_CHUNKED,
    "chunked and length": head(b"Transfer-Encoding: chunked", b"Content-Length: 5") + FIVE_CHUNKED,
    "chunked and length 0": head(b"Transfer-Encoding: chunked", b"Content-Length: 0") + FIVE_CHUNKED,
    "two lengths": head(b"Content-Length: 5", b"Content-Length: 6") + b"hello",
    "two lengths in a list": head(b"Content-Length: 5, 6") + b"hello",
    "empty length": head(b"Content-Length:") + b"hello",
    "length and empty length": head(b"Content-Length: 5", b"Content-Length:") + b"hello",
    "signed length": head(b"Content-Length: +5") + b"hello",
    "negative length": head(b"Content-Length: -5") + b"hello",
    "hex length": head(b"Content-Length: 0x5") + b"hello",
    "length with underscore": head(b"Content-Length: 0_5") + b"hello",
    "length in words": head(b"Content-Length: five") + b"hello",
    "fractional length": head(b"Content-Length: 5.0") + b"hello",
    "length with inner space": head(b"Content-Length: 5 5") + b"hello",
    "unicode digits": head("Content-Length: \u0665".encode()) + b"hello",
    "length with vertical tab": head(b"Content-Length: \x0b5") + b"hello",
    "absurd length": head(b"Content-Length: " + b"9" * 40) + b"hello",
    "length with comma": head(b"Content-Length: 5,") + b"hello",
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked") + FIVE_CHUNKED,
    "chunked on two lines": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + FIVE_CHUNKED,
    "chunked not last": head(b"Transfer-Encoding: chunked, identity") + FIVE_CHUNKED,
    "unknown coding": head(b"Transfer-Encoding: xchunked") + FIVE_CHUNKED,
    "identity": head(b"Transfer-Encoding: identity", b"Content-Length: 5") + b"hello",
    "identity alone": head(b"Transfer-Encoding: identity") + FIVE_CHUNKED,
    "empty coding": head(b"Transfer-Encoding:") + FIVE_CHUNKED,
    "quoted chunked": head(b'Transfer-Encoding: "chunked"') + FIVE_CHUNKED,
    "chunked with parameter": head(b"Transfer-Encoding: chunked;q=1") + FIVE_CHUNKED,
    "chunked with control byte": head(b"Transfer-Encoding: \x0bchunked") + FIVE_CHUNKED,
    "chunked with form feed": head(b"Transfer-Encoding: chunked\x0c") + FIVE_CHUNKED,
    "space before the colon": head(b"Transfer-Encoding : chunked") + FIVE_CHUNKED,
    "length with a space before the colon": head(b"Content-Length : 5") + b"hello",
    "name with control byte": head(b"Transfer-Encoding\x00: chunked") + FIVE_CHUNKED,
    "folded chunked": head(b"Transfer-Encoding:\r\n chunked") + FIVE_CHUNKED,
    "chunked in HTTP/1.0": head(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0") + FIVE_CHUNKED,
    "chunk size signed": head(b"Transfer-Encoding: chunked") + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size negative": head(b"Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk size 0x": head(b"Transfer-Encoding: chunked") + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": head(b"Transfer-Encoding: chunked") + b"\r\nhello\r\n0\r\n\r\n",
    "chunk size with underscore": head(b"Transfer-Encoding: chunked") + b"0_5\r\nhello\r\n0\r\n\r\n",
    "chunk size after a space": head(b"Transfer-Encoding: chunked") + b" 5\r\nhello\r\n0\r\n\r\n",
    "chunk size that overflows": head(b"Transfer-Encoding: chunked") + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk size line by LF": head(b"Transfer-Encoding: chunked") + b"5\nhello\r\n0\r\n\r\n",
    "chunk data without CRLF": head(b"Transfer-Encoding: chunked") + b"5\r\nhello0\r\n\r\n",
    "chunk longer than said": head(b"Transfer-Encoding: chunked") + b"4\r\nhello\r\n0\r\n\r\n",
    "chunk data ended by LF": head(b"Transfer-Encoding: chunked") + b"5\r\nhello\n0\r\n\r\n",
    "chunk extension with LF": head(b"Transfer-Encoding: chunked") + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "chunk extension with NUL": head(b"Transfer-Encoding: chunked") + b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "trailer without colon": head(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
    "trailer with LF": head(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\na: b\n\r\n",
}

SYNTAX = {
    "bare LF": b"GET /first HTTP/1.1\nHost: test.local\n\n",
    "bare LF in fields": b"GET /first HTTP/1.1\r\nHost: test.local\nX: y\r\n\r\n",
    "bare LF at the end": b"GET /first HTTP/1.1\r\nHost: test.local\r\n\n",
    "bare CR in a value": field(b"X: a\rb"),
    "bare CR as line end": b"GET /first HTTP/1.1\rHost: test.local\r\r",
    "folded line": field(b"X: a\r\n b"),
    "folded first line": b"GET /first HTTP/1.1\r\n X: y\r\nHost: test.local\r\n\r\n",
    "NUL in a value": field(b"X: a\0b"),
    "NUL in a name": field(b"X\0: a"),
    "NUL in the target": b"GET /fi\0rst HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "control byte in a value": field(b"X: a\x01b"),
    "DEL in a value": field(b"X: a\x7fb"),
    "space in a name": field(b"X Y: a"),
    "empty name": field(b": a"),
    "no colon": field(b"nonsense"),
    "name that is no token": field(b"X(Y): a"),
    "name that is not ASCII": field("Xä: a".encode()),
    "no version": b"GET /first\r\nHost: test.local\r\n\r\n",
    "HTTP/0.9": b"GET /first\r\n",
    "lower-case version": b"GET /first http/1.1\r\nHost: test.local\r\n\r\n",
    "version with more digits": b"GET /first HTTP/1.10\r\nHost: test.local\r\n\r\n",
    "version HTTP/01.1": b"GET /first HTTP/01.1\r\nHost: test.local\r\n\r\n",
    "other protocol": b"GET /first ICY/1.1\r\nHost: test.local\r\n\r\n",
    "two spaces": b"GET  /first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "space in the target": b"GET /fir st HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "tab after the method": b"GET\t/first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "space before the method": b" GET /first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "space after the version": b"GET /first HTTP/1.1 \r\nHost: test.local\r\n\r\n",
    "method that is no token": b"G(T /first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "empty method": b" /first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "target without slash": b"GET first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "target with a fragment": b"GET /first#x HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "target with a control byte": b"GET /fi\x01rst HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "asterisk with GET": b"GET * HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "absolute form without host": b"GET http:///first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "absolute form with a user": b"GET http://u:p@test.local/first HTTP/1.1\r\nHost: test.local\r\n\r\n",
    "no Host": b"GET /first HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /first HTTP/1.1\r\nHost: test.local\r\nHost: test.local\r\n\r\n",
    "two different Hosts": b"GET /first HTTP/1.1\r\nHost: test.local\r\nHost: other.test\r\n\r\n",
    "Host with a space": b"GET /first HTTP/1.1\r\nHost: test local\r\n\r\n",
    "Host with a path": b"GET /first HTTP/1.1\r\nHost: test.local/x\r\n\r\n",
    "Host with a user": b"GET /first HTTP/1.1\r\nHost: u@test.local\r\n\r\n",
    "Host that is a list": b"GET /first HTTP/1.1\r\nHost: test.local, other.test\r\n\r\n",
    "Host with a bad port": b"GET /first HTTP/1.1\r\nHost: test.local:http\r\n\r\n",
    "Host with NUL": b"GET /first HTTP/1.1\r\nHost: test.local\0\r\n\r\n",
    "absolute form with two Hosts": b"GET http://test.local/first HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)) + b"\r\n\r\n",
    "only garbage": bytes(range(128, 256)) + b"\r\n\r\n",
    "a SIP request": b"OPTIONS sip:x@y SIP/2.0\r\n\r\n",
}


def expect_refusal(proxy: Minato, app: App, wire: bytes) -> int:
    """Send it with a smuggled request behind: refused with a 4xx or 5xx, closed, the smuggled one seen nowhere."""
    before = len(app.requests)
    response, closed = exchange_raw(proxy.port, wire + SMUGGLED)
    assert closed, "the connection must end"
    assert response is not None, "an answer was due"
    assert response.says_close()
    seen = app.requests[before:]
    assert all(request.target == b"/first" for request in seen), seen
    return response.status


@pytest.mark.parametrize("name", SYNTAX)
def test_malformed_head_is_400_and_reaches_no_upstream(proxy: Minato, app: App, name: str) -> None:
    before = len(app.requests)
    assert expect_refusal(proxy, app, SYNTAX[name]) == 400
    assert len(app.requests) == before


@pytest.mark.parametrize("name", FRAMING)
def test_ambiguous_framing_is_refused(proxy: Minato, app: App, name: str) -> None:
    before = len(app.requests)
    status = expect_refusal(proxy, app, FRAMING[name])
    unknown = ("unknown coding", "quoted chunked", "identity", "identity alone", "chunked not last", "chunked twice")
    assert status in ((400, 501) if name in unknown or "chunked with" in name else (400, 413))
    if not name.startswith(("chunk ", "trailer")):
        assert len(app.requests) == before, "the head alone tells: no upstream may see it"


@pytest.mark.parametrize("name", [name for name in FRAMING if name.startswith(("chunk ", "trailer"))])
def test_upload_with_broken_chunks_never_ends_cleanly_at_the_upstream(proxy: Minato, app: App, name: str) -> None:
    before = len(app.requests)
    exchange_raw(proxy.port, FRAMING[name] + SMUGGLED)
    for request in app.requests[before:]:
        connection = app.connections[request.connection]
        assert connection.saw_end.wait(5) or connection.closed.wait(5)
        if request.values(b"transfer-encoding"):
            assert not bytes(connection.received).endswith(b"0\r\n\r\n")


def test_smuggled_request_behind_an_early_answer_is_not_read_from_the_body(proxy: Minato, app: App) -> None:
    """404 is answered before the body was read: the body is drained or the connection closed, never parsed."""
    before = len(app.requests)
    wire = request_bytes(b"POST", host=b"unknown.test", body=SMUGGLED) + request_bytes(target=b"/after")
    with Client(proxy.port) as client:
        client.send(wire)
        assert client.receive().status == 404
        with contextlib.suppress(Truncated, ConnectionError):  # closing is the other right way
            assert client.receive().status == 200
    assert all(request.target == b"/after" for request in app.requests[before:])


def test_smuggled_request_behind_a_cache_hit_is_not_read_from_the_body(module_instances: Instances, app: App) -> None:
    from .harness import response_bytes

    app.routes[b"/hit"] = response_bytes(b"x", fields=[(b"Cache-Control", b"max-age=60")])
    cached = module_instances.start(app, cache={"enabled": True})
    before = len(app.requests)
    with Client(cached.port) as client:
        client.request(target=b"/hit")
        client.send(request_bytes(target=b"/hit", body=SMUGGLED))
        assert client.receive().status == 200
    assert b"/smuggled" not in [request.target for request in app.requests[before:]]


def test_body_of_a_get_is_not_a_request(proxy: Minato, app: App) -> None:
    before = len(app.requests)
    with Client(proxy.port) as client:
        assert client.request(target=b"/first", body=SMUGGLED).status == 200
        assert client.request(target=b"/second").status == 200
    assert [request.target for request in app.requests[before:]] == [b"/first", b"/second"]


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5"],
        [b"Content-Length: 005"],
        [b"content-length:5"],
        [b"Content-Length:\t5 "],
    ],
)
def test_unusual_but_valid_lengths_are_one_canonical_length_upstream(
    proxy: Minato, app: App, lines: list[bytes]
) -> None:
    with Client(proxy.port) as client:
        client.send(head(*lines) + b"hello" + SMUGGLED.replace(b"smuggled", b"next"))
        status = client.receive().status
        if status == 400:
            return  # strict is right, too
        assert status == 200 and client.receive().status == 200
    assert int(app.requests[-2].get(b"content-length") or b"-1") == 5
    assert app.requests[-1].target == b"/next"


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    "name", ["length and chunked", "bare LF in fields", "two Hosts", "folded line", "chunk size 0x"]
)
def test_refusal_does_not_depend_on_how_the_bytes_arrive(proxy: Minato, app: App, name: str, size: int) -> None:
    wire = (FRAMING | SYNTAX)[name] if name in FRAMING else SYNTAX[name]
    before = len(app.requests)
    with Client(proxy.port) as client:
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            client.send_in_pieces(wire + SMUGGLED, size)
        try:
            assert client.receive().status == 400
        except (Truncated, ConnectionError, ProtocolViolation) as error:
            assert isinstance(error, ConnectionError)  # a reset may overtake the answer where we sent on after it
    assert all(request.target == b"/first" for request in app.requests[before:])


def test_worker_survived_all_of_it(proxy: Minato) -> None:
    assert len(proxy.workers(generation=1)) == 1
    assert proxy.find_log(r"SIGKILL|ended with status|Traceback") == []
    with Client(proxy.port) as client:
        assert client.request().status == 200
