"""Hits without an exchange for different clients and ports, and on connections that end, stall or wait."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from minato.config.model import Config, ListenAddress, Service, Timeouts
from minato.net.bound import BoundListener
from minato.net.resolve import ResolvedAddress
from minato.net.server import Server
from minato.net.stream import HIGH_WATER_BYTES
from tests.net.hit_support import (
    CACHE,
    EXCHANGE,
    GET,
    HOT,
    MAX_AGE,
    Versions,
    ask,
    make_hot,
)
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.system.harness import Client, OriginConnection, request_bytes
from tests.system.harness.origin import respond_always


class TwoServices(Proxy):
    """Two services for the same host on two ports."""

    def _config(self, ports: tuple[int, ...], *rest: Any) -> Config:
        config = super()._config(ports[:1], *rest)
        self._second = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._second.setblocking(False)
        self.second_port: int = self._second.getsockname()[1]
        (first,) = config.services
        upstream = replace(first.upstreams[0], host="127.0.0.1", port=ports[1], url=f"http://127.0.0.1:{ports[1]}")
        second: Service = replace(
            first, name="second", listen=ListenAddress("127.0.0.1", self.second_port), upstreams=(upstream,)
        )
        return replace(config, services=(first, second))

    def _make_server(self) -> Server:
        upstreams = [upstream for service in self.config.services for upstream in service.upstreams]
        sockets = (self._listener, self._second)
        return Server(
            config=self.config,
            loop=self.loop,
            board=self.board,
            slot=0,
            own=[BoundListener(one.listen, sock) for one, sock in zip(self.config.services, sockets, strict=True)],
            orphans=[],
            addresses={one.key: (ResolvedAddress(socket.AF_INET, (one.host, one.port)),) for one in upstreams},
            wake_health=lambda: None,
            access_log=None,
        )

    def close(self) -> None:
        super().close()
        self._second.close()


def test_the_same_bytes_on_another_port_get_what_is_stored_there(origin: OriginMaker, lanes: list[str]) -> None:
    first, second = origin(respond_always(hello(b"first", MAX_AGE))), origin(respond_always(hello(b"second", MAX_AGE)))
    here = TwoServices(first.port, second.port, cache=CACHE)
    try:
        with here.client() as one, Client(here.second_port) as other:
            for _ in range(3):
                assert make_hot(one, lanes)[1] == b"first"
                assert ask(other)[1] == b"second"
                assert lanes[-1] != HOT
                assert make_hot(other, lanes)[1] == b"second"
                assert ask(one)[1] == b"first"
    finally:
        here.close()


def test_the_same_bytes_of_a_trusted_proxy_and_of_a_stranger_are_two_requests(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(b",".join(request.values(b"x-forwarded-host")), MAX_AGE))

    here = proxy(origin(script), cache=CACHE, trusted_proxies=(ip_network("127.0.0.2/32"),))
    wire = request_bytes(fields=[(b"X-Forwarded-Host", b"other.example")])
    bodies: dict[str, set[bytes]] = {"127.0.0.1": set(), "127.0.0.2": set()}
    for _ in range(6):
        for address, seen in bodies.items():
            with here.client() as client:
                client.sock.close()
                client.sock = socket.create_connection(("127.0.0.1", here.port), 5.0, (address, 0))
                client._source._recv = client.sock.recv
                seen.add(ask(client, wire)[1])
    assert bodies == {"127.0.0.1": {b"test.local"}, "127.0.0.2": {b"other.example"}}


def test_hits_on_several_connections_share_what_is_hot(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    here = proxy(origin(Versions()), cache=CACHE)
    with here.client() as first, here.client() as second:
        expected = make_hot(first, lanes)
        assert (ask(second), lanes[-1]) == (expected, HOT)
    with here.client() as third:
        assert (ask(third), lanes[-1]) == (expected, HOT)


def test_a_client_that_closes_its_half_behind_a_hot_request_is_answered_and_closed(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    here = proxy(origin(Versions()), cache=CACHE)
    with here.client() as client:
        expected = make_hot(client, lanes)
        client.send(GET)
        client.half_close()
        assert client.receive().body == expected[1]
        assert client.is_closed()


def test_a_client_that_asks_for_hot_answers_and_reads_none_is_paused_and_loses_nothing(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    body = bytes(60_000)
    here = proxy(origin(respond_always(hello(body, MAX_AGE))), cache=CACHE)
    with here.client(rcvbuf_bytes=8192) as client:
        make_hot(client, lanes)
        before = len(lanes)
        waiting = []
        for _ in range(400):
            client.send(GET)
            waiting.append(here.call(lambda: sum(one.stream.pending_bytes for one in here.server._clients)))
        assert max(waiting) < HIGH_WATER_BYTES + 2 * len(body)  # of the 24 MB asked for
        for _ in range(400):
            assert client.receive().body == body
        assert ask(client)[1] == body
    assert EXCHANGE not in lanes[before:]


def test_a_connection_is_closed_when_it_is_idle_after_a_hot_answer(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    here = proxy(origin(Versions()), cache=CACHE, timeouts=Timeouts(client_idle_s=0.4))
    with here.client() as client:
        make_hot(client, lanes)
        assert client.is_closed()


def test_a_head_that_does_not_come_to_its_end_after_a_hot_answer_gets_a_408(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    here = proxy(origin(Versions()), cache=CACHE, timeouts=Timeouts(client_header_s=0.4))
    with here.client() as client:
        make_hot(client, lanes)
        client.send(GET[:20])
        assert client.receive().status == 408
