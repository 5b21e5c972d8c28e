"""Where one request ends and the next begins: pipelines, unread bodies, closes (RFC 9112, 9.3 and 9.6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire.table import (
    GOT,
    GOT_CLOSING,
    LAST,
    SEEN,
    Case,
    Wire,
    got,
    names,
    own,
    request,
    response,
    seen,
)

GET = request()
POST = request(b"POST /x", b"Content-Length: 5", body=b"hello")
POST_SEEN = seen(b"POST /x", more=[b"content-length: 5"], body=b"hello")
CHUNKED = request(b"POST /x", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")
CHUNKED_SEEN = seen(b"POST /x", more=[b"transfer-encoding: chunked"], body=b"5\r\nhello\r\n0\r\n\r\n")
NOT_FOUND = own(b"404 Not Found")
ELSEWHERE = b"other.test"


def post_elsewhere(*lines: bytes, body: bytes) -> bytes:
    return request(b"POST /x", *lines, body=body, host=ELSEWHERE)


CASES = [
    Case("two", GET * 2, SEEN * 2, GOT * 2),
    Case("twenty", GET * 20, SEEN * 20, GOT * 20),
    Case(
        "in the order of their coming",
        request(b"GET /1") + request(b"GET /2") + request(b"GET /3"),
        seen(b"GET /1") + seen(b"GET /2") + seen(b"GET /3"),
        GOT * 3,
    ),
    Case("with empty lines between", GET + b"\r\n" + GET + b"\r\n\r\n", SEEN * 2, GOT * 2),
    Case("with bodies", POST + GET + POST, POST_SEEN + SEEN + POST_SEEN, GOT * 3),
    Case("with chunks", CHUNKED + GET + CHUNKED, CHUNKED_SEEN + SEEN + CHUNKED_SEEN, GOT * 3),
    Case(
        "with trailers", CHUNKED[:-2] + b"X-A: 1\r\n\r\n" + GET, CHUNKED_SEEN[:-2] + b"x-a: 1\r\n\r\n" + SEEN, GOT * 2
    ),
    Case(
        "with empty bodies",
        request(b"POST /x", b"Content-Length: 0") + GET,
        seen(b"POST /x", more=[b"content-length: 0"]) + SEEN,
        GOT * 2,
    ),
    Case(
        "with a HEAD",
        request(b"HEAD /x") + GET,
        seen(b"HEAD /x") + SEEN,
        got(b"200 OK", b"content-length: 0", more=[], body=b"") + got(more=[b"content-length: 0"], body=b""),
        response(b"200 OK", b"Content-Length: 0"),
    ),
    Case("with a 204", GET * 2, SEEN * 2, got(b"204 X", more=[], body=b"") * 2, response(b"204 X")),
    Case("with one for nobody", GET + request(host=ELSEWHERE) + GET, SEEN * 2, GOT + NOT_FOUND + GOT),
    Case("nothing behind close", request(b"GET /x", b"Connection: close") + GET, SEEN, GOT_CLOSING, goes_on=False),
    Case(
        "nothing behind close with a body",
        request(b"POST /x", b"Connection: close", b"Content-Length: 5", body=b"hello") + GET,
        POST_SEEN,
        GOT_CLOSING,
        goes_on=False,
    ),
    Case(
        "nothing behind a bad one",
        GET + request(b"GET /x", b"X : 1") + GET,
        SEEN,
        GOT + own(b"400 Bad Request", closes=True),
        goes_on=False,
    ),
    Case("nothing behind bytes over the length", POST + b"x" + GET, POST_SEEN + seen(b"xGET /x"), GOT * 2),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_pipeline(wire: Wire, case: Case) -> None:
    wire.run(case)


@pytest.mark.parametrize("body", [b"Content-Length", b"Transfer-Encoding"])
@pytest.mark.parametrize("way", ["whole", "bytewise"])
def test_body_of_a_request_that_is_answered_here_is_no_request(wire: Wire, body: bytes, way: str) -> None:
    """It is read off, and the connection goes on; or it is not all there yet, and the connection ends."""
    evil = request(b"GET /evil")
    if body == b"Content-Length":
        data = post_elsewhere(b"Content-Length: %d" % len(evil), body=evil)
    else:
        data = post_elsewhere(b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(evil), evil))
    data += LAST
    with wire.origin.recording() as record:
        received = wire.talk([data] if way == "whole" else [data[at : at + 1] for at in range(len(data))])
        assert received.startswith(b"HTTP/1.1 404 ")
        assert received.count(b"HTTP/1.1 ") <= 2
        recorded = record.arrived()
        assert b"/evil" not in recorded
        assert recorded in (b"", seen(b"GET /last"))
        assert (b"connection: close" in received.partition(b"\r\n\r\n")[0]) is (recorded == b"")


def test_body_over_the_limit_is_no_request(start_wire: Callable[..., Wire]) -> None:
    wire = start_wire(limits={"body_bytes": 10})
    evil = request(b"GET /evil")
    for data in (
        request(b"POST /x", b"Content-Length: %d" % len(evil), body=evil),
        request(b"POST /x", b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(evil), evil)),
    ):
        with wire.origin.recording() as record:
            received = wire.talk([data + LAST])
            assert received.startswith(b"HTTP/1.1 413 ")
            assert b"GET /evil HTTP/1.1\r\nhost: " not in record.arrived()


def test_requests_behind_an_early_answer_wait_for_their_body(wire: Wire) -> None:
    """The upstream answers before the body is there: the rest of that is never taken for a request."""
    evil = request(b"GET /evil")
    head = request(b"POST /x", b"Content-Length: %d" % (len(evil) + 1_000_000))
    with wire.origin.recording(head_answer=response(b"403 X", b"Content-Length: 0")) as record:
        received = wire.talk([head, evil + LAST])
        assert received.startswith(b"HTTP/1.1 403 X\r\n")
        assert received.count(b"HTTP/1.1 ") == 1
        assert record.settled().count(b"\r\nhost: ") == 1
