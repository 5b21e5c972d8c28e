"""Upstreams that are spoken to by the PROXY protocol: one connection for each exchange, the right client on each."""

from __future__ import annotations

import ssl
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
import trustme

from minato.config.model import BalancerKind, CacheConfig, Config, HostRule, ListenAddress, ProxyProtocol, Service
from minato.config.model import Upstream as UpstreamConfig
from minato.net.runtime import build_services
from minato.protocol.proxy_protocol import Endpoints, ProxyHeader, read_proxy_header, render_proxy_header
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.system.harness import Origin, OriginConnection, request_bytes

VERSIONS = pytest.mark.parametrize("version", list(ProxyProtocol), ids=["v1", "v2"])
CODECS = pytest.mark.parametrize("express", [True, False])


class Introduced:
    """A script for an origin that reads a PROXY header first and keeps it."""

    def __init__(self, answer: bytes = hello()) -> None:
        self.headers: list[ProxyHeader] = []
        self._answer = answer

    def __call__(self, connection: OriginConnection) -> None:
        self.read_header(connection)
        while connection.read_request() is not None:
            connection.send(self._answer)

    def read_header(self, connection: OriginConnection) -> None:
        source = connection._source
        while (header := read_proxy_header(bytes(source.buffer))) is None:
            assert source.fill()
        source.take(header.size_bytes)
        self.headers.append(header)

    @property
    def endpoints(self) -> list[Endpoints | None]:
        return [header.endpoints for header in self.headers]


def start(proxy: ProxyMaker, there: Origin, version: ProxyProtocol, **options: Any) -> Proxy:
    return proxy(there, upstream={"proxy_protocol": version}, **options)


@VERSIONS
@CODECS
def test_each_exchange_has_a_connection_that_begins_with_its_client(
    origin: OriginMaker, proxy: ProxyMaker, version: ProxyProtocol, express: bool
) -> None:
    script = Introduced()
    there = origin(script)
    here = start(proxy, there, version, express=express)
    expected = []
    for _ in range(2):
        with here.client() as client:
            for _ in range(2):
                assert client.request().body == b"hello"
                expected.append(Endpoints(*client.sock.getsockname(), "127.0.0.1", here.port))
            post = client.request(b"POST", body=b"x" * 100_000)
            assert post.status == 200
            expected.append(expected[-1])
    assert script.endpoints == expected
    assert here.call(lambda: len(here.server._context.pool)) == 0


@VERSIONS
def test_the_client_that_a_header_told_is_passed_on(
    origin: OriginMaker, proxy: ProxyMaker, version: ProxyProtocol
) -> None:
    script = Introduced()
    here = start(proxy, origin(script), version, service={"proxy_protocol": True})
    told = Endpoints("2001:db8::1", 1234, "2001:db8::2", 443)
    for header in (render_proxy_header(2, told), render_proxy_header(1, None)):
        with here.client() as client:
            client.send(header + request_bytes())
            assert client.receive().status == 200
            own = Endpoints(*client.sock.getsockname(), "127.0.0.1", here.port)
    assert script.endpoints == [told, own]


@VERSIONS
def test_the_client_behind_a_trusted_proxy_is_told_without_a_port(
    origin: OriginMaker, proxy: ProxyMaker, version: ProxyProtocol
) -> None:
    script = Introduced()
    here = start(proxy, origin(script), version, trusted_proxies=(ip_network("127.0.0.0/8"),))
    with here.client() as client:
        for address in (b"192.0.2.1", b"2001:db8::1"):
            assert client.request(fields=[(b"X-Forwarded-For", address)]).status == 200
        assert client.request().status == 200
        own = Endpoints(*client.sock.getsockname(), "127.0.0.1", here.port)
    ports = 0, "127.0.0.1", here.port
    assert script.endpoints == [Endpoints("192.0.2.1", *ports), Endpoints("2001:db8::1", *ports), own]


@VERSIONS
def test_a_validation_that_no_client_waits_for_is_on_nobodys_behalf(
    origin: OriginMaker, proxy: ProxyMaker, version: ProxyProtocol
) -> None:
    script = Introduced(hello(b"hello", b"Cache-Control: max-age=0, stale-while-revalidate=60", b'ETag: "x"'))
    there = origin(script)
    here = start(proxy, there, version, cache=CacheConfig(enabled=True))
    with here.client() as client:
        assert [client.request().status for _ in range(2)] == [200, 200]
        there.wait_for(lambda: len(script.headers) == 2, "the validation")
    assert script.endpoints[1] is None


@VERSIONS
def test_the_header_goes_before_tls(
    origin: OriginMaker, proxy: ProxyMaker, version: ProxyProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("minato.net.context.ssl.create_default_context", lambda: trusting)
    script = Introduced()

    def speak_tls(connection: OriginConnection) -> None:
        script.read_header(connection)
        plain = connection.sock
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(bytes(connection._source.buffer))
        tls = server.wrap_bio(incoming, outgoing, server_side=True)
        received = b""
        while b"\r\n\r\n" not in received:
            try:
                received += tls.read(65_536)
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65_536))
        tls.write(hello(b"by tls"))
        plain.sendall(outgoing.read())

    here = proxy(origin(speak_tls), upstream={"scheme": "https", "proxy_protocol": version})
    with here.client() as client:
        assert client.request().body == b"by tls"
        own = Endpoints(*client.sock.getsockname(), "127.0.0.1", here.port)
    assert script.endpoints[-1] == own


def test_a_server_that_is_spoken_to_in_several_ways_has_a_pool_for_each() -> None:
    plain = UpstreamConfig("http://u", "http", "u", 80)
    ways = [
        plain,
        replace(plain, proxy_protocol=ProxyProtocol.V1),
        replace(plain, proxy_protocol=ProxyProtocol.V2),
        plain,
    ]
    services = tuple(
        Service(str(number), ListenAddress("", 80), BalancerKind.ROUND_ROBIN, (HostRule(str(number), "/"),), (way,))
        for number, way in enumerate(ways)
    )
    built = build_services(Config("x", services), 0, {}, lambda column: 0)
    assert [service.upstreams[0].origin for service in built] == [0, 1, 2, 0]
    assert [service.upstreams[0].proxy_protocol for service in built] == [0, 1, 2, 0]
