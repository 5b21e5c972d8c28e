"""Consistent hashing through a whole server, with both codecs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import ip_network

import pytest

from minato.config.affinity import HashBy, HashConfig
from minato.config.model import BalancerKind
from tests.net.gate import Gate, wait_for_active
from tests.net.proxy import OriginMaker, Proxy, hello, refused_port, say
from tests.system.harness import Client, Origin, OriginConnection, Response, request_bytes


@pytest.fixture(params=[True, False], ids=["express", "general"])
def start(request: pytest.FixtureRequest, proxy: Callable[..., Proxy]) -> Callable[..., Proxy]:
    return partial(proxy, express=request.param)


@pytest.fixture
def three(origin: OriginMaker) -> list[Origin]:
    return [origin(say(name)) for name in (b"a", b"b", b"c")]


def ask(client: Client, target: bytes = b"/") -> Response:
    return client.request(target=target)


def test_a_url_always_goes_to_the_same_upstream(start: Callable[..., Proxy], three: list[Origin]) -> None:
    service = {"balancer": BalancerKind.CONSISTENT_HASH}
    proxy = start(*three, service=service)
    with proxy.client() as client:
        first = {b"/%d" % number: ask(client, b"/%d" % number).body for number in range(80)}
        assert set(first.values()) == {b"a", b"b", b"c"}
        for target, body in first.items():
            assert client.request(target=target, fields=[(b"cookie", b"x=1")]).body == body


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (HashConfig(HashBy.HEADER, "x-user"), (b"X-User", b"%d")),
        (HashConfig(HashBy.COOKIE, "sid"), (b"Cookie", b"a=b; sid=%d")),
    ],
)
def test_a_header_or_cookie_decides_and_without_it_the_client(
    start: Callable[..., Proxy], three: list[Origin], config: HashConfig, line: tuple[bytes, bytes]
) -> None:
    proxy = start(*three, service={"balancer": BalancerKind.CONSISTENT_HASH, "hash": config})
    seen = {}
    with proxy.client() as client:
        for number in range(80):
            fields = [(line[0], line[1] % number)]
            bodies = {client.request(target=b"/%d" % turn, fields=fields).body for turn in range(3)}
            assert len(bodies) == 1
            seen[number] = bodies.pop()
        assert len({ask(client, b"/%d" % turn).body for turn in range(12)}) == 1
    assert set(seen.values()) == {b"a", b"b", b"c"}


def test_the_client_is_the_one_behind_trusted_proxies(start: Callable[..., Proxy], three: list[Origin]) -> None:
    service = {"balancer": BalancerKind.CONSISTENT_HASH, "hash": HashConfig(HashBy.CLIENT)}

    def where(proxy: Proxy) -> list[bytes]:
        with proxy.client() as client:
            return [client.request(fields=[(b"x-forwarded-for", b"192.0.2.%d" % n)]).body for n in range(80)]

    believing = start(*three, service=service, trusted_proxies=(ip_network("127.0.0.0/8"),))
    assert len(set(where(believing))) == 3
    assert where(believing) == where(believing)
    assert len(set(where(start(*three, service=service)))) == 1  # claims of anybody change nothing


def test_a_key_comes_back_to_its_upstream_after_that_was_down(start: Callable[..., Proxy], three: list[Origin]) -> None:
    proxy = start(*three, service={"balancer": BalancerKind.CONSISTENT_HASH})
    targets = [b"/%d" % number for number in range(80)]
    with proxy.client() as client:
        before = [ask(client, target).body for target in targets]
        proxy.board.set_health(0, False)
        during = [ask(client, target).body for target in targets]
        proxy.board.set_health(0, True)
        after = [ask(client, target).body for target in targets]
    assert after == before
    assert all(now == old for old, now in zip(before, during, strict=True) if old != b"a")
    assert b"a" not in during


def test_a_failed_attempt_goes_to_the_next_in_order(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    with refused_port() as port:
        proxy = start(port, origin(say(b"b")), service={"balancer": BalancerKind.CONSISTENT_HASH})
        with proxy.client() as client:
            assert {ask(client, b"/%d" % number).body for number in range(10)} == {b"b"}


def test_a_busy_upstream_gets_no_more_than_its_bound(
    start: Callable[..., Proxy], origin: OriginMaker, gate: Gate
) -> None:
    apps = [origin(gate), origin(gate)]
    config = HashConfig(HashBy.PATH, load_factor=1.25)
    proxy = start(*apps, service={"balancer": BalancerKind.CONSISTENT_HASH, "hash": config})
    clients = [proxy.client() for _ in range(8)]
    try:
        for count, client in enumerate(clients, 1):
            client.send(request_bytes(target=b"/hot"))
            wait_for_active(proxy, count)
        assert sorted(proxy.call(lambda: [proxy.board.active(0), proxy.board.active(1)])) == [
            3,
            5,
        ]  # ceil(1.25 * 8 / 2)
        for _ in clients:
            gate.answer(hello())
        assert {client.receive().status for client in clients} == {200}
    finally:
        for client in clients:
            client.close()


def test_a_pooled_connection_gone_stale_moves_no_key(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    proxy = start(
        origin(forgetful(b"a")),
        origin(forgetful(b"b")),
        service={"balancer": BalancerKind.CONSISTENT_HASH, "retries": 0},
    )
    with proxy.client() as client:
        for number in range(8):
            assert ask(client, b"/%d" % number).body == ask(client, b"/%d" % number).body


def forgetful(name: bytes) -> Callable[[OriginConnection], None]:
    """Return what closes at its second request, without an answer."""

    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            connection.send(hello(name))
            connection.read_request()

    return script


def test_an_upstream_that_goes_with_its_pooled_connections_costs_no_retry(
    start: Callable[..., Proxy], origin: OriginMaker
) -> None:
    def go_at_second(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            connection.send(hello(b"gone"))
            if connection.read_request() is not None:
                connection.origin.stop()

    service = {"balancer": BalancerKind.CONSISTENT_HASH, "retries": 0}
    proxy = start(origin(go_at_second), origin(say(b"left")), service=service)
    with proxy.client() as client:
        target = next(target for number in range(99) if ask(client, target := b"/%d" % number).body == b"gone")
        assert ask(client, target).body == b"left"
