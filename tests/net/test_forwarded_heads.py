"""Heads on their way through: large ones, and fields that say on behalf of whom a proxy forwards."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from minato.config.model import CacheConfig, Limits, Timeouts
from tests.net.proxy import OriginMaker, ProxyMaker, hello
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
        assert [request.get(name.lower()) for name, _ in CLAIMS[1:]] == [value for _, value in CLAIMS[1:]]


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
