"""Rendering: every message that leaves has exactly one framing, and reads back as what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.protocol.message import Framing, RequestHead, ResponseHead
from minato.protocol.render import (
    encode_end,
    encode_piece,
    reason_phrase,
    render_interim,
    render_lines,
    render_request_head,
    render_response,
    unknown_length_framing,
)
from tests.protocol.support import read_messages, read_request, request_codec, response_codec

V10 = read_request(b"GET / HTTP/1.0\r\n\r\n")
V11 = read_request(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
PIECES = st.lists(st.binary(max_size=30), max_size=6)


@pytest.mark.parametrize(
    ("framing", "length", "line"),
    [
        (Framing.NONE, 0, b""),
        (Framing.LENGTH, 0, b"content-length: 0\r\n"),
        (Framing.LENGTH, 12, b"content-length: 12\r\n"),
        (Framing.CHUNKED, 0, b"transfer-encoding: chunked\r\n"),
        (Framing.CLOSE, 0, b""),
    ],
)
def test_a_head_declares_its_framing_once(framing: Framing, length: int, line: bytes) -> None:
    assert render_request_head(b"PUT", b"/x", render_lines([(b"host", b"a")]), framing, length) == (
        b"PUT /x HTTP/1.1\r\nhost: a\r\n" + line + b"\r\n"
    )
    assert render_response(200, b"OK", [(b"x", b"y")], framing, length) == (
        b"HTTP/1.1 200 OK\r\nx: y\r\n" + line + b"\r\n"
    )


def test_connection_is_said_where_it_is_given() -> None:
    head = render_response(200, b"OK", [], Framing.NONE, 0, b"close")
    assert head == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


def test_an_interim_response_has_no_framing() -> None:
    assert render_interim(103, b"Early Hints", [(b"link", b"x")]) == b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


def test_a_body_of_unknown_length_goes_in_chunks_but_not_to_http_1_0() -> None:
    assert unknown_length_framing(V11) is Framing.CHUNKED
    assert unknown_length_framing(V10) is Framing.CLOSE


def test_an_empty_piece_does_not_end_a_chunked_body() -> None:
    assert encode_piece(Framing.CHUNKED, b"") == b""


def test_pieces_of_other_framings_go_as_they_are() -> None:
    for framing in (Framing.LENGTH, Framing.CLOSE):
        assert encode_piece(framing, b"abc") == b"abc"
        assert encode_end(framing) == b""


@given(PIECES)
def test_a_chunked_request_reads_back(pieces: list[bytes]) -> None:
    wire = render_request_head(b"POST", b"/", render_lines([(b"host", b"a")]), Framing.CHUNKED, 0)
    wire += b"".join(encode_piece(Framing.CHUNKED, piece) for piece in pieces) + encode_end(Framing.CHUNKED)
    ((head, body, ended),) = read_messages(request_codec(), [wire])
    assert isinstance(head, RequestHead)
    assert (head.framing, body, ended) == (Framing.CHUNKED, b"".join(pieces), True)


@given(PIECES, st.sampled_from([Framing.CHUNKED, Framing.LENGTH]))
def test_a_response_reads_back(pieces: list[bytes], framing: Framing) -> None:
    body = b"".join(pieces)
    wire = render_response(200, b"OK", [(b"x", b"y")], framing, len(body))
    wire += b"".join(encode_piece(framing, piece) for piece in pieces) + encode_end(framing)
    ((head, read, ended),) = read_messages(response_codec(), [wire])
    assert isinstance(head, ResponseHead)
    assert (head.framing, head.reason, read, ended) == (framing, b"OK", body, True)


def test_statuses_of_minatos_own_have_phrases() -> None:
    assert reason_phrase(502) == b"Bad Gateway"
    assert reason_phrase(599) == b"Unknown"
    own = [400, 404, 408, 413, 414, 417, 431, 501, 502, 503, 504, 505]
    assert all(reason_phrase(status) != b"Unknown" for status in own)
