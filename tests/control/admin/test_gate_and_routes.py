"""Who may ask, where, how, and with what: every refusal has its status."""

from __future__ import annotations

import pytest

from minato.config.model import Limits
from minato.control.admin.answer import Answer, Refused
from minato.control.admin.gate import check_sender
from minato.control.admin.routes import Route, find_route
from minato.protocol.h11_codec import H11ServerCodec
from minato.protocol.message import RequestHead

ROUTES = {
    b"/health": Route(b"GET", lambda body, reply: reply(Answer(200, {}))),
    b"/purge": Route(b"POST", lambda body, reply: reply(Answer(200, {}))),
}
JSON = b"Content-Type: application/json"


def head(line: bytes, *fields: bytes, host: bytes = b"127.0.0.1:9180") -> RequestHead:
    codec = H11ServerCodec(Limits())
    codec.feed(b"\r\n".join([line + b" HTTP/1.1", b"Host: " + host, *fields]) + b"\r\n\r\n")
    event = codec.next_event()
    assert isinstance(event, RequestHead)
    return event


def status_of(request: RequestHead) -> int:
    """200 where it may pass."""
    try:
        check_sender(request)
        find_route(ROUTES, request)
    except Refused as refused:
        return refused.answer.status
    return 200


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1",
        b"127.0.0.1:9180",
        b"10.1.2.3:1",
        b"[::1]",
        b"[::1]:9180",
        b"localhost",
        b"LocalHost:9180",
        b"localhost.",
    ],
)
def test_addresses_and_localhost_may_be_asked_for(host: bytes) -> None:
    assert status_of(head(b"GET /health", host=host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:9180",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example",
        b"1",
        b"0x7f.1",
        b"127.1",
        b"notlocalhost",
    ],
)
def test_names_may_not_since_they_may_be_rebound(host: bytes) -> None:
    assert status_of(head(b"GET /health", host=host)) == 421
    assert status_of(head(b"POST /purge", JSON, host=host)) == 421


def test_name_in_an_absolute_target_is_no_way_around() -> None:
    assert status_of(head(b"GET http://evil.example/health")) == 421


@pytest.mark.parametrize(
    "field",
    [
        b"Origin: http://evil.example",
        b"Origin: null",
        b"Origin:",
        b"Origin: http://127.0.0.1",
        b"Origin: http://127.0.0.1:8080",
        b"Origin: https://127.0.0.1:9180",
        b"Sec-Fetch-Site: cross-site",
        b"Sec-Fetch-Site: same-site",
    ],
)
def test_pages_of_other_origins_may_not_ask(field: bytes) -> None:
    assert status_of(head(b"POST /purge", JSON, field)) == 403
    assert status_of(head(b"GET /health", field)) == 403


@pytest.mark.parametrize(
    "field", [b"Origin: http://127.0.0.1:9180", b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Site: none"]
)
def test_pages_of_its_own_may_ask(field: bytes) -> None:
    assert status_of(head(b"POST /purge", JSON, field)) == 200


@pytest.mark.parametrize(
    "value",
    [b"application/json", b"Application/JSON", b"application/json; charset=utf-8", b'application/json;charset="UTF-8"'],
)
def test_json_is_taken(value: bytes) -> None:
    assert status_of(head(b"POST /purge", b"Content-Type: " + value)) == 200


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Content-Type:",),
        (b"Content-Type: text/plain",),
        (b"Content-Type: application/x-www-form-urlencoded",),
        (b"Content-Type: multipart/form-data; boundary=application/json",),
        (b"Content-Type: text/plain; application/json",),
        (b"Content-Type: application/json; charset=latin1",),
        (b"Content-Type: application/jsonp",),
        (JSON, b"Content-Type: text/plain"),
    ],
)
def test_what_a_form_can_send_is_not(fields: tuple[bytes, ...]) -> None:
    assert status_of(head(b"POST /purge", *fields)) == 415


@pytest.mark.parametrize("target", [b"/", b"/purge/", b"/Purge", b"//purge", b"/%70urge", b"/healthz", b"/purge;x"])
def test_other_paths_are_not_there(target: bytes) -> None:
    assert status_of(head(b"POST " + target, JSON)) == 404


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        (b"GET /purge", b"POST"),
        (b"OPTIONS /purge", b"POST"),
        (b"PURGE /purge", b"POST"),
        (b"POST /health", b"GET, HEAD"),
        (b"DELETE /health?x", b"GET, HEAD"),
    ],
)
def test_other_methods_are_told_which_there_are(line: bytes, allowed: bytes) -> None:
    with pytest.raises(Refused) as refused:
        find_route(ROUTES, head(line, JSON))
    assert (refused.value.answer.status, refused.value.answer.fields) == (405, ((b"allow", allowed),))


def test_get_takes_head_and_a_query_is_not_looked_at() -> None:
    assert status_of(head(b"HEAD /health?x=1")) == 200
