"""Upstreams with caps: what is too much for them waits in the order it came, for so long and no longer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minato.config.affinity import StickyConfig
from minato.config.model import BalancerKind, CacheConfig, Limits, QueueConfig, Timeouts
from minato.net import room
from minato.net.room import Rooms
from minato.shared.board import Counter
from tests.net.gate import Gate, wait_for_active
from tests.net.proxy import OriginMaker, Proxy, ProxyMaker, echo_target, hello, refused_port
from tests.system.harness import Client, OriginConnection, request_bytes, wait_until
from tests.system.harness.wire import Truncated

QUEUE = QueueConfig(size=100, timeout_s=10.0)


@pytest.fixture(params=[True, False], ids=["express", "general"])
def express(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def capped(proxy: ProxyMaker, *origins: Any, cap: int = 1, queue: QueueConfig = QUEUE, **options: Any) -> Proxy:
    service = {"queue": queue, **options.pop("service", {})}
    return proxy(*origins, upstream={"max_connections": cap}, service=service, **options)


@contextlib.contextmanager
def asking(here: Proxy, *targets: bytes, method: bytes = b"GET") -> Iterator[list[Client]]:
    """Have a client ask for each target, one after the other."""
    clients = []
    active = here.counted(Counter.REQUESTS_ACTIVE)
    for count, target in enumerate(targets, 1):
        client = here.client()
        clients.append(client)
        client.send(request_bytes(method, target, body=b"body" if method == b"POST" else None))
        wait_for_active(here, active + count)
    yield clients
    for client in clients:
        client.close()


def waiting(here: Proxy) -> int:
    (service,) = here.server._context.services
    return here.call(lambda: len(service.room.queue) if service.room is not None else 0)


def nobody_waits(here: Proxy) -> bool:
    """Tell whether nothing is left of a wait: no queue, no poll, nothing on the board."""
    rooms: Rooms = here.server._context.rooms
    wait_until(lambda: not here.call(lambda: rooms._poll.is_set), "the end of the polling")
    return repr(rooms) == "<Rooms nobody waits>" and not any(here.board.waiting_since_ms(0))


def test_what_is_too_much_waits_and_is_served_in_its_order(
    express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), express=express)
    targets = [b"/%d" % number for number in range(8)]
    with asking(here, *targets) as clients:
        connection, request = gate.next()
        assert gate.is_quiet()
        assert waiting(here) == 7
        connection.send(hello(request.target))
        gate.done(connection)
        for target in targets[1:]:
            assert gate.answer(hello(target)).target == target
        assert [client.receive().body for client in clients] == targets
    assert here.counted(Counter.REQUESTS_QUEUED) == 7
    assert here.counted(Counter.QUEUE_TIMEOUTS) == here.counted(Counter.QUEUE_OVERFLOWS) == 0
    assert nobody_waits(here)


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_an_upstream_never_has_more_than_its_cap_and_always_as_many(
    cap: int, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), cap=cap)
    with asking(here, *[b"/%d" % number for number in range(15)]) as clients:
        for left in range(15, 0, -1):
            held = [gate.next() for _ in range(min(left, cap))]
            assert here.board.active(0) <= cap
            assert gate.asked.empty()
            for other in held[1:]:
                gate.asked.put(other)
            connection, request = held[0]
            connection.send(hello(request.target))
            gate.done(connection)
        assert {client.receive().status for client in clients} == {200}


def test_who_waits_has_its_turn_at_once_when_room_is_there(
    origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next poll only: a fast upstream with a cap would be made slow by it."""
    monkeypatch.setattr(room, "_POLL_S", 1000.0)
    here = capped(proxy, origin(echo_target))
    clients = [here.client() for _ in range(20)]
    for client in clients:
        client.send(request_bytes(target=b"/x") * 10)
    assert [client.receive().body for client in clients for _ in range(10)] == [b"/x"] * 200
    for client in clients:
        client.close()


def test_after_its_timeout_it_gets_a_503_that_says_when_to_come_back(
    express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(100, 0.3), express=express)
    with asking(here, b"/held") as (holding,), here.client() as late:
        began_s = time.monotonic()
        response = late.request(target=b"/late")
        assert (response.status, response.get(b"retry-after")) == (503, b"1")
        assert 0.28 <= time.monotonic() - began_s < 2
        assert not response.says_close()
        gate.answer(hello(b"held"))
        assert holding.receive().body == b"held"
        late.send(request_bytes(target=b"/again"))
        assert gate.answer(hello(b"again")).target == b"/again"
        assert late.receive().body == b"again"
    assert here.counted(Counter.QUEUE_TIMEOUTS) == 1
    assert "no room at an upstream of service s within 0.3 s; the request gets a 503" in caplog.text


def test_a_full_queue_is_a_503_at_once_and_said_once(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker, caplog: pytest.LogCaptureFixture
) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(2, 10))
    with asking(here, b"/0", b"/1", b"/2"), here.client() as client:
        for _ in range(3):
            response = client.request()
            assert (response.status, response.get(b"retry-after")) == (503, b"1")
        assert waiting(here) == 2
        for _ in range(3):
            gate.answer(hello())
    assert here.counted(Counter.QUEUE_OVERFLOWS) == 3
    assert caplog.text.count("2 requests wait for room already") == 1


def test_without_a_queue_full_is_a_503_at_once(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(0, 10))
    with asking(here, b"/held"), here.client() as client:
        assert client.request().status == 503
        gate.answer(hello())


def test_limits_are_the_default_and_an_upstream_may_lift_them(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    limits = Limits(upstream_connections=1)
    by_default = proxy(origin(gate), limits=limits)
    with asking(by_default, b"/1", b"/2") as clients:
        gate.answer(hello(b"1"))
        gate.answer(hello(b"2"))
        assert [client.receive().body for client in clients] == [b"1", b"2"]
    assert by_default.counted(Counter.REQUESTS_QUEUED) == 1
    lifted = proxy(origin(gate), limits=limits, upstream={"max_connections": 0})
    with asking(lifted, b"/1", b"/2"):
        both = [gate.next(), gate.next()]
        for connection, _ in both:
            connection.send(hello())
            gate.done(connection)


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_client_that_leaves_leaves_the_queue(ending: str, gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/held", b"/gone", b"/stays") as (holding, leaving, staying):
        leaving.close() if ending == "close" else leaving.reset()
        wait_until(lambda: waiting(here) == 1, "the client to be gone from the queue")
        assert here.board.active(0) == 1
        gate.answer(hello(b"held"))
        assert holding.receive().body == b"held"
        assert gate.answer(hello(b"stays")).target == b"/stays"
        assert staying.receive().body == b"stays"
    assert nobody_waits(here)


def test_nobody_healthy_any_more_is_a_503_for_all_who_wait(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/held", b"/1", b"/2") as (holding, *others):
        here.board.set_health(0, False)
        assert [client.receive().status for client in others] == [503, 503]
        gate.answer(hello(b"held"))
        assert holding.receive().body == b"held"
    assert here.counted(Counter.QUEUE_TIMEOUTS) == 0


def test_an_upstream_that_comes_back_takes_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), origin(echo_target))
    here.board.set_health(1, False)
    with asking(here, b"/held", b"/waits") as (_, client):
        assert waiting(here) == 1
        here.board.set_health(1, True)
        assert client.receive().body == b"/waits"
        gate.answer(hello())


@pytest.mark.parametrize("size", [100, 60_000, 400_000])
def test_a_body_waits_with_its_request_and_is_not_read_beyond_bounds(
    size: int, express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), express=express)
    body = bytes(range(250)) * (size // 250)
    with asking(here, b"/held") as (_,), here.client() as client:
        client.sock.settimeout(0.3)
        wire = request_bytes(b"POST", b"/upload", body=body)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(wire):
                sent += client.sock.send(wire[sent : sent + 16_384])
        wait_until(lambda: waiting(here) == 1, "the upload to wait")
        (downstream,) = [
            one for one in here.server._clients if one._exchange is not None and one._exchange.head.method == b"POST"
        ]
        time.sleep(0.1)
        assert here.call(lambda: downstream._codec.buffered_bytes) <= 2 * 65_536 + 32_768
        client.sock.settimeout(10)
        gate.answer(hello(b"held"))
        client.send(wire[sent:])
        assert gate.answer(hello(b"taken")).body == body
        assert client.receive().body == b"taken"


def test_a_body_that_trickles_while_its_request_waits_is_not_blamed(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), timeouts=Timeouts(client_body_s=0.2))
    wire = request_bytes(b"POST", b"/upload", body=b"x" * 100)
    with asking(here, b"/held"), here.client() as client:
        client.send(wire[:-50])
        time.sleep(0.5)  # longer than it may pause: but it is not the client that is waited for
        assert waiting(here) == 1
        gate.answer(hello())
        client.send(wire[-50:])
        assert gate.answer(hello(b"taken")).body == b"x" * 100
        assert client.receive().body == b"taken"


def test_pipelined_requests_wait_one_behind_the_other(
    express: bool, gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), express=express)
    with asking(here, b"/held"), here.client() as client:
        client.send(b"".join(request_bytes(target=b"/%d" % number) for number in range(5)))
        wait_until(lambda: waiting(here) == 1, "the first of them to wait")
        gate.answer(hello())
        for number in range(5):
            gate.answer(hello(b"%d" % number))
        assert [client.receive().body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_new_ones_do_not_overtake_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    """A kept-alive client that asks again as soon as it is answered does not keep the room to itself."""
    here = capped(proxy, origin(gate))
    with here.client() as busy:
        busy.send(request_bytes(target=b"/busy") * 4)
        wait_for_active(here, 1)
        with asking(here, b"/waits") as (patient,):
            order = [gate.answer(hello()).target for _ in range(3)]
            assert order == [b"/busy", b"/waits", b"/busy"]
            assert patient.receive().status == 200
            gate.answer(hello())
            gate.answer(hello())


def test_a_retry_goes_before_all_who_wait_and_holds_nobody_up(origin: OriginMaker, proxy: ProxyMaker) -> None:
    steady, failing = Gate(), Gate()
    here = capped(proxy, origin(steady), origin(failing))
    with asking(here, b"/0", b"/1", b"/2", b"/3") as clients:
        connection, request = failing.next()
        assert request.target == b"/1"
        connection.reset()
        failing.done(connection, stays=False)
        # The one that failed has room again. The retry may not go there, so who stands behind it does.
        assert failing.answer(hello(b"2")).target == b"/2"
        assert failing.answer(hello(b"3")).target == b"/3"
        assert waiting(here) == 1
        with asking(here, b"/4") as (late,):
            assert failing.next()[1].target == b"/4"
            with asking(here, b"/5") as (last,):
                steady.answer(hello(b"0"))
                assert steady.answer(hello(b"1")).target == b"/1"
                assert steady.answer(hello(b"5")).target == b"/5"
                assert last.receive().body == b"5"
            late.close()
        assert [client.receive().body for client in clients] == [b"0", b"1", b"2", b"3"]
    for connection in failing.pending:
        failing.done(connection, stays=False)
    assert here.counted(Counter.RETRIES) == 1


def test_a_stale_connection_of_the_only_upstream_is_replaced_within_the_cap(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    def close_at_second(connection: OriginConnection) -> None:
        for number in range(2):
            request = connection.read_request()
            if request is None or number:
                return
            connection.send(hello(request.target))

    here = capped(proxy, origin(close_at_second))
    with here.client() as client:
        assert [client.request(target=b"/%d" % number).status for number in range(6)] == [200] * 6
    assert here.board.active(0) == 0


def test_refused_connections_free_their_room(proxy: ProxyMaker) -> None:
    with refused_port() as dead:
        here = capped(proxy, dead)
        clients = [here.client() for _ in range(10)]
        for client in clients:
            client.send(request_bytes())
        assert [client.receive().status for client in clients] == [502] * 10
        for client in clients:
            client.close()


def test_a_drain_serves_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/0", b"/1", b"/2") as clients:
        here.drain()
        for number in range(3):
            gate.answer(hello(b"%d" % number))
        responses = [client.receive() for client in clients]
        assert [response.body for response in responses] == [b"0", b"1", b"2"]
        assert all(response.says_close() for response in responses)
        assert all(client.is_closed() for client in clients)
    assert here.drained.wait(5)


def test_the_drain_deadline_ends_who_still_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/0", b"/1"):
        here.drain(0.2)
        assert here.drained.wait(5)
        assert nobody_waits(here)


def test_collapsed_requests_wait_with_their_leader(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    cache = CacheConfig(enabled=True)
    here = capped(proxy, origin(gate), cache=cache)
    with asking(here, b"/held", b"/page", b"/page", b"/page") as (_, *same):
        assert waiting(here) == 1  # the leader
        gate.answer(hello())
        gate.answer(hello(b"page", b"Cache-Control: max-age=60"))
        assert [client.receive().body for client in same] == [b"page"] * 3
        assert gate.is_quiet()
    assert nobody_waits(here)


def test_a_leader_whose_client_leaves_keeps_its_place_for_the_others(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), cache=CacheConfig(enabled=True))
    with asking(here, b"/held", b"/page", b"/page") as (_, leading, following):
        leading.reset()
        wait_for_active(here, 3)
        assert waiting(here) == 1
        gate.answer(hello())
        gate.answer(hello(b"page", b"Cache-Control: max-age=60"))
        assert following.receive().body == b"page"


def test_followers_of_a_leader_that_waited_in_vain_do_not_wait_again(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker
) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(100, 0.5), cache=CacheConfig(enabled=True))
    began_s = time.monotonic()
    with asking(here, b"/held", *[b"/page"] * 6) as (_, *same):
        assert [client.receive().status for client in same] == [503] * 6
        assert time.monotonic() - began_s < 0.9
        gate.answer(hello())
    assert nobody_waits(here)


def test_a_stale_answer_is_better_than_none(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), queue=QueueConfig(100, 0.2), cache=CacheConfig(enabled=True))
    with here.client() as client:
        client.send(request_bytes(target=b"/page"))
        gate.answer(hello(b"stored", b"Cache-Control: max-age=0, stale-if-error=600", b'ETag: "1"'))
        assert client.receive().body == b"stored"
        with asking(here, b"/held"):
            assert client.request(target=b"/page").body == b"stored"
            gate.answer(hello())


def cookie_of(gate: Gate, client: Client) -> bytes:
    """Begin a session at the gate's origin and return its cookie."""
    client.send(request_bytes())
    gate.answer(hello())
    return (client.receive().get(b"set-cookie") or b"").partition(b";")[0]


def test_sessions_whose_upstream_is_full_go_to_one_with_room_and_else_wait(
    origin: OriginMaker, proxy: ProxyMaker
) -> None:
    home, other = Gate(), Gate()
    here = capped(proxy, origin(home), origin(other), service={"sticky": StickyConfig("srv")})
    with here.client() as first:
        cookie = cookie_of(home, first)
        clients = [here.client() for _ in range(4)]
        for count, client in enumerate(clients, 1):
            client.send(request_bytes(target=b"/%d" % count, fields=[(b"cookie", cookie)]))
            wait_for_active(here, count)
        assert waiting(here) == 2
        assert home.answer(hello(b"1")).target == b"/1"
        assert home.answer(hello(b"3")).target == b"/3"
        assert other.answer(hello(b"2")).target == b"/2"
        answered = [client.receive() for client in clients[:3]]
        assert [response.body for response in answered] == [b"1", b"2", b"3"]
        assert not any(response.get(b"set-cookie") for response in answered)
        gate, connection = wait_until(lambda: _poll_both(home, other), "the last one")
        connection.send(hello(b"4"))
        gate.done(connection)
        assert clients[3].receive().body == b"4"
        for client in clients:
            client.close()


def test_sessions_do_not_overtake_who_waits(gate: Gate, origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = capped(proxy, origin(gate), service={"sticky": StickyConfig("srv")})
    with here.client() as first:
        cookie = cookie_of(gate, first)
        wire = request_bytes(target=b"/session", fields=[(b"cookie", cookie)])
        first.send(wire * 3)
        wait_for_active(here, 1)
        with asking(here, b"/waits") as (patient,):
            assert [gate.answer(hello()).target for _ in range(3)] == [b"/session", b"/waits", b"/session"]
            assert patient.receive().status == 200
            gate.answer(hello())


def test_what_is_hashed_waits_and_goes_where_there_is_room(origin: OriginMaker, proxy: ProxyMaker) -> None:
    one, two = Gate(), Gate()
    service = {"balancer": BalancerKind.CONSISTENT_HASH}
    here = capped(proxy, origin(one), origin(two), service=service)
    with asking(here, b"/same", b"/same", b"/same") as clients:
        both = [one.next(), two.next()]  # the first where it belongs, the second where there was room
        assert waiting(here) == 1
        for gate, (connection, _) in zip((one, two), both, strict=True):
            connection.send(hello(b"x"))
            gate.done(connection)
        third = wait_until(lambda: _poll_both(one, two), "the third one")
        third[1].send(hello(b"x"))
        third[0].done(third[1])
        assert [client.receive().body for client in clients] == [b"x"] * 3


def _poll_both(*gates: Gate) -> tuple[Gate, OriginConnection] | None:
    for gate in gates:
        if not gate.asked.empty():
            return gate, gate.next()[0]
    return None


def test_a_tunnel_takes_room_until_its_end(origin: OriginMaker, proxy: ProxyMaker) -> None:
    def switch(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.get(b"upgrade"):
                connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
                connection.wait_closed()
                return
            connection.send(hello(request.target))

    here = capped(proxy, origin(switch))
    with here.client() as tunnel, here.client() as client:
        tunnel.send(request_bytes(fields=[(b"Connection", b"upgrade"), (b"Upgrade", b"x")]))
        assert tunnel.receive_head().status == 101
        client.send(request_bytes(target=b"/waits"))
        wait_until(lambda: waiting(here) == 1, "the request to wait")
        tunnel.close()
        assert client.receive().body == b"/waits"


def test_a_bug_in_one_turn_is_none_for_those_behind_it(
    gate: Gate, origin: OriginMaker, proxy: ProxyMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = capped(proxy, origin(gate))
    with asking(here, b"/held", b"/bug", b"/fine") as (_, broken, fine):
        (service,) = here.server._context.services
        assert service.room is not None
        first = here.call(lambda: service.room.queue.first(()))
        monkeypatch.setattr(type(first), "on_turn", _fail_for(type(first).on_turn, b"/bug"))
        gate.answer(hello())
        with pytest.raises((Truncated, ConnectionError)):
            broken.receive()
        assert gate.answer(hello(b"fine")).target == b"/fine"
        assert fine.receive().body == b"fine"
    assert nobody_waits(here)


def _fail_for(on_turn: Any, target: bytes) -> Any:
    def fail(self: Any) -> None:
        if self.head.target == target:
            raise ZeroDivisionError
        on_turn(self)

    return fail


def test_services_without_caps_have_no_room_to_look_after(origin: OriginMaker, proxy: ProxyMaker) -> None:
    here = proxy(origin(echo_target))
    with here.client() as client:
        assert client.request(target=b"/x").body == b"/x"
    (service,) = here.server._context.services
    assert service.room is None
    assert service.only is service.upstreams[0]
    assert not service.only.is_watched
