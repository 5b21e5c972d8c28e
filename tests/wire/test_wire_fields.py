"""Field lines: names, colons, values, folding, and what is passed on of them (RFC 9112, 5; RFC 9110, 5)."""

from __future__ import annotations

import pytest

from tests.wire.table import Case, Wire, names, refused, request, seen


def line(name: str, sent: bytes, *passed: bytes) -> Case:
    return Case(name, request(b"GET /x", sent), seen(b"GET /x", *passed))


def bad(name: str, sent: bytes) -> Case:
    return refused(name, request(b"GET /x", sent))


CASES = [
    line("a name in any case", b"X-MiXeD: Value", b"x-mixed: Value"),
    line("every character of a token", b"A!#$%&'*+-.^_`|~09z: 1", b"a!#$%&'*+-.^_`|~09z: 1"),
    line("no white space", b"X:1", b"x: 1"),
    line("much white space around", b"X: \t 1 \t ", b"x: 1"),
    line("white space inside is left", b"X: a\t b  c", b"x: a\t b  c"),
    line("an empty value", b"X:", b"x: "),
    line("a value of white space", b"X: \t ", b"x: "),
    line("bytes above ASCII", b"X: caf\xe9 \xff\x80", b"x: caf\xe9 \xff\x80"),
    line("a colon in the value", b"X: a:b: c", b"x: a:b: c"),
    line("a comma at the end", b"X: a,", b"x: a,"),
    line("order and doubles are kept", b"X: 1\r\nY: 2\r\nX: 3\r\nx: 4", b"x: 1", b"y: 2", b"x: 3", b"x: 4"),
    line("several cookies", b"Cookie: a=1\r\nCookie: b=2", b"cookie: a=1", b"cookie: b=2"),
    line("an underscore", b"X_Api_Key: 1", b"x_api_key: 1"),
    line("a name that ends like another", b"X-Content-Length: 9", b"x-content-length: 9"),
    line("ninety-nine lines", b"\r\n".join([b"X: 1"] * 99), *[b"x: 1"] * 99),
    line("a long value", b"X: " + b"a" * 20_000, b"x: " + b"a" * 20_000),
    line("what only looks like the end of a head", b"X: \\r\\n\\r\\n", b"x: \\r\\n\\r\\n"),
    bad("a space before the colon", b"X : 1"),
    bad("a tab before the colon", b"X\t: 1"),
    bad("white space before the name", b" X: 1"),
    bad("a space in the name", b"X Y: 1"),
    bad("no name", b": 1"),
    bad("no colon", b"X"),
    bad("a colon of another kind", "X\uff1a 1".encode()),
    bad("a name in parentheses", b"(X): 1"),
    bad("a name in quotes", b'"X": 1'),
    bad("a slash in the name", b"X/Y: 1"),
    bad("an at sign in the name", b"X@Y: 1"),
    bad("a name that is not ASCII", "Xé: 1".encode()),
    bad("NUL in the name", b"X\0: 1"),
    bad("a control byte in the name", b"X\x01: 1"),
    bad("NUL in the value", b"X: a\0b"),
    bad("a bare CR in the value", b"X: a\rb"),
    bad("a CR in front of CRLF", b"X: a\r"),
    bad("a bare LF in the value", b"X: a\nb"),
    bad("a bare LF and a field behind it", b"X: a\nContent-Length: 5"),
    bad("a vertical tab in the value", b"X: a\x0bb"),
    bad("a form feed in the value", b"X: a\x0cb"),
    bad("an escape in the value", b"X: a\x1bb"),
    bad("DEL in the value", b"X: a\x7fb"),
    bad("a fold by a space", b"X: a\r\n b"),
    bad("a fold by a tab", b"X: a\r\n\tb"),
    bad("a fold of nothing", b"X: a\r\n "),
    bad("a fold that hides a coding", b"Transfer-Encoding:\r\n chunked"),
    bad("a fold that hides a field", b"X:\r\n Content-Length: 5"),
    refused("a fold of the first line", b"GET /x HTTP/1.1\r\n X: 1\r\nHost: test.local\r\n\r\n"),
    refused("LF CRLF at the end", b"GET /x HTTP/1.1\r\nHost: test.local\n\r\n"),
    refused("LF LF at the end", b"GET /x HTTP/1.1\r\nHost: test.local\r\n\n"),
    refused(
        "more lines than the limit",
        request(b"GET /x", *[b"X: 1"] * 100),
        b"431 Request Header Fields Too Large",
    ),
    refused(
        "a head over the limit", request(b"GET /x", b"X: " + b"a" * 32_768), b"431 Request Header Fields Too Large"
    ),
    refused("an endless line", b"GET /x HTTP/1.1\r\nX: " + b"a" * 40_000, b"431 Request Header Fields Too Large"),
    refused("HEAD gets no body with its refusal", request(b"HEAD /x", b"X : 1"), body=False),
    refused("HEAD gets no body where a line is folded", request(b"HEAD /x", b"X: 1\r\n 2"), body=False),
    refused("HEAD gets no body where a line ends in LF", request(b"HEAD /x", b"X: 1\nY: 2"), body=False),
    refused("HEAD gets no body where a byte is no text", request(b"HEAD /x", b"X: \x01"), body=False),
    refused("HEAD gets no body where its line is malformed", b"HEAD /x y HTTP/1.1\r\nHost: a\r\n\r\n", body=False),
    refused(
        "HEAD gets no body where its version is unknown",
        b"HEAD /x HTTP/3.0\r\nHost: a\r\n\r\n",
        b"505 HTTP Version Not Supported",
        body=False,
    ),
    refused(
        "HEAD gets no body where its target is too long",
        request(b"HEAD /" + b"x" * 20_000),
        b"414 URI Too Long",
        body=False,
    ),
    refused(
        "HEAD gets no body where its head is too large",
        request(b"HEAD /x", b"X: " + b"a" * 32_768),
        b"431 Request Header Fields Too Large",
        body=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_field_line(wire: Wire, case: Case) -> None:
    wire.run(case)
