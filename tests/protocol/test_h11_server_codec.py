"""The h11 codec, requests: whole, byte by byte, pipelined, hostile; the limits with their statuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import Limits
from minato.protocol.codec import Signal
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ServerCodec
from minato.protocol.message import Framing, RequestHead
from tests.protocol.support import bytewise, cut_at, read_messages, read_request, request_codec, splits

GET = b"GET /a?b=c HTTP/1.1\r\nHost: Example.com\r\nX-One: 1\r\nx-one:\t2 \r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
)
OLD = b"GET /o HTTP/1.0\r\n\r\n"
MESSAGES = [(GET, b""), (POST, b"hello"), (CHUNKED, b"abcde"), (OLD, b"")]


def refusal(data: bytes, limits: Limits | None = None, pieces: list[bytes] | None = None) -> Malformed:
    with pytest.raises(Malformed) as caught:
        read_messages(request_codec(limits or Limits()), pieces or [data])
    return caught.value


def test_a_head_is_read_with_its_meaning() -> None:
    head = read_request(GET)
    assert (head.method, head.target, head.version) == (b"GET", b"/a?b=c", 11)
    assert head.fields == [(b"host", b"Example.com"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert (head.framing, head.length_bytes, head.host, head.path) == (Framing.NONE, 0, b"example.com", b"/a?b=c")
    assert head.keep_alive
    assert head.host_as_sent == b"Example.com"


@pytest.mark.parametrize(("message", "body"), MESSAGES)
@pytest.mark.parametrize("way", ["whole", "bytewise"])
def test_a_message_is_read_to_its_end(message: bytes, body: bytes, way: str) -> None:
    codec = request_codec()
    ((_, read, ended),) = read_messages(codec, [message] if way == "whole" else bytewise(message))
    assert (read, ended, codec.buffered_bytes) == (body, True, 0)


@pytest.mark.parametrize(("message", "body"), MESSAGES)
def test_what_follows_a_message_stays_in_the_buffer(message: bytes, body: bytes) -> None:
    codec = request_codec()
    codec.feed(message + b"GE")
    read = b""
    event: Any = codec.next_event()
    while (event := codec.next_event()) is not Signal.END:
        read += event
    assert (read, codec.buffered_bytes, codec.take_rest(), codec.buffered_bytes) == (body, 2, b"GE", 0)


def test_nothing_is_yielded_before_the_head_is_whole() -> None:
    codec = request_codec()
    for piece in bytewise(GET)[:-1]:
        codec.feed(piece)
        assert codec.next_event() is Signal.NEED_DATA
    codec.feed(GET[-1:])
    assert isinstance(codec.next_event(), RequestHead)
    assert codec.next_event() is Signal.END


def test_body_pieces_come_as_they_arrive() -> None:
    codec = request_codec()
    codec.feed(POST[:-3])
    codec.next_event()
    assert codec.next_event() == b"he"
    assert codec.next_event() is Signal.NEED_DATA
    codec.feed(POST[-3:])
    assert codec.next_event() == b"llo"
    assert codec.next_event() is Signal.END


def test_a_chunk_need_not_be_whole_to_be_passed_on() -> None:
    codec = request_codec()
    codec.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nevent")
    codec.next_event()
    assert codec.next_event() == b"event"
    assert codec.next_event() is Signal.NEED_DATA


@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=9))
def test_pipelined_requests_read_the_same_however_they_are_cut(
    messages: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    wire = b"".join(message for message, _ in messages)
    read = read_messages(request_codec(), cut_at(wire, cuts))
    assert [(body, ended) for _, body, ended in read] == [(body, True) for _, body in messages]


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=4), st.integers(0, 3), st.integers(0, 70))
def test_mutated_requests_are_read_alike_in_any_pieces_or_refused(
    junk: bytes, cuts: list[int], which: int, at: int
) -> None:
    message = MESSAGES[which][0]
    wire = message[:at] + junk + message[at:]

    def outcome(pieces: list[bytes]) -> Any:
        try:
            return read_messages(request_codec(), pieces)
        except Malformed:
            return "refused"

    assert outcome([wire]) == outcome(cut_at(wire, cuts)) == outcome(bytewise(wire))


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n\r\n"])
@pytest.mark.parametrize("way", ["whole", "bytewise"])
def test_empty_lines_before_a_request_are_ignored(blank: bytes, way: str) -> None:
    wire = POST + blank + GET
    read = read_messages(request_codec(), [wire] if way == "whole" else bytewise(wire))
    assert [head.method for head, _, _ in read] == [b"POST", b"GET"]


def test_empty_lines_alone_are_no_request() -> None:
    codec = request_codec()
    codec.feed(b"\r\n\r\n\r\n")
    assert codec.next_event() is Signal.NEED_DATA
    assert codec.buffered_bytes == 0


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"X : y", 400),
        (b"X\t: y", 400),
        (b"X y", 400),
        (b": y", 400),
        (b"X(: y", 400),
        (b"\xc3\xa9: y", 400),
        (b"X: a\x00b", 400),
        (b"X: a\rb", 400),
        (b"X: a\nY: b", 400),
        (b"X: a\r\n b", 400),
        (b"Host: b", 400),
        (b"Content-Length: 1\r\nContent-Length: 1", 400),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"Content-Length : 1", 400),
        (b"Content-Length: +1", 400),
        (b"Transfer-Encoding : chunked", 400),
        (b"Transfer-Encoding:\x0bchunked", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: cow, chunked", 501),
        (b"Transfer-Encoding: cow", 400),
        (b"Expect: cows", 417),
    ],
)
def test_a_bad_field_line_is_refused_in_any_pieces(line: bytes, status: int) -> None:
    wire = b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n"
    for pieces in splits(wire):
        assert refusal(wire, pieces=pieces).status == status


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ],
)
def test_a_bad_message_is_refused_with_its_status(wire: bytes, status: int) -> None:
    for pieces in splits(wire):
        assert refusal(wire, pieces=pieces).status == status


@pytest.mark.parametrize("tail", [b"x\r\n", b"5\nhello", b"5\r\nhelloX", b"0\r\n x\r\n\r\n", b"1" * 300])
def test_a_bad_chunked_body_is_refused(tail: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for pieces in splits(head + tail):
        assert refusal(b"", pieces=pieces).status == 400


def test_a_bare_lf_is_refused_before_the_head_ends() -> None:
    codec = request_codec()
    codec.feed(b"GET / HTTP/1.1\n")
    with pytest.raises(Malformed):
        codec.next_event()


SMALL = Limits(header_bytes=200, header_fields=4, target_bytes=50)


def field_of(size: int) -> bytes:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
    return head.replace(b"X: ", b"X: " + b"y" * (size - len(head)))


def test_a_head_of_the_limit_passes_and_one_byte_more_is_431() -> None:
    for pieces in splits(field_of(200)):
        assert len(read_messages(request_codec(SMALL), pieces)) == 1
    for pieces in splits(field_of(201)):
        assert refusal(b"", SMALL, pieces).status == 431


def test_a_head_that_does_not_end_is_431() -> None:
    assert refusal(field_of(500)[:250], SMALL).status == 431


def test_the_limit_counts_one_head_not_what_follows() -> None:
    assert len(read_messages(request_codec(SMALL), [field_of(150) * 5])) == 5
    big_body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    ((_, body, ended),) = read_messages(request_codec(SMALL), [big_body])
    assert (len(body), ended) == (5000, True)


def test_as_many_fields_as_the_limit_pass_and_one_more_is_431() -> None:
    wire = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 3 + b"\r\n"
    assert len(read_request(wire, SMALL).fields) == 4
    assert refusal(wire[:-2] + b"x: y\r\n\r\n", SMALL).status == 431


def test_a_target_of_the_limit_passes_and_one_byte_more_is_414() -> None:
    for size, fits in ((50, True), (51, False), (150, False)):
        wire = b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        for pieces in splits(wire):
            if fits:
                assert len(read_messages(request_codec(SMALL), pieces)) == 1
            else:
                assert refusal(b"", SMALL, pieces).status == 414


@pytest.mark.parametrize("size", [100, 5000])
def test_a_target_that_does_not_end_is_414_in_any_pieces(size: int) -> None:
    for pieces in splits(b"GET /" + b"a" * size):
        assert refusal(b"", SMALL, pieces).status == 414


def test_take_rest_hands_over_what_came_behind_an_upgrade() -> None:
    codec: H11ServerCodec = request_codec()
    codec.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello")
    head = codec.next_event()
    assert isinstance(head, RequestHead)
    assert head.upgrade == b"websocket"
    assert codec.next_event() is Signal.END
    assert codec.take_rest() == b"\x81\x05hello"


def test_many_small_chunks_that_come_at_once_are_one_piece() -> None:
    codec = request_codec()
    codec.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5000)
    assert isinstance(codec.next_event(), RequestHead)
    assert codec.next_event() == b"a" * 5000
    assert codec.next_event() is Signal.NEED_DATA
    codec.feed(b"0\r\nX: y\r\n\r\nGET")
    assert codec.next_event() is Signal.END
    assert (codec.trailers, codec.take_rest()) == ([(b"x", b"y")], b"GET")
