"""Framing of requests: one Content-Length or one chunked, or nothing; whatever two readers could take in two ways ends.

RFC 9112, 6.1 to 6.3; RFC 9110, 8.6.
"""

from __future__ import annotations

import pytest

from tests.wire.table import Case, Wire, names, refused, request, seen

FIVE = b"5\r\nhello\r\n0\r\n\r\n"


def post(*lines: bytes, body: bytes = b"hello") -> bytes:
    return request(b"POST /x", *lines, body=body)


def framed(name: str, *lines: bytes, body: bytes = b"hello", length: bytes = b"5") -> Case:
    return Case(name, post(*lines, body=body), seen(b"POST /x", more=[b"content-length: " + length], body=body))


def bad(name: str, *lines: bytes, body: bytes = FIVE) -> Case:
    return refused(name, post(*lines, body=body))


def unknown(name: str, *lines: bytes) -> Case:
    return refused(name, post(*lines, body=FIVE), b"501 Not Implemented")


CHUNKED = seen(b"POST /x", more=[b"transfer-encoding: chunked"], body=FIVE)
CASES = [
    framed("a length", b"Content-Length: 5"),
    framed("a length in any case", b"CONTENT-length:\t5 "),
    framed("a length of nothing", b"Content-Length: 0", body=b"", length=b"0"),
    framed("leading zeros are left out", b"Content-Length: 0005"),
    framed(
        "a body that looks like a request", b"Content-Length: 23", body=b"GET /evil HTTP/1.1\r\n\r\nx", length=b"23"
    ),
    framed("a body with NUL and CR and LF", b"Content-Length: 5", body=b"\0\r\n\r\n"),
    Case(
        "a body of a GET",
        request(b"GET /x", b"Content-Length: 2", body=b"hi"),
        seen(b"GET /x", more=[b"content-length: 2"], body=b"hi"),
    ),
    Case("no body at all", post(body=b""), seen(b"POST /x")),
    Case(
        "a CRLF behind the body is skipped",
        post(b"Content-Length: 5") + b"\r\n",
        seen(b"POST /x", more=[b"content-length: 5"], body=b"hello"),
    ),
    Case(
        "an underscore does not frame",
        post(b"Content_Length: 3", b"Content-Length: 5"),
        seen(b"POST /x", more=[b"content-length: 5"], body=b"hello"),
    ),
    Case(
        "a coding with an underscore does not frame",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5"),
        seen(b"POST /x", more=[b"content-length: 5"], body=b"hello"),
    ),
    bad("two lengths", b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    bad("the same length twice", b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    bad("a list of lengths", b"Content-Length: 5, 5", body=b"hello"),
    bad("a list of differing lengths", b"Content-Length: 5, 6", body=b"hello"),
    bad("a comma behind the length", b"Content-Length: 5,", body=b"hello"),
    bad("an empty length", b"Content-Length:", body=b"hello"),
    bad("an empty length beside one", b"Content-Length:", b"Content-Length: 5", body=b"hello"),
    bad("a plus", b"Content-Length: +5", body=b"hello"),
    bad("a minus", b"Content-Length: -5", body=b"hello"),
    bad("minus zero", b"Content-Length: -0", body=b""),
    bad("hexadecimal", b"Content-Length: 0x5", body=b"hello"),
    bad("an underscore in the number", b"Content-Length: 0_5", body=b"hello"),
    bad("a fraction", b"Content-Length: 5.0", body=b"hello"),
    bad("an exponent", b"Content-Length: 5e0", body=b"hello"),
    bad("in words", b"Content-Length: five", body=b"hello"),
    bad("in quotes", b'Content-Length: "5"', body=b"hello"),
    bad("a space in the number", b"Content-Length: 5 5", body=b"hello"),
    bad("digits of another script", "Content-Length: \u0665".encode(), body=b"hello"),
    bad("a superscript digit", b"Content-Length: \xb2", body=b"hi"),
    bad("a no-break space", b"Content-Length: \xa05", body=b"hello"),
    bad("a length of twenty digits", b"Content-Length: 18446744073709551621", body=b"hello"),
    bad("a length of 5,000 digits", b"Content-Length: " + b"9" * 5_000, body=b"hello"),
    bad("a space before the colon", b"Content-Length : 5", body=b"hello"),
    bad("NUL behind the length", b"Content-Length: 5\0", body=b"hello"),
    bad("a parameter", b"Content-Length: 5;x", body=b"hello"),
    bad("length and chunked", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    bad("chunked and length", b"Transfer-Encoding: chunked", b"Content-Length: 15"),
    bad("chunked and a length of nothing", b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    bad("chunked and an invalid length", b"Transfer-Encoding: chunked", b"Content-Length: x"),
    bad("a length and identity", b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"hello"),
    # Codings.
    Case("chunked", post(b"Transfer-Encoding: chunked", body=FIVE), CHUNKED),
    Case("chunked in any case", post(b"TRANSFER-encoding:\tChunKED ", body=FIVE), CHUNKED),
    Case("chunked and TE", post(b"Transfer-Encoding: chunked", b"TE: chunked", body=FIVE), CHUNKED),
    bad("no coding", b"Transfer-Encoding:"),
    bad("identity", b"Transfer-Encoding: identity"),
    bad("chunked twice", b"Transfer-Encoding: chunked, chunked"),
    bad("chunked on two lines", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    bad("chunked and then another", b"Transfer-Encoding: chunked, gzip"),
    bad("chunked and identity on two lines", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    bad("a comma behind chunked", b"Transfer-Encoding: chunked,"),
    bad("a comma before chunked", b"Transfer-Encoding: ,chunked"),
    bad("an empty line of it", b"Transfer-Encoding: chunked", b"Transfer-Encoding:"),
    bad("gzip alone", b"Transfer-Encoding: gzip"),
    bad("unknown alone", b"Transfer-Encoding: xchunked"),
    bad("chunked in quotes", b'Transfer-Encoding: "chunked"'),
    bad("chunked with a parameter", b"Transfer-Encoding: chunked;q=1"),
    bad("chunked with a word", b"Transfer-Encoding: chunked chunked"),
    bad("chunked with NUL", b"Transfer-Encoding: chunked\0"),
    bad("a vertical tab before chunked", b"Transfer-Encoding: \x0bchunked"),
    bad("a form feed behind chunked", b"Transfer-Encoding: chunked\x0c"),
    bad("a no-break space before chunked", b"Transfer-Encoding: \xa0chunked"),
    bad("a long s", "Transfer-Encoding: chun\u212aed".encode()),
    bad("the name with a space before the colon", b"Transfer-Encoding : chunked"),
    bad("the name with NUL", b"Transfer-Encoding\0: chunked"),
    bad("the value folded", b"Transfer-Encoding: chun\r\n ked"),
    unknown("gzip and chunked", b"Transfer-Encoding: gzip, chunked"),
    unknown("gzip and chunked on two lines", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    unknown("an unknown coding and chunked", b"Transfer-Encoding: cow, chunked"),
    unknown("identity and chunked", b"Transfer-Encoding: identity, chunked"),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_framing_of_a_request(wire: Wire, case: Case) -> None:
    wire.run(case)
