"""Sticky sessions through a whole server, with both codecs, with and without the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from minato.config.affinity import StickyConfig
from minato.config.model import BalancerKind, CacheConfig, Limits
from minato.decide.sticky import derive_id
from minato.shared.board import Counter
from tests.net.gate import Gate, wait_for_active
from tests.net.proxy import OriginMaker, Proxy, hello, refused_port, say
from tests.system.harness import Client, Origin, OriginConnection, Response, request_bytes

STICKY = StickyConfig("srv")
KEEP = b'no-cache="set-cookie"'


@pytest.fixture(params=[True, False], ids=["express", "general"])
def start(request: pytest.FixtureRequest, proxy: Callable[..., Proxy]) -> Callable[..., Proxy]:
    return partial(proxy, express=request.param)


@pytest.fixture
def three(origin: OriginMaker) -> list[Origin]:
    return [origin(say(name)) for name in (b"a", b"b", b"c")]


def cookie_in(response: Response) -> bytes | None:
    """The ``name=value`` of its Set-Cookie."""
    value = response.get(b"set-cookie")
    return None if value is None else value.partition(b";")[0]


def ask(client: Client, cookie: bytes | None = None, target: bytes = b"/", **options: Any) -> Response:
    fields = [(b"cookie", cookie)] if cookie else []
    return client.request(target=target, fields=fields, **options)


@pytest.mark.parametrize("balancer", list(BalancerKind))
def test_a_client_stays_where_its_first_request_went(
    start: Callable[..., Proxy], three: list[Origin], balancer: BalancerKind
) -> None:
    proxy = start(*three, service={"sticky": STICKY, "balancer": balancer})
    with proxy.client() as client:
        for turn in range(6):
            first = ask(client, target=b"/%d" % turn)
            cookie = cookie_in(first)
            assert first.values(b"set-cookie") == [b"%b; Path=/; HttpOnly; SameSite=Lax" % cookie]
            assert first.values(b"cache-control") == [KEEP]
            for number in range(5):
                again = ask(client, cookie, target=b"/%d" % number)
                assert again.body == first.body
                assert again.values(b"set-cookie") + again.values(b"cache-control") == []


def test_clients_without_the_cookie_are_balanced(start: Callable[..., Proxy], three: list[Origin]) -> None:
    """The same head again and again: what is remembered of its answers holds nobody's cookie."""
    proxy = start(*three, service={"sticky": STICKY})
    with proxy.client() as client:
        answers = [ask(client) for _ in range(9)]
        assert {answer.body for answer in answers[:3]} == {b"a", b"b", b"c"}
        by_origin = {answer.body: cookie_in(answer) for answer in answers}
        assert len(set(by_origin.values())) == 3
        for answer in answers:
            assert answer.values(b"set-cookie") == [by_origin[answer.body] + b"; Path=/; HttpOnly; SameSite=Lax"]


def test_cookies_of_the_upstream_go_on_beside(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    proxy = start(origin(say(b"a", b"Set-Cookie: sid=1")), service={"sticky": STICKY})
    with proxy.client() as client:
        first = ask(client)
        cookies = first.values(b"set-cookie")
        assert cookies[0] == b"sid=1" and cookies[1].startswith(b"srv=")
        assert ask(client, cookie_in_last(first)).values(b"set-cookie") == [b"sid=1"]


def cookie_in_last(response: Response) -> bytes:
    return response.values(b"set-cookie")[-1].partition(b";")[0]


def test_the_upstream_sees_the_cookie_like_any_other(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    app = origin(say(b"a"))
    proxy = start(app, service={"sticky": STICKY})
    with proxy.client() as client:
        cookie = cookie_in(ask(client))
        ask(client, b"x=y; " + cookie)
    assert app.requests[-1].values(b"cookie") == [b"x=y; " + cookie]


@pytest.mark.parametrize(
    "cookie",
    [
        b"srv=" + b"A" * 22,
        b"srv=",
        b"srv=" + b"A" * 20_000,
        b"; ".join([b"srv=" + b"A" * 22] * 1_000),
        b";" * 20_000,
    ],
    ids=["forged", "empty", "oversized", "a thousand", "nothing but semicolons"],
)
def test_hostile_cookies_are_balanced_and_answered_with_a_true_one(
    start: Callable[..., Proxy], three: list[Origin], cookie: bytes
) -> None:
    proxy = start(*three, service={"sticky": STICKY})
    with proxy.client() as client:
        answers = [ask(client, cookie) for _ in range(3)]
        assert {answer.body for answer in answers} == {b"a", b"b", b"c"}
        for answer in answers:
            assert ask(client, cookie_in(answer)).body == answer.body


def test_a_session_whose_upstream_is_down_moves_and_stays_there(
    start: Callable[..., Proxy], three: list[Origin]
) -> None:
    proxy = start(*three, service={"sticky": STICKY})
    with proxy.client() as client:
        first = ask(client)
        old = cookie_in(first)
        proxy.board.set_health(b"abc".index(first.body), False)
        moved = ask(client, old)
        new = cookie_in(moved)
        assert moved.body != first.body and new is not None
        proxy.board.set_health(b"abc".index(first.body), True)
        assert {ask(client, new).body for _ in range(4)} == {moved.body}
        assert ask(client, old).body == first.body


def test_a_failed_attempt_goes_elsewhere_and_takes_the_session_along(
    start: Callable[..., Proxy], origin: OriginMaker
) -> None:
    with refused_port() as port:
        proxy = start(port, origin(say(b"b")), service={"sticky": STICKY})
        dead = b"srv=" + derive_id("s", f"http://127.0.0.1:{port}")
        with proxy.client() as client:
            answer = ask(client, dead)
            assert answer.body == b"b"
            assert cookie_in(answer) not in (None, dead)


def test_a_pooled_connection_gone_stale_moves_no_session(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    def once(name: bytes) -> Callable[[OriginConnection], None]:
        def script(connection: OriginConnection) -> None:
            request = connection.read_request()
            if request is not None:
                connection.send(hello(name))
                if request.target == b"/warm":
                    connection.read_request()  # and close without an answer

        return script

    proxy = start(origin(once(b"a")), origin(once(b"b")), service={"sticky": STICKY})
    with proxy.client() as client:
        for _ in range(6):
            first = ask(client, target=b"/warm")
            again = ask(client, cookie_in(first), target=b"/x")
            assert (again.body, again.get(b"set-cookie")) == (first.body, None)


def test_a_full_upstream_keeps_its_sessions(start: Callable[..., Proxy], origin: OriginMaker, gate: Gate) -> None:
    proxy = start(origin(gate), origin(gate), service={"sticky": STICKY}, limits=Limits(upstream_connections=1))
    with proxy.client() as client, proxy.client() as holder:

        def where(cookie: bytes | None) -> tuple[object, Response]:
            client.send(request_bytes(fields=[(b"cookie", cookie)] if cookie else []))
            connection, _ = gate.next()
            connection.send(hello())
            gate.done(connection)
            return connection.origin, client.receive()

        home, first = where(None)
        cookie = cookie_in(first)
        assert cookie is not None
        holder.send(request_bytes(fields=[(b"cookie", cookie)]))
        holding, _ = gate.next()
        assert holding.origin is home
        elsewhere, answer = where(cookie)
        assert elsewhere is not home
        assert answer.get(b"set-cookie") is None
        holding.send(hello())
        gate.done(holding)
        holder.receive()
        assert where(cookie)[0] is home


def test_a_service_with_one_upstream_begins_sessions_too(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    proxy = start(origin(say(b"a")), service={"sticky": STICKY})
    with proxy.client() as client:
        cookie = cookie_in(ask(client))
        assert cookie is not None
        assert ask(client, cookie).get(b"set-cookie") is None


def test_a_tunnel_begins_a_session(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        connection.wait_closed()

    proxy = start(origin(script), service={"sticky": STICKY})
    with proxy.client() as client:
        client.send(request_bytes(fields=[(b"connection", b"upgrade"), (b"upgrade", b"websocket")]))
        head = client.receive_head()
        assert (head.status, head.get(b"upgrade")) == (101, b"websocket")
        assert head.get(b"set-cookie").startswith(b"srv=")
        assert client.read_bytes(2) == b"hi"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_responses_of_any_shape_begin_sessions(
    start: Callable[..., Proxy], origin: OriginMaker, version: bytes
) -> None:
    answers = [
        hello(b"x" * 5),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    ]

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(answers[int(request.target[1:])])

    proxy = start(origin(script), service={"sticky": STICKY})
    for number, status in enumerate((200, 200, 204, 404)):
        for method in (b"GET", b"POST"):
            with proxy.client() as client:
                body = b"up" if method == b"POST" else None
                first = client.request(method, b"/%d" % number, version=version, body=body)
                assert first.status == status
                assert first.get(b"set-cookie").startswith(b"srv="), first


def test_no_client_is_bound_to_an_upstream_that_answered_with_an_error(
    start: Callable[..., Proxy], origin: OriginMaker
) -> None:
    broken = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(broken)

    proxy = start(origin(script), origin(say(b"b")), service={"sticky": STICKY})
    with proxy.client() as client:
        answers = [ask(client) for _ in range(4)]
        assert [answer.get(b"set-cookie") is not None for answer in answers] == [
            answer.status == 200 for answer in answers
        ]
        assert {answer.status for answer in answers} == {200, 500}


def test_answers_of_minato_itself_begin_none(start: Callable[..., Proxy], three: list[Origin]) -> None:
    proxy = start(*three, service={"sticky": STICKY})
    for index in range(3):
        proxy.board.set_health(index, False)
    with proxy.client() as client:
        answer = ask(client)
        assert (answer.status, answer.get(b"set-cookie")) == (503, None)


# -- sticky sessions and the cache


CACHE = CacheConfig(enabled=True, capacity=100)
FRESH = b"Cache-Control: max-age=600"


def test_nothing_that_is_stored_has_a_cookie(start: Callable[..., Proxy], origin: OriginMaker) -> None:
    """The leader gets its own; plain hits, hot answers, HEAD, ranges and conditions are served without one."""
    app = origin(say(b"a", FRESH, b'ETag: "1"'))
    proxy = start(app, origin(say(b"b", FRESH, b'ETag: "1"')), service={"sticky": STICKY}, cache=CACHE)
    with proxy.client() as client:
        first = ask(client)
        assert first.get(b"set-cookie").startswith(b"srv=")
        assert b"stored" in first.get(b"cache-status")
        assert first.values(b"cache-control") == [b"max-age=600", KEEP]
        for _ in range(4):
            hit = ask(client)
            assert b"hit" in hit.get(b"cache-status")
            assert hit.get(b"set-cookie") is None
            assert hit.values(b"cache-control") == [b"max-age=600"]
        for extra in ((b"range", b"bytes=0-0"), (b"if-none-match", b'"1"')):
            answer = client.request(fields=[extra])
            assert answer.status in (206, 304)
            assert answer.get(b"set-cookie") is None
        assert client.request(b"HEAD").get(b"set-cookie") is None
    assert proxy.counted(Counter.CACHE_MISSES) == 1


@pytest.mark.parametrize("name", [b"CDN-Cache-Control", b"Other-CDN-Cache-Control", b"Surrogate-Control"])
def test_a_cache_in_front_that_follows_a_targeted_field_does_not_share_the_cookie(
    start: Callable[..., Proxy], origin: OriginMaker, name: bytes
) -> None:
    proxy = start(origin(say(b"a", FRESH, name + b": max-age=60")), service={"sticky": STICKY}, cache=CACHE)
    with proxy.client() as client:
        first = ask(client)
        assert first.get(b"set-cookie").startswith(b"srv=")
        assert first.values(name.lower()) == [b"max-age=60", b"no-store"]
        hit = ask(client)
        assert (hit.get(b"set-cookie"), hit.values(name.lower())) == (None, [b"max-age=60"])


def test_those_who_share_a_response_on_its_way_get_no_cookie(
    start: Callable[..., Proxy], origin: OriginMaker, gate: Gate
) -> None:
    proxy = start(origin(gate), service={"sticky": STICKY}, cache=CACHE)
    clients = [proxy.client() for _ in range(6)]
    try:
        for count, client in enumerate(clients, 1):
            client.send(request_bytes(target=b"/shared"))
            if count == 1:
                wait_for_active(proxy, 1)
        wait_for_active(proxy, 6)
        gate.answer(hello(b"shared", FRESH))
        answers = [client.receive() for client in clients]
    finally:
        for client in clients:
            client.close()
    assert [answer.get(b"set-cookie") is not None for answer in answers] == [True] + [False] * 5
    assert all(b"collapsed" in answer.get(b"cache-status") for answer in answers[1:])
    assert len({answer.body for answer in answers}) == 1


def test_each_that_has_to_ask_for_itself_gets_its_own(start: Callable[..., Proxy], three: list[Origin]) -> None:
    """Responses without lifetime are forwarded for each: so each client gets the cookie of where it went."""
    proxy = start(*three, service={"sticky": STICKY}, cache=CacheConfig(enabled=True, ttl_s=0))
    with proxy.client() as client:
        for turn in range(6):
            first = ask(client, target=b"/%d" % turn)
            assert ask(client, cookie_in(first), target=b"/%d" % turn).body == first.body
