"""limits.connections_per_client in a whole server: for connections, and for requests behind trusted proxies."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from minato.config.model import Limits
from minato.protocol.proxy_protocol import Endpoints, render_proxy_header
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello, never_answer
from tests.system.harness import Client, OriginConnection, request_bytes
from tests.system.harness.origin import respond_always

LIMITS = Limits(connections_per_client=2)
TRUSTED = (ip_network("127.0.0.0/8"),)
GET = request_bytes()


def counted(here: Proxy) -> int:
    return here.call(lambda: len(here.server._context.per_client))


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def of_client(address: bytes) -> bytes:
    return request_bytes(fields=[(b"X-Forwarded-For", address)])


def test_further_connections_of_a_client_are_turned_away_until_one_is_closed(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = proxy(origin(respond_always(hello())), limits=LIMITS)
    with here.client() as one, here.client() as two:
        assert [client.request().status for client in (one, two)] == [200, 200]
        for _ in range(3):
            with here.client() as three:
                response = three.receive()
                assert (response.status, response.get(b"retry-after"), response.says_close()) == (503, b"1", True)
        assert one.request().status == 200
        one.close()
        wait_until(lambda: _is_served(here))
    wait_until(lambda: counted(here) == 0)


def _is_served(here: Proxy) -> bool:
    with here.client() as client:
        return client.request().status == 200


@pytest.mark.parametrize("end", ["closed", "reset", "refused", "left in an exchange"])
def test_however_connections_end_they_count_no_more(origin: OriginMaker, proxy: ProxyMaker, end: str) -> None:
    here = proxy(origin(never_answer if "left" in end else respond_always(hello())), limits=LIMITS)
    for _ in range(5):
        with here.client() as client:
            if end == "refused":
                client.send(b"GET / HTTP/1.1\n\n")
                assert client.receive().status == 400
                assert client.is_closed()
            elif end == "left in an exchange":
                client.send(GET)
            else:
                assert client.request().status == 200
            if end == "reset":
                client.reset()
        wait_until(lambda: counted(here) == 0)


def test_clients_in_proxy_headers_count_each_for_itself(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(respond_always(hello())), limits=LIMITS, service={"proxy_protocol": True})
    with ExitStack() as stack:
        statuses = []
        for address in ["192.0.2.1"] * 3 + ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]:
            client = stack.enter_context(here.client())
            destination = "2001:db8::9" if ":" in address else "192.0.2.9"
            client.send(render_proxy_header(2, Endpoints(address, 1, destination, 80)) + GET)
            statuses.append(client.receive().status)
        assert statuses == [200, 200, 503, 200, 200, 503, 200]
        assert counted(here) == 3
    wait_until(lambda: counted(here) == 0)


@pytest.mark.parametrize("express", [True, False])
def test_behind_a_trusted_proxy_it_is_the_requests_in_flight_that_count(
    origin: OriginMaker, proxy: ProxyMaker, express: bool
) -> None:
    there = origin(never_answer)
    here = proxy(there, limits=LIMITS, trusted_proxies=TRUSTED, express=express)
    with ExitStack() as stack:
        clients = [stack.enter_context(here.client()) for _ in range(4)]
        for client in clients[:2]:
            client.send(of_client(b"192.0.2.1"))
        there.wait_for(lambda: len(there.requests) == 2, "both")
        clients[2].send(of_client(b"192.0.2.1"))
        response = clients[2].receive()
        assert (response.status, response.get(b"retry-after"), response.says_close()) == (503, b"1", False)
        clients[2].send(of_client(b"192.0.2.2"))
        there.wait_for(lambda: len(there.requests) == 3, "another client's")
        clients[0].close()
        wait_until(lambda: here.call(lambda: "3 of 2" not in repr(here.server._context.per_client)))
        clients[3].send(of_client(b"192.0.2.1"))
        there.wait_for(lambda: len(there.requests) == 4, "the first client's third")
    wait_until(lambda: counted(here) == 0)


def test_idle_connections_of_a_trusted_proxy_count_for_nobody(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(respond_always(hello())), limits=LIMITS, trusted_proxies=TRUSTED)
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(here.client())
            client.send(of_client(b"192.0.2.1") * 2)
            assert [client.receive().status for _ in range(2)] == [200, 200]
        assert counted(here) == 0


def test_what_a_trusted_proxy_asks_for_itself_is_not_counted(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(never_answer)
    here = proxy(there, limits=LIMITS, trusted_proxies=TRUSTED)
    with ExitStack() as stack:
        for number in range(5):
            client: Client = stack.enter_context(here.client())
            client.send(GET if number % 2 else of_client(b"127.0.0.9"))
        there.wait_for(lambda: len(there.requests) == 5, "all of them")


def test_a_tunnel_behind_a_trusted_proxy_counts_until_its_end(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def upgrade(connection: OriginConnection) -> None:
        assert connection.read_request() is not None
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        connection.wait_closed()

    here = proxy(origin(upgrade), limits=LIMITS, trusted_proxies=TRUSTED)
    wanted = [(b"X-Forwarded-For", b"192.0.2.1"), (b"Connection", b"upgrade"), (b"Upgrade", b"x")]
    with here.client() as client:
        client.send(request_bytes(fields=wanted))
        assert client.receive_head().status == 101
        assert counted(here) == 1
    wait_until(lambda: counted(here) == 0)
