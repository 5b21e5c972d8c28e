"""Heads of responses: the same rigour as for requests; what is wrong is a 502, and nothing of it reaches the client."""

from __future__ import annotations

import pytest

from tests.wire.table import BAD_GATEWAY, OK, SEEN, Case, Wire, bad_gateway, got, names, request, response

LENGTH = b"Content-Length: 2"


def passes(
    name: str,
    status: bytes = b"200 OK",
    *lines: bytes,
    passed: tuple[bytes, ...] = (),
    seen_status: bytes | None = None,
) -> Case:
    return Case(
        name,
        request(),
        SEEN,
        got(status if seen_status is None else seen_status, *passed),
        response(status, *lines, LENGTH, body=b"ok"),
    )


def status_line(name: str, line: bytes) -> Case:
    return bad_gateway(name, line + b"\r\nContent-Length: 2\r\n\r\nok")


def line(name: str, sent: bytes) -> Case:
    return bad_gateway(name, response(b"200 OK", sent, LENGTH, body=b"ok"))


CASES = [
    passes("plain"),
    *[
        passes(f"status {status.decode()}", status)
        for status in [
            b"200 OK",
            b"201 Created",
            b"299 X",
            b"301 Moved Permanently",
            b"404 Not Found",
            b"418 I'm a teapot",
            b"500 Oops",
            b"599 X",
        ]
    ],
    passes("a reason of many words", b"200 All is  well"),
    passes("a reason with bytes above ASCII", b"200 D\xe9j\xe0 vu"),
    passes("a reason with a tab", b"200 a\tb"),
    passes("an empty reason", b"200 "),
    passes("no reason and no space", b"200", seen_status=b"200 "),
    passes("fields", b"200 OK", b"X-A: 1", b"x-a:2 ", b"X-B:\t3", passed=(b"x-a: 1", b"x-a: 2", b"x-b: 3")),
    passes("a field with bytes above ASCII", b"200 OK", b"X: \xe9\xff", passed=(b"x: \xe9\xff",)),
    passes("an empty field", b"200 OK", b"X:", passed=(b"x: ",)),
    passes("401 with its challenge", b"401 No", b"WWW-Authenticate: Basic", passed=(b"www-authenticate: Basic",)),
    passes("407 without its challenge", b"407 No", b"Proxy-Authenticate: Basic"),
    passes("many fields", b"200 OK", *[b"X: 1"] * 300, passed=(b"x: 1",) * 300),
    passes("a head of 60 KB", b"200 OK", b"X: " + b"a" * 60_000, passed=(b"x: " + b"a" * 60_000,)),
    Case("HTTP/1.2", request(), SEEN, got(), response(b"200 OK", LENGTH, body=b"ok", version=b"1.2")),
    Case(
        "no Date",
        request(),
        SEEN,
        rb"HTTP/1\.1 200 OK\r\ndate: [A-Za-z0-9:, ]{29}\r\nvia: 1\.1 minato\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    Case("an old Date stays", request(), SEEN, got(), OK),
    status_line("rubbish", b"rubbish"),
    status_line("bytes", bytes(range(128, 256))),
    status_line("a body alone", b"<html>hello</html>"),
    status_line("an empty line before", b"\r\nHTTP/1.1 200 OK"),
    status_line("a space before", b" HTTP/1.1 200 OK"),
    status_line("two spaces", b"HTTP/1.1  200 OK"),
    status_line("a tab", b"HTTP/1.1\t200 OK"),
    status_line("a tab behind the status", b"HTTP/1.1 200\tOK"),
    status_line("a lower-case version", b"http/1.1 200 OK"),
    status_line("another protocol", b"ICY 200 OK"),
    status_line("no version", b"200 OK"),
    status_line("HTTP/2", b"HTTP/2 200"),
    status_line("HTTP/2.0", b"HTTP/2.0 200 OK"),
    status_line("HTTP/0.9", b"HTTP/0.9 200 OK"),
    status_line("HTTP/1.10", b"HTTP/1.10 200 OK"),
    status_line("two digits", b"HTTP/1.1 20 OK"),
    status_line("four digits", b"HTTP/1.1 2000 OK"),
    status_line("status 000", b"HTTP/1.1 000 OK"),
    status_line("status 099", b"HTTP/1.1 099 OK"),
    status_line("status 600", b"HTTP/1.1 600 OK"),
    status_line("status 999", b"HTTP/1.1 999 OK"),
    status_line("a signed status", b"HTTP/1.1 +200 OK"),
    status_line("a status in words", b"HTTP/1.1 OK"),
    status_line("a status with a point", b"HTTP/1.1 200.1 OK"),
    status_line("NUL in the reason", b"HTTP/1.1 200 O\0K"),
    status_line("CR in the reason", b"HTTP/1.1 200 O\rK"),
    status_line("an escape in the reason", b"HTTP/1.1 200 \x1b[31mOK"),
    status_line("DEL in the reason", b"HTTP/1.1 200 O\x7fK"),
    status_line("LF in the reason", b"HTTP/1.1 200 OK\nX: 1"),
    line("a space before the colon", b"X : 1"),
    line("a space in the name", b"X Y: 1"),
    line("no colon", b"X"),
    line("no name", b": 1"),
    line("a name that is no token", b"X(Y): 1"),
    line("a name that is not ASCII", "Xé: 1".encode()),
    line("a fold", b"X: a\r\n b"),
    line("a fold by a tab", b"X: a\r\n\tb"),
    line("a fold of nothing", b"X: a\r\n "),
    line("CR in a value", b"X: a\rSet-Cookie: evil=1"),
    line("LF in a value", b"X: a\nSet-Cookie: evil=1"),
    line("NUL in a value", b"X: a\0"),
    line("a control byte in a value", b"X: a\x01"),
    line("an escape in a value", b"X: \x1b[31m"),
    line("DEL in a value", b"X: \x7f"),
    bad_gateway("LF alone", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    bad_gateway("white space before the first field", b"HTTP/1.1 200 OK\r\n X: 1\r\nContent-Length: 2\r\n\r\nok"),
    bad_gateway("more fields than the limit", response(b"200 OK", *[b"X: 1"] * 400, LENGTH, body=b"ok")),
    bad_gateway("a head over the limit", response(b"200 OK", b"X: " + b"a" * 66_000, LENGTH, body=b"ok")),
    bad_gateway("an endless head", b"HTTP/1.1 200 OK\r\n" + b"X: aaaaaaaaaaaa\r\n" * 6_000),
    bad_gateway("an endless line", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000),
    bad_gateway("a head that is cut", b"HTTP/1.1 200 OK\r\nContent-Le", ends=True),
    bad_gateway("an interim response with a bad field", b"HTTP/1.1 103 X\r\nX Y: 1\r\n\r\n" + OK),
    Case(
        "a final response that is bad behind an interim one",
        got=rb"HTTP/1\.1 100 Continue\r\nvia: 1\.1 minato\r\n\r\n" + BAD_GATEWAY,
        answer=b"HTTP/1.1 100 Continue\r\n\r\nrubbish\r\n\r\n",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_head_of_a_response(wire: Wire, case: Case) -> None:
    wire.run(case)


def test_connection_that_ends_without_a_response_is_tried_once_more_where_it_was_a_used_one(wire: Wire) -> None:
    wire.run(CASES[0])
    wire.run(bad_gateway("nothing", b"", ends=True, seen=SEEN + SEEN))
