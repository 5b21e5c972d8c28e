"""TRACE, OPTIONS and CONNECT, and how far a request may go (RFC 9110, 7.6.2, 9.3.6 to 9.3.8)."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.wire.table import Case, Wire, got, names, own, refused, request, response, seen

ALLOW = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
NOT_ALLOWED = own(b"405 Method Not Allowed", ALLOW)


def answered(*lines: bytes, body: bytes = b"") -> bytes:
    """An answer in the place of the upstream."""
    head = [rb"HTTP/1\.1 200 OK", *map(re.escape, lines), rb"date: [A-Za-z0-9:, ]{29}", rb"via: 1\.1 minato"]
    return b"\r\n".join([*head, b"content-length: %d" % len(body)]) + rb"\r\n\r\n" + re.escape(body)


def hops(method: bytes, sent: bytes, passed: bytes) -> Case:
    return Case(
        f"{method.decode()} with {sent[:20].decode()} hops left",
        request(method + b" /x", b"Max-Forwards: " + sent, b"X: 1"),
        seen(method + b" /x", b"max-forwards: " + passed, b"x: 1"),
    )


CASES = [
    *[
        Case(f"{method.decode()} passes", request(method + b" /x"), seen(method + b" /x"))
        for method in [
            b"GET",
            b"POST",
            b"PUT",
            b"PATCH",
            b"DELETE",
            b"OPTIONS",
            b"PROPFIND",
            b"PURGE",
            b"QUERY",
            b"TRACEROUTE",
            b"trace",
        ]
    ],
    Case(
        "HEAD passes, and has no body",
        request(b"HEAD /x"),
        seen(b"HEAD /x"),
        got(b"200 OK", b"content-length: 2", more=[], body=b""),
        response(b"200 OK", b"Content-Length: 2"),
    ),
    Case(
        "a preflight",
        request(b"OPTIONS /x", b"Origin: http://a", b"Access-Control-Request-Method: PUT"),
        seen(b"OPTIONS /x", b"origin: http://a", b"access-control-request-method: PUT"),
    ),
    hops(b"OPTIONS", b"1", b"0"),
    hops(b"OPTIONS", b"10", b"9"),
    hops(b"OPTIONS", b"010", b"9"),
    hops(b"OPTIONS", b"99999999999999999999", b"998"),
    Case("OPTIONS with no hop left", request(b"OPTIONS /x", b"Max-Forwards: 0"), b"", answered(ALLOW)),
    Case("OPTIONS with 000 hops left", request(b"OPTIONS /x", b"Max-Forwards: 000"), b"", answered(ALLOW)),
    Case("OPTIONS * with no hop left", request(b"OPTIONS *", b"Max-Forwards: 0"), b"", answered(ALLOW)),
    Case(
        "OPTIONS * with a hop left", request(b"OPTIONS *", b"Max-Forwards: 1"), seen(b"OPTIONS *", b"max-forwards: 0")
    ),
    Case(
        "Max-Forwards of another method is passed on",
        request(b"GET /x", b"Max-Forwards: 0"),
        seen(b"GET /x", b"max-forwards: 0"),
    ),
    Case(
        "OPTIONS with no hop left for nobody",
        request(b"OPTIONS /x", b"Max-Forwards: 0", host=b"other.test"),
        b"",
        own(b"404 Not Found"),
    ),
    refused("a negative Max-Forwards", request(b"OPTIONS /x", b"Max-Forwards: -1")),
    refused("an empty Max-Forwards", request(b"OPTIONS /x", b"Max-Forwards:")),
    refused("two Max-Forwards", request(b"OPTIONS /x", b"Max-Forwards: 1", b"Max-Forwards: 2")),
    refused("a Max-Forwards in words", request(b"OPTIONS /x", b"Max-Forwards: one")),
    Case("TRACE is off", request(b"TRACE /x"), b"", NOT_ALLOWED),
    Case("TRACE with no hop left is off", request(b"TRACE /x", b"Max-Forwards: 0"), b"", NOT_ALLOWED),
    refused("TRACE with a body", request(b"TRACE /x", b"Content-Length: 2", body=b"hi")),
    refused("CONNECT", request(b"CONNECT test.local:80"), b"501 Not Implemented"),
    refused(
        "CONNECT with bytes for the tunnel", request(b"CONNECT test.local:80") + b"\x16\x03\x01", b"501 Not Implemented"
    ),
    refused("CONNECT of a path", request(b"CONNECT /x"), b"501 Not Implemented"),
]
TRACING = [
    Case("TRACE passes", request(b"TRACE /x"), seen(b"TRACE /x")),
    hops(b"TRACE", b"3", b"2"),
    Case(
        "TRACE with no hop left shows the request, and no secrets",
        request(b"TRACE /x?y", b"Max-Forwards: 0", b"Cookie: a=b", b"Authorization: Basic eA==", b"X: 1"),
        b"",
        answered(
            b"content-type: message/http",
            body=b"TRACE /x?y HTTP/1.1\r\nhost: test.local\r\nmax-forwards: 0\r\nx: 1\r\n\r\n",
        ),
    ),
    refused("TRACE with chunks", request(b"TRACE /x", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
]


@pytest.fixture(scope="module")
def tracing(start_wire: Callable[..., Wire]) -> Wire:
    return start_wire(trace=True)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_method(wire: Wire, case: Case) -> None:
    wire.run(case)


@pytest.mark.parametrize("case", TRACING, ids=names(TRACING))
def test_trace_where_it_is_on(tracing: Wire, case: Case) -> None:
    tracing.run(case)
