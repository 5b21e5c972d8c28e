"""The chunk scanner: it ends where the message ends, whatever the pieces, and takes nothing that has two readings."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minato.protocol.chunked import ChunkReader, ChunkScanner, measure_whole_chunks
from minato.protocol.guard import Malformed
from tests.protocol.support import bytewise, cut_at, splits

BODY = b"5\r\nhello\r\nA;name=value\r\n0123456789\r\n0\r\nx-sum: 15\r\n\r\n"

TOKENS = st.text("abcXYZ019-_!", min_size=1, max_size=8).map(str.encode)
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b';a="b;c"', b";a=b;c=d", b"; a = b ; c", b';a="\xff\\"\t"'])
TRAILERS = st.lists(st.tuples(TOKENS, st.text("abc XYZ", max_size=12).map(str.encode)), max_size=3)


@st.composite
def encoded_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body and one of its many chunked spellings."""
    body, wire = b"", b""
    for chunk in draw(CHUNKS):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"00000%x"])) % len(chunk)
        body += chunk
        wire += size + draw(EXTENSIONS) + b"\r\n" + chunk + b"\r\n"
    wire += draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + b"\r\n"
    wire += b"".join(b"x-" + name + b": " + value + b"\r\n" for name, value in draw(TRAILERS))
    return body, wire + b"\r\n"


def scan_all(pieces: list[bytes]) -> int:
    """Return how many bytes of the pieces belong to the message."""
    scanner = ChunkScanner()
    return sum(scanner.scan(piece) for piece in pieces)


def decode_by_h11(wire: bytes) -> bytes:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + wire)
    assert isinstance(connection.next_event(), h11.Request)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += bytes(event.data)
    assert connection.trailing_data == (b"", False)
    return body


@pytest.mark.parametrize("pieces", splits(BODY), ids=["whole", "bytewise"])
def test_a_message_is_followed_to_its_end(pieces: list[bytes]) -> None:
    scanner = ChunkScanner()
    for number, piece in enumerate(pieces):
        assert not scanner.done, number
        assert scanner.scan(piece) == len(piece)
    assert scanner.done


@pytest.mark.parametrize("trailing", [b"G", b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n"])
def test_what_follows_the_message_is_not_taken(trailing: bytes) -> None:
    scanner = ChunkScanner()
    assert scanner.scan(BODY + trailing) == len(BODY)
    assert scanner.scan(trailing) == 0


def test_an_empty_body_is_one_last_chunk() -> None:
    assert scan_all([b"0\r\n\r\nrest"]) == 5


def test_every_prefix_is_unfinished() -> None:
    for size in range(len(BODY)):
        scanner = ChunkScanner()
        assert scanner.scan(BODY[:size]) == size
        assert not scanner.done


@given(encoded_bodies(), st.lists(st.integers(0, 10_000), max_size=8), st.binary(max_size=20))
def test_any_split_consumes_exactly_the_message_as_h11_reads_it(
    encoded: tuple[bytes, bytes], cuts: list[int], trailing: bytes
) -> None:
    body, wire = encoded
    assert decode_by_h11(wire) == body
    assert scan_all(cut_at(wire + trailing, cuts)) == len(wire)
    assert scan_all(bytewise(wire + trailing)) == len(wire)


@given(
    st.lists(st.sampled_from([b"5", b"0", b"a", b"\r\n", b"\n", b"\r", b" ", b";", b"x:y", b"-", b"\t"]), max_size=12)
)
def test_whatever_is_accepted_h11_reads_to_the_same_end(tokens: list[bytes]) -> None:
    wire = b"".join(tokens)
    scanner = ChunkScanner()
    try:
        size = scanner.scan(wire)
    except Malformed:
        size = -1
    outcomes = set()
    for pieces in (bytewise(wire), cut_at(wire, [1, 3, 4])):
        again = ChunkScanner()
        try:
            outcomes.add((sum(again.scan(piece) for piece in pieces), again.done))
        except Malformed:
            outcomes.add((-1, False))
    assert outcomes == {(size, scanner.done if size >= 0 else False)}
    if size >= 0 and scanner.done:
        with contextlib.suppress(h11.RemoteProtocolError):  # h11 may be stricter; it must never find another end
            decode_by_h11(wire[:size])


@pytest.mark.parametrize(
    "size",
    [
        b"",
        b"g",
        b"5g",
        b"0x5",
        b"+5",
        b"-5",
        b" 5",
        b"5 ",
        b"5\t",
        b"5 5",
        b"5_0",
        b"5,",
        b"\xb2",
        "\u0665".encode(),
        b"1" * 16,
        b"f" * 16,
        b"5;a\x00",
        b"5;a\x0b",
        b"5;a\rb",
        b"5\r",
        b"5;a\r",
        b";a",
        b"5;",
        b"5;a;",
        b"5;;a",
        b"5;=b",
        b"5;a=",
        b"5;a b",
        b"5;a=b c",
        b'5;a="b',
        b'5;a="b"c',
        b'5;a="\\"',
        b"5;\xff",
    ],
)
def test_an_invalid_size_line_is_refused(size: bytes) -> None:
    for pieces in splits(size + b"\r\nhello\r\n0\r\n\r\n"):
        with pytest.raises(Malformed) as caught:
            scan_all(pieces)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    "wire",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello \r\n0\r\n\r\n",
        b"5\r\nhello\rX0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"0\n\r\n",
        b"0\r\n\n",
        b"0\r\n\r\r\n",
        b"0\r\nx: y\n\r\n",
    ],
)
def test_a_line_without_crlf_is_refused(wire: bytes) -> None:
    for pieces in splits(wire):
        with pytest.raises(Malformed):
            scan_all(pieces)


@pytest.mark.parametrize(
    "trailer",
    [
        b" folded: x",
        b"\tfolded: x",
        b"no-colon",
        b": no name",
        b"a : b",
        b"a(b: c",
        b"a: \x00",
        b"a: \x7f",
        b"a: b\rc: d",
        b"\xc3\xa9: x",
    ],
)
def test_a_malformed_trailer_is_refused(trailer: bytes) -> None:
    for pieces in splits(b"0\r\n" + trailer + b"\r\n\r\n"):
        with pytest.raises(Malformed):
            scan_all(pieces)


@pytest.mark.parametrize("trailer", [b"a:", b"a:b", b"a: \xff caf\xc3\xa9", b"!#$%&'*+.^_`|~: x"])
def test_a_good_trailer_passes(trailer: bytes) -> None:
    wire = b"0\r\n" + trailer + b"\r\n\r\n"
    for pieces in splits(wire):
        assert scan_all(pieces) == len(wire)


def test_a_size_line_has_a_cap_whether_it_ends_or_not() -> None:
    for wire in (b"5;" + b"a" * 300 + b"\r\n", b"5;" + b"a" * 300, b"0" * 300):
        for pieces in splits(wire):
            with pytest.raises(Malformed):
                scan_all(pieces)


def test_trailers_have_a_cap_with_its_own_status() -> None:
    wire = b"0\r\n" + (b"x: " + b"y" * 95 + b"\r\n") * 170
    for pieces in (cut_at(wire, range(0, len(wire), 50)), [wire]):
        with pytest.raises(Malformed) as caught:
            scan_all(pieces)
        assert caught.value.status == 431


def test_a_trailer_that_does_not_end_has_a_cap() -> None:
    with pytest.raises(Malformed):
        scan_all([b"0\r\nx: ", *[b"y" * 1000] * 20])


def test_a_large_chunk_costs_no_memory() -> None:
    scanner = ChunkScanner()
    scanner.scan(b"ffffffff\r\n")
    piece = b"x" * 65_536
    for _ in range(50):
        assert scanner.scan(piece) == len(piece)
    assert len(scanner._held) == 0


# -- whole bodies that may go on as they are

WHOLE_PIECES = st.sampled_from(
    [
        *[b"5\r\nhello\r\n", b"A\r\n0123456789\r\n", b"a\r\n0123456789\r\n", b"5\r\n0\r\n\r\n\r\n", b"0\r\n\r\n"],
        *[
            b"5\r\nhelloxx",
            b"5\r\nhello\n\r",
            b"5\r\nhello\n",
            b"5\nhello\r\n",
            b"05\r\nhello\r\n",
            b"5;a\r\nhello\r\n",
        ],
        *[
            b"4\r\nhello\r\n",
            b"6\r\nhello\r\n",
            b"00\r\n\r\n",
            b"0;a\r\n\r\n",
            b"0\r\nA: b\r\n\r\n",
            b"\r\n",
            b"0\r\n",
            b"x",
        ],
        *[b"123456789\r\n", b"ffffffff\r\nx\r\n", b"-5\r\n", b"+5\r\nhello\r\n", b"5 \r\nhello\r\n"],
    ]
)


@given(st.lists(WHOLE_PIECES, max_size=5), st.binary(max_size=9))
@example([b"5\r\nhelloxx", b"0\r\n\r\n"], b"")
@example([b"5\r\nhello\n\r", b"0\r\n\r\n"], b"")
def test_what_goes_on_as_it_is_could_not_be_read_in_any_other_way(pieces: list[bytes], front: bytes) -> None:
    body = b"".join(pieces)
    if measure_whole_chunks(front + body, len(front)) is None:
        return
    payload, end = ChunkReader().read(body, 0)
    assert end == len(body)
    chunks, rest = [], body
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        assert (size.lower(), rest[len(chunks[-1]) :][:2]) == (b"%x" % len(chunks[-1]), b"\r\n")
        rest = rest[len(chunks[-1]) + 2 :]
    assert b"".join(chunks) == payload


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.booleans(), st.data())
def test_chunks_written_the_plain_way_go_on_as_they_are_and_no_part_of_them_does(
    chunks: list[bytes], upper: bool, data: st.DataObject
) -> None:
    size = b"%X" if upper else b"%x"
    body = b"".join(size % len(chunk) + b"\r\n" + chunk + b"\r\n" for chunk in chunks) + b"0\r\n\r\n"
    assert measure_whole_chunks(b"head" + body, 4) is not None
    cut = data.draw(st.integers(0, len(body) - 1))
    assert measure_whole_chunks(body[:cut], 0) is None
    assert measure_whole_chunks(body + b"x", 0) is None
    assert measure_whole_chunks(body + body, 0) is None
