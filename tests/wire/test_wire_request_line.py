"""Request lines: one grammar, one version, one way to read them (RFC 9112, 2.2, 2.3 and 3)."""

from __future__ import annotations

import pytest

from tests.wire.table import Case, Wire, names, refused, request, seen

REST = b"Host: test.local\r\n\r\n"
CASES = [
    Case("plain", request(b"GET /x")),
    Case("a query", request(b"GET /x?a=b&c=%20"), seen(b"GET /x?a=b&c=%20")),
    Case("an empty query", request(b"GET /x?"), seen(b"GET /x?")),
    Case("a method of its own", request(b"M-SEARCH /x"), seen(b"M-SEARCH /x")),
    Case("every character of a token", request(b"A!#$%&'*+-.^_`|~09z /x"), seen(b"A!#$%&'*+-.^_`|~09z /x")),
    Case("a lower-case method", request(b"get /x"), seen(b"get /x")),
    Case("a target of 8,000 bytes", request(b"GET /" + b"a" * 7_999), seen(b"GET /" + b"a" * 7_999)),
    Case("HTTP/1.2 is read as HTTP/1.1", request(b"GET /x HTTP/1.2")),
    Case("HTTP/1.9 is read as HTTP/1.1", request(b"GET /x HTTP/1.9")),
    Case("an empty line before", b"\r\n" + request()),
    Case("three empty lines before", b"\r\n\r\n\r\n" + request()),
    refused("LF before", b"\n" + request()),
    refused("CR before", b"\r" + request()),
    refused("a space before", b" " + request()),
    refused("a line of white space before", b" \r\n" + request()),
    refused("two spaces behind the method", request(b"GET  /x")),
    refused("two spaces behind the target", request(b"GET /x  HTTP/1.1")),
    refused("a tab behind the method", request(b"GET\t/x")),
    refused("a tab behind the target", b"GET /x\tHTTP/1.1\r\n" + REST),
    refused("a vertical tab", request(b"GET\x0b/x")),
    refused("a form feed", request(b"GET /x\x0cHTTP/1.1 HTTP/1.1")),
    refused("a space behind the version", request(b"GET /x HTTP/1.1 ")),
    refused("a space in the target", request(b"GET /x y HTTP/1.1")),
    refused("a bare CR in the target", request(b"GET /x\ry HTTP/1.1")),
    refused("CR CR LF", b"GET /x HTTP/1.1\r\r\n" + REST),
    refused("LF alone", b"GET /x HTTP/1.1\n" + REST),
    refused("NUL in the method", request(b"G\0ET /x")),
    refused("no token", request(b"G(T) /x")),
    refused("a comma in the method", request(b"GET,POST /x")),
    refused("a method that is not ASCII", request("GÉT /x".encode())),
    refused("no method", request(b" /x HTTP/1.1")),
    refused("no target", request(b"GET HTTP/1.1")),
    refused("no version", b"GET /x\r\n" + REST),
    refused("a lower-case version", b"GET /x http/1.1\r\n" + REST),
    refused("HTTP/1", b"GET /x HTTP/1\r\n" + REST),
    refused("HTTP/1.", b"GET /x HTTP/1.\r\n" + REST),
    refused("HTTP/1.10", b"GET /x HTTP/1.10\r\n" + REST),
    refused("HTTP/01.1", b"GET /x HTTP/01.1\r\n" + REST),
    refused("HTTP/1.1.1", b"GET /x HTTP/1.1.1\r\n" + REST),
    refused("HTTP/+1.1", b"GET /x HTTP/+1.1\r\n" + REST),
    refused("HTTP-1.1", b"GET /x HTTP-1.1\r\n" + REST),
    refused("HTTPS/1.1", b"GET /x HTTPS/1.1\r\n" + REST),
    refused("another protocol", b"GET /x ICY/1.1\r\n" + REST),
    refused("a control byte in the target", request(b"GET /\x01x")),
    refused("DEL in the target", request(b"GET /\x7fx")),
    refused("a target that is not ASCII", request("GET /ä".encode())),
    refused("a TLS hello", bytes.fromhex("16030100c8010000c40303") + bytes(range(200)) + b"\r\n\r\n"),
    refused("HTTP/2.0", request(b"GET /x HTTP/2.0"), b"505 HTTP Version Not Supported"),
    refused("HTTP/0.9 by name", request(b"GET /x HTTP/0.9"), b"505 HTTP Version Not Supported"),
    refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505 HTTP Version Not Supported"),
    refused("a target over the limit", request(b"GET /" + b"a" * 8_192), b"414 URI Too Long"),
    refused("an endless target", b"GET /" + b"a" * 40_000, b"414 URI Too Long"),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_request_line(wire: Wire, case: Case) -> None:
    wire.run(case)
