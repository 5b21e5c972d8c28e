"""HTTP/1.0 on both sides: no chunks, no interim responses, none kept unless asked (RFC 9112, 2.3, 6.1, 9.3)."""

from __future__ import annotations

import pytest

from tests.wire.table import (
    GOT_CLOSING,
    OK,
    SEEN,
    Case,
    Wire,
    bad_gateway,
    got,
    names,
    own,
    refused,
    request,
    response,
    seen,
)

OLD = b"GET /x HTTP/1.0"
VIA = b"1.0 minato"
OLD_SEEN = seen(via=VIA)
CLOSING = b"connection: close"


def old(
    name: str,
    *lines: bytes,
    got: bytes = GOT_CLOSING,
    passed: tuple[bytes, ...] = (),
    answer: bytes = OK,
    ends: bool = False,
) -> Case:
    """A request that closes its connection."""
    return Case(name, request(OLD, *lines), seen(b"GET /x", *passed, via=VIA), got, answer, ends, goes_on=False)


CHUNKED = response(b"200 OK", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")
CASES = [
    old("a request"),
    old("Connection: close", b"Connection: close"),
    old("chunks become a body up to the end", answer=CHUNKED, got=got(more=[CLOSING], body=b"hello")),
    old("interim responses are kept back", answer=response(b"103 Early Hints", b"Link: </a>") + OK),
    old("a 100 is kept back", answer=b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    old(
        "a body up to the end stays one",
        answer=response(b"200 OK", body=b"hi"),
        ends=True,
        got=got(more=[CLOSING], body=b"hi"),
    ),
    old("Expect is ignored", b"Expect: 100-continue"),
    old("Upgrade is ignored", b"Connection: upgrade", b"Upgrade: websocket"),
    old("nominated fields go", b"Connection: x", b"X: 1", b"Y: 2", passed=(b"y: 2",)),
    Case(
        "keep-alive",
        request(OLD, b"Connection: keep-alive"),
        OLD_SEEN,
        got(more=[b"connection: keep-alive", b"content-length: 2"]),
    ),
    Case(
        "keep-alive and chunks",
        request(OLD, b"Connection: keep-alive"),
        OLD_SEEN,
        got(more=[CLOSING], body=b"hello"),
        CHUNKED,
        goes_on=False,
    ),
    Case(
        "a body",
        request(b"POST /x HTTP/1.0", b"Content-Length: 2", body=b"hi"),
        seen(b"POST /x", via=VIA, more=[b"content-length: 2"], body=b"hi"),
        GOT_CLOSING,
        goes_on=False,
    ),
    Case(
        "Expect with a body is not waited for",
        request(b"POST /x HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"),
        seen(b"POST /x", via=VIA, more=[b"content-length: 2"], body=b"hi"),
        GOT_CLOSING,
        goes_on=False,
    ),
    Case("no Host is nobody's", request(OLD, host=None), b"", own(b"404 Not Found", closes=True), goes_on=False),
    Case(
        "no Host and keep-alive is nobody's",
        request(OLD, b"Connection: keep-alive", host=None),
        b"",
        own(b"404 Not Found", b"connection: keep-alive"),
    ),
    refused("two Hosts", request(OLD, b"Host: test.local")),
    refused("an empty Host", request(OLD, host=b"")),
    refused("chunked", request(b"POST /x HTTP/1.0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    refused(
        "chunked and a length",
        request(b"POST /x HTTP/1.0", b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    ),
    # Upstreams.
    Case(
        "an upstream with a length",
        request(),
        SEEN,
        got(via=VIA),
        response(b"200 OK", b"Content-Length: 2", body=b"ok", version=b"1.0"),
    ),
    Case(
        "an upstream up to the end",
        request(),
        SEEN,
        got(via=VIA, more=[b"transfer-encoding: chunked"], body=b"2\r\nok\r\n0\r\n\r\n"),
        response(b"200 OK", body=b"ok", version=b"1.0"),
        ends=True,
    ),
    Case(
        "an upstream with keep-alive",
        request(),
        SEEN,
        got(via=VIA),
        response(b"200 OK", b"Connection: keep-alive", b"Content-Length: 2", body=b"ok", version=b"1.0"),
    ),
    bad_gateway(
        "an upstream with chunks", response(b"200 OK", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_http_1_0(wire: Wire, case: Case) -> None:
    wire.run(case)
