"""Framing of responses: where a body ends is read in one way, or the response is a 502 or a visible cut.

No connection is used again behind a response that was not whole, or that something came behind (RFC 9112, 6.3 and 9.2).
"""

from __future__ import annotations

import re

import pytest

from tests.wire.table import (
    DATE,
    LAST,
    LAST_GOT,
    SEEN,
    Case,
    Wire,
    bad_gateway,
    got,
    names,
    own,
    request,
    response,
    seen,
)

FIVE = b"5\r\nhello\r\n0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
NOTHING = got(b"204 No Content", more=[], body=b"")


def answer(
    name: str,
    *lines: bytes,
    body: bytes = b"hello",
    got: bytes,
    status: bytes = b"200 OK",
    ends: bool = False,
    sent: bytes = b"GET /x",
) -> Case:
    return Case(name, request(sent), seen(sent), got, response(status, *lines, body=body), ends)


def bad(name: str, *lines: bytes, body: bytes = b"hello", status: bytes = b"200 OK") -> Case:
    return bad_gateway(name, response(status, *lines, body=body))


HELLO = got(more=[b"content-length: 5"], body=b"hello")
HELLO_CHUNKED = got(more=[b"transfer-encoding: chunked"], body=FIVE)
EMPTY = got(more=[b"content-length: 0"], body=b"")
RESET = got(b"205 Reset Content", more=[b"content-length: 0"], body=b"")
CASES = [
    answer("a length", b"Content-Length: 5", got=HELLO),
    answer("a length in any spelling", b"CONTENT-length:\t005 ", got=HELLO),
    answer("a length of nothing", b"Content-Length: 0", body=b"", got=EMPTY),
    answer("chunks", CHUNKED, body=FIVE, got=HELLO_CHUNKED),
    answer("chunks in any spelling", b"TRANSFER-encoding:\tChunKED ", body=FIVE, got=HELLO_CHUNKED),
    answer("no chunk", CHUNKED, body=b"0\r\n\r\n", got=got(more=[b"transfer-encoding: chunked"], body=b"0\r\n\r\n")),
    answer("an extension is dropped", CHUNKED, body=b"5;x=y\r\nhello\r\n0;z\r\n\r\n", got=HELLO_CHUNKED),
    answer("leading zeros", CHUNKED, body=b"0005\r\nhello\r\n000\r\n\r\n", got=HELLO_CHUNKED),
    answer("a body up to the end", got=HELLO_CHUNKED, ends=True),
    answer(
        "an empty body up to the end",
        body=b"",
        got=got(more=[b"transfer-encoding: chunked"], body=b"0\r\n\r\n"),
        ends=True,
    ),
    answer("204", body=b"", status=b"204 No Content", got=NOTHING),
    answer("204 with a length of nothing", b"Content-Length: 0", body=b"", status=b"204 No Content", got=NOTHING),
    answer("204 with a length", b"Content-Length: 5", status=b"204 No Content", got=NOTHING),
    answer("204 with chunks", CHUNKED, body=FIVE, status=b"204 No Content", got=NOTHING),
    answer("204 with another response", body=EVIL, status=b"204 No Content", got=NOTHING),
    answer("205", b"Content-Length: 0", body=b"", status=b"205 Reset Content", got=RESET),
    answer("205 with a body", b"Content-Length: 5", status=b"205 Reset Content", got=RESET),
    answer("205 with chunks", CHUNKED, body=FIVE, status=b"205 Reset Content", got=RESET),
    answer("205 up to the end", status=b"205 Reset Content", got=RESET, ends=True),
    answer("205 with nothing", body=b"", status=b"205 Reset Content", got=RESET, ends=True),
    answer(
        "304 with a length",
        b"Content-Length: 9",
        body=b"",
        status=b"304 Not Modified",
        got=got(b"304 Not Modified", b"content-length: 9", more=[], body=b""),
    ),
    answer(
        "304 with a body",
        b"Content-Length: 5",
        status=b"304 Not Modified",
        got=got(b"304 Not Modified", b"content-length: 5", more=[], body=b""),
    ),
    answer(
        "304 with chunks",
        CHUNKED,
        body=FIVE,
        status=b"304 Not Modified",
        got=got(b"304 Not Modified", more=[], body=b""),
    ),
    answer(
        "HEAD with a length",
        b"Content-Length: 5",
        body=b"",
        sent=b"HEAD /x",
        got=got(b"200 OK", b"content-length: 5", more=[], body=b""),
    ),
    answer(
        "HEAD with a body",
        b"Content-Length: 5",
        sent=b"HEAD /x",
        got=got(b"200 OK", b"content-length: 5", more=[], body=b""),
    ),
    answer("HEAD with chunks", CHUNKED, body=FIVE, sent=b"HEAD /x", got=got(more=[], body=b"")),
    answer("HEAD with nothing said", body=b"", sent=b"HEAD /x", got=got(more=[], body=b"")),
    answer(
        "HEAD with another response",
        b"Content-Length: 5",
        body=EVIL,
        sent=b"HEAD /x",
        got=got(b"200 OK", b"content-length: 5", more=[], body=b""),
    ),
    answer(
        "HEAD and 205",
        b"Content-Length: 5",
        body=b"",
        status=b"205 Reset Content",
        sent=b"HEAD /x",
        got=got(b"205 Reset Content", b"content-length: 5", more=[], body=b""),
    ),
    # More than the response.
    answer("bytes behind the length", b"Content-Length: 5", body=b"hello!", got=HELLO),
    answer("CRLF behind the length", b"Content-Length: 5", body=b"hello\r\n", got=HELLO),
    answer("another response behind the length", b"Content-Length: 5", body=b"hello" + EVIL, got=HELLO),
    answer("another response behind the chunks", CHUNKED, body=FIVE + EVIL, got=HELLO_CHUNKED),
    answer("another response behind trailers", CHUNKED, body=FIVE[:-2] + b"x: y\r\n\r\n" + EVIL, got=HELLO_CHUNKED),
    answer("another response behind nothing", b"Content-Length: 0", body=EVIL, got=EMPTY),
    answer(
        "an interim response behind", b"Content-Length: 5", body=b"hello" + b"HTTP/1.1 100 Continue\r\n\r\n", got=HELLO
    ),
    answer("all that, and the end", b"Content-Length: 5", body=b"hello" + EVIL, got=HELLO, ends=True),
    # Framing that two readers could take in two ways.
    bad("two lengths", b"Content-Length: 5", b"Content-Length: 6"),
    bad("the same length twice", b"Content-Length: 5", b"Content-Length: 5"),
    bad("a list of lengths", b"Content-Length: 5, 5"),
    bad("a comma behind the length", b"Content-Length: 5,"),
    bad("an empty length", b"Content-Length:"),
    bad("a plus", b"Content-Length: +5"),
    bad("a minus", b"Content-Length: -5"),
    bad("hexadecimal", b"Content-Length: 0x5"),
    bad("an underscore in the number", b"Content-Length: 0_5"),
    bad("in words", b"Content-Length: five"),
    bad("digits of another script", "Content-Length: \u0665".encode()),
    bad("a space in the number", b"Content-Length: 5 5"),
    bad("twenty digits", b"Content-Length: 18446744073709551621"),
    bad("5,000 digits", b"Content-Length: " + b"9" * 5_000),
    bad("a space before the colon", b"Content-Length : 5"),
    bad("length and chunked", b"Content-Length: 5", CHUNKED, body=FIVE),
    bad("chunked and length", CHUNKED, b"Content-Length: 15", body=FIVE),
    bad("chunked and an invalid length", CHUNKED, b"Content-Length: x", body=FIVE),
    bad("no coding", b"Transfer-Encoding:", body=FIVE),
    bad("identity", b"Transfer-Encoding: identity"),
    bad("gzip", b"Transfer-Encoding: gzip"),
    bad("gzip and chunked", b"Transfer-Encoding: gzip, chunked", body=FIVE),
    bad("chunked and gzip", b"Transfer-Encoding: chunked, gzip", body=FIVE),
    bad("chunked twice", b"Transfer-Encoding: chunked, chunked", body=FIVE),
    bad("chunked on two lines", CHUNKED, CHUNKED, body=FIVE),
    bad("a comma behind chunked", b"Transfer-Encoding: chunked,", body=FIVE),
    bad("chunked with a parameter", b"Transfer-Encoding: chunked;q=1", body=FIVE),
    bad("a vertical tab before chunked", b"Transfer-Encoding: \x0bchunked", body=FIVE),
    bad("chunked folded", b"Transfer-Encoding:\r\n chunked", body=FIVE),
    bad("304 with both", b"Content-Length: 5", CHUNKED, body=b"", status=b"304 Not Modified"),
    bad("204 with both", b"Content-Length: 5", CHUNKED, body=b"", status=b"204 No Content"),
    Case(
        "HEAD with both",
        request(b"HEAD /x"),
        seen(b"HEAD /x"),
        own(b"502 Bad Gateway", body=False),
        response(b"200 OK", b"Content-Length: 5", CHUNKED),
    ),
]
# The head, or some of it, may have gone before the fault was seen; then nothing but a cut can follow.
BROKEN = {
    "a size in words": b"five\r\nhello\r\n0\r\n\r\n",
    "a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a size that overflows": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "data shorter than its size": b"6\r\nhello\r\n0\r\n\r\n",
    "LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "an endless size": b"0" * 100_000,
    "an endless extension": b"5;" + b"x" * 100_000,
    "extensions of all chunks": b"1;%b\r\nx\r\n" % (b"e" * 200) * 90,
    "endless trailers": b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 50_000,
    "a trailer without a colon": b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
    "a trailer that is a length": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is folded": b"5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n",
    "no last chunk": b"5\r\nhello\r\n",
    "half a chunk": b"5\r\nhel",
    "half a last chunk": b"5\r\nhello\r\n0\r\n",
}


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_framing_of_a_response(wire: Wire, case: Case) -> None:
    wire.run(case)


def play_broken(wire: Wire, answer: bytes, head: bytes, whole: bytes) -> None:
    """Play a response that is cut or wrong in its body: a 502, or a connection that ends without the end of it."""
    with wire.origin.recording(answer, ends=True) as record:
        received = wire.talk([request() + LAST])
        if received.startswith(b"HTTP/1.1 502"):
            assert re.fullmatch(own(b"502 Bad Gateway") + LAST_GOT, received, re.DOTALL), received
            record.expect(SEEN + seen(b"GET /last"))
        else:
            assert received.startswith(head)
            payload = re.sub(rb"[0-9a-f]+\r\n([a-z]+)\r\n", rb"\1", received[len(head) :])
            assert whole.startswith(payload), received
            record.expect(SEEN)
    wire.run(Case("the next one is served well"))


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_broken_chunks_never_end_cleanly(wire: Wire, body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ndate: %b\r\nvia: 1.1 minato\r\ntransfer-encoding: chunked\r\n\r\n" % DATE
    play_broken(wire, response(b"200 OK", CHUNKED, body=body), head, b"x" * 90 if b";e" in body else b"hello")


@pytest.mark.parametrize("size", [0, 1, 4])
def test_body_shorter_than_its_length_never_ends_cleanly(wire: Wire, size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\ndate: %b\r\nvia: 1.1 minato\r\ncontent-length: 5\r\n\r\n" % DATE
    play_broken(wire, response(b"200 OK", b"Content-Length: 5", body=b"hello"[:size]), head, b"hell")


def test_what_was_sent_before_the_request_answers_nobody(wire: Wire) -> None:
    """A response that comes unasked, on an idle connection, closes it; the next request goes by another one."""
    wire.run(Case("first"))
    connection = wire.origin.origin.connections[-1]
    connection.send(EVIL)
    assert connection.saw_end.wait(5)
    wire.run(Case("next"))
