"""Field lines and blocks: the roles of lines, and kept wire forms that equal those made of the fields anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import Limits
from minato.protocol.codec import ServerCodec
from minato.protocol.express_codec import ExpressClientCodec, ExpressServerCodec
from minato.protocol.field_table import FieldTable, Halves
from minato.protocol.fields import (
    CODING,
    CONNECTION,
    COUNT,
    DATE,
    EXPECT,
    FORWARDED,
    HOP_BY_HOP,
    HOP_BY_HOP_NAMES,
    HOST,
    LENGTH,
    OVERRIDE,
    RARE,
    UPGRADE,
    VIA,
    FieldBlock,
    FieldLine,
    make_block,
    strip_hop_by_hop,
)
from minato.protocol.forward import (
    forward_request_fields,
    forward_request_lines,
    forward_response_fields,
    forward_response_lines,
)
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ClientCodec, H11ServerCodec
from minato.protocol.message import RequestHead, ResponseHead
from minato.protocol.render import render_lines
from tests.protocol.corpus import COMMON_REQUESTS, ODD_REQUESTS

CLIENT = b"192.0.2.7"
NOW = b"Mon, 07 Nov 1994 08:49:37 GMT"


def read_block(*lines: bytes) -> FieldBlock:
    block = FieldTable().read_block(b"\r\n".join(lines))
    assert block is not None
    return block


# -- roles


@pytest.mark.parametrize(
    ("name", "role"),
    [
        (b"Host", HOST),
        (b"Content-Length", LENGTH),
        (b"TRANSFER-ENCODING", CODING),
        (b"connection", CONNECTION),
        (b"Expect", EXPECT),
        (b"Date", DATE),
        (b"Upgrade", UPGRADE),
        (b"X-Forwarded-For", FORWARDED),
        (b"X-Forwarded-Port", FORWARDED),
        (b"x_forwarded_host", FORWARDED),
        (b"Forwarded", FORWARDED),
        (b"X-Real-IP", FORWARDED),
        (b"X-HTTP-Method-Override", OVERRIDE),
        (b"x_original_url", OVERRIDE),
        (b"X-Forwarded", OVERRIDE),
        *[(name, HOP_BY_HOP) for name in (b"keep-alive", b"proxy-connection", b"http2-settings", b"content_length")],
        *[(name, HOP_BY_HOP | RARE) for name in (b"te", b"trailer")],
        (b"max-forwards", RARE),
        (b"via", VIA),
        (b"cookie", 0),
        (b"hosts", 0),
        (b"content_type", 0),
    ],
)
def test_a_line_has_the_role_of_its_name(name: bytes, role: int) -> None:
    assert read_block(name + b": x").roles == role
    assert read_block(b"a: b", name + b": x", name + b": y").roles == 2 * role
    assert make_block([(name.lower(), b"x")]).roles == role


@pytest.mark.parametrize("count", [COUNT - 1, COUNT, COUNT + 1, 2 * (COUNT + 1)])
@pytest.mark.parametrize("name", [b"connection", b"host", b"content-length", b"date", b"upgrade"])
def test_no_number_of_lines_makes_a_role_look_absent_or_like_another(name: bytes, count: int) -> None:
    block = make_block([(name, b"x-a")] * count)
    assert block.roles // make_block([(name, b"x-a")]).roles == min(count, COUNT)


def test_nominated_fields_go_however_many_connection_lines_there_are() -> None:
    block = make_block([*[(b"connection", b"x-a")] * 256, (b"x-a", b"1"), (b"x-b", b"2")])
    assert block.upstream_wire == block.downstream_wire == b"x-b: 2\r\n"


def test_every_hop_by_hop_name_has_a_role_of_which_nothing_goes_on() -> None:
    for name in HOP_BY_HOP_NAMES:
        line = FieldLine(name, b"x")
        assert line.role
        assert (line.upstream, line.downstream) == (b"", b"")


# -- wire forms


HEAD_LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *[
                    b"Connection: close",
                    b"Connection: x-a, keep-alive",
                    b"Connection: Cookie",
                    b"Connection: date, via",
                ],
                *[
                    b"Connection: x-forwarded-for",
                    b"Connection: host",
                    b"Connection: upgrade",
                    b"Keep-Alive: timeout=5",
                ],
                *[b"X-A: 1", b"x-a: 2", b"Cookie: a=b", b"Cookie: ", b"Date: x", b"Via: 1.1 other", b"TE: trailers"],
                *[
                    b"X-Forwarded-For: 10.0.0.1",
                    b"X-Forwarded-Host: h",
                    b"x_forwarded_proto: https",
                    b"Forwarded: for=x",
                ],
                *[b"X-Real-IP: 10.0.0.2", b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked"],
                *[b"Expect: 100-continue", b"Upgrade: websocket", b"Upgrade: h2c", b"Set-Cookie: a", b"Set-Cookie: b"],
                *[b"Cache-Control: no-cache", b"Trailer: x", b"Proxy-Connection: x", b"X: ", b"X:\tb \xff "],
            ]
        ),
        st.builds(b"X-%d: y".__mod__, st.integers(0, 3)),
    ),
    max_size=8,
)
FIRST_LINES = st.sampled_from(
    [
        *[b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"GET http://Other/x HTTP/1.1", b"OPTIONS * HTTP/1.1"],
        *[b"GET / HTTP/1.0", b"HEAD /h HTTP/1.1"],
    ]
)
HOSTS = st.sampled_from([b"Host: A.Example:80", b"Host: b", b"HOST:c "])
TABLE = FieldTable(32)
HEADS: Halves[RequestHead] = Halves(16)
MEMOS: Halves[RequestHead] = Halves(16)
RESPONSE_HEADS: Halves[ResponseHead] = Halves(8)
STATUS_LINES: dict[bytes, tuple[int, bytes]] = {}
MAKERS: list[Callable[[], ServerCodec]] = [
    lambda: ExpressServerCodec(Limits(), TABLE, HEADS, MEMOS),
    lambda: H11ServerCodec(Limits()),
]


def read_head(codec: ServerCodec, data: bytes) -> RequestHead | None:
    codec.feed(data)
    try:
        head = codec.next_event()
    except Malformed:
        return None
    return head if isinstance(head, RequestHead) else None


@given(FIRST_LINES, HOSTS, HEAD_LINES, st.integers(0, 8))
def test_a_forwarded_request_is_rendered_as_its_fields_are(
    first: bytes, host: bytes, lines: list[bytes], at: int
) -> None:
    data = b"\r\n".join([first, *lines[:at], host, *lines[at:]]) + b"\r\n\r\n"
    for make in MAKERS:
        for client in (CLIENT, b"2001:db8::1", CLIENT):
            head = read_head(make(), data)
            if head is None:
                return
            fields = list(head.fields)
            expected = forward_request_fields(head, strip_hop_by_hop(fields), client, None, b"origin:81")
            assert forward_request_lines(head, client, b"origin:81") == render_lines(expected)
            assert forward_request_lines(head, client, b"origin:81") == render_lines(expected)
            assert head.fields == fields, "a block is shared and never changed"
            assert head.block.end_to_end == strip_hop_by_hop(fields)


@given(
    st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.1 304 Same", b"HTTP/1.1 404 No", b"HTTP/1.0 200 OK", b"HTTP/1.1 103 x"]
    ),
    HEAD_LINES,
    st.sampled_from([b"GET", b"HEAD", b"POST"]),
)
def test_a_forwarded_response_is_rendered_as_its_fields_are(first: bytes, lines: list[bytes], method: bytes) -> None:
    data = b"\r\n".join([first, *lines]) + b"\r\n\r\n"
    for codec in (ExpressClientCodec(Limits(), TABLE, RESPONSE_HEADS, STATUS_LINES), H11ClientCodec(Limits())):
        codec.expect_response(method, b"")
        codec.feed(data)
        try:
            head = codec.next_event()
        except Malformed:
            return
        assert isinstance(head, ResponseHead)
        fields = list(head.fields)
        expected = render_lines(forward_response_fields(method, head, NOW))
        assert forward_response_lines(method, head, NOW) == expected
        assert forward_response_lines(method, head, NOW) == expected
        assert head.fields == fields, "a block is shared and never changed"


@pytest.mark.parametrize("data", [*COMMON_REQUESTS, *ODD_REQUESTS])
def test_known_requests_are_forwarded_as_their_fields_are(data: bytes) -> None:
    for make in MAKERS * 3:
        head = read_head(make(), data)
        if head is not None:
            expected = forward_request_fields(head, strip_hop_by_hop(head.fields), CLIENT, None, b"origin:81")
            assert forward_request_lines(head, CLIENT, b"origin:81") == render_lines(expected)
