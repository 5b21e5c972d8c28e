"""The guard: everything two readers could understand differently is refused, with the fitting status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.protocol.guard import (
    Malformed,
    check_head,
    check_partial_head,
    declared_framing,
    framing_lines,
    split_request_line,
    split_status_line,
)
from minato.protocol.message import Framing

HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    return split_request_line(line + b"\r\nhost: a\r\n\r\n")


def _status_line(line: bytes) -> tuple[int, bytes, int]:
    return split_status_line(line + b"\r\n\r\n")


def test_a_plain_head_passes() -> None:
    check_head(HEAD)


@pytest.mark.parametrize("value", [b"tab\tinside", b"caf\xc3\xa9", b"\xff\x80", b"~", b""])
def test_tabs_and_high_bytes_in_values_pass(value: bytes) -> None:
    check_head(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + value + b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\n\r\n\r\n",
        b"GET / HTTP/1.1\rhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\rTransfer-Encoding: chunked\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_bare_cr_or_lf_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed, match="CRLF") as caught:
        check_head(head)
    assert caught.value.status == 400


@pytest.mark.parametrize("blank", [b" ", b"\t", b" \t "])
def test_a_folded_line_is_refused(blank: bytes) -> None:
    with pytest.raises(Malformed, match="folded"):
        check_head(b"GET / HTTP/1.1\r\nhost: a\r\n" + blank + b"x: y\r\n\r\n")


CONTROLS = [code for code in [*range(0x20), 0x7F] if code not in (0x09, 0x0A, 0x0D)]


@pytest.mark.parametrize("code", CONTROLS)
@pytest.mark.parametrize(
    "head", [b"GET /% HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\na%: b\r\n\r\n", b"G / H\r\na: %\r\n\r\n"]
)
def test_a_control_byte_anywhere_is_refused(code: int, head: bytes) -> None:
    with pytest.raises(Malformed, match="control"):
        check_head(head.replace(b"%", bytes([code])))


@given(st.binary(max_size=40))
def test_a_head_that_passes_has_no_line_end_but_crlf_and_no_control(value: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nx: " + value + b"\r\n\r\n"
    try:
        check_head(head)
    except Malformed:
        return
    rest = head.replace(b"\r\n", b"")
    assert not set(rest) & (set(CONTROLS) | {0x0A, 0x0D})
    assert not any(line[:1] in (b" ", b"\t") for line in head.split(b"\r\n")[1:])


@pytest.mark.parametrize(("data", "start"), [(b"GET / HTTP/1.1\nhost", 0), (b"\n", 0), (b"a\r\nb\nc", 3), (b"ab\n", 2)])
def test_a_bare_lf_is_refused_before_the_head_ends(data: bytes, start: int) -> None:
    with pytest.raises(Malformed):
        check_partial_head(data, start)


@pytest.mark.parametrize(("data", "start"), [(b"GET / HTTP/1.1\r\nho", 0), (b"a\r", 0), (b"a\r\n", 2), (b"", 0)])
def test_an_unfinished_good_head_passes(data: bytes, start: int) -> None:
    check_partial_head(data, start)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", (b"GET", b"/", 11)),
        (b"OPTIONS * HTTP/1.0", (b"OPTIONS", b"*", 10)),
        (b"get http://a/b?c HTTP/1.1", (b"get", b"http://a/b?c", 11)),
        (b"M-SEARCH / HTTP/1.9", (b"M-SEARCH", b"/", 11)),
    ],
)
def test_a_request_line_is_split(line: bytes, expected: tuple[bytes, bytes, int]) -> None:
    assert _request_line(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GE(T / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.",
        b"GET / HTTP/.1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1,1",
        b"GET / HTTPS/1.1",
    ],
)
def test_a_request_line_of_another_shape_is_400(line: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        _request_line(line)
    assert caught.value.status == 400


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.0", b"9.9"])
def test_another_major_version_is_505(version: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        _request_line(b"GET / HTTP/" + version)
    assert caught.value.status == 505


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HTTP/1.1 200 OK", (200, b"OK", 11)),
        (b"HTTP/1.0 404 Not Found", (404, b"Not Found", 10)),
        (b"HTTP/1.1 200 ", (200, b"", 11)),
        (b"HTTP/1.1 200", (200, b"", 11)),
        (b"HTTP/1.1 599 caf\xe9\tx", (599, b"caf\xe9\tx", 11)),
    ],
)
def test_a_status_line_is_split(line: bytes, expected: tuple[int, bytes, int]) -> None:
    assert _status_line(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 099 x",
        b"HTTP/1.1 600 x",
        b"HTTP/1.1 +20 x",
        b"HTTP/1.1 200OK",
        b"http/1.1 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"ICY 200 OK",
        b" HTTP/1.1 200 OK",
    ],
)
def test_a_status_line_of_another_shape_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        _status_line(line)


def test_framing_lines_finds_every_line_in_any_case_and_spacing() -> None:
    head = (
        b"POST / HTTP/1.1\r\nContent-Length:5\r\ncontent-length: \t 6 \r\nCONTENT-LENGTH:\r\n"
        b"x-content-length: 7\r\nx: content-length: 8\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    )
    assert framing_lines(head) == ([b"5", b"6", b""], [b"gzip, chunked"])


def test_no_framing_field_declares_nothing() -> None:
    assert declared_framing([], [], 11) is None


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, int("9" * 18))])
def test_ascii_digits_are_a_length(value: bytes, length: int) -> None:
    assert declared_framing([value], [], 11) == (Framing.LENGTH, length)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+5",
        b"-5",
        b"-0",
        b"0x5",
        b"5.0",
        b"5e1",
        b"1_000",
        b"5 5",
        b"5,5",
        b"5, 5",
        b"5;",
        b'"5"',
        b"five",
        "\u0665".encode(),
        "\uff15".encode(),
        b"\xb2",
        b"1" * 19,
        b"9" * 5000,
    ],
)
def test_anything_else_is_no_length(value: bytes) -> None:
    with pytest.raises(Malformed, match="Content-Length") as caught:
        declared_framing([value], [], 11)
    assert caught.value.status == 400


@pytest.mark.parametrize("values", [[b"5", b"6"], [b"5", b"5"], [b"5", b""], [b"", b""]])
def test_several_lengths_are_refused_even_when_equal(values: list[bytes]) -> None:
    with pytest.raises(Malformed, match="Content-Length"):
        declared_framing(values, [], 11)


@pytest.mark.parametrize("values", [[b"chunked"], [b"Chunked"], [b"CHUNKED"]])
def test_chunked_alone_is_chunked(values: list[bytes]) -> None:
    assert declared_framing([], values, 11) == (Framing.CHUNKED, 0)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([b""], 400),
        ([b"chunked", b"chunked"], 400),
        ([b"chunked, chunked"], 400),
        ([b"chunked, gzip"], 400),
        ([b"chunked", b"gzip"], 400),
        ([b"gzip"], 400),
        ([b"chunked,"], 400),
        ([b",chunked"], 400),
        ([b"gzip,,chunked"], 400),
        ([b"gzip, chunked"], 501),
        ([b"x-gzip", b"chunked"], 501),
        ([b"deflate, gzip, chunked"], 501),
        ([b"identity"], 400),
        ([b"xchunked"], 400),
        ([b"chunked;q=1"], 400),
        ([b"chunke"], 400),
        ([b'"chunked"'], 400),
        ([b"\x00chunked"], 400),
        ([b"chunked\x0b"], 400),
        ([b"chunked chunked"], 400),
        ([b"cow, chunked"], 501),
    ],
)
def test_other_codings_are_refused_by_class(values: list[bytes], status: int) -> None:
    with pytest.raises(Malformed) as caught:
        declared_framing([], values, 11)
    assert caught.value.status == status


def test_both_framings_at_once_are_refused() -> None:
    with pytest.raises(Malformed, match="both") as caught:
        declared_framing([b"5"], [b"chunked"], 11)
    assert caught.value.status == 400


def test_transfer_encoding_in_http_1_0_is_refused() -> None:
    with pytest.raises(Malformed, match=r"HTTP/1\.0") as caught:
        declared_framing([], [b"chunked"], 10)
    assert caught.value.status == 400


@given(
    st.lists(st.binary(max_size=6), max_size=3), st.lists(st.binary(max_size=9), max_size=3), st.sampled_from([10, 11])
)
def test_framing_never_fails_but_by_malformed(lengths: list[bytes], codings: list[bytes], version: int) -> None:
    try:
        framing = declared_framing(lengths, codings, version)
    except Malformed as error:
        assert error.status in (400, 501)
    else:
        assert framing is None or len(lengths) + len(codings) == 1
