"""The express codec against the h11 codec: for any bytes, in any pieces, both yield the same or refuse the same.

The express codecs of one direction share their tables over all examples, as those of a worker do over all connections:
what one message leaves there must not change how another is read.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minato.config.model import Limits
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ServerCodec
from minato.protocol.message import ResponseHead
from tests.protocol.corpus import COMMON_REQUESTS, COMMON_RESPONSES, ODD_REQUESTS, ODD_RESPONSES
from tests.protocol.differential import (
    ANY_RESPONSE_WORKER,
    ANY_WORKER,
    ASKED,
    REQUESTS,
    RESPONSE_WORKERS,
    RESPONSES,
    SOUP,
    WORKERS,
    Transcript,
    Worker,
    check_requests,
    check_responses,
    pull,
    read_requests,
    read_responses,
)
from tests.protocol.support import bytewise, cut_at

EXAMPLES = 400


# -- requests


@pytest.mark.parametrize("worker", WORKERS, ids=range(len(WORKERS)))
def test_every_known_request_is_read_alike_whole_and_byte_by_byte_and_with_a_rest(worker: Worker) -> None:
    for _ in range(3):  # unknown, seen once, known by its bytes
        for request in COMMON_REQUESTS + ODD_REQUESTS:
            check_requests(worker, [request])
            check_requests(worker, bytewise(request))
            check_requests(worker, [request + b"GET /next"])
            check_requests(worker, [request, request, request + request])


def test_common_requests_are_not_refused() -> None:
    for request in COMMON_REQUESTS:
        told = check_requests(WORKERS[0], [request])
        assert [kind for kind, *_ in told if kind != "body"] == ["head", "end", "needs more", "rest"]


@settings(max_examples=EXAMPLES)
@given(ANY_WORKER, REQUESTS)
def test_near_valid_requests_are_read_alike(worker: Worker, pieces: list[bytes]) -> None:
    check_requests(worker, pieces)


@settings(max_examples=EXAMPLES)
@given(ANY_WORKER, st.one_of(st.binary(max_size=60), SOUP.map(b"".join)), st.lists(st.integers(0, 200), max_size=3))
def test_arbitrary_bytes_are_read_alike_as_requests(worker: Worker, data: bytes, cuts: list[int]) -> None:
    check_requests(worker, cut_at(data, cuts))


LINES = st.one_of(
    st.sampled_from([line for message in COMMON_REQUESTS for line in message.split(b"\r\n")[1:] if b":" in line]),
    st.builds(
        lambda name, value: name + b":" + value,
        st.sampled_from([b"X", b"x-y_z", b"Cookie", b"Host", b"connection", b"Content-Length", b"X!#$%&'*+.^`|~", b""]),
        st.text(st.characters(max_codepoint=255), max_size=8).map(lambda text: text.encode("latin-1")),
    ),
)


@settings(max_examples=EXAMPLES)
@given(ANY_WORKER, st.lists(LINES, max_size=9), st.booleans())
def test_heads_of_any_lines_are_read_alike(worker: Worker, lines: list[bytes], named: bool) -> None:
    head = b"\r\n".join([b"GET /a HTTP/1.1", *([b"Host: a"] if named else []), *lines]) + b"\r\n\r\n"
    for _ in range(3):
        check_requests(worker, [head])


# -- reading whole requests


@settings(max_examples=EXAMPLES)
@given(ANY_WORKER, REQUESTS, st.sampled_from(COMMON_REQUESTS), st.integers(0, 6))
def test_nothing_is_read_whole_while_anything_is_under_way(
    worker: Worker, pieces: list[bytes], known: bytes, pulled: int
) -> None:
    for _ in range(3):
        read_requests(worker.server_codec(), [known])
    codec, reference = worker.server_codec(), H11ServerCodec(worker.limits)
    told: Transcript = []
    try:
        for piece in pieces:
            codec.feed(piece)
            reference.feed(piece)
            for _ in range(pulled):
                assert pull(codec, told) is pull(reference, [])
    except Malformed:
        return
    is_open = bool(told) and told[-1][0] != "end"
    if is_open or reference.buffered_bytes:
        assert codec.read_whole(known) is None
        assert codec.buffered_bytes == reference.buffered_bytes


def test_a_request_is_the_same_object_from_its_third_sight_on() -> None:
    worker = Worker(Limits())
    request = COMMON_REQUESTS[0]
    first, second, third, fourth = (worker.server_codec().read_whole(request) for _ in range(4))
    assert first is not None
    assert first is not second
    assert second is third is fourth
    assert second is not None
    assert second.memo is not None
    assert second.memo.is_exact


def test_requests_that_differ_in_the_cookie_alone_share_a_memo() -> None:
    worker = Worker(Limits())
    requests = [COMMON_REQUESTS[2].replace(b"sid=1", b"sid=%d" % number) for number in range(9)]
    heads = [worker.server_codec().read_whole(request) for request in requests]
    memos = [head.memo for head in heads if head is not None]
    assert len(memos) == len(requests)
    assert memos[-1] is memos[-2] is not None
    assert not memos[-1].is_exact
    other = worker.server_codec().read_whole(COMMON_REQUESTS[2].replace(b"/1?", b"/2?"))
    assert other is not None
    assert other.memo is not memos[-1]


@pytest.mark.parametrize(
    "request_bytes",
    [
        COMMON_REQUESTS[13],
        COMMON_REQUESTS[17],
        COMMON_REQUESTS[18],
        COMMON_REQUESTS[0] + COMMON_REQUESTS[1],
        COMMON_REQUESTS[14] + COMMON_REQUESTS[1],
        COMMON_REQUESTS[14][:-1],
        COMMON_REQUESTS[0][:-1],
    ],
)
def test_what_is_not_just_one_common_request_is_never_read_whole(request_bytes: bytes) -> None:
    worker = Worker(Limits())
    for _ in range(4):
        assert worker.server_codec().read_whole(request_bytes) is None
        read_requests(worker.server_codec(), [request_bytes])


# -- responses


@pytest.mark.parametrize("worker", RESPONSE_WORKERS, ids=range(len(RESPONSE_WORKERS)))
@pytest.mark.parametrize("ends", [False, True])
def test_every_known_response_is_read_alike_whole_and_byte_by_byte_and_with_a_rest(worker: Worker, ends: bool) -> None:
    for asked in [(b"GET", b""), (b"HEAD", b""), (b"POST", b""), (b"GET", b"websocket")]:
        for response in COMMON_RESPONSES + ODD_RESPONSES:
            check_responses(worker, [response], [asked], ends=ends)
            check_responses(worker, bytewise(response), [asked], ends=ends)
            check_responses(worker, [response + b"HTTP/1"], [asked], ends=ends)
            check_responses(worker, [response, response], [asked, asked], ends=ends)


@pytest.mark.parametrize("response", COMMON_RESPONSES)
def test_an_end_at_any_place_is_read_alike(response: bytes) -> None:
    for size in range(len(response) + 1):
        for pieces in ([response[:size]], bytewise(response[:size])):
            check_responses(RESPONSE_WORKERS[0], pieces, ends=True)


@settings(max_examples=EXAMPLES)
@given(ANY_RESPONSE_WORKER, RESPONSES, ASKED, st.booleans())
def test_near_valid_responses_are_read_alike(
    worker: Worker, pieces: list[bytes], asked: list[tuple[bytes, bytes]], ends: bool
) -> None:
    check_responses(worker, pieces, asked, ends=ends)


def test_trailers_are_those_of_the_response_that_ended() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n%b\r\n"
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    messages = [
        chunked % b"X-A: 1\r\n",
        length,
        chunked % b"",
        chunked % b"X-B: 2\r\nX-B: 3\r\n",
        chunked % b"",
        length,
    ]
    for pieces in (messages, bytewise(b"".join(messages)), [b"".join(messages)]):
        for _ in range(3):
            told = check_responses(RESPONSE_WORKERS[0], pieces, [(b"GET", b"")] * len(messages), ends=False)
            ends = [event[2] for event in told if event[0] == "end"]
            assert ends == [[(b"x-a", b"1")], [], [], [(b"x-b", b"2"), (b"x-b", b"3")], [], []]


CHUNK_PIECES = [
    *[
        b"5\r\nhello\r\n",
        b"1;a=b\r\nx\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"A: b\r\n",
        b"X-Sum:\t5 \r\n",
        b"Content-Type: x\r\n",
        b"\r\n",
        b"10\r\n0123456789abcdef\r\n",
        b"0;x\r\n\r\n",
    ],
    *[b"5", b"\r", b"\n", b" ", b";", b"x", b"g", b"00", b"\t", b"\xff", b"\x00", b"FFFFFFFF\r\n", b"3\r\na\r\n\r\n"],
]


@settings(max_examples=EXAMPLES)
@given(st.lists(st.sampled_from(CHUNK_PIECES), max_size=10), st.lists(st.integers(0, 120), max_size=5), st.booleans())
def test_chunks_are_read_alike(chunks: list[bytes], cuts: list[int], ends: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(chunks)
    check_responses(RESPONSE_WORKERS[0], [head, *cut_at(body, cuts)], ends=ends)
    check_responses(RESPONSE_WORKERS[0], cut_at(head + body, cuts), ends=ends)


@settings(max_examples=EXAMPLES)
@given(
    ANY_RESPONSE_WORKER,
    st.one_of(st.binary(max_size=60), SOUP.map(b"".join)),
    st.lists(st.integers(0, 200), max_size=3),
)
def test_arbitrary_bytes_are_read_alike_as_responses(worker: Worker, data: bytes, cuts: list[int]) -> None:
    check_responses(worker, cut_at(data, cuts), ends=True)


# -- limits to the byte


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("message", [*COMMON_REQUESTS[:5], *COMMON_REQUESTS[14:17]])
def test_requests_at_their_limits_are_read_alike(message: bytes, over: int) -> None:
    end = message.index(b"\r\n\r\n") + 4
    target = message.split(b" ")[1]
    fields = message[:end].count(b"\r\n") - 2
    for limits in (
        Limits(header_bytes=end + over),
        Limits(header_fields=max(1, fields + over)),
        Limits(target_bytes=len(target) + over),
    ):
        worker = Worker(limits)
        for pieces in (
            [message],
            [message] * 3,
            [message * 2],
            [message[: end - 1], message[end - 1 :]],
            bytewise(message),
        ):
            told = check_requests(worker, pieces)
            assert (told[-1][0] == "refused") == (over < 0 and not (limits.header_fields == fields == 1))


@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("message", [COMMON_RESPONSES[1], COMMON_RESPONSES[7]])
def test_responses_at_their_limits_are_read_alike(message: bytes, over: int) -> None:
    end = message.index(b"\r\n\r\n") + 4
    fields = message[:end].count(b"\r\n") - 2
    for limits in (Limits(header_bytes=end + over), Limits(header_fields=fields + over)):
        worker = Worker(limits)
        for pieces in (
            [message],
            [message[:end], message[end:]],
            [message[: end - 1], message[end - 1 :]],
            bytewise(message),
        ):
            told = check_responses(worker, pieces, ends=False)
            assert (told[-1][0] == "refused") == (over < 0)


# -- the express path itself


def test_common_messages_take_the_express_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the codecs agree because one of them does all the work."""

    def refuse(*_: object) -> None:
        raise AssertionError("handed over")

    monkeypatch.setattr("minato.protocol.express_codec.H11ServerCodec", refuse)
    monkeypatch.setattr("minato.protocol.express_codec.H11ClientCodec", refuse)
    worker = Worker(Limits())
    for request in [*COMMON_REQUESTS[:5], *COMMON_REQUESTS[6:8], *COMMON_REQUESTS[9:12], *COMMON_REQUESTS[14:17]]:
        assert read_requests(worker.server_codec(), [request])[0][0] == "head"
    for response in COMMON_RESPONSES[:9]:
        asked = [(b"GET", b"")]
        (first, *_) = read_responses(worker.client_codec(), [response], asked, ends=False)
        assert isinstance(first[1], ResponseHead)


def test_common_requests_take_the_express_path_though_their_heads_come_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long head never comes at once; h11 takes several times as long for it."""

    def refuse(*_: object) -> None:
        raise AssertionError("read by h11")

    monkeypatch.setattr("minato.protocol.express_codec.H11ServerCodec._read_head", refuse)
    worker = Worker(Limits())
    long = b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-%b\r\n\r\n" % (b",5-9" * 5000)
    for request in [*COMMON_REQUESTS[:5], *COMMON_REQUESTS[14:17]]:
        assert "head" in [kind for kind, *_ in read_requests(worker.server_codec(), bytewise(request))]
    for pieces in ([long[:16384], long[16384:] + long[:5], long[5:]], [b"\r\n", long[:-1], long[-1:]]):
        told = [kind for kind, *_ in read_requests(worker.server_codec(), pieces)]
        assert told.count("head") == b"".join(pieces).count(b"\r\n\r\n")


@pytest.mark.parametrize(
    "wire",
    [
        b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: %d\r\n\r\n",
        b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["body to come", "pipelined"],
)
def test_heads_that_never_repeat_are_not_kept_however_they_come(wire: bytes) -> None:
    worker = Worker(Limits())
    for number in range(50):
        read_requests(worker.server_codec(), [wire % (number, number)], whole=True)
    assert len(worker.heads._young) <= 1


def test_nothing_of_a_message_that_was_read_is_held_on_to() -> None:
    worker = Worker(Limits())
    server, client = worker.server_codec(), worker.client_codec()
    read_requests(server, bytewise(COMMON_REQUESTS[14]))
    read_responses(client, bytewise(COMMON_RESPONSES[1]), [(b"GET", b"")], ends=False)
    assert (server._data, client._data) == (b"", b"")
