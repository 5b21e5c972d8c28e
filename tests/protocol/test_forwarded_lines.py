"""The short cuts of protocol.forward against the general way: whatever is kept with blocks and heads, the same bytes.

Every head is read several times through one worker's tables, each time with another cookie, for what is kept of the
first ones is what the later ones are made of.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minato.config.model import Limits
from minato.protocol.forward import (
    forward_request_fields,
    forward_request_lines,
    forward_response_fields,
    forward_response_head,
)
from minato.protocol.message import ResponseHead
from minato.protocol.render import render_lines, render_response
from tests.protocol.corpus import COMMON_REQUESTS, COMMON_RESPONSES
from tests.protocol.differential import Worker
from tests.protocol.support import read_request

AUTHORITY = b"origin:81"
CLIENTS = [b"192.0.2.7", b"2001:db8::1"]
DATES = [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT"]
SIGHTS = 5


def check_request(worker: Worker, raw: bytes) -> None:
    """Assert that a request goes on as the h11 codec and `forward_request_fields` would have it."""
    expected = read_request(raw)
    head = worker.server_codec().read_whole(raw)
    for client in CLIENTS:
        fields = forward_request_fields(expected, expected.block.end_to_end, client, None, AUTHORITY)
        lines = render_lines(fields)
        assert forward_request_lines(expected, client, AUTHORITY) == lines
        assert head is None or forward_request_lines(head, client, AUTHORITY) == lines


def with_lines(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET / HTTP/1.1", *lines]) + b"\r\n\r\n"


AROUND = [
    ([b"Host: a"], []),
    ([b"Host: a"], [b"X-After: 1"]),
    ([b"X-Before: 1", b"Host: a"], [b"X-After: 1"]),
    ([b"X-Before: 1"], [b"Host: a", b"X-After: 1"]),
    ([b"X-Forwarded-For: 6.6.6.6", b"Host: A.Example"], [b"X-Real-IP: 7.7.7.7", b"Forwarded: for=8.8.8.8"]),
    ([b"Host: a", b"TE: trailers", b"Keep-Alive: 5"], [b"Proxy-Connection: x", b"Connection: keep-alive"]),
    ([b"Host: a", b"Connection: close", b"Close: xxx"], [b"X-Smuggled: atransfer-encoding: chunked"]),
    ([b"Host: a", b"Close: xxx"], [b"Connection: close", b"X-Smuggled: atransfer-encoding: chunked"]),
    ([b"Host: a", b"X-Before: 1"], [b"Close: xxx", b"Connection: Close"]),
    ([b"Host: a", b"Keep-Alive: 5", b"X-Before: 1"], [b"Connection: keep-alive, close", b"Close:"]),
    ([b"Host: a", b"Close: kept", b"Via: 1.0 x"], [b"Via: 1.0 y"]),
    ([b"Host: a", b"Content-Length: 0"], [b"X-After: 1"]),
    ([b"Host: a", b"Cookie: first=1"], [b"X-After: 1"]),
    ([b"Cookie: first=1", b"Host: a"], []),
    ([b"Host: a"], [b"Cookie: last=1"]),
    ([b"Host: a", b"cookie: small=1"], [b"COOKIE: large=1"]),
    ([b"Host: a", b"X-Not: Cookie: x"], [b"Cookies: 1", b"Cookie2: 1"]),
]


@pytest.mark.parametrize(("before", "behind"), AROUND)
def test_a_cookie_goes_on_in_its_place_whatever_stands_around_it(before: list[bytes], behind: list[bytes]) -> None:
    worker = Worker(Limits())
    for value in (b"1", b"2", b"", b"a b\tc", b"\xe4", b"4", b" 5\t"):
        check_request(worker, with_lines(*before, b"Cookie: " + value, *behind))


def test_a_cookie_that_changes_its_place_goes_on_in_its_place() -> None:
    worker = Worker(Limits())
    lines = [b"Host: a", b"X-1: 1", b"X-Forwarded-Host: evil", b"X-2: 2", b"Connection: close", b"Close: 1", b"X-3: 3"]
    for _ in range(SIGHTS):
        for at in range(len(lines) + 1):
            check_request(worker, with_lines(*lines[:at], b"Cookie: at=%d" % at, *lines[at:]))


LINES = st.sampled_from(
    [
        *[b"X-A: 1", b"X-B: 2", b"Close: 3", b"Connection: close", b"Connection: keep-alive", b"Keep-Alive: 5"],
        *[b"Connection: close, keep-alive", b"Cookie: other", b"cookie: other", b"X-Forwarded-For: 1.1.1.1", b"Via: x"],
        *[b"Expect: 100-continue", b"Date: now", b"TE: trailers", b"Cookie2: x", b"X-Real-IP: 1", b"Connection:"],
    ]
)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_any_lines_around_a_cookie_go_on_as_they_would_without_short_cuts(
    lines: list[bytes], host_at: int, at: int
) -> None:
    lines = [*lines[:host_at], b"Host: a", *lines[host_at:]]
    worker = Worker(Limits())
    for number in range(SIGHTS):
        check_request(worker, with_lines(*lines[:at], b"Cookie: sid=%d" % number, *lines[at:]))


def test_common_requests_go_on_as_they_would_without_short_cuts() -> None:
    worker = Worker(Limits())
    for _ in range(SIGHTS):
        for raw in COMMON_REQUESTS:
            check_request(worker, raw)


# -- responses


def whole_heads(worker: Worker, wire: bytes) -> list[ResponseHead]:
    """Return what is read of a whole response that comes again and again."""
    heads = []
    for _ in range(SIGHTS):
        codec = worker.client_codec()
        codec.expect_response(b"GET", b"")
        head = codec.read_whole(wire)
        if head is None:
            codec.feed(wire)
            event = codec.next_event()
            assert isinstance(event, ResponseHead)
            head = event
        heads.append(head)
    return heads


RESPONSES = [
    *COMMON_RESPONSES[:9],
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nDate: then\r\nConnection: close\r\nClose: x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200\r\nDate: then\r\nContent-Length: 0\r\nVia: 1.0 x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
    b"HTTP/1.1 204 None\r\nDate: then\r\n\r\n",
    b"HTTP/1.1 204 None\r\n\r\n",
    b"HTTP/1.1 304 Same\r\nDate: then\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 304 Same\r\nDate: then\r\n\r\n",
    b"HTTP/1.1 404 \xe4\r\nDate: then\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("wire", RESPONSES)
def test_a_response_head_that_is_kept_goes_on_like_a_new_one(wire: bytes) -> None:
    for head in whole_heads(Worker(Limits()), wire):
        for date in DATES:
            for connection in (b"", b"close", b""):
                fields = forward_response_fields(b"GET", head, date)
                expected = render_response(
                    head.status, head.reason, fields, head.framing, head.length_bytes, connection
                )
                assert forward_response_head(head, date, closes=bool(connection)) == expected
