"""What a valid message's fields mean: persistence, expectations, upgrades, and which responses have a body."""

from __future__ import annotations

import pytest

from minato.protocol.fields import make_block
from minato.protocol.guard import Malformed
from minato.protocol.message import Fields, Framing, RequestHead, ResponseHead
from minato.protocol.semantics import is_asked_switch, make_request_head, make_response_head


def request(*fields: tuple[bytes, bytes], version: int = 11, framing: tuple[Framing, int] | None = None) -> RequestHead:
    return make_request_head(b"GET", b"/", version, make_block([(b"host", b"a"), *fields]), framing)


def response(
    status: int = 200,
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    version: int = 11,
    framing: tuple[Framing, int] | None = None,
) -> ResponseHead:
    return make_response_head(method, status, b"x", version, make_block(list(fields)), framing)


PERSISTENCE: list[tuple[int, Fields, bool]] = [
    (11, [], True),
    (11, [(b"connection", b"close")], False),
    (11, [(b"connection", b"CLOSE")], False),
    (11, [(b"connection", b"x, close")], False),
    (11, [(b"connection", b"keep-alive"), (b"connection", b"close")], False),
    (11, [(b"connection", b"close, keep-alive")], False),
    (11, [(b"connection", b"closed")], True),
    (11, [(b"keep-alive", b"close")], True),
    (10, [], False),
    (10, [(b"connection", b"Keep-Alive")], True),
    (10, [(b"connection", b"keep-alive, close")], False),
]


@pytest.mark.parametrize(("version", "fields", "kept"), PERSISTENCE)
def test_keep_alive_follows_version_and_connection(version: int, fields: Fields, kept: bool) -> None:
    assert request(*fields, version=version).keep_alive is kept
    assert response(200, *fields, version=version, framing=(Framing.LENGTH, 1)).keep_alive is kept


BODY = (Framing.LENGTH, 5)


@pytest.mark.parametrize(
    ("value", "version", "framing", "expects"),
    [
        (b"100-continue", 11, BODY, True),
        (b"100-Continue", 11, (Framing.CHUNKED, 0), True),
        (b"100-continue", 11, None, False),
        (b"100-continue", 11, (Framing.LENGTH, 0), False),
        (b"100-continue", 10, BODY, False),
        (b"", 11, BODY, False),
    ],
)
def test_expect_counts_only_with_a_body_in_http_1_1(
    value: bytes, version: int, framing: tuple[Framing, int] | None, expects: bool
) -> None:
    assert request((b"expect", value), version=version, framing=framing).expects_continue is expects


@pytest.mark.parametrize("value", [b"x", b"100-continue, x", b"100", b"100-continue;a=b"])
def test_an_unknown_expectation_is_417(value: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        request((b"expect", value))
    assert caught.value.status == 417


def upgrade(value: bytes, connection: bytes = b"Upgrade", **more: object) -> bytes:
    return request((b"connection", connection), (b"upgrade", value), **more).upgrade  # type: ignore[arg-type]


def test_an_upgrade_that_connection_names_is_asked() -> None:
    assert upgrade(b"WebSocket") == b"WebSocket"
    assert upgrade(b"a,, B/1,", b"keep-alive, upgrade") == b"a, B/1"
    assert upgrade(b"websocket", framing=(Framing.LENGTH, 0)) == b"websocket"


@pytest.mark.parametrize("value", [b"a b", b'"a"', b"a/", b"/a", b"a/b/c", b"websocket, a@b", b",", b""])
def test_an_upgrade_to_what_is_no_protocol_is_ignored(value: bytes) -> None:
    assert upgrade(value) == b""


@pytest.mark.parametrize("value", [b"h2c", b"H2C", b"websocket, h2c", b"h2c-14", b"HTTP/2.0", b"HTTP/1.1"])
def test_an_upgrade_to_http_is_ignored(value: bytes) -> None:
    assert upgrade(value) == b""


def test_an_upgrade_without_connection_with_a_body_or_in_http_1_0_is_ignored() -> None:
    assert upgrade(b"websocket", b"keep-alive") == b""
    assert upgrade(b"websocket", framing=BODY) == b""
    assert upgrade(b"websocket", version=10) == b""
    assert request((b"connection", b"upgrade")).upgrade == b""


def test_a_request_without_framing_has_no_body() -> None:
    assert request().framing is Framing.NONE
    head = request(framing=BODY)
    assert (head.framing, head.length_bytes) == BODY


def test_a_final_response_without_framing_ends_with_its_connection() -> None:
    head = response(200)
    assert head.framing is Framing.CLOSE
    assert not head.keep_alive


@pytest.mark.parametrize(
    ("framing", "kept"),
    [(None, True), ((Framing.LENGTH, 0), True), ((Framing.LENGTH, 5), False), ((Framing.CHUNKED, 0), False)],
)
@pytest.mark.parametrize(
    ("status", "method"), [(200, b"HEAD"), (404, b"HEAD"), (205, b"HEAD"), (304, b"GET"), (304, b"HEAD"), (204, b"GET")]
)
def test_what_has_no_body_but_names_one_is_not_trusted_with_its_connection(
    status: int, method: bytes, framing: tuple[Framing, int] | None, kept: bool
) -> None:
    head = response(status, method=method, framing=framing)
    assert head.framing is Framing.NONE
    assert head.keep_alive is kept


@pytest.mark.parametrize("status", [100, 101, 103, 199])
@pytest.mark.parametrize("framing", [(Framing.LENGTH, 5), (Framing.CHUNKED, 0)])
def test_interim_response_that_declares_a_body_is_refused(status: int, framing: tuple[Framing, int]) -> None:
    with pytest.raises(Malformed, match="interim"):
        response(status, framing=framing)


@pytest.mark.parametrize("status", [100, 103, 199])
@pytest.mark.parametrize("framing", [None, (Framing.LENGTH, 0)])
def test_interim_response_without_a_body_passes(status: int, framing: tuple[Framing, int] | None) -> None:
    assert response(status, framing=framing).framing is Framing.NONE


@pytest.mark.parametrize(
    ("framing", "kept"),
    [((Framing.LENGTH, 0), True), ((Framing.LENGTH, 5), False), ((Framing.CHUNKED, 0), False), (None, False)],
)
def test_205_has_an_empty_body_whatever_it_declares(framing: tuple[Framing, int] | None, kept: bool) -> None:
    head = response(205, framing=framing)
    assert (head.framing, head.length_bytes, head.keep_alive) == (Framing.LENGTH, 0, kept)


@pytest.mark.parametrize(
    ("fields", "accepts"),
    [
        ([(b"te", b"trailers"), (b"connection", b"TE")], True),
        ([(b"te", b"gzip;q=0.5, Trailers"), (b"connection", b"keep-alive, te")], True),
        ([(b"te", b"trailers")], False),
        ([(b"te", b"gzip"), (b"connection", b"te")], False),
        ([(b"connection", b"te")], False),
    ],
)
def test_trailers_are_accepted_by_te_that_connection_names(fields: Fields, accepts: bool) -> None:
    assert request(*fields).accepts_trailers is accepts
    assert request(*fields, version=10).accepts_trailers is False


@pytest.mark.parametrize(("value", "hops"), [(b"0", 0), (b"7", 7), (b"007", 7), (b"000", 0), (b"9" * 5000, 999)])
@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE"])
def test_max_forwards_counts_hops_of_options_and_trace(method: bytes, value: bytes, hops: int) -> None:
    block = make_block([(b"host", b"a"), (b"max-forwards", value)])
    assert make_request_head(method, b"/", 11, block, None).hops_left == hops
    assert make_request_head(b"GET", b"/", 11, block, None).hops_left is None


@pytest.mark.parametrize("values", [[b""], [b"-1"], [b"+1"], [b"1, 2"], [b"x"], [b"1", b"2"], [b"1", b"1"]])
def test_max_forwards_that_is_no_number_is_refused(values: list[bytes]) -> None:
    block = make_block([(b"host", b"a"), *[(b"max-forwards", value) for value in values]])
    with pytest.raises(Malformed, match="Max-Forwards"):
        make_request_head(b"OPTIONS", b"/", 11, block, None)


@pytest.mark.parametrize("framing", [(Framing.LENGTH, 1), (Framing.CHUNKED, 0)])
def test_trace_with_a_body_is_refused(framing: tuple[Framing, int]) -> None:
    with pytest.raises(Malformed, match="TRACE"):
        make_request_head(b"TRACE", b"/", 11, make_block([(b"host", b"a")]), framing)


@pytest.mark.parametrize(
    ("asked", "switched", "is_asked"),
    [
        (b"websocket", b"websocket", True),
        (b"a, b, c", b"b, a", True),
        (b"websocket", b"h2c", False),
        (b"websocket", b"websocket, h2c", False),
        (b"websocket", b"", False),
        (b"websocket", b"websocket,", False),
        (b"", b"websocket", False),
        (b"", b"", False),
    ],
)
def test_switch_is_only_to_what_was_asked_for(asked: bytes, switched: bytes, is_asked: bool) -> None:
    assert is_asked_switch(asked, switched) is is_asked


def test_a_switch_names_its_protocol() -> None:
    fields = ((b"connection", b"Upgrade"), (b"upgrade", b"WebSocket"))
    assert response(101, *fields).upgrade == b"websocket"
    assert response(200, *fields, framing=(Framing.LENGTH, 0)).upgrade == b""
    assert response(101, (b"upgrade", b"websocket")).upgrade == b""
