"""Chunked requests: strict in, canonical out; what is wrong never ends cleanly at the upstream (RFC 9112, 7.1)."""

from __future__ import annotations

import pytest

from tests.wire.recorder import without_chunks
from tests.wire.table import REFUSED, Case, Wire, names, own, request, seen

HEAD = (b"POST /x", b"Transfer-Encoding: chunked")
HEAD_SEEN = seen(b"POST /x", more=[b"transfer-encoding: chunked"])
TOO_LARGE = own(b"431 Request Header Fields Too Large", closes=True)


def good(name: str, body: bytes, passed: bytes = b"5\r\nhello\r\n0\r\n\r\n") -> Case:
    return Case(name, request(*HEAD, body=body), HEAD_SEEN + passed)


def bad(name: str, body: bytes, got: bytes = REFUSED, payload: bytes = b"hello") -> Case:
    return Case(name, request(*HEAD, body=body), HEAD_SEEN + payload, got)


GOOD = [
    good("one chunk", b"5\r\nhello\r\n0\r\n\r\n"),
    good("no chunk", b"0\r\n\r\n", b"0\r\n\r\n"),
    good("two chunks", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    good("upper-case digits", b"A\r\n0123456789\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n"),
    good("lower-case digits", b"b\r\n0123456789a\r\n0\r\n\r\n", b"b\r\n0123456789a\r\n0\r\n\r\n"),
    good("leading zeros are left out", b"0005\r\nhello\r\n000\r\n\r\n"),
    good("fifteen digits", b"000000000000005\r\nhello\r\n0\r\n\r\n"),
    good("an extension is dropped", b"5;name=value\r\nhello\r\n0\r\n\r\n"),
    good("an extension in quotes is dropped", b'5;a="b;c";d\r\nhello\r\n0;last\r\n\r\n'),
    good("an extension that looks like a chunk is dropped", b'5;a="\\r\\n0"\r\nhello\r\n0\r\n\r\n'),
    good("an extension with white space is dropped", b"5; a = b\r\nhello\r\n0\r\n\r\n"),
    good("data that looks like an end", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
    good(
        "data that looks like a request",
        b"10\r\nGET / HTTP/1.1\r\n\r\n0\r\n\r\n",
        b"10\r\nGET / HTTP/1.1\r\n\r\n0\r\n\r\n",
    ),
    good(
        "60 chunks with extensions",
        b"1;%b\r\nx\r\n" % (b"e" * 200) * 60 + b"0\r\n\r\n",
        b"3c\r\n%b\r\n0\r\n\r\n" % (b"x" * 60),
    ),
]
BAD = [
    bad("a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    bad("a minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    bad("0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    bad("an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    bad("no digit", b"\r\nhello\r\n0\r\n\r\n"),
    bad("a letter that is no digit", b"5g\r\nhello\r\n0\r\n\r\n"),
    bad("a space before the size", b" 5\r\nhello\r\n0\r\n\r\n"),
    bad("a space behind the size", b"5 \r\nhello\r\n0\r\n\r\n"),
    bad("a space before the extension", b"5 ;a\r\nhello\r\n0\r\n\r\n"),
    bad("a tab behind the size", b"5\t\r\nhello\r\n0\r\n\r\n"),
    bad("NUL behind the size", b"5\0\r\nhello\r\n0\r\n\r\n"),
    bad("a comma behind the size", b"5,5\r\nhello\r\n0\r\n\r\n"),
    bad("sixteen digits", b"0000000000000005\r\nhello\r\n0\r\n\r\n"),
    bad("a size that overflows", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    bad("fullwidth digits", "\uff15\r\nhello\r\n0\r\n\r\n".encode()),
    bad("LF behind the size", b"5\nhello\r\n0\r\n\r\n"),
    bad("CR behind the size", b"5\rhello\r\n0\r\n\r\n"),
    bad("CR CR LF behind the size", b"5\r\r\nhello\r\n0\r\n\r\n"),
    bad("an extension without a name", b"5;\r\nhello\r\n0\r\n\r\n"),
    bad("an extension with an open quote", b'5;a="b\r\nhello\r\n0\r\n\r\n'),
    bad("LF in the extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    bad("CR in the extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    bad("NUL in the extension", b"5;a\0\r\nhello\r\n0\r\n\r\n"),
    bad("an escape in the extension", b"5;\x1b\r\nhello\r\n0\r\n\r\n"),
    bad("an extension over the limit", b"5;" + b"x" * 300 + b"\r\nhello\r\n0\r\n\r\n"),
    bad("no CRLF behind the data", b"5\r\nhello0\r\n\r\n"),
    bad("LF behind the data", b"5\r\nhello\n0\r\n\r\n"),
    bad("CR behind the data", b"5\r\nhello\r0\r\n\r\n"),
    bad("data longer than its size", b"4\r\nhello\r\n0\r\n\r\n", payload=b"hell"),
    bad("data shorter than its size", b"6\r\nhello\r\n0\r\n\r\n", payload=b"hello\r"),
    bad("an empty line between chunks", b"5\r\nhello\r\n\r\n0\r\n\r\n"),
    bad("LF at the end", b"5\r\nhello\r\n0\r\n\n"),
    bad("LF behind the last size", b"5\r\nhello\r\n0\n\r\n"),
    bad("a last chunk of minus nothing", b"5\r\nhello\r\n-0\r\n\r\n"),
    bad("a trailer without a colon", b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"),
    bad("a trailer with a space before the colon", b"5\r\nhello\r\n0\r\nx : y\r\n\r\n"),
    bad("a trailer that is folded", b"5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n"),
    bad("a trailer that is folded from the start", b"5\r\nhello\r\n0\r\n x: y\r\n\r\n"),
    bad("a trailer with LF", b"5\r\nhello\r\n0\r\nx: y\n\r\n"),
    bad("a trailer with CR", b"5\r\nhello\r\n0\r\nx: y\rz\r\n\r\n"),
    bad("a trailer with NUL", b"5\r\nhello\r\n0\r\nx: \0\r\n\r\n"),
    bad("a trailer with a name that is no token", b"5\r\nhello\r\n0\r\nx(y): z\r\n\r\n"),
    bad("a trailer that is a length", b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
    bad("a trailer that is a coding", b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    bad("a trailer that is a length with an underscore", b"5\r\nhello\r\n0\r\nContent_Length: 5\r\n\r\n"),
    bad("more trailers than the limit", b"5\r\nhello\r\n0\r\n" + b"x: y\r\n" * 101 + b"\r\n", TOO_LARGE),
    bad("trailers over the limit", b"5\r\nhello\r\n0\r\n" + b"x: %b\r\n" % (b"y" * 4_000) * 5 + b"\r\n", TOO_LARGE),
]


@pytest.mark.parametrize("case", GOOD, ids=names(GOOD))
def test_chunks_go_on_canonically(wire: Wire, case: Case) -> None:
    wire.run(case)


@pytest.mark.parametrize("case", BAD, ids=names(BAD))
def test_bad_chunks_never_end_cleanly(wire: Wire, case: Case) -> None:
    wire.run_cut(case)


def test_extensions_of_all_chunks_together_are_limited(wire: Wire) -> None:
    body = b"1;%b\r\nx\r\n" % (b"e" * 200) * 90 + b"0\r\n\r\n"
    with wire.origin.recording() as record:
        received = wire.talk([request(*HEAD, body=body)])
        assert (HEAD_SEEN + b"x" * 90).startswith(without_chunks(record.settled()))
    assert received.startswith(b"HTTP/1.1 400 ")
