"""Listeners whose connections begin with a PROXY header, in a whole server: who is believed, and what is closed."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from minato.config.model import Limits, Timeouts
from minato.net.server import Server
from minato.protocol.proxy_protocol import Endpoints, render_proxy_header
from minato.shared.board import Counter
from tests.net.proxy import Entries, OriginMaker, Proxy, ProxyMaker, echo_target, hello
from tests.system.harness import Client, Origin, request_bytes
from tests.system.harness.origin import respond_always

CLIENT = Endpoints("192.0.2.1", 1234, "198.51.100.9", 80)
V1, V2 = render_proxy_header(1, CLIENT), render_proxy_header(2, CLIENT)
NOBODY_V1, NOBODY_V2 = render_proxy_header(1, None), render_proxy_header(2, None)
GET = request_bytes()
HEADERS = {
    "v1": (V1, "192.0.2.1"),
    "v2": (V2, "192.0.2.1"),
    "UNKNOWN": (NOBODY_V1, "127.0.0.1"),
    "LOCAL": (NOBODY_V2, "127.0.0.1"),
}
WITH_HEADER = pytest.mark.parametrize(("header", "address"), HEADERS.values(), ids=HEADERS)


class Here:
    """A proxy that wants a PROXY header on every connection, and the origin behind it."""

    def __init__(self, origin: OriginMaker, proxy: ProxyMaker) -> None:
        self._make_origin, self._make_proxy = origin, proxy
        self.log = Entries()

    def start(self, **options: Any) -> Proxy:
        self.origin: Origin = self._make_origin(echo_target)
        self.proxy: Proxy = self._make_proxy(
            self.origin, service={"proxy_protocol": True}, access_log=self.log, **options
        )
        return self.proxy


@pytest.fixture
def here(origin: OriginMaker, proxy: ProxyMaker) -> Here:
    return Here(origin, proxy)


def is_closed_unanswered(client: Client) -> bool:
    try:
        return client.sock.recv(1) == b""
    except ConnectionResetError:
        return True


def active(proxy: Proxy) -> int:
    return proxy.counted(Counter.CONNECTIONS_ACTIVE)


def wait_until_gone(proxy: Proxy) -> None:
    deadline_s = time.monotonic() + 5
    while active(proxy) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert active(proxy) == 0


@WITH_HEADER
@pytest.mark.parametrize("express", [True, False])
@pytest.mark.parametrize("how", ["in one segment", "header first", "byte by byte"])
def test_requests_are_those_of_the_client_in_the_header(
    here: Here, header: bytes, address: str, express: bool, how: str
) -> None:
    with here.start(express=express).client() as client:
        if how == "in one segment":
            client.send(header + GET)
        elif how == "header first":
            client.send(header)
            client.send(GET)
        else:
            client.send_in_pieces(header + GET)
        assert client.receive().body == b"/"
        assert client.request(target=b"/again").body == b"/again"
    assert [request.get(b"x-forwarded-for") for request in here.origin.requests] == [address.encode()] * 2
    assert [entry.client for entry in here.log.entries] == [address] * 2


@WITH_HEADER
def test_pipelined_requests_and_bodies_behind_a_header_arrive_whole(here: Here, header: bytes, address: str) -> None:
    post = request_bytes(b"POST", b"/post", body=b"PROXY TCP4 6.6.6.6 6.6.6.6 1 2\r\n")
    with here.start().client() as client:
        client.send(header + GET + post + GET)
        assert [client.receive().body for _ in range(3)] == [b"/", b"/post", b"/"]
    assert here.origin.requests[1].body.startswith(b"PROXY TCP4 6.6.6.6")


def test_a_second_header_is_no_request(here: Here) -> None:
    with here.start().client() as client:
        client.send(V1 + V1 + GET)
        assert client.receive().status == 400
    assert not here.origin.requests


@pytest.mark.parametrize(
    "data",
    [
        GET,
        b"\r\n" + GET,
        V1[:-2] + b"\n" + GET,
        V2[:12] + b"\x31" + V2[13:],
        b"\x16\x03\x01",
        b"PROXY TCP4 1 2 3 4\r\n" + GET,
        b"PROXY UNKNOWN " + b"x" * 200,
    ],
    ids=["a request", "an empty line", "bare LF", "version 3", "TLS", "malformed", "too long"],
)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_what_is_no_header_is_closed_without_an_answer(
    here: Here, data: bytes, piece: int, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = here.start()
    with proxy.client() as client:
        with contextlib.suppress(OSError):  # it may be closed before all is sent
            client.send_in_pieces(data, piece)
        assert is_closed_unanswered(client)
    wait_until_gone(proxy)
    assert not here.origin.requests
    assert not here.log.entries
    assert "PROXY protocol: a connection of 127.0.0.1 was closed: " in caplog.text


def test_strangers_cannot_fill_the_log(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    proxy = here.start()
    for _ in range(20):
        with proxy.client() as client:
            client.send(GET)
            assert is_closed_unanswered(client)
    assert caplog.text.count("was closed") == 1


@pytest.mark.parametrize("sent", [b"", V1[:20], V2[:-1]])
@pytest.mark.parametrize("end", ["closed", "half closed", "reset"])
def test_one_that_leaves_within_its_header_leaves_nothing_behind(here: Here, sent: bytes, end: str) -> None:
    proxy = here.start()
    with proxy.client() as client:
        client.send(sent)
        if end == "half closed":
            client.half_close()
            assert is_closed_unanswered(client)
        elif end == "reset":
            client.reset()
    wait_until_gone(proxy)


def test_a_header_has_to_come_in_time_however_it_drips(here: Here) -> None:
    proxy = here.start(timeouts=Timeouts(client_header_s=0.4))
    with proxy.client() as client:
        client.sock.settimeout(0.05)
        began_s = time.monotonic()
        for at in range(len(V1) - 1):
            client.sock.send(V1[at : at + 1])
            try:
                assert client.sock.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                pass
            break
        else:
            raise AssertionError("it was never closed")
        assert 0.3 < time.monotonic() - began_s < 3
    wait_until_gone(proxy)


def test_an_incomplete_header_does_not_keep_the_loop_busy(here: Here) -> None:
    proxy = here.start()
    with proxy.client() as client:
        client.send(V1[:20])
        before_s = proxy.call(time.thread_time)
        time.sleep(0.3)
        assert proxy.call(time.thread_time) - before_s < 0.1
        client.send(V1[20:] + GET)
        assert client.receive().status == 200


def test_the_head_has_its_own_time_behind_the_header(here: Here) -> None:
    with here.start(timeouts=Timeouts(client_header_s=0.3)).client() as client:
        client.send(V1)
        assert client.is_closed()


def test_where_there_are_trusted_proxies_nobody_elses_header_is_believed(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = here.start(trusted_proxies=(ip_network("192.0.2.0/24"),))
    with proxy.client() as client:
        assert is_closed_unanswered(client)
    assert "127.0.0.1 is none of trusted_proxies" in caplog.text
    assert active(proxy) == 0


def test_a_trusted_proxys_client_is_no_trusted_proxy(here: Here) -> None:
    proxy = here.start(trusted_proxies=(ip_network("127.0.0.0/8"),))
    with proxy.client() as client:
        client.send(V2 + request_bytes(fields=[(b"X-Forwarded-For", b"6.6.6.6"), (b"X-Forwarded-Proto", b"https")]))
        assert client.receive().status == 200
    (request,) = here.origin.requests
    assert (request.get(b"x-forwarded-for"), request.get(b"x-forwarded-proto")) == (b"192.0.2.1", b"http")
    assert [entry.client for entry in here.log.entries] == ["192.0.2.1"]


def test_a_client_that_is_a_trusted_proxy_itself_is_believed(here: Here) -> None:
    proxy = here.start(trusted_proxies=(ip_network("127.0.0.0/8"), ip_network("192.0.2.1")))
    with proxy.client() as client:
        client.send(V1 + request_bytes(fields=[(b"X-Forwarded-For", b"203.0.113.7")]))
        assert client.receive().status == 200
    assert here.origin.requests[0].get(b"x-forwarded-for") == b"203.0.113.7, 192.0.2.1"
    assert [entry.client for entry in here.log.entries] == ["203.0.113.7"]


def test_those_that_wait_for_their_header_count_as_connections(here: Here) -> None:
    proxy = here.start(limits=Limits(connections=2))
    with proxy.client() as first, proxy.client() as second:
        while active(proxy) < 2:
            time.sleep(0.005)
        with proxy.client() as third:
            assert third.receive().status == 503
        first.send(V1 + GET)
        assert first.receive().status == 200
        assert active(proxy) == 2
        second.close()


def test_those_that_wait_are_cut_at_the_drain_deadline_and_served_before(here: Here) -> None:
    proxy = here.start()
    with proxy.client() as late, proxy.client() as silent:
        while active(proxy) < 2:
            time.sleep(0.005)
        proxy.drain(0.5)
        late.send(V1 + GET)
        response = late.receive()
        assert (response.status, response.says_close()) == (200, True)
        assert is_closed_unanswered(silent)
        assert proxy.drained.wait(5)
    assert active(proxy) == 0


def test_a_worker_without_successor_serves_what_came_and_closes_what_did_not(here: Here) -> None:
    proxy = here.start()
    with proxy.client() as silent, proxy.client() as ready:
        while active(proxy) < 2:
            time.sleep(0.005)
        with proxy.held():
            ready.send(V1)
        proxy.call(proxy.server.close_idle)
        assert is_closed_unanswered(silent)


@pytest.fixture(autouse=True)
def all_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="minato"):
        yield


def test_listeners_without_it_are_served_as_ever(origin: OriginMaker, proxy: ProxyMaker) -> None:
    there = origin(respond_always(hello()))
    with proxy(there).client() as client:
        client.send(V1 + GET)
        assert client.receive().status == 400
    assert not there.requests


def test_no_introduction_is_made_for_a_listener_without_it(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "_await_introduction", None)
    with proxy(origin(respond_always(hello()))).client() as client:
        assert client.request().status == 200


def test_a_client_over_ipv6_is_told_as_such(here: Here) -> None:
    ipv6 = Endpoints("2001:db8::7", 1, "2001:db8::1", 2)
    with here.start().client() as client:
        client.send(render_proxy_header(2, ipv6) + GET)
        assert client.receive().status == 200
    assert here.origin.requests[0].get(b"x-forwarded-for") == b"2001:db8::7"
