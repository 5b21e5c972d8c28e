"""Heads on their way through: large ones, and fields that say on behalf of whom a proxy forwards."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import cast

import pytest

from minato.config.model import CacheConfig, Limits, Timeouts
from minato.net.client import Client
from minato.net.context import WorkerContext
from minato.net.forwarding import render_upstream_request
from minato.protocol.forward import join_target
from minato.protocol.message import RequestHead
from tests.net.proxy import OriginMaker, ProxyMaker, hello
from tests.net.upstream_bench import upstream_of
from tests.protocol.differential import Worker
from tests.system.harness import request_bytes
from tests.system.harness.origin import respond_always

CODECS = pytest.mark.parametrize("express", [True, False])
CLAIMS = [
    (b"X-Forwarded-For", b"6.6.6.6"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"evil.test"),
    (b"X-Forwarded-Port", b"666"),
    (b"X-Forwarded-Prefix", b"/evil"),
    (b"X-Forwarded-Server", b"evil"),
    (b"X-Forwarded-Ssl", b"on"),
    (b"Forwarded", b"for=6.6.6.6;host=evil.test"),
    (b"X-Real-IP", b"6.6.6.6"),
    (b"X_Forwarded_For", b"7.7.7.7"),
    (b"X-Forwarded_Port", b"777"),
    (b"X_Real_IP", b"7.7.7.7"),
]
BELIEVED = [claim for claim in CLAIMS[1:] if claim[0] != b"Forwarded" and b"_" not in claim[0]]
OWN = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}
TRUSTED = (ip_network("127.0.0.0/8"),)


@CODECS
@pytest.mark.parametrize("cached", [False, True])
def test_what_a_stranger_claims_to_forward_does_not_reach_the_upstream(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, cached: bool
) -> None:
    there = origin(respond_always(hello(b"hello", b"Cache-Control: max-age=0", b"ETag: x")))
    here = proxy(there, express=express, cache=CacheConfig(enabled=cached), trusted_proxies=(ip_network("192.0.2.1"),))
    with here.client() as client:
        for _ in range(3):
            client.request(fields=[*CLAIMS, (b"X-Other", b"stays")])
    for request in there.requests:
        assert {name for name, _ in CLAIMS if request.values(name.lower())} == {name for name, _ in CLAIMS[:3]}
        assert [request.get(name) for name in sorted(OWN)] == [b"127.0.0.1", b"test.local", b"http"]
        assert request.get(b"x-other") == b"stays"


@CODECS
@pytest.mark.parametrize("cached", [False, True])
def test_what_a_trusted_proxy_says_reaches_the_upstream(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, cached: bool
) -> None:
    there = origin(respond_always(hello(b"hello", b"Cache-Control: max-age=0", b"ETag: x")))
    here = proxy(there, express=express, cache=CacheConfig(enabled=cached), trusted_proxies=TRUSTED)
    with here.client() as client:
        for _ in range(3):
            client.request(fields=CLAIMS)
    for request in there.requests:
        assert request.get(b"x-forwarded-for") == b"6.6.6.6, 127.0.0.1"
        assert [request.get(name.lower()) for name, _ in BELIEVED] == [value for _, value in BELIEVED]
        # What a proxy passes on that knows only X-Forwarded-*: another field that says the same, and misspelt ones.
        assert not [
            name for name, _ in CLAIMS if (name == b"Forwarded" or b"_" in name) and request.values(name.lower())
        ]


@CODECS
def test_a_head_within_a_raised_limit_passes(origin: OriginMaker, proxy: ProxyMaker, express: bool) -> None:
    there = origin(respond_always(hello()))
    limits, timeouts = Limits(header_bytes=200_000), Timeouts(client_header_s=5.0)
    with proxy(there, express=express, limits=limits, timeouts=timeouts).client() as client:
        fields = [(b"X-%d" % number, b"y" * 10_000) for number in range(12)]
        client.send(request_bytes(fields=fields) * 2)
        assert [client.receive().status for _ in range(2)] == [200, 200]
    for request in there.requests:
        assert [request.get(name.lower()) for name, _ in fields] == [value for _, value in fields]


@CODECS
@pytest.mark.parametrize(
    "fields",
    [
        [(b"X-%d" % number, b"1") for number in range(101)],
        [(b"X-%d" % number, b"1") for number in range(399)],
        [(b"Set-Cookie", b"a%d=" % number + b"z" * 3900) for number in range(9)],
    ],
    ids=["101 fields", "400 fields", "35 KB"],
)
def test_a_large_head_of_an_upstream_passes(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, fields: list[tuple[bytes, bytes]]
) -> None:
    lines = [b"%b: %b" % field for field in fields]  # and a Content-Length
    with proxy(origin(respond_always(hello(b"hello", *lines))), express=express).client() as client:
        for _ in range(2):
            response = client.request()
            assert (response.status, response.body) == (200, b"hello")
            assert [(name, value) for name, value in response.fields if name in (b"set-cookie", b"x-7", b"x-100")] == [
                (name.lower(), value) for name, value in fields if name in (b"Set-Cookie", b"X-7", b"X-100")
            ]


@CODECS
@pytest.mark.parametrize(
    "lines",
    [[b"X-%d: 1" % number for number in range(401)], [b"X-%d: " % number + b"z" * 8000 for number in range(9)]],
    ids=["402 fields", "72 KB"],
)
def test_a_head_of_an_upstream_beyond_all_measure_is_502(
    origin: OriginMaker, proxy: ProxyMaker, express: bool, lines: list[bytes]
) -> None:
    with proxy(origin(respond_always(hello(b"hello", *lines))), express=express, retries=0).client() as client:
        assert client.request().status == 502


# -- heads that are kept as they were rendered


def known_head(wire: bytes) -> RequestHead:
    """Return a head that is kept and shared."""
    worker = Worker(Limits())
    heads = [worker.server_codec().read_whole(wire) for _ in range(3)]
    assert heads[2] is not None
    assert heads[2].memo is not None
    return heads[2]


def context_of() -> WorkerContext:
    return cast(WorkerContext, SimpleNamespace(sends_forwarded=False))


def stranger(address: bytes = b"192.0.2.1") -> Client:
    return cast(Client, SimpleNamespace(peer_bytes=address, claims=None))


PLACES = [
    upstream_of(),
    replace(upstream_of(), prefix=b"/one"),
    replace(upstream_of(), query=b"two=2"),
    replace(upstream_of(), prefix=b"/one", query=b"two=2"),
]
COOKIE_LINES = [[], [(b"Cookie", b"a=1")]]


@pytest.mark.parametrize("fields", COOKIE_LINES)
def test_a_kept_head_goes_to_each_upstream_with_its_own_target_and_for_each_client(
    fields: list[tuple[bytes, bytes]],
) -> None:
    wire = request_bytes(target=b"/x?y", fields=[(b"Accept", b"x"), *fields])
    head = known_head(wire)
    for _ in range(2):
        for client in (b"192.0.2.1", b"192.0.2.2", b"192.0.2.1"):
            for upstream in (*PLACES, *reversed(PLACES)):
                fresh = replace(head, memo=None)
                rendered = render_upstream_request(context_of(), stranger(client), head, upstream)
                assert rendered == render_upstream_request(context_of(), stranger(client), fresh, upstream)
                assert b"x-forwarded-for: " + client in rendered
                assert rendered.startswith(b"GET " + join_target(upstream.prefix, upstream.query, b"/x?y") + b" ")


@pytest.mark.parametrize("fields", COOKIE_LINES)
@pytest.mark.parametrize("first", ["as received", "altered"])
def test_what_the_cache_alters_of_a_kept_head_goes_on_that_once(fields: list[tuple[bytes, bytes]], first: str) -> None:
    head = known_head(request_bytes(fields=[(b"Accept", b"x"), *fields]))
    altered = [*head.block.end_to_end, (b"if-none-match", b'"1"')]
    for number in range(4):
        is_altered = bool(number % 2) == (first == "as received")
        given = altered if is_altered else None
        wire = render_upstream_request(context_of(), stranger(), head, PLACES[0], given)
        assert (b"if-none-match" in wire) == is_altered


@pytest.mark.parametrize("fields", COOKIE_LINES)
def test_another_target_for_a_kept_head_goes_on_that_once(fields: list[tuple[bytes, bytes]]) -> None:
    head = known_head(request_bytes(target=b"/x?a=1&b=2", fields=[(b"Accept", b"x"), *fields]))
    for number in range(4):
        target = b"/x?a=1" if number % 2 else None
        wire = render_upstream_request(context_of(), stranger(), head, PLACES[0], None, target)
        assert wire.startswith(b"GET %b HTTP/1.1\r\n" % (target or b"/x?a=1&b=2"))


CAPABILITY = b'surrogate-capability: minato="Surrogate/1.0"\r\n'


@pytest.mark.parametrize("fields", COOKIE_LINES)
def test_upstreams_learn_of_the_cache_where_there_is_one(fields: list[tuple[bytes, bytes]]) -> None:
    wire = request_bytes(fields=[(b"Accept", b"x"), *fields])
    for is_cached in (False, True):
        head = known_head(wire)
        for altered in (None, head.block.end_to_end, None):
            rendered = render_upstream_request(context_of(), stranger(), head, PLACES[0], altered, is_cached=is_cached)
            assert rendered.count(CAPABILITY) == is_cached


def test_a_capability_of_another_surrogate_is_continued() -> None:
    fields = [(b"Surrogate-Capability", b'one="Surrogate/1.0"'), (b"Surrogate-Capability", b'two="ESI/1.0"')]
    head = known_head(request_bytes(fields=fields))
    rendered = render_upstream_request(context_of(), stranger(), head, PLACES[0], is_cached=True)
    expected = b'surrogate-capability: one="Surrogate/1.0", two="ESI/1.0", minato="Surrogate/1.0"\r\n'
    assert rendered.count(expected) == 1
    assert rendered.lower().count(b"surrogate-capability") == 1
    plain = render_upstream_request(context_of(), stranger(), replace(head, memo=None), PLACES[0])
    assert b"minato=" not in plain
