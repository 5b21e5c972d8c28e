"""The h11 codec, responses: every framing, interim ones, ends that come too early, and upstreams that lie."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import Limits
from minato.protocol.codec import Signal
from minato.protocol.fields import make_block
from minato.protocol.guard import Malformed
from minato.protocol.message import Framing, ResponseHead
from tests.protocol.support import bytewise, cut_at, read_messages, response_codec, splits

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
HINTED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + LENGTH
MESSAGES = [(LENGTH, b"hello", 1), (CHUNKED, b"abcde", 1), (EMPTY, b"", 1), (HINTED, b"hello", 3)]


def refusal(pieces: list[bytes], eof: bool = False, **expected: Any) -> Malformed:
    codec = response_codec(**expected)
    with pytest.raises(Malformed) as caught:
        read_messages(codec, pieces)
        if eof:
            codec.feed_eof()
            codec.next_event()
    return caught.value


@pytest.mark.parametrize(("message", "body", "heads"), MESSAGES)
@pytest.mark.parametrize("way", ["whole", "bytewise"])
def test_a_response_is_read_to_its_end(message: bytes, body: bytes, heads: int, way: str) -> None:
    codec = response_codec()
    messages = read_messages(codec, [message] if way == "whole" else bytewise(message))
    assert len(messages) == heads
    assert messages[-1][1:] == (body, True)
    assert codec.buffered_bytes == 0


@pytest.mark.parametrize(("message", "body", "heads"), MESSAGES)
def test_what_follows_a_response_stays_in_the_buffer_and_is_not_read(message: bytes, body: bytes, heads: int) -> None:
    codec = response_codec()
    messages = read_messages(codec, [message + LENGTH])
    assert messages[-1][1:] == (body, True)
    assert codec.next_event() is Signal.NEED_DATA
    assert codec.buffered_bytes == len(LENGTH)
    assert codec.take_rest() == LENGTH


def test_a_head_is_read_with_its_meaning() -> None:
    ((head, _, _),) = read_messages(response_codec(), [LENGTH])
    assert head == ResponseHead(
        200, b"OK", 11, make_block([(b"content-length", b"5"), (b"x", b"y")]), Framing.LENGTH, 5, keep_alive=True
    )


@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=4), st.lists(st.integers(0, 500), max_size=9))
def test_one_codec_reads_response_after_response(messages: list[tuple[bytes, bytes, int]], cuts: list[int]) -> None:
    codec = response_codec()
    for message, body, _ in messages:
        codec.expect_response(b"GET", b"")
        assert read_messages(codec, cut_at(message, cuts))[-1][1:] == (body, True)


def test_nothing_is_read_before_a_request_was_sent() -> None:
    codec = response_codec()
    read_messages(codec, [EMPTY])
    codec.feed(LENGTH)
    assert codec.next_event() is Signal.NEED_DATA


@pytest.mark.parametrize("lines", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200"), (b"GET", b"304"), (b"GET", b"204"), (b"HEAD", b"404")]
)
def test_head_204_and_304_end_with_their_head(method: bytes, status: bytes, lines: bytes) -> None:
    codec = response_codec(method)
    ((head, body, ended),) = read_messages(codec, [b"HTTP/1.1 " + status + b" x\r\n" + lines + b"\r\nhello"])
    assert (head.framing, body, ended) == (Framing.NONE, b"", True)
    assert codec.buffered_bytes == 5


@pytest.mark.parametrize(
    "lines", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"", b"Content-Length: 0\r\n"]
)
def test_205_ends_with_its_head_and_says_that_it_is_empty(lines: bytes) -> None:
    codec = response_codec()
    ((head, body, ended),) = read_messages(codec, [b"HTTP/1.1 205 x\r\n" + lines + b"\r\nhello"])
    assert (head.framing, head.length_bytes, body, ended) == (Framing.LENGTH, 0, b"", True)
    assert codec.buffered_bytes == 5


@pytest.mark.parametrize("way", ["whole", "bytewise"])
def test_trailers_are_told_at_the_end_and_forgotten_with_the_next_response(way: str) -> None:
    codec = response_codec()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n%b\r\n"
    for message, trailers in [
        (chunked % b"X-A: 1\r\nx-b:\t2 \r\n", [(b"x-a", b"1"), (b"x-b", b"2")]),
        (LENGTH, []),
        (chunked % b"X-A: 3\r\n", [(b"x-a", b"3")]),
        (chunked % b"", []),
        (EMPTY, []),
    ]:
        read_messages(codec, [message] if way == "whole" else bytewise(message))
        assert codec.trailers == trailers
        codec.expect_response(b"GET", b"")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_without_framing_goes_on_until_the_end_of_the_connection(version: bytes) -> None:
    codec = response_codec()
    messages = read_messages(codec, [b"HTTP/" + version + b" 200 OK\r\n\r\nabc", b"def"])
    assert messages[0][1:] == (b"abcdef", False)
    assert not messages[0][0].keep_alive
    codec.feed_eof()
    assert codec.next_event() is Signal.END
    assert codec.next_event() is Signal.NEED_DATA


def test_bytes_that_came_with_the_end_are_read_before_it() -> None:
    codec = response_codec()
    codec.feed(b"HTTP/1.0 200 OK\r\n\r\nabc")
    codec.feed_eof()
    assert isinstance(codec.next_event(), ResponseHead)
    assert codec.next_event() == b"abc"
    assert codec.next_event() is Signal.END


@pytest.mark.parametrize("message", [LENGTH, CHUNKED])
def test_an_end_before_the_message_is_whole_is_an_error(message: bytes) -> None:
    for size in range(len(message)):
        refusal([message[:size]], eof=True)


@pytest.mark.parametrize("message", [LENGTH, CHUNKED, EMPTY])
def test_an_end_after_the_message_is_none(message: bytes) -> None:
    codec = response_codec()
    read_messages(codec, [message])
    codec.feed_eof()
    assert codec.next_event() is Signal.NEED_DATA


def test_an_end_after_an_interim_response_alone_is_an_error() -> None:
    refusal([b"HTTP/1.1 103 x\r\n\r\n"], eof=True)


@pytest.mark.parametrize(
    "wire",
    [
        b"garbage\r\n\r\n",
        b"\r\n" + LENGTH,
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\x00z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    ],
)
def test_a_malformed_response_is_refused_in_any_pieces(wire: bytes) -> None:
    for pieces in splits(wire):
        refusal(pieces)


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_ambiguous_framing_is_refused_even_where_there_is_no_body(method: bytes) -> None:
    head = b"HTTP/1.1 304 x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"
    refusal([head], method=method)


def test_64_interim_responses_pass_and_one_more_is_an_error() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    messages = read_messages(response_codec(), [interim * 64 + EMPTY])
    assert [head.status for head, _, _ in messages] == [102] * 64 + [204]
    refusal([interim * 65])


def test_interim_responses_are_counted_anew_for_every_request() -> None:
    codec = response_codec()
    for _ in range(3):
        codec.expect_response(b"GET", b"")
        assert len(read_messages(codec, [b"HTTP/1.1 100 x\r\n\r\n" * 40 + EMPTY])) == 41


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_switch_that_nobody_asked_for_is_refused() -> None:
    refusal([SWITCH])


def test_a_switch_that_was_asked_for_leaves_the_rest_unread() -> None:
    codec = response_codec(upgrade=b"websocket")
    codec.feed(SWITCH + b"\x81\x02hi")
    head = codec.next_event()
    assert isinstance(head, ResponseHead)
    assert (head.status, head.upgrade) == (101, b"websocket")
    assert codec.next_event() is Signal.NEED_DATA
    assert codec.take_rest() == b"\x81\x02hi"


def test_a_request_to_upgrade_may_be_answered_like_any_other() -> None:
    ((head, body, ended),) = read_messages(response_codec(upgrade=b"websocket"), [LENGTH])
    assert (head.status, body, ended) == (200, b"hello", True)


def test_limits_hold_for_responses_too() -> None:
    limits = Limits(header_bytes=200, header_fields=4)
    refusal([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200], limits=limits)
    refusal([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5 + b"\r\n"], limits=limits)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
    ((_, body, ended),) = read_messages(response_codec(limits=limits), [head + b"x" * 900])
    assert (len(body), ended) == (900, True)


@given(
    st.binary(max_size=40),
    st.integers(0, 60),
    st.sampled_from([LENGTH, CHUNKED, HINTED]),
    st.lists(st.integers(0, 200)),
)
def test_mutated_responses_are_read_alike_in_any_pieces_or_refused(
    junk: bytes, at: int, message: bytes, cuts: list[int]
) -> None:
    wire = message[:at] + junk + message[at:]

    def outcome(pieces: list[bytes]) -> Any:
        codec = response_codec()
        try:
            read = read_messages(codec, pieces)
        except Malformed:
            return "refused"
        return read

    assert outcome([wire]) == outcome(cut_at(wire, cuts)) == outcome(bytewise(wire))


def test_interim_responses_of_more_than_64_kib_together_are_an_error() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 20_000 + b"\r\n\r\n"
    assert len(read_messages(response_codec(), [interim * 3 + EMPTY])) == 4
    refusal([interim * 4])
