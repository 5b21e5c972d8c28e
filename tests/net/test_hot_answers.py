"""What ends a hit without an exchange, and which requests never get one."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.config.model import ListenAddress
from minato.net.bound import BoundListener
from minato.net.resolve import ResolvedAddress
from minato.net.server import Server
from tests.net.hit_support import (
    CACHE,
    EXCHANGE,
    GET,
    HOT,
    MAX_AGE,
    PLAIN,
    Versions,
    WallClock,
    ask,
    make_hot,
)
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, hello
from tests.system.harness import Client, OriginConnection, request_bytes
from tests.system.harness.origin import respond_always

ODD_GET = GET[:-2] + b"Pragma: x\r\n\r\n"  # in an exchange, as `test_hits` has it


def test_age_grows_with_the_next_second_and_is_hot_again_in_it(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock
) -> None:
    there = origin(Versions())
    with proxy(there, cache=CACHE).client() as client:
        assert b"\r\nage: 0\r\n" in make_hot(client, lanes)[0]
        for second in range(1, 4):
            wall.wall_s += 1.0
            told = b"\r\nage: %d\r\ncache-status: minato; hit; ttl=%d\r\n" % (second, 60 - second)
            assert told in ask(client)[0]
            assert lanes[-1] != HOT
            assert told in make_hot(client, lanes)[0]
    assert len(there.requests) == 1


@pytest.mark.parametrize("offset_s", [0.0, 0.5, 0.75, 0.99])
def test_age_never_goes_back(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock, offset_s: float
) -> None:
    wall.wall_s = 1_700_000_000.0 + offset_s
    ages = []
    with proxy(origin(Versions()), cache=CACHE).client() as client:
        make_hot(client, lanes)
        for number in range(40):
            for wire in (GET, request_bytes(fields=[(b"Cookie", b"%d" % number)]), ODD_GET):
                match = re.search(rb"\r\nage: (\d+)\r\ncache-status: minato; hit; ttl=(\d+)\r", ask(client, wire)[0])
                assert match is not None
                ages.append(int(match[1]))
                assert int(match[1]) + int(match[2]) == 60, "they change at the same moment in every lane"
            wall.wall_s += 0.125
    assert ages == sorted(ages)
    assert ages[-1] == 4


def test_a_clock_that_is_set_back_ends_a_hot_answer(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock
) -> None:
    with proxy(origin(Versions()), cache=CACHE).client() as client:
        make_hot(client, lanes)
        wall.wall_s -= 10.0
        ask(client)
        assert lanes[-1] != HOT


def test_a_response_that_turns_stale_within_the_second_is_not_sent_again(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock
) -> None:
    wall.wall_s = 1_700_000_000.5
    with proxy(origin(Versions((b"Cache-Control: max-age=2",))), cache=CACHE).client() as client:
        make_hot(client, lanes)
        wall.wall_s += 1.75  # 1_700_000_002.25; it is stale from .5 on
        assert make_hot(client, lanes)[1] == b"GET / 1"
        wall.wall_s += 0.375
        assert ask(client)[1] == b"GET / 2"
        assert lanes[-1] == EXCHANGE


def test_a_lifetime_that_ends_within_a_second_of_age_ends_a_hot_answer(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock
) -> None:
    with proxy(origin(Versions(())), cache=replace(CACHE, ttl_s=1.5)).client() as client:
        make_hot(client, lanes)
        wall.wall_s += 1.25
        assert make_hot(client, lanes)[1] == b"GET / 1"
        wall.wall_s += 0.375
        assert ask(client)[1] == b"GET / 2"


def test_a_stale_response_is_validated_and_hot_again(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.get(b"if-none-match"):
                connection.send(b'HTTP/1.1 304 Same\r\nETag: "1"\r\nCache-Control: max-age=5\r\nX-New: 1\r\n\r\n')
            else:
                connection.send(hello(b"x", b'ETag: "1"', b"Cache-Control: max-age=5"))

    there = origin(script)
    with proxy(there, cache=CACHE).client() as client:
        make_hot(client, lanes)
        wall.wall_s += 6.0
        head, body = ask(client)
        assert (lanes[-1], body) == (EXCHANGE, b"x")
        assert b"fwd=stale" in head
        head, body = make_hot(client, lanes)
        assert b"x-new: 1\r\n" in head
        assert body == b"x"
    assert len(there.requests) == 2


def reload_it(here: Proxy, client: Client) -> None:
    ask(client, GET[:-2] + b"Cache-Control: no-cache\r\n\r\n")


def post(here: Proxy, client: Client) -> None:
    ask(client, request_bytes(b"POST", body=b"x"))


def purge(here: Proxy, client: Client) -> None:
    cache = here.server._context.cache
    assert cache is not None
    here.call(cache.clear)


def purge_url(here: Proxy, client: Client) -> None:
    purge_by(here, PurgeRequest(PurgeKind.URL, b"http://%b/" % host_of(GET)))


def purge_softly(here: Proxy, client: Client) -> None:
    purge_by(here, PurgeRequest(PurgeKind.URL, b"%b/" % host_of(GET), soft=True))


def purge_by(here: Proxy, request: PurgeRequest) -> None:
    context = here.server._context
    cache = context.cache
    assert cache is not None
    assert here.call(lambda: cache.purge(request, context.loop.wall_s)) == 1


def host_of(wire: bytes) -> bytes:
    match = re.search(rb"\r\nHost: *([^\r]+)", wire, re.IGNORECASE)
    assert match is not None
    return match[1]


def evict(here: Proxy, client: Client) -> None:
    for number in range(3):
        ask(client, request_bytes(target=b"/%d" % number))


@pytest.mark.parametrize("end", [reload_it, post, purge, purge_url, purge_softly, evict])
@pytest.mark.parametrize("fields", [(MAX_AGE,), (MAX_AGE, b"Vary: Accept")])
def test_what_was_replaced_invalidated_purged_or_evicted_is_not_sent_again(
    origin: OriginMaker,
    proxy: ProxyMaker,
    lanes: list[str],
    end: Callable[[Proxy, Client], None],
    fields: tuple[bytes, ...],
) -> None:
    there = origin(Versions(fields))
    here = proxy(there, cache=replace(CACHE, capacity=2))
    with here.client() as client, here.client() as other:
        assert make_hot(client, lanes)[1] == b"GET / 1"
        end(here, other)
        head, body = ask(client)
        assert lanes[-1] != HOT
        assert body.startswith(b"GET / ")
        assert body != b"GET / 1"
        assert (b"minato; hit" in head) == (end is reload_it)
        assert make_hot(client, lanes)[1] == body


def test_draining_ends_hits_and_says_close(origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]) -> None:
    there = origin(Versions())
    here = proxy(there, cache=CACHE)
    with here.client() as hot_client, here.client() as plain_client:
        make_hot(hot_client, lanes)
        ask(plain_client)
        here.drain()
        for client, wire in ((hot_client, GET), (plain_client, request_bytes(fields=[(b"Cookie", b"new")]))):
            client.send(wire)
            response = client.receive()
            assert (response.body, response.says_close()) == (b"GET / 1", True)
            assert lanes[-1] == EXCHANGE
            assert client.is_closed()
    assert here.drained.wait(5.0)


@pytest.mark.parametrize("name", [b"X-Kind", b"Cookie"])
def test_variants_are_never_mixed_and_hot_side_by_side_where_cookies_play_no_part(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], name: bytes
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            value = b",".join(request.values(name.lower()))
            connection.send(hello(b"for " + value, MAX_AGE, b"Vary: " + name))

    there = origin(script)
    wires = {value: request_bytes(fields=[(b"Accept", b"x"), (name, value)]) for value in (b"a", b"b", b"c")}
    with proxy(there, cache=CACHE).client() as client:
        for _ in range(5):
            for value, wire in wires.items():
                assert ask(client, wire)[1] == b"for " + value
        assert name == b"Cookie" or lanes[-3:] == [HOT] * 3
        assert ask(client, request_bytes(fields=[(b"Accept", b"x")]))[1] == b"for "
    assert len(there.requests) == 4


def test_variants_by_another_field_are_hot_whatever_the_cookie(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(b"for " + request.values(b"x-kind")[0], MAX_AGE, b"Vary: X-Kind"))

    there = origin(script)
    with proxy(there, cache=CACHE).client() as client:
        for number in range(8):
            for kind in (b"a", b"b"):
                wire = request_bytes(fields=[(b"X-Kind", kind), (b"Cookie", b"sid=%d" % number)])
                assert ask(client, wire)[1] == b"for " + kind
    assert lanes[-2:] == [HOT] * 2
    assert len(there.requests) == 2


def test_a_variant_that_comes_to_a_plain_response_ends_its_plain_hits(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    versions = Versions((MAX_AGE,))
    there = origin(versions)
    with proxy(there, cache=CACHE).client() as client:
        assert ask(client)[1] == b"GET / 1"
        versions.fields = (MAX_AGE, b"Vary: X-Kind")
        kinds = [request_bytes(fields=[(b"X-Kind", b"%d" % number)]) for number in range(3)]
        reload = request_bytes(fields=[(b"X-Kind", b"0"), (b"Cache-Control", b"no-cache")])
        assert ask(client, reload)[1] == b"GET / 2"
        for _ in range(4):
            assert [ask(client, wire)[1] for wire in kinds] == [b"GET / 2", b"GET / 3", b"GET / 4"]
    assert PLAIN not in lanes


def test_a_plain_response_is_not_taken_for_a_newer_variant(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wall: WallClock
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.get(b"x-kind"):
                connection.send(hello(b"variant", MAX_AGE, b"Vary: X-Kind"))
            else:
                connection.send(hello(b"plain", MAX_AGE, b"Date: Tue, 14 Nov 2023 22:13:00 GMT"))

    kind = request_bytes(fields=[(b"X-Kind", b"0"), (b"Accept", b"x")])
    with proxy(origin(script), cache=CACHE).client() as client:
        assert [ask(client, kind)[1], ask(client)[1]] == [b"variant", b"plain"]
        for _ in range(4):
            assert [ask(client, kind)[1], ask(client)[1]] == [b"variant", b"plain"]


WEIGHED = [
    (b"Cache-Control", b"no-cache"),
    (b"Cache-Control", b"max-age=60"),
    (b"Pragma", b"no-cache"),
    (b"Authorization", b"Basic x"),
    (b"Range", b"bytes=0-1"),
    (b"If-None-Match", b'"1"'),
    (b"If-Modified-Since", b"Tue, 14 Nov 2023 22:13:00 GMT"),
    (b"If-Match", b'"1"'),
    (b"If-Unmodified-Since", b"Tue, 14 Nov 2023 22:13:00 GMT"),
    (b"If-Range", b'"1"'),
]


@pytest.mark.parametrize(("name", "value"), WEIGHED)
def test_requests_with_a_field_that_has_to_be_weighed_go_through_an_exchange_each_time(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], name: bytes, value: bytes
) -> None:
    there = origin(Versions((MAX_AGE, b'ETag: "1"')))
    with proxy(there, cache=CACHE).client() as client:
        make_hot(client, lanes)
        before = len(lanes)
        wire = request_bytes(fields=[(b"User-Agent", b"curl/8.5.0"), (name, value)])
        for _ in range(5):
            ask(client, wire)
        assert lanes[before:] == [EXCHANGE] * 5


@pytest.mark.parametrize(
    "wire",
    [
        request_bytes(fields=[(b"Connection", b"close")]),
        request_bytes(version=b"1.0"),
        request_bytes(version=b"1.0", fields=[(b"Connection", b"keep-alive")]),
        request_bytes(fields=[(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]),
        request_bytes(fields=[(b"Content-Length", b"0")]),
        request_bytes(fields=[(b"Transfer-Encoding", b"chunked")]) + b"0\r\n\r\n",
        request_bytes(b"POST", body=b""),
        request_bytes(b"OPTIONS"),
    ],
)
def test_requests_of_another_kind_are_never_answered_without_an_exchange(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], wire: bytes
) -> None:
    here = proxy(origin(Versions()), cache=CACHE)
    for _ in range(5):
        with here.client() as client:
            client.send(wire)
            response = client.receive(wire.partition(b" ")[0])
            assert response.status == 200
            is_over = b"Connection: close" in wire or (b"HTTP/1.0" in wire and b"keep-alive" not in wire)
            assert response.says_close() == is_over
            assert client.is_closed(0.05) == is_over
    assert set(lanes) == {EXCHANGE}


def test_what_is_not_stored_is_never_hot(origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]) -> None:
    there = origin(Versions((b"Cache-Control: no-store",)))
    with proxy(there, cache=CACHE).client() as client:
        assert [ask(client)[1] for _ in range(5)] == [b"GET / %d" % number for number in range(1, 6)]
    assert set(lanes) == {EXCHANGE}


@pytest.mark.parametrize("control", [b"no-cache", b"max-age=60, no-cache", b"max-age=0, must-revalidate"])
def test_what_must_be_validated_each_time_is_never_hot(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], control: bytes
) -> None:
    there = origin(Versions((b"Cache-Control: " + control, b'ETag: "1"')))
    with proxy(there, cache=CACHE).client() as client:
        for _ in range(5):
            ask(client)
    assert (set(lanes), len(there.requests)) == ({EXCHANGE}, 5)


# -- heads that are like a hot one


def echo_all(connection: OriginConnection) -> None:
    """Say all that the request said, and that all of it may be stored."""
    while (request := connection.read_request()) is not None:
        connection.send(hello(b"" if request.method == b"HEAD" else request.head, MAX_AGE, b"Vary: X-Kind"))


BASE = [(b"X-Kind", b"1"), (b"Accept", b"a"), (b"Cookie", b"sid=1")]
LIKE = {
    "method": (b"HEAD", b"/", BASE),
    "query": (b"GET", b"/?", BASE),
    "target": (b"GET", b"/1", BASE),
    "field": (b"GET", b"/", [(b"X-Kind", b"2"), *BASE[1:]]),
    "no field": (b"GET", b"/", BASE[1:]),
    "two fields": (b"GET", b"/", [BASE[0], *BASE]),
    "field in the cookie's line": (b"GET", b"/", [*BASE[1:2], (b"Cookie", b"sid=1; X-Kind: 1")]),
    "cookie of another name": (b"GET", b"/", [*BASE[1:2], (b"Cookie2", b"sid=1"), (b"X-Kind", b"2")]),
}


@pytest.mark.parametrize("kind", LIKE)
def test_a_head_that_differs_from_a_hot_one_in_more_than_the_cookie_gets_its_own_answer(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], kind: str
) -> None:
    method, target, fields = LIKE[kind]
    like = request_bytes(method, target, fields=fields)
    with proxy(origin(echo_all), cache=CACHE).client() as client:
        hot = make_hot(client, lanes, request_bytes(fields=BASE))
        for _ in range(5):
            _, body = ask(client, like)
            if method == b"HEAD":
                assert body == b""
            else:
                assert body.startswith(b"%b %b HTTP" % (method, target))
                kinds = b",".join(value for name, value in fields if name == b"X-Kind")
                assert b",".join(re.findall(rb"\r\nx-kind: ([^\r]*)", body)) == kinds
            assert ask(client, request_bytes(fields=BASE)) == hot
        assert lanes[-1] == HOT


def test_the_same_request_on_another_address_is_answered_by_the_service_there(
    origin: OriginMaker, lanes: list[str]
) -> None:
    there = [origin(respond_always(hello(b"service %d" % number, MAX_AGE))) for number in (1, 2)]
    here = TwoAddresses(*[one.port for one in there], cache=CACHE)
    try:
        with here.client() as first, Client(here.other_port) as second:
            for number in range(8):
                for wire in (GET, GET[:-2] + b"Cookie: sid=%d\r\n\r\n" % number):
                    assert [ask(first, wire)[1], ask(second, wire)[1]] == [b"service 1", b"service 2"]
            assert make_hot(second, lanes)[1] == b"service 2"
            assert make_hot(first, lanes)[1] == b"service 1"
    finally:
        here.close()
        here.other.close()


@pytest.mark.parametrize("cookie", [b"", b"Cookie: sid=1\r\n"])
def test_the_same_bytes_of_two_clients_go_on_for_each_of_them(
    origin: OriginMaker, proxy: ProxyMaker, cookie: bytes
) -> None:
    there = origin(respond_always(hello(b"hello")))
    here = proxy(there)
    addresses = ["127.0.0.1", "127.0.0.2"]
    wire = GET[:-2] + cookie + b"\r\n"
    clients = [socket.create_connection(("127.0.0.1", here.port), 5.0, (address, 0)) for address in addresses]
    for _ in range(5):
        for client in clients:
            client.sendall(wire)
            assert client.recv(65_536).endswith(b"hello")
    for client in clients:
        client.close()
    assert [request.get(b"x-forwarded-for") for request in there.requests] == [b"127.0.0.1", b"127.0.0.2"] * 5


@pytest.mark.parametrize("cookie", [b"", b"Cookie: sid=1\r\n"])
def test_the_same_bytes_of_a_trusted_proxy_and_of_a_stranger_are_two_requests_to_the_cache(
    origin: OriginMaker, proxy: ProxyMaker, cookie: bytes
) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(hello(b"by %b" % (request.get(b"x-forwarded-proto") or b""), MAX_AGE))

    there = origin(script)
    here = proxy(there, cache=CACHE, trusted_proxies=(ip_network("127.0.0.2"),))
    wire = GET[:-2] + b"X-Forwarded-Proto: https\r\n" + cookie + b"\r\n"
    said = {"127.0.0.1": b"by http", "127.0.0.2": b"by https"}
    clients = {address: socket.create_connection(("127.0.0.1", here.port), 5.0, (address, 0)) for address in said}
    for _ in range(6):
        for address, client in clients.items():
            client.sendall(wire)
            assert client.recv(65_536).endswith(b"\r\n\r\n" + said[address])
    for client in clients.values():
        client.close()
    assert len(there.requests) == 2


@pytest.mark.parametrize("cookie", [b"1", b"2"])
def test_a_newer_variant_of_another_vary_ends_a_hot_answer_that_the_same_request_would_no_longer_select(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str], cookie: bytes
) -> None:
    vary = [b"Vary: X-Kind"]

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(hello(vary[0], MAX_AGE, vary[0]))

    with proxy(origin(script), cache=CACHE).client() as client:
        for number in range(4):
            make_hot(client, lanes, request_bytes(fields=[(b"X-Kind", b"a"), (b"Cookie", b"%d" % number)]))
        vary[0] = b"Vary: Cookie"
        ask(client, request_bytes(fields=[(b"X-Kind", b"b"), (b"Cookie", cookie)]))
        assert lanes[-1] == EXCHANGE
        answered = ask(client, request_bytes(fields=[(b"X-Kind", b"a"), (b"Cookie", cookie)]))[1]
        weighed = ask(client, request_bytes(fields=[(b"X-Kind", b"a"), (b"Cookie", cookie), (b"Pragma", b"x")]))[1]
        assert answered == weighed == b"Vary: Cookie"


class TwoAddresses(Proxy):
    """The same host on two listen addresses, a service on each."""

    def _make_server(self) -> Server:
        self.other = socket.create_server(("127.0.0.1", 0))
        self.other.setblocking(False)
        self.other_port: int = self.other.getsockname()[1]
        (service,) = self.config.services
        address = ListenAddress("127.0.0.1", self.other_port)
        first, second = service.upstreams
        services = replace(service, upstreams=(first,)), replace(service, listen=address, upstreams=(second,))
        self.config = replace(self.config, services=services)
        addresses = {one.key: (ResolvedAddress(socket.AF_INET, (one.host, one.port)),) for one in (first, second)}
        return Server(
            config=self.config,
            loop=self.loop,
            board=self.board,
            slot=0,
            own=[BoundListener(service.listen, self._listener), BoundListener(address, self.other)],
            orphans=[],
            addresses=addresses,
            wake_health=lambda: None,
            access_log=None,
        )


def test_what_is_stored_goes_when_memory_is_to_be_given_back(
    origin: OriginMaker, proxy: ProxyMaker, lanes: list[str]
) -> None:
    there = origin(Versions())
    here = proxy(there, cache=CACHE)
    with here.client() as client:
        make_hot(client, lanes)
        here.call(here.server.shed)
        assert b"fwd=uri-miss" in ask(client)[0]
        assert b"minato; hit" in ask(client)[0]
    assert len(there.requests) == 2
