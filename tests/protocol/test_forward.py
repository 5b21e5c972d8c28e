"""Forwarding: what Connection nominates goes first, then hop-by-hop fields, then minato puts its own in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import ClientField
from minato.protocol.fields import make_block, strip_hop_by_hop
from minato.protocol.forward import (
    forward_interim_fields,
    forward_request_fields,
    forward_response_fields,
    join_target,
)
from minato.protocol.forwarded import Claims, read_claims
from minato.protocol.message import Fields, Framing, RequestHead, ResponseHead, field_values, first_value, list_members
from tests.protocol.support import read_request

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
CLIENT = b"192.0.2.7"

NAMES = st.sampled_from(
    [
        *[b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"transfer-encoding", b"content-length"],
        *[b"host", b"x-a", b"x-b", b"cookie", b"x-forwarded-for", b"via", b"cache-control", b"date"],
    ]
)
VALUES = st.sampled_from(
    [b"", b"close", b"x-a", b"X-A, x-b", b",, cookie ,", b"connection", b"host, x-forwarded-for", b"via,cache-control"]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def forwarded(
    *lines: bytes, first: bytes = b"GET /x HTTP/1.1", trusted: bool = False, host: bytes = b"Host: Example.com:8080"
) -> Fields:
    head = read_request(b"\r\n".join([first, *([host] if host else []), *lines, b"", b""]))
    claims = claims_of(head) if trusted else None
    return forward_request_fields(head, strip_hop_by_hop(head.fields), CLIENT, claims, b"origin:81")


def claims_of(head: RequestHead) -> Claims:
    believe = ClientField.X_FORWARDED_FOR
    return read_claims(head, CLIENT.decode("ascii"), lambda address: False, believe, sends_forwarded=False)


def response_head(fields: Fields, status: int = 200, version: int = 11) -> ResponseHead:
    return ResponseHead(status, b"x", version, make_block(fields), Framing.NONE, 0, True)


HOP_BY_HOP = [
    *[b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te"],
    *[b"trailer", b"transfer-encoding", b"content-length", b"upgrade", b"http2-settings", b"proxy-authentication-info"],
]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_and_framing_fields_go(name: bytes) -> None:
    assert strip_hop_by_hop([(b"x-a", b"1"), (name, b"v"), (b"x-a", b"2")]) == [(b"x-a", b"1"), (b"x-a", b"2")]


def test_what_connection_nominates_goes_in_any_case_from_every_line() -> None:
    fields: Fields = [
        (b"connection", b"X-One, close"),
        (b"x-one", b"1"),
        (b"connection", b" ,x-two,"),
        (b"x-two", b"2"),
        (b"x-three", b"3"),
        (b"x-one", b"4"),
    ]
    assert strip_hop_by_hop(fields) == [(b"x-three", b"3")]


@pytest.mark.parametrize(
    "name",
    [
        *[b"host", b"cache-control", b"expect", b"date", b"vary", b"age", b"expires", b"pragma", b"etag", b"via"],
        *[b"last-modified", b"content-encoding", b"content-type", b"content-range", b"set-cookie", b"cache-tag"],
        *[b"minato-cache-control", b"cdn-cache-control", b"surrogate-control", b"location", b"content-location"],
        *[b"authorization", b"cookie", b"range", b"if-match", b"if-none-match", b"if-modified-since", b"if-range"],
        *[b"if-unmodified-since", b"x-forwarded-for", b"x-forwarded-port", b"forwarded", b"x-real-ip"],
    ],
)
def test_what_nobody_may_strip_stays(name: bytes) -> None:
    fields = [(b"connection", b"x-a, " + name.title()), (name, b"v")]
    assert strip_hop_by_hop(fields) == [(name, b"v")]
    assert (name + b": v\r\n") in make_block(fields).downstream_wire


@given(FIELDS)
def test_stripping_twice_changes_nothing(fields: Fields) -> None:
    once = strip_hop_by_hop(fields)
    assert strip_hop_by_hop(once) == once


@given(FIELDS)
def test_stripping_keeps_order_and_adds_nothing(fields: Fields) -> None:
    rest = iter(fields)
    assert all(line in rest for line in strip_hop_by_hop(fields))


@given(FIELDS, st.booleans(), st.sampled_from([b"close", b"x-forwarded-for, x-forwarded-host, x-forwarded-proto, via"]))
def test_no_nomination_strips_what_minato_adds(fields: Fields, trusted: bool, nominated: bytes) -> None:
    fields = [(b"connection", nominated), *[line for line in fields if line[0] != b"host"], (b"host", b"a")]
    head = RequestHead(b"GET", b"/", 11, make_block(fields), Framing.NONE, 0, b"a", b"/", True)
    out = forward_request_fields(
        head, strip_hop_by_hop(fields), CLIENT, claims_of(head) if trusted else None, b"origin"
    )
    assert field_values(out, b"host") == [b"a"]
    assert field_values(out, b"via")[-1] == b"1.1 minato"
    (addresses,) = field_values(out, b"x-forwarded-for")
    assert addresses.split(b", ")[-1] == CLIENT
    assert field_values(out, b"x-forwarded-proto") == [b"http"]
    assert field_values(out, b"x-forwarded-host") == [b"a"]
    assert not set(HOP_BY_HOP) & {name for name, _ in out}


def test_host_goes_first_and_as_the_client_spelt_it() -> None:
    assert forwarded(b"x-a: 1")[0] == (b"host", b"Example.com:8080")


def test_absolute_form_overrides_host() -> None:
    out = forwarded(first=b"GET http://Other.example/x HTTP/1.1")
    assert field_values(out, b"host") == [b"Other.example"]
    assert field_values(out, b"x-forwarded-host") == [b"Other.example"]


def test_http_1_0_without_host_gets_the_upstreams() -> None:
    out = forwarded(first=b"GET / HTTP/1.0", host=b"")
    assert field_values(out, b"host") == [b"origin:81"]
    assert field_values(out, b"x-forwarded-host") == []
    assert field_values(out, b"via") == [b"1.0 minato"]


SPOOFED = (
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-For: 10.0.0.2",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: h",
)


def test_forwarded_fields_of_strangers_are_replaced() -> None:
    out = forwarded(*SPOOFED)
    assert field_values(out, b"x-forwarded-for") == [CLIENT]
    assert field_values(out, b"x-forwarded-proto") == [b"http"]
    assert field_values(out, b"x-forwarded-host") == [b"Example.com:8080"]


def test_forwarded_fields_of_trusted_proxies_are_continued() -> None:
    out = forwarded(*SPOOFED, trusted=True)
    assert field_values(out, b"x-forwarded-for") == [b"10.0.0.1, 10.0.0.2, " + CLIENT]
    assert field_values(out, b"x-forwarded-proto") == [b"https"]
    assert field_values(out, b"x-forwarded-host") == [b"h"]


def test_a_trusted_proxy_that_sends_none_gets_them_like_anybody() -> None:
    assert forwarded(trusted=True) == forwarded(trusted=False)


def test_via_is_appended_behind_those_received() -> None:
    assert field_values(forwarded(b"Via: 1.0 fred"), b"via") == [b"1.0 fred", b"1.1 minato"]


def test_an_upgrade_is_asked_for_anew() -> None:
    out = forwarded(b"Connection: Upgrade, X-A", b"Upgrade: WebSocket", b"X-A: 1", b"Sec-WebSocket-Key: k")
    assert field_values(out, b"connection") == [b"upgrade"]
    assert field_values(out, b"upgrade") == [b"WebSocket"]
    assert field_values(out, b"x-a") == []
    assert field_values(out, b"sec-websocket-key") == [b"k"]


def test_an_upgrade_to_h2c_does_not_get_through() -> None:
    out = forwarded(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA")
    assert not {name for name, _ in out} & {b"connection", b"upgrade", b"http2-settings"}


def test_a_response_loses_hop_by_hop_fields_and_gains_via() -> None:
    fields = [
        (b"connection", b"x-a"),
        (b"x-a", b"1"),
        (b"date", DATE),
        (b"content-length", b"3"),
        (b"set-cookie", b"a=b"),
    ]
    out = forward_response_fields(b"GET", response_head(fields), b"now")
    assert out == [(b"date", DATE), (b"set-cookie", b"a=b"), (b"via", b"1.1 minato")]


def test_a_response_without_date_gets_one() -> None:
    assert field_values(forward_response_fields(b"GET", response_head([], version=10), DATE), b"date") == [DATE]


@pytest.mark.parametrize(
    ("method", "status", "kept"),
    [(b"HEAD", 200, True), (b"GET", 304, True), (b"GET", 200, False), (b"GET", 204, False)],
)
def test_only_head_and_304_keep_the_length_of_what_is_not_sent(method: bytes, status: int, kept: bool) -> None:
    out = forward_response_fields(method, response_head([(b"content-length", b"9")], status), DATE)
    assert (first_value(out, b"content-length") == b"9") is kept


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 304)])
def test_the_length_of_what_is_not_sent_is_spelt_without_leading_zeros(method: bytes, status: int) -> None:
    out = forward_response_fields(method, response_head([(b"content-length", b"009")], status), DATE)
    assert field_values(out, b"content-length") == [b"9"]


def test_an_interim_response_is_stripped_too() -> None:
    fields = [(b"link", b"</a>"), (b"connection", b"x-a"), (b"x-a", b"1"), (b"transfer-encoding", b"chunked")]
    head = response_head(fields, status=103, version=10)
    assert forward_interim_fields(head) == [(b"link", b"</a>"), (b"via", b"1.0 minato")]


@pytest.mark.parametrize(
    ("prefix", "query", "path", "target"),
    [
        (b"", b"", b"/", b"/"),
        (b"", b"", b"/a?b", b"/a?b"),
        (b"/base", b"", b"/", b"/base/"),
        (b"/base", b"", b"/a?b", b"/base/a?b"),
        (b"/base", b"", b"//a", b"/base//a"),
        (b"", b"k=v", b"/a", b"/a?k=v"),
        (b"", b"k=v", b"/a?", b"/a?k=v"),
        (b"", b"k=v", b"/a?b=c?d", b"/a?k=v&b=c?d"),
        (b"/base", b"k=v", b"/?b", b"/base/?k=v&b"),
        (b"/base", b"k=v", b"*", b"*"),
    ],
)
def test_the_upstreams_path_and_query_go_in_front(prefix: bytes, query: bytes, path: bytes, target: bytes) -> None:
    assert join_target(prefix, query, path) == target


def test_list_members_are_lower_case_and_never_empty() -> None:
    fields: Fields = [(b"a", b"X, ,y\t,"), (b"b", b"no"), (b"a", b""), (b"a", b"Z")]
    assert list_members(fields, b"a") == [b"x", b"y", b"z"]
