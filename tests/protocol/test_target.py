"""Targets and Host: one authority and one path, or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.protocol.guard import Malformed
from minato.protocol.target import check_authority, resolve_target


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"example.com", b"example.com"),
        (b"EXAMPLE.com:8080", b"example.com:8080"),
        (b"example.com:", b"example.com:"),
        (b"a_b.c-d~e", b"a_b.c-d~e"),
        (b"127.0.0.1:0", b"127.0.0.1:0"),
        (b"[::1]", b"[::1]"),
        (b"[FE80::1]:443", b"[fe80::1]:443"),
        (b"[::ffff:127.0.0.1]:80", b"[::ffff:127.0.0.1]:80"),
        (b"a%C3%A9b", b"a%c3%a9b"),
        (b"a:65535", b"a:65535"),
    ],
)
def test_a_valid_authority_comes_back_in_lower_case(authority: bytes, expected: bytes) -> None:
    assert check_authority(authority) == expected


@pytest.mark.parametrize(
    "authority",
    [
        b"",
        b":80",
        b"a:b",
        b"a:80:80",
        b"a:65536",
        b"a:99999",
        b"a:123456",
        b"a:-1",
        b"a b",
        b"a/b",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"user@a",
        b"a@b",
        b"a<b>",
        b'a"b',
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[a]b",
        b"[::1%25eth0]",
        b"[v1.x]",
        b"a%zz",
        b"a%4",
        b"\xc3\xa9.example",
        b"a\x00b",
        b"a\tb",
    ],
)
def test_an_invalid_authority_is_400(authority: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        check_authority(authority)
    assert caught.value.status == 400


@given(st.text("a.:[]%@-1F\\/ ", max_size=24).map(str.encode))
def test_an_authority_never_holds_what_ends_one(authority: bytes) -> None:
    try:
        checked = check_authority(authority)
    except Malformed:
        return
    assert checked == authority.lower()
    assert not set(checked) & set(b"/\\@ ?#")


@pytest.mark.parametrize(
    ("method", "target", "host", "expected"),
    [
        (b"GET", b"/", b"A:80", (b"a:80", b"/")),
        (b"GET", b"/a?b=c", b"a", (b"a", b"/a?b=c")),
        (b"GET", b"//b/c", b"a", (b"a", b"//b/c")),
        (b"OPTIONS", b"*", b"a", (b"a", b"*")),
        (b"GET", b"http://B.example:81/x?y", b"a", (b"b.example:81", b"/x?y")),
        (b"GET", b"HTTP://b", b"a", (b"b", b"/")),
        (b"GET", b"http://b?x", b"a", (b"b", b"/?x")),
        (b"OPTIONS", b"http://b", b"a", (b"b", b"*")),
        (b"OPTIONS", b"http://b/", b"a", (b"b", b"/")),
        (b"OPTIONS", b"http://b?x", b"a", (b"b", b"/?x")),
    ],
)
def test_a_target_resolves(method: bytes, target: bytes, host: bytes, expected: tuple[bytes, bytes]) -> None:
    assert resolve_target(method, target, [host], 11) == expected


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"*"),
        (b"GET", b"a"),
        (b"GET", b"a:80"),
        (b"GET", b"?x"),
        (b"GET", b"http:/b"),
        (b"GET", b"http:///x"),
        (b"GET", b"http://"),
        (b"GET", b"http://a@b/"),
        (b"GET", b"http://b:99999/"),
        (b"GET", b"https://b/"),
        (b"GET", b"ftp://b/"),
        (b"GET", b"/a#b"),
        (b"GET", b"http://b/#c"),
        (b"GET", b"http://b#c"),
        (b"GET", b"**"),
        (b"GET", b"\\a"),
    ],
)
def test_a_target_of_no_form_is_400(method: bytes, target: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        resolve_target(method, target, [b"a"], 11)
    assert caught.value.status == 400


@pytest.mark.parametrize("target", [b"b:443", b"/", b"http://b/"])
def test_connect_is_501(target: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        resolve_target(b"CONNECT", target, [b"b:443"], 11)
    assert caught.value.status == 501


@pytest.mark.parametrize("target", [b"/", b"http://b/"])
@pytest.mark.parametrize(
    ("hosts", "version"),
    [([], 11), ([b"a", b"a"], 11), ([b"a", b"b"], 10), ([b""], 11), ([b"a, b"], 11), ([b"a b"], 10)],
)
def test_missing_double_or_invalid_host_is_400_even_with_an_absolute_target(
    target: bytes, hosts: list[bytes], version: int
) -> None:
    with pytest.raises(Malformed) as caught:
        resolve_target(b"GET", target, hosts, version)
    assert caught.value.status == 400


def test_http_1_0_needs_no_host() -> None:
    assert resolve_target(b"GET", b"/x", [], 10) == (b"", b"/x")
    assert resolve_target(b"GET", b"http://b/x", [], 10) == (b"b", b"/x")
