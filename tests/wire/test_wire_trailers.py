"""Trailer fields: both ways where they may go, without those that may not (RFC 9110, 6.5; RFC 9112, 7.1.2)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire.table import GOT, LAST, LAST_SEEN, Case, Wire, got, names, request, response, seen

FORBIDDEN = [
    *[b"Host: evil.test", b"Max-Forwards: 0", b"Via: 1.1 evil", b"TE: gzip", b"Connection: close", b"Upgrade: h2c"],
    *[
        b"Cache-Control: no-store",
        b"Pragma: no-cache",
        b"Range: bytes=0-",
        b"If-None-Match: *",
        b"Expect: 100-continue",
    ],
    *[b"Authorization: Basic eA==", b"Proxy-Authorization: Basic eA==", b"WWW-Authenticate: Basic", b"Cookie: a=b"],
    *[b"Set-Cookie: a=b", b"Content-Type: text/html", b"Content-Encoding: gzip", b"Content-Range: bytes 0-1/2"],
    *[b"Date: now", b"Age: 1", b"Expires: 0", b"Vary: *", b"Location: /evil", b"Retry-After: 1", b"Trailer: X"],
    *[b"X-Forwarded-For: 10.0.0.1", b"Forwarded: for=1", b"X-Real-IP: 10.0.0.1", b"Keep-Alive: 1"],
    *[b"content_type: text/html", b"x_forwarded_for: 10.0.0.1", b"CDN-Cache-Control: no-store"],
]
TE = (b"TE: trailers", b"Connection: TE")
ASKED = seen(more=[b"connection: te", b"te: trailers"])
CHUNKED = b"transfer-encoding: chunked"


def upload(
    name: str,
    *trailers: bytes,
    passed: tuple[bytes, ...] = (),
    lines: tuple[bytes, ...] = (),
    more: tuple[bytes, ...] = (),
) -> Case:
    end = b"".join(line + b"\r\n" for line in trailers)
    kept = b"".join(line + b"\r\n" for line in passed)
    return Case(
        name,
        request(b"POST /x", b"Transfer-Encoding: chunked", *lines, body=b"5\r\nhello\r\n0\r\n" + end + b"\r\n"),
        seen(b"POST /x", more=[*more, CHUNKED], body=b"5\r\nhello\r\n0\r\n" + kept + b"\r\n"),
    )


UPLOADS = [
    upload("one", b"X-Sum: 5", passed=(b"x-sum: 5",)),
    upload("several in order", b"X-B: 1", b"X-A: 2", b"x-b:3 ", passed=(b"x-b: 1", b"x-a: 2", b"x-b: 3")),
    upload("an empty one", b"X-A:", passed=(b"x-a: ",)),
    upload("a digest", b"Content-Digest: sha-256=:eA==:", passed=(b"content-digest: sha-256=:eA==:",)),
    upload("bytes above ASCII", b"X-A: \xe9", passed=(b"x-a: \xe9",)),
    upload("announced", b"X-A: 1", passed=(b"x-a: 1",), lines=(b"Trailer: X-A",), more=(b"trailer: x-a",)),
    upload(
        "announced with what must not come",
        b"X-A: 1",
        passed=(b"x-a: 1",),
        lines=(b"Trailer: X-A, Content-Length",),
        more=(b"trailer: x-a",),
    ),
    upload("announced and not sent", lines=(b"Trailer: X-A",), more=(b"trailer: x-a",)),
    upload("nominated by Connection", b"X-A: 1", b"X-B: 2", passed=(b"x-b: 2",), lines=(b"Connection: X-A",)),
    upload("a hundred", *[b"X: 1"] * 100, passed=(b"x: 1",) * 100),
    *[
        upload(f"forbidden: {line.decode()}", b"X-A: 1", line, b"X-B: 2", passed=(b"x-a: 1", b"x-b: 2"))
        for line in FORBIDDEN
    ],
    Case(
        "announced for a body that is not chunked",
        request(b"POST /x", b"Trailer: X-A", b"Content-Length: 2", body=b"hi"),
        seen(b"POST /x", more=[b"content-length: 2"], body=b"hi"),
    ),
]


def download(
    name: str,
    *trailers: bytes,
    passed: tuple[bytes, ...] = (),
    lines: tuple[bytes, ...] = (),
    more: tuple[bytes, ...] = (),
    asks: tuple[bytes, ...] = TE,
    asked: bytes = ASKED,
) -> Case:
    end = b"".join(line + b"\r\n" for line in trailers)
    kept = b"".join(line + b"\r\n" for line in passed)
    return Case(
        name,
        request(b"GET /x", *asks),
        asked,
        got(more=[*more, CHUNKED], body=b"5\r\nhello\r\n0\r\n" + kept + b"\r\n"),
        response(b"200 OK", b"Transfer-Encoding: chunked", *lines, body=b"5\r\nhello\r\n0\r\n" + end + b"\r\n"),
    )


DOWNLOADS = [
    download("one", b"X-Sum: 5", passed=(b"x-sum: 5",)),
    download("several in order", b"X-B: 1", b"X-A: 2", b"X-B: 3", passed=(b"x-b: 1", b"x-a: 2", b"x-b: 3")),
    download("none"),
    download("announced", b"X-A: 1", passed=(b"x-a: 1",), lines=(b"Trailer: X-A",), more=(b"trailer: x-a",)),
    download("announced with what must not come", lines=(b"Trailer: Set-Cookie, X-A",), more=(b"trailer: x-a",)),
    download("nominated by Connection", b"X-A: 1", b"X-B: 2", passed=(b"x-b: 2",), lines=(b"Connection: X-A",)),
    download(
        "asked for among others",
        b"X-A: 1",
        passed=(b"x-a: 1",),
        asks=(b"TE: gzip;q=0.5, trailers", b"Connection: keep-alive, te"),
    ),
    download(
        "asked for beside chunked",
        b"X-A: 1",
        passed=(b"x-a: 1",),
        asks=(b"TE: chunked, trailers", b"Connection: te"),
    ),
    *[
        download(f"forbidden: {line.decode()}", b"X-A: 1", line, b"X-B: 2", passed=(b"x-a: 1", b"x-b: 2"))
        for line in FORBIDDEN
    ],
    download("not asked for", b"X-A: 1", lines=(b"Trailer: X-A",), asks=(), asked=seen()),
    download("asked for by a TE that is for somebody else", b"X-A: 1", asks=(b"TE: trailers",), asked=seen()),
    download("another TE", b"X-A: 1", asks=(b"TE: gzip", b"Connection: TE"), asked=seen()),
    Case(
        "asked for and a body with a length",
        request(b"GET /x", *TE),
        ASKED,
        GOT,
        response(b"200 OK", b"Trailer: X-A", b"Content-Length: 2", body=b"ok"),
    ),
    Case(
        "asked for by HTTP/1.0",
        request(b"GET /x HTTP/1.0", *TE),
        seen(via=b"1.0 minato"),
        got(more=[b"connection: close"], body=b"hello"),
        response(b"200 OK", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nX-A: 1\r\n\r\n"),
        goes_on=False,
    ),
]


@pytest.mark.parametrize("case", UPLOADS, ids=names(UPLOADS))
def test_trailers_of_a_request(wire: Wire, case: Case) -> None:
    wire.run(case)


@pytest.mark.parametrize("case", DOWNLOADS, ids=names(DOWNLOADS))
def test_trailers_of_a_response(wire: Wire, case: Case) -> None:
    wire.run(case)


def test_trailers_of_one_response_are_not_those_of_the_next(wire: Wire) -> None:
    wire.run(DOWNLOADS[0])
    wire.run(DOWNLOADS[2])
    wire.run(UPLOADS[0])
    wire.run(UPLOADS[7])


def test_trailers_are_sent_again_with_a_request_that_is_sent_again(wire: Wire) -> None:
    """A pooled connection that closes without a response is no failure: the whole request goes to a new one."""
    wire.run(DOWNLOADS[0])
    lines = (b"PUT /x", b"Transfer-Encoding: chunked")
    sent = request(*lines, body=b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n")
    passed = seen(b"PUT /x", more=[CHUNKED], body=b"5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n")
    with wire.origin.recording(b"", ends=True) as record:
        received = wire.talk([sent + LAST])
        assert received.startswith(b"HTTP/1.1 502 ")
        record.expect(passed * 2 + LAST_SEEN)


def test_trailers_go_to_the_client_that_asked_and_are_not_stored(start_wire: Callable[..., Wire]) -> None:
    wire = start_wire(cache={"enabled": True})
    answer = (
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
    )
    with wire.origin.recording(answer) as record:
        first = wire.talk([request(b"GET /stored", *TE) + LAST])
        second = wire.talk([request(b"GET /stored", *TE) + LAST])
        assert b"\r\ntrailer: x-sum\r\n" in first and b"\r\n0\r\nx-sum: 5\r\n\r\n" in first
        assert b"cache-status: minato; hit" in second and b"x-sum" not in second
        assert b"content-length: 5\r\n\r\nhello" in second
        assert record.recorded().count(b"GET /stored ") == 1
