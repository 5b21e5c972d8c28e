"""Hits without an exchange where the service has rules of its own: nobody gets what a rule keeps from them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minato.config.model import Config, ServiceCacheConfig
from tests.net.hit_support import CACHE, EXCHANGE, HOT, MAX_AGE, PLAIN, ask, make_hot
from tests.net.proxy import OriginMaker, Proxy, hello
from tests.system.harness import Client, Origin, OriginConnection, Request, request_bytes


class Ruled(Proxy):
    """A proxy whose one service has those rules."""

    def __init__(self, *ports: int, rules: ServiceCacheConfig, **options: Any) -> None:
        self._rules = rules
        super().__init__(*ports, **options)

    def _config(self, *args: Any) -> Config:
        config = super()._config(*args)
        return replace(config, services=(replace(config.services[0], cache=self._rules),))


MakeRuled = Callable[..., Ruled]


@pytest.fixture
def ruled() -> Any:
    made: list[Ruled] = []

    def make(origin: Origin, *, express: bool = True, **rules: Any) -> Ruled:
        made.append(Ruled(origin.port, rules=ServiceCacheConfig(**rules), cache=CACHE, express=express))
        return made[-1]

    yield make
    for one in made:
        one.close()


def cookie_of(request: Request, name: bytes) -> bytes:
    pieces = b"; ".join(request.values(b"cookie")).split(b"; ")
    return next((piece.partition(b"=")[2] for piece in pieces if piece.startswith(name + b"=")), b"")


def tell_all(connection: OriginConnection) -> None:
    """Answer with what a page might be made of: the target, the currency, the device and the session."""
    while (request := connection.read_request()) is not None:
        device = b",".join(request.values(b"x-device"))
        parts = [request.target, cookie_of(request, b"currency"), device, cookie_of(request, b"session")]
        connection.send(hello(b"|".join(parts), MAX_AGE))


def get(target: bytes = b"/", cookie: bytes = b"", **fields: bytes) -> bytes:
    lines = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    return request_bytes(target=target, fields=[*lines, *([(b"Cookie", cookie)] if cookie else [])])


@pytest.mark.parametrize("express", [True, False])
def test_two_currencies_never_see_each_others_page(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    there = origin(tell_all)
    here = ruled(there, express=express, key_cookies=("currency",))
    with here.client() as eur, here.client() as usd, here.client() as none:
        for number in range(12):
            assert ask(eur, get(cookie=b"s=%d; currency=EUR" % number))[1] == b"/|EUR||"
            assert ask(usd, get(cookie=b"s=%d; currency=USD" % number))[1] == b"/|USD||"
            assert ask(none, get())[1] == b"/|||"
            assert ask(none, get(cookie=b"s=%d" % number))[1] == b"/|||"
    assert len(there.requests) == 3
    assert (HOT in lanes) == express, "without a cookie the same bytes may be hot"


def test_a_hit_by_cookie_takes_no_exchange_and_is_not_hot_where_other_cookies_are(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str]
) -> None:
    with ruled(origin(tell_all), key_cookies=("currency",)).client() as client:
        for number in range(8):
            ask(client, get(cookie=b"s=%d; currency=EUR" % number))
    assert lanes == [EXCHANGE] + [PLAIN] * 7


@pytest.mark.parametrize("express", [True, False])
def test_two_currencies_in_one_pipeline_get_their_own(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    here = ruled(origin(tell_all), express=express, key_cookies=("currency",))
    rng = random.Random(7)
    with here.client() as client:
        for _ in range(5):
            cookies = [rng.choice([b"currency=EUR", b"currency=USD", b"a=1", b""]) for _ in range(30)]
            client.send(b"".join(get(cookie=cookie) for cookie in cookies))
            bodies = [client.receive().body for _ in cookies]
            assert bodies == [b"/|%b||" % cookie.partition(b"currency=")[2] for cookie in cookies]


@pytest.mark.parametrize("express", [True, False])
def test_a_session_never_gets_a_hot_page_and_never_leaves_one(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    there = origin(tell_all)
    here = ruled(there, express=express, bypass_cookies=("session",))
    with here.client() as guest, here.client() as member:
        for number in range(8):
            assert ask(member, get(cookie=b"session=%d" % number))[1] == b"/|||%d" % number
            assert ask(guest, get(cookie=b"a=%d" % number))[1] == b"/|||"
            assert ask(guest, get())[1] == b"/|||"
    assert len(there.requests) == 8 + 1


@pytest.mark.parametrize("express", [True, False])
def test_two_devices_never_see_each_others_page_and_each_is_hot(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    there = origin(tell_all)
    here = ruled(there, express=express, key_headers=("x-device",))
    with here.client() as client:
        for number in range(12):
            for device in (b"phone", b"tv"):
                body = ask(client, get(cookie=b"s=%d" % number, X_Device=device))[1]
                assert body == b"/||%b|" % device
    assert len(there.requests) == 2
    assert lanes[-2:] == [HOT if express else PLAIN] * 2


@pytest.mark.parametrize("express", [True, False])
def test_a_bypassed_path_is_never_hot_and_its_neighbours_are(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    there = origin(tell_all)
    here = ruled(there, express=express, bypass_paths=("/account",))
    with here.client() as client:
        for _ in range(6):
            ask(client, get(b"/account/x"))
            assert lanes[-1] == EXCHANGE
        assert len(there.requests) == 6
        if express:
            make_hot(client, lanes, get(b"/accounts"))
        else:
            assert [ask(client, get(b"/accounts"))[1] for _ in range(3)] == [b"/accounts|||"] * 3
    assert len(there.requests) == 7


@pytest.mark.parametrize("express", [True, False])
def test_ignored_parameters_share_a_page_that_none_of_them_shaped(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    there = origin(tell_all)
    here = ruled(there, express=express, ignore_query=("utm_*",))
    with here.client() as client:
        for number in range(8):
            assert ask(client, get(b"/x?utm_source=%d&a=1" % number))[1] == b"/x?a=1|||"
            assert ask(client, get(b"/x?a=1"))[1] == b"/x?a=1|||"
            assert ask(client, get(b"/x?utm_source=same&a=1"))[1] == b"/x?a=1|||"
            assert ask(client, get(b"/x?a=2&utm_source=%d" % number))[1] == b"/x?a=2|||"
    assert [request.target for request in there.requests] == [b"/x?a=1", b"/x?a=2"]


def test_what_a_rule_tells_apart_is_invalidated_as_one_also_where_it_is_hot(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str]
) -> None:
    there = origin(tell_all)
    here = ruled(there, key_headers=("x-device",))
    wires = [get(X_Device=device) for device in (b"phone", b"tv")]
    with here.client() as client:
        for wire in wires:
            make_hot(client, lanes, wire)
        ask(client, request_bytes(b"POST", body=b"x"))
        for wire in wires:
            ask(client, wire)
            assert lanes[-1] == EXCHANGE
    assert len(there.requests) == 5


@pytest.mark.parametrize("express", [True, False])
def test_a_service_without_the_cache_is_forwarded_each_time(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str], express: bool
) -> None:
    there = origin(tell_all)
    here = ruled(there, express=express, enabled=False)
    with here.client() as client:
        heads = [ask(client, get())[0] for _ in range(5)]
    assert lanes == [EXCHANGE] * 5
    assert not any(b"cache-status" in head.lower() for head in heads)
    assert len(there.requests) == 5


def hits_of(client: Client, lanes: list[str]) -> list[str]:
    for _ in range(6):
        ask(client, get(cookie=b"a=1"))
    return lanes[-6:]


def test_a_service_with_lifetimes_alone_is_as_plain_as_one_without_rules(
    origin: OriginMaker, ruled: MakeRuled, lanes: list[str]
) -> None:
    with ruled(origin(tell_all)).client() as client:
        plain = hits_of(client, lanes)
    with ruled(origin(tell_all), ttl_s=5.0, negative_ttl_s=((404, 404, 1.0),)).client() as client:
        assert hits_of(client, lanes) == plain
    assert plain[-1] == HOT


@pytest.mark.parametrize("express", [True, False])
def test_a_name_that_a_server_may_take_for_a_key_header_passes_the_cache_by(
    origin: OriginMaker, ruled: MakeRuled, express: bool
) -> None:
    there = origin(tell_all)
    with ruled(there, express=express, key_headers=("x-device", "x-host")).client() as client:
        for _ in range(3):
            ask(client, get(X_Device=b"phone"))
            assert b"fwd=bypass" in ask(client, request_bytes(fields=[(b"X_Device", b"evil")]))[0]
        assert b"minato; hit" in ask(client, get(X_Device=b"phone"))[0]
        ask(client, get(X_Host=b"a"))
        assert b"minato; hit" in ask(client, get(X_Host=b"a"))[0], "what is in the key need not be kept from it"
        assert b"minato; hit" not in ask(client, get(X_Host=b"b"))[0]
