"""Both codecs on the same pieces: what they tell, and messages near to valid ones in pieces of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from minato.config.model import Limits
from minato.protocol.chunked import ChunkReader
from minato.protocol.codec import ClientCodec, ServerCodec, Signal
from minato.protocol.express_codec import ExpressClientCodec, ExpressServerCodec
from minato.protocol.field_table import FieldTable, Halves
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ClientCodec, H11ServerCodec
from minato.protocol.message import Framing, RequestHead, ResponseHead
from tests.protocol.corpus import COMMON_REQUESTS, COMMON_RESPONSES, ODD_REQUESTS, ODD_RESPONSES
from tests.protocol.support import bytewise, cut_at

Transcript = list[tuple[Any, ...]]


@dataclass
class Worker:
    """What the express codecs of one worker share."""

    limits: Limits
    capacity: int = 2048
    requests: FieldTable = field(init=False)
    responses: FieldTable = field(init=False)
    heads: Halves[RequestHead] = field(init=False)
    memos: Halves[RequestHead] = field(init=False)
    response_heads: Halves[ResponseHead] = field(init=False)
    status_lines: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.requests = FieldTable(self.capacity)
        self.responses = FieldTable(self.capacity)
        self.heads = Halves(max(1, self.capacity // 2))
        self.memos = Halves(max(1, self.capacity // 2))
        self.response_heads = Halves(max(1, self.capacity // 4))

    def server_codec(self) -> ExpressServerCodec:
        return ExpressServerCodec(self.limits, self.requests, self.heads, self.memos)

    def client_codec(self) -> ExpressClientCodec:
        return ExpressClientCodec(self.limits, self.responses, self.response_heads, self.status_lines)


SMALL = Limits(header_bytes=90, header_fields=3, target_bytes=8)
SMALL_HEADS = Limits(header_bytes=150)
FEW_FIELDS = Limits(header_fields=6, target_bytes=4)
# A table of eight lines and two blocks forgets all the time; the others remember.
WORKERS = [Worker(Limits()), Worker(Limits(), 8), Worker(SMALL), Worker(SMALL_HEADS), Worker(FEW_FIELDS)]
ANY_WORKER = st.sampled_from(WORKERS)
# h11 also holds lines between chunks to the limit of a head, the chunk scanner holds them to 256 bytes: limits of
# responses are never below that (net.codecs sees to it).
RESPONSE_WORKERS = [
    Worker(Limits()),
    Worker(Limits(), 8),
    Worker(Limits(header_bytes=300, header_fields=3)),
    Worker(Limits(header_fields=6)),
]
ANY_RESPONSE_WORKER = st.sampled_from(RESPONSE_WORKERS)


# -- what a codec makes of some pieces


def trailers_of(codec: ServerCodec | ClientCodec, told: Transcript) -> list[tuple[bytes, bytes]]:
    """What the codec says of trailers at an END; of a request's, only where it was chunked, as its contract has it."""
    head = next((event[1] for event in reversed(told) if event[0] == "head"), None)
    is_asked = isinstance(head, ResponseHead) or (head is not None and head.framing is Framing.CHUNKED)
    return codec.trailers if is_asked else []


def pull(codec: ServerCodec | ClientCodec, told: Transcript) -> Signal | None:
    """Note down one event; bodies are joined. Return the signal, None for anything else."""
    event = codec.next_event()
    if isinstance(event, Signal):
        if event is Signal.END:
            told.append(("end", codec.buffered_bytes, trailers_of(codec, told)))
        return event
    if isinstance(event, bytes):
        assert event, "an empty piece says nothing"
        if told and told[-1][0] == "body":
            event = told.pop()[1] + event
        told.append(("body", event))
    else:
        told.append(("head", event, codec.buffered_bytes))
    return None


def read_requests(codec: ServerCodec, pieces: Sequence[bytes], *, whole: bool = False) -> Transcript:
    """Return what is told after each piece, up to the refusal or to the rest that is left."""
    told: Transcript = []
    try:
        for piece in pieces:
            head = codec.read_whole(piece) if whole else None
            if head is not None:
                size = head.length_bytes
                told += [("head", head, size), *([("body", piece[-size:])] if size else []), ("end", 0, [])]
            else:
                codec.feed(piece)
                while pull(codec, told) is not Signal.NEED_DATA:
                    pass
            told.append(("needs more", codec.buffered_bytes))
    except Malformed as error:
        return [*told, ("refused", error.status)]
    return [*told, ("rest", codec.take_rest())]


def read_responses(
    codec: ClientCodec,
    pieces: Sequence[bytes],
    asked: Sequence[tuple[bytes, bytes]],
    *,
    ends: bool,
    whole: bool = False,
) -> Transcript:
    """Return what is told of the responses to ``(method, upgrade)`` one after the other; ``ends``: with a FIN."""
    told: Transcript = []
    questions = iter(asked)
    codec.expect_response(*next(questions))

    def read_on() -> None:
        while (signal := pull(codec, told)) is not Signal.NEED_DATA:
            if signal is Signal.END and (question := next(questions, None)) is not None:
                codec.expect_response(*question)
        told.append(("needs more", codec.buffered_bytes))

    def read_whole(piece: bytes) -> bool:
        head = codec.read_whole(piece)
        if head is None:
            return False
        body = piece[codec.body_at :]
        payload = ChunkReader().read(body, 0)[0] if head.framing is Framing.CHUNKED else body
        told.extend([("head", head, len(body)), *([("body", payload)] if payload else []), ("end", 0, [])])
        if (question := next(questions, None)) is not None:
            codec.expect_response(*question)
        told.append(("needs more", 0))
        return True

    try:
        for piece in pieces:
            if whole and read_whole(piece):
                continue
            codec.feed(piece)
            read_on()
        if ends:
            codec.feed_eof()
            read_on()
    except Malformed:
        return [*told, ("refused",)]  # as a 502, whatever the status says
    return [*told, ("rest", codec.take_rest())]


def check_requests(worker: Worker, pieces: Sequence[bytes]) -> Transcript:
    """Assert that both codecs tell the same of the pieces, event by event and read whole; return it."""
    expected = read_requests(H11ServerCodec(worker.limits), pieces)
    assert read_requests(worker.server_codec(), pieces) == expected
    assert read_requests(worker.server_codec(), pieces, whole=True) == expected
    return expected


def check_responses(
    worker: Worker, pieces: Sequence[bytes], asked: Sequence[tuple[bytes, bytes]] = ((b"GET", b""),), *, ends: bool
) -> Transcript:
    expected = read_responses(H11ClientCodec(worker.limits), pieces, asked, ends=ends)
    assert read_responses(worker.client_codec(), pieces, asked, ends=ends) == expected
    assert read_responses(worker.client_codec(), pieces, asked, ends=ends, whole=True) == expected
    return expected


# -- messages


ODD_PIECES = [
    *[
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b":",
        b",",
        b";",
        b"#",
        b"0",
    ],
    *[
        b"Content-Length: 5\r\n",
        b"content-length:0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"HOST:a\r\n",
    ],
    *[
        b"Connection: close\r\n",
        b"Connection: x\r\n",
        b"Cookie: x=y\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
    ],
    *[
        b"X: 1\r\n 2\r\n",
        b"X: 1\n",
        b"X : 1\r\n",
        b"X:\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"GET / HTTP/1.1\r\n",
        b"3\r\nabc\r\n",
    ],
]


@st.composite
def mutated(draw: st.DrawFn, messages: list[bytes]) -> bytes:
    """A message with a few small changes."""
    data = draw(st.sampled_from(messages))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["insert", "byte", "delete", "line", "double", "case", "cut"]))
        at = draw(st.integers(0, len(data)))
        if kind == "insert":
            data = data[:at] + draw(st.sampled_from(ODD_PIECES)) + data[at:]
        elif kind == "byte":
            data = data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
        elif kind == "delete":
            data = data[:at] + data[at + draw(st.integers(1, 6)) :]
        elif kind == "line":
            at = data.find(b"\r\n", at) + 2
            data = data[:at] + draw(st.sampled_from(ODD_PIECES)) + data[at:]
        elif kind == "double":
            start, stop = data.rfind(b"\r\n", 0, at) + 2, data.find(b"\r\n", at) + 2
            data = data[:stop] + data[start:stop] + data[stop:]
        elif kind == "case":
            data = data[:at] + data[at : at + 12].swapcase() + data[at + 12 :]
        else:
            data = data[:at]
    return data


@st.composite
def in_pieces(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> list[bytes]:
    """One to four messages: each by itself, all in one, byte by byte, or cut anywhere."""
    sent = draw(st.lists(messages, min_size=1, max_size=4))
    way = draw(st.sampled_from(["each", "each", "all", "bytewise", "cut", "each cut", "heads"]))
    whole = b"".join(sent)
    if way == "all":
        return [whole]
    if way == "bytewise":
        return bytewise(whole)
    if way == "cut":
        return cut_at(whole, draw(st.lists(st.integers(0, 2000), max_size=6)))
    if way == "each cut":
        # A head may be whole while its body comes in pieces, and the next head come with the end of it.
        return [piece for one in sent for piece in cut_at(one, draw(st.lists(st.integers(0, 2000), max_size=2)))]
    if way == "heads":
        ends = [whole.find(b"\r\n\r\n", at) + 4 for at in range(0, len(whole), 40)]
        return cut_at(whole, ends)
    return sent


SOUP = st.lists(
    st.sampled_from([*ODD_PIECES, b"GET ", b"/", b" ", b"Host: a\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"]), max_size=14
)
REQUESTS = in_pieces(st.one_of(st.sampled_from(COMMON_REQUESTS), mutated(COMMON_REQUESTS), mutated(ODD_REQUESTS)))
RESPONSES = in_pieces(st.one_of(st.sampled_from(COMMON_RESPONSES), mutated(COMMON_RESPONSES), mutated(ODD_RESPONSES)))
ASKED = st.lists(
    st.sampled_from([(b"GET", b""), (b"GET", b""), (b"HEAD", b""), (b"POST", b""), (b"GET", b"websocket")]),
    min_size=1,
    max_size=4,
)
