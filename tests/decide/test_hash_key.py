"""What of a request is hashed: the same for what is the same, and the client's address where nothing is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.config.affinity import HashBy, HashConfig
from minato.decide.hash_key import make_key_of
from minato.protocol.fields import Fields, make_block
from minato.protocol.message import Framing, RequestHead

CLIENT = "192.0.2.7"


def head_of(path: bytes = b"/", host: bytes = b"example.com", fields: Fields | None = None) -> RequestHead:
    block = make_block([(b"host", host), *(fields or [])])
    return RequestHead(b"GET", path, 11, block, Framing.NONE, 0, host, path, True)


def key(by: HashBy, name: str = "", **head: object) -> bytes:
    return make_key_of(HashConfig(by, name))(head_of(**head), CLIENT)  # type: ignore[arg-type]


def test_the_url_is_host_path_and_query() -> None:
    keys = {
        key(HashBy.URL, path=path, host=host) for path in (b"/a", b"/b", b"/a?x=1", b"/a?x=2") for host in (b"h", b"i")
    }
    assert len(keys) == 8


def test_the_path_is_without_query_and_host() -> None:
    keys = {key(HashBy.PATH, path=path, host=host) for path in (b"/a", b"/a?x=1", b"/a?") for host in (b"h", b"i")}
    assert keys == {b"/a"}


def test_the_client_is_its_address() -> None:
    assert key(HashBy.CLIENT, path=b"/a") == CLIENT.encode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([(b"x-user", b"kay")], b"kay"),
        ([(b"x-user", b"kay"), (b"x-user", b"lou")], b"kay"),
        ([(b"x-users", b"kay")], CLIENT.encode()),
        ([(b"x-user", b"")], CLIENT.encode()),
        ([], CLIENT.encode()),
    ],
)
def test_the_header_is_its_first_value_else_the_client(fields: Fields, expected: bytes) -> None:
    assert key(HashBy.HEADER, "x-user", fields=fields) == expected


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        ([b"sid=1"], b"1"),
        ([b"a=b; sid=1"], b"1"),
        ([b"a=b;sid=1;c=d"], b"1"),
        ([b"sid=1 ; a=b"], b"1"),
        ([b"sid=a=b"], b"a=b"),
        ([b"sid=1; sid=2"], b"1"),
        ([b"a=b", b"sid=2"], b"2"),
        ([b'sid="1"'], b'"1"'),
        ([b"sid="], CLIENT.encode()),
        ([b"sid= ; a=b"], CLIENT.encode()),
        ([b"xsid=1"], CLIENT.encode()),
        ([b"a=sid=1"], CLIENT.encode()),
        ([b"SID=1"], CLIENT.encode()),
        ([b"sid"], CLIENT.encode()),
        ([], CLIENT.encode()),
    ],
)
def test_the_cookie_is_found_among_others_else_the_client(cookies: list[bytes], expected: bytes) -> None:
    assert key(HashBy.COOKIE, "sid", fields=[(b"cookie", value) for value in cookies]) == expected


@pytest.mark.parametrize("name", ["a.b", "a+b", "a|b", "a*", "$x", "a^b"])
def test_the_name_of_a_cookie_is_no_pattern(name: str) -> None:
    assert key(HashBy.COOKIE, name, fields=[(b"cookie", b"aXb=0; aab=0; ab=0; x=0")]) == CLIENT.encode()
    assert key(HashBy.COOKIE, name, fields=[(b"cookie", name.encode() + b"=1")]) == b"1"


@given(st.binary(max_size=60), st.sampled_from(list(HashBy)))
def test_any_cookie_field_gives_a_key_and_always_the_same(value: bytes, by: HashBy) -> None:
    name = "sid" if by in (HashBy.HEADER, HashBy.COOKIE) else ""
    fields = [(b"cookie", value), (b"sid", value)]
    first = key(by, name, fields=fields)
    assert first
    assert first == key(by, name, fields=fields)
