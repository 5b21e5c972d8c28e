"""Which trailer fields go on, and what of them is announced."""

from __future__ import annotations

import pytest

from minato.protocol.fields import HOP_BY_HOP_NAMES, Fields
from minato.protocol.trailers import announced_trailers, may_be_trailer, passable_trailers

ALLOWED = [b"x-checksum", b"etag", b"server-timing", b"grpc-status", b"content-digest", b"repr-digest", b"signature"]
FORBIDDEN = [
    *[b"content-length", b"transfer-encoding", b"host", b"max-forwards", b"te", b"via", b"trailer", b"connection"],
    *[b"cache-control", b"expect", b"range", b"if-match", b"if-none-match", b"if-modified-since", b"pragma"],
    *[b"authorization", b"proxy-authorization", b"www-authenticate", b"cookie", b"set-cookie", b"proxy-anything"],
    *[b"content-type", b"content-encoding", b"content-range", b"content-anything", b"cdn-cache-control"],
    *[b"age", b"date", b"expires", b"location", b"retry-after", b"vary", b"warning"],
    *[b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x_forwarded_for", b"content_type", b"set_cookie"],
    *[b"x-http-method-override", b"x_original_url", b"x-host", b"x-scheme"],
]


@pytest.mark.parametrize("name", ALLOWED)
def test_what_describes_the_body_may_follow_it(name: bytes) -> None:
    assert may_be_trailer(name)


@pytest.mark.parametrize("name", [*FORBIDDEN, *sorted(HOP_BY_HOP_NAMES)])
def test_what_frames_routes_modifies_or_authenticates_may_not(name: bytes) -> None:
    assert not may_be_trailer(name)


def test_order_and_duplicates_of_passable_trailers_are_kept() -> None:
    trailers: Fields = [(b"x-b", b"1"), (b"set-cookie", b"evil"), (b"x-a", b"2"), (b"x-b", b"3")]
    assert passable_trailers(trailers, []) == [(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3")]


def test_trailers_that_connection_nominates_end_here() -> None:
    head: Fields = [(b"connection", b"X-Mine"), (b"connection", b"close")]
    assert passable_trailers([(b"x-mine", b"1"), (b"x-yours", b"2")], head) == [(b"x-yours", b"2")]


@pytest.mark.parametrize(
    ("head", "announced"),
    [
        ([], b""),
        ([(b"trailer", b"X-A")], b"x-a"),
        ([(b"trailer", b"X-A, Content-Length,, X-B"), (b"trailer", b"Host")], b"x-a, x-b"),
        ([(b"trailer", b"Set-Cookie")], b""),
        ([(b"trailer", b"X-A, X-B"), (b"connection", b"x-a")], b"x-b"),
        ([(b"trailer", b"X-A"), (b"connection", b"trailer")], b""),
    ],
)
def test_only_what_may_come_is_announced(head: Fields, announced: bytes) -> None:
    assert announced_trailers(head) == announced
